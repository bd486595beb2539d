//! Lists over many runs: the grid of a DAG, task instances, how long tasks take.

use super::page::{cursor_of, key_of, no_place};
use super::runs::bad_cursor;
use super::{Page, Path, Query, rows};
use crate::wire::grid::GridRun;
use crate::wire::steer::TaskInstance;
use crate::{Problem, wire};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use backstop_runtime::service::Service;
use backstop_store::{InstanceCursor, InstanceFilter, RunFilter};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Runs of a grid, where the request does not say.
const GRID_RUNS: u32 = 25;
/// Runs of a page of a grid at most.
const GRID_RUNS_MAX: u32 = 365;
/// States that instances have, as the API says them.
const STATES: [&str; 12] = [
    "none",
    "scheduled",
    "running",
    "up_for_reschedule",
    "up_for_retry",
    "in_doubt",
    "done_not_committed",
    "success",
    "failed",
    "skipped",
    "upstream_failed",
    "rolled_back",
];

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GridWanted {
    /// The cursor: only runs made before this one.
    before: Option<String>,
    /// Runs of the page; 25 by default.
    #[param(minimum = 1, maximum = 365)]
    limit: Option<u32>,
}

/// The newest runs of a DAG, each with its tasks.
///
/// Of a DAG whose file is gone as well: its runs are still there.
#[utoipa::path(get, path = "/dags/{dag}/grid", operation_id = "get_grid", tag = "dags", params(("dag" = String, Path, description = "The DAG's name"), GridWanted),
    responses((status = 200, body = Page<GridRun<'static>>)))]
pub(super) async fn grid(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Query(wanted): Query<GridWanted>,
) -> Result<Response, Problem> {
    let limit = match wanted.limit {
        None => GRID_RUNS,
        Some(limit @ 1..=GRID_RUNS_MAX) => limit,
        Some(limit) => {
            return Err(Problem::bad_request(format!("`limit` is {limit}, and must be from 1 to {GRID_RUNS_MAX}")));
        }
    };
    let before = wanted.before.map(RunId::new);
    let filter = RunFilter { dag: Some(DagId::new(dag.as_str())), before, limit, ..RunFilter::default() };
    let found = service.store().grid(&filter).await.map_err(bad_cursor)?;
    if found.is_empty() && filter.before.is_none() {
        // Nothing ran: a name that is mistyped looks the same, and is told apart.
        service.dag(&dag)?;
    }
    // The page may be short of its limit because its runs are large: only an empty page says that nothing is left.
    let next = found.last().map(|row| row.run.header.run_id.to_string());
    let now = service.now();
    let items = found.iter().map(|row| GridRun::new(row, now)).collect();
    Ok(Json(Page { items, next }).into_response())
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InstancesWanted {
    /// Only of this DAG.
    dag: Option<String>,
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

/// An instance with its run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskInstanceOfRun)]
struct OfRun {
    /// Its run.
    run_id: String,
    /// The run's DAG.
    dag: String,
    #[serde(flatten)]
    instance: TaskInstance,
}

/// Task instances over runs, those of the newest run first. A page may be short, or empty, and yet have a `next`.
#[utoipa::path(get, path = "/task_instances", operation_id = "list_all_task_instances", tag = "runs", params(InstancesWanted),
    responses((status = 200, body = Page<OfRun>)))]
pub(super) async fn instances(
    State(service): State<Arc<Service>>,
    Query(wanted): Query<InstancesWanted>,
) -> Result<Response, Problem> {
    let filter = InstanceFilter {
        run: None,
        dag: wanted.dag.map(DagId::new),
        task: wanted.task.map(TaskId::new),
        state: wanted.state.map(kept_state).transpose()?,
        after: wanted.after.as_deref().map(|after| cursor(key_of(after)?)).transpose()?,
        limit: rows(wanted.limit)?,
    };
    let page = service.store().list_instances(&filter).await.map_err(bad_cursor)?;
    let next = page.next.map(|next| {
        let map = next.instance.map_index.map_or_else(String::new, |index| index.to_string());
        cursor_of(&format!("{}:{map}:{}", next.run, next.instance.task))
    });
    let items = page
        .rows
        .into_iter()
        .map(|(run, dag, row)| OfRun { run_id: run.to_string(), dag: dag.to_string(), instance: row.into() })
        .collect();
    Ok(Json(Page { items, next }).into_response())
}

/// A state that instances are wanted in, as the store says it.
pub(super) fn kept_state(state: String) -> Result<String, Problem> {
    match state.as_str() {
        "up_for_reschedule" => Ok("deferred".to_owned()),
        known if STATES.contains(&known) => Ok(state),
        _ => Err(Problem::bad_request(format!("`state` is `{state}`, and must be one of {}", STATES.join(", ")))),
    }
}

/// `RUN:MAP_INDEX:TASK`, as `next` gave it; the first two have no colon in them.
fn cursor(text: &str) -> Result<InstanceCursor, Problem> {
    let wrong = || no_place("after");
    let mut parts = text.splitn(3, ':');
    let (Some(run), Some(map), Some(task)) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong()) };
    let map_index = if map.is_empty() { None } else { Some(map.parse().map_err(|_| wrong())?) };
    Ok(InstanceCursor { run: RunId::new(run), instance: InstanceId { task: TaskId::new(task), map_index } })
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Runs {
    /// Of the newest so many runs in which the task went well; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// How long a task took when it went well, in seconds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TaskDurations)]
struct Durations {
    /// The DAG.
    dag: String,
    /// The task.
    task: String,
    /// Instances that were measured; the rest is null without any.
    count: usize,
    /// Half of them took no longer.
    #[schema(required)]
    p50: Option<f64>,
    /// Of a hundred, 95 took no longer.
    #[schema(required)]
    p95: Option<f64>,
    /// The longest.
    #[schema(required)]
    max: Option<f64>,
    /// That of the newest run.
    #[schema(required)]
    last: Option<f64>,
}

/// How long a task took when it went well.
#[utoipa::path(get, path = "/dags/{dag}/tasks/{task}/durations", operation_id = "get_task_durations", tag = "dags",
    params(("dag" = String, Path, description = "The DAG's name"), ("task" = String, Path, description = "The task's name"), Runs),
    responses((status = 200, body = Durations)))]
