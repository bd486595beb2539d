//! Runs that are asked for, one or many at once.

use super::{Body, By, Path};
use crate::{Problem, wire};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_core::{RunId, TaskId};
use backstop_runtime::service::{Service, Trigger, Triggered, Who};
use backstop_store::RunRow;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

/// Runs that one request asks for, at most.
const RUNS_MAX: usize = 1000;

/// A run that is asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NewRun {
    /// By name; defaults are filled in.
    #[schema(value_type = BTreeMap<String, Value>)]
    params: Map<String, Value>,
    /// What the run is about; now by default.
    logical_date: Option<Timestamp>,
    /// The data it is about; given together with its end.
    data_interval_start: Option<Timestamp>,
    /// Not before the start.
    data_interval_end: Option<Timestamp>,
    /// Only these tasks; none is all.
    tasks: Vec<String>,
    /// Transactional SQL is run and rolled back.
    dry_run: bool,
    /// Asked for twice with one id, a run is made once.
    #[schema(min_length = 8, max_length = 64, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{7,63}$")]
    run_id: Option<String>,
    /// Also when there is a run of this DAG about the same logical date.
    again: bool,
    #[serde(flatten)]
    by: By,
}

impl NewRun {
    fn asked_of(self, dag: &str) -> Result<(Trigger, Who), Problem> {
        let data_interval = match (self.data_interval_start, self.data_interval_end) {
            (None, None) => None,
            (Some(start), Some(end)) if start <= end => Some((start, end)),
            _ => return Err(Problem::bad_request("a data interval has a start and an end that is not before it")),
        };
        let trigger = Trigger {
            dag: dag.to_owned(),
            params: self.params,
            logical_date: self.logical_date,
            data_interval,
            only_tasks: self.tasks.into_iter().map(TaskId::new).collect(),
            dry_run: self.dry_run,
            run_id: self.run_id.map(|id| super::name("run_id", id)).transpose()?.map(RunId::new),
            again: self.again,
        };
        Ok((trigger, self.by.into()))
    }
}

/// A run that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AskedRun)]
struct Asked<'a> {
    #[serde(flatten)]
    run: wire::Run<'a>,
    /// What keeps it from beginning until somebody does something, in a sentence: its DAG is paused.
    #[schema(required)]
    waits_because: Option<String>,
}

/// Makes a run of a DAG. Durable when it is answered.
#[utoipa::path(post, path = "/dags/{dag}/runs", operation_id = "start_run", tag = "runs", params(("dag" = String, Path, description = "The DAG's name")),
    request_body = NewRun, responses(
        (status = 201, description = "The run is made", body = Asked<'static>, headers(("Location" = String, description = "The run"))),
        (status = 200, description = "The same request made it before", body = Asked<'static>, headers(("Location" = String, description = "The run"))),
        (status = 409, body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn trigger(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<NewRun>,
) -> Result<Response, Problem> {
    let (trigger, who) = wanted.asked_of(&dag)?;
    let Triggered { header, is_new } = service.trigger(trigger, &who).await?;
    let location = format!("/api/v1/runs/{}", header.run_id);
    let row = match is_new {
        // What it is now is known without asking the store: as it was made.
        true => RunRow::made(header),
        false => {
            let row = service.store().run(&header.run_id).await?;
            row.ok_or_else(|| Problem::not_found(format!("there is no run `{}`", header.run_id)))?
        }
    };
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let dag = &row.header.dag_id;
    let is_held = row.started_at.is_none() && row.ended_at.is_none() && service.is_paused(dag);
    let waits_because = is_held.then(|| format!("DAG `{dag}` is paused, and nothing of it begins before it is unpaused"));
    let run = wire::Run::new(&row, service.is_abandoned(&row).await?, &service.redactor());
    Ok((status, [(header::LOCATION, location)], Json(Asked { run, waits_because })).into_response())
}

/// Runs of one DAG that are asked for at once.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRuns {
    /// Each as if it were asked for alone. Who asks, and why, stands beside them where a run does not say.
    #[schema(min_items = 1, max_items = 1000)]
    runs: Vec<NewRun>,
    #[serde(flatten)]
    by: By,
}

/// What came of runs that were asked for at once.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Started {
    /// In the order in which they were asked for.
    items: Vec<StartedRun>,
}

/// What came of one of them.
#[derive(Debug, Serialize, ToSchema)]
struct StartedRun {
    /// The run; absent when it was refused.
    #[schema(required)]
    run_id: Option<String>,
    /// It was made now: false when the same request had made it before, or it was refused.
    made: bool,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<Problem>,
}

/// Makes runs of a DAG, up to 1000 at once.
///
/// When one of them makes no sense none is made. Else each is made or refused by itself. Those made are durable when it is answered. Given run ids,
/// the same request can be sent again.
#[utoipa::path(post, path = "/dags/{dag}/runs/batch", operation_id = "start_runs", tag = "runs", params(("dag" = String, Path, description = "The DAG's name")),
    request_body = NewRuns, responses((status = 200, description = "What came of each", body = Started)))]
pub(super) async fn trigger_all(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Body(wanted): Body<NewRuns>,
) -> Result<Json<Started>, Problem> {
    let count = wanted.runs.len();
    if count == 0 || count > RUNS_MAX {
        return Err(Problem::bad_request(format!("`runs` has {count}, and must have 1 to {RUNS_MAX}"))
            .hint("ask for the others in another request"));
    }
    let NewRuns { runs, by } = wanted;
    let mut triggers = Vec::with_capacity(count);
    for (at, mut run) in runs.into_iter().enumerate() {
        run.by.who = run.by.who.or_else(|| by.who.clone());
        run.by.why = run.by.why.or_else(|| by.why.clone());
        triggers.push(run.asked_of(&dag).map_err(|problem| of_place(at, problem))?);
    }
    service.dag(&dag)?;
    let asked = service.trigger_all(&dag, triggers).await.map_err(|(at, error)| of_place(at, error.into()))?;
    let items = asked.into_iter().map(|asked| match asked {
        Ok(Triggered { header, is_new }) => StartedRun { run_id: Some(header.run_id.to_string()), made: is_new, refused: None },
        Err(error) => StartedRun { run_id: None, made: false, refused: Some(error.into()) },
    });
    Ok(Json(Started { items: items.collect() }))
}

/// Says which of the runs it is about.
fn of_place(at: usize, mut problem: Problem) -> Problem {
    problem.detail = format!("`runs[{at}]`: {}; none was made", problem.detail);
    problem
}
