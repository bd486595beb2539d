//! Which runs are driven (`driving`), and which wait; `standing` says why.
//!
//! A run is in the store before it is here, and stays there when it leaves: losing the desk loses nothing. Runs wait by DAG, oldest first;
//! a free place goes to the DAG that has the fewest, so that one with a thousand runs does not keep the others waiting. Runs of backfills
//! wait in a lane of their own, so that a year of them does not keep tonight's run of the same DAG waiting.

mod driving;
mod finding;
mod left;
mod standing;
mod telling;
mod waiting;

pub(super) use driving::explain;
pub(super) use standing::named;
pub use standing::{Counts, Standing, Waiting};
pub(super) use telling::{Moved, Place};
#[cfg(test)]
pub(super) use waiting::WAITING_BYTES_MAX;

use super::scheduler::Replan;
use super::steer::Kept;
use super::{Error, Service, ServiceLimits};
use crate::control::Ask;
use crate::run::{Control, Created};
use backstop_core::event::{RunHeader, RunType};
use backstop_core::{DagId, InstanceId, RunId};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::Notify;
use waiting::WaitingRuns;

/// For each run that may do something at once, so many may be driven: those that only wait take memory, and no place.
const DRIVEN_FOR_EACH: usize = 16;

/// Where a run waits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    dag: DagId,
    is_backfill: bool,
}

impl Lane {
    fn of(header: &RunHeader) -> Self {
        Self { dag: header.dag_id.clone(), is_backfill: header.run_type == RunType::Backfill }
    }
}

/// A run that waits.
struct Queued {
    header: Arc<RunHeader>,
    /// What this process knows because it made the run: nobody has begun it. `None`: somebody may have run ahead of its log.
    created: Option<Created>,
    /// Times in a row that it could not be driven.
    failures: u32,
}

/// A run that is driven.
struct Active {
    lane: Lane,
    control: Control,
    since: Timestamp,
}

/// A run that cannot be driven for now.
struct Hindered {
    queued: Queued,
    why: String,
    again_at: tokio::time::Instant,
    /// The same, for people.
    again: Timestamp,
}

/// A run that waits for a person.
struct Stuck {
    header: Arc<RunHeader>,
    /// What is in doubt, and why it could not be found out.
    undecided: BTreeMap<InstanceId, String>,
    /// The events it had by then: with more of them, somebody else has gone on with it.
    version: u64,
}

/// The runs of a service.
pub(super) struct Desk {
    pub(super) paused: BTreeSet<DagId>,
    /// How far each DAG is planned: the time of its last tick.
    pub(super) cursors: BTreeMap<DagId, Timestamp>,
    /// When each DAG that has no start was seen first, as it is kept: where it was never planned, nothing is missed before.
    pub(super) since: BTreeMap<DagId, Timestamp>,
    /// Of each DAG whose last tick left out others, because a later one was due: the cursor before, and that tick.
    pub(super) left_out: BTreeMap<DagId, (Option<Timestamp>, Timestamp)>,
    /// Of each DAG that waits for assets: up to which update its runs stand for.
    pub(super) asset_cursors: BTreeMap<DagId, u64>,
    /// The assets that must still be updated before a DAG runs by them.
    pub(super) missing_assets: BTreeMap<DagId, Vec<String>>,
    /// Why the ticks of a DAG cannot be planned.
    pub(super) unplanned: BTreeMap<DagId, String>,
    pub(super) replan: Replan,
    /// Runs that are being made, and by how many at once.
    making: HashMap<RunId, usize>,
    /// Those that wait for a place, in their order.
    queued: BTreeMap<Lane, VecDeque<RunId>>,
    /// What is known of the runs that are in `queued`: to find one must not cost a walk through all of them.
    queued_runs: WaitingRuns,
    active: BTreeMap<RunId, Active>,
    active_of: BTreeMap<Lane, usize>,
    hindered: BTreeMap<RunId, Hindered>,
    stuck: BTreeMap<RunId, Stuck>,
    /// Runs that wait, and that an earlier process left in the middle of something.
    left: BTreeMap<RunId, Lane>,
    /// Runs that wait, and whose deadlines are being told of: none of them is begun meanwhile.
    telling: BTreeMap<RunId, Control>,
    /// Runs that began to wait, wait elsewhere or with other files, or wait no more, since the watch over deadlines asked (`telling`).
    moved: BTreeSet<RunId>,
    /// How many runs each DAG may have whose file is gone, as it said last: its runs still go on.
    pub(super) limits_of_gone: BTreeMap<DagId, usize>,
    /// Runs that somebody steers: they are begun whatever the limits say, and whether their DAG is paused or not.
    urgent: Vec<(Queued, Control)>,
}

