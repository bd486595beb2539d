//! Effective priorities: a task's own weight plus the weights of everything down- or upstream of it, each counted once.
//!
//! The exact sum needs the transitive closure, which is quadratic. It is computed 64 tasks at a time with one bit each, so that the
//! memory stays linear and the work is `tasks / 64 * (edges + 8 * tasks)`. Up to [`EXACT_WORK_MAX`] (about 20,000 tasks with two
//! upstreams each) the sum is exact, as Airflow's. Above it, the priority is the own weight plus the largest effective priority
//! among the direct neighbours: the weight of the heaviest path. For chains the two are the same; in both, a task goes before what
//! waits for it, as long as weights are positive.

use super::{Task, WeightRule};
use crate::id::TaskIx;

/// Most steps spent on exact sums; some tens of milliseconds.
pub const EXACT_WORK_MAX: u64 = 1 << 26;

/// One priority a task.
pub(super) fn effective(tasks: &[Task], topological: &[TaskIx]) -> Vec<i64> {
    let edges: usize = tasks.iter().map(|task| task.upstream.len()).sum();
    let blocks = tasks.len().div_ceil(64) as u64;
    let is_exact = blocks.saturating_mul(edges as u64 + 8 * tasks.len() as u64) <= EXACT_WORK_MAX;
    let sums = if is_exact { exact } else { heaviest_path };
    let has = |rule| tasks.iter().any(|task| task.settings.weight_rule == rule);
    let down = has(WeightRule::Downstream).then(|| sums(tasks, &mut topological.iter().rev().copied(), |task| &task.downstream));
    let up = has(WeightRule::Upstream).then(|| sums(tasks, &mut topological.iter().copied(), |task| &task.upstream));
    let of = |sums: &Option<Vec<i64>>, place: usize, own: i64| sums.as_ref().map_or(own, |sums| sums[place]);
    let priority = |(place, task): (usize, &Task)| {
        let own = task.settings.priority_weight;
        match task.settings.weight_rule {
            WeightRule::Downstream => of(&down, place, own),
            WeightRule::Upstream => of(&up, place, own),
            WeightRule::Absolute => own,
        }
    };
    tasks.iter().enumerate().map(priority).collect()
}

/// The neighbours on the side that is summed.
type Side = fn(&Task) -> &[TaskIx];

fn exact(tasks: &[Task], order: &mut dyn Iterator<Item = TaskIx>, side: Side) -> Vec<i64> {
    let order: Vec<TaskIx> = order.collect();
    let mut sums = vec![0_i64; tasks.len()];
    let mut reached = vec![0_u64; tasks.len()];
    for (block, members) in tasks.chunks(64).enumerate() {
        let weights = byte_sums(members);
        for &place in &order {
            let own = if place.get() / 64 == block { 1_u64 << (place.get() % 64) } else { 0 };
            let bits = side(&tasks[place.get()]).iter().fold(own, |bits, other| bits | reached[other.get()]);
            reached[place.get()] = bits;
            for (byte, table) in bits.to_le_bytes().iter().zip(&weights) {
                sums[place.get()] = sums[place.get()].saturating_add(table[usize::from(*byte)]);
            }
        }
    }
    sums
}

/// For each byte of a block's 64 bits, the sum of weights for each of its 256 values.
fn byte_sums(members: &[Task]) -> Vec<[i64; 256]> {
    let mut tables = vec![[0_i64; 256]; 8];
    for (byte, table) in tables.iter_mut().enumerate() {
        for value in 1..256_usize {
            let lowest = value.trailing_zeros() as usize;
            let weight = members.get(byte * 8 + lowest).map_or(0, |task| task.settings.priority_weight);
            table[value] = table[value & (value - 1)].saturating_add(weight);
        }
    }
    tables
}

fn heaviest_path(tasks: &[Task], order: &mut dyn Iterator<Item = TaskIx>, side: Side) -> Vec<i64> {
    let mut weights = vec![0_i64; tasks.len()];
    for place in order {
        let task = &tasks[place.get()];
        let heaviest = side(task).iter().map(|other| weights[other.get()]).max().unwrap_or(0);
        weights[place.get()] = task.settings.priority_weight.saturating_add(heaviest);
    }
    weights
}
