//! SQLite, in process: each session has a thread of its own that owns the connection, because SQLite blocks.
//!
//! Reading order: `session` for the async side, `worker` for the thread and what it does, `marker` for the table; `value`, `error`
//! and `missing` translate.

mod error;
mod lookout;
mod marker;
mod missing;
mod session;
mod value;
mod worker;

use crate::config::Config;
use crate::error::Error;
use crate::lookout::Lookout;
use crate::script::Dialect;
use crate::session::{Capabilities, Connector, Session};
use crate::settings;
use async_trait::async_trait;
use std::path::{Path, PathBuf};
use std::time::Duration;

const KNOWN_SETTINGS: &[&str] = &["journal_mode", "synchronous", "busy_timeout", "foreign_keys", "mode"];

/// What every session opens.
#[derive(Clone, Debug)]
struct Settings {
    id: String,
    /// `None` is a private database in memory.
    path: Option<PathBuf>,
    /// The path was written relative to the project's folder.
    is_relative: bool,
    journal_mode: String,
    synchronous: String,
    busy_timeout: Duration,
    foreign_keys: bool,
    mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Opened for reading and writing, and made if it is not there.
    Create,
    /// Opened for reading and writing.
    Write,
    /// Opened for reading.
    Read,
}

impl Settings {
    fn read(config: &Config) -> Result<Self, Error> {
        settings::check_keys(config, KNOWN_SETTINGS, &["sqlalchemy_scheme", "sqlalchemy_query"])?;
        // Airflow keeps the file's path in the host.
        let place = config.database.as_deref().filter(|name| !name.is_empty()).or(config.host.as_deref()).unwrap_or_default();
        if place.is_empty() {
            let message = format!("connection `{}`: the database is missing: give the file's path, or `:memory:`", config.id);
            return Err(Error::config(message));
        }
        Ok(Self {
            id: config.id.clone(),
            path: (place != ":memory:").then(|| config.base_dir.join(place)),
            is_relative: Path::new(place).is_relative(),
            journal_mode: one_of(config, "journal_mode", "wal", &["wal", "delete", "truncate", "persist", "memory", "off"])?,
            synchronous: one_of(config, "synchronous", "full", &["full", "extra", "normal", "off"])?,
            busy_timeout: settings::seconds(config, "busy_timeout", Duration::from_secs(60))?,
            foreign_keys: settings::truth(config, "foreign_keys", true)?,
            mode: match one_of(config, "mode", "rwc", &["rwc", "rw", "ro"])?.as_str() {
                "ro" => Mode::Read,
                "rw" => Mode::Write,
                _ => Mode::Create,
            },
        })
    }

    fn target(&self) -> String {
        self.path.as_ref().map_or_else(|| "sqlite::memory:".to_owned(), |path| format!("sqlite:{}", path.display()))
    }
}

fn one_of(config: &Config, key: &str, default: &str, known: &[&str]) -> Result<String, Error> {
    let value = settings::text(config, key).unwrap_or(default).to_ascii_lowercase();
    if known.contains(&value.as_str()) { Ok(value) } else { Err(settings::wrong(config, key, &value, &known.join(", "))) }
}

/// Opens sessions on one SQLite database.
pub struct SqliteConnector {
    settings: Settings,
}

impl SqliteConnector {
    /// Reads the settings; opens nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when a setting is unknown or wrong, or the path is missing.
    pub fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self { settings: Settings::read(config)? })
    }
}

#[async_trait]
impl Connector for SqliteConnector {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            transactions: true,
            transactional_ddl: true,
            markers: true,
            savepoints: true,
            cancel: true,
            two_phase: false,
        }
    }

    fn target(&self) -> String {
        self.settings.target()
    }

    async fn open(&self) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(session::SqliteSession::open(self.settings.clone()).await?))
    }

    fn has_lookout(&self) -> bool {
        true
    }

    async fn lookout(&self) -> Result<Option<Box<dyn Lookout>>, Error> {
        Ok(Some(Box::new(lookout::SqliteLookout)))
    }
}
