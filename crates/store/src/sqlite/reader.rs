//! Reading: a few connections of their own, used on blocking threads. They see whatever is committed, and never wait for the writer.

use super::batch::unsigned;
use super::{Options, Place, fault, open};
use crate::log::from_microsecond;
use crate::view::FOUND_RUNS_MAX;
use crate::{ACTS_MAX, Act, ActRow, Error, ErrorKind, InstanceRow, Recorded, RunRow, StatementRow, Version, stored};
use backstop_core::event::StatementRecord;
use backstop_core::{DagId, Event, InstanceId, RunId, TaskId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// How many reads go on at once; the others wait for their turn.
const READERS_MAX: usize = 4;

pub(super) struct Readers {
    place: Arc<Place>,
    options: Options,
    /// Open and unused. Never more than `READERS_MAX`, as only who has a turn has a connection.
    idle: Mutex<Vec<Connection>>,
    turns: Semaphore,
}

impl Readers {
    pub(super) fn new(place: Arc<Place>, options: Options, first: Connection) -> Self {
        Self { place, options, idle: Mutex::new(vec![first]), turns: Semaphore::new(READERS_MAX) }
    }

    /// Runs `work` with a connection, on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Reader<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| self.interrupted())?;
        let readers = self.clone();
        tokio::task::spawn_blocking(move || {
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let connection = match idle {
                Some(connection) => connection,
                None => open::open_reader(&readers.place.path, &readers.options)?,
            };
            let result = work(&Reader { connection: &connection, place: &readers.place });
            readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            result
        })
        .await
        .unwrap_or_else(|_| Err(self.interrupted()))
    }

    /// Closes the connections that nobody uses.
    pub(super) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn interrupted(&self) -> Error {
        Error::new(ErrorKind::Other, format!("read the store {}: the read was interrupted", self.place.name))
    }
}

/// One connection, for one read.
pub(super) struct Reader<'c> {
    pub(super) connection: &'c Connection,
    pub(super) place: &'c Place,
}

/// The join is in this order: the header of each run that is found is looked up.
pub(super) const RUN_COLUMNS: &str = "SELECT r.state, r.started_at, r.ended_at, r.version, r.epoch, e.body, r.run_id, r.callbacks_pending, \
                           r.definition \
                           FROM runs r CROSS JOIN events e ON e.run = r.id AND e.seq = 1";

/// What [`statement_row`] reads, and behind it where the statement stands in the log.
pub(super) const STATEMENT_COLUMNS: &str = "SELECT task, map_index, try_number, segment, number, line, summary, duration_us, \
                                 rows_affected, rows_returned, notices, seq, place FROM statements";

