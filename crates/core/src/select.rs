//! Which instances a person means: a pure selection, so that a dry run lists what will run again before anything is done.

use crate::dag::Role;
use crate::id::{InstanceId, TaskIx};
use crate::state::{InstancePhase, Key, RunState, SkippedBy};
use std::collections::BTreeSet;

/// What to select in one run. Flags over several runs (`past`, `future`) are the business of who knows the runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// These; of a mapped task without an index, all its instances. Empty is all tasks.
    pub tasks: Vec<InstanceId>,
    /// And all tasks above them.
    pub upstream: bool,
    /// And all tasks below them.
    pub downstream: bool,
    /// Of these, only what is failed or upstream_failed.
    pub only_failed: bool,
    /// Of these, only what is running.
    pub only_running: bool,
}

/// The instances that will run again when these are cleared, in the order of the source.
///
/// Left out are those that will run anyway, and those that are not part of the run; one in doubt is not, so that the command says
/// that it has to be resolved. With a task come its setups and their teardowns, as in Airflow, and whatever below is only skipped by
/// its rule or upstream_failed. What a branch left aside is selected when it is named, or with its branch. An id that is not in the run
/// is selected as it is, for the command to refuse.
pub fn select(state: &RunState, selection: &Selection) -> Vec<InstanceId> {
    let dag = state.dag();
    let mut unknown = Vec::new();
    let mut named: BTreeSet<Key> = BTreeSet::new();
    for id in &selection.tasks {
        match (state.key(id), id.map_index) {
            (Some(key), Some(_)) if state.find(key).is_some() => drop(named.insert(key)),
            (Some(key), None) => named.extend(state.keys_of(key.task)),
            (Some(_) | None, _) => unknown.push(id.clone()),
        }
    }
    if selection.tasks.is_empty() {
        named.extend(state.keys());
    }
    let tasks: BTreeSet<TaskIx> = named.iter().map(|key| key.task).collect();
    let mut flagged = BTreeSet::new();
    if selection.upstream {
        flagged.extend(reach(&tasks, |task| &dag.task(task).upstream));
    }
    if selection.downstream {
        flagged.extend(reach(&tasks, |task| &dag.task(task).downstream));
    }
    let mut keys: BTreeSet<Key> = named.clone();
    keys.extend(flagged.difference(&tasks).flat_map(|&task| state.keys_of(task)));
    keys.retain(|&key| is_wanted(state, key, selection));
    let chosen: BTreeSet<TaskIx> = keys.iter().map(|key| key.task).collect();
    // A branch's choice stands as long as the branch does not choose anew.
    let is_asked = |key: &Key| !selection.tasks.is_empty() && named.contains(key);
    keys.retain(|key| is_asked(key) || !is_left_aside(state, *key, &chosen));
    unknown.into_iter().chain(complete(state, keys)).collect()
}

/// The instances whose outcome a person sets, in the order of the source: those named, with what is above or below them where that is
/// asked for, whether they have run or not. `only_failed` and `only_running` narrow it. An id that is not in the run is selected as it is, for the
/// command to refuse.
pub fn select_named(state: &RunState, selection: &Selection) -> Vec<InstanceId> {
    let dag = state.dag();
    let mut unknown = Vec::new();
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for id in &selection.tasks {
        match (state.key(id), id.map_index) {
            (Some(key), Some(_)) if state.find(key).is_some() => drop(keys.insert(key)),
            (Some(key), None) => keys.extend(state.keys_of(key.task)),
            (Some(_) | None, _) => unknown.push(id.clone()),
        }
    }
    let tasks: BTreeSet<TaskIx> = keys.iter().map(|key| key.task).collect();
    if selection.upstream {
        keys.extend(reach(&tasks, |task| &dag.task(task).upstream).into_iter().flat_map(|task| state.keys_of(task)));
    }
    if selection.downstream {
        keys.extend(reach(&tasks, |task| &dag.task(task).downstream).into_iter().flat_map(|task| state.keys_of(task)));
    }
    let narrows = selection.only_failed || selection.only_running;
    let is_part = |key: &Key| state.find(*key).is_some_and(|instance| instance.phase != InstancePhase::Removed);
    keys.retain(|key| if narrows { is_wanted(state, *key, selection) } else { is_part(key) });
    keys.extend(whole_units(state, &keys).filter(is_part).collect::<Vec<_>>());
    unknown.into_iter().chain(keys.into_iter().map(|key| state.id(key))).collect()
}

/// What runs again when a run goes on from where it failed: what failed, what a cancel left out, and what did not run because of them.
pub fn select_failed(state: &RunState) -> Vec<InstanceId> {
    let has_failed = |key: &Key| {
        state.find(*key).is_some_and(|instance| match instance.phase {
            InstancePhase::Failed | InstancePhase::UpstreamFailed | InstancePhase::RolledBack => true,
            InstancePhase::Skipped => instance.skipped_by == Some(SkippedBy::Cancel),
            InstancePhase::None
            | InstancePhase::Scheduled
            | InstancePhase::Running
            | InstancePhase::Deferred { .. }
            | InstancePhase::UpForRetry { .. }
            | InstancePhase::InDoubt
            | InstancePhase::Held
            | InstancePhase::Success
            | InstancePhase::Removed => false,
        })
    };
    complete(state, state.keys().filter(has_failed).collect()).collect()
}

