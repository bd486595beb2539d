//! What the service was asked and has answered, and what must hold of it: while it goes on, and at the end.

use super::house::House;
use super::{assets, deadlines};
use crate::simulator::scenario::{RUN_END, Scenario};
use crate::simulator::server::Server;
use crate::simulator::verdict::{self, Allowed};
use crate::simulator::world::UnderWay;
use backstop_core::event::RunType;
use backstop_core::{DagId, Event, InstanceId, InstancePhase, RunId, RunState};
use backstop_runtime::service::backfill::{Backfill, NewBackfill, Wish};
use backstop_runtime::service::{Service, Standing};
use backstop_store::{InstanceFilter, MemoryStore, RunFilter, RunRow, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Runs that are read at once.
const RUNS_MAX: u32 = 100_000;

/// How long the runtime waits for attempts of a run whose log cannot be written (`ABANDONED_END_IN`).
const ABANDONED_MS: u64 = 30_000;

/// A run that somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) dag: String,
    /// The service said that it is there.
    pub(crate) is_answered: bool,
}

/// A backfill that somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Filled {
    pub(crate) wanted: NewBackfill,
    /// The service said that it is there.
    pub(crate) is_answered: bool,
}

/// It outlives the processes.
#[derive(Default)]
pub(crate) struct Book(Mutex<Kept>, Mutex<Weak<Service>>);

#[derive(Default)]
struct Kept {
    asked: BTreeMap<RunId, Asked>,
    /// Backfills that somebody asked for.
    filled: BTreeMap<String, Filled>,
    /// Runs that people steered: the limits on runs do not hold for them.
    steered: BTreeSet<RunId>,
    /// What was answered of each DAG; absent while somebody asks for a change, and where nobody knows what became of it.
    paused: BTreeMap<DagId, bool>,
    /// Of DAGs that are paused: the runs that were going on at that moment.
    went_on: BTreeMap<DagId, BTreeSet<RunId>>,
    /// Attempts that went on or were in doubt by the log, when this process began.
    unsettled: BTreeSet<(RunId, InstanceId)>,
}

impl Book {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process begins: it knows what was answered before.
    pub(crate) fn begin_process(&self, service: &Arc<Service>) -> Result<(), String> {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(service);
        let mut kept = self.kept();
        let paused = service.paused();
        for (dag, expected) in &kept.paused {
            if paused.contains(dag) != *expected {
                return Err(format!("DAG `{dag}` was answered to be paused: {expected}; the next process says otherwise"));
            }
        }
        // Nothing goes on when a process begins.
        kept.went_on = paused.into_iter().map(|dag| (dag, BTreeSet::new())).collect();
        Ok(())
    }

    /// Nobody drives runs any more.
    pub(crate) fn end_process(&self) {
        *self.1.lock().unwrap_or_else(PoisonError::into_inner) = Weak::new();
    }

    pub(crate) fn asks_to_fill(&self, id: &str, wanted: &NewBackfill) {
        let filled = || Filled { wanted: wanted.clone(), is_answered: false };
        self.kept().filled.entry(id.to_owned()).or_insert_with(filled);
    }

    pub(crate) fn answered_fill(&self, id: &str, is_new: bool) -> Result<(), String> {
        let mut kept = self.kept();
        let Some(filled) = kept.filled.get_mut(id) else { return Err(format!("nobody asked for backfill {id}")) };
        if filled.is_answered && is_new {
            return Err(format!("backfill {id} was made twice"));
        }
        filled.is_answered = true;
        Ok(())
    }

    pub(crate) fn all_filled(&self) -> Vec<(String, Filled)> {
        self.kept().filled.iter().map(|(id, filled)| (id.clone(), filled.clone())).collect()
    }

    pub(crate) fn asks(&self, run: &RunId, dag: &str) {
        self.kept().asked.entry(run.clone()).or_insert_with(|| Asked { dag: dag.to_owned(), is_answered: false });
    }

    /// The service says that the run is there, and whether it had been before.
    pub(crate) fn answered(&self, run: &RunId, is_new: bool) -> Result<(), String> {
        let mut kept = self.kept();
        let Some(asked) = kept.asked.get_mut(run) else { return Err(format!("nobody asked for run {run}")) };
        if asked.is_answered && is_new {
            return Err(format!("run {run} was made twice"));
        }
        asked.is_answered = true;
        Ok(())
    }

    pub(crate) fn all_asked(&self) -> Vec<(RunId, Asked)> {
        self.kept().asked.iter().map(|(run, asked)| (run.clone(), asked.clone())).collect()
    }

    pub(crate) fn steers(&self, run: &RunId) {
        self.kept().steered.insert(run.clone());
    }

