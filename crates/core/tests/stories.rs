//! Runs told step by step: what the tables and the random runs do not show by name.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use backstop_core::command::{Command, Rejected};
use backstop_core::dag::{DagSpec, Hooks, Pool, Role, TaskSettings};
use backstop_core::event::{
    CallbackId, Evidence, Failure, FailureClass, Occasion, Restart, SegmentCommit, SkipCause, StatementRecord,
};
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use backstop_core::state::INTERRUPTIONS_MAX;
use backstop_core::{Action, Event, RunPhase, TaskId, actions};
use fixture::{Run, at, failure, header, id, names, plain, segment, spec, task};
use std::sync::Arc;
use std::time::Duration;

fn retries(retries: u32) -> TaskSettings {
    let retry = RetryPolicy { retries, retry_delay: Duration::from_secs(60), ..RetryPolicy::default() };
    TaskSettings { retry, ..TaskSettings::default() }
}

fn by_rule(trigger_rule: TriggerRule) -> TaskSettings {
    TaskSettings { trigger_rule, ..TaskSettings::default() }
}

fn mapped() -> TaskSettings {
    TaskSettings { mapped: true, ..TaskSettings::default() }
}

fn starts(run: &Run) -> String {
    let starts = actions(&run.state).into_iter().filter_map(|action| match action {
        Action::StartAttempt { instance, try_number } => Some(format!("{instance} {try_number}")),
        Action::ResolveUnknown { .. } | Action::CancelAttempt { .. } | Action::RunCallback { .. } | Action::WakeAt(_) => None,
    });
    starts.collect::<Vec<_>>().join(", ")
}

fn person(took_effect: bool) -> Evidence {
    Evidence::Operator { who: "ada".to_owned(), why: "read the table".to_owned(), took_effect }
}

#[test]
fn a_retry_waits_and_fires_no_failure_callback() {
    let hooks = Hooks { on_failure: 1, on_retry: 2, ..Hooks::default() };
    let mut run = Run::started(spec(vec![task("load", &[], TaskSettings { hooks, ..retries(1) })]));
    run.begin("load");
    run.now = 100;
    insta::assert_snapshot!(names(&run.fail("load", FailureClass::Transient)), @"AttemptFailed load, CallbackScheduled load 1 Retry 0, CallbackScheduled load 1 Retry 1, RetryScheduled load at 160");
    assert_eq!(actions(&run.state).last(), Some(&Action::WakeAt(at(160))));
    run.now = 159;
    assert_eq!(run.ok(Command::FireTimers), []);
    run.now = 160;
    insta::assert_snapshot!(names(&run.ok(Command::FireTimers)), @"TimerFired load");
    assert_eq!(starts(&run), "load 2");
    run.begin("load");
    insta::assert_snapshot!(names(&run.fail("load", FailureClass::Transient)), @"AttemptFailed load for good, CallbackScheduled load 2 Failure 0, RunFailed");
    assert!(!run.state.is_finished(), "callbacks are pending");
    for callback in run.state.pending_callbacks().cloned().collect::<Vec<CallbackId>>() {
        run.ok(Command::FinishCallback { callback: callback.clone(), failure: Some(failure(FailureClass::Permanent)) });
        assert!(run.tell(Command::FinishCallback { callback, failure: None }).is_err(), "told twice");
    }
    assert!(run.state.is_finished());
    assert_eq!(run.state.phase(), RunPhase::Failed);
}

#[test]
fn a_clock_that_jumps_back_only_delays() {
    let mut run = Run::started(spec(vec![task("load", &[], retries(1))]));
    run.now = 1_000;
    run.begin("load");
    run.fail("load", FailureClass::Transient);
    run.now = -5_000_000;
    assert_eq!(run.ok(Command::FireTimers), []);
    assert_eq!(actions(&run.state), [Action::WakeAt(at(1_060))]);
    run.now = 1_060;
    run.ok(Command::FireTimers);
    assert_eq!(run.phase_of("load"), "scheduled");
}

