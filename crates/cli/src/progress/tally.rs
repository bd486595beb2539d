//! What the final summary wants to know and the run's state does not keep: callbacks that failed, and how many tries were repeated.

use backstop_core::event::{CallbackId, Failure};
use backstop_core::{Event, InstanceId, RunState};
use backstop_runtime::Watcher;
use backstop_store::Recorded;
use std::sync::{Arc, Mutex, PoisonError};

/// Passes everything on, and keeps count.
pub(crate) struct Tally {
    next: Arc<dyn Watcher>,
    callbacks_failed: Mutex<Vec<(CallbackId, Arc<Failure>)>>,
}

/// A DAG may have many failing callbacks; so many are told.
const CALLBACKS_KEPT_MAX: usize = 100;

impl Tally {
    pub(crate) fn before(next: Arc<dyn Watcher>) -> Self {
        Self { next, callbacks_failed: Mutex::new(Vec::new()) }
    }

    /// Callbacks that failed, in order.
    pub(crate) fn callbacks_failed(&self) -> Vec<(CallbackId, Arc<Failure>)> {
        self.callbacks_failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Watcher for Tally {
    fn decided(&self, state: &RunState, events: &[Recorded]) {
        for recorded in events {
            if let Event::CallbackFinished { callback, failure: Some(failure) } = &recorded.event {
                let mut kept = self.callbacks_failed.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() < CALLBACKS_KEPT_MAX {
                    kept.push((callback.clone(), failure.clone()));
                }
            }
        }
        self.next.decided(state, events);
    }

    fn durable(&self, events: &[Recorded]) {
        self.next.durable(events);
    }

    fn statement_started(&self, instance: &InstanceId, number: u32, of: u32, summary: &str) {
        self.next.statement_started(instance, number, of, summary);
    }

    fn rows_received(&self, instance: &InstanceId, rows: u64) {
        self.next.rows_received(instance, rows);
    }

    fn seen(&self, instance: &InstanceId, standing: &str, is_news: bool) {
        self.next.seen(instance, standing, is_news);
    }

    fn note(&self, instance: Option<&InstanceId>, text: &str) {
        self.next.note(instance, text);
    }
}
