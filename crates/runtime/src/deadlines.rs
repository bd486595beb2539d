//! By when a run must be done: told once when it will probably be missed, and once when it is. While the run is driven its engine tells;
//! while it waits, an engine that does nothing else (`service/deadlines`).

use crate::engine::Engine;
use crate::run::Error;
use backstop_core::event::{RunHeader, RunType};
use backstop_core::state::DeadlineTold;
use backstop_core::timetable::deadline::outlook;
use backstop_core::timetable::{Deadline, Moments, Outlook, PastDurations};
use backstop_core::{Command, DagId, RunPhase};
use backstop_project::definition::Definition;
use backstop_store::{RunFilter, Store};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Past runs that are looked at.
const RUNS_MAX: u32 = 100;
/// Of a run that waits: so long after the last moment at which it would be done in time it will not be.
const BEHIND: SignedDuration = SignedDuration::from_millis(1);

/// How long the last runs of a DAG took, those that went well and did all of its tasks.
pub(crate) async fn past(store: &dyn Store, dag: &DagId) -> Result<Option<PastDurations>, backstop_store::Error> {
    // Of those that went well: a backlog that waits or fails in front of them does not hide them.
    let filter = RunFilter { dag: Some(dag.clone()), phase: Some(RunPhase::Succeeded), limit: RUNS_MAX, ..RunFilter::default() };
    let rows = store.runs(&filter).await?;
    let is_whole = |header: &RunHeader| !header.dry_run && header.only_tasks.is_empty();
    let whole = rows.iter().filter(|row| is_whole(&row.header));
    let took = whole.filter_map(|row| Duration::try_from(row.ended_at?.duration_since(row.started_at?)).ok());
    Ok(PastDurations::of(&mut took.collect::<Vec<_>>()))
}

/// As [`past`], read only where a deadline asks for it.
pub(crate) async fn past_of(store: &dyn Store, definition: &Definition) -> Result<Option<PastDurations>, backstop_store::Error> {
    if definition.deadlines.is_empty() {
        return Ok(None);
    }
    past(store, definition.dag.id()).await
}

/// When a run was to begin: for a timetable's, the end of its data interval is the time of its tick.
fn planned_at(header: &RunHeader) -> Timestamp {
    match (header.run_type, header.data_interval) {
        (RunType::Scheduled, Some((_, end))) => end,
        (RunType::Scheduled | RunType::Manual | RunType::Backfill | RunType::AssetTriggered, _) => header.queued_at,
    }
}

/// What was told of a deadline, for those who are called.
pub(crate) fn words(told: &DeadlineTold) -> String {
    let due_at = told.due_at;
    match told.done_at {
        None => format!("the run is not done, and its deadline {due_at} has passed"),
        Some(done_at) => {
            format!("the run will probably miss its deadline {due_at}: half of its past runs took until {done_at}")
        }
    }
}

/// The same, for who asks why the run is not further. Empty where nothing was told.
pub(crate) fn sentence(told: &[DeadlineTold]) -> String {
    let missed = told.iter().find(|told| told.done_at.is_none());
    match missed.or(told.last()) {
        Some(DeadlineTold { due_at, done_at: None, .. }) => format!("; it has missed its deadline {due_at}"),
        Some(DeadlineTold { due_at, done_at: Some(_), .. }) => format!("; it will probably miss its deadline {due_at}"),
        None => String::new(),
    }
}

