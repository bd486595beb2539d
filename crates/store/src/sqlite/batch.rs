//! One transaction of the writer: the appends of many runs, and their projections, each touched row written once.

use super::reader::Reader;
use super::{Options, Place, fault};
use crate::log::{from_microsecond, to_microsecond};
use crate::projection::{self, EventStatements, NO_STATE, Patch, RunFold, Settled};
use crate::{Act, Append, AppendError, Entry, Error, ErrorKind, Recorded, SampleRow, Version, stored};
use backstop_core::event::AssetUpdate;
use backstop_core::state::RunPhase;
use backstop_core::{Event, InstanceId, RunId};
use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, ToSql, params};
use std::collections::HashMap;

/// The segment of statements in a transaction that is not settled.
const OPEN: i64 = -1;

/// What is known of a run within the batch. Read from the file at the run's first request, as other processes may have written since.
struct Head {
    /// Its row's id.
    id: i64,
    version: u64,
    epoch: u64,
    fold: RunFold,
    /// As its row has it; `None` where nobody looked. What did not change is not written, as each index of it would be, too.
    written: Option<RunFold>,
    is_changed: bool,
}

pub(super) struct Batch<'w> {
    connection: &'w Connection,
    place: &'w Place,
    options: &'w Options,
    buffer: &'w mut Vec<u8>,
    is_begun: bool,
    events: usize,
    heads: HashMap<RunId, Head>,
    /// In the order in which the instances were touched, which is close to the order of their rows.
    patches: Vec<(i64, InstanceId, Patch)>,
    patch_places: HashMap<(i64, InstanceId), usize>,
}

/// A request that is refused is an inner `Err`, and leaves the batch as it was; an outer `Err` breaks the batch.
pub(super) type Outcome<T, E> = Result<Result<T, E>, Error>;

impl<'w> Batch<'w> {
    pub(super) fn new(connection: &'w Connection, place: &'w Place, options: &'w Options, buffer: &'w mut Vec<u8>) -> Self {
        Self {
            connection,
            place,
            options,
            buffer,
            is_begun: false,
            events: 0,
            heads: HashMap::new(),
            patches: Vec::new(),
            patch_places: HashMap::new(),
        }
    }

    /// True when it should be committed before more is taken in.
    pub(super) fn is_full(&self) -> bool {
        self.events >= self.options.batch_events
    }

    pub(super) fn append(&mut self, append: Append) -> Outcome<(), AppendError> {
        self.begin()?;
        if let Err(refused) = self.check(&append)? {
            return Ok(Err(refused));
        }
        let ends = match self.encode(&append) {
            Ok(ends) => ends,
            Err(too_large) => return Ok(Err(too_large.into())),
        };
        let at = to_microsecond(append.at);
        let id = match self.heads.get(&append.run) {
            Some(head) => head.id,
            None => self.create_run(&append)?,
        };
        let insert = "INSERT INTO events (run, seq, at, body) VALUES (?1, ?2, ?3, ?4)";
        let mut insert = self.prepare(insert)?;
        let mut start = 0;
        for ((seq, event), end) in (append.expected_version + 1..).zip(&append.events).zip(ends) {
            let body = std::str::from_utf8(&self.buffer[start..end]).expect("JSON is written in UTF-8");
            insert.execute(params![id, to_column(seq), at.as_microsecond(), body]).map_err(|cause| self.broken(cause))?;
            start = end;
            self.project(id, seq, at, event)?;
            for update in projection::asset_updates(&append.run, at, event) {
                self.insert_asset_update(id, seq, &update)?;
            }
        }
        self.events += append.events.len();
        if let Some(head) = self.heads.get_mut(&append.run).filter(|_| append.expected_version > 0) {
            head.version += append.events.len() as u64;
            head.is_changed = true;
            append.events.iter().for_each(|event| head.fold.apply(at, event));
        }
        Ok(Ok(()))
    }

    pub(super) fn take_over(&mut self, run: &RunId) -> Outcome<u64, Error> {
        self.begin()?;
        self.load(run)?;
        let Some(head) = self.heads.get_mut(run) else { return Ok(Err(Error::no_such_run(run, &self.place.name))) };
        head.epoch += 1;
        head.is_changed = true;
        Ok(Ok(head.epoch))
    }

