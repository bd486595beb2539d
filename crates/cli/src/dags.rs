//! `backstop dags`: what there is, and pausing: through the service where one has the store, else in the store itself.

use crate::args::Place;
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::{self, Kept};
use crate::runs::block_on;
use crate::service::{Entrance, Service, Signature, part, signed};
use crate::sources::{self, Purpose, Sources};
use crate::words;
use backstop_core::DagId;
use backstop_project::definition::Project;
use backstop_runtime::service::{Who, pause_in_store, paused_in_store};
use backstop_store::{RunFilter, SqliteStore, Store};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Runs that are not over and are read at once, to find DAGs whose files are gone.
const RUNS_AT_ONCE: u32 = 1_000;
/// The newest of these that are looked at.
const RUNS_MAX: u32 = 100_000;
/// Broken files that a list tells of.
const UNWELL_TOLD_MAX: usize = 20;

#[derive(Debug, Subcommand)]
pub(crate) enum DagsCommand {
    /// List DAGs
    List {
        /// Write a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        entrance: Entrance,
    },
    /// Say why no run of a DAG is made now: what it waits for
    Why {
        /// The DAG
        dag: String,
        #[command(flatten)]
        entrance: Entrance,
    },
    /// Begin nothing more of a DAG; what goes on goes on
    Pause(PauseArgs),
    /// Let a paused DAG go on
    Unpause(PauseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// The DAG
    dag: String,
    #[command(flatten)]
    signature: Signature,
    #[command(flatten)]
    entrance: Entrance,
}

/// Looks at DAGs, or pauses one.
pub(crate) fn dags(command: DagsCommand, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    block_on(async {
        match command {
            DagsCommand::List { json, entrance } => list(json, &entrance, &kept, place).await,
            DagsCommand::Why { dag, entrance } => why(&dag, &entrance, &kept).await,
            DagsCommand::Pause(arguments) => pause(&arguments, true, &kept, place).await,
            DagsCommand::Unpause(arguments) => pause(&arguments, false, &kept, place).await,
        }
    })?;
    Ok(Exit::Success)
}

async fn list(json: bool, entrance: &Entrance, kept: &Kept, place: &Place) -> Result<(), Problem> {
    let service = Service::of_kept(kept, entrance).await?;
    let mut dags = match &service {
        Some(service) => of_service(service).await?,
        None => from_files(kept, place).await?,
    };
    if let Value::Array(rows) = &mut dags {
        let lost = left_runs(kept, rows, service.as_ref()).await?;
        rows.extend(lost);
    }
    if json {
        return output::data(&format!("{dags:#}\n"));
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows = dags.as_array().into_iter().flatten().map(|dag| {
        let paused = if dag["paused"] == true { "paused" } else { "-" };
        vec![text(&dag["dag"]), state(dag).to_owned(), paused.to_owned(), text(&dag["schedule"]), next(dag), text(&dag["file"])]
    });
    let heading = ["DAG", "STATE", "PAUSED", "SCHEDULE", "NEXT RUN", "FILE"].map(str::to_owned).to_vec();
    output::data(&output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>(), Painter::stdout()))?;
    let unwell: Vec<&Value> = dags.as_array().into_iter().flatten().filter(|dag| state(dag) != "-").collect();
    for dag in unwell.iter().take(UNWELL_TOLD_MAX) {
        let then = if dag["stale"] == true { "; its last good version runs" } else { "" };
        let why = if dag["not_loaded"].is_string() { &dag["not_loaded"] } else { &dag["broken"] };
        output::warn(&format!("{}{then}", text(why)));
    }
    if unwell.len() > UNWELL_TOLD_MAX {
        output::warn(&format!("{} more are not as their files say", unwell.len() - UNWELL_TOLD_MAX));
    }
    if !unwell.is_empty() {
        output::note("`backstop check` shows all that is wrong");
    }
    Ok(())
}

/// Whether a DAG is as its file says.
fn state(dag: &Value) -> &'static str {
    match (dag["stale"] == true, dag["broken"].is_string()) {
        _ if dag["not_loaded"].is_string() => "not loaded",
        (true, _) => "stale",
        (false, true) => "broken",
        (false, false) => "-",
    }
}

