//! Python's methods of texts and mappings, which templates written for Airflow use.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

/// Called for a method that the value itself does not have.
pub(super) fn call(_: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => text_method(value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => map_method(value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn text_method(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let stripped = |args: &[Value]| -> Result<Vec<char>, Error> {
        let (set,): (Option<String>,) = from_args(args)?;
        Ok(set.map(|set| set.chars().collect()).unwrap_or_default())
    };
    let in_set = |set: &[char], c: char| if set.is_empty() { c.is_whitespace() } else { set.contains(&c) };
    match method {
        "upper" => none(args).map(|()| text.to_uppercase().into()),
        "lower" => none(args).map(|()| text.to_lowercase().into()),
        "strip" => stripped(args).map(|set| text.trim_matches(|c| in_set(&set, c)).into()),
        "lstrip" => stripped(args).map(|set| text.trim_start_matches(|c| in_set(&set, c)).into()),
        "rstrip" => stripped(args).map(|set| text.trim_end_matches(|c| in_set(&set, c)).into()),
        "startswith" => from_args(args).map(|(start,): (&str,)| text.starts_with(start).into()),
        "endswith" => from_args(args).map(|(end,): (&str,)| text.ends_with(end).into()),
        "replace" => {
            let (old, new): (&str, &str) = from_args(args)?;
            replaced(text, old, new).map(Value::from)
        }
        "split" => {
            let (separator,): (Option<&str>,) = from_args(args)?;
            match separator {
                Some("") => Err(Error::new(ErrorKind::InvalidOperation, "the separator is empty")),
                Some(separator) => Ok(text.split(separator).map(Value::from).collect()),
                None => Ok(text.split_whitespace().map(Value::from).collect()),
            }
        }
        "zfill" => {
            const WIDTH_MAX: usize = 1000;
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            let width = width.min(WIDTH_MAX).saturating_sub(sign.len());
            Ok(format!("{sign}{digits:0>width$}").into())
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Replaces, within a bound: each of few texts could otherwise grow a thousandfold.
fn replaced(text: &str, old: &str, new: &str) -> Result<String, Error> {
    const BYTES_MAX: usize = 64 << 20;
    let count = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    if text.len().saturating_add(count.saturating_mul(new.len())) > BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidOperation, "the text would grow too large"));
    }
    Ok(text.replace(old, new))
}

fn map_method(map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match method {
        "get" => {
            let (key, default): (Value, Option<Value>) = from_args(args)?;
            let found = map.get_item(&key)?;
            Ok(if found.is_undefined() { default.unwrap_or_else(|| Value::from(())) } else { found })
        }
        "keys" => none(args).and_then(|()| Ok(map.try_iter()?.collect())),
        "values" => none(args).and_then(|()| map.try_iter()?.map(|key| map.get_item(&key)).collect()),
        "items" => {
            none(args).and_then(|()| map.try_iter()?.map(|key| Ok(Value::from(vec![key.clone(), map.get_item(&key)?]))).collect())
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn none(args: &[Value]) -> Result<(), Error> {
    from_args::<()>(args)
}
