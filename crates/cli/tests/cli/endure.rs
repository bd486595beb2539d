//! What a service lives through: a full disk, a DAG that gets another name, a run whose process died.

use crate::disaster::Mount;
use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;
use std::fs;

/// Commits, waits until table `gate` has a row, commits again.
const TASKS: &str = "connection: db\ntasks:\n  first: {sql: \"INSERT INTO effect VALUES ('first')\"}\n  \
                     gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}, after: [first]}\n  \
                     last: {sql: \"INSERT INTO effect VALUES ('last')\", after: [gate]}\n";

fn gated() -> Project {
    let project = Project::new(&[("dags/gated.yaml", &format!("dag: gated\n{TASKS}"))]);
    project.sql("CREATE TABLE effect (what text); CREATE TABLE gate (a int)");
    project
}

fn effects(project: &Project) -> (i64, i64) {
    let count = |what: &str| project.ask(&format!("SELECT count(*) FROM effect WHERE what = '{what}'"));
    (count("first"), count("last"))
}

fn wait_for_gate(up: &Up, run: &str) {
    wait("the gate", || ["up_for_reschedule", "deferred"].contains(&&*up.task(run, "gate")));
}

#[test]
fn a_full_disk_is_said_and_the_service_goes_on_by_itself_when_there_is_room() {
    let Some(mount) = Mount::new("8m") else { return };
    let project = gated();
    let up = Up::with(&project, &["--store", &mount.store()]);
    let run = up.trigger("gated", json!({}));
    wait_for_gate(&up, &run);
    let filler = mount.fill();
    wait("the service to say that the disk is full", || {
        let health = up.ask("GET", "/health", None);
        health.status == 503 && health.body["detail"].as_str().is_some_and(|detail| detail.contains("the disk is full"))
    });
    let refused = up.ask("POST", "/api/v1/dags/gated/runs", Some(&json!({ "run_id": "while-it-is-full" })));
    assert_eq!((refused.status, refused.body["type"].as_str()), (503, Some("store")), "{}", refused.body);
    assert!(refused.body["hint"].as_str().unwrap().contains("make room"), "{}", refused.body);
    // What is there can be read.
    assert_eq!(up.get(&format!("/api/v1/runs/{run}"))["run_id"], *run);
    project.sql("INSERT INTO gate VALUES (1)");
    fs::remove_file(filler).unwrap();
    wait("the service to be healthy", || up.ask("GET", "/health", None).status == 200);
    up.wait_for_state(&run, "success");
    assert_eq!(effects(&project), (1, 1));
    // What was refused can be asked for again.
    let again = up.trigger("gated", json!({ "run_id": "while-it-is-full" }));
    up.wait_for_state(&again, "success");
    assert_eq!(effects(&project), (2, 2));
}

#[test]
fn a_dag_that_gets_another_name_while_it_runs_ends_under_the_old_one() {
    let project = gated();
    let up = Up::of(&project);
    let run = up.trigger("gated", json!({}));
    wait_for_gate(&up, &run);
    fs::remove_file(project.path().join("dags/gated.yaml")).unwrap();
    project.write("dags/renamed.yaml", &format!("dag: renamed\n{TASKS}"));
    wait("the new name", || up.ask("GET", "/api/v1/dags/renamed", None).status == 200);
    wait("the old name to be gone", || up.ask("GET", "/api/v1/dags/gated", None).status == 404);
    up.running.kill();
    let up = Up::of(&project);
    project.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&run, "success");
    assert_eq!(effects(&project), (1, 1));
    assert_eq!(up.get(&format!("/api/v1/runs/{run}"))["dag"], "gated");
    assert_eq!(up.get("/api/v1/runs?dag=renamed")["items"], json!([]));
}

#[test]
fn a_run_whose_own_process_died_is_taken_over() {
    let project = gated();
    let up = Up::of(&project);
    let mut running = project.start(&["run", "gated", "-v"]);
    running.wait_for("gate: ");
    let run = project.newest();
    assert_eq!(up.get("/metrics").as_str().map(|text| text.contains("backstop_runs{state=\"active\"} 0")), Some(true));
    running.kill();
    project.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&run, "success");
    assert_eq!(effects(&project), (1, 1));
}
