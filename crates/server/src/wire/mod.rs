//! What machines read, of runs: the JSON of the API, of `run --json` and of `runs --json`. These shapes are a promise: fields are added,
//! never renamed or removed. Times are RFC 3339 in UTC.

pub mod activity;
pub mod backfill;
pub mod cause;
pub(crate) mod dag;
pub mod event;
pub(crate) mod grid;
pub(crate) mod names;
pub(crate) mod rendered;
pub(crate) mod settings;
pub(crate) mod steer;
pub(crate) mod stream;
pub mod version;

use backstop_core::RunId;
use backstop_core::event::{Failure, RunHeader, RunType, StatementRecord};
use backstop_core::state::PhaseCounts;
use backstop_runtime::{Masked, Redactor};
use backstop_store::{RunRow, StatementRow};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// One event, as a line of NDJSON.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventLine<'a> {
    run_id: &'a str,
    seq: u64,
    at: Timestamp,
    #[serde(flatten)]
    event: event::Event<'a>,
}

impl<'a> EventLine<'a> {
    /// Of this run.
    pub fn new(run: &'a RunId, recorded: &'a Masked<'_>) -> Self {
        Self { run_id: run.as_str(), seq: recorded.seq, at: recorded.at, event: event::Event::from(&recorded.event) }
    }
}

/// A run in a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Run<'a> {
    run_id: &'a str,
    dag: &'a str,
    /// Where it is.
    #[schema(value_type = names::RunState)]
    state: &'a str,
    /// Something is left to do of it, but its process is gone, and no service goes on with it: it can be resumed.
    abandoned: bool,
    /// Who asked for it.
    #[schema(value_type = names::RunType)]
    run_type: &'static str,
    #[schema(required)]
    logical_date: Option<Timestamp>,
    #[schema(required)]
    data_interval_start: Option<Timestamp>,
    #[schema(required)]
    data_interval_end: Option<Timestamp>,
    queued_at: Timestamp,
    #[schema(required)]
    started_at: Option<Timestamp>,
    #[schema(required)]
    ended_at: Option<Timestamp>,
    /// Callbacks that have not run. A run that is over may have some.
    callbacks_pending: u64,
    /// With defaults filled in; `***` stands for secrets.
    #[schema(value_type = BTreeMap<String, Value>)]
    params: Value,
    only_tasks: Vec<&'a str>,
    dry_run: bool,
    version: &'a str,
    /// The `dag` task that started it.
    #[schema(required)]
    started_by: Option<cause::TaskOf<'a>>,
    /// The updates of assets that it stands for.
    asset_updates: Vec<cause::Update<'a>>,
}

impl<'a> Run<'a> {
    /// As the store has it, but for secrets in its parameters.
    pub fn new(row: &'a RunRow, abandoned: bool, redactor: &Redactor) -> Self {
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
            params: redactor.clean_named(&json(&header.params)),
            only_tasks: only_tasks(header),
            dry_run: header.dry_run,
            version: &header.version,
            started_by: cause::started_by(header),
            asset_updates: cause::asset_updates(header),
        }
    }
}

/// A statement that ran. `segment` is null in a segment that failed, and in a transaction that is open or was rolled back.
#[derive(Debug, Serialize, ToSchema)]
pub struct Statement<'a> {
    task: &'a str,
    #[schema(required)]
    map_index: Option<u32>,
    try_number: u32,
    #[schema(required)]
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
#[derive(Debug, Serialize, ToSchema)]
pub struct Record<'a> {
    number: u32,
    line: u32,
    summary: &'a str,
    duration_us: u64,
    #[schema(required)]
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
#[derive(Debug, Serialize, ToSchema)]
pub struct Failed<'a> {
    #[schema(value_type = names::FailureClass)]
    class: &'static str,
    message: &'a str,
    causes: &'a [String],
    #[schema(required)]
    file: Option<&'a str>,
    #[schema(required)]
    line: Option<u32>,
    #[schema(required)]
    column: Option<u32>,
    #[schema(required)]
    statement: Option<u32>,
    #[schema(required)]
    sqlstate: Option<&'a str>,
    #[schema(required)]
    native_code: Option<&'a str>,
    effect: &'a str,
    #[schema(required)]
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

/// The states that have instances.
pub fn counts(counts: PhaseCounts) -> BTreeMap<&'static str, usize> {
    let PhaseCounts {
        none,
        scheduled,
        running,
        deferred,
        up_for_retry,
        in_doubt,
        held,
        success,
        failed,
        skipped,
        upstream_failed,
        rolled_back,
        removed,
    } = counts;
    [
        ("none", none),
        ("scheduled", scheduled),
        ("running", running),
        ("up_for_reschedule", deferred),
        ("up_for_retry", up_for_retry),
        ("in_doubt", in_doubt),
        ("done_not_committed", held),
        ("success", success),
        ("failed", failed),
        ("skipped", skipped),
        ("upstream_failed", upstream_failed),
        ("rolled_back", rolled_back),
        ("removed", removed),
    ]
    .into_iter()
    .filter(|(_, number)| *number > 0)
    .collect()
}

/// The store's own word is replaced by the one that the core, the log and Airflow have for it.
pub(crate) fn instance_state(kept: &str) -> &str {
    if kept == "deferred" { "up_for_reschedule" } else { kept }
}

/// In a word.
pub fn run_type(run_type: RunType) -> &'static str {
    match run_type {
        RunType::Manual => "manual",
        RunType::Scheduled => "scheduled",
        RunType::Backfill => "backfill",
        RunType::AssetTriggered => "asset_triggered",
    }
}

/// By name.
pub fn only_tasks(header: &RunHeader) -> Vec<&str> {
    header.only_tasks.iter().map(backstop_core::TaskId::as_str).collect()
}

/// Text that the runtime made as JSON. Should it not be JSON, it is a text.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}
