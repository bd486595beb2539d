//! Backfills: asked for, paused, cancelled, looked at. They are made to go on in `fill`.
//!
//! A backfill is an entry of the store and a range of dates; its runs are made as they are begun. A run's id follows from the backfill and
//! the date, so that a process that dies in between makes none twice and loses none.

mod fill;
mod kept;

pub use kept::{Backfill, Wish};

use super::{DagEntry, Error, Service, Standing, Waiting, Who};
use crate::others;
use crate::run::new_run_id;
use backstop_core::backfill::{RUNS_AT_ONCE_MAX, Reprocess, Span, Verdict};
use backstop_core::{DagId, RunId, Tick, Timetable};
use backstop_project::params;
use backstop_store::{Entry, RunRow, Store};
use jiff::Timestamp;
use kept::Asked;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Dates that a preview gives at most.
pub const PREVIEW_MAX: usize = 1000;
/// Backfills that are over and still kept.
const OVER_MAX: usize = 1000;

/// A backfill that is asked for.
#[derive(Clone, Debug)]
pub struct NewBackfill {
    /// Asked for twice with one id, it is made once.
    pub id: Option<String>,
    /// Of which DAG.
    pub dag: String,
    /// Which dates, in which order.
    pub span: Span,
    /// What becomes of dates that have a run.
    pub reprocess: Reprocess,
    /// Runs at once; from 1 to [`RUNS_AT_ONCE_MAX`].
    pub runs_at_once: u32,
    /// Given parameters of its runs; defaults are filled in.
    pub params: Map<String, Value>,
}

/// A backfill with its id, and why it is not further.
#[derive(Clone, Debug)]
pub struct ShownBackfill {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub backfill: Backfill,
    /// In a sentence.
    pub why: String,
}

/// What a backfill would do.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Dates there are.
    pub total: usize,
    /// Some of them, in the order in which they would be come to.
    pub dates: Vec<Planned>,
    /// Ask again from behind this date; `None`: these were the last.
    pub next: Option<Timestamp>,
}

/// What would become of one date.
#[derive(Clone, Debug)]
pub struct Planned {
    /// When, about what.
    pub tick: Tick,
    /// What.
    pub verdict: Verdict,
    /// The newest run about this date.
    pub newest: Option<RunId>,
}

/// One that is not over.
pub(super) struct Filling {
    backfill: Backfill,
    /// Its dates; read from the version it is pinned to when it is first needed.
    timetable: Option<Arc<Timetable>>,
    /// Why its next run could not be made.
    trouble: Option<String>,
}

/// Those that are not over, by id.
pub(super) type Fillings = BTreeMap<String, Filling>;

/// Reads those that are not over.
pub(super) async fn unfinished(store: &dyn Store) -> Result<Fillings, Error> {
    let kept = kept::read(store).await?;
    let open = kept.into_iter().filter(|(_, backfill)| backfill.ended_at.is_none());
    Ok(open.map(|(id, backfill)| (id, Filling { backfill, timetable: None, trouble: None })).collect())
}

/// The newest run of a DAG that stands for a date.
pub(super) async fn newest_about(store: &dyn Store, dag: &DagId, date: Timestamp) -> Result<Option<RunRow>, Error> {
    Ok(others::newest_about(store, dag, date, others::is_whole).await?)
}

/// What a backfill would do, from behind a date; nothing is kept, and nobody needs to drive.
///
/// # Errors
/// `Invalid` when there is nothing to fill; the store.
pub async fn preview(
    store: &dyn Store,
    dag: &DagId,
    timetable: &Timetable,
    wanted: (Span, Reprocess),
    (after, limit): (Option<Timestamp>, usize),
    now: Timestamp,
) -> Result<Preview, Error> {
    let (span, total) = fillable(dag, timetable, wanted.0, now)?;
    let mut preview = Preview { total, dates: Vec::new(), next: None };
    let mut after = after;
    while let Some(tick) = span.next(timetable, after) {
        if preview.dates.len() == limit.min(PREVIEW_MAX) {
            preview.next = after;
            break;
        }
        after = Some(tick.logical_date);
        let newest = newest_about(store, dag, tick.logical_date).await?;
        let verdict = wanted.1.of(newest.as_ref().and_then(fill::phase_of));
        preview.dates.push(Planned { tick, verdict, newest: newest.map(|row| row.header.run_id.clone()) });
    }
    Ok(preview)
}

/// The dates that may run now, and how many they are.
fn fillable(dag: &DagId, timetable: &Timetable, span: Span, now: Timestamp) -> Result<(Span, usize), Error> {
    let refused = |why: String| Error::Invalid(format!("DAG `{dag}` cannot be backfilled: {why}"));
    if span.to > now && span.from <= span.to {
        return Err(refused(format!(
            "the range ends ({}) in the future, and what is to come runs by itself: end it at {now} or before",
            span.to
        )));
    }
    // By the classic reading the last date may have data that is not complete.
    let last = timetable.range(span.from, span.to).rev().find(|tick| tick.run_after <= now);
    let span = Span { to: last.map_or(span.to, |tick| tick.logical_date), ..span };
    let total = span.count(timetable).map_err(|unfillable| {
        let hint = match unfillable {
            backstop_core::backfill::Unfillable::NoTicks => "; trigger a run with its `logical_date` instead",
            backstop_core::backfill::Unfillable::TooMany => "; fill it in several parts",
            backstop_core::backfill::Unfillable::Empty { .. } => "; its `start_date` and `end_date` hold here, too",
            backstop_core::backfill::Unfillable::EndsFirst { .. } => "",
        };
        refused(format!("{unfillable}{hint}"))
    })?;
    Ok((span, total))
}

