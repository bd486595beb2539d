//! What people and programs ask of a service.

use super::{DagEntry, Error, Service, Standing};
use crate::control::{Answer, Ask};
use crate::others::{is_whole, newest_about};
use crate::redact::Redactor;
use crate::run::{self, Launch, Limits, Request, new_run_id};
use backstop_core::event::{RunHeader, RunType};
use backstop_core::{Command, DagId, InstanceId, RunId, RunState, TaskId};
use backstop_project::{Bundle, params};
use backstop_store::{Act, AppendError, Entry, Store};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The kind of entries that keep what is known of DAGs beside their files.
const DAG: &str = "dag";

/// Characters of a name of who asks at most.
pub const WHO_CHARACTERS_MAX: usize = 256;
/// Bytes of a reason at most.
pub const WHY_BYTES_MAX: usize = 4 * 1024;

/// Who asks, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// As the API or the operating system knows them.
    pub who: String,
    /// In their words; may be empty.
    pub why: String,
}

/// A run that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Trigger {
    /// Of which DAG.
    pub dag: String,
    /// Given parameters; defaults are filled in.
    pub params: Map<String, Value>,
    /// What the run is about; now, when not given.
    pub logical_date: Option<Timestamp>,
    /// The data it is about.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// Only these; empty is all.
    pub only_tasks: Vec<TaskId>,
    /// Roll everything back.
    pub dry_run: bool,
    /// Asked for twice with one id, a run is made once.
    pub run_id: Option<RunId>,
    /// Also when there is a run of this DAG about the same logical date.
    pub again: bool,
}

/// What became of a request for a run.
#[derive(Clone, Debug)]
pub struct Triggered {
    /// The run.
    pub header: Arc<RunHeader>,
    /// False when the same request had made it before.
    pub is_new: bool,
}

/// How often it is looked at whether a run was let go whose engine has gone.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How many times at most.
const LOOKS_MAX: u32 = 100;

