//! Running statements watched on real servers: who blocks whom, by API and command line, and what a cancel and a kill leave behind.

use crate::server::Database;
use crate::up::{Up, wait};
use serde_json::{Value, json};

/// Holds a row for longer than any test.
fn holder(database: &Database) -> String {
    let sleep = match database {
        Database::MariaDb(..) => "SELECT SLEEP(600)",
        Database::Sqlite | Database::Postgres(..) => "SELECT pg_sleep(600)",
    };
    format!(
        "dag: holder\nconnection: db\ntasks:\n  hold:\n    sql: |\n      UPDATE account SET v = 99 WHERE id = 1;\n      {sleep};\n"
    )
}

const PAY: &str = "  pay: {sql: \"UPDATE account SET v = 7 WHERE id = 1\"}\n";

fn row(up: &Up, run: &str) -> Option<Value> {
    let activity = up.get("/api/v1/activity");
    activity["items"].as_array().unwrap().iter().find(|item| item["run_id"] == run).cloned()
}

/// The blocked statement of a run, as soon as it is known who blocks it.
fn blocked(up: &Up, run: &str) -> Value {
    let mut seen = Value::Null;
    wait("a blocker", || {
        seen = row(up, run).unwrap_or(Value::Null);
        seen["blocked_by"].as_array().is_some_and(|by| !by.is_empty())
    });
    seen
}

/// Statements of this database that run on its server.
pub(crate) fn left_running(database: &Database, project: &crate::project::Project) -> i64 {
    let sql = match database {
        Database::MariaDb(_, name) => {
            format!(
                "SELECT count(*) FROM information_schema.processlist WHERE db = '{name}' AND info LIKE '%SLEEP(600)%' AND id <> connection_id()"
            )
        }
        Database::Sqlite | Database::Postgres(..) => "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND state <> 'idle' AND pid <> pg_backend_pid() AND application_name <> 'backstop watch'"
            .to_owned(),
    };
    database.ask(project, &sql)
}

#[test]
fn a_run_that_another_run_blocks_names_it_everywhere() {
    for database in Database::servers() {
        let project = database.project(PAY);
        project.write("dags/holder.yaml", &holder(&database));
        database.sql(&project, "CREATE TABLE account (id INTEGER PRIMARY KEY, v INTEGER)");
        database.sql(&project, "INSERT INTO account VALUES (1, 0)");
        let up = Up::of(&project);
        let holder = up.trigger("holder", json!({}));
        wait("the lock", || row(&up, &holder).is_some_and(|item| item["statement"] == 2));
        let run = up.trigger("d", json!({}));
        let seen = blocked(&up, &run);
        let by = &seen["blocked_by"][0];
        assert_eq!((&by["run_id"], &by["task"]), (&json!(holder), &json!("hold")), "{}: {seen}", database.name());
        assert!(seen["elapsed_ms"].as_u64().unwrap() >= 2000);
        assert_eq!((&seen["task"], &seen["statement"], &seen["connection"]), (&json!("pay"), &json!(1), &json!("db")));
        let told = format!("blocked by task `hold` of run {holder}");
        let why = up.get(&format!("/api/v1/runs/{run}/tasks/pay/why"));
        assert!(why["why"].as_str().unwrap().contains(&told), "{why}");
        wait("a kept sample", || {
            !up.get(&format!("/api/v1/runs/{run}/tasks/pay/samples"))["items"].as_array().unwrap().is_empty()
        });
        let samples = up.get(&format!("/api/v1/runs/{run}/tasks/pay/samples"));
        assert_eq!(samples["items"][0]["blocked_by"][0]["run_id"], json!(holder), "{samples}");
        // From another process, by what is kept.
        assert!(project.data(&["runs", "why", &run, "pay"]).contains(&told));
        assert!(project.data(&["runs", "show", &run]).contains("blocked by task `hold`"));
        let nobody = up.ask("GET", &format!("/api/v1/runs/{run}/tasks/nobody/samples"), None);
        assert_eq!(nobody.status, 404);
        // The cancel kills the statement that holds the lock, on the server, and what it blocked goes on.
        let cancelled =
            up.ask("POST", &format!("/api/v1/runs/{holder}/cancel"), Some(&json!({ "who": "ann", "why": "in the way" })));
        assert_eq!(cancelled.status, 202, "{}", cancelled.body);
        up.wait_for_state(&holder, "cancelled");
        up.wait_for_state(&run, "success");
        assert_eq!(database.ask(&project, "SELECT v FROM account"), 7);
        wait("an idle server", || left_running(&database, &project) == 0);
        assert_eq!(up.get("/api/v1/activity")["items"], json!([]));
    }
}

