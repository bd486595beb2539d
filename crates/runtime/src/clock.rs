//! Time, so that tests can fake it.

use jiff::Timestamp;
use std::time::{Duration, Instant};

/// Tells the time and waits for it.
pub trait Clock: Send + Sync {
    /// The time now. Never goes back within one clock.
    fn now(&self) -> Timestamp;
}

/// The wall clock as it was at the start, carried on by the monotonic clock: when the machine's clock jumps, waits and the order of
/// events do not.
#[derive(Debug)]
pub struct SystemClock {
    wall: Timestamp,
    monotonic: Instant,
}

impl SystemClock {
    /// Reads the wall clock, once. `not_before` is the time of the last event known, for a clock that was set back between two
    /// processes of one run.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn starting(not_before: Option<Timestamp>) -> Self {
        let wall = Timestamp::now();
        Self { wall: not_before.map_or(wall, |earliest| wall.max(earliest)), monotonic: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.monotonic.elapsed()).unwrap_or(jiff::SignedDuration::MAX);
        let now = self.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        // To the microsecond, as the store keeps it: what is replayed must equal what was decided.
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// How long from one time to another; zero when it is past.
pub(crate) fn until(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_the_last_event() {
        let last_event = Timestamp::MAX - jiff::SignedDuration::from_hours(1);
        let clock = SystemClock::starting(Some(last_event));
        let first = clock.now();
        assert!(first >= Timestamp::from_microsecond(last_event.as_microsecond()).unwrap());
        assert!(clock.now() >= first);
    }

    #[test]
    fn the_past_is_not_waited_for() {
        let hour = jiff::SignedDuration::from_hours(1);
        assert_eq!(until(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH - hour), Duration::ZERO);
        assert_eq!(until(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + hour), Duration::from_secs(3600));
    }
}
