//! A project in a folder of its own, and the binary run in it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use tempfile::TempDir;

/// A project folder that is removed at the end.
pub(crate) struct Project {
    folder: TempDir,
}

/// What the binary came to.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    /// Ids, times and lengths of time replaced.
    pub(crate) stderr: String,
}

const BACKSTOP_YAML: &str = "name: test\nconnections:\n  db: {conn_type: sqlite, database: data.db}\n";

impl Project {
    /// With these files beside a `backstop.yaml` that has one connection, `db`.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let project = Self::empty();
        project.write("backstop.yaml", BACKSTOP_YAML);
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    pub(crate) fn empty() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    /// With one DAG, `d`, of these tasks on connection `db`.
    pub(crate) fn with_tasks(tasks: &str) -> Self {
        Self::new(&[("dags/d.yaml", &format!("dag: d\nconnection: db\ntasks:\n{tasks}"))])
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backstop"));
        command.current_dir(self.path()).args(arguments).stdin(Stdio::null());
        for variable in ["BACKSTOP_STORE", "NO_COLOR", "CLICOLOR_FORCE"] {
            command.env_remove(variable);
        }
        command
    }

    pub(crate) fn backstop(&self, arguments: &[&str]) -> Outcome {
        let output = self.command(arguments).output().unwrap();
        Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: scrub(&String::from_utf8(output.stderr).unwrap(), self.path()),
        }
    }

    /// Data of a command that must go well.
    pub(crate) fn data(&self, arguments: &[&str]) -> String {
        let outcome = self.backstop(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {}{}", outcome.stdout, outcome.stderr);
        outcome.stdout
    }

    /// Data with ids, times and lengths of time replaced.
    pub(crate) fn scrubbed(&self, arguments: &[&str]) -> String {
        scrub(&self.data(arguments), self.path())
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.data(arguments)).unwrap()
    }

    /// The newest run's id.
    pub(crate) fn newest(&self) -> String {
        self.json(&["runs", "list", "--json"])[0]["run_id"].as_str().unwrap().to_owned()
    }

    /// Runs SQL on the project's database, past the binary.
    pub(crate) fn sql(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap();
    }

    /// One value of the project's database.
    pub(crate) fn ask(&self, sql: &str) -> i64 {
        self.open().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn open(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path().join("data.db")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        connection
    }

    /// Starts the binary; its standard error can be waited for.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Running { child, stderr, heard: String::new() }
    }
}

/// The binary while it runs.
pub(crate) struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    heard: String,
}

impl Running {
    /// Waits until it says something.
    pub(crate) fn wait_for(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            self.heard.push_str(&line);
            assert!(read > 0, "it ended without saying `{text}`:\n{}", self.heard);
            if line.contains(text) {
                return;
            }
        }
    }

    /// Waits until it has said all of this, in whatever order.
    pub(crate) fn wait_for_all(&mut self, texts: &[&str]) {
        while let Some(text) = texts.iter().find(|&text| !self.heard.contains(text)) {
            let read = self.stderr.read_line(&mut self.heard).unwrap();
            assert!(read > 0, "it ended without saying `{text}`:\n{}", self.heard);
        }
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// As a power failure would end it.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All it said so far.
    pub(crate) fn heard(&self) -> &str {
        &self.heard
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(self) -> (Option<i32>, String) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.end()
    }

    /// Waits for the end: the exit code, and all it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        self.stderr.read_to_string(&mut self.heard).unwrap();
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.heard))
    }
}

impl Drop for Running {
    /// A test that ends leaves no service behind.
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces what differs from run to run, and narrows the gaps that depend on it.
pub(crate) fn scrub(text: &str, folder: &Path) -> String {
    let real = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let text = text.replace(&*real.to_string_lossy(), "PROJECT").replace(&*folder.to_string_lossy(), "PROJECT");
    let mut scrubbed = String::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        scrubbed.push_str(&line[..indent]);
        let words: Vec<String> = line[indent..].split(' ').map(scrub_word).collect();
        let mut narrow = words.join(" ");
        while narrow.contains("   ") {
            narrow = narrow.replace("   ", "  ");
        }
        scrubbed.push_str(narrow.replace("TIME TIME", "TIME").trim_end());
        scrubbed.push('\n');
    }
    scrubbed
}

fn scrub_word(word: &str) -> String {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let is_run = core.len() == 36 && core.bytes().filter(|byte| *byte == b'-').count() == 4;
    let digits = core.trim_end_matches('Z');
    let is_time =
        digits.len() >= 8 && digits.chars().all(|c| c.is_ascii_digit() || "-:.".contains(c)) && digits.contains([':', '-']);
    let number = core.trim_end_matches("ms").trim_end_matches('s');
    let is_length =
        number.len() < core.len() && number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok();
    let name = match (is_run, is_time, is_length) {
        (true, _, _) => "RUN",
        (_, true, _) => "TIME",
        (_, _, true) => "TOOK",
        _ => return word.to_owned(),
    };
    word.replacen(core, name, 1)
}
