//! Typed parameters of a run: what the caller gave, checked, with defaults filled in.

use crate::definition::{Param, ParamKind};
use crate::diagnostic::did_you_mean;
use crate::is_secret_key;
use serde_json::{Map, Value};

/// Why the parameters of a run are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parameter `{name}`: {message}")]
pub struct ParamError {
    /// The parameter.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// Bytes that the parameters of a run may have together, as JSON. They stand in the run's log, in every list of runs and in memory while it
/// goes on; larger data has a place in files and tables.
pub const PARAMS_BYTES_MAX: usize = 64 * 1024;

/// Checks given values against the parameters and fills in the defaults. A text given for a parameter of another type is read as that type, as
/// `--param k=v` has nothing but texts.
///
/// # Errors
/// Every parameter that is missing, unknown or of the wrong type; else the largest, when together they exceed [`PARAMS_BYTES_MAX`].
pub fn resolve(params: &[Param], given: &Map<String, Value>) -> Result<Map<String, Value>, Vec<ParamError>> {
    let mut resolved = Map::new();
    let mut errors = Vec::new();
    for param in params {
        let error = |message: String, hint: Option<String>| ParamError { name: param.name.clone(), message, hint };
        let Some(value) = given.get(&param.name).map(|value| read(param.kind, value)).or_else(|| param.default.clone()) else {
            errors.push(error("it is required, and not given".to_owned(), param.description.clone()));
            continue;
        };
        // A refusal is told, recorded and quoted where the value is masked.
        let is_secret = is_secret_key(&param.name);
        if let Some(wanted) = misfit(param.kind, &value) {
            errors.push(error(
                if is_secret { format!("its value is not {wanted}") } else { format!("{value} is not {wanted}") },
                None,
            ));
        } else if !param.choices.is_empty() && !param.choices.contains(&value) && is_secret {
            errors.push(error("its value is not allowed".to_owned(), None));
        } else if !param.choices.is_empty() && !param.choices.contains(&value) {
            let choices: Vec<String> = param.choices.iter().map(Value::to_string).collect();
            errors.push(error(format!("{value} is not allowed"), Some(format!("one of {}", choices.join(", ")))));
        } else {
            resolved.insert(param.name.clone(), value);
        }
    }
    for name in given.keys().filter(|name| params.iter().all(|param| param.name != **name)) {
        let near = did_you_mean(name, params.iter().map(|param| param.name.as_str()));
        let known: Vec<&str> = params.iter().map(|param| param.name.as_str()).collect();
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "the DAG has no parameters".to_owned(),
            None => format!("the DAG has {}", known.join(", ")),
        };
        errors.push(ParamError { name: name.clone(), message: "the DAG has no such parameter".to_owned(), hint: Some(hint) });
    }
    if errors.is_empty() {
        errors.extend(too_large(&resolved));
    }
    if errors.is_empty() { Ok(resolved) } else { Err(errors) }
}

fn too_large(params: &Map<String, Value>) -> Option<ParamError> {
    let mut sizes: Vec<(usize, &String)> = params.iter().map(|(name, value)| (value.to_string().len(), name)).collect();
    // The braces, and for each its name in quotes, a colon and a comma, but for the last.
    let bytes = 1 + sizes.iter().map(|(size, name)| size + name.len() + 4).sum::<usize>();
    sizes.sort_unstable();
    let (size, name) = sizes.pop().filter(|_| bytes > PARAMS_BYTES_MAX)?;
    let message = format!("it has {size} bytes as JSON, and all parameters together {bytes}; {PARAMS_BYTES_MAX} are allowed");
    Some(ParamError {
        name: name.clone(),
        message,
        hint: Some("put large data into a file or a table, and give its name".to_owned()),
    })
}

/// A text as the type, where it reads as it; anything else as it is.
fn read(kind: ParamKind, value: &Value) -> Value {
    let Value::String(text) = value else { return value.clone() };
    let parsed = match kind {
        ParamKind::String | ParamKind::Date | ParamKind::Timestamp => None,
        ParamKind::Integer => text.parse::<i64>().ok().map(Value::from),
        ParamKind::Number | ParamKind::Boolean | ParamKind::List | ParamKind::Json => serde_json::from_str(text).ok(),
    };
    parsed.filter(|parsed| fits(kind, parsed).is_ok()).unwrap_or_else(|| value.clone())
}

