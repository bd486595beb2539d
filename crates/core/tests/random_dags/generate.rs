//! Random DAGs with everything in them: rules, mapped tasks, setups and teardowns, retries, pools, weights.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use backstop_core::dag::{DagSpec, Delivery, Hooks, Pool, Role, TaskSettings, TaskSpec, WeightRule};
use backstop_core::event::FailureClass;
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use backstop_core::{DagId, TaskId};
use rand::prelude::*;
use std::time::Duration;

pub(crate) const CLASSES: [FailureClass; 6] = [
    FailureClass::Transient,
    FailureClass::Permanent,
    FailureClass::Final,
    FailureClass::Cancelled,
    FailureClass::TimedOut,
    FailureClass::Interrupted,
];

pub(crate) fn dag(rng: &mut StdRng) -> DagSpec {
    let count = if rng.random_bool(0.1) { rng.random_range(10..24) } else { rng.random_range(1..10) };
    let has_scopes = rng.random_bool(0.4);
    let density = rng.random_range(0.1..0.7);
    // The order of the source is not the order of the graph.
    let mut names: Vec<String> = (0..count).map(|number| format!("t{number}")).collect();
    names.shuffle(rng);
    let roles: Vec<Role> = (0..count).map(|_| if has_scopes { role(rng) } else { Role::Work }).collect();
    let mut tasks: Vec<TaskSpec> = (0..count)
        .map(|place| {
            let after = (0..place).filter(|_| rng.random_bool(density)).map(|up| TaskId::from(names[up].as_str())).collect();
            TaskSpec { id: TaskId::from(names[place].as_str()), after, settings: settings(rng, roles[place]) }
        })
        .collect();
    connect_scopes(rng, &roles, &names, &mut tasks);
    tasks.sort_by(|one, other| one.id.cmp(&other.id));
    DagSpec {
        id: DagId::from("nightly"),
        tasks,
        groups: Vec::new(),
        pools: vec![
            Pool { name: "default_pool".to_owned(), slots: rng.random_bool(0.5).then(|| rng.random_range(3..6)) },
            Pool { name: "small".to_owned(), slots: Some(3) },
        ],
        max_active_tasks: rng.random_range(1..8),
        hooks: hooks(rng),
        dagrun_timeout: rng.random_bool(0.05).then(|| Duration::from_secs(rng.random_range(0..2_000))),
        map_length_max: 4,
    }
}

/// Most teardowns come directly after a setup, as people write them.
fn connect_scopes(rng: &mut StdRng, roles: &[Role], names: &[String], tasks: &mut [TaskSpec]) {
    for place in 0..roles.len() {
        for up in 0..place {
            let is_pair = roles[up] == Role::Setup && matches!(roles[place], Role::Teardown { .. });
            if is_pair && rng.random_bool(0.7) {
                tasks[place].after.push(TaskId::from(names[up].as_str()));
            }
        }
    }
}

fn role(rng: &mut StdRng) -> Role {
    match rng.random_range(0..10) {
        0..3 => Role::Setup,
        3..6 => Role::Teardown { on_failure_fail_dagrun: rng.random_bool(0.3) },
        _ => Role::Work,
    }
}

fn settings(rng: &mut StdRng, role: Role) -> TaskSettings {
    let trigger_rule = match role {
        Role::Teardown { .. } if rng.random_bool(0.8) => TriggerRule::AllDoneSetupSuccess,
        Role::Work | Role::Setup | Role::Teardown { .. } if rng.random_bool(0.4) => TriggerRule::AllSuccess,
        Role::Work | Role::Setup | Role::Teardown { .. } => *TriggerRule::ALL.choose(rng).unwrap(),
    };
    let retry = RetryPolicy {
        retries: rng.random_range(0..3),
        retry_delay: Duration::from_secs(rng.random_range(0..100)),
        exponential: rng.random_bool(0.5).then(|| rng.random_range(0.5..4.0)),
        retry_delay_max: rng.random_bool(0.3).then(|| Duration::from_secs(rng.random_range(0..200))),
    };
    TaskSettings {
        trigger_rule,
        retry,
        role,
        mapped: rng.random_bool(0.2),
        pool: rng.random_range(0..2),
        pool_slots: rng.random_range(1..4),
        priority_weight: rng.random_range(-1..5),
        weight_rule: *[WeightRule::Downstream, WeightRule::Upstream, WeightRule::Absolute].choose(rng).unwrap(),
        delivery: Delivery::ExactlyOnce,
        hooks: hooks(rng),
        group: None,
        updates: Default::default(),
    }
}

fn hooks(rng: &mut StdRng) -> Hooks {
    let mut count = || if rng.random_bool(0.2) { rng.random_range(1..3) } else { 0 };
    Hooks { on_failure: count(), on_retry: count(), on_success: count(), ..Hooks::default() }
}

/// Sometimes only some tasks are wanted.
pub(crate) fn only_tasks(rng: &mut StdRng, spec: &DagSpec) -> Vec<String> {
    if !rng.random_bool(0.1) {
        return Vec::new();
    }
    spec.tasks.iter().filter(|_| rng.random_bool(0.5)).map(|task| task.id.to_string()).collect()
}
