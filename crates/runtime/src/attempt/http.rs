//! `http`: one request. A status that was not expected is a failure, and the answer's beginning is its cause.

use super::script::stopped;
use super::{Attempt, Outcome};
use crate::failure::{FailureExt, causes, failure, of_template};
use backstop_core::dag::Delivery;
use backstop_core::event::{Failure, FailureClass};
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
    let (status, answer, is_whole) = match send(attempt, http).await {
        Ok(answered) => answered,
        Err(outcome) => return outcome,
    };
    if !is_expected(http, status) {
        let mut told = failure(
            if status == 429 || status >= 500 { FailureClass::Transient } else { FailureClass::Permanent },
            format!("the request was answered with status {status}"),
        )
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
                format!("the answer is longer than {ANSWER_BYTES_MAX} bytes, the most that is kept as a result"),
            )
            .effect("the other side has acted")
            .hint("ask for less, or do without `result`"),
        );
    }
    Outcome::with_result(&serde_json::from_str(&answer).unwrap_or(Json::String(answer)))
}

/// Looks for a sensor: true when the answer is expected. No answer, and any other status, is "not yet".
pub(crate) async fn look(attempt: &mut Attempt, http: &Http) -> Result<bool, Outcome> {
    match send(attempt, http).await {
        Ok((status, _, _)) => Ok(is_expected(http, status)),
        Err(Outcome::Failed(failure)) if failure.class == FailureClass::Transient => Ok(false),
        Err(outcome) => Err(outcome),
    }
}

fn is_expected(http: &Http, status: u16) -> bool {
    if http.expect.is_empty() { (200..300).contains(&status) } else { http.expect.contains(&status) }
}

/// Status, body, and whether the body is whole.
async fn send(attempt: &mut Attempt, http: &Http) -> Result<(u16, String, bool), Outcome> {
    let shared = attempt.shared.clone();
    let render = |template: &Template| {
        shared.renderer.render(template, &attempt.context).map_err(|error| Outcome::Failed(of_template(&error)))
    };
    let refused = |text: String| Outcome::Failed(failure(FailureClass::Permanent, text).effect("nothing was sent"));
    let url = render(&http.url)?;
    let method = reqwest::Method::from_bytes(http.method.as_bytes())
        .map_err(|_| refused(format!("`{}` is not an HTTP method", http.method)))?;
    let client = client().map_err(|error| refused(format!("prepare the HTTP client: {error}")))?;
    let mut request = client.request(method, url.trim()).timeout(http.timeout);
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
        answered = answered => answered.map_err(|error| {
            let told = of_request(&error);
            let may_have_acted = !error.is_connect() && !error.is_builder();
            // As after a crash: nobody knows, so nobody repeats it unless the author allows it.
            match may_have_acted && !is_safe(&http.method) && attempt.delivery == Delivery::ExactlyOnce {
                true => Outcome::Unknown(told),
                false => Outcome::Failed(told),
            }
        }),
        reason = stopper.wait() => Err(stopped(&reason, "whether the other side acted is not known to Backstop")),
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

fn of_request(error: &reqwest::Error) -> Failure {
    // A URL may carry a token: the error must not repeat it.
    let class = if error.is_builder() { FailureClass::Permanent } else { FailureClass::Transient };
    let what = if error.is_connect() {
        "no connection"
    } else if error.is_timeout() {
        "no answer in time"
    } else if error.is_builder() {
        "the URL or a header is not valid"
    } else {
        "no whole answer"
    };
    let effect = if error.is_connect() || error.is_builder() {
        "nothing was sent"
    } else {
        "whether the other side acted is not known to Backstop"
    };
    let mut told = failure(class, format!("send the request: {what}")).effect(effect);
    told.causes = causes(error);
    told
}
