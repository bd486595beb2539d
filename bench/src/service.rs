//! The service: what it costs while nothing happens, how soon it begins what is asked for, how much it gets done, how fast it answers.

use crate::batches::Bench;
use crate::measure::{Row, ms, spread, time};
use crate::projects;
use crate::up::Up;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

const DAGS: usize = 1000;
const TASKS: usize = 20;
/// How long an idle service is watched.
const WATCHED: Duration = Duration::from_secs(30);
const TRIGGERS: usize = 500;
const RUNS: usize = 10_000;
const BURSTS: usize = 5;
/// Of pgbench each time: two seconds or so.
const THEIR_TRANSACTIONS: usize = 50_000;
/// Connections that ask for runs.
const ASKERS: usize = 256;
/// Runs that a request asks for, where it asks for many.
const A_REQUEST: usize = 250;
/// pgbench's clients, and our tasks at once.
const CLIENTS: usize = 32;

/// 1,000 DAGs of 20 tasks on schedules: reading them, and what they cost while nothing is due.
#[expect(clippy::disallowed_methods, reason = "a benchmark waits by the clock")]
pub(crate) fn idle(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let project = bench.folder.path().join("many");
    for n in 0..DAGS {
        let mut text = format!("schedule: \"{} {} * * *\"\ncatchup: false\n", n % 60, n % 24);
        text = format!(
            "{}{text}",
            projects::chain(&format!("dag_{n}"), TASKS, |task| format!("INSERT INTO effect VALUES ({task})"))
        );
        projects::write(&project, &bench.uri(), &format!("dag_{n}"), &text)?;
    }
    let mut check = Command::new(bench.binary);
    check.args(["check", "--project"]).arg(&project);
    let checked = (0..5).map(|_| time(&mut check)).collect::<Result<Vec<_>>>()?;
    let up = Up::start(bench.binary, &project, &[])?;
    let mut client = up.client()?;
    ensure!(
        client.get("/api/v1/dags?limit=1000")?["items"].as_array().is_some_and(|dags| dags.len() == DAGS),
        "not every DAG was loaded"
    );
    std::thread::sleep(Duration::from_secs(3));
    let before = up.cpu()?;
    std::thread::sleep(WATCHED);
    let share = (up.cpu()? - before).as_secs_f64() / WATCHED.as_secs_f64();
    Ok(vec![
        Row {
            what: format!("reading and validating {DAGS} DAGs of {TASKS} tasks (`backstop check`, whole process)"),
            figure: spread(checked).to_string(),
            against: String::new(),
            ratio: String::new(),
            bar: "< 1 s",
        },
        Row {
            what: format!("service with {DAGS} scheduled DAGs of {TASKS} tasks, nothing due: CPU over {} s", WATCHED.as_secs()),
            figure: format!("{:.2} % of a core", share * 100.0),
            against: String::new(),
            ratio: String::new(),
            bar: "< 1 %",
        },
        Row {
            what: "the same: resident memory".into(),
            figure: format!("{:.1} MiB", up.memory()?),
            against: String::new(),
            ratio: String::new(),
            bar: "< 150 MB",
        },
    ])
}

/// From asking for a run to its first statement, by the server's clock (the same machine's).
pub(crate) fn trigger(bench: &Bench<'_>) -> Result<Vec<Row>> {
    bench.server.sql(&bench.database, "CREATE TABLE IF NOT EXISTS triggered (n integer NOT NULL, at timestamptz NOT NULL)")?;
    let dag = "dag: triggered\nconnection: db\nparams: {n: {type: integer, default: 0}}\ntasks:\n  \
               one: {sql: \"INSERT INTO triggered VALUES (:n, clock_timestamp())\", parameters: {n: \"{{ params.n }}\"}}\n";
    let project = bench.project("triggered", dag)?;
    let up = Up::start(bench.binary, &project, &[])?;
    let mut client = up.client()?;
    let mut asked = Vec::new();
    for n in 0..=TRIGGERS {
        asked.push(now()?);
        client.post("/api/v1/dags/triggered/runs", &json!({ "params": { "n": n } }))?;
        up.wait_until_done()?;
    }
    let sql = "SELECT string_agg(extract(epoch FROM at)::text, ' ' ORDER BY n) FROM triggered";
    let told = bench.server.sql(&bench.database, sql)?;
    let began = told.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    ensure!(began.len() == asked.len(), "{} of {} runs began", began.len(), asked.len());
    // The first opens the connection.
    let mut times: Vec<Duration> = asked
        .iter()
        .zip(&began)
        .skip(1)
        .map(|(asked, began)| Duration::from_secs_f64((began - asked.as_secs_f64()).max(0.0)))
        .collect();
    times.sort();
    Ok(vec![Row {
        what: format!("from the request over HTTP to the first statement on PostgreSQL, {TRIGGERS} runs one after the other"),
        figure: format!("p50 {}, p99 {}", ms(times[times.len() / 2]), ms(times[times.len() * 99 / 100])),
        against: String::new(),
        ratio: String::new(),
        bar: "p50 < 10 ms, p99 < 50 ms",
    }])
}

