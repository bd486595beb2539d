//! Failures: each a clear error, nothing half-written, and the store works again when the cause is gone.

use super::*;
use std::io::Write as _;
use std::process::Command;

/// The error as a person sees it, with the folder's name taken out.
fn shown(error: &Error, folder: &Path) -> String {
    let folder = folder.display().to_string();
    let hint = error.hint.as_deref().unwrap_or("none");
    format!("{:?}: {}\nhint: {hint}", error.kind, error.message).replace(&folder, "[FOLDER]")
}

fn open_error(path: &Path) -> Error {
    SqliteStore::open(path, Options::default()).expect_err("it should not open")
}

fn store_error(refused: AppendError) -> Error {
    match refused {
        AppendError::Store(error) => error,
        other => panic!("not a store's error: {other}"),
    }
}

#[test]
fn a_folder_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(shown(&open_error(folder.path()), folder.path()), @r"
    Open: open the store [FOLDER]: it is a folder, not a file
    hint: name a file in it, such as `store.db`
    ");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made in it");
}

#[test]
fn one_missing_folder_is_made_and_two_are_not() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path().join(".backstop/store.db"), Options::default()).unwrap());
    insta::assert_snapshot!(shown(&open_error(&folder.path().join("no/such/store.db")), folder.path()), @r"
    Open: open the store [FOLDER]/no/such/store.db: create its folder [FOLDER]/no/such: there is no such folder
    hint: check that the folder exists and that this user may read and write it, or name another store with --store
    ");
}

#[test]
fn a_file_that_is_no_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "not a database, but long enough to be looked at as one: ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    insta::assert_snapshot!(shown(&open_error(&path), folder.path()), @r"
    Open: open the store [FOLDER]/notes.txt: it is not a Backstop store
    hint: name the store's file with --store, or move this file away
    ");
    assert_eq!(SqliteStore::open_read_only(&path).err().unwrap().kind, ErrorKind::Open);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn somebody_elses_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sales.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE sales (a)").unwrap();
    let before = std::fs::read(&path).unwrap();
    insta::assert_snapshot!(shown(&open_error(&path), folder.path()), @r"
    Open: open the store [FOLDER]/sales.db: it is an SQLite database, but not a Backstop store
    hint: name the store's own file with --store: Backstop does not put its tables into other databases
    ");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.db"), "").unwrap();
    make_run(&open_in(&folder), &run(), "d", vec![]).await;
}

/// A process may be killed between marking the file and making its tables.
#[tokio::test]
async fn a_file_that_was_only_marked_becomes_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let marked = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    marked.pragma_update(None, "application_id", 0x4253_544F).unwrap();
    drop(marked);
    make_run(&open_in(&folder), &run(), "d", vec![]).await;
}

#[test]
fn a_newer_schema_is_too_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = open_in(&folder).path().to_owned();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute("INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')", []).unwrap();
    drop(other);
    insta::assert_snapshot!(shown(&open_error(&path), folder.path()), @r"
    TooNew: open the store [FOLDER]/store.db: its schema is 99, and this Backstop knows schemas up to 8
    hint: a newer Backstop wrote it: use that one, or name another store with --store
    ");
    assert_eq!(SqliteStore::open_read_only(&path).err().unwrap().kind, ErrorKind::TooNew);
}

/// A store as the first Backstop made it, with these events in each of its runs, which are over.
fn store_of_schema_1(path: &Path, runs: &[&[&str]]) {
    let mut old = rusqlite::Connection::open(path).unwrap();
    old.pragma_update(None, "application_id", 0x4253_544F).unwrap();
    let first = include_str!("../../../migrations/V1__initial.sql");
    let migrations = [refinery::Migration::unapplied("V1__initial", first).unwrap()];
    refinery::Runner::new(&migrations).set_grouped(true).run(&mut old).unwrap();
    for (id, bodies) in (1_i64..).zip(runs) {
        let insert =
            "INSERT INTO runs (id, run_id, dag_id, version, epoch, state, ended_at) VALUES (?1, ?2, 'd', ?3, 1, 'failed', 1)";
        old.execute(insert, rusqlite::params![id, format!("r{id}"), bodies.len() as i64]).unwrap();
        for (seq, body) in (1_i64..).zip(*bodies) {
            old.execute("INSERT INTO events VALUES (?1, ?2, 1, ?3)", rusqlite::params![id, seq, body]).unwrap();
        }
    }
}

