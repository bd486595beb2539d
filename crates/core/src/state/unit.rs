//! Tasks that share a transaction: what is held in it, the slots that it keeps, and its end.

use super::{InstancePhase, Key, RunState};
use crate::event::{Failure, FailureClass, Restart};
use crate::id::{InstanceId, TaskId, TaskIx};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl RunState {
    pub(crate) fn held(&self) -> &BTreeSet<Key> {
        &self.held
    }

    /// The tasks whose slots open transactions keep.
    pub(crate) fn kept(&self) -> &BTreeMap<u32, TaskIx> {
        &self.kept
    }

    /// True when the transaction that this task commits has slots: one of its tasks runs, or it keeps those of the last for the next.
    pub fn has_slots(&self, commit: TaskIx) -> bool {
        let Some(unit) = self.dag.unit_place(commit) else { return false };
        self.kept.contains_key(&unit) || self.unit_keys(unit).any(|key| self.running.contains(&key))
    }

    /// The tasks whose slots are kept, as instances.
    pub fn instances_that_keep_slots(&self) -> impl Iterator<Item = InstanceId> {
        self.kept.values().map(|&task| self.id(Key { task, map_index: None }))
    }

    /// The instances of a unit that are part of the run: members in their order, then the commit.
    pub(crate) fn unit_keys(&self, unit: u32) -> impl Iterator<Item = Key> + use<> {
        let tasks: Vec<TaskIx> = self.dag.units().get(unit as usize).map_or_else(Vec::new, |unit| unit.tasks().collect());
        tasks.into_iter().map(|task| Key { task, map_index: None })
    }

    /// True while a transaction is open: a member has done its work or is at it, or its commit is on its way.
    pub(crate) fn is_open(&self, unit: u32) -> bool {
        self.unit_keys(unit).any(|key| self.held.contains(&key) || self.running.contains(&key) || self.in_doubt.contains(&key))
    }

    /// True when a member of the transaction that this task commits or belongs to has done its work in it.
    pub fn has_held(&self, task: TaskIx) -> bool {
        let unit = self.dag.unit_place(task);
        unit.is_some_and(|unit| self.unit_keys(unit).any(|key| self.held.contains(&key)))
    }

    /// True when the slots of a task that ends its attempt stay with its transaction, which is open and goes on.
    pub(super) fn keeps_slots(&self, key: Key, next: Option<InstancePhase>) -> Option<u32> {
        let unit = self.dag.unit_place(key.task)?;
        let is_open = || self.unit_keys(unit).any(|other| self.held.contains(&other));
        let keeps = match next? {
            InstancePhase::Held => true,
            InstancePhase::UpForRetry { .. } | InstancePhase::Scheduled => is_open(),
            InstancePhase::None
            | InstancePhase::Running
            | InstancePhase::Deferred { .. }
            | InstancePhase::InDoubt
            | InstancePhase::Success
            | InstancePhase::Failed
            | InstancePhase::Skipped
            | InstancePhase::UpstreamFailed
            | InstancePhase::RolledBack
            | InstancePhase::Removed => false,
        };
        keeps.then_some(unit)
    }

    /// The slots that a transaction kept are its next task's, or free.
    pub(super) fn give_up_slots(&mut self, unit: u32) {
        if let Some(task) = self.kept.remove(&unit) {
            self.queue.free_slots(&self.dag, Key { task, map_index: None });
        }
    }

    /// A transaction was rolled back: what its members did is undone, for good or to be done again. The failures of the whole are counted
    /// at its commit, which has counted its own already.
    pub(super) fn roll_back(&mut self, group: &TaskId, members: &[InstanceId], failure: &Arc<Failure>, is_final: bool) {
        let keys: Vec<Key> = members.iter().filter_map(|member| self.key(member)).collect();
        if is_final {
            for key in keys {
                if let Some(instance) = self.find_mut(key).filter(|instance| instance.phase == InstancePhase::Held) {
                    instance.result = None;
                    self.enter(key, InstancePhase::RolledBack);
                }
            }
            return;
        }
        let Some(task) = self.dag.index(group.as_str()) else { return };
        let commit = Key { task, map_index: None };
        // Below before above, so that nothing is judged by what is about to be undone.
        self.start_over(commit, failure);
        keys.into_iter().rev().for_each(|key| self.reset(key, Restart::Beginning));
    }

    fn start_over(&mut self, commit: Key, failure: &Arc<Failure>) {
        let Some(instance) = self.find_mut(commit) else { return };
        match instance.phase {
            InstancePhase::Running | InstancePhase::InDoubt => {}
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
            | InstancePhase::Removed => instance.fail(failure.class, false),
        }
        let interruptions = instance.interruptions + u32::from(failure.class == FailureClass::Interrupted);
        let failures = instance.failures;
        instance.failure = Some(Arc::clone(failure));
        self.reset(commit, Restart::Beginning);
        if let Some(instance) = self.find_mut(commit) {
            instance.failures = failures;
            instance.interruptions = interruptions;
        }
    }
}
