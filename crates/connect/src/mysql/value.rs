//! Values to and from both of MySQL's protocols.

use crate::value::{Column, Value};
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column as WireColumn, Value as WireValue};

/// The character set number of bytes that are not text.
const BINARY_CHARACTER_SET: u16 = 63;

pub(super) fn encode(value: &Value) -> WireValue {
    match value {
        Value::Null => WireValue::NULL,
        Value::Bool(truth) => WireValue::Int(i64::from(*truth)),
        Value::Int(number) => WireValue::Int(*number),
        Value::UInt(number) => WireValue::UInt(*number),
        Value::Float(number) => WireValue::Double(*number),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => WireValue::Bytes(text.clone().into_bytes()),
        Value::Bytes(bytes) => WireValue::Bytes(bytes.clone()),
    }
}

pub(super) fn column(wire: &WireColumn) -> Column {
    Column { name: wire.name_str().into_owned(), type_name: type_name(wire).to_owned() }
}

fn type_name(wire: &WireColumn) -> &'static str {
    let is_binary = wire.character_set() == BINARY_CHARACTER_SET;
    match wire.column_type() {
        ColumnType::MYSQL_TYPE_TINY => "tinyint",
        ColumnType::MYSQL_TYPE_SHORT => "smallint",
        ColumnType::MYSQL_TYPE_INT24 => "mediumint",
        ColumnType::MYSQL_TYPE_LONG => "int",
        ColumnType::MYSQL_TYPE_LONGLONG => "bigint",
        ColumnType::MYSQL_TYPE_FLOAT => "float",
        ColumnType::MYSQL_TYPE_DOUBLE => "double",
        ColumnType::MYSQL_TYPE_DECIMAL | ColumnType::MYSQL_TYPE_NEWDECIMAL => "decimal",
        ColumnType::MYSQL_TYPE_YEAR => "year",
        ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE => "date",
        ColumnType::MYSQL_TYPE_TIME | ColumnType::MYSQL_TYPE_TIME2 => "time",
        ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_DATETIME2 => "datetime",
        ColumnType::MYSQL_TYPE_TIMESTAMP | ColumnType::MYSQL_TYPE_TIMESTAMP2 => "timestamp",
        ColumnType::MYSQL_TYPE_BIT => "bit",
        ColumnType::MYSQL_TYPE_JSON => "json",
        ColumnType::MYSQL_TYPE_ENUM => "enum",
        ColumnType::MYSQL_TYPE_SET => "set",
        ColumnType::MYSQL_TYPE_GEOMETRY => "geometry",
        ColumnType::MYSQL_TYPE_STRING if wire.flags().contains(ColumnFlags::ENUM_FLAG) => "enum",
        ColumnType::MYSQL_TYPE_STRING if wire.flags().contains(ColumnFlags::SET_FLAG) => "set",
        ColumnType::MYSQL_TYPE_STRING => {
            if is_binary {
                "binary"
            } else {
                "char"
            }
        }
        ColumnType::MYSQL_TYPE_VAR_STRING | ColumnType::MYSQL_TYPE_VARCHAR => {
            if is_binary {
                "varbinary"
            } else {
                "varchar"
            }
        }
        ColumnType::MYSQL_TYPE_BLOB
        | ColumnType::MYSQL_TYPE_TINY_BLOB
        | ColumnType::MYSQL_TYPE_MEDIUM_BLOB
        | ColumnType::MYSQL_TYPE_LONG_BLOB => {
            if is_binary {
                "blob"
            } else {
                "text"
            }
        }
        ColumnType::MYSQL_TYPE_NULL => "null",
        _ => "",
    }
}

