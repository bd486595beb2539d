//! Tasks and groups of a DAG, as written: names are not resolved yet.

use super::Reading;
use super::callback::with_connection;
use super::kind::KINDS;
use super::pulls::Puller;
use super::settings::Defaults;
use crate::definition::*;
use crate::diagnostic::{Diagnostic, Span, code};
use crate::yaml::{Fields, Key, Node, Value};
use backstop_core::dag::{Hooks, Role, TaskSettings, WeightRule};
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Kinds of later versions.
pub(crate) const LATER_KINDS: &[&str] = &["transfer", "publish", "notify"];

/// Keys of tasks in later versions.
pub(crate) const LATER: &[&str] = &[
    "transfer",
    "publish",
    "notify",
    "saga",
    "compensate",
    "pivot",
    "transaction",
    "two_phase",
    "deadline",
    "depends_on_past",
    "wait_for_downstream",
];

/// How deep groups may nest.
const GROUPS_DEEP_MAX: usize = 8;

/// A name in `after`, and where.
pub(crate) struct Reference {
    pub(crate) name: Arc<str>,
    pub(crate) at: Span,
    /// A setup that a teardown belongs to.
    pub(crate) setup: bool,
}

/// A task as written.
pub(crate) struct RawTask {
    /// With the groups' ids.
    pub(crate) id: String,
    pub(crate) at: Span,
    pub(crate) group: Option<u32>,
    pub(crate) after: Vec<Reference>,
    pub(crate) settings: TaskSettings,
    /// `None` where it has errors.
    pub(crate) body: Option<Body>,
}

/// A group as written.
pub(crate) struct RawGroup {
    pub(crate) id: String,
    pub(crate) at: Span,
    pub(crate) parent: Option<u32>,
    pub(crate) after: Vec<Reference>,
    /// Its tasks commit as one, by the task that has its id.
    pub(crate) is_transaction: bool,
}

/// All tasks and groups of a DAG, in the order of the source.
#[derive(Default)]
pub(crate) struct RawGraph {
    pub(crate) tasks: Vec<RawTask>,
    pub(crate) groups: Vec<RawGroup>,
    /// Places of tasks by id.
    pub(crate) task_places: HashMap<Arc<str>, u32>,
    /// Places of groups by id.
    pub(crate) group_places: HashMap<Arc<str>, u32>,
}

/// What a task is read within.
#[derive(Clone)]
struct Within<'d> {
    prefix: String,
    group: Option<u32>,
    depth: usize,
    defaults: &'d Defaults,
}

