//! The rules: command in, events out.

mod advance;
mod attempt;
mod operate;
mod run;
mod unit;

use crate::command::{Command, Rejected};
use crate::event::{CallbackId, Event, Occasion};
use crate::id::InstanceId;
use crate::state::{RunPhase, RunState, apply};
use jiff::Timestamp;

/// What follows from a command in a state, as events not yet applied. Total, deterministic, without effect.
pub fn decide(state: &RunState, command: Command, now: Timestamp) -> Result<Vec<Event>, Rejected> {
    if state.header().is_none() {
        return Err(Rejected::Run { state: "not created" });
    }
    match command {
        Command::Start => run::start(state, now),
        Command::Resume { epoch } => run::resume(state, epoch, now),
        Command::StartAttempt { instance } => attempt::start(state, instance, now),
        Command::Expand { task, try_number, items } => attempt::expand(state, task, try_number, items),
        Command::CommitSegment { instance, try_number, commit } => attempt::commit(state, instance, try_number, commit),
        Command::Succeed { instance, try_number, result, follow } => {
            attempt::succeed(state, instance, try_number, result, follow)
        }
        Command::Hold { instance, try_number, statements, result } => unit::hold(state, instance, try_number, statements, result),
        Command::LoseTransaction { instance, try_number, failure } => unit::lose(state, instance, try_number, failure, now),
        Command::GiveUpTransactions { failure } => Ok(unit::give_up(state, &failure)),
        Command::Skip { instance, try_number, reason } => attempt::skip(state, instance, try_number, reason),
        Command::Defer { instance, try_number, until } => attempt::defer(state, instance, try_number, until),
        Command::Fail { instance, try_number, failure } => attempt::fail(state, instance, try_number, failure, now),
        Command::LoseTrack { instance, try_number, failure } => attempt::lose_track(state, instance, try_number, failure, now),
        Command::Resolve { instance, try_number, evidence } => attempt::resolve(state, instance, try_number, evidence, now),
        Command::NoticeAnomaly { instance, try_number, anomaly } => Ok(attempt::notice(state, instance, try_number, anomaly)),
        Command::FireTimers => Ok(run::fire_timers(state, now)),
        Command::Wake { instance } => attempt::wake(state, instance),
        Command::TellDeadline { deadline, due_at, done_at } => run::tell_deadline(state, deadline, due_at, done_at),
        Command::Cancel { reason } => run::cancel(state, reason),
        Command::FinishCallback { callback, failure } => run::finish_callback(state, callback, failure),
        Command::RecordOperator { who, why, what } => Ok(vec![Event::OperatorActed { who, why, what }]),
        Command::Clear { instances, restart, who, why } => operate::clear(state, &instances, restart, who, why),
        Command::Mark { instances, mark, who, why } => operate::mark(state, &instances, mark, who, why),
        Command::Pin { version, variables } => run::pin(state, version, variables),
        Command::CancelInstance { instance, reason, who } => operate::cancel_instance(state, instance, reason, who),
        Command::DeclareStuck => run::declare_stuck(state),
        Command::Advance => Ok(advance::advance(state)),
    }
}

/// Decides, applies, and advances until nothing more follows. The events belong in one append.
pub fn handle(state: &mut RunState, command: Command, now: Timestamp) -> Result<Vec<Event>, Rejected> {
    let mut events = decide(state, command, now)?;
    events.iter().for_each(|event| apply(state, event));
    // Each round decides at least one undecided task or ends the run, so that the loop ends.
    loop {
        let following = advance::advance(state);
        if following.is_empty() {
            return Ok(events);
        }
        following.iter().for_each(|event| apply(state, event));
        events.extend(following);
    }
}

/// The refusal of a command that does not fit the run's phase.
fn not_now(phase: RunPhase) -> Rejected {
    Rejected::Run { state: phase.as_str() }
}

/// One event for each callback of an occasion.
fn callbacks(instance: Option<InstanceId>, try_number: u32, occasion: Occasion, count: u32) -> impl Iterator<Item = Event> {
    (0..count).map(move |place| Event::CallbackScheduled {
        callback: CallbackId { instance: instance.clone(), try_number, occasion, place },
    })
}
