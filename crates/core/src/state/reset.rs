//! What a person does to instances: back to the beginning, or to an outcome. With `RunReopened`, the only way out of what is done.

use super::{Instance, InstancePhase, Key, RunState, SkippedBy, Stop};
use crate::event::{Afterwards, Mark, Restart};
use crate::id::TaskIx;
use std::sync::Arc;

impl Instance {
    /// Everything but the try number, the last failure, and what committed if it goes on behind that.
    fn begin_again(&mut self, restart: Restart) {
        let segments = match restart {
            Restart::Beginning => Vec::new(),
            Restart::LastCommit => std::mem::take(&mut self.segments),
        };
        *self = Self {
            try_number: self.try_number,
            tries_before: self.try_number,
            epoch: self.epoch,
            failure: self.failure.take(),
            segments,
            ..Self::default()
        };
    }
}

impl RunState {
    /// The run is over no more. Nothing is judged before it starts.
    pub(super) fn reopen(&mut self) {
        if !self.phase.is_terminal() {
            return;
        }
        self.phase = super::RunPhase::Queued;
        self.cancelled_before = self.cancel.take().or(self.cancelled_before);
        self.reopened = self.reopened.saturating_add(1);
    }

    /// Puts an instance back to where it waits for its trigger rule, with everything that was counted of it.
    pub(super) fn reset(&mut self, key: Key, restart: Restart) {
        let Some(instance) = self.find_mut(key) else { return };
        let before = instance.phase;
        match before {
            InstancePhase::None | InstancePhase::Removed => return,
            InstancePhase::Scheduled
            | InstancePhase::Running
            | InstancePhase::Deferred { .. }
            | InstancePhase::UpForRetry { .. }
            | InstancePhase::InDoubt
            | InstancePhase::Held
            | InstancePhase::Success
            | InstancePhase::Failed
            | InstancePhase::Skipped
            | InstancePhase::UpstreamFailed
            | InstancePhase::RolledBack => {}
        }
        let was_cut = instance.skipped_by == Some(SkippedBy::Cancel);
        instance.begin_again(restart);
        self.stops.remove(&key);
        self.leave(key, before);
        *self.counts.of(InstancePhase::None) += 1;
        if let Some(mapped) = self.tasks[key.task.get()].mapped.as_mut().filter(|_| key.map_index.is_some()) {
            mapped.undecided += 1;
        }
        self.take_back(key.task, before, was_cut);
        self.judge(key.task);
    }

    /// Sets the outcome of an instance, whatever it was.
    pub(super) fn mark(&mut self, key: Key, mark: Mark) {
        let Some(instance) = self.find_mut(key) else { return };
        let before = instance.phase;
        if before == InstancePhase::Removed {
            return;
        }
        let phase = match mark {
            Mark::Success => InstancePhase::Success,
            Mark::Failed => {
                instance.result = None;
                InstancePhase::Failed
            }
        };
        instance.is_marked = true;
        let was_cut = instance.skipped_by.take() == Some(SkippedBy::Cancel);
        if !before.is_done() {
            return self.enter(key, phase);
        }
        instance.phase = phase;
        self.leave(key, before);
        *self.counts.of(phase) += 1;
        self.take_back(key.task, before, was_cut);
        self.finish(key.task, phase);
    }

    /// Takes back what was counted when an instance was done.
    fn take_back(&mut self, task: TaskIx, phase: InstancePhase, was_cut: bool) {
        if !phase.is_done() {
            return;
        }
        let failed = matches!(phase, InstancePhase::Failed | InstancePhase::UpstreamFailed | InstancePhase::RolledBack);
        if failed && self.tasks[task.get()].is_leaf {
            self.failed_leaves -= 1;
        }
        self.cut -= usize::from(was_cut);
        self.tell_waiting(task, |counts| counts.remove(phase));
    }

    /// Puts the unexpanded instance of a mapped task back in the place of its instances, which were all cleared.
    pub(super) fn unexpand(&mut self, task: TaskIx) {
        let keys: Vec<Key> = self.keys_of(task).collect();
        if !self.is_expanded(task) {
            return;
        }
        keys.iter().for_each(|&key| self.reset(key, Restart::Beginning));
        let state = &mut self.tasks[task.get()];
        let Some(mapped) = state.mapped.take() else { return };
        let count = mapped.instances.len() as u32;
        if count > 0 {
            let most = mapped.instances.iter().map(|instance| instance.try_number).max().unwrap_or(0);
            state.tries_before = state.tries_before.max(most);
            state.single.begin_again(Restart::Beginning);
            self.counts.none -= mapped.instances.len() - 1;
            self.tell_waiting(task, |counts| counts.total -= count - 1);
        }
        self.take_off_work_list(task);
        self.judge(task);
    }

    /// Only of an attempt that goes on.
    pub(super) fn request_stop(&mut self, key: Key, reason: &str, then: Afterwards) {
        if self.find(key).is_some_and(|instance| instance.phase == InstancePhase::Running) {
            self.stops.insert(key, Stop { reason: Arc::from(reason), then });
        }
    }
}