/// What is to be told of the deadlines of a run that is not done, and when to look again. `is_told` says of which it was told, and whether as
/// missed.
pub(crate) fn look(
    deadlines: &[Deadline],
    header: &RunHeader,
    started_at: Option<Timestamp>,
    is_told: impl Fn(u32, Timestamp, bool) -> bool,
    past: Option<&PastDurations>,
    now: Timestamp,
) -> (Vec<DeadlineTold>, Option<Timestamp>) {
    let moments =
        Moments { planned_at: planned_at(header), logical_date: header.logical_date, queued_at: header.queued_at, started_at };
    let (mut told, mut next): (_, Option<Timestamp>) = (Vec::new(), None);
    for (deadline, rule) in (0..).zip(deadlines) {
        let Some(due_at) = rule.due_at(&moments).filter(|due_at| !is_told(deadline, *due_at, true)) else { continue };
        let outlook = outlook(now, started_at.unwrap_or(now), past, due_at);
        let is_foreseen = is_told(deadline, due_at, false);
        match outlook {
            Some(Outlook::Missed) => {
                told.push(DeadlineTold { deadline, due_at, done_at: None });
                continue;
            }
            Some(Outlook::Likely { done_at }) if !is_foreseen => {
                told.push(DeadlineTold { deadline, due_at, done_at: Some(done_at) });
            }
            Some(Outlook::Likely { .. } | Outlook::Possible { .. }) | None => {}
        }
        // One that has not begun is the later done the longer it waits.
        let usual = past.filter(|_| started_at.is_none() && !is_foreseen).map(|past| past.p50);
        let usual = usual.and_then(|usual| SignedDuration::try_from(usual).ok()?.checked_sub(BEHIND));
        let foreseen_at = usual.and_then(|usual| due_at.checked_sub(usual).ok()).filter(|at| *at > now);
        let at = foreseen_at.map_or(due_at, |at| at.min(due_at));
        next = Some(next.map_or(at, |next| next.min(at)));
    }
    (told, next)
}

impl Engine {
    /// Tells what there is to tell of the deadlines now, and gives when to look again.
    pub(crate) async fn tell_deadlines(&mut self) -> Result<Option<Timestamp>, Error> {
        let definition = self.shared.definition.clone();
        let header = self.shared.header.clone();
        if definition.deadlines.is_empty() || header.dry_run || self.state.phase().is_terminal() {
            return Ok(None);
        }
        let is_told = |number, due_at, as_missed| self.state.is_told(number, due_at, as_missed);
        let (started_at, now) = (self.state.started_at(), self.shared.clock.now());
        let (told, next) = look(&definition.deadlines, &header, started_at, is_told, self.past.as_ref(), now);
        for DeadlineTold { deadline, due_at, done_at } in told {
            self.command(Command::TellDeadline { deadline, due_at, done_at }).await?;
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::{Event, RunId};
    use backstop_store::{Append, MemoryStore};
    use std::sync::Arc;

    /// A run that was begun then, took so many seconds if it is over, and ended so.
    async fn ran(store: &MemoryStore, number: u32, end: Option<(i64, Event)>) {
        let run = RunId::new(format!("run-{number:04}"));
        let began = Timestamp::from_second(i64::from(number) * 1_000).unwrap();
        let header = RunHeader {
            run_id: run.clone(),
            dag_id: DagId::new("d"),
            project: None,
            version: String::new(),
            logical_date: None,
            data_interval: None,
            queued_at: began,
            run_type: RunType::Manual,
            params: "{}".into(),
            only_tasks: Vec::new(),
            dry_run: false,
            cause: None,
        };
        let begun = vec![Event::RunCreated(Arc::new(header)), Event::RunStarted { at: began }];
        let append = |events, expected_version, at| Append { run: run.clone(), events, expected_version, epoch: 1, at };
        store.append(append(begun, 0, began)).await.await.unwrap().unwrap();
        if let Some((seconds, end)) = end {
            let ended = began.checked_add(SignedDuration::from_secs(seconds)).unwrap();
            store.append(append(vec![end], 2, ended)).await.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_known_of_the_past_stands_behind_a_backlog_and_failures() {
        let store = MemoryStore::new();
        for number in 0..3 {
            ran(&store, number, Some((60 + i64::from(number), Event::RunSucceeded))).await;
        }
        for number in 3..3 + RUNS_MAX {
            let end = (number % 2 == 0).then_some((5, Event::RunFailed));
            ran(&store, number, end).await;
        }
        let known = past(&store, &DagId::new("d")).await.unwrap();
        let seconds = Duration::from_secs;
        assert_eq!(known, Some(PastDurations { measured: 3, p50: seconds(61), p95: seconds(62) }));
    }
}
