//! The fold of a run: [`RunState`] and [`apply`].
//!
//! Everything here follows from the events alone, the queue of ready instances, the timers and the work-list of
//! [`Command::Advance`](crate::Command::Advance) included: folding the log again gives an equal value. Nothing is scanned: each
//! event costs its own change plus, for an instance that is done, the number of tasks that wait for it.

mod fold;
mod phase;
mod queue;
mod reset;
mod unit;

pub use fold::apply;
pub use phase::{InstancePhase, PhaseCounts, RunPhase};

use crate::dag::{Dag, Role};
use crate::event::{
    Afterwards, Anomaly, CallbackId, CancelCause, Event, Failure, FailureClass, RunHeader, SegmentCommit, Unusual,
};
use crate::id::{InstanceId, TaskIx};
use crate::rule::{UpstreamCounts, Verdict, setup_verdict};
use jiff::{SignedDuration, Timestamp};
use queue::Queue;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often in a row an instance may be tried again without counting a failure, when nothing new was committed in between.
/// After that an interruption counts as a failure, so that a task that kills its process does not run for ever.
pub const INTERRUPTIONS_MAX: u32 = 100;

/// Anomalies that are recorded of one attempt, at most.
pub const ANOMALIES_MAX: usize = 20;

/// The epoch of a run's first process.
pub const FIRST_EPOCH: u64 = 1;

/// That a deadline is missed, or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadlineTold {
    /// From 0, in the order of the DAG's deadlines.
    pub deadline: u32,
    /// By when the run was to be done.
    pub due_at: Timestamp,
    /// When it was expected to be, before that; `None` when the deadline had passed.
    pub done_at: Option<Timestamp>,
}

/// Everything known of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    dag: Arc<Dag>,
    /// With the version that the run goes on with.
    header: Option<Arc<RunHeader>>,
    /// The digest of the variables that it goes on with.
    variables: Option<Arc<str>>,
    phase: RunPhase,
    epoch: u64,
    version: u64,
    began_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    cancel: Option<CancelCause>,
    /// What ended the run before its time, before it was reopened.
    cancelled_before: Option<CancelCause>,
    /// How often the run was over and went on.
    reopened: u32,
    tasks: Vec<TaskState>,
    /// One a task, or empty when the DAG has no setups.
    scopes: Vec<ScopeState>,
    counts: PhaseCounts,
    /// Instances of effective leaves that failed or could not run.
    failed_leaves: usize,
    /// Instances that a cancel of the run left out.
    cut: usize,
    queue: Queue,
    running: BTreeSet<Key>,
    in_doubt: BTreeSet<Key>,
    /// Members of transactions that have done their work.
    held: BTreeSet<Key>,
    /// Units that are open while none of their tasks runs, with the task whose slots they keep: whoever holds locks must not wait for a slot.
    kept: BTreeMap<u32, TaskIx>,
    /// Attempts, going on or in doubt, that a person wants to end.
    stops: BTreeMap<Key, Stop>,
    /// What was unusual of the last attempt that something was noticed of.
    noticed: BTreeMap<Key, (u32, Vec<(u32, Unusual)>)>,
    timers: BTreeSet<(Timestamp, Key)>,
    callbacks: BTreeSet<CallbackId>,
    /// What was told of deadlines, in order.
    deadlines_told: Vec<DeadlineTold>,
    /// How long after the run's start each of these was due, where it had begun.
    due_after_start: Vec<Option<SignedDuration>>,
    /// So many of these were told when the run had other files: their numbers are not those of its deadlines now.
    told_with_other_files: usize,
    /// How often the run was stuck.
    times_stuck: u32,
    /// The attempts because of which it was, with their tries and the segments that were known of them.
    stuck_over: BTreeSet<(Key, u32, usize)>,
    /// Work-list: tasks whose rule says `Run`.
    to_schedule: BTreeSet<TaskIx>,
    /// Work-list: tasks whose rule says `Skip` or `UpstreamFailed`, by depth, so that marks above come first.
    to_mark: BTreeSet<(u32, TaskIx)>,
}

