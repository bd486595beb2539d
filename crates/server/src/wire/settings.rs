//! Variables, connections, logs and sources, as machines read them.

use backstop_runtime::service::ConnectionShown;
use backstop_runtime::service::settings::VariableShown;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A variable. A secret one is only written, never read.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Variable {
    /// Its name, as in `var.value.NAME`.
    variable: String,
    /// Null when it is secret; texts in it that are known to be secret are `***`.
    value: Value,
    /// Its name says that nobody may read it.
    secret: bool,
    /// In the words of who set it.
    #[schema(required)]
    description: Option<String>,
    /// The project that it is of, by its backstop.yaml or its environment; null when it was set here.
    #[schema(required)]
    project: Option<String>,
}

impl From<VariableShown> for Variable {
    fn from(shown: VariableShown) -> Self {
        Self {
            variable: shown.name,
            value: shown.value.unwrap_or_default(),
            secret: shown.is_secret,
            description: shown.description,
            project: shown.project,
        }
    }
}

/// A connection. No secret is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Connection {
    /// Its id.
    connection: String,
    /// The project that it is of.
    project: String,
    /// Which kind of database: `postgres`, `mysql`, `sqlite`.
    r#type: String,
    /// What is connected to; null where its settings are wrong.
    #[schema(required)]
    target: Option<String>,
    /// Where it is defined.
    origin: String,
    /// In the author's words.
    #[schema(required)]
    description: Option<String>,
    /// Sessions at most.
    sessions_max: u32,
    /// What is wrong with its settings.
    #[schema(required)]
    error: Option<String>,
}

impl From<ConnectionShown> for Connection {
    fn from(shown: ConnectionShown) -> Self {
        Self {
            connection: shown.id,
            project: shown.project,
            r#type: shown.conn_type,
            target: shown.target,
            origin: shown.origin,
            description: shown.description,
            sessions_max: shown.sessions_max,
            error: shown.error,
        }
    }
}

/// What a test of a connection came to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectionTest {
    /// Its id.
    pub(crate) connection: String,
    /// Whether it can be used.
    pub(crate) ok: bool,
    /// What was connected to.
    #[schema(required)]
    pub(crate) target: Option<String>,
    /// In the server's words.
    #[schema(required)]
    pub(crate) server_version: Option<String>,
    /// To open a session, in milliseconds.
    #[schema(required)]
    pub(crate) open_ms: Option<f64>,
    /// Of a query that does nothing, in milliseconds.
    #[schema(required)]
    pub(crate) round_trip_ms: Option<f64>,
    /// Whether the table of markers is there; null where the database can have none. It is made when it is first needed.
    #[schema(required)]
    pub(crate) marker_table: Option<bool>,
    /// Why it cannot be used.
    #[schema(required)]
    pub(crate) error: Option<String>,
    /// What to do next.
    #[schema(required)]
    pub(crate) hint: Option<String>,
}

/// A piece of the log of one try.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogPage {
    pub(crate) run_id: String,
    /// Such as `load`, or `load[3]` of a mapped task.
    pub(crate) task: String,
    /// Which try this is of; 0 while there is none.
    pub(crate) try_number: u32,
    /// The tries that have a log.
    pub(crate) tries: Vec<u32>,
    /// Whole lines.
    pub(crate) text: String,
    /// The cursor behind them: ask with it as `after` for what comes.
    pub(crate) next: String,
    /// All that this try has said was given; nothing more comes.
    pub(crate) complete: bool,
}

/// A file that a DAG is made of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SourceFile {
    /// From the project's folder.
    pub(crate) file: String,
    /// Its text; what is no UTF-8 in it is replaced.
    pub(crate) text: String,
}

/// The files that a version of a DAG is made of, without the secrets of connections.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DagSource {
    pub(crate) dag: String,
    /// SHA-256 of them, hex.
    pub(crate) version: String,
    /// The DAG's own file first.
    pub(crate) files: Vec<SourceFile>,
}
