//! Lists over many runs. None reads more than it shows, however much the store holds: each statement names the index that it goes by (a
//! store without that index fails the tests, rather than be slow some day), and what is sought in vain is given up after a bound.

use super::reader::{RUN_COLUMNS, Reader, STATEMENT_COLUMNS, instance_row, statement_row};
use crate::view::{GRID_INSTANCES_MAX, LOOKED_AT_MAX, RUNS_LOOKED_AT_MAX, fold_grid};
use crate::{
    Error, GridRow, InstanceCursor, InstanceFilter, InstancePage, InstanceRow, RunFilter, RunRow, StatementCursor,
    StatementFilter, StatementPage, VersionUse,
};
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params, params_from_iter};
use std::time::Duration;

/// A statement with its values.
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Query {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), values: Vec::new() }
    }

    /// Adds a piece with one `?`, and its value.
    pub(super) fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.sql.push_str(sql);
        self.values.push(value.into());
    }
}

/// The place of a run in lists.
#[derive(Clone, Copy)]
pub(super) struct RunPlace {
    pub(super) id: i64,
    pub(super) date: Option<i64>,
}

/// The list of runs. `before` is the place of the filter's cursor.
pub(super) fn runs_query(filter: &RunFilter, before: Option<RunPlace>) -> Query {
    let dates = filter.dates();
    let index = match (filter.unfinished, dates.is_some(), filter.dag.is_some(), filter.phase.is_some()) {
        (true, _, _, _) => "INDEXED BY runs_unfinished",
        (false, true, true, _) => "INDEXED BY runs_of_dag_by_date",
        (false, true, false, _) => "INDEXED BY runs_by_date",
        (false, false, true, true) => "INDEXED BY runs_of_dag_in_state",
        (false, false, true, false) => "INDEXED BY runs_of_dag",
        (false, false, false, true) => "INDEXED BY runs_in_state",
        (false, false, false, false) => "NOT INDEXED",
    };
    let mut query = Query::new(RUN_COLUMNS.replace("FROM runs r", &format!("FROM runs r {index}")));
    query.sql.push_str(" AND true");
    if filter.unfinished {
        query.sql.push_str(" AND (r.ended_at IS NULL OR r.callbacks_pending > 0)");
    }
    if let Some(dag) = &filter.dag {
        query.and(" AND r.dag_id = ?", dag.as_str().to_owned());
    }
    if let Some(phase) = filter.phase {
        query.and(" AND r.state = ?", phase.as_str().to_owned());
    }
    if let Some((from, until)) = dates {
        query.and(" AND r.logical_date >= ?", from);
        match before {
            Some(RunPlace { id, date }) => {
                query.and(" AND (r.logical_date, r.id) < (?", date.unwrap_or(i64::MIN));
                query.and(", ?)", id);
                // Only looked at: with the cursor alone to go by, the index is entered where the page begins.
                query.and(" AND +r.logical_date <= ?", until);
            }
            None => query.and(" AND r.logical_date <= ?", until),
        }
        query.sql.push_str(" ORDER BY r.logical_date DESC, r.id DESC");
    } else {
        if let Some(RunPlace { id, .. }) = before {
            query.and(" AND r.id < ?", id);
        }
        query.sql.push_str(" ORDER BY r.id DESC");
    }
    query.and(" LIMIT ?", i64::try_from(filter.rows_max()).unwrap_or(i64::MAX));
    query
}

const INSTANCE_COLUMNS: &str = "SELECT task, map_index, state, try_number, started_at, ended_at, error FROM instances";
/// The newest runs before one, with their DAGs.
pub(super) const RUNS_BEFORE: &str = "SELECT id, run_id, dag_id FROM runs WHERE id < ?1 ORDER BY id DESC";
pub(super) const RUNS_OF_DAG_BEFORE: &str =
    "SELECT id, run_id, dag_id FROM runs INDEXED BY runs_of_dag WHERE id < ?1 AND dag_id = ?2 ORDER BY id DESC";

/// The runs that have instances in a state which is not `success`, newest first, each once.
pub(super) const RUNS_IN_STATE_BEFORE: &str = "SELECT max(run) FROM instances INDEXED BY instances_in_state \
                                    WHERE state = ?1 AND state <> 'success' AND run < ?2";

