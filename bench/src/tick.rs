//! Many DAGs that are due at one moment: how late the last of them begins.

use crate::batches::Bench;
use crate::measure::{Row, ms};
use crate::projects;
use crate::up::Up;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

const DAGS: usize = 1000;
/// Ticks that are measured; the first finds no version kept, no connection open and no statement prepared.
const TICKS: usize = 3;
/// How long the ticks are waited for.
const TICKS_IN: Duration = Duration::from_secs(60 * (TICKS as u64 + 1));

/// 1,000 DAGs of one INSERT on `* * * * *`: from the tick to the first statement of each, by the server's clock (the same machine's).
#[expect(clippy::disallowed_methods, reason = "a benchmark waits by the clock")]
pub(crate) fn one_tick(bench: &Bench<'_>) -> Result<Vec<Row>> {
    bench.server.sql(&bench.database, "CREATE TABLE ticked (tick timestamptz NOT NULL, at timestamptz NOT NULL)")?;
    let project = bench.folder.path().join("tick");
    for n in 0..DAGS {
        let dag = format!("tick_{n:04}");
        let text = format!(
            "dag: {dag}\nschedule: \"* * * * *\"\ncatchup: false\nconnection: db\ntasks:\n  \
             one: {{sql: \"INSERT INTO ticked VALUES (:tick, clock_timestamp())\", parameters: {{tick: \"{{{{ data_interval_end }}}}\"}}}}\n"
        );
        projects::write(&project, &bench.uri(), &dag, &text)?;
    }
    let up = Up::start(bench.binary, &project, &[])?;
    let full = format!("SELECT count(*) FROM (SELECT tick FROM ticked GROUP BY tick HAVING count(*) = {DAGS}) AS whole");
    let until = Instant::now() + TICKS_IN;
    while bench.server.sql(&bench.database, &full)?.trim().parse::<usize>()? < TICKS {
        ensure!(Instant::now() < until, "the DAGs did not all run at {TICKS} ticks");
        std::thread::sleep(Duration::from_millis(500));
    }
    drop(up);
    let rank = |share: f64| format!("percentile_disc({share}) WITHIN GROUP (ORDER BY extract(epoch FROM at - tick))");
    let sql = format!(
        "SELECT {} || ' ' || {} || ' ' || max(extract(epoch FROM at - tick)) FROM ticked WHERE tick IN \
         (SELECT tick FROM ticked GROUP BY tick HAVING count(*) = {DAGS}) GROUP BY tick ORDER BY tick",
        rank(0.5),
        rank(0.99)
    );
    let told = bench.server.sql(&bench.database, &sql)?;
    let row = |(place, line): (usize, &str)| {
        let late: Vec<Duration> =
            line.split_whitespace().filter_map(|text| text.parse().ok()).map(Duration::from_secs_f64).collect();
        let [p50, p99, last] = late.as_slice() else { anyhow::bail!("`{line}` is no lag") };
        Ok(Row {
            what: format!("{DAGS} DAGs of one INSERT due at one moment, from the tick to the statement; tick {}", place + 1),
            figure: format!("p50 {}, p99 {}, last {}", ms(*p50), ms(*p99), ms(*last)),
            against: String::new(),
            ratio: String::new(),
            bar: "",
        })
    };
    told.lines().filter(|line| !line.trim().is_empty()).take(TICKS).enumerate().map(row).collect()
}
