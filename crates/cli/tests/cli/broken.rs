//! A file that breaks while the service goes on: whoever asks about its DAG is told, and by which line.

use crate::project::Project;
use crate::up::{Up, wait};

const GOOD: &str = "dag: good\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n";

#[test]
fn nothing_is_written_through_a_connection_that_is_gone() {
    let dag = |id: &str, connection: &str| {
        format!("dag: {id}\nconnection: {connection}\ntasks:\n  one: {{sql: INSERT INTO t VALUES (1)}}\n")
    };
    let project = Project::new(&[("dags/once.yaml", &dag("once", "db")), ("dags/other.yaml", &dag("other", "db2"))]);
    let connections = |first: &str| {
        format!(
            "name: test\nconnections:\n  {first}: {{conn_type: sqlite, database: data.db}}\n  db2: {{conn_type: sqlite, database: data.db}}\n"
        )
    };
    project.write("backstop.yaml", &connections("db"));
    project.sql("CREATE TABLE t (a int)");
    let up = Up::of(&project);
    assert_eq!(project.backstop(&["trigger", "once", "--wait"]).code, Some(0));
    assert_eq!(project.ask("SELECT count(*) FROM t"), 1);

    // It is renamed, and the DAG is not; another DAG is broken as well, and has what it needs.
    project.write("backstop.yaml", &connections("dwh"));
    project.write("dags/other.yaml", "dag: other\ntasks: {{{\n");
    wait("the trouble", || {
        up.ask("GET", "/api/v1/dags/once", None).status == 404 && up.get("/api/v1/dags/other")["stale"] == true
    });
    let asked = project.backstop(&["trigger", "once", "--wait"]);
    assert_eq!(asked.code, Some(2), "{}", asked.stderr);
    assert!(asked.stderr.contains("there is no connection `db`"), "{}", asked.stderr);
    assert!(project.backstop(&["dags", "why", "once"]).stderr.contains("there is no connection `db`"));
    assert_eq!(project.ask("SELECT count(*) FROM t"), 1, "nothing went through the old one");
    assert_eq!(project.backstop(&["trigger", "other", "--wait"]).code, Some(0), "its last good version runs");

    project.write("backstop.yaml", &connections("db"));
    wait("the connection", || up.ask("GET", "/api/v1/dags/once", None).status == 200);
    assert_eq!(project.backstop(&["trigger", "once", "--wait"]).code, Some(0));
    assert_eq!(project.ask("SELECT count(*) FROM t"), 3);
}

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
