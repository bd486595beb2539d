//! A thread that writes lines: a slow reader makes the run wait once the queue is full, and not before.

use std::io::{BufWriter, Write};
use std::sync::mpsc::{self, Receiver, SyncSender, TryRecvError};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 8192;
/// After a burst the thread rests so long and then takes all that has come: waking it for each line would cost more than the line.
const REST: Duration = Duration::from_millis(5);

/// Writes lines to a stream, in order.
pub(super) struct Printer {
    /// Taken when the printer is finished.
    running: Mutex<Option<(SyncSender<String>, JoinHandle<()>)>>,
}

impl Printer {
    /// Starts the thread. Should the system have none to give, lines are lost: the run is not.
    pub(super) fn start(stream: impl Write + Send + 'static) -> Self {
        let (sender, lines) = mpsc::sync_channel(LINES_WAITING_MAX);
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || write_all(&lines, stream));
        Self { running: Mutex::new(thread.ok().map(|thread| (sender, thread))) }
    }

    /// Queues a line, without its line feed.
    pub(super) fn line(&self, line: String) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, _)) = &*running {
            // The thread ends only when nobody reads the stream any more; then nobody misses the line.
            drop(sender.send(line));
        }
    }

    /// Waits until everything is written.
    pub(super) fn finish(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = running {
            drop(sender);
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

fn write_all(lines: &Receiver<String>, stream: impl Write) {
    let mut stream = BufWriter::new(stream);
    loop {
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Disconnected) => return,
            // Nothing else to write: let the reader see what there is.
            Err(TryRecvError::Empty) => {
                if stream.flush().is_err() {
                    return;
                }
                std::thread::park_timeout(REST);
                match lines.recv() {
                    Ok(line) => line,
                    Err(_) => return,
                }
            }
        };
        if writeln!(stream, "{line}").is_err() {
            return;
        }
    }
}