impl Reading<'_> {
    /// The `tasks:` of a DAG.
    pub(crate) fn tasks(&mut self, node: &Node, defaults: &Defaults) -> RawGraph {
        let mut graph = RawGraph::default();
        let within = Within { prefix: String::new(), group: None, depth: 0, defaults };
        self.tasks_within(node, &within, &mut graph);
        graph
    }

    fn tasks_within(&mut self, node: &Node, within: &Within<'_>, graph: &mut RawGraph) {
        let Some(entries) = self.map(node, "`tasks`") else { return };
        if entries.is_empty() {
            self.error(code::NO_TASKS, "there are no tasks", node);
        }
        for (key, value) in entries {
            let at = self.key_span(key);
            if !self.id(&key.text, "a task", at.clone(), false) {
                continue;
            }
            let id: Arc<str> = format!("{}{}", within.prefix, key.text).into();
            let Some(fields) = self.map(value, "a task") else { continue };
            let group = fields.iter().find(|(key, _)| &*key.text == "tasks");
            if group.is_some() && fields.iter().all(|(key, _)| !KINDS.contains(&&*key.text)) {
                self.group(&id, key, value, within, graph);
            } else {
                let place = u32::try_from(graph.tasks.len()).unwrap_or(u32::MAX);
                self.puller = Puller::Task(place);
                let task = self.task(&id, at, value, within);
                self.puller = Puller::Dag;
                graph.task_places.insert(id, place);
                graph.tasks.push(task);
            }
        }
    }

    fn group(&mut self, id: &Arc<str>, key: &Key, node: &Arc<Node>, within: &Within<'_>, graph: &mut RawGraph) {
        if within.depth >= GROUPS_DEEP_MAX {
            self.error(code::YAML_TOO_LARGE, format!("groups are nested more than {GROUPS_DEEP_MAX} deep"), node);
            return;
        }
        let mut fields = Fields::new("Group", node.as_map().unwrap_or_default());
        let after = fields.take("after").map(|node| self.references(node, "`after`", false)).unwrap_or_default();
        let own = fields.take_present("defaults").map(|node| self.defaults(node)).unwrap_or_default();
        if let Some(doc) = fields.take_present("doc") {
            self.text(doc, "`doc`");
        }
        let transaction = self.transaction(&mut fields);
        let tasks = fields.take("tasks");
        fields.finish(LATER, &self.file.clone(), &mut self.diagnostics);
        let place = u32::try_from(graph.groups.len()).unwrap_or(u32::MAX);
        graph.group_places.insert(id.clone(), place);
        graph.groups.push(RawGroup {
            id: id.to_string(),
            at: self.key_span(key),
            parent: within.group,
            after,
            is_transaction: transaction.is_some(),
        });
        let defaults = own.over(within.defaults);
        let inner = Within { prefix: format!("{id}."), group: Some(place), depth: within.depth + 1, defaults: &defaults };
        let first = graph.tasks.len();
        if let Some(tasks) = tasks {
            self.tasks_within(tasks, &inner, graph);
        }
        if let Some(transaction) = transaction {
            self.close_transaction(id, self.key_span(key), place, first, transaction, graph);
        }
    }

    /// Assets that a task updates.
    fn updates(&mut self, node: &Arc<Node>) -> Vec<Arc<str>> {
        let names = self.texts(node, "`updates`");
        names.into_iter().filter_map(|(_, node)| self.asset_name(node)).collect()
    }

    fn references(&mut self, node: &Arc<Node>, what: &str, setup: bool) -> Vec<Reference> {
        let texts = self.texts(node, what);
        texts.into_iter().map(|(name, node)| Reference { name, at: node.span(&self.file), setup }).collect()
    }

    fn task(&mut self, id: &Arc<str>, at: Span, node: &Arc<Node>, within: &Within<'_>) -> RawTask {
        let errors_before = self.diagnostics.len();
        let mut fields = Fields::new("Task", node.as_map().unwrap_or_default());
        let read = self.kind(&mut fields, KINDS, node);
        let mut after = fields.take("after").map(|node| self.references(node, "`after`", false)).unwrap_or_default();
        let own = self.settings(&mut fields);
        let own_rule = own.trigger_rule;
        let for_each = fields.take_entry("for_each");
        let updates = fields.take_present("updates").map(|node| self.updates(node)).unwrap_or_default();
        let doc = fields.take_present("doc").and_then(|node| self.text(node, "`doc`"));
        let role = self.role(&mut fields, &mut after);
        fields.finish(LATER, &self.file.clone(), &mut self.diagnostics);

        let settings = own.over(within.defaults);
        let trigger_rule = self.trigger_rule(role, own_rule, settings.trigger_rule, &at);
        let connection = settings.connection.clone();
        let expands = for_each.map(|(key, node)| self.for_each(key, node, &settings));
        if let Some(read) = &read {
            self.needs_connection(&read.kind, &settings, read.node);
        }
        let occasion =
            |callbacks: &Option<Arc<[Callback]>>| with_connection(callbacks.as_deref().unwrap_or_default(), connection.as_ref());
        let callbacks = Callbacks {
            on_failure: occasion(&settings.on_failure),
            on_retry: occasion(&settings.on_retry),
            on_success: occasion(&settings.on_success),
            on_deadline: Vec::new(),
            on_stuck: Vec::new(),
        };
        self.callbacks_need_connections(&callbacks, &settings);
        let broken = self.diagnostics[errors_before..].iter().any(|diagnostic| self.is_fatal(diagnostic));
        let core = core_settings(&settings, trigger_rule, role, for_each.is_some(), &callbacks, within.group, &updates);
        let source = Source { file: self.file.clone(), line: at.line, column: at.column };
        let body = read.filter(|_| !broken).map(|read| Body {
            kind: read.kind,
            connection,
            execution_timeout: settings.execution_timeout,
            for_each: expands.flatten(),
            callbacks,
            delivery: core.delivery,
            source,
            updates,
            doc: doc.map(|doc| doc.to_string()),
        });
        RawTask { id: id.to_string(), at, group: within.group, after, settings: core, body }
    }

    /// `setup: true`, `teardown: true` or `teardown: [setups]`; the setups become upstreams.
    fn role(&mut self, fields: &mut Fields<'_>, after: &mut Vec<Reference>) -> Role {
        let setup = fields.take_present("setup");
        let teardown = fields.take_present("teardown");
        let fail_run = fields.take_present("on_failure_fail_dagrun");
        let is_setup = setup.and_then(|node| self.boolean(node, "`setup`")).unwrap_or(false);
        let is_teardown = match teardown {
            None => false,
            Some(node) => match node.as_bool() {
                Some(truth) => truth,
                None => {
                    let setups = self.references(node, "`teardown`", true);
                    after.extend(setups);
                    true
                }
            },
        };
        if let (true, true, Some(node)) = (is_setup, is_teardown, teardown) {
            self.error(code::SETUP_TEARDOWN, "a task is a setup or a teardown, not both", node);
        }
        if let (false, Some(node)) = (is_teardown, fail_run) {
            self.error(code::SETUP_TEARDOWN, "`on_failure_fail_dagrun` is a setting of teardowns", node);
        }
        let fails = fail_run.and_then(|node| self.boolean(node, "`on_failure_fail_dagrun`")).unwrap_or(false);
        match (is_setup, is_teardown) {
            (_, true) => Role::Teardown { on_failure_fail_dagrun: fails },
            (true, false) => Role::Setup,
            (false, false) => Role::Work,
        }
    }

    fn trigger_rule(&mut self, role: Role, own: Option<TriggerRule>, all: Option<TriggerRule>, at: &Span) -> TriggerRule {
        match role {
            Role::Work | Role::Setup => all.unwrap_or_default(),
            Role::Teardown { .. } => {
                if own.is_some_and(|rule| rule != TriggerRule::AllDoneSetupSuccess) {
                    let message = "a teardown's trigger rule is all_done_setup_success";
                    let diagnostic = Diagnostic::error(code::SETUP_TEARDOWN, message, at.clone());
                    self.diagnostics.push(diagnostic.hint("remove `trigger_rule`"));
                }
                TriggerRule::AllDoneSetupSuccess
            }
        }
    }

    fn for_each(&mut self, key: &Key, node: &Arc<Node>, settings: &Defaults) -> Option<ForEach> {
        match &node.value {
            Value::List(_) => match self.json(node) {
                serde_json::Value::Array(items) => Some(ForEach::List(items, node.source(&self.file))),
                _ => None,
            },
            Value::Scalar { .. } => {
                let template = self.template(node, "`for_each`")?;
                if !crate::template::is_template(&template.text) {
                    let hint = "write a list, a template such as `\"{{ params.regions }}\"`, or `{sql: SELECT ...}`";
                    self.error_with_hint(code::WRONG_TYPE, "`for_each` is no list", node, hint);
                    return None;
                }
                Some(ForEach::Expression(template))
            }
            Value::Map(entries) => {
                let mut fields = Fields::new("ForEachRows", entries);
                let sql = fields.take_present("sql").map(|node| self.sql(node, true));
                let parameters = fields.take_present("parameters").map(|node| self.parameters(node, "`parameters`"));
                let (own, unclear) = self.connection_of(&mut fields);
                fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
                let at = self.key_span(key);
                let Some(connection) = own.or_else(|| settings.connection.clone()) else {
                    if !unclear && !settings.connection_unclear {
                        self.diagnostics.push(no_connection("`for_each` runs SQL, and has no connection", at));
                    }
                    return None;
                };
                let Some(sql) = sql else {
                    self.error(code::MISSING_KEY, "`for_each` needs `sql`", node);
                    return None;
                };
                Some(ForEach::Rows { sql: sql?, connection, parameters: parameters.unwrap_or_default() })
            }
        }
    }

    fn needs_connection(&mut self, kind: &Kind, settings: &Defaults, node: &Node) {
        let needs = match kind {
            Kind::Sql(_) | Kind::Check(_) => true,
            Kind::Branch(branch) => matches!(branch.decide, BranchBy::Sql { .. }),
            Kind::Sensor(sensor) => matches!(sensor.look, SensorBy::Sql { .. }),
            Kind::Shell(_) | Kind::Python(_) | Kind::Http(_) | Kind::Dag(_) | Kind::WaitFor(_) | Kind::Empty => false,
            // Of the tasks that it commits.
            Kind::Commit(_) => false,
        };
        if needs {
            self.usable(settings.connection.as_ref(), settings, "the task", node.span(&self.file));
        }
    }

    /// Reports a connection that is missing, or that cannot be used and was inherited; one given in this file was reported where it stands.
    fn usable(&mut self, connection: Option<&String>, settings: &Defaults, what: &str, at: Span) {
        let diagnostic = match connection {
            None if settings.connection_unclear => return,
            None => no_connection(&format!("{what} runs SQL, and has no connection"), at),
            Some(id) if self.scope.connections.get(id) == Some(&true) => return,
            // With such a default no DAG is loaded, and backstop.yaml was told of it.
            Some(id) if self.told_of_connection(id) || self.scope.defaults.connection.as_ref() == Some(id) => return,
            Some(id) => Diagnostic::error(
                code::UNKNOWN_CONNECTION,
                format!("{what} inherits connection `{id}`, which cannot be used"),
                at,
            )
            .hint("mend the connection first: it is reported on its own"),
        };
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    fn callbacks_need_connections(&mut self, callbacks: &Callbacks, settings: &Defaults) {
        let ends = callbacks.on_failure.iter().chain(&callbacks.on_retry).chain(&callbacks.on_success);
        let all = ends.chain(&callbacks.on_deadline).chain(&callbacks.on_stuck);
        for callback in all.filter(|callback| matches!(callback.kind, Kind::Sql(_))) {
            let source = &callback.source;
            let at = Span { file: source.file.clone(), line: source.line, column: source.column, length: 1 };
            self.usable(callback.connection.as_ref(), settings, "the callback", at);
        }
    }

    /// Callbacks of the run as a whole.
    pub(crate) fn run_callbacks(&mut self, fields: &mut Fields<'_>, defaults: &Defaults) -> Callbacks {
        let connection = defaults.connection.as_ref();
        let on_failure = fields.take("on_failure").map(|node| self.callbacks(node, "`on_failure`")).unwrap_or_default();
        let on_success = fields.take("on_success").map(|node| self.callbacks(node, "`on_success`")).unwrap_or_default();
        let on_deadline = fields.take("on_deadline").map(|node| self.callbacks(node, "`on_deadline`")).unwrap_or_default();
        let on_stuck = fields.take("on_stuck").map(|node| self.callbacks(node, "`on_stuck`")).unwrap_or_default();
        let callbacks = Callbacks {
            on_failure: with_connection(&on_failure, connection),
            on_retry: Vec::new(),
            on_success: with_connection(&on_success, connection),
            on_deadline: with_connection(&on_deadline, connection),
            on_stuck: with_connection(&on_stuck, connection),
        };
        self.callbacks_need_connections(&callbacks, defaults);
        callbacks
    }
}

