//! Dry runs: what can be rolled back runs and is rolled back; everything else is told and not run.

use crate::server::Database;

#[test]
fn a_script_that_commits_by_its_own_leaves_nothing() {
    let script = "  load:\n    sql: |\n      INSERT INTO t VALUES (1);\n      BEGIN;\n      INSERT INTO t VALUES (2);\n      COMMIT;\n      \
                  INSERT INTO t VALUES (3);\n      BEGIN;\n      INSERT INTO t VALUES (4);\n      ROLLBACK;\n";
    for database in Database::all() {
        let project = database.project(script);
        database.sql(&project, "CREATE TABLE t (n INTEGER)");
        let outcome = project.backstop(&["run", "d", "--dry-run"]);
        assert_eq!(outcome.code, Some(0), "{}: {}", database.name(), outcome.stderr);
        assert!(outcome.stderr.contains("dry run: transactional SQL was rolled back"), "{}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM t"), 0, "{}", database.name());
        assert_eq!(database.tables(&project, "backstop_marker"), 0, "{}", database.name());
        // The same script for good, to show that the dry run has not taken its place.
        assert_eq!(project.backstop(&["run", "d"]).code, Some(0));
        assert_eq!(database.ask(&project, "SELECT SUM(n) FROM t"), 6, "{}", database.name());
    }
}

#[test]
fn a_failure_behind_a_commit_of_the_script_does_not_say_that_it_stays() {
    let project = Database::Sqlite.project(
        "  load:\n    sql: |\n      BEGIN;\n      INSERT INTO t VALUES (1);\n      COMMIT;\n      INSERT INTO missing VALUES (1);\n",
    );
    project.sql("CREATE TABLE t (n INTEGER)");
    let outcome = project.backstop(&["run", "d", "--dry-run"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    let told: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("effect:")).collect();
    assert_eq!(told, ["    effect: nothing was committed: a dry run rolls back what it ran"], "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
}

#[test]
fn what_cannot_be_rolled_back_is_named_and_not_run() {
    let statement = |database: &Database| match database {
        Database::Sqlite => ("VACUUM", "VACUUM"),
        Database::Postgres(..) => ("CREATE INDEX CONCURRENTLY by_n ON t (n)", "CREATE INDEX CONCURRENTLY"),
        Database::MariaDb(..) => ("CREATE TABLE u (n INTEGER)", "CREATE TABLE"),
    };
    for database in Database::all() {
        let (sql, named) = statement(&database);
        let project = database.project(&format!("  load:\n    sql: |\n      INSERT INTO t VALUES (1);\n      {sql};\n"));
        database.sql(&project, "CREATE TABLE t (n INTEGER)");
        let outcome = project.backstop(&["run", "d", "--dry-run"]);
        assert_eq!(outcome.code, Some(0), "{}: {}", database.name(), outcome.stderr);
        let told = "dry run: segment 2 is not run, because it cannot be rolled back: ";
        let line = outcome.stderr.lines().find(|line| line.contains(told)).unwrap_or_else(|| panic!("{}", outcome.stderr));
        assert!(line.contains(named), "{}: {line}", database.name());
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM t"), 0, "{}", database.name());
        assert_eq!(database.tables(&project, "u"), 0, "{}", database.name());
        if let Database::Postgres(..) = database {
            assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM pg_indexes WHERE indexname = 'by_n'"), 0);
        }
    }
}

#[test]
fn a_definition_that_can_be_rolled_back_is_tried_out() {
    for database in [Some(Database::Sqlite), Database::postgres()].into_iter().flatten() {
        let project = database.project(
            "  load:\n    sql: |\n      CREATE TABLE u (n INTEGER);\n      INSERT INTO u VALUES (1);\n      INSERT INTO u (m) VALUES (2);\n",
        );
        let outcome = project.backstop(&["run", "d", "--dry-run"]);
        assert_eq!(outcome.code, Some(1), "{}: {}", database.name(), outcome.stderr);
        assert!(outcome.stderr.contains("statement 3 of 3"), "{}: {}", database.name(), outcome.stderr);
        assert_eq!(database.tables(&project, "u"), 0, "{}", database.name());
    }
}

#[test]
fn tasks_and_callbacks_outside_of_databases_are_named_and_not_run() {
    let database = Database::Sqlite;
    let project = database.project(
        "  tell: {shell: touch shell.txt}\n  count: {python: {function: f, code: \"def f():\\n    open('python.txt', 'w')\\n\"}}\n  \
         call: {http: {method: POST, url: 'http://127.0.0.1:1/'}}\n  \
         load:\n    sql: INSERT INTO t VALUES (1)\n    on_success:\n    - {shell: touch callback.txt}\n    - {sql: INSERT INTO t VALUES (2)}\n  \
         fail:\n    sql: INSERT INTO missing VALUES (1)\n    retries: 5\n    retry_delay: 1h\n    on_retry: {shell: touch retry.txt}\n    \
         on_failure: {sql: INSERT INTO t VALUES (3)}\n",
    );
    database.sql(&project, "CREATE TABLE t (n INTEGER)");
    let outcome = project.backstop(&["run", "d", "--dry-run"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    for what in ["a shell command", "a Python task", "this request"] {
        let told = format!("dry run: {what} cannot be rolled back, so it is not run");
        assert!(outcome.stderr.contains(&told), "it does not say `{told}`:\n{}", outcome.stderr);
    }
    for file in ["shell.txt", "python.txt", "callback.txt", "retry.txt"] {
        assert!(!project.path().join(file).exists(), "{file} was made");
    }
    assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM t"), 0);
    assert_eq!(database.tables(&project, "backstop_marker"), 0);
}
