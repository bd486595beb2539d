//! By when a run must be done, while it is driven: told once when it will probably be missed, and once when it is.

use crate::engine::Engine;
use crate::run::Error;
use backstop_core::event::{RunHeader, RunType};
use backstop_core::timetable::deadline::outlook;
use backstop_core::timetable::{Moments, Outlook, PastDurations};
use backstop_core::{Command, RunPhase};
use backstop_project::definition::Definition;
use backstop_store::{RunFilter, Store};
use jiff::Timestamp;
use std::time::Duration;

/// Past runs that are looked at.
const RUNS_MAX: u32 = 100;

/// How long the last runs of a DAG took, those that went well and did all of its tasks. Read only where a deadline asks for it.
pub(crate) async fn past(store: &dyn Store, definition: &Definition) -> Result<Option<PastDurations>, backstop_store::Error> {
    if definition.deadlines.is_empty() {
        return Ok(None);
    }
    let filter = RunFilter { dag: Some(definition.dag.id().clone()), limit: RUNS_MAX, ..RunFilter::default() };
    let rows = store.runs(&filter).await?;
    let is_whole = |header: &RunHeader| !header.dry_run && header.only_tasks.is_empty();
    let whole = rows.iter().filter(|row| row.state == RunPhase::Succeeded.as_str() && is_whole(&row.header));
    let took = whole.filter_map(|row| Duration::try_from(row.ended_at?.duration_since(row.started_at?)).ok());
    Ok(PastDurations::of(&mut took.collect::<Vec<_>>()))
}

/// When a run was to begin: for a timetable's, the end of its data interval is the time of its tick.
fn planned_at(header: &RunHeader) -> Timestamp {
    match (header.run_type, header.data_interval) {
        (RunType::Scheduled, Some((_, end))) => end,
        (RunType::Scheduled | RunType::Manual | RunType::Backfill | RunType::AssetTriggered, _) => header.queued_at,
    }
}

impl Engine {
    /// Tells what there is to tell of the deadlines now, and gives when to look again.
    pub(crate) async fn tell_deadlines(&mut self) -> Result<Option<Timestamp>, Error> {
        let definition = self.shared.definition.clone();
        let header = self.shared.header.clone();
        if definition.deadlines.is_empty() || header.dry_run || self.state.phase().is_terminal() {
            return Ok(None);
        }
        let now = self.shared.clock.now();
        let started_at = self.state.started_at();
        let moments = Moments {
            planned_at: planned_at(&header),
            logical_date: header.logical_date,
            queued_at: header.queued_at,
            started_at,
        };
        let mut next: Option<Timestamp> = None;
        for (number, deadline) in (0..).zip(&definition.deadlines) {
            let Some(due_at) = deadline.due_at(&moments).filter(|_| !self.state.is_told(number, true)) else { continue };
            let told = match outlook(now, started_at.unwrap_or(now), self.past.as_ref(), due_at) {
                Some(Outlook::Missed) => Some((None, format!("the run is not done, and its deadline {due_at} has passed"))),
                Some(Outlook::Likely { done_at }) if !self.state.is_told(number, false) => Some((
                    Some(done_at),
                    format!("the run will probably miss its deadline {due_at}: half of its past runs took until {done_at}"),
                )),
                Some(Outlook::Likely { .. } | Outlook::Possible { .. }) | None => None,
            };
            if !matches!(told, Some((None, _))) {
                next = Some(next.map_or(due_at, |next| next.min(due_at)));
            }
            if let Some((done_at, text)) = told {
                self.alerts.push(text);
                self.command(Command::TellDeadline { deadline: number, due_at, done_at }).await?;
            }
        }
        Ok(next)
    }
}
