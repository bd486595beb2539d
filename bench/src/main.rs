//! `make bench`: measures the `backstop` binary against psql and pgbench on one private PostgreSQL, and parts of it against the machine,
//! in one run, as ratios. Prints Markdown. Asserts nothing: whether a bar is met is for people to read.

mod batches;
mod core_alone;
mod http;
mod lists;
mod lists_over_http;
mod measure;
mod memory;
mod projects;
mod service;
mod splitter;
mod tick;
mod up;

use anyhow::{Context as _, Result};
use backstop_testkit::servers::Postgres;
use measure::Row;
use std::path::PathBuf;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().context("usage: backstop-bench BINARY [PART...]")?;
    if first == measure::PEAK_OF {
        return measure::peak_of(arguments.collect());
    }
    let binary = PathBuf::from(first).canonicalize().context("find the backstop binary")?;
    let parts: Vec<String> = arguments.collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|name| name == part);
    let mut rows: Vec<Row> = Vec::new();
    if wanted("core") {
        rows.extend(core_alone::run());
    }
    if wanted("splitter") {
        rows.extend(splitter::run()?);
    }
    if wanted("lists") {
        rows.extend(lists::run(&binary)?);
    }
    let server = Postgres::start().context("start PostgreSQL")?;
    let bench = batches::Bench::new(&binary, &server)?;
    if wanted("chain") {
        rows.extend(bench.chains()?);
    }
    if wanted("transaction") {
        rows.extend(bench.transactions()?);
    }
    if wanted("fanout") {
        rows.extend(bench.fan_outs()?);
    }
    if wanted("empty") {
        rows.extend(bench.empty_tasks()?);
    }
    if wanted("start") {
        rows.extend(memory::start_up(&bench)?);
    }
    if wanted("memory") {
        rows.extend(memory::idle_and_streamed(&bench)?);
    }
    if wanted("idle") {
        rows.extend(service::idle(&bench)?);
    }
    if wanted("trigger") {
        rows.extend(service::trigger(&bench)?);
    }
    if wanted("tick") {
        rows.extend(tick::one_tick(&bench)?);
    }
    if wanted("burst") {
        rows.extend(service::burst(&bench)?);
    }
    measure::print(&rows);
    Ok(())
}
