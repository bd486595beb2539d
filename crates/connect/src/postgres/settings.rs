//! The settings of a PostgreSQL connection.

use crate::config::{Config, Secret};
use crate::error::Error;
use crate::settings;
use std::path::PathBuf;
use std::time::Duration;

/// Server settings that a session starts with. They travel in the startup message, so RESET ALL comes back to them.
const SERVER_SETTINGS: &[&str] = &[
    "application_name",
    "options",
    "search_path",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
    "role",
    "client_connection_check_interval",
];

/// How often a server looks whether the client of a running statement is still there (PostgreSQL 14 and newer, where its system can tell):
/// so that the statement of a process that died does not go on for hours.
pub(super) const CONNECTION_CHECK: (&str, &str) = ("client_connection_check_interval", "2s");

const OUR_SETTINGS: &[&str] =
    &["sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "keepalives_idle", "keepalives_interval"];

/// Airflow sets these; they steer its own Python drivers.
const IGNORED_SETTINGS: &[&str] = &[
    "cursor",
    "enable_log_db_messages",
    "sqlalchemy_scheme",
    "sqlalchemy_query",
    "client_encoding",
    "keepalives",
    "target_session_attrs",
];

/// How far TLS goes, as libpq defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Everything that opening a session needs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) id: String,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) database: String,
    pub(super) ssl_mode: SslMode,
    pub(super) ssl_root_cert: Option<PathBuf>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) connect_timeout: Duration,
    pub(super) keepalives_idle: Duration,
    pub(super) keepalives_interval: Duration,
    pub(super) startup: Vec<(String, String)>,
    /// The connection has an `application_name` of its own, which stays as it is.
    pub(super) is_named: bool,
}

impl Settings {
    pub(super) fn read(config: &Config) -> Result<Self, Error> {
        settings::check_keys(config, &[OUR_SETTINGS, SERVER_SETTINGS].concat(), IGNORED_SETTINGS)?;
        let ssl_mode = ssl_mode(config)?;
        let user = config.login.clone().filter(|login| !login.is_empty()).unwrap_or_else(|| "postgres".to_owned());
        let mut startup: Vec<_> = SERVER_SETTINGS
            .iter()
            .filter_map(|key| settings::text(config, key).map(|value| ((*key).to_owned(), value.to_owned())))
            .collect();
        let is_named = settings::text(config, "application_name").is_some();
        if !is_named {
            startup.push(("application_name".to_owned(), "backstop".to_owned()));
        }
        Ok(Self {
            id: config.id.clone(),
            host: config.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| "localhost".to_owned()),
            port: config.port.unwrap_or(5432),
            database: config.database.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| user.clone()),
            user,
            password: config.password.clone(),
            ssl_mode,
            ssl_root_cert: settings::path(config, "sslrootcert").filter(|path| !path.ends_with("system")),
            ssl_cert: settings::path(config, "sslcert"),
            ssl_key: settings::path(config, "sslkey"),
            connect_timeout: settings::seconds(config, "connect_timeout", Duration::from_secs(10))?,
            keepalives_idle: settings::seconds(config, "keepalives_idle", Duration::from_secs(60))?,
            keepalives_interval: settings::seconds(config, "keepalives_interval", Duration::from_secs(15))?,
            startup,
            is_named,
        })
    }

    /// The same, for the session of a lookout: it says what it is, and gives up soon.
    pub(super) fn of_lookout(&self) -> Self {
        let mut settings = self.clone();
        settings.startup.retain(|(name, _)| !matches!(name.as_str(), "application_name" | "statement_timeout" | "lock_timeout"));
        let own = [("application_name", "backstop watch"), ("statement_timeout", "5s"), ("lock_timeout", "1s")];
        settings.startup.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        settings
    }

    /// True when nothing is said of [`CONNECTION_CHECK`] in the connection.
    pub(super) fn wants_connection_check(&self) -> bool {
        self.startup.iter().all(|(name, _)| name != CONNECTION_CHECK.0)
    }

    /// Where the server is.
    pub(super) fn server(&self) -> String {
        format!("postgresql://{}:{}", self.host, self.port)
    }

    /// True when the host is the folder of a Unix socket.
    pub(super) fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Where it leads, without the password.
    pub(super) fn target(&self) -> String {
        if self.is_unix() {
            return format!("postgresql://{}@[{}/.s.PGSQL.{}]/{}", self.user, self.host, self.port, self.database);
        }
        format!("postgresql://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }

    /// The operation's name in errors of opening a session.
    pub(super) fn connecting(&self) -> String {
        format!("connect to {} ({})", self.id, self.target())
    }
}

fn ssl_mode(config: &Config) -> Result<SslMode, Error> {
    match settings::text(config, "sslmode") {
        None | Some("prefer" | "allow") => Ok(SslMode::Prefer),
        Some("disable") => Ok(SslMode::Disable),
        // As libpq: a root certificate that was given is used.
        Some("require") if config.extra.contains_key("sslrootcert") => Ok(SslMode::VerifyCa),
        Some("require") => Ok(SslMode::Require),
        Some("verify-ca") => Ok(SslMode::VerifyCa),
        Some("verify-full") => Ok(SslMode::VerifyFull),
        Some(other) => Err(settings::wrong(config, "sslmode", other, "disable, prefer, require, verify-ca or verify-full")),
    }
}
