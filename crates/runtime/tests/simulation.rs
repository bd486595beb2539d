//! Thousands of seeded runs through faults and crashes: see `backstop_testkit::simulator`.
//!
//! `BACKSTOP_SEEDS` says how many (3,000 by default), `BACKSTOP_FIRST_SEED` where to begin, `BACKSTOP_SERVICE_SEEDS` how many of them are
//! whole services (by default one for every ten).

use backstop_testkit::simulator::{Broken, Simulation, TRANSACTIONS_FROM, run_seed};

/// Seeds with a violation that are told beside the first.
const OTHERS_TOLD: usize = 9;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
        Err(_) => default,
    }
}

#[test]
fn every_seed_keeps_the_invariants() {
    let first = number("BACKSTOP_FIRST_SEED", 0);
    let seeds = number("BACKSTOP_SEEDS", 3_000);
    let mut violations = (first..first + seeds).filter_map(|seed| run_seed(seed).err());
    let Some(violation) = violations.next() else { return };
    let others: Vec<String> =
        violations.take(OTHERS_TOLD).map(|other| format!("  seed {}: {}", other.seed, other.what)).collect();
    panic!(
        "{violation}\nalso:\n{}\nrun it again:\n  BACKSTOP_FIRST_SEED={} BACKSTOP_SEEDS=1 cargo test -p backstop-runtime --test simulation every_seed",
        others.join("\n"),
        violation.seed
    );
}

/// Groups of tasks that share a transaction, among others. `BACKSTOP_TRANSACTION_SEEDS` says how many (1,500 by default).
#[test]
fn every_seed_with_transactions_keeps_the_invariants() {
    let first = TRANSACTIONS_FROM + number("BACKSTOP_FIRST_SEED", 0);
    let seeds = number("BACKSTOP_TRANSACTION_SEEDS", number("BACKSTOP_SEEDS", 3_000) / 2);
    let mut violations = (first..first + seeds).filter_map(|seed| run_seed(seed).err());
    let Some(violation) = violations.next() else { return };
    let others: Vec<String> =
        violations.take(OTHERS_TOLD).map(|other| format!("  seed {}: {}", other.seed - TRANSACTIONS_FROM, other.what)).collect();
    panic!(
        "{violation}\nalso:\n{}\nrun it again:\n  BACKSTOP_FIRST_SEED={} BACKSTOP_TRANSACTION_SEEDS=1 cargo test -p backstop-runtime --test simulation every_seed_with",
        others.join("\n"),
        violation.seed - TRANSACTIONS_FROM
    );
}

#[test]
fn a_seed_tells_the_same_story_twice() {
    for seed in 0..number("BACKSTOP_SEEDS", 3_000) / 10 {
        let simulation = Simulation { seed, broken: Broken::Nothing, keeps_history: true };
        let (once, twice) = (simulation.run(), simulation.run());
        assert_eq!(once, twice, "seed {seed}");
    }
}

/// The simulator can fail: with a rule broken on purpose, one of the first seeds says so.
mod broken {
    use super::{Broken, Simulation};

    fn check(broken: Broken) {
        const SEEDS: u64 = 400;
        let found = (0..SEEDS).find_map(|seed| Simulation { seed, broken, keeps_history: false }.run().err());
        assert!(found.is_some(), "{broken:?} goes unnoticed for {SEEDS} seeds");
    }

    #[test]
    fn a_probe_that_does_not_look_is_noticed() {
        check(Broken::ProbeAlwaysFences);
    }

    #[test]
    fn a_probe_that_leaves_no_tombstone_is_noticed() {
        check(Broken::ProbeLeavesNoTombstone);
    }

    #[test]
    fn a_marker_table_without_its_key_is_noticed() {
        check(Broken::MarkerNotUnique);
    }

    #[test]
    fn a_commit_without_its_marker_is_noticed() {
        check(Broken::MarkerForgotten);
    }

    #[test]
    fn a_store_that_lies_is_noticed() {
        check(Broken::StoreLies);
    }
}

/// Each rule with seeds that find a violation when it is taken away (see the commits that brought it, all found by the simulator).
/// When the simulator itself is changed, its seeds mean other runs: take each rule away once more and find seeds anew.
mod found {
    use super::run_seed;

