//! Statements at work, as machines read them.

use backstop_runtime::monitor::Activity;
use backstop_store::{Blocking, HowFar, Sample, SampleRow, UsualTime};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What runs now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Activity)]
pub struct Now<'a> {
    items: Vec<Running<'a>>,
    /// The cursor of the next page; null behind the last row.
    #[schema(required)]
    next: Option<String>,
    /// Why not all that is asked of a server is told, by connection: the right that is missing, or what its server said.
    not_seen: BTreeMap<String, String>,
}

impl<'a> Now<'a> {
    /// The longest first.
    pub fn new(running: &'a [Activity], next: Option<String>, not_seen: BTreeMap<String, String>) -> Self {
        Self { items: running.iter().map(Running::from).collect(), next, not_seen }
    }
}

/// A statement that runs now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Running<'a> {
    run_id: &'a str,
    dag: &'a str,
    task: &'a str,
    #[schema(required)]
    map_index: Option<u32>,
    try_number: u32,
    connection: &'a str,
    session: &'a str,
    since: Timestamp,
    #[serde(flatten)]
    seen: Seen<'a>,
}

impl<'a> From<&'a Activity> for Running<'a> {
    fn from(activity: &'a Activity) -> Self {
        Self {
            run_id: activity.run.as_str(),
            dag: activity.dag.as_str(),
            task: activity.instance.task.as_str(),
            map_index: activity.instance.map_index,
            try_number: activity.try_number,
            connection: &activity.connection,
            session: &activity.session,
            since: activity.since,
            seen: Seen::from(&activity.sample),
        }
    }
}

/// A sample that was kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct Kept<'a> {
    at: Timestamp,
    try_number: u32,
    session: &'a str,
    #[serde(flatten)]
    seen: Seen<'a>,
}

impl<'a> From<&'a SampleRow> for Kept<'a> {
    fn from(row: &'a SampleRow) -> Self {
        Self { at: row.at, try_number: row.try_number, session: &row.session, seen: Seen::from(&row.sample) }
    }
}

/// How a statement looked. Null is what the server does not tell.
#[derive(Debug, Serialize, ToSchema)]
struct Seen<'a> {
    statement: u32,
    summary: &'a str,
    elapsed_ms: u64,
    #[schema(required)]
    usual: Option<Usual>,
    #[schema(required)]
    state: Option<&'a str>,
    #[schema(required)]
    wait: Option<&'a str>,
    blocked_by: Vec<Blocked<'a>>,
    #[schema(required)]
    blocked_ms: Option<u64>,
    #[schema(required)]
    progress: Option<Progress<'a>>,
    #[schema(required)]
    rows: Option<u64>,
    /// All of it in a sentence.
    told: String,
}

impl<'a> From<&'a Sample> for Seen<'a> {
    fn from(sample: &'a Sample) -> Self {
        Self {
            statement: sample.statement,
            summary: &sample.summary,
            elapsed_ms: sample.elapsed_ms,
            usual: sample.usual.as_ref().map(Usual::from),
            state: sample.state.as_deref(),
            wait: sample.wait.as_deref(),
            blocked_by: sample.blocked_by.iter().map(Blocked::from).collect(),
            blocked_ms: sample.blocked_ms,
            progress: sample.progress.as_ref().map(Progress::from),
            rows: sample.rows,
            told: sample.to_string(),
        }
    }
}

/// How long it took in earlier runs.
#[derive(Debug, Serialize, ToSchema)]
struct Usual {
    p50_ms: u64,
    p95_ms: u64,
    of: u32,
}

impl From<&UsualTime> for Usual {
    fn from(usual: &UsualTime) -> Self {
        Self { p50_ms: usual.p50_ms, p95_ms: usual.p95_ms, of: usual.of }
    }
}

/// Who keeps it waiting. `run_id` and `task` when it is one of ours.
#[derive(Debug, Serialize, ToSchema)]
struct Blocked<'a> {
    #[schema(required)]
    session: Option<&'a str>,
    #[schema(required)]
    user: Option<&'a str>,
    #[schema(required)]
    application: Option<&'a str>,
    #[schema(required)]
    host: Option<&'a str>,
    #[schema(required)]
    state: Option<&'a str>,
    #[schema(required)]
    statement: Option<&'a str>,
    #[schema(required)]
    transaction_ms: Option<u64>,
    #[schema(required)]
    run_id: Option<&'a str>,
    #[schema(required)]
    task: Option<&'a str>,
}

impl<'a> From<&'a Blocking> for Blocked<'a> {
    fn from(blocking: &'a Blocking) -> Self {
        Self {
            session: blocking.session.as_deref(),
            user: blocking.user.as_deref(),
            application: blocking.application.as_deref(),
            host: blocking.host.as_deref(),
            state: blocking.state.as_deref(),
            statement: blocking.statement.as_deref(),
            transaction_ms: blocking.transaction_ms,
            run_id: blocking.run.as_deref(),
            task: blocking.task.as_deref(),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
struct Progress<'a> {
    phase: &'a str,
    done: u64,
    #[schema(required)]
    total: Option<u64>,
    unit: &'a str,
}

impl<'a> From<&'a HowFar> for Progress<'a> {
    fn from(how_far: &'a HowFar) -> Self {
        Self { phase: &how_far.phase, done: how_far.done, total: how_far.total, unit: &how_far.unit }
    }
}
