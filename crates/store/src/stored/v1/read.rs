//! From stored events to the core's.

use super::*;
use backstop_core::event as core;
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use std::sync::Arc;

fn instance(task: Text<'_>, map_index: Option<u32>) -> InstanceId {
    InstanceId { task: task_id(task), map_index }
}

fn task_id(id: Text<'_>) -> TaskId {
    TaskId::new(&*id)
}

fn shared(text: Text<'_>) -> Arc<str> {
    Arc::from(&*text)
}

fn owned(texts: Vec<Text<'_>>) -> Vec<String> {
    texts.into_iter().map(Cow::into_owned).collect()
}

impl From<Event<'_>> for core::Event {
    fn from(event: Event<'_>) -> Self {
        use Event as E;
        match event {
            E::RunCreated(header) => Self::RunCreated(Arc::new((*header).into())),
            E::RunStarted { at } => Self::RunStarted { at },
            E::RunResumed { epoch } => Self::RunResumed { epoch },
            E::TaskScheduled { task, map } => Self::TaskScheduled { instance: instance(task, map) },
            E::TaskExpanded { task, items } => {
                Self::TaskExpanded { task: task_id(task), items: items.into_iter().map(shared).collect() }
            }
            E::AttemptStarted { task, map, r#try, epoch, at } => {
                Self::AttemptStarted { instance: instance(task, map), try_number: r#try, epoch, at }
            }
            E::SegmentCommitted { task, map, r#try, commit } => {
                Self::SegmentCommitted { instance: instance(task, map), try_number: r#try, commit: Arc::new(commit.into()) }
            }
            E::AttemptSucceeded { task, map, r#try, result, follow } => Self::AttemptSucceeded {
                instance: instance(task, map),
                try_number: r#try,
                result: result.map(shared),
                follow: follow.map(|tasks| tasks.into_iter().map(task_id).collect()),
            },
            E::AttemptDeferred { task, map, r#try, until } => {
                Self::AttemptDeferred { instance: instance(task, map), try_number: r#try, until }
            }
            E::AttemptFailed { task, map, r#try, is_final, failure } => Self::AttemptFailed {
                instance: instance(task, map),
                try_number: r#try,
                failure: Arc::new(failure.into()),
                is_final,
            },
            E::AttemptUnknown { task, map, r#try, failure } => {
                Self::AttemptUnknown { instance: instance(task, map), try_number: r#try, failure: Arc::new(failure.into()) }
            }
            E::UnknownResolved { task, map, r#try, evidence } => {
                Self::UnknownResolved { instance: instance(task, map), try_number: r#try, evidence: evidence.into() }
            }
            E::RetryScheduled { task, map, at } => Self::RetryScheduled { instance: instance(task, map), at },
            E::TimerFired { task, map } => Self::TimerFired { instance: instance(task, map) },
            E::TaskSkipped { task, map, cause } => Self::TaskSkipped { instance: instance(task, map), cause: cause.into() },
            E::TaskUpstreamFailed { task, map } => Self::TaskUpstreamFailed { instance: instance(task, map) },
            E::CallbackScheduled { callback } => Self::CallbackScheduled { callback: callback.into() },
            E::CallbackFinished { callback, failure } => {
                Self::CallbackFinished { callback: callback.into(), failure: failure.map(|failure| Arc::new(failure.into())) }
            }
            E::OperatorActed { who, why, what } => {
                Self::OperatorActed { who: who.into_owned(), why: why.into_owned(), what: what.into_owned() }
            }
            E::CancelRequested { reason, cause } => Self::CancelRequested {
                reason: reason.into_owned(),
                cause: match cause {
                    CancelCause::Asked => core::CancelCause::Asked,
                    CancelCause::DagrunTimeout => core::CancelCause::DagrunTimeout,
                },
            },
            E::RunStuck { instances } => Self::RunStuck { instances: instances.into_iter().map(InstanceId::from).collect() },
            E::RunSucceeded => Self::RunSucceeded,
            E::RunFailed => Self::RunFailed,
            E::RunCancelled => Self::RunCancelled,
        }
    }
}

impl From<Instance<'_>> for InstanceId {
    fn from(stored: Instance<'_>) -> Self {
        instance(stored.task, stored.map)
    }
}

impl From<Header<'_>> for core::RunHeader {
    fn from(header: Header<'_>) -> Self {
        Self {
            run_id: RunId::new(&*header.run_id),
            dag_id: DagId::new(&*header.dag_id),
            project: header.project.map(|Project { name, root }| core::RunProject { name: shared(name), root: shared(root) }),
            version: header.version.into_owned(),
            logical_date: header.logical_date,
            data_interval: header.data_interval,
            queued_at: header.queued_at,
            run_type: match header.run_type {
                RunType::Manual => core::RunType::Manual,
                RunType::Scheduled => core::RunType::Scheduled,
                RunType::Backfill => core::RunType::Backfill,
                RunType::AssetTriggered => core::RunType::AssetTriggered,
            },
            params: shared(header.params),
            only_tasks: header.only_tasks.into_iter().map(task_id).collect(),
            dry_run: header.dry_run,
            cause: None,
        }
    }
}

impl From<Commit<'_>> for core::SegmentCommit {
    fn from(commit: Commit<'_>) -> Self {
        Self {
            segment: commit.segment,
            digest: commit.digest.into_owned(),
            promise: match commit.promise {
                Promise::ExactlyOnce => core::Promise::ExactlyOnce,
                Promise::ReadOnly => core::Promise::ReadOnly,
                Promise::AtLeastOnce(reason) => core::Promise::AtLeastOnce(reason.into_owned()),
            },
            evidence: commit.evidence.into(),
            statements: commit.statements.into_iter().map(core::StatementRecord::from).collect(),
            result: commit.result.map(shared),
        }
    }
}

impl From<Evidence<'_>> for core::Evidence {
    fn from(evidence: Evidence<'_>) -> Self {
        match evidence {
            Evidence::Acknowledged => Self::Acknowledged,
            Evidence::Marker => Self::Marker,
            Evidence::Tombstone => Self::Tombstone,
            Evidence::ReadOnly => Self::ReadOnly,
            Evidence::Allowed => Self::Allowed,
            Evidence::Operator { who, why, took_effect } => {
                Self::Operator { who: who.into_owned(), why: why.into_owned(), took_effect }
            }
        }
    }
}

