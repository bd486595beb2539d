//! Statements: values, rows, errors, and being cancelled.

use super::super::bed::{Bed, Memory, call, marked, run, run_with, unit, unit_with, value};
use super::endless;
use backstop_connect::{Canceller, Error, ErrorKind, Observer, Session, UnitError, UnitOutcome, Value};
use std::time::Duration;

pub(in crate::conformance) async fn parameters_come_back_as_they_went_in(bed: &Bed) {
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

pub(in crate::conformance) async fn a_million_rows_pass_without_being_kept(bed: &Bed) {
    let mut session = bed.session().await;
    let mut sum = Sum::default();
    let outcome = session.execute(&call(million(bed)), 0, &mut sum).await.unwrap();
    assert_eq!((outcome.rows_returned, outcome.rows_affected, sum.0), (1_000_000, None, 500_000_500_000));
}

pub(in crate::conformance) async fn an_observer_stops_a_statement(bed: &Bed) {
    let mut session = bed.session().await;
    let mut memory = Memory { rows_max: Some(3), ..Memory::default() };
    let error = session.execute(&call(million(bed)), 0, &mut memory).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str(), memory.rows.len()), (ErrorKind::Stopped, "that is enough", 3));
    assert!(session.is_usable());
    assert_eq!(value(&mut session, "SELECT 1").await, Value::Int(1));
}

pub(in crate::conformance) async fn a_unique_violation_is_a_constraint_error(bed: &Bed) {
    let mut session = bed.with_table().await;
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let error = run(&mut session, "INSERT INTO t VALUES (1, 'b')").await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Constraint);
    let (sqlstate, native) = bed.pick((Some("23505"), None), (Some("23000"), Some("1062")), (None, Some("1555")));
    assert_eq!((error.sqlstate.as_deref(), error.native_code.as_deref()), (sqlstate, native));
}

pub(in crate::conformance) async fn a_syntax_error_has_its_position(bed: &Bed) {
    let mut session = bed.session().await;
    let error = run(&mut session, "SELECT 'é',\n 1 FORM t").await.err().unwrap();
    assert_eq!((error.kind, error.position), (ErrorKind::Syntax, Some(bed.pick(21, 21, 21))), "{error}");
    assert!(error.to_string().starts_with("run a statement on sales_db: "), "{error}");
}

/// Waits, by looking, until the server runs (or no longer runs) the endless statement of this session.
pub(super) async fn wait_until_running(bed: &Bed, server_id: &str, wanted: bool) {
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
pub(in crate::conformance) async fn cancel_until_ended<T>(
    canceller: &dyn Canceller,
    mut running: tokio::task::JoinHandle<T>,
) -> T {
    for _ in 0..100 {
        canceller.cancel().await.unwrap();
        if let Ok(ended) = tokio::time::timeout(Duration::from_millis(200), &mut running).await {
            return ended.unwrap();
        }
    }
    panic!("the statement does not end when it is cancelled");
}

pub(in crate::conformance) async fn a_cancelled_statement_ends_on_the_server(bed: &Bed) {
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

pub(in crate::conformance) async fn a_cancel_without_a_statement_is_harmless(bed: &Bed) {
    let mut session = bed.with_table().await;
    session.canceller().cancel().await.unwrap();
    assert_eq!(unit(&mut session, marked("unharmed"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap(), UnitOutcome::Done);
}

pub(in crate::conformance) async fn statements_of_megabytes_run(bed: &Bed) {
    let mut session = bed.session().await;
    let text = "x".repeat(5 * 1024 * 1024);
    assert_eq!(value(&mut session, &format!("SELECT length('{text}')")).await, Value::Int(5 * 1024 * 1024));
    let returned = value(&mut session, &format!("SELECT '{text}'")).await;
    assert!(matches!(returned, Value::Text(returned) if returned == text));
}

pub(in crate::conformance) async fn a_lock_wait_ends_with_its_own_kind(bed: &Bed) {
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
pub(in crate::conformance) async fn a_deadlock_has_its_own_kind(bed: &Bed) {
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
