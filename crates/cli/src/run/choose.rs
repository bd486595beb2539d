//! A new run, or one that was left: a command that is given again after a crash should not do the work twice.

use super::is_same;
use crate::args::RunArgs;
use crate::explain::{self, Problem};
use crate::{output, runs, words};
use backstop_core::event::Promise;
use backstop_core::state::RunPhase;
use backstop_core::{DagId, Event, RunId, TaskId};
use backstop_project::definition::{Definition, Kind};
use backstop_runtime::run::Request;
use backstop_store::{ErrorKind, RunFilter, RunLock, RunRow, Store};
use std::collections::BTreeMap;
use std::io::BufRead as _;

/// Unfinished runs that are looked at.
const RUNS_LOOKED_AT: u32 = 50;
/// Runs that are read at once while one that succeeded is looked for.
const RUNS_AT_ONCE: u32 = 500;
/// Runs among which a success is looked for that is only worth a remark.
const RUNS_REMARKED_MAX: usize = 1000;

/// For those who do mean to do the same work at the same time.
const SECOND_TIME: &str = "start it a second time with --new, if that is what you mean";

/// Locks the work itself (DAG, date, parameters, tasks) for this process, before earlier runs are looked for: of two processes that are
/// started at the same moment, neither finds a run of the other. `None` where the same work may be done twice at once.
pub(super) fn lock_work(
    store: &dyn Store,
    definition: &Definition,
    request: &Request,
    arguments: &RunArgs,
) -> Result<Option<RunLock>, Problem> {
    let Some(date) = request.logical_date.filter(|_| arguments.logical_date.is_some() && !arguments.new && !arguments.dry_run)
    else {
        return Ok(None);
    };
    let dag = definition.dag.id();
    let params: BTreeMap<_, _> = request.params.iter().collect();
    let tasks: Vec<&str> = request.only_tasks.iter().map(TaskId::as_str).collect();
    let work = serde_json::json!([dag.as_str(), date.as_microsecond(), params, tasks]).to_string();
    let digest = backstop_connect::script::digest(std::iter::once((work.as_str(), [].as_slice(), None)));
    let key = RunId::new(format!("date-{digest}"));
    match store.lock_run(&key) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind == ErrorKind::Busy => {
            let message = error.message.replace(&format!("run {key}"), &format!("`{dag}` for {}", words::time(date)));
            Err(Problem { message, ..Problem::from(error) }.hint(SECOND_TIME))
        }
        Err(error) => Err(error.into()),
    }
}

/// Events that are read at once while effects are looked for.
const EVENTS_AT_ONCE: usize = 1000;

/// What to do.
pub(super) enum Choice {
    /// Start the run that was asked for.
    New,
    /// Go on with an earlier one.
    Resume(RunRow, RunLock),
    /// Nothing: a person changed their mind, or it is done already.
    Quit,
}

/// Looks for a run of the same DAG that nobody runs any more, and decides or asks. `again` is the beginning of a command that resumes,
/// `flags` lead other commands to the store.
pub(super) async fn choose(
    store: &dyn Store,
    definition: &Definition,
    request: &Request,
    arguments: &RunArgs,
    again: &str,
    flags: &str,
) -> Result<Choice, Problem> {
    if arguments.new || arguments.dry_run {
        return Ok(Choice::New);
    }
    if arguments.skip_if_successful
        && let Some(done) = newest(store, definition.dag.id(), request, usize::MAX, has_gone_well).await?
        // Callbacks whose process is gone are something to do: they are found below.
        && !runs::left::is_abandoned(store, &done).await?
    {
        output::note(&format!("{}: nothing to do", has_succeeded(&done)));
        return Ok(Choice::Quit);
    }
    let left = left_behind(store, definition.dag.id(), flags, |row, busy| {
        // Two processes that do the same work are never what was meant.
        if arguments.logical_date.is_some() && is_same(row, request) {
            return Err(busy.hint(SECOND_TIME));
        }
        Ok(())
    })
    .await?;
    let by_date = arguments.logical_date.is_some();
    let (same, mut others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(row, _)| by_date && is_same(row, request));
    if let Some((row, lock)) = same.into_iter().next() {
        output::note(&format!(
            "run {} of this date and these parameters {}: resuming it (a new run needs --new)",
            row.header.run_id,
            runs::how_left(&row)
        ));
        return Ok(Choice::Resume(row, lock));
    }
    if by_date && let Some(done) = newest(store, definition.dag.id(), request, RUNS_REMARKED_MAX, RunRow::is_finished).await? {
        remark(store, definition, &done, flags).await?;
    }
    if others.is_empty() {
        return Ok(Choice::New);
    }
    let (row, lock) = others.swap_remove(0);
    if output::can_ask() && !arguments.json {
        return ask(row, lock);
    }
    let more = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
    output::warn(&format!(
        "run {} of `{}`, begun {}, {}, and nobody runs it{more}; starting a new run\n         resume it with: {again} --resume {}",
        row.header.run_id,
        row.header.dag_id,
        words::time(row.header.queued_at),
        runs::how_left(&row),
        row.header.run_id,
    ));
    Ok(Choice::New)
}

