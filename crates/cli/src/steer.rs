//! `backstop runs clear`, `retry`, `mark` and `why`: what people do to a run that no process drives, and why a task of it waits.

pub(crate) mod arguments;

use crate::args::{self, Place};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::run::begin::who;
use crate::runs::{self, Latest, block_on, shape};
use crate::{paths, words};
use arguments::{ClearArgs, MarkArgs, RetryArgs, SteerCommand};
use backstop_core::command::Rejected;
use backstop_core::event::{Mark, Restart};
use backstop_core::{
    Command, Event, InstanceId, InstancePhase, InstanceView, RunState, Selection, TaskId, decide, select, select_failed, why,
};
use backstop_runtime::steer::{self, Idle};
use backstop_runtime::{Clock as _, SystemClock};
use backstop_store::{ErrorKind, RunLock, RunRow, SqliteStore, Store};
use std::collections::HashMap;
use std::path::Path;

/// Steers a run.
pub(crate) fn steer(command: SteerCommand, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    block_on(async {
        match command {
            SteerCommand::Clear(arguments) => clear(&arguments, &kept.store, &kept.flags).await,
            SteerCommand::Retry(arguments) => retry(&arguments, &kept.store, &kept.flags).await,
            SteerCommand::Mark(arguments) => mark(&arguments, &kept.store, &kept.flags).await,
            SteerCommand::Why { run, task } => tell_why(&run, &task, &kept.store, &kept.flags).await,
        }
    })?;
    Ok(Exit::Success)
}

async fn clear(arguments: &ClearArgs, path: &Path, flags: &str) -> Result<(), Problem> {
    let mut held = Held::open(&arguments.run, path, flags, arguments.dry_run).await?;
    let ClearArgs { upstream, downstream, only_failed, only_running, .. } = *arguments;
    let state = held.idle.state();
    let tasks = named(state, &arguments.tasks)?;
    let instances = select(state, &Selection { tasks, upstream, downstream, only_failed, only_running });
    let (who, why) = signed(arguments.who.as_ref(), arguments.reason.as_ref());
    let command = Command::Clear { instances, restart: Restart::Beginning, who, why };
    held.carry_out(command, arguments.dry_run).await
}

async fn retry(arguments: &RetryArgs, path: &Path, flags: &str) -> Result<(), Problem> {
    let mut held = Held::open(&arguments.run, path, flags, arguments.dry_run).await?;
    let instances = select_failed(held.idle.state());
    if instances.is_empty() {
        let run = &held.row.header.run_id;
        return Err(Problem::usage(format!("nothing of run {run} has failed: there is nothing to retry"))
            .hint(format!("`backstop runs show {run}{flags}` tells how its tasks stand")));
    }
    let (who, why) = signed(arguments.who.as_ref(), arguments.reason.as_ref());
    let command = Command::Clear { instances, restart: Restart::LastCommit, who, why };
    held.carry_out(command, arguments.dry_run).await
}

async fn mark(arguments: &MarkArgs, path: &Path, flags: &str) -> Result<(), Problem> {
    let mut held = Held::open(&arguments.run, path, flags, false).await?;
    let state = held.idle.state();
    let instances = all_instances(state, &named(state, &arguments.tasks)?);
    let mark = if arguments.success { Mark::Success } else { Mark::Failed };
    let (who, why) = signed(arguments.who.as_ref(), Some(&arguments.reason));
    held.carry_out(Command::Mark { instances, mark, who, why }, false).await
}

async fn tell_why(run: &str, task: &str, path: &Path, flags: &str) -> Result<(), Problem> {
    // Reading takes no lock: a run that goes on is read as far as its log is durable.
    let held = Held::open(run, path, flags, true).await?;
    let state = held.idle.state();
    for instance in all_instances(state, &named(state, &[task.to_owned()])?) {
        if let Some(why) = why(state, &instance) {
            output::data(&format!("{instance}: {why}\n"))?;
        }
    }
    if runs::is_abandoned(&held.store, &held.row).await? {
        output::note(&format!("nobody runs {}: {}", held.row.header.run_id, held.resume()));
    }
    Ok(())
}

fn signed(name: Option<&String>, reason: Option<&String>) -> (String, String) {
    // A dry run is not recorded, so that it needs no reason.
    (name.cloned().unwrap_or_else(who), reason.cloned().unwrap_or_else(|| "dry run".to_owned()))
}

/// A run, with its lock unless it is only looked at.
struct Held<'a> {
    store: SqliteStore,
    row: RunRow,
    idle: Idle,
    flags: &'a str,
    _lock: Option<RunLock>,
}

impl<'a> Held<'a> {
    async fn open(wanted: &str, path: &Path, flags: &'a str, only_looks: bool) -> Result<Self, Problem> {
        let store = if only_looks {
            SqliteStore::open_read_only(path)?
        } else {
            SqliteStore::open(path, backstop_store::sqlite::Options::default())?
        };
        let row = runs::find(&store, wanted, Latest::Any).await?;
        let run = row.header.run_id.clone();
        let lock = match only_looks {
            true => None,
            false => Some(store.lock_run(&run).map_err(held_by_another)?),
        };
        let dag = shape::read(&store, &row).await.ok_or_else(|| {
            Problem::usage(format!("the files that run {run} began with are not kept, or not understood by this version"))
        })?;
        let idle = Idle::read(&store, dag, &run).await.map_err(|error| refused(error, &row, flags))?;
        Ok(Self { store, row, idle, flags, _lock: lock })
    }

    fn resume(&self) -> String {
        resume_command(&self.row, self.flags)
    }

