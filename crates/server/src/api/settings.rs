//! Variables and pools: read, set, taken away. Who did so and why is in `audit`.

use super::page::of_project;
use super::{Body, By, Page, Paging, Path, Query};
use crate::Problem;
use crate::wire::settings::Variable;
use crate::wire::steer::Pool;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backstop_runtime::service::Service;
use backstop_runtime::service::settings::{KeptPool, KeptVariable, Setting};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// The variables in force, by name: those that were set, and those of each project that are not covered by them.
#[utoipa::path(get, path = "/variables", operation_id = "list_variables", tag = "settings", params(Paging), responses((status = 200, body = Page<Variable>)))]
pub(super) async fn variables(
    State(service): State<Arc<Service>>,
    Query(wanted): Query<Paging>,
) -> Result<Json<Page<Variable>>, Problem> {
    let page = wanted.by_key(service.variables(), |shown| of_project(&shown.name, shown.project.as_deref()))?;
    Ok(Json(page.map(Variable::from)))
}

fn found(service: &Service, name: &str) -> Result<Json<Variable>, Problem> {
    let shown = service.variables().into_iter().find(|variable| variable.name == name);
    shown.map(|variable| Json(variable.into())).ok_or_else(|| Problem::not_found(format!("there is no variable `{name}`")))
}

/// One variable.
#[utoipa::path(get, path = "/variables/{name}", operation_id = "get_variable", tag = "settings",
    params(("name" = String, Path, description = "The variable's name")), responses((status = 200, body = Variable)))]
pub(super) async fn variable(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Result<Json<Variable>, Problem> {
    found(&service, &name)
}

/// What a variable is to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewVariable {
    /// Any JSON, of at most 256 KiB.
    #[schema(required)]
    value: Value,
    /// What it is for.
    #[schema(max_length = 1024)]
    description: Option<String>,
    #[serde(flatten)]
    by: By,
}

/// Sets a variable. It stands before that of backstop.yaml, for every run that begins from now on.
#[utoipa::path(put, path = "/variables/{name}", operation_id = "set_variable", tag = "settings",
    params(("name" = String, Path, description = "The variable's name", pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}$")),
    request_body = NewVariable,
    responses((status = 200, body = Variable), (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn set_variable(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Body(wanted): Body<NewVariable>,
) -> Result<Json<Variable>, Problem> {
    let setting = Setting::Variable(Some(KeptVariable { value: wanted.value, description: wanted.description }));
    service.set(&name, &setting, &wanted.by.into()).await?;
    found(&service, &name)
}

/// Takes away a variable that was set; that of backstop.yaml is in force again, where there is one.
#[utoipa::path(delete, path = "/variables/{name}", operation_id = "delete_variable", tag = "settings",
    params(("name" = String, Path, description = "The variable's name"), By),
    responses((status = 204, description = "It is gone"), (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_variable(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Query(by): Query<By>,
) -> Result<StatusCode, Problem> {
    if !service.kept_settings().variables.contains_key(&name) && found(&service, &name).is_ok() {
        return Err(not_ours(&format!("variable `{name}`")));
    }
    take_away(&service, &name, &Setting::Variable(None), by, "variable").await
}

/// The pools, their slots, and how many are in use.
#[utoipa::path(get, path = "/pools", operation_id = "list_pools", tag = "settings", params(Paging), responses((status = 200, body = Page<Pool>)))]
pub(super) async fn pools(
    State(service): State<Arc<Service>>,
    Query(wanted): Query<Paging>,
) -> Result<Json<Page<Pool>>, Problem> {
    let kept = service.kept_settings();
    let page = wanted.by_key(service.slots().pools(), |pool| pool.name.clone())?;
    Ok(Json(page.map(|pool| Pool::new(pool, &kept))))
}

fn found_pool(service: &Service, name: &str) -> Result<Json<Pool>, Problem> {
    let pool = service.slots().pools().into_iter().find(|pool| pool.name == name);
    let pool = pool.ok_or_else(|| Problem::not_found(format!("there is no pool `{name}`")))?;
    Ok(Json(Pool::new(pool, &service.kept_settings())))
}

/// One pool.
#[utoipa::path(get, path = "/pools/{name}", operation_id = "get_pool", tag = "settings",
    params(("name" = String, Path, description = "The pool's name")), responses((status = 200, body = Pool)))]
pub(super) async fn pool(State(service): State<Arc<Service>>, Path(name): Path<String>) -> Result<Json<Pool>, Problem> {
    found_pool(&service, &name)
}

/// What a pool is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPool {
    /// How many; null is without limit.
    #[schema(minimum = 1, required)]
    #[serde(deserialize_with = "Option::deserialize")]
    slots: Option<u32>,
    /// What it is for.
    #[schema(max_length = 1024)]
    description: Option<String>,
    #[serde(flatten)]
    by: By,
}

/// Gives a pool its slots, before what backstop.yaml says; a pool that is not there is made.
#[utoipa::path(put, path = "/pools/{name}", operation_id = "set_pool", tag = "settings",
    params(("name" = String, Path, description = "The pool's name", pattern = "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}$")),
    request_body = NewPool,
    responses((status = 200, body = Pool), (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn set_pool(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Body(wanted): Body<NewPool>,
) -> Result<Json<Pool>, Problem> {
    let setting = Setting::Pool(Some(KeptPool { slots: wanted.slots, description: wanted.description }));
    service.set(&name, &setting, &wanted.by.into()).await?;
    found_pool(&service, &name)
}

/// Takes away a pool that was set; that of backstop.yaml is in force again, where there is one.
#[utoipa::path(delete, path = "/pools/{name}", operation_id = "delete_pool", tag = "settings",
    params(("name" = String, Path, description = "The pool's name"), By),
    responses((status = 204, description = "It is gone"), (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_pool(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Query(by): Query<By>,
) -> Result<StatusCode, Problem> {
    if !service.kept_settings().pools.contains_key(&name) && found_pool(&service, &name).is_ok() {
        return Err(not_ours(&format!("pool `{name}`")));
    }
    take_away(&service, &name, &Setting::Pool(None), by, "pool").await
}

async fn take_away(service: &Arc<Service>, name: &str, setting: &Setting, by: By, kind: &str) -> Result<StatusCode, Problem> {
    match service.set(name, setting, &by.into()).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Problem::not_found(format!("there is no {kind} `{name}`"))),
    }
}

fn not_ours(what: &str) -> Problem {
    let problem = Problem::new(
        StatusCode::CONFLICT,
        "conflict",
        "It cannot be done as things stand",
        format!("{what} was not set here: it is of a project's backstop.yaml or environment"),
    );
    problem.hint("take it away there, or set another value here, which stands before it")
}
