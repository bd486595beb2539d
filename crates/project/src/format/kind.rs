//! What stands under the key that says what a task does.

use super::value::{TextOrNumber, Texts};
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// A query whose first row must be true, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum CheckOrSql {
    /// A query.
    Sql(String),
    /// A mapping.
    Check(Box<Check>),
}

/// A check. Which one follows from its keys: `sql`; with `equals`; with `min` or `max`; or `table` with `columns`, `checks` or `metrics`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Check {
    /// The query.
    pub sql: Option<String>,
    /// Bound by name.
    pub parameters: Option<BTreeMap<String, serde_json::Value>>,
    /// What the first row must equal.
    pub equals: Option<serde_json::Value>,
    /// A ratio: 0.1 is plus or minus ten percent.
    pub tolerance: Option<f64>,
    /// Lower bound: a number or a query.
    pub min: Option<TextOrNumber>,
    /// Upper bound: a number or a query.
    pub max: Option<TextOrNumber>,
    /// The table.
    pub table: Option<String>,
    /// Checks by column and metric.
    pub columns: Option<BTreeMap<String, ColumnChecks>>,
    /// Conditions by name.
    pub checks: Option<BTreeMap<String, String>>,
    /// Largest ratios by metric.
    pub metrics: Option<BTreeMap<String, f64>>,
    /// A WHERE condition.
    pub partition: Option<String>,
    /// NULL counts as 0; true by default.
    pub accept_none: Option<bool>,
    /// The date column; `ds` by default.
    pub date_column: Option<String>,
    /// 7 by default.
    pub days_back: Option<i64>,
    /// max_over_min by default.
    pub ratio_formula: Option<RatioFormula>,
    /// A metric of 0 passes; true by default.
    pub ignore_zero: Option<bool>,
}

/// The checks of a column.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ColumnChecks {
    /// How many are NULL.
    pub null_check: Option<ColumnCheck>,
    /// How many distinct values.
    pub distinct_check: Option<ColumnCheck>,
    /// How many are not unique.
    pub unique_check: Option<ColumnCheck>,
    /// Smallest.
    pub min: Option<ColumnCheck>,
    /// Largest.
    pub max: Option<ColumnCheck>,
}

/// Conditions; all must hold.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ColumnCheck {
    /// Equal, within `tolerance`.
    pub equal_to: Option<f64>,
    /// A ratio.
    pub tolerance: Option<f64>,
    /// Strictly.
    pub greater_than: Option<f64>,
    /// Strictly.
    pub less_than: Option<f64>,
    /// Or equal.
    pub geq_to: Option<f64>,
    /// Or equal.
    pub leq_to: Option<f64>,
}

/// How an interval's ratio is computed.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum RatioFormula {
    /// max / min.
    MaxOverMin,
    /// abs(a - b) / b.
    RelativeDiff,
}

/// A branch: one of sql, when, python.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Branch {
    /// A query whose first value decides.
    pub sql: Option<String>,
    /// A template that renders to true or false, or to task ids.
    pub when: Option<String>,
    /// A function that returns true or false, or task ids.
    pub python: Option<PythonOrFile>,
    /// Of sql.
    pub parameters: Option<BTreeMap<String, serde_json::Value>>,
    /// Followed when true.
    pub if_true: Option<Texts>,
    /// Followed when false.
    pub if_false: Option<Texts>,
}

/// A sensor: one of sql, file, http, time.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Sensor {
    /// A query whose first value is true.
    pub sql: Option<String>,
    /// A file exists.
    pub file: Option<String>,
    /// A URL answers with 2xx.
    pub http: Option<HttpOrUrl>,
    /// A point in time has passed.
    pub time: Option<String>,
    /// Of sql.
    pub parameters: Option<BTreeMap<String, serde_json::Value>>,
    /// Of sql: no row is a failure.
    pub fail_on_empty: Option<bool>,
    /// Between two looks; 60 s by default.
    pub poke_interval: Option<TextOrNumber>,
    /// Since the first look; 7 days by default.
    pub timeout: Option<TextOrNumber>,
    /// On time-out, skip instead of fail.
    pub soft_fail: Option<bool>,
}

/// A DAG's id, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TriggerDagOrId {
    /// The id: its run is awaited.
    Id(String),
    /// A mapping.
    Trigger(TriggerDag),
}

/// A run of another DAG.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct TriggerDag {
    /// Which DAG of the project.
    pub id: String,
    /// Parameters of its run.
    pub params: Option<BTreeMap<String, serde_json::Value>>,
    /// What its run is about; the own run's logical date by default.
    pub logical_date: Option<String>,
    /// Whether the task ends only with that run; true by default.
    pub wait: Option<bool>,
}

/// A DAG's id, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum WaitForOrId {
    /// The id: its run about the own run's logical date is awaited.
    Id(String),
    /// A mapping.
    WaitFor(WaitFor),
}

/// A wait for a run of another DAG.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct WaitFor {
    /// Which DAG of the project.
    pub dag: String,
    /// A task of it; without one, the whole run.
    pub task: Option<String>,
    /// Which of its runs; the one about the own run's logical date by default.
    pub logical_date: Option<String>,
    /// What to do when it has failed; `fail` by default.
    pub if_failed: Option<IfFailed>,
    /// 7 days by default.
    pub timeout: Option<TextOrNumber>,
    /// On time-out, skip instead of fail.
    pub soft_fail: Option<bool>,
}

/// What a task does when what it waits for has failed.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum IfFailed {
    /// It fails, too.
    Fail,
    /// It goes on waiting.
    Wait,
    /// It is skipped.
    Skip,
}

/// A command, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum ShellOrCommand {
    /// A command.
    Command(String),
    /// A mapping.
    Shell(Shell),
}

/// A shell command.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Shell {
    /// For `sh -c`.
    pub command: String,
    /// Added to the environment.
    pub env: Option<BTreeMap<String, TextOrNumber>>,
    /// A folder of the project.
    pub cwd: Option<String>,
    /// The exit code that means skip; 99 by default.
    pub skip_on_exit_code: Option<u8>,
}

/// A file, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum PythonOrFile {
    /// A file that ends in .py.
    File(String),
    /// A mapping.
    Python(Python),
}

/// Python in a subprocess: file or code.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Python {
    /// A file that ends in .py.
    pub file: Option<String>,
    /// The code itself.
    pub code: Option<String>,
    /// The function to call; without one the file is run as a script.
    pub function: Option<String>,
    /// Keyword arguments.
    pub args: Option<BTreeMap<String, serde_json::Value>>,
    /// python3 by default.
    pub interpreter: Option<String>,
}

/// A URL, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum HttpOrUrl {
    /// A URL.
    Url(String),
    /// A mapping.
    Http(Http),
}

/// An HTTP request.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Http {
    /// http or https.
    pub url: String,
    /// GET by default.
    pub method: Option<String>,
    /// By name.
    pub headers: Option<BTreeMap<String, TextOrNumber>>,
    /// A text, or JSON.
    pub body: Option<serde_json::Value>,
    /// Statuses that are a success; 200 to 299 by default.
    pub expect: Option<Statuses>,
    /// Keep the answer as the result.
    pub result: Option<bool>,
    /// 60 s by default.
    pub timeout: Option<TextOrNumber>,
}

/// One status, or several.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Statuses {
    /// One.
    One(u16),
    /// Several.
    List(Vec<u16>),
}

/// What is kept of a query's result.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum ResultKind {
    /// Nothing.
    None,
    /// The first column of the first row.
    Scalar,
    /// The first row.
    Row,
    /// All rows.
    Rows,
}
