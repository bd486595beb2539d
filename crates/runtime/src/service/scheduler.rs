//! Makes the runs that timetables ask for.
//!
//! A run's id follows from its DAG and the time of its tick, so that a tick makes one run however often it is planned: by a process that
//! died before it could note that it had, or by two. What is kept is how far each DAG is planned (its cursor). A DAG with as many runs as
//! it may have is planned no further, so that a million missed ticks cost what goes on, not a million runs.
//!
//! Schedules are of the wall, so it is the machine's own clock that counts here, also where it was set back. That makes no tick come twice:
//! the cursors stay. But where a clock was ahead for a while, and the latest of the ticks that it went over was made, those that it left
//! out come when it is their time: the cursor goes back, and ticks that were made find their runs.

use super::assets::AssetPlan;
use super::notice::{Level, Topic};
use super::{DagEntry, Error, Service};
use crate::clock::JumpWatch;
use crate::others::{is_whole, newest_about};
use crate::run::Request;
use backstop_core::event::{RunHeader, RunType};
use backstop_core::timetable::{Tick, Timetable};
use backstop_core::{DagId, RunId};
use backstop_project::params;
use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use jiff::{SignedDuration, SpanRound, Timestamp, Unit};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The longest sleep. The machine may have been suspended, or its clock set: no sleep notices that.
const SLEEP_MAX: Duration = Duration::from_secs(2);
/// Until a tick that could not be planned is tried again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Runs of one moment that are made at once.
const MADE_AT_ONCE: usize = 256;
/// What ids of scheduled runs are made from.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6261_636b_7374_6f70_7363_6865_6475_6c65);

/// A DAG and its tick that is due.
type Due<'c> = (DagId, &'c DagEntry, Tick);

/// DAGs whose ticks may have changed.
#[derive(Default)]
pub(super) struct Replan {
    pub(super) all: bool,
    pub(super) dags: BTreeSet<DagId>,
}

/// When each DAG is to be looked at next.
#[derive(Default)]
pub(super) struct Plan {
    /// By DAG; one without is not planned.
    due: BTreeMap<DagId, Timestamp>,
    assets: AssetPlan,
    clock: JumpWatch,
}

