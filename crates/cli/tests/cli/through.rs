//! The same commands with a service and without one: through its API, or upon the store.

use crate::project::Project;
use crate::up::{Up, wait};

/// Each day fails until it is open.
const DAILY: &str = "dag: daily\nconnection: db\nschedule: '@daily'\nend_date: 2025-12-31\ntasks:\n  \
                     make: {sql: \"INSERT INTO loaded VALUES ('{{ ds }}', 'make', 1)\"}\n  \
                     load: {sql: \"INSERT INTO loaded SELECT '{{ ds }}', 'load', 1 / (SELECT count(*) FROM open WHERE day = '{{ ds }}')\", after: [make]}\n";
/// A task that goes on until somebody ends it.
const SLOW: &str = "dag: slow\nconnection: db\ntasks:\n  wait: {sensor: {sql: \"SELECT count(*) FROM open WHERE day = 'never'\", poke_interval: 1h}}\n  \
                    last: {sql: SELECT 1, after: [wait]}\n";

fn project() -> Project {
    let project = Project::new(&[("dags/daily.yaml", DAILY), ("dags/slow.yaml", SLOW)]);
    project.sql("CREATE TABLE loaded (day text, what text, n int NOT NULL); CREATE TABLE open (day text)");
    project
}

fn loaded(project: &Project, what: &str) -> i64 {
    project.ask(&format!("SELECT count(*) FROM loaded WHERE what = '{what}'"))
}

#[test]
fn a_run_is_asked_for_retried_and_cancelled_through_the_service() {
    let project = project();
    let up = Up::of(&project);
    let failed = project.backstop(&["trigger", "daily", "--logical-date", "2025-05-01", "--wait", "--reason", "late"]);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    // What failed, where, why, and what to do: as `backstop run` says it.
    for said in [
        "✗ load failed",
        "NOT NULL constraint failed: loaded.n",
        "at: dags/daily.yaml:",
        "effect:",
        "log: backstop logs RUN load",
        "✗ daily failed in TOOK: 1 failed, 1 success",
        "once mended, go on behind the last commit: backstop runs retry RUN",
    ] {
        assert!(failed.stderr.contains(said), "{said}: {}", failed.stderr);
    }
    let run = failed.stdout.trim().to_owned();
    assert_eq!(up.state(&run), "failed");
    let twice = project.backstop(&["trigger", "daily", "--logical-date", "2025-05-01"]);
    assert_eq!(twice.code, Some(2));
    assert!(twice.stderr.contains("is about 2025-05-01T00:00:00Z already"), "{}", twice.stderr);
    project.sql("INSERT INTO open VALUES ('2025-05-01')");
    let dry = project.backstop(&["runs", "retry", &run, "--dry-run"]);
    assert_eq!((dry.code, up.state(&run).as_str()), (Some(0), "failed"), "{}", dry.stderr);
    let retried = project.backstop(&["runs", "retry", &run, "--reason", "it is open now"]);
    assert_eq!(retried.code, Some(0), "{}", retried.stderr);
    assert!(retried.stderr.contains("recorded; the service at ") && !retried.stderr.contains("--resume"), "{}", retried.stderr);
    assert_eq!(retried.stdout, dry.stdout);
    up.wait_for_state(&run, "success");
    assert_eq!((loaded(&project, "make"), loaded(&project, "load")), (1, 1));

    let slow = project.data(&["trigger", "slow"]).trim().to_owned();
    wait("the sensor", || up.task(&slow, "wait") == "up_for_reschedule");
    let why = project.data(&["runs", "why", &slow]);
    assert!(why.contains("wait: its condition did not hold") && why.contains("last: it waits for 1 of 1"), "{why}");
    assert_eq!(project.backstop(&["runs", "cancel", &slow]).code, Some(2), "a reason is wanted");
    let cancelled = project.backstop(&["runs", "cancel", &slow, "wait", "--reason", "enough"]);
    assert_eq!(cancelled.code, Some(0), "{}", cancelled.stderr);
    up.wait_for_state(&slow, "failed");
    let other = project.data(&["trigger", "slow"]).trim().to_owned();
    assert_eq!(project.backstop(&["runs", "cancel", &other, "--reason", "enough"]).code, Some(0));
    up.wait_for_state(&other, "cancelled");
    assert_eq!(project.backstop(&["runs", "cancel", &other, "--reason", "enough"]).code, Some(2), "it is over");
}

