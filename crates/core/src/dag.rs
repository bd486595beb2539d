//! What runs: tasks, their order and their settings. A [`Dag`] is valid by construction.

use crate::id::{DagId, TaskId, TaskIx};
use crate::retry::RetryPolicy;
use crate::rule::TriggerRule;
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
    /// The tasks form a cycle; the first is repeated at the end.
    #[error("tasks wait for each other: {}", .0.iter().map(TaskId::as_str).collect::<Vec<_>>().join(" -> "))]
    Cycle(Vec<TaskId>),
    /// More tasks than a `u32` counts, a pool or group that does not exist, or zero slots.
    #[error("task `{task}`: {what}")]
    BadSetting {
        /// The task.
        task: TaskId,
        /// What is wrong with it.
        what: String,
    },
}

/// A task with its place in the graph resolved.
#[derive(Clone, Debug)]
pub struct Task {
    /// Unique in the DAG.
    pub id: TaskId,
    /// The settings.
    pub settings: TaskSettings,
    /// Direct upstreams.
    pub upstream: Vec<TaskIx>,
    /// Direct downstreams.
    pub downstream: Vec<TaskIx>,
}

/// A valid DAG.
#[derive(Clone, Debug)]
pub struct Dag {}
