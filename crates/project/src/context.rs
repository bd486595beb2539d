//! What a template may see of a run: a plain struct that the runtime fills.

use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// Reads a result of this run: the task's id, and the map index. Without an index it is the value of an unmapped task, and the list
/// of the values of a mapped one. `None` when there is none.
pub type XCom = Arc<dyn Fn(&str, Option<u32>) -> Option<Value> + Send + Sync>;

/// What a template may see.
#[derive(Clone)]
pub struct Context {
    /// `run_id`.
    pub run_id: String,
    /// `dag.dag_id`.
    pub dag_id: String,
    /// `manual`, `scheduled`, `backfill`: `dag_run.run_type`.
    pub run_type: String,
    /// `task.task_id`; empty in callbacks of the run as a whole.
    pub task_id: String,
    /// `ti.map_index`; -1 in templates when there is none, as Airflow has it.
    pub map_index: Option<u32>,
    /// `item`: what a mapped instance stands for.
    pub item: Option<Value>,
    /// `ti.try_number`, from 1.
    pub try_number: u32,
    /// `ti.max_tries`: the number of retries allowed.
    pub max_tries: u32,
    /// `logical_date`, `ds`, `ts`. Asking for one of them when there is none is an error.
    pub logical_date: Option<Timestamp>,
    /// `data_interval_start` and `data_interval_end`; both are the logical date when absent.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// The interval of the previous successful run: `prev_data_interval_start_success`, `prev_data_interval_end_success`.
    pub previous_success: Option<(Timestamp, Timestamp)>,
    /// When that run began: `prev_start_date_success`.
    pub previous_success_start: Option<Timestamp>,
    /// The schedule's tick before `logical_date`: `prev_logical_date`, `prev_ds`, `prev_ds_nodash`.
    pub previous_logical_date: Option<Timestamp>,
    /// The schedule's tick after: `next_logical_date`, `next_ds`, `next_ds_nodash`.
    pub next_logical_date: Option<Timestamp>,
    /// When the run began: `dag_run.start_date`.
    pub run_start: Option<Timestamp>,
    /// `params`, complete: defaults filled in, types checked (see [`crate::params::resolve`]).
    pub params: Map<String, Value>,
    /// Reads results of this run.
    pub xcom: XCom,
    /// In callbacks: `exception`, the error as text.
    pub exception: Option<String>,
    /// In callbacks: `failure`, an object with what is known (statement, line, SQLSTATE...).
    pub failure: Option<Value>,
}

impl Context {
    /// A context with no dates, parameters or results.
    pub fn new(run_id: impl Into<String>, dag_id: impl Into<String>, task_id: impl Into<String>) -> Self {
        Self {
            run_id: run_id.into(),
            dag_id: dag_id.into(),
            run_type: "manual".to_owned(),
            task_id: task_id.into(),
            map_index: None,
            item: None,
            try_number: 1,
            max_tries: 0,
            logical_date: None,
            data_interval: None,
            previous_success: None,
            previous_success_start: None,
            previous_logical_date: None,
            next_logical_date: None,
            run_start: None,
            params: Map::new(),
            xcom: Arc::new(|_, _| None),
            exception: None,
            failure: None,
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("run_id", &self.run_id)
            .field("dag_id", &self.dag_id)
            .field("task_id", &self.task_id)
            .field("map_index", &self.map_index)
            .field("try_number", &self.try_number)
            .field("logical_date", &self.logical_date)
            .finish_non_exhaustive()
    }
}
