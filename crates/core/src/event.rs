//! Recorded facts, in the past tense. The log of a run is a sequence of these; everything else is a fold of them.
//!
//! Text that the core does not interpret (results, items, parameters) is JSON made by the runtime.

use crate::id::{InstanceId, RunId, TaskId};
use jiff::Timestamp;
use std::sync::Arc;

/// A recorded fact about one run.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The run exists. Always the first event.
    RunCreated(Arc<RunHeader>),
    /// The run left the queue.
    RunStarted {
        /// When: `dagrun_timeout` counts from here.
        at: Timestamp,
    },
    /// A new process took the run over. Attempts that were going on under older epochs become `Unknown`.
    RunResumed {
        /// Larger than every epoch before.
        epoch: u64,
    },
    /// An instance's trigger rule is met; it waits for slots.
    TaskScheduled {
        /// Which.
        instance: InstanceId,
    },
    /// A mapped task knows its items; its instances 0..items.len() replace the unexpanded one. Empty: the task is skipped.
    TaskExpanded {
        /// Which.
        task: TaskId,
        /// One JSON text an item.
        items: Vec<Arc<str>>,
    },
    /// A worker took the instance.
    AttemptStarted {
        /// Which.
        instance: InstanceId,
        /// From 1.
        try_number: u32,
        /// The epoch of the process that runs it.
        epoch: u64,
        /// When: a sensor's time-out counts from its first look.
        at: Timestamp,
    },
    /// Statements that commit together have committed.
    SegmentCommitted {
        /// Which.
        instance: InstanceId,
        /// Of the attempt that committed it.
        try_number: u32,
        /// What was committed, and the evidence.
        commit: Arc<SegmentCommit>,
    },
    /// The attempt did all its work.
    AttemptSucceeded {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// The result for downstream tasks (Airflow's XCom `return_value`), JSON.
        result: Option<Arc<str>>,
        /// For a branch: the direct downstreams to follow; the others are skipped.
        follow: Option<Vec<TaskId>>,
    },
    /// The attempt did all its work in a transaction that others go on with: done, and not committed. `AttemptSucceeded` follows when the
    /// transaction commits, `GroupRolledBack` when it does not.
    AttemptHeld {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What ran.
        statements: Arc<[StatementRecord]>,
        /// The result for tasks behind it, JSON.
        result: Option<Arc<str>>,
    },
    /// A transaction that several tasks share was rolled back: nothing of them took effect.
    GroupRolledBack {
        /// The task that would have committed it.
        group: TaskId,
        /// Members whose work is undone.
        members: Vec<InstanceId>,
        /// Why.
        failure: Arc<Failure>,
        /// False when it is run again, from its first task on.
        is_final: bool,
    },
    /// A sensor's condition does not hold yet; it holds no slot until then.
    AttemptDeferred {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// When to look again.
        until: Timestamp,
    },
    /// The attempt failed, and it is known that nothing after its last `SegmentCommitted` took effect.
    AttemptFailed {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What happened.
        failure: Arc<Failure>,
        /// False when a retry follows.
        is_final: bool,
    },
    /// The attempt ended without an answer: its next segment may or may not have committed.
    AttemptUnknown {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What happened.
        failure: Arc<Failure>,
    },
    /// It is known now what the attempt committed (all of it is in `SegmentCommitted` events), and that it can commit no more.
    UnknownResolved {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// How it is known.
        evidence: Evidence,
    },
    /// A failed attempt will be tried again.
    RetryScheduled {
        /// Which.
        instance: InstanceId,
        /// Not before.
        at: Timestamp,
    },
    /// The wait of a retry or of a deferred sensor is over; the instance waits for slots again.
    TimerFired {
        /// Which.
        instance: InstanceId,
    },
    /// The instance will not run, by choice.
    TaskSkipped {
        /// Which.
        instance: InstanceId,
        /// Whose choice.
        cause: SkipCause,
    },
    /// The instance cannot run, because of an upstream.
    TaskUpstreamFailed {
        /// Which.
        instance: InstanceId,
    },
    /// A callback must run. Follows the event it is about, in the same append.
    CallbackScheduled {
        /// Which.
        callback: CallbackId,
    },
    /// A callback ran, well or not. Its failure changes no task's state.
    CallbackFinished {
        /// Which.
        callback: CallbackId,
        /// Why it did not succeed.
        failure: Option<Arc<Failure>>,
    },
    /// A person acted on the run.
    OperatorActed {
        /// Who, as the operating system or the API knows them.
        who: String,
        /// Why, in their words.
        why: String,
        /// What they did, in a sentence.
        what: String,
    },
    /// The run shall end; running attempts are cancelled, the others skipped.
    CancelRequested {
        /// Why: a signal, a person, the run's time-out.
        reason: String,
        /// What kind of reason; it decides how the run ends.
        cause: CancelCause,
    },
    /// Nothing can go on before a person resolves what is in doubt. Not terminal.
    RunStuck {
        /// The instances in doubt.
        instances: Vec<InstanceId>,
    },
    /// A run that was over is queued again. The only event that changes a terminal state; always in the append of an `OperatorActed`,
    /// behind it. `RunStarted` follows when a process takes the run: `dagrun_timeout` counts from there.
    RunReopened,
    /// Instances go back to the beginning: they wait for their trigger rules again, and their failures count no more. Try numbers go
    /// on, so that no attempt has the marker keys of an earlier one.
    InstancesCleared {
        /// Which: those a person named, and those that were only skipped or upstream_failed because of them.
        instances: Vec<InstanceId>,
        /// What becomes of the segments that they have committed.
        restart: Restart,
    },
    /// A mapped task all of whose instances were cleared finds its items anew: its unexpanded instance stands for it again.
    TaskUnexpanded {
        /// Which.
        task: TaskId,
        /// How many instances it had.
        count: u32,
    },
    /// A person set the outcome of an instance. It says nothing of what took effect: the segments that are known stay as they are.
    InstanceMarked {
        /// Which.
        instance: InstanceId,
        /// As what.
        mark: Mark,
    },
    /// The attempt that is going on shall end; the rest of the run goes on.
    InstanceCancelRequested {
        /// Which.
        instance: InstanceId,
        /// Why, in a person's words.
        reason: String,
        /// What becomes of the instance once the outcome of its attempt is known.
        then: Afterwards,
    },
    /// A task that updates assets has succeeded. Follows its `AttemptSucceeded`, in the same append.
    AssetsUpdated {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// By name.
        assets: Vec<Arc<str>>,
    },
    /// At the usual speed the run will miss a deadline. Once a deadline.
    DeadlineAtRisk {
        /// From 0, in the order of the DAG's deadlines.
        deadline: u32,
        /// When the run must be done.
        due_at: Timestamp,
        /// When it is expected to be, as half of its past runs were.
        done_at: Timestamp,
    },
    /// The run is not done, and a deadline has passed. Once a deadline.
    DeadlineMissed {
        /// From 0, in the order of the DAG's deadlines.
        deadline: u32,
        /// When the run had to be done.
        due_at: Timestamp,
    },
    /// From here on the run goes on with these sources: behind `RunCreated` with those that it begins with, where variables belong to them;
    /// later with others that a person wanted. What committed before stays.
    RunPinned {
        /// The digest of the DAG's sources, as in [`RunHeader::version`].
        version: String,
        /// The digest of the variables that its templates see, by which the store keeps them; `None` where nothing is kept of them.
        variables: Option<Arc<str>>,
    },
    /// What an attempt does or did on its server is not as it usually is. Nothing follows from it: it is for people.
    AnomalyNoticed {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// What is unusual.
        anomaly: Anomaly,
    },
    /// Terminal: every effective leaf succeeded or was skipped.
    RunSucceeded,
    /// Terminal: an effective leaf failed, or the run went over its `dagrun_timeout`.
    RunFailed,
    /// Terminal: ended by a `CancelRequested` that somebody asked for.
    RunCancelled,
}

