//! `backstop run`: one DAG, or one file, to its end in this process.

pub(crate) mod begin;
mod choose;
mod drive;
mod summary;

use crate::args::{Place, RunArgs};
use crate::explain::{Exit, Problem};
use crate::paths::Kept;
use crate::sources::{self, Chosen, Purpose};
use crate::{check, output, paths, runs, words};
use backstop_core::{DagId, RunId, TaskId};
use backstop_project::definition::{Definition, Kind, Project};
use backstop_project::{Bundle, Diagnostic, Severity};
use backstop_runtime::SystemClock;
use backstop_runtime::run::Request;
use backstop_store::{RunLock, RunRow, SqliteStore, Store};
use choose::Choice;
use drive::{Drive, What};
use std::sync::Arc;

/// What is wanted, ready to be driven.
struct Plan {
    project: Arc<Project>,
    definition: Arc<Definition>,
    store: Arc<dyn Store>,
    kept: Kept,
    what: What,
    /// Held as long as the run goes on in this process.
    lock: RunLock,
    /// That nobody else does the same work meanwhile.
    work: Option<RunLock>,
}

/// Runs.
pub(crate) fn run(arguments: RunArgs, place: &Place) -> Result<Exit, Problem> {
    // One thread is enough: databases do the work, the store and the logs have threads of their own, and a chain of small tasks would pay
    // for every hand-over from one thread to another.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::system("start the runtime", &error))?;
    let outcome = runtime.block_on(async {
        match &arguments.resume {
            Some(wanted) => match plan_resume(&arguments, wanted, place).await? {
                Some(plan) => drive_plan(plan, &arguments, place).await,
                None => Ok(Exit::Success),
            },
            None => match plan_run(&arguments, place).await? {
                Some(plan) => drive_plan(plan, &arguments, place).await,
                None => Ok(Exit::Success),
            },
        }
    });
    // Whatever a second Ctrl-C left behind ends here; its subprocesses are killed with it.
    runtime.shutdown_background();
    outcome
}

/// Takes a run over that nobody drives, and ends it: nothing of it is begun, and what its last process was doing is found out.
pub(crate) fn cancel(run: &RunId, (who, why): (String, String), place: &Place) -> Result<Exit, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Problem::system("start the runtime", &error))?;
    let arguments = RunArgs { resume: Some(run.to_string()), ..RunArgs::default() };
    let outcome = runtime.block_on(async {
        let Some(plan) = plan_resume(&arguments, run.as_str(), place).await? else { return Ok(Exit::Success) };
        let drive = drive_of(&plan, &arguments, place);
        let ended = drive.end(plan.what, who, why).await;
        drop((plan.lock, plan.work));
        ended
    });
    runtime.shutdown_background();
    outcome
}

async fn drive_plan(plan: Plan, arguments: &RunArgs, place: &Place) -> Result<Exit, Problem> {
    let drive = drive_of(&plan, arguments, place);
    let exit = drive.drive(plan.what).await;
    drop(plan.lock);
    drop(plan.work);
    exit
}

fn drive_of(plan: &Plan, arguments: &RunArgs, place: &Place) -> Drive {
    Drive {
        project: plan.project.clone(),
        definition: plan.definition.clone(),
        store: plan.store.clone(),
        kept: plan.kept.clone(),
        again: begin::command(arguments, place),
        json: arguments.json,
        verbose: arguments.verbose,
    }
}

fn open(kept: &Kept) -> Result<Arc<dyn Store>, Problem> {
    let store = SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?;
    Ok(Arc::new(store))
}

async fn plan_run(arguments: &RunArgs, place: &Place) -> Result<Option<Plan>, Problem> {
    let target = arguments.target.as_deref().unwrap_or_default();
    let chosen = sources::choose(target, arguments.connection.as_deref(), place, Purpose::Run)?;
    check_sql(&chosen)?;
    let Chosen { project, definition, .. } = chosen;
    let clock = SystemClock::starting(None);
    let request = begin::request(&definition, arguments, &clock)?;
    refuse_other_dags(&definition, &request.only_tasks, request.dry_run)?;
    let kept = Kept::of(place, &project.root);
    let store = open(&kept)?;
    let again = begin::command(arguments, place);
    let work = choose::lock_work(&*store, &definition, &request, arguments)?;
    match choose::choose(&*store, &definition, &request, arguments, &again, &kept.flags).await? {
        Choice::Quit => Ok(None),
        Choice::New => {
            let lock = store.lock_run(&request.run_id)?;
            Ok(Some(Plan { project, definition, store, kept, what: What::Start(Box::new(request)), lock, work }))
        }
        Choice::Resume(row, lock) => {
            let definition = pinned(&*store, &project, &row, arguments.current_files.then_some(definition)).await?;
            Ok(Some(Plan { project, definition, store, kept, what: What::Resume(row, Vec::new()), lock, work }))
        }
    }
}

/// A run of another DAG needs somebody who drives it. Refused before anything has taken effect.
fn refuse_other_dags(definition: &Definition, only_tasks: &[TaskId], dry_run: bool) -> Result<(), Problem> {
    let is_wanted = |id: &TaskId| !dry_run && (only_tasks.is_empty() || only_tasks.contains(id));
    let tasks = definition.dag.tasks().iter().zip(&definition.bodies);
    let first = tasks.filter(|(task, _)| is_wanted(&task.id)).find_map(|(task, body)| match &body.kind {
        Kind::Dag(trigger) => Some((&task.id, &trigger.dag)),
        _ => None,
    });
    let Some((task, other)) = first else { return Ok(()) };
    let dag = definition.dag.id();
    Err(Problem::usage(format!(
        "task `{task}` starts a run of DAG `{other}`, and `backstop run` drives one run alone: nothing was begun"
    ))
    .hint(format!("let the service do it: `backstop up`, then POST /api/v1/dags/{dag}/runs"))
    .hint("or run the other tasks alone, with --task"))
}

