//! Promises about lists and projections, and about the lock of a run.

use super::script::{append, at, attempt_started, failure, mapped, random_run, run_started, single, statement};
use super::*;
use crate::{Act, Entry, ErrorKind, InstanceRow, RunFilter, RunRow, StatementRow, Version};
use backstop_core::event::{CallbackId, CancelCause, Evidence, Failure, Occasion, Promise, SegmentCommit, SkipCause};
use jiff::Timestamp;

fn ids(rows: &[RunRow]) -> Vec<&str> {
    rows.iter().map(|row| row.header.run_id.as_str()).collect()
}

async fn list(store: &dyn Store, filter: RunFilter) -> Vec<String> {
    ids(&store.runs(&filter).await.unwrap()).into_iter().map(str::to_owned).collect()
}

/// Newest first is the order of creation, not of names; the cursor goes on from a run.
pub async fn runs_are_listed_newest_first(subject: &mut dyn Subject) {
    let store = subject.store();
    assert_eq!(list(&*store, RunFilter::default()).await, Vec::<String>::new());
    for run in ["m", "z", "a"] {
        make_run(&*store, &RunId::new(run), "d", vec![]).await;
    }
    assert_eq!(list(&*store, RunFilter::default()).await, ["a", "z", "m"]);
    assert_eq!(list(&*store, RunFilter { limit: 2, ..RunFilter::default() }).await, ["a", "z"]);
    assert_eq!(list(&*store, RunFilter { before: Some("z".into()), ..RunFilter::default() }).await, ["m"]);
    assert_eq!(list(&*store, RunFilter { before: Some("m".into()), ..RunFilter::default() }).await, Vec::<String>::new());
    let error = store.runs(&RunFilter { before: Some("nobody".into()), ..RunFilter::default() }).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    for number in 0..150 {
        make_run(&*store, &RunId::new(format!("n{number}")), "d", vec![]).await;
    }
    assert_eq!(list(&*store, RunFilter::default()).await.len(), 100, "0 is 100");
}

/// By DAG, by being over, and both.
pub async fn runs_are_filtered(subject: &mut dyn Subject) {
    let store = subject.store();
    for (run, dag, end) in [("1", "x", None), ("2", "y", None), ("3", "x", Some(Event::RunSucceeded)), ("4", "x", None)] {
        make_run(&*store, &RunId::new(run), dag, end.into_iter().collect()).await;
    }
    let x = || Some("x".into());
    assert_eq!(list(&*store, RunFilter { dag: x(), ..RunFilter::default() }).await, ["4", "3", "1"]);
    assert_eq!(list(&*store, RunFilter { unfinished: true, ..RunFilter::default() }).await, ["4", "2", "1"]);
    let both = RunFilter { dag: x(), unfinished: true, before: Some("4".into()), limit: 5, ..RunFilter::default() };
    assert_eq!(list(&*store, both).await, ["1"]);
}

/// A run is of the version that it was pinned to last, over reopening and crashes; what it was created with stays in its log.
pub async fn a_run_is_of_the_version_it_was_pinned_to_last(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    let pinned = |version: &str| Event::RunPinned { version: version.into(), variables: None };
    make_run(&*store, &run, "d", vec![run_started(), Event::RunFailed]).await;
    make_run(&*store, &RunId::new("other"), "d", vec![]).await;
    for digest in ["d1", "d2"] {
        store.keep_version(Version { digest: digest.into(), dag_id: "d".into(), bundle: vec![1] }).await.unwrap();
    }
    do_append(&*store, append(&run, 3, vec![pinned("d2"), Event::RunReopened])).await.unwrap();
    drop(store);
    subject.crash().await;
    let store = subject.store();
    let version = async || store.run(&run).await.unwrap().unwrap().header.version.clone();
    assert_eq!(version().await, "d2");
    let used: Vec<_> = store.versions(&"d".into()).await.unwrap().into_iter().map(|used| (used.digest, used.last_run)).collect();
    assert_eq!(used, [("d1".into(), Some(RunId::new("other"))), ("d2".into(), Some(run.clone()))]);
    do_append(&*store, append(&run, 5, vec![run_started()])).await.unwrap();
    assert_eq!(version().await, "d2", "what says nothing of it leaves it");
    do_append(&*store, append(&run, 6, vec![pinned("d1"), Event::RunSucceeded])).await.unwrap();
    assert_eq!(version().await, "d1");
    let Event::RunCreated(header) = &read_all(&*store, &run).await[0].event else { panic!("a run begins with its creation") };
    assert_eq!(header.version, "d1");
}

