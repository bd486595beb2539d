//! Whether a store is whole: SQLite's own check of the file, and every run's log folded anew and compared with what lists show.
//!
//! It reads with a connection of its own, a run at a time, so that a service that goes on is neither held up nor seen half-way.

use super::assets::asset_difference;
use super::batch::Batch;
use super::reader::{Reader, instance_row};
use super::{Options, Place, fault, open};
use crate::log::from_microsecond;
use crate::projection::Projection;
use crate::{Error, ErrorKind, InstanceRow, Recorded, StatementRow};
use backstop_core::{Event, RunId};
use rusqlite::{Connection, Row, params};
use std::path::Path;

/// Differences that are kept; more are only counted.
pub const DIFFERENCES_MAX: usize = 1000;
/// Complaints of SQLite that are asked for.
const COMPLAINTS_MAX: u32 = 100;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Runs that were folded.
    pub runs: u64,
    /// Their events.
    pub events: u64,
    /// What is wrong, at most [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
    /// How much is wrong.
    pub differences_total: u64,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The run, where it is of one.
    pub run: Option<RunId>,
    /// What.
    pub what: String,
    /// What can be done about it.
    pub remedy: Remedy,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The log is whole: [`repair`] makes the rest of it anew.
    Rebuild,
    /// What is lost is lost: only a backup has it.
    Restore,
}

impl Checked {
    /// True when nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.differences_total == 0
    }

    fn add(&mut self, run: Option<&RunId>, remedy: Remedy, what: impl Into<String>) {
        self.differences_total += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference { run: run.cloned(), what: what.into(), remedy });
        }
    }
}

/// Checks a store. Blocks, for as long as reading all of it takes. `told` is called now and then with how many runs were read.
///
/// # Errors
/// When it is no store, or so damaged that it cannot be opened. What can be read around is a difference, not an error.
pub fn check(path: &Path, mut told: impl FnMut(u64)) -> Result<Checked, Error> {
    let options = Options::default();
    let connection = open::open_reader(path, &options)?;
    let place = Place::new(path);
    let reader = Reader { connection: &connection, place: &place };
    let mut checked = Checked::default();
    check_file(&reader, &mut checked);
    let mut after = 0;
    loop {
        match next_run(&connection, after) {
            Ok(Some(kept)) => {
                after = kept.id;
                check_run(&reader, &kept, &mut checked)?;
            }
            Ok(None) => break,
            Err(cause) => {
                // Behind a damaged page of this table nothing is found.
                let error = reader.failed(cause);
                checked.add(None, Remedy::Restore, format!("the table of runs cannot be read behind row {after}: {error}"));
                break;
            }
        }
        if checked.runs.is_multiple_of(1000) {
            told(checked.runs);
        }
    }
    check_orphans(&reader, &mut checked);
    Ok(checked)
}

/// What SQLite says of pages and indices.
fn check_file(reader: &Reader<'_>, checked: &mut Checked) {
    let sql = format!("PRAGMA integrity_check({COMPLAINTS_MAX})");
    match reader.rows(&sql, &[], |row| row.get::<_, String>(0)) {
        Ok(said) => {
            for complaint in said.into_iter().filter(|said| said != "ok") {
                // An index can be made anew from its table.
                let of_index = complaint.contains(" index ");
                let remedy = if of_index { Remedy::Rebuild } else { Remedy::Restore };
                checked.add(None, remedy, format!("SQLite says: {complaint}"));
            }
        }
        Err(error) => checked.add(None, Remedy::Restore, error.message),
    }
}

/// A run's row, as it is.
#[derive(Debug)]
struct Kept {
    id: i64,
    run: RunId,
    dag: String,
    version: i64,
    state: String,
    is_cancel_requested: bool,
    started_at: Option<i64>,
    ended_at: Option<i64>,
    callbacks_pending: i64,
    logical_date: Option<i64>,
    definition: Option<String>,
}

const KEPT: &str = "SELECT id, run_id, dag_id, version, state, is_cancel_requested, started_at, ended_at, callbacks_pending, \
                    logical_date, definition FROM runs";

fn kept(row: &Row<'_>) -> rusqlite::Result<Kept> {
    Ok(Kept {
        id: row.get(0)?,
        run: RunId::new(row.get::<_, String>(1)?),
        dag: row.get(2)?,
        version: row.get(3)?,
        state: row.get(4)?,
        is_cancel_requested: row.get(5)?,
        started_at: row.get(6)?,
        ended_at: row.get(7)?,
        callbacks_pending: row.get(8)?,
        logical_date: row.get(9)?,
        definition: row.get(10)?,
    })
}

fn next_run(connection: &Connection, after: i64) -> rusqlite::Result<Option<Kept>> {
    let mut statement = connection.prepare_cached(&format!("{KEPT} WHERE id > ?1 ORDER BY id LIMIT 1"))?;
    let mut rows = statement.query_map([after], kept)?;
    rows.next().transpose()
}

