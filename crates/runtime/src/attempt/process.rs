//! Subprocesses: started in a group of their own, their output line by line in the log, killed as a group.

use super::script::stopped;
use super::{Attempt, Outcome};
use crate::clock::Clock;
use crate::failure::{FailureExt, failure};
use crate::logs::TaskLog;
use backstop_core::event::FailureClass;
use backstop_project::SERVICE_TOKEN;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// A line of output longer than this is cut into several.
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// What is kept of the last lines for an error.
const TAIL_LINES: usize = 5;

/// How a process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The last line of standard output that is not empty; `None` when it is too long to keep.
    pub(crate) last_line: Option<String>,
    /// The last lines of standard error.
    pub(crate) tail: Vec<String>,
}

/// Kills the group when the attempt is dropped before the process has ended.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// Runs a command to its end, or until the attempt must stop.
pub(crate) async fn run(attempt: &Attempt, mut command: Command, input: Option<String>) -> Result<Ended, Outcome> {
    let could_not = |what: &str, error: &std::io::Error| {
        Outcome::Failed(failure(FailureClass::Permanent, format!("{what}: {error}")).effect("nothing was run"))
    };
    command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command.spawn().map_err(|error| could_not(&format!("start `{program}`"), &error))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A process that does not read its input is no error. Written beside it, because it may write before it reads.
        tokio::spawn(async move {
            let _ = stdin.write_all(input.as_bytes()).await;
        });
    }
    let output = copy_lines(child.stdout.take(), "OUT", attempt.log.clone(), attempt.shared.clock.clone());
    let errors = copy_lines(child.stderr.take(), "ERR", attempt.log.clone(), attempt.shared.clock.clone());
    let mut stopper = attempt.stopper.clone();
    let ended = async { tokio::join!(child.wait(), output, errors) };
    tokio::pin!(ended);
    let (status, output, errors) = tokio::select! {
        ended = &mut ended => ended,
        reason = stopper.wait() => {
            signal(&group, Signal::SIGTERM);
            if tokio::time::timeout(TERM_GRACE, &mut ended).await.is_err() {
                signal(&group, Signal::SIGKILL);
                // Killed: it ends now.
                let _ = tokio::time::timeout(TERM_GRACE, &mut ended).await;
            }
            return Err(stopped(&reason, "what the process did before it was killed is not known"));
        }
    };
    group.0 = None;
    let status = status.map_err(|error| could_not(&format!("wait for `{program}`"), &error))?;
    let last = output.into_iter().rev().find(|line| !line.text.trim().is_empty());
    let last_line = last.map_or_else(|| Some(String::new()), |line| line.is_whole.then_some(line.text));
    Ok(Ended { status, last_line, tail: errors.into_iter().map(|line| line.text).collect() })
}

fn signal(group: &Group, signal: Signal) {
    if let Some(group) = group.0 {
        // It may have ended by itself meanwhile.
        let _ = killpg(group, signal);
    }
}

/// A line of output, or a piece of a long one.
struct Line {
    text: String,
    is_whole: bool,
}

/// Copies lines to the log; returns the last few.
async fn copy_lines(pipe: Option<impl AsyncRead + Unpin>, level: &str, log: TaskLog, clock: Arc<dyn Clock>) -> Vec<Line> {
    let mut tail: Vec<Line> = Vec::new();
    let Some(pipe) = pipe else { return tail };
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    let mut begins = true;
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return tail,
            Ok(read) => {
                let ends = line.ends_with(b"\n") || (read as u64) < LINE_BYTES_MAX;
                let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                log.line(clock.now(), level, &text).await;
                if tail.len() == TAIL_LINES {
                    tail.remove(0);
                }
                tail.push(Line { text, is_whole: begins && ends });
                begins = ends;
            }
        }
    }
}

/// What a status that is no success comes to.
pub(crate) fn failed(what: &str, ended: &Ended) -> Outcome {
    let how = match ended.status.code() {
        Some(code) => format!("{what} ended with exit code {code}"),
        None => format!("{what} was killed ({})", ended.status),
    };
    let mut told = failure(FailureClass::Permanent, how).effect("what it did before is not undone by Backstop");
    told.causes = ended.tail.iter().filter(|line| !line.trim().is_empty()).cloned().collect();
    Outcome::Failed(told)
}

/// The variables every subprocess gets beside those of this process.
pub(crate) fn environment(attempt: &Attempt, command: &mut Command) {
    let context = &attempt.context;
    // Who has the token may do everything that the service does, over all DAGs.
    command
        .env_remove(SERVICE_TOKEN)
        .env("BACKSTOP_RUN_ID", &context.run_id)
        .env("BACKSTOP_DAG_ID", &context.dag_id)
        .env("BACKSTOP_TASK_ID", &context.task_id)
        .env("BACKSTOP_TRY_NUMBER", context.try_number.to_string())
        .env("BACKSTOP_PROJECT_DIR", &attempt.shared.project.root);
    if let Some(index) = context.map_index {
        command.env("BACKSTOP_MAP_INDEX", index.to_string());
    }
    if let Some(date) = context.logical_date {
        command.env("BACKSTOP_LOGICAL_DATE", date.to_string());
    }
}

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)
    }
}
