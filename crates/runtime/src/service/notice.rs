//! What whoever looks after the machine is told while the service goes on, one line each.
//!
//! All lines go one way: secrets are masked, a line is one line and not endless, and a storm of lines about one thing is summed up. Where
//! they go, and from which level on, is the composition root's business. Nothing here may block: who tells is in the middle of driving runs.

use super::catalog::Catalog;
use super::{Service, desk};
use crate::clock::Clock;
use crate::redact::Redactor;
use crate::run::Report;
use crate::sessions::Connect;
use backstop_connect::{Capabilities, Config, Connector, Dialect, Error, ErrorKind, Lookout, Session};
use backstop_core::event::{CancelCause, RunHeader};
use backstop_core::{Event, InstancePhase, RunPhase};
use backstop_project::{Diagnostic, Severity};
use backstop_store::Recorded;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Takes lines.
#[derive(Clone)]
pub struct Notice {
    /// Of no more detail than this.
    pub up_to: Level,
    /// What takes them.
    pub tell: Tell,
}

/// What takes a line. It must not block.
pub type Tell = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// Lines about one topic within `WINDOW`; what comes beyond is counted, and told as one line when the window is over.
pub const LINES_OF_A_TOPIC_MAX: u64 = 20;
/// How long lines are counted together.
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// Of a line; the rest is cut.
const CHARACTERS_MAX: usize = 600;
/// Connections that are remembered as out of reach.
const AWAY_MAX: usize = 1000;

/// How much a line matters: the first matters most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed, and somebody should look.
    Error,
    /// Something is not as it should be, and may mend itself.
    Warn,
    /// The life of the service: what came, went, or is well again.
    Info,
    /// Each run's beginning and good end.
    Debug,
}

/// What a line is about. Lines of one topic are summed up together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    Machine,
    Takeover,
    House,
    RunFailed,
    RunStuck,
    RunHindered,
    RunCancelled,
    RunWell,
    Deadline,
    FileBroken,
    FileWhole,
    Connection,
}

impl Topic {
    /// What there were more of.
    fn words(self) -> &'static str {
        match self {
            Self::Machine => "notices about the machine",
            Self::Takeover => "notices of runs that were taken over",
            Self::House => "notices of housekeeping",
            Self::RunFailed => "runs failed",
            Self::RunStuck => "runs are stuck",
            Self::RunHindered => "runs could not be driven",
            Self::RunCancelled => "runs were cancelled",
            Self::RunWell => "runs began or ended well",
            Self::Deadline => "deadlines were missed or will be",
            Self::FileBroken => "files are broken",
            Self::FileWhole => "files are whole again",
            Self::Connection => "notices of connections",
        }
    }
}

/// The lines about one topic in the window that goes on.
struct Window {
    since: Timestamp,
    told: u64,
    /// Lines that were not told, and the level of the worst.
    held: Option<(u64, Level)>,
}

/// Tells.
pub(super) struct Notices {
    notice: Notice,
    clock: Arc<dyn Clock>,
    redactor: RwLock<Arc<Redactor>>,
    windows: Mutex<BTreeMap<Topic, Window>>,
    /// Connections that could not be reached when they were wanted last: id and target.
    away: Mutex<BTreeSet<(String, String)>>,
}

impl Notices {
    pub(super) fn new(notice: Notice, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (redactor, windows, away) = (RwLock::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { notice, clock, redactor, windows, away })
    }

    /// Tells a line, or counts it when there were too many about this.
    pub(super) fn tell(&self, topic: Topic, level: Level, line: &str) {
        self.sum_up();
        let now = self.clock.now();
        let is_told = {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            let window = windows.entry(topic).or_insert(Window { since: now, told: 0, held: None });
            // Who asks for what is of interest to few asks for all of it.
            if window.told < LINES_OF_A_TOPIC_MAX || level == Level::Debug {
                window.told += u64::from(level != Level::Debug);
                true
            } else {
                let (count, worst) = window.held.unwrap_or((0, level));
                window.held = Some((count + 1, worst.min(level)));
                false
            }
        };
        if is_told {
            (self.notice.tell)(level, &self.presentable(line));
        }
    }

