//! Where sources are read from: a folder on disk, or a bundle kept in the store.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Reads source files by their path relative to the project folder, with `/` between the parts.
pub trait Files: Send + Sync {
    /// The bytes of a file.
    ///
    /// # Errors
    /// As `std::fs::read`; `NotFound` when it is not there.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The files below a folder whose names end in one of the endings, sorted; empty when the folder is not there.
    ///
    /// # Errors
    /// As `std::fs::read_dir`.
    fn list(&self, folder: &str, endings: &[&str]) -> io::Result<Vec<String>>;

    /// The project folder on disk, for relative paths of databases and scripts.
    fn root(&self) -> &Path;
}

/// Sources kept together: path to bytes. What a run is pinned to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The project folder they came from.
    pub root: PathBuf,
    /// Path to content.
    pub files: BTreeMap<String, Vec<u8>>,
}
