//! [`apply`]: one event into the state.

use super::{DeadlineTold, Instance, InstancePhase, Key, Mapped, RunPhase, RunState, SkippedBy};
use crate::dag::Unit;
use crate::event::{CancelCause, Event, Evidence, FailureClass, RunHeader, SkipCause};
use crate::id::{InstanceId, TaskIx};
use crate::rule::{UpstreamCounts, Verdict};
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// Folds one event in. Total: the log is the truth, so an event is never refused. One that names what is not there changes nothing.
pub fn apply(state: &mut RunState, event: &Event) {
    state.version += 1;
    match event {
        Event::RunCreated(header) => state.create(header),
        Event::RunStarted { at } => {
            if state.phase == RunPhase::Queued {
                state.phase = RunPhase::Running;
                state.started_at = Some(*at);
                state.began_at.get_or_insert(*at);
                (0..state.tasks.len() as u32).for_each(|place| state.judge(TaskIx(place)));
            }
        }
        Event::RunResumed { epoch } => {
            state.epoch = *epoch;
            state.leave_stuck();
        }
        Event::TaskScheduled { instance } => state.with(instance, RunState::schedule),
        Event::TaskExpanded { task, items } => {
            if let Some(place) = state.dag.index(task.as_str()) {
                state.expand(place, items);
            }
        }
        Event::AttemptStarted { instance, try_number, epoch, at } => state.with(instance, |state, key| {
            if let Some(instance) = state.find_mut(key) {
                instance.try_number = *try_number;
                instance.epoch = *epoch;
                instance.continues_try = false;
                instance.segments_before = instance.segments.len() as u32;
                instance.waiting_since.get_or_insert(*at);
                instance.is_marked = false;
                instance.is_told_done = false;
            }
            state.enter(key, InstancePhase::Running);
        }),
        Event::SegmentCommitted { instance, try_number: _, commit } => {
            // What is behind a segment that a person spoke of is looked for again.
            if let Evidence::Operator { .. } = commit.evidence {
                state.leave_stuck();
            }
            state.with(instance, |state, key| {
                if let Some(instance) = state.find_mut(key) {
                    instance.segments.push(Arc::clone(commit));
                    instance.interruptions = 0;
                }
            });
        }
        Event::AttemptSucceeded { instance, try_number: _, result, follow: _ } => state.with(instance, |state, key| {
            if let Some(instance) = state.find_mut(key) {
                instance.result.clone_from(result);
            }
            state.enter(key, InstancePhase::Success);
        }),
        Event::AttemptHeld { instance, try_number: _, statements: _, result } => state.with(instance, |state, key| {
            if let Some(instance) = state.find_mut(key) {
                instance.result.clone_from(result);
            }
            state.enter(key, InstancePhase::Held);
        }),
        Event::GroupRolledBack { group, members, failure, is_final } => state.roll_back(group, members, failure, *is_final),
        Event::AttemptDeferred { instance, try_number: _, until } => state.with(instance, |state, key| {
            if let Some(instance) = state.find_mut(key) {
                instance.continues_try = true;
            }
            state.enter(key, InstancePhase::Deferred { until: *until });
        }),
        Event::AttemptFailed { instance, try_number: _, failure, is_final } => state.with(instance, |state, key| {
            if let Some(instance) = state.find_mut(key) {
                instance.fail(failure.class, *is_final);
                instance.failure = Some(Arc::clone(failure));
                instance.is_told_done = false;
            }
            // A failure that will be retried keeps its phase until the event that says when, later in the same append.
            if *is_final {
                state.enter(key, InstancePhase::Failed);
            }
        }),
        Event::AttemptUnknown { instance, try_number: _, failure } => state.with(instance, |state, key| {
            if let Some(instance) = state.find_mut(key) {
                instance.failure = Some(Arc::clone(failure));
            }
            state.enter(key, InstancePhase::InDoubt);
        }),
        // The event after it, in the same append, says where the instance goes from here.
        Event::UnknownResolved { instance, try_number: _, evidence } => {
            state.leave_stuck();
            if let Evidence::Operator { took_effect: true, .. } = evidence {
                state.with(instance, RunState::tell_done);
            }
        }
        Event::RetryScheduled { instance, at } => {
            state.with(instance, |state, key| state.enter(key, InstancePhase::UpForRetry { at: *at }));
        }
        Event::TimerFired { instance } => state.with(instance, |state, key| state.enter(key, InstancePhase::Scheduled)),
        Event::TaskSkipped { instance, cause } => state.with(instance, |state, key| state.skip(key, cause)),
        Event::TaskUpstreamFailed { instance } => {
            state.with(instance, |state, key| state.enter(key, InstancePhase::UpstreamFailed));
        }
        Event::CallbackScheduled { callback } => {
            state.callbacks.insert(callback.clone());
        }
        Event::CallbackFinished { callback, failure: _ } => {
            state.callbacks.remove(callback);
        }
        Event::OperatorActed { who: _, why: _, what: _ } => {}
        Event::CancelRequested { reason: _, cause } => state.begin_cancel(*cause),
        Event::RunStuck { instances: _ } => {
            state.times_stuck = state.times_stuck.saturating_add(1);
            let doubts: Vec<_> = state.doubts().collect();
            state.stuck_over.extend(doubts);
            if !state.phase.is_terminal() {
                state.phase = RunPhase::Stuck;
            }
        }
        Event::AssetsUpdated { instance: _, try_number: _, assets: _ } => {}
        Event::DeadlineAtRisk { deadline, due_at, done_at } => {
            state.tell_deadline(DeadlineTold { deadline: *deadline, due_at: *due_at, done_at: Some(*done_at) });
        }
        Event::DeadlineMissed { deadline, due_at } => {
            state.tell_deadline(DeadlineTold { deadline: *deadline, due_at: *due_at, done_at: None });
        }
        Event::RunPinned { version, variables } => {
            if let Some(header) = &mut state.header {
                Arc::make_mut(header).version.clone_from(version);
            }
            // The list itself stays: callbacks have places in it.
            state.told_with_other_files = state.deadlines_told.len();
            state.variables.clone_from(variables);
        }
        Event::RunReopened => state.reopen(),
        Event::InstancesCleared { instances, restart } => {
            instances.iter().for_each(|instance| state.with(instance, |state, key| state.reset(key, *restart)));
        }
        Event::TaskUnexpanded { task, count: _ } => {
            if let Some(place) = state.dag.index(task.as_str()) {
                state.unexpand(place);
            }
        }
        Event::InstanceMarked { instance, mark } => state.with(instance, |state, key| state.mark(key, *mark)),
        Event::InstanceCancelRequested { instance, reason, then } => {
            state.with(instance, |state, key| state.request_stop(key, reason, *then));
        }
        Event::AnomalyNoticed { instance, try_number, anomaly } => state.with(instance, |state, key| {
            let (of, known) = state.noticed.entry(key).or_default();
            if *of != *try_number {
                *of = *try_number;
                known.clear();
            }
            known.push((anomaly.statement, anomaly.unusual));
        }),
        Event::RunSucceeded => state.end(RunPhase::Succeeded),
        Event::RunFailed => state.end(RunPhase::Failed),
        Event::RunCancelled => state.end(RunPhase::Cancelled),
    }
}