    /// Tells what is of interest to few, of each run: the line is made only where somebody takes it.
    pub(super) fn tell_detail(&self, topic: Topic, line: impl FnOnce() -> String) {
        if self.notice.up_to >= Level::Debug {
            self.tell(topic, Level::Debug, &line());
        }
    }

    /// Tells how many lines were left out, of windows that are over.
    pub(super) fn sum_up(&self) {
        let now = self.clock.now();
        self.close(|window| now.duration_since(window.since) >= WINDOW);
    }

    /// The same, of all windows: the service ends.
    pub(super) fn sum_up_all(&self) {
        self.close(|_| true);
    }

    fn close(&self, is_over: impl Fn(&Window) -> bool) {
        let over: Vec<(Topic, Window)> = {
            let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
            windows.extract_if(.., |_, window| is_over(window)).collect()
        };
        for (topic, window) in over {
            if let Some((count, level)) = window.held {
                (self.notice.tell)(level, &format!("{count} more {}, since {:.0}", topic.words(), window.since));
            }
        }
    }

    /// Masked, on one line, and cut.
    fn presentable(&self, line: &str) -> String {
        let masked = self.redactor.read().unwrap_or_else(PoisonError::into_inner).clean(line).into_owned();
        let is_long = masked.chars().nth(CHARACTERS_MAX).is_some();
        let one_line = masked.chars().take(CHARACTERS_MAX).map(|c| if c.is_control() { ' ' } else { c });
        one_line.chain(is_long.then_some('…')).collect()
    }

    /// Files that became broken or whole, from one load to the next. What may not be told is known from here on.
    pub(super) fn files(&self, before: Option<&Catalog>, after: &Catalog) {
        *self.redactor.write().unwrap_or_else(PoisonError::into_inner) = after.redactor().clone();
        let (was, is) = (before.map(broken).unwrap_or_default(), broken(after));
        for (file, (first, count)) in &is {
            if was.get(file).is_none_or(|(known, _)| known != first) {
                let more = if *count > 1 { format!(" (and {} more: `backstop check`)", count - 1) } else { String::new() };
                let stays = if before.is_some() { "; what was loaded of it before stays" } else { "" };
                self.tell(Topic::FileBroken, Level::Error, &format!("broken: {first}{more}{stays}"));
            }
        }
        let lost = after.not_loaded();
        if let Some(first) = lost.first().filter(|_| before.is_none_or(|before| before.not_loaded() != lost)) {
            let (are, them) = if lost.len() == 1 { ("is", "it") } else { ("are", "them") };
            let line = format!(
                "DAG `{}`{} {are} known and not loaded, and nothing of {them} begins: {}",
                first.dag,
                also(lost.len()),
                first.because
            );
            self.tell(Topic::FileBroken, Level::Error, &line);
        }
        for (name, roots) in namesakes(after) {
            if before.is_none_or(|before| !namesakes(before).contains_key(&name)) {
                let line = format!(
                    "several projects are called `{name}` ({roots}): metrics and tests of connections cannot tell them apart; give each its own `name:` \
                     in backstop.yaml"
                );
                self.tell(Topic::FileBroken, Level::Error, &line);
            }
        }
        for file in was.keys().filter(|file| !is.contains_key(*file)) {
            self.tell(Topic::FileWhole, Level::Info, &format!("no longer broken: {file}"));
        }
    }

