//! The store's disk fills up or becomes read-only, and the clock goes back: told clearly, and nothing is lost or done twice.

use crate::project::Project;
use crate::server::Database;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// A file system of its own, small. `None` where this user may not mount.
pub(crate) struct Mount {
    folder: TempDir,
}

impl Mount {
    pub(crate) fn new(size: &str) -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder.path()).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self { folder });
        }
        backstop_testkit::servers::skip_or_fail("this user may not mount a file system; run as root");
        None
    }

    pub(crate) fn store(&self) -> String {
        self.folder.path().join("kept/store.db").display().to_string()
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.folder.path()).status().unwrap();
        assert!(done.success(), "mount -o {options}");
    }

    /// Leaves no byte of it; the file to remove to have room again.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.folder.path().join("filler");
        let mut filler = fs::File::create(&path).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a failed test still has files open.
        drop(Command::new("umount").arg("-l").arg(self.folder.path()).status());
    }
}

const SEGMENTS: i64 = 20;

/// A script of segments behind a sensor that waits for a file.
fn gated() -> String {
    let segments: String =
        (0..SEGMENTS).map(|n| format!("      BEGIN;\n      INSERT INTO t VALUES ({n});\n      COMMIT;\n")).collect();
    format!("  hold: {{sensor: {{file: go, poke_interval: 1}}}}\n  load:\n    after: [hold]\n    sql: |\n{segments}")
}

#[test]
fn a_disk_that_fills_up_during_a_run_loses_nothing() {
    for database in Database::all() {
        let Some(mount) = Mount::new("8m") else { return };
        let project = database.project(&gated());
        database.sql(&project, "CREATE TABLE t (n INTEGER)");
        let store = mount.store();
        let mut running = project.start(&["run", "d", "--store", &store]);
        running.wait_for("hold: started");
        let filler = mount.fill();
        project.write("go", "");
        let (code, said) = running.end();
        assert_eq!(code, Some(3), "{}: {said}", database.name());
        assert!(said.contains("the disk is full") && said.contains("make room"), "{}: {said}", database.name());
        // Still full: resuming says so again, and does nothing.
        let again = project.backstop(&["run", "--resume", "latest", "--store", &store]);
        assert_ne!(again.code, Some(0), "{}: {}", database.name(), again.stderr);
        assert!(again.stderr.contains("the disk is full"), "{}: {}", database.name(), again.stderr);
        fs::remove_file(filler).unwrap();
        let resumed = project.backstop(&["run", "--resume", "latest", "--store", &store]);
        assert_eq!(resumed.code, Some(0), "{}: {}", database.name(), resumed.stderr);
        assert_eq!(database.ask(&project, "SELECT COUNT(*) FROM t"), SEGMENTS, "{}", database.name());
        assert_eq!(database.ask(&project, "SELECT COUNT(DISTINCT n) FROM t"), SEGMENTS, "{}", database.name());
        assert_eq!(project.json(&["runs", "list", "--json", "--store", &store])[0]["state"], "success");
    }
}

#[test]
fn a_read_only_store_is_looked_at_and_runs_nothing() {
    let Some(mount) = Mount::new("8m") else { return };
    let project = Project::with_tasks("  load: {sql: INSERT INTO t VALUES (1)}\n");
    project.sql("CREATE TABLE t (n INTEGER)");
    let store = mount.store();
    assert_eq!(project.backstop(&["run", "d", "--store", &store]).code, Some(0));
    mount.remount("ro");
    let outcome = project.backstop(&["run", "d", "--store", &store]);
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    insta::assert_snapshot!(outcome.stderr.replace(&mount.folder.path().display().to_string(), "MOUNT"), @r"
    error: open the store MOUNT/kept/store.db: lock MOUNT/kept/store.db.locks/opening: the file system is read-only
      cause: Read-only file system (os error 30)
      hint: name a store on a disk that can be written, with --store
    ");
    assert_eq!(project.ask("SELECT count(*) FROM t"), 1, "nothing was run");
    assert_eq!(project.json(&["runs", "list", "--json", "--store", &store])[0]["state"], "success");
    assert!(project.data(&["logs", "latest", "load", "--store", &store]).contains("statement 1"));
}

/// Backstop reads the clock at the start of each process. Here the log of the first is moved a day ahead, which is how it looks to a
/// second process whose clock was set back by a day.
#[test]
fn a_clock_that_was_set_back_between_two_processes_neither_waits_nor_reorders() {
    let project = Project::with_tasks(
        "  first: {sql: INSERT INTO t VALUES (1)}\n  again:\n    after: [first]\n    retries: 1\n    retry_delay: 5\n    \
         sql: INSERT INTO t SELECT n FROM later\n",
    );
    project.sql("CREATE TABLE t (n INTEGER)");
    let mut running = project.start(&["run", "d"]);
    running.wait_for("again: try 1 failed");
    // The retry is on its way: it is in the store when a reader sees it there.
    let is_told = || project.data(&["runs", "events", "latest", "--json"]).contains("\"retry_scheduled\"");
    assert!((0..1000).any(|_| is_told()), "the retry does not reach the store");
    running.kill();
    let store = rusqlite::Connection::open(project.path().join(".backstop/store.db")).unwrap();
    let day = 86_400_000_000_i64;
    store.execute("UPDATE events SET at = at + ?1", [day]).unwrap();
    let told = "UPDATE events SET body = json_set(body, '$.at', strftime('%Y-%m-%dT%H:%M:%fZ', body ->> '$.at', '+1 day')) \
                WHERE body ->> '$.at' IS NOT NULL";
    assert!(store.execute(told, []).unwrap() > 0);
    drop(store);
    project.sql("CREATE TABLE later (n INTEGER); INSERT INTO later VALUES (2)");
    let resumed = project.start(&["run", "--resume", "latest"]);
    let process = resumed.id();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(resumed.end()));
    let Ok((code, said)) = ended.recv_timeout(Duration::from_secs(120)) else {
        drop(Command::new("kill").args(["-9", &process.to_string()]).status());
        panic!("it waits for the time at which the first process would have tried again");
    };
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((project.ask("SELECT count(*) FROM t"), project.ask("SELECT sum(n) FROM t")), (2, 3));
    let told = project.data(&["runs", "events", "latest", "--json"]);
    // As texts they do not sort: a fraction of a second has as many digits as it needs.
    let times: Vec<jiff::Timestamp> = told
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["at"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(times.is_sorted(), "{times:?}");
}
