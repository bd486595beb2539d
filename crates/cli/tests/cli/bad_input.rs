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
    let task = |pull: &str| {
        format!(
            "  total: {{sql: SELECT 60}}\n  keep:\n    after: [total]\n    sql: INSERT INTO t VALUES (:n)\n    \
             parameters: {{n: \"{{{{ ti.xcom_pull({pull}) }}}}\"}}\n"
        )
    };
    // A plain name is known before anything runs; one that the template computes, when it is rendered.
    for (pull, code, told) in [
        ("'totl'", 2, ["B0604", "there is no task `totl`", "did you mean `total`?"]),
        ("'total'", 2, ["B0605", "keeps no result", "result: scalar"]),
        ("'to' ~ 'tl'", 1, ["there is no task `totl`", "dags/d.yaml:8:18", "nothing was sent"]),
        ("'to' ~ 'tal'", 1, ["keeps no result", "dags/d.yaml:8:18", "nothing was sent"]),
    ] {
        let project = Project::with_tasks(&task(pull));
        project.sql("CREATE TABLE t (n)");
        assert_says(&project.backstop(&["run", "d"]), code, &told);
        assert_eq!(project.ask("SELECT count(*) FROM t"), 0);
    }
}

#[test]
fn a_parameter_that_no_statement_uses_is_an_error() {
    let project = Project::with_tasks("  keep: {sql: \"INSERT INTO t VALUES (':day')\", parameters: {day: 1}}\n");
    project.sql("CREATE TABLE t (n)");
    assert_says(&project.backstop(&["run", "d"]), 2, &["no statement uses the parameter `day`", "nothing ran"]);
    // What is known only when it runs is found then.
    let project = Project::with_tasks("  keep: {sql: \"INSERT INTO t VALUES ({{ 1 }}, ':day')\", parameters: {day: 1}}\n");
    assert_says(&project.backstop(&["run", "d"]), 1, &["no statement uses the parameter `day`", "nothing was sent"]);
}

#[test]
fn a_misspelt_placeholder_never_takes_the_value_of_another() {
    // SQLite gives a name that nobody knows the next free number, which is that of a value where one comes later.
    for (condition, parameters, placeholder) in [
        ("region = :rgion AND day = :day", "{day: mon, region: us}", "`:rgion` has no value"),
        ("day = :day AND region = :regoin AND n = :n", "{day: mon, region: us, n: 1}", "`:regoin` has no value"),
        ("day = :Day AND region = :day", "{day: mon}", "`:Day` has no value"),
        ("day = $day AND region = :day", "{day: mon}", "`$day` has no value"),
        ("day = @day", "{}", "`@day` has no value"),
        ("day = ?1 OR :day = ''", "{day: mon}", "`?1` has no value"),
        ("day = ?", "{}", "`?` has no value"),
    ] {
        let rendered = format!("{{{{ '' }}}}DELETE FROM t WHERE {condition}");
        let written = format!("DELETE FROM t WHERE {condition}");
        for (sql, code, told) in [(&written, 2, "nothing ran"), (&rendered, 1, "nothing was sent")] {
            let project = Project::with_tasks(&format!("  keep: {{sql: \"{sql}\", parameters: {parameters}}}\n"));
            project
                .sql("CREATE TABLE t (day, region, n); INSERT INTO t VALUES ('mon', 'mon', 1), ('us', 'us', 1), (NULL, NULL, 1)");
            assert_says(&project.backstop(&["run", "d"]), code, &[placeholder, told]);
            assert_eq!(project.ask("SELECT count(*) FROM t"), 3, "{sql}");
        }
    }
    // So it is with questions.
    let project = Project::with_tasks(
        "  ask: {check: {sql: \"{{ '' }}SELECT :dya = 'us', :region\", parameters: {region: us}}}\n  \
         wait: {sensor: {sql: \"{{ '' }}SELECT :regoin = 'us', :region\", parameters: {region: us}}}\n",
    );
    let told = ["`:dya` has no value", "dags/d.yaml:4:", "`:regoin` has no value", "did you mean `:region`?", "dags/d.yaml:5:"];
    assert_says(&project.backstop(&["run", "d"]), 1, &told);
}

