//! Commands about one attempt of a task instance.

use super::operate::{carry_out, failed_by_cancel, wish};
use super::run::interrupted;
use super::{callbacks, not_now, unit};
use crate::command::Rejected;
use crate::dag::Hooks;
use crate::event::{Afterwards, Anomaly, Event, Evidence, Failure, FailureClass, Mark, Occasion, SegmentCommit, SkipCause};
use crate::id::{InstanceId, TaskId, TaskIx};
use crate::retry;
use crate::state::{Instance, InstancePhase, Key, RunPhase, RunState};
use jiff::Timestamp;
use rustc_hash::FxHashSet;
use std::sync::Arc;

pub(super) fn start(state: &RunState, instance: InstanceId, now: Timestamp) -> Result<Vec<Event>, Rejected> {
    match state.phase() {
        RunPhase::Running => {}
        phase @ (RunPhase::Queued
        | RunPhase::Cancelling
        | RunPhase::Stuck
        | RunPhase::Succeeded
        | RunPhase::Failed
        | RunPhase::Cancelled) => return Err(not_now(phase)),
    }
    let (key, found) = find(state, &instance)?;
    if found.phase != InstancePhase::Scheduled {
        return Err(Rejected::Instance { instance, state: found.phase.as_str() });
    }
    if !state.queue().has_room(state.dag(), key) {
        return Err(Rejected::NoSlot(instance));
    }
    let (try_number, epoch) = (found.next_try(), state.epoch());
    Ok(vec![Event::AttemptStarted { instance, try_number, epoch, at: now }])
}

pub(super) fn expand(state: &RunState, task: TaskId, try_number: u32, items: Vec<Arc<str>>) -> Result<Vec<Event>, Rejected> {
    let instance = InstanceId::single(task.clone());
    let (key, found) = current(state, &instance, try_number)?;
    if !state.dag().task(key.task).settings.mapped {
        return Err(Rejected::BadArgument(format!("`{task}` is not mapped")));
    }
    let most = state.dag().map_length_max();
    if items.len() > most as usize {
        return Err(Rejected::BadArgument(format!("`{task}` would expand to {} items; at most {most} are allowed", items.len())));
    }
    match wish(state, key) {
        None => {}
        // Nothing took effect: the items are found again, or never used.
        Some(Afterwards::Fail) => return Ok(failed_by_cancel(state, key, found, &stop_reason(state, key))),
        Some(then @ (Afterwards::Clear(_) | Afterwards::Mark(_))) => return Ok(carry_out(state, key, then, false)),
    }
    let count = items.len() as u32;
    let mut events = vec![Event::TaskExpanded { task: task.clone(), items }];
    if count == 0 {
        events.push(Event::TaskSkipped { instance, cause: SkipCause::NothingToMap });
    } else if is_ending(state) {
        let skipped = |index| InstanceId { task: task.clone(), map_index: Some(index) };
        events.extend((0..count).map(|index| Event::TaskSkipped { instance: skipped(index), cause: SkipCause::RunCancelled }));
    }
    Ok(events)
}

/// Also allowed in doubt: the resolver finds segments by their markers.
pub(super) fn commit(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    commit: Arc<SegmentCommit>,
) -> Result<Vec<Event>, Rejected> {
    let found = answering(state, &instance, try_number, |phase| match phase {
        InstancePhase::Running | InstancePhase::InDoubt => true,
        InstancePhase::None
        | InstancePhase::Scheduled
        | InstancePhase::Deferred { .. }
        | InstancePhase::UpForRetry { .. }
        | InstancePhase::Held
        | InstancePhase::Success
        | InstancePhase::Failed
        | InstancePhase::Skipped
        | InstancePhase::UpstreamFailed
        | InstancePhase::RolledBack
        | InstancePhase::Removed => false,
    })?;
    let next = found.1.segments.len() as u32;
    if commit.segment != next {
        return Err(Rejected::Segment { instance, given: commit.segment, next });
    }
    Ok(vec![Event::SegmentCommitted { instance, try_number, commit }])
}

