//! How fast a script is split: `cargo run --release -p backstop-connect --example splitter_throughput [-- MEGABYTES]`.
//!
//! One generated script a dialect, of the statements that big scripts are made of; one line a dialect, the best of three.
#![allow(clippy::print_stdout, reason = "an example tells its result on standard output")]

use backstop_connect::script::{Dialect, plan, split};
use std::fmt::Write as _;
use std::time::Instant;

fn main() {
    let megabytes: usize = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(100);
    let dialects = [Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::SqlServer, Dialect::Oracle, Dialect::Generic];
    for dialect in dialects {
        let script = script(dialect, megabytes * 1_000_000);
        let mut best = f64::INFINITY;
        let mut counted = 0;
        for _ in 0..3 {
            let start = Instant::now();
            let statements = split(dialect, &script).expect("the generated script is well formed");
            best = best.min(start.elapsed().as_secs_f64());
            counted = statements.len();
        }
        let statements = split(dialect, &script).expect("the generated script is well formed");
        let start = Instant::now();
        let segments = plan(dialect, &script, &statements, false).expect("the generated script has no transactions");
        let planned = start.elapsed().as_secs_f64() * 1e3;
        let rate = script.len() as f64 / 1e6 / best;
        println!(
            "{dialect:?}: {rate:.0} MB/s, {counted} statements in {best:.3} s; {} segments in {planned:.1} ms",
            segments.len()
        );
    }
}

/// INSERTs of one and of several rows, UPDATEs, DELETEs and a query now and then, with comments between.
fn script(dialect: Dialect, length: usize) -> String {
    let end = match dialect {
        Dialect::SqlServer => "\nGO\n",
        Dialect::PostgreSql | Dialect::MySql | Dialect::Sqlite | Dialect::Oracle | Dialect::Generic => ";\n",
    };
    let mut script = String::with_capacity(length + 1024);
    let mut number = 0_u64;
    while script.len() < length {
        number += 1;
        let written = match number % 8 {
            0 => write!(
                script,
                "-- batch {number}: the customer's lines\nDELETE FROM sales WHERE day < '2024-01-{:02}'",
                number % 28 + 1
            ),
            1 | 2 => write!(
                script,
                "UPDATE sales SET quantity = quantity - {}, note = 'it''s {number}' WHERE id = {number}",
                number % 9
            ),
            3 => write!(script, "SELECT region, sum(price * quantity) FROM sales WHERE id > {number} GROUP BY region"),
            4 => write!(
                script,
                "INSERT INTO sales (id, region, product, price, quantity) VALUES\n  ({number}, 'north', 'tea', 12.50, 3),\n  \
                 ({number}1, 'sud', 'café', 7.25, 1), /* late */\n  ({number}2, 'west', 'milk', 0.99, 12)"
            ),
            _ => write!(
                script,
                "INSERT INTO sales (id, region, product, price, quantity) VALUES ({number}, 'east', 'bread and butter', {}.75, {})",
                number % 50,
                number % 12
            ),
        };
        written.expect("writing to a String cannot fail");
        script.push_str(end);
    }
    script
}
