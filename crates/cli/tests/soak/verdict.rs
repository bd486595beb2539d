//! What is found at the end, in the databases and in the store's own answers, against what must be there.

use crate::killer::is_tick;
use crate::load::{Load, run_id};
use crate::service::{Service, get};
use crate::work::{Entry, Target, Work};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;

/// The closing table.
pub(crate) struct Verdict {
    rows: Vec<(String, u64)>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|(what, count)| writeln!(f, "{what:<52}{count:>8}"))
    }
}

/// Stops at the first thing that is not as it must be.
pub(crate) fn judge(work: &Work, load: &Load<'_>) -> Verdict {
    let mut rows = Vec::new();
    let mut tell = |what: &str, count: u64| rows.push((what.to_owned(), count));
    let mut service = Service::start(work.project());
    let address = service.address();
    let runs = all_runs(&address);
    every_run_is_done(&runs, load);
    tell("runs asked for, accepted and done", load.numbers().count() as u64);
    tell("requests repeated because no answer came", load.repeated.load(Ordering::Relaxed));
    tell("  whose run had been made", load.found_made.load(Ordering::Relaxed));
    tell("doubts that the operator resolved (MariaDB's DDL)", load.resolved.load(Ordering::Relaxed));
    tell("most unfinished runs at once", load.most.load(Ordering::Relaxed) as u64);
    for target in &work.targets {
        tell(&format!("{}: segments applied exactly once", target.name), ledger_is_whole(target, load));
        tell(&format!("{}: segments with exactly one marker", target.name), markers_are_single(target));
        tell(&format!("{}: ticks, each once", target.name), ticks_are_whole(target, &runs));
    }
    let made = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'made%'";
    assert_eq!(work.target("maria").number(made), 0, "every table that was made was dropped");
    service.terminate();
    let store = rusqlite::Connection::open(work.project().join(".backstop/store.db")).unwrap();
    let sound: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    Verdict { rows }
}

fn all_runs(address: &str) -> Vec<Value> {
    let mut runs: Vec<Value> = Vec::new();
    let mut path = "/api/v1/runs?limit=1000".to_owned();
    loop {
        let page = get(address, &path).unwrap();
        runs.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next"].as_str() else { return runs };
        path = format!("/api/v1/runs?limit=1000&before={next}");
    }
}

/// Every run that was asked for is there, once, and has succeeded; and there is no other but what timetables made.
fn every_run_is_done(runs: &[Value], load: &Load<'_>) {
    let mut asked: BTreeSet<String> = load.numbers().map(run_id).collect();
    for run in runs {
        let is_waiting_tick = is_tick(run) && run["state"] == "queued";
        assert!(run["state"] == "success" || is_waiting_tick, "{run}");
        let id = run["run_id"].as_str().unwrap();
        assert!(is_tick(run) || asked.remove(id), "nobody asked for {run}, or it is there twice");
    }
    assert!(asked.is_empty(), "lost: {asked:?}");
}

/// Every segment is there, once; what transactions changed together changed together.
fn ledger_is_whole(target: &Target, load: &Load<'_>) -> u64 {
    let expected = Work::expected(target.name, load.numbers());
    let mut found: BTreeMap<Entry, u64> = BTreeMap::new();
    for row in target.rows("SELECT number, task, segment FROM ledger") {
        *found.entry((row[0].parse().unwrap(), row[1].clone(), row[2].parse().unwrap())).or_default() += 1;
    }
    let wrong: Vec<String> = expected
        .keys()
        .chain(found.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|entry| expected.get(entry) != found.get(entry))
        .map(|entry| format!("{entry:?}: {:?}, not {:?}", found.get(entry), expected.get(entry)))
        .collect();
    assert!(
        wrong.is_empty(),
        "{}: {} segments are wrong:\n{}",
        target.name,
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    let of_task = |task: &str| i64::try_from(expected.keys().filter(|(_, name, _)| name == task).count()).unwrap();
    assert_eq!(target.number("SELECT SUM(n) FROM total"), of_task("post"), "{}", target.name);
    assert_eq!(target.number("SELECT COUNT(*) FROM only_later") * 2, of_task("flaky"), "{}", target.name);
    assert_eq!(balances(target), Work::balances(expected.keys()), "{}: balances", target.name);
    found.values().sum()
}

fn balances(target: &Target) -> Vec<i64> {
    target.rows("SELECT balance FROM account ORDER BY id").iter().map(|row| row[0].parse().unwrap()).collect()
}

/// No segment has markers of two tries that committed.
fn markers_are_single(target: &Target) -> u64 {
    let of = "FROM backstop_marker WHERE outcome = 'committed' AND kind = 'forward' GROUP BY run, task, map_index, segment";
    assert_eq!(
        target.number(&format!("SELECT COUNT(*) FROM (SELECT run {of} HAVING COUNT(*) > 1) doubled")),
        0,
        "{}",
        target.name
    );
    u64::try_from(target.number(&format!("SELECT COUNT(*) FROM (SELECT run {of}) single"))).unwrap()
}

/// Every tick from the first to the last made one run, and each that ran has one effect.
fn ticks_are_whole(target: &Target, runs: &[Value]) -> u64 {
    let dag = format!("tick_{}", target.name);
    let of_dag = || runs.iter().filter(|run| run["dag"] == *dag);
    let seconds = |run: &Value| run["logical_date"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let mut planned: Vec<i64> = of_dag().map(seconds).collect();
    planned.sort_unstable();
    assert!(planned.windows(2).all(|pair| pair[1] - pair[0] == 2), "{dag}: a tick is missing or there twice: {planned:?}");
    let done = of_dag().filter(|run| run["state"] == "success").count();
    let distinct = target.number("SELECT COUNT(DISTINCT at) FROM tick");
    let rows = target.number("SELECT COUNT(*) FROM tick");
    assert_eq!((rows, distinct), (i64::try_from(done).unwrap(), i64::try_from(done).unwrap()), "{dag}");
    done as u64
}
