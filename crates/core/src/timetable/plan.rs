//! Ticks: the next one, the missed ones, those of a backfill.
//!
//! Nothing here steps through what it does not give back: the latest missed tick of a schedule that was off for years is found from `now`
//! backwards, not from then on.

use super::{IntervalReading, Schedule, Tick, Timetable};
use jiff::{SignedDuration, Timestamp};

/// The finest distance of two points in time.
const NANOSECOND: SignedDuration = SignedDuration::from_nanos(1);

impl Timetable {
    /// The tick to plan next. `after` is the `run_after` of the last tick that was planned; a tick that is not later than `now` is due at once.
    ///
    /// With catchup it is the first one after `after`, however long ago. Without, it is the latest one that is due, or else the first one to come.
    /// A DAG that was never planned begins at its start, or, where it has none, now: then nothing was missed. A tick of `@once` comes once, at the
    /// start or now. None: nothing is to come.
    pub fn next(&self, after: Option<Timestamp>, now: Timestamp) -> Option<Tick> {
        earlier(self.next_timed(after, now), self.next_once(after, now))
    }

    /// As [`Timetable::next`], of a DAG that was never planned and is known since a time. Where the timetable has no start, nothing was missed
    /// before that time, and what was missed since is missed as after any tick; `@once` is at that time, whenever it is asked for.
    pub fn next_since(&self, since: Timestamp, now: Timestamp) -> Option<Tick> {
        if self.start.is_some() {
            return self.next(None, now);
        }
        earlier(self.next_timed(since.checked_sub(NANOSECOND).ok(), now), self.next_once(None, since))
    }

    /// What [`Timetable::next`] gives one after the other until nothing more is due: with catchup every missed tick in order, without at most the
    /// latest. It is computed as it is asked for, and ends after `limit` ticks.
    pub fn missed(&self, after: Option<Timestamp>, now: Timestamp, limit: usize) -> impl Iterator<Item = Tick> {
        let first = self.next(after, now);
        let due = move |tick: &Tick| tick.run_after <= now;
        std::iter::successors(first.filter(due), move |tick| self.next(Some(tick.run_after), now).filter(due)).take(limit)
    }

