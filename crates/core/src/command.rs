//! What is asked of the core, in the imperative. Every command is answered with events or refused.

use crate::event::{Anomaly, CallbackId, Evidence, Failure, Mark, Restart, SegmentCommit, StatementRecord};
use crate::id::{InstanceId, TaskId};
use std::sync::Arc;

/// Asked of the core.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Leave the queue.
    Start,
    /// Take the run over from a process that is gone. Every running attempt becomes Unknown.
    Resume {
        /// Larger than every epoch before.
        epoch: u64,
    },
    /// A worker takes a ready instance.
    StartAttempt {
        /// Which.
        instance: InstanceId,
    },
    /// The items of a mapped task are known.
    Expand {
        /// Which.
        task: TaskId,
        /// Of the attempt that found them.
        try_number: u32,
        /// One JSON text an item.
        items: Vec<Arc<str>>,
    },
    /// A segment committed (or was found committed).
    CommitSegment {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What.
        commit: Arc<SegmentCommit>,
    },
    /// All of the attempt's work is done.
    Succeed {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// JSON.
        result: Option<Arc<str>>,
        /// For a branch.
        follow: Option<Vec<TaskId>>,
    },
    /// All of the attempt's work is done, in a transaction that goes on with other tasks.
    Hold {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What ran.
        statements: Arc<[StatementRecord]>,
        /// JSON.
        result: Option<Arc<str>>,
    },
    /// The transaction that the attempt shares with other tasks, or should have committed, is gone: nothing of it took effect.
    LoseTransaction {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// Why.
        failure: Arc<Failure>,
    },
    /// The sessions of all open transactions that no attempt works on are given up: what they hold is undone, and is to be done again.
    GiveUpTransactions {
        /// Why.
        failure: Arc<Failure>,
    },
    /// The task chose to be skipped.
    Skip {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// In words.
        reason: String,
    },
    /// A sensor waits.
    Defer {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// When to look again.
        until: jiff::Timestamp,
    },
    /// The attempt failed; what it committed is known.
    Fail {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// Why.
        failure: Arc<Failure>,
    },
    /// The attempt's outcome is not known.
    LoseTrack {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What happened.
        failure: Arc<Failure>,
    },
    /// The attempt's outcome is known now. Every committed segment was told by `CommitSegment` before.
    Resolve {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// How it is known.
        evidence: Evidence,
    },
    /// Time has passed: fire what is due.
    FireTimers,
    /// What a deferred instance waits for may be there: it looks again at once.
    Wake {
        /// Which.
        instance: InstanceId,
    },
    /// A deadline is missed, or will be. What was told already is not told again.
    TellDeadline {
        /// From 0, in the order of the DAG's deadlines.
        deadline: u32,
        /// When the run must be done.
        due_at: jiff::Timestamp,
        /// When it is expected to be; `None` when the deadline has passed.
        done_at: Option<jiff::Timestamp>,
    },
    /// End the run.
    Cancel {
        /// Why.
        reason: String,
    },
    /// A callback ran.
    FinishCallback {
        /// Which.
        callback: CallbackId,
        /// Why it did not succeed.
        failure: Option<Arc<Failure>>,
    },
    /// Record that a person acted.
    RecordOperator {
        /// Who.
        who: String,
        /// Why.
        why: String,
        /// What.
        what: String,
    },
    /// Run instances again. One that is running is cancelled first, and cleared when its outcome is known; one in doubt is refused. What
    /// was only skipped or upstream_failed because of them is judged again. A run that was over is reopened.
    Clear {
        /// Which; see [`select`](crate::select()).
        instances: Vec<InstanceId>,
        /// Where those begin that failed and above which nothing runs again. All others begin with their first segment.
        restart: Restart,
        /// Who.
        who: String,
        /// Why; not empty.
        why: String,
    },
    /// Set the outcome of instances. One that is running is cancelled first; one in doubt is refused: that is `Resolve`. What was only
    /// skipped or upstream_failed because of them is judged again. A run that was over is reopened.
    Mark {
        /// Which.
        instances: Vec<InstanceId>,
        /// As what.
        mark: Mark,
        /// Who.
        who: String,
        /// Why; not empty.
        why: String,
    },
    /// End one instance: it fails without a retry. Its attempt is cancelled, also on the server.
    CancelInstance {
        /// Which.
        instance: InstanceId,
        /// Why; not empty.
        reason: String,
        /// Who.
        who: String,
    },
    /// Go on with other sources. Refused while an attempt goes on, which has begun with those of before. Where the run has them already,
    /// nothing changes.
    Pin {
        /// The digest of the DAG's sources.
        version: String,
        /// The digest of the variables that its templates see.
        variables: Option<Arc<str>>,
    },
    /// A statement of an attempt is not as usual. Told twice, or of an attempt that has ended, it changes nothing.
    NoticeAnomaly {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What is unusual.
        anomaly: Anomaly,
    },
    /// The runtime can do nothing more: only instances in doubt are left, and nobody to ask.
    DeclareStuck,
    /// Evaluate what the last events made possible. [`handle`](crate::handle) does it by itself.
    Advance,
}

/// A command that does not fit the state. The state is unchanged; a late answer of a fenced worker ends here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The run is over, not begun, or begun already.
    #[error("the state of the run is {state}")]
    Run {
        /// In a word.
        state: &'static str,
    },
    /// No such task, or no such index.
    #[error("there is no task instance `{0}` in this run")]
    UnknownInstance(InstanceId),
    /// The instance is in another state.
    #[error("the state of task instance `{instance}` is {state}")]
    Instance {
        /// Which.
        instance: InstanceId,
        /// In a word.
        state: &'static str,
    },
    /// Nothing passes a doubt.
    #[error("it is not known what the last attempt of `{0}` did: resolve it first")]
    InDoubt(InstanceId),
    /// The attempt is not the current one.
    #[error("try {given} of `{instance}` is not the current one, {current}")]
    StaleTry {
        /// Which.
        instance: InstanceId,
        /// The command's.
        given: u32,
        /// The state's.
        current: u32,
    },
    /// The segment is committed already, or is not the next.
    #[error("segment {given} of `{instance}` is not the next one, {next}")]
    Segment {
        /// Which.
        instance: InstanceId,
        /// The command's.
        given: u32,
        /// The state's.
        next: u32,
    },
    /// What is asked for is so already.
    #[error("there is nothing to change: every task instance named is so already")]
    NothingToChange,
    /// No slot is free.
    #[error("no slot is free for `{0}`")]
    NoSlot(InstanceId),
    /// More items than the DAG allows, a branch to a task that is not a direct downstream, an epoch that does not grow, or a
    /// callback that was not asked for.
    #[error("{0}")]
    BadArgument(String),
}
