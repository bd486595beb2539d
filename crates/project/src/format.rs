//! The YAML types, for the JSON Schema that editors complete with. The reader in `read` collects mistakes instead of stopping at the first, so it
//! does not deserialize these types; a test proves that both know the same keys.

use schemars::JsonSchema;
use std::collections::BTreeMap;

/// backstop.yaml
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, title = "backstop.yaml")]
pub struct Project {
    /// The project's name; the folder's by default.
    pub name: Option<String>,
    /// Connections by id: a URI, or a mapping. `${NAME}` and `${NAME:-default}` are replaced by variables of the environment.
    pub connections: Option<BTreeMap<String, ConnectionOrUri>>,
    /// `{{ var.value.X }}` and `{{ var.json.X }}`.
    pub variables: Option<BTreeMap<String, serde_json::Value>>,
    /// Slots by pool; `default_pool` has 128 unless it is named here. -1 is without limit.
    pub pools: Option<BTreeMap<String, PoolOrSlots>>,
    /// Callbacks by name, for `on_failure`, `on_retry` and `on_success`.
    pub notifiers: Option<BTreeMap<String, Callback>>,
    /// Settings of all tasks of all DAGs.
    pub defaults: Option<Defaults>,
}

/// A URI such as `postgres://user:password@host/database`, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum ConnectionOrUri {
    /// A URI.
    Uri(String),
    /// A mapping.
    Mapping(Box<Connection>),
}

/// A connection.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Connection {
    /// postgres, mysql (also MariaDB) or sqlite.
    pub conn_type: Option<String>,
    /// The whole connection in one text; the other keys win over it.
    pub uri: Option<String>,
    /// Host name, address or socket folder.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<TextOrNumber>,
    /// User.
    pub login: Option<String>,
    /// Password. Write `${NAME}`, and set it in the environment.
    pub password: Option<String>,
    /// Database; of SQLite, the file.
    pub database: Option<String>,
    /// Airflow's name for `database`.
    pub schema: Option<String>,
    /// Everything else, such as `sslmode`.
    pub extra: Option<BTreeMap<String, serde_json::Value>>,
    /// Where marker rows go.
    pub marker: Option<Marker>,
    /// How many sessions may be open at once; 16 by default.
    pub sessions: Option<u32>,
    /// For people.
    pub description: Option<String>,
}

/// Where marker rows go.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Marker {
    /// The schema; the session's own by default.
    pub schema: Option<String>,
    /// The table; `backstop_marker` by default.
    pub table: Option<String>,
}

/// Slots, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum PoolOrSlots {
    /// Slots; -1 is without limit.
    Slots(i64),
    /// With a description.
    Mapping(Pool),
}

/// A pool.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Pool {
    /// How many; -1 is without limit.
    pub slots: i64,
    /// For people.
    pub description: Option<String>,
}

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
    /// Cron text, a preset such as `@daily`, or `{every: 15m}`; absent is by hand.
    pub schedule: Option<Schedule>,
    /// IANA name; UTC by default.
    pub timezone: Option<String>,
    /// No run before it. A date or time, in the DAG's time zone.
    pub start_date: Option<String>,
    /// No run after it.
    pub end_date: Option<String>,
    /// Run what was missed since `start_date`; false by default.
    pub catchup: Option<bool>,
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
    /// How many of its tasks may run at once; 16 by default.
    pub max_active_tasks: Option<u32>,
    /// The longest a run may take.
    pub dagrun_timeout: Option<TextOrNumber>,
    /// Most items of a mapped task; 1024 by default.
    pub max_map_length: Option<u32>,
    /// Tasks and groups by id.
    pub tasks: BTreeMap<String, TaskOrGroup>,
}

/// When a DAG runs.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Schedule {
    /// Cron text or a preset.
    Text(String),
    /// At intervals.
    Every(Every),
}

/// At intervals.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Every {
    /// `15m`, `1h30m`, or seconds.
    pub every: TextOrNumber,
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
    /// Its tasks, whose ids become `group.task`.
    pub tasks: BTreeMap<String, TaskOrGroup>,
}

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

/// A task: one of sql, check, branch, sensor, shell, python, http, empty; and settings.
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

/// A text, or a list of texts.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Texts {
    /// One.
    One(String),
    /// Several.
    List(Vec<String>),
}

/// A text or a number.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TextOrNumber {
    /// A text.
    Text(String),
    /// A number.
    Number(f64),
}

/// true, false or a number.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum BooleanOrNumber {
    /// true or false.
    Boolean(bool),
    /// A number.
    Number(f64),
}

/// The JSON Schema of backstop.yaml.
pub fn project_schema() -> serde_json::Value {
    schemars::schema_for!(Project).to_value()
}

/// The JSON Schema of a DAG file.
pub fn dag_schema() -> serde_json::Value {
    schemars::schema_for!(Dag).to_value()
}
