//! The engine's errors, at their place in the source.

use super::engine::STEPS_MAX;
use super::names::NAMES;
use crate::definition::Source;
use crate::diagnostic::did_you_mean;
use minijinja::{Error, ErrorKind};

/// Why a template could not be rendered. The message never holds a rendered text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct TemplateError {
    /// Relative to the project folder.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1; the line's first where only the line is known.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Where a byte of a text stands in the source: line and column, from 1.
pub(crate) fn place(source: &Source, text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let lines = before.bytes().filter(|byte| *byte == b'\n').count();
    let in_line = before.rsplit('\n').next().unwrap_or("").chars().count();
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    (source.line.saturating_add(number(lines)), source.column.saturating_add(number(in_line)))
}

/// An error of a template.
pub(super) fn locate(error: &Error, text: &str, source: &Source) -> TemplateError {
    let offset = match (error.range(), error.line()) {
        (Some(range), _) => range.start,
        (None, Some(line)) => text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum(),
        (None, None) => 0,
    };
    let (line, column) = place(source, text, offset);
    let expression = error.range().and_then(|range| text.get(range)).unwrap_or("");
    build(error, expression, source, line, column)
}

/// An error of a text that is one expression. The engine's places are those of the expression, which begins after the braces.
pub(super) fn of_expression(error: &Error, text: &str, source: &Source) -> TemplateError {
    let inner = super::sole_expression(text).unwrap_or(text);
    let shift = inner.as_ptr() as usize - text.as_ptr() as usize;
    let range = error.range();
    let offset = shift + range.as_ref().map_or(0, |range| range.start);
    let (line, column) = place(source, text, offset);
    let expression = range.and_then(|range| inner.get(range)).unwrap_or(inner.trim());
    build(error, expression, source, line, column)
}

/// A template whose output passes the bound.
pub(super) fn too_much_output(error: &Error, text: &str, source: &Source) -> TemplateError {
    let mut located = locate(error, text, source);
    located.message = format!("the template renders to more than {} MiB beyond its own length", super::OUTPUT_BYTES_MAX >> 20);
    located.hint = Some("does a loop run too often? Large data belongs into a table, not into SQL text".to_owned());
    located
}

/// Output that is not UTF-8, which the engine cannot make.
pub(super) fn not_text(source: &Source) -> TemplateError {
    let message = "the template renders to bytes that are no text".to_owned();
    TemplateError { file: source.file.to_string(), line: source.line, column: source.column, message, hint: None }
}

fn build(error: &Error, expression: &str, source: &Source, line: u32, column: u32) -> TemplateError {
    let (message, hint) = explain(error, expression);
    TemplateError { file: source.file.to_string(), line, column, message, hint }
}

/// What is wrong, and what to do.
pub(crate) fn explain(error: &Error, expression: &str) -> (String, Option<String>) {
    let detail = error.detail().unwrap_or_default();
    let plain = if detail.is_empty() { error.kind().to_string() } else { detail.to_owned() };
    match error.kind() {
        ErrorKind::UndefinedError => undefined(expression, &plain),
        ErrorKind::OutOfFuel => (
            format!("the template does not come to an end: it used up its {STEPS_MAX} steps"),
            Some("look for a loop that runs too often, or a macro that calls itself".to_owned()),
        ),
        ErrorKind::SyntaxError | ErrorKind::BadEscape => (
            format!("template syntax: {plain}"),
            Some("to write `{{` in SQL that is no template, set `templated: false` or use {% raw %}".to_owned()),
        ),
        ErrorKind::UnknownFilter | ErrorKind::UnknownFunction | ErrorKind::UnknownTest | ErrorKind::UnknownMethod => {
            (plain, Some("docs/format.md lists the names, filters and functions of templates".to_owned()))
        }
        ErrorKind::TemplateNotFound | ErrorKind::BadInclude => {
            ("templates cannot include or import other files".to_owned(), Some("put the text into the script itself".to_owned()))
        }
        ErrorKind::InvalidOperation if plain.contains("operator") || plain.starts_with("tried to use") => {
            let hint = "for dates: `.add(days=1)`, `.subtract(hours=2)`".to_owned();
            (plain, Some(hint))
        }
        _ => (plain, None),
    }
}

fn undefined(expression: &str, plain: &str) -> (String, Option<String>) {
    let name: String = expression.chars().take(80).collect();
    if name.is_empty() {
        return (format!("something in this template is not defined: {plain}"), None);
    }
    let first = name.split(['.', '[', '(', ' ', '|']).next().unwrap_or("");
    let hint = match renamed(first) {
        Some(now) => Some(format!("use `{now}`")),
        None if NAMES.contains(&first) => None,
        None => did_you_mean(first, NAMES.iter().copied()).map(|near| format!("did you mean `{near}`?")),
    };
    (format!("`{name}` is not defined"), hint)
}

/// Names that Airflow dropped, and what stands for them.
pub(crate) fn renamed(name: &str) -> Option<&'static str> {
    Some(match name {
        "execution_date" => "logical_date",
        "prev_execution_date" | "prev_execution_date_success" => "prev_logical_date",
        "next_execution_date" => "next_logical_date",
        "yesterday_ds" => "macros.ds_add(ds, -1)",
        "tomorrow_ds" => "macros.ds_add(ds, 1)",
        "yesterday_ds_nodash" => "macros.ds_add(ds, -1) | ds_nodash",
        "tomorrow_ds_nodash" => "macros.ds_add(ds, 1) | ds_nodash",
        _ => return None,
    })
}
