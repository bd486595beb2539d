//! Values that go in as parameters and come out in rows.

/// One value. Types without a variant travel as text, in the database's own notation.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value.
    Bool(bool),
    /// Any integer up to 64 bits.
    Int(i64),
    /// An unsigned integer above `i64::MAX`.
    UInt(u64),
    /// A double.
    Float(f64),
    /// An exact decimal, in text so that no digit is lost.
    Decimal(String),
    /// Text, and every type without a variant of its own (dates and times in ISO 8601).
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// JSON text.
    Json(String),
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The database's name of its type, in lower case; empty where it has none.
    pub type_name: String,
}
