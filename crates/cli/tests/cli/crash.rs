//! kill -9 at random moments where a marker alone does not settle it: statements that commit by themselves, and callbacks. The seed is
//! printed; `BACKSTOP_KILLS` sets how many kills.

#![expect(clippy::print_stdout, reason = "a seed that is not printed cannot be tried again")]

use crate::project::{Outcome, Project};
use crate::server::Database;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Kills at random moments, counts them, and knows how long a round usually takes.
struct Killer {
    random: StdRng,
    usual: Duration,
    kills_left: u64,
    kills: u64,
}

impl Killer {
    /// Runs a round that is left alone, to learn how long one takes.
    fn after_a_quiet_round(what: &str, round: impl FnOnce() -> Outcome, code: i32) -> Self {
        let seed = number_from("BACKSTOP_SEED").unwrap_or_else(|| rand::rng().random());
        let kills_left = number_from("BACKSTOP_KILLS").unwrap_or(12);
        println!("{what}: BACKSTOP_SEED={seed} BACKSTOP_KILLS={kills_left}");
        let start = Instant::now();
        let outcome = round();
        assert_eq!(outcome.code, Some(code), "{what}, left alone: {}", outcome.stderr);
        Self { random: StdRng::seed_from_u64(seed), usual: start.elapsed(), kills_left, kills: 0 }
    }

    /// Runs the binary; `None` when it was killed before its end.
    #[expect(clippy::disallowed_methods, reason = "the random moment of the kill is what is tested")]
    fn run(&mut self, project: &Project, arguments: &[&str]) -> Option<(Option<i32>, String)> {
        let mut command = project.command(arguments);
        let mut child: Child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        if self.kills_left > 0 {
            std::thread::sleep(self.usual.mul_f64(self.random.random_range(0.0..1.1)));
            if child.try_wait().unwrap().is_none() {
                child.kill().unwrap();
                child.wait().unwrap();
                self.kills_left -= 1;
                self.kills += 1;
                return None;
            }
        }
        let output = child.wait_with_output().unwrap();
        Some((output.status.code(), String::from_utf8(output.stderr).unwrap()))
    }

    /// Begins a run and resumes it, killed again and again, until a process of it ends by itself: its run, exit code and words.
    fn begin(&mut self, project: &Project, round: u64, before: Option<&str>) -> (String, Option<i32>, String) {
        let parameter = format!("round={round}");
        loop {
            let ended = self.run(project, &["run", "d", "--new", "--param", &parameter]);
            // Killed before the run existed: nothing of it may have had an effect, and it is begun again.
            let Some((run, _)) = newest(project).filter(|(id, _)| Some(id.as_str()) != before) else { continue };
            let (code, told) = match ended {
                Some(ended) => ended,
                None => self.resume(project, &run),
            };
            return (run, code, told);
        }
    }

    /// Resumes a run whose process was killed, until one ends by itself.
    fn resume(&mut self, project: &Project, run: &str) -> (Option<i32>, String) {
        loop {
            match self.run(project, &["run", "--resume", run]) {
                // Killed when all was done, before it could say so.
                Some((Some(2), told)) if told.contains("there is nothing to resume") => {
                    let state = newest(project).unwrap().1;
                    return (Some(i32::from(state != "success")), told);
                }
                Some(ended) => return ended,
                None => {}
            }
        }
    }
}

/// The newest run: its id and state.
fn newest(project: &Project) -> Option<(String, String)> {
    let runs = project.json(&["runs", "list", "--json", "--limit", "1"]);
    let run = runs.as_array().unwrap().first()?;
    Some((run["run_id"].as_str().unwrap().to_owned(), run["state"].as_str().unwrap().to_owned()))
}

/// How often a person looks before it takes too long.
const LOOKS_MAX: u32 = 1000;

/// Alternates between a statement that commits by itself, and could be applied twice without an error, and one that does not.
const STEPS: i64 = 6;

fn ddl_project(database: &Database) -> Project {
    let step = |n| {
        format!(
            "      ALTER TABLE round_{{{{ params.round }}}} ADD INDEX (c{n});\n      INSERT INTO effect VALUES (:round, {n});\n"
        )
    };
    let steps: String = (0..STEPS).map(step).collect();
    let project = database.project("  unused: {empty: true}\n");
    let dag = format!(
        "dag: d\nconnection: db\nparams:\n  round: {{type: integer}}\ntasks:\n  load:\n    parameters: {{round: \"{{{{ params.round }}}}\"}}\n    \
         sql: |\n{steps}"
    );
    project.write("dags/d.yaml", &dag);
    project
}

