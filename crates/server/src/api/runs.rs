//! Runs: what they are, what they did, why they wait, and steering them.

use super::page::{PAGE_BYTES_MAX, cursor_of, key_of, no_place};
use super::{Because, Body, Page, Path, Query, rows};
use crate::wire::steer::{RunWhy, TaskInstance, TaskWhy};
use crate::{Problem, wire};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_core::{DagId, InstanceId, RunId, RunPhase, TaskId};
use backstop_runtime::service::Service;
use backstop_store::{
    InstanceCursor, InstanceFilter, InstanceRow, RunFilter, RunRow, StatementCursor, StatementFilter, StatementPage,
};
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
    let mut found = service.store().runs(&filter).await.map_err(bad_cursor)?;
    let was_cut = cut(&mut found, PAGE_BYTES_MAX);
    let next =
        (was_cut || found.len() == limit as usize).then(|| found.last().map(|row| row.header.run_id.to_string())).flatten();
    let mut items = Vec::new();
    let redactor = service.redactor();
    for row in &found {
        items.push(wire::Run::new(row, service.is_abandoned(row).await?, &redactor));
    }
    Ok(Json(Page { items, next }).into_response())
}

/// Ends a page before its parameters exceed so many bytes, and behind one run at least; true when runs were left out.
fn cut(found: &mut Vec<RunRow>, bytes_max: usize) -> bool {
    let mut bytes = 0;
    let fits = found.iter().take_while(|row| {
        bytes += row.header.params.len();
        bytes <= bytes_max
    });
    let kept = fits.count().max(1);
    let was_cut = kept < found.len();
    found.truncate(kept);
    was_cut
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
    let abandoned = service.is_abandoned(&row).await?;
    Ok(([(header::ETAG, tag)], Json(wire::Run::new(&row, abandoned, &service.redactor()))).into_response())
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TasksWanted {
    /// Only of this task.
    task: Option<String>,
    /// Only in this state.
    #[param(value_type = Option<wire::names::InstanceState>)]
    state: Option<String>,
    /// The cursor, from `next`.
    after: Option<String>,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// The task instances of a run, by task and map index. A page may be short, or empty, and yet have a `next`.
#[utoipa::path(get, path = "/runs/{run}/tasks", operation_id = "list_task_instances", tag = "runs", params(("run" = String, Path, description = "The run's id"), TasksWanted),
    responses(
        (status = 200, body = Page<TaskInstance>),
    ))]
pub(super) async fn tasks(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Query(wanted): Query<TasksWanted>,
) -> Result<Json<Page<TaskInstance>>, Problem> {
    let run = find(&service, run).await?.header.run_id.clone();
    let place = |cursor: &str| super::operate::instance(key_of(cursor)?).map_err(|_| no_place("after"));
    let after = wanted.after.as_deref().map(place).transpose()?;
    let filter = InstanceFilter {
        run: Some(run.clone()),
        task: wanted.task.map(TaskId::new),
        state: wanted.state.map(super::lists::kept_state).transpose()?,
        after: after.map(|instance| InstanceCursor { run, instance }),
        limit: rows(wanted.limit)?,
        ..InstanceFilter::default()
    };
    let page = service.store().list_instances(&filter).await?;
    let next = page.next.map(|next| cursor_of(&next.instance.to_string()));
    Ok(Json(Page { items: page.rows.into_iter().map(|(_, _, row)| TaskInstance::from(row)).collect(), next }))
}

