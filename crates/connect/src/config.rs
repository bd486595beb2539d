//! A configured connection, as data.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A password or token. It has no `Display`, and its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself: for a driver, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a connector needs to open sessions. Fields as Airflow names them.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The connection's id, for messages.
    pub id: String,
    /// `postgres`, `mysql` (also MariaDB) or `sqlite`.
    pub conn_type: String,
    /// Host name, address, or the folder of a Unix socket.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// User.
    pub login: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Database name (Airflow's `schema`); for SQLite the file's path, or `:memory:`.
    pub database: Option<String>,
    /// Everything else, by key: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`, `connect_timeout`, `application_name`, `search_path`...
    /// An unknown key is an error that lists the known ones.
    pub extra: BTreeMap<String, String>,
    /// The folder that relative paths start from.
    pub base_dir: PathBuf,
}
