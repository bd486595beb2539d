//! A DAG file: its header, its parameters, and its groups.

use super::schedule::{DataInterval, Deadline, Schedules};
use super::task::{Callbacks, Defaults, Task};
use super::value::{TextOrNumber, Texts};
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// One DAG: a file in dags/.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "A Backstop DAG")]
pub struct Dag {
    /// The DAG's id.
    pub dag: String,
    /// For people.
    pub description: Option<String>,
    /// Labels.
    pub tags: Option<Texts>,
    /// Cron text, a preset such as `@daily`, `{every: 15m}`, `{cron: ..., timezone: ...}`, `{assets: [...]}`, or a list of these; absent is by
    /// hand.
    pub schedule: Option<Schedules>,
    /// IANA name; UTC by default.
    pub timezone: Option<String>,
    /// No logical date before it. A date or time, in the DAG's time zone.
    pub start_date: Option<String>,
    /// No logical date after it. A day alone is all of that day.
    pub end_date: Option<String>,
    /// Run everything that was missed; false by default: the latest missed run alone.
    pub catchup: Option<bool>,
    /// What data a scheduled run stands for; `tick` by default.
    pub data_interval: Option<DataInterval>,
    /// How many of its runs may be active at once; 16 by default.
    pub max_active_runs: Option<u32>,
    /// By when its runs must be done.
    pub deadlines: Option<Vec<Deadline>>,
    /// The default connection of its tasks.
    pub connection: Option<String>,
    /// Settings of all its tasks.
    pub defaults: Option<Defaults>,
    /// `{{ params.X }}`: a default alone, or a mapping.
    pub params: Option<BTreeMap<String, ParamOrDefault>>,
    /// Run when the run has failed.
    pub on_failure: Option<Callbacks>,
    /// Run when the run has succeeded.
    pub on_success: Option<Callbacks>,
    /// Run when a deadline is missed, or will be, as far as past runs tell.
    pub on_deadline: Option<Callbacks>,
    /// Run when the run waits for a person to say what became of a task.
    pub on_stuck: Option<Callbacks>,
    /// How many of its tasks may run at once; 16 by default.
    pub max_active_tasks: Option<u32>,
    /// The longest a run may take.
    pub dagrun_timeout: Option<TextOrNumber>,
    /// Most items of a mapped task; 1024 by default.
    pub max_map_length: Option<u32>,
    /// Tasks and groups by id.
    pub tasks: BTreeMap<String, TaskOrGroup>,
}

/// A default alone, or a mapping with `type`, `default`, `enum`, `description`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum ParamOrDefault {
    /// A mapping.
    Param(Param),
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
    /// true or false.
    Boolean(bool),
    /// A list.
    List(Vec<serde_json::Value>),
    /// Required, of any type.
    Null(()),
}

/// A parameter.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Param {
    /// Its type; that of the default when absent.
    #[schemars(rename = "type")]
    pub kind: Option<ParamKind>,
    /// Without one the parameter is required.
    pub default: Option<serde_json::Value>,
    /// The allowed values.
    #[schemars(rename = "enum")]
    pub choices: Option<Vec<serde_json::Value>>,
    /// For people.
    pub description: Option<String>,
}

/// Types of parameters.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum ParamKind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// true or false.
    Boolean,
    /// 2025-05-01.
    Date,
    /// RFC 3339.
    Timestamp,
    /// A list.
    List,
    /// Anything.
    Json,
}

/// A task, or a group: a mapping with `tasks`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TaskOrGroup {
    /// A group.
    Group(Box<Group>),
    /// A task.
    Task(Box<Task>),
}

/// What a transaction sees of others.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Isolation {
    /// Each statement sees what was committed when it began.
    ReadCommitted,
    /// All statements see what was committed when the first began.
    RepeatableRead,
    /// As if there were no others.
    Serializable,
}

/// A group of tasks. `after: [group]` waits for all its leaves.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Group {
    /// What the group's first tasks wait for.
    pub after: Option<Texts>,
    /// Settings of all its tasks.
    pub defaults: Option<Defaults>,
    /// For people.
    pub doc: Option<String>,
    /// Its tasks share one session and one transaction, which commits once, at the end.
    pub transaction: Option<bool>,
    /// Of transactions: what they see of others; the server's own by default.
    pub isolation: Option<Isolation>,
    /// Of transactions: how long a statement may wait for a lock.
    pub lock_timeout: Option<TextOrNumber>,
    /// Of transactions: how long a statement may take.
    pub statement_timeout: Option<TextOrNumber>,
    /// Of transactions: how often the whole is run again when it was lost to a deadlock, a conflict or a broken connection; 3 by default.
    pub retries: Option<u32>,
    /// Of transactions: the wait before that, doubled each time; 1 second by default.
    pub retry_delay: Option<TextOrNumber>,
    /// Its tasks, whose ids become `group.task`.
    pub tasks: BTreeMap<String, TaskOrGroup>,
}
