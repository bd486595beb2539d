//! One DAG file becomes a definition.

use super::others::Other;
use super::schedule::Times;
use super::settings::Defaults;
use super::task::{RawGraph, hooks};
use super::{Reading, Scope};
use crate::definition::{Callbacks, Definition, Param};
use crate::diagnostic::{Diagnostic, Span, code};
use crate::files::{Bundle, Files};
use crate::template::check::Checker;
use crate::yaml::{self, Fields, Node};
use backstop_core::dag::{DagSpec, Group, TaskSpec};
use backstop_core::{Dag, DagId, TaskId};
use std::sync::Arc;
use std::time::Duration;

/// Keys of DAGs in later versions.
const LATER: &[&str] = &[
    "saga",
    "transaction",
    "two_phase",
    "deadline",
    "notify",
    "updates",
    "on_retry",
    "depends_on_past",
    "wait_for_downstream",
    "wait_for",
    "assets",
    "events",
];

/// A DAG file, read.
pub(crate) struct ReadDag {
    /// The id and its place, even where the rest is wrong.
    pub(crate) id: Option<(DagId, Span)>,
    /// Absent where there are errors.
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Other DAGs that its tasks name.
    pub(crate) others: Vec<Other>,
    /// Assets that its schedules wait for.
    pub(crate) awaited_assets: Vec<(Arc<str>, Span)>,
}

/// What a DAG has beside its tasks.
struct Header {
    description: Option<String>,
    tags: Vec<String>,
    times: Times,
    params: Vec<Param>,
    callbacks: Callbacks,
    max_active_tasks: u32,
    dagrun_timeout: Option<Duration>,
    max_map_length: u32,
}

/// Reads a DAG. `text` is the file's; `project_yaml` is backstop.yaml as bundles keep it.
pub(crate) fn read_dag(
    files: &dyn Files,
    file: &Arc<str>,
    text: &str,
    project_yaml: Option<&[u8]>,
    scope: &Scope,
    checker: &mut Checker,
) -> ReadDag {
    let mut diagnostics = Vec::new();
    let root = match yaml::parse(text, file, &mut diagnostics) {
        Ok(root) => root,
        Err(error) => {
            diagnostics.push(*error);
            None
        }
    };
    let mut reading = Reading::new(files, file.clone(), scope, checker);
    reading.diagnostics = diagnostics;
    let Some(root) = root.filter(|root| !root.is_null()) else {
        if reading.diagnostics.is_empty() {
            let at = Span { file: file.clone(), line: 1, column: 1, length: 1 };
            let diagnostic = Diagnostic::error(code::YAML_DOCUMENTS, "the file is empty", at);
            reading.diagnostics.push(diagnostic.hint("a DAG begins with `dag: <id>` and has `tasks:`"));
        }
        let (others, awaited_assets) = Default::default();
        return ReadDag { id: None, definition: None, diagnostics: reading.diagnostics, others, awaited_assets };
    };
    let (id, parts) = reading.dag(&root);
    let valid = !reading.diagnostics.iter().any(|diagnostic| reading.is_fatal(diagnostic));
    let definition = match (parts, valid) {
        (Some(parts), true) => reading.define(parts, text, project_yaml, &root),
        (Some(_) | None, _) => None,
    };
    let Reading { diagnostics, others, awaited_assets, .. } = reading;
    ReadDag { id, definition, diagnostics, others, awaited_assets }
}

/// Everything of a valid DAG.
struct Parts {
    id: DagId,
    header: Header,
    graph: RawGraph,
    edges: super::graph::Edges,
}

