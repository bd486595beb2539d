//! `backstop runs clear`, `retry`, `mark`: what people do to runs. Where a service has the store it is asked, and acts at once; where none has,
//! the store itself is changed, and the run waits for a process. The words are the same.

pub(crate) mod arguments;
mod cancel;
mod files;
mod repeats;
mod why;

use crate::args::{self, Place};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::Kept;
use crate::run::begin::{parse_date_in, parse_end_in};
use crate::runs::{self, Latest, block_on, shape};
use crate::service::{Service, part, signed};
use crate::sources::{self, Purpose};
use crate::{paths, words};
use arguments::{Around, ClearArgs, MarkArgs, Order, RetryArgs, SteerCommand};
use backstop_core::command::Rejected;
use backstop_core::event::{Mark, Restart};
use backstop_core::{
    Command, DagId, Event, InstanceId, InstancePhase, InstanceView, RunState, Selection, TaskId, decide, select, select_failed,
    select_named,
};
use backstop_project::definition::Definition;
use backstop_runtime::service::{Range, runs_between};
use backstop_runtime::steer::{self, Idle};
use backstop_runtime::{Clock as _, SystemClock};
use backstop_store::{ErrorKind, RunLock, RunRow, SqliteStore, Store};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Lines that an account of several runs has; the others are counted.
const LINES_MAX: usize = 500;

/// Steers runs.
pub(crate) fn steer(command: SteerCommand, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    match command {
        SteerCommand::Clear(arguments) => {
            let wish = Wish { order: &arguments.order, around: arguments.around };
            block_on(operate(&Wanted::Clear(&arguments), &wish, &kept, place))?;
        }
        SteerCommand::Retry(arguments) => {
            let wish = Wish { order: &arguments.order, around: Around::default() };
            block_on(operate(&Wanted::Retry(&arguments), &wish, &kept, place))?;
        }
        SteerCommand::Mark(arguments) => {
            let wish = Wish { order: &arguments.order, around: arguments.around };
            block_on(operate(&Wanted::Mark(&arguments), &wish, &kept, place))?;
        }
        SteerCommand::Cancel(arguments) => return cancel::cancel(&arguments, &kept, place),
        SteerCommand::Resolve(arguments) => block_on(cancel::resolve(&arguments, &kept))?,
        SteerCommand::Why { run, task, entrance } => block_on(why::tell(&run, task.as_deref(), &entrance, &kept))?,
    }
    Ok(Exit::Success)
}

/// What is wanted of each run.
enum Wanted<'a> {
    Clear(&'a ClearArgs),
    Retry(&'a RetryArgs),
    Mark(&'a MarkArgs),
}

/// Of which runs, by whom.
struct Wish<'a> {
    order: &'a Order,
    around: Around,
}

impl Wish<'_> {
    fn is_several(&self) -> bool {
        self.order.which.is_range() || self.around.past || self.around.future
    }

    fn signed(&self) -> Result<(String, String), Problem> {
        match &self.order.signature.reason {
            // A dry run is not recorded, so that it needs no reason.
            None if self.order.dry_run => Ok((self.order.signature.who(), "dry run".to_owned())),
            None => Err(Problem::usage("no reason is given").hint("say why with --reason TEXT: it is kept in the run's log")),
            Some(reason) => Ok((self.order.signature.who(), reason.clone())),
        }
    }
}

