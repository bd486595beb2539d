//! Reading the settings of a connection: every key is known, known to be without meaning here, or an error.

use crate::config::Config;
use crate::error::Error;
#[cfg(any(feature = "postgres", feature = "mysql"))]
use std::path::PathBuf;
use std::time::Duration;

/// Refuses keys of `extra` that are neither known nor explicitly ignored (Airflow sets some that mean nothing to this engine).
pub(crate) fn check_keys(config: &Config, known: &[&str], ignored: &[&str]) -> Result<(), Error> {
    for key in config.extra.keys() {
        if known.contains(&key.as_str()) || ignored.contains(&key.as_str()) {
            continue;
        }
        let guess = closest(key, known).map_or(String::new(), |guess| format!("; did you mean `{guess}`?"));
        let mut error = Error::config(format!("connection `{}`: unknown setting `{key}`{guess}", config.id));
        error.hint = Some(format!("known settings of `{}`: {}", config.conn_type, known.join(", ")));
        return Err(error);
    }
    Ok(())
}

/// The most similar of some names, where one is similar enough to be meant.
pub(crate) fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (distance, best) = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known)).min()?;
    (distance <= 1 + best.len() / 4).then_some(best)
}

/// A setting's text, where it is given and not empty.
pub(crate) fn text<'a>(config: &'a Config, key: &str) -> Option<&'a str> {
    config.extra.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// A number of seconds, with a fraction if wanted, with or without the unit (`10`, `2.5s`, `500ms`).
pub(crate) fn seconds(config: &Config, key: &str, default: Duration) -> Result<Duration, Error> {
    let Some(value) = text(config, key) else { return Ok(default) };
    let (number, unit) = match (value.strip_suffix("ms"), value.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (value, 1.0),
    };
    let parsed = number.trim().parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number * unit).ok());
    parsed.ok_or_else(|| wrong(config, key, value, "a number of seconds, such as 10 or 500ms"))
}

/// A truth value.
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub(crate) fn truth(config: &Config, key: &str, default: bool) -> Result<bool, Error> {
    match text(config, key).map(str::to_ascii_lowercase).as_deref() {
        None => Ok(default),
        Some("true" | "1" | "yes" | "on") => Ok(true),
        Some("false" | "0" | "no" | "off") => Ok(false),
        Some(value) => Err(wrong(config, key, value, "true or false")),
    }
}

/// A path, from the project's folder if it is relative.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn path(config: &Config, key: &str) -> Option<PathBuf> {
    text(config, key).map(|value| config.base_dir.join(value))
}

/// The error for a value that cannot be read.
pub(crate) fn wrong(config: &Config, key: &str, value: &str, expected: &str) -> Error {
    Error::config(format!("connection `{}`: `{key}` is `{value}`, expected {expected}", config.id))
}
