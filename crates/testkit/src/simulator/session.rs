//! The fake connector: the real seam of `backstop_connect`, over the model of a server, with faults at every step. What a unit does is told
//! by `unit`.

mod shared;
mod unit;

use super::Broken;
use super::server::{Found, OpenTransaction, Server, Work};
use async_trait::async_trait;
use backstop_connect::session::{Call, StatementOutcome, Terms};
use backstop_connect::{
    Canceller, Capabilities, Connector, Dialect, Error, ErrorKind, MarkerKey, MarkerTable, Observer, Probe, Session, Unit,
    UnitError, UnitOutcome,
};
use shared::{Shared, no_transaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use unit::told_end;

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
            name: String::new(),
            shared: None,
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
    /// On whose behalf it works.
    name: String,
    cancel: Arc<Cancel>,
    shared: Option<Shared>,
}

fn lost() -> Error {
    Error::new(ErrorKind::Lost, "run statements", "the link broke")
}

impl FakeSession {
    /// The round trip of a look at what goes by a name.
    async fn look_for(&mut self, name: &str) -> Result<(), Error> {
        let world = self.server.world.clone();
        world.operation(|| format!("{}: look for `{name}`", self.server.name));
        sleep(Duration::from_millis(1)).await;
        if !self.is_linked() || world.other_fault(20) {
            self.is_usable = false;
            return Err(lost());
        }
        Ok(())
    }

    fn is_linked(&mut self) -> bool {
        if self.restarts != self.server.restarts() {
            self.is_usable = false;
        }
        self.is_usable
    }
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

    fn introduce(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    async fn end_leftovers(&mut self, name: &str, _except: &[String]) -> Result<usize, Error> {
        self.look_for(name).await?;
        Ok(self.server.end_leftovers(name))
    }

    async fn leftovers(&mut self, name: &str, _except: &[String]) -> Result<Option<usize>, Error> {
        self.look_for(name).await?;
        Ok(self.server.leftovers(name))
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    async fn execute(&mut self, call: &Call<'_>, place: usize, observer: &mut dyn Observer) -> Result<StatementOutcome, Error> {
        let effect = call.sql.split(['\'', '"']).nth(1).unwrap_or_default();
        let seen = Seen { number: self.server.world.unit_begins(effect), server: self.server.clone() };
        let mut attended = Attended { session: self, is_over: false };
        let ended = attended.session.statement(call, place, observer).await;
        attended.is_over = true;
        drop(attended);
        drop(seen);
        self.server.world.say(|| format!("{}: statement ends: {:?}", self.server.name, ended.as_ref().map(|_| ())));
        ended
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

    async fn savepoint(&mut self, name: &str) -> Result<(), Error> {
        let Some(done) = self.step_in_transaction("savepoint").await? else { return Err(lost()) };
        match &mut self.shared {
            Some(shared) if !shared.has_failed => {
                shared.savepoints.push((name.to_owned(), done));
                Ok(())
            }
            Some(_) | None => Err(no_transaction()),
        }
    }

    async fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        self.step_in_transaction("rollback to savepoint").await?;
        let Some(shared) = &mut self.shared else { return Err(no_transaction()) };
        let Some(place) = shared.savepoints.iter().rposition(|(known, _)| known == name) else {
            return Err(Error::new(ErrorKind::Other, "roll back", "no such savepoint"));
        };
        shared.savepoints.truncate(place + 1);
        shared.has_failed = false;
        let kept = shared.savepoints[place].1;
        self.server.undo_to(shared.open.id, kept);
        Ok(())
    }

    async fn open_transaction(&mut self, _terms: &Terms, _markers: Option<&MarkerTable>) -> Result<(), UnitError> {
        let server = self.server.clone();
        let world = server.world.clone();
        world.operation(|| format!("{}: open a transaction", server.name));
        sleep(Duration::from_millis(world.below(4))).await;
        if !self.is_linked() || world.other_fault(40) {
            self.is_usable = false;
            return Err(UnitError::RolledBack { place: None, error: lost() });
        }
        let open = OpenTransaction::begin(server, Work { name: self.name.clone(), is_shared: true, ..Work::default() });
        self.shared = Some(Shared { open, savepoints: Vec::new(), has_failed: false });
        Ok(())
    }

    async fn commit_marked(&mut self, _table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        let mut attended = Attended { session: self, is_over: false };
        let ended = attended.session.commit_shared(key, digest).await;
        attended.is_over = true;
        drop(attended);
        self.server.world.say(|| format!("{}: commit ends: {}", self.server.name, told_end(&ended)));
        ended
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
        if let Some(shared) = self.shared.take() {
            shared.open.rollback();
        }
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
