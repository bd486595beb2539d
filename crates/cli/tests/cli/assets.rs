//! DAGs that run after assets were updated: by all and any of them, once for each update, whichever process made it, through crashes.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn producer(asset: &str) -> String {
    format!("dag: make_{asset}\nconnection: db\ntasks:\n  load: {{sql: \"SELECT 1\", updates: [{asset}]}}\n")
}

fn consumer(more: &str) -> String {
    let task = "sql: \"INSERT INTO effect VALUES ('{{ run_id }}')\"";
    format!("dag: report\nconnection: db\n{more}\ntasks:\n  work: {{{task}}}\n")
}

fn project(consumer: &str) -> Project {
    let makers = ["sales", "ecb", "fed"].map(|asset| (format!("dags/make_{asset}.yaml"), producer(asset)));
    let mut files: Vec<(&str, &str)> = makers.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    files.push(("dags/report.yaml", consumer));
    let project = Project::new(&files);
    project.sql("CREATE TABLE effect (run text); CREATE TABLE gate (a int)");
    project
}

/// The runs of the consumer, newest first.
fn reports(up: &Up) -> Vec<Value> {
    up.get("/api/v1/runs?dag=report&limit=1000")["items"].as_array().unwrap().clone()
}

/// The runs that updated what a run stands for.
fn consumed(run: &Value) -> Vec<String> {
    let updates = run["asset_updates"].as_array().unwrap().iter();
    updates.map(|update| update["run_id"].as_str().unwrap().to_owned()).collect()
}

fn make(up: &Up, asset: &str) -> String {
    make_about(up, asset, json!({}))
}

fn make_about(up: &Up, asset: &str, wanted: Value) -> String {
    let run = up.trigger(&format!("make_{asset}"), wanted);
    up.wait_for_state(&run, "success");
    run
}

fn report(up: &Up) -> Value {
    up.get("/api/v1/dags/report")
}

