//! What can be wrong with a project, said so that a person can mend it: code, place, hint.

use crate::files::Files;
use std::sync::Arc;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Stable: `B0103`. docs/diagnostics.md explains each.
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// For machines: `{code, severity, message, file, line, column, length, labels, hint}`.
    pub fn to_json(&self) -> serde_json::Value {
        let _ = self;
        serde_json::Value::Null
    }
}

/// For people: the message, the source line underlined, the hint. It ends with a line feed.
pub fn render(diagnostic: &Diagnostic, _files: &dyn Files, _colour: bool) -> String {
    diagnostic.message.clone()
}
