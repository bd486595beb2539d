//! Units: what commits together, or not at all.

use super::super::bed::{Bed, Memory, marked, unit, unit_with};
use backstop_connect::session::Wrap;
use backstop_connect::{ErrorKind, UnitError, UnitOutcome, Value};

pub(in crate::conformance) async fn a_stopped_unit_leaves_nothing(bed: &Bed) {
    let mut session = bed.with_table().await;
    let mut memory = Memory { rows_max: Some(1), ..Memory::default() };
    let statements = ["INSERT INTO t VALUES (1, 'a')", "SELECT 1 UNION ALL SELECT 2"];
    let error = unit_with(&mut session, marked("stopped"), &statements, None, &mut memory).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.kind == ErrorKind::Stopped), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    assert_eq!(unit(&mut session, marked("stopped"), &statements).await.unwrap(), UnitOutcome::Done);
    assert_eq!(bed.count("t"), 1);
}

pub(in crate::conformance) async fn a_marked_unit_commits_once(bed: &Bed) {
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

pub(in crate::conformance) async fn a_kept_result_comes_back_from_the_marker(bed: &Bed) {
    let mut session = bed.with_table().await;
    let result = "{\"total\": \"é'\\\\ 🦀\"}".to_owned();
    let mut memory = Memory { result: Some(result.clone()), ..Memory::default() };
    unit_with(&mut session, marked("kept"), &["INSERT INTO t VALUES (1, 'a')"], None, &mut memory).await.unwrap();
    let again = unit(&mut session, marked("kept"), &["INSERT INTO t VALUES (2, 'b')"]).await.unwrap();
    assert!(matches!(again, UnitOutcome::AlreadyCommitted(row) if row.result == Some(result) && row.rows_affected == 1));
}

pub(in crate::conformance) async fn a_unit_that_reads_returns_rows_and_needs_no_marker(bed: &Bed) {
    let mut session = bed.with_table().await;
    let mut memory = Memory::default();
    let outcome =
        unit_with(&mut session, Wrap::ReadOnly, &["SELECT count(*) FROM t", "SELECT 7"], None, &mut memory).await.unwrap();
    assert_eq!((outcome, memory.rows), (UnitOutcome::Done, vec![vec![Value::Int(0)], vec![Value::Int(7)]]));
}

pub(in crate::conformance) async fn a_unit_that_writes_is_refused_where_it_may_only_read(bed: &Bed) {
    let mut session = bed.with_table().await;
    let error = unit(&mut session, Wrap::ReadOnly, &["SELECT 1", "INSERT INTO t VALUES (1, 'a')"]).await.unwrap_err();
    assert!(matches!(error, UnitError::Writes), "{error:?}");
    assert_eq!(bed.count("t"), 0);
    assert_eq!(unit(&mut session, marked("w"), &["INSERT INTO t VALUES (1, 'a')"]).await.unwrap(), UnitOutcome::Done);
}

pub(in crate::conformance) async fn unmarked_rolled_back_and_bare_units_do_what_they_say(bed: &Bed) {
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

pub(in crate::conformance) async fn a_failing_statement_rolls_the_unit_back(bed: &Bed) {
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

pub(in crate::conformance) async fn a_recovered_error_does_not_bring_a_unit_back_to_life(bed: &Bed) {
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

pub(in crate::conformance) async fn transaction_control_is_refused_inside_a_unit(bed: &Bed) {
    let mut session = bed.with_table().await;
    let error = unit(&mut session, marked("c"), &["INSERT INTO t VALUES (1, 'a')", "/* x */ commit"]).await.unwrap_err();
    assert!(matches!(&error, UnitError::RolledBack { place: Some(1), error } if error.kind == ErrorKind::Config), "{error:?}");
    assert_eq!(bed.count("t"), 0);
}
