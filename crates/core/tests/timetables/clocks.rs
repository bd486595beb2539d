//! Days when clocks are put forward or back.

use super::{at, cron, shown, zone};
use backstop_core::timetable::{BadCron, Cron};
use jiff::tz::TimeZone;

fn check(expression: &str, zone: &str, from: &str, to: &str, expected: &[&str]) {
    let timetable = cron(expression, zone);
    let forwards = shown(timetable.range(at(from), at(to)), zone);
    assert_eq!(forwards, expected, "{expression} in {zone}");
    let mut backwards = shown(timetable.range(at(from), at(to)).rev(), zone);
    backwards.reverse();
    assert_eq!(backwards, expected, "{expression} in {zone}, from behind");
}

/// Europe/Paris, 2025-03-30: 02:00 is 03:00.
const SPRING: (&str, &str) = ("2025-03-29T12:00:00+01:00", "2025-03-31T12:00:00+02:00");
/// Europe/Paris, 2025-10-26: 03:00 is 02:00 again.
const AUTUMN: (&str, &str) = ("2025-10-25T12:00:00+02:00", "2025-10-27T12:00:00+01:00");

#[test]
fn a_time_of_day_that_a_gap_leaves_out_is_at_the_end_of_the_gap() {
    let (from, to) = SPRING;
    check("30 2 * * *", "Europe/Paris", from, to, &["03-30 03:00+02:00", "03-31 02:30+02:00"]);
    // Both fall on one instant, and are one.
    check("0 2,3 * * *", "Europe/Paris", from, to, &["03-30 03:00+02:00", "03-31 02:00+02:00", "03-31 03:00+02:00"]);
    check("*/20 2 30 * *", "Europe/Paris", from, to, &["03-30 03:00+02:00"]);
    check("30 3 * * *", "Europe/Paris", from, to, &["03-30 03:30+02:00", "03-31 03:30+02:00"]);
    // The gap's first moment is in it, its last is not.
    check("0 2 30 * *", "Europe/Paris", from, to, &["03-30 03:00+02:00"]);
}

#[test]
fn a_time_of_day_that_a_fold_repeats_is_its_first() {
    let (from, to) = AUTUMN;
    check("30 2 * * *", "Europe/Paris", from, to, &["10-26 02:30+02:00", "10-27 02:30+01:00"]);
    check("30 2,4 26 * *", "Europe/Paris", from, to, &["10-26 02:30+02:00", "10-26 04:30+01:00"]);
    check("*/30 2 26 * *", "Europe/Paris", from, to, &["10-26 02:00+02:00", "10-26 02:30+02:00"]);
    // The fold's end is shown once.
    check("0 3 26 * *", "Europe/Paris", from, to, &["10-26 03:00+01:00"]);
}

#[test]
fn a_rhythm_follows_the_clock_as_it_is() {
    let two_hours =
        |day: &str, offsets: [&str; 2]| (format!("{day}T01:00:00{}", offsets[0]), format!("{day}T04:00:00{}", offsets[1]));
    let (from, to) = two_hours("2025-03-30", ["+01:00", "+02:00"]);
    let spring = ["03-30 01:00+01:00", "03-30 01:30+01:00", "03-30 03:00+02:00", "03-30 03:30+02:00", "03-30 04:00+02:00"];
    check("*/30 * * * *", "Europe/Paris", &from, &to, &spring);
    check("0 */2 * * *", "Europe/Paris", &from, &to, &["03-30 04:00+02:00"]);
    let (from, to) = two_hours("2025-10-26", ["+02:00", "+01:00"]);
    let autumn = ["10-26 01:00+02:00", "10-26 02:00+02:00", "10-26 02:00+01:00", "10-26 03:00+01:00", "10-26 04:00+01:00"];
    check("0 * * * *", "Europe/Paris", &from, &to, &autumn);
    check("0 0-23 * * *", "Europe/Paris", &from, &to, &autumn);
    check("0 */2 * * *", "Europe/Paris", &from, &to, &["10-26 02:00+02:00", "10-26 02:00+01:00", "10-26 04:00+01:00"]);
}