/// A run that is over is finished only when its callbacks have run: a process may die in between.
pub async fn a_run_with_pending_callbacks_is_unfinished(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    let callback = |place| CallbackId { instance: Some(single("load")), try_number: 1, occasion: Occasion::Failure, place };
    let scheduled = |place| Event::CallbackScheduled { callback: callback(place) };
    let finished = |place| Event::CallbackFinished { callback: callback(place), failure: None };
    make_run(&*store, &RunId::new("done"), "d", vec![Event::RunFailed]).await;
    make_run(&*store, &run, "d", vec![run_started(), scheduled(0), scheduled(1), Event::RunFailed]).await;
    drop(store);
    subject.crash().await;
    let store = subject.store();
    let unfinished = || RunFilter { unfinished: true, ..RunFilter::default() };
    let steps = [None, Some(Event::RunResumed { epoch: 1 }), Some(finished(1)), Some(finished(0))];
    let mut version = 5;
    for (step, pending) in steps.into_iter().zip([2, 2, 1, 0]) {
        if let Some(event) = step {
            do_append(&*store, append(&run, version, vec![event])).await.unwrap();
            version += 1;
        }
        let row = store.run(&run).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.ended_at), ("failed", Some(at(1000))));
        assert_eq!((row.callbacks_pending, row.is_finished()), (pending, pending == 0));
        let listed = [unfinished(), RunFilter { dag: Some("d".into()), ..unfinished() }];
        for filter in listed {
            assert_eq!(list(&*store, filter).await, if pending == 0 { vec![] } else { vec!["r"] }, "{pending} pending");
        }
    }
    make_run(&*store, &RunId::new("s"), "d", vec![scheduled(0), Event::RunSucceeded, scheduled(1)]).await;
    assert_eq!(store.run(&"s".into()).await.unwrap().unwrap().callbacks_pending, 2, "also scheduled after the end");
}

/// By the beginning of the id, taken as it is.
pub async fn runs_are_found_by_prefix(subject: &mut dyn Subject) {
    let store = subject.store();
    for run in ["ab1", "ab2", "aB3", "a%b", "b"] {
        make_run(&*store, &RunId::new(run), "d", vec![]).await;
    }
    let find = async |prefix: &str| -> Vec<String> {
        let found = subject.store().find_runs(prefix).await.unwrap();
        found.iter().map(|run| run.as_str().to_owned()).collect()
    };
    assert_eq!(find("ab").await, ["ab2", "ab1"]);
    assert_eq!(find("a%").await, ["a%b"]);
    assert_eq!(find("ab1").await, ["ab1"]);
    assert_eq!(find("ab1x").await, Vec::<String>::new());
    assert_eq!(find("").await.len(), 5);
    for number in 0..20 {
        make_run(&*store, &RunId::new(format!("c{number}")), "d", vec![]).await;
    }
    assert_eq!(find("c").await.len(), 10);
}

/// A run that is not there has nothing.
pub async fn no_such_run(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    assert_eq!(store.run(&run).await.unwrap(), None);
    assert_eq!(read_all(&*store, &run).await, []);
    assert_eq!(store.instances(&run).await.unwrap(), []);
    assert_eq!(store.statements(&run, None).await.unwrap(), []);
}