pub(super) fn succeed(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    result: Option<Arc<str>>,
    follow: Option<Vec<TaskId>>,
) -> Result<Vec<Event>, Rejected> {
    let (key, _) = current(state, &instance, try_number)?;
    refuse_unexpanded(state, key, &instance)?;
    if state.dag().member_of(key.task).is_some() {
        return unit::hold(state, instance, try_number, Arc::default(), result);
    }
    let wish = wish(state, key);
    let stands = match wish {
        None | Some(Afterwards::Fail | Afterwards::Mark(Mark::Success)) => true,
        Some(Afterwards::Clear(_) | Afterwards::Mark(Mark::Failed)) => false,
    };
    let skipped = match &follow {
        Some(follow) => not_followed(state, key, follow)?,
        None => Vec::new(),
    };
    let branch = instance.task.clone();
    let mut events = vec![Event::AttemptSucceeded { instance: instance.clone(), try_number, result, follow }];
    events.extend(updates(state, key, &instance, try_number));
    events.extend(callbacks(Some(instance), try_number, Occasion::Success, hooks(state, key).on_success));
    events.extend(unit::succeeded(state, key));
    if stands {
        events.extend(skipped.into_iter().map(|place| Event::TaskSkipped {
            instance: InstanceId::single(state.dag().task(place).id.clone()),
            cause: SkipCause::Branch(branch.clone()),
        }));
    } else {
        events.extend(wish.into_iter().flat_map(|wish| carry_out(state, key, wish, false)));
    }
    Ok(events)
}

pub(super) fn skip(state: &RunState, instance: InstanceId, try_number: u32, reason: String) -> Result<Vec<Event>, Rejected> {
    let (key, _) = current(state, &instance, try_number)?;
    let mut events = vec![Event::TaskSkipped { instance, cause: SkipCause::Own(reason) }];
    events.extend(wish(state, key).into_iter().flat_map(|wish| carry_out(state, key, wish, false)));
    Ok(events)
}

pub(super) fn defer(state: &RunState, instance: InstanceId, try_number: u32, until: Timestamp) -> Result<Vec<Event>, Rejected> {
    let (key, found) = current(state, &instance, try_number)?;
    let mut events = vec![Event::AttemptDeferred { instance: instance.clone(), try_number, until }];
    if let Some(wish) = wish(state, key) {
        events.extend(match wish {
            Afterwards::Fail => failed_by_cancel(state, key, found, &stop_reason(state, key)),
            Afterwards::Clear(_) | Afterwards::Mark(_) => carry_out(state, key, wish, false),
        });
    } else if is_ending(state) {
        events.push(Event::TaskSkipped { instance, cause: SkipCause::RunCancelled });
    }
    Ok(events)
}

/// Before its time is up: an instance that is not deferred has looked meanwhile, or needs to no more.
pub(super) fn wake(state: &RunState, instance: InstanceId) -> Result<Vec<Event>, Rejected> {
    let (_, found) = find(state, &instance)?;
    match (state.phase(), found.phase) {
        (RunPhase::Running, InstancePhase::Deferred { .. }) => Ok(vec![Event::TimerFired { instance }]),
        (
            RunPhase::Queued
            | RunPhase::Running
            | RunPhase::Cancelling
            | RunPhase::Stuck
            | RunPhase::Succeeded
            | RunPhase::Failed
            | RunPhase::Cancelled,
            _,
        ) => Ok(Vec::new()),
    }
}

/// What a success updates. A dry run updates nothing.
pub(super) fn updates(state: &RunState, key: Key, instance: &InstanceId, try_number: u32) -> Option<Event> {
    let assets = &state.dag().task(key.task).settings.updates;
    let is_dry_run = state.header().is_some_and(|header| header.dry_run);
    let told = || Event::AssetsUpdated { instance: instance.clone(), try_number, assets: assets.to_vec() };
    (!assets.is_empty() && !is_dry_run).then(told)
}

pub(super) fn fail(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    failure: Arc<Failure>,
    now: Timestamp,
) -> Result<Vec<Event>, Rejected> {
    let (key, found) = current(state, &instance, try_number)?;
    Ok(failed(state, key, found, instance, failure, now))
}

pub(super) fn lose_track(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    failure: Arc<Failure>,
    now: Timestamp,
) -> Result<Vec<Event>, Rejected> {
    let (key, _) = current(state, &instance, try_number)?;
    // Only the commit of a transaction can leave a doubt.
    if state.dag().member_of(key.task).is_some() {
        return unit::lose(state, instance, try_number, failure, now);
    }
    Ok(vec![Event::AttemptUnknown { instance, try_number, failure }])
}

