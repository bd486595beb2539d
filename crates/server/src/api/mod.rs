//! What can be asked, under `/api/v1`.
//!
//! Lists are objects with `items` and `next`; `next` is the cursor of the next page, null behind the last.

mod activity;
mod backfills;
mod body;
mod connections;
mod dags;
mod document;
mod health;
mod lists;
mod logs;
mod metrics;
mod operate;
mod page;
mod rendered;
mod runs;
mod settings;
mod stream;
mod trigger;
mod versions;
mod words;

use crate::Problem;
use axum::Router;
use axum::http::StatusCode;
use backstop_runtime::service::{Service, Who};
use body::{Body, Path, Query};
use page::{Page, Paging, rows};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// All routes, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Service>> {
    let api = OpenApiRouter::new()
        .routes(routes!(dags::list))
        .routes(routes!(dags::show, dags::change))
        .routes(routes!(trigger::trigger))
        .routes(routes!(trigger::trigger_all))
        .routes(routes!(operate::clear_runs))
        .routes(routes!(operate::retry_runs))
        .routes(routes!(operate::mark_runs))
        .routes(routes!(backfills::ask))
        .routes(routes!(backfills::list))
        .routes(routes!(backfills::show))
        .routes(routes!(backfills::pause))
        .routes(routes!(backfills::resume))
        .routes(routes!(backfills::cancel))
        .routes(routes!(dags::problems))
        .routes(routes!(versions::list))
        .routes(routes!(versions::diff))
        .routes(routes!(lists::grid))
        .routes(routes!(lists::durations))
        .routes(routes!(lists::instances))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::tasks))
        .routes(routes!(runs::statements))
        .routes(routes!(runs::events))
        .routes(routes!(runs::why))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::resolve))
        .routes(routes!(operate::clear))
        .routes(routes!(operate::retry))
        .routes(routes!(operate::mark))
        .routes(routes!(operate::cancel))
        .routes(routes!(operate::why))
        .routes(routes!(rendered::sql))
        .routes(routes!(logs::page))
        .routes(routes!(logs::whole))
        .routes(routes!(dags::source))
        .routes(routes!(connections::list))
        .routes(routes!(connections::test))
        .routes(routes!(settings::variables))
        .routes(routes!(settings::variable, settings::set_variable, settings::delete_variable))
        .routes(routes!(settings::pools))
        .routes(routes!(settings::pool, settings::set_pool, settings::delete_pool))
        .routes(routes!(activity::samples))
        .routes(routes!(activity::activity))
        .routes(routes!(health::audit))
        .routes(routes!(stream::stream))
        .routes(routes!(document::document));
    OpenApiRouter::new().routes(routes!(health::health)).routes(routes!(metrics::metrics)).nest("/api/v1", api)
}

/// What serves them.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let (router, _) = routes().split_for_parts();
    let router =
        router.route("/", axum::routing::get(entrance)).fallback(nothing).method_not_allowed_fallback(not_so).with_state(service);
    let places = axum::Extension(Arc::new(stream::Places::default()));
    router.layer(places).layer(axum::Extension(Arc::new(health::Pulse::default())))
}

/// For who comes with a browser, or tries the address out. It is no part of the API.
async fn entrance() -> String {
    format!(
        "Backstop {}: a scheduler of SQL batches.\n\n\
         /api/v1               the API: try /api/v1/dags and /api/v1/runs\n\
         /api/v1/openapi.json  its description, for programs\n\
         /health, /metrics     for whoever looks after it\n\n\
         From a shell: backstop --help\n\
         Documentation: {}/tree/main/docs, docs/service.md first\n",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_REPOSITORY"),
    )
}

async fn nothing() -> Problem {
    Problem::not_found("there is nothing at this path")
}

async fn not_so() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Not by this method",
        "this path is not asked by this method",
    )
}

/// A name that a request gives to something; it goes into paths and file names.
fn name(field: &str, text: String) -> Result<String, Problem> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (8..=64).contains(&text.len()) && text.chars().all(is_fine) && text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Ok(text);
    }
    Err(Problem::bad_request(format!(
        "`{field}` has 8 to 64 letters, digits, `-`, `_` or `.`, and begins with a letter or digit"
    )))
}

/// Who asks, and why; in the body of everything that changes something.
// Written as well, for the defaults in the description.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema, IntoParams)]
#[serde(deny_unknown_fields, default)]
struct By {
    /// Who; `api` when nobody says.
    #[serde(deserialize_with = "words::who")]
    #[schema(max_length = 256)]
    who: Option<String>,
    /// Why.
    #[serde(deserialize_with = "words::why")]
    why: Option<String>,
}

/// Who asks, and why, of what is kept in a run's log: there must be a reason.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Because {
    /// Who; `api` when nobody says.
    #[serde(deserialize_with = "words::who")]
    #[schema(max_length = 256)]
    who: Option<String>,
    /// Why, for the run's log.
    #[serde(deserialize_with = "words::reason")]
    #[schema(required, min_length = 1, pattern = r"\S")]
    why: String,
}

impl From<Because> for Who {
    fn from(Because { who, why }: Because) -> Self {
        By { who, why: Some(why) }.into()
    }
}

impl From<By> for Who {
    fn from(by: By) -> Self {
        let clean = |text: Option<String>| text.unwrap_or_default().trim().to_owned();
        let who = clean(by.who);
        Self { who: if who.is_empty() { "api".into() } else { who }, why: clean(by.why) }
    }
}
