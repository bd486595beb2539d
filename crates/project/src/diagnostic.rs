//! What can be wrong with a project, said so that a person can mend it: code, place, hint.

use crate::files::Files;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub mod code;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable: `B0205`. docs/diagnostics.md explains each.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// Where, unless it concerns no single file (a variable of the environment).
    pub place: Option<Span>,
    /// Other places that matter, each with what it is.
    pub labels: Vec<(Span, String)>,
    /// What to do next.
    pub hint: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The DAG is not loaded.
    Error,
    /// The DAG is loaded, and probably does not do what was meant.
    Warning,
}

/// A stretch of one line of a source file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Relative to the project folder.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In characters; at least 1.
    pub length: u32,
}

impl Diagnostic {
    /// Whether it is about backstop.yaml.
    pub fn is_of_project_file(&self) -> bool {
        self.place.as_ref().is_some_and(|at| &*at.file == crate::read::project::FILE)
    }

    /// Whether it says that a connection, pool, notifier or variable is missing or wrong, which backstop.yaml shares with all DAGs. While that file
    /// is broken the same is said of each DAG that names it.
    pub fn names_what_is_shared(&self) -> bool {
        match self.code {
            code::UNKNOWN_CONNECTION | code::UNKNOWN_POOL | code::UNKNOWN_NOTIFIER => true,
            code::TEMPLATE_NAME => {
                ["there is no variable `", "there is no connection `"].iter().any(|text| self.message.starts_with(text))
            }
            _ => false,
        }
    }

    pub(crate) fn error(code: &'static str, message: impl Into<String>, place: Span) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), place: Some(place), labels: Vec::new(), hint: None }
    }

    /// An error that stands in no file.
    pub(crate) fn elsewhere(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), place: None, labels: Vec::new(), hint: None }
    }

    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn label(mut self, place: Span, text: impl Into<String>) -> Self {
        self.labels.push((place, text.into()));
        self
    }

    /// For machines: `{code, severity, message, file, line, column, length, labels, hint}`. What is not known is null.
    pub fn to_json(&self) -> serde_json::Value {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(at, text)| json!({"file": &*at.file, "line": at.line, "column": at.column, "length": at.length, "text": text}))
            .collect();
        let place = self.place.as_ref();
        json!({
            "code": self.code,
            "severity": severity,
            "message": self.message,
            "file": place.map(|at| &*at.file),
            "line": place.map(|at| at.line),
            "column": place.map(|at| at.column),
            "length": place.map(|at| at.length),
            "labels": labels,
            "hint": self.hint,
        })
    }
}

/// A file's line is shown whole up to this many characters; of a longer one (a generated file), a window around the place.
const LINE_LENGTH_MAX: usize = 400;

/// For people: the message, the source line underlined, the hint. It ends with a line feed.
pub fn render(diagnostic: &Diagnostic, files: &dyn Files, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut sources: BTreeMap<Arc<str>, Option<String>> = BTreeMap::new();
    for span in diagnostic.place.iter().chain(diagnostic.labels.iter().map(|(span, _)| span)) {
        sources
            .entry(span.file.clone())
            .or_insert_with(|| files.read(&span.file).ok().map(|b| String::from_utf8_lossy(&b).into_owned()));
    }
    let mut excerpts = Vec::new();
    for (nth, span) in diagnostic.place.iter().chain(diagnostic.labels.iter().map(|(span, _)| span)).enumerate() {
        let text = sources.get(&span.file).and_then(Option::as_deref).unwrap_or("");
        let label = nth.checked_sub(1).and_then(|nth| diagnostic.labels.get(nth)).map(|(_, text)| text.as_str());
        excerpts.push((span, excerpt(text, span), label));
    }
    let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
    for (span, excerpt, label) in &excerpts {
        let kind = if label.is_some() { AnnotationKind::Context } else { AnnotationKind::Primary };
        group = match excerpt {
            Some((line, range)) => group.element(
                Snippet::source(line.as_str())
                    .line_start(span.line as usize)
                    .path(&*span.file)
                    .annotation(kind.span(range.clone()).label(*label)),
            ),
            None => group
                .element(annotate_snippets::Origin::path(&*span.file).line(span.line as usize).char_column(span.column as usize)),
        };
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut rendered = renderer.term_width(140).render(&[group]);
    if !rendered.ends_with('\n') {
        rendered.push('\n');
    }
    rendered
}

/// The line of a place, and the place's range of bytes in it. Control characters are shown as blanks: a source must not drive the terminal. Lines
/// of backstop.yaml that may hold a secret are not shown.
fn excerpt(text: &str, span: &Span) -> Option<(String, Range<usize>)> {
    if &*span.file == crate::read::project::FILE && may_hold_secret(text, span.line) {
        return None;
    }
    let line = text.split('\n').nth(span.line as usize - 1)?.trim_end_matches('\r');
    let first = span.column as usize - 1;
    let window = first.saturating_sub(LINE_LENGTH_MAX / 2);
    let window = if line.chars().count() <= LINE_LENGTH_MAX { 0 } else { window };
    let shown: Vec<char> =
        line.chars().skip(window).take(LINE_LENGTH_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let first = (first - window).min(shown.len());
    let last = (first + span.length as usize).min(shown.len()).max(first);
    let bytes = |until: usize| shown[..until].iter().map(|c| c.len_utf8()).sum::<usize>();
    Some((shown.iter().collect(), bytes(first)..bytes(last)))
}

/// Whether a line of backstop.yaml may stand in `connections:` or `variables:`. It goes by the lines alone, as the file may be no YAML, and takes
/// for safe only what follows a key that is.
fn may_hold_secret(text: &str, line: u32) -> bool {
    const SAFE: &[&str] = &["name:", "pools:", "notifiers:", "defaults:"];
    let mut secret = false;
    for text in text.split('\n').take(line as usize) {
        if SAFE.iter().any(|key| text.starts_with(key)) {
            secret = false;
        } else if !text.is_empty() && !text.starts_with([' ', '\t', '#', '\r']) {
            secret = true;
        }
    }
    secret
}

/// The known name that was probably meant.
pub fn did_you_mean<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    const NEAR: f64 = 0.9;
    let text = text.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            (strsim::damerau_levenshtein(&text, &name.to_lowercase()), strsim::jaro_winkler(&text, &name.to_lowercase()), name)
        })
        .filter(|(steps, likeness, name)| *steps <= 1 + name.chars().count() / 5 || (*likeness >= NEAR && *steps <= 3))
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)))
        .map(|(_, _, name)| name)
}
