//! The way in: start a run, or take over one whose process is gone.

use crate::attempt::{Began, Results, Shared, params_of};
use crate::clock::Clock;
pub use crate::control::Control;
use crate::deadlines;
use crate::engine::Engine;
use crate::journal::Journal;
use crate::logs::{LogWriter, Logs};
use crate::others::Others;
use crate::prepared::Prepared;
use crate::repin;
use crate::service::home;
use crate::sessions::Sessions;
use crate::slots::Slots;
use crate::watch::Watcher;
use backstop_core::event::{Cause, Event, Evidence, RunHeader, RunType, SegmentCommit};
use backstop_core::state::FIRST_EPOCH;
use backstop_core::timetable::PastDurations;
use backstop_core::{Command, InstanceId, RunId, RunState, TaskId};
use backstop_project::definition::{Definition, Project};
use backstop_store::{AppendError, Store, Version};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Events read in one go when a run is taken over.
const EVENTS_AT_ONCE: usize = 10_000;

/// Why a run could not be driven to an end in this process. What committed is found again by its markers: resume the run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error("the store failed")]
    Store(#[from] backstop_store::Error),
    /// The log refused an append.
    #[error("the run's log could not be written")]
    Append(#[from] AppendError),
    /// There is no such run.
    #[error("there is no run `{0}`")]
    NoRun(RunId),
    /// The run is over.
    #[error("run {run} is over ({state}): there is nothing to resume")]
    Over {
        /// The run.
        run: RunId,
        /// In a word.
        state: String,
    },
    /// The DAG's tasks are not those that the run began with.
    #[error("run {run} does not fit the DAG as it is now: {what}")]
    Changed {
        /// The run.
        run: RunId,
        /// What differs.
        what: String,
    },
    /// A named task is not there, or is not in doubt.
    #[error("{0}")]
    Request(String),
}

/// What a run needs.
#[derive(Clone)]
pub struct Launch {
    /// The DAG in its project.
    pub prepared: Arc<Prepared>,
    /// Where the log is kept.
    pub store: Arc<dyn Store>,
    /// Where task logs go.
    pub logs: LogWriter,
    /// For files that live as long as an attempt.
    pub scratch: PathBuf,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who looks on.
    pub watcher: Arc<dyn Watcher>,
    /// Open sessions of the project's connections; runs of one process share them.
    pub sessions: Arc<Sessions>,
    /// Slots that runs of one process share; `None` when this is the only one.
    pub slots: Option<Arc<Slots>>,
    /// Runs of other DAGs; `None` where nothing is known of any.
    pub others: Option<Arc<dyn Others>>,
    /// How much at once.
    pub limits: Limits,
}

/// How much at once, beyond what the DAG says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Callbacks running at once.
    pub callbacks_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { callbacks_at_once: 8 }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Request {
    /// Unique in the world; `new_run_id` makes one.
    pub run_id: RunId,
    /// What the run is about.
    pub logical_date: Option<Timestamp>,
    /// The data it is about.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Complete: defaults filled in, types checked.
    pub params: serde_json::Map<String, serde_json::Value>,
    /// Only these; empty is all.
    pub only_tasks: Vec<TaskId>,
    /// Roll everything back.
    pub dry_run: bool,
    /// What asked for it.
    pub run_type: RunType,
    /// What made it, where that was another run.
    pub cause: Option<Cause>,
    /// Who asked for it and why, where that shall be in the log.
    pub asked_by: Option<(String, String)>,
}

/// A run that exists, durably, and that nobody has begun.
#[derive(Clone, Debug)]
pub struct Created {
    /// What it is.
    pub header: Arc<RunHeader>,
    /// Its events so far.
    events: Vec<Event>,
}

/// A new run id: a UUIDv7 with the clock's time.
pub fn new_run_id(clock: &dyn Clock) -> RunId {
    let now = clock.now();
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanos = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, nanos);
    RunId::new(uuid::Uuid::new_v7(time).to_string())
}

/// How a run stands when its process lets go of it.
#[derive(Debug)]
pub struct Report {
    /// Everything that is known.
    pub state: RunState,
    /// Instances that a person must decide, and why. Not empty: the run is stuck.
    pub undecided: BTreeMap<InstanceId, String>,
}

