//! What every connector does.

use super::bed::{Bed, Memory, call, hides, key, marked, run, run_with, secret, unit, unit_with, value};
use backstop_connect::session::{Call, Ignore, Wrap};
use backstop_connect::{Canceller, Error, ErrorKind, MarkerTable, Observer, Probe, Session, Unit, UnitError, UnitOutcome, Value};
use std::time::Duration;

/// Instantiates the suite for one kind of database.
macro_rules! conforms {
    ($bed:path) => {
        conforms! { @tests $bed:
            parameters_come_back_as_they_went_in, a_million_rows_pass_without_being_kept, an_observer_stops_a_statement,
            a_stopped_unit_leaves_nothing, a_marked_unit_commits_once, a_kept_result_comes_back_from_the_marker,
            a_unit_that_reads_returns_rows_and_needs_no_marker, a_unit_that_writes_is_refused_where_it_may_only_read,
            unmarked_rolled_back_and_bare_units_do_what_they_say, a_failing_statement_rolls_the_unit_back,
            a_recovered_error_does_not_bring_a_unit_back_to_life, transaction_control_is_refused_inside_a_unit,
            a_fenced_attempt_cannot_commit, a_probe_waits_for_an_open_transaction_and_says_so, a_probe_finds_a_commit,
            check_first_finds_a_commit_before_anything_runs, eight_sessions_make_the_marker_table_at_once,
            a_unique_violation_is_a_constraint_error, a_syntax_error_has_its_position, a_cancelled_statement_ends_on_the_server,
            a_cancel_without_a_statement_is_harmless, a_reset_forgets_settings_and_temporary_tables, statements_of_megabytes_run,
            a_session_left_in_the_middle_is_not_usable, savepoints_undo_a_part, keys_compare_byte_by_byte,
            unknown_settings_are_named_with_the_known_ones, a_lock_wait_ends_with_its_own_kind
        }
    };
    (@tests $bed:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(bed) = $bed() {
                    super::suite::$name(&bed).await;
                }
            }
        )*
    };
}
pub(super) use conforms;

pub(super) async fn parameters_come_back_as_they_went_in(bed: &Bed) {
    let mut session = bed.session().await;
    let types = bed.pick(
        "a bigint, b double precision, c numeric(30,10), d text, e bytea, f boolean",
        "a bigint, b double, c decimal(30,10), d text, e blob, f boolean",
        "a INTEGER, b REAL, c TEXT, d TEXT, e BLOB, f INTEGER",
    );
    run(&mut session, &format!("CREATE TABLE p (n int primary key, {types})")).await.unwrap();
    let insert = bed.pick(
        "INSERT INTO p VALUES ($1, $2, $3, $4, $5, $6, $7)",
        "INSERT INTO p VALUES (?, ?, ?, ?, ?, ?, ?)",
        "INSERT INTO p VALUES (?, ?, ?, ?, ?, ?, ?)",
    );
    let hostile = "Robert'); DROP TABLE p; -- \\ \" ` $1 ? é 🦀 \u{200b}\n".to_owned();
    let rows = [
        vec![
            Value::Int(1),
            Value::Int(i64::MIN),
            Value::Float(0.1),
            Value::Decimal("12345678901234567890.0123456789".into()),
            Value::Text(hostile),
            Value::Bytes(vec![0, 1, 127, 128, 255]),
            Value::Bool(true),
        ],
        vec![
            Value::Int(2),
            Value::Int(i64::MAX),
            Value::Float(-1.5e300),
            Value::Decimal("-0.5000000000".into()),
            Value::Text(String::new()),
            Value::Bytes(Vec::new()),
            Value::Bool(false),
        ],
        vec![Value::Int(3), Value::Null, Value::Null, Value::Null, Value::Null, Value::Null, Value::Null],
    ];
    for row in &rows {
        run_with(&mut session, insert, row).await.unwrap();
    }
    let read = run(&mut session, "SELECT * FROM p ORDER BY n").await.unwrap();
    let expected: Vec<Vec<Value>> = rows.iter().map(|row| row.iter().map(|value| as_stored(bed, value)).collect()).collect();
    assert_eq!(read.rows, expected);
    assert_eq!(read.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["n", "a", "b", "c", "d", "e", "f"]);
    // Through the other protocol, where there are two.
    let placeholder = bed.pick("$1", "?", "?");
    let again =
        run_with(&mut session, &format!("SELECT * FROM p WHERE n >= {placeholder} ORDER BY n"), &[Value::Int(1)]).await.unwrap();
    assert_eq!(again.rows, expected);
}