/// Two processes with a store each: the server's own tables tell whose session it is. And when one is killed, PostgreSQL notices.
#[test]
fn a_run_of_another_process_is_named_and_its_death_frees_what_it_held() {
    let Some(database) = Database::postgres() else { return };
    let project = database.project(PAY);
    database.sql(&project, "CREATE TABLE account (id INTEGER PRIMARY KEY, v INTEGER)");
    database.sql(&project, "INSERT INTO account VALUES (1, 0)");
    let other = database.project(PAY);
    other.write("dags/holder.yaml", &holder(&database));
    let mut alone = other.start(&["run", "holder", "--verbose"]);
    alone.wait_for("statement 2 of 2");
    let up = Up::of(&project);
    let run = up.trigger("d", json!({}));
    let seen = blocked(&up, &run);
    let by = &seen["blocked_by"][0];
    assert_eq!((by["task"].as_str(), by["run_id"].as_str()), (Some("hold"), Some(&*other.newest())), "{seen}");
    alone.kill();
    up.wait_for_state(&run, "success");
    assert_eq!(database.ask(&project, "SELECT v FROM account"), 7);
    wait("an idle server", || left_running(&database, &project) == 0);
}

#[test]
fn who_waits_for_a_session_is_told_who_has_them() {
    for database in Database::servers() {
        let project = database.project(PAY);
        project.write("dags/holder.yaml", &holder(&database));
        let settings = std::fs::read_to_string(project.path().join("backstop.yaml")).unwrap();
        project.write("backstop.yaml", &settings.replace("{uri:", "{sessions: 1, uri:"));
        database.sql(&project, "CREATE TABLE account (id INTEGER PRIMARY KEY, v INTEGER)");
        database.sql(&project, "INSERT INTO account VALUES (1, 0)");
        let up = Up::of(&project);
        let holder = up.trigger("holder", json!({}));
        wait("the only session", || row(&up, &holder).is_some_and(|item| item["statement"] == 2));
        let run = up.trigger("d", json!({}));
        let expected = format!("it waits for a session of connection `db`: 1 of 1 in use by `hold` of run {holder}");
        wait("the reason", || {
            let why = up.get(&format!("/api/v1/runs/{run}/tasks/pay/why"));
            why["why"].as_str().unwrap().contains(&expected)
        });
        up.ask("POST", &format!("/api/v1/runs/{holder}/cancel"), Some(&json!({ "why": "it was seen" })));
        up.wait_for_state(&run, "success");
        assert_eq!(database.ask(&project, "SELECT v FROM account"), 7);
    }
}

/// Five nights as always, then one that finds nothing to do: recorded once, and shown.
#[test]
fn a_statement_that_touches_no_rows_though_it_always_did_is_told() {
    for database in Database::all() {
        let project = database.project("  load: {sql: \"UPDATE account SET v = v + 1\"}\n");
        database.sql(&project, "CREATE TABLE account (id INTEGER PRIMARY KEY, v INTEGER)");
        let rows: Vec<String> = (0..20).map(|id| format!("({id}, 0)")).collect();
        database.sql(&project, &format!("INSERT INTO account VALUES {}", rows.join(", ")));
        let up = Up::of(&project);
        let run_once = || {
            let run = up.trigger("d", json!({}));
            up.wait_for_state(&run, "success");
            run
        };
        let noticed = |up: &Up, run: &str| -> Vec<Value> {
            let events = up.get(&format!("/api/v1/runs/{run}/events"));
            let events = events["items"].as_array().unwrap();
            events.iter().filter(|event| event["type"] == "anomaly_noticed").cloned().collect()
        };
        for _ in 0..5 {
            let usual = run_once();
            assert_eq!(noticed(&up, &usual), Vec::<Value>::new(), "{}", database.name());
        }
        up.running.kill();
        database.sql(&project, "DELETE FROM account");
        // A new process reads what was before from the store.
        let up = Up::of(&project);
        let run = up.trigger("d", json!({}));
        up.wait_for_state(&run, "success");
        let told = noticed(&up, &run);
        assert_eq!(told.len(), 1, "{}: {told:?}", database.name());
        let expected =
            json!({ "unusual": "no_rows", "statement": 1, "seen": 0, "usual": 20, "of": 5, "task": "load", "try_number": 1 });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&told[0][key], value, "{told:?}");
        }
        let shown = project.data(&["runs", "show", &run]);
        assert!(shown.contains("statement 1 touched no rows; usually 20 (of 5)"), "{shown}");
    }
}
