//! A service as a process of its own.

use crate::http::Client;
use anyhow::{Context as _, Result};
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A service that goes on, killed when it is let go.
pub(crate) struct Up {
    child: Child,
    pub(crate) address: String,
}

impl Up {
    /// Of a project, with further arguments of `up`.
    pub(crate) fn start(binary: &Path, project: &Path, arguments: &[&OsStr]) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["up", "--listen", "127.0.0.1:0", "--project"]).arg(project).args(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("start the service")?;
        let mut told = BufReader::new(child.stderr.take().context("read what the service says")?).lines();
        let line = told.find(|line| line.as_ref().is_ok_and(|line| line.contains("http://")));
        let line = line.context("the service never said where it listens")??;
        let address = line.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default().to_owned();
        std::thread::spawn(move || told.for_each(drop));
        Ok(Self { child, address })
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::new(&self.address)
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 =
            fields.get(11).context("read utime")?.parse::<u64>()? + fields.get(12).context("read stime")?.parse::<u64>()?;
        // Linux tells it in hundredths of a second on every machine of today.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Resident memory, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).and_then(|rest| rest.split_whitespace().next());
        Ok(kib.context("read the resident memory")?.parse::<f64>()? / 1024.0)
    }

    /// Until no run is left that goes on.
    #[expect(clippy::disallowed_methods, reason = "a benchmark waits by the clock")]
    pub(crate) fn wait_until_done(&self) -> Result<()> {
        let mut client = self.client()?;
        loop {
            let runs = client.get("/api/v1/runs?unfinished=true&limit=1")?;
            if runs["items"].as_array().is_some_and(Vec::is_empty) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
