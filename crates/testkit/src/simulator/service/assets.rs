//! What must hold of DAGs that wait for assets: each update that the logs tell of is in the store's order once, and each is stood for by
//! one run, or waits for what else is waited for.

use crate::simulator::scenario::Scenario;
use backstop_core::Event;
use backstop_core::event::{AssetUpdate, Cause};
use backstop_core::timetable::AssetExpr;
use backstop_store::{ASSET_UPDATES_MAX, AssetRow, RunRow, Store};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Updates of one asset that a run names for sure; of more the newest.
const NAMED_MIN: usize = 25;

/// All updates, in the store's order.
pub(crate) async fn updates(store: &dyn Store) -> Result<Vec<AssetRow>, String> {
    let mut all: Vec<AssetRow> = Vec::new();
    loop {
        let after = all.last().map_or(0, |row| row.seq);
        let some = store.asset_updates(after, ASSET_UPDATES_MAX).await.map_err(|error| error.to_string())?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

/// The store's order has what logs tell, each once.
pub(crate) async fn judge_told(store: &dyn Store, rows: &[RunRow], updates: &[AssetRow]) -> Result<(), String> {
    let mut told = Vec::new();
    for row in rows {
        let run = &row.header.run_id;
        for recorded in store.events(run, 0, usize::MAX).await.map_err(|error| error.to_string())? {
            let Event::AssetsUpdated { instance, try_number: _, assets } = &recorded.event else { continue };
            let update = |asset: &Arc<str>| AssetUpdate {
                asset: asset.clone(),
                run: run.clone(),
                instance: instance.clone(),
                at: recorded.at,
            };
            told.extend(assets.iter().map(update));
        }
    }
    for row in updates {
        match told.iter().position(|update| *update == row.update) {
            Some(place) => drop(told.swap_remove(place)),
            None => return Err(format!("no log tells of update {row:?}")),
        }
    }
    told.first().map_or(Ok(()), |update| Err(format!("a log tells of {update:?}, and the store has no such update")))
}

fn condition(scenario: &Scenario) -> Option<&AssetExpr> {
    scenario.definition.timetable.as_ref()?.assets().next().map(|(_, condition)| condition)
}

/// The runs of a DAG by assets: what each names, and up to which update it stands for all; in that order.
fn windows<'r>(scenario: &Scenario, rows: &'r [RunRow]) -> Vec<(&'r RunRow, &'r [AssetUpdate], u64)> {
    let mut windows: Vec<_> = rows
        .iter()
        .filter(|row| row.header.dag_id == *scenario.definition.dag.id())
        .filter_map(|row| match &row.header.cause {
            Some(Cause::Assets { updates, until }) => Some((row, updates.as_slice(), *until)),
            Some(Cause::Task { .. }) | None => None,
        })
        .collect();
    windows.sort_by_key(|(_, _, until)| *until);
    windows
}

/// What a DAG waits for of the updates between two places.
fn between<'u>(condition: &AssetExpr, updates: &'u [AssetRow], after: u64, until: u64) -> Vec<&'u AssetUpdate> {
    let names = condition.names();
    let is_there = |row: &&AssetRow| row.seq > after && row.seq <= until && names.contains(&*row.update.asset);
    updates.iter().filter(is_there).map(|row| &row.update).collect()
}

fn is_met(condition: &AssetExpr, updates: &[&AssetUpdate]) -> bool {
    condition.is_met(&updates.iter().map(|update| &*update.asset).collect::<BTreeSet<_>>())
}

/// A run is still to come.
pub(crate) fn is_due(scenario: &Scenario, rows: &[RunRow], updates: &[AssetRow]) -> bool {
    let Some(condition) = condition(scenario) else { return false };
    let after = windows(scenario, rows).last().map_or(0, |(_, _, until)| *until);
    is_met(condition, &between(condition, updates, after, u64::MAX))
}

/// Each run stands for what came since the one before it, all of it, and for nothing else; and none is missing.
pub(crate) fn judge(scenario: &Scenario, rows: &[RunRow], updates: &[AssetRow]) -> Result<(), String> {
    let Some(condition) = condition(scenario) else { return Ok(()) };
    let mut after = 0;
    for (row, named, until) in windows(scenario, rows) {
        let run = &row.header.run_id;
        if until <= after {
            return Err(format!("run {run} stands for updates up to {until}, as another one does up to {after}"));
        }
        let came = between(condition, updates, after, until);
        if !is_met(condition, &came) {
            return Err(format!("run {run} was made of {came:?}, which is not what is waited for"));
        }
        if let Some(strange) = named.iter().find(|update| !came.contains(update)) {
            return Err(format!("run {run} names {strange:?}, which did not come between {after} and {until}"));
        }
        for update in &came {
            let newer = came.iter().rev().filter(|other| other.asset == update.asset).take(NAMED_MIN);
            if newer.into_iter().any(|other| other == update) && !named.contains(update) {
                return Err(format!("run {run} does not name {update:?}"));
            }
        }
        after = until;
    }
    match is_due(scenario, rows, updates) {
        true => Err(format!("a run of DAG `{}` is missing after update {after}", scenario.definition.dag.id())),
        false => Ok(()),
    }
}
