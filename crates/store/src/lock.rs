//! The lock of a run: who runs it now, on this machine.
//!
//! All runs of a store share one file; each locks one byte of it, whose place follows from the run's id. So ten thousand short runs make no
//! ten thousand files. It is the operating system's lock, on an open file description, so the kernel frees it however the process ends.
//! It fences nothing (that is the epoch's work): it only tells a run that goes on from one whose process is gone.

use crate::{Error, ErrorKind};
use backstop_core::RunId;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use sha2::{Digest as _, Sha256};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// What the store makes is for its owner alone: results and variables may be secret. What is there stays as somebody made it.
pub(crate) const OWN_FILE: u32 = 0o600;
/// As [`OWN_FILE`], of folders.
pub(crate) const OWN_FOLDER: u32 = 0o700;

/// The file's name, in the folder of locks.
const FILE: &str = "runs";
/// The file begins with as many records of who holds a run; two runs may want one place, then the later one is told of.
const RECORDS: u64 = 16_384;
/// Bytes of a record.
const RECORD_BYTES: usize = 96;
/// Locked bytes lie behind this, far from the records; a lock needs no byte to be there.
const LOCKS_FROM: i64 = 1 << 32;

/// The locks of a store's runs.
pub(crate) struct RunLocks {
    file: File,
    path: PathBuf,
    /// Those of this very store: to the kernel a second lock by the same file description is the same lock.
    held: Mutex<HashSet<i64>>,
}

/// One run's.
pub(crate) struct Held {
    locks: Arc<RunLocks>,
    place: i64,
}

impl RunLocks {
    /// Opens the file in a folder, which must be there; makes it when it is missing.
    pub(crate) fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(OWN_FILE).open(&path);
        let file = file.map_err(|cause| from_io(&format!("open the locks of runs, {}", path.display()), &path, cause))?;
        Ok(Self { file, path, held: Mutex::default() })
    }

    /// Takes the lock of a run. Does not wait.
    pub(crate) fn take(self: &Arc<Self>, run: &RunId) -> Result<Held, Error> {
        let place = place_of(run);
        if !self.held().insert(place) {
            return Err(busy(run, &self.holder(run)));
        }
        let failed = match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&range(place, libc::F_WRLCK))) {
            Ok(_) => {
                // Only for people; the lock is held without it.
                let _ = self.file.write_all_at(&record(run), record_place(run));
                return Ok(Held { locks: self.clone(), place });
            }
            Err(Errno::EAGAIN | Errno::EACCES) => busy(run, &self.holder(run)),
            Err(cause) => from_io(&format!("lock run {run} with {}", self.path.display()), &self.path, cause.into()),
        };
        self.held().remove(&place);
        Err(failed)
    }

    /// Whether a process has the lock of a run. It is not taken for that.
    pub(crate) fn is_held(&self, run: &RunId) -> Result<bool, Error> {
        if self.held().contains(&place_of(run)) {
            return Ok(true);
        }
        is_locked(&self.file, run, &self.path)
    }

    /// As [`Self::is_held`], of a store that is open for reading only.
    pub(crate) fn is_held_in(folder: &Path, run: &RunId) -> Result<bool, Error> {
        let path = folder.join(FILE);
        match File::open(&path) {
            Ok(file) => is_locked(&file, run, &path),
            // Nobody ever held a run here.
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cannot_look(run, &path, cause)),
        }
    }

    /// Who holds a run, as they say themselves. They may not have come to say so, or another run may have their place.
    fn holder(&self, run: &RunId) -> String {
        let mut bytes = [0; RECORD_BYTES];
        let read = self.file.read_exact_at(&mut bytes, record_place(run));
        let said = read.ok().and_then(|()| std::str::from_utf8(&bytes).ok()).and_then(|text| text.trim_end().split_once('\t'));
        match said {
            Some((of, holder)) if of == name_of(run) => holder.to_owned(),
            _ => "another process".to_owned(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashSet<i64>> {
        // Inserting and removing leave it whole.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing the file would free it, too; nothing else can be done when this fails.
        let _ = fcntl(&self.locks.file, FcntlArg::F_OFD_SETLK(&range(self.place, libc::F_UNLCK)));
        self.locks.held().remove(&self.place);
    }
}

fn is_locked(file: &File, run: &RunId, path: &Path) -> Result<bool, Error> {
    let mut range = range(place_of(run), libc::F_RDLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range)).map_err(|cause| cannot_look(run, path, cause.into()))?;
    Ok(libc::c_int::from(range.l_type) != libc::F_UNLCK)
}

/// One byte of the file.
fn range(place: i64, kind: libc::c_int) -> libc::flock {
    #[expect(clippy::cast_possible_truncation, reason = "the kinds of locks and SEEK_SET are small numbers")]
    libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: place, l_len: 1, l_pid: 0 }
}

fn digest(run: &RunId) -> u64 {
    let digest = Sha256::digest(run.as_str().as_bytes());
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Two runs that go on at once and share a byte would keep each other waiting: of a million such runs the chance is one in ten million.
fn place_of(run: &RunId) -> i64 {
    LOCKS_FROM + i64::try_from(digest(run) >> 2).unwrap_or(0).min(i64::MAX - LOCKS_FROM - 1)
}

fn record_place(run: &RunId) -> u64 {
    digest(run) % RECORDS * RECORD_BYTES as u64
}

fn name_of(run: &RunId) -> String {
    format!("{:016x}", digest(run))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lock is the operating system's, so its time is too; it is only shown to people"
)]
fn record(run: &RunId) -> [u8; RECORD_BYTES] {
    let since = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default();
    let text = format!("{}\tprocess {} since {since}", name_of(run), std::process::id());
    let mut record = [b' '; RECORD_BYTES];
    record.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
    record[RECORD_BYTES - 1] = b'\n';
    record
}

fn cannot_look(run: &RunId, path: &Path, cause: std::io::Error) -> Error {
    from_io(&format!("look whether run {run} goes on, by {}", path.display()), path, cause)
}

fn from_io(what: &str, path: &Path, cause: std::io::Error) -> Error {
    crate::sqlite::fault::from_io(what, path, cause)
}

/// Which file it is, whatever its name. `None` of a file that is not there, and where the system does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

#[cfg(test)]
mod tests;
