//! The live stream: server-sent events, numbered, so that who was away for a moment loses nothing.

use crate::wire::stream::{Gap, OfDags, OfRun, StreamEvent};
use crate::{Problem, wire};
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use backstop_runtime::Redactor;
use backstop_runtime::service::Service;
use backstop_runtime::service::live::{LiveEvent, What};
use futures_util::stream::{self, Stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How often a line is sent when nothing happens, so that a dead link is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Answers at once that go on for as long as the reader likes: streams, and logs that are followed. The rest of the connections is for
/// questions.
const STREAMS_MAX: usize = 256;

/// Places for such answers.
#[derive(Debug)]
pub(crate) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

impl Places {
    /// Held for as long as the answer goes on.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{STREAMS_MAX} streams and followed logs are read already");
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-streams", "Too many streams", detail);
            problem.hint("close one that nobody reads, or ask again later")
        })
    }
}

/// What happens, as server-sent events.
///
/// From behind `Last-Event-ID`, or from now on. `run` is an event of a run, `dags` says that DAGs changed or were paused, and `gap` that
/// something was missed: read the lists again. The data of each is JSON.
#[utoipa::path(get, path = "/stream", operation_id = "stream", tag = "service",
    params(("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event that was read")),
    responses((status = 200, body = StreamEvent, content_type = "text/event-stream",
        description = "Without end; the data of each event has the schema of its name: `run` StreamRun, `dags` StreamDags, `gap` StreamGap")))]
pub(super) async fn stream(
    State(service): State<Arc<Service>>,
    Extension(places): Extension<Arc<Places>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let after = headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    let after = match after {
        Some(None) => return Err(Problem::bad_request("`Last-Event-ID` is no number: take it from the `id` of an event")),
        Some(after) => after,
        None => None,
    };
    let place = places.take()?;
    let subscription = service.live().subscribe(after);
    // What was missed is made into text only as it is read: a reader that does not read costs nothing but its place.
    let lost = subscription.has_gap.then(|| Ok(gap()));
    let redactor = service.redactor();
    let missed = subscription.missed.into_iter().map(move |event| Ok(to_sse(&event, &redactor)));
    let first = stream::iter(lost.into_iter().chain(missed));
    let coming = stream::unfold((subscription.coming, place, service), |(mut coming, place, service)| async move {
        match coming.recv().await {
            Ok(event) => Some((Ok(to_sse(&event, &service.redactor())), (coming, place, service))),
            // A reader that is too slow loses its place, and nobody waits for it.
            Err(RecvError::Lagged(_)) => Some((Ok(gap()), (coming, place, service))),
            Err(RecvError::Closed) => None,
        }
    });
    Ok(Sse::new(stream::StreamExt::chain(first, coming)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn gap() -> Event {
    Event::default().event("gap").data(to_json(&Gap {}))
}

fn to_sse(event: &LiveEvent, redactor: &Redactor) -> Event {
    let (name, data) = match &event.what {
        What::Run { run, dag, recorded } => {
            ("run", to_json(&OfRun { dag: dag.as_str(), event: wire::EventLine::new(run, &redactor.mask(recorded)) }))
        }
        What::CatalogChanged => ("dags", to_json(&OfDags {})),
    };
    Event::default().id(event.number.to_string()).event(name).data(data)
}

fn to_json(data: &impl serde::Serialize) -> String {
    serde_json::to_string(data).unwrap_or_default()
}
