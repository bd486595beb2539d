//! What a plain scalar is, by YAML 1.2's core schema.

use super::{Node, Value};
use std::sync::Arc;

impl Node {
    fn plain(&self) -> Option<&Arc<str>> {
        match &self.value {
            Value::Scalar { text, plain: true } => Some(text),
            Value::Scalar { plain: false, .. } | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// True for `null`, `~` and nothing at all.
    pub(crate) fn is_null(&self) -> bool {
        self.plain().is_some_and(|text| matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    /// `true` or `false`.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match &**self.plain()? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// A whole number.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        integer(self.plain()?)
    }

    /// A number, as JSON holds it.
    pub(crate) fn as_number(&self) -> Option<serde_json::Number> {
        let text = self.plain()?;
        match integer(text) {
            Some(whole) => Some(whole.into()),
            None => serde_json::Number::from_f64(float(text)?),
        }
    }

    /// A text: quoted, or plain and nothing else. A number or date that was meant as text is accepted by [`Node::as_scalar`].
    pub(crate) fn as_text(&self) -> Option<&Arc<str>> {
        match &self.value {
            Value::Scalar { text, plain: false } => Some(text),
            Value::Scalar { text, plain: true } => {
                let other = self.is_null() || self.as_bool().is_some() || self.as_number().is_some();
                (!other).then_some(text)
            }
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The same value as JSON.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::List(items) => serde_json::Value::Array(items.iter().map(|item| item.to_json()).collect()),
            Value::Map(entries) => entries.iter().map(|(key, value)| (key.text.to_string(), value.to_json())).collect(),
            Value::Scalar { text, .. } => {
                if self.is_null() {
                    serde_json::Value::Null
                } else if let Some(truth) = self.as_bool() {
                    truth.into()
                } else if let Some(number) = self.as_number() {
                    serde_json::Value::Number(number)
                } else {
                    serde_json::Value::String(text.to_string())
                }
            }
        }
    }
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if let Some(hexadecimal) = digits.strip_prefix("0x") {
        return (!hexadecimal.starts_with(['+', '-'])).then(|| i64::from_str_radix(hexadecimal, 16).ok()).flatten();
    }
    if let Some(octal) = digits.strip_prefix("0o") {
        return (!octal.starts_with(['+', '-'])).then(|| i64::from_str_radix(octal, 8).ok()).flatten();
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // The sign is parsed with the digits, so that the smallest number is one.
    if negative { text.parse().ok() } else { digits.parse().ok() }
}

fn float(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let starts = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let allowed = digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let has_digit = digits.bytes().any(|byte| byte.is_ascii_digit());
    (starts && allowed && has_digit).then(|| text.parse().ok()).flatten()
}
