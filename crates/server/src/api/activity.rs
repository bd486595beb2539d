//! What runs on users' databases now, and how running statements looked before.

use super::Page;
use super::operate::instance;
use super::runs::find;
use crate::Problem;
use crate::wire::activity::{Kept, Now};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use backstop_runtime::service::Service;
use std::sync::Arc;

/// Lists every statement that runs now, the longest first. What is told of those that run for less than two seconds is their time alone.
#[utoipa::path(get, path = "/activity", operation_id = "list_activity", tag = "runs",
    responses(
        (status = 200, body = Now<'static>),
    ))]
pub(super) async fn activity(State(service): State<Arc<Service>>) -> Response {
    let monitor = service.monitor();
    let running = monitor.activity();
    Json(Now::new(&running, monitor.limits())).into_response()
}

/// Lists the samples of a task instance, over all its tries: how its statements looked while they ran.
#[utoipa::path(get, path = "/runs/{run}/tasks/{task}/samples", operation_id = "list_samples", tag = "runs", params(("run" = String, Path, description = "The run's id"), ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task")),
    responses(
        (status = 200, body = Page<Kept<'static>>),
    ))]
pub(super) async fn samples(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let instance = instance(&task)?;
    let known = service.store().instances(&row.header.run_id).await?;
    if known.iter().all(|row| row.instance != instance) {
        return Err(Problem::not_found(format!("there is no task instance `{instance}` in run `{}`", row.header.run_id)));
    }
    let found = service.store().samples(&row.header.run_id, &instance).await?;
    let items: Vec<Kept<'_>> = found.iter().map(Kept::from).collect();
    Ok(Json(Page { items, next: None }).into_response())
}