    pub(super) fn keep_version(&mut self, version: &Version) -> Outcome<(), Error> {
        if version.bundle.len() > self.options.value_bytes_max {
            let message = format!(
                "keep version {} of DAG {} in the store {}: its sources are {} bytes, over the limit of {}",
                version.digest,
                version.dag_id,
                self.place.name,
                version.bundle.len(),
                self.options.value_bytes_max
            );
            return Ok(Err(Error::new(ErrorKind::Other, message).hint("split the project, or move data out of its SQL files")));
        }
        self.begin()?;
        let sql = "INSERT INTO versions (digest, dag_id, bundle) VALUES (?1, ?2, ?3) ON CONFLICT (digest) DO NOTHING";
        let mut insert = self.prepare(sql)?;
        insert.execute(params![version.digest, version.dag_id.as_str(), version.bundle]).map_err(|cause| self.broken(cause))?;
        Ok(Ok(()))
    }

    /// Keeps, replaces or removes entries, and notes who did so.
    pub(super) fn put(&mut self, entries: &[Entry], act: Option<&Act>) -> Outcome<(), Error> {
        self.begin()?;
        for Entry { kind, key, body } in entries {
            match body {
                Some(body) => {
                    // What is so already is not written: nobody has to wait for the disk then.
                    let sql = "INSERT INTO entries (kind, key, body) VALUES (?1, ?2, ?3) \
                               ON CONFLICT (kind, key) DO UPDATE SET body = ?3 WHERE body <> ?3";
                    self.prepare(sql)?.execute(params![kind, key, body]).map_err(|cause| self.broken(cause))?;
                }
                None => {
                    let sql = "DELETE FROM entries WHERE kind = ?1 AND key = ?2";
                    self.prepare(sql)?.execute(params![kind, key]).map_err(|cause| self.broken(cause))?;
                }
            }
        }
        if let Some(act) = act {
            let sql = "INSERT INTO acts (at, who, why, what) VALUES (?1, ?2, ?3, ?4)";
            let row = params![act.at.as_microsecond(), act.who, act.why, act.what];
            self.prepare(sql)?.execute(row).map_err(|cause| self.broken(cause))?;
        }
        Ok(Ok(()))
    }

    /// Keeps samples of runs that are there.
    pub(super) fn keep_samples(&mut self, samples: &[SampleRow]) -> Outcome<(), Error> {
        self.begin()?;
        let sql = "INSERT INTO samples (run, task, map_index, try_number, place, at, server, session, body) \
                   SELECT id, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM runs WHERE run_id = ?1 \
                   ON CONFLICT (run, task, map_index, try_number, place) DO UPDATE SET at = ?6, server = ?7, session = ?8, body = ?9";
        let mut insert = self.prepare(sql)?;
        for row in samples {
            let body = serde_json::to_string(&row.sample).expect("texts and numbers always have a JSON form");
            insert
                .execute(params![
                    row.run.as_str(),
                    row.instance.task.as_str(),
                    map_column(&row.instance),
                    row.try_number,
                    row.place,
                    row.at.as_microsecond(),
                    row.server,
                    row.session,
                    body
                ])
                .map_err(|cause| self.broken(cause))?;
        }
        Ok(Ok(()))
    }

