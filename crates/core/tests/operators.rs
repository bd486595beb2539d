//! What people do to a run, told step by step, and why a task is not running.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use backstop_core::command::{Command, Rejected};
use backstop_core::dag::{DagSpec, Hooks, Pool, Role, TaskSettings};
use backstop_core::event::{CancelCause, Evidence, FailureClass, Mark, Restart};
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use backstop_core::{Action, InstanceId, RunPhase, Selection, actions, select, select_failed, why};
use fixture::{Run, at, id, names, plain, spec, task};
use std::time::Duration;

fn chain() -> DagSpec {
    spec(vec![plain("make", &[]), plain("load", &["make"]), plain("report", &["load"])])
}

fn mapped() -> TaskSettings {
    TaskSettings { mapped: true, ..TaskSettings::default() }
}

fn rule(trigger_rule: TriggerRule) -> TaskSettings {
    TaskSettings { trigger_rule, ..TaskSettings::default() }
}

/// `make` succeeded, `load` committed a segment and failed.
fn failed() -> Run {
    let mut run = Run::started(chain());
    run.run_to_success("make");
    run.begin("load");
    run.commit("load", 0);
    run.fail("load", FailureClass::Permanent);
    assert_eq!(run.line(), "make=success load=failed report=upstream_failed | failed");
    run
}

fn segments(run: &Run, instance: &str) -> usize {
    run.state.instance(&id(instance)).unwrap().segments.len()
}