/// What a person says of an attempt in doubt.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Which instance.
    pub instance: InstanceId,
    /// True: what the attempt was doing took effect. False: it did not.
    pub took_effect: bool,
    /// The segment of its script that is meant, from 1: refused when another one is in doubt by now. `None` means the one in doubt, and
    /// is refused behind a segment of which a person has said already that it took effect: that may be the same word once more.
    pub segment: Option<u32>,
    /// Who says so.
    pub who: String,
    /// Why.
    pub why: String,
}

/// Starts a run and drives it to its end.
///
/// # Errors
/// When the store fails. A task that fails is no error here: see the report.
pub async fn start(launch: Launch, request: Request, control: Control) -> Result<Report, Error> {
    keep_version(&*launch.store, &launch.prepared.project, &launch.prepared.definition).await?;
    let created = create(&launch, request).await?;
    begin(launch, created, control).await
}

/// Records that a run exists, durably: from here on it is found again, whatever becomes of this process. The sources of its definition
/// must be kept already, see [`keep_version`].
///
/// # Errors
/// `Append` with a conflict when there is a run of this id; when the store fails; when a task is named that is not there.
pub async fn create(launch: &Launch, request: Request) -> Result<Created, Error> {
    check_tasks(&launch.prepared.definition, &request.only_tasks)?;
    let now = launch.clock.now();
    let header = Arc::new(RunHeader {
        run_id: request.run_id,
        dag_id: launch.prepared.definition.dag.id().clone(),
        project: Some(home::of(&launch.prepared.project)),
        version: launch.prepared.definition.version.clone(),
        logical_date: request.logical_date,
        data_interval: request.data_interval,
        queued_at: now,
        run_type: request.run_type,
        params: serde_json::Value::Object(request.params).to_string().into(),
        only_tasks: request.only_tasks,
        dry_run: request.dry_run,
        cause: request.cause,
    });
    let mut created = Created { events: vec![Event::RunCreated(header.clone())], header };
    if let Some((who, why)) = request.asked_by {
        created.events.push(Event::OperatorActed { who, why, what: "asked for the run".into() });
    }
    let run = created.header.run_id.clone();
    let mut journal = Journal::new(launch.store.clone(), run, FIRST_EPOCH, 0, launch.watcher.clone());
    let recorded = journal.append(now, created.events.clone()).await;
    launch.watcher.decided(&created.state(launch), &recorded);
    journal.settle().await?;
    Ok(created)
}

/// Refuses tasks that a DAG does not have.
pub(crate) fn check_tasks(definition: &Definition, tasks: &[TaskId]) -> Result<(), Error> {
    match tasks.iter().find(|task| definition.dag.index(task.as_str()).is_none()) {
        Some(task) => Err(Error::Request(format!("there is no task `{task}` in DAG `{}`", definition.dag.id()))),
        None => Ok(()),
    }
}

impl Created {
    fn state(&self, launch: &Launch) -> RunState {
        RunState::replay(launch.prepared.definition.dag.clone(), &self.events)
    }
}

/// Drives a run to its end that this very process created and that nobody has begun. One whose log was found after a start of the
/// process is for [`resume`]: an earlier process may have run ahead of its log.
///
/// # Errors
/// As [`start`].
pub async fn begin(launch: Launch, created: Created, control: Control) -> Result<Report, Error> {
    let state = created.state(&launch);
    let header = created.header;
    let version = state.version();
    let journal = Journal::new(launch.store.clone(), header.run_id.clone(), FIRST_EPOCH, version, launch.watcher.clone());
    let shared = Arc::new(share(&launch, header, false));
    let mut engine = engine(&launch, shared, state, journal, control);
    engine.past = deadlines::past_of(&*launch.store, &launch.prepared.definition).await?;
    engine.start_if_queued().await?;
    finish(&launch, engine).await
}

fn engine(launch: &Launch, shared: Arc<Shared>, state: RunState, journal: Journal, control: Control) -> Engine {
    let header = shared.header.clone();
    let mut engine = Engine::new(shared, state, journal, control, launch.limits);
    if let Some(slots) = &launch.slots {
        engine.sits(slots.seat(header.dag_id.clone(), header.run_id.clone()));
    }
    engine
}

