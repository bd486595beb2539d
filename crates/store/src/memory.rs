//! The store in memory: for tests, dry runs and the simulator.
//!
//! It has no threads and no clock, so that under a single-threaded runtime everything it does is decided by the order of the calls.
//!
//! By default an append is durable at once. With [`MemoryStore::with_manual_durability`] requests only queue, as behind a slow disk, until
//! [`MemoryStore::sync_some`] carries some out; [`MemoryStore::crash`] forgets what is still queued. As in the store on disk, what a crash
//! loses is the end of one queue over all runs, never something in the middle.

mod assets;
mod lists;

use crate::log::to_microsecond;
use crate::projection::Projection;
use crate::reply::Reply;
use crate::sqlite::{check_place, check_shape};
use crate::view::FOUND_RUNS_MAX;
use crate::{
    ACTS_MAX, Act, ActRow, Append, AppendError, AssetFilter, AssetRow, Durable, Entry, Error, ErrorKind, GridRow, InstanceFilter,
    InstancePage, InstanceRow, PastStatement, PrunableRun, PruneRule, Recorded, RunFilter, RunLock, RunRow, SampleRow,
    StatementFilter, StatementPage, StatementRow, Store, Version, VersionUse, lock,
};
use async_trait::async_trait;
use backstop_core::event::RunHeader;
use backstop_core::{DagId, Event, InstanceId, RunId, TaskId};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How many requests may be queued before `append` waits.
const QUEUE: usize = 8192;

/// A store in memory. Clones share what they hold.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

struct Shared {
    name: Arc<str>,
    is_manual: bool,
    /// Room in the queue.
    room: Arc<Semaphore>,
    /// Locked for moments only, never across an await.
    state: Mutex<State>,
}

struct State {
    /// What a crash keeps.
    kept: Kept,
    queue: VecDeque<Queued>,
    next_append_fails: Option<AppendError>,
    /// Held by the process that this store stands for: a crash frees them.
    locks: HashSet<RunId>,
    has_crashed: bool,
}

#[derive(Clone, Default)]
struct Kept {
    /// Oldest first.
    runs: Vec<Run>,
    places: HashMap<RunId, usize>,
    versions: HashMap<String, Version>,
    /// By kind and key.
    entries: BTreeMap<(String, String), String>,
    acts: Vec<Act>,
    samples: BTreeMap<(RunId, InstanceId, u32, u32), SampleRow>,
    /// In order.
    asset_updates: Vec<AssetRow>,
    last_asset_update: u64,
}

#[derive(Clone)]
struct Run {
    header: Arc<RunHeader>,
    epoch: u64,
    events: Vec<Recorded>,
    projection: Projection,
}

struct Queued {
    request: Request,
    _room: OwnedSemaphorePermit,
}

enum Request {
    Append(Append, Reply<(), AppendError>),
    /// An append that was chosen to fail, in its turn.
    Refuse(AppendError, Reply<(), AppendError>),
    Flush(Reply<(), Error>),
    TakeOver(RunId, Reply<u64, Error>),
    KeepVersion(Version, Reply<(), Error>),
    Put(Vec<Entry>, Option<Act>, Reply<(), Error>),
    Remove(Vec<RunId>, Timestamp, Reply<Vec<RunId>, Error>),
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store in which everything is durable at once.
    pub fn new() -> Self {
        Self::with(Kept::default(), false, QUEUE)
    }

    /// An empty store in which nothing is durable before [`Self::sync_some`] says so. `flush`, `take_over` and `keep_version` wait
    /// for it too: they are in the same queue.
    pub fn with_manual_durability() -> Self {
        Self::with(Kept::default(), true, QUEUE)
    }

    /// As [`Self::with_manual_durability`], with a queue of this length.
    pub fn with_manual_durability_and_queue(length: usize) -> Self {
        Self::with(Kept::default(), true, length.max(1))
    }

    fn with(kept: Kept, is_manual: bool, queue: usize) -> Self {
        let state = State { kept, queue: VecDeque::new(), next_append_fails: None, locks: HashSet::new(), has_crashed: false };
        let shared =
            Shared { name: Arc::from("in memory"), is_manual, room: Arc::new(Semaphore::new(queue)), state: Mutex::new(state) };
        Self { shared: Arc::new(shared) }
    }

    /// How many requests are queued.
    pub fn queued(&self) -> usize {
        self.state().queue.len()
    }

    /// Carries out the `count` oldest requests, or all that are there, and answers them. Returns how many were left to do.
    pub fn sync_some(&self, count: usize) -> usize {
        let mut state = self.state();
        for _ in 0..count {
            let Some(queued) = state.queue.pop_front() else { break };
            state.kept.carry_out(queued.request, &self.shared.name);
        }
        state.queue.len()
    }