impl Wanted<'_> {
    /// Whether the run is to go on with other files; `None` where nothing runs again.
    fn takes_current(&self) -> Option<bool> {
        match self {
            Self::Clear(clear) => Some(clear.current_files),
            Self::Retry(retry) => Some(retry.current_files),
            Self::Mark(_) => None,
        }
    }

    fn files_word(&self) -> &'static str {
        if self.takes_current() == Some(true) { "current" } else { "pinned" }
    }

    /// The instances of one run that are meant.
    fn instances(&self, state: &RunState) -> Result<Vec<InstanceId>, Problem> {
        Ok(match self {
            Self::Clear(clear) => {
                let ClearArgs { upstream, downstream, only_failed, only_running, .. } = **clear;
                let tasks = named(state, &clear.tasks)?;
                select(state, &Selection { tasks, upstream, downstream, only_failed, only_running })
            }
            Self::Retry(_) => select_failed(state),
            Self::Mark(mark) => {
                let tasks = named(state, &mark.tasks)?;
                let (upstream, downstream) = (mark.upstream, mark.downstream);
                select_named(state, &Selection { tasks, upstream, downstream, ..Selection::default() })
            }
        })
    }

    fn command(&self, instances: Vec<InstanceId>, (who, why): (String, String)) -> Command {
        match self {
            Self::Clear(_) => Command::Clear { instances, restart: Restart::Beginning, who, why },
            Self::Retry(_) => Command::Clear { instances, restart: Restart::LastCommit, who, why },
            Self::Mark(mark) => {
                let mark = if mark.success { Mark::Success } else { Mark::Failed };
                Command::Mark { instances, mark, who, why }
            }
        }
    }

    /// The same, as the service is asked.
    fn request(&self, state: &RunState) -> Result<(&'static str, Value), Problem> {
        let texts = |tasks: &[String]| -> Result<Vec<String>, Problem> {
            Ok(named(state, tasks)?.iter().map(InstanceId::to_string).collect())
        };
        Ok(match self {
            Self::Clear(clear) => {
                let flags = (clear.upstream, clear.downstream, clear.only_failed, clear.only_running);
                let (upstream, downstream, only_failed, only_running) = flags;
                let tasks = texts(&clear.tasks)?;
                let body = json!({ "tasks": tasks, "upstream": upstream, "downstream": downstream, "only_failed": only_failed, "only_running": only_running, "files": self.files_word() });
                ("clear", body)
            }
            Self::Retry(_) => ("retry", json!({ "files": self.files_word() })),
            Self::Mark(mark) => {
                let outcome = if mark.success { "success" } else { "failed" };
                let tasks = texts(&mark.tasks)?;
                ("mark", json!({ "tasks": tasks, "as": outcome, "upstream": mark.upstream, "downstream": mark.downstream }))
            }
        })
    }
}

async fn operate(wanted: &Wanted<'_>, wish: &Wish<'_>, kept: &Kept, place: &Place) -> Result<(), Problem> {
    let signature = wish.signed()?;
    let looking = SqliteStore::open_read_only(&kept.store)?;
    let service = Service::of(&looking, &wish.order.entrance).await?;
    let store = match wish.order.dry_run || service.is_some() {
        true => looking,
        false => SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?,
    };
    let hand = Hand {
        store: &store,
        service: service.as_ref(),
        is_dry: wish.order.dry_run,
        is_several: wish.is_several(),
        flags: &kept.flags,
        files: files::Files::new(place),
        repeats: repeats::Repeats::default(),
    };
    if wish.is_several() {
        return several(wanted, wish, &hand, &signature, place).await;
    }
    let row = runs::find_to_act(&store, &wish.order.which.run, Latest::Any).await?;
    let rows = match hand.act(wanted, &row, &signature).await? {
        Done::Changed(rows) => rows,
        Done::NothingMeant => Vec::new(),
        Done::SoAlready => return Err(Problem::usage(Rejected::NothingToChange.to_string())),
    };
    let heading = ["TASK", "WAS", "TRIES", "NOW"].map(str::to_owned).to_vec();
    output::data(&output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>(), Painter::stdout()))?;
    hand.repeats.tell(&kept.flags);
    match (wish.order.dry_run, &service) {
        (true, _) => output::note("nothing was changed: leave --dry-run out, and say why with --reason"),
        (false, Some(service)) => output::note(&format!("recorded; the service at {} goes on with it", service.address())),
        (false, None) => output::note(&format!("recorded; now: {}", resume_command(&row, &kept.flags))),
    }
    Ok(())
}

