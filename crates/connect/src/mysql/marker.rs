//! The marker table in MySQL and MariaDB. DDL commits by itself here, so the table is made outside of any unit.
//!
//! The table's database is the connection's own unless configured, never the one a script chose with USE. Keys compare by `utf8mb4_bin`;
//! that ignores trailing spaces, which [`MarkerKey::check`] therefore refuses, as it does parts longer than their columns.

use super::session::{Failure, MySqlSession};
use super::settings::quoted;
use crate::error::{Error, ErrorKind};
use crate::marker::{Found, KEY_PART_CHARS_MAX, KIND_CHARS_MAX, MarkerKey, MarkerRow, MarkerTable, OUTCOME_TOMBSTONE, Probe};
use crate::value::Value;
use std::time::Duration;

/// How often a race with other sessions is run again.
const RACE_TRIES: u32 = 8;

/// A row to insert.
pub(super) struct Row<'a> {
    pub(super) key: &'a MarkerKey,
    pub(super) outcome: &'a str,
    pub(super) digest: &'a str,
    pub(super) rows_affected: i64,
    pub(super) result: Option<String>,
}

/// The whole INSERT as text, so that COMMIT can go in the same packet. Texts are hexadecimal literals: no SQL mode changes how they read.
pub(super) fn insert_sql(table: &str, row: &Row<'_>) -> String {
    let key = row.key;
    format!(
        "INSERT INTO {table} (run, task, map_index, segment, kind, try_number, outcome, digest, rows_affected, result) \
         VALUES ({}, {}, {}, {}, {}, {}, {}, {}, {}, {})",
        literal(&key.run),
        literal(&key.task),
        key.map_index,
        key.segment,
        literal(&key.kind),
        key.try_number,
        literal(row.outcome),
        literal(row.digest),
        row.rows_affected,
        row.result.as_deref().map_or_else(|| "NULL".to_owned(), literal)
    )
}

