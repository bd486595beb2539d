//! Which runs began with a version of their DAG that they have no more: a person let them go on with other files since.

use backstop_core::{DagId, Event, RunId};
use backstop_store::{Error, RunFilter, Store, VersionUse};
use std::collections::HashMap;

/// Runs that are looked at, the newest: what began before them is not told.
const RUNS_LOOKED_AT_MAX: u32 = 1_000;

/// Completes versions that no run has by the runs that began with them. Where each version has a run nothing is read.
///
/// # Errors
/// The store.
pub async fn fill_in(store: &dyn Store, dag: &DagId, versions: &mut [VersionUse]) -> Result<(), Error> {
    let without: HashMap<String, usize> = versions
        .iter()
        .enumerate()
        .filter(|(_, version)| version.first_run.is_none())
        .map(|(place, version)| (version.digest.clone(), place))
        .collect();
    if without.is_empty() {
        return Ok(());
    }
    let filter = RunFilter { dag: Some(dag.clone()), limit: RUNS_LOOKED_AT_MAX, ..RunFilter::default() };
    for row in store.runs(&filter).await? {
        let run: &RunId = &row.header.run_id;
        let created = store.events(run, 0, 1).await?.into_iter().next().map(|recorded| recorded.event);
        let Some(Event::RunCreated(header)) = created else { continue };
        if let Some(version) = without.get(&header.version).and_then(|place| versions.get_mut(*place)) {
            // Newest first.
            version.last_run.get_or_insert_with(|| run.clone());
            version.first_run = Some(run.clone());
        }
    }
    Ok(())
}
