//! What is planned next, what was missed, what a backfill has.

use super::{at, classic, cron, shown, zone};
use backstop_core::timetable::{AssetExpr, Cron, Every, IntervalReading, Schedule, Tick, Timetable};
use jiff::Timestamp;
use std::time::Duration;

fn next(timetable: &Timetable, after: Option<&str>, now: &str) -> Option<String> {
    timetable.next(after.map(at), at(now)).map(|tick| tick.run_after.to_string())
}

fn daily() -> Timetable {
    cron("0 2 * * *", "UTC")
}

#[test]
fn without_catchup_the_latest_missed_tick_comes_and_then_the_future() {
    let timetable = daily();
    let now = "2025-05-10T12:00:00Z";
    assert_eq!(next(&timetable, Some("2025-05-01T02:00:00Z"), now).as_deref(), Some("2025-05-10T02:00:00Z"));
    assert_eq!(next(&timetable, Some("2025-05-10T02:00:00Z"), now).as_deref(), Some("2025-05-11T02:00:00Z"));
    let missed: Vec<Tick> = timetable.missed(Some(at("2025-05-01T02:00:00Z")), at(now), 100).collect();
    assert_eq!(missed.len(), 1);
}

#[test]
fn with_catchup_every_missed_tick_comes_in_order() {
    let timetable = Timetable { catchup: true, ..daily() };
    let now = at("2025-05-04T02:00:00Z");
    let missed = |limit| shown(timetable.missed(Some(at("2025-05-01T02:00:00Z")), now, limit), "UTC");
    assert_eq!(missed(100), ["05-02 02:00+00:00", "05-03 02:00+00:00", "05-04 02:00+00:00"]);
    assert_eq!(missed(2), ["05-02 02:00+00:00", "05-03 02:00+00:00"]);
    assert_eq!(missed(0), Vec::<String>::new());
}

#[test]
fn a_dag_that_was_never_planned_begins_at_its_start_or_now() {
    let now = "2025-05-10T12:00:00Z";
    // Nothing was missed before anybody knew of it.
    assert_eq!(next(&daily(), None, now).as_deref(), Some("2025-05-11T02:00:00Z"));
    assert_eq!(next(&Timetable { catchup: true, ..daily() }, None, now).as_deref(), Some("2025-05-11T02:00:00Z"));
    assert_eq!(next(&daily(), None, "2025-05-10T02:00:00Z").as_deref(), Some("2025-05-10T02:00:00Z"));
    let started = Timetable { start: Some(at("2025-05-01T00:00:00Z")), ..daily() };
    assert_eq!(next(&started, None, now).as_deref(), Some("2025-05-10T02:00:00Z"));
    assert_eq!(next(&started, None, "2025-04-01T00:00:00Z").as_deref(), Some("2025-05-01T02:00:00Z"));
    let all = Timetable { catchup: true, ..started };
    assert_eq!(next(&all, None, now).as_deref(), Some("2025-05-01T02:00:00Z"));
}

#[test]
fn a_dag_that_is_known_since_a_time_misses_what_came_since() {
    let since = at("2025-05-10T12:00:00Z");
    let next = |timetable: &Timetable, now: &str| timetable.next_since(since, at(now)).map(|tick| tick.run_after.to_string());
    assert_eq!(next(&daily(), "2025-05-10T12:00:00Z").as_deref(), Some("2025-05-11T02:00:00Z"));
    assert_eq!(next(&daily(), "2025-05-11T01:59:59Z").as_deref(), Some("2025-05-11T02:00:00Z"));
    assert_eq!(next(&daily(), "2025-05-13T12:00:00Z").as_deref(), Some("2025-05-13T02:00:00Z"));
    let all = Timetable { catchup: true, ..daily() };
    assert_eq!(next(&all, "2025-05-13T12:00:00Z").as_deref(), Some("2025-05-11T02:00:00Z"));
    assert_eq!(next(&all, "2025-05-09T12:00:00Z").as_deref(), Some("2025-05-11T02:00:00Z"), "the clock was set back");
    // A start says more.
    let started = Timetable { start: Some(at("2025-05-01T00:00:00Z")), ..all };
    assert_eq!(next(&started, "2025-05-13T12:00:00Z").as_deref(), Some("2025-05-01T02:00:00Z"));
    let once = Timetable { schedules: vec![Schedule::Once], ..Timetable::default() };
    assert_eq!(next(&once, "2025-05-13T12:00:00Z").as_deref(), Some("2025-05-10T12:00:00Z"), "always the same");
    // The first interval of the classic reading is the one that goes on.
    let classic = Timetable { interval: IntervalReading::Classic, ..daily() };
    let tick = classic.next_since(since, at("2025-05-11T03:00:00Z")).unwrap();
    assert_eq!(tick.logical_date, at("2025-05-10T02:00:00Z"));
}

