//! How a run stands with the service, and why it waits.
//!
//! It only looks at the desk: what goes next is decided beside it.

use super::{Desk, Lane};
use crate::service::{Error, Service, ServiceLimits};
use backstop_core::{DagId, InstanceId, RunId, RunPhase};
use backstop_store::RunRow;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// How a run stands with the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits to be driven.
    Queued(Waiting),
    /// It is driven.
    Active {
        /// Since when, by this process.
        since: Timestamp,
    },
    /// It could not be driven, and is tried again.
    Hindered {
        /// Why.
        why: String,
        /// When.
        again_at: Timestamp,
    },
    /// A person must say what became of these.
    Stuck {
        /// Each, and why.
        undecided: BTreeMap<InstanceId, String>,
    },
    /// The service has nothing to do with it: it is over, or another process drives it.
    Unknown,
}

/// Runs that an answer names; it counts the others.
const NAMED_MAX: usize = 3;

/// Why a run waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Its DAG is paused.
    Paused,
    /// Its DAG has as many runs going on as it may have.
    RunsOfDag {
        /// Going on.
        active: usize,
        /// Allowed.
        limit: usize,
        /// Runs of the DAG in front of it.
        ahead: usize,
        /// Some of those that go on.
        holders: Vec<RunId>,
    },
    /// Backfills of its DAG have as many runs going on as they may have.
    RunsOfBackfill {
        /// Going on.
        active: usize,
        /// Allowed.
        limit: usize,
        /// Runs of backfills of the DAG in front of it.
        ahead: usize,
        /// Some of those that go on.
        holders: Vec<RunId>,
    },
    /// The service drives as many runs as it may.
    Runs {
        /// Going on.
        active: usize,
        /// Allowed.
        limit: usize,
        /// Runs of its DAG in front of it.
        ahead: usize,
    },
    /// Its deadlines are told of, and those who want to know are called: it begins behind that.
    Telling,
    /// It is about to be begun.
    Next,
    /// The service is stopping.
    Stopping,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Paused => f.write_str("its DAG is paused"),
            Self::RunsOfDag { active, limit, ahead, holders } => write!(
                f,
                "its DAG has {active} runs going on, of {limit} allowed (max_active_runs), and {ahead} more wait in front of this one: \
                 it waits for {}",
                named(holders, *active)
            ),
            Self::RunsOfBackfill { active, limit, ahead, holders } => write!(
                f,
                "backfills of its DAG have {active} runs going on, of {limit} allowed (max_active_runs of the backfills), and {ahead} more \
                 wait in front of this one: it waits for {}",
                named(holders, *active)
            ),
            Self::Runs { active, limit, ahead } => write!(
                f,
                "the service drives {active} runs, of {limit} allowed over all DAGs, and {ahead} more of its DAG wait in front of this one"
            ),
            Self::Telling => {
                f.write_str("who wants to know of its deadline is being told (on_deadline): it is begun behind that")
            }
            Self::Next => f.write_str("it is about to be begun"),
            Self::Stopping => f.write_str("the service is stopping: it goes on with the next one"),
        }
    }
}

/// The first of them, and how many there are beside.
pub(in crate::service) fn named(holders: &[RunId], count: usize) -> String {
    let names: Vec<&str> = holders.iter().map(RunId::as_str).collect();
    match count.saturating_sub(names.len()) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Counts of runs, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting.
    pub queued: usize,
    /// Driven.
    pub active: usize,
    /// To be tried again.
    pub hindered: usize,
    /// Waiting for a person.
    pub stuck: usize,
}

impl Desk {
    fn standing(&self, run: &RunId, limits: &ServiceLimits, of_lane: impl Fn(&Lane) -> usize, is_stopping: bool) -> Standing {
        if let Some(active) = self.active.get(run) {
            return Standing::Active { since: active.since };
        }
        if let Some(hindered) = self.hindered.get(run) {
            return Standing::Hindered { why: hindered.why.clone(), again_at: hindered.again };
        }
        if let Some(stuck) = self.stuck.get(run) {
            return Standing::Stuck { undecided: stuck.undecided.clone() };
        }
        let Some(queued) = self.queued_runs.get(run) else { return Standing::Unknown };
        let lane = &Lane::of(&queued.header);
        let ahead = self.queued.get(lane).into_iter().flatten().take_while(|other| *other != run).count();
        let (active, limit) = (self.active_of.get(lane).copied().unwrap_or(0), of_lane(lane));
        Standing::Queued(if is_stopping {
            Waiting::Stopping
        } else if self.paused.contains(&lane.dag) {
            Waiting::Paused
        } else if active >= limit && lane.is_backfill {
            Waiting::RunsOfBackfill { active, limit, ahead, holders: self.some_active(lane) }
        } else if active >= limit {
            Waiting::RunsOfDag { active, limit, ahead, holders: self.some_active(lane) }
        } else if let Some((active, limit)) = self.fullness(limits) {
            Waiting::Runs { active, limit, ahead }
        } else if self.telling.contains_key(run) {
            Waiting::Telling
        } else {
            Waiting::Next
        })
    }
}

impl Desk {
    /// Some of the runs that [`Self::runs_of`] counts, those that go on first.
    pub(in crate::service) fn some_runs_of(&self, dag: &DagId) -> Vec<RunId> {
        let lane = Lane { dag: dag.clone(), is_backfill: false };
        let hindered = self.hindered.iter().filter(|(_, hindered)| Lane::of(&hindered.queued.header) == lane).map(|(run, _)| run);
        let queued = self.queued.get(&lane).into_iter().flatten();
        self.some_active(&lane).iter().chain(hindered).chain(queued).take(NAMED_MAX).cloned().collect()
    }

    fn some_active(&self, lane: &Lane) -> Vec<RunId> {
        let of_lane = self.active.iter().filter(|(_, active)| active.lane == *lane);
        of_lane.map(|(run, _)| run.clone()).take(NAMED_MAX).collect()
    }
}

impl Service {
    /// How a run stands with the service.
    pub fn standing(&self, run: &RunId) -> Standing {
        let limits = self.limits_of_lanes();
        self.desk().standing(run, &self.limits, limits, self.is_stopping())
    }

    /// Whether something is left to do of a run, and nobody goes on with it: not this service, which takes over every run that no process has
    /// unless it is a dry run, and no other process.
    ///
    /// # Errors
    /// The store.
    pub async fn is_abandoned(&self, row: &RunRow) -> Result<bool, Error> {
        let run = &row.header.run_id;
        let is_left = |row: &RunRow| !row.is_finished() && row.state != RunPhase::Stuck.as_str();
        if !row.header.dry_run || !is_left(row) || self.desk().knows(run) || self.store.is_run_held(run)? {
            return Ok(false);
        }
        // It may have ended between the look at its row and the look at the desk.
        Ok(self.store.run(run).await?.is_some_and(|row| is_left(&row)))
    }

    /// Runs that wait, are driven, and so on.
    pub fn counts(&self) -> Counts {
        let desk = self.desk();
        Counts {
            queued: desk.queued_runs.len(),
            active: desk.active.len(),
            hindered: desk.hindered.len(),
            stuck: desk.stuck.len(),
        }
    }
}