#[test]
fn a_clock_may_be_changed_by_half_an_hour() {
    // Lord Howe: 2025-10-05 02:00 is 02:30, 2025-04-06 02:00 is 01:30 again.
    let lord_howe = "Australia/Lord_Howe";
    check(
        "15 2 * * *",
        lord_howe,
        "2025-10-04T12:00:00+10:30",
        "2025-10-06T12:00:00+11:00",
        &["10-05 02:30+11:00", "10-06 02:15+11:00"],
    );
    check("45 1 6 * *", lord_howe, "2025-04-05T12:00:00+11:00", "2025-04-07T12:00:00+10:30", &["04-06 01:45+11:00"]);
    let twice = ["04-06 01:00+11:00", "04-06 01:30+11:00", "04-06 01:30+10:30", "04-06 02:00+10:30"];
    check("*/30 * * * *", lord_howe, "2025-04-06T01:00:00+11:00", "2025-04-06T02:00:00+10:30", &twice);
}

#[test]
fn a_day_may_begin_with_a_gap_or_be_left_out() {
    // São Paulo's clocks went forward at midnight: 2018-11-04 began at 01:00.
    let sao_paulo = "America/Sao_Paulo";
    check(
        "0 0 * * *",
        sao_paulo,
        "2018-11-03T12:00:00-03:00",
        "2018-11-05T12:00:00-02:00",
        &["11-04 01:00-02:00", "11-05 00:00-02:00"],
    );
    // Samoa left out 2011-12-30, which its jobs of that day make up for at the first moment after it.
    let apia = "Pacific/Apia";
    let (from, to) = ("2011-12-29T00:00:00-10:00", "2012-01-01T00:00:00+14:00");
    check("0 6 * * *", apia, from, to, &["12-29 06:00-10:00", "12-31 00:00+14:00", "12-31 06:00+14:00"]);
    check(
        "0 */12 * * *",
        apia,
        from,
        to,
        &["12-29 00:00-10:00", "12-29 12:00-10:00", "12-31 00:00+14:00", "12-31 12:00+14:00", "01-01 00:00+14:00"],
    );
}

#[test]
fn a_zone_may_change_its_rules() {
    // Pyongyang went back half an hour in 2015, for good, and forward again in 2018.
    check(
        "10 0 * * *",
        "Asia/Pyongyang",
        "2015-08-13T15:00:00Z",
        "2015-08-16T00:00:00Z",
        &["08-14 00:10+09:00", "08-15 00:10+08:30", "08-16 00:10+08:30"],
    );
    // Istanbul stayed on summer time in 2016, and Morocco leaves it for Ramadan.
    check(
        "30 3 * * SUN",
        "Europe/Istanbul",
        "2016-10-24T00:00:00Z",
        "2016-11-07T00:00:00Z",
        &["10-30 03:30+03:00", "11-06 03:30+03:00"],
    );
    check(
        "30 2 * * SUN",
        "Africa/Casablanca",
        "2025-02-17T00:00:00Z",
        "2025-04-07T00:00:00Z",
        &[
            "02-23 02:30+01:00",
            "03-02 02:30+00:00",
            "03-09 02:30+00:00",
            "03-16 02:30+00:00",
            "03-23 02:30+00:00",
            "03-30 02:30+00:00",
            "04-06 03:00+01:00",
        ],
    );
}

#[test]
fn the_last_tick_before_the_rules_changed_is_no_tick_of_the_new_rules_and_yet_time_goes_on() {
    // The same zone before and after its government's decision: next() knows points in time alone, and gives none of the past again.
    let (old, new) = (TimeZone::posix("OLD-3").unwrap(), TimeZone::posix("NEW-2").unwrap());
    let last = Cron::new("0 2 * * *", old).unwrap().next_after(at("2025-06-01T00:00:00Z")).unwrap();
    assert_eq!(last, at("2025-06-01T23:00:00Z"));
    let next = Cron::new("0 2 * * *", new).unwrap().next_after(last).unwrap();
    assert_eq!(next, at("2025-06-02T00:00:00Z"));
}

