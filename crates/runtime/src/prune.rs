//! Old runs leave: their markers in the users' databases first, then the run itself, then its logs.
//!
//! A run is locked while it goes, so that nobody opens it again meanwhile, and only runs that are over for good go. Everything is done in
//! small batches: whoever calls rests between them. It must not know who asked, nor when the next batch is due.

mod markers;

pub use markers::{MarkerPlace, marker_places};

use crate::logs::{NeededHours, forget_hours};
use crate::sessions::Connect;
use backstop_core::{DagId, RunId};
use backstop_store::{Error, ErrorKind, PruneRule, RunFilter, RunLock, Store};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Runs that go at once. Bounded also by the placeholders of one statement that deletes their markers.
pub const RUNS_AT_ONCE: u32 = 50;
/// Rows that are deleted in one commit of the store.
const ROWS_AT_ONCE: u32 = 500;
/// Runs read at once when it is looked which hours are needed.
const RUNS_LOOKED_AT_ONCE: u32 = 1000;
/// Runs that are held by a process, and passed over; with more, pruning waits for another time.
const HELD_MAX: usize = 1000;
/// Files of hours younger than this stay: runs may be writing to them.
const HOURS_SETTLED_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Callbacks write to the log of a run that is over.
const HOURS_BEHIND_END: SignedDuration = SignedDuration::from_hours(2);
/// DAGs that are named when it is told what went.
const DAGS_TOLD_MAX: usize = 5;

/// Which runs are kept. By default all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So long after they ended.
    pub runs_for: Option<Duration>,
    /// So many of each DAG, the newest.
    pub runs: Option<u32>,
}

impl Keep {
    /// True when no run ever goes.
    pub fn is_all(&self) -> bool {
        self.runs_for.is_none() && self.runs.is_none()
    }

    /// What the store is asked, at this time. What ended less than `settled_after` ago stays.
    pub fn rule(&self, now: Timestamp, settled_after: Duration) -> PruneRule {
        let ago = |length: Duration| {
            let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
            now.checked_sub(length).unwrap_or(Timestamp::MIN)
        };
        PruneRule { ended_before: self.runs_for.map(ago), runs_max: self.runs, runs_min: 1, never_after: ago(settled_after) }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.runs_for, self.runs) {
            (None, None) => f.write_str("all runs are kept"),
            (Some(length), None) => write!(f, "runs are kept for {}", in_words(length)),
            (None, Some(count)) => write!(f, "the newest {count} runs of each DAG are kept"),
            (Some(length), Some(count)) => {
                write!(f, "runs are kept for {}, and no more than the newest {count} of each DAG", in_words(length))
            }
        }
    }
}

fn in_words(length: Duration) -> String {
    match length.as_secs() {
        days if days >= 86_400 && days % 86_400 == 0 => format!("{} d", days / 86_400),
        hours if hours >= 3600 && hours % 3600 == 0 => format!("{} h", hours / 3600),
        seconds => format!("{seconds} s"),
    }
}

/// What went, and what could not go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Runs that went, by DAG.
    pub runs: BTreeMap<DagId, u64>,
    /// Markers that went with them.
    pub markers: u64,
    /// Connections whose markers stayed, and why.
    pub markers_left: BTreeMap<String, String>,
    /// Runs that a process has; they stay for now.
    pub held: BTreeSet<RunId>,
    /// Why logs stayed.
    pub logs_left: Option<String>,
}

impl Pruned {
    /// How many runs went.
    pub fn count(&self) -> u64 {
        self.runs.values().sum()
    }
}

impl fmt::Display for Pruned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut dags: Vec<(&DagId, u64)> = self.runs.iter().map(|(dag, count)| (dag, *count)).collect();
        dags.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let more = dags.len().saturating_sub(DAGS_TOLD_MAX);
        let mut told: Vec<String> = dags.iter().take(DAGS_TOLD_MAX).map(|(dag, count)| format!("{count} of `{dag}`")).collect();
        if more > 0 {
            told.push(format!("others of {more} more DAGs"));
        }
        let plural = |count: u64| if count == 1 { "" } else { "s" };
        write!(f, "removed {} run{}", self.count(), plural(self.count()))?;
        if !told.is_empty() {
            write!(f, " ({})", told.join(", "))?;
        }
        write!(f, " and {} marker{}", self.markers, plural(self.markers))?;
        for (connection, why) in &self.markers_left {
            write!(f, "; markers in `{connection}` stay: {why}")?;
        }
        if let Some(why) = &self.logs_left {
            write!(f, "; logs stay: {why}")?;
        }
        Ok(())
    }
}

