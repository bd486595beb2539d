//! What outlives a process: time, the faults that are still to come, the first violation, the history.

use super::Broken;
use super::dice::Dice;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// More than this in one run is a hang that keeps busy.
pub(crate) const OPERATIONS_MAX: u64 = 40_000;
/// Lines of history kept, unless `BACKSTOP_HISTORY_LINES` says otherwise.
const HISTORY_LINES: usize = 400;

/// Milliseconds of virtual time since the world began.
pub(crate) type Moment = u64;

/// The world of one seed. Everything in it happens on one thread; the mutex is there because the seams ask for `Sync`.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) broken: Broken,
    inner: Mutex<Inner>,
    /// Asks the process to die.
    pub(crate) crash: Notify,
    pub(crate) operations_max: u64,
    /// What must hold of the statements that are being worked on, by their first effect.
    pub(crate) sight: OnceLock<Sight>,
}

/// Says what is wrong with what the databases see at one moment.
pub(crate) type Sight = Box<dyn Fn(&BTreeMap<u64, UnderWay>) -> Result<(), String> + Send + Sync>;

/// A unit of statements that a server works on.
#[derive(Clone, Debug)]
pub(crate) struct UnderWay {
    /// Its first effect.
    pub(crate) effect: String,
    /// For how many milliseconds.
    pub(crate) age_ms: u64,
}

struct Inner {
    /// Processes that have begun.
    processes: u32,
    /// Virtual time when this process began.
    begun: Moment,
    origin: Option<Instant>,
    last: Moment,
    faults: Dice,
    fault_percent: u64,
    faults_left: u32,
    operations: u64,
    /// Since when each unit is being worked on, and its first effect.
    units: BTreeMap<u64, (Moment, String)>,
    units_begun: u64,
    events: u64,
    /// Of this process: the event, or the operation of a database, with which it dies.
    dies_at_event: Option<u64>,
    dies_at_operation: Option<u64>,
    /// Effects of callbacks that the log allows.
    allowed_calls: BTreeSet<String>,
    /// How often a person asked for the effects of an instance once more, by the beginning of their names.
    asked_again: BTreeMap<String, u32>,
    violation: Option<String>,
    history: Option<VecDeque<String>>,
    history_lines: usize,
    /// Nothing can be written before.
    disk_full_until: Moment,
}

/// How a unit of statements goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server takes so many milliseconds.
    Slow(u64),
    /// The transaction is not begun.
    Begin,
    /// The victim of a deadlock: the whole transaction is rolled back.
    Deadlock,
    /// A constraint: the whole transaction is rolled back.
    Constraint,
    /// The link breaks before anything that commits was sent. The server notices so many milliseconds later.
    LostBeforeCommit(u64),
    /// It commits, and the answer is lost.
    LostCommitted,
    /// It does not commit, and the answer is lost.
    LostRolledBack,
    /// The answer is lost, and the server ends the transaction later, in one way or the other.
    LostOpen {
        /// False: what was sent has not even reached the server.
        holds_key: bool,
        commits: bool,
        after: u64,
    },
    /// The server restarts: open transactions are rolled back, all links break.
    Restart,
}

