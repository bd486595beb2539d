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

/// A project folder on disk.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// Reads below a folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.root.join(path))
    }

    fn list(&self, _folder: &str, _endings: &[&str]) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn root(&self) -> &Path {
        &self.root
    }
}

impl Files for Bundle {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn list(&self, folder: &str, endings: &[&str]) -> io::Result<Vec<String>> {
        let inside = |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        Ok(self.files.keys().filter(|path| inside(path) && endings.iter().any(|e| path.ends_with(e))).cloned().collect())
    }

    fn root(&self) -> &Path {
        &self.root
    }
}

/// Why bytes are not a bundle.
#[derive(Debug, thiserror::Error)]
#[error("the stored sources cannot be read: {0}")]
pub struct BundleError(pub String);

impl Bundle {
    /// For the store.
    pub fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    /// From the store.
    ///
    /// # Errors
    /// When the bytes were not written by [`Bundle::to_bytes`].
    pub fn from_bytes(_bytes: &[u8]) -> Result<Self, BundleError> {
        Err(BundleError("not implemented yet".to_owned()))
    }
}
