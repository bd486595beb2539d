//! Durations, sizes and times as people write them.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use std::time::Duration;

/// `10m`, `1h30m`, `1d`, `1.5h`, `500ms`, or a number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const SECONDS_MAX: f64 = 3_155_760_000.0;
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.starts_with('-') {
        return Err(format!("`{text}` is negative"));
    }
    let mut seconds = 0.0;
    let mut rest = text;
    let mut smallest = f64::INFINITY;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let value: f64 = rest[..digits].parse().map_err(|_| format!("`{text}` has a unit without a number"))?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" | "sec" | "second" | "seconds" => 1.0,
            "m" | "min" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            "w" | "week" | "weeks" => 604_800.0,
            "" if smallest.is_infinite() && rest.is_empty() => 1.0,
            "" => return Err(format!("`{text}` has a number without a unit")),
            other => return Err(format!("`{other}` is no unit")),
        };
        if unit >= smallest {
            return Err(format!("in `{text}` the units do not go from large to small"));
        }
        smallest = unit;
        seconds += value * unit;
        rest = rest[letters..].trim_start();
    }
    if seconds > SECONDS_MAX {
        return Err(format!("`{text}` is more than a hundred years"));
    }
    // Milliseconds are fine enough, and free `1.1s` of the noise of binary fractions.
    Ok(Duration::from_millis((seconds * 1000.0).round() as u64))
}

/// `64KiB`, `1MiB`, `64K`, `10kB`, or a number of bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let value: u64 = text[..digits].parse().map_err(|_| format!("`{text}` does not begin with a number"))?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        other => return Err(format!("`{other}` is no unit")),
    };
    value.checked_mul(unit).ok_or_else(|| format!("`{text}` is too large"))
}

/// As [`timestamp`], of the end of a span: a day alone is all of that day, to its last microsecond.
pub(crate) fn last_timestamp(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    // A time reads as a day, too, with what tells the time left out.
    let day = text.trim().parse::<civil::Date>().ok().filter(|_| !text.trim().contains(['T', 't', ' ', ':', '[']));
    let Some(day) = day else { return timestamp(text, zone) };
    let next = day.tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp();
    next.checked_sub(SignedDuration::from_micros(1)).ok()
}

/// A date or a time, in the zone unless it has an offset of its own.
pub(crate) fn timestamp(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let civil: civil::DateTime = text.parse().ok()?;
    civil.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
}
