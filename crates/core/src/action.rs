//! What the core wants done now. The runtime does it and answers with a [`Command`](crate::Command).

use crate::event::CallbackId;
use crate::id::InstanceId;
use crate::state::RunState;
use jiff::Timestamp;

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
    },
    /// Run a callback.
    RunCallback {
        /// Which.
        callback: CallbackId,
    },
    /// Say `FireTimers` at this time, not before.
    WakeAt(Timestamp),
}

/// Everything wanted in this state, in the order it should be begun.
pub fn actions(_state: &RunState) -> Vec<Action> {
    Vec::new()
}
