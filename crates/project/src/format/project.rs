//! backstop.yaml: connections, variables, pools, notifiers, defaults.

use super::task::{Callback, Defaults};
use super::value::TextOrNumber;
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
