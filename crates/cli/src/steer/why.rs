//! `backstop runs why`: the exact reason, from the service that drives the run, or from the store where nobody does.

use super::{Held, all_instances, named, resume_command};
use crate::explain::{self, Problem};
use crate::output;
use crate::paths::{self, Kept};
use crate::runs::show::lost;
use crate::runs::{self, Latest};
use crate::service::{Entrance, Service, part};
use backstop_core::{InstanceId, InstancePhase, InstanceView, RunPhase, RunState, TaskId, why};
use backstop_runtime::ended;
use backstop_runtime::service::TASKS_MAX as INSTANCES_MAX;
use backstop_store::{RunRow, SqliteStore, Store as _};
use serde_json::Value;

/// Tells why a run, or a task of it, is not further.
pub(super) async fn tell(wanted: &str, task: Option<&str>, entrance: &Entrance, kept: &Kept) -> Result<(), Problem> {
    let store = SqliteStore::open_read_only(&kept.store)?;
    let row = runs::find(&store, wanted, Latest::Any).await?;
    match Service::of(&store, entrance).await? {
        Some(service) => {
            tell_of_service(&service, row.header.run_id.as_str(), task, kept).await?;
            if task.is_none() {
                what_next(&row, &kept.flags);
            }
            Ok(())
        }
        None => tell_of_store(&store, row, task, kept).await,
    }
}

/// In one request: what the service says belongs to one moment.
async fn tell_of_service(service: &Service, run: &str, task: Option<&str>, kept: &Kept) -> Result<(), Problem> {
    let only = task.map(|task| format!("?task={}", part(task))).unwrap_or_default();
    let told = service.get(&format!("/api/v1/runs/{}/why{only}", part(run))).await?;
    if task.is_none() {
        output::data(&format!("run {run}: {}\n", text(&told)))?;
    }
    let mut doubt = None;
    for one in told["tasks"].as_array().into_iter().flatten() {
        let task = TaskId::new(one["task"].as_str().unwrap_or_default());
        let map_index = one["map_index"].as_u64().and_then(|index| u32::try_from(index).ok());
        let instance = InstanceId { task, map_index };
        output::data(&format!("{instance}: {}\n", text(one)))?;
        if one["state"] == InstancePhase::InDoubt.as_str() && told["state"] == RunPhase::Stuck.as_str() {
            doubt = doubt.or(Some(instance));
        }
    }
    more(told["more"].as_u64().unwrap_or(0));
    if let Some(instance) = doubt {
        let word = paths::shell_word(&instance.to_string());
        say_so(&runs::left::resolve_command(run, &word, &kept.flags));
    }
    Ok(())
}

async fn tell_of_store(store: &SqliteStore, row: RunRow, task: Option<&str>, kept: &Kept) -> Result<(), Problem> {
    let run = row.header.run_id.clone();
    // Reading takes no lock: a run that goes on is read as far as its log is durable.
    let held = Held::of(store, row, &kept.flags, true).await?;
    let state = held.idle.state();
    // What the process that drives it saw of its statements.
    let seen = store.last_samples(&run).await?;
    let instances: Vec<InstanceId> = match task {
        Some(task) => all_instances(state, &named(state, &[task.to_owned()])?),
        None => state.instances().filter(|(_, view)| is_told(state, view)).map(|(id, _)| id).collect(),
    };
    let over = ended::sentence(store, &run, state).await?;
    let is_abandoned = runs::left::is_abandoned(store, &held.row).await?;
    if task.is_none() {
        let was = &held.row.state;
        let told = match (over, held.row.ended_at) {
            (Some(over), _) => over,
            (None, Some(_)) => format!("it is over: {was}"),
            (None, None) if is_abandoned && was != RunPhase::Queued.as_str() => format!("its process is gone; it was {was}"),
            (None, None) => format!("it is {was}, and no service has the store"),
        };
        output::data(&format!("run {run}: {told}\n"))?;
    }
    for instance in instances.iter().take(INSTANCES_MAX) {
        let sample = seen.iter().find(|row| row.instance == *instance);
        let told = match (state.instance(instance), why(state, instance)) {
            (Some(view), _) if is_abandoned && view.phase == InstancePhase::Running => {
                format!("try {} was running: {}", view.try_number, lost(sample))
            }
            (Some(view), Some(told)) if view.phase.is_done() => format!("{told}{}", ended::of_instance(&view)),
            (_, told) => {
                let sample = sample.map(|row| format!(": {}", row.sample)).unwrap_or_default();
                format!("{}{sample}", told.map(|why| why.to_string()).unwrap_or_default())
            }
        };
        output::data(&format!("{instance}: {told}\n"))?;
    }
    more(instances.len().saturating_sub(INSTANCES_MAX) as u64);
    let resume = resume_command(&held.row, &kept.flags);
    let is_stuck = held.row.state == RunPhase::Stuck.as_str();
    let doubt = instances
        .iter()
        .filter(|_| is_stuck)
        .find(|id| state.instance(id).is_some_and(|view| view.phase == InstancePhase::InDoubt));
    if let Some(instance) = doubt {
        let word = paths::shell_word(&instance.to_string());
        say_so(&format!("{resume} --resolve {word}=committed --why \"how you know\" (or {word}=not-committed)"));
    } else if is_abandoned {
        output::note(&format!("nobody runs {run}: {resume}"));
    }
    if task.is_none() {
        what_next(&held.row, &kept.flags);
    }
    Ok(())
}

/// Of a run that is over nothing is left to do: those that failed are told of.
fn is_told(state: &RunState, view: &InstanceView<'_>) -> bool {
    !view.phase.is_done() || state.phase().is_terminal() && ended::is_to_blame(view)
}

/// What makes a run go on that did not come to a good end.
fn what_next(row: &RunRow, flags: &str) {
    let run = row.header.run_id.as_str();
    if row.ended_at.is_none() || row.header.dry_run {
        return;
    }
    if row.state == RunPhase::Failed.as_str() {
        output::note(&format!("what it did in full: backstop runs show {run}{flags}"));
        output::note(&format!("once mended, go on behind the last commit: {}", explain::retry_command(run, flags)));
    } else if row.state == RunPhase::Cancelled.as_str() {
        output::note(&format!("to go on behind the last commit: backstop runs retry {run}{flags} --reason \"why\""));
    }
}

/// What ends a doubt.
fn say_so(command: &str) {
    output::note(&format!("find out what it did, then say so: {command}"));
}

fn more(count: u64) {
    if count > 0 {
        output::note(&format!("{count} more are not listed: name a task"));
    }
}

fn text(answer: &Value) -> String {
    answer["why"].as_str().unwrap_or_default().to_owned()
}