/// An instance, by place. `None` is the single instance of an unmapped task, or of a mapped one before its expansion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) task: TaskIx,
    pub(crate) map_index: Option<u32>,
}

/// An attempt that a person wants to end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stop {
    pub(crate) reason: Arc<str>,
    pub(crate) then: Afterwards,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct TaskState {
    upstream: UpstreamCounts,
    is_leaf: bool,
    /// Of a mapped task that was unexpanded: more tries than this none of its instances had. New ones go on from here, because the
    /// marker keys of earlier tries are taken.
    tries_before: u32,
    single: Instance,
    mapped: Option<Box<Mapped>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Mapped {
    items: Vec<Arc<str>>,
    /// One an item. Empty when there was nothing to map: then the single instance stands for the task.
    instances: Vec<Instance>,
    /// How many of them are in phase `None`.
    undecided: u32,
}

/// Counters of what a task waits for beyond its direct upstreams.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ScopeState {
    pub(crate) direct_setups: UpstreamCounts,
    pub(crate) indirect_setups: UpstreamCounts,
    enclosed: UpstreamCounts,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Instance {
    pub(crate) phase: InstancePhase,
    pub(crate) try_number: u32,
    pub(crate) failures: u32,
    /// Uncounted tries in a row since a segment was last committed.
    pub(crate) interruptions: u32,
    /// How many segments were committed when the current try began.
    pub(crate) segments_before: u32,
    /// True when the next attempt continues the current try, after a deferral.
    pub(crate) continues_try: bool,
    /// True when a person set its outcome.
    pub(crate) is_marked: bool,
    /// True when a person said that its last try took effect: it did all of its work, beyond the segments that are known.
    pub(crate) is_told_done: bool,
    /// Its try number when it was last cleared.
    pub(crate) tries_before: u32,
    /// Why it is skipped, if it is.
    pub(crate) skipped_by: Option<SkippedBy>,
    epoch: u64,
    waiting_since: Option<Timestamp>,
    pub(crate) segments: Vec<Arc<SegmentCommit>>,
    result: Option<Arc<str>>,
    pub(crate) failure: Option<Arc<Failure>>,
}

/// Who chose that an instance is skipped: a [`SkipCause`] without its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkippedBy {
    Rule,
    /// `None` is a branch that is not in the DAG any more.
    Branch(Option<TaskIx>),
    Itself,
    NothingToMap,
    Cancel,
}

impl Instance {
    /// True when an attempt of it began since it was last cleared.
    pub(crate) fn has_begun(&self) -> bool {
        self.try_number > self.tries_before
    }

    /// True when its phase follows from its upstreams alone, without a choice of its own or of a person.
    pub(crate) fn is_derived(&self) -> bool {
        !self.is_marked
            && (self.phase == InstancePhase::UpstreamFailed
                || (self.phase == InstancePhase::Skipped && self.skipped_by == Some(SkippedBy::Rule)))
    }

    /// The number its next attempt will have.
    pub(crate) fn next_try(&self) -> u32 {
        if self.continues_try { self.try_number } else { self.try_number.saturating_add(1) }
    }

    pub(crate) fn result(&self) -> Option<&Arc<str>> {
        self.result.as_ref()
    }

    /// True when a failure of this class does not use up a retry.
    pub(crate) fn is_free(&self, class: FailureClass) -> bool {
        class == FailureClass::Interrupted && self.interruptions < INTERRUPTIONS_MAX
    }
}

