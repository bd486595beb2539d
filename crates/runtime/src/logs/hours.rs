//! The files that runs share which say little: one for each hour, by UTC.

use super::writer::append_to;
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// The folder, beside those of runs. No run has this id: ids have 8 characters at least.
const FOLDER: &str = "hours";
/// Of the time in a file's name. Names sort as their times do.
const FORMAT: &str = "%Y-%m-%dT%H";

/// Where the files of hours are, in the folder of logs.
pub fn hours_folder(root: &Path) -> PathBuf {
    root.join(FOLDER)
}

/// Hours that a run did something in.
#[derive(Debug, Default)]
pub(crate) struct NeededHours(BTreeSet<String>);

impl NeededHours {
    /// All hours from one time to a later one.
    pub(crate) fn add(&mut self, from: Timestamp, to: Timestamp) {
        let hour = |at: Timestamp| at.as_second().div_euclid(3600);
        let names = (hour(from)..=hour(to)).filter_map(|hour| Timestamp::from_second(hour * 3600).ok()).map(name_of);
        self.0.extend(names);
    }
}

/// Removes the files of the hours that ended before a time and that nobody needs, and tells how many bytes they had.
///
/// # Errors
/// When the folder cannot be read, or a file cannot be removed.
pub(crate) fn forget_hours(root: &Path, before: Timestamp, needed: &NeededHours) -> io::Result<u64> {
    let first_kept = name_of(before);
    let mut bytes = 0;
    for path in all(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.as_ref() < first_kept.as_str() && !needed.0.contains(name.as_ref()) {
            bytes += fs::metadata(&path).map_or(0, |metadata| metadata.len());
            fs::remove_file(&path)?;
        }
    }
    Ok(bytes)
}

/// The files that may have lines of a time or later, oldest first.
pub(super) fn since(root: &Path, at: Timestamp) -> io::Result<Vec<PathBuf>> {
    let first = name_of(at);
    let mut files = all(root)?;
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().as_ref() >= first.as_str()));
    files.sort();
    Ok(files)
}

fn all(root: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(hours_folder(root)) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn name_of(at: Timestamp) -> String {
    format!("{}.log", at.strftime(FORMAT))
}

/// The file of the hour that lines are written to now.
#[derive(Default)]
pub(super) struct Hours {
    /// Its hour, counted from 1970.
    current: Option<(i64, BufWriter<File>)>,
}

impl Hours {
    /// The file for a line of this time. Never an earlier one than before: who follows reads them in order.
    pub(super) fn at(&mut self, root: &Path, at: Timestamp) -> io::Result<&mut BufWriter<File>> {
        let hour = at.as_second().div_euclid(3600);
        let is_current = matches!(&self.current, Some((current, _)) if *current >= hour);
        if !is_current {
            self.flush()?;
            self.current = Some((hour, append_to(&hours_folder(root).join(name_of(at)))?));
        }
        self.current.as_mut().map(|(_, file)| file).ok_or_else(|| io::Error::other("the log of the hour is not open"))
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.current.as_mut().map_or(Ok(()), |(_, file)| file.flush())
    }
}
