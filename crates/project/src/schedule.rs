//! Whether a schedule's text is one. When it falls due is the scheduler's to know.

use crate::diagnostic::did_you_mean;
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
        Ok(_) => Ok(()),
        Err(error) => {
            let hint = "five fields: minute hour day-of-month month day-of-week, such as `0 2 * * *` for 2 o'clock every night";
            Err((format!("`{text}` is not a cron schedule: {}", error.to_string().trim_end_matches('.')), hint.to_owned()))
        }
    }
}
