//! One session: sending statements, reading their answers, and the seam's calls that are not about units.

mod answers;

use super::Shared;
use super::connect::{self, BackendKey};
use super::error::{ServerMessage, lost};
use super::link::Link;
use super::value::encode;
use crate::error::{Error, ErrorKind};
use crate::marker::{MarkerKey, MarkerTable, Probe};
use crate::prepared::{Ended, Ending, Gid, Prepared};
use crate::session::{
    Call, Canceller, Ignore, NAME_BYTES_MAX, Observer, Session, StatementOutcome, Terms, Unit, UnitError, UnitOutcome,
};
use crate::value::Value;
use answers::outcome_of;
use async_trait::async_trait;
use postgres_protocol::IsNull;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// COPY data goes out in pieces of this size, so that the data is not held twice.
const COPY_PIECE_BYTES: usize = 64 * 1024;

/// Where the server says the transaction is, in ReadyForQuery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Idle,
    Open,
    Failed,
}

/// What has become of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// Nothing is left to forget, or somebody is at work.
    None,
    /// It goes out before whatever comes next: in one group with the next unit, where one follows.
    Owed,
    /// It was sent, and its answer was not read yet.
    Sent,
}

/// The first version that ends the transaction of a `DISCARD ALL` before the next message of its group. Before it, a `BEGIN` in the same
/// group joined a transaction that had begun with the settings to be forgotten.
const RESETS_IN_A_GROUP_SINCE: u32 = 15;

pub(super) const RESET: &str = "DISCARD ALL";

/// Why an answer was not the wanted one.
pub(super) enum Failure {
    /// The server refused, and skips everything up to the next Sync.
    Refused(Error),
    /// The observer stopped a statement; whatever it answered was read and thrown away.
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

/// One open link to a PostgreSQL database.
pub(super) struct PostgresSession {
    pub(super) shared: Arc<Shared>,
    pub(super) link: Link,
    key: BackendKey,
    /// The schemas of the search path as the session began, before any script changed it.
    pub(super) schemas: Vec<String>,
    pub(super) status: Status,
    /// The link broke, or the server said goodbye.
    pub(super) is_lost: bool,
    /// Something is going on. A caller that goes away in the middle leaves it set, which is right: half an answer is still on its way.
    is_engaged: bool,
    pub(super) reset: Reset,
    resets_in_a_group: bool,
    pub(super) major_version: u32,
    /// On whose behalf it works, where that is to be seen on the server.
    pub(super) name: Option<String>,
    /// A message arrived since the last one was sent. While false, a goodbye proves that nothing of what was sent was run.
    pub(super) has_answered: bool,
    /// Rows changed by the unit so far.
    pub(super) rows_affected: i64,
    /// `run a statement on sales_db`, for errors.
    operation: String,
}

/// Collects the rows of our own small queries.
#[derive(Default)]
struct Rows(Vec<Vec<Value>>);

impl Observer for Rows {
    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        self.0.push(row.to_vec());
        Ok(())
    }
}

