//! How many requests there were, of which routes and with which answers, and how long these took.

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use backstop_runtime::measure::Histogram;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Method, route and status: of each there are as many as the API has, whoever asks.
type Kind = (&'static str, String, u16);

/// What was asked.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    counts: Mutex<BTreeMap<Kind, u64>>,
    /// Until the answer begins: a stream goes on behind it.
    pub(crate) took: Histogram,
}

impl Traffic {
    /// How many of each kind.
    pub(crate) fn counts(&self) -> BTreeMap<Kind, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counts a request.
pub(crate) async fn count(State(traffic): State<Arc<Traffic>>, request: Request, next: Next) -> Response {
    // A method that nobody knows is one kind, not as many as there are words.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let method = known.into_iter().find(|known| *known == request.method().as_str()).unwrap_or("other");
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let began = Instant::now();
    let response = next.run(request).await;
    traffic.took.observe(began.elapsed());
    let kind = (method, route, response.status().as_u16());
    *traffic.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    response
}
