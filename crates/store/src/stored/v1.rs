//! Version 1 of the stored events. Published: only comments may change here. See the rules in the parent module.
//!
//! The types are apart from the core's on purpose, so that the core may be reshaped without touching a byte of a log. The conversions
//! match exhaustively: a new kind of event does not compile before it has a stored form.

mod read;
mod write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

type Text<'a> = Cow<'a, str>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    RunCreated(#[serde(borrow)] Box<Header<'a>>),
    RunStarted {
        at: Timestamp,
    },
    RunResumed {
        epoch: u64,
    },
    TaskScheduled {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
    },
    TaskExpanded {
        #[serde(borrow)]
        task: Text<'a>,
        items: Vec<Text<'a>>,
    },
    AttemptStarted {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        epoch: u64,
        at: Timestamp,
    },
    SegmentCommitted {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        commit: Commit<'a>,
    },
    AttemptSucceeded {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        result: Option<Text<'a>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        follow: Option<Vec<Text<'a>>>,
    },
    AttemptDeferred {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        until: Timestamp,
    },
    AttemptFailed {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        #[serde(rename = "final", default, skip_serializing_if = "is_false")]
        is_final: bool,
        failure: Failure<'a>,
    },
    AttemptUnknown {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        failure: Failure<'a>,
    },
    UnknownResolved {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        r#try: u32,
        evidence: Evidence<'a>,
    },
    RetryScheduled {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        at: Timestamp,
    },
    TimerFired {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
    },
    TaskSkipped {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
        cause: SkipCause<'a>,
    },
    TaskUpstreamFailed {
        #[serde(borrow)]
        task: Text<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        map: Option<u32>,
    },
    CallbackScheduled {
        #[serde(borrow)]
        callback: Callback<'a>,
    },
    CallbackFinished {
        #[serde(borrow)]
        callback: Callback<'a>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failure: Option<Failure<'a>>,
    },
    OperatorActed {
        #[serde(borrow)]
        who: Text<'a>,
        #[serde(borrow)]
        why: Text<'a>,
        #[serde(borrow)]
        what: Text<'a>,
    },
    CancelRequested {
        #[serde(borrow)]
        reason: Text<'a>,
        cause: CancelCause,
    },
    RunStuck {
        #[serde(borrow)]
        instances: Vec<Instance<'a>>,
    },
    RunSucceeded,
    RunFailed,
    RunCancelled,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Instance<'a> {
    #[serde(borrow)]
    task: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    map: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    run_id: Text<'a>,
    #[serde(borrow)]
    dag_id: Text<'a>,
    /// Added later: whoever does not know it looks for the project as before there was this.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    project: Option<Project<'a>>,
    #[serde(borrow)]
    version: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logical_date: Option<Timestamp>,
    /// Its start and its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_interval: Option<(Timestamp, Timestamp)>,
    queued_at: Timestamp,
    run_type: RunType,
    #[serde(default = "no_params", skip_serializing_if = "is_no_params")]
    params: Text<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    only_tasks: Vec<Text<'a>>,
    #[serde(default, skip_serializing_if = "is_false")]
    dry_run: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Project<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    root: Text<'a>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RunType {
    Manual,
    Scheduled,
    Backfill,
    AssetTriggered,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CancelCause {
    Asked,
    DagrunTimeout,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Commit<'a> {
    segment: u32,
    #[serde(borrow)]
    digest: Text<'a>,
    promise: Promise<'a>,
    evidence: Evidence<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    statements: Vec<Statement<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Promise<'a> {
    ExactlyOnce,
    ReadOnly,
    AtLeastOnce(#[serde(borrow)] Text<'a>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Evidence<'a> {
    Acknowledged,
    Marker,
    Tombstone,
    ReadOnly,
    Allowed,
    Operator {
        #[serde(borrow)]
        who: Text<'a>,
        #[serde(borrow)]
        why: Text<'a>,
        took_effect: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Statement<'a> {
    number: u32,
    line: u32,
    #[serde(borrow)]
    summary: Text<'a>,
    duration_us: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows_affected: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    rows_returned: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notices: Vec<Text<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure<'a> {
    class: FailureClass,
    #[serde(borrow)]
    message: Text<'a>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<Place<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sqlstate: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    native_code: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "is_empty")]
    effect: Text<'a>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    statements: Vec<Statement<'a>>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FailureClass {
    Transient,
    Permanent,
    Final,
    Cancelled,
    TimedOut,
    Interrupted,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Place<'a> {
    #[serde(borrow)]
    file: Text<'a>,
    line: u32,
    column: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statement: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SkipCause<'a> {
    TriggerRule,
    Branch(#[serde(borrow)] Text<'a>),
    Own(#[serde(borrow)] Text<'a>),
    NothingToMap,
    RunCancelled,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Callback<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    instance: Option<Instance<'a>>,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    r#try: u32,
    occasion: Occasion,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    place: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Occasion {
    Failure,
    Retry,
    Success,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

fn is_empty(text: &Text<'_>) -> bool {
    text.is_empty()
}

const NO_PARAMS: &str = "{}";

fn no_params() -> Text<'static> {
    Cow::Borrowed(NO_PARAMS)
}

fn is_no_params(params: &Text<'_>) -> bool {
    params == NO_PARAMS
}
