//! Schedules as written, and the timetables they become.

use super::{definition, report};
use backstop_core::timetable::{Deadline, IntervalReading, Moments, Reference, Tick};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::time::Duration;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn header(lines: &str) -> String {
    format!("dag: d\n{lines}\ntasks:\n  a: {{empty: true}}\n")
}

/// The next ticks after a time, and what people read.
fn check(lines: &str, after: &str, words: &str, expected: &[&str]) {
    let definition = definition(&header(lines));
    assert_eq!(definition.schedule.as_deref(), Some(words), "{lines}");
    let timetable = definition.timetable.as_ref().unwrap();
    let next = |tick: &Tick| timetable.next(Some(tick.run_after), tick.run_after);
    let ticks = std::iter::successors(timetable.next(Some(at(after)), at(after)), next);
    let ticks: Vec<String> = ticks.take(expected.len()).map(|tick| tick.run_after.to_string()).collect();
    assert_eq!(ticks, expected, "{lines}");
}

#[test]
fn each_way_to_write_a_schedule() {
    let from = "2025-05-01T00:00:00Z";
    check("schedule: \"0 2 * * *\"", from, "0 2 * * *", &["2025-05-01T02:00:00Z", "2025-05-02T02:00:00Z"]);
    check("schedule: \"0 2 * * *\"\ntimezone: Europe/Paris", from, "0 2 * * *", &["2025-05-02T00:00:00Z"]);
    check("schedule: {cron: \"0 2 * * *\", timezone: Asia/Kolkata}", from, "0 2 * * * Asia/Kolkata", &["2025-05-01T20:30:00Z"]);
    check("schedule: \"@weekly\"", from, "@weekly", &["2025-05-04T00:00:00Z", "2025-05-11T00:00:00Z"]);
    check("schedule: \"@quarterly\"", from, "@quarterly", &["2025-07-01T00:00:00Z", "2025-10-01T00:00:00Z"]);
    check("schedule: {cron: \"@hourly\"}", from, "@hourly", &["2025-05-01T01:00:00Z"]);
    check(
        "schedule: [\"0 2 * * *\", \"30 1 * * *\", {assets: [a, {any: [b, c]}]}]",
        from,
        "0 2 * * *, 30 1 * * *, a and (b or c)",
        &["2025-05-01T01:30:00Z", "2025-05-01T02:00:00Z", "2025-05-02T01:30:00Z"],
    );
}

#[test]
fn intervals_stand_on_the_start_or_on_a_midnight_of_the_zone() {
    let from = "2025-05-01T00:00:00Z";
    check("schedule: {every: 1h30m}", from, "every 1h 30m", &["2025-05-01T01:30:00Z", "2025-05-01T03:00:00Z"]);
    check("schedule: {every: 1h}\ntimezone: Asia/Kolkata", from, "every 1h", &["2025-05-01T00:30:00Z"]);
    check("schedule: {every: 15m}\nstart_date: 2025-04-30T23:50:00Z", from, "every 15m", &["2025-05-01T00:05:00Z"]);
}

#[test]
fn bounds_and_reading_go_into_the_timetable() {
    let definition = definition(&header(
        "schedule: \"@daily\"\ntimezone: Europe/Paris\nstart_date: 2025-05-01\nend_date: 2025-05-03\ncatchup: true\ndata_interval: classic\nmax_active_runs: 1",
    ));
    let timetable = definition.timetable.as_ref().unwrap();
    assert_eq!((timetable.start, timetable.end), (Some(at("2025-04-30T22:00:00Z")), Some(at("2025-05-03T21:59:59.999999Z"))));
    assert_eq!((timetable.catchup, timetable.interval), (true, IntervalReading::Classic));
    assert_eq!(definition.max_active_runs, 1);
    assert_eq!(timetable.missed(None, at("2025-06-01T00:00:00Z"), 10).count(), 3);
}

