//! `http`: one request. A status that was not expected is a failure, and the answer's beginning is its cause.

mod address;

use super::script::stopped;
use super::{Attempt, Outcome};
use crate::failure::{FailureExt, causes, failure, of_template};
use backstop_core::dag::Delivery;
use backstop_core::event::{Failure, FailureClass, Place};
use backstop_project::definition::{Http, HttpBody, Template};
use serde_json::Value as Json;
use std::sync::OnceLock;

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Characters of an answer that an error shows.
const ANSWER_SHOWN_MAX: usize = 500;

/// True for methods that, by RFC 9110 section 9.2.1, change nothing.
pub(crate) fn is_safe(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS", "TRACE"].iter().any(|safe| method.eq_ignore_ascii_case(safe))
}

/// One client for the process, made when first needed.
fn client() -> Result<reqwest::Client, reqwest::Error> {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    if let Some(client) = CLIENT.get() {
        return Ok(client.clone());
    }
    // Another part of the process may have installed a provider: any is good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().user_agent(concat!("backstop/", env!("CARGO_PKG_VERSION"))).build()?;
    Ok(CLIENT.get_or_init(|| client).clone())
}

/// Runs an `http` task.
pub(crate) async fn run_task(attempt: &mut Attempt, http: &Http) -> Outcome {
    if !is_safe(&http.method) {
        if let Some(outcome) = attempt.dry_run_note("this request").await {
            return outcome;
        }
        if let Err(outcome) = attempt.wait_for_log().await {
            return outcome;
        }
    }
    let Answered { shown, status, text: answer, is_whole } = match send(attempt, http).await {
        Ok(answered) => answered,
        Err(outcome) => return outcome,
    };
    if !is_expected(http, status) {
        let mut told = failure(
            if status == 429 || status >= 500 { FailureClass::Transient } else { FailureClass::Permanent },
            format!("{shown} was answered with status {status}"),
        )
        .place(Some(place(http)))
        .effect("what the other side did is not known to Backstop");
        let shown: String = answer.chars().take(ANSWER_SHOWN_MAX).collect();
        if !shown.trim().is_empty() {
            told.causes.push(shown);
        }
        return Outcome::Failed(told);
    }
    if !http.result {
        return Outcome::done();
    }
    if !is_whole {
        return Outcome::Failed(
            failure(
                FailureClass::Final,
                format!("the answer of {shown} is longer than {ANSWER_BYTES_MAX} bytes, the most that is kept as a result"),
            )
            .place(Some(place(http)))
            .effect("the other side has acted")
            .hint("ask for less, or do without `result`"),
        );
    }
    Outcome::with_result(&serde_json::from_str(&answer).unwrap_or(Json::String(answer)))
}

/// Looks for a sensor: true when the answer is expected. No answer, and any other status, is "not yet".
pub(crate) async fn look(attempt: &mut Attempt, http: &Http) -> Result<bool, Outcome> {
    match send(attempt, http).await {
        Ok(answered) => Ok(is_expected(http, answered.status)),
        Err(Outcome::Failed(failure)) if failure.class == FailureClass::Transient => Ok(false),
        Err(outcome) => Err(outcome),
    }
}

fn is_expected(http: &Http, status: u16) -> bool {
    if http.expect.is_empty() { (200..300).contains(&status) } else { http.expect.contains(&status) }
}

/// Where the address stands in the sources.
fn place(http: &Http) -> Place {
    let source = &http.url.source;
    Place { file: source.file.to_string(), line: source.line, column: source.column, statement: None }
}

/// What came back.
struct Answered {
    /// The request, as it may be shown.
    shown: String,
    status: u16,
    text: String,
    /// False when the answer was longer than what is read.
    is_whole: bool,
}

async fn send(attempt: &mut Attempt, http: &Http) -> Result<Answered, Outcome> {
    let shared = attempt.shared.clone();
    let render = |template: &Template| {
        shared.renderer.render(template, &attempt.context).map_err(|error| Outcome::Failed(of_template(&error)))
    };
    let refused = |text: String| {
        Outcome::Failed(failure(FailureClass::Permanent, text).place(Some(place(http))).effect("nothing was sent"))
    };
    // What is no address cannot be masked in parts, so it is not shown: its place is.
    let url: reqwest::Url =
        render(&http.url)?.trim().parse().map_err(|error| refused(format!("the address to send to is not valid: {error}")))?;
    let shown = address::shown(&http.method, &url);
    let method = reqwest::Method::from_bytes(http.method.as_bytes())
        .map_err(|_| refused(format!("`{}` is not an HTTP method", http.method)))?;
    let client = client().map_err(|error| refused(format!("prepare the HTTP client: {error}")))?;
    let mut request = client.request(method, url).timeout(http.timeout);
    for (name, value) in &http.headers {
        request = request.header(name, render(value)?);
    }
    match &http.body {
        None => {}
        Some(HttpBody::Text(text)) => request = request.body(render(text)?),
        Some(HttpBody::Json(value)) => {
            let value = shared
                .renderer
                .render_value(value, &attempt.source, &attempt.context)
                .map_err(|error| Outcome::Failed(of_template(&error)))?;
            request = request.header("content-type", "application/json").body(value.to_string());
        }
    }
    // The same key on every try lets the other side recognise a repeated request.
    let key = format!("{}/{}", shared.header.run_id, attempt.instance);
    request = request.header("idempotency-key", key);
    let mut stopper = attempt.stopper.clone();
    let answered = async {
        let response = request.send().await?;
        let status = response.status().as_u16();
        read(response).await.map(|(text, is_whole)| (status, text, is_whole))
    };
    tokio::select! {
        answered = answered => match answered {
            Ok((status, text, is_whole)) => Ok(Answered { shown, status, text, is_whole }),
            Err(error) => Err(not_answered(attempt, http, &shown, &error)),
        },
        reason = stopper.wait() => Err(stopped(&reason, "whether the other side acted is not known to Backstop")),
    }
}

fn not_answered(attempt: &Attempt, http: &Http, shown: &str, error: &reqwest::Error) -> Outcome {
    let told = of_request(shown, error).place(Some(place(http)));
    let may_have_acted = !error.is_connect() && !error.is_builder();
    // As after a crash: nobody knows, so nobody repeats it unless the author allows it.
    match may_have_acted && !is_safe(&http.method) && attempt.delivery == Delivery::ExactlyOnce {
        true => Outcome::Unknown(told),
        false => Outcome::Failed(told),
    }
}

async fn read(mut response: reqwest::Response) -> Result<(String, bool), reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = ANSWER_BYTES_MAX - bytes.len();
        if chunk.len() > room {
            bytes.extend_from_slice(&chunk[..room]);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), false));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), true))
}

/// The error's own text has the whole address in it, and is left out; its causes have not.
fn of_request(shown: &str, error: &reqwest::Error) -> Failure {
    let class = if error.is_builder() { FailureClass::Permanent } else { FailureClass::Transient };
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_builder() {
        "the address or a header is not valid"
    } else {
        "no whole answer"
    };
    let effect = if error.is_connect() || error.is_builder() {
        "nothing was sent"
    } else {
        "whether the other side acted is not known to Backstop"
    };
    let mut told = failure(class, format!("{shown}: {what}")).effect(effect);
    told.causes = causes(error);
    told
}
