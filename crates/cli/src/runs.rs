//! `backstop runs`: lists, and the log event by event. One run with all that is known of it is in `show`.

pub(crate) mod left;
pub(crate) mod shape;
pub(crate) mod show;
pub(crate) mod story;

use crate::args::{Place, RunsCommand};
use crate::explain::{Exit, Problem};
use crate::masks::Masks;
use crate::output::{self, Painter};
use crate::{narrate, paths, wire, words};
use backstop_core::state::RunPhase;
use backstop_core::{DagId, Event, RunId};
use backstop_runtime::Redactor;
use backstop_store::{RunFilter, RunRow, SqliteStore, Store};
use left::{Left, is_abandoned};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::time::Duration;
use story::Story;

/// Between two looks at a log that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Events read at once.
const EVENTS_AT_ONCE: usize = 1000;
/// Runs whose process is gone that are told of, below a list.
const RESUMES_TOLD_MAX: usize = 10;
/// Rows read at once while a list is filtered.
const ROWS_AT_ONCE: u32 = 500;

/// Looks at runs.
pub(crate) fn runs(command: RunsCommand, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    if let RunsCommand::List { json, .. } = &command
        && !kept.store.exists()
    {
        // Nothing has run here yet, which is no error for a list.
        return nothing_yet(*json);
    }
    let store = SqliteStore::open_read_only(&kept.store)?;
    let mut masks = Masks::of(place)?;
    block_on(async {
        match command {
            RunsCommand::List { dag, state, limit, before, json } => {
                list(&store, Listed { dag, state, limit, before, json }, &mut masks, &kept.flags).await
            }
            RunsCommand::Show { run, json } => show::show(&store, &run, &mut masks, &kept.flags, json).await,
            RunsCommand::Events { run, json, follow } => events(&store, &run, &mut masks, json, follow).await,
        }
    })?;
    Ok(Exit::Success)
}

/// Runs something on this thread.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::system("start the runtime", &error))?;
    runtime.block_on(work)
}

fn nothing_yet(json: bool) -> Result<Exit, Problem> {
    if json {
        output::data("[]\n")?;
    } else {
        output::note("nothing has run here yet");
    }
    Ok(Exit::Success)
}

/// What `latest` means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Latest<'a> {
    /// The newest run of all.
    Any,
    /// The newest run, of a DAG if one is given, that something is left to do of.
    Unfinished(Option<&'a DagId>),
}

/// Finds a run by its id, the beginning of its id, or `latest`.
pub(crate) async fn find(store: &dyn Store, wanted: &str, latest: Latest<'_>) -> Result<RunRow, Problem> {
    if wanted == "latest" {
        let filter = match latest {
            Latest::Any => RunFilter { limit: 1, ..RunFilter::default() },
            Latest::Unfinished(dag) => RunFilter { dag: dag.cloned(), unfinished: true, limit: 1, ..RunFilter::default() },
        };
        let what = match latest {
            Latest::Any => "there is no run",
            Latest::Unfinished(_) => "there is no run that could be resumed: all are over",
        };
        return store.runs(&filter).await?.into_iter().next().ok_or_else(|| Problem::usage(what));
    }
    let found = store.find_runs(wanted).await?;
    match found.as_slice() {
        [] => Err(Problem::usage(format!("there is no run `{wanted}`")).hint("`backstop runs list` shows the runs there are")),
        [one] => row_of(store, one).await,
        // An id that is whole is meant, whatever other ids begin with it.
        many => match many.iter().find(|id| id.as_str() == wanted) {
            Some(whole) => row_of(store, whole).await,
            None => {
                let ids: Vec<&str> = many.iter().map(RunId::as_str).collect();
                Err(Problem::usage(format!("several runs begin with `{wanted}`"))
                    .hint(format!("write more of the id: {}", ids.join(", "))))
            }
        },
    }
}

/// The characters of an id that it takes to do something to its run.
const MEANT_CHARACTERS_MIN: usize = 8;

/// As [`find`], to do something to the run: what may be a slip, a few characters or the name of a DAG, means no run that merely begins so.
pub(crate) async fn find_to_act(store: &dyn Store, wanted: &str, latest: Latest<'_>) -> Result<RunRow, Problem> {
    let row = find(store, wanted, latest).await?;
    let run = &row.header.run_id;
    if wanted == "latest" || wanted == run.as_str() {
        return Ok(row);
    }
    let of_dag = RunFilter { dag: Some(DagId::new(wanted)), limit: 1, ..RunFilter::default() };
    let why = if row.header.dag_id.as_str() == wanted || !store.runs(&of_dag).await?.is_empty() {
        format!("`{wanted}` is a DAG, not a run")
    } else if wanted.chars().count() < MEANT_CHARACTERS_MIN {
        format!("`{wanted}` is too little of a run's id to do something to that run")
    } else {
        return Ok(row);
    };
    Err(Problem::usage(why).hint(format!(
        "write the run's id, or {MEANT_CHARACTERS_MIN} characters of it at least: run {run} of DAG `{}` begins so",
        row.header.dag_id
    )))
}

