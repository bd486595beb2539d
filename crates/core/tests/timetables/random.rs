//! Random timetables in several zones, against a naive reading that looks at every minute.
//!
//! `BACKSTOP_SEEDS=100000` for a longer run, `BACKSTOP_SEED=n` for one seed.

use super::{at, zone};
use backstop_core::timetable::{Cron, Every, IntervalReading, Schedule, Tick, Timetable};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use rand::prelude::*;
use std::collections::BTreeSet;
use std::time::Duration;

/// Seeds of one test run: a few seconds.
const SEEDS: u64 = 300;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// A zone, and a time near which its clock is changed.
const CHANGES: &[(&str, &str)] = &[
    ("Europe/Paris", "2025-03-30T01:00:00Z"),
    ("Europe/Paris", "2025-10-26T01:00:00Z"),
    ("America/New_York", "2025-03-09T07:00:00Z"),
    ("America/New_York", "2025-11-02T06:00:00Z"),
    ("Australia/Lord_Howe", "2025-10-04T15:30:00Z"),
    ("Australia/Lord_Howe", "2025-04-05T15:00:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("Asia/Pyongyang", "2015-08-14T15:00:00Z"),
    ("Africa/Casablanca", "2025-02-23T02:00:00Z"),
    ("Antarctica/Troll", "2025-03-30T01:00:00Z"),
    ("Antarctica/Troll", "2025-10-26T01:00:00Z"),
    ("Asia/Kolkata", "2025-06-01T00:00:00Z"),
    ("UTC", "2025-06-01T00:00:00Z"),
];

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    match number("BACKSTOP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BACKSTOP_SEEDS").unwrap_or(SEEDS),
    }
}

fn each_seed(name: &str, mut drive: impl FnMut(&mut StdRng)) {
    for seed in seeds() {
        let driven = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drive(&mut StdRng::seed_from_u64(seed))));
        if let Err(panic) = driven {
            let message = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
            panic!("{name}: BACKSTOP_SEED={seed}: {message}");
        }
    }
}

/// A field of a cron expression, and the values it has.
fn field(rng: &mut StdRng, least: i8, most: i8) -> (String, BTreeSet<i8>) {
    let one = |rng: &mut StdRng| rng.random_range(least..=most);
    match rng.random_range(0..5) {
        0 => ("*".to_owned(), (least..=most).collect()),
        1 => {
            let step = rng.random_range(1..=(most - least) / 2);
            (format!("*/{step}"), (least..=most).step_by(step as usize).collect())
        }
        2 => {
            let (a, b) = (one(rng), one(rng));
            let (a, b) = (a.min(b), a.max(b));
            (format!("{a}-{b}"), (a..=b).collect())
        }
        3 => {
            let (a, b) = (one(rng), one(rng));
            (format!("{a},{b}"), BTreeSet::from([a, b]))
        }
        _ => {
            let value = one(rng);
            (value.to_string(), BTreeSet::from([value]))
        }
    }
}

/// A cron expression of minutes, hours and weekdays.
struct Naive {
    expression: String,
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    weekdays: BTreeSet<i8>,
    is_rhythm: bool,
}

impl Naive {
    fn random(rng: &mut StdRng) -> Self {
        let (minute, minutes) = field(rng, 0, 59);
        // Near the small hours, where clocks are changed.
        let late = if rng.random_bool(0.7) { 4 } else { 23 };
        let (hour, hours) = match field(rng, 0, late) {
            (text, _) if text == "*" => (text, (0..24).collect()),
            (text, _) if text.starts_with('*') => {
                let step: usize = text[2..].parse().unwrap();
                (text, (0..24).step_by(step).collect())
            }
            other => other,
        };
        let (weekday, weekdays) = if rng.random_bool(0.8) { ("*".to_owned(), (0..7).collect()) } else { field(rng, 0, 6) };
        let is_rhythm = hour.starts_with('*') || hours.len() == 24;
        Self { expression: format!("{minute} {hour} * * {weekday}"), minutes, hours, weekdays, is_rhythm }
    }