impl Reading<'_> {
    fn dag(&mut self, root: &Arc<Node>) -> (Option<(DagId, Span)>, Option<Parts>) {
        let Some(entries) = self.map(root, "a DAG") else { return (None, None) };
        let mut fields = Fields::new("Dag", entries);
        let id = self.dag_id(&mut fields, root);
        let (connection, connection_unclear) = self.connection_of(&mut fields);
        let own_defaults = fields.take_present("defaults").map(|node| self.defaults(node)).unwrap_or_default();
        // A default of `defaults:` is nearer to the tasks than the DAG's own connection.
        let connection = Defaults { connection, connection_unclear, ..Defaults::default() };
        let project = self.scope.defaults.clone();
        let defaults = own_defaults.over(&connection.over(&project));
        // Parameters come first: templates of all the rest are checked against them.
        let params = fields.take_present("params").map(|node| self.params(node)).unwrap_or_default();
        self.checker.set_params(params.iter().map(|param| param.name.clone()));
        let header = self.header(&mut fields, params, &defaults);
        let tasks = fields.take_present("tasks");
        fields.finish(LATER, &self.file.clone(), &mut self.diagnostics);
        let Some(tasks) = tasks else {
            self.error_with_hint(code::NO_TASKS, "the DAG has no tasks", root, "add `tasks:`");
            return (id, None);
        };
        let mut graph = self.tasks(tasks, &defaults);
        if let Some((id, _)) = &id {
            self.own_dag(id);
        }
        let edges = self.edges(&graph);
        self.pulls(&graph, edges.as_ref());
        let Some(edges) = edges else { return (id, None) };
        self.branches(&mut graph, &edges);
        let parts = id.clone().map(|(id, _)| Parts { id, header, graph, edges });
        (id, parts)
    }

    fn dag_id(&mut self, fields: &mut Fields<'_>, root: &Node) -> Option<(DagId, Span)> {
        let Some(node) = fields.take_present("dag") else {
            self.error_with_hint(code::MISSING_KEY, "the DAG has no id", root, "begin the file with `dag: <id>`");
            return None;
        };
        let id = self.text(node, "`dag`")?;
        let at = node.span(&self.file);
        self.id(&id, "a DAG", at.clone(), true).then(|| (DagId::new(id), at))
    }

    fn header(&mut self, fields: &mut Fields<'_>, params: Vec<Param>, defaults: &Defaults) -> Header {
        // Airflow's defaults.
        const MAX_ACTIVE_TASKS: u32 = 16;
        const MAX_MAP_LENGTH: u32 = 1024;
        let description = fields.take_present("description").and_then(|node| self.text(node, "`description`"));
        let tags = fields.take_present("tags").map(|node| self.texts(node, "`tags`")).unwrap_or_default();
        let tags = tags.into_iter().map(|(text, _)| text.to_string()).collect();
        let times = self.times(fields);
        let callbacks = self.run_callbacks(fields, defaults);
        let active = fields.take_present("max_active_tasks").and_then(|node| self.count(node, "`max_active_tasks`", 1));
        let dagrun_timeout =
            fields.take_present("dagrun_timeout").and_then(|node| self.duration_above_zero(node, "`dagrun_timeout`"));
        let map = fields.take_present("max_map_length").and_then(|node| self.count(node, "`max_map_length`", 1));
        Header {
            description: description.map(|text| text.to_string()),
            tags,
            times,
            params,
            callbacks,
            max_active_tasks: active.unwrap_or(MAX_ACTIVE_TASKS),
            dagrun_timeout,
            max_map_length: map.unwrap_or(MAX_MAP_LENGTH),
        }
    }

    fn define(&mut self, parts: Parts, text: &str, project_yaml: Option<&[u8]>, root: &Node) -> Option<Arc<Definition>> {
        let Parts { id, header, graph, edges } = parts;
        let groups = graph.groups.iter().map(|group| Group {
            id: group.id.clone(),
            parent: group.parent,
            commit: group.is_transaction.then(|| TaskId::new(group.id.as_str())),
        });
        let groups = groups.collect();
        let mut tasks = Vec::with_capacity(graph.tasks.len());
        let mut bodies = Vec::with_capacity(graph.tasks.len());
        for (at, task) in graph.tasks.iter().enumerate() {
            tasks.push(TaskSpec {
                id: TaskId::new(task.id.as_str()),
                after: edges.ids(&graph, at),
                settings: task.settings.clone(),
            });
        }
        for task in graph.tasks {
            // A task without a body has had an error, and then there is no definition.
            bodies.push(task.body?);
        }
        let spec = DagSpec {
            id,
            tasks,
            groups,
            pools: self.scope.pools.clone(),
            max_active_tasks: header.max_active_tasks,
            hooks: hooks(&header.callbacks),
            dagrun_timeout: header.dagrun_timeout,
            map_length_max: header.max_map_length,
        };
        let dag = match Dag::new(spec) {
            Ok(dag) => Arc::new(dag),
            Err(errors) => {
                for error in errors {
                    self.error(code::REFUSED_BY_CORE, error.to_string(), root);
                }
                return None;
            }
        };
        let mut files = std::mem::take(&mut self.used);
        files.insert(self.file.to_string(), text.as_bytes().to_vec());
        if let Some(yaml) = project_yaml {
            files.insert(super::project::FILE.to_owned(), yaml.to_vec());
        }
        let bundle = Bundle { root: self.files.root().to_owned(), files };
        Some(Arc::new(Definition {
            dag,
            description: header.description,
            tags: header.tags,
            file: self.file.clone(),
            version: bundle.version(),
            bundle,
            schedule: header.times.schedule,
            timezone: header.times.timezone,
            start_date: header.times.start_date,
            end_date: header.times.end_date,
            catchup: header.times.catchup,
            timetable: header.times.timetable,
            max_active_runs: header.times.max_active_runs,
            deadlines: header.times.deadlines,
            params: header.params,
            bodies,
            callbacks: header.callbacks,
        }))
    }
}
