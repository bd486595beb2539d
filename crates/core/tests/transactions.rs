//! Tasks that commit as one, told step by step.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use backstop_core::command::{Command, Rejected};
use backstop_core::dag::{Dag, DagSpec, Error, Group, Hooks, TaskSettings};
use backstop_core::event::{Evidence, FailureClass, Mark, Restart};
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use backstop_core::{Event, InstanceId, Selection, TaskId, select, why};
use fixture::{Run, failure, header, id, names, spec, task};
use std::sync::Arc;
use std::time::Duration;

fn settings(group: Option<u32>, retries: u32) -> TaskSettings {
    let retry = RetryPolicy { retries, retry_delay: Duration::from_secs(60), ..RetryPolicy::default() };
    TaskSettings { retry, group, ..TaskSettings::default() }
}

/// `setup`, then `a`, `b` and `c` that `g` commits, then `report`. `b` has one retry, the whole two.
fn dag() -> DagSpec {
    let member = |retries| settings(Some(0), retries);
    let told = Hooks { on_success: 1, ..Hooks::default() };
    let tasks = vec![
        task("setup", &[], settings(None, 0)),
        task("a", &["setup"], TaskSettings { hooks: told, updates: Arc::from([Arc::from("prices")]), ..member(0) }),
        task("b", &["a"], member(1)),
        task("c", &["b"], member(0)),
        task("g", &["c"], member(2)),
        task("report", &["g"], settings(None, 0)),
    ];
    let group = Group { id: "g".to_owned(), parent: None, commit: Some(TaskId::from("g")) };
    DagSpec { groups: vec![group], ..spec(tasks) }
}

fn running() -> Run {
    let mut run = Run::started(dag());
    run.run_to_success("setup");
    run
}

fn hold(run: &mut Run, instance: &str) -> Vec<Event> {
    run.begin(instance);
    let try_number = run.try_of(instance);
    run.ok(Command::Hold { instance: id(instance), try_number, statements: Arc::default(), result: Some(Arc::from("1")) })
}

fn lose_transaction(run: &mut Run, instance: &str, class: FailureClass) -> Vec<Event> {
    let try_number = run.try_of(instance);
    run.ok(Command::LoseTransaction { instance: id(instance), try_number, failure: failure(class) })
}

fn committing() -> Run {
    let mut run = running();
    ["a", "b", "c"].into_iter().for_each(|member| drop(hold(&mut run, member)));
    run.begin("g");
    run
}

#[test]
fn what_shares_a_transaction_succeeds_with_its_commit() {
    let mut run = running();
    insta::assert_snapshot!(names(&hold(&mut run, "a")), @"AttemptHeld a, TaskScheduled b");
    insta::assert_snapshot!(run.line(), @"setup=success a=done_not_committed b=scheduled c=none g=none report=none | running");
    insta::assert_snapshot!(why(&run.state, &id("a")).unwrap(), @"it is done, and not committed: `g` commits it with the rest of its transaction");
    assert_eq!(run.state.result("a", None).map(|result| &**result), Some("1"), "for the tasks behind it");
    hold(&mut run, "b");
    insta::assert_snapshot!(names(&hold(&mut run, "c")), @"AttemptHeld c, TaskScheduled g");
    run.begin("g");
    run.commit("g", 0);
    insta::assert_snapshot!(names(&run.succeed("g")), @"AttemptSucceeded g, AttemptSucceeded a, AssetsUpdated a prices, CallbackScheduled a 1 Success 0, AttemptSucceeded b, AttemptSucceeded c, TaskScheduled report");
    insta::assert_snapshot!(run.line(), @"setup=success a=success b=success c=success g=success report=scheduled | running");
}

#[test]
fn a_member_is_tried_again_in_the_open_transaction() {
    let mut run = running();
    hold(&mut run, "a");
    run.begin("b");
    insta::assert_snapshot!(names(&run.fail("b", FailureClass::Transient)), @"AttemptFailed b, RetryScheduled b at 60");
    assert_eq!(run.phase_of("a"), "done_not_committed");
    run.now = 60;
    run.ok(Command::FireTimers);
    hold(&mut run, "b");
    insta::assert_snapshot!(run.line(), @"setup=success a=done_not_committed b=done_not_committed c=scheduled g=none report=none | running");
}

