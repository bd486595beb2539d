//! Commands about tasks that share a transaction: done and not committed, committed as one, rolled back as one.
//!
//! The commit is the attempt of a task of its own, so that its doubt, its evidence and its retries are those of any attempt. Before it begins,
//! nothing of the unit can have taken effect: a commit is sent only when the log durably has its start.

use super::attempt::{current, date_text, hooks, is_ending, updates};
use super::callbacks;
use super::operate::wish;
use super::run::interrupted;
use crate::command::Rejected;
use crate::event::{Afterwards, Event, Evidence, Failure, FailureClass, Occasion, StatementRecord};
use crate::id::InstanceId;
use crate::retry;
use crate::state::{Instance, InstancePhase, Key, RunState};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) fn hold(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    statements: Arc<[StatementRecord]>,
    result: Option<Arc<str>>,
) -> Result<Vec<Event>, Rejected> {
    let (key, _) = current(state, &instance, try_number)?;
    if state.dag().member_of(key.task).is_none() {
        return Err(Rejected::BadArgument(format!("`{instance}` is no part of a transaction")));
    }
    Ok(vec![Event::AttemptHeld { instance, try_number, statements, result }])
}

/// The transaction is gone, with all that was done in it.
pub(super) fn lose(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    failure: Arc<Failure>,
    now: Timestamp,
) -> Result<Vec<Event>, Rejected> {
    let (key, _) = current(state, &instance, try_number)?;
    match state.dag().unit_place(key.task) {
        Some(unit) => Ok(gone(state, unit, Some(key), failure, now)),
        None => Err(Rejected::BadArgument(format!("`{instance}` is no part of a transaction"))),
    }
}

/// What becomes of a unit whose transaction is gone: all of it runs again while tries of the whole are left. `failed` is the attempt that
/// found out, if there was one. When nothing runs again, [`doomed`] says what becomes of the others.
pub(super) fn gone(state: &RunState, unit: u32, failed: Option<Key>, failure: Arc<Failure>, now: Timestamp) -> Vec<Event> {
    let tasks: Vec<Key> = state.unit_keys(unit).collect();
    let Some(commit) = tasks.last().copied() else { return Vec::new() };
    let whole = state.find(commit).cloned().unwrap_or_default();
    let task = state.dag().task(commit.task);
    let is_free = whole.is_free(failure.class);
    let failures = whole.failures.saturating_add(1);
    let is_last = match failure.class {
        FailureClass::Final | FailureClass::Cancelled => true,
        FailureClass::Transient | FailureClass::Permanent | FailureClass::TimedOut | FailureClass::Interrupted => {
            !is_free && failures > task.settings.retry.retries
        }
    };
    let is_wished = failed.is_some_and(|key| wish(state, key) == Some(Afterwards::Fail));
    let is_final = is_last || is_wished || is_ending(state);
    let mut events = Vec::new();
    if let Some((key, found)) = failed.and_then(|key| Some((key, state.find(key)?))) {
        let (instance, try_number) = (state.id(key), found.try_number);
        events.push(Event::AttemptFailed { instance: instance.clone(), try_number, failure: Arc::clone(&failure), is_final });
        let (occasion, count) = match is_final {
            true => (Occasion::Failure, hooks(state, key).on_failure),
            false => (Occasion::Retry, hooks(state, key).on_retry),
        };
        if is_final || !is_free {
            events.extend(callbacks(Some(instance), try_number, occasion, count));
        }
    }
    if is_final {
        return events;
    }
    let undone = undone(state, &tasks);
    events.push(rolled_back(state, commit, &undone, &failure));
    if !is_free && let Some(&first) = undone.first() {
        let wait = retry::wait(&task.settings.retry, state.dag().id().as_str(), task.id.as_str(), &date_text(state), failures);
        events.push(Event::RetryScheduled { instance: state.id(first), at: now.checked_add(wait).unwrap_or(Timestamp::MAX) });
    }
    events
}

