//! The store behind a slow disk: the memory store of `backstop_store`, made durable bit by bit.

use super::Broken;
use super::world::World;
use async_trait::async_trait;
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use backstop_store::{
    Act, ActRow, Append, AppendError, AssetFilter, AssetRow, Durable, Entry, Error, ErrorKind, GridRow, InstanceFilter,
    InstancePage, InstanceRow, MemoryStore, PastStatement, PrunableRun, PruneRule, Recorded, RunFilter, RunLock, RunRow,
    SampleRow, StatementFilter, StatementPage, StatementRow, Store, Version, VersionUse,
};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// What one process sees of the store.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) kept: MemoryStore,
    pub(crate) world: Arc<World>,
    /// Most milliseconds that something waits to become durable.
    pub(crate) delay_ms_max: u64,
    /// Each write counts as an event, of which the process may die.
    pub(crate) counts_writes: bool,
    queued: Arc<Notify>,
}

fn full() -> Error {
    Error { message: "write: no space".into(), kind: ErrorKind::Full, hint: None, source: None }
}

impl Disk {
    pub(crate) fn new(kept: MemoryStore, world: Arc<World>, delay_ms_max: u64) -> Self {
        Self { kept, world, delay_ms_max, counts_writes: false, queued: Arc::new(Notify::new()) }
    }

    /// Something is going to be written.
    fn write(&self) -> Result<(), Error> {
        self.queued.notify_one();
        if self.counts_writes {
            self.world.events(1);
        }
        if self.world.is_disk_full() { Err(full()) } else { Ok(()) }
    }

    /// Makes things durable for as long as the process lives.
    pub(crate) async fn turn(self) {
        loop {
            while self.kept.queued() == 0 {
                self.queued.notified().await;
            }
            tokio::time::sleep(Duration::from_millis(self.world.below(self.delay_ms_max + 1))).await;
            let count = match self.world.below(3) {
                0 => 1 + self.world.below(3) as usize,
                _ => usize::MAX,
            };
            self.kept.sync_some(count);
        }
    }
}

#[async_trait]
impl Store for Disk {
    async fn append(&self, append: Append) -> Durable {
        if self.write().is_err() || self.world.other_fault(3) {
            self.world.say(|| format!("the disk refuses an append of run {}", append.run));
            self.kept.fail_next_append(AppendError::Store(full()));
        }
        let durable = self.kept.append(append).await;
        if self.world.broken == Broken::StoreLies {
            let (sender, receiver) = oneshot::channel();
            // Nobody who asks is ever gone here: the receiver is the answer.
            let _ = sender.send(Ok(()));
            return receiver;
        }
        durable
    }

    async fn flush(&self) -> Result<(), Error> {
        self.queued.notify_one();
        self.kept.flush().await
    }

    async fn take_over(&self, run: &RunId) -> Result<u64, Error> {
        self.write()?;
        self.kept.take_over(run).await
    }

    fn lock_run(&self, run: &RunId) -> Result<RunLock, Error> {
        self.kept.lock_run(run)
    }

    async fn events(&self, run: &RunId, after_seq: u64, limit: usize) -> Result<Vec<Recorded>, Error> {
        self.kept.events(run, after_seq, limit).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
        self.kept.runs(filter).await
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, Error> {
        self.kept.run(run).await
    }

    async fn find_runs(&self, prefix: &str) -> Result<Vec<RunId>, Error> {
        self.kept.find_runs(prefix).await
    }

    async fn instances(&self, run: &RunId) -> Result<Vec<InstanceRow>, Error> {
        self.kept.instances(run).await
    }

    async fn list_instances(&self, filter: &InstanceFilter) -> Result<InstancePage, Error> {
        self.kept.list_instances(filter).await
    }

    async fn grid(&self, filter: &RunFilter) -> Result<Vec<GridRow>, Error> {
        self.kept.grid(filter).await
    }

    async fn durations(&self, dag: &DagId, task: &TaskId, limit: u32) -> Result<Vec<Duration>, Error> {
        self.kept.durations(dag, task, limit).await
    }

    async fn last_asset_update(&self) -> Result<u64, Error> {
        self.kept.last_asset_update().await
    }

    async fn asset_updates(&self, after: u64, limit: u32) -> Result<Vec<AssetRow>, Error> {
        self.kept.asset_updates(after, limit).await
    }

    async fn updates_of(&self, filter: &AssetFilter) -> Result<Vec<AssetRow>, Error> {
        self.kept.updates_of(filter).await
    }

    async fn statements(&self, run: &RunId, task: Option<&str>) -> Result<Vec<StatementRow>, Error> {
        self.kept.statements(run, task).await
    }

    async fn list_statements(&self, filter: &StatementFilter) -> Result<StatementPage, Error> {
        self.kept.list_statements(filter).await
    }

    async fn keep_version(&self, version: Version) -> Result<(), Error> {
        self.write()?;
        self.kept.keep_version(version).await
    }

    async fn version(&self, digest: &str) -> Result<Option<Version>, Error> {
        self.kept.version(digest).await
    }

    async fn versions(&self, dag: &DagId) -> Result<Vec<VersionUse>, Error> {
        self.kept.versions(dag).await
    }

    async fn prunable(&self, rule: &PruneRule, limit: u32) -> Result<Vec<PrunableRun>, Error> {
        self.kept.prunable(rule, limit).await
    }

    async fn remove_runs(&self, runs: &[RunId], never_after: Timestamp) -> Result<Vec<RunId>, Error> {
        self.write()?;
        self.kept.remove_runs(runs, never_after).await
    }

    async fn sweep(&self, rows_max: u32) -> Result<u32, Error> {
        self.kept.sweep(rows_max).await
    }

    async fn put(&self, entries: Vec<Entry>, act: Option<Act>) -> Result<(), Error> {
        self.write()?;
        self.kept.put(entries, act).await
    }

    async fn entries(&self, kind: &str) -> Result<Vec<(String, String)>, Error> {
        self.kept.entries(kind).await
    }

    async fn acts(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActRow>, Error> {
        self.kept.acts(before, limit).await
    }

    async fn keep_samples(&self, samples: Vec<SampleRow>) -> Result<(), Error> {
        self.write()?;
        self.kept.keep_samples(samples).await
    }

    async fn samples(&self, run: &RunId, instance: &InstanceId) -> Result<Vec<SampleRow>, Error> {
        self.kept.samples(run, instance).await
    }

    async fn last_samples(&self, run: &RunId) -> Result<Vec<SampleRow>, Error> {
        self.kept.last_samples(run).await
    }

    async fn user_of_session(&self, server: &str, session: &str) -> Result<Option<(RunId, InstanceId)>, Error> {
        self.kept.user_of_session(server, session).await
    }

    async fn past_statements(&self, dag: &DagId, runs: u32, limit: u32) -> Result<Vec<PastStatement>, Error> {
        self.kept.past_statements(dag, runs, limit).await
    }
}
