//! What is asked of runs, why they wait, and how the service is, as machines read it.

use backstop_runtime::repin::Differing;
use backstop_runtime::service::settings::Kept;
use backstop_runtime::service::{DoneToRun, Files, TaskAccount};
use backstop_runtime::slots::{PoolUse, Shortage};
use backstop_store::{ActRow, InstanceRow};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// Task instances that an action is about.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Acted {
    pub(crate) run_id: String,
    /// Nothing was done: this is what would be.
    pub(crate) dry_run: bool,
    /// Such as `load`, or `load[3]` of a mapped task.
    pub(crate) instances: Vec<String>,
    /// Where the files as they are now differ from those that the run has, or had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<FilesDiffer>,
    /// This run and the others, where `past` or `future` was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) runs: Vec<ActedOnRun>,
}

/// How the files of a run's DAG as they are now differ from those that the run has, or had.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FilesDiffer {
    /// The version that the run had.
    pinned: String,
    /// The version that the files are now.
    current: String,
    /// The run goes on with the files as they are now.
    taken: bool,
    /// Tasks whose SQL differs, at most 100.
    tasks: Vec<String>,
    /// Files that differ, at most 100.
    files: Vec<String>,
    /// In a sentence.
    told: String,
}

impl From<&(Differing, Files)> for FilesDiffer {
    fn from((differing, files): &(Differing, Files)) -> Self {
        let told = match files {
            Files::Pinned => format!(
                "the files have changed: {differing}; the run goes on with those that it has (`\"files\": \"current\"` takes the new ones)"
            ),
            Files::Current => format!("the run goes on with the files as they are now: {differing}"),
        };
        Self {
            pinned: differing.pinned.clone(),
            current: differing.current.clone(),
            taken: *files == Files::Current,
            tasks: differing.tasks.iter().map(ToString::to_string).collect(),
            files: differing.files.clone(),
            told,
        }
    }
}

/// Runs of a DAG that an action is about. Those without a task that is meant are left out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActedOnRuns {
    pub(crate) dag: String,
    /// Nothing was done: this is what would be.
    pub(crate) dry_run: bool,
    /// The earliest date first.
    pub(crate) runs: Vec<ActedOnRun>,
}

/// What an action is about in one run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActedOnRun {
    pub(crate) run_id: String,
    /// What it is about.
    #[schema(required)]
    logical_date: Option<Timestamp>,
    /// Such as `load`, or `load[3]` of a mapped task. None, and not refused: all of it is so already.
    pub(crate) instances: Vec<String>,
    /// Why nothing was done to this run.
    #[schema(required)]
    refused: Option<String>,
    /// Where the files as they are now differ from those that the run has, or had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<FilesDiffer>,
}

impl From<&DoneToRun> for ActedOnRun {
    fn from(done: &DoneToRun) -> Self {
        let (instances, files, refused) = match &done.outcome {
            Ok(done) => {
                let instances = done.instances.iter().map(ToString::to_string).collect();
                (instances, done.files.as_ref().map(FilesDiffer::from), None)
            }
            Err(why) => (Vec::new(), None, Some(why.clone())),
        };
        Self { run_id: done.run.to_string(), logical_date: done.logical_date, instances, refused, files }
    }
}

/// A task instance of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskInstance {
    /// Its task.
    task: String,
    /// Which instance of a mapped task, from 0.
    #[schema(required)]
    map_index: Option<u32>,
    /// Where it is.
    #[schema(value_type = super::names::InstanceState)]
    state: String,
    /// Its last try, 0 before the first.
    try_number: u32,
    /// Of the last try.
    #[schema(required)]
    started_at: Option<Timestamp>,
    /// Of the last try; of an instance that will not run, when that was decided.
    #[schema(required)]
    ended_at: Option<Timestamp>,
    /// The last failure's message, also after a later try went well.
    #[schema(required)]
    error: Option<String>,
}

impl From<InstanceRow> for TaskInstance {
    fn from(row: InstanceRow) -> Self {
        Self {
            task: row.instance.task.to_string(),
            map_index: row.instance.map_index,
            state: super::instance_state(&row.state).to_owned(),
            try_number: row.try_number,
            started_at: row.started_at,
            ended_at: row.ended_at,
            error: row.error,
        }
    }
}

/// Why a task instance does not run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstanceWhy {
    pub(crate) run_id: String,
    pub(crate) task: String,
    /// Which instance of a mapped task, from 0.
    #[schema(required)]
    pub(crate) map_index: Option<u32>,
    /// In a sentence.
    pub(crate) why: String,
}