/// Where a cleared instance begins again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// With its first segment. What it committed is forgotten: whoever clears it asks for its effects once more.
    Beginning,
    /// Behind the last segment that it committed, as a retry does.
    LastCommit,
}

/// An outcome that a person sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Its downstreams go on as if it had succeeded.
    Success,
    /// Its downstreams go on as if it had failed.
    Failed,
}

/// What becomes of an instance once its cancelled attempt has ended. An attempt that ended well before the cancel reached it has
/// succeeded: then `Fail` changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It has failed, without a retry.
    Fail,
    /// It is cleared.
    Clear(Restart),
    /// It is marked.
    Mark(Mark),
}

/// What made a run end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelCause {
    /// A person, a program or a signal: the run ends as cancelled.
    Asked,
    /// It went over its `dagrun_timeout`: the run ends as failed.
    DagrunTimeout,
}

/// What a run is.
#[derive(Clone, Debug, PartialEq)]
pub struct RunHeader {
    /// Unique in the world.
    pub run_id: RunId,
    /// The DAG, by name: the structure itself is pinned by `version`.
    pub dag_id: crate::DagId,
    /// The project it stands in, and with whose connections it goes on; absent for runs made before this was kept.
    pub project: Option<RunProject>,
    /// The digest of the DAG's sources, by which the store keeps them. Of a run that goes on with others, in every fold the last ones.
    pub version: String,
    /// The date the run is about; absent for a manual run without one.
    pub logical_date: Option<Timestamp>,
    /// The span of data the run is about.
    pub data_interval: Option<(Timestamp, Timestamp)>,
    /// When somebody asked for the run.
    pub queued_at: Timestamp,
    /// What asked for it.
    pub run_type: RunType,
    /// Typed parameters with defaults applied, a JSON object.
    pub params: Arc<str>,
    /// When not empty, only these tasks run; the others are absent from the run as if removed.
    pub only_tasks: Vec<TaskId>,
    /// The run rolls back what it can and commits nothing.
    pub dry_run: bool,
    /// What made it, where that was another run.
    pub cause: Option<Cause>,
}

