//! A backfill, and what it would do.

use backstop_core::backfill::Verdict;
use backstop_runtime::Redactor;
use backstop_runtime::service::backfill::{self, Planned, ShownBackfill, Wish};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::borrow::Cow;
use utoipa::ToSchema;

/// A backfill.
#[derive(Debug, Serialize, ToSchema)]
pub struct Backfill<'a> {
    backfill_id: &'a str,
    dag: &'a str,
    /// `running`, `paused`, `cancelling`, `cancelled`, `done`.
    state: &'static str,
    from: Timestamp,
    to: Timestamp,
    /// `none`, `failed`, `completed`: what becomes of dates that have a run.
    reprocess: &'static str,
    reverse: bool,
    max_active_runs: u32,
    /// As they were given; `***` stands for secrets.
    #[schema(value_type = BTreeMap<String, Value>)]
    params: Value,
    who: Cow<'a, str>,
    reason: Cow<'a, str>,
    asked_at: Timestamp,
    #[schema(required)]
    ended_at: Option<Timestamp>,
    progress: Progress,
    /// The last date that was decided.
    #[schema(required)]
    came_to: Option<Timestamp>,
    /// Its runs that are not over.
    active: Vec<String>,
    /// Why it is not further.
    why: &'a str,
}

/// Dates, by what became of them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackfillProgress)]
struct Progress {
    total: usize,
    /// Their runs succeeded.
    done: usize,
    /// Their runs failed or were cancelled.
    failed: usize,
    /// Their runs are not over.
    running: usize,
    /// They were not come to.
    waiting: usize,
    /// They had a run, and were left as they are.
    left: usize,
}

impl<'a> Backfill<'a> {
    /// As it is kept, but for secrets.
    pub(crate) fn new(shown: &'a ShownBackfill, redactor: &Redactor) -> Self {
        let backfill = &shown.backfill;
        let state = match (backfill.wish, backfill.ended_at.is_some()) {
            (Wish::Cancel, true) => "cancelled",
            (Wish::Cancel, false) => "cancelling",
            (Wish::Run | Wish::Pause, true) => "done",
            (Wish::Run, false) => "running",
            (Wish::Pause, false) => "paused",
        };
        Self {
            backfill_id: &shown.id,
            dag: &backfill.dag,
            state,
            from: backfill.from,
            to: backfill.to,
            reprocess: backfill.reprocess().as_str(),
            reverse: backfill.reverse,
            max_active_runs: backfill.runs_at_once,
            params: redactor.clean_named(&Value::Object(backfill.params.clone())),
            who: redactor.clean(&backfill.who),
            reason: redactor.clean(&backfill.why),
            asked_at: backfill.asked_at,
            ended_at: backfill.ended_at,
            progress: Progress {
                total: backfill.total,
                done: backfill.succeeded,
                failed: backfill.failed,
                running: backfill.active().len(),
                waiting: backfill.waiting(),
                left: backfill.left,
            },
            came_to: backfill.after,
            active: backfill.active().map(|run| run.to_string()).collect(),
            why: &shown.why,
        }
    }
}

/// What a request for a backfill is answered with that makes none.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it names the two shapes for the OpenAPI document")]
pub(crate) enum Asked {
    Known(Box<Backfill<'static>>),
    Preview(Preview),
}

/// What a backfill would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackfillPreview)]
pub struct Preview {
    dry_run: bool,
    /// Dates there are, listed here or not.
    total: usize,
    items: Vec<PlannedDate>,
    /// For `after`; null is the end.
    #[schema(required)]
    next: Option<Timestamp>,
}

/// What would become of one date.
#[derive(Debug, Serialize, ToSchema)]
// Not named `Date`: the generator takes that for a text.
#[schema(as = BackfillDate)]
struct PlannedDate {
    logical_date: Timestamp,
    data_interval_start: Timestamp,
    data_interval_end: Timestamp,
    /// `run`, `run_again`, `leave`.
    action: &'static str,
    /// The newest run about this date, and its state.
    #[schema(required)]
    existing_run: Option<String>,
    #[schema(required)]
    existing_state: Option<&'static str>,
}

impl From<&backfill::Preview> for Preview {
    fn from(preview: &backfill::Preview) -> Self {
        let items = preview.dates.iter().map(PlannedDate::from).collect();
        Self { dry_run: true, total: preview.total, items, next: preview.next }
    }
}

/// What becomes of a date, and the state of its run.
pub fn action(verdict: Verdict) -> (&'static str, Option<&'static str>) {
    match verdict {
        Verdict::Run => ("run", None),
        Verdict::RunAgain(phase) => ("run_again", Some(phase.as_str())),
        Verdict::Leave(phase) => ("leave", Some(phase.as_str())),
    }
}

impl From<&Planned> for PlannedDate {
    fn from(planned: &Planned) -> Self {
        let (action, existing_state) = action(planned.verdict);
        Self {
            logical_date: planned.tick.logical_date,
            data_interval_start: planned.tick.data_interval.0,
            data_interval_end: planned.tick.data_interval.1,
            action,
            existing_run: planned.newest.as_ref().map(ToString::to_string),
            existing_state,
        }
    }
}
