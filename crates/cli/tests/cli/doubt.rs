//! Attempts in doubt: a script whose process died ahead of its log, of which a person speaks of one segment; and what a statement that was
//! left on its server keeps from others.

use crate::project::Project;
use crate::up::{Up, wait};
use backstop_testkit::proxy::Proxy;
use backstop_testkit::servers::Postgres;
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;

/// Looks at the server before it takes too long: each costs a start of its client.
const LOOKS_MAX: u32 = 2000;
/// The first segment and the last wait for keys that the test holds.
const LOAD: &str = "  load:
    sql: |
      BEGIN;
      SELECT pg_advisory_xact_lock(7);
      INSERT INTO t VALUES (0);
      COMMIT;
      BEGIN;
      INSERT INTO t VALUES (1);
      COMMIT;
      BEGIN;
      SELECT pg_advisory_xact_lock(8);
      INSERT INTO t VALUES (2);
      COMMIT;
";

struct Site {
    server: &'static Postgres,
    database: String,
    project: Project,
    proxy: Proxy,
}

impl Site {
    fn new() -> Option<Self> {
        let server = Postgres::shared()?;
        let (database, proxy) = (server.create_database(), Proxy::to(server.port()).unwrap());
        let project = Project::with_tasks(LOAD);
        let uri = format!("postgresql://postgres@127.0.0.1:{}/{database}", proxy.port());
        project.write("backstop.yaml", &format!("name: test\nconnections:\n  db: {{uri: \"{uri}\"}}\n"));
        let site = Self { server, database, project, proxy };
        site.ask("CREATE TABLE t (n integer)");
        Some(site)
    }

