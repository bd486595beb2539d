//! `runs show --json`: a run with all that is known of it.

use super::event::{Callback, Commit, Instance as Id, skip_cause};
use super::{Failed, Run, Statement};
use crate::runs::story::{Called, Segment, Story};
use backstop_core::InstanceId;
use backstop_core::event::CancelCause;
use backstop_store::InstanceRow;
use jiff::Timestamp;
use serde::Serialize;

/// A run with all that is known of it.
#[derive(Debug, Serialize)]
pub(crate) struct RunShown<'a> {
    #[serde(flatten)]
    pub(crate) run: Run<'a>,
    /// Null unless the run was ended before its time.
    pub(crate) cancelled: Option<Cancelled<'a>>,
    pub(crate) tasks: Vec<Instance<'a>>,
    pub(crate) segments: Vec<Committed<'a>>,
    pub(crate) statements: Vec<Statement<'a>>,
    pub(crate) callbacks: Vec<CallbackShown<'a>>,
    /// What persons did, and processes that took the run over.
    pub(crate) acts: Vec<ActShown<'a>>,
}

/// Why a run was ended before its time.
#[derive(Debug, Serialize)]
pub(crate) struct Cancelled<'a> {
    reason: &'a str,
    cause: &'static str,
}

/// A task instance.
#[derive(Debug, Serialize)]
pub(crate) struct Instance<'a> {
    task: &'a str,
    map_index: Option<u32>,
    state: &'a str,
    try_number: u32,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    /// The last failure's message, also when a later try went well.
    error: Option<&'a str>,
    /// Why it is in its state, in words: of one that did not go well or did not run.
    why: Option<String>,
    /// Of one that was skipped: `trigger_rule`, `branch`, `own`, `nothing_to_map`, `run_cancelled`.
    skip_cause: Option<&'static str>,
    /// Every try that did not end well, in order.
    failures: Vec<Tried<'a>>,
}

#[derive(Debug, Serialize)]
struct Tried<'a> {
    at: Timestamp,
    try_number: u32,
    /// Whether it was not known if it took effect.
    in_doubt: bool,
    failure: Failed<'a>,
}

/// A segment: what committed, what that promises, and how it is known.
#[derive(Debug, Serialize)]
pub(crate) struct Committed<'a> {
    #[serde(flatten)]
    instance: Id<'a>,
    try_number: u32,
    #[serde(flatten)]
    commit: Commit<'a>,
}

/// A callback that was wanted.
#[derive(Debug, Serialize)]
pub(crate) struct CallbackShown<'a> {
    #[serde(flatten)]
    callback: Callback<'a>,
    /// `pending`, `success` or `failed`.
    state: &'static str,
    failure: Option<Failed<'a>>,
}

/// Something that was done to the run.
#[derive(Debug, Serialize)]
pub(crate) struct ActShown<'a> {
    at: Timestamp,
    what: &'a str,
}

impl<'a> Instance<'a> {
    pub(crate) fn new(row: &'a InstanceRow, story: &'a Story, why: Option<String>) -> Self {
        let InstanceId { task, map_index } = &row.instance;
        let tries = story.tries.get(&row.instance).map(Vec::as_slice).unwrap_or_default();
        Self {
            task: task.as_str(),
            map_index: *map_index,
            state: &row.state,
            try_number: row.try_number,
            started_at: row.started_at,
            ended_at: row.ended_at,
            error: row.error.as_deref(),
            why,
            skip_cause: story.skipped.get(&row.instance).map(skip_cause),
            failures: tries
                .iter()
                .map(|tried| Tried {
                    at: tried.at,
                    try_number: tried.try_number,
                    in_doubt: tried.in_doubt,
                    failure: Failed::from(&*tried.failure),
                })
                .collect(),
        }
    }
}

impl<'a> From<&'a Segment> for Committed<'a> {
    fn from(segment: &'a Segment) -> Self {
        Self { instance: (&segment.instance).into(), try_number: segment.try_number, commit: Commit::from(&*segment.commit) }
    }
}

/// The parts of a story that are not about single tasks.
impl<'a> RunShown<'a> {
    pub(crate) fn cancelled(story: &'a Story) -> Option<Cancelled<'a>> {
        let (reason, cause) = story.cancelled.as_ref()?;
        let cause = match cause {
            CancelCause::Asked => "asked",
            CancelCause::DagrunTimeout => "dagrun_timeout",
        };
        Some(Cancelled { reason, cause })
    }

    pub(crate) fn callbacks(story: &'a Story) -> Vec<CallbackShown<'a>> {
        let shown = |(id, called): (&'a _, &'a Called)| {
            let (state, failure) = match called {
                Called::Pending => ("pending", None),
                Called::Ran => ("success", None),
                Called::Failed(failure) => ("failed", Some(Failed::from(&**failure))),
            };
            CallbackShown { callback: Callback::from(id), state, failure }
        };
        story.callbacks.iter().map(shown).collect()
    }

    pub(crate) fn acts(story: &'a Story) -> Vec<ActShown<'a>> {
        story.acts.iter().map(|act| ActShown { at: act.at, what: &act.text }).collect()
    }
}
