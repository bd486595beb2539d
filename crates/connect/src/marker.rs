//! Markers: rows in the target database that say, in the same transaction, that a segment committed.
//!
//! Protocol (design.md, "Exactly once"): run the segment's statements, insert the marker, commit. After an answer was lost, insert a
//! tombstone under the same key: a unique violation shows the committed marker; success proves that the old transaction can never
//! commit. The key must compare byte by byte in every database.

use crate::error::{Error, ErrorKind};

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
    /// Rows changed by the segment; -1 where the marker was sent before the count was known (a pipelined unit).
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

/// The longest run or task in a key, in characters.
pub const KEY_PART_CHARS_MAX: usize = 250;
/// The longest kind in a key, in characters.
pub const KIND_CHARS_MAX: usize = 100;

impl MarkerKey {
    /// Refuses what some database would cut off or compare loosely: parts that are too long, that end with a space, or that hold a
    /// NUL.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], naming the part.
    pub fn check(&self) -> Result<(), Error> {
        let parts = [
            ("run", &self.run, KEY_PART_CHARS_MAX),
            ("task", &self.task, KEY_PART_CHARS_MAX),
            ("kind", &self.kind, KIND_CHARS_MAX),
        ];
        for (name, text, chars_max) in parts {
            if text.is_empty() || text.chars().count() > chars_max {
                return Err(Error::config(format!("a marker's {name} has 1 to {chars_max} characters: `{text}`")));
            }
            if text.ends_with(' ') || text.contains('\0') {
                return Err(Error::config(format!("a marker's {name} must not end with a space or hold a NUL: `{text}`")));
            }
        }
        Ok(())
    }
}

/// What a marker's row says, whichever database it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The segment committed.
    Committed(MarkerRow),
    /// The attempt was fenced off.
    Tombstone,
}

/// The outcome column of a committed segment.
pub(crate) const OUTCOME_COMMITTED: &str = "committed";
/// The outcome column of a tombstone.
pub(crate) const OUTCOME_TOMBSTONE: &str = "tombstone";

impl Found {
    /// Reads the columns `outcome, digest, rows_affected, result, written_at`.
    pub(crate) fn from_columns(outcome: &str, row: MarkerRow) -> Result<Self, Error> {
        match outcome {
            OUTCOME_COMMITTED => Ok(Self::Committed(row)),
            OUTCOME_TOMBSTONE => Ok(Self::Tombstone),
            other => Err(Error::new(
                ErrorKind::Other,
                "read a marker",
                format!("its outcome is `{other}`, which this version does not know"),
            )),
        }
    }
}
