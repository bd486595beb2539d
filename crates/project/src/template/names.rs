//! The names that templates see, as Airflow has them. Values are made when they are asked for.

use super::datetime::DateTime;
use super::macros::Macros;
use super::values::from_json;
use crate::context::Context;
use crate::definition::{Connection, Definition, Kind, Project, ResultKind};
use jiff::Timestamp;
use minijinja::value::{Kwargs, Object, ObjectRepr, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Every name that templates may use.
pub(super) const NAMES: &[&str] = &[
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "ts_nodash_with_tz",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "prev_data_interval_start_success",
    "prev_data_interval_end_success",
    "prev_start_date_success",
    "prev_logical_date",
    "prev_ds",
    "prev_ds_nodash",
    "next_logical_date",
    "next_ds",
    "next_ds_nodash",
    "run_id",
    "dag",
    "dag_run",
    "task",
    "task_instance",
    "ti",
    "task_instance_key_str",
    "map_index",
    "item",
    "params",
    "var",
    "conn",
    "macros",
    "exception",
    "failure",
];

/// What is the same for all renderings of a DAG.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dag_id: String,
    description: Option<String>,
    tags: Vec<String>,
    variables: BTreeMap<String, serde_json::Value>,
    connections: BTreeMap<String, Connection>,
    /// By task: whether it can have a result.
    keeps_result: HashMap<String, bool>,
}

/// Whether a task of this kind can have a result for `xcom_pull`.
pub(crate) fn keeps_result(kind: &Kind) -> bool {
    match kind {
        Kind::Sql(sql) => sql.result != ResultKind::None,
        Kind::Http(http) => http.result,
        Kind::Branch(_) | Kind::Shell(_) | Kind::Python(_) | Kind::Dag(_) => true,
        Kind::Check(_) | Kind::Sensor(_) | Kind::WaitFor(_) | Kind::Commit(_) | Kind::Empty => false,
    }
}

impl Shared {
    pub(super) fn new(project: &Project, definition: &Definition) -> Self {
        let tasks = definition.dag.tasks().iter().zip(&definition.bodies);
        Self {
            dag_id: definition.dag.id().as_str().to_owned(),
            description: definition.description.clone(),
            tags: definition.tags.clone(),
            variables: project.variables.clone(),
            connections: project.connections.clone(),
            keeps_result: tasks.map(|(task, body)| (task.id.as_str().to_owned(), keeps_result(&body.kind))).collect(),
        }
    }
}

/// The names of one rendering.
#[derive(Debug)]
pub(super) struct Names {
    shared: Arc<Shared>,
    context: Arc<Context>,
    conn_type: Option<Arc<str>>,
}

impl Names {
    pub(super) fn new(shared: Arc<Shared>, context: Context, conn_type: Option<Arc<str>>) -> Self {
        Self { shared, context: Arc::new(context), conn_type }
    }

    /// A date that the run may lack: then using it is an error, as an empty date in SQL is none.
    fn needed(&self, name: &str, date: Option<Timestamp>) -> Result<DateTime, Error> {
        date.map(DateTime::utc).ok_or_else(|| {
            let message = format!("`{name}` needs a logical date, and this run has none; start it with --logical-date");
            refused(message)
        })
    }

    fn logical(&self, name: &str, of: impl Fn(DateTime) -> Value) -> Value {
        self.needed(name, self.context.logical_date).map_or_else(Value::from, of)
    }

    /// A date that Airflow gives as None when there is none.
    fn perhaps(date: Option<Timestamp>, of: impl Fn(DateTime) -> Value) -> Value {
        date.map_or_else(|| Value::from(()), |date| of(DateTime::utc(date)))
    }

    fn interval(&self, end: bool, name: &str) -> Value {
        let context = &self.context;
        let date = match context.data_interval {
            Some((start, _)) if !end => Some(start),
            Some((_, end)) => Some(end),
            None => context.logical_date,
        };
        self.needed(name, date).map_or_else(Value::from, DateTime::value)
    }

    fn dag_run(&self) -> Value {
        let context = &self.context;
        Value::from_pairs([
            ("run_id", Value::from(context.run_id.as_str())),
            ("dag_id", Value::from(self.shared.dag_id.as_str())),
            ("run_type", Value::from(context.run_type.as_str())),
            ("logical_date", Self::perhaps(context.logical_date, DateTime::value)),
            ("start_date", Self::perhaps(context.run_start, DateTime::value)),
            ("data_interval_start", Self::perhaps(context.data_interval.map(|(start, _)| start), DateTime::value)),
            ("data_interval_end", Self::perhaps(context.data_interval.map(|(_, end)| end), DateTime::value)),
            ("conf", params(context)),
        ])
    }

    fn map_index(&self) -> Value {
        self.context.map_index.map_or_else(|| Value::from(-1), Value::from)
    }
}

fn params(context: &Context) -> Value {
    Value::from_pairs(context.params.iter().map(|(key, value)| (key.clone(), from_json(value))))
}