impl World {
    pub(crate) fn new(seed: u64, broken: Broken, fault_percent: u64, faults_left: u32, keeps_history: bool) -> Self {
        Self {
            seed,
            broken,
            crash: Notify::new(),
            operations_max: OPERATIONS_MAX,
            sight: OnceLock::new(),
            inner: Mutex::new(Inner {
                processes: 0,
                begun: 0,
                origin: None,
                last: 0,
                faults: Dice::for_purpose(seed, 2),
                fault_percent,
                faults_left,
                operations: 0,
                units: BTreeMap::new(),
                units_begun: 0,
                events: 0,
                dies_at_event: None,
                dies_at_operation: None,
                allowed_calls: BTreeSet::new(),
                asked_again: BTreeMap::new(),
                violation: None,
                history: keeps_history.then(VecDeque::new),
                history_lines: history_lines(),
                disk_full_until: 0,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process begins, so many milliseconds after the last one ended. Called inside its runtime.
    pub(crate) fn begin_process(&self, pause: u64, dies_at_event: Option<u64>, dies_at_operation: Option<u64>) {
        let mut inner = self.inner();
        inner.processes += 1;
        inner.last += pause;
        inner.begun = inner.last;
        inner.origin = Some(Instant::now());
        inner.dies_at_event = dies_at_event.map(|events| inner.events + events);
        inner.dies_at_operation = dies_at_operation.map(|operations| inner.operations + operations);
    }

    /// The process is gone; what is dropped with it asks for the time outside of any runtime.
    pub(crate) fn end_process(&self) {
        let now = self.now();
        let mut inner = self.inner();
        inner.last = now;
        inner.origin = None;
    }

    /// The number of this process, or of the last one.
    pub(crate) fn process(&self) -> u32 {
        self.inner().processes
    }

    /// False while a dead process is dropped, and before the next one begins.
    pub(crate) fn has_process(&self) -> bool {
        self.inner().origin.is_some()
    }

    pub(crate) fn now(&self) -> Moment {
        let mut inner = self.inner();
        if let Some(origin) = inner.origin {
            inner.last = inner.begun + origin.elapsed().as_millis() as u64;
        }
        inner.last
    }

    /// Time passes while no process lives.
    pub(crate) fn wait_until(&self, moment: Moment) {
        let mut inner = self.inner();
        inner.last = inner.last.max(moment);
    }

    /// Counts something asked of a database, and lets the process die of it.
    pub(crate) fn operation(&self, what: impl FnOnce() -> String) {
        self.say(what);
        let mut inner = self.inner();
        inner.operations += 1;
        let dies = inner.dies_at_operation == Some(inner.operations);
        let is_endless = inner.operations > self.operations_max;
        drop(inner);
        if is_endless {
            self.violated(|| format!("more than {} operations were asked of the databases", self.operations_max));
        }
        if dies {
            self.say(|| "the process dies in an operation of a database".into());
            self.crash.notify_one();
        }
    }

    /// Counts decided events, and lets the process die of them.
    pub(crate) fn events(&self, count: u64) {
        let mut inner = self.inner();
        let before = inner.events;
        inner.events += count;
        let dies = inner.dies_at_event.is_some_and(|at| before < at && at <= inner.events);
        drop(inner);
        if dies {
            self.say(|| "the process dies behind an event".into());
            self.crash.notify_one();
        }
    }

    /// Takes back a wish to die that nobody heard.
    pub(crate) fn forget_crash(&self) {
        let mut heard = std::pin::pin!(self.crash.notified());
        // Taking the permit is all that is wanted.
        let _ = heard.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.events, inner.operations)
    }

    /// The fault of the next unit, if it has one.
    pub(crate) fn unit_fault(&self) -> Option<Fault> {
        let mut inner = self.inner();
        inner.draw(100)?;
        let dice = &mut inner.faults;
        Some(match dice.below(13) {
            0 | 1 => Fault::Slow(dice.between(1, 60_000)),
            2 => Fault::Begin,
            3 | 4 => Fault::Deadlock,
            5 => Fault::Constraint,
            6 => Fault::LostBeforeCommit(later(dice)),
            7 | 8 => Fault::LostCommitted,
            9 => Fault::LostRolledBack,
            10 | 11 => Fault::LostOpen { holds_key: dice.chance(60), commits: dice.chance(50), after: later(dice) },
            _ => Fault::Restart,
        })
    }

    /// No more faults.
    pub(crate) fn end_faults(&self) {
        let mut inner = self.inner();
        inner.faults_left = 0;
        inner.disk_full_until = 0;
    }

    /// Nothing can be written to the store for so many milliseconds.
    pub(crate) fn fill_disk(&self, milliseconds: u64) {
        let until = self.now() + milliseconds;
        self.inner().disk_full_until = until;
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        let now = self.now();
        now < self.inner().disk_full_until
    }

    /// A server begins to work on something that has this effect. Gives its number, for [`Self::unit_ends`].
    pub(crate) fn unit_begins(&self, effect: &str) -> u64 {
        let now = self.now();
        let mut inner = self.inner();
        inner.units_begun += 1;
        let number = inner.units_begun;
        inner.units.insert(number, (now, effect.to_owned()));
        let under_way = |(since, effect): &(Moment, String)| UnderWay { effect: effect.clone(), age_ms: now - since };
        // Whoever looks may ask the world for something.
        let units = self.sight.get().map(|sight| {
            (sight, inner.units.iter().map(|(number, unit)| (*number, under_way(unit))).collect::<BTreeMap<_, _>>())
        });
        drop(inner);
        let seen = units.map_or(Ok(()), |(sight, units)| sight(&units));
        if let Err(what) = seen {
            self.violated(|| what);
        }
        number
    }

    pub(crate) fn unit_ends(&self, number: u64) {
        self.inner().units.remove(&number);
    }

    /// True when something else than a unit goes wrong: opening a link, a probe, a cancel, a reset, the disk. Units are the interesting
    /// part, so `weight` of a hundred thins the others out.
    pub(crate) fn other_fault(&self, weight: u64) -> bool {
        self.inner().draw(weight).is_some()
    }

    /// A number for something that is no fault, such as how long an answer takes.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.inner().faults.below(bound)
    }

    /// A callback of which the log durably says that it must run.
    pub(crate) fn allow_call(&self, effect: String) {
        self.inner().allowed_calls.insert(effect);
    }

    /// A person cleared an instance, or reopened the run: effects whose names begin so may be applied once more.
    pub(crate) fn ask_again(&self, beginning: String) {
        *self.inner().asked_again.entry(beginning).or_insert(0) += 1;
    }

    /// How often an effect may be applied at most.
    pub(crate) fn times_asked(&self, effect: &str) -> u32 {
        let inner = self.inner();
        1 + inner
            .asked_again
            .iter()
            .filter(|(beginning, _)| effect.starts_with(&**beginning))
            .map(|(_, times)| times)
            .sum::<u32>()
    }

    pub(crate) fn is_allowed_call(&self, effect: &str) -> bool {
        self.inner().allowed_calls.contains(effect)
    }

    /// Keeps the first violation, and ends the process.
    pub(crate) fn violated(&self, what: impl FnOnce() -> String) {
        let mut inner = self.inner();
        if inner.violation.is_none() {
            let text = what();
            if let Some(history) = &mut inner.history {
                history.push_back(format!("VIOLATION: {text}"));
            }
            inner.violation = Some(text);
        }
        drop(inner);
        self.crash.notify_one();
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.inner().violation.clone()
    }

    /// A line of history; costs nothing when none is kept.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.inner().history.is_none() {
            return;
        }
        let line = format!("{:>10} {}", self.now(), what());
        let mut inner = self.inner();
        let lines = inner.history_lines;
        if let Some(history) = &mut inner.history {
            if history.len() >= lines {
                history.pop_front();
            }
            history.push_back(line);
        }
    }

