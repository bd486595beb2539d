//! Checking, repairing and backing up: what is done to the file behind the store's back is found, and told with what can be done.

use super::super::backup::{back_up, size};
use super::super::check::{Checked, Remedy, check, repair};
use super::*;
use crate::conformance::script;
use crate::conformance::script::{random_run, statement};
use backstop_core::event::{Evidence, Promise, SegmentCommit};
use std::fs;

/// A store with some runs, closed.
async fn closed(folder: &TempDir) -> PathBuf {
    let store = open_in(folder);
    for seed in 0..10 {
        let run = RunId::new(format!("r{seed}"));
        let events = random_run(seed, 60);
        make_run(&store, &run, "d", events.into_iter().filter(|event| !matches!(event, Event::RunCreated(_))).collect()).await;
    }
    store.path().to_owned()
}

fn damage(path: &Path, sql: &str) {
    let plain = rusqlite::Connection::open(path).unwrap();
    plain.pragma_update(None, "foreign_keys", false).unwrap();
    plain.execute_batch(sql).unwrap();
}

fn found(path: &Path) -> Vec<(String, String, Remedy)> {
    let Checked { differences, .. } = check(path, |_| {}).unwrap();
    differences
        .into_iter()
        .map(|found| (found.run.map_or_else(String::new, |run| run.to_string()), found.what, found.remedy))
        .collect()
}

#[tokio::test]
async fn a_store_that_is_whole_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed(&folder).await;
    let checked = check(&path, |_| {}).unwrap();
    assert!(checked.is_whole(), "{checked:#?}");
    assert_eq!(checked.runs, 10);
    assert!(checked.events > 200, "{}", checked.events);
}

#[tokio::test]
async fn what_differs_from_the_log_is_told_and_made_anew() {
    let cases = [
        "UPDATE runs SET state = 'stuck', ended_at = 5 WHERE run_id = 'r3'",
        "UPDATE runs SET state = 'no such state' WHERE run_id = 'r3'",
        "UPDATE runs SET logical_date = 5, definition = NULL, dag_id = 'other', callbacks_pending = 7 WHERE run_id = 'r3'",
        "UPDATE instances SET state = 'strange' WHERE run = (SELECT id FROM runs WHERE run_id = 'r3')",
        "DELETE FROM instances WHERE run = (SELECT id FROM runs WHERE run_id = 'r3')",
        "UPDATE instances SET first_seq = -first_seq, error = 'x' WHERE run = (SELECT id FROM runs WHERE run_id = 'r3')",
        "INSERT INTO instances SELECT run, 'unheard-of', -1, 1, 'failed', 1, NULL, NULL, NULL FROM instances \
         WHERE run = (SELECT id FROM runs WHERE run_id = 'r3') LIMIT 1",
    ];
    for sql in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = closed(&folder).await;
        damage(&path, sql);
        let told = found(&path);
        assert!(
            !told.is_empty() && told.iter().all(|(run, _, remedy)| run == "r3" && *remedy == Remedy::Rebuild),
            "{sql}\n{told:#?}"
        );
        assert_eq!(repair(&path, &[RunId::new("r3")]).unwrap(), 1, "{sql}");
        assert_eq!(found(&path), [], "{sql}");
    }
}

#[tokio::test]
async fn statements_are_compared_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    let commit = SegmentCommit {
        segment: 0,
        promise: Promise::ExactlyOnce,
        evidence: Evidence::Acknowledged,
        digest: String::new(),
        statements: vec![statement(1), statement(2)],
        result: None,
    };
    let events = vec![
        run_started(),
        script::attempt_started(script::single("a"), 1, script::at(5)),
        Event::SegmentCommitted { instance: script::single("a"), try_number: 1, commit: commit.into() },
    ];
    make_run(&store, &run(), "d", events).await;
    let path = store.path().to_owned();
    drop(store);
    for sql in ["DELETE FROM statements WHERE place = 1", "UPDATE statements SET duration_us = 77 WHERE place = 1"] {
        damage(&path, sql);
        let told = found(&path);
        assert!(told.len() == 1 && told[0].1.contains("statement") && told[0].2 == Remedy::Rebuild, "{told:?}");
        repair(&path, &[run()]).unwrap();
        assert_eq!(found(&path), []);
    }
}

