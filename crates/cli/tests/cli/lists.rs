//! Lists over many runs by the API: filters, the grid of a DAG, task instances, how long tasks take.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

/// A mapped task, one that fails on request, and one behind both.
const MIXED: &str = "dag: mixed\nconnection: db\nparams:\n  bad: {type: boolean, default: false}\ntasks:\n  \
                     each: {sql: \"SELECT {{ item }}\", for_each: [1, 2, 3]}\n  \
                     gate: {sql: \"SELECT {% if params.bad %}nope{% else %}1{% endif %}\"}\n  \
                     last: {sql: SELECT 1, after: [each, gate]}\n";

fn with_runs() -> (Project, Up, Vec<String>) {
    let project = Project::new(&[("dags/mixed.yaml", MIXED), ("dags/other.yaml", &MIXED.replace("dag: mixed", "dag: other"))]);
    let up = Up::of(&project);
    let runs = [("mixed", 1, false), ("mixed", 2, true), ("other", 2, false), ("mixed", 4, false)].map(|(dag, day, bad)| {
        let run = up.trigger(dag, json!({ "logical_date": format!("2025-05-0{day}T00:00:00Z"), "params": { "bad": bad } }));
        up.wait_for_state(&run, if bad { "failed" } else { "success" });
        run
    });
    (project, up, runs.to_vec())
}

