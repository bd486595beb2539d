//! The lines of a service, on standard error: for journald, docker, or whoever collects them there.
//!
//! A thread of its own writes them, so that a reader that does not read holds up no run: lines that find the queue full are counted, and
//! the count is told when there is room again.

use crate::args::LogLevel;
use crate::output::Painter;
use crate::run::begin::now;
use backstop_runtime::service::Level;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 8192;
/// How long the end of the service waits for a reader.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Writes lines.
pub(super) struct Log {
    level: Level,
    lost: AtomicU64,
    /// Taken at the end, together with what tells that all is written.
    running: Mutex<Option<(SyncSender<String>, Receiver<()>)>>,
}

impl Log {
    /// Starts the thread. Should the system have none to give, lines are lost: the service is not.
    pub(super) fn start(level: LogLevel) -> Self {
        let (sender, lines) = mpsc::sync_channel(LINES_WAITING_MAX);
        let (done, ended) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("log".into()).spawn(move || {
            write_all(&lines);
            // Nobody waits any more where this fails.
            let _ = done.send(());
        });
        let level = match level {
            LogLevel::Error => Level::Error,
            LogLevel::Warn => Level::Warn,
            LogLevel::Info => Level::Info,
            LogLevel::Debug => Level::Debug,
        };
        Self { level, lost: AtomicU64::new(0), running: Mutex::new(thread.ok().map(|_| (sender, ended))) }
    }

    /// The least that matters enough.
    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Queues a line, where it matters enough.
    pub(super) fn line(&self, level: Level, text: &str) {
        if level > self.level {
            return;
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((sender, _)) = &*running else { return };
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 && sender.try_send(presented(Level::Warn, &format!("{lost} lines were lost: nobody read them"))).is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        if sender.try_send(presented(level, text)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all is written, as long as somebody reads.
    pub(super) fn finish(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, ended)) = running {
            drop(sender);
            // Else nobody reads: the lines are lost with the process.
            let _ = ended.recv_timeout(END_WITHIN);
        }
    }
}

/// `2026-11-23T02:00:04.512Z ERROR run ... failed`: the level is as wide as the widest.
fn presented(level: Level, text: &str) -> String {
    let paint = Painter::stderr();
    let word = match level {
        Level::Error => paint.bad("ERROR"),
        Level::Warn => paint.warn("WARN "),
        Level::Info => "INFO ".to_owned(),
        Level::Debug => paint.dim("DEBUG"),
    };
    format!("{:.3} {word} {text}\n", now())
}

fn write_all(lines: &Receiver<String>) {
    while let Ok(line) = lines.recv() {
        let mut stderr = std::io::stderr().lock();
        if stderr.write_all(line.as_bytes()).is_err() {
            // There is nobody to tell.
            return;
        }
    }
}