#[tokio::test]
async fn pending_callbacks_of_an_older_store_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let created = include_str!("../../../golden/v1/run_created.minimal.json").trim();
    let scheduled = include_str!("../../../golden/v1/callback_scheduled.json").trim();
    let finished = include_str!("../../../golden/v1/callback_finished.json").trim();
    let failed = include_str!("../../../golden/v1/run_failed.json").trim();
    let runs: [&[&str]; 4] = [
        &[created, scheduled, scheduled, failed, finished],
        &[created, scheduled, failed, finished],
        &[created, failed],
        &[created, failed, scheduled, "{\"callback_"],
    ];
    store_of_schema_1(&path, &runs);
    insta::assert_snapshot!(shown(&SqliteStore::open_read_only(&path).err().unwrap(), folder.path()), @r"
    Open: open the store [FOLDER]/store.db: its schema is 1, and reading wants 8
    hint: run any `backstop` command that writes, once: it brings the store up to date
    ");
    let store = open_in(&folder);
    let pending = |rows: Vec<crate::RunRow>| rows.iter().map(|row| row.callbacks_pending).collect::<Vec<_>>();
    assert_eq!(pending(store.runs(&RunFilter::default()).await.unwrap()), [1, 0, 0, 1]);
    let unfinished = RunFilter { unfinished: true, ..RunFilter::default() };
    assert_eq!(pending(store.runs(&unfinished).await.unwrap()), [1, 1]);
}

#[tokio::test]
async fn dates_and_versions_of_an_older_store_are_read_from_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let created = |date: &str| {
        let whole = include_str!("../../../golden/v1/run_created.json").trim();
        whole.replace("\"logical_date\":\"2025-10-26T02:00:00Z\"", &format!("\"logical_date\":\"{date}\""))
    };
    let dates = ["2025-10-26T02:00:00Z", "2025-10-26T02:00:00.9999996Z", "1969-12-31T23:59:59.5Z", "2025-10-26T02:00:00.00012Z"];
    let bodies: Vec<String> = dates.iter().map(|date| created(date)).collect();
    let undated = include_str!("../../../golden/v1/run_created.minimal.json").trim();
    let runs: Vec<Vec<&str>> = bodies.iter().map(String::as_str).chain([undated, "{damaged"]).map(|body| vec![body]).collect();
    let runs: Vec<&[&str]> = runs.iter().map(Vec::as_slice).collect();
    store_of_schema_1(&path, &runs);
    drop(open_in(&folder));
    let plain = rusqlite::Connection::open(&path).unwrap();
    let mut rows = plain.prepare("SELECT logical_date, definition FROM runs ORDER BY id").unwrap();
    let found: Vec<(Option<i64>, Option<String>)> =
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    let expected = dates.map(|date| Some(date.parse::<jiff::Timestamp>().unwrap().as_microsecond()));
    assert_eq!(found.iter().map(|(date, _)| *date).collect::<Vec<_>>(), [&expected[..], &[None, None]].concat());
    assert!(found[..5].iter().all(|(_, version)| version.is_some()) && found[5].1.is_none(), "{found:?}");
}

