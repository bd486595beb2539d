//! `kill -9` of a process that appends, a hundred times on one file: what it said was durable is there.
//!
//! This proves what the store does when its process dies. That a commit is also synced to the disk, for when the machine dies, no
//! process can show of itself: the settings that ask for it are tested beside the code.

#![allow(clippy::unwrap_used, reason = "this is a test, with functions beside it")]

use backstop_core::event::{RunHeader, RunType};
use backstop_core::{Event, RunId};
use backstop_store::sqlite::Options;
use backstop_store::{Append, Durable, SqliteStore, Store};
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const ROUNDS: u64 = 100;
const RUNS: u64 = 3;
/// Set for the process that is to be killed: the store's path, and the number of the round.
const STORE: &str = "BACKSTOP_TEST_KILL_STORE";
const ROUND: &str = "BACKSTOP_TEST_KILL_ROUND";

/// A linear congruential generator (Knuth's MMIX): enough to choose moments.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn run_id(round: u64, number: u64) -> RunId {
    RunId::new(format!("round-{round}-run-{number}"))
}

/// The event at a place is known, so that the reader can tell it from any other.
fn event(run: &RunId, seq: u64) -> Event {
    if seq > 1 {
        return Event::OperatorActed { who: run.as_str().into(), why: "x".repeat((seq % 700) as usize), what: seq.to_string() };
    }
    Event::RunCreated(Arc::new(RunHeader {
        run_id: run.clone(),
        dag_id: "d".into(),
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

/// The process that is killed. Without its variables, as in a plain test run, it has nothing to do.
#[tokio::test]
async fn child_appends_until_it_is_killed() {
    let (Ok(path), Ok(round)) = (std::env::var(STORE), std::env::var(ROUND)) else { return };
    let round: u64 = round.parse().unwrap();
    let store = SqliteStore::open(path, Options::default()).unwrap();
    let mut random = Random(round);
    let mut versions = vec![0_u64; RUNS as usize];
    let mut waiting: VecDeque<(RunId, u64, Durable)> = VecDeque::new();
    let _locks: Vec<_> = (0..RUNS).map(|number| store.lock_run(&run_id(round, number)).unwrap()).collect();
    // Bounded, should the parent die first.
    for _ in 0..100_000 {
        let number = random.below(RUNS);
        let run = run_id(round, number);
        let version = &mut versions[number as usize];
        let count = 1 + random.below(5);
        let events = (1..=count).map(|more| event(&run, *version + more)).collect();
        let append = Append { run: run.clone(), expected_version: *version, epoch: 1, at: Timestamp::UNIX_EPOCH, events };
        let answer = store.append(append).await;
        *version += count;
        waiting.push_back((run, *version, answer));
        // Sometimes waits for one, sometimes runs ahead.
        while waiting.len() as u64 > random.below(40) {
            let (run, version, answer) = waiting.pop_front().unwrap();
            answer.await.unwrap().unwrap();
            println!("\nack {run} {version}");
        }
    }
}

fn spawn(store: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_appends_until_it_is_killed", "--nocapture"])
        .env(STORE, store)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the child after it has acknowledged so many appends. Returns the last acknowledged version of each run, and how many there were.
fn kill_after(mut child: Child, acks_wanted: u64) -> (HashMap<RunId, u64>, u64) {
    let mut acknowledged = HashMap::new();
    let mut acks = 0;
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    if acks_wanted == 0 {
        child.kill().unwrap();
    }
    // After the kill, what is left in the pipe was said before it.
    while output.read_line(&mut line).unwrap() > 0 {
        if let Some((run, version)) =
            line.strip_suffix('\n').and_then(|line| line.strip_prefix("ack ")).and_then(|ack| ack.split_once(' '))
        {
            acknowledged.insert(RunId::new(run), version.parse().unwrap());
            acks += 1;
            if acks == acks_wanted {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    child.wait().unwrap();
    (acknowledged, acks)
}

#[tokio::test]
async fn every_acknowledged_append_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let mut random = Random(42);
    let (mut acks, mut kept, mut beyond) = (0, 0, 0);
    for round in 0..ROUNDS {
        // Every tenth is killed while it starts.
        let wanted = if round % 10 == 0 { 0 } else { 1 + random.below(150) };
        let (acknowledged, acks_of_round) = kill_after(spawn(&path, round), wanted);
        assert!(acks_of_round >= wanted, "round {round}: the child ended by itself after {acks_of_round} acks");
        acks += acks_of_round;
        let store = SqliteStore::open(&path, Options::default()).unwrap();
        for number in 0..RUNS {
            let run = run_id(round, number);
            let log = store.events(&run, 0, usize::MAX).await.unwrap();
            let said = acknowledged.get(&run).copied().unwrap_or(0);
            assert!(log.len() as u64 >= said, "round {round}, {run}: {said} acknowledged, {} there", log.len());
            for (seq, recorded) in (1..).zip(&log) {
                assert_eq!((recorded.seq, &recorded.event), (seq, &event(&run, seq)), "round {round}, {run}");
            }
            assert_eq!(store.run(&run).await.unwrap().map_or(0, |row| row.version), log.len() as u64, "round {round}, {run}");
            drop(store.lock_run(&run).unwrap());
            kept += log.len() as u64;
            beyond += log.len() as u64 - said;
        }
    }
    println!("{ROUNDS} kills: {acks} acknowledged appends, {kept} events kept, {beyond} of them not yet acknowledged");
}
