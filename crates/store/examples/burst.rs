//! Measures the SQLite store: `cargo run --release -p backstop-store --example burst [FOLDER]`.
//!
//! Appends of one event with one caller that waits for each (bound by the disk's sync), and the burst of a run of 100,000 empty tasks:
//! 300,000 events, three an instance, in appends of three.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

use backstop_core::event::{RunHeader, RunType};
use backstop_core::{Event, InstanceId, RunId, TaskId};
use backstop_store::sqlite::Options;
use backstop_store::{Append, Durable, SqliteStore, Store};
use jiff::Timestamp;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

const TASKS: u64 = 100_000;
const WAITED_APPENDS: u64 = 1000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = match std::env::args().nth(1) {
        Some(folder) => folder.into(),
        None => std::env::temp_dir(),
    };
    let path = folder.join(format!("backstop-burst-{}.db", std::process::id()));
    let opening = Instant::now();
    let store = SqliteStore::open(&path, Options::default())?;
    println!("open a new store:               {:>10.1} ms", opening.elapsed().as_secs_f64() * 1e3);
    waited(&store).await?;
    let before = file_bytes(&path)?;
    burst(&store).await?;
    drop(store);
    let bytes = file_bytes(&path)? - before;
    println!("bytes an event, with projection:{:>10.1}", bytes as f64 / (6 * TASKS) as f64);
    let opening = Instant::now();
    drop(SqliteStore::open(&path, Options::default())?);
    println!("open and close it again:        {:>10.1} ms", opening.elapsed().as_secs_f64() * 1e3);
    std::fs::remove_file(&path)?;
    Ok(())
}

fn file_bytes(path: &std::path::Path) -> std::io::Result<u64> {
    Ok(std::fs::metadata(path)?.len())
}

fn created(run: &RunId) -> Event {
    Event::RunCreated(Arc::new(RunHeader {
        run_id: run.clone(),
        dag_id: "burst".into(),
        project: None,
        version: "v".into(),
        logical_date: None,
        data_interval: None,
        queued_at: Timestamp::UNIX_EPOCH,
        run_type: RunType::Manual,
        params: "{}".into(),
        only_tasks: Vec::new(),
        dry_run: false,
        cause: None,
    }))
}

async fn waited(store: &SqliteStore) -> Result<(), Box<dyn Error>> {
    let run = RunId::new("0199aaaa-0000-7000-8000-000000000001");
    let append = |version, event| append(&run, version, vec![event]);
    store.append(append(0, created(&run))).await.await??;
    let begin = Instant::now();
    for version in 1..=WAITED_APPENDS {
        store.append(append(version, Event::RunResumed { epoch: 1 })).await.await??;
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("appends, each waited for:       {:>10.0} a second", WAITED_APPENDS as f64 / seconds);
    Ok(())
}

fn append(run: &RunId, expected_version: u64, events: Vec<Event>) -> Append {
    let at = Timestamp::from_microsecond(1_762_000_000_123_456).unwrap_or_default();
    Append { run: run.clone(), expected_version, epoch: 1, at, events }
}

async fn burst(store: &SqliteStore) -> Result<(), Box<dyn Error>> {
    let run = RunId::new("0199aaaa-0000-7000-8000-000000000002");
    let at = Timestamp::from_microsecond(1_762_000_000_123_456)?;
    let begin = Instant::now();
    let mut last: Durable = store.append(append(&run, 0, vec![created(&run)])).await;
    let mut version = 1;
    for number in 0..TASKS {
        let instance = InstanceId::single(TaskId::new(format!("task_{number:06}")));
        let events = vec![
            Event::TaskScheduled { instance: instance.clone() },
            Event::AttemptStarted { instance: instance.clone(), try_number: 1, epoch: 1, at },
            Event::AttemptSucceeded { instance, try_number: 1, result: None, follow: None },
        ];
        last = store.append(append(&run, version, events)).await;
        version += 3;
    }
    last.await??;
    let seconds = begin.elapsed().as_secs_f64();
    println!("burst of {} events:        {:>10.2} s", 3 * TASKS, seconds);
    println!("                                {:>10.0} events a second", (3 * TASKS) as f64 / seconds);
    spread(store, &run).await?;
    let begin = Instant::now();
    let events = store.events(&run, 0, usize::MAX).await?;
    println!("read {} events:            {:>10.2} s", events.len(), begin.elapsed().as_secs_f64());
    let begin = Instant::now();
    let instances = store.instances(&run).await?;
    println!("list {} instances:         {:>10.2} s", instances.len(), begin.elapsed().as_secs_f64());
    Ok(())
}

/// The same again, but each event of an instance far from the others, so that its row is written three times.
async fn spread(store: &SqliteStore, like: &RunId) -> Result<(), Box<dyn Error>> {
    let run = RunId::new(format!("{}-spread", like.as_str()));
    let at = Timestamp::from_microsecond(1_762_000_000_123_456)?;
    let instances: Vec<InstanceId> =
        (0..TASKS).map(|number| InstanceId::single(TaskId::new(format!("task_{number:06}")))).collect();
    let begin = Instant::now();
    let mut last: Durable = store.append(append(&run, 0, vec![created(&run)])).await;
    let mut version = 1;
    for step in 0..3 {
        for instance in &instances {
            let instance = instance.clone();
            let event = match step {
                0 => Event::TaskScheduled { instance },
                1 => Event::AttemptStarted { instance, try_number: 1, epoch: 1, at },
                _ => Event::AttemptSucceeded { instance, try_number: 1, result: None, follow: None },
            };
            last = store.append(append(&run, version, vec![event])).await;
            version += 1;
        }
    }
    last.await??;
    println!("the same, one event an append, far apart: {:>6.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}