#[tokio::test]
async fn updates_of_assets_of_an_older_store_are_read_from_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let created = include_str!("../../../golden/v1/run_created.minimal.json").trim();
    let updated = include_str!("../../../golden/v3/assets_updated.json").trim();
    let mapped = include_str!("../../../golden/v3/assets_updated.mapped.json").trim();
    // An asset, or anything else, may have the name of an event; and a body may be damaged.
    let other = updated.replace("assets_updated", "operator_acted").replace("sales", r#"\"assets_updated\""#);
    store_of_schema_1(&path, &[&[created, updated, &other], &[created, r#"{"assets_updated""#, mapped]]);
    let store = open_in(&folder);
    let found = store.asset_updates(0, 10).await.unwrap();
    let found: Vec<String> = found
        .iter()
        .map(|row| format!("{} {} of {} by {}", row.seq, row.update.asset, row.update.run, row.update.instance))
        .collect();
    insta::assert_snapshot!(found.join("\n"), @r"
    1 sales of r1 by load
    2 s3://é of r1 by load
    3 sales of r2 by b[1]
    ");
}

/// Resuming asks for them at every start, in stores with years of runs.
#[test]
fn unfinished_runs_are_found_by_their_index() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    let plain = rusqlite::Connection::open(store.path()).unwrap();
    let sql = "EXPLAIN QUERY PLAN SELECT r.id FROM runs r JOIN events e ON e.run = r.id AND e.seq = 1 \
               WHERE r.id < 9 AND (r.ended_at IS NULL OR r.callbacks_pending > 0) ORDER BY r.id DESC LIMIT 5";
    let plan: String = plain.query_row(sql, [], |row| row.get(3)).unwrap();
    assert!(plan.contains("runs_unfinished"), "{plan}");
}

#[test]
fn reading_only_wants_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let error = SqliteStore::open_read_only(folder.path().join("store.db")).err().unwrap();
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Open: open the store [FOLDER]/store.db: there is no such file
    hint: nothing has run here yet, or the store is elsewhere: name it with --store
    ");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
}

#[tokio::test]
async fn writing_to_a_store_opened_for_reading_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    let reader = SqliteStore::open_read_only(store.path()).unwrap();
    let error = store_error(do_append(&reader, append(&run(), 1, vec![run_started()])).await.unwrap_err());
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    ReadOnly: write to the store [FOLDER]/store.db: it was opened for reading only
    hint: none
    ");
    let version = Version { digest: "x".into(), dag_id: "d".into(), bundle: Vec::new() };
    assert_eq!(reader.keep_version(version).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(reader.take_over(&run()).await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(reader.flush().await.unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(reader.lock_run(&run()).unwrap_err().kind, ErrorKind::ReadOnly);
    assert_eq!(read_all(&reader, &run()).await.len(), 1);
}

#[tokio::test]
async fn a_process_that_does_not_finish_writing_makes_it_busy() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { busy_timeout: Duration::from_millis(1), ..Options::default() };
    let store = SqliteStore::open(folder.path().join("store.db"), options).unwrap();
    let lock = hold_write_lock(store.path());
    let error = store_error(do_append(&store, append(&run(), 0, vec![created(&run(), "d")])).await.unwrap_err());
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Busy: write to the store [FOLDER]/store.db: another process is writing to it and does not finish
    hint: wait for that process; `fuser` or `lsof` on the file shows which it is
    ");
    lock.execute_batch("ROLLBACK").unwrap();
    make_run(&store, &run(), "d", vec![]).await;
}

/// Fills the store until an append fails, with others queued behind it; then checks that each was answered and nothing is half there.
async fn fill(store: &SqliteStore) -> (Error, u64) {
    make_run(store, &run(), "d", vec![run_started()]).await;
    let filler = Event::OperatorActed { who: String::new(), why: "x".repeat(20_000), what: String::new() };
    let mut version = 2;
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(store.append(append(&run(), version, vec![filler.clone(), filler.clone()])).await);
        version += 2;
    }
    let (mut kept, mut errors) = (2, Vec::new());
    for answer in answers {
        match answer.await.expect("every append is answered") {
            Ok(()) => {
                assert!(errors.is_empty(), "an append was kept after one that was not");
                kept += 2;
            }
            Err(error) => errors.push(error),
        }
    }
    assert!(!errors.is_empty(), "it was never full");
    let row = store.run(&run()).await.unwrap().unwrap();
    let log = read_all(store, &run()).await;
    assert_eq!((row.version, log.len() as u64), (kept, kept));
    (store_error(errors.remove(0)), kept)
}

#[tokio::test]
async fn a_full_store_tells_everyone_and_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("store.db"), Options { batch_events: 20, ..Options::default() }).unwrap();
    limit_pages(&store, 400).await;
    let (error, kept) = fill(&store).await;
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Full: write to the store [FOLDER]/store.db: the disk is full
    hint: make room on that disk; nothing is lost: what was not written can be resumed
    ");
    limit_pages(&store, 1_000_000).await;
    do_append(&store, append(&run(), kept, vec![Event::RunSucceeded])).await.unwrap();
    assert_eq!(store.run(&run()).await.unwrap().unwrap().state, "success");
}

