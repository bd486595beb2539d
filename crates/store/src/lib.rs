//! The event store: an append-only log for each run, projections of it, and the definitions that runs are pinned to.
//!
//! This crate must not know: SQL of users, databases other than its own, YAML, how tasks run. Only here do events get a stored form
//! (versioned, see [`stored`]); nothing else may serialize a core event for keeping.
//!
//! Where to go next: [`Store`] for the seam, [`sqlite`] for the default, [`memory`] for tests and dry runs, `conformance` (feature) for
//! what all of them promise, `projection` for how events become rows. The PostgreSQL store will be a module beside them.

mod asset;
#[cfg(any(test, feature = "conformance"))]
#[doc(hidden)]
pub mod conformance;
mod entry;
mod error;
mod lock;
mod log;
pub mod memory;
mod projection;
mod reply;
mod sample;
pub mod sqlite;
pub mod stored;
mod view;

pub use asset::{ASSET_UPDATES_MAX, AssetFilter, AssetRow};
pub use entry::{ACTS_MAX, Act, ActRow, Entry};
pub use error::{AppendError, Error, ErrorKind};
pub use lock::RunLock;
pub use log::{Append, Durable, Recorded};
pub use memory::MemoryStore;
pub use sample::{Blocking, HowFar, PastStatement, SAMPLES_MAX, Sample, SampleRow, UsualTime};
pub use sqlite::SqliteStore;
pub use view::{
    GRID_INSTANCES_MAX, GridRow, GridTask, InstanceCursor, InstanceFilter, InstancePage, InstanceRow, LOOKED_AT_MAX,
    PRUNABLE_OF_A_DAG_MAX, PrunableRun, PruneRule, RUNS_LOOKED_AT_MAX, RunFilter, RunRow, StatementCursor, StatementFilter,
    StatementPage, StatementRow, VERSIONS_MAX, Version, VersionUse,
};

use async_trait::async_trait;
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use jiff::Timestamp;
use std::time::Duration;

/// The seam. All implementations pass one conformance suite.
///
/// Reads see what is durable, and nothing else: an event that was queued but not yet kept is in no answer.
#[async_trait]
pub trait Store: Send + Sync {
    /// Queues an append. Appends are carried out in the order of the calls; many share one commit. A failed append of a run makes
    /// every later one of the same run fail too (their expected versions no longer fit). Blocks while the queue is full.
    async fn append(&self, append: Append) -> Durable;

    /// Says that somebody waits for what is queued: a store that gathers appends for one commit gathers no longer.
    fn hurry(&self) {}

    /// Resolves when everything queued before is durable or refused.
    ///
    /// # Errors
    /// When the store could not write, or its writer is gone.
    async fn flush(&self) -> Result<(), Error>;

    /// Raises the run's epoch by one and returns it: whoever had the run before is fenced off. Durable on return.
    ///
    /// # Errors
    /// `NotFound` when the run is not there; otherwise when the store could not write.
    async fn take_over(&self, run: &RunId) -> Result<u64, Error>;

    /// Takes the run for this process until the lock is dropped or the process ends, however it ends. This is what tells a run that
    /// goes on from one whose process died; the epoch is what fences a process that lost the run without noticing.
    ///
    /// # Errors
    /// `Busy` when somebody else (also within this process) has it; `ReadOnly` or another kind when it cannot be taken.
    fn lock_run(&self, run: &RunId) -> Result<RunLock, Error>;