impl Service {
    /// Plans until the service stops.
    pub(super) async fn schedule(self: Arc<Self>) {
        let mut plan = Plan::default();
        let mut stopping = self.stopping.subscribe();
        self.desk().replan.all = true;
        loop {
            self.look_at_schedules(&mut plan).await;
            self.notices.sum_up();
            let wait = plan.due.values().min().map_or(SLEEP_MAX, |at| crate::clock::until(self.wall(), *at).min(SLEEP_MAX));
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.replan.notified() => {}
                () = self.live.assets_updated() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Makes the runs that are due.
    pub(super) async fn look_at_schedules(&self, plan: &mut Plan) {
        self.look_at_clock(plan).await;
        // When the store fails, new DAGs are planned when it works again.
        let _ = self.begin_with_new_dags().await;
        self.plan_anew(plan);
        self.plan_what_is_due(plan).await;
        self.plan_by_assets(&mut plan.assets).await;
    }

    /// The time that schedules are in.
    fn wall(&self) -> Timestamp {
        self.clock.reading().map_or_else(|| self.clock.now(), |reading| reading.wall)
    }

    /// Says so when the machine's clock has jumped, and plans anew by what it says now.
    async fn look_at_clock(&self, plan: &mut Plan) {
        let Some(reading) = self.clock.reading() else { return };
        let Some(jump) = plan.clock.look(reading) else { return };
        if jump.is_negative() {
            self.take_back_what_was_left_out(reading.wall).await;
        }
        self.desk().replan.all = true;
        self.notices.tell(Topic::Machine, Level::Warn, &jumped(jump));
    }

    /// The clock was ahead, and is not any more: ticks that were left out because a later one was due are to come again.
    async fn take_back_what_was_left_out(&self, wall: Timestamp) {
        let back: Vec<DagId> = {
            let mut desk = self.desk();
            let all = std::mem::take(&mut desk.left_out);
            let (back, stay): (BTreeMap<_, _>, BTreeMap<_, _>) = all.into_iter().partition(|(_, (_, tick))| *tick > wall);
            desk.left_out = stay;
            for (dag, (cursor, _)) in &back {
                match cursor {
                    Some(cursor) => drop(desk.cursors.insert(dag.clone(), *cursor)),
                    None => drop(desk.cursors.remove(dag)),
                }
            }
            back.into_keys().collect()
        };
        self.keep_cursors(&back).await;
    }

    /// DAGs that are there for the first time begin here, durably. One that waits for assets does not count what was updated before; one by
    /// time that has no start counts nothing as missed that was before, and everything that comes, however often the service starts anew.
    pub(super) async fn begin_with_new_dags(&self) -> Result<(), Error> {
        let catalog = self.catalog();
        let (for_assets, by_time) = {
            let desk = self.desk();
            let for_assets: BTreeSet<DagId> = super::assets::waiting(&catalog)
                .map(|(dag, _)| dag)
                .filter(|dag| !desk.asset_cursors.contains_key(*dag))
                .cloned()
                .collect();
            let is_new = |dag: &DagId| !desk.cursors.contains_key(dag) && !desk.since.contains_key(dag);
            let needs_one =
                |entry: &DagEntry| entry.definition.timetable.as_ref().is_some_and(|timetable| timetable.start.is_none());
            let new = catalog.dags().iter().filter(|(dag, entry)| is_new(dag) && needs_one(entry));
            (for_assets, new.map(|(dag, _)| dag.clone()).collect::<BTreeSet<_>>())
        };
        if for_assets.is_empty() && by_time.is_empty() {
            return Ok(());
        }
        let last = self.store.last_asset_update().await?;
        let now = self.wall();
        let _one_at_a_time = self.keeping.lock().await;
        let entry = |dag: &DagId| {
            let mut kept = self.desk().kept(dag);
            kept.assets = kept.assets.or(for_assets.contains(dag).then_some(last));
            kept.since = kept.since.or(by_time.contains(dag).then_some(now));
            kept.entry(dag)
        };
        self.store.put(for_assets.union(&by_time).map(entry).collect(), None).await?;
        let mut desk = self.desk();
        desk.replan.dags.extend(for_assets.union(&by_time).cloned());
        desk.asset_cursors.extend(for_assets.into_iter().map(|dag| (dag, last)));
        desk.since.extend(by_time.into_iter().map(|dag| (dag, now)));
        Ok(())
    }

    /// Looks again at the DAGs whose ticks may have changed: all of them after a reload, one when a run of it has ended.
    fn plan_anew(&self, plan: &mut Plan) {
        let changed = std::mem::take(&mut self.desk().replan);
        if !changed.all && changed.dags.is_empty() {
            return;
        }
        let now = self.wall();
        let catalog = self.catalog();
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
        self.first_of(timetable, entry.definition.dag.id(), now, None)
    }

    /// The tick behind the cursor. A DAG without a start that was never planned begins when it was seen first, or `otherwise`.
    fn first_of(&self, timetable: &Timetable, dag: &DagId, now: Timestamp, otherwise: Option<Timestamp>) -> Option<Tick> {
        let desk = self.desk();
        let since = desk.since.get(dag).copied().or(otherwise);
        match (desk.cursors.get(dag).copied(), timetable.start, since) {
            (cursor @ Some(_), _, _) | (cursor @ None, Some(_), _) => timetable.next(cursor, now),
            (None, None, Some(since)) => timetable.next_since(since, now),
            // What is planned from a time that is not kept might be planned from another one after a crash.
            (None, None, None) => None,
        }
    }

    /// When a DAG runs next by itself; `None` when it does not. Of a paused DAG: what would be next.
    pub fn next_tick(&self, entry: &DagEntry) -> Option<Tick> {
        let now = self.wall();
        self.first_of(entry.definition.timetable.as_ref()?, entry.definition.dag.id(), now, Some(now))
    }

    /// Makes the runs that are due together: one after the other, each would wait for the disk behind all that come before it by name.
    async fn plan_what_is_due(&self, plan: &mut Plan) {
        let now = self.wall();
        let due: Vec<DagId> = plan.due.iter().filter(|(_, at)| **at <= now).map(|(dag, _)| dag.clone()).collect();
        let catalog = self.catalog();
        let mut ticks = Vec::new();
        for dag in due {
            plan.due.remove(&dag);
            let Some(entry) = catalog.dag(dag.as_str()) else { continue };
            let Some(tick) = self.next_tick_of(entry, now) else { continue };
            if tick.run_after > now {
                plan.due.insert(dag, tick.run_after);
                continue;
            }
            ticks.push((dag, entry, tick));
        }
        if ticks.is_empty() {
            return;
        }
        let mut moved = Vec::new();
        for ((dag, entry, tick), made) in self.make_all(ticks).await {
            match made {
                Ok(()) => {
                    self.move_cursor(entry, &tick);
                    // With catchup the next may be due as well.
                    if let Some(next) = self.next_tick_of(entry, now) {
                        plan.due.insert(dag.clone(), next.run_after);
                    }
                    moved.push(dag);
                }
                Err(error) => {
                    let why = super::desk::explain(&error);
                    self.desk().unplanned.insert(dag.clone(), why);
                    plan.due.insert(dag, now.checked_add(AGAIN_AFTER).unwrap_or(Timestamp::MAX));
                }
            }
        }
        // Behind all of them: a process that dies before this finds their cursors where they were, and the runs that it made.
        self.keep_cursors(&moved).await;
    }

    /// Makes the run of each tick, of each DAG one, so that what is written for them is written in one go.
    async fn make_all<'c>(&self, ticks: Vec<Due<'c>>) -> Vec<(Due<'c>, Result<(), Error>)> {
        // A person or a backfill may have come to a date before, and nobody else may come to one meanwhile.
        let _one_at_a_time = self.dates.lock().await;
        let make = |due: Due<'c>| {
            async move {
                let made = self.make_scheduled(due.1, &due.2).await;
                (due, made)
            }
            .boxed()
        };
        let making: Vec<_> = ticks.into_iter().map(make).collect();
        stream::iter(making).buffered(MADE_AT_ONCE).collect().await
    }