impl Service {
    /// A DAG by its id.
    ///
    /// # Errors
    /// `NoDag`, with a near name.
    pub fn dag(&self, id: &str) -> Result<DagEntry, Error> {
        let catalog = self.catalog();
        catalog.dag(id).cloned().ok_or_else(|| {
            if let Some(lost) = catalog.not_loaded().iter().find(|lost| lost.dag.as_str() == id) {
                let hint =
                    "mend it: the DAG is loaded as soon as the file is whole; `backstop check` shows all that is wrong".into();
                return Error::NoDag { dag: id.to_owned(), because: format!(" that is loaded; {}", lost.because), hint };
            }
            if let Some(broken) = catalog.broken(id) {
                let hint = "`backstop check` shows all that is wrong".into();
                return Error::NoDag { dag: id.to_owned(), because: format!("; {broken}"), hint };
            }
            let near = backstop_project::diagnostic::did_you_mean(id, catalog.dags().keys().map(DagId::as_str));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None if catalog.dags().is_empty() => "no DAG is loaded: see what is wrong with the projects".into(),
                None => "list the DAGs to see their names".into(),
            };
            Error::NoDag { dag: id.to_owned(), because: String::new(), hint }
        })
    }

    /// The files that a DAG is made of, now or in a version that is kept: the version, the file that defines it, all files.
    ///
    /// # Errors
    /// No such DAG, or no such version of it; the store.
    pub async fn source(&self, dag: &str, version: Option<&str>) -> Result<(String, Option<String>, Bundle), Error> {
        let of_entry = |entry: DagEntry| {
            let definition = entry.definition;
            (definition.version.clone(), Some(definition.file.to_string()), definition.bundle.clone())
        };
        let Some(version) = version else { return self.dag(dag).map(of_entry) };
        let entry = self.dag(dag).ok();
        if let Some(entry) = entry.clone().filter(|entry| entry.definition.version == version) {
            return Ok(of_entry(entry));
        }
        let kept = self.store.version(version).await?.filter(|kept| kept.dag_id.as_str() == dag);
        let kept = kept.ok_or_else(|| Error::NoVersion { dag: dag.to_owned(), version: version.to_owned() })?;
        let bundle = Bundle::from_bytes(&kept.bundle).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok((kept.digest, entry.map(|entry| entry.definition.file.to_string()), bundle))
    }

    /// Makes a run. It is durable when this returns, and is begun as soon as the limits allow.
    ///
    /// # Errors
    /// No such DAG or task, parameters that do not fit, a run id that is taken by another request, a logical date that has a run; the store.
    pub async fn trigger(&self, trigger: Trigger, who: &Who) -> Result<Triggered, Error> {
        let entry = self.dag(&trigger.dag)?;
        let request = self.request(&entry, &trigger, who)?;
        self.start(&entry, trigger, request).await
    }

    /// Makes runs of one DAG, by what is asked of each; as [`Service::trigger`], and together they wait for the disk.
    ///
    /// # Errors
    /// When one of them makes no sense, with its place: then none is made. What came of each is told by itself, in the order in which they
    /// were asked for.
    pub async fn trigger_all(
        &self,
        dag: &str,
        triggers: Vec<(Trigger, Who)>,
    ) -> Result<Vec<Result<Triggered, Error>>, (usize, Error)> {
        let entry = self.dag(dag).map_err(|error| (0, error))?;
        let mut requests = Vec::with_capacity(triggers.len());
        for (at, (trigger, who)) in triggers.into_iter().enumerate() {
            let request = self.request(&entry, &trigger, &who).map_err(|error| (at, error))?;
            requests.push((trigger, request));
        }
        Ok(join_all(requests.into_iter().map(|(trigger, request)| self.start(&entry, trigger, request))).await)
    }

    /// What is asked for, with all that was left out, if it makes sense.
    fn request(&self, entry: &DagEntry, trigger: &Trigger, who: &Who) -> Result<Request, Error> {
        let who = self.masked(who);
        let definition = &entry.definition;
        let dag = definition.dag.id().clone();
        let params = params::resolve(&definition.params, &trigger.params).map_err(|errors| Error::Params { dag, errors })?;
        run::check_tasks(definition, &trigger.only_tasks)?;
        let logical_date = trigger.logical_date.unwrap_or(self.clock.now());
        let timetable = definition.timetable.as_ref();
        let data_interval = trigger.data_interval.or_else(|| timetable.map(|timetable| timetable.manual_interval(logical_date)));
        Ok(Request {
            run_id: trigger.run_id.clone().unwrap_or_else(|| new_run_id(&*self.clock)),
            logical_date: Some(logical_date),
            data_interval,
            params,
            only_tasks: trigger.only_tasks.clone(),
            dry_run: trigger.dry_run,
            run_type: RunType::Manual,
            cause: None,
            asked_by: Some((who.who, who.why)),
        })
    }

    async fn start(&self, entry: &DagEntry, trigger: Trigger, request: Request) -> Result<Triggered, Error> {
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        let date = trigger.logical_date.filter(|_| !trigger.again && !trigger.dry_run);
        // Two who ask for one date at once are asked one after the other. Who names none waits for nobody: what is written to the store
        // for a thousand such requests is written in one go.
        let _one_at_a_time = match date {
            Some(_) => Some(self.dates.lock().await),
            None => None,
        };
        let existing = match &trigger.run_id {
            Some(run) => self.store.run(run).await?,
            None => None,
        };
        if let Some(row) = existing {
            if row.header.dag_id != *entry.definition.dag.id() {
                return Err(Error::Conflict(format!("run {} is of DAG `{}` already", row.header.run_id, row.header.dag_id)));
            }
            return same(row.header, &request, trigger.logical_date).map(|header| Triggered { header, is_new: false });
        }
        // A run of some tasks leaves the rest of its date to others, and only stands in the way of the like.
        let is_in_the_way = if request.only_tasks.is_empty() { is_whole } else { has_effects };
        if let Some(date) = date
            && let Some(row) = newest_about(&*self.store, entry.definition.dag.id(), date, is_in_the_way).await?
        {
            let run = &row.header.run_id;
            let message =
                format!("run {run} of DAG `{}` is about {date} already: retry or clear that one", entry.definition.dag.id());
            return Err(Error::Conflict(format!("{message}, or ask with `again` for another")));
        }
        self.has_room_for_more()?;
        let made = self.make(entry, request.clone()).await?;
        match made.is_new {
            true => Ok(made),
            // Asked for twice at the same moment.
            false => same(made.header, &request, trigger.logical_date).map(|header| Triggered { header, is_new: false }),
        }
    }

    /// Makes a run of a DAG as it is now. One of the same id and DAG is taken for it.
    pub(super) async fn make(&self, entry: &DagEntry, request: Request) -> Result<Triggered, Error> {
        self.keep(entry).await?;
        let run = request.run_id.clone();
        let _making = self.announce(&run);
        let launch = Launch {
            prepared: entry.prepared.clone(),
            store: self.store.clone(),
            logs: self.logs.clone(),
            scratch: self.scratch.clone(),
            clock: self.clock.clone(),
            watcher: Arc::new(super::live::LiveWatcher::new(
                self,
                run.clone(),
                entry.definition.dag.id().clone(),
                self.clock.now(),
                // What makes it quotes nothing of its parameters.
                Redactor::default(),
            )),
            sessions: entry.sessions.clone(),
            slots: None,
            others: None,
            limits: Limits::default(),
        };
        match run::create(&launch, request).await {
            Ok(created) => {
                let header = created.header.clone();
                self.take_in(created);
                Ok(Triggered { header, is_new: true })
            }
            // It is there: as it was made, or (`Fenced`) resumed since then.
            Err(run::Error::Append(AppendError::Conflict { .. } | AppendError::Fenced { .. })) => {
                match self.store.run(&run).await? {
                    Some(row) if row.header.dag_id == *entry.definition.dag.id() => {
                        Ok(Triggered { header: row.header, is_new: false })
                    }
                    Some(row) => Err(Error::Conflict(format!("run {run} is of DAG `{}` already", row.header.dag_id))),
                    None => Err(Error::Conflict(format!("run {run} could not be made"))),
                }
            }
            Err(run::Error::Store(error) | run::Error::Append(AppendError::Store(error))) => Err(Error::Store(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a definition's sources, unless it is known that they are.
    pub(super) async fn keep(&self, entry: &DagEntry) -> Result<(), Error> {
        let kept = || self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept().contains(&entry.definition.version) {
            return Ok(());
        }
        run::keep_version(&*self.store, &entry.project, &entry.definition).await?;
        kept().insert(entry.definition.version.clone());
        Ok(())
    }

    /// Ends a run: running statements are killed on their servers, the rest is not begun. Returns when that is asked for, durably.
    ///
    /// # Errors
    /// `Invalid` when no reason is given; no such run; one that is over; one that another process drives.
    pub async fn cancel(&self, run: &RunId, who: &Who) -> Result<(), Error> {
        if who.why.trim().is_empty() {
            return Err(Error::Invalid("`why` is empty: say why, it is kept in the run's log".into()));
        }
        let who = &self.masked(who);
        let reason = format!("{}: {}", who.who, who.why);
        self.act(run, Command::Cancel { reason }, who, "cancelled the run").await
    }

    /// Carries out a command upon a run, and records who wanted it and why.
    ///
    /// # Errors
    /// As [`Self::cancel`]; `Conflict` when the core refuses.
    pub async fn act(&self, run: &RunId, command: Command, who: &Who, what: &str) -> Result<(), Error> {
        let who = &self.masked(who);
        let note = Command::RecordOperator { who: who.who.clone(), why: who.why.clone(), what: what.to_owned() };
        let (ask, answer) = Ask::act(vec![note, command]);
        self.ask(run, ask, answer).await
    }

    /// Looks at a run as it is in this moment. `None` when nobody here drives it.
    pub async fn look<T: Send + 'static>(&self, run: &RunId, look: impl FnOnce(&RunState) -> T + Send + 'static) -> Option<T> {
        self.control(run)?.look(look).await
    }

    /// Asks something of the run's engine; a run that waits is begun for it, because only an engine changes a log.
    pub(super) async fn ask(&self, run: &RunId, ask: Ask, answer: Answer) -> Result<(), Error> {
        match self.control(run) {
            Some(control) => control.ask(ask),
            None => self.ask_who_waits(run, ask).await?,
        }
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(Error::Conflict(refused)),
            Err(_) if self.is_over(run).await? => Err(Error::Conflict(format!("run {run} is over"))),
            Err(_) => {
                self.until_let_go(run).await;
                Err(self.not_answered(run))
            }
        }
    }

    /// Waits until nobody here drives a run any more whose engine has gone: what became of it is known a moment later.
    async fn until_let_go(&self, run: &RunId) {
        for _ in 0..LOOKS_MAX {
            if self.control(run).is_none() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is told to who asked something of an engine that has gone without an answer.
    pub(super) fn not_answered(&self, run: &RunId) -> Error {
        Error::Conflict(match self.standing(run) {
            Standing::Hindered { why, .. } => format!("run {run} cannot be driven now: {why}"),
            Standing::Stuck { undecided } => {
                let which: Vec<String> = undecided.iter().map(|(instance, why)| format!("`{instance}` ({why})")).collect();
                format!(
                    "run {run} goes on waiting: it is not known what the last attempt of {} did. Say what became of it (`backstop runs \
                     resolve`), and ask again",
                    which.join(", ")
                )
            }
            Standing::Queued(_) | Standing::Active { .. } | Standing::Unknown => {
                format!("run {run} was let go just now: ask again")
            }
        })
    }

    pub(super) async fn ask_who_waits(&self, run: &RunId, ask: Ask) -> Result<(), Error> {
        let row = self.store.run(run).await?.ok_or_else(|| Error::NoRun(run.clone()))?;
        if self.standing(run) == Standing::Unknown {
            if self.is_over(run).await? {
                return Err(Error::Conflict(format!("run {run} is over")));
            }
            if self.store.is_run_held(run)? {
                return Err(Error::Conflict(format!("another process drives run {run}: steer it there")));
            }
        }
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        if let Err(ask) = self.begin_with(row.header, ask)
            && let Some(control) = self.control(run)
        {
            control.ask(ask);
        }
        Ok(())
    }

    /// What a person says of an attempt in doubt: of a segment of its script, from 1, or of the one that is in doubt.
    ///
    /// # Errors
    /// As [`Self::act`]; `Conflict` when another segment is in doubt.
    pub async fn resolve(
        &self,
        run: &RunId,
        instance: InstanceId,
        segment: Option<u32>,
        took_effect: bool,
        who: &Who,
    ) -> Result<(), Error> {
        let who = &self.masked(who);
        let decision = run::Decision { instance, took_effect, segment, who: who.who.clone(), why: who.why.clone() };
        if who.why.trim().is_empty() {
            return Err(Error::Invalid("say why: how do you know?".into()));
        }
        let (ask, answer) = Ask::decide(decision);
        self.ask(run, ask, answer).await
    }

    /// A DAG by its name, which may be gone: its runs go on, and wait while it is paused.
    ///
    /// # Errors
    /// `NoDag` where there are no such runs either, and it is not paused.
    pub fn known_dag(&self, id: &str) -> Result<DagId, Error> {
        match self.dag(id) {
            Ok(entry) => Ok(entry.definition.dag.id().clone()),
            Err(error) => {
                let dag = DagId::new(id);
                if self.is_paused(&dag) || self.has_runs_of(&dag) { Ok(dag) } else { Err(error) }
            }
        }
    }

    /// Pauses a DAG, or lets it go on, also one that is gone and has runs. What is going on goes on; what waits does not begin.
    ///
    /// # Errors
    /// No such DAG; the store.
    pub async fn pause(&self, dag: &str, pause: bool, who: &Who) -> Result<(), Error> {
        self.pause_if(dag, pause, who, || true).await.map(drop)
    }

    /// As [`Self::pause`], where `may` says so: it is asked when nobody else pauses anything. False when nothing was done.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub async fn pause_if(&self, dag: &str, pause: bool, who: &Who, may: impl FnOnce() -> bool + Send) -> Result<bool, Error> {
        let id = self.known_dag(dag)?;
        let _one_at_a_time = self.keeping.lock().await;
        if !may() {
            return Ok(false);
        }
        let entry = Kept { paused: pause, ..self.desk().kept(&id) }.entry(&id);
        self.store.put(vec![entry], Some(self.acted(who, paused(&id, pause)))).await?;
        let mut desk = self.desk();
        if pause {
            desk.paused.insert(id.clone());
        } else {
            desk.paused.remove(&id);
        }
        desk.replan.dags.insert(id);
        drop(desk);
        self.live.tell_catalog_changed(self.clock.now());
        self.pump.notify_one();
        self.replan.notify_one();
        self.fill_up.notify_one();
        Ok(true)
    }

    /// Who asks, and why, as it may be kept: people paste what they work with.
    pub(super) fn masked(&self, who: &Who) -> Who {
        let redactor = self.redactor();
        Who { who: redactor.clean(&who.who).into_owned(), why: redactor.clean(&who.why).into_owned() }
    }

    pub(super) fn acted(&self, who: &Who, what: String) -> Act {
        let Who { who, why } = self.masked(who);
        Act { at: self.clock.now(), who, why, what }
    }
}

fn has_effects(header: &RunHeader) -> bool {
    !header.dry_run
}

/// The run that a request had made before; a conflict when that request was another one.
fn same(header: Arc<RunHeader>, request: &Request, date: Option<Timestamp>) -> Result<Arc<RunHeader>, Error> {
    let params: Value = serde_json::from_str(&header.params).unwrap_or_default();
    let is_same = params.as_object() == Some(&request.params)
        && date.is_none_or(|date| header.logical_date == Some(date))
        && header.only_tasks == request.only_tasks
        && header.dry_run == request.dry_run;
    if is_same {
        return Ok(header);
    }
    let run = &header.run_id;
    Err(Error::Conflict(format!("run {run} was asked for with other parameters, date or tasks: use another `run_id`")))
}

/// What is kept of a DAG beside its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub(super) struct Kept {
    /// Nothing of it is begun.
    pub(super) paused: bool,
    /// The time of the last tick that was planned.
    pub(super) cursor: Option<Timestamp>,
    /// When a service saw it first: before its first tick, this is how far it is planned. Only where its timetable does not say.
    pub(super) since: Option<Timestamp>,
    /// The last update of an asset that its runs stand for, where it waits for assets.
    pub(super) assets: Option<u64>,
}

impl Kept {
    pub(super) fn entry(self, dag: &DagId) -> Entry {
        Entry { kind: DAG.into(), key: dag.to_string(), body: serde_json::to_string(&self).ok() }
    }
}

/// The DAGs that are paused, of a store that no service has.
///
/// # Errors
/// The store.
pub async fn paused_in_store(store: &dyn Store) -> Result<BTreeSet<DagId>, backstop_store::Error> {
    let entries = store.entries(DAG).await?;
    let is_paused = |body: &str| serde_json::from_str::<Kept>(body).is_ok_and(|kept| kept.paused);
    Ok(entries.into_iter().filter(|(_, body)| is_paused(body)).map(|(dag, _)| DagId::new(dag)).collect())
}

/// Pauses a DAG in a store that no service has: the next one heeds it.
///
/// # Errors
/// The store.
pub async fn pause_in_store(
    store: &dyn Store,
    dag: &DagId,
    pause: bool,
    who: &Who,
    now: Timestamp,
) -> Result<(), backstop_store::Error> {
    let entries = store.entries(DAG).await?;
    let known = entries.into_iter().find(|(key, _)| key == dag.as_str()).map(|(_, body)| body);
    let known: Kept = known.and_then(|body| serde_json::from_str(&body).ok()).unwrap_or_default();
    let act = Act { at: now, who: who.who.clone(), why: who.why.clone(), what: paused(dag, pause) };
    store.put(vec![Kept { paused: pause, ..known }.entry(dag)], Some(act)).await
}

fn paused(dag: &DagId, pause: bool) -> String {
    format!("{} DAG `{dag}`", if pause { "paused" } else { "unpaused" })
}

/// What is kept of each DAG.
pub(super) async fn kept(store: &dyn Store) -> Result<BTreeMap<DagId, Kept>, Error> {
    let entries = store.entries(DAG).await?;
    Ok(entries.into_iter().map(|(dag, body)| (DagId::new(dag), serde_json::from_str(&body).unwrap_or_default())).collect())
}