/// Whether a value is of a type; if not, why.
pub(crate) fn fits(kind: ParamKind, value: &Value) -> Result<(), String> {
    misfit(kind, value).map_or(Ok(()), |wanted| Err(format!("{value} is not {wanted}")))
}

/// What a value of the type would be, where this one is not.
fn misfit(kind: ParamKind, value: &Value) -> Option<&'static str> {
    let (fits, wanted) = match kind {
        ParamKind::String => (value.is_string(), "a text"),
        ParamKind::Integer => (value.is_i64(), "a whole number of 64 bits"),
        ParamKind::Number => (value.is_number(), "a number"),
        ParamKind::Boolean => (value.is_boolean(), "true or false"),
        ParamKind::Date => (
            value.as_str().is_some_and(|text| text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10),
            "a date such as 2025-05-01",
        ),
        ParamKind::Timestamp => {
            (value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()), "a time such as 2025-05-01T02:00:00Z")
        }
        ParamKind::List => (value.is_array(), "a list"),
        ParamKind::Json => (true, "any JSON"),
    };
    (!fits).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn param(name: &str, kind: ParamKind, default: Option<Value>, choices: Vec<Value>) -> Param {
        Param { name: name.to_owned(), kind, default, choices, description: None }
    }

    fn given(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn texts_are_read_as_the_parameter_s_type_and_defaults_are_filled_in() {
        let params = [
            param("n", ParamKind::Integer, Some(json!(7)), vec![]),
            param("ratio", ParamKind::Number, None, vec![]),
            param("full", ParamKind::Boolean, Some(json!(false)), vec![]),
            param("zip", ParamKind::String, None, vec![]),
            param("regions", ParamKind::List, None, vec![]),
            param("extra", ParamKind::Json, None, vec![]),
        ];
        let given = given(json!({"ratio": "0.5", "full": "true", "zip": "01234", "regions": "[\"eu\"]", "extra": "{\"a\": 1}"}));
        let resolved = resolve(&params, &given).unwrap();
        assert_eq!(
            Value::Object(resolved),
            json!({"n": 7, "ratio": 0.5, "full": true, "zip": "01234", "regions": ["eu"], "extra": {"a": 1}})
        );
    }

    #[test]
    fn of_a_secret_neither_the_value_nor_the_choices_are_told() {
        let params = [
            param("password", ParamKind::String, None, vec![json!("hunter22"), json!("swordfish")]),
            param("api_token", ParamKind::Integer, None, vec![]),
        ];
        let errors = resolve(&params, &given(json!({"password": "topsecret99", "api_token": "also-secret"}))).unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "parameter `password`: its value is not allowed",
                "parameter `api_token`: its value is not a whole number of 64 bits"
            ]
        );
        assert!(errors.iter().all(|error| error.hint.is_none()));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let params = [
            param("region", ParamKind::String, None, vec![json!("eu"), json!("us")]),
            param("day", ParamKind::Date, None, vec![]),
            param("n", ParamKind::Integer, None, vec![]),
        ];
        let errors = resolve(&params, &given(json!({"region": "asia", "n": "1.5", "dya": "2025-05-01"}))).unwrap_err();
        let told: Vec<String> = errors.iter().map(|error| format!("{error} ({})", error.hint.as_deref().unwrap_or(""))).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        parameter `region`: "asia" is not allowed (one of "eu", "us")
        parameter `day`: it is required, and not given ()
        parameter `n`: "1.5" is not a whole number of 64 bits ()
        parameter `dya`: the DAG has no such parameter (did you mean `day`?)
        "#);
    }

    #[test]
    fn parameters_have_a_size_together() {
        let params = ["a", "b"].map(|name| param(name, ParamKind::String, None, vec![]));
        let given = |a: usize, b: usize| {
            let value = |length: usize| Value::from("x".repeat(length));
            Map::from_iter([("a".to_owned(), value(a)), ("b".to_owned(), value(b))])
        };
        // {"a":"...","b":"..."}
        let most = PARAMS_BYTES_MAX - 15;
        assert_eq!(
            resolve(&params, &given(10, most - 10)).map(|resolved| Value::from(resolved).to_string().len()),
            Ok(PARAMS_BYTES_MAX)
        );
        let errors = resolve(&params, &given(10, most - 9)).unwrap_err();
        assert_eq!((errors.len(), errors[0].name.as_str()), (1, "b"));
        assert!(errors[0].message.contains("together 65537; 65536 are allowed"), "{}", errors[0].message);
    }
}