    /// The ticks with a logical date from `from` to `to`, both inclusive, for a backfill; from behind, the latest first. Start and end of the
    /// timetable hold, catchup does not matter. `@once` and assets have nothing to fill in.
    pub fn range(&self, from: Timestamp, to: Timestamp) -> Range<'_> {
        let from = self.start.map_or(from, |start| start.max(from));
        let to = self.end.map_or(to, |end| end.min(to));
        Range { timetable: self, left: Some((from, to)) }
    }

    /// The logical dates of the ticks before and after one, which need not be that of a tick itself. For a template's `prev_logical_date`
    /// and `next_logical_date`.
    pub fn around(&self, logical_date: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let before = logical_date.checked_sub(NANOSECOND).ok();
        let after = logical_date.checked_add(NANOSECOND).ok();
        let before = before.and_then(|before| self.range(Timestamp::MIN, before).next_back());
        let after = after.and_then(|after| self.range(after, Timestamp::MAX).next());
        (before.map(|tick| tick.logical_date), after.map(|tick| tick.logical_date))
    }

    /// The first tick after a time, whatever was planned.
    pub fn tick_after(&self, time: Timestamp) -> Option<Tick> {
        self.first_allowed_after(time).filter(|tick| self.allows(tick))
    }

    /// The last tick before a time, whatever was planned.
    pub fn tick_before(&self, time: Timestamp) -> Option<Tick> {
        self.last_allowed_until(time.checked_sub(NANOSECOND).ok()?)
    }

    /// The data interval of a run that a person starts: no length at the time itself, or by the classic reading the last interval that is complete.
    pub fn manual_interval(&self, at: Timestamp) -> (Timestamp, Timestamp) {
        match self.interval {
            IntervalReading::Tick => (at, at),
            IntervalReading::Classic => {
                let last = self.last_until(at).and_then(|(end, _)| Some((self.last_before(end)?, end)));
                last.unwrap_or((at, at))
            }
        }
    }

    fn next_timed(&self, after: Option<Timestamp>, now: Timestamp) -> Option<Tick> {
        let first = match (after, self.start) {
            (Some(after), _) => self.first_allowed_after(after)?,
            (None, Some(start)) => self.first_allowed_after(start.checked_sub(NANOSECOND).unwrap_or(start))?,
            (None, None) => self.first_allowed_after(now.checked_sub(NANOSECOND).unwrap_or(now))?,
        };
        if !self.allows(&first) {
            return None;
        }
        if self.catchup || first.run_after > now {
            return Some(first);
        }
        // A DAG that comes too late for all of its time does not begin with its last day.
        if after.is_none() && self.tick_after(now).is_none() {
            return None;
        }
        let latest = self.last_allowed_until(now)?;
        Some(if latest.run_after > first.run_after { latest } else { first })
    }

    fn next_once(&self, after: Option<Timestamp>, now: Timestamp) -> Option<Tick> {
        let schedule = self.schedules.iter().position(|schedule| matches!(schedule, Schedule::Once))?;
        let at = match (self.start, after) {
            (Some(start), after) => (after.is_none_or(|after| after < start)).then_some(start)?,
            (None, Some(_)) => return None,
            (None, None) => now,
        };
        let tick = Tick { run_after: at, logical_date: at, data_interval: (at, at), schedule };
        self.allows(&tick).then_some(tick)
    }

    /// The first tick after a time that is not before the start. It may be after the end.
    fn first_allowed_after(&self, time: Timestamp) -> Option<Tick> {
        let (first, schedule) = self.next_after(time)?;
        let tick = self.tick(first, schedule);
        let Some(start) = self.start.filter(|start| tick.logical_date < *start) else { return Some(tick) };
        let (first, schedule) = self.next_after(start.checked_sub(NANOSECOND).unwrap_or(start))?;
        match self.interval {
            IntervalReading::Tick => Some(self.tick(first, schedule)),
            // The first time not before the start begins the first interval.
            IntervalReading::Classic => self.next_after(first).map(|(end, schedule)| self.tick(end, schedule)),
        }
    }

    /// The last tick that is not after a time, between start and end.
    fn last_allowed_until(&self, time: Timestamp) -> Option<Tick> {
        let (last, schedule) = self.last_until(time)?;
        let mut tick = self.tick(last, schedule);
        if let Some(end) = self.end.filter(|end| tick.logical_date > *end) {
            let (last, schedule) = self.last_until(end)?;
            tick = match self.interval {
                IntervalReading::Tick => self.tick(last, schedule),
                // The last time not after the end begins the last interval.
                IntervalReading::Classic => self.next_after(last).map(|(end, schedule)| self.tick(end, schedule))?,
            };
        }
        self.allows(&tick).then_some(tick)
    }

    fn allows(&self, tick: &Tick) -> bool {
        self.start.is_none_or(|start| tick.logical_date >= start) && self.end.is_none_or(|end| tick.logical_date <= end)
    }

    /// The tick at one of the schedules' times.
    fn tick(&self, run_after: Timestamp, schedule: usize) -> Tick {
        let logical_date = match self.interval {
            IntervalReading::Tick => run_after,
            IntervalReading::Classic => self.last_before(run_after).unwrap_or(run_after),
        };
        Tick { run_after, logical_date, data_interval: (logical_date, run_after), schedule }
    }

    /// The first time of any schedule after another. Of several at one instant the first schedule has it.
    fn next_after(&self, time: Timestamp) -> Option<(Timestamp, usize)> {
        let each = self.schedules.iter().enumerate();
        each.filter_map(|(at, schedule)| Some((schedule.next_after(time)?, at))).min()
    }

    /// The last time of any schedule that is not after another.
    fn last_until(&self, time: Timestamp) -> Option<(Timestamp, usize)> {
        let each = self.schedules.iter().enumerate();
        let times = each.filter_map(|(at, schedule)| Some((schedule.last_until(time)?, at)));
        times.max_by_key(|(time, at)| (*time, std::cmp::Reverse(*at)))
    }

    fn last_before(&self, time: Timestamp) -> Option<Timestamp> {
        self.last_until(time.checked_sub(NANOSECOND).ok()?).map(|(last, _)| last)
    }
}

/// Of two at one instant, that of the first schedule.
fn earlier(one: Option<Tick>, other: Option<Tick>) -> Option<Tick> {
    [one, other].into_iter().flatten().min_by_key(|tick| (tick.run_after, tick.schedule))
}

/// Ticks of a range, from either side; see [`Timetable::range`].
#[derive(Clone, Debug)]
pub struct Range<'t> {
    timetable: &'t Timetable,
    /// Logical dates not yet given, both inclusive.
    left: Option<(Timestamp, Timestamp)>,
}

impl Range<'_> {
    /// The tick whose logical date is one of the schedules' times.
    fn tick_of(&self, logical_date: Timestamp, schedule: usize) -> Option<Tick> {
        match self.timetable.interval {
            IntervalReading::Tick => Some(self.timetable.tick(logical_date, schedule)),
            IntervalReading::Classic => {
                let (end, schedule) = self.timetable.next_after(logical_date)?;
                Some(Tick { run_after: end, logical_date, data_interval: (logical_date, end), schedule })
            }
        }
    }
}

impl Iterator for Range<'_> {
    type Item = Tick;

    fn next(&mut self) -> Option<Tick> {
        let (from, to) = self.left.take()?;
        let (date, schedule) = self.timetable.next_after(from.checked_sub(NANOSECOND).ok()?)?;
        if date > to {
            return None;
        }
        self.left = date.checked_add(NANOSECOND).ok().map(|from| (from, to));
        self.tick_of(date, schedule)
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Tick> {
        let (from, to) = self.left.take()?;
        let (date, schedule) = self.timetable.last_until(to)?;
        if date < from {
            return None;
        }
        self.left = date.checked_sub(NANOSECOND).ok().map(|to| (from, to));
        self.tick_of(date, schedule)
    }
}

impl std::iter::FusedIterator for Range<'_> {}
