//! Tasks and callbacks: the settings under Airflow's names, and the keys beside a kind.

use super::kind::{Branch, CheckOrSql, HttpOrUrl, PythonOrFile, ResultKind, Sensor, ShellOrCommand, TriggerDagOrId, WaitForOrId};
use super::value::{BooleanOrNumber, TextOrNumber, Texts};
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// Settings of tasks, under Airflow's names.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Defaults {
    /// The id of a connection.
    pub connection: Option<String>,
    /// When the task may start, from the states of its upstreams.
    pub trigger_rule: Option<TriggerRule>,
    /// Tries after the first.
    pub retries: Option<u32>,
    /// Wait before a retry; 5 minutes by default.
    pub retry_delay: Option<TextOrNumber>,
    /// true doubles the wait each time; a number multiplies by it.
    pub retry_exponential_backoff: Option<BooleanOrNumber>,
    /// The longest wait.
    pub max_retry_delay: Option<TextOrNumber>,
    /// Kill an attempt after so long.
    pub execution_timeout: Option<TextOrNumber>,
    /// The pool it takes slots of.
    pub pool: Option<String>,
    /// How many slots; 1 by default.
    pub pool_slots: Option<u32>,
    /// Higher goes first.
    pub priority_weight: Option<i64>,
    /// How the priority follows from the graph.
    pub weight_rule: Option<WeightRule>,
    /// What may be done when an attempt's outcome cannot be known.
    pub delivery: Option<Delivery>,
    /// Run after the final failure.
    pub on_failure: Option<Callbacks>,
    /// Run after a failure that will be retried.
    pub on_retry: Option<Callbacks>,
    /// Run after a success.
    pub on_success: Option<Callbacks>,
}

/// Airflow's trigger rules.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum TriggerRule {
    /// Every upstream succeeded.
    AllSuccess,
    /// Every upstream failed.
    AllFailed,
    /// Every upstream is done.
    AllDone,
    /// All done, one succeeded, none skipped.
    AllDoneMinOneSuccess,
    /// For teardowns.
    AllDoneSetupSuccess,
    /// One succeeded.
    OneSuccess,
    /// One failed.
    OneFailed,
    /// One succeeded or failed.
    OneDone,
    /// None failed.
    NoneFailed,
    /// None failed, one succeeded.
    NoneFailedMinOneSuccess,
    /// None was skipped.
    NoneSkipped,
    /// All were skipped.
    AllSkipped,
    /// At once.
    Always,
}

/// Airflow's weight rules.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum WeightRule {
    /// Own weight and that of all downstreams.
    Downstream,
    /// Own weight and that of all upstreams.
    Upstream,
    /// Own weight alone.
    Absolute,
}

/// What may be done when an attempt's outcome cannot be known.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum Delivery {
    /// Ask a person.
    ExactlyOnce,
    /// Run it again.
    AtLeastOnce,
}

/// A task: one of sql, check, branch, sensor, shell, python, http, dag, wait_for, empty; and settings.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Task {
    /// Runs SQL: the text, or a file that ends in .sql.
    pub sql: Option<String>,
    /// Checks data.
    pub check: Option<CheckOrSql>,
    /// Chooses which downstreams to follow.
    pub branch: Option<Branch>,
    /// Waits for a condition.
    pub sensor: Option<Sensor>,
    /// Runs a command.
    pub shell: Option<ShellOrCommand>,
    /// Runs Python.
    pub python: Option<PythonOrFile>,
    /// Calls a URL.
    pub http: Option<HttpOrUrl>,
    /// Starts a run of another DAG.
    pub dag: Option<TriggerDagOrId>,
    /// Waits for a run of another DAG.
    pub wait_for: Option<WaitForOrId>,
    /// Does nothing.
    pub empty: Option<bool>,
    /// Of sql: bound by name (`:name`).
    pub parameters: Option<BTreeMap<String, serde_json::Value>>,
    /// Of sql: each statement commits by itself.
    pub autocommit: Option<bool>,
    /// Of sql: what is kept for downstream tasks.
    pub result: Option<ResultKind>,
    /// Of sql: bytes that the result may take; 64KiB by default.
    pub result_max: Option<TextOrNumber>,
    /// Of sql: false leaves `{{ }}` in the script alone.
    pub templated: Option<bool>,
    /// Direct upstreams: tasks and groups.
    pub after: Option<Texts>,
    /// Run once for each item of a list, a template, or the rows of a query.
    pub for_each: Option<ForEach>,
    /// Assets that are updated when the task succeeds.
    pub updates: Option<Texts>,
    /// For people.
    pub doc: Option<String>,
    /// The task prepares a resource.
    pub setup: Option<bool>,
    /// The task removes a resource: true, or the setups it belongs to.
    pub teardown: Option<Teardown>,
    /// Of teardowns: its failure fails the run.
    pub on_failure_fail_dagrun: Option<bool>,
    /// Settings.
    #[schemars(flatten)]
    pub settings: Defaults,
}

/// true, or the setups.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Teardown {
    /// true.
    Boolean(bool),
    /// The setups.
    Setups(Texts),
}

/// What a mapped task expands over.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum ForEach {
    /// A list.
    List(Vec<serde_json::Value>),
    /// A template that renders to a list.
    Template(String),
    /// The rows of a query.
    Rows(ForEachRows),
}

/// The rows of a query.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ForEachRows {
    /// The query.
    pub sql: String,
    /// Bound by name.
    pub parameters: Option<BTreeMap<String, serde_json::Value>>,
    /// The task's by default.
    pub connection: Option<String>,
}

/// Names of notifiers, or callbacks in place.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Callbacks {
    /// Several.
    List(Vec<CallbackOrName>),
    /// One.
    One(Box<CallbackOrName>),
}

/// A notifier's name, or a callback.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum CallbackOrName {
    /// A name.
    Name(String),
    /// In place.
    Callback(Box<Callback>),
}

/// A callback: one of sql, shell, python, http.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Callback {
    /// Runs SQL.
    pub sql: Option<String>,
    /// Runs a command.
    pub shell: Option<ShellOrCommand>,
    /// Runs Python.
    pub python: Option<PythonOrFile>,
    /// Calls a URL.
    pub http: Option<HttpOrUrl>,
    /// Of sql.
    pub parameters: Option<BTreeMap<String, serde_json::Value>>,
    /// Of sql.
    pub autocommit: Option<bool>,
    /// Of sql.
    pub result: Option<ResultKind>,
    /// Of sql.
    pub result_max: Option<TextOrNumber>,
    /// Of sql.
    pub templated: Option<bool>,
    /// Of sql; the task's by default.
    pub connection: Option<String>,
    /// Kill it after so long; 5 minutes by default.
    pub timeout: Option<TextOrNumber>,
}
