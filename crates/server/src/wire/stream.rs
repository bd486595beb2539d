//! What the live stream tells, as machines read it.

use super::EventLine;
use serde::Serialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// The data of a `run` event of the stream: something happened to a run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StreamRun)]
pub(crate) struct OfRun<'a> {
    /// The run's DAG.
    pub(crate) dag: &'a str,
    /// As in the run's log.
    pub(crate) event: EventLine<'a>,
}

/// The data of a `dags` event of the stream: DAGs came, went, changed, or were paused. Read the list again.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = StreamDags)]
pub(crate) struct OfDags {}

/// The data of a `gap` event of the stream: something was missed. Read the lists again.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = StreamGap)]
pub(crate) struct Gap {}

/// What the stream sends, event by event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the events for the OpenAPI document; the framework writes them")]
pub(crate) struct StreamEvent {
    /// Its number; of a `gap`, none.
    id: Option<String>,
    event: StreamEventName,
    /// JSON: of `run` StreamRun, of `dags` StreamDags, of `gap` StreamGap.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// Which event of the stream it is.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "as `StreamEvent`")]
enum StreamEventName {
    Run,
    Dags,
    Gap,
}

/// The schemas of all of them, which no answer refers to.
pub(crate) fn schemas() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![
        (OfRun::name().into_owned(), OfRun::schema()),
        (OfDags::name().into_owned(), OfDags::schema()),
        (Gap::name().into_owned(), Gap::schema()),
    ];
    OfRun::schemas(&mut schemas);
    schemas
}
