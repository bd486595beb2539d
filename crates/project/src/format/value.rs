//! Values that may be written in more than one way.

use schemars::JsonSchema;

/// A text, or a list of texts.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    List(Vec<String>),
}

/// A text or a number.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TextOrNumber {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
}

/// true, false or a number.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum BooleanOrNumber {
    /// true or false.
    Boolean(bool),
    /// A number.
    Number(f64),
}
