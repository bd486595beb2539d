//! The events of a run, as machines read them.

#![allow(missing_docs, reason = "the names are those of `backstop_core::event`, which documents them")]

use super::cause::{self, TaskOf, Update};
use super::{Failed, Record, json, names, only_tasks, run_type};
use backstop_core::event::{
    self as core, Afterwards, CancelCause, Evidence, FailureClass, Mark, Occasion, Promise, Restart, SegmentCommit, SkipCause,
};
use backstop_core::{InstanceId, TaskId};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One event; `type` says which.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event<'a> {
    RunCreated {
        dag: &'a str,
        version: &'a str,
        #[schema(required)]
        logical_date: Option<Timestamp>,
        #[schema(required)]
        data_interval_start: Option<Timestamp>,
        #[schema(required)]
        data_interval_end: Option<Timestamp>,
        #[schema(value_type = names::RunType)]
        run_type: &'static str,
        #[schema(value_type = BTreeMap<String, Value>)]
        params: Value,
        only_tasks: Vec<&'a str>,
        dry_run: bool,
        #[schema(required)]
        started_by: Option<TaskOf<'a>>,
        asset_updates: Vec<Update<'a>>,
    },
    AssetsUpdated {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        assets: Vec<&'a str>,
    },
    DeadlineAtRisk {
        deadline: u32,
        due_at: Timestamp,
        done_at: Timestamp,
    },
    DeadlineMissed {
        deadline: u32,
        due_at: Timestamp,
    },
    RunStarted,
    RunResumed {
        epoch: u64,
    },
    TaskScheduled(Instance<'a>),
    TaskExpanded {
        task: &'a str,
        items: Vec<Value>,
    },
    AttemptStarted(Attempt<'a>),
    SegmentCommitted {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        #[serde(flatten)]
        commit: Commit<'a>,
    },
    AttemptSucceeded {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        #[schema(required)]
        result: Option<Value>,
        #[schema(required)]
        follow: Option<Vec<&'a str>>,
    },
    AttemptDeferred {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        until: Timestamp,
    },
    AttemptFailed {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        is_final: bool,
        failure: Failed<'a>,
    },
    AttemptUnknown {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        failure: Failed<'a>,
    },
    UnknownResolved {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        #[serde(flatten)]
        evidence: Known<'a>,
    },
    RetryScheduled {
        #[serde(flatten)]
        instance: Instance<'a>,
        retry_at: Timestamp,
    },
    TimerFired(Instance<'a>),
    TaskSkipped {
        #[serde(flatten)]
        instance: Instance<'a>,
        #[schema(value_type = names::SkipCause)]
        cause: &'static str,
        /// The branch that went elsewhere.
        #[schema(required)]
        branch: Option<&'a str>,
        #[schema(required)]
        reason: Option<&'a str>,
    },
    TaskUpstreamFailed(Instance<'a>),
    /// Done, in a transaction that goes on: not committed.
    AttemptHeld {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        statements: Vec<Record<'a>>,
        #[schema(required)]
        result: Option<Value>,
    },
    /// Nothing of a transaction took effect.
    GroupRolledBack {
        group: &'a str,
        members: Vec<Instance<'a>>,
        failure: Failed<'a>,
        /// False when it is run again, from its first task on.
        is_final: bool,
    },
    CallbackScheduled(Callback<'a>),
    CallbackFinished {
        #[serde(flatten)]
        callback: Callback<'a>,
        #[schema(required)]
        failure: Option<Failed<'a>>,
    },
    OperatorActed {
        who: &'a str,
        why: &'a str,
        what: &'a str,
    },
    CancelRequested {
        reason: &'a str,
        #[schema(value_type = names::CancelCause)]
        cause: &'static str,
    },
    /// From here on the run goes on with these sources.
    RunPinned {
        version: &'a str,
    },
    RunReopened,
    InstancesCleared {
        instances: Vec<Instance<'a>>,
        /// `beginning` or `last_commit`.
        #[schema(value_type = names::Restart)]
        restart: &'static str,
    },
    TaskUnexpanded {
        task: &'a str,
        count: u32,
    },
    InstanceMarked {
        #[serde(flatten)]
        instance: Instance<'a>,
        /// `success` or `failed`.
        #[schema(value_type = names::Mark)]
        mark: &'static str,
    },
    InstanceCancelRequested {
        #[serde(flatten)]
        instance: Instance<'a>,
        reason: &'a str,
        /// `fail`, `clear`, or `mark`.
        #[schema(value_type = names::Afterwards)]
        then: &'static str,
        #[schema(required, value_type = Option<names::Restart>)]
        restart: Option<&'static str>,
        #[schema(required, value_type = Option<names::Mark>)]
        mark: Option<&'static str>,
    },
    AnomalyNoticed {
        #[serde(flatten)]
        attempt: Attempt<'a>,
        statement: u32,
        /// `slow`, `no_rows`, `few_rows`, or `many_rows`.
        #[schema(value_type = names::Unusual)]
        unusual: &'static str,
        /// Milliseconds, or rows.
        seen: u64,
        usual: u64,
        of: u32,
        told: String,
    },
    RunStuck {
        instances: Vec<Instance<'a>>,
    },
    RunSucceeded,
    RunFailed,
    RunCancelled,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Instance<'a> {
    task: &'a str,
    #[schema(required)]
    map_index: Option<u32>,
}

impl<'a> From<&'a InstanceId> for Instance<'a> {
    fn from(id: &'a InstanceId) -> Self {
        Self { task: id.task.as_str(), map_index: id.map_index }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Attempt<'a> {
    #[serde(flatten)]
    instance: Instance<'a>,
    try_number: u32,
}

fn restart(restart: Restart) -> &'static str {
    match restart {
        Restart::Beginning => "beginning",
        Restart::LastCommit => "last_commit",
    }
}

fn mark(mark: Mark) -> &'static str {
    match mark {
        Mark::Success => "success",
        Mark::Failed => "failed",
    }
}

fn unusual(unusual: core::Unusual) -> &'static str {
    match unusual {
        core::Unusual::Slow => "slow",
        core::Unusual::NoRows => "no_rows",
        core::Unusual::FewRows => "few_rows",
        core::Unusual::ManyRows => "many_rows",
    }
}

fn attempt(instance: &InstanceId, try_number: u32) -> Attempt<'_> {
    Attempt { instance: instance.into(), try_number }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Commit<'a> {
    segment: u32,
    digest: &'a str,
    #[schema(value_type = names::Promise)]
    promise: &'static str,
    /// Why no more is promised.
    #[schema(required)]
    promise_reason: Option<&'a str>,
    #[serde(flatten)]
    evidence: Known<'a>,
    statements: Vec<Record<'a>>,
}