    /// Writes the projections and commits. Durable on return.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        if !self.is_begun {
            return Ok(());
        }
        self.write_runs()?;
        self.write_instances()?;
        self.connection.execute_batch("COMMIT").map_err(|cause| self.broken(cause))
    }

    /// Takes the write lock at once: what is read from here on cannot be changed by another process before the commit.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        if !self.is_begun {
            self.place.check_still_there()?;
            self.connection.execute_batch("BEGIN IMMEDIATE").map_err(|cause| self.broken(cause))?;
            self.is_begun = true;
        }
        Ok(())
    }

    /// A run that is removed is not known any more.
    pub(super) fn forget(&mut self, run: &RunId) {
        self.heads.remove(run);
    }

    /// Makes the projections of a run anew from its whole log. The transaction is the caller's.
    pub(super) fn rebuild(mut self, run: &RunId, id: i64, events: &[Recorded]) -> Result<(), Error> {
        for table in ["instances", "statements"] {
            let sql = format!("DELETE FROM {table} WHERE run = ?1");
            self.prepare(&sql)?.execute([id]).map_err(|cause| self.broken(cause))?;
        }
        if let Some(Event::RunCreated(header)) = events.first().map(|recorded| &recorded.event) {
            let sql = "UPDATE runs SET dag_id = ?2, logical_date = ?3, definition = ?4 WHERE id = ?1";
            let date = header.logical_date.map(Timestamp::as_microsecond);
            let row = params![id, header.dag_id.as_str(), date, header.version];
            self.prepare(sql)?.execute(row).map_err(|cause| self.broken(cause))?;
        }
        let epoch = self
            .prepare("SELECT epoch FROM runs WHERE id = ?1")?
            .query_row([id], |row| unsigned(row, 0))
            .map_err(|cause| self.broken(cause))?;
        let mut fold = RunFold::new();
        for Recorded { seq, at, event } in events {
            fold.apply(*at, event);
            self.project(id, *seq, *at, event)?;
        }
        let reader = Reader { connection: self.connection, place: self.place };
        self.mend_asset_updates(&reader, run, id, events)?;
        let version = events.len() as u64;
        self.heads.insert(run.clone(), Head { id, version, epoch, fold, written: None, is_changed: true });
        self.write_runs()?;
        self.write_instances()
    }

    /// Everything that can refuse an append, before anything of it is written.
    fn check(&mut self, append: &Append) -> Outcome<(), AppendError> {
        if let Err(bad) = check_shape(append) {
            return Ok(Err(bad.into()));
        }
        self.load(&append.run)?;
        Ok(check_place(append, self.heads.get(&append.run).map(|head| (head.version, head.epoch))))
    }

    /// Writes the events to the buffer; gives where each ends. Before any is inserted, so that one too large spoils nothing.
    fn encode(&mut self, append: &Append) -> Result<Vec<usize>, Error> {
        self.buffer.clear();
        let mut ends = Vec::with_capacity(append.events.len());
        for event in &append.events {
            let start = self.buffer.len();
            stored::encode(event, self.buffer);
            let bytes = self.buffer.len() - start;
            if bytes > self.options.value_bytes_max {
                let limit = self.options.value_bytes_max;
                let message = format!("append to run {}: an event has {bytes} bytes, over the limit of {limit}", append.run);
                return Err(Error::new(ErrorKind::Other, message).hint("let the task give a smaller result, or fewer items"));
            }
            ends.push(self.buffer.len());
        }
        Ok(ends)
    }

    fn load(&mut self, run: &RunId) -> Result<(), Error> {
        if self.heads.contains_key(run) {
            return Ok(());
        }
        let sql = "SELECT id, version, epoch, state, is_cancel_requested, started_at, ended_at, callbacks_pending \
                   FROM runs WHERE run_id = ?1";
        let row = self
            .prepare(sql)?
            .query_row([run.as_str()], |row| {
                let state: String = row.get(3)?;
                let started_at: Option<i64> = row.get(5)?;
                let ended_at: Option<i64> = row.get(6)?;
                let fold = RunFold {
                    phase: RunPhase::Queued,
                    is_cancel_requested: row.get(4)?,
                    started_at: started_at.map(from_microsecond),
                    ended_at: ended_at.map(from_microsecond),
                    callbacks_pending: unsigned(row, 7)?,
                    // As its row has it.
                    pinned: None,
                };
                Ok((row.get(0)?, unsigned(row, 1)?, unsigned(row, 2)?, state, fold))
            })
            .optional()
            .map_err(|cause| self.broken(cause))?;
        let Some((id, version, epoch, state, fold)) = row else { return Ok(()) };
        let phase = projection::parse_phase(&state).ok_or_else(|| unknown_state(run, &state, &self.place.name))?;
        let fold = RunFold { phase, ..fold };
        let written = Some(fold.clone());
        self.heads.insert(run.clone(), Head { id, version, epoch, fold, written, is_changed: false });
        Ok(())
    }

    fn create_run(&mut self, append: &Append) -> Result<i64, Error> {
        let Some(Event::RunCreated(header)) = append.events.first() else {
            return Err(Error::bad_append(&append.run, "its first event is not RunCreated"));
        };
        let mut fold = RunFold::new();
        append.events.iter().for_each(|event| fold.apply(to_microsecond(append.at), event));
        let version = append.events.len() as u64;
        let sql = "INSERT INTO runs (run_id, dag_id, version, epoch, state, is_cancel_requested, started_at, ended_at, callbacks_pending, \
                   logical_date, definition) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        self.prepare(sql)?
            .execute(params![
                append.run.as_str(),
                header.dag_id.as_str(),
                to_column(version),
                to_column(append.epoch),
                fold.phase.as_str(),
                fold.is_cancel_requested,
                fold.started_at.map(Timestamp::as_microsecond),
                fold.ended_at.map(Timestamp::as_microsecond),
                to_column(fold.callbacks_pending),
                header.logical_date.map(Timestamp::as_microsecond),
                fold.pinned.as_ref().unwrap_or(&header.version)
            ])
            .map_err(|cause| self.broken(cause))?;
        let id = self.connection.last_insert_rowid();
        let written = Some(fold.clone());
        self.heads.insert(append.run.clone(), Head { id, version, epoch: append.epoch, fold, written, is_changed: false });
        Ok(id)
    }

    fn project(&mut self, run: i64, seq: u64, at: Timestamp, event: &Event) -> Result<(), Error> {
        let Self { patches, patch_places, .. } = self;
        projection::instance_patches(seq, at, event, |instance, patch| match patch_places.entry((run, instance.clone())) {
            std::collections::hash_map::Entry::Occupied(place) => patches[*place.get()].2.merge(patch),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(patches.len());
                patches.push((run, instance.clone(), patch));
            }
        });
        if let Some(statements) = projection::statements(event) {
            self.insert_statements(run, seq, &statements)?;
        }
        match projection::settled(event) {
            Some(Settled::Committed(instance, try_number)) => {
                let sql = "UPDATE statements SET segment = 0 \
                           WHERE run = ?1 AND task = ?2 AND map_index = ?3 AND try_number = ?4 AND segment < 0";
                self.settle_statements(sql, params![run, instance.task.as_str(), map_column(instance), try_number])
            }
            Some(Settled::RolledBack(members)) => members.iter().try_for_each(|instance| {
                let sql = "UPDATE statements SET segment = NULL WHERE run = ?1 AND task = ?2 AND map_index = ?3 AND segment < 0";
                self.settle_statements(sql, params![run, instance.task.as_str(), map_column(instance)])
            }),
            None => Ok(()),
        }
    }

    /// By an index of what is not settled alone: for an attempt of no transaction there is nothing to be looked through.
    fn settle_statements(&self, sql: &'static str, values: &[&dyn ToSql]) -> Result<(), Error> {
        self.prepare(sql)?.execute(values).map(drop).map_err(|cause| self.broken(cause))
    }

    fn insert_statements(&self, run: i64, seq: u64, statements: &EventStatements<'_>) -> Result<(), Error> {
        let sql = "INSERT INTO statements (run, seq, place, task, map_index, try_number, segment, number, line, summary, \
                   duration_us, rows_affected, rows_returned, notices) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        let mut insert = self.prepare(sql)?;
        let EventStatements { instance, try_number, segment, is_open, records } = statements;
        let segment = if *is_open { Some(OPEN) } else { segment.map(i64::from) };
        for (place, record) in records.iter().enumerate() {
            let notices = (!record.notices.is_empty())
                .then(|| serde_json::to_string(&record.notices).expect("texts always have a JSON form"));
            insert
                .execute(params![
                    run,
                    to_column(seq),
                    place as i64,
                    instance.task.as_str(),
                    map_column(instance),
                    try_number,
                    segment,
                    record.number,
                    record.line,
                    record.summary,
                    to_column(record.duration_us),
                    record.rows_affected.map(to_column),
                    to_column(record.rows_returned),
                    notices
                ])
                .map_err(|cause| self.broken(cause))?;
        }
        Ok(())
    }

    pub(super) fn insert_asset_update(&self, run: i64, event: u64, update: &AssetUpdate) -> Result<(), Error> {
        let sql =
            "INSERT INTO asset_updates (asset, run, event, run_id, task, map_index, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let AssetUpdate { asset, run: run_id, instance, at } = update;
        let (task, map) = (instance.task.as_str(), map_column(instance));
        let row = params![&**asset, run, to_column(event), run_id.as_str(), task, map, at.as_microsecond()];
        self.prepare(sql)?.execute(row).map(drop).map_err(|cause| self.broken(cause))
    }

    /// Three statements, because SQLite writes each index that names a column of a `SET` anew, whatever the value.
    fn write_runs(&self) -> Result<(), Error> {
        let further = "UPDATE runs SET version = ?2, epoch = ?3 WHERE id = ?1";
        let whole = "UPDATE runs SET version = ?2, epoch = ?3, state = ?4, is_cancel_requested = ?5, started_at = ?6, ended_at = ?7, \
                     callbacks_pending = ?8 WHERE id = ?1";
        let pinned = "UPDATE runs SET definition = ?2 WHERE id = ?1";
        let (mut further, mut whole) = (self.prepare(further)?, self.prepare(whole)?);
        for head in self.heads.values().filter(|head| head.is_changed) {
            let Head { id, version, epoch, fold, written, is_changed: _ } = head;
            let (version, epoch) = (to_column(*version), to_column(*epoch));
            if written.as_ref() == Some(fold) {
                further.execute(params![id, version, epoch]).map_err(|cause| self.broken(cause))?;
                continue;
            }
            whole
                .execute(params![
                    id,
                    version,
                    epoch,
                    fold.phase.as_str(),
                    fold.is_cancel_requested,
                    fold.started_at.map(Timestamp::as_microsecond),
                    fold.ended_at.map(Timestamp::as_microsecond),
                    to_column(fold.callbacks_pending)
                ])
                .map_err(|cause| self.broken(cause))?;
            if let Some(version) = &fold.pinned {
                self.prepare(pinned)?.execute(params![id, version]).map_err(|cause| self.broken(cause))?;
            }
        }
        Ok(())
    }

    fn write_instances(&mut self) -> Result<(), Error> {
        let delete = "DELETE FROM instances WHERE run = ?1 AND task = ?2 AND map_index = ?3";
        let upsert = "INSERT INTO instances (run, task, map_index, first_seq, state, try_number, started_at, ended_at, error) \
                      VALUES (?1, ?2, ?3, ?4, coalesce(?5, ?11), coalesce(?6, 0), ?7, ?9, ?10) \
                      ON CONFLICT (run, task, map_index) DO UPDATE SET \
                      state = coalesce(?5, state), try_number = coalesce(?6, try_number), \
                      started_at = CASE ?12 WHEN 0 THEN started_at WHEN 1 THEN ?7 \
                                        ELSE iif(started_at IS NULL OR ended_at IS NOT NULL, ?7, started_at) END, ended_at = iif(?8, ?9, ended_at), error = iif(?13, ?10, error)";
        let mut delete = self.prepare(delete)?;
        let mut upsert = self.prepare(upsert)?;
        for (run, instance, patch) in &self.patches {
            let (task, map) = (instance.task.as_str(), map_column(instance));
            if patch.replaces {
                delete.execute(params![run, task, map]).map_err(|cause| self.broken(cause))?;
            }
            if patch.removes {
                continue;
            }
            upsert
                .execute(params![
                    run,
                    task,
                    map,
                    to_column(patch.seq),
                    patch.state,
                    patch.try_number,
                    patch.started_at.flatten().map(Timestamp::as_microsecond),
                    patch.ended_at.is_some(),
                    patch.ended_at.flatten().map(Timestamp::as_microsecond),
                    patch.error.as_ref().and_then(Option::as_ref),
                    NO_STATE,
                    match (patch.started_at, patch.may_go_on) {
                        (None, _) => 0,
                        (Some(_), false) => 1,
                        (Some(_), true) => 2,
                    },
                    patch.error.is_some()
                ])
                .map_err(|cause| self.broken(cause))?;
        }
        Ok(())
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<CachedStatement<'w>, Error> {
        self.connection.prepare_cached(sql).map_err(|cause| self.broken(cause))
    }

    pub(super) fn broken(&self, cause: rusqlite::Error) -> Error {
        fault::from_sqlite("write to the store", &self.place.path, cause)
    }
}

