//! Questions (checks, branches, sensors, lists to map over) run in a transaction that only reads. None of their words gets them out of it.

use crate::project::Project;
use crate::server::Database;

/// Ways out, each followed by a write or with one inside. What they have in common is that a text without templates would show them to
/// `backstop check`, and that the server alone would let some through.
fn ways_out(database: &Database) -> Vec<&'static str> {
    let mut ways = vec![
        "COMMIT; INSERT INTO t VALUES (1)",
        "SELECT 1; /* x */ Commit; INSERT INTO t VALUES (1); SELECT 1",
        "ROLLBACK; INSERT INTO t VALUES (1)",
        "ROLLBACK; BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1",
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE made (n INTEGER)",
    ];
    ways.extend(match database {
        Database::Sqlite => [
            "END; INSERT INTO t VALUES (1)",
            "PRAGMA user_version = 7",
            "/* /* */ COMMIT; INSERT INTO t VALUES (1)",
            "-- x\nCOMMIT; INSERT INTO t VALUES (1)",
        ]
        .as_slice(),
        Database::Postgres(..) => &[
            "END; INSERT INTO t VALUES (1)",
            "ABORT; INSERT INTO t VALUES (1)",
            "COMMIT AND CHAIN; INSERT INTO t VALUES (1)",
            "SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1)",
            "SET TRANSACTION READ/**/WRITE; INSERT INTO t VALUES (1)",
            "SET LOCAL transaction_read_only = off; INSERT INTO t VALUES (1)",
            "SET \"transaction_read_only\" TO 0; SELECT write_it()",
            "SET U&\"transaction\\005Fread_only\" TO 0; SELECT write_it()",
            "DO $$ BEGIN COMMIT; INSERT INTO t VALUES (1); END $$",
            "DO $$ BEGIN SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); END $$",
            "CALL commit_and_write()",
            "SELECT write_it()",
        ],
        Database::MariaDb(..) => &[
            "/* /* */ COMMIT; INSERT INTO t VALUES (1)",
            "/*! COMMIT */; INSERT INTO t VALUES (1)",
            "/*M! COMMIT */; INSERT INTO t VALUES (1)",
            "/*! COMMIT; INSERT INTO t VALUES (1) */",
            "XA START 'a'; INSERT INTO t VALUES (1)",
            "BEGIN NOT ATOMIC COMMIT; INSERT INTO t VALUES (1); END",
            "IF 1 = 1 THEN COMMIT; INSERT INTO t VALUES (1); END IF",
            "EXECUTE IMMEDIATE 'COMMIT'; INSERT INTO t VALUES (1)",
            "PREPARE p FROM 'COMMIT'; EXECUTE p; INSERT INTO t VALUES (1)",
            "SET STATEMENT max_statement_time = 9 FOR COMMIT; INSERT INTO t VALUES (1)",
            "SET autocommit = 0; SET autocommit = 1; INSERT INTO t VALUES (1)",
            "SET @c = 'COMMIT'; EXECUTE IMMEDIATE @c; INSERT INTO t VALUES (1)",
            "CALL commit_and_write()",
            "SET STATEMENT max_statement_time = 9 FOR CALL commit_and_write()",
            "LOCK TABLES t WRITE; INSERT INTO t VALUES (1)",
            "SELECT write_it()",
        ],
    });
    ways
}

fn prepare(database: &Database, project: &Project) {
    database.sql(project, "CREATE TABLE t (n INTEGER)");
    match database {
        Database::Sqlite => {}
        Database::Postgres(..) => {
            database.sql(project, "CREATE PROCEDURE commit_and_write() LANGUAGE plpgsql AS $$ BEGIN COMMIT; INSERT INTO t VALUES (1); COMMIT; END $$");
            database.sql(
                project,
                "CREATE FUNCTION write_it() RETURNS integer LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING n'",
            );
        }
        Database::MariaDb(..) => {
            database.sql(project, "DELIMITER //\nCREATE PROCEDURE commit_and_write() BEGIN COMMIT; INSERT INTO t VALUES (1); COMMIT; SELECT 1; END//");
            database.sql(project, "DELIMITER //\nCREATE FUNCTION write_it() RETURNS integer READS SQL DATA BEGIN INSERT INTO t VALUES (1); RETURN 1; END//");
        }
    }
}

/// The question arrives as a parameter, so that nobody could have looked at it before.
fn tasks() -> String {
    let text = "\"{{ params.question }}\"";
    format!(
        "  check: {{check: {text}}}\n  branch: {{branch: {{sql: {text}, if_true: [end], if_false: []}}}}\n  \
         sensor: {{sensor: {{sql: {text}}}}}\n  each: {{sql: SELECT 1, for_each: {{sql: {text}}}}}\n  end: {{empty: true, after: [branch]}}\n"
    )
}

/// Ours, or PostgreSQL's own of what a block tries.
fn is_clear(why: &str) -> bool {
    let known = [
        "the query writes",
        "the query begins or ends a transaction, and it runs in one that only reads",
        "the query changes definitions, or commits by itself",
        "inside a unit would end its transaction",
        "it committed by itself",
        "invalid transaction termination",
        "transaction read-write mode must be set before any query",
    ];
    known.iter().any(|text| why.contains(text))
}

#[test]
fn no_question_leaves_the_transaction_that_only_reads() {
    for database in Database::all() {
        let project = database.project("  unused: {empty: true}\n");
        let head = "dag: d\nconnection: db\nparams:\n  question: {type: string}\ntasks:\n";
        project.write("dags/d.yaml", &format!("{head}{}", tasks()));
        prepare(&database, &project);
        let mut wrong = String::new();
        for way in ways_out(&database) {
            let outcome = project.backstop(&["run", "d", "--new", "--param", &format!("question={way}")]);
            let written = database.ask(&project, "SELECT COUNT(*) FROM t") + database.tables(&project, "made");
            let failed = outcome.stderr.lines().filter(|line| line.starts_with("✗ ") && line.contains(" failed")).count();
            let why = outcome.stderr.lines().skip_while(|line| !line.starts_with("✗ check failed")).nth(1).unwrap_or_default();
            if !is_clear(why) || outcome.code != Some(1) || failed != 4 + 1 || written != 0 {
                wrong.push_str(&format!("{way}: {failed} failed, {written} written\n{}\n", outcome.stderr));
                database.sql(&project, "DELETE FROM t");
            }
        }
        assert_eq!(wrong, "", "{}", database.name());
    }
}