#[test]
fn start_and_end_are_those_of_logical_dates() {
    let bounded =
        Timetable { start: Some(at("2025-05-01T02:00:00Z")), end: Some(at("2025-05-03T02:00:00Z")), catchup: true, ..daily() };
    let ticks = |timetable: &Timetable| -> Vec<String> {
        let missed = timetable.missed(None, at("2025-06-01T00:00:00Z"), 100);
        missed.map(|tick| format!("{} at {}", tick.logical_date, tick.run_after)).collect()
    };
    let both = [
        "2025-05-01T02:00:00Z at 2025-05-01T02:00:00Z",
        "2025-05-02T02:00:00Z at 2025-05-02T02:00:00Z",
        "2025-05-03T02:00:00Z at 2025-05-03T02:00:00Z",
    ];
    assert_eq!(ticks(&bounded), both);
    let late = [
        "2025-05-01T02:00:00Z at 2025-05-02T02:00:00Z",
        "2025-05-02T02:00:00Z at 2025-05-03T02:00:00Z",
        "2025-05-03T02:00:00Z at 2025-05-04T02:00:00Z",
    ];
    assert_eq!(ticks(&classic(bounded.clone())), late);
    // The last one was missed while nobody looked; one that comes when all is over does not begin with it.
    let once_only = Timetable { catchup: false, ..bounded };
    let now = "2025-06-01T00:00:00Z";
    assert_eq!(next(&once_only, Some("2025-05-02T02:00:00Z"), now).as_deref(), Some("2025-05-03T02:00:00Z"));
    assert_eq!(next(&once_only, Some("2025-05-03T02:00:00Z"), now), None);
    assert_eq!(next(&once_only, None, now), None);
    let classic = classic(once_only);
    assert_eq!(next(&classic, Some("2025-05-02T02:00:00Z"), now).as_deref(), Some("2025-05-04T02:00:00Z"));
    // The end has passed, but the last interval's run is still to come.
    assert_eq!(next(&classic, None, "2025-05-03T12:00:00Z").as_deref(), Some("2025-05-03T02:00:00Z"));
    assert_eq!(next(&classic, None, "2025-05-04T12:00:00Z"), None);
}

#[test]
fn a_classic_interval_ends_with_the_tick() {
    let tick = classic(cron("0 2 * * MON-FRI", "Europe/Paris"))
        .next(Some(at("2025-05-02T12:00:00Z")), at("2025-05-02T12:00:00Z"))
        .unwrap();
    let (friday, monday) = (at("2025-05-02T00:00:00Z"), at("2025-05-05T00:00:00Z"));
    assert_eq!(tick, Tick { run_after: monday, logical_date: friday, data_interval: (friday, monday), schedule: 0 });
    let tick = cron("0 2 * * *", "Europe/Paris").next(None, friday).unwrap();
    assert_eq!(tick, Tick { run_after: friday, logical_date: friday, data_interval: (friday, friday), schedule: 0 });
}

#[test]
fn a_run_by_hand_has_the_last_complete_interval() {
    let noon = at("2025-05-02T12:00:00Z");
    assert_eq!(daily().manual_interval(noon), (noon, noon));
    let interval = (at("2025-05-01T02:00:00Z"), at("2025-05-02T02:00:00Z"));
    assert_eq!(classic(daily()).manual_interval(noon), interval);
    assert_eq!(classic(Timetable::default()).manual_interval(noon), (noon, noon));
}

#[test]
fn years_of_missed_seconds_cost_nothing_unless_they_are_asked_for() {
    let mut timetable = cron("* * * * * *", "Europe/Paris");
    timetable.schedules.push(Schedule::Every(Every::new(Duration::from_secs(1), at("1970-01-01T00:00:00Z"))));
    let (after, now) = (Some(at("1970-01-02T00:00:00Z")), at("2026-01-01T00:00:00Z"));
    // Over a thousand million ticks lie between: stepping through them would take hours.
    let missed: Vec<Tick> = timetable.missed(after, now, usize::MAX).collect();
    assert_eq!(missed.iter().map(|tick| tick.run_after).collect::<Vec<_>>(), [now]);
    timetable.catchup = true;
    let missed: Vec<Timestamp> = timetable.missed(after, now, 3).map(|tick| tick.run_after).collect();
    assert_eq!(missed, [at("1970-01-02T00:00:01Z"), at("1970-01-02T00:00:02Z"), at("1970-01-02T00:00:03Z")]);
}

#[test]
fn intervals_of_elapsed_time_stand_on_their_anchor() {
    let every = |seconds, anchor: &str| Every::new(Duration::from_secs(seconds), at(anchor));
    let quarter = every(900, "2025-05-01T00:05:00Z");
    assert_eq!(quarter.next_after(at("2025-05-01T00:05:00Z")), Some(at("2025-05-01T00:20:00Z")));
    assert_eq!(quarter.last_until(at("2025-05-01T00:05:00Z")), Some(at("2025-05-01T00:05:00Z")));
    assert_eq!(quarter.last_until(at("2025-05-01T00:04:59.9Z")), Some(at("2025-04-30T23:50:00Z")));
    assert_eq!(quarter.next_after(at("2024-05-01T00:00:00Z")), Some(at("2024-05-01T00:05:00Z")));
    for time in [Timestamp::MIN, Timestamp::MAX] {
        for every in [quarter, Every::new(Duration::MAX, time), Every::new(Duration::ZERO, time)] {
            assert!(every.next_after(time).is_none_or(|next| next > time));
            assert!(every.last_until(time).is_none_or(|last| last <= time));
        }
    }
}

