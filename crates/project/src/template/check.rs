//! Checks a template when the project is loaded: its syntax, and the names that it uses.

use super::engine;
use super::error::{explain, place, renamed};
use super::macros::{MACROS, REFUSED};
use super::names::{CONNECTION_NAMES, NAMES, is_secret, secret};
use crate::definition::Template;
use crate::diagnostic::{Diagnostic, Span, code, did_you_mean};
use crate::read::Scope;
use minijinja::Environment;
use std::collections::{BTreeSet, HashSet};

/// Checks templates against the names of a DAG.
pub(crate) struct Checker {
    engine: Environment<'static>,
    /// `None` where any may be there.
    params: Option<BTreeSet<String>>,
    /// Tags of templates that were found good. A generated DAG has the same few in a hundred thousand tasks.
    good: HashSet<String>,
}

impl Default for Checker {
    fn default() -> Self {
        Self { engine: engine::new(), params: None, good: HashSet::new() }
    }
}

/// Functions of the engine itself.
const FUNCTIONS: &[&str] = &["range", "dict", "namespace", "loop", "caller", "self", "super", "cycler", "joiner"];

impl Checker {
    /// The parameters of the DAG that comes next.
    pub(crate) fn set_params(&mut self, names: impl IntoIterator<Item = String>) {
        self.good.clear();
        self.params = Some(names.into_iter().collect());
    }

    /// Any parameter may be there.
    pub(crate) fn forget_params(&mut self) {
        self.good.clear();
        self.params = None;
    }

    /// Reports what is wrong with a template.
    pub(crate) fn check(&mut self, template: &Template, scope: &Scope, diagnostics: &mut Vec<Diagnostic>) {
        let tags = tags(&template.text);
        if tags.as_ref().is_some_and(|tags| self.good.contains(tags)) {
            return;
        }
        let before = diagnostics.len();
        self.check_names(template, scope, diagnostics);
        // A bound, as a project of different templates would keep them all.
        const GOOD_MAX: usize = 10_000;
        if diagnostics.len() == before && self.good.len() < GOOD_MAX {
            self.good.extend(tags);
        }
    }

    fn check_names(&self, template: &Template, scope: &Scope, diagnostics: &mut Vec<Diagnostic>) {
        let compiled = match self.engine.template_from_str(&template.text) {
            Ok(compiled) => compiled,
            Err(error) => {
                diagnostics.push(syntax_error(template, &error));
                return;
            }
        };
        let mut names: Vec<String> = compiled.undeclared_variables(true).into_iter().collect();
        names.sort();
        for name in &names {
            if is_guarded(&template.text, name) {
                continue;
            }
            if let Some((code, message, hint)) = self.wrong(name, scope) {
                let diagnostic = Diagnostic::error(code, message, span_of_name(template, name));
                diagnostics.push(match hint {
                    Some(hint) => diagnostic.hint(hint),
                    None => diagnostic,
                });
            }
        }
    }

    /// What is wrong with a dotted name, if anything.
    fn wrong(&self, name: &str, scope: &Scope) -> Option<(&'static str, String, Option<String>)> {
        let parts: Vec<&str> = name.split('.').collect();
        let missing = |what: String, known: &mut dyn Iterator<Item = &str>, wanted: &str| {
            let near = did_you_mean(wanted, known).map(|near| format!("did you mean `{near}`?"));
            Some((code::TEMPLATE_NAME, what, near))
        };
        match parts.as_slice() {
            ["params", param, ..] => {
                let known = self.params.as_ref()?;
                if known.contains(*param) || matches!(*param, "get" | "items" | "keys" | "values") {
                    return None;
                }
                let found = missing(format!("the DAG has no parameter `{param}`"), &mut known.iter().map(String::as_str), param);
                found.map(|(code, what, hint)| {
                    (code, what, hint.or_else(|| Some(format!("add it to `params:`: `{param}: <default>`"))))
                })
            }
            ["var", "value" | "json", variable, ..] => {
                if *variable == "get" || scope.variables.contains(*variable) || scope.variables.contains(&variable.to_lowercase())
                {
                    return None;
                }
                let what = format!("there is no variable `{variable}`");
                let found = missing(what, &mut scope.variables.iter().map(String::as_str), variable);
                let set = format!("add it to `variables:` in backstop.yaml, or set BACKSTOP_VAR_{}", variable.to_uppercase());
                found.map(|(code, what, hint)| (code, what, hint.or(Some(set))))
            }
            ["conn", "get", ..] => None,
            ["conn", id, rest @ ..] => {
                if !scope.connections.contains_key(&id.to_lowercase()) {
                    return missing(
                        format!("there is no connection `{id}`"),
                        &mut scope.connections.keys().map(String::as_str),
                        id,
                    );
                }
                let attribute = *rest.first()?;
                if is_secret(attribute) {
                    let hint = "the connection gives the password to the driver by itself".to_owned();
                    return Some((code::TEMPLATE_REFUSED, secret(id, attribute), Some(hint)));
                }
                if CONNECTION_NAMES.contains(&attribute) {
                    return None;
                }
                missing(
                    format!("a connection has no `{attribute}` for templates"),
                    &mut CONNECTION_NAMES.iter().copied(),
                    attribute,
                )
            }
            ["macros", name, ..] if REFUSED.contains(name) => Some((
                code::TEMPLATE_REFUSED,
                format!("`macros.{name}` is not available"),
                Some("a template renders to the same text each time, so that a retry does the same work".to_owned()),
            )),
            ["macros", name, ..] if !MACROS.contains(name) => {
                missing(format!("there is no `macros.{name}`"), &mut MACROS.iter().copied(), name)
            }
            [first, ..] if !NAMES.contains(first) && !FUNCTIONS.contains(first) => {
                if let Some(now) = renamed(first) {
                    return Some((code::TEMPLATE_NAME, format!("`{first}` is not offered"), Some(format!("use `{now}`"))));
                }
                let found = missing(format!("templates have no `{first}`"), &mut NAMES.iter().copied(), first);
                let all = format!("templates have {}", NAMES.join(", "));
                found.map(|(code, what, hint)| (code, what, hint.or(Some(all))))
            }
            _ => None,
        }
    }
}