impl PostgresSession {
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        let (link, greeting) = connect::open(&shared.settings, shared.tls()?, &shared.lacks_connection_check).await?;
        let operation = format!("run a statement on {}", shared.settings.id);
        let mut session = Self {
            shared,
            link,
            key: greeting.key,
            schemas: Vec::new(),
            status: Status::Idle,
            is_lost: false,
            is_engaged: false,
            reset: Reset::None,
            resets_in_a_group: greeting.major_version >= RESETS_IN_A_GROUP_SINCE,
            major_version: greeting.major_version,
            name: None,
            has_answered: false,
            rows_affected: 0,
            operation,
        };
        let path = session.query("SELECT s FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) s", &[]).await;
        let path = path.map_err(Failure::into_error)?;
        session.schemas = path.into_iter().filter_map(|row| row.into_iter().next()).filter_map(text_of).collect();
        Ok(session)
    }

    /// Runs one of our own queries and returns its rows.
    pub(super) async fn query(&mut self, sql: &str, parameters: &[Value]) -> Result<Vec<Vec<Value>>, Failure> {
        let mut rows = Rows::default();
        self.run(&Call { sql, parameters, copy_data: None }, 0, &mut rows).await?;
        Ok(rows.0)
    }

    /// Runs one of our own statements without parameters and rows, and returns its command tag.
    pub(super) async fn command(&mut self, sql: &str) -> Result<String, Failure> {
        self.pay_reset().await?;
        self.put_command(sql, &[]).map_err(Failure::Refused)?;
        self.put_sync();
        let tag = self.read_command().await;
        self.read_ready(0, &mut Ignore, tag).await
    }

    /// Runs one statement with a Sync of its own.
    pub(super) async fn run(
        &mut self,
        call: &Call<'_>,
        place: usize,
        observer: &mut dyn Observer,
    ) -> Result<StatementOutcome, Failure> {
        self.pay_reset().await?;
        let sent = Instant::now();
        self.put_call(call).map_err(Failure::Refused)?;
        observer.started(place);
        let answer = if is_copy_in(call) {
            self.copy_in(call, place, observer).await
        } else {
            self.put_sync();
            self.read_answer(place, observer).await
        };
        // Outside a transaction the statement commits at the Sync, so only the ReadyForQuery says that it took effect.
        let mut outcome = self.read_ready(place, observer, answer).await?;
        outcome.duration = sent.elapsed();
        observer.finished(place, &outcome);
        Ok(outcome)
    }

    async fn copy_in(&mut self, call: &Call<'_>, place: usize, observer: &mut dyn Observer) -> Result<StatementOutcome, Failure> {
        self.put_flush();
        let begun = self.read_to_copy_in(place, observer).await;
        match (begun, call.copy_data) {
            (Ok(None), Some(data)) => {
                for piece in data.as_bytes().chunks(COPY_PIECE_BYTES) {
                    let message =
                        frontend::CopyData::new(piece).map_err(|source| Failure::Lost(lost(&self.operation, source)))?;
                    message.write(self.link.outbound());
                    self.link.flush().await.map_err(|source| self.link_failed(source))?;
                }
                frontend::copy_done(self.link.outbound());
                self.put_sync();
                self.read_answer(place, observer).await
            }
            (Ok(None), None) => {
                let reason = "COPY FROM STDIN needs its data lines after the statement";
                frontend::copy_fail(reason, self.link.outbound())
                    .map_err(|source| Failure::Lost(lost(&self.operation, source)))?;
                self.put_sync();
                self.read_answer(place, observer).await
            }
            (Ok(Some(outcome)), _) => {
                self.put_sync();
                Ok(outcome)
            }
            (Err(failure), _) => {
                self.put_sync();
                Err(failure)
            }
        }
    }

    /// Reads until the server wants COPY data (`None`), or has ended the statement without wanting any.
    async fn read_to_copy_in(&mut self, place: usize, observer: &mut dyn Observer) -> Result<Option<StatementOutcome>, Failure> {
        loop {
            match self.receive(place, observer).await? {
                Message::ParseComplete | Message::BindComplete | Message::NoData => {}
                Message::CopyInResponse(_) => return Ok(None),
                Message::CommandComplete(body) => return Ok(Some(outcome_of(body.tag().unwrap_or_default(), 0, false))),
                _ => return Err(self.out_of_step()),
            }
        }
    }

    /// Puts a statement of the user into the outgoing messages, without a Sync.
    pub(super) fn put_call(&mut self, call: &Call<'_>) -> Result<(), Error> {
        self.put(call.sql, call.parameters, true)
    }

    /// Puts one of our own statements, whose rows nobody wants, into the outgoing messages.
    pub(super) fn put_command(&mut self, sql: &str, parameters: &[Value]) -> Result<(), Error> {
        self.put(sql, parameters, false)
    }

    fn put(&mut self, sql: &str, parameters: &[Value], describes: bool) -> Result<(), Error> {
        self.has_answered = false;
        let out = self.link.outbound();
        let before = out.len();
        let serialize = |value: &Value, out: &mut bytes::BytesMut| match encode(value) {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        };
        // No types and no formats: the server infers the types, and everything is text.
        let put = frontend::parse("", sql, [], out)
            .and_then(|()| {
                frontend::bind("", "", [], parameters, serialize, [], out).map_err(|_| std::io::ErrorKind::InvalidInput.into())
            })
            .and_then(|()| if describes { frontend::describe(b'P', "", out) } else { Ok(()) })
            .and_then(|()| frontend::execute("", 0, out));
        put.map_err(|source| {
            out.truncate(before);
            let message = "the statement holds a NUL character, has more than 65,535 parameters, or is longer than 2 GB";
            let mut error = Error::new(ErrorKind::Syntax, &self.operation, message);
            error.source = Some(Box::new(source));
            error
        })
    }

    pub(super) fn put_flush(&mut self) {
        frontend::flush(self.link.outbound());
    }

    pub(super) fn put_sync(&mut self) {
        frontend::sync(self.link.outbound());
    }

    /// Before anything new is sent: makes sure that the session has forgotten what was done with it, and is alive.
    async fn settle(&mut self) -> Result<(), Error> {
        self.settle_link().await?;
        self.pay_reset().await.map_err(Failure::into_error)
    }

    /// Carries out a reset that is owed.
    async fn pay_reset(&mut self) -> Result<(), Failure> {
        if self.reset != Reset::Owed {
            return Ok(());
        }
        self.put_command(RESET, &[]).map_err(Failure::Refused)?;
        self.put_sync();
        self.reset = Reset::Sent;
        self.read_reset().await.map_err(Failure::Lost)
    }

    async fn read_reset(&mut self) -> Result<(), Error> {
        let tag = self.read_command().await;
        self.read_ready(0, &mut Ignore, tag).await.map_err(|failure| self.reset_failed(failure))?;
        self.reset = Reset::None;
        Ok(())
    }

    /// Reads the answer of a reset that was not waited for, and notices a link that died while idle.
    async fn settle_link(&mut self) -> Result<(), Error> {
        if !self.is_usable() {
            return Err(Error::new(
                ErrorKind::Lost,
                &self.operation,
                "the session was left in the middle of something and cannot be used",
            ));
        }
        if self.reset == Reset::Sent {
            self.read_reset().await?;
        }
        loop {
            match self.link.next_if_here().await {
                Ok(None) => return Ok(()),
                Ok(Some(Message::ErrorResponse(body))) => {
                    self.is_lost = true;
                    return Err(ServerMessage::read(body.fields()).into_error(&self.operation));
                }
                // Notices, notifications and changed settings come at any time.
                Ok(Some(_)) => {}
                Err(source) => return Err(self.link_failed(source).into_error()),
            }
        }
    }

    pub(super) fn reset_failed(&mut self, failure: Failure) -> Error {
        self.is_lost = true;
        let mut error = failure.into_error();
        error.kind = ErrorKind::Lost;
        error.operation = format!("reset a session of {}", self.shared.settings.id);
        error
    }

    async fn simple(&mut self, sql: &str) -> Result<String, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let done = self.command(sql).await;
        self.is_engaged = false;
        done.map_err(Failure::into_error)
    }
}

