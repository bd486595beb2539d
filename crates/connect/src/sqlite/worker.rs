//! The thread that owns a connection, and everything it does there. All of this blocks; none of it is async.

use super::error::{classified, is_busy, opening};
use super::marker::{self, Row};
use super::value::{decode, encode};
use super::{Mode, Settings, missing};
use crate::error::{Error, ErrorKind};
use crate::marker::{Found, MarkerKey, MarkerTable, OUTCOME_COMMITTED, OUTCOME_TOMBSTONE, Probe};
use crate::session::{StatementOutcome, UnitError, UnitOutcome, Wrap};
use crate::value::{Column, Value};
use crate::words::first_words;
use rusqlite::{Connection, InterruptHandle, OpenFlags};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Rows travel in batches of at most this many rows or about this many bytes.
const BATCH_ROWS_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// How long SQLite itself waits for a lock before we look whether we are cancelled.
const BUSY_STEP: Duration = Duration::from_millis(50);

/// A statement, owned.
pub(super) struct OwnedCall {
    pub(super) sql: String,
    pub(super) parameters: Vec<Value>,
}

/// A unit, owned.
pub(super) struct OwnedUnit {
    pub(super) calls: Vec<OwnedCall>,
    pub(super) begin: Option<String>,
    pub(super) wrap: Wrap,
    pub(super) keeps_result: bool,
}

/// What happens while statements run, for the observer on the async side.
pub(super) enum Event {
    Started(usize),
    Columns(usize, Vec<Column>),
    Rows(usize, Vec<Vec<Value>>),
    Finished(usize, StatementOutcome),
    /// Waits until every event before was observed. Answered with the result to keep; dropped when the unit shall not commit.
    Checkpoint(oneshot::Sender<Option<String>>),
}

/// Shared with cancellers.
#[derive(Default)]
pub(super) struct Control {
    /// Something runs; a cancel request at another time has no effect.
    is_running: AtomicBool,
    is_cancelled: AtomicBool,
    handle: Mutex<Option<InterruptHandle>>,
    /// For who looks on from beside.
    pub(super) standing: Mutex<Standing>,
}

/// How a session stands with the lock of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has no transaction open, or one that only reads.
    #[default]
    Free,
    /// It may write, and nobody else.
    Holds(Instant),
    /// Somebody else has the lock.
    Waits(Instant),
}

impl Control {
    pub(super) fn cancel(&self) {
        if self.is_running.load(Ordering::SeqCst) {
            self.is_cancelled.store(true, Ordering::SeqCst);
            if let Some(handle) = self.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).as_ref() {
                handle.interrupt();
            }
        }
    }
}

/// The thread's state.
pub(super) struct Worker {
    settings: Settings,
    connection: Connection,
    control: Arc<Control>,
    /// A statement may have changed what the session remembers: a pragma, an attached file, a temporary table.
    is_altered: bool,
    operation: String,
}

type Events = mpsc::Sender<Event>;

impl Worker {
    pub(super) fn open(settings: Settings, control: Arc<Control>) -> Result<Self, Error> {
        let connection = connect(&settings)?;
        let operation = format!("run a statement on {}", settings.id);
        let worker = Self { settings, connection, control, is_altered: false, operation };
        worker.publish_handle();
        Ok(worker)
    }

    fn publish_handle(&self) {
        let handle = self.connection.get_interrupt_handle();
        *self.control.handle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(handle);
    }

