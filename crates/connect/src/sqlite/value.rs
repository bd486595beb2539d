//! Values to and from SQLite's five storage classes.

use crate::value::Value;
use rusqlite::types::ValueRef;

/// A parameter. Decimals and JSON go as text, which a column's affinity turns into numbers where it wants them.
pub(super) fn encode(value: &Value) -> rusqlite::types::Value {
    match value {
        Value::Null => rusqlite::types::Value::Null,
        Value::Bool(truth) => rusqlite::types::Value::Integer(i64::from(*truth)),
        Value::Int(number) => rusqlite::types::Value::Integer(*number),
        Value::UInt(number) => {
            i64::try_from(*number).map_or_else(|_| rusqlite::types::Value::Text(number.to_string()), Into::into)
        }
        Value::Float(number) => rusqlite::types::Value::Real(*number),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => rusqlite::types::Value::Text(text.clone()),
        Value::Bytes(bytes) => rusqlite::types::Value::Blob(bytes.clone()),
    }
}

/// A result's value. Text that is not UTF-8 comes as bytes: SQLite does not check what is stored.
pub(super) fn decode(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Int(number),
        ValueRef::Real(number) => Value::Float(number),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        },
        ValueRef::Blob(bytes) => Value::Bytes(bytes.to_vec()),
    }
}
