//! Runs of other DAGs, as the tasks of a run see them: made, looked at, waited for.
//!
//! A run knows of others only through [`Others`]. It must not know how they are driven, nor by which process: one that ends elsewhere
//! is found by looking into the store now and then.

use crate::engine::Answer;
use async_trait::async_trait;
use backstop_core::event::{Cause, RunHeader};
use backstop_core::{Command, DagId, InstanceId, RunId, RunPhase, TaskId};
use backstop_store::{InstanceRow, RunFilter, RunRow, Store};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How many runs may lead to one another by `dag` tasks: a chain without end is a mistake.
pub const CHAIN_MAX: u32 = 32;
/// How often the store is looked into: a run may end in another process, which tells nobody here.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Runs read at once when one about a date is looked for.
const RUNS_AT_ONCE: u32 = 50;
/// What ids of runs are made from that tasks start.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6261_636b_7374_6f70_6368_696c_6472_656e);

/// A run that a task wants.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its id. It follows from who wants it, so that it is made once however often it is asked for.
    pub run_id: RunId,
    /// Of which DAG.
    pub dag: DagId,
    /// Given parameters.
    pub params: Map<String, Value>,
    /// What it is about.
    pub logical_date: Timestamp,
    /// Who wants it.
    pub cause: Cause,
}

/// Why a run is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In a sentence.
    pub message: String,
    /// Each of several reasons.
    pub causes: Vec<String>,
    /// What to do.
    pub hint: Option<String>,
    /// False when it may be made if it is asked for again.
    pub is_permanent: bool,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Of which DAG.
    pub dag: DagId,
    /// Which run of it.
    pub which: Which,
    /// A task of it; `None` for the run as a whole.
    pub task: Option<TaskId>,
    /// Whether it is waited for on when it has ended otherwise than well.
    pub is_patient: bool,
}

/// Which run is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    Run(RunId),
    /// One about this date.
    About(Timestamp),
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task {
            write!(f, "task `{task}` of ")?;
        }
        match &self.which {
            Which::Run(run) => write!(f, "run {run} of DAG `{}`", self.dag),
            Which::About(date) => write!(f, "the run of DAG `{}` about {date}", self.dag),
        }
    }
}

/// How what is waited for stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is no such run, yet.
    Missing,
    /// It is not over.
    GoesOn {
        /// Which run.
        run: RunId,
        /// Its state, or the task's.
        state: String,
    },
    /// It ended well.
    Done {
        /// Which run.
        run: RunId,
    },
    /// It ended otherwise.
    Ended {
        /// Which run.
        run: RunId,
        /// Its state, or the task's.
        state: String,
        /// What went wrong in it first, where that is known.
        error: Option<String>,
    },
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("there is none yet"),
            Self::GoesOn { run, state } => write!(f, "run {run} is {state}"),
            Self::Done { run } => write!(f, "run {run} is success"),
            Self::Ended { run, state, error: None } => write!(f, "run {run} is {state}"),
            Self::Ended { run, state, error: Some(error) } => write!(f, "run {run} is {state}: {error}"),
        }
    }
}

/// Runs of other DAGs.
#[async_trait]
pub trait Others: Send + Sync {
    /// Makes a run, durably. One of the same id is taken for it.
    ///
    /// # Errors
    /// No such DAG, parameters that do not fit, the store.
    async fn make(&self, child: Child) -> Result<(), Refused>;

    /// Where runs are kept.
    fn store(&self) -> &Arc<dyn Store>;

    /// Changes when a run of a DAG was made, or has ended, as far as this process knows.
    fn changes(&self, dag: &DagId) -> watch::Receiver<u64>;
}

/// The id of the run that an instance makes: the `number`th (from 0) since it was last cleared. It does not follow from the try, so that a
/// try that takes the place of an interrupted one finds what that one made.
pub(crate) fn child_id(run: &RunId, instance: &InstanceId, tries_before: u32, number: usize) -> RunId {
    let name = format!("{run}\n{instance}\n{tries_before}\n{number}");
    RunId::new(uuid::Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string())
}