/// Takes over a run whose process is gone, and drives it to its end. The caller holds the run's lock.
///
/// # Errors
/// When the store fails, the run is over, or the DAG no longer fits it.
pub async fn resume(launch: Launch, run: &RunId, decisions: &[Decision], control: Control) -> Result<Report, Error> {
    let row = launch.store.run(run).await?.ok_or_else(|| Error::NoRun(run.clone()))?;
    home::check(&row.header, &launch.prepared.project).map_err(Error::Request)?;
    let events = read_all(&*launch.store, run).await?;
    repin::check_shape(&launch.prepared.definition, run, &events)?;
    let state = RunState::replay(launch.prepared.definition.dag.clone(), events.iter());
    repin::check_mapping(&launch.prepared.definition, run, &state)?;
    repin::check_transactions(&launch.prepared.definition, run, &state)?;
    if state.is_finished() {
        return Err(Error::Over { run: run.clone(), state: state.phase().as_str().to_owned() });
    }
    if !decisions.is_empty() && repin::command(&launch.prepared.definition, &state).is_some() {
        // What is said is about the SQL that was sent, not about the SQL as it was mended since.
        return Err(Error::Request(
            "what is said of an attempt in doubt is about the files that the run began with: say it without --current-files first".into(),
        ));
    }
    let epoch = launch.store.take_over(run).await?;
    if !launch.prepared.is_shape {
        keep_version(&*launch.store, &launch.prepared.project, &launch.prepared.definition).await?;
    }
    let mut shared = share(&launch, row.header.clone(), true);
    shared.results = Results::of(&state);
    let journal = Journal::new(launch.store.clone(), run.clone(), epoch, events.len() as u64, launch.watcher.clone());
    let mut engine = engine(&launch, Arc::new(shared), state, journal, control);
    engine.past = deadlines::past_of(&*launch.store, &launch.prepared.definition).await?;
    look_around(&launch, &engine).await?;
    if !engine.state.phase().is_terminal() {
        engine.command(Command::Resume { epoch }).await?;
        if let Some(pin) = repin::command(&engine.shared.definition, &engine.state) {
            engine.command(pin).await?;
        }
        engine.wake_who_waits_for_runs().await?;
        engine.start_if_queued().await?;
    }
    for decision in decisions {
        decide(&mut engine, decision).await?;
    }
    finish(&launch, engine).await
}

/// How a run that waits stands when its deadlines have been told of.
#[derive(Debug)]
pub(crate) struct Told {
    /// The run, where it is not over, as one that nobody has begun: for [`begin`] where that is so, and for nothing else.
    pub(crate) created: Created,
    /// When to look at its deadlines again.
    pub(crate) next: Option<Timestamp>,
}

impl Told {
    /// How many events the run has.
    pub(crate) fn version(&self) -> u64 {
        self.created.events.len() as u64
    }
}

/// Tells what there is to tell of the deadlines of a run that waits, and runs its callbacks that have not run. The run is not taken over: it
/// waits as before, and who drives it finds out what an earlier process did, as if nothing had been told. The caller holds the run's
/// lock, and says whether this very process created it and nobody has begun it.
///
/// # Errors
/// When the store fails, or the DAG no longer fits the run.
pub(crate) async fn tell(
    launch: Launch,
    run: &RunId,
    is_fresh: bool,
    past: Option<PastDurations>,
    control: Control,
) -> Result<Told, Error> {
    let row = launch.store.run(run).await?.ok_or_else(|| Error::NoRun(run.clone()))?;
    let header = row.header.clone();
    let events = read_all(&*launch.store, run).await?;
    repin::check_shape(&launch.prepared.definition, run, &events)?;
    let state = RunState::replay(launch.prepared.definition.dag.clone(), events.iter());
    if state.phase().is_terminal() {
        return Ok(Told { created: Created { header, events }, next: None });
    }
    let mut shared = share(&launch, header.clone(), !is_fresh);
    shared.results = Results::of(&state);
    let journal = Journal::new(launch.store.clone(), run.clone(), row.epoch, events.len() as u64, launch.watcher.clone());
    let mut engine = Engine::new(Arc::new(shared), state, journal, control, launch.limits);
    engine.past = past;
    look_around(&launch, &engine).await?;
    let told = engine.tell().await;
    if told.is_err() {
        engine.abandon().await;
    }
    engine.shared.logs.end().await;
    let next = told?;
    Ok(Told { created: Created { header, events: read_all(&*launch.store, run).await? }, next })
}

