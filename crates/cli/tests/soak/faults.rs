//! What networks, servers and machines do to a service that goes on: links that are cut, also just when a commit was carried out and
//! nobody has been told, links that hold everything back or are slow, servers that are cut off, killed and started again, a machine that
//! is suspended, a disk that fills up, and a kill now and then.

use crate::disk::Disk;
use crate::killer::{Killer, Kills, sleep};
use crate::load::Load;
use crate::service::{Service, ask};
use crate::work::Work;
use backstop_testkit::proxy::Proxy;
use nix::sys::signal::Signal;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// How long a service may go on as if nothing were, on a disk that is full.
const SAYS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// What it says.
const FULL: &str = "the disk is full";

/// A database server and the proxy through which the service reaches it.
pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    /// Kills the server and all its processes, and starts it again.
    pub(crate) restart: Box<dyn Fn()>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    LinksCut,
    CommitUnanswered,
    HeldBack,
    HeldBackAndCut,
    Slow,
    CutOff,
    ServerKilled,
    Suspended,
    ServiceKilled,
    DiskFull,
    DiskFullAndKilled,
}

/// What happens around a service whose disk has room.
pub(crate) const FAULTS: [Fault; 9] = [
    Fault::LinksCut,
    Fault::CommitUnanswered,
    Fault::HeldBack,
    Fault::HeldBackAndCut,
    Fault::Slow,
    Fault::CutOff,
    Fault::ServerKilled,
    Fault::Suspended,
    Fault::ServiceKilled,
];

/// What happens to a disk, also while something else goes wrong.
pub(crate) const DISK_FAULTS: [Fault; 6] =
    [Fault::DiskFull, Fault::DiskFull, Fault::DiskFullAndKilled, Fault::DiskFullAndKilled, Fault::LinksCut, Fault::ServiceKilled];

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Self::LinksCut => "all links to a server cut",
            Self::CommitUnanswered => "link cut when a COMMIT was answered",
            Self::HeldBack => "nothing gets through for a while",
            Self::HeldBackAndCut => "nothing gets through, then the links are cut",
            Self::Slow => "every piece 20 ms late for a while",
            Self::CutOff => "server cut off: links cut, new ones refused",
            Self::ServerKilled => "server killed and started again",
            Self::Suspended => "service suspended for a while (SIGSTOP)",
            Self::ServiceKilled => "service killed and started again",
            Self::DiskFull => "disk full for a while",
            Self::DiskFullAndKilled => "disk full, and the service killed meanwhile",
        }
    }
}

/// What happened.
pub(crate) struct Faults {
    counts: BTreeMap<Fault, u64>,
    commits_unanswered: u64,
    full: WhileFull,
}

/// What the service said while its disk was full.
#[derive(Default)]
struct WhileFull {
    said: u64,
    /// Processes that were started on a full disk, and ended by themselves with the reason.
    refused: u64,
    /// Those that served, and said it.
    served: u64,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, count) in &self.counts {
            writeln!(f, "{:<52}{count:>8}", fault.words())?;
        }
        if self.full.said > 0 {
            writeln!(f, "{:<52}{:>8}", "  /health said that the disk is full", self.full.said)?;
            writeln!(f, "{:<52}{:>8}", "  started on a full disk, said so and ended", self.full.refused)?;
            writeln!(f, "{:<52}{:>8}", "  started on a full disk, served and said so", self.full.served)?;
        }
        writeln!(f, "{:<52}{:>8}", "  COMMITs carried out whose answers were lost", self.commits_unanswered)
    }
}

/// Where faults happen, which, and how many.
pub(crate) struct Plan<'a> {
    pub(crate) sites: &'a [Site],
    pub(crate) kinds: &'a [Fault],
    /// The disk that is filled, where that is one of them.
    pub(crate) disk: Option<&'a Disk>,
    pub(crate) wanted: u64,
}