/// What an append must be in itself.
pub(crate) fn check_shape(append: &Append) -> Result<(), Error> {
    let bad = |what: &str| Err(Error::bad_append(&append.run, what));
    if append.events.is_empty() {
        return bad("it has no events");
    }
    for (index, event) in append.events.iter().enumerate() {
        let is_first = append.expected_version == 0 && index == 0;
        match event {
            Event::RunCreated(header) if is_first && header.run_id == append.run => {}
            Event::RunCreated(_) if is_first => return bad("its RunCreated names another run"),
            Event::RunCreated(_) => return bad("RunCreated is not the first event"),
            _ if is_first => return bad("its first event is not RunCreated"),
            _ => {}
        }
    }
    Ok(())
}

/// What an append must be in the light of what is there: the version and epoch of the run, if it exists.
pub(crate) fn check_place(append: &Append, head: Option<(u64, u64)>) -> Result<(), AppendError> {
    let (actual, current) = head.unwrap_or((0, append.epoch));
    // Being fenced explains a conflict, so it is told first.
    if append.epoch < current {
        return Err(AppendError::Fenced { run: append.run.clone(), ours: append.epoch, current });
    }
    if append.epoch > current {
        let what = format_args!("epoch {} was never given out, the run has {current}", append.epoch).to_string();
        return Err(Error::bad_append(&append.run, what).into());
    }
    if append.expected_version != actual {
        return Err(AppendError::Conflict { run: append.run.clone(), expected: append.expected_version, actual });
    }
    Ok(())
}

fn unknown_state(run: &RunId, state: &str, store: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("write to the store {store}: run {run} is in the unknown state `{state}`"))
        .hint("the file was changed by other means than Backstop: restore it from a backup")
}

/// `map_index` as it is stored: a primary key should have no nulls.
pub(super) fn map_column(instance: &InstanceId) -> i64 {
    instance.map_index.map_or(-1, i64::from)
}

/// A count is never negative, unless the file was changed by other means.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

/// SQLite's integers are signed. What is larger is as good as the largest.
fn to_column(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
