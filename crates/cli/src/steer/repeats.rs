//! Tasks that a clear lets repeat what they have committed, only to come to the SQL that failed: that is said, as it is seldom meant.

use super::Wanted;
use super::files::Taken;
use crate::output;
use crate::words;
use backstop_core::event::{FailureClass, Promise, Restart};
use backstop_core::{Event, InstanceId, InstancePhase, RunId, RunState};
use backstop_store::RunRow;
use std::cell::RefCell;

/// Tasks that are named; the others are counted.
const NAMED_MAX: usize = 5;

/// What would be repeated, of all runs that are meant.
#[derive(Default)]
pub(super) struct Repeats {
    found: RefCell<Vec<Repeat>>,
}

struct Repeat {
    run: RunId,
    instance: InstanceId,
    /// Segments that changed something.
    committed: usize,
    /// The files were asked for as they are now, and are those that failed.
    are_current: bool,
}

impl Repeats {
    /// Looks through what happens to a run.
    pub(super) fn look(&self, wanted: &Wanted<'_>, row: &RunRow, taken: Option<&Taken>, before: &RunState, events: &[Event]) {
        if !matches!(wanted, Wanted::Clear(_)) || taken.is_some_and(|taken| taken.definition.version != row.header.version) {
            return;
        }
        let cleared = events.iter().filter_map(|event| match event {
            Event::InstancesCleared { instances, restart: Restart::Beginning } => Some(instances),
            _ => None,
        });
        for instance in cleared.flatten() {
            let committed = known_to_fail(before, instance);
            if committed > 0 {
                let (run, instance) = (row.header.run_id.clone(), instance.clone());
                self.found.borrow_mut().push(Repeat { run, instance, committed, are_current: taken.is_some() });
            }
        }
    }

    /// Warns of them.
    pub(super) fn tell(&self, flags: &str) {
        let found = self.found.borrow();
        let Some(first) = found.first() else { return };
        let is_one_run = found.iter().all(|repeat| repeat.run == first.run);
        let named = found.iter().take(NAMED_MAX).map(|repeat| match is_one_run {
            true => format!("`{}`", repeat.instance),
            false => format!("`{}` of run {}", repeat.instance, repeat.run),
        });
        let named = named.collect::<Vec<_>>().join(", ");
        let more = found.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {} more", words::grouped(more as u64)) } else { String::new() };
        let failed = if found.len() == 1 { "failed, and runs" } else { "failed, and run" };
        let segments = found.iter().map(|repeat| repeat.committed).sum();
        let takes = if segments == 1 { "takes" } else { "take" };
        output::warn(&format!(
            "{named}{more} {failed} again with the same SQL: {} {takes} effect once more, and then comes what is known to fail",
            words::count(segments, "committed segment")
        ));
        let mend = if first.are_current {
            "the current files are the same: mend them"
        } else {
            "mend the files, and add --current-files"
        };
        let run = if is_one_run { first.run.as_str() } else { "RUN" };
        output::note(&format!("{mend}; or go on behind what committed: backstop runs retry {run}{flags}"));
    }
}

/// The segments with an effect of an instance that failed by itself; 0 of any other.
fn known_to_fail(before: &RunState, instance: &InstanceId) -> usize {
    let Some(view) = before.instance(instance).filter(|view| view.phase == InstancePhase::Failed && !view.is_marked) else {
        return 0;
    };
    match view.failure.map(|failure| failure.class) {
        Some(FailureClass::Transient | FailureClass::Permanent | FailureClass::Final | FailureClass::TimedOut) => {
            view.segments.iter().filter(|commit| commit.promise != Promise::ReadOnly).count()
        }
        Some(FailureClass::Cancelled | FailureClass::Interrupted) | None => 0,
    }
}