/// What runs leave by.
pub struct Pruner<'a> {
    /// From where.
    pub store: &'a dyn Store,
    /// Which.
    pub rule: PruneRule,
    /// Makes connectors to where markers are.
    pub connect: &'a Connect,
    /// Where their markers may be.
    pub places: &'a [MarkerPlace],
    /// The folder of logs.
    pub logs: Option<&'a Path>,
}

impl Pruner<'_> {
    /// Lets some runs go, durably, and adds them to what went. False when none is left that may go now.
    ///
    /// # Errors
    /// When the store fails. What went before is in `pruned`.
    pub async fn batch(&self, pruned: &mut Pruned) -> Result<bool, Error> {
        if pruned.held.len() >= HELD_MAX {
            return Ok(false);
        }
        // Those that are held are found again each time.
        let wanted = RUNS_AT_ONCE + u32::try_from(pruned.held.len()).unwrap_or(0);
        let found = self.store.prunable(&self.rule, wanted).await?;
        let mut locks: Vec<RunLock> = Vec::new();
        let mut going = BTreeMap::new();
        for found in
            found.into_iter().filter(|found| !pruned.held.contains(&found.run)).take(RUNS_AT_ONCE as usize).collect::<Vec<_>>()
        {
            match self.store.lock_run(&found.run) {
                Ok(lock) => {
                    locks.push(lock);
                    going.insert(found.run, found.dag);
                }
                Err(error) if error.kind == ErrorKind::Busy => drop(pruned.held.insert(found.run)),
                Err(error) => return Err(error),
            }
        }
        let runs: Vec<RunId> = self.still_over(going.keys()).await?;
        if runs.is_empty() {
            return Ok(false);
        }
        markers::forget(self.connect, self.places, &runs, pruned).await;
        let gone = self.store.remove_runs(&runs, self.rule.never_after).await?;
        drop(locks);
        for run in &gone {
            if let Some(dag) = going.get(run) {
                *pruned.runs.entry(dag.clone()).or_default() += 1;
            }
            if let Some(logs) = self.logs
                && let Err(error) = forget_logs(logs, run).await
            {
                pruned.logs_left = Some(format!("{}: {error}", logs.join(run.as_str()).display()));
            }
        }
        Ok(!gone.is_empty())
    }

    /// Those that are over now that they are locked: one may have been opened again since it was found. Its markers must stay.
    async fn still_over(&self, runs: impl Iterator<Item = &RunId>) -> Result<Vec<RunId>, Error> {
        let mut over = Vec::new();
        for run in runs {
            let row = self.store.run(run).await?;
            let ended_at = row.as_ref().filter(|row| row.is_finished()).and_then(|row| row.ended_at);
            if ended_at.is_some_and(|at| at < self.rule.never_after) {
                over.push(run.clone());
            }
        }
        Ok(over)
    }
}

/// Deletes some rows that removed runs left in the store. False when none is left.
///
/// # Errors
/// When the store fails.
pub async fn sweep(store: &dyn Store) -> Result<bool, Error> {
    Ok(store.sweep(ROWS_AT_ONCE).await? == ROWS_AT_ONCE)
}

/// The folder of a run's own files; one that said little has none.
async fn forget_logs(logs: &Path, run: &RunId) -> std::io::Result<()> {
    match tokio::fs::remove_dir_all(logs.join(run.as_str())).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes the files of hours in which no run of the store did anything, but for those of the last day. Reads all runs, page by page, and
/// calls `rest` in between.
///
/// # Errors
/// When the store cannot be read; what is wrong with files is said in the inner result.
pub async fn forget_hours_of_no_run<R: Future<Output = ()>>(
    store: &dyn Store,
    logs: &Path,
    now: Timestamp,
    rest: impl Fn() -> R,
) -> Result<std::io::Result<u64>, Error> {
    let before = now.checked_sub(HOURS_SETTLED_AFTER).unwrap_or(Timestamp::MIN);
    let mut needed = NeededHours::default();
    let mut filter = RunFilter { limit: RUNS_LOOKED_AT_ONCE, ..RunFilter::default() };
    loop {
        let page = match store.runs(&filter).await {
            // The run that the page before ended with went meanwhile: another time.
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Ok(0)),
            other => other?,
        };
        for row in &page {
            let end = row.ended_at.and_then(|at| at.checked_add(HOURS_BEHIND_END).ok()).filter(|_| row.is_finished());
            needed.add(row.header.queued_at, end.unwrap_or(before).min(before));
        }
        filter.before = page.last().map(|row| row.header.run_id.clone());
        if page.len() < RUNS_LOOKED_AT_ONCE as usize {
            break;
        }
        rest().await;
    }
    Ok(forget_hours(logs, before, &needed))
}

#[cfg(test)]
mod tests;
