//! What the conformance suite does not see of the lock: its file.

use super::*;

#[test]
fn the_file_says_who_has_it_and_goes_away() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunId::new("0199-ab");
    let lock = FileLock::take(folder.path(), &run).unwrap();
    let path = folder.path().join("0199-ab.lock");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&format!("process {} since 20", std::process::id())), "{text}");
    let error = FileLock::take(folder.path(), &run).err().unwrap();
    assert_eq!(error.message, format!("run 0199-ab is being run by {}", text.trim()));
    drop(lock);
    assert!(!path.exists());
}

#[test]
fn a_file_left_by_a_killed_process_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.lock");
    std::fs::write(&path, "process 4194305 since 2020-01-01T00:00:00Z and a long text behind it\n").unwrap();
    assert!(!FileLock::is_held(folder.path(), &RunId::new("r")).unwrap(), "nobody holds it, though the file is there");
    let lock = FileLock::take(folder.path(), &RunId::new("r")).unwrap();
    assert!(FileLock::is_held(folder.path(), &RunId::new("r")).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&format!("process {} since", std::process::id())), "{text}");
    assert_eq!(text.lines().count(), 1);
    drop(lock);
}

#[test]
fn no_id_leaves_the_folder() {
    assert_eq!(file_name(&RunId::new("../a/b\0é")), "%2e%2e%2fa%2fb%00%c3%a9.lock");
}

#[test]
fn a_missing_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = FileLock::take(&folder.path().join("gone"), &RunId::new("r")).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Open, "{error}");
}

/// Threads take and free one lock as fast as they can. Two holders at once would mean that the removal of the file broke the lock.
#[test]
fn removal_of_the_file_never_lets_two_in() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    if let Ok(lock) = FileLock::take(folder.path(), &RunId::new("r")) {
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two hold the lock");
                        taken.fetch_add(1, Ordering::SeqCst);
                        holders.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                }
            });
        }
    });
    assert!(taken.load(Ordering::SeqCst) > 0);
}

/// Who takes a lock while others look at it gets it: looking is not holding.
#[test]
fn a_look_never_keeps_anybody_from_the_lock() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("r.lock"), "").unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    FileLock::is_held(folder.path(), &RunId::new("r")).unwrap();
                }
            });
        }
        let taken: Vec<bool> = (0..100).map(|_| FileLock::take(folder.path(), &RunId::new("r")).is_ok()).collect();
        is_over.store(true, Ordering::SeqCst);
        assert!(taken.into_iter().all(|taken| taken));
    });
}