/// The project that a run stands in. Another one of the same name, or with the same files, has other databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunProject {
    /// Its name when the run was made.
    pub name: Arc<str>,
    /// Its folder then.
    pub root: Arc<str>,
}

/// What made a run, where that was neither a person nor the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A `dag` task of another run.
    Task {
        /// That run.
        run: RunId,
        /// The task instance.
        instance: InstanceId,
        /// How many runs led here, one by the other; 1 when a person or the time made that run.
        depth: u32,
    },
    /// Updates of assets.
    Assets {
        /// Those that it stands for, the oldest first.
        updates: Vec<AssetUpdate>,
        /// The place of the last update that it stands for, in the order in which the store was told of them.
        until: u64,
    },
}

/// An asset that a task updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetUpdate {
    /// Its name.
    pub asset: Arc<str>,
    /// The run that updated it.
    pub run: RunId,
    /// The task instance.
    pub instance: InstanceId,
    /// When.
    pub at: Timestamp,
}

/// Airflow's run types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunType {
    /// By a person or a program.
    Manual,
    /// By the DAG's timetable.
    Scheduled,
    /// By a backfill.
    Backfill,
    /// By an update of assets.
    AssetTriggered,
}

/// Statements that committed together.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentCommit {
    /// From 0 within the task.
    pub segment: u32,
    /// SHA-256 of the rendered statements and their parameters, hex.
    pub digest: String,
    /// What the database promises for this segment.
    pub promise: Promise,
    /// How it is known that it committed.
    pub evidence: Evidence,
    /// One a statement, in order. Empty when the commit was found by its marker after a crash.
    pub statements: Vec<StatementRecord>,
    /// The result kept from this segment, JSON.
    pub result: Option<Arc<str>>,
}

/// What a database can promise for a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Marked in the same transaction: takes effect once or not at all.
    ExactlyOnce,
    /// It changes nothing, so that running it again does no harm.
    ReadOnly,
    /// Not transactional; the reason in words ("MariaDB commits DDL implicitly").
    AtLeastOnce(String),
}

/// One statement, as it ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRecord {
    /// From 1 within the script.
    pub number: u32,
    /// Its first line in the source file, from 1.
    pub line: u32,
    /// Its first words, for people; at most 80 characters.
    pub summary: String,
    /// From sending it to its last answer, in microseconds.
    pub duration_us: u64,
    /// Rows changed, as the server tells.
    pub rows_affected: Option<u64>,
    /// Rows received.
    pub rows_returned: u64,
    /// What the server said on the way; bounded.
    pub notices: Vec<String>,
}

