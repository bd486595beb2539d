//! Whole batches: chains and fan-outs against psql and pgbench on the same server.

use crate::measure::{Row, Spread, median_ratio, ms, pairs, spread, time};
use crate::projects;
use anyhow::{Context as _, Result, ensure};
use backstop_testkit::servers::Postgres;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const ROUNDS: usize = 11;
const CHAIN: usize = 40;
const FAN_OUT: usize = 1000;
const CLIENTS: usize = 16;

/// A server, a database, and a folder for projects.
pub(crate) struct Bench<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) server: &'a Postgres,
    pub(crate) database: String,
    pub(crate) folder: TempDir,
}

/// What of a run is timed.
#[derive(Clone, Copy)]
enum Part {
    /// From the run's start to its success, by its own events.
    Run,
    /// The whole process.
    Process,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(binary: &'a Path, server: &'a Postgres) -> Result<Self> {
        let database = server.create_database();
        server.sql(&database, "CREATE TABLE effect (n integer NOT NULL)")?;
        Ok(Self { binary, server, database, folder: TempDir::new()? })
    }

    /// For `backstop.yaml`.
    pub(crate) fn uri(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{}", self.server.port(), self.database)
    }

    /// Writes a project and returns its folder.
    pub(crate) fn project(&self, dag: &str, text: &str) -> Result<PathBuf> {
        let folder = self.folder.path().join(dag);
        projects::write(&folder, &self.uri(), dag, text)?;
        Ok(folder)
    }

    /// `backstop run DAG`.
    pub(crate) fn run(&self, project: &Path, dag: &str) -> Command {
        let mut command = Command::new(self.binary);
        command.args(["run", dag, "--new", "--project"]).arg(project).env_remove("CI");
        command
    }

