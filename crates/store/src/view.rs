//! The rows that lists show. All are projections of the log, see `projection`.

use backstop_core::event::{RunHeader, StatementRecord};
use backstop_core::state::{FIRST_EPOCH, RunPhase};
use backstop_core::{DagId, InstanceId, RunId, TaskId};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run, as lists show it: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// What it is, with the version that it goes on with.
    pub header: Arc<RunHeader>,
    /// The core's name of its phase: `queued`, `running`, `cancelling`, `stuck`, `success`, `failed`, `cancelled`.
    pub state: String,
    /// Set by RunStarted.
    pub started_at: Option<Timestamp>,
    /// Set by a terminal event.
    pub ended_at: Option<Timestamp>,
    /// Callbacks that have not run. A run that is over may have some.
    pub callbacks_pending: u64,
    /// How many events it has.
    pub version: u64,
    /// The owning epoch.
    pub epoch: u64,
}

impl RunRow {
    /// Of a run that was just made: as its first event makes it.
    pub fn made(header: Arc<RunHeader>) -> Self {
        let state = RunPhase::Queued.as_str().to_owned();
        Self { header, state, started_at: None, ended_at: None, callbacks_pending: 0, version: 1, epoch: FIRST_EPOCH }
    }

    /// Whether nothing is left to do: the run is over, and its callbacks have run. As the core's `RunState::is_finished`.
    pub fn is_finished(&self) -> bool {
        self.ended_at.is_some() && self.callbacks_pending == 0
    }
}

/// A task instance, as lists show it: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceRow {
    /// Which.
    pub instance: InstanceId,
    /// Airflow's name of its state (`none`, `scheduled`, `running`, `deferred`, `up_for_retry`, `success`, `failed`, `skipped`,
    /// `upstream_failed`), `in_doubt`, and in a transaction `done_not_committed` and `rolled_back`.
    pub state: String,
    /// The last try, 0 before the first.
    pub try_number: u32,
    /// Of the last try; of one that looks again and again, when it looked first.
    pub started_at: Option<Timestamp>,
    /// Of the last try; of an instance that will not run, when that was decided.
    pub ended_at: Option<Timestamp>,
    /// The last failure's message, also after a later try went well.
    pub error: Option<String>,
}

/// A statement that ran, with the attempt it belongs to: a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct StatementRow {
    /// Which instance.
    pub instance: InstanceId,
    /// Which try.
    pub try_number: u32,
    /// Which segment; `None` in a segment that failed, and in a transaction that is not committed.
    pub segment: Option<u32>,
    /// How it ran.
    pub record: StatementRecord,
}

/// What a list of runs is limited to.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only of this DAG.
    pub dag: Option<DagId>,
    /// Only those that something is left to do of: runs that are not over, or whose callbacks have not all run.
    pub unfinished: bool,
    /// Only in this phase.
    pub phase: Option<RunPhase>,
    /// Only those about this time or a later one, to the microsecond. With this or `dates_until`, runs without a logical date are left
    /// out, and the list is in the order of logical dates, the latest first.
    pub dates_from: Option<Timestamp>,
    /// Only those about this time or an earlier one.
    pub dates_until: Option<Timestamp>,
    /// Only those behind this run (a cursor) in the list's order.
    pub before: Option<RunId>,
    /// At most so many; 0 is 100.
    pub limit: u32,
}

impl RunFilter {
    /// The limit in force.
    pub(crate) fn rows_max(&self) -> usize {
        if self.limit == 0 { 100 } else { self.limit as usize }
    }

    /// The first and the last date wanted, in microseconds; `None` when dates do not matter.
    pub(crate) fn dates(&self) -> Option<(i64, i64)> {
        let micros = |date: Option<Timestamp>, missing| date.map_or(missing, Timestamp::as_microsecond);
        (self.dates_from.is_some() || self.dates_until.is_some())
            .then(|| (micros(self.dates_from, i64::MIN), micros(self.dates_until, i64::MAX)))
    }
}

/// What a list of task instances over many runs is limited to. It goes by run, the newest first, and within a run by task and map index.
#[derive(Clone, Debug, Default)]
pub struct InstanceFilter {
    /// Only of this run, which must be there.
    pub run: Option<RunId>,
    /// Only of this DAG.
    pub dag: Option<DagId>,
    /// Only of this task.
    pub task: Option<TaskId>,
    /// Only in this state, see [`InstanceRow::state`].
    pub state: Option<String>,
    /// Only those behind this place.
    pub after: Option<InstanceCursor>,
    /// At most so many; 0 is 100.
    pub limit: u32,
}

impl InstanceFilter {
    /// The limit in force.
    pub(crate) fn rows_max(&self) -> usize {
        if self.limit == 0 { 100 } else { self.limit as usize }
    }
}

/// A place in a list of task instances. The instance need not be there (any more).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceCursor {
    /// The run; it must be there.
    pub run: RunId,
    /// The instance within it.
    pub instance: InstanceId,
}

/// A page of task instances.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InstancePage {
    /// Each with its run and DAG.
    pub rows: Vec<(RunId, DagId, InstanceRow)>,
    /// Where to go on; `None` when nothing is left. A page may have fewer rows than its limit, also none, and yet not be the last: a
    /// store looks at [`LOOKED_AT_MAX`] instances and [`RUNS_LOOKED_AT_MAX`] runs for one page, so that no list takes long.
    pub next: Option<InstanceCursor>,
}

