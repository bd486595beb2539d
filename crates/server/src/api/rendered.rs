//! The SQL of task instances, rendered.

use super::Path;
use super::operate::instance;
use crate::Problem;
use crate::wire::rendered::TaskSql;
use axum::Json;
use axum::extract::State;
use backstop_core::RunId;
use backstop_runtime::service::Service;
use std::sync::Arc;

/// The SQL of a task instance, as its templates make it.
///
/// From the sources that its run is pinned to, with what the run's log tells and the variables in force now. Secrets are masked. 409 when
/// a template wants what is not there.
#[utoipa::path(get, path = "/runs/{run}/tasks/{task}/sql", operation_id = "get_task_sql", tag = "runs", params(("run" = String, Path, description = "The run's id"), ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task")),
    responses(
        (status = 200, body = TaskSql),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn sql(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
) -> Result<Json<TaskSql>, Problem> {
    let instance = instance(&task)?;
    let rendered = service.rendered_sql(&RunId::new(run.as_str()), &instance).await?;
    Ok(Json(TaskSql::new(&run, instance, rendered)))
}
