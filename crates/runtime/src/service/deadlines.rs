//! Watches the deadlines of runs that wait: for a place, because their DAG is paused, until they are tried again, or for a person. (A run that
//! is driven tells by itself.)
//!
//! What is told is in the run's log, so that no crash tells it twice, and what fell due while no service was there is told when the next one
//! starts. For as long as it takes, callbacks included, an engine has the run and begins nothing else of it; if its turn comes
//! meanwhile, the run begins behind that. It must not know when a run may begin: that is the desk's business.

use super::desk::{Moved, Place, explain};
use super::live::LiveWatcher;
use super::notice::{Level, Topic};
use super::{Error, Service};
use crate::deadlines;
use crate::run::{self, Control, Launch, Limits, Told};
use backstop_core::event::RunHeader;
use backstop_core::timetable::{Deadline, PastDurations};
use backstop_core::{DagId, RunId};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Runs that come to wait are seen within this time. No sleep is longer, because the machine may be suspended, or its clock set.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two looks.
const REST_MIN: Duration = Duration::from_millis(10);
/// Runs that are told of at once; the others are told behind them.
const TELLING_MAX: usize = 16;
/// Until a run is looked at again of which nothing could be told.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(15);
/// The same, of a run that was about to begin.
const SOON: SignedDuration = SignedDuration::from_secs(2);
/// How old what is known of a DAG's past may be.
const PAST_AGE_MAX: SignedDuration = SignedDuration::from_secs(60);
/// Versions whose deadlines are remembered.
const VERSIONS_MAX: usize = 1000;

/// What is known of runs that wait.
#[derive(Default)]
struct Watched {
    runs: BTreeMap<RunId, WatchedRun>,
    /// The moments at which runs are to be looked at next, the first one first; without those that are not to be looked at again.
    due: BTreeSet<(Timestamp, RunId)>,
    /// By version of a DAG.
    deadlines: BTreeMap<String, Arc<[Deadline]>>,
    /// By DAG: how long its runs took, and when that was read.
    past: BTreeMap<DagId, (Timestamp, Option<PastDurations>)>,
}

/// A run that waits.
struct WatchedRun {
    /// With the files that it has: what was known of it with others does not hold with these.
    header: Arc<RunHeader>,
    /// Nor does what was known of it where it waited before.
    place: Place,
    /// When it is to be looked at next; [`Timestamp::MAX`]: not by itself.
    next: Timestamp,
}

/// A run that was told of, with the files that it had: when to look again; `None` when nothing more is to be told while it waits.
type Looked = (Arc<RunHeader>, Option<Timestamp>);

