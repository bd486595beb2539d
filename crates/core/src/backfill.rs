//! A backfill: one run for each tick of a timetable in a range of logical dates. What comes next, and what becomes of a date that has a
//! run, are pure functions: whoever asks again after a crash gets the same answers.
//!
//! Nothing here holds the ticks of a range: the next one follows from the last one alone, so that a million cost as much as one.

use crate::state::RunPhase;
use crate::timetable::{Tick, Timetable};
use jiff::{SignedDuration, Timestamp};
use std::fmt;

/// The ticks that a backfill may have. With more, the range is a mistake, or several backfills.
pub const TICKS_MAX: usize = 1_000_000;
/// Runs of a backfill at once, where nothing is said; as in Airflow.
pub const RUNS_AT_ONCE: u32 = 10;
/// Runs of a backfill at once, at most.
pub const RUNS_AT_ONCE_MAX: u32 = 100;

/// What becomes of a date that has a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reprocess {
    /// It is left as it is.
    #[default]
    None,
    /// It gets another run if its last one failed.
    Failed,
    /// It gets another run if its last one is over, however it ended.
    Completed,
}

impl Reprocess {
    /// All, in the order of how much they do again.
    pub const ALL: [Self; 3] = [Self::None, Self::Failed, Self::Completed];

    /// In a word, as Airflow says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Failed => "failed",
            Self::Completed => "completed",
        }
    }

    /// By its word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reprocess| reprocess.as_str() == word)
    }

    /// What becomes of a date whose newest run is in this phase; `None`: the date has no run.
    pub fn of(self, newest: Option<RunPhase>) -> Verdict {
        let Some(phase) = newest else { return Verdict::Run };
        let again = |does_so: bool| if does_so { Verdict::RunAgain(phase) } else { Verdict::Leave(phase) };
        match phase {
            // A second run beside one that is not over would be a second effect.
            RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck => Verdict::Leave(phase),
            RunPhase::Failed | RunPhase::Cancelled => again(self != Self::None),
            RunPhase::Succeeded => again(self == Self::Completed),
        }
    }
}

/// What becomes of one date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no run, and gets one.
    Run,
    /// It has a run, which ended so, and gets another.
    RunAgain(RunPhase),
    /// It has a run, which stands so, and gets no other.
    Leave(RunPhase),
}

impl Verdict {
    /// Whether a run is made.
    pub fn makes_run(self) -> bool {
        match self {
            Self::Run | Self::RunAgain(_) => true,
            Self::Leave(_) => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run => f.write_str("runs"),
            Self::RunAgain(phase) => write!(f, "runs again: its run is {}", phase.as_str()),
            Self::Leave(phase) => write!(f, "is left: its run is {}", phase.as_str()),
        }
    }
}

/// Which dates, and in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first logical date.
    pub from: Timestamp,
    /// The last logical date, inclusive.
    pub to: Timestamp,
    /// The latest first.
    pub reverse: bool,
}

/// Why there is nothing to fill.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfillable {
    /// The range has no beginning.
    #[error("the range ends ({to}) before it begins ({from})")]
    EndsFirst {
        /// Its first date.
        from: Timestamp,
        /// Its last.
        to: Timestamp,
    },
    /// The DAG does not recur.
    #[error("its schedule has no times: nothing says which dates there are")]
    NoTicks,
    /// The timetable leaves the whole range out.
    #[error("no time of its schedule is between {from} and {to}")]
    Empty {
        /// Its first date.
        from: Timestamp,
        /// Its last.
        to: Timestamp,
    },
    /// Too many.
    #[error("the range has more than {TICKS_MAX} times of the schedule")]
    TooMany,
}

impl Span {
    /// The next tick after a date of this backfill; `None` as the date asks for the first.
    pub fn next(&self, timetable: &Timetable, after: Option<Timestamp>) -> Option<Tick> {
        let nanosecond = SignedDuration::from_nanos(1);
        let (mut from, mut to) = (self.from, self.to);
        match after {
            Some(date) if self.reverse => to = to.min(date.checked_sub(nanosecond).ok()?),
            Some(date) => from = from.max(date.checked_add(nanosecond).ok()?),
            None => {}
        }
        let mut range = timetable.range(from, to);
        if self.reverse { range.next_back() } else { range.next() }
    }

