//! Looking at what ran, and at what would run.

use crate::project::{Project, scrub};

fn ran() -> Project {
    let project = Project::with_tasks(
        "  make: {sql: 'CREATE TABLE t (n INTEGER)'}\n  fill:\n    sql: INSERT INTO t VALUES (1), (2)\n    after: [make]\n  tell: {shell: 'echo hello there', after: [fill]}\n",
    );
    assert_eq!(project.backstop(&["run", "d", "--logical-date", "2025-05-01"]).code, Some(0));
    project
}

#[test]
fn runs_are_listed_newest_first() {
    let project = ran();
    assert_eq!(project.backstop(&["run", "d", "--logical-date", "2025-05-02"]).code, Some(1), "the table is there already");
    let runs = project.json(&["runs", "list", "--json"]);
    let told: Vec<String> =
        runs.as_array().unwrap().iter().map(|run| format!("{} {} {}", run["dag"], run["state"], run["logical_date"])).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "d" "failed" "2025-05-02T00:00:00Z"
    "d" "success" "2025-05-01T00:00:00Z"
    "#);
    let failed = project.json(&["runs", "list", "--json", "--state", "failed", "--dag", "d"]);
    assert_eq!(failed.as_array().unwrap().len(), 1);
    insta::assert_snapshot!(project.scrubbed(&["runs", "list", "--limit", "1"]), @r#"
    RUN  DAG  STATE  LOGICAL DATE  BEGUN  TOOK
    RUN  d  failed  TIME  TIME  TOOK
    "#);
    let first = project.backstop(&["runs", "list", "--limit", "1", "--dag", "d"]);
    let more = "note: there are more runs, made before these: backstop runs list --dag d --limit 1 --before RUN\n";
    assert_eq!(first.stderr, more);
    let newest = project.newest();
    let rest = project.backstop(&["runs", "list", "--limit", "1", "--before", &newest]);
    assert!(rest.stdout.contains("success") && rest.stderr.is_empty(), "{}{}", rest.stdout, rest.stderr);
    assert_eq!(project.backstop(&["runs", "list", "--state", "failed", "--limit", "1"]).stderr, "", "there is no other");
    assert_eq!(project.backstop(&["runs", "list", "--before", "nowhere"]).code, Some(2));
}

#[test]
fn nothing_has_run_yet_is_no_error() {
    let project = Project::with_tasks("  one: {sql: SELECT 1}\n");
    assert_eq!(project.json(&["runs", "list", "--json"]), serde_json::json!([]));
}

#[test]
fn a_run_is_shown_with_its_tasks_and_statements() {
    let project = ran();
    insta::assert_snapshot!(project.scrubbed(&["runs", "show", "latest"]), @r#"
    run  RUN
    dag  d
    state  success
    logical date  TIME
    queued  TIME
    started  TIME
    ended  TIME
    took  TOOK
    committed  2 segments of 2 tasks

    TASK  STATE  TRIES  TOOK  WHY
    make  success  1  TOOK
    fill  success  1  TOOK
    tell  success  1  TOOK

    TASK  TRY  SEGMENT  NO  LINE  ROWS  TOOK  STATEMENT
    make  1  1  1  4  0  TOOK  CREATE TABLE t (n INTEGER)
    fill  1  1  1  6  2  TOOK  INSERT INTO t VALUES (1), (2)
    "#);
    let shown = project.json(&["runs", "show", &project.newest(), "--json"]);
    assert_eq!(shown["tasks"].as_array().unwrap().len(), 3);
    assert_eq!(shown["statements"][1]["rows_affected"], 2);
}

#[test]
fn a_run_is_told_event_by_event() {
    let project = ran();
    insta::assert_snapshot!(project.scrubbed(&["runs", "events", "latest", "--follow"]), @r#"
     1  TIME  · run: created: DAG d, logical date TIME, run RUN
     2  TIME  run: started
     3  TIME  make: scheduled
     4  TIME  · make: started, try 1
     5  TIME  · make: segment 1 committed, 1 statement
     6  TIME  ✓ make: success after TOOK
     7  TIME  fill: scheduled
     8  TIME  · fill: started, try 1
     9  TIME  · fill: segment 1 committed, 1 statement, 2 rows changed
    10  TIME  ✓ fill: success after TOOK
    11  TIME  tell: scheduled
    12  TIME  · tell: started, try 1
    13  TIME  ✓ tell: success after TOOK
    14  TIME  ✓ run: success
    "#);
    for line in project.data(&["runs", "events", "latest", "--json"]).lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["type"].is_string() && event["seq"].is_u64());
    }
}

#[test]
fn an_unknown_run_is_an_error() {
    let project = ran();
    let outcome = project.backstop(&["runs", "show", "nonsense"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no run `nonsense`
      hint: `backstop runs list` shows the runs there are
    "#);
}

#[test]
fn logs_are_shown_and_what_is_missing_is_named() {
    let project = ran();
    assert!(project.data(&["logs", "latest", "tell"]).contains("hello there"));
    assert_eq!(project.data(&["logs", "latest", "tell", "-f"]), project.data(&["logs", "latest", "tell", "--try", "1"]));
    let outcome = project.backstop(&["logs", "latest", "tell", "--try", "2"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no log of try 2 of `tell`
      hint: there are logs of these tries: 1
    "#);
    let outcome = project.backstop(&["logs", "latest", "tel"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no task `tel` in this run
      hint: did you mean `tell`?
      hint: tasks that have begun: make, fill, tell
    "#);
}

#[test]
fn a_task_is_rendered_with_values_and_promises() {
    let project = Project::with_tasks(
        "  load:\n    sql: |\n      BEGIN;\n      INSERT INTO t VALUES (:day, '{{ ds }}');\n      COMMIT;\n      SELECT * FROM t;\n      VACUUM;\n    parameters: {day: '{{ ds_nodash }}'}\n  each:\n    for_each: [eu, us]\n    sql: SELECT '{{ item }}'\n",
    );
    insta::assert_snapshot!(project.data(&["render", "d", "load", "--logical-date", "2025-05-01"]), @r#"
    -- load (sql, connection db)
    BEGIN;
    INSERT INTO t VALUES (:day, '2025-05-01');
    COMMIT;
    SELECT * FROM t;
    VACUUM;

    -- bound parameters
    :day = "20250501"

    -- segments: statements that commit together
    1: statement 2, line 2: exactly once
    2: statement 4, line 4: read-only
    3: statement 5, line 5: at least once: SQLite runs VACUUM outside of transactions only
    "#);
    insta::assert_snapshot!(project.data(&["render", "d", "each", "--map-index", "1"]), @r#"
    -- each (sql, connection db)
    SELECT 'us'

    -- segments: statements that commit together
    1: statement 1, line 1: read-only
    "#);
    assert_eq!(project.backstop(&["render", "d", "each", "--map-index", "2"]).code, Some(2));
}

#[test]
fn a_graph_is_drawn_as_text_and_as_svg() {
    let project = Project::with_tasks(
        "  a: {empty: }\n  b: {sql: SELECT 1, after: [a], retries: 1}\n  c: {shell: 'true', after: [a]}\n  d: {empty: , after: [b, c], trigger_rule: all_done}\n",
    );
    insta::assert_snapshot!(project.data(&["graph", "d"]), @r#"
    d: 4 tasks in 3 layers

      1  a  empty

      2  b  sql    ◀── a  [1 retry]
         c  shell  ◀── a

      3  d  empty  ◀── b, c  [all_done]
    "#);
    let drawing = project.data(&["graph", "d", "--svg", "-"]);
    assert!(drawing.starts_with("<svg ") && drawing.ends_with("</svg>\n"));
    assert_eq!(drawing.matches("class=\"edge\"").count(), 4);
    project.data(&["graph", "d", "--svg", "d.svg"]);
    assert_eq!(std::fs::read_to_string(project.path().join("d.svg")).unwrap(), drawing);
}

#[test]
fn connections_are_listed_without_secrets_and_tested() {
    let project = Project::empty();
    project.write(
        "backstop.yaml",
        "connections:\n  db: {conn_type: sqlite, database: data.db}\n  far: 'postgres://me:hunter22@127.0.0.1:1/x'\n",
    );
    insta::assert_snapshot!(scrub(&project.data(&["connections", "list"]), project.path()), @r#"
    ID  TYPE  TARGET  DEFINED IN
    db  sqlite  sqlite:PROJECT/data.db  backstop.yaml:2
    far  postgres  postgresql://me@127.0.0.1:1/x  backstop.yaml:3
    "#);
    project.sql("CREATE TABLE t (n)");
    assert_eq!(project.json(&["connections", "test", "db", "--json"])[0]["ok"], true);
    let outcome = project.backstop(&["connections", "test"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stdout.contains("✗ far: ") && outcome.stdout.contains("✓ db: "), "{}", outcome.stdout);
    assert!(!format!("{}{}", outcome.stdout, outcome.stderr).contains("hunter22"));
    assert_eq!(project.backstop(&["connections", "test", "fra"]).code, Some(2));
}

#[test]
fn schemas_and_completions_are_printed() {
    let project = Project::empty();
    assert!(project.json(&["schema", "dag"])["properties"]["tasks"].is_object());
    assert!(project.json(&["schema", "backstop"])["properties"]["connections"].is_object());
    assert!(project.data(&["completions", "bash"]).contains("backstop"));
    assert!(project.data(&["--version"]).starts_with("backstop "));
}

#[test]
fn a_failed_run_is_explained_the_morning_after() {
    let project = Project::with_tasks(
        "  load:\n    sql: sql/load.sql\n    retries: 1\n    retry_delay: 0s\n    on_failure:\n    - {shell: 'true'}\n    - {shell: 'exit 3'}\n  \
         report: {sql: SELECT 1, after: [load]}\n  send: {shell: 'true', after: [report]}\n  \
         is_end: {branch: {when: 'false', if_true: [close]}}\n  close: {sql: SELECT 1, after: [is_end]}\n",
    );
    project.write(
        "sql/load.sql",
        "BEGIN;\nCREATE TABLE t (n INTEGER PRIMARY KEY);\nCOMMIT;\nINSERT INTO t VALUES (1);\nINSERT INTO t VALUES (1);\n",
    );
    assert_eq!(project.backstop(&["run", "d", "--logical-date", "2025-05-01"]).code, Some(1));
    // Neither the project as it is now nor its connections are needed to look at a run.
    project.write("dags/d.yaml", "dag: other\ntasks:\n  one: {shell: 'true'}\n");
    project.write("backstop.yaml", "name: test\n");
    insta::assert_snapshot!(project.scrubbed(&["runs", "show", "latest"]), @r#"
    run  RUN
    dag  d
    state  failed
    logical date  TIME
    queued  TIME
    started  TIME
    ended  TIME
    took  TOOK
    committed  1 segment of 1 task

    TASK  STATE  TRIES  TOOK  WHY
    load  failed  2  TOOK  sql/load.sql:5:1: statement 5 of 5: UNIQUE constraint failed: t.n
    is_end  success  1  TOOK
    close  skipped  0  branch is_end went elsewhere
    report  upstream_failed  0  load is failed
    send  upstream_failed  0  report is upstream_failed

    TASK  TRY  SEGMENT  NO  LINE  ROWS  TOOK  STATEMENT
    load  1  1  2  2  0  TOOK  CREATE TABLE t (n INTEGER PRIMARY KEY)
    load  1  failed  4  4  1  TOOK  INSERT INTO t VALUES (1)
    load  1  failed  5  5  0  TOOK  INSERT INTO t VALUES (1)
    load  2  failed  4  4  1  TOOK  INSERT INTO t VALUES (1)
    load  2  failed  5  5  0  TOOK  INSERT INTO t VALUES (1)

    ✗ load failed, after 2 tries
        statement 5 of 5: UNIQUE constraint failed: t.n
        at: sql/load.sql:5:1, statement 5
        code 1555
        effect: segment 1 of 2 is committed and stays; nothing of segment 2 was committed
        try 1: TIME failed: sql/load.sql:5:1: statement 5 of 5: UNIQUE constraint failed: t.n
        log: backstop logs RUN load

    - report did not run (upstream_failed): load is failed

    - send did not run (upstream_failed): report is upstream_failed

    ✗ callback on_failure[1] of load failed; this changes no task's state
        the command ended with exit code 3
        effect: what it did before is not undone by Backstop

    · callback on_failure of load ran
    "#);
    let shown = project.json(&["runs", "show", "latest", "--json"]);
    let task = |name: &str| shown["tasks"].as_array().unwrap().iter().find(|task| task["task"] == name).unwrap().clone();
    let failure = &task("load")["failures"][1]["failure"];
    let place = format!("{}:{}:{} {}", failure["file"], failure["line"], failure["column"], failure["statement"]);
    assert_eq!(place, "\"sql/load.sql\":5:1 5");
    assert_eq!(failure["effect"], "segment 1 of 2 is committed and stays; nothing of segment 2 was committed");
    assert_eq!(task("load")["failures"].as_array().unwrap().len(), 2);
    assert_eq!((&task("report")["why"], &task("send")["why"]), (&"load is failed".into(), &"report is upstream_failed".into()));
    assert_eq!((&task("close")["why"], &task("close")["skip_cause"]), (&"branch is_end went elsewhere".into(), &"branch".into()));
    assert_eq!((&shown["abandoned"], &shown["segments"][0]["promise"]), (&false.into(), &"exactly_once".into()));
    let called: Vec<String> =
        shown["callbacks"].as_array().unwrap().iter().map(|one| format!("{} {}", one["occasion"], one["state"])).collect();
    assert_eq!(called, [r#""on_failure" "success""#, r#""on_failure" "failed""#]);
}

#[test]
fn who_acted_and_what_ended_a_run_is_told() {
    let project = Project::with_tasks("  pay: {shell: 'echo began; sleep 60'}\n");
    let mut running = project.start(&["run", "d"]);
    running.wait_for("pay: started");
    running.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(running.end().0, Some(130));
    let shown = project.scrubbed(&["runs", "show", "latest"]);
    assert!(shown.contains("the run was cancelled: SIGTERM was received"), "{shown}");
    assert_eq!(project.json(&["runs", "show", "latest", "--json"])["cancelled"]["cause"], "asked");
}

#[test]
fn a_connection_that_is_not_there_is_guessed() {
    let project = Project::with_tasks("  one: {sql: SELECT 1}\n");
    project.write("one.sql", "SELECT 1;\n");
    let outcome = project.backstop(&["run", "one.sql", "--connection", "bd"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no connection `bd` in PROJECT
      hint: did you mean `db`?
      hint: connections: db
      hint: or give a URI such as sqlite:data.db or postgres://user@host/database
    "#);
    let outcome = project.backstop(&["connections", "test", "bd"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no connection `bd` in PROJECT
      hint: did you mean `db`?
      hint: connections: db
    "#);
    assert_eq!(project.backstop(&["run", "one.sql", "--connection", "DB"]).code, Some(0), "ids are read without regard to case");
}

#[test]
fn old_markers_go_when_their_run_is_over_and_no_others() {
    let project = Project::with_tasks("  fill: {sql: INSERT INTO t VALUES (1)}\n");
    project.sql("CREATE TABLE t (n INTEGER)");
    assert_eq!(project.backstop(&["run", "d"]).code, Some(0));
    let aged = |days: u32, run: &str| {
        project.sql(&format!(
            "UPDATE backstop_marker SET written_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{days} days') WHERE run LIKE '{run}'"
        ));
    };
    let count = || project.ask("SELECT count(*) FROM backstop_marker");
    let prune = |more: &[&str]| project.data(&[["markers", "prune"].as_slice(), more].concat());
    assert_eq!(prune(&[]), "✓ db: 0 markers of 0 runs deleted\n");
    aged(100, "%");
    project.sql(
        "INSERT INTO backstop_marker SELECT 'of-another-store', task, map_index, segment, kind, try_number, outcome, digest, rows_affected, \
         result, written_at FROM backstop_marker",
    );
    let unknown = "    kept: 1 run unknown to this store (another store may go on with them; else add --unknown-runs)\n";
    assert_eq!(prune(&["--dry-run"]), format!("✓ db: 1 marker of 1 run would be deleted\n{unknown}"));
    assert_eq!(prune(&["--older-than", "101d"]), "✓ db: 0 markers of 0 runs deleted\n");
    assert_eq!(count(), 2);
    assert_eq!(prune(&["--connection", "db"]), format!("✓ db: 1 marker of 1 run deleted\n{unknown}"));
    assert_eq!(project.ask("SELECT count(*) FROM backstop_marker WHERE run = 'of-another-store'"), 1);
    assert_eq!(project.backstop(&["markers", "prune", "--unknown-runs", "--older-than", "1h"]).code, Some(2));
    assert_eq!(project.json(&["markers", "prune", "--unknown-runs", "--json"])[0]["markers"], 1);
    assert_eq!(count(), 0);
    assert_eq!(project.backstop(&["markers", "prune", "--connection", "bd"]).code, Some(2));
}

#[test]
fn markers_of_a_run_that_can_be_resumed_stay() {
    let project = Project::with_tasks(
        "  make: {sql: 'INSERT INTO t VALUES (1)'}\n  wait: {shell: 'echo began > began; sleep 20', after: [make], delivery: at_least_once}\n",
    );
    project.sql("CREATE TABLE t (n INTEGER)");
    let fifo = project.path().join("began");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let running = project.start(&["run", "d"]);
    // Opening it waits until the task has opened it, too.
    assert_eq!(std::fs::read_to_string(&fifo).unwrap(), "began\n");
    project.sql("UPDATE backstop_marker SET written_at = '2000-01-01T00:00:00.000Z'");
    let told = "✓ db: 0 markers of 0 runs deleted\n    kept: 1 run not over yet\n";
    assert_eq!(project.data(&["markers", "prune"]), told, "while it goes on");
    running.kill();
    assert_eq!(project.data(&["markers", "prune", "--unknown-runs"]), told, "while it can be resumed");
    assert_eq!(project.ask("SELECT count(*) FROM backstop_marker"), 1);
}