/// 10,000 runs of one INSERT, asked for at once; then how fast the list of runs is answered.
pub(crate) fn burst(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let dag = format!(
        "dag: burst\nconnection: db\nmax_active_runs: {RUNS}\ntasks:\n  one: {{sql: \"INSERT INTO effect VALUES (1)\"}}\n"
    );
    let project = bench.project("burst", &dag)?;
    let file = bench.folder.path().join("burst.sql");
    std::fs::write(&file, "INSERT INTO effect VALUES (1);\n")?;
    let up = Up::start(bench.binary, &project, &[])?;
    up.client()?.post("/api/v1/dags/burst/runs", &json!({}))?;
    up.wait_until_done()?;
    // In turns: what else the machine does meets both.
    let mut theirs = vec![their_rate(bench, &file)?];
    let ways = [A_REQUEST, 1];
    let mut bursts = ways.map(|_| Vec::new());
    for _ in 0..BURSTS {
        for (each, bursts) in ways.into_iter().zip(&mut bursts) {
            bursts.push(one_burst(bench, &up, each)?);
            theirs.push(their_rate(bench, &file)?);
        }
    }
    theirs.sort_by(f64::total_cmp);
    let mut rows: Vec<Row> = ways.into_iter().zip(bursts).map(|(each, bursts)| of_bursts(each, bursts, &theirs)).collect();
    rows.extend(wrk(&up)?);
    Ok(rows)
}

fn of_bursts(each: usize, mut bursts: Vec<Burst>, theirs: &[f64]) -> Row {
    bursts.sort_by_key(|burst| burst.took);
    let Burst { took, asked, cpu } = &bursts[BURSTS / 2];
    let (ours, median) = (RUNS as f64 / took.as_secs_f64(), theirs[theirs.len() / 2]);
    Row {
        what: format!(
            "{RUNS} runs of one INSERT, {each} asked for by a request, over {ASKERS} connections, until all are done, median of {BURSTS}"
        ),
        figure: format!("{ours:.0} runs/s (all asked for after {}; {} of CPU a run)", ms(*asked), ms(cpu.div_f64(RUNS as f64))),
        against: format!(
            "pgbench -c {CLIENTS}, between them: median {median:.0}/s, {:.0} to {:.0}",
            theirs[0],
            theirs[theirs.len() - 1]
        ),
        ratio: format!("{:.1} % of its rate", 100.0 * ours / median),
        bar: "> 2,000/s, > 20 %",
    }
}

struct Burst {
    /// Until all were done.
    took: Duration,
    /// Until the last was asked for.
    asked: Duration,
    /// The service's.
    cpu: Duration,
}

/// With so many runs asked for by each request.
fn one_burst(bench: &Bench<'_>, up: &Up, each: usize) -> Result<Burst> {
    bench.server.sql(&bench.database, "TRUNCATE effect")?;
    let next = AtomicUsize::new(0);
    let before = up.cpu()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..ASKERS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = up.client()?;
                    while next.fetch_add(each, Ordering::Relaxed) < RUNS {
                        match each {
                            1 => client.post("/api/v1/dags/burst/runs", &json!({}))?,
                            _ => client.post("/api/v1/dags/burst/runs/batch", &json!({ "runs": vec![json!({}); each] }))?,
                        };
                    }
                    Ok(())
                })
            })
            .collect();
        askers.into_iter().try_for_each(|asker| asker.join().map_err(|_| anyhow::anyhow!("an asker panicked"))?)
    })?;
    let asked = start.elapsed();
    up.wait_until_done()?;
    let took = start.elapsed();
    let cpu = up.cpu()? - before;
    let effects: usize = bench.server.sql(&bench.database, "SELECT count(*) FROM effect")?.trim().parse()?;
    ensure!(effects == RUNS, "{effects} rows of {RUNS}");
    Ok(Burst { took, asked, cpu })
}

/// pgbench with the same INSERT: transactions a second.
fn their_rate(bench: &Bench<'_>, file: &Path) -> Result<f64> {
    let each = THEIR_TRANSACTIONS.div_ceil(CLIENTS);
    Ok((each * CLIENTS) as f64 / bench.pgbench(file, CLIENTS, each)?.as_secs_f64())
}

fn wrk(up: &Up) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for path in ["/api/v1/runs", "/api/v1/runs?limit=1"] {
        let url = format!("http://{}{path}", up.address);
        let output = match Command::new("wrk").args(["-t2", "-c50", "-d10", "--latency", &url]).output() {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(error) => return Err(error).context("run wrk"),
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(!text.contains("Non-2xx"), "{text}");
        let find = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim).map(str::to_owned);
        rows.push(Row {
            what: format!("`wrk -t2 -c50` on {path}, {RUNS} runs in the store"),
            figure: format!("{} requests/s", find("Requests/sec:").context("read wrk's answer")?),
            against: String::new(),
            ratio: format!("p50 {}, p99 {}", find("50%").unwrap_or_default(), find("99%").unwrap_or_default()),
            bar: if path.contains('?') { "" } else { "> 5,000/s" },
        });
    }
    Ok(rows)
}

#[expect(clippy::disallowed_methods, reason = "compared with the server's clock on the same machine")]
fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}
