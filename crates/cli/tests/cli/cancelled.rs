//! The end of a run that a service took over from one that died: what that one committed ahead of its log is found, and nothing new is
//! begun in order to look.

use crate::project::Project;
use crate::server::Database;
use crate::up::{Up, wait};
use serde_json::json;
use std::time::{Duration, Instant};

/// Tasks that wait for the only place, some of them behind others.
const WAITING: usize = 12;

/// A statement that does not end by itself.
fn endless(database: &Database) -> &'static str {
    match database {
        Database::Sqlite => "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        Database::Postgres(..) => "SELECT pg_sleep(600)",
        Database::MariaDb(..) => "SELECT SLEEP(600)",
    }
}

/// One task has the only place; the others, alone and in a chain, insert a row each.
fn project(database: &Database, settings: &str) -> Project {
    let project = database.project("  unused: {empty: true}\n");
    let mut dag = format!(
        "dag: d\nconnection: db\nmax_active_tasks: 1\n{settings}tasks:\n  holder: {{sql: \"{}\", priority_weight: 1000}}\n",
        endless(database)
    );
    for number in 0..WAITING {
        let after = if number % 3 == 0 { String::new() } else { format!(", after: [t{}]", number - 1) };
        dag.push_str(&format!("  t{number}: {{sql: \"INSERT INTO effect VALUES ({number}, '{{{{ run_id }}}}')\"{after}}}\n"));
    }
    project.write("dags/d.yaml", &dag);
    database.sql(&project, "CREATE TABLE effect (n INTEGER, run VARCHAR(64))");
    project
}

/// A run whose service was killed while one of its tasks ran, in the next service.
fn taken_over(project: &Project) -> (Up, String) {
    let up = Up::of(project);
    let run = up.trigger("d", json!({}));
    wait("the statement to run", || up.task(&run, "holder") == "running");
    up.running.kill();
    let up = Up::of(project);
    wait("it to run again", || up.task(&run, "holder") == "running");
    (up, run)
}

fn effects(database: &Database, project: &Project, run: &str) -> i64 {
    database.ask(project, &format!("SELECT COUNT(*) FROM effect WHERE run = '{run}'"))
}

#[test]
fn to_cancel_a_run_that_was_taken_over_begins_nothing_of_it() {
    for database in Database::all() {
        let project = project(&database, "");
        let (up, run) = taken_over(&project);
        let answer = up.ask("POST", &format!("/api/v1/runs/{run}/cancel"), Some(&json!({ "who": "ann", "why": "wrong day" })));
        assert_eq!(answer.status, 202, "{}: {}", database.name(), answer.body);
        up.wait_for_state(&run, "cancelled");
        assert_eq!(effects(&database, &project, &run), 0, "on {}", database.name());
        let events = up.get(&format!("/api/v1/runs/{run}/events?limit=1000")).to_string();
        for told in ["wrong day", "cancel_requested", "operator_acted"] {
            assert!(events.contains(told), "{}: no {told} in {events}", database.name());
        }
        assert!(!events.contains("attempt_failed"), "a cancel is no failure: {events}");
        let unbegun = (0..WAITING).filter(|number| up.task(&run, &format!("t{number}")) == "skipped").count();
        assert_eq!(unbegun, WAITING, "{}: {}", database.name(), up.get(&format!("/api/v1/runs/{run}/tasks?limit=100")));
    }
}

#[test]
fn a_run_that_was_taken_over_and_is_over_time_begins_nothing_more() {
    for database in Database::all() {
        let project = project(&database, "dagrun_timeout: 2s\n");
        let up = Up::of(&project);
        let began = Instant::now();
        let run = up.trigger("d", json!({}));
        wait("the statement to run", || up.task(&run, "holder") == "running");
        up.running.kill();
        // Else it is right that others take the place of the one that is in doubt.
        wait("its time to be over", || began.elapsed() > Duration::from_secs(3));
        let up = Up::of(&project);
        up.wait_for_state(&run, "failed");
        assert_eq!(effects(&database, &project, &run), 0, "on {}", database.name());
    }
}

#[test]
fn a_run_that_never_began_is_cancelled_by_the_next_service_as_by_the_first() {
    for database in Database::all() {
        let project = project(&database, "max_active_runs: 1\n");
        let up = Up::of(&project);
        let first = up.trigger("d", json!({}));
        let second = up.trigger("d", json!({}));
        wait("the statement to run", || up.task(&first, "holder") == "running");
        up.running.kill();
        let up = Up::of(&project);
        let cancel = |run: &str| {
            let answer =
                up.ask("POST", &format!("/api/v1/runs/{run}/cancel"), Some(&json!({ "who": "ann", "why": "not today" })));
            assert_eq!(answer.status, 202, "{}: {}", database.name(), answer.body);
            up.wait_for_state(run, "cancelled");
        };
        cancel(&second);
        assert_eq!(effects(&database, &project, &second), 0, "on {}", database.name());
    }
}

#[test]
fn what_is_cancelled_while_no_service_is_there_is_cancelled_and_not_failed() {
    for database in Database::all() {
        let project = project(&database, "");
        let up = Up::of(&project);
        let run = up.trigger("d", json!({}));
        wait("the statement to run", || up.task(&run, "holder") == "running");
        up.running.kill();
        let cancelled = project.backstop(&["runs", "cancel", &run, "--reason", "wrong day"]);
        assert!(cancelled.stderr.contains("wrong day") || cancelled.stdout.contains("wrong day"), "{}", cancelled.stderr);
        let shown = project.backstop(&["runs", "show", &run, "--json"]).stdout;
        assert!(shown.contains("\"cancelled\""), "{}: {shown}\n{}", database.name(), cancelled.stderr);
        assert_eq!(effects(&database, &project, &run), 0, "on {}", database.name());
    }
}
