//! The thread that writes logs.

use super::hours::Hours;
use super::{Order, TryFile};
use backstop_core::RunId;
use jiff::Timestamp;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A try that says more gets a file of its own.
const SHARED_BYTES_MAX: usize = 16 * 1024;
/// A run that says more gets a file of its own: what many runs share must stay quick to look through.
const HOUR_BYTES_MAX: usize = 64 * 1024;
/// Own files kept open at once.
const FILES_OPEN_MAX: usize = 64;
/// After a burst the writer rests so long and then takes all that has come: waking it for each line would cost more than the line.
pub(super) const REST: Duration = Duration::from_millis(5);

/// How far a try has come.
enum Stage {
    /// All it has said so far, which is in the file of the hour or of the run.
    Shared(String),
    /// It has its own file; closed when too many are open.
    Own(Option<BufWriter<File>>),
}

/// Where the lines of a run go that have no file of their own.
enum RunStage {
    /// To the file of the hour, and so many bytes so far.
    Hour(usize),
    /// To its own.
    Own(BufWriter<File>),
}

/// What is known of a run.
struct RunLog {
    stage: RunStage,
    /// It has a folder, so there may be files of it. Most runs have none, and are not asked about each.
    has_folder: bool,
    /// Its tries that have said something and not that they are over.
    tries: usize,
}

#[derive(Default)]
struct Files {
    hours: Hours,
    runs: HashMap<RunId, RunLog>,
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
            Order::Line { of, at, line } => files.line(&of, at, &line),
            Order::Close { of } => files.close(&of),
            Order::EndRun { run, shared, done } => {
                let ended = files.end_run(&run, &shared);
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
    fn line(&mut self, of: &Arc<TryFile>, at: Timestamp, lines: &str) -> io::Result<()> {
        let run = of_run(&mut self.runs, of)?;
        if !self.tries.contains_key(&of.own) {
            // A sensor goes on with its try, and a resumed run with its folder: an own file stays in use.
            let is_own = run.has_folder && of.own.exists();
            run.tries += 1;
            self.tries.insert(of.own.clone(), if is_own { Stage::Own(None) } else { Stage::Shared(String::new()) });
        }
        let Some(stage) = self.tries.get_mut(&of.own) else { return Ok(()) };
        match stage {
            Stage::Shared(said) if said.len() + lines.len() <= SHARED_BYTES_MAX => {
                said.push_str(lines);
                run_lines(run, &mut self.hours, of, at, lines)
            }
            Stage::Shared(said) => {
                let mut file = append_to(&of.own)?;
                run.has_folder = true;
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
        let stage = self.tries.remove(&of.own);
        if let Some(run) = self.runs.get_mut(&of.run).filter(|_| stage.is_some()) {
            run.tries -= 1;
        }
        match stage {
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

    fn end_run(&mut self, run: &RunId, shared: &Path) -> io::Result<()> {
        let folder = shared.parent();
        let Some(ended) = self.runs.remove(run) else { return Ok(()) };
        // Its first lines are there, also where the later ones have a file of their own.
        let mut outcome = self.hours.flush();
        if let RunStage::Own(mut file) = ended.stage {
            outcome = outcome.and(file.flush());
        }
        if ended.tries == 0 {
            return outcome;
        }
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
        self.hours.flush()?;
        self.runs.values_mut().try_for_each(|run| match &mut run.stage {
            RunStage::Own(file) => file.flush(),
            RunStage::Hour(_) => Ok(()),
        })?;
        self.tries.values_mut().try_for_each(|stage| match stage {
            Stage::Own(Some(file)) => file.flush(),
            Stage::Own(None) | Stage::Shared(_) => Ok(()),
        })
    }
}

fn of_run<'r>(runs: &'r mut HashMap<RunId, RunLog>, of: &TryFile) -> io::Result<&'r mut RunLog> {
    Ok(match runs.entry(of.run.clone()) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(place) => {
            let has_folder = of.shared.parent().is_some_and(Path::exists);
            // A run that an earlier process gave a file keeps to it.
            let is_own = has_folder && of.shared.exists();
            let stage = if is_own { RunStage::Own(append_to(&of.shared)?) } else { RunStage::Hour(0) };
            place.insert(RunLog { stage, has_folder, tries: 0 })
        }
    })
}

fn run_lines(run: &mut RunLog, hours: &mut Hours, of: &TryFile, at: Timestamp, lines: &str) -> io::Result<()> {
    if let RunStage::Hour(said) = &mut run.stage {
        if *said + lines.len() <= HOUR_BYTES_MAX {
            *said += lines.len();
            let hour = hours.at(&of.root, at)?;
            // In one piece: other processes append to the same file, and must not come between two halves of a line.
            let text: String = lines.lines().map(|line| format!("{}\t{}\t{line}\n", of.run, of.name)).collect();
            return hour.write_all(text.as_bytes());
        }
        run.stage = RunStage::Own(append_to(&of.shared)?);
        run.has_folder = true;
    }
    match &mut run.stage {
        RunStage::Own(file) => lines.lines().try_for_each(|line| writeln!(file, "{}\t{line}", of.name)),
        RunStage::Hour(_) => Ok(()),
    }
}

pub(super) fn append_to(path: &Path) -> io::Result<BufWriter<File>> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // For their owner alone: what a task prints may be secret without anybody knowing.
    Ok(BufWriter::new(OpenOptions::new().create(true).append(true).mode(0o600).open(path)?))
}