    async fn carry_out(&mut self, command: Command, is_dry: bool) -> Result<(), Problem> {
        // A clock that was set back must not put this before the run's last event.
        let version = self.idle.state().version();
        let last = self.store.events(&self.row.header.run_id, version.saturating_sub(1), 1).await?;
        let now = SystemClock::starting(last.first().map(|recorded| recorded.at)).now();
        let refusal = |error| refused(error, &self.row, self.flags);
        let before = self.idle.state().clone();
        let events = if is_dry {
            decide(&before, command, now).map_err(|error| refusal(error.into()))?
        } else {
            self.idle.act(&self.store, command, now).await.map_err(refusal)?
        };
        output::data(&output::table(&table(&before, &events), Painter::stdout()))?;
        if is_dry {
            output::note("nothing was changed: leave --dry-run out, and say why with --reason");
        } else {
            output::note(&format!("recorded; now: {}", self.resume()));
        }
        Ok(())
    }
}

fn resume_command(row: &RunRow, flags: &str) -> String {
    format!("backstop run --resume {}{flags}", row.header.run_id)
}

fn held_by_another(error: backstop_store::Error) -> Problem {
    let is_busy = error.kind == ErrorKind::Busy;
    let mut problem = Problem::from(error);
    if is_busy {
        problem.hints = vec![
            "a run that goes on is steered through the service that drives it; otherwise wait until that process has ended, or stop it"
                .to_owned(),
        ];
    }
    problem
}

fn refused(error: steer::Error, row: &RunRow, flags: &str) -> Problem {
    let again = resume_command(row, flags);
    let problem = Problem::usage(error.to_string());
    match error {
        steer::Error::Read(error) => Problem::from(error),
        steer::Error::NoRun(_) => problem,
        steer::Error::Unsettled { .. } => {
            problem.hint(format!("let it find out and go on first: {again}")).hint("then run again what did not go well")
        }
        steer::Error::Rejected(Rejected::InDoubt(instance)) => {
            let word = paths::shell_word(&instance.to_string());
            let resolve = format!("{again} --resolve {word}=committed --why \"how you know\"");
            problem.hint(format!("find out what it did, then say so: {resolve} (or {word}=not-committed)"))
        }
        steer::Error::Rejected(_) => problem,
        steer::Error::Append(cause) => problem.cause(cause.to_string()),
    }
}

/// What a person named: tasks, groups, instances.
fn named(state: &RunState, names: &[String]) -> Result<Vec<InstanceId>, Problem> {
    let dag = state.dag();
    let mut found = Vec::new();
    for name in names {
        let inside = format!("{name}.");
        if dag.groups().iter().any(|group| group.id == *name) {
            let tasks = dag.tasks().iter().filter(|task| task.id.as_str().starts_with(&inside));
            found.extend(tasks.map(|task| InstanceId::single(task.id.clone())));
            continue;
        }
        let (task, map_index) = args::instance(name);
        let id = InstanceId { task: TaskId::new(task), map_index };
        if dag.index(task).is_none() || (map_index.is_some() && state.instance(&id).is_none()) {
            let mut problem = Problem::usage(format!("there is no task `{name}` in this run of `{}`", dag.id()));
            problem.hints = words::hints_for_name(task, "tasks", dag.tasks().iter().map(|task| task.id.as_str()));
            return Err(problem);
        }
        found.push(id);
    }
    Ok(found)
}

/// Of a mapped task without an index, all its instances.
fn all_instances(state: &RunState, named: &[InstanceId]) -> Vec<InstanceId> {
    let is_meant = |id: &InstanceId| {
        named.iter().any(|one| one.task == id.task && (one.map_index.is_none() || one.map_index == id.map_index))
    };
    state.instances().map(|(id, _)| id).filter(is_meant).collect()
}

/// What the events change, an instance a line, in the order of the source.
fn table(before: &RunState, events: &[Event]) -> Vec<Vec<String>> {
    let mut changed: HashMap<InstanceId, Vec<String>> = HashMap::new();
    let mut row = |instance: &InstanceId, now: &dyn Fn(&InstanceView<'_>) -> String| {
        if let Some(view) = before.instance(instance) {
            let (was, tries) = (view.phase.as_str().to_owned(), view.try_number.to_string());
            changed.insert(instance.clone(), vec![instance.to_string(), was, tries, now(&view)]);
        }
    };
    for event in events {
        match event {
            Event::InstancesCleared { instances, restart } => {
                instances.iter().for_each(|instance| row(instance, &|view| runs_again(view, *restart)));
            }
            Event::InstanceMarked { instance, mark: Mark::Success } => row(instance, &|_| "marked success".to_owned()),
            Event::InstanceMarked { instance, mark: Mark::Failed } => row(instance, &|_| "marked failed".to_owned()),
            Event::InstanceCancelRequested { instance, .. } => row(instance, &|_| "cancelled first".to_owned()),
            _ => {}
        }
    }
    let heading = ["TASK", "WAS", "TRIES", "NOW"].map(str::to_owned).to_vec();
    std::iter::once(heading).chain(before.instances().filter_map(|(id, _)| changed.remove(&id))).collect()
}

fn runs_again(view: &InstanceView<'_>, restart: Restart) -> String {
    match (view.segments.len(), restart) {
        (0, _) if matches!(view.phase, InstancePhase::UpstreamFailed | InstancePhase::Skipped) => "is judged anew".to_owned(),
        (0, _) => "runs again".to_owned(),
        (committed, Restart::Beginning) => {
            format!("runs again from the beginning: {} once more", words::count(committed, "committed segment"))
        }
        (committed, Restart::LastCommit) => format!("goes on behind {}", words::count(committed, "committed segment")),
    }
}