fn items<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list["items"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

/// All pages of a list, each of so many rows.
fn pages(up: &Up, path: &str, cursor: &str, limit: u32) -> Vec<Value> {
    let mut found = Vec::new();
    let mut next = String::new();
    loop {
        let page = up.get(&format!("/api/v1/{path}limit={limit}{next}"));
        found.extend(page["items"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(place) => next = format!("&{cursor}={place}"),
            None => return found,
        }
    }
}

#[test]
fn lists_over_runs_are_filtered_and_paged() {
    let (_project, up, runs) = with_runs();
    let list = |query: &str| -> Vec<String> {
        items(&up.get(&format!("/api/v1/runs?{query}")), "run_id").into_iter().map(str::to_owned).collect()
    };
    assert_eq!(list("state=failed"), [runs[1].clone()]);
    assert_eq!(list("state=success&dag=mixed"), [runs[3].clone(), runs[0].clone()]);
    let about = "logical_date_from=2025-05-02T00:00:00Z&logical_date_to=2025-05-03T00:00:00Z";
    assert_eq!(list(about), [runs[2].clone(), runs[1].clone()]);
    assert_eq!(list(&format!("{about}&dag=mixed")), [runs[1].clone()]);
    let by_date = pages(&up, "runs?logical_date_from=2025-01-01T00:00:00Z&", "before", 1);
    assert_eq!(by_date.len(), 4, "{by_date:#?}");

    let grid = up.get("/api/v1/dags/mixed/grid");
    assert_eq!(items(&grid, "run_id"), [&runs[3], &runs[1], &runs[0]]);
    let cells = grid["items"][1]["tasks"].as_array().unwrap();
    let states: Vec<(&str, &str)> =
        cells.iter().map(|cell| (cell["task"].as_str().unwrap(), cell["state"].as_str().unwrap())).collect();
    assert_eq!(states, [("each", "success"), ("gate", "failed"), ("last", "upstream_failed")]);
    assert_eq!(cells[0]["states"], json!({ "success": 3 }));
    assert!(cells[0]["duration"].as_f64().is_some() && grid["items"][1]["duration"].as_f64().is_some(), "{grid:#}");
    assert_eq!(pages(&up, "dags/mixed/grid?", "before", 2).len(), 3);

    let failed = up.get("/api/v1/task_instances?state=failed");
    assert_eq!((items(&failed, "task"), items(&failed, "run_id")), (vec!["gate"], vec![runs[1].as_str()]));
    assert!(failed["items"][0]["error"].as_str().unwrap().contains("nope"), "{failed}");
    let of_mixed = pages(&up, "task_instances?dag=mixed&", "after", 2);
    assert_eq!(of_mixed.len(), 15);
    let mapped = pages(&up, "task_instances?task=each&state=success&", "after", 1);
    assert_eq!(mapped.len(), 12);
    assert_eq!((mapped[0]["run_id"].as_str(), mapped[2]["map_index"].as_u64()), (Some(runs[3].as_str()), Some(2)));

    let took = up.get("/api/v1/dags/mixed/tasks/last/durations");
    assert_eq!(took["count"], 2);
    assert!(took["p50"].as_f64() <= took["p95"].as_f64() && took["p95"].is_number(), "{took}");
    assert_eq!(up.get("/api/v1/dags/mixed/tasks/last/durations?limit=1")["count"], 1);
}

/// Page by page, each list tells what it tells at once, and `limit` is heeded.
#[test]
fn every_list_comes_in_pages() {
    let (project, up, runs) = with_runs();
    for name in ["region", "colour", "amount"] {
        up.ask("PUT", &format!("/api/v1/variables/{name}"), Some(&json!({ "value": name })));
        up.ask("PUT", &format!("/api/v1/pools/{name}"), Some(&json!({ "slots": 3 })));
    }
    project.write(
        "backstop.yaml",
        "name: t\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n  other: {conn_type: sqlite, database: o.db}\n",
    );
    project.write("dags/mixed.yaml", &MIXED.replace("item }}", "item }} "));
    project.write("dags/broken.yaml", "dag: broken\ntasks:\n  a: {empty: true, frob: 1, brof: 2}\n");
    wait("the new files", || up.get("/api/v1/problems")["items"].as_array().is_some_and(|found| found.len() >= 2));
    up.wait_for_state(&up.trigger("mixed", json!({})), "success");
    let run = &runs[1];
    for (path, least) in [
        ("dags".to_owned(), 2),
        ("problems".to_owned(), 2),
        ("variables".to_owned(), 3),
        ("pools".to_owned(), 4),
        ("connections".to_owned(), 2),
        ("dags/mixed/versions".to_owned(), 2),
        (format!("runs/{run}/tasks"), 5),
        (format!("runs/{run}/statements"), 3),
    ] {
        let whole = up.get(&format!("/api/v1/{path}"));
        assert!(whole["items"].as_array().unwrap().len() >= least && whole["next"].is_null(), "{path}: {whole:#}");
        for limit in [1, 2] {
            let first = up.get(&format!("/api/v1/{path}?limit={limit}"));
            assert_eq!(first["items"].as_array().unwrap().len(), limit as usize, "{path}");
            assert_eq!(json!(pages(&up, &format!("{path}?"), "after", limit)), whole["items"], "{path}");
        }
    }
    let tasks = |query: &str| up.get(&format!("/api/v1/runs/{run}/tasks?{query}"));
    assert_eq!(items(&tasks("state=success"), "task"), ["each", "each", "each"]);
    assert_eq!(items(&tasks("task=gate"), "state"), ["failed"]);
    assert_eq!(up.get(&format!("/api/v1/runs/{run}/statements?task=each&limit=2"))["items"].as_array().unwrap().len(), 2);
    assert_eq!(pages(&up, "activity?", "after", 1), [] as [Value; 0]);
    // The command reads on to the end, and lists the broken file as well.
    assert_eq!(project.json(&["dags", "list", "--json"]).as_array().unwrap().len(), 3);
}

#[test]
fn what_no_list_knows_is_refused() {
    let (_project, up, runs) = with_runs();
    for (path, status, told) in [
        ("runs?state=broken", 400, "must be one of queued, running"),
        ("runs?logical_date_from=yesterday", 400, "logical_date_from"),
        ("runs?logical_date_from=2025-05-02T00:00:00Z&logical_date_to=2025-05-01T00:00:00Z", 400, "is after"),
        ("runs?before=nobody", 400, "take it from `next`"),
        ("task_instances?state=broken", 400, "must be one of none"),
        ("task_instances?after=nobody", 400, "take it from `next`"),
        ("task_instances?after=nobody::load", 400, "take it from `next`"),
        ("task_instances?limit=0", 400, "from 1 to 1000"),
        ("task_instances?colour=red", 400, "colour"),
        ("dags/mixed/grid?limit=366", 400, "from 1 to 365"),
        ("dags/mixed/grid?before=nobody", 400, "take it from `next`"),
        ("dags/mixt/grid", 404, "there is no DAG `mixt`"),
        ("dags?limit=1001", 400, "from 1 to 1000"),
        ("dags?after=zzz", 400, "take it from `next`"),
        ("pools?after=zzz", 400, "take it from `next`"),
        ("variables?after=zzz", 400, "take it from `next`"),
        ("connections?after=zzz", 400, "take it from `next`"),
        ("dags/mixed/versions?after=none", 400, "take it from `next`"),
        ("problems?after=x", 400, "take it from `next`"),
        ("activity?after=x", 400, "take it from `next`"),
        ("activity?after=x!y", 400, "take it from `next`"),
        (&format!("runs/{}/tasks?state=broken", runs[0]), 400, "must be one of none"),
        (&format!("runs/{}/tasks?after=each[x]", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/tasks?after=zzz", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/tasks?after=gate", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/events?after=99999", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/events?after=x", runs[0]), 400, "`after` must be a whole number from 0"),
        ("runs?limit=x", 400, "`limit` must be a whole number from 0"),
        ("runs?limit=99999999999", 400, "`limit` must be a smaller whole number"),
        ("runs?unfinished=x", 400, "`unfinished` must be `true` or `false`"),
        ("problems?after=7", 400, "take it from `next`"),
        (&format!("runs/{}/statements?after=99999.7", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/statements?after=1", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/statements?after=1.x", runs[0]), 400, "take it from `next`"),
        (&format!("runs/{}/tasks/each/samples", runs[0]), 404, "no task instance `each`"),
        (&format!("runs/{}/tasks/each[0]/samples?after=9.9", runs[0]), 400, "take it from `next`"),
        ("dags/mixed/tasks/none/durations", 404, "has no task `none`"),
    ] {
        let answer = up.ask("GET", &format!("/api/v1/{path}"), None);
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(detail.contains(told), "{path}: {detail}");
    }
    // A run without tasks of that name, and a cursor behind everything, are lists that end.
    let end = format!(
        "/api/v1/runs/{}/events?after={}",
        runs[0],
        up.get(&format!("/api/v1/runs/{}/events?limit=1000", runs[0]))["items"].as_array().unwrap().len()
    );
    assert_eq!(up.get(&end), json!({ "items": [], "next": null }));
    assert_eq!(up.get("/api/v1/task_instances?dag=nothing"), json!({ "items": [], "next": null }));
}
