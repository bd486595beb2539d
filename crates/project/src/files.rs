//! Where sources are read from: a folder on disk, or a bundle kept in the store.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Reads source files by their path relative to the project folder, with `/` between the parts.
pub trait Files: Send + Sync {
    /// The bytes of a file.
    ///
    /// # Errors
    /// As `std::fs::read`; `NotFound` when it is not there, `PermissionDenied` when it lies outside of the project folder.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// How many bytes a file has, where that is known without reading it.
    fn size(&self, path: &str) -> Option<u64> {
        let _ = path;
        None
    }

    /// The files below a folder whose names end in one of the endings, sorted; empty when the folder is not there.
    ///
    /// # Errors
    /// As `std::fs::read_dir`.
    fn list(&self, folder: &str, endings: &[&str]) -> io::Result<Vec<String>>;

    /// The project folder on disk, for relative paths of databases and scripts.
    fn root(&self) -> &Path;
}

/// The largest SQL or Python file.
pub(crate) const SQL_BYTES_MAX: u64 = 256 << 20;
/// The largest YAML file.
pub(crate) const YAML_BYTES_MAX: u64 = 64 << 20;

/// Why a file could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The path leads out of the project folder.
    Outside,
    /// It is not there.
    NotFound,
    /// It has more bytes than are allowed.
    TooLarge { bytes: u64, bytes_max: u64 },
    /// It is not UTF-8.
    NotUtf8(NotUtf8),
    /// Anything else.
    Io(io::Error),
}

/// The first byte that is not UTF-8.
#[derive(Debug)]
pub(crate) struct NotUtf8 {
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// The byte.
    pub(crate) byte: u8,
}

/// Reads a text, within a size.
pub(crate) fn read_text(files: &dyn Files, path: &str, bytes_max: u64) -> Result<String, ReadError> {
    if leads_outside(path) {
        return Err(ReadError::Outside);
    }
    let path = normal(path);
    if let Some(bytes) = files.size(&path).filter(|bytes| *bytes > bytes_max) {
        return Err(ReadError::TooLarge { bytes, bytes_max });
    }
    let bytes = files.read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::NotFound,
        io::ErrorKind::PermissionDenied if error.get_ref().is_some_and(|inner| inner.is::<OutsideOfRoot>()) => ReadError::Outside,
        _ => ReadError::Io(error),
    })?;
    if bytes.len() as u64 > bytes_max {
        return Err(ReadError::TooLarge { bytes: bytes.len() as u64, bytes_max });
    }
    String::from_utf8(bytes).map_err(|error| ReadError::NotUtf8(place_of_bad_byte(&error))).map(|text| {
        match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }
    })
}

fn place_of_bad_byte(error: &std::string::FromUtf8Error) -> NotUtf8 {
    let bytes = error.as_bytes();
    let at = error.utf8_error().valid_up_to();
    let line_start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let lines = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
    let characters = String::from_utf8_lossy(&bytes[line_start..at]).chars().count();
    NotUtf8 {
        line: u32::try_from(lines + 1).unwrap_or(u32::MAX),
        column: u32::try_from(characters + 1).unwrap_or(u32::MAX),
        byte: bytes.get(at).copied().unwrap_or_default(),
    }
}

/// True for an absolute path, and for one whose `..` climb above where it starts. A backslash is refused: it would mean another path on Windows.
pub(crate) fn leads_outside(path: &str) -> bool {
    let mut depth = 0_i64;
    for part in path.split('/') {
        match part {
            ".." => depth -= 1,
            "." | "" => {}
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    path.starts_with(['/', '~']) || path.contains(['\\', '\0'])
}

/// The path without `.`, `..` and doubled `/`.
pub(crate) fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

#[derive(Debug, thiserror::Error)]
#[error("the path leads out of the project folder")]
struct OutsideOfRoot;

/// A project folder on disk.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
    /// With links followed, to tell what lies inside.
    real_root: PathBuf,
}

impl Disk {
    /// Reads below a folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let real_root = std::fs::canonicalize(&root).unwrap_or_else(|_| root.clone());
        Self { root, real_root }
    }

    /// The path on disk; links are followed, and must stay inside.
    fn inside(&self, path: &str) -> io::Result<PathBuf> {
        let refused = || io::Error::new(io::ErrorKind::PermissionDenied, OutsideOfRoot);
        if leads_outside(path) {
            return Err(refused());
        }
        let real = std::fs::canonicalize(self.root.join(path))?;
        if real.starts_with(&self.real_root) { Ok(real) } else { Err(refused()) }
    }
}

impl Files for Disk {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let real = self.inside(path)?;
        // Opening a FIFO would wait for ever, and a device has no end.
        if !std::fs::metadata(&real)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        // The bound holds even where the file grows between the question for its size and the reading.
        let mut bytes = Vec::new();
        std::fs::File::open(real)?.take(SQL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn size(&self, path: &str) -> Option<u64> {
        std::fs::metadata(self.inside(path).ok()?).ok().map(|found| found.len())
    }

    fn list(&self, folder: &str, endings: &[&str]) -> io::Result<Vec<String>> {
        const FILES_MAX: usize = 100_000;
        let mut found = Vec::new();
        let mut folders = vec![normal(folder)];
        while let Some(folder) = folders.pop() {
            let entries = match self.inside(&folder).and_then(std::fs::read_dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                if name.starts_with('.') {
                    continue;
                }
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                // A link to a folder is not followed, as it may lead in circles.
                if entry.file_type()?.is_dir() {
                    folders.push(path);
                } else if endings.iter().any(|ending| path.ends_with(ending)) {
                    found.push(path);
                }
                if found.len() > FILES_MAX {
                    return Err(io::Error::other(format!("there are more than {FILES_MAX} files")));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    fn root(&self) -> &Path {
        &self.root
    }
}

/// Sources kept together: path to bytes. What a run is pinned to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    /// The project folder they came from.
    pub root: PathBuf,
    /// Path to content.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Files for Bundle {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn size(&self, path: &str) -> Option<u64> {
        self.files.get(path).map(|bytes| bytes.len() as u64)
    }

    fn list(&self, folder: &str, endings: &[&str]) -> io::Result<Vec<String>> {
        let inside = |path: &str| folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        Ok(self.files.keys().filter(|path| inside(path) && endings.iter().any(|e| path.ends_with(e))).cloned().collect())
    }

    fn root(&self) -> &Path {
        &self.root
    }
}
