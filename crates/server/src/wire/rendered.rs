//! The SQL of a task instance, as machines read it.

use backstop_core::InstanceId;
use backstop_runtime::service::rendered::{RenderedSql, SqlText};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a task instance asks of its database. Secrets are `***`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskSql {
    run_id: String,
    task: String,
    #[schema(required)]
    map_index: Option<u32>,
    /// The try that it is rendered for: the last, or the first to come.
    try_number: u32,
    /// The task's kind, such as `sql` or `check`.
    kind: &'static str,
    /// Where it is sent.
    #[schema(required)]
    connection: Option<String>,
    /// Its texts; none of a task that sends no SQL of its author's.
    texts: Vec<Text>,
}

impl TaskSql {
    /// Of this instance.
    pub(crate) fn new(run: &str, instance: InstanceId, rendered: RenderedSql) -> Self {
        let RenderedSql { try_number, kind, connection, texts } = rendered;
        Self {
            run_id: run.to_owned(),
            task: instance.task.to_string(),
            map_index: instance.map_index,
            try_number,
            kind,
            connection,
            texts: texts.into_iter().map(Text::from).collect(),
        }
    }
}

/// A text of SQL.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SqlText)]
struct Text {
    /// What it is for: `script`, `check`, `lower bound`, `upper bound`, `branch`, `sensor`.
    what: &'static str,
    /// Where its template is, from the project's folder.
    file: String,
    /// From 1.
    line: u32,
    /// As it is sent, but for the notation of what is bound.
    sql: String,
    /// The end of it is left out because it is too large.
    cut: bool,
    /// The values that are bound, by name.
    parameters: BTreeMap<String, Value>,
}

impl From<SqlText> for Text {
    fn from(text: SqlText) -> Self {
        let SqlText { what, file, line, sql, is_cut, parameters } = text;
        Self { what, file, line, sql, cut: is_cut, parameters }
    }
}