/// What is so already is no reason to fail: the others were changed.
#[test]
fn a_mark_of_many_dates_passes_over_those_that_are_so_already() {
    let project = project();
    let up = Up::of(&project);
    for day in ["2025-05-01", "2025-05-02", "2025-05-03"] {
        if day == "2025-05-02" {
            project.sql("INSERT INTO open VALUES ('2025-05-02')");
        }
        let code = project.backstop(&["trigger", "daily", "--logical-date", day, "--wait"]).code;
        assert_eq!(code, Some(i32::from(day != "2025-05-02")));
    }
    let mark = ["runs", "mark", "daily", "load", "--success", "--from", "2025-05-01", "--to", "2025-05-03"];
    let by_hand = [&mark[..], &["--reason", "loaded by hand"]].concat();
    let marked = project.backstop(&by_hand);
    assert_eq!(marked.code, Some(0), "{}", marked.stderr);
    assert!(marked.stderr.contains("recorded for 2 runs, 1 was so already; the service at "), "{}", marked.stderr);
    let again = project.backstop(&by_hand);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert!(again.stderr.contains("recorded for 0 runs, 3 were so already"), "{}", again.stderr);
    let asked = serde_json::json!({
        "tasks": ["load"], "as": "success", "why": "again", "from": "2025-05-01T00:00:00Z", "to": "2025-05-03T00:00:00Z"
    });
    let answer = up.ask("POST", "/api/v1/dags/daily/mark", Some(&asked));
    let runs = answer.body["runs"].as_array().unwrap();
    assert!(runs.len() == 3 && runs.iter().all(|run| run["refused"].is_null()), "{}", answer.body);
    up.running.kill();
    let without = project.backstop(&by_hand);
    assert_eq!(without.code, Some(0), "{}", without.stderr);
    assert!(without.stderr.contains("0 runs, 3 were so already"), "{}", without.stderr);
}

#[test]
fn a_run_of_a_paused_dag_is_said_to_wait() {
    let project = project();
    let up = Up::of(&project);
    let asked = up.ask("POST", "/api/v1/dags/slow/runs", Some(&serde_json::json!({})));
    assert!(asked.body["waits_because"].is_null(), "{}", asked.body);
    project.data(&["dags", "pause", "slow"]);
    let outcome = project.backstop(&["trigger", "slow"]);
    assert_eq!(outcome.code, Some(0));
    let warning = "warning: run RUN waits: DAG `slow` is paused, and nothing of it begins before it is unpaused (backstop dags unpause slow)";
    assert!(outcome.stderr.contains(warning), "{}", outcome.stderr);
    assert_eq!(up.state(outcome.stdout.trim()), "queued");
}

