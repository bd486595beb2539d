//! What the core wants done now. The runtime does it and answers with a [`Command`](crate::Command).

use crate::event::CallbackId;
use crate::id::{InstanceId, TaskIx};
use crate::state::{Instance, Key, RunPhase, RunState};
use jiff::Timestamp;
use std::sync::Arc;

/// Wanted of the runtime. Asking again gives the same answer until a command changes the state.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Take the instance: all its slots are free when the actions before it are carried out. In order of priority.
    StartAttempt {
        /// Which.
        instance: InstanceId,
        /// The number the try will have.
        try_number: u32,
    },
    /// Find out what the attempt committed.
    ResolveUnknown {
        /// Which.
        instance: InstanceId,
        /// Of the attempt in doubt.
        try_number: u32,
    },
    /// Cancel a running attempt, also on the server.
    CancelAttempt {
        /// Which.
        instance: InstanceId,
        /// Of the attempt.
        try_number: u32,
        /// Why, when a person asked to end this instance alone; otherwise the run as a whole is being cancelled.
        reason: Option<Arc<str>>,
    },
    /// Run a callback.
    RunCallback {
        /// Which.
        callback: CallbackId,
    },
    /// Say `FireTimers` at this time, not before.
    WakeAt(Timestamp),
}

/// Everything wanted in this state, in the order it should be begun: cancellations, doubts, callbacks, attempts, the next time to wake.
///
/// Costs what it returns and the number of pools, not the size of the DAG.
pub fn actions(state: &RunState) -> Vec<Action> {
    let mut actions = Vec::new();
    match state.phase() {
        RunPhase::Running => {
            stop_attempts(state, &mut actions);
            resolve_doubts(state, &mut actions);
        }
        RunPhase::Cancelling => {
            cancel_attempts(state, &mut actions);
            resolve_doubts(state, &mut actions);
        }
        RunPhase::Queued | RunPhase::Stuck | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => {}
    }
    actions.extend(state.callbacks().iter().map(|callback| Action::RunCallback { callback: callback.clone() }));
    if state.phase() == RunPhase::Running {
        actions.extend(state.queue().startable(state.dag()).into_iter().map(|key| start_attempt(state, key)));
    }
    let next_timer = state.timers().first().map(|&(at, _)| at);
    actions.extend(next_timer.into_iter().chain(state.timeout_at()).min().map(Action::WakeAt));
    actions
}

/// The attempts to start while others cannot begin for want of something that the run shares with other runs: those are passed over, and hold
/// no place of `max_active_tasks` and of pools meanwhile. `is_kept_back` is asked about a task's instances, and whether they are those of its items.
///
/// Costs what it returns, the number of pools, and what is passed over: at most a thousand instances, so that what is behind more waits for them.
pub fn starts_past(state: &RunState, mut is_kept_back: impl FnMut(TaskIx, bool) -> bool) -> Vec<Action> {
    if state.phase() != RunPhase::Running {
        return Vec::new();
    }
    let startable = state.queue().startable_past(state.dag(), |key| is_kept_back(key.task, key.map_index.is_some()));
    startable.into_iter().map(|key| start_attempt(state, key)).collect()
}

fn start_attempt(state: &RunState, key: Key) -> Action {
    Action::StartAttempt { instance: state.id(key), try_number: state.find(key).map_or(1, Instance::next_try) }
}

fn cancel_attempts(state: &RunState, actions: &mut Vec<Action>) {
    actions.extend(state.running().iter().map(|&key| cancel_attempt(state, key)));
}

/// Those that a person wants to end one by one.
fn stop_attempts(state: &RunState, actions: &mut Vec<Action>) {
    let running = state.stops().keys().filter(|key| state.running().contains(key));
    actions.extend(running.map(|&key| cancel_attempt(state, key)));
}

fn cancel_attempt(state: &RunState, key: Key) -> Action {
    let reason = state.stops().get(&key).map(|stop| Arc::clone(&stop.reason));
    Action::CancelAttempt { instance: state.id(key), try_number: current_try(state, key), reason }
}

fn resolve_doubts(state: &RunState, actions: &mut Vec<Action>) {
    actions.extend(
        state
            .in_doubt()
            .iter()
            .map(|&key| Action::ResolveUnknown { instance: state.id(key), try_number: current_try(state, key) }),
    );
}

fn current_try(state: &RunState, key: Key) -> u32 {
    state.find(key).map_or(0, |instance| instance.try_number)
}
