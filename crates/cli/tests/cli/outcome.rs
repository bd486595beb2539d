//! How runs end, and what is said of it.

use crate::project::Project;

#[test]
fn a_run_that_succeeds() {
    let project = Project::with_tasks(
        "  make: {sql: 'CREATE TABLE t (n INTEGER)'}\n  fill: {sql: 'INSERT INTO t VALUES (1), (2)', after: [make]}\n",
    );
    let outcome = project.backstop(&["run", "d", "--logical-date", "2025-05-01"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(0), ""), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr, @r#"
    TIME · run: created: DAG d, logical date TIME, run RUN
    TIME · make: started, try 1
    TIME · make: segment 1 committed, 1 statement
    TIME ✓ make: success after TOOK
    TIME · fill: started, try 1
    TIME · fill: segment 1 committed, 1 statement, 2 rows changed
    TIME ✓ fill: success after TOOK
    TIME ✓ run: success

    ✓ d succeeded in TOOK: 2 success
      backstop runs show RUN
    "#);
    assert_eq!(project.ask("SELECT sum(n) FROM t"), 3);
}

#[test]
fn the_same_date_again_is_said_and_can_be_left_at_that() {
    let project = Project::new(&[(
        "dags/d.yaml",
        "dag: d\nconnection: db\nparams:\n  region: {default: eu}\ntasks:\n  fill: {sql: INSERT INTO t VALUES (1)}\n",
    )]);
    project.sql("CREATE TABLE t (n INTEGER)");
    let run = |more: &[&str]| {
        let outcome = project.backstop(&[["run", "d", "--logical-date", "2025-05-01"].as_slice(), more].concat());
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let notes: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("note")).collect();
        (notes.join("\n"), project.ask("SELECT count(*) FROM t"))
    };
    assert_eq!(run(&["--skip-if-successful"]), (String::new(), 1), "nothing has succeeded yet");
    let told = "note: run RUN of `d` for TIME TIME succeeded already at TIME TIME";
    let told = told.replace("TIME TIME", "TIME");
    let again = format!("{told}; this is another run (--skip-if-successful would leave it at that)");
    assert_eq!(run(&[]), (again.clone(), 2));
    assert_eq!(run(&["--skip-if-successful"]), (format!("{told}: nothing to do"), 2));
    assert_eq!(run(&["--skip-if-successful", "--param", "region=us"]), (String::new(), 3), "other parameters, other work");
    assert_eq!(run(&["--new"]), (String::new(), 4));
    let outcome = project.backstop(&["run", "d", "--skip-if-successful"]);
    assert_eq!(outcome.code, Some(2), "without a date nothing can be the same");
    let output = project.command(&["run", "d", "--logical-date", "2025-05-01", "--json"]).output().unwrap();
    assert!(output.stdout.split(|byte| *byte == b'\n').all(|line| line.is_empty() || line[0] == b'{'));
    assert!(String::from_utf8_lossy(&output.stderr).contains("succeeded already at"));
}

#[test]
fn what_the_author_allowed_to_repeat_is_told_in_one_line() {
    let task = |name: &str| format!("  {name}: {{sql: 'INSERT INTO t VALUES (1)', delivery: at_least_once}}\n");
    let project = Project::with_tasks(&format!("{}{}  tidy: {{sql: VACUUM}}\n", task("one"), task("two")));
    project.sql("CREATE TABLE t (n INTEGER)");
    let told = "! tidy: segment 1 ran at least once, not exactly once: SQLite runs VACUUM outside of transactions only\n\n\
                · at least once, as their `delivery` says: one, two\n";
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(told), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.matches("not exactly once").count(), 1, "{}", outcome.stderr);
    let shown = project.data(&["runs", "show", "latest"]);
    assert!(shown.contains(told), "{shown}");
}

/// Twelve statements, the seventh of which violates the key.
fn twelve_statements() -> String {
    let mut script = String::from("CREATE TABLE t (id INTEGER PRIMARY KEY);\n");
    for number in 2..=12 {
        let id = if number == 7 { 3 } else { number };
        script.push_str(&format!("INSERT INTO t VALUES ({id});\n"));
    }
    script
}

