//! The log of each try, kept in files beside the store.
//!
//! Thousands of small runs, or tasks, would pay more for making a file each than for their work. So the lines of a run that says little
//! go to the one file of the hour, `logs/hours/2026-11-22T23.log`, each behind the run's id and the try's name; a run that says more goes on
//! in its own, `logs/RUN/run.log`; a try that says more than a little gets a file, `logs/RUN/TASK.try-N.log`, with all its lines from the
//! first on. [`LogReader`] reads them all. Lines are written by one thread, so that a slow disk does not stop the engine; the channel is
//! bounded, so that a task that floods its log waits for the disk instead of filling the memory.

mod hours;
mod reader;
mod writer;

pub use hours::hours_folder;
pub(crate) use hours::{NeededHours, forget_hours};

pub use reader::{LogPosition, LogReader, log_tries};

use crate::redact::Redactor;
use backstop_core::{InstanceId, RunId};
use jiff::Timestamp;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::mpsc;

/// Lines that may wait for the disk.
const LINES_WAITING_MAX: usize = 4096;
/// A longer line is cut, and says so.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The writer of all task logs of a process.
#[derive(Clone)]
pub struct LogWriter {
    root: Option<PathBuf>,
    orders: Option<(mpsc::Sender<Order>, Thread)>,
    /// When the thread was last woken out of its rest.
    woken_at: Arc<Mutex<Option<Instant>>>,
}

impl LogWriter {
    /// Starts the writer's thread. `root` will hold one folder a run, made when its first line is written; `None` keeps no logs.
    pub fn start(root: Option<PathBuf>) -> Self {
        let orders = root.as_ref().and_then(|_| {
            let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
            let thread = std::thread::Builder::new().name("task-logs".into()).spawn(move || writer::write_all(receiver));
            thread.ok().map(|thread| (sender, thread.thread().clone()))
        });
        Self { root, orders, woken_at: Arc::default() }
    }
}

impl LogWriter {
    /// Wakes the thread, unless that was done a moment ago: where many runs end one behind the other, its next rest is over soon enough.
    fn wake(&self, thread: &Thread) {
        let mut woken_at = self.woken_at.lock().unwrap_or_else(PoisonError::into_inner);
        if woken_at.is_none_or(|at| at.elapsed() >= writer::REST) {
            *woken_at = Some(Instant::now());
            thread.unpark();
        }
    }

    /// Where the logs are; `None` when none are kept.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogWriter").field("root", &self.root).finish_non_exhaustive()
    }
}

/// The file that all tries of a run share, in its folder.
const RUN_FILE: &str = "run.log";
/// Bytes of a task's name that go into a file's name; a longer one is cut, and told apart by a hash of the whole.
const NAME_BYTES_MAX: usize = 180;

/// Where the lines of one try are.
#[derive(Debug)]
struct TryFile {
    run: RunId,
    /// Before each of its lines in the run's file.
    name: String,
    /// The run's file.
    shared: PathBuf,
    /// Its own file, once it has said more than a little.
    own: PathBuf,
    /// Where the files of hours are.
    root: PathBuf,
}

impl TryFile {
    fn new(root: &Path, run: &RunId, instance: &InstanceId, try_number: u32) -> Self {
        let folder = root.join(run.as_str());
        let name = format!("{}.try-{try_number}", file_stem(instance));
        let own = folder.join(format!("{name}.log"));
        Self { run: run.clone(), shared: folder.join(RUN_FILE), own, name, root: root.to_owned() }
    }
}

/// The instance's name, fit for a file: a mapped instance is `TASK.INDEX`.
fn file_stem(instance: &InstanceId) -> String {
    let name = match instance.map_index {
        None => instance.task.to_string(),
        Some(index) => format!("{}.{index}", instance.task),
    };
    let name = name.replace(['/', '\\', '\0'], "_");
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let mut hasher = rustc_hash::FxHasher::default();
    name.hash(&mut hasher);
    let end = (0..=NAME_BYTES_MAX).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    format!("{}~{:016x}", &name[..end], hasher.finish())
}

