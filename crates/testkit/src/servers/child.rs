//! A server process and the watchdog that ends it when the test process is gone.

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a server may take to say that it is ready.
const START_WAIT: Duration = Duration::from_secs(90);

/// How long killed processes may take to be gone.
const CUT_WAIT: Duration = Duration::from_secs(10);

/// Reads `pid N` and `done` lines; when the pipe closes without `done`, the process is gone, so the server goes too.
const WATCHDOG: &str = r#"
pid=
while read -r word value; do
  case "$word" in pid) pid=$value ;; done) exit 0 ;; esac
done
if [ -n "$pid" ]; then
  kill -QUIT "$pid" 2>/dev/null
  tries=0
  while kill -0 "$pid" 2>/dev/null && [ $tries -lt 30 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -KILL "$pid" 2>/dev/null
fi
rm -rf -- "$1"
"#;

/// A free TCP port on loopback. Another process may take it before the server does: starters try again.
pub(super) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).context("find a free port")?.local_addr()?.port())
}

/// Finds a program in the given folders, then in PATH.
pub(super) fn find_program(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let in_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    folders.iter().map(PathBuf::from).chain(in_path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// A command that runs as `user` where this process is root (servers refuse root), and as ourselves otherwise.
pub(super) fn command_as(user: &str, program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups").arg(program);
    command
}

/// Gives a folder or file to `user` where this process is root.
pub(super) fn give_to(user: &str, path: &Path) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let user = nix::unistd::User::from_name(user)?.with_context(|| format!("the system user {user} does not exist"))?;
    nix::unistd::chown(path, Some(user.uid), Some(user.gid)).with_context(|| format!("give {} to {}", path.display(), user.name))
}

/// Runs a command to its end and returns what it printed.
pub(super) fn output_of(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The shell that cleans up behind a process that died.
pub(super) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Starts it for a data folder.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the watchdog shell")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Tells it which process to kill.
    pub(super) fn watch(&mut self, pid: u32) -> anyhow::Result<()> {
        let pipe = self.pipe.as_mut().context("the watchdog was dismissed")?;
        writeln!(pipe, "pid {pid}").context("tell the watchdog")
    }

    /// Sends it home: the server was stopped in an orderly way.
    pub(super) fn dismiss(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = writeln!(pipe, "done");
        }
        let _ = self.shell.wait();
    }
}

/// A running server process.
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts it and waits for the line on its standard error that says it is ready.
    pub(super) fn start(mut command: Command, ready: &'static str) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("run {command:?}"))?;
        let errors = child.stderr.take().context("the server's standard error is not there")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut last_lines = VecDeque::new();
            let mut announced = false;
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                if !announced && line.contains(ready) {
                    announced = true;
                    let _ = sender.send(Ok(()));
                }
                last_lines.push_back(line);
                if last_lines.len() > 20 {
                    last_lines.pop_front();
                }
            }
            let _ = sender.send(Err(Vec::from(last_lines).join("\n")));
        });
        match receiver.recv_timeout(START_WAIT) {
            Ok(Ok(())) => Ok(Self { child }),
            Ok(Err(lines)) => {
                let _ = child.wait();
                bail!("the server ended instead of starting:\n{lines}")
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("the server was not ready after {START_WAIT:?}")
            }
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and waits for its end.
    pub(super) fn end(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
        let _ = self.child.wait();
    }

    /// Kills it and all its children with SIGKILL, as a power cut would, and waits until they are gone.
    pub(super) fn cut(&mut self) {
        // Stopped first, so that it has no child that is not in the list.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGSTOP);
        let children = children_of(self.child.id());
        self.end(Signal::SIGKILL);
        for child in &children {
            let _ = kill(Pid::from_raw(*child), Signal::SIGKILL);
        }
        // A successor refuses to start while one of them has the shared memory. They are nobody's children now, so nobody tells.
        let until = Instant::now() + CUT_WAIT;
        while children.iter().any(|child| is_alive(*child)) && Instant::now() < until {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// False for a process that is gone, or only waits to be reaped.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// The process ids of a process's children, from /proc.
fn children_of(parent: u32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The command's name is in parentheses and may hold anything: read from the last one on.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        after_name.split_whitespace().nth(1).and_then(|field| field.parse::<u32>().ok()) == Some(parent)
    })
    .collect()
}
