//! The service as it is killed with kill -9, over and over, while it drives 200 runs of real SQL on PostgreSQL, MariaDB and SQLite. At the end
//! every run that was asked for is there and done, and the databases themselves say that each segment was applied exactly once.
//!
//! Then once more with links that break and servers that are killed instead, and once with a disk that fills up over and over.
//!
//! `BACKSTOP_KILLS` sets how many kills (`make soak`: 1000), `BACKSTOP_RUNS` how many runs go on at once, `BACKSTOP_FAULTS` how
//! often something breaks, `BACKSTOP_DISK_FAULTS` how often where the disk fills up; the seed is printed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops at what it did not expect")]

mod disk;
mod faults;
mod killer;
mod load;
mod operator;
mod service;
mod verdict;
mod work;

use backstop_testkit::proxy::Proxy;
use backstop_testkit::servers::{MariaDb, Postgres, skip_or_fail};
use disk::Disk;
use faults::{DISK_FAULTS, FAULTS, Plan, Site};
use killer::{Killer, Kills};
use load::Load;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;
use work::{Target, Work};

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[test]
fn a_service_that_is_killed_over_and_over_loses_nothing_and_applies_everything_once() {
    let (Some(postgres), Some(maria)) = (Postgres::shared(), MariaDb::shared()) else { return };
    let seed = number_from("BACKSTOP_SEED").unwrap_or_else(|| rand::rng().random());
    let kills = number_from("BACKSTOP_KILLS").unwrap_or(15);
    let runs = number_from("BACKSTOP_RUNS").unwrap_or(200);
    println!("BACKSTOP_SEED={seed} BACKSTOP_KILLS={kills} BACKSTOP_RUNS={runs}");
    let work =
        Work::prepare(vec![Target::postgres(postgres, postgres.port()), Target::maria(maria, maria.port()), Target::sqlite()]);
    let load = Load::new(&work, usize::try_from(runs).unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let counts: Kills = std::thread::scope(|scope| {
        let _ends = load.ends_with_me();
        let loading = scope.spawn(|| load.keep_up());
        let counts = Killer { work: &work, load: &load, random: &mut random }.kill(kills, || loading.is_finished());
        // A panic of the other thread is told as it was.
        loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counts
    });
    let verdict = verdict::judge(&work, &load);
    println!("{counts}{verdict}");
}

#[test]
fn broken_links_and_servers_that_die_lose_nothing_and_apply_nothing_twice() {
    let Some(place) = Place::new() else { return };
    let wanted = number_from("BACKSTOP_FAULTS").unwrap_or(12);
    place.suffers(&Plan { sites: &place.sites, kinds: &FAULTS, disk: None, wanted });
}

#[test]
fn a_disk_that_fills_up_over_and_over_loses_nothing_and_everything_goes_on_when_there_is_room() {
    let Some(place) = Place::new() else { return };
    let Some(disk) = Disk::under(place.work.project()) else { return };
    let wanted = number_from("BACKSTOP_DISK_FAULTS").unwrap_or(8);
    place.suffers(&Plan { sites: &place.sites, kinds: &DISK_FAULTS, disk: Some(&disk), wanted });
}

/// Servers of their own, because they are killed, behind proxies.
struct Place {
    work: Work,
    sites: [Site; 2],
}

impl Place {
    fn new() -> Option<Self> {
        if Postgres::program("initdb").is_none() || MariaDb::program("mariadbd").is_none() {
            skip_or_fail("no PostgreSQL or no MariaDB server binaries");
            return None;
        }
        let (postgres, maria) = (Arc::new(Postgres::start().unwrap()), Arc::new(MariaDb::start().unwrap()));
        let (to_postgres, to_maria) = (Proxy::to(postgres.port()).unwrap(), Proxy::to(maria.port()).unwrap());
        let targets = vec![
            Target::postgres(postgres.clone(), to_postgres.port()),
            Target::maria(maria.clone(), to_maria.port()),
            Target::sqlite(),
        ];
        let again_postgres = move || {
            postgres.stop_hard();
            postgres.restart().unwrap();
        };
        let again_maria = move || {
            maria.stop_hard();
            maria.restart().unwrap();
        };
        let sites = [
            Site { proxy: to_postgres, restart: Box::new(again_postgres) },
            Site { proxy: to_maria, restart: Box::new(again_maria) },
        ];
        Some(Self { work: Work::prepare(targets), sites })
    }

    fn suffers(&self, plan: &Plan<'_>) {
        let seed = number_from("BACKSTOP_SEED").unwrap_or_else(|| rand::rng().random());
        println!("BACKSTOP_SEED={seed}, {} faults", plan.wanted);
        let load = Load::new(&self.work, usize::try_from(number_from("BACKSTOP_RUNS").unwrap_or(60)).unwrap());
        let mut random = StdRng::seed_from_u64(seed);
        let (faults, kills) = std::thread::scope(|scope| {
            let _ends = load.ends_with_me();
            let loading = scope.spawn(|| load.keep_up());
            let told = faults::let_happen(&self.work, &load, &mut random, plan);
            loading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            told
        });
        let verdict = verdict::judge(&self.work, &load);
        println!("{faults}{kills}{verdict}");
    }
}