/// True for a statement that asks for data lines.
pub(super) fn is_copy_in(call: &Call<'_>) -> bool {
    call.copy_data.is_some() || (crate::words::first_words(call.sql).0 == "COPY" && contains_word(call.sql, "stdin"))
}

/// True when the text holds these letters somewhere, in any case.
pub(super) fn contains_word(sql: &str, lower_case: &str) -> bool {
    sql.as_bytes().windows(lower_case.len()).any(|window| window.eq_ignore_ascii_case(lower_case.as_bytes()))
}

pub(super) fn text_of(value: Value) -> Option<String> {
    match value {
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => Some(text),
        Value::Int(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::UInt(_) | Value::Float(_) | Value::Bytes(_) => None,
    }
}

/// Cancels over a connection of its own, as the protocol wants it.
struct PostgresCanceller {
    shared: Arc<Shared>,
    key: BackendKey,
}

#[async_trait]
impl Canceller for PostgresCanceller {
    async fn cancel(&self) -> Result<(), Error> {
        connect::cancel(&self.shared.settings, self.shared.tls()?, self.key).await
    }
}

/// Other sessions of this user that go by the name `$1`, but for those in `$2`.
const LEFTOVERS: &str = "pg_catalog.pg_stat_activity \
                         WHERE application_name = $1 AND usename = SESSION_USER AND datname = pg_catalog.current_database() \
                         AND pid <> pg_catalog.pg_backend_pid() AND NOT pid = ANY ($2::integer[])";

/// Process ids as an array's text.
fn list(ids: &[String]) -> Value {
    Value::Text(format!("{{{}}}", ids.join(",")))
}

/// What of a name can be an `application_name` inside of quotes.
fn fitting(name: &str) -> String {
    let fits = |letter: &char| (' '..='~').contains(letter) && !matches!(letter, '\'' | '\\');
    name.chars().filter(fits).take(NAME_BYTES_MAX).collect()
}

#[async_trait]
impl Session for PostgresSession {
    fn canceller(&self) -> Arc<dyn Canceller> {
        Arc::new(PostgresCanceller { shared: self.shared.clone(), key: self.key })
    }

    fn server_id(&self) -> String {
        self.key.process_id.to_string()
    }

    fn introduce(&mut self, name: &str) {
        if !self.shared.settings.is_named {
            self.name = Some(fitting(name)).filter(|name| !name.is_empty());
        }
    }

    async fn end_leftovers(&mut self, name: &str, except: &[String]) -> Result<usize, Error> {
        let name = fitting(name);
        if self.shared.settings.is_named || name.is_empty() {
            return Ok(0);
        }
        self.settle().await?;
        self.is_engaged = true;
        let sql = format!("SELECT pg_catalog.pg_terminate_backend(pid) FROM {LEFTOVERS}");
        let ended = self.query(&sql, &[Value::Text(name), list(except)]).await;
        self.is_engaged = false;
        ended.map(|rows| rows.len()).map_err(Failure::into_error)
    }

    async fn leftovers(&mut self, name: &str, except: &[String]) -> Result<Option<usize>, Error> {
        let name = fitting(name);
        if self.shared.settings.is_named || name.is_empty() {
            return Ok(None);
        }
        self.settle().await?;
        self.is_engaged = true;
        let sql = format!("SELECT pid FROM {LEFTOVERS} AND state IS DISTINCT FROM 'idle'");
        let left = self.query(&sql, &[Value::Text(name), list(except)]).await;
        self.is_engaged = false;
        left.map(|rows| Some(rows.len())).map_err(Failure::into_error)
    }

    fn is_usable(&self) -> bool {
        !self.is_lost && !self.is_engaged
    }

    fn is_alive(&mut self) -> bool {
        self.is_lost |= self.link.has_ended();
        self.is_usable()
    }

    async fn execute(&mut self, call: &Call<'_>, place: usize, observer: &mut dyn Observer) -> Result<StatementOutcome, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let done = self.run(call, place, observer).await;
        self.is_engaged = false;
        done.map_err(Failure::into_error)
    }

    async fn begin(&mut self, begin: Option<&str>) -> Result<(), Error> {
        self.simple(begin.unwrap_or("BEGIN")).await.map(|_| ())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        match self.simple("COMMIT").await?.as_str() {
            "COMMIT" => Ok(()),
            _ => Err(Error::new(ErrorKind::Other, &self.operation, "the transaction had failed: COMMIT rolled it back")),
        }
    }

    async fn rollback(&mut self) -> Result<(), Error> {
        self.simple("ROLLBACK").await.map(|_| ())
    }

    async fn savepoint(&mut self, name: &str) -> Result<(), Error> {
        self.simple(&format!("SAVEPOINT {}", quoted(name))).await.map(|_| ())
    }

    async fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        self.simple(&format!("ROLLBACK TO SAVEPOINT {}", quoted(name))).await.map(|_| ())
    }

    async fn open_transaction(&mut self, terms: &Terms, markers: Option<&MarkerTable>) -> Result<(), UnitError> {
        self.settle().await.map_err(|error| UnitError::RolledBack { place: None, error })?;
        self.is_engaged = true;
        let opened = self.open_shared(terms, markers).await;
        self.is_engaged = false;
        opened
    }

    async fn commit_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        self.settle().await.map_err(|error| UnitError::RolledBack { place: None, error })?;
        self.is_engaged = true;
        let ended = self.commit_shared(table, key, digest).await;
        self.is_engaged = false;
        ended
    }

    async fn two_phase_fault(&mut self) -> Result<Option<Error>, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let fault = self.cannot_prepare().await;
        self.is_engaged = false;
        fault
    }

    async fn prepare_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str, gid: &Gid) -> Result<(), UnitError> {
        self.settle().await.map_err(|error| UnitError::RolledBack { place: None, error })?;
        self.is_engaged = true;
        let ended = self.prepare_shared(table, key, digest, gid).await;
        self.is_engaged = false;
        ended
    }

    async fn end_prepared(&mut self, gid: &Gid, ending: Ending) -> Result<Ended, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let ended = self.end_branch(gid, ending).await;
        self.is_engaged = false;
        ended
    }

    async fn list_prepared(&mut self) -> Result<Vec<Prepared>, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let found = self.branches().await;
        self.is_engaged = false;
        found
    }

    async fn run_unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        // A reset that is owed goes out with the unit.
        self.settle_link().await.map_err(|error| self.before_begin(error))?;
        self.is_engaged = true;
        let ended = self.run_wrapped(unit, observer).await;
        self.is_engaged = false;
        ended
    }

    async fn probe(&mut self, table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let answer = self.probe_marker(table, key, wait).await;
        self.is_engaged = false;
        answer
    }

    async fn marker_table_name(&mut self, table: &MarkerTable) -> Result<Option<String>, Error> {
        self.settle().await?;
        self.is_engaged = true;
        let located = self.locate(table).await;
        self.is_engaged = false;
        located.map(|(name, exists)| exists.then_some(name))
    }

    async fn reset(&mut self) -> Result<(), Error> {
        self.settle_link().await?;
        if self.status != Status::Idle {
            self.simple("ROLLBACK").await?;
        }
        // The answer is read before the next thing is sent: by then it has long arrived, so that a reset costs no waiting.
        self.put_command(RESET, &[])?;
        self.put_sync();
        self.reset = Reset::Sent;
        self.link.flush().await.map_err(|source| self.link_failed(source).into_error())
    }

    fn reset_with_next(&mut self) -> bool {
        let can_wait = self.resets_in_a_group && self.is_usable() && self.status == Status::Idle && self.reset != Reset::Sent;
        if can_wait {
            self.reset = Reset::Owed;
        }
        can_wait
    }

    async fn close(mut self: Box<Self>) {
        frontend::terminate(self.link.outbound());
        // Whether the server hears the goodbye makes no difference any more.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.link.flush()).await;
    }
}

/// An identifier in double quotes.
pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
