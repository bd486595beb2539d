//! Small things that a service keeps beside runs, and who changed them.

use jiff::Timestamp;

/// Something small, found by its kind and key: whether a DAG is paused, the size of a pool, a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is; chosen by whoever keeps it.
    pub kind: String,
    /// Which of its kind.
    pub key: String,
    /// JSON, opaque here; `None` removes the entry.
    pub body: Option<String>,
}

/// What somebody did to other things than one run. (Acts upon a run are in its log.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When.
    pub at: Timestamp,
    /// Who, as the operating system or the API knows them.
    pub who: String,
    /// Why, in their words; may be empty.
    pub why: String,
    /// What they did, in a sentence.
    pub what: String,
}

/// An act with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActRow {
    /// Grows.
    pub seq: u64,
    /// What was done.
    pub act: Act,
}

/// Acts that one read gives at most.
pub const ACTS_MAX: u32 = 1000;