    /// Carries out all that is queued.
    pub fn sync_all(&self) {
        self.sync_some(usize::MAX);
    }

    /// The process dies: what is queued is lost, its locks are free, and this store and its clones only give errors from now on.
    /// Returns the store as the next process finds it, of the same kind of durability.
    pub fn crash(&self) -> Self {
        let mut state = self.state();
        state.has_crashed = true;
        state.queue.clear();
        state.locks.clear();
        Self::with(std::mem::take(&mut state.kept), self.shared.is_manual, QUEUE)
    }

    /// The next append that is queued is not done, but answered with this error in its turn.
    pub fn fail_next_append(&self, error: AppendError) {
        self.state().next_append_fails = Some(error);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request<T, E: From<Error>>(&self, request: impl FnOnce(Reply<T, E>) -> Request) -> oneshot::Receiver<Result<T, E>> {
        let (reply, answer) = Reply::new(&self.shared.name);
        // The semaphore is never closed; if it were, the reply would be dropped, which answers.
        if let Ok(room) = self.shared.room.clone().acquire_owned().await {
            self.queue(request(reply), room);
        }
        answer
    }

    fn queue(&self, request: Request, room: OwnedSemaphorePermit) {
        let mut state = self.state();
        if state.has_crashed {
            return;
        }
        let request = match request {
            Request::Append(append, reply) => match state.next_append_fails.take() {
                Some(error) => Request::Refuse(error, reply),
                None => Request::Append(append, reply),
            },
            Request::Refuse(..)
            | Request::Flush(_)
            | Request::TakeOver(..)
            | Request::KeepVersion(..)
            | Request::Put(..)
            | Request::Remove(..) => request,
        };
        state.queue.push_back(Queued { request, _room: room });
        drop(state);
        if !self.shared.is_manual {
            self.sync_all();
        }
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        answer.await.unwrap_or_else(|_| Err(Error::writer_gone(&self.shared.name)))
    }

    fn read<T>(&self, read: impl FnOnce(&Kept) -> T) -> Result<T, Error> {
        let state = self.state();
        if state.has_crashed {
            return Err(Error::new(ErrorKind::Other, "read the store in memory: it has crashed"));
        }
        Ok(read(&state.kept))
    }
}

impl Kept {
    fn carry_out(&mut self, request: Request, store: &str) {
        match request {
            Request::Append(append, reply) => reply.send(self.append(append)),
            Request::Refuse(error, reply) => reply.send(Err(error)),
            Request::Flush(reply) => reply.send(Ok(())),
            Request::TakeOver(run, reply) => reply.send(self.take_over(&run, store)),
            Request::KeepVersion(version, reply) => {
                self.versions.entry(version.digest.clone()).or_insert(version);
                reply.send(Ok(()));
            }
            Request::Remove(runs, never_after, reply) => reply.send(Ok(self.remove(runs, never_after))),
            Request::Put(entries, act, reply) => {
                for Entry { kind, key, body } in entries {
                    match body {
                        Some(body) => drop(self.entries.insert((kind, key), body)),
                        None => drop(self.entries.remove(&(kind, key))),
                    }
                }
                self.acts.extend(act.map(|act| Act { at: to_microsecond(act.at), ..act }));
                reply.send(Ok(()));
            }
        }
    }

    fn append(&mut self, append: Append) -> Result<(), AppendError> {
        check_shape(&append)?;
        check_place(&append, self.run(&append.run).map(|run| (run.events.len() as u64, run.epoch)))?;
        let place = match self.places.get(&append.run) {
            Some(place) => *place,
            None => self.create(&append)?,
        };
        let at = to_microsecond(append.at);
        for (seq, event) in (append.expected_version + 1..).zip(append.events) {
            let recorded = Recorded { seq, at, event };
            self.project_assets(&append.run, &recorded);
            let run = &mut self.runs[place];
            run.projection.apply(&recorded);
            if let Event::RunPinned { version, variables: _ } = &recorded.event {
                Arc::make_mut(&mut run.header).version.clone_from(version);
            }
            run.events.push(recorded);
        }
        Ok(())
    }

    fn create(&mut self, append: &Append) -> Result<usize, Error> {
        let Some(Event::RunCreated(header)) = append.events.first() else {
            return Err(Error::bad_append(&append.run, "its first event is not RunCreated"));
        };
        let place = self.runs.len();
        self.places.insert(append.run.clone(), place);
        self.runs.push(Run { header: header.clone(), epoch: append.epoch, events: Vec::new(), projection: Projection::new() });
        Ok(place)
    }

