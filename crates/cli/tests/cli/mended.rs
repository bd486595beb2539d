//! The files are mended, and what failed is run again with them: through the service, and where none is.

use crate::project::Project;
use crate::up::{Up, wait};
use serde_json::{Value, json};

const DAG: &str = "dag: load\nconnection: db\ntasks:\n  load: {sql: sql/load.sql}\n  report: {sql: \"INSERT INTO t VALUES ('report')\", after: [load]}\n";
/// The first segment commits, the second fails.
const BROKEN: &str = "BEGIN; INSERT INTO t VALUES ('one'); COMMIT;\nBEGIN; INSERT INTO t SELECT 'two' FROM mistyped; COMMIT;\n";
const MENDED: &str = "BEGIN; INSERT INTO t VALUES ('one'); COMMIT;\nBEGIN; INSERT INTO t VALUES ('two'); COMMIT;\n";
/// Also what committed is another one.
const REWRITTEN: &str = "BEGIN; INSERT INTO t VALUES ('uno'); COMMIT;\nBEGIN; INSERT INTO t VALUES ('two'); COMMIT;\n";

fn project() -> Project {
    let project = Project::new(&[("dags/load.yaml", DAG), ("sql/load.sql", BROKEN)]);
    project.sql("CREATE TABLE t (what text)");
    project
}

fn counts(project: &Project) -> [i64; 3] {
    ["one", "two", "report"].map(|what| project.ask(&format!("SELECT count(*) FROM t WHERE what = '{what}'")))
}

fn pins(project: &Project) -> Vec<Value> {
    let events = project.data(&["runs", "events", "latest", "--json"]);
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["type"] == "run_pinned").collect()
}

