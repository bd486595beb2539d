//! Intervals: elapsed time, whatever wall clocks do.

use jiff::Timestamp;
use std::time::Duration;

/// The shortest span. A DAG that ran more often than this would wait for nothing else.
pub const SPAN_MIN: Duration = Duration::from_secs(1);

/// Times at equal distances, before and after an anchor.
///
/// The anchor is fixed, so that a restart does not move the times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    span: Duration,
    anchor: Timestamp,
}

impl Every {
    /// Times at `anchor`, and at every whole multiple of `span` from it. A span below [`SPAN_MIN`] counts as that.
    pub fn new(span: Duration, anchor: Timestamp) -> Self {
        Self { span: span.max(SPAN_MIN), anchor }
    }

    /// The distance.
    pub fn span(&self) -> Duration {
        self.span
    }

    /// One of the times.
    pub fn anchor(&self) -> Timestamp {
        self.anchor
    }

    /// The first time after another.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.time(self.steps_until(time).checked_add(1)?)
    }

    /// The last time that is not after another.
    pub fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        self.time(self.steps_until(time))
    }

    fn span_nanoseconds(&self) -> i128 {
        i128::try_from(self.span.as_nanos()).unwrap_or(i128::MAX)
    }

    /// How many spans, rounded down, lie between the anchor and a time.
    fn steps_until(&self, time: Timestamp) -> i128 {
        (time.as_nanosecond() - self.anchor.as_nanosecond()).div_euclid(self.span_nanoseconds())
    }

    fn time(&self, steps: i128) -> Option<Timestamp> {
        let nanoseconds = steps.checked_mul(self.span_nanoseconds())?.checked_add(self.anchor.as_nanosecond())?;
        Timestamp::from_nanosecond(nanoseconds).ok()
    }
}
