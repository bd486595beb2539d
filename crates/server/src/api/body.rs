//! What a request says: its body of JSON, its query, its path. What makes no sense is refused in words of the API, never of this program:
//! which field, what is wanted, what is given, and the name that was probably meant.

use crate::Problem;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use backstop_runtime::service::did_you_mean;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use std::collections::BTreeSet;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa::openapi::schema::ArrayItems;
use utoipa::openapi::{RefOr, Schema};

/// For the whole body of a request to come.
const BODY_AT_MOST: Duration = Duration::from_secs(30);
/// Characters of what was given that a refusal says again.
const ECHO_CHARACTERS_MAX: usize = 80;

/// A body of JSON, where none is an empty object; a refusal is a problem document.
pub(crate) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + ToSchema, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
        let is_empty = length == Some(b"0") || length.is_none() && !headers.contains_key(header::TRANSFER_ENCODING);
        if is_empty {
            let read = serde_json::from_str("{}");
            return read.map(Self).map_err(|error| {
                let told = words(&error.to_string(), "", &keys::<T>(""));
                Problem::bad_request(format!("a body of JSON is needed: {}", told.detail)).hints(told.hint)
            });
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" {
            return Err(bad_body(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body wants `Content-Type: application/json`"));
        }
        let bytes = tokio::time::timeout(BODY_AT_MOST, Bytes::from_request(request, state)).await;
        let bytes = bytes.map_err(|_| {
            let detail = format!("the body did not come within {} seconds", BODY_AT_MOST.as_secs());
            bad_body(StatusCode::REQUEST_TIMEOUT, detail)
        })?;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => bad_body(StatusCode::PAYLOAD_TOO_LARGE, too_large()),
            status => bad_body(status, rejection.body_text()),
        })?;
        read(&bytes).map(Self)
    }
}

fn read<T: DeserializeOwned + ToSchema>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would take a list for an object, field by field.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(bad_body(StatusCode::UNPROCESSABLE_ENTITY, "the body is a list; an object is wanted"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let body = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refusal::<T>(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| refusal::<T>("", &error))?;
    Ok(body)
}

fn refusal<T: ToSchema>(path: &str, error: &serde_json::Error) -> Problem {
    let place = format!("line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&format!(" at {place}")).unwrap_or(&text);
    match error.classify() {
        Category::Data => {
            let told = words(text, path, &keys::<T>(path));
            bad_body(StatusCode::UNPROCESSABLE_ENTITY, told.detail).hints(told.hint)
        }
        Category::Io | Category::Syntax | Category::Eof => {
            bad_body(StatusCode::BAD_REQUEST, format!("the body is no JSON: {text}, at {place}"))
        }
    }
}

/// Of the body of any request.
fn too_large() -> String {
    format!("the body is too large: it may have {} bytes ({} MiB)", crate::BODY_BYTES_MAX, crate::BODY_BYTES_MAX / (1024 * 1024))
}

fn bad_body(status: StatusCode, detail: impl Into<String>) -> Problem {
    Problem::new(status, "bad-body", "The body makes no sense", detail)
}

/// What is asked in the query; a refusal is a problem document.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(super) T);

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        // `Failed to deserialize query string: FIELD: ...`
        let (_, said) = text.split_once(": ").unwrap_or(("", &text));
        let (path, said) = match said.split_once(": ") {
            Some((path, said)) if !path.contains([' ', '`']) => (path, said),
            Some(_) | None => ("", said),
        };
        let told = words(said, path, &BTreeSet::new());
        Problem::bad_request(format!("in the query, {}", told.detail)).hints(told.hint)
    }
}

/// What stands in the path; a refusal is a problem document.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(crate) struct Path<T>(pub(super) T);

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::bad_request(rejection.body_text())
    }
}

/// The names of the fields of a body, or of the list in it that a path such as `runs[1].params` leads into; also of those fields that
/// several bodies share.
fn keys<T: ToSchema>(path: &str) -> BTreeSet<String> {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    let whole = T::schema();
    let of_list = path.split_once('[').and_then(|(list, _)| items(&whole, list, &parts));
    let mut found = BTreeSet::new();
    add_keys(of_list.unwrap_or(&whole), &parts, &mut found);
    found
}

type Part = (String, RefOr<Schema>);

fn add_keys(schema: &RefOr<Schema>, parts: &[Part], found: &mut BTreeSet<String>) {
    match resolved(schema, parts) {
        Some(Schema::Object(object)) => found.extend(object.properties.keys().cloned()),
        Some(Schema::AllOf(all)) => all.items.iter().for_each(|item| add_keys(item, parts, found)),
        // No body is one of these.
        Some(_) | None => {}
    }
}