    fn take_over(&mut self, run: &RunId, store: &str) -> Result<u64, Error> {
        let place = *self.places.get(run).ok_or_else(|| Error::no_such_run(run, store))?;
        self.runs[place].epoch += 1;
        Ok(self.runs[place].epoch)
    }

    fn run(&self, run: &RunId) -> Option<&Run> {
        self.places.get(run).map(|place| &self.runs[*place])
    }
}

impl Run {
    fn row(&self) -> RunRow {
        let fold = &self.projection.run;
        RunRow {
            header: self.header.clone(),
            state: fold.phase.as_str().to_owned(),
            started_at: fold.started_at,
            ended_at: fold.ended_at,
            callbacks_pending: fold.callbacks_pending,
            version: self.events.len() as u64,
            epoch: self.epoch,
        }
    }
}

/// A held lock of a run.
struct Hold {
    run: RunId,
    store: MemoryStore,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.store.state().locks.remove(&self.run);
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").field("is_manual", &self.shared.is_manual).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, append: Append) -> Durable {
        self.request(|reply| Request::Append(append, reply)).await
    }

    async fn flush(&self) -> Result<(), Error> {
        let answer = self.request(Request::Flush).await;
        self.answer(answer).await
    }

    async fn take_over(&self, run: &RunId) -> Result<u64, Error> {
        let run = run.clone();
        let answer = self.request(|reply| Request::TakeOver(run, reply)).await;
        self.answer(answer).await
    }

    fn lock_run(&self, run: &RunId) -> Result<RunLock, Error> {
        let mut state = self.state();
        if state.has_crashed {
            return Err(Error::writer_gone(&self.shared.name));
        }
        if !state.locks.insert(run.clone()) {
            return Err(lock::busy(run, "this process"));
        }
        Ok(RunLock::new(run.clone(), Hold { run: run.clone(), store: self.clone() }))
    }

    fn is_run_held(&self, run: &RunId) -> Result<bool, Error> {
        Ok(self.state().locks.contains(run))
    }

