//! DAGs: what there is, what is wrong, pausing.

use super::{Body, By, Page, Paging, Path, Query};
use crate::wire::dag::{Dag, DagDetail, Finding};
use crate::wire::settings::{DagSource, SourceFile};
use crate::{Problem, etag};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_runtime::service::Service;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// The DAGs that are loaded, by name.
#[utoipa::path(get, path = "/dags", operation_id = "list_dags", tag = "dags", params(Paging), responses((status = 200, body = Page<Dag>)))]
pub(super) async fn list(State(service): State<Arc<Service>>, Query(wanted): Query<Paging>) -> Result<Json<Page<Dag>>, Problem> {
    let paused = service.paused();
    let catalog = service.catalog();
    let page = wanted.by_key(catalog.dags(), |(id, _)| id.to_string())?;
    Ok(Json(page.map(|(id, entry)| Dag::new(&service, entry, paused.contains(id)))))
}

/// One DAG, with its parameters and its tasks.
#[utoipa::path(get, path = "/dags/{dag}", operation_id = "get_dag", tag = "dags", params(("dag" = String, Path, description = "The DAG's name")),
    responses((status = 200, body = DagDetail)))]
pub(super) async fn show(State(service): State<Arc<Service>>, Path(dag): Path<String>) -> Result<Json<DagDetail>, Problem> {
    let entry = service.dag(&dag)?;
    let paused = service.paused().contains(entry.definition.dag.id());
    Ok(Json(DagDetail::new(&service, &entry, paused)))
}

/// The tag that [`show`] gives now.
fn tag(service: &Service, dag: &str) -> Result<HeaderValue, Problem> {
    let entry = service.dag(dag)?;
    let paused = service.paused().contains(entry.definition.dag.id());
    let body = serde_json::to_vec(&DagDetail::new(service, &entry, paused));
    Ok(etag::of(&body.map_err(|error| Problem::bad_request(format!("tell DAG `{dag}`: {error}")))?))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OfVersion {
    /// Which version, as a run has it; the one in force by default.
    version: Option<String>,
}

/// The files that a DAG is made of.
///
/// Also of a version that runs began with. Secrets are `***`: those of the projects, and what stands under keys such as `password` or
/// `Authorization`.
#[utoipa::path(get, path = "/dags/{dag}/source", operation_id = "get_dag_source", tag = "dags",
    params(("dag" = String, Path, description = "The DAG's name"), OfVersion), responses((status = 200, body = DagSource)))]
pub(super) async fn source(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Query(of): Query<OfVersion>,
) -> Result<Json<DagSource>, Problem> {
    let (version, own, bundle) = service.source(&dag, of.version.as_deref()).await?;
    let redactor = service.redactor();
    // Many and large files may take their time, which is not that of those who drive runs.
    let cleaned = tokio::task::spawn_blocking(move || redactor.clean_files(&bundle)).await;
    let bundle = cleaned.map_err(|error| {
        let detail = format!("mask the secrets in the files of DAG `{dag}`: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "It could not be done", detail)
    })?;
    let mut files: Vec<SourceFile> = bundle
        .files
        .iter()
        .map(|(file, bytes)| SourceFile { file: file.clone(), text: String::from_utf8_lossy(bytes).into_owned() })
        .collect();
    files.sort_by_key(|source| own.as_deref() != Some(&*source.file));
    Ok(Json(DagSource { dag, version, files }))
}

/// What is to change of a DAG.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DagChange)]
pub(super) struct Change {
    /// Whether anything of it may begin.
    paused: bool,
    #[serde(flatten)]
    by: By,
}

/// Pauses a DAG, or lets it go on. What is going on goes on; what waits does not begin.
///
/// Also a DAG whose file is gone or broken, and that has runs which are not over: that is answered with 204.
#[utoipa::path(patch, path = "/dags/{dag}", operation_id = "change_dag", tag = "dags", params(("dag" = String, Path, description = "The DAG's name"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the DAG as it was read; it is changed only when it is still so")),
    request_body = Change, responses((status = 200, body = Dag, headers(("ETag" = String, description = "That of the DAG as it is now"))), (status = 204, description = "It is done; the DAG itself is gone, or not loaded"), (status = 412, description = "If-Match names another state of it", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn change(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    headers: HeaderMap,
    Body(change): Body<Change>,
) -> Result<Response, Problem> {
    service.known_dag(&dag)?;
    // Looked at when nobody else changes it: of two who give the same tag one comes too late.
    let is_as_it_was = || match tag(&service, &dag) {
        Ok(tag) => etag::may_change(&headers, &tag),
        // Nobody has read what is gone.
        Err(_) => !headers.contains_key(header::IF_MATCH),
    };
    if !service.pause_if(&dag, change.paused, &change.by.into(), is_as_it_was).await? {
        let detail = format!("DAG `{dag}` is not as it was when it was read");
        let problem = Problem::new(StatusCode::PRECONDITION_FAILED, "changed", "It has changed meanwhile", detail);
        return Err(problem.hint("read it again, and ask again with its new ETag"));
    }
    let Ok(entry) = service.dag(&dag) else { return Ok(StatusCode::NO_CONTENT.into_response()) };
    Ok(([(header::ETAG, tag(&service, &dag)?)], Json(Dag::new(&service, &entry, change.paused))).into_response())
}

/// What is wrong with the projects.
///
/// What `backstop check` would say of the files.
#[utoipa::path(get, path = "/problems", operation_id = "list_problems", tag = "dags", params(Paging), responses((status = 200, body = Page<Finding>)))]
pub(super) async fn problems(
    State(service): State<Arc<Service>>,
    Query(wanted): Query<Paging>,
) -> Result<Json<Page<Finding>>, Problem> {
    let catalog = service.catalog();
    let of_files = catalog
        .troubles()
        .iter()
        .flat_map(|trouble| trouble.diagnostics.iter().map(|diagnostic| Finding::new(diagnostic, &trouble.project)));
    let doubles = catalog.doubles().iter().map(|(dag, first, second)| Finding::double(dag.as_str(), first, second));
    wanted.by_number(of_files.chain(doubles)).map(Json)
}