/// A result's value, from text or binary protocol alike.
pub(super) fn decode(wire: &WireColumn, value: WireValue) -> Value {
    match value {
        WireValue::NULL => Value::Null,
        WireValue::Bytes(bytes) => decode_bytes(wire, bytes),
        WireValue::Int(number) => Value::Int(number),
        WireValue::UInt(number) => unsigned(number),
        // Through text, so that 1.1 does not become 1.10000002384.
        WireValue::Float(number) => Value::Float(number.to_string().parse().unwrap_or(f64::from(number))),
        WireValue::Double(number) => Value::Float(number),
        WireValue::Date(year, month, day, hour, minute, second, micros) => {
            let date = format!("{year:04}-{month:02}-{day:02}");
            if matches!(wire.column_type(), ColumnType::MYSQL_TYPE_DATE | ColumnType::MYSQL_TYPE_NEWDATE) {
                return Value::Text(date);
            }
            Value::Text(format!("{date}T{hour:02}:{minute:02}:{second:02}{}", fraction(wire, micros)))
        }
        WireValue::Time(is_negative, days, hours, minutes, seconds, micros) => {
            let sign = if is_negative { "-" } else { "" };
            let hours = u64::from(days) * 24 + u64::from(hours);
            Value::Text(format!("{sign}{hours:02}:{minutes:02}:{seconds:02}{}", fraction(wire, micros)))
        }
    }
}

/// As many digits as the column has, which is what the text protocol sends.
fn fraction(wire: &WireColumn, micros: u32) -> String {
    let digits = usize::from(wire.decimals()).min(6);
    if digits == 0 {
        return if micros == 0 { String::new() } else { format!(".{micros:06}") };
    }
    format!(".{}", &format!("{micros:06}")[..digits])
}

fn unsigned(number: u64) -> Value {
    i64::try_from(number).map_or(Value::UInt(number), Value::Int)
}

fn decode_bytes(wire: &WireColumn, bytes: Vec<u8>) -> Value {
    let kind = wire.column_type();
    if kind == ColumnType::MYSQL_TYPE_BIT {
        return if bytes.len() <= 8 {
            unsigned(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        } else {
            Value::Bytes(bytes)
        };
    }
    let is_blob = matches!(
        kind,
        ColumnType::MYSQL_TYPE_STRING
            | ColumnType::MYSQL_TYPE_VAR_STRING
            | ColumnType::MYSQL_TYPE_VARCHAR
            | ColumnType::MYSQL_TYPE_BLOB
            | ColumnType::MYSQL_TYPE_TINY_BLOB
            | ColumnType::MYSQL_TYPE_MEDIUM_BLOB
            | ColumnType::MYSQL_TYPE_LONG_BLOB
    ) && wire.character_set() == BINARY_CHARACTER_SET;
    if is_blob || kind == ColumnType::MYSQL_TYPE_GEOMETRY {
        return Value::Bytes(bytes);
    }
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Value::Bytes(error.into_bytes()),
    };
    decode_text(kind, text)
}

fn decode_text(kind: ColumnType, text: String) -> Value {
    let number = match kind {
        ColumnType::MYSQL_TYPE_TINY
        | ColumnType::MYSQL_TYPE_SHORT
        | ColumnType::MYSQL_TYPE_INT24
        | ColumnType::MYSQL_TYPE_LONG
        | ColumnType::MYSQL_TYPE_LONGLONG
        | ColumnType::MYSQL_TYPE_YEAR => text.parse().ok().map(Value::Int).or_else(|| text.parse().ok().map(Value::UInt)),
        ColumnType::MYSQL_TYPE_FLOAT | ColumnType::MYSQL_TYPE_DOUBLE => text.parse().ok().map(Value::Float),
        _ => None,
    };
    match (number, kind) {
        (Some(number), _) => number,
        (None, ColumnType::MYSQL_TYPE_DECIMAL | ColumnType::MYSQL_TYPE_NEWDECIMAL) => Value::Decimal(text),
        (None, ColumnType::MYSQL_TYPE_JSON) => Value::Json(text),
        (None, ColumnType::MYSQL_TYPE_DATETIME | ColumnType::MYSQL_TYPE_TIMESTAMP) => Value::Text(text.replacen(' ', "T", 1)),
        (None, _) => Value::Text(text),
    }
}
