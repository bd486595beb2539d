//! One process of the service, and how it is asked.

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a process may take to say where it listens before the soak gives up.
const START_MAX: Duration = Duration::from_secs(60);
/// How long one answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Where a line of the banner says that runs were left.
const LEFT: &str = "left by an earlier process";

/// A process of the service.
pub(crate) struct Service {
    child: Child,
    pub(crate) started: Instant,
    address: Option<String>,
    listens: Receiver<String>,
    heard: Arc<Mutex<String>>,
}

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

impl Service {
    pub(crate) fn start(project: &Path) -> Self {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_backstop"))
            .current_dir(project)
            .args(["up", "--listen", "127.0.0.1:0", "--grace", "20"])
            .env_remove("BACKSTOP_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (says, listens) = sync_channel(1);
        let heard = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let hears = heard.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                hears.lock().unwrap().push_str(&format!("{line}\n"));
                if let Some(address) = line.split("listens at http://").nth(1) {
                    // Nobody may wait for it any more.
                    let _ = says.send(address.trim().to_owned());
                }
            }
        });
        Self { child, started, address: None, listens, heard }
    }

    /// Where it listens.
    pub(crate) fn address(&mut self) -> String {
        let address = self.address_or_end();
        address.unwrap_or_else(|| panic!("it ended by itself, {:?}:\n{}", self.child.wait(), self.heard()))
    }

    /// Where it listens; `None` when it ended by itself instead.
    pub(crate) fn address_or_end(&mut self) -> Option<String> {
        if let Some(address) = &self.address {
            return Some(address.clone());
        }
        match self.listens.recv_timeout(START_MAX) {
            Ok(address) => Some(self.address.insert(address).clone()),
            Err(RecvTimeoutError::Timeout) => panic!("it does not say where it listens:\n{}", self.heard()),
            // Its last words were heard before.
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    pub(crate) fn heard(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    /// How many unfinished runs it says that it found.
    pub(crate) fn left(&self) -> Option<usize> {
        self.heard().lines().find(|line| line.contains(LEFT))?.split_whitespace().nth(1)?.parse().ok()
    }

    /// As a power failure would end it. It must have gone on until now.
    pub(crate) fn kill(mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it ended by itself with {status}:\n{}", self.heard());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "it stopped with {status}:\n{}", self.heard());
    }
}

impl Drop for Service {
    /// A soak that fails leaves no service behind.
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks. `None` when no whole answer came: nobody listens, or who did died.
pub(crate) fn ask(address: &str, method: &str, path: &str, body: Option<&Value>) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    let body = body.map_or_else(String::new, Value::to_string);
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
    let is_whole = length.is_none_or(|length| length == body.len());
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    is_whole.then(|| Answer { status, body: body.to_owned() })
}

/// Asks for something that is there.
pub(crate) fn get(address: &str, path: &str) -> Option<Value> {
    let answer = ask(address, "GET", path, None)?;
    (answer.status == 200).then(|| answer.json())
}

/// Runs by how they stand with the service.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) queued: usize,
    pub(crate) active: usize,
    pub(crate) hindered: usize,
    pub(crate) stuck: usize,
}

impl Standing {
    pub(crate) fn all(self) -> usize {
        self.queued + self.active + self.hindered + self.stuck
    }
}

/// How the runs stand.
pub(crate) fn standing(address: &str) -> Option<Standing> {
    let metrics = ask(address, "GET", "/metrics", None)?;
    let of = |state: &str| -> Option<usize> {
        let name = format!("backstop_runs{{state=\"{state}\"}} ");
        metrics.body.lines().find_map(|line| line.strip_prefix(&name))?.parse().ok()
    };
    Some(Standing { queued: of("queued")?, active: of("active")?, hindered: of("hindered")?, stuck: of("stuck")? })
}
