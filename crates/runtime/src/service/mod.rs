//! Many runs in one process: what `backstop up` is.
//!
//! The service loads projects and watches their files ([`catalog`]), makes runs (asked for, or by a timetable), and drives as many at
//! once as the limits allow (`desk`). Runs that an earlier process left are found in the store when it starts, and go on. Everything that
//! is told to the outside is durable first: an answer, an event of the [`live`] stream.
//!
//! It must not know HTTP, nor who its users are: who asks is a name that comes with each request.

mod assets;
pub mod backfill;
pub mod catalog;
mod connections;
mod current;
mod deadlines;
mod desk;
mod holder;
pub(crate) mod home;
mod housekeeping;
pub mod live;
mod notice;
mod operate;
mod other;
mod parts;
mod remembered;
pub mod rendered;
mod scheduler;
pub mod settings;
mod several;
mod steer;
mod unfit;
mod why;

pub use catalog::{Catalog, DagEntry, Loader, Trouble};
pub use connections::ConnectionShown;
pub use current::{Files, Operated};
pub use desk::{Counts, Standing, Waiting};
pub use holder::{Holder, LOCK, holder, refusal};
pub use housekeeping::Housekeeping;
pub use live::{Live, LiveEvent};
pub use notice::{LINES_OF_A_TOPIC_MAX, Level, Notice, Tell};
pub use operate::Operation;
pub use parts::Broken;
pub use remembered::NotLoaded;
pub use several::{DoneToRun, Range, runs_between};
pub use steer::{Trigger, Triggered, WHO_CHARACTERS_MAX, WHY_BYTES_MAX, Who, pause_in_store, paused_in_store};
pub use why::{RunAccount, TASKS_MAX, TaskAccount};

use crate::clock::Clock;
use crate::logs::LogWriter;
use crate::monitor::Monitor;
use crate::prune::Keep;
use crate::run;
use crate::sessions::Connect;
use crate::slots::{SlotLimits, Slots};
use backstop_core::{DagId, InstanceId, RunId};
pub use backstop_project::diagnostic::did_you_mean;
pub use backstop_project::params::ParamError;
pub use backstop_project::{Diagnostic, Severity, compare};
use backstop_store::{Entry, RunLock, Store};
use desk::Desk;
use futures_util::FutureExt as _;
use notice::Notices;
use parts::Parts;
use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::{Notify, watch};

/// What a service is made of.
pub struct Options {
    /// Where runs are kept.
    pub store: Arc<dyn Store>,
    /// How projects are loaded.
    pub loader: Arc<dyn Loader>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Makes connectors.
    pub connect: Connect,
    /// Where task logs go.
    pub logs: LogWriter,
    /// For files that live as long as an attempt.
    pub scratch: PathBuf,
    /// How much at once.
    pub limits: ServiceLimits,
    /// Which runs stay when they are over.
    pub keep: Keep,
    /// Takes what whoever looks after the machine is told. It must not block.
    pub notice: Notice,
    /// For whoever finds the store taken: how to reach the service.
    pub address: String,
}

