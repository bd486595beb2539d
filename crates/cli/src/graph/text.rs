//! A DAG in lines: a layer is what can run at the same time, an arrow shows what a task waits for.

use crate::words;
use backstop_core::TaskIx;
use backstop_core::dag::Role;
use backstop_core::rule::TriggerRule;
use backstop_project::definition::Definition;
use std::fmt::Write as _;

/// Upstreams that are named; a task with more says how many there are.
const UPSTREAMS_NAMED_MAX: usize = 12;

/// The lines.
pub(super) fn text(definition: &Definition) -> String {
    let dag = &definition.dag;
    let layers = super::layout::layers(dag);
    let mut text = String::new();
    let _ =
        writeln!(text, "{}: {} in {}", dag.id(), words::count(dag.tasks().len(), "task"), words::count(layers.len(), "layer"));
    if let Some(description) = &definition.description {
        let _ = writeln!(text, "{}", words::short(description, 100));
    }
    let width = dag.tasks().iter().map(|task| task.id.as_str().chars().count()).max().unwrap_or(0).min(40);
    for (number, layer) in layers.iter().enumerate() {
        text.push('\n');
        for (nth, place) in layer.iter().enumerate() {
            let label = if nth == 0 { (number + 1).to_string() } else { String::new() };
            let _ = writeln!(text, "{}", line(definition, *place, &label, width));
        }
    }
    text
}

fn line(definition: &Definition, place: TaskIx, label: &str, width: usize) -> String {
    let dag = &definition.dag;
    let task = dag.task(place);
    let body = definition.body(place);
    let mut line = format!("{label:>3}  {:<width$}  {:<6}", task.id.as_str(), body.kind.name());
    if !task.upstream.is_empty() {
        let names = task.upstream.iter().take(UPSTREAMS_NAMED_MAX).map(|up| dag.task(*up).id.as_str());
        let mut names = names.collect::<Vec<_>>().join(", ");
        if task.upstream.len() > UPSTREAMS_NAMED_MAX {
            let _ = write!(names, " and {} more", task.upstream.len() - UPSTREAMS_NAMED_MAX);
        }
        let _ = write!(line, " ◀── {names}");
    }
    let notes = notes(definition, place);
    if !notes.is_empty() {
        let _ = write!(line, "  [{}]", notes.join(", "));
    }
    line.trim_end().to_owned()
}

/// What is unusual about a task.
pub(super) fn notes(definition: &Definition, place: TaskIx) -> Vec<String> {
    let settings = &definition.dag.task(place).settings;
    let mut notes = Vec::new();
    if settings.trigger_rule != TriggerRule::AllSuccess {
        notes.push(settings.trigger_rule.as_str().to_owned());
    }
    match settings.role {
        Role::Work => {}
        Role::Setup => notes.push("setup".to_owned()),
        Role::Teardown { .. } => notes.push("teardown".to_owned()),
    }
    if settings.mapped {
        notes.push("for each".to_owned());
    }
    if settings.retry.retries > 0 {
        notes.push(words::count(settings.retry.retries as usize, "retry").replace("retrys", "retries"));
    }
    notes
}