#[test]
fn a_retry_takes_the_mended_files_behind_what_committed() {
    let project = project();
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    up.wait_for_state(&run, "failed");
    let before = up.get(&format!("/api/v1/runs/{run}"))["version"].as_str().unwrap().to_owned();
    assert_eq!(counts(&project), [1, 0, 0]);
    project.write("sql/load.sql", MENDED);
    let path = format!("/api/v1/runs/{run}/retry");
    // Without being asked for they are not taken, and it is said, also where nothing is done.
    for dry_run in [true, false] {
        let answer = up.ask("POST", &path, Some(&json!({ "dry_run": dry_run, "why": "again" })));
        assert_eq!((answer.status, &answer.body["files"]["taken"]), (200, &json!(false)), "{}", answer.body);
        assert_eq!(
            (&answer.body["files"]["tasks"], &answer.body["files"]["files"]),
            (&json!(["load"]), &json!(["sql/load.sql"]))
        );
        up.wait_for_state(&run, "failed");
    }
    let dry = project.backstop(&["runs", "retry", &run, "--dry-run"]);
    assert!(dry.stderr.contains("the files have changed: the SQL of `load` differs (sql/load.sql); the run goes on with those that it has (--current-files takes the new ones)"), "{}", dry.stderr);
    let dry = up.ask("POST", &path, Some(&json!({ "files": "current", "dry_run": true, "why": "look" })));
    assert_eq!((dry.status, &dry.body["instances"]), (200, &json!(["load", "report"])), "{}", dry.body);
    assert!(pins(&project).is_empty(), "a dry run changes nothing");
    let done = project.backstop(&["runs", "retry", &run, "--current-files", "--reason", "table mended"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("the run goes on with the current files, version "), "{}", done.stderr);
    up.wait_for_state(&run, "success");
    assert_eq!(counts(&project), [1, 1, 1], "what committed is not applied again");
    let after = up.get(&format!("/api/v1/runs/{run}"))["version"].as_str().unwrap().to_owned();
    assert_ne!(before, after);
    let pinned: Vec<Value> = pins(&project).into_iter().map(|pin| pin["version"].clone()).collect();
    assert_eq!(pinned, [json!(after)], "once, and resuming the run says nothing of it");
    let shown = project.scrubbed(&["runs", "show", &run]);
    assert!(shown.contains(&format!("the run goes on with version {} of its files", &after[..12])), "{shown}");
    let diff = project.data(&["versions", "load", &before, &after]);
    assert!(diff.contains("-BEGIN; INSERT INTO t SELECT 'two' FROM mistyped; COMMIT;"), "{diff}");
    assert!(project.backstop(&["store", "check"]).code == Some(0));
}

/// The event is durable, the service dies before it drives the run: the next one goes on with the mended files.
#[test]
fn what_was_pinned_outlives_a_crash_before_the_run_goes_on() {
    let project = project();
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    up.wait_for_state(&run, "failed");
    assert_eq!(up.ask("PATCH", "/api/v1/dags/load", Some(&json!({ "paused": true }))).status, 200);
    project.write("sql/load.sql", MENDED);
    let body = json!({ "files": "current", "why": "mended" });
    let done = up.ask("POST", &format!("/api/v1/runs/{run}/retry"), Some(&body));
    assert_eq!((done.status, &done.body["files"]["taken"]), (200, &json!(true)), "{}", done.body);
    assert_eq!((up.state(&run).as_str(), counts(&project)), ("queued", [1, 0, 0]), "its DAG is paused");
    up.running.kill();
    // What the files become meanwhile is no matter any more.
    project.write("sql/load.sql", BROKEN);
    let up = Up::of(&project);
    assert_eq!(up.ask("PATCH", "/api/v1/dags/load", Some(&json!({ "paused": false }))).status, 200);
    up.wait_for_state(&run, "success");
    assert_eq!((counts(&project), pins(&project).len()), ([1, 1, 1], 1));
}

#[test]
fn a_commit_that_was_rewritten_is_refused_and_can_be_cleared() {
    let project = project();
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    up.wait_for_state(&run, "failed");
    project.write("sql/load.sql", REWRITTEN);
    let refused = project.backstop(&["runs", "retry", &run, "--current-files", "--reason", "mended"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for said in ["`load` cannot go on with the current files: sql/load.sql:1:", "segment 1 was committed", "or clear `load`"] {
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
    }
    assert_eq!((up.state(&run).as_str(), pins(&project).len()), ("failed", 0), "nothing was done");
    let broken = "dag: load\nconnection: db\ntasks: {load: {sql: sql/load.sql, afer: []}}\n";
    project.write("dags/load.yaml", broken);
    let refused = up.ask("POST", &format!("/api/v1/runs/{run}/retry"), Some(&json!({ "files": "current", "why": "x" })));
    assert!(refused.status == 409 && refused.body.to_string().contains("dags/load.yaml is broken"), "{}", refused.body);
    let gone = "dag: load\nconnection: db\ntasks: {other: {sql: SELECT 1}}\n";
    project.write("dags/load.yaml", gone);
    let refused = up.ask("POST", &format!("/api/v1/runs/{run}/retry"), Some(&json!({ "files": "current", "why": "x" })));
    assert!(refused.status == 409 && refused.body.to_string().contains("its task `load` is gone"), "{}", refused.body);
    project.write("dags/load.yaml", DAG);
    let cleared = ["runs", "clear", &run, "load", "--downstream", "--current-files", "--reason", "from the beginning"];
    let cleared = project.backstop(&cleared);
    assert_eq!(cleared.code, Some(0), "{}", cleared.stderr);
    up.wait_for_state(&run, "success");
    assert_eq!((counts(&project), project.ask("SELECT count(*) FROM t WHERE what = 'uno'")), ([1, 1, 1], 1));
}

/// A run of which a part waits is given the mended files between two looks of its sensor; one that runs a task is not.
#[test]
fn a_run_that_goes_on_is_given_the_files_when_nothing_of_it_runs() {
    let dag = "dag: load\nconnection: db\ntasks:\n  load: {sql: sql/load.sql}\n  \
               gate: {sensor: {sql: \"SELECT count(*) FROM gate\", poke_interval: 1h}}\n  \
               hold: {shell: \"echo on > began; cat done\", after: [load]}\n";
    let project = Project::new(&[("dags/load.yaml", dag), ("sql/load.sql", BROKEN)]);
    project.sql("CREATE TABLE t (what text); CREATE TABLE gate (n int)");
    for fifo in ["began", "done"] {
        nix::unistd::mkfifo(&project.path().join(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    wait("the load to fail", || up.task(&run, "load") == "failed" && up.task(&run, "gate") == "up_for_reschedule");
    assert_eq!(up.state(&run), "running");
    project.write("sql/load.sql", MENDED);
    let retry = ["runs", "retry", &run, "--current-files", "--reason", "mended"];
    let done = project.backstop(&retry);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(std::fs::read_to_string(project.path().join("began")).unwrap(), "on\n");
    assert_eq!((up.task(&run, "load").as_str(), counts(&project)), ("success", [1, 1, 0]));
    project.write("sql/load.sql", REWRITTEN);
    let body = json!({ "tasks": ["load"], "files": "current", "why": "once more" });
    let refused = up.ask("POST", &format!("/api/v1/runs/{run}/clear"), Some(&body));
    assert!(refused.status == 409 && refused.body.to_string().contains("`hold` is running"), "{}", refused.body);
    std::fs::write(project.path().join("done"), "x").unwrap();
    wait("the shell to end", || up.task(&run, "hold") == "success");
    assert_eq!((up.state(&run).as_str(), pins(&project).len()), ("running", 1));
}

/// To let go of the run would roll back what waits in it.
#[test]
fn a_run_with_an_open_transaction_keeps_its_files() {
    let dag = "dag: load\nconnection: db\ntasks:\n  load: {shell: exit 1}\n  g:\n    transaction: true\n    tasks:\n      \
               one: {sql: \"INSERT INTO t VALUES ('one')\"}\n      \
               two: {sql: INSERT INTO mistyped VALUES (1), after: [one], retries: 1, retry_delay: 1h}\n";
    let project = Project::new(&[("dags/load.yaml", dag)]);
    project.sql("CREATE TABLE t (what text)");
    let up = Up::of(&project);
    let run = up.trigger("load", json!({}));
    wait("the transaction to wait", || up.task(&run, "load") == "failed" && up.task(&run, "g.two") == "up_for_retry");
    project.write("dags/load.yaml", &dag.replace("exit 1", "exit 0"));
    let body = json!({ "tasks": ["load"], "files": "current", "why": "mended" });
    let refused = up.ask("POST", &format!("/api/v1/runs/{run}/clear"), Some(&body));
    assert!(refused.status == 409 && refused.body.to_string().contains("the transaction of `g` is open"), "{}", refused.body);
    assert_eq!((up.task(&run, "g.one").as_str(), pins(&project).len()), ("done_not_committed", 0));
}

#[test]
fn without_a_service_the_same_is_recorded_and_resumed() {
    let project = project();
    assert_eq!(project.backstop(&["run", "load"]).code, Some(1));
    project.write("sql/load.sql", REWRITTEN);
    let refused = project.backstop(&["runs", "retry", "latest", "--current-files", "--reason", "mended"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("or clear `load`"), "{}", refused.stderr);
    project.write("sql/load.sql", MENDED);
    project.write("dags/load.yaml", "dag: load\nconnection: db\ntasks: {other: {sql: SELECT 1}}\n");
    let refused = project.backstop(&["runs", "retry", "latest", "--current-files", "--reason", "mended"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("its task `load` is gone"), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("hint: leave --current-files out") && !refused.stderr.contains("--new"),
        "{}",
        refused.stderr
    );
    project.write("dags/load.yaml", DAG);
    let before = project.json(&["runs", "list", "--json"])[0]["version"].as_str().unwrap().to_owned();
    let done = project.backstop(&["runs", "retry", "latest", "--current-files", "--reason", "mended"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("the run goes on with the current files"), "{}", done.stderr);
    let versions = project.json(&["versions", "load", "--json"]);
    let began = versions.as_array().unwrap().iter().find(|version| version["version"] == before.as_str()).unwrap();
    assert_eq!(began["first_run"], json!(project.newest()), "the run began with it: {versions}");
    project.write("sql/load.sql", BROKEN);
    let resumed = project.backstop(&["run", "--resume", "latest"]);
    assert_eq!((resumed.code, counts(&project)), (Some(0), [1, 1, 1]), "{}", resumed.stderr);
    assert_eq!(pins(&project).len(), 1);
}

/// What `--resume --current-files` took stays: who takes the run over next goes on with the same.
#[test]
fn a_resume_with_the_current_files_pins_them() {
    let project = project();
    assert_eq!(project.backstop(&["run", "load"]).code, Some(1));
    assert_eq!(project.backstop(&["runs", "retry", "latest", "--reason", "again"]).code, Some(0));
    project.write("sql/load.sql", MENDED);
    assert_eq!(project.backstop(&["run", "--resume", "latest", "--current-files"]).code, Some(0));
    assert_eq!((counts(&project), pins(&project).len()), ([1, 1, 1], 1));
}

/// A group that was rolled back takes in what the mended files have of it; one that is committed takes in nothing.
#[test]
fn a_transaction_takes_the_mended_files_as_a_whole_before_its_commit_and_never_behind_it() {
    const GROUP: &str = "dag: load\nconnection: db\ntasks:\n  g:\n    transaction: true\n    tasks:\n      one: {sql: \"INSERT INTO t VALUES ('one')\"}\n      \
                         two: {sql: INSERT INTO t SELECT 'two' FROM mistyped, after: [one]}\n  \
                         report: {sql: INSERT INTO t SELECT 'report' FROM mistyped, after: [g]}\n";
    let mended = GROUP.replacen(
        "INSERT INTO t SELECT 'two' FROM mistyped, after: [one]}",
        "\"INSERT INTO t VALUES ('two')\", after: [one]}\n      three: {sql: \"INSERT INTO t VALUES ('three')\", after: [two]}",
        1,
    );
    let project = Project::new(&[("dags/load.yaml", GROUP)]);
    project.sql("CREATE TABLE t (what text)");
    let retry = ["runs", "retry", "latest", "--current-files", "--reason", "mended"];
    assert_eq!((project.backstop(&["run", "load"]).code, counts(&project)), (Some(1), [0, 0, 0]));
    project.write("dags/load.yaml", &mended);
    let done = project.backstop(&retry);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let resumed = project.backstop(&["run", "--resume", "latest"]);
    assert_eq!((resumed.code, counts(&project)), (Some(1), [1, 1, 0]), "the report fails still: {}", resumed.stderr);
    assert_eq!(project.ask("SELECT count(*) FROM t WHERE what = 'three'"), 1);
    project.write("dags/load.yaml", &mended.replace("  report:", "      four: {sql: SELECT 4, after: [three]}\n  report:"));
    let refused = project.backstop(&retry);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("its task `g.four` has joined the transaction of `g`, which is committed already"),
        "{}",
        refused.stderr
    );
    project.write(
        "dags/load.yaml",
        &mended.replace("INSERT INTO t SELECT 'report' FROM mistyped", "\"INSERT INTO t VALUES ('report')\""),
    );
    assert_eq!(project.backstop(&retry).code, Some(0));
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(0));
    assert_eq!(counts(&project), [1, 1, 1], "what is committed is not run again");
}
