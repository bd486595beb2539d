//! Makes the runs that updates of assets ask for.
//!
//! The store numbers all updates, whichever process made them. What is kept of a DAG is up to which number its runs stand for: its cursor. A
//! run's id follows from the DAG and the cursor that it was made at, so that a process that dies before the cursor is kept makes no second
//! run: the next one finds the run, and goes on from where that one ends. What comes later waits for the next run; what comes before a run
//! is made is part of it, however much it is.
//!
//! Nothing is kept in memory that the store does not have: an update is looked for when it is needed, and found by an index.

use super::catalog::Catalog;
use super::scheduler::AGAIN_AFTER;
use super::{DagEntry, Error, Service};
use crate::run::Request;
use backstop_core::event::{AssetUpdate, Cause, RunType};
use backstop_core::timetable::AssetExpr;
use backstop_core::{DagId, RunId};
use backstop_project::params;
use backstop_store::{ASSET_UPDATES_MAX, AssetFilter, AssetRow};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Updates that a run names, at most; more where it has more assets, as it names the newest of each.
const NAMED_MAX: u32 = 100;
/// What ids of runs after assets are made from.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6261_636b_7374_6f70_6173_7365_7473_7570);

/// Which DAGs are to be looked at.
#[derive(Default)]
pub(super) struct AssetPlan {
    /// Updates are known up to this one.
    seen: u64,
    is_all_due: bool,
    /// Not before these times.
    due: BTreeMap<DagId, Timestamp>,
}

impl AssetPlan {
    /// Looks at all DAGs anew.
    pub(super) fn look_at_all(&mut self) {
        self.is_all_due = true;
    }

    /// Looks at these anew: they may go on, or their schedules are others.
    pub(super) fn look_at(&mut self, dags: impl Iterator<Item = DagId>) {
        self.due.extend(dags.map(|dag| (dag, Timestamp::MIN)));
    }
}

/// What a DAG waits for; of several schedules by assets any suffices. `None` when it waits for none.
fn condition(entry: &DagEntry) -> Option<AssetExpr> {
    let mut several: Vec<AssetExpr> = entry.definition.timetable.as_ref()?.assets().map(|(_, one)| one.clone()).collect();
    if several.len() > 1 { Some(AssetExpr::Any(several)) } else { several.pop() }
}

/// The DAGs that wait for assets.
pub(super) fn waiting(catalog: &Catalog) -> impl Iterator<Item = (&DagId, AssetExpr)> {
    catalog.dags().iter().filter_map(|(dag, entry)| Some((dag, condition(entry)?)))
}

impl Service {
    /// Makes the runs whose assets were updated.
    pub(super) async fn plan_by_assets(&self, plan: &mut AssetPlan) {
        let catalog = self.catalog();
        if plan.is_all_due {
            self.forget_who_waits_no_more(&catalog).await;
        }
        if waiting(&catalog).next().is_none() {
            return;
        }
        // When the store fails, what is due stays due, and is asked again soon.
        let Ok(last) = self.store.last_asset_update().await else { return };
        if self.find_concerned(plan, &catalog, last).await.is_err() {
            return;
        }
        let now = self.clock.now();
        let mut due: VecDeque<DagId> = plan.due.iter().filter(|(_, at)| **at <= now).map(|(dag, _)| dag.clone()).collect();
        let mut moved = Vec::new();
        while let Some(dag) = due.pop_front() {
            plan.due.remove(&dag);
            let Some(entry) = catalog.dag(dag.as_str()) else { continue };
            match self.look_at_assets(entry, last).await {
                Ok(None) => {}
                Ok(Some(until)) => {
                    moved.push(dag.clone());
                    if until < last {
                        // It was made before, and more has come since.
                        due.push_back(dag);
                    }
                }
                Err(error) => {
                    let why = super::desk::explain(&error);
                    self.desk().unplanned.insert(dag.clone(), why);
                    plan.due.insert(dag, now.checked_add(AGAIN_AFTER).unwrap_or(Timestamp::MAX));
                }
            }
        }
        self.keep_cursors(&moved).await;
    }

