//! From the core's events to stored ones. Texts are borrowed: writing copies nothing but into the buffer.

use super::*;
use crate::stored::Newer;
use crate::stored::v3::{Alert, AlertOccasion, CausedHeader};
use backstop_core::event as core;
use backstop_core::{InstanceId, TaskId};
use std::sync::Arc;

fn texts(values: &[String]) -> Vec<Text<'_>> {
    values.iter().map(|value| Cow::Borrowed(value.as_str())).collect()
}

fn shared_texts(values: &[Arc<str>]) -> Vec<Text<'_>> {
    values.iter().map(|value| Cow::Borrowed(&**value)).collect()
}

fn tasks(ids: &[TaskId]) -> Vec<Text<'_>> {
    ids.iter().map(task).collect()
}

fn task(id: &TaskId) -> Text<'_> {
    Cow::Borrowed(id.as_str())
}

fn optional(value: Option<&String>) -> Option<Text<'_>> {
    value.map(|value| Cow::Borrowed(value.as_str()))
}

fn shared(value: Option<&Arc<str>>) -> Option<Text<'_>> {
    value.map(|value| Cow::Borrowed(&**value))
}

impl<'a> TryFrom<&'a core::Event> for Event<'a> {
    /// What version 1 does not know.
    type Error = Newer<'a>;

    fn try_from(event: &'a core::Event) -> Result<Self, Self::Error> {
        use crate::stored::{v2::Event as V2, v3::Event as V3, v4::Event as V4, v5::Event as V5};
        use core::Event as E;
        Ok(match event {
            E::RunCreated(header) => match &header.cause {
                Some(cause) => {
                    return Err(Newer::V3(V3::RunCreated(Box::new(CausedHeader {
                        header: Header::from(&**header),
                        cause: cause.into(),
                    }))));
                }
                None => Self::RunCreated(Box::new(Header::from(&**header))),
            },
            E::RunStarted { at } => Self::RunStarted { at: *at },
            E::RunResumed { epoch } => Self::RunResumed { epoch: *epoch },
            E::TaskScheduled { instance: i } => Self::TaskScheduled { task: task(&i.task), map: i.map_index },
            E::TaskExpanded { task: id, items } => Self::TaskExpanded { task: task(id), items: shared_texts(items) },
            E::AttemptStarted { instance: i, try_number, epoch, at } => {
                Self::AttemptStarted { task: task(&i.task), map: i.map_index, r#try: *try_number, epoch: *epoch, at: *at }
            }
            E::SegmentCommitted { instance: i, try_number, commit } => Self::SegmentCommitted {
                task: task(&i.task),
                map: i.map_index,
                r#try: *try_number,
                commit: Commit::from(&**commit),
            },
            E::AttemptSucceeded { instance: i, try_number, result, follow } => Self::AttemptSucceeded {
                task: task(&i.task),
                map: i.map_index,
                r#try: *try_number,
                result: shared(result.as_ref()),
                follow: follow.as_deref().map(tasks),
            },
            E::AttemptHeld { instance, try_number, statements, result } => {
                return Err(Newer::V5(V5::held(instance, *try_number, statements, result.as_deref())));
            }
            E::GroupRolledBack { group, members, failure, is_final } => {
                return Err(Newer::V5(V5::rolled_back(group, members, failure, *is_final)));
            }
            E::AttemptDeferred { instance: i, try_number, until } => {
                Self::AttemptDeferred { task: task(&i.task), map: i.map_index, r#try: *try_number, until: *until }
            }
            E::AttemptFailed { instance: i, try_number, failure, is_final } => Self::AttemptFailed {
                task: task(&i.task),
                map: i.map_index,
                r#try: *try_number,
                is_final: *is_final,
                failure: Failure::from(&**failure),
            },
            E::AttemptUnknown { instance: i, try_number, failure } => Self::AttemptUnknown {
                task: task(&i.task),
                map: i.map_index,
                r#try: *try_number,
                failure: Failure::from(&**failure),
            },
            E::UnknownResolved { instance: i, try_number, evidence } => Self::UnknownResolved {
                task: task(&i.task),
                map: i.map_index,
                r#try: *try_number,
                evidence: Evidence::from(evidence),
            },
            E::RetryScheduled { instance: i, at } => Self::RetryScheduled { task: task(&i.task), map: i.map_index, at: *at },
            E::TimerFired { instance: i } => Self::TimerFired { task: task(&i.task), map: i.map_index },
            E::TaskSkipped { instance: i, cause } => {
                Self::TaskSkipped { task: task(&i.task), map: i.map_index, cause: SkipCause::from(cause) }
            }
            E::TaskUpstreamFailed { instance: i } => Self::TaskUpstreamFailed { task: task(&i.task), map: i.map_index },
            E::CallbackScheduled { callback } => match Callback::try_from(callback) {
                Ok(callback) => Self::CallbackScheduled { callback },
                Err(alert) => return Err(Newer::V3(V3::AlertScheduled { alert })),
            },
            E::CallbackFinished { callback, failure } => {
                let failure = failure.as_deref().map(Failure::from);
                match Callback::try_from(callback) {
                    Ok(callback) => Self::CallbackFinished { callback, failure },
                    Err(alert) => return Err(Newer::V3(V3::AlertFinished { alert, failure })),
                }
            }
            E::OperatorActed { who, why, what } => {
                Self::OperatorActed { who: Cow::Borrowed(who), why: Cow::Borrowed(why), what: Cow::Borrowed(what) }
            }
            E::CancelRequested { reason, cause } => Self::CancelRequested {
                reason: Cow::Borrowed(reason),
                cause: match cause {
                    core::CancelCause::Asked => CancelCause::Asked,
                    core::CancelCause::DagrunTimeout => CancelCause::DagrunTimeout,
                },
            },
            E::RunStuck { instances } => Self::RunStuck { instances: instances.iter().map(Instance::from).collect() },
            E::RunSucceeded => Self::RunSucceeded,
            E::RunFailed => Self::RunFailed,
            E::RunCancelled => Self::RunCancelled,
            E::RunReopened => return Err(Newer::V2(V2::RunReopened)),
            E::InstancesCleared { instances, restart } => {
                let instances = instances.iter().map(Instance::from).collect();
                return Err(Newer::V2(V2::InstancesCleared { instances, restart: (*restart).into() }));
            }
            E::TaskUnexpanded { task: id, count } => {
                return Err(Newer::V2(V2::TaskUnexpanded { task: task(id), count: *count }));
            }
            E::InstanceMarked { instance: i, mark } => {
                return Err(Newer::V2(V2::InstanceMarked { task: task(&i.task), map: i.map_index, mark: (*mark).into() }));
            }
            E::InstanceCancelRequested { instance: i, reason, then } => {
                return Err(Newer::V2(V2::InstanceCancelRequested {
                    task: task(&i.task),
                    map: i.map_index,
                    reason: Cow::Borrowed(reason),
                    then: (*then).into(),
                }));
            }
            E::AssetsUpdated { instance: i, try_number, assets } => {
                return Err(Newer::V3(V3::AssetsUpdated {
                    task: task(&i.task),
                    map: i.map_index,
                    r#try: *try_number,
                    assets: shared_texts(assets),
                }));
            }
            E::DeadlineAtRisk { deadline, due_at, done_at } => {
                return Err(Newer::V3(V3::DeadlineAtRisk { deadline: *deadline, due_at: *due_at, done_at: *done_at }));
            }
            E::DeadlineMissed { deadline, due_at } => {
                return Err(Newer::V3(V3::DeadlineMissed { deadline: *deadline, due_at: *due_at }));
            }
            E::RunPinned { version, variables } => {
                let variables = shared(variables.as_ref());
                return Err(Newer::V4(V4::RunPinned { version: Cow::Borrowed(version), variables }));
            }
            E::AnomalyNoticed { instance: i, try_number, anomaly } => {
                let core::Anomaly { statement, unusual, seen, usual, of } = *anomaly;
                return Err(Newer::V3(V3::AnomalyNoticed {
                    task: task(&i.task),
                    map: i.map_index,
                    r#try: *try_number,
                    statement,
                    unusual: unusual.into(),
                    seen,
                    usual,
                    of,
                }));
            }
        })
    }
}

impl<'a> From<&'a InstanceId> for Instance<'a> {
    fn from(instance: &'a InstanceId) -> Self {
        Self { task: task(&instance.task), map: instance.map_index }
    }
}

