//! Who of this process uses which session, what runs there, and how that goes.
//!
//! Every lease of a session is noted here (`Ticket`). While a statement runs for longer than [`SLOW_AFTER`], its connection is watched from
//! one session beside (`rounds`): what is seen is kept as samples, and shown to whoever asks. Watching never holds anything up: the batch
//! neither waits for it nor fails with it.
//!
//! It must not know: what a statement means, how runs are driven.

mod past;
mod rounds;

use crate::clock::{Clock, SystemClock};
use crate::engine::Answer;
use crate::sessions::{ConnectionKey, Kept, Purpose};
use crate::watch::Watcher;
use backstop_connect::session::NAME_BYTES_MAX;
use backstop_connect::{Connector, Session, script as scripts};
use backstop_core::event::{Anomaly, StatementRecord};
use backstop_core::{DagId, InstanceId, RunId};
use backstop_store::{Sample, Store};
use jiff::Timestamp;
use past::Pasts;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Statements that run for longer are looked at.
pub const SLOW_AFTER: Duration = Duration::from_secs(2);
/// How long a statement that has ended waits for what it is compared with.
const PAST_WAIT: Duration = Duration::from_millis(250);
/// Whoever is named of those that use a connection.
const USERS_NAMED_MAX: usize = 3;
/// What a session says of itself begins so.
pub(crate) const OUR_NAME: &str = "backstop ";
/// How much of the digest of a long task's name is told.
const DIGEST_LETTERS: usize = 4;

/// On whose behalf a session is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) run: RunId,
    pub(crate) dag: DagId,
    pub(crate) instance: InstanceId,
    pub(crate) try_number: u32,
}

impl User {
    /// As other people see it on the server: the task, and the run behind it. Of a long task's name only the beginning, and a few letters
    /// that tell it from others: what is left behind on a server is ended by this name.
    pub(crate) fn name(&self) -> String {
        let (whole, run) = (self.instance.to_string(), self.run.as_str());
        let room = NAME_BYTES_MAX.saturating_sub(OUR_NAME.len() + 1 + run.len());
        let task: String = whole.chars().filter(char::is_ascii).take(room).collect();
        if task == whole || room <= DIGEST_LETTERS {
            return format!("{OUR_NAME}{task} {run}");
        }
        let digest = scripts::digest(std::iter::once((whole.as_str(), &[][..], None)));
        let beginning: String = task.chars().take(room - DIGEST_LETTERS - 1).collect();
        format!("{OUR_NAME}{beginning}~{} {run}", &digest[..DIGEST_LETTERS])
    }
}

/// A connection of a project, as the monitor knows it.
pub(crate) struct Watched {
    /// Of this process, unique.
    number: u64,
    /// The folder of its project: another one may have a connection of the same id.
    project: PathBuf,
    pub(crate) id: String,
    pub(crate) sessions_max: usize,
    server: String,
    connector: Arc<dyn Connector>,
}

impl Watched {
    fn is(&self, project: &Path, id: &str) -> bool {
        self.id == id && self.project == project
    }

    /// What its earlier versions had, too.
    fn key(&self) -> ConnectionKey {
        (self.project.clone(), self.id.clone())
    }
}

/// A statement at work.
#[derive(Clone)]
struct Statement {
    number: u32,
    summary: String,
    since: Instant,
    /// Rows received here so far.
    rows: u64,
    onlooker: Onlooker,
    /// It was said that it takes longer than usual.
    is_told_slow: bool,
}

/// Who is told of a statement.
#[derive(Clone)]
pub(crate) struct Onlooker {
    pub(crate) watcher: Arc<dyn Watcher>,
    /// The engine, for what shall be recorded; `None` of what is no attempt of its own.
    pub(crate) mailbox: Option<mpsc::Sender<Answer>>,
}

/// One use of a session.
struct Work {
    user: User,
    watched: Arc<Watched>,
    /// `None` while it waits for one.
    session: Option<String>,
    statement: Option<Statement>,
    /// What was seen last, of this statement.
    sample: Option<Sample>,
    samples: u32,
    kept_at: Option<Instant>,
}

