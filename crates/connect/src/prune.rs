//! Markers that nobody needs any more: which runs have them, and how they go.
//!
//! A marker is evidence as long as its run may go on. Which runs are over is not known here: the caller says it, run by run.

use crate::error::{Error, ErrorKind};
use crate::marker::MarkerTable;
use crate::script::Dialect;
use crate::session::{Call, Ignore, Observer, Session};
use crate::value::Value;
use std::time::Duration;

/// A run with old markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedRun {
    /// Its id.
    pub run: String,
    /// How many markers it has.
    pub markers: u64,
}

/// Runs per call, at most: each is a placeholder of the statement.
pub const RUNS_MAX: usize = 100;
/// Rows that one statement deletes, at most: it commits by itself, so this bounds its locks and its log.
pub const ROWS_MAX: u64 = 1000;

/// The markers of one database.
pub struct Markers<'s> {
    session: &'s mut dyn Session,
    dialect: Dialect,
    /// Qualified and quoted.
    table: String,
}

impl<'s> Markers<'s> {
    /// Finds the marker table; `None` when there is none.
    ///
    /// # Errors
    /// When the database cannot be asked, or is of a kind that keeps no markers.
    pub async fn find(session: &'s mut dyn Session, dialect: Dialect, table: &MarkerTable) -> Result<Option<Self>, Error> {
        match dialect {
            Dialect::PostgreSql | Dialect::MySql | Dialect::Sqlite => {}
            Dialect::SqlServer | Dialect::Oracle | Dialect::Generic => {
                return Err(Error::new(ErrorKind::Config, "find the marker table", "this kind of database keeps no markers"));
            }
        }
        let found = session.marker_table_name(table).await?;
        Ok(found.map(|table| Self { session, dialect, table }))
    }

    /// Runs whose newest marker is older than this by the database's clock, by id, from behind `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn old_runs(&mut self, older_than: Duration, after: &str, limit: u32) -> Result<Vec<MarkedRun>, Error> {
        let (table, cutoff, behind) = (&self.table, self.cutoff(older_than), self.placeholder(1));
        let sql = format!(
            "SELECT run, COUNT(*) FROM {table} WHERE run > {behind} GROUP BY run HAVING MAX(written_at) < {cutoff} \
             ORDER BY run LIMIT {limit}"
        );
        let mut found = Found::default();
        let parameters = [Value::Text(after.to_owned())];
        self.session.execute(&Call { sql: &sql, parameters: &parameters, copy_data: None }, 0, &mut found).await?;
        Ok(found.0)
    }

    /// Deletes markers of these runs (at most [`RUNS_MAX`]) that are older than this: at most [`ROWS_MAX`] of them, in one statement that
    /// commits by itself. Returns how many went; fewer than that many means that none is left.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn prune(&mut self, runs: &[String], older_than: Duration) -> Result<u64, Error> {
        if runs.is_empty() {
            return Ok(0);
        }
        let places: Vec<String> = (1..=runs.len()).map(|place| self.placeholder(place)).collect();
        let (table, key) = (&self.table, "run, task, map_index, segment, kind, try_number");
        let wanted = format!("run IN ({}) AND written_at < {}", places.join(", "), self.cutoff(older_than));
        let sql = match self.dialect {
            Dialect::MySql => format!("DELETE FROM {table} WHERE {wanted} LIMIT {ROWS_MAX}"),
            Dialect::PostgreSql | Dialect::Sqlite | Dialect::SqlServer | Dialect::Oracle | Dialect::Generic => {
                format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {wanted} LIMIT {ROWS_MAX})")
            }
        };
        let parameters: Vec<Value> = runs.iter().map(|run| Value::Text(run.clone())).collect();
        let call = Call { sql: &sql, parameters: &parameters, copy_data: None };
        let outcome = self.session.execute(&call, 0, &mut Ignore).await?;
        Ok(outcome.rows_affected.unwrap_or(0))
    }

    /// The moment that lies so far back, by the database's own clock: the one that dated the markers.
    fn cutoff(&self, older_than: Duration) -> String {
        let seconds = older_than.as_secs();
        match self.dialect {
            Dialect::PostgreSql => format!("pg_catalog.now() - {seconds} * interval '1 second'"),
            Dialect::MySql => format!("CURRENT_TIMESTAMP(6) - INTERVAL {seconds} SECOND"),
            Dialect::Sqlite | Dialect::SqlServer | Dialect::Oracle | Dialect::Generic => {
                format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{seconds} seconds')")
            }
        }
    }

    fn placeholder(&self, place: usize) -> String {
        match self.dialect {
            Dialect::PostgreSql => format!("${place}"),
            Dialect::Sqlite => format!("?{place}"),
            Dialect::MySql | Dialect::SqlServer | Dialect::Oracle | Dialect::Generic => "?".to_owned(),
        }
    }
}

/// Collects runs and their counts.
#[derive(Default)]
struct Found(Vec<MarkedRun>);

impl Observer for Found {
    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        let [run, markers] = row else { return Err("a row of two columns was expected".to_owned()) };
        let run = match run {
            Value::Text(run) => run.clone(),
            other => return Err(format!("a run's id is no text: {other:?}")),
        };
        let markers = match markers {
            Value::Int(count) => u64::try_from(*count).unwrap_or(0),
            Value::UInt(count) => *count,
            other => return Err(format!("a count is no number: {other:?}")),
        };
        self.0.push(MarkedRun { run, markers });
        Ok(())
    }
}
