//! YAML text becomes a tree in which every value knows its place.
//!
//! A tree instead of typed deserialization, because a person wants to hear of every mistake at once, and a deserializer stops at the
//! first. Budgets bound what hostile input may cost: depth, and the number of nodes after aliases are followed.

mod build;
mod fields;
mod scalar;

pub(crate) use build::parse;
pub(crate) use fields::Fields;
#[cfg(test)]
pub(crate) use fields::keys_asked;

use crate::definition::Source;
use crate::diagnostic::Span;
use std::sync::Arc;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) value: Value,
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// In characters on its first line.
    pub(crate) length: u32,
    /// Where a text's first character stands; for other values, the place itself.
    pub(crate) text_place: (u32, u32),
    /// How many nodes it stands for once aliases are followed.
    weight: u64,
}

/// What a node is. Which kind of scalar a plain text is, is asked where it is read.
#[derive(Debug)]
pub(crate) enum Value {
    /// A scalar.
    Scalar {
        /// The text, without quotes and escapes.
        text: Arc<str>,
        /// Written without quotes, so that it may be a number, true, false or null.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Arc<Node>>),
    /// A mapping, in order. Keys are unique texts.
    Map(Vec<(Key, Arc<Node>)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The key.
    pub(crate) text: Arc<str>,
    /// From 1.
    pub(crate) line: u32,
    /// From 1.
    pub(crate) column: u32,
}

impl Key {
    /// Where it stands.
    pub(crate) fn span(&self, file: &Arc<str>) -> Span {
        let length = u32::try_from(self.text.chars().count()).unwrap_or(u32::MAX).max(1);
        Span { file: file.clone(), line: self.line, column: self.column, length }
    }
}

impl Node {
    /// Where it stands.
    pub(crate) fn span(&self, file: &Arc<str>) -> Span {
        Span { file: file.clone(), line: self.line, column: self.column, length: self.length.max(1) }
    }

    /// Where its text begins.
    pub(crate) fn source(&self, file: &Arc<str>) -> Source {
        Source { file: file.clone(), line: self.text_place.0, column: self.text_place.1 }
    }

    /// What it is, for a message.
    pub(crate) fn describe(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } if self.as_bool().is_some() => "true or false",
            Value::Scalar { .. } if self.as_number().is_some() => "a number",
            Value::Scalar { .. } => "a text",
        }
    }

    /// The entries of a mapping.
    pub(crate) fn as_map(&self) -> Option<&[(Key, Arc<Node>)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            Value::List(_) | Value::Scalar { .. } => None,
        }
    }

    /// The items of a list.
    pub(crate) fn as_list(&self) -> Option<&[Arc<Node>]> {
        match &self.value {
            Value::List(items) => Some(items),
            Value::Map(_) | Value::Scalar { .. } => None,
        }
    }

    /// The text of any scalar, as it is written.
    pub(crate) fn as_scalar(&self) -> Option<&Arc<str>> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }
}
