//! Every command in every phase of an instance and of a run: accepted with which events, or refused how.
//!
//! The tables are snapshots; what makes them complete is asserted.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use backstop_core::command::Command;
use backstop_core::dag::{DagSpec, Hooks, TaskSettings};
use backstop_core::event::{Anomaly, CallbackId, Evidence, FailureClass, Mark, Occasion, Restart, Unusual};
use backstop_core::retry::RetryPolicy;
use backstop_core::{InstancePhase, RunPhase, TaskId};
use fixture::{Run, at, failure, header, id, names, plain, segment, spec, task};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Every command, about `t` where it is about an instance, with the answers of its current try.
fn all_commands(run: &Run) -> Vec<(&'static str, Command)> {
    let instance = id("t");
    let try_number = run.state.instance(&instance).map_or(0, |view| view.try_number);
    let segments = run.state.instance(&instance).map_or(0, |view| view.segments.len() as u32);
    let lost = failure(FailureClass::Transient);
    let callback = CallbackId { instance: None, try_number: 0, occasion: Occasion::Failure, place: 0 };
    let commands = [
        Command::Start,
        Command::Resume { epoch: 9 },
        Command::StartAttempt { instance: instance.clone() },
        Command::Expand { task: TaskId::from("t"), try_number, items: vec![Arc::from("1")] },
        Command::CommitSegment { instance: instance.clone(), try_number, commit: segment(segments) },
        Command::Succeed { instance: instance.clone(), try_number, result: None, follow: None },
        Command::Hold { instance: instance.clone(), try_number, statements: Arc::default(), result: None },
        Command::LoseTransaction { instance: instance.clone(), try_number, failure: Arc::clone(&lost) },
        Command::GiveUpTransactions { failure: Arc::clone(&lost) },
        Command::Skip { instance: instance.clone(), try_number, reason: "no rows".to_owned() },
        Command::Defer { instance: instance.clone(), try_number, until: at(2_000) },
        Command::Fail { instance: instance.clone(), try_number, failure: Arc::clone(&lost) },
        Command::LoseTrack { instance: instance.clone(), try_number, failure: lost },
        Command::Resolve { instance: instance.clone(), try_number, evidence: Evidence::Tombstone },
        Command::Clear {
            instances: vec![instance.clone()],
            restart: Restart::Beginning,
            who: "ada".to_owned(),
            why: "because".to_owned(),
        },
        Command::Mark {
            instances: vec![instance.clone()],
            mark: Mark::Success,
            who: "ada".to_owned(),
            why: "because".to_owned(),
        },
        Command::CancelInstance { instance: instance.clone(), reason: "too slow".to_owned(), who: "ada".to_owned() },
        Command::Pin { version: "mended".to_owned(), variables: None },
        Command::NoticeAnomaly {
            instance,
            try_number,
            anomaly: Anomaly { statement: 1, unusual: Unusual::Slow, seen: 9000, usual: 1000, of: 20 },
        },
        Command::FireTimers,
        Command::Wake { instance: id("t") },
        Command::TellDeadline { deadline: 0, due_at: at(500), done_at: None },
        Command::Cancel { reason: "stop".to_owned() },
        Command::FinishCallback { callback, failure: None },
        Command::RecordOperator { who: "ada".to_owned(), why: "because".to_owned(), what: "looked".to_owned() },
        Command::DeclareStuck,
        Command::Advance,
    ];
    commands.into_iter().map(|command| (name(&command), command)).collect()
}

