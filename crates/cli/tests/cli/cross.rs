//! DAGs that start and await each other, through crashes.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

const CHILD: &str = "dag: child\nconnection: db\nparams:\n  region: eu\ntasks:\n  \
                     gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}}\n  \
                     work: {sql: \"INSERT INTO effect VALUES ('child {{ params.region }} {{ ds }}')\", after: [gate]}\n";

fn project(child: &str, parent: &str) -> Project {
    let project = Project::new(&[("dags/child.yaml", child), ("dags/parent.yaml", parent)]);
    project.sql("CREATE TABLE effect (what text); CREATE TABLE gate (a int)");
    project
}

fn count(project: &Project, what: &str) -> i64 {
    project.ask(&format!("SELECT count(*) FROM effect WHERE what = '{what}'"))
}

/// The runs of a DAG, newest first.
fn runs(up: &Up, dag: &str) -> Vec<Value> {
    up.get(&format!("/api/v1/runs?dag={dag}&limit=1000"))["items"].as_array().unwrap().clone()
}

fn why(up: &Up, run: &str, task: &str) -> String {
    up.get(&format!("/api/v1/runs/{run}/tasks/{task}/why"))["why"].as_str().unwrap().to_owned()
}

fn is_waiting(up: &Up, run: &str, task: &str) -> bool {
    ["deferred", "up_for_reschedule"].contains(&up.task(run, task).as_str())
}

#[test]
fn a_child_is_made_once_and_waited_for_through_kill_9() {
    let parent = "dag: parent\nconnection: db\ntasks:\n  \
                  call: {dag: {id: child, params: {region: \"{{ 'u' ~ 's' }}\"}}}\n  \
                  after: {sql: \"INSERT INTO effect VALUES ('after {{ ti.xcom_pull('call') }}')\", after: [call]}\n";
    let project = project(CHILD, parent);
    let mut up = Up::of(&project);
    let run = up.trigger("parent", json!({ "logical_date": "2026-03-01T00:00:00Z" }));
    wait("the child", || runs(&up, "child").len() == 1);
    let child = runs(&up, "child")[0].clone();
    let id = child["run_id"].as_str().unwrap();
    assert_eq!(child["started_by"], json!({ "run_id": run, "task": "call", "map_index": null }));
    assert_eq!((&child["logical_date"], &child["params"]), (&json!("2026-03-01T00:00:00Z"), &json!({ "region": "us" })));
    for _ in 0..3 {
        let told = format!("it waits for run {id} of DAG `child`: run {id} is running");
        wait("the wait", || is_waiting(&up, &run, "call") && why(&up, &run, "call") == told);
        up.running.kill();
        up = Up::of(&project);
    }
    project.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&run, "success");
    assert_eq!(runs(&up, "child").len(), 1, "one attempt never makes two");
    assert_eq!((count(&project, "child us 2026-03-01"), count(&project, &format!("after {id}"))), (1, 1));
    let shown = project.data(&["runs", "show", id]);
    assert!(shown.contains(&format!("call of run {run}")), "{shown}");
}

#[test]
fn a_child_that_fails_fails_its_task_and_a_retry_takes_the_mended_one() {
    let child = "dag: child\nconnection: db\ntasks:\n  work: {sql: \"INSERT INTO effect SELECT 'child' FROM missing\"}\n";
    let parent = "dag: parent\nconnection: db\ntasks:\n  call: {dag: child}\n  \
                  after: {sql: \"INSERT INTO effect VALUES ('after')\", after: [call]}\n";
    let project = project(child, parent);
    let up = Up::of(&project);
    let run = up.trigger("parent", json!({}));
    up.wait_for_state(&run, "failed");
    let child = runs(&up, "child")[0]["run_id"].as_str().unwrap().to_owned();
    let tasks = up.get(&format!("/api/v1/runs/{run}/tasks?task=call"));
    let error = tasks["items"][0]["error"].as_str().unwrap();
    assert!(error.contains(&format!("run {child} is failed: `work`: ")), "{error}");
    // The other run is mended, and this one goes on with it: its effects are there once.
    project.sql("CREATE TABLE missing (a int); INSERT INTO missing VALUES (1)");
    let by = json!({ "why": "the table is there now" });
    assert_eq!(up.ask("POST", &format!("/api/v1/runs/{child}/retry"), Some(&by)).status, 200);
    up.wait_for_state(&child, "success");
    assert_eq!(up.ask("POST", &format!("/api/v1/runs/{run}/retry"), Some(&by)).status, 200);
    up.wait_for_state(&run, "success");
    assert_eq!((count(&project, "child"), count(&project, "after"), runs(&up, "child").len()), (1, 1, 1));
    // A clear asks for the effects once more.
    let cleared = up.ask("POST", &format!("/api/v1/runs/{run}/clear"), Some(&json!({ "why": "again" })));
    assert_eq!(cleared.status, 200, "{}", cleared.body);
    wait("the effects of the clear", || count(&project, "after") == 2);
    assert_eq!((count(&project, "child"), runs(&up, "child").len()), (2, 2));
}

