//! `backstop logs`: what a try of a task wrote.

use crate::args::{self, LogsArgs, Place};
use crate::explain::{Exit, Problem};
use crate::{output, paths, runs, words};
use backstop_core::{InstanceId, RunId, TaskId};
use backstop_runtime::{LogReader, log_tries};
use backstop_store::{InstanceRow, SqliteStore, Store};
use jiff::Timestamp;
use std::path::Path;
use std::time::Duration;

/// Between two looks at a file that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows a log.
pub(crate) fn logs(arguments: &LogsArgs, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    let store = SqliteStore::open_read_only(&kept.store)?;
    runs::block_on(async {
        let row = runs::find(&store, &arguments.run, runs::Latest::Any).await?;
        let run = row.header.run_id.clone();
        let instances = store.instances(&run).await?;
        let instance = match choose_instance(arguments, &instances) {
            Ok(instance) => instance,
            // Callbacks have logs beside those of their tasks: `load.callback_failure_0`, `run.callback_failure_0`.
            Err(problem) => {
                let (task, map_index) = args::instance(&arguments.task);
                let named = InstanceId { task: TaskId::new(task), map_index: arguments.map_index.or(map_index) };
                let is_there =
                    task.contains(".callback_") && !log_tries(&kept.logs, &run, row.header.queued_at, &named).is_empty();
                if is_there { named } else { return Err(problem) }
            }
        };
        let followed = Followed { store: &store, root: &kept.logs, run, since: row.header.queued_at, instance };
        if arguments.follow { followed.follow(arguments.try_number).await } else { followed.show(arguments.try_number).await }
    })?;
    Ok(Exit::Success)
}

fn choose_instance(arguments: &LogsArgs, instances: &[InstanceRow]) -> Result<InstanceId, Problem> {
    let (task, indexed) = args::instance(&arguments.task);
    let wanted = InstanceId { task: TaskId::new(task), map_index: arguments.map_index.or(indexed) };
    if instances.iter().any(|row| row.instance == wanted) {
        return Ok(wanted);
    }
    let indexes: Vec<String> = instances
        .iter()
        .filter(|row| row.instance.task == wanted.task)
        .filter_map(|row| row.instance.map_index)
        .map(|index| index.to_string())
        .collect();
    if !indexes.is_empty() {
        return Err(Problem::usage(format!("task `{task}` is mapped: say which instance"))
            .hint(format!("--map-index {}", indexes.join(", "))));
    }
    let mut problem = Problem::usage(format!("there is no task `{wanted}` in this run"));
    let mut known: Vec<&str> = instances.iter().map(|row| row.instance.task.as_str()).collect();
    known.dedup();
    problem.hints = words::hints_for_name(task, "tasks that have begun", known);
    Err(problem)
}

/// One instance's logs.
struct Followed<'a> {
    store: &'a dyn Store,
    root: &'a Path,
    run: RunId,
    /// When the run was asked for.
    since: Timestamp,
    instance: InstanceId,
}

impl Followed<'_> {
    fn tail(&self, try_number: u32) -> Tail {
        Tail(LogReader::new(self.root, &self.run, self.since, &self.instance, try_number))
    }

    /// The tries that have a file.
    fn tries(&self) -> Vec<u32> {
        log_tries(self.root, &self.run, self.since, &self.instance)
    }

    fn absent(&self, try_number: Option<u32>) -> Problem {
        let tries = self.tries();
        let what = match try_number {
            Some(number) => format!("there is no log of try {number} of `{}`", self.instance),
            None => format!("`{}` has written no log", self.instance),
        };
        let hint = if tries.is_empty() {
            format!("logs are kept in {}; tasks of the kind `empty` and tasks that did not run have none", self.root.display())
        } else {
            let tries: Vec<String> = tries.iter().map(u32::to_string).collect();
            format!("there are logs of these tries: {}", tries.join(", "))
        };
        Problem::usage(what).hint(hint)
    }

    async fn show(&self, try_number: Option<u32>) -> Result<(), Problem> {
        let number = try_number.or_else(|| self.tries().last().copied()).ok_or_else(|| self.absent(None))?;
        let mut tail = self.tail(number);
        if !tail.copy()? {
            return Err(self.absent(Some(number)));
        }
        Ok(())
    }

    /// The try that runs or waits; `None` when there will be no other.
    async fn current_try(&self) -> Result<Option<u32>, Problem> {
        if runs::is_over(self.store, &self.run).await? {
            return Ok(None);
        }
        let instances = self.store.instances(&self.run).await?;
        let row = instances.into_iter().find(|row| row.instance == self.instance);
        Ok(row
            .filter(|row| !matches!(row.state.as_str(), "success" | "failed" | "skipped" | "upstream_failed"))
            .map(|row| row.try_number.max(1)))
    }

    async fn follow(&self, try_number: Option<u32>) -> Result<(), Problem> {
        let mut number = match try_number {
            Some(number) => number,
            None => self.tries().last().copied().unwrap_or(1),
        };
        let mut tail = self.tail(number);
        let mut was_there = false;
        loop {
            // Asked before the file is read: what a task that is done, or has begun its next try, has not written by then it will never
            // write.
            let current = self.current_try().await?;
            let later = self.tries().into_iter().find(|later| *later > number);
            was_there |= tail.copy()?;
            match (current, later) {
                // Whole tries may have come and gone between two looks: none is left out.
                (_, Some(next)) if try_number.is_none() => {
                    number = next;
                    tail = self.tail(number);
                    output::note(&format!("try {number}"));
                    continue;
                }
                (None, _) if was_there => return Ok(()),
                (None, _) => return Err(self.absent(Some(number))),
                (Some(next), _) if try_number.is_some() && next > number => return Ok(()),
                (Some(_), _) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// A log that grows.
struct Tail(LogReader);

impl Tail {
    /// Copies what is new to standard output. False while there is nothing of it at all.
    fn copy(&mut self) -> Result<bool, Problem> {
        loop {
            let lines = self.0.read_new().map_err(|error| Problem::system("read the log".to_owned(), &error))?;
            if lines.is_empty() {
                return Ok(self.0.has_given());
            }
            output::data(&String::from_utf8_lossy(&lines))?;
        }
    }
}
