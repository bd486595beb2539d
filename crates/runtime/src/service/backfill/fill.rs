//! Makes the runs of backfills, as many as may go on, and counts those that are over.

use super::kept::{Backfill, Wish};
use super::{Filling, Fillings, newest_about};
use crate::run::Request;
use crate::service::desk::explain;
use crate::service::{Error, Service};
use backstop_core::event::RunType;
use backstop_core::{DagId, RunId, RunPhase, Tick, Timetable};
use backstop_project::{Bundle, params};
use backstop_store::RunRow;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest sleep: a run may have ended in another process, and a DAG may be back.
const SLEEP_MAX: Duration = Duration::from_secs(2);
/// Dates decided before what was decided is kept, and others have their turn.
const DATES_AT_ONCE: usize = 200;
/// What ids of runs are made from.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x6261_636b_7374_6f70_6261_636b_6669_6c6c);

/// The phase of a run by its row.
pub(super) fn phase_of(row: &RunRow) -> Option<RunPhase> {
    RunPhase::ALL.into_iter().find(|phase| phase.as_str() == row.state)
}

impl Service {
    pub(in crate::service) fn fillings(&self) -> MutexGuard<'_, Fillings> {
        // Every change is made whole before anything can panic.
        self.fillings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills until the service stops.
    pub(in crate::service) async fn fill(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        loop {
            let ids: Vec<String> = self.fillings().keys().cloned().collect();
            let mut has_more = false;
            for id in ids {
                if self.is_stopping() {
                    return;
                }
                has_more |= self.fill_one(&id).await;
            }
            let wait = if has_more { Duration::ZERO } else { SLEEP_MAX };
            tokio::select! {
                biased;
                _ = stopping.wait_for(|stopping| *stopping) => return,
                () = self.fill_up.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes one backfill as far as it may go now, in a bounded step. True when the next step may follow at once.
    async fn fill_one(&self, id: &str) -> bool {
        let _one_at_a_time = self.filling.lock().await;
        let known = self.fillings().get(id).map(|filling| (filling.backfill.clone(), filling.timetable.clone()));
        let Some((before, timetable)) = known else { return false };
        let mut backfill = before.clone();
        let stepped = self.step(id, &mut backfill, timetable).await;
        let (has_more, trouble) = match stepped {
            Ok(has_more) => (has_more, None),
            Err(error) => (false, Some(explain(&error))),
        };
        if backfill != before
            && let Err(error) = self.store.put(vec![backfill.entry(id)], None).await
        {
            // What was decided is decided again, and finds the runs that were made.
            self.note_trouble(id, Some(explain(&error)));
            return false;
        }
        let is_over = backfill.ended_at.is_some();
        let mut fillings = self.fillings();
        if is_over {
            fillings.remove(id);
        } else if let Some(filling) = fillings.get_mut(id) {
            *filling = Filling { backfill, trouble, timetable: filling.timetable.take() };
        }
        has_more && !is_over
    }

    fn note_trouble(&self, id: &str, trouble: Option<String>) {
        if let Some(filling) = self.fillings().get_mut(id) {
            filling.trouble = trouble;
        }
    }

    /// Counts what is over, and makes what may be made. What is decided before an error stays decided.
    async fn step(&self, id: &str, backfill: &mut Backfill, timetable: Option<Arc<Timetable>>) -> Result<bool, Error> {
        let active: Vec<RunId> = backfill.active().collect();
        for run in active {
            match self.store.run(&run).await? {
                Some(row) => note_if_over(backfill, &row),
                // It was removed from the store: nobody knows how it ended.
                None => backfill.is_over(&run, false),
            }
        }
        let mut is_at_end = backfill.wish == Wish::Cancel;
        let mut has_more = false;
        if backfill.wish == Wish::Run && !self.is_stopping() && !self.desk().paused.contains(backfill.dag.as_str()) {
            let timetable = match timetable {
                Some(timetable) => timetable,
                None => self.timetable_of(id, backfill).await?,
            };
            for decided in 0.. {
                if backfill.active().len() >= backfill.runs_at_once as usize {
                    break;
                }
                if decided == DATES_AT_ONCE {
                    has_more = true;
                    break;
                }
                let Some(tick) = backfill.span().next(&timetable, backfill.after) else {
                    is_at_end = true;
                    break;
                };
                self.decide(id, backfill, &tick).await?;
                backfill.after = Some(tick.logical_date);
            }
        }
        if is_at_end && backfill.active().len() == 0 {
            backfill.ended_at = Some(self.clock.now());
        }
        Ok(has_more)
    }

    /// Makes the run of a date, or leaves it.
    async fn decide(&self, id: &str, backfill: &mut Backfill, tick: &Tick) -> Result<(), Error> {
        let dag = DagId::new(backfill.dag.as_str());
        let run = run_id(id, tick);
        // A process that died may have made it, and not noted that it had.
        if let Some(row) = self.store.run(&run).await? {
            backfill.goes_on(&run);
            note_if_over(backfill, &row);
            return Ok(());
        }
        // Who asks for a run of this date at the same time is asked before or after.
        let _one_at_a_time = self.dates.lock().await;
        let newest = newest_about(&*self.store, &dag, tick.logical_date).await?;
        if !backfill.reprocess().of(newest.as_ref().and_then(phase_of)).makes_run() {
            backfill.left += 1;
            return Ok(());
        }
        let entry = self.dag(&backfill.dag)?;
        let params = params::resolve(&entry.definition.params, &backfill.params);
        let params = params.map_err(|errors| Error::Params { dag, errors })?;
        let request = Request {
            run_id: run.clone(),
            logical_date: Some(tick.logical_date),
            data_interval: Some(tick.data_interval),
            params,
            only_tasks: Vec::new(),
            dry_run: false,
            run_type: RunType::Backfill,
            cause: None,
            asked_by: Some((backfill.who.clone(), format!("backfill {id}: {}", backfill.why))),
        };
        self.make(&entry, request).await?;
        backfill.goes_on(&run);
        Ok(())
    }

    /// The schedule as it was when the backfill was asked for.
    async fn timetable_of(&self, id: &str, backfill: &Backfill) -> Result<Arc<Timetable>, Error> {
        let entry = self.dag(&backfill.dag)?;
        let dag = entry.definition.dag.id();
        let timetable = if entry.definition.version == backfill.version {
            entry.definition.timetable.clone()
        } else {
            let kept = self.store.version(&backfill.version).await?;
            let kept = kept.ok_or_else(|| Error::Conflict("the schedule it was asked for with is not kept any more".into()))?;
            let bundle = Bundle::from_bytes(&kept.bundle).map_err(|error| Error::Conflict(explain(&error)))?;
            let loaded = self.loader.load_kept(&backfill.version, &bundle, dag, &entry.project);
            let definition = loaded.map_err(|diagnostics| {
                let first = diagnostics.first().map(|diagnostic| diagnostic.message.clone()).unwrap_or_default();
                Error::Conflict(format!("the schedule it was asked for with does not fit the project any more: {first}"))
            })?;
            definition.timetable.clone()
        };
        let timetable = Arc::new(timetable.unwrap_or_default());
        if let Some(filling) = self.fillings().get_mut(id) {
            filling.timetable = Some(timetable.clone());
        }
        Ok(timetable)
    }
}

fn note_if_over(backfill: &mut Backfill, row: &RunRow) {
    if let Some(phase) = phase_of(row).filter(|phase| phase.is_terminal()) {
        backfill.is_over(&row.header.run_id, phase == RunPhase::Succeeded);
    }
}

fn run_id(backfill: &str, tick: &Tick) -> RunId {
    let name = format!("{backfill}\n{}", tick.logical_date);
    RunId::new(uuid::Uuid::new_v5(&NAMESPACE, name.as_bytes()).to_string())
}