/// What a list in a body is of.
fn items<'s>(schema: &'s RefOr<Schema>, list: &str, parts: &'s [Part]) -> Option<&'s RefOr<Schema>> {
    match resolved(schema, parts)? {
        Schema::Object(object) => match object.properties.get(list).map(|found| resolved(found, parts))? {
            Some(Schema::Array(array)) => match &array.items {
                ArrayItems::RefOrSchema(of) => Some(of),
                ArrayItems::False => None,
            },
            Some(_) | None => None,
        },
        Schema::AllOf(all) => all.items.iter().find_map(|item| items(item, list, parts)),
        _ => None,
    }
}

fn resolved<'s>(schema: &'s RefOr<Schema>, parts: &'s [Part]) -> Option<&'s Schema> {
    match schema {
        RefOr::Ref(to) => {
            let name = to.ref_location.rsplit('/').next().unwrap_or_default();
            parts.iter().find(|(part, _)| part == name).and_then(|(_, part)| resolved(part, parts))
        }
        RefOr::T(schema) => Some(schema),
    }
}

struct Told {
    detail: String,
    hint: Option<String>,
}

/// What is wrong with a field that is read apart from its body.
pub(super) fn of_field(field: &str, text: &str) -> String {
    words(text, field, &BTreeSet::new()).detail
}

/// What serde says, in words of the API.
fn words(text: &str, path: &str, keys: &BTreeSet<String>) -> Told {
    let field = if path.is_empty() || path == "." || path == "?" { None } else { Some(path) };
    let told = |detail: String| Told { detail, hint: None };
    if let Some(key) = quoted(text, "unknown field `") {
        return unknown(key, text, keys);
    }
    if let Some(key) = quoted(text, "missing field `") {
        return told(format!("field `{key}` is missing"));
    }
    if let Some(key) = quoted(text, "duplicate field `") {
        return told(format!("field `{}` is there twice", echo(key)));
    }
    let name = field.map_or_else(|| "a value".to_owned(), |field| format!("`{}`", echo(field)));
    if let Some(given) = quoted(text, "unknown variant `") {
        let allowed = text.rsplit_once(", expected ").map_or("", |(_, allowed)| allowed);
        let allowed = allowed.strip_prefix("one of ").map_or_else(|| allowed.to_owned(), |allowed| format!("one of {allowed}"));
        return told(format!("{name} is `{}`, and must be {allowed}", echo(given)));
    }
    for beginning in ["invalid type: ", "invalid value: ", "invalid length "] {
        if let Some((given, wanted)) = text.strip_prefix(beginning).and_then(|rest| rest.rsplit_once(", expected ")) {
            return told(format!("{name} must be {}, and is {}", in_words(wanted), self::given(given)));
        }
    }
    if let Some(wanted) = unreadable(text) {
        return told(format!("{name} must be {wanted}"));
    }
    // Of ours, which name their field, or of a type that reads a text: a date, say.
    match field {
        Some(field) if !text.contains(&format!("`{field}`")) => told(format!("`{}`: {}", echo(field), shortened(text))),
        Some(_) | None => told(shortened(text)),
    }
}

fn unknown(key: &str, text: &str, keys: &BTreeSet<String>) -> Told {
    let listed = text.rsplit_once(", expected ").map_or("", |(_, listed)| listed);
    let listed: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
    let known: Vec<&str> = if keys.is_empty() { listed } else { keys.iter().map(String::as_str).collect() };
    let hint = match did_you_mean(key, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() => None,
        None => Some(format!("there are: {}", known.join(", "))),
    };
    Told { detail: format!("unknown field `{}`", echo(key)), hint }
}

/// What stands in backticks behind these words.
fn quoted<'t>(text: &'t str, beginning: &str) -> Option<&'t str> {
    let rest = text.strip_prefix(beginning)?;
    // A name that was given may have backticks of its own.
    let end = rest.rfind("`, expected ").or_else(|| rest.rfind("`, there are no fields")).or_else(|| rest.rfind('`'))?;
    Some(&rest[..end])
}

/// What is wanted of a text that was not read as it: of a query, say, where nothing but texts is given.
fn unreadable(text: &str) -> Option<&'static str> {
    Some(match text {
        "invalid digit found in string" | "cannot parse integer from empty string" | "number would be zero for non-zero type" => {
            "a whole number from 0"
        }
        "number too large to fit in target type" | "number too small to fit in target type" => "a smaller whole number",
        "provided string was not `true` or `false`" => "`true` or `false`",
        _ => return None,
    })
}

/// What is wanted.
fn in_words(wanted: &str) -> String {
    let whole = |most: &str| format!("a whole number from 0 to {most}");
    match wanted {
        "a boolean" => "true or false".to_owned(),
        "a string" | "string or map" => "a text".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "u8" => whole("255"),
        "u16" => whole("65535"),
        "u32" => whole("4294967295"),
        "u64" | "usize" => whole("18446744073709551615"),
        "i32" | "i64" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        _ if wanted.starts_with("struct ") => "an object".to_owned(),
        _ if wanted.contains("enum ") => "one of its words".to_owned(),
        _ => wanted.to_owned(),
    }
}

