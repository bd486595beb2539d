//! What the generator leaves to be mended, on the description as JSON.

use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Mends the whole document.
pub(super) fn tidy(document: &mut Value) {
    each(document, &mut |value| {
        spell_formats(value);
        forget_defaults_of_required(value);
    });
    join_bodies(document);
    refer_to_rows(document);
    need_no_body(document);
    document["paths"].as_object_mut().into_iter().flatten().for_each(|(_, item)| tell_tags(item));
    let operations = document["paths"].as_object_mut().into_iter().flatten();
    for operation in operations.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten().map(|(_, operation)| operation)) {
        tidy_parameters(operation);
        describe_answers(operation);
    }
}

/// The names of the schemas of bodies.
fn bodies(document: &Value) -> BTreeSet<String> {
    let items = document["paths"].as_object().into_iter().flatten();
    let operations = items.flat_map(|(_, item)| item.as_object().into_iter().flatten().map(|(_, operation)| operation));
    let schema = |operation: &Value| {
        let name = operation.pointer("/requestBody/content/application~1json/schema/$ref")?.as_str()?;
        name.rsplit('/').next().map(str::to_owned)
    };
    operations.filter_map(schema).collect()
}

/// A body that takes no other fields than its own has all of them itself: of parts, each would refuse what the others have.
fn join_bodies(document: &mut Value) {
    let bodies = bodies(document);
    let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) else { return };
    let known = schemas.clone();
    let mut joined = BTreeSet::new();
    for (_, schema) in schemas.iter_mut().filter(|(name, _)| bodies.contains(*name)) {
        let Some(parts) = schema.get("allOf").and_then(Value::as_array).cloned() else { continue };
        let mut whole = json!({ "type": "object", "required": [], "properties": {}, "additionalProperties": false });
        if let Some(description) = schema.get("description") {
            whole["description"] = description.clone();
        }
        // What is shared comes last.
        for part in parts.iter().rev() {
            let name = part.get("$ref").and_then(Value::as_str).and_then(|name| name.rsplit('/').next());
            joined.extend(name.map(str::to_owned));
            let part = name.and_then(|name| known.get(name)).unwrap_or(part);
            if let (Some(all), Some(own)) = (whole["properties"].as_object_mut(), part["properties"].as_object()) {
                all.extend(own.clone());
            }
            if let (Some(all), Some(own)) = (whole["required"].as_array_mut(), part["required"].as_array()) {
                all.extend(own.iter().cloned());
            }
        }
        if whole["required"] == json!([]) {
            whole.as_object_mut().map(|whole| whole.shift_remove("required"));
        }
        *schema = whole;
    }
    let text = document.to_string();
    if let Some(schemas) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        schemas.retain(|name, _| !joined.contains(name) || text.contains(&format!("\"#/components/schemas/{name}\"")));
    }
}

/// Where no field must be given, neither must the body.
fn need_no_body(document: &mut Value) {
    let schemas = document.pointer("/components/schemas").cloned().unwrap_or_default();
    let items = document["paths"].as_object_mut().into_iter().flatten();
    for operation in items.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten().map(|(_, operation)| operation)) {
        let Some(body) = operation.get_mut("requestBody") else { continue };
        let name = body.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
        let schema = name.and_then(|name| name.rsplit('/').next()).and_then(|name| schemas.get(name));
        if schema.is_some_and(|schema| schema.get("required").is_none()) {
            body["required"] = false.into();
        }
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

/// JSON that is asked for has a tag, and is not told twice (`etag`).
fn tell_tags(item: &mut Value) {
    let Some(operation) = item.get_mut("get") else { return };
    let Some(answer) =
        operation.pointer_mut("/responses/200").filter(|answer| answer.pointer("/content/application~1json").is_some())
    else {
        return;
    };
    answer["headers"]["ETag"] = json!({ "description": "Changes whenever the answer does", "schema": { "type": "string" } });
    operation["responses"]["304"] = json!({ "description": "It is as it was when the answer had that ETag" });
    let given = json!({
        "name": "If-None-Match",
        "in": "header",
        "description": "The ETag of an earlier answer",
        "required": false,
        "schema": { "type": "string" },
    });
    match operation.get_mut("parameters").and_then(Value::as_array_mut) {
        Some(parameters) => parameters.push(given),
        None => operation["parameters"] = json!([given]),
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
