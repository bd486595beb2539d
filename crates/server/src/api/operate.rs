//! What operators do to a run, or to several of a DAG: clear, retry, mark, cancel one task; and why a task waits.

use super::{Because, Body, Path};
use crate::Problem;
use crate::wire::steer::{Acted, ActedOnRun, ActedOnRuns, FilesDiffer, InstanceWhy};
use axum::Json;
use axum::extract::State;
use backstop_core::event::Mark;
use backstop_core::{InstanceId, RunId, Selection, TaskId};
use backstop_runtime::service::{Files, Operated, Operation, Range, Service, Who};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// How something is done to runs: really or not, by whom, why.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct Order {
    /// Only say what would change.
    #[serde(deserialize_with = "super::words::dry_run")]
    dry_run: bool,
    /// Who; `api` when nobody says.
    #[serde(deserialize_with = "super::words::who")]
    #[schema(max_length = 256)]
    who: Option<String>,
    /// Why, for the run's log.
    #[serde(deserialize_with = "super::words::reason")]
    #[schema(required, min_length = 1, pattern = r"\S")]
    why: String,
}

impl Order {
    fn by(self) -> Who {
        Because { who: self.who, why: self.why }.into()
    }
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Clear {
    /// `load`, or `load[3]` for one instance of a mapped task. Empty is all.
    tasks: Vec<String>,
    upstream: bool,
    downstream: bool,
    only_failed: bool,
    only_running: bool,
    /// Also in the runs of the DAG about earlier dates, and about later ones.
    past: bool,
    future: bool,
    /// Of a DAG: the first and the last logical date.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// Which files what runs again is run with.
    files: WantedFiles,
    #[serde(flatten)]
    order: Order,
}

/// Which files what runs again is run with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WantedFiles {
    /// Those that the run has.
    #[default]
    Pinned,
    /// As they are now: the whole run goes on with them.
    Current,
}

impl From<WantedFiles> for Files {
    fn from(wanted: WantedFiles) -> Self {
        match wanted {
            WantedFiles::Pinned => Self::Pinned,
            WantedFiles::Current => Self::Current,
        }
    }
}

impl Clear {
    fn selection(&self) -> Result<Selection, Problem> {
        Ok(Selection {
            tasks: instances(&self.tasks)?,
            upstream: self.upstream,
            downstream: self.downstream,
            only_failed: self.only_failed,
            only_running: self.only_running,
        })
    }
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
    let operation = Operation::Clear(wanted.selection()?, wanted.files.into());
    let around = of_a_run(wanted.from.or(wanted.to), wanted.past, wanted.future)?;
    operate(&service, run, around, operation, wanted.order).await
}

