//! Measures units on a PostgreSQL server: microseconds for a marked one-row INSERT and for a read-only `SELECT 1`, with and without a
//! reset after each, and the peak memory after a result of one gigabyte was streamed to nothing.
//!
//! `cargo run --release -p backstop-connect --example round_trips -- HOST PORT USER DATABASE [COUNT]`

use backstop_connect::session::{Call, Ignore, Wrap};
use backstop_connect::{Config, MarkerKey, MarkerTable, Unit, connector};
use std::time::Instant;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "a measuring program prints what it measured")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, database, count @ ..] = arguments.as_slice() else {
        return Err("usage: round_trips HOST PORT USER DATABASE [COUNT]".into());
    };
    let count: u32 = count.first().map_or(Ok(2000), |count| count.parse())?;
    let config = Config {
        id: "bench".into(),
        conn_type: "postgres".into(),
        host: Some(host.clone()),
        port: Some(port.parse()?),
        login: Some(user.clone()),
        database: Some(database.clone()),
        ..Config::default()
    };
    let mut session = connector(&config)?.open().await?;
    let call = |sql| Call { sql, parameters: &[], copy_data: None };
    session.execute(&call("CREATE TABLE IF NOT EXISTS measured (id bigserial PRIMARY KEY, v int)"), 0, &mut Ignore).await?;
    let run = format!("measure-{}", std::process::id());
    let insert = "INSERT INTO measured (v) VALUES (1)";
    let measured = [
        ("marked INSERT", insert, true, false),
        ("marked INSERT, reset", insert, true, true),
        ("read-only SELECT 1", "SELECT 1", false, false),
        ("read-only SELECT 1, reset", "SELECT 1", false, true),
    ];
    for (name, sql, is_marked, resets) in measured {
        let calls = [call(sql)];
        let start = Instant::now();
        for number in 0..count {
            let wrap = if is_marked {
                let key = MarkerKey {
                    run: run.clone(),
                    task: format!("t{number} {name}"),
                    map_index: -1,
                    segment: 0,
                    kind: "forward".into(),
                    try_number: 1,
                };
                Wrap::Marked { table: MarkerTable::default(), key, digest: "0".repeat(64), check_first: false }
            } else {
                Wrap::ReadOnly
            };
            session.run_unit(&Unit { calls: &calls, begin: None, wrap, keeps_result: false }, &mut Ignore).await?;
            if resets {
                session.reset().await?;
            }
        }
        println!("{name}: {} us", start.elapsed().as_micros() / u128::from(count));
    }
    let start = Instant::now();
    session.execute(&call("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"), 0, &mut Ignore).await?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("1 GB streamed in {} ms; {peak}", start.elapsed().as_millis());
    Ok(())
}