/// How much at once.
#[derive(Clone, Debug)]
pub struct ServiceLimits {
    /// Runs that are driven at once; the others wait in the store. One that only waits, for time or for another run, does not count.
    pub runs: usize,
    /// Runs of one DAG at once, where the DAG is gone and it is not known what it said last (`max_active_runs`).
    pub runs_of_a_dag: usize,
    /// Tasks and pools over all runs.
    pub slots: SlotLimits,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        let slots = SlotLimits { parallelism: Some(32), ..SlotLimits::default() };
        Self { runs: 256, runs_of_a_dag: 16, slots }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such DAG.
    #[error("there is no DAG `{dag}`{because}")]
    NoDag {
        /// As it was asked for.
        dag: String,
        /// Empty, or what is wrong with its file, behind a semicolon.
        because: String,
        /// What to do.
        hint: String,
    },
    /// No such version of a DAG is kept.
    #[error("no version {version} of DAG `{dag}` is kept")]
    NoVersion {
        /// As it was asked for.
        dag: String,
        /// As it was asked for.
        version: String,
    },
    /// No such run.
    #[error("there is no run `{0}`")]
    NoRun(RunId),
    /// No such backfill.
    #[error("there is no backfill `{0}`")]
    NoBackfill(String),
    /// No such task instance.
    #[error("there is no task instance `{instance}` in run `{run}`")]
    NoInstance {
        /// The run.
        run: RunId,
        /// As it was asked for.
        instance: InstanceId,
        /// What to do.
        hint: Option<String>,
    },
    /// No such connection.
    #[error("there is no connection `{0}`")]
    NoConnection(String),
    /// Parameters that do not fit the DAG.
    #[error("the parameters do not fit DAG `{dag}`")]
    Params {
        /// Which.
        dag: DagId,
        /// Each.
        errors: Vec<ParamError>,
    },
    /// The run cannot be steered so, as it stands.
    #[error("{0}")]
    Conflict(String),
    /// The operation is about no task of the run.
    #[error("no task of this run is meant: nothing would change")]
    NothingMeant,
    /// What is asked for is so already.
    #[error("{}", backstop_core::command::Rejected::NothingToChange)]
    NothingToChange,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// As many runs wait as may: nothing was made.
    #[error("{runs} runs wait for a place already, with {} MiB of parameters: no more are taken before some of them begin", .bytes / (1024 * 1024))]
    Crowded {
        /// How many.
        runs: usize,
        /// Of their parameters.
        bytes: usize,
    },
    /// The service is on its way out.
    #[error("the service is stopping")]
    Stopping,
    /// The store.
    #[error(transparent)]
    Store(#[from] backstop_store::Error),
    /// The run.
    #[error(transparent)]
    Run(#[from] run::Error),
}

/// How long a batch of housekeeping that goes on is waited for when the service stops.
const HOUSEKEEPING_ENDS_IN: std::time::Duration = std::time::Duration::from_secs(2);
/// How long the ends of statements are waited for that were told to end. What a server does not end by then goes on there, and is ended when
/// its run is taken over.
pub const STATEMENTS_END_IN: std::time::Duration = std::time::Duration::from_secs(2);

/// A running service. Dropping the last handle does not stop it: see [`Self::stop`].
pub struct Service {
    store: Arc<dyn Store>,
    loader: Arc<dyn Loader>,
    clock: Arc<dyn Clock>,
    connect: Connect,
    logs: LogWriter,
    scratch: PathBuf,
    limits: ServiceLimits,
    /// What people set: variables and pools.
    settings: RwLock<Arc<settings::Kept>>,
    /// Held while something is set.
    setting: tokio::sync::Mutex<()>,
    /// What is kept of the versions that are loaded.
    good: Mutex<remembered::Kept>,
    /// The last good versions of DAGs that could not be loaded when the process began.
    remembered: Vec<remembered::Remembered>,
    /// What the files looked like before they were loaded.
    files_seen: Mutex<u64>,
    /// Held while the projects are loaded again.
    reloading: Mutex<()>,
    slots: Arc<Slots>,
    live: Arc<Live>,
    monitor: Arc<Monitor>,
    catalog: RwLock<Arc<Catalog>>,
    desk: Mutex<Desk>,
    /// Digests of definitions that are known to be kept.
    kept: Mutex<HashSet<String>>,
    /// Held while it is found out whether a date has a run, and that run is made.
    dates: tokio::sync::Mutex<()>,
    /// Held while what is kept of a DAG is changed: two who each know one part of it would write over the other's.
    keeping: tokio::sync::Mutex<()>,
    /// Backfills that are not over.
    fillings: Mutex<backfill::Fillings>,
    /// Held while a backfill is changed, durably.
    filling: tokio::sync::Mutex<()>,
    /// Told when a backfill may go further.
    fill_up: Notify,
    /// Told when a run may be begun.
    pump: Arc<Notify>,
    /// Told when the deadlines of a run that waits have been told of.
    told: Notify,
    /// Told when ticks may be planned that could not be, or other ones.
    replan: Notify,
    keep: Keep,
    housekeeping: Mutex<Housekeeping>,
    notices: Arc<Notices>,
    stopping: watch::Sender<bool>,
    /// What goes on is to end at once.
    at_once: watch::Sender<bool>,
    /// Closed when nothing of any run goes on.
    at_work: watch::Sender<()>,
    /// Nobody else drives runs of this store as long as this is held.
    _hold: RunLock,
}

impl Service {
    /// Takes the store for this process, loads the projects, and finds the runs that were left. Nothing is driven before [`Self::run`].
    ///
    /// # Errors
    /// `Busy` when another service has the store; it says which. When the store fails.
    pub async fn new(options: Options) -> Result<Arc<Self>, Error> {
        let hold = holder::take(&*options.store, &options.address, options.clock.now()).await?;
        let kept = steer::kept(&*options.store).await?;
        let fillings = backfill::unfinished(&*options.store).await?;
        let settings = settings::Kept::read(&*options.store).await?;
        let notices = Notices::new(options.notice, options.clock.clone());
        let connect = notices.watching(options.connect);
        // Before they are loaded: what changes meanwhile is loaded again.
        let files_seen = options.loader.fingerprint();
        let monitor = Arc::new(Monitor::new(options.store.clone(), options.clock.clone()));
        let live = Arc::new(Live::since(options.clock.now()));
        let mut catalog = Catalog::load(&*options.loader, None, &connect, &settings.overrides(), &monitor);
        let good = remembered::Kept::read(&*options.store).await?;
        let remembered = good.missing(&*options.store, &catalog).await?;
        catalog.restore(&remembered);
        notices.files(None, &catalog);
        let service = Arc::new(Self {
            store: options.store,
            loader: options.loader,
            clock: options.clock,
            connect,
            logs: options.logs,
            scratch: options.scratch,
            slots: Arc::new(Slots::new(options.limits.slots.clone())),
            limits: options.limits,
            settings: RwLock::new(Arc::new(settings)),
            setting: tokio::sync::Mutex::default(),
            good: Mutex::new(good),
            remembered,
            files_seen: Mutex::new(files_seen),
            reloading: Mutex::default(),
            live,
            monitor,
            catalog: RwLock::new(Arc::new(catalog)),
            desk: Mutex::new(Desk::new(kept)),
            kept: Mutex::default(),
            dates: tokio::sync::Mutex::default(),
            keeping: tokio::sync::Mutex::default(),
            fillings: Mutex::new(fillings),
            filling: tokio::sync::Mutex::default(),
            fill_up: Notify::new(),
            pump: Arc::default(),
            told: Notify::new(),
            replan: Notify::new(),
            keep: options.keep,
            housekeeping: Mutex::default(),
            notices,
            stopping: watch::channel(false).0,
            at_once: watch::channel(false).0,
            at_work: watch::channel(()).0,
            _hold: hold,
        });
        service.size_pools();
        service.begin_with_new_dags().await?;
        service.tell_taken_over(service.find_left_behind().await?);
        service.keep_slots_of_left_behind().await?;
        Ok(service)
    }

    /// Drives runs and watches files until [`Self::stop`]; returns when nothing is being driven any more.
    ///
    /// # Errors
    /// When a part of it panicked: then it does only some of what it should, and its process is to end. What goes on is ended as by
    /// [`Self::stop_at_once`].
    pub async fn run(self: &Arc<Self>) -> Result<(), Broken> {
        let mut parts = Parts::default();
        parts.spawn("watches the files", catalog::watch(self.clone()));
        parts.spawn("plans schedules", self.clone().schedule());
        parts.spawn("fills backfills", self.clone().fill());
        let mut house = Parts::default();
        house.spawn("keeps house", self.clone().keep_house());
        // Dropped with all engines, which stops what they began.
        let driving = async { tokio::join!(self.drive(), self.watch_deadlines(), self.watch_left()) };
        let mut at_once = self.at_once.subscribe();
        let ended = tokio::select! {
            biased;
            driven = AssertUnwindSafe(driving).catch_unwind() => driven.map(drop).map_err(|_| Broken { part: "drives runs" }),
            broken = parts.broken() => Err(broken),
            broken = house.broken() => Err(broken),
            _ = at_once.wait_for(|at_once| *at_once) => Ok(()),
        };
        parts.abort();
        // Housekeeping sees by itself that the service stops, and is given the time to write down what it did.
        self.stop();
        let ends = async { tokio::join!(self.at_work.closed(), tokio::time::timeout(HOUSEKEEPING_ENDS_IN, house.ended())) };
        let _ = tokio::time::timeout(STATEMENTS_END_IN, ends).await;
        self.notices.sum_up_all();
        ended
    }

    /// Stops: nothing more is begun, and `run` returns when what goes on has let go; running statements are waited for. Runs stay in the
    /// store and go on with the next service.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        self.pump.notify_one();
    }

    /// Stops without waiting: running statements are ended on their servers, for which [`STATEMENTS_END_IN`] is waited, and `run` returns.
    /// The runs are not cancelled. Their logs tell nothing of it, as after a crash: the next service finds out what took effect, and goes on.
    pub fn stop_at_once(&self) {
        self.stop();
        self.at_once.send_replace(true);
    }

    /// True once [`Self::stop`] was called.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The DAGs as they are now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes to the store, durably, to see that it can be written.
    ///
    /// # Errors
    /// What hinders it: a full disk, say.
    pub async fn write_to_store(&self) -> Result<(), Error> {
        let body = Some(self.clock.now().to_string());
        Ok(self.store.put(vec![Entry { kind: "health".into(), key: "written_at".into(), body }], None).await?)
    }

    /// Where runs are kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What happens, as it becomes durable.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Who uses which session of users' databases, and what runs there.
    pub fn monitor(&self) -> &Arc<Monitor> {
        &self.monitor
    }

    /// Slots in use.
    pub fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// Where task logs are; `None` when none are kept.
    pub fn log_root(&self) -> Option<&std::path::Path> {
        self.logs.root()
    }

    /// Time.
    pub fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }

