//! What made a run, where that was another run.

use backstop_core::InstanceId;
use backstop_core::event::{AssetUpdate, Cause, RunHeader};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// A task instance of a run.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskOf<'a> {
    run_id: &'a str,
    task: &'a str,
    #[schema(required)]
    map_index: Option<u32>,
}

impl<'a> TaskOf<'a> {
    fn new(run: &'a backstop_core::RunId, instance: &'a InstanceId) -> Self {
        Self { run_id: run.as_str(), task: instance.task.as_str(), map_index: instance.map_index }
    }
}

/// An asset that a task instance updated.
#[derive(Debug, Serialize, ToSchema)]
pub struct Update<'a> {
    asset: &'a str,
    at: Timestamp,
    #[serde(flatten)]
    by: TaskOf<'a>,
}

impl<'a> From<&'a AssetUpdate> for Update<'a> {
    fn from(update: &'a AssetUpdate) -> Self {
        Self { asset: &update.asset, at: update.at, by: TaskOf::new(&update.run, &update.instance) }
    }
}

/// The `dag` task that started a run.
pub fn started_by(header: &RunHeader) -> Option<TaskOf<'_>> {
    match &header.cause {
        Some(Cause::Task { run, instance, depth: _ }) => Some(TaskOf::new(run, instance)),
        Some(Cause::Assets { .. }) | None => None,
    }
}

/// The updates of assets that a run stands for.
pub fn asset_updates(header: &RunHeader) -> Vec<Update<'_>> {
    match &header.cause {
        Some(Cause::Assets { updates, until: _ }) => updates.iter().map(Update::from).collect(),
        Some(Cause::Task { .. }) | None => Vec::new(),
    }
}
