//! Databases: how to open a session, run statements, commit exactly once, cancel from outside, and classify what went wrong.
//!
//! This crate must not know: runs, DAGs, tasks, the store, YAML, templates. It sees statements, parameters, marker keys.
//!
//! Where to go next: [`session`] for the seam that every database implements, [`script`] for splitting SQL text into statements
//! and segments, [`marker`] for the exactly-once protocol and [`prune`] for the markers nobody needs any more, [`prepared`] for transactions over several databases, [`lookout`] for watching sessions at work, [`error`]
//! for classified errors; then one module a database.

pub mod config;
pub mod error;
pub mod lookout;
pub mod marker;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod prepared;
pub mod prune;
pub mod script;
pub mod session;
mod settings;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod value;
mod words;

pub use config::{Config, Secret};
pub use error::{Error, ErrorKind};
pub use lookout::{Blocker, Lookout, Progress, Sighting, View};
pub use marker::{MarkerKey, MarkerRow, MarkerTable, Probe};
pub use prepared::{Ended, Ending, Gid, Prepared};
pub use script::Dialect;
pub use session::{Canceller, Capabilities, Connector, Isolation, Observer, Session, Terms, Unit, UnitError, UnitOutcome};
pub use value::{Column, Value};

use std::sync::Arc;

/// Makes the connector for a configured connection. It does no IO: the first `open` does.
///
/// # Errors
/// [`ErrorKind::Config`] when the type is not known (or its feature is off), or a setting is missing or wrong.
pub fn connector(config: &Config) -> Result<Arc<dyn Connector>, Error> {
    match config.conn_type.as_str() {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Arc::new(postgres::PostgresConnector::new(config)?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Arc::new(sqlite::SqliteConnector::new(config)?)),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Arc::new(mysql::MySqlConnector::new(config)?)),
        other => Err(unknown_type(config, other)),
    }
}

/// The connection types that this build knows.
const KNOWN_TYPES: &[&str] = &[
    #[cfg(feature = "postgres")]
    "postgres",
    #[cfg(feature = "postgres")]
    "postgresql",
    #[cfg(feature = "mysql")]
    "mysql",
    #[cfg(feature = "mysql")]
    "mariadb",
    #[cfg(feature = "sqlite")]
    "sqlite",
];

fn unknown_type(config: &Config, conn_type: &str) -> Error {
    let guess = settings::closest(conn_type, KNOWN_TYPES).map_or(String::new(), |guess| format!("; did you mean `{guess}`?"));
    let mut error = Error::config(format!("connection `{}`: type `{conn_type}` is not known{guess}", config.id));
    error.hint = Some(format!("known types: {}", KNOWN_TYPES.join(", ")));
    error
}