/// DAGs that are not among those that are known, and have runs that are not over: their files are gone, renamed or broken.
async fn left_runs(kept: &Kept, known: &[Value], service: Option<&Service>) -> Result<Vec<Value>, Problem> {
    if !kept.store.exists() {
        return Ok(Vec::new());
    }
    let store = SqliteStore::open_read_only(&kept.store)?;
    let mut left = unfinished(&store, None).await?;
    left.retain(|dag, _| !known.iter().any(|row| row["dag"] == dag.as_str()));
    let paused = if left.is_empty() { BTreeSet::new() } else { paused_in_store(&store).await? };
    let mut rows = Vec::new();
    for (dag, runs) in left {
        let because = match (service, rows.len() < UNWELL_TOLD_MAX) {
            (Some(service), true) => match service.get(&format!("/api/v1/dags/{}", part(dag.as_str()))).await {
                Err(problem) => problem.message,
                // It was loaded just now.
                Ok(_) => continue,
            },
            _ => format!("there is no DAG `{dag}` in the files"),
        };
        let not_loaded = format!("{because}; {}", what_of_runs(&dag, runs));
        rows.push(json!({
            "dag": dag.as_str(), "paused": paused.contains(&dag), "schedule": null, "next_run_at": null, "file": null,
            "unfinished_runs": runs, "not_loaded": not_loaded,
        }));
    }
    Ok(rows)
}

/// `2 runs of it are not over, and go on with ...`.
fn what_of_runs(dag: &DagId, runs: usize) -> String {
    let (are, go) = if runs == 1 { ("is", "goes") } else { ("are", "go") };
    let runs = words::count(runs, "run");
    format!("{runs} of it {are} not over, and {go} on with the files of before: backstop runs list --dag {dag}")
}

/// How many runs are not over, by DAG; of all, or of one.
async fn unfinished(store: &SqliteStore, dag: Option<&DagId>) -> Result<BTreeMap<DagId, usize>, Problem> {
    let mut found: BTreeMap<DagId, usize> = BTreeMap::new();
    let mut filter = RunFilter { dag: dag.cloned(), unfinished: true, limit: RUNS_AT_ONCE, ..RunFilter::default() };
    for _ in 0..RUNS_MAX / RUNS_AT_ONCE {
        let page = store.runs(&filter).await?;
        filter.before = page.last().map(|row| row.header.run_id.clone());
        let is_last = page.len() < RUNS_AT_ONCE as usize;
        page.iter().for_each(|row| *found.entry(row.header.dag_id.clone()).or_default() += 1);
        if is_last {
            break;
        }
    }
    Ok(found)
}

/// The DAGs that are loaded, and behind them the files that are broken and are of none of these.
async fn of_service(service: &Service) -> Result<Value, Problem> {
    let mut dags = service.list("/api/v1/dags", "after").await?;
    let mut known: BTreeSet<String> = dags.iter().filter_map(|dag| dag["file"].as_str().map(str::to_owned)).collect();
    for problem in service.list("/api/v1/problems", "after").await? {
        let Some(file) = problem["file"].as_str().filter(|_| problem["severity"] == "error") else { continue };
        if known.insert(file.to_owned()) {
            let message = problem["message"].as_str().unwrap_or_default();
            dags.push(
                json!({ "dag": null, "file": file, "broken": format!("{file} is broken: line {}: {message}", problem["line"]) }),
            );
        }
    }
    Ok(Value::Array(dags))
}

async fn why(dag: &str, entrance: &Entrance, kept: &Kept) -> Result<(), Problem> {
    let Some(service) = Service::of_kept(kept, entrance).await? else {
        return Err(Problem::usage("no service has the store: without one no run is made by itself")
            .hint("start one with `backstop up`, or run the DAG now with `backstop run`"));
    };
    match service.get(&format!("/api/v1/dags/{}", part(dag))).await {
        Ok(found) => output::data(&account(dag, &found)),
        Err(problem) => {
            let (store, id) = (SqliteStore::open_read_only(&kept.store)?, DagId::new(dag));
            // Of nothing that has runs it is no mistake to ask.
            let Some(runs) = unfinished(&store, Some(&id)).await?.get(&id).copied() else { return Err(problem) };
            output::data(&format!(
                "{dag}: {}: no more runs of it are made\n{dag}: {}\n",
                problem.message,
                what_of_runs(&id, runs)
            ))?;
            if paused_in_store(&store).await?.contains(&id) {
                output::data(&format!("{dag}: it is paused: nothing of them is begun before `backstop dags unpause {dag}`\n"))?;
            }
            Ok(())
        }
    }
}