    /// Everything that may be cancelled goes through here.
    pub(super) fn working<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.control.is_cancelled.store(false, Ordering::SeqCst);
        self.control.is_running.store(true, Ordering::SeqCst);
        let done = work(self);
        self.control.is_running.store(false, Ordering::SeqCst);
        self.look_at_lock();
        done
    }

    fn classified(&self, source: rusqlite::Error) -> Error {
        classified(&self.operation, source)
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        if self.control.is_cancelled.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Cancelled, &self.operation, "cancelled"));
        }
        Ok(())
    }

    /// Says how the session stands with the lock; the time of the first of several equal answers stays.
    fn stands(&self, standing: Standing) {
        let mut known = self.control.standing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if std::mem::discriminant(&*known) != std::mem::discriminant(&standing) {
            *known = standing;
        }
    }

    /// After a step: whether the transaction that is open now may write.
    fn look_at_lock(&self) {
        let writes =
            self.connection.transaction_state(None::<&str>).is_ok_and(|state| state == rusqlite::TransactionState::Write);
        self.stands(if writes { Standing::Holds(Instant::now()) } else { Standing::Free });
    }

    /// Repeats a step that somebody else's lock keeps from happening. SQLite waits inside each step; between them we can be cancelled.
    fn patiently<T>(&self, wait: Duration, step: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let until = Instant::now() + wait;
        loop {
            match step(&self.connection) {
                Err(error) if is_busy(&error) && Instant::now() < until => {
                    self.stands(Standing::Waits(Instant::now()));
                    self.check_cancelled()?;
                }
                done => {
                    self.look_at_lock();
                    return done.map_err(|source| self.classified(source));
                }
            }
        }
    }

    /// One of our own statements without rows, such as BEGIN.
    pub(super) fn command(&self, sql: &str) -> Result<(), Error> {
        self.patiently(self.settings.busy_timeout, |connection| connection.execute_batch(sql))
    }

    /// Rolls back whatever is open.
    pub(super) fn roll_back(&self) -> Result<(), Error> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        let done = self.connection.execute_batch("ROLLBACK").map_err(|source| self.classified(source));
        self.look_at_lock();
        done
    }

    /// Runs one statement. A lock is waited for only where nothing was delivered yet, so that no row is delivered twice.
    pub(super) fn run(
        &mut self,
        call: &OwnedCall,
        place: usize,
        events: &Events,
        only_reads: bool,
    ) -> Result<StatementOutcome, Stop> {
        let word = first_words(&call.sql).0;
        self.is_altered |= !matches!(word.as_str(), "SELECT" | "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "WITH" | "VALUES")
            || mentions_temp(&call.sql);
        let until = Instant::now() + self.settings.busy_timeout;
        let started = Instant::now();
        send(events, Event::Started(place))?;
        loop {
            self.check_cancelled()?;
            let mut rows_returned = 0;
            match self.run_once(call, place, events, only_reads, &mut rows_returned) {
                Ok(changes) => {
                    self.look_at_lock();
                    let outcome = StatementOutcome { rows_affected: changes, rows_returned, duration: started.elapsed() };
                    send(events, Event::Finished(place, outcome.clone()))?;
                    return Ok(outcome);
                }
                Err(Step::Sqlite(error)) if is_busy(&error) && rows_returned == 0 && Instant::now() < until => {
                    self.stands(Standing::Waits(Instant::now()));
                }
                Err(Step::Sqlite(error)) => {
                    let mut error = self.classified(error);
                    error.hint =
                        error.hint.or_else(|| missing::hint(&self.connection, &self.settings, &error.message, &call.sql));
                    return Err(Stop::Failed(error));
                }
                Err(Step::Stop(stop)) => return Err(stop),
            }
        }
    }

    fn run_once(
        &self,
        call: &OwnedCall,
        place: usize,
        events: &Events,
        only_reads: bool,
        rows_returned: &mut u64,
    ) -> Result<Option<u64>, Step> {
        let mut statement = self.connection.prepare(&call.sql)?;
        let reads = statement.readonly();
        if only_reads && !reads {
            return Err(Step::Stop(Stop::Writes));
        }
        let wanted = statement.parameter_count();
        if wanted != call.parameters.len() {
            let message = format!("the statement has {wanted} parameters, {} were given", call.parameters.len());
            return Err(Step::Stop(Stop::Failed(Error::new(ErrorKind::Config, &self.operation, message))));
        }
        for index in 1..=wanted {
            // SQLite gives a name the next free number, which may be that of a value meant for another.
            let name = statement.parameter_name(index).filter(|name| *name != format!("?{index}"));
            if let Some(name) = name {
                let message = format!("the statement's placeholder `{name}` has no value");
                return Err(Step::Stop(Stop::Failed(Error::new(ErrorKind::Config, &self.operation, message))));
            }
        }
        for (index, parameter) in call.parameters.iter().enumerate() {
            statement.raw_bind_parameter(index + 1, encode(parameter))?;
        }
        let columns: Vec<_> = statement
            .columns()
            .map(|column| Column {
                name: column.name().to_owned(),
                type_name: column.decl_type().unwrap_or_default().to_ascii_lowercase(),
            })
            .collect();
        let width = columns.len();
        let mut rows = statement.raw_query();
        let mut batch = Batch::default();
        let mut columns = (width > 0).then_some(columns);
        loop {
            let row = rows.next()?;
            // The columns are announced once the first step succeeded: a step that found a lock may be taken again.
            if let Some(columns) = columns.take() {
                send(events, Event::Columns(place, columns))?;
            }
            let Some(row) = row else { break };
            *rows_returned += 1;
            let values = (0..width).map(|index| row.get_ref(index).map(decode)).collect::<Result<Vec<_>, _>>()?;
            if batch.push(values) {
                send(events, Event::Rows(place, batch.take()))?;
            }
        }
        drop(rows);
        if !batch.rows.is_empty() {
            send(events, Event::Rows(place, batch.take()))?;
        }
        let counts = matches!(first_words(&call.sql).0.as_str(), "INSERT" | "UPDATE" | "DELETE" | "REPLACE")
            || (!reads && starts_with_with(&call.sql));
        Ok(counts.then(|| self.connection.changes()))
    }

    /// Runs a unit to its end.
    pub(super) fn run_unit(&mut self, unit: &OwnedUnit, events: &Events) -> Result<UnitOutcome, UnitError> {
        if unit.wrap == Wrap::Bare {
            return self.run_bare(unit, events);
        }
        let before = |error| UnitError::RolledBack { place: None, error };
        let begin = match (&unit.wrap, unit.begin.as_deref()) {
            (Wrap::ReadOnly, _) => "BEGIN",
            // A plain BEGIN takes the write lock at its first write, and then fails at once if somebody wrote meanwhile.
            (_, None) => "BEGIN IMMEDIATE",
            (_, Some(begin)) if matches!(first_words(begin).1.as_str(), "" | "TRANSACTION") => "BEGIN IMMEDIATE",
            (_, Some(begin)) => begin,
        };
        if unit.wrap == Wrap::ReadOnly {
            // Before anything runs. What does not compile yet (it may need a statement before it) is checked when its turn comes.
            let writes = |call: &OwnedCall| self.connection.prepare(&call.sql).is_ok_and(|statement| !statement.readonly());
            if unit.calls.iter().any(writes) {
                return Err(UnitError::Writes);
            }
        }
        self.command(begin).map_err(before)?;
        let ended = self.run_begun(unit, events);
        if ended.is_err() || !self.connection.is_autocommit() {
            // SQLite rolls back by itself where it must; what is left open here is ours to end.
            let _ = self.roll_back();
        }
        ended
    }

    fn run_begun(&mut self, unit: &OwnedUnit, events: &Events) -> Result<UnitOutcome, UnitError> {
        let ours = |error| UnitError::RolledBack { place: None, error };
        if let Wrap::Marked { table, key, .. } = &unit.wrap {
            key.check().map_err(ours)?;
            match marker::find(&self.connection, table, key, &self.operation).map_err(ours)? {
                Some(Found::Committed(row)) => return Ok(UnitOutcome::AlreadyCommitted(row)),
                Some(Found::Tombstone) => return Err(UnitError::Fenced),
                None => {}
            }
        }
        let mut changes = 0_u64;
        let mut has_rows = false;
        for (place, call) in unit.calls.iter().enumerate() {
            match self.run(call, place, events, unit.wrap == Wrap::ReadOnly) {
                Ok(outcome) => {
                    changes = changes.saturating_add(outcome.rows_affected.unwrap_or(0));
                    has_rows |= outcome.rows_returned > 0;
                }
                Err(Stop::Writes) => return Err(UnitError::Writes),
                Err(Stop::Failed(error)) => return Err(UnitError::RolledBack { place: Some(place), error }),
                Err(Stop::Abandoned) => return Err(UnitError::RolledBack { place: Some(place), error: self.abandoned() }),
            }
        }
        let result = if unit.keeps_result || has_rows { self.checkpoint(events).map_err(ours)? } else { None };
        self.check_cancelled().map_err(ours)?;
        match &unit.wrap {
            Wrap::Marked { table, key, digest, .. } => {
                let rows_affected = i64::try_from(changes).unwrap_or(i64::MAX);
                let row =
                    Row { key, outcome: OUTCOME_COMMITTED, digest, rows_affected, result: result.filter(|_| unit.keeps_result) };
                marker::insert(&self.connection, table, &row).map_err(|source| ours(self.classified(source)))?;
                self.commit()
            }
            Wrap::RolledBack => self.roll_back().map(|()| UnitOutcome::Done).map_err(ours),
            Wrap::ReadOnly | Wrap::Unmarked | Wrap::Bare => self.commit(),
        }
    }

    fn commit(&self) -> Result<UnitOutcome, UnitError> {
        match self.command("COMMIT") {
            Ok(()) => Ok(UnitOutcome::Done),
            // After a failed write or fsync nobody knows what the disk holds; the next open of the file decides.
            Err(error)
                if error
                    .native_code
                    .as_deref()
                    .and_then(|code| code.parse::<i32>().ok())
                    .is_some_and(|code| code & 0xff == 10) =>
            {
                Err(UnitError::Unknown { error })
            }
            Err(error) => Err(UnitError::RolledBack { place: None, error }),
        }
    }

    /// Opens a transaction that may write, and waits for the lock as long as it may.
    pub(super) fn open_shared(&mut self, limit: Option<Duration>) -> Result<(), Error> {
        self.patiently(limit.unwrap_or(self.settings.busy_timeout), |connection| connection.execute_batch("BEGIN IMMEDIATE"))
    }

    /// Writes the marker in the open transaction and commits it; what cannot be committed is rolled back.
    pub(super) fn commit_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        let ended = self.commit_with_marker(table, key, digest);
        if !matches!(ended, Ok(UnitOutcome::Done)) {
            let _ = self.roll_back();
        }
        ended
    }

    fn commit_with_marker(&self, table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        let ours = |error| UnitError::RolledBack { place: None, error };
        key.check().map_err(ours)?;
        match marker::find(&self.connection, table, key, &self.operation).map_err(ours)? {
            Some(Found::Committed(row)) => return Ok(UnitOutcome::AlreadyCommitted(row)),
            Some(Found::Tombstone) => return Err(UnitError::Fenced),
            None => {}
        }
        if self.connection.is_autocommit() {
            return Err(ours(Error::new(
                ErrorKind::Lost,
                &self.operation,
                "the transaction to be committed is not open any more",
            )));
        }
        let row = Row { key, outcome: OUTCOME_COMMITTED, digest, rows_affected: -1, result: None };
        marker::insert(&self.connection, table, &row).map_err(|source| ours(self.classified(source)))?;
        self.commit()
    }

    fn run_bare(&mut self, unit: &OwnedUnit, events: &Events) -> Result<UnitOutcome, UnitError> {
        for (place, call) in unit.calls.iter().enumerate() {
            match self.run(call, place, events, false) {
                Ok(_) => {}
                Err(Stop::Failed(error)) => return Err(UnitError::Partial { place, error }),
                Err(Stop::Abandoned | Stop::Writes) => return Err(UnitError::Partial { place, error: self.abandoned() }),
            }
        }
        Ok(UnitOutcome::Done)
    }

    /// Lets the observer catch up before anything may commit.
    fn checkpoint(&self, events: &Events) -> Result<Option<String>, Error> {
        let (sender, receiver) = oneshot::channel();
        let sent = events.blocking_send(Event::Checkpoint(sender)).is_ok();
        if !sent {
            return Err(self.abandoned());
        }
        receiver.blocking_recv().map_err(|_| self.abandoned())
    }

    fn abandoned(&self) -> Error {
        Error::new(ErrorKind::Cancelled, &self.operation, "nobody waits for the answer any more")
    }

    /// Looks for the marker, else leaves a tombstone.
    pub(super) fn probe(&mut self, table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error> {
        key.check()?;
        match marker::find(&self.connection, table, key, &self.operation)? {
            Some(Found::Committed(row)) => return Ok(Probe::Committed(row)),
            Some(Found::Tombstone) => return Ok(Probe::Fenced),
            None => {}
        }
        match self.patiently(wait, |connection| connection.execute_batch("BEGIN IMMEDIATE")) {
            Ok(()) => {}
            Err(error) if error.kind == ErrorKind::LockTimeout => return Ok(Probe::StillRunning),
            Err(error) => return Err(error),
        }
        let answer = self.probe_locked(table, key);
        if answer.is_err() {
            let _ = self.roll_back();
        }
        answer
    }

    /// The table's qualified name, when the table exists.
    pub(super) fn marker_table_name(&mut self, table: &MarkerTable) -> Result<Option<String>, Error> {
        Ok(marker::is_there(&self.connection, table, &self.operation)?.then(|| marker::qualified(table)))
    }

    fn probe_locked(&self, table: &MarkerTable, key: &MarkerKey) -> Result<Probe, Error> {
        let probe = match marker::find(&self.connection, table, key, &self.operation)? {
            Some(Found::Committed(row)) => Probe::Committed(row),
            Some(Found::Tombstone) => Probe::Fenced,
            None => {
                let row = Row { key, outcome: OUTCOME_TOMBSTONE, digest: "", rows_affected: 0, result: None };
                marker::insert(&self.connection, table, &row).map_err(|source| self.classified(source))?;
                Probe::Fenced
            }
        };
        self.command("COMMIT")?;
        Ok(probe)
    }

    /// Forgets what a task left behind: rolls back, and opens the file anew where a statement may have changed the session.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        self.roll_back()?;
        if self.is_altered && self.settings.path.is_some() {
            self.connection = connect(&self.settings)?;
            self.publish_handle();
            self.is_altered = false;
        }
        Ok(())
    }
}