#[test]
fn a_day_alone_ends_when_it_is_over() {
    let end = |date: &str| {
        let text = header(&format!(
            "schedule: \"0 2 * * *\"\ntimezone: Europe/Paris\nstart_date: 2026-11-21\nend_date: {date}\ncatchup: true"
        ));
        let timetable = definition(&text).timetable.clone().unwrap();
        let last = timetable.missed(None, at("2027-06-01T00:00:00Z"), 10).last().unwrap();
        (timetable.end.unwrap().to_string(), last.logical_date.to_string())
    };
    let end = |date| {
        let (end, last) = end(date);
        format!("{end}, last run {last}")
    };
    assert_eq!(end("2026-11-22"), "2026-11-22T22:59:59.999999Z, last run 2026-11-22T01:00:00Z");
    assert_eq!(end("2026-11-22T01:00:00"), "2026-11-22T00:00:00Z, last run 2026-11-21T01:00:00Z");
    assert_eq!(end("2026-11-22T02:00"), "2026-11-22T01:00:00Z, last run 2026-11-22T01:00:00Z");
    assert_eq!(end("2026-11-22T02:00:00+01:00"), "2026-11-22T01:00:00Z, last run 2026-11-22T01:00:00Z");
    // A day on which clocks are put forward is shorter.
    assert_eq!(end("2027-03-28"), "2027-03-28T21:59:59.999999Z, last run 2026-11-30T01:00:00Z");
}

#[test]
fn a_dag_without_a_schedule_has_no_timetable() {
    let definition = definition(&header("start_date: 2025-05-01"));
    assert!(definition.timetable.is_none() && definition.schedule.is_none());
    assert_eq!((definition.max_active_runs, definition.deadlines.len()), (16, 0));
}

#[test]
fn a_dag_may_run_after_assets_and_tell_what_it_updates() {
    let text = header("schedule: {assets: [sales, {any: [ecb, fed]}]}")
        .replace("{empty: true}", "{empty: true, updates: [report, \"s3://lake/a b\"]}");
    let definition = definition(&text);
    let timetable = definition.timetable.as_ref().unwrap();
    let (place, expression) = timetable.assets().next().unwrap();
    assert_eq!((place, expression.names()), (0, BTreeSet::from(["ecb", "fed", "sales"])));
    assert!(!expression.is_met(&BTreeSet::from(["ecb", "fed"])) && expression.is_met(&BTreeSet::from(["sales", "fed"])));
    assert_eq!(definition.bodies[0].updates.iter().map(|name| &**name).collect::<Vec<_>>(), ["report", "s3://lake/a b"]);
}

#[test]
fn deadlines_are_read_in_the_zone_of_the_dag() {
    let definition = definition(&header(
        "timezone: Europe/Paris\ndeadlines: [{by: \"06:00\"}, {by: \"06:00:30\", timezone: UTC}, {within: 2h}, {within: 1d, of: logical_date}]",
    ));
    let moments = Moments {
        planned_at: at("2025-05-01T00:00:00Z"),
        logical_date: Some(at("2025-04-30T00:00:00Z")),
        queued_at: at("2025-05-01T00:00:01Z"),
        started_at: Some(at("2025-05-01T00:10:00Z")),
    };
    let due: Vec<Option<Timestamp>> = definition.deadlines.iter().map(|deadline| deadline.due_at(&moments)).collect();
    assert_eq!(
        due,
        ["2025-05-01T04:00:00Z", "2025-05-01T06:00:30Z", "2025-05-01T02:10:00Z", "2025-05-01T00:00:00Z"]
            .map(|time| Some(at(time)))
    );
    assert_eq!(definition.deadlines[2], Deadline::Within { span: Duration::from_secs(7200), of: Reference::StartedAt });
}

#[test]
fn everything_wrong_in_a_list_is_told() {
    let report = report(&header("schedule: [\"61 * * * *\", {every: soon}, \"@dialy\", \"0 2 * * *\"]"));
    assert_eq!(report.matches("error[").count(), 3, "{report}");
}

#[test]
fn hostile_nesting_and_length_end_with_a_diagnostic() {
    let deep = format!("schedule: {{assets: {}a{}}}", "{any: [".repeat(20), "]}".repeat(20));
    assert!(report(&header(&deep)).contains("nested more than 16 deep"));
    let long = format!("schedule: [{}]", vec!["\"@daily\""; 101].join(", "));
    assert!(report(&header(&long)).contains("at most 100 schedules"));
}
