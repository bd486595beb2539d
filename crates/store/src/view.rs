//! The rows that lists show. All are projections of the log, see `projection`.

use backstop_core::event::{RunHeader, StatementRecord};
use backstop_core::{DagId, InstanceId, RunId};
use jiff::Timestamp;
use std::sync::Arc;

/// A run, as lists show it: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// What it is.
    pub header: Arc<RunHeader>,
    /// The core's name of its phase: `queued`, `running`, `cancelling`, `stuck`, `success`, `failed`, `cancelled`.
    pub state: String,
    /// Set by RunStarted.
    pub started_at: Option<Timestamp>,
    /// Set by a terminal event.
    pub ended_at: Option<Timestamp>,
    /// Callbacks that have not run. A run that is over may have some.
    pub callbacks_pending: u64,
    /// How many events it has.
    pub version: u64,
    /// The owning epoch.
    pub epoch: u64,
}

impl RunRow {
    /// Whether nothing is left to do: the run is over, and its callbacks have run. As the core's `RunState::is_finished`.
    pub fn is_finished(&self) -> bool {
        self.ended_at.is_some() && self.callbacks_pending == 0
    }
}

/// A task instance, as lists show it: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRow {
    /// Which.
    pub instance: InstanceId,
    /// Airflow's name of its state (`none`, `scheduled`, `running`, `deferred`, `up_for_retry`, `success`, `failed`, `skipped`,
    /// `upstream_failed`), and `in_doubt`.
    pub state: String,
    /// The last try, 0 before the first.
    pub try_number: u32,
    /// Of the last try.
    pub started_at: Option<Timestamp>,
    /// Of the last try; of an instance that will not run, when that was decided.
    pub ended_at: Option<Timestamp>,
    /// The last failure's message, also after a later try went well.
    pub error: Option<String>,
}

/// A statement that ran, with the attempt it belongs to: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementRow {
    /// Which instance.
    pub instance: InstanceId,
    /// Which try.
    pub try_number: u32,
    /// Which segment; `None` in a segment that failed.
    pub segment: Option<u32>,
    /// How it ran.
    pub record: StatementRecord,
}

/// What a list of runs is limited to.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only of this DAG.
    pub dag: Option<DagId>,
    /// Only those that something is left to do of: runs that are not over, or whose callbacks have not all run.
    pub unfinished: bool,
    /// Only those created before this run (a cursor), newest first.
    pub before: Option<RunId>,
    /// At most so many; 0 is 100.
    pub limit: u32,
}

impl RunFilter {
    /// The limit in force.
    pub(crate) fn rows_max(&self) -> usize {
        if self.limit == 0 { 100 } else { self.limit as usize }
    }
}

/// How many runs `find_runs` gives at most.
pub(crate) const FOUND_RUNS_MAX: usize = 10;

/// A kept definition: the sources a run is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// SHA-256 of the sources, hex.
    pub digest: String,
    /// The DAG.
    pub dag_id: DagId,
    /// The sources, in the project's own bundle format (opaque here).
    pub bundle: Vec<u8>,
}
