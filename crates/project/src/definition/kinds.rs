//! The kinds of tasks: for each what its author says of it, checked and with its places in the sources.

use super::{Parameters, Source, Template};
use backstop_core::{DagId, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Starts a run of another DAG of the project (Airflow's TriggerDagRunOperator).
#[derive(Clone, Debug)]
pub struct TriggerDag {
    /// Which.
    pub dag: DagId,
    /// Parameters of its run; texts may have templates.
    pub params: BTreeMap<String, serde_json::Value>,
    /// What its run is about, in RFC 3339; the task's own run's logical date by default.
    pub logical_date: Option<Template>,
    /// Whether the task ends only with that run, and as it does.
    pub wait: bool,
}

/// Waits for a run of another DAG of the project (Airflow's ExternalTaskSensor).
#[derive(Clone, Debug)]
pub struct WaitFor {
    /// Which.
    pub dag: DagId,
    /// A task of it; without one, the whole run.
    pub task: Option<TaskId>,
    /// Which run, in RFC 3339; the one about the task's own run's logical date by default.
    pub logical_date: Option<Template>,
    /// What to do when it has failed.
    pub if_failed: IfFailed,
    /// How long to wait; 7 days by default.
    pub timeout: Duration,
    /// On time-out, skip instead of fail.
    pub soft_fail: bool,
}

/// What a task does when what it waits for has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfFailed {
    /// It fails, too, so that it is seen at once.
    #[default]
    Fail,
    /// It goes on waiting: somebody may mend the other run (Airflow's default).
    Wait,
    /// It is skipped.
    Skip,
}

/// The transaction that the tasks of a group share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The server's own by default.
    pub isolation: Option<Isolation>,
    /// How long a statement may wait for a lock; the server's own by default.
    pub lock_timeout: Option<Duration>,
    /// How long a statement may take.
    pub statement_timeout: Option<Duration>,
}

/// What a transaction sees of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Each statement sees what was committed when it began.
    ReadCommitted,
    /// All statements see what was committed when the first began.
    RepeatableRead,
    /// As if there were no others.
    Serializable,
}

/// A script.
#[derive(Clone, Debug)]
pub struct Sql {
    /// The script.
    pub script: Template,
    /// Bound by name.
    pub parameters: Parameters,
    /// True: each statement commits by itself. False (the default): the script is one transaction, save for its own BEGIN and COMMIT.
    pub autocommit: bool,
    /// What to keep for downstream tasks, of the last statement that returns rows.
    pub result: ResultKind,
    /// Bytes of JSON that the kept result may take; 64 KiB by default.
    pub result_bytes_max: u32,
    /// When false (the default is true), `{{ }}` in the script is not a template.
    pub templated: bool,
}

/// What is kept of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultKind {
    /// Nothing: rows are counted and let go.
    #[default]
    None,
    /// The first column of the first row.
    Scalar,
    /// The first row, an object by column name.
    Row,
    /// All rows, a list of objects.
    Rows,
}

/// Airflow's checks (common-sql).
#[derive(Clone, Debug)]
pub enum Check {
    /// SQLCheck: every value of the first row is true.
    Query {
        /// The query.
        sql: Template,
        /// Bound.
        parameters: Parameters,
    },
    /// SQLValueCheck: every value of the first row equals the expected one, within a tolerance (a ratio) for numbers.
    Value {
        /// The query.
        sql: Template,
        /// Bound.
        parameters: Parameters,
        /// Expected; may have templates.
        equals: serde_json::Value,
        /// 0.1 is plus or minus 10 %.
        tolerance: Option<f64>,
    },
    /// SQLThresholdCheck: the first value lies between two bounds, each a number or a query.
    Threshold {
        /// The query.
        sql: Template,
        /// Bound.
        parameters: Parameters,
        /// Lower bound: a number, or SQL text.
        min: Option<Bound>,
        /// Upper bound.
        max: Option<Bound>,
    },
    /// SQLColumnCheck.
    Columns {
        /// The table.
        table: Template,
        /// Column to its checks.
        columns: BTreeMap<String, Vec<ColumnCheck>>,
        /// A WHERE condition.
        partition: Option<Template>,
        /// NULL counts as 0 (Airflow's accept_none, default true).
        accept_none: bool,
    },
    /// SQLTableCheck: named conditions over the whole table.
    Table {
        /// The table.
        table: Template,
        /// Name to condition (`COUNT(*) > 1000`, `a + b = c`).
        checks: BTreeMap<String, Template>,
        /// A WHERE condition.
        partition: Option<Template>,
    },
    /// SQLIntervalCheck: metrics of today against those of `days_back` days ago.
    Interval {
        /// The table.
        table: Template,
        /// Metric (an aggregate) to the largest allowed ratio.
        metrics: BTreeMap<String, f64>,
        /// The date column.
        date_column: String,
        /// Positive; 7 by default.
        days_back: u32,
        /// Which ratio.
        ratio: RatioFormula,
        /// A metric of 0 on either side passes (default true).
        ignore_zero: bool,
    },
}

