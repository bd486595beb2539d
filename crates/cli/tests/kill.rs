//! kill -9 of `backstop run` at random moments of a real 20-segment batch, resumed until it ends: every segment is applied exactly once,
//! checked by counts and sums in the database. `BACKSTOP_KILLS` sets how many kills on each database; the seed is printed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops at what it did not expect")]

use backstop_testkit::servers::{MariaDb, Postgres};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SEGMENTS: i64 = 20;

struct Target {
    name: &'static str,
    uri: String,
    /// Runs SQL in the target and gives the first value of the first row.
    ask: Box<dyn Fn(&str) -> String>,
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

fn write_project(folder: &Path, uri: &str) {
    fs::create_dir_all(folder.join("dags")).unwrap();
    fs::create_dir_all(folder.join("sql")).unwrap();
    fs::write(folder.join("backstop.yaml"), format!("name: kill\nconnections:\n  db: {{uri: \"{uri}\"}}\n")).unwrap();
    let dag = "dag: batch\nconnection: db\nparams:\n  round: {type: integer}\ntasks:\n  load:\n    sql: sql/batch.sql\n    \
               parameters: {round: \"{{ params.round }}\"}\n";
    fs::write(folder.join("dags/batch.yaml"), dag).unwrap();
    let segment =
        |n| format!("BEGIN;\nINSERT INTO effect (round, segment) VALUES (:round, {n});\nUPDATE total SET n = n + 1;\nCOMMIT;\n");
    fs::write(folder.join("sql/batch.sql"), (0..SEGMENTS).map(segment).collect::<String>()).unwrap();
}

fn backstop(project: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
    command.current_dir(project).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn begin(project: &Path, round: i64) -> Child {
    backstop(project, &["run", "batch", "--new", "--param", &format!("round={round}")]).spawn().unwrap()
}

/// The newest run: its id and state.
fn newest(project: &Path) -> Option<(String, String)> {
    let output = backstop(project, &["runs", "list", "--json", "--limit", "1"]).stdout(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "runs list: {}", String::from_utf8_lossy(&output.stderr));
    let runs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let run = runs.as_array().unwrap().first()?;
    Some((run["run_id"].as_str().unwrap().to_owned(), run["state"].as_str().unwrap().to_owned()))
}

/// Waits a random part of the batch's usual duration, then kills. True when it was still alive.
#[expect(clippy::disallowed_methods, reason = "the random moment of the kill is what is tested")]
fn kill_at_random(child: &mut Child, random: &mut StdRng, usual: Duration) -> bool {
    std::thread::sleep(usual.mul_f64(random.random_range(0.0..1.1)));
    let alive = child.try_wait().unwrap().is_none();
    if alive {
        child.kill().unwrap();
    }
    alive
}

/// Waits for the end; what it said on standard error when it was no success.
fn end_well(mut child: Child, what: &str) {
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{what} ended with {status}:\n{text}");
}

fn survive(target: &Target) {
    let seed = number_from("BACKSTOP_SEED").unwrap_or_else(|| rand::rng().random());
    let wanted = number_from("BACKSTOP_KILLS").unwrap_or(12);
    println!("{}: BACKSTOP_SEED={seed} BACKSTOP_KILLS={wanted}", target.name);
    let mut random = StdRng::seed_from_u64(seed);
    let folder = TempDir::new().unwrap();
    let project = folder.path();
    write_project(project, &target.uri);
    (target.ask)("CREATE TABLE effect (round integer NOT NULL, segment integer NOT NULL)");
    (target.ask)("CREATE TABLE total (n integer NOT NULL)");
    (target.ask)("INSERT INTO total VALUES (0)");
    end_well(begin(project, 0), "the batch left alone, which makes the marker table,");
    let start = Instant::now();
    end_well(begin(project, 1), "the batch left alone");
    let usual = start.elapsed();
    let (mut killed, mut round, mut resumed) = (0, 1, 0);
    let mut last = newest(project).map(|(id, _)| id);
    while killed < wanted {
        round += 1;
        let mut child = begin(project, round);
        loop {
            if !kill_at_random(&mut child, &mut random, usual) {
                end_well(child, &format!("round {round}"));
                break;
            }
            child.wait().unwrap();
            killed += 1;
            child = match newest(project).filter(|(id, _)| Some(id) != last.as_ref()) {
                // Killed before the run existed: nothing of it may have had an effect.
                None => begin(project, round),
                Some((_, state)) if state == "success" => break,
                Some((id, _)) => {
                    resumed += 1;
                    backstop(project, &["run", "--resume", &id]).spawn().unwrap()
                }
            };
        }
        last = newest(project).map(|(id, _)| id);
        let doubled = (target.ask)(&format!(
            "SELECT COUNT(*) FROM (SELECT segment FROM effect WHERE round = {round} GROUP BY segment HAVING COUNT(*) <> 1) w"
        ));
        let distinct = (target.ask)(&format!("SELECT COUNT(DISTINCT segment) FROM effect WHERE round = {round}"));
        assert_eq!((doubled.as_str(), distinct.as_str()), ("0", "20"), "round {round} after {killed} kills");
    }
    let rows = (target.ask)("SELECT COUNT(*) FROM effect");
    let total = (target.ask)("SELECT n FROM total");
    let expected = ((round + 1) * SEGMENTS).to_string();
    assert_eq!((rows.as_str(), total.as_str()), (expected.as_str(), expected.as_str()));
    println!("{}: {killed} kills, {resumed} resumes, {} batches, {total} segments applied once each", target.name, round + 1);
}

#[test]
fn sqlite_applies_every_segment_once() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("target.db");
    let uri = format!("sqlite:///{}", file.display());
    let ask = move |sql: &str| {
        let connection = rusqlite::Connection::open(&file).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        if statement.column_count() == 0 {
            statement.execute([]).unwrap();
            return String::new();
        }
        statement.query_row([], |row| row.get::<_, i64>(0)).unwrap().to_string()
    };
    survive(&Target { name: "SQLite", uri, ask: Box::new(ask) });
}

#[test]
fn postgresql_applies_every_segment_once() {
    let Some(server) = Postgres::shared() else { return };
    let database = server.create_database();
    let uri = format!("postgresql://postgres@127.0.0.1:{}/{database}", server.port());
    let ask = move |sql: &str| server.sql(&database, sql).unwrap().trim().to_owned();
    survive(&Target { name: "PostgreSQL", uri, ask: Box::new(ask) });
}

#[test]
fn mariadb_applies_every_segment_once() {
    let Some(server) = MariaDb::shared() else { return };
    let database = server.create_database();
    let uri = format!("mysql://root@127.0.0.1:{}/{database}", server.port());
    let ask = move |sql: &str| server.sql(&database, sql).unwrap().trim().to_owned();
    survive(&Target { name: "MariaDB", uri, ask: Box::new(ask) });
}
