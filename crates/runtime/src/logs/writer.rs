//! The thread that writes logs.

use super::{Order, TryFile};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A try that says more gets a file of its own.
const SHARED_BYTES_MAX: usize = 16 * 1024;
/// Own files kept open at once.
const FILES_OPEN_MAX: usize = 64;
/// After a burst the writer rests so long and then takes all that has come: waking it for each line would cost more than the line.
const REST: Duration = Duration::from_millis(5);

/// How far a try has come.
enum Stage {
    /// All it has said so far, which is in the run's file.
    Shared(String),
    /// It has its own file; closed when too many are open.
    Own(Option<BufWriter<File>>),
}

#[derive(Default)]
struct Files {
    shared: HashMap<PathBuf, BufWriter<File>>,
    tries: HashMap<PathBuf, Stage>,
    open: usize,
}

/// Runs until every sender is gone. A line that cannot be written is lost, and said once on standard error: the run's truth is in the
/// store, not here.
pub(super) fn write_all(mut orders: mpsc::Receiver<Order>) {
    let mut files = Files::default();
    let mut complained = false;
    while let Some(order) = orders.blocking_recv() {
        let outcome = match order {
            Order::Line { of, line } => files.line(&of, &line),
            Order::Close { of } => files.close(&of),
            Order::EndRun { shared, done } => {
                let ended = files.end_run(&shared);
                // Nobody waits any more: fine.
                let _ = done.send(());
                ended
            }
        };
        let outcome = match orders.is_empty() {
            // Nothing else to write: let `logs -f` see what there is.
            true => outcome.and(files.flush()),
            false => outcome,
        };
        if let Err(error) = outcome
            && !complained
        {
            complained = true;
            #[expect(clippy::print_stderr, reason = "the log cannot tell that it cannot be written")]
            {
                eprintln!("warning: task logs cannot be written: {error}");
            }
        }
        if orders.is_empty() {
            std::thread::park_timeout(REST);
        }
    }
}

impl Files {
    fn line(&mut self, of: &Arc<TryFile>, lines: &str) -> io::Result<()> {
        if !self.tries.contains_key(&of.own) {
            // A sensor goes on with its try, and a resumed run with its folder: an own file stays in use.
            let stage = if of.own.exists() { Stage::Own(None) } else { Stage::Shared(String::new()) };
            self.tries.insert(of.own.clone(), stage);
        }
        let Some(stage) = self.tries.get_mut(&of.own) else { return Ok(()) };
        match stage {
            Stage::Shared(said) if said.len() + lines.len() <= SHARED_BYTES_MAX => {
                said.push_str(lines);
                let shared = shared_file(&mut self.shared, &of.shared)?;
                lines.lines().try_for_each(|line| writeln!(shared, "{}\t{line}", of.name))
            }
            Stage::Shared(said) => {
                let mut file = append_to(&of.own)?;
                file.write_all(said.as_bytes())?;
                file.write_all(lines.as_bytes())?;
                *stage = Stage::Own(Some(file));
                self.open += 1;
                self.close_some()
            }
            Stage::Own(Some(file)) => file.write_all(lines.as_bytes()),
            Stage::Own(closed) => {
                let mut file = append_to(&of.own)?;
                file.write_all(lines.as_bytes())?;
                *closed = Some(file);
                self.open += 1;
                self.close_some()
            }
        }
    }

    fn close(&mut self, of: &TryFile) -> io::Result<()> {
        match self.tries.remove(&of.own) {
            Some(Stage::Own(Some(mut file))) => {
                self.open -= 1;
                file.flush()
            }
            Some(Stage::Own(None) | Stage::Shared(_)) | None => Ok(()),
        }
    }

    /// Closes all own files when too many are open; each is opened again by its next line.
    fn close_some(&mut self) -> io::Result<()> {
        if self.open <= FILES_OPEN_MAX {
            return Ok(());
        }
        self.open = 0;
        self.tries.values_mut().try_for_each(|stage| match stage {
            Stage::Own(file) => file.take().map_or(Ok(()), |mut file| file.flush()),
            Stage::Shared(_) => Ok(()),
        })
    }

    fn end_run(&mut self, shared: &Path) -> io::Result<()> {
        let folder = shared.parent();
        let mut outcome = self.shared.remove(shared).map_or(Ok(()), |mut file| file.flush());
        // Tries that did not say that they are over: their process lets go of them.
        for (_, stage) in self.tries.extract_if(|own, _| own.parent() == folder) {
            if let Stage::Own(Some(mut file)) = stage {
                self.open -= 1;
                outcome = outcome.and(file.flush());
            }
        }
        outcome
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shared.values_mut().try_for_each(|file| file.flush())?;
        self.tries.values_mut().try_for_each(|stage| match stage {
            Stage::Own(Some(file)) => file.flush(),
            Stage::Own(None) | Stage::Shared(_) => Ok(()),
        })
    }
}

fn shared_file<'a>(files: &'a mut HashMap<PathBuf, BufWriter<File>>, path: &Path) -> io::Result<&'a mut BufWriter<File>> {
    if !files.contains_key(path) {
        files.insert(path.to_owned(), append_to(path)?);
    }
    files.get_mut(path).ok_or_else(|| io::Error::other("the run's log is not open"))
}

fn append_to(path: &Path) -> io::Result<BufWriter<File>> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(BufWriter::new(OpenOptions::new().create(true).append(true).open(path)?))
}