    fn ask(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql).unwrap().trim().to_owned()
    }

    fn wait_until(&self, sql: &str) {
        assert!((0..LOOKS_MAX).any(|_| self.ask(sql) == "t"), "it does not come to `{sql}`");
    }

    /// Sessions of this database that have a key, or wait for it.
    fn locks(&self, key: u32, granted: bool) -> String {
        format!(
            "pg_locks WHERE locktype = 'advisory' AND objid = {key} AND granted = {granted} AND database = (SELECT oid FROM \
             pg_database WHERE datname = current_database())"
        )
    }

    fn hold(&self, key: u32) {
        let (server, database) = (self.server, self.database.clone());
        // Until its session is ended.
        std::thread::spawn(move || server.sql(&database, &format!("SELECT pg_advisory_lock({key}); SELECT pg_sleep(3600)")));
        self.wait_until(&format!("SELECT count(*) = 1 FROM {}", self.locks(key, true)));
    }

    fn end_sessions(&self, key: u32, granted: bool) {
        let locks = self.locks(key, granted);
        self.ask(&format!("SELECT pg_terminate_backend(pid) FROM {locks}"));
        self.wait_until(&format!("SELECT count(*) = 0 FROM {locks}"));
    }

    /// Two segments commit, and a power cut takes the process and what its log was told since the attempt began.
    fn loses_what_two_segments_told(&self) {
        let store = self.project.path().join(".backstop/store.db");
        let as_it_was = self.project.path().join("as-it-was.db");
        self.hold(7);
        self.hold(8);
        let running = self.project.start(&["run", "d"]);
        self.wait_until(&format!("SELECT count(*) = 1 FROM {}", self.locks(7, false)));
        let is_told = || self.project.data(&["runs", "events", "latest", "--json"]).contains("\"attempt_started\"");
        assert!((0..LOOKS_MAX).any(|_| is_told()), "the attempt does not reach the store");
        rusqlite::Connection::open(&store).unwrap().execute("VACUUM INTO ?1", [as_it_was.to_str().unwrap()]).unwrap();
        self.end_sessions(7, true);
        self.wait_until(&format!("SELECT count(*) = 1 FROM {}", self.locks(8, false)));
        assert_eq!(self.ask("SELECT count(*) FROM t"), "2");
        running.kill();
        self.end_sessions(8, false);
        self.end_sessions(8, true);
        for file in ["store.db-wal", "store.db-shm"] {
            // Removed with the last connection, unless that was killed.
            let _ = fs::remove_file(store.with_file_name(file));
        }
        fs::rename(as_it_was, store).unwrap();
    }

    fn is_whole(&self) {
        assert_eq!(self.ask("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "0 1 2");
    }
}

const TOLD: [&str; 7] = ["run", "--resume", "latest", "--resolve", "load=committed", "--why", "the row is there"];

#[test]
fn a_person_who_speaks_of_one_segment_does_not_make_the_next_one_run_twice() {
    let Some(site) = Site::new() else { return };
    site.loses_what_two_segments_told();
    let resumed = site.project.backstop(&TOLD);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    site.is_whole();
    let told = site.project.data(&["runs", "events", "latest", "--json"]);
    assert!(told.contains("said that segment 1 of try 1 of `load` took effect"), "{told}");
}

#[test]
fn what_is_behind_the_segment_that_a_person_spoke_of_stays_in_doubt_while_the_database_is_away() {
    let Some(site) = Site::new() else { return };
    site.loses_what_two_segments_told();
    site.proxy.go_down();
    let mut arguments = TOLD.to_vec();
    arguments.push("-v");
    let mut resumed = site.project.start(&arguments);
    resumed.wait_for("asks again");
    resumed.signal(Signal::SIGINT);
    let (_, said) = resumed.end();
    assert!(said.contains("load is in doubt") && !said.contains("nothing was sent"), "{said}");
    let shown = site.project.data(&["runs", "show", "latest"]);
    assert!(shown.contains("in_doubt") && !shown.contains("failed"), "{shown}");
    // The same word once more is not about what is in doubt now, whoever says it.
    let mut of_the_first = TOLD;
    of_the_first[4] = "load=committed:1";
    for again in [TOLD, of_the_first] {
        let refused = site.project.backstop(&again);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("segment 2") && refused.stderr.contains("--segment 2"), "{}", refused.stderr);
    }
    site.proxy.heal();
    let resumed = site.project.backstop(&["run", "--resume", "latest"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    site.is_whole();
}

/// Of a script that cannot be rendered nobody knows what is behind a segment; of a mended one it would be about another segment.
#[test]
fn a_word_is_not_taken_for_a_script_that_is_not_the_one_that_was_sent() {
    let Some(site) = Site::new() else { return };
    let project = &site.project;
    let dag = format!("dag: d\nconnection: db\ntasks:\n{}", LOAD.replace("VALUES (2)", "VALUES ({{ var.json.last.n }})"));
    project.write("dags/d.yaml", &dag);
    let yaml = fs::read_to_string(project.path().join("backstop.yaml")).unwrap();
    let with = |last: &str| project.write("backstop.yaml", &format!("{yaml}variables: {{last: '{last}'}}\n"));
    with("{\"n\": 2}");
    site.loses_what_two_segments_told();
    let refuses = |arguments: &[&str], because: &str| {
        let refused = project.backstop(arguments);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(because), "{}", refused.stderr);
        let told = project.data(&["runs", "events", "latest", "--json"]);
        assert!(!told.contains("operator_acted") && !told.contains("unknown_resolved") && !told.contains("run_pinned"), "{told}");
    };
    with("{}");
    refuses(&TOLD, "cannot be told, so that nothing is recorded: ");
    with("{\"n\": 2}");
    project.write("dags/d.yaml", &dag.replace("VALUES (1)", "VALUES (0 + 1)"));
    refuses(&[&TOLD[..], &["--current-files"]].concat(), "say it without --current-files first");
    let resumed = project.backstop(&TOLD);
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    site.is_whole();
}

#[test]
fn a_statement_that_a_killed_service_left_keeps_its_slot_of_the_pool_until_its_database_was_asked() {
    let Some(site) = Site::new() else { return };
    let project = &site.project;
    let uri = format!("postgresql://postgres@127.0.0.1:{}/{}", site.proxy.port(), site.database);
    let connections = format!("  far: {{uri: \"{uri}\"}}\n  db: {{conn_type: sqlite, database: data.db}}\n");
    project.write("backstop.yaml", &format!("name: test\npools: {{one: 1}}\nconnections:\n{connections}"));
    let long = "SELECT pg_advisory_xact_lock(7); INSERT INTO t VALUES (0)";
    project.write("dags/d.yaml", &format!("dag: d\nconnection: far\ntasks:\n  long: {{pool: one, sql: \"{long}\"}}\n"));
    project.write("dags/e.yaml", "dag: e\nconnection: db\ntasks:\n  next: {pool: one, sql: INSERT INTO u VALUES (1)}\n");
    project.sql("CREATE TABLE u (n integer)");
    site.hold(7);
    let up = Up::of(project);
    let long = up.trigger("d", json!({}));
    let waits = format!("SELECT count(*) = 1 FROM {}", site.locks(7, false));
    site.wait_until(&waits);
    wait("the attempt to be in the log", || up.task(&long, "long") == "running");
    let next = up.trigger("e", json!({}));
    let is_held = |up: &Up| up.get(&format!("/api/v1/runs/{next}/why")).to_string().contains("held by `long` of run");
    wait("the other run to wait for the slot", || is_held(&up));
    // As one that sees nothing of its link's end before its own: it would say that the statement did not commit, and be done with it.
    up.running.signal(Signal::SIGSTOP);
    site.proxy.go_down();
    up.running.kill();
    let up = Up::of(project);
    wait("the other run to wait for the slot again", || up.task(&long, "long") == "in_doubt" && is_held(&up));
    site.wait_until(&waits);
    assert_eq!(project.ask("SELECT count(*) FROM u"), 0);
    site.proxy.heal();
    site.end_sessions(7, true);
    up.wait_for_state(&next, "success");
    up.wait_for_state(&long, "success");
    assert_eq!((site.ask("SELECT count(*) FROM t"), project.ask("SELECT count(*) FROM u")), ("1".to_owned(), 1));
}

#[test]
fn a_statement_that_a_killed_service_left_keeps_its_slots_while_its_dag_is_paused_until_it_has_ended() {
    let Some(site) = Site::new() else { return };
    let project = &site.project;
    let uri = format!("postgresql://postgres@127.0.0.1:{}/{}", site.proxy.port(), site.database);
    let connections = format!("  far: {{uri: \"{uri}\", sessions: 1}}\n  db: {{conn_type: sqlite, database: data.db}}\n");
    project.write("backstop.yaml", &format!("name: test\npools: {{one: 1}}\nconnections:\n{connections}"));
    let long = "SELECT pg_advisory_xact_lock(7); INSERT INTO t VALUES (0)";
    project.write("dags/d.yaml", &format!("dag: d\nconnection: far\ntasks:\n  long: {{pool: one, sql: \"{long}\"}}\n"));
    project.write("dags/e.yaml", "dag: e\nconnection: db\ntasks:\n  next: {pool: one, sql: INSERT INTO u VALUES (1)}\n");
    project.write("dags/f.yaml", "dag: f\nconnection: far\ntasks:\n  beside: {sql: INSERT INTO t VALUES (1)}\n");
    project.sql("CREATE TABLE u (n integer)");
    site.hold(7);
    let up = Up::of(project);
    let long = up.trigger("d", json!({}));
    let waits = format!("SELECT count(*) = 1 FROM {}", site.locks(7, false));
    site.wait_until(&waits);
    wait("the attempt to be in the log", || up.task(&long, "long") == "running");
    assert_eq!(up.ask("PATCH", "/api/v1/dags/d", Some(&json!({ "paused": true, "why": "a test" }))).status, 200);
    // As in the test above.
    up.running.signal(Signal::SIGSTOP);
    site.proxy.go_down();
    up.running.kill();
    site.proxy.heal();
    let up = Up::of(project);
    let (next, beside) = (up.trigger("e", json!({})), up.trigger("f", json!({})));
    let why = |run: &str| up.get(&format!("/api/v1/runs/{run}/why")).to_string();
    wait("the slot of the pool to be kept", || {
        let why = why(&next);
        why.contains("held by `long` of run") && why.contains("1 of them in doubt, whose statements may still run on the server")
    });
    wait("the session to be kept", || {
        why(&beside).contains("1 of 1 in use by `long` of run") && why(&beside).contains("in doubt: its statement may still run")
    });
    site.wait_until(&waits);
    assert_eq!((site.ask("SELECT count(*) FROM t"), project.ask("SELECT count(*) FROM u")), ("0".to_owned(), 0));
    // Nobody drives its run: that its statement has ended is seen on the server.
    site.end_sessions(7, false);
    up.wait_for_state(&next, "success");
    up.wait_for_state(&beside, "success");
    assert_eq!((site.ask("SELECT count(*) FROM t"), project.ask("SELECT count(*) FROM u")), ("1".to_owned(), 1));
    assert_ne!(up.state(&long), "success");
}
