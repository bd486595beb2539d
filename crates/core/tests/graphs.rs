//! From descriptions to DAGs: every error at once, order, priorities, effective leaves.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use backstop_core::dag::{Dag, DagSpec, Error, Group, Pool, Role, TaskSettings, WeightRule};
use backstop_core::{TaskId, TaskIx};
use fixture::{plain, spec, task};

fn errors(spec: DagSpec) -> String {
    Dag::new(spec).unwrap_err().iter().map(Error::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn all_errors_are_told_at_once() {
    let mut wrong = spec(vec![
        plain("a", &["c", "nowhere"]),
        plain("b", &["a"]),
        plain("b", &[]),
        plain("c", &["b"]),
        plain("self", &["self"]),
        task("greedy", &[], TaskSettings { pool_slots: 200, ..TaskSettings::default() }),
        task("lost", &["c"], TaskSettings { pool: 7, pool_slots: 0, group: Some(3), ..TaskSettings::default() }),
    ]);
    wrong.max_active_tasks = 0;
    wrong.groups = vec![
        Group { id: "outer.inner".to_owned(), parent: Some(1), commit: None },
        Group { id: "outer".to_owned(), parent: None, commit: None },
    ];
    insta::assert_snapshot!(errors(wrong), @r"
    DAG `nightly`: max_active_tasks is 0, so that no task could ever run
    DAG `nightly`: group `outer.inner` does not come after the group it is in
    task `greedy`: it needs 200 slots of pool `default_pool`, which has 128: it could never run
    task `lost`: there is no group 3
    task `lost`: pool_slots is 0; an attempt holds at least 1
    task `lost`: there is no pool 7
    task `b` is defined twice
    task `a` comes after `nowhere`, which does not exist
    tasks wait for each other in a cycle: a -> b -> c -> a
    tasks wait for each other in a cycle: self -> self
    ");
}

#[test]
fn a_dag_without_pools_is_refused_once() {
    let mut wrong = spec(vec![plain("a", &[])]);
    wrong.pools.clear();
    assert_eq!(errors(wrong), "DAG `nightly`: it has no pool");
}

#[test]
fn each_cycle_is_shown_without_the_tasks_around_it() {
    let tangled = spec(vec![
        plain("before", &[]),
        plain("x", &["before", "z"]),
        plain("y", &["x"]),
        plain("z", &["y"]),
        plain("after", &["z"]),
        plain("p", &["q", "after"]),
        plain("q", &["p"]),
    ]);
    insta::assert_snapshot!(errors(tangled), @r"
    tasks wait for each other in a cycle: x -> y -> z -> x
    tasks wait for each other in a cycle: p -> q -> p
    ");
}

#[test]
fn names_resolve_and_doubled_upstreams_fold() {
    let dag = Dag::new(spec(vec![plain("late", &["early", "early"]), plain("early", &[])])).unwrap();
    let (late, early) = (dag.index("late").unwrap(), dag.index("early").unwrap());
    assert_eq!(dag.task(late).upstream, [early]);
    assert_eq!(dag.task(early).downstream, [late]);
    assert_eq!(dag.topological_order(), [early, late]);
    assert_eq!((dag.depth(early), dag.depth(late)), (0, 1));
    assert_eq!(dag.index("never"), None);
}

fn weighted(id: &str, after: &[&str], weight: i64, rule: WeightRule) -> backstop_core::dag::TaskSpec {
    task(id, after, TaskSettings { priority_weight: weight, weight_rule: rule, ..TaskSettings::default() })
}

#[test]
fn a_task_reached_by_two_ways_weighs_once() {
    let diamond = |rule| {
        spec(vec![
            weighted("top", &[], 1, rule),
            weighted("left", &["top"], 10, rule),
            weighted("right", &["top"], 100, rule),
            weighted("bottom", &["left", "right"], 1_000, rule),
        ])
    };
    let priorities = |rule| {
        let dag = Dag::new(diamond(rule)).unwrap();
        (0..4).map(|place| dag.effective_priority(TaskIx(place))).collect::<Vec<_>>()
    };
    assert_eq!(priorities(WeightRule::Downstream), [1_111, 1_010, 1_100, 1_000]);
    assert_eq!(priorities(WeightRule::Upstream), [1, 11, 101, 1_111]);
    assert_eq!(priorities(WeightRule::Absolute), [1, 10, 100, 1_000]);
}

#[test]
fn priorities_are_exact_over_many_blocks_and_a_path_above_the_bound() {
    let fan = |count: usize| {
        let mut tasks = vec![plain("top", &[])];
        tasks.extend((1..count).map(|place| {
            let mut leaf = plain(&format!("leaf_{place}"), &[]);
            leaf.after = vec![TaskId::from("top")];
            leaf
        }));
        Dag::new(spec(tasks)).unwrap().effective_priority(TaskIx(0))
    };
    assert_eq!(fan(1_000), 1_000, "the sum of all");
    assert_eq!(fan(60_000), 2, "the heaviest path");
}

#[test]
fn leaves_look_through_ignored_teardowns() {
    let teardown =
        |on_failure_fail_dagrun| TaskSettings { role: Role::Teardown { on_failure_fail_dagrun }, ..TaskSettings::default() };
    let leaves = |spec: DagSpec, present: &[&str]| {
        let dag = Dag::new(spec).unwrap();
        let leaves = dag.effective_leaves(|place| present.is_empty() || present.contains(&dag.task(place).id.as_str()));
        leaves.iter().map(|&leaf| dag.task(leaf).id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let with = |fails| spec(vec![plain("work", &[]), plain("other", &[]), task("clean", &["work"], teardown(fails))]);
    assert_eq!(leaves(with(false), &[]), "work other");
    assert_eq!(leaves(with(true), &[]), "other clean");
    assert_eq!(leaves(with(true), &["work"]), "work");
    assert_eq!(leaves(spec(vec![task("one", &[], teardown(false)), task("two", &["one"], teardown(false))]), &[]), "two");
}

#[test]
fn a_pool_without_limit_takes_any_task() {
    let mut open = spec(vec![task("huge", &[], TaskSettings { pool_slots: 10_000, ..TaskSettings::default() })]);
    open.pools = vec![Pool { name: "default_pool".to_owned(), slots: None }];
    assert!(Dag::new(open).is_ok());
}
