//! The SQL of task instances by the API: rendered as in their run, without secrets.

use crate::project::Project;
use crate::up::Up;
use serde_json::{Value, json};

const DAG: &str = "dag: d
connection: db
params:
  region: {type: string, default: eu}
tasks:
  first: {sql: SELECT 41 + 1 AS answer, result: scalar}
  load:
    sql: sql/load.sql
    parameters: {day: '{{ ds }}', answer: \"{{ ti.xcom_pull('first') }}\", password: '{{ var.value.pin_secret }}'}
    after: [first]
  each: {sql: \"SELECT '{{ item }}'\", for_each: [a, b], after: [load]}
  check: {check: {sql: SELECT 1, min: SELECT 0, max: 3}, after: [load]}
  note: {shell: 'true', after: [load]}
  plain: {sql: \"SELECT '{{ params.region }}'\", templated: false, after: [load]}
";
const LOAD: &str = "-- of {{ params.region }}, try {{ ti.try_number }}
INSERT INTO effect VALUES (:day || :answer || :password || '{{ var.value.api_token | upper }}');
";

fn sql(up: &Up, run: &str, task: &str) -> Value {
    up.get(&format!("/api/v1/runs/{run}/tasks/{task}/sql"))
}

#[test]
fn the_sql_of_a_task_instance_is_told_as_it_was_sent() {
    let project = Project::new(&[("dags/d.yaml", DAG), ("sql/load.sql", LOAD)]);
    project.sql("CREATE TABLE effect (what text)");
    project.data(&["variables", "set", "api_token", "t0ps3cret-value"]);
    project.data(&["variables", "set", "pin_secret", "777"]);
    let up = Up::of(&project);
    let run = up.trigger("d", json!({ "logical_date": "2025-05-01T00:00:00Z", "params": { "region": "us" } }));
    up.wait_for_state(&run, "success");
    assert_eq!(project.ask("SELECT count(*) FROM effect WHERE what = '2025-05-0142777T0PS3CRET-VALUE'"), 1);

    let load = sql(&up, &run, "load");
    assert_eq!((&load["kind"], &load["connection"], &load["try_number"]), (&json!("sql"), &json!("db"), &json!(1)));
    let text = &load["texts"][0];
    let told = "-- of us, try 1\nINSERT INTO effect VALUES (:day || :answer || :password || '***');\n";
    assert_eq!(text["sql"].as_str().map(str::trim_end), Some(told.trim_end()));
    assert_eq!((&text["file"], &text["line"], &text["cut"]), (&json!("sql/load.sql"), &json!(1), &json!(false)));
    assert_eq!(text["parameters"], json!({ "answer": 42, "day": "2025-05-01", "password": "***" }));
    let all =
        ["first", "load", "each%5B1%5D", "check", "note", "plain"].map(|task| sql(&up, &run, task)["texts"].to_string()).concat();
    assert!(!all.to_lowercase().contains("t0ps3cret") && !all.contains("777"), "{all}");

    assert_eq!(sql(&up, &run, "each%5B1%5D")["texts"][0]["sql"], "SELECT 'b'");
    let check = sql(&up, &run, "check");
    let whats: Vec<&str> = check["texts"].as_array().unwrap().iter().map(|text| text["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["check", "lower bound"]);
    assert_eq!(sql(&up, &run, "note")["texts"], json!([]));
    assert_eq!(sql(&up, &run, "plain")["texts"][0]["sql"], "SELECT '{{ params.region }}'");

    // What ran is told from the files it ran with.
    project.write("sql/load.sql", &LOAD.replace("INTO effect", "INTO another"));
    crate::up::wait("the new file", || up.get("/api/v1/dags/d/source")["files"].to_string().contains("another"));
    assert_eq!(sql(&up, &run, "load")["texts"][0], *text);
}

#[test]
fn what_has_no_sql_to_tell_is_refused_with_the_reason() {
    let dag = "dag: d\nconnection: db\nparams:\n  zero: {type: integer, default: 0}\ntasks:\n  \
               load: {sql: \"SELECT {{ 1 // params.zero }}\"}\n  each: {sql: SELECT 1, for_each: [a]}\n";
    let project = Project::new(&[("dags/d.yaml", dag)]);
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    up.wait_for_state(&run, "failed");
    let refused = |path: &str| {
        let answer = up.ask("GET", &format!("/api/v1/runs/{path}/sql"), None);
        (answer.status, answer.body["detail"].as_str().unwrap().to_owned(), answer.body["hint"].clone())
    };
    let (status, detail, _) = refused(&format!("{run}/tasks/load"));
    assert_eq!(status, 409, "{detail}");
    assert!(detail.contains("dags/d.yaml:6:") && detail.contains("render the template"), "{detail}");
    assert_eq!(refused("nobody/tasks/load").0, 404);
    let (status, _, hint) = refused(&format!("{run}/tasks/laod"));
    assert_eq!((status, hint), (404, json!("did you mean `load`?")));
    for (task, told) in [("each", "such as `each[0]`"), ("load%5B0%5D", "is not mapped")] {
        let (status, detail, hint) = refused(&format!("{run}/tasks/{task}"));
        assert!(status == 404 && hint.to_string().contains(told), "{task}: {status} {detail} {hint}");
    }
    assert_eq!(refused(&format!("{run}/tasks/each%5B7%5D")).0, 404);
}
