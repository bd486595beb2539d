//! What happens, as it becomes durable: one stream for everybody who looks on.
//!
//! Events have sequence numbers, so that who was away for a moment asks for what is missing. The last [`REMEMBERED_MAX`] are remembered;
//! who was away longer is told so, and reads the lists again. Nobody who reads slowly holds anything up: they lose their place instead.

use super::Service;
use super::notice::Notices;
use crate::measure::{Measures, Stopwatch};
use crate::redact::Redactor;
use crate::watch::Watcher;
use backstop_core::event::{Failure, RunHeader};
use backstop_core::{DagId, Event, RunId, RunState};
use backstop_store::Recorded;
use jiff::Timestamp;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, broadcast, watch};

/// Events that can be asked for again.
pub const REMEMBERED_MAX: usize = 10_000;
/// Bytes that these may take, by estimate; a single event that is larger is remembered alone. Beside them up to `READER_MAX` events wait
/// for the slowest reader: those that were told last, most of which are the same.
pub const REMEMBERED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Events that may wait for one reader.
const READER_MAX: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug)]
pub struct LiveEvent {
    /// Grows by one; begins with the microseconds since 1970 at the process's start, so that numbers of an earlier process are smaller.
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
        /// The event. Its reader masks what the projects know to be secret.
        recorded: Recorded,
    },
    /// DAGs came, went or changed, or were paused or unpaused: read the list again.
    CatalogChanged,
}

impl LiveEvent {
    /// What it takes in memory, by estimate: texts that may be long are counted, the rest is the same for all.
    fn bytes(&self) -> usize {
        let texts = match &self.what {
            What::CatalogChanged => 0,
            What::Run { recorded, .. } => texts_of(&recorded.event),
        };
        size_of::<Self>() + EVENT_BYTES + texts
    }
}

/// For what every event has beside its texts: ids, allocations.
const EVENT_BYTES: usize = 256;
/// For an id in a list, and for a statement.
const ENTRY_BYTES: usize = 128;

