//! Whether a schedule's text is one. When it falls due is the scheduler's to know.

use crate::diagnostic::did_you_mean;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

/// Airflow's presets.
pub(crate) const PRESETS: &[&str] =
    &["@once", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly", "@annually", "@midnight"];

/// Schedules of later versions.
pub(crate) const LATER: &[&str] = &["assets", "events", "any", "all"];

/// Checks a preset or cron text; if it is wrong, says what and what to do.
pub(crate) fn check(text: &str) -> Result<(), (String, String)> {
    let text = text.trim();
    if text.starts_with('@') {
        if PRESETS.contains(&text) {
            return Ok(());
        }
        let hint = match did_you_mean(text, PRESETS.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}; or cron text, or `{{every: 15m}}`", PRESETS.join(", ")),
        };
        return Err((format!("there is no preset `{text}`"), hint));
    }
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    match parser.parse(text) {
        Ok(cron) if falls_due(&cron) => Ok(()),
        Ok(_) => {
            let hint = "no year has a day that fits its day-of-month and month; for a month's last day write `L`: `0 2 L * *`";
            Err((format!("`{text}` never falls due"), hint.to_owned()))
        }
        Err(error) => {
            let hint = "five fields: minute hour day-of-month month day-of-week, such as `0 2 * * *` for 2 o'clock every night";
            Err((format!("`{text}` is not a cron schedule: {}", error.to_string().trim_end_matches('.')), hint.to_owned()))
        }
    }
}

/// Whether any day of the calendar fits. The search begins at a fixed time, so that a source is judged the same on every day, and ends after
/// several turns of the calendar, which repeats itself every 400 years.
fn falls_due(cron: &croner::Cron) -> bool {
    let start = jiff::civil::date(2000, 1, 1).to_zoned(jiff::tz::TimeZone::UTC);
    let Ok(start) = start else { return true };
    !matches!(cron.find_next_occurrence(&start, true), Err(CronError::TimeSearchLimitExceeded))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn a_schedule_that_no_calendar_has_is_told() {
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "*/5 * 30-31 2 *", "0 0 0 31 2 *"] {
            let (message, hint) = check(never).unwrap_err();
            assert!(message.contains("never falls due") && hint.contains("`L`"), "{never}: {message}");
        }
    }

    #[test]
    fn a_schedule_that_is_seldom_due_is_one() {
        // A leap day; a weekday besides a day that is never; the last day; a fifth Monday of February, which only some leap years have.
        for seldom in ["0 0 29 2 *", "0 0 30 2 1", "0 0 L 2 *", "0 0 * 2 MON#5", "30 2 * * *"] {
            assert_eq!(check(seldom), Ok(()), "{seldom}");
        }
    }
}