/// One run, as it was at one moment.
fn check_run(reader: &Reader<'_>, kept: &Kept, checked: &mut Checked) -> Result<(), Error> {
    reader.connection.execute_batch("BEGIN").map_err(|cause| reader.failed(cause))?;
    let found = compare(reader, kept.id, checked);
    let ended = reader.connection.execute_batch("COMMIT").map_err(|cause| reader.failed(cause));
    if let Err(error) = found {
        let cause = error.source.as_ref().map_or_else(String::new, |cause| format!(" ({cause})"));
        checked.add(Some(&kept.run), Remedy::Restore, format!("{}{cause}", error.message));
    }
    ended
}

fn compare(reader: &Reader<'_>, id: i64, checked: &mut Checked) -> Result<(), Error> {
    // Once more, within the transaction.
    let mut rows = reader.rows(&format!("{KEPT} WHERE id = ?1"), params![id], kept)?;
    let Some(kept) = rows.pop() else { return Ok(()) };
    checked.runs += 1;
    let events = reader.events(&kept.run, 0, usize::MAX)?;
    checked.events += events.len() as u64;
    let run = Some(&kept.run);
    if let Some(what) = broken_log(&kept, &events) {
        checked.add(run, Remedy::Restore, what);
        return Ok(());
    }
    let mut folded = Projection::new();
    events.iter().for_each(|recorded| folded.apply(recorded));
    for what in row_differences(&kept, &events, &folded) {
        checked.add(run, Remedy::Rebuild, what);
    }
    let instances = reader.rows(
        "SELECT task, map_index, state, try_number, started_at, ended_at, error FROM instances \
         WHERE run = ?1 ORDER BY first_seq, task, map_index",
        params![id],
        instance_row,
    )?;
    if let Some(what) = instance_difference(&instances, &folded.instances()) {
        checked.add(run, Remedy::Rebuild, what);
    }
    let statements = reader.statements(&kept.run, None)?;
    if let Some(what) = statement_difference(&statements, &folded.statements) {
        checked.add(run, Remedy::Rebuild, what);
    }
    if let Some(what) = asset_difference(reader, &kept.run, id, &events)? {
        checked.add(run, Remedy::Rebuild, what);
    }
    Ok(())
}

/// What is wrong with a log that nothing can be folded from.
fn broken_log(kept: &Kept, events: &[Recorded]) -> Option<String> {
    let gap = (1..).zip(events).find(|(place, recorded)| *place != recorded.seq);
    if let Some((place, recorded)) = gap {
        return Some(format!("its log has a gap: event {place} is missing before event {}", recorded.seq));
    }
    match events.first().map(|recorded| &recorded.event) {
        None => return Some("it has no log".to_owned()),
        Some(Event::RunCreated(header)) if header.run_id != kept.run => {
            return Some(format!("its log is that of run {}", header.run_id));
        }
        Some(Event::RunCreated(_)) => {}
        Some(_) => return Some("its log does not begin with its creation".to_owned()),
    }
    let told = usize::try_from(kept.version).unwrap_or(0);
    (events.len() < told).then(|| format!("its log has {} events, and it had {told}: the end is missing", events.len()))
}

fn row_differences(kept: &Kept, events: &[Recorded], folded: &Projection) -> Vec<String> {
    let fold = &folded.run;
    let mut found = Vec::new();
    let mut same = |what: &str, shown: String, log: String| {
        if shown != log {
            found.push(format!("lists show {what} {shown}, its log says {log}"));
        }
    };
    let micros = |at: Option<jiff::Timestamp>| at.map(jiff::Timestamp::as_microsecond);
    let time = |at: Option<i64>| at.map_or_else(|| "none".to_owned(), |at| from_microsecond(at).to_string());
    same("state", kept.state.clone(), fold.phase.as_str().to_owned());
    same("start", time(kept.started_at), time(micros(fold.started_at)));
    same("end", time(kept.ended_at), time(micros(fold.ended_at)));
    same("callbacks to come", kept.callbacks_pending.to_string(), fold.callbacks_pending.to_string());
    same("a wish to cancel", kept.is_cancel_requested.to_string(), fold.is_cancel_requested.to_string());
    same("number of events", kept.version.to_string(), events.len().to_string());
    if let Some(Event::RunCreated(header)) = events.first().map(|recorded| &recorded.event) {
        same("DAG", kept.dag.clone(), header.dag_id.to_string());
        same("logical date", time(kept.logical_date), time(micros(header.logical_date)));
        let pinned = fold.pinned.as_ref().unwrap_or(&header.version);
        same("version", kept.definition.clone().unwrap_or_default(), pinned.clone());
    }
    found
}