#[derive(Default)]
struct State {
    next: u64,
    works: BTreeMap<u64, Work>,
    /// Connections that are being watched.
    rounds: HashSet<u64>,
    /// What could not be seen, by project and connection.
    limits: BTreeMap<ConnectionKey, String>,
}

/// A statement that runs now.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    /// The run.
    pub run: RunId,
    /// Its DAG.
    pub dag: DagId,
    /// The instance.
    pub instance: InstanceId,
    /// The try.
    pub try_number: u32,
    /// The connection's id.
    pub connection: String,
    /// The server's name of the session.
    pub session: String,
    /// Since when the statement runs.
    pub since: Timestamp,
    /// What was seen of it; its elapsed time is that of now.
    pub sample: Sample,
}

/// Everything of this process.
pub struct Monitor {
    state: Mutex<State>,
    store: Option<Arc<dyn Store>>,
    clock: Arc<dyn Clock>,
    pasts: Pasts,
    /// What attempts in doubt keep of the sessions: as the uses, over all versions of a project.
    kept: Arc<Kept>,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Default for Monitor {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            store: None,
            clock: Arc::new(SystemClock::starting(None)),
            pasts: Pasts::default(),
            kept: Arc::default(),
        }
    }
}

impl Monitor {
    /// Keeps samples in this store, and asks it for what was before.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store: Some(store), clock, ..Self::default() }
    }

    /// What attempts in doubt keep of the sessions.
    pub(crate) fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is made whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the statements of a DAG took before, so that it is known when they end.
    pub(crate) fn learn(self: &Arc<Self>, dag: &DagId) {
        if let Some(store) = self.store.clone() {
            let (monitor, dag) = (self.clone(), dag.clone());
            tokio::spawn(async move { drop(monitor.pasts.of(&*store, &dag).await) });
        }
    }

    /// What is unusual of statements that have ended. Waits a moment for what they are compared with, and does without when it does not come.
    pub(crate) async fn judge(&self, user: &User, records: &[StatementRecord]) -> Vec<Anomaly> {
        let Some(store) = &self.store else { return Vec::new() };
        let past = match self.pasts.known(&user.dag) {
            Some(past) => past,
            None => match tokio::time::timeout(PAST_WAIT, self.pasts.of(&**store, &user.dag)).await {
                Ok(past) => past,
                Err(_) => return Vec::new(),
            },
        };
        if past.is_empty() {
            return Vec::new();
        }
        let task = user.instance.task.as_str();
        let usual = |record: &&StatementRecord| past.get(&(task.to_owned(), record.number)).copied();
        records
            .iter()
            .filter_map(|record| Some((usual(&record)?, record)))
            .flat_map(|(usual, record)| usual.judge(record))
            .collect()
    }

    /// Makes a connection of the project in this folder known.
    pub(crate) fn connection(
        &self,
        project: &Path,
        id: &str,
        sessions_max: usize,
        connector: Arc<dyn Connector>,
    ) -> Arc<Watched> {
        let mut state = self.state();
        state.next += 1;
        Arc::new(Watched {
            number: state.next,
            project: project.to_owned(),
            id: id.to_owned(),
            sessions_max,
            server: connector.server(),
            connector,
        })
    }

    /// Somebody wants a session.
    pub(crate) fn begin(self: &Arc<Self>, watched: &Arc<Watched>, user: User) -> Ticket {
        let mut state = self.state();
        state.next += 1;
        let id = state.next;
        let work =
            Work { user, watched: watched.clone(), session: None, statement: None, sample: None, samples: 0, kept_at: None };
        state.works.insert(id, work);
        Ticket { monitor: self.clone(), id }
    }

    /// Every statement that runs now, the longest first.
    pub fn activity(&self) -> Vec<Activity> {
        let now = self.clock.now();
        let state = self.state();
        let mut running: Vec<Activity> = state.works.values().filter_map(|work| work.activity(now)).collect();
        running.sort_by_key(|activity| std::cmp::Reverse(activity.sample.elapsed_ms));
        running
    }

    /// The sessions of a project's connection that are in use here, by the server's names of them.
    pub(crate) fn sessions_in_use(&self, project: &Path, connection: &str) -> Vec<String> {
        let state = self.state();
        let used = state.works.values().filter(|work| work.watched.is(project, connection));
        used.filter_map(|work| work.session.clone()).collect()
    }

    /// Whether an instance has a session here.
    pub(crate) fn has_session(&self, run: &RunId, instance: &InstanceId) -> bool {
        let is_its = |work: &Work| work.session.is_some() && work.user.run == *run && work.user.instance == *instance;
        self.state().works.values().any(is_its)
    }

    /// What could not be seen, and which right is missing: by connection. Of connections of one id in several projects, all of it.
    pub fn limits(&self) -> BTreeMap<String, String> {
        let mut limits: BTreeMap<String, String> = BTreeMap::new();
        for ((_, id), limit) in &self.state().limits {
            let known = limits.entry(id.clone()).or_default();
            if known.is_empty() {
                known.clone_from(limit);
            } else if !known.split("; ").any(|other| other == limit) {
                known.push_str(&format!("; {limit}"));
            }
        }
        limits
    }

    /// What an instance is doing on its server, or waits for there; `None` when it has nothing to do with one.
    pub fn tell(&self, run: &RunId, instance: &InstanceId) -> Option<String> {
        let now = self.clock.now();
        let state = self.state();
        let work = state.works.values().find(|work| work.user.run == *run && work.user.instance == *instance)?;
        if let Some(activity) = work.activity(now) {
            let limit = state.limits.get(&work.watched.key()).map(|limit| format!(" ({limit})")).unwrap_or_default();
            return Some(format!("{}{limit}", activity.sample));
        }
        if work.session.is_some() {
            return Some(format!("it has a session of connection `{}`", work.watched.id));
        }
        Some(state.waits_for_session(work, &self.kept.by(&work.watched.key())))
    }
}

