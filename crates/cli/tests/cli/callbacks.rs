//! Callbacks that their process did not live to run: a run's end is told before they have ended.

use crate::project::{Project, scrub};

/// How often a run is looked at before it takes too long.
const LOOKS_MAX: u32 = 1000;

/// A run with this end, killed when that was told, in the middle of its callback.
fn killed_in_its_callbacks(task: &str, occasion: &str, state: &str) -> Project {
    let slow = "INSERT INTO told WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < (SELECT n FROM speed)) SELECT max(x) FROM c";
    let project = Project::with_tasks(&format!("  load:\n    {task}\n    {occasion}:\n      - sql: {slow}\n"));
    project.sql("CREATE TABLE told (n INTEGER); CREATE TABLE speed (n INTEGER); INSERT INTO speed VALUES (1000000000000)");
    let running = project.start(&["run", "d", "--logical-date", "2025-05-01"]);
    let has_ended = || {
        let runs = project.backstop(&["runs", "list", "--json"]);
        runs.code == Some(0) && runs.stdout.contains(&format!("\"state\": \"{state}\""))
    };
    assert!((0..LOOKS_MAX).any(|_| has_ended()), "the run does not end");
    let shown = project.data(&["runs", "list"]);
    assert!(shown.contains(&format!("{state}; ")) && !shown.contains("gone"), "its process goes on: {shown}");
    running.kill();
    project.sql("UPDATE speed SET n = 10");
    project
}

fn failed() -> Project {
    killed_in_its_callbacks("sql: SELECT * FROM missing", "on_failure", "failed")
}

#[track_caller]
fn assert_told_once(project: &Project) {
    assert_eq!(project.ask("SELECT count(*) FROM told WHERE n = 10"), 1);
    assert_eq!(project.json(&["runs", "list", "--json"]).as_array().unwrap().len(), 1, "no other run");
    let run = &project.json(&["runs", "list", "--json"])[0];
    assert_eq!((&run["callbacks_pending"], &run["abandoned"]), (&0.into(), &false.into()));
}

#[test]
fn lists_tell_of_callbacks_that_have_not_run() {
    let project = failed();
    let run = &project.json(&["runs", "list", "--json"])[0];
    assert_eq!((&run["state"], &run["abandoned"]), (&"failed".into(), &true.into()));
    let outcome = project.backstop(&["runs", "list"]);
    insta::assert_snapshot!(format!("{}{}", scrub(&outcome.stdout, project.path()), outcome.stderr), @r#"
    RUN  DAG  STATE  LOGICAL DATE  BEGUN  TOOK
    RUN  d  failed; 1 callback has not run (its process is gone)  TIME  TIME  TOOK
    note: 1 callback has not run: on_failure of load; nobody runs RUN of `d`: resume it with `backstop run --resume RUN`
    "#);
    let shown = project.scrubbed(&["runs", "show", "latest"]);
    insta::assert_snapshot!(shown.lines().take(4).collect::<Vec<_>>().join("\n"), @r#"
    run  RUN
    dag  d
    state  failed; 1 callback has not run: on_failure of load (its process is gone)
    resume  backstop run --resume RUN
    "#);
}

#[test]
fn latest_finds_a_run_whose_callbacks_have_not_run() {
    let project = failed();
    let outcome = project.backstop(&["run", "--resume", "latest"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_told_once(&project);
    assert!(project.backstop(&["run", "--resume", "latest"]).stderr.contains("no run that could be resumed"));
}

#[test]
fn the_same_command_runs_the_callbacks_that_are_left() {
    let project = failed();
    let outcome = project.backstop(&["run", "d", "--logical-date", "2025-05-01"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let said = outcome.stderr.lines().next().unwrap();
    insta::assert_snapshot!(said, @"note: run RUN of this date and these parameters failed, but 1 callback has not run: resuming it (a new run needs --new)");
    assert_told_once(&project);
}

#[test]
fn a_success_is_not_skipped_before_its_callbacks_have_run() {
    let project = killed_in_its_callbacks("sql: SELECT 1", "on_success", "success");
    let skip = ["run", "d", "--logical-date", "2025-05-01", "--skip-if-successful"];
    let outcome = project.backstop(&skip);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_told_once(&project);
    assert!(project.backstop(&skip).stderr.contains("nothing to do"));
}

#[test]
fn without_a_terminal_a_new_run_says_what_is_left_of_the_old() {
    let project = failed();
    let outcome = project.backstop(&["run", "d"]);
    insta::assert_snapshot!(outcome.stderr.lines().take(2).collect::<Vec<_>>().join("\n"), @r#"
    warning: run RUN of `d`, begun TIME, failed, but 1 callback has not run, and nobody runs it; starting a new run
             resume it with: backstop run d --resume RUN
    "#);
    assert_eq!(project.json(&["runs", "list", "--json"]).as_array().unwrap().len(), 2);
}

/// Whoever follows a run is told of its callbacks too, and does not wait for any that nobody runs.
#[test]
fn following_ends_where_callbacks_have_no_process() {
    let project = failed();
    assert!(project.data(&["runs", "events", "latest", "--follow"]).contains("failed"));
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(1));
    let events = project.data(&["runs", "events", "latest", "--follow"]);
    assert_eq!(events.lines().filter(|line| line.contains("on_failure")).count(), 2, "{events}");
    assert_says_again(&project);
}

#[track_caller]
fn assert_says_again(project: &Project) {
    let log = project.data(&["logs", "latest", "load.callback_failure_0"]);
    assert!(log.contains("WARN  it runs again: it was wanted before this process took the run over"), "{log}");
}

/// As above, of a run that goes on: its events tell that it was taken up again, and what runs again for that.
#[test]
fn a_callback_that_runs_again_says_so() {
    let slow = "INSERT INTO told WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < (SELECT n FROM speed)) SELECT max(x) FROM c";
    let project = Project::with_tasks(&format!(
        "  load:\n    sql: SELECT * FROM missing\n    on_failure:\n      - sql: {slow}\n  gate: {{sensor: {{sql: SELECT count(*) FROM gate, poke_interval: 1s}}}}\n"
    ));
    project.sql("CREATE TABLE told (n INTEGER); CREATE TABLE speed (n INTEGER); INSERT INTO speed VALUES (1000000000000); CREATE TABLE gate (n INTEGER)");
    let running = project.start(&["run", "d"]);
    let is_wanted = || {
        let events = project.backstop(&["runs", "events", "latest"]);
        events.code == Some(0) && events.stdout.contains("callback on_failure wanted")
    };
    assert!((0..LOOKS_MAX).any(|_| is_wanted()), "the callback is not wanted");
    running.kill();
    project.sql("UPDATE speed SET n = 10; INSERT INTO gate VALUES (1)");
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(1));
    assert_told_once(&project);
    let again = "(epoch 2); on_failure of load runs again: its end was never recorded";
    for told in [project.data(&["runs", "events", "latest"]), project.data(&["runs", "show", "latest"])] {
        assert!(told.contains(again), "{told}");
    }
    assert_says_again(&project);
}
