//! What all attempts of a run share, and what their templates see.

use super::Results;
use super::neighbours::Began;
use super::transaction::Transactions;
use crate::clock::Clock;
use crate::logs::Logs;
use crate::others::Others;
use crate::redact::Redactor;
use crate::sessions::Sessions;
use crate::watch::Watcher;
use backstop_core::event::{Failure, RunHeader, RunType};
use backstop_core::{InstanceId, TaskId};
use backstop_project::context::Context;
use backstop_project::definition::{Definition, Project};
use backstop_project::template::Renderer;
use serde_json::{Map, Value as Json, json};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What all attempts of a run share.
pub(crate) struct Shared {
    /// Transactions that its tasks share.
    pub(crate) transactions: Transactions,
    /// Connections and variables.
    pub(crate) project: Arc<Project>,
    /// The DAG.
    pub(crate) definition: Arc<Definition>,
    /// Its templates.
    pub(crate) renderer: Arc<Renderer>,
    /// Open sessions.
    pub(crate) sessions: Arc<Sessions>,
    /// Log files.
    pub(crate) logs: Logs,
    /// Masks secrets.
    pub(crate) redactor: Arc<Redactor>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Who looks on.
    pub(crate) watcher: Arc<dyn Watcher>,
    /// What the run is.
    pub(crate) header: Arc<RunHeader>,
    /// The header's parameters, parsed.
    pub(crate) params: Map<String, Json>,
    /// When the run began, with what was beside it then; nothing before that.
    pub(crate) began: OnceLock<Began>,
    /// Results of tasks.
    pub(crate) results: Results,
    /// Runs of other DAGs, where they are known.
    pub(crate) others: Option<Arc<dyn Others>>,
    /// False in the first process of a run: then no marker of it can exist before it is written.
    pub(crate) was_interrupted: bool,
    /// For files that live as long as an attempt.
    pub(crate) scratch: PathBuf,
}

impl Shared {
    /// What a failure looks like to templates of callbacks.
    fn failure_json(failure: &Failure) -> Json {
        json!({
            "message": failure.message,
            "causes": failure.causes,
            "file": failure.place.as_ref().map(|place| &place.file),
            "line": failure.place.as_ref().map(|place| place.line),
            "column": failure.place.as_ref().map(|place| place.column),
            "statement": failure.place.as_ref().and_then(|place| place.statement),
            "sqlstate": failure.sqlstate,
            "native_code": failure.native_code,
            "effect": failure.effect,
            "hint": failure.hint,
        })
    }
}

/// What templates see of their run.
pub(crate) struct Seen<'a> {
    pub(crate) header: &'a RunHeader,
    pub(crate) definition: &'a Definition,
    /// The header's parameters, parsed.
    pub(crate) params: Map<String, Json>,
    pub(crate) began: Option<&'a Began>,
    pub(crate) results: Results,
}

/// The parameters of a run, parsed.
pub(crate) fn params_of(header: &RunHeader) -> Map<String, Json> {
    match serde_json::from_str(&header.params) {
        Ok(Json::Object(params)) => params,
        _ => Map::new(),
    }
}

/// What the templates of an instance (or, without one, of the run as a whole) see.
pub(crate) fn template_context(
    shared: &Shared,
    instance: Option<&InstanceId>,
    try_number: u32,
    item: Option<Json>,
    failure: Option<&Failure>,
) -> Context {
    let seen = Seen {
        header: &shared.header,
        definition: &shared.definition,
        params: shared.params.clone(),
        began: shared.began.get(),
        results: shared.results.clone(),
    };
    seen.context(instance, try_number, item, failure)
}

impl Seen<'_> {
    /// As [`template_context`].
    pub(crate) fn context(
        self,
        instance: Option<&InstanceId>,
        try_number: u32,
        item: Option<Json>,
        failure: Option<&Failure>,
    ) -> Context {
        let Self { header, definition, params, began, results } = self;
        let task = instance.map_or("", |instance| instance.task.as_str());
        let mut context = Context::new(header.run_id.as_str(), header.dag_id.as_str(), task);
        context.run_type = match header.run_type {
            RunType::Manual => "manual",
            RunType::Scheduled => "scheduled",
            RunType::Backfill => "backfill",
            RunType::AssetTriggered => "asset_triggered",
        }
        .to_owned();
        context.map_index = instance.and_then(|instance| instance.map_index);
        context.item = item;
        context.try_number = try_number;
        context.max_tries = instance.map_or(0, |instance| retries(definition, &instance.task));
        context.logical_date = header.logical_date;
        context.data_interval = header.data_interval;
        context.run_start = Some(began.map_or(header.queued_at, |began| began.at));
        let success = began.and_then(|began| began.success.as_ref());
        context.previous_success = success.and_then(|success| success.interval);
        context.previous_success_start = success.and_then(|success| success.began_at);
        (context.previous_logical_date, context.next_logical_date) = began.map_or((None, None), |began| began.ticks);
        context.params = params;
        context.exception = failure.map(|failure| failure.message.clone());
        context.failure = failure.map(Shared::failure_json);
        context.xcom = Arc::new(move |task, index| results.get(task, index));
        context
    }
}

fn retries(definition: &Definition, task: &TaskId) -> u32 {
    let dag = &definition.dag;
    dag.index(task.as_str()).map_or(0, |place| dag.task(place).settings.retry.retries)
}

/// The context as JSON, for subprocesses: Airflow's names. No connection is in it.
pub(crate) fn context_json(shared: &Shared, context: &Context) -> Json {
    let date = context.logical_date.map(|date| date.to_string());
    json!({
        "run_id": context.run_id,
        "dag_id": context.dag_id,
        "task_id": context.task_id,
        "map_index": context.map_index.map_or(-1, i64::from),
        "item": context.item,
        "try_number": context.try_number,
        "max_tries": context.max_tries,
        "logical_date": date,
        "ts": date,
        "ds": context.logical_date.map(|date| date.to_string()[..10].to_owned()),
        "data_interval_start": context.data_interval.map(|(start, _)| start.to_string()),
        "data_interval_end": context.data_interval.map(|(_, end)| end.to_string()),
        "params": context.params,
        "project_dir": shared.project.root,
        "exception": context.exception,
        "failure": context.failure,
    })
}
