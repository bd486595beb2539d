//! Tasks that concern other DAGs: `dag`, which starts a run of one, and `wait_for`. What they name is looked up once all DAGs are read.

use super::Reading;
use crate::definition::{Definition, IfFailed, Kind, TriggerDag, WaitFor};
use crate::diagnostic::{Diagnostic, Severity, Span, code, did_you_mean};
use crate::params;
use crate::template::is_template;
use crate::yaml::{Fields, Node, Value};
use backstop_core::{DagId, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Another DAG that a task names.
pub(crate) struct Other {
    pub(crate) dag: DagId,
    pub(crate) at: Span,
    /// Of `wait_for`: a task of it.
    task: Option<(Arc<str>, Span)>,
    /// Of `dag`: the parameters.
    params: Option<Vec<Given>>,
    /// The task ends only when a run of the other DAG has, one that is about the same time.
    is_waited_for: bool,
}

/// A parameter for another DAG.
struct Given {
    name: Arc<str>,
    value: serde_json::Value,
    /// What it will be is only known when the task runs.
    is_computed: bool,
    at: Span,
}

impl Reading<'_> {
    /// `dag:` an id, or a mapping.
    pub(super) fn trigger_dag(&mut self, node: &Arc<Node>) -> Option<Kind> {
        let Some(entries) = node.as_map() else {
            let (dag, at) = self.dag_named(node)?;
            self.others.push(Other { dag: dag.clone(), at, task: None, params: Some(Vec::new()), is_waited_for: true });
            return Some(Kind::Dag(TriggerDag { dag, params: BTreeMap::new(), logical_date: None, wait: true }));
        };
        let mut fields = Fields::new("TriggerDag", entries);
        let id = fields.take_present("id");
        let params = fields.take_present("params");
        let logical_date = fields.take_present("logical_date").map(|node| self.point_in_time(node, "`logical_date`"));
        let wait = fields.take_present("wait").map(|node| self.boolean(node, "`wait`"));
        let misspelt = fields.misspells("id");
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let Some(id) = id else {
            if !misspelt {
                self.error_with_hint(code::MISSING_KEY, "`dag` does not say which", node, "add `id: <the DAG's id>`");
            }
            return None;
        };
        let (dag, at) = self.dag_named(id)?;
        let given = match params {
            Some(node) => self.given(node)?,
            None => Vec::new(),
        };
        let params = given.iter().map(|given| (given.name.to_string(), given.value.clone())).collect();
        let wait = wait.unwrap_or(Some(true))?;
        let logical_date = match logical_date {
            Some(read) => Some(read?),
            None => None,
        };
        self.others.push(Other { dag: dag.clone(), at, task: None, params: Some(given), is_waited_for: wait });
        Some(Kind::Dag(TriggerDag { dag, params, logical_date, wait }))
    }

    /// `wait_for:` an id, or a mapping.
    pub(super) fn wait_for(&mut self, node: &Arc<Node>) -> Option<Kind> {
        // Airflow's default of sensors.
        const TIMEOUT: Duration = Duration::from_secs(7 * 86400);
        const IF_FAILED: &[(&str, IfFailed)] = &[("fail", IfFailed::Fail), ("wait", IfFailed::Wait), ("skip", IfFailed::Skip)];
        let mut wait = WaitFor {
            dag: DagId::new(""),
            task: None,
            logical_date: None,
            if_failed: IfFailed::default(),
            timeout: TIMEOUT,
            soft_fail: false,
        };
        let Some(entries) = node.as_map() else {
            let (dag, at) = self.dag_named(node)?;
            self.others.push(Other { dag: dag.clone(), at, task: None, params: None, is_waited_for: true });
            return Some(Kind::WaitFor(WaitFor { dag, ..wait }));
        };
        let mut fields = Fields::new("WaitFor", entries);
        let (dag, task) = (fields.take_present("dag"), fields.take_present("task"));
        if let Some(node) = fields.take_present("logical_date") {
            wait.logical_date = self.point_in_time(node, "`logical_date`");
        }
        if let Some(node) = fields.take_present("if_failed") {
            wait.if_failed = self.choice(node, "`if_failed`", IF_FAILED).unwrap_or_default();
        }
        if let Some(node) = fields.take_present("timeout") {
            wait.timeout = self.duration_above_zero(node, "`timeout`").unwrap_or(TIMEOUT);
        }
        wait.soft_fail = fields.take_present("soft_fail").and_then(|node| self.boolean(node, "`soft_fail`")).unwrap_or(false);
        let misspelt = fields.misspells("dag");
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let Some(dag) = dag else {
            if !misspelt {
                self.error_with_hint(code::MISSING_KEY, "`wait_for` does not say for which DAG", node, "add `dag: <its id>`");
            }
            return None;
        };
        let (dag, at) = self.dag_named(dag)?;
        let task = match task {
            Some(node) => Some((self.text(node, "`task`")?, node.span(&self.file))),
            None => None,
        };
        let is_waited_for = wait.logical_date.is_none();
        wait.task = task.as_ref().map(|(task, _)| TaskId::new(&**task));
        self.others.push(Other { dag: dag.clone(), at, task, params: None, is_waited_for });
        Some(Kind::WaitFor(WaitFor { dag, ..wait }))
    }

    fn dag_named(&mut self, node: &Node) -> Option<(DagId, Span)> {
        let id = self.text(node, "the id of a DAG")?;
        let at = node.span(&self.file);
        if is_template(&id) {
            let hint = "write the id itself, so that it is known beforehand who waits for whom; a branch can choose among several such tasks";
            self.error_with_hint(code::BAD_ID, "the id of another DAG cannot be a template", node, hint);
            return None;
        }
        self.id(&id, "a DAG", at.clone(), true).then(|| (DagId::new(&*id), at))
    }

    fn given(&mut self, node: &Node) -> Option<Vec<Given>> {
        let mut given = Vec::new();
        for (key, value) in self.map(node, "`params`")? {
            let at = value.span(&self.file);
            given.push(Given { name: key.text.clone(), value: self.json(value), is_computed: has_template(value), at });
        }
        Some(given)
    }

    /// Reports tasks that wait for a run of their own DAG, about the same time.
    pub(super) fn own_dag(&mut self, id: &DagId) {
        for other in self.others.iter().filter(|other| other.dag == *id && other.is_waited_for) {
            let (message, hint) = match (&other.params, &other.task) {
                (Some(_), _) => (
                    "starts a run of its own DAG and waits for it, which would do the same",
                    format!("to start one and go on, write `dag: {{id: {id}, wait: false}}`"),
                ),
                (None, Some(_)) => ("waits for a task of its own run", "write `after: [...]` instead".to_owned()),
                (None, None) => {
                    ("waits for its own run, which cannot end before it", "for an earlier run give its `logical_date`".to_owned())
                }
            };
            let diagnostic = Diagnostic::error(code::WAITS_FOR_ITSELF, format!("a task of `{id}` {message}"), other.at.clone());
            self.diagnostics.push(diagnostic.hint(hint));
        }
    }
}

