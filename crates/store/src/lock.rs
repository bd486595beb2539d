//! The lock of a run: who runs it now, on this machine.
//!
//! It is the operating system's lock on a file, so the kernel frees it however the process ends. It fences nothing (that is the epoch's
//! work): it only tells a run that goes on from one whose process is gone.

use crate::{Error, ErrorKind};
use backstop_core::RunId;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Holds a run for this process, until it is dropped or the process ends.
#[must_use = "the run is free again as soon as the lock is dropped"]
pub struct RunLock {
    run: RunId,
    /// Frees the run when it is dropped.
    _hold: Box<dyn Send + Sync>,
}

impl RunLock {
    pub(crate) fn new(run: RunId, hold: impl Send + Sync + 'static) -> Self {
        Self { run, _hold: Box::new(hold) }
    }

    /// Which run is held.
    pub fn run(&self) -> &RunId {
        &self.run
    }
}

impl std::fmt::Debug for RunLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunLock").field("run", &self.run).finish_non_exhaustive()
    }
}

pub(crate) fn busy(run: &RunId, holder: &str) -> Error {
    Error::new(ErrorKind::Busy, format!("run {run} is being run by {holder}"))
        .hint("wait until that process has ended, or stop it; then resume the run")
}

/// A locked file with its holder's process id and start in it. Removed when it is dropped; left behind, unlocked, by a process that was
/// killed, and then simply taken again.
pub(crate) struct FileLock {
    path: PathBuf,
    /// Locked. Closing it unlocks it.
    _file: File,
}

/// How often a lock file may vanish under us (each time, its holder removed it between our opening and our locking it), or be looked at
/// by somebody just then.
const TRIES_MAX: u32 = 1000;

impl FileLock {
    /// Takes the lock of a run in a folder, which must be there. Does not wait.
    pub(crate) fn take(folder: &Path, run: &RunId) -> Result<Self, Error> {
        let path = folder.join(file_name(run));
        for _ in 0..TRIES_MAX {
            let mut file = open(&path).map_err(|cause| cannot_lock(run, &path, cause))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if is_only_looked_at(&file) => {
                    std::thread::yield_now();
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(busy(run, &holder(&mut file))),
                Err(TryLockError::Error(cause)) => return Err(cannot_lock(run, &path, cause)),
            }
            // Its last holder may have removed the file after we opened it; then our lock is on nothing that others can see.
            if is_same_file(&file, &path) {
                write_holder(&mut file).map_err(|cause| cannot_lock(run, &path, cause))?;
                return Ok(Self { path, _file: file });
            }
        }
        Err(Error::new(ErrorKind::Busy, format!("lock run {run}: {} was not free in {TRIES_MAX} tries", path.display()))
            .hint("other processes start, end or look at the same run over and over: try again"))
    }

    /// Whether a process has the lock of a run. It is not taken for that; who takes it meanwhile tries again, see [`Self::take`].
    pub(crate) fn is_held(folder: &Path, run: &RunId) -> Result<bool, Error> {
        let path = folder.join(file_name(run));
        let file = match File::open(&path) {
            Ok(file) => file,
            // Its last holder removed it.
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(cause) => return Err(cannot_look(run, &path, cause)),
        };
        match file.try_lock_shared() {
            // Free again as soon as the file is closed.
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(cause)) => Err(cannot_look(run, &path, cause)),
        }
    }
}

/// True when what keeps us from the lock is only somebody who looks whether it is held: lookers share it, for moments.
fn is_only_looked_at(file: &File) -> bool {
    file.try_lock_shared().is_ok() && file.unlock().is_ok()
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody's fresh file is removed. When it fails the file just stays.
        drop(std::fs::remove_file(&self.path));
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn cannot_lock(run: &RunId, path: &Path, cause: std::io::Error) -> Error {
    crate::sqlite::fault::from_io(&format!("lock run {run} with {}", path.display()), path, cause)
}

fn cannot_look(run: &RunId, path: &Path, cause: std::io::Error) -> Error {
    crate::sqlite::fault::from_io(&format!("look whether run {run} goes on, by {}", path.display()), path, cause)
}

/// Run ids are UUIDs, but nothing here relies on it: other bytes than letters, digits and `-` are escaped, so that no id leaves the folder.
fn file_name(run: &RunId) -> String {
    use std::fmt::Write as _;
    let mut name = String::new();
    for byte in run.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            name.push(char::from(byte));
        } else {
            write!(name, "%{byte:02x}").expect("writing to a String does not fail");
        }
    }
    name.push_str(".lock");
    name
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lock is the operating system's, so its time is too; it is only shown to people"
)]
fn write_holder(file: &mut File) -> std::io::Result<()> {
    let since = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default();
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "process {} since {since}", std::process::id())
}

/// Who holds a locked file, as it says itself. It may not have come to say so.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(200).read_to_string(&mut text);
    match text.trim() {
        "" => "another process".to_owned(),
        _ if read.is_err() => "another process".to_owned(),
        said => said.to_owned(),
    }
}

/// Which file it is, whatever its name. `None` of a file that is not there, and where the system does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().and_then(Self::of)
    }

    #[cfg(unix)]
    fn of(metadata: &std::fs::Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }

    #[cfg(not(unix))]
    fn of(_metadata: &std::fs::Metadata) -> Option<Self> {
        None
    }
}

fn is_same_file(file: &File, path: &Path) -> bool {
    file.metadata().is_ok_and(|ours| FileIdentity::of(&ours) == FileIdentity::of_path(path))
}

#[cfg(test)]
mod tests;