impl Desk {
    pub(super) fn new(kept: BTreeMap<DagId, Kept>) -> Self {
        Self {
            paused: kept.iter().filter(|(_, kept)| kept.paused).map(|(dag, _)| dag.clone()).collect(),
            asset_cursors: kept.iter().filter_map(|(dag, kept)| Some((dag.clone(), kept.assets?))).collect(),
            since: kept.iter().filter_map(|(dag, kept)| Some((dag.clone(), kept.since?))).collect(),
            left_out: BTreeMap::new(),
            missing_assets: BTreeMap::new(),
            cursors: kept.into_iter().filter_map(|(dag, kept)| Some((dag, kept.cursor?))).collect(),
            unplanned: BTreeMap::new(),
            replan: Replan::default(),
            making: HashMap::new(),
            queued: BTreeMap::new(),
            queued_runs: WaitingRuns::default(),
            active: BTreeMap::new(),
            active_of: BTreeMap::new(),
            hindered: BTreeMap::new(),
            stuck: BTreeMap::new(),
            left: BTreeMap::new(),
            telling: BTreeMap::new(),
            moved: BTreeSet::new(),
            limits_of_gone: BTreeMap::new(),
            urgent: Vec::new(),
        }
    }

    /// What is kept of a DAG beside its file.
    pub(super) fn kept(&self, dag: &DagId) -> Kept {
        Kept {
            paused: self.paused.contains(dag),
            cursor: self.cursors.get(dag).copied(),
            since: self.since.get(dag).copied(),
            assets: self.asset_cursors.get(dag).copied(),
        }
    }

    /// Runs of a DAG that wait, are driven, or are to be tried again. Those that wait for a person do not keep others from being made, nor do
    /// those of backfills.
    pub(super) fn runs_of(&self, dag: &DagId) -> usize {
        let lane = Lane { dag: dag.clone(), is_backfill: false };
        let queued = self.queued.get(&lane).map_or(0, VecDeque::len);
        let hindered = self.hindered.values().filter(|hindered| Lane::of(&hindered.queued.header) == lane).count();
        queued + hindered + self.active_of.get(&lane).copied().unwrap_or(0)
    }

    /// Whether any run of a DAG waits, goes on, or is stuck.
    pub(super) fn has_runs_of(&self, dag: &DagId) -> bool {
        self.queued.keys().any(|lane| lane.dag == *dag)
            || self.active_of.keys().any(|lane| lane.dag == *dag)
            || self.hindered.values().any(|hindered| hindered.queued.header.dag_id == *dag)
            || self.stuck.values().any(|stuck| stuck.header.dag_id == *dag)
    }

    fn knows(&self, run: &RunId) -> bool {
        self.active.contains_key(run)
            || self.hindered.contains_key(run)
            || self.stuck.contains_key(run)
            || self.queued_runs.contains(run)
            || self.making.contains_key(run)
    }

    /// Takes a run that waits, for whatever reason, away.
    fn take_off(&mut self, run: &RunId) -> Option<Queued> {
        self.moved.insert(run.clone());
        self.stuck.remove(run);
        self.left.remove(run);
        let hindered = self.hindered.remove(run).map(|hindered| hindered.queued);
        let Some(queued) = self.queued_runs.remove(run) else { return hindered };
        let lane = Lane::of(&queued.header);
        if let Some(queue) = self.queued.get_mut(&lane) {
            queue.retain(|other| other != run);
            if queue.is_empty() {
                self.queued.remove(&lane);
            }
        }
        Some(queued)
    }

    /// A run waits for a place, behind the others of its lane.
    fn push(&mut self, queued: Queued) {
        let run = queued.header.run_id.clone();
        self.moved.insert(run.clone());
        self.queued.entry(Lane::of(&queued.header)).or_default().push_back(run);
        self.queued_runs.insert(queued);
    }

