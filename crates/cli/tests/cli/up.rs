//! The service: runs that are asked for and that timetables ask for, through crashes and restarts, steered by its API.

use crate::project::{Project, Running};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A service that goes on.
pub(crate) struct Up {
    pub(crate) running: Running,
    pub(crate) address: String,
}

/// What it answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Up {
    pub(crate) fn of(project: &Project) -> Self {
        Self::with(project, &[])
    }

    /// On a port that nobody else has.
    pub(crate) fn with(project: &Project, arguments: &[&str]) -> Self {
        let mut running = project.start(&[&["up", "--listen", "127.0.0.1:0"], arguments].concat());
        running.wait_for("listens at http://");
        let heard = running.heard().to_owned();
        let address = heard.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { running, address }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.ask_with(method, path, body, &format!("Host: {}", self.address))
    }

    pub(crate) fn ask_with(&self, method: &str, path: &str, body: Option<&Value>, headers: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = body.map_or_else(String::new, Value::to_string);
        let length = body.len();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let request =
            format!("{method} {path} HTTP/1.1\r\n{headers}\r\n{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
            head: head.to_ascii_lowercase(),
            body: serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.body
    }

    /// Asks for a run, and returns its id.
    pub(crate) fn trigger(&self, dag: &str, body: Value) -> String {
        let answer = self.ask("POST", &format!("/api/v1/dags/{dag}/runs"), Some(&body));
        assert!(matches!(answer.status, 200 | 201), "{}", answer.body);
        answer.body["run_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn state(&self, run: &str) -> String {
        self.get(&format!("/api/v1/runs/{run}"))["state"].as_str().unwrap().to_owned()
    }

    pub(crate) fn task(&self, run: &str, task: &str) -> String {
        let tasks = self.get(&format!("/api/v1/runs/{run}/tasks?limit=1000"));
        let found = tasks["items"].as_array().unwrap().iter().find(|row| row["task"] == task);
        found.map_or_else(String::new, |row| row["state"].as_str().unwrap().to_owned())
    }

    pub(crate) fn wait_for_state(&self, run: &str, state: &str) {
        wait(&format!("run {run} to be {state}"), || self.state(run) == state);
    }
}

/// Waits for what is certain to come; a test that waits for ever says for what.
#[expect(clippy::disallowed_methods, reason = "the service is another process, and its API is asked again and again")]
pub(crate) fn wait(what: &str, mut is_there: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_there() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A DAG whose second task goes on until a file is there.
const GATED: &str = "dag: gated\nconnection: db\ntasks:\n  first: {sql: \"INSERT INTO effect VALUES ('first')\"}\n  \
                     gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1s}, after: [first]}\n  \
                     last: {sql: \"INSERT INTO effect VALUES ('last')\", after: [gate]}\n";

fn gated() -> Project {
    let project = Project::new(&[("dags/gated.yaml", GATED)]);
    project.sql("CREATE TABLE effect (what text); CREATE TABLE gate (a int)");
    project
}

fn count(project: &Project, what: &str) -> i64 {
    project.ask(&format!("SELECT count(*) FROM effect WHERE what = '{what}'"))
}

#[test]
fn a_run_goes_on_after_kill_9_and_takes_effect_once() {
    let project = gated();
    let up = Up::of(&project);
    let run = up.trigger("gated", json!({ "who": "ann", "why": "the nightly load failed" }));
    wait("the gate", || up.task(&run, "gate") == "up_for_reschedule" || up.task(&run, "gate") == "deferred");
    up.running.kill();
    project.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&project);
    up.wait_for_state(&run, "success");
    assert_eq!((count(&project, "first"), count(&project, "last")), (1, 1));
    let events = up.get(&format!("/api/v1/runs/{run}/events?limit=1000"));
    let asked = events["items"].as_array().unwrap().iter().find(|event| event["type"] == "operator_acted").unwrap();
    assert_eq!((asked["who"].as_str(), asked["why"].as_str()), (Some("ann"), Some("the nightly load failed")));
}

#[test]
fn a_clean_stop_hands_over_and_the_next_service_goes_on() {
    let project = gated();
    let up = Up::of(&project);
    let run = up.trigger("gated", json!({}));
    wait("the first task", || up.task(&run, "first") == "success");
    assert_eq!(up.running.terminate().0, Some(0));
    project.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&project);
    up.wait_for_state(&run, "success");
    assert_eq!((count(&project, "first"), count(&project, "last")), (1, 1));
}