impl Service {
    /// Asks for a backfill. It is durable when this returns, and goes on by itself from then on. The flag is false when the same request had
    /// made it before.
    ///
    /// # Errors
    /// No such DAG, parameters that do not fit, nothing to fill; another one over some of the same dates; the store.
    pub async fn backfill(&self, wanted: NewBackfill, who: &Who) -> Result<(ShownBackfill, bool), Error> {
        if self.is_stopping() {
            return Err(Error::Stopping);
        }
        let entry = self.dag(&wanted.dag)?;
        let dag = entry.definition.dag.id().clone();
        let timetable = timetable_of(&entry);
        let (span, total) = self.checked(&entry, &wanted, timetable.clone()).await?;
        // Two who ask at once are asked one after the other.
        let _one_at_a_time = self.filling.lock().await;
        let kept = kept::read(&*self.store).await?;
        let backfill = Backfill::new(Asked {
            dag: dag.clone(),
            version: entry.definition.version.clone(),
            span,
            reprocess: wanted.reprocess,
            runs_at_once: wanted.runs_at_once,
            params: wanted.params,
            who: self.masked(who),
            at: self.clock.now(),
            total,
        });
        if let Some((id, known)) = wanted.id.as_ref().and_then(|id| kept.get_key_value(id)) {
            if known.is_same_request(&backfill) {
                return Ok((self.shown(id.clone(), known.clone()), false));
            }
            return Err(Error::Conflict(format!("backfill {id} was asked for with other dates or settings: use another id")));
        }
        let is_in_the_way =
            |other: &&Backfill| other.dag == backfill.dag && other.ended_at.is_none() && other.span().overlaps(&span);
        if let Some((id, other)) = kept.iter().find(|(_, other)| is_in_the_way(other)) {
            return Err(Error::Conflict(format!(
                "backfill {id} of DAG `{dag}` over {} to {} is not over: wait for it, or cancel it first",
                other.from, other.to
            )));
        }
        self.keep(&entry).await?;
        let id = wanted.id.unwrap_or_else(|| new_run_id(&*self.clock).to_string());
        let mut entries = vec![backfill.entry(&id)];
        entries.extend(forgotten(&kept));
        let what = format!("asked for backfill {id} of DAG `{dag}`, {} to {}", span.from, span.to);
        self.store.put(entries, Some(self.acted(who, what))).await?;
        let filling = Filling { backfill: backfill.clone(), timetable, trouble: None };
        self.fillings().insert(id.clone(), filling);
        self.fill_up.notify_one();
        Ok((self.shown(id, backfill), true))
    }

    /// What may be filled, checked as a request is.
    async fn checked(
        &self,
        entry: &DagEntry,
        wanted: &NewBackfill,
        timetable: Option<Arc<Timetable>>,
    ) -> Result<(Span, usize), Error> {
        let dag = entry.definition.dag.id().clone();
        if !(1..=RUNS_AT_ONCE_MAX).contains(&wanted.runs_at_once) {
            let given = wanted.runs_at_once;
            return Err(Error::Invalid(format!("`max_active_runs` is {given}, and must be from 1 to {RUNS_AT_ONCE_MAX}")));
        }
        let checked = params::resolve(&entry.definition.params, &wanted.params);
        checked.map_err(|errors| Error::Params { dag: dag.clone(), errors })?;
        let (span, now) = (wanted.span, self.clock.now());
        // Counting a million dates takes a while, and nobody else shall wait for it.
        let counted = tokio::task::spawn_blocking(move || fillable(&dag, &timetable.unwrap_or_default(), span, now));
        counted.await.unwrap_or_else(|_| Err(Error::Invalid("the dates could not be counted".into())))
    }

    /// What a backfill would do.
    ///
    /// # Errors
    /// As [`Self::backfill`].
    pub async fn preview(&self, wanted: &NewBackfill, after: Option<Timestamp>, limit: usize) -> Result<Preview, Error> {
        let entry = self.dag(&wanted.dag)?;
        let timetable = timetable_of(&entry);
        self.checked(&entry, wanted, timetable.clone()).await?;
        let asked = (wanted.span, wanted.reprocess);
        let timetable = timetable.unwrap_or_default();
        preview(&*self.store, entry.definition.dag.id(), &timetable, asked, (after, limit), self.clock.now()).await
    }

    /// All backfills, the newest first.
    ///
    /// # Errors
    /// The store.
    pub async fn backfills(&self) -> Result<Vec<ShownBackfill>, Error> {
        let mut kept: Vec<(String, Backfill)> = kept::read(&*self.store).await?.into_iter().collect();
        kept.sort_by(|a, b| (b.1.asked_at, &b.0).cmp(&(a.1.asked_at, &a.0)));
        Ok(kept.into_iter().map(|(id, backfill)| self.shown(id, backfill)).collect())
    }

