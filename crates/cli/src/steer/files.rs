//! Which files what runs again is run with: those that the run has, or the project's as they are now; and what is told where they differ.

use super::{Held, Wanted};
use crate::args::Place;
use crate::explain::Problem;
use crate::output;
use crate::run::check_sql;
use crate::runs::shape;
use crate::sources::{self, Chosen, Purpose, Sources};
use crate::{paths, words};
use backstop_core::{Command, DagId, Event, TaskId, handle};
use backstop_project::definition::{Definition, Project};
use backstop_runtime::repin::{self, Current, Differing};
use backstop_runtime::{Prepared, Sessions, SystemClock, keep_version};
use backstop_store::{RunRow, SqliteStore};
use serde_json::Value;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;

/// What is said where the files differ and are not taken.
const FLAG: &str = "the run goes on with those that it has (--current-files takes the new ones)";

/// The project's files, read when they are first needed.
pub(super) struct Files<'a> {
    place: &'a Place,
    taken: OnceCell<Taken>,
    /// As far as they can be read.
    seen: OnceCell<Option<Project>>,
    /// How they differ is told of the first run: of the others of its DAG it would be about the same.
    was_told: Cell<bool>,
}

/// A DAG as its files are now.
#[derive(Clone)]
pub(super) struct Taken {
    project: Arc<Project>,
    pub(super) definition: Arc<Definition>,
}

impl<'a> Files<'a> {
    pub(super) fn new(place: &'a Place) -> Self {
        Self { place, taken: OnceCell::new(), seen: OnceCell::new(), was_told: Cell::new(false) }
    }

    /// The files as they are now, where they are wanted. Refused where they are wrong, as `backstop run` refuses them.
    pub(super) fn taken(&self, wanted: &Wanted<'_>, dag: &DagId) -> Result<Option<Taken>, Problem> {
        if wanted.takes_current() != Some(true) {
            return Ok(None);
        }
        if let Some(known) = self.taken.get().filter(|known| known.definition.dag.id() == dag) {
            return Ok(Some(known.clone()));
        }
        let chosen = sources::choose(dag.as_str(), None, self.place, Purpose::Run)?;
        check_sql(&chosen)?;
        let Chosen { project, definition, .. } = chosen;
        Ok(Some(self.taken.get_or_init(|| Taken { project, definition }).clone()))
    }

    /// Tells how the files differ from those that a run has.
    pub(super) async fn note(&self, store: &SqliteStore, wanted: &Wanted<'_>, row: &RunRow, is_dry: bool) {
        let Some(taken) = wanted.takes_current().filter(|_| !self.was_told.get()) else { return };
        let Some(pinned) = shape::definition(store, row).await else { return };
        let header = &row.header;
        let current = match (self.taken.get(), taken) {
            (Some(taken), true) => Some(taken.definition.clone()),
            _ => self.seen.get_or_init(|| self.look()).as_ref().and_then(|project| project.dags.get(&header.dag_id).cloned()),
        };
        let Some(differing) = current.and_then(|current| Differing::of(&pinned, &current)) else { return };
        self.tell(&differing, taken, is_dry);
    }

    /// What a service says of the files.
    pub(super) fn note_of_answer(&self, files: &Value) {
        if files.is_null() || self.was_told.get() {
            return;
        }
        let list = |name: &str| -> Vec<String> {
            files[name].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let differing = Differing {
            pinned: files["pinned"].as_str().unwrap_or_default().to_owned(),
            current: files["current"].as_str().unwrap_or_default().to_owned(),
            tasks: list("tasks").iter().map(|task| TaskId::new(task.as_str())).collect(),
            files: list("files"),
        };
        self.tell(&differing, files["taken"].as_bool() == Some(true), false);
    }

    fn tell(&self, differing: &Differing, taken: bool, is_dry: bool) {
        self.was_told.set(true);
        let version = words::version(&differing.current);
        output::note(&match (taken, is_dry) {
            (false, _) => format!("the files have changed: {differing}; {FLAG}"),
            (true, false) => format!("the run goes on with the current files, version {version}: {differing}"),
            (true, true) => format!("the run would go on with the current files, version {version}: {differing}"),
        });
    }

    /// Without a word: files that are wrong are none that could be taken.
    fn look(&self) -> Option<Project> {
        let root = paths::project(self.place).ok()?;
        sources::load(&Sources::of_folder(root), self.place, Purpose::Look).ok().map(|loaded| loaded.project)
    }
}

impl Taken {
    /// Lets a run that nobody drives go on with these files, and carries out what is wanted, all of it together.
    pub(super) async fn carry_out(&self, held: &mut Held<'_>, command: Command, is_dry: bool) -> Result<Vec<Event>, Problem> {
        let before = held.idle.state().clone();
        if let Some(instance) = before.instances_in_doubt().next() {
            let refused = backstop_core::command::Rejected::InDoubt(instance);
            return Err(super::refused(refused.into(), &held.row, held.flags));
        }
        let clock = SystemClock::starting(None);
        let mut after = before.clone();
        let now = crate::run::begin::now();
        if handle(&mut after, command.clone(), now).is_ok() {
            let prepared = Prepared::new(self.project.clone(), self.definition.clone());
            let sessions = Arc::new(Sessions::new(self.project.clone(), Arc::new(backstop_connect::connector)));
            let current = Current { prepared, sessions, clock: Arc::new(clock) };
            if let Some(why) = current.refuses(held.store, &held.row, &before, &after).await {
                return Err(Problem::usage(why));
            }
        }
        if !is_dry {
            // Before any log names it.
            keep_version(held.store, &self.project, &self.definition).await?;
        }
        let pin = repin::command(&self.definition, &before);
        held.carry_out(pin.into_iter().chain([command]).collect(), is_dry).await
    }
}