/// The instances of one run from behind a place, of a task if one is wanted; in a state, where that is not `success`.
pub(super) fn instances_query(run: i64, filter: &InstanceFilter, behind: Option<&InstanceId>) -> Query {
    let rare = filter.state.as_deref().filter(|state| *state != "success");
    let mut query = Query::new(INSTANCE_COLUMNS);
    match rare {
        Some(state) => {
            query.and(" INDEXED BY instances_in_state WHERE state = ?", state.to_owned());
            query.and(" AND state <> 'success' AND run = ?", run);
        }
        None => query.and(" WHERE run = ?", run),
    }
    if let Some(task) = &filter.task {
        query.and(" AND task = ?", task.as_str().to_owned());
    }
    if let Some(InstanceId { task, map_index }) = behind {
        query.and(" AND (task, map_index) > (?", task.as_str().to_owned());
        query.and(", ?)", map_index.map_or(-1, i64::from));
    }
    query.sql.push_str(" ORDER BY task, map_index");
    query
}

/// The statements of a run from behind a place in its log.
pub(super) fn statements_behind() -> String {
    format!("{STATEMENT_COLUMNS} WHERE run = ?1 AND (seq, place) > (?2, ?3) ORDER BY seq, place")
}

/// A page of instances while it is filled.
struct Filling<'f> {
    filter: &'f InstanceFilter,
    page: InstancePage,
    looked_at: usize,
    runs: usize,
}

impl Filling<'_> {
    fn is_full(&self) -> bool {
        self.page.rows.len() >= self.filter.rows_max() || self.looked_at >= LOOKED_AT_MAX || self.runs >= RUNS_LOOKED_AT_MAX
    }
}

