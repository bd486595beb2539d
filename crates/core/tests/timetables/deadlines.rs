//! Deadlines, and what the past tells of them.

use super::{at, zone};
use backstop_core::timetable::deadline::outlook;
use backstop_core::timetable::{Deadline, Moments, Outlook, PastDurations, Reference};
use std::time::Duration;

fn moments(planned_at: &str) -> Moments {
    Moments { planned_at: at(planned_at), logical_date: None, queued_at: at(planned_at), started_at: None }
}

fn by(time: &str, zone_name: &str, planned_at: &str) -> String {
    let deadline = Deadline::By { at: time.parse().unwrap(), zone: zone(zone_name) };
    deadline.due_at(&moments(planned_at)).unwrap().to_string()
}

#[test]
fn a_time_of_day_is_the_first_one_after_the_run_was_planned() {
    assert_eq!(by("06:00", "UTC", "2025-05-01T02:00:00Z"), "2025-05-01T06:00:00Z");
    assert_eq!(by("06:00", "UTC", "2025-05-01T22:00:00Z"), "2025-05-02T06:00:00Z");
    assert_eq!(by("06:00", "UTC", "2025-05-01T06:00:00Z"), "2025-05-02T06:00:00Z");
    assert_eq!(by("06:00", "Europe/Paris", "2025-05-01T00:00:00Z"), "2025-05-01T04:00:00Z");
    assert_eq!(by("06:00", "Asia/Kolkata", "2025-05-01T00:00:00Z"), "2025-05-01T00:30:00Z");
}

#[test]
fn a_time_of_day_on_days_when_clocks_are_changed() {
    // 02:30 is left out: the gap ends at 03:00 summer time.
    assert_eq!(by("02:30", "Europe/Paris", "2025-03-29T22:00:00Z"), "2025-03-30T01:00:00Z");
    // 02:30 comes twice: the first one counts, and after it the next day's.
    assert_eq!(by("02:30", "Europe/Paris", "2025-10-25T22:00:00Z"), "2025-10-26T00:30:00Z");
    assert_eq!(by("02:30", "Europe/Paris", "2025-10-26T00:45:00Z"), "2025-10-27T01:30:00Z");
    // A day that Samoa left out.
    assert_eq!(by("06:00", "Pacific/Apia", "2011-12-29T20:00:00-10:00"), "2011-12-30T10:00:00Z");
}

#[test]
fn a_span_counts_from_what_is_known() {
    let all = Moments {
        logical_date: Some(at("2025-05-01T00:00:00Z")),
        queued_at: at("2025-05-01T02:00:00Z"),
        started_at: Some(at("2025-05-01T02:30:00Z")),
        ..moments("2025-05-01T02:00:00Z")
    };
    let due = |of, moments: &Moments| {
        let deadline = Deadline::Within { span: Duration::from_secs(7200), of };
        deadline.due_at(moments).map(|due| due.to_string())
    };
    assert_eq!(due(Reference::LogicalDate, &all).as_deref(), Some("2025-05-01T02:00:00Z"));
    assert_eq!(due(Reference::QueuedAt, &all).as_deref(), Some("2025-05-01T04:00:00Z"));
    assert_eq!(due(Reference::StartedAt, &all).as_deref(), Some("2025-05-01T04:30:00Z"));
    assert_eq!(due(Reference::StartedAt, &moments("2025-05-01T02:00:00Z")), None);
    assert_eq!(due(Reference::LogicalDate, &moments("2025-05-01T02:00:00Z")), None);
    let endless = Deadline::Within { span: Duration::MAX, of: Reference::QueuedAt };
    assert_eq!(endless.due_at(&all), None);
}

#[test]
fn the_past_tells_how_long_it_will_take() {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let mut durations: Vec<Duration> = (1..=20).rev().map(minutes).collect();
    let past = PastDurations::of(&mut durations).unwrap();
    assert_eq!(past, PastDurations { measured: 20, p50: minutes(10), p95: minutes(19) });
    assert_eq!(PastDurations::of(&mut [minutes(1), minutes(2)]), None);
    let three = PastDurations::of(&mut [minutes(3), minutes(1), minutes(2)]).unwrap();
    assert_eq!((three.p50, three.p95), (minutes(2), minutes(3)));

    let look = |now: &str, due: &str| outlook(at(now), at("2025-05-01T02:00:00Z"), Some(&past), at(due));
    let begun = "2025-05-01T02:00:00Z";
    assert_eq!(look(begun, "2025-05-01T02:19:00Z"), None);
    assert_eq!(look(begun, "2025-05-01T02:18:59Z"), Some(Outlook::Possible { done_at: at("2025-05-01T02:19:00Z") }));
    assert_eq!(look(begun, "2025-05-01T02:09:59Z"), Some(Outlook::Likely { done_at: at("2025-05-01T02:10:00Z") }));
    assert_eq!(look("2025-05-01T02:30:00Z", "2025-05-01T02:30:00Z"), Some(Outlook::Missed));
    // Longer than ever, but not too late.
    assert_eq!(look("2025-05-01T02:29:00Z", "2025-05-01T02:30:00Z"), None);
    // Without experience nothing is foretold, and what is missed is missed.
    assert_eq!(outlook(at(begun), at(begun), None, at("2025-05-01T02:00:01Z")), None);
    assert_eq!(outlook(at(begun), at(begun), None, at(begun)), Some(Outlook::Missed));
    let endless = PastDurations { measured: 3, p50: Duration::MAX, p95: Duration::MAX };
    assert!(matches!(outlook(at(begun), at(begun), Some(&endless), at("2025-05-02T02:00:00Z")), Some(Outlook::Likely { .. })));
}
