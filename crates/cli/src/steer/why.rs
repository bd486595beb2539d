//! `backstop runs why`: the exact reason, from the service that drives the run, or from the store where nobody does.

use super::{Held, all_instances, named, resume_command};
use crate::explain::Problem;
use crate::output;
use crate::paths::Kept;
use crate::runs::{self, Latest};
use crate::service::{Entrance, Service, part};
use backstop_core::{InstanceId, TaskId, why};
use backstop_runtime::service::TASKS_MAX as INSTANCES_MAX;
use backstop_store::{RunRow, SqliteStore, Store as _};
use serde_json::Value;

/// Tells why a run, or a task of it, is not further.
pub(super) async fn tell(wanted: &str, task: Option<&str>, entrance: &Entrance, kept: &Kept) -> Result<(), Problem> {
    let store = SqliteStore::open_read_only(&kept.store)?;
    let row = runs::find(&store, wanted, Latest::Any).await?;
    match Service::of(&store, entrance).await? {
        Some(service) => tell_of_service(&service, row.header.run_id.as_str(), task).await,
        None => tell_of_store(&store, row, task, kept).await,
    }
}

/// In one request: what the service says belongs to one moment.
async fn tell_of_service(service: &Service, run: &str, task: Option<&str>) -> Result<(), Problem> {
    let only = task.map(|task| format!("?task={}", part(task))).unwrap_or_default();
    let told = service.get(&format!("/api/v1/runs/{}/why{only}", part(run))).await?;
    if task.is_none() {
        output::data(&format!("run {run}: {}\n", text(&told)))?;
    }
    for one in told["tasks"].as_array().into_iter().flatten() {
        let task = TaskId::new(one["task"].as_str().unwrap_or_default());
        let map_index = one["map_index"].as_u64().and_then(|index| u32::try_from(index).ok());
        output::data(&format!("{}: {}\n", InstanceId { task, map_index }, text(one)))?;
    }
    more(told["more"].as_u64().unwrap_or(0));
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
        None => state.instances().filter(|(_, view)| !view.phase.is_done()).map(|(id, _)| id).collect(),
    };
    if task.is_none() {
        let told = match held.row.ended_at {
            Some(_) => format!("it is over: {}", held.row.state),
            None => format!("it is {}, and no service has the store", held.row.state),
        };
        output::data(&format!("run {run}: {told}\n"))?;
    }
    for instance in instances.iter().take(INSTANCES_MAX) {
        let told = why(state, instance).map(|why| why.to_string()).unwrap_or_default();
        let sample = seen.iter().find(|row| row.instance == *instance).map(|row| format!(": {}", row.sample));
        output::data(&format!("{instance}: {told}{}\n", sample.unwrap_or_default()))?;
    }
    more(instances.len().saturating_sub(INSTANCES_MAX) as u64);
    if runs::is_abandoned(store, &held.row).await? {
        output::note(&format!("nobody runs {run}: {}", resume_command(&held.row, &kept.flags)));
    }
    Ok(())
}

fn more(count: u64) {
    if count > 0 {
        output::note(&format!("{count} more are not listed: name a task"));
    }
}

fn text(answer: &Value) -> String {
    answer["why"].as_str().unwrap_or_default().to_owned()
}
