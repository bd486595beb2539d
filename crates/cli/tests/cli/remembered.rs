//! A service that starts when files are broken: what was good before runs on, or it is said plainly what does not.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

const GOOD: &str = "dag: good\nconnection: db\ntasks:\n  one: {sql: INSERT INTO effect VALUES ('first version')}\n";
const OTHER: &str = "dag: other\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n";

fn project() -> Project {
    let project = Project::new(&[("dags/good.yaml", GOOD), ("dags/other.yaml", OTHER)]);
    project.sql("CREATE TABLE effect (what text)");
    project
}

/// Waits until so many DAGs are kept, and all of the files of one say this.
fn wait_until_kept(project: &Project, count: i64, good_says: &str) {
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    let ask = |sql: &str| store.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(-1);
    wait("the versions to be kept", || {
        ask("SELECT count(*) FROM entries WHERE kind = 'good'") == count
            && ask(&format!("SELECT count(*) FROM entries WHERE kind = 'good_content' AND body LIKE '%{good_says}%'")) > 0
    });
}

#[test]
fn a_dag_whose_file_is_broken_when_the_service_starts_keeps_its_last_good_version() {
    let project = project();
    let up = Up::of(&project);
    wait_until_kept(&project, 2, "first version");
    project.write("dags/good.yaml", &GOOD.replace("first", "second"));
    wait_until_kept(&project, 2, "second version");
    up.running.kill();

    project.write("dags/good.yaml", "dag: good\ntasks: {{{\n");
    let up = Up::of(&project);
    let shown = up.get("/api/v1/dags/good");
    assert_eq!(shown["stale"], true);
    assert!(shown["broken"].as_str().unwrap().starts_with("dags/good.yaml is broken: line "), "{shown}");
    assert!(project.backstop(&["dags", "list"]).stdout.lines().any(|line| line.starts_with("good") && line.contains(" stale ")));
    let run = up.trigger("good", json!({}));
    up.wait_for_state(&run, "success");
    assert_eq!(project.ask("SELECT count(*) FROM effect WHERE what = 'second version'"), 1);

    // And once more: it is kept as long as its file is there.
    up.running.kill();
    let up = Up::of(&project);
    assert_eq!(up.get("/api/v1/dags/good")["stale"], true);
    project.write("dags/good.yaml", GOOD);
    wait("the file to be whole", || up.get("/api/v1/dags/good")["stale"] == false);
    up.running.kill();
    std::fs::remove_file(project.path().join("dags/good.yaml")).unwrap();
    project.write("dags/other.yaml", "dag: other\ntasks: {{{\n");
    let up = Up::of(&project);
    assert_eq!(up.ask("GET", "/api/v1/dags/good", None).status, 404, "its file is gone, and so is it");
    assert_eq!(up.get("/api/v1/dags/other")["stale"], true);
}

#[test]
fn a_dag_that_was_renamed_in_its_file_does_not_come_back_under_its_old_name() {
    let project = project();
    let up = Up::of(&project);
    wait_until_kept(&project, 2, "first version");
    project.write("dags/other.yaml", "dag: other\ntasks: {{{\n");
    wait("the other file to be seen", || up.get("/api/v1/dags/other")["stale"] == true);
    let is_there = |up: &Up, dag: &str| up.ask("GET", &format!("/api/v1/dags/{dag}"), None).status == 200;
    project.write("dags/good.yaml", &GOOD.replace("dag: good", "dag: better").replace("first", "second"));
    wait("the new name", || is_there(&up, "better"));
    assert!(!is_there(&up, "good") && is_there(&up, "other"));
    // What was kept of it is let go of, and what has its place is kept.
    wait_until_kept(&project, 2, "second version");
    up.running.kill();

    project.write("dags/good.yaml", &GOOD.replace("dag: good", "dag: best").replace("first", "third"));
    let up = Up::of(&project);
    assert!(is_there(&up, "best") && is_there(&up, "other") && !is_there(&up, "better"));
    wait_until_kept(&project, 2, "third version");
    // Where no name can be read, it is the one of the last good version.
    up.running.kill();
    project.write("dags/good.yaml", "dag: [\n");
    let up = Up::of(&project);
    assert_eq!(up.get("/api/v1/dags/best")["stale"], true);
}

#[test]
fn it_is_said_which_dags_a_broken_project_keeps_from_being_loaded() {
    let project = project();
    let up = Up::of(&project);
    wait_until_kept(&project, 2, "first version");
    up.running.kill();
    let yaml = std::fs::read_to_string(project.path().join("backstop.yaml")).unwrap();
    project.write("backstop.yaml", &format!("{yaml}pools: {{{{{{\n"));
    let mut up = Up::of(&project);
    up.running.wait_for("2 DAGs not loaded that the store knows: backstop.yaml is broken: line ");
    assert_eq!(up.get("/health")["dags_not_loaded"], 2);
    let asked = project.backstop(&["trigger", "good"]);
    assert_eq!(asked.code, Some(2));
    assert!(asked.stderr.contains("backstop.yaml is broken: line "), "{}", asked.stderr);
    project.write("backstop.yaml", &yaml);
    wait("the DAGs", || {
        up.get("/health")["dags_not_loaded"] == 0 && up.get("/api/v1/dags")["items"].as_array().unwrap().len() == 2
    });
}

#[test]
fn a_dag_that_is_gone_is_let_go_on_as_long_as_it_has_runs() {
    let project = project();
    let mut up = Up::of(&project);
    let pause = |up: &Up, paused: bool| up.ask("PATCH", "/api/v1/dags/good", Some(&json!({ "paused": paused, "why": "a test" })));
    assert_eq!(pause(&up, true).status, 200);
    let run = up.trigger("good", json!({}));
    std::fs::remove_file(project.path().join("dags/good.yaml")).unwrap();
    wait("the DAG to be gone", || up.ask("GET", "/api/v1/dags/good", None).status == 404);
    up.running.kill();
    up = Up::of(&project);
    let why = up.get(&format!("/api/v1/runs/{run}/why"))["why"].clone();
    assert_eq!(why, Value::from("its DAG is paused"));
    let outcome = project.backstop(&["dags", "unpause", "good", "--reason", "a test"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    up.wait_for_state(&run, "success");
    let unknown = up.ask("PATCH", "/api/v1/dags/goad", Some(&json!({ "paused": true, "why": "a test" })));
    assert_eq!(unknown.status, 404, "{}", unknown.body);
}