/// An update that is there counts once, and keeps its number through a repair; one that was lost gets a new one.
#[tokio::test]
async fn updates_of_assets_are_compared_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_in(&folder);
    let updated = |assets: &[&str]| Event::AssetsUpdated {
        instance: script::mapped("a", 2),
        try_number: 1,
        assets: assets.iter().map(|asset| (*asset).into()).collect(),
    };
    make_run(&store, &run(), "d", vec![run_started(), updated(&["sales", "rates"]), updated(&["sales"])]).await;
    let path = store.path().to_owned();
    drop(store);
    assert_eq!(found(&path), []);
    let cases = [
        (
            "DELETE FROM asset_updates WHERE seq = 2",
            "lists do not have an update of asset `rates` by a[2], of which its log tells",
            [1, 3, 4],
        ),
        ("UPDATE asset_updates SET at = 5 WHERE seq = 3", "lists do not have an update of asset `sales` by a[2]", [1, 4, 5]),
        (
            "INSERT INTO asset_updates SELECT 99, asset, run, event, run_id, task, map_index, at FROM asset_updates WHERE seq = 1",
            "lists have an update of asset `sales` by a[2], of which its log does not tell",
            [1, 4, 5],
        ),
    ];
    for (sql, expected, numbers) in cases {
        damage(&path, sql);
        let told = found(&path);
        assert!(told.len() == 1 && told[0].1.contains(expected) && told[0].2 == Remedy::Rebuild, "{sql}: {told:?}");
        assert_eq!(repair(&path, &[run()]).unwrap(), 1);
        assert_eq!(found(&path), [], "{sql}");
        let kept = open_in(&folder).asset_updates(0, 10).await.unwrap();
        assert_eq!(kept.iter().map(|row| row.seq).collect::<Vec<_>>(), numbers, "{sql}");
    }
    damage(&path, "UPDATE asset_updates SET run = 77 WHERE seq = 1");
    assert!(found(&path).iter().any(|(_, what, _)| what.contains("the table of asset_updates has rows of run number 77")));
}

#[tokio::test]
async fn a_broken_log_is_told_and_left_alone() {
    let cases = [
        ("DELETE FROM events WHERE seq = 4 AND run = 4", "its log has a gap: event 4 is missing before event 5"),
        ("DELETE FROM events WHERE run = 4", "it has no log"),
        ("DELETE FROM events WHERE run = 4 AND seq > 5", "the end is missing"),
        ("UPDATE events SET body = '{half' WHERE run = 4 AND seq = 6", "event 6 of run r3"),
        (
            "UPDATE events SET body = (SELECT body FROM events WHERE run = 1 AND seq = 1) WHERE run = 4 AND seq = 1",
            "its log is that of run r0",
        ),
    ];
    for (sql, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = closed(&folder).await;
        damage(&path, sql);
        let told = found(&path);
        assert_eq!(told.len(), 1, "{sql}: {told:#?}");
        assert!(told[0].0 == "r3" && told[0].1.contains(expected) && told[0].2 == Remedy::Restore, "{sql}: {told:#?}");
        assert_eq!(repair(&path, &[RunId::new("r3")]).unwrap(), 0);
        assert_eq!(found(&path), told, "{sql}");
    }
}

#[tokio::test]
async fn rows_without_a_run_and_damaged_pages_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = closed(&folder).await;
    damage(&path, "DELETE FROM runs WHERE id = 4");
    let told = found(&path);
    assert!(told.iter().any(|(_, what, _)| what.contains("the table of events has rows of run number 4")), "{told:#?}");
    // Somewhere behind the tables' first pages.
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    match check(&path, |_| {}) {
        Ok(checked) => assert!(!checked.is_whole()),
        Err(error) => assert!(error.message.contains("damaged"), "{error}"),
    }
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 3]).unwrap();
    match check(&path, |_| {}) {
        Ok(checked) => assert!(!checked.is_whole()),
        Err(error) => assert!(error.message.contains("damaged"), "{error}"),
    }
    fs::write(&path, "this was a store once").unwrap();
    assert!(check(&path, |_| {}).unwrap_err().message.contains("it is not a Backstop store"));
}

#[tokio::test]
async fn a_backup_is_made_while_the_store_is_written_and_never_over_another_file() {
    let folder = tempfile::tempdir().unwrap();
    drop(closed(&folder).await);
    let store = open_in(&folder);
    make_run(&store, &run(), "d", vec![run_started()]).await;
    let lock = hold_write_lock(store.path());
    let to = folder.path().join("copy.db");
    let made = back_up(store.path(), &to).unwrap();
    lock.execute_batch("COMMIT").unwrap();
    assert!(made.checked.is_whole() && made.checked.runs == 11, "{made:?}");
    assert_eq!(made.bytes, fs::metadata(&to).unwrap().len());
    let refused = back_up(store.path(), &to).unwrap_err();
    assert!(refused.message.contains("is not replaced"), "{refused}");
    let nowhere = back_up(store.path(), &folder.path().join("none/copy.db")).unwrap_err();
    assert!(nowhere.message.contains("none/copy.db"), "{nowhere}");
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| name.contains("unfinished"));
    assert_eq!(left, Vec::<String>::new());
    // It is a store like any other.
    let copy = SqliteStore::open(&to, Options::default()).unwrap();
    assert_eq!(read_all(&copy, &run()).await, read_all(&store, &run()).await);
    do_append(&copy, append(&run(), 2, vec![Event::RunSucceeded])).await.unwrap();
    let told = size(&to).unwrap();
    assert_eq!(told.runs.iter().map(|(_, count)| count).sum::<u64>(), 11);
    assert!(told.events > 200 && told.instances > 0 && told.file_bytes > 0, "{told:?}");
}
