//! Values on the wire: parameters go as text with types that the server infers, results come as text.
//!
//! Text is asked for because every type has it: a column of a type with no binary form (`aclitem`, an extension's type) never fails a
//! statement, numerics and timestamps lose no digit, and arrays, ranges and composites arrive in the notation the user knows.

use crate::value::{Column, Value};
use postgres_types::Type;

/// How a column's text becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoding {
    Bool,
    Int,
    Float,
    Decimal,
    Bytes,
    Json,
    Timestamp,
    Text,
}

impl Decoding {
    pub(super) fn of(type_oid: u32) -> Self {
        match Type::from_oid(type_oid) {
            Some(Type::BOOL) => Self::Bool,
            Some(Type::INT2 | Type::INT4 | Type::INT8 | Type::OID) => Self::Int,
            Some(Type::FLOAT4 | Type::FLOAT8) => Self::Float,
            Some(Type::NUMERIC) => Self::Decimal,
            Some(Type::BYTEA) => Self::Bytes,
            Some(Type::JSON | Type::JSONB) => Self::Json,
            Some(Type::TIMESTAMP | Type::TIMESTAMPTZ) => Self::Timestamp,
            _ => Self::Text,
        }
    }
}

/// A column as the seam shows it. Types that users or extensions made have no name here: the wire carries only their number.
pub(super) fn column(name: &str, type_oid: u32) -> Column {
    let type_name = Type::from_oid(type_oid).map(|known| known.name().to_owned()).unwrap_or_default();
    Column { name: name.to_owned(), type_name }
}

/// One value from its text. What does not read as its type (a setting changed the notation) stays text.
pub(super) fn decode(decoding: Decoding, bytes: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(bytes) else {
        // Only after the script changed client_encoding: keep what came instead of spoiling it.
        return Value::Bytes(bytes.to_vec());
    };
    let decoded = match decoding {
        Decoding::Bool => match text {
            "t" => Some(Value::Bool(true)),
            "f" => Some(Value::Bool(false)),
            _ => None,
        },
        Decoding::Int => text.parse().ok().map(Value::Int),
        Decoding::Float => text.parse().ok().map(Value::Float),
        Decoding::Decimal => Some(Value::Decimal(text.to_owned())),
        Decoding::Bytes => decode_bytea(text).map(Value::Bytes),
        Decoding::Json => Some(Value::Json(text.to_owned())),
        Decoding::Timestamp => Some(Value::Text(iso_timestamp(text))),
        Decoding::Text => None,
    };
    decoded.unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// `2024-02-29 12:30:00.5+02` to `2024-02-29T12:30:00.5+02:00`; anything else (infinity, BC, another DateStyle) unchanged.
fn iso_timestamp(text: &str) -> String {
    let bytes = text.as_bytes();
    let is_iso = bytes.len() >= 19
        && text.is_ascii()
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b' '
        && !text.ends_with("BC");
    if !is_iso {
        return text.to_owned();
    }
    let mut iso = format!("{}T{}", &text[..10], &text[11..]);
    let sign = iso.len() - 3;
    if matches!(iso.as_bytes()[sign], b'+' | b'-') {
        iso.push_str(":00");
    }
    iso
}

/// Both notations of `bytea_output`: hex and escape.
fn decode_bytea(text: &str) -> Option<Vec<u8>> {
    if let Some(hex) = text.strip_prefix("\\x") {
        let digits = hex.as_bytes();
        if digits.len() % 2 != 0 {
            return None;
        }
        return digits.chunks_exact(2).map(|pair| Some(hex_digit(pair[0])? << 4 | hex_digit(pair[1])?)).collect();
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (rest, _) = (after, decoded.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                decoded.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            (b'\\', _) => return None,
            (byte, after) => (rest, _) = (after, decoded.push(byte)),
        }
    }
    Some(decoded)
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A parameter's text; `None` is NULL.
pub(super) fn encode(value: &Value) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => "NaN".to_owned(),
        Value::Float(number) if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        // The shortest text that reads back as the same double.
        Value::Float(number) => format!("{number:?}"),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.clone(),
        Value::Bytes(bytes) => bytes.iter().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_become_iso_8601_and_oddities_stay() {
        assert_eq!(iso_timestamp("2024-02-29 12:30:00"), "2024-02-29T12:30:00");
        assert_eq!(iso_timestamp("2024-02-29 12:30:00.5+02"), "2024-02-29T12:30:00.5+02:00");
        assert_eq!(iso_timestamp("2024-02-29 12:30:00-03:30"), "2024-02-29T12:30:00-03:30");
        assert_eq!(iso_timestamp("infinity"), "infinity");
        assert_eq!(iso_timestamp("0044-03-15 12:00:00 BC"), "0044-03-15 12:00:00 BC");
        assert_eq!(iso_timestamp("29/02/2024 12:30:00"), "29/02/2024 12:30:00");
    }

    #[test]
    fn bytea_reads_in_both_notations() {
        assert_eq!(decode_bytea("\\x00ff7a"), Some(vec![0, 255, b'z']));
        assert_eq!(decode_bytea("\\000\\377z\\\\"), Some(vec![0, 255, b'z', b'\\']));
        assert_eq!(decode_bytea("\\x0"), None);
        assert_eq!(decode_bytea("\\9"), None);
    }
}
