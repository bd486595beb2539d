//! Opening a store's file: what it must be before anything is read from it or written to it.

use super::{Options, fault};
use crate::lock::{OWN_FILE, OWN_FOLDER};
use crate::{Error, ErrorKind};
use refinery::{Migration, Runner};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Marks a file as a Backstop store ("BSTO"), so that a user's own SQLite database is never taken for one and changed.
const APPLICATION_ID: i32 = 0x4253_544F;

/// All migrations, oldest first. A published one never changes.
const MIGRATIONS: [(&str, &str); 8] = [
    ("V1__initial", include_str!("../../migrations/V1__initial.sql")),
    ("V2__pending_callbacks", include_str!("../../migrations/V2__pending_callbacks.sql")),
    ("V3__entries", include_str!("../../migrations/V3__entries.sql")),
    ("V4__lists", include_str!("../../migrations/V4__lists.sql")),
    ("V5__removals", include_str!("../../migrations/V5__removals.sql")),
    ("V6__samples", include_str!("../../migrations/V6__samples.sql")),
    ("V7__asset_updates", include_str!("../../migrations/V7__asset_updates.sql")),
    ("V8__open_statements", include_str!("../../migrations/V8__open_statements.sql")),
];

/// The newest schema this build knows.
const SCHEMA_VERSION: i64 = MIGRATIONS.len() as i64;

/// The folder of lock files beside the store's file. It is named after the file, whichever way leads there: two stores in one folder do not
/// lock each other, and whoever comes by a symbolic link finds the locks of the others.
pub(super) fn locks_folder(path: &Path) -> PathBuf {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| in_real_folder(path));
    let mut name = real.file_name().unwrap_or_default().to_owned();
    name.push(".locks");
    real.with_file_name(name)
}

/// Of a file that is not there yet.
fn in_real_folder(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    folder.join(path.file_name().unwrap_or_default())
}

