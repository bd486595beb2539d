//! Promises about samples of running statements, and about what statements took before.

use super::script::{append, at, attempt_started, failure, run_started, single, statement};
use super::*;
use crate::{PastStatement, Sample, SampleRow};
use backstop_core::event::{Evidence, Promise, SegmentCommit, StatementRecord};

fn sample(run: &str, task: &str, try_number: u32, place: u32, elapsed_ms: u64) -> SampleRow {
    SampleRow {
        run: run.into(),
        instance: single(task),
        try_number,
        place,
        at: at(elapsed_ms),
        server: "postgresql://db:5432".into(),
        session: "4711".into(),
        sample: Sample { v: 1, statement: 1, elapsed_ms, ..Sample::default() },
    }
}

/// A place that is taken is replaced; runs that are not there have none; only what runs is found by its session.
pub async fn samples_are_kept_and_replaced(subject: &mut dyn Subject) {
    let store = subject.store();
    let run = RunId::new("r");
    let begun = vec![run_started(), attempt_started(single("a"), 1, at(1)), attempt_started(single("b"), 2, at(1))];
    make_run(&*store, &run, "d", begun).await;
    let rows =
        vec![sample("r", "a", 1, 0, 10), sample("r", "a", 1, 1, 20), sample("r", "b", 1, 0, 5), sample("none", "a", 1, 0, 1)];
    store.keep_samples(rows).await.unwrap();
    store.keep_samples(vec![sample("r", "a", 1, 1, 30)]).await.unwrap();
    let kept = store.samples(&run, &single("a")).await.unwrap();
    assert_eq!(kept, [sample("r", "a", 1, 0, 10), sample("r", "a", 1, 1, 30)]);
    assert_eq!(store.samples(&RunId::new("none"), &single("a")).await.unwrap(), []);
    assert_eq!(store.last_samples(&run).await.unwrap(), [sample("r", "a", 1, 1, 30)], "what `b` has is of an earlier try");
    let user = async |session: &str| store.user_of_session("postgresql://db:5432", session).await.unwrap();
    assert_eq!(user("4711").await, Some((run.clone(), single("a"))));
    assert_eq!(user("4712").await, None);
    let ended = Event::AttemptSucceeded { instance: single("a"), try_number: 1, result: None, follow: None };
    do_append(&*store, append(&run, 4, vec![ended])).await.unwrap();
    assert_eq!(user("4711").await, None, "it does not run any more");
    assert_eq!(store.last_samples(&run).await.unwrap(), []);
    assert_eq!(store.samples(&run, &single("a")).await.unwrap().len(), 2, "what was seen stays");
}

/// Of runs that are over, the newest first, and only what committed.
pub async fn past_statements_are_of_runs_that_are_over(subject: &mut dyn Subject) {
    let store = subject.store();
    let commit = |rows| SegmentCommit {
        segment: 0,
        digest: "d".into(),
        promise: Promise::ExactlyOnce,
        evidence: Evidence::Acknowledged,
        statements: vec![StatementRecord { rows_affected: Some(rows), ..statement(1) }],
        result: None,
    };
    let events = |rows| {
        let commit = Arc::new(commit(rows));
        vec![
            run_started(),
            attempt_started(single("a"), 1, at(1)),
            Event::SegmentCommitted { instance: single("a"), try_number: 1, commit },
        ]
    };
    for (run, dag, rows, is_over) in [("1", "d", 1, true), ("2", "other", 2, true), ("3", "d", 3, false), ("4", "d", 4, true)] {
        let mut events = events(rows);
        events.extend(is_over.then_some(Event::RunSucceeded));
        make_run(&*store, &RunId::new(run), dag, events).await;
    }
    let past = |rows| PastStatement { task: "a".into(), number: 1, duration_us: 1500, rows };
    let dag = "d".into();
    assert_eq!(store.past_statements(&dag, 30, 100).await.unwrap(), [past(4), past(1)]);
    assert_eq!(store.past_statements(&dag, 1, 100).await.unwrap(), [past(4)]);
    assert_eq!(store.past_statements(&dag, 30, 1).await.unwrap(), [past(4)]);
    assert_eq!(store.past_statements(&"nobody".into(), 30, 100).await.unwrap(), []);
}

/// What was done in a transaction is committed by its commit, and not before: a try that was rolled back took no effect.
pub async fn statements_of_a_transaction_are_committed_with_it(subject: &mut dyn Subject) {
    let store = subject.store();
    let run = RunId::new("1");
    let held = |task: &str, try_number, rows| Event::AttemptHeld {
        instance: single(task),
        try_number,
        statements: Arc::from([StatementRecord { rows_affected: Some(rows), ..statement(1) }]),
        result: None,
    };
    let rolled_back = |is_final| Event::GroupRolledBack {
        group: "g".into(),
        members: vec![single("a"), single("b")],
        failure: Arc::new(failure("its session is gone")),
        is_final,
    };
    let succeeded =
        |task: &str, try_number| Event::AttemptSucceeded { instance: single(task), try_number, result: None, follow: None };
    let first = vec![run_started(), attempt_started(single("a"), 1, at(1)), held("a", 1, 1), held("b", 1, 2)];
    make_run(&*store, &run, "d", first).await;
    let segments = async || {
        let rows = store.statements(&run, None).await.unwrap();
        rows.iter().map(|row| (row.record.rows_affected.unwrap(), row.segment)).collect::<Vec<_>>()
    };
    assert_eq!(segments().await, [(1, None), (2, None)], "its transaction is open");
    let mut version = 5;
    for events in [vec![rolled_back(false), held("a", 2, 3), held("b", 3, 4)], vec![succeeded("b", 3), succeeded("a", 2)]] {
        let count = events.len() as u64;
        do_append(&*store, append(&run, version, events)).await.unwrap();
        version += count;
    }
    assert_eq!(segments().await, [(1, None), (2, None), (3, Some(0)), (4, Some(0))]);
    let last = vec![held("a", 4, 5), rolled_back(true), Event::RunSucceeded];
    do_append(&*store, append(&run, version, last)).await.unwrap();
    assert_eq!(segments().await, [(1, None), (2, None), (3, Some(0)), (4, Some(0)), (5, None)]);
    let past = store.past_statements(&"d".into(), 30, 100).await.unwrap();
    assert_eq!(past.iter().map(|past| past.rows).collect::<Vec<_>>(), [3, 4]);
}
