//! Numbers for Prometheus, in its text format.

use crate::traffic::Traffic;
use axum::Extension;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use backstop_runtime::measure::{BOUNDS, Histogram};
use backstop_runtime::service::Service;
use std::fmt::Write as _;
use std::sync::Arc;

/// The text, as it grows. Writing to a String cannot fail.
#[derive(Default)]
struct Page(String);

impl Page {
    fn tell(&mut self, kind: &str, name: &str, help: &str, values: &[(String, u64)]) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn one(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        self.tell(kind, name, help, &[(String::new(), value)]);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let (counts, all, sum) = histogram.read();
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (bound, count) in BOUNDS.iter().zip(counts) {
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {all}\n{name}_sum {sum}\n{name}_count {all}");
    }
}

/// Numbers for Prometheus.
#[utoipa::path(get, path = "/metrics", operation_id = "get_metrics", tag = "service",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4")))]
pub(super) async fn metrics(
    State(service): State<Arc<Service>>,
    Extension(traffic): Extension<Arc<Traffic>>,
) -> impl IntoResponse {
    let mut page = Page::default();
    totals(&mut page, &service);
    gauges(&mut page, &service);
    let measures = service.live().measures();
    let seconds = [
        ("backstop_schedule_lag_seconds", "From when a schedule was due until its run was made.", &measures.schedule_lag),
        ("backstop_run_start_seconds", "From when a run was asked for until it began.", &measures.run_start),
        ("backstop_run_seconds", "From when a run began until it ended.", &measures.run),
        ("backstop_attempt_seconds", "Attempts of tasks; each look of a sensor is one.", &measures.attempt),
        ("backstop_store_append_seconds", "From when events were queued until they were durable.", &measures.append),
        ("backstop_http_request_seconds", "From a request until its answer begins.", &traffic.took),
    ];
    seconds.into_iter().for_each(|(name, help, histogram)| page.histogram(name, help, histogram));
    let requests: Vec<(String, u64)> = traffic
        .counts()
        .into_iter()
        .map(|((method, route, status), count)| {
            (format!("{{method=\"{method}\",route=\"{}\",status=\"{status}\"}}", escaped(&route)), count)
        })
        .collect();
    page.tell("counter", "backstop_http_requests_total", "Requests that were answered.", &requests);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.0)
}

fn totals(page: &mut Page, service: &Service) {
    let totals = service.live().totals();
    let ended = |label: &str, word: &str, value: u64| (format!("{{{label}=\"{word}\"}}"), value);
    let runs_ended = [
        ended("state", "success", totals.runs_succeeded),
        ended("state", "failed", totals.runs_failed),
        ended("state", "cancelled", totals.runs_cancelled),
    ];
    let attempts = [
        ended("outcome", "success", totals.attempts_succeeded),
        ended("outcome", "failed", totals.attempts_failed),
        ended("outcome", "unknown", totals.attempts_unknown),
    ];
    let deadlines = [ended("kind", "at_risk", totals.deadlines_at_risk), ended("kind", "missed", totals.deadlines_missed)];
    page.tell("counter", "backstop_deadlines_total", "Deadlines that were told of, by kind.", &deadlines);
    page.one("counter", "backstop_runs_made_total", "Runs made.", totals.runs_made);
    page.tell("counter", "backstop_runs_ended_total", "Runs that ended, by how.", &runs_ended);
    page.one("counter", "backstop_runs_stuck_total", "Times that a run became stuck.", totals.runs_stuck);
    page.tell("counter", "backstop_attempts_total", "Attempts that ended, by how.", &attempts);
    page.one("counter", "backstop_segments_committed_total", "Segments committed.", totals.segments_committed);
}

fn gauges(page: &mut Page, service: &Service) {
    let counts = service.counts();
    let of_state = |state: &str, value: usize| (format!("{{state=\"{state}\"}}"), value as u64);
    let runs = [
        of_state("queued", counts.queued),
        of_state("active", counts.active),
        of_state("hindered", counts.hindered),
        of_state("stuck", counts.stuck),
    ];
    page.tell("gauge", "backstop_runs", "Unfinished runs, by how they stand with the service.", &runs);
    page.one("gauge", "backstop_tasks_running", "Tasks going on.", u64::from(service.slots().used()));
    let housekeeping = service.housekeeping();
    page.one("counter", "backstop_runs_removed_total", "Old runs removed.", housekeeping.runs_removed);
    let fails = u64::from(housekeeping.trouble.is_some());
    page.one("gauge", "backstop_housekeeping_fails", "1 when the last round of removing old runs failed.", fails);
    page.one("gauge", "backstop_dags", "DAGs loaded.", service.catalog().dags().len() as u64);
    let pools = service.slots().pools();
    let of_pool = |value: fn(&backstop_runtime::slots::PoolUse) -> u64| -> Vec<(String, u64)> {
        pools.iter().map(|pool| (format!("{{pool=\"{}\"}}", escaped(&pool.name)), value(pool))).collect()
    };
    page.tell("gauge", "backstop_pool_slots_used", "Slots in use.", &of_pool(|pool| u64::from(pool.used)));
    page.tell("gauge", "backstop_pool_waiting", "Instances that wait for slots.", &of_pool(|pool| pool.waiting as u64));
    let sessions: Vec<(String, u64)> = service
        .sessions_open()
        .into_iter()
        .map(|((project, connection), open)| {
            (format!("{{project=\"{}\",connection=\"{}\"}}", escaped(&project), escaped(&connection)), open as u64)
        })
        .collect();
    page.tell("gauge", "backstop_sessions_open", "Sessions with databases, in use or kept for the next.", &sessions);
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
