//! What runs: tasks, their order and their settings. A [`Dag`] is valid by construction.

mod build;
pub mod priority;
mod scope;
mod unit;

pub(crate) use scope::Scopes;
pub use unit::Unit;
use unit::Units;

use crate::id::{DagId, TaskId, TaskIx};
use crate::retry::RetryPolicy;
use crate::rule::TriggerRule;
use rustc_hash::FxHashMap;
use std::time::Duration;

/// What a caller says of one task. [`Dag::new`] checks it and resolves names to places.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSpec {
    /// Unique in the DAG.
    pub id: TaskId,
    /// Direct upstreams, by id. Duplicates are folded.
    pub after: Vec<TaskId>,
    /// Everything that does not concern the graph.
    pub settings: TaskSettings,
}

/// A task's settings, as the state machine needs them.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskSettings {
    /// When the task may start, from the states of its direct upstreams.
    pub trigger_rule: TriggerRule,
    /// How often and how late a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// Work, setup or teardown.
    pub role: Role,
    /// True when the task expands to one instance for each item of a list known only at run time.
    pub mapped: bool,
    /// The pool the task takes slots of, by place in [`DagSpec::pools`].
    pub pool: u32,
    /// Slots of that pool that one attempt holds; at least 1.
    pub pool_slots: u32,
    /// The user's priority; higher goes first.
    pub priority_weight: i64,
    /// How the effective priority follows from the graph.
    pub weight_rule: WeightRule,
    /// What may be done without asking when an attempt's outcome stays unknown.
    pub delivery: Delivery,
    /// Callbacks to run when an attempt fails for good, fails and will be retried, or succeeds.
    pub hooks: Hooks,
    /// The group the task belongs to, by place in [`DagSpec::groups`].
    pub group: Option<u32>,
    /// Assets that a success updates, by name.
    pub updates: std::sync::Arc<[std::sync::Arc<str>]>,
}

impl Default for TaskSettings {
    /// Airflow's defaults: `all_success`, no retry, the first pool, one slot, weight 1.
    fn default() -> Self {
        Self {
            trigger_rule: TriggerRule::AllSuccess,
            retry: RetryPolicy::default(),
            role: Role::Work,
            mapped: false,
            pool: 0,
            pool_slots: 1,
            priority_weight: 1,
            weight_rule: WeightRule::Downstream,
            delivery: Delivery::ExactlyOnce,
            hooks: Hooks::default(),
            group: None,
            updates: std::sync::Arc::default(),
        }
    }
}

/// Airflow's setup and teardown tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An ordinary task.
    Work,
    /// Prepares a resource.
    Setup,
    /// Removes a resource. Runs by `all_done_setup_success`; ignored in the run's outcome unless told otherwise.
    Teardown {
        /// When true, the teardown's failure fails the run.
        on_failure_fail_dagrun: bool,
    },
}

/// Airflow's weight rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightRule {
    /// Own weight plus that of all downstream tasks (transitively). The default.
    #[default]
    Downstream,
    /// Own weight plus that of all upstream tasks (transitively).
    Upstream,
    /// Own weight alone.
    Absolute,
}

/// What the author allows when an attempt's outcome cannot be known from evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Ask a person: nothing is run twice without evidence.
    #[default]
    ExactlyOnce,
    /// Run it again: the author says that a second run does no harm.
    AtLeastOnce,
}

/// How many callbacks each occasion has. Bodies live outside the core; a callback is named by its occasion and place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Run after the final failure of an instance, never after one that will be retried.
    pub on_failure: u32,
    /// Run after a failure that will be retried.
    pub on_retry: u32,
    /// Run after a success.
    pub on_success: u32,
    /// Run when a deadline is missed, or will be. Of the run as a whole.
    pub on_deadline: u32,
    /// Run when the run waits for a person. Of the run as a whole.
    pub on_stuck: u32,
}

/// A named set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name, `default_pool` for the first.
    pub name: String,
    /// How many; `None` is without limit (Airflow's -1).
    pub slots: Option<u32>,
}

/// A group of tasks, for display and for `after:`. Edges to groups are resolved before the core sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Full id, `outer.inner`.
    pub id: String,
    /// The enclosing group, by place.
    pub parent: Option<u32>,
    /// The task that commits what the group's tasks did, where they share one transaction.
    pub commit: Option<TaskId>,
}

/// What a caller says of a whole DAG.
#[derive(Clone, Debug, PartialEq)]
pub struct DagSpec {
    /// Unique in the project.
    pub id: DagId,
    /// In the order of the source.
    pub tasks: Vec<TaskSpec>,
    /// Groups, outer before inner.
    pub groups: Vec<Group>,
    /// At least one; the first is the default.
    pub pools: Vec<Pool>,
    /// How many attempts of one run may be going on at once (Airflow's max_active_tasks, 16).
    pub max_active_tasks: u32,
    /// Callbacks of the run as a whole.
    pub hooks: Hooks,
    /// The longest a run may take from its start; on expiry it is cancelled and fails.
    pub dagrun_timeout: Option<Duration>,
    /// Most items a mapped task may expand to (Airflow's max_map_length, 1024).
    pub map_length_max: u32,
}

