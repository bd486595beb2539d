//! Branches of transactions over several databases.

use super::super::bed::{Bed, key, run, value};
use backstop_connect::prepared::{Ended, Ending, Gid};
use backstop_connect::{MarkerTable, Probe, Session, Terms, UnitError, Value};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1);
const DIGEST: &str = "0123456789abcdef";

/// Servers are shared among tests, and some list what all databases prepared.
fn gid(run: &str) -> Gid {
    Gid::new(run, DIGEST, 0, 1).unwrap()
}

fn terms(gid: &Gid) -> Terms {
    Terms { branch: Some(gid.clone()), ..Terms::default() }
}

/// A session with a row in an open branch.
async fn begun(bed: &Bed, gid: &Gid) -> Box<dyn Session> {
    let mut session = bed.with_table().await;
    session.open_transaction(&terms(gid), Some(&MarkerTable::default())).await.unwrap();
    session.savepoint("backstop_task").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    assert!(session.transaction_is_open());
    session
}

async fn prepared(bed: &Bed, gid: &Gid) -> Box<dyn Session> {
    let mut session = begun(bed, gid).await;
    session.prepare_marked(&MarkerTable::default(), &key("g"), DIGEST, gid).await.unwrap();
    session
}

async fn is_listed(session: &mut Box<dyn Session>, gid: &Gid) -> bool {
    session.list_prepared().await.unwrap().iter().any(|found| found.gid.as_ref() == Some(gid))
}

/// A session that was closed may still be there for a moment.
async fn end(session: &mut Box<dyn Session>, gid: &Gid, ending: Ending) -> Ended {
    loop {
        match session.end_prepared(gid, ending).await.unwrap() {
            Ended::Busy => tokio::task::yield_now().await,
            ended => return ended,
        }
    }
}

pub(in crate::conformance) async fn a_branch_that_is_prepared_is_committed_by_another_session(bed: &Bed) {
    let gid = gid("committed");
    let session = prepared(bed, &gid).await;
    assert_eq!(bed.count("t"), 0);
    session.close().await;
    let mut other = bed.session().await;
    assert!(other.two_phase_fault().await.unwrap().is_none());
    assert!(is_listed(&mut other, &gid).await);
    assert_eq!(end(&mut other, &gid, Ending::Commit).await, Ended::Done);
    assert_eq!(bed.count("t"), 1);
    assert!(!is_listed(&mut other, &gid).await);
    for ending in [Ending::Commit, Ending::RollBack] {
        assert_eq!(other.end_prepared(&gid, ending).await.unwrap(), Ended::NotThere);
    }
    let probed = other.probe(&MarkerTable::default(), &key("g"), LIMIT).await.unwrap();
    assert!(matches!(probed, Probe::Committed(row) if row.digest == DIGEST));
}

pub(in crate::conformance) async fn a_branch_that_is_prepared_is_rolled_back_by_another_session(bed: &Bed) {
    let gid = gid("rolled-back");
    let mut session = prepared(bed, &gid).await;
    // What cannot be reset is closed.
    assert_eq!(session.reset().await.is_ok(), bed.pick(true, false, false));
    assert_eq!(session.is_usable(), bed.pick(true, false, false));
    drop(session);
    let mut other = bed.session().await;
    assert_eq!(end(&mut other, &gid, Ending::RollBack).await, Ended::Done);
    assert_eq!(other.end_prepared(&gid, Ending::RollBack).await.unwrap(), Ended::NotThere);
    assert_eq!(bed.count("t"), 0);
    assert_eq!(other.probe(&MarkerTable::default(), &key("g"), LIMIT).await.unwrap(), Probe::Fenced);
}

pub(in crate::conformance) async fn the_session_that_prepared_a_branch_may_end_it_and_go_on(bed: &Bed) {
    let gid = gid("same");
    let mut session = prepared(bed, &gid).await;
    assert_eq!(session.end_prepared(&gid, Ending::Commit).await.unwrap(), Ended::Done);
    assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, Value::Int(1));
    // The next one, in the same session, under the same id.
    session.reset().await.unwrap();
    session.open_transaction(&terms(&gid), Some(&MarkerTable::default())).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 'b')").await.unwrap();
    session.reset().await.unwrap();
    session.open_transaction(&terms(&gid), Some(&MarkerTable::default())).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (3, 'c')").await.unwrap();
    session.rollback().await.unwrap();
    assert_eq!(bed.count("t"), 1);
    session.open_transaction(&Terms::default(), None).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (4, 'd')").await.unwrap();
    session.commit().await.unwrap();
    assert_eq!(bed.count("t"), 2);
}

