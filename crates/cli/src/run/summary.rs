//! What came of a run: counts, and for everything that did not go well what, where, why and what to do.

use crate::account::{self, Commands, TOLD_MAX, Unwell};
use crate::explain::{self, Exit, Problem};
use crate::output::{self, Painter};
use crate::{wire, words};
use backstop_core::dag::Delivery;
use backstop_core::event::{CallbackId, CancelCause, Failure, Promise};
use backstop_core::state::{InstancePhase, InstanceView, RunPhase};
use backstop_core::{InstanceId, RunState};
use backstop_project::definition::Definition;
use backstop_runtime::Report;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// What is told.
pub(super) struct Told<'a> {
    pub(super) report: &'a Report,
    pub(super) definition: &'a Definition,
    pub(super) callbacks_failed: Vec<(CallbackId, Arc<Failure>)>,
    pub(super) began: Timestamp,
    pub(super) ended: Timestamp,
    /// What leads other commands to the store.
    pub(super) flags: &'a str,
    /// The beginning of a command that resumes.
    pub(super) again: &'a str,
    /// A service has the store.
    pub(super) is_service_there: bool,
}

/// The last line of NDJSON.
pub(super) fn json(told: &Told<'_>, exit: Exit) -> Result<(), Problem> {
    let Some(header) = told.report.state.header() else { return Ok(()) };
    let summary = wire::Summary::new(header, told.report, exit.code(), words::elapsed_ms(told.began, told.ended));
    let line = serde_json::to_string(&summary).map_err(|error| Problem::usage("write JSON").cause(error.to_string()))?;
    output::data(&format!("{line}\n"))
}

/// For people.
pub(super) fn text(told: &Told<'_>) -> String {
    let paint = Painter::stderr();
    let mut text = String::new();
    not_well(told, paint, &mut text);
    at_least_once(told, paint, &mut text);
    retries(told, &mut text);
    account::callbacks(told.callbacks_failed.iter().map(|(callback, failure)| (callback, &**failure)), paint, &mut text);
    outcome(told, paint, &mut text);
    text
}

fn run_id(state: &RunState) -> &str {
    state.header().map_or("", |header| header.run_id.as_str())
}

fn not_well(told: &Told<'_>, paint: Painter, text: &mut String) {
    let state = &told.report.state;
    let wanted = |phase| matches!(phase, InstancePhase::Failed | InstancePhase::InDoubt | InstancePhase::UpstreamFailed);
    let mut instances: Vec<(InstanceId, InstanceView<'_>)> = state.instances().filter(|(_, view)| wanted(view.phase)).collect();
    // What failed first, then what follows from it.
    instances.sort_by_key(|(_, view)| view.phase == InstancePhase::UpstreamFailed);
    let more = instances.len().saturating_sub(TOLD_MAX);
    let commands = Commands { run: run_id(state), flags: told.flags, again: told.again, is_service_there: told.is_service_there };
    for (id, view) in instances.iter().take(TOLD_MAX) {
        let _ = writeln!(text);
        let unwell = Unwell {
            id,
            try_number: view.try_number,
            failure: view.failure.map(|failure| &**failure),
            why_undecided: told.report.undecided.get(id).map(String::as_str),
            earlier: String::new(),
        };
        match view.phase {
            InstancePhase::UpstreamFailed => account::upstream_failed(id, &blamed(state, id), paint, text),
            InstancePhase::InDoubt => account::in_doubt(&unwell, commands, paint, text),
            _ => account::failed(&unwell, commands, paint, text),
        }
    }
    if more > 0 {
        let _ =
            writeln!(text, "\n… and {} more: backstop runs show {}{}", words::grouped(more as u64), run_id(state), told.flags);
    }
}

/// The upstreams of an instance that did not go well, in words.
fn blamed(state: &RunState, id: &InstanceId) -> BTreeSet<String> {
    let dag = state.dag();
    let upstreams = dag.index(id.task.as_str()).map(|place| dag.task(place).upstream.clone()).unwrap_or_default();
    state
        .instances()
        .filter(|(other, view)| {
            let is_upstream = dag.index(other.task.as_str()).is_some_and(|place| upstreams.contains(&place));
            let is_unwell = match view.phase {
                InstancePhase::Failed | InstancePhase::UpstreamFailed | InstancePhase::RolledBack | InstancePhase::Skipped => {
                    true
                }
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
            is_upstream && is_unwell
        })
        .map(|(other, view)| format!("{other} is {}", view.phase.as_str()))
        .collect()
}

fn at_least_once(told: &Told<'_>, paint: Painter, text: &mut String) {
    let dag = told.report.state.dag();
    let (mut warned, mut allowed) = (BTreeSet::new(), BTreeSet::new());
    for (id, view) in told.report.state.instances() {
        let task = dag.index(id.task.as_str()).map(|place| dag.task(place));
        let chosen = task.filter(|task| task.settings.delivery == Delivery::AtLeastOnce);
        for commit in view.segments {
            let Promise::AtLeastOnce(reason) = &commit.promise else { continue };
            match chosen {
                Some(task) => drop(allowed.insert(task.id.as_str())),
                None => drop(warned.insert(account::ran_at_least_once(&id, commit.segment, reason))),
            }
        }
    }
    account::list(&warned, paint, "!", text);
    account::allowed_to_repeat(&allowed, text);
}

fn retries(told: &Told<'_>, text: &mut String) {
    let lines: BTreeSet<String> = told
        .report
        .state
        .instances()
        .filter(|(_, view)| view.phase == InstancePhase::Success && view.try_number > 1)
        .map(|(id, view)| format!("{id}: succeeded on try {}", view.try_number))
        .collect();
    account::list(&lines, Painter::plain(), "↻", text);
}

fn outcome(told: &Told<'_>, paint: Painter, text: &mut String) {
    let state = &told.report.state;
    let dag = told.definition.dag.id().as_str();
    let took = words::between(told.began, told.ended);
    let counts: Vec<String> = wire::counts(state.counts())
        .into_iter()
        .filter(|(name, _)| *name != "removed")
        .map(|(name, number)| format!("{} {name}", words::grouped(number as u64)))
        .collect();
    let (glyph, how) = match state.phase() {
        RunPhase::Succeeded => (paint.good("✓"), "succeeded".to_owned()),
        RunPhase::Failed if state.cancel_cause() == Some(CancelCause::DagrunTimeout) => {
            (paint.bad("✗"), "failed: it took longer than its dagrun_timeout".to_owned())
        }
        RunPhase::Failed => (paint.bad("✗"), "failed".to_owned()),
        RunPhase::Cancelled => (paint.warn("!"), "was cancelled".to_owned()),
        RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck => (paint.warn("?"), "is stuck".to_owned()),
    };
    let _ = writeln!(text, "\n{glyph} {} {how} in {took}: {}", paint.bold(dag), counts.join(", "));
    if !told.report.undecided.is_empty() {
        let _ = writeln!(text, "  it goes on when a person has said what is in doubt");
    }
    let is_dry = state.header().is_some_and(|header| header.dry_run);
    if !is_dry && matches!(state.phase(), RunPhase::Failed | RunPhase::Cancelled) {
        // Who simply starts it again does a second time what is committed.
        let _ =
            writeln!(text, "  once mended, go on behind the last commit: {}", explain::retry_command(run_id(state), told.flags));
    }
    if is_dry {
        let _ = writeln!(text, "  dry run: transactional SQL was rolled back, other tasks did not run");
    }
    let _ = writeln!(text, "  {}", paint.dim(&format!("backstop runs show {}{}", run_id(state), told.flags)));
}
