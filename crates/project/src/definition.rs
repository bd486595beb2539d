//! What a project is once it is valid. Everything here is proven: names resolve, durations are durations, templates parse.

use backstop_core::dag::Delivery;
use backstop_core::timetable::{Deadline, Timetable};
use backstop_core::{Dag, DagId, TaskId, TaskIx};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A text with templates in it, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The text as written.
    pub text: Arc<str>,
    /// Where it begins.
    pub source: Source,
}

/// Where a text begins in the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Relative to the project folder.
    pub file: Arc<str>,
    /// The line of the text's first character, from 1. Line n of the text is line `line + n - 1` of the file.
    pub line: u32,
    /// The column of the text's first character, in characters from 1; each later line of a block is indented by as much.
    pub column: u32,
}

/// A project. Its `Debug` shows no secret.
#[derive(Clone)]
pub struct Project {
    /// `name` in backstop.yaml, or the folder's name.
    pub name: String,
    /// The folder.
    pub root: PathBuf,
    /// By id: of backstop.yaml, then `BACKSTOP_CONN_*`, then `AIRFLOW_CONN_*`; the first wins.
    pub connections: BTreeMap<String, Connection>,
    /// `var.value.X`: of backstop.yaml, then `BACKSTOP_VAR_*`, then `AIRFLOW_VAR_*`.
    pub variables: BTreeMap<String, serde_json::Value>,
    /// Values of `${NAME}` that are secret: those in passwords, and those whose NAME says so. [`Project::secrets`] has all there are.
    pub interpolated_secrets: crate::secrets::Secrets,
    /// What stands before backstop.yaml; its variables are among `variables` already.
    pub overrides: crate::overrides::Overrides,
    /// Valid DAGs by id. One with errors is absent.
    pub dags: BTreeMap<DagId, Arc<Definition>>,
}

impl std::fmt::Debug for Project {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Project")
            .field("name", &self.name)
            .field("root", &self.root)
            .field("connections", &self.connections)
            // Their values may be secret.
            .field("variables", &self.variables.keys())
            .field("interpolated_secrets", &self.interpolated_secrets)
            .field("overrides", &self.overrides)
            .field("dags", &self.dags)
            .finish()
    }
}

/// A connection, credentials included. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// `postgres`, `mysql`, `sqlite`, ...
    pub conn_type: String,
    /// Host name, address or socket folder.
    pub host: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// User.
    pub login: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Database (Airflow's schema); SQLite: the path.
    pub database: Option<String>,
    /// Everything else.
    pub extra: BTreeMap<String, String>,
    /// `marker: {schema, table}`; where marker rows go.
    pub marker_schema: Option<String>,
    /// `backstop_marker` by default.
    pub marker_table: Option<String>,
    /// How many sessions may be open at once; 16 by default.
    pub sessions_max: u32,
    /// For people.
    pub description: Option<String>,
    /// Where it was defined: a file and line, or an environment variable.
    pub origin: String,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Any of them may come out of a secret variable of the environment, which is not known here.
        let masked = |text: &Option<String>| text.as_ref().map(|_| "***");
        f.debug_struct("Connection")
            .field("conn_type", &self.conn_type)
            .field("host", &masked(&self.host))
            .field("port", &self.port)
            .field("login", &masked(&self.login))
            .field("password", &masked(&self.password))
            .field("database", &masked(&self.database))
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A valid DAG with everything that is needed to run it.
#[derive(Debug)]
pub struct Definition {
    /// The graph.
    pub dag: Arc<Dag>,
    /// For people.
    pub description: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// The file it is defined in.
    pub file: Arc<str>,
    /// SHA-256 of its sources, hex.
    pub version: String,
    /// Its sources: its YAML, backstop.yaml without connections' secrets, and every file its tasks name.
    pub bundle: super::files::Bundle,
    /// When it runs, in words for people; what it means is in `timetable`.
    pub schedule: Option<String>,
    /// IANA name, `UTC` by default.
    pub timezone: String,
    /// Not before.
    pub start_date: Option<Timestamp>,
    /// Not after.
    pub end_date: Option<Timestamp>,
    /// Airflow's catchup.
    pub catchup: bool,
    /// When it runs by itself; `None` is by hand.
    pub timetable: Option<Timetable>,
    /// How many of its runs may be active at once; 16 by default.
    pub max_active_runs: u32,
    /// By when its runs must be done.
    pub deadlines: Vec<Deadline>,
    /// Typed parameters, in order.
    pub params: Vec<Param>,
    /// One body a task, by [`TaskIx`].
    pub bodies: Vec<Body>,
    /// Callbacks of the run as a whole.
    pub callbacks: Callbacks,
}

impl Definition {
    /// The body of a task.
    pub fn body(&self, task: TaskIx) -> &Body {
        &self.bodies[task.get()]
    }
}

/// A typed parameter of a DAG.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ParamKind,
    /// Used when none is given; without one the parameter is required.
    pub default: Option<serde_json::Value>,
    /// The allowed values; empty is all.
    pub choices: Vec<serde_json::Value>,
    /// For people.
    pub description: Option<String>,
}