/// The members whose work is to be done again.
fn undone(state: &RunState, tasks: &[Key]) -> Vec<Key> {
    let members = &tasks[..tasks.len().saturating_sub(1)];
    let has_begun = |phase: InstancePhase| !phase.is_done() && phase != InstancePhase::None;
    members.iter().copied().filter(|&key| state.find(key).is_some_and(|instance| has_begun(instance.phase))).collect()
}

fn rolled_back(state: &RunState, commit: Key, undone: &[Key], failure: &Arc<Failure>) -> Event {
    Event::GroupRolledBack {
        group: state.dag().task(commit.task).id.clone(),
        members: undone.iter().map(|&key| state.id(key)).collect(),
        failure: without_statements(failure),
        is_final: false,
    }
}

/// Open transactions that wait, for a retry, for a slot or for time: they keep their slots no longer, and nothing of them is over. No try
/// failed, so that none is counted.
pub(super) fn give_up(state: &RunState, failure: &Arc<Failure>) -> Vec<Event> {
    let is_idle = |key: Key| !state.running().contains(&key) && !state.in_doubt().contains(&key);
    let held: BTreeSet<u32> = state.held().iter().filter_map(|key| state.dag().unit_place(key.task)).collect();
    let tasks = held.into_iter().map(|unit| state.unit_keys(unit).collect::<Vec<Key>>());
    let idle = tasks.filter(|tasks| tasks.iter().all(|&key| is_idle(key)));
    idle.filter_map(|tasks| Some(rolled_back(state, *tasks.last()?, &undone(state, &tasks), failure))).collect()
}

/// With its commit, all members of a unit have succeeded: what they updated, and who is to be told, follows only now.
pub(super) fn succeeded(state: &RunState, commit: Key) -> Vec<Event> {
    let Some(unit) = state.dag().commits(commit.task) else { return Vec::new() };
    let members = unit.members.iter().map(|&task| Key { task, map_index: None });
    let held = members.filter_map(|key| Some((key, state.find(key).filter(|found| found.phase == InstancePhase::Held)?)));
    held.flat_map(|(key, found)| {
        let (instance, try_number) = (state.id(key), found.try_number);
        let succeeded =
            Event::AttemptSucceeded { instance: instance.clone(), try_number, result: found.result().cloned(), follow: None };
        let updates = updates(state, key, &instance, try_number);
        let told = callbacks(Some(instance), try_number, Occasion::Success, hooks(state, key).on_success);
        std::iter::once(succeeded).chain(updates).chain(told).collect::<Vec<_>>()
    })
    .collect()
}

/// It is known what became of a commit: it is done, or nothing of the unit took effect and all of it runs again.
pub(super) fn resolve(
    state: &RunState,
    key: Key,
    found: &Instance,
    instance: InstanceId,
    evidence: Evidence,
    now: Timestamp,
) -> Vec<Event> {
    let try_number = found.try_number;
    let took_effect = match &evidence {
        Evidence::Operator { took_effect, .. } => *took_effect,
        Evidence::Acknowledged | Evidence::Marker | Evidence::Tombstone | Evidence::ReadOnly | Evidence::Allowed => {
            !found.segments.is_empty()
        }
    };
    let mut events = vec![Event::UnknownResolved { instance: instance.clone(), try_number, evidence }];
    if took_effect {
        events.push(Event::AttemptSucceeded { instance: instance.clone(), try_number, result: None, follow: None });
        events.extend(callbacks(Some(instance), try_number, Occasion::Success, hooks(state, key).on_success));
        events.extend(succeeded(state, key));
        return events;
    }
    let failure = found.failure.clone().unwrap_or_else(|| Arc::new(interrupted()));
    events.extend(
        state.dag().unit_place(key.task).into_iter().flat_map(|unit| gone(state, unit, Some(key), Arc::clone(&failure), now)),
    );
    events
}

/// Units whose transaction died with its process: those that are open, and whose commit was not begun.
pub(super) fn interrupted_units(state: &RunState, now: Timestamp) -> Vec<Event> {
    let failure = Arc::new(Failure {
        effect: "nothing of its transaction was committed: the commit had not begun".to_owned(),
        ..interrupted()
    });
    let open = open_units(state).into_iter().filter(|&unit| !commit_is_on_its_way(state, unit));
    open.flat_map(|unit| {
        let running = state.unit_keys(unit).find(|key| state.running().contains(key));
        gone(state, unit, running, Arc::clone(&failure), now)
    })
    .collect()
}