impl Reader<'_> {
    pub(super) fn events(&self, run: &RunId, after_seq: u64, limit: usize) -> Result<Vec<Recorded>, Error> {
        let sql = "SELECT seq, at, body FROM events WHERE run = (SELECT id FROM runs WHERE run_id = ?1) AND seq > ?2 \
                   ORDER BY seq LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql).map_err(|cause| self.failed(cause))?;
        let after_seq = i64::try_from(after_seq).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![run.as_str(), after_seq, limit]).map_err(|cause| self.failed(cause))?;
        let mut events = Vec::new();
        while let Some(row) = rows.next().map_err(|cause| self.failed(cause))? {
            let seq = unsigned(row, 0).map_err(|cause| self.failed(cause))?;
            let at = from_microsecond(row.get(1).map_err(|cause| self.failed(cause))?);
            let event = self.event(row, 2, run, seq)?;
            events.push(Recorded { seq, at, event });
        }
        Ok(events)
    }

    pub(super) fn run(&self, run: &RunId) -> Result<Option<RunRow>, Error> {
        let sql = format!("{RUN_COLUMNS} WHERE r.run_id = ?1");
        Ok(self.run_rows(&sql, params![run.as_str()])?.pop())
    }

    pub(super) fn run_rows(&self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Vec<RunRow>, Error> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|cause| self.failed(cause))?;
        let mut rows = statement.query(params).map_err(|cause| self.failed(cause))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(|cause| self.failed(cause))? {
            found.push(self.run_row(row)?);
        }
        Ok(found)
    }

    fn run_row(&self, row: &Row<'_>) -> Result<RunRow, Error> {
        let id: String = row.get(6).map_err(|cause| self.failed(cause))?;
        let run = RunId::new(id);
        // The header is in the log, and only there; which version the run goes on with may be told behind it.
        let Event::RunCreated(mut header) = self.event(row, 5, &run, 1)? else {
            let message = format!("read the store {}: the first event of run {run} is not RunCreated", self.place.name);
            return Err(Error::new(ErrorKind::Corrupt, message));
        };
        let pinned: Option<String> = row.get(8).map_err(|cause| self.failed(cause))?;
        if let Some(pinned) = pinned.filter(|pinned| *pinned != header.version) {
            Arc::make_mut(&mut header).version = pinned;
        }
        let plain = || -> rusqlite::Result<RunRow> {
            Ok(RunRow {
                header,
                state: row.get(0)?,
                started_at: row.get::<_, Option<i64>>(1)?.map(from_microsecond),
                ended_at: row.get::<_, Option<i64>>(2)?.map(from_microsecond),
                callbacks_pending: unsigned(row, 7)?,
                version: unsigned(row, 3)?,
                epoch: unsigned(row, 4)?,
            })
        };
        plain().map_err(|cause| self.failed(cause))
    }

    pub(super) fn find_runs(&self, prefix: &str) -> Result<Vec<RunId>, Error> {
        // As far as the last character that there is: a range, so that the index is used.
        let sql = "SELECT run_id FROM runs WHERE run_id >= ?1 AND run_id < ?1 || char(1114111) ORDER BY id DESC LIMIT ?2";
        self.rows(sql, params![prefix, FOUND_RUNS_MAX as i64], |row| Ok(RunId::new(row.get::<_, String>(0)?)))
    }

    pub(super) fn instances(&self, run: &RunId) -> Result<Vec<InstanceRow>, Error> {
        let sql = "SELECT task, map_index, state, try_number, started_at, ended_at, error FROM instances \
                   WHERE run = (SELECT id FROM runs WHERE run_id = ?1) ORDER BY first_seq, task, map_index";
        self.rows(sql, params![run.as_str()], instance_row)
    }

    pub(super) fn statements(&self, run: &RunId, task: Option<&str>) -> Result<Vec<StatementRow>, Error> {
        let sql = format!(
            "{STATEMENT_COLUMNS} WHERE run = (SELECT id FROM runs WHERE run_id = ?1) AND (?2 IS NULL OR task = ?2) ORDER BY seq, place"
        );
        self.rows(&sql, params![run.as_str(), task], statement_row)
    }

    pub(super) fn version(&self, digest: &str) -> Result<Option<Version>, Error> {
        let sql = "SELECT digest, dag_id, bundle FROM versions WHERE digest = ?1";
        let mut found = self.rows(sql, params![digest], |row| {
            Ok(Version { digest: row.get(0)?, dag_id: DagId::new(row.get::<_, String>(1)?), bundle: row.get(2)? })
        })?;
        Ok(found.pop())
    }

    pub(super) fn entries(&self, kind: &str) -> Result<Vec<(String, String)>, Error> {
        self.rows("SELECT key, body FROM entries WHERE kind = ?1 ORDER BY key", params![kind], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    }

    pub(super) fn acts(&self, before: Option<u64>, limit: u32) -> Result<Vec<ActRow>, Error> {
        let before = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let sql = "SELECT seq, at, who, why, what FROM acts WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2";
        self.rows(sql, params![before, limit.min(ACTS_MAX)], |row| {
            let act = Act { at: from_microsecond(row.get(1)?), who: row.get(2)?, why: row.get(3)?, what: row.get(4)? };
            Ok(ActRow { seq: row.get::<_, i64>(0)?.unsigned_abs(), act })
        })
    }

    pub(super) fn run_key(&self, run: &RunId) -> Result<Option<i64>, Error> {
        self.connection
            .prepare_cached("SELECT id FROM runs WHERE run_id = ?1")
            .and_then(|mut statement| statement.query_row([run.as_str()], |row| row.get(0)).optional())
            .map_err(|cause| self.failed(cause))
    }

    pub(super) fn rows<T>(
        &self,
        sql: &str,
        params: &[&dyn rusqlite::ToSql],
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, Error> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(params, read)?.collect())
            .map_err(|cause| self.failed(cause))
    }

    fn event(&self, row: &Row<'_>, column: usize, run: &RunId, seq: u64) -> Result<Event, Error> {
        let body = row.get_ref(column).and_then(|value| Ok(value.as_str()?)).map_err(|cause| self.failed(cause))?;
        stored::decode(body).map_err(|cause| fault::from_stored(&format!("event {seq} of run {run}"), &self.place.path, cause))
    }

    pub(super) fn failed(&self, cause: rusqlite::Error) -> Error {
        fault::from_sqlite("read the store", &self.place.path, cause)
    }
}

/// Of `task, map_index, state, try_number, started_at, ended_at, error`.
pub(super) fn instance_row(row: &Row<'_>) -> rusqlite::Result<InstanceRow> {
    Ok(InstanceRow {
        instance: instance(row, 0)?,
        state: row.get(2)?,
        try_number: row.get(3)?,
        started_at: row.get::<_, Option<i64>>(4)?.map(from_microsecond),
        ended_at: row.get::<_, Option<i64>>(5)?.map(from_microsecond),
        error: row.get(6)?,
    })
}

/// Of [`STATEMENT_COLUMNS`].
pub(super) fn statement_row(row: &Row<'_>) -> rusqlite::Result<StatementRow> {
    let notices: Option<String> = row.get(10)?;
    let notices = notices.map(|text| {
        serde_json::from_str(&text)
            .map_err(|cause| rusqlite::Error::FromSqlConversionFailure(10, rusqlite::types::Type::Text, Box::new(cause)))
    });
    Ok(StatementRow {
        instance: instance(row, 0)?,
        try_number: row.get(2)?,
        segment: row.get::<_, Option<i64>>(3)?.and_then(|segment| u32::try_from(segment).ok()),
        record: StatementRecord {
            number: row.get(4)?,
            line: row.get(5)?,
            summary: row.get(6)?,
            duration_us: unsigned(row, 7)?,
            rows_affected: row.get::<_, Option<i64>>(8)?.map(i64::unsigned_abs),
            rows_returned: unsigned(row, 9)?,
            notices: notices.transpose()?.unwrap_or_default(),
        },
    })
}

pub(super) fn instance(row: &Row<'_>, column: usize) -> rusqlite::Result<InstanceId> {
    let task: String = row.get(column)?;
    let map_index: i64 = row.get(column + 1)?;
    Ok(InstanceId { task: TaskId::new(task), map_index: u32::try_from(map_index).ok() })
}
