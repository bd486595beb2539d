//! One session: running statements, and the seam's calls that are not about units.

use super::Shared;
use super::error::{classified, opening};
use super::settings::{SslMode, quoted};
use super::value::{column, decode, encode};
use crate::error::{Error, ErrorKind};
use crate::marker::{MarkerKey, MarkerTable, Probe};
use crate::prepared::{Ended, Ending, Gid, Prepared};
use crate::session::{Call, Canceller, NAME_BYTES_MAX, Observer, Session, StatementOutcome, Terms, Unit, UnitError, UnitOutcome};
use crate::value::{Column, Value};
use async_trait::async_trait;
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{Conn, DriverError, Params, QueryResult};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How many warnings of one statement are fetched.
const WARNINGS_MAX: usize = 64;
/// How long a session that was killed is waited for.
const ROLLBACK_SECONDS_MAX: u32 = 10;

/// Why a statement did not end well.
pub(super) enum Failure {
    /// The server refused; the session goes on.
    Refused(Error),
    /// The observer stopped it.
    Stopped(Error),
    /// The link is gone.
    Lost(Error),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) | Self::Stopped(error) | Self::Lost(error) => error,
        }
    }
}

/// One open link to a MySQL or MariaDB database.
pub(super) struct MySqlSession {
    pub(super) shared: Arc<Shared>,
    conn: Conn,
    pub(super) is_lost: bool,
    /// It was opened or reset, and may have lain idle since: nothing was run in it that the server has answered.
    pub(super) was_idle: bool,
    /// Something is going on. A caller that goes away in the middle leaves it set, which is right: half an answer is still on its way.
    is_engaged: bool,
    /// On whose behalf it works. A comment before each statement of the user says it in the process list; a session that does nothing shows
    /// no statement, so one with an open transaction holds a lock of that name.
    name: Option<String>,
    /// The branch whose transaction is open in it: it ends by statements of its own.
    pub(super) branch: Option<Gid>,
    /// It is prepared, and stays so whatever becomes of the session.
    pub(super) is_prepared: bool,
    pub(super) operation: String,
}

/// Opens the driver's connection within the connect time-out, with TLS as far as the settings want it.
async fn connect(shared: &Shared) -> Result<Conn, Error> {
    let settings = &shared.settings;
    let wants_tls = match settings.ssl_mode {
        SslMode::Disabled => false,
        SslMode::Preferred => !shared.lacks_tls.load(Ordering::Relaxed),
        SslMode::Required | SslMode::VerifyCa | SslMode::VerifyIdentity => true,
    };
    if wants_tls {
        // The driver takes the process's default; a composition root that chose one before keeps its choice.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let connecting = async {
        match Conn::new(settings.options(wants_tls)).await {
            Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))
                if settings.ssl_mode == SslMode::Preferred =>
            {
                shared.lacks_tls.store(true, Ordering::Relaxed);
                Conn::new(settings.options(false)).await
            }
            opened => opened,
        }
    };
    match tokio::time::timeout(settings.connect_timeout, connecting).await {
        Ok(opened) => opened.map_err(|source| opening(settings, source)),
        Err(_) => {
            let message = format!("no answer from {} within {:?}", settings.place(), settings.connect_timeout);
            let mut error = Error::new(ErrorKind::Unreachable, settings.connecting(), message);
            error.hint = Some("check host, port and firewall, or raise `connect_timeout`".to_owned());
            Err(error)
        }
    }
}

