//! What goes wrong in the world: each ends in an error that says what, where and what next, and nothing is lost or half done.

use crate::project::{Outcome, Project};
use backstop_testkit::servers::{MariaDb, Options, Postgres};

/// A project whose connection `db` leads to a server.
fn on(uri: &str, tasks: &str) -> Project {
    let project = Project::with_tasks(tasks);
    project.write("backstop.yaml", &format!("name: test\nconnections:\n  db: {{uri: \"{uri}\"}}\n"));
    project
}

fn assert_says(outcome: &Outcome, code: i32, texts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}{}", outcome.stdout, outcome.stderr);
    for text in texts {
        assert!(outcome.stderr.contains(text), "it does not say `{text}`:\n{}", outcome.stderr);
    }
}

#[test]
fn a_wrong_password_is_refused_and_not_shown() {
    let options = Options { password: Some("right-secret".into()), ..Options::default() };
    if Postgres::shared().is_none() {
        return;
    }
    let server = Postgres::start_with(options).unwrap();
    let uri = format!("postgresql://postgres:wrong-secret@127.0.0.1:{}/postgres", server.port());
    let project = on(&uri, "  ask: {sql: SELECT 1}\n");
    let outcome = project.backstop(&["run", "d"]);
    assert_says(&outcome, 1, &["password authentication failed", "28P01", "nothing was sent"]);
    let run = project.newest();
    for told in [outcome.stderr, project.data(&["runs", "events", &run, "--json"]), project.data(&["logs", &run, "ask"])] {
        assert!(!told.contains("wrong-secret"), "the password is shown:\n{told}");
    }
}

#[test]
fn a_host_that_is_not_there_is_named() {
    // Port 1 of the loopback: nothing listens there.
    for uri in ["postgresql://app@127.0.0.1:1/sales", "mysql://app@127.0.0.1:1/sales"] {
        let outcome = on(uri, "  ask: {sql: SELECT 1}\n").backstop(&["run", "d"]);
        assert_says(&outcome, 1, &["127.0.0.1:1", "nothing was sent"]);
    }
}

#[test]
fn a_dropped_table_and_a_unique_violation_leave_nothing() {
    let tasks = "  load:\n    sql: |\n      INSERT INTO kept VALUES (2);\n      INSERT INTO gone VALUES (1);\n  \
                 twice:\n    sql: |\n      INSERT INTO kept VALUES (3);\n      INSERT INTO kept VALUES (1);\n";
    let make = "CREATE TABLE kept (id integer PRIMARY KEY)";
    let check = |project: &Project, ask: &dyn Fn(&str) -> String, missing: &str, unique: &str| {
        ask(make);
        ask("INSERT INTO kept VALUES (1)");
        let outcome = project.backstop(&["run", "d"]);
        assert_says(&outcome, 1, &["gone", missing, unique, "statement 2", "dags/d.yaml:7", "nothing was committed"]);
        assert_eq!(ask("SELECT COUNT(*) FROM kept"), "1");
    };
    let project = Project::with_tasks(tasks);
    let sqlite = |sql: &str| {
        if sql.starts_with("SELECT") {
            return project.ask(sql).to_string();
        }
        project.sql(sql);
        String::new()
    };
    check(&project, &sqlite, "no such table", "UNIQUE constraint failed");
    if let Some(server) = Postgres::shared() {
        let database = server.create_database();
        let project = on(&format!("postgresql://postgres@127.0.0.1:{}/{database}", server.port()), tasks);
        check(&project, &|sql| server.sql(&database, sql).unwrap().trim().into(), "42P01", "23505");
    }
    if let Some(server) = MariaDb::shared() {
        let database = server.create_database();
        let project = on(&format!("mysql://root@127.0.0.1:{}/{database}", server.port()), tasks);
        check(&project, &|sql| server.sql(&database, sql).unwrap().trim().into(), "42S02", "1062");
    }
}

