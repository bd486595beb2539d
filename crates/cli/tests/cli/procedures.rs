//! Procedures that commit, on real servers: what they did is not done again, and is told. Only the server knows what a procedure does.

use crate::project::Project;
use crate::server::Database;

const LOG: &str = "CREATE TABLE log (task VARCHAR(20))";

/// A procedure of MariaDB that says these statements.
fn procedure(database: &Database, project: &Project, name: &str, body: &str) {
    database.sql(project, &format!("DELIMITER //\nCREATE PROCEDURE {name}() BEGIN {body} END//\nDELIMITER ;\n"));
}

/// How often a task of the newest run was begun.
fn starts(project: &Project, task: &str) -> usize {
    let events = project.data(&["runs", "events", "latest", "--json"]);
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["type"] == "attempt_started" && event["task"] == task).count()
}

const COMMITS_AND_FAILS: &str = "INSERT INTO log VALUES ('inside'); COMMIT; SIGNAL SQLSTATE '45000';";
const COMMITS_AND_GOES_ON: &str =
    "INSERT INTO log VALUES ('inside'); COMMIT; START TRANSACTION; INSERT INTO log VALUES ('behind');";

fn run(tasks: &str, body: &str) -> Option<(Database, Project, String)> {
    let database = Database::mariadb()?;
    let project = database.project(tasks);
    database.sql(&project, LOG);
    procedure(&database, &project, "works", body);
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log WHERE task = 'inside'"), 1, "{}", outcome.stderr);
    assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log WHERE task = 'behind'"), 0, "{}", outcome.stderr);
    assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM backstop_marker"), 0, "{}", outcome.stderr);
    Some((database, project, outcome.stderr))
}

const TOLD: &str = "may have taken effect, without a marker";

#[test]
fn a_task_whose_procedure_committed_is_not_tried_again() {
    let task = "  load: {sql: \"INSERT INTO log VALUES ('before'); CALL works()\", retries: 3, retry_delay: 0}\n";
    let Some((database, project, told)) = run(task, COMMITS_AND_FAILS) else { return };
    assert!(told.contains(TOLD) && told.contains("statement 2 of 2"), "{told}");
    assert_eq!(starts(&project, "load"), 1, "{told}");
    assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log WHERE task = 'before'"), 1, "{told}");
    let Some((_, project, told)) = run(task, COMMITS_AND_GOES_ON) else { return };
    assert!(told.contains(TOLD) && told.contains("it has ended the transaction that it ran in"), "{told}");
    assert_eq!(starts(&project, "load"), 1, "{told}");
}

/// A failure that leaves the transaction as it was is tried again, as any other.
#[test]
fn a_task_whose_procedure_failed_and_did_not_commit_is_tried_again() {
    let Some(database) = Database::mariadb() else { return };
    let project = database.project("  load: {sql: CALL works(), retries: 2, retry_delay: 0}\n");
    database.sql(&project, LOG);
    procedure(&database, &project, "works", "INSERT INTO log VALUES ('inside'); SIGNAL SQLSTATE '45000';");
    let outcome = project.backstop(&["run", "d"]);
    assert!(outcome.code == Some(1) && outcome.stderr.contains("nothing was committed"), "{}", outcome.stderr);
    assert_eq!((starts(&project, "load"), database.ask(&project, "SELECT COUNT(*) FROM log")), (3, 0), "{}", outcome.stderr);
}

#[test]
fn a_group_whose_procedure_committed_is_not_tried_again() {
    let first = "  g:
    transaction: true
    retries: 3
    retry_delay: 0
    tasks:
      load: {sql: CALL works(), retries: 3, retry_delay: 0}
";
    let second = first.replace("load: {", "before: {sql: \"INSERT INTO log VALUES ('before')\"}\n      load: {after: [before], ");
    for tasks in [first, &second] {
        let Some((database, project, told)) = run(tasks, COMMITS_AND_FAILS) else { return };
        assert!(told.contains(TOLD), "{told}");
        assert_eq!(starts(&project, "g.load"), 1, "{told}");
        let before = i64::from(tasks != first);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log WHERE task = 'before'"), before, "{told}");
        let Some((_, project, told)) = run(tasks, COMMITS_AND_GOES_ON) else { return };
        assert!(told.contains("a statement has committed the transaction by itself"), "{told}");
        assert_eq!((starts(&project, "g.load"), starts(&project, "g")), (1, 0), "{told}");
    }
}

/// PostgreSQL lets nobody commit inside of a transaction.
#[test]
fn a_procedure_that_would_commit_is_refused_on_postgresql() {
    let Some(database) = Database::postgres() else { return };
    let group = "  g: {transaction: true, tasks: {load: {sql: CALL works()}}}\n";
    for (tasks, task) in [("  load: {sql: CALL works(), retries: 3, retry_delay: 0}\n", "load"), (group, "g.load")] {
        let project = database.project(tasks);
        database.sql(&project, "DROP TABLE IF EXISTS log");
        database.sql(&project, LOG);
        let works =
            "CREATE OR REPLACE PROCEDURE works() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES ('inside'); COMMIT; END $$";
        database.sql(&project, works);
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("invalid transaction termination"), "{task}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("autocommit: true"), "{task}: {}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 0, "{}", outcome.stderr);
    }
}