/// A look at one task instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InstanceView<'a> {
    /// Where it is.
    pub phase: InstancePhase,
    /// The last try, 0 before the first.
    pub try_number: u32,
    /// Tries that failed and count.
    pub failures: u32,
    /// The epoch of the process that began the last attempt; 0 before the first.
    pub epoch: u64,
    /// Its try number when it was last cleared.
    pub tries_before: u32,
    /// When its first look began, over deferrals and interruptions. A failure that counts begins a new wait.
    pub waiting_since: Option<Timestamp>,
    /// Every committed segment, over all tries, in order: the first is number 0.
    pub segments: &'a [Arc<SegmentCommit>],
    /// Its XCom `return_value`, JSON.
    pub result: Option<&'a Arc<str>>,
    /// Its last failure, also when a later try succeeded.
    pub failure: Option<&'a Arc<Failure>>,
    /// True when a person set its outcome: nothing is said of what took effect.
    pub is_marked: bool,
}

impl<'a> From<&'a Instance> for InstanceView<'a> {
    fn from(instance: &'a Instance) -> Self {
        Self {
            phase: instance.phase,
            try_number: instance.try_number,
            failures: instance.failures,
            epoch: instance.epoch,
            tries_before: instance.tries_before,
            waiting_since: instance.waiting_since,
            segments: &instance.segments,
            result: instance.result.as_ref(),
            failure: instance.failure.as_ref(),
            is_marked: instance.is_marked,
        }
    }
}

impl RunState {
    /// A run of which nothing is known. Its first event is [`Event::RunCreated`], made by the caller and applied with [`apply`].
    pub fn new(dag: Arc<Dag>) -> Self {
        let tasks: Vec<TaskState> = dag
            .tasks()
            .iter()
            .map(|task| TaskState {
                upstream: UpstreamCounts { total: task.upstream.len() as u32, ..UpstreamCounts::default() },
                ..TaskState::default()
            })
            .collect();
        let mut state = Self {
            header: None,
            variables: None,
            phase: RunPhase::Queued,
            epoch: FIRST_EPOCH,
            version: 0,
            began_at: None,
            started_at: None,
            cancel: None,
            cancelled_before: None,
            reopened: 0,
            scopes: scope_states(&dag),
            counts: PhaseCounts { none: tasks.len(), ..PhaseCounts::default() },
            tasks,
            failed_leaves: 0,
            cut: 0,
            queue: Queue::new(dag.pools().len()),
            running: BTreeSet::new(),
            in_doubt: BTreeSet::new(),
            held: BTreeSet::new(),
            kept: BTreeMap::new(),
            stops: BTreeMap::new(),
            noticed: BTreeMap::new(),
            timers: BTreeSet::new(),
            callbacks: BTreeSet::new(),
            deadlines_told: Vec::new(),
            due_after_start: Vec::new(),
            told_with_other_files: 0,
            times_stuck: 0,
            stuck_over: BTreeSet::new(),
            to_schedule: BTreeSet::new(),
            to_mark: BTreeSet::new(),
            dag,
        };
        state.mark_leaves();
        state
    }