/// How a run stands, and why its instances do not run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunWhy {
    pub(crate) run_id: String,
    /// Where it is.
    #[schema(value_type = super::names::RunState)]
    pub(crate) state: String,
    /// In a sentence.
    pub(crate) why: String,
    /// Its task instances that are not done, or, of a run that is over, that failed, at most 100 of them; of one task that is asked for all
    /// of them.
    pub(crate) tasks: Vec<TaskWhy>,
    /// How many more there are.
    pub(crate) more: usize,
}

/// Why a task instance does not run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskWhy {
    task: String,
    /// Which instance of a mapped task, from 0.
    #[schema(required)]
    map_index: Option<u32>,
    /// Where it is.
    #[schema(value_type = super::names::InstanceState)]
    state: String,
    /// In a sentence.
    why: String,
    /// The slots it waits for; null when it waits for something else.
    #[schema(required)]
    slots: Option<Slots>,
}

impl From<TaskAccount> for TaskWhy {
    fn from(account: TaskAccount) -> Self {
        Self {
            task: account.instance.task.to_string(),
            map_index: account.instance.map_index,
            state: super::instance_state(&account.phase).to_owned(),
            why: account.why,
            slots: account.shortage.as_ref().map(Slots::from),
        }
    }
}

/// Slots, or a session, that a task instance waits for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AwaitedSlots)]
struct Slots {
    /// The pool that is full; null when as many tasks as may go on at once are going on, and where a connection is named.
    #[schema(required)]
    pool: Option<String>,
    /// The connection whose sessions are all in use.
    #[schema(required)]
    connection: Option<String>,
    /// Slots or sessions in use.
    used: u32,
    /// How many there are.
    size: u32,
    /// How many the instance wants.
    wanted: u32,
    /// Who has them; some of them, when they are many.
    holders: Vec<Holder>,
    /// How many wait too, in front of it or not.
    waiting: usize,
    /// How many go before it, as things stand.
    ahead: usize,
}

impl From<&Shortage> for Slots {
    fn from(shortage: &Shortage) -> Self {
        let holders = shortage.holders.iter();
        Self {
            pool: shortage.pool.as_deref().map(str::to_owned),
            connection: shortage.connection.clone(),
            used: shortage.used,
            size: shortage.size,
            wanted: shortage.wanted,
            holders: holders
                .map(|claim| Holder { run_id: claim.run.to_string(), task: claim.instance.to_string(), slots: claim.slots })
                .collect(),
            waiting: shortage.waiting,
            ahead: shortage.ahead,
        }
    }
}

/// Who has slots.
#[derive(Debug, Serialize, ToSchema)]
struct Holder {
    run_id: String,
    /// Such as `load`, or `load[3]` of a mapped task.
    task: String,
    slots: u32,
}

/// A pool of slots.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pool {
    /// Its name.
    pool: String,
    /// Its size; null is without limit.
    #[schema(required)]
    slots: Option<u32>,
    /// Slots in use.
    used: u32,
    /// Instances that wait for it.
    waiting: usize,
    /// In the words of who set it.
    #[schema(required)]
    description: Option<String>,
    /// It was set here, before what backstop.yaml says.
    set: bool,
}

impl Pool {
    pub(crate) fn new(pool: PoolUse, kept: &Kept) -> Self {
        let set = kept.pools.get(&pool.name);
        Self {
            slots: pool.slots,
            used: pool.used,
            waiting: pool.waiting,
            description: set.and_then(|set| set.description.clone()),
            set: set.is_some(),
            pool: pool.name,
        }
    }
}

/// Something that somebody did to other things than one run.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Act {
    /// Grows.
    seq: u64,
    /// When.
    at: Timestamp,
    /// Who, as they said.
    who: String,
    /// In their words; may be empty.
    why: String,
    /// In a sentence.
    what: String,
}

impl From<ActRow> for Act {
    fn from(row: ActRow) -> Self {
        Self { seq: row.seq, at: row.act.at, who: row.act.who, why: row.act.why, what: row.act.what }
    }
}

/// How the service is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// What cannot take work is not healthy, and answers 503.
    pub(crate) status: Status,
    /// Of Backstop.
    pub(crate) version: &'static str,
    /// DAGs that ran before, and that cannot be loaded because of what is wrong with their project: nothing of them begins.
    pub(crate) dags_not_loaded: usize,
}

/// How the service is, in a word.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
}
