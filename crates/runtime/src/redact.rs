//! Keeps secrets out of texts that leave the process: a driver or a script may quote them back.

mod inline;
mod literal;
mod options;
mod told;

pub use told::Masked;

use backstop_project::definition::Project;
use backstop_project::{Bundle, MASKED_BYTES_MIN};
use std::borrow::Cow;

/// A line of a secret is masked alone when it has so many bytes: a script may print a key line by line.
const LINE_BYTES_MIN: usize = 8;

/// Known secrets, longest first.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// What the project knows to be secret.
    pub fn of(project: &Project) -> Self {
        Self::for_secrets(project.secrets().iter())
    }

    /// What any of the projects knows to be secret.
    pub fn of_all<'p>(projects: impl Iterator<Item = &'p Project>) -> Self {
        let secrets: Vec<_> = projects.map(Project::secrets).collect();
        Self::for_secrets(secrets.iter().flat_map(|secrets| secrets.iter()))
    }

    fn for_secrets<'s>(known: impl Iterator<Item = &'s str>) -> Self {
        let mut secrets: Vec<String> = Vec::new();
        for secret in known {
            secrets.extend([secret.to_owned(), percent_encode(secret), json_escape(secret)]);
            if secret.contains('\n') {
                let lines = secret.lines().map(str::trim).filter(|line| line.len() >= LINE_BYTES_MIN);
                secrets.extend(lines.flat_map(|line| [line.to_owned(), json_escape(line)]));
            }
        }
        Self::longest_first(secrets)
    }

    fn longest_first(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= MASKED_BYTES_MIN);
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self { secrets }
    }

    /// The text with every known secret replaced by `***`, also one of which a `…` left the beginning alone.
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut cleaned = Cow::Borrowed(text);
        for secret in &self.secrets {
            if cleaned.contains(secret.as_str()) {
                cleaned = Cow::Owned(cleaned.replace(secret.as_str(), "***"));
            }
            if let Some(masked) = without_beginning(&cleaned, secret) {
                cleaned = Cow::Owned(masked);
            }
        }
        cleaned
    }

    /// The files of a DAG as people may see them: without known secrets, and without what stands in them under keys such as `password` or
    /// `Authorization`, in URIs, and as programs are given it. A file without any stays as it is, byte by byte.
    pub fn clean_files(&self, bundle: &Bundle) -> Bundle {
        let mut cleaned = bundle.clone();
        for (path, bytes) in &mut cleaned.files {
            let text = String::from_utf8_lossy(bytes);
            let is_python = path.ends_with(".py");
            let masked = literal::masked(path, &text);
            let masked: String = masked.split_inclusive('\n').map(|line| inline::masked(line, is_python)).collect();
            let masked = self.clean(&masked).into_owned();
            if masked != text {
                *bytes = masked.into_bytes();
            }
        }
        cleaned
    }

    /// SQL as people may see it: without known secrets, and without those that a script gives to a server itself.
    pub fn clean_sql(&self, text: &str) -> String {
        let masked: String = text.split_inclusive('\n').map(|line| inline::masked(line, false)).collect();
        self.clean(&masked).into_owned()
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

/// The text without the beginnings of a secret that was cut off; `None` where there is none.
fn without_beginning(text: &str, secret: &str) -> Option<String> {
    let mut kept = String::new();
    let mut done = 0;
    for (cut, _) in text.match_indices('…') {
        let before = &text[done..cut];
        let lengths = (MASKED_BYTES_MIN..secret.len()).rev().filter(|length| secret.is_char_boundary(*length));
        if let Some(length) = lengths.into_iter().find(|length| before.ends_with(&secret[..*length])) {
            kept.push_str(&before[..before.len() - length]);
            kept.push_str("***");
            done = cut;
        }
    }
    (done > 0).then(|| kept + &text[done..])
}

/// As a text stands in JSON, between its quotes.
fn json_escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
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
    fn what_the_environment_puts_into_an_innocent_variable_is_masked() {
        let yaml = "connections:\n  a: {conn_type: mysql, password: p@ss-word}\nvariables: {url: \"https://h/?t=${SHOP_TOKEN}\", short: \"${PIN_SECRET}\"}\n";
        let files = [("backstop.yaml".to_owned(), yaml.as_bytes().to_vec())].into();
        let bundle = backstop_project::Bundle { files, ..backstop_project::Bundle::default() };
        let environment =
            [("SHOP_TOKEN", "tok-1234"), ("PIN_SECRET", "123")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let redactor = Redactor::of(&backstop_project::load(&bundle, &environment.into()).project);
        assert_eq!(redactor.clean("GET https://h/?t=tok-1234 p%40ss-word p@ss-word 123"), "GET https://h/?t=*** *** *** 123");
    }

    #[test]
    fn the_beginning_of_a_secret_that_was_cut_off_is_masked() {
        let redactor = Redactor { secrets: vec!["hunter22".into()] };
        assert_eq!(redactor.clean("SELECT 'hunter2… SELECT 'hunt… and hunter22…"), "SELECT '***… SELECT '***… and ***…");
        assert_eq!(redactor.clean("a hun… hunter"), "a hun… hunter");
    }

    #[test]
    fn a_secret_of_many_lines_is_masked_line_by_line_and_as_json() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhki\"G9w0BAQ\r\nab==\n-----END KEY-----\n";
        let redactor = Redactor::for_secrets([key].into_iter());
        assert_eq!(redactor.clean(key), "***");
        assert_eq!(redactor.clean("> MIIEvQIBADANBg\n> kqhki\"G9w0BAQ\n> ab==\n"), "> ***\n> ***\n> ab==\n");
        let json = serde_json::json!({ "k": key, "line": "kqhki\"G9w0BAQ" }).to_string();
        assert_eq!(redactor.clean(&json), r#"{"k":"***","line":"***"}"#);
    }

    #[test]
    fn a_secret_is_masked_wherever_it_stands() {
        let redactor = Redactor { secrets: vec!["hunter22".into()] };
        assert_eq!(redactor.clean("password=hunter22 refused (hunter22)"), "password=*** refused (***)");
        assert!(matches!(redactor.clean("nothing here"), Cow::Borrowed(_)));
    }
}
