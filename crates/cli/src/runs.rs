//! `backstop runs`: lists, one run with its tasks and statements, and the log event by event.

use crate::args::{Place, RunsCommand};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::{narrate, paths, wire, words};
use backstop_core::{DagId, Event, RunId};
use backstop_store::{InstanceRow, RunFilter, RunRow, SqliteStore, StatementRow, Store};
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Between two looks at a log that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Events read at once.
const EVENTS_AT_ONCE: usize = 1000;
/// Rows read at once while a list is filtered.
const ROWS_AT_ONCE: u32 = 500;
/// Statements that are shown to people.
const STATEMENTS_SHOWN_MAX: usize = 500;

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
    block_on(async {
        match command {
            RunsCommand::List { dag, state, limit, json } => list(&store, dag, state, limit, json).await,
            RunsCommand::Show { run, json } => show(&store, &run, json).await,
            RunsCommand::Events { run, json, follow } => events(&store, &run, json, follow).await,
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
    /// The newest run, of a DAG if one is given, that is not over.
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

async fn row_of(store: &dyn Store, run: &RunId) -> Result<RunRow, Problem> {
    store.run(run).await?.ok_or_else(|| Problem::usage(format!("there is no run `{run}`")))
}

async fn list(store: &dyn Store, dag: Option<String>, state: Option<String>, limit: u32, json: bool) -> Result<(), Problem> {
    let mut filter = RunFilter { dag: dag.map(DagId::new), limit: limit.max(1), ..RunFilter::default() };
    if state.is_some() {
        filter.limit = ROWS_AT_ONCE;
    }
    let mut rows: Vec<RunRow> = Vec::new();
    loop {
        let page = store.runs(&filter).await?;
        let is_last = page.len() < filter.limit as usize;
        filter.before = page.last().map(|row| row.header.run_id.clone());
        rows.extend(page.into_iter().filter(|row| state.as_ref().is_none_or(|state| row.state == *state)));
        if is_last || rows.len() >= limit as usize {
            break;
        }
    }
    rows.truncate(limit as usize);
    if json {
        return output::json(&rows.iter().map(wire::Run::from).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        output::note("there is no such run");
        return Ok(());
    }
    let heading = ["RUN", "DAG", "STATE", "LOGICAL DATE", "BEGUN", "TOOK"];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    table.extend(rows.iter().map(|row| {
        let dry = if row.header.dry_run { " (dry run)" } else { "" };
        vec![
            row.header.run_id.to_string(),
            row.header.dag_id.to_string(),
            format!("{}{dry}", row.state),
            row.header.logical_date.map(words::time).unwrap_or_default(),
            words::time(row.header.queued_at),
            row.started_at.zip(row.ended_at).map(|(start, end)| words::between(start, end)).unwrap_or_default(),
        ]
    }));
    output::data(&output::table(&table, Painter::stdout()))
}

async fn show(store: &dyn Store, wanted: &str, json: bool) -> Result<(), Problem> {
    let row = find(store, wanted, Latest::Any).await?;
    let run = row.header.run_id.clone();
    let instances = store.instances(&run).await?;
    let statements = store.statements(&run, None).await?;
    if json {
        return output::json(&wire::RunShown {
            run: wire::Run::from(&row),
            tasks: instances.iter().map(wire::Instance::from).collect(),
            statements: statements.iter().map(wire::Statement::from).collect(),
        });
    }
    let paint = Painter::stdout();
    let mut text = header(&row);
    tasks(&instances, paint, &mut text);
    statements_table(&statements, paint, &mut text);
    output::data(&text)
}

fn header(row: &RunRow) -> String {
    let header = &row.header;
    let time = |at: Option<Timestamp>| at.map(words::time).unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        ("run", header.run_id.to_string()),
        ("dag", header.dag_id.to_string()),
        ("state", if header.dry_run { format!("{} (dry run)", row.state) } else { row.state.clone() }),
        ("logical date", time(header.logical_date)),
        ("queued", words::time(header.queued_at)),
        ("started", time(row.started_at)),
        ("ended", time(row.ended_at)),
    ];
    if let Some((start, end)) = row.started_at.zip(row.ended_at) {
        lines.push(("took", words::between(start, end)));
    }
    if &*header.params != "{}" {
        lines.push(("params", header.params.to_string()));
    }
    if !header.only_tasks.is_empty() {
        let names: Vec<&str> = header.only_tasks.iter().map(backstop_core::TaskId::as_str).collect();
        lines.push(("only tasks", names.join(", ")));
    }
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13} {value}");
    }
    text
}

fn tasks(instances: &[InstanceRow], paint: Painter, text: &mut String) {
    if instances.is_empty() {
        return;
    }
    let mut table = vec![["TASK", "STATE", "TRIES", "TOOK", "LAST ERROR"].map(str::to_owned).to_vec()];
    table.extend(instances.iter().map(|row| {
        vec![
            row.instance.to_string(),
            row.state.clone(),
            row.try_number.to_string(),
            row.started_at.zip(row.ended_at).map(|(start, end)| words::between(start, end)).unwrap_or_default(),
            row.error.as_deref().map(|error| words::short(error, 120)).unwrap_or_default(),
        ]
    }));
    let _ = write!(text, "\n{}", output::table(&table, paint));
}

fn statements_table(statements: &[StatementRow], paint: Painter, text: &mut String) {
    if statements.is_empty() {
        return;
    }
    let mut table = vec![["TASK", "TRY", "SEGMENT", "NO", "LINE", "ROWS", "TOOK", "STATEMENT"].map(str::to_owned).to_vec()];
    table.extend(statements.iter().take(STATEMENTS_SHOWN_MAX).map(|row| {
        let record = &row.record;
        let rows = record.rows_affected.unwrap_or(0).max(record.rows_returned);
        vec![
            row.instance.to_string(),
            row.try_number.to_string(),
            row.segment.map_or_else(|| "failed".to_owned(), |segment| (segment + 1).to_string()),
            record.number.to_string(),
            record.line.to_string(),
            words::grouped(rows),
            words::duration_us(record.duration_us),
            record.summary.clone(),
        ]
    }));
    let _ = write!(text, "\n{}", output::table(&table, paint));
    if statements.len() > STATEMENTS_SHOWN_MAX {
        let _ = writeln!(
            text,
            "… and {} more: --json has them all",
            words::grouped((statements.len() - STATEMENTS_SHOWN_MAX) as u64)
        );
    }
}

async fn events(store: &dyn Store, wanted: &str, json: bool, follow: bool) -> Result<(), Problem> {
    let run = find(store, wanted, Latest::Any).await?.header.run_id.clone();
    let paint = Painter::stdout();
    let mut after = 0;
    let mut started = HashMap::new();
    loop {
        // Asked before the events are read: what a run that is over has not told by then it will never tell.
        let is_over = is_over(store, &run).await?;
        loop {
            let page = store.events(&run, after, EVENTS_AT_ONCE).await?;
            let mut text = String::new();
            for recorded in &page {
                after = recorded.seq;
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
                    let line = narrate::line(&recorded.event, recorded.at, since);
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

/// Whether nothing will be added to a run's log. A run with callbacks to come is told by its end, a little early.
pub(crate) async fn is_over(store: &dyn Store, run: &RunId) -> Result<bool, Problem> {
    Ok(store.run(run).await?.is_none_or(|row| row.ended_at.is_some() || row.state == "stuck"))
}
