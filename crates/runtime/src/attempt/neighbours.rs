//! What templates see of the runs beside theirs (`prev_start_date_success` and its like). It is looked up once in a run, when that begins,
//! and only where a text of the DAG may want it; what ended later does not count, so that a run that goes on after a crash renders what it
//! rendered before.

use crate::prepared::Prepared;
use backstop_core::event::RunHeader;
use backstop_core::state::RunPhase;
use backstop_store::{RunFilter, RunRow, Store};
use jiff::Timestamp;

/// Runs read at once. The first one is nearly always the one.
const RUNS_AT_ONCE: u32 = 20;
/// Runs looked at. Behind so many that do not count there is taken to be none.
const RUNS_LOOKED_AT_MAX: usize = 1_000;

/// When a run began, and what was beside it then.
#[derive(Clone, Debug)]
pub(crate) struct Began {
    pub(crate) at: Timestamp,
    /// The logical dates of the schedule's ticks before and after its own.
    pub(crate) ticks: (Option<Timestamp>, Option<Timestamp>),
    /// The last run that had succeeded by then.
    pub(crate) success: Option<Success>,
}

/// A run that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Success {
    pub(crate) interval: Option<(Timestamp, Timestamp)>,
    pub(crate) began_at: Option<Timestamp>,
}

impl Began {
    /// Looks up what a run sees that began then.
    ///
    /// # Errors
    /// When the store cannot read.
    pub(crate) async fn look(
        store: &dyn Store,
        prepared: &Prepared,
        header: &RunHeader,
        at: Timestamp,
    ) -> Result<Self, backstop_store::Error> {
        // As the store tells it to the next process.
        let at = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
        let wants = prepared.wants();
        let timetable = prepared.definition.timetable.as_ref().filter(|_| wants.ticks);
        let ticks = timetable.zip(header.logical_date).map_or((None, None), |(timetable, date)| timetable.around(date));
        let success = if wants.success { last_success(store, header, at).await? } else { None };
        Ok(Self { at, ticks, success })
    }
}

/// The last success about an earlier date; for a run without a date, the one that was made last.
async fn last_success(store: &dyn Store, header: &RunHeader, at: Timestamp) -> Result<Option<Success>, backstop_store::Error> {
    let mut filter = RunFilter {
        dag: Some(header.dag_id.clone()),
        phase: Some(RunPhase::Succeeded),
        dates_until: header.logical_date,
        limit: RUNS_AT_ONCE,
        ..RunFilter::default()
    };
    let mut looked_at = 0;
    loop {
        let page = store.runs(&filter).await?;
        if let Some(found) = page.iter().find(|row| counts(row, header, at)) {
            let date = found.header.logical_date;
            let interval = found.header.data_interval.or_else(|| date.map(|date| (date, date)));
            return Ok(Some(Success { interval, began_at: found.started_at }));
        }
        looked_at += page.len();
        if page.len() < RUNS_AT_ONCE as usize || looked_at >= RUNS_LOOKED_AT_MAX {
            return Ok(None);
        }
        filter.before = page.last().map(|row| row.header.run_id.clone());
    }
}

/// Whole runs of the same project, for real.
fn counts(row: &RunRow, header: &RunHeader, at: Timestamp) -> bool {
    let other = &row.header;
    let is_earlier = header.logical_date.is_none_or(|date| other.logical_date.is_some_and(|other| other < date));
    let is_of_another = matches!((&other.project, &header.project), (Some(other), Some(own)) if other.root != own.root);
    other.run_id != header.run_id
        && is_earlier
        && !is_of_another
        && !other.dry_run
        && other.only_tasks.is_empty()
        && row.ended_at.is_some_and(|ended_at| ended_at <= at)
}
