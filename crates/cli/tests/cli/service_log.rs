//! What a service writes to standard error while it goes on: for who looks at journald in the morning, without asking the API.

use crate::project::Project;
use crate::up::Up;
use serde_json::json;

const BACKSTOP_YAML: &str = "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n  \
    later: {conn_type: sqlite, database: later/data.db}\n  \
    remote: {conn_type: postgres, host: 127.0.0.1, port: 1, login: plain-swordfish-7, password: plain-swordfish-7, database: x}\n";

const BAD: &str = "dag: bad\nconnection: db\ntasks:\n  fine: {sql: SELECT 1}\n  one: {sql: SELECT * FROM nowhere, retries: 1, retry_delay: 1ms}\n";

fn project() -> Project {
    let on = |dag: &str| format!("dag: {dag}\nconnection: {dag}\ntasks:\n  one: {{sql: SELECT 1}}\n");
    let project = Project::new(&[("backstop.yaml", BACKSTOP_YAML), ("dags/bad.yaml", BAD)]);
    for dag in ["db", "later", "remote"] {
        project.write(&format!("dags/{dag}.yaml"), &on(dag));
    }
    project
}

impl Up {
    /// The line with this text, that it wrote or is going to write.
    fn line(&mut self, text: &str) -> String {
        if !self.running.heard().contains(text) {
            self.running.wait_for(text);
        }
        self.running.heard().lines().find(|line| line.contains(text)).unwrap().to_owned()
    }
}

/// A line begins with when, and how much it matters.
fn assert_level(line: &str, level: &str) {
    let mut words = line.split_whitespace();
    let at: Result<jiff::Timestamp, _> = words.next().unwrap().parse();
    assert!(at.is_ok() && words.next() == Some(level), "{line}");
}

#[test]
fn failures_files_and_connections_are_told_as_they_happen() {
    let project = project();
    let mut up = Up::of(&project);
    up.trigger("db", json!({}));
    let run = up.trigger("bad", json!({}));
    let line = up.line(&format!("run {run} of DAG `bad` failed: task `one`, try 2: "));
    assert_level(&line, "ERROR");
    assert!(line.contains("no such table: nowhere"), "{line}");

    up.trigger("remote", json!({}));
    assert_level(&up.line("connection `remote` (postgresql://***@127.0.0.1:1/x) cannot be reached: "), "ERROR");
    up.line("of DAG `remote` failed: ");
    let again = up.trigger("remote", json!({}));
    up.line(&format!("run {again} of DAG `remote` failed: "));
    up.trigger("later", json!({}));
    assert_level(&up.line("connection `later` ("), "ERROR");
    std::fs::create_dir(project.path().join("later")).unwrap();
    std::fs::write(project.path().join("later/data.db"), "").unwrap();
    up.trigger("later", json!({}));
    assert_level(&up.line("is open again"), "INFO");

    project.write("dags/bad.yaml", "dag: bad\ntasks:\n  one: {sqll: SELECT 1}\n");
    assert_level(&up.line("broken: dags/bad.yaml:3:"), "ERROR");
    project.write("dags/bad.yaml", BAD);
    assert_level(&up.line("no longer broken: dags/bad.yaml"), "INFO");

    let (code, said) = up.running.terminate();
    assert_eq!(code, Some(0));
    assert_level(said.lines().find(|line| line.contains("stopping")).unwrap(), "INFO");
    assert!(!said.contains("ended well"), "that is for --log-level debug:\n{said}");
    assert!(!said.contains("swordfish"), "{said}");
    assert_eq!(said.matches("connection `remote`").count(), 1, "once, however many runs want it:\n{said}");
}

#[test]
fn a_takeover_is_told_and_levels_say_what_is_written() {
    let project = project();
    project.write(
        "dags/slow.yaml",
        "dag: slow\nconnection: db\ntasks:\n  gate: {sensor: {sql: SELECT count(*) FROM gate, poke_interval: 1s}}\n",
    );
    project.sql("CREATE TABLE gate (a int)");
    let up = Up::with(&project, &["--log-level", "error"]);
    let run = up.trigger("slow", json!({}));
    crate::up::wait("the gate", || ["up_for_reschedule", "deferred"].contains(&&*up.task(&run, "gate")));
    up.running.kill();
    project.sql("INSERT INTO gate VALUES (1)");
    let mut up = Up::with(&project, &["--log-level", "debug"]);
    assert_level(&up.line("takes over 1 unfinished run of an earlier process"), "INFO");
    assert_level(&up.line(&format!("run {run} of DAG `slow` ended well")), "DEBUG");
    up.running.terminate();

    let mut up = Up::with(&project, &["--log-level", "error"]);
    let run = up.trigger("bad", json!({}));
    up.line(&format!("run {run} of DAG `bad` failed"));
    let (_, said) = up.running.terminate();
    assert!(!said.contains("INFO") && !said.contains("DEBUG"), "{said}");
}
