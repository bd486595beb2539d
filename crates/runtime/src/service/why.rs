//! "Why isn't this running?": the service's reasons and the run's own, in one sentence each.
//!
//! What the service holds back comes first, because nothing of the run moves before it: the run waits, could not be driven, or is another
//! process's. Then what this process holds back of a run that it drives: slots that other runs have, a doubt that nobody could clear up,
//! the end of the service. The rest is the core's to say ([`backstop_core::why`]).

use super::{Error, Service, Standing, Waiting};
use crate::control::Held;
use crate::slots::{Shortage, Slots};
use crate::{deadlines, ended};
use backstop_core::why::Why;
use backstop_core::{InstanceId, InstancePhase, InstanceView, RunId, RunState, why};
use backstop_store::RunRow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Task instances that one answer tells of; it counts the others.
pub const TASKS_MAX: usize = 100;
/// Names that are told to who names none of them.
const NAMES_MAX: usize = 30;

/// What the projection calls done.
const DONE: [InstancePhase; 6] = [
    InstancePhase::Success,
    InstancePhase::Failed,
    InstancePhase::Skipped,
    InstancePhase::UpstreamFailed,
    InstancePhase::RolledBack,
    InstancePhase::Removed,
];

/// Why a run is not further.
#[derive(Clone, Debug)]
pub struct RunAccount {
    /// How the run itself stands, in a sentence.
    pub why: String,
    /// Its task instances that are asked for, in the order of the source, at most [`TASKS_MAX`]; of a run that is over, where none is asked
    /// for, those that failed.
    pub tasks: Vec<TaskAccount>,
    /// How many more there are.
    pub more: usize,
}

/// Why a task instance does not run.
#[derive(Clone, Debug)]
pub struct TaskAccount {
    /// Which.
    pub instance: InstanceId,
    /// Where it is, in a word of the core's.
    pub phase: String,
    /// In a sentence.
    pub why: String,
    /// The slots that it waits for.
    pub shortage: Option<Shortage>,
    waits_for_time: bool,
}

/// What keeps the tasks of a run from running whatever their own reasons are.
#[derive(Clone, Debug)]
enum Hold {
    /// Nothing of the run moves before this does.
    Run(String),
    /// Somebody else drives it: its own reasons are true as far as its log is durable.
    Elsewhere(String),
    /// This process drives it.
    None,
}

impl Service {
    /// Why an instance does not run at this moment, in a sentence.
    ///
    /// # Errors
    /// No such run or instance; the store.
    pub async fn why(&self, run: &RunId, instance: &InstanceId) -> Result<String, Error> {
        let row = self.row(run).await?;
        let told = self.tell(&row, Some(instance.clone())).await?;
        let task = told.tasks.into_iter().find(|task| task.instance == *instance);
        match task {
            Some(task) => Ok(task.why),
            None => Err(self.no_instance(&row, instance.clone()).await),
        }
    }

    /// Why a run is not further: how it stands itself, and each task instance that is not done, or, when the run is over, that failed; of
    /// `only` a task all its instances, also those that are done, and of an index of it that one.
    ///
    /// # Errors
    /// No such run or instance; the store.
    pub async fn why_run(&self, row: &RunRow, only: Option<InstanceId>) -> Result<RunAccount, Error> {
        let told = self.tell(row, only.clone()).await?;
        match only {
            Some(instance) if told.tasks.is_empty() => Err(self.no_instance(row, instance).await),
            Some(_) | None => Ok(told),
        }
    }

    /// The error for an instance that is not there: a name that is mistyped is told from a task without such an instance.
    pub(super) async fn no_instance(&self, row: &RunRow, instance: InstanceId) -> Error {
        let run = row.header.run_id.clone();
        let Ok((prepared, _)) = self.pinned(&row.header).await else { return Error::NoInstance { run, instance, hint: None } };
        let definition = &prepared.definition;
        let hint = match definition.dag.index(instance.task.as_str()) {
            None => {
                let names: Vec<&str> = definition.dag.tasks().iter().map(|task| task.id.as_str()).collect();
                let near = backstop_project::diagnostic::did_you_mean(instance.task.as_str(), names.iter().copied());
                near.map(|near| format!("did you mean `{near}`?")).or_else(|| Some(first_names(&names)))
            }
            Some(place) if definition.body(place).for_each.is_none() => {
                instance.map_index.map(|_| format!("`{}` is not mapped: it has no index", instance.task))
            }
            Some(_) => (instance.map_index.is_none())
                .then(|| format!("`{0}` is mapped: name an instance of it, such as `{0}[0]`", instance.task)),
        };
        Error::NoInstance { run, instance, hint }
    }

