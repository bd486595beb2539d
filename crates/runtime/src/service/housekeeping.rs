//! Old runs leave the store while the service goes on: in small batches with rests between them, so that nobody waits for it.

use super::Service;
use super::notice::{Level, Topic};
use crate::prune::{self, MarkerPlace, Pruned, Pruner, marker_places};
use backstop_store::{Act, Error};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the end of a round to the next.
const ROUND_EVERY: Duration = Duration::from_secs(600);
/// What ended less than this ago stays whatever the limits say: somebody may be looking at it, or wait for it.
const SETTLED_AFTER: Duration = Duration::from_secs(3600);
/// The shortest rest between two batches.
const REST_MIN: Duration = Duration::from_millis(20);
/// A rest takes so many times as long as the batch before it.
const REST_FACTOR: u32 = 4;
/// Runs that may have gone before that is written to the audit.
const RUNS_OF_AN_ACT: u64 = 1000;
/// From one look for files of hours that nobody needs to the next: it reads all runs.
const HOURS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Whose name the acts have.
const WHO: &str = "backstop";

/// What housekeeping has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Housekeeping {
    /// Runs that this process removed.
    pub runs_removed: u64,
    /// Why the last round did not come to its end.
    pub trouble: Option<String>,
}

impl Service {
    /// What housekeeping has come to, since the process began.
    pub fn housekeeping(&self) -> Housekeeping {
        self.housekeeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Keeps house until the service stops.
    pub(super) async fn keep_house(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let mut hours_at: Option<Instant> = None;
        loop {
            let outcome = self.round(&mut hours_at).await;
            let trouble = outcome.err().map(|error| super::desk::explain(&error));
            let before = {
                let mut housekeeping = self.housekeeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                std::mem::replace(&mut housekeeping.trouble, trouble.clone())
            };
            match trouble {
                Some(why) if before.is_none() => {
                    self.notices.tell(Topic::House, Level::Warn, &format!("old runs could not be removed: {why}"));
                }
                Some(_) | None => {}
            }
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = tokio::time::sleep(ROUND_EVERY) => {}
            }
        }
    }

    async fn round(&self, hours_at: &mut Option<Instant>) -> Result<(), Error> {
        // What an earlier process, or a command, removed and did not come to delete.
        self.sweep().await?;
        if self.keep.is_all() {
            return Ok(());
        }
        let places = self.marker_places();
        let rule = self.keep.rule(self.clock.now(), SETTLED_AFTER);
        let pruner = Pruner { store: &*self.store, rule, connect: &self.connect, places: &places, logs: self.logs.root() };
        let mut pruned = Pruned::default();
        loop {
            let begin = Instant::now();
            let outcome = pruner.batch(&mut pruned).await;
            let is_last = !matches!(outcome, Ok(true)) || self.is_stopping();
            if pruned.count() >= RUNS_OF_AN_ACT || is_last {
                self.note_act(&mut pruned).await?;
            }
            outcome?;
            if is_last {
                break;
            }
            self.rest(begin.elapsed()).await;
            self.sweep().await?;
        }
        self.sweep().await?;
        if hours_at.is_none_or(|at| at.elapsed() >= HOURS_EVERY)
            && !self.is_stopping()
            && let Some(logs) = self.logs.root()
        {
            *hours_at = Some(Instant::now());
            let rest = || self.rest(REST_MIN);
            // Files that cannot be removed are found again.
            let _ = prune::forget_hours_of_no_run(&*self.store, logs, self.clock.now(), rest).await?;
        }
        Ok(())
    }

    /// Writes to the audit what went.
    async fn note_act(&self, pruned: &mut Pruned) -> Result<(), Error> {
        let count = pruned.count();
        if count == 0 {
            return Ok(());
        }
        self.housekeeping.lock().unwrap_or_else(std::sync::PoisonError::into_inner).runs_removed += count;
        let act = Act { at: self.clock.now(), who: WHO.into(), why: self.keep.to_string(), what: pruned.to_string() };
        pruned.runs.clear();
        pruned.markers = 0;
        let line = act.what.clone();
        self.store.put(Vec::new(), Some(act)).await?;
        self.notices.tell(Topic::House, Level::Info, &line);
        Ok(())
    }

    /// Deletes what removed runs left, bit by bit.
    async fn sweep(&self) -> Result<(), Error> {
        loop {
            let begin = Instant::now();
            if !prune::sweep(&*self.store).await? || self.is_stopping() {
                return Ok(());
            }
            self.rest(begin.elapsed()).await;
        }
    }

    async fn rest(&self, after: Duration) {
        tokio::time::sleep(after.saturating_mul(REST_FACTOR).max(REST_MIN)).await;
    }

    /// The databases of all projects. A connection's name is told with its project where there are several.
    fn marker_places(&self) -> Vec<MarkerPlace> {
        let catalog = self.catalog();
        let are_several = catalog.projects().len() > 1;
        let mut places = Vec::new();
        for (project, _) in catalog.projects() {
            for place in marker_places(project) {
                let name = if are_several { format!("{} of {}", place.name, project.root.display()) } else { place.name };
                places.push(MarkerPlace { name, ..place });
            }
        }
        places
    }
}
