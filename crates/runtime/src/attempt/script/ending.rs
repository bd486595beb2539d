//! How a unit that did not end well is told: what happened, where, what was committed, what to do next.

use super::prepare::Prepared;
use super::watching::Watching;
use super::{Runner, marker_table};
use crate::attempt::Outcome;
use crate::attempt::stop::StopReason;
use crate::failure::{FailureExt, failure, of_database};
use crate::places;
use backstop_connect::script::{Segment, SegmentEnd};
use backstop_connect::{Canceller, ErrorKind, MarkerRow, UnitError, script};
use backstop_core::dag::Delivery;
use backstop_core::event::{Failure, FailureClass};
use backstop_core::{InstanceId, RunId};
use std::time::Duration;

/// How long a statement that was told to stop is waited for before its session is given up.
const STOP_GRACE: Duration = Duration::from_secs(30);

/// What is told of the effect when a statement has ended its transaction by itself, so that nobody can say how much of it is committed.
pub(crate) const TAKEN_OUT_OF_HAND: &str =
    "may have taken effect, without a marker: a statement has ended the transaction inside, as a procedure that commits does";

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
        let is_dry = self.shared.header.dry_run;
        let before = if is_dry { String::new() } else { before(&prepared.segments, number) };
        let nothing = self.nothing_of(prepared, number);
        let records = |error: &backstop_connect::Error| watching.records_with_failed(error);
        match error {
            UnitError::NotBegun { error } => {
                let told = of_database(&error).statements(records(&error));
                Outcome::Failed(self.explain(told, &error, None, prepared, watching, reason).effect(nothing))
            }
            UnitError::RolledBack { place, error } => {
                let told = of_database(&error).statements(records(&error));
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
                let told = of_database(&error).statements(records(&error));
                let mut told = self.explain(told, &error, Some(place), prepared, watching, reason).effect(effect);
                // A next try would begin with statements that took effect already: only the author may allow that.
                if place > 0 && self.delivery == Delivery::ExactlyOnce && told.class != FailureClass::Cancelled {
                    told.class = FailureClass::Final;
                }
                Outcome::Failed(told)
            }
            UnitError::EndedInside { place, error } => {
                let effect = format!("{before}what segment {} did {TAKEN_OUT_OF_HAND}", number + 1);
                let told = of_database(&error).statements(records(&error));
                let mut told = self.explain(told, &error, place, prepared, watching, reason).effect(effect).hint(
                    "let the script commit, not the procedure, or set `autocommit: true` on the task: then it runs at least once",
                );
                if self.delivery == Delivery::ExactlyOnce && told.class != FailureClass::Cancelled {
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
                    .statements(records(&error))
                    .effect(format!("{before}whether segment {} was committed is not known yet", number + 1)),
            ),
            UnitError::Writes => Outcome::Failed(failure(FailureClass::Permanent, "it writes").effect(nothing)),
        }
    }

    /// The effect of an attempt of which nothing was committed in this segment.
    pub(super) fn nothing_of(&self, prepared: &Prepared, number: usize) -> String {
        match prepared.segments.len() {
            _ if self.shared.header.dry_run => "nothing was committed: a dry run rolls back what it ran".to_owned(),
            1 => "nothing was committed".to_owned(),
            _ => format!("{}nothing of segment {} was committed", before(&prepared.segments, number), number + 1),
        }
    }

    /// The effect of an attempt that sent nothing of its own: what the segments before this one committed stays. Without the script, how many
    /// it has is not known.
    pub(super) fn unsent(&self, prepared: Option<&Prepared>, number: usize) -> String {
        match prepared {
            _ if number == 0 || self.shared.header.dry_run => "nothing was sent".to_owned(),
            Some(prepared) => format!("{}nothing new was sent", before(&prepared.segments, number)),
            None if number == 1 => "what segment 1 committed stays; nothing new was sent".to_owned(),
            None => format!("what segments 1 to {number} committed stays; nothing new was sent"),
        }
    }

    /// A segment whose marker's key holds another commit: another store had a run of this id on the same database, or the script was
    /// another one. To take that commit for this one would lose what this segment does.
    pub(super) fn key_is_taken(&self, prepared: &Prepared, number: usize, row: &MarkerRow) -> Failure {
        let table = marker_table(self.shared, self.connection).name;
        let (run, task) = (&self.shared.header.run_id, self.instance);
        failure(FailureClass::Final, another_commit(run, task, number, row)).effect(self.nothing_of(prepared, number)).hint(
            format!(
                "look into the table `{table}`: another store may have used this run id on the same database; run it again under \
                 another run id"
            ),
        )
    }

    /// Adds the statement, its place in the sources, and why it was stopped.
    pub(super) fn explain(
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

/// What is told of a marker that is not ours.
pub(crate) fn another_commit(run: &RunId, task: &InstanceId, segment: usize, row: &MarkerRow) -> String {
    format!(
        "the marker of run {run}, task `{task}`, segment {} is that of other statements, written {}",
        segment + 1,
        row.written_at
    )
}

/// What became of the segments before this one: a script may have rolled some back by itself.
fn before(segments: &[Segment], number: usize) -> String {
    let is_rolled_back = |place: &usize| segments[*place].end == SegmentEnd::Rollback;
    let (rolled_back, committed): (Vec<usize>, Vec<usize>) = (0..number).partition(is_rolled_back);
    let of = segments.len();
    let mut text = String::new();
    match committed.as_slice() {
        [] => {}
        [_] => text.push_str(&format!("segment {} of {of} is committed and stays; ", ranges(&committed))),
        _ => text.push_str(&format!("segments {} of {of} are committed and stay; ", ranges(&committed))),
    }
    match rolled_back.as_slice() {
        [] => {}
        [_] => text.push_str(&format!("segment {} was rolled back by the script itself; ", ranges(&rolled_back))),
        _ => text.push_str(&format!("segments {} were rolled back by the script itself; ", ranges(&rolled_back))),
    }
    text
}

/// Places that ascend, as people count them: `1 to 3, 5`.
fn ranges(places: &[usize]) -> String {
    let runs = places.chunk_by(|one, next| one + 1 == *next);
    let told = runs.map(|run| match run {
        [first, .., last] => format!("{} to {}", first + 1, last + 1),
        alone => alone.iter().map(|place| (place + 1).to_string()).collect(),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Asks the server to kill the statement until it ends, for as long as the grace lasts. A cancel that comes between two statements
/// finds nothing to kill, so it is sent again.
pub(crate) async fn kill<F: Future + Unpin>(running: &mut F, canceller: &dyn Canceller) -> Option<F::Output> {
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
