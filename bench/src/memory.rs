//! Start-up and memory of the binary.

use crate::batches::Bench;
use crate::measure::{Row, peak, spread, time};
use crate::projects;
use anyhow::{Context as _, Result};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// From the start of the process to the first statement, by the server's clock (the same machine's).
pub(crate) fn start_up(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let version = (0..11).map(|_| time(Command::new(bench.binary).arg("--version"))).collect::<Result<Vec<_>>>()?;
    bench.server.sql(&bench.database, "CREATE TABLE IF NOT EXISTS began (at timestamptz NOT NULL)")?;
    let dag = projects::chain("first", 1, |_| "INSERT INTO began VALUES (clock_timestamp())".into());
    let project = bench.project("first", &dag)?;
    let mut times = Vec::new();
    for round in 0..12 {
        let start = now()?;
        time(&mut bench.run(&project, "first"))?;
        let at = bench.server.sql(&bench.database, "SELECT extract(epoch FROM max(at)) FROM began")?;
        if round > 0 {
            times.push(Duration::from_secs_f64((at.trim().parse::<f64>()? - start.as_secs_f64()).max(0.0)));
        }
    }
    Ok(vec![
        Row {
            what: "start of the binary (--version)".into(),
            figure: spread(version).to_string(),
            against: String::new(),
            ratio: String::new(),
            bar: "",
        },
        Row {
            what: "start of the binary to its first statement on PostgreSQL".into(),
            figure: spread(times).to_string(),
            against: String::new(),
            ratio: String::new(),
            bar: "< 50 ms",
        },
    ])
}

#[expect(clippy::disallowed_methods, reason = "compared with the server's clock on the same machine")]
fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

/// Resident memory while it waits, and the peak while it streams a gigabyte.
pub(crate) fn idle_and_streamed(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let waits = "dag: waits\nconnection: db\ntasks:\n  before: {sql: SELECT 1}\n  wait:\n    sensor: {time: \"2100-01-01T00:00:00Z\"}\n    after: [before]\n";
    let project = bench.project("waits", waits)?;
    let mut child = bench.run(&project, "waits").arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut events = BufReader::new(child.stdout.take().context("read the events")?).lines();
    events
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("attempt_deferred")))
        .context("the sensor never waited")??;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()))?;
    let resident: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("read the resident memory")?
        .parse()?;
    child.kill()?;
    child.wait()?;
    let gigabyte = projects::chain("stream", 1, |_| "SELECT repeat('x', 1000) AS line FROM generate_series(1, 1073742)".into());
    let project = bench.project("stream", &gigabyte)?;
    let streamed = peak(&bench.run(&project, "stream"))?;
    Ok(vec![
        Row {
            what: "resident memory of a run that waits".into(),
            figure: format!("{:.1} MiB", resident / 1024.0),
            against: String::new(),
            ratio: String::new(),
            bar: "< 30 MB",
        },
        Row {
            what: "peak memory of a 1-GB result streamed to nothing".into(),
            figure: format!("{streamed:.1} MiB"),
            against: "1,024 MiB of rows".into(),
            ratio: format!("{:.1} %", streamed / 10.24),
            bar: "< 80 MB",
        },
    ])
}
