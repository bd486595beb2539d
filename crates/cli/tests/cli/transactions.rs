//! Groups of tasks that share a transaction, through the whole binary and on real servers: retries behind savepoints, deadlocks and conflicts between
//! two groups, a commit whose answer is lost, and kill -9 at random moments. The seed is printed; `BACKSTOP_KILLS` sets how many kills.

use crate::project::Project;
use crate::server::Database;
use crate::up::wait;
use backstop_testkit::proxy::{Fate, Proxy};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

const LOG: &str = "CREATE TABLE log (round INTEGER, task VARCHAR(20))";

/// Three tasks of one transaction; the second fails at its first try, behind its insert.
const THREE: &str = "  g:
    transaction: true
    retry_delay: 0
    tasks:
      a: {sql: \"INSERT INTO log VALUES (1, 'a')\"}
      b:
        after: [a]
        retries: 1
        retry_delay: 0
        sql: |
          INSERT INTO log VALUES (1, 'b');
          {% if ti.try_number == 1 %} INSERT INTO nowhere VALUES (1); {% endif %}
      c: {check: \"SELECT COUNT(*) = 2 FROM log\", after: [b]}
";

#[test]
fn a_task_is_tried_again_behind_its_savepoint() {
    for database in Database::all() {
        let project = database.project(THREE);
        database.sql(&project, LOG);
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(outcome.code, Some(0), "{}: {}", database.name(), outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 2, "{}", database.name());
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM backstop_marker"), 1, "{}", database.name());
        let rows = project.json(&["runs", "show", "latest", "--json"]);
        let states: Vec<&str> = rows["tasks"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
        assert_eq!(states, ["success"; 4], "{rows}");
    }
}

#[test]
fn a_check_vetoes_the_commit_and_all_of_the_group_is_cleared() {
    for database in Database::all() {
        let project = database.project(&THREE.replace("COUNT(*) = 2", "COUNT(*) = 3"));
        database.sql(&project, LOG);
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(outcome.code, Some(1), "{}: {}", database.name(), outcome.stderr);
        assert!(outcome.stderr.contains("its transaction was rolled back: 2 tasks undone"), "{}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 0, "{}", database.name());
        let dry = project.data(&["runs", "clear", "latest", "g.c", "--dry-run"]);
        for task in ["g.a", "g.b", "g.c"] {
            assert!(dry.contains(task), "{task} is not in:\n{dry}");
        }
    }
}

/// What took no effect gave nothing.
#[test]
fn of_what_was_rolled_back_there_is_no_result() {
    let tasks = "  g:
    transaction: true
    retries: 1
    retry_delay: 0
    tasks:
      a: {sql: \"INSERT INTO log VALUES (1, 'a'); SELECT COUNT(*) FROM log\", result: scalar}
      b: {check: \"SELECT {{ ti.xcom_pull('g.a') }} = 2\", after: [a]}
  told:
    after: [g]
    trigger_rule: all_done
    sql: \"INSERT INTO log VALUES (2, '{{ 'nothing' if ti.xcom_pull('g.a') is none else 'something' }}')\"
";
    let project = Project::with_tasks(tasks);
    project.sql(LOG);
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT COUNT(*) FROM log WHERE task = 'nothing'"), 1, "{}", outcome.stderr);
    assert_eq!(project.ask("SELECT COUNT(*) FROM log"), 1, "{}", outcome.stderr);
}

#[test]
fn a_dry_run_of_a_transaction_leaves_nothing() {
    for database in Database::all() {
        let project =
            database.project(&THREE.replace("{% if ti.try_number == 1 %} INSERT INTO nowhere VALUES (1); {% endif %}", ""));
        database.sql(&project, LOG);
        let outcome = project.backstop(&["run", "d", "--dry-run"]);
        assert_eq!(outcome.code, Some(0), "{}: {}", database.name(), outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 0, "{}", database.name());
        assert_eq!(database.tables(&project, "backstop_marker"), 0, "{}", database.name());
    }
}

#[test]
fn what_a_transaction_cannot_hold_is_told_before_anything_runs() {
    let project = Project::with_tasks(
        "  g:
    transaction: true
    isolation: read_committed
    tasks:
      a: {sql: \"INSERT INTO log VALUES (1, 'a'); COMMIT\"}
      b: {sql: VACUUM, after: [a]}
",
    );
    let outcome = project.backstop(&["check"]);
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(told.matches("error[B0805]").count(), 2, "{told}");
    assert_eq!(told.matches("error[B0806]").count(), 1, "{told}");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    // What commits by itself is told by the lexical rules of the database; the server is not asked.
    let project = Project::with_tasks(
        "  g:
    transaction: true
    tasks:
      a:
        sql: |
          INSERT INTO log VALUES (1, 'a');
          CREATE TABLE other (n INTEGER);
",
    );
    project.write("backstop.yaml", "name: test\nconnections:\n  db: {uri: \"mysql://root@127.0.0.1:1/test\"}\n");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("error[B0805]") && outcome.stderr.contains("--> dags/d.yaml:10:11"), "{}", outcome.stderr);
    assert_eq!(project.json(&["runs", "list", "--json"]).as_array().unwrap().len(), 0, "no run was made");
    let project = Project::with_tasks(
        "  g:
    transaction: true
    tasks:
      a: {sql: SELECT 1}
      b: {sql: SELECT 1, connection: other}
      h:
        transaction: true
        tasks: {c: {sql: SELECT 1}}
",
    );
    let two =
        "name: test\nconnections:\n  db: {conn_type: sqlite, database: a.db}\n  other: {conn_type: sqlite, database: b.db}\n";
    project.write("backstop.yaml", two);
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    for (code, place) in [("error[B0802]", "--> dags/d.yaml:8:7"), ("error[B0804]", "--> dags/d.yaml:9:7")] {
        assert!(outcome.stderr.contains(code) && outcome.stderr.contains(place), "{code}: {}", outcome.stderr);
    }
    // A template hides it until it runs.
    let project = Project::with_tasks("  g: {transaction: true, tasks: {a: {sql: \"{{ 'COMMIT' }}\"}}}\n");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("begins or ends a transaction"), "{}", outcome.stderr);
}

/// Only the server knows what a procedure does.
#[test]
fn a_procedure_that_commits_by_itself_is_told_of_and_not_tried_again() {
    let Some(database) = Database::mariadb() else { return };
    let tasks = "  g:
    transaction: true
    tasks:
      a: {sql: \"INSERT INTO log VALUES (1, 'a')\"}
      b: {sql: CALL commits(), after: [a], retries: 3, retry_delay: 0}
";
    let project = database.project(tasks);
    database.sql(&project, LOG);
    database.sql(&project, "CREATE PROCEDURE commits() COMMIT");
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    for told in ["a statement has committed the transaction by itself", "has taken effect, without a marker"] {
        assert!(outcome.stderr.contains(told), "{told}: {}", outcome.stderr);
    }
    assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 1, "as it says");
    assert_eq!((starts(&project, "g.a"), starts(&project, "g.b"), starts(&project, "g")), (1, 1, 0));
}

fn sleep(database: &Database) -> &'static str {
    match database {
        Database::Postgres(..) => "SELECT pg_sleep(2)",
        Database::MariaDb(..) => "SELECT SLEEP(2)",
        Database::Sqlite => "SELECT 1",
    }
}

#[test]
fn two_groups_that_lock_each_other_out_both_commit_once() {
    for database in Database::servers() {
        let group = |name: &str, first: u32, second: u32| {
            format!(
                "  {name}:\n    transaction: true\n    tasks:\n      one: {{sql: \"UPDATE counter SET n = n + 1 WHERE id = {first}\"}}\n      wait: {{sql: \"{}\", after: \
                 [one]}}\n      two: {{sql: \"UPDATE counter SET n = n + 1 WHERE id = {second}\", after: [wait]}}\n",
                sleep(&database)
            )
        };
        let project = database.project(&format!("{}{}", group("g", 1, 2), group("h", 2, 1)));
        database.sql(&project, "CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER)");
        database.sql(&project, "INSERT INTO counter VALUES (1, 0), (2, 0)");
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(outcome.code, Some(0), "{}: {}", database.name(), outcome.stderr);
        assert!(outcome.stderr.contains("all of it runs again"), "{}: {}", database.name(), outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM counter WHERE n = 2"), 2, "{}", database.name());
    }
}

#[test]
fn two_groups_that_cannot_be_serialized_both_commit_once() {
    let Some(database) = Database::postgres() else { return };
    let group = |name: &str| {
        format!(
            "  {name}:\n    transaction: true\n    isolation: serializable\n    tasks:\n      count: {{sql: \"INSERT INTO log SELECT COUNT(*), '{name}' FROM log\"}}\n      wait: {{sql: \
             SELECT pg_sleep(2), after: [count]}}\n"
        )
    };
    let project = database.project(&format!("{}{}", group("g"), group("h")));
    database.sql(&project, LOG);
    let outcome = project.backstop(&["run", "d"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("all of it runs again"), "{}", outcome.stderr);
    assert_eq!(database.ask(&project, "SELECT COUNT(DISTINCT round) FROM log"), 2, "as if one came after the other");
}

#[test]
fn a_statement_over_its_time_is_killed_and_its_transaction_rolled_back() {
    for database in Database::servers() {
        let seconds = match &database {
            Database::Postgres(..) => "SELECT pg_sleep(600)",
            Database::MariaDb(..) | Database::Sqlite => "SELECT SLEEP(600)",
        };
        let tasks = format!(
            "  g:\n    transaction: true\n    statement_timeout: 1s\n    tasks:\n      a: {{sql: \"INSERT INTO log VALUES (1, 'a')\"}}\n      b: {{sql: {seconds}, after: [a]}}\n"
        );
        let project = database.project(&tasks);
        database.sql(&project, LOG);
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(outcome.code, Some(1), "{}: {}", database.name(), outcome.stderr);
        assert!(outcome.stderr.contains("over the transaction's statement_timeout of TOOK"), "{}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 0, "{}", database.name());
    }
}

/// Lets the project's connection lead to its server through a proxy.
fn through_a_proxy(database: &Database, project: &Project) -> Option<Proxy> {
    let proxy = match database {
        Database::Postgres(server, _) => Proxy::to(server.port()).unwrap(),
        Database::MariaDb(server, _) => Proxy::to(server.port()).unwrap(),
        Database::Sqlite => return None,
    };
    let uri = match database {
        Database::Postgres(_, name) => format!("postgresql://postgres@127.0.0.1:{}/{name}", proxy.port()),
        Database::MariaDb(_, name) => format!("mysql://root@127.0.0.1:{}/{name}", proxy.port()),
        Database::Sqlite => return None,
    };
    project.write("backstop.yaml", &format!("name: test\nconnections:\n  db: {{uri: \"{uri}\"}}\n"));
    Some(proxy)
}

/// Two tasks that lock a row and insert one.
const COUNTED: &str = "  g:
    transaction: true
    tasks:
      count: {sql: UPDATE counter SET n = n + 1}
      log: {sql: \"INSERT INTO log VALUES (1, 'log')\", after: [count]}
";

fn counted(database: &Database, tasks: &str) -> Project {
    let project = database.project(tasks);
    database.sql(&project, LOG);
    database.sql(&project, "CREATE TABLE counter (n INTEGER)");
    database.sql(&project, "INSERT INTO counter VALUES (0)");
    project
}

/// How often a task of the newest run was begun.
fn starts(project: &Project, task: &str) -> usize {
    let events = project.data(&["runs", "events", "latest", "--json"]);
    let events = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    events.filter(|event| event["type"] == "attempt_started" && event["task"] == task).count()
}

/// In the newest run; empty while there is none.
fn state_of(project: &Project, task: &str) -> String {
    let outcome = project.backstop(&["runs", "show", "latest", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    let row = shown["tasks"].as_array().and_then(|rows| rows.iter().find(|row| row["task"] == task).cloned());
    row.unwrap_or_default()["state"].as_str().unwrap_or_default().to_owned()
}

/// The server never hears that the process is gone: the link of its transaction stays, and so do its locks, until it is ended by its name.
#[test]
fn kill_9_between_the_last_statement_and_the_commit_runs_all_again_once() {
    killed_while(b"COMMIT", Fate::RequestKept, 0, (2, 2));
}

/// The transaction is open, and no statement of it runs: there is nothing to be asked, and everything to be run again.
#[test]
fn kill_9_between_two_tasks_runs_all_again_once() {
    killed_while(b"INSERT INTO log", Fate::RequestKept, 0, (2, 1));
}

#[test]
fn kill_9_between_the_commit_and_its_answer_runs_nothing_again() {
    killed_while(b"COMMIT", Fate::AnswerKept, 1, (1, 1));
}

/// `tries` are those of the first task, and of the group.
fn killed_while(request: &[u8], fate: Fate, rows: i64, tries: (usize, usize)) {
    for database in Database::servers() {
        let name = database.name();
        let project = counted(&database, COUNTED);
        assert_eq!(project.backstop(&["run", "d", "--new"]).code, Some(0), "makes the marker table");
        let Some(proxy) = through_a_proxy(&database, &project) else { continue };
        proxy.keep_back(request, fate);
        let running = project.start(&["run", "d", "--new"]);
        assert!(proxy.is_kept_back_within(Duration::from_secs(60)), "{name}: it was not sent");
        // What is sent before a commit may be ahead of the log.
        wait("the log to have the first task", || state_of(&project, "g.count") == "done_not_committed");
        running.kill();
        assert_eq!(database.ask(&project, "SELECT n FROM counter"), 1 + rows, "{name}");
        let outcome = project.backstop(&["run", "--resume", "latest"]);
        assert_eq!(outcome.code, Some(0), "{name}: {}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT n FROM counter"), 2, "{name}: {}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 2, "{name}");
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM backstop_marker WHERE outcome = 'committed'"), 2, "{name}");
        assert_eq!((starts(&project, "g.count"), starts(&project, "g")), tries, "{name}");
        proxy.heal();
    }
}

/// Before its commit began there is nothing to be asked, and what the server still works on is ended.
#[test]
fn kill_9_in_the_middle_of_a_group_leaves_nothing_and_holds_nobody_up() {
    for database in Database::servers() {
        let name = database.name();
        let endless = sleep(&database).replace('2', "600");
        let tasks = COUNTED.replace(
            "\"INSERT INTO log VALUES (1, 'log')\"",
            &format!("\"INSERT INTO log VALUES (1, 'log'); {{% if ti.try_number == 1 %}} {endless} {{% endif %}}\""),
        );
        let project = counted(&database, &tasks);
        let running = project.start(&["run", "d"]);
        let state = |task: &str| state_of(&project, task);
        wait("the second task to run", || state("g.count") == "done_not_committed" && state("g.log") == "running");
        running.kill();
        let outcome = project.backstop(&["run", "--resume", "latest"]);
        assert_eq!(outcome.code, Some(0), "{name}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("all of it runs again"), "{name}: {}", outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT n FROM counter"), 1, "{name}");
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 1, "{name}");
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM backstop_marker"), 1, "{name}: nothing was asked");
        assert_eq!((state("g.count"), state("g")), ("success".to_owned(), "success".to_owned()), "{name}");
    }
}

#[test]
fn a_commit_whose_answer_is_lost_is_found_by_its_marker() {
    for database in Database::servers() {
        let project =
            database.project(&THREE.replace("{% if ti.try_number == 1 %} INSERT INTO nowhere VALUES (1); {% endif %}", ""));
        database.sql(&project, LOG);
        let Some(proxy) = through_a_proxy(&database, &project) else { continue };
        proxy.cut_when_answered(b"COMMIT");
        let outcome = project.backstop(&["run", "d"]);
        assert_eq!(proxy.cuts_when_answered(), 1, "{}: {}", database.name(), outcome.stderr);
        assert_eq!(outcome.code, Some(0), "{}: {}", database.name(), outcome.stderr);
        assert!(outcome.stderr.contains("in doubt"), "{}: {}", database.name(), outcome.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), 2, "{}", database.name());
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM backstop_marker"), 1, "{}", database.name());
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the random moment of the kill is what is tested")]
fn a_group_that_is_killed_at_any_moment_takes_effect_once() {
    const TASKS: u64 = 5;
    let seed = number_from("BACKSTOP_SEED").unwrap_or_else(|| rand::rng().random());
    let kills = number_from("BACKSTOP_KILLS").unwrap_or(8);
    println!("BACKSTOP_SEED={seed} BACKSTOP_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    for database in Database::all() {
        let mut tasks = "  g:\n    transaction: true\n    tasks:\n".to_owned();
        for n in 0..TASKS {
            let after = if n > 0 { format!(", after: [t{}]", n - 1) } else { String::new() };
            tasks.push_str(&format!("      t{n}: {{sql: \"INSERT INTO log VALUES ({{{{ params.round }}}}, 't{n}')\"{after}}}\n"));
        }
        let project = database.project("  unused: {empty: true}\n");
        project.write("dags/d.yaml", &format!("dag: d\nconnection: db\nparams:\n  round: {{type: integer}}\ntasks:\n{tasks}"));
        database.sql(&project, LOG);
        let begin = Instant::now();
        assert_eq!(project.backstop(&["run", "d", "--new", "--param", "round=0"]).code, Some(0), "{}", database.name());
        let usual = begin.elapsed();
        let mut killed = 0;
        for round in 1..=kills {
            let parameter = format!("round={round}");
            let mut child = project
                .command(&["run", "d", "--new", "--param", &parameter])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(usual.mul_f64(random.random_range(0.2..1.0)).min(Duration::from_secs(20)));
            killed += u64::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            let runs = project.json(&["runs", "list", "--json", "--limit", "1"]);
            let newest = runs[0]["run_id"].as_str().unwrap().to_owned();
            // Over already, or of the round before: then this one never began to exist.
            let outcome = project.backstop(&["run", "--resume", &newest]);
            assert!(matches!(outcome.code, Some(0 | 2)), "{} round {round}: {}", database.name(), outcome.stderr);
            let rows = database.ask(&project, &format!("SELECT COUNT(*) FROM log WHERE round = {round}"));
            let began = project.json(&["runs", "show", &newest, "--json"])["params"]["round"].as_u64() == Some(round);
            assert_eq!(rows, if began { TASKS as i64 } else { 0 }, "{} round {round}: {}", database.name(), outcome.stderr);
        }
        println!("{}: {killed} of {kills} killed before their end", database.name());
        let total = database.ask(&project, "SELECT COUNT(*) FROM (SELECT DISTINCT round, task FROM log) AS once");
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM log"), total, "{}: nothing twice", database.name());
    }
}
