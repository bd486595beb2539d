//! Refusals: problem documents (RFC 9457) that say what to do next.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstop_runtime::service::Error;
use backstop_store::ErrorKind;
use serde::Serialize;
use utoipa::ToSchema;

/// Characters of one text of a refusal, which may say again what was given: a name in the path, a value of a parameter.
const TEXT_CHARACTERS_MAX: usize = 2000;
/// Of these, at the end: behind what was given stands what is allowed.
const TEXT_CHARACTERS_LAST: usize = 500;
/// Things that are wrong with one request, and are told.
const FLAWS_MAX: usize = 100;

/// A refusal (RFC 9457). `type` is a word of ours, stable, for programs; `title` and `detail` are for people.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Which refusal it is, for programs.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Which refusal it is, for people.
    title: &'static str,
    /// The status of the answer.
    pub(crate) status: u16,
    /// What is wrong here.
    pub(crate) detail: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// Each thing that is wrong with the request, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Flaw>,
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Flaw {
    /// Which parameter or field.
    pub name: String,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// A refusal with this status.
    pub fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, title, status: status.as_u16(), detail: detail.into(), hint: None, errors: Vec::new() }
    }

    /// With what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With what to do next, where that is known.
    #[must_use]
    pub(crate) fn hints(self, hint: Option<String>) -> Self {
        Self { hint: hint.or(self.hint), ..self }
    }

    /// A request that makes no sense.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "The request makes no sense", detail)
    }

    /// What was asked for is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
    }
}

/// A text without its middle, where it is too long.
fn bounded(text: String) -> String {
    let characters = text.chars().count();
    if characters <= TEXT_CHARACTERS_MAX {
        return text;
    }
    let first = text.chars().take(TEXT_CHARACTERS_MAX - TEXT_CHARACTERS_LAST);
    first.chain(['…']).chain(text.chars().skip(characters - TEXT_CHARACTERS_LAST)).collect()
}

impl Problem {
    /// What a request says may be a megabyte, and is not sent back.
    fn in_bounds(mut self) -> Self {
        self.detail = bounded(self.detail);
        self.hint = self.hint.map(bounded);
        let left_out = self.errors.len().saturating_sub(FLAWS_MAX);
        if left_out > 0 {
            self.detail = format!("{} (the first {FLAWS_MAX} are told, of {})", self.detail, self.errors.len());
        }
        self.errors.truncate(FLAWS_MAX);
        for flaw in &mut self.errors {
            flaw.name = bounded(std::mem::take(&mut flaw.name));
            flaw.message = bounded(std::mem::take(&mut flaw.message));
            flaw.hint = flaw.hint.take().map(bounded);
        }
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let this = self.in_bounds();
        let status = StatusCode::from_u16(this.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(this)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl From<backstop_store::Error> for Problem {
    fn from(error: backstop_store::Error) -> Self {
        if error.kind == ErrorKind::NotFound {
            let problem = Self::not_found(error.message);
            return Self { hint: error.hint, ..problem };
        }
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", "The store does not answer", error.message);
        Self { hint: error.hint, ..problem }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let detail = error.to_string();
        match error {
            Error::NoDag { hint, .. } => Self::not_found(detail).hint(hint),
            Error::NoInstance { hint: Some(hint), .. } => Self::not_found(detail).hint(hint),
            Error::NoVersion { .. }
            | Error::NoRun(_)
            | Error::NoInstance { hint: None, .. }
            | Error::NoConnection(_)
            | Error::NoBackfill(_) => Self::not_found(detail),
            Error::Params { errors, .. } => {
                let flaw = |error: backstop_runtime::service::ParamError| Flaw {
                    name: error.name,
                    message: error.message,
                    hint: error.hint,
                };
                let problem =
                    Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-parameters", "The parameters do not fit the DAG", detail);
                Self { errors: errors.into_iter().map(flaw).collect(), ..problem }
            }
            Error::Conflict(_) | Error::NothingMeant | Error::NothingToChange => {
                Self::new(StatusCode::CONFLICT, "conflict", "It cannot be done as things stand", detail)
            }
            Error::Invalid(_) => Self::bad_request(detail),
            Error::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "The service is stopping", detail).hint("ask the next one")
            }
            Error::Crowded { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "crowded", "Too many runs wait", detail)
                .hint("ask again later with the same `run_id`; `backstop runs why RUN` says what those wait for"),
            Error::Store(error) => error.into(),
            Error::Run(backstop_runtime::Error::Request(_)) => Self::bad_request(detail),
            Error::Run(error) => {
                let detail = causes(&error);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "run", "The run could not be changed", detail)
            }
        }
    }
}

pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_as_long_as_what_it_refuses() {
        let huge = "ä".repeat(1 << 20);
        let flaw = || Flaw { name: huge.clone(), message: format!("{huge} is not allowed"), hint: Some(huge.clone()) };
        let problem = Problem::not_found(format!("there is no DAG `{huge}`, but `one`")).hint("short");
        let told = Problem { errors: vec![flaw(), flaw()], ..problem }.in_bounds();
        assert!(told.detail.starts_with("there is no DAG `ä") && told.detail.ends_with("ä`, but `one`"));
        assert_eq!((told.detail.chars().count(), told.hint.as_deref()), (TEXT_CHARACTERS_MAX + 1, Some("short")));
        let flaw = &told.errors[1];
        assert!(flaw.message.ends_with(" is not allowed") && flaw.message.len() < 5000 && flaw.name.len() < 5000);
        let many = vec![Flaw { name: "a".into(), message: "b".into(), hint: None }; FLAWS_MAX + 1];
        assert_eq!(Problem { errors: many, ..Problem::bad_request("wrong") }.in_bounds().errors.len(), FLAWS_MAX);
    }
}
