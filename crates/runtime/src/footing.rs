//! What an attempt stands on: the part of the log that must be durable before a task's effects.
//!
//! A marked segment may run ahead of the log, because a process that takes the run over finds its marker and comes to the same story.
//! That holds only as long as all that led to it would come out the same again. A check, a branch, a sensor, a list, a read or a failure
//! may not: asked again after a crash, it may answer otherwise, and the task behind it would be skipped although it took effect. So an
//! attempt waits until such outcomes above it are durable (DESIGN.md, "Running ahead of the log").

use backstop_core::dag::Unit;
use backstop_core::event::{Event, Promise, SkipCause};
use backstop_core::{InstanceId, RunState, TaskId, TaskIx};
use backstop_project::definition::{Definition, Kind};
use backstop_store::Recorded;

/// Of each task, the last event of itself or of tasks above it that might come out otherwise.
#[derive(Debug)]
pub(crate) struct Footing {
    /// Behind the task: what its downstreams stand on.
    behind: Vec<u64>,
    /// Before the task, from its first attempt on: an upstream that ends later has no part in why it was started.
    before: Vec<Option<u64>>,
}

impl Footing {
    /// For a process to which everything so far is durable.
    pub(crate) fn new(tasks: usize) -> Self {
        Self { behind: vec![0; tasks], before: vec![None; tasks] }
    }

    /// How far the log must be durable before an attempt of the task has effects.
    pub(crate) fn of(&mut self, state: &RunState, task: TaskIx) -> u64 {
        let before = self.before(state, task);
        // Of a mapped task: where its list came from.
        before.max(self.behind[task.get()])
    }

    fn before(&mut self, state: &RunState, task: TaskIx) -> u64 {
        if let Some(known) = self.before[task.get()] {
            return known;
        }
        let upstream = &state.dag().task(task).upstream;
        let before = upstream.iter().map(|up| self.behind[up.get()]).max().unwrap_or(0);
        self.before[task.get()] = Some(before);
        before
    }

    /// Takes note of events that the state has applied.
    pub(crate) fn note(&mut self, state: &RunState, definition: &Definition, events: &[Recorded]) {
        for recorded in events {
            let (task, comes_out_again) = match &recorded.event {
                Event::AttemptSucceeded { instance, .. } => (&instance.task, succeeds_again(state, definition, instance)),
                Event::AttemptFailed { instance, is_final: true, .. } => (&instance.task, false),
                Event::TaskExpanded { task, .. } => (task, false),
                Event::TaskSkipped { instance, cause } => (
                    &instance.task,
                    match cause {
                        SkipCause::TriggerRule | SkipCause::Branch(_) => true,
                        SkipCause::Own(_) | SkipCause::NothingToMap | SkipCause::RunCancelled => false,
                    },
                ),
                Event::TaskUpstreamFailed { instance } => (&instance.task, true),
                Event::InstancesCleared { instances, .. } => {
                    instances.iter().for_each(|instance| self.act(definition, &instance.task, recorded.seq));
                    continue;
                }
                // What its tasks come to now stands on what their upstreams come to now.
                Event::GroupRolledBack { group, .. } => {
                    let unit = definition.dag.index(group.as_str()).and_then(|place| definition.dag.unit_of(place));
                    unit.into_iter().flat_map(Unit::tasks).for_each(|task| self.before[task.get()] = None);
                    continue;
                }
                Event::InstanceMarked { instance: InstanceId { task, .. }, .. } | Event::TaskUnexpanded { task, .. } => {
                    self.act(definition, task, recorded.seq);
                    continue;
                }
                Event::AttemptFailed { is_final: false, .. }
                // What follows from them waits for its commit, which waits for the log.
                | Event::AttemptHeld { .. }
                | Event::RunCreated(_)
                | Event::RunStarted { .. }
                | Event::RunResumed { .. }
                | Event::TaskScheduled { .. }
                | Event::AttemptStarted { .. }
                | Event::SegmentCommitted { .. }
                | Event::AttemptDeferred { .. }
                | Event::AttemptUnknown { .. }
                | Event::UnknownResolved { .. }
                | Event::RetryScheduled { .. }
                | Event::TimerFired { .. }
                | Event::CallbackScheduled { .. }
                | Event::CallbackFinished { .. }
                | Event::OperatorActed { .. }
                | Event::CancelRequested { .. }
                | Event::RunStuck { .. }
                | Event::RunReopened
                | Event::RunPinned { .. }
                | Event::AssetsUpdated { .. }
                | Event::DeadlineAtRisk { .. }
                | Event::DeadlineMissed { .. }
                | Event::InstanceCancelRequested { .. }
                | Event::AnomalyNoticed { .. }
                | Event::RunSucceeded
                | Event::RunFailed
                | Event::RunCancelled => continue,
            };
            let Some(place) = definition.dag.index(task.as_str()) else { continue };
            let inherited = self.before(state, place);
            let own = if comes_out_again { 0 } else { recorded.seq };
            let behind = &mut self.behind[place.get()];
            *behind = inherited.max(own).max(*behind);
        }
    }
    /// A person cleared or marked the task: it stands on that, and on what its upstreams come to now.
    fn act(&mut self, definition: &Definition, task: &TaskId, seq: u64) {
        if let Some(place) = definition.dag.index(task.as_str()) {
            self.before[place.get()] = None;
            self.behind[place.get()] = self.behind[place.get()].max(seq);
        }
    }
}

/// True when the markers of its segments alone make the instance succeed again, with the same result.
fn succeeds_again(state: &RunState, definition: &Definition, instance: &InstanceId) -> bool {
    let Some(place) = definition.dag.index(instance.task.as_str()) else { return false };
    match &definition.body(place).kind {
        // A commit is sent only behind a durable log, and its marker makes it succeed again.
        Kind::Empty | Kind::Commit(_) => true,
        Kind::Sql(_) => {
            state.instance(instance).is_some_and(|view| view.segments.iter().all(|commit| commit.promise == Promise::ExactlyOnce))
        }
        Kind::Check(_) | Kind::Branch(_) | Kind::Sensor(_) | Kind::Shell(_) | Kind::Python(_) | Kind::Http(_) => false,
        Kind::Dag(_) | Kind::WaitFor(_) => false,
    }
}