    /// The fold of a log.
    pub fn replay<'a>(dag: Arc<Dag>, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut state = Self::new(dag);
        events.into_iter().for_each(|event| apply(&mut state, event));
        state
    }

    /// What runs.
    pub fn dag(&self) -> &Arc<Dag> {
        &self.dag
    }

    /// What the run is, with the version that it goes on with; `None` before `RunCreated`.
    pub fn header(&self) -> Option<&Arc<RunHeader>> {
        self.header.as_ref()
    }

    /// The digest of the variables that its templates see, where they are kept with the run.
    pub fn variables(&self) -> Option<&Arc<str>> {
        self.variables.as_ref()
    }

    /// Where the run is.
    pub fn phase(&self) -> RunPhase {
        self.phase
    }

    /// True when the run is over and no callback is pending.
    pub fn is_finished(&self) -> bool {
        self.phase.is_terminal() && self.callbacks.is_empty()
    }

    /// The epoch of the process that owns the run, [`FIRST_EPOCH`] before any `RunResumed`.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many events were applied.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the run left the queue first, whatever of it ran again later.
    pub fn began_at(&self) -> Option<Timestamp> {
        self.began_at
    }

    /// When the run left the queue last.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.started_at
    }

    /// Why the run is ending before its time, if it is.
    pub fn cancel_cause(&self) -> Option<CancelCause> {
        self.cancel
    }

    /// Whether an anomaly of an attempt is news, and there is room for it.
    pub(crate) fn may_notice(&self, key: Key, try_number: u32, anomaly: &Anomaly) -> bool {
        let known = self.noticed.get(&key).filter(|(of, _)| *of == try_number);
        known.is_none_or(|(_, known)| known.len() < ANOMALIES_MAX && !known.contains(&(anomaly.statement, anomaly.unusual)))
    }

    /// How often the run was over and was reopened by a person.
    pub fn reopened(&self) -> u32 {
        self.reopened
    }

    /// One instance; `None` when there is no such task or index, or when a mapped task stands there unexpanded (or the reverse).
    pub fn instance(&self, id: &InstanceId) -> Option<InstanceView<'_>> {
        self.find(self.key(id)?).map(InstanceView::from)
    }

    /// An instance's XCom `return_value`, JSON.
    pub fn result(&self, task: &str, map_index: Option<u32>) -> Option<&Arc<str>> {
        self.find(Key { task: self.dag.index(task)?, map_index })?.result.as_ref()
    }

    /// The items of a mapped task, once they are known; one JSON text an item.
    pub fn items(&self, task: &str) -> Option<&[Arc<str>]> {
        let place = self.dag.index(task)?;
        self.tasks[place.get()].mapped.as_ref().map(|mapped| mapped.items.as_slice())
    }

    /// The last failure of an instance.
    pub fn failure(&self, id: &InstanceId) -> Option<&Arc<Failure>> {
        self.find(self.key(id)?)?.failure.as_ref()
    }

    /// Every instance, in the order of the source and of the items. Costs the size of the DAG.
    pub fn instances(&self) -> impl Iterator<Item = (InstanceId, InstanceView<'_>)> {
        self.keys().filter_map(|key| Some((self.id(key), InstanceView::from(self.find(key)?))))
    }

    /// How many instances are in each phase.
    pub fn counts(&self) -> PhaseCounts {
        self.counts
    }

    /// Instances whose last attempt may or may not have committed, in the order of the source.
    pub fn instances_in_doubt(&self) -> impl Iterator<Item = InstanceId> {
        self.in_doubt.iter().map(|&key| self.id(key))
    }

    /// Instances with an attempt going on, in the order of the source.
    pub fn instances_running(&self) -> impl Iterator<Item = InstanceId> {
        self.running.iter().map(|&key| self.id(key))
    }

    /// Callbacks that have not been told to have run.
    pub fn pending_callbacks(&self) -> impl Iterator<Item = &CallbackId> {
        self.callbacks.iter()
    }

    /// Whether a deadline was told of: as missed, or as one that will be. What was told when the run had other files holds for a deadline of
    /// these where it is the same one: due at the same time, or as long after the run's start. Another one is told of anew.
    pub fn is_told(&self, deadline: u32, due_at: Timestamp, as_missed: bool) -> bool {
        let after_start = self.after_start(due_at);
        let told = self.deadlines_told.iter().zip(&self.due_after_start).enumerate();
        told.filter(|(_, (told, _))| told.done_at.is_none() == as_missed).any(|(place, (told, told_after_start))| {
            let has_same_files = place >= self.told_with_other_files;
            match has_same_files {
                true => told.deadline == deadline,
                false => told.due_at == due_at || (after_start.is_some() && *told_after_start == after_start),
            }
        })
    }

    /// How long after the run's start a deadline is; `None` of a run that has not begun.
    fn after_start(&self, due_at: Timestamp) -> Option<SignedDuration> {
        Some(due_at.duration_since(self.started_at?))
    }

    /// What was told of deadlines, in order. The callbacks of each have its place as their `try_number`.
    pub fn deadlines_told(&self) -> &[DeadlineTold] {
        &self.deadlines_told
    }

    /// How often the run was stuck.
    pub(crate) fn times_stuck(&self) -> u32 {
        self.times_stuck
    }

    /// Whether it would be stuck because of an attempt because of which it was not before.
    pub(crate) fn is_newly_stuck(&self) -> bool {
        self.doubts().any(|doubt| !self.stuck_over.contains(&doubt))
    }

    fn doubts(&self) -> impl Iterator<Item = (Key, u32, usize)> {
        let known = |key| self.find(key).map_or((0, 0), |instance| (instance.try_number, instance.segments.len()));
        self.in_doubt.iter().map(move |&key| {
            let (try_number, segments) = known(key);
            (key, try_number, segments)
        })
    }

    /// Slots of a pool that running attempts hold.
    pub fn pool_slots_used(&self, pool: u32) -> u64 {
        self.queue.used(pool)
    }
}