#[test]
fn a_dag_is_paused_with_a_service_and_without_one() {
    let project = project();
    let paused = || {
        project.json(&["dags", "list", "--json"]).as_array().unwrap().iter().find(|dag| dag["dag"] == "slow").unwrap()["paused"]
            .clone()
    };
    assert_eq!(paused(), false, "nothing has run here yet");
    let said = project.backstop(&["dags", "pause", "slow", "--reason", "freeze"]);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert_eq!(paused(), true);
    let up = Up::of(&project);
    assert_eq!(up.get("/api/v1/dags/slow")["paused"], true, "the next service heeds it");
    let run = project.data(&["trigger", "slow"]).trim().to_owned();
    assert_eq!(project.data(&["runs", "why", &run, "wait"]), "wait: its run waits: its DAG is paused\n");
    assert_eq!(project.backstop(&["dags", "unpause", "slow"]).code, Some(0));
    wait("the run to begin", || up.state(&run) == "running");
    assert_eq!(paused(), false);
    let unknown = project.backstop(&["dags", "pause", "slwo"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("did you mean `slow`?"), "{}", unknown.stderr);
}

#[test]
fn several_runs_are_cleared_by_their_dates() {
    let project = project();
    project.sql("INSERT INTO open VALUES ('2025-05-02')");
    let up = Up::of(&project);
    let told = project.backstop(&[
        "backfill",
        "daily",
        "--from",
        "2025-05-01",
        "--to",
        "2025-05-03",
        "--max-active-runs",
        "1",
        "--wait",
    ]);
    assert_eq!(told.code, Some(1), "two of three fail: {}{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("total    3: 1 done, 2 failed, 0 running, 0 waiting, 0 left"), "{}", told.stdout);
    assert_eq!((loaded(&project, "make"), loaded(&project, "load")), (3, 1));
    project.sql("INSERT INTO open VALUES ('2025-05-01'), ('2025-05-03')");
    let clear = ["runs", "clear", "daily", "--from", "2025-05-01", "--to", "2025-05-03", "--only-failed"];
    let dry = project.backstop(&[&clear[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert_eq!(dry.stdout.lines().filter(|line| line.contains(" load ")).count(), 2, "{}", dry.stdout);
    assert!(
        !dry.stdout.contains("2025-05-02") && dry.stderr.contains("2 runs; nothing was changed"),
        "{}{}",
        dry.stdout,
        dry.stderr
    );
    assert_eq!(loaded(&project, "load"), 1);
    let done = project.backstop(&[&clear[..], &["--reason", "they are open now"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    wait("both to be loaded", || loaded(&project, "load") == 3);
    assert_eq!(loaded(&project, "make"), 3, "what succeeded is not asked for again");
    wait("all to be over", || up.get("/api/v1/runs?unfinished=true")["items"].as_array().unwrap().is_empty());

    // Seen from one run, over the API.
    let runs = up.get("/api/v1/runs?limit=10");
    let first =
        runs["items"].as_array().unwrap().iter().find(|run| run["logical_date"] == "2025-05-01T00:00:00Z").unwrap()["run_id"]
            .clone();
    let body = serde_json::json!({ "tasks": ["load"], "future": true, "dry_run": true, "why": "look" });
    let seen = up.ask("POST", &format!("/api/v1/runs/{}/clear", first.as_str().unwrap()), Some(&body));
    let dates: Vec<&str> =
        seen.body["runs"].as_array().unwrap().iter().map(|run| &run["logical_date"].as_str().unwrap()[..10]).collect();
    assert_eq!(dates, ["2025-05-01", "2025-05-02", "2025-05-03"], "{}", seen.body);
    let all = up.ask("POST", "/api/v1/dags/daily/clear", Some(&serde_json::json!({ "why": "x" })));
    assert_eq!(all.status, 400, "{}", all.body);
    let marked =
        project.backstop(&["runs", "mark", first.as_str().unwrap(), "make", "--failed", "--downstream", "--future", "--dry-run"]);
    assert_eq!(
        marked.stdout.lines().filter(|line| line.contains("marked failed")).count(),
        6,
        "{}{}",
        marked.stdout,
        marked.stderr
    );
    let none = project.backstop(&["runs", "clear", "daily", "--from", "2024-01-01", "--to", "2024-01-02", "--reason", "x"]);
    assert!(none.code == Some(2) && none.stderr.contains("has no run about these dates"), "{}", none.stderr);
}

#[test]
fn without_a_service_what_needs_one_says_so_and_a_dead_run_is_ended() {
    let project = project();
    for arguments in [&["trigger", "daily"][..], &["backfill", "daily", "--from", "2025-05-01", "--to", "2025-05-02"]] {
        let refused = project.backstop(arguments);
        assert_eq!(refused.code, Some(2));
        assert!(
            refused.stderr.contains("no service has the store") && refused.stderr.contains("backstop up"),
            "{}",
            refused.stderr
        );
    }
    let dry = project.backstop(&["backfill", "daily", "--from", "2025-05-01", "--to", "2025-05-02", "--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert_eq!(dry.stdout.lines().filter(|line| line.contains("runs")).count(), 2, "{}", dry.stdout);
    let ends_first = project.backstop(&["backfill", "daily", "--from", "2025-05-02", "--to", "2025-05-01", "--dry-run"]);
    assert!(ends_first.code == Some(2) && ends_first.stderr.contains("before it begins"), "{}", ends_first.stderr);

    let up = Up::of(&project);
    let run = project.data(&["trigger", "slow"]).trim().to_owned();
    wait("the sensor", || up.task(&run, "wait") == "up_for_reschedule");
    up.running.kill();
    let ended = project.backstop(&["runs", "cancel", &run, "--reason", "nobody needs it", "--who", "ada"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let state = || project.json(&["runs", "list", "--json"])[0]["state"].as_str().unwrap().to_owned();
    assert_eq!(state(), "cancelled");
    let shown = project.scrubbed(&["runs", "show", "latest"]);
    assert!(shown.contains("ada cancelled the run, because: nobody needs it"), "{shown}");
    let again = project.backstop(&["runs", "cancel", &run, "--reason", "again"]);
    assert!(again.code == Some(2) && again.stderr.contains("is over (cancelled)"), "{}", again.stderr);
}

#[test]
fn a_service_with_a_token_wants_it_from_the_command_line_too() {
    let project = project();
    project.write("token", "0123456789abcdef0123456789abcdef\n");
    let _up = Up::with(&project, &["--token-file", "token"]);
    let without = project.backstop(&["trigger", "slow"]);
    assert!(without.code == Some(2) && without.stderr.contains("wants a token"), "{}", without.stderr);
    assert!(without.stderr.contains("--token-file FILE or BACKSTOP_TOKEN"), "{}", without.stderr);
    project.write("wrong", "ffffffffffffffffffffffffffffffff");
    let wrong = project.backstop(&["trigger", "slow", "--token-file", "wrong"]);
    assert!(wrong.stderr.contains("does not know this token"), "{}", wrong.stderr);
    assert_eq!(project.backstop(&["trigger", "slow", "--token-file", "token"]).code, Some(0));
}
