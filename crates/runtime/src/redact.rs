//! Keeps secrets out of texts that leave the process: a driver or a script may quote them back.

use backstop_project::definition::Project;
use std::borrow::Cow;

/// Known secrets, longest first.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    secrets: Vec<String>,
}

/// Shorter secrets would mask ordinary words everywhere, and are not masked.
const SECRET_BYTES_MIN: usize = 4;

impl Redactor {
    /// The passwords and the secret-looking extras of a project's connections, and the variables whose names say that they are secret, as
    /// Airflow masks them.
    pub(crate) fn of(project: &Project) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for connection in project.connections.values() {
            secrets.extend(connection.password.clone());
            secrets.extend(connection.extra.iter().filter(|(key, _)| is_secret_key(key)).map(|(_, value)| value.clone()));
        }
        for (name, value) in &project.variables {
            if is_secret_key(name) {
                secrets.extend(value.as_str().map(str::to_owned));
            }
        }
        let encoded: Vec<String> = secrets.iter().map(|secret| percent_encode(secret)).collect();
        secrets.extend(encoded);
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// The text with every known secret replaced by `***`.
    pub(crate) fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut cleaned = Cow::Borrowed(text);
        for secret in &self.secrets {
            if cleaned.contains(secret.as_str()) {
                cleaned = Cow::Owned(cleaned.replace(secret.as_str(), "***"));
            }
        }
        cleaned
    }

    /// Cleans in place.
    pub(crate) fn clean_string(&self, text: &mut String) {
        if let Cow::Owned(cleaned) = self.clean(text) {
            *text = cleaned;
        }
    }
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "private_key", "keyfile_dict", "api_key", "apikey", "passphrase"]
        .iter()
        .any(|word| key.contains(word))
}

/// As a password stands in a URI.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_wherever_it_stands() {
        let redactor = Redactor { secrets: vec!["hunter22".into()] };
        assert_eq!(redactor.clean("password=hunter22 refused (hunter22)"), "password=*** refused (***)");
        assert!(matches!(redactor.clean("nothing here"), Cow::Borrowed(_)));
    }
}
