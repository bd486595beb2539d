//! Why a task instance is not running: one exact answer, from the state alone.
//!
//! What the state does not know is the caller's to say: that a DAG is paused, that a run waits for `max_active_runs`, that no process
//! runs it.

use crate::dag::Role;
use crate::id::{InstanceId, TaskIx};
use crate::rule::{TriggerRule, Verdict, setup_verdict};
use crate::state::{InstancePhase, Key, RunPhase, RunState};
use jiff::Timestamp;
use std::fmt;

/// Instances that an answer names; it counts the others.
pub const NAMED_MAX: usize = 10;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The run has not started.
    RunQueued {
        /// True when the run was over before, and was reopened.
        is_reopened: bool,
    },
    /// The run is being cancelled: nothing more begins.
    RunCancelling,
    /// The run is over, and this instance is not done: that does not happen in a log that is whole.
    RunOver(RunPhase),
    /// It waits until its trigger rule is decided by its upstreams.
    Upstreams {
        /// The rule.
        rule: TriggerRule,
        /// How many upstream instances there are.
        total: usize,
        /// Those that are not done.
        missing: Several,
    },
    /// Its rule is met; it waits for setups further above.
    Setups(Several),
    /// A teardown: it waits for what is between its setups and itself.
    Enclosed(Several),
    /// Its rule is decided: it is about to be scheduled or marked.
    Decided,
    /// It may begin at once.
    Ready,
    /// As many attempts are going on as the run may have at once.
    MaxActiveTasks {
        /// How many are going on, with those that open transactions keep between two of their tasks.
        used: usize,
        /// How many of them open transactions keep.
        kept: usize,
        /// How many may be.
        limit: usize,
        /// Who goes before it when one ends: the length of that queue.
        ahead: usize,
        /// Those that are going on, and those that begin as soon as other runs leave them slots.
        holders: Several,
    },
    /// Its pool has not as many free slots as it needs.
    Pool {
        /// Its name.
        pool: String,
        /// Slots it needs.
        needs: u32,
        /// Slots that are held.
        used: u64,
        /// Slots there are.
        slots: u32,
        /// Those that hold them.
        holders: Several,
    },
    /// Others of its pool go before it: they have a higher priority, or come first.
    Behind {
        /// The pool.
        pool: String,
        /// How many go before it.
        ahead: usize,
        /// The first of them, on which the others wait.
        first: InstanceId,
        /// Why that one has not begun.
        because: Box<Why>,
    },
    /// It failed, and its next try is not due.
    Retry {
        /// The try that failed.
        try_number: u32,
        /// When the next is due.
        at: Timestamp,
    },
    /// A sensor's condition did not hold.
    Deferred {
        /// When it looks again.
        until: Timestamp,
    },
    /// Nobody knows what its last attempt did.
    InDoubt {
        /// Which try.
        try_number: u32,
        /// True when only a person can tell.
        needs_person: bool,
    },
    /// It did its work in a transaction that is still open.
    Held {
        /// The group that commits it: what that waits for is its own answer.
        group: InstanceId,
    },
    /// It is running.
    Running {
        /// Which try.
        try_number: u32,
        /// A person wants it to end.
        is_stopping: bool,
    },
    /// It is done.
    Done {
        /// How.
        phase: InstancePhase,
        /// True when a person said so.
        is_marked: bool,
    },
}

/// Instances with their phases: the first few, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several {
    /// At most [`NAMED_MAX`], in the order of the source.
    pub first: Vec<(InstanceId, InstancePhase)>,
    /// All of them.
    pub count: usize,
}

