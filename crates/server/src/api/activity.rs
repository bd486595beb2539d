//! What runs on users' databases now, and how running statements looked before.

use super::operate::instance;
use super::page::no_place;
use super::runs::{find, find_instance};
use super::{Page, Paging, Path, Query, rows};
use crate::Problem;
use crate::wire::activity::{Kept, Now};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use backstop_runtime::monitor::Activity;
use backstop_runtime::service::Service;
use std::sync::Arc;

/// Lists every statement that runs now, the longest first. What is told of those that run for less than two seconds is their time alone.
#[utoipa::path(get, path = "/activity", operation_id = "list_activity", tag = "runs", params(Paging),
    responses(
        (status = 200, body = Now<'static>),
    ))]
pub(super) async fn activity(State(service): State<Arc<Service>>, Query(wanted): Query<Paging>) -> Result<Response, Problem> {
    let monitor = service.monitor();
    let all = monitor.activity();
    let from = wanted.after.as_deref().map(|after| place_behind(after, &all)).transpose()?.unwrap_or_default();
    let limit = rows(wanted.limit)? as usize;
    let is_last = all.len() <= from + limit;
    let items = &all[from..all.len().min(from + limit)];
    let next = items.last().filter(|_| !is_last).map(cursor);
    Ok(Json(Now::new(items, next, monitor.limits())).into_response())
}

/// Since when it runs, its run and its instance.
fn cursor(running: &Activity) -> String {
    format!("{}!{}!{}", running.since.as_microsecond(), running.run, running.instance)
}

/// How many come up to the row of a cursor. That row may have ended meanwhile: then those that began no later, as far as the clock tells.
fn place_behind(after: &str, all: &[Activity]) -> Result<usize, Problem> {
    let (since, which) = after.split_once('!').ok_or_else(|| no_place("after"))?;
    let since: i64 = since.parse().map_err(|_| no_place("after"))?;
    let is_it = |running: &Activity| cursor(running).split_once('!').is_some_and(|(_, of)| of == which);
    let began_before = || all.iter().take_while(|running| running.since.as_microsecond() <= since).count();
    Ok(all.iter().position(is_it).map_or_else(began_before, |place| place + 1))
}

/// Lists the samples of a task instance, over all its tries: how its statements looked while they ran.
#[utoipa::path(get, path = "/runs/{run}/tasks/{task}/samples", operation_id = "list_samples", tag = "runs", params(("run" = String, Path, description = "The run's id"), ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task"), Paging),
    responses(
        (status = 200, body = Page<Kept<'static>>),
    ))]
pub(super) async fn samples(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
    Query(wanted): Query<Paging>,
) -> Result<Response, Problem> {
    let row = find(&service, run).await?;
    let instance = instance(&task)?;
    if find_instance(&service, &row.header.run_id, &instance).await?.is_none() {
        return Err(Problem::not_found(format!("there is no task instance `{instance}` in run `{}`", row.header.run_id)));
    }
    let found = service.store().samples(&row.header.run_id, &instance).await?;
    let page = wanted.by_place(found, |kept| format!("{}.{}", kept.try_number, kept.place))?;
    let Page { items, next } = &page;
    Ok(Json(Page { items: items.iter().map(Kept::from).collect(), next: next.clone() }).into_response())
}
