//! A service that has the store: asked over its API, so that what is steered acts at once.
//!
//! Who it is stands in the store; the token comes from a file or from `BACKSTOP_TOKEN`, as for `backstop up` itself.

use crate::explain::Problem;
use crate::paths::Kept;
use backstop_runtime::service::{Holder, WHO_CHARACTERS_MAX, WHY_BYTES_MAX, holder};
use backstop_store::{SqliteStore, Store};
use clap::Args;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;

/// Another way to give the token.
pub(crate) const TOKEN: &str = backstop_project::SERVICE_TOKEN;
/// How long the service may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Bytes of an answer, at most. Pages are smaller.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Rows of a page that is asked for.
const PAGE_ROWS: usize = 1000;
/// Pages of a list that are followed, at most.
const PAGES_MAX: usize = 1000;
/// What may stand in a part of a path as it is.
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How the service is entered.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Entrance {
    /// A file with the token of the service; BACKSTOP_TOKEN is another way to give one
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// Who acts, and why.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Signature {
    /// Why; kept
    #[arg(long, value_name = "TEXT", value_parser = crate::service::reason)]
    pub(crate) reason: Option<String>,
    /// Who [default: the user of the operating system]
    #[arg(long, value_name = "NAME", value_parser = crate::service::name_of_who)]
    pub(crate) who: Option<String>,
}

/// A reason, as long as the service takes it.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    match text.len() {
        bytes if bytes > WHY_BYTES_MAX => Err(format!("it has {bytes} bytes; {WHY_BYTES_MAX} are allowed")),
        _ => Ok(text.to_owned()),
    }
}

/// A name of who acts, as long as the service takes it.
pub(crate) fn name_of_who(text: &str) -> Result<String, String> {
    match text.chars().count() {
        characters if characters > WHO_CHARACTERS_MAX => {
            Err(format!("it has {characters} characters; {WHO_CHARACTERS_MAX} are allowed"))
        }
        _ => Ok(text.to_owned()),
    }
}

impl Signature {
    pub(crate) fn who(&self) -> String {
        self.who.clone().unwrap_or_else(crate::run::begin::who)
    }

    pub(crate) fn why(&self) -> String {
        self.reason.clone().unwrap_or_default()
    }
}

/// A service that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    address: String,
    token: Option<String>,
}

/// A part of a path.
pub(crate) fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// What a text on the command line is as JSON: `parameters` are texts, and the DAG says what they mean.
pub(crate) fn params(given: &[(String, String)]) -> Result<Value, Problem> {
    let mut texts = serde_json::Map::new();
    for (name, value) in given {
        if texts.insert(name.clone(), Value::from(value.as_str())).is_some() {
            return Err(Problem::usage(format!("parameter `{name}` is given twice")));
        }
    }
    Ok(Value::Object(texts))
}

impl Service {
    /// The one that has the store; `None` when there is none.
    pub(crate) async fn of(store: &dyn Store, entrance: &Entrance) -> Result<Option<Self>, Problem> {
        let Some(Holder { address, .. }) = holder(store).await? else { return Ok(None) };
        let token = match &entrance.token_file {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .map_err(|error| Problem::system(format!("read the token file {}", file.display()), &error))?,
            ),
            None => std::env::var(TOKEN).ok(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Ok(Some(Self { address: reachable(address), token }))
    }

    /// As [`Self::of`], of a store by its file; there is none where nothing has run yet.
    pub(crate) async fn of_kept(kept: &Kept, entrance: &Entrance) -> Result<Option<Self>, Problem> {
        if !kept.store.exists() {
            return Ok(None);
        }
        Self::of(&SqliteStore::open_read_only(&kept.store)?, entrance).await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, Problem> {
        self.ask(Method::GET, path, None).await
    }

    /// All rows of a list: page after page, each going on (by this parameter) where the one before ended.
    pub(crate) async fn list(&self, path: &str, cursor: &str) -> Result<Vec<Value>, Problem> {
        let mut rows = Vec::new();
        let mut next = String::new();
        for _ in 0..PAGES_MAX {
            let mut page = self.get(&format!("{path}?limit={PAGE_ROWS}{next}")).await?;
            if let Value::Array(items) = page["items"].take() {
                rows.extend(items);
            }
            let Some(place) = page["next"].as_str() else { return Ok(rows) };
            next = format!("&{cursor}={}", part(place));
        }
        Err(Problem::usage(format!("the list {path} has more than {} rows", PAGES_MAX * PAGE_ROWS)))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Problem> {
        self.ask(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Value, Problem> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Problem> {
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.exchange(method.clone(), path, body)).await;
        let (status, text) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.silent(&method, path).cause(error.to_string())),
            Err(_) => return Err(self.silent(&method, path).cause(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        };
        let answer: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        if status.is_success() { Ok(answer) } else { Err(self.refusal(status, &answer)) }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer, or with this exchange.
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.address);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let response = sender.send_request(request.body(Full::new(Bytes::from(bytes)))?).await?;
        let status = response.status();
        let text = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        connection.abort();
        Ok((status, text))
    }

    fn silent(&self, method: &Method, path: &str) -> Problem {
        Problem::usage(format!("the service at {} did not answer {method} {path}", self.address))
            .hint("whether it did what was asked is not known: look, then ask again")
    }

    /// A problem document, as any other problem is told.
    fn refusal(&self, status: StatusCode, document: &Value) -> Problem {
        let text = |key: &str| document[key].as_str().map(str::to_owned);
        let detail = text("detail").unwrap_or_else(|| format!("status {status}"));
        if status == StatusCode::UNAUTHORIZED {
            let said = if self.token.is_some() { "does not know this token" } else { "wants a token" };
            return Problem::usage(format!("the service at {} {said}", self.address))
                .hint(format!("give the token that it was started with: --token-file FILE or {TOKEN}"));
        }
        let mut problem = Problem::usage(detail);
        for flaw in document["errors"].as_array().into_iter().flatten() {
            let hint = flaw["hint"].as_str().map(|hint| format!(" ({hint})")).unwrap_or_default();
            problem = problem.cause(format!(
                "{}: {}{hint}",
                flaw["name"].as_str().unwrap_or_default(),
                flaw["message"].as_str().unwrap_or_default()
            ));
        }
        match text("hint") {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// A service that listens everywhere listens here, too.
fn reachable(address: String) -> String {
    match address.parse::<std::net::SocketAddr>() {
        Ok(at) if at.ip().is_unspecified() && at.is_ipv6() => format!("[::1]:{}", at.port()),
        Ok(at) if at.ip().is_unspecified() => format!("127.0.0.1:{}", at.port()),
        Ok(_) | Err(_) => address,
    }
}

/// `who` and `why` of a body.
pub(crate) fn signed(mut body: Value, signature: &Signature) -> Value {
    body["who"] = json!(signature.who());
    body["why"] = json!(signature.why());
    body
}

/// What is told where there is no service and only one can do what is asked.
pub(crate) fn none_is_there(what: &str, kept: &Kept) -> Problem {
    Problem::usage(format!("no service has the store {}: {what}", kept.store.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_reached_where_it_listens() {
        let reached = |address: &str| reachable(address.to_owned());
        assert_eq!(reached("0.0.0.0:8640"), "127.0.0.1:8640");
        assert_eq!(reached("[::]:8640"), "[::1]:8640");
        assert_eq!(reached("192.0.2.7:8640"), "192.0.2.7:8640");
        assert_eq!(part("load[3]/x"), "load%5B3%5D%2Fx");
    }
}