impl<'a> From<&'a core::RunHeader> for Header<'a> {
    fn from(header: &'a core::RunHeader) -> Self {
        let core::RunHeader {
            run_id,
            dag_id,
            project,
            version,
            logical_date,
            data_interval,
            queued_at,
            run_type,
            params,
            only_tasks,
            dry_run,
            // Kept beside the header.
            cause: _,
        } = header;
        Self {
            run_id: Cow::Borrowed(run_id.as_str()),
            dag_id: Cow::Borrowed(dag_id.as_str()),
            project: project
                .as_ref()
                .map(|core::RunProject { name, root }| Project { name: Cow::Borrowed(name), root: Cow::Borrowed(root) }),
            version: Cow::Borrowed(version),
            logical_date: *logical_date,
            data_interval: *data_interval,
            queued_at: *queued_at,
            run_type: match run_type {
                core::RunType::Manual => RunType::Manual,
                core::RunType::Scheduled => RunType::Scheduled,
                core::RunType::Backfill => RunType::Backfill,
                core::RunType::AssetTriggered => RunType::AssetTriggered,
            },
            params: Cow::Borrowed(params),
            only_tasks: tasks(only_tasks),
            dry_run: *dry_run,
        }
    }
}

impl<'a> From<&'a core::SegmentCommit> for Commit<'a> {
    fn from(commit: &'a core::SegmentCommit) -> Self {
        let core::SegmentCommit { segment, digest, promise, evidence, statements, result } = commit;
        Self {
            segment: *segment,
            digest: Cow::Borrowed(digest),
            promise: match promise {
                core::Promise::ExactlyOnce => Promise::ExactlyOnce,
                core::Promise::ReadOnly => Promise::ReadOnly,
                core::Promise::AtLeastOnce(reason) => Promise::AtLeastOnce(Cow::Borrowed(reason)),
            },
            evidence: Evidence::from(evidence),
            statements: statements.iter().map(Statement::from).collect(),
            result: shared(result.as_ref()),
        }
    }
}

