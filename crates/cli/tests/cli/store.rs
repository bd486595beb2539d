//! The store as a whole: checked, repaired, copied, measured, and rid of old runs.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;
use std::path::PathBuf;

fn ran(times: u32) -> Project {
    let project = Project::with_tasks("  fill: {sql: 'CREATE TABLE IF NOT EXISTS t (n INTEGER); INSERT INTO t VALUES (1)'}\n");
    for day in 1..=times {
        assert_eq!(project.backstop(&["run", "d", "--logical-date", &format!("2025-05-0{day}")]).code, Some(0));
    }
    project
}

fn store_of(project: &Project) -> PathBuf {
    project.path().join(".backstop/store.db")
}

/// Changes the store behind Backstop's back.
fn damage(project: &Project, sql: &str) {
    let store = rusqlite::Connection::open(store_of(project)).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    store.pragma_update(None, "foreign_keys", false).unwrap();
    store.execute_batch(sql).unwrap();
}

fn runs(project: &Project) -> usize {
    project.json(&["runs", "list", "--json"]).as_array().unwrap().len()
}

#[test]
fn a_store_is_checked_and_repaired() {
    let project = ran(2);
    let told = project.data(&["store", "check"]);
    assert!(told.starts_with("✓") && told.contains("is whole: 2 runs"), "{told}");
    damage(&project, "UPDATE runs SET state = 'failed' WHERE id = 1");
    let outcome = project.backstop(&["store", "check"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("lists show state failed, its log says success (can be repaired)"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("store check --repair"), "{}", outcome.stderr);
    let repaired = project.json(&["store", "check", "--repair", "--json"]);
    assert_eq!((&repaired["ok"], &repaired["repaired"]), (&json!(true), &json!(1)));
    assert_eq!(project.json(&["runs", "list", "--json", "--state", "failed"]), json!([]));
    // A log that is lost is not made up.
    damage(&project, "DELETE FROM events WHERE run = 1 AND seq = 2");
    for arguments in [["store", "check"].as_slice(), &["store", "check", "--repair"]] {
        let outcome = project.backstop(arguments);
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stdout.contains("its log has a gap") && outcome.stdout.contains("(lost)"), "{}", outcome.stdout);
    }
    assert_eq!(runs(&project), 2);
}

#[test]
fn a_store_is_not_repaired_beside_a_service_and_what_is_no_store_is_told() {
    let project = ran(1);
    let up = Up::of(&project);
    let refused = project.backstop(&["store", "check", "--repair"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("a service has it"), "{}", refused.stderr);
    assert_eq!(project.backstop(&["store", "check"]).code, Some(0));
    up.running.kill();
    project.write("other.db", "this was a store once");
    for command in ["check", "info"] {
        let outcome = project.backstop(&["store", command, "--store", "other.db"]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stdout);
        assert!(outcome.stderr.contains("it is not a Backstop store"), "{}", outcome.stderr);
    }
    assert_eq!(project.backstop(&["store", "info", "--store", "none.db"]).code, Some(2));
}

#[test]
fn a_backup_is_a_store_and_replaces_nothing() {
    let project = ran(2);
    let up = Up::of(&project);
    let told = project.data(&["store", "backup", "copy.db"]);
    assert!(told.starts_with("✓ copy.db: ") && told.contains("2 runs"), "{told}");
    let refused = project.backstop(&["store", "backup", "copy.db"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("it is not replaced"), "{}", refused.stderr);
    assert_eq!(project.backstop(&["store", "backup", "nowhere/copy.db"]).code, Some(2));
    up.running.kill();
    let copied = project.json(&["runs", "list", "--json", "--store", "copy.db"]);
    assert_eq!(copied.as_array().unwrap().len(), 2);
    let info = project.json(&["store", "info", "--json", "--store", "copy.db"]);
    assert_eq!((&info["runs"], &info["task_instances"]), (&json!({ "success": 2 }), &json!(2)));
}

#[test]
fn old_runs_go_with_their_markers_when_a_person_says_so() {
    let project = ran(3);
    let markers = || project.ask("SELECT count(*) FROM backstop_marker");
    assert_eq!(markers(), 3);
    assert_eq!(project.backstop(&["store", "prune", "--dry-run"]).code, Some(2), "which?");
    assert_eq!(project.backstop(&["store", "prune", "--keep", "1"]).code, Some(2), "why?");
    assert_eq!(project.data(&["store", "prune", "--keep", "1", "--dry-run"]), "2 runs would be removed\n    d: 2\n");
    assert_eq!(project.data(&["store", "prune", "--older-than", "90d", "--dry-run"]), "0 runs would be removed\n");
    assert_eq!((runs(&project), markers()), (3, 3));
    // One that is not over stays, however old.
    damage(&project, "UPDATE runs SET state = 'running', ended_at = NULL WHERE id = 1");
    let pruned = project.json(&["store", "prune", "--keep", "1", "--reason", "spring cleaning", "--who", "ann", "--json"]);
    assert_eq!((&pruned["runs_total"], &pruned["markers"]), (&json!(1), &json!(1)));
    assert_eq!((runs(&project), markers()), (2, 2));
    assert_eq!(project.json(&["store", "check", "--repair", "--json"])["ok"], true);
    let up = Up::of(&project);
    let act = &up.get("/api/v1/audit")["items"][0];
    assert_eq!((&act["who"], &act["why"]), (&json!("ann"), &json!("spring cleaning")));
    assert_eq!(act["what"], "removed 1 run (1 of `d`) and 1 marker");
}

#[test]
fn a_service_lets_old_runs_go_and_says_so() {
    let project = ran(3);
    let mut up = Up::of(&project);
    up.running.wait_for("keeps  all runs");
    up.running.kill();
    // Two of them ended long ago.
    damage(&project, "UPDATE runs SET ended_at = ended_at - 100 * 86400000000 WHERE id < 3");
    let mut up = Up::with(&project, &["--keep-runs-for", "90d"]);
    up.running.wait_for("runs are kept for 90 d");
    wait("the old runs to go", || {
        up.get("/api/v1/audit")["items"].as_array().unwrap().iter().any(|act| act["who"] == "backstop")
    });
    let act = &up.get("/api/v1/audit")["items"][0];
    assert_eq!(act["what"], "removed 2 runs (2 of `d`) and 2 markers");
    assert_eq!(act["why"], "runs are kept for 90 d");
    assert_eq!(up.get("/api/v1/runs")["items"].as_array().unwrap().len(), 1);
    assert_eq!(project.ask("SELECT count(*) FROM backstop_marker"), 1);
    assert_eq!(up.running.terminate().0, Some(0));
    let checked = project.json(&["store", "check", "--json"]);
    assert_eq!((&checked["ok"], &checked["runs"]), (&json!(true), &json!(1)));
}
