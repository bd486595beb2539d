//! What machines read: the JSON of `run --json`, `runs --json` and `connections --json`. These shapes are a promise: fields are added,
//! never renamed or removed. Times are RFC 3339 in UTC.

mod event;
pub(crate) mod shown;

use backstop_core::event::{Failure, RunHeader, RunType, StatementRecord};
use backstop_core::state::PhaseCounts;
use backstop_core::{InstanceId, RunId};
use backstop_store::{Recorded, RunRow, StatementRow};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One event, as a line of NDJSON.
#[derive(Debug, Serialize)]
pub(crate) struct EventLine<'a> {
    run_id: &'a str,
    seq: u64,
    at: Timestamp,
    #[serde(flatten)]
    event: event::Event<'a>,
}

impl<'a> EventLine<'a> {
    pub(crate) fn new(run: &'a RunId, recorded: &'a Recorded) -> Self {
        Self { run_id: run.as_str(), seq: recorded.seq, at: recorded.at, event: event::Event::from(&recorded.event) }
    }
}

/// A run in a list.
#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
    run_id: &'a str,
    dag: &'a str,
    state: &'a str,
    /// Something is left to do of it, but its process is gone: it can be resumed.
    abandoned: bool,
    run_type: &'static str,
    logical_date: Option<Timestamp>,
    data_interval_start: Option<Timestamp>,
    data_interval_end: Option<Timestamp>,
    queued_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// Callbacks that have not run. A run that is over may have some.
    callbacks_pending: u64,
    params: Value,
    only_tasks: Vec<&'a str>,
    dry_run: bool,
    version: &'a str,
}

impl<'a> Run<'a> {
    pub(crate) fn new(row: &'a RunRow, abandoned: bool) -> Self {
        let header = &*row.header;
        Self {
            run_id: header.run_id.as_str(),
            dag: header.dag_id.as_str(),
            state: &row.state,
            abandoned,
            run_type: run_type(header.run_type),
            logical_date: header.logical_date,
            data_interval_start: header.data_interval.map(|(start, _)| start),
            data_interval_end: header.data_interval.map(|(_, end)| end),
            queued_at: header.queued_at,
            started_at: row.started_at,
            ended_at: row.ended_at,
            callbacks_pending: row.callbacks_pending,
            params: json(&header.params),
            only_tasks: only_tasks(header),
            dry_run: header.dry_run,
            version: &header.version,
        }
    }
}

/// A statement that ran. `segment` is null in a segment that failed.
#[derive(Debug, Serialize)]
pub(crate) struct Statement<'a> {
    task: &'a str,
    map_index: Option<u32>,
    try_number: u32,
    segment: Option<u32>,
    #[serde(flatten)]
    record: Record<'a>,
}

impl<'a> From<&'a StatementRow> for Statement<'a> {
    fn from(row: &'a StatementRow) -> Self {
        Self {
            task: row.instance.task.as_str(),
            map_index: row.instance.map_index,
            try_number: row.try_number,
            segment: row.segment,
            record: Record::from(&row.record),
        }
    }
}

/// How a statement ran.
#[derive(Debug, Serialize)]
struct Record<'a> {
    number: u32,
    line: u32,
    summary: &'a str,
    duration_us: u64,
    rows_affected: Option<u64>,
    rows_returned: u64,
    notices: &'a [String],
}

impl<'a> From<&'a StatementRecord> for Record<'a> {
    fn from(record: &'a StatementRecord) -> Self {
        Self {
            number: record.number,
            line: record.line,
            summary: &record.summary,
            duration_us: record.duration_us,
            rows_affected: record.rows_affected,
            rows_returned: record.rows_returned,
            notices: &record.notices,
        }
    }
}

/// Why something failed.
#[derive(Debug, Serialize)]
struct Failed<'a> {
    class: &'static str,
    message: &'a str,
    causes: &'a [String],
    file: Option<&'a str>,
    line: Option<u32>,
    column: Option<u32>,
    statement: Option<u32>,
    sqlstate: Option<&'a str>,
    native_code: Option<&'a str>,
    effect: &'a str,
    hint: Option<&'a str>,
    statements: Vec<Record<'a>>,
}

impl<'a> From<&'a Failure> for Failed<'a> {
    fn from(failure: &'a Failure) -> Self {
        let place = failure.place.as_ref();
        Self {
            class: event::failure_class(failure.class),
            message: &failure.message,
            causes: &failure.causes,
            file: place.map(|at| at.file.as_str()),
            line: place.map(|at| at.line),
            column: place.map(|at| at.column),
            statement: place.and_then(|at| at.statement),
            sqlstate: failure.sqlstate.as_deref(),
            native_code: failure.native_code.as_deref(),
            effect: &failure.effect,
            hint: failure.hint.as_deref(),
            statements: failure.statements.iter().map(Record::from).collect(),
        }
    }
}

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

/// The states that have instances.
pub(crate) fn counts(counts: PhaseCounts) -> BTreeMap<&'static str, usize> {
    let PhaseCounts {
        none,
        scheduled,
        running,
        deferred,
        up_for_retry,
        in_doubt,
        success,
        failed,
        skipped,
        upstream_failed,
        removed,
    } = counts;
    [
        ("none", none),
        ("scheduled", scheduled),
        ("running", running),
        ("up_for_reschedule", deferred),
        ("up_for_retry", up_for_retry),
        ("in_doubt", in_doubt),
        ("success", success),
        ("failed", failed),
        ("skipped", skipped),
        ("upstream_failed", upstream_failed),
        ("removed", removed),
    ]
    .into_iter()
    .filter(|(_, number)| *number > 0)
    .collect()
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

pub(crate) fn run_type(run_type: RunType) -> &'static str {
    match run_type {
        RunType::Manual => "manual",
        RunType::Scheduled => "scheduled",
        RunType::Backfill => "backfill",
        RunType::AssetTriggered => "asset_triggered",
    }
}

fn only_tasks(header: &RunHeader) -> Vec<&str> {
    header.only_tasks.iter().map(backstop_core::TaskId::as_str).collect()
}

/// Text that the runtime made as JSON. Should it not be JSON, it is a text.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}