    /// Loads the projects again. A DAG whose file is broken keeps its last good version.
    pub fn reload(&self) {
        // One after the other: else what was loaded first might replace what was loaded last.
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.catalog();
        let mut after =
            Catalog::load(&*self.loader, Some(&before), &self.connect, &self.kept_settings().overrides(), &self.monitor);
        after.restore(&self.still_remembered());
        let has_changed = !after.is_like(&before);
        let gone = before.dags().iter().filter(|(dag, _)| after.dag(dag.as_str()).is_none());
        let limits = gone.map(|(dag, entry)| (dag.clone(), entry.definition.max_active_runs.max(1) as usize));
        // Known before the DAG is gone: no run of it is begun meanwhile past its limit.
        self.desk().limits_of_gone.extend(limits);
        self.notices.files(Some(&before), &after);
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
        self.size_pools();
        if has_changed {
            self.live.tell_catalog_changed(self.clock.now());
        }
        self.desk().replan.all = true;
        self.pump.notify_one();
        self.replan.notify_one();
        self.fill_up.notify_one();
    }

    /// Gives pools the sizes that the projects say.
    fn size_pools(&self) {
        let mut pools = self.catalog().pools();
        pools.extend(self.kept_settings().overrides().pools);
        self.slots.set_limits(SlotLimits { pools, ..self.limits.slots.clone() });
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Every change of the desk is made whole before anything can panic.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether runs of a DAG wait or go on, which may be gone.
    pub(super) fn has_runs_of(&self, dag: &DagId) -> bool {
        self.desk().has_runs_of(dag)
    }

    /// Whether a DAG is paused.
    pub fn is_paused(&self, dag: &DagId) -> bool {
        self.desk().paused.contains(dag)
    }

    /// DAGs that are paused.
    pub fn paused(&self) -> BTreeSet<DagId> {
        self.desk().paused.clone()
    }
}

#[cfg(test)]
mod tests;