impl Instance {
    pub(super) fn fail(&mut self, class: FailureClass, is_final: bool) {
        if is_final || !self.is_free(class) {
            self.failures += 1;
            self.interruptions = 0;
            self.waiting_since = None;
        }
    }
}

impl RunState {
    fn with(&mut self, id: &InstanceId, change: impl FnOnce(&mut Self, Key)) {
        if let Some(key) = self.key(id) {
            change(self, key);
        }
    }

    fn tell_deadline(&mut self, told: DeadlineTold) {
        self.due_after_start.push(self.after_start(told.due_at));
        self.deadlines_told.push(told);
    }

    fn tell_done(&mut self, key: Key) {
        if let Some(instance) = self.find_mut(key) {
            instance.is_told_done = true;
        }
    }

    fn create(&mut self, header: &Arc<RunHeader>) {
        if self.header.is_some() {
            return;
        }
        self.header = Some(Arc::clone(header));
        if !header.only_tasks.is_empty() {
            let dag = Arc::clone(&self.dag);
            let named = header.only_tasks.iter().filter_map(|task| dag.index(task.as_str()));
            // A transaction is run as a whole, or not at all.
            let whole = |task| dag.unit_of(task).into_iter().flat_map(Unit::tasks).chain([task]);
            let wanted: FxHashSet<TaskIx> = named.flat_map(whole).collect();
            for task in (0..self.tasks.len() as u32).map(TaskIx).filter(|task| !wanted.contains(task)) {
                self.enter(Key { task, map_index: None }, InstancePhase::Removed);
            }
            self.mark_leaves();
        }
    }

    pub(super) fn mark_leaves(&mut self) {
        let leaves = self.dag.effective_leaves(|place| self.tasks[place.get()].single.phase != InstancePhase::Removed);
        self.tasks.iter_mut().for_each(|task| task.is_leaf = false);
        leaves.into_iter().for_each(|place| self.tasks[place.get()].is_leaf = true);
    }

