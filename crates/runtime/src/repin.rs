//! Other sources for a run that exists: how they differ from those it has, whether its log fits them, and whether what it committed is the
//! same in them. `backstop run --resume --current-files`, `runs retry` and `runs clear` with `--current-files` all decide by this.
//!
//! It must not know where the sources come from, nor who wants them.

use crate::attempt::script::{check_prefix, prepare};
use crate::attempt::transaction::Transactions;
use crate::attempt::{Began, Results, Shared, params_of, template_context};
use crate::clock::Clock;
use crate::logs::{LogWriter, Logs};
use crate::prepared::Prepared;
use crate::run::Error;
use crate::service::rendered::templates;
use crate::sessions::Sessions;
use crate::watch::Silent;
use backstop_core::event::Failure;
use backstop_core::{Command, Event, InstanceId, InstancePhase, InstanceView, RunId, RunState, TaskId, TaskIx};
use backstop_project::definition::{Definition, Kind};
use backstop_store::{RunRow, Store};
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Instances whose commits are compared before anything is done; each attempt compares its own once more, so that those of the others are
/// compared, too, before they go on.
const COMPARED_MAX: usize = 1_000;
/// Tasks and files that one account names.
pub const NAMED_MAX: usize = 100;
/// Of these, those that a sentence names.
const TOLD_MAX: usize = 5;

/// How the sources of a DAG differ from those that a run has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    /// The version that the run has.
    pub pinned: String,
    /// The other one.
    pub current: String,
    /// Tasks of both whose SQL differs, in the order of the source, at most [`NAMED_MAX`].
    pub tasks: Vec<TaskId>,
    /// Files that differ, by path, at most [`NAMED_MAX`].
    pub files: Vec<String>,
}

impl Differing {
    /// `None` when they are the same.
    pub fn of(pinned: &Definition, current: &Definition) -> Option<Self> {
        if pinned.version == current.version {
            return None;
        }
        let sql = |definition: &Definition, task: &TaskId| {
            let place = definition.dag.index(task.as_str())?;
            Some(sql_of(&definition.body(place).kind))
        };
        let differs = |task: &&TaskId| sql(pinned, task).is_some_and(|before| Some(before) != sql(current, task));
        let tasks = current.dag.tasks().iter().map(|task| &task.id).filter(differs).take(NAMED_MAX).cloned().collect();
        let (before, after) = (&pinned.bundle.files, &current.bundle.files);
        let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let files = paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).take(NAMED_MAX).cloned().collect();
        Some(Self { pinned: pinned.version.clone(), current: current.version.clone(), tasks, files })
    }
}

/// `the SQL of load differs (sql/load.sql)`.
impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = several(&self.files);
        match self.tasks.as_slice() {
            [] => write!(f, "the files differ ({files})"),
            tasks => {
                let tasks: Vec<String> = tasks.iter().map(|task| format!("`{task}`")).collect();
                write!(f, "the SQL of {} differs ({files})", several(&tasks))
            }
        }
    }
}

