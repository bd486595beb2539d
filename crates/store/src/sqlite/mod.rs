//! The store in one SQLite file: the default.
//!
//! ```text
//! append ──> bounded queue ──> writer thread ──> one transaction for all that is queued ──> fsync ──> answers
//! read   ──> one of a few read connections, on a blocking thread
//! ```
//!
//! Several processes may use one file at once. Each transaction takes the write lock first and reads the versions and epochs it checks
//! within it. The file must be on a local disk: WAL needs shared memory and working locks.

mod assets;
pub mod backup;
mod batch;
pub mod check;
pub(crate) mod fault;
mod lists;
mod open;
mod prune;
mod reader;
mod samples;
mod writer;

pub(crate) use batch::{check_place, check_shape};

use crate::lock::{FileIdentity, RunLock, RunLocks};
use crate::reply::Reply;
use crate::{
    Act, ActRow, Append, AppendError, AssetFilter, AssetRow, Durable, Entry, Error, ErrorKind, GridRow, InstanceFilter,
    InstancePage, InstanceRow, PastStatement, PrunableRun, PruneRule, Recorded, RunFilter, RunRow, SampleRow, StatementFilter,
    StatementPage, StatementRow, Store, Version, VersionUse,
};
use async_trait::async_trait;
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use jiff::Timestamp;
use reader::Readers;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use writer::{Request, Writer};

/// How a store behaves. The defaults are for production.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many requests may be queued before `append` waits.
    pub queue: usize,
    /// After so many events a commit is begun, though more are queued.
    pub batch_events: usize,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// The largest event, and the largest bundle of sources.
    pub value_bytes_max: usize,
    /// After so many pages in the log they are moved to the file proper.
    pub checkpoint_pages: u32,
    /// The size of a page of a new file: a power of two from 512 to 65,536.
    pub page_bytes: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 8192,
            batch_events: 16_384,
            busy_timeout: Duration::from_secs(10),
            value_bytes_max: 64 << 20,
            checkpoint_pages: 4000,
            page_bytes: 4096,
        }
    }
}

/// Where the store is.
struct Place {
    path: PathBuf,
    /// The path, for messages.
    name: Arc<str>,
    /// Which file it was when it was opened. The file is never opened beside SQLite: closing it would drop SQLite's locks on it.
    identity: Option<FileIdentity>,
}

impl Place {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), name: Arc::from(path.to_string_lossy()), identity: FileIdentity::of_path(path) }
    }

    /// SQLite would go on writing to a file that was removed, and what it acknowledges would be gone with it.
    fn check_still_there(&self) -> Result<(), Error> {
        if self.identity.is_some() && FileIdentity::of_path(&self.path) != self.identity {
            let message = format!("write to the store {}: the file was removed or replaced while it is in use", self.name);
            return Err(Error::new(ErrorKind::Other, message).hint("put the file back, or start Backstop again"));
        }
        Ok(())
    }
}

/// A store in one SQLite file.
pub struct SqliteStore {
    place: Arc<Place>,
    readers: Arc<Readers>,
    /// `None` when it was opened for reading only.
    writer: Option<WriterHandle>,
}

struct WriterHandle {
    /// Taken out when the store is dropped, so that the thread sees the end of the queue.
    queue: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    /// Tells the writer that somebody waits.
    hurry: Arc<AtomicBool>,
    locks: Arc<RunLocks>,
}

impl WriterHandle {
    /// Lets the writer not wait for more.
    fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl SqliteStore {
    /// Opens a store; makes the file and its folder (not the folders above it) when they are missing, and brings older ones up to date.
    /// Blocks for some milliseconds.
    ///
    /// # Errors
    /// When the path is no store, is of a newer version, or cannot be written.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let connection = open::open_writer(path, &options)?;
        let place = Arc::new(Place::new(path));
        let locks = Arc::new(RunLocks::open(&open::locks_folder(path))?);
        let first_reader = open::open_reader(path, &options)?;
        let (sender, queue) = mpsc::channel(options.queue.max(1));
        let hurry = Arc::new(AtomicBool::new(false));
        let writer = Writer::new(connection, place.clone(), options.clone(), hurry.clone());
        let thread = std::thread::Builder::new()
            .name("backstop-store".into())
            .spawn(move || writer.run(queue))
            .map_err(|cause| fault::from_io(&format!("start the writer of the store {}", place.name), path, cause))?;
        let readers = Arc::new(Readers::new(place.clone(), options, first_reader));
        Ok(Self { place, readers, writer: Some(WriterHandle { queue: Some(sender), thread: Some(thread), hurry, locks }) })
    }