/// The same to several runs, each for itself: what one refuses does not keep the others from it.
async fn several(
    wanted: &Wanted<'_>,
    wish: &Wish<'_>,
    hand: &Hand<'_>,
    signature: &(String, String),
    place: &Place,
) -> Result<(), Problem> {
    let rows = meant(wish, hand.store, place).await?;
    let mut lines = vec![["RUN", "DATE", "TASK", "WAS", "TRIES", "NOW"].map(str::to_owned).to_vec()];
    let (mut changed, mut so_already, mut refused, mut left_out) = (0_usize, 0_usize, Vec::new(), 0_usize);
    for row in &rows {
        let about = row.header.logical_date.map(words::time).unwrap_or_default();
        match hand.act(wanted, row, signature).await {
            Ok(Done::NothingMeant) => {}
            Ok(Done::SoAlready) => so_already += 1,
            Ok(Done::Changed(instances)) => {
                changed += 1;
                for instance in instances {
                    if lines.len() <= LINES_MAX {
                        lines.push([vec![row.header.run_id.to_string(), about.clone()], instance].concat());
                    } else {
                        left_out += 1;
                    }
                }
            }
            Err(problem) => refused.push(format!("run {} ({about}): {}", row.header.run_id, problem.message)),
        }
    }
    output::data(&output::table(&lines, Painter::stdout()))?;
    if left_out > 0 {
        output::note(&format!("{} more are not listed", words::count(left_out, "task instance")));
    }
    hand.repeats.tell(hand.flags);
    refused.iter().take(LINES_MAX).for_each(|refusal| output::warn(refusal));
    let so_already = match so_already {
        0 => String::new(),
        1 => ", 1 was so already".to_owned(),
        more => format!(", {more} were so already"),
    };
    let runs = format!("{}{so_already}", words::count(changed, "run"));
    match (wish.order.dry_run, hand.service) {
        (true, _) => output::note(&format!("{runs}; nothing was changed: leave --dry-run out, and say why with --reason")),
        (false, Some(service)) => output::note(&format!("recorded for {runs}; the service at {} goes on", service.address())),
        (false, None) => output::note(&format!("recorded for {runs}; a service goes on with them: backstop up{}", hand.flags)),
    }
    match refused.len() {
        0 => Ok(()),
        count => Err(Problem::usage(format!("{} refused it", words::count(count, "run")))),
    }
}

/// The runs that are meant, the earliest date first.
async fn meant(wish: &Wish<'_>, store: &SqliteStore, place: &Place) -> Result<Vec<RunRow>, Problem> {
    let between = async |dag: &DagId, range: Range| {
        runs_between(store, dag, range).await.map_err(|error| Problem::usage(error.to_string()))
    };
    if !wish.order.which.is_range() {
        let row = runs::find_to_act(store, &wish.order.which.run, Latest::Any).await?;
        let run = row.header.run_id.clone();
        let date = row.header.logical_date;
        let date = date.ok_or_else(|| Problem::usage(format!("run {run} is about no date: it has neither past nor future")))?;
        let range = Range { from: (!wish.around.past).then_some(date), to: (!wish.around.future).then_some(date) };
        let mut rows = between(&row.header.dag_id, range).await?;
        // Another run about the same date is neither past nor future.
        rows.retain(|row| row.header.run_id == run || row.header.logical_date != Some(date));
        return Ok(rows);
    }
    let definition = sources::choose(&wish.order.which.run, None, place, Purpose::Look)?.definition;
    let from = wish.order.which.from.as_deref().map(|text| parse_date_in(text, &definition.timezone)).transpose()?;
    let to = wish.order.which.to.as_deref().map(|text| parse_end_in(text, &definition.timezone, Timestamp::MAX)).transpose()?;
    let rows = between(definition.dag.id(), Range { from, to }).await?;
    if rows.is_empty() {
        return Err(Problem::usage(format!("`{}` has no run about these dates", definition.dag.id()))
            .hint("`backstop runs list --dag` shows the runs there are"));
    }
    Ok(rows)
}

/// What came of it for one run.
enum Done {
    /// What was changed, or would be: an instance a line.
    Changed(Vec<Vec<String>>),
    /// Nothing of this run is meant.
    NothingMeant,
    /// All of it is as it is wanted.
    SoAlready,
}

/// How a run is changed.
struct Hand<'a> {
    store: &'a SqliteStore,
    service: Option<&'a Service>,
    is_dry: bool,
    /// Of several runs those are passed over that nothing is meant of.
    is_several: bool,
    flags: &'a str,
    files: files::Files<'a>,
    repeats: repeats::Repeats,
}

