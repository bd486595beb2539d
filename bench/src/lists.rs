//! Lists and grids over a store of a million task instances, alone and while it is written to. What is filled in goes through the store
//! as the service writes it, in appends of one run each, so it is real data.

use crate::lists_over_http;
use crate::measure::{Row, ms};
use anyhow::Result;
use backstop_core::event::{Failure, FailureClass, RunHeader, RunType};
use backstop_core::state::RunPhase;
use backstop_core::{DagId, Event, InstanceId, RunId, TaskId};
use backstop_store::sqlite::Options;
use backstop_store::{Append, InstanceCursor, InstanceFilter, RunFilter, SqliteStore, Store};
use jiff::Timestamp;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub(crate) const RUNS: u64 = 10_000;
pub(crate) const TASKS: u64 = 100;
pub(crate) const INSTANCES: u64 = RUNS * TASKS;
pub(crate) const DAGS: u64 = 20;
/// One task of so many fails, and what is behind it is not run.
const FAILS_ONE_IN: u64 = 5000;
pub(crate) const ROUNDS: u64 = 300;
const START: i64 = 1_700_000_000;

/// Fills a store and measures it.
pub(crate) fn run(binary: &Path) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let file = folder.path().join("store.db");
    let mut rows = runtime.block_on(async {
        let store = Arc::new(SqliteStore::open(&file, Options::default())?);
        fill(&*store).await?;
        let mut rows = measure(&*store, "the store alone").await?;
        rows.extend(while_written(&store).await?);
        anyhow::Ok(rows)
    })?;
    drop(runtime);
    rows.extend(lists_over_http::run(binary, folder.path(), &file)?);
    Ok(rows)
}

pub(crate) fn run_id(number: u64) -> RunId {
    RunId::new(format!("0199aaaa-0000-7000-8000-{number:012}"))
}

pub(crate) fn dag_id(number: u64) -> DagId {
    DagId::new(format!("dag_{:02}", number % DAGS))
}

pub(crate) fn task_id(number: u64) -> TaskId {
    TaskId::new(format!("task_{number:04}"))
}

pub(crate) fn second(number: u64) -> Timestamp {
    Timestamp::from_second(START + i64::try_from(number).unwrap_or(0) * 60).unwrap_or_default()
}

fn created(run: &RunId, number: u64) -> Event {
    Event::RunCreated(Arc::new(RunHeader {
        run_id: run.clone(),
        dag_id: dag_id(number),
        project: None,
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
fn events(run: &RunId, number: u64) -> Vec<Event> {
    let at = second(number);
    let mut events = vec![created(run, number), Event::RunStarted { at }];
    let mut has_failed = false;
    for task in 0..TASKS {
        let instance = InstanceId::single(task_id(task));
        if has_failed {
            events.push(Event::TaskUpstreamFailed { instance });
            continue;
        }
        events.push(Event::TaskScheduled { instance: instance.clone() });
        events.push(Event::AttemptStarted { instance: instance.clone(), try_number: 1, epoch: 1, at });
        has_failed = (number * TASKS + task) % FAILS_ONE_IN == FAILS_ONE_IN - 1;
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

async fn fill(store: &dyn Store) -> Result<()> {
    for number in 0..RUNS {
        write_run(store, number).await;
    }
    Ok(store.flush().await?)
}

async fn write_run(store: &dyn Store, number: u64) {
    let run = run_id(number);
    let at = second(number).checked_add(jiff::Span::new().seconds(30)).unwrap_or_default();
    let append = Append { events: events(&run, number), run, expected_version: 0, epoch: 1, at };
    // Durable when the store is flushed; a refusal would show in what is counted.
    drop(store.append(append).await);
}

pub(crate) fn row(what: &str, how: &str, mut times: Vec<Duration>) -> Row {
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    Row {
        what: format!("{INSTANCES} task instances, {how}: {what}"),
        figure: format!("p50 {}, p99 {}", ms(p50), ms(p99)),
        against: String::new(),
        ratio: String::new(),
        bar: "p99 < 50 ms",
    }
}

async fn measure(store: &dyn Store, how: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let spread = |round: u64| round * 7919 % RUNS;
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
        rows.push(row(&format!("{what}, a page of 50"), how, times));
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        let before = Some(run_id(spread(round)));
        store.grid(&RunFilter { dag: dag(round), before, limit: 25, ..RunFilter::default() }).await?;
        times.push(begin.elapsed());
    }
    rows.push(row(&format!("grid, 25 runs of {TASKS} tasks"), how, times));
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
                run: None,
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
        rows.push(row(&format!("{what}, a page of 50"), how, times));
    }
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let begin = Instant::now();
        store.durations(&dag_id(round), &task_id(round % TASKS), 100).await?;
        times.push(begin.elapsed());
    }
    rows.push(row("durations of a task, 100 runs", how, times));
    Ok(rows)
}

/// The same while the store is written to as fast as it takes it: who reads does not wait, nor does who writes.
async fn while_written(store: &Arc<SqliteStore>) -> Result<Vec<Row>> {
    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn({
        let (store, stop, written) = (store.clone(), stop.clone(), written.clone());
        async move {
            for number in RUNS.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                write_run(&*store, number).await;
                written.fetch_add(TASKS, Ordering::Relaxed);
            }
            store.flush().await
        }
    });
    let begin = Instant::now();
    let mut rows = measure(&**store, "the store while it is written").await?;
    stop.store(true, Ordering::Relaxed);
    writing.await??;
    let rate = written.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64();
    rows.push(Row {
        what: "the same: written meanwhile".into(),
        figure: format!("{rate:.0} task instances/s"),
        against: String::new(),
        ratio: String::new(),
        bar: "",
    });
    Ok(rows)
}
