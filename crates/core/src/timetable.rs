//! When a DAG runs: schedules, the ticks that follow from them, and deadlines.
//!
//! Everything here is a pure function of its arguments. No clock is read: `now` comes in; no time zone is looked up: a
//! [`TimeZone`](jiff::tz::TimeZone) comes in with the schedule. The same timetable and the same arguments give the same ticks on every machine and after
//! every restart, so that the only thing a scheduler keeps of a DAG is the `run_after` of the last tick that it planned.
//!
//! Where to go next: [`cron`] for wall clocks and what becomes of them when they are changed, [`every`] for intervals, [`assets`] for runs after data,
//! `plan` for [`Timetable::next`] and catching up, [`deadline`] for what must be done by when.

pub mod assets;
pub mod cron;
pub mod deadline;
mod era;
pub mod every;
mod plan;

pub use assets::AssetExpr;
pub use cron::{BadCron, Cron};
pub use deadline::{Deadline, Moments, Outlook, PastDurations, Reference};
pub use every::Every;
pub use plan::Range;

use jiff::Timestamp;

/// One reason for a DAG to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At times of a wall clock.
    Cron(Cron),
    /// At equal distances.
    Every(Every),
    /// Once: at the timetable's start, or as soon as the DAG is there.
    Once,
    /// When assets were updated. It has no ticks: the one who records updates asks [`Timetable::assets`].
    Assets(AssetExpr),
}

impl Schedule {
    /// The first time after another. A schedule that does not recur has none.
    pub(crate) fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.next_after(time),
            Self::Every(every) => every.next_after(time),
            Self::Once | Self::Assets(_) => None,
        }
    }

    /// The last time that is not after another.
    pub(crate) fn last_until(&self, time: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Cron(cron) => cron.last_until(time),
            Self::Every(every) => every.last_until(time),
            Self::Once | Self::Assets(_) => None,
        }
    }
}

/// What data a tick stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IntervalReading {
    /// The tick is the logical date, and the data interval has no length (the default of Airflow 3).
    #[default]
    Tick,
    /// The data interval reaches from the tick before to the tick. It begins at the logical date, and the run is at its end (Airflow 2).
    Classic,
}

/// When a DAG runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timetable {
    /// Any of them lets the DAG run. At one instant there is one tick, even where several fall due.
    pub schedules: Vec<Schedule>,
    /// No logical date before it.
    pub start: Option<Timestamp>,
    /// No logical date after it.
    pub end: Option<Timestamp>,
    /// True: every missed tick is made up for, in order. False: only the latest is.
    pub catchup: bool,
    /// What data a tick stands for.
    pub interval: IntervalReading,
}

/// A run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Not before this time. Strictly later from tick to tick: it is what a scheduler remembers.
    pub run_after: Timestamp,
    /// What the run is about.
    pub logical_date: Timestamp,
    /// Its data, from and to (exclusive).
    pub data_interval: (Timestamp, Timestamp),
    /// Which of the timetable's schedules fell due; the first where there are several.
    pub schedule: usize,
}

impl Timetable {
    /// True when it has times that come again and again.
    pub fn recurs(&self) -> bool {
        self.schedules.iter().any(|schedule| matches!(schedule, Schedule::Cron(_) | Schedule::Every(_)))
    }

    /// The schedules by assets, by their place in [`Timetable::schedules`].
    pub fn assets(&self) -> impl Iterator<Item = (usize, &AssetExpr)> {
        self.schedules.iter().enumerate().filter_map(|(at, schedule)| match schedule {
            Schedule::Assets(expression) => Some((at, expression)),
            Schedule::Cron(_) | Schedule::Every(_) | Schedule::Once => None,
        })
    }
}