/// Clears task instances of several runs of a DAG, by their logical dates.
#[utoipa::path(post, path = "/dags/{dag}/clear", operation_id = "clear_runs", tag = "runs", params(("dag" = String, Path, description = "The DAG's name")), request_body = Clear,
    responses(
        (status = 200, body = ActedOnRuns),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn clear_runs(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<Clear>,
) -> Result<Json<ActedOnRuns>, Problem> {
    let operation = Operation::Clear(wanted.selection()?, wanted.files.into());
    let range = of_a_dag(wanted.from, wanted.to, wanted.past || wanted.future)?;
    operate_on_runs(&service, dag, range, operation, wanted.order).await
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Retry {
    /// Of a DAG: the first and the last logical date.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    /// Which files what runs again is run with.
    files: WantedFiles,
    #[serde(flatten)]
    order: Order,
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
    let around = of_a_run(wanted.from.or(wanted.to), false, false)?;
    operate(&service, run, around, Operation::Retry(wanted.files.into()), wanted.order).await
}

/// Runs again what failed in several runs of a DAG, by their logical dates, behind what committed.
#[utoipa::path(post, path = "/dags/{dag}/retry", operation_id = "retry_runs", tag = "runs", params(("dag" = String, Path, description = "The DAG's name")), request_body = Retry,
    responses(
        (status = 200, body = ActedOnRuns),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn retry_runs(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<Retry>,
) -> Result<Json<ActedOnRuns>, Problem> {
    let range = of_a_dag(wanted.from, wanted.to, false)?;
    operate_on_runs(&service, dag, range, Operation::Retry(wanted.files.into()), wanted.order).await
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
    upstream: bool,
    #[serde(default)]
    downstream: bool,
    /// Also in the runs of the DAG about earlier dates, and about later ones.
    #[serde(default)]
    past: bool,
    #[serde(default)]
    future: bool,
    /// Of a DAG: the first and the last logical date.
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(flatten)]
    order: Order,
}

impl MarkAs {
    fn operation(&self) -> Result<Operation, Problem> {
        let mark = match self.r#as {
            As::Success => Mark::Success,
            As::Failed => Mark::Failed,
        };
        let tasks = instances(&self.tasks)?;
        let (upstream, downstream) = (self.upstream, self.downstream);
        Ok(Operation::Mark(Selection { tasks, upstream, downstream, ..Selection::default() }, mark))
    }
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
    let around = of_a_run(wanted.from.or(wanted.to), wanted.past, wanted.future)?;
    operate(&service, run, around, wanted.operation()?, wanted.order).await
}

/// Says that instances of several runs of a DAG succeeded or failed, by their logical dates.
#[utoipa::path(post, path = "/dags/{dag}/mark", operation_id = "mark_runs", tag = "runs", params(("dag" = String, Path, description = "The DAG's name")), request_body = MarkAs,
    responses(
        (status = 200, body = ActedOnRuns),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn mark_runs(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<MarkAs>,
) -> Result<Json<ActedOnRuns>, Problem> {
    let range = of_a_dag(wanted.from, wanted.to, wanted.past || wanted.future)?;
    operate_on_runs(&service, dag, range, wanted.operation()?, wanted.order).await
}

/// Whether other runs of the DAG are meant, too: earlier ones, later ones.
fn of_a_run(bound: Option<Timestamp>, past: bool, future: bool) -> Result<(bool, bool), Problem> {
    match bound {
        None => Ok((past, future)),
        Some(_) => Err(Problem::bad_request("`from` and `to` are for several runs: ask /api/v1/dags/{dag}/clear, retry or mark")),
    }
}

/// The runs of a DAG that are meant. All that there ever were have to be said so.
fn of_a_dag(from: Option<Timestamp>, to: Option<Timestamp>, is_around: bool) -> Result<Range, Problem> {
    if is_around {
        return Err(Problem::bad_request("`past` and `future` are seen from a run: ask /api/v1/runs/{run}/clear or mark"));
    }
    if from.is_none() && to.is_none() {
        return Err(Problem::bad_request("say which runs: `from`, `to`, or both, as logical dates"));
    }
    Ok(Range { from, to })
}

/// Cancels a task instance: its statement is killed on the server.
#[utoipa::path(post, path = "/runs/{run}/tasks/{task}/cancel", operation_id = "cancel_task", tag = "runs", params(("run" = String, Path, description = "The run's id"), ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task")), request_body = Because,
    responses(
        (status = 200, body = Acted),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
    Body(because): Body<Because>,
) -> Result<Json<Acted>, Problem> {
    operate(
        &service,
        run,
        (false, false),
        Operation::Cancel(instance(&task)?),
        Order { dry_run: false, who: because.who, why: because.why },
    )
    .await
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

async fn operate(
    service: &Arc<Service>,
    run: String,
    around: (bool, bool),
    operation: Operation,
    order: Order,
) -> Result<Json<Acted>, Problem> {
    let run = RunId::new(run);
    let dry_run = order.dry_run;
    let by = order.by();
    if around != (false, false) {
        let done = service.operate_around(&run, around, &operation, &by, dry_run).await?;
        let runs: Vec<ActedOnRun> = done.iter().map(ActedOnRun::from).collect();
        let own = runs.iter().find(|acted| acted.run_id == run.as_str());
        let instances = own.map(|acted| acted.instances.clone()).unwrap_or_default();
        let files = own.and_then(|acted| acted.files.clone());
        return Ok(Json(Acted { run_id: run.to_string(), dry_run, instances, files, runs }));
    }
    let Operated { instances, files } = service.operate(&run, operation, &by, dry_run).await?;
    let instances = instances.iter().map(InstanceId::to_string).collect();
    let files = files.as_ref().map(FilesDiffer::from);
    Ok(Json(Acted { run_id: run.to_string(), dry_run, instances, files, runs: Vec::new() }))
}

async fn operate_on_runs(
    service: &Arc<Service>,
    dag: String,
    range: Range,
    operation: Operation,
    order: Order,
) -> Result<Json<ActedOnRuns>, Problem> {
    let dry_run = order.dry_run;
    let done = service.operate_on_runs(&dag, range, &operation, &order.by(), dry_run).await?;
    Ok(Json(ActedOnRuns { dag, dry_run, runs: done.iter().map(ActedOnRun::from).collect() }))
}

fn instances(texts: &[String]) -> Result<Vec<InstanceId>, Problem> {
    texts.iter().map(|text| instance(text)).collect()
}

/// `load`, or `load[3]`.
pub(super) fn instance(text: &str) -> Result<InstanceId, Problem> {
    let Some((task, index)) = text.strip_suffix(']').and_then(|text| text.split_once('[')) else {
        return Ok(InstanceId::single(TaskId::new(text)));
    };
    let index =
        index.parse().map_err(|_| Problem::bad_request(format!("`{text}` is no task instance: write `load` or `load[3]`")))?;
    Ok(InstanceId { task: TaskId::new(task), map_index: Some(index) })
}