    fn fits(&self, shown: DateTime) -> bool {
        self.minutes.contains(&shown.minute())
            && self.hours.contains(&shown.hour())
            && self.weekdays.contains(&shown.weekday().to_sunday_zero_offset())
    }

    /// All times from one to another, both inclusive, minute by minute.
    fn times(&self, zone: &TimeZone, from: Timestamp, to: Timestamp) -> BTreeSet<Timestamp> {
        let mut times = BTreeSet::new();
        if self.is_rhythm {
            let mut time = from;
            while time <= to {
                if self.fits(zone.to_datetime(time)) {
                    times.insert(time);
                }
                time += MINUTE;
            }
            return times;
        }
        let (mut shown, last) = (zone.to_datetime(from) - SignedDuration::from_hours(50), zone.to_datetime(to));
        let last = last + SignedDuration::from_hours(50);
        while shown <= last {
            if self.fits(shown) {
                times.insert(first_instant(zone, shown));
            }
            shown += MINUTE;
        }
        times.into_iter().filter(|time| (from..=to).contains(time)).collect()
    }
}

/// The first moment at which a clock shows this or, over a gap, more.
fn first_instant(zone: &TimeZone, shown: DateTime) -> Timestamp {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().unwrap(),
        AmbiguousOffset::Gap { .. } => {
            let mut time = ambiguous.earlier().unwrap();
            while zone.to_datetime(time) < shown {
                time += MINUTE;
            }
            time
        }
    }
}

fn near_a_change(rng: &mut StdRng) -> (TimeZone, Timestamp, Timestamp) {
    let (name, change) = CHANGES.choose(rng).unwrap();
    let before = SignedDuration::from_mins(rng.random_range(0..4000));
    let after = SignedDuration::from_mins(rng.random_range(0..4000));
    (zone(name), at(change) - before, at(change) + after)
}

#[test]
fn cron_is_what_a_look_at_every_minute_says() {
    each_seed("cron", |rng| {
        let (zone, from, to) = near_a_change(rng);
        let naive = Naive::random(rng);
        let Ok(cron) = Cron::new(&naive.expression, zone.clone()) else { panic!("{}", naive.expression) };
        let expected: Vec<Timestamp> = naive.times(&zone, from, to).into_iter().collect();
        let what = format!("`{}` in {} from {from} to {to}", naive.expression, zone.iana_name().unwrap());
        let timetable = Timetable { schedules: vec![Schedule::Cron(cron.clone())], ..Timetable::default() };
        let forwards: Vec<Timestamp> = timetable.range(from, to).map(|tick| tick.run_after).collect();
        assert_eq!(forwards, expected, "{what}");
        let mut backwards: Vec<Timestamp> = timetable.range(from, to).rev().map(|tick| tick.run_after).collect();
        backwards.reverse();
        assert_eq!(backwards, expected, "{what}, from behind");
        // From anywhere, also between minutes.
        let inside = from + SignedDuration::from_millis(rng.random_range(0..=(to - from).get_seconds() * 1000));
        let next = expected.iter().copied().find(|time| *time > inside);
        assert!(next.is_none() || cron.next_after(inside) == next, "{what}, after {inside}");
        let last = expected.iter().copied().rfind(|time| *time <= inside);
        assert!(last.is_none() || cron.last_until(inside) == last, "{what}, until {inside}");
    });
}

fn random_timetable(rng: &mut StdRng) -> (Timetable, Timestamp, Timestamp) {
    let (zone, from, to) = near_a_change(rng);
    let mut schedules = Vec::new();
    for _ in 0..rng.random_range(1..=3) {
        schedules.push(match rng.random_range(0..4) {
            0 => Schedule::Every(Every::new(Duration::from_secs(rng.random_range(60..100_000)), from)),
            1 => Schedule::Once,
            _ => Schedule::Cron(Cron::new(&Naive::random(rng).expression, zone.clone()).unwrap()),
        });
    }
    let mut inside = || from + SignedDuration::from_secs(rng.random_range(0..=(to - from).get_seconds()));
    let (start, end) = (inside(), inside());
    let timetable = Timetable {
        schedules,
        start: rng.random_bool(0.5).then_some(start),
        end: rng.random_bool(0.5).then_some(end),
        catchup: rng.random_bool(0.7),
        interval: if rng.random_bool(0.5) { IntervalReading::Tick } else { IntervalReading::Classic },
    };
    (timetable, from, to)
}