/// Adds the setups and teardowns of what was chosen, and what follows from all of them.
fn complete(state: &RunState, mut keys: BTreeSet<Key>) -> impl Iterator<Item = InstanceId> {
    let tasks: BTreeSet<TaskIx> = keys.iter().map(|key| key.task).collect();
    for task in scopes_around(state, &tasks) {
        keys.extend(state.keys_of(task).filter(|&key| can_run_again(state, key)));
    }
    keys.extend(whole_units(state, &keys).filter(|&key| can_run_again(state, key)).collect::<Vec<_>>());
    keys.extend(derived_below(state, &keys));
    keys.into_iter().map(|key| state.id(key))
}

/// All instances of the transactions that some of these belong to: they took effect as one, and so are run again as one.
pub(crate) fn whole_units(state: &RunState, keys: &BTreeSet<Key>) -> impl Iterator<Item = Key> {
    let units: BTreeSet<u32> = keys.iter().filter_map(|key| state.dag().unit_place(key.task)).collect();
    units.into_iter().flat_map(|unit| state.unit_keys(unit))
}

fn is_wanted(state: &RunState, key: Key, selection: &Selection) -> bool {
    let Some(instance) = state.find(key) else { return false };
    let is_failed = matches!(instance.phase, InstancePhase::Failed | InstancePhase::UpstreamFailed | InstancePhase::RolledBack);
    let is_running = instance.phase == InstancePhase::Running;
    match (selection.only_failed, selection.only_running) {
        (false, false) => can_run_again(state, key),
        (only_failed, only_running) => (only_failed && is_failed) || (only_running && is_running),
    }
}

fn can_run_again(state: &RunState, key: Key) -> bool {
    state.find(key).is_some_and(|instance| !matches!(instance.phase, InstancePhase::None | InstancePhase::Removed))
}

fn is_left_aside(state: &RunState, key: Key, chosen: &BTreeSet<TaskIx>) -> bool {
    match state.find(key).and_then(|instance| instance.skipped_by) {
        Some(SkippedBy::Branch(branch)) => branch.is_none_or(|branch| !chosen.contains(&branch)),
        Some(SkippedBy::Rule | SkippedBy::Itself | SkippedBy::NothingToMap | SkippedBy::Cancel) | None => false,
    }
}

/// The setups in whose scope one of these tasks is, with their teardowns: what they set up may be torn down by now. Costs two walks over
/// the DAG for each setup.
fn scopes_around(state: &RunState, tasks: &BTreeSet<TaskIx>) -> BTreeSet<TaskIx> {
    let dag = state.dag();
    let role = |task: TaskIx| dag.task(task).settings.role;
    let mut around = BTreeSet::new();
    if dag.scopes().is_none() {
        return around;
    }
    for setup in (0..dag.tasks().len() as u32).map(TaskIx).filter(|&task| role(task) == Role::Setup) {
        let downstream = &dag.task(setup).downstream;
        let teardowns: BTreeSet<TaskIx> =
            downstream.iter().copied().filter(|&task| matches!(role(task), Role::Teardown { .. })).collect();
        let after = reach(&BTreeSet::from([setup]), |task| &dag.task(task).downstream);
        let before = reach(&teardowns, |task| &dag.task(task).upstream);
        let is_inside = |task: &&TaskIx| {
            let is_teardown = matches!(role(**task), Role::Teardown { .. });
            after.contains(task) && !is_teardown && (teardowns.is_empty() || before.contains(task))
        };
        if tasks.iter().any(|task| is_inside(&task)) {
            around.insert(setup);
            around.extend(&teardowns);
        }
    }
    around
}

/// Instances below these whose phase follows from theirs alone (skipped by a rule, or upstream_failed), and from those again: when these
/// change, that is judged anew.
pub(crate) fn derived_below(state: &RunState, changed: &BTreeSet<Key>) -> BTreeSet<Key> {
    let dag = state.dag();
    let mut derived = BTreeSet::new();
    let mut open: Vec<TaskIx> = changed.iter().map(|key| key.task).collect();
    let mut seen: BTreeSet<TaskIx> = open.iter().copied().collect();
    while let Some(task) = open.pop() {
        let mut visit = |waiting: TaskIx| {
            let is_derived = |key: &Key| !changed.contains(key) && state.find(*key).is_some_and(|instance| instance.is_derived());
            let found: Vec<Key> = state.keys_of(waiting).filter(is_derived).collect();
            if !found.is_empty() && seen.insert(waiting) {
                open.push(waiting);
            }
            derived.extend(found);
        };
        dag.task(task).downstream.iter().copied().for_each(&mut visit);
        if let Some(scopes) = dag.scopes() {
            scopes.gated[task.get()].iter().chain(&scopes.enclosing[task.get()]).copied().for_each(&mut visit);
        }
    }
    derived
}

fn reach<'a>(from: &BTreeSet<TaskIx>, side: impl Fn(TaskIx) -> &'a [TaskIx]) -> BTreeSet<TaskIx> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<TaskIx> = from.iter().copied().collect();
    while let Some(task) = open.pop() {
        open.extend(side(task).iter().copied().filter(|&next| reached.insert(next)));
    }
    reached
}