    async fn tell(&self, row: &RunRow, only: Option<InstanceId>) -> Result<RunAccount, Error> {
        let run = row.header.run_id.clone();
        let mut standing = self.standing(&run);
        let is_elsewhere =
            row.ended_at.is_none() && !matches!(standing, Standing::Active { .. }) && self.store.is_run_held(&run)? && {
                // Begun by this process just now, or told of: then it is the holder.
                standing = self.standing(&run);
                !matches!(standing, Standing::Active { .. }) && !self.desk().is_telling(&run)
            };
        let (mut why, hold) = match is_elsewhere {
            true => ("another process drives it".into(), Hold::Elsewhere("another process drives its run".into())),
            false => self.sentence(row, &standing),
        };
        let undecided = match standing {
            Standing::Stuck { undecided } => undecided,
            Standing::Queued(_) | Standing::Active { .. } | Standing::Hindered { .. } | Standing::Unknown => BTreeMap::new(),
        };
        let mut view = View { run: run.clone(), only: only.clone(), hold, slots: self.slots.clone() };
        let looked = match self.control(&run) {
            Some(control) => {
                let view = view.clone();
                control
                    .look_into(move |state, held| (view.of(state, held), held.is_ending || state.cancel_cause().is_some()))
                    .await
            }
            None => None,
        };
        if looked.as_ref().is_some_and(|(_, is_ending)| *is_ending) && !self.is_stopping() {
            why = "it is being cancelled: what is running is ended, and nothing more begins".into();
        }
        let Seen { mut tasks, more, late } = match looked {
            Some((looked, _)) => looked,
            // A run that waits, one that another process drives, or one let go just now.
            None => match self.idle(row).await {
                Ok(idle) => {
                    let held = Held { undecided: &undecided, is_handing_over: false, is_ending: false };
                    if row.ended_at.is_some()
                        && let Some(ended) = ended::sentence(&*self.store, &run, idle.state()).await?
                    {
                        why = ended;
                    }
                    view.of(idle.state(), held)
                }
                // What hinders it hinders reading it, too: its own sentence tells, or it was found to be hindered since.
                Err(Error::Conflict(reason)) => {
                    if let Hold::None = view.hold {
                        view.hold = Hold::Run(format!("its run cannot be read: {reason}"));
                        if row.ended_at.is_none() {
                            why = format!("it could not be driven: {reason}");
                        }
                    }
                    let (tasks, more) = self.as_projected(&run, &view).await?;
                    Seen { tasks, more, late: String::new() }
                }
                Err(error) => return Err(error),
            },
        };
        if let Hold::None = view.hold {
            for task in &mut tasks {
                if task.waits_for_time
                    && let Some(awaited) = self.waits_for_run(&run, &task.instance).await
                {
                    // What is waited for may be another DAG's run, and the time only when it is looked at again.
                    task.why = awaited;
                }
                if task.phase == InstancePhase::Running.as_str()
                    && let Some(seen) = self.monitor.tell(&run, &task.instance)
                {
                    task.why = format!("it is running: {seen}");
                }
            }
        }
        Ok(RunAccount { why: why + &late, tasks, more })
    }

    /// How the run itself stands.
    fn sentence(&self, row: &RunRow, standing: &Standing) -> (String, Hold) {
        let of_run = |why: String| (why.clone(), Hold::Run(why));
        match standing {
            Standing::Queued(waiting) => {
                let why = waiting.to_string();
                (why.clone(), Hold::Run(format!("its run waits: {why}")))
            }
            Standing::Active { .. } if self.is_stopping() => {
                ("the service is stopping: what is running ends, and the next one goes on with the rest".into(), Hold::None)
            }
            Standing::Active { since } => (format!("it goes on, driven by this service since {since}"), Hold::None),
            Standing::Hindered { why, again_at } => (
                format!("it could not be driven, and is tried again at {again_at}: {why}"),
                Hold::Run(format!("its run could not be driven, and is tried again at {again_at}: {why}")),
            ),
            // Somebody has gone on with it past this service, which will see that soon.
            Standing::Stuck { .. } if row.ended_at.is_some() => (format!("it is over: {}", row.state), Hold::None),
            Standing::Stuck { undecided } => {
                let which: Vec<String> = undecided.iter().map(|(instance, why)| format!("`{instance}`: {why}")).collect();
                (format!("a person must say what became of {}", which.join("; ")), Hold::None)
            }
            Standing::Unknown if row.ended_at.is_some() => (format!("it is over: {}", row.state), Hold::None),
            Standing::Unknown if row.header.dry_run => {
                of_run("it is a dry run whose process is gone: nobody goes on with it".into())
            }
            Standing::Unknown => {
                let why = match self.is_stopping() {
                    true => Waiting::Stopping.to_string(),
                    false => "its process is gone: this service takes it over within 15 seconds".to_owned(),
                };
                (why.clone(), Hold::Run(format!("its run waits: {why}")))
            }
        }
    }

