//! Timetables: what follows from a schedule, also on the days when clocks are changed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod clocks;
mod deadlines;
mod plans;
mod random;

use backstop_core::timetable::{Cron, IntervalReading, Schedule, Tick, Timetable};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A time zone of the database that the tests bring.
fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// A point in time, in RFC 3339.
fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A timetable of one cron expression, without start, end and catchup.
fn cron(expression: &str, zone_name: &str) -> Timetable {
    let schedules = vec![Schedule::Cron(Cron::new(expression, zone(zone_name)).unwrap())];
    Timetable { schedules, ..Timetable::default() }
}

fn classic(timetable: Timetable) -> Timetable {
    Timetable { interval: IntervalReading::Classic, ..timetable }
}

/// What a wall clock shows at each tick's `run_after`, and its offset.
fn shown(ticks: impl Iterator<Item = Tick>, zone_name: &str) -> Vec<String> {
    let zone = zone(zone_name);
    ticks.map(|tick| tick.run_after.to_zoned(zone.clone()).strftime("%m-%d %H:%M%:z").to_string()).collect()
}
