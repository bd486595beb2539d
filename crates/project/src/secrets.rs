//! Which values of a project are secrets: what must be masked wherever a text leaves the process.

use crate::definition::Project;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// Shorter secrets are not masked: a mask for so short a text would hide ordinary words everywhere.
pub const MASKED_BYTES_MIN: usize = 4;

/// The variable of the environment with the token of the service. It is for who asks the service: tasks do not get it.
pub const SERVICE_TOKEN: &str = "BACKSTOP_TOKEN";

/// Values that are secret. Its `Debug` shows none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeSet<String>);

impl Secrets {
    pub(crate) fn add(&mut self, value: impl Into<String>) {
        self.0.insert(value.into());
    }

    /// The values.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Every text and number in a value.
    fn add_all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text.as_str()),
            Value::Number(number) => self.add(number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.add_all(item)),
            Value::Object(map) => map.values().for_each(|value| self.add_all(value)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// What stands in a value under keys that say that it is secret. A text that is JSON is looked into, as `var.json` does.
    fn add_named(&mut self, value: &Value) {
        match value {
            Value::String(text) if text.trim_start().starts_with(['{', '[']) => {
                if let Ok(value @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                    self.add_named(&value);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.add_named(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    if is_secret_key(key) {
                        self.add_all(value);
                    } else {
                        self.add_named(value);
                    }
                }
            }
            Value::String(_) | Value::Number(_) | Value::Null | Value::Bool(_) => {}
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Project {
    /// Everything to mask: passwords of connections; their extra settings, and variables, whose names say that they are secret; and what
    /// `${NAME}` put into such a place, or anywhere where NAME itself says so. Values shorter than [`MASKED_BYTES_MIN`] are among them.
    pub fn secrets(&self) -> Secrets {
        let mut secrets = self.interpolated_secrets.clone();
        for connection in self.connections.values() {
            connection.password.iter().for_each(|password| secrets.add(password.as_str()));
            connection.extra.iter().filter(|(key, _)| is_secret_key(key)).for_each(|(_, value)| secrets.add(value.as_str()));
        }
        for (name, value) in &self.variables {
            if is_secret_key(name) {
                secrets.add_all(value);
            } else {
                secrets.add_named(value);
            }
        }
        secrets
    }
}

/// True for a secret that cannot be masked. There is nothing to mask in an empty one.
pub(crate) fn is_short(secret: Option<&str>) -> bool {
    secret.is_some_and(|secret| (1..MASKED_BYTES_MIN).contains(&secret.len()))
}

/// True for a key whose value is secret, by its name; Airflow masks by about the same words.
pub fn is_secret_key(key: &str) -> bool {
    const WORDS: &[&str] = &[
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "private_key",
        "access_key",
        "api_key",
        "apikey",
        "keyfile_dict",
        "credential",
        "authorization",
    ];
    let key = key.to_ascii_lowercase();
    WORDS.iter().any(|word| key.contains(word)) || key.split(['_', '-', '.']).any(|word| word == "pwd")
}

/// True for a variable of the environment whose value is secret, by its name. It asks for less than [`is_secret_key`]: what comes out of the
/// environment is there to be kept out of files. Yet a port or a host is no secret, whatever it is the port of.
pub(crate) fn is_secret_variable(name: &str) -> bool {
    const PLAIN: &[&str] = &["host", "port", "user", "name", "region", "version", "timeout"];
    if is_secret_key(name) {
        return true;
    }
    let name = name.to_ascii_lowercase();
    let mut words = name.split('_');
    let is_named = words.clone().any(|word| word == "api" || word.ends_with("key") || word.ends_with("pwd"));
    is_named && !words.next_back().is_some_and(|last| PLAIN.contains(&last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_secret() {
        for name in [
            "SALES_PASSWORD",
            "GITHUB_TOKEN",
            "secret",
            "AWS_ACCESS_KEY_ID",
            "DB_PWD",
            "PGPWD",
            "CREDENTIALS",
            "KEY",
            "MAILER_API",
            "APIKEY",
        ] {
            assert!(is_secret_variable(name), "{name}");
        }
        for name in ["HOME", "SALES_HOST", "REGION", "API_HOST", "API_PORT", "KEYBOARD", "THERAPIST", "CAPITAL"] {
            assert!(!is_secret_variable(name), "{name}");
        }
        for key in ["password", "client_secret", "sas_token", "private_key_content", "db_pwd"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["sslmode", "sslkey", "primary_key", "api", "keyspace", "pwdless"] {
            assert!(!is_secret_key(key), "{key}");
        }
    }
}