    /// Opens a store that must be there, for reading. Every write gives a `ReadOnly` error.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let options = Options::default();
        let first_reader = open::open_reader(path, &options)?;
        let place = Arc::new(Place::new(path));
        Ok(Self { readers: Arc::new(Readers::new(place.clone(), options, first_reader)), place, writer: None })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    fn read_only(&self) -> Error {
        Error::new(ErrorKind::ReadOnly, format!("write to the store {}: it was opened for reading only", self.place.name))
    }

    /// Queues a request made with a reply, and gives the place where the answer will come.
    async fn request<T, E: From<Error>>(&self, request: impl FnOnce(Reply<T, E>) -> Request) -> oneshot::Receiver<Result<T, E>> {
        let (reply, answer) = Reply::new(&self.place.name);
        match self.writer.as_ref().and_then(|writer| writer.queue.as_ref()) {
            None => reply.send(Err(self.read_only().into())),
            // A request that cannot be queued is dropped, and its reply with it: that answers.
            Some(queue) => drop(queue.send(request(reply)).await),
        }
        answer
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        answer.await.unwrap_or_else(|_| Err(Error::writer_gone(&self.place.name)))
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.place.path).finish_non_exhaustive()
    }
}

impl Drop for SqliteStore {
    /// Waits until what is queued is written, so that a process that ends in good order loses nothing.
    fn drop(&mut self) {
        // First, so that the writer's connection is the last: only one that may write can move the log to the file and remove it.
        self.readers.close_idle();
        if let Some(mut writer) = self.writer.take() {
            drop(writer.queue.take());
            writer.hurry();
            if let Some(thread) = writer.thread.take() {
                // It panicked: whoever waited was told so.
                drop(thread.join());
            }
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, append: Append) -> Durable {
        self.request(|reply: Reply<(), AppendError>| Request::Append(append, reply)).await
    }

    fn hurry(&self) {
        if let Some(writer) = &self.writer {
            writer.hurry();
        }
    }

    async fn flush(&self) -> Result<(), Error> {
        let answer = self.request(Request::Flush).await;
        self.hurry();
        self.answer(answer).await
    }

    async fn take_over(&self, run: &RunId) -> Result<u64, Error> {
        let run = run.clone();
        let answer = self.request(|reply| Request::TakeOver(run, reply)).await;
        self.hurry();
        self.answer(answer).await
    }

    fn lock_run(&self, run: &RunId) -> Result<RunLock, Error> {
        let writer = self.writer.as_ref().ok_or_else(|| self.read_only())?;
        Ok(RunLock::new(run.clone(), writer.locks.take(run)?))
    }

    fn is_run_held(&self, run: &RunId) -> Result<bool, Error> {
        match &self.writer {
            Some(writer) => writer.locks.is_held(run),
            None => RunLocks::is_held_in(&open::locks_folder(&self.place.path), run),
        }
    }

    async fn events(&self, run: &RunId, after_seq: u64, limit: usize) -> Result<Vec<Recorded>, Error> {
        let run = run.clone();
        self.readers.read(move |reader| reader.events(&run, after_seq, limit)).await
    }

    async fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
        let filter = filter.clone();
        self.readers.read(move |reader| reader.runs(&filter)).await
    }

    async fn run(&self, run: &RunId) -> Result<Option<RunRow>, Error> {
        let run = run.clone();
        self.readers.read(move |reader| reader.run(&run)).await
    }

    async fn find_runs(&self, prefix: &str) -> Result<Vec<RunId>, Error> {
        let prefix = prefix.to_owned();
        self.readers.read(move |reader| reader.find_runs(&prefix)).await
    }

    async fn instances(&self, run: &RunId) -> Result<Vec<InstanceRow>, Error> {
        let run = run.clone();
        self.readers.read(move |reader| reader.instances(&run)).await
    }

    async fn list_instances(&self, filter: &InstanceFilter) -> Result<InstancePage, Error> {
        let filter = filter.clone();
        self.readers.read(move |reader| reader.list_instances(&filter)).await
    }

    async fn grid(&self, filter: &RunFilter) -> Result<Vec<GridRow>, Error> {
        let filter = filter.clone();
        self.readers.read(move |reader| reader.grid(&filter)).await
    }

