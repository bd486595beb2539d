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

/// The wall clock, as a service wants it: it follows the machine's clock over months and over suspensions, and never goes back. While the
/// machine's clock is behind the last time that was told, time goes on by the monotonic clock.
#[derive(Debug)]
pub struct WallClock(std::sync::Mutex<Told>);

#[derive(Debug)]
struct Told {
    last: Timestamp,
    at: Instant,
}

impl WallClock {
    /// From now on.
    #[expect(clippy::disallowed_methods, reason = "this reads the clock for a service, as `SystemClock` does for a run")]
    pub fn starting() -> Self {
        Self(std::sync::Mutex::new(Told { last: Timestamp::now(), at: Instant::now() }))
    }

    fn tell(told: &mut Told, wall: Timestamp, at: Instant) -> Timestamp {
        let now = if wall >= told.last {
            wall
        } else {
            let elapsed = jiff::SignedDuration::try_from(at.duration_since(told.at)).unwrap_or(jiff::SignedDuration::ZERO);
            told.last.checked_add(elapsed).unwrap_or(Timestamp::MAX)
        };
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now).max(told.last);
        *told = Told { last: now, at };
        now
    }
}

impl Clock for WallClock {
    #[expect(clippy::disallowed_methods, reason = "this reads the clock for a service, as `SystemClock` does for a run")]
    fn now(&self) -> Timestamp {
        let mut told = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self::tell(&mut told, Timestamp::now(), Instant::now())
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
    fn a_service_follows_the_wall_forwards_and_goes_on_while_it_is_set_back() {
        let second = jiff::SignedDuration::from_secs(1);
        let (start, noon) = (Instant::now(), Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(12));
        let mut told = Told { last: noon, at: start };
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(WallClock::tell(&mut told, noon + second, after(1)), noon + second);
        // Suspended for an hour: the wall says so.
        assert_eq!(WallClock::tell(&mut told, noon + second * 3600, after(2)), noon + second * 3600);
        // Set back by a day: time goes on.
        assert_eq!(WallClock::tell(&mut told, noon - second * 86400, after(5)), noon + second * 3603);
        assert_eq!(WallClock::tell(&mut told, noon + second * 4000, after(6)), noon + second * 4000);
    }

    #[test]
    fn the_past_is_not_waited_for() {
        let hour = jiff::SignedDuration::from_hours(1);
        assert_eq!(until(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH - hour), Duration::ZERO);
        assert_eq!(until(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + hour), Duration::from_secs(3600));
    }
}