    /// A run waits until it is tried again.
    fn hinder(&mut self, hindered: Hindered) {
        let run = hindered.queued.header.run_id.clone();
        self.moved.insert(run.clone());
        self.hindered.insert(run, hindered);
    }

    /// A run waits for a person.
    fn stick(&mut self, stuck: Stuck) {
        let run = stuck.header.run_id.clone();
        self.moved.insert(run.clone());
        self.stuck.insert(run, stuck);
    }

    /// A run does not wait for a person any more.
    fn unstick(&mut self, run: &RunId) {
        if self.stuck.remove(run).is_some() {
            self.moved.insert(run.clone());
        }
    }

    fn enter(&mut self, header: &RunHeader, control: &Control, since: Timestamp) {
        let lane = Lane::of(header);
        *self.active_of.entry(lane.clone()).or_default() += 1;
        self.active.insert(header.run_id.clone(), Active { lane, control: control.clone(), since });
    }

    /// Takes the run that goes next, if one may.
    fn next(
        &mut self,
        limits: &ServiceLimits,
        of_lane: impl Fn(&Lane) -> usize,
        now: Timestamp,
        pump: &Arc<Notify>,
    ) -> Option<(Queued, Control)> {
        let telling = &self.telling;
        let is_free = |run: &RunId| !telling.contains_key(run);
        if let Some(place) = self.urgent.iter().rposition(|(queued, _)| is_free(&queued.header.run_id)) {
            return Some(self.urgent.remove(place));
        }
        let active = |lane: &Lane| self.active_of.get(lane).copied().unwrap_or(0);
        let may_go = |lane: &Lane| !self.paused.contains(&lane.dag) && active(lane) < of_lane(lane);
        // Whether there is a place for it or not: those who have the places may wait for what it keeps.
        let left = self.left.iter().filter(|(_, lane)| may_go(lane)).find_map(|(run, lane)| {
            let place = self.queued.get(lane)?.iter().position(|queued| queued == run)?;
            is_free(run).then(|| (lane.clone(), place))
        });
        if let Some((lane, place)) = left {
            return self.take_next(&lane, place, now, pump);
        }
        if self.is_full(limits) {
            return None;
        }
        // Of those with as few, whose next run waits longest: by their names alone the last would never go.
        let lanes = self.queued.iter().filter(|(lane, _)| may_go(lane));
        let first = lanes.filter_map(|(lane, queue)| {
            let place = queue.iter().position(is_free)?;
            let first = self.queued_runs.get(queue.get(place)?)?;
            Some((active(lane), lane.is_backfill, first.header.queued_at, lane, place))
        });
        let (.., lane, place) = first.min()?;
        let lane = lane.clone();
        self.take_next(&lane, place, now, pump)
    }

    /// Takes a run out of its queue, to be driven.
    fn take_next(&mut self, lane: &Lane, place: usize, now: Timestamp, pump: &Arc<Notify>) -> Option<(Queued, Control)> {
        let queue = self.queued.get_mut(lane)?;
        let run = queue.remove(place)?;
        if queue.is_empty() {
            self.queued.remove(lane);
        }
        let queued = self.queued_runs.remove(&run)?;
        self.left.remove(&run);
        self.moved.insert(run);
        let control = Control::telling(pump.clone());
        self.enter(&queued.header, &control, now);
        Some((queued, control))
    }

    /// A run that only waits takes no place: what it waits for may be a run that needs one.
    fn is_full(&self, limits: &ServiceLimits) -> bool {
        self.fullness(limits).is_some()
    }

    /// The runs that keep others from being driven, and how many there may be of them. Where all that are driven only wait, one more is driven
    /// however many they are: it may be what they wait for.
    fn fullness(&self, limits: &ServiceLimits) -> Option<(usize, usize)> {
        let (busy, most) = (self.busy(), limits.runs.saturating_mul(DRIVEN_FOR_EACH));
        if busy >= limits.runs {
            return Some((busy, limits.runs));
        }
        (busy > 0 && self.active.len() >= most).then_some((self.active.len(), most))
    }

    fn busy(&self) -> usize {
        self.active.values().filter(|active| !active.control.is_idle()).count()
    }

