//! Classified errors that keep what the database said.

/// What kind of error, portable over databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The configuration is wrong; nothing was sent.
    Config,
    /// No connection: host, port, name resolution, TLS, time-out. Nothing was sent.
    Unreachable,
    /// The server refused the credentials or the database's name.
    Refused,
    /// The connection broke while something was going on.
    Lost,
    /// Chosen as the victim of a deadlock. The transaction is rolled back.
    Deadlock,
    /// Could not be serialized. The transaction is rolled back.
    Serialization,
    /// Waited too long for a lock.
    LockTimeout,
    /// The statement was cancelled on the server, by us or by a time-out.
    Cancelled,
    /// Syntax, or a name that does not exist.
    Syntax,
    /// A constraint: unique, foreign key, not null, check.
    Constraint,
    /// No right to do that; read-only transaction or store.
    Permission,
    /// Disk full, too many connections, out of memory.
    Resources,
    /// The observer stopped the statement ([`Observer`](crate::Observer) returned a stop).
    Stopped,
    /// Anything else that the database refused.
    Other,
}

impl ErrorKind {
    /// True when the same statement may succeed if it is run again unchanged.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Unreachable | Self::Lost | Self::Deadlock | Self::Serialization | Self::LockTimeout | Self::Resources => true,
            Self::Config
            | Self::Refused
            | Self::Cancelled
            | Self::Syntax
            | Self::Constraint
            | Self::Permission
            | Self::Stopped
            | Self::Other => false,
        }
    }
}

/// An error of a connector. `Display` names the operation; the driver's words are the source. Neither ever shows a secret.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct Error {
    /// The kind.
    pub kind: ErrorKind,
    /// What was being done: `connect to sales_db (postgresql://app@127.0.0.1:5432/sales)`.
    pub operation: String,
    /// The database's message, one line.
    pub message: String,
    /// Five characters, where the database has it.
    pub sqlstate: Option<String>,
    /// The database's own code, as text (MySQL's 1213, SQLite's 2067).
    pub native_code: Option<String>,
    /// In characters, from 1, within the statement, where the database tells.
    pub position: Option<u32>,
    /// The database's detail and hint lines.
    pub detail: Option<String>,
    /// What to do, where the database or we know.
    pub hint: Option<String>,
    /// The driver's error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error without a driver behind it.
    pub fn new(kind: ErrorKind, operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation: operation.into(),
            message: message.into(),
            sqlstate: None,
            native_code: None,
            position: None,
            detail: None,
            hint: None,
            source: None,
        }
    }

    /// True of MySQL's answer about a savepoint that is not there: the transaction it was set in is over, unless an error before it has
    /// [rolled all back](Self::may_have_rolled_all_back).
    pub fn is_of_a_lost_savepoint(&self) -> bool {
        self.native_code.as_deref() == Some("1305")
    }

    /// True of errors with which MySQL may take back the whole transaction, savepoints included: a deadlock, a conflict, with
    /// `innodb_rollback_on_timeout` a wait for a lock, and a full table of locks (1206).
    pub fn may_have_rolled_all_back(&self) -> bool {
        matches!(self.kind, ErrorKind::Deadlock | ErrorKind::Serialization | ErrorKind::LockTimeout)
            || self.native_code.as_deref() == Some("1206")
    }

    /// A wrong configuration.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, "read the connection's settings", message)
    }
}
