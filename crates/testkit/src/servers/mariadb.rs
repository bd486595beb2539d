//! MariaDB.

use super::child::{Server, Watchdog, command_as, find_program, free_port, give_to, output_of};
use super::{Options, skip_or_fail};
use anyhow::Context;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use tempfile::TempDir;

const FOLDERS: &[&str] = &["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
const READY: &str = "ready for connections";
const USER: &str = "mysql";

/// A private MariaDB server; the superuser is `root`.
pub struct MariaDb {
    folder: TempDir,
    port: u16,
    options: Options,
    running: Mutex<Option<Server>>,
    watchdog: Mutex<Watchdog>,
    databases: AtomicU32,
}

impl std::fmt::Debug for MariaDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MariaDb").field("port", &self.port).finish_non_exhaustive()
    }
}

impl MariaDb {
    /// The one server that the tests of this process share, started on first use; `None` (said loudly) where MariaDB is not
    /// installed.
    ///
    /// # Panics
    /// When the server is installed and does not start; where `CI` is set, also when it is not installed.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        if find_program("mariadbd", FOLDERS).is_none() {
            skip_or_fail("no MariaDB server binaries (install mariadb-server)");
            return None;
        }
        Some(SHARED.get_or_init(|| match Self::start() {
            Ok(server) => server,
            Err(error) => panic!("start MariaDB: {error:#}"),
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
        let folder = tempfile::Builder::new().prefix("backstop-my-").tempdir().context("make a data folder")?;
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
                Ok(()) => break,
                Err(error) if tries_left == 0 => return Err(error),
                Err(_) => tries_left -= 1,
            }
        }
        if let Some(password) = server.options.password.clone() {
            server.options.password = None;
            // Without name resolution, the socket's localhost and the two loopback addresses are three users.
            let users = ["localhost", "127.0.0.1", "::1"].map(|host| format!("root@'{host}' IDENTIFIED BY '{password}'"));
            server.sql("mysql", &format!("ALTER USER IF EXISTS {}", users.join(", ")))?;
            server.options.password = Some(password);
        }
        Ok(server)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `mysql://root@127.0.0.1:PORT/`, without a password.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/", self.port)
    }

    /// The server's process id, or 0 when it is stopped.
    pub fn pid(&self) -> u32 {
        lock(&self.running).as_ref().map_or(0, Server::pid)
    }

    /// Where a file of [`Options::files`] is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a fresh, empty database and returns its name.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        match self.sql("mysql", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")) {
            Ok(_) => name,
            Err(error) => panic!("create a database: {error:#}"),
        }
    }

    /// Runs SQL with the command-line client as the superuser, so that a test sees effects from outside; the rows come back one a
    /// line, columns parted by tabs.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let client = find_program("mariadb", FOLDERS).context("the mariadb client is not installed")?;
        let mut command = Command::new(client);
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--user=root", "--default-character-set=utf8mb4"]);
        command.arg(format!("--socket={}", self.folder.path().join("socket").display()));
        command.arg(format!("--database={database}")).arg(format!("--execute={sql}"));
        if let Some(password) = &self.options.password {
            command.env("MYSQL_PWD", password);
        }
        Ok(output_of(&mut command)?.trim_end().to_owned())
    }

    /// Stops it in an orderly way (if it runs) and starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        if let Some(mut server) = lock(&self.running).take() {
            server.end(Signal::SIGTERM);
        }
        self.launch()
    }

    /// Kills the server with SIGKILL, as a power cut would. `restart` brings it back.
    pub fn stop_hard(&self) {
        if let Some(mut server) = lock(&self.running).take() {
            server.cut();
        }
    }

    fn initialise(&self) -> anyhow::Result<()> {
        // A starting server deletes the temporary tables it finds in its folder: it must not be one that other servers use.
        let temporary = self.folder.path().join("tmp");
        std::fs::create_dir(&temporary)?;
        give_to(USER, &temporary)?;
        let install = find_program("mariadb-install-db", FOLDERS).context("mariadb-install-db is not installed")?;
        let mut command = Command::new(install);
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg(format!("--datadir={}", self.folder.path().join("data").display()));
        command.arg(format!("--tmpdir={}", temporary.display()));
        if nix::unistd::geteuid().is_root() {
            command.arg(format!("--user={USER}"));
        }
        output_of(&mut command)?;
        for (name, bytes) in &self.options.files {
            let file = self.folder.path().join(name);
            std::fs::write(&file, bytes)?;
            give_to(USER, &file)?;
        }
        Ok(())
    }

    fn launch(&self) -> anyhow::Result<()> {
        let mariadbd = find_program("mariadbd", FOLDERS).context("mariadbd is not installed (install mariadb-server)")?;
        let folder = self.folder.path();
        let mut command = command_as(USER, &mariadbd);
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--local-infile=1", "--skip-name-resolve"]);
        command.args(["--log-bin=binlog", "--binlog-format=ROW", "--server-id=1", "--innodb-buffer-pool-size=32M"]);
        command.arg(format!("--datadir={}", folder.join("data").display()));
        command.arg(format!("--tmpdir={}", folder.join("tmp").display()));
        command.arg(format!("--socket={}", folder.join("socket").display()));
        command.arg(format!("--pid-file={}", folder.join("pid").display()));
        command.arg(format!("--port={}", self.port));
        let flush = if self.options.fsync { "1" } else { "0" };
        command.arg(format!("--innodb-flush-log-at-trx-commit={flush}")).arg(format!("--sync-binlog={flush}"));
        for (name, value) in &self.options.settings {
            // `@/` stands for the fixture's folder.
            command.arg(format!("--{name}={}", value.replace("@/", &format!("{}/", folder.display()))));
        }
        let server = Server::start(command, READY)?;
        lock(&self.watchdog).watch(server.pid())?;
        *lock(&self.running) = Some(server);
        Ok(())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        if let Some(mut server) = lock(&self.running).take() {
            server.end(Signal::SIGKILL);
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
        if find_program("mariadbd", FOLDERS).is_none() {
            return skip_or_fail("no MariaDB server binaries (install mariadb-server)");
        }
        let server = MariaDb::start_with(Options { password: Some("secret".into()), ..Options::default() }).unwrap();
        let database = server.create_database();
        server.sql(&database, "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
        server.stop_hard();
        assert!(server.sql(&database, "SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.sql(&database, "SELECT answer FROM kept").unwrap(), "42");
        let (folder, pid) = (server.file(""), server.pid());
        drop(server);
        assert!(!folder.exists());
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    }
}