impl Hand<'_> {
    async fn act(&self, wanted: &Wanted<'_>, row: &RunRow, signature: &(String, String)) -> Result<Done, Problem> {
        let mut held = Held::of(self.store, row.clone(), self.flags, self.is_dry || self.service.is_some()).await?;
        let taken = self.files.taken(wanted, &row.header.dag_id)?;
        if let Some(taken) = &taken {
            held.stands_with(&taken.definition).await?;
        }
        let instances = wanted.instances(held.idle.state())?;
        if instances.is_empty() && self.is_several {
            return Ok(Done::NothingMeant);
        }
        if instances.is_empty() && matches!(wanted, Wanted::Retry(_)) {
            let run = &row.header.run_id;
            return Err(Problem::usage(format!("nothing of run {run} has failed: there is nothing to retry"))
                .hint(format!("`backstop runs show {run}{}` tells how its tasks stand", self.flags)));
        }
        let command = wanted.command(instances, signature.clone());
        let before = held.idle.state().clone();
        if let Err(Rejected::NothingToChange) = decide(&before, command.clone(), crate::run::begin::now()) {
            return Ok(Done::SoAlready);
        }
        let Some(service) = self.service.filter(|_| !self.is_dry) else {
            let events = match &taken {
                Some(taken) => taken.carry_out(&mut held, command, self.is_dry).await?,
                None => held.carry_out(vec![command], self.is_dry).await?,
            };
            self.files.note(self.store, wanted, row, self.is_dry).await;
            self.repeats.look(wanted, row, taken.as_ref(), &before, &events);
            return Ok(Done::Changed(table(&before, &events)));
        };
        let (word, mut body) = wanted.request(&before)?;
        (body["who"], body["why"]) = (json!(signature.0), json!(signature.1));
        let answer = service.post(&format!("/api/v1/runs/{}/{word}", part(row.header.run_id.as_str())), &body).await?;
        self.files.note_of_answer(&answer["files"]);
        // The service knows more of a run that goes on than the store does; then its word is all there is to tell.
        match decide(&before, command, crate::run::begin::now()) {
            Ok(events) => {
                self.repeats.look(wanted, row, taken.as_ref(), &before, &events);
                Ok(Done::Changed(table(&before, &events)))
            }
            Err(_) => Ok(Done::Changed(answer["instances"].as_array().into_iter().flatten().map(named_only).collect())),
        }
    }
}

fn named_only(instance: &Value) -> Vec<String> {
    vec![instance.as_str().unwrap_or_default().to_owned(), "-".to_owned(), "-".to_owned(), "changed".to_owned()]
}

/// A run, with its lock unless it is only looked at.
struct Held<'a> {
    store: &'a SqliteStore,
    row: RunRow,
    idle: Idle,
    flags: &'a str,
    _lock: Option<RunLock>,
}

impl<'a> Held<'a> {
    async fn of(store: &'a SqliteStore, row: RunRow, flags: &'a str, only_looks: bool) -> Result<Self, Problem> {
        let run = row.header.run_id.clone();
        let lock = match only_looks {
            true => None,
            false => Some(store.lock_run(&run).map_err(held_by_another)?),
        };
        let dag = shape::read(store, &row).await.ok_or_else(|| {
            Problem::usage(format!("the files that run {run} began with are not kept, or not understood by this version"))
        })?;
        let idle = Idle::read(store, dag, &run).await.map_err(|error| refused(error, &row, flags))?;
        Ok(Self { store, row, idle, flags, _lock: lock })
    }

    /// As it would stand with other files.
    async fn stands_with(&mut self, definition: &Definition) -> Result<(), Problem> {
        let run = &self.row.header.run_id;
        let idle = Idle::read_with(self.store, definition, run).await;
        self.idle = idle.map_err(|error| refused(error, &self.row, self.flags))?;
        Ok(())
    }

    async fn carry_out(&mut self, commands: Vec<Command>, is_dry: bool) -> Result<Vec<Event>, Problem> {
        // A clock that was set back must not put this before the run's last event.
        let version = self.idle.state().version();
        let last = self.store.events(&self.row.header.run_id, version.saturating_sub(1), 1).await?;
        let now = SystemClock::starting(last.first().map(|recorded| recorded.at)).now();
        let refusal = |error| refused(error, &self.row, self.flags);
        if is_dry {
            let decided = commands.into_iter().map(|command| decide(self.idle.state(), command, now));
            let events: Result<Vec<Vec<Event>>, Rejected> = decided.collect();
            return Ok(events.map_err(|error| refusal(error.into()))?.concat());
        }
        self.idle.act(self.store, commands, now).await.map_err(refusal)
    }
}

fn resume_command(row: &RunRow, flags: &str) -> String {
    format!("backstop run --resume {}{flags}", row.header.run_id)
}

fn held_by_another(error: backstop_store::Error) -> Problem {
    let is_busy = error.kind == ErrorKind::Busy;
    let mut problem = Problem::from(error);
    if is_busy {
        problem.hints = vec![
            "a run that goes on is steered through the service that drives it; otherwise wait until that process has ended, or stop it"
                .to_owned(),
        ];
    }
    problem
}

