//! Sessions that their server ended while nobody used them: the tasks that come next run in others, and nothing of them runs twice.

use crate::server::Database;
use crate::up::{Up, wait};
use backstop_testkit::servers::{MariaDb, Postgres};
use serde_json::json;

/// Writes with markers, a statement that refuses a transaction, and a question.
fn tasks(database: &Database) -> String {
    let alone = match database {
        Database::Postgres(..) => "VACUUM t",
        Database::MariaDb(..) | Database::Sqlite => "ALTER TABLE made ENGINE = InnoDB",
    };
    format!(
        "  one: {{sql: \"INSERT INTO t VALUES (1)\"}}\n  two: {{sql: \"INSERT INTO t VALUES (2)\"}}\n  \
         three: {{sql: \"INSERT INTO t VALUES (3); SELECT n FROM t\"}}\n  alone: {{sql: \"{alone}\"}}\n  \
         told: {{sql: \"{alone}\", delivery: at_least_once}}\n  asks: {{check: {{sql: \"SELECT 1\"}}}}\n"
    )
}

/// Ends every session of the database but those of this test, and waits until they are gone.
fn end_idle_sessions(database: &Database, project: &crate::project::Project) {
    match database {
        Database::Postgres(..) => {
            let others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
            assert_ne!(database.ask(project, &format!("SELECT count(pg_terminate_backend(pid, 10000)) FROM {others}")), 0);
        }
        Database::MariaDb(server, name) => {
            let others = format!("information_schema.processlist WHERE db = '{name}' AND id <> connection_id()");
            let ids = server.sql(name, &format!("SELECT id FROM {others}")).unwrap();
            assert_ne!(ids, "");
            ids.lines().for_each(|id| database.sql(project, &format!("KILL {id}")));
            wait("sessions to end", || database.ask(project, &format!("SELECT count(*) FROM {others}")) == 0);
        }
        Database::Sqlite => {}
    }
}

/// A run, then what ends the sessions, then another run.
fn a_run_before_and_one_behind(database: &Database, ends: impl Fn(&crate::project::Project)) {
    let project = database.project(&tasks(database));
    database.sql(&project, "CREATE TABLE t (n INTEGER)");
    database.sql(&project, "CREATE TABLE made (n INTEGER)");
    let up = Up::of(&project);
    for round in 1..=3 {
        let run = up.trigger("d", json!({}));
        wait("the run to end", || !["queued", "running"].contains(&up.state(&run).as_str()));
        assert_eq!(up.state(&run), "success", "{}, round {round}: {}", database.name(), project.data(&["runs", "show", &run]));
        assert_eq!(database.ask(&project, "SELECT count(*) FROM t"), 3 * round, "{}", database.name());
        ends(&project);
    }
}

#[test]
fn sessions_that_were_ended_while_idle_are_not_handed_to_tasks() {
    for database in Database::servers() {
        a_run_before_and_one_behind(&database, |project| end_idle_sessions(&database, project));
    }
}

#[test]
fn a_server_that_was_restarted_between_two_runs_fails_none() {
    if Postgres::shared().is_some() {
        let server: &'static Postgres = Box::leak(Box::new(Postgres::start().unwrap()));
        let database = Database::Postgres(server, server.create_database());
        a_run_before_and_one_behind(&database, |_| server.restart().unwrap());
        server.stop_hard();
    }
    if MariaDb::shared().is_some() {
        let server: &'static MariaDb = Box::leak(Box::new(MariaDb::start().unwrap()));
        let database = Database::MariaDb(server, server.create_database());
        a_run_before_and_one_behind(&database, |_| server.restart().unwrap());
        server.stop_hard();
    }
}
