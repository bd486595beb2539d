//! Drives runs: begins what the desk says goes next, and takes in how that ended.
//!
//! It must not know in which order runs go, nor why one waits: that is the desk's business.

use super::finding::Search;
use super::{Desk, Hindered, Queued, Stuck};
use crate::clock::{Clock, Reading};
use crate::control::Settles;
use crate::prepared::Prepared;
use crate::run::{self, Control, Created, Launch, Limits, Report};
use crate::service::home;
use crate::service::live::LiveWatcher;
use crate::service::notice::{Level, Topic};
use crate::service::{Error, Service};
use crate::sessions::Sessions;
use backstop_core::event::{RunHeader, RunType};
use backstop_core::{RunId, RunPhase};
use backstop_project::Bundle;
use backstop_store::ErrorKind;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long until a run that could not be driven is tried again, at first; it doubles each time.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// The longest such wait.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(60);
/// How often runs are looked for that other processes left behind.
const LOOK_FOR_LEFT_EVERY: Duration = Duration::from_secs(15);

/// What hinders a run whose engine panicked.
const PANICKED: &str = "what drives it panicked: this is a bug in Backstop, please report it with the text on standard error";

/// What hinders a run whose sources cannot even be refused.
const READING_PANICKED: &str =
    "reading the sources it began with panicked: this is a bug in Backstop, please report it with the text on standard error";

/// How driving a run ended.
enum Driven {
    Report(Box<Report>),
    /// It cannot be driven now.
    Hindered(String),
    /// Its sources do not fit, or its project is not there. What this process knows because it made the run still holds.
    Unfit(String, Option<Created>),
    /// Another process drives it.
    Elsewhere(String),
    /// There is nothing to drive.
    Over,
}

impl Service {
    /// Begins what may be begun, until the service stops and nothing is driven any more.
    pub(in crate::service) async fn drive(self: &Arc<Self>) {
        let mut driven = JoinSet::new();
        let mut look_for_left = tokio::time::interval(LOOK_FOR_LEFT_EVERY);
        look_for_left.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is at once, and what was left is found already.
        look_for_left.tick().await;
        let mut search = Search::default();
        loop {
            if self.is_stopping() {
                self.hand_over();
                if driven.is_empty() {
                    return;
                }
            } else {
                self.try_again_what_is_due();
                let now = self.clock.now();
                let limits = self.limits_of_lanes();
                loop {
                    let next = self.desk().next(&self.limits, &limits, now, &self.pump);
                    let Some((queued, control)) = next else { break };
                    let service = self.clone();
                    driven.spawn(async move { service.drive_one(queued, control).await });
                }
            }
            // Who stops tries nothing again: a time that has come would wake it for ever.
            let again_at = self.desk().hindered.values().map(|hindered| hindered.again_at).min().filter(|_| !self.is_stopping());
            let again = async {
                match again_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // In this order, so that what the simulator does follows from its seed; nothing here is ready for ever.
                biased;
                () = self.pump.notified() => {}
                Some(_) = driven.join_next() => {}
                () = again => {}
                _ = look_for_left.tick() => {
                    // The store says what is wrong when something is asked of it; this is asked again soon.
                    let _ = self.look_for_left(&mut search).await;
                }
            }
        }
    }

    fn try_again_what_is_due(&self) {
        let now = tokio::time::Instant::now();
        let mut desk = self.desk();
        let due: Vec<RunId> =
            desk.hindered.iter().filter(|(_, hindered)| hindered.again_at <= now).map(|(run, _)| run.clone()).collect();
        for run in due {
            if let Some(hindered) = desk.hindered.remove(&run) {
                desk.push(hindered.queued);
            }
        }
    }

    fn hand_over(&self) {
        let desk = self.desk();
        desk.active.values().map(|active| &active.control).chain(desk.telling.values()).for_each(Control::hand_over);
    }

