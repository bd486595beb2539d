//! A task that a person ended reads as one that a person ended: in whose name, why, at which statement, and what stays.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;

/// One segment commits; the second works for ever in its second statement.
const ENDLESS: &str = "BEGIN; INSERT INTO t VALUES (1); COMMIT;\nBEGIN;\nINSERT INTO t VALUES (2);\nINSERT INTO t WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c;\nCOMMIT;\n";

#[test]
fn a_task_that_was_cancelled_after_a_takeover_says_so_once() {
    let project = Project::new(&[
        ("dags/d.yaml", "dag: d\nconnection: db\ntasks:\n  load: {sql: sql/load.sql}\n"),
        ("sql/load.sql", ENDLESS),
    ]);
    project.sql("CREATE TABLE t (n INTEGER)");
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    let is_working = |up: &Up| {
        up.task(&run, "load") == "running"
            && up.get(&format!("/api/v1/runs/{run}/tasks/load/why"))["why"].to_string().contains("statement 6")
    };
    wait("the statement to run", || is_working(&up));
    up.running.kill();
    let up = Up::of(&project);
    wait("the statement to run again", || is_working(&up));
    let cancelled = project.backstop(&["runs", "cancel", &run, "--reason", "enough", "--who", "ada"]);
    assert_eq!(cancelled.code, Some(0), "{}", cancelled.stderr);
    up.wait_for_state(&run, "cancelled");
    assert_eq!(project.ask("SELECT count(*) FROM t"), 1);
    let shown = project.scrubbed(&["runs", "show", &run]);
    for said in ["! load was cancelled in try 2", "ada: enough", "statement 6 of 7", "committed  1 segment of 1 task"] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    assert!(!shown.contains("load failed"), "{shown}");
    let json = project.json(&["runs", "show", &run, "--json"]);
    let told = |row: &serde_json::Value| {
        (row["try_number"].as_u64().unwrap(), row["number"].as_u64().unwrap(), row["line"].as_u64().unwrap())
    };
    let mut statements: Vec<_> = json["statements"].as_array().unwrap().iter().map(told).collect();
    let count = statements.len();
    statements.dedup();
    assert_eq!(statements.len(), count, "each once: {shown}");
    assert!(statements.ends_with(&[(2, 5, 3), (2, 6, 4)]), "{statements:?}");
    let last = json["statements"].as_array().unwrap().last().unwrap();
    assert!(last["segment"].is_null() && last["duration_us"].as_u64().unwrap() > 0, "{last}");
    assert!(last["notices"].to_string().contains("interrupted"), "{last}");
}

#[test]
fn a_run_that_is_being_cancelled_does_not_go_on() {
    let project = Project::new(&[(
        "dags/d.yaml",
        "dag: d\ntasks:\n  deaf: {shell: \"trap '' TERM; echo > up; while [ -e backstop.yaml ]; do sleep 1; done\"}\n",
    )]);
    nix::unistd::mkfifo(&project.path().join("up"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    // Ends when the shell has said that it is up and deaf.
    std::fs::read(project.path().join("up")).unwrap();
    assert!(project.data(&["runs", "why", &run]).contains("it goes on, driven by this service"));
    assert_eq!(project.backstop(&["runs", "cancel", &run, "--reason", "enough"]).code, Some(0));
    let why = project.data(&["runs", "why", &run]);
    assert!(why.contains("it is being cancelled: what is running is ended"), "{why}");
    assert!(!why.contains("it goes on"), "{why}");
}

/// An open transaction keeps its slot while one of its tasks waits for its next try; what waited for that slot may have been begun before the crash,
/// and is looked for before the run is cancelled.
#[test]
fn a_run_with_an_open_transaction_that_waits_is_cancelled_after_a_takeover() {
    let tasks = "  g:
    transaction: true
    tasks:
      one: {sql: INSERT INTO t VALUES (1)}
      two: {sql: INSERT INTO nowhere VALUES (1), after: [one], retries: 1, retry_delay: 1h}
  other: {sql: INSERT INTO t VALUES (2)}
";
    let project = Project::new(&[("dags/d.yaml", &format!("dag: d\nconnection: db\nmax_active_tasks: 1\ntasks:\n{tasks}"))]);
    project.sql("CREATE TABLE t (n INTEGER)");
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    let waits = |up: &Up| up.task(&run, "g.two") == "up_for_retry" && up.task(&run, "other") == "scheduled";
    wait("the transaction to wait", || waits(&up));
    up.running.kill();
    let up = Up::of(&project);
    let is_again = || up.get(&format!("/api/v1/runs/{run}/tasks?limit=10")).to_string().contains("\"try_number\":2");
    wait("the transaction to wait again", || is_again() && waits(&up));
    let cancelled = project.backstop(&["runs", "cancel", &run, "--reason", "enough", "--who", "ada"]);
    assert_eq!(cancelled.code, Some(0), "{}", cancelled.stderr);
    up.wait_for_state(&run, "cancelled");
    let states = ["g.one", "g.two", "g", "other"].map(|task| up.task(&run, task));
    assert_eq!(states, ["skipped", "skipped", "skipped", "skipped"]);
    assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
}
