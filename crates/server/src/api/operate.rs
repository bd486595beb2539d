//! What operators do to a run: clear, retry, mark, cancel one task; and why a task waits.

use super::Body;
use crate::Problem;
use crate::wire::steer::{Acted, InstanceWhy};
use axum::Json;
use axum::extract::{Path, State};
use backstop_core::event::Mark;
use backstop_core::{InstanceId, RunId, Selection, TaskId};
use backstop_runtime::service::{Operation, Service, Who};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Clear {
    /// `load`, or `load[3]` for one instance of a mapped task. Empty is all.
    tasks: Vec<String>,
    upstream: bool,
    downstream: bool,
    only_failed: bool,
    only_running: bool,
    /// Only say what would run again.
    dry_run: bool,
    /// Who; `api` when nobody says.
    who: Option<String>,
    /// Why, for the run's log.
    #[schema(required, min_length = 1, pattern = r"\S")]
    why: String,
}

/// Clears task instances: they run once more, from their first segment.
#[utoipa::path(post, path = "/runs/{run}/clear", operation_id = "clear_tasks", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = Clear,
    responses(
        (status = 200, body = Acted),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn clear(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(wanted): Body<Clear>,
) -> Result<Json<Acted>, Problem> {
    let selection = Selection {
        tasks: instances(&wanted.tasks)?,
        upstream: wanted.upstream,
        downstream: wanted.downstream,
        only_failed: wanted.only_failed,
        only_running: wanted.only_running,
    };
    operate(&service, run, Operation::Clear(selection), by(wanted.who, wanted.why), wanted.dry_run).await
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// Only say what would run again.
    dry_run: bool,
    /// Who; `api` when nobody says.
    who: Option<String>,
    /// Why, for the run's log.
    #[schema(required, min_length = 1, pattern = r"\S")]
    why: String,
}

/// Runs again what failed, behind what committed.
#[utoipa::path(post, path = "/runs/{run}/retry", operation_id = "retry_run", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = Retry,
    responses(
        (status = 200, body = Acted),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn retry(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(wanted): Body<Retry>,
) -> Result<Json<Acted>, Problem> {
    operate(&service, run, Operation::Retry, by(wanted.who, wanted.why), wanted.dry_run).await
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = MarkOutcome)]
enum As {
    Success,
    Failed,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MarkAs {
    tasks: Vec<String>,
    r#as: As,
    #[serde(default)]
    dry_run: bool,
    /// Who; `api` when nobody says.
    who: Option<String>,
    /// Why, for the run's log.
    #[schema(min_length = 1, pattern = r"\S")]
    why: String,
}

/// Says that instances succeeded or failed. It says nothing of effects.
#[utoipa::path(post, path = "/runs/{run}/mark", operation_id = "mark_tasks", tag = "runs", params(("run" = String, Path, description = "The run's id")), request_body = MarkAs,
    responses(
        (status = 200, body = Acted),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn mark(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(wanted): Body<MarkAs>,
) -> Result<Json<Acted>, Problem> {
    let mark = match wanted.r#as {
        As::Success => Mark::Success,
        As::Failed => Mark::Failed,
    };
    let operation = Operation::Mark(instances(&wanted.tasks)?, mark);
    operate(&service, run, operation, by(wanted.who, wanted.why), wanted.dry_run).await
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    /// Who; `api` when nobody says.
    who: Option<String>,
    /// Why, for the run's log.
    #[schema(min_length = 1, pattern = r"\S")]
    why: String,
}

/// Cancels a task instance: its statement is killed on the server.
#[utoipa::path(post, path = "/runs/{run}/tasks/{task}/cancel", operation_id = "cancel_task", tag = "runs", params(("run" = String, Path, description = "The run's id"), ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task")), request_body = Cancel,
    responses(
        (status = 200, body = Acted),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
    Body(wanted): Body<Cancel>,
) -> Result<Json<Acted>, Problem> {
    operate(&service, run, Operation::Cancel(instance(&task)?), by(wanted.who, wanted.why), false).await
}

/// Why a task instance does not run, in a sentence.
#[utoipa::path(get, path = "/runs/{run}/tasks/{task}/why", operation_id = "explain_task", tag = "runs", params(("run" = String, Path, description = "The run's id"), ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task")),
    responses(
        (status = 200, body = InstanceWhy),
    ))]
pub(super) async fn why(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
) -> Result<Json<InstanceWhy>, Problem> {
    let instance = instance(&task)?;
    let why = service.why(&RunId::new(run.as_str()), &instance).await?;
    Ok(Json(InstanceWhy { run_id: run, task: instance.task.to_string(), map_index: instance.map_index, why }))
}

async fn operate(service: &Service, run: String, operation: Operation, by: Who, dry_run: bool) -> Result<Json<Acted>, Problem> {
    let run = RunId::new(run);
    let instances = service.operate(&run, operation, &by, dry_run).await?;
    let instances = instances.iter().map(InstanceId::to_string).collect();
    Ok(Json(Acted { run_id: run.to_string(), dry_run, instances }))
}

fn by(who: Option<String>, why: String) -> Who {
    super::By { who, why: Some(why) }.into()
}

fn instances(texts: &[String]) -> Result<Vec<InstanceId>, Problem> {
    texts.iter().map(|text| instance(text)).collect()
}

/// `load`, or `load[3]`.
fn instance(text: &str) -> Result<InstanceId, Problem> {
    let Some((task, index)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) else {
        return Ok(InstanceId::single(TaskId::new(text)));
    };
    let index =
        index.parse().map_err(|_| Problem::bad_request(format!("`{text}` is no task instance: write `load` or `load[3]`")))?;
    Ok(InstanceId { task: TaskId::new(task), map_index: Some(index) })
}
