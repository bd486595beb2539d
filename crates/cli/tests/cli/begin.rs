//! Before anything runs: projects, names, parameters, files.

use crate::project::Project;

const TYPED: &str = "dag: typed\nconnection: db\nparams:\n  region: {type: string, enum: [eu, us], default: eu}\n  rows: {type: integer}\ntasks:\n  one: {sql: SELECT 1}\n";

#[test]
fn parameters_are_checked_against_their_types() {
    let project = Project::new(&[("dags/typed.yaml", TYPED)]);
    let outcome = project.backstop(&["run", "typed", "--param", "regoin=eu", "--param", "rows=many"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: 2 parameters of `typed` are wrong
      cause: parameter `rows`: "many" is not a whole number of 64 bits
      cause: parameter `regoin`: the DAG has no such parameter (did you mean `region`?)
      hint: give parameters as --param NAME=VALUE
    "#);
    let outcome = project.backstop(&["run", "typed", "--param", "rows=3", "--param", "region=asia"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: parameter `region`: "asia" is not allowed
      hint: one of "eu", "us"
      hint: give parameters as --param NAME=VALUE
    "#);
    assert!(!project.path().join(".backstop").exists(), "a mistake leaves no store behind");
    assert_eq!(project.backstop(&["run", "typed", "--param", "rows=3"]).code, Some(0));
}

#[test]
fn an_unknown_dag_is_guessed() {
    let project = Project::new(&[("dags/typed.yaml", TYPED)]);
    let outcome = project.backstop(&["run", "tpyed"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no DAG `tpyed` in PROJECT
      hint: did you mean `typed`?
      hint: DAGs: typed
    "#);
}

#[test]
fn a_date_that_is_none_is_refused() {
    let project = Project::with_tasks("  one: {sql: SELECT 1}\n");
    let outcome = project.backstop(&["run", "d", "--logical-date", "yesterday"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: `yesterday` is not a date
      hint: write TIME, or a time such as 2025-05-01T02:00:00Z
    "#);
}

#[test]
fn outside_of_a_project_the_way_in_is_shown() {
    let project = Project::empty();
    let outcome = project.backstop(&["run", "nightly"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: there is no project here: neither PROJECT nor a folder above it has a backstop.yaml
      hint: name the project with --project DIR, or make one with `backstop init DIR`
    "#);
}

#[test]
fn a_dag_with_errors_does_not_run_and_they_are_shown() {
    let project = Project::with_tasks("  one: {sql: SELECT 1, retires: 3}\n");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error[B0205]: unknown key `retires` in Task
     --> dags/d.yaml:4:24
      |
    4 |  one: {sql: SELECT 1, retires: 3}
      |  ^^^^^^^
      |
      = help: did you mean `retries`?

    error: there is no valid DAG `d`, and the project has 1 error
    "#);
}

#[test]
fn what_init_writes_is_valid_and_runs() {
    let project = Project::empty();
    let outcome = project.backstop(&["init", "shop"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr, @r#"
    ✓ a project in shop: one DAG, `hello`, on an SQLite database of its own. Next:
      cd shop
      backstop check
      backstop run hello
    "#);
    for (file, start) in [("backstop.yaml", ""), ("dags/hello.yaml", "../")] {
        let text = std::fs::read_to_string(project.path().join("shop").join(file)).unwrap();
        let schema = text.strip_prefix(&format!("# yaml-language-server: $schema={start}")).unwrap().lines().next().unwrap();
        let schema = std::fs::read_to_string(project.path().join("shop").join(schema)).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&schema).unwrap()["properties"].is_object());
    }
    let named = |folder: &str| {
        let text = std::fs::read_to_string(project.path().join(folder).join("backstop.yaml")).unwrap();
        text.lines().find(|line| line.starts_with("name: ")).unwrap().to_owned()
    };
    assert_eq!(named("shop"), "name: shop");
    for (folder, name) in [("a b: c#", "name: a-b--c"), ("2024", "name: \"2024\""), ("no", "name: \"no\"")] {
        assert_eq!(project.backstop(&["init", folder]).code, Some(0));
        assert_eq!((named(folder).as_str(), project.backstop(&["check", folder]).code), (name, Some(0)));
    }
    assert!(!project.path().join("shop/.backstop").exists(), "what is not kept in git holds nothing that team mates need");
    assert_eq!(project.backstop(&["check", "shop"]).code, Some(0));
    assert_eq!(project.backstop(&["run", "hello", "--project", "shop", "--param", "region=us"]).code, Some(0));
    let again = project.backstop(&["init", "shop"]);
    assert_eq!(again.code, Some(2));
    insta::assert_snapshot!(again.stderr, @r#"
    error: the folder shop is not empty
      hint: name a new folder, or add --force: files that are there stay as they are
    "#);
    std::fs::remove_file(project.path().join("shop/sql/load.sql")).unwrap();
    assert_eq!(project.backstop(&["init", "shop", "--force"]).code, Some(0));
    assert!(project.path().join("shop/sql/load.sql").exists());
}

#[test]
fn a_sql_file_runs_by_itself_on_a_uri() {
    let project = Project::empty();
    project.write("fill.sql", "CREATE TABLE t (n INTEGER);\nINSERT INTO t VALUES (4);\n");
    let outcome = project.backstop(&["run", "fill.sql", "--connection", "sqlite:///data.db"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT n FROM t"), 4);
    let outcome = project.backstop(&["run", "fill.sql"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stderr, @r#"
    error: fill.sql needs to know where to run
      hint: add --connection with a connection of the project, or a URI such as sqlite:data.db or postgres://user@host/database
    "#);
}

#[test]
fn a_dag_file_runs_without_a_project() {
    let project = Project::empty();
    project.write("alone.yaml", "dag: alone\ntasks:\n  tell: {shell: 'echo here > told.txt'}\n");
    let outcome = project.backstop(&["run", "alone.yaml"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(project.path().join("told.txt").exists());
}

#[test]
fn check_tells_everything_at_once() {
    let project = Project::new(&[
        ("dags/a.yaml", "dag: a\nconnection: db\ntasks:\n  one: {sql: sql/one.sql, retires: 1}\n"),
        ("dags/b.yaml", "dag: b\nconnection: db\ntasks:\n  one: {sql: sql/one.sql}\n"),
        ("sql/one.sql", "SELECT 1;\nSELECT 'never closed;\n"),
    ]);
    let outcome = project.backstop(&["check"]);
    assert_eq!(outcome.code, Some(2));
    insta::assert_snapshot!(outcome.stdout, @r#"
    error[B0205]: unknown key `retires` in Task
     --> dags/a.yaml:4:27
      |
    4 |   one: {sql: sql/one.sql, retires: 1}
      |                           ^^^^^^^
      |
      = help: did you mean `retries`?

    error[B0701]: the string that begins here is never closed
     --> sql/one.sql:2:8
      |
    2 | SELECT 'never closed;
      |        ^
      |
      = help: close it with the same quote; a quote inside the string is written twice

    ✗ 2 errors; 1 valid DAG
    "#);
    let outcome = project.backstop(&["check", "--json"]);
    assert_eq!(outcome.code, Some(2));
    let found: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let told: Vec<String> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}:{}:{}", one["code"], one["file"], one["line"], one["column"]))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "B0205" "dags/a.yaml":4:27
    "B0701" "sql/one.sql":2:8
    "#);
    assert_eq!(project.backstop(&["check", "dags/b.yaml", "--json"]).code, Some(2));
}

#[test]
fn sql_that_check_rejects_does_not_run() {
    let project = Project::with_tasks("  make: {sql: CREATE TABLE t (n INTEGER)}\n  load: {sql: sql/load.sql, after: [make]}\n");
    project.write("sql/load.sql", "SELECT 1;\nSELECT 'never closed;\n");
    assert_eq!(project.backstop(&["check"]).code, Some(2));
    for arguments in [["run", "d"].as_slice(), &["run", "dags/d.yaml"], &["run", "sql/load.sql", "--connection", "db"]] {
        let outcome = project.backstop(arguments);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("error[B0701]: the string that begins here is never closed"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("has 1 error: nothing ran"), "{}", outcome.stderr);
    }
    assert!(!project.path().join("data.db").exists() && !project.path().join(".backstop").exists());
    project.write("dags/fine.yaml", "dag: fine\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n");
    let outcome = project.backstop(&["run", "fine"]);
    assert_eq!(outcome.code, Some(0), "another DAG's mistakes are not in the way: {}", outcome.stderr);
}
