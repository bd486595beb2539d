//! Sessions that attempts in doubt keep: of what they began, a statement may still run in a session of theirs on the server, so that
//! others have one less until it has ended.
//!
//! It must not know how that is found out: the engine and the service say who keeps one, and who does not any more.

use super::shelf::Shelf;
use backstop_core::{InstanceId, RunId};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A connection, by the folder of its project and its id: a project that was read again has the same.
pub(crate) type ConnectionKey = (PathBuf, String);

#[derive(Default)]
struct OfConnection {
    /// Each with a number of its own: the same instance may keep one again.
    by: BTreeMap<(RunId, InstanceId), usize>,
    /// How many are in `by`: shared with the shelves, which look at it often.
    count: Arc<AtomicUsize>,
    /// Who has to look again when there are fewer.
    shelves: Vec<Weak<Shelf>>,
}

/// What attempts in doubt keep of the sessions of one process.
#[derive(Default)]
pub(crate) struct Kept {
    connections: Mutex<BTreeMap<ConnectionKey, OfConnection>>,
    /// Over all connections: mostly none, and then nobody has to look.
    total: AtomicUsize,
    /// The last number that was given.
    numbered: AtomicUsize,
}

impl Kept {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<ConnectionKey, OfConnection>> {
        // Every change is made whole before anything can panic.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The count of a connection, for its shelf.
    pub(super) fn count(&self, key: &ConnectionKey) -> Arc<AtomicUsize> {
        self.connections().entry(key.clone()).or_default().count.clone()
    }

    /// Tells a shelf when fewer are kept.
    pub(super) fn tell(&self, key: &ConnectionKey, shelf: &Arc<Shelf>) {
        let mut connections = self.connections();
        let shelves = &mut connections.entry(key.clone()).or_default().shelves;
        shelves.retain(|shelf| shelf.strong_count() > 0);
        shelves.push(Arc::downgrade(shelf));
    }

    /// An instance keeps one; it never keeps two of a connection.
    pub(super) fn keep(&self, key: &ConnectionKey, run: &RunId, instance: &InstanceId) {
        let mut connections = self.connections();
        let of_connection = connections.entry(key.clone()).or_default();
        if let Entry::Vacant(free) = of_connection.by.entry((run.clone(), instance.clone())) {
            free.insert(self.numbered.fetch_add(1, Ordering::Relaxed));
            of_connection.count.fetch_add(1, Ordering::Relaxed);
            self.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of what a run keeps, only what `is_kept` says is kept any more.
    pub(crate) fn keep_only(&self, run: &RunId, is_kept: impl Fn(&InstanceId) -> bool) {
        self.retain(|of, instance, _| of != run || is_kept(instance));
    }

    /// What it was kept for has ended.
    pub(crate) fn has_ended(&self, number: usize) {
        self.retain(|_, _, kept| kept != number);
    }

    fn retain(&self, is_kept: impl Fn(&RunId, &InstanceId, usize) -> bool) {
        if self.total.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut told = Vec::new();
        let mut connections = self.connections();
        for of_connection in connections.values_mut() {
            let before = of_connection.by.len();
            of_connection.by.retain(|(run, instance), number| is_kept(run, instance, *number));
            let fewer = before - of_connection.by.len();
            if fewer > 0 {
                of_connection.count.fetch_sub(fewer, Ordering::Relaxed);
                self.total.fetch_sub(fewer, Ordering::Relaxed);
                told.extend(of_connection.shelves.iter().filter_map(Weak::upgrade));
            }
        }
        drop(connections);
        told.iter().for_each(Shelf::look_again);
    }

    /// Who keeps sessions of a connection.
    pub(crate) fn by(&self, key: &ConnectionKey) -> Vec<(RunId, InstanceId)> {
        if self.total.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let connections = self.connections();
        connections.get(key).into_iter().flat_map(|of_connection| of_connection.by.keys().cloned()).collect()
    }

    /// Who keeps one at all, the number of that, and of which connection.
    pub(crate) fn all(&self) -> Vec<(RunId, InstanceId, usize, ConnectionKey)> {
        if self.total.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let connections = self.connections();
        let all = connections.iter().flat_map(|(key, of_connection)| of_connection.by.iter().map(move |by| (key, by)));
        all.map(|(key, ((run, instance), number))| (run.clone(), instance.clone(), *number, key.clone())).collect()
    }
}
