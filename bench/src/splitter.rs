//! The script splitter on a 100-MB script, against reading the same bytes once.

use crate::measure::{Row, spread};
use anyhow::{Context as _, Result};
use backstop_connect::Dialect;
use backstop_connect::script::split;
use std::fmt::Write as _;
use std::time::Instant;

const BYTES: usize = 100 * 1024 * 1024;

fn script() -> String {
    let mut text = String::with_capacity(BYTES + 1000);
    let mut n = 0_u64;
    while text.len() < BYTES {
        n += 1;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "-- order {n}\nINSERT INTO orders (id, customer, note, amount) VALUES ({n}, 'customer ''{n}''', 'it''s; fine', {n}.50);\n\
             UPDATE stock SET reserved = reserved + 1 /* one; more */ WHERE product = {n} AND \"place;\" = 'A';"
        );
    }
    text
}

/// One row a dialect.
pub(crate) fn run() -> Result<Vec<Row>> {
    let text = script();
    let start = Instant::now();
    let lines = text.bytes().filter(|byte| *byte == b'\n').count();
    let scanned = start.elapsed();
    let mut rows = Vec::new();
    for (name, dialect) in [("PostgreSQL", Dialect::PostgreSql), ("MariaDB", Dialect::MySql), ("SQLite", Dialect::Sqlite)] {
        let mut times = Vec::new();
        let mut statements = 0;
        for _ in 0..5 {
            let start = Instant::now();
            statements = split(dialect, &text).context("split the script")?.len();
            times.push(start.elapsed());
        }
        let took = spread(times).median;
        rows.push(Row {
            what: format!("splitter, {name}, 100 MB, {statements} statements, {lines} lines"),
            figure: format!("{:.0} MB/s", text.len() as f64 / 1e6 / took.as_secs_f64()),
            against: format!("counting its lines byte by byte: {:.0} MB/s", text.len() as f64 / 1e6 / scanned.as_secs_f64()),
            ratio: format!("{:.2}x the time", took.as_secs_f64() / scanned.as_secs_f64()),
            bar: "> 200 MB/s",
        });
    }
    Ok(rows)
}
