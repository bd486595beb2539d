//! The core without the world: 100,000 tasks through `handle` and `actions`.

use crate::measure::Row;
use backstop_core::dag::{DagSpec, Hooks, Pool, TaskSettings, TaskSpec};
use backstop_core::event::{Event, RunHeader, RunType};
use backstop_core::{Action, Command, Dag, RunState, TaskId, actions, apply, handle};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Instant;

const TASKS: usize = 100_000;

fn spec(chain: bool) -> DagSpec {
    let name = |n: usize| TaskId::new(format!("t{n}"));
    let tasks = (0..TASKS)
        .map(|n| TaskSpec {
            id: name(n),
            after: match n {
                0 => Vec::new(),
                _ if chain => vec![name(n - 1)],
                _ => vec![name(0)],
            },
            settings: TaskSettings::default(),
        })
        .collect();
    DagSpec {
        id: "bench".into(),
        tasks,
        groups: Vec::new(),
        pools: vec![Pool { name: "default_pool".into(), slots: None }],
        max_active_tasks: 16,
        hooks: Hooks::default(),
        dagrun_timeout: None,
        map_length_max: 1024,
    }
}

fn resident_kib() -> f64 {
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<f64>().ok()))
        .map_or(0.0, |pages| pages * 4.0)
}

/// One row a shape.
pub(crate) fn run() -> Vec<Row> {
    [("chain", true), ("fan-out", false)].into_iter().filter_map(|(name, chain)| one(name, chain)).collect()
}

fn one(name: &str, chain: bool) -> Option<Row> {
    let before = resident_kib();
    let dag = Arc::new(Dag::new(spec(chain)).ok()?);
    let mut state = RunState::new(dag);
    let bytes = (resident_kib() - before) * 1024.0 / TASKS as f64;
    let now = Timestamp::UNIX_EPOCH;
    let header = RunHeader {
        run_id: "bench".into(),
        dag_id: "bench".into(),
        project: None,
        version: String::new(),
        logical_date: None,
        data_interval: None,
        queued_at: now,
        run_type: RunType::Manual,
        params: "{}".into(),
        only_tasks: Vec::new(),
        dry_run: false,
        cause: None,
    };
    let start = Instant::now();
    apply(&mut state, &Event::RunCreated(Arc::new(header)));
    let mut events = handle(&mut state, Command::Start, now).ok()?.len();
    while !state.is_finished() {
        for action in actions(&state) {
            if let Action::StartAttempt { instance, try_number } = action {
                events += handle(&mut state, Command::StartAttempt { instance: instance.clone() }, now).ok()?.len();
                let done = Command::Succeed { instance, try_number, result: None, follow: None };
                events += handle(&mut state, done, now).ok()?.len();
            }
        }
    }
    let took = start.elapsed();
    Some(Row {
        what: format!("core alone, {name} of {TASKS} tasks, {events} events"),
        figure: format!("{:.0} tasks/s", TASKS as f64 / took.as_secs_f64()),
        against: String::new(),
        ratio: format!("{bytes:.0} bytes a task (DAG and state)"),
        bar: "",
    })
}