/// Opens the connection of the writer; makes the file, its folder and its tables where they are missing.
pub(super) fn open_writer(path: &Path, options: &Options) -> Result<Connection, Error> {
    refuse_folder(path)?;
    make_folder(path)?;
    let locks = locks_folder(path);
    make_one_folder(&locks).map_err(|cause| fault::from_io(&format!("create the folder {}", locks.display()), &locks, cause))?;
    // Held while the file is made ready: two processes that start together must not both create the tables. The wait is bounded by the
    // work of whoever has it, and the kernel frees it when that process ends.
    let _alone = lock_opening(path, &locks)?;
    if path.symlink_metadata().is_err() {
        create(path, options)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection =
        Connection::open_with_flags(path, flags).map_err(|cause| fault::from_sqlite("open the store", path, cause))?;
    let failed = |cause| fault::from_sqlite("open the store", path, cause);
    connection.busy_timeout(options.busy_timeout).map_err(failed)?;
    // SQLite opens a file that it may not write for reading, without a word.
    if connection.is_readonly("main").map_err(failed)? {
        return Err(read_only(path));
    }
    claim(&connection, path, options)?;
    configure_writer(&connection, options).map_err(failed)?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

/// Makes a new store beside its place, without syncing each step, and moves it there whole. Step by step in its place it would take a
/// dozen syncs, which a short run feels.
fn create(path: &Path, options: &Options) -> Result<(), Error> {
    let unfinished = beside(path, ".new");
    let remove = || ["", "-journal", "-wal", "-shm"].iter().for_each(|end| drop(std::fs::remove_file(beside(&unfinished, end))));
    // Left by a process that was killed here.
    remove();
    let made = fill_new(&unfinished, path, options).and_then(|()| {
        move_durably(&unfinished, path)
            .map_err(|cause| fault::from_io(&format!("create the store {}", path.display()), path, cause))
    });
    if made.is_err() {
        remove();
    }
    made
}

fn fill_new(unfinished: &Path, path: &Path, options: &Options) -> Result<(), Error> {
    let failed = |cause| fault::from_sqlite("create the store", path, cause);
    own_file(unfinished).map_err(|cause| fault::from_io(&format!("create the store {}", path.display()), path, cause))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(unfinished, flags).map_err(failed)?;
    connection.pragma_update(None, "synchronous", "OFF").map_err(failed)?;
    connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(())).map_err(failed)?;
    claim(&connection, path, options)?;
    migrate(&mut connection, path)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(failed)?;
    connection.close().map_err(|(_, cause)| failed(cause))
}

/// An empty file for its owner alone. SQLite gives the files beside it the same permissions.
pub(super) fn own_file(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(OWN_FILE).open(path).map(drop)
}

fn move_durably(from: &Path, to: &Path) -> std::io::Result<()> {
    // No connection is open on the file: closing it here drops nobody's locks.
    File::open(from)?.sync_all()?;
    std::fs::rename(from, to)?;
    sync_folder_of(to);
    Ok(())
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// So that a new name survives a power failure as surely as what is acknowledged behind it; where folders cannot be synced, it does.
pub(super) fn sync_folder_of(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(folder) = File::open(folder) {
        drop(folder.sync_all());
    }
}

/// Opens a connection that only reads. The file must be there and be ready.
pub(super) fn open_reader(path: &Path, options: &Options) -> Result<Connection, Error> {
    refuse_folder(path)?;
    if !path.exists() {
        return Err(Error::new(ErrorKind::Open, format!("open the store {}: there is no such file", path.display()))
            .hint("nothing has run here yet, or the store is elsewhere: name it with --store"));
    }
    let failed = |cause| fault::from_sqlite("open the store", path, cause);
    let connection = match connect_reader(path, options) {
        Err(cause) if is_cannot_open(&cause) && !has_write_ahead_log(path) => connect_immutable(path, options).map_err(failed)?,
        other => other.map_err(failed)?,
    };
    match identify(&connection).map_err(failed)? {
        Identity::Store => {}
        Identity::Empty | Identity::Foreign => return Err(foreign(path)),
    }
    let schema = schema_version(&connection).map_err(failed)?;
    refuse_newer_schema(schema, path)?;
    if schema < SCHEMA_VERSION {
        return Err(Error::new(
            ErrorKind::Open,
            format!("open the store {}: its schema is {schema}, and reading wants {SCHEMA_VERSION}", path.display()),
        )
        .hint("run any `backstop` command that writes, once: it brings the store up to date"));
    }
    Ok(connection)
}

fn connect_reader(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(options.busy_timeout)?;
    // Touches the file and its log: a connection that can do that can do the rest.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    configure_reader(&connection)?;
    Ok(connection)
}

/// For a store on a medium that cannot be written: reading wants a file of shared memory beside the store, which cannot be made there.
/// Only right when nobody else writes, which is so: nobody can, and there is no log that would have to be read.
fn connect_immutable(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut address = String::from("file:");
    for byte in absolute.to_string_lossy().bytes() {
        use std::fmt::Write as _;
        match byte {
            b'/' | b'.' | b'-' | b'_' => address.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => address.push(char::from(byte)),
            _ => write!(address, "%{byte:02X}").expect("writing to a String does not fail"),
        }
    }
    address.push_str("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(address, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    configure_reader(&connection)?;
    Ok(connection)
}

fn is_cannot_open(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(rusqlite::ErrorCode::CannotOpen | rusqlite::ErrorCode::ReadOnly))
}

fn has_write_ahead_log(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn configure_writer(connection: &Connection, options: &Options) -> rusqlite::Result<()> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    // FULL syncs the log at every commit: without it a commit could be lost to a power failure after it was acknowledged.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Does something on macOS only, where a plain fsync does not reach the disk.
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "wal_autocheckpoint", options.checkpoint_pages)?;
    connection.pragma_update(None, "journal_size_limit", i64::from(options.checkpoint_pages) * 4096 * 4)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // A run that is removed goes before its rows do, see `prune`. Nobody but this crate writes here, and `check` finds rows without a run.
    connection.pragma_update(None, "foreign_keys", false)?;
    keep_plans(connection)?;
    connection.set_prepared_statement_cache_capacity(48);
    Ok(())
}

fn configure_reader(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -2048)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    keep_plans(connection)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// A statement's plan does not depend on the values it is given: otherwise SQLite parses it anew for each list that is asked for.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// What a SQLite file is to us.
enum Identity {
    Store,
    Empty,
    Foreign,
}

fn identify(connection: &Connection) -> rusqlite::Result<Identity> {
    let application_id: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application_id == APPLICATION_ID {
        return Ok(Identity::Store);
    }
    let things: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(if things == 0 && application_id == 0 { Identity::Empty } else { Identity::Foreign })
}

/// Marks an empty file as ours before anything else is written to it; one that was only marked can be opened again.
fn claim(connection: &Connection, path: &Path, options: &Options) -> Result<(), Error> {
    let failed = |cause| fault::from_sqlite("open the store", path, cause);
    match identify(connection).map_err(failed)? {
        Identity::Store => Ok(()),
        Identity::Foreign => Err(foreign(path)),
        Identity::Empty => {
            connection.pragma_update(None, "page_size", options.page_bytes).map_err(failed)?;
            connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)
        }
    }
}