/// A bound of a threshold.
#[derive(Clone, Debug)]
pub enum Bound {
    /// A number.
    Number(f64),
    /// A query whose first value is the bound.
    Sql(Template),
}

/// How an interval's ratio is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RatioFormula {
    /// max(a, b) / min(a, b).
    #[default]
    MaxOverMin,
    /// abs(a - b) / b, b being the older.
    RelativeDiff,
}

/// One check of a column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnCheck {
    /// The aggregate.
    pub metric: ColumnMetric,
    /// `equal_to`, with a tolerance as a ratio.
    pub equal_to: Option<f64>,
    /// Ratio.
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

/// Airflow's column metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnMetric {
    /// How many are NULL.
    NullCheck,
    /// How many distinct values.
    DistinctCheck,
    /// How many are not unique.
    UniqueCheck,
    /// Smallest.
    Min,
    /// Largest.
    Max,
}

/// A branch.
#[derive(Clone, Debug)]
pub struct Branch {
    /// What decides.
    pub decide: BranchBy,
    /// Followed when true; direct downstreams.
    pub if_true: Vec<String>,
    /// Followed when false.
    pub if_false: Vec<String>,
}

/// What decides a branch.
#[derive(Clone, Debug)]
pub enum BranchBy {
    /// The first value of a query (Airflow's BranchSQLOperator reading of true and false).
    Sql {
        /// The query.
        sql: Template,
        /// Bound.
        parameters: Parameters,
    },
    /// A template that renders to true or false, or to a task id (or a list of them) to follow.
    When(Template),
    /// A Python function that returns a truth value, a task id, or a list of them.
    Python(Python),
}

/// A sensor.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// What it looks at.
    pub look: SensorBy,
    /// Between two looks; 60 s by default.
    pub poke_interval: Duration,
    /// Since its first look; 7 days by default.
    pub timeout: Duration,
    /// On time-out, skip instead of fail.
    pub soft_fail: bool,
}

/// What a sensor looks at.
#[derive(Clone, Debug)]
pub enum SensorBy {
    /// The first value of a query: true unless no row, NULL, 0, '0' or '' (Airflow's SqlSensor).
    Sql {
        /// The query.
        sql: Template,
        /// Bound.
        parameters: Parameters,
        /// No row is a failure.
        fail_on_empty: bool,
    },
    /// A file exists.
    File(Template),
    /// A request is answered with 2xx.
    Http(Http),
    /// A point in time (RFC 3339) has passed.
    Time(Template),
}

/// A shell command.
#[derive(Clone, Debug)]
pub struct Shell {
    /// For `sh -c`.
    pub command: Template,
    /// Added to the environment.
    pub env: BTreeMap<String, Template>,
    /// Relative to the project folder.
    pub cwd: Option<String>,
    /// Exit code that means "skip"; 99 by default (Airflow's).
    pub skip_on_exit_code: i32,
}

/// Python in a subprocess. The context comes as JSON; what the function returns (JSON) is the result.
#[derive(Clone, Debug)]
pub struct Python {
    /// A file relative to the project folder, or inline code.
    pub code: PythonCode,
    /// The function to call with the context; without one the file is run as a script.
    pub function: Option<String>,
    /// Keyword arguments; texts may have templates.
    pub args: BTreeMap<String, serde_json::Value>,
    /// The interpreter; `python3` by default.
    pub interpreter: String,
}

/// Where the Python is.
#[derive(Clone, Debug)]
pub enum PythonCode {
    /// A file.
    File(String),
    /// The code itself.
    Inline(Source, Arc<str>),
}

/// An HTTP request.
#[derive(Clone, Debug)]
pub struct Http {
    /// GET by default.
    pub method: String,
    /// http or https.
    pub url: Template,
    /// By name.
    pub headers: BTreeMap<String, Template>,
    /// Text, or JSON when the YAML has a mapping or a list.
    pub body: Option<HttpBody>,
    /// Statuses that are a success; 200 to 299 by default.
    pub expect: Vec<u16>,
    /// Keep the answer's body as the result (JSON when it is).
    pub result: bool,
    /// For the whole request; 60 s by default.
    pub timeout: Duration,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum HttpBody {
    /// As it is.
    Text(Template),
    /// Texts in it may have templates.
    Json(serde_json::Value),
}
