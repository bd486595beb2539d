//! SQLite: the suite, and what only it has.

use super::bed::{Bed, Place, call, marked, run, unit, value};
use super::suite::conforms;
use backstop_connect::session::{Ignore, Wrap};
use backstop_connect::{ErrorKind, UnitError, UnitOutcome, Value};

conforms!(Bed::sqlite);

fn folder(bed: &Bed) -> &std::path::Path {
    match &bed.place {
        Place::Sqlite(folder) => folder.path(),
        Place::Postgres(_) | Place::MariaDb(_) => panic!("not a file"),
    }
}

#[tokio::test]
async fn opening_says_what_is_wrong_with_the_file() {
    let bed = Bed::sqlite().unwrap();
    let fails =
        async |change: &dyn Fn(&mut backstop_connect::Config)| bed.changed(|config| change(config)).open().await.err().unwrap();
    let error = fails(&|config| config.database = Some("no/such/folder/x.db".into())).await;
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains("folder") && error.message.contains("does not exist"), "{error}");
    let error = fails(&|config| drop(config.extra.insert("mode".into(), "rw".into()))).await;
    assert!(error.message.contains("the file") && error.message.contains("does not exist"), "{error}");
    std::fs::write(folder(&bed).join("sales.db"), "this is not a database, however long it may be".repeat(100)).unwrap();
    let error = fails(&|_| {}).await;
    assert_eq!(error.kind, ErrorKind::Refused);
    assert!(error.hint.is_some_and(|hint| hint.contains("not an SQLite database")));
}

#[tokio::test]
async fn files_are_in_wal_mode_and_fully_synchronous_unless_told_otherwise() {
    let bed = Bed::sqlite().unwrap();
    let mut session = bed.session().await;
    assert_eq!(value(&mut session, "PRAGMA journal_mode").await, Value::Text("wal".into()));
    assert_eq!(value(&mut session, "PRAGMA synchronous").await, Value::Int(2));
    assert_eq!(value(&mut session, "PRAGMA foreign_keys").await, Value::Int(1));
    session.close().await;
    let connector = bed.changed(|config| {
        config.extra.insert("journal_mode".into(), "delete".into());
        config.extra.insert("synchronous".into(), "normal".into());
        config.extra.insert("foreign_keys".into(), "off".into());
    });
    let mut session = connector.open().await.unwrap();
    assert_eq!(value(&mut session, "PRAGMA journal_mode").await, Value::Text("delete".into()));
    assert_eq!(value(&mut session, "PRAGMA synchronous").await, Value::Int(1));
    assert_eq!(value(&mut session, "PRAGMA foreign_keys").await, Value::Int(0));
}

#[tokio::test]
async fn a_read_only_file_reads_and_refuses_to_write() {
    let bed = Bed::sqlite().unwrap();
    bed.with_table().await.close().await;
    let mut session = bed.changed(|config| drop(config.extra.insert("mode".into(), "ro".into()))).open().await.unwrap();
    assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, Value::Int(0));
    let error = unit(&mut session, marked("ro"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { error, .. } if error.kind == ErrorKind::Permission), "{error:?}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_rolls_back() {
    let bed = Bed::sqlite().unwrap();
    let mut session = bed.with_table().await;
    run(&mut session, "PRAGMA max_page_count = 10").await.unwrap();
    let fill = "INSERT INTO t WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) SELECT n, hex(zeroblob(100)) FROM s";
    let error = unit(&mut session, marked("full"), &[fill]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: Some(0), error } if error.kind == ErrorKind::Resources), "{error:?}");
    assert_eq!(bed.count("t"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_write_lock_can_be_cancelled() {
    let bed = Bed::sqlite().unwrap();
    let mut holder = bed.with_table().await;
    holder.begin(None).await.unwrap();
    run(&mut holder, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let mut session = bed.session().await;
    let canceller = session.canceller();
    let waiting = tokio::spawn(async move { unit(&mut session, marked("waits"), &["INSERT INTO t VALUES (2, 'b')"]).await });
    // Nothing shows that the thread has begun to wait, so it is asked until it ends.
    while !waiting.is_finished() {
        canceller.cancel().await.unwrap();
        tokio::task::yield_now().await;
    }
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: None, error } if error.kind == ErrorKind::Cancelled), "{error:?}");
    holder.commit().await.unwrap();
}

