//! Runs: what they are, what they did, why they wait, and steering them.

use super::{Body, By, Page, Query, rows};
use crate::wire::steer::{RunWhy, TaskInstance, TaskWhy};
use crate::{Problem, wire};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_core::{DagId, InstanceId, RunId, RunPhase, TaskId};
use backstop_runtime::service::Service;
use backstop_store::{RunFilter, RunRow};
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Events of a page at most.
const EVENTS_MAX: usize = 1000;

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    /// Only of this DAG.
    dag: Option<String>,
    /// Only runs that are not over.
    unfinished: bool,
    /// Only runs in this state.
    #[param(value_type = Option<wire::names::RunState>)]
    state: Option<String>,
    /// Only runs about this time or later; the list is by logical date then.
    logical_date_from: Option<Timestamp>,
    /// Only runs about this time or earlier.
    logical_date_to: Option<Timestamp>,
    /// The cursor: only runs made before this one.
    before: Option<String>,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

impl Wanted {
    fn filter(self) -> Result<RunFilter, Problem> {
        if let (Some(from), Some(to)) = (self.logical_date_from, self.logical_date_to)
            && from > to
        {
            return Err(Problem::bad_request("`logical_date_from` is after `logical_date_to`"));
        }
        Ok(RunFilter {
            dag: self.dag.map(DagId::new),
            unfinished: self.unfinished,
            phase: self.state.map(|state| phase(&state)).transpose()?,
            dates_from: self.logical_date_from,
            dates_until: self.logical_date_to,
            before: self.before.map(RunId::new),
            limit: rows(self.limit)?,
        })
    }
}

/// The phase of a run by its name.
fn phase(state: &str) -> Result<RunPhase, Problem> {
    RunPhase::ALL.into_iter().find(|phase| phase.as_str() == state).ok_or_else(|| {
        let names: Vec<&str> = RunPhase::ALL.iter().map(|phase| phase.as_str()).collect();
        Problem::bad_request(format!("`state` is `{state}`, and must be one of {}", names.join(", ")))
    })
}

/// A cursor that no list gave.
pub(super) fn bad_cursor(error: backstop_store::Error) -> Problem {
    match error.kind {
        backstop_store::ErrorKind::NotFound => {
            Problem::bad_request("the cursor is not a place in this list: take it from `next` of the same list")
        }
        _ => error.into(),
    }
}

/// Runs, newest first; by logical date where dates are asked for.
#[utoipa::path(get, path = "/runs", operation_id = "list_runs", tag = "runs", params(Wanted),
    responses(
        (status = 200, body = Page<wire::Run<'static>>),
    ))]
pub(super) async fn list(State(service): State<Arc<Service>>, Query(wanted): Query<Wanted>) -> Result<Response, Problem> {
    let filter = wanted.filter()?;
    let limit = filter.limit;
    let found = service.store().runs(&filter).await.map_err(bad_cursor)?;
    let next = (found.len() == limit as usize).then(|| found.last().map(|row| row.header.run_id.to_string())).flatten();
    let items = found.iter().map(|row| wire::Run::new(row, false)).collect();
    Ok(Json(Page { items, next }).into_response())
}

pub(super) async fn find(service: &Service, run: String) -> Result<RunRow, Problem> {
    let run = RunId::new(run);
    service.store().run(&run).await?.ok_or_else(|| Problem::not_found(format!("there is no run `{run}`")))
}

/// One run.
#[utoipa::path(get, path = "/runs/{run}", operation_id = "get_run", tag = "runs", params(("run" = String, Path, description = "The run's id")),
    responses(
        (status = 200, body = wire::Run<'static>),
    ))]
pub(super) async fn show(State(service): State<Arc<Service>>, Path(run): Path<String>) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let tag = format!("W/\"{}-{}\"", row.epoch, row.version);
    Ok(([(header::ETAG, tag)], Json(wire::Run::new(&row, false))).into_response())
}

/// The task instances of a run, in the order they were first seen.
#[utoipa::path(get, path = "/runs/{run}/tasks", operation_id = "list_task_instances", tag = "runs", params(("run" = String, Path, description = "The run's id")),
    responses(
        (status = 200, body = Page<TaskInstance>),
    ))]
