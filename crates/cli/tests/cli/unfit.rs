//! Runs that cannot be gone on with, because a connection, their project or what was kept of them is gone: a person can end them.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

const ONE: &str = "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n";
const BOTH: &str =
    "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n  two: {conn_type: sqlite, database: two.db}\n";
const DAG: &str = "dag: d\nconnection: db\nmax_active_runs: 1\ntasks:\n  first: {sql: \"INSERT INTO effect VALUES ('first')\"}\n  \
                   gate: {sensor: {sql: SELECT COUNT(*) FROM gate, poke_interval: 1s}, connection: two, after: [first]}\n  \
                   last: {sql: \"INSERT INTO effect VALUES ('last')\", after: [gate]}\n";

fn two(project: &Project, sql: &str) {
    rusqlite::Connection::open(project.path().join("two.db")).unwrap().execute_batch(sql).unwrap();
}

fn waiting() -> (Project, String) {
    let project = Project::new(&[("dags/d.yaml", DAG)]);
    project.write("backstop.yaml", BOTH);
    project.sql("CREATE TABLE effect (what text)");
    two(&project, "CREATE TABLE gate (a int)");
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    wait("the sensor to have looked", || up.task(&run, "gate") == "up_for_reschedule");
    up.running.kill();
    (project, run)
}

fn why(up: &Up, run: &str) -> String {
    up.get(&format!("/api/v1/runs/{run}/why"))["why"].as_str().unwrap_or_default().to_owned()
}

fn cancel(up: &Up, run: &str) -> (u16, Value) {
    let answer = up.ask("POST", &format!("/api/v1/runs/{run}/cancel"), Some(&json!({ "who": "ann", "why": "no more" })));
    (answer.status, answer.body)
}

fn assert_is_cancelled(up: &Up, run: &str) {
    let (status, told) = cancel(up, run);
    assert_eq!(status, 202, "{told}");
    up.wait_for_state(run, "cancelled");
    wait("the desk to be empty", || {
        let page = up.get("/metrics");
        let lines: Vec<&str> = page.as_str().unwrap().lines().filter(|line| line.starts_with("backstop_runs{")).collect();
        !lines.is_empty() && lines.iter().all(|line| line.ends_with(" 0"))
    });
}

#[test]
fn a_run_whose_connection_is_gone_is_cancelled() {
    let (project, run) = waiting();
    project.write("backstop.yaml", ONE);
    let up = Up::of(&project);
    wait("it to say why", || why(&up, &run).contains("do not fit the project any more: there is no connection `two`"));
    assert!(why(&up, &run).contains("(it can be cancelled, and its tasks marked)"), "{}", why(&up, &run));
    assert_is_cancelled(&up, &run);
    assert_eq!((up.task(&run, "first"), up.task(&run, "last")), ("success".into(), "skipped".into()));
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 1, "nothing of it was begun");
}

#[test]
fn a_task_of_a_run_whose_connection_is_gone_is_marked_and_nothing_else_of_it_goes_on() {
    let (project, run) = waiting();
    project.write("backstop.yaml", ONE);
    let up = Up::of(&project);
    wait("it to say why", || why(&up, &run).contains("there is no connection `two`"));
    let marked = project.backstop(&["runs", "mark", &run, "gate", "--success", "--reason", "it is there"]);
    assert_eq!(marked.code, Some(0), "{}", marked.stderr);
    assert_eq!(up.task(&run, "gate"), "success");
    wait("it to wait again", || why(&up, &run).contains("there is no connection `two`"));
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 1, "nothing of it was begun");
    project.write("backstop.yaml", BOTH);
    up.wait_for_state(&run, "success");
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 2);
}

#[test]
fn a_run_whose_project_is_not_there_is_cancelled() {
    let (project, run) = waiting();
    let other = Project::new(&[("dags/e.yaml", "dag: e\ntasks:\n  one: {empty: true}\n")]);
    other.write("backstop.yaml", "name: other\n");
    let store = project.path().join(".backstop/store.db").to_string_lossy().into_owned();
    let up = Up::with(&other, &["--store", &store]);
    wait("it to say why", || why(&up, &run).contains("is not loaded"));
    assert_is_cancelled(&up, &run);
}

#[test]
fn a_run_whose_sources_are_lost_is_cancelled_and_not_marked() {
    let (project, run) = waiting();
    std::fs::remove_file(project.path().join("dags/d.yaml")).unwrap();
    rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap().execute("DELETE FROM versions", []).unwrap();
    let up = Up::of(&project);
    wait("it to say why", || why(&up, &run).contains("are not kept any more"));
    let mark = json!({ "tasks": ["gate"], "as": "success", "who": "ann", "why": "it is there" });
    let marked = up.ask("POST", &format!("/api/v1/runs/{run}/mark"), Some(&mark));
    assert_eq!(marked.status, 409, "{}", marked.body);
    assert!(marked.body["detail"].as_str().unwrap().contains("it can only be cancelled"), "{}", marked.body);
    assert_is_cancelled(&up, &run);
}

/// Nobody can ask the database what a lost attempt did: who cancels is told so, and by a person's word the run can be ended.
#[test]
fn a_doubt_about_a_connection_that_is_gone_is_said_and_a_persons_word_ends_it() {
    let endless = "INSERT INTO gate WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c WHERE n < 0";
    let dag = format!("dag: d\nconnection: two\ntasks:\n  load: {{sql: {endless}}}\n");
    let project = Project::new(&[("dags/d.yaml", &dag)]);
    project.write("backstop.yaml", BOTH);
    two(&project, "CREATE TABLE gate (a int)");
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    wait("its start to be kept", || up.task(&run, "load") == "running");
    up.running.kill();
    project.write("backstop.yaml", ONE);
    let up = Up::of(&project);
    wait("it to say why", || why(&up, &run).contains("there is no connection `two`"));
    let (status, told) = cancel(&up, &run);
    let detail = told["detail"].as_str().unwrap();
    assert_eq!(status, 409, "{told}");
    assert!(
        detail.contains("it is not known what the last attempt of `load` (") && detail.contains("there is no connection `two`"),
        "{told}"
    );
    let said = project.backstop(&["runs", "resolve", &run, "load", "--not-committed", "--reason", "it was never there"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_is_cancelled(&up, &run);
}