fn several(names: &[String]) -> String {
    let more = names.len().saturating_sub(TOLD_MAX);
    let first = names[..names.len().min(TOLD_MAX)].join(", ");
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// What a task sends that its author wrote, with the values bound; where it stands does not matter.
fn sql_of(kind: &Kind) -> Vec<(&'static str, String, Option<String>)> {
    let autocommit = match kind {
        Kind::Sql(sql) => Some(sql.autocommit.to_string()),
        Kind::Check(_) | Kind::Branch(_) | Kind::Sensor(_) | Kind::Shell(_) | Kind::Python(_) => None,
        Kind::Http(_) | Kind::Dag(_) | Kind::WaitFor(_) | Kind::Commit(_) | Kind::Empty => None,
    };
    let texts = templates(kind).into_iter().map(|part| {
        let parameters = part.parameters.map(|parameters| format!("{parameters:?}"));
        (part.what, part.template.text.to_string(), parameters)
    });
    texts.chain(autocommit.map(|autocommit| ("autocommit", autocommit, None))).collect()
}

/// Every task that the log speaks of must be there still. Edited scripts are compared by each task.
///
/// # Errors
/// `Changed`, with the first that is not.
pub fn check_shape(definition: &Definition, run: &RunId, events: &[Event]) -> Result<(), Error> {
    for event in events {
        if let Event::TaskScheduled { instance } | Event::AttemptStarted { instance, .. } = event
            && definition.dag.index(instance.task.as_str()).is_none()
        {
            return Err(Error::Changed { run: run.clone(), what: format!("its task `{}` is gone", instance.task) });
        }
    }
    Ok(())
}

/// A task that runs as many instances does not become one that runs as one, as long as it has them.
///
/// # Errors
/// `Changed`, with the first that would.
pub fn check_mapping(definition: &Definition, run: &RunId, state: &RunState) -> Result<(), Error> {
    let is_torn = |task: &&backstop_core::dag::Task| !task.settings.mapped && state.items(task.id.as_str()).is_some();
    match definition.dag.tasks().iter().find(is_torn) {
        None => Ok(()),
        Some(task) => Err(Error::Changed {
            run: run.clone(),
            what: format!("its task `{}` has an instance for each of its items, and is not mapped any more", task.id),
        }),
    }
}

/// What tasks did together stays together: what is held is their transaction's to commit or to undo, and nothing joins it behind its commit.
///
/// # Errors
/// `Changed`, with the first task that is torn from its transaction, or would never be committed.
pub fn check_transactions(definition: &Definition, run: &RunId, state: &RunState) -> Result<(), Error> {
    let dag = &definition.dag;
    let changed = |what: String| Err(Error::Changed { run: run.clone(), what });
    let is_torn = |instance: &InstanceId| dag.index(instance.task.as_str()).and_then(|place| dag.member_of(place)).is_none();
    let held = |view: &InstanceView<'_>| view.phase == InstancePhase::Held;
    if let Some((instance, _)) = state.instances().find(|(instance, view)| held(view) && is_torn(instance)) {
        return changed(format!("its task `{instance}` is done and not committed, and part of no transaction any more"));
    }
    let phase = |task: TaskIx| state.instance(&InstanceId::single(dag.task(task).id.clone())).map(|view| view.phase);
    for unit in dag.units() {
        let is_closed =
            matches!(phase(unit.commit), Some(InstancePhase::Running | InstancePhase::InDoubt | InstancePhase::Success));
        let joined = unit.members.iter().find(|member| phase(**member) == Some(InstancePhase::None));
        if let Some(&joined) = joined.filter(|_| is_closed) {
            let (task, group) = (&dag.task(joined).id, &dag.task(unit.commit).id);
            return changed(format!("its task `{task}` has joined the transaction of `{group}`, which is committed already"));
        }
    }
    Ok(())
}

/// Why a run cannot be given other files while one of its tasks runs.
pub(crate) fn is_running(instance: &InstanceId) -> String {
    format!("`{instance}` is running, with the files that the run has: ask again when it has ended, or cancel it")
}

/// What makes a run go on with a definition, where it has another one.
pub fn command(definition: &Definition, state: &RunState) -> Option<Command> {
    let is_other = state.header().is_none_or(|header| header.version != definition.version);
    is_other.then(|| Command::Pin { version: definition.version.clone(), variables: None })
}

/// With what the commits of a run are compared.
#[derive(Clone)]
pub struct Current {
    /// The DAG as it is now, in its project.
    pub prepared: Arc<Prepared>,
    /// The project's connections; none is opened.
    pub sessions: Arc<Sessions>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

impl Current {
    /// Why a run cannot go on with these files, in a sentence: an instance would go on behind a commit that is another one in them. `before`
    /// is how the run stands, `after` how it will. What cannot be rendered or read now is left to its attempt.
    pub async fn refuses(&self, store: &dyn Store, row: &RunRow, before: &RunState, after: &RunState) -> Option<String> {
        let shared = self.shared(row, before);
        let began_at = before.began_at().unwrap_or(row.header.queued_at);
        // Without it, the attempts compare their own.
        let began = Began::look(store, &self.prepared, &row.header, began_at).await.ok()?;
        shared.began.get_or_init(|| began);
        let (instance, failure) = changed_commit(&shared, after).await?;
        let at = failure.place.map(|at| format!("{}:{}: ", at.file, at.line)).unwrap_or_default();
        let told = format!(
            "`{instance}` cannot go on with the current files: {at}{}; restore the committed part (what is behind it may change), or clear \
             `{instance}` with the current files (`--current-files`) to run it again from the beginning",
            failure.message
        );
        Some(shared.redactor.clean(&told).into_owned())
    }

    /// What attempts of the run would share.
    fn shared(&self, row: &RunRow, state: &RunState) -> Shared {
        let header = row.header.clone();
        let redactor = self.prepared.redactor().of_run(&header.params);
        Shared {
            transactions: Transactions::default(),
            renderer: self.prepared.renderer(),
            sessions: self.sessions.clone(),
            logs: Logs::new(LogWriter::start(None), header.run_id.clone(), redactor.clone()),
            project: self.prepared.project.clone(),
            definition: self.prepared.definition.clone(),
            redactor,
            clock: self.clock.clone(),
            watcher: Arc::new(Silent),
            params: params_of(&header),
            began: OnceLock::new(),
            header,
            results: Results::of(state),
            others: None,
            was_interrupted: true,
            scratch: PathBuf::new(),
        }
    }
}

/// The first instance that would go on behind a commit that is another one in these sources, with why it cannot.
async fn changed_commit(shared: &Shared, state: &RunState) -> Option<(InstanceId, Failure)> {
    let goes_on = |view: &backstop_core::InstanceView<'_>| !view.phase.is_done() && !view.segments.is_empty();
    for (instance, view) in state.instances().filter(|(_, view)| goes_on(view)).take(COMPARED_MAX) {
        let place = shared.definition.dag.index(instance.task.as_str())?;
        let body = shared.definition.body(place);
        let (Kind::Sql(sql), Some(connection)) = (&body.kind, &body.connection) else { continue };
        let Ok((dialect, _)) = shared.sessions.dialect(connection).await else { continue };
        let item = instance.map_index.and_then(|index| state.items(instance.task.as_str())?.get(index as usize));
        let item = item.and_then(|item| serde_json::from_str(item).ok());
        let context = template_context(shared, Some(&instance), view.try_number.saturating_add(1), item, None);
        let Ok(prepared) = prepare(shared, sql, &context, dialect).await else { continue };
        if let Err(failure) = check_prefix(shared, sql, &context, dialect, view.segments, &prepared).await {
            return Some((instance, failure));
        }
    }
    None
}