    fn check(seeds: &[u64]) {
        for seed in seeds {
            if let Err(violation) = run_seed(*seed) {
                panic!("{violation}");
            }
        }
    }

    #[test]
    fn statements_without_a_transaction_are_done_though_their_closing_marker_fails() {
        check(&[13, 30, 76]);
    }

    #[test]
    fn a_first_try_that_fails_after_a_crash_is_probed_for_what_ran_ahead_of_the_log() {
        check(&[128, 425, 1011]);
    }

    #[test]
    fn a_segment_that_only_reads_does_not_hide_the_commits_behind_it() {
        check(&[175, 450, 744]);
    }

    #[test]
    fn a_segment_that_only_reads_does_not_lose_its_result() {
        check(&[378, 569, 2248]);
    }

    #[test]
    fn what_may_come_out_otherwise_is_durable_before_what_follows_from_it_takes_effect() {
        check(&[197, 1955, 2072]);
    }

    #[test]
    fn a_second_try_waits_for_the_log() {
        check(&[503, 822, 834]);
    }

    #[test]
    fn a_person_who_says_that_a_segment_took_effect_does_not_end_the_task() {
        check(&[116, 166, 238]);
    }

    #[test]
    fn a_task_with_nothing_left_to_do_succeeds_at_once() {
        check(&[47_744, 102_469, 112_437]);
    }

    #[test]
    fn a_cancel_after_a_crash_first_looks_for_what_ran_ahead_of_the_log() {
        check(&[1583, 20_930, 51_568]);
    }

    #[test]
    fn a_cancel_does_not_skip_what_may_have_run_while_no_database_answers() {
        check(&[1_110_240]);
    }

    #[test]
    fn a_retry_keeps_what_committed_though_nothing_runs_again() {
        check(&[8869, 11_982, 42_465]);
    }

    #[test]
    fn a_retry_does_not_repeat_what_took_effect_by_a_persons_word() {
        check(&[41_496, 60_914, 66_838]);
    }

    #[test]
    fn a_segment_that_lost_its_closing_marker_is_known_by_the_one_behind_it() {
        check(&[46_834, 89_722, 94_727]);
    }
}

/// As `found`, of groups of tasks that share a transaction; counted from where their seeds begin.
mod found_with_transactions {
    use super::{TRANSACTIONS_FROM, run_seed};

    fn check(seeds: &[u64]) {
        for seed in seeds {
            if let Err(violation) = run_seed(TRANSACTIONS_FROM + seed) {
                panic!("{violation}");
            }
        }
    }

    #[test]
    fn a_commit_waits_for_the_log() {
        check(&[6, 8, 10]);
    }

    #[test]
    fn a_commit_that_was_begun_is_in_doubt_after_a_crash() {
        check(&[8, 247, 295]);
    }

    #[test]
    fn a_commit_in_doubt_is_asked_for() {
        check(&[8, 55, 189]);
    }

    #[test]
    fn each_try_of_the_whole_has_a_marker_of_its_own() {
        check(&[2, 17, 36]);
    }

    #[test]
    fn a_member_that_failed_is_taken_back_to_its_savepoint() {
        check(&[2130, 4314]);
    }

    #[test]
    fn the_whole_is_run_again_on_a_new_session() {
        check(&[16, 1954, 4273]);
    }

    #[test]
    fn what_can_commit_no_more_is_rolled_back() {
        check(&[7, 11, 12]);
    }

    #[test]
    fn an_open_transaction_keeps_its_slots() {
        check(&[742, 1068, 1343]);
    }

    #[test]
    fn a_first_member_that_failed_keeps_no_session() {
        check(&[58, 698, 723]);
    }

    #[test]
    fn what_is_run_again_stands_on_what_is_above_it_now() {
        check(&[2410]);
    }

    #[test]
    fn a_cancel_after_a_crash_gives_back_the_sessions_that_groups_keep() {
        check(&[39_243]);
    }

    /// Rules that were mended while groups were built, and are part of others by now.
    #[test]
    fn seeds_that_failed_once_go_well() {
        check(&[10_694, 17_159, 20_681]);
    }
}

