//! Backfills: ask for one, see what it would do and how it stands, pause and cancel.

use super::{Body, By, Page, Path, Query, rows};
use crate::{Problem, wire};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_core::backfill::{RUNS_AT_ONCE, Reprocess, Span};
use backstop_runtime::service::Service;
use backstop_runtime::service::backfill::{NewBackfill, Wish};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The word for what becomes of dates that have a run.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Reprocess)]
enum Existing {
    #[default]
    None,
    Failed,
    Completed,
}

impl From<Existing> for Reprocess {
    fn from(existing: Existing) -> Self {
        match existing {
            Existing::None => Self::None,
            Existing::Failed => Self::Failed,
            Existing::Completed => Self::Completed,
        }
    }
}

/// A backfill that is asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewBackfill)]
pub(super) struct Wanted {
    /// The first logical date.
    from: Timestamp,
    /// The last, inclusive.
    to: Timestamp,
    /// What becomes of dates that have a run.
    #[serde(default)]
    reprocess: Existing,
    /// The latest date first.
    #[serde(default)]
    reverse: bool,
    /// Runs of it at once; 10 when not given.
    #[schema(minimum = 1, maximum = 100)]
    max_active_runs: Option<u32>,
    /// Of its runs, by name; defaults are filled in.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, Value>)]
    params: Map<String, Value>,
    /// Asked for twice with one id, it is made once.
    #[schema(min_length = 8, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{7,63}$")]
    backfill_id: Option<String>,
    /// Only say what it would do.
    #[serde(default)]
    dry_run: bool,
    /// Of a dry run: only what comes behind this date.
    after: Option<Timestamp>,
    /// Of a dry run: dates listed; 50 by default.
    #[schema(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    #[serde(flatten)]
    by: By,
}

/// Asks for a backfill: one run for each time of the schedule in a range of dates.
#[utoipa::path(post, path = "/dags/{dag}/backfills", operation_id = "start_backfill", tag = "backfills", params(("dag" = String, Path, description = "The DAG's name")),
    request_body = Wanted, responses(
        (status = 201, description = "It is kept, and goes on by itself", body = wire::backfill::Backfill<'static>, headers(("Location" = String, description = "The backfill"))),
        (status = 200, description = "What it would do, of a dry run; else the same request made it before", body = wire::backfill::Asked),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn ask(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<Wanted>,
) -> Result<Response, Problem> {
    let new = NewBackfill {
        id: wanted.backfill_id.map(|id| super::name("backfill_id", id)).transpose()?,
        dag,
        span: Span { from: wanted.from, to: wanted.to, reverse: wanted.reverse },
        reprocess: wanted.reprocess.into(),
        runs_at_once: wanted.max_active_runs.unwrap_or(RUNS_AT_ONCE),
        params: wanted.params,
    };
    if wanted.dry_run {
        let limit = rows(wanted.limit)? as usize;
        let preview = service.preview(&new, wanted.after, limit).await?;
        return Ok(Json(wire::backfill::Preview::from(&preview)).into_response());
    }
    let (shown, is_new) = service.backfill(new, &wanted.by.into()).await?;
    let location = format!("/api/v1/backfills/{}", shown.id);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(header::LOCATION, location)], Json(wire::backfill::Backfill::new(&shown, &service.redactor()))).into_response())
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Filter {
    /// Only of this DAG.
    dag: Option<String>,
    /// Only those that are not over.
    unfinished: bool,
    /// The cursor: only what is older than this.
    before: Option<String>,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Backfills, newest first.
#[utoipa::path(get, path = "/backfills", operation_id = "list_backfills", tag = "backfills", params(Filter),
    responses((status = 200, body = Page<wire::backfill::Backfill<'static>>)))]
pub(super) async fn list(State(service): State<Arc<Service>>, Query(wanted): Query<Filter>) -> Result<Response, Problem> {
    let limit = rows(wanted.limit)? as usize;
    let all = service.backfills().await?;
    let behind = match &wanted.before {
        None => 0,
        Some(id) => all.iter().position(|shown| shown.id == *id).map(|place| place + 1).ok_or_else(|| {
            Problem::bad_request(format!("`before` is `{id}`, which is no backfill: begin again without a cursor"))
        })?,
    };
    let is_wanted = |shown: &&backstop_runtime::service::backfill::ShownBackfill| {
        wanted.dag.as_ref().is_none_or(|dag| *dag == shown.backfill.dag)
            && !(wanted.unfinished && shown.backfill.ended_at.is_some())
    };
    let mut found = all[behind..].iter().filter(is_wanted);
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let next = found.next().and(page.last()).map(|shown| shown.id.clone());
    let redactor = service.redactor();
    let items: Vec<_> = page.into_iter().map(|shown| wire::backfill::Backfill::new(shown, &redactor)).collect();
    Ok(Json(Page { items, next }).into_response())
}

/// How far a backfill is, and why not further.
#[utoipa::path(get, path = "/backfills/{backfill}", operation_id = "get_backfill", tag = "backfills", params(("backfill" = String, Path, description = "The backfill's id")),
    responses((status = 200, body = wire::backfill::Backfill<'static>)))]
pub(super) async fn show(State(service): State<Arc<Service>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let shown = service.one_backfill(&id).await?;
    Ok(Json(wire::backfill::Backfill::new(&shown, &service.redactor())).into_response())
}

/// Makes no more runs of a backfill for now; what goes on goes on.
#[utoipa::path(post, path = "/backfills/{backfill}/pause", operation_id = "pause_backfill", tag = "backfills", params(("backfill" = String, Path, description = "The backfill's id")), request_body = By,
    responses(
        (status = 200, body = wire::backfill::Backfill<'static>),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn pause(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    by: Body<By>,
) -> Result<Response, Problem> {
    steer(&service, &id, Wish::Pause, false, by.0).await
}

/// Lets a paused backfill go on.
#[utoipa::path(post, path = "/backfills/{backfill}/resume", operation_id = "resume_backfill", tag = "backfills", params(("backfill" = String, Path, description = "The backfill's id")), request_body = By,
    responses(
        (status = 200, body = wire::backfill::Backfill<'static>),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn resume(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    by: Body<By>,
) -> Result<Response, Problem> {
    steer(&service, &id, Wish::Run, false, by.0).await
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = CancelBackfill)]
pub(super) struct Cancel {
    /// Cancel its runs that go on, too.
    cancel_runs: bool,
    #[serde(flatten)]
    by: By,
}

/// Makes no more runs of a backfill; those that have not begun are cancelled.
#[utoipa::path(post, path = "/backfills/{backfill}/cancel", operation_id = "cancel_backfill", tag = "backfills", params(("backfill" = String, Path, description = "The backfill's id")), request_body = Cancel,
    responses(
        (status = 200, body = wire::backfill::Backfill<'static>),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    Body(wanted): Body<Cancel>,
) -> Result<Response, Problem> {
    steer(&service, &id, Wish::Cancel, wanted.cancel_runs, wanted.by).await
}

async fn steer(service: &Service, id: &str, wish: Wish, and_runs: bool, by: By) -> Result<Response, Problem> {
    let shown = service.steer_backfill(id, wish, and_runs, &by.into()).await?;
    Ok(Json(wire::backfill::Backfill::new(&shown, &service.redactor())).into_response())
}
