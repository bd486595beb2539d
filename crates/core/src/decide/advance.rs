//! What the last events made possible: ready tasks, marks, and the end of the run.

use super::{callbacks, unit};
use crate::event::{CancelCause, Event, Occasion, SkipCause};
use crate::id::TaskIx;
use crate::rule::Verdict;
use crate::state::{RunPhase, RunState};

/// One round. Empty when nothing follows.
pub(super) fn advance(state: &RunState) -> Vec<Event> {
    let phase = state.phase();
    let events = match phase {
        RunPhase::Running => judge_tasks(state).into_iter().chain(unit::doomed(state)).collect(),
        RunPhase::Cancelling => unit::doomed(state),
        RunPhase::Queued | RunPhase::Stuck | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => Vec::new(),
    };
    if !events.is_empty() || state.counts().undone() > 0 {
        return events;
    }
    match (phase, state.cancel_cause()) {
        // Of a run that was reopened: what an earlier cancel left out is not done, whatever else went well.
        (RunPhase::Running, _) if state.failed_leaves() == 0 => match state.cut_by() {
            None => end(state, Event::RunSucceeded, Occasion::Success),
            Some(CancelCause::Asked) => end(state, Event::RunCancelled, Occasion::Failure),
            Some(CancelCause::DagrunTimeout) => end(state, Event::RunFailed, Occasion::Failure),
        },
        (RunPhase::Running, _) | (RunPhase::Cancelling, Some(CancelCause::DagrunTimeout)) => {
            end(state, Event::RunFailed, Occasion::Failure)
        }
        (RunPhase::Cancelling, Some(CancelCause::Asked) | None) => end(state, Event::RunCancelled, Occasion::Failure),
        (RunPhase::Queued | RunPhase::Stuck | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled, _) => Vec::new(),
    }
}

/// Empties the work-list: all that may run, and the marks that are highest in the graph. A mark further down waits for its turn,
/// because the marks above it may still turn a skip into an upstream failure.
fn judge_tasks(state: &RunState) -> Vec<Event> {
    let instances = |place: TaskIx| state.undecided_keys(place).map(|key| state.id(key));
    let scheduled = state.to_schedule().iter().flat_map(|&place| instances(place));
    let mut events: Vec<Event> = scheduled.map(|instance| Event::TaskScheduled { instance }).collect();
    let Some(&(highest, _)) = state.to_mark().first() else { return events };
    for &(_, place) in state.to_mark().iter().take_while(|(depth, _)| *depth == highest) {
        match state.verdict(place) {
            Verdict::Skip => {
                let skipped = |instance| Event::TaskSkipped { instance, cause: SkipCause::TriggerRule };
                events.extend(instances(place).map(skipped));
            }
            Verdict::UpstreamFailed => {
                events.extend(instances(place).map(|instance| Event::TaskUpstreamFailed { instance }));
            }
            // Judged anew whenever a counter changes; the work-list holds nothing else.
            Verdict::Wait | Verdict::Run => debug_assert!(false, "a mark turned back"),
        }
    }
    events
}

fn end(state: &RunState, event: Event, occasion: Occasion) -> Vec<Event> {
    let hooks = state.dag().hooks();
    let count = match occasion {
        Occasion::Success => hooks.on_success,
        Occasion::Failure => hooks.on_failure,
        Occasion::Retry => hooks.on_retry,
        Occasion::Deadline => hooks.on_deadline,
        Occasion::Stuck => hooks.on_stuck,
    };
    std::iter::once(event).chain(callbacks(None, state.reopened(), occasion, count)).collect()
}