/// A long run, told step by step, gives the rows a person expects.
pub async fn a_scripted_run_projects(subject: &mut dyn Subject) {
    let (store, run) = (subject.store(), RunId::new("r"));
    make_run(&*store, &run, "d", vec![run_started()]).await;
    for (version, event) in (2..).zip(scripted_events()) {
        do_append(&*store, append(&run, version, vec![event])).await.unwrap();
    }
    let row = |instance, state: &str, try_number, started: Option<u64>, ended: Option<u64>, error: Option<&str>| InstanceRow {
        instance,
        state: state.into(),
        try_number,
        started_at: started.map(|step| at(1000 + step)),
        ended_at: ended.map(|step| at(1000 + step)),
        error: error.map(str::to_owned),
    };
    let expected = [
        row(single("capture"), "success", 2, Some(7), Some(9), Some("it broke")),
        row(mapped("load", 0), "running", 1, Some(13), None, None),
        row(mapped("load", 1), "scheduled", 0, None, None, None),
        row(single("doubt"), "in_doubt", 1, Some(14), Some(15), Some("no answer")),
        row(single("never"), "skipped", 0, None, Some(16), None),
        row(single("cannot"), "upstream_failed", 0, None, Some(17), None),
    ];
    assert_eq!(store.instances(&run).await.unwrap(), expected);
    let ran = |try_number, segment, number| StatementRow {
        instance: single("capture"),
        try_number,
        segment,
        record: statement(number),
    };
    let expected = [ran(1, None, 1), ran(2, Some(0), 1), ran(2, Some(0), 2)];
    assert_eq!(store.statements(&run, None).await.unwrap(), expected);
    assert_eq!(store.statements(&run, Some("capture")).await.unwrap(), expected);
    assert_eq!(store.statements(&run, Some("load")).await.unwrap(), []);
    assert_projections(&*store, &run, &read_all(&*store, &run).await, "scripted").await;
}

/// The event that is appended at version `n` has the time `at(1000 + n)`; the first here is at version 2.
fn scripted_events() -> Vec<Event> {
    let capture = || single("capture");
    let broke = Failure { statements: vec![statement(1)], ..failure("it broke") };
    let commit = SegmentCommit {
        segment: 0,
        digest: "d".into(),
        promise: Promise::ExactlyOnce,
        evidence: Evidence::Acknowledged,
        statements: vec![statement(1), statement(2)],
        result: None,
    };
    let started = |instance, try_number, step: u64| attempt_started(instance, try_number, at(1000 + step));
    vec![
        Event::TaskScheduled { instance: capture() },
        started(capture(), 1, 3),
        Event::AttemptFailed { instance: capture(), try_number: 1, failure: Arc::new(broke), is_final: false },
        Event::RetryScheduled { instance: capture(), at: at(5) },
        Event::TimerFired { instance: capture() },
        started(capture(), 2, 7),
        Event::SegmentCommitted { instance: capture(), try_number: 2, commit: Arc::new(commit) },
        Event::AttemptSucceeded { instance: capture(), try_number: 2, result: None, follow: None },
        Event::TaskScheduled { instance: single("load") },
        started(single("load"), 1, 11),
        Event::TaskExpanded { task: "load".into(), items: vec!["1".into(), "2".into()] },
        started(mapped("load", 0), 1, 13),
        started(single("doubt"), 1, 14),
        Event::AttemptUnknown { instance: single("doubt"), try_number: 1, failure: Arc::new(failure("no answer")) },
        Event::TaskSkipped { instance: single("never"), cause: SkipCause::TriggerRule },
        Event::TaskUpstreamFailed { instance: single("cannot") },
    ]
}

/// What lists say of a run as it goes on.
pub async fn states_of_runs(subject: &mut dyn Subject) {
    let store = subject.store();
    let resolved = || Event::UnknownResolved { instance: single("a"), try_number: 1, evidence: Evidence::Marker };
    let cancel = || Event::CancelRequested { reason: "x".into(), cause: CancelCause::Asked };
    let stuck = || Event::RunStuck { instances: vec![single("a")] };
    let cases = [
        (vec![], "queued", false),
        (vec![Event::RunResumed { epoch: 2 }], "queued", false),
        (vec![run_started()], "running", false),
        (vec![run_started(), stuck()], "stuck", false),
        (vec![run_started(), stuck(), resolved()], "running", false),
        (vec![run_started(), stuck(), Event::RunResumed { epoch: 2 }], "running", false),
        (vec![run_started(), cancel()], "cancelling", false),
        (vec![run_started(), cancel(), stuck(), resolved()], "cancelling", false),
        (vec![run_started(), Event::RunFailed, Event::RunResumed { epoch: 2 }], "failed", true),
        (vec![run_started(), Event::RunSucceeded], "success", true),
        (vec![run_started(), Event::RunFailed], "failed", true),
        (vec![Event::RunCancelled], "cancelled", true),
    ];
    for (number, (events, state, is_over)) in cases.into_iter().enumerate() {
        let run = RunId::new(format!("r{number}"));
        let was_started = events.contains(&run_started());
        make_run(&*store, &run, "d", events).await;
        let row = store.run(&run).await.unwrap().unwrap();
        assert_eq!((row.state.as_str(), row.ended_at.is_some()), (state, is_over), "case {number}");
        assert_eq!(row.started_at.is_some(), was_started, "case {number}");
    }
}