/// Bytes of the texts of an event that may be long.
fn texts_of(event: &Event) -> usize {
    let of_failure = |failure: &Failure| {
        let causes: usize = failure.causes.iter().map(String::len).sum();
        failure.message.len() + causes + failure.effect.len() + failure.statements.len() * ENTRY_BYTES
    };
    match event {
        Event::RunCreated(header) => header.params.len() + header.only_tasks.len() * ENTRY_BYTES,
        Event::TaskExpanded { items, .. } => items.iter().map(|item| item.len()).sum(),
        Event::SegmentCommitted { commit, .. } => {
            commit.statements.len() * ENTRY_BYTES + commit.result.as_ref().map_or(0, |result| result.len())
        }
        Event::AttemptSucceeded { result, .. } => result.as_ref().map_or(0, |result| result.len()),
        Event::AttemptHeld { statements, result, .. } => {
            statements.len() * ENTRY_BYTES + result.as_ref().map_or(0, |result| result.len())
        }
        Event::AttemptFailed { failure, .. } | Event::AttemptUnknown { failure, .. } => of_failure(failure),
        Event::GroupRolledBack { members, failure, .. } => members.len() * ENTRY_BYTES + of_failure(failure),
        Event::CallbackFinished { failure, .. } => failure.as_deref().map_or(0, of_failure),
        Event::OperatorActed { who, why, what } => who.len() + why.len() + what.len(),
        Event::CancelRequested { reason, .. } | Event::InstanceCancelRequested { reason, .. } => reason.len(),
        Event::RunStuck { instances } | Event::InstancesCleared { instances, .. } => instances.len() * ENTRY_BYTES,
        Event::AssetsUpdated { assets, .. } => assets.iter().map(|asset| asset.len()).sum(),
        // The rest has ids, numbers and times.
        Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::TaskScheduled { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptDeferred { .. }
        | Event::UnknownResolved { .. }
        | Event::RetryScheduled { .. }
        | Event::TimerFired { .. }
        | Event::TaskSkipped { .. }
        | Event::TaskUpstreamFailed { .. }
        | Event::CallbackScheduled { .. }
        | Event::RunReopened
        | Event::TaskUnexpanded { .. }
        | Event::InstanceMarked { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::RunPinned { .. }
        | Event::AnomalyNoticed { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => 0,
    }
}

struct State {
    remembered: VecDeque<Arc<LiveEvent>>,
    /// Those of `remembered`.
    bytes: usize,
    next: u64,
}

/// What has happened since the process began, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs that were made.
    pub runs_made: u64,
    /// Runs that ended well.
    pub runs_succeeded: u64,
    /// Runs that failed.
    pub runs_failed: u64,
    /// Runs that were cancelled.
    pub runs_cancelled: u64,
    /// Times that a run became stuck.
    pub runs_stuck: u64,
    /// Deadlines that will probably be missed.
    pub deadlines_at_risk: u64,
    /// Deadlines that were missed.
    pub deadlines_missed: u64,
    /// Attempts that ended well.
    pub attempts_succeeded: u64,
    /// Attempts that failed, also those that were tried again.
    pub attempts_failed: u64,
    /// Attempts whose outcome was not known at first.
    pub attempts_unknown: u64,
    /// Segments that committed.
    pub segments_committed: u64,
}

impl Totals {
    fn count(&mut self, event: &Event) {
        let counter = match event {
            Event::RunCreated(_) => &mut self.runs_made,
            Event::RunSucceeded => &mut self.runs_succeeded,
            Event::RunFailed => &mut self.runs_failed,
            Event::RunCancelled => &mut self.runs_cancelled,
            Event::RunStuck { .. } => &mut self.runs_stuck,
            Event::DeadlineAtRisk { .. } => &mut self.deadlines_at_risk,
            Event::DeadlineMissed { .. } => &mut self.deadlines_missed,
            Event::AttemptSucceeded { .. } => &mut self.attempts_succeeded,
            Event::AttemptFailed { .. } => &mut self.attempts_failed,
            Event::AttemptUnknown { .. } => &mut self.attempts_unknown,
            Event::SegmentCommitted { .. } => &mut self.segments_committed,
            // The rest is steps on the way to these.
            _ => return,
        };
        *counter += 1;
    }
}

/// The stream.
pub struct Live {
    state: Mutex<State>,
    totals: Mutex<Totals>,
    /// By DAG, where somebody waits for its runs.
    changes: Mutex<HashMap<DagId, watch::Sender<u64>>>,
    measures: Measures,
    /// Told when a run of this process updated an asset.
    assets: Notify,
    sender: broadcast::Sender<Arc<LiveEvent>>,
}

impl Default for Live {
    fn default() -> Self {
        Self::since(Timestamp::UNIX_EPOCH)
    }
}

impl Live {
    /// Of a process that starts now.
    pub(crate) fn since(start: Timestamp) -> Self {
        let next = u64::try_from(start.as_microsecond()).unwrap_or(0) + 1;
        let state = State { remembered: VecDeque::new(), bytes: 0, next };
        Self {
            state: Mutex::new(state),
            totals: Mutex::default(),
            changes: Mutex::default(),
            measures: Measures::default(),
            assets: Notify::new(),
            sender: broadcast::channel(READER_MAX).0,
        }
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
            state.bytes += event.bytes();
            state.remembered.push_back(event.clone());
            while state.remembered.len() > REMEMBERED_MAX || state.remembered.len() > 1 && state.bytes > REMEMBERED_BYTES_MAX {
                let Some(oldest) = state.remembered.pop_front() else { break };
                state.bytes -= oldest.bytes();
            }
            // Under the lock, so that nobody sees them in another order. Nobody looks on: fine.
            let _ = self.sender.send(event);
        }
    }

    /// Changes when a run of a DAG was made or has ended.
    pub(crate) fn changes(&self, dag: &DagId) -> watch::Receiver<u64> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.retain(|_, sender| sender.receiver_count() > 0);
        changes.entry(dag.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Resolves once a run of this process has updated an asset, also before this was called. One may wait at a time.
    pub(crate) async fn assets_updated(&self) {
        self.assets.notified().await;
    }

    fn note_change(&self, dag: &DagId) {
        if let Some(sender) = self.changes.lock().unwrap_or_else(PoisonError::into_inner).get(dag) {
            sender.send_modify(|number| *number += 1);
        }
    }

    /// DAGs changed.
    pub(crate) fn tell_catalog_changed(&self, at: Timestamp) {
        self.tell(std::iter::once((at, What::CatalogChanged)));
    }

    /// What has happened since the process began.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long things take.
    pub fn measures(&self) -> &Measures {
        &self.measures
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
    live: Arc<Live>,
    notices: Arc<Notices>,
    run: RunId,
    dag: DagId,
    /// When the run was asked for.
    queued_at: Timestamp,
    /// Masks what the run's own parameters say to be secret.
    own: Redactor,
    stopwatch: Mutex<Stopwatch>,
    /// As long as this is held something of the run goes on.
    _at_work: watch::Receiver<()>,
}

impl LiveWatcher {
    /// Of a run that was made.
    pub(crate) fn of(service: &Service, header: &RunHeader) -> Self {
        let own = Redactor::for_params(&header.params);
        Self::new(service, header.run_id.clone(), header.dag_id.clone(), header.queued_at, own)
    }

    /// `own` masks what the run's own parameters say to be secret.
    pub(crate) fn new(service: &Service, run: RunId, dag: DagId, queued_at: Timestamp, own: Redactor) -> Self {
        let (live, notices) = (service.live.clone(), service.notices.clone());
        let _at_work = service.at_work.subscribe();
        Self { live, notices, run, dag, queued_at, own, stopwatch: Mutex::default(), _at_work }
    }
}

impl Watcher for LiveWatcher {
    fn decided(&self, _state: &RunState, _events: &[Recorded]) {}

    fn kept(&self, took: std::time::Duration) {
        self.live.measures.append.observe(took);
    }

    fn durable(&self, events: &[Recorded]) {
        let mut totals = self.live.totals.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().for_each(|recorded| totals.count(&recorded.event));
        drop(totals);
        let mut stopwatch = self.stopwatch.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().for_each(|recorded| stopwatch.take_in(recorded, self.queued_at, &self.live.measures));
        drop(stopwatch);
        let is_about_the_run =
            |event: &Event| matches!(event, Event::RunCreated(_) | Event::RunSucceeded | Event::RunFailed | Event::RunCancelled);
        if events.iter().any(|recorded| is_about_the_run(&recorded.event)) {
            self.live.note_change(&self.dag);
        }
        if events.iter().any(|recorded| matches!(recorded.event, Event::AssetsUpdated { .. })) {
            self.live.assets.notify_one();
        }
        events.iter().for_each(|recorded| self.notices.event(&self.run, &self.dag, recorded));
        self.live.tell(events.iter().map(|recorded| {
            let recorded = self.own.mask(recorded).clone();
            (recorded.at, What::Run { run: self.run.clone(), dag: self.dag.clone(), recorded })
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_by_its_bytes_too() {
        let live = Live::default();
        let tell = |bytes: usize, count: usize| {
            let result = Some(Arc::<str>::from("x".repeat(bytes)));
            let instance = backstop_core::InstanceId { task: backstop_core::TaskId::new("t"), map_index: None };
            let event = Event::AttemptSucceeded { instance, try_number: 1, result, follow: None };
            let recorded = Recorded { seq: 1, at: Timestamp::UNIX_EPOCH, event };
            let what = What::Run { run: RunId::new("r"), dag: DagId::new("d"), recorded };
            live.tell(std::iter::repeat_n((Timestamp::UNIX_EPOCH, what), count));
            let state = live.state.lock().unwrap();
            assert_eq!(state.bytes, state.remembered.iter().map(|event| event.bytes()).sum::<usize>());
            (state.remembered.len(), state.bytes)
        };
        assert_eq!(tell(1, REMEMBERED_MAX + 1).0, REMEMBERED_MAX);
        let (count, bytes) = tell(64 * 1024, 2000);
        assert!(count < 1024 && bytes <= REMEMBERED_BYTES_MAX, "{count} events of {bytes} bytes");
        assert_eq!(tell(REMEMBERED_BYTES_MAX + 1, 1).0, 1);
        assert!(live.subscribe(Some(1)).has_gap);
    }
}
