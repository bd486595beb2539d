//! Makes the runs that timetables ask for.
//!
//! A run's id follows from its DAG and the time of its tick, so that a tick makes one run however often it is planned: by a process that
//! died before it could note that it had, or by two. What is kept is how far each DAG is planned (its cursor). A DAG with as many runs as
//! it may have is planned no further, so that a million missed ticks cost what goes on, not a million runs.

use super::assets::AssetPlan;
use super::backfill::runs_about;
use super::{DagEntry, Error, Service};
use crate::run::Request;
use backstop_core::event::{RunHeader, RunType};
use backstop_core::timetable::Tick;
use backstop_core::{DagId, RunId};
use backstop_project::params;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The longest sleep. The machine may have been suspended, or its clock set: no sleep notices that.
const SLEEP_MAX: Duration = Duration::from_secs(2);
/// Until a tick that could not be planned is tried again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What ids of scheduled runs are made from.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6261_636b_7374_6f70_7363_6865_6475_6c65);

/// DAGs whose ticks may have changed.
#[derive(Default)]
pub(super) struct Replan {
    pub(super) all: bool,
    pub(super) dags: BTreeSet<DagId>,
}

/// When each DAG is to be looked at next.
#[derive(Default)]
struct Plan {
    /// By DAG; one without is not planned.
    due: BTreeMap<DagId, Timestamp>,
    assets: AssetPlan,
}

impl Service {
    /// Plans until the service stops.
    pub(super) async fn schedule(self: Arc<Self>) {
        let mut plan = Plan::default();
        let mut stopping = self.stopping.subscribe();
        self.desk().replan.all = true;
        self.plan_anew(&mut plan);
        self.plan_by_assets(&mut plan.assets).await;
        loop {
            let now = self.clock.now();
            let wait = plan.due.values().min().map_or(SLEEP_MAX, |at| crate::clock::until(now, *at).min(SLEEP_MAX));
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.replan.notified() => self.plan_anew(&mut plan),
                () = self.live.assets_updated() => {}
                () = tokio::time::sleep(wait) => {}
            }
            self.plan_what_is_due(&mut plan).await;
            self.plan_by_assets(&mut plan.assets).await;
        }
    }

    /// Looks again at the DAGs whose ticks may have changed: all of them after a reload, one when a run of it has ended.
    fn plan_anew(&self, plan: &mut Plan) {
        let now = self.clock.now();
        let catalog = self.catalog();
        let changed = std::mem::take(&mut self.desk().replan);
        if changed.all {
            plan.due.clear();
            plan.assets.look_at_all();
        }
        plan.assets.look_at(changed.dags.iter().cloned());
        let dags = catalog.dags().iter().filter(|(dag, _)| changed.all || changed.dags.contains(*dag));
        for (dag, entry) in dags {
            match self.next_tick_of(entry, now) {
                Some(tick) => drop(plan.due.insert(dag.clone(), tick.run_after)),
                None => drop(plan.due.remove(dag)),
            }
        }
    }

    /// The next tick of a DAG that may be planned now.
    fn next_tick_of(&self, entry: &DagEntry, now: Timestamp) -> Option<Tick> {
        let timetable = entry.definition.timetable.as_ref()?;
        if !self.may_be_made(entry) {
            return None;
        }
        let cursor = self.desk().cursors.get(entry.definition.dag.id()).copied();
        timetable.next(cursor, now)
    }

    /// When a DAG runs next by itself; `None` when it does not. Of a paused DAG: what would be next.
    pub fn next_tick(&self, entry: &DagEntry) -> Option<Tick> {
        let cursor = self.desk().cursors.get(entry.definition.dag.id()).copied();
        entry.definition.timetable.as_ref()?.next(cursor, self.clock.now())
    }

    async fn plan_what_is_due(&self, plan: &mut Plan) {
        let now = self.clock.now();
        let due: Vec<DagId> = plan.due.iter().filter(|(_, at)| **at <= now).map(|(dag, _)| dag.clone()).collect();
        let catalog = self.catalog();
        let mut moved = Vec::new();
        for dag in due {
            plan.due.remove(&dag);
            let Some(entry) = catalog.dag(dag.as_str()) else { continue };
            let Some(tick) = self.next_tick_of(entry, now) else { continue };
            if tick.run_after > now {
                plan.due.insert(dag, tick.run_after);
                continue;
            }
            match self.make_scheduled(entry, &tick).await {
                Ok(()) => {
                    self.desk().cursors.insert(dag.clone(), tick.run_after);
                    moved.push(dag.clone());
                    // With catchup the next may be due as well.
                    if let Some(next) = self.next_tick_of(entry, now) {
                        plan.due.insert(dag, next.run_after);
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

    /// Keeps how far DAGs are planned. A cursor that is not kept is found behind: what was planned is planned again, and makes the run
    /// that is there.
    pub(super) async fn keep_cursors(&self, dags: &[DagId]) {
        if dags.is_empty() {
            return;
        }
        let _one_at_a_time = self.keeping.lock().await;
        let entries = dags.iter().map(|dag| self.desk().kept(dag).entry(dag)).collect();
        let _ = self.store.put(entries, None).await;
    }

    /// Whether nothing keeps runs of a DAG from being made.
    pub(super) fn may_be_made(&self, entry: &DagEntry) -> bool {
        let (desk, dag) = (self.desk(), entry.definition.dag.id());
        !desk.paused.contains(dag) && desk.runs_of(dag) < entry.definition.max_active_runs as usize
    }

    async fn make_scheduled(&self, entry: &DagEntry, tick: &Tick) -> Result<(), Error> {
        let definition = &entry.definition;
        let dag = definition.dag.id().clone();
        let params = params::resolve(&definition.params, &serde_json::Map::new());
        let params = params.map_err(|errors| Error::Params { dag: dag.clone(), errors })?;
        let request = Request {
            run_id: run_id(&dag, tick),
            logical_date: Some(tick.logical_date),
            data_interval: Some(tick.data_interval),
            params,
            only_tasks: Vec::new(),
            dry_run: false,
            run_type: RunType::Scheduled,
            cause: None,
            asked_by: None,
        };
        // A person or a backfill may have come to this date before.
        let _one_at_a_time = self.dates.lock().await;
        let about = runs_about(&*self.store, &dag, tick.logical_date).await?;
        if !about.iter().any(|row| stands_for_its_date(&row.header)) {
            let made = self.make(entry, request).await?;
            if made.is_new {
                self.live.measures().schedule_lag.observe_between(tick.run_after, self.clock.now());
            }
        }
        self.desk().unplanned.remove(&dag);
        Ok(())
    }

    /// Why the ticks of a DAG cannot be planned, where they cannot.
    pub fn unplanned(&self, dag: &DagId) -> Option<String> {
        self.desk().unplanned.get(dag).cloned()
    }
}

/// Whether a run is what a tick of its date would make: all of the DAG, and not as a part of something else.
fn stands_for_its_date(header: &RunHeader) -> bool {
    header.only_tasks.is_empty() && header.cause.is_none()
}

fn run_id(dag: &DagId, tick: &Tick) -> RunId {
    let name = format!("{dag}\n{}", tick.run_after);
    RunId::new(uuid::Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string())
}