/// Units of which something is done and that can commit no more, because one of them failed or was left out: they are rolled back.
pub(super) fn doomed(state: &RunState) -> Vec<Event> {
    let held: BTreeSet<u32> = state.held().iter().filter_map(|key| state.dag().unit_place(key.task)).collect();
    held.into_iter().filter_map(|unit| doom(state, unit)).collect()
}

fn doom(state: &RunState, unit: u32) -> Option<Event> {
    let keys: Vec<Key> = state.unit_keys(unit).collect();
    if keys.iter().any(|key| state.running().contains(key) || state.in_doubt().contains(key)) {
        return None;
    }
    let is_lost = |phase: InstancePhase| match phase {
        InstancePhase::Failed | InstancePhase::Skipped | InstancePhase::UpstreamFailed | InstancePhase::RolledBack => true,
        InstancePhase::None
        | InstancePhase::Scheduled
        | InstancePhase::Running
        | InstancePhase::Deferred { .. }
        | InstancePhase::UpForRetry { .. }
        | InstancePhase::InDoubt
        | InstancePhase::Held
        | InstancePhase::Success
        | InstancePhase::Removed => false,
    };
    let lost: Vec<&Instance> =
        keys.iter().filter_map(|&key| state.find(key)).filter(|instance| is_lost(instance.phase)).collect();
    if lost.is_empty() {
        return None;
    }
    let failed = lost.iter().find(|instance| instance.phase == InstancePhase::Failed).and_then(|found| found.failure.clone());
    let failure = failed.unwrap_or_else(|| {
        Arc::new(Failure {
            class: FailureClass::Cancelled,
            message: "the rest of its transaction was left out".to_owned(),
            effect: "nothing of its transaction was committed".to_owned(),
            ..interrupted()
        })
    });
    let members = keys.iter().filter(|key| state.held().contains(key)).map(|&key| state.id(key)).collect();
    let group = state.dag().task(keys.last()?.task).id.clone();
    Some(Event::GroupRolledBack { group, members, failure: without_statements(&failure), is_final: true })
}

/// Told once, with the attempt that failed.
fn without_statements(failure: &Arc<Failure>) -> Arc<Failure> {
    match failure.statements.as_slice() {
        [] => Arc::clone(failure),
        [..] => Arc::new(Failure { statements: Vec::new(), ..Failure::clone(failure) }),
    }
}

/// Units with something done or going on.
fn open_units(state: &RunState) -> BTreeSet<u32> {
    let keys = state.held().iter().chain(state.running());
    keys.filter_map(|key| state.dag().unit_place(key.task)).collect()
}

fn commit_is_on_its_way(state: &RunState, unit: u32) -> bool {
    state.unit_keys(unit).last().is_some_and(|commit| state.running().contains(&commit) || state.in_doubt().contains(&commit))
}

/// What people do to one task of a transaction they do to all of it, and not while it is open.
pub(super) fn whole(state: &RunState, instances: &[InstanceId]) -> Result<Vec<InstanceId>, Rejected> {
    let units: BTreeSet<u32> =
        instances.iter().filter_map(|instance| state.dag().unit_place(state.key(instance)?.task)).collect();
    let mut all = instances.to_vec();
    for unit in units {
        let keys: Vec<Key> = state.unit_keys(unit).collect();
        if let Some(doubt) = keys.iter().find(|key| state.in_doubt().contains(key)) {
            return Err(Rejected::InDoubt(state.id(*doubt)));
        }
        if state.is_open(unit) {
            let group = keys.last().map(|&key| state.id(key).to_string()).unwrap_or_default();
            return Err(Rejected::BadArgument(format!(
                "the transaction of `{group}` is open: cancel the task of it that runs, or wait for its end"
            )));
        }
        all.extend(keys.into_iter().map(|key| state.id(key)).filter(|id| !instances.contains(id)));
    }
    Ok(all)
}
