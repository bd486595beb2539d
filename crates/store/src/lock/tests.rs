//! What the conformance suite does not see of the lock: its file.

use super::*;

fn open(folder: &Path) -> Arc<RunLocks> {
    Arc::new(RunLocks::open(folder).unwrap())
}

#[test]
fn who_is_refused_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = RunId::new("0199-ab");
    // Two openings stand for two processes: to the kernel they are.
    let (ours, theirs) = (open(folder.path()), open(folder.path()));
    let lock = ours.take(&run).unwrap();
    for locks in [&ours, &theirs] {
        let error = locks.take(&run).err().unwrap();
        let start = format!("run 0199-ab is being run by process {} since 20", std::process::id());
        assert!(error.message.starts_with(&start), "{error}");
        assert_eq!(error.kind, ErrorKind::Busy);
        assert!(locks.is_held(&run).unwrap());
    }
    assert!(RunLocks::is_held_in(folder.path(), &run).unwrap());
    drop(theirs.take(&RunId::new("another")).unwrap());
    drop(lock);
    assert!(!ours.is_held(&run).unwrap() && !theirs.is_held(&run).unwrap());
    assert!(!RunLocks::is_held_in(folder.path(), &run).unwrap());
    drop(theirs.take(&run).unwrap());
}

#[test]
fn runs_are_many_and_the_file_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let locks = open(folder.path());
    let held: Vec<Held> = (0..2000).map(|n| locks.take(&RunId::new(format!("run-{n}"))).unwrap()).collect();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(held);
    assert!((0..2000).all(|n| !locks.is_held(&RunId::new(format!("run-{n}"))).unwrap()));
}

#[test]
fn a_missing_folder_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = RunLocks::open(&folder.path().join("gone")).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Open, "{error}");
}

/// Threads take and free one lock as fast as they can, by two openings of the file.
#[test]
fn never_are_two_let_in() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let (holders, taken) = (AtomicU32::new(0), AtomicU32::new(0));
    let openings = [open(folder.path()), open(folder.path())];
    std::thread::scope(|scope| {
        for n in 0..4 {
            let locks = &openings[n % 2];
            let (holders, taken) = (&holders, &taken);
            scope.spawn(move || {
                for _ in 0..500 {
                    if let Ok(lock) = locks.take(&RunId::new("r")) {
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
    let locks = open(folder.path());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    RunLocks::is_held_in(folder.path(), &RunId::new("r")).unwrap();
                }
            });
        }
        let taken: Vec<bool> = (0..100).map(|_| locks.take(&RunId::new("r")).is_ok()).collect();
        is_over.store(true, Ordering::SeqCst);
        assert!(taken.into_iter().all(|taken| taken));
    });
}