/// Looks at what is waited for.
///
/// # Errors
/// When the store cannot read.
pub async fn look(store: &dyn Store, awaited: &Awaited) -> Result<Seen, backstop_store::Error> {
    let row = match &awaited.which {
        Which::Run(run) => store.run(run).await?,
        Which::About(date) => about(store, &awaited.dag, *date, awaited.task.as_ref()).await?,
    };
    let Some(row) = row else { return Ok(Seen::Missing) };
    match &awaited.task {
        None => of_run(store, row).await,
        Some(task) => of_task(store, row, task).await,
    }
}

async fn of_run(store: &dyn Store, row: RunRow) -> Result<Seen, backstop_store::Error> {
    let run = row.header.run_id.clone();
    if row.state == RunPhase::Succeeded.as_str() {
        return Ok(Seen::Done { run });
    }
    if row.ended_at.is_none() {
        return Ok(Seen::GoesOn { run, state: row.state });
    }
    let instances = store.instances(&run).await?;
    let failed = instances.iter().find(|row| row.state == "failed");
    let error = failed.map(|row| match &row.error {
        Some(error) => format!("`{}`: {error}", row.instance),
        None => format!("`{}` failed", row.instance),
    });
    Ok(Seen::Ended { run, state: row.state, error })
}

async fn of_task(store: &dyn Store, row: RunRow, task: &TaskId) -> Result<Seen, backstop_store::Error> {
    let run = row.header.run_id.clone();
    let instances = store.instances(&run).await?;
    let of_task: Vec<&InstanceRow> = instances.iter().filter(|row| row.instance.task == *task).collect();
    const DONE: [&str; 5] = ["success", "failed", "skipped", "upstream_failed", "rolled_back"];
    let is_done = |row: &&&InstanceRow| DONE.contains(&row.state.as_str());
    if !of_task.is_empty() && of_task.iter().all(|row| row.state == "success") {
        return Ok(Seen::Done { run });
    }
    if let Some(open) = of_task.iter().find(|row| !is_done(row)).filter(|_| row.ended_at.is_none()) {
        return Ok(Seen::GoesOn { run, state: open.state.clone() });
    }
    let ended = of_task.iter().find(|row| row.state == "failed").or_else(|| of_task.iter().find(|row| row.state != "success"));
    Ok(match ended {
        Some(ended) => Seen::Ended { run, state: ended.state.clone(), error: ended.error.clone() },
        None if row.ended_at.is_none() => Seen::GoesOn { run, state: "none".into() },
        None => Seen::Ended { run, state: "not part of it".into(), error: None },
    })
}

/// Whether a run stands for its date: it is all of its DAG, and has effects. A run of some of its tasks leaves the date undone.
pub(crate) fn is_whole(header: &RunHeader) -> bool {
    header.only_tasks.is_empty() && !header.dry_run
}

/// The newest run of a DAG about a date that is meant.
///
/// # Errors
/// When the store cannot read.
pub(crate) async fn newest_about(
    store: &dyn Store,
    dag: &DagId,
    date: Timestamp,
    is_meant: fn(&RunHeader) -> bool,
) -> Result<Option<RunRow>, backstop_store::Error> {
    let mut pages = Pages::about(dag, date);
    while let Some(page) = pages.next(store).await? {
        if let Some(newest) = page.into_iter().find(|row| is_meant(&row.header)) {
            return Ok(Some(newest));
        }
    }
    Ok(None)
}

