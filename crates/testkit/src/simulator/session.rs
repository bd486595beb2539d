//! The fake connector: the real seam of `backstop_connect`, over the model of a server, with faults at every step.

use super::Broken;
use super::server::{Found, OpenTransaction, Server, Work};
use super::world::Fault;
use async_trait::async_trait;
use backstop_connect::session::{Call, StatementOutcome, Wrap};
use backstop_connect::{
    Canceller, Capabilities, Column, Connector, Dialect, Error, ErrorKind, MarkerKey, MarkerRow, MarkerTable, Observer, Probe,
    Session, Unit, UnitError, UnitOutcome, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

/// The longest a transaction waits for a marker's key.
const LOCK_WAIT_MS: u64 = 90_000;

/// A kind of database that exists in the simulator only.
pub(crate) struct FakeConnector {
    pub(crate) server: Arc<Server>,
    pub(crate) dialect: Dialect,
}

#[async_trait]
impl Connector for FakeConnector {
    fn dialect(&self) -> Dialect {
        self.dialect
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
        format!("fake://{}", self.server.name)
    }

    async fn open(&self) -> Result<Box<dyn Session>, Error> {
        let world = &self.server.world;
        world.operation(|| format!("{}: open", self.server.name));
        sleep(Duration::from_millis(world.below(4))).await;
        if self.server.is_down() || world.other_fault(40) {
            return Err(Error::new(ErrorKind::Unreachable, "connect", "nobody listens"));
        }
        Ok(Box::new(FakeSession {
            server: self.server.clone(),
            restarts: self.server.restarts(),
            is_usable: true,
            cancel: Arc::new(Cancel { server: self.server.clone(), is_running: AtomicBool::new(false), asked: Notify::new() }),
        }))
    }
}

struct Cancel {
    server: Arc<Server>,
    is_running: AtomicBool,
    asked: Notify,
}

#[async_trait]
impl Canceller for Cancel {
    async fn cancel(&self) -> Result<(), Error> {
        let world = &self.server.world;
        world.operation(|| format!("{}: cancel", self.server.name));
        sleep(Duration::from_millis(world.below(3))).await;
        if world.other_fault(100) {
            return Err(Error::new(ErrorKind::Unreachable, "cancel", "nobody listens"));
        }
        if self.is_running.load(Ordering::Relaxed) {
            self.asked.notify_waiters();
        }
        Ok(())
    }
}

struct FakeSession {
    server: Arc<Server>,
    /// How often the server had restarted when the link was opened.
    restarts: u64,
    is_usable: bool,
    cancel: Arc<Cancel>,
}

/// What one statement of the simulator's tiny language does.
enum Step {
    /// `INSERT INTO effects VALUES ('...')`, `VACUUM '...'`, `SELECT touch('...')`.
    Effect(String),
    /// `SELECT ...` of something that is decided when it runs.
    Rows(Vec<i64>),
    /// `INSERT INTO nowhere ...`.
    Broken,
}

fn lost() -> Error {
    Error::new(ErrorKind::Lost, "run statements", "the link broke")
}

fn rolled_back(place: Option<usize>, kind: ErrorKind, message: &str) -> UnitError {
    UnitError::RolledBack { place, error: Error::new(kind, "run statements", message) }
}

impl FakeSession {
    fn step(&self, sql: &str) -> Step {
        let world = &self.server.world;
        if sql.starts_with("INSERT INTO nowhere") {
            return Step::Broken;
        }
        if let Some(number) = argument(sql, "SELECT value(") {
            return Step::Rows(vec![number]);
        }
        if let Some(percent) = argument(sql, "SELECT coin(") {
            return Step::Rows(vec![i64::from(world.below(100) < percent as u64)]);
        }
        if let Some(moment) = argument(sql, "SELECT ready(") {
            return Step::Rows(vec![i64::from(world.now() >= moment as u64)]);
        }
        if let Some(count) = argument(sql, "SELECT items(") {
            return Step::Rows((0..count).collect());
        }
        let quoted = sql.split(['\'', '"']).nth(1);
        match quoted {
            Some(effect) => Step::Effect(effect.to_owned()),
            None => Step::Broken,
        }
    }

    fn is_linked(&mut self) -> bool {
        if self.restarts != self.server.restarts() {
            self.is_usable = false;
        }
        self.is_usable
    }

    /// Waits as long as the server works on statements. False when somebody cancels them.
    async fn work_for(&self, milliseconds: u64) -> bool {
        self.cancel.is_running.store(true, Ordering::Relaxed);
        let went_on = tokio::select! {
            biased;
            () = self.cancel.asked.notified() => false,
            () = sleep(Duration::from_millis(milliseconds)) => true,
        };
        self.cancel.is_running.store(false, Ordering::Relaxed);
        went_on
    }

    /// Runs the statements as far as the observer sees them. The place of the one that fails, and why.
    fn observe(
        &self,
        unit: &Unit<'_>,
        observer: &mut dyn Observer,
        is_read_only: bool,
    ) -> Result<Vec<String>, (usize, UnitError)> {
        let mut effects = Vec::new();
        for (place, call) in unit.calls.iter().enumerate() {
            observer.started(place);
            let mut outcome = StatementOutcome::default();
            match self.step(call.sql) {
                Step::Broken => {
                    let error = rolled_back(Some(place), ErrorKind::Syntax, "there is no table `nowhere`");
                    return Err((place, error));
                }
                Step::Effect(_) if is_read_only => return Err((place, UnitError::Writes)),
                Step::Effect(effect) => {
                    effects.push(effect);
                    outcome.rows_affected = Some(1);
                }
                Step::Rows(rows) => {
                    observer.columns(place, &[Column { name: "n".into(), type_name: "int".into() }]);
                    for row in rows {
                        if let Err(message) = observer.row(place, &[Value::Int(row)]) {
                            return Err((place, rolled_back(Some(place), ErrorKind::Stopped, &message)));
                        }
                        outcome.rows_returned += 1;
                    }
                }
            }
            observer.finished(place, &outcome);
        }
        Ok(effects)
    }

    async fn unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| {
            format!("{}: unit {} of {:?}", server.name, told(&unit.wrap), unit.calls.iter().map(|c| c.sql).collect::<Vec<_>>())
        });
        if !self.is_linked() {
            return Err(UnitError::RolledBack { place: None, error: lost() });
        }
        let fault = world.unit_fault();
        if let Some(fault) = fault {
            world.say(|| format!("{}: fault {fault:?}", server.name));
        }
        match fault {
            Some(Fault::Begin) => return Err(rolled_back(None, ErrorKind::Resources, "too many transactions")),
            Some(Fault::Restart) => server.restart(),
            Some(
                Fault::Slow(_)
                | Fault::Deadlock
                | Fault::Constraint
                | Fault::LostBeforeCommit(_)
                | Fault::LostCommitted
                | Fault::LostRolledBack
                | Fault::LostOpen { .. },
            )
            | None => {}
        }
        match &unit.wrap {
            Wrap::Marked { key, digest, check_first, .. } => {
                if *check_first && world.broken != Broken::MarkerNotUnique {
                    match server.look(key) {
                        Found::Committed(row) => return Ok(UnitOutcome::AlreadyCommitted(row)),
                        Found::Tombstone => return Err(UnitError::Fenced),
                        Found::Free | Found::Taken => {}
                    }
                }
                self.transaction(unit, observer, fault, Some((key.clone(), digest.clone()))).await
            }
            Wrap::Unmarked => self.transaction(unit, observer, fault, None).await,
            Wrap::ReadOnly | Wrap::RolledBack => self.without_effect(unit, observer, fault).await,
            Wrap::Bare => self.bare(unit, observer, fault).await,
        }
    }

    async fn transaction(
        &mut self,
        unit: &Unit<'_>,
        observer: &mut dyn Observer,
        fault: Option<Fault>,
        marker: Option<(MarkerKey, String)>,
    ) -> Result<UnitOutcome, UnitError> {
        let server = self.server.clone();
        let world = server.world.clone();
        let observed = self.observe(unit, observer, false);
        let (effects, failure) = match observed {
            Ok(effects) => (effects, None),
            Err((_, error)) => (Vec::new(), Some(error)),
        };
        let result = if unit.keeps_result && failure.is_none() { observer.result() } else { None };
        let marker = marker
            .map(|(key, digest)| (key, MarkerRow { digest, rows_affected: 0, result, written_at: String::new() }))
            .filter(|_| failure.is_none());
        let is_pipelined = failure.is_none() && world.below(2) == 0;
        let mut open = OpenTransaction::begin(server.clone(), Work { effects, marker, is_pipelined });
        let slow = match fault {
            Some(Fault::Slow(milliseconds)) => milliseconds,
            _ => world.below(6),
        };
        if !self.work_for(slow).await {
            open.rollback();
            return Err(rolled_back(Some(0).filter(|_| !unit.calls.is_empty()), ErrorKind::Cancelled, "cancelled"));
        }
        if !self.is_linked() {
            // The server restarted meanwhile: nothing that was not committed is left.
            open.rollback();
            return Err(UnitError::RolledBack { place: None, error: lost() });
        }
        if let Some(failure) = failure {
            open.rollback();
            return Err(failure);
        }
        match fault {
            Some(Fault::Deadlock) => {
                open.rollback();
                return Err(rolled_back(Some(0).filter(|_| !unit.calls.is_empty()), ErrorKind::Deadlock, "deadlock"));
            }
            Some(Fault::Constraint) => {
                open.rollback();
                return Err(rolled_back(Some(0).filter(|_| !unit.calls.is_empty()), ErrorKind::Constraint, "duplicate row"));
            }
            Some(Fault::LostBeforeCommit(after)) => {
                self.is_usable = false;
                open.leave(true, false, after);
                return Err(UnitError::RolledBack { place: None, error: lost() });
            }
            Some(Fault::LostOpen { holds_key, commits, after }) => {
                self.is_usable = false;
                open.leave(holds_key, commits, after);
                return Err(UnitError::Unknown { error: lost() });
            }
            Some(Fault::Slow(_) | Fault::Begin | Fault::LostCommitted | Fault::LostRolledBack | Fault::Restart) | None => {}
        }
        match self.wait_for_key(&open).await {
            Ok(Found::Free) => {}
            Ok(Found::Committed(row)) => {
                open.rollback();
                return Ok(UnitOutcome::AlreadyCommitted(row));
            }
            Ok(Found::Tombstone) => {
                open.rollback();
                return Err(UnitError::Fenced);
            }
            Ok(Found::Taken) => {
                open.rollback();
                return Err(rolled_back(None, ErrorKind::LockTimeout, "waited too long for the marker's key"));
            }
            Err(error) => {
                open.rollback();
                return Err(error);
            }
        }
        open.commit_is_sent();
        sleep(Duration::from_millis(world.below(4))).await;
        match fault {
            Some(Fault::LostCommitted) => {
                self.is_usable = false;
                open.commit();
                Err(UnitError::Unknown { error: lost() })
            }
            Some(Fault::LostRolledBack) => {
                self.is_usable = false;
                open.rollback();
                Err(UnitError::Unknown { error: lost() })
            }
            _ if !open.commit() => {
                self.is_usable = false;
                Err(UnitError::Unknown { error: lost() })
            }
            _ => Ok(UnitOutcome::Done),
        }
    }

    /// Inserts the marker, waiting for whoever holds its key. `Taken`: waited too long.
    async fn wait_for_key(&mut self, open: &OpenTransaction) -> Result<Found, UnitError> {
        let server = self.server.clone();
        let give_up = server.world.now() + LOCK_WAIT_MS;
        loop {
            let found = server.take_key(open.id);
            let now = server.world.now();
            if found != Found::Taken || now >= give_up {
                return Ok(found);
            }
            let next = server.next_end().unwrap_or(give_up).clamp(now + 1, give_up);
            let ended = server.ended.notified();
            tokio::pin!(ended);
            tokio::select! {
                biased;
                () = &mut ended => {}
                went_on = self.work_for(next - now) => {
                    if !went_on {
                        return Err(rolled_back(None, ErrorKind::Cancelled, "cancelled"));
                    }
                }
            }
            if !self.is_linked() {
                return Err(UnitError::RolledBack { place: None, error: lost() });
            }
        }
    }

    async fn without_effect(
        &mut self,
        unit: &Unit<'_>,
        observer: &mut dyn Observer,
        fault: Option<Fault>,
    ) -> Result<UnitOutcome, UnitError> {
        let milliseconds = match fault {
            Some(Fault::Slow(milliseconds)) => milliseconds,
            _ => self.server.world.below(6),
        };
        if !self.work_for(milliseconds).await {
            return Err(rolled_back(Some(0), ErrorKind::Cancelled, "cancelled"));
        }
        match fault {
            Some(Fault::Deadlock) => return Err(rolled_back(Some(0), ErrorKind::Deadlock, "deadlock")),
            Some(Fault::Constraint) => return Err(rolled_back(Some(0), ErrorKind::Other, "division by zero")),
            Some(
                Fault::LostBeforeCommit(_)
                | Fault::LostCommitted
                | Fault::LostRolledBack
                | Fault::LostOpen { .. }
                | Fault::Restart,
            ) => {
                self.is_usable = false;
                return Err(UnitError::RolledBack { place: None, error: lost() });
            }
            Some(Fault::Slow(_) | Fault::Begin) | None => {}
        }
        let is_read_only = unit.wrap == Wrap::ReadOnly;
        self.observe(unit, observer, is_read_only).map(|_| UnitOutcome::Done).map_err(|(_, error)| error)
    }

    /// Each effect commits by itself, at once.
    async fn bare(
        &mut self,
        unit: &Unit<'_>,
        observer: &mut dyn Observer,
        fault: Option<Fault>,
    ) -> Result<UnitOutcome, UnitError> {
        let partial = |kind, message: &str| UnitError::Partial { place: 0, error: Error::new(kind, "run statements", message) };
        let effects = match self.observe(unit, observer, false) {
            Ok(effects) => effects,
            Err((_, UnitError::RolledBack { error, .. })) => return Err(UnitError::Partial { place: 0, error }),
            Err((_, error)) => return Err(error),
        };
        let mut open = OpenTransaction::begin(self.server.clone(), Work { effects, marker: None, is_pipelined: false });
        open.commit_is_sent();
        let milliseconds = match fault {
            Some(Fault::Slow(milliseconds)) => milliseconds,
            _ => self.server.world.below(6),
        };
        if !self.work_for(milliseconds).await {
            open.rollback();
            return Err(partial(ErrorKind::Cancelled, "cancelled"));
        }
        match fault {
            Some(Fault::Deadlock | Fault::Constraint) => {
                open.rollback();
                Err(partial(ErrorKind::Deadlock, "deadlock"))
            }
            Some(Fault::LostBeforeCommit(_) | Fault::LostRolledBack) => {
                self.is_usable = false;
                open.rollback();
                Err(UnitError::Unknown { error: lost() })
            }
            Some(Fault::LostCommitted) => {
                self.is_usable = false;
                open.commit();
                Err(UnitError::Unknown { error: lost() })
            }
            Some(Fault::LostOpen { commits, after, .. }) => {
                self.is_usable = false;
                open.leave(false, commits, after);
                Err(UnitError::Unknown { error: lost() })
            }
            Some(Fault::Slow(_) | Fault::Begin | Fault::Restart) | None => {
                if open.commit() {
                    Ok(UnitOutcome::Done)
                } else {
                    self.is_usable = false;
                    Err(UnitError::Unknown { error: lost() })
                }
            }
        }
    }
}