#[test]
fn a_failure_may_be_final_whatever_is_left() {
    for class in [FailureClass::Final, FailureClass::Cancelled] {
        let mut run = Run::started(spec(vec![task("load", &[], retries(5))]));
        run.begin("load");
        run.fail("load", class);
        assert_eq!(run.phase_of("load"), "failed", "{class:?}");
    }
}

#[test]
fn an_interruption_uses_up_no_retry_until_there_are_too_many() {
    let mut run = Run::started(spec(vec![task("load", &[], retries(0))]));
    for _ in 0..INTERRUPTIONS_MAX {
        run.begin("load");
        run.fail("load", FailureClass::Interrupted);
        assert_eq!(run.phase_of("load"), "scheduled");
    }
    run.begin("load");
    run.commit("load", 0);
    run.fail("load", FailureClass::Interrupted);
    assert_eq!(run.phase_of("load"), "scheduled", "progress begins the count anew");
    for _ in 1..INTERRUPTIONS_MAX {
        run.begin("load");
        run.lose("load", FailureClass::Interrupted);
        run.resolve("load", Evidence::Tombstone);
        assert_eq!(run.phase_of("load"), "scheduled");
    }
    run.begin("load");
    run.fail("load", FailureClass::Interrupted);
    assert_eq!(run.line(), "load=failed | failed");
}

#[test]
fn a_process_that_dies_leaves_doubts_that_are_resolved_into_free_tries() {
    let mut run = Run::started(spec(vec![task("load", &[], retries(0)), plain("next", &["load"])]));
    run.begin("load");
    run.commit("load", 0);
    assert!(matches!(run.tell(Command::Resume { epoch: 1 }), Err(Rejected::BadArgument(_))));
    insta::assert_snapshot!(names(&run.ok(Command::Resume { epoch: 2 })), @"RunResumed 2, AttemptUnknown load");
    assert_eq!(run.state.pool_slots_used(0), 0, "a doubt holds no slot");
    assert_eq!(actions(&run.state), [Action::ResolveUnknown { instance: id("load"), try_number: 1 }]);
    let late = Command::Succeed { instance: id("load"), try_number: 1, result: None, follow: None };
    assert!(matches!(run.tell(late), Err(Rejected::Instance { .. })));
    run.commit("load", 1);
    insta::assert_snapshot!(names(&run.resolve("load", Evidence::Marker)), @"UnknownResolved load, TaskScheduled load");
    assert_eq!(starts(&run), "load 2");
    run.begin("load");
    let view = run.state.instance(&id("load")).unwrap();
    assert_eq!((view.segments.len(), view.failures, view.epoch), (2, 0, 2), "commits are kept over tries");
    let late = Command::Fail { instance: id("load"), try_number: 1, failure: failure(FailureClass::Transient) };
    assert!(matches!(run.tell(late), Err(Rejected::StaleTry { given: 1, current: 2, .. })));
    run.commit("load", 2);
    run.succeed("load");
    assert_eq!(run.phase_of("next"), "scheduled");
}

#[test]
fn a_connection_lost_before_any_commit_counts_as_a_failed_try() {
    let mut run = Run::started(spec(vec![task("load", &[], retries(1))]));
    run.begin("load");
    run.lose("load", FailureClass::Transient);
    insta::assert_snapshot!(names(&run.resolve("load", Evidence::Tombstone)), @"UnknownResolved load, AttemptFailed load, RetryScheduled load at 60");
    run.now = 60;
    run.ok(Command::FireTimers);
    run.begin("load");
    run.lose("load", FailureClass::Transient);
    run.commit("load", 0);
    insta::assert_snapshot!(names(&run.resolve("load", Evidence::Marker)), @"UnknownResolved load, TaskScheduled load");
    run.begin("load");
    run.lose("load", FailureClass::Transient);
    insta::assert_snapshot!(names(&run.resolve("load", Evidence::Tombstone)), @"UnknownResolved load, AttemptFailed load for good, RunFailed");
}

