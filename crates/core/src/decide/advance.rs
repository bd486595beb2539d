//! What the last events made possible: ready tasks, marks, and the end of the run.

use super::callbacks;
use crate::event::{CancelCause, Event, Occasion, SkipCause};
use crate::id::{InstanceId, TaskIx};
use crate::rule::Verdict;
use crate::state::{RunPhase, RunState};

/// One round. Empty when nothing follows.
pub(super) fn advance(state: &RunState) -> Vec<Event> {
    let phase = state.phase();
    let events = match phase {
        RunPhase::Running => judge_tasks(state),
        RunPhase::Queued
        | RunPhase::Cancelling
        | RunPhase::Stuck
        | RunPhase::Succeeded
        | RunPhase::Failed
        | RunPhase::Cancelled => Vec::new(),
    };
    if !events.is_empty() || state.counts().undone() > 0 {
        return events;
    }
    match (phase, state.cancel_cause()) {
        (RunPhase::Running, _) if state.failed_leaves() == 0 => end(state, Event::RunSucceeded, Occasion::Success),
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
    let id = |place: TaskIx| InstanceId::single(state.dag().task(place).id.clone());
    let mut events: Vec<Event> = state.to_schedule().iter().map(|&place| Event::TaskScheduled { instance: id(place) }).collect();
    let Some(&(highest, _)) = state.to_mark().first() else { return events };
    for &(_, place) in state.to_mark().iter().take_while(|(depth, _)| *depth == highest) {
        match state.verdict(place) {
            Verdict::Skip => events.push(Event::TaskSkipped { instance: id(place), cause: SkipCause::TriggerRule }),
            Verdict::UpstreamFailed => events.push(Event::TaskUpstreamFailed { instance: id(place) }),
            // A mark never turns back; the work-list holds nothing else.
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
    };
    std::iter::once(event).chain(callbacks(None, 0, occasion, count)).collect()
}