    fn let_go(&mut self, run: &RunId) {
        let Some(active) = self.active.remove(run) else { return };
        if let Some(count) = self.active_of.get_mut(&active.lane) {
            *count -= 1;
            if *count == 0 {
                self.active_of.remove(&active.lane);
            }
        }
    }
}

/// A run that is being made. Dropped with the request when who asked for it goes away: then the run is found like any other.
pub(super) struct Making<'s> {
    service: &'s Service,
    run: RunId,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        let mut desk = self.service.desk();
        if let Some(count) = desk.making.get_mut(&self.run) {
            *count -= 1;
            if *count == 0 {
                desk.making.remove(&self.run);
            }
        }
    }
}

impl Service {
    /// How many runs a lane may have going on. Runs of a backfill that is over, which somebody opened again, have what the DAG allows.
    fn limits_of_lanes(&self) -> impl Fn(&Lane) -> usize + use<> {
        let catalog = self.catalog();
        let default = self.limits.runs_of_a_dag;
        let backfills = self.backfill_runs_of();
        let gone = self.desk().limits_of_gone.clone();
        move |lane| {
            let of_dag = || match catalog.dag(lane.dag.as_str()) {
                Some(entry) => entry.definition.max_active_runs.max(1) as usize,
                None => gone.get(&lane.dag).copied().unwrap_or(default),
            };
            let of_backfills = backfills.get(&lane.dag).filter(|_| lane.is_backfill).copied();
            of_backfills.unwrap_or_else(of_dag)
        }
    }

    /// How to steer a run that is driven.
    pub(super) fn control(&self, run: &RunId) -> Option<Control> {
        self.desk().active.get(run).map(|active| active.control.clone())
    }

    /// Announces a run that this process is about to make. As long as the answer is held, the run is not taken for one that was left behind:
    /// it is in the store before it is here.
    pub(super) fn announce(&self, run: &RunId) -> Making<'_> {
        *self.desk().making.entry(run.clone()).or_default() += 1;
        Making { service: self, run: run.clone() }
    }

    /// Takes in a run that this process made, and had announced.
    pub(super) fn take_in(&self, created: Created) {
        let mut desk = self.desk();
        // Else somebody was quicker who steers it: it is driven, or over already.
        if desk.making.contains_key(&created.header.run_id) {
            desk.push(Queued { header: created.header.clone(), created: Some(created), failures: 0 });
        }
        drop(desk);
        self.pump.notify_one();
    }

    /// # Errors
    /// So many runs wait that no more are taken on request.
    pub(super) fn has_room_for_more(&self) -> Result<(), Error> {
        match self.desk().queued_runs.crowd() {
            None => Ok(()),
            Some((runs, bytes)) => Err(Error::Crowded { runs, bytes }),
        }
    }

    /// Begins a run that waits, with something asked of it before anything else. The ask comes back when the run is driven already.
    pub(super) fn begin_with(&self, header: Arc<RunHeader>, ask: Ask) -> Result<(), Ask> {
        let mut desk = self.desk();
        if desk.active.contains_key(&header.run_id) {
            return Err(ask);
        }
        let control = Control::begun_for(ask, self.pump.clone());
        desk.making.remove(&header.run_id);
        let queued = desk.take_off(&header.run_id).unwrap_or(Queued { header: header.clone(), created: None, failures: 0 });
        desk.enter(&header, &control, self.clock.now());
        desk.urgent.push((queued, control));
        drop(desk);
        self.pump.notify_one();
        Ok(())
    }

    /// Takes in a run from the store, to be driven again.
    pub(super) fn take_in_again(&self, header: Arc<RunHeader>) {
        let mut desk = self.desk();
        desk.unstick(&header.run_id);
        if !desk.knows(&header.run_id) {
            desk.push(Queued { header, created: None, failures: 0 });
        } else if let Some(waiting) = desk.find_waiting(&header.run_id) {
            // It may have been given other files, and has events that are not known here.
            let run = header.run_id.clone();
            (waiting.header, waiting.created) = (header, None);
            desk.moved.insert(run);
        }
        drop(desk);
        self.pump.notify_one();
    }
}

#[cfg(test)]
pub(super) mod tests;
