//! The run's log, and how far the run may be ahead of it.
//!
//! Appends are queued without waiting; the store makes them durable in groups. What must not be ahead of the log (a second try, work
//! without a marker, a callback, the end of the run) waits at the [`Gate`]. See design.md, "Running ahead of the log".

use crate::watch::Watcher;
use backstop_core::{Event, RunId};
use backstop_store::{Append, AppendError, Durable, Recorded, Store};
use jiff::Timestamp;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Events that may be decided but not yet durable.
const EVENTS_AHEAD_MAX: u64 = 20_000;
/// The longest that an event may wait to become durable before the run waits for it.
const AHEAD_MAX: Duration = Duration::from_millis(250);

/// How far the log is durable. No watch channel: that wakes its receivers in random order, and the simulator wants the same order again.
#[derive(Debug)]
struct Level {
    durable: AtomicU64,
    has_ended: AtomicBool,
    changed: Notify,
}

/// Lets others wait until the log is durable up to a version.
#[derive(Clone)]
pub(crate) struct Gate {
    level: Arc<Level>,
    store: Arc<dyn Store>,
}

impl Gate {
    /// Waits until the run's first `version` events are durable. False when the journal has ended before.
    pub(crate) async fn wait(&self, version: u64) -> bool {
        loop {
            let changed = self.level.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.level.durable.load(Ordering::Acquire) >= version {
                return true;
            }
            if self.level.has_ended.load(Ordering::Acquire) {
                return false;
            }
            self.store.hurry();
            changed.await;
        }
    }
}

struct Pending {
    version: u64,
    events: Vec<Recorded>,
    queued: tokio::time::Instant,
    answer: Durable,
}

/// Appends the events of one run, in order.
pub(crate) struct Journal {
    store: Arc<dyn Store>,
    run: RunId,
    epoch: u64,
    version: u64,
    pending: VecDeque<Pending>,
    level: Arc<Level>,
    watcher: Arc<dyn Watcher>,
}

impl Journal {
    /// A journal of a run that has `version` durable events.
    pub(crate) fn new(store: Arc<dyn Store>, run: RunId, epoch: u64, version: u64, watcher: Arc<dyn Watcher>) -> Self {
        let level = Level { durable: AtomicU64::new(version), has_ended: AtomicBool::new(false), changed: Notify::new() };
        Self { store, run, epoch, version, pending: VecDeque::new(), level: Arc::new(level), watcher }
    }

    /// How many events the run has, durable or not.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// For those that wait.
    pub(crate) fn gate(&self) -> Gate {
        Gate { level: self.level.clone(), store: self.store.clone() }
    }

    /// Queues events. Returns them with their places.
    pub(crate) async fn append(&mut self, at: Timestamp, events: Vec<Event>) -> Vec<Recorded> {
        let first = self.version + 1;
        let recorded: Vec<Recorded> =
            (first..).zip(&events).map(|(seq, event)| Recorded { seq, at, event: event.clone() }).collect();
        let expected_version = self.version;
        self.version += events.len() as u64;
        let append = Append { run: self.run.clone(), expected_version, epoch: self.epoch, at, events };
        let answer = self.store.append(append).await;
        self.pending.push_back(Pending {
            version: self.version,
            events: recorded.clone(),
            queued: tokio::time::Instant::now(),
            answer,
        });
        recorded
    }

    /// True when nothing waits to become durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.is_empty()
    }

    /// True when the run must wait for the log before it decides more.
    pub(crate) fn is_too_far_ahead(&self) -> bool {
        let Some(oldest) = self.pending.front() else { return false };
        self.version - self.level.durable.load(Ordering::Acquire) > EVENTS_AHEAD_MAX || oldest.queued.elapsed() > AHEAD_MAX
    }

    /// Waits for the oldest append that is not durable; for ever when there is none. Safe to drop while it waits.
    ///
    /// # Errors
    /// When the append was refused: the run cannot go on in this process.
    pub(crate) async fn next_durable(&mut self) -> Result<(), AppendError> {
        let Some(oldest) = self.pending.front_mut() else { return std::future::pending().await };
        let answer = (&mut oldest.answer).await.unwrap_or_else(|_| {
            Err(AppendError::Store(backstop_store::Error {
                message: "write the run's log: the store's writer has ended".into(),
                kind: backstop_store::ErrorKind::Other,
                hint: Some("resume the run: everything that committed is found by its markers".into()),
                source: None,
            }))
        });
        let done = self.pending.pop_front();
        answer?;
        if let Some(done) = done {
            self.watcher.kept(done.queued.elapsed());
            self.watcher.durable(&done.events);
            self.level.durable.store(done.version, Ordering::Release);
            self.level.changed.notify_waiters();
        }
        Ok(())
    }

    /// Waits until everything is durable.
    ///
    /// # Errors
    /// As [`Self::next_durable`].
    pub(crate) async fn settle(&mut self) -> Result<(), AppendError> {
        if self.is_settled() {
            return Ok(());
        }
        // The store gathers appends that nobody waits for: say that somebody does.
        self.store.hurry();
        while !self.is_settled() {
            self.next_durable().await?;
        }
        Ok(())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.level.has_ended.store(true, Ordering::Release);
        self.level.changed.notify_waiters();
    }
}