    fn schedule(&mut self, key: Key) {
        if let Some(instance) = self.find_mut(key) {
            match instance.phase {
                // Tried again at once, without counting a failure.
                InstancePhase::Running | InstancePhase::InDoubt => {
                    instance.interruptions = instance.interruptions.saturating_add(1)
                }
                InstancePhase::None
                | InstancePhase::Scheduled
                | InstancePhase::Deferred { .. }
                | InstancePhase::UpForRetry { .. }
                | InstancePhase::Held
                | InstancePhase::Success
                | InstancePhase::Failed
                | InstancePhase::Skipped
                | InstancePhase::UpstreamFailed
                | InstancePhase::RolledBack
                | InstancePhase::Removed => {}
            }
        }
        self.enter(key, InstancePhase::Scheduled);
    }

    /// Puts the instances of a mapped task in the place of its unexpanded one.
    fn expand(&mut self, task: TaskIx, items: &[Arc<str>]) {
        let single = Key { task, map_index: None };
        let count = items.len() as u32;
        if self.is_expanded(task) || self.tasks[task.get()].single.phase.is_done() {
            return;
        }
        if count > 0 {
            let phase = self.tasks[task.get()].single.phase;
            self.leave(single, phase);
            self.tell_waiting(task, |counts| counts.total += count - 1);
        }
        let tries_before = self.tasks[task.get()].tries_before;
        let fresh = Instance { try_number: tries_before, tries_before, ..Instance::default() };
        let instances = vec![fresh; items.len()];
        self.counts.none += items.len();
        self.tasks[task.get()].mapped = Some(Box::new(Mapped { items: items.to_vec(), instances, undecided: count }));
        for index in 0..count {
            self.enter(Key { task, map_index: Some(index) }, InstancePhase::Scheduled);
        }
    }

    /// Moves an instance to a phase, with everything that is counted or queued by phase. What is done stays as it is.
    pub(super) fn enter(&mut self, key: Key, phase: InstancePhase) {
        let Some(instance) = self.find_mut(key) else { return };
        let before = instance.phase;
        if before.is_done() {
            return;
        }
        instance.phase = phase;
        self.leave_for(key, before, Some(phase));
        *self.counts.of(phase) += 1;
        if !self.stops.is_empty() && !matches!(phase, InstancePhase::Running | InstancePhase::InDoubt) {
            self.stops.remove(&key);
        }
        match phase {
            // Nothing goes back there but by `reset`.
            InstancePhase::None => {}
            InstancePhase::Scheduled => {
                let has_slots = self.dag.unit_place(key.task).is_some_and(|unit| self.kept.contains_key(&unit));
                self.queue.push(&self.dag, key, has_slots);
            }
            InstancePhase::Running => {
                self.running.insert(key);
                if let Some(unit) = self.dag.unit_place(key.task) {
                    self.give_up_slots(unit);
                }
                self.queue.take_slots(&self.dag, key);
            }
            InstancePhase::Deferred { until: at } | InstancePhase::UpForRetry { at } => {
                self.timers.insert((at, key));
            }
            InstancePhase::InDoubt => {
                self.in_doubt.insert(key);
            }
            InstancePhase::Held => {
                self.held.insert(key);
                self.tell_waiting(key.task, |counts| counts.add(phase));
            }
            InstancePhase::Success
            | InstancePhase::Failed
            | InstancePhase::Skipped
            | InstancePhase::UpstreamFailed
            | InstancePhase::RolledBack
            | InstancePhase::Removed => self.finish(key.task, phase),
        }
    }

    /// Takes an instance out of what its phase put it in.
    pub(super) fn leave(&mut self, key: Key, phase: InstancePhase) {
        self.leave_for(key, phase, None);
    }

    fn leave_for(&mut self, key: Key, phase: InstancePhase, next: Option<InstancePhase>) {
        *self.counts.of(phase) -= 1;
        match phase {
            InstancePhase::None => {
                if let Some(mapped) = self.tasks[key.task.get()].mapped.as_mut().filter(|_| key.map_index.is_some()) {
                    mapped.undecided -= 1;
                }
                if !self.is_undecided(key.task) {
                    self.take_off_work_list(key.task);
                }
            }
            InstancePhase::Scheduled => self.queue.remove(&self.dag, key),
            InstancePhase::Running => {
                self.running.remove(&key);
                match self.keeps_slots(key, next) {
                    Some(unit) => drop(self.kept.insert(unit, key.task)),
                    None => self.queue.free_slots(&self.dag, key),
                }
            }
            InstancePhase::Deferred { until: at } | InstancePhase::UpForRetry { at } => {
                self.timers.remove(&(at, key));
            }
            InstancePhase::InDoubt => {
                self.in_doubt.remove(&key);
            }
            InstancePhase::Held => {
                self.held.remove(&key);
                if let Some(unit) = self.dag.unit_place(key.task)
                    && !self.unit_keys(unit).any(|other| self.held.contains(&other))
                {
                    self.give_up_slots(unit);
                }
                self.tell_waiting(key.task, |counts| counts.remove(phase));
            }
            InstancePhase::Success
            | InstancePhase::Failed
            | InstancePhase::Skipped
            | InstancePhase::UpstreamFailed
            | InstancePhase::RolledBack
            | InstancePhase::Removed => {}
        }
    }

