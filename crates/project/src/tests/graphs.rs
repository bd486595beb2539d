//! Edges, groups, setups, inheritance of defaults.

use super::{definition, report};
use backstop_core::TaskIx;
use backstop_core::dag::{Delivery, Role, WeightRule};
use backstop_core::rule::TriggerRule;
use std::time::Duration;

/// Each task and what it waits for.
fn edges(text: &str) -> String {
    let definition = definition(text);
    let dag = &definition.dag;
    let mut lines = Vec::new();
    for task in dag.tasks() {
        let ups: Vec<&str> = task.upstream.iter().map(|up| dag.task(*up).id.as_str()).collect();
        lines.push(format!("{} <- {}", task.id, ups.join(" ")));
    }
    lines.join("\n")
}

#[test]
fn groups_dissolve_into_leaves_and_roots() {
    let text = "
dag: d
tasks:
  start: {empty: true}
  stage:
    after: start
    tasks:
      a: {empty: true}
      b: {empty: true, after: a}
      inner:
        after: [a]
        tasks:
          x: {empty: true}
          y: {empty: true, after: [x]}
          z: {empty: true, after: [b]}
  report:
    after: [stage]
    tasks:
      one: {empty: true}
      two: {empty: true, after: [one, stage.inner]}
  end: {empty: true, after: [report, stage.a]}
";
    insta::assert_snapshot!(edges(text), @r"
    start <- 
    stage.a <- start
    stage.b <- stage.a
    stage.inner.x <- stage.a
    stage.inner.y <- stage.inner.x
    stage.inner.z <- stage.a stage.b
    report.one <- stage.inner.y stage.inner.z
    report.two <- stage.inner.y stage.inner.z report.one
    end <- stage.a report.two
    ");
    let definition = definition(text);
    let groups: Vec<String> = definition.dag.groups().iter().map(|group| format!("{} in {:?}", group.id, group.parent)).collect();
    assert_eq!(groups, ["stage in None", "stage.inner in Some(0)", "report in None"]);
}

#[test]
fn setups_are_upstreams_of_their_teardown_and_leaves_leave_teardowns_out() {
    let text = "
dag: d
tasks:
  work:
    tasks:
      create: {empty: true, setup: true}
      load: {empty: true, after: [create]}
      drop: {empty: true, teardown: [create], after: [load], on_failure_fail_dagrun: true}
  end: {empty: true, after: [work]}
";
    insta::assert_snapshot!(edges(text), @r"
    work.create <- 
    work.load <- work.create
    work.drop <- work.create work.load
    end <- work.load
    ");
    let definition = definition(text);
    let settings: Vec<_> = definition.dag.tasks().iter().map(|task| (task.settings.role, task.settings.trigger_rule)).collect();
    assert_eq!(settings[0], (Role::Setup, TriggerRule::AllSuccess));
    assert_eq!(settings[2], (Role::Teardown { on_failure_fail_dagrun: true }, TriggerRule::AllDoneSetupSuccess));
}

#[test]
fn a_group_cannot_wait_for_itself() {
    let text = "dag: d\ntasks:\n  g:\n    tasks:\n      a: {empty: true, after: [g]}\n";
    assert!(report(text).contains("`g` is inside the group it waits for"), "{}", report(text));
}

#[test]
fn every_cycle_is_shown() {
    let text = "dag: d\ntasks:\n  a: {empty: true, after: [b]}\n  b: {empty: true, after: [a]}\n  c: {empty: true, after: [d]}\n  d: {empty: true, after: [c, a]}\n";
    let report = report(text);
    assert!(report.contains("a -> b -> a"), "{report}");
    assert!(report.contains("c -> d -> c"), "{report}");
}

#[test]
fn nearer_defaults_win() {
    let text = "
//- backstop.yaml
pools: {small: 2, big: {slots: -1, description: no limit}}
notifiers:
  ops: {shell: echo failed}
defaults: {retries: 1, retry_delay: 1m, pool: small, on_failure: [ops], delivery: at_least_once}
//- dags/d.yaml
dag: d
connection: db
defaults: {retries: 2, weight_rule: absolute}
tasks:
  g:
    defaults: {retries: 3, connection: lite}
    tasks:
      a: {sql: SELECT 1}
      b: {sql: SELECT 1, retries: 0, connection: db, on_failure: [], retry_exponential_backoff: true, pool: big, pool_slots: 2}
  c: {sql: SELECT 1, on_failure: [ops, {shell: echo again, timeout: 10s}], on_success: {shell: echo done}}
";
    let definition = definition(text);
    let task = |n: u32| (definition.dag.task(TaskIx(n)), definition.body(TaskIx(n)));
    let (a, body) = task(0);
    assert_eq!((a.settings.retry.retries, a.settings.retry.retry_delay), (3, Duration::from_secs(60)));
    assert_eq!((a.settings.pool, a.settings.weight_rule, a.settings.delivery), (1, WeightRule::Absolute, Delivery::AtLeastOnce));
    assert_eq!((body.connection.as_deref(), body.callbacks.on_failure.len()), (Some("lite"), 1));
    assert_eq!(body.callbacks.on_failure[0].name.as_deref(), Some("ops"));
    let (b, body) = task(1);
    assert_eq!((b.settings.retry.retries, b.settings.retry.exponential), (0, Some(2.0)));
    assert_eq!((b.settings.pool, b.settings.pool_slots, b.settings.hooks.on_failure), (2, 2, 0));
    assert_eq!((body.connection.as_deref(), body.callbacks.on_failure.len()), (Some("db"), 0));
    let (c, body) = task(2);
    assert_eq!((c.settings.retry.retries, c.settings.hooks.on_failure, c.settings.hooks.on_success), (2, 2, 1));
    assert_eq!(body.callbacks.on_failure[1].timeout, Duration::from_secs(10));
    let pools: Vec<_> = definition.dag.pools().iter().map(|pool| (pool.name.as_str(), pool.slots)).collect();
    assert_eq!(pools, [("default_pool", Some(128)), ("small", Some(2)), ("big", None)]);
}

#[test]
fn branch_targets_in_a_group_become_whole_ids() {
    let text = "
dag: d
connection: db
tasks:
  g:
    tasks:
      choose: {branch: {sql: SELECT 1, if_true: [a], if_false: [rest]}}
      a: {empty: true, after: [choose]}
      rest:
        after: [choose]
        tasks:
          b: {empty: true}
";
    let definition = definition(text);
    let crate::definition::Kind::Branch(branch) = &definition.bodies[0].kind else { panic!("no branch") };
    assert_eq!((branch.if_true.as_slice(), branch.if_false.as_slice()), (&["g.a".to_owned()][..], &["g.rest.b".to_owned()][..]));
}

#[test]
fn a_transaction_is_a_chain_with_its_commit_at_the_end() {
    let text = "
dag: d
connection: db
tasks:
  start: {empty: true}
  late: {empty: true}
  g:
    after: start
    transaction: true
    isolation: serializable
    lock_timeout: 10s
    retries: 5
    tasks:
      b: {sql: SELECT 2, after: a}
      a: {sql: SELECT 1}
      c: {check: SELECT 1, after: [late]}
      inner:
        after: [b]
        tasks:
          x: {sql: SELECT 3}
  end: {empty: true, after: [g]}
  other: {empty: true, after: [g.a, g.inner]}
  none: {empty: true, after: start}
";
    insta::assert_snapshot!(edges(text), @r"
    start <- 
    late <- 
    g.b <- g.a
    g.a <- start late
    g.c <- g.b
    g.inner.x <- g.b g.c
    g <- g.inner.x
    end <- g
    other <- g
    none <- start
    ");
    let definition = definition(text);
    let unit = &definition.dag.units()[0];
    assert_eq!(definition.dag.task(unit.commit).settings.retry.retries, 5);
    assert_eq!(unit.members.len(), 4);
}