/// Types of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamKind {
    /// Text.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Number,
    /// true or false.
    Boolean,
    /// `2025-05-01`.
    Date,
    /// RFC 3339.
    Timestamp,
    /// A list of anything.
    List,
    /// Any JSON.
    Json,
}

/// What a task does, and the settings that only the runtime needs.
#[derive(Clone, Debug)]
pub struct Body {
    /// What it does.
    pub kind: Kind,
    /// The connection's id, for the kinds that have one.
    pub connection: Option<String>,
    /// Kill the attempt after so long.
    pub execution_timeout: Option<Duration>,
    /// What a mapped task expands over.
    pub for_each: Option<ForEach>,
    /// Bodies of the callbacks; their counts are in the core's `Hooks`.
    pub callbacks: Callbacks,
    /// As the core has it.
    pub delivery: Delivery,
    /// Where the task begins.
    pub source: Source,
    /// Assets that are updated when the task succeeds, by name (Airflow's outlets).
    pub updates: Vec<Arc<str>>,
    /// For people (Airflow's doc_md).
    pub doc: Option<String>,
}

/// Callback bodies by occasion.
#[derive(Clone, Debug, Default)]
pub struct Callbacks {
    /// After a final failure.
    pub on_failure: Vec<Callback>,
    /// After a failure that will be retried.
    pub on_retry: Vec<Callback>,
    /// After a success.
    pub on_success: Vec<Callback>,
    /// When a deadline is missed, or will be. Of the run as a whole.
    pub on_deadline: Vec<Callback>,
    /// When the run waits for a person. Of the run as a whole.
    pub on_stuck: Vec<Callback>,
}

/// One callback: a task kind that runs on an occasion.
#[derive(Clone, Debug)]
pub struct Callback {
    /// The notifier's name, where it came from `notifiers:`.
    pub name: Option<String>,
    /// `sql`, `shell`, `python` or `http`.
    pub kind: Kind,
    /// For SQL.
    pub connection: Option<String>,
    /// Kill it after so long; 5 minutes by default.
    pub timeout: Duration,
    /// Where it stands.
    pub source: Source,
}

/// What a mapped task expands over. Each item is `item` in the task's templates, and `map_index` its place.
#[derive(Clone, Debug)]
pub enum ForEach {
    /// A list in the source; texts in it may have templates.
    List(Vec<serde_json::Value>, Source),
    /// A template that renders to a list (`{{ params.regions }}`, `{{ ti.xcom_pull('x') }}`).
    Expression(Template),
    /// The rows of a query: an item is an object by column name.
    Rows {
        /// The query.
        sql: Template,
        /// Where it runs.
        connection: String,
        /// Bound parameters.
        parameters: Parameters,
    },
}

/// Bound parameters by name (`:name` in the SQL). Texts may have templates; they are bound, never pasted.
pub type Parameters = BTreeMap<String, serde_json::Value>;

/// What a task does.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Runs a script.
    Sql(Sql),
    /// Checks data; fails when the check does not hold.
    Check(Check),
    /// Chooses which direct downstreams to follow.
    Branch(Branch),
    /// Waits until a condition holds.
    Sensor(Sensor),
    /// Runs a command with `sh -c`.
    Shell(Shell),
    /// Runs Python in a subprocess.
    Python(Python),
    /// Calls a URL.
    Http(Http),
    /// Starts a run of another DAG.
    Dag(TriggerDag),
    /// Waits for a run of another DAG.
    WaitFor(WaitFor),
    /// Does nothing.
    Empty,
}

impl Kind {
    /// The key in the YAML.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sql(_) => "sql",
            Self::Check(_) => "check",
            Self::Branch(_) => "branch",
            Self::Sensor(_) => "sensor",
            Self::Shell(_) => "shell",
            Self::Python(_) => "python",
            Self::Http(_) => "http",
            Self::Dag(_) => "dag",
            Self::WaitFor(_) => "wait_for",
            Self::Empty => "empty",
        }
    }
}

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
