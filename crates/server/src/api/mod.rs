//! What can be asked, under `/api/v1`.
//!
//! Lists are objects with `items` and `next`; `next` is the cursor of the next page, null behind the last.

mod activity;
mod backfills;
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
mod versions;
mod words;

use crate::Problem;
use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::{Json, Router};
use backstop_runtime::service::{Service, Who};
use page::{Page, Paging, rows};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// For the whole body of a request to come.
const BODY_AT_MOST: Duration = Duration::from_secs(30);

/// All routes, each with its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Service>> {
    let api = OpenApiRouter::new()
        .routes(routes!(dags::list))
        .routes(routes!(dags::show, dags::change))
        .routes(routes!(dags::trigger))
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
    let router = router.fallback(nothing).method_not_allowed_fallback(not_so).with_state(service);
    let places = axum::Extension(Arc::new(stream::Places::default()));
    router.layer(places).layer(axum::Extension(Arc::new(health::Pulse::default())))
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

/// A body of JSON, where none is an empty object; a refusal is a problem document.
pub(crate) struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let is_empty = length == Some(b"0") || length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING);
        if is_empty {
            let read = serde_json::from_str("{}");
            return read.map(Self).map_err(|error| Problem::bad_request(format!("a body of JSON is needed: {error}")));
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" {
            return Err(bad_body(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body wants `Content-Type: application/json`"));
        }
        let bytes = tokio::time::timeout(BODY_AT_MOST, Bytes::from_request(request, state)).await;
        let bytes = bytes.map_err(|_| {
            let detail = format!("the body did not come within {} seconds", BODY_AT_MOST.as_secs());
            bad_body(StatusCode::REQUEST_TIMEOUT, detail)
        })?;
        let bytes = bytes.map_err(|rejection| bad_body(rejection.status(), rejection.body_text()))?;
        // Serde would take a list for an object, field by field.
        if bytes.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
            return Err(bad_body(StatusCode::UNPROCESSABLE_ENTITY, "the body is a list; an object is wanted"));
        }
        let Json(body) = Json::from_bytes(&bytes)?;
        Ok(Self(body))
    }
}

fn bad_body(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem::new(status, "bad-body", "The body makes no sense", detail)
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        bad_body(rejection.status(), rejection.body_text())
    }
}

/// What is asked in the query; a refusal is a problem document.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(T);

impl From<axum::extract::rejection::QueryRejection> for Problem {
    fn from(rejection: axum::extract::rejection::QueryRejection) -> Self {
        Problem::bad_request(rejection.body_text())
    }
}

/// What stands in the path; a refusal is a problem document.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(T);

impl From<axum::extract::rejection::PathRejection> for Problem {
    fn from(rejection: axum::extract::rejection::PathRejection) -> Self {
        Problem::bad_request(rejection.body_text())
    }
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