    /// A DAG that has another schedule now begins anew, should it ever wait for assets again.
    async fn forget_who_waits_no_more(&self, catalog: &Catalog) {
        let gone: Vec<DagId> = {
            let still: BTreeSet<&DagId> = waiting(catalog).map(|(dag, _)| dag).collect();
            let mut desk = self.desk();
            let is_over = |dag: &DagId| catalog.dag(dag.as_str()).is_some() && !still.contains(dag);
            let gone: Vec<DagId> = desk.asset_cursors.keys().filter(|dag| is_over(dag)).cloned().collect();
            for dag in &gone {
                desk.asset_cursors.remove(dag);
                desk.missing_assets.remove(dag);
            }
            gone
        };
        self.keep_cursors(&gone).await;
    }

    /// Finds the DAGs that wait for what was updated since the last look.
    async fn find_concerned(&self, plan: &mut AssetPlan, catalog: &Catalog, last: u64) -> Result<(), Error> {
        if !plan.is_all_due && last == plan.seen {
            return Ok(());
        }
        let is_much = last.saturating_sub(plan.seen) > u64::from(ASSET_UPDATES_MAX);
        let mut updated = BTreeSet::new();
        if !is_much && last > plan.seen {
            let rows = self.store.asset_updates(plan.seen, ASSET_UPDATES_MAX).await?;
            updated.extend(rows.into_iter().map(|row| row.update.asset));
        }
        let is_concerned = |condition: &AssetExpr| condition.names().iter().any(|name| updated.contains(*name));
        for (dag, condition) in waiting(catalog) {
            if plan.is_all_due {
                plan.due.insert(dag.clone(), Timestamp::MIN);
            } else if is_much || is_concerned(&condition) {
                plan.due.entry(dag.clone()).or_insert(Timestamp::MIN);
            }
        }
        plan.is_all_due = false;
        plan.seen = last;
        Ok(())
    }

    /// Makes the run of a DAG if its assets were updated, and nothing else keeps it; says up to which update it stands for them.
    async fn look_at_assets(&self, entry: &DagEntry, last: u64) -> Result<Option<u64>, Error> {
        let Some(condition) = condition(entry) else { return Ok(None) };
        let dag = entry.definition.dag.id();
        let Some(cursor) = self.desk().asset_cursors.get(dag).copied() else { return Ok(None) };
        let rows = self.pending(entry, &condition, cursor, last).await?;
        let updated: BTreeSet<&str> = rows.iter().map(|row| &*row.update.asset).collect();
        let missing =
            |updated: &BTreeSet<&str>| -> Vec<String> { condition.missing(updated).into_iter().map(str::to_owned).collect() };
        self.desk().missing_assets.insert(dag.clone(), missing(&updated));
        if !condition.is_met(&updated) || !self.may_be_made(entry) {
            return Ok(None);
        }
        let until = self.make_after_assets(entry, rows, cursor, last).await?;
        let mut desk = self.desk();
        desk.asset_cursors.insert(dag.clone(), until);
        desk.missing_assets.insert(dag.clone(), missing(&BTreeSet::new()));
        desk.unplanned.remove(dag);
        Ok(Some(until))
    }

    /// The updates that no run of a DAG stands for: the newest of each asset. What is before its start or after its end does not count.
    async fn pending(&self, entry: &DagEntry, condition: &AssetExpr, cursor: u64, last: u64) -> Result<Vec<AssetRow>, Error> {
        let assets: Vec<Arc<str>> = condition.names().into_iter().map(Arc::from).collect();
        let of_each = NAMED_MAX / u32::try_from(assets.len()).unwrap_or(u32::MAX).max(1);
        let filter = AssetFilter { assets, places: cursor.saturating_add(1)..=last, of_each: of_each.max(1) };
        let mut rows = self.store.updates_of(&filter).await?;
        if let Some(timetable) = &entry.definition.timetable {
            let is_after_start = |at| timetable.start.is_none_or(|start| at >= start);
            let is_before_end = |at| timetable.end.is_none_or(|end| at <= end);
            rows.retain(|row| is_after_start(row.update.at) && is_before_end(row.update.at));
        }
        Ok(rows)
    }

