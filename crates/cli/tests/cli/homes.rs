//! Several projects in one service: a run that a command left goes on with the connections of its own project, or says why it waits.

use crate::project::Project;
use crate::up::{Up, wait};

const TWO: &str = "dag: two\nconnection: db\ntasks:\n  last: {sql: sql/last.sql}\n";

/// A service takes no two projects of one name.
fn named(name: &str) -> String {
    format!("name: {name}\nconnections:\n  db: {{conn_type: sqlite, database: data.db}}\n")
}

/// Two projects with a connection and a table of the same names, one store, and a run of the second that no process has: it failed, and is
/// retried with mended files, which are gone since.
struct Left {
    first: Project,
    second: Project,
    store: String,
    run: String,
}

impl Left {
    fn new() -> Self {
        let first = Project::new(&[("dags/one.yaml", "dag: one\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n")]);
        let second = Project::new(&[("dags/two.yaml", TWO), ("sql/last.sql", "INSERT INTO mistyped VALUES ('last')")]);
        second.write("backstop.yaml", &named("second"));
        for project in [&first, &second] {
            project.sql("CREATE TABLE effect (what text)");
        }
        let store = first.path().join(".backstop/store.db").to_string_lossy().into_owned();
        let failed = second.backstop(&["run", "two", "--store", &store]);
        assert_eq!(failed.code, Some(1), "{}", failed.stderr);
        second.write("sql/last.sql", "INSERT INTO effect VALUES ('last')");
        let retry = ["runs", "retry", "latest", "--store", &store, "--current-files", "--reason", "mended"];
        let retried = second.backstop(&retry);
        assert_eq!(retried.code, Some(0), "{}", retried.stderr);
        let run = second.json(&["runs", "list", "--json", "--store", &store])[0]["run_id"].as_str().unwrap().to_owned();
        std::fs::remove_file(second.path().join("dags/two.yaml")).unwrap();
        Self { first, second, store, run }
    }

    fn ask_store(&self, sql: &str) -> i64 {
        rusqlite::Connection::open(&self.store).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// As if the run had been made before its header told of its project.
    fn forget_project(&self) {
        let store = rusqlite::Connection::open(&self.store).unwrap();
        let sql = "UPDATE events SET body = json_remove(body, '$.project') WHERE body LIKE '%run_created%'";
        assert_eq!(store.execute(sql, []).unwrap(), 1);
    }

    fn up(&self, projects: &[&Project]) -> Up {
        let folders: Vec<String> = projects.iter().map(|project| project.path().to_string_lossy().into_owned()).collect();
        let mut arguments: Vec<&str> = folders.iter().flat_map(|folder| ["--project", folder]).collect();
        arguments.extend(["--store", &self.store]);
        Up::with(&self.first, &arguments)
    }

    fn effects(&self) -> [i64; 2] {
        [&self.first, &self.second].map(|project| project.ask("SELECT count(*) FROM effect WHERE what = 'last'"))
    }
}

#[test]
fn a_run_that_commands_began_and_retried_goes_on_in_its_own_project() {
    let left = Left::new();
    assert_eq!(left.ask_store("SELECT count(*) FROM entries WHERE kind = 'home'"), 2, "of each of its versions");
    left.forget_project();
    let up = left.up(&[&left.first, &left.second]);
    up.wait_for_state(&left.run, "success");
    assert_eq!(left.effects(), [0, 1]);
}

#[test]
fn a_run_of_which_no_project_is_kept_waits_and_says_why_or_goes_on_where_its_files_were() {
    let left = Left::new();
    let third = Project::new(&[("dags/three.yaml", "dag: three\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n")]);
    third.write("backstop.yaml", &named("third"));
    left.forget_project();
    rusqlite::Connection::open(&left.store).unwrap().execute("DELETE FROM entries WHERE kind = 'home'", []).unwrap();
    let up = left.up(&[&left.first, &third]);
    let folder = left.second.path().to_string_lossy().into_owned();
    wait("it to say why", || {
        up.get(&format!("/api/v1/runs/{}/why", left.run))["why"].as_str().is_some_and(|why| {
            why.contains("it is not known which project it stands in") && why.contains(&format!("--project {folder}"))
        })
    });
    assert_eq!(left.effects(), [0, 0]);
    up.running.kill();
    let up = left.up(&[&left.first, &left.second]);
    up.wait_for_state(&left.run, "success");
    assert_eq!(left.effects(), [0, 1]);
    assert_eq!(left.ask_store("SELECT count(*) FROM entries WHERE kind = 'home'"), 1, "from here on it is known");
}
