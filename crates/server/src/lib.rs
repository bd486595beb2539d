//! The HTTP API of a service, and the live stream of what happens.
//!
//! This crate must not know: how runs are driven (it asks `backstop_runtime::service`), how definitions are written, databases of users.
//! An answer tells only what is durable. Every refusal is a problem document (RFC 9457) that says what to do next.
//!
//! Where to go next: [`api`] for what can be asked, [`guard`] for who may ask, [`problem`] for refusals, [`openapi`] for the description that
//! programs read, [`wire`] for the shapes, [`serve()`] for
//! the listener.

pub mod api;
mod etag;
pub mod guard;
pub mod openapi;
pub mod problem;
mod serve;
mod traffic;
pub mod wire;

pub use guard::Access;
pub use problem::Problem;
pub use serve::{Allowed, serve};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use backstop_runtime::service::Service;
use std::sync::Arc;

/// The largest body of a request.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Everything under one roof: `/health`, `/metrics` and `/api/v1`.
pub fn router(service: Arc<Service>, access: Access) -> Router {
    let api = api::router(service).layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    let api = api.layer(axum::middleware::from_fn(etag::tag));
    let api = api.layer(axum::middleware::from_fn_with_state(Arc::new(access), guard::check));
    let traffic = Arc::new(traffic::Traffic::default());
    let api = api.layer(axum::middleware::from_fn_with_state(traffic.clone(), traffic::count));
    api.layer(axum::Extension(traffic))
}
