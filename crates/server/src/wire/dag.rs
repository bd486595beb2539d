//! DAGs, as machines read them.

use backstop_runtime::service::{DagEntry, Diagnostic, Service, Severity};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use utoipa::ToSchema;

/// A DAG in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Dag {
    /// Its name.
    dag: String,
    /// In the author's words.
    #[schema(required)]
    description: Option<String>,
    /// In the author's words.
    tags: Vec<String>,
    /// The project it stands in.
    project: String,
    /// Its file, from the project's folder.
    file: String,
    /// As it is written; null of a DAG that is only asked for.
    #[schema(required)]
    schedule: Option<String>,
    /// The IANA time zone that its schedule is in.
    timezone: String,
    /// When it runs next by itself; of a paused DAG, when it would. In the past where that run is due and not made yet.
    #[schema(required)]
    next_run_at: Option<Timestamp>,
    /// Which data that run is about.
    #[schema(required)]
    next_logical_date: Option<Timestamp>,
    /// Assets that must still be updated before it runs by them; empty when it waits for none.
    missing_assets: Vec<String>,
    /// Why no run of it is made now, in a sentence, where there is more to it than the time: it waits for assets, has as many runs as it
    /// may have (`max_active_runs`), or its runs cannot be made.
    #[schema(required)]
    not_scheduled_because: Option<String>,
    /// Runs of it that may go on at once.
    max_active_runs: u32,
    /// Nothing of it is begun.
    paused: bool,
    /// Its file is broken now: this is its last good version.
    stale: bool,
    /// What is wrong with its file: the first of it, in a sentence. Null where nothing is.
    #[schema(required)]
    broken: Option<String>,
    /// SHA-256 of its sources, hex.
    version: String,
    /// How many tasks it has.
    tasks: usize,
}

impl Dag {
    pub(crate) fn new(service: &Service, entry: &DagEntry, paused: bool) -> Self {
        let definition = &entry.definition;
        let next = service.next_tick(entry);
        let missing_assets = service.missing_assets(definition.dag.id());
        Self {
            dag: definition.dag.id().to_string(),
            description: definition.description.clone(),
            tags: definition.tags.clone(),
            project: entry.project.name.clone(),
            file: definition.file.to_string(),
            schedule: definition.schedule.clone(),
            timezone: definition.timezone.clone(),
            next_run_at: next.as_ref().map(|tick| tick.run_after),
            next_logical_date: next.as_ref().map(|tick| tick.logical_date),
            not_scheduled_because: service.why_no_run(entry),
            missing_assets,
            max_active_runs: definition.max_active_runs,
            paused,
            stale: entry.is_stale,
            broken: entry.is_stale.then(|| service.catalog().broken(definition.dag.id().as_str())).flatten(),
            version: definition.version.clone(),
            tasks: definition.dag.tasks().len(),
        }
    }
}

/// A DAG with its parameters and its tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DagDetail {
    #[serde(flatten)]
    dag: Dag,
    /// What a run of it may be given.
    params: Vec<Param>,
    /// Its tasks, in the order of the file.
    graph: Vec<DagTask>,
}

impl DagDetail {
    pub(crate) fn new(service: &Service, entry: &DagEntry, paused: bool) -> Self {
        let definition = &entry.definition;
        let redactor = service.redactor();
        // By its name, too: `{name: value}`, as a run has it.
        let shown = |name: &str, value: Value| {
            let masked = redactor.clean_named(&Value::Object([(name.to_owned(), value)].into_iter().collect()));
            masked.as_object().and_then(|fields| fields.values().next()).cloned().unwrap_or_default()
        };
        let params = definition.params.iter().map(|param| Param {
            name: param.name.clone(),
            r#type: format!("{:?}", param.kind).to_lowercase(),
            default: shown(&param.name, param.default.clone().unwrap_or_default()),
            choices: param.choices.iter().map(|choice| shown(&param.name, choice.clone())).collect(),
            description: param.description.clone(),
        });
        let graph = definition.dag.tasks().iter().zip(&definition.bodies).map(|(task, body)| DagTask {
            task: task.id.to_string(),
            kind: body.kind.name(),
            after: task.upstream.iter().map(|up| definition.dag.task(*up).id.to_string()).collect(),
            trigger_rule: task.settings.trigger_rule.as_str(),
            retries: task.settings.retry.retries,
            pool: definition.dag.pools().get(task.settings.pool as usize).map(|pool| pool.name.clone()),
        });
        Self { dag: Dag::new(service, entry, paused), params: params.collect(), graph: graph.collect() }
    }
}