#[test]
fn a_statement_that_fails_is_told_with_its_place_and_nothing_of_the_script_stays() {
    let project = Project::with_tasks("  load: {sql: sql/load.sql}\n  report: {sql: SELECT 1, after: [load]}\n");
    project.write("sql/load.sql", &twelve_statements());
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1));
    insta::assert_snapshot!(outcome.stderr, @r#"
    TIME · run: created: DAG d, logical date TIME, run RUN
    TIME · load: started, try 1
    TIME ✗ load: try 1 failed after TOOK: sql/load.sql:7:1: statement 7 of 12: UNIQUE constraint failed: t.id
    TIME ! report: upstream_failed: it will not run
    TIME ✗ run: failed

    ✗ load failed
        statement 7 of 12: UNIQUE constraint failed: t.id
        at: sql/load.sql:7:1, statement 7
        code 1555
        effect: nothing was committed
        log: backstop logs RUN load

    - report did not run (upstream_failed): load is failed

    ✗ d failed in TOOK: 1 failed, 1 upstream_failed
      once mended, go on behind the last commit: backstop runs retry RUN --current-files --reason "what was mended"
      backstop runs show RUN
    "#);
    assert_eq!(project.ask("SELECT count(*) FROM sqlite_schema WHERE name = 't'"), 0);
}

#[test]
fn a_retry_goes_well_after_its_callback_mended_the_data() {
    let project = Project::with_tasks(
        "  load:\n    sql: INSERT INTO t SELECT 5\n    retries: 1\n    retry_delay: 1s\n    on_retry: {sql: CREATE TABLE t (n INTEGER)}\n",
    );
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("load: succeeded on try 2"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("load: callback on_retry ran"), "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT n FROM t"), 5);
}

#[test]
fn a_value_that_tells_the_try_does_not_make_a_retry_another_script() {
    let project = Project::with_tasks(
        "  two:\n    retries: 1\n    retry_delay: 1s\n    parameters: {try_number: \"{{ ti.try_number }}\"}\n    sql: |\n      BEGIN;\n      \
         INSERT INTO audit VALUES ('first', :try_number);\n      COMMIT;\n      BEGIN;\n      \
         INSERT INTO audit VALUES ('second', :try_number);\n      INSERT INTO later VALUES (:try_number);\n      COMMIT;\n",
    );
    project.sql("CREATE TABLE audit (what text, try_number int); CREATE TABLE later (n int CHECK (n > 1))");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT try_number FROM audit WHERE what = 'first'"), 1);
    assert_eq!(project.ask("SELECT try_number FROM audit WHERE what = 'second'"), 2);
    assert_eq!(project.ask("SELECT count(*) FROM audit"), 2);
}

