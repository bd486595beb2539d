//! Connections with fewer sessions than tasks that want one: who waits for a session keeps nobody from anything, and its time does not count.

use crate::server::Database;
use crate::up::{Up, wait};
use serde_json::json;

fn list(items: u32) -> String {
    (0..items).map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// Two connections to the same database: `db` has one session, `beside` as many as wanted.
fn settings(project: &crate::project::Project) {
    let settings = std::fs::read_to_string(project.path().join("backstop.yaml")).unwrap();
    let line = settings.lines().find(|line| line.contains("uri:")).unwrap();
    let (scarce, beside) = (line.replace("{uri:", "{sessions: 1, uri:"), line.replace("db:", "beside:"));
    project.write("backstop.yaml", &format!("name: test\nconnections:\n{scarce}\n{beside}\n"));
}

#[test]
fn tasks_that_wait_for_a_session_keep_no_place_from_those_of_other_connections() {
    let Some(database) = Database::postgres() else { return };
    let tasks = format!("  hold: {{for_each: [{}], sql: SELECT pg_sleep(600)}}\n", list(12));
    let project = database.project(&tasks);
    settings(&project);
    project.write("dags/quick.yaml", "dag: quick\nconnection: beside\ntasks:\n  write: {sql: INSERT INTO t VALUES (1)}\n");
    database.sql(&project, "CREATE TABLE t (n INTEGER)");
    let up = Up::with(&project, &["--parallelism", "2"]);
    let many = up.trigger("d", json!({}));
    let why = || up.get(&format!("/api/v1/runs/{many}/why"));
    wait("all to want a session", || {
        let why = why().to_string();
        why.matches("it waits for a session of connection `db`: 1 of 1 in use by `hold[").count() == 11
    });
    let waits = why();
    let one = waits["tasks"].as_array().unwrap().iter().find(|task| !task["slots"].is_null()).unwrap().clone();
    assert_eq!(
        (&one["slots"]["connection"], &one["slots"]["pool"], &one["slots"]["used"]),
        (&json!("db"), &json!(null), &json!(1))
    );
    let quick = up.trigger("quick", json!({}));
    up.wait_for_state(&quick, "success");
    assert_eq!(database.ask(&project, "SELECT count(*) FROM t"), 1);
    assert_eq!(up.state(&many), "running");
    let cancel = up.ask("POST", &format!("/api/v1/runs/{many}/cancel"), Some(&json!({ "why": "enough" })));
    assert_eq!(cancel.status, 202, "{}", cancel.body);
    up.wait_for_state(&many, "cancelled");
}

/// The same of tasks of their own run, where they are as many as it may have at once, and go first.
#[test]
fn tasks_that_wait_for_a_session_keep_no_place_from_others_of_their_run() {
    let Some(database) = Database::postgres() else { return };
    let tasks = format!(
        "  hold: {{for_each: [{}], sql: SELECT pg_sleep(600), priority_weight: 10}}\n  \
         quick: {{connection: beside, sql: INSERT INTO t VALUES (1)}}\n  slow: {{connection: beside, sql: SELECT pg_sleep(600), after: [quick]}}\n",
        list(40)
    );
    let project = database.project(&tasks);
    settings(&project);
    database.sql(&project, "CREATE TABLE t (n INTEGER)");
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    wait("the task of the other connection to begin, and the one behind it", || up.task(&run, "slow") == "running");
    assert_eq!(database.ask(&project, "SELECT count(*) FROM t"), 1);
    let why = up.get(&format!("/api/v1/runs/{run}/why")).to_string();
    assert!(why.contains("it waits for a session of connection `db`: 1 of 1 in use by `hold["), "{why}");
    let cancel = up.ask("POST", &format!("/api/v1/runs/{run}/cancel"), Some(&json!({ "why": "enough" })));
    assert_eq!(cancel.status, 202, "{}", cancel.body);
    up.wait_for_state(&run, "cancelled");
}

#[test]
fn the_wait_for_a_session_is_no_part_of_an_execution_timeout() {
    let Some(database) = Database::postgres() else { return };
    // One behind the other they take 12 seconds.
    let tasks = format!("  some: {{for_each: [{}], sql: SELECT pg_sleep(1), execution_timeout: 8s}}\n", list(12));
    let project = database.project(&tasks);
    settings(&project);
    let run = project.backstop(&["run", "d"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn neither_is_it_for_the_first_task_of_a_transaction() {
    let Some(database) = Database::postgres() else { return };
    let group = |number| {
        format!("  g{number}: {{transaction: true, tasks: {{first: {{sql: SELECT pg_sleep(1), execution_timeout: 8s}}}}}}\n")
    };
    let project = database.project(&(0..12).map(group).collect::<String>());
    settings(&project);
    let run = project.backstop(&["run", "d"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}