pub(in crate::conformance) async fn a_branch_that_was_not_prepared_is_gone_with_its_session(bed: &Bed) {
    let gid = gid("gone");
    let session = begun(bed, &gid).await;
    drop(session);
    let mut other = bed.session().await;
    assert_eq!(end(&mut other, &gid, Ending::Commit).await, Ended::NotThere);
    assert_eq!(other.probe(&MarkerTable::default(), &key("g"), LIMIT).await.unwrap(), Probe::Fenced);
    assert_eq!(bed.count("t"), 0);
}

pub(in crate::conformance) async fn a_fenced_branch_is_not_prepared(bed: &Bed) {
    let gid = gid("fenced");
    let mut other = bed.session().await;
    assert_eq!(other.probe(&MarkerTable::default(), &key("g"), LIMIT).await.unwrap(), Probe::Fenced);
    let mut session = begun(bed, &gid).await;
    let ended = session.prepare_marked(&MarkerTable::default(), &key("g"), DIGEST, &gid).await;
    assert!(matches!(ended, Err(UnitError::Fenced)), "{ended:?}");
    assert!(session.is_usable());
    assert_eq!(other.end_prepared(&gid, Ending::Commit).await.unwrap(), Ended::NotThere);
    assert_eq!(value(&mut session, "SELECT count(*) FROM t").await, Value::Int(0));
}

pub(in crate::conformance) async fn a_branch_that_lost_a_deadlock_is_not_prepared(bed: &Bed) {
    let gid = gid("deadlock");
    let mut one = bed.with_table().await;
    run(&mut one, "INSERT INTO t VALUES (1, 'a'), (2, 'b')").await.unwrap();
    one.open_transaction(&terms(&gid), Some(&MarkerTable::default())).await.unwrap();
    run(&mut one, "UPDATE t SET v = 'one' WHERE id = 1").await.unwrap();
    let mut two = bed.session().await;
    two.open_transaction(&Terms::default(), None).await.unwrap();
    // So much is done in it that the other is the victim.
    run(&mut two, "INSERT INTO t VALUES (3, 'c'), (4, 'd'), (5, 'e')").await.unwrap();
    run(&mut two, "UPDATE t SET v = 'two' WHERE id = 2").await.unwrap();
    let (first, second) =
        tokio::join!(run(&mut one, "UPDATE t SET v = 'one' WHERE id = 2"), run(&mut two, "UPDATE t SET v = 'two' WHERE id = 1"));
    let is_victim = first.is_err();
    assert!(is_victim || second.is_err(), "one of them");
    let ended = one.prepare_marked(&MarkerTable::default(), &key("g"), DIGEST, &gid).await;
    assert_eq!(ended.is_err(), is_victim, "{ended:?}");
    two.rollback().await.unwrap();
    if is_victim {
        assert!(matches!(ended, Err(UnitError::RolledBack { .. })), "{ended:?}");
        one.reset().await.unwrap();
        assert_eq!(value(&mut one, "SELECT count(*) FROM t WHERE v = 'one'").await, Value::Int(0));
    } else {
        assert_eq!(one.end_prepared(&gid, Ending::RollBack).await.unwrap(), Ended::Done);
    }
}

