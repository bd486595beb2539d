//! What SQLite said, and what kind of refusal that is.

use super::Settings;
use crate::error::{Error, ErrorKind};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// A classified error of running a statement. What SQLite says is a code and a message, and both are in its fields: a source below
/// them could only repeat the one in words that fit every error of its class.
pub(super) fn classified(operation: &str, source: rusqlite::Error) -> Error {
    match &source {
        rusqlite::Error::SqliteFailure(code, message) => {
            let message = message.clone().unwrap_or_else(|| ffi::code_to_str(code.extended_code).to_owned());
            let mut error = Error::new(kind(*code), operation, message);
            error.native_code = Some(code.extended_code.to_string());
            error.hint = hint(*code);
            error
        }
        rusqlite::Error::SqlInputError { error: code, msg, sql, offset } => {
            let mut error = Error::new(ErrorKind::Syntax, operation, msg.clone());
            error.native_code = Some(code.extended_code.to_string());
            // SQLite counts bytes from 0, the seam characters from 1.
            let before = usize::try_from(*offset).ok().and_then(|offset| sql.get(..offset));
            error.position = before.and_then(|before| u32::try_from(before.chars().count() + 1).ok());
            error
        }
        rusqlite::Error::MultipleStatement => Error::new(ErrorKind::Syntax, operation, "there is more than one statement"),
        rusqlite::Error::NulError(_) => Error::new(ErrorKind::Syntax, operation, "the statement holds a NUL character"),
        other => {
            let mut error = Error::new(ErrorKind::Other, operation, other.to_string());
            error.source = Some(Box::new(source));
            error
        }
    }
}

fn kind(code: ffi::Error) -> ErrorKind {
    if code.extended_code == ffi::SQLITE_BUSY_SNAPSHOT {
        return ErrorKind::Serialization;
    }
    match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => ErrorKind::LockTimeout,
        ErrorCode::ConstraintViolation => ErrorKind::Constraint,
        ErrorCode::OperationInterrupted => ErrorKind::Cancelled,
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => ErrorKind::Permission,
        ErrorCode::DiskFull | ErrorCode::OutOfMemory => ErrorKind::Resources,
        ErrorCode::CannotOpen => ErrorKind::Unreachable,
        ErrorCode::NotADatabase => ErrorKind::Refused,
        ErrorCode::Unknown => ErrorKind::Syntax,
        ErrorCode::InternalMalfunction
        | ErrorCode::OperationAborted
        | ErrorCode::SystemIoFailure
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::NotFound
        | ErrorCode::SchemaChanged
        | ErrorCode::TooBig
        | ErrorCode::TypeMismatch
        | ErrorCode::ApiMisuse
        | ErrorCode::NoLargeFileSupport
        | ErrorCode::ParameterOutOfRange => ErrorKind::Other,
        _ => ErrorKind::Other,
    }
}

fn hint(code: ffi::Error) -> Option<String> {
    let hint = match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            "another program holds the database; raise `busy_timeout` or run again"
        }
        ErrorCode::DiskFull => "the disk is full: make room and run again",
        ErrorCode::DatabaseCorrupt => "the file is damaged: check it with `PRAGMA integrity_check`, restore it from a backup",
        ErrorCode::NotADatabase => "the file exists and is not an SQLite database: check the path",
        ErrorCode::ReadOnly => "check the file's and its folder's permissions, and the setting `mode`",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// An error of opening the database.
pub(super) fn opening(settings: &Settings, source: rusqlite::Error) -> Error {
    let operation = format!("connect to {} ({})", settings.id, settings.target());
    let mut error = classified(&operation, source);
    let Some(path) = &settings.path else { return error };
    if error.kind == ErrorKind::Unreachable {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            error.message = format!("the folder {} does not exist", folder.display());
            error.hint = Some("make the folder, or correct the database's path".to_owned());
        } else if path.is_dir() {
            error.message = format!("{} is a folder", path.display());
        } else if !path.exists() {
            error.message = format!("the file {} does not exist", path.display());
            error.hint = Some("correct the path, or set `mode` to `rwc` to make the file".to_owned());
        }
    }
    error
}

/// True when trying again may succeed: somebody else holds a lock, and it is not a stale snapshot of ours.
pub(super) fn is_busy(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(code, _) => {
            matches!(code.code, ErrorCode::DatabaseBusy) && code.extended_code != ffi::SQLITE_BUSY_SNAPSHOT
        }
        _ => false,
    }
}
