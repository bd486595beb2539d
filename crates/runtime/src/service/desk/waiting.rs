//! The runs that wait for a place, by their ids, and how much of them may be held in memory.
//!
//! Runs that the scheduler makes are few, because each DAG has its `max_active_runs`; whoever asks for runs by a program has no such bound,
//! and is told to come again before the memory is full. What is in the store already is never refused.

use super::Queued;
use backstop_core::RunId;
use std::collections::HashMap;

/// So many runs may wait for a place before no more are taken on request.
pub(in crate::service) const WAITING_RUNS_MAX: usize = 100_000;
/// The same, in bytes of their parameters.
pub(in crate::service) const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// To find a run must not cost a walk through all of them, nor must knowing how large they are.
#[derive(Default)]
pub(super) struct WaitingRuns {
    /// With the bytes that were counted for it: it may be given other files while it waits.
    runs: HashMap<RunId, (Queued, usize)>,
    bytes: usize,
}

impl WaitingRuns {
    pub(super) fn insert(&mut self, queued: Queued) {
        let run = queued.header.run_id.clone();
        self.remove(&run);
        let bytes = queued.header.params.len();
        self.bytes += bytes;
        self.runs.insert(run, (queued, bytes));
    }

    pub(super) fn remove(&mut self, run: &RunId) -> Option<Queued> {
        let (queued, bytes) = self.runs.remove(run)?;
        self.bytes -= bytes;
        Some(queued)
    }

    pub(super) fn get(&self, run: &RunId) -> Option<&Queued> {
        self.runs.get(run).map(|(queued, _)| queued)
    }

    pub(super) fn get_mut(&mut self, run: &RunId) -> Option<&mut Queued> {
        self.runs.get_mut(run).map(|(queued, _)| queued)
    }

    pub(super) fn contains(&self, run: &RunId) -> bool {
        self.runs.contains_key(run)
    }

    pub(super) fn len(&self) -> usize {
        self.runs.len()
    }

    /// The runs that wait and the bytes of their parameters, where no more are to be taken on request.
    pub(super) fn crowd(&self) -> Option<(usize, usize)> {
        let is_crowded = self.runs.len() >= WAITING_RUNS_MAX || self.bytes >= WAITING_BYTES_MAX;
        is_crowded.then_some((self.runs.len(), self.bytes))
    }
}