/// Once for each kind and statement of an attempt. What comes late is left out: it was true, and is not worth a refusal.
pub(super) fn notice(state: &RunState, instance: InstanceId, try_number: u32, anomaly: Anomaly) -> Vec<Event> {
    match current(state, &instance, try_number) {
        Ok((key, _)) if state.may_notice(key, try_number, &anomaly) => {
            vec![Event::AnomalyNoticed { instance, try_number, anomaly }]
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}

pub(super) fn resolve(
    state: &RunState,
    instance: InstanceId,
    try_number: u32,
    evidence: Evidence,
    now: Timestamp,
) -> Result<Vec<Event>, Rejected> {
    let (key, found) = answering(state, &instance, try_number, |phase| phase == InstancePhase::InDoubt)?;
    if state.dag().commits(key.task).is_some() {
        return Ok(unit::resolve(state, key, found, instance, evidence, now));
    }
    let verdict = match &evidence {
        Evidence::Operator { took_effect, .. } => Some(*took_effect),
        Evidence::Acknowledged | Evidence::Marker | Evidence::Tombstone | Evidence::ReadOnly | Evidence::Allowed => None,
    };
    if verdict == Some(true) {
        refuse_unexpanded(state, key, &instance)?;
    }
    let mut events = vec![Event::UnknownResolved { instance: instance.clone(), try_number, evidence }];
    let has_progress = found.segments.len() as u32 > found.segments_before;
    // A person spoke of segments with more of the task behind them, told by `CommitSegment`s before: the doubt went on behind each.
    let is_told_in_part = found
        .segments
        .iter()
        .skip(found.segments_before as usize)
        .any(|commit| matches!(commit.evidence, Evidence::Operator { .. }));
    if verdict == Some(true) {
        events.push(Event::AttemptSucceeded { instance: instance.clone(), try_number, result: None, follow: None });
        events.extend(updates(state, key, &instance, try_number));
        events.extend(callbacks(Some(instance), try_number, Occasion::Success, hooks(state, key).on_success));
        match wish(state, key) {
            None | Some(Afterwards::Fail | Afterwards::Mark(Mark::Success)) => {}
            Some(wish @ (Afterwards::Clear(_) | Afterwards::Mark(Mark::Failed))) => {
                events.extend(carry_out(state, key, wish, false));
            }
        }
        return Ok(events);
    }
    // What was lost is the reason why it is in doubt, so there always is one.
    let failure = found.failure.clone().unwrap_or_else(|| Arc::new(interrupted()));
    let goes_on = match failure.class {
        FailureClass::Interrupted => found.is_free(failure.class) || has_progress,
        // Nobody wants it cancelled alone, and the run is not being cancelled: it was stopped to look at what an earlier process committed,
        // and a cancel that comes next leaves it out.
        FailureClass::Cancelled => true,
        FailureClass::Transient | FailureClass::Permanent | FailureClass::TimedOut => has_progress,
        FailureClass::Final => false,
    };
    let may_go_on = !is_ending(state) && wish(state, key).is_none();
    if may_go_on && (goes_on || is_told_in_part || verdict == Some(false)) {
        events.push(Event::TaskScheduled { instance });
    } else {
        // Its statements were told when its outcome was lost, and are not told twice.
        let failure = match failure.statements.is_empty() {
            true => failure,
            false => Arc::new(Failure { statements: Vec::new(), ..Failure::clone(&failure) }),
        };
        events.extend(failed(state, key, found, instance, failure, now));
    }
    Ok(events)
}

/// A failed attempt and what follows from it: another try at once, one later, or the end of the instance.
fn failed(
    state: &RunState,
    key: Key,
    found: &Instance,
    instance: InstanceId,
    failure: Arc<Failure>,
    now: Timestamp,
) -> Vec<Event> {
    let task = state.dag().task(key.task);
    let policy = &task.settings.retry;
    let is_free = found.is_free(failure.class);
    let failures = found.failures.saturating_add(1);
    let is_last = match failure.class {
        FailureClass::Final | FailureClass::Cancelled => true,
        FailureClass::Transient | FailureClass::Permanent | FailureClass::TimedOut | FailureClass::Interrupted => {
            !is_free && failures > policy.retries
        }
    };
    let wish = wish(state, key);
    let is_final = match wish {
        Some(Afterwards::Fail) => true,
        Some(Afterwards::Clear(_) | Afterwards::Mark(_)) => false,
        None => is_last || is_ending(state),
    };
    let try_number = found.try_number;
    let mut events = vec![Event::AttemptFailed { instance: instance.clone(), try_number, failure, is_final }];
    if let Some(wish @ (Afterwards::Clear(_) | Afterwards::Mark(_))) = wish {
        events.extend(carry_out(state, key, wish, true));
        return events;
    }
    if is_final {
        events.extend(callbacks(Some(instance), try_number, Occasion::Failure, task.settings.hooks.on_failure));
    } else if is_free {
        // The task did nothing wrong, so nobody is told that it will be retried.
        events.push(Event::TaskScheduled { instance });
    } else {
        events.extend(callbacks(Some(instance.clone()), try_number, Occasion::Retry, task.settings.hooks.on_retry));
        let wait = retry::wait(policy, state.dag().id().as_str(), task.id.as_str(), &date_text(state), failures);
        events.push(Event::RetryScheduled { instance, at: now.checked_add(wait).unwrap_or(Timestamp::MAX) });
    }
    events
}

/// The text that stands for the run in the jitter: its logical date as Python prints it, or its id.
pub(super) fn date_text(state: &RunState) -> String {
    let Some(header) = state.header() else { return String::new() };
    match header.logical_date {
        Some(date) if date.subsec_microsecond() == 0 && date.subsec_millisecond() == 0 => {
            date.strftime("%Y-%m-%d %H:%M:%S+00:00").to_string()
        }
        Some(date) => date.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string(),
        None => header.run_id.to_string(),
    }
}

/// The direct downstreams that a branch leaves aside: neither followed nor after one that is, and not begun.
fn not_followed(state: &RunState, key: Key, follow: &[TaskId]) -> Result<Vec<TaskIx>, Rejected> {
    let dag = state.dag();
    let branch = dag.task(key.task);
    if key.map_index.is_some() {
        return Err(Rejected::BadArgument(format!("`{}` is mapped; a mapped task cannot choose a branch", branch.id)));
    }
    let mut reached = FxHashSet::default();
    for name in follow {
        match dag.index(name.as_str()).filter(|place| branch.downstream.binary_search(place).is_ok()) {
            Some(place) => reached.insert(place),
            None => {
                let what = format!("`{}` cannot branch to `{name}`, which does not come directly after it", branch.id);
                return Err(Rejected::BadArgument(what));
            }
        };
    }
    // Nothing deeper than the deepest candidate can lead to one, which bounds the walk.
    let aside = || branch.downstream.iter().copied();
    let deepest = aside().filter(|place| !reached.contains(place)).map(|place| dag.depth(place)).max().unwrap_or(0);
    let mut open: Vec<TaskIx> = reached.iter().copied().collect();
    while let Some(place) = open.pop() {
        let next = dag.task(place).downstream.iter().copied();
        open.extend(next.filter(|&down| dag.depth(down) <= deepest && reached.insert(down)));
    }
    let has_not_begun = |place: &TaskIx| {
        state.find(Key { task: *place, map_index: None }).is_some_and(|instance| match instance.phase {
            InstancePhase::None => true,
            InstancePhase::Scheduled => !instance.has_begun(),
            InstancePhase::Running
            | InstancePhase::Deferred { .. }
            | InstancePhase::UpForRetry { .. }
            | InstancePhase::InDoubt
            | InstancePhase::Held
            | InstancePhase::Success
            | InstancePhase::Failed
            | InstancePhase::Skipped
            | InstancePhase::UpstreamFailed
            | InstancePhase::RolledBack
            | InstancePhase::Removed => false,
        })
    };
    Ok(aside().filter(|place| !reached.contains(place)).filter(has_not_begun).collect())
}

fn find<'a>(state: &'a RunState, instance: &InstanceId) -> Result<(Key, &'a Instance), Rejected> {
    let key = state.key(instance).ok_or_else(|| Rejected::UnknownInstance(instance.clone()))?;
    let found = state.find(key).ok_or_else(|| Rejected::UnknownInstance(instance.clone()))?;
    Ok((key, found))
}

/// The instance that an answer is about, when the run goes on and the answer is of its running attempt.
pub(super) fn current<'a>(state: &'a RunState, instance: &InstanceId, try_number: u32) -> Result<(Key, &'a Instance), Rejected> {
    answering(state, instance, try_number, |phase| phase == InstancePhase::Running)
}

