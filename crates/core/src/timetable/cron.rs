//! Cron: times of a wall clock, and what becomes of them when the clock is put forward or back.
//!
//! A schedule that names its hours (`30 2 * * *`, `0 8-18 * * *`) means times of day. Each happens once a day: where the clock is put forward over
//! it, at the first instant after the gap; where the clock is put back and shows it twice, the first time alone. Times that fall on one instant in
//! this way are one. So a nightly job is neither lost nor run twice on the two days a year when people look for it.
//!
//! A schedule of every hour, or every n-th (`*/15 * * * *`, `0 */2 * * *`), means a rhythm. It follows the clock as it is: what a gap leaves out is
//! left out, what a fold repeats is repeated.
//!
//! Vixie cron draws the same line, but takes a `*` among the minutes for a rhythm, too (`*/5 2 * * *` does not run at all on the day without 2
//! o'clock). croner, which reads the fields and walks the calendar for us, draws it elsewhere (a list of hours is a
//! rhythm to it) and gives up over gaps longer than two hours, as when Samoa left out a day. So it is asked about calendars without clock changes
//! alone, and the changes are dealt with here.

use super::era::{Era, EraStart};
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// croner's calendar ends with the year 5000, in any zone before this: the 2nd of January 5001. What is later is not searched change by change,
/// as `9999-12-31` is a common way to say that there is no end.
const LAST_TIME: Timestamp = Timestamp::constant(95_649_206_400, 0);

/// A cron expression in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    expression: Arc<str>,
    /// Behind a pointer, as it is large and never changes.
    fields: Arc<croner::Cron>,
    zone: TimeZone,
    is_rhythm: bool,
}

/// What it fires by is in its text.
impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.zone == other.zone
    }
}

impl Eq for Cron {}

/// A text is no cron expression that a timetable can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCron {
    /// Its fields cannot be read.
    #[error("`{expression}` is not a cron schedule: {why}")]
    Unreadable {
        /// The text.
        expression: String,
        /// Which field, and why.
        why: String,
    },
    /// No calendar has such a day.
    #[error("`{expression}` never falls due")]
    Never {
        /// The text.
        expression: String,
    },
}

impl Cron {
    /// Reads an expression: minute, hour, day of month, month, day of week; or six fields, seconds first. Besides lists, ranges, steps and names:
    /// `L` (last day, or last weekday of the month), `W` (nearest weekday), `#` (n-th weekday).
    ///
    /// # Errors
    /// When it cannot be read, or no day of the calendar fits.
    pub fn new(expression: &str, zone: TimeZone) -> Result<Self, BadCron> {
        let expression = expression.trim();
        let count = expression.split_whitespace().count();
        if !(5..=6).contains(&count) {
            let why = format!("it has {count} fields, not 5, or 6 with seconds first");
            return Err(BadCron::Unreadable { expression: expression.to_owned(), why });
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let fields = parser.parse(expression).map_err(|error| BadCron::Unreadable {
            expression: expression.to_owned(),
            why: error.to_string().trim_end_matches('.').to_owned(),
        })?;
        // The search begins at a fixed time, so that a text is judged the same on every day, and ends after several turns of the calendar, which
        // repeats itself every 400 years.
        let first = fields.find_next_occurrence(&jiff::civil::date(2000, 1, 1).to_datetime(jiff::civil::Time::midnight()), true);
        if matches!(first, Err(CronError::TimeSearchLimitExceeded)) {
            return Err(BadCron::Never { expression: expression.to_owned() });
        }
        let hours = &fields.pattern.hours;
        let is_rhythm = hours.from_wildcard || (0..24).all(|hour| fields.pattern.hour_match(hour).unwrap_or(false));
        Ok(Self { expression: expression.into(), fields: Arc::new(fields), zone, is_rhythm })
    }

    /// The text.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Whose wall clock it reads.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first time after another.
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let mut era = Era::of(&self.zone, time);
        let mut found = self.first_after(era.offset.to_datetime(time));
        if let (Some(first), Some(start)) = (found, &era.start)
            && first < self.from(start)
        {
            found = self.first_from(self.from(start));
        }
        loop {
            let time = found.and_then(|found| era.offset.to_timestamp(found).ok())?;
            if era.end.is_none_or(|end| time < end) {
                return Some(time);
            }
            era = era.after(&self.zone)?;
            let start = era.start.as_ref()?;
            if self.falls_in_gap(start) {
                return Some(start.time);
            }
            found = self.first_from(self.from(start));
        }
    }

    /// The last time that is not after another.
    pub fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        let mut until = time.min(LAST_TIME);
        let mut era = Era::of(&self.zone, until);
        loop {
            let last = self.fields.find_previous_occurrence(&era.offset.to_datetime(until), true).ok();
            let Some(start) = &era.start else {
                return last.and_then(|last| era.offset.to_timestamp(last).ok());
            };
            if let Some(last) = last.filter(|last| *last >= self.from(start)) {
                return era.offset.to_timestamp(last).ok();
            }
            if self.falls_in_gap(start) {
                return Some(start.time);
            }
            era = era.before(&self.zone)?;
            until = era.last_second();
        }
    }

    fn first_after(&self, shown: DateTime) -> Option<DateTime> {
        self.fields.find_next_occurrence(&shown, false).ok()
    }

    fn first_from(&self, shown: DateTime) -> Option<DateTime> {
        self.fields.find_next_occurrence(&shown, true).ok()
    }

    /// From which wall clock time on an era counts: times of day that the era before has shown are done.
    fn from(&self, start: &EraStart) -> DateTime {
        if self.is_rhythm { start.shown } else { start.shown.max(start.expected) }
    }

    /// Whether a time of day is among those that the clock was put forward over.
    fn falls_in_gap(&self, start: &EraStart) -> bool {
        let is_gap = start.expected < start.shown;
        !self.is_rhythm && is_gap && self.first_from(start.expected).is_some_and(|first| first < start.shown)
    }
}