async fn row_of(store: &dyn Store, run: &RunId) -> Result<RunRow, Problem> {
    store.run(run).await?.ok_or_else(|| Problem::usage(format!("there is no run `{run}`")))
}

/// What to list, and how.
struct Listed {
    dag: Option<String>,
    state: Option<String>,
    limit: u32,
    before: Option<String>,
    json: bool,
}

impl Listed {
    /// The rows, and whether there are more behind them.
    async fn rows(&self, store: &dyn Store) -> Result<(Vec<RunRow>, bool), Problem> {
        // One more tells whether there are more.
        let limit = self.limit.max(1) as usize;
        let at_once = if self.state.is_some() { ROWS_AT_ONCE } else { self.limit.max(1).saturating_add(1) };
        let mut filter = RunFilter { dag: self.dag.as_deref().map(DagId::new), limit: at_once, ..RunFilter::default() };
        if let Some(before) = &self.before {
            filter.before = Some(find(store, before, Latest::Any).await?.header.run_id.clone());
        }
        let mut rows: Vec<RunRow> = Vec::new();
        loop {
            let page = store.runs(&filter).await?;
            let is_last = page.len() < at_once as usize;
            filter.before = page.last().map(|row| row.header.run_id.clone());
            rows.extend(page.into_iter().filter(|row| self.state.as_ref().is_none_or(|state| row.state == *state)));
            if is_last || rows.len() > limit {
                break;
            }
        }
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Ok((rows, has_more))
    }

    /// The command that lists what comes behind this run.
    fn next_page(&self, last: &RunRow, flags: &str) -> String {
        let option = |name: &str, value: &Option<String>| {
            value.as_deref().map(|value| format!(" --{name} {}", paths::shell_word(value))).unwrap_or_default()
        };
        let (dag, state, run) = (option("dag", &self.dag), option("state", &self.state), &last.header.run_id);
        format!("backstop runs list{dag}{state} --limit {} --before {run}{flags}", self.limit)
    }
}

async fn list(store: &dyn Store, wanted: Listed, masks: &mut Masks<'_>, flags: &str) -> Result<(), Problem> {
    let (rows, has_more) = wanted.rows(store).await?;
    let more = rows.last().filter(|_| has_more).map(|last| wanted.next_page(last, flags));
    let mut listed = Vec::new();
    for row in rows {
        let left = left::look(store, &row).await?;
        listed.push((row, left));
    }
    if wanted.json {
        let mut told = Vec::new();
        for (row, left) in &listed {
            let redactor = masks.for_run(&row.header)?;
            told.push(wire::Run::new(row, *left == Left::Abandoned, &redactor));
        }
        output::json(&told)?;
    } else if listed.is_empty() {
        output::note("there is no such run");
    } else {
        tell_list(store, &listed, flags).await?;
    }
    if let Some(more) = more {
        output::note(&format!("there are more runs, made before these: {more}"));
    }
    Ok(())
}

