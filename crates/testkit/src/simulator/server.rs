//! A database server as the protocol sees it: effects, markers with a unique key, transactions that outlive their clients.

use super::Broken;
use super::dice::Dice;
use super::world::{Moment, World, later};
use backstop_connect::{MarkerKey, MarkerRow};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Of how many servers in a hundred nobody can see which sessions work there.
const BLIND_PERCENT: u64 = 25;

/// Names a transaction on its server.
pub(crate) type TransactionId = u64;

/// What a transaction does when it commits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// By which name its session goes.
    pub(crate) name: String,
    /// Each effect is one text; see `scenario` for how it is put together.
    pub(crate) effects: Vec<String>,
    pub(crate) marker: Option<(MarkerKey, MarkerRow)>,
    /// Sent in one go with its commit: the server can end it without hearing from the client again.
    pub(crate) is_pipelined: bool,
    /// Several scripts share it, and its marker comes with its commit: before that nobody is in doubt about it.
    pub(crate) is_shared: bool,
}

#[derive(Clone, Debug)]
struct Transaction {
    work: Work,
    holds_key: bool,
    /// `None` while its client lives.
    fate: Option<Fate>,
}

/// How a transaction ends whose client is gone.
#[derive(Clone, Copy, Debug)]
struct Fate {
    at: Moment,
    commits: bool,
    /// The process whose client it was.
    process: u32,
    /// Nobody is in doubt about it: its client was told that it did not commit.
    is_settled: bool,
}

/// Statements whose client is gone, and that the server still works on.
pub(crate) struct Left {
    /// Their first effect.
    pub(crate) effect: String,
    /// The process whose client it was.
    pub(crate) process: u32,
}

/// What is found under a marker's key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// It is ours now.
    Free,
    Committed(MarkerRow),
    Tombstone,
    /// An open transaction holds it.
    Taken,
}

#[derive(Clone, Debug)]
enum Marker {
    Committed(MarkerRow),
    Tombstone,
}

#[derive(Default)]
struct State {
    effects: BTreeMap<String, u32>,
    markers: HashMap<MarkerKey, Marker>,
    open: BTreeMap<TransactionId, Transaction>,
    /// Left by a process that is being dropped, with whether they were pipelined.
    abandoned: BTreeMap<TransactionId, bool>,
    begun: u64,
    restarts: u64,
    /// Nobody can open a link before.
    down_until: Moment,
}

/// One server. It goes on when the process that uses it dies.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) world: Arc<World>,
    /// Sessions cannot be told by their names: it stands behind a pooler, say.
    is_blind: bool,
    state: Mutex<State>,
    /// A transaction ended.
    pub(crate) ended: Notify,
}

impl Server {
    pub(crate) fn new(name: &'static str, world: Arc<World>) -> Self {
        let is_blind = Dice::for_purpose(world.seed, 6 + 256 * u64::from(name.as_bytes()[0])).chance(BLIND_PERCENT);
        Self { name, world, is_blind, state: Mutex::default(), ended: Notify::new() }
    }