impl Service {
    /// Watches until the service stops, and what is being told of has been.
    pub(super) async fn watch_deadlines(self: &Arc<Self>) {
        let mut watched = Watched::default();
        let mut telling: JoinSet<Looked> = JoinSet::new();
        let mut stopping = self.stopping.subscribe();
        loop {
            let moved = self.desk().take_moved();
            watched.see(moved, self.clock.now());
            self.look_at_what_is_due(&mut watched, &mut telling).await;
            let next = watched.next_at().filter(|_| telling.len() < TELLING_MAX);
            let wait = next.map_or(LOOK_EVERY, |at| crate::clock::until(self.clock.now(), at).clamp(REST_MIN, LOOK_EVERY));
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(looked) = telling.join_next() => watched.took(looked.ok(), self.clock.now()),
                () = tokio::time::sleep(wait) => {}
            }
        }
        while telling.join_next().await.is_some() {}
    }

    async fn look_at_what_is_due(self: &Arc<Self>, watched: &mut Watched, telling: &mut JoinSet<Looked>) {
        let now = self.clock.now();
        let soon = now.saturating_add(SOON).unwrap_or(Timestamp::MAX);
        while telling.len() < TELLING_MAX
            && let Some((run, header)) = watched.take_due(now)
        {
            if self.desk().is_telling(&run) {
                // Since before it waited where it does now.
                watched.look_next(&run, soon);
                continue;
            }
            let next = match self.look_at(watched, &header).await {
                Ok(Look::At(at)) => at,
                Ok(Look::Tell(past)) => {
                    let (service, header) = (self.clone(), header.clone());
                    telling.spawn(async move {
                        let next = service.tell_of(&header, past).await;
                        (header, next)
                    });
                    // Until that is over.
                    Timestamp::MAX
                }
                // The store, or sources that do not load: what hinders the run is told elsewhere.
                Err(_) => now.saturating_add(AGAIN_AFTER).unwrap_or(Timestamp::MAX),
            };
            watched.look_next(&run, next);
        }
    }

    /// Whether something may have to be told of a run, as far as that is known without its log.
    async fn look_at(&self, watched: &mut Watched, header: &Arc<RunHeader>) -> Result<Look, String> {
        let deadlines = self.deadlines_of(watched, header).await?;
        if deadlines.is_empty() {
            return Ok(Look::At(Timestamp::MAX));
        }
        let row = self.store.run(&header.run_id).await.map_err(|error| explain(&error))?;
        let Some(row) = row.filter(|row| row.ended_at.is_none()) else { return Ok(Look::At(Timestamp::MAX)) };
        let past = self.past_of(watched, &header.dag_id).await.map_err(|error| explain(&error))?;
        let is_told = |_, _, _| false;
        let (told, next) = deadlines::look(&deadlines, header, row.started_at, is_told, past.as_ref(), self.clock.now());
        // Callbacks that a process that died did not come to run, too.
        if told.is_empty() && row.callbacks_pending == 0 {
            return Ok(Look::At(next.unwrap_or(Timestamp::MAX)));
        }
        Ok(Look::Tell(past))
    }

    async fn deadlines_of(&self, watched: &mut Watched, header: &RunHeader) -> Result<Arc<[Deadline]>, String> {
        if let Some(known) = watched.deadlines.get(&header.version) {
            return Ok(known.clone());
        }
        let (prepared, _) = self.pinned(header).await?;
        let deadlines: Arc<[Deadline]> = prepared.definition.deadlines.as_slice().into();
        if watched.deadlines.len() >= VERSIONS_MAX {
            watched.deadlines.clear();
        }
        watched.deadlines.insert(header.version.clone(), deadlines.clone());
        Ok(deadlines)
    }

    async fn past_of(&self, watched: &mut Watched, dag: &DagId) -> Result<Option<PastDurations>, Error> {
        let now = self.clock.now();
        let is_fresh = |at: Timestamp| now.duration_since(at) < PAST_AGE_MAX;
        if let Some((_, past)) = watched.past.get(dag).filter(|(at, _)| is_fresh(*at)) {
            return Ok(*past);
        }
        watched.past.retain(|_, (at, _)| is_fresh(*at));
        let past = deadlines::past(&*self.store, dag).await?;
        watched.past.insert(dag.clone(), (now, past));
        Ok(past)
    }

    /// Tells what there is to tell of a run that waits. Gives when to look again.
    async fn tell_of(self: &Arc<Self>, header: &Arc<RunHeader>, past: Option<PastDurations>) -> Option<Timestamp> {
        let run = &header.run_id;
        let control = Control::default();
        // It may have begun meanwhile: then it tells by itself.
        let Some(created) = self.desk().begin_telling(run, &control) else {
            return self.clock.now().checked_add(SOON).ok();
        };
        let is_fresh = created.is_some();
        let told = self.tell_run(header, is_fresh, past, control).await;
        let next = match &told {
            Ok(told) => told.next,
            Err(why) => {
                let line = format!("the deadlines of run {run} of DAG `{}` could not be told of: {why}", header.dag_id);
                self.notices.tell(Topic::RunHindered, Level::Warn, &line);
                self.clock.now().checked_add(AGAIN_AFTER).ok()
            }
        };
        self.desk().end_telling(run, told.ok().map(|told| (told, is_fresh)));
        self.told.notify_waiters();
        self.pump.notify_one();
        next
    }

    /// Waits while the deadlines of a run are told of: its lock is held for that long.
    pub(super) async fn until_told(&self, run: &RunId) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // From here on no end is missed.
            told.as_mut().enable();
            if !self.desk().is_telling(run) {
                return;
            }
            told.await;
        }
    }

    async fn tell_run(
        self: &Arc<Self>,
        header: &Arc<RunHeader>,
        is_fresh: bool,
        past: Option<PastDurations>,
        control: Control,
    ) -> Result<Told, String> {
        let run = &header.run_id;
        let _lock = self.store.lock_run(run).map_err(|error| explain(&error))?;
        let (prepared, sessions) = self.pinned(header).await?;
        let launch = Launch {
            prepared,
            store: self.store.clone(),
            logs: self.logs.clone(),
            scratch: self.scratch.clone(),
            clock: self.clock_of(run, is_fresh).await?,
            watcher: Arc::new(LiveWatcher::of(self, header)),
            sessions,
            slots: None,
            others: None,
            limits: Limits::default(),
        };
        run::tell(launch, run, is_fresh, past, control).await.map_err(|error| explain(&error))
    }
}

/// What a look at a run that waits comes to.
enum Look {
    /// Nothing is to be told before then.
    At(Timestamp),
    /// Something may be.
    Tell(Option<PastDurations>),
}

impl Watched {
    /// Runs that began to wait, wait elsewhere or with other files, are to be looked at: what was known of them does not hold any more.
    /// Those that wait no more are not.
    fn see(&mut self, moved: Vec<Moved>, now: Timestamp) {
        for (run, waits) in moved {
            let Some((header, place)) = waits.filter(|(header, _)| !header.dry_run) else {
                self.look_next(&run, Timestamp::MAX);
                self.runs.remove(&run);
                continue;
            };
            if self.runs.get(&run).is_some_and(|known| known.place == place && known.header.version == header.version) {
                continue;
            }
            self.look_next(&run, Timestamp::MAX);
            self.runs.insert(run.clone(), WatchedRun { header, place, next: Timestamp::MAX });
            self.look_next(&run, now);
        }
    }