/// What keeps a DAG's next run from being made, a line each.
fn account(dag: &str, found: &Value) -> String {
    let mut lines = Vec::new();
    if let Some(broken) = found["broken"].as_str() {
        lines.push(format!("{broken}; its last good version runs (`backstop check` shows all that is wrong)"));
    }
    if found["paused"] == true {
        lines.push(format!("it is paused: nothing of it is begun before `backstop dags unpause {dag}`"));
    }
    lines.extend(found["not_scheduled_because"].as_str().map(str::to_owned));
    if let Some(at) = found["next_run_at"].as_str() {
        let date = found["next_logical_date"].as_str().filter(|date| *date != at);
        let is = if is_due(at) { "its next time has come:" } else { "its next time is" };
        lines.push(format!("{is} {at}{}", date.map_or_else(String::new, |date| format!(" (about {date})"))));
    }
    if found["schedule"].is_null() {
        lines.push("it has no schedule: its runs are asked for".to_owned());
    } else if lines.is_empty() {
        lines.push("its schedule has nothing more to come".to_owned());
    }
    lines.iter().map(|line| format!("{dag}: {line}\n")).collect()
}

/// Whether the time of a run has passed.
fn is_due(at: &str) -> bool {
    at.parse::<Timestamp>().is_ok_and(|at| at <= crate::run::begin::now())
}

/// When a DAG runs next, or after which assets.
fn next(dag: &Value) -> String {
    let missing: Vec<&str> = dag["missing_assets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match dag["next_run_at"].as_str() {
        // It has come already, and a limit keeps the run from being made.
        Some(at) if is_due(at) && dag["paused"] != true && !dag["not_scheduled_because"].is_null() => {
            "when a run ends".to_owned()
        }
        Some(at) => at.to_owned(),
        None if missing.is_empty() => "-".to_owned(),
        None => format!("after {}", missing.join(", ")),
    }
}

fn project(place: &Place) -> Result<Project, Problem> {
    let root = paths::project(place)?;
    Ok(sources::load(&Sources::of_folder(&root), place, Purpose::Look)?.project)
}

/// As the files are; nothing is scheduled without a service.
async fn from_files(kept: &Kept, place: &Place) -> Result<Value, Problem> {
    let project = project(place)?;
    let paused = match kept.store.exists() {
        true => paused_in_store(&SqliteStore::open_read_only(&kept.store)?).await?,
        false => BTreeSet::new(),
    };
    let dags = project.dags.values().map(|definition| {
        json!({
            "dag": definition.dag.id().as_str(),
            "description": definition.description,
            "paused": paused.contains(definition.dag.id()),
            "schedule": definition.schedule,
            "timezone": definition.timezone,
            "next_run_at": null,
            "max_active_runs": definition.max_active_runs,
            "file": definition.file.to_string(),
            "version": definition.version,
            "tasks": definition.dag.tasks().len(),
        })
    });
    Ok(Value::Array(dags.collect()))
}

/// Whether the store has runs of a DAG that are not over: its file may be gone.
async fn has_runs(kept: &Kept, dag: &DagId) -> Result<bool, Problem> {
    if !kept.store.exists() {
        return Ok(false);
    }
    let filter = RunFilter { dag: Some(dag.clone()), unfinished: true, limit: 1, ..RunFilter::default() };
    Ok(!SqliteStore::open_read_only(&kept.store)?.runs(&filter).await?.is_empty())
}

async fn pause(arguments: &PauseArgs, pause: bool, kept: &Kept, place: &Place) -> Result<(), Problem> {
    let word = if pause { "paused" } else { "unpaused" };
    if let Some(service) = Service::of_kept(kept, &arguments.entrance).await? {
        let body = signed(json!({ "paused": pause }), &arguments.signature);
        service.patch(&format!("/api/v1/dags/{}", part(&arguments.dag)), &body).await?;
        output::note(&format!("{word} `{}`", arguments.dag));
        return Ok(());
    }
    let project = project(place)?;
    let id = DagId::new(arguments.dag.as_str());
    if !project.dags.contains_key(&id) && !has_runs(kept, &id).await? {
        let mut problem = Problem::usage(format!("there is no DAG `{id}`"));
        problem.hints = words::hints_for_name(id.as_str(), "DAGs", project.dags.keys().map(DagId::as_str));
        return Err(problem);
    }
    let store = SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?;
    let who = Who { who: arguments.signature.who(), why: arguments.signature.why() };
    pause_in_store(&store, &id, pause, &who, crate::run::begin::now()).await?;
    store.flush().await?;
    output::note(&format!("{word} `{id}`: no service has the store now; the next one heeds it"));
    Ok(())
}
