//! Variables of the environment: `${NAME}` in backstop.yaml, and connections and variables as Airflow takes them.

use crate::connection::{self, supported};
use crate::definition::Connection;
use crate::diagnostic::{Diagnostic, code};
use crate::read::{short_password, unknown_type};
use crate::secrets::is_short;
use std::collections::BTreeMap;

/// Variables of the environment, as far as they are valid Unicode.
pub type Environment = BTreeMap<String, String>;

/// A text in which variables were replaced.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Substituted {
    /// The whole text.
    pub(crate) text: String,
    /// The names in it, and what stands in their places.
    pub(crate) used: Vec<(String, String)>,
}

/// The text with `${NAME}` and `${NAME:-default}` replaced; `$$` is a dollar sign. A `$` before anything else stays as it is.
///
/// # Errors
/// The names that are not set and have no default.
pub(crate) fn substitute(text: &str, environment: &Environment) -> Result<Substituted, Vec<String>> {
    let mut replaced = String::with_capacity(text.len());
    let mut used = Vec::new();
    let mut missing = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        replaced.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            replaced.push('$');
            rest = after;
            continue;
        }
        let inner = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((inner, after)) = inner else {
            replaced.push('$');
            continue;
        };
        let (name, default) = match inner.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        // As in a shell, `:-` also stands in for a variable that is set to nothing.
        let value = match (environment.get(name), default) {
            (Some(value), None) => Some(value.as_str()),
            (Some(value), Some(_)) if !value.is_empty() => Some(value.as_str()),
            (_, Some(default)) => Some(default),
            (None, None) => None,
        };
        match value {
            Some(value) => {
                replaced.push_str(value);
                used.push((name.to_owned(), value.to_owned()));
            }
            None => missing.push(name.to_owned()),
        }
        rest = after;
    }
    replaced.push_str(rest);
    if missing.is_empty() { Ok(Substituted { text: replaced, used }) } else { Err(missing) }
}

/// Adds `BACKSTOP_CONN_*`, then `AIRFLOW_CONN_*`, to the connections that are not there yet. Ids that are there but wrong come back in `broken`.
pub(crate) fn add_connections(
    environment: &Environment,
    connections: &mut BTreeMap<String, Connection>,
    broken: &mut std::collections::BTreeSet<String>,
    diagnostics: &mut Vec<Diagnostic>,
) {
    for prefix in ["BACKSTOP_CONN_", "AIRFLOW_CONN_"] {
        for (name, value) in environment {
            let Some(id) = name.strip_prefix(prefix).filter(|id| !id.is_empty()) else { continue };
            let id = id.to_lowercase();
            if connections.contains_key(&id) || broken.contains(&id) {
                continue;
            }
            let origin = format!("environment variable {name}");
            let read = if value.trim_start().starts_with('{') {
                connection::parse_json(value, &origin)
            } else {
                connection::parse_uri(value, &origin)
            };
            match read {
                Ok(connection) if supported(&connection.conn_type) => {
                    if is_short(connection.password.as_deref()) {
                        let (message, hint) = short_password();
                        let diagnostic = Diagnostic::elsewhere(code::SHORT_PASSWORD, format!("{origin}: {message}"));
                        diagnostics.push(diagnostic.hint(hint).warning());
                    }
                    connections.insert(id, connection);
                }
                // Airflow's environment may hold connections of all kinds, which no DAG here uses: that is no error of this project.
                Ok(connection) => {
                    let (message, hint) = unknown_type(&connection.conn_type);
                    let diagnostic = Diagnostic::elsewhere(code::UNKNOWN_CONNECTION_TYPE, format!("{origin}: {message}"));
                    diagnostics.push(diagnostic.hint(hint).warning());
                    broken.insert(id);
                }
                Err(error) => {
                    let hint = "write `postgres://user:password@host:5432/database`, or JSON with `conn_type`";
                    diagnostics.push(Diagnostic::elsewhere(code::BAD_CONNECTION, format!("{origin}: {error}")).hint(hint));
                    broken.insert(id);
                }
            }
        }
    }
}

/// Adds `BACKSTOP_VAR_*`, then `AIRFLOW_VAR_*`, lower-cased, to the variables that are not there yet.
pub(crate) fn add_variables(environment: &Environment, variables: &mut BTreeMap<String, serde_json::Value>) {
    for prefix in ["BACKSTOP_VAR_", "AIRFLOW_VAR_"] {
        for (name, value) in environment {
            let Some(id) = name.strip_prefix(prefix).filter(|id| !id.is_empty()) else { continue };
            variables.entry(id.to_lowercase()).or_insert_with(|| value.as_str().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<&str, &[&str]>) {
        let environment = Environment::from([("A".to_owned(), "one".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let found = substitute(text, &environment).map(|found| found.text);
        assert_eq!(found, expect.map(str::to_owned).map_err(|names| names.iter().map(|n| (*n).to_owned()).collect()), "{text}");
    }

    #[test]
    fn variables_are_replaced() {
        check("x", Ok("x"));
        check("${A}-${A}", Ok("one-one"));
        check("${B:-two}${EMPTY:-three}${EMPTY}", Ok("twothree"));
        check("$A $ $$ $${A} ${A", Ok("$A $ $ ${A} ${A"));
        check("${B} ${C}", Err(&["B", "C"]));
    }
}
