//! What operators do to several runs of a DAG at once: the same to each, each durable by itself.
//!
//! Nothing is done before all of it has been looked at: a range that is too large is refused as a whole.

use super::current::Operated;
use super::desk::explain;
use super::{Error, Operation, Service, Who};
use backstop_core::{DagId, RunId};
use backstop_store::{RunFilter, RunRow, Store};
use jiff::Timestamp;
use std::sync::Arc;

/// Runs that one request may be about.
const RUNS_MAX: usize = 1_000;
/// Task instances that one request may be about.
const INSTANCES_MAX: usize = 100_000;
/// Runs read at once.
const RUNS_AT_ONCE: u32 = 500;

/// Which runs of a DAG, by their logical dates, both inclusive. `None` is without end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub from: Option<Timestamp>,
    /// The last.
    pub to: Option<Timestamp>,
}

/// What was done to one run, or would be.
#[derive(Clone, Debug)]
pub struct DoneToRun {
    /// Which.
    pub run: RunId,
    /// What it is about.
    pub logical_date: Option<Timestamp>,
    /// The instances, none where all of it is so already, and the files; or why it was refused for this run.
    pub outcome: Result<Operated, String>,
}

/// The runs of a DAG in a range, the earliest date first. Dry runs are left out.
///
/// # Errors
/// `Invalid` when the range ends before it begins, or has more than a thousand runs; the store.
pub async fn runs_between(store: &dyn Store, dag: &DagId, range: Range) -> Result<Vec<RunRow>, Error> {
    let (from, to) = (range.from.unwrap_or(Timestamp::MIN), range.to.unwrap_or(Timestamp::MAX));
    if to < from {
        return Err(Error::Invalid(format!("the range ends ({to}) before it begins ({from})")));
    }
    let mut filter = RunFilter {
        dag: Some(dag.clone()),
        dates_from: Some(from),
        dates_until: Some(to),
        limit: RUNS_AT_ONCE,
        ..RunFilter::default()
    };
    let mut found = Vec::new();
    loop {
        let page = store.runs(&filter).await?;
        filter.before = page.last().map(|row| row.header.run_id.clone());
        let is_last = page.len() < RUNS_AT_ONCE as usize;
        found.extend(page.into_iter().filter(|row| !row.header.dry_run));
        if found.len() > RUNS_MAX {
            return Err(Error::Invalid(format!("more than {RUNS_MAX} runs of DAG `{dag}` are meant: narrow the dates")));
        }
        if is_last {
            break;
        }
    }
    found.sort_by_key(|row| row.header.logical_date);
    Ok(found)
}

impl Service {
    /// Does the same to each run of a DAG in a range. Runs without a task that is meant are left out of the answer. With `dry_run` nothing is
    /// done.
    ///
    /// # Errors
    /// `Invalid` when the range is too large or no reason is given: then nothing was done; the store. That one run refuses is in the answer.
    pub async fn operate_on_runs(
        self: &Arc<Self>,
        dag: &str,
        range: Range,
        operation: &Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Vec<DoneToRun>, Error> {
        if by.why.trim().is_empty() {
            // Also where there is no run to refuse it.
            return Err(Error::Invalid("`why` is empty: say why, it is kept in the run's log".into()));
        }
        // Runs of a DAG that is gone are steered, too.
        let rows = runs_between(&*self.store, &DagId::new(dag), range).await?;
        if rows.is_empty() {
            self.dag(dag)?;
        }
        self.operate_on_all(&rows, operation, by, dry_run).await
    }

    /// As [`Self::operate_on_runs`], on a run and on those of its DAG that are about earlier dates (`past`) or later ones (`future`).
    ///
    /// # Errors
    /// As [`Self::operate_on_runs`]; `NoRun`; `Invalid` when the run is about no date.
    pub async fn operate_around(
        self: &Arc<Self>,
        run: &RunId,
        (past, future): (bool, bool),
        operation: &Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Vec<DoneToRun>, Error> {
        let header = self.row(run).await?.header;
        let date = header.logical_date;
        let date = date.ok_or_else(|| Error::Invalid(format!("run {run} is about no date: it has neither past nor future")))?;
        let range = Range { from: (!past).then_some(date), to: (!future).then_some(date) };
        let mut rows = runs_between(&*self.store, &header.dag_id, range).await?;
        // Another run about the same date is neither past nor future.
        rows.retain(|row| row.header.run_id == *run || row.header.logical_date != Some(date));
        self.operate_on_all(&rows, operation, by, dry_run).await
    }

    async fn operate_on_all(
        self: &Arc<Self>,
        rows: &[RunRow],
        operation: &Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Vec<DoneToRun>, Error> {
        // Once for all of them.
        self.look_again().await;
        let planned = self.on_each(rows, operation, by, true).await?;
        let instances: usize = planned.iter().map(|done| done.outcome.as_ref().map_or(0, |done| done.instances.len())).sum();
        if instances > INSTANCES_MAX {
            return Err(Error::Invalid(format!(
                "{instances} task instances are meant, of at most {INSTANCES_MAX}: narrow the dates"
            )));
        }
        if dry_run { Ok(planned) } else { self.on_each(rows, operation, by, false).await }
    }

    async fn on_each(
        self: &Arc<Self>,
        rows: &[RunRow],
        operation: &Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Vec<DoneToRun>, Error> {
        let mut done = Vec::new();
        for row in rows {
            let run = row.header.run_id.clone();
            let outcome = match self.operate_on(&run, operation.clone(), by, dry_run).await {
                Ok(operated) => Ok(operated),
                Err(Error::NothingMeant) => continue,
                // What is so already needs nothing to be done.
                Err(Error::NothingToChange) => Ok(Operated::default()),
                Err(Error::Conflict(why)) => Err(why),
                // What was done to the runs before stays: the answer must tell of it.
                Err(error) if !dry_run && !done.is_empty() => Err(explain(&error)),
                Err(error) => return Err(error),
            };
            done.push(DoneToRun { run, logical_date: row.header.logical_date, outcome });
        }
        Ok(done)
    }
}