#[test]
fn once_is_once_at_the_start_or_now() {
    let once = Timetable { schedules: vec![Schedule::Once], ..Timetable::default() };
    let now = "2025-05-10T12:00:00Z";
    assert_eq!(next(&once, None, now).as_deref(), Some(now));
    assert_eq!(next(&once, Some("2025-05-10T12:00:00Z"), "2025-05-11T00:00:00Z"), None);
    let started = Timetable { start: Some(at("2025-05-01T00:00:00Z")), ..once.clone() };
    assert_eq!(next(&started, None, now).as_deref(), Some("2025-05-01T00:00:00Z"));
    assert_eq!(next(&started, Some("2025-05-01T00:00:00Z"), now), None);
    assert_eq!(next(&Timetable { end: Some(at("2025-05-01T00:00:00Z")), ..once }, None, now), None);
    // Beside another schedule it comes first, and does not come between the others.
    let both = Timetable { schedules: vec![daily().schedules[0].clone(), Schedule::Once], catchup: true, ..started };
    let ticks: Vec<(String, usize)> =
        both.missed(None, at("2025-05-02T12:00:00Z"), 9).map(|tick| (tick.run_after.to_string(), tick.schedule)).collect();
    assert_eq!(
        ticks,
        [("2025-05-01T00:00:00Z".into(), 1), ("2025-05-01T02:00:00Z".into(), 0), ("2025-05-02T02:00:00Z".into(), 0)]
    );
}

#[test]
fn several_schedules_are_one_row_of_ticks() {
    let schedules = ["0 2 * * *", "0 14 * * FRI", "0 2 1 * *"].map(|text| Schedule::Cron(Cron::new(text, zone("UTC")).unwrap()));
    let both = Timetable { schedules: schedules.to_vec(), ..Timetable::default() };
    let (from, to) = (at("2025-04-30T12:00:00Z"), at("2025-05-03T12:00:00Z"));
    let ticks: Vec<(String, usize)> = both.range(from, to).map(|tick| (tick.run_after.to_string(), tick.schedule)).collect();
    // On the first of May two fall due at once: one tick, of the first.
    assert_eq!(
        ticks,
        [
            ("2025-05-01T02:00:00Z".into(), 0),
            ("2025-05-02T02:00:00Z".into(), 0),
            ("2025-05-02T14:00:00Z".into(), 1),
            ("2025-05-03T02:00:00Z".into(), 0)
        ]
    );
    // Classic intervals leave nothing out and overlap nowhere.
    let intervals: Vec<_> = classic(both).range(from, to).map(|tick| tick.data_interval).collect();
    assert_eq!(intervals.len(), 4);
    assert!(intervals.windows(2).all(|pair| pair[0].1 == pair[1].0), "{intervals:?}");
}

#[test]
fn assets_have_no_ticks_and_do_not_hinder_those_of_others() {
    let sales = AssetExpr::Asset("sales".into());
    let mut timetable = Timetable { schedules: vec![Schedule::Assets(sales.clone())], ..Timetable::default() };
    assert_eq!(next(&timetable, None, "2025-05-10T12:00:00Z"), None);
    assert_eq!(timetable.range(Timestamp::MIN, Timestamp::MAX).count(), 0);
    timetable.schedules.extend(daily().schedules);
    assert_eq!(timetable.next(None, at("2025-05-10T12:00:00Z")).unwrap().schedule, 1);
    assert_eq!(timetable.assets().collect::<Vec<_>>(), [(0, &sales)]);
}

#[test]
fn neighbours_stand_beside_a_tick() {
    let bounded = Timetable { start: Some(at("2025-05-02T00:00:00Z")), end: Some(at("2025-05-03T12:00:00Z")), ..daily() };
    let second = at("2025-05-02T02:00:00Z");
    let third = at("2025-05-03T02:00:00Z");
    for timetable in [bounded.clone(), Timetable { interval: IntervalReading::Classic, ..bounded.clone() }] {
        assert_eq!(timetable.around(second), (None, Some(third)));
        assert_eq!(timetable.around(third), (Some(second), None));
        assert_eq!(timetable.around(at("2025-05-02T12:00:00Z")), (Some(second), Some(third)), "of a run by hand");
    }
    assert_eq!(bounded.tick_before(second), None);
    assert_eq!(bounded.tick_after(second).map(|tick| tick.run_after), Some(at("2025-05-03T02:00:00Z")));
    assert_eq!(bounded.tick_after(at("2025-05-03T02:00:00Z")), None);
    assert_eq!(bounded.tick_before(at("2025-06-01T00:00:00Z")).map(|tick| tick.run_after), Some(at("2025-05-03T02:00:00Z")));
}
