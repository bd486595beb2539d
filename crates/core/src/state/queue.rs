//! Ready instances, and the slots that running ones hold.
//!
//! Order: higher effective priority, then the unmapped before the mapped by index, then the order of the source. Each pool has its own
//! queue, and only its head may go: an attempt that needs more slots than are free makes the rest of its pool wait until it fits, so
//! that small tasks never starve a large one. (Airflow lets the small ones pass.) Other pools go on meanwhile.

use super::Key;
use crate::dag::Dag;
use crate::id::TaskIx;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// So many ready instances are passed over at a time that something outside of the run keeps from beginning: looking through them has an end.
const PASSED_MAX: usize = 1_000;

/// Ready instances by pool, with the slots in use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Queue {
    /// Attempts going on, over all pools.
    active: u32,
    pools: Vec<PoolQueue>,
    /// Those that have their slots already, kept by the transaction that they go on with.
    with_slots: BTreeSet<Ready>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct PoolQueue {
    used: u64,
    ready: BTreeSet<Ready>,
}

/// Sorts in the order in which instances may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ready {
    priority: Reverse<i64>,
    map_index: Option<u32>,
    task: TaskIx,
}

impl Ready {
    fn of(dag: &Dag, key: Key) -> Self {
        Self { priority: Reverse(dag.effective_priority(key.task)), map_index: key.map_index, task: key.task }
    }

    fn key(self) -> Key {
        Key { task: self.task, map_index: self.map_index }
    }
}

impl Queue {
    pub(super) fn new(pools: usize) -> Self {
        Self { active: 0, pools: vec![PoolQueue::default(); pools], with_slots: BTreeSet::new() }
    }

    pub(super) fn used(&self, pool: u32) -> u64 {
        self.pools.get(pool as usize).map_or(0, |pool| pool.used)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.with_slots.is_empty() && self.pools.iter().all(|pool| pool.ready.is_empty())
    }

    pub(super) fn push(&mut self, dag: &Dag, key: Key, has_slots: bool) {
        let ready = Ready::of(dag, key);
        let queue = if has_slots { &mut self.with_slots } else { &mut self.pool_of(dag, key).ready };
        queue.insert(ready);
    }

    pub(super) fn remove(&mut self, dag: &Dag, key: Key) {
        self.with_slots.remove(&Ready::of(dag, key));
        self.pool_of(dag, key).ready.remove(&Ready::of(dag, key));
    }

    pub(super) fn take_slots(&mut self, dag: &Dag, key: Key) {
        self.active += 1;
        self.pool_of(dag, key).used += u64::from(dag.task(key.task).settings.pool_slots);
    }

    pub(super) fn free_slots(&mut self, dag: &Dag, key: Key) {
        self.active -= 1;
        self.pool_of(dag, key).used -= u64::from(dag.task(key.task).settings.pool_slots);
    }

    fn pool_of(&mut self, dag: &Dag, key: Key) -> &mut PoolQueue {
        &mut self.pools[dag.task(key.task).settings.pool as usize]
    }

    /// True when an attempt of this instance could begin now.
    pub(crate) fn has_room(&self, dag: &Dag, key: Key) -> bool {
        if self.with_slots.contains(&Ready::of(dag, key)) {
            return true;
        }
        let pool = dag.task(key.task).settings.pool as usize;
        self.active < dag.max_active_tasks() && fits(dag, pool, self.pools[pool].used, key.task)
    }

    /// Ready instances that go before this one, over all pools, pool by pool.
    pub(crate) fn ahead<'a>(&'a self, dag: &Dag, key: Key) -> impl Iterator<Item = Key> + 'a {
        let own = Ready::of(dag, key);
        self.pools.iter().flat_map(move |pool| pool.ready.range(..own)).map(|ready| ready.key())
    }

    /// Ready instances of its pool that go before this one, in order.
    pub(crate) fn ahead_in_pool<'a>(&'a self, dag: &Dag, key: Key) -> impl Iterator<Item = Key> + use<'a> {
        let pool = &self.pools[dag.task(key.task).settings.pool as usize];
        pool.ready.range(..Ready::of(dag, key)).map(|ready| ready.key())
    }

    /// The instances that may begin now, all of them together, in order. Costs the number of pools and of instances returned.
    pub(crate) fn startable(&self, dag: &Dag) -> Vec<Key> {
        self.startable_past(dag, |_| false)
    }

    /// The same, past those that something outside of the run keeps from beginning. Costs the number of these, too.
    pub(crate) fn startable_past(&self, dag: &Dag, is_kept_back: impl FnMut(Key) -> bool) -> Vec<Key> {
        let mut startable: Vec<Key> = self.with_slots.iter().map(|ready| ready.key()).collect();
        let mut room = dag.max_active_tasks().saturating_sub(self.active);
        if room == 0 {
            return startable;
        }
        let mut past = Past { is_kept_back, left: PASSED_MAX };
        // A pool's lane ends at the first instance that does not fit.
        let lanes = self.pools.iter().enumerate();
        let mut lanes: Vec<Lane> = lanes.filter_map(|(pool, queue)| Lane::of(pool, queue, &mut past)).collect();
        while room > 0 {
            lanes.retain(|lane| fits(dag, lane.pool, lane.used, lane.head.task));
            let Some(first) = (0..lanes.len()).min_by_key(|&lane| lanes[lane].head) else { break };
            let lane = &mut lanes[first];
            lane.used += u64::from(dag.task(lane.head.task).settings.pool_slots);
            startable.push(lane.head.key());
            room -= 1;
            match past.next(&mut lane.rest) {
                Some(next) => lane.head = next,
                None => {
                    lanes.swap_remove(first);
                }
            }
        }
        startable
    }
}

/// A pool's ready instances, while they are handed out.
struct Lane<'a> {
    pool: usize,
    used: u64,
    head: Ready,
    rest: std::collections::btree_set::Iter<'a, Ready>,
}

impl<'a> Lane<'a> {
    fn of(pool: usize, queue: &'a PoolQueue, past: &mut Past<impl FnMut(Key) -> bool>) -> Option<Self> {
        let mut rest = queue.ready.iter();
        let head = past.next(&mut rest)?;
        Some(Self { pool, used: queue.used, head, rest })
    }
}

/// Goes past what is kept back, so many times and no more.
struct Past<F> {
    is_kept_back: F,
    left: usize,
}

impl<F: FnMut(Key) -> bool> Past<F> {
    fn next(&mut self, rest: &mut std::collections::btree_set::Iter<'_, Ready>) -> Option<Ready> {
        loop {
            let next = *rest.next()?;
            if !(self.is_kept_back)(next.key()) {
                return Some(next);
            }
            self.left = self.left.checked_sub(1)?;
        }
    }
}

fn fits(dag: &Dag, pool: usize, used: u64, task: TaskIx) -> bool {
    let wanted = u64::from(dag.task(task).settings.pool_slots);
    dag.pools()[pool].slots.is_none_or(|slots| used + wanted <= u64::from(slots))
}
