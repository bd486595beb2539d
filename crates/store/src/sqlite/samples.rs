//! Reading samples of running statements, and what statements took before.

use super::batch::map_column;
use super::reader::{Reader, instance};
use crate::log::from_microsecond;
use crate::{Error, PastStatement, Sample, SampleRow};
use backstop_core::{DagId, InstanceId, RunId};
use rusqlite::Row;

const COLUMNS: &str = "s.task, s.map_index, s.try_number, s.place, s.at, s.server, s.session, s.body";

impl Reader<'_> {
    pub(super) fn samples(&self, run: &RunId, instance: &InstanceId) -> Result<Vec<SampleRow>, Error> {
        let Some(key) = self.run_key(run)? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT {COLUMNS} FROM samples s WHERE s.run = ?1 AND s.task = ?2 AND s.map_index = ?3 ORDER BY s.try_number, s.place"
        );
        self.rows(&sql, &[&key, &instance.task.as_str(), &map_column(instance)], |row| sample(run, row))
    }

    pub(super) fn last_samples(&self, run: &RunId) -> Result<Vec<SampleRow>, Error> {
        let Some(key) = self.run_key(run)? else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT {COLUMNS} FROM samples s JOIN instances i ON i.run = s.run AND i.task = s.task AND i.map_index = s.map_index \
             WHERE s.run = ?1 AND i.state = 'running' AND s.try_number = i.try_number AND s.place = (SELECT max(o.place) \
             FROM samples o WHERE o.run = s.run AND o.task = s.task AND o.map_index = s.map_index AND o.try_number = s.try_number)"
        );
        self.rows(&sql, &[&key], |row| sample(run, row))
    }

    pub(super) fn user_of_session(&self, server: &str, session: &str) -> Result<Option<(RunId, InstanceId)>, Error> {
        let sql = "SELECT s.task, s.map_index, r.run_id FROM samples s JOIN runs r ON r.id = s.run \
                   JOIN instances i ON i.run = s.run AND i.task = s.task AND i.map_index = s.map_index \
                   WHERE s.server = ?1 AND s.session = ?2 AND i.state = 'running' AND i.try_number = s.try_number \
                   ORDER BY s.at DESC LIMIT 1";
        let found = self.rows(sql, &[&server, &session], |row| Ok((RunId::new(row.get::<_, String>(2)?), instance(row, 0)?)))?;
        Ok(found.into_iter().next())
    }

    pub(super) fn past_statements(&self, dag: &DagId, runs: u32, limit: u32) -> Result<Vec<PastStatement>, Error> {
        let sql = "SELECT s.task, s.number, s.duration_us, coalesce(s.rows_affected, s.rows_returned) \
                   FROM (SELECT id FROM runs WHERE dag_id = ?1 AND ended_at IS NOT NULL ORDER BY id DESC LIMIT ?2) r \
                   CROSS JOIN statements s ON s.run = r.id WHERE s.segment >= 0 LIMIT ?3";
        self.rows(sql, &[&dag.as_str(), &runs, &limit], |row| {
            let whole = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(PastStatement { task: row.get(0)?, number: row.get(1)?, duration_us: whole(2)?, rows: whole(3)? })
        })
    }
}

fn sample(run: &RunId, row: &Row<'_>) -> rusqlite::Result<SampleRow> {
    let body: String = row.get(7)?;
    Ok(SampleRow {
        run: run.clone(),
        instance: instance(row, 0)?,
        try_number: row.get(2)?,
        place: row.get(3)?,
        at: from_microsecond(row.get(4)?),
        server: row.get(5)?,
        session: row.get(6)?,
        // It is only looked at: one that cannot be read tells nothing, and hinders nobody.
        sample: serde_json::from_str(&body).unwrap_or_else(|_| Sample::default()),
    })
}
