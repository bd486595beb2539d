//! The event store: an append-only log for each run, projections of it, and the definitions that runs are pinned to.
//!
//! This crate must not know: SQL of users, databases other than its own, YAML, how tasks run. Only here do events get a stored form
//! (versioned, see `stored`); nothing else may serialize a core event for keeping.
//!
//! Where to go next: [`Store`] for the seam, `sqlite` for the default, `memory` for tests and dry runs, `conformance` for what
//! all of them promise. The PostgreSQL store will be a module beside them.

use async_trait::async_trait;
use backstop_core::event::{Event, RunHeader, StatementRecord};
use backstop_core::{DagId, InstanceId, RunId};
use jiff::Timestamp;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Why an append was not done. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else appended to the run: it has `actual` events, not `expected`.
    #[error("run {run} has {actual} events, not {expected}: another process appended to it")]
    Conflict {
        /// The run.
        run: RunId,
        /// What the caller thought.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// A newer epoch owns the run.
    #[error("run {run} was taken over by a newer process (epoch {current}, ours is {ours})")]
    Fenced {
        /// The run.
        run: RunId,
        /// The caller's epoch.
        ours: u64,
        /// The store's.
        current: u64,
    },
    /// The store could not write.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why the store cannot do something. Says the file and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What was tried and what happened, with the path.
    pub message: String,
    /// What kind.
    pub kind: ErrorKind,
    /// What to do next.
    pub hint: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Kinds of store errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Cannot open: missing folder, no right, not a store.
    Open,
    /// The file system or the file is read-only.
    ReadOnly,
    /// The disk is full.
    Full,
    /// Another process holds what we need.
    Busy,
    /// Written by a newer Backstop.
    TooNew,
    /// What is stored does not make sense.
    Corrupt,
    /// Anything else.
    Other,
}

/// An event with its place and time in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// From 1 within the run, without gaps.
    pub seq: u64,
    /// When it was decided, by the runtime's clock.
    pub at: Timestamp,
    /// What.
    pub event: Event,
}

/// A batch of events for one run.
#[derive(Clone, Debug)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// How many events the run must have; 0 creates it (the first event must be `RunCreated`).
    pub expected_version: u64,
    /// The caller's epoch; refused when a newer one owns the run.
    pub epoch: u64,
    /// When they were decided.
    pub at: Timestamp,
    /// Not empty.
    pub events: Vec<Event>,
}

/// Resolves when the append is durable (fsync done), or not done. The caller need not wait; order is kept.
pub type Durable = oneshot::Receiver<Result<(), AppendError>>;

/// A run, as lists show it: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// What it is.
    pub header: Arc<RunHeader>,
    /// `queued`, `running`, `stuck`, `success`, `failed`, `cancelled`.
    pub state: String,
    /// Set by RunStarted.
    pub started_at: Option<Timestamp>,
    /// Set by a terminal event.
    pub ended_at: Option<Timestamp>,
    /// How many events it has.
    pub version: u64,
    /// The owning epoch.
    pub epoch: u64,
}

/// A task instance, as lists show it: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRow {
    /// Which.
    pub instance: InstanceId,
    /// Airflow's name of its state, and `in_doubt`.
    pub state: String,
    /// The last try, 0 before the first.
    pub try_number: u32,
    /// Of the last try.
    pub started_at: Option<Timestamp>,
    /// Of the last try.
    pub ended_at: Option<Timestamp>,
    /// The last failure's message.
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
    /// Only those not over yet.
    pub unfinished: bool,
    /// Only those created before this run (a cursor), newest first.
    pub before: Option<RunId>,
    /// At most so many; 0 is 100.
    pub limit: u32,
}

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

/// The seam. All implementations pass one conformance suite.
#[async_trait]
pub trait Store: Send + Sync {
    /// Queues an append. Appends are carried out in the order of the calls; many share one commit. A failed append of a run makes
    /// every later one of the same run fail too (their expected versions no longer fit). Blocks briefly when the queue is full.
    async fn append(&self, append: Append) -> Durable;

    /// Resolves when everything queued before is durable or refused.
    ///
    /// # Errors
    /// When the writer is gone.
    async fn flush(&self) -> Result<(), Error>;

    /// Raises the run's epoch by one and returns it: whoever had the run before is fenced off. Durable on return.
    ///
    /// # Errors
    /// When the run is not there.
    async fn take_over(&self, run: &RunId) -> Result<u64, Error>;

    /// The events of a run from `after_seq` (exclusive), at most `limit`.
    ///
    /// # Errors
    /// When the store cannot read, or a stored event is of a newer version.
    async fn events(&self, run: &RunId, after_seq: u64, limit: usize) -> Result<Vec<Recorded>, Error>;

    /// Runs, newest first.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Error>;

    /// One run; `None` when it is not there.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, Error>;

    /// Runs whose id begins so, at most 10.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn find_runs(&self, prefix: &str) -> Result<Vec<RunId>, Error>;

    /// The instances of a run, in the order they were first seen.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn instances(&self, run: &RunId) -> Result<Vec<InstanceRow>, Error>;

    /// The statements of a run, or of one of its tasks, in order.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn statements(&self, run: &RunId, task: Option<&str>) -> Result<Vec<StatementRow>, Error>;

    /// Keeps a definition; does nothing when it is there. Durable on return.
    ///
    /// # Errors
    /// When the store cannot write.
    async fn keep_version(&self, version: Version) -> Result<(), Error>;

    /// A kept definition.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn version(&self, digest: &str) -> Result<Option<Version>, Error>;
}
