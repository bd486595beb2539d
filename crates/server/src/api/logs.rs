//! What a try of a task wrote, read piece by piece. A log of any size costs no more memory than a piece.

use super::operate::instance;
use super::stream::Places;
use super::{Path, Query, runs};
use crate::Problem;
use crate::wire::settings::LogPage;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use backstop_core::{InstanceId, RunId};
use backstop_runtime::service::Service;
use backstop_runtime::{LogPosition, LogReader, log_tries};
use futures_util::stream::{self, StreamExt as _};
use jiff::Timestamp;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use utoipa::IntoParams;

/// Between two looks at a log that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Piece {
    /// Which try; the last by default.
    #[param(minimum = 1)]
    r#try: Option<u32>,
    /// The cursor: what comes behind it.
    after: Option<String>,
}

/// A log, and who wrote it.
struct Log {
    service: Arc<Service>,
    root: PathBuf,
    run: RunId,
    instance: InstanceId,
    /// When the run was asked for.
    since: Timestamp,
}

impl Log {
    async fn find(service: Arc<Service>, run: String, task: &str) -> Result<Self, Problem> {
        let row = runs::find(&service, run).await?;
        let run = row.header.run_id.clone();
        let instance = instance(task)?;
        // Tells what is not there from what has not begun.
        service.why(&run, &instance).await?;
        let root = service.log_root().map(std::path::Path::to_owned);
        let root = root.ok_or_else(|| Problem::not_found("this service keeps no logs"))?;
        Ok(Self { service, root, run, instance, since: row.header.queued_at })
    }

    /// Off the threads that answer others: a disk may be slow.
    async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Problem> {
        let outcome = tokio::task::spawn_blocking(work).await;
        outcome.map_err(std::io::Error::other).flatten().map_err(|error| {
            let status = axum::http::StatusCode::SERVICE_UNAVAILABLE;
            Problem::new(status, "log", "The log cannot be read", error.to_string()).hint("see to the disk that has the logs")
        })
    }

    async fn tries(&self) -> Result<Vec<u32>, Problem> {
        let (root, run, instance, since) = (self.root.clone(), self.run.clone(), self.instance.clone(), self.since);
        Self::blocking(move || Ok(log_tries(&root, &run, since, &instance))).await
    }

    /// The try to read: the one that is wanted, or the last that has a log.
    async fn which(&self, wanted: Option<u32>) -> Result<(u32, Vec<u32>), Problem> {
        let tries = self.tries().await?;
        match wanted {
            Some(number) if !tries.contains(&number) => {
                let problem = Problem::not_found(format!("there is no log of try {number} of `{}`", self.instance));
                let there: Vec<String> = tries.iter().map(u32::to_string).collect();
                Err(match there.is_empty() {
                    true => problem
                        .hint("it has written no log yet; tasks that did not run, and those of the kind `empty`, have none"),
                    false => problem.hint(format!("there are logs of these tries: {}", there.join(", "))),
                })
            }
            Some(number) => Ok((number, tries)),
            None => Ok((tries.last().copied().unwrap_or_default(), tries)),
        }
    }

    /// Whether the try may write more. Asked before its log is read: what it has not written by then, it never will.
    async fn goes_on(&self, try_number: u32) -> Result<bool, Problem> {
        let row = super::runs::find_instance(&self.service, &self.run, &self.instance).await?;
        let goes_on = row.is_some_and(|row| {
            row.try_number <= try_number && matches!(row.state.as_str(), "scheduled" | "running" | "deferred" | "none")
        });
        Ok(goes_on && !self.service.is_over(&self.run).await?)
    }

    async fn read(&self, try_number: u32, from: LogPosition) -> Result<(Vec<u8>, LogPosition), Problem> {
        let (root, run, instance, since) = (self.root.clone(), self.run.clone(), self.instance.clone(), self.since);
        Self::blocking(move || {
            let mut reader = LogReader::new(&root, &run, since, &instance, try_number).at(from);
            let lines = reader.read_new()?;
            Ok((lines, reader.position()))
        })
        .await
    }
}

/// What a try of a task wrote, a piece at a time.
///
/// Follow a task by asking again with `next` as `after`, until `complete`. Secrets are masked.
#[utoipa::path(get, path = "/runs/{run}/tasks/{task}/logs", operation_id = "get_log", tag = "runs",
    params(("run" = String, Path, description = "The run's id"),
        ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task"), Piece),
    responses((status = 200, body = LogPage)))]
pub(super) async fn page(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
    Query(wanted): Query<Piece>,
) -> Result<Json<LogPage>, Problem> {
    let from = wanted.after.as_deref().map(position).transpose()?.unwrap_or_default();
    let log = Log::find(service, run, &task).await?;
    let (try_number, tries) = log.which(wanted.r#try).await?;
    let goes_on = log.goes_on(try_number).await?;
    let (lines, at) = log.read(try_number, from).await?;
    Ok(Json(LogPage {
        run_id: log.run.to_string(),
        task: log.instance.to_string(),
        try_number,
        tries,
        complete: lines.is_empty() && !goes_on,
        text: String::from_utf8_lossy(&lines).into_owned(),
        next: at.to_string(),
    }))
}

fn position(cursor: &str) -> Result<LogPosition, Problem> {
    let refused = |_| Problem::bad_request(format!("`after` is `{cursor}`, which is no cursor: take it from `next`"));
    cursor.parse().map_err(refused)
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Whole {
    /// Which try; the last by default.
    #[param(minimum = 1)]
    r#try: Option<u32>,
    /// Go on until the try is over.
    follow: bool,
}

/// What a try of a task wrote, as text.
///
/// All of it, however long; with `follow` the answer goes on until the try is over.
#[utoipa::path(get, path = "/runs/{run}/tasks/{task}/logs/text", operation_id = "get_log_text", tag = "runs",
    params(("run" = String, Path, description = "The run's id"),
        ("task" = String, Path, description = "The task instance, such as `load`, or `load[3]` of a mapped task"), Whole),
    responses((status = 200, body = String, content_type = "text/plain; charset=utf-8")))]
pub(super) async fn whole(
    State(service): State<Arc<Service>>,
    Path((run, task)): Path<(String, String)>,
    Extension(places): Extension<Arc<Places>>,
    Query(wanted): Query<Whole>,
) -> Result<Response, Problem> {
    let place = if wanted.follow { Some(places.take()?) } else { None };
    let log = Log::find(service, run, &task).await?;
    let (try_number, _) = log.which(wanted.r#try).await?;
    let start = (log, LogPosition::default(), try_number, false);
    let follow = wanted.follow;
    let pieces = stream::unfold(start, move |(log, at, mut try_number, has_ended)| async move {
        if has_ended {
            return None;
        }
        loop {
            if try_number == 0 && follow {
                try_number = log.tries().await.ok()?.first().copied().unwrap_or_default();
            }
            let goes_on = follow && !log.service.is_stopping() && log.goes_on(try_number.max(1)).await.ok()?;
            match log.read(try_number, at.clone()).await {
                // An answer that has begun can only break off.
                Err(_) => return Some((Err(std::io::Error::other("the log cannot be read")), (log, at, try_number, true))),
                Ok((lines, next)) if !lines.is_empty() => return Some((Ok(Bytes::from(lines)), (log, next, try_number, false))),
                Ok(_) if !goes_on => return None,
                Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    });
    // The place is free again when the answer is.
    let pieces = pieces.map(move |piece| {
        let _held = &place;
        piece
    });
    let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((kind, Body::from_stream(pieces)).into_response())
}
