//! Results that templates pull: whether the task is there, keeps a result, and has ended when the result is asked for.

use super::Reading;
use super::graph::{Edges, NEAR_IDS_MAX, near_name};
use super::task::RawGraph;
use crate::definition::{Kind, Template};
use crate::diagnostic::{Diagnostic, Span, code};
use crate::template::keeps_result;
use crate::template::pull::{self, Pull};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// How many steps upstream are gone in search of the tasks that are pulled from. A warning is worth that much, in a DAG of 100,000 tasks too.
const STEPS_MAX: usize = 20_000_000;

/// Whose template it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Puller {
    /// A callback of the run, or one of `defaults:`, which many tasks inherit.
    #[default]
    Dag,
    /// A task, by place.
    Task(u32),
    /// A callback of a task: it runs when the task has ended.
    Callback(u32),
}

/// What one template pulls.
pub(crate) struct Pulled {
    by: Puller,
    pulls: Arc<[Pull]>,
}

impl Reading<'_> {
    /// Notes what a template pulls, for the time when all tasks are known.
    pub(super) fn note_pulls(&mut self, template: &Template) {
        let file = &template.source.file;
        let pulls: Arc<[Pull]> = if *file == self.file {
            pull::pulls(template).into()
        } else {
            // A file that many tasks name is read once.
            self.pulls_of_files.entry(file.clone()).or_insert_with(|| pull::pulls(template).into()).clone()
        };
        if !pulls.is_empty() {
            self.pulled.push(Pulled { by: self.puller, pulls });
        }
    }

    /// Checks what was noted. Without edges, which are wrong then, nobody can say who waits for whom.
    pub(super) fn pulls(&mut self, graph: &RawGraph, edges: Option<&Edges>) {
        let mut seen: HashSet<Span> = HashSet::new();
        let mut steps = STEPS_MAX;
        for Pulled { by, pulls } in std::mem::take(&mut self.pulled) {
            for pull in pulls.iter() {
                let wrong = match graph.task_places.get(pull.task.as_str()) {
                    None => Some(not_there(graph, pull)),
                    Some(from) => keeps_none(graph, pull, *from)
                        .or_else(|| edges.and_then(|edges| not_waited_for(graph, edges, by, pull, *from, &mut steps))),
                };
                // A file that many tasks name is wrong once.
                if let Some(wrong) = wrong
                    && seen.insert(pull.at.clone())
                {
                    self.diagnostics.push(wrong);
                }
            }
        }
    }
}

fn not_there(graph: &RawGraph, pull: &Pull) -> Diagnostic {
    let task = &pull.task;
    let message = format!("there is no task `{task}` to pull a result from");
    let inner = format!(".{task}");
    let known = graph.tasks.get(..graph.tasks.len().min(NEAR_IDS_MAX)).unwrap_or_default();
    let hint = if graph.group_places.contains_key(task.as_str()) {
        format!("`{task}` is a group; name one of its tasks, as `{task}.<task>`")
    } else if let Some(whole) = known.iter().find(|known| known.id.ends_with(&inner)) {
        format!("did you mean `{}`? The id of a task in a group has the group's before it", whole.id)
    } else if let Some(near) = near_name(graph, &[String::new()], task) {
        format!("did you mean `{near}`?")
    } else {
        "name a task of this DAG that keeps a result".to_owned()
    };
    Diagnostic::error(code::PULL_FROM_NOBODY, message, pull.at.clone()).hint(hint)
}

fn keeps_none(graph: &RawGraph, pull: &Pull, from: u32) -> Option<Diagnostic> {
    let raw = &graph.tasks[from as usize];
    // A task with errors of its own may yet be given a result.
    let kind = &raw.body.as_ref()?.kind;
    if keeps_result(kind) {
        return None;
    }
    let hint = match kind {
        Kind::Sql(_) => "add `result: scalar` (or `row`, `rows`) to it".to_owned(),
        Kind::Commit(_) => format!("`{0}` is a group; name one of its tasks, as `{0}.<task>`", raw.id),
        Kind::Http(_) => "add `result: true` below its `http:`".to_owned(),
        Kind::Check(_)
        | Kind::Sensor(_)
        | Kind::Dag(_)
        | Kind::WaitFor(_)
        | Kind::Empty
        | Kind::Branch(_)
        | Kind::Shell(_)
        | Kind::Python(_) => {
            format!("{} tasks keep none; sql, http, branch, shell, python and dag tasks can", kind.name())
        }
    };
    let diagnostic = Diagnostic::error(code::PULL_OF_NOTHING, format!("task `{}` keeps no result", raw.id), pull.at.clone());
    Some(diagnostic.label(raw.at.clone(), "the task").hint(hint))
}

/// It is a warning, as the result may be there by chance, or because another way leads there: then the author knows better.
fn not_waited_for(graph: &RawGraph, edges: &Edges, by: Puller, pull: &Pull, from: u32, steps: &mut usize) -> Option<Diagnostic> {
    let task = match by {
        Puller::Dag => return None,
        Puller::Callback(task) if task == from => return None,
        Puller::Task(task) | Puller::Callback(task) => task,
    };
    if pull.has_default || is_upstream(edges, task, from, steps)? {
        return None;
    }
    let id = &graph.tasks[task as usize].id;
    let (what, hint) = if task == from {
        (format!("`{id}` pulls its own result, which it has not before it has ended"), None)
    } else if is_upstream(edges, from, task, steps)? {
        (format!("`{id}` pulls the result of `{}`, which runs after it", pull.task), None)
    } else {
        let hint = format!("add `after: [{}]` to `{id}`", pull.task);
        (format!("`{id}` pulls the result of `{}`, but does not wait for it", pull.task), Some(hint))
    };
    let otherwise = "say what to take when there is no result: `default=...`";
    let hint = hint.map_or_else(|| otherwise.to_owned(), |hint| format!("{hint}, or {otherwise}"));
    let raw = &graph.tasks[from as usize];
    let diagnostic = Diagnostic::error(code::PULL_BEFORE_END, what, pull.at.clone()).warning();
    Some(diagnostic.label(raw.at.clone(), "the task pulled from").hint(hint))
}

/// Whether a task waits for another, directly or not; the nearest are looked at first. `None` when the steps are used up.
fn is_upstream(edges: &Edges, task: u32, wanted: u32, steps: &mut usize) -> Option<bool> {
    let mut seen = HashSet::from([task]);
    let mut next = VecDeque::from([task]);
    while let Some(task) = next.pop_front() {
        let upstream = &edges.upstream[task as usize];
        if upstream.contains(&wanted) {
            return Some(true);
        }
        *steps = steps.checked_sub(upstream.len() + 1)?;
        next.extend(upstream.iter().copied().filter(|up| seen.insert(*up)));
    }
    Some(false)
}
