//! The marker table in SQLite. DDL is transactional here, so the table is made in the transaction that first needs it.

use super::error::classified;
use crate::error::Error;
use crate::marker::{Found, MarkerKey, MarkerRow, MarkerTable};
use rusqlite::{Connection, OptionalExtension, params};

/// The qualified, quoted name. Without a schema it is the main database: a script's temporary table cannot take its place.
pub(super) fn qualified(table: &MarkerTable) -> String {
    format!("{}.{}", quoted(table.schema.as_deref().unwrap_or("main")), quoted(&table.name))
}

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

pub(super) fn create_sql(table: &MarkerTable) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
         run TEXT NOT NULL,\n  \
         task TEXT NOT NULL,\n  \
         map_index INTEGER NOT NULL,\n  \
         segment INTEGER NOT NULL,\n  \
         kind TEXT NOT NULL,\n  \
         try_number INTEGER NOT NULL,\n  \
         outcome TEXT NOT NULL,\n  \
         digest TEXT NOT NULL,\n  \
         rows_affected INTEGER NOT NULL,\n  \
         result TEXT,\n  \
         written_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),\n  \
         PRIMARY KEY (run, task, map_index, segment, kind, try_number)\n) WITHOUT ROWID",
        qualified(table)
    )
}

/// Whether the table exists.
pub(super) fn is_there(connection: &Connection, table: &MarkerTable, operation: &str) -> Result<bool, Error> {
    let schema = quoted(table.schema.as_deref().unwrap_or("main"));
    let known = format!("SELECT 1 FROM {schema}.sqlite_master WHERE type = 'table' AND name = ?1 COLLATE NOCASE");
    let found = connection.query_row(&known, [&table.name], |_| Ok(())).optional();
    Ok(found.map_err(|source| classified(operation, source))?.is_some())
}

/// Looks for a marker; a missing table means a missing marker.
pub(super) fn find(
    connection: &Connection,
    table: &MarkerTable,
    key: &MarkerKey,
    operation: &str,
) -> Result<Option<Found>, Error> {
    if !is_there(connection, table, operation)? {
        return Ok(None);
    }
    let sql = format!(
        "SELECT outcome, digest, rows_affected, result, written_at FROM {} \
         WHERE run = ?1 AND task = ?2 AND map_index = ?3 AND segment = ?4 AND kind = ?5 AND try_number = ?6",
        qualified(table)
    );
    let row =
        connection.query_row(&sql, params![key.run, key.task, key.map_index, key.segment, key.kind, key.try_number], |row| {
            let found =
                MarkerRow { digest: row.get(1)?, rows_affected: row.get(2)?, result: row.get(3)?, written_at: row.get(4)? };
            Ok((row.get::<_, String>(0)?, found))
        });
    match row.optional().map_err(|source| classified(operation, source))? {
        None => Ok(None),
        Some((outcome, row)) => Found::from_columns(&outcome, row).map(Some),
    }
}

/// A row to insert.
pub(super) struct Row<'a> {
    pub(super) key: &'a MarkerKey,
    pub(super) outcome: &'a str,
    pub(super) digest: &'a str,
    pub(super) rows_affected: i64,
    pub(super) result: Option<String>,
}

/// Inserts a row, making the table first where it is missing.
pub(super) fn insert(connection: &Connection, table: &MarkerTable, row: &Row<'_>) -> rusqlite::Result<()> {
    connection.execute(&create_sql(table), [])?;
    let sql = format!(
        "INSERT INTO {} (run, task, map_index, segment, kind, try_number, outcome, digest, rows_affected, result) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        qualified(table)
    );
    let key = row.key;
    let values = params![
        key.run,
        key.task,
        key.map_index,
        key.segment,
        key.kind,
        key.try_number,
        row.outcome,
        row.digest,
        row.rows_affected,
        row.result
    ];
    connection.execute(&sql, values).map(|_| ())
}