    /// As the projection has them, of a run whose sources cannot be read.
    async fn as_projected(&self, run: &RunId, view: &View) -> Result<(Vec<TaskAccount>, usize), Error> {
        let rows = self.store.instances(run).await?;
        let told = rows.iter().filter_map(|row| {
            let Hold::Run(why) = &view.hold else { return None };
            let is_meant = view.is_meant(&row.instance, DONE.iter().any(|phase| phase.as_str() == row.state));
            is_meant.then(|| TaskAccount {
                instance: row.instance.clone(),
                phase: row.state.clone(),
                why: why.clone(),
                shortage: None,
                waits_for_time: false,
            })
        });
        Ok(first_of(told.collect()))
    }
}

/// The tasks there are, a few of them.
fn first_names(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("tasks: {}{more}", names[..names.len().min(NAMES_MAX)].join(", "))
}

/// At most [`TASKS_MAX`], and how many more there are.
fn first_of(mut tasks: Vec<TaskAccount>) -> (Vec<TaskAccount>, usize) {
    let more = tasks.len().saturating_sub(TASKS_MAX);
    tasks.truncate(TASKS_MAX);
    (tasks, more)
}

/// What is looked at, and with what in mind.
#[derive(Clone)]
struct View {
    run: RunId,
    only: Option<InstanceId>,
    hold: Hold,
    slots: Arc<Slots>,
}

/// What the run's log, or its engine, tells.
struct Seen {
    tasks: Vec<TaskAccount>,
    more: usize,
    /// What was told of its deadlines, behind a semicolon.
    late: String,
}

impl View {
    /// Of a run that is over nothing is left to do: those that failed are told of.
    fn is_told(&self, state: &RunState, instance: &InstanceId, view: &InstanceView<'_>) -> bool {
        self.is_meant(instance, view.phase.is_done())
            || self.only.is_none() && state.phase().is_terminal() && ended::is_to_blame(view)
    }

    fn is_meant(&self, instance: &InstanceId, is_done: bool) -> bool {
        match &self.only {
            None => !is_done,
            Some(only) => only.task == instance.task && (only.map_index.is_none() || only.map_index == instance.map_index),
        }
    }

    fn of(&self, state: &RunState, held: Held<'_>) -> Seen {
        let (mut tasks, mut more) = (Vec::new(), 0);
        for (instance, view) in state.instances().filter(|(instance, view)| self.is_told(state, instance, view)) {
            if tasks.len() == TASKS_MAX {
                more += 1;
                continue;
            }
            let phase = view.phase.as_str().to_owned();
            let Some(own) = why(state, &instance) else { continue };
            let shortage = matches!(own, Why::Ready).then(|| self.slots.shortage(&self.run, &instance)).flatten();
            let why = self.sentence(&instance, &own, shortage.as_ref(), held) + &ended::of_instance(&view);
            let waits_for_time = matches!(own, Why::Deferred { .. }) && !held.is_handing_over && !held.is_ending;
            tasks.push(TaskAccount { instance, phase, why, shortage, waits_for_time });
        }
        Seen { tasks, more, late: deadlines::sentence(state.deadlines_told()) }
    }

    fn sentence(&self, instance: &InstanceId, own: &Why, shortage: Option<&Shortage>, held: Held<'_>) -> String {
        if let Why::Done { .. } = own {
            return own.to_string();
        }
        match &self.hold {
            Hold::Run(why) => return why.clone(),
            Hold::Elsewhere(where_to) => return format!("{where_to}; {own}"),
            Hold::None => {}
        }
        // The others tell of other tasks, of what goes on, or of what is over: that stays true to the end.
        let would_begin = matches!(
            own,
            Why::Decided
                | Why::Ready
                | Why::MaxActiveTasks { .. }
                | Why::Pool { .. }
                | Why::Behind { .. }
                | Why::Retry { .. }
                | Why::Deferred { .. }
        );
        if would_begin && held.is_ending {
            return "the run is being cancelled: nothing more begins".into();
        }
        if would_begin && held.is_handing_over {
            return "the service is stopping and begins nothing more: the next one goes on with it".into();
        }
        match own {
            Why::InDoubt { .. } => match held.undecided.get(instance) {
                Some(why) => format!("a person must say what became of it: {why}"),
                None => own.to_string(),
            },
            Why::Ready => shortage.map_or_else(|| own.to_string(), Shortage::to_string),
            Why::MaxActiveTasks { holders, .. } | Why::Pool { holders, .. } => {
                // A place of the run may be kept for one that waits for slots that other runs have.
                let waits = holders.first.iter().find_map(|(other, _)| Some((other, self.slots.shortage(&self.run, other)?)));
                match waits {
                    Some((other, shortage)) => format!("{own}; `{other}` waits: {shortage}"),
                    None => own.to_string(),
                }
            }
            Why::RunQueued { .. }
            | Why::RunCancelling
            | Why::Held { .. }
            | Why::RunOver(_)
            | Why::Upstreams { .. }
            | Why::Setups(_)
            | Why::Enclosed(_)
            | Why::Decided
            | Why::Behind { .. }
            | Why::Retry { .. }
            | Why::Deferred { .. }
            | Why::Running { .. }
            | Why::Done { .. } => own.to_string(),
        }
    }
}