/// How an outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The server acknowledged the commit.
    Acknowledged,
    /// The marker row is there.
    Marker,
    /// A tombstone holds the marker's key: the old transaction can never commit.
    Tombstone,
    /// The segment only reads.
    ReadOnly,
    /// The author allowed to run it again (`delivery: at_least_once`).
    Allowed,
    /// A named person says so.
    Operator {
        /// Who.
        who: String,
        /// Why.
        why: String,
        /// True when they say that it took effect.
        took_effect: bool,
    },
}

/// Why an attempt failed. A user's error says what, where and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub class: FailureClass,
    /// What was tried and what happened, in a sentence. Never a secret.
    pub message: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
    /// Where in the user's sources.
    pub place: Option<Place>,
    /// Of the database, where it has one.
    pub sqlstate: Option<String>,
    /// The driver's own code, as text.
    pub native_code: Option<String>,
    /// What was committed before, and what was not, in a sentence.
    pub effect: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Statements that ran in the segment that failed.
    pub statements: Vec<StatementRecord>,
}

/// What kind of failure, for retry and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureClass {
    /// May go better next time: deadlock, serialization, lost connection, server starting.
    Transient,
    /// Will fail again unless something is changed. Retried all the same while tries are left, as Airflow does.
    Permanent,
    /// Fails for good: no retry (Airflow's AirflowFailException; a script changed after a part of it committed).
    Final,
    /// Ended by a person, a signal or the end of the run. No retry.
    Cancelled,
    /// Over its execution time-out. Retried.
    TimedOut,
    /// Its process died or was killed before it could say. Does not use up a retry.
    Interrupted,
}

/// A place in the user's sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Relative to the project folder.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// From 1 within the script, where it is about a statement.
    pub statement: Option<u32>,
}

/// Who chose that an instance is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipCause {
    /// Its trigger rule, from its upstreams' states.
    TriggerRule,
    /// A branch task that went elsewhere.
    Branch(TaskId),
    /// The task itself, in these words.
    Own(String),
    /// Its list of items was empty.
    NothingToMap,
    /// The run was cancelled before it started.
    RunCancelled,
}

/// Names a callback: what it is about, and its place in that list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallbackId {
    /// The instance it is about; `None` for the run as a whole.
    pub instance: Option<InstanceId>,
    /// The try it is about; for the run as a whole, how often it was reopened before; for deadlines, how many were told of before; for a run
    /// that is stuck, how often it was so before.
    pub try_number: u32,
    /// On what occasion.
    pub occasion: Occasion,
    /// From 0, in the occasion's list.
    pub place: u32,
}

/// When callbacks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Occasion {
    /// Final failure.
    Failure,
    /// A failure that will be retried.
    Retry,
    /// Success.
    Success,
    /// A deadline that is missed, or will be. Of the run as a whole.
    Deadline,
    /// The run waits for a person to say what became of an attempt. Of the run as a whole.
    Stuck,
}

/// How a statement differs from what it did in earlier runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Its number in the script.
    pub statement: u32,
    /// In what.
    pub unusual: Unusual,
    /// This time: milliseconds, or rows.
    pub seen: u64,
    /// What is usual: of times, what 95 of 100 do not pass; of rows, what half of them do not pass.
    pub usual: u64,
    /// How many earlier ones are known.
    pub of: u32,
}

/// In what a statement is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unusual {
    /// It takes longer, by a margin.
    Slow,
    /// It touched no rows, and always did before.
    NoRows,
    /// It touched far fewer rows than ever.
    FewRows,
    /// It touched far more rows than ever.
    ManyRows,
}

impl std::fmt::Display for Anomaly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { statement, unusual, seen, usual, of } = self;
        let seconds = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
        match unusual {
            Unusual::Slow => write!(
                f,
                "statement {statement} takes longer than usual: {}, and 95 of 100 took {} at most (of {of})",
                seconds(*seen),
                seconds(*usual)
            ),
            Unusual::NoRows => write!(f, "statement {statement} touched no rows; usually {usual} (of {of})"),
            Unusual::FewRows => write!(f, "statement {statement} touched {seen} rows, far fewer than usual: {usual} (of {of})"),
            Unusual::ManyRows => write!(f, "statement {statement} touched {seen} rows, far more than usual: {usual} (of {of})"),
        }
    }
}
