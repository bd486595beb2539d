//! Runs: what they are, what they did, why they wait, and steering them.

use super::{Body, By, Page, Query, rows};
use crate::{Problem, wire};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use backstop_runtime::service::{Service, Standing};
use backstop_store::{InstanceRow, RunFilter, RunRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// Events of a page at most.
const EVENTS_MAX: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    dag: Option<String>,
    /// Only runs that are not over.
    unfinished: bool,
    /// The cursor: only runs made before this one.
    before: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(State(service): State<Arc<Service>>, Query(wanted): Query<Wanted>) -> Result<Response, Problem> {
    let limit = rows(wanted.limit)?;
    let filter = RunFilter {
        dag: wanted.dag.map(DagId::new),
        unfinished: wanted.unfinished,
        before: wanted.before.map(RunId::new),
        limit,
    };
    let found = service.store().runs(&filter).await.map_err(|error| match error.kind {
        backstop_store::ErrorKind::NotFound => Problem::bad_request("`before` is not the id of a run: take it from `next`"),
        _ => error.into(),
    })?;
    let next = (found.len() == limit as usize).then(|| found.last().map(|row| row.header.run_id.to_string())).flatten();
    let items = found.iter().map(|row| wire::Run::new(row, false)).collect();
    Ok(Json(Page { items, next }).into_response())
}

async fn find(service: &Service, run: String) -> Result<RunRow, Problem> {
    let run = RunId::new(run);
    service.store().run(&run).await?.ok_or_else(|| Problem::not_found(format!("there is no run `{run}`")))
}

pub(super) async fn show(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let tag = format!("W/\"{}-{}\"", row.epoch, row.version);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok(([(header::ETAG, tag)], Json(wire::Run::new(&row, false))).into_response())
}

#[derive(Debug, Serialize)]
pub(super) struct Instance {
    task: String,
    map_index: Option<u32>,
    state: String,
    try_number: u32,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    error: Option<String>,
}

impl From<InstanceRow> for Instance {
    fn from(row: InstanceRow) -> Self {
        Self {
            task: row.instance.task.to_string(),
            map_index: row.instance.map_index,
            state: row.state,
            try_number: row.try_number,
            started_at: row.started_at,
            ended_at: row.ended_at,
            error: row.error,
        }
    }
}

pub(super) async fn tasks(State(service): State<Arc<Service>>, Path(run): Path<String>) -> Result<Json<Page<Instance>>, Problem> {
    let row = find(&service, run).await?;
    let instances = service.store().instances(&row.header.run_id).await?;
    Ok(Json(Page { items: instances.into_iter().map(Instance::from).collect(), next: None }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfTask {
    task: Option<String>,
}

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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct After {
    /// The cursor: only events behind this one.
    after: u64,
    limit: Option<u32>,
}

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

/// Why a run is not further: how it stands, and what each instance of it waits for that the service holds back.
pub(super) async fn why(State(service): State<Arc<Service>>, Path(run): Path<String>) -> Result<Json<Value>, Problem> {
    let row = find(&service, run).await?;
    let run = row.header.run_id.clone();
    let standing = service.standing(&run);
    let told = match &standing {
        Standing::Queued(waiting) => waiting.to_string(),
        Standing::Active { since } => format!("it goes on, driven by this service since {since}"),
        Standing::Hindered { why } => format!("it could not be driven, and is tried again: {why}"),
        Standing::Stuck { undecided } => {
            let which: Vec<String> = undecided.iter().map(|(instance, why)| format!("`{instance}`: {why}")).collect();
            format!("a person must say what became of {}", which.join("; "))
        }
        Standing::Unknown if row.ended_at.is_some() => format!("it is over: {}", row.state),
        Standing::Unknown => "another process drives it".into(),
    };
    let instances = service.store().instances(&run).await?;
    let waiting: Vec<Value> = instances
        .iter()
        .filter_map(|row| {
            let shortage = service.slots().shortage(&run, &row.instance)?;
            let holders: Vec<Value> = shortage
                .holders
                .iter()
                .map(|claim| json!({ "run_id": claim.run.as_str(), "task": claim.instance.to_string(), "slots": claim.slots }))
                .collect();
            Some(json!({
                "task": row.instance.task.as_str(),
                "map_index": row.instance.map_index,
                "why": shortage.to_string(),
                "pool": shortage.pool.as_deref(),
                "used": shortage.used,
                "size": shortage.size,
                "holders": holders,
                "waiting": shortage.waiting,
            }))
        })
        .collect();
    Ok(Json(json!({ "run_id": run.as_str(), "state": row.state, "why": told, "waiting": waiting })))
}

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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolution {
    task: String,
    map_index: Option<u32>,
    /// Whether what the attempt was doing took effect.
    took_effect: bool,
    who: Option<String>,
    why: String,
}

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
