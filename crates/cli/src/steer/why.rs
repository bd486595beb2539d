//! `backstop runs why`: the exact reason, from the service that drives the run, or from the store where nobody does.

use super::{Held, all_instances, named, resume_command};
use crate::explain::Problem;
use crate::output;
use crate::paths::Kept;
use crate::runs::{self, Latest};
use crate::service::{Entrance, Service, part};
use backstop_core::{InstanceId, why};
use backstop_store::{SqliteStore, Store as _};
use serde_json::Value;

/// Instances that one answer is about, at most.
const INSTANCES_MAX: usize = 100;

/// Tells why a run, or a task of it, is not further.
pub(super) async fn tell(wanted: &str, task: Option<&str>, entrance: &Entrance, kept: &Kept) -> Result<(), Problem> {
    let store = SqliteStore::open_read_only(&kept.store)?;
    let row = runs::find(&store, wanted, Latest::Any).await?;
    let run = row.header.run_id.clone();
    // Reading takes no lock: a run that goes on is read as far as its log is durable.
    let held = Held::of(&store, row, &kept.flags, true).await?;
    let state = held.idle.state();
    let service = Service::of(&store, entrance).await?;
    // What the process that drives it saw of its statements.
    let seen = store.last_samples(&run).await?;
    let path = format!("/api/v1/runs/{}", part(run.as_str()));
    let instances: Vec<InstanceId> = match task {
        Some(task) => all_instances(state, &named(state, &[task.to_owned()])?),
        None => state.instances().filter(|(_, view)| !view.phase.is_done()).map(|(id, _)| id).collect(),
    };
    if task.is_none() {
        let told = match &service {
            Some(service) => text(&service.get(&format!("{path}/why")).await?),
            None if held.row.ended_at.is_some() => format!("it is over: {}", held.row.state),
            None => format!("it is {}, and no service has the store", held.row.state),
        };
        output::data(&format!("run {run}: {told}\n"))?;
    }
    for instance in instances.iter().take(INSTANCES_MAX) {
        let told = match &service {
            Some(service) => text(&service.get(&format!("{path}/tasks/{}/why", part(&instance.to_string()))).await?),
            None => {
                let sample = seen.iter().find(|row| row.instance == *instance).map(|row| format!(": {}", row.sample));
                let told = why(state, instance).map(|why| why.to_string()).unwrap_or_default();
                format!("{told}{}", sample.unwrap_or_default())
            }
        };
        output::data(&format!("{instance}: {told}\n"))?;
    }
    if instances.len() > INSTANCES_MAX {
        output::note(&format!("{} more are not listed: name a task", instances.len() - INSTANCES_MAX));
    }
    if service.is_none() && runs::is_abandoned(&store, &held.row).await? {
        output::note(&format!("nobody runs {run}: {}", resume_command(&held.row, &kept.flags)));
    }
    Ok(())
}

fn text(answer: &Value) -> String {
    answer["why"].as_str().unwrap_or_default().to_owned()
}