    async fn drive_one(self: Arc<Self>, queued: Queued, control: Control) {
        let header = queued.header.clone();
        let failures = queued.failures;
        let name = || format!("run {} of DAG `{}`", header.run_id, header.dag_id);
        self.notices.tell_detail(Topic::RunWell, || format!("{} begins, or goes on", name()));
        let asked = control.clone();
        let driven = AssertUnwindSafe(self.drive_run(queued, control)).catch_unwind().await;
        // Its attempts were stopped with it. What they did is found out when the run is taken over, as after a crash.
        let driven = driven.unwrap_or_else(|_| Driven::Hindered(PANICKED.to_owned()));
        // What was asked of a run that could not be driven would wait for its answer for ever.
        drop(asked.take_inbox());
        match &driven {
            Driven::Report(report) if !report.undecided.is_empty() => {}
            Driven::Report(_) | Driven::Over => self.keeps_nothing(&header.run_id),
            // Nobody knows what it left: it is looked at (`left`).
            Driven::Hindered(_) | Driven::Unfit(..) | Driven::Elsewhere(_) => {}
        }
        match &driven {
            Driven::Report(report) => self.notices.run_ended(&header, report),
            // It is tried again and again: told once, and what hinders it now is in `why`.
            Driven::Hindered(why) | Driven::Unfit(why, _) if failures == 0 => {
                let line = format!("{} could not be driven, and is tried again: {why}", name());
                self.notices.tell(Topic::RunHindered, Level::Warn, &line);
            }
            Driven::Hindered(_) | Driven::Unfit(..) | Driven::Elsewhere(_) | Driven::Over => {}
        }
        let mut desk = self.desk();
        desk.let_go(&header.run_id);
        match driven {
            Driven::Over => {}
            Driven::Report(report) if !report.undecided.is_empty() => {
                let version = report.state.version();
                desk.stick(Stuck { header: header.clone(), undecided: report.undecided, version });
            }
            Driven::Report(_) => {}
            Driven::Hindered(why) | Driven::Elsewhere(why) => self.hinder(&mut desk, (&header, None), failures, why),
            Driven::Unfit(why, created) => {
                let why = format!("{why} (it can be cancelled, and its tasks marked)");
                self.hinder(&mut desk, (&header, created), failures, why);
            }
        }
        desk.replan.dags.insert(header.dag_id.clone());
        drop(desk);
        self.pump.notify_one();
        self.replan.notify_one();
        if header.run_type == RunType::Backfill {
            self.fill_up.notify_one();
        }
    }

    /// A run that is to be tried again, less and less often.
    fn hinder(&self, desk: &mut Desk, (header, created): (&Arc<RunHeader>, Option<Created>), failures: u32, why: String) {
        let wait = AGAIN_AFTER.saturating_mul(1 << failures.min(5)).min(AGAIN_AFTER_MAX);
        let queued = Queued { header: header.clone(), created, failures: failures.saturating_add(1) };
        let again_at = tokio::time::Instant::now() + wait;
        let again = self.clock.now().saturating_add(wait).unwrap_or(Timestamp::MAX);
        desk.hinder(Hindered { queued, why, again_at, again });
    }

    async fn drive_run(self: &Arc<Self>, queued: Queued, control: Control) -> Driven {
        let Queued { mut header, created, .. } = queued;
        let run = header.run_id.clone();
        // Held until the run is let go.
        let _lock = match self.store.lock_run(&run) {
            Ok(lock) => lock,
            Err(error) if error.kind == ErrorKind::Busy => return Driven::Elsewhere(error.message),
            Err(error) => return Driven::Hindered(explain(&error)),
        };
        if created.is_none() {
            // As long as it waited it may have been given other files.
            match self.store.run(&run).await {
                Ok(Some(row)) if row.is_finished() => return Driven::Over,
                Ok(Some(row)) => header = row.header,
                Ok(None) => return Driven::Over,
                Err(error) => return Driven::Hindered(explain(&error)),
            }
        }
        let mut unfit = None;
        let (prepared, sessions) = match self.pinned(&header).await {
            Ok(found) => found,
            Err(why) => match self.settled_by_shape(&header, &control).await {
                Some(found) => {
                    unfit = Some(why);
                    found
                }
                None => return Driven::Unfit(why, created),
            },
        };
        let clock: Arc<dyn Clock> = match self.clock_of(&run, created.is_some()).await {
            Ok(clock) => clock,
            Err(why) => return Driven::Hindered(why),
        };
        let launch = Launch {
            prepared,
            store: self.store.clone(),
            logs: self.logs.clone(),
            scratch: self.scratch.clone(),
            clock,
            watcher: Arc::new(LiveWatcher::of(self, &header)),
            sessions,
            slots: Some(self.slots.clone()),
            others: Some(self.clone()),
            limits: Limits::default(),
        };
        let ended = match created {
            Some(created) => run::begin(launch, created, control).await,
            None => run::resume(launch, &run, &[], control).await,
        };
        match (ended, unfit) {
            // What was asked is done; it is no more gone on with than before.
            (Ok(report), Some(why)) if !report.state.is_finished() && report.undecided.is_empty() => Driven::Unfit(why, None),
            (Ok(report), _) => Driven::Report(Box::new(report)),
            (Err(run::Error::Over { .. }), _) => Driven::Over,
            (Err(error), _) => Driven::Hindered(explain(&error)),
        }
    }

