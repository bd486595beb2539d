//! The values that texts of the wire shapes may have, for the OpenAPI document. A test proves that they are the words in use.

#![expect(dead_code, reason = "these name values; the words themselves come from the functions beside the shapes")]

use utoipa::ToSchema;

/// The states of a run, with Airflow's names where it has one.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum RunState {
    Queued,
    Running,
    Cancelling,
    Stuck,
    Success,
    Failed,
    Cancelled,
}

/// The states of a task instance, with Airflow's names where it has one.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum InstanceState {
    None,
    Scheduled,
    Running,
    UpForReschedule,
    UpForRetry,
    InDoubt,
    DoneNotCommitted,
    Success,
    Failed,
    Skipped,
    UpstreamFailed,
    RolledBack,
    Removed,
}

/// Who asked for a run.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum RunType {
    Manual,
    Scheduled,
    Backfill,
    AssetTriggered,
}

/// What a segment promises.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Promise {
    ExactlyOnce,
    ReadOnly,
    AtLeastOnce,
}

/// How an outcome is known.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Evidence {
    Acknowledged,
    Marker,
    Tombstone,
    ReadOnly,
    Allowed,
    Operator,
}

/// What a callback was called for.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Occasion {
    #[schema(rename = "on_failure")]
    Failure,
    #[schema(rename = "on_retry")]
    Retry,
    #[schema(rename = "on_success")]
    Success,
    #[schema(rename = "on_deadline")]
    Deadline,
    #[schema(rename = "on_stuck")]
    Stuck,
}

/// What kind of failure it is, and so what follows from it.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum FailureClass {
    Transient,
    Permanent,
    Final,
    Cancelled,
    TimedOut,
    Interrupted,
}

/// Why a task was skipped.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum SkipCause {
    TriggerRule,
    Branch,
    Own,
    NothingToMap,
    RunCancelled,
}

/// Why a run is cancelled.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum CancelCause {
    Asked,
    DagrunTimeout,
}

/// From where a cleared instance runs again.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Restart {
    Beginning,
    LastCommit,
}

/// What an instance is marked as.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Mark {
    Success,
    Failed,
}

/// In what a statement is unusual.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Unusual {
    Slow,
    NoRows,
    FewRows,
    ManyRows,
}

/// What becomes of a cancelled instance.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum Afterwards {
    Fail,
    Clear,
    Mark,
}

#[cfg(test)]
mod tests {
    use super::super::{event, run_type};
    use super::*;
    use backstop_core::TaskId;
    use backstop_core::event as core;
    use backstop_core::state::{InstancePhase, RunPhase};
    use jiff::Timestamp;
    use utoipa::PartialSchema;

    fn check<T: PartialSchema>(words: impl IntoIterator<Item = &'static str>) {
        let schema = serde_json::to_value(T::schema()).unwrap();
        let named: Vec<&str> = schema["enum"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(named, words.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn the_names_are_the_words_in_use() {
        check::<RunState>(RunPhase::ALL.map(RunPhase::as_str));
        let at = Timestamp::UNIX_EPOCH;
        let phases = [
            InstancePhase::None,
            InstancePhase::Scheduled,
            InstancePhase::Running,
            InstancePhase::Deferred { until: at },
            InstancePhase::UpForRetry { at },
            InstancePhase::InDoubt,
            InstancePhase::Held,
            InstancePhase::Success,
            InstancePhase::Failed,
            InstancePhase::Skipped,
            InstancePhase::UpstreamFailed,
            InstancePhase::RolledBack,
            InstancePhase::Removed,
        ];
        check::<InstanceState>(phases.map(InstancePhase::as_str));
        use core::{FailureClass as Class, RunType as Type, SkipCause as Cause};
        check::<RunType>([Type::Manual, Type::Scheduled, Type::Backfill, Type::AssetTriggered].map(run_type));
        let classes = [Class::Transient, Class::Permanent, Class::Final, Class::Cancelled, Class::TimedOut, Class::Interrupted];
        check::<FailureClass>(classes.map(event::failure_class));
        let task = TaskId::new("branch");
        let causes =
            [Cause::TriggerRule, Cause::Branch(task), Cause::Own(String::new()), Cause::NothingToMap, Cause::RunCancelled];
        check::<SkipCause>(causes.iter().map(event::skip_cause));
    }
}
