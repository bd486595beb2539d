//! What machines read of commands: the JSON of summaries, connections and markers; that of runs is the server's. These shapes are a promise: fields are added,
//! never renamed or removed. Times are RFC 3339 in UTC.

pub(crate) mod kept;
pub(crate) mod shown;

pub(crate) use backstop_server::wire::version::{VersionDiff, VersionShown};
pub(crate) use backstop_server::wire::{EventLine, Failed, Run, Statement, counts, event, json};

use backstop_core::InstanceId;
use backstop_core::event::RunHeader;
use serde::Serialize;
use std::collections::BTreeMap;

/// The last line of `run --json`.
#[derive(Debug, Serialize)]
pub(crate) struct Summary<'a> {
    r#type: &'static str,
    run_id: &'a str,
    dag: &'a str,
    state: &'a str,
    exit_code: u8,
    duration_ms: u64,
    /// How many instances are in each state; states without any are absent.
    tasks: BTreeMap<&'static str, usize>,
    failed: Vec<FailedInstance<'a>>,
    /// Instances that a person must decide, and why.
    undecided: Vec<Undecided<'a>>,
}

#[derive(Debug, Serialize)]
struct FailedInstance<'a> {
    task: &'a str,
    map_index: Option<u32>,
    try_number: u32,
    failure: Option<Failed<'a>>,
}

#[derive(Debug, Serialize)]
struct Undecided<'a> {
    task: &'a str,
    map_index: Option<u32>,
    why: &'a str,
}

impl<'a> Summary<'a> {
    pub(crate) fn new(header: &'a RunHeader, report: &'a backstop_runtime::Report, exit_code: u8, duration_ms: u64) -> Self {
        use backstop_core::state::InstancePhase;
        let dag = report.state.dag();
        let failed = report
            .state
            .instances()
            .filter(|(_, view)| view.phase == InstancePhase::Failed)
            .filter_map(|(id, view)| {
                Some(FailedInstance {
                    task: dag.task(dag.index(id.task.as_str())?).id.as_str(),
                    map_index: id.map_index,
                    try_number: view.try_number,
                    failure: view.failure.map(|failure| Failed::from(&**failure)),
                })
            })
            .collect();
        Self {
            r#type: "summary",
            run_id: header.run_id.as_str(),
            dag: header.dag_id.as_str(),
            state: report.state.phase().as_str(),
            exit_code,
            duration_ms,
            tasks: counts(report.state.counts()),
            failed,
            undecided: report.undecided.iter().map(|(id, why)| undecided(id, why)).collect(),
        }
    }
}

fn undecided<'a>(id: &'a InstanceId, why: &'a str) -> Undecided<'a> {
    Undecided { task: id.task.as_str(), map_index: id.map_index, why }
}

/// A connection in a list. No secret is in it.
#[derive(Debug, Serialize)]
pub(crate) struct Connection<'a> {
    pub(crate) id: &'a str,
    pub(crate) r#type: &'a str,
    /// Null where the settings are wrong.
    pub(crate) target: Option<String>,
    pub(crate) origin: &'a str,
    pub(crate) description: Option<&'a str>,
    pub(crate) error: Option<String>,
}

/// What a test of a connection came to.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionTest {
    pub(crate) id: String,
    pub(crate) ok: bool,
    pub(crate) target: Option<String>,
    pub(crate) server_version: Option<String>,
    pub(crate) open_ms: Option<f64>,
    pub(crate) round_trip_ms: Option<f64>,
    /// `ready`, or `absent`: then it is made when it is first needed.
    pub(crate) marker_table: Option<&'static str>,
    pub(crate) error: Option<String>,
    pub(crate) causes: Vec<String>,
    pub(crate) hints: Vec<String>,
}

/// What became of the markers of one connection's database.
#[derive(Debug, Serialize)]
pub(crate) struct MarkersPruned {
    pub(crate) connection: String,
    pub(crate) dry_run: bool,
    /// Deleted, or that would be.
    pub(crate) markers: u64,
    /// To which the markers belonged.
    pub(crate) runs: usize,
    /// Kept, as they are not over yet.
    pub(crate) runs_unfinished: usize,
    /// Kept, as the store does not know them.
    pub(crate) runs_unknown: usize,
    pub(crate) error: Option<String>,
}