/// Why an instance is where it is; `None` when there is no such instance.
pub fn why(state: &RunState, id: &InstanceId) -> Option<Why> {
    let key = state.key(id)?;
    let instance = state.find(key)?;
    let try_number = instance.try_number;
    let is_stuck = state.phase() == RunPhase::Stuck;
    Some(match instance.phase {
        InstancePhase::Running => Why::Running { try_number, is_stopping: state.stops().contains_key(&key) },
        InstancePhase::InDoubt => Why::InDoubt { try_number, needs_person: is_stuck },
        InstancePhase::Held => Why::Held { group: group_of(state, key) },
        phase @ (InstancePhase::Success
        | InstancePhase::Failed
        | InstancePhase::Skipped
        | InstancePhase::UpstreamFailed
        | InstancePhase::RolledBack
        | InstancePhase::Removed) => Why::Done { phase, is_marked: state.instance(id).is_some_and(|view| view.is_marked) },
        InstancePhase::None | InstancePhase::Scheduled | InstancePhase::Deferred { .. } | InstancePhase::UpForRetry { .. } => {
            match state.phase() {
                RunPhase::Queued => Why::RunQueued { is_reopened: state.reopened() > 0 },
                RunPhase::Cancelling => Why::RunCancelling,
                phase @ (RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) => Why::RunOver(phase),
                RunPhase::Running | RunPhase::Stuck => match instance.phase {
                    InstancePhase::Deferred { until } => Why::Deferred { until },
                    InstancePhase::UpForRetry { at } => Why::Retry { try_number, at },
                    InstancePhase::Scheduled => waits_for_slots(state, key),
                    InstancePhase::None
                    | InstancePhase::Running
                    | InstancePhase::InDoubt
                    | InstancePhase::Held
                    | InstancePhase::Success
                    | InstancePhase::Failed
                    | InstancePhase::Skipped
                    | InstancePhase::UpstreamFailed
                    | InstancePhase::RolledBack
                    | InstancePhase::Removed => waits_for_rule(state, key.task),
                },
            }
        }
    })
}

/// The instance that commits a member.
fn group_of(state: &RunState, key: Key) -> InstanceId {
    let commit = state.dag().unit_of(key.task).map_or(key.task, |unit| unit.commit);
    state.id(Key { task: commit, map_index: None })
}

/// The parts of [`RunState::verdict`], in its order.
fn waits_for_rule(state: &RunState, task: TaskIx) -> Why {
    let dag = state.dag();
    let settings = &dag.task(task).settings;
    if state.verdict(task) != Verdict::Wait {
        return Why::Decided;
    }
    let counts = state.scope_counts(task);
    let by_rule = settings.trigger_rule.verdict(state.upstream_counts(task), &counts.direct_setups);
    let scopes = dag.scopes();
    let who_have = |lists: &[Vec<TaskIx>]| -> Vec<TaskIx> {
        (0..lists.len() as u32).map(TaskIx).filter(|place| lists[place.get()].contains(&task)).collect()
    };
    match (settings.role, by_rule, scopes) {
        (Role::Teardown { .. }, Verdict::Run, Some(scopes)) => Why::Enclosed(undone(state, who_have(&scopes.enclosing))),
        (Role::Work | Role::Setup, Verdict::Run, Some(scopes)) if setup_verdict(&counts.indirect_setups) == Verdict::Wait => {
            Why::Setups(undone(state, who_have(&scopes.gated)))
        }
        _ => {
            let upstream = dag.task(task).upstream.clone();
            let total = state.upstream_counts(task).present() as usize;
            Why::Upstreams { rule: settings.trigger_rule, total, missing: undone(state, upstream) }
        }
    }
}

fn undone(state: &RunState, tasks: Vec<TaskIx>) -> Several {
    let keys = tasks.into_iter().flat_map(|task| state.keys_of(task));
    several(state, keys.filter(|&key| state.find(key).is_some_and(|instance| !instance.phase.is_done())))
}

fn several(state: &RunState, keys: impl Iterator<Item = Key>) -> Several {
    let mut several = Several { first: Vec::new(), count: 0 };
    for key in keys {
        several.count += 1;
        if let Some(instance) = state.find(key).filter(|_| several.first.len() < NAMED_MAX) {
            several.first.push((state.id(key), instance.phase));
        }
    }
    several
}