    pub(crate) fn history(&self) -> Vec<String> {
        self.inner().history.iter().flatten().cloned().collect()
    }
}

fn history_lines() -> usize {
    std::env::var("BACKSTOP_HISTORY_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(HISTORY_LINES)
}

impl Inner {
    /// True in `fault_percent` of `weight` cases of a hundred, while faults are left.
    fn draw(&mut self, weight: u64) -> Option<()> {
        let hit = self.faults_left > 0 && self.faults.chance(self.fault_percent) && self.faults.chance(weight);
        hit.then(|| self.faults_left -= 1)
    }
}

/// How much later a server notices that a client is gone: mostly soon, now and then later than anybody waits.
pub(crate) fn later(dice: &mut Dice) -> u64 {
    match dice.below(10) {
        0..=4 => dice.between(1, 500),
        5..=7 => dice.between(500, 30_000),
        8 => dice.between(30_000, 600_000),
        _ => dice.between(600_000, 2_400_000),
    }
}

/// The fake clock: virtual time from a fixed date.
pub(crate) struct FakeClock(pub(crate) std::sync::Arc<World>);

/// The virtual time as the runtime knows time.
pub(crate) fn timestamp(moment: Moment) -> Timestamp {
    const BEGINNING: i64 = 1_746_057_600;
    let beginning = Timestamp::from_second(BEGINNING).unwrap_or(Timestamp::UNIX_EPOCH);
    beginning.checked_add(SignedDuration::from_millis(moment as i64)).unwrap_or(Timestamp::MAX)
}

impl backstop_runtime::Clock for FakeClock {
    fn now(&self) -> Timestamp {
        timestamp(self.0.now())
    }
}