    async fn events(&self, run: &RunId, after_seq: u64, limit: usize) -> Result<Vec<Recorded>, Error> {
        let skip = usize::try_from(after_seq).unwrap_or(usize::MAX);
        self.read(|kept| match kept.run(run) {
            Some(run) => run.events.iter().skip(skip).take(limit).cloned().collect(),
            None => Vec::new(),
        })
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
        self.read(|kept| kept.runs(filter, &self.shared.name))?
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, Error> {
        self.read(|kept| kept.run(run).map(Run::row))
    }

    async fn find_runs(&self, prefix: &str) -> Result<Vec<RunId>, Error> {
        self.read(|kept| {
            let ids = kept.runs.iter().rev().map(|run| &run.header.run_id);
            ids.filter(|id| id.as_str().starts_with(prefix)).take(FOUND_RUNS_MAX).cloned().collect()
        })
    }

    async fn instances(&self, run: &RunId) -> Result<Vec<InstanceRow>, Error> {
        self.read(|kept| kept.run(run).map(|run| run.projection.instances()).unwrap_or_default())
    }

    async fn list_instances(&self, filter: &InstanceFilter) -> Result<InstancePage, Error> {
        self.read(|kept| kept.list_instances(filter, &self.shared.name))?
    }

    async fn grid(&self, filter: &RunFilter) -> Result<Vec<GridRow>, Error> {
        self.read(|kept| kept.grid(filter, &self.shared.name))?
    }

    async fn durations(&self, dag: &DagId, task: &TaskId, limit: u32) -> Result<Vec<Duration>, Error> {
        self.read(|kept| kept.durations(dag, task, limit))
    }

    async fn last_asset_update(&self) -> Result<u64, Error> {
        self.read(|kept| kept.last_asset_update)
    }

    async fn asset_updates(&self, after: u64, limit: u32) -> Result<Vec<AssetRow>, Error> {
        self.read(|kept| kept.asset_updates(after, limit))
    }

    async fn updates_of(&self, filter: &AssetFilter) -> Result<Vec<AssetRow>, Error> {
        self.read(|kept| kept.updates_of(filter))
    }

    async fn statements(&self, run: &RunId, task: Option<&str>) -> Result<Vec<StatementRow>, Error> {
        self.read(|kept| {
            let rows = kept.run(run).map(|run| run.projection.statements.as_slice()).unwrap_or_default();
            rows.iter().filter(|row| task.is_none_or(|task| row.instance.task.as_str() == task)).cloned().collect()
        })
    }

    async fn list_statements(&self, filter: &StatementFilter) -> Result<StatementPage, Error> {
        self.read(|kept| kept.list_statements(filter))
    }

    async fn keep_version(&self, version: Version) -> Result<(), Error> {
        let answer = self.request(|reply| Request::KeepVersion(version, reply)).await;
        self.answer(answer).await
    }

    async fn version(&self, digest: &str) -> Result<Option<Version>, Error> {
        self.read(|kept| kept.versions.get(digest).cloned())
    }

    async fn versions(&self, dag: &DagId) -> Result<Vec<VersionUse>, Error> {
        self.read(|kept| kept.versions(dag))
    }

    async fn prunable(&self, rule: &PruneRule, limit: u32) -> Result<Vec<PrunableRun>, Error> {
        self.read(|kept| kept.prunable(rule, limit))
    }

    async fn remove_runs(&self, runs: &[RunId], never_after: Timestamp) -> Result<Vec<RunId>, Error> {
        let runs = runs.to_vec();
        let answer = self.request(|reply| Request::Remove(runs, never_after, reply)).await;
        self.answer(answer).await
    }

    async fn sweep(&self, _rows_max: u32) -> Result<u32, Error> {
        // Nothing is left behind here.
        self.read(|_| 0)
    }

    async fn put(&self, entries: Vec<Entry>, act: Option<Act>) -> Result<(), Error> {
        let answer = self.request(|reply| Request::Put(entries, act, reply)).await;
        self.answer(answer).await
    }

    async fn entries(&self, kind: &str) -> Result<Vec<(String, String)>, Error> {
        self.read(|kept| {
            let of_kind = kept.entries.iter().filter(|((of, _), _)| of == kind);
            of_kind.map(|((_, key), body)| (key.clone(), body.clone())).collect()
        })
    }

    async fn acts(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActRow>, Error> {
        self.read(|kept| {
            let numbered = kept.acts.iter().enumerate().rev().map(|(place, act)| (place as u64 + 1, act));
            let older = numbered.filter(|(seq, _)| before.is_none_or(|before| *seq < before));
            older.take(limit.min(ACTS_MAX) as usize).map(|(seq, act)| ActRow { seq, act: act.clone() }).collect()
        })
    }

    async fn keep_samples(&self, samples: Vec<SampleRow>) -> Result<(), Error> {
        let mut state = self.state();
        let kept = &mut state.kept;
        for row in samples {
            if kept.places.contains_key(&row.run) {
                kept.samples.insert((row.run.clone(), row.instance.clone(), row.try_number, row.place), row);
            }
        }
        Ok(())
    }

    async fn samples(&self, run: &RunId, instance: &InstanceId) -> Result<Vec<SampleRow>, Error> {
        self.read(|kept| kept.samples.values().filter(|row| row.run == *run && row.instance == *instance).cloned().collect())
    }

    async fn last_samples(&self, run: &RunId) -> Result<Vec<SampleRow>, Error> {
        self.read(|kept| {
            let rows = kept.run(run).map(|run| run.projection.instances()).unwrap_or_default();
            let running = rows.iter().filter(|row| row.state == "running");
            let last = |row: &InstanceRow| {
                let of_try = |sample: &&SampleRow| sample.instance == row.instance && sample.try_number == row.try_number;
                kept.samples.values().rev().filter(|sample| sample.run == *run).find(of_try).cloned()
            };
            running.filter_map(last).collect()
        })
    }

    async fn user_of_session(&self, server: &str, session: &str) -> Result<Option<(RunId, InstanceId)>, Error> {
        self.read(|kept| {
            let is_running = |row: &&SampleRow| {
                let instances = kept.run(&row.run).map(|run| run.projection.instances()).unwrap_or_default();
                let of = |found: &InstanceRow| found.instance == row.instance && found.try_number == row.try_number;
                instances.iter().any(|found| of(found) && found.state == "running")
            };
            let seen = kept.samples.values().filter(|row| row.server == server && row.session == session);
            let last = seen.filter(is_running).max_by_key(|row| row.at);
            last.map(|row| (row.run.clone(), row.instance.clone()))
        })
    }

    async fn past_statements(&self, dag: &DagId, runs: u32, limit: u32) -> Result<Vec<PastStatement>, Error> {
        self.read(|kept| {
            let over = kept.runs.iter().rev().filter(|run| run.header.dag_id == *dag && run.projection.run.ended_at.is_some());
            let rows = over.take(runs as usize).flat_map(|run| &run.projection.statements);
            let committed = rows.filter(|row| row.segment.is_some());
            let past = |row: &StatementRow| PastStatement {
                task: row.instance.task.to_string(),
                number: row.record.number,
                duration_us: row.record.duration_us,
                rows: row.record.rows_affected.unwrap_or(row.record.rows_returned),
            };
            committed.map(past).take(limit as usize).collect()
        })
    }
}

#[cfg(test)]
mod tests;
