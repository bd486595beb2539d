//! The API beside runs: logs, variables, pools, connections, sources, tags; and that no client costs much.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn put(up: &Up, path: &str, body: Value) -> Value {
    let answer = up.ask("PUT", path, Some(&body));
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.body
}

#[test]
fn a_log_is_read_piece_by_piece_and_followed() {
    let dag = "dag: talks\ntasks:\n  talk: {shell: \"echo first; while [ ! -e go ]; do sleep 0.05; done; echo last\"}\n  \
               quiet: {empty: true, after: [talk]}\n";
    let project = Project::new(&[("dags/talks.yaml", dag)]);
    let up = Up::of(&project);
    let run = up.trigger("talks", json!({}));
    let path = format!("/api/v1/runs/{run}/tasks/talk/logs");
    let page = |after: &str| up.get(&format!("{path}?after={after}"));
    wait("the first line", || page("0.0.")["text"].as_str().unwrap().contains("first"));
    let first = page("0.0.");
    assert_eq!((&first["complete"], &first["try_number"]), (&json!(false), &json!(1)));
    let next = first["next"].as_str().unwrap().to_owned();
    // A reader that follows gets what comes, and its answer ends with the task.
    let mut follower = TcpStream::connect(&up.address).unwrap();
    let ask = format!("GET {path}/text?follow=true HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", up.address);
    follower.write_all(ask.as_bytes()).unwrap();
    project.write("go", "");
    let mut followed = String::new();
    follower.read_to_string(&mut followed).unwrap();
    assert!(followed.contains("text/plain") && followed.contains("first") && followed.contains("last"), "{followed}");
    up.wait_for_state(&run, "success");
    let rest = page(&next);
    assert!(rest["text"].as_str().unwrap().contains("last") && !rest["text"].as_str().unwrap().contains("first"), "{rest}");
    let end = page(rest["next"].as_str().unwrap());
    assert_eq!((&end["text"], &end["complete"]), (&json!(""), &json!(true)));
    assert_eq!(up.get(&format!("/api/v1/runs/{run}/tasks/quiet/logs"))["tries"], json!([]));
    for (query, status) in [("?after=x", 400), ("?try=7", 404), ("?try=0", 404), ("?tries=1", 400)] {
        assert_eq!(up.ask("GET", &format!("{path}{query}"), None).status, status, "{query}");
    }
    assert_eq!(up.ask("GET", &format!("/api/v1/runs/{run}/tasks/tlak/logs"), None).status, 404);
}

#[test]
fn a_huge_log_costs_no_memory() {
    let project = Project::new(&[("dags/talks.yaml", "dag: talks\ntasks:\n  talk: {shell: echo hello}\n")]);
    let up = Up::of(&project);
    let run = up.trigger("talks", json!({}));
    up.wait_for_state(&run, "success");
    const BYTES: usize = 256 * 1024 * 1024;
    let path = project.path().join(format!(".backstop/logs/{run}/talk.try-1.log"));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut log = std::fs::File::create(path).unwrap();
    let lines = "a line of a log that goes on and on and on, sixty-four bytes of\n".repeat(16 * 1024);
    (0..BYTES / lines.len()).for_each(|_| log.write_all(lines.as_bytes()).unwrap());
    let peak = || -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", up.running.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
    };
    let before = peak();
    let mut stream = TcpStream::connect(&up.address).unwrap();
    let ask =
        format!("GET /api/v1/runs/{run}/tasks/talk/logs/text HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", up.address);
    stream.write_all(ask.as_bytes()).unwrap();
    let mut piece = vec![0; 1024 * 1024];
    let mut received = 0;
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => break,
            read => received += read,
        }
    }
    assert!(received >= BYTES, "all of it came: {received}");
    let grown = peak() - before;
    assert!(grown < 64 * 1024 * 1024, "the service grew by {grown} bytes for a log of {BYTES}");
}

