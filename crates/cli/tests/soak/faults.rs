//! What networks, servers and machines do to a service that goes on: links that are cut, also just when a commit was carried out and
//! nobody has been told, links that hold everything back or are slow, servers that are cut off, killed and started again, a machine that
//! is suspended, and a kill now and then.

use crate::killer::{Killer, Kills, sleep};
use crate::load::Load;
use crate::service::Service;
use crate::work::Work;
use backstop_testkit::proxy::Proxy;
use nix::sys::signal::Signal;
use rand::RngExt as _;
use rand::rngs::StdRng;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A database server and the proxy through which the service reaches it.
pub(crate) struct Site {
    pub(crate) proxy: Proxy,
    /// Kills the server and all its processes, and starts it again.
    pub(crate) restart: Box<dyn Fn()>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    LinksCut,
    CommitUnanswered,
    HeldBack,
    HeldBackAndCut,
    Slow,
    CutOff,
    ServerKilled,
    Suspended,
    ServiceKilled,
}

const FAULTS: [Fault; 9] = [
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
        }
    }
}

/// What happened.
pub(crate) struct Faults {
    counts: BTreeMap<Fault, u64>,
    commits_unanswered: u64,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fault, count) in &self.counts {
            writeln!(f, "{:<52}{count:>8}", fault.words())?;
        }
        writeln!(f, "{:<52}{:>8}", "  COMMITs carried out whose answers were lost", self.commits_unanswered)
    }
}

/// Lets faults happen, and in the end lets every run end.
pub(crate) fn let_happen(work: &Work, load: &Load<'_>, random: &mut StdRng, sites: &[Site], wanted: u64) -> (Faults, Kills) {
    let mut kills = Kills::default();
    let mut counts: BTreeMap<Fault, u64> = FAULTS.map(|fault| (fault, 0)).into();
    // Each kind at least once, then at random.
    let mut first: Vec<Fault> = FAULTS.to_vec();
    let mut service = {
        let killer = Killer { work, load, random: &mut *random };
        let (service, address) = killer.serve(&mut kills);
        load.moved(Some(address));
        killer.wait_until_busy(|| false);
        service
    };
    for _ in 0..wanted {
        let fault = if first.is_empty() {
            FAULTS[random.random_range(0..FAULTS.len())]
        } else {
            first.swap_remove(random.random_range(0..first.len()))
        };
        *counts.entry(fault).or_default() += 1;
        let site = &sites[random.random_range(0..sites.len())];
        let time = Duration::from_millis(random.random_range(100..1500));
        if fault == Fault::ServiceKilled {
            load.moved(None);
            service.kill();
            let (next, address) = Killer { work, load, random: &mut *random }.serve(&mut kills);
            load.moved(Some(address));
            service = next;
        } else {
            happen(fault, site, &service, time);
        }
        sleep(Duration::from_millis(random.random_range(0..500)));
    }
    load.end();
    let killer = Killer { work, load, random };
    killer.drain(&mut service);
    service.terminate();
    let commits_unanswered = sites.iter().map(|site| site.proxy.cuts_when_answered()).sum();
    (Faults { counts, commits_unanswered }, kills)
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
        Fault::ServiceKilled => unreachable!("whoever has the service kills it"),
    }
    proxy.heal();
}
