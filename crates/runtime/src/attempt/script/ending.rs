//! How a unit that did not end well is told: what happened, where, what was committed, what to do next.

use super::Runner;
use super::prepare::Prepared;
use super::watching::Watching;
use crate::attempt::Outcome;
use crate::attempt::stop::StopReason;
use crate::failure::{FailureExt, failure, of_database};
use crate::places;
use backstop_connect::{Canceller, ErrorKind, UnitError, script};
use backstop_core::dag::Delivery;
use backstop_core::event::{Failure, FailureClass};
use std::time::Duration;

/// How long a statement that was told to stop is waited for before its session is given up.
const STOP_GRACE: Duration = Duration::from_secs(30);

impl Runner<'_> {
    /// An outcome of a unit that did not end well.
    pub(super) fn unit_failed(
        &self,
        error: UnitError,
        prepared: &Prepared,
        number: usize,
        watching: &Watching<'_>,
        reason: Option<&StopReason>,
    ) -> Outcome {
        let of = prepared.segments.len();
        let is_dry = self.shared.header.dry_run;
        let before = match number {
            _ if is_dry => String::new(),
            0 => String::new(),
            1 => format!("segment 1 of {of} is committed and stays; "),
            _ => format!("segments 1 to {number} of {of} are committed and stay; "),
        };
        let nothing = match (of, number) {
            _ if is_dry => "nothing was committed: a dry run rolls back what it ran".to_owned(),
            (1, _) => "nothing was committed".to_owned(),
            _ => format!("{before}nothing of segment {} was committed", number + 1),
        };
        let records = watching.records.clone();
        match error {
            UnitError::RolledBack { place, error } => {
                let told = of_database(&error).statements(records);
                Outcome::Failed(self.explain(told, &error, place, prepared, watching, reason).effect(nothing))
            }
            UnitError::Partial { place, error } => {
                let effect = match place {
                    0 => nothing,
                    _ => format!(
                        "{before}segment {} has no transaction: {place} of its statements took effect before this one",
                        number + 1
                    ),
                };
                let told = of_database(&error).statements(records);
                let mut told = self.explain(told, &error, Some(place), prepared, watching, reason).effect(effect);
                // A next try would begin with statements that took effect already: only the author may allow that.
                if place > 0 && self.delivery == Delivery::ExactlyOnce && told.class != FailureClass::Cancelled {
                    told.class = FailureClass::Final;
                }
                Outcome::Failed(told)
            }
            UnitError::NoMarkerTable { ddl, error } => Outcome::Failed(of_database(&error).effect(nothing).hint(format!(
                "have this run once by somebody who may:\n{ddl}\nor set `delivery: at_least_once` on the task to go on \
                         without markers: after a crash the script may then run twice"
            ))),
            UnitError::Fenced => Outcome::Failed(
                failure(FailureClass::Interrupted, "another process took this attempt over and fenced it off").effect(nothing),
            ),
            UnitError::Unknown { error } => Outcome::Unknown(
                of_database(&error)
                    .statements(records)
                    .effect(format!("{before}whether segment {} was committed is not known yet", number + 1)),
            ),
            UnitError::Writes => Outcome::Failed(failure(FailureClass::Permanent, "it writes").effect(nothing)),
        }
    }

    /// Adds the statement, its place in the sources, and why it was stopped.
    fn explain(
        &self,
        mut told: Failure,
        error: &backstop_connect::Error,
        place: Option<usize>,
        prepared: &Prepared,
        watching: &Watching<'_>,
        reason: Option<&StopReason>,
    ) -> Failure {
        if let Some(statement) = place.and_then(|place| watching.places.get(place)).map(|at| &prepared.statements[*at]) {
            let (line, column) = match error.position {
                // Bound names shift positions behind them; the statement's own place is still right.
                Some(position) if watching.parameters_are_none(statement.number) => {
                    script::statement_position_to_source(&prepared.text, statement, position)
                }
                _ => (statement.line, statement.column),
            };
            told.place = Some(places::in_source(watching.template, &prepared.text, line, column, Some(statement.number)));
            told.message = format!("statement {} of {}: {}", statement.number, prepared.statements.len(), error.message);
        }
        match reason {
            Some(StopReason::TimedOut(limit)) if error.kind == ErrorKind::Cancelled => {
                told.class = FailureClass::TimedOut;
                told.message = format!("over its execution_timeout of {limit:?}; {}", told.message);
            }
            Some(StopReason::Cancelled(why)) if error.kind == ErrorKind::Cancelled => {
                told.class = FailureClass::Cancelled;
                told.message = format!("{why}; {}", told.message);
            }
            // Cancelled on the server by somebody else, or by the server's own time-out: that is no cancel of the run.
            None if error.kind == ErrorKind::Cancelled => told.class = FailureClass::Permanent,
            _ => {}
        }
        if error.kind == ErrorKind::Stopped {
            told.class = FailureClass::Final;
        }
        told
    }
}

/// Asks the server to kill the statement until it ends, for as long as the grace lasts. A cancel that comes between two statements
/// finds nothing to kill, so it is sent again.
pub(super) async fn kill<F: Future + Unpin>(running: &mut F, canceller: &dyn Canceller) -> Option<F::Output> {
    let give_up = tokio::time::Instant::now() + STOP_GRACE;
    loop {
        // A server that cannot be asked is asked again below, until the grace is over.
        let _ = tokio::time::timeout(Duration::from_secs(5), canceller.cancel()).await;
        let again = tokio::time::Instant::now() + Duration::from_millis(500);
        tokio::select! {
            biased;
            ended = &mut *running => return Some(ended),
            () = tokio::time::sleep_until(again.min(give_up)) => {}
        }
        if tokio::time::Instant::now() >= give_up {
            return None;
        }
    }
}