/// A run that shall end after a crash looks for what ran ahead of its log, and what is looked for needs a slot.
#[test]
fn a_transaction_that_is_given_up_while_it_waits_keeps_no_slot() {
    let mut spec = dag();
    spec.max_active_tasks = 1;
    spec.tasks.push(task("other", &["setup"], settings(None, 0)));
    let mut run = Run::started(spec);
    run.run_to_success("setup");
    hold(&mut run, "a");
    run.begin("b");
    let given_up = || Command::GiveUpTransactions { failure: failure(FailureClass::Interrupted) };
    assert_eq!(run.ok(given_up()), [], "a task of it is at work");
    run.fail("b", FailureClass::Transient);
    assert!(run.tell(Command::StartAttempt { instance: id("other") }).is_err());
    insta::assert_snapshot!(why(&run.state, &id("other")).unwrap(), @"1 of max_active_tasks 1 are kept by open transactions, it is the next: b (up_for_retry)");
    insta::assert_snapshot!(names(&run.ok(given_up())), @"GroupRolledBack g (a b), TaskScheduled a");
    insta::assert_snapshot!(run.line(), @"setup=success a=scheduled b=none c=none g=none report=none other=scheduled | running");
    run.run_to_success("other");
    assert_eq!(run.ok(given_up()), []);
    run.ok(Command::Cancel { reason: "stop".to_owned() });
    insta::assert_snapshot!(run.line(), @"setup=success a=skipped b=skipped c=skipped g=skipped report=skipped other=success | cancelled");
}

#[test]
fn a_member_that_fails_for_good_rolls_all_back() {
    let mut run = running();
    hold(&mut run, "a");
    run.begin("b");
    run.fail("b", FailureClass::Transient);
    run.now = 60;
    run.ok(Command::FireTimers);
    run.begin("b");
    insta::assert_snapshot!(names(&run.fail("b", FailureClass::Transient)), @"AttemptFailed b for good, TaskUpstreamFailed c, GroupRolledBack g (a) for good, TaskUpstreamFailed g, TaskUpstreamFailed report, RunFailed");
    insta::assert_snapshot!(run.line(), @"setup=success a=rolled_back b=failed c=upstream_failed g=upstream_failed report=upstream_failed | failed");
    assert_eq!(run.state.result("a", None), None, "of what was undone there is no result");
    let selection = Selection { tasks: vec![id("b")], ..Selection::default() };
    let selected: Vec<String> = select(&run.state, &selection).iter().map(InstanceId::to_string).collect();
    assert_eq!(selected.join(" "), "a b c g report", "all of the transaction is run again");
    run.clear(&["c"], Restart::LastCommit);
    run.ok(Command::Start);
    insta::assert_snapshot!(run.line(), @"setup=success a=scheduled b=none c=none g=none report=none | running");
}

#[test]
fn a_lost_transaction_is_run_again_as_a_whole() {
    let mut run = running();
    hold(&mut run, "a");
    run.begin("b");
    insta::assert_snapshot!(names(&lose_transaction(&mut run, "b", FailureClass::Transient)), @"AttemptFailed b, GroupRolledBack g (a b), RetryScheduled a at 60");
    insta::assert_snapshot!(run.line(), @"setup=success a=up_for_retry b=none c=none g=none report=none | running");
    for round in 1..=2 {
        run.now = 60 * round;
        run.ok(Command::FireTimers);
        hold(&mut run, "a");
        run.begin("b");
        lose_transaction(&mut run, "b", FailureClass::Transient);
    }
    insta::assert_snapshot!(run.line(), @"setup=success a=rolled_back b=failed c=upstream_failed g=upstream_failed report=upstream_failed | failed");
    assert_eq!(run.try_of("b"), 3, "every try has a number of its own");
}