fn answering<'a>(
    state: &'a RunState,
    instance: &InstanceId,
    try_number: u32,
    fits: impl FnOnce(InstancePhase) -> bool,
) -> Result<(Key, &'a Instance), Rejected> {
    match state.phase() {
        RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck => {}
        phase @ (RunPhase::Queued | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) => return Err(not_now(phase)),
    }
    let (key, found) = find(state, instance)?;
    if !fits(found.phase) {
        return Err(Rejected::Instance { instance: instance.clone(), state: found.phase.as_str() });
    }
    if found.try_number != try_number {
        return Err(Rejected::StaleTry { instance: instance.clone(), given: try_number, current: found.try_number });
    }
    Ok((key, found))
}

/// The attempt of an unexpanded mapped task ends with its items, nothing else.
fn refuse_unexpanded(state: &RunState, key: Key, instance: &InstanceId) -> Result<(), Rejected> {
    if state.dag().task(key.task).settings.mapped && key.map_index.is_none() {
        return Err(Rejected::BadArgument(format!("`{instance}` is mapped, and its items are not known yet")));
    }
    Ok(())
}

fn stop_reason(state: &RunState, key: Key) -> String {
    state.stops().get(&key).map(|stop| stop.reason.to_string()).unwrap_or_default()
}

pub(super) fn is_ending(state: &RunState) -> bool {
    state.cancel_cause().is_some()
}

pub(super) fn hooks(state: &RunState, key: Key) -> Hooks {
    state.dag().task(key.task).settings.hooks
}
