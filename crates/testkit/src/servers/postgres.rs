//! PostgreSQL.

use super::child::{Server, Watchdog, command_as, find_program, free_port, give_to, output_of};
use super::{Options, skip_or_fail};
use anyhow::Context;
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use tempfile::TempDir;

const FOLDERS: &[&str] = &[
    "/usr/lib/postgresql/18/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/14/bin",
];
const READY: &str = "database system is ready to accept connections";
const USER: &str = "postgres";

/// A private PostgreSQL server; the superuser is `postgres`.
pub struct Postgres {
    folder: TempDir,
    port: u16,
    options: Options,
    running: Mutex<Option<Server>>,
    watchdog: Mutex<Watchdog>,
    databases: AtomicU32,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("port", &self.port).finish_non_exhaustive()
    }
}

impl Postgres {
    /// The one server that the tests of this process share, started on first use; `None` (said loudly) where PostgreSQL is not
    /// installed.
    ///
    /// # Panics
    /// When the server is installed and does not start; where `CI` is set, also when it is not installed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        if find_program("initdb", FOLDERS).is_none() {
            skip_or_fail("no PostgreSQL server binaries (install postgresql-15)");
            return None;
        }
        Some(SHARED.get_or_init(|| match Self::start() {
            Ok(server) => server,
            Err(error) => panic!("start PostgreSQL: {error:#}"),
        }))
    }

    /// A server of its own, for tests that stop or reconfigure it.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start_with(options: Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("backstop-pg-").tempdir().context("make a data folder")?;
        give_to(USER, folder.path())?;
        let watchdog = Watchdog::start(folder.path())?;
        let mut server = Self {
            folder,
            port: 0,
            options,
            running: Mutex::new(None),
            watchdog: Mutex::new(watchdog),
            databases: AtomicU32::new(0),
        };
        server.initialise()?;
        let mut tries_left = 5;
        loop {
            server.port = free_port()?;
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(error) if tries_left == 0 => return Err(error),
                Err(_) => tries_left -= 1,
            }
        }
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `postgresql://postgres@127.0.0.1:PORT/postgres`, without a password.
    pub fn url(&self) -> String {
        format!("postgresql://{USER}@127.0.0.1:{}/postgres", self.port)
    }

    /// The server's process id, or 0 when it is stopped.
    pub fn pid(&self) -> u32 {
        lock(&self.running).as_ref().map_or(0, Server::pid)
    }

    /// The folder of the Unix socket.
    pub fn socket_folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Where a file of [`Options::files`] is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of the server's installation, such as `pgbench`.
    pub fn program(name: &str) -> Option<PathBuf> {
        find_program(name, FOLDERS)
    }

    /// Makes a fresh, empty database and returns its name.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        match self.sql("postgres", &format!("CREATE DATABASE {name}")) {
            Ok(_) => name,
            Err(error) => panic!("create a database: {error:#}"),
        }
    }

    /// Runs SQL with psql as the superuser, so that a test sees effects from outside; the rows come back unaligned, one a line,
    /// columns parted by `|`.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let psql = find_program("psql", FOLDERS).context("psql is not installed")?;
        let mut command = Command::new(psql);
        command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER, "-d", database, "-c", sql]);
        command.arg("-p").arg(self.port.to_string());
        if let Some(password) = &self.options.password {
            command.env("PGPASSWORD", password);
        }
        Ok(output_of(&mut command)?.trim_end().to_owned())
    }

    /// Stops it in an orderly way (if it runs) and starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        if let Some(mut server) = lock(&self.running).take() {
            server.end(Signal::SIGINT);
        }
        self.launch()
    }

    /// Kills the server and every one of its processes with SIGKILL, as a power cut would. `restart` brings it back.
    pub fn stop_hard(&self) {
        if let Some(mut server) = lock(&self.running).take() {
            server.cut();
        }
    }

    fn initialise(&self) -> anyhow::Result<()> {
        let initdb = find_program("initdb", FOLDERS).context("initdb is not installed (install postgresql-15)")?;
        let mut command = command_as(USER, &initdb);
        command.arg("-D").arg(self.folder.path().join("data")).args(["-N", "-U", USER, "--locale=C.UTF-8", "-E", "UTF8"]);
        command.current_dir(self.folder.path());
        if let Some(password) = &self.options.password {
            let file = self.folder.path().join("password");
            std::fs::write(&file, password)?;
            give_to(USER, &file)?;
            command.args(["-A", "scram-sha-256", "--pwfile"]).arg(file);
        } else {
            command.args(["-A", "trust"]);
        }
        output_of(&mut command)?;
        for (name, bytes) in &self.options.files {
            let file = self.folder.path().join(name);
            std::fs::write(&file, bytes)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            give_to(USER, &file)?;
        }
        Ok(())
    }

    fn launch(&self) -> anyhow::Result<()> {
        let postgres = find_program("postgres", FOLDERS).context("postgres is not installed (install postgresql-15)")?;
        let mut command = command_as(USER, &postgres);
        command.current_dir(self.folder.path());
        command.arg("-D").arg(self.folder.path().join("data"));
        command.arg("-k").arg(self.folder.path()).arg("-p").arg(self.port.to_string());
        let fsync = if self.options.fsync { "on" } else { "off" };
        let ours = [("listen_addresses", "127.0.0.1"), ("wal_level", "logical"), ("max_prepared_transactions", "32")];
        let ours = ours.into_iter().chain([("fsync", fsync), ("logging_collector", "off"), ("log_min_messages", "log")]);
        for (name, value) in ours.chain(self.options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
            // A relative file name in a setting would be relative to the data folder; `@/` stands for the fixture's folder.
            let value = value.replace("@/", &format!("{}/", self.folder.path().display()));
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let server = Server::start(command, READY)?;
        lock(&self.watchdog).watch(server.pid())?;
        *lock(&self.running) = Some(server);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = lock(&self.running).take() {
            server.end(Signal::SIGQUIT);
        }
        lock(&self.watchdog).dismiss();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_data_over_a_power_cut_and_leaves_nothing_behind() {
        if Postgres::program("initdb").is_none() {
            return skip_or_fail("no PostgreSQL server binaries (install postgresql-15)");
        }
        let server = Postgres::start().unwrap();
        let database = server.create_database();
        server.sql(&database, "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
        server.stop_hard();
        assert!(server.sql(&database, "SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.sql(&database, "SELECT answer FROM kept").unwrap(), "42");
        let (folder, pid) = (server.socket_folder(), server.pid());
        drop(server);
        assert!(!folder.exists());
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    }
}