    async fn make_after_assets(&self, entry: &DagEntry, rows: Vec<AssetRow>, cursor: u64, last: u64) -> Result<u64, Error> {
        let definition = &entry.definition;
        let dag = definition.dag.id();
        let params = params::resolve(&definition.params, &serde_json::Map::new());
        let params = params.map_err(|errors| Error::Params { dag: dag.clone(), errors })?;
        let updates: Vec<AssetUpdate> = rows.into_iter().map(|row| row.update).collect();
        let logical_date = updates.iter().map(|update| update.at).max();
        let request = Request {
            run_id: run_id(dag, cursor),
            logical_date,
            data_interval: match logical_date {
                Some(date) => Some(self.interval_of(&updates, date).await?),
                None => None,
            },
            params,
            only_tasks: Vec::new(),
            dry_run: false,
            run_type: RunType::AssetTriggered,
            cause: Some(Cause::Assets { updates, until: last }),
            asked_by: None,
        };
        let made = self.make(entry, request).await?;
        Ok(match &made.header.cause {
            // Found again: it stands for what was there when it was made.
            Some(Cause::Assets { updates: _, until }) => *until,
            Some(Cause::Task { .. }) | None => last,
        })
    }

    /// From the first to the last data that the runs were about which updated the assets, as in Airflow 2.
    async fn interval_of(&self, updates: &[AssetUpdate], date: Timestamp) -> Result<(Timestamp, Timestamp), Error> {
        let runs: BTreeSet<&RunId> = updates.iter().map(|update| &update.run).collect();
        let mut hull: Option<(Timestamp, Timestamp)> = None;
        for run in runs {
            // One that is gone says nothing.
            let row = self.store.run(run).await?;
            let Some((start, end)) = row.and_then(|row| row.header.data_interval) else { continue };
            hull = Some(hull.map_or((start, end), |(first, last)| (first.min(start), last.max(end))));
        }
        Ok(hull.unwrap_or((date, date)))
    }

    /// Why no run of a DAG is made at this moment, in a sentence, where there is more to it than the time of its next tick.
    pub fn why_no_run(&self, entry: &DagEntry) -> Option<String> {
        let dag = entry.definition.dag.id();
        if let Some(why) = self.unplanned(dag) {
            return Some(why);
        }
        if let Some(full) = self.too_many_go_on(entry) {
            return Some(full);
        }
        condition(entry)?;
        let (missing, is_paused, runs) = {
            let desk = self.desk();
            (desk.missing_assets.get(dag).cloned(), desk.paused.contains(dag), desk.runs_of(dag))
        };
        match missing? {
            missing if !missing.is_empty() => {
                Some(format!("it waits for assets that were not updated since its last such run: {}", missing.join(", ")))
            }
            _ if is_paused => {
                Some("its assets were updated, and it is paused: one run comes for all of it when it goes on".into())
            }
            _ if runs >= entry.definition.max_active_runs as usize => Some(format!(
                "its assets were updated, and it has {runs} runs going on, of {} allowed (max_active_runs): one run comes for all of it",
                entry.definition.max_active_runs
            )),
            _ => None,
        }
    }

    /// The assets that must still be updated before a DAG runs by them; empty when it waits for none.
    pub fn missing_assets(&self, dag: &DagId) -> Vec<String> {
        self.desk().missing_assets.get(dag).cloned().unwrap_or_default()
    }
}

fn run_id(dag: &DagId, cursor: u64) -> RunId {
    RunId::new(uuid::Uuid::new_v5(&NAMESPACE, format!("{dag}\n{cursor}").as_bytes()).to_string())
}
