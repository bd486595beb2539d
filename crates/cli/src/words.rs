//! Times, lengths of time and counts in words; names that were probably meant.

use jiff::{SignedDuration, Timestamp};

/// `2025-05-01 02:00:07Z`.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// `02:00:07.123`, in UTC.
pub(crate) fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S%.3f").to_string()
}

/// The time from one moment to a later one, in milliseconds.
pub(crate) fn elapsed_ms(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).max(SignedDuration::ZERO).as_millis()).unwrap_or(u64::MAX)
}

/// `123ms`, `1.4s`, `2m03s`, `1h02m`.
pub(crate) fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms / 1000 % 60),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// From one moment to a later one.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> String {
    duration(elapsed_ms(from, to))
}

/// As [`duration`], from microseconds; below a millisecond it says `0.4ms`.
pub(crate) fn duration_us(us: u64) -> String {
    if us < 10_000 { format!("{}.{}ms", us / 1000, us % 1000 / 100) } else { duration(us / 1000) }
}

/// A version of a DAG's files, as short as people know it.
pub(crate) fn version(digest: &str) -> String {
    const CHARACTERS: usize = 12;
    digest.chars().take(CHARACTERS).collect()
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped(number as u64)) }
}

/// `10,000`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `512 bytes`, `1.4 MB`: in powers of 1000.
pub(crate) fn bytes(number: u64) -> String {
    let (unit, name) = match number {
        0..1000 => return count(usize::try_from(number).unwrap_or(usize::MAX), "byte"),
        1000..1_000_000 => (1000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    format!("{}.{} {name}", number / unit, number % unit * 10 / unit)
}

/// The first line, cut to so many characters.
pub(crate) fn short(text: &str, characters: usize) -> String {
    let line = text.lines().next().unwrap_or("");
    if line.chars().count() <= characters && text.lines().nth(1).is_none() {
        return line.to_owned();
    }
    line.chars().take(characters.saturating_sub(1)).chain(['…']).collect()
}

/// The known name that was probably meant.
pub(crate) fn did_you_mean<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let text = text.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&text, &name.to_lowercase()), name))
        .filter(|(steps, name)| *steps <= 1 + name.chars().count() / 4)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, name)| name)
}

/// What to say below "there is no such name": the near one, then all there are.
pub(crate) fn hints_for_name<'k>(text: &str, plural: &str, known: impl IntoIterator<Item = &'k str>) -> Vec<String> {
    const LISTED_MAX: usize = 30;
    let known: Vec<&str> = known.into_iter().collect();
    let mut hints: Vec<String> =
        did_you_mean(text, known.iter().copied()).map(|near| format!("did you mean `{near}`?")).into_iter().collect();
    if known.is_empty() {
        hints.push(format!("there are no {plural}"));
        return hints;
    }
    let more = if known.len() > LISTED_MAX { format!(" and {} more", known.len() - LISTED_MAX) } else { String::new() };
    let listed: Vec<&str> = known.iter().copied().take(LISTED_MAX).collect();
    hints.push(format!("{plural}: {}{more}", listed.join(", ")));
    hints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_well() {
        let told: Vec<String> = [0, 999, 1000, 61_500, 3_720_000].into_iter().map(duration).collect();
        assert_eq!(told, ["0ms", "999ms", "1.0s", "1m01s", "1h02m"]);
        assert_eq!(duration_us(440), "0.4ms");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(
            [0, 1, 999, 1000, 1_450_000, 3 << 30].map(bytes),
            ["0 bytes", "1 byte", "999 bytes", "1.0 kB", "1.4 MB", "3.2 GB"]
        );
    }

    #[test]
    fn near_names_are_found() {
        assert_eq!(did_you_mean("nigthly", ["nightly", "weekly"]), Some("nightly"));
        assert_eq!(did_you_mean("x", ["nightly", "weekly"]), None);
    }
}
