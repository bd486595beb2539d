//! What happens, as it becomes durable: one stream for everybody who looks on.
//!
//! Events have sequence numbers, so that who was away for a moment asks for what is missing. The last [`REMEMBERED_MAX`] are remembered;
//! who was away longer is told so, and reads the lists again. Nobody who reads slowly holds anything up: they lose their place instead.

use crate::watch::Watcher;
use backstop_core::{DagId, RunId, RunState};
use backstop_store::Recorded;
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// Events that can be asked for again.
pub const REMEMBERED_MAX: usize = 10_000;
/// Events that may wait for one reader.
const READER_MAX: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// Grows by one; begins anew with each process.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// An event of a run.
    Run {
        /// Which.
        run: RunId,
        /// Of which DAG.
        dag: DagId,
        /// The event.
        recorded: Recorded,
    },
    /// DAGs came, went or changed, or were paused or unpaused: read the list again.
    CatalogChanged,
}

struct State {
    remembered: VecDeque<Arc<LiveEvent>>,
    next: u64,
}

/// The stream.
pub struct Live {
    state: Mutex<State>,
    sender: broadcast::Sender<Arc<LiveEvent>>,
}

impl Default for Live {
    fn default() -> Self {
        Self { state: Mutex::new(State { remembered: VecDeque::new(), next: 1 }), sender: broadcast::channel(READER_MAX).0 }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

/// What a reader gets.
pub struct Subscription {
    /// What was missed and is remembered.
    pub missed: Vec<Arc<LiveEvent>>,
    /// True when some of what was missed is forgotten.
    pub has_gap: bool,
    /// What comes.
    pub coming: broadcast::Receiver<Arc<LiveEvent>>,
}

impl Live {
    fn tell(&self, events: impl Iterator<Item = (Timestamp, What)>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, what) in events {
            let event = Arc::new(LiveEvent { number: state.next, at, what });
            state.next += 1;
            if state.remembered.len() == REMEMBERED_MAX {
                state.remembered.pop_front();
            }
            state.remembered.push_back(event.clone());
            // Under the lock, so that nobody sees them in another order. Nobody looks on: fine.
            let _ = self.sender.send(event);
        }
    }

    /// DAGs changed.
    pub(crate) fn tell_catalog_changed(&self, at: Timestamp) {
        self.tell(std::iter::once((at, What::CatalogChanged)));
    }

    /// The number of the last event; 0 before the first.
    pub fn last(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).next - 1
    }

    /// From behind `after` (`None`: from now on).
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = self.sender.subscribe();
        let Some(after) = after else { return Subscription { missed: Vec::new(), has_gap: false, coming } };
        let first = state.remembered.front().map_or(state.next, |event| event.number);
        // A number of an earlier process is beyond what this one has told.
        let is_strange = after >= state.next;
        let has_gap = is_strange || after + 1 < first;
        let missed = state.remembered.iter().filter(|event| is_strange || event.number > after).cloned().collect();
        Subscription { missed, has_gap, coming }
    }
}

/// Tells the stream of one run.
pub(crate) struct LiveWatcher {
    pub(crate) live: Arc<Live>,
    pub(crate) run: RunId,
    pub(crate) dag: DagId,
}

impl Watcher for LiveWatcher {
    fn decided(&self, _state: &RunState, _events: &[Recorded]) {}

    fn durable(&self, events: &[Recorded]) {
        self.live.tell(events.iter().map(|recorded| {
            (recorded.at, What::Run { run: self.run.clone(), dag: self.dag.clone(), recorded: recorded.clone() })
        }));
    }
}