#[test]
fn a_stuck_run_goes_on_when_a_person_decides() {
    let mut run = Run::started(spec(vec![plain("load", &[]), plain("next", &["load"])]));
    run.begin("load");
    run.lose("load", FailureClass::Transient);
    insta::assert_snapshot!(names(&run.ok(Command::DeclareStuck)), @"RunStuck 1");
    assert_eq!(actions(&run.state), [], "a person is awaited");
    let mut other = Run { state: run.state.clone(), events: run.events.clone(), now: 0 };
    insta::assert_snapshot!(names(&run.resolve("load", person(true))), @"UnknownResolved load, AttemptSucceeded load, TaskScheduled next");
    assert_eq!(run.state.phase(), RunPhase::Running);
    insta::assert_snapshot!(names(&other.resolve("load", person(false))), @"UnknownResolved load, TaskScheduled load");
    assert_eq!(starts(&other), "load 2");
}

#[test]
fn a_sensor_keeps_its_try_and_the_time_of_its_first_look() {
    let mut run = Run::started(spec(vec![task("wait", &[], retries(1))]));
    let since = |run: &Run| run.state.instance(&id("wait")).unwrap().waiting_since;
    run.now = 10;
    run.begin("wait");
    run.ok(Command::Defer { instance: id("wait"), try_number: 1, until: at(40) });
    assert_eq!((run.state.pool_slots_used(0), since(&run)), (0, Some(at(10))));
    run.now = 40;
    run.ok(Command::FireTimers);
    assert_eq!(starts(&run), "wait 1");
    run.begin("wait");
    run.ok(Command::Resume { epoch: 2 });
    run.resolve("wait", Evidence::ReadOnly);
    run.begin("wait");
    assert_eq!((run.try_of("wait"), since(&run)), (2, Some(at(10))), "an interruption begins no new wait");
    run.now = 50;
    run.fail("wait", FailureClass::Permanent);
    run.now = 200;
    run.ok(Command::FireTimers);
    run.begin("wait");
    assert_eq!((run.try_of("wait"), since(&run)), (3, Some(at(200))), "a counted failure does");
}

