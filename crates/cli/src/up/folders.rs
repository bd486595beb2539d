//! Project folders: how they are loaded, and whether something in them changed.
//!
//! A look costs one `stat` for each file that matters, and one reading of each folder. Watching by the system's own means (inotify) would
//! cost nothing while nothing happens, but does not work on network file systems and on folders that are mounted into a container, and has
//! limits of its own: files that are asked for are right everywhere.

use crate::check;
use crate::sources::Sources;
use backstop_project::{Environment, Loaded, Overrides};
use backstop_runtime::service::Loader;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files that are looked at for changes, at most; a project with more is told of changes by its first ones.
const FILES_MAX: usize = 100_000;
/// Endings of files that DAGs are made of; a task names files of no others. A database beside them does not matter.
const ENDINGS: &[&str] = &["yaml", "yml", "sql", "py"];

/// Project folders.
pub(super) struct Folders {
    roots: Vec<PathBuf>,
    environment: Environment,
}

impl Folders {
    pub(super) fn new(roots: Vec<PathBuf>, environment: Environment) -> Self {
        Self { roots, environment }
    }
}

impl Loader for Folders {
    fn load(&self, overrides: &Overrides) -> Vec<Loaded> {
        let load = |root: &PathBuf| {
            let sources = Sources::of_folder(root);
            let mut loaded = backstop_project::load_with(&sources, &self.environment, overrides);
            check::leave_out_wrong(&mut loaded, &sources);
            loaded
        };
        self.roots.iter().map(load).collect()
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut left = FILES_MAX;
        for root in &self.roots {
            look(root, &mut hasher, &mut left);
        }
        hasher.finish()
    }
}

fn is_of_interest(path: &Path) -> bool {
    path.extension().and_then(OsStr::to_str).is_some_and(|ending| ENDINGS.contains(&ending))
}

/// Takes in every file of interest below. As in loading, links to folders are not followed, and hidden folders (`.backstop`, `.git`) are not
/// looked into.
fn look(folder: &Path, hasher: &mut DefaultHasher, left: &mut usize) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.flatten().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            look(&path, hasher, left);
        } else if is_of_interest(&path) {
            take_in(&path, hasher);
        }
    }
}

/// The name and what changes with the content; of a link, those of the file it leads to. A file that is not there is taken in as such.
fn take_in(path: &Path, hasher: &mut DefaultHasher) {
    let found = std::fs::metadata(path).ok();
    let known = found.map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()));
    (path, known).hash(hasher);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dag_whose_sql_is_wrong_is_left_out_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
        std::fs::create_dir(folder.path().join("dags")).unwrap();
        write("backstop.yaml", "connections:\n  db: sqlite:///data.db\n");
        write("dags/good.yaml", "dag: good\nconnection: db\ntasks:\n  one: {sql: SELECT 1}\n");
        for name in ["bad", "worse"] {
            write(&format!("dags/{name}.yaml"), &format!("dag: {name}\nconnection: db\ntasks:\n  one: {{sql: bad.sql}}\n"));
        }
        write("bad.sql", "SELECT 1;\nSELECT 'never closed;\n");
        let folders = Folders::new(vec![folder.path().to_owned()], Environment::default());
        let loaded = folders.load(&Overrides::default());
        let dags: Vec<&str> = loaded[0].project.dags.keys().map(backstop_core::DagId::as_str).collect();
        assert_eq!(dags, ["good"]);
        let told: Vec<(&str, &str)> = loaded[0].diagnostics.iter().map(|found| (found.code, &*found.message)).collect();
        assert_eq!(told, [("B0701", "the string that begins here is never closed")]);
        assert!(loaded[0].dag_files.contains_key("bad"), "an earlier version of it stays");
    }

    #[test]
    fn only_files_that_dags_are_made_of_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
        for below in ["dags", "sql", ".git"] {
            std::fs::create_dir(folder.path().join(below)).unwrap();
        }
        write("backstop.yaml", "connections:\n  db: sqlite:///data.db\n");
        write("dags/one.yaml", "dag: one\nconnection: db\ntasks:\n  one: {sql: sql/one.sql}\n");
        write("sql/one.sql", "SELECT 1;\n");
        let folders = Folders::new(vec![folder.path().to_owned()], Environment::default());
        let loaded = folders.load(&Overrides::default());
        assert!(loaded[0].is_valid(), "{:?}", loaded[0].diagnostics);
        let mut seen = folders.fingerprint();
        let mut has_changed = |what: &str, is_expected: bool| {
            let now = folders.fingerprint();
            assert_eq!(now != seen, is_expected, "{what}");
            seen = now;
        };
        has_changed("nothing happened", false);
        for other in ["data.db", "data.db-wal", "out.csv", ".git/index.yaml", ".hidden.sql"] {
            write(other, "x");
            has_changed(other, false);
        }
        write("dags/one.yaml", "dag: one\nconnection: db\ntasks:\n  two: {sql: sql/one.sql}\n");
        has_changed("a DAG", true);
        write("sql/one.sql", "SELECT 2;\n");
        has_changed("a file that a task names", true);
        write("sql/new.sql", "SELECT 2;\n");
        has_changed("a new script", true);
        std::os::unix::fs::symlink(folder.path().join("out.csv"), folder.path().join("sql/linked.sql")).unwrap();
        has_changed("a link", true);
        write("out.csv", "SELECT 1, 2, 3");
        has_changed("what a link leads to", true);
        std::fs::remove_file(folder.path().join("sql/one.sql")).unwrap();
        has_changed("a named file that is gone", true);
    }
}