/// Looks up what templates see of the runs beside this one, once it has begun; nothing is rendered before.
async fn look_around(launch: &Launch, engine: &Engine) -> Result<(), Error> {
    let shared = &engine.shared;
    if let Some(at) = engine.state.began_at().filter(|_| shared.began.get().is_none()) {
        let began = Began::look(&*launch.store, &launch.prepared, &shared.header, at).await?;
        shared.began.get_or_init(|| began);
    }
    Ok(())
}

async fn finish(launch: &Launch, mut engine: Engine) -> Result<Report, Error> {
    look_around(launch, &engine).await?;
    let driven = engine.drive().await;
    if driven.is_err() {
        engine.abandon().await;
    }
    engine.shared.logs.end().await;
    driven?;
    Ok(Report { undecided: engine.undecided().clone(), state: engine.state })
}

/// Keeps the sources that runs of a definition are pinned to, and which project they stand in: a service that has several knows by this whose
/// connections such a run goes on with. Changes nothing where both are kept.
///
/// # Errors
/// When the store cannot write.
pub async fn keep_version(store: &dyn Store, project: &Project, definition: &Definition) -> Result<(), Error> {
    let version =
        Version { digest: definition.version.clone(), dag_id: definition.dag.id().clone(), bundle: definition.bundle.to_bytes() };
    let home = home::entry(&version.digest, project);
    // Both before any run can be found that began with it, and in one commit where the store makes one of what is asked of it at once.
    tokio::try_join!(store.put(vec![home], None), store.keep_version(version))?;
    Ok(())
}

fn share(launch: &Launch, header: Arc<RunHeader>, was_interrupted: bool) -> Shared {
    launch.sessions.monitor().learn(&header.dag_id);
    let redactor = launch.prepared.redactor().of_run(&header.params);
    let params = params_of(&header);
    Shared {
        transactions: crate::attempt::transaction::Transactions::default(),
        renderer: launch.prepared.renderer(),
        sessions: launch.sessions.clone(),
        logs: Logs::new(launch.logs.clone(), header.run_id.clone(), redactor.clone()),
        project: launch.prepared.project.clone(),
        definition: launch.prepared.definition.clone(),
        redactor,
        clock: launch.clock.clone(),
        watcher: launch.watcher.clone(),
        header,
        params,
        began: OnceLock::new(),
        results: Results::default(),
        others: launch.others.clone(),
        was_interrupted,
        scratch: launch.scratch.clone(),
    }
}

/// The events of a run, all of them.
///
/// # Errors
/// When the store cannot read.
pub async fn read_all(store: &dyn Store, run: &RunId) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    loop {
        let page = store.events(run, events.len() as u64, EVENTS_AT_ONCE).await?;
        let last = page.len() < EVENTS_AT_ONCE;
        events.extend(page.into_iter().map(|recorded| recorded.event));
        if last {
            return Ok(events);
        }
    }
}

/// Whether a word is about the segment that is in doubt: the one behind those that are committed.
fn is_about(instance: &InstanceId, committed: &[Arc<SegmentCommit>], named: Option<u32>) -> Result<(), String> {
    let in_doubt = committed.len() + 1;
    let name_it = format!(
        "`\"segment\": {in_doubt}` or `--segment {in_doubt}`, with `run --resume` `--resolve {instance}=committed:{in_doubt}`"
    );
    // Behind it others may have committed meanwhile, of which nobody had to say anything.
    let said = committed.iter().rev().find_map(|commit| match &commit.evidence {
        Evidence::Operator { who, took_effect: true, .. } => Some((who, commit.segment + 1)),
        Evidence::Operator { took_effect: false, .. } => None,
        Evidence::Acknowledged | Evidence::Marker | Evidence::Tombstone | Evidence::ReadOnly | Evidence::Allowed => None,
    });
    match (named, said) {
        (Some(named), _) if named as usize != in_doubt => Err(format!(
            "segment {in_doubt} of `{instance}` is in doubt, not segment {named}: look again; name it with {name_it}"
        )),
        (None, Some((who, said))) => Err(format!(
            "{who} has said already that segment {said} of `{instance}` took effect, and segment {in_doubt} is in doubt now: if that one \
             is meant, name it with {name_it}",
        )),
        (Some(_) | None, _) => Ok(()),
    }
}

