//! People run tasks of a run again, or say how they ended; what took effect is looked up in the database.

use crate::project::{Project, scrub};
use crate::up::Up;
use serde_json::json;

/// `make` commits; `load` commits a first segment and fails in its second as long as `gate` is empty; `report` comes behind it.
const TASKS: &str = "  make: {sql: 'INSERT INTO t VALUES (1)'}\n  load: {sql: sql/load.sql, after: [make]}\n  report: {sql: 'INSERT INTO t VALUES (4)', after: [load]}\n";
const LOAD: &str = "BEGIN; INSERT INTO t VALUES (2); COMMIT;\nBEGIN; INSERT INTO t SELECT 3 FROM gate WHERE n / n; INSERT INTO u SELECT n FROM gate; COMMIT;\n";

fn failed() -> Project {
    let project = Project::with_tasks(TASKS);
    project.write("sql/load.sql", LOAD);
    project.sql("CREATE TABLE t (n INTEGER); CREATE TABLE gate (n INTEGER); CREATE TABLE u (n INTEGER NOT NULL); INSERT INTO gate VALUES (NULL)");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert_eq!(counts(&project), [1, 1, 0, 0]);
    project
}

/// How often each of the four effects was applied.
fn counts(project: &Project) -> [i64; 4] {
    [1, 2, 3, 4].map(|n| project.ask(&format!("SELECT count(*) FROM t WHERE n = {n}")))
}

