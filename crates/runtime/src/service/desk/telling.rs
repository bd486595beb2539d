//! Runs that wait and whose deadlines are told of: an engine has them for that long, and they stay where they wait.

use super::{Desk, Queued};
use crate::control::Control;
use crate::run::{Created, Told};
use backstop_core::RunId;
use backstop_core::event::RunHeader;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Where a run waits: what is known of its times may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum Place {
    /// For a place.
    Queued,
    /// For another try.
    Hindered,
    /// For a person.
    Stuck,
}

impl Desk {
    /// The runs that wait, and where.
    pub(in crate::service) fn waiting(&self) -> BTreeMap<RunId, (Arc<RunHeader>, Place)> {
        let queued = self.queued.values().flatten().map(|queued| (&queued.header, Place::Queued));
        let hindered = self.hindered.values().map(|hindered| (&hindered.queued.header, Place::Hindered));
        let stuck = self.stuck.values().map(|stuck| (&stuck.header, Place::Stuck));
        let all = queued.chain(hindered).chain(stuck);
        all.map(|(header, place)| (header.run_id.clone(), (header.clone(), place))).collect()
    }

    /// Whether the deadlines of a run that waits are being told of.
    pub(in crate::service) fn is_telling(&self, run: &RunId) -> bool {
        self.telling.contains_key(run)
    }

    /// Keeps a run that waits from being begun while its deadlines are told of. `None` when it does not wait any more; otherwise what this
    /// process knows because it made the run.
    pub(in crate::service) fn begin_telling(&mut self, run: &RunId, control: &Control) -> Option<Option<Created>> {
        if self.active.contains_key(run) || self.telling.contains_key(run) {
            return None;
        }
        let is_stuck = self.stuck.contains_key(run);
        let created = match self.find_waiting(run) {
            Some(queued) => queued.created.take(),
            None if is_stuck => None,
            None => return None,
        };
        self.telling.insert(run.clone(), control.clone());
        Some(created)
    }

    /// It waits on. `told` is what became of it, and whether it is still one that nobody has begun; `None` when that is not known.
    pub(in crate::service) fn end_telling(&mut self, run: &RunId, told: Option<(Told, bool)>) {
        self.telling.remove(run);
        let Some((told, is_fresh)) = told else { return };
        if let Some(stuck) = self.stuck.get_mut(run) {
            // These events are no sign of somebody else.
            stuck.version = told.version();
        }
        if let Some(queued) = self.find_waiting(run).filter(|_| is_fresh) {
            queued.created = Some(told.created);
        }
    }

    pub(super) fn find_waiting(&mut self, run: &RunId) -> Option<&mut Queued> {
        if let Some(hindered) = self.hindered.get_mut(run) {
            return Some(&mut hindered.queued);
        }
        // Taken off by somebody who steers it, meanwhile.
        if let Some((queued, _)) = self.urgent.iter_mut().find(|(queued, _)| queued.header.run_id == *run) {
            return Some(queued);
        }
        if !self.is_queued.contains(run) {
            return None;
        }
        self.queued.values_mut().flat_map(VecDeque::iter_mut).find(|queued| queued.header.run_id == *run)
    }
}