    /// How many ticks there are, in time that grows with their number.
    ///
    /// # Errors
    /// When there are none, or more than [`TICKS_MAX`].
    pub fn count(&self, timetable: &Timetable) -> Result<usize, Unfillable> {
        let (from, to) = (self.from, self.to);
        if to < from {
            return Err(Unfillable::EndsFirst { from, to });
        }
        if !timetable.recurs() {
            return Err(Unfillable::NoTicks);
        }
        match timetable.range(from, to).take(TICKS_MAX + 1).count() {
            0 => Err(Unfillable::Empty { from, to }),
            count if count > TICKS_MAX => Err(Unfillable::TooMany),
            count => Ok(count),
        }
    }

    /// Whether a date may be in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timetable::{Every, Schedule};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hourly() -> Timetable {
        let start = at("2025-05-01T00:00:00Z");
        let every = Every::new(std::time::Duration::from_secs(3600), start);
        Timetable { schedules: vec![Schedule::Every(every)], start: Some(start), ..Timetable::default() }
    }

    fn walk(span: &Span, timetable: &Timetable) -> Vec<String> {
        let mut after = None;
        let mut dates = Vec::new();
        while let Some(tick) = span.next(timetable, after) {
            after = Some(tick.logical_date);
            dates.push(tick.logical_date.to_string());
        }
        dates
    }

    #[test]
    fn one_step_after_the_other_gives_every_tick_once_from_either_side() {
        let span = Span { from: at("2025-05-01T01:30:00Z"), to: at("2025-05-01T04:00:00Z"), reverse: false };
        let mut forward = walk(&span, &hourly());
        assert_eq!(forward, ["2025-05-01T02:00:00Z", "2025-05-01T03:00:00Z", "2025-05-01T04:00:00Z"]);
        forward.reverse();
        assert_eq!(walk(&Span { reverse: true, ..span }, &hourly()), forward);
        assert_eq!(span.count(&hourly()), Ok(3));
    }

    #[test]
    fn a_range_that_cannot_be_filled_says_why() {
        let span = |from, to| Span { from: at(from), to: at(to), reverse: false };
        let told = |span: Span, timetable: &Timetable| span.count(timetable).unwrap_err().to_string();
        let (may, june) = ("2025-05-01T00:00:00Z", "2025-06-01T00:00:00Z");
        assert_eq!(told(span(june, may), &hourly()), format!("the range ends ({may}) before it begins ({june})"));
        assert_eq!(told(span(may, june), &Timetable::default()), Unfillable::NoTicks.to_string());
        let before = span("2020-01-01T00:00:00Z", "2020-06-01T00:00:00Z");
        assert!(matches!(before.count(&hourly()), Err(Unfillable::Empty { .. })));
        assert_eq!(span(may, "2225-05-01T00:00:00Z").count(&hourly()), Err(Unfillable::TooMany));
        assert!(span(may, june).overlaps(&span(june, june)) && !span(may, may).overlaps(&span(june, june)));
    }

    #[test]
    fn every_phase_has_its_verdict() {
        let table = RunPhase::ALL.map(|phase| {
            let words = Reprocess::ALL.map(|reprocess| if reprocess.of(Some(phase)).makes_run() { "again" } else { "left" });
            format!("{}: {}", phase.as_str(), words.join(" "))
        });
        let expected = [
            "queued: left left left",
            "running: left left left",
            "cancelling: left left left",
            "stuck: left left left",
            "success: left left again",
            "failed: left again again",
            "cancelled: left again again",
        ];
        let mut table = table.to_vec();
        table.sort();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(table, expected);
        assert!(Reprocess::ALL.iter().all(|reprocess| reprocess.of(None) == Verdict::Run));
        assert!(Reprocess::ALL.iter().all(|reprocess| Reprocess::parse(reprocess.as_str()) == Some(*reprocess)));
    }
}