fn foreign(path: &Path) -> Error {
    Error::new(ErrorKind::Open, format!("open the store {}: it is an SQLite database, but not a Backstop store", path.display()))
        .hint("name the store's own file with --store: Backstop does not put its tables into other databases")
}

fn read_only(path: &Path) -> Error {
    Error::new(ErrorKind::ReadOnly, format!("open the store {}: this user may not write the file", path.display()))
        .hint("give this user the right to write the store's file and folder, or name another store with --store")
}

fn refuse_folder(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Err(Error::new(ErrorKind::Open, format!("open the store {}: it is a folder, not a file", path.display()))
            .hint("name a file in it, such as `store.db`"));
    }
    Ok(())
}

/// Makes the folder of the store, not those above it: a mistyped path should not grow a tree.
fn make_folder(path: &Path) -> Result<(), Error> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    make_one_folder(folder).map_err(|cause| {
        fault::from_io(&format!("open the store {}: create its folder {}", path.display(), folder.display()), folder, cause)
    })
}

fn make_one_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    match DirBuilder::new().mode(OWN_FOLDER).create(folder) {
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => return Ok(()),
        other => other?,
    }
    sync_folder_of(folder);
    Ok(())
}

fn lock_opening(path: &Path, locks: &Path) -> Result<File, Error> {
    let lock_path = locks.join("opening");
    let failed = |cause| fault::from_io(&format!("open the store {}: lock {}", path.display(), lock_path.display()), path, cause);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(OWN_FILE).open(&lock_path).map_err(failed)?;
    file.lock().map_err(failed)?;
    Ok(file)
}

/// 0 when nothing was migrated yet.
pub(super) fn schema_version(connection: &Connection) -> rusqlite::Result<i64> {
    let history = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'refinery_schema_history'";
    if connection.query_row(history, [], |_| Ok(())).optional()?.is_none() {
        return Ok(0);
    }
    connection.query_row("SELECT coalesce(max(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

fn refuse_newer_schema(found: i64, path: &Path) -> Result<(), Error> {
    if found <= SCHEMA_VERSION {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::TooNew,
        format!(
            "open the store {}: its schema is {found}, and this Backstop knows schemas up to {SCHEMA_VERSION}",
            path.display()
        ),
    )
    .hint("a newer Backstop wrote it: use that one, or name another store with --store"))
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let found = schema_version(connection).map_err(|cause| fault::from_sqlite("open the store", path, cause))?;
    refuse_newer_schema(found, path)?;
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql).expect("the names of our own migrations are well formed"))
        .collect::<Vec<_>>();
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    // Grouped: a migration and the note that it was done are one transaction.
    let done = Runner::new(&migrations).set_grouped(true).run(connection);
    connection.set_transaction_behavior(TransactionBehavior::Deferred);
    done.map(drop).map_err(|cause| migration_failed(path, cause))
}

fn migration_failed(path: &Path, cause: refinery::Error) -> Error {
    use refinery::error::Kind;
    match cause.kind() {
        Kind::Connection(_, inner) => match inner.downcast_ref::<rusqlite::Error>() {
            Some(rusqlite::Error::SqliteFailure(code, text)) => {
                fault::from_sqlite("create the tables of the store", path, rusqlite::Error::SqliteFailure(*code, text.clone()))
            }
            Some(_) | None => migration_unclear(path, cause),
        },
        Kind::DivergentVersion(..) | Kind::MissingVersion(_) => Error::new(
            ErrorKind::Corrupt,
            format!("open the store {}: its tables were made by other migrations than this Backstop's", path.display()),
        )
        .hint("use the Backstop that made the store, or name another store with --store")
        .caused_by(cause),
        _ => migration_unclear(path, cause),
    }
}

fn migration_unclear(path: &Path, cause: refinery::Error) -> Error {
    Error::new(ErrorKind::Other, format!("create the tables of the store {}", path.display())).caused_by(cause)
}
