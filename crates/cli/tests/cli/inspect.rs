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

    TASK  STATE  TRIES  TOOK  LAST ERROR
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
