//! Backfills through the service: each date once, whatever ends the process, beside the DAG's other runs.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

/// A daily DAG: a run takes effect when the gate of its year is open.
const DAILY: &str = "dag: daily\nconnection: db\nschedule: '@daily'\nend_date: 2025-12-31\nmax_active_runs: 1\ncatchup: false\nparams:\n  \
                     region: {type: string, default: eu, enum: [eu, us]}\ntasks:\n  \
                     gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}}\n  \
                     load: {sql: \"INSERT INTO loaded VALUES ('{{ ds }}', '{{ params.region }}', '{{ run_id }}')\", after: [gate]}\n";

fn daily() -> Project {
    let project = Project::new(&[("dags/daily.yaml", DAILY)]);
    project.sql("CREATE TABLE loaded (day text, region text, run text); CREATE TABLE gate (a int)");
    project
}

/// The service, with nothing but what people ask for.
fn up(project: &Project) -> Up {
    Up::of(project)
}

fn ask(up: &Up, body: &Value) -> Value {
    let answer = up.ask("POST", "/api/v1/dags/daily/backfills", Some(body));
    assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
    answer.body
}

fn id(backfill: &Value) -> String {
    backfill["backfill_id"].as_str().unwrap().to_owned()
}

fn progress(up: &Up, id: &str) -> [u64; 6] {
    let shown = up.get(&format!("/api/v1/backfills/{id}"));
    ["total", "done", "failed", "running", "waiting", "left"].map(|key| shown["progress"][key].as_u64().unwrap())
}

fn wait_until(up: &Up, id: &str, state: &str) {
    wait(&format!("backfill {id} to be {state}"), || up.get(&format!("/api/v1/backfills/{id}"))["state"] == state);
}

/// Runs of backfills, newest first, by their dates.
fn dates(up: &Up) -> Vec<String> {
    let runs = up.get("/api/v1/runs?limit=1000");
    let of_backfills = runs["items"].as_array().unwrap().iter().filter(|run| run["run_type"] == "backfill");
    of_backfills.map(|run| run["logical_date"].as_str().unwrap()[..10].to_owned()).collect()
}

#[test]
fn every_date_runs_once_over_kill_9() {
    let project = daily();
    let first = up(&project);
    let asked = ask(
        &first,
        &json!({ "from": "2025-05-01T00:00:00Z", "to": "2025-05-09T12:00:00Z", "max_active_runs": 3,
                 "params": { "region": "us" }, "who": "ann", "why": "the source was late" }),
    );
    let id = id(&asked);
    assert_eq!(asked["progress"]["total"], 9, "{asked}");
    wait("as many as may go on", || progress(&first, &id) == [9, 0, 0, 3, 6, 0]);
    let why = first.get(&format!("/api/v1/backfills/{id}"))["why"].clone();
    assert_eq!(why, "3 of its runs go on, of 3 allowed (max_active_runs)");
    first.running.kill();
    project.sql("INSERT INTO gate VALUES (1)");
    // It is killed again and again, wherever it is.
    for _ in 0..6 {
        up(&project).running.kill();
    }
    let last = up(&project);
    wait_until(&last, &id, "done");
    assert_eq!(progress(&last, &id), [9, 9, 0, 0, 0, 0]);
    let loaded = "FROM loaded WHERE region = 'us' AND day BETWEEN '2025-05-01' AND '2025-05-09'";
    assert_eq!(project.ask(&format!("SELECT count(*) {loaded}")), 9);
    assert_eq!(project.ask(&format!("SELECT count(DISTINCT day) {loaded}")), 9);
    let mut ran = dates(&last);
    ran.sort();
    assert_eq!(ran, (1..=9).map(|day| format!("2025-05-0{day}")).collect::<Vec<_>>());
    let audit = last.get("/api/v1/audit");
    assert!(
        audit["items"][0]["what"].as_str().unwrap().starts_with(&format!("asked for backfill {id} of DAG `daily`")),
        "{audit}"
    );
    assert_eq!((&audit["items"][0]["who"], &audit["items"][0]["why"]), (&json!("ann"), &json!("the source was late")));
}

