//! JSON to the engine's values and back.

use super::datetime::DateTime;
use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// How deep a value may nest.
const DEPTH_MAX: usize = 128;

/// JSON as the engine sees it.
pub(super) fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            (None, None) => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(map) => Value::from_pairs(map.iter().map(|(key, value)| (key.clone(), from_json(value)))),
    }
}

/// The engine's value as JSON. Dates become RFC 3339 texts.
pub(super) fn to_json(value: &Value) -> Result<Json, Error> {
    nested(value, 0)
}

fn nested(value: &Value, depth: usize) -> Result<Json, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("the value is nested more than {DEPTH_MAX} deep")));
    }
    if let Some(date) = value.downcast_object_ref::<DateTime>() {
        return Ok(Json::String(date.isoformat()));
    }
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => Ok(Json::Null),
        ValueKind::Bool => Ok(Json::Bool(value.is_true())),
        ValueKind::Number => number(value),
        ValueKind::Map => {
            let mut map = serde_json::Map::new();
            for key in value.try_iter()? {
                let text = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                map.insert(text, nested(&value.get_item(&key)?, depth + 1)?);
            }
            Ok(Json::Object(map))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Result<Vec<Json>, Error> = value.try_iter()?.map(|item| nested(&item, depth + 1)).collect();
            items.map(Json::Array)
        }
        ValueKind::Bytes => Err(Error::new(ErrorKind::InvalidOperation, "bytes are no JSON")),
        ValueKind::Invalid => Err(error_in(value)),
        // The kinds are an open set; a text and a plain object are what they print as.
        _ => Ok(Json::String(value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
    }
}

/// The error that an invalid value carries, which the engine gives out only as text.
pub(super) fn error_in(value: &Value) -> Error {
    let text = value.to_string();
    let inner = text.strip_prefix("<invalid value: ").and_then(|inner| inner.strip_suffix('>')).unwrap_or(&text);
    let inner = inner.strip_prefix("invalid operation: ").unwrap_or(inner);
    Error::new(ErrorKind::InvalidOperation, inner.to_owned())
}

fn number(value: &Value) -> Result<Json, Error> {
    if value.is_integer() {
        if let Some(whole) = value.as_i64() {
            return Ok(whole.into());
        }
        if let Ok(whole) = u64::try_from(value.clone()) {
            return Ok(whole.into());
        }
    }
    let float = f64::try_from(value.clone())?;
    let json = serde_json::Number::from_f64(float).map(Json::Number);
    json.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "the number is not finite"))
}