/// How the rooms of this crate look at the state.
impl RunState {
    /// Resolves names to places, in one look-up. Does not say whether the instance exists.
    pub(crate) fn key(&self, id: &InstanceId) -> Option<Key> {
        Some(Key { task: self.dag.index(id.task.as_str())?, map_index: id.map_index })
    }

    pub(crate) fn id(&self, key: Key) -> InstanceId {
        InstanceId { task: self.dag.task(key.task).id.clone(), map_index: key.map_index }
    }

    pub(crate) fn find(&self, key: Key) -> Option<&Instance> {
        let task = &self.tasks[key.task.get()];
        match (key.map_index, &task.mapped) {
            (None, None) => Some(&task.single),
            (None, Some(mapped)) => mapped.instances.is_empty().then_some(&task.single),
            (Some(_), None) => None,
            (Some(index), Some(mapped)) => mapped.instances.get(index as usize),
        }
    }

    fn find_mut(&mut self, key: Key) -> Option<&mut Instance> {
        let task = &mut self.tasks[key.task.get()];
        match (key.map_index, &mut task.mapped) {
            (None, None) => Some(&mut task.single),
            (None, Some(mapped)) => mapped.instances.is_empty().then_some(&mut task.single),
            (Some(_), None) => None,
            (Some(index), Some(mapped)) => mapped.instances.get_mut(index as usize),
        }
    }

    pub(crate) fn is_expanded(&self, task: TaskIx) -> bool {
        self.tasks[task.get()].mapped.is_some()
    }

    /// The instances of one task.
    pub(crate) fn keys_of(&self, task: TaskIx) -> impl Iterator<Item = Key> + use<> {
        let count = self.tasks[task.get()].mapped.as_ref().map_or(0, |mapped| mapped.instances.len() as u32);
        let single = (count == 0).then_some(Key { task, map_index: None });
        single.into_iter().chain((0..count).map(move |index| Key { task, map_index: Some(index) }))
    }