#[test]
fn it_has_places_of_its_own_and_goes_from_behind_when_told() {
    let project = daily();
    let up = up(&project);
    let asked =
        ask(&up, &json!({ "from": "2024-01-01T00:00:00Z", "to": "2024-12-31T00:00:00Z", "reverse": true, "max_active_runs": 2 }));
    wait("two of them", || dates(&up).len() == 2);
    assert_eq!(dates(&up), ["2024-12-30", "2024-12-31"], "newest first");
    // The one place that the DAG's own runs have is free.
    let run = up.trigger("daily", json!({ "logical_date": "2025-06-01T00:00:00Z" }));
    wait("the run beside it", || up.task(&run, "gate") == "deferred" || up.task(&run, "gate") == "up_for_reschedule");
    assert_eq!(progress(&up, &id(&asked)), [366, 0, 0, 2, 364, 0]);
    up.ask("POST", &format!("/api/v1/backfills/{}/cancel", id(&asked)), Some(&json!({ "cancel_runs": true, "why": "enough" })));
    wait_until(&up, &id(&asked), "cancelled");
    assert_eq!(progress(&up, &id(&asked))[2], 2);
    project.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&run, "success");
    assert_eq!(project.ask("SELECT count(*) FROM loaded"), 1);
}

#[test]
fn it_is_paused_and_resumed_and_tells_so() {
    let project = daily();
    let first = up(&project);
    let asked = ask(&first, &json!({ "from": "2025-05-01T00:00:00Z", "to": "2025-05-04T00:00:00Z", "max_active_runs": 1 }));
    let path = format!("/api/v1/backfills/{}", id(&asked));
    wait("its first run", || dates(&first).len() == 1);
    let paused = first.ask("POST", &format!("{path}/pause"), Some(&json!({ "who": "ann", "why": "the disk is full" })));
    assert_eq!((paused.status, &paused.body["state"], &paused.body["why"]), (200, &json!("paused"), &json!("it is paused")));
    project.sql("INSERT INTO gate VALUES (1)");
    wait("its run to end", || progress(&first, &id(&asked)) == [4, 1, 0, 0, 3, 0]);
    first.running.kill();
    let second = up(&project);
    assert_eq!(second.get(&path)["state"], "paused", "also after a restart");
    second.ask("PATCH", "/api/v1/dags/daily", Some(&json!({ "paused": true })));
    second.ask("POST", &format!("{path}/resume"), Some(&json!({})));
    assert_eq!(second.get(&path)["why"], "its DAG is paused");
    assert_eq!(dates(&second).len(), 1);
    second.ask("PATCH", "/api/v1/dags/daily", Some(&json!({ "paused": false })));
    wait_until(&second, &id(&asked), "done");
    assert_eq!(project.ask("SELECT count(*) FROM loaded WHERE day BETWEEN '2025-05-01' AND '2025-05-04'"), 4);
    let late = second.ask("POST", &format!("{path}/pause"), Some(&json!({})));
    assert_eq!((late.status, late.body["type"].as_str()), (409, Some("conflict")), "{}", late.body);
}

