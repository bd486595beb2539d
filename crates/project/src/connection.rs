//! Connections as Airflow writes them: URIs, JSON, variables of the environment.

use crate::definition::Connection;

/// Why a connection could not be read. It never holds the text it was read from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConnectionError(pub String);

/// Reads `postgres://user:password@host:5432/database?key=value`.
///
/// # Errors
/// When the text is no such URI. The message holds nothing of the password.
pub fn parse_uri(text: &str, origin: &str) -> Result<Connection, ConnectionError> {
    let _ = (text, origin);
    Err(ConnectionError("not a URI".to_owned()))
}

/// Reads `{"conn_type": "postgres", "host": ...}`.
///
/// # Errors
/// When the text is no such JSON. The message holds no value.
pub fn parse_json(text: &str, origin: &str) -> Result<Connection, ConnectionError> {
    let _ = (text, origin);
    Err(ConnectionError("not JSON".to_owned()))
}