#[tokio::test]
async fn a_plain_begin_of_a_script_waits_for_its_turn() {
    let bed = Bed::sqlite().unwrap();
    let mut session = bed.with_table().await;
    let calls = [call("SELECT count(*) FROM t"), call("INSERT INTO t VALUES (1, 'a')")];
    let plain =
        backstop_connect::Unit { calls: &calls, begin: Some("BEGIN TRANSACTION"), wrap: marked("plain"), keeps_result: false };
    assert_eq!(session.run_unit(&plain, &mut Ignore).await.unwrap(), UnitOutcome::Done);
    let memory = bed.changed(|config| config.database = Some(":memory:".into()));
    let mut private = memory.open().await.unwrap();
    assert_eq!(
        unit(&mut private, Wrap::Unmarked, &["CREATE TABLE m (a)", "INSERT INTO m VALUES (1)"]).await.unwrap(),
        UnitOutcome::Done
    );
    assert_eq!(value(&mut private, "SELECT count(*) FROM m").await, Value::Int(1));
}

#[tokio::test]
async fn a_missing_name_is_guessed_and_the_file_is_named() {
    let bed = Bed::sqlite().unwrap();
    let mut session = bed.session().await;
    let told = async |session: &mut Box<dyn backstop_connect::Session>, sql: &str| {
        let error = run(session, sql).await.err().unwrap();
        assert!(std::error::Error::source(&error).is_none(), "{error:?}");
        let hint = error.hint.unwrap_or_else(|| "none".into());
        format!("{}\n{}", error.message, hint.replace(&folder(&bed).display().to_string(), "PROJECT"))
    };
    insta::assert_snapshot!(told(&mut session, "SELECT * FROM orders").await, @r"
    no such table: orders
    the database is PROJECT/sales.db (a relative path begins at the project's folder); it has no tables
    ");
    run(&mut session, "CREATE TABLE orders (id INTEGER, total_cents INTEGER)").await.unwrap();
    run(&mut session, "CREATE TABLE customers (id INTEGER, name TEXT)").await.unwrap();
    insta::assert_snapshot!(told(&mut session, "DELETE FROM oders").await, @r"
    no such table: oders
    the database is PROJECT/sales.db (a relative path begins at the project's folder); did you mean `orders`?
    ");
    insta::assert_snapshot!(told(&mut session, "DELETE FROM payments").await, @r"
    no such table: payments
    the database is PROJECT/sales.db (a relative path begins at the project's folder); its tables: `customers`, `orders`
    ");
    insta::assert_snapshot!(told(&mut session, "SELECT total_cent FROM orders").await, @r"
    no such column: total_cent
    did you mean `total_cents`?
    ");
    insta::assert_snapshot!(told(&mut session, "SELECT c.nam FROM orders o, customers c").await, @r"
    no such column: c.nam
    did you mean `name`?
    ");
    insta::assert_snapshot!(told(&mut session, "INSERT INTO orders (total) VALUES (1)").await, @r"
    table orders has no column named total
    the columns there: `id`, `total_cents`
    ");
    let mut private = bed.changed(|config| config.database = Some(":memory:".into())).open().await.unwrap();
    insta::assert_snapshot!(told(&mut private, "SELECT * FROM orders").await, @r"
    no such table: orders
    the database is in memory, private to each session, and begins empty; it has no tables
    ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_nobody_here_has_is_said_to_be_a_strangers() {
    let Some(bed) = Bed::sqlite() else { return };
    drop(bed.with_table().await);
    let super::bed::Place::Sqlite(folder) = &bed.place else { return };
    let stranger = rusqlite::Connection::open(folder.path().join("sales.db")).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut session = bed.session().await;
    let id = session.server_id();
    let waiting = tokio::spawn(async move { run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.map(|_| ()) });
    let mut lookout = bed.connector.lookout().await.unwrap().unwrap();
    let seen = super::suite::look_until(&mut lookout, &id, |sighting| !sighting.blocked_by.is_empty()).await;
    assert_eq!(seen.blocked_by[0].session, None);
    assert_eq!(seen.blocked_by[0].statement.as_deref(), Some("another process, which has the file's lock"));
    stranger.execute_batch("ROLLBACK").unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn it_prepares_no_transactions_and_says_so() {
    let bed = Bed::sqlite().unwrap();
    assert!(!bed.connector.capabilities().two_phase);
    let fault = bed.session().await.two_phase_fault().await.unwrap().unwrap();
    assert!(fault.message.contains("cannot prepare") && fault.hint.is_some_and(|hint| hint.contains("PostgreSQL")));
}