#[test]
fn automatic_retries_start_a_new_child_each() {
    let child = "dag: child\nconnection: db\ntasks:\n  work: {sql: \"INSERT INTO effect SELECT 'child' FROM missing\"}\n";
    let parent = "dag: parent\nconnection: db\ntasks:\n  call: {dag: child, retries: 2, retry_delay: 0}\n";
    let project = project(child, parent);
    let up = Up::of(&project);
    let run = up.trigger("parent", json!({}));
    up.wait_for_state(&run, "failed");
    assert_eq!(runs(&up, "child").len(), 3);
}

#[test]
fn the_run_about_the_same_date_is_waited_for_and_a_cancel_leaves_it_alone() {
    let parent = "dag: parent\nconnection: db\ntasks:\n  wait: {wait_for: child}\n  \
                  part: {wait_for: {dag: child, task: work, logical_date: \"{{ data_interval_end }}\"}}\n  \
                  after: {sql: \"INSERT INTO effect VALUES ('after')\", after: [wait, part]}\n";
    let project = project(CHILD, parent);
    let up = Up::of(&project);
    let date = json!({ "logical_date": "2026-03-01T00:00:00Z" });
    let (first, second) = (
        up.trigger("parent", date.clone()),
        up.trigger("parent", json!({ "logical_date": "2026-03-01T00:00:00Z", "again": true })),
    );
    for run in [&first, &second] {
        let told = "it waits for the run of DAG `child` about 2026-03-01T00:00:00Z: there is none yet";
        wait("both to wait", || is_waiting(&up, run, "wait") && why(&up, run, "wait") == told);
    }
    let other = up.trigger("child", json!({ "logical_date": "2026-03-02T00:00:00Z" }));
    let child = up.trigger("child", date);
    wait("it to be seen", || why(&up, &first, "wait").contains(&format!("run {child} is running")));
    let cancelled = up.ask("POST", &format!("/api/v1/runs/{second}/cancel"), Some(&json!({ "why": "one is enough" })));
    assert_eq!(cancelled.status, 202, "{}", cancelled.body);
    up.wait_for_state(&second, "cancelled");
    up.running.kill();
    let up = Up::of(&project);
    project.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&first, "success");
    assert_eq!((up.state(&child).as_str(), count(&project, "after")), ("success", 1));
    up.wait_for_state(&other, "success");
}

#[test]
fn a_run_of_some_tasks_does_not_pass_for_the_whole() {
    let two = "dag: two\nconnection: db\ntasks:\n  \
               p: {sql: \"INSERT INTO effect VALUES ('p')\"}\n  q: {sql: \"INSERT INTO effect VALUES ('q')\", after: [p]}\n";
    let parent = "dag: parent\nconnection: db\ntasks:\n  part: {wait_for: {dag: two, task: p}}\n  \
                  whole: {wait_for: two}\n  after: {sql: \"INSERT INTO effect VALUES ('after')\", after: [whole]}\n";
    let project = project(two, parent);
    let up = Up::of(&project);
    let date = "2026-03-05T00:00:00Z";
    let partial = up.trigger("two", json!({ "logical_date": date, "tasks": ["p"] }));
    up.wait_for_state(&partial, "success");
    let run = up.trigger("parent", json!({ "logical_date": date }));
    wait("what was done of it to be seen", || up.task(&run, "part") == "success");
    let told = format!("it waits for the run of DAG `two` about {date}: there is none yet");
    wait("the rest to be waited for", || is_waiting(&up, &run, "whole") && why(&up, &run, "whole") == told);
    assert_eq!((count(&project, "q"), count(&project, "after")), (0, 0));
    let again = up.ask("POST", "/api/v1/dags/two/runs", Some(&json!({ "logical_date": date, "tasks": ["p"] })));
    assert_eq!(again.status, 409, "the same part once more: {}", again.body);
    let whole = up.trigger("two", json!({ "logical_date": date }));
    up.wait_for_state(&whole, "success");
    up.wait_for_state(&run, "success");
    assert_eq!((count(&project, "q"), count(&project, "after")), (1, 1));
}

