//! A file that breaks while the service goes on: whoever asks about its DAG is told, and by which line.

use crate::project::Project;
use crate::up::{Up, wait};

const GOOD: &str = "dag: good\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n";

#[test]
fn who_asks_about_a_dag_is_told_that_its_file_is_broken() {
    let project = Project::new(&[("dags/good.yaml", GOOD), ("dags/nightly.yaml", "dag: nightly\ntasks: {{{\n")]);
    let up = Up::of(&project);
    for command in [&["trigger", "nightly"][..], &["dags", "why", "nightly"]] {
        let outcome = project.backstop(command);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("there is no DAG `nightly`; dags/nightly.yaml is broken: line "), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("backstop check"), "{}", outcome.stderr);
    }
    assert_eq!(up.get("/api/v1/dags/good")["broken"], serde_json::Value::Null);

    project.write("dags/good.yaml", &GOOD.replace("sql:", "sqll:"));
    wait("the trouble", || up.get("/api/v1/dags/good")["stale"] == true);
    let broken = "dags/good.yaml is broken: line 4: ";
    let api = up.get("/api/v1/dags/good")["broken"].as_str().unwrap().to_owned();
    assert!(api.starts_with(broken), "{api}");
    assert!(project.data(&["dags", "why", "good"]).contains(broken));
    let asked = project.backstop(&["trigger", "good"]);
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    assert!(asked.stderr.contains(broken) && asked.stderr.contains("its last good version runs"), "{}", asked.stderr);

    let listed = project.backstop(&["dags", "list"]);
    let row = |file: &str| listed.stdout.lines().find(|line| line.ends_with(file)).unwrap().to_owned();
    assert!(row("dags/good.yaml").contains(" stale "), "{}", listed.stdout);
    assert!(row("dags/nightly.yaml").contains(" broken "), "{}", listed.stdout);
    assert!(listed.stderr.contains(broken) && listed.stderr.contains("dags/nightly.yaml is broken: line "), "{}", listed.stderr);

    project.write("dags/good.yaml", GOOD);
    wait("the file to be whole", || up.get("/api/v1/dags/good")["stale"] == false);
    assert!(!project.backstop(&["trigger", "good"]).stderr.contains("broken"));
}
