//! What is kept of a schedule, through services that die.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

fn runs(up: &Up) -> Vec<Value> {
    up.get("/api/v1/runs?dag=nightly")["items"].as_array().unwrap().clone()
}

#[test]
fn a_dag_without_a_start_runs_though_each_service_died_before_its_time() {
    let dag =
        "dag: nightly\nconnection: db\nschedule: \"@daily\"\ntasks:\n  work: {sql: \"INSERT INTO effect VALUES ('{{ ds }}')\"}\n";
    let project = Project::new(&[("dags/nightly.yaml", dag)]);
    project.sql("CREATE TABLE effect (day text)");
    let up = Up::of(&project);
    let next = up.get("/api/v1/dags/nightly")["next_run_at"].clone();
    assert!(next.is_string());
    assert_eq!(runs(&up), [Value::Null; 0]);
    up.running.kill();
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    let kept = |what: &str| -> Option<String> {
        let sql = "SELECT body ->> ?1 FROM entries WHERE kind = 'dag' AND key = 'nightly'";
        store.query_row(sql, [format!("$.{what}")], |row| row.get(0)).unwrap()
    };
    let since = kept("since").expect("it is kept when it is seen first");
    Up::of(&project).running.kill();
    assert_eq!((kept("since"), kept("cursor")), (Some(since), None), "and not again");
    // As if that had been three days ago, with a service that was never there at midnight.
    let earlier = "UPDATE entries SET body = json_set(body, '$.since', strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-3 days')) \
                   WHERE kind = 'dag' AND key = 'nightly'";
    assert_eq!(store.execute(earlier, []).unwrap(), 1);
    for _ in 0..2 {
        let up = Up::of(&project);
        wait("the run of the last midnight", || runs(&up).iter().any(|run| run["state"] == "success"));
        assert_eq!((runs(&up).len(), &runs(&up)[0]["run_type"]), (1, &json!("scheduled")));
        assert_eq!(up.get("/api/v1/dags/nightly")["next_run_at"], next);
        up.running.kill();
    }
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 1);
}