fn as_stored(bed: &Bed, value: &Value) -> Value {
    match value {
        Value::Bool(truth) => bed.pick(Value::Bool(*truth), Value::Int(i64::from(*truth)), Value::Int(i64::from(*truth))),
        Value::Decimal(text) => bed.pick(value.clone(), value.clone(), Value::Text(text.clone())),
        other => other.clone(),
    }
}

fn million(bed: &Bed) -> &'static str {
    bed.pick(
        "SELECT n FROM generate_series(1, 1000000) n",
        "SELECT seq FROM seq_1_to_1000000",
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000000) SELECT n FROM s",
    )
}

#[derive(Default)]
struct Sum(i64);

impl Observer for Sum {
    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        if let Value::Int(number) = row[0] {
            self.0 += number;
        }
        Ok(())
    }
}

pub(super) async fn a_million_rows_pass_without_being_kept(bed: &Bed) {
    let mut session = bed.session().await;
    let mut sum = Sum::default();
    let outcome = session.execute(&call(million(bed)), 0, &mut sum).await.unwrap();
    assert_eq!((outcome.rows_returned, outcome.rows_affected, sum.0), (1_000_000, None, 500_000_500_000));
}

pub(super) async fn an_observer_stops_a_statement(bed: &Bed) {
    let mut session = bed.session().await;
    let mut memory = Memory { rows_max: Some(3), ..Memory::default() };
    let error = session.execute(&call(million(bed)), 0, &mut memory).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str(), memory.rows.len()), (ErrorKind::Stopped, "that is enough", 3));
    assert!(session.is_usable());
    assert_eq!(value(&mut session, "SELECT 1").await, Value::Int(1));
}

pub(super) async fn a_stopped_unit_leaves_nothing(bed: &Bed) {
    let mut session = bed.with_table().await;
    let mut memory = Memory { rows_max: Some(1), ..Memory::default() };
    let statements = ["INSERT INTO t VALUES (1, 'a')", "SELECT 1 UNION ALL SELECT 2"];
    let error = unit_with(&mut session, marked("stopped"), &statements, None, &mut memory).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.kind == ErrorKind::Stopped), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    assert_eq!(unit(&mut session, marked("stopped"), &statements).await.unwrap(), UnitOutcome::Done);
    assert_eq!(bed.count("t"), 1);
}

pub(super) async fn a_marked_unit_commits_once(bed: &Bed) {
    let mut session = bed.with_table().await;
    let statements = ["INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')", "UPDATE t SET v = 'c'"];
    let mut memory = Memory::default();
    assert_eq!(unit_with(&mut session, marked("once"), &statements, None, &mut memory).await.unwrap(), UnitOutcome::Done);
    assert_eq!(memory.finished, [(0, Some(1), 0), (1, Some(1), 0), (2, Some(2), 0)]);
    assert_eq!(bed.outside("SELECT outcome FROM backstop_marker"), "committed");
    // The statements would run again here, if the key did not stop them.
    let again = unit(&mut session, marked("once"), &["DELETE FROM t"]).await.unwrap();
    let UnitOutcome::AlreadyCommitted(row) = again else { panic!("{again:?}") };
    assert_eq!((row.digest.as_str(), row.result), ("d1", None));
    assert!(row.rows_affected == 4 || row.rows_affected == -1, "{}", row.rows_affected);
    assert!(row.written_at.len() > 20 && row.written_at.ends_with('Z') && row.written_at.contains('T'), "{}", row.written_at);
    assert_eq!((bed.count("t"), bed.count("backstop_marker")), (2, 1));
    assert!(session.is_usable());
}

pub(super) async fn a_kept_result_comes_back_from_the_marker(bed: &Bed) {
    let mut session = bed.with_table().await;
    let result = "{\"total\": \"é'\\\\ 🦀\"}".to_owned();
    let mut memory = Memory { result: Some(result.clone()), ..Memory::default() };
    unit_with(&mut session, marked("kept"), &["INSERT INTO t VALUES (1, 'a')"], None, &mut memory).await.unwrap();
    let again = unit(&mut session, marked("kept"), &["INSERT INTO t VALUES (2, 'b')"]).await.unwrap();
    assert!(matches!(again, UnitOutcome::AlreadyCommitted(row) if row.result == Some(result) && row.rows_affected == 1));
}