/// A parameter of a DAG.
#[derive(Debug, Serialize, ToSchema)]
struct Param {
    /// Its name.
    name: String,
    /// Its type.
    #[schema(value_type = ParamType)]
    r#type: String,
    /// Used when none is given; null when it must be given, or when null is the default. `***` stands for a secret.
    default: Value,
    /// The allowed values; empty is all.
    choices: Vec<Value>,
    /// For people.
    #[schema(required)]
    description: Option<String>,
}

/// The types of parameters.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it names the values of a text for the OpenAPI document")]
enum ParamType {
    String,
    Integer,
    Number,
    Boolean,
    Date,
    Timestamp,
    List,
    Json,
}

/// A task of a DAG, with what it waits for.
#[derive(Debug, Serialize, ToSchema)]
struct DagTask {
    /// Its name.
    task: String,
    /// What it does: the key in the YAML, such as `sql`.
    kind: &'static str,
    /// The tasks right before it.
    after: Vec<String>,
    /// How these must have ended.
    trigger_rule: &'static str,
    /// Tries after the first.
    retries: u32,
    /// The pool whose slots it takes.
    #[schema(required)]
    pool: Option<String>,
}

/// Something that is wrong with a project's files.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Finding {
    /// Which kind, see the diagnostics; null of two DAGs with one name.
    #[schema(required)]
    code: Option<String>,
    /// An error leaves its DAG out, or at its last good version.
    severity: Weight,
    /// What is wrong.
    message: String,
    /// The project's folder.
    project: String,
    /// From the project's folder.
    #[schema(required)]
    file: Option<String>,
    /// From 1.
    #[schema(required)]
    line: Option<u32>,
    /// From 1.
    #[schema(required)]
    column: Option<u32>,
    /// How many characters from there.
    #[schema(required)]
    length: Option<u32>,
    /// Other places that belong to it.
    labels: Vec<Label>,
    /// What to do next.
    #[schema(required)]
    hint: Option<String>,
}

impl Finding {
    pub(crate) fn new(diagnostic: &Diagnostic, project: &Path) -> Self {
        let place = diagnostic.place.as_ref();
        let labels = diagnostic.labels.iter().map(|(at, text)| Label {
            file: at.file.to_string(),
            line: at.line,
            column: at.column,
            length: at.length,
            text: text.clone(),
        });
        Self {
            code: Some(diagnostic.code.to_owned()),
            severity: match diagnostic.severity {
                Severity::Error => Weight::Error,
                Severity::Warning => Weight::Warning,
            },
            message: diagnostic.message.clone(),
            project: project.to_string_lossy().into_owned(),
            file: place.map(|at| at.file.to_string()),
            line: place.map(|at| at.line),
            column: place.map(|at| at.column),
            length: place.map(|at| at.length),
            labels: labels.collect(),
            hint: diagnostic.hint.clone(),
        }
    }

    /// Two projects have a DAG of this name.
    pub(crate) fn double(dag: &str, first: &Path, second: &Path) -> Self {
        Self {
            code: None,
            severity: Weight::Error,
            message: format!("DAG `{dag}` is in two projects; that of {} is used", first.display()),
            project: second.to_string_lossy().into_owned(),
            file: None,
            line: None,
            column: None,
            length: None,
            labels: Vec::new(),
            hint: Some("rename one of them".to_owned()),
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Severity)]
enum Weight {
    Error,
    Warning,
}

/// A place that belongs to a finding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Label {
    /// From the project's folder.
    file: String,
    /// From 1.
    line: u32,
    /// From 1.
    column: u32,
    /// How many characters from there.
    length: u32,
    /// What it has to do with it.
    text: String,
}
