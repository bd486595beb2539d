//! The seam: what every database implements.

use crate::error::Error;
use crate::error::ErrorKind;
use crate::lookout::Lookout;
use crate::marker::{MarkerKey, MarkerRow, MarkerTable, Probe};
use crate::prepared::{Ended, Ending, Gid, Prepared};
use crate::script::Dialect;
use crate::value::{Column, Value};
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a name in [`Session::introduce`] that every server keeps.
pub const NAME_BYTES_MAX: usize = 63;

/// What a kind of database can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Statements can be grouped and rolled back.
    pub transactions: bool,
    /// DDL rolls back with its transaction.
    pub transactional_ddl: bool,
    /// A marker and the statements can commit together.
    pub markers: bool,
    /// Savepoints.
    pub savepoints: bool,
    /// A running statement can be killed on the server.
    pub cancel: bool,
    /// Prepared transactions over databases.
    pub two_phase: bool,
}

/// A kind of database with its settings. Cheap to share.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The lexical rules of its scripts.
    fn dialect(&self) -> Dialect;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Where it leads, without any secret: `postgresql://app@127.0.0.1:5432/sales`.
    fn target(&self) -> String;

    /// Opens a session.
    ///
    /// # Errors
    /// `Config`, `Unreachable` or `Refused`; the message says which of host, port, user, database, TLS is to blame.
    async fn open(&self) -> Result<Box<dyn Session>, Error>;

    /// The server that it leads to, without user and database: sessions of connectors with the same server have ids of one kind.
    fn server(&self) -> String {
        self.target()
    }

    /// True when [`Self::lookout`] gives one.
    fn has_lookout(&self) -> bool {
        false
    }

    /// Opens a session from which others can be watched; `None` where a kind of database has nothing to see.
    ///
    /// # Errors
    /// As [`Self::open`].
    async fn lookout(&self) -> Result<Option<Box<dyn Lookout>>, Error> {
        Ok(None)
    }
}

/// One statement to run.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The statement, without its terminator. Parameters are already in the dialect's own notation.
    pub sql: &'a str,
    /// In the order of the placeholders.
    pub parameters: &'a [Value],
    /// The data lines that follow a `COPY ... FROM STDIN`.
    pub copy_data: Option<&'a str>,
}

/// What one statement did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatementOutcome {
    /// Rows changed, as the server tells; `None` where it does not.
    pub rows_affected: Option<u64>,
    /// Rows received.
    pub rows_returned: u64,
    /// From sending (or the answer to the statement before it in the same message) to the last answer. In PostgreSQL the last statement
    /// of a unit that is sent whole includes the commit.
    pub duration: Duration,
}

/// Told what happens while statements run. Called in order, on the session's task; must not block.
pub trait Observer: Send {
    /// The statement with this place in the unit was sent.
    fn started(&mut self, _place: usize) {}

    /// A result begins.
    fn columns(&mut self, _place: usize, _columns: &[Column]) {}

    /// A row. Rows are streamed: nothing keeps them unless the observer does.
    ///
    /// # Errors
    /// A message stops the statement: it is cancelled on the server and fails with `ErrorKind::Stopped`.
    fn row(&mut self, _place: usize, _row: &[Value]) -> Result<(), String> {
        Ok(())
    }

    /// The server said something (a notice, a warning).
    fn notice(&mut self, _place: usize, _text: &str) {}

    /// The statement ended well.
    fn finished(&mut self, _place: usize, _outcome: &StatementOutcome) {}

    /// The result to keep in the marker, JSON; asked after the last statement, only when `Unit::keeps_result`.
    fn result(&mut self) -> Option<String> {
        None
    }
}

/// An observer that ignores everything.
#[derive(Debug, Default)]
pub struct Ignore;

impl Observer for Ignore {}

/// How a unit is wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// In a transaction that ends with the marker and a commit.
    Marked {
        /// Where the marker goes.
        table: MarkerTable,
        /// Under which key.
        key: MarkerKey,
        /// SHA-256 of statements and parameters, hex.
        digest: String,
        /// True when an earlier process may have committed this unit already: the key is looked up before anything runs.
        check_first: bool,
    },
    /// In a read-only transaction, which the server enforces.
    ReadOnly,
    /// In a transaction without a marker (at least once).
    Unmarked,
    /// In a transaction that is always rolled back: a dry run, or a script's own ROLLBACK.
    RolledBack,
    /// Without a transaction: statements that refuse one, or commit by themselves.
    Bare,
}

/// Statements that take effect together.
#[derive(Clone, Debug)]
pub struct Unit<'a> {
    /// In order.
    pub calls: &'a [Call<'a>],
    /// The script's own BEGIN statement (`BEGIN ISOLATION LEVEL SERIALIZABLE`), where it has one.
    pub begin: Option<&'a str>,
    /// How they commit.
    pub wrap: Wrap,
    /// True when [`Observer::result`] must be read before the marker is written.
    pub keeps_result: bool,
}

