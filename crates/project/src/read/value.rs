//! Reads single values: texts, numbers, durations, SQL.

use super::Reading;
use crate::definition::{Parameters, Source, Template};
use crate::diagnostic::{Diagnostic, Span, code, did_you_mean};
use crate::files::{self, ReadError};
use crate::units;
use crate::yaml::{Node, Value};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

impl Reading<'_> {
    /// A text. Numbers and dates written without quotes are taken as they are written.
    pub(crate) fn text(&mut self, node: &Node, what: &str) -> Option<Arc<str>> {
        match node.as_scalar() {
            Some(text) if !node.is_null() => Some(text.clone()),
            Some(_) | None => {
                let message = format!("{what} must be a text, this is {}", node.describe());
                self.error(code::WRONG_TYPE, message, node);
                None
            }
        }
    }

    /// A text with templates.
    pub(crate) fn template(&mut self, node: &Node, what: &str) -> Option<Template> {
        let text = self.text(node, what)?;
        let template = Template { text, source: node.source(&self.file) };
        self.check_template(&template);
        Some(template)
    }

    /// SQL: the text itself, or a file when it is one line that ends in `.sql`.
    pub(crate) fn sql(&mut self, node: &Node, templated: bool) -> Option<Template> {
        let text = self.text(node, "SQL")?;
        let line = text.trim();
        let template = if is_file(line, ".sql") {
            let text = self.text_of_file(line, node)?;
            Template { text, source: Source { file: files::normal(line).into(), line: 1, column: 1 } }
        } else if line.is_empty() {
            self.error(code::BAD_VALUE, "the SQL is empty", node);
            return None;
        } else {
            Template { text, source: node.source(&self.file) }
        };
        if templated {
            self.check_template(&template);
        }
        Some(template)
    }

    /// The content of a file that the source names; it goes into the bundle.
    pub(crate) fn text_of_file(&mut self, path: &str, node: &Node) -> Option<Arc<str>> {
        if let Some(known) = self.texts.get(path).cloned() {
            // A wrong file was reported where it is named first; each further task that names it is marked, too.
            if known.is_none() {
                self.error(code::MISSING_FILE, format!("file `{path}` cannot be used, as said before"), node);
            }
            return known;
        }
        let read = files::read_text(self.files, path, files::SQL_BYTES_MAX);
        let text = match read {
            Ok(text) => {
                self.used.insert(files::normal(path), text.clone().into_bytes());
                Some(Arc::from(text))
            }
            Err(error) => {
                self.file_error(error, path, node.span(&self.file));
                None
            }
        };
        self.texts.insert(path.to_owned(), text.clone());
        text
    }

    fn file_error(&mut self, error: ReadError, path: &str, at: Span) {
        let diagnostic = match error {
            ReadError::Outside => Diagnostic::error(code::OUTSIDE, format!("`{path}` leads out of the project folder"), at)
                .hint("name a file below the project folder, without `..`"),
            ReadError::NotFound => {
                let diagnostic = Diagnostic::error(code::MISSING_FILE, format!("file `{path}` is not there"), at);
                match self.file_like(path) {
                    Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                    None => diagnostic.hint("paths start at the project folder, where backstop.yaml is"),
                }
            }
            ReadError::TooLarge { bytes, bytes_max } => {
                Diagnostic::error(code::TOO_LARGE, format!("`{path}` has {bytes} bytes; {bytes_max} are allowed"), at)
                    .hint("load data with the database's own bulk loader, and keep the script small")
            }
            ReadError::NotUtf8(place) => {
                let span = Span { file: files::normal(path).into(), line: place.line, column: place.column, length: 1 };
                not_utf8(&span, place.byte).label(at, "named here")
            }
            ReadError::Io(error) => Diagnostic::error(code::UNREADABLE, format!("`{path}` cannot be read: {error}"), at),
        };
        self.diagnostics.push(diagnostic);
    }

    fn file_like(&self, path: &str) -> Option<String> {
        let ending = path.rsplit_once('.').map(|(_, ending)| format!(".{ending}"))?;
        let folder = path.split_once('/').map_or("", |(folder, _)| folder);
        let mut known = self.files.list(folder, &[&ending]).unwrap_or_default();
        if folder != "sql" {
            known.extend(self.files.list("sql", &[&ending]).unwrap_or_default());
        }
        let by_name = |known: &String| known.rsplit('/').next() == path.rsplit('/').next();
        did_you_mean(path, known.iter().map(String::as_str))
            .map(str::to_owned)
            .or_else(|| known.iter().find(|k| by_name(k)).cloned())
    }

    pub(crate) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        let truth = node.as_bool();
        if truth.is_none() {
            let message = format!("{what} must be true or false, this is {}", node.describe());
            self.error_with_hint(code::WRONG_TYPE, message, node, "write `true` or `false`, without quotes");
        }
        truth
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&mut self, node: &Node, what: &str, least: i64, most: i64) -> Option<i64> {
        let Some(value) = node.as_integer() else {
            self.error(code::WRONG_TYPE, format!("{what} must be a whole number, this is {}", node.describe()), node);
            return None;
        };
        if value < least || value > most {
            self.error(code::BAD_VALUE, format!("{what} must be between {least} and {most}, this is {value}"), node);
            return None;
        }
        Some(value)
    }

    /// A whole number that fits a `u32`.
    pub(crate) fn count(&mut self, node: &Node, what: &str, least: u32) -> Option<u32> {
        self.integer(node, what, least.into(), u32::MAX.into()).and_then(|value| u32::try_from(value).ok())
    }

    pub(crate) fn number(&mut self, node: &Node, what: &str) -> Option<f64> {
        let value = node.as_number().and_then(|number| number.as_f64());
        if value.is_none() {
            self.error(code::WRONG_TYPE, format!("{what} must be a number, this is {}", node.describe()), node);
        }
        value
    }

    /// `10m`, `1h30m`, or seconds.
    pub(crate) fn duration(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let text = self.text(node, what)?;
        match units::duration(&text) {
            Ok(duration) => Some(duration),
            Err(why) => {
                let message = format!("{what} is not a duration: {why}");
                self.error_with_hint(
                    code::BAD_DURATION,
                    message,
                    node,
                    "write `90s`, `10m`, `1h30m`, `1d`, or a number of seconds",
                );
                None
            }
        }
    }

    /// A duration that is not zero.
    pub(crate) fn duration_above_zero(&mut self, node: &Node, what: &str) -> Option<Duration> {
        let duration = self.duration(node, what)?;
        if duration.is_zero() {
            self.error(code::BAD_VALUE, format!("{what} must be more than zero"), node);
            return None;
        }
        Some(duration)
    }

    /// `64KiB`, or bytes.
    pub(crate) fn size(&mut self, node: &Node, what: &str, bytes_max: u32) -> Option<u32> {
        let text = self.text(node, what)?;
        let (message, code) = match units::size(&text) {
            Ok(size) if size <= u64::from(bytes_max) => return u32::try_from(size).ok(),
            Ok(_) => (format!("{what} is more than {bytes_max} bytes, the most that is allowed"), code::BAD_VALUE),
            Err(why) => (format!("{what} is not a size: {why}"), code::BAD_SIZE),
        };
        self.error_with_hint(code, message, node, "write `64KiB`, `1MiB`, or a number of bytes");
        None
    }

    /// A date, or a time; without an offset it is in the given zone.
    pub(crate) fn timestamp(&mut self, node: &Node, what: &str, zone: &jiff::tz::TimeZone) -> Option<Timestamp> {
        self.read_time(node, what, |text| units::timestamp(text, zone))
    }

    /// As [`Self::timestamp`], of the end of a span: a day alone is all of that day.
    pub(crate) fn last_timestamp(&mut self, node: &Node, what: &str, zone: &jiff::tz::TimeZone) -> Option<Timestamp> {
        self.read_time(node, what, |text| units::last_timestamp(text, zone))
    }

    fn read_time(&mut self, node: &Node, what: &str, read: impl Fn(&str) -> Option<Timestamp>) -> Option<Timestamp> {
        let text = self.text(node, what)?;
        let read = read(&text);
        if read.is_none() {
            let hint = "write `2025-05-01`, `2025-05-01T02:00:00`, or with an offset `2025-05-01T02:00:00+02:00`";
            self.error_with_hint(code::BAD_DATE, format!("{what} is not a date: `{text}`"), node, hint);
        }
        read
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, node: &Node, what: &str, choices: &[(&'static str, T)]) -> Option<T> {
        let text = self.text(node, what)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == &*text) {
            return Some(*value);
        }
        let names = choices.iter().map(|(name, _)| *name);
        let hint = match did_you_mean(&text, names.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("one of {}", names.collect::<Vec<_>>().join(", ")),
        };
        self.error_with_hint(code::BAD_VALUE, format!("{what} cannot be `{text}`"), node, hint);
        None
    }

    /// A list of texts; a single text is a list of one. Each comes with its node.
    pub(crate) fn texts<'n>(&mut self, node: &'n Arc<Node>, what: &str) -> Vec<(Arc<str>, &'n Node)> {
        match &node.value {
            Value::List(items) => {
                let mut texts = Vec::with_capacity(items.len());
                for item in items {
                    texts.extend(self.text(item, what).map(|text| (text, &**item)));
                }
                texts
            }
            Value::Scalar { .. } if node.is_null() => Vec::new(),
            Value::Scalar { .. } => self.text(node, what).map(|text| (text, &**node)).into_iter().collect(),
            Value::Map(_) => {
                self.error(code::WRONG_TYPE, format!("{what} must be a list of texts, this is {}", node.describe()), node);
                Vec::new()
            }
        }
    }

    /// Any value as JSON; the texts in it may have templates.
    pub(crate) fn json(&mut self, node: &Node) -> serde_json::Value {
        self.check_texts(node);
        node.to_json()
    }

    fn check_texts(&mut self, node: &Node) {
        match &node.value {
            Value::Scalar { text, .. } => {
                let template = Template { text: text.clone(), source: node.source(&self.file) };
                self.check_template(&template);
            }
            Value::List(items) => items.iter().for_each(|item| self.check_texts(item)),
            Value::Map(entries) => entries.iter().for_each(|(_, value)| self.check_texts(value)),
        }
    }

    /// A mapping of names to any values.
    pub(crate) fn parameters(&mut self, node: &Node, what: &str) -> Parameters {
        let Some(entries) = self.map(node, what) else { return BTreeMap::new() };
        entries.iter().map(|(key, value)| (key.text.to_string(), self.json(value))).collect()
    }

    /// A mapping of names to templates.
    pub(crate) fn templates(&mut self, node: &Node, what: &str) -> BTreeMap<String, Template> {
        let mut templates = BTreeMap::new();
        for (key, value) in self.map(node, what).unwrap_or_default() {
            templates.extend(self.template(value, what).map(|template| (key.text.to_string(), template)));
        }
        templates
    }

    /// An id: letters, digits, `_` and `-`.
    pub(crate) fn id(&mut self, text: &str, what: &str, at: Span, dots: bool) -> bool {
        const LENGTH_MAX: usize = 250;
        let allowed = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || (dots && c == '.');
        if text.is_empty() || !text.chars().all(allowed) || text.chars().count() > LENGTH_MAX {
            let message = format!("`{text}` cannot be the id of {what}");
            let hint = format!("an id has letters, digits, `_` and `-`, at most {LENGTH_MAX}");
            self.diagnostics.push(Diagnostic::error(code::BAD_ID, message, at).hint(hint));
            return false;
        }
        true
    }
}

/// True when a value names a file: one line with the ending.
pub(crate) fn is_file(line: &str, ending: &str) -> bool {
    line.len() > ending.len() && line.ends_with(ending) && !line.contains(['\n', ';'])
}

/// A file that is not UTF-8.
pub(crate) fn not_utf8(at: &Span, byte: u8) -> Diagnostic {
    let file = &at.file;
    Diagnostic::error(code::NOT_UTF8, format!("`{file}` is not UTF-8: byte 0x{byte:02X}"), at.clone())
        .hint(format!("if it is Latin-1, convert it: iconv -f LATIN1 -t UTF-8 {file} > new && mv new {file}"))
}
