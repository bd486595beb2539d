//! The places of a connection: as many attempts at once as it may have sessions. Whoever has none begins nothing, and so keeps nobody from
//! anything while sessions are scarce.
//!
//! It must not know the sessions themselves: who asks them for something else than an attempt needs no place here.

use crate::sessions::ConnectionKey;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One connection, over all versions of its project.
#[derive(Debug)]
pub(super) struct Places {
    key: ConnectionKey,
    /// Changed and read under the lock of the slots.
    used: AtomicU32,
}

impl PartialEq for Places {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Places {}

impl Places {
    /// The connection's id.
    pub(super) fn name(&self) -> &str {
        &self.key.1
    }
}

/// One place of a connection, as an attempt wants or has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPlace {
    pub(super) of: Arc<Places>,
    /// How many there may be, in the version of the project that wants it.
    max: u32,
}

impl SessionPlace {
    pub(super) fn take(&self) {
        self.of.used.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn free(&self) {
        self.of.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many are taken, and how many there are, where none is left.
    pub(super) fn missing(&self) -> Option<(u32, u32)> {
        let used = self.of.used.load(Ordering::Relaxed);
        (used >= self.max).then_some((used, self.max))
    }
}

/// Every connection that was used so far: as many as projects have.
#[derive(Default)]
pub(super) struct Connections(BTreeMap<ConnectionKey, Arc<Places>>);

impl Connections {
    pub(super) fn place(&mut self, (key, max): (ConnectionKey, u32)) -> SessionPlace {
        let new = |key: &ConnectionKey| Arc::new(Places { key: key.clone(), used: AtomicU32::new(0) });
        let of = match self.0.get(&key) {
            Some(of) => of.clone(),
            None => self.0.entry(key.clone()).or_insert_with(|| new(&key)).clone(),
        };
        SessionPlace { of, max: max.max(1) }
    }
}
