//! DAGs: what there is, what is wrong, pausing, triggering.

use super::{Body, By, Page};
use crate::{Problem, wire};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_core::{RunId, TaskId};
use backstop_runtime::service::{DagEntry, Service, Trigger, Triggered};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;

#[derive(Debug, Serialize)]
pub(super) struct Dag {
    dag: String,
    description: Option<String>,
    tags: Vec<String>,
    project: String,
    file: String,
    schedule: Option<String>,
    timezone: String,
    /// When it runs next by itself, and which data that run is about; of a paused DAG, what would be next.
    next_run_at: Option<Timestamp>,
    next_logical_date: Option<Timestamp>,
    /// Why its runs cannot be made, where they cannot.
    not_scheduled_because: Option<String>,
    max_active_runs: u32,
    paused: bool,
    /// Its file is broken now: this is its last good version.
    stale: bool,
    version: String,
    tasks: usize,
}

impl Dag {
    fn new(service: &Service, entry: &DagEntry, paused: bool) -> Self {
        let definition = &entry.definition;
        let next = service.next_tick(entry);
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
            not_scheduled_because: service.unplanned(definition.dag.id()),
            max_active_runs: definition.max_active_runs,
            paused,
            stale: entry.is_stale,
            version: definition.version.clone(),
            tasks: definition.dag.tasks().len(),
        }
    }
}

/// A task, with what it waits for.
#[derive(Debug, Serialize)]
struct Task {
    task: String,
    kind: &'static str,
    after: Vec<String>,
    trigger_rule: String,
    retries: u32,
    pool: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    dag: Dag,
    params: Vec<Value>,
    graph: Vec<Task>,
}

pub(super) async fn list(State(service): State<Arc<Service>>) -> Json<Page<Dag>> {
    let paused = service.paused();
    let catalog = service.catalog();
    let items = catalog.dags().iter().map(|(id, entry)| Dag::new(&service, entry, paused.contains(id))).collect();
    Json(Page { items, next: None })
}

pub(super) async fn show(State(service): State<Arc<Service>>, Path(dag): Path<String>) -> Result<impl IntoResponse, Problem> {
    let entry = service.dag(&dag)?;
    let definition = &entry.definition;
    let graph = definition.dag.tasks().iter().zip(&definition.bodies).map(|(task, body)| Task {
        task: task.id.to_string(),
        kind: body.kind.name(),
        after: task.upstream.iter().map(|up| definition.dag.task(*up).id.to_string()).collect(),
        trigger_rule: task.settings.trigger_rule.as_str().to_owned(),
        retries: task.settings.retry.retries,
        pool: definition.dag.pools().get(task.settings.pool as usize).map(|pool| pool.name.clone()),
    });
    let params = definition.params.iter().map(|param| {
        json!({
            "name": param.name,
            "type": format!("{:?}", param.kind).to_lowercase(),
            "default": param.default,
            "choices": param.choices,
            "description": param.description,
        })
    });
    let paused = service.paused().contains(definition.dag.id());
    let shown = Shown { dag: Dag::new(&service, &entry, paused), params: params.collect(), graph: graph.collect() };
    Ok(([(header::ETAG, format!("W/\"{}-{paused}\"", definition.version))], Json(shown)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    paused: bool,
    who: Option<String>,
    why: Option<String>,
}

pub(super) async fn change(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(change): Body<Change>,
) -> Result<Json<Dag>, Problem> {
    service.pause(&dag, change.paused, &By { who: change.who, why: change.why }.into()).await?;
    let entry = service.dag(&dag)?;
    Ok(Json(Dag::new(&service, &entry, change.paused)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewRun {
    params: Map<String, Value>,
    logical_date: Option<Timestamp>,
    data_interval_start: Option<Timestamp>,
    data_interval_end: Option<Timestamp>,
    tasks: Vec<String>,
    dry_run: bool,
    /// Asked for twice with one id, a run is made once.
    run_id: Option<String>,
    /// Also when there is a run of this DAG about the same logical date.
    again: bool,
    who: Option<String>,
    why: Option<String>,
}

pub(super) async fn trigger(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<NewRun>,
) -> Result<Response, Problem> {
    let data_interval = match (wanted.data_interval_start, wanted.data_interval_end) {
        (None, None) => None,
        (Some(start), Some(end)) if start <= end => Some((start, end)),
        _ => return Err(Problem::bad_request("a data interval has a start and an end that is not before it")),
    };
    let trigger = Trigger {
        dag,
        params: wanted.params,
        logical_date: wanted.logical_date,
        data_interval,
        only_tasks: wanted.tasks.into_iter().map(TaskId::new).collect(),
        dry_run: wanted.dry_run,
        run_id: wanted.run_id.map(run_id).transpose()?,
        again: wanted.again,
    };
    let Triggered { header, is_new } = service.trigger(trigger, &By { who: wanted.who, why: wanted.why }.into()).await?;
    let location = format!("/api/v1/runs/{}", header.run_id);
    let row = service.store().run(&header.run_id).await?;
    let row = row.ok_or_else(|| Problem::not_found(format!("there is no run `{}`", header.run_id)))?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, location)], Json(wire::Run::new(&row, false))).into_response())
}

/// A run's name goes into paths and file names.
fn run_id(text: String) -> Result<RunId, Problem> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (8..=64).contains(&text.len()) && text.chars().all(is_fine) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(RunId::new(text));
    }
    Err(Problem::bad_request("`run_id` has 8 to 64 letters, digits, `-`, `_` or `.`, and begins with a letter or digit"))
}

/// What is wrong with the projects.
pub(super) async fn problems(State(service): State<Arc<Service>>) -> Json<Page<Value>> {
    let catalog = service.catalog();
    let of_files = catalog.troubles().iter().flat_map(|trouble| {
        trouble.diagnostics.iter().map(|diagnostic| {
            let mut shown = diagnostic.to_json();
            shown["project"] = Value::from(trouble.project.to_string_lossy());
            shown
        })
    });
    let doubles = catalog.doubles().iter().map(|(dag, first, second)| {
        json!({
            "severity": "error",
            "message": format!("DAG `{dag}` is in two projects; that of {} is used", first.display()),
            "project": second.to_string_lossy(),
            "hint": "rename one of them",
        })
    });
    Json(Page { items: of_files.chain(doubles).collect(), next: None })
}
