//! `params:` of a DAG: a default alone, or type, default, choices and description.

use super::Reading;
use crate::definition::{Param, ParamKind};
use crate::diagnostic::code;
use crate::params::fits;
use crate::yaml::{Fields, Node, Value};
use serde_json::Value as Json;

const KINDS: &[(&str, ParamKind)] = &[
    ("string", ParamKind::String),
    ("integer", ParamKind::Integer),
    ("number", ParamKind::Number),
    ("boolean", ParamKind::Boolean),
    ("date", ParamKind::Date),
    ("timestamp", ParamKind::Timestamp),
    ("list", ParamKind::List),
    ("json", ParamKind::Json),
];

impl Reading<'_> {
    pub(super) fn params(&mut self, node: &Node) -> Vec<Param> {
        let mut params = Vec::new();
        for (key, value) in self.map(node, "`params`").unwrap_or_default() {
            let at = self.key_span(key);
            let dotted = key.text.contains('-');
            if self.id(&key.text, "a parameter", at, false) && dotted {
                self.error_with_hint(
                    code::BAD_ID,
                    "a parameter's name cannot have `-`, which is minus in a template",
                    value,
                    "use `_`",
                );
            }
            params.extend(self.param(&key.text, value));
        }
        params
    }

    fn param(&mut self, name: &str, node: &Node) -> Option<Param> {
        if !matches!(node.value, Value::Map(_)) {
            let default = node.to_json();
            let kind = kind_of(&default);
            let default = (!default.is_null()).then_some(default);
            return Some(Param { name: name.to_owned(), kind, default, choices: Vec::new(), description: None });
        }
        let entries = self.map(node, "a parameter")?;
        let mut fields = Fields::new("Param", entries);
        let kind = fields.take_present("type").map(|node| self.choice(node, "`type`", KINDS));
        let default_node = fields.take("default");
        let choices_node = fields.take_present("enum");
        let description = fields.take_present("description").and_then(|node| self.text(node, "`description`"));
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let default = default_node.filter(|node| !node.is_null()).map(|node| node.to_json());
        let choices = match choices_node {
            Some(node) => self.choices(node),
            None => Vec::new(),
        };
        let kind = match kind {
            Some(kind) => kind?,
            None => default.as_ref().or(choices.first()).map_or(ParamKind::Json, kind_of),
        };
        for (value, at) in choices.iter().zip(choices_node.and_then(|node| node.as_list()).unwrap_or_default()) {
            if let Err(why) = fits(kind, value) {
                self.error(code::BAD_PARAM, format!("a choice of `{name}` does not fit its type: {why}"), at);
            }
        }
        if let (Some(value), Some(at)) = (&default, default_node) {
            if let Err(why) = fits(kind, value) {
                self.error(code::BAD_PARAM, format!("the default of `{name}` does not fit its type: {why}"), at);
            } else if !choices.is_empty() && !choices.contains(value) {
                self.error(code::BAD_PARAM, format!("the default of `{name}` is none of its `enum`"), at);
            }
        }
        Some(Param { name: name.to_owned(), kind, default, choices, description: description.map(|text| text.to_string()) })
    }

    fn choices(&mut self, node: &Node) -> Vec<Json> {
        match node.as_list() {
            Some(items) if !items.is_empty() => items.iter().map(|item| item.to_json()).collect(),
            Some(_) | None => {
                self.error(code::WRONG_TYPE, "`enum` must be a list of the allowed values", node);
                Vec::new()
            }
        }
    }
}

/// The type that a default alone implies.
fn kind_of(value: &Json) -> ParamKind {
    match value {
        Json::String(_) => ParamKind::String,
        Json::Bool(_) => ParamKind::Boolean,
        Json::Number(number) if number.is_i64() => ParamKind::Integer,
        Json::Number(_) => ParamKind::Number,
        Json::Array(_) => ParamKind::List,
        Json::Object(_) | Json::Null => ParamKind::Json,
    }
}
