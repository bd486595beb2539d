//! Runs that wait and whose deadlines are told of: an engine has them for that long, and they stay where they wait.

use super::{Desk, Queued};
use crate::control::Control;
use crate::run::{Created, Told};
use backstop_core::RunId;
use backstop_core::event::RunHeader;
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

/// A run, and where it waits now, with which files; `None` when it does not.
pub(in crate::service) type Moved = (RunId, Option<(Arc<RunHeader>, Place)>);

impl Desk {
    /// The runs that began to wait, wait elsewhere or with other files, or wait no more since this was asked last, and where each waits now.
    /// However many others wait, they cost nothing.
    pub(in crate::service) fn take_moved(&mut self) -> Vec<Moved> {
        let moved = std::mem::take(&mut self.moved);
        moved.into_iter().map(|run| (run.clone(), self.waits(&run))).collect()
    }

    fn waits(&self, run: &RunId) -> Option<(Arc<RunHeader>, Place)> {
        let queued = || Some((self.queued_runs.get(run)?.header.clone(), Place::Queued));
        let hindered = || Some((self.hindered.get(run)?.queued.header.clone(), Place::Hindered));
        let stuck = || Some((self.stuck.get(run)?.header.clone(), Place::Stuck));
        stuck().or_else(hindered).or_else(queued)
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
        self.queued_runs.get_mut(run)
    }
}