pub(super) async fn a_unit_that_reads_returns_rows_and_needs_no_marker(bed: &Bed) {
    let mut session = bed.with_table().await;
    let mut memory = Memory::default();
    let outcome =
        unit_with(&mut session, Wrap::ReadOnly, &["SELECT count(*) FROM t", "SELECT 7"], None, &mut memory).await.unwrap();
    assert_eq!((outcome, memory.rows), (UnitOutcome::Done, vec![vec![Value::Int(0)], vec![Value::Int(7)]]));
}

pub(super) async fn a_unit_that_writes_is_refused_where_it_may_only_read(bed: &Bed) {
    let mut session = bed.with_table().await;
    let error = unit(&mut session, Wrap::ReadOnly, &["SELECT 1", "INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(error, UnitError::Writes), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    assert_eq!(unit(&mut session, marked("w"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap(), UnitOutcome::Done);
}

pub(super) async fn unmarked_rolled_back_and_bare_units_do_what_they_say(bed: &Bed) {
    let mut session = bed.with_table().await;
    let insert = |id: u32| format!("INSERT INTO t VALUES ({id}, 'x')");
    unit(&mut session, Wrap::RolledBack, &[&insert(1)]).await.unwrap();
    assert_eq!(bed.count("t"), 0);
    unit(&mut session, Wrap::Unmarked, &[&insert(2)]).await.unwrap();
    assert_eq!(bed.count("t"), 1);
    let error = unit(&mut session, Wrap::Unmarked, &[&insert(3), &insert(2)]).await.unwrap_err();
    assert!(matches!(error, UnitError::RolledBack { place: Some(1), .. }), "{error:?}");
    assert_eq!(bed.count("t"), 1);
    let error = unit(&mut session, Wrap::Bare, &[&insert(4), &insert(2), &insert(5)]).await.unwrap_err();
    assert!(matches!(&error, UnitError::Partial { place: 1, error } if error.kind == ErrorKind::Constraint), "{error:?}");
    assert_eq!(bed.count("t"), 2);
}

pub(super) async fn a_failing_statement_rolls_the_unit_back(bed: &Bed) {
    let mut session = bed.with_table().await;
    let statements = ["INSERT INTO t VALUES (1, 'a')", "INSERT INTO missing VALUES (1)", "INSERT INTO t VALUES (2, 'b')"];
    let error = unit(&mut session, marked("fails"), &statements).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.kind == ErrorKind::Syntax), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    let begun =
        unit_with(&mut session, marked("fails"), &statements[..1], Some("BEGIN NONSENSE NONSENSE"), &mut Memory::default()).await;
    assert!(matches!(begun, Err(UnitError::RolledBack { place: None, .. })), "{begun:?}");
    assert_eq!(bed.count("t"), 0);
    assert_eq!(unit(&mut session, marked("fails"), &statements[..1]).await.unwrap(), UnitOutcome::Done);
    assert_eq!(bed.count("t"), 1);
}

pub(super) async fn a_recovered_error_does_not_bring_a_unit_back_to_life(bed: &Bed) {
    let mut session = bed.with_table().await;
    let statements = [
        "INSERT INTO t VALUES (1, 'a')",
        "SAVEPOINT s",
        "INSERT INTO t VALUES (1, 'dup')",
        "ROLLBACK TO s",
        "INSERT INTO t VALUES (2, 'b')",
    ];
    let error = unit(&mut session, marked("revived"), &statements).await.unwrap_err();
    assert!(matches!(error, UnitError::RolledBack { place: Some(2), .. }), "{error:?}");
    assert_eq!(bed.count("t"), 0);
}

pub(super) async fn transaction_control_is_refused_inside_a_unit(bed: &Bed) {
    let mut session = bed.with_table().await;
    let error = unit(&mut session, marked("c"), &["INSERT INTO t VALUES (1, 'a')", "/* x */ commit"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.kind == ErrorKind::Config), "{error:?}");
    assert_eq!(bed.count("t"), 0);
}

pub(super) async fn a_fenced_attempt_cannot_commit(bed: &Bed) {
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

pub(super) async fn a_probe_finds_a_commit(bed: &Bed) {
    let mut session = bed.with_table().await;
    unit(&mut session, marked("found"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap();
    let probe = session.probe(&MarkerTable::default(), &key("found"), Duration::from_secs(1)).await.unwrap();
    assert!(matches!(probe, Probe::Committed(row) if row.digest == "d1"));
    assert_eq!(bed.count("backstop_marker"), 1);
}

pub(super) async fn a_probe_waits_for_an_open_transaction_and_says_so(bed: &Bed) {
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

pub(super) async fn check_first_finds_a_commit_before_anything_runs(bed: &Bed) {
    let mut session = bed.with_table().await;
    let wrap = Wrap::Marked { table: MarkerTable::default(), key: key("checked"), digest: "d1".into(), check_first: true };
    assert_eq!(unit(&mut session, wrap.clone(), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap(), UnitOutcome::Done);
    let (signal, mut started) = tokio::sync::mpsc::unbounded_channel();
    let mut memory = Memory { signal: Some(signal), ..Memory::default() };
    let again = unit_with(&mut session, wrap, &["INSERT INTO t VALUES (2, 'a')"], None, &mut memory).await.unwrap();
    assert!(matches!(again, UnitOutcome::AlreadyCommitted(_)));
    assert!(started.try_recv().is_err());
}

pub(super) async fn eight_sessions_make_the_marker_table_at_once(bed: &Bed) {
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

pub(super) async fn a_unique_violation_is_a_constraint_error(bed: &Bed) {
    let mut session = bed.with_table().await;
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let error = run(&mut session, "INSERT INTO t VALUES (1, 'b')").await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Constraint);
    let (sqlstate, native) = bed.pick((Some("23505"), None), (Some("23000"), Some("1062")), (None, Some("1555")));
    assert_eq!((error.sqlstate.as_deref(), error.native_code.as_deref()), (sqlstate, native));
}

pub(super) async fn a_syntax_error_has_its_position(bed: &Bed) {
    let mut session = bed.session().await;
    let error = run(&mut session, "SELECT 'é',\n 1 FORM t").await.err().unwrap();
    assert_eq!((error.kind, error.position), (ErrorKind::Syntax, Some(bed.pick(21, 21, 21))), "{error}");
    assert!(error.to_string().starts_with("run a statement on sales_db: "), "{error}");
}

fn endless(bed: &Bed) -> &'static str {
    bed.pick(
        "SELECT pg_sleep(600)",
        "SELECT SLEEP(600)",
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s",
    )
}

/// Waits, by looking, until the server runs (or no longer runs) the endless statement of this session.
async fn wait_until_running(bed: &Bed, server_id: &str, wanted: bool) {
    let look = bed.pick(
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state = 'active' AND query LIKE '%sleep%'",
            server_id.trim_start_matches("thread ")
        ),
        format!(
            "SELECT count(*) FROM information_schema.processlist WHERE id = {} AND info LIKE '%SLEEP%'",
            server_id.trim_start_matches("thread ")
        ),
        String::new(),
    );
    for _ in 0..2000 {
        if look.is_empty() || bed.outside(&look) == if wanted { "1" } else { "0" } {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("the statement does not become running = {wanted}");
}

/// Cancels again and again, as callers must: a request that comes before the statement has begun finds nothing to kill.
pub(super) async fn cancel_until_ended<T>(canceller: &dyn Canceller, mut running: tokio::task::JoinHandle<T>) -> T {
    for _ in 0..100 {
        canceller.cancel().await.unwrap();
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(200), &mut running).await {
            return ended.unwrap();
        }
    }
    panic!("the statement does not end when it is cancelled");
}

pub(super) async fn a_cancelled_statement_ends_on_the_server(bed: &Bed) {
    let mut session = bed.with_table().await;
    let canceller = session.canceller();
    let server_id = session.server_id();
    let (signal, mut started) = tokio::sync::mpsc::unbounded_channel();
    let endless = endless(bed);
    let running = tokio::spawn(async move {
        let mut memory = Memory { signal: Some(signal), ..Memory::default() };
        let ended =
            unit_with(&mut session, marked("cancelled"), &["INSERT INTO t VALUES (1, 'a')", endless], None, &mut memory).await;
        (ended, session)
    });
    while started.recv().await != Some(1) {}
    wait_until_running(bed, &server_id, true).await;
    let (ended, mut session) = cancel_until_ended(&*canceller, running).await;
    assert!(
        matches!(&ended, Err(UnitError::RolledBack { place: Some(1), error }) if error.kind == ErrorKind::Cancelled),
        "{ended:?}"
    );
    wait_until_running(bed, &server_id, false).await;
    assert_eq!(bed.count("t"), 0);
    assert_eq!(value(&mut session, "SELECT 1").await, Value::Int(1));
}

pub(super) async fn a_cancel_without_a_statement_is_harmless(bed: &Bed) {
    let mut session = bed.with_table().await;
    session.canceller().cancel().await.unwrap();
    assert_eq!(unit(&mut session, marked("unharmed"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap(), UnitOutcome::Done);
}

pub(super) async fn a_reset_forgets_settings_and_temporary_tables(bed: &Bed) {
    let mut session = bed.session().await;
    let read = bed.pick(
        "SELECT current_setting('statement_timeout')",
        "SELECT @@session.sql_select_limit",
        "SELECT foreign_keys FROM pragma_foreign_keys",
    );
    let set = bed.pick("SET statement_timeout = '77s'", "SET SESSION sql_select_limit = 77", "PRAGMA foreign_keys = OFF");
    let before = value(&mut session, read).await;
    run(&mut session, set).await.unwrap();
    run(&mut session, "CREATE TEMPORARY TABLE scratch (a int)").await.unwrap();
    assert_ne!(value(&mut session, read).await, before);
    session.begin(None).await.unwrap();
    session.reset().await.unwrap();
    assert_eq!(value(&mut session, read).await, before);
    assert_eq!(run(&mut session, "SELECT * FROM scratch").await.err().unwrap().kind, ErrorKind::Syntax);
    // A reset straight before a unit, whose answer is not waited for.
    session.reset().await.unwrap();
    assert_eq!(unit(&mut session, Wrap::ReadOnly, &["SELECT 1"]).await.unwrap(), UnitOutcome::Done);
}

pub(super) async fn statements_of_megabytes_run(bed: &Bed) {
    let mut session = bed.session().await;
    let text = "x".repeat(5 * 1024 * 1024);
    assert_eq!(value(&mut session, &format!("SELECT length('{text}')")).await, Value::Int(5 * 1024 * 1024));
    let returned = value(&mut session, &format!("SELECT '{text}'")).await;
    assert!(matches!(returned, Value::Text(returned) if returned == text));
}

pub(super) async fn a_session_left_in_the_middle_is_not_usable(bed: &Bed) {
    let mut session = bed.with_table().await;
    {
        let (signal, mut started) = tokio::sync::mpsc::unbounded_channel();
        let mut memory = Memory { signal: Some(signal), ..Memory::default() };
        let statement = call(endless(bed));
        let running = session.execute(&statement, 0, &mut memory);
        tokio::pin!(running);
        tokio::select! {
            _ = &mut running => panic!("it ended"),
            _ = started.recv() => {}
        }
    }
    assert!(!session.is_usable());
    let error = unit(&mut session, marked("late"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: None, error } if error.kind == ErrorKind::Lost), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    if !matches!(bed.place, super::bed::Place::Sqlite(_)) {
        // The servers' sleeping statements end with their cancel; SQLite's ends when the session is dropped.
        session.canceller().cancel().await.unwrap();
    }
}

pub(super) async fn savepoints_undo_a_part(bed: &Bed) {
    let mut session = bed.with_table().await;
    session.begin(None).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    session.savepoint("task_1").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 'b')").await.unwrap();
    assert!(run(&mut session, "INSERT INTO t VALUES (1, 'again')").await.is_err());
    session.rollback_to("task_1").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (3, 'c')").await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(bed.outside("SELECT id FROM t ORDER BY id"), "1\n3");
}

pub(super) async fn keys_compare_byte_by_byte(bed: &Bed) {
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

pub(super) async fn unknown_settings_are_named_with_the_known_ones(bed: &Bed) {
    let mut config = bed.config.clone();
    let wrong = bed.pick("conect_timeout", "conect_timeout", "busy_timout");
    config.extra.insert(wrong.into(), "1".into());
    let error = backstop_connect::connector(&config).err().unwrap();
    let right = bed.pick("connect_timeout", "connect_timeout", "busy_timeout");
    assert_eq!(error.kind, ErrorKind::Config);
    assert!(error.message.contains(&format!("unknown setting `{wrong}`; did you mean `{right}`?")), "{error}");
    assert!(error.hint.unwrap().contains(right));
}

pub(super) async fn a_lock_wait_ends_with_its_own_kind(bed: &Bed) {
    let mut holder = bed.with_table().await;
    run(&mut holder, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    holder.begin(None).await.unwrap();
    run(&mut holder, "UPDATE t SET v = 'held' WHERE id = 1").await.unwrap();
    let waiter = bed.changed(|config| {
        let (key, value) = bed.pick(("lock_timeout", "100ms"), ("local_infile", "false"), ("busy_timeout", "100ms"));
        config.extra.insert(key.into(), value.into());
    });
    let mut waiter = waiter.open().await.unwrap();
    if let Some(set) = bed.pick(None, Some("SET SESSION innodb_lock_wait_timeout = 1"), None) {
        run(&mut waiter, set).await.unwrap();
    }
    let error = unit(&mut waiter, marked("waits"), &["UPDATE t SET v = 'mine' WHERE id = 1"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { error, .. } if error.kind == ErrorKind::LockTimeout), "{error:?}");
    holder.commit().await.unwrap();
    assert_eq!(unit(&mut waiter, marked("waits"), &["UPDATE t SET v = 'mine' WHERE id = 1"]).await.unwrap(), UnitOutcome::Done);
    assert_eq!(bed.outside("SELECT v FROM t"), "mine");
}

/// For servers: two sessions lock two rows crosswise.
pub(super) async fn a_deadlock_has_its_own_kind(bed: &Bed) {
    let mut first = bed.with_table().await;
    let mut second = bed.session().await;
    run(&mut first, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await.unwrap();
    first.begin(None).await.unwrap();
    second.begin(None).await.unwrap();
    run(&mut first, "UPDATE t SET v = 'first' WHERE id = 1").await.unwrap();
    run(&mut second, "UPDATE t SET v = 'second' WHERE id = 2").await.unwrap();
    let crossing = async |session: &mut Box<dyn Session>, id: u32| {
        let ended = run(session, &format!("UPDATE t SET v = 'x' WHERE id = {id}")).await.map(|_| ());
        session.rollback().await.unwrap();
        ended
    };
    let (first, second) = tokio::join!(crossing(&mut first, 2), crossing(&mut second, 1));
    let errors: Vec<Error> = [first, second].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].kind, ErrorKind::Deadlock);
}

/// For servers: what cannot be reached or does not let us in.
pub(super) async fn failing_to_connect_says_what_is_to_blame(bed: &Bed) {
    let opened = async |change: &dyn Fn(&mut backstop_connect::Config)| {
        let connector = bed.changed(|config| {
            // PostgreSQL trusts here and never asks for it; MariaDB lets root in with an empty one alone.
            config.password = bed.pick(secret("hunter2-secret"), None, None);
            change(config);
        });
        assert!(!connector.target().contains("hunter2-secret"));
        let error = connector.open().await.err().unwrap();
        hides(&error, "hunter2-secret");
        assert!(error.operation.starts_with("connect to sales_db ("), "{error}");
        error
    };
    // A port that was just free: nothing listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = opened(&|config| config.port = Some(free)).await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    let error = opened(&|config| config.host = Some("no-such-host.invalid".into())).await;
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    let error = opened(&|config| config.database = Some("no_such_database".into())).await;
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    assert!(error.hint.is_some());
}

/// For servers: the session's connection is cut by an administrator while it is idle.
pub(super) async fn an_idle_session_that_was_cut_fails_before_anything_runs(bed: &Bed) {
    let mut session = bed.with_table().await;
    let id = session.server_id();
    bed.outside(&bed.pick(format!("SELECT pg_terminate_backend({id}, 5000)"), format!("KILL CONNECTION {id}"), String::new()));
    let error = unit(&mut session, marked("cut"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { error, .. } if error.kind == ErrorKind::Lost), "{error:?}");
    assert!(!session.is_usable());
    assert_eq!(bed.count("t"), 0);
}

/// For servers: the script moves elsewhere; the marker does not.
pub(super) async fn a_script_that_moves_elsewhere_still_marks_at_home(bed: &Bed) {
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
pub(super) async fn a_power_cut_before_the_answer_is_unknown_until_probed(bed: &Bed, cut: impl Fn(), restart: impl Fn()) {
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