impl From<Statement<'_>> for core::StatementRecord {
    fn from(statement: Statement<'_>) -> Self {
        Self {
            number: statement.number,
            line: statement.line,
            summary: statement.summary.into_owned(),
            duration_us: statement.duration_us,
            rows_affected: statement.rows_affected,
            rows_returned: statement.rows_returned,
            notices: owned(statement.notices),
        }
    }
}

impl From<Failure<'_>> for core::Failure {
    fn from(failure: Failure<'_>) -> Self {
        Self {
            class: match failure.class {
                FailureClass::Transient => core::FailureClass::Transient,
                FailureClass::Permanent => core::FailureClass::Permanent,
                FailureClass::Final => core::FailureClass::Final,
                FailureClass::Cancelled => core::FailureClass::Cancelled,
                FailureClass::TimedOut => core::FailureClass::TimedOut,
                FailureClass::Interrupted => core::FailureClass::Interrupted,
            },
            message: failure.message.into_owned(),
            causes: owned(failure.causes),
            place: failure.place.map(|place| core::Place {
                file: place.file.into_owned(),
                line: place.line,
                column: place.column,
                statement: place.statement,
            }),
            sqlstate: failure.sqlstate.map(Cow::into_owned),
            native_code: failure.native_code.map(Cow::into_owned),
            effect: failure.effect.into_owned(),
            hint: failure.hint.map(Cow::into_owned),
            statements: failure.statements.into_iter().map(core::StatementRecord::from).collect(),
        }
    }
}

impl From<SkipCause<'_>> for core::SkipCause {
    fn from(cause: SkipCause<'_>) -> Self {
        match cause {
            SkipCause::TriggerRule => Self::TriggerRule,
            SkipCause::Branch(task) => Self::Branch(task_id(task)),
            SkipCause::Own(reason) => Self::Own(reason.into_owned()),
            SkipCause::NothingToMap => Self::NothingToMap,
            SkipCause::RunCancelled => Self::RunCancelled,
        }
    }
}

impl From<Callback<'_>> for core::CallbackId {
    fn from(callback: Callback<'_>) -> Self {
        Self {
            instance: callback.instance.map(InstanceId::from),
            try_number: callback.r#try,
            occasion: match callback.occasion {
                Occasion::Failure => core::Occasion::Failure,
                Occasion::Retry => core::Occasion::Retry,
                Occasion::Success => core::Occasion::Success,
            },
            place: callback.place,
        }
    }
}
