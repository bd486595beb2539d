//! Tags of answers, so that who asks again for what has not changed is told so in a few bytes.
//!
//! Every JSON answer to a GET that has no tag of its own gets one made from its bytes. It saves the way, not the work.

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::hash::{DefaultHasher, Hasher as _};

/// Answers that are longer get no tag.
const BODY_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Tags an answer, or says that nothing changed.
pub(crate) async fn tag(mut request: Request, next: Next) -> Response {
    if request.method() == Method::HEAD {
        // What it tells is that of a GET, whose body is taken away outside of here.
        *request.method_mut() = Method::GET;
    }
    let known = (request.method() == Method::GET).then(|| request.headers().get(header::IF_NONE_MATCH).cloned());
    let response = next.run(request).await;
    let Some(known) = known else { return response };
    if response.status() != StatusCode::OK {
        return response;
    }
    let response = match response.headers().contains_key(header::ETAG) {
        true => response,
        false => tagged(response).await,
    };
    match (known, response.headers().get(header::ETAG)) {
        (Some(known), Some(tag)) if names(&known, tag) => not_modified(tag.clone()),
        _ => response,
    }
}

async fn tagged(response: Response) -> Response {
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
    let is_short = response.body().size_hint().exact().is_some_and(|bytes| bytes <= BODY_BYTES_MAX);
    if !is_json || !is_short {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // A body whose length is known is here already.
    let bytes: Bytes = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    parts.headers.insert(header::ETAG, of(&bytes));
    Response::from_parts(parts, Body::from(bytes))
}

/// The tag of an answer with this body.
pub(crate) fn of(body: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    let tag = HeaderValue::from_str(&format!("W/\"{:016x}\"", hasher.finish()));
    tag.unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

fn not_modified(tag: HeaderValue) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response()
}

/// Whether a list of tags names this one; `*` names all. Weak and strong are not told apart (RFC 9110, 13.1.2).
pub(crate) fn names(list: &HeaderValue, tag: &HeaderValue) -> bool {
    let bare = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let (Ok(list), Ok(tag)) = (list.to_str(), tag.to_str()) else { return false };
    list.split(',').any(|one| one.trim() == "*" || bare(one) == bare(tag))
}

/// Whether `If-Match` lets a change be made to what has this tag; without one, it does.
pub(crate) fn may_change(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers.get(header::IF_MATCH).is_none_or(|list| names(list, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_rfc_9110_says() {
        let names =
            |list: &'static str, tag: &'static str| names(&HeaderValue::from_static(list), &HeaderValue::from_static(tag));
        assert!(
            names("W/\"a\"", "W/\"a\"") && names("\"a\"", "W/\"a\"") && names("\"b\", W/\"a\"", "W/\"a\"") && names("*", "\"a\"")
        );
        assert!(!names("\"b\"", "W/\"a\"") && !names("", "W/\"a\""));
    }
}
