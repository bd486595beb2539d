//! Scripts in, segments out.

use super::*;
use crate::script::split;

/// A line a segment: its statements, its BEGIN, how it ends, what it promises.
fn show(dialect: Dialect, script: &str, autocommit: bool) -> String {
    let statements = split(dialect, script).unwrap();
    let segments = match plan(dialect, script, &statements, autocommit) {
        Ok(segments) => segments,
        Err(error) => return format!("{}:{} {}\nhint: {}", error.line, error.column, error.what, error.hint.unwrap_or_default()),
    };
    let mut lines = Vec::new();
    for (place, segment) in segments.iter().enumerate() {
        assert_eq!(segment.number as usize, place);
        let texts: Vec<&str> = segment.statements.clone().map(|place| &script[statements[place].text.clone()]).collect();
        let begin = segment.begin.map(|place| format!("[{}] ", &script[statements[place].text.clone()])).unwrap_or_default();
        let end = match segment.end {
            SegmentEnd::Commit => "",
            SegmentEnd::Rollback => " [rolled back]",
        };
        lines.push(format!("{begin}{}{end}: {:?}", texts.join(" | "), segment.promise));
    }
    lines.join("\n")
}

macro_rules! check {
    ($dialect:ident, $script:expr, @$expected:literal) => {
        insta::assert_snapshot!(show(Dialect::$dialect, $script, false), @$expected)
    };
    ($dialect:ident autocommit, $script:expr, @$expected:literal) => {
        insta::assert_snapshot!(show(Dialect::$dialect, $script, true), @$expected)
    };
}

