//! What operators do to a run: clear, retry, mark, cancel one task; and why a task waits.

use super::Body;
use crate::Problem;
use axum::Json;
use axum::extract::{Path, State};
use backstop_core::event::Mark;
use backstop_core::{InstanceId, RunId, Selection, TaskId};
use backstop_runtime::service::{Operation, Service, Who};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, Default, Deserialize)]
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
    who: Option<String>,
    why: String,
}

pub(super) async fn clear(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(wanted): Body<Clear>,
) -> Result<Json<Value>, Problem> {
    let selection = Selection {
        tasks: instances(&wanted.tasks)?,
        upstream: wanted.upstream,
        downstream: wanted.downstream,
        only_failed: wanted.only_failed,
        only_running: wanted.only_running,
    };
    operate(&service, run, Operation::Clear(selection), by(wanted.who, wanted.why), wanted.dry_run).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// Only say what would run again.
    dry_run: bool,
    who: Option<String>,
    why: String,
}

pub(super) async fn retry(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(wanted): Body<Retry>,
) -> Result<Json<Value>, Problem> {
    operate(&service, run, Operation::Retry, by(wanted.who, wanted.why), wanted.dry_run).await
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum As {
    Success,
    Failed,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MarkAs {
    tasks: Vec<String>,
    r#as: As,
    #[serde(default)]
    dry_run: bool,
    who: Option<String>,
    why: String,
}

pub(super) async fn mark(
    State(service): State<Arc<Service>>,
    Path(run): Path<String>,
    Body(wanted): Body<MarkAs>,
) -> Result<Json<Value>, Problem> {
    let mark = match wanted.r#as {
        As::Success => Mark::Success,
        As::Failed => Mark::Failed,
    };
    let operation = Operation::Mark(instances(&wanted.tasks)?, mark);
    operate(&service, run, operation, by(wanted.who, wanted.why), wanted.dry_run).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cancel {
    who: Option<String>,
    why: String,
}

pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
    Body(wanted): Body<Cancel>,
) -> Result<Json<Value>, Problem> {
    operate(&service, run, Operation::Cancel(instance(&task)?), by(wanted.who, wanted.why), false).await
}

pub(super) async fn why(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let instance = instance(&task)?;
    let why = service.why(&RunId::new(run.as_str()), &instance).await?;
    Ok(Json(json!({ "run_id": run, "task": instance.task.as_str(), "map_index": instance.map_index, "why": why })))
}

async fn operate(service: &Service, run: String, operation: Operation, by: Who, dry_run: bool) -> Result<Json<Value>, Problem> {
    let run = RunId::new(run);
    let instances = service.operate(&run, operation, &by, dry_run).await?;
    let instances: Vec<String> = instances.iter().map(InstanceId::to_string).collect();
    Ok(Json(json!({ "run_id": run.as_str(), "dry_run": dry_run, "instances": instances })))
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