/// The newest run of the same work, of the kind that is looked for, among so many.
async fn newest(
    store: &dyn Store,
    dag: &DagId,
    request: &Request,
    looked_at_max: usize,
    is_meant: fn(&RunRow) -> bool,
) -> Result<Option<RunRow>, Problem> {
    let mut filter = RunFilter { dag: Some(dag.clone()), limit: RUNS_AT_ONCE, ..RunFilter::default() };
    let mut looked_at = 0;
    loop {
        let page = store.runs(&filter).await?;
        looked_at += page.len();
        let is_last = page.len() < RUNS_AT_ONCE as usize || looked_at >= looked_at_max;
        filter.before = page.last().map(|row| row.header.run_id.clone());
        let found = page.into_iter().find(|row| is_meant(row) && is_same(row, request));
        if found.is_some() || is_last {
            return Ok(found);
        }
    }
}

fn has_gone_well(row: &RunRow) -> bool {
    row.state == RunPhase::Succeeded.as_str()
}

/// Says that this work was done before, or a part of it.
async fn remark(store: &dyn Store, definition: &Definition, done: &RunRow, flags: &str) -> Result<(), Problem> {
    if has_gone_well(done) {
        output::note(&format!("{}; this is another run (--skip-if-successful would leave it at that)", has_succeeded(done)));
    } else if has_effects(store, definition, done).await? {
        output::note(&format!(
            "{}, after a part of it had taken effect; this is another run, which does that a second time\n      to go on behind the last commit instead: {}",
            has_ended(done, how_ended(done)),
            explain::retry_command(done.header.run_id.as_str(), flags)
        ));
    }
    Ok(())
}

fn how_ended(row: &RunRow) -> &str {
    if row.state == RunPhase::Cancelled.as_str() { "was cancelled" } else { "failed" }
}

/// Whether something of a run that did not go well stays: a commit, or a task that is not SQL.
async fn has_effects(store: &dyn Store, definition: &Definition, row: &RunRow) -> Result<bool, Problem> {
    let mut after = 0;
    loop {
        let page = store.events(&row.header.run_id, after, EVENTS_AT_ONCE).await?;
        let is_effect = |event: &Event| match event {
            Event::SegmentCommitted { commit, .. } => commit.promise != Promise::ReadOnly,
            Event::AttemptSucceeded { instance, .. } => {
                let body = definition.dag.index(instance.task.as_str()).map(|place| &definition.body(place).kind);
                matches!(body, Some(Kind::Shell(_) | Kind::Python(_) | Kind::Http(_)))
            }
            _ => false,
        };
        if page.iter().any(|recorded| is_effect(&recorded.event)) {
            return Ok(true);
        }
        match page.last() {
            Some(last) if page.len() == EVENTS_AT_ONCE => after = last.seq,
            Some(_) | None => return Ok(false),
        }
    }
}

fn has_succeeded(row: &RunRow) -> String {
    has_ended(row, "succeeded already")
}

fn has_ended(row: &RunRow, how: &str) -> String {
    let header = &row.header;
    let about = header.logical_date.map(words::time).unwrap_or_default();
    let ended = row.ended_at.map(|at| format!(" at {}", words::time(at))).unwrap_or_default();
    format!("run {} of `{}` for {about} {how}{ended}", header.run_id, header.dag_id)
}

/// Unfinished runs of a DAG whose process is gone, newest first, each locked for us. `busy` is told of those that go on, or are to go on
/// with the service that has the store.
async fn left_behind(
    store: &dyn Store,
    dag: &DagId,
    flags: &str,
    mut busy: impl FnMut(&RunRow, Problem) -> Result<(), Problem>,
) -> Result<Vec<(RunRow, RunLock)>, Problem> {
    let filter = RunFilter { dag: Some(dag.clone()), unfinished: true, limit: RUNS_LOOKED_AT, ..RunFilter::default() };
    let mut left = Vec::new();
    for row in store.runs(&filter).await?.into_iter().filter(|row| !row.header.dry_run) {
        if let Err(problem) = runs::left::refuse_what_is_the_services(store, &row, flags).await {
            busy(&row, problem)?;
            continue;
        }
        match store.lock_run(&row.header.run_id) {
            Ok(lock) => left.extend(still_unfinished(store, &row.header.run_id).await?.map(|row| (row, lock))),
            Err(error) if error.kind == ErrorKind::Busy => busy(&row, error.into())?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(left)
}

/// It may have ended between the look at the list and the lock.
async fn still_unfinished(store: &dyn Store, run: &RunId) -> Result<Option<RunRow>, Problem> {
    let row = store.run(run).await?;
    Ok(row.filter(|row| !row.is_finished()))
}

fn ask(row: RunRow, lock: RunLock) -> Result<Choice, Problem> {
    let date = row.header.logical_date.map(|date| format!(", logical date {}", words::time(date))).unwrap_or_default();
    output::tell(&format!(
        "Run {} of `{}`, begun {}{date}, {}, and nobody runs it.\n",
        row.header.run_id,
        row.header.dag_id,
        words::time(row.header.queued_at),
        runs::how_left(&row)
    ));
    loop {
        output::tell("[r]esume it, start a [n]ew run, or [q]uit? ");
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer).map_err(|error| Problem::system("read the answer", &error))?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "r" | "resume" => return Ok(Choice::Resume(row, lock)),
            "n" | "new" => return Ok(Choice::New),
            "q" | "quit" => return Ok(Choice::Quit),
            _ if read == 0 => return Ok(Choice::Quit),
            _ => {}
        }
    }
}