    pub(crate) fn asks_to_pause(&self, dag: &DagId) {
        let mut kept = self.kept();
        kept.paused.remove(dag);
        kept.went_on.remove(dag);
    }

    pub(crate) fn answered_pause(&self, dag: &DagId, pause: bool, going_on: BTreeSet<RunId>) {
        let mut kept = self.kept();
        kept.paused.insert(dag.clone(), pause);
        if pause {
            kept.went_on.insert(dag.clone(), going_on);
        }
    }

    /// An event of the live stream: of a paused DAG nothing is begun.
    pub(crate) fn saw(&self, dag: &DagId, run: &RunId, event: &Event) -> Result<(), String> {
        if !matches!(event, Event::RunStarted { .. } | Event::RunResumed { .. }) {
            return Ok(());
        }
        let kept = self.kept();
        match kept.went_on.get(dag) {
            Some(went_on) if !went_on.contains(run) && !kept.steered.contains(run) => {
                Err(format!("run {run} of DAG `{dag}` was begun while it is paused"))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What the log says of attempts before a process begins: which of them may have left something on the servers.
    pub(crate) async fn reads_log(&self, store: &dyn Store) -> Result<(), String> {
        let mut unsettled = BTreeSet::new();
        for state in [InstancePhase::Running, InstancePhase::InDoubt] {
            let state = Some(state.as_str().to_owned());
            let filter = InstanceFilter { state, limit: RUNS_MAX, ..InstanceFilter::default() };
            let page = store.list_instances(&filter).await.map_err(|error| error.to_string())?;
            unsettled.extend(page.rows.into_iter().map(|(run, _, row)| (run, row.instance)));
        }
        self.kept().unsettled = unsettled;
        Ok(())
    }

    /// What the databases see at one moment is within the limits: what this process has them work on, and what is left there of attempts that
    /// nobody has settled, also of those of dead processes.
    pub(crate) fn check_units(
        &self,
        house: &House,
        servers: &[Arc<Server>],
        units: &BTreeMap<u64, UnderWay>,
    ) -> Result<(), String> {
        let kept = self.kept();
        // What a run that cannot write its log cannot stop in time is left behind.
        let service = self.1.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let is_driven =
            |run: &RunId| service.as_ref().is_some_and(|service| matches!(service.standing(run), Standing::Active { .. }));
        let mut seen = BTreeSet::new();
        let mut tasks = 0;
        let mut runs: BTreeMap<&str, BTreeSet<RunId>> = BTreeMap::new();
        for unit in units.values() {
            let Some(at_work) = AtWork::of(house, &unit.effect) else { continue };
            if unit.age_ms >= ABANDONED_MS && !is_driven(&at_work.run) {
                continue;
            }
            tasks += 1;
            if !kept.steered.contains(&at_work.run) {
                runs.entry(at_work.dag()).or_default().insert(at_work.run.clone());
            }
            seen.insert(at_work);
        }
        if tasks > house.parallelism {
            return Err(format!("{tasks} tasks go on at once, of {}", house.parallelism));
        }
        for left in servers.iter().flat_map(|server| server.left()) {
            let Some(at_work) = AtWork::of(house, &left.effect) else { continue };
            let is_of_this_process = servers.iter().any(|server| server.world.process() == left.process);
            if is_of_this_process || kept.unsettled.contains(&(at_work.run.clone(), at_work.instance.clone())) {
                seen.insert(at_work);
            }
        }
        check_shared(house, &seen)?;
        for (dag, runs) in runs {
            let of_dag = house.scenario(dag).map_or(0, |scenario| scenario.definition.max_active_runs as usize);
            // Runs of backfills have places of their own.
            let of_fills = kept.filled.values().filter(|filled| filled.wanted.dag == dag);
            let most = match of_fills.map(|filled| filled.wanted.runs_at_once as usize).sum::<usize>() {
                0 => of_dag,
                of_fills => of_dag + of_fills.max(of_dag),
            };
            if runs.len() > most {
                return Err(format!("{} runs of DAG `{dag}` go on at once, of {most}: {runs:?}", runs.len()));
            }
        }
        Ok(())
    }

    /// The end: nothing is left, and the store, the databases and the answers tell one story. Gives how many runs there are, how many deadlines
    /// were told of while a run waited, and the log.
    pub(crate) async fn judge(
        &self,
        house: &House,
        servers: &[Arc<Server>],
        store: &MemoryStore,
    ) -> Result<(usize, usize, Vec<String>), String> {
        let rows = rows(store).await?;
        let mut allowed = Allowed::new();
        let (mut log, mut told) = (Vec::new(), 0);
        for row in &rows {
            let run = &row.header.run_id;
            let scenario = house.scenario(row.header.dag_id.as_str());
            let scenario = scenario.ok_or_else(|| format!("run {run} is of DAG `{}`, which is not there", row.header.dag_id))?;
            let expected = judge_run(scenario, row, store, &mut log).await.map_err(|what| format!("run {run}: {what}"))?;
            told += deadlines::judge(scenario, row, store).await.map_err(|what| format!("run {run}: {what}"))?;
            let named = |name: String| format!("{}/{run}{RUN_END}{name}", row.header.dag_id);
            allowed.extend(expected.into_iter().map(|((server, name), times)| ((server, named(name)), times)));
        }
        verdict::compare(servers, &allowed)?;
        for (run, asked) in self.all_asked() {
            let found = rows.iter().filter(|row| row.header.run_id == run).map(|row| row.header.dag_id.as_str());
            let found: Vec<&str> = found.collect();
            if found != [asked.dag.as_str()] && (asked.is_answered || !found.is_empty()) {
                return Err(format!("run {run} of DAG `{}` was answered for, and the store has runs of {found:?}", asked.dag));
            }
        }
        house.dags.iter().try_for_each(|scenario| judge_ticks(scenario, &rows))?;
        let updates = assets::updates(store).await?;
        assets::judge_told(store, &rows, &updates).await?;
        house.dags.iter().try_for_each(|scenario| assets::judge(scenario, &rows, &updates))?;
        self.judge_fills(&rows, store).await?;
        Ok((rows.len(), told, log))
    }
}

/// A task of which a server works on something.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct AtWork<'h> {
    run: RunId,
    instance: InstanceId,
    place: (&'h str, usize),
}

impl<'h> AtWork<'h> {
    /// `None` of callbacks: they have no task's name, and need no slot.
    fn of(house: &'h House, effect: &str) -> Option<Self> {
        let (run, effect) = effect.split_once(RUN_END)?;
        let (dag, run) = run.split_once('/')?;
        let scenario = house.scenario(dag)?;
        let mut parts = effect.split(',');
        let task = scenario.definition.dag.index(parts.next()?)?;
        let map_index = u32::try_from(parts.next()?.parse::<i64>().ok()?).ok();
        let instance = InstanceId { task: scenario.definition.dag.task(task).id.clone(), map_index };
        Some(Self { run: RunId::new(run), instance, place: (scenario.definition.dag.id().as_str(), task.get()) })
    }

    fn dag(&self) -> &'h str {
        self.place.0
    }
}

/// What runs share: pools, and the sessions of each connection.
fn check_shared(house: &House, seen: &BTreeSet<AtWork<'_>>) -> Result<(), String> {
    let mut pools = vec![0; house.pools.len()];
    let mut sessions: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for at_work in seen {
        let Some(scenario) = house.scenario(at_work.dag()) else { continue };
        let Some(place) = scenario.definition.dag.index(at_work.instance.task.as_str()) else { continue };
        let settings = &scenario.definition.dag.task(place).settings;
        pools[settings.pool as usize] += settings.pool_slots;
        if let Some(shape) = scenario.shape(at_work.instance.task.as_str()) {
            sessions.entry(shape.server).or_default().push(format!("{} of {}", at_work.instance, at_work.run));
        }
    }
    for (pool, used) in house.pools.iter().zip(pools) {
        if pool.slots.is_some_and(|slots| used > slots) {
            let who: Vec<String> = seen.iter().map(|at_work| format!("{} of {}", at_work.instance, at_work.run)).collect();
            return Err(format!("{used} slots of pool `{}` are in use, of {:?}: {}", pool.name, pool.slots, who.join(", ")));
        }
    }
    match sessions.into_iter().find(|(_, used)| used.len() > house.sessions_max as usize) {
        Some((server, used)) => {
            Err(format!("server {server} works in {} sessions of {}: {}", used.len(), house.sessions_max, used.join(", ")))
        }
        None => Ok(()),
    }
}

impl Book {
    /// Every backfill that was answered for has come to its end, and every date of it to a run or to none, once.
    async fn judge_fills(&self, rows: &[RunRow], store: &MemoryStore) -> Result<(), String> {
        let found: BTreeMap<String, String> =
            store.entries("backfill").await.map_err(|error| error.to_string())?.into_iter().collect();
        for (id, filled) in self.all_filled() {
            if filled.is_answered && !found.contains_key(&id) {
                return Err(format!("backfill {id} was answered for, and the store does not have it"));
            }
        }
        let mut runs = 0;
        for (id, body) in found {
            let kept: Backfill = serde_json::from_str(&body).map_err(|error| format!("backfill {id}: {error}"))?;
            let decided = kept.left + kept.succeeded + kept.failed;
            let is_whole = kept.wish == Wish::Cancel && decided <= kept.total || decided == kept.total;
            if kept.ended_at.is_none() || kept.active().len() > 0 || !is_whole {
                return Err(format!("backfill {id} has not come to its end: {kept:?}"));
            }
            runs += kept.succeeded + kept.failed;
        }
        let made = rows.iter().filter(|row| row.header.run_type == RunType::Backfill).count();
        if made == runs {
            return Ok(());
        }
        Err(format!("there are {made} runs of backfills, which count {runs}"))
    }
}

/// All runs.
pub(crate) async fn rows(store: &dyn Store) -> Result<Vec<RunRow>, String> {
    let filter = RunFilter { limit: RUNS_MAX, ..RunFilter::default() };
    store.runs(&filter).await.map_err(|error| error.to_string())
}

/// The events of a run.
pub(crate) async fn events(store: &dyn Store, run: &RunId) -> Result<Vec<Event>, String> {
    let recorded = store.events(run, 0, usize::MAX).await.map_err(|error| error.to_string())?;
    Ok(recorded.into_iter().map(|recorded| recorded.event).collect())
}

/// One run is over, and its rows are what its events say. Gives what it must have done.
async fn judge_run(scenario: &Scenario, row: &RunRow, store: &MemoryStore, log: &mut Vec<String>) -> Result<Allowed, String> {
    let events = events(store, &row.header.run_id).await?;
    let state = RunState::replay(scenario.definition.dag.clone(), &events);
    if row.state != state.phase().as_str() || row.version != state.version() {
        return Err(format!("its row says {} after {} events, its events {}", row.state, row.version, state.phase().as_str()));
    }
    if state.header().is_none_or(|header| header.version != row.header.version) {
        return Err(format!("its row says version {}, its events {:?}", row.header.version, state.header()));
    }
    if !state.is_finished() || !row.is_finished() {
        return Err(format!("it is not over but {} at the end", row.state));
    }
    for shown in store.instances(&row.header.run_id).await.map_err(|error| error.to_string())? {
        let view = state.instance(&shown.instance);
        let told = view.as_ref().map(|view| (view.phase.as_str(), view.try_number));
        let is_as_told = told == Some((shown.state.as_str(), shown.try_number));
        let is_new = shown.try_number == 0 && !was_tried(&events, &shown.instance);
        if !(is_as_told || is_new && told.is_some_and(|(phase, _)| phase == shown.state)) {
            return Err(format!(
                "the row of `{}` says {} in try {}, its events {told:?}",
                shown.instance, shown.state, shown.try_number
            ));
        }
    }
    log.extend(events.iter().map(|event| format!("{} {event:?}", row.header.run_id)));
    verdict::expected(scenario, &events, &state)
}

/// True when an instance was tried since it took the place of others, or others gave it back. Its tries are counted on from theirs; its row
/// has none before the next.
fn was_tried(events: &[Event], instance: &InstanceId) -> bool {
    let has_its_place = |event: &Event| match event {
        Event::TaskExpanded { task, .. } | Event::TaskUnexpanded { task, .. } => *task == instance.task,
        _ => false,
    };
    let since = events.iter().rposition(has_its_place).map_or(0, |place| place + 1);
    events[since..].iter().any(|event| matches!(event, Event::AttemptStarted { instance: tried, .. } if tried == instance))
}

/// Each tick made at most one run by the timetable. With catchup it has one, by the timetable or by a backfill that came to it before.
fn judge_ticks(scenario: &Scenario, rows: &[RunRow]) -> Result<(), String> {
    let dag = scenario.definition.dag.id();
    let (mut made, mut filled) = (BTreeSet::new(), BTreeSet::new());
    for row in rows.iter().filter(|row| row.header.dag_id == *dag) {
        let date = row.header.logical_date;
        match row.header.run_type {
            RunType::Scheduled if !made.insert(date) => {
                return Err(format!("DAG `{dag}` has two scheduled runs about {date:?}"));
            }
            RunType::Backfill => drop(filled.insert(date)),
            RunType::Scheduled | RunType::Manual | RunType::AssetTriggered => {}
        }
    }
    let ticks: BTreeSet<_> = House::ticks(scenario).into_iter().map(|tick| Some(tick.logical_date)).collect();
    if let Some(strange) = made.union(&filled).find(|date| !ticks.contains(*date)) {
        return Err(format!("DAG `{dag}` has a run by its timetable about {strange:?}, which is no tick of it"));
    }
    match ticks.iter().find(|date| !made.contains(*date) && !filled.contains(*date)) {
        Some(missed) if scenario.definition.catchup => Err(format!("DAG `{dag}` catches up and has no run about {missed:?}")),
        Some(_) | None => Ok(()),
    }
}