#[test]
fn seconds_and_fractions_of_them() {
    let every_20_s = Cron::new("*/20 * * * * *", zone("Europe/Paris")).unwrap();
    assert_eq!(every_20_s.next_after(at("2025-05-01T00:00:19.999999999Z")), Some(at("2025-05-01T00:00:20Z")));
    assert_eq!(every_20_s.next_after(at("2025-05-01T00:00:20Z")), Some(at("2025-05-01T00:00:40Z")));
    assert_eq!(every_20_s.next_after(at("2025-05-01T00:00:20.5Z")), Some(at("2025-05-01T00:00:40Z")));
    assert_eq!(every_20_s.last_until(at("2025-05-01T00:00:20Z")), Some(at("2025-05-01T00:00:20Z")));
    assert_eq!(every_20_s.last_until(at("2025-05-01T00:00:20.5Z")), Some(at("2025-05-01T00:00:20Z")));
    assert_eq!(every_20_s.last_until(at("2025-05-01T00:00:19.999999999Z")), Some(at("2025-05-01T00:00:00Z")));
}

#[test]
fn the_ends_of_time_are_no_obstacle() {
    use jiff::Timestamp;
    for expression in ["0 2 * * *", "*/5 * * * *", "0 0 29 2 *"] {
        for name in ["UTC", "Europe/Paris", "Pacific/Apia"] {
            let cron = Cron::new(expression, zone(name)).unwrap();
            for time in [Timestamp::MIN, Timestamp::MAX] {
                let (next, last) = (cron.next_after(time), cron.last_until(time));
                assert!(
                    next.is_none_or(|next| next > time) && last.is_none_or(|last| last <= time),
                    "{expression} in {name} at {time}"
                );
            }
        }
    }
}

#[test]
fn a_text_that_no_calendar_fits_is_refused() {
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "*/5 * 30-31 2 *", "0 0 0 31 2 *"] {
        assert!(matches!(Cron::new(never, TimeZone::UTC), Err(BadCron::Never { .. })), "{never}");
    }
    for unreadable in ["", "61 2 * * *", "* * * *", "0 0 * * * * 2025", "@daily ", "0 2 * * MONDAYS"] {
        assert!(matches!(Cron::new(unreadable, TimeZone::UTC), Err(BadCron::Unreadable { .. })), "{unreadable}");
    }
    // A leap day; a weekday besides a day that is never; the last day; a fifth Monday of February, which only some leap years have.
    for seldom in ["0 0 29 2 *", "0 0 30 2 1", "0 0 L 2 *", "0 0 * 2 MON#5", "30 2 * * *"] {
        assert!(Cron::new(seldom, TimeZone::UTC).is_ok(), "{seldom}");
    }
    let fifth = Cron::new("30 2 * 2 MON#5", zone("Europe/Paris")).unwrap();
    assert_eq!(fifth.next_after(at("2025-01-01T00:00:00Z")), Some(at("2044-02-29T01:30:00Z")));
    assert_eq!(fifth.last_until(at("2025-01-01T00:00:00Z")), Some(at("2016-02-29T01:30:00Z")));
}

#[test]
fn days_are_those_that_the_documentation_says() {
    let days =
        |expression: &str| shown(cron(expression, "UTC").range(at("2025-05-01T00:00:00Z"), at("2025-05-31T23:59:59Z")), "UTC");
    for (expression, expected) in [
        ("0 0 L * *", &["05-31"][..]),
        ("0 0 * * 5L", &["05-30"]),
        ("0 0 * * FRIL", &["05-30"]),
        ("0 0 15W * *", &["05-15"]),
        ("0 0 17W * *", &["05-16"]),
        ("0 0 * * MON#2", &["05-12"]),
        ("0 0 * * 7", &["05-04", "05-11", "05-18", "05-25"]),
        ("0 0 * * 0", &["05-04", "05-11", "05-18", "05-25"]),
        ("0 0 20 * SUN", &["05-04", "05-11", "05-18", "05-20", "05-25"]),
        ("0 0 1-31/15 MAY *", &["05-01", "05-16", "05-31"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|day| format!("{day} 00:00+00:00")).collect();
        assert_eq!(days(expression), expected, "{expression}");
    }
}