#[test]
fn a_paused_dag_keeps_its_runs_waiting_and_says_so() {
    let project = gated();
    project.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&project);
    let paused = up.ask("PATCH", "/api/v1/dags/gated", Some(&json!({ "paused": true, "who": "ann", "why": "mending" })));
    assert_eq!((paused.status, &paused.body["paused"]), (200, &json!(true)));
    let run = up.trigger("gated", json!({}));
    assert_eq!(up.get(&format!("/api/v1/runs/{run}/why"))["why"], "its DAG is paused");
    up.running.kill();
    // Also over a crash.
    let up = Up::of(&project);
    assert_eq!(up.get("/api/v1/dags/gated")["paused"], true);
    assert_eq!(up.state(&run), "queued");
    up.ask("PATCH", "/api/v1/dags/gated", Some(&json!({ "paused": false })));
    up.wait_for_state(&run, "success");
    let audit = up.get("/api/v1/audit");
    assert_eq!(audit["items"][1]["what"], "paused DAG `gated`");
    assert_eq!((&audit["items"][1]["who"], &audit["items"][1]["why"]), (&json!("ann"), &json!("mending")));
}

#[test]
fn a_run_is_cancelled_whether_it_goes_on_or_waits() {
    let project = gated();
    let up = Up::of(&project);
    let going = up.trigger("gated", json!({}));
    wait("the first task", || up.task(&going, "first") == "success");
    up.ask("PATCH", "/api/v1/dags/gated", Some(&json!({ "paused": true })));
    let waiting = up.trigger("gated", json!({}));
    for run in [&going, &waiting] {
        let answer = up.ask("POST", &format!("/api/v1/runs/{run}/cancel"), Some(&json!({ "who": "ann", "why": "wrong day" })));
        assert_eq!(answer.status, 202, "{}", answer.body);
        up.wait_for_state(run, "cancelled");
    }
    // Nothing of the run that waited was begun.
    assert_eq!((count(&project, "first"), count(&project, "last")), (1, 0));
    let silent = up.ask("POST", &format!("/api/v1/runs/{going}/cancel"), Some(&json!({ "why": " " })));
    assert_eq!((silent.status, silent.body["type"].as_str()), (400, Some("bad-request")), "{}", silent.body);
    let again = up.ask("POST", &format!("/api/v1/runs/{going}/cancel"), Some(&json!({ "why": "once more" })));
    assert_eq!((again.status, again.body["type"].as_str()), (409, Some("conflict")), "{}", again.body);
}

#[test]
fn a_timetable_makes_each_run_once_through_crashes() {
    let dag = "dag: often\nconnection: db\nschedule: {every: 1s}\nstart_date: 2026-01-01\ntasks:\n  \
               note: {sql: \"INSERT INTO effect VALUES ('{{ ts }}')\"}\n";
    let project = Project::new(&[("dags/often.yaml", dag)]);
    project.sql("CREATE TABLE effect (what text)");
    let runs = || project.ask("SELECT count(*) FROM effect");
    for crash in 1..=3 {
        let up = Up::of(&project);
        wait("two more runs", || runs() >= crash * 2);
        assert!(up.get("/api/v1/dags/often")["next_run_at"].is_string());
        up.running.kill();
    }
    let up = Up::of(&project);
    wait("the runs that were left", || up.get("/api/v1/runs?unfinished=true")["items"].as_array().unwrap().is_empty());
    up.ask("PATCH", "/api/v1/dags/often", Some(&json!({ "paused": true })));
    wait("the last run", || up.get("/api/v1/runs?unfinished=true")["items"].as_array().unwrap().is_empty());
    assert_eq!(project.ask("SELECT count(*) - count(DISTINCT what) FROM effect"), 0, "no tick ran twice");
    let listed = up.get("/api/v1/runs?limit=1000");
    let listed = listed["items"].as_array().unwrap();
    assert!(listed.iter().all(|run| run["run_type"] == "scheduled" && run["state"] == "success"));
    assert_eq!(i64::try_from(listed.len()).unwrap(), runs());
}