impl Object for Names {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let context = &self.context;
        let name = key.as_str()?;
        Some(match name {
            "ds" => self.logical(name, |date| date.ds().into()),
            "ds_nodash" => self.logical(name, |date| date.ds_nodash().into()),
            "ts" => self.logical(name, |date| date.isoformat().into()),
            "ts_nodash" => self.logical(name, |date| date.ts_nodash().into()),
            "ts_nodash_with_tz" => self.logical(name, |date| date.ts_nodash_with_tz().into()),
            "logical_date" => self.logical(name, DateTime::value),
            "data_interval_start" => self.interval(false, name),
            "data_interval_end" => self.interval(true, name),
            "prev_data_interval_start_success" => {
                Self::perhaps(context.previous_success.map(|(start, _)| start), DateTime::value)
            }
            "prev_data_interval_end_success" => Self::perhaps(context.previous_success.map(|(_, end)| end), DateTime::value),
            "prev_start_date_success" => Self::perhaps(context.previous_success_start, DateTime::value),
            "prev_logical_date" => Self::perhaps(context.previous_logical_date, DateTime::value),
            "prev_ds" => Self::perhaps(context.previous_logical_date, |date| date.ds().into()),
            "prev_ds_nodash" => Self::perhaps(context.previous_logical_date, |date| date.ds_nodash().into()),
            "next_logical_date" => Self::perhaps(context.next_logical_date, DateTime::value),
            "next_ds" => Self::perhaps(context.next_logical_date, |date| date.ds().into()),
            "next_ds_nodash" => Self::perhaps(context.next_logical_date, |date| date.ds_nodash().into()),
            "run_id" => context.run_id.as_str().into(),
            "dag" => Value::from_pairs([
                ("dag_id", Value::from(self.shared.dag_id.as_str())),
                ("description", self.shared.description.as_deref().map_or_else(|| Value::from(()), Value::from)),
                ("tags", self.shared.tags.iter().map(|tag| Value::from(tag.as_str())).collect()),
            ]),
            "dag_run" => self.dag_run(),
            "task" => Value::from_pairs([("task_id", Value::from(context.task_id.as_str()))]),
            "task_instance" | "ti" => Value::from_object(TaskInstance { context: context.clone(), shared: self.shared.clone() }),
            "task_instance_key_str" => {
                self.logical(name, |date| format!("{}__{}__{}", self.shared.dag_id, context.task_id, date.ds_nodash()).into())
            }
            "map_index" => self.map_index(),
            "item" => from_json(context.item.as_ref()?),
            "params" => params(context),
            "var" => Value::from_pairs([
                ("value", Value::from_object(Variables { shared: self.shared.clone(), json: false })),
                ("json", Value::from_object(Variables { shared: self.shared.clone(), json: true })),
            ]),
            "conn" => Value::from_object(Connections { shared: self.shared.clone() }),
            "macros" => Value::from_object(Macros),
            "exception" => context.exception.as_deref()?.into(),
            "failure" => from_json(context.failure.as_ref()?),
            // Not for templates: the filter `identifier` asks it.
            "backstop_conn_type" => self.conn_type.as_deref()?.into(),
            _ => return None,
        })
    }
}

/// `ti`.
#[derive(Debug)]
struct TaskInstance {
    context: Arc<Context>,
    shared: Arc<Shared>,
}