fn has_template(node: &Node) -> bool {
    match &node.value {
        Value::Scalar { text, .. } => is_template(text),
        Value::List(items) => items.iter().any(|item| has_template(item)),
        Value::Map(entries) => entries.iter().any(|(_, value)| has_template(value)),
    }
}

/// All DAGs of a project, for what they say of each other.
pub(crate) struct Everyone<'p> {
    /// The valid ones.
    pub(crate) dags: &'p BTreeMap<DagId, Arc<Definition>>,
    /// All that are there, the wrong ones among them.
    pub(crate) ids: BTreeSet<&'p DagId>,
    /// A file could not be read as far as its id, so that a DAG that seems not to be there may be in it.
    pub(crate) some_are_unread: bool,
}

impl Everyone<'_> {
    /// What is wrong with what the tasks of one DAG say of others.
    pub(crate) fn check(&self, others: &[Other]) -> Vec<Diagnostic> {
        let mut diagnostics = Vec::new();
        for other in others {
            if !self.ids.contains(&other.dag) {
                diagnostics.extend((!self.some_are_unread).then(|| self.unknown(other)));
                continue;
            }
            let Some(definition) = self.dags.get(&other.dag) else { continue };
            if let Some((task, at)) = &other.task
                && definition.dag.index(task).is_none()
            {
                diagnostics.push(unknown_task(definition, &other.dag, task, at));
            }
            if let Some(given) = &other.params {
                wrong_params(definition, other, given, &mut diagnostics);
            }
        }
        diagnostics
    }

    fn unknown(&self, other: &Other) -> Diagnostic {
        let diagnostic =
            Diagnostic::error(code::UNKNOWN_DAG, format!("there is no DAG `{}` in this project", other.dag), other.at.clone());
        match did_you_mean(other.dag.as_str(), self.ids.iter().map(|id| id.as_str())) {
            Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
            None => diagnostic.hint("DAGs of one project can start and await each other; between projects use assets"),
        }
    }
}