fn told(wrap: &Wrap) -> String {
    match wrap {
        Wrap::Marked { key, .. } => {
            format!("marked {}[{}] {} {} try {}", key.task, key.map_index, key.segment, key.kind, key.try_number)
        }
        Wrap::ReadOnly => "read-only".into(),
        Wrap::Unmarked => "unmarked".into(),
        Wrap::RolledBack => "rolled back".into(),
        Wrap::Bare => "bare".into(),
    }
}

/// The number behind a function's opening parenthesis.
fn argument(sql: &str, call: &str) -> Option<i64> {
    sql.strip_prefix(call)?.split(')').next()?.trim().parse().ok()
}

fn not_simulated() -> Error {
    Error::config("the simulator has units and probes only")
}

#[async_trait]
impl Session for FakeSession {
    fn canceller(&self) -> Arc<dyn Canceller> {
        self.cancel.clone()
    }

    fn server_id(&self) -> String {
        "fake".into()
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    async fn execute(
        &mut self,
        _call: &Call<'_>,
        _place: usize,
        _observer: &mut dyn Observer,
    ) -> Result<StatementOutcome, Error> {
        Err(not_simulated())
    }

    async fn begin(&mut self, _begin: Option<&str>) -> Result<(), Error> {
        Err(not_simulated())
    }

    async fn commit(&mut self) -> Result<(), Error> {
        Err(not_simulated())
    }

    async fn rollback(&mut self) -> Result<(), Error> {
        Err(not_simulated())
    }

    async fn savepoint(&mut self, _name: &str) -> Result<(), Error> {
        Err(not_simulated())
    }

    async fn rollback_to(&mut self, _name: &str) -> Result<(), Error> {
        Err(not_simulated())
    }

    async fn run_unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        if !self.is_usable {
            return Err(UnitError::RolledBack { place: None, error: lost() });
        }
        let effect = unit.calls.iter().find_map(|call| call.sql.split(['\'', '"']).nth(1)).unwrap_or_default();
        let seen = Seen { number: self.server.world.unit_begins(effect), server: self.server.clone() };
        let mut attended = Attended { session: self, is_over: false };
        let ended = attended.session.unit(unit, observer).await;
        attended.is_over = true;
        drop(attended);
        drop(seen);
        self.server.world.say(|| format!("{}: unit ends: {}", self.server.name, told_end(&ended)));
        ended
    }

