//! How the service is: health, metrics, pools, who did what.

use super::{Page, Query, rows};
use crate::Problem;
use crate::wire::steer::{Act, Health, Status};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use backstop_runtime::service::Service;
use serde::Deserialize;
use std::fmt::Write as _;
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

/// Numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "service", responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let counts = service.counts();
    let mut text = String::new();
    let mut tell = |kind: &str, name: &str, help: &str, values: &[(String, u64)]| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let totals = service.live().totals();
    let ended = |label: &str, word: &str, value: u64| (format!("{{{label}=\"{word}\"}}"), value);
    let runs_ended = [
        ended("state", "success", totals.runs_succeeded),
        ended("state", "failed", totals.runs_failed),
        ended("state", "cancelled", totals.runs_cancelled),
    ];
    tell("counter", "backstop_runs_made_total", "Runs made.", &[(String::new(), totals.runs_made)]);
    tell("counter", "backstop_runs_ended_total", "Runs that ended, by how.", &runs_ended);
    tell("counter", "backstop_runs_stuck_total", "Times that a run became stuck.", &[(String::new(), totals.runs_stuck)]);
    let deadlines = [ended("kind", "at_risk", totals.deadlines_at_risk), ended("kind", "missed", totals.deadlines_missed)];
    tell("counter", "backstop_deadlines_total", "Deadlines that were told of, by kind.", &deadlines);
    let attempts = [
        ended("outcome", "success", totals.attempts_succeeded),
        ended("outcome", "failed", totals.attempts_failed),
        ended("outcome", "unknown", totals.attempts_unknown),
    ];
    tell("counter", "backstop_attempts_total", "Attempts that ended, by how.", &attempts);
    tell("counter", "backstop_segments_committed_total", "Segments committed.", &[(String::new(), totals.segments_committed)]);
    let mut gauge = |name: &str, help: &str, values: &[(String, u64)]| tell("gauge", name, help, values);
    let of_state = |state: &str, value: usize| (format!("{{state=\"{state}\"}}"), value as u64);
    let runs = [
        of_state("queued", counts.queued),
        of_state("active", counts.active),
        of_state("hindered", counts.hindered),
        of_state("stuck", counts.stuck),
    ];
    gauge("backstop_runs", "Unfinished runs, by how they stand with the service.", &runs);
    gauge("backstop_tasks_running", "Tasks going on.", &[(String::new(), u64::from(service.slots().used()))]);
    gauge("backstop_dags", "DAGs loaded.", &[(String::new(), service.catalog().dags().len() as u64)]);
    let pools = service.slots().pools();
    let of_pool = |value: fn(&backstop_runtime::slots::PoolUse) -> u64| -> Vec<(String, u64)> {
        pools.iter().map(|pool| (format!("{{pool=\"{}\"}}", escaped(&pool.name)), value(pool))).collect()
    };
    gauge("backstop_pool_slots_used", "Slots in use.", &of_pool(|pool| u64::from(pool.used)));
    gauge("backstop_pool_waiting", "Instances that wait for slots.", &of_pool(|pool| pool.waiting as u64));
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
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