    /// When the next run is to be looked at.
    fn next_at(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes a run that is to be looked at by now: it is not to be looked at again until [`Self::look_next`] says so.
    fn take_due(&mut self, now: Timestamp) -> Option<(RunId, Arc<RunHeader>)> {
        while let Some((at, run)) = self.due.pop_first() {
            if at > now {
                self.due.insert((at, run));
                return None;
            }
            if let Some(watched) = self.runs.get_mut(&run) {
                watched.next = Timestamp::MAX;
                return Some((run, watched.header.clone()));
            }
        }
        None
    }

    /// Says when a run is to be looked at next; one that does not wait any more is not.
    fn look_next(&mut self, run: &RunId, at: Timestamp) {
        let Some(watched) = self.runs.get_mut(run) else { return };
        if watched.next != Timestamp::MAX {
            self.due.remove(&(watched.next, run.clone()));
        }
        watched.next = at;
        if at != Timestamp::MAX {
            self.due.insert((at, run.clone()));
        }
    }

    /// A run was told of. One whose telling broke off is looked at again.
    fn took(&mut self, looked: Option<Looked>, now: Timestamp) {
        match looked {
            Some((header, next)) => {
                if self.runs.get(&header.run_id).is_some_and(|known| known.header.version == header.version) {
                    self.look_next(&header.run_id, next.unwrap_or(Timestamp::MAX));
                }
            }
            None => {
                let unknown: Vec<RunId> =
                    self.runs.iter().filter(|(_, watched)| watched.next == Timestamp::MAX).map(|(run, _)| run.clone()).collect();
                unknown.iter().for_each(|run| self.look_next(run, now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::desk::tests::header;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn waits(run: &str, place: Place) -> Moved {
        (run.into(), Some((header(run), place)))
    }

    fn taken(watched: &mut Watched, now: Timestamp) -> Vec<String> {
        std::iter::from_fn(|| watched.take_due(now)).map(|(run, _)| run.to_string()).collect()
    }

    #[test]
    fn of_runs_that_wait_only_those_that_are_due_are_looked_at() {
        let mut watched = Watched::default();
        watched.see((0..10_000).map(|number| waits(&format!("run-{number:05}"), Place::Queued)).collect(), at(0));
        let new = taken(&mut watched, at(0));
        assert_eq!(new.len(), 10_000, "each is looked at once when it is new");
        for (number, run) in new.iter().enumerate() {
            watched.look_next(&RunId::new(&**run), at(100 + number as i64));
        }
        assert_eq!(watched.next_at(), Some(at(100)));
        assert!(taken(&mut watched, at(99)).is_empty());
        assert_eq!(taken(&mut watched, at(101)), ["run-00000", "run-00001"]);
        assert_eq!(watched.due.len(), 9_998);
        // One that waits elsewhere now, or with other files, is looked at anew; one that waits as before is not, and one that waits no
        // more is forgotten.
        let other_files = Arc::new(RunHeader { version: "w".into(), ..(*header("run-06000")).clone() });
        let moved = vec![
            waits("run-05000", Place::Stuck),
            ("run-06000".into(), Some((other_files, Place::Queued))),
            waits("run-07000", Place::Queued),
            ("run-09999".into(), None),
        ];
        watched.see(moved, at(101));
        assert_eq!(taken(&mut watched, at(101)), ["run-05000", "run-06000"]);
        assert_eq!((watched.due.len(), watched.runs.len()), (9_995, 9_999));
        watched.look_next(&RunId::new("run-09999"), at(0));
        assert_eq!(watched.next_at(), Some(at(102)));
    }

    #[test]
    fn what_was_told_holds_for_the_files_that_it_was_told_with() {
        let mut watched = Watched::default();
        watched.see(vec![waits("a", Place::Queued)], at(0));
        assert_eq!(taken(&mut watched, at(0)), ["a"]);
        let other_files = Arc::new(RunHeader { version: "w".into(), ..(*header("a")).clone() });
        watched.see(vec![("a".into(), Some((other_files, Place::Queued)))], at(1));
        watched.took(Some((header("a"), None)), at(1));
        assert_eq!(taken(&mut watched, at(1)), ["a"]);
    }

    #[test]
    fn one_whose_telling_broke_off_is_looked_at_again() {
        let mut watched = Watched::default();
        watched.see(vec![waits("a", Place::Queued), waits("b", Place::Queued)], at(0));
        assert_eq!(taken(&mut watched, at(0)).len(), 2);
        watched.took(Some((header("a"), Some(at(7)))), at(1));
        watched.took(None, at(1));
        assert_eq!(taken(&mut watched, at(7)), ["b", "a"]);
    }
}