    /// The state as it is now: with all ends that have come since somebody looked.
    fn state(&self) -> MutexGuard<'_, State> {
        let now = self.world.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, id)) = state.next_end().filter(|(at, _)| *at <= now) {
            let commits = state.open.get(&id).and_then(|open| open.fate).is_some_and(|fate| fate.commits);
            self.world.say(|| format!("{}: transaction {id}, left alone, ends (commits: {commits}) since {at}", self.name));
            if commits && state.take_key(id, &self.world.broken) == Found::Free {
                self.apply(&mut state, id);
            } else {
                state.open.remove(&id);
            }
            self.ended.notify_waiters();
        }
        state
    }

    pub(crate) fn begin(&self, work: Work) -> TransactionId {
        let mut state = self.state();
        state.begun += 1;
        let id = state.begun;
        state.open.insert(id, Transaction { work, holds_key: false, fate: None });
        id
    }

    /// More work in a transaction that is open. False when the server has forgotten it.
    pub(crate) fn work_on(&self, id: TransactionId, effects: Vec<String>) -> bool {
        let mut state = self.state();
        let open = state.open.get_mut(&id);
        open.map(|open| open.work.effects.extend(effects)).is_some()
    }

    /// How much was done in a transaction so far; `None` when the server has forgotten it.
    pub(crate) fn done_in(&self, id: TransactionId) -> Option<usize> {
        self.state().open.get(&id).map(|open| open.work.effects.len())
    }

    /// Takes back all but the first of what was done in a transaction.
    pub(crate) fn undo_to(&self, id: TransactionId, kept: usize) {
        if let Some(open) = self.state().open.get_mut(&id) {
            open.work.effects.truncate(kept);
        }
    }

    /// The marker that goes with a transaction that was begun without.
    pub(crate) fn mark(&self, id: TransactionId, key: MarkerKey, row: MarkerRow) {
        if let Some(open) = self.state().open.get_mut(&id) {
            open.work.marker = Some((key, row));
        }
    }

    /// Looks under a key without changing anything.
    pub(crate) fn look(&self, key: &MarkerKey) -> Found {
        self.state().look(key)
    }

    /// Inserts the transaction's marker. `Taken` means: wait for [`Self::ended`] and ask again.
    pub(crate) fn take_key(&self, id: TransactionId) -> Found {
        self.state().take_key(id, &self.world.broken)
    }

    /// Leaves a tombstone under a key that is free, in a transaction of its own.
    pub(crate) fn fence(&self, key: &MarkerKey) -> Found {
        let mut state = self.state();
        let found = state.look(key);
        if found == Found::Free && self.world.broken != Broken::ProbeLeavesNoTombstone {
            state.markers.insert(key.clone(), Marker::Tombstone);
        }
        found
    }

    /// False when the server has forgotten the transaction.
    pub(crate) fn commit(&self, id: TransactionId) -> bool {
        let mut state = self.state();
        let is_there = state.open.contains_key(&id);
        if is_there {
            self.apply(&mut state, id);
        }
        drop(state);
        self.ended.notify_waiters();
        is_there
    }

    pub(crate) fn rollback(&self, id: TransactionId) {
        self.state().open.remove(&id);
        self.ended.notify_waiters();
    }

    /// The client is gone, and the transaction ends so many milliseconds from now.
    pub(crate) fn leave(&self, id: TransactionId, holds_key: bool, commits: bool, after: u64) {
        self.leave_as(
            id,
            holds_key,
            Fate { at: self.world.now() + after, commits, process: self.world.process(), is_settled: false },
        );
    }

    fn leave_as(&self, id: TransactionId, holds_key: bool, fate: Fate) {
        let mut state = self.state();
        // A key that somebody else holds is taken when the transaction ends, or makes it fail.
        let holds_key = holds_key && state.take_key(id, &self.world.broken) == Found::Free;
        if let Some(open) = state.open.get_mut(&id) {
            open.holds_key = holds_key;
            let is_settled = fate.is_settled || (open.work.is_shared && open.work.marker.is_none());
            open.fate = Some(Fate { is_settled, ..fate });
        }
    }

    /// As [`Self::leave`], for a client that was dropped at some moment. The order in which the tasks of a dead process are dropped does
    /// not follow from the seed, so they are only noted then: see [`Self::bury`].
    fn abandon(&self, id: TransactionId, is_pipelined: bool) {
        if self.world.has_process() {
            self.decide_fate(id, is_pipelined);
        } else {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).abandoned.insert(id, is_pipelined);
        }
    }

    /// A process was dropped, and all its clients with it.
    pub(crate) fn bury(&self) {
        let abandoned = std::mem::take(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner).abandoned);
        abandoned.into_iter().for_each(|(id, is_pipelined)| self.decide_fate(id, is_pipelined));
    }

    fn decide_fate(&self, id: TransactionId, is_pipelined: bool) {
        let server = u64::from(self.name.as_bytes()[0]);
        let mut dice = Dice::for_purpose(self.world.seed, 1000 + id * 256 + server);
        let commits = is_pipelined && dice.chance(60);
        let after = if dice.chance(30) { 0 } else { later(&mut dice) };
        self.leave(id, dice.chance(50), commits, after);
    }

    /// Rolls back all that is open and breaks all links.
    pub(crate) fn restart(&self) {
        self.world.say(|| format!("{} restarts", self.name));
        let mut state = self.state();
        state.open.clear();
        state.restarts += 1;
        drop(state);
        self.ended.notify_waiters();
    }

    /// The machine dies: nobody opens a link for so many milliseconds.
    pub(crate) fn die(&self, milliseconds: u64) {
        self.restart();
        self.state().down_until = self.world.now() + milliseconds;
    }

    pub(crate) fn come_back(&self) {
        self.state().down_until = 0;
    }

    pub(crate) fn is_down(&self) -> bool {
        self.state().down_until > self.world.now()
    }

    /// A failed statement costs the transaction no more than itself, as on MySQL and SQLite; otherwise nothing more runs in it before it goes back
    /// to a savepoint, as on PostgreSQL. One server of each kind.
    pub(crate) fn goes_on_behind_errors(&self) -> bool {
        self.name == "b"
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.state().restarts
    }

    /// When the next transaction of a dead client ends.
    pub(crate) fn next_end(&self) -> Option<Moment> {
        self.state().next_end().map(|(at, _)| at)
    }

    /// When the last of them has ended.
    pub(crate) fn last_end(&self) -> Option<Moment> {
        self.state().open.values().filter_map(|open| open.fate).map(|fate| fate.at).max()
    }

    /// Statements whose clients are gone, and of which somebody may be in doubt: where a server can be asked about them.
    pub(crate) fn left(&self) -> Vec<Left> {
        if self.is_blind {
            return Vec::new();
        }
        let state = self.state();
        let left =
            state.open.values().filter_map(|open| Some((open.fate.filter(|fate| !fate.is_settled)?, open.work.effects.first()?)));
        left.map(|(fate, effect)| Left { effect: effect.clone(), process: fate.process }).collect()
    }

    /// How many sessions whose clients are gone work under a name.
    pub(crate) fn leftovers(&self, name: &str) -> Option<usize> {
        let left = || self.state().open.values().filter(|open| open.fate.is_some() && open.work.name == name).count();
        (!self.is_blind).then(left)
    }

    /// Rolls back what they do. Gives how many there were.
    pub(crate) fn end_leftovers(&self, name: &str) -> usize {
        if self.is_blind {
            return 0;
        }
        let mut state = self.state();
        let before = state.open.len();
        state.open.retain(|_, open| open.fate.is_none() || open.work.name != name);
        let ended = before - state.open.len();
        drop(state);
        if ended > 0 {
            self.world.say(|| format!("{}: ends {ended} that work as `{name}`", self.name));
            self.ended.notify_waiters();
        }
        ended
    }

    /// How often an effect was applied.
    pub(crate) fn count(&self, effect: &str) -> u32 {
        self.state().effects.get(effect).copied().unwrap_or(0)
    }

    /// Every effect that was applied.
    pub(crate) fn effects(&self) -> BTreeMap<String, u32> {
        self.state().effects.clone()
    }

    /// Commits, with the checks that hold at every commit.
    fn apply(&self, state: &mut State, id: TransactionId) {
        let Some(open) = state.open.remove(&id) else { return };
        if let Some((key, row)) = open.work.marker.filter(|_| self.world.broken != Broken::MarkerForgotten) {
            state.markers.insert(key, Marker::Committed(row));
        }
        for effect in open.work.effects {
            let count = state.effects.entry(effect.clone()).or_insert(0);
            *count += 1;
            // Of several runs: their logs say at the end what was allowed.
            if effect.contains(super::scenario::RUN_END) {
                continue;
            }
            if *count > self.world.times_asked(&effect) && !effect.starts_with(super::scenario::REPEATABLE) {
                self.world.violated(|| format!("effect `{effect}` was applied {count} times"));
            }
            if effect.starts_with(super::scenario::CALL) && !self.world.is_allowed_call(&effect) {
                self.world.violated(|| format!("callback `{effect}` ran before the log said durably that it must"));
            }
        }
    }
}