    /// Whether a process of this machine, this one included, has the run by [`Self::lock_run`]. Takes nothing, so that a store opened for
    /// reading answers too. A store that cannot know says true: nobody may be told that a run is free when it is not.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    fn is_run_held(&self, _run: &RunId) -> Result<bool, Error> {
        Ok(true)
    }

    /// The events of a run from `after_seq` (exclusive), at most `limit`. None when the run is not there.
    ///
    /// # Errors
    /// When the store cannot read, or a stored event is of a newer version.
    async fn events(&self, run: &RunId, after_seq: u64, limit: usize) -> Result<Vec<Recorded>, Error>;

    /// Runs, newest first: in the reverse of the order in which the store was told of them, whatever clocks said. (By logical date where
    /// the filter asks for dates.)
    ///
    /// # Errors
    /// `NotFound` when the run of the cursor is not there; otherwise when the store cannot read.
    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Error>;

    /// One run; `None` when it is not there.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, Error>;

    /// Runs whose id begins so, at most 10, newest first.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn find_runs(&self, prefix: &str) -> Result<Vec<RunId>, Error>;

    /// The instances of a run, in the order they were first seen.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn instances(&self, run: &RunId) -> Result<Vec<InstanceRow>, Error>;

    /// Task instances over runs, or of one. Takes the same time however many there are.
    ///
    /// # Errors
    /// `NotFound` when the run, or the run of the cursor, is not there, or the cursor is of another run; otherwise when the store cannot read.
    async fn list_instances(&self, filter: &InstanceFilter) -> Result<InstancePage, Error>;

    /// Runs with their tasks, as [`Self::runs`] lists them. There may be fewer than asked for, but one at least where there is one: a run
    /// that would bring the instances read over [`GRID_INSTANCES_MAX`] is left for the next page.
    ///
    /// # Errors
    /// As [`Self::runs`].
    async fn grid(&self, filter: &RunFilter) -> Result<Vec<GridRow>, Error>;

    /// How long a task took when it went well, in the newest runs of its DAG, at most `limit` of them; of a mapped task each instance, at
    /// most [`LOOKED_AT_MAX`].
    ///
    /// # Errors
    /// When the store cannot read.
    async fn durations(&self, dag: &DagId, task: &TaskId, limit: u32) -> Result<Vec<Duration>, Error>;

    /// The place of the last update of an asset; 0 before the first. Cheap: it is how a service notices those of other processes.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn last_asset_update(&self) -> Result<u64, Error>;

    /// Updates of assets behind a place, the oldest first, at most `limit` (bounded by [`ASSET_UPDATES_MAX`]). Each is there as soon as
    /// the event that tells of it. When a run is removed, its updates go with it, but for the newest of each asset: that one goes with the run of
    /// a newer one. So whoever waits for an update since some place waits neither longer nor shorter.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn asset_updates(&self, after: u64, limit: u32) -> Result<Vec<AssetRow>, Error>;

    /// The newest updates of each of some assets, the oldest first. Takes the same time however many there are.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn updates_of(&self, filter: &AssetFilter) -> Result<Vec<AssetRow>, Error>;

    /// The statements of a run, or of one of its tasks, in order.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn statements(&self, run: &RunId, task: Option<&str>) -> Result<Vec<StatementRow>, Error>;

    /// A page of the statements of a run, in order. Takes the same time however many there are.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn list_statements(&self, filter: &StatementFilter) -> Result<StatementPage, Error>;

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

    /// The versions of a DAG that are kept, the one used last first, at most [`VERSIONS_MAX`].
    ///
    /// # Errors
    /// When the store cannot read.
    async fn versions(&self, dag: &DagId) -> Result<Vec<VersionUse>, Error>;

    /// Runs that may go by the rule, at most `limit`, of each DAG the oldest first.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn prunable(&self, rule: &PruneRule, limit: u32) -> Result<Vec<PrunableRun>, Error>;

    /// Takes runs out of the store, for ever, and says which went: not those that are not over, ended at `never_after` or later, or are
    /// the newest run of the store. What they leave behind is deleted by [`Self::sweep`]. Durable on return.
    ///
    /// # Errors
    /// When the store cannot write.
    async fn remove_runs(&self, runs: &[RunId], never_after: Timestamp) -> Result<Vec<RunId>, Error>;

    /// Deletes at most so many rows of runs that were removed, and says how many; fewer than that means that none is left. One call holds
    /// up other writers for as long as that takes, so `rows_max` should be some hundreds.
    ///
    /// # Errors
    /// When the store cannot write.
    async fn sweep(&self, rows_max: u32) -> Result<u32, Error>;

    /// Keeps, replaces or removes entries, and notes who did so, all or nothing. Durable on return.
    ///
    /// # Errors
    /// When the store cannot write.
    async fn put(&self, entries: Vec<Entry>, act: Option<Act>) -> Result<(), Error>;

    /// The entries of a kind as pairs of key and body, by key.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn entries(&self, kind: &str) -> Result<Vec<(String, String)>, Error>;

    /// What was done, newest first: only what is older than `before`, and at most `limit` (bounded by [`ACTS_MAX`]).
    ///
    /// # Errors
    /// When the store cannot read.
    async fn acts(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActRow>, Error>;

    /// Keeps samples of running statements; those of runs that are not there are left out. They are no part of the log: this is for looking
    /// on, and need not be durable on return.
    ///
    /// # Errors
    /// When the store cannot write.
    async fn keep_samples(&self, samples: Vec<SampleRow>) -> Result<(), Error>;

    /// The samples of an instance, over all tries, in order.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn samples(&self, run: &RunId, instance: &InstanceId) -> Result<Vec<SampleRow>, Error>;

    /// The last sample of each instance of a run that is running.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn last_samples(&self, run: &RunId) -> Result<Vec<SampleRow>, Error>;

    /// The running attempt that was last seen in this session.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn user_of_session(&self, server: &str, session: &str) -> Result<Option<(RunId, InstanceId)>, Error>;

    /// Statements that committed in the last `runs` runs of a DAG that are over, newest runs first, at most `limit`.
    ///
    /// # Errors
    /// When the store cannot read.
    async fn past_statements(&self, dag: &DagId, runs: u32, limit: u32) -> Result<Vec<PastStatement>, Error>;
}
