//! The rules: command in, events out.

use crate::command::{Command, Rejected};
use crate::event::Event;
use crate::state::RunState;
use jiff::Timestamp;

/// What follows from a command in a state, as events not yet applied. Total, deterministic, without effect.
pub fn decide(_state: &RunState, _command: Command, _now: Timestamp) -> Result<Vec<Event>, Rejected> {
    Ok(Vec::new())
}

/// Decides, applies, and advances until nothing more follows. The events belong in one append.
pub fn handle(_state: &mut RunState, _command: Command, _now: Timestamp) -> Result<Vec<Event>, Rejected> {
    Ok(Vec::new())
}
