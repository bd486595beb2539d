//! Connections: which there are, without secrets, and trying one out.

use super::page::of_project;
use super::{Body, Page, Paging, Path, Query};
use crate::Problem;
use crate::wire::settings::{Connection, ConnectionTest};
use axum::Json;
use axum::extract::State;
use backstop_runtime::service::Service;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The connections of all projects, without secrets.
#[utoipa::path(get, path = "/connections", operation_id = "list_connections", tag = "settings", params(Paging),
    responses((status = 200, body = Page<Connection>)))]
pub(super) async fn list(
    State(service): State<Arc<Service>>,
    Query(wanted): Query<Paging>,
) -> Result<Json<Page<Connection>>, Problem> {
    let page = wanted.by_key(service.connections(), |shown| of_project(&shown.id, Some(&shown.project)))?;
    Ok(Json(page.map(Connection::from)))
}

/// Which connection to test.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Which {
    /// Whose, where several projects have one of this id; else the first project's.
    project: Option<String>,
}

/// Opens a connection and asks the server something.
///
/// 200 also when it cannot be used: `ok` says so, and `error` why. It takes at most 30 seconds.
#[utoipa::path(post, path = "/connections/{connection}/test", operation_id = "test_connection", tag = "settings",
    params(("connection" = String, Path, description = "The connection's id")), request_body = Which,
    responses((status = 200, body = ConnectionTest)))]
pub(super) async fn test(
    State(service): State<Arc<Service>>,
    Path(connection): Path<String>,
    Body(which): Body<Which>,
) -> Result<Json<ConnectionTest>, Problem> {
    let (tested, redactor) = service.test_connection(&connection, which.project.as_deref()).await?;
    let clean = |text: String| redactor.clean(&text).into_owned();
    let hint = tested.error.as_ref().and_then(|error| error.hint.clone());
    Ok(Json(ConnectionTest {
        connection,
        ok: tested.error.is_none(),
        target: tested.target.map(clean),
        server_version: tested.server_version.map(clean),
        open_ms: tested.open_ms,
        round_trip_ms: tested.round_trip_ms,
        marker_table: tested.has_marker_table,
        error: tested.error.map(|error| clean(crate::problem::causes(&error))),
        hint: hint.map(clean),
    }))
}