pub(in crate::conformance) async fn what_others_prepared_is_shown_and_not_touched(bed: &Bed) {
    let gid = gid("foreign");
    let mut session = bed.with_table().await;
    let begin = bed.pick("BEGIN", "XA START 'backstop:foreign','0.1'", "");
    run(&mut session, begin).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    let prepare = bed.pick(
        &["PREPARE TRANSACTION 'backstop:foreign'"][..],
        &["XA END 'backstop:foreign','0.1'", "XA PREPARE 'backstop:foreign','0.1'"][..],
        &[][..],
    );
    for sql in prepare {
        run(&mut session, sql).await.unwrap();
    }
    session.close().await;
    let mut other = bed.session().await;
    assert_eq!(end(&mut other, &gid, Ending::RollBack).await, Ended::NotThere);
    let listed = other.list_prepared().await.unwrap();
    let name = bed.pick("'backstop:foreign'", "'backstop:foreign','0.1',1", "");
    let found = listed.iter().find(|found| found.name == name).unwrap_or_else(|| panic!("{listed:?}"));
    assert_eq!((&found.gid, found.age.is_some()), (&None, bed.pick(true, false, false)));
    let end = bed.pick("ROLLBACK PREPARED", "XA ROLLBACK", "");
    // Its name is one that the server's own statements take.
    while run(&mut other, &format!("{end} {name}")).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Whoever looks for a marker meets it, so that nothing is concluded from a marker that is not there yet.
pub(in crate::conformance) async fn a_branch_that_is_prepared_holds_its_key(bed: &Bed) {
    let gid = gid("key");
    let session = prepared(bed, &gid).await;
    session.close().await;
    let mut other = bed.session().await;
    assert_eq!(other.probe(&MarkerTable::default(), &key("g"), LIMIT).await.unwrap(), Probe::StillRunning);
    assert_eq!(end(&mut other, &gid, Ending::RollBack).await, Ended::Done);
    assert_eq!(other.probe(&MarkerTable::default(), &key("g"), LIMIT).await.unwrap(), Probe::Fenced);
}

pub(in crate::conformance) async fn what_is_prepared_outlives_a_power_cut(bed: &Bed, cut: impl Fn(), restart: impl Fn()) {
    let (kept, given_up) = (gid("kept"), gid("given-up"));
    prepared(bed, &kept).await.close().await;
    let mut session = bed.session().await;
    session.open_transaction(&terms(&given_up), Some(&MarkerTable::default())).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 'b')").await.unwrap();
    session.prepare_marked(&MarkerTable::default(), &key("h"), DIGEST, &given_up).await.unwrap();
    cut();
    restart();
    let mut other = bed.session().await;
    assert!(!session.is_alive() || run(&mut session, "SELECT 1").await.is_err());
    assert!(is_listed(&mut other, &kept).await && is_listed(&mut other, &given_up).await);
    assert_eq!(other.end_prepared(&kept, Ending::Commit).await.unwrap(), Ended::Done);
    assert_eq!(other.end_prepared(&given_up, Ending::RollBack).await.unwrap(), Ended::Done);
    assert_eq!(bed.outside("SELECT v FROM t"), "a");
}

pub(in crate::conformance) async fn a_branch_whose_session_lives_is_busy_elsewhere(bed: &Bed) {
    let gid = gid("busy");
    let name = "backstop g busy-1";
    let mut session = bed.with_table().await;
    session.introduce(name);
    session.open_transaction(&terms(&gid), Some(&MarkerTable::default())).await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (1, 'a')").await.unwrap();
    session.prepare_marked(&MarkerTable::default(), &key("g"), DIGEST, &gid).await.unwrap();
    let mut other = bed.session().await;
    for ending in [Ending::Commit, Ending::RollBack] {
        assert_eq!(other.end_prepared(&gid, ending).await.unwrap(), Ended::Busy);
    }
    assert_eq!(other.end_leftovers(name, &[]).await.unwrap(), 1);
    assert_eq!(end(&mut other, &gid, Ending::Commit).await, Ended::Done);
    assert_eq!(bed.count("t"), 1);
}

pub(in crate::conformance) async fn a_branch_refuses_what_would_commit_it(bed: &Bed) {
    let gid = gid("ddl");
    let mut session = begun(bed, &gid).await;
    for sql in ["CREATE TABLE u (a int)", "COMMIT", "TRUNCATE t", "START TRANSACTION"] {
        let error = run(&mut session, sql).await.err().unwrap();
        assert_eq!(error.native_code.as_deref(), Some("1399"), "{sql}: {error}");
    }
    session.rollback_to("backstop_task").await.unwrap();
    run(&mut session, "INSERT INTO t VALUES (2, 'b')").await.unwrap();
    session.prepare_marked(&MarkerTable::default(), &key("g"), DIGEST, &gid).await.unwrap();
    assert_eq!(session.end_prepared(&gid, Ending::Commit).await.unwrap(), Ended::Done);
    assert_eq!(bed.outside("SELECT v FROM t"), "b");
}

pub(in crate::conformance) async fn what_cannot_be_prepared_is_rolled_back(bed: &Bed, sql: &str) {
    let gid = gid("refused");
    let mut session = begun(bed, &gid).await;
    run(&mut session, sql).await.unwrap();
    let ended = session.prepare_marked(&MarkerTable::default(), &key("g"), DIGEST, &gid).await;
    assert!(matches!(ended, Err(UnitError::RolledBack { .. })), "{ended:?}");
    assert!(session.is_usable());
    assert_eq!(bed.count("t"), 0);
    assert_eq!(session.end_prepared(&gid, Ending::Commit).await.unwrap(), Ended::NotThere);
}
