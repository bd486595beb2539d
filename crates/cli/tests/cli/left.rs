//! Who goes on with a run that no process has: the service that has the store, or nobody.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::json;

/// A DAG whose second task goes on until there is a row in a table.
const GATED: &str = "dag: gated\nconnection: db\ntasks:\n  first: {sql: \"INSERT INTO effect VALUES ('first')\"}\n  \
                     gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}, after: [first]}\n";

fn gated() -> Project {
    let project = Project::new(&[("dags/gated.yaml", GATED)]);
    project.sql("CREATE TABLE effect (what text); CREATE TABLE gate (a int)");
    project
}

fn pause(up: &Up, pause: bool) {
    let answer = up.ask("PATCH", "/api/v1/dags/gated", Some(&json!({ "paused": pause, "why": "mending" })));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// What the list says of the only run, and whether it calls it abandoned.
fn listed(project: &Project) -> (String, bool) {
    let rows = project.json(&["runs", "list", "--json"]);
    (project.scrubbed(&["runs", "list"]).lines().nth(1).unwrap().to_owned(), rows[0]["abandoned"].as_bool().unwrap())
}

#[test]
fn a_run_that_waits_in_a_service_is_not_called_abandoned_and_not_taken_from_it() {
    let project = gated();
    let up = Up::of(&project);
    pause(&up, true);
    let run = up.trigger("gated", json!({}));
    assert_eq!(listed(&project), ("RUN  gated  queued  TIME  -".to_owned(), false), "it has not begun");
    let shown = project.scrubbed(&["runs", "show", &run]);
    assert!(shown.contains("state  queued\nwaits  its DAG is paused\n") && !shown.contains("--resume"), "{shown}");
    assert!(shown.contains("first  none  0  it is not scheduled yet\ngate  none  0  it is not scheduled yet\n"), "{shown}");
    let shown = project.json(&["runs", "show", &run, "--json"]);
    assert_eq!((&shown["abandoned"], &shown["tasks"][1]["state"]), (&json!(false), &json!("none")));
    assert_eq!(project.backstop(&["runs", "list"]).stderr, "");

    let refused = project.backstop(&["run", "--resume", &run]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("has this store, and goes on with run RUN"), "{}", refused.stderr);
    assert!(refused.stderr.contains("hint: what it waits for: backstop runs why RUN"), "{}", refused.stderr);
    assert_eq!(up.state(&run), "queued");

    // The same of one that was begun, when the service that began it is gone and the next one may not go on with it.
    pause(&up, false);
    wait("the first task", || up.task(&run, "first") == "success");
    pause(&up, true);
    up.running.kill();
    assert_eq!(listed(&project), ("RUN  gated  running (its process is gone)  TIME  TIME".to_owned(), true));
    let up = Up::of(&project);
    assert_eq!(listed(&project), ("RUN  gated  running (waits)  TIME  TIME".to_owned(), false));
    assert!(project.scrubbed(&["runs", "show", &run]).contains("state  running (waits)\nwaits  its DAG is paused\n"));
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(2));
    project.sql("INSERT INTO gate VALUES (1)");
    pause(&up, false);
    up.wait_for_state(&run, "success");
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 1);
}

/// A service takes over no dry run that an earlier one left: nobody goes on with it, and whoever wants to may.
#[test]
fn a_dry_run_that_a_killed_service_left_is_abandoned() {
    let project = gated();
    let up = Up::of(&project);
    pause(&up, true);
    let run = up.trigger("gated", json!({ "dry_run": true }));
    assert_eq!(up.get(&format!("/api/v1/runs/{run}"))["abandoned"], false);
    assert!(!listed(&project).1);
    up.running.kill();
    let up = Up::of(&project);
    assert_eq!(up.get(&format!("/api/v1/runs/{run}"))["abandoned"], true);
    assert_eq!(up.get("/api/v1/runs")["items"][0]["abandoned"], true);
    assert!(listed(&project).1);
    project.sql("INSERT INTO gate VALUES (1)");
    let resumed = project.backstop(&["run", "--resume", &run]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(up.get(&format!("/api/v1/runs/{run}"))["abandoned"], false);
}

/// What leaves no marker is in doubt when its process is killed.
fn stuck() -> (Project, Up, String) {
    let pay = "dag: pay\nconnection: db\ntasks:\n  mail: {shell: \"echo mailed > mailed; while [ -e backstop.yaml ] && [ ! -e done ]; do sleep 0.05; done\"}\n";
    let project = Project::new(&[("dags/pay.yaml", pay)]);
    let up = Up::of(&project);
    let run = up.trigger("pay", json!({}));
    wait("the mail", || project.path().join("mailed").exists());
    wait("its start to be kept", || up.task(&run, "mail") == "running");
    up.running.kill();
    project.write("done", "");
    let up = Up::of(&project);
    up.wait_for_state(&run, "stuck");
    wait("it to be let go", || metric(&up, "stuck") == "1");
    (project, up, run)
}

fn metric(up: &Up, state: &str) -> String {
    let page = up.get("/metrics");
    let before = format!("backstop_runs{{state=\"{state}\"}} ");
    page.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&*before)).unwrap().to_owned()
}

#[test]
fn a_run_that_is_stuck_in_a_service_is_resolved_there() {
    let (project, up, run) = stuck();
    let past_it = ["run", "--resume", &run, "--resolve", "mail=committed", "--why", "it is in the outbox"];
    let refused = project.backstop(&past_it);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("say what became of it: backstop runs resolve RUN TASK --committed --reason \"how you know\""),
        "{}",
        refused.stderr
    );
    assert_eq!(up.state(&run), "stuck");

    // A program that does not know of the service goes past it: the service sees that, and does not wait for a person for ever.
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    store.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    assert_eq!(store.execute("DELETE FROM entries WHERE kind = 'service'", []).unwrap(), 1);
    let resumed = project.backstop(&past_it);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert_eq!(up.get(&format!("/api/v1/runs/{run}/why"))["why"], "it is over: success");
    wait("the service to see it", || metric(&up, "stuck") == "0");
}

