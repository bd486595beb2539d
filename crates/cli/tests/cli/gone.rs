//! DAGs whose files are gone while they have runs that are not over, projects of one name, and what one broken backstop.yaml is said of.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;

const OLD: &str = "dag: old\nconnection: db\ntasks:\n  gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}\n";
const NEW: &str = "dag: new\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n";

#[test]
fn a_dag_whose_file_is_gone_is_listed_as_long_as_it_has_runs() {
    let project = Project::new(&[("dags/old.yaml", OLD), ("dags/new.yaml", NEW)]);
    project.sql("CREATE TABLE gate (a int)");
    let up = Up::of(&project);
    let run = up.trigger("old", json!({}));
    wait("the sensor", || up.task(&run, "gate") == "up_for_reschedule");
    std::fs::remove_file(project.path().join("dags/old.yaml")).unwrap();
    wait("the DAG to be gone", || up.ask("GET", "/api/v1/dags/old", None).status == 404);
    let listed = || {
        let outcome = project.backstop(&["dags", "list"]);
        let row = outcome.stdout.lines().find(|line| line.starts_with("old ")).unwrap_or_default().to_owned();
        (row, outcome.stderr)
    };
    let (row, told) = listed();
    assert!(row.contains(" not loaded "), "{row}");
    assert!(told.contains("there is no DAG `old`; 1 run of it is not over, and goes on with the files of before"), "{told}");
    let why = project.data(&["dags", "why", "old"]);
    assert!(why.contains("old: there is no DAG `old`: no more runs of it are made\nold: 1 run of it is not over"), "{why}");
    assert_eq!(project.backstop(&["dags", "pause", "old"]).code, Some(0));
    assert!(project.data(&["dags", "why", "old"]).contains("backstop dags unpause old"));
    let rows = project.json(&["dags", "list", "--json"]);
    let row = rows.as_array().unwrap().iter().find(|row| row["dag"] == "old").unwrap();
    assert_eq!((&row["paused"], &row["unfinished_runs"], &row["file"]), (&json!(true), &json!(1), &json!(null)));
    assert_eq!(up.running.terminate().0, Some(0));
    let (row, told) = listed();
    assert!(row.contains(" not loaded ") && told.contains("1 run of it is not over"), "without a service: {row}{told}");
    let up = Up::of(&project);
    assert_eq!(up.ask("POST", &format!("/api/v1/runs/{run}/cancel"), Some(&json!({ "why": "no more" }))).status, 202);
    up.wait_for_state(&run, "cancelled");
    assert_eq!(listed().0, "", "nothing is left of it");
    assert_eq!(project.backstop(&["dags", "why", "old"]).code, Some(2));
}

#[test]
fn two_projects_of_one_name_are_refused() {
    let first = Project::new(&[("dags/new.yaml", NEW)]);
    let second = Project::new(&[("dags/old.yaml", OLD)]);
    let (one, two) = (first.path().to_string_lossy().into_owned(), second.path().to_string_lossy().into_owned());
    let refused = first.backstop(&["up", "--listen", "127.0.0.1:0", "--project", &one, "--project", &two]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("two projects are called `test`: ") && refused.stderr.contains("hint: write another `name:`")
    );
    // While the service goes on it is said, and nothing is counted as another's.
    let yaml = std::fs::read_to_string(second.path().join("backstop.yaml")).unwrap();
    second.write("backstop.yaml", &yaml.replace("name: test", "name: other"));
    let mut up = Up::with(&first, &["--project", &one, "--project", &two]);
    second.write("backstop.yaml", &yaml);
    up.running.wait_for("several projects are called `test`");
}

#[test]
fn what_follows_from_a_broken_project_file_is_said_once() {
    let dag = |name: &str| format!("dag: {name}\nconnection: shop\npool: night\ntasks:\n  one: {{sql: SELECT 1}}\n");
    let project = Project::new(&[]);
    for name in ["a", "b", "c"] {
        project.write(&format!("dags/{name}.yaml"), &dag(name).replace("pool: night\n", ""));
    }
    project.write("dags/d.yaml", "dag: d\ntasks:\n  one: {sqll: SELECT 1}\n");
    let whole = project.backstop(&["check"]);
    assert_eq!(
        whole.stdout.matches("there is no connection `shop`").count(),
        3,
        "each is a mistake of its own: {}",
        whole.stdout
    );
    project.write("backstop.yaml", "name: test\nconnections:\n  shop: {conn_type: sqlite, databse: data.db}\n");
    let broken = project.backstop(&["check"]);
    assert_eq!(broken.code, Some(2));
    assert_eq!(broken.stdout.matches("connection `shop` is wrong itself").count(), 1, "{}", broken.stdout);
    assert!(
        broken.stdout.contains("mend backstop.yaml first: this may follow from it, and is so in 2 other places"),
        "{}",
        broken.stdout
    );
    assert!(broken.stdout.contains("(2 more follow from backstop.yaml)") && broken.stdout.contains("sqll"), "{}", broken.stdout);
    let all = project.backstop(&["check", "--json"]).stdout;
    assert_eq!(all.matches("connection `shop` is wrong itself").count(), 3, "machines are told all: {all}");
    let mut up = Up::of(&project);
    up.running.wait_for_all(&["broken: backstop.yaml:3:", "broken: dags/d.yaml:"]);
    let (_, said) = up.running.terminate();
    assert!(!said.contains("broken: dags/a.yaml"), "{said}");
}

#[test]
fn the_address_alone_says_what_is_there() {
    let project = Project::new(&[("dags/new.yaml", NEW)]);
    let up = Up::of(&project);
    let answer = up.ask("GET", "/", None);
    assert_eq!(answer.status, 200);
    let text = answer.body.as_str().unwrap();
    for says in ["/api/v1", "/api/v1/openapi.json", "backstop --help", "docs/service.md"] {
        assert!(text.contains(says), "{says}: {text}");
    }
}