fn list(instances: &[InstanceId]) -> String {
    instances.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn reason(run: &Run, instance: &str) -> String {
    why(&run.state, &id(instance)).unwrap().to_string()
}

#[test]
fn a_clear_forgets_what_committed_and_a_retry_goes_on_behind_it() {
    for (restart, kept) in [(Restart::Beginning, 0), (Restart::LastCommit, 1)] {
        let mut run = failed();
        let cleared = names(&run.clear(&["load"], restart));
        assert!(cleared.starts_with("OperatorActed ada, RunReopened, InstancesCleared "), "{cleared}");
        assert_eq!((run.line().as_str(), segments(&run, "load")), ("make=success load=none report=none | queued", kept));
        run.ok(Command::Resume { epoch: 2 });
        run.ok(Command::Start);
        run.begin("load");
        assert_eq!(run.try_of("load"), 2, "try numbers go on");
        run.commit("load", kept as u32);
        run.succeed("load");
        run.run_to_success("report");
        assert_eq!(run.state.phase(), RunPhase::Succeeded);
    }
}

#[test]
fn what_stands_on_what_runs_again_does_not_go_on_behind_its_commits() {
    let mut run = failed();
    run.clear(&["make", "load"], Restart::LastCommit);
    assert_eq!(segments(&run, "load"), 0);
}

#[test]
fn a_running_instance_is_cancelled_and_cleared_when_its_outcome_is_known() {
    let mut run = Run::started(chain());
    run.begin("make");
    run.commit("make", 0);
    run.clear(&["make"], Restart::Beginning);
    let wanted = Action::CancelAttempt { instance: id("make"), try_number: 1, reason: Some("the data is mended".into()) };
    assert_eq!(actions(&run.state), [wanted]);
    assert_eq!(reason(&run, "make"), "try 1 is running, and is being cancelled");
    run.lose("make", FailureClass::Transient);
    let refused = Command::Clear { instances: vec![id("make")], restart: Restart::Beginning, who: "ada".into(), why: "x".into() };
    assert_eq!(run.tell(refused), Err(Rejected::InDoubt(id("make"))));
    insta::assert_snapshot!(names(&run.resolve("make", Evidence::Tombstone)), @"UnknownResolved make, AttemptFailed make, InstancesCleared make Beginning, TaskScheduled make");
    assert_eq!(segments(&run, "make"), 0);
}

#[test]
fn a_cancelled_instance_fails_without_a_retry_unless_it_was_done_before() {
    let retry = RetryPolicy { retries: 3, ..RetryPolicy::default() };
    let dag = || spec(vec![task("load", &[], TaskSettings { retry: retry.clone(), ..TaskSettings::default() })]);
    let cancel = || Command::CancelInstance { instance: id("load"), reason: "it hangs".into(), who: "ada".into() };
    let mut run = Run::started(dag());
    run.begin("load");
    run.ok(cancel());
    let mut other = Run { state: run.state.clone(), events: run.events.clone(), now: 0 };
    insta::assert_snapshot!(names(&run.fail("load", FailureClass::Transient)), @"AttemptFailed load for good, RunFailed");
    assert_eq!(names(&other.succeed("load")), "AttemptSucceeded load, RunSucceeded", "the cancel came too late");
}

#[test]
fn a_marked_failure_lets_the_rest_go_on() {
    let mut run = failed();
    insta::assert_snapshot!(names(&run.mark(&["load"], Mark::Success)), @"OperatorActed ada, RunReopened, InstanceMarked load Success, InstancesCleared report Beginning");
    assert_eq!(segments(&run, "load"), 1, "what is known to have committed stays");
    run.ok(Command::Start);
    run.run_to_success("report");
    assert_eq!(run.line(), "make=success load=success report=success | success");
}

/// `load` committed a segment, failed, was to be retried and had no upstream to run behind.
fn failed_and_left_behind() -> Run {
    let mut run = failed();
    run.mark(&["make"], Mark::Failed);
    run.ok(Command::Start);
    run.clear(&["load"], Restart::LastCommit);
    run.ok(Command::Start);
    assert_eq!(run.line(), "make=failed load=upstream_failed report=upstream_failed | failed");
    assert_eq!(segments(&run, "load"), 1);
    run
}

#[test]
fn a_mark_keeps_what_committed_and_what_follows_goes_on_behind_it() {
    let mut run = failed_and_left_behind();
    insta::assert_snapshot!(names(&run.mark(&["make"], Mark::Success)), @"OperatorActed ada, RunReopened, InstanceMarked make Success, InstancesCleared report Beginning, InstancesCleared load LastCommit");
    assert_eq!(segments(&run, "load"), 1, "nobody asked for it once more");
    run.ok(Command::Start);
    run.begin("load");
    run.commit("load", 1);
    run.succeed("load");
    run.run_to_success("report");
    assert_eq!(run.state.phase(), RunPhase::Succeeded);
}

#[test]
fn a_retry_of_what_was_marked_or_came_to_nothing_goes_on_behind_its_last_commit() {
    let mut run = failed_and_left_behind();
    run.clear(&["load"], Restart::LastCommit);
    assert_eq!(segments(&run, "load"), 1, "upstream_failed");
    for mark in [Mark::Failed, Mark::Success] {
        let mut run = failed();
        run.mark(&["load"], Mark::Success);
        if mark == Mark::Failed {
            run.mark(&["load"], mark);
        }
        run.clear(&["load"], Restart::LastCommit);
        assert_eq!(segments(&run, "load"), 1, "marked as {mark:?}");
        run.ok(Command::Start);
        run.begin("load");
        run.commit("load", 1);
    }
    let retry = RetryPolicy { retries: 3, ..RetryPolicy::default() };
    let mut run = Run::started(spec(vec![task("load", &[], TaskSettings { retry, ..TaskSettings::default() })]));
    run.begin("load");
    run.commit("load", 0);
    run.fail("load", FailureClass::Transient);
    run.ok(Command::Cancel { reason: "stop".into() });
    assert_eq!(run.line(), "load=skipped | cancelled");
    run.clear(&["load"], Restart::LastCommit);
    assert_eq!(segments(&run, "load"), 1, "left out by a cancel between two tries");
}

#[test]
fn what_took_effect_by_a_persons_word_is_not_retried_behind_an_unknown_commit() {
    let mut run = Run::started(spec(vec![plain("load", &[])]));
    run.begin("load");
    run.commit("load", 0);
    run.lose("load", FailureClass::Transient);
    run.resolve("load", Evidence::Operator { who: "ada".into(), why: "looked".into(), took_effect: true });
    assert_eq!(run.line(), "load=success | success");
    run.mark(&["load"], Mark::Failed);
    let clear = |restart| Command::Clear { instances: vec![id("load")], restart, who: "ada".into(), why: "x".into() };
    let refused = run.tell(clear(Restart::LastCommit));
    assert!(matches!(&refused, Err(Rejected::BadArgument(text)) if text.contains("took effect")), "{refused:?}");
    run.ok(clear(Restart::Beginning));
    assert_eq!(segments(&run, "load"), 0);
}

#[test]
fn a_reopened_run_that_a_cancel_left_holes_in_is_no_success() {
    let mut run = Run::started(spec(vec![plain("a", &[]), plain("b", &[])]));
    run.ok(Command::Cancel { reason: "stop".into() });
    run.clear(&["a"], Restart::Beginning);
    run.ok(Command::Start);
    run.run_to_success("a");
    assert_eq!(run.line(), "a=success b=skipped | cancelled");
    assert_eq!(list(&select_failed(&run.state)), "b", "a retry takes what the cancel left out");
    run.clear(&["b"], Restart::LastCommit);
    run.ok(Command::Start);
    run.run_to_success("b");
    assert_eq!(run.state.phase(), RunPhase::Succeeded);
    assert_eq!(run.state.cancel_cause(), None::<CancelCause>);
}

#[test]
fn a_time_out_of_a_reopened_run_counts_from_its_new_start() {
    let mut dag = chain();
    dag.dagrun_timeout = Some(Duration::from_secs(100));
    let mut run = Run::started(dag);
    run.begin("make");
    run.fail("make", FailureClass::Permanent);
    run.clear(&["make"], Restart::Beginning);
    run.now = 1_000;
    run.ok(Command::Start);
    assert_eq!(run.ok(Command::FireTimers), []);
    run.now = 1_100;
    assert!(names(&run.ok(Command::FireTimers)).starts_with("CancelRequested DagrunTimeout"));
}

#[test]
fn a_mapped_task_cleared_whole_finds_its_items_anew_with_tries_that_go_on() {
    let mut run = Run::started(spec(vec![task("m", &[], mapped()), plain("end", &["m"])]));
    run.begin("m");
    run.expand("m", 2);
    ["m[0]", "m[1]"].into_iter().for_each(|instance| run.run_to_success(instance));
    run.run_to_success("end");
    insta::assert_snapshot!(names(&run.clear(&["m[1]"], Restart::Beginning)), @"OperatorActed ada, RunReopened, InstancesCleared m[1] Beginning");
    run.ok(Command::Start);
    run.run_to_success("m[1]");
    insta::assert_snapshot!(names(&run.clear(&["m[0]", "m[1]"], Restart::Beginning)), @"OperatorActed ada, RunReopened, InstancesCleared m[0] m[1] Beginning, TaskUnexpanded m 2");
    run.ok(Command::Start);
    run.begin("m");
    run.expand("m", 3);
    run.begin("m[2]");
    assert_eq!(run.try_of("m[2]"), 3, "m[1] had two tries, and m[2] might have been it");
}

#[test]
fn callbacks_of_a_run_that_ends_again_are_others() {
    let mut dag = chain();
    dag.hooks = Hooks { on_failure: 1, on_success: 1, ..Hooks::default() };
    let mut run = Run::started(dag);
    run.begin("make");
    run.fail("make", FailureClass::Permanent);
    run.clear(&["make"], Restart::Beginning);
    run.ok(Command::Start);
    run.begin("make");
    run.fail("make", FailureClass::Permanent);
    let tries: Vec<u32> = run.state.pending_callbacks().map(|callback| callback.try_number).collect();
    assert_eq!(tries, [0, 1], "the first is still owed");
}

#[test]
fn selections() {
    let teardown =
        TaskSettings { role: Role::Teardown { on_failure_fail_dagrun: false }, ..rule(TriggerRule::AllDoneSetupSuccess) };
    let setup = TaskSettings { role: Role::Setup, ..TaskSettings::default() };
    let mut run = Run::started(spec(vec![
        task("up", &[], setup),
        plain("work", &["up"]),
        task("down", &["up", "work"], teardown),
        plain("choose", &[]),
        plain("left", &["choose"]),
        plain("right", &["choose"]),
        plain("bad", &[]),
        plain("after", &["bad", "choose"]),
        plain("late", &["after"]),
    ]));
    ["up", "work", "down"].into_iter().for_each(|instance| run.run_to_success(instance));
    run.begin("choose");
    run.follow("choose", Some(&["left", "after"]));
    run.run_to_success("left");
    run.begin("bad");
    run.fail("bad", FailureClass::Permanent);
    assert_eq!(run.state.phase(), RunPhase::Failed);
    let selected = |tasks: &[&str], upstream, downstream, only_failed| {
        let tasks = tasks.iter().map(|&task| id(task)).collect();
        list(&select(&run.state, &Selection { tasks, upstream, downstream, only_failed, only_running: false }))
    };
    assert_eq!(selected(&["work"], false, false, false), "up work down", "with its setup and teardown");
    assert_eq!(selected(&["left"], true, false, false), "choose left after late");
    assert_eq!(selected(&["choose"], false, true, false), "choose left right after late", "the branch chooses anew");
    assert_eq!(selected(&["right"], false, false, false), "right", "who names it means it");
    assert_eq!(selected(&[], false, false, true), "bad after late");
    assert_eq!(selected(&["bad"], false, false, false), "bad after late", "what only follows is judged anew");
    assert_eq!(list(&select_failed(&run.state)), "bad after late");
}

#[test]
fn every_reason() {
    let retry = RetryPolicy { retries: 1, retry_delay: Duration::from_secs(60), ..RetryPolicy::default() };
    let one_slot = |priority_weight, pool_slots| TaskSettings { pool: 1, pool_slots, priority_weight, ..TaskSettings::default() };
    let mut dag = spec(vec![
        task("retried", &[], TaskSettings { retry, ..TaskSettings::default() }),
        plain("sensor", &[]),
        plain("lost", &[]),
        plain("join", &["retried", "sensor", "lost"]),
        task("holder", &[], one_slot(9, 1)),
        task("large", &[], one_slot(5, 2)),
        task("small", &[], one_slot(1, 1)),
        plain("done", &[]),
    ]);
    dag.pools.push(Pool { name: "narrow".to_owned(), slots: Some(2) });
    let mut run = Run::created(dag.clone());
    assert_eq!(reason(&run, "done"), "the run is queued: it has not started");
    run.ok(Command::Start);
    run.begin("retried");
    run.fail("retried", FailureClass::Transient);
    run.begin("sensor");
    run.ok(Command::Defer { instance: id("sensor"), try_number: 1, until: at(500) });
    run.begin("lost");
    run.lose("lost", FailureClass::Transient);
    run.begin("holder");
    let table = |run: &Run| -> String {
        run.state.instances().map(|(id, _)| format!("{id}: {}\n", why(&run.state, &id).unwrap())).collect()
    };
    insta::assert_snapshot!(table(&run), @r#"
    retried: try 1 failed; the next is due at 1970-01-01T00:01:00Z
    sensor: its condition did not hold; it looks again at 1970-01-01T00:08:20Z
    lost: it is not known what try 1 did: the database is being asked
    join: it waits for 3 of 3 upstream task instances (all_success): retried (up_for_retry), sensor (up_for_reschedule), lost (in_doubt)
    holder: try 1 is running
    large: it needs 2 slots of pool `narrow`; 1 of 2 are held: holder (running)
    small: 1 other goes before it in pool `narrow`, first large: it needs 2 slots of pool `narrow`; 1 of 2 are held: holder (running)
    done: it is ready and has all its slots: it begins at once
    "#);
    run.run_to_success("done");
    insta::assert_snapshot!(reason(&run, "done"), @r#"it is done: success"#);
    run.mark(&["done"], Mark::Failed);
    insta::assert_snapshot!(reason(&run, "done"), @r#"it is done: failed, as a person said"#);
    run.ok(Command::Cancel { reason: "stop".into() });
    assert_eq!(reason(&run, "join"), "it is done: skipped");

    dag.max_active_tasks = 1;
    let mut run = Run::started(dag);
    insta::assert_snapshot!(reason(&run, "small"), @r#"0 of max_active_tasks 1 are running, 5 go before it: holder (scheduled)"#);
    run.begin("holder");
    insta::assert_snapshot!(reason(&run, "small"), @r#"1 of max_active_tasks 1 are running, 4 go before it: holder (running)"#);
    assert_eq!(why(&run.state, &id("nowhere")), None);
}

#[test]
fn a_task_that_waits_for_its_setup_and_a_teardown_for_what_is_inside_say_so() {
    let role = |role, trigger_rule| TaskSettings { role, ..rule(trigger_rule) };
    let mut run = Run::started(spec(vec![
        task("up", &[], role(Role::Setup, TriggerRule::AllSuccess)),
        plain("first", &["up"]),
        task("second", &["first", "free"], rule(TriggerRule::OneSuccess)),
        task("down", &["up", "second"], role(Role::Teardown { on_failure_fail_dagrun: false }, TriggerRule::OneSuccess)),
        plain("free", &[]),
    ]));
    run.run_to_success("free");
    insta::assert_snapshot!(reason(&run, "second"), @r#"it waits for setups: up (scheduled)"#);
    run.run_to_success("up");
    insta::assert_snapshot!(reason(&run, "down"), @r#"it tears down, and waits for all that comes before: first (scheduled), second (scheduled)"#);
    insta::assert_snapshot!(reason(&run, "first"), @r#"it is ready and has all its slots: it begins at once"#);
}
