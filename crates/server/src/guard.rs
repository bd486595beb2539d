//! Who may ask.
//!
//! A service that listens on loopback and has no token trusts whoever can reach it, but not what a browser is made to send: the `Host` must
//! be one of ours (a name that was pointed at loopback by somebody else's DNS is not), and an `Origin` must be that host.

use crate::Problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use std::net::IpAddr;
use std::sync::Arc;

/// What a request must have.
#[derive(Clone)]
pub struct Access {
    /// When set, every request but `/health` must carry it (`Authorization: Bearer ...`).
    token: Option<String>,
    /// Hosts by which the service may be addressed, without port. Empty: any (then there is a token).
    hosts: Vec<String>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("token", &self.token.as_ref().map(|_| "***")).field("hosts", &self.hosts).finish()
    }
}

impl Access {
    /// For a service that listens at this address of loopback: no token is needed.
    pub fn loopback(address: IpAddr) -> Self {
        let own = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let mut hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        if !hosts.contains(&own) {
            hosts.push(own);
        }
        Self { token: None, hosts }
    }

    /// With a token; then any host will do.
    pub fn with_token(token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), hosts: Vec::new() }
    }

    fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST).map(without_port);
        if !self.hosts.is_empty() && !host.is_some_and(|host| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))) {
            let detail = "the Host header names another host than this service's";
            return Some(Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", "This is not that host", detail));
        }
        if let Some(origin) = text(header::ORIGIN)
            && method != Method::GET
            && method != Method::HEAD
        {
            let from = origin.split_once("://").map_or(origin, |(_, rest)| rest);
            if text(header::HOST) != Some(from) {
                let detail = "the request comes from a page of another origin";
                return Some(Problem::new(StatusCode::FORBIDDEN, "wrong-origin", "Another site's page may not ask this", detail));
            }
        }
        let token = self.token.as_deref().filter(|_| path != "/health")?;
        let given = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if is_same(given.as_bytes(), token.as_bytes()) {
            return None;
        }
        let problem =
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", "no valid token came with the request");
        Some(problem.hint("send it as `Authorization: Bearer TOKEN`"))
    }
}

/// Compares without telling by its time where the first difference is.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let difference = given.iter().zip(wanted).fold(given.len() ^ wanted.len(), |so_far, (a, b)| so_far | usize::from(a ^ b));
    difference == 0
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        Some(_) | None => host,
    }
}

/// Lets a request through, or answers it.
pub async fn check(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match access.refusal(request.method(), request.uri().path(), request.headers()) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(access: &Access, method: Method, headers: &[(header::HeaderName, &str)]) -> Option<String> {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| drop(map.insert(name, value.parse().unwrap())));
        let problem = access.refusal(&method, "/api/v1/runs", &map)?;
        Some(serde_json::to_value(problem).unwrap()["type"].as_str().unwrap().to_owned())
    }

    #[test]
    fn loopback_is_asked_by_its_own_names_only() {
        let access = Access::loopback("127.0.0.2".parse().unwrap());
        for host in ["127.0.0.1:8640", "127.0.0.2:8640", "localhost", "LOCALHOST:1", "[::1]:8640", "[::1]"] {
            assert_eq!(refusal(&access, Method::GET, &[(header::HOST, host)]), None, "{host}");
        }
        for headers in [
            &[(header::HOST, "evil.example:8640")] as &[_],
            &[(header::HOST, "127.0.0.3:8640")],
            &[(header::HOST, "127.0.0.1.evil.example")],
            &[],
        ] {
            assert_eq!(refusal(&access, Method::GET, headers).as_deref(), Some("wrong-host"));
        }
    }

    #[test]
    fn pages_of_others_may_not_act() {
        let access = Access::loopback("127.0.0.2".parse().unwrap());
        let from = |origin| [(header::HOST, "localhost:8640"), (header::ORIGIN, origin)];
        assert_eq!(refusal(&access, Method::POST, &from("http://localhost:8640")), None);
        assert_eq!(refusal(&access, Method::POST, &from("http://localhost:9999")).as_deref(), Some("wrong-origin"));
        assert_eq!(refusal(&access, Method::POST, &from("null")).as_deref(), Some("wrong-origin"));
        assert_eq!(refusal(&access, Method::GET, &from("http://evil.example")), None);
    }

    #[test]
    fn a_token_is_wanted_where_there_is_one() {
        let access = Access::with_token("s3cret");
        let with = |value| [(header::HOST, "any.example"), (header::AUTHORIZATION, value)];
        assert_eq!(refusal(&access, Method::GET, &with("Bearer s3cret")), None);
        for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer S3cret", "Basic s3cret", "Bearer "] {
            assert_eq!(refusal(&access, Method::GET, &with(wrong)).as_deref(), Some("unauthorized"), "{wrong}");
        }
        assert!(!format!("{access:?}").contains("s3cret"));
    }
}
