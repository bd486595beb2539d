//! Units: groups of tasks that take effect as one. The core sees a chain of members and the task behind them that commits.
//!
//! Members run one after another, because they share a session; so they are a chain, each after the one before it. Whatever comes after a
//! member from outside comes after the commit: before it, nothing of a member is there to be seen.

use super::{Dag, Error, Group, Role, Task};
use crate::id::TaskIx;
use crate::rule::TriggerRule;
use rustc_hash::FxHashMap;

/// Tasks that commit as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The task that commits them. Its attempt is the commit, and its state that of the whole.
    pub commit: TaskIx,
    /// In the order in which they run; at least one.
    pub members: Vec<TaskIx>,
}

/// The units of a DAG, and which task is of which.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Units {
    pub(super) all: Vec<Unit>,
    /// Members and commits, to places in `all`.
    of: FxHashMap<TaskIx, u32>,
}

impl Dag {
    /// Groups of tasks that commit as one.
    pub fn units(&self) -> &[Unit] {
        self.units.as_deref().map_or(&[], |units| &units.all)
    }

    /// The unit that a task belongs to, as a member or as its commit.
    pub fn unit_of(&self, task: TaskIx) -> Option<&Unit> {
        self.unit_place(task).map(|place| &self.units()[place as usize])
    }

    /// The unit of which a task is a member.
    pub fn member_of(&self, task: TaskIx) -> Option<&Unit> {
        self.unit_of(task).filter(|unit| unit.commit != task)
    }

    /// The unit that a task commits.
    pub fn commits(&self, task: TaskIx) -> Option<&Unit> {
        self.unit_of(task).filter(|unit| unit.commit == task)
    }

    pub(crate) fn unit_place(&self, task: TaskIx) -> Option<u32> {
        self.units.as_deref()?.of.get(&task).copied()
    }
}

impl Unit {
    /// Members, then the commit.
    pub fn tasks(&self) -> impl Iterator<Item = TaskIx> + '_ {
        self.members.iter().copied().chain([self.commit])
    }
}

impl Units {
    /// Reads the units off the groups. Every group whose tasks commit as one names its commit.
    pub(super) fn of(
        groups: &[Group],
        tasks: &[Task],
        places: &FxHashMap<crate::id::TaskId, TaskIx>,
        topological: &[TaskIx],
    ) -> Result<Option<Box<Self>>, Vec<Error>> {
        if groups.iter().all(|group| group.commit.is_none()) {
            return Ok(None);
        }
        let mut units = Self::default();
        let mut errors = Vec::new();
        for (place, group) in groups.iter().enumerate() {
            let Some(name) = &group.commit else { continue };
            let Some(&commit) = places.get(name) else {
                errors.push(refused(tasks, TaskIx(0), &format!("group `{}` has no task `{name}` to commit it", group.id)));
                continue;
            };
            let is_inside = |task: &TaskIx| *task != commit && is_within(groups, tasks[task.get()].settings.group, place as u32);
            let members: Vec<TaskIx> = topological.iter().copied().filter(is_inside).collect();
            let unit = Unit { commit, members };
            errors.extend(faults(tasks, &unit));
            for task in unit.tasks() {
                if units.of.insert(task, units.all.len() as u32).is_some() {
                    errors.push(refused(tasks, task, "it is in two transactions"));
                }
            }
            units.all.push(unit);
        }
        if errors.is_empty() { Ok(Some(Box::new(units))) } else { Err(errors) }
    }
}

fn is_within(groups: &[Group], mut group: Option<u32>, outer: u32) -> bool {
    while let Some(place) = group {
        if place == outer {
            return true;
        }
        group = groups[place as usize].parent;
    }
    false
}

/// What of a unit the state machine could not carry out.
fn faults(tasks: &[Task], unit: &Unit) -> Vec<Error> {
    let mut errors = Vec::new();
    if unit.members.is_empty() {
        errors.push(refused(tasks, unit.commit, "it commits a group without tasks"));
    }
    for task in unit.tasks() {
        let settings = &tasks[task.get()].settings;
        if settings.mapped {
            errors.push(refused(tasks, task, "a task of a transaction cannot be mapped"));
        }
        if settings.role != Role::Work {
            errors.push(refused(tasks, task, "a task of a transaction is neither setup nor teardown"));
        }
        if settings.trigger_rule != TriggerRule::AllSuccess {
            errors.push(refused(tasks, task, "a task of a transaction runs when all before it succeeded"));
        }
    }
    let chain: Vec<TaskIx> = unit.tasks().collect();
    for (before, task) in chain.iter().zip(&chain[1..]) {
        if !tasks[task.get()].upstream.contains(before) {
            let what = format!("it does not come after `{}`, with which it shares a session", tasks[before.get()].id);
            errors.push(refused(tasks, *task, &what));
        }
    }
    for member in &unit.members {
        let outside = tasks[member.get()].downstream.iter().find(|down| !chain.contains(down));
        if let Some(outside) = outside {
            let what =
                format!("it comes after `{}`, which is committed with others: it must come after that", tasks[member.get()].id);
            errors.push(refused(tasks, *outside, &what));
        }
    }
    errors
}

fn refused(tasks: &[Task], task: TaskIx, what: &str) -> Error {
    let id = tasks.get(task.get()).map_or_else(|| crate::id::TaskId::new(""), |task| task.id.clone());
    Error::BadSetting { task: id, what: what.to_owned() }
}