/// What a list of the statements of a run is limited to. It is in the order in which they ran.
#[derive(Clone, Debug)]
pub struct StatementFilter {
    /// Whose.
    pub run: RunId,
    /// Only of this task.
    pub task: Option<TaskId>,
    /// Only those behind this place.
    pub after: Option<StatementCursor>,
    /// At most so many.
    pub limit: u32,
}

/// A place in the list of a run's statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StatementCursor {
    /// The event that tells of the statement.
    pub seq: u64,
    /// Its place in the event.
    pub place: u32,
}

/// A page of statements.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatementPage {
    /// In the order in which they ran.
    pub rows: Vec<StatementRow>,
    /// Where to go on; `None` when nothing is left. As in [`InstancePage::next`], a page may be short and not the last: a store looks at
    /// [`LOOKED_AT_MAX`] statements for one.
    pub next: Option<StatementCursor>,
}

impl StatementPage {
    /// Fills a page of statements, each with its place, that come in order from behind the filter's cursor.
    pub(crate) fn fill<E>(
        filter: &StatementFilter,
        statements: impl Iterator<Item = Result<(StatementCursor, StatementRow), E>>,
    ) -> Result<Self, E> {
        let mut page = Self::default();
        for (looked_at, found) in statements.enumerate() {
            let (place, row) = found?;
            if filter.task.as_ref().is_none_or(|task| *task == row.instance.task) {
                page.rows.push(row);
            }
            if page.rows.len() >= filter.limit as usize || looked_at + 1 >= LOOKED_AT_MAX {
                page.next = Some(place);
                break;
            }
        }
        Ok(page)
    }
}

/// Instances, or statements, that are looked at for one page of a list, at most.
pub const LOOKED_AT_MAX: usize = 10_000;
/// Runs that are looked at for one page of a list of instances, or for how long a task took, at most.
pub const RUNS_LOOKED_AT_MAX: usize = 250;
/// Task instances that a grid reads, at most, but for its first run.
pub const GRID_INSTANCES_MAX: usize = 20_000;

/// A run with its tasks, as a grid shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct GridRow {
    /// The run.
    pub run: RunRow,
    /// Its tasks by name, those that it has instances of.
    pub tasks: Vec<GridTask>,
    /// True when it has more instances than [`GRID_INSTANCES_MAX`], and those behind are left out.
    pub is_cut: bool,
}

/// The instances of one task in one run, as a grid shows them: one, or all of a mapped task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GridTask {
    /// Which.
    pub task: TaskId,
    /// How many instances are in each state, see [`InstanceRow::state`].
    pub states: BTreeMap<String, u32>,
    /// True when it is mapped.
    pub is_mapped: bool,
    /// The highest try.
    pub try_number: u32,
    /// When the first began.
    pub started_at: Option<Timestamp>,
    /// When the last ended; `None` while one is not over.
    pub ended_at: Option<Timestamp>,
}

/// Folds the instances of a run, which come by task and map index, into what a grid shows.
pub(crate) fn fold_grid(tasks: &mut Vec<GridTask>, row: InstanceRow) {
    let InstanceRow { instance, state, try_number, started_at, ended_at, error: _ } = row;
    match tasks.last_mut().filter(|last| last.task == instance.task) {
        Some(last) => {
            *last.states.entry(state).or_default() += 1;
            last.try_number = last.try_number.max(try_number);
            last.started_at = last.started_at.into_iter().chain(started_at).min();
            last.ended_at = last.ended_at.zip(ended_at).map(|(one, other)| one.max(other));
        }
        None => tasks.push(GridTask {
            task: instance.task,
            states: BTreeMap::from([(state, 1)]),
            is_mapped: instance.map_index.is_some(),
            try_number,
            started_at,
            ended_at,
        }),
    }
}

/// Which runs may go. Only runs that are over for good: whose callbacks have run as well. Of each DAG the newest run stays, and the last
/// that succeeded: others look at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneRule {
    /// Runs that ended before this go.
    pub ended_before: Option<Timestamp>,
    /// Of each DAG, runs that are not among the newest so many go, however young.
    pub runs_max: Option<u32>,
    /// Of each DAG, the newest so many stay, however old; one at least.
    pub runs_min: u32,
    /// What ended at this time or later stays whatever the rest says: somebody may still look at it, or wait for it.
    pub never_after: Timestamp,
}

/// Runs of one DAG that are looked at for a list of those that may go, the oldest first.
pub const PRUNABLE_OF_A_DAG_MAX: u32 = 2000;

/// A run that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunableRun {
    /// Which.
    pub run: RunId,
    /// Its DAG.
    pub dag: DagId,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// How many runs `find_runs` gives at most.
pub(crate) const FOUND_RUNS_MAX: usize = 10;

/// When a version of a DAG was in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionUse {
    /// SHA-256 of the sources, hex.
    pub digest: String,
    /// The first run that is pinned to it, and is still there.
    pub first_run: Option<RunId>,
    /// The last.
    pub last_run: Option<RunId>,
}

/// Versions of a DAG that are listed, at most.
pub const VERSIONS_MAX: u32 = 1000;

/// A kept definition: the sources a run is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// SHA-256 of the sources, hex.
    pub digest: String,
    /// The DAG.
    pub dag_id: DagId,
    /// The sources, in the project's own bundle format (opaque here).
    pub bundle: Vec<u8>,
}