    fn move_cursor(&self, entry: &DagEntry, tick: &Tick) {
        let dag = entry.definition.dag.id();
        let first = {
            let timetable = entry.definition.timetable.as_ref().map(|timetable| Timetable { catchup: true, ..timetable.clone() });
            timetable.and_then(|timetable| self.first_of(&timetable, dag, tick.run_after, None))
        };
        let mut desk = self.desk();
        let before = desk.cursors.insert(dag.clone(), tick.run_after);
        if first.is_some_and(|first| first.run_after < tick.run_after) {
            desk.left_out.insert(dag.clone(), (before, tick.run_after));
        }
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

    /// The limit that keeps the tick which is due from being planned.
    pub(super) fn too_many_go_on(&self, entry: &DagEntry) -> Option<String> {
        let limit = entry.definition.max_active_runs as usize;
        let tick = self.next_tick(entry).filter(|tick| tick.run_after <= self.wall())?;
        let (runs, some, is_paused) = {
            let (desk, dag) = (self.desk(), entry.definition.dag.id());
            (desk.runs_of(dag), desk.some_runs_of(dag), desk.paused.contains(dag))
        };
        if is_paused || runs < limit {
            return None;
        }
        Some(format!(
            "the run about {} is due, and it has {} that are not over, of {limit} allowed (max_active_runs): it waits for {}",
            tick.logical_date,
            if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") },
            super::desk::named(&some, runs)
        ))
    }

    /// Whoever calls it has `dates`.
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
        if newest_about(&*self.store, &dag, tick.logical_date, stands_for_a_tick).await?.is_none() {
            let made = self.make(entry, request).await?;
            if made.is_new {
                self.live.measures().schedule_lag.observe_between(tick.run_after, self.wall());
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
fn stands_for_a_tick(header: &RunHeader) -> bool {
    is_whole(header) && header.cause.is_none()
}

/// What a jump of the clock means, for whoever looks after the machine.
fn jumped(jump: SignedDuration) -> String {
    let far = words(jump.abs());
    if jump.is_negative() {
        return format!(
            "the machine's clock was set back by {far}: schedules wait until it has caught up, and what ran does not run again; the times of \
             events go on from the last one, at half pace until then"
        );
    }
    format!(
        "the machine's clock has gone on by {far} more than the time that passed: the machine was suspended, or its clock was set; what fell \
         due meanwhile is made up for as `catchup` says, and waits that are over end now"
    )
}

fn words(time: SignedDuration) -> String {
    let span =
        jiff::Span::try_from(time).and_then(|span| span.round(SpanRound::new().largest(Unit::Hour).smallest(Unit::Second)));
    span.map_or_else(|_| format!("{} s", time.as_secs()), |span| format!("{span:#}"))
}

fn run_id(dag: &DagId, tick: &Tick) -> RunId {
    let name = format!("{dag}\n{}", tick.run_after);
    RunId::new(uuid::Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string())
}
