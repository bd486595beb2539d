//! The live stream: server-sent events, numbered, so that who was away for a moment loses nothing.

use crate::wire;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use backstop_runtime::service::Service;
use backstop_runtime::service::live::{LiveEvent, What};
use futures_util::stream::{self, Stream};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// How often a line is sent when nothing happens, so that a dead link is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// From behind `Last-Event-ID`, or from now on. An event of the type `gap` says that something was missed: read the lists again.
pub(super) async fn stream(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let after = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let subscription = service.live().subscribe(after);
    let lost = subscription.has_gap.then(gap);
    let missed = subscription.missed.into_iter().map(|event| to_sse(&event));
    let first = stream::iter(lost.into_iter().chain(missed).map(Ok).collect::<Vec<_>>());
    let coming = stream::unfold(Some(subscription.coming), |coming| async move {
        let mut coming = coming?;
        match coming.recv().await {
            Ok(event) => Some((Ok(to_sse(&event)), Some(coming))),
            // A reader that is too slow loses its place, and nobody waits for it.
            Err(RecvError::Lagged(_)) => Some((Ok(gap()), Some(coming))),
            Err(RecvError::Closed) => None,
        }
    });
    Sse::new(stream::StreamExt::chain(first, coming)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn gap() -> Event {
    Event::default().event("gap").data("{}")
}

fn to_sse(event: &LiveEvent) -> Event {
    let (name, data) = match &event.what {
        What::Run { run, dag, recorded } => {
            let line = serde_json::to_value(wire::EventLine::new(run, recorded)).unwrap_or_default();
            ("run", json!({ "dag": dag.as_str(), "event": line }))
        }
        What::CatalogChanged => ("dags", json!({})),
    };
    Event::default().id(event.number.to_string()).event(name).data(data.to_string())
}