#[test]
fn a_branch_skips_what_it_does_not_follow_unless_a_followed_one_leads_there() {
    let shape = || {
        spec(vec![
            plain("choose", &[]),
            plain("left", &["choose"]),
            task("right", &["choose"], by_rule(TriggerRule::Always)),
            task("end", &["choose", "left"], by_rule(TriggerRule::NoneFailed)),
            plain("deep", &["end"]),
        ])
    };
    let mut run = Run::started(shape());
    run.begin("choose");
    let wrong = |follow: &str| Command::Succeed {
        instance: id("choose"),
        try_number: 1,
        result: None,
        follow: Some(vec![TaskId::from(follow)]),
    };
    for name in ["deep", "nowhere"] {
        let refusal = run.tell(wrong(name)).unwrap_err().to_string();
        assert_eq!(refusal, format!("`choose` cannot branch to `{name}`, which does not come directly after it"));
    }
    insta::assert_snapshot!(names(&run.follow("choose", Some(&["left"]))), @r#"AttemptSucceeded choose, TaskSkipped right Branch("choose"), TaskScheduled left"#);
    let mut none = Run::started(shape());
    none.begin("choose");
    none.follow("choose", Some(&[]));
    assert_eq!(none.line(), "choose=success left=skipped right=skipped end=skipped deep=skipped | success");
}

#[test]
fn a_mapped_task_expands_and_its_downstream_waits_for_every_item() {
    let mut run = Run::started(spec(vec![task("each", &[], mapped()), plain("sum", &["each"])]));
    run.begin("each");
    insta::assert_snapshot!(names(&run.expand("each", 3)), @"TaskExpanded each 3");
    assert_eq!(run.state.items("each").unwrap().len(), 3);
    assert_eq!(starts(&run), "each[0] 1, each[1] 1, each[2] 1");
    run.begin("each[1]");
    let done = Command::Succeed { instance: id("each[1]"), try_number: 1, result: Some("7".into()), follow: None };
    run.ok(done);
    assert_eq!(run.state.result("each", Some(1)).map(|result| &**result), Some("7"));
    run.run_to_success("each[0]");
    assert_eq!(run.phase_of("sum"), "none");
    run.begin("each[2]");
    run.fail("each[2]", FailureClass::Permanent);
    assert_eq!(run.line(), "each[0]=success each[1]=success each[2]=failed sum=upstream_failed | failed");
}

#[test]
fn an_expansion_may_fail_be_retried_and_find_nothing_or_too_much() {
    let settings = TaskSettings { mapped: true, ..retries(1) };
    let mut run =
        Run::started(spec(vec![task("each", &[], settings), task("next", &["each"], by_rule(TriggerRule::NoneFailed))]));
    run.begin("each");
    run.fail("each", FailureClass::Transient);
    run.now = 60;
    run.ok(Command::FireTimers);
    run.begin("each");
    let items = vec!["1".into(); 9];
    let refusal = run.tell(Command::Expand { task: TaskId::from("each"), try_number: 2, items }).unwrap_err();
    assert_eq!(refusal.to_string(), "`each` would expand to 9 items; at most 8 are allowed");
    insta::assert_snapshot!(names(&run.expand("each", 0)), @"TaskExpanded each 0, TaskSkipped each NothingToMap, TaskScheduled next");
    assert_eq!(run.state.items("each"), Some(&[][..]));
}

#[test]
fn a_mapped_task_cannot_choose_a_branch() {
    let mut run = Run::started(spec(vec![task("each", &[], mapped()), plain("next", &["each"])]));
    run.begin("each");
    run.expand("each", 1);
    run.begin("each[0]");
    let branch = Command::Succeed { instance: id("each[0]"), try_number: 1, result: None, follow: Some(Vec::new()) };
    assert_eq!(run.tell(branch).unwrap_err().to_string(), "`each` is mapped; a mapped task cannot choose a branch");
}

fn scoped(is_fatal: bool) -> DagSpec {
    let role = |role| TaskSettings { role, ..TaskSettings::default() };
    let teardown = TaskSettings {
        trigger_rule: TriggerRule::AllDoneSetupSuccess,
        ..role(Role::Teardown { on_failure_fail_dagrun: is_fatal })
    };
    spec(vec![
        task("make", &[], role(Role::Setup)),
        plain("use", &["make"]),
        plain("report", &["use"]),
        task("clean", &["make", "use"], teardown),
    ])
}

#[test]
fn a_teardown_runs_after_a_failure_and_does_not_hide_it() {
    let mut run = Run::started(scoped(false));
    run.run_to_success("make");
    run.begin("use");
    run.fail("use", FailureClass::Permanent);
    run.run_to_success("clean");
    assert_eq!(run.line(), "make=success use=failed report=upstream_failed clean=success | failed");
}

#[test]
fn a_teardowns_own_failure_fails_the_run_only_when_told_so() {
    for (is_fatal, outcome) in [(false, "success"), (true, "failed")] {
        let mut run = Run::started(scoped(is_fatal));
        for instance in ["make", "use", "report"] {
            run.run_to_success(instance);
        }
        run.begin("clean");
        run.fail("clean", FailureClass::Permanent);
        assert_eq!(run.state.phase().as_str(), outcome);
    }
}

#[test]
fn a_teardown_is_skipped_when_its_setup_was() {
    let mut run = Run::started(scoped(false));
    run.begin("make");
    run.ok(Command::Skip { instance: id("make"), try_number: 1, reason: "nothing to do".to_owned() });
    assert_eq!(run.line(), "make=skipped use=skipped report=skipped clean=skipped | success");
}

#[test]
fn cancelling_waits_for_what_runs_and_for_what_is_in_doubt() {
    let tasks = vec![plain("runs", &[]), plain("lost", &[]), task("late", &[], retries(3)), plain("next", &["runs"])];
    let mut run = Run::started(spec(tasks));
    for instance in ["runs", "lost", "late"] {
        run.begin(instance);
    }
    run.fail("late", FailureClass::Transient);
    run.lose("lost", FailureClass::Transient);
    run.ok(Command::Cancel { reason: "Ctrl-C".to_owned() });
    assert_eq!(run.line(), "runs=running lost=in_doubt late=skipped next=skipped | cancelling");
    assert_eq!(
        actions(&run.state),
        [
            Action::CancelAttempt { instance: id("runs"), try_number: 1, reason: None },
            Action::ResolveUnknown { instance: id("lost"), try_number: 1 }
        ]
    );
    run.fail("runs", FailureClass::Cancelled);
    insta::assert_snapshot!(names(&run.resolve("lost", Evidence::Tombstone)), @"UnknownResolved lost, AttemptFailed lost for good, RunCancelled");
}

#[test]
fn a_run_over_its_time_is_cancelled_and_fails() {
    let mut slow = spec(vec![plain("slow", &[]), plain("next", &["slow"])]);
    slow.dagrun_timeout = Some(Duration::from_secs(5_400));
    slow.hooks.on_failure = 1;
    let mut run = Run::created(slow);
    run.now = 100;
    run.ok(Command::Start);
    run.begin("slow");
    assert_eq!(actions(&run.state), [Action::WakeAt(at(5_500))]);
    run.now = 5_500;
    insta::assert_snapshot!(names(&run.ok(Command::FireTimers)), @"CancelRequested DagrunTimeout (over its dagrun_timeout of 1h 30m), TaskSkipped next RunCancelled");
    assert_eq!(actions(&run.state), [Action::CancelAttempt { instance: id("slow"), try_number: 1, reason: None }]);
    insta::assert_snapshot!(names(&run.fail("slow", FailureClass::Cancelled)), @"AttemptFailed slow for good, RunFailed, CallbackScheduled run Failure 0");
}

#[test]
fn only_the_wanted_tasks_run_as_if_the_others_were_not_there() {
    let tasks =
        vec![plain("first", &[]), task("wanted", &["first"], by_rule(TriggerRule::OneSuccess)), plain("last", &["wanted"])];
    let mut run = Run::with_header(spec(tasks), header(&["wanted"]));
    run.ok(Command::Start);
    run.begin("wanted");
    run.fail("wanted", FailureClass::Permanent);
    assert_eq!(run.line(), "first=removed wanted=failed last=removed | failed");
}

#[test]
fn an_empty_dag_succeeds_at_once() {
    let mut run = Run::created(spec(Vec::new()));
    insta::assert_snapshot!(names(&run.ok(Command::Start)), @"RunStarted, RunSucceeded");
}

#[test]
fn slots_go_by_priority_and_a_large_task_is_not_starved() {
    let weigh = |priority_weight, pool, pool_slots| TaskSettings { priority_weight, pool, pool_slots, ..TaskSettings::default() };
    let mut shape = spec(vec![
        task("small_1", &[], weigh(9, 0, 1)),
        task("large", &[], weigh(5, 0, 2)),
        task("small_2", &[], weigh(1, 0, 1)),
        task("elsewhere", &[], weigh(3, 1, 1)),
    ]);
    shape.pools = vec![Pool { name: "default_pool".to_owned(), slots: Some(2) }, Pool { name: "other".to_owned(), slots: None }];
    let mut run = Run::started(shape);
    assert_eq!(starts(&run), "small_1 1, elsewhere 1", "small_2 would fit, but does not pass the large one");
    run.begin("small_1");
    assert!(matches!(run.tell(Command::StartAttempt { instance: id("large") }), Err(Rejected::NoSlot(_))));
    run.succeed("small_1");
    assert_eq!(starts(&run), "large 1, elsewhere 1");
    run.begin("large");
    assert_eq!(starts(&run), "elsewhere 1");
}

#[test]
fn max_active_tasks_bounds_all_pools_together() {
    let mut shape = spec(vec![plain("a", &[]), plain("b", &[]), plain("c", &[])]);
    shape.max_active_tasks = 2;
    let mut run = Run::started(shape);
    assert_eq!(starts(&run), "a 1, b 1");
    run.begin("c");
    assert_eq!(starts(&run), "a 1");
}

#[test]
fn a_success_is_told_to_the_tasks_and_the_runs_callbacks() {
    let hooks = Hooks { on_success: 1, ..Hooks::default() };
    let mut shape = spec(vec![task("load", &[], TaskSettings { hooks, ..TaskSettings::default() })]);
    shape.hooks = hooks;
    let mut run = Run::started(shape);
    run.begin("load");
    insta::assert_snapshot!(names(&run.succeed("load")), @"AttemptSucceeded load, CallbackScheduled load 1 Success 0, RunSucceeded, CallbackScheduled run Success 0");
    run.ok(Command::Resume { epoch: 2 });
    let callback = CallbackId { instance: None, try_number: 0, occasion: Occasion::Success, place: 0 };
    assert!(actions(&run.state).contains(&Action::RunCallback { callback }), "also after a new process took over");
    assert_eq!(run.state.phase(), RunPhase::Succeeded);
}

#[test]
fn events_that_fit_nothing_change_nothing_but_the_version() {
    let mut run = Run::started(spec(vec![plain("load", &[])]));
    run.run_to_success("load");
    let line = run.line();
    let version = run.state.version();
    for event in [
        Event::TaskScheduled { instance: id("nowhere") },
        Event::TaskSkipped { instance: id("load"), cause: SkipCause::TriggerRule },
        Event::TaskExpanded { task: TaskId::from("nowhere"), items: Vec::new() },
        Event::RunFailed,
        Event::RunStarted { at: at(9) },
        Event::RunStuck { instances: Vec::new() },
    ] {
        backstop_core::apply(&mut run.state, &event);
    }
    assert_eq!((run.line(), run.state.version()), (line, version + 6));
}

#[test]
fn a_person_who_speaks_of_one_segment_leaves_the_attempt_in_doubt_behind_it() {
    let committed = |number| Arc::new(SegmentCommit { evidence: person(true), ..SegmentCommit::clone(&segment(number)) });
    let mut run = Run::started(spec(vec![plain("load", &[])]));
    run.begin("load");
    run.lose("load", FailureClass::Final);
    run.ok(Command::DeclareStuck);
    for number in 0..2 {
        run.ok(Command::CommitSegment { instance: id("load"), try_number: 1, commit: committed(number) });
        assert_eq!(run.line(), "load=in_doubt | running", "the doubt goes on behind segment {number}, and is looked into again");
        let wanted = Action::ResolveUnknown { instance: id("load"), try_number: 1 };
        assert!(actions(&run.state).contains(&wanted), "{:?}", actions(&run.state));
        run.ok(Command::DeclareStuck);
    }
    let mut other = Run { state: run.state.clone(), events: run.events.clone(), now: 0 };
    other.resolve("load", person(true));
    assert_eq!(other.line(), "load=success | success", "of the last segment, a person speaks for the whole");
    run.resolve("load", Evidence::Tombstone);
    assert_eq!(run.line(), "load=scheduled | running", "what the person spoke of stays, and the next try goes on behind it");
}

#[test]
fn the_statements_of_a_lost_attempt_are_told_once() {
    let mut run = Run::started(spec(vec![plain("load", &[])]));
    run.begin("load");
    let record = StatementRecord {
        number: 1,
        line: 1,
        summary: "SELECT 1".to_owned(),
        duration_us: 1,
        rows_affected: None,
        rows_returned: 1,
        notices: Vec::new(),
    };
    let lost = Failure { statements: vec![record], ..Failure::clone(&failure(FailureClass::Permanent)) };
    let try_number = run.try_of("load");
    run.ok(Command::LoseTrack { instance: id("load"), try_number, failure: lost.into() });
    let told = run.resolve("load", Evidence::Tombstone);
    let Some(Event::AttemptFailed { failure, .. }) = told.iter().find(|event| matches!(event, Event::AttemptFailed { .. }))
    else {
        panic!("it fails: {}", names(&told))
    };
    assert_eq!((failure.class, failure.statements.len()), (FailureClass::Permanent, 0));
}

/// A resumed run that is going to be cancelled looks at what an earlier process may have begun: what was not begun must be left for the cancel.
#[test]
fn what_was_stopped_only_to_be_looked_at_does_not_fail() {
    let mut run = Run::started(spec(vec![plain("load", &[]), plain("next", &["load"])]));
    run.begin("load");
    run.lose("load", FailureClass::Cancelled);
    insta::assert_snapshot!(names(&run.resolve("load", Evidence::Tombstone)), @"UnknownResolved load, TaskScheduled load");
    run.ok(Command::Cancel { reason: "wrong day".to_owned() });
    assert_eq!(run.line(), "load=skipped next=skipped | cancelled");
}

#[test]
fn a_deadline_that_other_files_move_is_told_of_anew_and_no_other() {
    let hooks = Hooks { on_deadline: 1, ..Hooks::default() };
    let mut run = Run::created(DagSpec { hooks, ..spec(vec![plain("load", &[])]) });
    run.now = 1_000;
    run.ok(Command::Start);
    let tell = |run: &mut Run, deadline: u32, due_at: i64, done_at: Option<i64>| {
        let events = run.ok(Command::TellDeadline { deadline, due_at: at(due_at), done_at: done_at.map(at) });
        assert!(events.is_empty() || events.len() == 2, "the event and its callback: {events:?}");
        events.get(1).map(|event| match event {
            Event::CallbackScheduled { callback } => callback.try_number,
            other => panic!("{other:?}"),
        })
    };
    let pin = |run: &mut Run, version: &str| run.ok(Command::Pin { version: version.to_owned(), variables: None });
    assert_eq!(tell(&mut run, 0, 2_000, None), Some(0));
    assert_eq!(tell(&mut run, 1, 3_000, Some(4_000)), Some(1));
    assert_eq!((tell(&mut run, 0, 2_000, None), tell(&mut run, 1, 3_000, Some(4_000))), (None, None));
    pin(&mut run, "v2");
    // The same ones, also in another order; one that is foreseen can still be missed.
    assert_eq!((tell(&mut run, 0, 2_000, None), tell(&mut run, 2, 2_000, None)), (None, None));
    assert_eq!((tell(&mut run, 1, 3_000, Some(4_000)), tell(&mut run, 1, 3_000, None)), (None, Some(2)));
    // It was moved. The callbacks of those before keep their places.
    assert_eq!(tell(&mut run, 0, 5_000, Some(6_000)), Some(3));
    assert_eq!((tell(&mut run, 0, 5_000, Some(6_000)), tell(&mut run, 0, 5_000, None)), (None, Some(4)));
    // These are of the files that it has: their numbers tell, whatever the start becomes.
    run.run_to_success("load");
    run.now = 11_000;
    run.clear(&["load"], Restart::Beginning);
    run.ok(Command::Start);
    assert_eq!(tell(&mut run, 0, 15_000, None), None);
    // And with others it is the span that tells.
    pin(&mut run, "v3");
    assert_eq!((tell(&mut run, 0, 15_000, None), tell(&mut run, 0, 15_001, None)), (None, Some(5)));
    assert_eq!(run.state.deadlines_told().len(), 6);
}