/// Two tasks that lock two rows in opposite order, each holding its first row until the other has its own.
fn crossing(sleep: &str) -> String {
    let task = |name: &str, first: u8, second: u8| {
        format!(
            "  {name}:\n    retries: 3\n    retry_delay: 1\n    sql: |\n      UPDATE pair SET n = n + 1 WHERE id = {first};\n      \
             {sleep};\n      UPDATE pair SET n = n + 1 WHERE id = {second};\n"
        )
    };
    format!("{}{}", task("there", 1, 2), task("back", 2, 1))
}

#[test]
fn a_deadlock_victim_is_tried_again_and_both_apply_once() {
    let setup = ["CREATE TABLE pair (id integer PRIMARY KEY, n integer NOT NULL)", "INSERT INTO pair VALUES (1, 0), (2, 0)"];
    if let Some(server) = Postgres::shared() {
        let database = server.create_database();
        setup.iter().for_each(|sql| drop(server.sql(&database, sql).unwrap()));
        let project =
            on(&format!("postgresql://postgres@127.0.0.1:{}/{database}", server.port()), &crossing("SELECT pg_sleep(0.5)"));
        assert_says(&project.backstop(&["run", "d"]), 0, &["deadlock", "succeeded on try 2"]);
        assert_eq!(server.sql(&database, "SELECT sum(n) FROM pair").unwrap().trim(), "4");
    }
    if let Some(server) = MariaDb::shared() {
        let database = server.create_database();
        setup.iter().for_each(|sql| drop(server.sql(&database, sql).unwrap()));
        let project = on(&format!("mysql://root@127.0.0.1:{}/{database}", server.port()), &crossing("SELECT SLEEP(0.5)"));
        assert_says(&project.backstop(&["run", "d"]), 0, &["eadlock", "succeeded on try 2"]);
        assert_eq!(server.sql(&database, "SELECT SUM(n) FROM pair").unwrap().trim(), "4");
    }
}

#[test]
fn a_full_database_keeps_nothing_of_the_script() {
    let fill = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100000) INSERT INTO t SELECT hex(randomblob(500)) FROM c";
    let project = Project::with_tasks(&format!(
        "  load:\n    sql: |\n      PRAGMA max_page_count = 200;\n      INSERT INTO t VALUES ('x');\n      {fill};\n"
    ));
    project.sql("CREATE TABLE t (text)");
    assert_says(&project.backstop(&["run", "d"]), 1, &["full"]);
    assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_store_that_cannot_be_written_runs_nothing() {
    let project = Project::with_tasks("  make: {sql: CREATE TABLE t (n)}\n");
    project.sql("SELECT 1");
    // A folder where nobody may make a file, root included.
    let outcome = project.backstop(&["run", "d", "--store", "/proc/backstop/store.db"]);
    assert_says(&outcome, 2, &["/proc/backstop"]);
    assert_eq!(project.ask("SELECT count(*) FROM sqlite_master"), 0);
    project.write("not-a-store.db", "this is a text and no database, and it is long enough to look like one at first sight");
    assert_says(&project.backstop(&["run", "d", "--store", "not-a-store.db"]), 2, &["not-a-store.db"]);
    assert_eq!(project.ask("SELECT count(*) FROM sqlite_master"), 0);
}

#[test]
fn a_script_of_fifty_megabytes_runs() {
    let project = Project::with_tasks("  load: {sql: sql/large.sql}\n");
    let row = format!("INSERT INTO t VALUES ('{}');\n", "x".repeat(400));
    let mut script = String::from("CREATE TABLE t (text);\n");
    while script.len() < 50_000_000 {
        script.push_str(&row);
    }
    let rows = i64::try_from(script.lines().count() - 1).unwrap();
    project.write("sql/large.sql", &script);
    assert_says(&project.backstop(&["run", "d"]), 0, &["success"]);
    assert_eq!(project.ask("SELECT count(*) FROM t"), rows);
}

#[test]
fn a_file_in_latin_1_is_said_with_its_place() {
    let project = Project::with_tasks("  load: {sql: sql/latin.sql}\n");
    std::fs::create_dir_all(project.path().join("sql")).unwrap();
    std::fs::write(project.path().join("sql/latin.sql"), b"SELECT 1;\nSELECT 'caf\xe9';\n").unwrap();
    assert_says(&project.backstop(&["run", "d"]), 2, &["sql/latin.sql:2:", "UTF-8"]);
}

