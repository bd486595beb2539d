//! Slots that the runs of one process share: how many tasks at once, the pools, and the sessions of connections. Who waits for one holds none
//! of the others.
//!
//! A run's own limits (`max_active_tasks`, the sizes of its pools) are the core's business; what it may begin by these is asked for
//! here. A slot that becomes free goes to the DAG that holds the fewest, then to the higher priority, then to who asked first, so that one
//! DAG with many tasks cannot starve the rest. Who does not fit is passed by those that do, but not for ever. It is kept for whom it was given to until they take it or want it no more: nobody who comes
//! by takes it away. A seat that cannot have what it wants costs nothing until it is woken.

mod places;
mod shortage;

use crate::sessions::ConnectionKey;
use backstop_core::{DagId, InstanceId, RunId};
pub use places::SessionPlace;
use places::{Connections, Places};
pub use shortage::{HOLDERS_MAX, Shortage};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Limits over all runs. `None` is without limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotLimits {
    /// Tasks going on at once (Airflow's `parallelism`).
    pub parallelism: Option<u32>,
    /// By pool; one that is not here has no limit over runs.
    pub pools: BTreeMap<String, Option<u32>>,
}

/// Who holds or wants what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The run.
    pub run: RunId,
    /// The instance.
    pub instance: InstanceId,
    /// The pool.
    pub pool: Arc<str>,
    /// How many of its slots.
    pub slots: u32,
    /// A place of the connection that it works on.
    pub session: Option<SessionPlace>,
    /// Higher goes first.
    pub priority: i64,
}

impl Claim {
    /// Whether slots of its pool are all that it lacks. While no session is left, slots that were kept for it would help nobody.
    fn could_use_its_pool(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.missing().is_none())
    }
}

/// What there is not enough of.
#[derive(Clone, PartialEq, Eq)]
enum Full {
    Parallelism,
    Pool(Arc<str>),
    Sessions(Arc<Places>),
}

/// Why an instance did not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// As many tasks go on as may.
    Places,
    /// Of slots of its pool.
    Slots,
    /// Of sessions of its connection.
    Sessions,
}

/// What an instance asks for, all or nothing.
pub(crate) struct Asked<'a> {
    pub(crate) pool: &'a str,
    pub(crate) slots: u32,
    /// A session of which connection, and how many that may have.
    pub(crate) session: Option<(ConnectionKey, u32)>,
    pub(crate) priority: i64,
}

/// What an attempt in doubt keeps.
pub(crate) struct Keeps {
    pub(crate) instance: InstanceId,
    pub(crate) pool: Arc<str>,
    pub(crate) slots: u32,
    /// As in [`Asked`].
    pub(crate) session: Option<(ConnectionKey, u32)>,
}

/// So often a claim is passed by others of its pool that fit where it does not: then its slots are kept for it as they become free.
const PASSED_MAX: u32 = 16;
/// The smallest goes first: what its DAG holds, its priority, when it was asked for.
type Rank = (u32, std::cmp::Reverse<i64>, u64);
/// A pool as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Its name.
    pub name: String,
    /// Its size; `None` is without limit.
    pub slots: Option<u32>,
    /// In use.
    pub used: u32,
    /// Instances that wait for it.
    pub waiting: usize,
}

/// A claim that was refused so far.
struct Want {
    /// Its place in the order of asking.
    order: u64,
    claim: Claim,
    /// How many went before it that rank behind it, because they fitted and it did not.
    passed: u32,
}

struct Seat {
    dag: DagId,
    /// What its DAG holds: shared by the seats of the DAG, so that ranking them looks nothing up.
    of_dag: Held,
    run: RunId,
    wake: Arc<Notify>,
    /// Refused so far, best first.
    wants: Vec<Want>,
    /// Given, and not taken yet.
    given: Vec<Claim>,
}

/// Tasks that a DAG has going on. Changed and read under the lock of the slots.
type Held = Arc<AtomicU32>;

