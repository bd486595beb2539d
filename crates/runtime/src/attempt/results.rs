//! Results of the run's tasks (Airflow's XCom), and the collector of a statement's rows with its bound.

use backstop_connect::{Column, Value};
use backstop_core::{InstancePhase, RunState};
use backstop_project::definition::ResultKind;
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

/// JSON by map index.
type OfTask = BTreeMap<Option<u32>, Arc<str>>;

/// Results by task and map index, shared between the engine (which writes) and attempts (which read).
#[derive(Clone, Debug, Default)]
pub(crate) struct Results(Arc<RwLock<HashMap<String, OfTask>>>);

impl Results {
    /// What a run has so far.
    pub(crate) fn of(state: &RunState) -> Self {
        let results = Self::default();
        for (instance, view) in state.instances() {
            if view.phase == InstancePhase::Success
                && let Some(result) = state.result(instance.task.as_str(), instance.map_index)
            {
                results.put(instance.task.as_str(), instance.map_index, result.clone());
            }
        }
        results
    }

    /// Keeps a result.
    pub(crate) fn put(&self, task: &str, map_index: Option<u32>, result: Arc<str>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(task.to_owned()).or_default().insert(map_index, result);
    }

    /// The instance runs again: nothing of it is pulled any more.
    pub(crate) fn forget(&self, task: &str, map_index: Option<u32>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_task) = all.get_mut(task) {
            of_task.remove(&map_index);
            if of_task.is_empty() {
                all.remove(task);
            }
        }
    }

    /// The result of an instance; without an index, of an unmapped task, or the list of a mapped one's.
    pub(crate) fn get(&self, task: &str, map_index: Option<u32>) -> Option<Json> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let of_task = all.get(task)?;
        let parse = |text: &Arc<str>| serde_json::from_str(text).ok();
        match map_index {
            Some(_) => of_task.get(&map_index).and_then(parse),
            None => match of_task.get(&None) {
                Some(single) => parse(single),
                None => Some(Json::Array(of_task.values().filter_map(parse).collect())),
            },
        }
    }
}

/// A value as JSON. Decimals keep their digits as text; bytes are hex.
pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(truth) => Json::Bool(*truth),
        Value::Int(number) => Json::from(*number),
        Value::UInt(number) => Json::from(*number),
        Value::Float(number) => serde_json::Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Value::Decimal(text) | Value::Text(text) => Json::String(text.clone()),
        Value::Bytes(bytes) => Json::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        Value::Json(text) => serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.clone())),
    }
}

/// A JSON value as a parameter.
pub(crate) fn to_parameter(value: &Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), _, _) => Value::Int(whole),
            (None, Some(whole), _) => Value::UInt(whole),
            (None, None, Some(real)) => Value::Float(real),
            (None, None, None) => Value::Text(number.to_string()),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(_) | Json::Object(_) => Value::Json(value.to_string()),
    }
}

/// Collects what `result:` asks for, of the last statement that returned rows.
#[derive(Debug)]
pub(crate) struct Collector {
    wanted: ResultKind,
    bytes_max: usize,
    columns: Vec<String>,
    kept: Option<String>,
    rows: u64,
}

impl Collector {
    pub(crate) fn new(wanted: ResultKind, bytes_max: usize) -> Self {
        Self { wanted, bytes_max, columns: Vec::new(), kept: None, rows: 0 }
    }

    /// A new result begins: the one before is let go.
    pub(crate) fn begin(&mut self, columns: &[Column]) {
        if self.wanted != ResultKind::None {
            self.columns = columns.iter().map(|column| column.name.clone()).collect();
            self.kept = Some(if self.wanted == ResultKind::Rows { "[".into() } else { String::new() });
            self.rows = 0;
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    /// When the result grows over its bound.
    pub(crate) fn row(&mut self, row: &[Value]) -> Result<(), String> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        self.rows += 1;
        match self.wanted {
            ResultKind::None => {}
            ResultKind::Scalar if self.rows == 1 => {
                *kept = row.first().map_or(Json::Null, to_json).to_string();
            }
            ResultKind::Row if self.rows == 1 => *kept = object(&self.columns, row).to_string(),
            ResultKind::Scalar | ResultKind::Row => {}
            ResultKind::Rows => {
                if self.rows > 1 {
                    kept.push(',');
                }
                kept.push_str(&object(&self.columns, row).to_string());
            }
        }
        if kept.len() > self.bytes_max {
            return Err(format!(
                "the result passed its limit of {} bytes at row {}; `result:` is for small results, not for moving data",
                self.bytes_max, self.rows
            ));
        }
        Ok(())
    }

    /// The result as JSON, when a statement returned one.
    pub(crate) fn json(&self) -> Option<String> {
        let kept = self.kept.as_ref()?;
        Some(match self.wanted {
            ResultKind::None => return None,
            ResultKind::Rows => format!("{kept}]"),
            ResultKind::Scalar | ResultKind::Row if self.rows == 0 => "null".into(),
            ResultKind::Scalar | ResultKind::Row => kept.clone(),
        })
    }
}

/// A row as an object by column name; a name that comes twice gets its place behind it.
pub(crate) fn object(columns: &[String], row: &[Value]) -> Json {
    let mut map = Map::with_capacity(row.len());
    for (place, value) in row.iter().enumerate() {
        let name = columns.get(place).cloned().unwrap_or_default();
        let name = if name.is_empty() || map.contains_key(&name) { format!("{name}_{}", place + 1) } else { name };
        map.insert(name, to_json(value));
    }
    Json::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Column {
        Column { name: name.into(), type_name: String::new() }
    }

    #[test]
    fn a_result_over_its_bound_is_an_error_that_says_where() {
        let mut collector = Collector::new(ResultKind::Rows, 40);
        collector.begin(&[column("n")]);
        let passed = (1..100).find_map(|n| collector.row(&[Value::Int(n)]).err());
        assert_eq!(
            passed.as_deref(),
            Some("the result passed its limit of 40 bytes at row 6; `result:` is for small results, not for moving data")
        );
    }

    #[test]
    fn kinds_keep_what_they_say() {
        for (kind, expected) in [
            (ResultKind::None, None),
            (ResultKind::Scalar, Some("1")),
            (ResultKind::Row, Some(r#"{"n":1,"n_2":"x"}"#)),
            (ResultKind::Rows, Some(r#"[{"n":1,"n_2":"x"},{"n":2,"n_2":null}]"#)),
        ] {
            let mut collector = Collector::new(kind, 1000);
            collector.begin(&[column("n"), column("n")]);
            collector.row(&[Value::Int(1), Value::Text("x".into())]).unwrap();
            collector.row(&[Value::Int(2), Value::Null]).unwrap();
            assert_eq!(collector.json().as_deref(), expected);
        }
    }

    #[test]
    fn a_mapped_task_gives_a_list() {
        let results = Results::default();
        results.put("load", Some(1), "20".into());
        results.put("load", Some(0), "10".into());
        assert_eq!(results.get("load", None), Some(serde_json::json!([10, 20])));
        assert_eq!(results.get("load", Some(1)), Some(serde_json::json!(20)));
        assert_eq!(results.get("other", None), None);
    }
}