/// How a transaction is opened that several scripts share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The server's own by default. SQLite knows only [`Isolation::Serializable`], and has it always.
    pub isolation: Option<Isolation>,
    /// How long a statement may wait for a lock; MySQL counts whole seconds, at least one.
    pub lock_timeout: Option<Duration>,
    /// It will be prepared under this id by [`Session::prepare_marked`], and is a branch of a transaction over several databases.
    pub branch: Option<Gid>,
}

/// What a transaction sees of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed when it began.
    ReadCommitted,
    /// All statements see what was committed when the first began.
    RepeatableRead,
    /// As if there were no others.
    Serializable,
}

impl Isolation {
    /// The words of the SQL standard.
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::ReadCommitted => "READ COMMITTED",
            Self::RepeatableRead => "REPEATABLE READ",
            Self::Serializable => "SERIALIZABLE",
        }
    }
}

/// How a unit ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitOutcome {
    /// It ran, and the commit (or the wanted rollback) was acknowledged.
    Done,
    /// It had committed before (a marker with this key was there); what ran now was rolled back.
    AlreadyCommitted(MarkerRow),
}

/// How a unit did not end well.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// Its session was lost before anything of it began: no more than its opening was sent, or the server says that it read nothing. The
    /// same unit may run in another session.
    #[error("not begun")]
    NotBegun {
        /// Why.
        #[source]
        error: Error,
    },
    /// Nothing of it took effect.
    #[error("rolled back")]
    RolledBack {
        /// The statement that failed, by place; `None` for begin, marker or commit.
        place: Option<usize>,
        /// Why.
        #[source]
        error: Error,
    },
    /// It wrote, though it was wrapped as `ReadOnly`; nothing took effect. Run it again `Marked`.
    #[error("it writes")]
    Writes,
    /// The marker table is not there and could not be made; nothing took effect.
    #[error("no marker table")]
    NoMarkerTable {
        /// The statement for a DBA to run.
        ddl: String,
        /// Why it could not be made.
        #[source]
        error: Error,
    },
    /// The key holds a tombstone: this attempt was fenced off. Nothing took effect.
    #[error("fenced off")]
    Fenced,
    /// A statement ended the unit's transaction inside, as a procedure of MySQL that commits can: what ran up to there has taken effect, what it
    /// did behind that may have, and there is no marker.
    #[error("its transaction was ended inside")]
    EndedInside {
        /// The statement that did so, where it is known.
        place: Option<usize>,
        /// What failed behind that, or that it was noticed.
        #[source]
        error: Error,
    },
    /// The statements before `place` took effect; the one at `place` did not, as far as the server says. `Wrap::Bare`, and in MySQL any
    /// wrap in which a statement turned out to commit by itself (`place` is then the one after it, and nothing more was run).
    #[error("failed without a transaction")]
    Partial {
        /// The statement that failed.
        place: usize,
        /// Why.
        #[source]
        error: Error,
    },
    /// The connection broke when a commit (or a bare statement) may have been on its way: the outcome is not known.
    #[error("outcome unknown")]
    Unknown {
        /// Why.
        #[source]
        error: Error,
    },
}

fn cannot_prepare() -> Error {
    let mut error = Error::new(ErrorKind::Config, "prepare a transaction", "this kind of database cannot prepare transactions");
    error.hint = Some("PostgreSQL, MySQL and MariaDB can".to_owned());
    error
}

/// Kills what a session is running, from another connection.
#[async_trait]
pub trait Canceller: Send + Sync {
    /// Asks the server to kill the running statement. Harmless when nothing runs. The statement itself then fails with
    /// `ErrorKind::Cancelled`, unless it finished first. Wait for the answer before the session is used for anything else, so that the
    /// request cannot hit the next statement.
    ///
    /// # Errors
    /// When the server could not be asked.
    async fn cancel(&self) -> Result<(), Error>;
}

/// One open link to a database. Not shared: one task uses it at a time.
#[async_trait]
pub trait Session: Send {
    /// A handle that can cancel this session's statement from elsewhere.
    fn canceller(&self) -> Arc<dyn Canceller>;

    /// The server's name of this session (backend pid, thread id), for people and for monitoring.
    fn server_id(&self) -> String;

    /// Says on whose behalf the session works from the next unit on, so that people who look at the server see it. Costs no round trip of
    /// its own; where the server has no place for it nothing happens. At most [`NAME_BYTES_MAX`] bytes are kept; an empty name is none.
    fn introduce(&mut self, _name: &str) {}

    /// Ends what other sessions of this user still do under a name that they were given by [`Self::introduce`]: their statements die, and
    /// what they did not commit is rolled back. `except` are sessions that stay, by [`Self::server_id`]. Returns how many were ended; 0
    /// where the server has no place for names.
    ///
    /// # Errors
    /// When the server refuses, or the link is lost. Some may have been ended.
    async fn end_leftovers(&mut self, _name: &str, _except: &[String]) -> Result<usize, Error> {
        Ok(0)
    }