#[test]
fn a_commit_that_was_refused_is_run_again_with_all_before_it() {
    let mut run = committing();
    insta::assert_snapshot!(names(&lose_transaction(&mut run, "g", FailureClass::Transient)), @"AttemptFailed g, GroupRolledBack g (a b c), RetryScheduled a at 60");
    run.now = 60;
    run.ok(Command::FireTimers);
    ["a", "b", "c"].into_iter().for_each(|member| drop(hold(&mut run, member)));
    run.begin("g");
    assert_eq!(run.try_of("g"), 2, "its marker has another key");
    insta::assert_snapshot!(names(&lose_transaction(&mut run, "g", FailureClass::Final)), @"AttemptFailed g for good, TaskUpstreamFailed report, GroupRolledBack g (a b c) for good, RunFailed");
    insta::assert_snapshot!(run.line(), @"setup=success a=rolled_back b=rolled_back c=rolled_back g=failed report=upstream_failed | failed");
}

#[test]
fn a_commit_in_doubt_is_all_or_nothing() {
    let in_doubt = || {
        let mut run = committing();
        run.lose("g", FailureClass::Transient);
        run
    };
    let mut run = in_doubt();
    insta::assert_snapshot!(run.line(), @"setup=success a=done_not_committed b=done_not_committed c=done_not_committed g=in_doubt report=none | running");
    assert!(matches!(
        run.tell(Command::Clear { instances: vec![id("a")], restart: Restart::Beginning, who: "ada".into(), why: "x".into() }),
        Err(Rejected::InDoubt(_))
    ));
    run.commit("g", 0);
    insta::assert_snapshot!(names(&run.resolve("g", Evidence::Marker)), @"UnknownResolved g, AttemptSucceeded g, AttemptSucceeded a, AssetsUpdated a prices, CallbackScheduled a 1 Success 0, AttemptSucceeded b, AttemptSucceeded c, TaskScheduled report");
    insta::assert_snapshot!(names(&in_doubt().resolve("g", Evidence::Tombstone)), @"UnknownResolved g, AttemptFailed g, GroupRolledBack g (a b c), RetryScheduled a at 60");
    let person = |took_effect| Evidence::Operator { who: "ada".to_owned(), why: "looked".to_owned(), took_effect };
    let mut told = in_doubt();
    told.resolve("g", person(true));
    insta::assert_snapshot!(told.line(), @"setup=success a=success b=success c=success g=success report=scheduled | running");
    let mut told = in_doubt();
    told.resolve("g", person(false));
    insta::assert_snapshot!(told.line(), @"setup=success a=up_for_retry b=none c=none g=none report=none | running");
}

#[test]
fn a_process_that_dies_before_the_commit_leaves_nothing_to_be_looked_for() {
    let mut run = running();
    hold(&mut run, "a");
    run.begin("b");
    insta::assert_snapshot!(names(&run.ok(Command::Resume { epoch: 2 })), @"RunResumed 2, AttemptFailed b, GroupRolledBack g (a b), TaskScheduled a");
    assert!(run.state.instances_in_doubt().next().is_none());
    hold(&mut run, "a");
    insta::assert_snapshot!(names(&run.ok(Command::Resume { epoch: 3 })), @"RunResumed 3, GroupRolledBack g (a b), TaskScheduled a");
    let mut run = committing();
    insta::assert_snapshot!(names(&run.ok(Command::Resume { epoch: 2 })), @"RunResumed 2, AttemptUnknown g");
}

#[test]
fn a_cancel_rolls_back_what_is_not_committed() {
    let mut run = running();
    hold(&mut run, "a");
    insta::assert_snapshot!(names(&run.ok(Command::Cancel { reason: "enough".to_owned() })), @"CancelRequested Asked (enough), TaskSkipped b RunCancelled, TaskSkipped c RunCancelled, TaskSkipped g RunCancelled, TaskSkipped report RunCancelled, GroupRolledBack g (a) for good, RunCancelled");
    let mut run = running();
    hold(&mut run, "a");
    run.begin("b");
    run.ok(Command::Cancel { reason: "enough".to_owned() });
    insta::assert_snapshot!(names(&run.fail("b", FailureClass::Cancelled)), @"AttemptFailed b for good, GroupRolledBack g (a) for good, RunCancelled");
    let mut run = committing();
    run.ok(Command::Cancel { reason: "enough".to_owned() });
    run.commit("g", 0);
    run.succeed("g");
    insta::assert_snapshot!(run.line(), @"setup=success a=success b=success c=success g=success report=skipped | cancelled");
}

