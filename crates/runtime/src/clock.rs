//! Time, so that tests can fake it.

use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

/// Tells the time and waits for it.
pub trait Clock: Send + Sync {
    /// The time now. Never goes back within one clock.
    fn now(&self) -> Timestamp;

    /// What the machine's clocks say, each as it is. `None` of a clock that does not follow them.
    fn reading(&self) -> Option<Reading> {
        None
    }
}

/// What the machine's clocks say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The time of day: it is set, forwards and back, and goes on while the machine is suspended.
    pub wall: Timestamp,
    /// How much time has passed since some moment: it is never set, and stands still while the machine is suspended.
    pub monotonic: Duration,
}

/// What is more than this is no correction in small steps, of which nobody needs to know.
const JUMP_MIN: SignedDuration = SignedDuration::from_secs(5);

/// Notices from one look to the next that the wall clock has gone on by another time than has passed.
#[derive(Debug, Default)]
pub struct JumpWatch {
    last: Option<Reading>,
}

impl JumpWatch {
    /// How far the wall clock has jumped since the last look: less than zero when it was set back. `None` when it has not.
    pub fn look(&mut self, reading: Reading) -> Option<SignedDuration> {
        let last = self.last.replace(reading)?;
        let passed = SignedDuration::try_from(reading.monotonic.saturating_sub(last.monotonic)).unwrap_or(SignedDuration::MAX);
        let jump = reading.wall.duration_since(last.wall).saturating_sub(passed);
        (jump.abs() >= JUMP_MIN).then_some(jump)
    }
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
        let elapsed = SignedDuration::try_from(self.monotonic.elapsed()).unwrap_or(SignedDuration::MAX);
        let now = self.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        // To the microsecond, as the store keeps it: what is replayed must equal what was decided.
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }
}

/// The wall clock, as a service wants it: it follows the machine's clock over months and over suspensions, and never goes back. While the
/// machine's clock is behind the last time that was told, time goes on by the monotonic clock at half its pace, until the machine's has
/// caught up: waits still end, and a clock that was wrong does not stay so.
#[derive(Debug)]
pub struct WallClock {
    told: std::sync::Mutex<Told>,
    began: Instant,
}

#[derive(Debug)]
struct Told {
    last: Timestamp,
    at: Instant,
}

impl WallClock {
    /// From now on.
    #[expect(clippy::disallowed_methods, reason = "this reads the clock for a service, as `SystemClock` does for a run")]
    pub fn starting() -> Self {
        let began = Instant::now();
        Self { told: std::sync::Mutex::new(Told { last: Timestamp::now(), at: began }), began }
    }

    fn tell(told: &mut Told, wall: Timestamp, at: Instant) -> Timestamp {
        let now = if wall >= told.last {
            wall
        } else {
            let elapsed = SignedDuration::try_from(at.duration_since(told.at) / 2).unwrap_or(SignedDuration::ZERO);
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
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self::tell(&mut told, Timestamp::now(), Instant::now())
    }

    #[expect(clippy::disallowed_methods, reason = "this reads the clock for a service, as `SystemClock` does for a run")]
    fn reading(&self) -> Option<Reading> {
        Some(Reading { wall: Timestamp::now(), monotonic: self.began.elapsed() })
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
        let last_event = Timestamp::MAX - SignedDuration::from_hours(1);
        let clock = SystemClock::starting(Some(last_event));
        let first = clock.now();
        assert!(first >= Timestamp::from_microsecond(last_event.as_microsecond()).unwrap());
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_service_follows_the_wall_forwards_and_goes_on_while_it_is_set_back() {
        let second = SignedDuration::from_secs(1);
        let (start, noon) = (Instant::now(), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(12));
        let mut told = Told { last: noon, at: start };
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(WallClock::tell(&mut told, noon + second, after(1)), noon + second);
        // Suspended for an hour: the wall says so.
        assert_eq!(WallClock::tell(&mut told, noon + second * 3600, after(2)), noon + second * 3600);
        // Set back by a day: time goes on, and lets the wall come near.
        assert_eq!(WallClock::tell(&mut told, noon - second * 86400, after(6)), noon + second * 3602);
        assert_eq!(WallClock::tell(&mut told, noon + second * 4000, after(7)), noon + second * 4000);
    }

    #[test]
    fn a_jump_is_told_once_with_how_far_and_drifting_is_none() {
        let second = SignedDuration::from_secs(1);
        let mut watch = JumpWatch::default();
        let mut look = |wall: i32, monotonic| {
            let reading = Reading { wall: Timestamp::UNIX_EPOCH + second * wall, monotonic: Duration::from_secs(monotonic) };
            watch.look(reading).map(|jump| jump.as_secs())
        };
        assert_eq!(look(1_000_000, 50), None, "there is nothing to compare with");
        assert_eq!(look(1_000_002, 52), None);
        assert_eq!(look(1_000_008, 54), None, "4 seconds");
        assert_eq!(look(1_003_610, 56), Some(3600), "suspended, or set");
        assert_eq!(look(1_003_612, 58), None, "told once");
        assert_eq!(look(1_000_014, 60), Some(-3600));
        assert_eq!(look(1_000_016, 62), None);
    }

    #[test]
    fn the_past_is_not_waited_for() {
        let hour = SignedDuration::from_hours(1);
        assert_eq!(until(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH - hour), Duration::ZERO);
        assert_eq!(until(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + hour), Duration::from_secs(3600));
    }
}