#[test]
fn what_failed_is_waited_on_skipped_or_fails_the_task() {
    let child = "dag: child\nconnection: db\ntasks:\n  work: {sql: \"INSERT INTO effect SELECT 'child' FROM missing\"}\n";
    let parent = "dag: parent\nconnection: db\ntasks:\n  fails: {wait_for: child}\n  \
                  skips: {wait_for: {dag: child, if_failed: skip}}\n  waits: {wait_for: {dag: child, if_failed: wait}}\n  \
                  gives_up: {wait_for: {dag: child, if_failed: wait, timeout: 1s, soft_fail: true}}\n";
    let project = project(child, parent);
    let up = Up::of(&project);
    let date = json!({ "logical_date": "2026-03-01T00:00:00Z" });
    let child = up.trigger("child", date.clone());
    up.wait_for_state(&child, "failed");
    let run = up.trigger("parent", date);
    wait("the outcomes", || ["fails", "skips", "gives_up"].map(|task| up.task(&run, task)) == ["failed", "skipped", "skipped"]);
    assert!(is_waiting(&up, &run, "waits"), "{}", up.task(&run, "waits"));
    project.sql("CREATE TABLE missing (a int); INSERT INTO missing VALUES (1)");
    assert_eq!(up.ask("POST", &format!("/api/v1/runs/{child}/retry"), Some(&json!({ "why": "mended" }))).status, 200);
    wait("the patient one", || up.task(&run, "waits") == "success");
}

#[test]
fn dags_that_start_each_other_come_to_an_end() {
    let of =
        |dag: &str, other: &str| format!("dag: {dag}\nconnection: db\ntasks:\n  call: {{dag: {{id: {other}, wait: false}}}}\n");
    let project = project(&of("child", "parent"), &of("parent", "child"));
    let up = Up::of(&project);
    up.trigger("parent", json!({}));
    wait("the last of the chain", || runs(&up, "parent").iter().any(|run| run["state"] == "failed"));
    assert_eq!((runs(&up, "parent").len(), runs(&up, "child").len()), (17, 16));
    let last = runs(&up, "parent").into_iter().find(|run| run["state"] == "failed").unwrap();
    let tasks = up.get(&format!("/api/v1/runs/{}/tasks", last["run_id"].as_str().unwrap()));
    assert_eq!(tasks["items"][0]["error"], "32 runs have started one another, and this would be one more");
}