/// Why a statement ended early.
pub(super) enum Stop {
    Failed(Error),
    /// It writes, and may not.
    Writes,
    /// The caller went away.
    Abandoned,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

enum Step {
    Sqlite(rusqlite::Error),
    Stop(Stop),
}

impl From<rusqlite::Error> for Step {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Stop> for Step {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

fn send(events: &Events, event: Event) -> Result<(), Stop> {
    events.blocking_send(event).map_err(|_| Stop::Abandoned)
}

#[derive(Default)]
struct Batch {
    rows: Vec<Vec<Value>>,
    bytes: usize,
}

impl Batch {
    /// True when the batch is full.
    fn push(&mut self, row: Vec<Value>) -> bool {
        self.bytes += row.iter().map(size).sum::<usize>();
        self.rows.push(row);
        self.rows.len() >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    fn take(&mut self) -> Vec<Vec<Value>> {
        self.bytes = 0;
        std::mem::take(&mut self.rows)
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 16,
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.len() + 24,
        Value::Bytes(bytes) => bytes.len() + 24,
    }
}

fn mentions_temp(sql: &str) -> bool {
    sql.as_bytes().windows(4).any(|window| window.eq_ignore_ascii_case(b"temp"))
}

fn starts_with_with(sql: &str) -> bool {
    first_words(sql).0 == "WITH"
}

fn connect(settings: &Settings) -> Result<Connection, Error> {
    let flags = match settings.mode {
        Mode::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Mode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let wrong = |source| opening(settings, source);
    let connection = match &settings.path {
        None => Connection::open_in_memory(),
        Some(path) => Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX),
    };
    let connection = connection.map_err(wrong)?;
    connection.busy_timeout(BUSY_STEP).map_err(wrong)?;
    // The first read tells whether the file is a database at all.
    let until = Instant::now() + settings.busy_timeout;
    while let Err(error) = prepare_database(settings, &connection) {
        if !is_busy(&error) || Instant::now() >= until {
            return Err(wrong(error));
        }
    }
    Ok(connection)
}

fn prepare_database(settings: &Settings, connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", &settings.synchronous)?;
    connection.pragma_update(None, "foreign_keys", settings.foreign_keys)?;
    connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    // A file that we may not write keeps the mode it has.
    if settings.path.is_some() && settings.mode != Mode::Read && !connection.is_readonly("main")? {
        connection.pragma_update_and_check(None, "journal_mode", &settings.journal_mode, |_| Ok(()))?;
    }
    Ok(())
}
