//! One log file for each try, beside the store: `logs/RUN/TASK.try-N.log` (one folder a run: making a folder costs more than making a file).
//!
//! Lines are written by one thread, so that a slow disk does not stop the engine; the channel is bounded, so that a task that floods
//! its log waits for the disk instead of filling the memory.

use crate::redact::Redactor;
use backstop_core::{InstanceId, RunId};
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;
use tokio::sync::mpsc;

/// Lines that may wait for the disk.
const LINES_WAITING_MAX: usize = 4096;
/// Files kept open at once.
const FILES_OPEN_MAX: usize = 64;
/// After a burst the writer rests so long and then takes all that has come: waking it for each line would cost more than the line.
const REST: Duration = Duration::from_millis(5);
/// A longer line is cut, and says so.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Where logs go.
#[derive(Clone, Debug)]
pub struct LogFolder {
    /// The folder that holds one folder a run; made when the first line is written. `None` keeps no logs.
    pub root: Option<PathBuf>,
}

/// Bytes of a task's name that go into a file's name; a longer one is cut, and told apart by a hash of the whole.
const NAME_BYTES_MAX: usize = 180;

/// The file of one try.
pub fn log_path(root: &Path, run: &RunId, instance: &InstanceId, try_number: u32) -> PathBuf {
    root.join(run.as_str()).join(format!("{}.try-{try_number}.log", file_stem(instance)))
}

/// The tries of an instance that have a file, in order.
pub fn log_tries(root: &Path, run: &RunId, instance: &InstanceId) -> Vec<u32> {
    let stem = file_stem(instance);
    let entries = fs::read_dir(root.join(run.as_str())).into_iter().flatten().flatten();
    let number = |name: &str| name.strip_prefix(&stem)?.strip_prefix(".try-")?.strip_suffix(".log")?.parse().ok();
    let mut tries: Vec<u32> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    tries.sort_unstable();
    tries
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
    Line { path: Arc<PathBuf>, line: String },
    Close { path: Arc<PathBuf> },
    Flush(tokio::sync::oneshot::Sender<()>),
}

/// The writer of all logs of a run.
#[derive(Clone)]
pub(crate) struct Logs {
    root: Option<PathBuf>,
    run: RunId,
    writer: Option<(mpsc::Sender<Order>, Thread)>,
    redactor: Arc<Redactor>,
}

impl Logs {
    /// Starts the writer's thread.
    pub(crate) fn start(folder: &LogFolder, run: RunId, redactor: Arc<Redactor>) -> Self {
        let writer = folder.root.as_ref().and_then(|_| {
            let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
            let thread = std::thread::Builder::new().name("task-logs".into()).spawn(move || write_all(receiver));
            thread.ok().map(|thread| (sender, thread.thread().clone()))
        });
        Self { root: folder.root.clone(), run, writer, redactor }
    }

    /// The log of one try.
    pub(crate) fn of(&self, instance: &InstanceId, try_number: u32) -> TaskLog {
        let path = self.root.as_ref().map(|root| Arc::new(log_path(root, &self.run, instance, try_number)));
        TaskLog { path, orders: self.writer.as_ref().map(|(orders, _)| orders.clone()), redactor: self.redactor.clone() }
    }

    /// Waits until everything said so far is written.
    pub(crate) async fn flush(&self) {
        let Some((orders, thread)) = &self.writer else { return };
        let (done, written) = tokio::sync::oneshot::channel();
        if orders.send(Order::Flush(done)).await.is_ok() {
            thread.unpark();
            // The writer answers or ends; both mean that nothing more can be waited for.
            let _ = written.await;
        }
    }
}

/// The log of one try. Secrets are masked before a line leaves.
#[derive(Clone)]
pub(crate) struct TaskLog {
    path: Option<Arc<PathBuf>>,
    orders: Option<mpsc::Sender<Order>>,
    redactor: Arc<Redactor>,
}

impl TaskLog {
    /// Writes a line. From async code that may wait.
    pub(crate) async fn line(&self, at: Timestamp, level: &str, text: &str) {
        if let (Some(path), Some(orders)) = (&self.path, &self.orders) {
            let line = self.format(at, level, text);
            // The writer's end is said by the journal, not by each line.
            let _ = orders.send(Order::Line { path: path.clone(), line }).await;
        }
    }

    /// Writes a line from code that cannot wait; when the disk is too slow the line is dropped and false returned.
    pub(crate) fn try_line(&self, at: Timestamp, level: &str, text: &str) -> bool {
        match (&self.path, &self.orders) {
            (Some(path), Some(orders)) => {
                let line = self.format(at, level, text);
                orders.try_send(Order::Line { path: path.clone(), line }).is_ok()
            }
            _ => true,
        }
    }

    /// The try is over: its file can be closed.
    pub(crate) async fn close(&self) {
        if let (Some(path), Some(orders)) = (&self.path, &self.orders) {
            let _ = orders.send(Order::Close { path: path.clone() }).await;
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

/// Runs until every sender is gone. A line that cannot be written is lost, and said once on standard error: the run's truth is in the
/// store, not here.
fn write_all(mut orders: mpsc::Receiver<Order>) {
    let mut files: HashMap<Arc<PathBuf>, io::BufWriter<File>> = HashMap::new();
    let mut complained = false;
    while let Some(order) = orders.blocking_recv() {
        let outcome = match order {
            Order::Line { path, line } => write_line(&mut files, &path, &line),
            Order::Close { path } => files.remove(&path).map_or(Ok(()), |mut file| file.flush()),
            Order::Flush(done) => {
                let flushed = files.values_mut().try_for_each(|file| file.flush());
                // Nobody waits any more: fine.
                let _ = done.send(());
                flushed
            }
        };
        if orders.is_empty() {
            // Nothing else to write: let `logs -f` see what there is.
            let _ = files.values_mut().try_for_each(|file| file.flush());
            std::thread::park_timeout(REST);
        }
        if let Err(error) = outcome
            && !complained
        {
            complained = true;
            #[expect(clippy::print_stderr, reason = "the log cannot tell that it cannot be written")]
            {
                eprintln!("warning: task logs cannot be written: {error}");
            }
        }
    }
}

fn write_line(files: &mut HashMap<Arc<PathBuf>, io::BufWriter<File>>, path: &Arc<PathBuf>, line: &str) -> io::Result<()> {
    if !files.contains_key(path) {
        if files.len() >= FILES_OPEN_MAX {
            files.values_mut().try_for_each(|file| file.flush())?;
            files.clear();
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path.as_path())?;
        files.insert(path.clone(), io::BufWriter::new(file));
    }
    match files.get_mut(path) {
        Some(file) => file.write_all(line.as_bytes()),
        None => Ok(()),
    }
}