#[test]
fn a_run_that_is_driven_alone_waits_for_others_and_starts_none() {
    let parent = "dag: parent\nconnection: db\ntasks:\n  call: {dag: child}\n  wait: {wait_for: child}\n";
    let project = project("dag: child\nconnection: db\ntasks:\n  work: {sql: \"INSERT INTO effect VALUES ('child')\"}\n", parent);
    let refused = project.backstop(&["run", "parent"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("task `call` starts a run of DAG `child`"), "{}", refused.stderr);
    assert_eq!(project.backstop(&["run", "child", "--logical-date", "2026-03-01"]).code, Some(0));
    let waited = project.backstop(&["run", "parent", "--task", "wait", "--logical-date", "2026-03-01"]);
    assert_eq!(waited.code, Some(0), "{}", waited.stderr);
}

/// Lines of a file that callbacks write.
fn told(project: &Project) -> Vec<String> {
    std::fs::read_to_string(project.path().join("told")).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn events(up: &Up, run: &str, kind: &str) -> usize {
    let events = up.get(&format!("/api/v1/runs/{run}/events?limit=1000"));
    events["items"].as_array().unwrap().iter().filter(|event| event["type"] == kind).count()
}

#[test]
fn a_deadline_is_told_once_when_missed_and_before_when_the_past_says_so() {
    let dag = "dag: late\nconnection: db\ndeadlines: [{within: 1s}]\n\
               on_deadline: {shell: \"echo '{{ run_id }} {{ exception }}' >> told\"}\ntasks:\n  \
               gate: {sensor: {sql: \"SELECT count(*) FROM gate WHERE a = {{ params.n }}\", poke_interval: 1s}}\nparams:\n  n: 1\n";
    let project = Project::new(&[("dags/late.yaml", dag)]);
    project.sql("CREATE TABLE gate (a int)");
    let mut up = Up::of(&project);
    for n in 1..=3 {
        let run = up.trigger("late", json!({ "params": { "n": n } }));
        wait("the alert", || told(&project).len() == n);
        assert!(
            told(&project)[n - 1].starts_with(&format!("{run} the run is not done, and its deadline ")),
            "{:?}",
            told(&project)
        );
        if n == 1 {
            // No crash tells it again. (A shell command whose end is not recorded would be run again.)
            wait("the end of the alert", || events(&up, &run, "callback_finished") == 1);
            up.running.kill();
            up = Up::of(&project);
        }
        project.sql(&format!("INSERT INTO gate VALUES ({n})"));
        up.wait_for_state(&run, "success");
        assert_eq!(
            (events(&up, &run, "deadline_missed"), events(&up, &run, "deadline_at_risk"), told(&project).len()),
            (1, 0, n)
        );
    }
    let run = up.trigger("late", json!({ "params": { "n": 4 } }));
    wait("both alerts", || told(&project).len() == 5);
    assert!(told(&project)[3].starts_with(&format!("{run} the run will probably miss its deadline ")), "{:?}", told(&project));
    assert_eq!((events(&up, &run, "deadline_missed"), events(&up, &run, "deadline_at_risk")), (1, 1));
    let shown = project.data(&["runs", "show", &run]);
    assert!(shown.contains("its deadline is missed: it had to be done at "), "{shown}");
    let metrics = up.ask("GET", "/metrics", None).body.as_str().unwrap().to_owned();
    assert!(metrics.contains("backstop_deadlines_total{kind=\"at_risk\"} 1"), "{metrics}");
}

#[test]
fn a_run_that_is_stuck_tells_those_who_want_to_know() {
    let dag = "dag: risky\nconnection: db\non_stuck: {shell: \"echo '{{ exception }}' >> told\"}\ntasks:\n  \
               call: {shell: \"touch begun; while [ -e backstop.yaml ] && [ ! -e done ]; do sleep 0.05; done\"}\n";
    let project = Project::new(&[("dags/risky.yaml", dag)]);
    let up = Up::of(&project);
    let run = up.trigger("risky", json!({}));
    wait("the task", || project.path().join("begun").exists());
    up.running.kill();
    let up = Up::of(&project);
    up.wait_for_state(&run, "stuck");
    wait("the alert", || told(&project).len() == 1);
    assert!(told(&project)[0].starts_with("the run is stuck: a person must say what became of `call`: "), "{:?}", told(&project));
    // Another process finds it stuck as before, and tells nobody again.
    wait("the end of the alert", || events(&up, &run, "callback_finished") == 1);
    up.running.kill();
    let up = Up::of(&project);
    wait("the run to be known as stuck", || {
        up.get(&format!("/api/v1/runs/{run}/why"))["why"].as_str().unwrap().starts_with("a person")
    });
    project.write("done", "");
    let said = json!({ "task": "call", "took_effect": true, "why": "seen" });
    assert_eq!(up.ask("POST", &format!("/api/v1/runs/{run}/resolve"), Some(&said)).status, 202);
    up.wait_for_state(&run, "success");
}

#[test]
fn a_date_that_a_person_asked_for_gets_no_second_run_from_the_schedule() {
    let dag = |name: &str| {
        format!(
            "dag: {name}\nconnection: db\nschedule: \"@once\"\nstart_date: 2025-05-01\ntasks:\n  \
             work: {{sql: \"INSERT INTO effect VALUES ('{name}')\"}}\n  rest: {{sql: \"SELECT 1\"}}\n"
        )
    };
    let project = Project::new(&[("dags/whole.yaml", &dag("whole")), ("dags/part.yaml", &dag("part"))]);
    project.sql("CREATE TABLE effect (what text)");
    for dag in ["whole", "part"] {
        let paused = project.backstop(&["dags", "pause", dag, "--reason", "a test"]);
        assert_eq!(paused.code, Some(0), "{}", paused.stderr);
    }
    let up = Up::of(&project);
    let date = json!("2025-05-01T00:00:00Z");
    let asked = up.trigger("whole", json!({ "logical_date": date }));
    let partly = up.trigger("part", json!({ "logical_date": date, "tasks": ["work"] }));
    for dag in ["whole", "part"] {
        let answer = up.ask("PATCH", &format!("/api/v1/dags/{dag}"), Some(&json!({ "paused": false, "why": "a test" })));
        assert_eq!(answer.status, 200, "{}", answer.body);
        wait("the schedule to be through", || up.get(&format!("/api/v1/dags/{dag}"))["next_run_at"].is_null());
    }
    let made =
        |dag: &str| -> Vec<String> { runs(&up, dag).iter().map(|run| run["run_type"].as_str().unwrap().to_owned()).collect() };
    assert_eq!((made("whole"), made("part")), (vec!["manual".to_owned()], vec!["scheduled".to_owned(), "manual".to_owned()]));
    for run in [asked, partly, runs(&up, "part")[0]["run_id"].as_str().unwrap().to_owned()] {
        up.wait_for_state(&run, "success");
    }
    assert_eq!((count(&project, "whole"), count(&project, "part")), (1, 2));
    // And the other way round.
    let refused = up.ask("POST", "/api/v1/dags/part/runs", Some(&json!({ "logical_date": date })));
    assert_eq!(refused.status, 409, "{}", refused.body);
}
