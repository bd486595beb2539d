//! Stretches of time in which a zone's clock is neither put forward nor back.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// A stretch of time with one offset from UTC: inside of it, the wall clock and the time line are the same but for a constant.
pub(super) struct Era {
    /// Inclusive; `None` is the beginning of time.
    pub(super) start: Option<EraStart>,
    /// Exclusive; `None` is the end of time.
    pub(super) end: Option<Timestamp>,
    pub(super) offset: Offset,
}

/// The moment when a wall clock is changed.
pub(super) struct EraStart {
    pub(super) time: Timestamp,
    /// What the clock shows from that moment on.
    pub(super) shown: DateTime,
    /// What the clock would have shown without the change. Earlier than `shown`: what lies between never happens (a gap). Later: what lies
    /// between happens twice (a fold).
    pub(super) expected: DateTime,
}

const SECOND: SignedDuration = SignedDuration::from_secs(1);

impl Era {
    /// The era that a time lies in.
    pub(super) fn of(zone: &TimeZone, time: Timestamp) -> Self {
        let offset = zone.to_offset(time);
        // "Preceding" excludes the time itself, at which an era may start.
        let just_after = time.checked_add(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MAX);
        let start = zone.preceding(just_after).next().map(|transition| {
            let time = transition.timestamp();
            let before = zone.to_offset(time.checked_sub(SECOND).unwrap_or(Timestamp::MIN));
            EraStart { time, shown: offset.to_datetime(time), expected: before.to_datetime(time) }
        });
        let end = zone.following(time).next().map(|transition| transition.timestamp());
        Self { start, end, offset }
    }

    /// The era before.
    pub(super) fn before(&self, zone: &TimeZone) -> Option<Self> {
        let start = self.start.as_ref()?;
        Some(Self::of(zone, start.time.checked_sub(SECOND).ok()?))
    }

    /// The era after.
    pub(super) fn after(&self, zone: &TimeZone) -> Option<Self> {
        Some(Self::of(zone, self.end?))
    }

    /// Its last whole second.
    pub(super) fn last_second(&self) -> Timestamp {
        self.end.and_then(|end| end.checked_sub(SECOND).ok()).unwrap_or(Timestamp::MAX)
    }
}
