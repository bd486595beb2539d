//! Setups and teardowns: who waits for whom beyond direct upstreams. Computed only for DAGs that have setups.

use super::{Role, Task};
use crate::id::TaskIx;
use std::collections::BTreeSet;

/// Waits that follow from setups and teardowns, in both directions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scopes {
    /// For each task, the tasks that wait for it as an indirect setup.
    pub(crate) gated: Vec<Vec<TaskIx>>,
    /// For each task, how many indirect setups it waits for.
    pub(crate) setups: Vec<u32>,
    /// For each task, the teardowns that wait for it because it is between their setups and them.
    pub(crate) enclosing: Vec<Vec<TaskIx>>,
    /// For each teardown, how many tasks are between its setups and it.
    pub(crate) enclosed: Vec<u32>,
}

impl Scopes {
    /// `None` without setups. Costs two walks over the DAG for each setup and one for each of its teardowns.
    pub(super) fn of(tasks: &[Task]) -> Option<Self> {
        let places = || (0..tasks.len() as u32).map(TaskIx);
        let is_setup = |place: &TaskIx| matches!(tasks[place.get()].settings.role, Role::Setup);
        let is_teardown = |place: &TaskIx| matches!(tasks[place.get()].settings.role, Role::Teardown { .. });
        if !places().any(|place| is_setup(&place)) {
            return None;
        }
        let mut scopes = Self {
            gated: vec![Vec::new(); tasks.len()],
            setups: vec![0; tasks.len()],
            enclosing: vec![Vec::new(); tasks.len()],
            enclosed: vec![0; tasks.len()],
        };
        let mut between: Vec<BTreeSet<TaskIx>> = vec![BTreeSet::new(); tasks.len()];
        for setup in places().filter(is_setup) {
            let after = reach(tasks, &[setup], |task| &task.downstream);
            let teardowns: Vec<TaskIx> = tasks[setup.get()].downstream.iter().copied().filter(is_teardown).collect();
            let before_teardowns = reach(tasks, &teardowns, |task| &task.upstream);
            for place in places().filter(|place| after[place.get()]) {
                let is_direct = tasks[setup.get()].downstream.binary_search(&place).is_ok();
                let is_inside = teardowns.is_empty() || before_teardowns[place.get()];
                if !is_direct && is_inside && !is_teardown(&place) {
                    scopes.gated[setup.get()].push(place);
                    scopes.setups[place.get()] += 1;
                }
            }
            for &teardown in &teardowns {
                let before = reach(tasks, &[teardown], |task| &task.upstream);
                between[teardown.get()].extend(places().filter(|place| after[place.get()] && before[place.get()]));
            }
        }
        for teardown in places() {
            scopes.enclosed[teardown.get()] = between[teardown.get()].len() as u32;
            for inner in &between[teardown.get()] {
                scopes.enclosing[inner.get()].push(teardown);
            }
        }
        Some(scopes)
    }
}

/// Which tasks can be reached from these, themselves not counted unless reached.
fn reach(tasks: &[Task], from: &[TaskIx], side: fn(&Task) -> &[TaskIx]) -> Vec<bool> {
    let mut reached = vec![false; tasks.len()];
    let mut open = from.to_vec();
    while let Some(place) = open.pop() {
        for &next in side(&tasks[place.get()]) {
            if !reached[next.get()] {
                reached[next.get()] = true;
                open.push(next);
            }
        }
    }
    reached
}
