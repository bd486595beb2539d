//! Lists over many runs, as the store on disk gives them.

use super::{Kept, Run};
use crate::view::{GRID_INSTANCES_MAX, LOOKED_AT_MAX, RUNS_LOOKED_AT_MAX, fold_grid};
use crate::{Error, GridRow, InstanceCursor, InstanceFilter, InstancePage, InstanceRow, RunFilter, RunRow};
use backstop_core::{DagId, TaskId};
use std::time::Duration;

impl Kept {
    pub(super) fn runs(&self, filter: &RunFilter, store: &str) -> Result<Vec<RunRow>, Error> {
        Ok(self.listed(filter, store)?.into_iter().map(Run::row).collect())
    }

    fn listed(&self, filter: &RunFilter, store: &str) -> Result<Vec<&Run>, Error> {
        let dates = filter.dates();
        let order = |place: usize| (dates.and_then(|_| date(&self.runs[place])), place);
        let before = match &filter.before {
            None => None,
            Some(run) => {
                let place = *self.places.get(run).ok_or_else(|| Error::no_such_run(run, store))?;
                if dates.is_some() && date(&self.runs[place]).is_none() {
                    return Err(Error::no_such_run(run, store));
                }
                Some(order(place))
            }
        };
        let mut places: Vec<usize> =
            (0..self.runs.len()).filter(|place| before.is_none_or(|before| order(*place) < before)).collect();
        places.sort_by_key(|place| std::cmp::Reverse(order(*place)));
        Ok(places
            .into_iter()
            .map(|place| &self.runs[place])
            .filter(|run| filter.dag.as_ref().is_none_or(|dag| *dag == run.header.dag_id))
            .filter(|run| filter.phase.is_none_or(|phase| phase == run.projection.run.phase))
            .filter(|run| !filter.unfinished || !run.projection.run.is_finished())
            .filter(|run| dates.is_none_or(|(from, until)| date(run).is_some_and(|date| (from..=until).contains(&date))))
            .take(filter.rows_max())
            .collect())
    }

    pub(super) fn list_instances(&self, filter: &InstanceFilter, store: &str) -> Result<InstancePage, Error> {
        let mut page = InstancePage::default();
        let from = match &filter.after {
            None => self.runs.len(),
            Some(after) => 1 + *self.places.get(&after.run).ok_or_else(|| Error::no_such_run(&after.run, store))?,
        };
        let mut looked_at = 0;
        let runs = self.runs[..from].iter().rev().filter(|run| filter.dag.as_ref().is_none_or(|dag| *dag == run.header.dag_id));
        for run in runs {
            let after = filter.after.as_ref().filter(|after| after.run == run.header.run_id).map(|after| &after.instance);
            for row in run.by_task() {
                let is_behind = after.is_none_or(|after| row.instance > *after);
                if !is_behind || filter.task.as_ref().is_some_and(|task| *task != row.instance.task) {
                    continue;
                }
                looked_at += 1;
                let cursor = InstanceCursor { run: run.header.run_id.clone(), instance: row.instance.clone() };
                if filter.state.as_ref().is_none_or(|state| *state == row.state) {
                    page.rows.push((run.header.run_id.clone(), run.header.dag_id.clone(), row));
                }
                if page.rows.len() >= filter.rows_max() || looked_at >= LOOKED_AT_MAX {
                    page.next = Some(cursor);
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    pub(super) fn grid(&self, filter: &RunFilter, store: &str) -> Result<Vec<GridRow>, Error> {
        let mut rows = Vec::new();
        let mut read = 0;
        for run in self.listed(filter, store)? {
            let instances = run.by_task();
            let count = instances.len();
            read += count;
            if read > GRID_INSTANCES_MAX && !rows.is_empty() {
                break;
            }
            let mut tasks = Vec::new();
            instances.into_iter().take(GRID_INSTANCES_MAX).for_each(|row| fold_grid(&mut tasks, row));
            rows.push(GridRow { run: run.row(), tasks, is_cut: count > GRID_INSTANCES_MAX });
        }
        Ok(rows)
    }

    pub(super) fn durations(&self, dag: &DagId, task: &TaskId, limit: u32) -> Vec<Duration> {
        let runs = self.runs.iter().rev().filter(|run| run.header.dag_id == *dag).take(RUNS_LOOKED_AT_MAX);
        let of_run = |run: &Run| -> Vec<Duration> {
            let rows = run.by_task().into_iter().filter(|row| row.instance.task == *task && row.state == "success");
            let ends = rows.filter_map(|row| Some((row.started_at?, row.ended_at?)));
            ends.filter_map(|(start, end)| Duration::try_from(end.duration_since(start)).ok()).collect()
        };
        let found = runs.map(of_run).filter(|found| !found.is_empty());
        found.take(limit as usize).flatten().take(LOOKED_AT_MAX).collect()
    }
}

impl Run {
    /// Its instances by task and map index.
    fn by_task(&self) -> Vec<InstanceRow> {
        let mut rows = self.projection.instances();
        rows.sort_by(|a, b| a.instance.cmp(&b.instance));
        rows
    }
}

fn date(run: &Run) -> Option<i64> {
    run.header.logical_date.map(jiff::Timestamp::as_microsecond)
}