/// One instance of a run. Does not read the others: there may be 100,000.
pub(super) async fn find_instance(service: &Service, run: &RunId, instance: &InstanceId) -> Result<Option<InstanceRow>, Problem> {
    // Behind what comes right before it.
    let InstanceId { task, map_index } = instance;
    let before = map_index.map(|index| InstanceId { task: task.clone(), map_index: index.checked_sub(1) });
    let filter = InstanceFilter {
        run: Some(run.clone()),
        task: Some(task.clone()),
        after: before.map(|instance| InstanceCursor { run: run.clone(), instance }),
        limit: 1,
        ..InstanceFilter::default()
    };
    let found = service.store().list_instances(&filter).await?.rows.pop();
    Ok(found.map(|(_, _, row)| row).filter(|row| row.instance == *instance))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfTask {
    /// Only of this task.
    task: Option<String>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StatementsWanted {
    /// Only of this task.
    task: Option<String>,
    /// The cursor, from `next`.
    after: Option<String>,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// `EVENT.PLACE`, as `next` gave it.
fn statement_cursor(text: &str) -> Result<StatementCursor, Problem> {
    let parts = key_of(text)?.split_once('.').and_then(|(seq, place)| Some((seq.parse().ok()?, place.parse().ok()?)));
    parts.map(|(seq, place)| StatementCursor { seq, place }).ok_or_else(|| no_place("after"))
}

/// The statements of a run, in the order they ran. A page may be short, or empty, and yet have a `next`.
#[utoipa::path(get, path = "/runs/{run}/statements", operation_id = "list_statements", tag = "runs", params(("run" = String, Path, description = "The run's id"), StatementsWanted),
    responses(
        (status = 200, body = Page<wire::Statement<'static>>),
    ))]
pub(super) async fn statements(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Query(wanted): Query<StatementsWanted>,
) -> Result<Response, Problem> {
    let filter = StatementFilter {
        run: find(&service, run).await?.header.run_id.clone(),
        task: wanted.task.map(TaskId::new),
        after: wanted.after.as_deref().map(statement_cursor).transpose()?,
        limit: rows(wanted.limit)?,
    };
    let StatementPage { rows: found, next } = service.store().list_statements(&filter).await?;
    let items: Vec<wire::Statement<'_>> = found.iter().map(wire::Statement::from).collect();
    Ok(Json(Page { items, next: next.map(|place| cursor_of(&format!("{}.{}", place.seq, place.place))) }).into_response())
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
    // Behind the last event is a place in the log, too: more may come there.
    if wanted.after > row.version {
        return Err(no_place("after"));
    }
    let found = service.store().events(&row.header.run_id, wanted.after, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|recorded| recorded.seq.to_string())).flatten();
    let redactor = service.redactor().of_run(&row.header.params);
    let masked: Vec<_> = found.iter().map(|recorded| redactor.mask(recorded)).collect();
    let items: Vec<_> = masked.iter().map(|recorded| wire::EventLine::new(&row.header.run_id, recorded)).collect();
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
    // It may quote who cancelled the run.
    let why = service.redactor().clean(&told.why).into_owned();
    Ok(Json(RunWhy { run_id: row.header.run_id.to_string(), state: row.state, why, tasks, more: told.more }))
}

/// Cancels a run: what is running is killed on its server.
#[utoipa::path(post, path = "/runs/{run}/cancel", operation_id = "cancel_run", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = Because,
    responses(
        (status = 202, body = wire::Run<'static>),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(by): Body<Because>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    service.cancel(&row.header.run_id, &by.into()).await?;
    let row = find(&service, row.header.run_id.to_string()).await?;
    Ok((StatusCode::ACCEPTED, Json(wire::Run::new(&row, false, &service.redactor()))).into_response())
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
    /// Which segment of its script is meant, from 1; 409 when another one is in doubt. With it, asking again is safe: without it, the
    /// one in doubt is meant, and asking once more behind one that took effect by a person's word is 409.
    segment: Option<u32>,
    /// The reason is how they know.
    #[serde(flatten)]
    because: Because,
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
    service.resolve(&row.header.run_id, instance, said.segment, said.took_effect, &said.because.into()).await?;
    let row = find(&service, row.header.run_id.to_string()).await?;
    Ok((StatusCode::ACCEPTED, Json(wire::Run::new(&row, false, &service.redactor()))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::event::{RunHeader, RunType};

    #[test]
    fn a_page_ends_before_it_is_too_large() {
        let row = |bytes: usize| {
            RunRow::made(Arc::new(RunHeader {
                run_id: RunId::new("r"),
                dag_id: DagId::new("d"),
                project: None,
                version: String::new(),
                logical_date: None,
                data_interval: None,
                queued_at: Timestamp::UNIX_EPOCH,
                run_type: RunType::Manual,
                params: "x".repeat(bytes).into(),
                only_tasks: Vec::new(),
                dry_run: false,
                cause: None,
            }))
        };
        let kept = |sizes: &[usize]| {
            let mut rows: Vec<RunRow> = sizes.iter().map(|size| row(*size)).collect();
            (cut(&mut rows, 10), rows.len())
        };
        assert_eq!((kept(&[4, 6]), kept(&[4, 6, 1]), kept(&[4, 7, 1])), ((false, 2), (true, 2), (true, 1)));
        assert_eq!((kept(&[11]), kept(&[11, 1]), kept(&[])), ((false, 1), (true, 1), (false, 0)));
    }
}