/// Whole services, see `backstop_testkit::simulator::service`.
mod service {
    use super::{OTHERS_TOLD, number};
    use backstop_testkit::simulator::service::{Outcome, run, run_seed};

    /// A service costs some forty times what a run does.
    const RUNS_PER_SERVICE: u64 = 10;

    /// What seeds that ended well came to, together.
    #[derive(Debug, Default)]
    struct Sums {
        seeds: u64,
        runs: usize,
        runs_by_assets: usize,
        deadlines_of_waiting: usize,
        tasks_held: usize,
        runs_pinned: usize,
        processes: u64,
        operations: u64,
        requests: u64,
        events: usize,
        hours: f64,
    }

    impl Sums {
        fn add(&mut self, outcome: &Outcome) {
            self.seeds += 1;
            self.runs += outcome.runs;
            self.runs_by_assets += outcome.runs_by_assets;
            self.deadlines_of_waiting += outcome.deadlines_of_waiting;
            self.tasks_held += outcome.tasks_held;
            self.runs_pinned += outcome.runs_pinned;
            self.processes += u64::from(outcome.processes);
            self.operations += outcome.operations;
            self.requests += outcome.requests;
            self.events += outcome.log.len();
            self.hours += outcome.elapsed_ms as f64 / 3_600_000.0;
        }
    }

    fn services() -> u64 {
        match std::env::var("BACKSTOP_SERVICE_SEEDS") {
            Ok(_) => number("BACKSTOP_SERVICE_SEEDS", 0),
            Err(_) => number("BACKSTOP_SEEDS", 3_000).div_ceil(RUNS_PER_SERVICE),
        }
    }

    #[test]
    fn every_service_keeps_the_invariants() {
        let first = number("BACKSTOP_FIRST_SEED", 0);
        let mut violations = Vec::new();
        let mut sums = Sums::default();
        for seed in first..first + services() {
            match run_seed(seed) {
                Ok(outcome) => sums.add(&outcome),
                Err(violation) => violations.push(violation),
            }
        }
        println!("{sums:?}");
        let Some(violation) = violations.first() else {
            assert!(sums.seeds < 100 || sums.runs_by_assets > 0, "no seed has runs by assets");
            assert!(
                sums.seeds < 100 || sums.deadlines_of_waiting > 0,
                "no seed has a run that misses its deadline while it waits"
            );
            assert!(sums.seeds < 100 || sums.tasks_held > 0, "no seed has tasks that share a transaction");
            assert!(sums.seeds < 100 || sums.runs_pinned > 0, "no run was given other files");
            return;
        };
        let others: Vec<String> =
            violations.iter().skip(1).take(OTHERS_TOLD).map(|other| format!("  seed {}: {}", other.seed, other.what)).collect();
        panic!(
            "{violation}\nalso ({} in all):\n{}\nrun it again:\n  BACKSTOP_FIRST_SEED={} BACKSTOP_SERVICE_SEEDS=1 cargo test -p backstop-runtime --test simulation every_service",
            violations.len(),
            others.join("\n"),
            violation.seed
        );
    }

    #[test]
    fn a_service_tells_the_same_story_twice() {
        for seed in 0..services().div_ceil(20) {
            let (once, twice) = (run(seed, true), run(seed, true));
            assert_eq!(once, twice, "seed {seed}");
        }
    }

    /// Faults of the service that it found: see `found` above.
    mod found {
        use super::run_seed;

        fn check(seeds: &[u64]) {
            for seed in seeds {
                if let Err(violation) = run_seed(*seed) {
                    panic!("{violation}");
                }
            }
        }

        #[test]
        fn a_cancel_of_a_run_that_was_left_first_looks_for_what_ran_ahead_of_its_log() {
            check(&[875, 1030]);
        }

        #[test]
        fn a_pause_is_not_overwritten_by_a_schedule_that_moves_on() {
            check(&[287, 310]);
        }

        #[test]
        fn a_service_that_stops_does_not_turn_round_over_a_run_that_is_hindered() {
            check(&[271]);
        }
    }
}
