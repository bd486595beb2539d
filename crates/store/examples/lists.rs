//! Fills a store with a million task instances and measures lists over them:
//! `cargo run --release -p backstop-store --example lists [RUNS] [TASKS] [FOLDER]`.
//!
//! What is filled in goes through the store as the service writes it, in appends of one run each, so it is real data.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

use backstop_core::event::{Failure, FailureClass, RunHeader, RunType};
use backstop_core::state::RunPhase;
use backstop_core::{DagId, Event, InstanceId, RunId, TaskId};
use backstop_store::sqlite::Options;
use backstop_store::{Append, InstanceCursor, InstanceFilter, RunFilter, SqliteStore, Store};
use jiff::Timestamp;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const DAGS: u64 = 20;
/// One task of so many fails, and what is behind it is not run.
const FAILS_ONE_IN: u64 = 5000;
const ROUNDS: u64 = 300;
const START: i64 = 1_700_000_000;

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| arguments.next().map_or(Ok(usual), |text| text.parse());
    let (runs, tasks) = (number(10_000)?, number(100)?);
    let folder = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let path = folder.join(format!("backstop-lists-{}.db", std::process::id()));
    let store = Arc::new(SqliteStore::open(&path, Options::default())?);
    let begin = Instant::now();
    fill(&*store, runs, tasks).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(&path)?.len();
    println!("filled {runs} runs of {tasks} tasks: {seconds:.1} s, {:.0} MB", bytes as f64 / 1e6);
    measure(&*store, runs, tasks, "alone").await?;
    while_written(&store, runs, tasks).await?;
    drop(store);
    let _ = std::fs::remove_dir_all(path.with_file_name("locks"));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    Ok(())
}

fn run_id(number: u64) -> RunId {
    RunId::new(format!("0199aaaa-0000-7000-8000-{number:012}"))
}

fn dag_id(number: u64) -> DagId {
    DagId::new(format!("dag_{:02}", number % DAGS))
}

fn task_id(number: u64) -> TaskId {
    TaskId::new(format!("task_{number:04}"))
}

fn second(number: u64) -> Timestamp {
    Timestamp::from_second(START + i64::try_from(number).unwrap_or(0) * 60).unwrap_or_default()
}

fn created(run: &RunId, number: u64) -> Event {
    Event::RunCreated(Arc::new(RunHeader {
        run_id: run.clone(),
        dag_id: dag_id(number),
        version: format!("version-{}", number * 10 / 10_000),
        logical_date: Some(second(number)),
        data_interval: None,
        queued_at: second(number),
        run_type: RunType::Scheduled,
        params: "{}".into(),
        only_tasks: Vec::new(),
        dry_run: false,
        cause: None,
    }))
}

/// All events of a run.
fn events(run: &RunId, number: u64, tasks: u64) -> Vec<Event> {
    let at = second(number);
    let mut events = vec![created(run, number), Event::RunStarted { at }];
    let mut has_failed = false;
    for task in 0..tasks {
        let instance = InstanceId::single(task_id(task));
        if has_failed {
            events.push(Event::TaskUpstreamFailed { instance });
            continue;
        }
        events.push(Event::TaskScheduled { instance: instance.clone() });
        events.push(Event::AttemptStarted { instance: instance.clone(), try_number: 1, epoch: 1, at });
        has_failed = (number * tasks + task) % FAILS_ONE_IN == FAILS_ONE_IN - 1;
        events.push(if has_failed {
            Event::AttemptFailed { instance, try_number: 1, failure: failure(), is_final: true }
        } else {
            Event::AttemptSucceeded { instance, try_number: 1, result: None, follow: None }
        });
    }
    events.push(if has_failed { Event::RunFailed } else { Event::RunSucceeded });
    events
}

fn failure() -> Arc<Failure> {
    Arc::new(Failure {
        class: FailureClass::Permanent,
        message: "relation \"sales\" does not exist".into(),
        causes: Vec::new(),
        place: None,
        sqlstate: Some("42P01".into()),
        native_code: None,
        effect: String::new(),
        hint: None,
        statements: Vec::new(),
    })
}

async fn fill(store: &dyn Store, runs: u64, tasks: u64) -> Result<(), Failed> {
    for number in 0..runs {
        write_run(store, number, tasks).await;
    }
    Ok(store.flush().await?)
}