fn instance_difference(shown: &[InstanceRow], log: &[InstanceRow]) -> Option<String> {
    if shown == log {
        return None;
    }
    for row in log {
        match shown.iter().find(|other| other.instance == row.instance) {
            None => return Some(format!("lists do not show task instance {}, which its log has", row.instance)),
            Some(other) if other.state != row.state => {
                return Some(format!("lists show {} as {}, its log says {}", row.instance, other.state, row.state));
            }
            // Rows of an earlier time tell of the last look of a sensor, not of its first.
            Some(other) if is_later_look(other, row) => {}
            Some(other) if other != row => {
                return Some(format!("lists show another try, time or error of {} than its log", row.instance));
            }
            Some(_) => {}
        }
    }
    let extra = shown.iter().find(|row| !log.iter().any(|other| other.instance == row.instance));
    Some(match extra {
        Some(row) => format!("lists show task instance {}, which its log does not have", row.instance),
        None if shown.iter().zip(log).all(|(shown, log)| shown.instance == log.instance) => return None,
        None => "lists show its task instances in another order than its log".to_owned(),
    })
}

/// Whether a row differs from the log's in nothing but a later start of the same try.
fn is_later_look(shown: &InstanceRow, log: &InstanceRow) -> bool {
    let is_within = |start| shown.ended_at.is_none_or(|end| start <= end);
    shown.started_at > log.started_at
        && shown.started_at.is_some_and(is_within)
        && *shown == InstanceRow { started_at: shown.started_at, ..log.clone() }
}

fn statement_difference(shown: &[StatementRow], log: &[StatementRow]) -> Option<String> {
    if shown == log {
        return None;
    }
    if shown.len() != log.len() {
        return Some(format!("lists show {} statements, its log has {}", shown.len(), log.len()));
    }
    let differs = shown.iter().zip(log).find(|(shown, log)| shown != log);
    differs.map(|(_, row)| format!("lists show statement {} of {} otherwise than its log", row.record.number, row.instance))
}

/// Rows of runs that are not there. Those of runs that are being removed are on their way out.
fn check_orphans(reader: &Reader<'_>, checked: &mut Checked) {
    for table in ["events", "instances", "statements", "samples", "asset_updates"] {
        // From run to run by the key, so that the rows of one are not all read.
        let sql = format!(
            "WITH RECURSIVE of (run) AS (SELECT min(run) FROM {table} UNION ALL \
             SELECT (SELECT min(run) FROM {table} WHERE run > of.run) FROM of WHERE of.run IS NOT NULL) \
             SELECT run FROM of WHERE run IS NOT NULL AND run NOT IN (SELECT id FROM runs) \
             AND run NOT IN (SELECT run FROM removals) LIMIT {COMPLAINTS_MAX}"
        );
        match reader.rows(&sql, &[], |row| row.get::<_, i64>(0)) {
            Ok(found) => {
                for run in found {
                    checked.add(
                        None,
                        Remedy::Restore,
                        format!("the table of {table} has rows of run number {run}, which is not there"),
                    );
                }
            }
            Err(error) => checked.add(None, Remedy::Restore, error.message),
        }
    }
}

/// Makes everything that lists show of these runs anew from their logs, and all indices. A run whose log is broken is left as it is.
/// Returns how many runs were made anew. Blocks.
///
/// # Errors
/// When the store cannot be written.
pub fn repair(path: &Path, runs: &[RunId]) -> Result<u64, Error> {
    let options = Options::default();
    let connection = open::open_writer(path, &options)?;
    let place = Place::new(path);
    let failed = |cause| fault::from_sqlite("repair the store", path, cause);
    let mut repaired = 0;
    for run in runs {
        // The write lock first, so that no event is added between reading the log and writing what follows from it.
        connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
        match rebuild(&connection, &place, &options, run) {
            Ok(true) => {
                connection.execute_batch("COMMIT").map_err(failed)?;
                repaired += 1;
            }
            Ok(false) => connection.execute_batch("ROLLBACK").map_err(failed)?,
            Err(error) => {
                connection.execute_batch("ROLLBACK").map_err(failed)?;
                if !matches!(error.kind, ErrorKind::Corrupt | ErrorKind::TooNew) {
                    return Err(error);
                }
            }
        }
    }
    connection.execute_batch("REINDEX").map_err(failed)?;
    Ok(repaired)
}

/// False when the log is broken.
fn rebuild(connection: &Connection, place: &Place, options: &Options, run: &RunId) -> Result<bool, Error> {
    let reader = Reader { connection, place };
    let Some(kept) = reader.rows(&format!("{KEPT} WHERE run_id = ?1"), params![run.as_str()], kept)?.pop() else {
        return Ok(false);
    };
    let events = reader.events(run, 0, usize::MAX)?;
    if broken_log(&kept, &events).is_some() {
        return Ok(false);
    }
    let mut buffer = Vec::new();
    Batch::new(connection, place, options, &mut buffer).rebuild(run, kept.id, &events)?;
    Ok(true)
}