#[test]
fn the_command_that_ends_a_doubt_is_the_one_that_works() {
    let (project, up, run) = stuck();
    let with = "backstop runs resolve RUN mail --committed --reason \"how you know\"";
    for arguments in [["runs", "show", &run], ["runs", "why", &run]] {
        let outcome = project.backstop(&arguments);
        let said = format!("{}{}", crate::project::scrub(&outcome.stdout, project.path()), outcome.stderr);
        assert!(said.contains(with) && said.contains("--not-committed") && !said.contains("--resume"), "{said}");
    }
    up.running.kill();
    let without = "backstop run --resume RUN --resolve mail=committed --why \"how you know\"";
    for arguments in [["runs", "show", &run], ["runs", "why", &run]] {
        let outcome = project.backstop(&arguments);
        let said = format!("{}{}", crate::project::scrub(&outcome.stdout, project.path()), outcome.stderr);
        assert!(said.contains(without) && said.contains("mail=not-committed") && !said.contains("runs resolve"), "{said}");
    }
    // As it is printed, it works.
    let up = Up::of(&project);
    wait("it to be let go", || metric(&up, "stuck") == "1");
    project.data(&["runs", "resolve", &run, "mail", "--committed", "--reason", "it is in the outbox"]);
    up.wait_for_state(&run, "success");
}

#[test]
fn what_a_killed_process_did_is_not_told_as_present() {
    let hold = "dag: hold\nconnection: db\ntasks:\n  slow: {shell: \"echo begun > begun; sleep 60\"}\n  last: {sql: SELECT 1, after: [slow]}\n";
    let project = Project::new(&[("dags/hold.yaml", hold)]);
    let up = Up::of(&project);
    let run = up.trigger("hold", json!({}));
    wait("the task", || project.path().join("begun").exists());
    wait("its start to be kept", || up.task(&run, "slow") == "running");
    up.running.kill();
    let why = project.scrubbed(&["runs", "why", &run]);
    assert_eq!(
        why,
        "run RUN: its process is gone; it was running\n\
         slow: try 1 was running: its process is gone; what it did is found out when the run goes on\n\
         last: it waits for 1 of 1 upstream task instances (all_success): slow (running)\n"
    );
    let shown = project.scrubbed(&["runs", "show", &run]);
    assert!(shown.contains("its process is gone; what it did is found out when the run goes on"), "{shown}");
}

/// Two runs of a DAG that may have one at a time.
fn narrow() -> Project {
    let narrow = "dag: narrow\nconnection: db\nmax_active_runs: 1\ntasks:\n  gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}}\n";
    let project = Project::new(&[("dags/narrow.yaml", narrow)]);
    project.sql("CREATE TABLE gate (a int)");
    project
}

#[test]
fn a_dag_whose_file_is_gone_keeps_its_limit() {
    let project = narrow();
    let up = Up::of(&project);
    let (first, second) = (up.trigger("narrow", json!({})), up.trigger("narrow", json!({})));
    up.wait_for_state(&first, "running");
    std::fs::remove_file(project.path().join("dags/narrow.yaml")).unwrap();
    let waits = |up: &Up| {
        let why = up.get(&format!("/api/v1/runs/{second}/why"))["why"].as_str().unwrap().to_owned();
        assert!(why.starts_with("its DAG has 1 runs going on, of 1 allowed (max_active_runs)"), "{why}");
        assert_eq!(up.state(&second), "queued");
    };
    wait("the DAG to be gone", || up.ask("GET", "/api/v1/dags/narrow", None).status == 404);
    waits(&up);
    // Also with a service that never saw the file.
    up.running.kill();
    let up = Up::of(&project);
    wait("the first to go on", || {
        up.get(&format!("/api/v1/runs/{first}/why"))["why"].as_str().unwrap().starts_with("it goes on")
    });
    waits(&up);
    project.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&second, "success");
}

#[test]
fn a_dag_that_a_limit_holds_back_says_so() {
    let dag = "dag: late\nconnection: db\nschedule: '@daily'\nstart_date: 2025-01-01\ncatchup: true\nmax_active_runs: 2\ntasks:\n  \
               gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}\n";
    let project = Project::new(&[("dags/late.yaml", dag)]);
    project.sql("CREATE TABLE gate (a int)");
    let up = Up::of(&project);
    wait("both runs", || metric(&up, "active") == "2");
    let found = up.get("/api/v1/dags/late");
    let because = found["not_scheduled_because"].as_str().unwrap();
    let runs = up.get("/api/v1/runs");
    let ids: Vec<&str> = runs["items"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap()).collect();
    let expected = "the run about 2025-01-03T00:00:00Z is due, and it has 2 runs that are not over, of 2 allowed (max_active_runs): it waits for ";
    assert!(because.starts_with(expected) && ids.iter().all(|run| because.contains(run)), "{because}");
    let why = project.data(&["dags", "why", "late"]);
    assert_eq!(why.lines().next(), Some(&*format!("late: {because}")));
    assert_eq!(why.lines().nth(1), Some("late: its next time has come: 2025-01-03T00:00:00Z"), "{why}");
    assert!(project.data(&["dags", "list"]).contains("when a run ends"));
}