impl Reader<'_> {
    pub(super) fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>, Error> {
        let before = filter.before.as_ref().map(|run| self.run_place(run)).transpose()?;
        if let (Some(run), Some(RunPlace { date: None, .. })) = (&filter.before, before)
            && filter.dates().is_some()
        {
            // A cursor of another list.
            return Err(Error::no_such_run(run, &self.place.name));
        }
        let query = runs_query(filter, before);
        let values: Vec<&dyn rusqlite::ToSql> = query.values.iter().map(|value| value as &dyn rusqlite::ToSql).collect();
        self.run_rows(&query.sql, &values)
    }

    fn run_place(&self, run: &RunId) -> Result<RunPlace, Error> {
        let found = self
            .connection
            .prepare_cached("SELECT id, logical_date FROM runs WHERE run_id = ?1")
            .and_then(|mut statement| {
                statement.query_row([run.as_str()], |row| Ok(RunPlace { id: row.get(0)?, date: row.get(1)? })).optional()
            })
            .map_err(|cause| self.failed(cause))?;
        found.ok_or_else(|| Error::no_such_run(run, &self.place.name))
    }

    pub(super) fn grid(&self, filter: &RunFilter) -> Result<Vec<GridRow>, Error> {
        let mut rows = Vec::new();
        let mut read = 0;
        for run in self.runs(filter)? {
            let key = self.run_key(&run.header.run_id)?.unwrap_or_default();
            let (tasks, count) = self.grid_tasks(key)?;
            read += count;
            if read > GRID_INSTANCES_MAX && !rows.is_empty() {
                break;
            }
            rows.push(GridRow { run, tasks, is_cut: count > GRID_INSTANCES_MAX });
        }
        Ok(rows)
    }

    /// The tasks of a run, and how many instances were read; one more than may be shown when there are more.
    fn grid_tasks(&self, run: i64) -> Result<(Vec<crate::GridTask>, usize), Error> {
        let sql = format!("{INSTANCE_COLUMNS} WHERE run = ?1 ORDER BY task, map_index LIMIT ?2");
        let limit = i64::try_from(GRID_INSTANCES_MAX).unwrap_or(i64::MAX).saturating_add(1);
        let instances = self.rows(&sql, params![run, limit], instance_row)?;
        let count = instances.len();
        let mut tasks = Vec::new();
        instances.into_iter().take(GRID_INSTANCES_MAX).for_each(|row| fold_grid(&mut tasks, row));
        Ok((tasks, count))
    }

    pub(super) fn list_instances(&self, filter: &InstanceFilter) -> Result<InstancePage, Error> {
        let mut filling = Filling { filter, page: InstancePage::default(), looked_at: 0, runs: 0 };
        if let Some(run) = &filter.run {
            if filter.after.as_ref().is_some_and(|after| after.run != *run) {
                return Err(Error::no_such_run(run, &self.place.name));
            }
            let (key, dag) = self.run_of_dag(run)?;
            let behind = filter.after.as_ref().map(|after| &after.instance);
            if filter.dag.as_ref().is_none_or(|wanted| *wanted == dag) {
                self.fill_from(&mut filling, (key, run.clone(), dag), behind)?;
            }
            return Ok(filling.page);
        }
        let mut before = i64::MAX;
        if let Some(InstanceCursor { run, instance }) = &filter.after {
            let (key, dag) = self.run_of_dag(run)?;
            before = key;
            self.fill_from(&mut filling, (key, run.clone(), dag), Some(instance))?;
        }
        match filter.state.as_deref().filter(|state| *state != "success") {
            Some(state) => self.fill_in_state(&mut filling, state, before)?,
            None => self.fill_from_runs(&mut filling, before)?,
        }
        Ok(filling.page)
    }

    /// The key of a run, and its DAG.
    fn run_of_dag(&self, run: &RunId) -> Result<(i64, DagId), Error> {
        let found = self
            .rows("SELECT id, dag_id FROM runs WHERE run_id = ?1", params![run.as_str()], |row| {
                Ok((row.get(0)?, DagId::new(row.get::<_, String>(1)?)))
            })?
            .pop();
        found.ok_or_else(|| Error::no_such_run(run, &self.place.name))
    }

    pub(super) fn list_statements(&self, filter: &StatementFilter) -> Result<StatementPage, Error> {
        let Some(key) = self.run_key(&filter.run)? else { return Ok(StatementPage::default()) };
        let failed = |cause| self.failed(cause);
        let mut statement = self.connection.prepare_cached(&statements_behind()).map_err(failed)?;
        // Places begin at 0 of event 1.
        let StatementCursor { seq, place } = filter.after.unwrap_or_default();
        let seq = i64::try_from(seq).unwrap_or(i64::MAX);
        let found = statement.query_map(params![key, seq, place], |row| {
            let place = StatementCursor { seq: row.get::<_, i64>(11)?.unsigned_abs(), place: row.get(12)? };
            Ok((place, statement_row(row)?))
        });
        StatementPage::fill(filter, found.map_err(failed)?).map_err(failed)
    }

    /// Goes through the runs, newest first.
    fn fill_from_runs(&self, filling: &mut Filling<'_>, before: i64) -> Result<(), Error> {
        let failed = |cause| self.failed(cause);
        let (sql, values): (_, Vec<Value>) = match &filling.filter.dag {
            Some(dag) => (RUNS_OF_DAG_BEFORE, vec![before.into(), dag.as_str().to_owned().into()]),
            None => (RUNS_BEFORE, vec![before.into()]),
        };
        let mut statement = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut runs = statement.query(params_from_iter(values)).map_err(failed)?;
        while filling.page.next.is_none()
            && let Some(row) = runs.next().map_err(failed)?
        {
            let read = || -> rusqlite::Result<_> {
                Ok((row.get(0)?, RunId::new(row.get::<_, String>(1)?), DagId::new(row.get::<_, String>(2)?)))
            };
            self.fill_from(filling, read().map_err(failed)?, None)?;
        }
        Ok(())
    }

    /// Goes through the runs that have instances in a rare state, newest first.
    fn fill_in_state(&self, filling: &mut Filling<'_>, state: &str, mut before: i64) -> Result<(), Error> {
        let failed = |cause| self.failed(cause);
        let mut newest = self.connection.prepare_cached(RUNS_IN_STATE_BEFORE).map_err(failed)?;
        let mut run_of = self.connection.prepare_cached("SELECT run_id, dag_id FROM runs WHERE id = ?1").map_err(failed)?;
        while filling.page.next.is_none() {
            let found: Option<i64> = newest.query_row(params![state, before], |row| row.get(0)).map_err(failed)?;
            let Some(run) = found else { return Ok(()) };
            before = run;
            let named = run_of
                .query_row([run], |row| Ok((RunId::new(row.get::<_, String>(0)?), DagId::new(row.get::<_, String>(1)?))))
                .optional()
                .map_err(failed)?;
            // A run whose rows are on their way out has no name any more.
            let Some((name, dag)) = named else { continue };
            self.fill_from(filling, (run, name, dag), None)?;
        }
        Ok(())
    }

    /// Takes in what is wanted of one run. Sets the page's `next` when the page is full and something may be left.
    fn fill_from(&self, filling: &mut Filling<'_>, run: (i64, RunId, DagId), behind: Option<&InstanceId>) -> Result<(), Error> {
        let (key, run, dag) = run;
        filling.runs += 1;
        let filter = filling.filter;
        let mut last = None;
        if filter.dag.as_ref().is_none_or(|wanted| *wanted == dag) {
            let query = instances_query(key, filter, behind);
            let failed = |cause| self.failed(cause);
            let mut statement = self.connection.prepare_cached(&query.sql).map_err(failed)?;
            let mut rows = statement.query(params_from_iter(query.values)).map_err(failed)?;
            while let Some(row) = rows.next().map_err(failed)? {
                if filling.is_full() {
                    break;
                }
                let row: InstanceRow = instance_row(row).map_err(failed)?;
                filling.looked_at += 1;
                last = Some(row.instance.clone());
                if filter.state.as_ref().is_none_or(|state| *state == row.state) {
                    filling.page.rows.push((run.clone(), dag.clone(), row));
                }
            }
        }
        if filling.is_full() {
            let instance = last.or_else(|| behind.cloned()).unwrap_or_else(before_all);
            filling.page.next = Some(InstanceCursor { run, instance });
        }
        Ok(())
    }

    pub(super) fn versions(&self, dag: &DagId) -> Result<Vec<VersionUse>, Error> {
        let sql = "SELECT digest, (SELECT run_id FROM runs WHERE id = first), (SELECT run_id FROM runs WHERE id = last) FROM ( \
                   SELECT v.digest, \
                   (SELECT min(id) FROM runs INDEXED BY runs_of_version WHERE dag_id = ?1 AND definition = v.digest) AS first, \
                   (SELECT max(id) FROM runs INDEXED BY runs_of_version WHERE dag_id = ?1 AND definition = v.digest) AS last \
                   FROM versions v INDEXED BY versions_of_dag WHERE v.dag_id = ?1) ORDER BY last DESC, digest LIMIT ?2";
        let run =
            |row: &rusqlite::Row<'_>, column| Ok::<_, rusqlite::Error>(row.get::<_, Option<String>>(column)?.map(RunId::new));
        self.rows(sql, params![dag.as_str(), crate::VERSIONS_MAX], |row| {
            Ok(VersionUse { digest: row.get(0)?, first_run: run(row, 1)?, last_run: run(row, 2)? })
        })
    }

    pub(super) fn durations(&self, dag: &DagId, task: &TaskId, limit: u32) -> Result<Vec<Duration>, Error> {
        let failed = |cause| self.failed(cause);
        let mut runs = self.connection.prepare_cached(RUNS_OF_DAG_BEFORE).map_err(failed)?;
        let mut runs = runs.query(params![i64::MAX, dag.as_str()]).map_err(failed)?;
        let sql = "SELECT ended_at - started_at FROM instances \
                   WHERE run = ?1 AND task = ?2 AND state = 'success' AND ended_at >= started_at LIMIT ?3";
        let mut of_run = self.connection.prepare_cached(sql).map_err(failed)?;
        let mut durations = Vec::new();
        let (mut looked_at, mut used) = (0, 0);
        while used < limit
            && looked_at < RUNS_LOOKED_AT_MAX
            && durations.len() < LOOKED_AT_MAX
            && let Some(row) = runs.next().map_err(failed)?
        {
            looked_at += 1;
            let run: i64 = row.get(0).map_err(failed)?;
            let room = (LOOKED_AT_MAX - durations.len()) as i64;
            let found = of_run.query_map(params![run, task.as_str(), room], |row| row.get::<_, i64>(0)).map_err(failed)?;
            let before = durations.len();
            for micros in found {
                durations.push(Duration::from_micros(micros.map_err(failed)?.unsigned_abs()));
            }
            used += u32::from(durations.len() > before);
        }
        Ok(durations)
    }
}

/// A place before every instance: no task has no name.
fn before_all() -> InstanceId {
    InstanceId::single(TaskId::new(""))
}