    /// With what a run is begun that cannot be gone on with, where what is asked of it can be done all the same: then that is done, and
    /// nothing else.
    async fn settled_by_shape(&self, header: &RunHeader, control: &Control) -> Option<(Arc<Prepared>, Arc<Sessions>)> {
        let settles = control.settles()?;
        let found = self.shape(header).await.ok()?;
        match settles {
            // Behind what is asked.
            Settles::Instances => control.hand_over(),
            // It may first have to be looked for what an earlier process did, and once it is cancelled nothing begins.
            Settles::Run => {}
        }
        Some(found)
    }

    /// What a run goes on with: the definition it began with, and the project's connections as they are now.
    pub(in crate::service) async fn pinned(&self, header: &RunHeader) -> Result<(Arc<Prepared>, Arc<Sessions>), String> {
        let catalog = self.catalog();
        let entry = catalog.dag(header.dag_id.as_str());
        if let Some(entry) =
            entry.filter(|entry| entry.definition.version == header.version && home::is_known_in(header, &entry.project))
        {
            return Ok((entry.prepared.clone(), entry.sessions.clone()));
        }
        let (project, sessions) = self.project_of(&catalog, header).await?;
        let kept = self.store.version(&header.version).await.map_err(|error| explain(&error))?;
        let kept = kept.ok_or_else(|| format!("the sources it began with (version {}) are not kept any more", header.version))?;
        let bundle = Bundle::from_bytes(&kept.bundle).map_err(|error| explain(&error))?;
        // Sources that make it panic hinder the runs that have them, and not the service.
        let load = || self.loader.load_kept(&header.version, &bundle, &header.dag_id, &project);
        let loaded = std::panic::catch_unwind(AssertUnwindSafe(load)).map_err(|_| READING_PANICKED.to_owned())?;
        let definition = loaded.map_err(|diagnostics| {
            let first = diagnostics.first().map(|diagnostic| diagnostic.message.clone()).unwrap_or_default();
            format!("the sources it began with do not fit the project any more: {first}")
        })?;
        Ok((Prepared::new(project, definition), sessions))
    }

    /// A run's clock never goes back behind its last event, whatever became of the machine's.
    pub(in crate::service) async fn clock_of(&self, run: &RunId, is_fresh: bool) -> Result<Arc<dyn Clock>, String> {
        if is_fresh {
            return Ok(self.clock.clone());
        }
        let row = self.store.run(run).await.map_err(|error| explain(&error))?;
        let last = row.map_or(0, |row| row.version.saturating_sub(1));
        let events = self.store.events(run, last, 1).await.map_err(|error| explain(&error))?;
        Ok(Arc::new(NotBefore { clock: self.clock.clone(), earliest: events.first().map(|recorded| recorded.at) }))
    }

    /// True when nothing more will happen to the run by itself.
    ///
    /// # Errors
    /// No such run; the store.
    pub async fn is_over(&self, run: &RunId) -> Result<bool, Error> {
        let row = self.store.run(run).await?.ok_or_else(|| Error::NoRun(run.clone()))?;
        Ok([RunPhase::Succeeded, RunPhase::Failed, RunPhase::Cancelled].iter().any(|phase| phase.as_str() == row.state))
    }
}

/// An error with its causes, in one line.
pub(in crate::service) fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

struct NotBefore {
    clock: Arc<dyn Clock>,
    earliest: Option<Timestamp>,
}

impl Clock for NotBefore {
    fn now(&self) -> Timestamp {
        let now = self.clock.now();
        self.earliest.map_or(now, |earliest| now.max(earliest))
    }

    fn reading(&self) -> Option<Reading> {
        self.clock.reading()
    }
}