    fn psql(&self, file: &Path) -> Result<Command> {
        let mut command = Command::new(Postgres::program("psql").context("find psql")?);
        command
            .args(["-X", "-q", "-h", "127.0.0.1", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-p"])
            .arg(self.server.port().to_string())
            .arg("-d")
            .arg(&self.database)
            .arg("-o")
            .arg("/dev/null")
            .arg("-f")
            .arg(file);
        Ok(command)
    }

    fn clear(&self) -> Result<()> {
        self.server.sql(&self.database, "TRUNCATE effect")?;
        Ok(())
    }

    fn effects(&self) -> Result<usize> {
        Ok(self.server.sql(&self.database, "SELECT count(*) FROM effect")?.trim().parse()?)
    }

    /// A chain of 40 statements, each committed, against psql with the same over one connection.
    pub(crate) fn chains(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let kinds: [(&str, &str, bool); 2] =
            [("chain_insert", "INSERT INTO effect VALUES", true), ("chain_select", "SELECT 1", false)];
        for (dag, _, inserts) in kinds {
            let sql = |n: usize| if inserts { format!("INSERT INTO effect VALUES ({n})") } else { "SELECT 1".into() };
            let project = self.project(dag, &projects::chain(dag, CHAIN, sql))?;
            let file = self.folder.path().join(format!("{dag}.sql"));
            let mut script = String::new();
            (0..CHAIN).for_each(|n| {
                // Writing to a String cannot fail.
                let _ = writeln!(script, "{};", sql(n));
            });
            std::fs::write(&file, script)?;
            let timed = pairs(ROUNDS, || self.clear(), || time(&mut self.run(&project, dag)), || time(&mut self.psql(&file)?))?;
            ensure!(!inserts || self.effects()? == CHAIN, "the chain did not insert every row once");
            rows.push(self.compare(
                &format!("chain of {CHAIN} tasks, {}, whole process", if inserts { "one INSERT each" } else { "SELECT 1" }),
                "psql, same statements",
                &timed,
                if inserts { "< 100 ms, < 3x" } else { "" },
            ));
            let one = self.folder.path().join(format!("{dag}_one.sql"));
            std::fs::write(&one, format!("{};\n", sql(0)))?;
            let timed = pairs(
                ROUNDS,
                || self.clear(),
                || time(&mut self.run(&project, dag)),
                || time(&mut self.pgbench_command(&one, 1, CHAIN)?),
            )?;
            rows.push(self.compare("the same", &format!("pgbench -c 1 -t {CHAIN}, whole process"), &timed, ""));
        }
        Ok(rows)
    }

    /// Five tasks of one transaction, against psql with the same statements between BEGIN and COMMIT: once as small as they can be, so that
    /// what is measured is the two processes, and once with something to do.
    pub(crate) fn transactions(&self) -> Result<Vec<Row>> {
        const TASKS: usize = 5;
        let mut rows = Vec::new();
        let kinds: [(&str, usize, &str, &'static str); 2] =
            [("transaction_small", 1, "one row each", ""), ("transaction", 100_000, "100,000 rows each", "< 1.3x")];
        for (dag, each, told, bar) in kinds {
            let sql = format!("INSERT INTO effect SELECT n FROM generate_series(1, {each}) AS n");
            let project = self.project(dag, &projects::transaction(dag, TASKS, &sql))?;
            let file = self.folder.path().join(format!("{dag}.sql"));
            std::fs::write(&file, format!("BEGIN;\n{}COMMIT;\n", format!("{sql};\n").repeat(TASKS)))?;
            for part in [Part::Process, Part::Run] {
                let timed = pairs(
                    ROUNDS,
                    || self.clear(),
                    || self.timed(&project, dag, part),
                    || {
                        self.clear()?;
                        time(&mut self.psql(&file)?)
                    },
                )?;
                let which = match part {
                    Part::Run => "from RunStarted to RunSucceeded",
                    Part::Process => "whole process",
                };
                let what = format!("transaction of {TASKS} tasks, {told}, {which}");
                rows.push(self.compare(&what, "psql, same statements, whole process", &timed, bar));
            }
            self.clear()?;
            self.timed(&project, dag, Part::Process)?;
            ensure!(self.effects()? == TASKS * each, "the transaction did not insert every row once");
        }
        Ok(rows)
    }

    fn compare(&self, what: &str, against: &str, timed: &[(Duration, Duration)], bar: &'static str) -> Row {
        let ours: Spread = spread(timed.iter().map(|(ours, _)| *ours).collect());
        let theirs: Spread = spread(timed.iter().map(|(_, theirs)| *theirs).collect());
        Row {
            what: what.into(),
            figure: ours.to_string(),
            against: format!("{against}: {theirs}"),
            ratio: format!("{:.2}x the time", median_ratio(timed)),
            bar,
        }
    }

    /// 1,000 tasks, 16 at once, against pgbench with 16 clients.
    pub(crate) fn fan_outs(&self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (dag, statement, bar) in
            [("fan_select", "SELECT 1", ">= 15 %"), ("fan_insert", "INSERT INTO effect VALUES (1)", ">= 30 %, aim 40 %")]
        {
            let project = self.project(dag, &projects::fan_out(dag, FAN_OUT, |_| statement.into()))?;
            let file = self.folder.path().join(format!("{dag}.sql"));
            std::fs::write(&file, format!("{statement};\n"))?;
            let each = FAN_OUT / CLIENTS * 8;
            let total = each * CLIENTS;
            let rate = |time: Duration| FAN_OUT as f64 / time.as_secs_f64();
            // pgbench tells the rate while it is connected and warm, and runs eight times as many. Ours is told twice: from the start of the
            // run to its success, connecting included, which is what a service does with it; and with the process around it.
            for (part, bar) in [(Part::Run, bar), (Part::Process, "")] {
                let timed = pairs(
                    ROUNDS,
                    || self.clear(),
                    || self.timed(&project, dag, part),
                    || Ok(self.pgbench(&file, CLIENTS, each)?.div_f64(total as f64 / FAN_OUT as f64)),
                )?;
                let ours = spread(timed.iter().map(|(ours, _)| *ours).collect()).median;
                let theirs = spread(timed.iter().map(|(_, theirs)| *theirs).collect()).median;
                let which = match part {
                    Part::Run => "from RunStarted to RunSucceeded",
                    Part::Process => "whole process",
                };
                rows.push(Row {
                    what: format!("fan-out of {FAN_OUT} tasks, {statement}, {CLIENTS} at once, {which}"),
                    figure: format!("{:.0} tasks/s ({})", rate(ours), ms(ours)),
                    against: format!("pgbench -c {CLIENTS}, connected and warm: {:.0}/s", rate(theirs)),
                    ratio: format!("{:.0} % of its rate", 100.0 / median_ratio(&timed)),
                    bar,
                });
            }
            // Like for like: the same number of statements, connecting included, as a whole process.
            let same = FAN_OUT.div_ceil(CLIENTS);
            let timed = pairs(
                ROUNDS,
                || self.clear(),
                || time(&mut self.run(&project, dag)),
                || time(&mut self.pgbench_command(&file, CLIENTS, same)?),
            )?;
            rows.push(self.compare(
                &format!("the same, {statement}"),
                &format!("pgbench -c {CLIENTS} -t {same}, whole process"),
                &timed,
                "",
            ));
            let script = self.folder.path().join(format!("{dag}_all.sql"));
            std::fs::write(&script, format!("{statement};\n").repeat(FAN_OUT))?;
            let timed = pairs(ROUNDS, || self.clear(), || time(&mut self.run(&project, dag)), || time(&mut self.psql(&script)?))?;
            rows.push(self.compare(&format!("the same, {statement}"), "psql, same statements over one connection", &timed, ""));
            self.clear()?;
            self.timed(&project, dag, Part::Process)?;
            let wanted = if statement.starts_with("INSERT") { FAN_OUT } else { 0 };
            ensure!(self.effects()? == wanted, "the fan-out did not insert every row once");
        }
        Ok(rows)
    }

    /// How long a run takes.
    fn timed(&self, project: &Path, dag: &str, part: Part) -> Result<Duration> {
        match part {
            Part::Process => time(&mut self.run(project, dag)),
            Part::Run => {
                let output = self.run(project, dag).arg("--json").output().context("run a DAG")?;
                ensure!(output.status.success(), "the run failed: {}", String::from_utf8_lossy(&output.stderr));
                let text = String::from_utf8(output.stdout)?;
                let at = |kind: &str| -> Result<Timestamp> {
                    let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
                    let event = lines.rfind(|event| event["type"] == kind).with_context(|| format!("find {kind}"))?;
                    Ok(event["at"].as_str().context("read a time")?.parse()?)
                };
                Ok(Duration::try_from(at("run_succeeded")?.duration_since(at("run_started")?))?)
            }
        }
    }

    /// The time pgbench itself tells for its transactions, connections excluded.
    pub(crate) fn pgbench(&self, file: &Path, clients: usize, each: usize) -> Result<Duration> {
        let output = self.pgbench_command(file, clients, each)?.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rate: f64 = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = "))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("read pgbench's answer: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
        Ok(Duration::from_secs_f64((each * clients) as f64 / rate))
    }

    fn pgbench_command(&self, file: &Path, clients: usize, each: usize) -> Result<Command> {
        let mut command = Command::new(Postgres::program("pgbench").context("find pgbench")?);
        command
            .args(["-n", "-h", "127.0.0.1", "-U", "postgres", "-j", &clients.min(2).to_string(), "-c", &clients.to_string()])
            .args(["-t", &each.to_string(), "-p", &self.server.port().to_string(), "-f"])
            .arg(file)
            .arg(&self.database);
        Ok(command)
    }

    /// 100,000 empty tasks, durable.
    pub(crate) fn empty_tasks(&self) -> Result<Vec<Row>> {
        const TASKS: usize = 100_000;
        let project = self.project("empty", &projects::empty("empty", TASKS))?;
        let times = (0..3).map(|_| time(&mut self.run(&project, "empty"))).collect::<Result<Vec<_>>>()?;
        let took = spread(times);
        Ok(vec![Row {
            what: format!("DAG of {TASKS} empty tasks, from YAML to the last fsync, whole process"),
            figure: took.to_string(),
            against: String::new(),
            ratio: format!("{:.0} tasks/s", TASKS as f64 / took.median.as_secs_f64()),
            bar: "< 5 s",
        }])
    }
}