impl<'a> From<&'a SegmentCommit> for Commit<'a> {
    fn from(commit: &'a SegmentCommit) -> Self {
        let (promise, promise_reason) = match &commit.promise {
            Promise::ExactlyOnce => ("exactly_once", None),
            Promise::ReadOnly => ("read_only", None),
            Promise::AtLeastOnce(reason) => ("at_least_once", Some(reason.as_str())),
        };
        Self {
            segment: commit.segment,
            digest: &commit.digest,
            promise,
            promise_reason,
            evidence: Known::from(&commit.evidence),
            statements: commit.statements.iter().map(Record::from).collect(),
        }
    }
}

/// How an outcome is known.
#[derive(Debug, Serialize, ToSchema)]
pub struct Known<'a> {
    #[schema(value_type = names::Evidence)]
    evidence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    who: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_effect: Option<bool>,
}

impl<'a> From<&'a Evidence> for Known<'a> {
    fn from(evidence: &'a Evidence) -> Self {
        let plain = |evidence| Self { evidence, who: None, why: None, took_effect: None };
        match evidence {
            Evidence::Acknowledged => plain("acknowledged"),
            Evidence::Marker => plain("marker"),
            Evidence::Tombstone => plain("tombstone"),
            Evidence::ReadOnly => plain("read_only"),
            Evidence::Allowed => plain("allowed"),
            Evidence::Operator { who, why, took_effect } => {
                Self { evidence: "operator", who: Some(who), why: Some(why), took_effect: Some(*took_effect) }
            }
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct Callback<'a> {
    #[schema(required)]
    task: Option<&'a str>,
    #[schema(required)]
    map_index: Option<u32>,
    try_number: u32,
    #[schema(value_type = names::Occasion)]
    occasion: &'static str,
    place: u32,
}

impl<'a> From<&'a core::CallbackId> for Callback<'a> {
    fn from(id: &'a core::CallbackId) -> Self {
        Self {
            task: id.instance.as_ref().map(|instance| instance.task.as_str()),
            map_index: id.instance.as_ref().and_then(|instance| instance.map_index),
            try_number: id.try_number,
            occasion: match id.occasion {
                Occasion::Failure => "on_failure",
                Occasion::Retry => "on_retry",
                Occasion::Success => "on_success",
                Occasion::Deadline => "on_deadline",
                Occasion::Stuck => "on_stuck",
            },
            place: id.place,
        }
    }
}

