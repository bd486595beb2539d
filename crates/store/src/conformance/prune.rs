//! Promises about runs that are removed, and about versions in use.

use super::script::{append, at, created, run_started, single};
use super::*;
use crate::{PruneRule, RunFilter, Version, VersionUse};
use backstop_core::event::{CallbackId, Occasion, RunHeader};
use jiff::Timestamp;

fn rule() -> PruneRule {
    PruneRule { ended_before: None, runs_max: None, runs_min: 1, never_after: Timestamp::MAX }
}

/// A run that ended so, at this time.
async fn ended(store: &dyn Store, run: &str, dag: &str, end: Option<Event>, micros: u64) {
    let run = RunId::new(run);
    let events = [vec![created(&run, dag), run_started()], end.into_iter().collect()].concat();
    do_append(store, Append { at: at(micros), ..append(&run, 0, events) }).await.unwrap();
}

async fn prunable(store: &dyn Store, rule: PruneRule) -> Vec<String> {
    store.prunable(&rule, 100).await.unwrap().iter().map(|found| found.run.to_string()).collect()
}

/// By age and by count; never what goes on, has callbacks to run, or is the last that succeeded.
pub async fn old_runs_may_go(subject: &mut dyn Subject) {
    let store = subject.store();
    for (run, end) in [
        ("1", Some(Event::RunFailed)),
        ("2", Some(Event::RunSucceeded)),
        ("3", None),
        ("4", Some(Event::RunSucceeded)),
        ("5", Some(Event::RunFailed)),
        ("6", Some(Event::RunFailed)),
    ] {
        ended(&*store, run, "x", end, 10 * run.parse::<u64>().unwrap()).await;
    }
    ended(&*store, "7", "y", Some(Event::RunFailed), 1).await;
    let callback = CallbackId { instance: Some(single("load")), try_number: 1, occasion: Occasion::Failure, place: 0 };
    make_run(&*store, &"8".into(), "z", vec![Event::CallbackScheduled { callback }, Event::RunFailed]).await;
    make_run(&*store, &"9".into(), "z", vec![]).await;
    let none: [&str; 0] = [];
    assert_eq!(prunable(&*store, rule()).await, none);
    let before = |micros| PruneRule { ended_before: Some(at(micros)), ..rule() };
    assert_eq!(prunable(&*store, before(1_000_000)).await, ["1", "2", "5"], "4 is the last that succeeded, 6 and 7 the newest");
    assert_eq!(prunable(&*store, before(20)).await, ["1"]);
    assert_eq!(prunable(&*store, PruneRule { runs_min: 3, ..before(1_000_000) }).await, ["1", "2"]);
    assert_eq!(prunable(&*store, PruneRule { runs_min: 7, ..before(1_000_000) }).await, none);
    assert_eq!(prunable(&*store, PruneRule { runs_max: Some(3), ..rule() }).await, ["1", "2"]);
    assert_eq!(prunable(&*store, PruneRule { never_after: at(20), ..before(1_000_000) }).await, ["1"]);
    assert_eq!(store.prunable(&before(1_000_000), 2).await.unwrap().len(), 2);
}

/// What is removed is in no list and has nothing left, also after a crash; what must stay stays.
pub async fn removed_runs_are_gone(subject: &mut dyn Subject) {
    let store = subject.store();
    for number in 0..4 {
        let scheduled = (0..10).map(|task| Event::TaskScheduled { instance: single(&format!("t{task}")) });
        let end = if number == 2 { None } else { Some(Event::RunSucceeded) };
        make_run(&*store, &RunId::new(format!("{number}")), "x", scheduled.chain(end).collect()).await;
    }
    let all: Vec<RunId> = ["0", "1", "2", "3", "nobody"].map(RunId::new).to_vec();
    assert_eq!(store.remove_runs(&all, at(1000)).await.unwrap(), [], "they ended at that time");
    let gone = store.remove_runs(&all, at(1001)).await.unwrap();
    assert_eq!(gone, all[..2], "the third goes on, the fourth is the newest of the store");
    for run in &gone {
        assert_eq!(store.run(run).await.unwrap(), None);
        assert_eq!((read_all(&*store, run).await, store.instances(run).await.unwrap()), (vec![], vec![]));
    }
    assert!(store.sweep(5).await.unwrap() <= 5);
    drop(store);
    subject.crash().await;
    let store = subject.store();
    let mut swept = 1;
    while swept > 0 {
        swept = store.sweep(5).await.unwrap();
        assert!(swept <= 5);
    }
    let left = store.runs(&RunFilter::default()).await.unwrap();
    assert_eq!(left.iter().map(|row| row.header.run_id.as_str()).collect::<Vec<_>>(), ["3", "2"]);
    assert_eq!(store.instances(&"2".into()).await.unwrap().len(), 10);
    let fenced = do_append(&*store, append(&gone[0], 12, vec![run_started()])).await.unwrap_err();
    assert!(matches!(fenced, AppendError::Conflict { actual: 0, .. }), "{fenced}");
    // The name is free again, and nothing of the old run is under it.
    make_run(&*store, &gone[0], "x", vec![]).await;
    assert_eq!((read_all(&*store, &gone[0]).await.len(), store.instances(&gone[0]).await.unwrap().len()), (1, 0));
}

/// The version used last first; one that no run is pinned to any more is the last.
pub async fn versions_are_listed_by_their_use(subject: &mut dyn Subject) {
    let store = subject.store();
    for digest in ["a", "b", "c", "other"] {
        let dag_id = if digest == "other" { "y" } else { "x" }.into();
        store.keep_version(Version { digest: digest.into(), dag_id, bundle: vec![1] }).await.unwrap();
    }
    for (run, version) in [("1", "b"), ("2", "a"), ("3", "a"), ("4", "b")] {
        let run = RunId::new(run);
        let Event::RunCreated(header) = created(&run, "x") else { unreachable!("it is what creates a run") };
        let header = RunHeader { version: version.into(), ..(*header).clone() };
        do_append(&*store, append(&run, 0, vec![Event::RunCreated(Arc::new(header))])).await.unwrap();
    }
    let used = |digest: &str, runs: Option<(&str, &str)>| VersionUse {
        digest: digest.into(),
        first_run: runs.map(|(first, _)| first.into()),
        last_run: runs.map(|(_, last)| last.into()),
    };
    let expected = [used("b", Some(("1", "4"))), used("a", Some(("2", "3"))), used("c", None)];
    assert_eq!(store.versions(&"x".into()).await.unwrap(), expected);
    assert_eq!(store.versions(&"nothing".into()).await.unwrap(), []);
}
