//! What a unit of statements does in a session of the fake connector, and how it goes wrong.

use super::super::Broken;
use super::super::server::{Found, OpenTransaction, Work};
use super::super::world::Fault;
use super::{FakeSession, lost};
use backstop_connect::session::{StatementOutcome, Wrap};
use backstop_connect::{Column, Error, ErrorKind, MarkerKey, MarkerRow, Observer, Unit, UnitError, UnitOutcome, Value};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::sleep;

/// The longest a transaction waits for a marker's key.
const LOCK_WAIT_MS: u64 = 90_000;

/// What one statement of the simulator's tiny language does.
enum Step {
    /// `INSERT INTO effects VALUES ('...')`, `VACUUM '...'`, `SELECT touch('...')`.
    Effect(String),
    /// `SELECT ...` of something that is decided when it runs.
    Rows(Vec<i64>),
    /// `INSERT INTO nowhere ...`.
    Broken,
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

    /// Waits as long as the server works on statements. False when somebody cancels them.
    pub(super) async fn work_for(&self, milliseconds: u64) -> bool {
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
    pub(super) fn observe(
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

    pub(super) async fn unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| {
            format!("{}: unit {} of {:?}", server.name, told(&unit.wrap), unit.calls.iter().map(|c| c.sql).collect::<Vec<_>>())
        });
        if !self.is_linked() {
            // The server restarted while the session lay idle.
            return Err(UnitError::NotBegun { error: lost() });
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
        let open = OpenTransaction::begin(
            server.clone(),
            Work { name: self.name.clone(), effects, marker, is_pipelined, is_shared: false },
        );
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
                open.leave_settled(after);
                return Err(UnitError::RolledBack { place: None, error: lost() });
            }
            Some(Fault::LostOpen { holds_key, commits, after }) => {
                self.is_usable = false;
                open.leave(holds_key, commits, after);
                return Err(UnitError::Unknown { error: lost() });
            }
            Some(Fault::Slow(_) | Fault::Begin | Fault::LostCommitted | Fault::LostRolledBack | Fault::Restart) | None => {}
        }
        self.commit_open(open, fault).await
    }

    /// Inserts the marker and commits.
    pub(super) async fn commit_open(
        &mut self,
        mut open: OpenTransaction,
        fault: Option<Fault>,
    ) -> Result<UnitOutcome, UnitError> {
        let world = self.server.world.clone();
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
        let mut open = OpenTransaction::begin(
            self.server.clone(),
            Work { name: self.name.clone(), effects, marker: None, is_pipelined: false, is_shared: false },
        );
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

pub(super) fn rolled_back(place: Option<usize>, kind: ErrorKind, message: &str) -> UnitError {
    UnitError::RolledBack { place, error: Error::new(kind, "run statements", message) }
}

pub(super) fn told_end(ended: &Result<UnitOutcome, UnitError>) -> String {
    match ended {
        Ok(UnitOutcome::Done) => "done".into(),
        Ok(UnitOutcome::AlreadyCommitted(_)) => "had committed already".into(),
        Err(UnitError::NotBegun { error }) => format!("not begun: {error}"),
        Err(UnitError::RolledBack { error, .. }) => format!("rolled back: {error}"),
        Err(UnitError::Partial { error, .. } | UnitError::EndedInside { error, .. }) => format!("partial: {error}"),
        Err(UnitError::Unknown { error }) => format!("unknown: {error}"),
        Err(error @ (UnitError::Writes | UnitError::NoMarkerTable { .. } | UnitError::Fenced)) => error.to_string(),
    }
}
