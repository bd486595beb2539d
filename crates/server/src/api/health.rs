//! How the service is: health, metrics, pools, who did what.

use super::{Page, Query, rows};
use crate::Problem;
use crate::wire::steer::{Act, Health, Status};
use axum::Json;
use axum::extract::State;
use backstop_runtime::service::Service;
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Whether the service takes work.
///
/// 200 when the store can write. Needs no token.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "service", responses((status = 200, body = Health)), security(()))]
pub(super) async fn health(State(service): State<Arc<Service>>) -> Result<Json<Health>, Problem> {
    if service.is_stopping() {
        return Err(backstop_runtime::service::Error::Stopping.into());
    }
    // What cannot write is not healthy, and only a write tells.
    service.write_to_store().await?;
    Ok(Json(Health { status: Status::Ok, version: env!("CARGO_PKG_VERSION") }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Before {
    /// The cursor: only what is older than this.
    before: Option<u64>,
    /// Rows of the page; 50 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Who did what to other things than one run, newest first.
#[utoipa::path(get, path = "/audit", operation_id = "list_acts", tag = "service", params(Before), responses((status = 200, body = Page<Act>)))]
pub(super) async fn audit(State(service): State<Arc<Service>>, Query(wanted): Query<Before>) -> Result<Json<Page<Act>>, Problem> {
    let limit = rows(wanted.limit)?;
    let acts = service.store().acts(wanted.before, limit).await?;
    let next = (acts.len() == limit as usize).then(|| acts.last().map(|row| row.seq.to_string())).flatten();
    Ok(Json(Page { items: acts.into_iter().map(Act::from).collect(), next }))
}