#[test]
fn ticks_are_in_order_within_bounds_and_those_of_the_range() {
    each_seed("plan", |rng| {
        let (timetable, from, to) = random_timetable(rng);
        let planned: Vec<Tick> = timetable.missed(Some(from), to, 5_000).collect();
        let what = format!("{timetable:?} from {from} to {to}: {planned:?}");
        assert!(planned.windows(2).all(|pair| pair[0].run_after < pair[1].run_after), "{what}");
        for tick in &planned {
            assert!(tick.run_after > from && tick.run_after <= to, "{what}");
            assert!(timetable.start.is_none_or(|start| tick.logical_date >= start), "{what}");
            assert!(timetable.end.is_none_or(|end| tick.logical_date <= end), "{what}");
            assert!(tick.data_interval == (tick.logical_date, tick.run_after), "{what}");
        }
        let is_once = |tick: &Tick| matches!(timetable.schedules[tick.schedule], Schedule::Once);
        assert!(planned.iter().filter(|tick| is_once(tick)).count() <= 1, "{what}");
        let recurring: Vec<Timestamp> = planned.iter().filter(|tick| !is_once(tick)).map(|tick| tick.run_after).collect();
        let all = timetable.range(Timestamp::MIN.max(from - SignedDuration::from_hours(24 * 15)), to);
        let all = all.map(|tick| tick.run_after).filter(|time| *time > from && *time <= to);
        let all: Vec<Timestamp> =
            all.filter(|time| !planned.iter().any(|tick| is_once(tick) && tick.run_after == *time)).collect();
        if timetable.catchup {
            assert!(recurring.len() >= 4_999 || recurring == all, "{what}, all: {all:?}");
        } else {
            assert!(recurring.len() <= 1 && recurring.last() == all.last(), "{what}, all: {all:?}");
        }
        // What was planned is not planned again, whatever the time is by then.
        let mut now = from;
        let mut after = Some(from);
        while let Some(tick) = timetable.next(after, now).filter(|tick| tick.run_after <= to) {
            assert!(after.is_none_or(|after| tick.run_after > after), "{what}");
            after = Some(tick.run_after);
            now = now.max(tick.run_after) + SignedDuration::from_secs(rng.random_range(0..50_000));
        }
    });
}

#[test]
fn a_daily_job_runs_once_a_day_in_every_zone() {
    let zones =
        ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Sao_Paulo", "Antarctica/Troll"];
    each_seed("daily", |rng| {
        let name = zones.choose(rng).unwrap();
        let (minute, hour) = (rng.random_range(0..60), rng.random_range(0..24));
        let cron = Cron::new(&format!("{minute} {hour} * * *"), zone(name)).unwrap();
        let timetable = Timetable { schedules: vec![Schedule::Cron(cron)], ..Timetable::default() };
        let start = jiff::civil::date(rng.random_range(2015..2030), 1, 1);
        let (from, to) =
            (start.to_zoned(zone(name)).unwrap(), start.saturating_add(jiff::Span::new().years(1)).to_zoned(zone(name)).unwrap());
        let days: Vec<_> = timetable
            .range(from.timestamp(), to.timestamp() - SignedDuration::from_secs(1))
            .map(|tick| tick.run_after.to_zoned(zone(name)).date())
            .collect();
        let year: Vec<_> = start.series(jiff::Span::new().days(1)).take_while(|day| day.year() == start.year()).collect();
        assert_eq!(days, year, "{hour}:{minute:02} in {name}");
    });
}
