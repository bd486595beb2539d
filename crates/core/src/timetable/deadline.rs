//! What must be done by when, and whether it will be.

use super::era::Era;
use jiff::civil::{DateTime, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// A run is to be done by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// By a time of day: the first one after the run was to begin. A run of 22:00 that must be done by 06:00 has until the next morning.
    By {
        /// What the clock shows.
        at: Time,
        /// Whose clock.
        zone: TimeZone,
    },
    /// Within a span of time.
    Within {
        /// How long.
        span: Duration,
        /// From when on.
        of: Reference,
    },
}

/// From when on a span is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reference {
    /// The run's logical date. A run without one has no such deadline.
    LogicalDate,
    /// When the run was created, even if it had to wait for others then.
    QueuedAt,
    /// When its first task could start.
    #[default]
    StartedAt,
}

/// What is known of a run's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// When it was to begin: the tick's `run_after`, or when somebody asked for it.
    pub planned_at: Timestamp,
    /// What it is about.
    pub logical_date: Option<Timestamp>,
    /// When it was created.
    pub queued_at: Timestamp,
    /// When it began; `None` while it waits.
    pub started_at: Option<Timestamp>,
}

impl Deadline {
    /// When the run must be done. `None` while that is not known: the run has not begun, or has no logical date.
    pub fn due_at(&self, moments: &Moments) -> Option<Timestamp> {
        match self {
            Self::By { at, zone } => first_time_of_day(*at, zone, moments.planned_at),
            Self::Within { span, of } => {
                let from = match of {
                    Reference::LogicalDate => moments.logical_date?,
                    Reference::QueuedAt => moments.queued_at,
                    Reference::StartedAt => moments.started_at?,
                };
                // A deadline behind the end of time is none.
                from.checked_add(SignedDuration::try_from(*span).ok()?).ok()
            }
        }
    }
}

/// The first instant after another at which a clock shows a time of day. As with cron: over a gap, the gap's end; of a fold, the first.
fn first_time_of_day(at: Time, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    // The day itself, the next one, and one more for a zone that leaves out a day.
    const DAYS_TRIED: usize = 3;
    let mut date = zone.to_datetime(after).date();
    for _ in 0..DAYS_TRIED {
        if let Some(instant) = instant(date.to_datetime(at), zone).filter(|instant| *instant > after) {
            return Some(instant);
        }
        date = date.tomorrow().ok()?;
    }
    None
}

/// When a clock shows this.
fn instant(shown: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        // Read with the offset after the change it lies before the change: the change is what comes next.
        AmbiguousOffset::Gap { .. } => Era::of(zone, ambiguous.earlier().ok()?).end,
    }
}

/// How long runs of a DAG, or tries of a task, took. Of successful ones: a failure says little about how long the work takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastDurations {
    /// How many were measured.
    pub measured: usize,
    /// Half took no longer.
    pub p50: Duration,
    /// 19 of 20 took no longer.
    pub p95: Duration,
}

impl PastDurations {
    /// Fewer than these are no experience.
    pub const MEASURED_MIN: usize = 3;

    /// Of measured durations, in any order. `None` where there are too few.
    pub fn of(durations: &mut [Duration]) -> Option<Self> {
        if durations.len() < Self::MEASURED_MIN {
            return None;
        }
        durations.sort_unstable();
        // The nearest rank: a value that was really measured.
        let rank = |percent: usize| durations[(durations.len() * percent).div_ceil(100) - 1];
        Some(Self { measured: durations.len(), p50: rank(50), p95: rank(95) })
    }
}

/// What becomes of a deadline, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It has passed.
    Missed,
    /// At the usual speed the run is done only later.
    Likely {
        /// When, at the usual speed.
        done_at: Timestamp,
    },
    /// At the usual speed it is done in time; if it is one of the slow runs, it is not.
    Possible {
        /// When, if it is slow.
        done_at: Timestamp,
    },
}

/// Whether a run that is not done will miss its deadline, as far as its past tells. `begins_at` is when it began, or when it is expected to; a run that
/// waits begins now at the earliest. A run that already takes longer than others did is expected to end any moment: that it has not is told by
/// other means than the deadline's, until the deadline has passed.
pub fn outlook(now: Timestamp, begins_at: Timestamp, past: Option<&PastDurations>, due_at: Timestamp) -> Option<Outlook> {
    if now >= due_at {
        return Some(Outlook::Missed);
    }
    let past = past?;
    let done_at = |lasts: Duration| {
        let lasts = SignedDuration::try_from(lasts).unwrap_or(SignedDuration::MAX);
        begins_at.checked_add(lasts).unwrap_or(Timestamp::MAX).max(now)
    };
    let (usual, slow) = (done_at(past.p50), done_at(past.p95));
    if usual > due_at {
        Some(Outlook::Likely { done_at: usual })
    } else if slow > due_at {
        Some(Outlook::Possible { done_at: slow })
    } else {
        None
    }
}
