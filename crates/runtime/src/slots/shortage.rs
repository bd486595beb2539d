//! What an instance waits for, in numbers and in a sentence.

use super::{Claim, Full, Slots, goes_before};
use backstop_core::{InstanceId, RunId};
use std::fmt;
use std::sync::Arc;

/// Holders that the sentence names.
const HOLDERS_NAMED: usize = 3;
/// Holders that are named in a [`Shortage`].
pub const HOLDERS_MAX: usize = 20;

/// What an instance waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The pool that is full; `None`, where no connection is named: as many tasks as may go on at once are going on.
    pub pool: Option<Arc<str>>,
    /// The connection whose sessions are all in use.
    pub connection: Option<String>,
    /// Slots, or sessions, in use.
    pub used: u32,
    /// How many there are.
    pub size: u32,
    /// How many the instance wants.
    pub wanted: u32,
    /// Who has them, at most [`HOLDERS_MAX`].
    pub holders: Vec<Claim>,
    /// How many have them.
    pub held_by: usize,
    /// How many of those are attempts in doubt: what they began may still run on a server.
    pub in_doubt: usize,
    /// How many wait too, in front of it or not.
    pub waiting: usize,
    /// How many of them go before it, as things stand.
    pub ahead: usize,
    /// Who goes next, unless that is this one.
    pub next: Option<Claim>,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.connection, &self.pool) {
            (Some(connection), _) => {
                write!(f, "it waits for a session of connection `{connection}`: {} of {} in use", self.used, self.size)?
            }
            (None, Some(pool)) if self.used.saturating_add(self.wanted) <= self.size => {
                write!(f, "pool `{pool}` is kept for one that was passed often: {} of {} slots in use", self.used, self.size)?
            }
            (None, Some(pool)) => {
                write!(f, "pool `{pool}` is full: {} of {} slots in use, {} wanted", self.used, self.size, self.wanted)?
            }
            (None, None) => write!(f, "as many tasks go on as may over all runs: {} of {}", self.used, self.size)?,
        }
        let by = if self.connection.is_some() { " by" } else { ", held by" };
        for (place, claim) in self.holders.iter().take(HOLDERS_NAMED).enumerate() {
            write!(f, "{} `{}` of run {}", if place == 0 { by } else { "," }, claim.instance, claim.run)?;
        }
        if self.held_by > HOLDERS_NAMED {
            write!(f, " and {} more", self.held_by - HOLDERS_NAMED)?;
        }
        match (self.in_doubt, &self.connection) {
            (0, _) => {}
            (1, Some(_)) => f.write_str("; 1 of them in doubt: its statement may still run on the server")?,
            (in_doubt, Some(_)) => write!(f, "; {in_doubt} of them in doubt: their statements may still run on the server")?,
            (in_doubt, None) => write!(f, "; {in_doubt} of them in doubt, whose statements may still run on the server")?,
        }
        match &self.next {
            None => f.write_str("; it goes next"),
            Some(next) => {
                let (instance, run, priority, goes) =
                    (&next.instance, &next.run, next.priority, if self.ahead == 1 { "goes" } else { "go" });
                write!(f, "; {} {goes} before it, first `{instance}` of run {run} (priority {priority})", self.ahead)
            }
        }
    }
}

impl Slots {
    /// What an instance waits for here; `None` when it does not.
    pub fn shortage(&self, run: &RunId, instance: &InstanceId) -> Option<Shortage> {
        let state = self.state();
        let wanted = state.seats.values().flat_map(|seat| seat.wants.iter().map(move |want| (seat, want.order, &want.claim)));
        let (seat, order, claim) = wanted.clone().find(|(_, _, claim)| claim.run == *run && claim.instance == *instance)?;
        let (full, used, size) = state.missing(claim).or_else(|| {
            let size = state.limits.pools.get(&*claim.pool).copied().flatten()?;
            let used = state.pools.get(&claim.pool).copied().unwrap_or(0);
            let is_kept = goes_before(&state.kept_for(), claim, state.rank(seat, order, claim));
            is_kept.then(|| (Full::Pool(claim.pool.clone()), used, size))
        })?;
        let is_for = |other: &&Claim| match &full {
            Full::Parallelism => true,
            Full::Pool(pool) => other.pool == *pool,
            Full::Sessions(of) => other.session.as_ref().is_some_and(|session| session.of == *of),
        };
        let in_doubt = state.doubts.values().map(|doubt| &doubt.claim).filter(|_| full != Full::Parallelism);
        let holding = state.held.values().map(|(_, claim)| claim).chain(in_doubt.clone()).filter(is_for);
        let in_doubt = in_doubt.filter(is_for).count();
        let (held_by, holders) = (holding.clone().count(), holding.take(HOLDERS_MAX).cloned().collect());
        let waiting = wanted.clone().filter(|(_, _, other)| is_for(other)).count();
        let own = state.rank(seat, order, claim);
        let before: Vec<_> = wanted
            .map(|(seat, order, claim)| (state.rank(seat, order, claim), claim))
            .filter(|(rank, claim)| *rank < own && is_for(claim))
            .collect();
        let next = before.iter().min_by_key(|(rank, _)| *rank).map(|(_, claim)| (*claim).clone());
        let wanted = if matches!(full, Full::Pool(_)) { claim.slots } else { 1 };
        let (pool, connection) = match full {
            Full::Parallelism => (None, None),
            Full::Pool(pool) => (Some(pool), None),
            Full::Sessions(of) => (None, Some(of.name().to_owned())),
        };
        Some(Shortage { pool, connection, used, size, wanted, holders, held_by, in_doubt, waiting, ahead: before.len(), next })
    }
}