/// Circles of DAGs of which each waits for the next one's whole run. A warning, as a branch may keep them from doing so.
pub(crate) fn circles(others: &BTreeMap<DagId, Vec<Other>>) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut left: BTreeSet<&DagId> = others.keys().collect();
    while let Some(start) = strip(others, &mut left) {
        let mut path: Vec<&DagId> = Vec::new();
        let mut here = start;
        while !path.contains(&here) {
            path.push(here);
            let Some(next) = awaited(others, here).find(|other| left.contains(&other.dag) && other.dag != *here) else { break };
            here = &next.dag;
        }
        let circle = &path[path.iter().position(|dag| *dag == here).unwrap_or(0)..];
        let closes = circle.last().and_then(|last| awaited(others, last).find(|other| other.dag == *here));
        if let Some(closes) = closes {
            let shown = circle.iter().chain([&here]).map(|dag| dag.as_str()).collect::<Vec<_>>().join(" -> ");
            let diagnostic =
                Diagnostic::error(code::WAITS_FOR_ITSELF, format!("DAGs wait for each other: {shown}"), closes.at.clone());
            diagnostics.push(diagnostic.warning().hint("wait for a single task, or for an earlier `logical_date`"));
        }
        for dag in circle {
            left.remove(dag);
        }
    }
    diagnostics
}

/// The other DAGs for whose whole runs a DAG waits.
fn awaited<'o>(others: &'o BTreeMap<DagId, Vec<Other>>, dag: &DagId) -> impl Iterator<Item = &'o Other> {
    let all = others.get(dag).map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(move |other| other.is_waited_for && other.task.is_none())
}

/// Takes away DAGs that wait for none of those left, over and over. One of the rest: from there every way leads into a circle.
fn strip<'o>(others: &'o BTreeMap<DagId, Vec<Other>>, left: &mut BTreeSet<&'o DagId>) -> Option<&'o DagId> {
    loop {
        let waits = |dag: &&DagId| awaited(others, dag).any(|other| left.contains(&other.dag) && other.dag != **dag);
        let stays: BTreeSet<&DagId> = left.iter().copied().filter(waits).collect();
        if stays.len() == left.len() {
            return left.first().copied();
        }
        *left = stays;
    }
}

fn unknown_task(definition: &Definition, dag: &DagId, task: &str, at: &Span) -> Diagnostic {
    let ids = definition.dag.tasks().iter().map(|task| task.id.as_str()).take(super::graph::NEAR_IDS_MAX);
    let diagnostic = Diagnostic::error(code::UNKNOWN_DAG, format!("DAG `{dag}` has no task `{task}`"), at.clone());
    match did_you_mean(task, ids) {
        Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
        None => diagnostic.hint("the id of a task in a group has the group's before it: `group.task`"),
    }
}

fn wrong_params(definition: &Definition, other: &Other, given: &[Given], diagnostics: &mut Vec<Diagnostic>) {
    // What a template gives is only known when it runs; it counts as given.
    let computed: BTreeSet<&str> = given.iter().filter(|given| given.is_computed).map(|given| &*given.name).collect();
    let known = |name: &str| definition.params.iter().any(|param| param.name == name);
    let params: Vec<_> = definition.params.iter().filter(|param| !computed.contains(param.name.as_str())).cloned().collect();
    let checked = given.iter().filter(|given| !(given.is_computed && known(&given.name)));
    let values = checked.map(|given| (given.name.to_string(), given.value.clone())).collect();
    for error in params::resolve(&params, &values).err().unwrap_or_default() {
        let at = given.iter().find(|given| *given.name == *error.name).map_or(&other.at, |given| &given.at);
        let message = format!("parameter `{}` of DAG `{}`: {}", error.name, other.dag, error.message);
        let diagnostic = Diagnostic::error(code::WRONG_PARAMS, message, at.clone());
        diagnostics.push(match error.hint {
            Some(hint) => diagnostic.hint(hint),
            None => diagnostic,
        });
    }
}

/// Schedules by assets that no task updates, while one updates an asset of nearly the same name. A warning, as the asset may well come from outside; so
/// it is told only of what looks like a slip of the pen, and not where the names differ in digits.
pub(crate) fn assets_nobody_updates(awaited: &[(Arc<str>, Span)], dags: &BTreeMap<DagId, Arc<Definition>>) -> Vec<Diagnostic> {
    const LENGTH_MIN: usize = 5;
    let bodies = dags.values().flat_map(|definition| &definition.bodies);
    let updated: BTreeSet<&str> = bodies.flat_map(|body| &body.updates).map(|name| &**name).collect();
    let without_digits = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    let mut diagnostics = Vec::new();
    for (name, at) in awaited.iter().filter(|(name, _)| name.chars().count() >= LENGTH_MIN && !updated.contains(&**name)) {
        let near = updated.iter().find(|known| {
            known.chars().count() >= LENGTH_MIN
                && known.len().abs_diff(name.len()) <= 4
                && strsim::damerau_levenshtein(known, name) == 1
                && without_digits(known) != without_digits(name)
        });
        if let Some(near) = near {
            let message = format!("no task of this project updates asset `{name}`");
            let diagnostic = Diagnostic::error(code::ASSET_NOBODY_UPDATES, message, at.clone()).warning();
            diagnostics.push(diagnostic.hint(format!("did you mean `{near}`?")));
        }
    }
    diagnostics
}

/// Whether any of them keeps a DAG from being loaded.
pub(crate) fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}