pub fn failure_class(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Transient => "transient",
        FailureClass::Permanent => "permanent",
        FailureClass::Final => "final",
        FailureClass::Cancelled => "cancelled",
        FailureClass::TimedOut => "timed_out",
        FailureClass::Interrupted => "interrupted",
    }
}

impl<'a> From<&'a core::Event> for Event<'a> {
    fn from(event: &'a core::Event) -> Self {
        use core::Event as Core;
        match event {
            Core::RunCreated(header) => created(header),
            Core::RunStarted { at: _ } => Self::RunStarted,
            Core::RunResumed { epoch } => Self::RunResumed { epoch: *epoch },
            Core::TaskScheduled { instance } => Self::TaskScheduled(instance.into()),
            Core::TaskExpanded { task, items } => {
                Self::TaskExpanded { task: task.as_str(), items: items.iter().map(|item| json(item)).collect() }
            }
            Core::AttemptStarted { instance, try_number, epoch: _, at: _ } => {
                Self::AttemptStarted(attempt(instance, *try_number))
            }
            Core::SegmentCommitted { instance, try_number, commit } => {
                Self::SegmentCommitted { attempt: attempt(instance, *try_number), commit: Commit::from(&**commit) }
            }
            Core::AttemptSucceeded { instance, try_number, result, follow } => Self::AttemptSucceeded {
                attempt: attempt(instance, *try_number),
                result: result.as_deref().map(json),
                follow: follow.as_ref().map(|tasks| tasks.iter().map(TaskId::as_str).collect()),
            },
            Core::AttemptHeld { instance, try_number, statements, result } => Self::AttemptHeld {
                attempt: attempt(instance, *try_number),
                statements: statements.iter().map(Record::from).collect(),
                result: result.as_deref().map(json),
            },
            Core::GroupRolledBack { group, members, failure, is_final } => Self::GroupRolledBack {
                group: group.as_str(),
                members: members.iter().map(Instance::from).collect(),
                failure: (&**failure).into(),
                is_final: *is_final,
            },
            Core::AttemptDeferred { instance, try_number, until } => {
                Self::AttemptDeferred { attempt: attempt(instance, *try_number), until: *until }
            }
            Core::AttemptFailed { instance, try_number, failure, is_final } => Self::AttemptFailed {
                attempt: attempt(instance, *try_number),
                is_final: *is_final,
                failure: Failed::from(&**failure),
            },
            Core::AttemptUnknown { instance, try_number, failure } => {
                Self::AttemptUnknown { attempt: attempt(instance, *try_number), failure: Failed::from(&**failure) }
            }
            Core::UnknownResolved { instance, try_number, evidence } => {
                Self::UnknownResolved { attempt: attempt(instance, *try_number), evidence: evidence.into() }
            }
            Core::RetryScheduled { instance, at } => Self::RetryScheduled { instance: instance.into(), retry_at: *at },
            Core::TimerFired { instance } => Self::TimerFired(instance.into()),
            Core::TaskSkipped { instance, cause } => skipped(instance, cause),
            Core::TaskUpstreamFailed { instance } => Self::TaskUpstreamFailed(instance.into()),
            Core::CallbackScheduled { callback } => Self::CallbackScheduled(callback.into()),
            Core::CallbackFinished { callback, failure } => {
                Self::CallbackFinished { callback: callback.into(), failure: failure.as_deref().map(Failed::from) }
            }
            Core::OperatorActed { who, why, what } => Self::OperatorActed { who, why, what },
            Core::CancelRequested { reason, cause } => Self::CancelRequested {
                reason,
                cause: match cause {
                    CancelCause::Asked => "asked",
                    CancelCause::DagrunTimeout => "dagrun_timeout",
                },
            },
            Core::AssetsUpdated { instance, try_number, assets } => Self::AssetsUpdated {
                attempt: attempt(instance, *try_number),
                assets: assets.iter().map(|asset| &**asset).collect(),
            },
            Core::DeadlineAtRisk { deadline, due_at, done_at } => {
                Self::DeadlineAtRisk { deadline: *deadline, due_at: *due_at, done_at: *done_at }
            }
            Core::DeadlineMissed { deadline, due_at } => Self::DeadlineMissed { deadline: *deadline, due_at: *due_at },
            Core::RunPinned { version, variables: _ } => Self::RunPinned { version },
            Core::RunReopened => Self::RunReopened,
            Core::InstancesCleared { instances, restart: from } => {
                Self::InstancesCleared { instances: instances.iter().map(Instance::from).collect(), restart: restart(*from) }
            }
            Core::TaskUnexpanded { task, count } => Self::TaskUnexpanded { task: task.as_str(), count: *count },
            Core::InstanceMarked { instance, mark: outcome } => {
                Self::InstanceMarked { instance: instance.into(), mark: mark(*outcome) }
            }
            Core::InstanceCancelRequested { instance, reason, then } => {
                let (then, restart, mark) = match then {
                    Afterwards::Fail => ("fail", None, None),
                    Afterwards::Clear(from) => ("clear", Some(restart(*from)), None),
                    Afterwards::Mark(outcome) => ("mark", None, Some(mark(*outcome))),
                };
                Self::InstanceCancelRequested { instance: instance.into(), reason, then, restart, mark }
            }
            Core::AnomalyNoticed { instance, try_number, anomaly } => Self::AnomalyNoticed {
                attempt: attempt(instance, *try_number),
                statement: anomaly.statement,
                unusual: unusual(anomaly.unusual),
                seen: anomaly.seen,
                usual: anomaly.usual,
                of: anomaly.of,
                told: anomaly.to_string(),
            },
            Core::RunStuck { instances } => Self::RunStuck { instances: instances.iter().map(Instance::from).collect() },
            Core::RunSucceeded => Self::RunSucceeded,
            Core::RunFailed => Self::RunFailed,
            Core::RunCancelled => Self::RunCancelled,
        }
    }
}

