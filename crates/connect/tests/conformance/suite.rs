//! What every connector does.

mod lookouts;
mod markers;
mod prepared;
mod sessions;
mod shared;
mod statements;
mod units;

use super::bed::Bed;
pub(super) use lookouts::*;
pub(super) use markers::*;
pub(super) use prepared::*;
pub(super) use sessions::*;
pub(super) use shared::*;
pub(super) use statements::*;
pub(super) use units::*;

/// Instantiates the suite for one kind of database.
macro_rules! conforms {
    ($bed:path) => {
        conforms! { @tests $bed:
            parameters_come_back_as_they_went_in, a_million_rows_pass_without_being_kept, an_observer_stops_a_statement,
            a_stopped_unit_leaves_nothing, a_marked_unit_commits_once, a_kept_result_comes_back_from_the_marker,
            a_unit_that_reads_returns_rows_and_needs_no_marker, a_unit_that_writes_is_refused_where_it_may_only_read,
            unmarked_rolled_back_and_bare_units_do_what_they_say, a_failing_statement_rolls_the_unit_back,
            a_recovered_error_does_not_bring_a_unit_back_to_life, transaction_control_is_refused_inside_a_unit,
            a_fenced_attempt_cannot_commit, a_probe_waits_for_an_open_transaction_and_says_so, a_probe_finds_a_commit,
            check_first_finds_a_commit_before_anything_runs, eight_sessions_make_the_marker_table_at_once,
            a_unique_violation_is_a_constraint_error, a_syntax_error_has_its_position, a_cancelled_statement_ends_on_the_server,
            a_cancel_without_a_statement_is_harmless, a_reset_forgets_settings_and_temporary_tables, statements_of_megabytes_run,
            a_session_left_in_the_middle_is_not_usable, savepoints_undo_a_part, keys_compare_byte_by_byte,
            unknown_settings_are_named_with_the_known_ones, a_lock_wait_ends_with_its_own_kind,
            markers_are_pruned_by_run_and_age, a_blocked_statement_names_its_blocker, a_session_that_is_gone_is_not_seen,
            a_shared_transaction_commits_once_with_its_marker, a_fenced_shared_transaction_cannot_commit,
            a_shared_transaction_that_is_reset_is_rolled_back, a_shared_transaction_waits_for_locks_as_long_as_it_may,
            a_shared_transaction_that_was_left_behind_is_ended_by_its_name
        }
    };
    (@tests $bed:path: $($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(bed) = $bed() {
                    super::suite::$name(&bed).await;
                }
            }
        )*
    };
}
pub(super) use conforms;

fn endless(bed: &Bed) -> &'static str {
    bed.pick(
        "SELECT pg_sleep(600)",
        "SELECT SLEEP(600)",
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s",
    )
}