/// Refuses what `backstop check` refuses, before the part ahead of the mistake has taken effect.
pub(crate) fn check_sql(chosen: &Chosen) -> Result<(), Problem> {
    let found = check::of_dag(&chosen.definition, &chosen.project, &chosen.sources);
    sources::show(&chosen.sources, found.iter());
    match found.iter().filter(|found| found.severity == Severity::Error).count() {
        0 => Ok(()),
        errors => {
            let dag = chosen.definition.dag.id();
            Err(Problem::usage(format!("the SQL of `{dag}` has {}: nothing ran", words::count(errors, "error"))))
        }
    }
}

async fn plan_resume(arguments: &RunArgs, wanted: &str, place: &Place) -> Result<Option<Plan>, Problem> {
    let chosen = match &arguments.target {
        Some(target) => Some(sources::choose(target, arguments.connection.as_deref(), place, Purpose::Run)?),
        None => None,
    };
    if let Some(chosen) = chosen.as_ref().filter(|_| arguments.current_files) {
        check_sql(chosen)?;
    }
    let (project, kept) = match &chosen {
        Some(chosen) => (chosen.project.clone(), Kept::of(place, &chosen.project.root)),
        None => {
            let root = paths::project(place)?;
            let loaded = sources::load(&sources::Sources::of_folder(&root), place, Purpose::Run)?;
            (Arc::new(loaded.project), Kept::of(place, &root))
        }
    };
    let store = open(&kept)?;
    let dag = chosen.as_ref().map(|chosen| chosen.definition.dag.id().clone());
    let row = runs::find_to_act(&*store, wanted, runs::Latest::Unfinished(dag.as_ref())).await?;
    check_dag(&row, dag.as_ref())?;
    let lock = runs::left::take(&*store, &row, &kept.flags).await?;
    let current = chosen.map(|chosen| chosen.definition).or_else(|| project.dags.get(&row.header.dag_id).cloned());
    let definition = pinned(&*store, &project, &row, current.filter(|_| arguments.current_files)).await?;
    refuse_other_dags(&definition, &row.header.only_tasks, row.header.dry_run)?;
    let decisions = begin::decisions(arguments)?;
    output_resume(&row);
    Ok(Some(Plan { project, definition, store, kept, what: What::Resume(row, decisions), lock, work: None }))
}

fn check_dag(row: &RunRow, dag: Option<&DagId>) -> Result<(), Problem> {
    match dag {
        Some(dag) if *dag != row.header.dag_id => {
            Err(Problem::usage(format!("run {} is of DAG `{}`, not of `{dag}`", row.header.run_id, row.header.dag_id)))
        }
        Some(_) | None => Ok(()),
    }
}

fn output_resume(row: &RunRow) {
    output::note(&format!(
        "resuming run {} of `{}`, begun {}",
        row.header.run_id,
        row.header.dag_id,
        crate::words::time(row.header.queued_at)
    ));
}

/// The definition that a run goes on with: the one it began with, unless the current one is asked for.
async fn pinned(
    store: &dyn Store,
    project: &Project,
    row: &RunRow,
    current: Option<Arc<Definition>>,
) -> Result<Arc<Definition>, Problem> {
    if let Some(current) = current {
        return Ok(current);
    }
    let header = &row.header;
    if let Some(same) = project.dags.get(&header.dag_id).filter(|definition| definition.version == header.version) {
        return Ok(same.clone());
    }
    let kept = store.version(&header.version).await?.ok_or_else(|| {
        Problem::usage(format!("the store does not have the files that run {} began with", header.run_id))
            .hint("resume it with the project's files as they are now: add --current-files")
    })?;
    let bundle = Bundle::from_bytes(&kept.bundle).map_err(|error| Problem::usage(error.to_string()))?;
    let definition = backstop_project::load_definition(&bundle, &header.dag_id, project)
        .map_err(|diagnostics| broken(&header.run_id, &bundle, &diagnostics))?;
    if project.dags.contains_key(&header.dag_id) {
        output::note(
            "the project's files have changed since the run began; it goes on with those it began with (--current-files takes the new ones)",
        );
    }
    Ok(definition)
}

fn broken(run: &RunId, bundle: &Bundle, diagnostics: &[Diagnostic]) -> Problem {
    sources::show(bundle, diagnostics.iter());
    Problem::usage(format!("the files that run {run} began with do not fit the project any more"))
        .hint("mend the project, or resume with its files as they are now: add --current-files")
}

/// When the last event of a run was decided: a clock that was set back must not put new events before it.
async fn last_event_at(store: &dyn Store, row: &RunRow) -> Result<SystemClock, Problem> {
    let last = store.events(&row.header.run_id, row.version.saturating_sub(1), 1).await?;
    Ok(SystemClock::starting(last.first().map(|recorded| recorded.at)))
}

/// What is the same in two requests for one run.
fn is_same(row: &RunRow, request: &Request) -> bool {
    let header = &row.header;
    let params: serde_json::Value = serde_json::from_str(&header.params).unwrap_or_default();
    header.logical_date == request.logical_date
        && params.as_object() == Some(&request.params)
        && header.only_tasks == request.only_tasks
        && header.dry_run == request.dry_run
}