    /// A run that was let go.
    pub(super) fn run_ended(&self, header: &RunHeader, report: &Report) {
        let state = &report.state;
        let name = || format!("run {} of DAG `{}`", header.run_id, header.dag_id);
        if let Some((instance, why)) = report.undecided.first_key_value() {
            let more = also(report.undecided.len());
            let line = format!("{} is stuck, a person must say what became of `{instance}`{more}: {why}", name());
            return self.tell(Topic::RunStuck, Level::Error, &line);
        }
        match state.phase() {
            RunPhase::Failed => {
                let mut failed = state.instances().filter(|(_, view)| view.phase == InstancePhase::Failed);
                let why = match failed.next() {
                    Some((instance, view)) => {
                        let tries = if view.try_number > 1 { format!(", try {}", view.try_number) } else { String::new() };
                        let message = view.failure.map_or("marked by a person", |failure| &*failure.message);
                        let more = also(failed.count() + 1);
                        format!("task `{instance}`{more}{tries}: {message}")
                    }
                    None if state.cancel_cause() == Some(CancelCause::DagrunTimeout) => "it went over its dagrun_timeout".into(),
                    None => "none of its tasks did".into(),
                };
                self.tell(Topic::RunFailed, Level::Error, &format!("{} failed: {why}", name()));
            }
            RunPhase::Cancelled => self.tell(Topic::RunCancelled, Level::Info, &format!("{} was cancelled", name())),
            RunPhase::Succeeded => self.tell_detail(Topic::RunWell, || format!("{} ended well", name())),
            // The next service goes on with it.
            RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck => {}
        }
    }

    /// What is told at once of an event that is durable.
    pub(super) fn event(&self, run: &backstop_core::RunId, dag: &backstop_core::DagId, recorded: &Recorded) {
        match &recorded.event {
            Event::DeadlineMissed { due_at, .. } => {
                let line = format!("run {run} of DAG `{dag}` missed its deadline {due_at}");
                self.tell(Topic::Deadline, Level::Warn, &line);
            }
            Event::DeadlineAtRisk { due_at, done_at, .. } => {
                let line =
                    format!("run {run} of DAG `{dag}` will probably miss its deadline {due_at}: past runs took until {done_at}");
                self.tell(Topic::Deadline, Level::Info, &line);
            }
            // The others are for who looks at the run.
            _ => {}
        }
    }

    /// Makes connectors that tell when their server cannot be reached, and when it is back.
    pub(super) fn watching(self: &Arc<Self>, connect: Connect) -> Connect {
        let notices = self.clone();
        Arc::new(move |config: &Config| {
            let inner = connect(config)?;
            Ok(Arc::new(Watched { inner, id: config.id.clone(), notices: notices.clone() }) as Arc<dyn Connector>)
        })
    }

    fn opened(&self, id: &str, connector: &dyn Connector, error: Option<&Error>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() && away.is_empty() {
            return;
        }
        let key = (id.to_owned(), connector.target());
        let target = key.1.clone();
        let is_news = match error {
            Some(_) if away.len() >= AWAY_MAX => false,
            Some(_) => away.insert(key),
            None => away.remove(&key),
        };
        drop(away);
        match error {
            _ if !is_news => {}
            Some(error) => {
                let what = match error.kind {
                    ErrorKind::Unreachable | ErrorKind::Lost => "cannot be reached",
                    ErrorKind::Refused => "is refused",
                    _ => "cannot be opened",
                };
                let line = format!("connection `{id}` ({target}) {what}: {}", desk::explain(error));
                self.tell(Topic::Connection, Level::Error, &line);
            }
            None => self.tell(Topic::Connection, Level::Info, &format!("connection `{id}` ({target}) is open again")),
        }
    }
}

/// ` and 3 more`, of so many.
fn also(count: usize) -> String {
    if count > 1 { format!(" and {} more", count - 1) } else { String::new() }
}

/// Names that several projects have, with their folders.
fn namesakes(catalog: &Catalog) -> BTreeMap<String, String> {
    let mut roots: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (project, _) in catalog.projects() {
        roots.entry(project.name.clone()).or_default().push(project.root.display().to_string());
    }
    roots.into_iter().filter(|(_, roots)| roots.len() > 1).map(|(name, roots)| (name, roots.join(", "))).collect()
}