fn resume(project: &Project) {
    let outcome = project.backstop(&["run", "--resume", "latest"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

fn state(project: &Project) -> String {
    project.json(&["runs", "list", "--json"])[0]["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_retry_goes_on_behind_what_committed() {
    let project = failed();
    project.sql("UPDATE gate SET n = 1");
    let dry = project.backstop(&["runs", "retry", "latest", "--dry-run"]);
    insta::assert_snapshot!(format!("{}{}", dry.stdout, dry.stderr), @r#"
    TASK    WAS              TRIES  NOW
    load    failed           1      goes on behind 1 committed segment
    report  upstream_failed  0      is judged anew
    note: nothing was changed: leave --dry-run out, and say why with --reason
    "#);
    assert_eq!(state(&project), "failed", "a dry run changes nothing");
    let outcome = project.backstop(&["runs", "retry", "latest", "--reason", "the gate is mended", "--who", "ada"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr, @r#"note: recorded; now: backstop run --resume RUN"#);
    assert_eq!(state(&project), "queued");
    resume(&project);
    assert_eq!(state(&project), "success");
    assert_eq!(counts(&project), [1, 1, 1, 1], "everything once");
    let shown = project.scrubbed(&["runs", "show", "latest"]);
    assert!(shown.contains("ada retried `load`, `report`, because: the gate is mended"), "{shown}");
    let outcome = project.backstop(&["runs", "retry", "latest", "--reason", "again"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: nothing of run RUN has failed: there is nothing to retry
      hint: `backstop runs show RUN` tells how its tasks stand
    "#);
}

#[test]
fn a_clear_asks_for_the_effects_once_more() {
    let project = failed();
    project.sql("UPDATE gate SET n = 1");
    let outcome = project.backstop(&["runs", "clear", "latest", "load", "--downstream", "--reason", "the load was wrong"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stdout, @r#"
    TASK    WAS              TRIES  NOW
    load    failed           1      runs again from the beginning: 1 committed segment once more
    report  upstream_failed  0      is judged anew
    "#);
    insta::assert_snapshot!(outcome.stderr, @r#"
    warning: `load` failed, and runs again with the same SQL: 1 committed segment takes effect once more, and then comes what is known to fail
    note: mend the files, and add --current-files; or go on behind what committed: backstop runs retry RUN
    note: recorded; now: backstop run --resume RUN
    "#);
    resume(&project);
    assert_eq!(counts(&project), [1, 2, 1, 1], "the first segment of load once more, and make not again");
    let outcome = project.backstop(&["runs", "clear", "latest", "make", "--reason", "one more"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("known to fail"), "it went well before: {}", outcome.stderr);
    resume(&project);
    assert_eq!((counts(&project), state(&project).as_str()), ([2, 2, 1, 1], "success"));
}

/// Nobody means to repeat what committed only to come to the same failure.
#[test]
fn a_clear_of_what_is_known_to_fail_is_warned_of() {
    let project = failed();
    let dry = |more: &[&str]| project.backstop(&[["runs", "clear", "latest", "load", "--dry-run"].as_slice(), more].concat());
    let known = "`load` failed, and runs again with the same SQL: 1 committed segment takes effect once more";
    let told = dry(&[]);
    assert!(told.stderr.contains(known) && told.stderr.contains("add --current-files"), "{}", told.stderr);
    let told = dry(&["--current-files"]);
    assert!(told.stderr.contains(known) && told.stderr.contains("the current files are the same"), "{}", told.stderr);
    project.write("sql/load.sql", &LOAD.replace("SELECT n FROM gate", "SELECT 1"));
    let told = dry(&["--current-files"]);
    assert!(!told.stderr.contains("known to fail"), "it is mended: {}", told.stderr);
    let told = dry(&[]);
    assert!(told.stderr.contains(known), "it is mended, and not taken: {}", told.stderr);
    let ranged = project.backstop(&["runs", "clear", "d", "load", "--from", "2000-01-01", "--dry-run"]);
    assert!(ranged.stderr.contains(known), "{}", ranged.stderr);
}

#[test]
fn a_mark_lets_the_rest_go_on_and_claims_no_effect() {
    let project = failed();
    let marked = project.data(&["runs", "mark", "latest", "load", "--success", "--reason", "loaded by hand"]);
    insta::assert_snapshot!(marked, @r#"
    TASK    WAS              TRIES  NOW
    load    failed           1      marked success
    report  upstream_failed  0      is judged anew
    "#);
    assert_eq!(project.data(&["runs", "why", "latest", "load"]), "load: it is done: success, as a person said\n");
    assert!(project.data(&["runs", "why", "latest", "report"]).contains("was reopened and is queued"));
    resume(&project);
    assert_eq!((counts(&project), state(&project).as_str()), ([1, 1, 0, 1], "success"));
}

#[test]
fn what_is_not_known_is_not_run_again() {
    let project = Project::with_tasks("  pay: {shell: 'echo paying > began; sleep 20'}\n  book: {sql: SELECT 1, after: [pay]}\n");
    let fifo = project.path().join("began");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = project.start(&["run", "d"]);
    // Opening it waits until the task has opened it, too.
    assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "paying\n");
    let clear = ["runs", "clear", "latest", "--reason", "again"];
    let held = project.command(&clear).output().unwrap();
    let said = scrub(&String::from_utf8_lossy(&held.stderr), project.path());
    assert_eq!(held.status.code(), Some(2), "{said}");
    assert!(said.contains("is being run by process") && said.contains("steered through the service"), "{said}");
    assert_eq!(project.data(&["runs", "why", "latest", "pay"]), "pay: try 1 is running\n");
    running.kill();
    let gone = project.backstop(&clear);
    assert_eq!(gone.code, Some(2));
    insta::assert_snapshot!(gone.stderr, @r#"
    error: run RUN is running, and its process is gone: what it did last is not known yet
      hint: let it find out and go on first: backstop run --resume RUN
      hint: then run again what did not go well
    "#);
    assert_eq!(project.backstop(&["run", "--resume", "latest"]).code, Some(3));
    let in_doubt = project.backstop(&clear);
    assert_eq!(in_doubt.code, Some(2));
    insta::assert_snapshot!(in_doubt.stderr, @r#"
    error: it is not known what the last attempt of `pay` did: resolve it first
      hint: find out what it did, then say so: backstop run --resume RUN --resolve pay=committed --why "how you know" (or pay=not-committed)
    "#);
    insta::assert_snapshot!(project.scrubbed(&["runs", "why", "latest", "book"]), @r#"book: it waits for 1 of 1 upstream task instances (all_success): pay (in_doubt)"#);
    assert_eq!(
        project.data(&["runs", "why", "latest", "pay"]),
        "pay: it is not known what try 1 did: a person has to find out and say so\n"
    );
}

#[test]
fn mistakes_are_told() {
    let project = failed();
    let told = |arguments: &[&str]| {
        let outcome = project.backstop(arguments);
        assert_eq!((outcome.code, state(&project).as_str()), (Some(2), "failed"), "{arguments:?}");
        outcome.stderr
    };
    insta::assert_snapshot!(told(&["runs", "clear", "latest", "laod", "--reason", "x"]), @r#"
    error: there is no task `laod` in this run of `d`
      hint: did you mean `load`?
      hint: tasks: make, load, report
    "#);
    insta::assert_snapshot!(told(&["runs", "clear", "latest", "load", "--reason", " "]), @r#"error: no reason is given"#);
    insta::assert_snapshot!(told(&["runs", "mark", "latest", "load", "--failed", "--reason", "x"]), @r#"error: there is nothing to change: every task instance named is so already"#);
    assert!(told(&["runs", "mark", "latest", "load", "--reason", "x"]).contains("--success"));
    assert!(told(&["runs", "clear", "latest", "load"]).contains("--reason"));
    assert!(told(&["runs", "clear", "nowhere", "--reason", "x"]).contains("there is no run"));
}

#[test]
fn what_may_be_a_slip_does_nothing_to_a_run_that_begins_so() {
    let project = failed();
    project.write("dags/fix.yaml", "dag: fix\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n");
    let up = Up::of(&project);
    let run = up.trigger("fix", json!({ "run_id": "fixrun-0001" }));
    up.wait_for_state(&run, "success");
    let refused = |arguments: &[&str], told: &str| {
        let outcome = project.backstop(&[arguments, &["--reason", "to see"]].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(told), "{arguments:?}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("run fixrun-0001 of DAG `fix` begins so"), "{}", outcome.stderr);
    };
    refused(&["runs", "clear", "fix"], "`fix` is a DAG, not a run");
    refused(&["runs", "cancel", "fix"], "`fix` is a DAG, not a run");
    refused(&["runs", "mark", "fixr", "one", "--failed"], "`fixr` is too little of a run's id");
    refused(&["runs", "resolve", "fixr", "one", "--committed"], "`fixr` is too little of a run's id");
    assert_eq!(up.state(&run), "success");
    assert!(project.data(&["runs", "show", "fixr"]).contains("fixrun-0001"), "a look may be short");
    let outcome = project.backstop(&["runs", "clear", "fixrun-0", "--reason", "to see"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
}

#[test]
fn a_word_that_is_missing_is_named_with_its_other() {
    let project = failed();
    for (arguments, choices) in [
        (&["runs", "resolve", "latest", "load"][..], "--committed|--not-committed"),
        (&["runs", "mark", "latest", "load"], "--success|--failed"),
    ] {
        let outcome = project.backstop(&[arguments, &["--reason", "to see"]].concat());
        assert_eq!(outcome.code, Some(2));
        assert!(outcome.stderr.contains(choices), "{}", outcome.stderr);
    }
    let up = Up::of(&project);
    let trigger = ["trigger", "d", "--logical-date", "2025-05-01"];
    assert_eq!(project.backstop(&trigger).code, Some(0));
    let twice = project.backstop(&trigger);
    assert_eq!(twice.code, Some(2), "{}", twice.stderr);
    assert!(twice.stderr.contains("or ask with `--again` for another"), "{}", twice.stderr);
    drop(up);
}