#[test]
fn variables_are_set_at_once_and_secrets_are_never_told() {
    let dag = "dag: uses\nconnection: db\ntasks:\n  note: {sql: \"INSERT INTO effect VALUES (:region)\", parameters: {region: \"{{ var.value.region }}\"}}\n";
    let project = Project::new(&[("dags/uses.yaml", dag)]);
    project.write(
        "backstop.yaml",
        "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\nvariables:\n  region: eu\n",
    );
    project.sql("CREATE TABLE effect (what text)");
    let up = Up::of(&project);
    let effect = |what: &str| project.ask(&format!("SELECT count(*) FROM effect WHERE what = '{what}'"));
    let run = |up: &Up| {
        let run = up.trigger("uses", json!({}));
        up.wait_for_state(&run, "success");
    };
    run(&up);
    assert_eq!(effect("eu"), 1);
    let set = put(&up, "/api/v1/variables/region", json!({ "value": "us", "who": "ann", "why": "moved" }));
    assert_eq!((&set["value"], &set["project"]), (&json!("us"), &Value::Null));
    run(&up);
    assert_eq!(effect("us"), 1);
    // A secret is written, and never read: not here, not in the list, not in the audit.
    let secret = put(&up, "/api/v1/variables/api_token", json!({ "value": "t0ps3cret-value" }));
    assert_eq!((&secret["value"], &secret["secret"]), (&Value::Null, &json!(true)));
    for path in ["/api/v1/variables", "/api/v1/variables/api_token", "/api/v1/audit", "/api/v1/stream?", "/api/v1/problems"] {
        if !path.ends_with('?') {
            assert!(!up.ask("GET", path, None).body.to_string().contains("t0ps3cret"), "{path}");
        }
    }
    let audit = up.get("/api/v1/audit");
    assert_eq!(
        (&audit["items"][1]["what"], &audit["items"][1]["who"], &audit["items"][1]["why"]),
        (&json!("set variable `region`"), &json!("ann"), &json!("moved"))
    );
    up.running.kill();
    // Over a crash, and set by the command while the service runs.
    let up = Up::of(&project);
    assert_eq!(up.get("/api/v1/variables/region")["value"], "us");
    let told = project.backstop(&["variables", "list"]);
    assert!(
        told.stdout.contains("region") && told.stdout.contains("***") && !told.stdout.contains("t0ps3cret"),
        "{}",
        told.stdout
    );
    assert_eq!(project.backstop(&["variables", "set", "region", "asia", "--reason", "again"]).code, Some(0));
    wait("the service to see it", || up.get("/api/v1/variables/region")["value"] == "asia");
    run(&up);
    assert_eq!(effect("asia"), 1);
    // What was set is taken away, and backstop.yaml is in force again; that cannot be taken away here.
    assert_eq!(up.ask("DELETE", "/api/v1/variables/region?who=ann", None).status, 204);
    assert_eq!(up.get("/api/v1/variables/region")["value"], "eu");
    assert_eq!(up.ask("DELETE", "/api/v1/variables/region", None).status, 409);
    assert_eq!(up.ask("DELETE", "/api/v1/variables/rgion", None).status, 404);
    assert_eq!(up.ask("PUT", "/api/v1/variables/a%20b", Some(&json!({ "value": 1 }))).status, 400);
    assert_eq!(up.ask("PUT", "/api/v1/variables/big", Some(&json!({ "value": "x".repeat(300_000) }))).status, 400);
    assert_eq!(up.ask("PUT", "/api/v1/variables/a", Some(&json!({ "who": "ann" }))).status, 422);
    let unknown = project.backstop(&["variables", "delete", "api_tokn"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("api_token"), "{}", unknown.stderr);
}

#[test]
fn a_pool_that_grows_lets_waiting_tasks_run() {
    let dag = "dag: tight\ntasks:\n  slow: {shell: \"touch began-$BACKSTOP_RUN_ID; while [ -e backstop.yaml ] && [ ! -e done ]; do sleep 0.05; done\", pool: one}\n";
    let project = Project::new(&[("dags/tight.yaml", dag)]);
    project.write("backstop.yaml", "name: test\npools:\n  one: 1\n");
    let up = Up::of(&project);
    let runs = [up.trigger("tight", json!({})), up.trigger("tight", json!({}))];
    let running = || runs.iter().filter(|run| up.task(run, "slow") == "running").count();
    wait("one of them to run", || running() == 1);
    wait("the other to wait", || up.get("/api/v1/pools/one")["waiting"] == 1);
    let pool = put(&up, "/api/v1/pools/one", json!({ "slots": 2, "why": "the night is short" }));
    assert_eq!((&pool["slots"], &pool["set"]), (&json!(2), &json!(true)));
    wait("both to run", || running() == 2);
    project.write("done", "");
    runs.iter().for_each(|run| up.wait_for_state(run, "success"));
    assert_eq!(up.ask("PUT", "/api/v1/pools/one", Some(&json!({ "slots": 0 }))).status, 400);
    assert_eq!(up.ask("PUT", "/api/v1/pools/one", Some(&json!({ "slots": -1 }))).status, 422);
    assert_eq!(up.ask("PUT", "/api/v1/pools/one", Some(&json!({}))).status, 422);
    assert_eq!(up.ask("DELETE", "/api/v1/pools/one", None).status, 204);
    assert_eq!(up.get("/api/v1/pools/one")["slots"], 1);
    assert_eq!(project.backstop(&["pools", "set", "one", "-1"]).code, Some(0));
    wait("the service to see it", || up.get("/api/v1/pools/one")["slots"].is_null());
    assert!(project.backstop(&["pools", "list"]).stdout.contains("no limit"));
}

#[test]
fn connections_are_listed_without_secrets_and_tried_out() {
    let project = Project::new(&[("dags/one.yaml", "dag: one\ntasks:\n  one: {empty: true}\n")]);
    project.write(
        "backstop.yaml",
        "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n  \
         gone: {conn_type: postgres, host: 127.0.0.1, port: 1, login: me, password: \"t0ps3cret-value\"}\n",
    );
    project.sql("CREATE TABLE effect (what text)");
    let up = Up::of(&project);
    let listed = up.get("/api/v1/connections");
    assert_eq!((&listed["items"][0]["connection"], &listed["items"][1]["connection"]), (&json!("db"), &json!("gone")));
    assert!(!listed.to_string().contains("t0ps3cret"), "{listed}");
    let test = |id: &str| up.ask("POST", &format!("/api/v1/connections/{id}/test"), Some(&json!({})));
    let good = test("db");
    assert_eq!((good.status, &good.body["ok"]), (200, &json!(true)), "{}", good.body);
    let bad = test("gone");
    assert_eq!((bad.status, &bad.body["ok"]), (200, &json!(false)), "{}", bad.body);
    assert!(bad.body["error"].is_string() && !bad.body.to_string().contains("t0ps3cret"), "{}", bad.body);
    assert_eq!(test("nowhere").status, 404);
}

#[test]
fn what_has_not_changed_is_not_told_twice_and_not_changed_unawares() {
    let project = Project::new(&[("dags/one.yaml", "dag: one\ntasks:\n  one: {empty: true}\n")]);
    let up = Up::of(&project);
    let tag = |path: &str| {
        let answer = up.ask("GET", path, None);
        answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("etag: w").map(|tag| format!("W{tag}")))
            .unwrap_or_else(|| panic!("{path}: {}", answer.head))
    };
    let again = |path: &str, tag: &str| {
        let headers = format!("Host: {}\r\nIf-None-Match: {tag}", up.address);
        up.ask_with("GET", path, None, &headers).status
    };
    for path in [
        "/api/v1/dags",
        "/api/v1/dags/one",
        "/api/v1/dags/one/source",
        "/api/v1/runs",
        "/api/v1/pools",
        "/api/v1/variables",
        "/api/v1/openapi.json",
    ] {
        let seen = tag(path);
        assert_eq!(again(path, &seen), 304, "{path}");
        assert_eq!(again(path, "W/\"other\""), 200, "{path}");
    }
    let seen = tag("/api/v1/dags/one");
    let head = up.ask("HEAD", "/api/v1/dags/one", None);
    assert!(head.head.contains(&seen.to_lowercase()) && head.body == json!(""), "{}", head.head);
    let change = |paused: bool, tag: &str| {
        let headers = format!("Host: {}\r\nIf-Match: {tag}", up.address);
        up.ask_with("PATCH", "/api/v1/dags/one", Some(&json!({ "paused": paused })), &headers)
    };
    let changed = change(true, &seen);
    assert_eq!(changed.status, 200, "{}", changed.body);
    let now = changed.head.lines().find_map(|line| line.strip_prefix("etag: w").map(|tag| format!("W{tag}")));
    assert_eq!(now, Some(tag("/api/v1/dags/one")), "{}", changed.head);
    let late = change(false, &seen);
    assert_eq!((late.status, late.body["type"].as_str()), (412, Some("changed")), "{}", late.body);
    assert_eq!(up.get("/api/v1/dags/one")["paused"], true);
    assert_eq!(change(false, &tag("/api/v1/dags/one")).status, 200);
    let source = up.get("/api/v1/dags/one/source");
    assert_eq!(source["files"][0]["file"], "dags/one.yaml");
    assert_eq!(up.ask("GET", "/api/v1/dags/one/source?version=none", None).status, 404);
}

