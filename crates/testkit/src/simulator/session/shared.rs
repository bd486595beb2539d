//! A transaction that several scripts share, on the fake server: statement by statement, with faults at each.

use super::unit::rolled_back;
use super::{FakeSession, lost};
use crate::simulator::server::OpenTransaction;
use crate::simulator::world::Fault;
use backstop_connect::session::{Call, StatementOutcome, Wrap};
use backstop_connect::{Column, Error, ErrorKind, MarkerKey, MarkerRow, Observer, Unit, UnitError, UnitOutcome, Value};
use std::time::Duration;
use tokio::time::sleep;

/// A transaction that several scripts share.
pub(super) struct Shared {
    pub(super) open: OpenTransaction,
    /// Names, and how much was done before each.
    pub(super) savepoints: Vec<(String, usize)>,
    /// A statement failed: nothing more runs before a rollback to a savepoint.
    pub(super) has_failed: bool,
}

impl FakeSession {
    /// One of our own statements in it; how much was done so far.
    pub(super) async fn step_in_transaction(&mut self, what: &str) -> Result<Option<usize>, Error> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| format!("{}: {what}", server.name));
        sleep(Duration::from_millis(world.below(2))).await;
        if !self.is_linked() || world.other_fault(100) {
            self.is_usable = false;
            self.shared = None;
            return Err(lost());
        }
        Ok(self.shared.as_ref().and_then(|shared| server.done_in(shared.open.id)))
    }

    pub(super) async fn statement(
        &mut self,
        call: &Call<'_>,
        place: usize,
        observer: &mut dyn Observer,
    ) -> Result<StatementOutcome, Error> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| format!("{}: statement {}", server.name, call.sql));
        if !self.is_linked() {
            return Err(lost());
        }
        let fault = world.unit_fault();
        if let Some(fault) = fault {
            world.say(|| format!("{}: fault {fault:?}", server.name));
        }
        if fault == Some(Fault::Restart) {
            server.restart();
        }
        let slow = match fault {
            Some(Fault::Slow(milliseconds)) => milliseconds,
            _ => world.below(6),
        };
        if !self.work_for(slow).await {
            self.fail();
            return Err(Error::new(ErrorKind::Cancelled, "run statements", "cancelled"));
        }
        if !self.is_linked() {
            self.shared = None;
            return Err(lost());
        }
        let Some(shared) = self.shared.as_ref().filter(|shared| !shared.has_failed) else { return Err(no_transaction()) };
        let id = shared.open.id;
        match fault {
            // The whole transaction is the victim.
            Some(Fault::Deadlock) => {
                if let Some(shared) = self.shared.take() {
                    shared.open.rollback();
                }
                return Err(Error::new(ErrorKind::Deadlock, "run statements", "deadlock"));
            }
            Some(Fault::Constraint | Fault::Begin) => {
                self.fail();
                return Err(Error::new(ErrorKind::Constraint, "run statements", "duplicate row"));
            }
            Some(Fault::LostBeforeCommit(after) | Fault::LostOpen { after, .. }) => {
                self.is_usable = false;
                if let Some(shared) = self.shared.take() {
                    shared.open.leave_settled(after);
                }
                return Err(lost());
            }
            Some(Fault::LostCommitted | Fault::LostRolledBack) => {
                self.is_usable = false;
                self.shared = None;
                return Err(lost());
            }
            Some(Fault::Slow(_) | Fault::Restart) | None => {}
        }
        let calls = std::slice::from_ref(call);
        let unit = Unit { calls, begin: None, wrap: Wrap::Bare, keeps_result: false };
        let mut placed = Placed { observer, place };
        match self.observe(&unit, &mut placed, false) {
            Ok(effects) => {
                let outcome = StatementOutcome { rows_affected: Some(effects.len() as u64), ..StatementOutcome::default() };
                if server.work_on(id, effects) { Ok(outcome) } else { Err(lost()) }
            }
            Err((_, UnitError::RolledBack { error, .. })) => {
                self.fail();
                Err(error)
            }
            Err((_, error)) => Err(Error::new(ErrorKind::Other, "run statements", error.to_string())),
        }
    }

    /// A statement failed. What the transaction did before is there still; whether it goes on as it is differs among databases.
    fn fail(&mut self) {
        let goes_on = self.server.goes_on_behind_errors();
        if let Some(shared) = &mut self.shared {
            shared.has_failed |= !goes_on;
        }
    }

    pub(super) async fn commit_shared(&mut self, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| format!("{}: commit {} try {}", server.name, key.task, key.try_number));
        if !self.is_linked() {
            self.shared = None;
            return Err(UnitError::RolledBack { place: None, error: lost() });
        }
        let fault = world.unit_fault();
        if let Some(fault) = fault {
            world.say(|| format!("{}: fault {fault:?}", server.name));
        }
        let Some(shared) = self.shared.take() else {
            return Err(UnitError::RolledBack { place: None, error: no_transaction() });
        };
        if shared.has_failed || server.done_in(shared.open.id).is_none() {
            return Err(rolled_back(None, ErrorKind::Other, "the transaction had failed: COMMIT rolled it back"));
        }
        let row = MarkerRow { digest: digest.to_owned(), rows_affected: -1, result: None, written_at: String::new() };
        server.mark(shared.open.id, key.clone(), row);
        let open = shared.open;
        match fault {
            Some(Fault::Deadlock | Fault::Constraint | Fault::Begin) => {
                open.rollback();
                Err(rolled_back(None, ErrorKind::Serialization, "could not serialize"))
            }
            Some(Fault::LostBeforeCommit(after)) => {
                self.is_usable = false;
                open.leave_settled(after);
                Err(UnitError::RolledBack { place: None, error: lost() })
            }
            Some(Fault::LostOpen { holds_key, commits, after }) => {
                self.is_usable = false;
                open.leave(holds_key, commits, after);
                Err(UnitError::Unknown { error: lost() })
            }
            Some(Fault::Restart) => {
                server.restart();
                self.is_usable = false;
                Err(UnitError::Unknown { error: lost() })
            }
            Some(Fault::Slow(_) | Fault::LostCommitted | Fault::LostRolledBack) | None => self.commit_open(open, fault).await,
        }
    }
}

/// Tells an observer of a statement that has another place there.
struct Placed<'a> {
    observer: &'a mut dyn Observer,
    place: usize,
}

impl Observer for Placed<'_> {
    fn started(&mut self, _place: usize) {
        self.observer.started(self.place);
    }

    fn columns(&mut self, _place: usize, columns: &[Column]) {
        self.observer.columns(self.place, columns);
    }

    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        self.observer.row(self.place, row)
    }

    fn finished(&mut self, _place: usize, outcome: &StatementOutcome) {
        self.observer.finished(self.place, outcome);
    }
}

pub(super) fn no_transaction() -> Error {
    Error::new(ErrorKind::Other, "run statements", "the transaction is aborted, or there is none")
}
