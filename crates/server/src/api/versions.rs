//! Versions of DAGs: which there are, and what changed between two. Their files are told by `dags`.

use super::{Page, Paging, Path, Query};
use crate::Problem;
use crate::wire::version::{VersionDiff, VersionShown};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use backstop_core::DagId;
use backstop_runtime::service::Service;
use backstop_runtime::service::compare::compare_masked;
use std::sync::Arc;

/// The versions of a DAG that are kept, the one used last first.
///
/// A version is kept when a run begins with it. There are 1,000 at most: those used last.
#[utoipa::path(get, path = "/dags/{dag}/versions", operation_id = "list_versions", tag = "dags", params(("dag" = String, Path, description = "The DAG's name"), Paging),
    responses((status = 200, body = Page<VersionShown>)))]
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    Path(dag): Path<String>,
    Query(wanted): Query<Paging>,
) -> Result<Json<Page<VersionShown>>, Problem> {
    let id = DagId::new(dag.as_str());
    let mut found = service.store().versions(&id).await?;
    backstop_runtime::began::fill_in(&**service.store(), &id, &mut found).await?;
    if found.is_empty() {
        // Nothing ran: a name that is mistyped looks the same, and is told apart.
        service.dag(&dag)?;
    }
    Ok(Json(wanted.by_place(found, |kept| kept.digest.clone())?.map(VersionShown::from)))
}

/// What changed from one version to another, as unified diffs.
///
/// Of versions that runs began with, and of the one in force. Secrets are `***`.
#[utoipa::path(get, path = "/dags/{dag}/versions/{from}/diff/{to}", operation_id = "compare_versions", tag = "dags",
    params(("dag" = String, Path, description = "The DAG's name"), ("from" = String, Path, description = "A version"), ("to" = String, Path, description = "Another")),
    responses((status = 200, body = VersionDiff)))]
pub(super) async fn diff(
    State(service): State<Arc<Service>>,
    Path((dag, from, to)): Path<(String, String, String)>,
) -> Result<Json<VersionDiff>, Problem> {
    let (from, _, earlier) = service.source(&dag, Some(&from)).await?;
    let (to, _, later) = service.source(&dag, Some(&to)).await?;
    // Comparing large files takes a while, and nobody shall wait for it.
    let changes = tokio::task::spawn_blocking(move || {
        let redactor = service.redactor();
        compare_masked(&earlier, &later, |bundle| redactor.clean_files(bundle))
    });
    let changes = changes.await;
    let changes = changes.map_err(|error| {
        let detail = format!("compare version {from} of DAG `{dag}` with {to}: {error}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "run", "The versions could not be compared", detail)
    })?;
    Ok(Json(VersionDiff::new(&dag, &from, &to, changes)))
}
