//! The fold of a run: [`RunState`] and [`apply`].

use crate::event::Event;

/// Everything known of a run.
#[derive(Clone, Debug)]
pub struct RunState {}

/// Folds one event in. Total: the log is the truth, so an event is never refused.
pub fn apply(_state: &mut RunState, _event: &Event) {}
