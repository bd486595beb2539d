//! Lists over many runs, as the store on disk gives them.

use super::{Kept, Run};
use crate::projection;
use crate::view::{GRID_INSTANCES_MAX, LOOKED_AT_MAX, RUNS_LOOKED_AT_MAX, fold_grid};
use crate::{
    Error, GridRow, InstanceCursor, InstanceFilter, InstancePage, InstanceRow, PrunableRun, PruneRule, Recorded, RunFilter,
    RunRow, StatementCursor, StatementFilter, StatementPage, VersionUse,
};
use backstop_core::state::RunPhase;
use backstop_core::{DagId, RunId, TaskId};
use jiff::Timestamp;
use std::collections::BTreeMap;
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
        if let Some(run) = &filter.run {
            let is_other = filter.after.as_ref().is_some_and(|after| after.run != *run);
            if is_other || !self.places.contains_key(run) {
                return Err(Error::no_such_run(run, store));
            }
        }
        let runs = self.runs[..from].iter().rev().filter(|run| {
            filter.run.as_ref().is_none_or(|wanted| *wanted == run.header.run_id)
                && filter.dag.as_ref().is_none_or(|dag| *dag == run.header.dag_id)
        });
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

    pub(super) fn list_statements(&self, filter: &StatementFilter) -> StatementPage {
        let events = self.run(&filter.run).map(|run| run.events.as_slice()).unwrap_or_default();
        let of_event = |recorded: &Recorded| {
            let rows = projection::statements(&recorded.event).map(|found| found.rows()).unwrap_or_default();
            let seq = recorded.seq;
            (0..).zip(rows).map(move |(place, row)| (StatementCursor { seq, place }, row))
        };
        let behind = events.iter().flat_map(of_event).filter(|(place, _)| filter.after.is_none_or(|after| *place > after));
        match StatementPage::fill(filter, behind.map(Ok::<_, std::convert::Infallible>)) {
            Ok(page) => page,
            Err(never) => match never {},
        }
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

    pub(super) fn versions(&self, dag: &DagId) -> Vec<VersionUse> {
        let pinned = |digest: &str| {
            let digest = digest.to_owned();
            self.runs.iter().enumerate().filter(move |(_, run)| run.header.dag_id == *dag && run.header.version == digest)
        };
        let id = |run: &Run| run.header.run_id.clone();
        let mut found: Vec<(Option<usize>, VersionUse)> = self
            .versions
            .values()
            .filter(|version| version.dag_id == *dag)
            .map(|version| {
                let (first, last) = (pinned(&version.digest).next(), pinned(&version.digest).next_back());
                let told = VersionUse {
                    digest: version.digest.clone(),
                    first_run: first.map(|(_, run)| id(run)),
                    last_run: last.map(|(_, run)| id(run)),
                };
                (last.map(|(place, _)| place), told)
            })
            .collect();
        found.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.digest.cmp(&other.digest)));
        found.into_iter().map(|(_, told)| told).take(crate::VERSIONS_MAX as usize).collect()
    }

    pub(super) fn prunable(&self, rule: &PruneRule, limit: u32) -> Vec<PrunableRun> {
        let mut by_dag: BTreeMap<&DagId, Vec<&Run>> = BTreeMap::new();
        self.runs.iter().for_each(|run| by_dag.entry(&run.header.dag_id).or_default().push(run));
        let may_go = |dag: &DagId, runs: Vec<&Run>| -> Vec<PrunableRun> {
            let last_good = runs.iter().rposition(|run| run.projection.run.phase == RunPhase::Succeeded);
            let count = runs.len();
            let ended = |run: &Run| run.projection.run.ended_at.filter(|_| run.projection.run.is_finished());
            let old = runs.iter().enumerate().filter(|(place, _)| count - place > rule.runs_min.max(1) as usize);
            old.filter(|(place, _)| Some(*place) != last_good)
                .filter_map(|(place, run)| Some((place, run, ended(run)?)))
                .filter(|(place, _, at)| {
                    let is_old = rule.ended_before.is_some_and(|before| *at < before);
                    let is_over = rule.runs_max.is_some_and(|max| count - place > max as usize);
                    (is_old || is_over) && *at < rule.never_after
                })
                .map(|(_, run, ended_at)| PrunableRun { run: run.header.run_id.clone(), dag: dag.clone(), ended_at })
                .collect()
        };
        by_dag.into_iter().flat_map(|(dag, runs)| may_go(dag, runs)).take(limit as usize).collect()
    }

    pub(super) fn remove(&mut self, wanted: Vec<RunId>, never_after: Timestamp) -> Vec<RunId> {
        let newest = self.runs.last().map(|run| run.header.run_id.clone());
        let may_go = |kept: &Self, run: &RunId| {
            let fold = kept.run(run).map(|run| &run.projection.run);
            fold.is_some_and(|fold| fold.is_finished() && fold.ended_at.is_some_and(|at| at < never_after))
                && newest.as_ref() != Some(run)
        };
        let gone: Vec<RunId> = wanted.into_iter().filter(|run| may_go(self, run)).collect();
        self.runs.retain(|run| !gone.contains(&run.header.run_id));
        self.places = self.runs.iter().enumerate().map(|(place, run)| (run.header.run_id.clone(), place)).collect();
        self.remove_asset_updates();
        gone
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
