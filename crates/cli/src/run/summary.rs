//! What came of a run: counts, and for everything that did not go well what, where, why and what to do.

use crate::explain::{self, Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::shell_word;
use crate::{narrate, wire, words};
use backstop_core::event::{CallbackId, CancelCause, Failure, Promise};
use backstop_core::state::{InstancePhase, InstanceView, RunPhase};
use backstop_core::{InstanceId, RunState};
use backstop_project::definition::Definition;
use backstop_runtime::Report;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

/// Instances that are told of one by one, of each kind.
const TOLD_MAX: usize = 50;

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
    callbacks(told, paint, &mut text);
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
    for (id, view) in instances.iter().take(TOLD_MAX) {
        let _ = writeln!(text);
        match view.phase {
            InstancePhase::UpstreamFailed => upstream_failed(told, id, paint, text),
            InstancePhase::InDoubt => in_doubt(told, id, view, paint, text),
            _ => failed(told, id, view, paint, text),
        }
    }
    if more > 0 {
        let _ =
            writeln!(text, "\n… and {} more: backstop runs show {}{}", words::grouped(more as u64), run_id(state), told.flags);
    }
}

fn failed(told: &Told<'_>, id: &InstanceId, view: &InstanceView<'_>, paint: Painter, text: &mut String) {
    let tries = match view.try_number {
        0 | 1 => String::new(),
        many => format!(", after {many} tries"),
    };
    let _ = writeln!(text, "{} failed{tries}", paint.bad(&format!("✗ {id}")));
    if let Some(failure) = view.failure {
        text.push_str(&explain::failure(failure, paint));
    }
    log_command(told, id, paint, text);
}

fn in_doubt(told: &Told<'_>, id: &InstanceId, view: &InstanceView<'_>, paint: Painter, text: &mut String) {
    let _ =
        writeln!(text, "{} is in doubt: it is not known whether its last attempt took effect", paint.warn(&format!("? {id}")));
    if let Some(failure) = view.failure {
        text.push_str(&explain::failure(failure, paint));
    }
    if let Some(why) = told.report.undecided.get(id) {
        let _ = writeln!(text, "    {} {why}", paint.bold("why:"));
    }
    log_command(told, id, paint, text);
    let (run, word, again) = (run_id(&told.report.state), shell_word(&id.to_string()), told.again);
    let _ = writeln!(text, "    Find out what it did, then say so:");
    for outcome in ["committed", "not-committed"] {
        let _ = writeln!(text, "      {again} --resume {run} --resolve {word}={outcome} --why \"how you know\"");
    }
}

fn upstream_failed(told: &Told<'_>, id: &InstanceId, paint: Painter, text: &mut String) {
    let state = &told.report.state;
    let dag = state.dag();
    let upstreams = dag.index(id.task.as_str()).map(|place| dag.task(place).upstream.clone()).unwrap_or_default();
    let blamed: BTreeSet<String> = state
        .instances()
        .filter(|(other, view)| {
            let is_upstream = dag.index(other.task.as_str()).is_some_and(|place| upstreams.contains(&place));
            is_upstream && matches!(view.phase, InstancePhase::Failed | InstancePhase::UpstreamFailed | InstancePhase::Skipped)
        })
        .map(|(other, view)| format!("{other} is {}", view.phase.as_str()))
        .collect();
    let because: Vec<String> = blamed.into_iter().take(5).collect();
    let because = if because.is_empty() { String::new() } else { format!(": {}", because.join(", ")) };
    let _ = writeln!(text, "{} did not run (upstream_failed){because}", paint.warn(&format!("- {id}")));
}

fn log_command(told: &Told<'_>, id: &InstanceId, paint: Painter, text: &mut String) {
    let run = run_id(&told.report.state);
    let _ = writeln!(text, "    {} backstop logs {run} {}{}", paint.bold("log:"), shell_word(&id.to_string()), told.flags);
}

fn at_least_once(told: &Told<'_>, paint: Painter, text: &mut String) {
    let mut lines = BTreeSet::new();
    for (id, view) in told.report.state.instances() {
        for commit in view.segments {
            if let Promise::AtLeastOnce(reason) = &commit.promise {
                lines.insert(format!("{id}: segment {} ran at least once, not exactly once: {reason}", commit.segment + 1));
            }
        }
    }
    list(&lines, paint, "!", text);
}

fn retries(told: &Told<'_>, text: &mut String) {
    let lines: BTreeSet<String> = told
        .report
        .state
        .instances()
        .filter(|(_, view)| view.phase == InstancePhase::Success && view.try_number > 1)
        .map(|(id, view)| format!("{id}: succeeded on try {}", view.try_number))
        .collect();
    list(&lines, Painter::plain(), "↻", text);
}

fn callbacks(told: &Told<'_>, paint: Painter, text: &mut String) {
    for (callback, failure) in &told.callbacks_failed {
        let name = format!("✗ {} of {}", narrate::callback_name(callback), narrate::subject(callback));
        let _ = writeln!(text, "\n{} failed; this changes no task's state", paint.bad(&name));
        text.push_str(&explain::failure(failure, paint));
    }
}

fn list(lines: &BTreeSet<String>, paint: Painter, glyph: &str, text: &mut String) {
    if lines.is_empty() {
        return;
    }
    text.push('\n');
    for line in lines.iter().take(TOLD_MAX) {
        let _ = writeln!(text, "{} {line}", paint.warn(glyph));
    }
    if lines.len() > TOLD_MAX {
        let _ = writeln!(text, "… and {} more", words::grouped((lines.len() - TOLD_MAX) as u64));
    }
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
    if state.header().is_some_and(|header| header.dry_run) {
        let _ = writeln!(text, "  dry run: transactional SQL was rolled back, other tasks did not run");
    }
    let _ = writeln!(text, "  {}", paint.dim(&format!("backstop runs show {}{}", run_id(state), told.flags)));
}
