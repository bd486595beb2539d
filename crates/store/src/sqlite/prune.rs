//! Which runs may go, and how they go: their names at once, their rows bit by bit, so that nobody waits for it.

use super::batch::{Batch, Outcome};
use super::reader::Reader;
use crate::log::from_microsecond;
use crate::view::PRUNABLE_OF_A_DAG_MAX;
use crate::{Error, PrunableRun, PruneRule};
use backstop_core::{DagId, RunId};
use jiff::Timestamp;
use rusqlite::{OptionalExtension, params};

impl Reader<'_> {
    pub(super) fn dag_ids(&self) -> Result<Vec<DagId>, Error> {
        // From DAG to DAG by the index.
        let sql = "WITH RECURSIVE dags (id) AS (SELECT min(dag_id) FROM runs UNION ALL \
                   SELECT (SELECT min(dag_id) FROM runs WHERE dag_id > dags.id) FROM dags WHERE dags.id IS NOT NULL) \
                   SELECT id FROM dags WHERE id IS NOT NULL";
        self.rows(sql, &[], |row| Ok(DagId::new(row.get::<_, String>(0)?)))
    }

    /// Runs that may go by the rule, of one DAG after the other, the oldest first.
    pub(super) fn prunable(&self, rule: &PruneRule, limit: u32) -> Result<Vec<PrunableRun>, Error> {
        let mut found = Vec::new();
        for dag in self.dag_ids()? {
            self.prunable_of(&dag, rule, limit as usize, &mut found)?;
            if found.len() >= limit as usize {
                break;
            }
        }
        Ok(found)
    }

    fn prunable_of(&self, dag: &DagId, rule: &PruneRule, limit: usize, found: &mut Vec<PrunableRun>) -> Result<(), Error> {
        let nth_newest = |n: u32| {
            let sql = "SELECT id FROM runs INDEXED BY runs_of_dag WHERE dag_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2";
            self.key(sql, params![dag.as_str(), n.saturating_sub(1)])
        };
        // Without that many nothing may go.
        let Some(kept_from) = nth_newest(rule.runs_min.max(1))? else { return Ok(()) };
        let over_from = rule.runs_max.map(nth_newest).transpose()?.flatten();
        let sql = "SELECT max(id) FROM runs INDEXED BY runs_of_dag_in_state WHERE dag_id = ?1 AND state = 'success'";
        let last_good: Option<i64> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([dag.as_str()], |row| row.get(0)))
            .map_err(|cause| self.failed(cause))?;
        let sql = "SELECT id, run_id, ended_at, callbacks_pending FROM runs INDEXED BY runs_of_dag \
                   WHERE dag_id = ?1 AND id < ?2 ORDER BY id LIMIT ?3";
        let rows = self.rows(sql, params![dag.as_str(), kept_from, PRUNABLE_OF_A_DAG_MAX], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?, row.get::<_, i64>(3)?))
        })?;
        for (id, run, ended_at, callbacks) in rows {
            let Some(ended_at) = ended_at.filter(|_| callbacks == 0).map(from_microsecond) else { continue };
            let is_old = rule.ended_before.is_some_and(|before| ended_at < before);
            let is_over = over_from.is_some_and(|from| id < from);
            if (is_old || is_over) && ended_at < rule.never_after && Some(id) != last_good {
                found.push(PrunableRun { run: RunId::new(run), dag: dag.clone(), ended_at });
                if found.len() >= limit {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn key(&self, sql: &str, params: &[&dyn rusqlite::ToSql]) -> Result<Option<i64>, Error> {
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(params, |row| row.get(0)).optional())
            .map_err(|cause| self.failed(cause))
    }
}

impl Batch<'_> {
    /// Takes runs that are over out of all lists. Their rows are left to [`Self::sweep`]. Gives those that went.
    pub(super) fn remove(&mut self, runs: &[RunId], never_after: Timestamp) -> Outcome<Vec<RunId>, Error> {
        self.begin()?;
        let mut gone = Vec::new();
        for run in runs {
            // The newest run of all stays: its number would be given to another run, whose rows would be mixed with those left of it.
            let sql = "INSERT INTO removals (run) SELECT id FROM runs WHERE run_id = ?1 AND ended_at < ?2 AND callbacks_pending = 0 \
                       AND id < (SELECT max(id) FROM runs)";
            let count = self
                .prepare(sql)?
                .execute(params![run.as_str(), never_after.as_microsecond()])
                .map_err(|cause| self.broken(cause))?;
            if count > 0 {
                self.prepare("DELETE FROM runs WHERE run_id = ?1")?
                    .execute([run.as_str()])
                    .map_err(|cause| self.broken(cause))?;
                self.forget(run);
                gone.push(run.clone());
            }
        }
        Ok(Ok(gone))
    }

    /// Deletes so many rows of runs that are gone; fewer means that none is left.
    pub(super) fn sweep(&mut self, rows_max: u32) -> Outcome<u32, Error> {
        self.begin()?;
        let mut left = rows_max;
        while left > 0 {
            let run: Option<i64> = self
                .prepare("SELECT min(run) FROM removals")?
                .query_row([], |row| row.get(0))
                .map_err(|cause| self.broken(cause))?;
            let Some(run) = run else { break };
            let sample = "task, map_index, try_number, place";
            let tables = [("samples", sample), ("statements", "seq, place"), ("instances", "task, map_index"), ("events", "seq")];
            for (table, key) in tables {
                let sql = format!(
                    "DELETE FROM {table} WHERE run = ?1 AND ({key}) IN (SELECT {key} FROM {table} WHERE run = ?1 LIMIT ?2)"
                );
                let gone = self.prepare(&sql)?.execute(params![run, left]).map_err(|cause| self.broken(cause))?;
                left = left.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
            }
            left = left.saturating_sub(self.sweep_asset_updates(run, left)?);
            if left > 0 {
                self.prepare("DELETE FROM removals WHERE run = ?1")?.execute([run]).map_err(|cause| self.broken(cause))?;
            }
        }
        Ok(Ok(rows_max - left))
    }
}