#[test]
fn the_description_is_served_and_several_projects_are_too() {
    let first = Project::new(&[("dags/one.yaml", "dag: one\ntasks:\n  one: {empty: true}\n")]);
    let second = Project::new(&[("dags/two.yaml", "dag: two\ntasks:\n  two: {empty: true}\n")]);
    second.write("backstop.yaml", "name: second\n");
    let (one, two) = (first.path().to_string_lossy().into_owned(), second.path().to_string_lossy().into_owned());
    let up = Up::with(&first, &["--project", &one, "--project", &two]);
    let dags = up.get("/api/v1/dags");
    let names: Vec<&str> = dags["items"].as_array().unwrap().iter().map(|dag| dag["dag"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    let printed = first.backstop(&["openapi"]);
    let served = up.get("/api/v1/openapi.json");
    assert_eq!(serde_json::from_str::<Value>(&printed.stdout).unwrap(), served);
    let refused = first.backstop(&["check", "--project", &one, "--project", &two]);
    assert_eq!(refused.code, Some(2));
    let twice = first.backstop(&["up", "--listen", "127.0.0.1:0", "--project", &one, "--project", &one]);
    assert!(twice.stderr.contains("is named twice"), "{}", twice.stderr);
}

#[test]
fn metrics_count_what_happens() {
    let project = Project::new(&[("dags/one.yaml", "dag: one\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n")]);
    let up = Up::of(&project);
    let run = up.trigger("one", json!({}));
    up.wait_for_state(&run, "success");
    assert_eq!(up.ask("GET", "/nowhere", None).status, 404);
    let metrics = || up.ask("GET", "/metrics", None).body.as_str().unwrap().to_owned();
    wait("the run to be counted", || metrics().contains("backstop_run_seconds_count 1\n"));
    let text = metrics();
    for line in [
        "backstop_run_start_seconds_count 1",
        "backstop_run_start_seconds_bucket{le=\"+Inf\"} 1",
        "backstop_attempt_seconds_count 1",
        "backstop_attempts_total{outcome=\"success\"} 1",
        "backstop_sessions_open{project=\"test\",connection=\"db\"} 1",
        "backstop_http_requests_total{method=\"POST\",route=\"/api/v1/dags/{dag}/runs\",status=\"201\"} 1",
        "backstop_http_requests_total{method=\"GET\",route=\"none\",status=\"404\"} 1",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
    }
    let appended = text.lines().find_map(|line| line.strip_prefix("backstop_store_append_seconds_count ")).unwrap();
    assert!(appended.parse::<u64>().unwrap() >= 1, "{appended}");
}

#[test]
fn bodies_and_streams_that_make_no_sense_are_refused() {
    let project = Project::new(&[("dags/one.yaml", "dag: one\ntasks:\n  one: {empty: true}\n")]);
    let up = Up::of(&project);
    let raw = |request: &str| {
        let mut stream = TcpStream::connect(&up.address).unwrap();
        stream.write_all(request.replace("HOST", &up.address).as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let post = |kind: &str, body: &str| {
        let length = body.len();
        raw(&format!(
            "POST /api/v1/dags/one/runs HTTP/1.1\r\nHost: HOST\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ))
    };
    assert!(post("application/json", "{\"who\":").starts_with("HTTP/1.1 400"));
    assert!(post("application/json", "[]").starts_with("HTTP/1.1 422"));
    assert!(post("text/plain", "{}").starts_with("HTTP/1.1 415"));
    assert!(post("application/json", &"[".repeat(100_000)).starts_with("HTTP/1.1 4"));
    assert!(
        raw("GET /api/v1/stream HTTP/1.1\r\nHost: HOST\r\nLast-Event-ID: x\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 400")
    );
    let long = "x".repeat(100_000);
    assert!(
        raw(&format!("GET /api/v1/dags HTTP/1.1\r\nHost: HOST\r\nX-Long: {long}\r\nConnection: close\r\n\r\n"))
            .starts_with("HTTP/1.1 431")
    );
    assert!(raw("no http at all\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(up.get("/api/v1/runs")["items"], json!([]), "nothing of this made a run");
    assert_eq!(up.get("/health")["status"], "ok");
}

#[test]
fn a_tag_changes_with_all_that_is_told_and_lets_one_of_two_win() {
    let maker = "dag: make_sales\ntasks:\n  one: {empty: true, updates: [sales]}\n";
    let report = "dag: report\nschedule: {assets: {all: [sales, rates]}}\ntasks:\n  one: {empty: true, updates: []}\n";
    let rates = "dag: make_rates\ntasks:\n  one: {empty: true, updates: [rates]}\n";
    let project =
        Project::new(&[("dags/m.yaml", maker), ("dags/x.yaml", rates), ("dags/r.yaml", &report.replace(", updates: []", ""))]);
    let up = Up::of(&project);
    let read = || {
        let answer = up.ask("GET", "/api/v1/dags/report", None);
        let tag = answer.head.lines().find_map(|line| line.strip_prefix("etag: w").map(|tag| format!("W{tag}")));
        (tag.unwrap(), answer.body)
    };
    wait("both to be missing", || read().1["missing_assets"] == json!(["rates", "sales"]));
    let before = read().0;
    up.trigger("make_sales", json!({}));
    wait("one to be there", || read().1["missing_assets"] == json!(["rates"]));
    assert_ne!(read().0, before, "nothing but what is missing has changed");
    for paused in [true, false, true, false] {
        let tag = read().0;
        let headers = format!("Host: {}\r\nIf-Match: {tag}", up.address);
        let change = || up.ask_with("PATCH", "/api/v1/dags/report", Some(&json!({ "paused": paused })), &headers).status;
        let mut answers: Vec<u16> =
            std::thread::scope(|scope| [(); 8].map(|()| scope.spawn(change)).map(|asked| asked.join().unwrap()).to_vec());
        answers.sort_unstable();
        assert_eq!(answers, [200, 412, 412, 412, 412, 412, 412, 412]);
    }
}

#[test]
fn streams_leave_room_for_questions() {
    let project = Project::new(&[("dags/one.yaml", "dag: one\ntasks:\n  one: {empty: true}\n")]);
    let up = Up::of(&project);
    let open = || {
        let mut stream = TcpStream::connect(&up.address).unwrap();
        stream.write_all(format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\n\r\n", up.address).as_bytes()).unwrap();
        let (mut heard, mut piece) = (String::new(), [0_u8; 4096]);
        while !heard.contains("\r\n\r\n") {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "{heard}");
            heard.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        (stream, heard)
    };
    let streams: Vec<_> = (0..256).map(|_| open()).collect();
    assert!(streams.iter().all(|(_, head)| head.starts_with("HTTP/1.1 200")));
    let refused = open().1;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("application/problem+json"), "{refused}");
    assert_eq!(up.get("/health")["status"], "ok");
    drop(streams);
    wait("a place", || open().1.starts_with("HTTP/1.1 200"));
}
