//! Events for tests: one or more of every kind, and random runs from a seed.

use crate::{Append, Recorded};
use backstop_core::event::*;
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use jiff::Timestamp;
use std::sync::Arc;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every machine, so that a printed seed repeats a failure.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Less than `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}

/// Microseconds after a fixed moment.
pub fn at(microseconds: u64) -> Timestamp {
    Timestamp::from_microsecond(1_762_000_000_000_000 + i64::try_from(microseconds).unwrap()).unwrap()
}

/// An unmapped instance.
pub fn single(task: &str) -> InstanceId {
    InstanceId::single(task.into())
}

/// A mapped instance.
pub fn mapped(task: &str, index: u32) -> InstanceId {
    InstanceId { task: task.into(), map_index: Some(index) }
}

/// The event that creates a run.
pub fn created(run: &RunId, dag: &str) -> Event {
    Event::RunCreated(Arc::new(RunHeader {
        run_id: run.clone(),
        dag_id: DagId::new(dag),
        project: None,
        version: "d1".into(),
        logical_date: None,
        data_interval: None,
        queued_at: at(0),
        run_type: RunType::Manual,
        params: "{}".into(),
        only_tasks: Vec::new(),
        dry_run: false,
        cause: None,
    }))
}

/// The run begins.
pub fn run_started() -> Event {
    Event::RunStarted { at: at(1) }
}

/// An attempt begins, in epoch 1.
pub fn attempt_started(instance: InstanceId, try_number: u32, at: Timestamp) -> Event {
    Event::AttemptStarted { instance, try_number, epoch: 1, at }
}

/// An append of epoch 1.
pub fn append(run: &RunId, expected_version: u64, events: Vec<Event>) -> Append {
    Append { run: run.clone(), expected_version, epoch: 1, at: at(1000 + expected_version), events }
}

/// Gives events the places and times of a run whose every event was appended alone.
pub fn recorded(events: &[Event]) -> Vec<Recorded> {
    (1..).zip(events).map(|(seq, event)| Recorded { seq, at: at(1000 + seq), event: event.clone() }).collect()
}

/// A statement with everything that may be absent absent.
pub fn statement(number: u32) -> StatementRecord {
    StatementRecord {
        number,
        line: number * 2,
        summary: format!("UPDATE t SET a = {number}"),
        duration_us: 1500,
        rows_affected: None,
        rows_returned: 0,
        notices: Vec::new(),
    }
}

fn full_statement() -> StatementRecord {
    StatementRecord {
        number: 2,
        line: 14,
        summary: "INSERT INTO \"ventes\" SELECT 'é' …".into(),
        duration_us: 2_345_678,
        rows_affected: Some(0),
        rows_returned: 3,
        notices: vec!["NOTICE: table \"x\" does not exist, skipping".into(), "tab\tnew line\n".into()],
    }
}

/// A failure with everything that may be absent absent.
pub fn failure(message: &str) -> Failure {
    Failure {
        class: FailureClass::Permanent,
        message: message.into(),
        causes: Vec::new(),
        place: None,
        sqlstate: None,
        native_code: None,
        effect: String::new(),
        hint: None,
        statements: Vec::new(),
    }
}

fn full_failure(class: FailureClass) -> Failure {
    Failure {
        class,
        message: "run statement 7 of 12 of `apply`: duplicate key".into(),
        causes: vec!["db error".into(), "key (id)=(7) already exists".into()],
        place: Some(Place { file: "sql/apply.sql".into(), line: 31, column: 5, statement: Some(7) }),
        sqlstate: Some("23505".into()),
        native_code: Some("1062".into()),
        effect: "statements 1 to 6 were rolled back".into(),
        hint: Some("look for what loaded row 7 before".into()),
        statements: vec![statement(1), full_statement()],
    }
}

fn full_header() -> RunHeader {
    RunHeader {
        run_id: "0199-full".into(),
        dag_id: "nightly_sales".into(),
        project: None,
        version: "9f86d081884c7d65".into(),
        logical_date: Some("2025-10-26T02:00:00Z".parse().unwrap()),
        data_interval: Some(("2025-10-25T02:00:00Z".parse().unwrap(), "2025-10-26T02:00:00.000001Z".parse().unwrap())),
        queued_at: "2025-10-26T02:00:00.123456789Z".parse().unwrap(),
        run_type: RunType::Scheduled,
        params: r#"{"région":"Île-de-France","limit":10}"#.into(),
        only_tasks: vec!["group.capture".into(), "apply".into()],
        dry_run: true,
        cause: None,
    }
}

fn commit(promise: Promise, evidence: Evidence) -> SegmentCommit {
    SegmentCommit { segment: 0, digest: "ab12".into(), promise, evidence, statements: Vec::new(), result: None }
}

fn operator(took_effect: bool) -> Evidence {
    Evidence::Operator { who: "marie".into(), why: "seen in the table".into(), took_effect }
}

fn callback(occasion: Occasion, place: u32) -> CallbackId {
    CallbackId { instance: Some(mapped("load", 4)), try_number: 2, occasion, place }
}

/// Every kind of event, and every kind of what is in them, each with a name that begins with the stored type of the event.
pub fn samples() -> Vec<(String, Event)> {
    let mut all = run_samples();
    all.extend(attempt_samples());
    all.extend(outcome_samples());
    all.extend(callback_samples());
    all.extend(operator_samples());
    all.extend(cross_samples());
    all.extend(anomaly_samples());
    all.extend(pin_samples());
    all.extend(transaction_samples());
    all.into_iter().map(|(name, event)| (name.to_owned(), event)).collect()
}

type Sample = (&'static str, Event);

fn in_project() -> RunHeader {
    let project = RunProject { name: "shop".into(), root: "/srv/l'équipe/shop".into() };
    RunHeader { run_id: "0199-project".into(), project: Some(project), ..full_header() }
}

fn run_samples() -> Vec<Sample> {
    let typed = |id, run_type| {
        Event::RunCreated(Arc::new(RunHeader { run_id: RunId::new(id), dag_id: "d".into(), run_type, ..full_header() }))
    };
    vec![
        ("run_created", Event::RunCreated(Arc::new(full_header()))),
        ("run_created.minimal", created(&"0199-minimal".into(), "d")),
        ("run_created.backfill", typed("0199-backfill", RunType::Backfill)),
        ("run_created.asset_triggered", typed("0199-assets", RunType::AssetTriggered)),
        ("run_created.in_project", Event::RunCreated(Arc::new(in_project()))),
        ("run_started", run_started()),
        ("run_resumed", Event::RunResumed { epoch: 3 }),
        (
            "operator_acted",
            Event::OperatorActed { who: "marie".into(), why: "\"it\" was done".into(), what: "resolved `a`".into() },
        ),
        ("cancel_requested", Event::CancelRequested { reason: "SIGINT".into(), cause: CancelCause::Asked }),
        (
            "cancel_requested.timeout",
            Event::CancelRequested { reason: "over its dagrun_timeout of 1h".into(), cause: CancelCause::DagrunTimeout },
        ),
        ("run_reopened", Event::RunReopened),
        ("run_stuck", Event::RunStuck { instances: vec![single("a"), mapped("b", 0)] }),
        ("run_succeeded", Event::RunSucceeded),
        ("run_failed", Event::RunFailed),
        ("run_cancelled", Event::RunCancelled),
    ]
}

fn attempt_samples() -> Vec<Sample> {
    let segment = |instance, commit| Event::SegmentCommitted { instance, try_number: 2, commit: Arc::new(commit) };
    let full = SegmentCommit {
        segment: 3,
        digest: "e3b0c44298fc1c149afbf4c8996fb924".into(),
        promise: Promise::AtLeastOnce("MariaDB commits DDL implicitly".into()),
        evidence: operator(true),
        statements: vec![statement(1), full_statement()],
        result: Some(r#"[[1,"x"]]"#.into()),
    };
    vec![
        ("task_scheduled", Event::TaskScheduled { instance: single("capture") }),
        ("task_scheduled.mapped", Event::TaskScheduled { instance: mapped("group.load", 0) }),
        ("task_expanded", Event::TaskExpanded { task: "load".into(), items: vec!["1".into(), r#"{"a":"b"}"#.into()] }),
        ("task_expanded.empty", Event::TaskExpanded { task: "load".into(), items: Vec::new() }),
        ("attempt_started", attempt_started(single("capture"), 1, at(1))),
        (
            "attempt_started.mapped",
            Event::AttemptStarted {
                instance: mapped("load", 4_294_967_295),
                try_number: 12,
                epoch: 7,
                at: "2025-10-26T02:00:00.123456789Z".parse().unwrap(),
            },
        ),
        ("segment_committed", segment(mapped("load", 3), full)),
        ("segment_committed.minimal", segment(single("capture"), commit(Promise::ExactlyOnce, Evidence::Acknowledged))),
        ("segment_committed.marker", segment(single("capture"), commit(Promise::ExactlyOnce, Evidence::Marker))),
        ("segment_committed.read_only", segment(single("capture"), commit(Promise::ReadOnly, Evidence::ReadOnly))),
        (
            "attempt_succeeded",
            Event::AttemptSucceeded {
                instance: mapped("load", 3),
                try_number: 2,
                result: Some(r#""é""#.into()),
                follow: Some(vec!["left".into()]),
            },
        ),
        (
            "attempt_succeeded.minimal",
            Event::AttemptSucceeded { instance: single("a"), try_number: 1, result: None, follow: None },
        ),
        (
            "attempt_succeeded.follows_none",
            Event::AttemptSucceeded { instance: single("a"), try_number: 1, result: None, follow: Some(Vec::new()) },
        ),
        ("attempt_deferred", Event::AttemptDeferred { instance: single("wait"), try_number: 1, until: at(60_000_000) }),
    ]
}

fn outcome_samples() -> Vec<Sample> {
    let failed = |class| Event::AttemptFailed {
        instance: single("apply"),
        try_number: 1,
        failure: Arc::new(Failure { class, ..failure("it failed") }),
        is_final: false,
    };
    let resolved = |evidence| Event::UnknownResolved { instance: single("apply"), try_number: 1, evidence };
    let skipped = |cause| Event::TaskSkipped { instance: single("b"), cause };
    vec![
        (
            "attempt_failed",
            Event::AttemptFailed {
                instance: mapped("apply", 1),
                try_number: 3,
                failure: Arc::new(full_failure(FailureClass::Final)),
                is_final: true,
            },
        ),
        ("attempt_failed.minimal", failed(FailureClass::Permanent)),
        ("attempt_failed.transient", failed(FailureClass::Transient)),
        ("attempt_failed.cancelled", failed(FailureClass::Cancelled)),
        ("attempt_failed.timed_out", failed(FailureClass::TimedOut)),
        (
            "attempt_unknown",
            Event::AttemptUnknown {
                instance: mapped("apply", 1),
                try_number: 1,
                failure: Arc::new(full_failure(FailureClass::Interrupted)),
            },
        ),
        ("unknown_resolved", resolved(Evidence::Tombstone)),
        ("unknown_resolved.allowed", resolved(Evidence::Allowed)),
        ("unknown_resolved.operator", resolved(operator(false))),
        ("retry_scheduled", Event::RetryScheduled { instance: mapped("apply", 1), at: at(300_000_000) }),
        ("timer_fired", Event::TimerFired { instance: mapped("apply", 1) }),
        ("task_skipped", skipped(SkipCause::TriggerRule)),
        ("task_skipped.branch", skipped(SkipCause::Branch("choose".into()))),
        ("task_skipped.own", skipped(SkipCause::Own("no rows today".into()))),
        ("task_skipped.nothing_to_map", skipped(SkipCause::NothingToMap)),
        ("task_skipped.run_cancelled", skipped(SkipCause::RunCancelled)),
        ("task_upstream_failed", Event::TaskUpstreamFailed { instance: single("c") }),
    ]
}

fn callback_samples() -> Vec<Sample> {
    let of_run = CallbackId { instance: None, try_number: 0, occasion: Occasion::Success, place: 0 };
    vec![
        ("callback_scheduled", Event::CallbackScheduled { callback: callback(Occasion::Retry, 1) }),
        ("callback_scheduled.run", Event::CallbackScheduled { callback: of_run }),
        (
            "callback_finished",
            Event::CallbackFinished {
                callback: callback(Occasion::Failure, 1),
                failure: Some(Arc::new(full_failure(FailureClass::Permanent))),
            },
        ),
        ("callback_finished.minimal", Event::CallbackFinished { callback: callback(Occasion::Failure, 0), failure: None }),
    ]
}

/// Version 4.
fn pin_samples() -> Vec<Sample> {
    let pinned = |variables: Option<&str>| Event::RunPinned {
        version: "60303ae22b998861bce3b28f33eec1be".into(),
        variables: variables.map(Arc::from),
    };
    vec![("run_pinned", pinned(Some("fd61a03af4f77d87"))), ("run_pinned.minimal", pinned(None))]
}

/// Version 2.
fn operator_samples() -> Vec<Sample> {
    let cleared = |restart| Event::InstancesCleared { instances: vec![single("a"), mapped("group.c", 1)], restart };
    let stopped = |instance, then| Event::InstanceCancelRequested { instance, reason: "it \"hangs\"".into(), then };
    vec![
        ("instances_cleared", cleared(Restart::Beginning)),
        ("instances_cleared.last_commit", cleared(Restart::LastCommit)),
        ("task_unexpanded", Event::TaskUnexpanded { task: "b".into(), count: 2 }),
        ("instance_marked", Event::InstanceMarked { instance: single("a"), mark: Mark::Success }),
        ("instance_marked.failed", Event::InstanceMarked { instance: mapped("b", 1), mark: Mark::Failed }),
        ("instance_cancel_requested", stopped(single("a"), Afterwards::Fail)),
        ("instance_cancel_requested.clear", stopped(mapped("b", 0), Afterwards::Clear(Restart::LastCommit))),
        ("instance_cancel_requested.mark", stopped(single("a"), Afterwards::Mark(Mark::Failed))),
    ]
}

/// Version 3.
fn cross_samples() -> Vec<Sample> {
    let caused = |id, run_type, cause| {
        let header = RunHeader { run_id: RunId::new(id), run_type, cause: Some(cause), ..full_header() };
        Event::RunCreated(Arc::new(header))
    };
    let update = |asset: &str, instance| AssetUpdate { asset: asset.into(), run: "0199-full".into(), instance, at: at(7) };
    let alert = |occasion, number| CallbackId { instance: None, try_number: number, occasion, place: 1 };
    vec![
        (
            "run_created.caused",
            caused("0199-child", RunType::Manual, Cause::Task { run: "0199-full".into(), instance: mapped("load", 3), depth: 2 }),
        ),
        (
            "run_created.by_assets.caused",
            caused(
                "0199-by-assets",
                RunType::AssetTriggered,
                Cause::Assets { updates: vec![update("sales", single("load")), update("s3://é", mapped("b", 0))], until: 42 },
            ),
        ),
        (
            "assets_updated",
            Event::AssetsUpdated { instance: single("load"), try_number: 2, assets: vec!["sales".into(), "s3://é".into()] },
        ),
        ("assets_updated.mapped", Event::AssetsUpdated { instance: mapped("b", 1), try_number: 1, assets: vec!["sales".into()] }),
        ("deadline_at_risk", Event::DeadlineAtRisk { deadline: 1, due_at: at(60_000_000), done_at: at(90_000_000) }),
        ("deadline_missed", Event::DeadlineMissed { deadline: 0, due_at: at(60_000_000) }),
        ("alert_scheduled", Event::CallbackScheduled { callback: alert(Occasion::Deadline, 0) }),
        ("alert_finished", Event::CallbackFinished { callback: alert(Occasion::Stuck, 3), failure: None }),
        (
            "alert_finished.failed",
            Event::CallbackFinished {
                callback: alert(Occasion::Deadline, 1),
                failure: Some(Arc::new(full_failure(FailureClass::Permanent))),
            },
        ),
    ]
}

fn anomaly_samples() -> Vec<Sample> {
    let noticed = |instance, unusual| Event::AnomalyNoticed {
        instance,
        try_number: 2,
        anomaly: Anomaly { statement: 3, unusual, seen: 12_000, usual: 900, of: 20 },
    };
    vec![
        ("anomaly_noticed", noticed(single("a"), Unusual::Slow)),
        ("anomaly_noticed.no_rows", noticed(mapped("b", 1), Unusual::NoRows)),
        ("anomaly_noticed.few_rows", noticed(single("a"), Unusual::FewRows)),
        ("anomaly_noticed.many_rows", noticed(single("a"), Unusual::ManyRows)),
    ]
}

fn transaction_samples() -> Vec<Sample> {
    let held = |statements: Vec<StatementRecord>, result: Option<&str>| Event::AttemptHeld {
        instance: single("group.c"),
        try_number: 2,
        statements: statements.into(),
        result: result.map(Arc::from),
    };
    let rolled_back = |is_final| Event::GroupRolledBack {
        group: "group".into(),
        members: vec![single("a"), single("group.c")],
        failure: Arc::new(failure("deadlock detected")),
        is_final,
    };
    vec![
        ("attempt_held", held(vec![statement(1), statement(2)], Some("[1]"))),
        ("attempt_held.minimal", held(Vec::new(), None)),
        ("group_rolled_back", rolled_back(false)),
        ("group_rolled_back.final", rolled_back(true)),
    ]
}

/// A run of `length` events in no sensible order: all kinds, on a few instances, so that projections meet every sequence.
pub fn random_run(seed: u64, length: usize) -> Vec<Event> {
    let mut random = Random::new(seed);
    let run = RunId::new(format!("random-{seed}"));
    let mut events = vec![created(&run, &format!("dag-{}", seed % 3))];
    let others: Vec<Event> =
        samples().into_iter().map(|(_, event)| event).filter(|event| !matches!(event, Event::RunCreated(_))).collect();
    while events.len() < length {
        let mut event = others[random.below(others.len() as u64) as usize].clone();
        relocate(&mut event, &mut random);
        events.push(event);
    }
    events
}

/// Moves an event to one of few instances, so that they meet.
fn relocate(event: &mut Event, random: &mut Random) {
    let tasks: [TaskId; 3] = ["a".into(), "b".into(), "group.c".into()];
    let chosen = tasks[random.below(3) as usize].clone();
    match event {
        Event::TaskExpanded { task, .. } | Event::TaskUnexpanded { task, .. } | Event::GroupRolledBack { group: task, .. } => {
            *task = chosen;
        }
        // Of a mapped task there is no such event.
        Event::AttemptHeld { instance, .. } => instance.task = chosen,
        Event::InstancesCleared { instances, .. } => {
            instances.iter_mut().for_each(|instance| instance.task = chosen.clone());
        }
        Event::TaskScheduled { instance }
        | Event::AttemptStarted { instance, .. }
        | Event::SegmentCommitted { instance, .. }
        | Event::AttemptSucceeded { instance, .. }
        | Event::AttemptDeferred { instance, .. }
        | Event::AttemptFailed { instance, .. }
        | Event::AttemptUnknown { instance, .. }
        | Event::UnknownResolved { instance, .. }
        | Event::RetryScheduled { instance, .. }
        | Event::TimerFired { instance }
        | Event::InstanceMarked { instance, .. }
        | Event::InstanceCancelRequested { instance, .. }
        | Event::AssetsUpdated { instance, .. }
        | Event::AnomalyNoticed { instance, .. }
        | Event::TaskSkipped { instance, .. }
        | Event::TaskUpstreamFailed { instance } => {
            *instance = InstanceId { task: chosen, map_index: [None, Some(0), Some(1)][random.below(3) as usize] };
        }
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::RunReopened
        | Event::RunPinned { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => {}
    }
}