impl Object for TaskInstance {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let context = &self.context;
        Some(match key.as_str()? {
            "task_id" => context.task_id.as_str().into(),
            "dag_id" => context.dag_id.as_str().into(),
            "run_id" => context.run_id.as_str().into(),
            "try_number" => context.try_number.into(),
            "max_tries" => context.max_tries.into(),
            "map_index" => context.map_index.map_or_else(|| Value::from(-1), Value::from),
            _ => return None,
        })
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "xcom_pull" => self.xcom_pull(args),
            "xcom_push" => Err(refused("a template cannot push; the result of a task is its query's (`result: scalar`)")),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl TaskInstance {
    /// `xcom_pull(task_ids='a', key='return_value', map_indexes=0)`.
    fn xcom_pull(&self, args: &[Value]) -> Result<Value, Error> {
        let (task_ids, positional_key, named): (Option<Value>, Option<Value>, Kwargs) = from_args(args)?;
        let task_ids = match task_ids {
            Some(task_ids) => task_ids,
            None => named.get::<Option<Value>>("task_ids")?.ok_or_else(|| refused("xcom_pull needs `task_ids`"))?,
        };
        let key = positional_key.or(named.get::<Option<Value>>("key")?);
        if key.is_some_and(|key| !key.is_none() && key.as_str() != Some("return_value")) {
            return Err(refused("a task has one result, under the key `return_value`"));
        }
        let indexes: Option<Value> = named.get("map_indexes")?;
        let default: Option<Value> = named.get("default")?;
        named.assert_all_used()?;
        let pull = |task: &Value| -> Result<Value, Error> {
            let task = task.as_str().ok_or_else(|| refused("`task_ids` must be a text, or a list of texts"))?;
            self.pull(task, indexes.as_ref(), default.as_ref())
        };
        if task_ids.kind() == ValueKind::Seq {
            return task_ids.try_iter()?.map(|task| pull(&task)).collect();
        }
        pull(&task_ids)
    }

    fn pull(&self, task: &str, indexes: Option<&Value>, default: Option<&Value>) -> Result<Value, Error> {
        // Airflow gives None, which becomes a NULL in somebody's table.
        match self.shared.keeps_result.get(task) {
            None => return Err(refused(format!("there is no task `{task}` to pull a result from"))),
            Some(false) => {
                let hint = "add `result: scalar` (or `row`, `rows`) to it";
                return Err(refused(format!("the task `{task}` keeps no result: {hint}")));
            }
            Some(true) => {}
        }
        let one = |index: Option<u32>| {
            let found = (self.context.xcom)(task, index);
            found.map_or_else(|| default.cloned().unwrap_or_else(|| Value::from(())), |found| from_json(&found))
        };
        let number = |value: &Value| {
            let index = value.as_i64().and_then(|index| u32::try_from(index).ok());
            index.ok_or_else(|| refused("`map_indexes` must be a whole number from 0, or a list of them"))
        };
        match indexes {
            None => Ok(one(None)),
            Some(indexes) if indexes.is_none() => Ok(one(None)),
            Some(indexes) if indexes.kind() == ValueKind::Seq => {
                indexes.try_iter()?.map(|index| Ok(one(Some(number(&index)?)))).collect()
            }
            Some(index) => Ok(one(Some(number(index)?))),
        }
    }
}

/// `var.value` and `var.json`.
#[derive(Debug)]
struct Variables {
    shared: Arc<Shared>,
    json: bool,
}

impl Variables {
    fn get(&self, name: &str) -> Option<Value> {
        let value = self.shared.variables.get(name).or_else(|| self.shared.variables.get(&name.to_lowercase()))?;
        Some(match (value, self.json) {
            (serde_json::Value::String(text), true) => match serde_json::from_str(text) {
                Ok(json) => from_json(&json),
                Err(_) => Value::from(refused(format!("variable `{name}` is no JSON; use `var.value.{name}`"))),
            },
            (value, true) => from_json(value),
            (serde_json::Value::String(text), false) => text.as_str().into(),
            (value, false) => value.to_string().into(),
        })
    }
}

impl Object for Variables {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "get" => {
                let (name, default): (&str, Option<Value>) = from_args(args)?;
                Ok(self.get(name).or(default).unwrap_or_else(|| Value::from(())))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `conn`.
#[derive(Debug)]
struct Connections {
    shared: Arc<Shared>,
}

/// Attributes of a connection that templates may see.
pub(super) const CONNECTION_NAMES: &[&str] =
    &["conn_id", "conn_type", "host", "port", "login", "schema", "database", "description"];

impl Connections {
    fn get(&self, id: &str) -> Option<Value> {
        let id = id.to_lowercase();
        let connection = self.shared.connections.get(&id)?.clone();
        Some(Value::from_object(OneConnection { id, connection }))
    }
}

impl Object for Connections {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get(key.as_str()?)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "get" => {
                let (id, default): (&str, Option<Value>) = from_args(args)?;
                Ok(self.get(id).or(default).unwrap_or_else(|| Value::from(())))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

/// `conn.X`: everything but its secrets.
#[derive(Debug)]
struct OneConnection {
    id: String,
    connection: Connection,
}

/// What to say of an attribute that may hold a secret.
pub(super) fn secret(id: &str, name: &str) -> String {
    format!("`conn.{id}.{name}` may hold a secret, and secrets are not for SQL text, which is logged and shown")
}

/// True for attributes that may hold a secret.
pub(super) fn is_secret(name: &str) -> bool {
    matches!(name, "password" | "extra" | "extra_dejson" | "get_uri" | "get_password" | "get_extra" | "as_json")
}

impl Object for OneConnection {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let connection = &self.connection;
        let text = |text: &Option<String>| text.as_deref().map_or_else(|| Value::from(()), Value::from);
        Some(match key.as_str()? {
            "conn_id" => self.id.as_str().into(),
            "conn_type" => connection.conn_type.as_str().into(),
            "host" => text(&connection.host),
            "port" => connection.port.map_or_else(|| Value::from(()), Value::from),
            "login" => text(&connection.login),
            "schema" | "database" => text(&connection.database),
            "description" => text(&connection.description),
            name if is_secret(name) => Value::from(refused(secret(&self.id, name))),
            _ => return None,
        })
    }

    fn render(self: &Arc<Self>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.id)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, _: &[Value]) -> Result<Value, Error> {
        if is_secret(method) { Err(refused(secret(&self.id, method))) } else { Err(Error::from(ErrorKind::UnknownMethod)) }
    }
}