/// Lets faults happen, and in the end lets every run end.
pub(crate) fn let_happen(work: &Work, load: &Load<'_>, random: &mut StdRng, plan: &Plan<'_>) -> (Faults, Kills) {
    let mut kills = Kills::default();
    let mut counts: BTreeMap<Fault, u64> = plan.kinds.iter().map(|fault| (*fault, 0)).collect();
    let mut full = WhileFull::default();
    // Each kind at least once, then at random.
    let mut first: Vec<Fault> = plan.kinds.to_vec();
    let mut service = {
        let killer = Killer { work, load, random: &mut *random };
        let (service, address) = killer.serve(&mut kills);
        load.moved(Some(address));
        killer.wait_until_busy(|| false);
        service
    };
    for _ in 0..plan.wanted {
        let fault = if first.is_empty() {
            plan.kinds[random.random_range(0..plan.kinds.len())]
        } else {
            first.swap_remove(random.random_range(0..first.len()))
        };
        *counts.entry(fault).or_default() += 1;
        let site = &plan.sites[random.random_range(0..plan.sites.len())];
        let time = Duration::from_millis(random.random_range(100..1500));
        let filled = match (fault, plan.disk) {
            (Fault::DiskFull | Fault::DiskFullAndKilled, Some(disk)) => Some(disk.fill()),
            _ => None,
        };
        if filled.is_some() {
            says_that_it_is_full(&mut service);
            full.said += 1;
            sleep(time);
        }
        if matches!(fault, Fault::ServiceKilled | Fault::DiskFullAndKilled) {
            load.moved(None);
            service.kill();
            if filled.is_some() {
                start_on_full_disk(work, &mut full);
            }
            drop(filled);
            let (next, address) = Killer { work, load, random: &mut *random }.serve(&mut kills);
            load.moved(Some(address));
            service = next;
        } else {
            drop(filled);
            happen(fault, site, &service, time);
        }
        sleep(Duration::from_millis(random.random_range(0..500)));
    }
    load.end();
    let killer = Killer { work, load, random };
    killer.drain(&mut service);
    service.terminate();
    let commits_unanswered = plan.sites.iter().map(|site| site.proxy.cuts_when_answered()).sum();
    (Faults { counts, commits_unanswered, full }, kills)
}

/// Waits until the health of a service tells of its disk.
fn says_that_it_is_full(service: &mut Service) {
    let address = service.address();
    let since = Instant::now();
    loop {
        let health =
            ask(&address, "GET", "/health", None).unwrap_or_else(|| panic!("no answer to /health:\n{}", service.heard()));
        if health.status == 503 {
            assert!(health.body.contains(FULL), "{}", health.body);
            return;
        }
        assert!(since.elapsed() < SAYS_WITHIN, "it has no room and says {}: {}", health.status, health.body);
        sleep(LOOK_EVERY);
    }
}

/// A process that finds no room says so: as its last word, or in its health.
fn start_on_full_disk(work: &Work, full: &mut WhileFull) {
    let mut service = Service::start(work.project());
    match service.address_or_end() {
        Some(_) => {
            says_that_it_is_full(&mut service);
            full.served += 1;
        }
        None => {
            assert!(service.heard().contains(FULL), "it ended, and does not say why: {}", service.heard());
            full.refused += 1;
        }
    }
}

fn happen(fault: Fault, site: &Site, service: &Service, time: Duration) {
    let proxy = &site.proxy;
    match fault {
        Fault::LinksCut => proxy.cut(),
        Fault::CommitUnanswered => {
            proxy.cut_when_answered(b"COMMIT");
            sleep(time);
        }
        Fault::HeldBack => {
            proxy.stall();
            sleep(time);
        }
        Fault::HeldBackAndCut => {
            proxy.stall();
            sleep(time);
            proxy.cut();
        }
        Fault::Slow => {
            proxy.delay(Duration::from_millis(20));
            sleep(time);
        }
        Fault::CutOff => {
            proxy.go_down();
            sleep(time);
        }
        Fault::ServerKilled => (site.restart)(),
        Fault::Suspended => {
            service.signal(Signal::SIGSTOP);
            sleep(time);
            service.signal(Signal::SIGCONT);
        }
        // While it was full: the room is there again.
        Fault::DiskFull => {}
        Fault::ServiceKilled | Fault::DiskFullAndKilled => unreachable!("whoever has the service kills it"),
    }
    proxy.heal();
}