/// What is given, as serde names it.
fn given(found: &str) -> String {
    match found {
        "sequence" => "a list".to_owned(),
        "map" => "an object".to_owned(),
        "null" | "unit value" => "null".to_owned(),
        _ => {
            let kinds = ["string ", "integer ", "floating point ", "boolean "];
            let value = kinds.iter().find_map(|kind| found.strip_prefix(kind)).unwrap_or(found);
            echo(value.trim_matches('`'))
        }
    }
}

/// The beginning of what was given: it may be a megabyte.
fn echo(given: &str) -> String {
    if given.chars().nth(ECHO_CHARACTERS_MAX).is_none() {
        return given.to_owned();
    }
    given.chars().take(ECHO_CHARACTERS_MAX).chain(['…']).collect()
}

/// A sentence with what was given somewhere in it.
fn shortened(text: &str) -> String {
    const CHARACTERS_MAX: usize = 4 * ECHO_CHARACTERS_MAX;
    if text.chars().nth(CHARACTERS_MAX).is_none() {
        return text.to_owned();
    }
    text.chars().take(CHARACTERS_MAX).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        #[serde(rename = "slots")]
        _slots: Option<u32>,
        #[serde(rename = "files", default)]
        _files: Option<Files>,
        #[serde(rename = "inner", default)]
        _inner: Option<Inner>,
        #[serde(rename = "at", default)]
        _at: Option<jiff::Timestamp>,
        #[serde(rename = "must")]
        _must: bool,
        #[serde(flatten)]
        _by: super::super::By,
    }

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    enum Files {
        Pinned,
        Current,
    }

    #[derive(Debug, Deserialize, ToSchema)]
    struct Inner {
        #[serde(rename = "deep")]
        _deep: bool,
    }

    fn told(body: &str) -> String {
        let problem = read::<Wanted>(body.as_bytes()).unwrap_err();
        let hint = problem.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}: {}{hint}", problem.status, problem.detail)
    }

    #[test]
    fn a_body_that_makes_no_sense_is_refused_in_words_of_the_api() {
        for (body, says) in [
            (r#"{"must":true,"slot":1}"#, "422: unknown field `slot` (did you mean `slots`?)"),
            (r#"{"must":true,"whoo":"x"}"#, "422: unknown field `whoo` (did you mean `who`?)"),
            (r#"{"must":true,"colour":1}"#, "422: unknown field `colour` (there are: at, files, inner, must, slots, who, why)"),
            (r#"{"slots":1}"#, "422: field `must` is missing"),
            (r#"{"must":true,"must":true}"#, "422: field `must` is there twice"),
            (r#"{"must":1}"#, "422: `must` must be true or false, and is 1"),
            (r#"{"must":true,"slots":"x"}"#, r#"422: `slots` must be a whole number from 0 to 4294967295, and is "x""#),
            (r#"{"must":true,"slots":-1}"#, "422: `slots` must be a whole number from 0 to 4294967295, and is -1"),
            (r#"{"must":true,"slots":[1]}"#, "422: `slots` must be a whole number from 0 to 4294967295, and is a list"),
            (r#"{"must":true,"files":"curent"}"#, "422: `files` is `curent`, and must be `pinned` or `current`"),
            (r#"{"must":true,"inner":5}"#, "422: `inner` must be an object, and is 5"),
            (r#"{"must":true,"inner":{"deep":null}}"#, "422: `inner.deep` must be true or false, and is null"),
            (r#"{"must":true,"who":5}"#, "422: `who` must be a text, and is 5"),
            ("5", "422: a value must be an object, and is 5"),
            ("[]", "422: the body is a list; an object is wanted"),
            ("{", "400: the body is no JSON: EOF while parsing an object, at line 1 column 1"),
            (r#"{"must":true} x"#, "400: the body is no JSON: trailing characters, at line 1 column 15"),
        ] {
            assert_eq!(told(body), says, "{body}");
        }
        assert!(told(r#"{"must":true,"at":"yesterday"}"#).starts_with("422: `at`: "));
    }

    #[test]
    fn what_was_given_is_said_again_in_short() {
        let huge = "x".repeat(1 << 20);
        for body in [
            format!(r#"{{"must":"{huge}"}}"#),
            format!(r#"{{"must":true,"{huge}":1}}"#),
            format!(r#"{{"must":true,"files":"{huge}"}}"#),
            format!(r#"{{"must":true,"at":"{huge}"}}"#),
            format!(r#"{{"must":true,"who":{{"a":"{huge}"}}}}"#),
        ] {
            let told = told(&body);
            assert!(told.chars().count() < 5 * ECHO_CHARACTERS_MAX, "{}", told.len());
            for internal in ["struct", "enum", "Wanted", "target type"] {
                assert!(!told.contains(internal), "{told}");
            }
        }
    }
}