async fn limit_pages(store: &SqliteStore, pages: u32) {
    let queue = store.writer.as_ref().unwrap().queue.as_ref().unwrap();
    queue.send(Request::LimitPages(pages)).await.ok().unwrap();
    store.flush().await.unwrap();
}

/// A file system of its own, small. `None` where this user may not mount.
struct Mount {
    folder: TempDir,
}

impl Mount {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self { folder });
        }
        // Past the test harness, which keeps what a passing test prints to itself.
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        writeln!(std::io::stderr(), "\nSKIPPED: {test}: this user may not mount a file system; run as root").unwrap();
        None
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.folder.path()).status().unwrap();
        assert!(done.success(), "mount -o {options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a failed test still has files open.
        drop(Command::new("umount").arg("-l").arg(self.folder.path()).status());
    }
}

#[tokio::test]
async fn a_full_disk_tells_everyone_and_works_again() {
    let Some(mount) = Mount::new("2m") else { return };
    let folder = &mount.folder;
    let store = SqliteStore::open(folder.path().join("store.db"), Options { batch_events: 20, ..Options::default() }).unwrap();
    let (error, kept) = fill(&store).await;
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Full: write to the store [FOLDER]/store.db: the disk is full
    hint: make room on that disk; nothing is lost: what was not written can be resumed
    ");
    mount.remount("size=20m");
    do_append(&store, append(&run(), kept, vec![Event::RunSucceeded])).await.unwrap();
    drop(store);
    assert_eq!(read_all(&open_in(folder), &run()).await.len() as u64, kept + 1);
}

#[test]
fn opening_on_a_full_disk_says_so() {
    let Some(mount) = Mount::new("64k") else { return };
    let full = mount.folder.path().join("filler");
    drop(std::fs::write(full, vec![0; 1 << 20]));
    let path = mount.folder.path().join("store.db");
    insta::assert_snapshot!(shown(&open_error(&path), mount.folder.path()), @r"
    Full: open the store [FOLDER]/store.db: the disk is full
    hint: make room on that disk; nothing is lost: what was not written can be resumed
    ");
}

#[tokio::test]
async fn a_read_only_disk_is_read_and_not_written() {
    let Some(mount) = Mount::new("4m") else { return };
    let store = open_in(&mount.folder);
    let path = store.path().to_owned();
    make_run(&store, &run(), "d", vec![]).await;
    drop(store);
    mount.remount("ro");
    insta::assert_snapshot!(shown(&open_error(&path), mount.folder.path()), @r"
    ReadOnly: open the store [FOLDER]/store.db: lock [FOLDER]/store.db.locks/opening: the file system is read-only
    hint: name a store on a disk that can be written, with --store
    ");
    let reader = SqliteStore::open_read_only(&path).unwrap();
    assert_eq!(read_all(&reader, &run()).await.len(), 1);
    let new = open_error(&mount.folder.path().join("new/store.db"));
    assert_eq!(new.kind, ErrorKind::ReadOnly, "{new}");
}

#[tokio::test]
async fn a_file_that_is_removed_while_in_use_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    let aside = folder.path().join("aside.db");
    std::fs::rename(store.path(), &aside).unwrap();
    let error = store_error(do_append(&store, append(&run(), 1, vec![run_started()])).await.unwrap_err());
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Other: write to the store [FOLDER]/store.db: the file was removed or replaced while it is in use
    hint: put the file back, or start Backstop again
    ");
    std::fs::rename(&aside, store.path()).unwrap();
    do_append(&store, append(&run(), 1, vec![run_started()])).await.unwrap();
}

#[tokio::test]
async fn a_dead_writer_answers_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    let lock = hold_write_lock(store.path());
    let before = store.append(append(&run(), 1, vec![run_started()])).await;
    store.writer.as_ref().unwrap().queue.as_ref().unwrap().send(Request::Panic).await.ok().unwrap();
    let behind = store.append(append(&run(), 2, vec![Event::RunSucceeded])).await;
    lock.execute_batch("COMMIT").unwrap();
    // Whether the first shared the batch of the panic depends on when the writer looked.
    let was_kept = before.await.unwrap().is_ok();
    let error = store_error(behind.await.unwrap().unwrap_err());
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Other: write to the store [FOLDER]/store.db: its writer has ended
    hint: start Backstop again and resume the run: what was committed is found by its markers
    ");
    assert!(store.flush().await.is_err());
    assert!(do_append(&store, append(&run(), 2, vec![run_started()])).await.is_err());
    assert_eq!(read_all(&store, &run()).await.len(), 1 + usize::from(was_kept), "reading goes on");
    drop(store);
    assert_eq!(read_all(&open_in(&folder), &run()).await.len(), 1 + usize::from(was_kept));
}

