use super::*;
use backstop_core::Event;
use backstop_core::event::{RunHeader, RunType};
use backstop_store::{Append, MemoryStore};
use std::sync::Arc;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A run that was queued and ended then.
async fn ran(store: &dyn Store, run: &str, queued_at: &str, ended_at: Option<&str>) {
    let header = RunHeader {
        run_id: RunId::new(run),
        dag_id: DagId::new("d"),
        project: None,
        version: String::new(),
        logical_date: None,
        data_interval: None,
        queued_at: at(queued_at),
        run_type: RunType::Manual,
        params: "{}".into(),
        only_tasks: Vec::new(),
        dry_run: false,
        cause: None,
    };
    let begun = vec![Event::RunCreated(Arc::new(header)), Event::RunStarted { at: at(queued_at) }];
    let append = |events, expected_version, at| Append { run: RunId::new(run), events, expected_version, epoch: 1, at };
    store.append(append(begun, 0, at(queued_at))).await.await.unwrap().unwrap();
    if let Some(ended_at) = ended_at {
        store.append(append(vec![Event::RunSucceeded], 2, at(ended_at))).await.await.unwrap().unwrap();
    }
}

fn nowhere() -> Connect {
    Arc::new(|_| panic!("there is no place to connect to"))
}

#[tokio::test]
async fn runs_go_with_their_logs_but_for_those_that_somebody_has() {
    let store = MemoryStore::new();
    let logs = tempfile::tempdir().unwrap();
    for day in 1..=4 {
        let run = format!("run-000{day}");
        ran(&store, &run, &format!("2026-05-0{day}T00:00:00Z"), Some(&format!("2026-05-0{day}T01:00:00Z"))).await;
        std::fs::create_dir(logs.path().join(&run)).unwrap();
        std::fs::write(logs.path().join(&run).join("run.log"), "said").unwrap();
    }
    let connect = nowhere();
    let keep = Keep { runs_for: Some(Duration::from_secs(86_400)), runs: None };
    let rule = keep.rule(at("2026-06-01T00:00:00Z"), Duration::ZERO);
    let pruner = Pruner { store: &store, rule, connect: &connect, places: &[], logs: Some(logs.path()) };
    let mut pruned = Pruned::default();
    let held = store.lock_run(&RunId::new("run-0002")).unwrap();
    while pruner.batch(&mut pruned).await.unwrap() {}
    assert_eq!((pruned.count(), pruned.held.len()), (2, 1));
    drop(held);
    assert_eq!(pruned.to_string(), "removed 2 runs (2 of `d`) and 0 markers");
    let mut left: Vec<_> = std::fs::read_dir(logs.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["run-0002", "run-0004"], "the newest stays");
    assert!(pruner.batch(&mut Pruned::default()).await.unwrap(), "it is free now");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_keeps_no_run() {
    let store = MemoryStore::new();
    ran(&store, "run-0001", "2026-05-01T00:00:00Z", Some("2026-05-01T01:00:00Z")).await;
    ran(&store, "run-0002", "2026-05-02T00:00:00Z", Some("2026-05-02T01:00:00Z")).await;
    let connect: Connect = Arc::new(backstop_connect::connector);
    let base_dir = std::env::temp_dir();
    let config = backstop_connect::Config {
        id: "db".into(),
        conn_type: "postgres".into(),
        host: Some("127.0.0.1".into()),
        // Nobody listens at the port of the multiplexer.
        port: Some(1),
        login: Some("nobody".into()),
        password: None,
        database: Some("none".into()),
        extra: Default::default(),
        base_dir,
    };
    let places = [MarkerPlace { name: "db".into(), config, table: backstop_connect::MarkerTable::default() }];
    let rule = Keep { runs_for: None, runs: Some(1) }.rule(at("2026-06-01T00:00:00Z"), Duration::ZERO);
    let mut pruned = Pruned::default();
    let pruner = Pruner { store: &store, rule, connect: &connect, places: &places, logs: None };
    assert!(pruner.batch(&mut pruned).await.unwrap());
    assert_eq!((pruned.count(), pruned.markers), (1, 0));
    assert!(pruned.to_string().contains("markers in `db` stay: "), "{pruned}");
}

#[tokio::test]
async fn the_logs_of_hours_stay_as_long_as_a_run_needs_them() {
    let store = MemoryStore::new();
    let logs = tempfile::tempdir().unwrap();
    let folder = crate::logs::hours_folder(logs.path());
    std::fs::create_dir(&folder).unwrap();
    for hour in ["2026-05-01T00", "2026-05-01T05", "2026-05-01T09", "2026-05-03T00", "2026-05-09T23"] {
        std::fs::write(folder.join(format!("{hour}.log")), "said").unwrap();
    }
    ran(&store, "run-0001", "2026-05-01T04:59:00Z", Some("2026-05-01T07:00:00Z")).await;
    let rest = || std::future::ready(());
    let now = at("2026-05-10T00:30:00Z");
    assert_eq!(forget_hours_of_no_run(&store, logs.path(), now, rest).await.unwrap().unwrap(), 8);
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["2026-05-01T05.log", "2026-05-01T09.log", "2026-05-09T23.log"], "the last day stays");
    // What goes on may write whenever it likes.
    ran(&store, "run-0002", "2026-05-01T04:59:00Z", None).await;
    assert_eq!(forget_hours_of_no_run(&store, logs.path(), now, rest).await.unwrap().unwrap(), 0);
}

#[test]
fn what_is_kept_is_said() {
    let keep = |days: Option<u64>, runs| Keep { runs_for: days.map(|days| Duration::from_secs(days * 86_400)), runs }.to_string();
    assert_eq!(keep(None, None), "all runs are kept");
    assert_eq!(keep(Some(90), None), "runs are kept for 90 d");
    assert_eq!(keep(Some(90), Some(5)), "runs are kept for 90 d, and no more than the newest 5 of each DAG");
}