impl State {
    /// `kept` are the attempts in doubt that keep a session of the connection.
    fn waits_for_session(&self, work: &Work, kept: &[(RunId, InstanceId)]) -> String {
        let Watched { project, id, sessions_max, .. } = &*work.watched;
        // Those of an earlier version of the connection have sessions of the same one.
        let used = self.works.values().filter(|other| other.watched.is(project, id) && other.session.is_some());
        let in_doubt = kept
            .iter()
            .map(|(run, instance)| format!("`{instance}` of run {run} (in doubt: its statement may still run on the server)"));
        let named: Vec<String> = used
            .clone()
            .map(|other| format!("`{}` of run {}", other.user.instance, other.user.run))
            .chain(in_doubt)
            .take(USERS_NAMED_MAX)
            .collect();
        let count = used.count() + kept.len();
        if count < *sessions_max {
            return format!(
                "it waits for a session of connection `{id}`, which is being opened ({count} of {sessions_max} in use)"
            );
        }
        let more = count.saturating_sub(named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("it waits for a session of connection `{id}`: {count} of {sessions_max} in use by {}{more}", named.join(", "))
    }
}

impl Work {
    fn activity(&self, now: Timestamp) -> Option<Activity> {
        let (statement, session) = (self.statement.as_ref()?, self.session.as_ref()?);
        let elapsed = statement.since.elapsed();
        let mut sample = self.sample.clone().unwrap_or_default();
        sample.statement = statement.number;
        sample.summary.clone_from(&statement.summary);
        sample.elapsed_ms = milliseconds(elapsed);
        if statement.rows > 0 {
            sample.rows = sample.rows.max(Some(statement.rows));
        }
        Some(Activity {
            run: self.user.run.clone(),
            dag: self.user.dag.clone(),
            instance: self.user.instance.clone(),
            try_number: self.user.try_number,
            connection: self.watched.id.clone(),
            session: session.clone(),
            since: now.checked_sub(elapsed).unwrap_or(now),
            sample,
        })
    }
}

/// One use of a session, noted as long as this lives.
pub(crate) struct Ticket {
    monitor: Arc<Monitor>,
    id: u64,
}

impl Ticket {
    fn with(&self, change: impl FnOnce(&mut Work)) {
        if let Some(work) = self.monitor.state().works.get_mut(&self.id) {
            change(work);
        }
    }

    /// Somebody else works in the session.
    pub(crate) fn work_for(&self, user: User) {
        self.with(|work| work.user = user);
    }