enum Order {
    Line {
        of: Arc<TryFile>,
        at: Timestamp,
        line: String,
    },
    Close {
        of: Arc<TryFile>,
    },
    /// The process lets go of a run, whose file this is: everything of it is written, and closed.
    EndRun {
        run: RunId,
        shared: PathBuf,
        done: tokio::sync::oneshot::Sender<()>,
    },
}

/// The logs of a run.
#[derive(Clone)]
pub(crate) struct Logs {
    writer: LogWriter,
    run: RunId,
    redactor: Arc<Redactor>,
}

impl Logs {
    pub(crate) fn new(writer: LogWriter, run: RunId, redactor: Arc<Redactor>) -> Self {
        Self { writer, run, redactor }
    }

    /// The log of one try.
    pub(crate) fn of(&self, instance: &InstanceId, try_number: u32) -> TaskLog {
        let of = self.writer.root.as_ref().map(|root| Arc::new(TryFile::new(root, &self.run, instance, try_number)));
        TaskLog { of, orders: self.writer.orders.as_ref().map(|(orders, _)| orders.clone()), redactor: self.redactor.clone() }
    }

    /// Waits until everything said so far is written, and closes the run's file.
    pub(crate) async fn end(&self) {
        let (Some((orders, thread)), Some(root)) = (&self.writer.orders, &self.writer.root) else { return };
        let (done, written) = tokio::sync::oneshot::channel();
        let shared = root.join(self.run.as_str()).join(RUN_FILE);
        if orders.send(Order::EndRun { run: self.run.clone(), shared, done }).await.is_ok() {
            self.writer.wake(thread);
            // The writer answers or ends; both mean that nothing more can be waited for.
            let _ = written.await;
        }
    }
}

/// The log of one try. Secrets are masked before a line leaves.
#[derive(Clone)]
pub(crate) struct TaskLog {
    of: Option<Arc<TryFile>>,
    orders: Option<mpsc::Sender<Order>>,
    redactor: Arc<Redactor>,
}

impl TaskLog {
    /// Writes a line. From async code that may wait.
    pub(crate) async fn line(&self, at: Timestamp, level: &str, text: &str) {
        if let (Some(of), Some(orders)) = (&self.of, &self.orders) {
            let line = self.format(at, level, text);
            // The writer's end is said by the journal, not by each line.
            let _ = orders.send(Order::Line { of: of.clone(), at, line }).await;
        }
    }

    /// Writes a line from code that cannot wait; when the disk is too slow the line is dropped and false returned.
    pub(crate) fn try_line(&self, at: Timestamp, level: &str, text: &str) -> bool {
        match (&self.of, &self.orders) {
            (Some(of), Some(orders)) => {
                let line = self.format(at, level, text);
                orders.try_send(Order::Line { of: of.clone(), at, line }).is_ok()
            }
            _ => true,
        }
    }

    /// The try is over: its file can be closed.
    pub(crate) async fn close(&self) {
        if let (Some(of), Some(orders)) = (&self.of, &self.orders) {
            let _ = orders.send(Order::Close { of: of.clone() }).await;
        }
    }

    fn format(&self, at: Timestamp, level: &str, text: &str) -> String {
        let clean = self.redactor.clean(text);
        let mut out = String::with_capacity(clean.len() + 40);
        for part in clean.lines() {
            let (part, cut) = cut_line(part);
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{at:.3} {level:<5} {part}{}", if cut { " [line cut]" } else { "" });
        }
        out
    }
}

fn cut_line(line: &str) -> (&str, bool) {
    if line.len() <= LINE_BYTES_MAX {
        return (line, false);
    }
    let end = (0..=LINE_BYTES_MAX).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    (&line[..end], true)
}

#[cfg(test)]
mod tests;