#[test]
fn a_script_without_transactions_is_one_segment() {
    check!(PostgreSql, "", @"");
    check!(PostgreSql, "SET a = 1; INSERT INTO t; SELECT 1; CREATE TABLE u ()", @"SET a = 1 | INSERT INTO t | SELECT 1 | CREATE TABLE u (): ExactlyOnce");
    check!(PostgreSql, "SELECT 1; SET a = 1; SHOW a", @"SELECT 1 | SET a = 1 | SHOW a: ReadOnly");
    check!(PostgreSql autocommit, "SET a = 1; INSERT INTO t; SET b = 1; SELECT 1; BEGIN; INSERT INTO u; INSERT INTO v; COMMIT; DELETE FROM t; SET c = 1", @r"
    SET a = 1 | INSERT INTO t: ExactlyOnce
    SET b = 1 | SELECT 1: ReadOnly
    [BEGIN] INSERT INTO u | INSERT INTO v: ExactlyOnce
    DELETE FROM t: ExactlyOnce
    SET c = 1: ReadOnly
    ");
}

#[test]
fn begin_and_commit_bound_segments() {
    check!(PostgreSql, "INSERT INTO a; BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO b; END; INSERT INTO c; COMMIT; INSERT INTO d; BEGIN WORK; ABORT; BEGIN; COMMIT", @r"
    INSERT INTO a: ExactlyOnce
    [BEGIN ISOLATION LEVEL SERIALIZABLE] INSERT INTO b: ExactlyOnce
    INSERT INTO c: ExactlyOnce
    INSERT INTO d: ExactlyOnce
    ");
    check!(PostgreSql, "BEGIN; INSERT INTO a; SAVEPOINT s; INSERT INTO b; ROLLBACK TO s; ROLLBACK; INSERT INTO c; ROLLBACK", @r"
    [BEGIN] INSERT INTO a | SAVEPOINT s | INSERT INTO b | ROLLBACK TO s [rolled back]: ExactlyOnce
    INSERT INTO c [rolled back]: ExactlyOnce
    ");
    check!(PostgreSql, "START TRANSACTION READ ONLY; SELECT f(); INSERT INTO t; COMMIT; BEGIN; SET TRANSACTION READ ONLY; CALL p(); COMMIT; BEGIN; SELECT 1; COMMIT", @r"
    [START TRANSACTION READ ONLY] SELECT f() | INSERT INTO t: ReadOnly
    [BEGIN] SET TRANSACTION READ ONLY | CALL p(): ReadOnly
    [BEGIN] SELECT 1: ReadOnly
    ");
    check!(PostgreSql, "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO a; COMMIT AND CHAIN; INSERT INTO b; ROLLBACK AND CHAIN; SELECT 1; COMMIT AND NO CHAIN; INSERT INTO c", @r"
    [BEGIN ISOLATION LEVEL SERIALIZABLE] INSERT INTO a: ExactlyOnce
    [BEGIN ISOLATION LEVEL SERIALIZABLE] INSERT INTO b [rolled back]: ExactlyOnce
    [BEGIN ISOLATION LEVEL SERIALIZABLE] SELECT 1: ReadOnly
    INSERT INTO c: ExactlyOnce
    ");
    check!(Sqlite, "BEGIN IMMEDIATE; INSERT INTO a; END; BEGIN EXCLUSIVE; PRAGMA foreign_keys = ON; INSERT INTO b; COMMIT; PRAGMA foreign_keys = ON; INSERT INTO c", @r#"
    [BEGIN IMMEDIATE] INSERT INTO a: ExactlyOnce
    [BEGIN EXCLUSIVE] PRAGMA foreign_keys = ON | INSERT INTO b: ExactlyOnce
    PRAGMA foreign_keys = ON: AtLeastOnce("SQLite runs PRAGMA FOREIGN_KEYS outside of transactions only")
    INSERT INTO c: ExactlyOnce
    "#);
    check!(SqlServer, "BEGIN TRAN\nGO\nUPDATE t SET a = 1\nGO 2\nCOMMIT\nGO\nBEGIN TRAN; DELETE t; COMMIT\nGO\nSELECT 1", @r#"
    [BEGIN TRAN] UPDATE t SET a = 1: ExactlyOnce
    BEGIN TRAN; DELETE t; COMMIT: AtLeastOnce("the batch begins, commits or rolls back transactions by itself")
    SELECT 1: ReadOnly
    "#);
}

#[test]
fn statements_that_commit_by_themselves_say_so() {
    check!(MySql, "SET a = 1; CREATE TABLE t (a int); INSERT INTO t VALUES (1); SET b = 2; LOCK TABLES t WRITE; INSERT INTO t VALUES (2); UNLOCK TABLES", @r#"
    SET a = 1 | CREATE TABLE t (a int): AtLeastOnce("MariaDB/MySQL commits CREATE TABLE by itself")
    INSERT INTO t VALUES (1) | SET b = 2: ExactlyOnce
    LOCK TABLES t WRITE: AtLeastOnce("MariaDB/MySQL commits LOCK TABLES by itself, and its locks end where the next transaction begins")
    INSERT INTO t VALUES (2): ExactlyOnce
    UNLOCK TABLES: AtLeastOnce("MariaDB/MySQL commits UNLOCK TABLES by itself")
    "#);
    check!(MySql, "BEGIN; INSERT INTO a; CREATE DEFINER=`x`@`y` VIEW v AS SELECT 1; INSERT INTO b; COMMIT; BEGIN; DROP TABLE a; INSERT INTO c; COMMIT", @r#"
    [BEGIN] INSERT INTO a: ExactlyOnce
    CREATE DEFINER=`x`@`y` VIEW v AS SELECT 1: AtLeastOnce("MariaDB/MySQL commits CREATE VIEW by itself, and with it what stands before it in the transaction begun on line 1")
    INSERT INTO b: ExactlyOnce
    DROP TABLE a: AtLeastOnce("MariaDB/MySQL commits DROP TABLE by itself")
    INSERT INTO c: ExactlyOnce
    "#);
    check!(MySql, "SET autocommit=0; INSERT INTO a; START TRANSACTION; INSERT INTO b; BEGIN; INSERT INTO c; COMMIT", @r"
    SET autocommit=0 | INSERT INTO a: ExactlyOnce
    [START TRANSACTION] INSERT INTO b: ExactlyOnce
    [BEGIN] INSERT INTO c: ExactlyOnce
    ");
    check!(MySql, "INSERT INTO a; XA START 'x'; INSERT INTO b; XA END 'x'; XA PREPARE 'x'; XA COMMIT 'x'; XA RECOVER; INSERT INTO c; BEGIN NOT ATOMIC COMMIT; END", @r#"
    INSERT INTO a: ExactlyOnce
    XA START 'x' | INSERT INTO b | XA END 'x' | XA PREPARE 'x' | XA COMMIT 'x': AtLeastOnce("XA START is part of a transaction that the script manages itself")
    XA RECOVER: AtLeastOnce("XA RECOVER is part of a transaction that the script manages itself")
    INSERT INTO c: ExactlyOnce
    BEGIN NOT ATOMIC COMMIT; END: AtLeastOnce("the block commits or rolls back by itself")
    "#);
    check!(Oracle, "INSERT INTO a VALUES (1);\nCREATE TABLE t (a INT);\nBEGIN COMMIT; END;\n/\nBEGIN NULL; END;\n/\nROLLBACK;", @r#"
    INSERT INTO a VALUES (1): ExactlyOnce
    CREATE TABLE t (a INT): AtLeastOnce("Oracle commits CREATE TABLE by itself")
    BEGIN COMMIT; END;: AtLeastOnce("the block commits or rolls back by itself")
    BEGIN NULL; END; [rolled back]: ExactlyOnce
    "#);
    check!(PostgreSql, "INSERT INTO a; SET x = 1; VACUUM a; CREATE INDEX CONCURRENTLY i ON a (b); DO $$ BEGIN COMMIT; END $$; SELECT 1", @r#"
    INSERT INTO a | SET x = 1: ExactlyOnce
    VACUUM a: AtLeastOnce("PostgreSQL runs VACUUM outside of transactions only")
    CREATE INDEX CONCURRENTLY i ON a (b): AtLeastOnce("PostgreSQL runs CREATE INDEX CONCURRENTLY outside of transactions only")
    DO $$ BEGIN COMMIT; END $$: AtLeastOnce("the block commits or rolls back by itself")
    SELECT 1: ReadOnly
    "#);
    check!(Sqlite, "ATTACH 'x' AS y; PRAGMA journal_mode = WAL; INSERT INTO a; VACUUM", @r#"
    ATTACH 'x' AS y: AtLeastOnce("SQLite runs ATTACH outside of transactions only")
    PRAGMA journal_mode = WAL: AtLeastOnce("SQLite runs PRAGMA JOURNAL_MODE outside of transactions only")
    INSERT INTO a: ExactlyOnce
    VACUUM: AtLeastOnce("SQLite runs VACUUM outside of transactions only")
    "#);
}

#[test]
fn what_cannot_be_planned_is_refused() {
    check!(PostgreSql, "SELECT 1;\n BEGIN; INSERT INTO a", @r"
    2:2 the transaction begun here is never committed
    hint: end it with COMMIT (or ROLLBACK), or remove the BEGIN: the script's statements then commit together by themselves
    ");
    check!(PostgreSql, "BEGIN; COMMIT AND CHAIN; INSERT INTO a", @r"
    1:8 the transaction begun here is never committed
    hint: end it with COMMIT (or ROLLBACK), or remove the BEGIN: the script's statements then commit together by themselves
    ");
    check!(PostgreSql, "BEGIN; SELECT 1; COMMIT AND CHAIN", @"[BEGIN] SELECT 1: ReadOnly");
    check!(PostgreSql, "BEGIN; BEGIN; COMMIT", @r"
    1:8 a transaction is already open here
    hint: end it with COMMIT or ROLLBACK first; for a part that can be undone on its own use SAVEPOINT
    ");
    check!(PostgreSql, "BEGIN; VACUUM; COMMIT", @r"
    1:8 this statement cannot run inside a transaction, and one is open here
    hint: put it before the BEGIN or after the COMMIT
    ");
    check!(PostgreSql, "BEGIN; INSERT INTO a; PREPARE TRANSACTION 'x'", @r"
    1:23 PREPARE TRANSACTION leaves the transaction to be committed by someone else, so nothing can be promised of it
    hint: end it with COMMIT; to commit on several databases together use `two_phase: true` on a group
    ");
    check!(MySql, "BEGIN; XA START 'x'; COMMIT", @r"
    1:8 this statement cannot run inside a transaction, and one is open here
    hint: put it before the BEGIN or after the COMMIT
    ");
}

#[test]
fn a_new_session_repeats_what_changed_the_old_one() {
    let repeated = |dialect, script: &str, segment| {
        let statements = split(dialect, script).unwrap();
        let segments = plan(dialect, script, &statements, false).unwrap();
        let places = session_statements_before(dialect, script, &statements, &segments, segment);
        places.into_iter().map(|place| &script[statements[place].text.clone()]).collect::<Vec<_>>().join(" | ")
    };
    let script = "SET a = 1; BEGIN; SET LOCAL b = 1; SET c = 1; INSERT INTO t; COMMIT; BEGIN; SET d = 1; ROLLBACK; INSERT INTO u; SET e = 1";
    assert_eq!(repeated(Dialect::PostgreSql, script, 0), "");
    assert_eq!(repeated(Dialect::PostgreSql, script, 3), "SET a = 1 | SET c = 1");
    assert_eq!(repeated(Dialect::MySql, script, 3), "SET a = 1 | SET c = 1 | SET d = 1");
    let script = "ATTACH 'x' AS y; VACUUM; INSERT INTO y.a; COMMIT; SELECT 1";
    assert_eq!(repeated(Dialect::Sqlite, script, 3), "ATTACH 'x' AS y");
}
