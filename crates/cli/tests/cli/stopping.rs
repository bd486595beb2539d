//! A service that stops and does not wait longer: what it ran ends on the servers, no run is cancelled, and the next service goes on.

use crate::server::Database;
use crate::up::{Up, wait};
use crate::watch::left_running;
use serde_json::json;

/// One transaction that holds on as long as there is a row in a table, and a callback that does.
fn tasks(database: &Database) -> String {
    let (alone, sleep) = match database {
        Database::MariaDb(..) => ("", "SLEEP(600)"),
        // The server does not see by itself that nobody listens any more.
        Database::Sqlite | Database::Postgres(..) => ("SET LOCAL client_connection_check_interval = 0;\n      ", "pg_sleep(600)"),
    };
    format!(
        "  hold:\n    sql: |\n      {alone}INSERT INTO effect VALUES (1);\n      SELECT {sleep} FROM gate;\n  \
         call:\n    sql: SELECT nothing FROM nowhere\n    on_failure:\n      sql: |\n        {}INSERT INTO effect VALUES (2);\n        SELECT {sleep} FROM gate;\n",
        alone.replace("\n      ", "\n        ")
    )
}

#[test]
fn a_stop_that_does_not_wait_ends_what_runs_on_the_servers() {
    for database in Database::servers() {
        let project = database.project(&tasks(&database));
        database.sql(&project, "CREATE TABLE effect (a integer)");
        database.sql(&project, "CREATE TABLE gate (a integer)");
        database.sql(&project, "INSERT INTO gate VALUES (1)");
        let up = Up::with(&project, &["--grace", "1"]);
        let run = up.trigger("d", json!({}));
        wait("both statements", || left_running(&database, &project) == 2);
        let (code, said) = up.running.terminate();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("1 run still going on: running statements are ended on their servers"), "{said}");
        wait("an idle server", || left_running(&database, &project) == 0);
        assert_eq!(database.ask(&project, "SELECT count(*) FROM effect"), 0, "{}: nothing committed", database.name());
        database.sql(&project, "DELETE FROM gate");
        let up = Up::of(&project);
        up.wait_for_state(&run, "failed");
        assert_eq!(up.task(&run, "hold"), "success", "it was not cancelled");
        wait("the callback", || database.ask(&project, "SELECT count(*) FROM effect") == 2);
        for effect in [1, 2] {
            let sql = format!("SELECT count(*) FROM effect WHERE a = {effect}");
            assert_eq!(database.ask(&project, &sql), 1, "{}: {effect} once", database.name());
        }
    }
}