fn name(command: &Command) -> &'static str {
    match command {
        Command::Start => "Start",
        Command::Resume { .. } => "Resume",
        Command::StartAttempt { .. } => "StartAttempt",
        Command::Expand { .. } => "Expand",
        Command::CommitSegment { .. } => "CommitSegment",
        Command::Succeed { .. } => "Succeed",
        Command::Hold { .. } => "Hold",
        Command::LoseTransaction { .. } => "LoseTransaction",
        Command::GiveUpTransactions { .. } => "GiveUpTransactions",
        Command::Skip { .. } => "Skip",
        Command::Defer { .. } => "Defer",
        Command::Fail { .. } => "Fail",
        Command::LoseTrack { .. } => "LoseTrack",
        Command::Resolve { .. } => "Resolve",
        Command::Clear { .. } => "Clear",
        Command::Mark { .. } => "Mark",
        Command::CancelInstance { .. } => "CancelInstance",
        Command::Pin { .. } => "Pin",
        Command::NoticeAnomaly { .. } => "NoticeAnomaly",
        Command::FireTimers => "FireTimers",
        Command::Wake { .. } => "Wake",
        Command::TellDeadline { .. } => "TellDeadline",
        Command::Cancel { .. } => "Cancel",
        Command::FinishCallback { .. } => "FinishCallback",
        Command::RecordOperator { .. } => "RecordOperator",
        Command::DeclareStuck => "DeclareStuck",
        Command::Advance => "Advance",
    }
}

/// How many variants [`name`] names.
const COMMANDS: usize = 27;

/// `up -> t -> down`, with one retry for `t`, a task of its own that keeps the run open, and a callback for every occasion.
fn dag(is_mapped: bool) -> DagSpec {
    let retry = RetryPolicy { retries: 1, retry_delay: Duration::from_secs(60), ..RetryPolicy::default() };
    let hooks = Hooks { on_failure: 1, on_retry: 1, on_success: 1, ..Hooks::default() };
    let settings = TaskSettings { mapped: is_mapped, retry, hooks, ..TaskSettings::default() };
    let mut spec = spec(vec![plain("up", &[]), task("t", &["up"], settings), plain("down", &["t"]), plain("other", &[])]);
    spec.hooks = hooks;
    spec
}

/// One row for each command. Time is 1000 s, when every timer of the set-up is due.
fn rows(phase: &str, make: impl Fn() -> Run) -> String {
    let mut seen = BTreeSet::new();
    let mut rows = String::new();
    for (name, command) in all_commands(&make()) {
        seen.insert(name);
        let mut run = make();
        run.now = 1_000;
        let answer = match run.tell(command) {
            Ok(events) if events.is_empty() => "nothing".to_owned(),
            Ok(events) => names(&events),
            Err(refusal) => format!("refused: {refusal}"),
        };
        rows.push_str(&format!("{phase:16} {name:14} {answer}\n"));
    }
    assert_eq!(seen.len(), COMMANDS, "every command has a row");
    rows
}

fn phases() -> Vec<(&'static str, Run)> {
    let running = |is_mapped| {
        let mut run = Run::started(dag(is_mapped));
        run.run_to_success("up");
        run.begin("t");
        run
    };
    let with = |change: &dyn Fn(&mut Run)| {
        let mut run = running(false);
        change(&mut run);
        run
    };
    let none = Run::started(dag(false));
    let mut scheduled = Run::started(dag(false));
    scheduled.run_to_success("up");
    let mut upstream_failed = Run::started(dag(false));
    upstream_failed.begin("up");
    upstream_failed.fail("up", FailureClass::Permanent);
    let mut removed = Run::with_header(dag(false), header(&["up", "other"]));
    removed.ok(Command::Start);
    vec![
        ("none", none),
        ("scheduled", scheduled),
        ("running", running(false)),
        (
            "up_for_reschedule",
            with(&|run| {
                run.ok(Command::Defer { instance: id("t"), try_number: 1, until: at(500) });
            }),
        ),
        (
            "up_for_retry",
            with(&|run| {
                run.fail("t", FailureClass::Transient);
            }),
        ),
        (
            "in_doubt",
            with(&|run| {
                run.lose("t", FailureClass::Transient);
            }),
        ),
        (
            "success",
            with(&|run| {
                run.succeed("t");
            }),
        ),
        (
            "failed",
            with(&|run| {
                run.fail("t", FailureClass::Final);
            }),
        ),
        (
            "skipped",
            with(&|run| {
                run.ok(Command::Skip { instance: id("t"), try_number: 1, reason: "none".to_owned() });
            }),
        ),
        ("upstream_failed", upstream_failed),
        ("removed", removed),
    ]
}