fn waits_for_slots(state: &RunState, key: Key) -> Why {
    let dag = state.dag();
    let startable = state.queue().startable(dag);
    if startable.contains(&key) {
        return Why::Ready;
    }
    let settings = &dag.task(key.task).settings;
    let pool = &dag.pools()[settings.pool as usize];
    let in_pool = |other: &Key| dag.task(other.task).settings.pool == settings.pool;
    let limit = dag.max_active_tasks() as usize;
    // Open transactions keep the slots of their last task.
    let keep = || state.kept().values().map(|&task| Key { task, map_index: None });
    let used = state.running().len() + state.kept().len();
    if used + startable.len() >= limit {
        let ahead = state.queue().ahead(dag, key).count();
        return Why::MaxActiveTasks {
            used,
            kept: state.kept().len(),
            limit,
            ahead,
            holders: several(state, state.running().iter().chain(&startable).copied().chain(keep())),
        };
    }
    // Whoever may begin now leaves the queue; the first of the others is the one that does not fit.
    let mut ahead = state.queue().ahead_in_pool(dag, key).filter(|other| !startable.contains(other)).peekable();
    match ahead.peek().copied() {
        Some(first) => Why::Behind {
            pool: pool.name.clone(),
            ahead: ahead.count(),
            first: state.id(first),
            because: Box::new(waits_for_slots(state, first)),
        },
        None => {
            let starting = startable.iter().filter(|other| in_pool(other)).map(|other| dag.task(other.task).settings.pool_slots);
            Why::Pool {
                pool: pool.name.clone(),
                needs: settings.pool_slots,
                used: state.pool_slots_used(settings.pool) + starting.map(u64::from).sum::<u64>(),
                slots: pool.slots.unwrap_or(u32::MAX),
                holders: several(state, state.running().iter().chain(&startable).copied().chain(keep()).filter(in_pool)),
            }
        }
    }
}

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: Vec<String> = self.first.iter().map(|(id, phase)| format!("{id} ({})", phase.as_str())).collect();
        f.write_str(&first.join(", "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RunQueued { is_reopened: false } => f.write_str("the run is queued: it has not started"),
            Self::RunQueued { is_reopened: true } => {
                f.write_str("the run was reopened and is queued: it goes on when a process takes it")
            }
            Self::RunCancelling => f.write_str("the run is being cancelled: nothing more begins"),
            Self::RunOver(phase) => write!(f, "the run is over ({})", phase.as_str()),
            Self::Upstreams { rule, total, missing } => {
                let (missing_count, rule) = (missing.count, rule.as_str());
                write!(f, "it waits for {missing_count} of {total} upstream task instances ({rule}): {missing}")
            }
            Self::Setups(missing) => write!(f, "it waits for setups: {missing}"),
            Self::Enclosed(missing) => write!(f, "it tears down, and waits for all that comes before: {missing}"),
            Self::Decided => f.write_str("its trigger rule is decided: it goes on at once"),
            Self::Ready => f.write_str("it is ready and has all its slots: it begins at once"),
            Self::MaxActiveTasks { used, kept, limit, ahead, holders } => {
                let queue = match ahead {
                    0 => "it is the next".to_owned(),
                    1 => "1 goes before it".to_owned(),
                    many => format!("{many} go before it"),
                };
                let how = match kept {
                    0 => "running",
                    all if all == used => "kept by open transactions",
                    _ => "running or kept by open transactions",
                };
                write!(f, "{used} of max_active_tasks {limit} are {how}, {queue}: {holders}")
            }
            Self::Pool { pool, needs, used, slots, holders } => {
                let needed = if *needs == 1 { "a slot".to_owned() } else { format!("{needs} slots") };
                write!(f, "it needs {needed} of pool `{pool}`; {used} of {slots} are held: {holders}")
            }
            Self::Behind { pool, ahead, first, because } => {
                let others = if *ahead == 1 { "1 other goes".to_owned() } else { format!("{ahead} others go") };
                write!(f, "{others} before it in pool `{pool}`, first {first}: {because}")
            }
            Self::Retry { try_number, at } => write!(f, "try {try_number} failed; the next is due at {at}"),
            Self::Deferred { until } => write!(f, "its condition did not hold; it looks again at {until}"),
            Self::InDoubt { try_number, needs_person: true } => {
                write!(f, "it is not known what try {try_number} did: a person has to find out and say so")
            }
            Self::InDoubt { try_number, needs_person: false } => {
                write!(f, "it is not known what try {try_number} did: the database is being asked")
            }
            Self::Held { group } => {
                write!(f, "it is done, and not committed: `{group}` commits it with the rest of its transaction")
            }
            Self::Running { try_number, is_stopping: false } => write!(f, "try {try_number} is running"),
            Self::Running { try_number, is_stopping: true } => write!(f, "try {try_number} is running, and is being cancelled"),
            Self::Done { phase, is_marked } => {
                let marked = if *is_marked { ", as a person said" } else { "" };
                write!(f, "it is done: {}{marked}", phase.as_str())
            }
        }
    }
}