/// What an attempt in doubt keeps.
struct Doubt {
    /// Of its own: the same instance may fall into doubt again.
    number: u64,
    claim: Claim,
}

#[derive(Default)]
struct State {
    limits: SlotLimits,
    used: u32,
    pools: BTreeMap<Arc<str>, u32>,
    connections: Connections,
    /// Of DAGs that have a seat or hold something.
    dags: BTreeMap<DagId, Held>,
    seats: BTreeMap<u64, Seat>,
    /// A claim of several slots has waited. Before, nobody can have been passed: what has room for another has room for one slot.
    has_wide: bool,
    held: BTreeMap<(RunId, InstanceId), (DagId, Claim)>,
    /// Pool slots and sessions of attempts in doubt: their statements may go on on a server. They are no work of this process, so they count
    /// in their pools and connections alone.
    doubts: BTreeMap<(RunId, InstanceId), Doubt>,
    next: u64,
}

/// The slots of one process.
#[derive(Default)]
pub struct Slots(Mutex<State>);

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").finish_non_exhaustive()
    }
}

impl Slots {
    /// With these limits.
    pub fn new(limits: SlotLimits) -> Self {
        Self(Mutex::new(State { limits, ..State::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits. What is going on goes on, also when it is more than the new limits allow.
    pub fn set_limits(&self, limits: SlotLimits) {
        let mut state = self.state();
        state.limits = limits;
        state.give();
    }

    /// The limits in force.
    pub fn limits(&self) -> SlotLimits {
        self.state().limits.clone()
    }

    /// Tasks going on.
    pub fn used(&self) -> u32 {
        self.state().used
    }

    /// Every pool that has a limit or is in use.
    pub fn pools(&self) -> Vec<PoolUse> {
        let state = self.state();
        let names: std::collections::BTreeSet<&str> =
            state.limits.pools.keys().map(String::as_str).chain(state.pools.keys().map(|name| &**name)).collect();
        let pool = |name: &str| PoolUse {
            name: name.to_owned(),
            slots: state.limits.pools.get(name).copied().flatten(),
            used: state.pools.get(name).copied().unwrap_or(0),
            waiting: state.seats.values().flat_map(|seat| &seat.wants).filter(|want| &*want.claim.pool == name).count(),
        };
        names.into_iter().map(pool).collect()
    }

    /// Who keeps pool slots because of a doubt, and the doubt's number.
    pub(crate) fn doubts(&self) -> Vec<(RunId, InstanceId, u64)> {
        let state = self.state();
        state.doubts.iter().map(|((run, instance), doubt)| (run.clone(), instance.clone(), doubt.number)).collect()
    }

    /// What an attempt in doubt began has ended: it keeps nothing more, unless it is another doubt by now.
    pub(crate) fn has_ended(&self, run: &RunId, instance: &InstanceId, number: u64) {
        let mut state = self.state();
        let is_it = |doubt: &Doubt| doubt.number == number;
        if state.doubts.get(&(run.clone(), instance.clone())).is_some_and(is_it) {
            state.keep_doubts_of(run, |kept| kept != instance);
        }
    }

    /// Keeps pool slots for attempts in doubt, until the run's seat or [`Self::keep_only`] says that they are in doubt no more.
    pub(crate) fn keep_for_doubts(&self, run: &RunId, doubts: Vec<Keeps>) {
        let mut state = self.state();
        for Keeps { instance, pool, slots, session } in doubts {
            let session = session.map(|session| state.connections.place(session));
            state.doubt(Claim { run: run.clone(), instance, pool, slots, session, priority: 0 });
        }
    }

    /// Of the attempts in doubt of a run, only these keep anything any more.
    pub(crate) fn keep_only(&self, run: &RunId, is_kept: impl Fn(&InstanceId) -> bool) {
        self.state().keep_doubts_of(run, is_kept);
    }

    /// A place from which a run asks.
    pub(crate) fn seat(self: &Arc<Self>, dag: DagId, run: RunId) -> SeatHandle {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let wake = Arc::new(Notify::new());
        let of_dag = state.dags.entry(dag.clone()).or_default().clone();
        state.seats.insert(id, Seat { dag, of_dag, run: run.clone(), wake: wake.clone(), wants: Vec::new(), given: Vec::new() });
        SeatHandle { slots: self.clone(), id, run, wake }
    }
}

impl State {
    /// What is full, how much of it is used, and how much there is; `None` when the claim fits.
    fn missing(&self, claim: &Claim) -> Option<(Full, u32, u32)> {
        if let Some(size) = self.limits.parallelism
            && self.used >= size
        {
            return Some((Full::Parallelism, self.used, size));
        }
        if let Some(size) = self.limits.pools.get(&*claim.pool).copied().flatten() {
            let used = self.pools.get(&claim.pool).copied().unwrap_or(0);
            // One that wants more than there is would wait for ever: it goes when the pool is empty.
            let fits = used + claim.slots <= size || used == 0 && claim.slots > size;
            if !fits {
                return Some((Full::Pool(claim.pool.clone()), used, size));
            }
        }
        let session = claim.session.as_ref()?;
        session.missing().map(|(used, size)| (Full::Sessions(session.of.clone()), used, size))
    }

    /// The smallest goes first.
    fn rank(&self, seat: &Seat, order: u64, claim: &Claim) -> Rank {
        (seat.of_dag.load(Ordering::Relaxed), std::cmp::Reverse(claim.priority), order)
    }

    fn hold(&mut self, dag: &DagId, claim: &Claim) {
        self.used += 1;
        *self.pools.entry(claim.pool.clone()).or_default() += claim.slots;
        claim.session.iter().for_each(SessionPlace::take);
        self.dags.entry(dag.clone()).or_default().fetch_add(1, Ordering::Relaxed);
        self.held.insert((claim.run.clone(), claim.instance.clone()), (dag.clone(), claim.clone()));
    }

    fn free(&mut self, run: &RunId, instance: &InstanceId) {
        let Some((dag, claim)) = self.held.remove(&(run.clone(), instance.clone())) else { return };
        self.used -= 1;
        subtract(&mut self.pools, &claim.pool, claim.slots);
        claim.session.iter().for_each(SessionPlace::free);
        if let Some(of_dag) = self.dags.get(&dag) {
            of_dag.fetch_sub(1, Ordering::Relaxed);
        }
        self.forget_dag(&dag);
    }

    /// Drops the count of a DAG that has no seat and holds nothing.
    fn forget_dag(&mut self, dag: &DagId) {
        let is_over = |of_dag: &Held| Arc::strong_count(of_dag) == 1 && of_dag.load(Ordering::Relaxed) == 0;
        if self.dags.get(dag).is_some_and(is_over) {
            self.dags.remove(dag);
        }
    }

    fn doubt(&mut self, claim: Claim) {
        let key = (claim.run.clone(), claim.instance.clone());
        if !self.doubts.contains_key(&key) {
            *self.pools.entry(claim.pool.clone()).or_default() += claim.slots;
            claim.session.iter().for_each(SessionPlace::take);
            self.next += 1;
            self.doubts.insert(key, Doubt { number: self.next, claim });
        }
    }

    /// Of the doubts of a run only these are left.
    fn keep_doubts_of(&mut self, run: &RunId, is_kept: impl Fn(&InstanceId) -> bool) {
        if self.doubts.is_empty() {
            return;
        }
        let is_over = |(of, instance): &&(RunId, InstanceId)| of == run && !is_kept(instance);
        let over: Vec<_> = self.doubts.keys().filter(is_over).cloned().collect();
        let frees = !over.is_empty();
        for key in over {
            if let Some(Doubt { claim, .. }) = self.doubts.remove(&key) {
                subtract(&mut self.pools, &claim.pool, claim.slots);
                claim.session.iter().for_each(SessionPlace::free);
            }
        }
        if frees {
            self.give();
        }
    }

    /// Claims that were passed often enough: their pools, and how they rank. Few, and mostly none.
    fn kept_for(&self) -> Vec<(Arc<str>, Rank)> {
        if !self.has_wide {
            return Vec::new();
        }
        let wants = self.seats.values().flat_map(|seat| seat.wants.iter().map(move |want| (seat, want)));
        wants
            .filter(|(_, want)| want.passed >= PASSED_MAX && want.claim.could_use_its_pool())
            .map(|(seat, want)| (want.claim.pool.clone(), self.rank(seat, want.order, &want.claim)))
            .collect()
    }

    /// Notes who was passed by a claim of a pool.
    fn note_passed(&mut self, pool: &Arc<str>, rank: Rank) {
        if !self.has_wide || self.limits.pools.get(&**pool).copied().flatten().is_none() {
            return;
        }
        for Seat { of_dag, wants, .. } in self.seats.values_mut() {
            let held = of_dag.load(Ordering::Relaxed);
            let passed = |want: &&mut Want| {
                want.claim.pool == *pool
                    && want.claim.could_use_its_pool()
                    && (held, std::cmp::Reverse(want.claim.priority), want.order) < rank
            };
            wants.iter_mut().filter(passed).for_each(|want| want.passed = want.passed.saturating_add(1));
        }
    }

    /// Who is next of those that may go: how they rank, in which seat, and at which place of it. Whether one may go is asked only of those
    /// that rank before all that may: mostly of one among hundreds.
    fn best(&self) -> Option<(Rank, u64, usize)> {
        let kept = self.kept_for();
        let mut best = None;
        for (id, seat) in &self.seats {
            for (place, want) in seat.wants.iter().enumerate() {
                let ranked = (self.rank(seat, want.order, &want.claim), *id, place);
                // What costs least is asked first.
                let is_before = best.is_none_or(|best| ranked < best) && want.claim.could_use_its_pool();
                if is_before && self.missing(&want.claim).is_none() && !goes_before(&kept, &want.claim, ranked.0) {
                    best = Some(ranked);
                }
            }
        }
        best
    }

    /// Gives what is free to whoever is next, and wakes them.
    fn give(&mut self) {
        // Nobody is looked at while nothing is free: with hundreds of runs that is most of the time.
        while self.limits.parallelism.is_none_or(|size| self.used < size) {
            let Some((rank, id, place)) = self.best() else { return };
            let Some(seat) = self.seats.get_mut(&id) else { return };
            let Want { claim, .. } = seat.wants.remove(place);
            self.note_passed(&claim.pool, rank);
            let Some(seat) = self.seats.get_mut(&id) else { return };
            seat.given.push(claim.clone());
            seat.wake.notify_one();
            let dag = seat.dag.clone();
            self.hold(&dag, &claim);
        }
    }
}

/// True when the pool of a claim is kept for one that ranks before it.
fn goes_before(kept: &[(Arc<str>, Rank)], claim: &Claim, rank: Rank) -> bool {
    kept.iter().any(|(pool, before)| *pool == claim.pool && *before < rank)
}

fn subtract<K: Ord + Clone>(counts: &mut BTreeMap<K, u32>, key: &K, by: u32) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// A run's place. What it holds is freed by the permits, what it wants when it is dropped.
pub(crate) struct SeatHandle {
    slots: Arc<Slots>,
    id: u64,
    run: RunId,
    wake: Arc<Notify>,
}

impl SeatHandle {
    /// Takes slots, if they are free or were kept for this.
    ///
    /// # Errors
    /// What there is not enough of: it is wanted from now on.
    pub(crate) fn take(&self, instance: &InstanceId, asked: Asked<'_>) -> Result<Permit, Lack> {
        let Asked { pool, slots, session, priority } = asked;
        let mut state = self.slots.state();
        let order = state.next;
        state.next += 1;
        let Some(seat) = state.seats.get_mut(&self.id) else { return Err(Lack::Places) };
        if let Some(place) = seat.given.iter().position(|claim| claim.instance == *instance) {
            seat.given.swap_remove(place);
            return Ok(self.permit(instance));
        }
        let dag = seat.dag.clone();
        let held = seat.of_dag.load(Ordering::Relaxed);
        let asked = seat.wants.iter().find(|want| want.claim.instance == *instance).map(|want| want.order);
        let session = session.map(|session| state.connections.place(session));
        let claim = Claim { run: self.run.clone(), instance: instance.clone(), pool: pool.into(), slots, session, priority };
        let rank = (held, std::cmp::Reverse(priority), asked.unwrap_or(order));
        let missing = state.missing(&claim);
        if missing.is_none() && !goes_before(&state.kept_for(), &claim, rank) {
            if let Some(seat) = state.seats.get_mut(&self.id) {
                seat.wants.retain(|want| want.claim.instance != *instance);
            }
            state.note_passed(&claim.pool, rank);
            state.hold(&dag, &claim);
            return Ok(self.permit(instance));
        }
        state.has_wide |= slots > 1;
        if let Some(seat) = state.seats.get_mut(&self.id).filter(|_| asked.is_none()) {
            seat.wants.push(Want { order, claim, passed: 0 });
        }
        Err(match missing {
            Some((Full::Parallelism, ..)) => Lack::Places,
            Some((Full::Sessions(_), ..)) => Lack::Sessions,
            // Or the pool is kept for one that was passed often.
            Some((Full::Pool(_), ..)) | None => Lack::Slots,
        })
    }

    fn permit(&self, instance: &InstanceId) -> Permit {
        Permit { slots: self.slots.clone(), run: self.run.clone(), instance: instance.clone() }
    }

    /// Says what is still wanted: the rest was asked for and is wanted no more, and what was kept for it goes to others.
    pub(crate) fn still_wants(&self, is_wanted: impl Fn(&InstanceId) -> bool) {
        let mut state = self.slots.state();
        let Some(seat) = state.seats.get_mut(&self.id) else { return };
        let wanted = seat.wants.len();
        seat.wants.retain(|want| is_wanted(&want.claim.instance));
        let waits_less = seat.wants.len() < wanted;
        let (kept, back): (Vec<_>, Vec<_>) = seat.given.drain(..).partition(|claim| is_wanted(&claim.instance));
        seat.given = kept;
        // Something may have been kept for what is wanted no more.
        if !back.is_empty() || waits_less {
            back.iter().for_each(|claim| state.free(&claim.run, &claim.instance));
            state.give();
        }
    }

    /// Attempts of the run are in doubt and keep their pool slots and sessions, whether there are as many or not: their statements may go on.
    pub(crate) fn keep_for_doubts(&self, doubts: Vec<Keeps>) {
        self.slots.keep_for_doubts(&self.run, doubts);
    }

    /// Of the run's attempts in doubt, only these keep anything any more.
    pub(crate) fn keep_only(&self, is_kept: impl Fn(&InstanceId) -> bool) {
        self.slots.keep_only(&self.run, is_kept);
    }

    /// Waits until something was given.
    pub(crate) async fn given(&self) {
        self.wake.notified().await;
    }
}

impl Drop for SeatHandle {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        if let Some(seat) = state.seats.remove(&self.id) {
            seat.given.iter().for_each(|claim| state.free(&seat.run, &claim.instance));
            let dag = seat.dag.clone();
            drop(seat);
            state.forget_dag(&dag);
            state.give();
        }
    }
}

/// Slots in use; dropping it frees them.
pub(crate) struct Permit {
    slots: Arc<Slots>,
    run: RunId,
    instance: InstanceId,
}

impl Permit {
    /// Nobody knows whether its work has ended: the pool's slots are kept, until the seat says which attempts are in doubt.
    pub(crate) fn falls_into_doubt(self) {
        let mut state = self.slots.state();
        let held = state.held.get(&(self.run.clone(), self.instance.clone()));
        if let Some(claim) = held.map(|(_, claim)| claim.clone()) {
            state.doubt(claim);
        }
        // Dropped at the end, which frees what it held.
        drop(state);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.free(&self.run, &self.instance);
        state.give();
    }
}

#[cfg(test)]
mod tests;
