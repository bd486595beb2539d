//! How the service is: health, metrics, pools, who did what.

use super::{Page, Query, rows};
use crate::Problem;
use crate::wire::steer::{Act, Health, Status};
use axum::extract::State;
use axum::{Extension, Json};
use backstop_runtime::service::Service;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::IntoParams;

/// Who asks within so long of a write to the store is told how that went: anybody may ask, and a write is dear.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// How the last write to the store went. Who asks while one goes on waits for it.
#[derive(Debug, Default)]
pub(crate) struct Pulse(Mutex<Option<(Instant, Result<(), Problem>)>>);

impl Pulse {
    async fn feel<F: Future<Output = Result<(), Problem>>>(
        &self,
        now: Instant,
        write: impl FnOnce() -> F,
    ) -> Result<(), Problem> {
        let mut last = self.0.lock().await;
        if let Some((at, outcome)) = last.as_ref()
            && now.saturating_duration_since(*at) < SHARED_FOR
        {
            return outcome.clone();
        }
        let outcome = write().await;
        // From when it began: what is told is never older than it seems.
        *last = Some((now, outcome.clone()));
        outcome
    }
}

/// Whether the service takes work.
///
/// 200 when the store can write, or could within the last second. Needs no token.
#[utoipa::path(get, path = "/health", operation_id = "get_health", tag = "service", responses((status = 200, body = Health)), security(()))]
pub(super) async fn health(
    State(service): State<Arc<Service>>,
    Extension(pulse): Extension<Arc<Pulse>>,
) -> Result<Json<Health>, Problem> {
    if service.is_stopping() {
        return Err(backstop_runtime::service::Error::Stopping.into());
    }
    // What cannot write is not healthy, and only a write tells.
    pulse.feel(Instant::now(), || async { service.write_to_store().await.map_err(Problem::from) }).await?;
    Ok(Json(Health {
        status: Status::Ok,
        version: env!("CARGO_PKG_VERSION"),
        dags_not_loaded: service.catalog().not_loaded().len(),
    }))
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
    let mut acts = service.store().acts(wanted.before, limit).await?;
    let redactor = service.redactor();
    for row in &mut acts {
        row.act.who = redactor.clean(&row.act.who).into_owned();
        row.act.why = redactor.clean(&row.act.why).into_owned();
    }
    let next = (acts.len() == limit as usize).then(|| acts.last().map(|row| row.seq.to_string())).flatten();
    Ok(Json(Page { items: acts.into_iter().map(Act::from).collect(), next }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn one_write_serves_all_who_ask_within_a_second() {
        let (pulse, writes) = (Pulse::default(), AtomicU32::new(0));
        let began = Instant::now();
        let (pulse, writes) = (&pulse, &writes);
        let ask = |after_ms: u64, can_write: bool| {
            let write = move || async move {
                writes.fetch_add(1, Ordering::Relaxed);
                // The others come meanwhile.
                tokio::task::yield_now().await;
                if can_write { Ok(()) } else { Err(Problem::bad_request("full")) }
            };
            pulse.feel(began + Duration::from_millis(after_ms), write)
        };
        let together = futures_util::future::join_all([ask(0, true), ask(0, true), ask(0, true), ask(999, false)]).await;
        assert!(together.iter().all(Result::is_ok));
        assert_eq!(writes.load(Ordering::Relaxed), 1);
        assert!(ask(1000, false).await.is_err(), "a second later the store is asked again");
        assert!(ask(1500, true).await.is_err() && ask(2000, true).await.is_ok());
        assert_eq!(writes.load(Ordering::Relaxed), 3);
    }
}