#[test]
fn people_act_on_all_of_a_transaction_and_not_while_it_is_open() {
    let mut run = running();
    hold(&mut run, "a");
    let refused = run.tell(Command::Mark { instances: vec![id("b")], mark: Mark::Success, who: "ada".into(), why: "x".into() });
    insta::assert_snapshot!(refused.unwrap_err(), @"the transaction of `g` is open: cancel the task of it that runs, or wait for its end");
    run.ok(Command::CancelInstance { instance: id("b"), reason: "too slow".into(), who: "ada".into() });
    insta::assert_snapshot!(run.line(), @"setup=success a=rolled_back b=failed c=upstream_failed g=upstream_failed report=upstream_failed | failed");
    run.mark(&["b"], Mark::Success);
    run.ok(Command::Start);
    insta::assert_snapshot!(run.line(), @"setup=success a=success b=success c=success g=success report=scheduled | running");
}

#[test]
fn a_retry_does_not_repeat_what_is_committed() {
    let mut run = committing();
    run.commit("g", 0);
    run.succeed("g");
    let retry = |run: &mut Run, tasks: &[&str]| {
        let instances = tasks.iter().map(|task| id(task)).collect();
        run.tell(Command::Clear { instances, restart: Restart::LastCommit, who: "ada".into(), why: "x".into() })
    };
    insta::assert_snapshot!(retry(&mut run, &["b"]).unwrap_err(), @"what `g` did is committed, and a retry would do it once more: mark it as success, or clear it from the beginning");
    insta::assert_snapshot!(run.line(), @"setup=success a=success b=success c=success g=success report=scheduled | running");
    insta::assert_snapshot!(names(&retry(&mut run, &["setup", "b"]).unwrap()), @"OperatorActed ada, InstancesCleared setup a b c g Beginning, TaskScheduled setup");
    insta::assert_snapshot!(run.line(), @"setup=scheduled a=none b=none c=none g=none report=scheduled | running");
}

#[test]
fn one_task_of_a_transaction_stands_for_all() {
    let mut run = Run::with_header(dag(), header(&["b"]));
    run.ok(Command::Start);
    insta::assert_snapshot!(run.line(), @"setup=removed a=scheduled b=none c=none g=none report=removed | running");
}

#[test]
fn interruptions_do_not_use_up_the_retries_of_the_whole() {
    let mut run = running();
    for epoch in 2..20 {
        hold(&mut run, "a");
        run.ok(Command::Resume { epoch });
    }
    assert_eq!(run.phase_of("a"), "scheduled");
    assert_eq!(run.now, 0, "at once, each time");
}

#[test]
fn what_a_transaction_cannot_hold_is_refused() {
    let refused = |change: &dyn Fn(&mut DagSpec)| {
        let mut spec = dag();
        change(&mut spec);
        let errors: Vec<String> = Dag::new(spec).unwrap_err().iter().map(Error::to_string).collect();
        errors.join("; ")
    };
    insta::assert_snapshot!(refused(&|spec| spec.tasks[2].settings.mapped = true), @"task `b`: a task of a transaction cannot be mapped");
    insta::assert_snapshot!(refused(&|spec| spec.tasks[2].settings.trigger_rule = TriggerRule::Always), @"task `b`: a task of a transaction runs when all before it succeeded");
    insta::assert_snapshot!(refused(&|spec| spec.tasks[3].after = vec!["a".into()]), @"task `c`: it does not come after `b`, with which it shares a session");
    insta::assert_snapshot!(refused(&|spec| spec.tasks[5].after = vec!["b".into()]), @"task `report`: it comes after `b`, which is committed with others: it must come after that");
    insta::assert_snapshot!(refused(&|spec| spec.groups[0].commit = Some("x".into())), @"task `setup`: group `g` has no task `x` to commit it");
}