fn created(header: &core::RunHeader) -> Event<'_> {
    Event::RunCreated {
        dag: header.dag_id.as_str(),
        version: &header.version,
        logical_date: header.logical_date,
        data_interval_start: header.data_interval.map(|(start, _)| start),
        data_interval_end: header.data_interval.map(|(_, end)| end),
        run_type: run_type(header.run_type),
        params: json(&header.params),
        only_tasks: only_tasks(header),
        dry_run: header.dry_run,
        started_by: cause::started_by(header),
        asset_updates: cause::asset_updates(header),
    }
}

fn skipped<'a>(instance: &'a InstanceId, cause: &'a SkipCause) -> Event<'a> {
    let (branch, reason) = match cause {
        SkipCause::Branch(task) => (Some(task.as_str()), None),
        SkipCause::Own(reason) => (None, Some(reason.as_str())),
        SkipCause::TriggerRule | SkipCause::NothingToMap | SkipCause::RunCancelled => (None, None),
    };
    Event::TaskSkipped { instance: instance.into(), cause: skip_cause(cause), branch, reason }
}

pub fn skip_cause(cause: &SkipCause) -> &'static str {
    match cause {
        SkipCause::TriggerRule => "trigger_rule",
        SkipCause::Branch(_) => "branch",
        SkipCause::Own(_) => "own",
        SkipCause::NothingToMap => "nothing_to_map",
        SkipCause::RunCancelled => "run_cancelled",
    }
}