    /// The session is there: it says on whose behalf it works.
    pub(crate) fn got(&self, session: &mut dyn Session, purpose: Purpose) {
        let id = session.server_id();
        let mut name = None;
        self.with(|work| {
            work.session = Some(id);
            name = Some(work.user.name());
        });
        // Who asks what became of an attempt does not go by its name; nor by that of who had the session before.
        let name = name.filter(|_| purpose != Purpose::Ask).unwrap_or_default();
        session.introduce(&name);
    }

    /// A statement was sent.
    pub(crate) fn started(&self, number: u32, summary: String, onlooker: Onlooker) {
        let mut watched = None;
        self.with(|work| {
            work.statement = Some(Statement { number, summary, since: Instant::now(), rows: 0, onlooker, is_told_slow: false });
            work.sample = None;
            watched = Some(work.watched.clone());
        });
        if let Some(watched) = watched.filter(|watched| watched.connector.has_lookout()) {
            let is_new = self.monitor.state().rounds.insert(watched.number);
            if is_new {
                tokio::spawn(rounds::make(Arc::downgrade(&self.monitor), watched));
            }
        }
    }

    /// Rows were received.
    pub(crate) fn received(&self, rows: u64) {
        self.with(|work| {
            if let Some(statement) = &mut work.statement {
                statement.rows = rows;
            }
        });
    }

    /// It ended.
    pub(crate) fn ended(&self) {
        self.with(|work| {
            work.statement = None;
            work.sample = None;
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.monitor.state().works.remove(&self.id);
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::TaskId;

    fn connector() -> Arc<dyn Connector> {
        let config = backstop_connect::Config {
            id: "db".into(),
            conn_type: "sqlite".into(),
            host: None,
            port: None,
            login: None,
            password: None,
            database: Some("data.db".into()),
            extra: BTreeMap::default(),
            base_dir: PathBuf::from("/nowhere"),
        };
        backstop_connect::connector(&config).unwrap()
    }

    #[test]
    fn connections_of_one_id_in_two_projects_are_two() {
        let monitor = Arc::new(Monitor::default());
        let (one, other) = (Path::new("/one"), Path::new("/other"));
        let instance = InstanceId { task: TaskId::new("load"), map_index: None };
        let user = |run: &str| User { run: RunId::new(run), dag: DagId::new("d"), instance: instance.clone(), try_number: 1 };
        let of_one = monitor.connection(one, "db", 1, connector());
        let works = monitor.begin(&of_one, user("works"));
        works.with(|work| work.session = Some("7".into()));
        assert_eq!((monitor.sessions_in_use(one, "db"), monitor.sessions_in_use(other, "db")), (vec!["7".to_owned()], vec![]));
        let tell = |run: &str| monitor.tell(&RunId::new(run), &instance).unwrap();
        let _waits = monitor.begin(&monitor.connection(other, "db", 1, connector()), user("waits"));
        assert_eq!(tell("waits"), "it waits for a session of connection `db`, which is being opened (0 of 1 in use)");
        // As it is after the project was loaded again.
        let _waits = monitor.begin(&monitor.connection(one, "db", 1, connector()), user("waits too"));
        assert_eq!(tell("waits too"), "it waits for a session of connection `db`: 1 of 1 in use by `load` of run works");
    }

    fn name(task: &str, run: &str) -> String {
        User { run: run.into(), dag: "d".into(), instance: InstanceId::single(task.into()), try_number: 1 }.name()
    }

    #[test]
    fn names_on_the_server_fit_and_differ() {
        let run = "01a20484-bc59-7171-98e3-72e5d1f37591";
        assert_eq!(name("load_customers_eu", run), format!("backstop load_customers_eu {run}"));
        let long = ["load_customers_eu_1", "load_customers_eu_2", "load_customers_ü_12"].map(|task| name(task, run));
        for (place, name) in long.iter().enumerate() {
            assert!(name.starts_with("backstop load_custom") && name.ends_with(run) && name.len() == NAME_BYTES_MAX, "{name}");
            assert!(!long[..place].contains(name), "{name}");
        }
        assert_eq!(name("load", &"r".repeat(60)), format!("backstop  {}", "r".repeat(60)));
    }
}
