//! Promises about lists over many runs.

use super::script::{append, at, attempt_started, created, failure, mapped, run_started, single, statement};
use super::*;
use crate::{
    ErrorKind, GridTask, InstanceCursor, InstanceFilter, InstancePage, LOOKED_AT_MAX, RunFilter, StatementFilter, StatementPage,
    StatementRow,
};
use backstop_core::event::{Evidence, Promise, RunHeader, SegmentCommit};
use backstop_core::state::RunPhase;
use backstop_core::{InstanceId, TaskId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Makes a run about a date.
async fn make_dated(store: &dyn Store, run: &str, dag: &str, date: Option<Timestamp>, events: Vec<Event>) {
    let run = RunId::new(run);
    let Event::RunCreated(header) = created(&run, dag) else { unreachable!("it is what creates a run") };
    let header = RunHeader { logical_date: date, ..(*header).clone() };
    let all = [vec![Event::RunCreated(Arc::new(header))], events].concat();
    do_append(store, append(&run, 0, all)).await.unwrap();
}

async fn list(store: &dyn Store, filter: RunFilter) -> Vec<String> {
    store.runs(&filter).await.unwrap().iter().map(|row| row.header.run_id.to_string()).collect()
}

fn date(day: i64) -> Timestamp {
    Timestamp::from_second(1_750_000_000 + day * 86_400).unwrap()
}

/// By phase, by date to the microsecond, and by both, of one DAG or all.
pub async fn runs_are_listed_by_phase_and_date(subject: &mut dyn Subject) {
    let store = subject.store();
    let runs = [
        ("1", "x", Some(3), Some(Event::RunFailed)),
        ("2", "y", Some(1), Some(Event::RunFailed)),
        ("3", "x", None, Some(Event::RunFailed)),
        ("4", "x", Some(2), None),
        ("5", "x", Some(2), Some(Event::RunSucceeded)),
    ];
    for (run, dag, day, end) in runs {
        make_dated(&*store, run, dag, day.map(date), end.into_iter().collect()).await;
    }
    let all = RunFilter::default;
    let failed = Some(RunPhase::Failed);
    assert_eq!(list(&*store, RunFilter { phase: failed, ..all() }).await, ["3", "2", "1"]);
    assert_eq!(list(&*store, RunFilter { phase: failed, dag: Some("x".into()), ..all() }).await, ["3", "1"]);
    assert_eq!(list(&*store, RunFilter { phase: Some(RunPhase::Queued), ..all() }).await, ["4"]);
    let dates = |from: Option<i64>, until: Option<i64>| RunFilter {
        dates_from: from.map(date),
        dates_until: until.map(date),
        ..RunFilter::default()
    };
    assert_eq!(list(&*store, dates(Some(2), None)).await, ["1", "5", "4"], "the latest date first, without those that have none");
    assert_eq!(list(&*store, dates(None, Some(2))).await, ["5", "4", "2"]);
    assert_eq!(list(&*store, dates(Some(2), Some(2))).await, ["5", "4"]);
    assert_eq!(list(&*store, RunFilter { phase: failed, ..dates(Some(1), Some(3)) }).await, ["1", "2"]);
    assert_eq!(list(&*store, RunFilter { dag: Some("x".into()), phase: failed, ..dates(Some(1), None) }).await, ["1"]);
    assert_eq!(list(&*store, RunFilter { unfinished: true, ..dates(Some(1), None) }).await, ["4"]);
    let microsecond = |date: Timestamp, by: i64| Timestamp::from_microsecond(date.as_microsecond() + by).unwrap();
    let near = RunFilter { dates_from: Some(microsecond(date(3), 1)), ..all() };
    assert_eq!(list(&*store, near).await, Vec::<String>::new());
}

/// Pages by date go on where the one before ended, also among runs of one date, and keep to the filter.
pub async fn pages_of_runs_by_date_meet(subject: &mut dyn Subject) {
    let store = subject.store();
    for number in 0..30_i64 {
        make_dated(&*store, &format!("{number:02}"), "x", Some(date(number % 3)), vec![]).await;
    }
    make_dated(&*store, "undated", "x", None, vec![]).await;
    for dag in [None, Some("x".into())] {
        let all = RunFilter { dag, dates_from: Some(date(0)), dates_until: Some(date(1)), limit: 100, ..RunFilter::default() };
        let whole = list(&*store, all.clone()).await;
        assert_eq!(whole.len(), 20);
        let mut paged: Vec<String> = Vec::new();
        loop {
            let before = paged.last().map(|run| RunId::new(run.as_str()));
            let page = list(&*store, RunFilter { before, limit: 7, ..all.clone() }).await;
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        assert_eq!(paged, whole);
        let wrong = RunFilter { before: Some("undated".into()), ..all.clone() };
        assert_eq!(store.runs(&wrong).await.unwrap_err().kind, ErrorKind::NotFound, "a cursor of another list");
        // A cursor beyond the dates does not widen them.
        let beyond = RunFilter { before: Some("29".into()), ..all };
        assert_eq!(list(&*store, beyond).await, whole);
    }
}

/// A run whose tasks ended so.
fn ended(tasks: &[(InstanceId, &str)]) -> Vec<Event> {
    let mut events = vec![run_started()];
    for (place, (instance, how)) in (0..).zip(tasks) {
        events.push(Event::TaskScheduled { instance: instance.clone() });
        if *how != "scheduled" {
            events.push(attempt_started(instance.clone(), 1, at(10 + place)));
        }
        match *how {
            "success" => {
                events.push(Event::AttemptSucceeded { instance: instance.clone(), try_number: 1, result: None, follow: None });
            }
            "failed" => events.push(Event::AttemptFailed {
                instance: instance.clone(),
                try_number: 1,
                failure: failure("no").into(),
                is_final: true,
            }),
            _ => {}
        }
    }
    events
}

async fn pages(store: &dyn Store, filter: &InstanceFilter) -> Vec<String> {
    let mut told = Vec::new();
    let mut after = None;
    loop {
        let InstancePage { rows, next } = store.list_instances(&InstanceFilter { after, ..filter.clone() }).await.unwrap();
        assert!(rows.len() <= filter.limit as usize);
        told.extend(rows.iter().map(|(run, dag, row)| format!("{run} {dag} {} {}", row.instance, row.state)));
        match next {
            Some(next) => after = Some(next),
            None => return told,
        }
    }
}

/// By state, DAG and task, in pages of any size.
pub async fn instances_are_listed_over_runs(subject: &mut dyn Subject) {
    let store = subject.store();
    let good = ended(&[(single("b"), "success"), (single("a"), "success")]);
    let bad =
        ended(&[(single("a"), "success"), (mapped("b", 1), "failed"), (mapped("b", 0), "failed"), (single("c"), "scheduled")]);
    make_dated(&*store, "1", "x", None, good.clone()).await;
    make_dated(&*store, "2", "y", None, bad.clone()).await;
    make_dated(&*store, "3", "x", None, bad).await;
    make_dated(&*store, "4", "x", None, good).await;
    for limit in [1, 2, 3, 100] {
        let of = |dag: Option<&str>, task: Option<&str>, state: Option<&str>| InstanceFilter {
            run: None,
            dag: dag.map(Into::into),
            task: task.map(Into::into),
            state: state.map(str::to_owned),
            after: None,
            limit,
        };
        let all = pages(&*store, &of(None, None, None)).await;
        assert_eq!(all.len(), 12, "{all:?}");
        assert_eq!(all[..4], ["4 x a success", "4 x b success", "3 x a success", "3 x b[0] failed"]);
        let failed = ["3 x b[0] failed", "3 x b[1] failed", "2 y b[0] failed", "2 y b[1] failed"];
        assert_eq!(pages(&*store, &of(None, None, Some("failed"))).await, failed);
        assert_eq!(pages(&*store, &of(Some("y"), None, Some("failed"))).await, failed[2..]);
        assert_eq!(pages(&*store, &of(None, Some("c"), Some("scheduled"))).await, ["3 x c scheduled", "2 y c scheduled"]);
        assert_eq!(pages(&*store, &of(Some("x"), Some("a"), None)).await, ["4 x a success", "3 x a success", "1 x a success"]);
        assert_eq!(pages(&*store, &of(None, Some("b"), Some("success"))).await, ["4 x b success", "1 x b success"]);
        assert_eq!(pages(&*store, &of(Some("z"), None, None)).await, Vec::<String>::new());
    }
    let after = Some(InstanceCursor { run: "nobody".into(), instance: single("a") });
    let error = store.list_instances(&InstanceFilter { after, ..InstanceFilter::default() }).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
}

/// Of one run, whatever other runs there are.
pub async fn instances_of_a_run_are_listed(subject: &mut dyn Subject) {
    let store = subject.store();
    let tasks = [(single("a"), "success"), (mapped("b", 1), "failed"), (mapped("b", 0), "success"), (single("c"), "success")];
    for run in ["1", "2", "3"] {
        make_dated(&*store, run, "x", None, ended(&tasks)).await;
    }
    for limit in [1, 2, 3, 100] {
        let all = InstanceFilter { run: Some("2".into()), limit, ..InstanceFilter::default() };
        assert_eq!(pages(&*store, &all).await, ["2 x a success", "2 x b[0] success", "2 x b[1] failed", "2 x c success"]);
        let failed = InstanceFilter { state: Some("failed".into()), ..all.clone() };
        assert_eq!(pages(&*store, &failed).await, ["2 x b[1] failed"]);
        assert_eq!(pages(&*store, &InstanceFilter { dag: Some("y".into()), ..all.clone() }).await, Vec::<String>::new());
        let task = InstanceFilter { task: Some("b".into()), ..all };
        assert_eq!(pages(&*store, &task).await, ["2 x b[0] success", "2 x b[1] failed"]);
    }
    // A run that is not there, and a cursor of another run.
    let after = Some(InstanceCursor { run: "1".into(), instance: single("a") });
    for (run, after) in [("nobody", None), ("2", after)] {
        let filter = InstanceFilter { run: Some(run.into()), after, limit: 1, ..InstanceFilter::default() };
        assert_eq!(store.list_instances(&filter).await.unwrap_err().kind, ErrorKind::NotFound, "{run}");
    }
}

/// In pages of any size, of a run or of one of its tasks; a page that finds little ends, too.
pub async fn statements_are_listed(subject: &mut dyn Subject) {
    let store = subject.store();
    let commit = |task: &str, segment, count: usize| Event::SegmentCommitted {
        instance: single(task),
        try_number: 1,
        commit: Arc::new(SegmentCommit {
            segment,
            digest: "ab12".into(),
            promise: Promise::ExactlyOnce,
            evidence: Evidence::Acknowledged,
            statements: (1..).take(count).map(statement).collect(),
            result: None,
        }),
    };
    let started = |task: &str| vec![Event::TaskScheduled { instance: single(task) }, attempt_started(single(task), 1, at(10))];
    let events = [vec![run_started()], started("a"), started("b"), vec![commit("a", 0, 3), commit("b", 0, 2), commit("a", 1, 1)]];
    for run in ["1", "2"] {
        make_dated(&*store, run, "x", None, events.concat()).await;
    }
    for limit in [1, 2, 3, 4, 100] {
        for task in [None, Some("a"), Some("b"), Some("c")] {
            let filter = StatementFilter { run: "2".into(), task: task.map(Into::into), after: None, limit };
            let expected = store.statements(&filter.run, task).await.unwrap();
            assert_eq!(
                expected.len(),
                match task {
                    None => 6,
                    Some("a") => 4,
                    Some("b") => 2,
                    Some(_) => 0,
                }
            );
            assert_eq!(statement_pages(&*store, filter).await, expected, "{limit} of {task:?}");
        }
    }
    let of_nobody = StatementFilter { run: "nobody".into(), task: None, after: None, limit: 5 };
    assert_eq!(store.list_statements(&of_nobody).await.unwrap(), StatementPage::default());

    let many = (0..LOOKED_AT_MAX / 50 + 1).map(|segment| commit("a", u32::try_from(segment).unwrap(), 50)).collect();
    make_dated(
        &*store,
        "3",
        "x",
        None,
        [vec![run_started()], started("a"), started("b"), many, vec![commit("b", 0, 1)]].concat(),
    )
    .await;
    let seldom = StatementFilter { run: "3".into(), task: Some("b".into()), after: None, limit: 5 };
    let first = store.list_statements(&seldom).await.unwrap();
    assert!(first.rows.is_empty() && first.next.is_some(), "the page ends before the list does");
    assert_eq!(statement_pages(&*store, seldom).await.len(), 1);
}

async fn statement_pages(store: &dyn Store, mut filter: StatementFilter) -> Vec<StatementRow> {
    let mut told = Vec::new();
    loop {
        let StatementPage { rows, next } = store.list_statements(&filter).await.unwrap();
        assert!(rows.len() <= filter.limit as usize);
        told.extend(rows);
        match next {
            Some(_) => filter.after = next,
            None => return told,
        }
    }
}

/// What is sought among many and is not there: each page is bounded, and together they end.
pub async fn a_list_of_instances_ends_though_nothing_is_found(subject: &mut dyn Subject) {
    let store = subject.store();
    let tasks = LOOKED_AT_MAX * 2 / 3;
    for run in ["1", "2", "3"] {
        let scheduled: Vec<Event> =
            (0..tasks).map(|number| Event::TaskScheduled { instance: single(&format!("t{number:06}")) }).collect();
        make_dated(&*store, run, "x", None, scheduled).await;
    }
    let filter = InstanceFilter { state: Some("success".into()), limit: 10, ..InstanceFilter::default() };
    let first = store.list_instances(&filter).await.unwrap();
    assert!(first.rows.is_empty() && first.next.is_some(), "the page ends before the list does");
    assert_eq!(pages(&*store, &filter).await, Vec::<String>::new());
    let all = InstanceFilter { state: Some("scheduled".into()), limit: 1000, ..InstanceFilter::default() };
    assert_eq!(pages(&*store, &all).await.len(), 3 * tasks);
}

/// One cell a task, with what its instances came to.
pub async fn a_grid_folds_instances_by_task(subject: &mut dyn Subject) {
    let store = subject.store();
    make_dated(&*store, "1", "x", None, vec![]).await;
    let tasks = [(single("a"), "success"), (mapped("b", 0), "failed"), (mapped("b", 1), "success"), (mapped("b", 2), "running")];
    make_dated(&*store, "2", "x", None, ended(&tasks)).await;
    make_dated(&*store, "3", "y", None, vec![]).await;
    let rows = store.grid(&RunFilter { dag: Some("x".into()), ..RunFilter::default() }).await.unwrap();
    let runs: Vec<&str> = rows.iter().map(|row| row.run.header.run_id.as_str()).collect();
    assert_eq!(runs, ["2", "1"]);
    assert_eq!((&rows[1].tasks, rows[1].is_cut), (&vec![], false));
    let states = |states: &[(&str, u32)]| -> BTreeMap<String, u32> {
        states.iter().map(|(state, count)| ((*state).to_owned(), *count)).collect()
    };
    let cell = |task: &str, of: &[(&str, u32)], is_mapped, start, ended_at| GridTask {
        task: TaskId::new(task),
        states: states(of),
        is_mapped,
        try_number: 1,
        started_at: Some(at(start)),
        ended_at,
    };
    let expected = [
        cell("a", &[("success", 1)], false, 10, Some(at(1000))),
        cell("b", &[("failed", 1), ("success", 1), ("running", 1)], true, 11, None),
    ];
    assert_eq!(rows[0].tasks, expected);
    let next = RunFilter { dag: Some("x".into()), before: Some("2".into()), ..RunFilter::default() };
    assert_eq!(store.grid(&next).await.unwrap().len(), 1);
}

/// A page of a grid is bounded in instances; a run that is too large alone is cut, and says so.
pub async fn a_large_run_does_not_crowd_a_grid(subject: &mut dyn Subject) {
    let store = subject.store();
    let of = |tasks: usize| -> Vec<Event> {
        (0..tasks).map(|number| Event::TaskScheduled { instance: single(&format!("t{number:06}")) }).collect()
    };
    for (run, tasks) in [("1", 10), ("2", crate::GRID_INSTANCES_MAX + 1), ("3", 10), ("4", 10)] {
        make_dated(&*store, run, "x", None, of(tasks)).await;
    }
    let page = async |before: Option<&str>| -> Vec<(String, usize, bool)> {
        let filter = RunFilter { before: before.map(RunId::new), ..RunFilter::default() };
        let rows = subject.store().grid(&filter).await.unwrap();
        rows.iter().map(|row| (row.run.header.run_id.to_string(), row.tasks.len(), row.is_cut)).collect()
    };
    assert_eq!(page(None).await, [("4".into(), 10, false), ("3".into(), 10, false)]);
    assert_eq!(page(Some("3")).await, [("2".into(), crate::GRID_INSTANCES_MAX, true)]);
    assert_eq!(page(Some("2")).await, [("1".into(), 10, false)]);
}

/// Newest first, only what succeeded, as many runs as asked for.
pub async fn durations_are_of_what_went_well(subject: &mut dyn Subject) {
    let store = subject.store();
    let took = |micros: u64, how: &str| {
        let mut events = ended(&[(single("a"), how)]);
        events[2] = attempt_started(single("a"), 1, at(1000 - micros));
        events
    };
    for (run, micros, how) in
        [("1", 1, "success"), ("2", 2, "failed"), ("3", 3, "success"), ("4", 4, "success"), ("5", 5, "running")]
    {
        make_dated(&*store, run, "x", None, took(micros, how)).await;
    }
    make_dated(&*store, "6", "y", None, took(6, "success")).await;
    let of = async |limit| subject.store().durations(&"x".into(), &"a".into(), limit).await.unwrap();
    let micros = |all: &[u64]| all.iter().map(|micros| Duration::from_micros(*micros)).collect::<Vec<_>>();
    assert_eq!(of(10).await, micros(&[4, 3, 1]));
    assert_eq!(of(2).await, micros(&[4, 3]));
    assert_eq!(subject.store().durations(&"x".into(), &"nothing".into(), 10).await.unwrap(), micros(&[]));
}

/// A task that looks again and again began with its first look, whether its events come in one append or each by itself; another try begins anew.
pub async fn the_looks_of_a_try_are_one_wait(subject: &mut dyn Subject) {
    let store = subject.store();
    let wait = || single("wait");
    let deferred = || Event::AttemptDeferred { instance: wait(), try_number: 1, until: at(0) };
    let failed =
        Event::AttemptFailed { instance: wait(), try_number: 1, failure: Arc::new(failure("it failed")), is_final: false };
    let scheduled = || Event::TaskScheduled { instance: wait() };
    let succeeded = |try_number| Event::AttemptSucceeded { instance: wait(), try_number, result: None, follow: None };
    let looks = [
        scheduled(),
        attempt_started(wait(), 1, at(10)),
        deferred(),
        Event::TimerFired { instance: wait() },
        attempt_started(wait(), 1, at(20)),
        deferred(),
        Event::TimerFired { instance: wait() },
        attempt_started(wait(), 1, at(30)),
    ];
    let well: Vec<Event> = looks.iter().cloned().chain([succeeded(1)]).collect();
    let again: Vec<Event> =
        looks.iter().cloned().chain([failed, scheduled(), attempt_started(wait(), 2, at(40)), succeeded(2)]).collect();
    for (name, events, began) in [("well", well, 10), ("again", again, 40)] {
        let (whole, split) = (RunId::new(name), RunId::new(format!("{name}-split")));
        make_run(&*store, &whole, "d", events.clone()).await;
        make_run(&*store, &split, "d", Vec::new()).await;
        for (version, event) in (1..).zip(events) {
            do_append(&*store, append(&split, version, vec![event])).await.unwrap();
        }
        for run in [whole, split] {
            assert_eq!(store.instances(&run).await.unwrap()[0].started_at, Some(at(began)), "{run}");
        }
    }
}
