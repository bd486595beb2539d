//! Markers and probes: whether something took effect.

use super::super::bed::{Bed, Memory, key, marked, run, unit, unit_with, value};
use backstop_connect::session::{Call, Ignore, Wrap};
use backstop_connect::{ErrorKind, MarkerTable, Probe, Unit, UnitError, UnitOutcome, Value};
use std::time::Duration;

pub(in crate::conformance) async fn a_fenced_attempt_cannot_commit(bed: &Bed) {
    let mut session = bed.with_table().await;
    let mut prober = bed.session().await;
    let table = MarkerTable::default();
    let wait = Duration::from_secs(1);
    assert_eq!(prober.probe(&table, &key("fenced"), wait).await.unwrap(), Probe::Fenced);
    let error = unit(&mut session, marked("fenced"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(error, UnitError::Fenced), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    assert_eq!(prober.probe(&table, &key("fenced"), wait).await.unwrap(), Probe::Fenced);
    assert_eq!(bed.outside("SELECT outcome FROM backstop_marker"), "tombstone");
}

pub(in crate::conformance) async fn a_probe_finds_a_commit(bed: &Bed) {
    let mut session = bed.with_table().await;
    unit(&mut session, marked("found"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap();
    let probe = session.probe(&MarkerTable::default(), &key("found"), Duration::from_secs(1)).await.unwrap();
    assert!(matches!(probe, Probe::Committed(row) if row.digest == "d1"));
    assert_eq!(bed.count("backstop_marker"), 1);
}

pub(in crate::conformance) async fn a_probe_waits_for_an_open_transaction_and_says_so(bed: &Bed) {
    let mut open = bed.with_table().await;
    let mut prober = bed.session().await;
    let table = MarkerTable::default();
    // The table is made by the first unit.
    unit(&mut open, marked("first"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap();
    let insert = |task: &str| {
        format!(
            "INSERT INTO backstop_marker (run, task, map_index, segment, kind, try_number, outcome, digest, rows_affected) \
             VALUES ('run-1', '{task}', -1, 0, 'forward', 1, 'committed', 'd2', 5)"
        )
    };
    let wait = Duration::from_millis(100);
    open.begin(None).await.unwrap();
    run(&mut open, &insert("commits")).await.unwrap();
    assert_eq!(prober.probe(&table, &key("commits"), wait).await.unwrap(), Probe::StillRunning);
    open.commit().await.unwrap();
    assert!(
        matches!(prober.probe(&table, &key("commits"), wait).await.unwrap(), Probe::Committed(row) if row.rows_affected == 5)
    );
    open.begin(None).await.unwrap();
    run(&mut open, &insert("rolls_back")).await.unwrap();
    assert_eq!(prober.probe(&table, &key("rolls_back"), wait).await.unwrap(), Probe::StillRunning);
    open.rollback().await.unwrap();
    assert_eq!(prober.probe(&table, &key("rolls_back"), wait).await.unwrap(), Probe::Fenced);
}

pub(in crate::conformance) async fn check_first_finds_a_commit_before_anything_runs(bed: &Bed) {
    let mut session = bed.with_table().await;
    let wrap = Wrap::Marked { table: MarkerTable::default(), key: key("checked"), digest: "d1".into(), check_first: true };
    assert_eq!(unit(&mut session, wrap.clone(), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap(), UnitOutcome::Done);
    let (signal, mut started) = tokio::sync::mpsc::unbounded_channel();
    let mut memory = Memory { signal: Some(signal), ..Memory::default() };
    let again = unit_with(&mut session, wrap, &["INSERT INTO t VALUES (2, 'a')"], None, &mut memory).await.unwrap();
    assert!(matches!(again, UnitOutcome::AlreadyCommitted(_)));
    assert!(started.try_recv().is_err());
}

pub(in crate::conformance) async fn eight_sessions_make_the_marker_table_at_once(bed: &Bed) {
    drop(bed.with_table().await);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        // A connector each: what one has seen, the others have not.
        let connector = bed.changed(|_| {});
        tasks.spawn(async move {
            let mut session = connector.open().await.unwrap();
            unit(&mut session, marked(&format!("task-{number}")), &[&format!("INSERT INTO t VALUES ({number}, 'x')")])
                .await
                .unwrap()
        });
    }
    assert!(tasks.join_all().await.iter().all(|outcome| *outcome == UnitOutcome::Done));
    assert_eq!((bed.count("t"), bed.count("backstop_marker")), (8, 8));
}

pub(in crate::conformance) async fn keys_compare_byte_by_byte(bed: &Bed) {
    let mut session = bed.with_table().await;
    for (number, task) in ["a", "A", "á", "a\u{301}"].iter().enumerate() {
        let statement = format!("INSERT INTO t VALUES ({number}, 'x')");
        assert_eq!(unit(&mut session, marked(task), &[&statement]).await.unwrap(), UnitOutcome::Done, "{task}");
    }
    for task in ["a ", "", &"x".repeat(251)] {
        let error = unit(&mut session, marked(task), &["DELETE FROM t"]).await.unwrap_err();
        assert!(matches!(&error, UnitError::RolledBack { error, .. } if error.kind == ErrorKind::Config), "{error:?}");
    }
    assert_eq!(bed.count("t"), 4);
}

/// For servers: the script moves elsewhere; the marker does not.
pub(in crate::conformance) async fn a_script_that_moves_elsewhere_still_marks_at_home(bed: &Bed) {
    let mut session = bed.with_table().await;
    let (make, move_away) = bed.pick(
        ("CREATE SCHEMA elsewhere".to_owned(), "SET search_path TO elsewhere".to_owned()),
        (
            format!("CREATE DATABASE IF NOT EXISTS elsewhere_{0}", bed.config.database.as_deref().unwrap()),
            format!("USE elsewhere_{}", bed.config.database.as_deref().unwrap()),
        ),
        (String::new(), String::new()),
    );
    bed.outside(&make);
    // As the first unit of the session, before the table was ever looked for.
    unit(&mut session, Wrap::ReadOnly, &["SELECT 1", &move_away]).await.unwrap();
    unit(&mut session, marked("moved"), &[&move_away, "CREATE TABLE here (a int)"]).await.map_or_else(
        // CREATE TABLE commits by itself in MariaDB.
        |error| assert!(matches!(error, UnitError::Partial { place: 2, .. }), "{error:?}"),
        |outcome| assert_eq!(outcome, UnitOutcome::Done),
    );
    unit(&mut session, marked("moved-2"), &[&move_away]).await.unwrap();
    assert!(bed.outside("SELECT task FROM backstop_marker ORDER BY task").ends_with("moved-2"));
    session.reset().await.unwrap();
    let home = bed.pick("SELECT current_schema()", "SELECT DATABASE()", "");
    let expected = bed.pick("public".to_owned(), bed.config.database.clone().unwrap(), String::new());
    assert_eq!(value(&mut session, home).await, Value::Text(expected));
}

/// For servers: the server is killed while the unit waits to commit; the probe finds out after its restart.
pub(in crate::conformance) async fn a_power_cut_before_the_answer_is_unknown_until_probed(
    bed: &Bed,
    cut: impl Fn(),
    restart: impl Fn(),
) {
    let mut holder = bed.with_table().await;
    let mut session = bed.session().await;
    unit(&mut holder, marked("first"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap();
    // Another transaction holds the unit's key: the unit waits at its marker, with its COMMIT already sent.
    holder.begin(None).await.unwrap();
    let insert = "INSERT INTO backstop_marker (run, task, map_index, segment, kind, try_number, outcome, digest, rows_affected) \
                  VALUES ('run-1', 'cut', -1, 0, 'forward', 1, 'committed', 'd2', 5)";
    run(&mut holder, insert).await.unwrap();
    let server_id = session.server_id();
    let running = tokio::spawn(async move {
        let calls = [Call { sql: "INSERT INTO t VALUES (2, 'b')", parameters: &[], copy_data: None }];
        session.run_unit(&Unit { calls: &calls, begin: None, wrap: marked("cut"), keeps_result: false }, &mut Ignore).await
    });
    let waits = bed.pick(
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {server_id} AND wait_event_type = 'Lock'"),
        format!("SELECT count(*) FROM information_schema.innodb_trx WHERE trx_mysql_thread_id = {server_id} AND trx_state = 'LOCK WAIT'"),
        String::new(),
    );
    while bed.outside(&waits) != "1" {
        assert!(!running.is_finished(), "it did not wait: {:?}", running.await);
        tokio::task::yield_now().await;
    }
    cut();
    let error = running.await.unwrap().unwrap_err();
    assert!(matches!(&error, UnitError::Unknown { error } if error.kind == ErrorKind::Lost), "{error:?}");
    restart();
    let mut prober = bed.session().await;
    let wait = Duration::from_secs(5);
    assert_eq!(prober.probe(&MarkerTable::default(), &key("cut"), wait).await.unwrap(), Probe::Fenced);
    assert!(matches!(prober.probe(&MarkerTable::default(), &key("first"), wait).await.unwrap(), Probe::Committed(_)));
    assert_eq!(bed.outside("SELECT id FROM t"), "1");
}

/// Old markers of the runs that were named go, a bounded number at a time; all others stay.
pub(crate) async fn markers_are_pruned_by_run_and_age(bed: &Bed) {
    use backstop_connect::prune::{MarkedRun, Markers, ROWS_MAX};
    const DAY: Duration = Duration::from_secs(86_400);
    let table = MarkerTable::default();
    let mut session = bed.session().await;
    let dialect = bed.connector.dialect();
    assert!(Markers::find(&mut *session, dialect, &table).await.unwrap().is_none(), "and none is made");
    run(&mut session, "CREATE TABLE t (id INTEGER PRIMARY KEY, v VARCHAR(200))").await.unwrap();
    unit(&mut session, marked("fresh"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap();
    let long_ago =
        bed.pick("now() - interval '40 days'", "NOW(6) - INTERVAL 40 DAY", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-40 days')");
    let insert = |marked: &str, task: u64, at: &str| {
        format!(
            "INSERT INTO backstop_marker (run, task, map_index, segment, kind, try_number, outcome, digest, rows_affected, written_at) \
             VALUES ('{marked}', 't{task}', -1, 0, 'forward', 1, 'committed', 'd', 1, {at})"
        )
    };
    let now = bed.pick("now()", "NOW(6)", "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')");
    run(&mut session, "BEGIN").await.unwrap();
    for task in 0..ROWS_MAX + 5 {
        run(&mut session, &insert("large", task, long_ago)).await.unwrap();
    }
    for (marked, task, at) in
        [("old", 1, long_ago), ("old", 2, long_ago), ("kept", 1, long_ago), ("mixed", 1, long_ago), ("mixed", 2, now)]
    {
        run(&mut session, &insert(marked, task, at)).await.unwrap();
    }
    run(&mut session, "COMMIT").await.unwrap();
    let mut markers = Markers::find(&mut *session, dialect, &table).await.unwrap().unwrap();
    let told = |run: &str, markers| MarkedRun { run: run.into(), markers };
    let runs = markers.old_runs(30 * DAY, "", 10).await.unwrap();
    assert_eq!(runs, [told("kept", 1), told("large", ROWS_MAX + 5), told("old", 2)], "neither the fresh nor the mixed");
    assert_eq!(markers.old_runs(30 * DAY, "kept", 1).await.unwrap(), [told("large", ROWS_MAX + 5)]);
    assert_eq!(markers.old_runs(50 * DAY, "", 10).await.unwrap(), []);
    let named = ["large".to_owned(), "old".to_owned(), "mixed".to_owned()];
    assert_eq!(markers.prune(&named, 50 * DAY).await.unwrap(), 0);
    assert_eq!(markers.prune(&named, 30 * DAY).await.unwrap(), ROWS_MAX);
    assert_eq!(markers.prune(&named, 30 * DAY).await.unwrap(), 8);
    assert_eq!(markers.prune(&named, 30 * DAY).await.unwrap(), 0);
    assert_eq!(markers.prune(&[], 30 * DAY).await.unwrap(), 0);
    assert_eq!(bed.outside("SELECT run FROM backstop_marker ORDER BY run"), "kept\nmixed\nrun-1");
}