#[tokio::test]
async fn an_event_that_is_too_large_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { value_bytes_max: 1000, ..Options::default() };
    let store = SqliteStore::open(folder.path().join("store.db"), options).unwrap();
    make_run(&store, &run(), "d", vec![]).await;
    let large = Event::CancelRequested { reason: "x".repeat(2000), cause: backstop_core::event::CancelCause::Asked };
    let refused = store.append(append(&run(), 1, vec![run_started(), large])).await;
    let other = RunId::new("other");
    let kept = store.append(append(&other, 0, vec![created(&other, "d")])).await;
    let error = store_error(refused.await.unwrap().unwrap_err());
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Other: append to run r: an event has 2061 bytes, over the limit of 1000
    hint: let the task give a smaller result, or fewer items
    ");
    kept.await.unwrap().unwrap();
    assert_eq!(read_all(&store, &run()).await.len(), 1);
    let version = Version { digest: "x".into(), dag_id: "d".into(), bundle: vec![0; 1001] };
    assert!(store.keep_version(version).await.unwrap_err().message.contains("over the limit of 1000"));
}

#[tokio::test]
async fn events_that_cannot_be_read_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![run_started()]).await;
    let spoil = |body: &str| {
        let other = rusqlite::Connection::open(store.path()).unwrap();
        other.execute("UPDATE events SET body = ?1 WHERE seq = 2", [body]).unwrap();
    };
    spoil(r#"{"v":6,"type":"run_started"}"#);
    let error = store.events(&run(), 0, 10).await.unwrap_err();
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    TooNew: read event 2 of run r in the store [FOLDER]/store.db: it is of format version 6, and this Backstop knows versions up to 5
    hint: a newer Backstop wrote it: use that one, or a newer one still
    ");
    assert_eq!(store.events(&run(), 0, 1).await.unwrap().len(), 1);
    spoil("{");
    let error = store.events(&run(), 0, 10).await.unwrap_err();
    insta::assert_snapshot!(shown(&error, folder.path()), @r"
    Corrupt: read event 2 of run r in the store [FOLDER]/store.db: it is damaged
    hint: the file was changed by other means than Backstop, or its disk is failing: restore it from a backup
    ");
}

/// A process may be killed while it makes a new store: what it left beside the store's place is no store, and is replaced.
#[tokio::test]
async fn an_unfinished_new_store_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["store.db.new", "store.db.new-journal"] {
        std::fs::write(folder.path().join(name), "half").unwrap();
    }
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    assert!(!folder.path().join("store.db.new").exists());
    assert!(!folder.path().join("store.db.new-journal").exists());
}

/// Who was told of a failure and asks again must not be given the old answer, however fast it asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_after_a_failure_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![]).await;
    let aside = folder.path().join("aside.db");
    for version in 1..=200 {
        std::fs::rename(store.path(), &aside).unwrap();
        do_append(&store, append(&run(), version, vec![run_started()])).await.unwrap_err();
        std::fs::rename(&aside, store.path()).unwrap();
        do_append(&store, append(&run(), version, vec![run_started()])).await.unwrap();
    }
}
