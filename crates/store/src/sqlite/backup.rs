//! A copy of a store while it is in use, and how large a store is.

use super::check::{Checked, check};
use super::{Options, fault, open};
use crate::{Error, ErrorKind};
use std::fs::File;
use std::path::{Path, PathBuf};

/// A copy that was made.
#[derive(Clone, Debug)]
pub struct BackedUp {
    /// How large it is.
    pub bytes: u64,
    /// What its check found: a copy of a damaged store is as damaged.
    pub checked: Checked,
}

/// Writes a copy of a store to a file that is not there yet, as the store is at one moment, without its free pages. Nobody who writes to
/// the store is held up. The copy is checked as [`check`] does, and is in its place only when it is whole on the disk. Blocks.
///
/// # Errors
/// When the store cannot be read, the file is there or cannot be written.
pub fn back_up(path: &Path, to: &Path) -> Result<BackedUp, Error> {
    refuse_existing(to)?;
    let connection = open::open_reader(path, &Options::default())?;
    let unfinished = unfinished(to);
    let operation = format!("back up the store {} to", path.display());
    let failed = |cause| fault::from_sqlite(&operation, to, cause);
    let made = || -> Result<BackedUp, Error> {
        let io = |cause| fault::from_io(&format!("{operation} {}", to.display()), to, cause);
        open::own_file(&unfinished).map_err(io)?;
        // It keeps SQLite from writing to the store. The copy is another file, and the connection was opened for reading only.
        connection.pragma_update(None, "query_only", false).map_err(failed)?;
        connection.execute("VACUUM INTO ?1", [unfinished.to_string_lossy()]).map_err(failed)?;
        let file = File::open(&unfinished).map_err(io)?;
        file.sync_all().map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        drop(file);
        let checked = check(&unfinished, |_| {})?;
        put_in_place(&unfinished, to)?;
        Ok(BackedUp { bytes, checked })
    };
    let result = made();
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = unfinished.clone().into_os_string();
        name.push(end);
        // Moved to its place, or never made.
        drop(std::fs::remove_file(name));
    }
    result
}

fn refuse_existing(to: &Path) -> Result<(), Error> {
    if to.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Open, format!("back up to {}: there is something already, and it is not replaced", to.display()))
        .hint("name a file that is not there yet, such as one with the date in its name"))
}

/// In the same folder, with the process in its name: two backups at once do not meet.
fn unfinished(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(format!(".{}.unfinished", std::process::id()));
    PathBuf::from(name)
}

/// A link, because a rename would replace what somebody has put there meanwhile.
fn put_in_place(unfinished: &Path, to: &Path) -> Result<(), Error> {
    match std::fs::hard_link(unfinished, to) {
        Ok(()) => {}
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => return refuse_existing(to),
        // A file system without links.
        Err(_) => {
            refuse_existing(to)?;
            std::fs::rename(unfinished, to)
                .map_err(|cause| fault::from_io(&format!("put the backup {} in its place", to.display()), to, cause))?;
        }
    }
    open::sync_folder_of(to);
    Ok(())
}

/// How large a store is, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// The version of its tables.
    pub schema: i64,
    /// Of the file.
    pub file_bytes: u64,
    /// Of the log beside it: what is not in the file yet.
    pub log_bytes: u64,
    /// In the file, and used again before it grows.
    pub free_bytes: u64,
    /// Runs by state.
    pub runs: Vec<(String, u64)>,
    /// Events of all runs.
    pub events: u64,
    /// Task instances of all runs.
    pub instances: u64,
    /// Statements of all runs.
    pub statements: u64,
    /// Versions of DAGs.
    pub versions: u64,
}

/// Measures a store. Counts its rows, which takes a moment for each million.
///
/// # Errors
/// When it cannot be read.
pub fn size(path: &Path) -> Result<Size, Error> {
    let connection = open::open_reader(path, &Options::default())?;
    let failed = |cause| fault::from_sqlite("measure the store", path, cause);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).map_err(failed);
    let page_bytes = number("PRAGMA page_size")?;
    let runs = connection
        .prepare("SELECT state, count(*) FROM runs INDEXED BY runs_in_state GROUP BY state")
        .and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?.collect()
        })
        .map_err(failed)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    Ok(Size {
        schema: open::schema_version(&connection).map_err(failed)?,
        file_bytes: bytes(path),
        log_bytes: bytes(Path::new(&log)),
        free_bytes: number("PRAGMA freelist_count")? * page_bytes,
        runs,
        events: number("SELECT count(*) FROM events")?,
        instances: number("SELECT count(*) FROM instances")?,
        statements: number("SELECT count(*) FROM statements")?,
        versions: number("SELECT count(*) FROM versions")?,
    })
}
