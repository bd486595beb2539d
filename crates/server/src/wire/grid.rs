//! A grid as machines read it: runs by tasks, one cell each.

use backstop_store::{GridRow, GridTask};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a cell shows where its instances differ: the first of these that one of them has. As Airflow's grid.
const WORST_FIRST: [&str; 12] = [
    "in_doubt",
    "failed",
    "rolled_back",
    "upstream_failed",
    "up_for_retry",
    "running",
    "deferred",
    "scheduled",
    "none",
    "done_not_committed",
    "success",
    "skipped",
];

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GridRun<'a> {
    run_id: &'a str,
    #[schema(value_type = super::names::RunState)]
    state: &'a str,
    #[schema(value_type = super::names::RunType)]
    run_type: &'static str,
    #[schema(required)]
    logical_date: Option<Timestamp>,
    #[schema(required)]
    started_at: Option<Timestamp>,
    #[schema(required)]
    ended_at: Option<Timestamp>,
    /// In seconds; of a run that goes on, until now. Null before its start.
    #[schema(required)]
    duration: Option<f64>,
    version: &'a str,
    tasks: Vec<GridCell<'a>>,
    /// It has more task instances than a grid shows, and those behind are left out.
    cut: bool,
}

/// A task in a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GridCell<'a> {
    task: &'a str,
    #[schema(value_type = super::names::InstanceState)]
    state: &'a str,
    try_number: u32,
    #[schema(required)]
    started_at: Option<Timestamp>,
    #[schema(required)]
    ended_at: Option<Timestamp>,
    #[schema(required)]
    duration: Option<f64>,
    mapped: bool,
    /// Instances in each state, of a mapped task.
    #[serde(skip_serializing_if = "Option::is_none")]
    states: Option<&'a BTreeMap<String, u32>>,
}

impl<'a> GridRun<'a> {
    /// As the store has it; `now` ends what goes on.
    pub(crate) fn new(row: &'a GridRow, now: Timestamp) -> Self {
        let (run, header) = (&row.run, &*row.run.header);
        Self {
            run_id: header.run_id.as_str(),
            state: &run.state,
            run_type: super::run_type(header.run_type),
            logical_date: header.logical_date,
            started_at: run.started_at,
            ended_at: run.ended_at,
            duration: seconds(run.started_at, run.ended_at.or(Some(now))),
            version: &header.version,
            tasks: row.tasks.iter().map(|task| cell(task, now)).collect(),
            cut: row.is_cut,
        }
    }
}

fn cell(task: &GridTask, now: Timestamp) -> GridCell<'_> {
    let shown = WORST_FIRST.into_iter().find(|state| task.states.contains_key(*state));
    // A state that is not known here is of one instance at least.
    let state = shown.or_else(|| task.states.keys().next().map(String::as_str)).unwrap_or("none");
    let goes_on = matches!(state, "running" | "deferred").then_some(now);
    GridCell {
        task: task.task.as_str(),
        state: super::instance_state(state),
        try_number: task.try_number,
        started_at: task.started_at,
        ended_at: task.ended_at,
        duration: seconds(task.started_at, task.ended_at.or(goes_on)),
        mapped: task.is_mapped,
        states: task.is_mapped.then_some(&task.states),
    }
}

fn seconds(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<f64> {
    let (start, end) = start.zip(end)?;
    Some(end.duration_since(start).as_secs_f64().max(0.0))
}