/// The tags of a template without the text around them, which has no say in whether the template is good. `None` where tags cannot be told from text
/// without parsing: a brace in a quoted text, or `raw`.
fn tags(text: &str) -> Option<String> {
    const LENGTH_MAX: usize = 4_096;
    let mut tags = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        rest = &rest[at..];
        let end = match rest.as_bytes().get(1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            _ => {
                rest = &rest[1..];
                continue;
            }
        };
        let length = rest.find(end)? + end.len();
        let tag = &rest[..length];
        let quotes = |quote: char| tag.matches(quote).count();
        let plain = quotes('"') % 2 == 0 && quotes('\'') % 2 == 0 && !tag.contains("raw") && !tag[2..].contains('{');
        if !plain || tags.len() + length > LENGTH_MAX {
            return None;
        }
        tags.push_str(tag);
        rest = &rest[length..];
    }
    Some(tags)
}

fn syntax_error(template: &Template, error: &minijinja::Error) -> Diagnostic {
    let text = &template.text;
    let range = error.range();
    let line_start = || text.split_inclusive('\n').take(error.line().unwrap_or(1).saturating_sub(1)).map(str::len).sum();
    let offset = range.as_ref().map_or_else(line_start, |range| range.start);
    let (line, column) = place(&template.source, text, offset);
    let length = range.and_then(|range| text.get(range)).map_or(1, |part| part.lines().next().unwrap_or("").chars().count());
    let span = Span { file: template.source.file.clone(), line, column, length: u32::try_from(length).unwrap_or(1).max(1) };
    let (message, hint) = explain(error, "");
    let diagnostic = Diagnostic::error(code::TEMPLATE_SYNTAX, message, span);
    match hint {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

/// Where a dotted name stands in the text, as a whole word; else its first part; else the text's beginning.
fn find_name(text: &str, name: &str) -> Option<usize> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let whole = |at: usize| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
    };
    // A word of the SQL around the template may be the same; the name stands after a brace that is still open.
    let in_template = |at: usize| {
        let before = &text[..at];
        let opened = before.rfind("{{").max(before.rfind("{%"));
        let closed = before.rfind("}}").max(before.rfind("%}"));
        opened.is_some_and(|opened| closed.is_none_or(|closed| closed < opened))
    };
    text.match_indices(name).map(|(at, _)| at).find(|at| whole(*at) && in_template(*at))
}

fn span_of_name(template: &Template, name: &str) -> Span {
    let first = name.split('.').next().unwrap_or(name);
    let found =
        find_name(&template.text, name).map(|at| (at, name)).or_else(|| find_name(&template.text, first).map(|at| (at, first)));
    let (offset, shown) = found.unwrap_or((0, " "));
    let (line, column) = place(&template.source, &template.text, offset);
    Span { file: template.source.file.clone(), line, column, length: u32::try_from(shown.chars().count()).unwrap_or(1) }
}

/// True when the template itself asks whether the name is there.
fn is_guarded(text: &str, name: &str) -> bool {
    let Some(at) = find_name(text, name) else { return false };
    let after = text[at + name.len()..].trim_start();
    let filter = after.strip_prefix('|').map(str::trim_start);
    let test = after.strip_prefix("is ").map(str::trim_start);
    filter.is_some_and(|filter| filter.starts_with("default") || filter.starts_with("d("))
        || test
            .is_some_and(|test| test.starts_with("defined") || test.starts_with("not defined") || test.starts_with("undefined"))
}

#[cfg(test)]
mod tests {
    use super::tags;

    #[test]
    fn tags_are_told_from_text_only_where_that_is_certain() {
        let check = |text: &str, expect: Option<&str>| assert_eq!(tags(text).as_deref(), expect, "{text}");
        check("SELECT '{{ ds }}', {x} {% if a %}", Some("{{ ds }}{% if a %}"));
        check("{# note #}{{ f('a') }}", Some("{# note #}{{ f('a') }}"));
        check("{{ '}}' ~ bad }}", None);
        check("{{ \"}}\" }}", None);
        check("{% raw %}{{ x }}{% endraw %}", None);
        check("{{ {'a': 1} }}", None);
        check("{{ never closed", None);
    }
}