    /// Counts a done instance with all that wait for its task, and judges those anew.
    pub(super) fn finish(&mut self, task: TaskIx, phase: InstancePhase) {
        let failed = matches!(phase, InstancePhase::Failed | InstancePhase::UpstreamFailed | InstancePhase::RolledBack);
        if failed && self.tasks[task.get()].is_leaf {
            self.failed_leaves += 1;
        }
        self.tell_waiting(task, |counts| counts.add(phase));
    }

    /// Changes the counters of all that wait for a task, and judges those anew.
    pub(super) fn tell_waiting(&mut self, task: TaskIx, change: impl Fn(&mut UpstreamCounts)) {
        let dag = Arc::clone(&self.dag);
        let is_setup = matches!(dag.task(task).settings.role, crate::dag::Role::Setup);
        for &down in &dag.task(task).downstream {
            change(&mut self.tasks[down.get()].upstream);
            if let Some(scope) = self.scopes.get_mut(down.get()).filter(|_| is_setup) {
                change(&mut scope.direct_setups);
            }
            self.judge(down);
        }
        if let Some(scopes) = dag.scopes() {
            for &gated in &scopes.gated[task.get()] {
                change(&mut self.scopes[gated.get()].indirect_setups);
                self.judge(gated);
            }
            for &teardown in &scopes.enclosing[task.get()] {
                change(&mut self.scopes[teardown.get()].enclosed);
                self.judge(teardown);
            }
        }
    }

    /// Puts a task on the work-list when its counters decide it, and takes it off when they do not any more.
    pub(super) fn judge(&mut self, task: TaskIx) {
        let goes_on = match self.phase {
            // A stuck run is not acted on, but goes on with what a person did meanwhile.
            RunPhase::Running | RunPhase::Stuck => self.cancel.is_none(),
            RunPhase::Queued | RunPhase::Cancelling | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => false,
        };
        if !goes_on || !self.is_undecided(task) {
            return;
        }
        match self.verdict(task) {
            Verdict::Wait => self.take_off_work_list(task),
            Verdict::Run => {
                self.take_off_work_list(task);
                self.to_schedule.insert(task);
            }
            Verdict::Skip | Verdict::UpstreamFailed => {
                self.take_off_work_list(task);
                self.to_mark.insert((self.dag.depth(task), task));
            }
        }
    }

    pub(super) fn take_off_work_list(&mut self, task: TaskIx) {
        if !self.to_schedule.is_empty() {
            self.to_schedule.remove(&task);
        }
        if !self.to_mark.is_empty() {
            self.to_mark.remove(&(self.dag.depth(task), task));
        }
    }

    fn skip(&mut self, key: Key, cause: &SkipCause) {
        let by = match cause {
            SkipCause::TriggerRule => SkippedBy::Rule,
            SkipCause::Branch(task) => SkippedBy::Branch(self.dag.index(task.as_str())),
            SkipCause::Own(_) => SkippedBy::Itself,
            SkipCause::NothingToMap => SkippedBy::NothingToMap,
            SkipCause::RunCancelled => SkippedBy::Cancel,
        };
        match self.find_mut(key) {
            Some(instance) if !instance.phase.is_done() => instance.skipped_by = Some(by),
            Some(_) | None => return,
        }
        self.cut += usize::from(by == SkippedBy::Cancel);
        self.enter(key, InstancePhase::Skipped);
    }

    fn begin_cancel(&mut self, cause: CancelCause) {
        if self.phase.is_terminal() {
            return;
        }
        self.phase = RunPhase::Cancelling;
        self.cancel.get_or_insert(cause);
        self.to_schedule.clear();
        self.to_mark.clear();
    }

    fn leave_stuck(&mut self) {
        if self.phase == RunPhase::Stuck {
            self.phase = if self.cancel.is_some() { RunPhase::Cancelling } else { RunPhase::Running };
        }
    }

    fn end(&mut self, phase: RunPhase) {
        if !self.phase.is_terminal() {
            self.phase = phase;
        }
    }
}