#[test]
fn definitions_on_mariadb_are_applied_once_or_ask() {
    let Some(database) = Database::mariadb() else { return };
    let project = ddl_project(&database);
    database.sql(&project, "CREATE TABLE effect (round INTEGER, step INTEGER)");
    let make = |round: u64| {
        let columns: Vec<String> = (0..STEPS).map(|n| format!("c{n} INTEGER")).collect();
        database.sql(&project, &format!("CREATE TABLE round_{round} ({})", columns.join(", ")));
    };
    make(0);
    let mut killer =
        Killer::after_a_quiet_round("MariaDB DDL", || project.backstop(&["run", "d", "--new", "--param", "round=0"]), 0);
    let (mut round, mut asked) = (0, 0);
    while killer.kills_left > 0 {
        round += 1;
        make(round);
        let before = newest(&project).map(|(id, _)| id);
        let (run, mut code, mut told) = killer.begin(&project, round, before.as_deref());
        while code != Some(0) {
            assert_eq!(code, Some(3), "round {round}: {told}");
            asked += 1;
            let answer = look(&database, &project, round, &told);
            let resolved = format!("load={answer}");
            let decided = ["run", "--resume", &run, "--resolve", &resolved, "--why", "the index was looked for"];
            (code, told) = match killer.run(&project, &decided) {
                Some(ended) => ended,
                None => killer.resume(&project, &run),
            };
        }
        for (what, of) in
            [("indexes", index_counts(round)), ("effects", format!("SELECT step AS k FROM effect WHERE round = {round}"))]
        {
            let wrong = format!("SELECT COUNT(*) FROM (SELECT k FROM ({of}) a GROUP BY k HAVING COUNT(*) <> 1) b");
            assert_eq!(database.ask(&project, &wrong), 0, "{what} of round {round} after {} kills", killer.kills);
            let all = format!("SELECT COUNT(DISTINCT k) FROM ({of}) a");
            assert_eq!(database.ask(&project, &all), STEPS, "{what} of round {round} after {} kills", killer.kills);
        }
    }
    println!("MariaDB DDL: {} kills in {round} rounds, asked {asked} times", killer.kills);
}

fn index_counts(round: u64) -> String {
    format!(
        "SELECT column_name AS k FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 'round_{round}'"
    )
}

/// What a person does who is asked: reads which segment is in doubt, lets the server end what it is doing, looks for its effect, and
/// names the segment in the answer.
fn look(database: &Database, project: &Project, round: u64, told: &str) -> String {
    let clear = " was begun and is not known to have ended, and it has no transaction: ";
    let (before, after) = told.split_once(clear).unwrap_or_else(|| panic!("it does not say what is in doubt:\n{told}"));
    assert!(after.contains("commits ALTER TABLE by itself") && told.contains("--resolve load="), "{told}");
    let segment: u64 = before.rsplit_once("segment ").unwrap().1.parse().unwrap();
    assert_eq!(segment % 2, 1, "only what commits by itself can be in doubt:\n{told}");
    let altering = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'ALTER TABLE%'";
    assert!((0..LOOKS_MAX).any(|_| database.ask(project, altering) == 0), "the server does not end its ALTER TABLE");
    let step = (segment - 1) / 2;
    match database.ask(project, &format!("SELECT COUNT(*) FROM ({}) a WHERE k = 'c{step}'", index_counts(round))) {
        0 => format!("not-committed:{segment}"),
        1 => format!("committed:{segment}"),
        many => panic!("step {step} of round {round} was applied {many} times"),
    }
}

#[test]
fn callbacks_in_sql_are_applied_once() {
    for database in Database::all() {
        let project = database.project("  unused: {empty: true}\n");
        let tell = |what: &str| format!("{{sql: \"INSERT INTO told VALUES ({{{{ params.round }}}}, '{what}')\"}}");
        let dag = format!(
            "dag: d\nconnection: db\nparams:\n  round: {{type: integer}}\ntasks:\n  good: {{sql: SELECT 1, on_success: [{}, {}]}}\n  \
             bad: {{sql: SELECT * FROM missing, on_failure: [{}, {}]}}\n",
            tell("success 1"),
            tell("success 2"),
            tell("failure 1"),
            tell("failure 2"),
        );
        project.write("dags/d.yaml", &dag);
        database.sql(&project, "CREATE TABLE told (round INTEGER, what VARCHAR(20))");
        let what = format!("callbacks on {}", database.name());
        let mut killer = Killer::after_a_quiet_round(&what, || project.backstop(&["run", "d", "--new", "--param", "round=0"]), 1);
        let mut round = 0;
        while killer.kills_left > 0 {
            round += 1;
            let before = newest(&project).map(|(id, _)| id);
            let (_, code, told) = killer.begin(&project, round, before.as_deref());
            assert_eq!(code, Some(1), "{what}, round {round}: {told}");
            let of_round = format!("SELECT COUNT(*) FROM told WHERE round = {round}");
            let different = format!("SELECT COUNT(DISTINCT what) FROM told WHERE round = {round}");
            let found = (database.ask(&project, &of_round), database.ask(&project, &different));
            assert_eq!(found, (4, 4), "{what}, round {round} after {} kills", killer.kills);
        }
        println!("{what}: {} kills in {round} rounds", killer.kills);
    }
}