/// Runs are driven anew for each command, so the set-up is a function of its place in the list.
fn run_in(place: usize) -> Run {
    phases().swap_remove(place).1
}

#[test]
fn every_command_in_every_phase_of_an_instance() {
    let mut table = String::new();
    let mut reached = BTreeSet::new();
    for (place, (phase, run)) in phases().into_iter().enumerate() {
        assert_eq!(run.phase_of("t"), phase);
        reached.insert(phase);
        table.push_str(&rows(phase, || run_in(place)));
    }
    let all = [
        InstancePhase::None,
        InstancePhase::Scheduled,
        InstancePhase::Running,
        InstancePhase::Deferred { until: at(0) },
        InstancePhase::UpForRetry { at: at(0) },
        InstancePhase::InDoubt,
        InstancePhase::Success,
        InstancePhase::Failed,
        InstancePhase::Skipped,
        InstancePhase::UpstreamFailed,
        InstancePhase::Removed,
    ];
    assert_eq!(reached, all.iter().map(|phase| phase.as_str()).collect(), "every phase has its rows");
    insta::assert_snapshot!(table);
}

#[test]
fn every_command_about_a_mapped_task() {
    let unexpanded = || {
        let mut run = Run::started(dag(true));
        run.run_to_success("up");
        run.begin("t");
        run
    };
    let in_doubt = || {
        let mut run = unexpanded();
        run.lose("t", FailureClass::Transient);
        run
    };
    let expanded = || {
        let mut run = unexpanded();
        run.expand("t", 2);
        run
    };
    let table = [rows("unexpanded", unexpanded), rows("in doubt", in_doubt), rows("expanded", expanded)].concat();
    insta::assert_snapshot!(table);
}

#[test]
fn every_command_in_every_phase_of_a_run() {
    let queued = || Run::created(dag(false));
    let running = || {
        let mut run = Run::started(dag(false));
        run.run_to_success("up");
        run.begin("t");
        run
    };
    let cancelling = || {
        let mut run = running();
        run.ok(Command::Cancel { reason: "stop".to_owned() });
        run
    };
    let stuck = || {
        let mut run = running();
        run.run_to_success("other");
        run.lose("t", FailureClass::Transient);
        run.ok(Command::DeclareStuck);
        run
    };
    let succeeded = || {
        let mut run = running();
        run.run_to_success("other");
        run.succeed("t");
        run.run_to_success("down");
        run
    };
    let failed = || {
        let mut run = running();
        run.run_to_success("other");
        run.fail("t", FailureClass::Final);
        run
    };
    let cancelled = || {
        let mut run = cancelling();
        run.fail("t", FailureClass::Cancelled);
        run
    };
    let makers: [(RunPhase, &dyn Fn() -> Run); 7] = [
        (RunPhase::Queued, &queued),
        (RunPhase::Running, &running),
        (RunPhase::Cancelling, &cancelling),
        (RunPhase::Stuck, &stuck),
        (RunPhase::Succeeded, &succeeded),
        (RunPhase::Failed, &failed),
        (RunPhase::Cancelled, &cancelled),
    ];
    let mut table = String::new();
    for (phase, make) in makers {
        assert_eq!(make().state.phase(), phase);
        table.push_str(&rows(phase.as_str(), make));
    }
    assert_eq!(makers.map(|(phase, _)| phase), RunPhase::ALL, "every phase has its rows");
    insta::assert_snapshot!(table);
}

#[test]
fn nothing_is_accepted_before_the_run_is_created() {
    let mut run = Run::created(dag(false));
    run.state = backstop_core::RunState::new(Arc::clone(run.state.dag()));
    for (name, command) in all_commands(&run) {
        assert_eq!(run.tell(command).unwrap_err().to_string(), "the state of the run is not created", "{name}");
    }
}
