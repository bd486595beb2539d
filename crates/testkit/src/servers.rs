//! Real database servers for tests and benchmarks: private instances on free ports with temporary data directories.
//!
//! A server never outlives its test process: a small watchdog shell holds the other end of a pipe, and when the pipe closes (the
//! process ended in whatever way) it kills the server and deletes its directory.

mod child;
mod instance;
mod mariadb;
mod postgres;

pub use instance::{Instance, Product};
pub use mariadb::{Maria, MariaDb};
pub use postgres::{PostgreSql, Postgres};

use std::io::Write as _;

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// False trades durability for speed; benchmarks keep it true.
    pub fsync: bool,
    /// The superuser's password. `None` trusts every local connection (PostgreSQL) or takes an empty one (MariaDB).
    pub password: Option<String>,
    /// Server settings by name, added to the command line.
    pub settings: Vec<(String, String)>,
    /// Files to put into the server's folder before it starts (certificates and keys), by name; see `Postgres::file`.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: true, password: None, settings: Vec::new(), files: Vec::new() }
    }
}

/// Says loudly that the running test is skipped because a server is missing, or fails it where `CI` is set.
///
/// # Panics
/// When the environment variable `CI` is set and not empty.
pub fn skip_or_fail(missing: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let in_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!in_ci, "{test}: {missing}");
    // Past the test harness, which keeps what a passing test prints to itself. A standard error that is closed hears nothing.
    let _ = writeln!(std::io::stderr(), "\nSKIPPED: {test}: {missing}");
}
