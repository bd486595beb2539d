//! What every store promises, as one suite of tests.
//!
//! A store's tests implement [`Subject`] and call [`conformance_suite!`](crate::conformance_suite), which makes a test of each promise.

#![allow(clippy::unwrap_used, reason = "these are tests, though a feature and not cfg(test) may build them")]

mod assets;
mod lists;
mod log;
mod prune;
mod rows;
mod samples;
pub mod script;

pub use assets::*;
pub use lists::*;
pub use log::*;
pub use prune::*;
pub use rows::*;
pub use samples::*;

use crate::{Append, AppendError, Recorded, Store};
use async_trait::async_trait;
use backstop_core::{Event, RunId};
use std::sync::Arc;

/// An empty store under test.
#[async_trait]
pub trait Subject: Send {
    /// The store as it is now.
    fn store(&self) -> Arc<dyn Store>;

    /// Ends the store without flushing it, and finds it again. Nobody holds what `store` gave any more.
    async fn crash(&mut self);
}

/// Makes a test of each promise. `$subject` is an expression that makes a fresh [`Subject`].
#[macro_export]
macro_rules! conformance_suite {
    ($subject:expr) => {
        $crate::conformance_suite!($subject;
            append_and_read_back, reading_starts_and_ends_where_told, every_kind_of_event_survives, times_are_kept_to_the_microsecond,
            order_of_calls_is_kept, a_conflict_is_refused, a_conflict_spoils_no_other_append, a_failed_append_fails_the_later_ones,
            a_malformed_append_is_refused, take_over_fences, take_over_of_no_run_fails, an_epoch_nobody_gave_is_refused,
            many_runs_share_the_queue, more_than_the_queue_holds, flush_waits_for_all_before,
            runs_are_listed_newest_first, runs_are_filtered, a_run_is_of_the_version_it_was_pinned_to_last,
            a_run_with_pending_callbacks_is_unfinished, runs_are_found_by_prefix,
            no_such_run, versions_are_kept_once, entries_are_kept_replaced_and_removed, acts_are_listed_newest_first,
            a_scripted_run_projects, states_of_runs, folding_the_log_gives_the_projections, crash_keeps_a_prefix,
            random_interleavings, run_locks, runs_are_listed_by_phase_and_date, pages_of_runs_by_date_meet,
            instances_are_listed_over_runs, a_list_of_instances_ends_though_nothing_is_found, a_grid_folds_instances_by_task,
            instances_of_a_run_are_listed, statements_are_listed,
            a_large_run_does_not_crowd_a_grid, durations_are_of_what_went_well,
            the_looks_of_a_try_are_one_wait,
            old_runs_may_go, removed_runs_are_gone, versions_are_listed_by_their_use,
            samples_are_kept_and_replaced, past_statements_are_of_runs_that_are_over, statements_of_a_transaction_are_committed_with_it,
            updates_of_assets_are_in_one_order, updates_are_found_by_asset,
            updates_go_with_their_runs_but_for_the_newest
        );
    };
    ($subject:expr; $($promise:ident),+) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let mut subject = $subject;
                $crate::conformance::$promise(&mut subject).await;
            }
        )+
    };
}

/// Appends and waits for the answer.
pub async fn do_append(store: &dyn Store, append: Append) -> Result<(), AppendError> {
    store.append(append).await.await.expect("every append is answered")
}

/// Creates a run with these events after its creation.
pub async fn make_run(store: &dyn Store, run: &RunId, dag: &str, events: Vec<Event>) {
    let mut all = vec![script::created(run, dag)];
    all.extend(events);
    do_append(store, script::append(run, 0, all)).await.unwrap();
}

/// All events of a run.
pub async fn read_all(store: &dyn Store, run: &RunId) -> Vec<Recorded> {
    store.events(run, 0, usize::MAX).await.unwrap()
}

fn events_of(recorded: &[Recorded]) -> Vec<Event> {
    recorded.iter().map(|recorded| recorded.event.clone()).collect()
}
