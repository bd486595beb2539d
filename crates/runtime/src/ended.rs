//! What ended a run, in sentences: from its state, and from its log where only that keeps the words of who cancelled it.
//!
//! It must not know who asks, nor by what command a run is made to go on.

use backstop_core::event::{CancelCause, Failure, FailureClass};
use backstop_core::{Event, InstancePhase, InstanceView, RunId, RunPhase, RunState};
use backstop_store::{Error, Store};

/// Tasks that one sentence names; it counts the others.
const NAMED_MAX: usize = 5;
/// Characters of a failure's message in a sentence; all of it is in the log.
const MESSAGE_CHARACTERS_MAX: usize = 400;
/// Events that are looked through at once for the words of who cancelled the run.
const EVENTS_AT_ONCE: u64 = 1000;

/// How a run that is over came to its end, as `it is over: failed: 2 tasks did: ...`; `None` as long as it is not.
///
/// # Errors
/// The store.
pub async fn sentence(store: &dyn Store, run: &RunId, state: &RunState) -> Result<Option<String>, Error> {
    let phase = state.phase();
    let because = match phase {
        RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck => return Ok(None),
        RunPhase::Succeeded => None,
        RunPhase::Cancelled => cancelled(store, run, state).await?,
        RunPhase::Failed if state.cancel_cause() == Some(CancelCause::DagrunTimeout) => {
            let reason = cancelled(store, run, state).await?.map(|reason| format!(" ({reason})")).unwrap_or_default();
            Some(format!("it took longer than its dagrun_timeout{reason}"))
        }
        RunPhase::Failed => failed(state),
    };
    let because = because.map(|because| format!(": {because}")).unwrap_or_default();
    Ok(Some(format!("it is over: {}{because}", phase.as_str())))
}

/// Whether an instance had a part in its run's end, so that it is told of without being asked for.
pub fn is_to_blame(view: &InstanceView<'_>) -> bool {
    view.phase == InstancePhase::Failed
}

/// Why an instance that is done ended as it did, behind `it is done: failed`; nothing of one that did well.
pub fn of_instance(view: &InstanceView<'_>) -> String {
    let failure = view.failure.filter(|_| view.phase == InstancePhase::Failed && !view.is_marked);
    let Some(failure) = failure else { return String::new() };
    let cancelled = if failure.class == FailureClass::Cancelled { ", cancelled" } else { "" };
    format!("{cancelled}, try {}: {}", view.try_number, in_full(failure))
}

/// Where it happened, what happened, and the server's own code for it.
fn in_full(failure: &Failure) -> String {
    let at = failure.place.as_ref().map(|at| format!("{}:{}:{}: ", at.file, at.line, at.column)).unwrap_or_default();
    let message = failure.message.trim();
    let is_long = message.chars().nth(MESSAGE_CHARACTERS_MAX).is_some();
    let message: String = message.chars().take(MESSAGE_CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let code = match (&failure.sqlstate, &failure.native_code) {
        (Some(state), _) => format!(" (SQLSTATE {state})"),
        (None, Some(code)) => format!(" (code {code})"),
        (None, None) => String::new(),
    };
    format!("{at}{message}{}{code}", if is_long { "…" } else { "" })
}

fn failed(state: &RunState) -> Option<String> {
    let failed: Vec<String> = state
        .instances()
        .filter(|(_, view)| is_to_blame(view))
        .map(|(instance, view)| format!("`{instance}`{}", if view.is_marked { " (as a person said)" } else { "" }))
        .collect();
    let more = failed.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!failed.is_empty()).then(|| format!("{}{more} failed", failed[..failed.len().min(NAMED_MAX)].join(", ")))
}

/// In the words of who cancelled it last: looked for from the end, where they are.
async fn cancelled(store: &dyn Store, run: &RunId, state: &RunState) -> Result<Option<String>, Error> {
    let mut until = state.version();
    while until > 0 {
        let after = until.saturating_sub(EVENTS_AT_ONCE);
        let limit = usize::try_from(until - after).unwrap_or(usize::MAX);
        let found = store.events(run, after, limit).await?.into_iter().rev().find_map(|recorded| match recorded.event {
            Event::CancelRequested { reason, cause: _ } => Some(reason),
            _ => None,
        });
        if found.is_some() {
            return Ok(found);
        }
        until = after;
    }
    Ok(None)
}
