//! The suite, and what only a file can do: be missing, foreign, locked, full, read-only, damaged or gone.

mod plans;
mod trouble;
mod whole;

use super::*;
use crate::conformance::script::{append, created, run_started};
use crate::conformance::{Subject, do_append, make_run, read_all};
use backstop_core::Event;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use tempfile::TempDir;

struct InFile {
    folder: TempDir,
    options: Options,
    store: Option<Arc<SqliteStore>>,
}

impl InFile {
    fn new(options: Options) -> Self {
        let mut subject = Self { folder: tempfile::tempdir().unwrap(), options, store: None };
        subject.open();
        subject
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    fn open(&mut self) {
        self.store = Some(Arc::new(SqliteStore::open(self.path(), self.options.clone()).unwrap()));
    }
}

#[async_trait]
impl Subject for InFile {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().unwrap()
    }

    /// In good order: what a kill does needs another process, see `tests/kill.rs`.
    async fn crash(&mut self) {
        self.store = None;
        self.open();
    }
}

mod conformance {
    use super::{InFile, Options};

    crate::conformance_suite!(InFile::new(Options::default()));
}

/// With a queue and batches so small that every promise meets their limits.
mod conformance_in_small_batches {
    use super::{InFile, Options};

    crate::conformance_suite!(InFile::new(Options { queue: 2, batch_events: 3, ..Options::default() }));
}

fn open_in(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path().join("store.db"), Options::default()).unwrap()
}

fn run() -> RunId {
    RunId::new("r")
}

/// Holds the write lock of a store, as another process in the middle of a transaction does.
fn hold_write_lock(path: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[test]
fn commits_are_synced() {
    let folder = tempfile::tempdir().unwrap();
    let connection = open::open_writer(&folder.path().join("store.db"), &Options::default()).unwrap();
    let pragma = |name: &str| -> String {
        connection
            .query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| match value {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            })
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2", "FULL");
    assert_eq!(pragma("fullfsync"), "1");
    assert_eq!(pragma("integrity_check"), "ok");
}

/// The frames of the log that end a commit: those that tell the size of the database after it.
fn commits_in_log(path: &Path) -> usize {
    let log = std::fs::read(path.with_file_name("store.db-wal")).unwrap();
    let (header, frames) = log.split_at(32);
    let page_bytes = u32::from_be_bytes(header[8..12].try_into().unwrap()) as usize;
    // After a reset of the log old frames stay behind the new ones: theirs is another salt.
    frames
        .chunks_exact(24 + page_bytes)
        .take_while(|frame| frame[8..16] == header[16..24])
        .filter(|frame| frame[4..8] != [0; 4])
        .count()
}

#[tokio::test]
async fn what_is_queued_shares_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    let before = commits_in_log(store.path());
    let lock = hold_write_lock(store.path());
    let mut answers = Vec::new();
    for number in 0..500 {
        let run = RunId::new(format!("r{number}"));
        answers.push(store.append(append(&run, 0, vec![created(&run, "d")])).await);
    }
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
    lock.execute_batch("COMMIT").unwrap();
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    let commits = commits_in_log(store.path()) - before;
    assert!((1..=2).contains(&commits), "500 appends took {commits} commits");
}

#[tokio::test]
async fn a_full_queue_makes_append_wait() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db"), Options { queue: 2, ..Options::default() }).unwrap();
    let lock = hold_write_lock(store.path());
    let mut answers = Vec::new();
    let mut version = 0;
    // At most one is with the writer, which waits for the lock, and two are queued.
    let mut waiting = loop {
        let event = if version == 0 { created(&run(), "d") } else { run_started() };
        let mut appending = store.append(append(&run(), version, vec![event]));
        match poll_once(&mut appending) {
            Some(answer) => answers.push(answer),
            None => break appending,
        }
        version += 1;
        assert!(version <= 4, "nothing makes append wait");
    };
    lock.execute_batch("COMMIT").unwrap();
    answers.push((&mut waiting).await);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    drop(waiting);
    assert_eq!(store.run(&run()).await.unwrap().unwrap().version, version + 1);
}

#[tokio::test]
async fn dropping_the_store_writes_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    drop(store.append(append(&run(), 0, vec![created(&run(), "d")])).await);
    for version in 1..1000 {
        drop(store.append(append(&run(), version, vec![run_started()])).await);
    }
    drop(store);
    assert_eq!(read_all(&open_in(&folder), &run()).await.len(), 1000);
}

/// So that a store can be copied or put on a medium that cannot be written, as one file.
#[tokio::test]
async fn dropping_the_store_leaves_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    assert_eq!(read_all(&store, &run()).await.len(), 1);
    drop(store);
    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["store.db", "store.db.locks"]);
}

#[tokio::test]
async fn two_stores_on_one_file_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open_in(&folder), open_in(&folder));
    let reader = SqliteStore::open_read_only(one.path()).unwrap();
    make_run(&one, &run(), "d", vec![]).await;
    do_append(&two, append(&run(), 1, vec![run_started()])).await.unwrap();
    let refused = do_append(&one, append(&run(), 1, vec![run_started()])).await.unwrap_err();
    assert_eq!(refused.to_string(), "run r has 2 events, not 1: another process appended to it");
    assert_eq!(two.take_over(&run()).await.unwrap(), 2);
    let refused = do_append(&one, append(&run(), 2, vec![run_started()])).await.unwrap_err();
    assert!(matches!(refused, AppendError::Fenced { ours: 1, current: 2, .. }), "{refused}");
    for store in [&one, &two, &reader] {
        assert_eq!(read_all(store, &run()).await.len(), 2);
    }
    let lock = one.lock_run(&run()).unwrap();
    assert_eq!(two.lock_run(&run()).unwrap_err().kind, ErrorKind::Busy);
    drop(lock);
    drop(two.lock_run(&run()).unwrap());
}

/// Two stores write one file at once, each its own runs, and one run that both want.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (open_in(&folder), open_in(&folder));
    make_run(&one, &run(), "d", vec![]).await;
    let write = async |store: &SqliteStore, name: &str| -> u64 {
        let mut won = 0;
        for number in 0..40 {
            make_run(store, &RunId::new(format!("{name}{number}")), "d", vec![run_started()]).await;
            let version = store.run(&run()).await.unwrap().unwrap().version;
            match do_append(store, append(&run(), version, vec![run_started()])).await {
                Ok(()) => won += 1,
                Err(AppendError::Conflict { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        won
    };
    let (by_one, by_two) = tokio::join!(write(&one, "one"), write(&two, "two"));
    assert_eq!(read_all(&one, &run()).await.len() as u64, 1 + by_one + by_two);
    let all = one.runs(&RunFilter { limit: 1000, ..RunFilter::default() }).await.unwrap();
    assert_eq!(all.len(), 81);
}

#[test]
fn many_may_open_a_new_store_at_once() {
    for _ in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8).map(|_| scope.spawn(|| drop(open_in(&folder)))).collect();
            openers.into_iter().for_each(|opener| opener.join().unwrap());
        });
    }
}