#[test]
fn missed_ticks_are_caught_up_a_bounded_number_at_a_time() {
    // A tick a second for years: 16 at once, and no more than that are made before one of them ends.
    let dag = "dag: late\nconnection: db\nschedule: {every: 1s}\nstart_date: 2020-01-01\ncatchup: true\ntasks:\n  \
               gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}\n";
    let project = Project::new(&[("dags/late.yaml", dag)]);
    project.sql("CREATE TABLE gate (a int)");
    let up = Up::of(&project);
    wait("the runs that may go on at once", || up.get("/api/v1/runs?limit=1000")["items"].as_array().unwrap().len() == 16);
    let listed = up.get("/api/v1/runs?limit=1000");
    assert_eq!(listed["items"][15]["logical_date"], "2020-01-01T00:00:00Z");
    assert_eq!(listed["items"][0]["logical_date"], "2020-01-01T00:00:15Z");
    // It is not busy with the rest.
    assert_eq!(up.get("/health")["status"], "ok");
}

#[test]
fn a_changed_file_is_loaded_and_a_broken_one_keeps_its_last_good_version() {
    let project = gated();
    let up = Up::of(&project);
    let tasks = || up.get("/api/v1/dags/gated")["tasks"].as_u64();
    assert_eq!(tasks(), Some(3));
    project.write("dags/gated.yaml", &format!("{GATED}  more: {{empty: true}}\n"));
    wait("the new version", || tasks() == Some(4));
    project.write("dags/gated.yaml", "dag: gated\ntasks: {{{\n");
    wait("the trouble", || up.get("/api/v1/dags/gated")["stale"] == true);
    assert_eq!(tasks(), Some(4));
    let problems = up.get("/api/v1/problems");
    assert_eq!(problems["items"][0]["file"], "dags/gated.yaml", "{problems}");
    project.sql("INSERT INTO gate VALUES (1)");
    let run = up.trigger("gated", json!({}));
    up.wait_for_state(&run, "success");
    std::fs::remove_file(project.path().join("dags/gated.yaml")).unwrap();
    wait("the DAG to be gone", || up.ask("GET", "/api/v1/dags/gated", None).status == 404);
}

#[test]
fn a_run_keeps_the_version_it_began_with() {
    let project = gated();
    let up = Up::of(&project);
    let run = up.trigger("gated", json!({}));
    wait("the first task", || up.task(&run, "first") == "success");
    std::fs::remove_file(project.path().join("dags/gated.yaml")).unwrap();
    wait("the DAG to be gone", || up.ask("GET", "/api/v1/dags/gated", None).status == 404);
    up.running.kill();
    project.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&project);
    up.wait_for_state(&run, "success");
    assert_eq!((count(&project, "first"), count(&project, "last")), (1, 1));
}