async fn tell_list(store: &dyn Store, listed: &[(RunRow, Left)], flags: &str) -> Result<(), Problem> {
    let heading = ["RUN", "DAG", "STATE", "LOGICAL DATE", "BEGUN", "TOOK"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    table.extend(listed.iter().map(|(row, left)| {
        vec![
            row.header.run_id.to_string(),
            row.header.dag_id.to_string(),
            state_in_words(row, *left, ""),
            row.header.logical_date.map(words::time).unwrap_or_default(),
            row.started_at.map(words::time).unwrap_or_else(|| "-".to_owned()),
            row.started_at.zip(row.ended_at).map(|(start, end)| words::between(start, end)).unwrap_or_default(),
        ]
    }));
    output::data(&output::table(&table, Painter::stdout()))?;
    let abandoned: Vec<&RunRow> = listed.iter().filter(|(_, left)| *left == Left::Abandoned).map(|(row, _)| row).collect();
    for row in abandoned.iter().copied().take(RESUMES_TOLD_MAX) {
        let (run, dag) = (&row.header.run_id, &row.header.dag_id);
        let callbacks = if is_over_but_for_callbacks(row) {
            let pending = Story::read(store, run, &Redactor::default()).await?.pending_callbacks();
            format!("{}: {pending}; ", callbacks_left(row))
        } else {
            String::new()
        };
        output::note(&format!("{callbacks}nobody runs {run} of `{dag}`: resume it with `{}`", resume_command(row, flags)));
    }
    if abandoned.len() > RESUMES_TOLD_MAX {
        output::note(&format!("nobody runs {} more of these either", words::count(abandoned.len() - RESUMES_TOLD_MAX, "run")));
    }
    Ok(())
}

/// A run's state, and what makes it differ from what one would think. `pending` are the callbacks that have not run, or nothing.
fn state_in_words(row: &RunRow, left: Left, pending: &str) -> String {
    let dry = if row.header.dry_run { " (dry run)" } else { "" };
    let gone = match left {
        Left::Abandoned => " (its process is gone)",
        // Begun before, and waiting now as if it were queued.
        Left::ToService if row.state != RunPhase::Queued.as_str() => " (waits)",
        Left::ToService | Left::No => "",
    };
    let names = if pending.is_empty() { String::new() } else { format!(": {pending}") };
    let left = if is_over_but_for_callbacks(row) { format!("; {}{names}", callbacks_left(row)) } else { String::new() };
    format!("{}{left}{dry}{gone}", row.state)
}

/// Its end is told, and callbacks follow it.
fn is_over_but_for_callbacks(row: &RunRow) -> bool {
    row.ended_at.is_some() && !row.is_finished()
}

/// `1 callback has not run`.
fn callbacks_left(row: &RunRow) -> String {
    let number = usize::try_from(row.callbacks_pending).unwrap_or(usize::MAX);
    format!(
        "{} not run",
        if number == 1 { "1 callback has".to_owned() } else { format!("{} have", words::count(number, "callback")) }
    )
}

/// Why a run can be resumed: `is not finished`, or `failed, but 1 callback has not run`.
pub(crate) fn how_left(row: &RunRow) -> String {
    if !is_over_but_for_callbacks(row) {
        return "is not finished".to_owned();
    }
    let ended = match projected_phase(row) {
        Some(RunPhase::Succeeded) => "succeeded",
        Some(RunPhase::Cancelled) => "was cancelled",
        Some(RunPhase::Failed) => "failed",
        Some(RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck) | None => "is over",
    };
    format!("{ended}, but {}", callbacks_left(row))
}

fn projected_phase(row: &RunRow) -> Option<RunPhase> {
    RunPhase::ALL.into_iter().find(|phase| phase.as_str() == row.state)
}

/// What goes on with a run.
fn resume_command(row: &RunRow, flags: &str) -> String {
    format!("backstop run --resume {}{flags}", row.header.run_id)
}

async fn events(store: &dyn Store, wanted: &str, masks: &mut Masks<'_>, json: bool, follow: bool) -> Result<(), Problem> {
    let header = find(store, wanted, Latest::Any).await?.header;
    let (run, redactor) = (header.run_id.clone(), masks.for_run(&header)?);
    let paint = Painter::stdout();
    let mut after = 0;
    let mut started = HashMap::new();
    let mut wanted = BTreeSet::new();
    loop {
        // Asked before the events are read: what a run that is over has not told by then it will never tell.
        let is_over = is_over(store, &run).await?;
        loop {
            let page = store.events(&run, after, EVENTS_AT_ONCE).await?;
            let mut text = String::new();
            for recorded in &page {
                after = recorded.seq;
                let recorded = &redactor.mask(recorded);
                if json {
                    let line = serde_json::to_string(&wire::EventLine::new(&run, recorded));
                    text.push_str(&line.map_err(|error| Problem::usage("write JSON").cause(error.to_string()))?);
                    text.push('\n');
                } else {
                    let since = match &recorded.event {
                        Event::AttemptStarted { instance, at, .. } => {
                            started.insert(instance.clone(), *at);
                            None
                        }
                        Event::AttemptSucceeded { instance, .. } | Event::AttemptFailed { instance, .. } => {
                            started.remove(instance)
                        }
                        _ => None,
                    };
                    let mut line = narrate::line(&recorded.event, recorded.at, since);
                    line.text.push_str(&narrate::callbacks_left(&recorded.event, &mut wanted));
                    let at = paint.dim(&format!("{:>5}  {}", recorded.seq, words::clock(recorded.at)));
                    let _ = writeln!(text, "{at}  {} {}: {}", line.mark.glyph(), line.subject, line.text);
                }
            }
            output::data(&text)?;
            if page.len() < EVENTS_AT_ONCE {
                break;
            }
        }
        if !follow || is_over {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether nothing will be added to a run's log, as far as can be known: nobody waits for callbacks that no process is there to run.
pub(crate) async fn is_over(store: &dyn Store, run: &RunId) -> Result<bool, Problem> {
    let Some(row) = store.run(run).await? else { return Ok(true) };
    if row.is_finished() || row.state == RunPhase::Stuck.as_str() {
        return Ok(true);
    }
    Ok(is_over_but_for_callbacks(&row) && is_abandoned(store, &row).await?)
}