#[test]
fn a_yaml_bomb_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", ")));
    }
    let project = Project::new(&[("dags/bomb.yaml", &bomb)]);
    let outcome = project.backstop(&["check"]);
    assert_eq!(outcome.code, Some(2));
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(told.contains("B0203") && told.contains("dags/bomb.yaml"), "{told}");
}

#[test]
fn templates_that_never_end_or_look_too_far_are_stopped() {
    let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{% for c in range(10000) %}{{ c }}{% endfor %}{% endfor %}{% endfor %}";
    let project = Project::new(&[
        ("dags/d.yaml", "dag: d\nconnection: db\ntasks:\n  loop: {sql: sql/loop.sql}\n"),
        ("dags/e.yaml", "dag: e\nconnection: db\ntasks:\n  look: {sql: \"SELECT '{{ conn.db.password }}'\"}\n"),
        ("sql/loop.sql", endless),
        ("backstop.yaml", "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db, password: hidden-word}\n"),
    ]);
    assert_says(&project.backstop(&["run", "d"]), 1, &["sql/loop.sql", "render the template", "nothing was sent"]);
    let outcome = project.backstop(&["run", "e"]);
    assert_says(&outcome, 2, &["B0603", "dags/e.yaml"]);
    assert!(!outcome.stderr.contains("hidden-word"), "{}", outcome.stderr);
}

#[test]
fn ten_million_rows_are_no_result() {
    let rows = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 10000000) SELECT n FROM c";
    let project = Project::with_tasks(&format!(
        "  ask:\n    result: rows\n    sql: |\n      INSERT INTO t VALUES (1);\n      {rows};\n  count: {{sql: \"{rows}\"}}\n"
    ));
    project.sql("CREATE TABLE t (n)");
    let outcome = project.backstop(&["run", "d"]);
    assert_says(
        &outcome,
        1,
        &["the result passed its limit of 65536 bytes", "statement 2", "nothing was committed", "count: success"],
    );
    assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
}

#[test]
fn a_syntax_error_names_its_statement_and_line() {
    let mut script = String::from("CREATE TABLE t (n);\n");
    for number in 2..=12 {
        script.push_str(if number == 7 { "SELEC 1;\n" } else { "INSERT INTO t VALUES (1);\n" });
    }
    let project = Project::with_tasks("  load: {sql: sql/load.sql}\n");
    project.write("sql/load.sql", &script);
    let texts = ["statement 7 of 12", "near \"SELEC\"", "sql/load.sql:7:1", "nothing was committed"];
    assert_says(&project.backstop(&["run", "d"]), 1, &texts);
    assert_eq!(project.ask("SELECT count(*) FROM sqlite_master WHERE name = 't'"), 0);
}

#[test]
fn a_pull_that_can_find_nothing_is_an_error_and_no_null() {
    let task = |from: &str| {
        format!(
            "  total: {{sql: SELECT 60}}\n  keep:\n    after: [total]\n    sql: INSERT INTO t VALUES (:n)\n    \
             parameters: {{n: \"{{{{ ti.xcom_pull('{from}') }}}}\"}}\n"
        )
    };
    for (from, told) in [("totl", "there is no task `totl`"), ("total", "keeps no result")] {
        let project = Project::with_tasks(&task(from));
        project.sql("CREATE TABLE t (n)");
        assert_says(&project.backstop(&["run", "d"]), 1, &[told]);
        assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
    }
}

#[test]
fn a_parameter_that_no_statement_uses_is_an_error() {
    let project = Project::with_tasks("  keep: {sql: \"INSERT INTO t VALUES (:dya)\", parameters: {day: 1}}\n");
    project.sql("CREATE TABLE t (n)");
    assert_says(&project.backstop(&["run", "d"]), 1, &["no statement uses the parameter `day`", "nothing was sent"]);
}

#[test]
fn python_that_returns_what_json_has_not_fails() {
    let project = Project::with_tasks("  odd: {python: {function: f, code: \"def f():\\n    return float('nan')\\n\"}}\n");
    assert_says(&project.backstop(&["run", "d"]), 1, &["odd"]);
}
