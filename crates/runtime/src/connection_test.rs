//! Whether a connection can be used: it is opened, asked something twice, and its marker table is looked for.

use backstop_connect::session::Call;
use backstop_connect::{Connector, Dialect, Error, MarkerTable, Observer, Session, Value};
use std::sync::Arc;
use std::time::Instant;

/// What a test found, as far as it came.
#[derive(Debug, Default)]
pub struct Tested {
    /// What is connected to, without secrets.
    pub target: Option<String>,
    /// The server's own words.
    pub server_version: Option<String>,
    /// To open a session.
    pub open_ms: Option<f64>,
    /// For a query that does nothing.
    pub round_trip_ms: Option<f64>,
    /// Whether the marker table is there; `None` where the database can have none.
    pub has_marker_table: Option<bool>,
    /// Why it cannot be used.
    pub error: Option<Error>,
}

/// Tests a connection. `markers` is the table it is configured with.
pub async fn test_connection(connector: &Arc<dyn Connector>, markers: &MarkerTable) -> Tested {
    let mut tested = Tested { target: Some(connector.target()), ..Tested::default() };
    tested.error = try_out(connector, markers, &mut tested).await.err();
    tested
}

async fn try_out(connector: &Arc<dyn Connector>, markers: &MarkerTable, tested: &mut Tested) -> Result<(), Error> {
    let before = Instant::now();
    let mut session = connector.open().await?;
    tested.open_ms = Some(milliseconds(before));
    // The first query may pay for what the session prepares; the second tells the way there and back.
    first_value(&mut *session, "SELECT 1").await?;
    let before = Instant::now();
    first_value(&mut *session, "SELECT 1").await?;
    tested.round_trip_ms = Some(milliseconds(before));
    tested.server_version = first_value(&mut *session, version_query(connector.dialect())).await?;
    if connector.capabilities().markers {
        tested.has_marker_table = Some(session.marker_table_name(markers).await?.is_some());
    }
    session.close().await;
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 100_000.0).round() / 100.0
}

fn version_query(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::PostgreSql | Dialect::MySql => "SELECT version()",
        Dialect::Sqlite => "SELECT 'SQLite ' || sqlite_version()",
        Dialect::SqlServer => "SELECT @@VERSION",
        Dialect::Oracle => "SELECT banner FROM v$version",
        Dialect::Generic => "SELECT 1",
    }
}

/// Keeps the first value of the first row.
#[derive(Default)]
struct First(Option<String>);

impl Observer for First {
    fn row(&mut self, _: usize, row: &[Value]) -> Result<(), String> {
        if self.0.is_none() {
            self.0 = row.first().map(in_words);
        }
        Ok(())
    }
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}

async fn first_value(session: &mut dyn Session, sql: &str) -> Result<Option<String>, Error> {
    let mut first = First::default();
    session.execute(&Call { sql, parameters: &[], copy_data: None }, 0, &mut first).await?;
    Ok(first.0)
}