fn no_connection(message: &str, at: Span) -> Diagnostic {
    Diagnostic::error(code::NO_CONNECTION, message, at)
        .hint("add `connection: <id>` to the task or to the DAG; `backstop connections list` shows the ids")
}

fn core_settings(
    settings: &Defaults,
    trigger_rule: TriggerRule,
    role: Role,
    mapped: bool,
    callbacks: &Callbacks,
    group: Option<u32>,
    updates: &[Arc<str>],
) -> TaskSettings {
    // Airflow's default wait between tries.
    const RETRY_DELAY: Duration = Duration::from_secs(300);
    TaskSettings {
        trigger_rule,
        retry: RetryPolicy {
            retries: settings.retries.unwrap_or(0),
            retry_delay: settings.retry_delay.unwrap_or(RETRY_DELAY),
            exponential: settings.retry_exponential_backoff.flatten(),
            retry_delay_max: settings.max_retry_delay,
        },
        role,
        mapped,
        pool: settings.pool.unwrap_or(0),
        pool_slots: settings.pool_slots.unwrap_or(1),
        priority_weight: settings.priority_weight.unwrap_or(1),
        weight_rule: settings.weight_rule.unwrap_or(WeightRule::Downstream),
        delivery: settings.delivery.unwrap_or_default(),
        hooks: hooks(callbacks),
        group,
        updates: updates.into(),
    }
}

/// How many callbacks each occasion has.
pub(crate) fn hooks(callbacks: &Callbacks) -> Hooks {
    let count = |callbacks: &Vec<Callback>| u32::try_from(callbacks.len()).unwrap_or(u32::MAX);
    Hooks {
        on_failure: count(&callbacks.on_failure),
        on_retry: count(&callbacks.on_retry),
        on_success: count(&callbacks.on_success),
        on_deadline: count(&callbacks.on_deadline),
        on_stuck: count(&callbacks.on_stuck),
    }
}