#[test]
fn two_services_on_one_store_are_one_too_many() {
    let project = gated();
    let up = Up::of(&project);
    let second = project.backstop(&["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(2));
    assert!(
        second.stderr.contains(&format!("another service has this store: process {}, at ", up.running.id())),
        "{}",
        second.stderr
    );
    // Where that one listens, too: not that the address is taken is what helps.
    let same = project.backstop(&["up", "--listen", &up.address]);
    assert_eq!(same.code, Some(2));
    assert!(same.stderr.contains(&format!("another service has this store: process {}", up.running.id())), "{}", same.stderr);
    // By another way to the same file, and in the words of `sqlite:`.
    let elsewhere = tempfile::tempdir().unwrap();
    let link = elsewhere.path().join("linked.db");
    std::os::unix::fs::symlink(project.path().join(".backstop/store.db"), &link).unwrap();
    let third = project.backstop(&["up", "--listen", "127.0.0.1:0", "--store", &format!("sqlite:{}", link.display())]);
    assert_eq!(third.code, Some(2));
    assert!(third.stderr.contains(&format!("another service has this store: process {}", up.running.id())), "{}", third.stderr);
}

#[test]
fn two_stores_in_one_folder_do_not_lock_each_other() {
    let project = gated();
    let _up = Up::of(&project);
    let other = project.path().join(".backstop/other.db");
    let _other = Up::with(&project, &["--store", &other.to_string_lossy()]);
}

#[test]
fn a_run_goes_on_in_its_own_project_or_waits() {
    let first = gated();
    let second = Project::new(&[(
        "dags/two.yaml",
        "dag: two\nconnection: db\ntasks:\n  wait: {sensor: {sql: SELECT COUNT(*) FROM gate, poke_interval: 1s}}\n  \
         last: {sql: \"INSERT INTO effect VALUES ('last')\", after: [wait]}\n",
    )]);
    second.write("backstop.yaml", "name: second\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n");
    second.sql("CREATE TABLE effect (what text); CREATE TABLE gate (a int)");
    first.sql("INSERT INTO gate VALUES (1)");
    let (one, two) = (first.path().to_string_lossy().into_owned(), second.path().to_string_lossy().into_owned());
    let both = ["--project", &*one, "--project", &*two];
    let up = Up::with(&first, &both);
    let run = up.trigger("two", json!({}));
    wait("the sensor to have looked", || up.task(&run, "wait") != "none");
    up.running.kill();
    // Its project is not there: the first one has a connection and tables of these names.
    let up = Up::with(&first, &["--project", &one]);
    wait("it to say why", || {
        up.get(&format!("/api/v1/runs/{run}/why"))["why"].as_str().is_some_and(|why| why.contains("is not loaded"))
    });
    up.running.kill();
    // It is there, but for the DAG's file.
    std::fs::remove_file(second.path().join("dags/two.yaml")).unwrap();
    let up = Up::with(&first, &both);
    second.sql("INSERT INTO gate VALUES (1)");
    up.wait_for_state(&run, "success");
    assert_eq!((count(&first, "last"), count(&second, "last")), (0, 1));
}

/// Two clones have one name, and the same files: only the folders tell them apart.
#[test]
fn a_run_of_one_clone_does_not_go_on_in_the_other() {
    let (first, second) = (gated(), gated());
    second.sql("INSERT INTO gate VALUES (1)");
    let store = first.path().join(".backstop/store.db").to_string_lossy().into_owned();
    let up = Up::of(&first);
    let run = up.trigger("gated", json!({}));
    wait("the sensor to have looked", || up.task(&run, "gate") != "none");
    up.running.kill();
    let up = Up::with(&second, &["--store", &store]);
    let own = up.trigger("gated", json!({}));
    up.wait_for_state(&own, "success");
    let why = || up.get(&format!("/api/v1/runs/{run}/why"))["why"].as_str().unwrap_or_default().to_owned();
    wait("it to say why", || why().contains("is not loaded"));
    assert!(why().contains("or move that folder away if"), "{}", why());
    let (code, _) = up.running.terminate();
    assert_eq!(code, Some(0));
    let offline = second.backstop(&["run", "--resume", &run, "--store", &store]);
    assert_eq!(offline.code, Some(2));
    assert!(offline.stderr.contains(&format!("go on with --project {}", first.path().display())), "{}", offline.stderr);
    assert_eq!(count(&second, "last"), 1, "its own");
    first.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&first);
    up.wait_for_state(&run, "success");
    assert_eq!((count(&first, "last"), count(&second, "last")), (1, 1));
}

#[test]
fn what_makes_no_sense_is_refused_with_what_to_do() {
    let project = gated();
    let up = Up::of(&project);
    let refused = |method: &str, path: &str, body: Option<Value>| {
        let answer = up.ask(method, path, body.as_ref());
        assert!(answer.head.contains("application/problem+json"), "{path}: {}", answer.head);
        (answer.status, answer.body["type"].as_str().unwrap_or_default().to_owned())
    };
    let kind = |status: u16, kind: &str| (status, kind.to_owned());
    assert_eq!(refused("GET", "/api/v1/dags/gate", None), kind(404, "not-found"));
    assert_eq!(refused("GET", "/api/v1/runs/none", None), kind(404, "not-found"));
    assert_eq!(refused("GET", "/api/v1/runs?before=none", None), kind(400, "bad-request"));
    assert_eq!(refused("GET", "/api/v1/runs?limit=0", None), kind(400, "bad-request"));
    assert_eq!(refused("GET", "/api/v1/runs?limit=many", None), kind(400, "bad-request"));
    assert_eq!(refused("GET", "/nothing", None), kind(404, "not-found"));
    assert_eq!(refused("DELETE", "/api/v1/runs", None), kind(405, "method-not-allowed"));
    assert_eq!(refused("POST", "/api/v1/dags/gated/runs", Some(json!({ "parms": {} }))), kind(422, "bad-body"));
    assert_eq!(refused("POST", "/api/v1/dags/gated/runs", Some(json!({ "params": { "a": 1 } }))), kind(422, "bad-parameters"));
    assert_eq!(refused("POST", "/api/v1/dags/gated/runs", Some(json!({ "tasks": ["frist"] }))), kind(400, "bad-request"));
    assert_eq!(refused("POST", "/api/v1/dags/gated/runs", Some(json!({ "run_id": "../../etc" }))), kind(400, "bad-request"));
    // No text at all.
    assert_eq!(refused("GET", "/api/v1/runs/%ff", None), kind(400, "bad-request"));
    assert_eq!(refused("GET", "/api/v1/dags/%ff", None), kind(400, "bad-request"));
    assert_eq!(refused("PUT", "/api/v1/variables/%ff", Some(json!({ "value": 1 }))), kind(400, "bad-request"));
    let answer = up.ask("POST", "/api/v1/dags/gated/runs", Some(&json!({ "dryrun": true })));
    assert_eq!(
        (&answer.body["detail"], &answer.body["hint"]),
        (&json!("unknown field `dryrun`"), &json!("did you mean `dry_run`?"))
    );
    let answer = up.ask("POST", "/api/v1/runs/none/retry", Some(&json!({ "why": "x", "dry_run": "x".repeat(100_000) })));
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("`dry_run` must be true or false, and is \"xxx") && detail.len() < 200, "{detail}");
    for (field, length) in [("who", 257), ("why", 4097)] {
        let long = |length: usize| Some(json!({ "paused": false, field: "x".repeat(length) }));
        assert_eq!(refused("PATCH", "/api/v1/dags/gated", long(length)), kind(422, "bad-body"));
        assert_eq!(up.ask("PATCH", "/api/v1/dags/gated", long(length - 1).as_ref()).status, 200, "{field}");
        assert_eq!(refused("DELETE", &format!("/api/v1/pools/x?{field}={}", "x".repeat(length)), None), kind(400, "bad-request"));
    }
    let many = json!({ "why": "x".repeat(4097), "dry_run": true });
    assert_eq!(refused("POST", "/api/v1/runs/none/retry", Some(many)), kind(422, "bad-body"));
    let huge = json!({ "why": "x".repeat(2 * 1024 * 1024) });
    let told = up.ask("POST", "/api/v1/dags/gated/runs", Some(&huge)).body["detail"].clone();
    assert_eq!(told, "the body is too large: it may have 1048576 bytes (1 MiB)");
    assert_eq!(refused("POST", "/api/v1/dags/gated/runs", Some(huge)), kind(413, "bad-body"));
    let answer = up.ask_with("GET", "/api/v1/dags", None, "Host: evil.example");
    assert_eq!((answer.status, answer.body["type"].as_str()), (421, Some("wrong-host")));
    let elsewhere = format!("Host: {}\r\nOrigin: http://evil.example", up.address);
    let answer = up.ask_with("POST", "/api/v1/dags/gated/runs", Some(&json!({})), &elsewhere);
    assert_eq!((answer.status, answer.body["type"].as_str()), (403, Some("wrong-origin")));
    assert_eq!(up.get("/api/v1/runs")["items"], json!([]), "nothing of this made a run");
}