#[test]
fn a_callback_runs_after_the_final_failure_and_its_own_failure_is_told() {
    let project = Project::with_tasks(
        "  load:\n    sql: SELECT * FROM missing\n    on_failure:\n    - {shell: 'echo failed > told.txt'}\n    - {shell: 'exit 3'}\n",
    );
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1));
    assert_eq!(std::fs::read_to_string(project.path().join("told.txt")).unwrap(), "failed\n");
    insta::assert_snapshot!(outcome.stderr.split_once("\n\n").unwrap().1, @r#"
    ✗ load failed
        statement 1 of 1: no such table: missing
        at: dags/d.yaml:5:10, statement 1
        code 1
        effect: nothing was committed
        hint: the database is PROJECT/data.db (a relative path begins at the project's folder); it has no tables
        log: backstop logs RUN load

    ✗ callback on_failure[1] of load failed; this changes no task's state
        the command ended with exit code 3
        effect: what it did before is not undone by Backstop

    ✗ d failed in TOOK: 1 failed
      once mended, go on behind the last commit: backstop runs retry RUN --current-files --reason "what was mended"
      backstop runs show RUN
    "#);
}

#[test]
fn a_dry_run_leaves_nothing_behind() {
    let project =
        Project::with_tasks("  fill: {sql: 'INSERT INTO t VALUES (1)'}\n  tell: {shell: touch told.txt, after: [fill]}\n");
    project.sql("CREATE TABLE t (n INTEGER)");
    let outcome = project.backstop(&["run", "d", "--dry-run"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("dry run: transactional SQL was rolled back"), "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
    assert!(!project.path().join("told.txt").exists());
}

#[test]
fn only_the_tasks_that_were_named_run() {
    let project = Project::with_tasks(
        "  make: {sql: 'CREATE TABLE t (n INTEGER)'}\n  inner:\n    tasks:\n      a: {sql: 'INSERT INTO t VALUES (1)'}\n      b: {sql: 'INSERT INTO t VALUES (2)'}\n",
    );
    project.sql("CREATE TABLE t (n INTEGER)");
    let outcome = project.backstop(&["run", "d", "--task", "inner"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT sum(n) FROM t"), 3);
    let outcome = project.backstop(&["run", "d", "--task", "inner.c"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no task `inner.c` in DAG `d`
      hint: did you mean `inner.a`?
      hint: tasks: make, inner.a, inner.b
    "#);
}

#[test]
fn ndjson_has_every_event_and_ends_with_a_summary() {
    let project = Project::with_tasks("  load: {sql: SELECT * FROM missing}\n");
    let outcome = project.backstop(&["run", "d", "--json", "--logical-date", "2025-05-01"]);
    assert_eq!(outcome.code, Some(1));
    let lines: Vec<serde_json::Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, events) = lines.split_last().unwrap();
    let told: Vec<String> = events.iter().map(|event| format!("{} {}", event["seq"], event["type"].as_str().unwrap())).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    1 run_created
    2 run_started
    3 task_scheduled
    4 attempt_started
    5 attempt_failed
    6 run_failed
    "#);
    assert!(events.iter().all(|event| event["run_id"].is_string() && event["at"].is_string()));
    assert_eq!(summary["type"], "summary");
    assert_eq!((&summary["state"], &summary["exit_code"]), (&"failed".into(), &1.into()));
    assert_eq!(summary["failed"][0]["failure"]["file"], "dags/d.yaml");
}

/// A marker of the run `d` for the first segment of a task, as if another store had given its run the same id on the same database.
fn marker_of_another(task: &str, kind: &str) -> String {
    format!(
        "INSERT INTO backstop_marker VALUES ('{{{{ run_id }}}}', '{task}', -1, 0, '{kind}', 1, 'committed', 'of others', 1, NULL, \
         '2025-05-01T02:00:00Z')"
    )
}

#[test]
fn the_marker_of_another_commit_is_not_taken_for_ours() {
    let markers = [("pay", "forward"), ("tidy", "intent_forward"), ("told", "callback_success_0")];
    let markers: String = markers.iter().map(|(task, kind)| format!("      {};\n", marker_of_another(task, kind))).collect();
    let project = Project::with_tasks(&format!(
        "  first: {{sql: INSERT INTO t VALUES (1)}}\n  others:\n    after: [first]\n    sql: |\n{markers}  pay: {{sql: INSERT INTO t VALUES (2), retries: 2, after: [others]}}\n  tidy: {{sql: VACUUM, after: [others]}}\n  told: {{sql: INSERT INTO t VALUES (3), after: [others], on_success: {{sql: INSERT INTO t VALUES (4)}}}}\n",
    ));
    project.sql("CREATE TABLE t (n INTEGER)");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr.split_once("\n\n").unwrap().1, @r#"
    ✗ pay failed
        the marker of run RUN, task `pay`, segment 1 is that of other statements, written 2025-05-01T02:00:00Z
        effect: nothing was committed
        hint: look into the table `backstop_marker`: another store may have used this run id on the same database; run it again under another run id
        log: backstop logs RUN pay

    ✗ tidy failed
        the marker of run RUN, task `tidy`, segment 1 is that of other statements, written 2025-05-01T02:00:00Z
        effect: nothing was committed
        hint: look into the table `backstop_marker`: another store may have used this run id on the same database; run it again under another run id
        log: backstop logs RUN tidy

    ✗ callback on_success of told failed; this changes no task's state
        the marker of run RUN, task `told`, segment 1 is that of other statements, written 2025-05-01T02:00:00Z
        effect: nothing was committed
        hint: look into the table `backstop_marker`: another store may have used this run id on the same database; run it again under another run id

    ✗ d failed in TOOK: 2 failed, 3 success
      once mended, go on behind the last commit: backstop runs retry RUN --current-files --reason "what was mended"
      backstop runs show RUN
    "#);
    assert_eq!(project.ask("SELECT sum(n) FROM t"), 4, "neither the payment nor the callback took effect");
}

#[test]
fn what_a_script_rolled_back_by_itself_is_not_called_committed() {
    let script = |statements: &str| {
        let project = Project::with_tasks(&format!("  load: {{sql: '{statements}'}}\n"));
        project.sql("CREATE TABLE t (n INTEGER)");
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
        let effect = outcome.stderr.lines().find(|line| line.contains("effect: ")).unwrap().trim().to_owned();
        (effect, project.ask("SELECT coalesce(sum(n), 0) FROM t"))
    };
    let (effect, sum) = script(
        "INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); ROLLBACK; INSERT INTO t VALUES (3); SELECT * FROM missing",
    );
    insta::assert_snapshot!(effect, @"effect: segment 1 of 3 is committed and stays; segment 2 was rolled back by the script itself; nothing of segment 3 was committed");
    assert_eq!(sum, 1);
    let (effect, sum) = script("BEGIN; INSERT INTO t VALUES (2); ROLLBACK; INSERT INTO missing VALUES (1)");
    insta::assert_snapshot!(effect, @"effect: segment 1 was rolled back by the script itself; nothing of segment 2 was committed");
    assert_eq!(sum, 0);
    let (effect, sum) = script(
        "BEGIN; INSERT INTO t VALUES (1); COMMIT; BEGIN; INSERT INTO t VALUES (2); COMMIT; BEGIN; INSERT INTO t VALUES (4); ROLLBACK; \
         BEGIN; INSERT INTO t VALUES (8); COMMIT; INSERT INTO missing VALUES (1)",
    );
    insta::assert_snapshot!(effect, @"effect: segments 1 to 2, 4 of 5 are committed and stay; segment 3 was rolled back by the script itself; nothing of segment 5 was committed");
    assert_eq!(sum, 11);
}

#[test]
fn what_earlier_tries_committed_is_told_by_a_try_that_could_send_nothing() {
    let project = Project::with_tasks(
        "  load: {sql: 'INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2); COMMIT; SELECT * FROM missing'}\n",
    );
    project.sql("CREATE TABLE t (n INTEGER)");
    assert_eq!(project.backstop(&["run", "d"]).code, Some(1));
    // The next try finds no database.
    let database = project.path().join("data.db");
    std::fs::rename(&database, project.path().join("away.db")).unwrap();
    std::fs::create_dir(&database).unwrap();
    let run = project.newest();
    assert_eq!(project.backstop(&["runs", "retry", &run, "--reason", "the table is there"]).code, Some(0));
    let outcome = project.backstop(&["run", "--resume", &run]);
    let told = format!("{}{}{}", outcome.stdout, outcome.stderr, project.data(&["runs", "show", &run]));
    assert!(told.contains("segments 1 to 2 of 3 are committed and stay; nothing new was sent"), "{told}");
    assert!(!told.contains("nothing was sent"), "{told}");
}

#[test]
fn after_a_failure_the_way_on_is_shown_rather_than_a_second_payment() {
    let project =
        Project::with_tasks("  pay: {sql: INSERT INTO t VALUES (1)}\n  report: {sql: INSERT INTO u VALUES (1), after: [pay]}\n");
    project.sql("CREATE TABLE t (n INTEGER)");
    let begin = ["run", "d", "--logical-date", "2025-05-01"];
    let outcome = project.backstop(&begin);
    assert_eq!(outcome.code, Some(1));
    let way_on = "backstop runs retry RUN --current-files --reason \"what was mended\"";
    assert!(outcome.stderr.contains(&format!("once mended, go on behind the last commit: {way_on}")), "{}", outcome.stderr);
    let run = project.newest();
    let outcome = project.backstop(&["run", "--resume", &run]);
    assert_eq!(outcome.code, Some(2));
    let error = outcome.stderr.split_once("error: ").unwrap().1;
    insta::assert_snapshot!(error, @r#"
    run RUN is over (failed): there is nothing to resume
      hint: to go on behind its last commit: backstop runs retry RUN --current-files --reason "what was mended"
      hint: a new run, which leaves --resume out, does a second time what this one has committed
    "#);
    let outcome = project.backstop(&begin);
    assert_eq!(outcome.code, Some(1));
    let note = outcome.stderr.lines().take(2).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(note, @r#"
    note: run RUN of `d` for TIME failed at TIME, after a part of it had taken effect; this is another run, which does that a second time
          to go on behind the last commit instead: backstop runs retry RUN --current-files --reason "what was mended"
    "#);
    project.sql("CREATE TABLE u (n INTEGER); DELETE FROM t");
    assert_eq!(project.backstop(&["runs", "retry", &run, "--reason", "made the table"]).code, Some(0));
    assert_eq!(project.backstop(&["run", "--resume", &run]).code, Some(0));
    assert_eq!(
        (project.ask("SELECT count(*) FROM t"), project.ask("SELECT count(*) FROM u")),
        (0, 1),
        "it went on behind the commit"
    );
    let nothing = Project::with_tasks("  report: {sql: INSERT INTO u VALUES (1)}\n");
    for _ in 0..2 {
        let outcome = nothing.backstop(&begin);
        assert!(!outcome.stderr.contains("second time"), "nothing was committed: {}", outcome.stderr);
    }
}