fn pause(up: &Up, paused: bool) {
    let answer = up.ask("PATCH", "/api/v1/dags/report", Some(&json!({ "paused": paused, "why": "a test" })));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The newest run that makes sales, also where a service makes others meanwhile.
fn newest_of_sales(project: &Project) -> String {
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    let sql = "SELECT run_id FROM runs WHERE dag_id = 'make_sales' ORDER BY id DESC LIMIT 1";
    store.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Waits until so many reports have succeeded.
fn wait_for_reports(up: &Up, count: usize) {
    wait(&format!("{count} reports"), || {
        let runs = reports(up);
        runs.len() == count && runs.iter().all(|run| run["state"] == "success")
    });
}

fn wait_for_missing(up: &Up, assets: &[&str]) {
    wait(&format!("{assets:?} to be missing"), || report(up)["missing_assets"] == json!(assets));
}

#[test]
fn a_dag_runs_after_all_or_any_of_its_assets() {
    let project = project(&consumer("schedule: {assets: {all: [sales, {any: [ecb, fed]}]}}"));
    let up = Up::of(&project);
    wait_for_missing(&up, &["ecb", "fed", "sales"]);
    let dag = report(&up);
    assert_eq!(dag["next_run_at"], json!(null));
    let waits = "it waits for assets that were not updated since its last such run";
    assert_eq!(dag["not_scheduled_because"], format!("{waits}: ecb, fed, sales"));
    let of_day = |start: &str, end: &str| json!({ "data_interval_start": start, "data_interval_end": end });
    let sales = make_about(&up, "sales", of_day("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"));
    wait_for_missing(&up, &["ecb", "fed"]);
    assert!(project.data(&["dags", "list"]).contains("after ecb, fed"), "{}", project.data(&["dags", "list"]));
    assert_eq!(project.data(&["dags", "why", "report"]), format!("report: {waits}: ecb, fed\n"));
    assert_eq!(project.data(&["dags", "why", "make_ecb"]), "make_ecb: it has no schedule: its runs are asked for\n");
    let unknown = project.backstop(&["dags", "why", "reprot"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("did you mean `report`"), "{} {}", unknown.stderr, unknown.stdout);
    assert_eq!(reports(&up).len(), 0);
    let fed = make_about(&up, "fed", of_day("2026-03-02T00:00:00Z", "2026-03-03T00:00:00Z"));
    wait_for_reports(&up, 1);
    let run = reports(&up).remove(0);
    assert_eq!((&run["run_type"], consumed(&run)), (&json!("asset_triggered"), vec![sales.clone(), fed.clone()]));
    assert_eq!(run["logical_date"], run["asset_updates"][1]["at"]);
    // About the data that the others were about.
    let interval = [&run["data_interval_start"], &run["data_interval_end"]];
    assert_eq!(interval, ["2026-03-01T00:00:00Z", "2026-03-03T00:00:00Z"]);
    let shown = project.data(&["runs", "show", run["run_id"].as_str().unwrap()]);
    assert!(shown.contains("sales") && shown.contains(&fed), "{shown}");
    // Each update counts once.
    wait_for_missing(&up, &["ecb", "fed", "sales"]);
    make(&up, "ecb");
    wait_for_missing(&up, &["sales"]);
    assert_eq!((reports(&up).len(), project.ask("SELECT count(*) FROM effect")), (1, 1));
}

#[test]
fn what_is_updated_while_a_dag_is_paused_or_busy_makes_one_run() {
    let gated = consumer("max_active_runs: 1\nschedule: [{assets: sales}, \"0 0 1 1 *\"]")
        + "  gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}, after: [work]}\n";
    let project = project(&gated);
    let up = Up::of(&project);
    wait_for_missing(&up, &["sales"]);
    assert!(report(&up)["next_run_at"].is_string());
    pause(&up, true);
    let while_paused = [make(&up, "sales"), make(&up, "sales"), make(&up, "sales")];
    wait_for_missing(&up, &[]);
    // Nor does another service make it.
    up.running.kill();
    let up = Up::of(&project);
    wait_for_missing(&up, &[]);
    let why = || project.data(&["dags", "why", "report"]);
    wait("the updates to be seen", || why().contains("its assets were updated, and it is paused"));
    let told = why();
    assert!(told.contains("before `backstop dags unpause report`") && told.contains("its next time is "), "{told}");
    assert_eq!(reports(&up).len(), 0);
    pause(&up, false);
    wait("the run", || reports(&up).len() == 1);
    assert_eq!(consumed(&reports(&up)[0]), while_paused);
    let while_busy = [make(&up, "sales"), make(&up, "sales")];
    wait_for_missing(&up, &[]);
    assert_eq!(reports(&up).len(), 1);
    wait("the updates to be seen", || why().contains("it has 1 runs going on, of 1 allowed (max_active_runs)"));
    project.sql("INSERT INTO gate VALUES (1)");
    wait_for_reports(&up, 2);
    assert_eq!(consumed(&reports(&up)[0]), while_busy);
}

#[test]
fn updates_of_other_processes_count_and_those_of_dry_runs_and_of_the_past_do_not() {
    let project = project(&consumer("schedule: {assets: [sales]}"));
    let run = |arguments: &[&str]| {
        let outcome = project.backstop(arguments);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        newest_of_sales(&project)
    };
    run(&["run", "make_sales"]);
    let up = Up::of(&project);
    wait_for_missing(&up, &["sales"]);
    run(&["run", "make_sales", "--dry-run"]);
    let beside = run(&["run", "make_sales"]);
    wait_for_reports(&up, 1);
    assert_eq!(consumed(&reports(&up)[0]), [beside], "neither the one before the DAG was there nor the dry run");
    up.running.kill();
    let meanwhile = run(&["run", "make_sales"]);
    let up = Up::of(&project);
    wait_for_reports(&up, 2);
    assert_eq!(consumed(&reports(&up)[0]), [meanwhile]);
}

#[test]
fn no_update_is_lost_or_stood_for_twice_through_kill_9() {
    let project = project(&consumer("schedule: {assets: [sales]}"));
    let mut up = Up::of(&project);
    let mut updates = BTreeSet::new();
    for round in 0..8 {
        wait_for_missing(&up, &["sales"]);
        let run = up.trigger("make_sales", json!({}));
        match round % 4 {
            // As soon as it is asked for; as soon as the update is there; while its run is made; when that is over.
            0 => {}
            1 => up.wait_for_state(&run, "success"),
            2 => wait("a run", || !reports(&up).is_empty() && consumed(&reports(&up)[0]).contains(&run)),
            _ => wait("its end", || consumed(&reports(&up)[0]).contains(&run) && reports(&up)[0]["state"] == "success"),
        }
        updates.insert(run);
        up.running.kill();
        up = Up::of(&project);
        wait("the update", || reports(&up).iter().flat_map(consumed).collect::<BTreeSet<_>>() == updates);
    }
    wait_for_missing(&up, &["sales"]);
    wait("all to end", || reports(&up).iter().all(|run| run["state"] == "success"));
    let runs = reports(&up);
    let stood_for: Vec<String> = runs.iter().flat_map(consumed).collect();
    assert_eq!(stood_for.len(), updates.len(), "{stood_for:?}");
    assert_eq!(stood_for.into_iter().collect::<BTreeSet<_>>(), updates);
    assert_eq!(project.ask("SELECT count(*) FROM effect"), runs.len() as i64);
}

/// Of two assets that are both waited for, one is updated twice before the other, and every step is followed by a crash.
#[test]
fn two_updates_of_one_asset_wait_for_the_other_through_kill_9() {
    let project = project(&consumer("schedule: {assets: [sales, ecb]}"));
    let mut up = Up::of(&project);
    for round in 1..=3 {
        let mut made = Vec::new();
        for asset in ["sales", "sales", "ecb"] {
            wait("what is missing", || report(&up)["missing_assets"].as_array().unwrap().contains(&json!("ecb")));
            assert_eq!(reports(&up).len(), round - 1);
            made.push(make(&up, asset));
            up.running.kill();
            up = Up::of(&project);
        }
        wait_for_reports(&up, round);
        wait_for_missing(&up, &["ecb", "sales"]);
        assert_eq!(consumed(&reports(&up)[0]), made);
    }
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 3);
}

/// Neither what nobody waits for any more nor what somebody has waited for since a year goes wrong with it.
#[test]
fn an_update_is_waited_for_when_its_run_was_removed() {
    let project = project(&consumer("schedule: {assets: [sales, ecb]}"));
    let up = Up::of(&project);
    let sales = make(&up, "sales");
    wait_for_missing(&up, &["ecb"]);
    // The newest of its DAG, and the last that succeeded, stay.
    let newer = up.trigger("make_sales", json!({ "dry_run": true }));
    up.wait_for_state(&newer, "success");
    assert_eq!(up.running.terminate().0, Some(0));
    let removed = project.backstop(&["store", "prune", "--keep", "1", "--reason", "a test"]);
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    assert!(removed.stdout.contains("1 run") || removed.stderr.contains("1 run"), "{} {}", removed.stdout, removed.stderr);
    assert_eq!(project.backstop(&["runs", "show", &sales]).code, Some(2));
    let checked = project.backstop(&["store", "check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    let up = Up::of(&project);
    wait_for_missing(&up, &["ecb"]);
    let ecb = make(&up, "ecb");
    wait_for_reports(&up, 1);
    assert_eq!(consumed(&reports(&up)[0]), [sales, ecb]);
}

#[test]
fn a_cursor_that_was_not_kept_makes_no_second_run() {
    let project = project(&consumer("schedule: {assets: [sales]}"));
    let up = Up::of(&project);
    let first = make(&up, "sales");
    wait_for_reports(&up, 1);
    wait_for_missing(&up, &["sales"]);
    up.running.kill();
    // As if the process had died before it kept how far it was; and more came meanwhile.
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    let changed = store.execute(
        "UPDATE entries SET body = json_set(body, '$.assets', 0) WHERE kind = 'dag' AND key = 'report' AND body ->> 'assets' = 1",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    drop(store);
    assert_eq!(project.backstop(&["run", "make_sales"]).code, Some(0));
    let second = newest_of_sales(&project);
    let up = Up::of(&project);
    wait_for_reports(&up, 2);
    let runs = reports(&up);
    assert_eq!([consumed(&runs[1]), consumed(&runs[0])], [[first], [second]]);
    assert_eq!(project.ask("SELECT count(*) FROM effect"), 2);
}
