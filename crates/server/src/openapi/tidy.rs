//! What the generator leaves to be mended, on the description as JSON.

use serde_json::{Value, json};

/// Mends the whole document.
pub(super) fn tidy(document: &mut Value) {
    each(document, &mut |value| {
        spell_formats(value);
        forget_defaults_of_required(value);
    });
    refer_to_rows(document);
    let operations = document["paths"].as_object_mut().into_iter().flatten();
    for operation in operations.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten().map(|(_, operation)| operation)) {
        tidy_parameters(operation);
        describe_answers(operation);
    }
}

fn each(value: &mut Value, change: &mut impl FnMut(&mut Value)) {
    change(value);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| each(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| each(field, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `u-int64` is `uint64` in the registry of formats.
fn spell_formats(value: &mut Value) {
    if let Some(format) = value.get_mut("format")
        && let Some(bits) = format.as_str().and_then(|format| format.strip_prefix("u-int"))
    {
        *format = format!("uint{bits}").into();
    }
}

/// What must be given has no default.
fn forget_defaults_of_required(value: &mut Value) {
    let required: Vec<String> = value
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let Some(properties) = value.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for name in required {
        if let Some(property) = properties.get_mut(&name).and_then(Value::as_object_mut) {
            property.shift_remove("default");
        }
    }
}

/// A page refers to the schema of its rows, where the generator repeats it.
fn refer_to_rows(document: &mut Value) {
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    let names: Vec<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas.iter_mut() {
        if let Some(row) = name.strip_prefix("Page_").filter(|row| names.iter().any(|name| name == row)) {
            schema["properties"]["items"]["items"] = json!({ "$ref": format!("#/components/schemas/{row}") });
        }
    }
}

/// A parameter that is not given is absent; there is no null in a query or a header.
fn tidy_parameters(operation: &mut Value) {
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(kinds) = parameter.pointer_mut("/schema/type")
            && let Some(kind) = kinds.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null"))
        {
            *kinds = kind.clone();
        }
    }
}

/// Each answer has a description; where the handler has none, what the operation does says it all.
fn describe_answers(operation: &mut Value) {
    let summary = operation.get("summary").cloned().unwrap_or_else(|| "The answer".into());
    for (_, answer) in operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten() {
        let is_described = answer.get("$ref").is_some() || answer.get("description").is_some_and(|text| text != "");
        if !is_described && let Some(answer) = answer.as_object_mut() {
            answer.shift_insert(0, "description".to_owned(), summary.clone());
        }
    }
}
