//! What goes into the log and comes out of it.

use crate::AppendError;
use backstop_core::{Event, RunId};
use jiff::Timestamp;
use tokio::sync::oneshot;

/// An event with its place and time in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// From 1 within the run, without gaps.
    pub seq: u64,
    /// When it was decided, by the runtime's clock, in whole microseconds.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// A batch of events for one run.
#[derive(Clone, Debug)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// How many events the run must have; 0 creates it (the first event must be `RunCreated`).
    pub expected_version: u64,
    /// The caller's epoch; refused when a newer one owns the run. The append that creates the run sets it.
    pub epoch: u64,
    /// When they were decided. Kept to the microsecond; what is finer is cut off.
    pub at: Timestamp,
    /// Not empty.
    pub events: Vec<Event>,
}

/// Resolves when the append is durable (fsync done), or not done. The caller need not wait; order is kept.
pub type Durable = oneshot::Receiver<Result<(), AppendError>>;

/// Cuts a time to what the log keeps, so that all stores give the same back.
pub(crate) fn to_microsecond(at: Timestamp) -> Timestamp {
    from_microsecond(at.as_microsecond())
}

/// The reverse of [`Timestamp::as_microsecond`], saturating: a damaged number must not take the reader down.
pub(crate) fn from_microsecond(microseconds: i64) -> Timestamp {
    Timestamp::from_microsecond(microseconds).unwrap_or(if microseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
