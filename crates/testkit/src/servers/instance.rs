//! What every kind of server has in common: a folder, a port, a process, and the watchdog behind it.

use super::child::{Server, Watchdog, find_program, free_port, give_to, output_of};
use super::{Options, skip_or_fail};
use anyhow::Context;
use nix::sys::signal::Signal;
use std::marker::PhantomData;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tempfile::TempDir;

/// What tells the kinds of servers apart.
pub trait Product: Sized + 'static {
    /// Its name, for people.
    const NAME: &'static str;
    /// The Debian package that has it.
    const PACKAGE: &'static str;
    /// The program without which it is not installed.
    const PROGRAM: &'static str;
    /// Where its programs are, besides PATH.
    const FOLDERS: &'static [&'static str];
    /// The system user it runs as where this process is root.
    const USER: &'static str;
    /// The database that is always there.
    const DATABASE: &'static str;
    /// What its standard error says when it is ready.
    const READY: &'static str;
    /// Ends it in an orderly way.
    const STOP: Signal;
    /// Ends it when nobody needs its data any more.
    const DISCARD: Signal;

    /// Where the one server of this process is kept.
    fn shared() -> &'static OnceLock<Instance<Self>>;

    /// Makes its data in the instance's folder.
    ///
    /// # Errors
    /// When it is not installed, or its data cannot be made.
    fn initialise(instance: &Instance<Self>) -> anyhow::Result<()>;

    /// What runs it.
    ///
    /// # Errors
    /// When it is not installed.
    fn command(instance: &Instance<Self>) -> anyhow::Result<Command>;

    /// The command-line client that runs SQL as the superuser and gives rows one a line.
    ///
    /// # Errors
    /// When it is not installed.
    fn client(instance: &Instance<Self>, database: &str, sql: &str) -> anyhow::Result<Command>;

    /// Called when the server runs for the first time.
    ///
    /// # Errors
    /// When it cannot be prepared.
    fn prepare(_instance: &mut Instance<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A private server.
pub struct Instance<P: Product> {
    folder: TempDir,
    port: u16,
    pub(super) options: Options,
    running: Mutex<Option<Server>>,
    watchdog: Mutex<Watchdog>,
    databases: AtomicU32,
    product: PhantomData<P>,
}

impl<P: Product> Instance<P> {
    /// The one server that the tests of this process share, started on first use; `None` (said loudly) where it is not installed.
    ///
    /// # Panics
    /// When the server is installed and does not start; where `CI` is set, also when it is not installed.
    pub fn shared() -> Option<&'static Self> {
        if Self::program(P::PROGRAM).is_none() {
            skip_or_fail(&format!("no {} server binaries (install {})", P::NAME, P::PACKAGE));
            return None;
        }
        Some(P::shared().get_or_init(|| match Self::start() {
            Ok(server) => server,
            Err(error) => panic!("start {}: {error:#}", P::NAME),
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
        let prefix = format!("backstop-{}-", P::USER);
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().context("make a data folder")?;
        give_to(P::USER, folder.path())?;
        let watchdog = Mutex::new(Watchdog::start(folder.path())?);
        let running = Mutex::new(None);
        let databases = AtomicU32::new(0);
        let mut instance = Self { folder, port: 0, options, running, watchdog, databases, product: PhantomData };
        P::initialise(&instance)?;
        instance.put_files()?;
        let mut tries_left = 5;
        loop {
            instance.port = free_port()?;
            match instance.launch() {
                Ok(()) => break,
                Err(error) if tries_left == 0 => return Err(error),
                Err(_) => tries_left -= 1,
            }
        }
        P::prepare(&mut instance)?;
        Ok(instance)
    }

    /// A program of the server's installation, such as `pgbench`.
    pub fn program(name: &str) -> Option<PathBuf> {
        find_program(name, P::FOLDERS)
    }

    pub(super) fn installed(name: &str) -> anyhow::Result<PathBuf> {
        Self::program(name).with_context(|| format!("{name} is not installed (install {})", P::PACKAGE))
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, or 0 when it is stopped.
    pub fn pid(&self) -> u32 {
        lock(&self.running).as_ref().map_or(0, Server::pid)
    }

    /// The folder of its data, its socket and the files of [`Options::files`].
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where a file of [`Options::files`] is.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The settings of [`Options::settings`]. A relative file name in one would be relative to the data folder; `@/` stands for the
    /// instance's.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, String)> {
        let here = format!("{}/", self.folder().display());
        self.options.settings.iter().map(move |(name, value)| (name.as_str(), value.replace("@/", &here)))
    }

    /// Makes a fresh, empty database and returns its name.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        match self.sql(P::DATABASE, &format!("CREATE DATABASE {name}")) {
            Ok(_) => name,
            Err(error) => panic!("create a database: {error:#}"),
        }
    }

    /// Runs SQL with the command-line client as the superuser, so that a test sees effects from outside; the rows come back one a
    /// line, columns parted by `|` (PostgreSQL) or a tab (MariaDB).
    ///
    /// # Errors
    /// When a statement fails.
    pub fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        Ok(output_of(&mut P::client(self, database, sql)?)?.trim_end().to_owned())
    }

    /// Stops it in an orderly way (if it runs) and starts it again on the same port with the same data.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&self) -> anyhow::Result<()> {
        if let Some(mut server) = lock(&self.running).take() {
            server.end(P::STOP);
        }
        self.launch()
    }

    /// Kills the server and every one of its processes with SIGKILL, as a power cut would. `restart` brings it back.
    pub fn stop_hard(&self) {
        if let Some(mut server) = lock(&self.running).take() {
            server.cut();
        }
    }

    fn put_files(&self) -> anyhow::Result<()> {
        for (name, bytes) in &self.options.files {
            let file = self.folder().join(name);
            std::fs::write(&file, bytes)?;
            // PostgreSQL refuses a key that others may read.
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            give_to(P::USER, &file)?;
        }
        Ok(())
    }

    fn launch(&self) -> anyhow::Result<()> {
        let server = Server::start(P::command(self)?, P::READY)?;
        lock(&self.watchdog).watch(server.pid())?;
        *lock(&self.running) = Some(server);
        Ok(())
    }
}

impl<P: Product> std::fmt::Debug for Instance<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct(P::NAME).field("port", &self.port).finish_non_exhaustive()
    }
}

impl<P: Product> Drop for Instance<P> {
    fn drop(&mut self) {
        if let Some(mut server) = lock(&self.running).take() {
            server.end(P::DISCARD);
        }
        lock(&self.watchdog).dismiss();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// For each product: its own test calls this.
    pub(in crate::servers) fn keeps_its_data_over_a_power_cut_and_leaves_nothing_behind<P: Product>(options: Options) {
        if Instance::<P>::program(P::PROGRAM).is_none() {
            return skip_or_fail(&format!("no {} server binaries (install {})", P::NAME, P::PACKAGE));
        }
        let server = Instance::<P>::start_with(options).unwrap();
        let database = server.create_database();
        server.sql(&database, "CREATE TABLE kept AS SELECT 42 AS answer").unwrap();
        server.stop_hard();
        assert!(server.sql(&database, "SELECT 1").is_err());
        server.restart().unwrap();
        assert_eq!(server.sql(&database, "SELECT answer FROM kept").unwrap(), "42");
        let (folder, pid) = (server.folder().to_owned(), server.pid());
        drop(server);
        assert!(!folder.exists());
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    }
}