/// Records what a person says of an attempt in doubt.
pub(crate) async fn decide(engine: &mut Engine, decision: &Decision) -> Result<(), Error> {
    let Some(view) = engine.state.instance(&decision.instance) else {
        return Err(Error::Request(format!("there is no task instance `{}` in this run", decision.instance)));
    };
    if view.phase != backstop_core::state::InstancePhase::InDoubt {
        let text = format!("task instance `{}` is {}, not in doubt", decision.instance, view.phase.as_str());
        return Err(Error::Request(text));
    }
    let try_number = view.try_number;
    is_about(&decision.instance, view.segments, decision.segment).map_err(Error::Request)?;
    let evidence = Evidence::Operator { who: decision.who.clone(), why: decision.why.clone(), took_effect: decision.took_effect };
    let part = match decision.took_effect {
        true => engine.segment_with_more_behind(&decision.instance, try_number, evidence.clone()).await.map_err(|why| {
            Error::Request(format!(
                "whether `{}` has more behind the segment that took effect cannot be told, so that nothing is recorded: {why}",
                decision.instance
            ))
        })?,
        false => None,
    };
    let effect = if decision.took_effect { "took effect" } else { "did not take effect" };
    let what = match &part {
        Some(commit) => {
            format!("said that segment {} of try {try_number} of `{}` {effect}", commit.segment + 1, decision.instance)
        }
        None => format!("said that try {try_number} of `{}` {effect}", decision.instance),
    };
    let (who, why) = (decision.who.clone(), decision.why.clone());
    engine.command(Command::RecordOperator { who, why, what }).await?;
    let instance = decision.instance.clone();
    engine
        .command(match part {
            // The person spoke of this segment. The same try may have gone on behind it, and its markers have keys of their own: it stays in
            // doubt until they were asked, for the next try would not find what committed under them.
            Some(commit) => Command::CommitSegment { instance, try_number, commit: Arc::new(commit) },
            None => Command::Resolve { instance, try_number, evidence },
        })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::event::Promise;

    #[test]
    fn a_word_said_before_is_not_taken_for_a_later_segment() {
        let person = || Evidence::Operator { who: "ann".into(), why: "looked".into(), took_effect: true };
        let instance = InstanceId::single(TaskId::new("load"));
        let about = |committed: &[Evidence], named: Option<u32>| {
            let commit = |(segment, evidence): (u32, &Evidence)| {
                let (digest, promise, statements) = (String::new(), Promise::ExactlyOnce, Vec::new());
                Arc::new(SegmentCommit { segment, digest, promise, evidence: evidence.clone(), statements, result: None })
            };
            let committed: Vec<_> = (0..).zip(committed).map(commit).collect();
            is_about(&instance, &committed, named)
        };
        assert_eq!(about(&[], None), Ok(()));
        assert_eq!(about(&[Evidence::Acknowledged, Evidence::Marker], None), Ok(()), "nobody has spoken of it");
        for committed in [vec![person()], vec![person(), Evidence::Marker]] {
            let in_doubt = committed.len() as u32 + 1;
            let refused = about(&committed, None).unwrap_err();
            let said =
                format!("ann has said already that segment 1 of `load` took effect, and segment {in_doubt} is in doubt now");
            assert!(refused.contains(&said) && refused.contains(&format!("--segment {in_doubt}")), "{refused}");
            assert!(about(&committed, Some(1)).is_err());
            assert_eq!(about(&committed, Some(in_doubt)), Ok(()));
        }
    }
}
