//! What a project is once it is valid. Everything here is proven: names resolve, durations are durations, templates parse.

mod kinds;

use backstop_core::dag::Delivery;
use backstop_core::timetable::{Deadline, Timetable};
use backstop_core::{Dag, DagId, TaskIx};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use kinds::{
    Bound, Branch, BranchBy, Check, ColumnCheck, ColumnMetric, Http, HttpBody, IfFailed, Isolation, Python, PythonCode,
    RatioFormula, ResultKind, Sensor, SensorBy, Shell, Sql, Transaction, TriggerDag, WaitFor,
};

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
    /// Values of the environment that are secret: what `${NAME}` puts into passwords, or anywhere where NAME says so, and the token of the
    /// service. [`Project::secrets`] has all there are.
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
    /// Commits what the tasks of its group did in one transaction.
    Commit(Transaction),
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
            Self::Commit(_) => "transaction",
            Self::Empty => "empty",
        }
    }
}
