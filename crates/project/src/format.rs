//! The YAML types, for the JSON Schema that editors complete with. The reader in `read` collects mistakes instead of stopping at the first, so it
//! does not deserialize these types; a test proves that both know the same keys.

mod dag;
mod kind;
mod project;
mod schedule;
mod task;
mod value;

pub use dag::{Dag, Group, Param, ParamKind, ParamOrDefault, TaskOrGroup};
pub use kind::{
    Branch, Check, CheckOrSql, ColumnCheck, ColumnChecks, Http, HttpOrUrl, IfFailed, Python, PythonOrFile, RatioFormula,
    ResultKind, Sensor, Shell, ShellOrCommand, Statuses, TriggerDag, TriggerDagOrId, WaitFor, WaitForOrId,
};
pub use project::{Connection, ConnectionOrUri, Marker, Pool, PoolOrSlots, Project};
pub use schedule::{
    AssetExpression, Assets, DataInterval, Deadline, DeadlineReference, NameOrAssets, Schedule, Schedules, TextOrSchedule,
};
pub use task::{
    Callback, CallbackOrName, Callbacks, Defaults, Delivery, ForEach, ForEachRows, Task, Teardown, TriggerRule, WeightRule,
};
pub use value::{BooleanOrNumber, TextOrNumber, Texts};

/// The JSON Schema of backstop.yaml.
pub fn project_schema() -> serde_json::Value {
    schemars::schema_for!(Project).to_value()
}

/// The JSON Schema of a DAG file.
pub fn dag_schema() -> serde_json::Value {
    schemars::schema_for!(Dag).to_value()
}