async fn write_run(store: &dyn Store, number: u64, tasks: u64) {
    let run = run_id(number);
    let at = second(number).checked_add(jiff::Span::new().seconds(30)).unwrap_or_default();
    let append = Append { events: events(&run, number, tasks), run, expected_version: 0, epoch: 1, at };
    // Durable when the store is flushed; a refusal would show in what is counted.
    drop(store.append(append).await);
}

fn report(what: &str, how: &str, mut times: Vec<Duration>) {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("| {what} | {how} | {:.2} | {:.2} | {:.2} |", ms(p50), ms(p99), ms(*times.last().unwrap_or(&p99)));
}

async fn measure(store: &dyn Store, runs: u64, tasks: u64, how: &str) -> Result<(), Failed> {
    println!("| list | how | p50 ms | p99 ms | most ms |\n| --- | --- | --- | --- | --- |");
    let spread = |round: u64| round * 7919 % runs;
    let dag = |round: u64| Some(dag_id(round));
    for (what, filter) in [
        (
            "runs",
            (&|round| RunFilter { before: Some(run_id(spread(round))), ..RunFilter::default() }) as &dyn Fn(u64) -> RunFilter,
        ),
        ("runs of a DAG", &|round| RunFilter { dag: dag(round), before: Some(run_id(spread(round))), ..RunFilter::default() }),
        ("runs that failed", &|round| RunFilter {
            phase: Some(RunPhase::Failed),
            dag: (round % 2 == 0).then(|| dag(round)).flatten(),
            ..RunFilter::default()
        }),
        ("runs of a DAG by date", &|round| RunFilter {
            dag: dag(round),
            dates_until: Some(second(spread(round))),
            ..RunFilter::default()
        }),
        ("runs about one date", &|round| RunFilter {
            dag: dag(spread(round)),
            dates_from: Some(second(spread(round))),
            dates_until: Some(second(spread(round))),
            ..RunFilter::default()
        }),
    ] {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let begin = Instant::now();
            store.runs(&RunFilter { limit: 50, ..filter(round) }).await?;
            times.push(begin.elapsed());
        }
        report(&format!("{what}, 50"), how, times);
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        let before = Some(run_id(spread(round)));
        store.grid(&RunFilter { dag: dag(round), before, limit: 25, ..RunFilter::default() }).await?;
        times.push(begin.elapsed());
    }
    report(&format!("grid, 25 runs of {tasks} tasks"), how, times);
    for (what, state, of_dag, task) in [
        ("task instances", None, false, None),
        ("task instances that failed", Some("failed"), false, None),
        ("task instances of a DAG that failed", Some("failed"), true, None),
        ("task instances of a DAG and a task", None, true, Some(7)),
        ("task instances in doubt (there is none)", Some("in_doubt"), true, None),
        ("a task that is nowhere", None, false, Some(9999)),
    ] {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let after = InstanceCursor { run: run_id(spread(round)), instance: InstanceId::single(task_id(3)) };
            let filter = InstanceFilter {
                dag: of_dag.then(|| dag(round)).flatten(),
                task: task.map(task_id),
                state: state.map(str::to_owned),
                after: (round % 2 == 0).then_some(after),
                limit: 50,
            };
            let begin = Instant::now();
            store.list_instances(&filter).await?;
            times.push(begin.elapsed());
        }
        report(&format!("{what}, 50"), how, times);
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        store.durations(&dag_id(round), &task_id(round % tasks), 100).await?;
        times.push(begin.elapsed());
    }
    report("durations of a task, 100 runs", how, times);
    Ok(())
}

/// The same while the store is written to as fast as it takes it: who reads does not wait, nor does who writes.
async fn while_written(store: &Arc<SqliteStore>, runs: u64, tasks: u64) -> Result<(), Failed> {
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn({
        let (store, stop, written) = (store.clone(), stop.clone(), written.clone());
        async move {
            for number in runs.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                write_run(&*store, number, tasks).await;
                written.fetch_add(tasks, Ordering::Relaxed);
            }
            store.flush().await
        }
    });
    let begin = Instant::now();
    measure(&**store, runs, tasks, "while it is written").await?;
    stop.store(true, Ordering::Relaxed);
    writing.await??;
    let rate = written.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    println!("written meanwhile: {rate:.0} task instances a second");
    Ok(())
}