pub(super) async fn durations(
    State(service): State<Arc<Service>>,
    Path((dag, task)): Path<(String, String)>,
    Query(wanted): Query<Runs>,
) -> Result<Response, Problem> {
    let limit = rows(wanted.limit)?;
    let found = service.store().durations(&DagId::new(dag.as_str()), &TaskId::new(task.as_str()), limit).await?;
    if found.is_empty() {
        let entry = service.dag(&dag)?;
        if !entry.definition.dag.tasks().iter().any(|known| known.id.as_str() == task) {
            return Err(Problem::not_found(format!("DAG `{dag}` has no task `{task}`")));
        }
    }
    let mut seconds: Vec<f64> = found.iter().map(std::time::Duration::as_secs_f64).collect();
    let last = seconds.first().copied();
    seconds.sort_by(f64::total_cmp);
    let count = seconds.len();
    let told = Durations {
        dag,
        task,
        count,
        p50: quantile(&seconds, 50),
        p95: quantile(&seconds, 95),
        max: seconds.last().copied(),
        last,
    };
    Ok(Json(told).into_response())
}

/// The smallest value that so many of a hundred do not exceed (nearest rank).
fn quantile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_nearest_rank() {
        let of = |count: u32, percent| quantile(&(1..=count).map(f64::from).collect::<Vec<_>>(), percent);
        assert_eq!((of(0, 50), of(1, 50), of(1, 95)), (None, Some(1.0), Some(1.0)));
        assert_eq!((of(2, 50), of(100, 50), of(100, 95), of(20, 95)), (Some(1.0), Some(50.0), Some(95.0), Some(19.0)));
    }

    #[test]
    fn cursors_are_read() {
        let read = |text| cursor(text).ok().map(|cursor| (cursor.run.to_string(), cursor.instance.to_string()));
        assert_eq!(read("r-1::load"), Some(("r-1".into(), "load".into())));
        assert_eq!(read("r-1:3:a:b"), Some(("r-1".into(), "a:b[3]".into())));
        for wrong in ["", "r", "r:load", "r:x:load", "r:-1:load"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
