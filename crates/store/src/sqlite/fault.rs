//! What SQLite and the file system say, in our words: kind, the operation with its path, and what to do next.

use crate::stored;
use crate::{Error, ErrorKind};
use rusqlite::ErrorCode;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Less room than this is called a full disk when SQLite only says that writing failed.
const ROOM_MIN_BYTES: u64 = 1 << 20;

const HINT_READ_ONLY: &str = "give this user the right to write the store's file and folder, or name another store with --store";
const HINT_FULL: &str = "make room on that disk; nothing is lost: what was not written can be resumed";
const HINT_FOLDER: &str =
    "check that the folder exists and that this user may read and write it, or name another store with --store";

/// A failure that many callers are told of: one commit fails for all that share it.
#[derive(Clone)]
pub(crate) struct Fault {
    message: String,
    kind: ErrorKind,
    hint: Option<String>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Fault {
    pub(crate) fn to_error(&self) -> Error {
        let error = Error::new(self.kind, self.message.clone());
        let error = Error { hint: self.hint.clone(), ..error };
        match &self.source {
            Some(source) => error.caused_by(Shared(source.clone())),
            None => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let Error { message, kind, hint, source } = error;
        Self { message, kind, hint, source: source.map(Arc::from) }
    }
}

/// A cause that several errors have in common.
#[derive(Debug)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// `operation` reads like "append to the store"; the path is added.
pub(crate) fn from_sqlite(operation: &str, path: &Path, cause: rusqlite::Error) -> Error {
    let (kind, what, hint) = classify(&cause, path);
    let error = Error::new(kind, format!("{operation} {}: {what}", path.display())).caused_by(cause);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn classify(cause: &rusqlite::Error, path: &Path) -> (ErrorKind, &'static str, Option<&'static str>) {
    let disk_full = (ErrorKind::Full, "the disk is full", Some(HINT_FULL));
    match cause.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => disk_full,
        Some(ErrorCode::ReadOnly) => (ErrorKind::ReadOnly, "the file or its folder is read-only", Some(HINT_READ_ONLY)),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => (
            ErrorKind::Busy,
            "another process is writing to it and does not finish",
            Some("wait for that process; `fuser` or `lsof` on the file shows which it is"),
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Open, "it is not a Backstop store", Some("name the store's file with --store, or move this file away"))
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Corrupt,
            "the file is damaged",
            Some("keep a copy of the file; restore it from a backup, or try `.recover` of the sqlite3 shell on the copy"),
        ),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => (ErrorKind::Open, "it cannot be opened", Some(HINT_FOLDER)),
        // SQLite knows the reason of a failed write only where it is the plain write that failed; not so for shared memory and syncs.
        Some(ErrorCode::SystemIoFailure) if is_out_of_room(path) => disk_full,
        Some(ErrorCode::SystemIoFailure) => {
            (ErrorKind::Other, "the disk does not read or write", Some("look into the system's log for errors of that disk"))
        }
        _ => (ErrorKind::Other, "SQLite refused", None),
    }
}

fn is_out_of_room(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    fs4::available_space(folder).is_ok_and(|room| room < ROOM_MIN_BYTES)
}

/// `operation` names the path by itself.
pub(crate) fn from_io(operation: &str, path: &Path, cause: io::Error) -> Error {
    let (kind, hint) = match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (ErrorKind::Full, HINT_FULL),
        io::ErrorKind::ReadOnlyFilesystem => (ErrorKind::ReadOnly, "name a store on a disk that can be written, with --store"),
        io::ErrorKind::PermissionDenied => (ErrorKind::ReadOnly, HINT_READ_ONLY),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if path.parent().is_some() => (ErrorKind::Open, HINT_FOLDER),
        _ => (ErrorKind::Other, HINT_FOLDER),
    };
    Error::new(kind, format!("{operation}: {}", io_reason(&cause))).hint(hint).caused_by(cause)
}

/// In words, without the system's number: the cause has it.
fn io_reason(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only",
        io::ErrorKind::PermissionDenied => "this user may not",
        io::ErrorKind::NotFound => "there is no such folder",
        io::ErrorKind::NotADirectory => "a part of the path is not a folder",
        _ => "the system refused",
    }
}

/// A stored event that cannot be read. `place` is "event 12 of run X".
pub(crate) fn from_stored(place: &str, path: &Path, cause: stored::Error) -> Error {
    match cause {
        stored::Error::TooNew { found } => Error::new(
            ErrorKind::TooNew,
            format!(
                "read {place} in the store {}: it is of format version {found}, and this Backstop knows versions up to {}",
                path.display(),
                stored::VERSION
            ),
        )
        .hint("a newer Backstop wrote it: use that one, or a newer one still"),
        stored::Error::Malformed(cause) => {
            Error::new(ErrorKind::Corrupt, format!("read {place} in the store {}: it is damaged", path.display()))
                .hint("the file was changed by other means than Backstop, or its disk is failing: restore it from a backup")
                .caused_by(cause)
        }
    }
}
