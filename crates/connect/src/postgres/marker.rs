//! The marker table in PostgreSQL.
//!
//! Its place is found once, from the search path that the session began with, and the name is always qualified: a script that changes
//! the search path still leaves its marker where the next attempt looks for it.

use super::session::{Failure, PostgresSession, quoted, text_of};
use crate::error::{Error, ErrorKind};
use crate::marker::{Found, MarkerKey, MarkerRow, MarkerTable, OUTCOME_TOMBSTONE, Probe};
use crate::value::Value;
use std::time::Duration;

/// How often a race with other sessions that make the same table, or take and free the same key, is run again.
const RACE_TRIES: u32 = 8;

/// A row to insert.
pub(super) struct Row<'a> {
    pub(super) key: &'a MarkerKey,
    pub(super) outcome: &'a str,
    pub(super) digest: &'a str,
    pub(super) rows_affected: i64,
    pub(super) result: Option<String>,
}

pub(super) fn insert_sql(table: &str) -> String {
    format!(
        "INSERT INTO {table} (run, task, map_index, segment, kind, try_number, outcome, digest, rows_affected, result) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    )
}

pub(super) fn insert_parameters(row: Row<'_>) -> Vec<Value> {
    let mut parameters = key_parameters(row.key);
    parameters.extend([
        Value::Text(row.outcome.to_owned()),
        Value::Text(row.digest.to_owned()),
        Value::Int(row.rows_affected),
        row.result.map_or(Value::Null, Value::Text),
    ]);
    parameters
}

fn key_parameters(key: &MarkerKey) -> Vec<Value> {
    vec![
        Value::Text(key.run.clone()),
        Value::Text(key.task.clone()),
        Value::Int(key.map_index.into()),
        Value::Int(key.segment.into()),
        Value::Text(key.kind.clone()),
        Value::Int(key.try_number.into()),
    ]
}

fn create_sql(name: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {name} (\n  \
         run text COLLATE \"C\" NOT NULL,\n  \
         task text COLLATE \"C\" NOT NULL,\n  \
         map_index integer NOT NULL,\n  \
         segment integer NOT NULL,\n  \
         kind text COLLATE \"C\" NOT NULL,\n  \
         try_number integer NOT NULL,\n  \
         outcome text NOT NULL,\n  \
         digest text NOT NULL,\n  \
         rows_affected bigint NOT NULL,\n  \
         result text,\n  \
         written_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),\n  \
         PRIMARY KEY (run, task, map_index, segment, kind, try_number)\n)"
    )
}

impl PostgresSession {
    /// The table's qualified name, where the table exists or could be made.
    pub(super) async fn ensure_marker_table(&mut self, table: &MarkerTable) -> Result<String, Error> {
        if let Some(known) = lock(&self.shared.tables).get(table) {
            return Ok(known.clone());
        }
        let (name, exists) = self.locate(table).await?;
        if !exists {
            self.create_marker_table(table, &name).await?;
        }
        lock(&self.shared.tables).insert(table.clone(), name.clone());
        Ok(name)
    }

    pub(super) fn forget_marker_table(&self, table: &MarkerTable) {
        lock(&self.shared.tables).remove(table);
    }

    /// What a DBA runs where we may not make the table.
    pub(super) fn marker_ddl(&self, table: &MarkerTable) -> String {
        let schema = table.schema.as_ref().or(self.schemas.first());
        let name = schema.map_or_else(|| quoted(&table.name), |schema| qualified(schema, &table.name));
        let user = quoted(&self.shared.settings.user);
        format!("{};\nGRANT SELECT, INSERT, DELETE ON {name} TO {user};", create_sql(&name))
    }

    /// Where the table is, or else where it belongs: the first schema of the path that has it, else the first of the path.
    pub(super) async fn locate(&mut self, table: &MarkerTable) -> Result<(String, bool), Error> {
        let schemas = table.schema.as_ref().map_or_else(|| self.schemas.clone(), |schema| vec![schema.clone()]);
        let Some(first) = schemas.first() else {
            let mut error = Error::new(ErrorKind::Config, "find the marker table", "the search path names no schema that exists");
            error.hint = Some("set the marker table's schema, or the connection's `search_path`".to_owned());
            return Err(error);
        };
        let sql = "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1::name AND c.relname = $2::name";
        for schema in &schemas {
            let parameters = [Value::Text(schema.clone()), Value::Text(table.name.clone())];
            let rows = self.query(sql, &parameters).await.map_err(Failure::into_error)?;
            if !rows.is_empty() {
                return Ok((qualified(schema, &table.name), true));
            }
        }
        Ok((qualified(first, &table.name), false))
    }

    /// Several sessions may do this at once; the losers see one of several errors, and then the table.
    async fn create_marker_table(&mut self, table: &MarkerTable, name: &str) -> Result<(), Error> {
        let mut tries_left = RACE_TRIES;
        loop {
            let error = match self.command(&create_sql(name)).await {
                Ok(_) => return Ok(()),
                Err(Failure::Lost(error)) => return Err(error),
                Err(failure) => failure.into_error(),
            };
            let is_race = matches!(error.sqlstate.as_deref(), Some("23505" | "42P07" | "42710" | "XX000" | "40P01"));
            let lacks_schema = error.sqlstate.as_deref() == Some("3F000");
            if tries_left == 0 || !(is_race || lacks_schema) {
                return Err(Error { operation: format!("make the marker table {name}"), ..error });
            }
            tries_left -= 1;
            if let (true, Some(schema)) = (lacks_schema, &table.schema) {
                let made = self.command(&format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema))).await;
                if let Err(failure) = made {
                    let error = failure.into_error();
                    if !matches!(error.sqlstate.as_deref(), Some("23505" | "42P06")) {
                        return Err(error);
                    }
                }
            }
        }
    }

    pub(super) async fn find_marker(&mut self, table: &str, key: &MarkerKey) -> Result<Option<Found>, Error> {
        let sql = format!(
            "SELECT outcome, digest, rows_affected, result, \
             pg_catalog.to_char(written_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM {table} \
             WHERE run = $1 AND task = $2 AND map_index = $3 AND segment = $4 AND kind = $5 AND try_number = $6"
        );
        let rows = self.query(&sql, &key_parameters(key)).await.map_err(Failure::into_error)?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        let mut columns = row.into_iter().map(text_of);
        let mut next = || columns.next().flatten();
        let outcome = next().unwrap_or_default();
        let row = MarkerRow {
            digest: next().unwrap_or_default(),
            rows_affected: next().and_then(|count| count.parse().ok()).unwrap_or(-1),
            result: next(),
            written_at: next().unwrap_or_default(),
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
                Err(error) if is_missing(&error) => {
                    self.forget_marker_table(table);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let error = match self.leave_tombstone(&name, key, wait).await {
                Ok(()) => return Ok(Probe::Fenced),
                Err(failure) => failure.into_error(),
            };
            self.roll_back().await?;
            match error.sqlstate.as_deref() {
                // Lock time-out: whoever holds the key is still at it.
                Some("55P03") => return Ok(Probe::StillRunning),
                // The marker or another prober's tombstone came in between: read again.
                Some("23505" | "40P01") => {}
                _ if is_missing(&error) => self.forget_marker_table(table),
                _ => return Err(error),
            }
        }
        Ok(Probe::StillRunning)
    }

    async fn leave_tombstone(&mut self, name: &str, key: &MarkerKey, wait: Duration) -> Result<(), Failure> {
        // 0 would mean to wait for ever.
        let wait_ms = wait.as_millis().clamp(1, i32::MAX.unsigned_abs().into());
        let row = Row { key, outcome: OUTCOME_TOMBSTONE, digest: "", rows_affected: 0, result: None };
        let refused = Failure::Refused;
        self.put_command("BEGIN READ WRITE", &[]).map_err(refused)?;
        self.put_command(&format!("SET LOCAL lock_timeout = {wait_ms}"), &[]).map_err(refused)?;
        self.put_command(&insert_sql(name), &insert_parameters(row)).map_err(refused)?;
        self.put_command("COMMIT", &[]).map_err(refused)?;
        self.put_sync();
        let answers = async {
            for _ in 0..4 {
                self.read_command().await?;
            }
            Ok(())
        };
        let answers = answers.await;
        self.read_ready(0, &mut crate::session::Ignore, answers).await
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error.sqlstate.as_deref(), Some("42P01" | "3F000"))
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