    /// How many other sessions of this user run a statement under a name, or have a transaction open where that is seen, too; `except` as
    /// for [`Self::end_leftovers`]. `None` where nothing of that can be seen.
    ///
    /// # Errors
    /// When the server refuses, or the link is lost.
    async fn leftovers(&mut self, _name: &str, _except: &[String]) -> Result<Option<usize>, Error> {
        Ok(None)
    }

    /// False once the link is broken or its state is doubtful: close it.
    fn is_usable(&self) -> bool;

    /// False when the server has ended a session that lay idle, as far as that can be seen from here: it costs no round trip, so that true
    /// promises nothing.
    fn is_alive(&mut self) -> bool {
        self.is_usable()
    }

    /// Runs one statement in whatever transaction is open, streaming its rows to the observer as place `place`.
    async fn execute(&mut self, call: &Call<'_>, place: usize, observer: &mut dyn Observer) -> Result<StatementOutcome, Error>;

    /// Opens a transaction; `begin` is the script's own statement, or `None` for the dialect's plain one.
    async fn begin(&mut self, begin: Option<&str>) -> Result<(), Error>;

    /// Commits.
    async fn commit(&mut self) -> Result<(), Error>;

    /// Rolls back.
    async fn rollback(&mut self) -> Result<(), Error>;

    /// Sets a savepoint; the name is an identifier made by us.
    async fn savepoint(&mut self, name: &str) -> Result<(), Error>;

    /// Rolls back to a savepoint.
    async fn rollback_to(&mut self, name: &str) -> Result<(), Error>;

    /// Opens a transaction that several scripts share, and that [`Self::commit_marked`] ends. `markers` is where its marker will go: the
    /// table is made before, because DDL may commit. `None` when the transaction will be rolled back.
    ///
    /// # Errors
    /// `RolledBack` or `NoMarkerTable`: no transaction is open.
    async fn open_transaction(&mut self, terms: &Terms, markers: Option<&MarkerTable>) -> Result<(), UnitError>;

    /// Writes the marker in the open transaction, and commits both.
    ///
    /// # Errors
    /// As [`Self::run_unit`] with [`Wrap::Marked`].
    async fn commit_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError>;

    /// Why the server cannot prepare transactions, with the setting to change; `None` when it can.
    ///
    /// # Errors
    /// When the server could not be asked.
    async fn two_phase_fault(&mut self) -> Result<Option<Error>, Error> {
        Ok(Some(cannot_prepare()))
    }

    /// Writes the marker in the transaction that was opened as this branch, and prepares both: from then on nothing but
    /// [`Self::end_prepared`] ends it, and the session may be used for that alone, or be closed, which lets go of it. Where a reset
    /// would not, the session cannot be reset.
    ///
    /// # Errors
    /// As [`Self::commit_marked`]; `Unknown` when it may be prepared.
    async fn prepare_marked(
        &mut self,
        _table: &MarkerTable,
        _key: &MarkerKey,
        _digest: &str,
        _gid: &Gid,
    ) -> Result<(), UnitError> {
        Err(UnitError::RolledBack { place: None, error: cannot_prepare() })
    }

    /// Commits a prepared branch, or rolls it back.
    ///
    /// # Errors
    /// When the server refuses, or the link is lost: then it may have been done.
    async fn end_prepared(&mut self, _gid: &Gid, _ending: Ending) -> Result<Ended, Error> {
        Err(cannot_prepare())
    }

    /// All transactions that are prepared in the session's database, or on the server where databases share them; ours and those of others.
    ///
    /// # Errors
    /// When the server refuses, or the link is lost.
    async fn list_prepared(&mut self) -> Result<Vec<Prepared>, Error> {
        Ok(Vec::new())
    }

    /// False when the last statement that went well has ended the transaction it ran in, by itself: some commit implicitly.
    fn transaction_is_open(&self) -> bool {
        true
    }

    /// Runs a unit to its commit, in as few round trips as the database allows. Makes the marker table on first use.
    async fn run_unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError>;

    /// Finds out about an attempt: looks for the marker, else leaves a tombstone under its key, waiting at most `wait` for a
    /// transaction that holds the key.
    async fn probe(&mut self, table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error>;

    /// The marker table's name as this session's SQL writes it; `None` when the table is not there. Makes nothing.
    async fn marker_table_name(&mut self, _table: &MarkerTable) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Forgets everything a task may have left behind (settings, temporary tables, locks), so that another can use the session.
    async fn reset(&mut self) -> Result<(), Error>;

    /// As [`Self::reset`], but put off until the session is used again, or until `reset` is called; costs no round trip of its own.
    /// False when this session cannot: then call `reset`. Until then locks and settings stay, so whoever keeps a session idle calls
    /// `reset` soon.
    fn reset_with_next(&mut self) -> bool {
        false
    }

    /// Says goodbye. Dropping does the same less politely.
    async fn close(self: Box<Self>);
}
