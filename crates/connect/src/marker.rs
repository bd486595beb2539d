//! Markers: rows in the target database that say, in the same transaction, that a segment committed.
//!
//! Protocol (design.md, "Exactly once"): run the segment's statements, insert the marker, commit. After an answer was lost, insert a
//! tombstone under the same key: a unique violation shows the committed marker; success proves that the old transaction can never
//! commit. The key must compare byte by byte in every database.

/// The marker table's name in a database.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkerTable {
    /// Schema (PostgreSQL) or database (MySQL); `None` is the connection's own.
    pub schema: Option<String>,
    /// `backstop_marker` unless configured.
    pub name: String,
}

impl Default for MarkerTable {
    fn default() -> Self {
        Self { schema: None, name: "backstop_marker".into() }
    }
}

/// The primary key of a marker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkerKey {
    /// The run's id.
    pub run: String,
    /// The task's id; at most 250 characters.
    pub task: String,
    /// The index of a mapped instance, -1 otherwise.
    pub map_index: i32,
    /// From 0 within the task.
    pub segment: i32,
    /// `forward`, `compensation`, or `callback_<occasion>_<place>`.
    pub kind: String,
    /// The try that ran it, from 1.
    pub try_number: i32,
}

/// A marker as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkerRow {
    /// SHA-256 of the statements, hex.
    pub digest: String,
    /// Rows changed by the segment.
    pub rows_affected: i64,
    /// The kept result, JSON.
    pub result: Option<String>,
    /// When it was written, by the database's clock, as text.
    pub written_at: String,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The marker is there: the segment committed.
    Committed(MarkerRow),
    /// The key now holds a tombstone (ours or an older one): the old transaction can never commit.
    Fenced,
    /// The old transaction is still open on the server: the insert waited to its limit.
    StillRunning,
}