    async fn probe(&mut self, _table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| {
            format!("{}: probe {}[{}] {} {} try {}", server.name, key.task, key.map_index, key.segment, key.kind, key.try_number)
        });
        sleep(Duration::from_millis(world.below(4))).await;
        if !self.is_linked() || world.other_fault(100) {
            self.is_usable = false;
            return Err(lost());
        }
        if world.broken == Broken::ProbeAlwaysFences {
            return Ok(Probe::Fenced);
        }
        let give_up = world.now() + wait.as_millis() as u64;
        loop {
            let probe = match server.fence(key) {
                Found::Committed(row) => Some(Probe::Committed(row)),
                Found::Tombstone | Found::Free => Some(Probe::Fenced),
                Found::Taken => None,
            };
            if let Some(probe) = probe {
                world.say(|| format!("{}: {probe:?}", server.name));
                if world.other_fault(100) {
                    self.is_usable = false;
                    return Err(lost());
                }
                return Ok(probe);
            }
            let now = world.now();
            if now >= give_up {
                return Ok(Probe::StillRunning);
            }
            let next = server.next_end().unwrap_or(give_up).clamp(now + 1, give_up);
            // Over either way: the server is asked again.
            let _ = timeout(Duration::from_millis(next - now), server.ended.notified()).await;
        }
    }

    async fn reset(&mut self) -> Result<(), Error> {
        if !self.is_linked() || self.server.world.other_fault(10) {
            self.is_usable = false;
            return Err(lost());
        }
        Ok(())
    }

    async fn close(self: Box<Self>) {}
}

/// Makes a session unusable when its unit is dropped before its end: then nothing is known of its link.
struct Attended<'a> {
    session: &'a mut FakeSession,
    is_over: bool,
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.session.is_usable = false;
        }
    }
}

/// Something that a server works on, as long as this is there.
struct Seen {
    server: Arc<Server>,
    number: u64,
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.server.world.unit_ends(self.number);
    }
}

fn told_end(ended: &Result<UnitOutcome, UnitError>) -> String {
    match ended {
        Ok(UnitOutcome::Done) => "done".into(),
        Ok(UnitOutcome::AlreadyCommitted(_)) => "had committed already".into(),
        Err(UnitError::RolledBack { error, .. }) => format!("rolled back: {error}"),
        Err(UnitError::Partial { error, .. }) => format!("partial: {error}"),
        Err(UnitError::Unknown { error }) => format!("unknown: {error}"),
        Err(error @ (UnitError::Writes | UnitError::NoMarkerTable { .. } | UnitError::Fenced)) => error.to_string(),
    }
}
