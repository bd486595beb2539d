//! Runs that are asked for many at once, over the API and by `trigger --each`.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

const DAG: &str = "dag: close\nconnection: db\nmax_active_runs: 50\nparams:\n  customer: {type: integer}\n  region: {type: string, default: north}\n\
                   tasks:\n  one: {sql: \"INSERT INTO effect VALUES (:c, :r)\", parameters: {c: \"{{ params.customer }}\", r: \"{{ params.region }}\"}}\n";

fn project() -> Project {
    let project = Project::new(&[("dags/close.yaml", DAG)]);
    project.sql("CREATE TABLE effect (customer int, region text)");
    project
}

fn effects(project: &Project, of: &str) -> i64 {
    project.ask(&format!("SELECT count(*) FROM effect WHERE {of}"))
}

fn runs(up: &Up) -> usize {
    up.get("/api/v1/runs?limit=1000")["items"].as_array().unwrap().len()
}

#[test]
fn many_runs_are_made_by_one_request_and_each_once() {
    let project = project();
    let up = Up::of(&project);
    let ask = |body: Value| up.ask("POST", "/api/v1/dags/close/runs/batch", Some(&body));
    let of = |customer: u32| json!({ "run_id": format!("customer-{customer}"), "params": { "customer": customer } });
    let first: Vec<Value> = (0..40).map(of).collect();
    let answer = ask(json!({ "runs": first, "who": "ann", "why": "the closing" }));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let items = answer.body["items"].as_array().unwrap();
    assert!(items.iter().enumerate().all(|(at, item)| item["run_id"] == format!("customer-{at}") && item["made"] == true));
    // Sent again with some more: what is there is not made a second time, and what cannot be made holds up nobody.
    let mut second: Vec<Value> = (38..42).map(of).collect();
    second.push(json!({ "run_id": "customer-0", "params": { "customer": 7 } }));
    let answer = ask(json!({ "runs": second }));
    let made: Vec<bool> = answer.body["items"].as_array().unwrap().iter().map(|item| item["made"] == true).collect();
    assert_eq!(made, [false, false, true, true, false]);
    assert_eq!(answer.body["items"][1]["run_id"], "customer-39");
    let refused = &answer.body["items"][4];
    assert_eq!((&refused["run_id"], &refused["refused"]["status"]), (&Value::Null, &json!(409)), "{refused}");
    wait("all to be done", || effects(&project, "1 = 1") == 42);
    up.wait_for_state("customer-41", "success");
    assert_eq!(project.ask("SELECT count(DISTINCT customer) FROM effect"), 42);
    let asked = up.get("/api/v1/runs/customer-3/events").to_string();
    assert!(asked.contains("the closing") && asked.contains("ann"), "{asked}");
}

#[test]
fn when_one_of_them_makes_no_sense_none_is_made() {
    let project = project();
    let up = Up::of(&project);
    let refused = |runs: Value| {
        let answer = up.ask("POST", "/api/v1/dags/close/runs/batch", Some(&json!({ "runs": runs })));
        assert!(answer.head.contains("application/problem+json"), "{}", answer.head);
        (answer.status, answer.body.to_string())
    };
    let good = json!({ "params": { "customer": 1 } });
    for (wrong, status, says) in [
        (json!({ "params": { "customer": "many" } }), 422, "`runs[1]`"),
        (json!({}), 422, "customer"),
        (json!({ "params": { "customer": 1 }, "tasks": ["two"] }), 400, "there is no task `two`"),
        (json!({ "params": { "customer": 1 }, "run_id": "../../etc" }), 400, "`runs[1]`"),
        (json!({ "parms": { "customer": 1 } }), 422, "did you mean `params`?"),
        (json!({ "params": { "customer": 1 }, "tasks": "one" }), 422, "`runs[1].tasks` must be a list"),
        (json!({ "data_interval_start": "2026-01-01T00:00:00Z", "params": { "customer": 1 } }), 400, "`runs[1]`"),
    ] {
        let (found, told) = refused(json!([good, wrong]));
        assert!(found == status && told.contains(says), "{wrong}: {found} {told}");
    }
    assert_eq!(refused(json!([])).0, 400);
    let (status, told) = refused(json!(vec![good; 1001]));
    assert!(status == 400 && told.contains("1 to 1000"), "{told}");
    assert_eq!(up.ask("POST", "/api/v1/dags/clsoe/runs/batch", Some(&json!({ "runs": [{}] }))).status, 404);
    assert_eq!(runs(&up), 0);
}

#[test]
fn a_file_asks_for_a_run_a_line() {
    let project = project();
    let up = Up::of(&project);
    let lines: String = (0..600).map(|customer| format!("{{\"customer\": {customer}}}\n")).collect();
    project.write("customers.jsonl", &format!("{lines}\n{{\"customer\": 600, \"region\": \"south\"}}\n"));
    let file = project.path().join("customers.jsonl").to_string_lossy().into_owned();
    let asked = project.backstop(&["trigger", "close", "--each", &file, "--param", "region=east", "--reason", "closing"]);
    assert_eq!(asked.code, Some(0), "{}", asked.stderr);
    assert_eq!(asked.stdout.lines().count(), 601);
    wait("all to be done", || effects(&project, "1 = 1") == 601);
    assert_eq!((effects(&project, "region = 'east'"), effects(&project, "region = 'south' AND customer = 600")), (600, 1));
    let sent = |lines: &str, batch: &str| {
        project.write("customers.jsonl", lines);
        project.backstop(&["trigger", "close", "--each", &file, "--batch", batch])
    };
    // The answer to the first one was lost, say, and a line came to it.
    let first = sent("{\"customer\": 700}\n", "november");
    let again = sent("{\"customer\": 700}\n{\"customer\": 701}\n", "november");
    assert_eq!((first.code, again.code), (Some(0), Some(0)), "{}{}", first.stderr, again.stderr);
    assert_eq!(again.stdout.lines().next(), first.stdout.lines().next());
    assert_eq!(again.stdout.lines().count(), 2);
    let other = sent("{\"customer\": 702}\n", "november");
    assert!(other.code == Some(2) && other.stderr.contains("--batch november"), "{}", other.stderr);
    wait("both to be done", || effects(&project, "customer >= 700") == 2);
    let before = runs(&up);
    for (lines, says) in [
        ("{\"customer\": 1}\n{customer: 2}\n", "line 2: it is no JSON"),
        ("{\"customer\": 1}\n\n[2]\n", "line 3: it is no JSON object"),
        ("\n\n", "has no lines"),
        ("{\"customer\": 1}\n{\"custmer\": 2}\n", "did you mean `customer`?"),
    ] {
        project.write("customers.jsonl", lines);
        let refused = project.backstop(&["trigger", "close", "--each", &file]);
        assert_eq!(refused.code, Some(2), "{lines}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{lines}: {}", refused.stderr);
    }
    let missing = project.backstop(&["trigger", "close", "--each", "none.jsonl"]);
    assert!(missing.code == Some(2) && missing.stderr.contains("read none.jsonl"), "{}", missing.stderr);
    assert_eq!(runs(&up), before, "nothing of these was asked for");
}