    async fn durations(&self, dag: &DagId, task: &TaskId, limit: u32) -> Result<Vec<Duration>, Error> {
        let (dag, task) = (dag.clone(), task.clone());
        self.readers.read(move |reader| reader.durations(&dag, &task, limit)).await
    }

    async fn last_asset_update(&self) -> Result<u64, Error> {
        self.readers.read(|reader| reader.last_asset_update()).await
    }

    async fn asset_updates(&self, after: u64, limit: u32) -> Result<Vec<AssetRow>, Error> {
        self.readers.read(move |reader| reader.asset_updates(after, limit)).await
    }

    async fn updates_of(&self, filter: &AssetFilter) -> Result<Vec<AssetRow>, Error> {
        let filter = filter.clone();
        self.readers.read(move |reader| reader.updates_of(&filter)).await
    }

    async fn statements(&self, run: &RunId, task: Option<&str>) -> Result<Vec<StatementRow>, Error> {
        let run = run.clone();
        let task = task.map(str::to_owned);
        self.readers.read(move |reader| reader.statements(&run, task.as_deref())).await
    }

    async fn list_statements(&self, filter: &StatementFilter) -> Result<StatementPage, Error> {
        let filter = filter.clone();
        self.readers.read(move |reader| reader.list_statements(&filter)).await
    }

    async fn keep_version(&self, version: Version) -> Result<(), Error> {
        let answer = self.request(|reply| Request::KeepVersion(version, reply)).await;
        self.hurry();
        self.answer(answer).await
    }

    async fn version(&self, digest: &str) -> Result<Option<Version>, Error> {
        let digest = digest.to_owned();
        self.readers.read(move |reader| reader.version(&digest)).await
    }

    async fn versions(&self, dag: &DagId) -> Result<Vec<VersionUse>, Error> {
        let dag = dag.clone();
        self.readers.read(move |reader| reader.versions(&dag)).await
    }

    async fn prunable(&self, rule: &PruneRule, limit: u32) -> Result<Vec<PrunableRun>, Error> {
        let rule = *rule;
        self.readers.read(move |reader| reader.prunable(&rule, limit)).await
    }

    async fn remove_runs(&self, runs: &[RunId], never_after: Timestamp) -> Result<Vec<RunId>, Error> {
        let runs = runs.to_vec();
        let answer = self.request(|reply| Request::Remove(runs, never_after, reply)).await;
        self.hurry();
        self.answer(answer).await
    }

    async fn sweep(&self, rows_max: u32) -> Result<u32, Error> {
        let answer = self.request(|reply| Request::Sweep(rows_max, reply)).await;
        self.hurry();
        self.answer(answer).await
    }

    async fn put(&self, entries: Vec<Entry>, act: Option<Act>) -> Result<(), Error> {
        let answer = self.request(|reply| Request::Put(entries, act, reply)).await;
        self.hurry();
        self.answer(answer).await
    }

    async fn entries(&self, kind: &str) -> Result<Vec<(String, String)>, Error> {
        let kind = kind.to_owned();
        self.readers.read(move |reader| reader.entries(&kind)).await
    }

    async fn acts(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActRow>, Error> {
        self.readers.read(move |reader| reader.acts(before, limit)).await
    }

    async fn keep_samples(&self, samples: Vec<SampleRow>) -> Result<(), Error> {
        let answer = self.request(|reply| Request::KeepSamples(samples, reply)).await;
        self.answer(answer).await
    }

    async fn samples(&self, run: &RunId, instance: &InstanceId) -> Result<Vec<SampleRow>, Error> {
        let (run, instance) = (run.clone(), instance.clone());
        self.readers.read(move |reader| reader.samples(&run, &instance)).await
    }

    async fn last_samples(&self, run: &RunId) -> Result<Vec<SampleRow>, Error> {
        let run = run.clone();
        self.readers.read(move |reader| reader.last_samples(&run)).await
    }

    async fn user_of_session(&self, server: &str, session: &str) -> Result<Option<(RunId, InstanceId)>, Error> {
        let (server, session) = (server.to_owned(), session.to_owned());
        self.readers.read(move |reader| reader.user_of_session(&server, &session)).await
    }

    async fn past_statements(&self, dag: &DagId, runs: u32, limit: u32) -> Result<Vec<PastStatement>, Error> {
        let dag = dag.clone();
        self.readers.read(move |reader| reader.past_statements(&dag, runs, limit)).await
    }
}

#[cfg(test)]
mod tests;