/// Why a [`DagSpec`] is not a DAG.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two tasks have one id.
    #[error("task `{0}` is defined twice")]
    DuplicateTask(TaskId),
    /// `after` names a task that is not there.
    #[error("task `{task}` comes after `{upstream}`, which does not exist")]
    UnknownUpstream {
        /// The task with the `after`.
        task: TaskId,
        /// The missing one.
        upstream: TaskId,
    },
    /// The tasks form a cycle, each before the next; the first is repeated at the end.
    #[error("tasks wait for each other in a cycle: {}", .0.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<TaskId>),
    /// More tasks than a `u32` counts, no pool, no slot for any task, or a group inside one that does not come before it.
    #[error("DAG `{dag}`: {what}")]
    BadDagSetting {
        /// The DAG.
        dag: DagId,
        /// What is wrong with it.
        what: String,
    },
    /// A pool or group that does not exist, zero slots, more slots than the pool has, or what a transaction cannot hold.
    #[error("task `{task}`: {what}")]
    BadSetting {
        /// The task.
        task: TaskId,
        /// What is wrong with it.
        what: String,
    },
}

/// A task with its place in the graph resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Unique in the DAG.
    pub id: TaskId,
    /// The settings.
    pub settings: TaskSettings,
    /// Direct upstreams, in order of place.
    pub upstream: Vec<TaskIx>,
    /// Direct downstreams, in order of place.
    pub downstream: Vec<TaskIx>,
}

/// A valid DAG.
#[derive(Clone, Debug, PartialEq)]
pub struct Dag {
    id: DagId,
    tasks: Vec<Task>,
    groups: Vec<Group>,
    pools: Vec<Pool>,
    max_active_tasks: u32,
    hooks: Hooks,
    dagrun_timeout: Option<Duration>,
    map_length_max: u32,
    places: FxHashMap<TaskId, TaskIx>,
    topological: Vec<TaskIx>,
    depths: Vec<u32>,
    priorities: Vec<i64>,
    scopes: Option<Box<Scopes>>,
    units: Option<Box<Units>>,
}

impl Dag {
    /// Its id.
    pub fn id(&self) -> &DagId {
        &self.id
    }

    /// All tasks, in the order of the source.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task at a place.
    pub fn task(&self, place: TaskIx) -> &Task {
        &self.tasks[place.get()]
    }

    /// The place of a task, in one look-up.
    pub fn index(&self, task: &str) -> Option<TaskIx> {
        self.places.get(task).copied()
    }

    /// Groups, outer before inner.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Pools; the first is the default.
    pub fn pools(&self) -> &[Pool] {
        &self.pools
    }

    /// How many attempts of one run may be going on at once.
    pub fn max_active_tasks(&self) -> u32 {
        self.max_active_tasks
    }

    /// How many callbacks the run as a whole has.
    pub fn hooks(&self) -> Hooks {
        self.hooks
    }

    /// The longest a run may take from its start.
    pub fn dagrun_timeout(&self) -> Option<Duration> {
        self.dagrun_timeout
    }

    /// Most items a mapped task may expand to.
    pub fn map_length_max(&self) -> u32 {
        self.map_length_max
    }

    /// Every task after all its upstreams, and in the order of the source where the graph leaves it open.
    pub fn topological_order(&self) -> &[TaskIx] {
        &self.topological
    }

    /// The longest way from a task without upstreams, in edges.
    pub fn depth(&self, place: TaskIx) -> u32 {
        self.depths[place.get()]
    }

    /// The priority that orders ready instances, higher first: the task's own weight and, by its weight rule, the weights of all
    /// tasks down- or upstream of it. See [`priority`] for the rule in very large DAGs.
    pub fn effective_priority(&self, place: TaskIx) -> i64 {
        self.priorities[place.get()]
    }

    pub(crate) fn scopes(&self) -> Option<&Scopes> {
        self.scopes.as_deref()
    }

    /// The tasks that decide how a run ends, among those present in it.
    ///
    /// A task counts unless it is a teardown without `on_failure_fail_dagrun`, and only when nothing that counts comes directly
    /// after it. When no task is left by this rule, the tasks without downstreams decide (Airflow, dagrun.py).
    pub fn effective_leaves(&self, is_present: impl Fn(TaskIx) -> bool) -> Vec<TaskIx> {
        let counts = |place: TaskIx| {
            is_present(place) && !matches!(self.task(place).settings.role, Role::Teardown { on_failure_fail_dagrun: false })
        };
        let places = || (0..self.tasks.len() as u32).map(TaskIx);
        let leaves: Vec<TaskIx> =
            places().filter(|&place| counts(place) && !self.task(place).downstream.iter().any(|&down| counts(down))).collect();
        if !leaves.is_empty() {
            return leaves;
        }
        places().filter(|&place| is_present(place) && !self.task(place).downstream.iter().any(|&down| is_present(down))).collect()
    }
}
