//! Watches the deadlines of runs that wait: for a place, because their DAG is paused, until they are tried again, or for a person. (A run that
//! is driven tells by itself.)
//!
//! What is told is in the run's log, so that no crash tells it twice, and what fell due while no service was there is told when the next one
//! starts. For as long as it takes, callbacks included, an engine has the run and begins nothing else of it; if its turn comes
//! meanwhile, the run begins behind that. It must not know when a run may begin: that is the desk's business.

use super::desk::{Place, explain};
use super::live::LiveWatcher;
use super::notice::{Level, Topic};
use super::{Error, Service};
use crate::deadlines;
use crate::run::{self, Control, Launch, Limits, Told};
use backstop_core::event::RunHeader;
use backstop_core::timetable::{Deadline, PastDurations};
use backstop_core::{DagId, RunId};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
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
    /// Where each run waits, with which files, and when it is to be looked at next.
    runs: BTreeMap<RunId, (Place, Arc<RunHeader>, Timestamp)>,
    /// By version of a DAG.
    deadlines: BTreeMap<String, Arc<[Deadline]>>,
    /// By DAG: how long its runs took, and when that was read.
    past: BTreeMap<DagId, (Timestamp, Option<PastDurations>)>,
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
            self.look_at_deadlines(&mut watched, &mut telling).await;
            let next = watched.runs.values().map(|(.., at)| at).min().filter(|_| telling.len() < TELLING_MAX);
            let wait = next.map_or(LOOK_EVERY, |at| crate::clock::until(self.clock.now(), *at).clamp(REST_MIN, LOOK_EVERY));
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(looked) = telling.join_next() => watched.took(looked.ok(), self.clock.now()),
                () = tokio::time::sleep(wait) => {}
            }
        }
        while telling.join_next().await.is_some() {}
    }

    async fn look_at_deadlines(self: &Arc<Self>, watched: &mut Watched, telling: &mut JoinSet<Looked>) {
        let now = self.clock.now();
        let waiting = self.desk().waiting();
        watched.runs.retain(|run, _| waiting.contains_key(run));
        for (run, (header, place)) in waiting.into_iter().filter(|(_, (header, _))| !header.dry_run) {
            // What was known of it where it waited before, or with other files, does not hold here.
            let is_as_known = |known: &Place, of: &Arc<RunHeader>| *known == place && of.version == header.version;
            let is_due = watched.runs.get(&run).is_none_or(|(known, of, at)| !is_as_known(known, of) || *at <= now);
            if !is_due || telling.len() >= TELLING_MAX || self.desk().is_telling(&run) {
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
            watched.runs.insert(run, (place, header, next));
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
            watcher: Arc::new(LiveWatcher::new(self, run.clone(), header.dag_id.clone(), header.queued_at)),
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
    /// A run was told of. One whose telling broke off is looked at again.
    fn took(&mut self, looked: Option<Looked>, now: Timestamp) {
        match looked {
            Some((header, next)) => {
                let known = self.runs.get_mut(&header.run_id).filter(|(_, of, _)| of.version == header.version);
                if let Some((.., at)) = known {
                    *at = next.unwrap_or(Timestamp::MAX);
                }
            }
            None => self.runs.values_mut().filter(|(.., at)| *at == Timestamp::MAX).for_each(|(.., at)| *at = now),
        }
    }
}