/// In whatever groups the events were appended, the projections are the fold of the log.
pub async fn folding_the_log_gives_the_projections(subject: &mut dyn Subject) {
    let store = subject.store();
    for (seed, group) in [(1, 1), (2, 3), (3, 50), (4, 1000)] {
        let events = random_run(seed, 400);
        let Event::RunCreated(header) = &events[0] else { panic!("a run begins with RunCreated") };
        let mut version = 0;
        for chunk in events.chunks(group) {
            do_append(&*store, append(&header.run_id, version, chunk.to_vec())).await.unwrap();
            version += chunk.len() as u64;
        }
        let log = read_all(&*store, &header.run_id).await;
        assert_eq!(events_of(&log), events, "seed {seed}");
        assert_projections(&*store, &header.run_id, &log, &format!("seed {seed}, groups of {group}")).await;
    }
}

/// A run is held by one at a time, each run by itself, and free again once the lock is dropped.
pub async fn run_locks(subject: &mut dyn Subject) {
    let (store, run, other) = (subject.store(), RunId::new("r"), RunId::new("../other run"));
    assert!(!store.is_run_held(&run).unwrap());
    let lock = store.lock_run(&run).unwrap();
    assert_eq!(lock.run(), &run);
    assert_eq!([&run, &other].map(|run| store.is_run_held(run).unwrap()), [true, false]);
    let error = store.lock_run(&run).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Busy);
    assert!(error.message.starts_with("run r is being run by "), "{error}");
    let other_lock = store.lock_run(&other).unwrap();
    drop(lock);
    let again = store.lock_run(&run).unwrap();
    drop((again, other_lock));
    assert_eq!([&run, &other].map(|run| store.is_run_held(run).unwrap()), [false, false]);
}

/// Small things beside runs.
pub async fn entries_are_kept_replaced_and_removed(subject: &mut dyn Subject) {
    let entry = |kind: &str, key: &str, body: Option<&str>| Entry {
        kind: kind.to_owned(),
        key: key.to_owned(),
        body: body.map(str::to_owned),
    };
    let pair = |key: &str, body: &str| (key.to_owned(), body.to_owned());
    let store = subject.store();
    assert_eq!(store.entries("dag").await.unwrap(), []);
    store
        .put(vec![entry("dag", "b", Some("1")), entry("dag", "a", Some("2")), entry("pool", "b", Some("3"))], None)
        .await
        .unwrap();
    assert_eq!(store.entries("dag").await.unwrap(), [pair("a", "2"), pair("b", "1")]);
    // In the order given: the last word about a key stands.
    store
        .put(vec![entry("dag", "b", None), entry("dag", "c", None), entry("dag", "a", None), entry("dag", "a", Some("4"))], None)
        .await
        .unwrap();
    drop(store);
    subject.crash().await;
    let store = subject.store();
    assert_eq!(store.entries("dag").await.unwrap(), [pair("a", "4")]);
    assert_eq!(store.entries("pool").await.unwrap(), [pair("b", "3")]);
}

/// Who did what.
pub async fn acts_are_listed_newest_first(subject: &mut dyn Subject) {
    let store = subject.store();
    let act = |what: &str| Act { at: Timestamp::UNIX_EPOCH, who: "ann".into(), why: "because".into(), what: what.into() };
    for what in ["one", "two", "three"] {
        store.put(Vec::new(), Some(act(what))).await.unwrap();
    }
    drop(store);
    subject.crash().await;
    let store = subject.store();
    let page = store.acts(None, 2).await.unwrap();
    assert_eq!(page.iter().map(|row| row.act.clone()).collect::<Vec<_>>(), [act("three"), act("two")]);
    let rest = store.acts(Some(page[1].seq), 1000).await.unwrap();
    assert_eq!(rest.iter().map(|row| row.act.clone()).collect::<Vec<_>>(), [act("one")]);
    assert_eq!(store.acts(Some(rest[0].seq), 10).await.unwrap(), []);
}