fn literal(text: &str) -> String {
    if text.is_empty() {
        return "''".to_owned();
    }
    text.bytes().fold("_utf8mb4 0x".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn create_sql(name: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {name} (\n  \
         run VARCHAR({KEY_PART_CHARS_MAX}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,\n  \
         task VARCHAR({KEY_PART_CHARS_MAX}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,\n  \
         map_index INT NOT NULL,\n  \
         segment INT NOT NULL,\n  \
         kind VARCHAR({KIND_CHARS_MAX}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL,\n  \
         try_number INT NOT NULL,\n  \
         outcome VARCHAR(20) NOT NULL,\n  \
         digest VARCHAR(128) NOT NULL,\n  \
         rows_affected BIGINT NOT NULL,\n  \
         result LONGTEXT CHARACTER SET utf8mb4,\n  \
         written_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),\n  \
         PRIMARY KEY (run, task, map_index, segment, kind, try_number)\n\
         ) ENGINE = InnoDB ROW_FORMAT = DYNAMIC"
    )
}

impl MySqlSession {
    /// The table's qualified name.
    pub(super) fn marker_name(&self, table: &MarkerTable) -> Result<String, Error> {
        let Some(database) = table.schema.as_ref().or(self.shared.settings.database.as_ref()) else {
            let mut error =
                Error::config(format!("connection `{}` names no database to keep the markers in", self.shared.settings.id));
            error.hint = Some("set the connection's database, or the marker table's schema".to_owned());
            return Err(error);
        };
        Ok(format!("{}.{}", quoted(database), quoted(&table.name)))
    }

    /// The table's qualified name, once the table exists.
    pub(super) async fn ensure_marker_table(&mut self, table: &MarkerTable) -> Result<String, Error> {
        let name = self.marker_name(table)?;
        if lock(&self.shared.tables).contains(table) {
            return Ok(name);
        }
        // A look first: creating what exists needs the right to create.
        let look = format!("SELECT 1 FROM {name} LIMIT 0");
        match self.query(&look).await {
            Ok(_) => {}
            Err(failure) => {
                let error = failure.into_error();
                if error.native_code.as_deref() != Some("1146") {
                    return Err(error);
                }
                self.query(&create_sql(&name)).await.map_err(|failure| {
                    let error = failure.into_error();
                    Error { operation: format!("make the marker table {name}"), ..error }
                })?;
            }
        }
        lock(&self.shared.tables).insert(table.clone());
        Ok(name)
    }

    /// The table's qualified name, when the table exists.
    pub(super) async fn find_marker_table(&mut self, table: &MarkerTable) -> Result<Option<String>, Error> {
        let name = self.marker_name(table)?;
        match self.query(&format!("SELECT 1 FROM {name} LIMIT 0")).await.map_err(Failure::into_error) {
            Ok(_) => Ok(Some(name)),
            // No such table, no such database.
            Err(error) if matches!(error.native_code.as_deref(), Some("1146" | "1049")) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn forget_marker_table(&self, table: &MarkerTable) {
        lock(&self.shared.tables).remove(table);
    }

    /// What a DBA runs where we may not make the table.
    pub(super) fn marker_ddl(&self, table: &MarkerTable) -> String {
        let name = self.marker_name(table).unwrap_or_else(|_| quoted(&table.name));
        let user = self.shared.settings.user.replace('\'', "''");
        format!("{};\nGRANT SELECT, INSERT, DELETE ON {name} TO '{user}'@'%';", create_sql(&name))
    }

    pub(super) async fn find_marker(&mut self, name: &str, key: &MarkerKey) -> Result<Option<Found>, Error> {
        let sql = format!(
            "SELECT outcome, digest, rows_affected, result, \
             DATE_FORMAT(CONVERT_TZ(written_at, @@session.time_zone, '+00:00'), '%Y-%m-%dT%H:%i:%s.%fZ') FROM {name} \
             WHERE run = {} AND task = {} AND map_index = {} AND segment = {} AND kind = {} AND try_number = {}",
            literal(&key.run),
            literal(&key.task),
            key.map_index,
            key.segment,
            literal(&key.kind),
            key.try_number
        );
        let rows = self.query(&sql).await.map_err(Failure::into_error)?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let mut columns = row.into_iter();
        let mut text = || match columns.next() {
            Some(Value::Text(text) | Value::Json(text) | Value::Decimal(text)) => Some(text),
            Some(Value::Int(number)) => Some(number.to_string()),
            _ => None,
        };
        let outcome = text().unwrap_or_default();
        let row = MarkerRow {
            digest: text().unwrap_or_default(),
            rows_affected: text().and_then(|count| count.parse().ok()).unwrap_or(-1),
            result: text(),
            written_at: text().unwrap_or_default(),
        };
        Found::from_columns(&outcome, row).map(Some)
    }

    pub(super) async fn probe_marker(&mut self, table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error> {
        key.check()?;
        for _ in 0..RACE_TRIES {
            let name = self.ensure_marker_table(table).await?;
            match self.find_marker(&name, key).await {
                Ok(Some(Found::Committed(row))) => return Ok(Probe::Committed(row)),
                Ok(Some(Found::Tombstone)) => return Ok(Probe::Fenced),
                Ok(None) => {}
                Err(error) if error.native_code.as_deref() == Some("1146") => {
                    self.forget_marker_table(table);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let row = Row { key, outcome: OUTCOME_TOMBSTONE, digest: "", rows_affected: 0, result: None };
            let error = match self.insert_within(&insert_sql(&name, &row), wait).await {
                Ok(()) => return Ok(Probe::Fenced),
                Err(error) => error,
            };
            match error.native_code.as_deref() {
                Some("1205") => return Ok(Probe::StillRunning),
                // The marker or another prober's tombstone came in between: read again.
                Some("1062" | "1213" | "1020") => {}
                Some("1146") => self.forget_marker_table(table),
                _ => return Err(error),
            }
        }
        Ok(Probe::StillRunning)
    }

    /// One INSERT that commits by itself, with a limit on its wait for locks. The limit has whole seconds, at least one.
    async fn insert_within(&mut self, sql: &str, wait: Duration) -> Result<(), Error> {
        let seconds = wait.as_secs().clamp(1, 1_073_741_824);
        let before = self.query("SELECT @@session.innodb_lock_wait_timeout").await.map_err(Failure::into_error)?;
        let before = match before.first().and_then(|row| row.first()) {
            Some(Value::Int(seconds)) => *seconds,
            _ => return Err(Error::new(ErrorKind::Other, "probe a marker", "the server does not tell its lock wait limit")),
        };
        self.query(&format!("SET SESSION innodb_lock_wait_timeout = {seconds}")).await.map_err(Failure::into_error)?;
        let inserted = self.query(sql).await;
        if let Err(Failure::Lost(error)) = inserted {
            return Err(error);
        }
        self.query(&format!("SET SESSION innodb_lock_wait_timeout = {before}")).await.map_err(Failure::into_error)?;
        inserted.map(|_| ()).map_err(Failure::into_error)
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