    /// One backfill.
    ///
    /// # Errors
    /// `NoBackfill`; the store.
    pub async fn one_backfill(&self, id: &str) -> Result<ShownBackfill, Error> {
        let backfill = kept::read(&*self.store).await?.remove(id).ok_or_else(|| Error::NoBackfill(id.to_owned()))?;
        Ok(self.shown(id.to_owned(), backfill))
    }

    /// Pauses a backfill, lets it go on, or ends it. Runs of it that go on go on; with `and_runs` they are cancelled, too. Those that have
    /// not begun are cancelled with it in any case.
    ///
    /// # Errors
    /// `NoBackfill`; `Conflict` when it is over; the store.
    pub async fn steer_backfill(&self, id: &str, wish: Wish, and_runs: bool, who: &Who) -> Result<ShownBackfill, Error> {
        let changed = {
            let _one_at_a_time = self.filling.lock().await;
            let known = self.fillings().get(id).map(|filling| filling.backfill.clone());
            let Some(mut backfill) = known else {
                let shown = self.one_backfill(id).await?;
                return Err(Error::Conflict(format!("backfill {id} is over: {}", shown.why)));
            };
            if backfill.wish == Wish::Cancel && wish != Wish::Cancel {
                return Err(Error::Conflict(format!("backfill {id} is cancelled: ask for another one")));
            }
            backfill.wish = wish;
            let word = match wish {
                Wish::Run => "resumed",
                Wish::Pause => "paused",
                Wish::Cancel => "cancelled",
            };
            let what = format!("{word} backfill {id} of DAG `{}`", backfill.dag);
            self.store.put(vec![backfill.entry(id)], Some(self.acted(who, what))).await?;
            if let Some(filling) = self.fillings().get_mut(id) {
                filling.backfill.wish = wish;
            }
            backfill
        };
        if wish == Wish::Cancel {
            let behind = if who.why.is_empty() { String::new() } else { format!(": {}", who.why) };
            let who = &Who { why: format!("backfill {id} is cancelled{behind}"), who: who.who.clone() };
            for run in changed.active() {
                let has_not_begun = matches!(self.standing(&run), Standing::Queued(_));
                if and_runs || has_not_begun {
                    // One that ended just now needs no cancelling.
                    let _ = self.cancel(&run, who).await;
                }
            }
        }
        self.fill_up.notify_one();
        self.one_backfill(id).await
    }

    fn shown(&self, id: String, backfill: Backfill) -> ShownBackfill {
        let why = self.why_backfill(&id, &backfill);
        ShownBackfill { id, backfill, why }
    }

    /// Why it is not further, in a sentence.
    fn why_backfill(&self, id: &str, backfill: &Backfill) -> String {
        let (active, limit) = (backfill.active().len(), backfill.runs_at_once);
        if backfill.ended_at.is_some() {
            let word = if backfill.wish == Wish::Cancel { "cancelled" } else { "done" };
            return format!("it is {word}");
        }
        if self.is_stopping() {
            return Waiting::Stopping.to_string();
        }
        if backfill.wish == Wish::Cancel {
            return format!("it is cancelled: {active} of its runs end");
        }
        if backfill.wish == Wish::Pause {
            return "it is paused".into();
        }
        if self.desk().paused.contains(backfill.dag.as_str()) {
            return Waiting::Paused.to_string();
        }
        if let Some(trouble) = self.fillings().get(id).and_then(|filling| filling.trouble.clone()) {
            return format!("its next run could not be made, and is tried again: {trouble}");
        }
        match backfill.waiting() {
            0 => format!("the last {active} of its runs go on"),
            _ if active >= limit as usize => format!("{active} of its runs go on, of {limit} allowed (max_active_runs)"),
            _ => "its next runs are being made".into(),
        }
    }

    /// How many runs of backfills a DAG may have going on; `None` when no backfill of it goes on.
    pub(super) fn backfill_runs_of(&self) -> BTreeMap<DagId, usize> {
        let mut limits = BTreeMap::new();
        for filling in self.fillings().values() {
            *limits.entry(DagId::new(filling.backfill.dag.as_str())).or_default() += filling.backfill.runs_at_once as usize;
        }
        limits
    }
}

fn timetable_of(entry: &DagEntry) -> Option<Arc<Timetable>> {
    entry.definition.timetable.clone().map(Arc::new)
}

/// The oldest of those that are over, where there are too many.
fn forgotten(kept: &BTreeMap<String, Backfill>) -> Vec<Entry> {
    let mut over: Vec<(&String, Timestamp)> = kept.iter().filter_map(|(id, backfill)| Some((id, backfill.ended_at?))).collect();
    over.sort_by_key(|(_, ended_at)| *ended_at);
    let many = over.len().saturating_sub(OVER_MAX);
    over[..many].iter().map(|(id, _)| Entry { kind: kept::KIND.into(), key: (*id).clone(), body: None }).collect()
}