#[test]
fn a_date_that_has_a_run_is_left_or_runs_again() {
    let dag = "dag: daily\nconnection: db\nschedule: '@daily'\nend_date: 2025-12-31\ntasks:\n  \
               load: {sql: \"INSERT INTO loaded SELECT '{{ ds }}', 1 / (SELECT count(*) FROM open WHERE day = '{{ ds }}')\"}\n";
    let project = Project::new(&[("dags/daily.yaml", dag)]);
    project.sql(
        "CREATE TABLE loaded (day text, n int NOT NULL); CREATE TABLE open (day text); INSERT INTO open VALUES ('2025-05-01'), ('2025-05-03')",
    );
    let up = up(&project);
    let range = |more: Value| {
        let mut body = json!({ "from": "2025-05-01T00:00:00Z", "to": "2025-05-03T00:00:00Z" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    for (date, state) in [("2025-05-01", "success"), ("2025-05-02", "failed")] {
        let run = up.trigger("daily", json!({ "logical_date": format!("{date}T00:00:00Z") }));
        up.wait_for_state(&run, state);
    }
    let actions = |reprocess: &str| {
        let preview = ask(&up, &range(json!({ "dry_run": true, "reprocess": reprocess })));
        assert_eq!((&preview["total"], &preview["next"]), (&json!(3), &Value::Null), "{preview}");
        let items = preview["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(actions("none"), ["leave", "leave", "run"]);
    assert_eq!(actions("failed"), ["leave", "run_again", "run"]);
    assert_eq!(actions("completed"), ["run_again", "run_again", "run"]);
    let page = ask(&up, &range(json!({ "dry_run": true, "limit": 2 })));
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (2, &json!("2025-05-02T00:00:00Z")));
    let page = ask(&up, &range(json!({ "dry_run": true, "limit": 2, "after": page["next"] })));
    assert_eq!((page["items"][0]["action"].as_str(), &page["next"]), (Some("run"), &Value::Null));
    assert!(dates(&up).is_empty(), "a dry run makes nothing");

    let first = ask(&up, &range(json!({})));
    wait_until(&up, &id(&first), "done");
    assert_eq!(progress(&up, &id(&first)), [3, 1, 0, 0, 0, 2]);
    project.sql("INSERT INTO open VALUES ('2025-05-02')");
    let second = ask(&up, &range(json!({ "reprocess": "failed" })));
    wait_until(&up, &id(&second), "done");
    assert_eq!(progress(&up, &id(&second)), [3, 1, 0, 0, 0, 2]);
    let loaded = |day: &str| project.ask(&format!("SELECT count(*) FROM loaded WHERE day = '{day}'"));
    assert_eq!(["2025-05-01", "2025-05-02", "2025-05-03"].map(loaded), [1, 1, 1]);
    let third = ask(&up, &range(json!({ "reprocess": "completed" })));
    wait_until(&up, &id(&third), "done");
    assert_eq!(["2025-05-01", "2025-05-02", "2025-05-03"].map(loaded), [2, 2, 2]);
    let listed = up.get("/api/v1/backfills?dag=daily&limit=2");
    let ids: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|item| &item["backfill_id"]).collect();
    assert_eq!(ids, [&third["backfill_id"], &second["backfill_id"]]);
    let rest = up.get(&format!("/api/v1/backfills?before={}", listed["next"].as_str().unwrap()));
    assert_eq!(rest["items"][0]["backfill_id"], first["backfill_id"]);
}

#[test]
fn a_million_dates_cost_what_goes_on() {
    let dag = "dag: daily\nconnection: db\nschedule: {every: 1s}\nstart_date: 2020-01-01\nend_date: 2020-12-31\ntasks:\n  \
               wait: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}\n";
    let project = Project::new(&[("dags/daily.yaml", dag)]);
    project.sql("CREATE TABLE gate (a int)");
    let up = up(&project);
    let asked = ask(&up, &json!({ "from": "2020-03-01T00:00:00Z", "to": "2020-03-12T13:00:00Z" }));
    assert_eq!(asked["progress"]["total"], 997_201);
    wait("ten of them", || progress(&up, &id(&asked)) == [997_201, 0, 0, 10, 997_191, 0]);
    assert_eq!(dates(&up).len(), 10);
    let more = up.ask(
        "POST",
        "/api/v1/dags/daily/backfills",
        Some(&json!({ "from": "2020-04-01T00:00:00Z", "to": "2020-12-31T00:00:00Z" })),
    );
    assert_eq!(more.status, 400);
    assert!(more.body["detail"].as_str().unwrap().contains("more than 1000000 times"), "{}", more.body);
}

#[test]
fn what_cannot_be_filled_is_refused_with_what_to_do() {
    let manual = "dag: manual\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n";
    let project = Project::new(&[("dags/daily.yaml", DAILY), ("dags/manual.yaml", manual)]);
    project.sql("CREATE TABLE loaded (day text, region text, run text); CREATE TABLE gate (a int)");
    let up = up(&project);
    let refused = |dag: &str, body: Value| {
        let answer = up.ask("POST", &format!("/api/v1/dags/{dag}/backfills"), Some(&body));
        assert!(answer.head.contains("application/problem+json"), "{}", answer.body);
        (answer.status, format!("{} {}", answer.body["detail"].as_str().unwrap(), answer.body["errors"]))
    };
    let range = |from: &str, to: &str| json!({ "from": format!("{from}T00:00:00Z"), "to": format!("{to}T00:00:00Z") });
    let with = |key: &str, value: Value| {
        let mut body = range("2025-05-01", "2025-05-09");
        body[key] = value;
        body
    };
    for (dag, body, status, told) in [
        ("manual", range("2025-05-01", "2025-05-02"), 400, "its schedule has no times"),
        ("daily", range("2025-05-02", "2025-05-01"), 400, "ends (2025-05-01T00:00:00Z) before it begins"),
        ("daily", range("2025-05-02", "2999-05-01"), 400, "in the future"),
        ("daily", with("max_active_runs", json!(0)), 400, "must be from 1 to 100"),
        ("daily", with("max_active_runs", json!(101)), 400, "must be from 1 to 100"),
        ("daily", with("params", json!({ "region": "mars" })), 422, "is not allowed"),
        ("daily", with("reprocess", json!("all")), 422, "`reprocess` is `all`, and must be one of"),
        ("daily", with("form", json!("x")), 422, "unknown field `form`"),
        ("daily", with("backfill_id", json!("../x")), 400, "`backfill_id` has 8 to 64"),
        ("daily", json!({ "from": "2025-05-01T00:00:00Z" }), 422, "field `to` is missing"),
        ("dayly", range("2025-05-01", "2025-05-02"), 404, "there is no DAG `dayly`"),
    ] {
        let (code, detail) = refused(dag, body.clone());
        assert_eq!(code, status, "{body}: {detail}");
        assert!(detail.contains(told), "{body}: {detail}");
    }
    assert_eq!(up.ask("GET", "/api/v1/backfills/none", None).status, 404);
    assert_eq!(up.ask("GET", "/api/v1/backfills?before=none", None).status, 400);
    assert_eq!(up.get("/api/v1/backfills")["items"], json!([]), "nothing of this was kept");
    // Two over one range are one too many; asked for with one id, two are one.
    let first = ask(&up, &with("backfill_id", json!("may-2025")));
    assert_eq!(ask(&up, &with("backfill_id", json!("may-2025")))["asked_at"], first["asked_at"]);
    let (code, detail) = refused("daily", range("2025-05-09", "2025-05-20"));
    assert_eq!(code, 409);
    assert!(detail.contains("backfill may-2025 of DAG `daily`") && detail.contains("cancel it first"), "{detail}");
    assert_eq!(ask(&up, &range("2025-05-10", "2025-05-20"))["state"], "running", "beside it there is room");
    let mut other = with("backfill_id", json!("may-2025"));
    other["reverse"] = json!(true);
    assert_eq!(refused("daily", other).0, 409);
}

#[test]
fn a_run_of_some_tasks_leaves_its_date_to_be_filled() {
    let project = daily();
    project.sql("INSERT INTO gate VALUES (1)");
    let up = up(&project);
    let run = up.trigger("daily", json!({ "logical_date": "2025-05-02T00:00:00Z", "tasks": ["gate"] }));
    up.wait_for_state(&run, "success");
    let dates = json!({ "from": "2025-05-02T00:00:00Z", "to": "2025-05-02T00:00:00Z" });
    let mut dry = dates.clone();
    dry["dry_run"] = json!(true);
    let preview = up.ask("POST", "/api/v1/dags/daily/backfills", Some(&dry)).body;
    assert_eq!(
        (&preview["items"][0]["action"], &preview["items"][0]["existing_run"]),
        (&json!("run"), &Value::Null),
        "{preview}"
    );
    let asked = ask(&up, &dates);
    wait_until(&up, &id(&asked), "done");
    assert_eq!(progress(&up, &id(&asked)), [1, 1, 0, 0, 0, 0]);
    assert_eq!(project.ask("SELECT count(*) FROM loaded WHERE day = '2025-05-02'"), 1);
}