#[test]
fn check_finds_placeholders_that_have_no_value() {
    let project = Project::with_tasks(
        "  keep:\n    sql: |\n      SELECT 1;\n      INSERT INTO t\n        VALUES (:dya, :other)\n    parameters:\n      day: 1\n  \
         ask: {check: {sql: \"SELECT @n\", parameters: {n: 1}}}\n  \
         part: {check: {table: t, checks: {whole: \"a > :a\"}}}\n  \
         plain: {sql: \"SELECT ?\"}\n",
    );
    insta::assert_snapshot!(checked(&project, &[]).join("\n"), @r"
    B0705 error dags/d.yaml:8:17 `:dya` has no value: no parameter has this name | did you mean `:day`?
    B0705 error dags/d.yaml:8:23 `:other` has no value: no parameter has this name | give it a value in `parameters`; a colon that belongs to a text stands in quotes
    B0705 error dags/d.yaml:11:30 `@n` has no value: no parameter has this name | did you mean `:n`?
    B0705 error dags/d.yaml:12:49 `:a` has no value: no parameter has this name | give it a value in `parameters`; a colon that belongs to a text stands in quotes
    B0705 error dags/d.yaml:13:24 `?` has no value | values have names, with a colon: write `:name`, and give `name` a value in `parameters`
    ");
    // Each database has colons of its own.
    let project = Project::new(&[
        ("backstop.yaml", "name: test\nconnections:\n  pg: postgres://u@localhost/d\n  my: mysql://u@localhost/d\n"),
        (
            "dags/e.yaml",
            "dag: e\ntasks:\n  pg:\n    connection: pg\n    sql: |\n      SELECT x::date, v[1:2], v[:n], ':x', $$ :x $$ FROM t WHERE n = :n -- :x\n    \
             parameters: {n: 1}\n  pg_typo: {connection: pg, sql: \"SELECT :m::date\", parameters: {n: 1}}\n  \
             my: {connection: my, sql: \"SELECT @x := 1, @y:=2, ':x', `:x` # :x\"}\n  my_typo: {connection: my, sql: \"SELECT :x\"}\n",
        ),
    ]);
    insta::assert_snapshot!(checked(&project, &[]).join("\n"), @r"
    B0705 error dags/e.yaml:8:42 `:m` has no value: no parameter has this name | did you mean `:n`?
    B0705 error dags/e.yaml:10:42 `:x` has no value: no parameter has this name | give it a value in `parameters`; a colon that belongs to a text stands in quotes
    ");
}

#[test]
fn python_that_returns_what_json_has_not_fails() {
    let project = Project::with_tasks("  odd: {python: {function: f, code: \"def f():\\n    return float('nan')\\n\"}}\n");
    assert_says(&project.backstop(&["run", "d"]), 1, &["odd"]);
}

/// What `backstop check --json` tells of a project: `code severity file:line:column message | hint`.
fn checked(project: &Project, arguments: &[&str]) -> Vec<String> {
    let outcome = project.backstop(&[&["check", "--json"], arguments].concat());
    let told: Vec<serde_json::Value> =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", outcome.stdout, outcome.stderr));
    let is_wrong = told.iter().any(|told| told["severity"] == "error");
    assert_eq!(outcome.code, Some(if is_wrong { 2 } else { 0 }), "{}", outcome.stdout);
    let text = |told: &serde_json::Value, key: &str| told[key].as_str().unwrap_or_default().to_owned();
    let place = |told: &serde_json::Value| format!("{}:{}:{}", text(told, "file"), told["line"], told["column"]);
    told.iter()
        .map(|told| {
            let [code, severity, message, hint] = ["code", "severity", "message", "hint"].map(|key| text(told, key));
            format!("{code} {severity} {} {message} | {hint}", place(told))
        })
        .collect()
}

#[test]
fn check_finds_parameters_that_no_statement_uses() {
    let project = Project::with_tasks(
        "  keep:\n    sql: \"INSERT INTO t VALUES (:dya, ':quoted', :day2)\"\n    parameters:\n      day: 1\n      day2: 2\n      quoted: 3\n  \
         ask: {check: {sql: SELECT 1, parameters: {n: 1}}}\n  \
         each: {shell: ls, for_each: {sql: SELECT :n, parameters: {n: 1, m: 2}}, connection: db}\n  \
         hidden: {sql: \"SELECT {% if params %}:n{% endif %}\", parameters: {n: 1}}\n  \
         used:\n    sql: SELECT 1\n    on_failure:\n      - {sql: \"SELECT 1; SELECT :n\", parameters: {n: 1, k: 2}}\n",
    );
    insta::assert_snapshot!(checked(&project, &[]).join("\n"), @r"
    B0705 error dags/d.yaml:5:33 `:dya` has no value: no parameter has this name | did you mean `:day`?
    B0703 error dags/d.yaml:9:7 no statement uses the parameter `quoted` | write `:quoted` where its value belongs, outside of quotes, or remove it from `parameters`
    B0703 warning dags/d.yaml:10:45 no statement uses the parameter `n` | write `:n` where its value belongs, outside of quotes, or remove it from `parameters`
    B0703 warning dags/d.yaml:11:67 no statement uses the parameter `m` | write `:m` where its value belongs, outside of quotes, or remove it from `parameters`
    B0703 error dags/d.yaml:16:57 no statement uses the parameter `k` | write `:k` where its value belongs, outside of quotes, or remove it from `parameters`
    ");
    // A script in a file is wrong where the task gives the parameter, for each task that does.
    let project = Project::with_tasks(
        "  one: {sql: sql/a.sql, parameters: {a: 1}}\n  two: {sql: sql/a.sql, parameters: {b: 1}}\n  three: {sql: sql/a.sql, parameters: {b: 1}}\n",
    );
    project.write("sql/a.sql", "SELECT 1;\nSELECT :a;\n");
    insta::assert_snapshot!(checked(&project, &[]).join("\n"), @r"
    B0703 error dags/d.yaml:5:38 no statement uses the parameter `b` | write `:b` where its value belongs, outside of quotes, or remove it from `parameters`
    B0703 error dags/d.yaml:6:40 no statement uses the parameter `b` | write `:b` where its value belongs, outside of quotes, or remove it from `parameters`
    B0705 error sql/a.sql:2:8 `:a` has no value: no parameter has this name | did you mean `:b`?
    ");
}

#[test]
fn check_reads_the_sql_of_every_kind() {
    let project = Project::with_tasks(
        "  check: {check: \"SELECT 'open\"}\n  \
         bound: {check: {sql: SELECT 1, min: 0, max: \"SELECT (1 /* open\"}}\n  \
         table: {check: {table: t, checks: {whole: \"a > 1; DROP TABLE t\", ends: \"b > 1;\"}, partition: \"c = 'x\"}}\n  \
         branch: {branch: {sql: \"-- nothing\", if_true: [sensor]}}\n  \
         sensor: {sensor: {sql: \"SELECT 1; DELETE FROM t\"}, after: [branch]}\n  \
         each: {shell: ls, for_each: {sql: \"COMMIT; INSERT INTO t VALUES (1)\"}}\n  \
         back: {empty: true, on_failure: {sql: \"BEGIN; SELECT 1\"}, on_success: {sql: \"SELECT \\\"open\"}}\n  \
         fine: {check: \"PRAGMA foreign_keys; SELECT 1\", on_retry: {sql: \"INSERT INTO t VALUES (1)\"}}\n",
    );
    insta::assert_snapshot!(checked(&project, &[]).join("\n"), @r"
    B0701 error dags/d.yaml:4:26 the string that begins here is never closed | close it with the same quote; a quote inside the string is written twice
    B0701 error dags/d.yaml:5:58 the comment that begins here is never closed | close it with */; nested comments each need their own
    B0701 error dags/d.yaml:6:53 this becomes a part of one statement, and has a `;` in it | write a table, or one condition, without `;`
    B0701 error dags/d.yaml:6:75 a `;` ends the statement that this becomes a part of | write a table, or one condition, without `;`
    B0701 error dags/d.yaml:6:101 the string that begins here is never closed | close it with the same quote; a quote inside the string is written twice
    B0704 error dags/d.yaml:7:27 there is no statement in the query | write one that gives a row, such as `SELECT count(*) > 0 FROM t`
    B0704 error dags/d.yaml:8:37 the query writes | checks, branches, sensors and lists may only read; put what writes into a `sql` task
    B0704 error dags/d.yaml:9:38 the query begins or ends a transaction, and it runs in one that only reads | checks, branches, sensors and lists may only read; put what writes into a `sql` task
    B0704 error dags/d.yaml:9:46 the query writes | checks, branches, sensors and lists may only read; put what writes into a `sql` task
    B0701 error dags/d.yaml:10:42 the transaction begun here is never committed | end it with COMMIT (or ROLLBACK), or remove the BEGIN: the script's statements then commit together by themselves
    B0701 error dags/d.yaml:10:87 the quoted name that begins here is never closed | close it; a closing quote inside the name is written twice
    ");
}

#[test]
fn a_query_that_check_refuses_is_one_that_the_run_refuses() {
    let project = Project::with_tasks("  ask: {check: INSERT INTO t VALUES (1)}\n  make: {check: CREATE TABLE u (n)}\n");
    project.sql("CREATE TABLE t (n)");
    assert_eq!(checked(&project, &[]).len(), 2);
    assert_says(&project.backstop(&["run", "d"]), 2, &["the query writes", "may only read", "nothing ran"]);
    let text = std::fs::read_to_string(project.path().join("dags/d.yaml")).unwrap();
    // What is known only when it runs is found then.
    project.write(
        "dags/d.yaml",
        &text
            .replace("check: INSERT INTO t VALUES (1)", "check: \"INSERT INTO t VALUES ({{ 1 }})\"")
            .replace("check: CREATE TABLE u (n)", "check: \"CREATE TABLE u (n{{ 1 }})\""),
    );
    assert_eq!(checked(&project, &[]).len(), 0);
    assert_says(&project.backstop(&["run", "d"]), 1, &["the query writes", "may only read"]);
    assert_eq!(project.ask("SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM sqlite_master WHERE name = 'u')"), 0);
}

#[test]
fn check_takes_the_name_of_a_dag() {
    let project = Project::new(&[
        ("dags/good.yaml", "dag: nightly\ntasks:\n  a: {empty: true}\n"),
        ("dags/bad.yaml", "dag: weekly\ntasks:\n  a: {empty: true, retires: 1}\n"),
        ("dags/twice.yaml", "dag: yearly\ntasks:\n  a: {empty: true}\n"),
        ("dags/again.yaml", "dag: yearly\ntasks:\n  a: {empty: true}\n"),
    ]);
    assert_eq!(project.data(&["check", "nightly"]).trim(), "✓ 1 valid DAG, nothing wrong");
    // A DAG with errors has a name, too.
    let told = checked(&project, &["weekly", "nightly"]);
    assert!(told.len() == 1 && told[0].starts_with("B0205 error dags/bad.yaml:3:20"), "{told:?}");
    let told = checked(&project, &["yearly"]);
    assert!(told.len() == 1 && told[0].starts_with("B0401 error"), "{told:?}");
    assert_says(
        &project.backstop(&["check", "nigthly"]),
        2,
        &[
            "neither a file or folder `nigthly` nor a DAG of that name",
            "did you mean `nightly`?",
            "DAGs: nightly, weekly, yearly",
        ],
    );
    assert_says(&project.backstop(&["check", "dags/god.yaml"]), 2, &["did you mean the file `dags/good.yaml`?"]);
    // A path comes first.
    project.write("nightly/dags/other.yaml", "dag: other\ntasks:\n  a: {empty: true, frob: 1}\n");
    assert!(checked(&project, &["nightly"])[0].contains("dags/other.yaml"));
    let nowhere = Project::empty();
    assert_says(&nowhere.backstop(&["check", "nightly"]), 2, &["no file or folder `nightly`, and no project"]);
}

#[test]
fn every_code_of_check_is_documented() {
    let documented = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/diagnostics.md")).unwrap();
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/check.rs")).unwrap();
    let codes: Vec<&str> = source.match_indices("\"B07").map(|(at, _)| &source[at + 1..at + 6]).collect();
    assert!(codes.len() >= 4, "{codes:?}");
    for code in codes {
        assert!(documented.contains(&format!("## {code}\n")), "{code} is not in docs/diagnostics.md");
    }
}
