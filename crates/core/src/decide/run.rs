//! Commands about the run as a whole.

use super::{callbacks, not_now, unit};
use crate::command::Rejected;
use crate::event::{CallbackId, CancelCause, Event, Failure, FailureClass, Occasion, SkipCause};
use crate::state::{InstancePhase, RunPhase, RunState};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

pub(super) fn start(state: &RunState, now: Timestamp) -> Result<Vec<Event>, Rejected> {
    match state.phase() {
        RunPhase::Queued => Ok(vec![Event::RunStarted { at: now }]),
        phase @ (RunPhase::Running
        | RunPhase::Cancelling
        | RunPhase::Stuck
        | RunPhase::Succeeded
        | RunPhase::Failed
        | RunPhase::Cancelled) => Err(not_now(phase)),
    }
}

/// Also allowed after the end while callbacks are pending: somebody has to run them.
pub(super) fn resume(state: &RunState, epoch: u64, now: Timestamp) -> Result<Vec<Event>, Rejected> {
    if state.is_finished() {
        return Err(not_now(state.phase()));
    }
    if epoch <= state.epoch() {
        return Err(Rejected::BadArgument(format!("epoch {epoch} is not newer than the run's, {}", state.epoch())));
    }
    let failure = Arc::new(interrupted());
    let is_lost = |key: &&crate::state::Key| state.dag().member_of(key.task).is_none();
    let lost = state.running().iter().filter(is_lost).map(|&key| Event::AttemptUnknown {
        instance: state.id(key),
        try_number: state.find(key).map_or(0, |instance| instance.try_number),
        failure: Arc::clone(&failure),
    });
    Ok(std::iter::once(Event::RunResumed { epoch }).chain(lost).chain(unit::interrupted_units(state, now)).collect())
}

/// Also of a run that is over: it goes on when it is reopened.
pub(super) fn pin(state: &RunState, version: String, variables: Option<Arc<str>>) -> Result<Vec<Event>, Rejected> {
    if let Some(instance) = state.instances_running().next() {
        return Err(Rejected::Instance { instance, state: InstancePhase::Running.as_str() });
    }
    let has_them = state.header().is_some_and(|header| header.version == version) && state.variables() == variables.as_ref();
    Ok(if has_them { Vec::new() } else { vec![Event::RunPinned { version, variables }] })
}

/// Why an attempt is in doubt after its process went away.
pub(super) fn interrupted() -> Failure {
    Failure {
        class: FailureClass::Interrupted,
        message: "the process that ran this attempt is gone".to_owned(),
        causes: Vec::new(),
        place: None,
        sqlstate: None,
        native_code: None,
        effect: "not known yet".to_owned(),
        hint: None,
        statements: Vec::new(),
    }
}

/// Nothing is due before the run begins and after it ends, and a clock that jumps back only makes it wait.
pub(super) fn fire_timers(state: &RunState, now: Timestamp) -> Vec<Event> {
    if state.timeout_at().is_some_and(|at| at <= now) {
        let timeout = state.dag().dagrun_timeout().unwrap_or_default();
        let timeout = SignedDuration::try_from(timeout).unwrap_or(SignedDuration::MAX);
        return begin_cancel(state, format!("over its dagrun_timeout of {timeout:#}"), CancelCause::DagrunTimeout);
    }
    let due = state.timers().iter().take_while(|(at, _)| *at <= now);
    due.map(|&(_, key)| Event::TimerFired { instance: state.id(key) }).collect()
}

pub(super) fn cancel(state: &RunState, reason: String) -> Result<Vec<Event>, Rejected> {
    match state.phase() {
        RunPhase::Queued | RunPhase::Running => Ok(begin_cancel(state, reason, CancelCause::Asked)),
        RunPhase::Stuck if state.cancel_cause().is_none() => Ok(begin_cancel(state, reason, CancelCause::Asked)),
        phase @ (RunPhase::Stuck | RunPhase::Cancelling | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) => {
            Err(not_now(phase))
        }
    }
}

/// Skips everything that has no attempt going on. Costs the size of the DAG, once a run.
fn begin_cancel(state: &RunState, reason: String, cause: CancelCause) -> Vec<Event> {
    let is_idle = |phase: InstancePhase| match phase {
        InstancePhase::None | InstancePhase::Scheduled | InstancePhase::Deferred { .. } | InstancePhase::UpForRetry { .. } => {
            true
        }
        InstancePhase::Running
        | InstancePhase::InDoubt
        | InstancePhase::Held
        | InstancePhase::Success
        | InstancePhase::Failed
        | InstancePhase::Skipped
        | InstancePhase::UpstreamFailed
        | InstancePhase::RolledBack
        | InstancePhase::Removed => false,
    };
    let idle = state.keys().filter(|&key| state.find(key).is_some_and(|instance| is_idle(instance.phase)));
    let skipped = idle.map(|key| Event::TaskSkipped { instance: state.id(key), cause: SkipCause::RunCancelled });
    std::iter::once(Event::CancelRequested { reason, cause }).chain(skipped).collect()
}

pub(super) fn finish_callback(
    state: &RunState,
    callback: CallbackId,
    failure: Option<Arc<Failure>>,
) -> Result<Vec<Event>, Rejected> {
    if state.callbacks().contains(&callback) {
        Ok(vec![Event::CallbackFinished { callback, failure }])
    } else {
        Err(Rejected::BadArgument("the callback was not asked for, or has run already".to_owned()))
    }
}

pub(super) fn declare_stuck(state: &RunState) -> Result<Vec<Event>, Rejected> {
    match state.phase() {
        RunPhase::Running | RunPhase::Cancelling => {}
        phase @ (RunPhase::Queued | RunPhase::Stuck | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) => {
            return Err(not_now(phase));
        }
    }
    if state.in_doubt().is_empty() {
        return Err(Rejected::BadArgument("no task instance is in doubt".to_owned()));
    }
    let has_work = !(state.running().is_empty()
        && state.queue().is_empty()
        && state.timers().is_empty()
        && state.to_schedule().is_empty()
        && state.to_mark().is_empty());
    if has_work {
        return Err(Rejected::BadArgument("other task instances can still go on".to_owned()));
    }
    // A process that takes the run over and knows no more than the one before has nothing to tell.
    let count = if state.is_newly_stuck() { state.dag().hooks().on_stuck } else { 0 };
    let told = callbacks(None, state.times_stuck(), Occasion::Stuck, count);
    Ok(std::iter::once(Event::RunStuck { instances: state.instances_in_doubt().collect() }).chain(told).collect())
}

/// Told once a deadline and kind; one that is missed needs no foresight any more.
pub(super) fn tell_deadline(
    state: &RunState,
    deadline: u32,
    due_at: Timestamp,
    done_at: Option<Timestamp>,
) -> Result<Vec<Event>, Rejected> {
    let is_over = state.phase().is_terminal();
    let is_told = state.is_told(deadline, due_at, true) || (done_at.is_some() && state.is_told(deadline, due_at, false));
    if is_over || is_told {
        return Ok(Vec::new());
    }
    let event = match done_at {
        Some(done_at) => Event::DeadlineAtRisk { deadline, due_at, done_at },
        None => Event::DeadlineMissed { deadline, due_at },
    };
    let told = callbacks(None, state.deadlines_told().len() as u32, Occasion::Deadline, state.dag().hooks().on_deadline);
    Ok(std::iter::once(event).chain(told).collect())
}