fn refused(error: steer::Error, row: &RunRow, flags: &str) -> Problem {
    let again = resume_command(row, flags);
    let problem = Problem::usage(error.to_string());
    match error {
        steer::Error::Read(error @ backstop_runtime::Error::Changed { .. }) => {
            let mut problem = Problem::from(error);
            problem.hints = vec![
                "leave --current-files out: the run goes on with the files that it has".to_owned(),
                format!(
                    "or do all of it once more in a new run, with the files as they are now: `backstop trigger {}`",
                    row.header.dag_id
                ),
            ];
            problem
        }
        steer::Error::Read(error) => Problem::from(error),
        steer::Error::NoRun(_) => problem,
        steer::Error::Unsettled { .. } => {
            problem.hint(format!("let it find out and go on first: {again}")).hint("then run again what did not go well")
        }
        steer::Error::Rejected(Rejected::InDoubt(instance)) => {
            let word = paths::shell_word(&instance.to_string());
            let resolve = format!("{again} --resolve {word}=committed --why \"how you know\"");
            problem.hint(format!("find out what it did, then say so: {resolve} (or {word}=not-committed)"))
        }
        steer::Error::Rejected(_) => problem,
        steer::Error::Append(cause) => problem.cause(cause.to_string()),
    }
}

/// What a person named: tasks, groups, instances.
fn named(state: &RunState, names: &[String]) -> Result<Vec<InstanceId>, Problem> {
    let dag = state.dag();
    let mut found = Vec::new();
    for name in names {
        let inside = format!("{name}.");
        if dag.groups().iter().any(|group| group.id == *name) {
            let tasks = dag.tasks().iter().filter(|task| task.id.as_str().starts_with(&inside));
            found.extend(tasks.map(|task| InstanceId::single(task.id.clone())));
            continue;
        }
        let (task, map_index) = args::instance(name);
        let id = InstanceId { task: TaskId::new(task), map_index };
        if dag.index(task).is_none() || (map_index.is_some() && state.instance(&id).is_none()) {
            let mut problem = Problem::usage(format!("there is no task `{name}` in this run of `{}`", dag.id()));
            problem.hints = words::hints_for_name(task, "tasks", dag.tasks().iter().map(|task| task.id.as_str()));
            return Err(problem);
        }
        found.push(id);
    }
    Ok(found)
}

/// Of a mapped task without an index, all its instances.
fn all_instances(state: &RunState, named: &[InstanceId]) -> Vec<InstanceId> {
    let is_meant = |id: &InstanceId| {
        named.iter().any(|one| one.task == id.task && (one.map_index.is_none() || one.map_index == id.map_index))
    };
    state.instances().map(|(id, _)| id).filter(is_meant).collect()
}

/// What the events change, an instance a line, in the order of the source.
fn table(before: &RunState, events: &[Event]) -> Vec<Vec<String>> {
    let mut changed: HashMap<InstanceId, Vec<String>> = HashMap::new();
    let mut row = |instance: &InstanceId, now: &dyn Fn(&InstanceView<'_>) -> String| {
        if let Some(view) = before.instance(instance) {
            let (was, tries) = (view.phase.as_str().to_owned(), view.try_number.to_string());
            changed.insert(instance.clone(), vec![instance.to_string(), was, tries, now(&view)]);
        }
    };
    for event in events {
        match event {
            Event::InstancesCleared { instances, restart } => {
                instances.iter().for_each(|instance| row(instance, &|view| runs_again(view, *restart)));
            }
            Event::InstanceMarked { instance, mark: Mark::Success } => row(instance, &|_| "marked success".to_owned()),
            Event::InstanceMarked { instance, mark: Mark::Failed } => row(instance, &|_| "marked failed".to_owned()),
            Event::InstanceCancelRequested { instance, .. } => row(instance, &|_| "cancelled first".to_owned()),
            _ => {}
        }
    }
    before.instances().filter_map(|(id, _)| changed.remove(&id)).collect()
}

fn runs_again(view: &InstanceView<'_>, restart: Restart) -> String {
    match (view.segments.len(), restart) {
        (0, _) if matches!(view.phase, InstancePhase::UpstreamFailed | InstancePhase::Skipped) => "is judged anew".to_owned(),
        (0, _) => "runs again".to_owned(),
        (committed, Restart::Beginning) => {
            format!("runs again from the beginning: {} once more", words::count(committed, "committed segment"))
        }
        (committed, Restart::LastCommit) => format!("goes on behind {}", words::count(committed, "committed segment")),
    }
}