#[test]
fn one_id_makes_one_run() {
    let project = gated();
    project.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&project);
    let first = up.trigger("gated", json!({ "run_id": "load-2026-11-22" }));
    let second = up.trigger("gated", json!({ "run_id": "load-2026-11-22" }));
    assert_eq!(first, second);
    up.wait_for_state(&first, "success");
    assert_eq!(count(&project, "first"), 1);
}

#[test]
fn an_address_beyond_loopback_needs_a_token() {
    let project = gated();
    let refused = project.backstop(&["up", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("is not loopback") && refused.stderr.contains("--token-file"), "{}", refused.stderr);
    project.write("token", "too short\n");
    assert!(project.backstop(&["up", "--listen", "127.0.0.1:0", "--token-file", "token"]).stderr.contains("shorter than 16"));
    project.write("token", "0123456789abcdef0123456789abcdef\n");
    let up = Up::with(&project, &["--token-file", "token"]);
    assert_eq!(up.ask("GET", "/health", None).status, 200);
    assert_eq!(up.ask("GET", "/api/v1/dags", None).status, 401);
    let with = format!("Host: {}\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef", up.address);
    assert_eq!(up.ask_with("GET", "/api/v1/dags", None, &with).status, 200);
}

#[test]
fn the_stream_tells_what_happens_and_what_was_missed() {
    let project = gated();
    project.sql("INSERT INTO gate VALUES (1)");
    let up = Up::of(&project);
    let run = up.trigger("gated", json!({}));
    up.wait_for_state(&run, "success");
    let listen = |after: u64| {
        let mut stream = TcpStream::connect(&up.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("GET /api/v1/stream HTTP/1.1\r\nHost: {}\r\nLast-Event-ID: {after}\r\n\r\n", up.address);
        stream.write_all(request.as_bytes()).unwrap();
        let mut heard = String::new();
        let mut piece = [0_u8; 4096];
        while !heard.contains("run_succeeded") {
            let read = stream.read(&mut piece).unwrap();
            assert!(read > 0, "the stream ended: {heard}");
            heard.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        (heard, stream)
    };
    // A number of an earlier process, also where this one has told as many: something may have been missed.
    let (heard, _) = listen(3);
    assert!(heard.contains("text/event-stream") && heard.contains("run_created") && heard.contains("event: gap\n"), "{heard}");
    let first: u64 = heard.split("id: ").nth(1).and_then(|rest| rest.lines().next()).unwrap().parse().unwrap();
    let (heard, stream) = listen(first);
    assert!(heard.contains(&format!("id: {}\n", first + 1)) && !heard.contains(&format!("id: {first}\n")), "{heard}");
    assert!(!heard.contains("event: gap"), "{heard}");
    // A client that never reads is nobody's trouble.
    drop(stream);
    let metrics = || up.ask("GET", "/metrics", None).body.as_str().unwrap().to_owned();
    wait("the run to be let go", || metrics().contains("backstop_runs{state=\"active\"} 0"));
}

/// A DAG whose second task fails until a table is there.
fn failing() -> Project {
    let dag = "dag: load\nconnection: db\ntasks:\n  first: {sql: \"INSERT INTO effect VALUES ('first')\"}\n  \
               second: {sql: \"INSERT INTO effect SELECT 'second' FROM missing\", after: [first]}\n  \
               third: {sql: \"INSERT INTO effect VALUES ('third')\", after: [second]}\n";
    let project = Project::new(&[("dags/load.yaml", dag)]);
    project.sql("CREATE TABLE effect (what text)");
    project
}

#[test]
fn a_failed_run_is_retried_from_what_failed() {
    let project = failing();
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    up.wait_for_state(&run, "failed");
    let path = format!("/api/v1/runs/{run}/retry");
    let unexplained = up.ask("POST", &path, Some(&json!({})));
    assert_eq!((unexplained.status, unexplained.body["type"].as_str()), (400, Some("bad-request")), "{}", unexplained.body);
    let dry = up.ask("POST", &path, Some(&json!({ "dry_run": true, "why": "look first" })));
    assert_eq!((dry.status, &dry.body["instances"]), (200, &json!(["second", "third"])), "{}", dry.body);
    assert_eq!(up.state(&run), "failed");
    project.sql("CREATE TABLE missing (a int); INSERT INTO missing VALUES (1)");
    let done = up.ask("POST", &path, Some(&json!({ "who": "ann", "why": "the table is there now" })));
    assert_eq!(done.status, 200, "{}", done.body);
    up.wait_for_state(&run, "success");
    assert_eq!(["first", "second", "third"].map(|what| count(&project, what)), [1, 1, 1]);
    // Over a crash it stays so, and a clear does it all once more, because somebody said so.
    up.running.kill();
    let up = Up::of(&project);
    assert_eq!(up.state(&run), "success");
    let cleared = up.ask(
        "POST",
        &format!("/api/v1/runs/{run}/clear"),
        Some(&json!({ "tasks": ["second"], "downstream": true, "why": "again" })),
    );
    assert_eq!((cleared.status, &cleared.body["instances"]), (200, &json!(["second", "third"])), "{}", cleared.body);
    wait("the effects of the clear", || count(&project, "third") == 2);
    up.wait_for_state(&run, "success");
    assert_eq!(["first", "second", "third"].map(|what| count(&project, what)), [1, 2, 2]);
}

#[test]
fn a_failed_task_is_marked_and_what_is_below_it_runs() {
    let project = failing();
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    up.wait_for_state(&run, "failed");
    let mark = json!({ "tasks": ["second"], "as": "success", "who": "ann", "why": "loaded by hand" });
    let marked = up.ask("POST", &format!("/api/v1/runs/{run}/mark"), Some(&mark));
    assert_eq!(marked.status, 200, "{}", marked.body);
    up.wait_for_state(&run, "success");
    assert_eq!(["first", "second", "third"].map(|what| count(&project, what)), [1, 0, 1]);
    let unknown =
        up.ask("POST", &format!("/api/v1/runs/{run}/mark"), Some(&json!({ "tasks": ["secnd"], "as": "success", "why": "x" })));
    assert_eq!(unknown.status, 409, "{}", unknown.body);
}

#[test]
fn every_waiting_task_says_why() {
    let dag = "dag: waits\nconnection: db\nmax_active_runs: 2\ntasks:\n  \
               gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}\n  \
               slow: {shell: \"while [ -e backstop.yaml ] && [ ! -e done ]; do sleep 0.05; done\", pool: one}\n  \
               last: {sql: \"INSERT INTO gate VALUES (1)\", after: [gate, slow]}\n";
    let project = Project::new(&[("dags/waits.yaml", dag)]);
    project.write("backstop.yaml", "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\npools:\n  one: 1\n");
    project.sql("CREATE TABLE gate (a int)");
    let up = Up::of(&project);
    let (first, second, third) = (up.trigger("waits", json!({})), up.trigger("waits", json!({})), up.trigger("waits", json!({})));
    let why = |run: &str, task: &str| up.get(&format!("/api/v1/runs/{run}/tasks/{task}/why"))["why"].as_str().unwrap().to_owned();
    wait("one of them to have the pool", || [&first, &second].iter().any(|run| up.task(run, "slow") == "running"));
    wait("the other to wait for it", || {
        [&first, &second].iter().any(|run| why(run, "slow").contains("pool `one` is full: 1 of 1"))
    });
    let (has, waits) = if up.task(&first, "slow") == "running" { (&first, &second) } else { (&second, &first) };
    assert!(why(waits, "slow").contains(&format!("held by `slow` of run {has}")), "{}", why(waits, "slow"));
    wait("the gate to be looked at", || up.task(has, "gate") == "up_for_reschedule" || up.task(has, "gate") == "deferred");
    assert_eq!(
        why(has, "last"),
        "it waits for 2 of 2 upstream task instances (all_success): gate (up_for_reschedule), slow (running)"
    );
    assert!(
        why(&third, "last").contains("its DAG has 2 runs going on, of 2 allowed (max_active_runs)"),
        "{}",
        why(&third, "last")
    );
    assert_eq!(up.ask("GET", &format!("/api/v1/runs/{has}/tasks/lst/why"), None).status, 404);
    project.write("done", "");
}

#[test]
fn the_same_work_is_not_asked_for_twice_unawares() {
    let dag = "dag: pay\nconnection: db\nparams:\n  amount: {type: integer, default: 1}\ntasks:\n  \
               pay: {sql: \"INSERT INTO paid VALUES (:amount)\", parameters: {amount: \"{{ params.amount }}\"}}\n";
    let project = Project::new(&[("dags/pay.yaml", dag)]);
    project.sql("CREATE TABLE paid (amount int)");
    let up = Up::of(&project);
    let ask = |body: Value| {
        let answer = up.ask("POST", "/api/v1/dags/pay/runs", Some(&body));
        (answer.status, answer.body["detail"].as_str().unwrap_or_default().to_owned())
    };
    let path = "/api/v1/dags/pay/runs";
    // One id: the same request has one answer, another is refused.
    assert_eq!(ask(json!({ "run_id": "payment-0001", "params": { "amount": 7 } })).0, 201);
    assert_eq!(ask(json!({ "run_id": "payment-0001", "params": { "amount": 7 } })).0, 200);
    let (status, detail) = ask(json!({ "run_id": "payment-0001", "params": { "amount": 8 } }));
    assert_eq!(status, 409);
    assert!(detail.contains("was asked for with other parameters"), "{detail}");
    // One date: a second run has to be wanted. Many who ask at once make one.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let asks =
            (0..4).map(|_| scope.spawn(|| ask(json!({ "logical_date": "2026-03-01T00:00:00Z", "params": { "amount": 9 } })).0));
        asks.collect::<Vec<_>>().into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert_eq!((statuses.iter().filter(|s| **s == 201).count(), statuses.iter().filter(|s| **s == 409).count()), (1, 3));
    assert_eq!(ask(json!({ "logical_date": "2026-03-01T00:00:00Z", "again": true, "params": { "amount": 10 } })).0, 201);
    // No body is an empty one.
    assert_eq!(up.ask("POST", path, None).status, 201);
    wait("all runs to end", || up.get("/api/v1/runs?unfinished=true")["items"].as_array().unwrap().is_empty());
    let paid = |amount: i64| project.ask(&format!("SELECT count(*) FROM paid WHERE amount = {amount}"));
    assert_eq!([7, 8, 9, 10, 1].map(paid), [1, 0, 1, 1, 1]);
    // A key that is not known is not passed over.
    assert_eq!(up.ask("GET", "/api/v1/runs?stat=failed", None).status, 400);
    let metrics = up.ask("GET", "/metrics", None);
    assert!(metrics.body.as_str().unwrap().contains("backstop_runs_ended_total{state=\"success\"} 4"), "{}", metrics.body);
}