impl State {
    fn next_end(&self) -> Option<(Moment, TransactionId)> {
        self.open.iter().filter_map(|(id, open)| Some((open.fate?.at, *id))).min()
    }

    fn look(&self, key: &MarkerKey) -> Found {
        match self.markers.get(key) {
            Some(Marker::Committed(row)) => Found::Committed(row.clone()),
            Some(Marker::Tombstone) => Found::Tombstone,
            None if self.is_held(key, None) => Found::Taken,
            None => Found::Free,
        }
    }

    fn is_held(&self, key: &MarkerKey, except: Option<TransactionId>) -> bool {
        self.open.iter().any(|(id, open)| {
            Some(*id) != except && open.holds_key && open.work.marker.as_ref().is_some_and(|(held, _)| held == key)
        })
    }

    fn take_key(&mut self, id: TransactionId, broken: &Broken) -> Found {
        let Some((key, _)) = self.open.get(&id).and_then(|open| open.work.marker.clone()) else { return Found::Free };
        if *broken == Broken::MarkerNotUnique {
            return Found::Free;
        }
        let found = match self.markers.get(&key) {
            Some(Marker::Committed(row)) => Found::Committed(row.clone()),
            Some(Marker::Tombstone) => Found::Tombstone,
            None if self.is_held(&key, Some(id)) => Found::Taken,
            None => Found::Free,
        };
        if found == Found::Free
            && let Some(open) = self.open.get_mut(&id)
        {
            open.holds_key = true;
        }
        found
    }
}

/// An open transaction of a living client. Dropped without an end, it is left alone on the server.
pub(crate) struct OpenTransaction {
    server: Arc<Server>,
    pub(crate) id: TransactionId,
    is_pipelined: bool,
    is_over: bool,
}

impl OpenTransaction {
    pub(crate) fn begin(server: Arc<Server>, work: Work) -> Self {
        let is_pipelined = work.is_pipelined;
        let id = server.begin(work);
        Self { server, id, is_pipelined, is_over: false }
    }

    pub(crate) fn commit(mut self) -> bool {
        self.is_over = true;
        self.server.commit(self.id)
    }

    pub(crate) fn rollback(mut self) {
        self.is_over = true;
        self.server.rollback(self.id);
    }

    pub(crate) fn leave(mut self, holds_key: bool, commits: bool, after: u64) {
        self.is_over = true;
        self.server.leave(self.id, holds_key, commits, after);
    }

    /// As [`Self::leave`], where the client knows that it does not commit.
    pub(crate) fn leave_settled(mut self, after: u64) {
        self.is_over = true;
        let world = &self.server.world;
        let fate = Fate { at: world.now() + after, commits: false, process: world.process(), is_settled: true };
        self.server.leave_as(self.id, true, fate);
    }

    /// The commit was sent: from now on the server can end it alone.
    pub(crate) fn commit_is_sent(&mut self) {
        self.is_pipelined = true;
    }
}

impl Drop for OpenTransaction {
    fn drop(&mut self) {
        if !self.is_over {
            self.server.abandon(self.id, self.is_pipelined);
        }
    }
}