impl MySqlSession {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        let conn = connect(&shared).await?;
        let operation = format!("run a statement on {}", shared.settings.id);
        Ok(Self {
            shared,
            conn,
            is_lost: false,
            was_idle: true,
            is_engaged: false,
            name: None,
            branch: None,
            is_prepared: false,
            operation,
        })
    }

    fn failed(&mut self, sql: &str, source: mysql_async::Error) -> Failure {
        let error = classified(&self.operation, sql, source);
        if error.kind == ErrorKind::Lost {
            self.is_lost = true;
            return Failure::Lost(error);
        }
        Failure::Refused(error)
    }

    /// True while the server has a transaction open, by its last answer.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.conn.last_ok_packet().is_some_and(|answer| answer.status_flags().contains(StatusFlags::SERVER_STATUS_IN_TRANS))
    }

    /// Runs our own text and returns the rows of its first result.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, Failure> {
        self.query_parts(sql).await.map_err(|(_, failure)| failure)
    }

    /// The same, telling which of several statements in the text failed: 0 for the first.
    pub(super) async fn query_parts(&mut self, sql: &str) -> Result<Vec<Vec<Value>>, (usize, Failure)> {
        let mut rows = Vec::new();
        let mut part = 0;
        let ran: Result<(), mysql_async::Error> = async {
            let mut result = self.conn.query_iter(sql).await?;
            loop {
                let columns = result.columns();
                part += 1;
                while let Some(row) = result.next().await? {
                    if part == 1
                        && let Some(columns) = &columns
                    {
                        let values = row.unwrap_raw().into_iter().zip(columns.iter());
                        rows.push(
                            values.map(|(value, column)| value.map_or(Value::Null, |value| decode(column, value))).collect(),
                        );
                    }
                }
                if result.is_empty() {
                    return Ok(());
                }
            }
        }
        .await;
        match ran {
            Ok(()) => Ok(rows),
            Err(source) => Err((part, self.failed(sql, source))),
        }
    }

    /// Runs one statement of the user.
    pub(super) async fn run(
        &mut self,
        call: &Call<'_>,
        place: usize,
        observer: &mut dyn Observer,
    ) -> Result<StatementOutcome, Failure> {
        let sent = Instant::now();
        observer.started(place);
        let canceller = self.canceller();
        let sql = match &self.name {
            Some(name) => Cow::Owned(format!("{} {}", comment(name), call.sql)),
            None => Cow::Borrowed(call.sql),
        };
        let ran = if call.parameters.is_empty() {
            match self.conn.query_iter(&*sql).await {
                Ok(result) => deliver(result, place, observer, &*canceller).await,
                Err(source) => Err(source),
            }
        } else {
            let parameters = Params::Positional(call.parameters.iter().map(encode).collect());
            match self.conn.exec_iter(&*sql, parameters).await {
                Ok(result) => deliver(result, place, observer, &*canceller).await,
                Err(source) => Err(source),
            }
        };
        let delivered = ran.map_err(|source| self.failed(call.sql, source))?;
        if let Some(why) = delivered.stopped {
            return Err(Failure::Stopped(Error::new(ErrorKind::Stopped, &self.operation, why)));
        }
        let duration = sent.elapsed();
        if self.conn.get_warnings() > 0 {
            self.tell_warnings(place, observer).await?;
        }
        let outcome =
            StatementOutcome { rows_affected: delivered.rows_affected, rows_returned: delivered.rows_returned, duration };
        observer.finished(place, &outcome);
        Ok(outcome)
    }

    async fn tell_warnings(&mut self, place: usize, observer: &mut dyn Observer) -> Result<(), Failure> {
        let rows = self.query(&format!("SHOW WARNINGS LIMIT {WARNINGS_MAX}")).await?;
        for row in rows {
            if let [Value::Text(level), code, Value::Text(message)] = row.as_slice() {
                let code = if let Value::Int(code) = code { code.to_string() } else { String::new() };
                observer.notice(place, &format!("{level} {code}: {message}"));
            }
        }
        Ok(())
    }

    /// Other threads of this user whose statement begins with a name, and the one that holds the lock of it: that one apart.
    async fn named(&mut self, name: &str, except: &[String]) -> Result<(BTreeSet<String>, Option<String>), Failure> {
        let comment = comment(name);
        let sql = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() \
             AND USER = SUBSTRING_INDEX(USER(), '@', 1) AND LEFT(INFO, {}) = '{comment}'",
            comment.len()
        );
        let mut running = self.ids(&sql).await?;
        running.retain(|id| !except.contains(id));
        // Servers that have no such locks refuse: there only what runs is found.
        let holder = match self.ids(&format!("SELECT NULLIF(IS_USED_LOCK('{name}'), CONNECTION_ID())")).await {
            Err(Failure::Refused(_)) => None,
            found => found?.pop_first().filter(|id| !except.contains(id)),
        };
        Ok((running, holder))
    }

    /// Kills them.
    async fn kill_named(&mut self, name: &str, except: &[String]) -> Result<usize, Failure> {
        let (mut left, holder) = self.named(name, except).await?;
        left.extend(holder.clone());
        let mut ended = 0;
        for id in &left {
            match self.query(&format!("KILL {id}")).await {
                Ok(_) => ended += 1,
                // No such thread any more.
                Err(Failure::Refused(error)) if error.native_code.as_deref() == Some("1094") => {}
                Err(failure) => return Err(failure),
            }
        }
        if holder.is_some() {
            // It lets go of the name last, when it has rolled back.
            self.query(&format!("DO GET_LOCK('{name}', {ROLLBACK_SECONDS_MAX})")).await?;
            self.query(&format!("DO RELEASE_LOCK('{name}')")).await?;
        }
        Ok(ended)
    }

    /// Asks the server for a sign of life.
    pub(super) async fn ping(&mut self) -> Result<(), Failure> {
        match self.conn.ping().await {
            Ok(()) => Ok(()),
            Err(source) => Err(self.failed("", source)),
        }
    }

    async fn ids(&mut self, sql: &str) -> Result<BTreeSet<String>, Failure> {
        let found = self.query(sql).await?.into_iter().flatten();
        Ok(found
            .filter_map(|id| match id {
                Value::Int(id) => Some(id.to_string()),
                Value::UInt(id) => Some(id.to_string()),
                Value::Null
                | Value::Bool(_)
                | Value::Float(_)
                | Value::Decimal(_)
                | Value::Text(_)
                | Value::Json(_)
                | Value::Bytes(_) => None,
            })
            .collect())
    }

    /// Lets the session be found by its name also while it does nothing, until it is reset. Where the server has no such locks, or another
    /// session has the name, it is not found: nothing else depends on it.
    pub(super) async fn hold_name(&mut self) -> Result<(), Failure> {
        let Some(name) = &self.name else { return Ok(()) };
        match self.query(&format!("DO GET_LOCK('{name}', 0)")).await {
            Ok(_) | Err(Failure::Refused(_)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn roll_back(&mut self) {
        // Where it fails, the link is lost, and the server rolls back by itself.
        let _ = self.query("ROLLBACK").await;
    }

    pub(super) async fn engaged(&mut self) -> Result<(), Error> {
        if !self.is_usable() {
            let message = "the session was left in the middle of something and cannot be used";
            return Err(Error::new(ErrorKind::Lost, &self.operation, message));
        }
        self.is_engaged = true;
        Ok(())
    }

    async fn simple(&mut self, sql: &str) -> Result<(), Error> {
        self.engaged().await?;
        let done = self.query(sql).await;
        self.is_engaged = false;
        done.map(|_| ()).map_err(Failure::into_error)
    }
}

/// What of a name fits into a comment and a string in SQL; `None` when nothing is left of it.
fn named(name: &str) -> Option<String> {
    let fits = |letter: &char| (' '..='~').contains(letter) && !matches!(letter, '\'' | '\\' | '*' | '!' | '+');
    let name: String = name.chars().filter(fits).take(NAME_BYTES_MAX).collect();
    (!name.is_empty()).then_some(name)
}

fn comment(name: &str) -> String {
    format!("/* {name} */")
}

struct Delivered {
    rows_affected: Option<u64>,
    rows_returned: u64,
    stopped: Option<String>,
}

/// Streams every result set of a statement to the observer, at the observer's pace.
async fn deliver<P: Protocol>(
    mut result: QueryResult<'_, 'static, P>,
    place: usize,
    observer: &mut dyn Observer,
    canceller: &dyn Canceller,
) -> Result<Delivered, mysql_async::Error> {
    let mut delivered = Delivered { rows_affected: None, rows_returned: 0, stopped: None };
    loop {
        let columns = result.columns().filter(|columns| !columns.is_empty());
        if let Some(columns) = &columns {
            let described: Vec<Column> = columns.iter().map(column).collect();
            observer.columns(place, &described);
        }
        delivered.rows_affected = if columns.is_none() { Some(result.affected_rows()) } else { None };
        loop {
            let row = match result.next().await {
                Ok(Some(row)) => row,
                Ok(None) => break,
                // The cancel request did its work.
                Err(mysql_async::Error::Server(said)) if delivered.stopped.is_some() && said.code == 1317 => {
                    return Ok(delivered);
                }
                Err(error) => return Err(error),
            };
            delivered.rows_returned += 1;
            let (None, Some(columns)) = (&delivered.stopped, &columns) else { continue };
            let values = row.unwrap_raw().into_iter().zip(columns.iter());
            let values: Vec<_> = values.map(|(value, column)| value.map_or(Value::Null, |value| decode(column, value))).collect();
            if let Err(why) = observer.row(place, &values) {
                // When the server cannot be asked, the rows are read to their end: slower, and as right.
                let _ = canceller.cancel().await;
                delivered.stopped = Some(why);
            }
        }
        if result.is_empty() {
            return Ok(delivered);
        }
    }
}

/// Kills the statement over a connection of its own.
struct MySqlCanceller {
    shared: Arc<Shared>,
    thread: u32,
}

#[async_trait]
impl Canceller for MySqlCanceller {
    async fn cancel(&self) -> Result<(), Error> {
        let mut conn = connect(&self.shared).await?;
        let operation = format!("cancel a statement on {}", self.shared.settings.id);
        let sql = format!("KILL QUERY {}", self.thread);
        match conn.query_drop(&sql).await {
            Ok(()) => {}
            // No such thread: the session is gone, and its statement with it.
            Err(mysql_async::Error::Server(said)) if said.code == 1094 => {}
            Err(source) => return Err(classified(&operation, &sql, source)),
        }
        let _ = conn.disconnect().await;
        Ok(())
    }
}

#[async_trait]
impl Session for MySqlSession {
    fn canceller(&self) -> Arc<dyn Canceller> {
        Arc::new(MySqlCanceller { shared: self.shared.clone(), thread: self.conn.id() })
    }

    fn server_id(&self) -> String {
        self.conn.id().to_string()
    }

    fn introduce(&mut self, name: &str) {
        self.name = named(name);
    }

    async fn end_leftovers(&mut self, name: &str, except: &[String]) -> Result<usize, Error> {
        let Some(name) = named(name) else { return Ok(0) };
        self.engaged().await?;
        let ended = self.kill_named(&name, except).await;
        self.is_engaged = false;
        ended.map_err(Failure::into_error)
    }

    async fn leftovers(&mut self, name: &str, except: &[String]) -> Result<Option<usize>, Error> {
        let Some(name) = named(name) else { return Ok(None) };
        self.engaged().await?;
        let left = self.named(&name, except).await;
        self.is_engaged = false;
        left.map(|(mut left, holder)| {
            left.extend(holder);
            Some(left.len())
        })
        .map_err(Failure::into_error)
    }

    fn is_usable(&self) -> bool {
        !self.is_lost && !self.is_engaged
    }

    async fn execute(&mut self, call: &Call<'_>, place: usize, observer: &mut dyn Observer) -> Result<StatementOutcome, Error> {
        self.engaged().await?;
        let done = self.run(call, place, observer).await;
        self.is_engaged = false;
        done.map_err(Failure::into_error)
    }

    async fn begin(&mut self, begin: Option<&str>) -> Result<(), Error> {
        self.simple(begin.unwrap_or("START TRANSACTION")).await
    }

    async fn commit(&mut self) -> Result<(), Error> {
        self.simple("COMMIT").await
    }

    async fn rollback(&mut self) -> Result<(), Error> {
        self.engaged().await?;
        let done = self.leave_branch().await;
        self.is_engaged = false;
        done.map_err(Failure::into_error)?;
        self.simple("ROLLBACK").await
    }

    async fn savepoint(&mut self, name: &str) -> Result<(), Error> {
        self.simple(&format!("SAVEPOINT {}", quoted(name))).await
    }

    async fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        self.simple(&format!("ROLLBACK TO SAVEPOINT {}", quoted(name))).await
    }

    async fn open_transaction(&mut self, terms: &Terms, markers: Option<&MarkerTable>) -> Result<(), UnitError> {
        self.engaged().await.map_err(|error| UnitError::RolledBack { place: None, error })?;
        let opened = self.open_shared(terms, markers).await;
        self.is_engaged = false;
        opened
    }

    async fn commit_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        self.engaged().await.map_err(|error| UnitError::RolledBack { place: None, error })?;
        let ended = self.commit_shared(table, key, digest).await;
        self.is_engaged = false;
        ended
    }

    async fn two_phase_fault(&mut self) -> Result<Option<Error>, Error> {
        self.engaged().await?;
        let fault = self.cannot_prepare().await;
        self.is_engaged = false;
        fault
    }

    async fn prepare_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str, gid: &Gid) -> Result<(), UnitError> {
        self.engaged().await.map_err(|error| UnitError::RolledBack { place: None, error })?;
        let ended = self.prepare_shared(table, key, digest, gid).await;
        self.is_engaged = false;
        ended
    }

    async fn end_prepared(&mut self, gid: &Gid, ending: Ending) -> Result<Ended, Error> {
        self.engaged().await?;
        let ended = self.end_branch(gid, ending).await;
        self.is_engaged = false;
        ended
    }

    async fn list_prepared(&mut self) -> Result<Vec<Prepared>, Error> {
        self.engaged().await?;
        let found = self.branches().await;
        self.is_engaged = false;
        found.map_err(Failure::into_error)
    }

    fn transaction_is_open(&self) -> bool {
        self.is_in_transaction()
    }

    async fn run_unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        self.engaged().await.map_err(|error| self.before_begin(error))?;
        let ended = self.run_wrapped(unit, observer).await;
        self.is_engaged = false;
        self.was_idle = false;
        ended
    }

    async fn probe(&mut self, table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error> {
        self.engaged().await?;
        let answer = self.probe_marker(table, key, wait).await;
        self.is_engaged = false;
        answer
    }

    async fn marker_table_name(&mut self, table: &MarkerTable) -> Result<Option<String>, Error> {
        self.engaged().await?;
        let found = self.find_marker_table(table).await;
        self.is_engaged = false;
        found
    }

    async fn reset(&mut self) -> Result<(), Error> {
        self.engaged().await?;
        if self.is_prepared {
            // MariaDB keeps the branch with the session over a reset, and then refuses to work in its tables (1031).
            self.is_lost = true;
            self.is_engaged = false;
            let message = "what it prepared is let go of only by its end";
            return Err(Error::new(ErrorKind::Lost, format!("reset a session of {}", self.shared.settings.id), message));
        }
        if let Err(failure) = self.leave_branch().await {
            self.is_lost = true;
            self.is_engaged = false;
            return Err(failure.into_error());
        }
        let done = self.conn.reset().await;
        self.is_engaged = false;
        let operation = format!("reset a session of {}", self.shared.settings.id);
        match done {
            Ok(true) => {
                self.was_idle = true;
                Ok(())
            }
            Ok(false) => {
                self.is_lost = true;
                Err(Error::new(ErrorKind::Lost, operation, "the server is too old to reset a session: open another"))
            }
            Err(source) => {
                self.is_lost = true;
                let mut error = classified(&operation, "", source);
                error.kind = ErrorKind::Lost;
                Err(error)
            }
        }
    }

    async fn close(self: Box<Self>) {
        // Whether the server hears the goodbye makes no difference any more.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.conn.disconnect()).await;
    }
}
