//! Transactions that several scripts share: savepoints within, one marker at the end.

use super::super::bed::{Bed, key, run, value};
use backstop_connect::{ErrorKind, Isolation, MarkerTable, Probe, Terms, UnitError, UnitOutcome, Value};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1);

pub(in crate::conformance) async fn a_shared_transaction_commits_once_with_its_marker(bed: &Bed) {
    let mut session = bed.with_table().await;
    let table = MarkerTable::default();
    session.open_transaction(&Terms::default(), Some(&table)).await.unwrap();
    session.savepoint("backstop_task").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    session.savepoint("backstop_task").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 'b')").await.unwrap();
    let error = run(&mut session, "INSERT INTO t VALUES (1, 'again')").await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::Constraint);
    session.rollback_to("backstop_task").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (3, 'c')").await.unwrap();
    assert!(session.transaction_is_open());
    assert_eq!(bed.count("t"), 0, "nobody else sees it");
    assert_eq!(session.commit_marked(&table, &key("g"), "d1").await.unwrap(), UnitOutcome::Done);
    assert_eq!(bed.outside("SELECT v FROM t ORDER BY id"), "a\nc");
    let mut other = bed.session().await;
    let probed = other.probe(&table, &key("g"), LIMIT).await.unwrap();
    assert!(matches!(probed, Probe::Committed(row) if row.digest == "d1"));
}

pub(in crate::conformance) async fn a_fenced_shared_transaction_cannot_commit(bed: &Bed) {
    let mut session = bed.with_table().await;
    let table = MarkerTable::default();
    let mut other = bed.session().await;
    assert_eq!(other.probe(&table, &key("g"), LIMIT).await.unwrap(), Probe::Fenced);
    session.open_transaction(&Terms::default(), Some(&table)).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let ended = session.commit_marked(&table, &key("g"), "d1").await;
    assert!(matches!(ended, Err(UnitError::Fenced)), "{ended:?}");
    assert_eq!(bed.count("t"), 0);
    assert!(session.is_usable());
}

pub(in crate::conformance) async fn a_shared_transaction_that_is_reset_is_rolled_back(bed: &Bed) {
    let mut session = bed.with_table().await;
    session.open_transaction(&Terms::default(), None).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    session.reset().await.unwrap();
    assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, Value::Int(0));
    assert_eq!(bed.count("t"), 0);
}

pub(in crate::conformance) async fn a_shared_transaction_waits_for_locks_as_long_as_it_may(bed: &Bed) {
    let mut holder = bed.with_table().await;
    run(&mut holder, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    holder.open_transaction(&Terms::default(), None).await.unwrap();
    run(&mut holder, "UPDATE t SET v = 'b'").await.unwrap();
    let mut session = bed.session().await;
    let terms = Terms { isolation: Some(Isolation::Serializable), lock_timeout: Some(LIMIT), branch: None };
    // SQLite locks the whole file, when the transaction begins.
    let opened = session.open_transaction(&terms, None).await;
    let kind = match opened {
        Err(UnitError::RolledBack { error, .. }) => error.kind,
        other => {
            other.unwrap();
            session.savepoint("backstop_task").await.unwrap();
            let error = run(&mut session, "UPDATE t SET v = 'c'").await.err().unwrap();
            session.rollback_to("backstop_task").await.unwrap();
            error.kind
        }
    };
    assert_eq!(kind, ErrorKind::LockTimeout);
    holder.rollback().await.unwrap();
}

/// Also while no statement of it runs, as when the machine of its client is gone.
pub(in crate::conformance) async fn a_shared_transaction_that_was_left_behind_is_ended_by_its_name(bed: &Bed) {
    let mut session = bed.with_table().await;
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let name = "backstop g run-7";
    let mut left = bed.session().await;
    left.introduce(name);
    left.open_transaction(&Terms::default(), None).await.unwrap();
    run(&mut left, "UPDATE t SET v = 'b'").await.unwrap();
    assert_eq!(session.end_leftovers(name, &[left.server_id()]).await.unwrap(), 0, "ours");
    assert_eq!(session.end_leftovers("backstop g run-70", &[]).await.unwrap(), 0, "another");
    run(&mut left, "UPDATE t SET v = 'c'").await.unwrap();
    // SQLite's transactions end with their process, whatever becomes of its machine.
    assert_eq!(session.end_leftovers(name, &[]).await.unwrap(), bed.pick(1, 1, 0));
    if bed.pick(true, true, false) {
        assert!(run(&mut left, "UPDATE t SET v = 'd'").await.is_err());
        assert!(!left.is_usable());
        // At once: the locks are gone with it.
        let terms = Terms { isolation: None, lock_timeout: Some(LIMIT), branch: None };
        session.introduce(name);
        session.open_transaction(&terms, None).await.unwrap();
        run(&mut session, "UPDATE t SET v = 'e'").await.unwrap();
        session.commit().await.unwrap();
        assert_eq!(bed.outside("SELECT v FROM t"), "e");
        session.reset().await.unwrap();
        let mut other = bed.session().await;
        assert_eq!(other.end_leftovers(name, &[]).await.unwrap(), 0, "a session that was reset has no name");
        assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, Value::Int(1));
    }
}