/// The run of a DAG about a date: one that ended well before all others, then one that goes on, then the newest. Dry runs do not count, and a
/// run of some tasks only for these.
async fn about(
    store: &dyn Store,
    dag: &DagId,
    date: Timestamp,
    task: Option<&TaskId>,
) -> Result<Option<RunRow>, backstop_store::Error> {
    let mut best: Option<RunRow> = None;
    let rank = |row: &RunRow| match (row.state == RunPhase::Succeeded.as_str(), row.ended_at) {
        (true, _) => 2,
        (false, None) => 1,
        (false, Some(_)) => 0,
    };
    let is_meant =
        |header: &RunHeader| is_whole(header) || !header.dry_run && task.is_some_and(|task| header.only_tasks.contains(task));
    let mut pages = Pages::about(dag, date);
    while let Some(page) = pages.next(store).await? {
        for row in page.into_iter().filter(|row| is_meant(&row.header)) {
            // The newest comes first.
            if best.as_ref().is_none_or(|best| rank(&row) > rank(best)) {
                best = Some(row);
            }
        }
    }
    Ok(best)
}

/// The runs of a DAG about one date, newest first, a page at a time.
struct Pages {
    date: Timestamp,
    /// `None` behind the last page.
    filter: Option<RunFilter>,
}

impl Pages {
    fn about(dag: &DagId, date: Timestamp) -> Self {
        let dates = Some(date);
        let filter = RunFilter {
            dag: Some(dag.clone()),
            dates_from: dates,
            dates_until: dates,
            limit: RUNS_AT_ONCE,
            ..RunFilter::default()
        };
        Self { date, filter: Some(filter) }
    }

    async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<RunRow>>, backstop_store::Error> {
        let Some(filter) = &mut self.filter else { return Ok(None) };
        let mut page = store.runs(filter).await?;
        filter.before = page.last().map(|row| row.header.run_id.clone());
        if page.len() < RUNS_AT_ONCE as usize {
            self.filter = None;
        }
        // The store tells dates apart to the microsecond.
        page.retain(|row| row.header.logical_date == Some(self.date));
        Ok(Some(page))
    }
}

/// A wait outside of any slot. Dropping it ends it.
pub(crate) struct Watch {
    pub(crate) awaited: Awaited,
    task: tokio::task::AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Wakes the instance as soon as there is something to be seen.
    pub(crate) fn start(others: Arc<dyn Others>, awaited: Awaited, instance: InstanceId, mailbox: mpsc::Sender<Answer>) -> Self {
        let what = awaited.clone();
        let task = tokio::spawn(async move {
            let mut changes = others.changes(&what.dag);
            loop {
                changes.mark_unchanged();
                let is_there = match look(&**others.store(), &what).await {
                    Ok(Seen::Done { .. }) => true,
                    Ok(Seen::Ended { .. }) => !what.is_patient,
                    Ok(Seen::Missing | Seen::GoesOn { .. }) => false,
                    // The store is asked again; a run that cannot write its log finds out by itself.
                    Err(_) => false,
                };
                if is_there {
                    // The engine is gone: the run goes on elsewhere, and looks for itself.
                    let _ = mailbox.send(Answer::Command(Command::Wake { instance })).await;
                    return;
                }
                tokio::select! {
                    Ok(()) = changes.changed() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
        });
        Self { awaited, task: task.abort_handle() }
    }
}

/// How many runs led to a run.
pub(crate) fn depth(cause: Option<&Cause>) -> u32 {
    match cause {
        Some(Cause::Task { depth, .. }) => *depth,
        Some(Cause::Assets { .. }) | None => 0,
    }
}

/// For a run that is driven alone: it may wait for runs of other processes, and makes none.
pub struct Beside {
    store: Arc<dyn Store>,
    /// Never changes: nothing is told here.
    silence: watch::Sender<u64>,
}

impl Beside {
    /// In this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, silence: watch::channel(0).0 }
    }
}

#[async_trait]
impl Others for Beside {
    async fn make(&self, child: Child) -> Result<(), Refused> {
        Err(Refused {
            message: format!("a run that is driven alone does not start a run of DAG `{}`", child.dag),
            causes: Vec::new(),
            hint: Some("let the service drive it: `backstop up`".into()),
            is_permanent: true,
        })
    }

    fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    fn changes(&self, _dag: &DagId) -> watch::Receiver<u64> {
        self.silence.subscribe()
    }
}
