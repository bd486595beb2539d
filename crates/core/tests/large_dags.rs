//! DAGs of 100,000 tasks run to their end, and the work per task does not grow with the DAG.
//!
//! `cargo test --release -p backstop-core --test large_dags -- --nocapture` prints the rates.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic, and this one tells its rates")]

mod fixture;

use backstop_core::command::Command;
use backstop_core::dag::{Dag, DagSpec, TaskSpec};
use backstop_core::{Action, RunPhase, RunState, TaskId, actions, apply, handle};
use fixture::{at, header, plain, spec};
use std::sync::Arc;
use std::time::Instant;

const TASKS: usize = 100_000;

/// Runs everything wanted until the run is over.
fn drive(shape: &str, spec: DagSpec) -> RunState {
    let count = spec.tasks.len();
    let begun = Instant::now();
    let dag = Arc::new(Dag::new(spec).unwrap());
    let built = Instant::now();
    let mut state = RunState::new(dag);
    apply(&mut state, &header(&[]));
    let mut events = handle(&mut state, Command::Start, at(0)).unwrap().len();
    while !state.is_finished() {
        for action in actions(&state) {
            let Action::StartAttempt { instance, try_number } = action else { panic!("{action:?} of empty tasks") };
            events += handle(&mut state, Command::StartAttempt { instance: instance.clone() }, at(0)).unwrap().len();
            let done = Command::Succeed { instance, try_number, result: None, follow: None };
            events += handle(&mut state, done, at(0)).unwrap().len();
        }
    }
    let run = built.elapsed();
    eprintln!(
        "{shape}: {count} tasks, built in {:?}, run in {run:?} ({:.0} tasks/s, {events} events)",
        built - begun,
        count as f64 / run.as_secs_f64()
    );
    assert_eq!(state.phase(), RunPhase::Succeeded);
    assert_eq!(state.counts().success, count);
    state
}

fn named(place: usize, after: &[usize]) -> TaskSpec {
    let mut spec = plain(&format!("task_{place}"), &[]);
    spec.after = after.iter().map(|up| TaskId::from(format!("task_{up}").as_str())).collect();
    spec
}

#[test]
fn a_chain_runs_to_its_end() {
    let tasks = (0..TASKS).map(|place| if place == 0 { named(0, &[]) } else { named(place, &[place - 1]) });
    drive("chain", spec(tasks.collect()));
}

#[test]
fn a_fan_out_and_in_runs_to_its_end() {
    let mut tasks: Vec<TaskSpec> =
        (0..TASKS - 1).map(|place| if place == 0 { named(0, &[]) } else { named(place, &[0]) }).collect();
    tasks.push(named(TASKS - 1, &(1..TASKS - 1).collect::<Vec<_>>()));
    drive("fan-out and in", spec(tasks));
}

#[test]
fn layers_run_to_their_end() {
    let width = 1_000;
    let upstream = |place: usize| {
        if place < width { vec![] } else { vec![place - width, (place - width) / width * width + (place + 1) % width] }
    };
    drive("layers of 1,000", spec((0..TASKS).map(|place| named(place, &upstream(place))).collect()));
}

#[test]
fn independent_tasks_run_to_their_end() {
    drive("independent", spec((0..TASKS).map(|place| named(place, &[])).collect()));
}

#[test]
fn a_failure_at_the_top_marks_everything_below() {
    let tasks = (0..TASKS).map(|place| if place == 0 { named(0, &[]) } else { named(place, &[place - 1]) });
    let mut state = RunState::new(Arc::new(Dag::new(spec(tasks.collect())).unwrap()));
    apply(&mut state, &header(&[]));
    handle(&mut state, Command::Start, at(0)).unwrap();
    handle(&mut state, Command::StartAttempt { instance: fixture::id("task_0") }, at(0)).unwrap();
    let failure = fixture::failure(backstop_core::event::FailureClass::Permanent);
    let begun = Instant::now();
    let events = handle(&mut state, Command::Fail { instance: fixture::id("task_0"), try_number: 1, failure }, at(0)).unwrap();
    eprintln!("cascade: {} events in {:?}", events.len(), begun.elapsed());
    assert_eq!(state.phase(), RunPhase::Failed);
    assert_eq!(state.counts().upstream_failed, TASKS - 1);
}

#[test]
fn a_full_house_wants_nothing_of_a_long_queue() {
    let mut state = RunState::new(Arc::new(Dag::new(spec((0..TASKS).map(|place| named(place, &[])).collect())).unwrap()));
    apply(&mut state, &header(&[]));
    handle(&mut state, Command::Start, at(0)).unwrap();
    for action in actions(&state) {
        let Action::StartAttempt { instance, .. } = action else { panic!("{action:?}") };
        handle(&mut state, Command::StartAttempt { instance }, at(0)).unwrap();
    }
    assert_eq!(state.counts().running, 16);
    let begun = Instant::now();
    for _ in 0..1_000 {
        assert!(actions(&state).is_empty());
    }
    eprintln!("full house: {:?} for actions()", begun.elapsed() / 1_000);
}