impl<'a> From<&'a core::Evidence> for Evidence<'a> {
    fn from(evidence: &'a core::Evidence) -> Self {
        match evidence {
            core::Evidence::Acknowledged => Self::Acknowledged,
            core::Evidence::Marker => Self::Marker,
            core::Evidence::Tombstone => Self::Tombstone,
            core::Evidence::ReadOnly => Self::ReadOnly,
            core::Evidence::Allowed => Self::Allowed,
            core::Evidence::Operator { who, why, took_effect } => {
                Self::Operator { who: Cow::Borrowed(who), why: Cow::Borrowed(why), took_effect: *took_effect }
            }
        }
    }
}

impl<'a> From<&'a core::StatementRecord> for Statement<'a> {
    fn from(record: &'a core::StatementRecord) -> Self {
        let core::StatementRecord { number, line, summary, duration_us, rows_affected, rows_returned, notices } = record;
        Self {
            number: *number,
            line: *line,
            summary: Cow::Borrowed(summary),
            duration_us: *duration_us,
            rows_affected: *rows_affected,
            rows_returned: *rows_returned,
            notices: texts(notices),
        }
    }
}

impl<'a> From<&'a core::Failure> for Failure<'a> {
    fn from(failure: &'a core::Failure) -> Self {
        let core::Failure { class, message, causes, place, sqlstate, native_code, effect, hint, statements } = failure;
        Self {
            class: match class {
                core::FailureClass::Transient => FailureClass::Transient,
                core::FailureClass::Permanent => FailureClass::Permanent,
                core::FailureClass::Final => FailureClass::Final,
                core::FailureClass::Cancelled => FailureClass::Cancelled,
                core::FailureClass::TimedOut => FailureClass::TimedOut,
                core::FailureClass::Interrupted => FailureClass::Interrupted,
            },
            message: Cow::Borrowed(message),
            causes: texts(causes),
            place: place.as_ref().map(|place| Place {
                file: Cow::Borrowed(&place.file),
                line: place.line,
                column: place.column,
                statement: place.statement,
            }),
            sqlstate: optional(sqlstate.as_ref()),
            native_code: optional(native_code.as_ref()),
            effect: Cow::Borrowed(effect),
            hint: optional(hint.as_ref()),
            statements: statements.iter().map(Statement::from).collect(),
        }
    }
}

impl<'a> From<&'a core::SkipCause> for SkipCause<'a> {
    fn from(cause: &'a core::SkipCause) -> Self {
        match cause {
            core::SkipCause::TriggerRule => Self::TriggerRule,
            core::SkipCause::Branch(id) => Self::Branch(task(id)),
            core::SkipCause::Own(reason) => Self::Own(Cow::Borrowed(reason)),
            core::SkipCause::NothingToMap => Self::NothingToMap,
            core::SkipCause::RunCancelled => Self::RunCancelled,
        }
    }
}

impl<'a> TryFrom<&'a core::CallbackId> for Callback<'a> {
    /// An occasion that version 1 does not know.
    type Error = Alert;

    fn try_from(callback: &'a core::CallbackId) -> Result<Self, Alert> {
        let core::CallbackId { instance, try_number, occasion, place } = callback;
        let occasion = match occasion {
            core::Occasion::Failure => Occasion::Failure,
            core::Occasion::Retry => Occasion::Retry,
            core::Occasion::Success => Occasion::Success,
            core::Occasion::Deadline => {
                return Err(Alert { occasion: AlertOccasion::Deadline, number: *try_number, place: *place });
            }
            core::Occasion::Stuck => {
                return Err(Alert { occasion: AlertOccasion::Stuck, number: *try_number, place: *place });
            }
        };
        Ok(Self { instance: instance.as_ref().map(Instance::from), r#try: *try_number, occasion, place: *place })
    }
}