pub(super) async fn tasks(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
) -> Result<Json<Page<TaskInstance>>, Problem> {
    let row = find(&service, run).await?;
    let instances = service.store().instances(&row.header.run_id).await?;
    Ok(Json(Page { items: instances.into_iter().map(TaskInstance::from).collect(), next: None }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfTask {
    /// Only of this task.
    task: Option<String>,
}

/// The statements of a run, in the order they ran.
#[utoipa::path(get, path = "/runs/{run}/statements", operation_id = "list_statements", tag = "runs", params(("run" = String, Path, description = "The run's id"), OfTask),
    responses(
        (status = 200, body = Page<wire::Statement<'static>>),
    ))]
pub(super) async fn statements(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Query(of): Query<OfTask>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let found = service.store().statements(&row.header.run_id, of.task.as_deref()).await?;
    let items: Vec<wire::Statement<'_>> = found.iter().map(wire::Statement::from).collect();
    Ok(Json(Page { items, next: None }).into_response())
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct After {
    /// The cursor: only events behind this one.
    after: u64,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The log of a run.
#[utoipa::path(get, path = "/runs/{run}/events", operation_id = "list_events", tag = "runs", params(("run" = String, Path, description = "The run's id"), After),
    responses(
        (status = 200, body = Page<wire::EventLine<'static>>),
    ))]
pub(super) async fn events(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Query(wanted): Query<After>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let limit = (rows(wanted.limit)? as usize).min(EVENTS_MAX);
    let found = service.store().events(&row.header.run_id, wanted.after, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|recorded| recorded.seq.to_string())).flatten();
    let items: Vec<_> = found.iter().map(|recorded| wire::EventLine::new(&row.header.run_id, recorded)).collect();
    Ok(Json(Page { items, next }).into_response())
}

/// Why a run is not further: how it stands, and why each instance of it that is not done does not run.
#[utoipa::path(get, path = "/runs/{run}/why", operation_id = "explain_run", tag = "runs", params(("run" = String, Path, description = "The run's id"), OfTask),
    responses(
        (status = 200, body = RunWhy),
    ))]
pub(super) async fn why(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Query(of): Query<OfTask>,
) -> Result<Json<RunWhy>, Problem> {
    let row = find(&service, run).await?;
    let only = of.task.as_deref().map(super::operate::instance).transpose()?;
    let told = service.why_run(&row, only).await?;
    let tasks = told.tasks.into_iter().map(TaskWhy::from).collect();
    Ok(Json(RunWhy { run_id: row.header.run_id.to_string(), state: row.state, why: told.why, tasks, more: told.more }))
}

/// Cancels a run: what is running is killed on its server.
#[utoipa::path(post, path = "/runs/{run}/cancel", operation_id = "cancel_run", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = By,
    responses(
        (status = 202, body = wire::Run<'static>),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(by): Body<By>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    service.cancel(&row.header.run_id, &by.into()).await?;
    let row = find(&service, row.header.run_id.to_string()).await?;
    Ok((StatusCode::ACCEPTED, Json(wire::Run::new(&row, false))).into_response())
}

/// What became of an attempt in doubt.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolution {
    /// Its task.
    task: String,
    /// Which instance of a mapped task, from 0.
    map_index: Option<u32>,
    /// Whether what the attempt was doing took effect.
    took_effect: bool,
    /// Who; `api` when nobody says.
    who: Option<String>,
    /// How they know.
    #[schema(min_length = 1, pattern = r"\S")]
    why: String,
}

/// Says what became of an attempt in doubt.
#[utoipa::path(post, path = "/runs/{run}/resolve", operation_id = "resolve_doubt", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = Resolution,
    responses(
        (status = 202, body = wire::Run<'static>),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn resolve(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(said): Body<Resolution>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let instance = InstanceId { task: TaskId::new(said.task), map_index: said.map_index };
    let by = By { who: said.who, why: Some(said.why) };
    service.resolve(&row.header.run_id, instance, said.took_effect, &by.into()).await?;
    let row = find(&service, row.header.run_id.to_string()).await?;
    Ok((StatusCode::ACCEPTED, Json(wire::Run::new(&row, false))).into_response())
}
