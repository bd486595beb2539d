//! Deadlines of runs that wait: whoever wants to know is told in time, once, through kill -9, and whatever the run waits for.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;
use std::time::{Duration, Instant};

const HOLD: &str = "shell: \"while [ -e backstop.yaml ] && [ ! -e done ]; do sleep 0.05; done\"";

fn project(rest: &str) -> Project {
    let dag = format!(
        "dag: late\nconnection: db\ndeadlines: [{{within: 3s, of: queued_at}}]\n\
         on_deadline:\n  - {{shell: \"echo '{{{{ run_id }}}} {{{{ exception }}}}' >> told\"}}\n  \
         - {{sql: \"INSERT INTO alert VALUES ('{{{{ run_id }}}}')\"}}\n{rest}"
    );
    let project = Project::new(&[("dags/late.yaml", &dag)]);
    project.sql("CREATE TABLE alert (run text)");
    project
}

fn told(project: &Project, run: &str) -> Vec<String> {
    let told = std::fs::read_to_string(project.path().join("told")).unwrap_or_default();
    told.lines().filter(|line| line.starts_with(run)).map(str::to_owned).collect()
}

fn events(up: &Up, run: &str, kind: &str) -> usize {
    let events = up.get(&format!("/api/v1/runs/{run}/events?limit=1000"));
    events["items"].as_array().unwrap().iter().filter(|event| event["type"] == kind).count()
}

/// Both callbacks have run, once.
fn assert_told_once(project: &Project, up: &Up, run: &str) {
    wait("the alerts", || events(up, run, "callback_finished") == 2);
    assert_eq!(events(up, run, "deadline_missed"), 1);
    let lines = told(project, run);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with(&format!("{run} the run is not done, and its deadline ")), "{lines:?}");
    assert_eq!(project.ask(&format!("SELECT count(*) FROM alert WHERE run = '{run}'")), 1);
}

#[test]
fn a_run_that_waits_because_its_dag_is_paused_is_late_all_the_same() {
    let project = project("tasks:\n  work: {sql: SELECT 1}\n");
    assert_eq!(project.backstop(&["dags", "pause", "late", "--reason", "a test"]).code, Some(0));
    let mut up = Up::of(&project);
    let first = up.trigger("late", json!({}));
    assert_told_once(&project, &up, &first);
    assert_eq!((up.state(&first).as_str(), events(&up, &first, "run_started")), ("queued", 0));
    let why = up.get(&format!("/api/v1/runs/{first}/why"))["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("its DAG is paused; it has missed its deadline "), "{why}");
    assert!(project.data(&["runs", "why", &first]).contains("it has missed its deadline "));
    up.running.wait_for(&format!("run {first} of DAG `late` missed its deadline "));

    // One whose deadline passes while no service is there is told of by the next, and the other not again.
    let second = up.trigger("late", json!({}));
    let asked = Instant::now();
    up.running.kill();
    wait("the deadline to pass", || asked.elapsed() > Duration::from_secs(4));
    let up = Up::of(&project);
    assert_told_once(&project, &up, &second);
    up.running.kill();
    let up = Up::of(&project);
    let third = up.trigger("late", json!({}));
    assert_told_once(&project, &up, &third);

    let unpaused = up.ask("PATCH", "/api/v1/dags/late", Some(&json!({ "paused": false, "why": "a test" })));
    assert_eq!(unpaused.status, 200, "{}", unpaused.body);
    for run in [&first, &second, &third] {
        up.wait_for_state(run, "success");
        assert_told_once(&project, &up, run);
    }
}

#[test]
fn a_run_that_waits_for_another_one_is_late_while_it_waits() {
    let project = project(&format!("max_active_runs: 1\ntasks:\n  hold: {{{HOLD}}}\n"));
    let up = Up::of(&project);
    let runs = [up.trigger("late", json!({})), up.trigger("late", json!({}))];
    assert_told_once(&project, &up, &runs[0]);
    assert_told_once(&project, &up, &runs[1]);
    assert_eq!((up.state(&runs[0]).as_str(), up.state(&runs[1]).as_str()), ("running", "queued"));
    let metrics = up.ask("GET", "/metrics", None).body.as_str().unwrap().to_owned();
    assert!(metrics.contains("backstop_deadlines_total{kind=\"missed\"} 2"), "{metrics}");
    // What steers it is done although its deadline was told of.
    let cancel = json!({ "who": "ann", "why": "too late" });
    assert_eq!(up.ask("POST", &format!("/api/v1/runs/{}/cancel", runs[1]), Some(&cancel)).status, 202);
    up.wait_for_state(&runs[1], "cancelled");
    project.write("done", "");
    up.wait_for_state(&runs[0], "success");
    runs.iter().for_each(|run| assert_told_once(&project, &up, run));
}