    /// Every instance. Costs the size of the DAG.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        (0..self.tasks.len() as u32).flat_map(|place| self.keys_of(TaskIx(place)))
    }

    /// Its instances whose rule is not decided yet: more than one only when instances of an expanded task were cleared.
    pub(crate) fn undecided_keys(&self, task: TaskIx) -> impl Iterator<Item = Key> {
        self.keys_of(task).filter(|&key| self.find(key).is_some_and(|instance| instance.phase == InstancePhase::None))
    }

    fn is_undecided(&self, task: TaskIx) -> bool {
        let task = &self.tasks[task.get()];
        match &task.mapped {
            Some(mapped) if !mapped.instances.is_empty() => mapped.undecided > 0,
            Some(_) | None => task.single.phase == InstancePhase::None,
        }
    }

    pub(crate) fn failed_leaves(&self) -> usize {
        self.failed_leaves
    }

    /// What ended the run before its time, before it was reopened, if instances are left that this left out.
    pub(crate) fn cut_by(&self) -> Option<CancelCause> {
        self.cancelled_before.filter(|_| self.cut > 0)
    }

    pub(crate) fn stops(&self) -> &BTreeMap<Key, Stop> {
        &self.stops
    }

    pub(crate) fn scope_counts(&self, task: TaskIx) -> ScopeState {
        self.scopes.get(task.get()).copied().unwrap_or_default()
    }

    pub(crate) fn upstream_counts(&self, task: TaskIx) -> &UpstreamCounts {
        &self.tasks[task.get()].upstream
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn running(&self) -> &BTreeSet<Key> {
        &self.running
    }

    pub(crate) fn in_doubt(&self) -> &BTreeSet<Key> {
        &self.in_doubt
    }

    pub(crate) fn timers(&self) -> &BTreeSet<(Timestamp, Key)> {
        &self.timers
    }

    pub(crate) fn callbacks(&self) -> &BTreeSet<CallbackId> {
        &self.callbacks
    }

    pub(crate) fn to_schedule(&self) -> &BTreeSet<TaskIx> {
        &self.to_schedule
    }

    pub(crate) fn to_mark(&self) -> &BTreeSet<(u32, TaskIx)> {
        &self.to_mark
    }

    /// When the run is over its `dagrun_timeout`, unless it is ending anyway. Of a run that was reopened it counts anew.
    pub fn timeout_at(&self) -> Option<Timestamp> {
        let may_end = match self.phase {
            RunPhase::Running | RunPhase::Stuck => self.cancel.is_none(),
            RunPhase::Queued | RunPhase::Cancelling | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => false,
        };
        let timeout = self.dag.dagrun_timeout().filter(|_| may_end)?;
        Some(self.started_at?.checked_add(timeout).unwrap_or(Timestamp::MAX))
    }

    /// What setups, the trigger rule and the scope of a teardown say of a task together, from counters alone.
    ///
    /// Indirect setups come first, as in Airflow; `always` and a task whose upstreams are all absent wait for nothing.
    pub(crate) fn verdict(&self, place: TaskIx) -> Verdict {
        let settings = &self.dag.task(place).settings;
        let direct = &self.tasks[place.get()].upstream;
        let scope = self.scope_counts(place);
        let rule = settings.trigger_rule.verdict(direct, &scope.direct_setups);
        if direct.present() == 0 || settings.trigger_rule == crate::rule::TriggerRule::Always {
            return rule;
        }
        match settings.role {
            Role::Work | Role::Setup => match setup_verdict(&scope.indirect_setups) {
                Verdict::Run => rule,
                // A mark by the rule itself need not wait for setups that are still going on.
                Verdict::Wait => match rule {
                    Verdict::Run | Verdict::Wait => Verdict::Wait,
                    Verdict::Skip | Verdict::UpstreamFailed => rule,
                },
                mark @ (Verdict::Skip | Verdict::UpstreamFailed) => mark,
            },
            Role::Teardown { .. } => match rule {
                Verdict::Run if !scope.enclosed.all_done() => Verdict::Wait,
                Verdict::Run | Verdict::Wait | Verdict::Skip | Verdict::UpstreamFailed => rule,
            },
        }
    }
}

fn scope_states(dag: &Dag) -> Vec<ScopeState> {
    let Some(scopes) = dag.scopes() else { return Vec::new() };
    let of = |total: usize| UpstreamCounts { total: total as u32, ..UpstreamCounts::default() };
    let is_setup = |up: &&TaskIx| matches!(dag.task(**up).settings.role, Role::Setup);
    dag.tasks()
        .iter()
        .enumerate()
        .map(|(place, task)| ScopeState {
            direct_setups: of(task.upstream.iter().filter(is_setup).count()),
            indirect_setups: of(scopes.setups[place] as usize),
            enclosed: of(scopes.enclosed[place] as usize),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise of a few hundred bytes a task rests on these; the rest is names, edges and what tasks leave behind.
    #[test]
    fn a_task_is_small() {
        assert!(size_of::<TaskState>() <= 208, "{}", size_of::<TaskState>());
        assert!(size_of::<crate::dag::Task>() <= 256, "{}", size_of::<crate::dag::Task>());
    }
}
