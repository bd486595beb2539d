//! Kinds of tasks against real peers: a loopback HTTP listener, files, the clock, and servers that must end a statement.

use crate::project::{Outcome, Project};
use backstop_testkit::servers::{MariaDb, Postgres};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

fn assert_says(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    for text in texts {
        assert!(outcome.stderr.contains(text), "it does not say `{text}`:\n{}", outcome.stderr);
    }
}

/// Answers each connection with the next text, then stops; an empty text closes the connection without an answer.
fn listener(answers: Vec<&'static str>) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut peer, _) = socket.accept().unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 1024];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = peer.read(&mut chunk).unwrap();
                assert!(read > 0, "the request ended early");
                request.extend_from_slice(&chunk[..read]);
            }
            requests.push(String::from_utf8_lossy(&request).into_owned());
            peer.write_all(answer.as_bytes()).unwrap();
        }
        requests
    });
    (port, thread)
}

#[test]
fn an_answer_reaches_the_next_task_as_a_bound_value() {
    let (port, thread) = listener(vec![
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\nconnection: close\r\n\r\n{\"n\": 42}",
    ]);
    let project = Project::with_tasks(&format!(
        "  rate:\n    http: {{url: 'http://127.0.0.1:{port}/rate?day={{{{ ds }}}}', result: true}}\n  keep:\n    after: [rate]\n    \
         sql: INSERT INTO t VALUES (:n)\n    parameters: {{n: \"{{{{ ti.xcom_pull('rate').n }}}}\"}}\n"
    ));
    project.sql("CREATE TABLE t (n INTEGER)");
    assert_says(&project.backstop(&["run", "d", "--logical-date", "2025-05-01"]), 0, &["2 success"]);
    assert_eq!(project.ask("SELECT n FROM t WHERE typeof(n) = 'integer'"), 42);
    assert!(thread.join().unwrap()[0].starts_with("GET /rate?day=2025-05-01 HTTP/1.1"));
}

#[test]
fn a_status_that_was_not_expected_fails_with_the_answers_beginning() {
    let (port, thread) = listener(vec!["HTTP/1.1 409 Conflict\r\ncontent-length: 12\r\nconnection: close\r\n\r\nalready paid"]);
    let project = Project::with_tasks(&format!(
        "  pay: {{http: {{method: POST, url: 'http://me:hunter22@127.0.0.1:{port}/pay?day={{{{ ds }}}}&key=abcd99'}}}}\n"
    ));
    let outcome = project.backstop(&["run", "d"]);
    let request = format!("POST http://***@127.0.0.1:{port}/pay?day=***&key=*** was answered with status 409");
    assert_says(&outcome, 1, &[&request, "already paid", "at: dags/d.yaml:4:"]);
    for secret in ["hunter22", "abcd99"] {
        assert!(!outcome.stderr.contains(secret), "{}", outcome.stderr);
        assert!(!project.data(&["runs", "show", "latest", "--json"]).contains(secret));
        assert!(!project.data(&["logs", "latest", "pay"]).contains(secret));
    }
    assert!(thread.join().unwrap()[0].to_ascii_lowercase().contains("idempotency-key:"));
}

#[test]
fn a_request_that_cannot_be_sent_names_what_it_was() {
    // Port 1 of the loopback: nothing listens there.
    let project = Project::with_tasks("  ask: {http: {url: 'http://127.0.0.1:1/rates?key=abcd99'}}\n");
    let outcome = project.backstop(&["run", "d"]);
    assert_says(&outcome, 1, &["GET http://127.0.0.1:1/rates?key=***: no connection", "nothing was sent"]);
    assert!(!outcome.stderr.contains("abcd99"), "{}", outcome.stderr);
    let project = Project::with_tasks("  ask: {http: {url: 'http://[{{ ds }}/'}}\n");
    let texts = ["the address to send to is not valid: ", "at: dags/d.yaml:4:"];
    assert_says(&project.backstop(&["run", "d"]), 1, &texts);
}

#[test]
fn a_post_without_an_answer_is_in_doubt_and_not_repeated() {
    let (port, thread) = listener(vec![""]);
    let tasks = format!("  pay: {{retries: 3, retry_delay: 0, http: {{method: POST, url: 'http://127.0.0.1:{port}/pay'}}}}\n");
    let project = Project::with_tasks(&tasks);
    assert_says(&project.backstop(&["run", "d"]), 3, &["pay is in doubt", "/pay: no whole answer", "--resolve pay="]);
    assert_eq!(thread.join().unwrap().len(), 1, "it was sent once");
    let decided = ["run", "--resume", "latest", "--resolve", "pay=committed", "--why", "the bank says so"];
    assert_says(&project.backstop(&decided), 0, &["success"]);
}

#[test]
fn sensors_see_files_and_times_and_skip_when_told() {
    let project = Project::with_tasks(
        "  file: {sensor: {file: 'in/{{ ds }}.csv', poke_interval: 1}}\n  time: {sensor: {time: '{{ ts }}', poke_interval: 1}}\n  \
         never: {sensor: {file: nowhere, poke_interval: 1, timeout: 1, soft_fail: true}}\n  \
         late: {sensor: {sql: SELECT 0, poke_interval: 1, timeout: 1}}\n",
    );
    project.write("in/2025-05-01.csv", "1,2\n");
    let outcome = project.backstop(&["run", "d", "--logical-date", "2025-05-01"]);
    assert_says(&outcome, 1, &["1 failed, 1 skipped, 2 success", "its condition did not hold"]);
}

#[test]
fn what_concerns_other_dags_needs_the_service() {
    let tasks = "  a: {dag: {id: other, params: {region: \"{{ ds }}\"}}}\n  b: {wait_for: {dag: other, task: load}}\n";
    let project = Project::with_tasks(tasks);
    project.write("dags/other.yaml", "dag: other\nparams: {region: eu}\ntasks:\n  load: {empty: true}\n");
    let outcome = project.backstop(&["run", "d"]);
    assert_says(&outcome, 2, &["task `a` starts a run of DAG `other`", "nothing was begun", "backstop up"]);
    let shown = project.data(&["render", "d", "a", "--logical-date", "2025-05-01T00:00:00Z"]);
    assert!(shown.contains("starts a run of other, and waits for it") && shown.contains("region = \"2025-05-01\""), "{shown}");
    let shown = project.data(&["render", "d", "b"]);
    assert!(shown.contains("waits for task load of a run of other"), "{shown}");
    let outcome = project.backstop(&["run", "d", "--dry-run"]);
    assert_says(&outcome, 0, &["cannot be rolled back, so it is not run"]);
}

#[test]
fn an_execution_timeout_ends_the_statement_on_the_server() {
    let timed = |sleep: &str| format!("  slow: {{execution_timeout: 1, sql: '{sleep}'}}\n");
    let told = ["over its execution_timeout of TOOK", "nothing was committed"];
    let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
    assert_says(&Project::with_tasks(&timed(endless)).backstop(&["run", "d"]), 1, &told);
    if let Some(server) = Postgres::shared() {
        let project = Project::with_tasks(&timed("SELECT pg_sleep(600)"));
        let uri = format!("postgresql://postgres@127.0.0.1:{}/postgres", server.port());
        project.write("backstop.yaml", &format!("connections:\n  db: {{uri: \"{uri}\"}}\n"));
        assert_says(&project.backstop(&["run", "d"]), 1, &told);
        let left = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(600)%'";
        assert_eq!(server.sql("postgres", left).unwrap().trim(), "0");
    }
    if let Some(server) = MariaDb::shared() {
        let project = Project::with_tasks(&timed("SELECT SLEEP(600)"));
        let uri = format!("mysql://root@127.0.0.1:{}/mysql", server.port());
        project.write("backstop.yaml", &format!("connections:\n  db: {{uri: \"{uri}\"}}\n"));
        assert_says(&project.backstop(&["run", "d"]), 1, &told[..1]);
        let left = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(600)%'";
        assert_eq!(server.sql("mysql", left).unwrap().trim(), "0");
    }
}
