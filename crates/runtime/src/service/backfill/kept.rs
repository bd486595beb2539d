//! A backfill as the store keeps it: what was asked for, how far it has come, and which of its runs go on. All of it is written at once,
//! so that a crash finds the counts and the runs that they count together.

use crate::service::Error;
use backstop_core::backfill::{RUNS_AT_ONCE, Reprocess, Span};
use backstop_core::{DagId, RunId};
use backstop_store::{Entry, Store};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The kind of entries that keep backfills.
pub(super) const KIND: &str = "backfill";

/// What people want of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// It goes on.
    Run,
    /// It makes no more runs for now.
    Pause,
    /// It makes no more runs.
    Cancel,
}

/// A backfill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backfill {
    /// Of which DAG.
    pub dag: String,
    /// The version of the DAG whose schedule gives the dates: one that is changed meanwhile changes none of them.
    pub version: String,
    /// The first logical date.
    pub from: Timestamp,
    /// The last logical date, inclusive.
    pub to: Timestamp,
    /// The latest date first.
    #[serde(default)]
    pub reverse: bool,
    /// `none`, `failed`, `completed`.
    #[serde(default)]
    reprocess: String,
    /// Runs of it at once.
    #[serde(default = "runs_at_once")]
    pub runs_at_once: u32,
    /// As they were given.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub why: String,
    /// When.
    pub asked_at: Timestamp,
    /// What people want of it now.
    pub wish: Wish,
    /// Dates there are.
    pub total: usize,
    /// The last date that was decided.
    #[serde(default)]
    pub after: Option<Timestamp>,
    /// Dates that were left as they are, because they have a run.
    #[serde(default)]
    pub left: usize,
    /// Runs of it that succeeded.
    #[serde(default)]
    pub succeeded: usize,
    /// Runs of it that failed or were cancelled.
    #[serde(default)]
    pub failed: usize,
    /// Runs of it that are not over. At most as many as it may have at once.
    #[serde(default)]
    active: Vec<String>,
    /// When nothing of it was left to do.
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
}

fn runs_at_once() -> u32 {
    RUNS_AT_ONCE
}

/// What is asked for.
pub(super) struct Asked {
    pub(super) dag: DagId,
    pub(super) version: String,
    pub(super) span: Span,
    pub(super) reprocess: Reprocess,
    pub(super) runs_at_once: u32,
    pub(super) params: Map<String, Value>,
    pub(super) who: crate::service::Who,
    pub(super) at: Timestamp,
    pub(super) total: usize,
}

impl Backfill {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            dag: asked.dag.to_string(),
            version: asked.version,
            from: asked.span.from,
            to: asked.span.to,
            reverse: asked.span.reverse,
            reprocess: asked.reprocess.as_str().to_owned(),
            runs_at_once: asked.runs_at_once,
            params: asked.params,
            who: asked.who.who,
            why: asked.who.why,
            asked_at: asked.at,
            wish: Wish::Run,
            total: asked.total,
            after: None,
            left: 0,
            succeeded: 0,
            failed: 0,
            active: Vec::new(),
            ended_at: None,
        }
    }

    /// Whether both ask for the same.
    pub(super) fn is_same_request(&self, other: &Self) -> bool {
        let asked = |backfill: &Self| {
            let Self { dag, from, to, reverse, reprocess, runs_at_once, params, .. } = backfill;
            (dag.clone(), *from, *to, *reverse, reprocess.clone(), *runs_at_once, params.clone())
        };
        asked(self) == asked(other)
    }

    /// Its dates.
    pub fn span(&self) -> Span {
        Span { from: self.from, to: self.to, reverse: self.reverse }
    }

    /// What becomes of dates that have a run.
    pub fn reprocess(&self) -> Reprocess {
        Reprocess::parse(&self.reprocess).unwrap_or_default()
    }

    /// Its runs that are not over.
    pub fn active(&self) -> impl ExactSizeIterator<Item = RunId> + '_ {
        self.active.iter().map(|run| RunId::new(run.as_str()))
    }

    /// Notes a run of it that is not over.
    pub(super) fn goes_on(&mut self, run: &RunId) {
        self.active.push(run.to_string());
    }

    /// Notes that a run of it is over.
    pub(super) fn is_over(&mut self, run: &RunId, has_succeeded: bool) {
        self.active.retain(|active| active != run.as_str());
        let count = if has_succeeded { &mut self.succeeded } else { &mut self.failed };
        *count += 1;
    }

    /// Dates that were not come to. None, once it is cancelled: they will not be.
    pub fn waiting(&self) -> usize {
        self.total.saturating_sub(self.left + self.succeeded + self.failed + self.active.len())
    }

    pub(super) fn entry(&self, id: &str) -> Entry {
        Entry { kind: KIND.into(), key: id.into(), body: serde_json::to_string(self).ok() }
    }
}

/// All that are kept, by id. One that this version cannot read is left out, and stays where it is.
pub(super) async fn read(store: &dyn Store) -> Result<BTreeMap<String, Backfill>, Error> {
    let entries = store.entries(KIND).await?;
    Ok(entries.into_iter().filter_map(|(id, body)| Some((id, serde_json::from_str(&body).ok()?))).collect())
}