/// The files with errors: the first of each, with its place, and how many there are.
fn broken(catalog: &Catalog) -> BTreeMap<String, (String, usize)> {
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let are_several = catalog.projects().len() > 1;
    for trouble in catalog.troubles() {
        let errors = || trouble.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
        // What DAGs lack because of it is said once, by the file that is broken.
        let is_shared = errors().any(Diagnostic::is_of_project_file);
        let errors = errors().filter(|error| !is_shared || !error.names_what_is_shared());
        for Diagnostic { place, message, code, .. } in errors {
            let root = trouble.project.display();
            let file = match place {
                Some(at) if are_several => format!("{root}/{}", at.file),
                Some(at) => at.file.to_string(),
                None => root.to_string(),
            };
            let at = place.as_ref().map(|at| format!(":{}:{}", at.line, at.column)).unwrap_or_default();
            let first = format!("{file}{at}: {message} [{code}]");
            found.entry(file).and_modify(|(_, count)| *count += 1).or_insert((first, 1));
        }
    }
    found
}

/// A connector that tells how opening goes.
struct Watched {
    inner: Arc<dyn Connector>,
    id: String,
    notices: Arc<Notices>,
}

#[async_trait::async_trait]
impl Connector for Watched {
    fn dialect(&self) -> Dialect {
        self.inner.dialect()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn target(&self) -> String {
        self.inner.target()
    }

    async fn open(&self) -> Result<Box<dyn Session>, Error> {
        let opened = self.inner.open().await;
        self.notices.opened(&self.id, &*self.inner, opened.as_ref().err());
        opened
    }

    fn server(&self) -> String {
        self.inner.server()
    }

    fn has_lookout(&self) -> bool {
        self.inner.has_lookout()
    }

    async fn lookout(&self) -> Result<Option<Box<dyn Lookout>>, Error> {
        self.inner.lookout().await
    }
}

impl Service {
    /// Tells of runs that were there when the service began.
    pub(super) fn tell_taken_over(&self, count: usize) {
        let line = match count {
            0 => return,
            1 => "takes over 1 unfinished run of an earlier process".to_owned(),
            many => format!("takes over {many} unfinished runs of an earlier process"),
        };
        self.notices.tell(Topic::Takeover, Level::Info, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallClock;

    type Told = Arc<Mutex<Vec<(Level, String)>>>;

    fn telling() -> (Arc<Notices>, Told) {
        let told = Told::default();
        let sink = told.clone();
        let tell = Arc::new(move |level, line: &str| sink.lock().unwrap().push((level, line.to_owned())));
        (Notices::new(Notice { up_to: Level::Debug, tell }, Arc::new(WallClock::starting())), told)
    }

    #[test]
    fn a_storm_is_summed_up_and_does_not_hide_other_things() {
        let (notices, told) = telling();
        for number in 0..1000 {
            notices.tell(Topic::RunFailed, Level::Error, &format!("run {number} failed"));
        }
        notices.tell(Topic::Connection, Level::Info, "connection `db` is open again");
        notices.sum_up();
        let lines = std::mem::take(&mut *told.lock().unwrap());
        assert_eq!(lines.len() as u64, LINES_OF_A_TOPIC_MAX + 1, "the window goes on: {lines:?}");
        notices.sum_up_all();
        let lines = std::mem::take(&mut *told.lock().unwrap());
        assert_eq!((lines.len(), lines[0].0), (1, Level::Error));
        assert!(lines[0].1.starts_with("980 more runs failed, since "), "{lines:?}");
        notices.sum_up_all();
        assert!(told.lock().unwrap().is_empty(), "told once");
    }

    #[test]
    fn a_line_is_one_line_and_not_endless() {
        let (notices, told) = telling();
        notices.tell(Topic::RunFailed, Level::Error, &format!("one\ntwo\u{1b}[31m{}", "x".repeat(10_000)));
        let line = told.lock().unwrap()[0].1.clone();
        assert!(line.starts_with("one two [31mxx") && line.ends_with('…'), "{line}");
        assert_eq!(line.chars().count(), CHARACTERS_MAX + 1);
    }
}
