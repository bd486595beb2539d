//! The simulator of a whole service: one seed, some DAGs, several processes of `Service` one after the other, and people who steer.
//!
//! What is real: everything that the simulator of one run has as real, and the service's desk, scheduler, slots and live stream. What is
//! fake: time, which the machine's clock tells wrongly now and then, the databases, which die and come back, the disk, which is full for a
//! while. A process dies at some moment, or stops and hands over. In the end the faults stop, people go on resolving doubts, and everything must come to an end.
//!
//! Where to go next: `house` for what is run, `people` for what is asked of the service, `book` for what was answered and what must hold,
//! `assets` for what must hold of DAGs that wait for them, `deadlines` for what must be told of those.

mod assets;
mod book;
mod deadlines;
mod house;
mod people;

use super::dice::Dice;
use super::disk::Disk;
use super::scenario::SERVERS;
use super::server::Server;
use super::session::FakeConnector;
use super::world::{self, World};
use super::{Broken, Violation};
use backstop_connect::{Connector, Dialect};
use backstop_runtime::prune::Keep;
use backstop_runtime::service::live::What;
use backstop_runtime::service::{Level, LiveEvent, Notice, Options, Service, ServiceLimits};
use backstop_runtime::{Connect, LogWriter, SlotLimits};
use backstop_store::{MemoryStore, Store};
use book::Book;
use house::{House, Skewed};
use people::People;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast;

/// More than this is a hang that keeps busy.
const OPERATIONS_MAX: u64 = 1_000_000;
/// How long a service that stops is waited for before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// How a seed ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Runs there were.
    pub runs: usize,
    /// How many of them updates of assets asked for.
    pub runs_by_assets: usize,
    /// How many deadlines were told as missed of runs that had not begun.
    pub deadlines_of_waiting: usize,
    /// How many tasks did their work in a transaction that they share.
    pub tasks_held: usize,
    /// How often a run was given other files.
    pub runs_pinned: usize,
    /// Processes that it took.
    pub processes: u32,
    /// Operations asked of the databases.
    pub operations: u64,
    /// Requests that people made.
    pub requests: u64,
    /// Virtual milliseconds from the beginning to the end.
    pub elapsed_ms: u64,
    /// The durable log: one line an event, run by run.
    pub log: Vec<String>,
    /// What happened, when it was kept.
    pub history: Vec<String>,
}

/// Simulates a seed. A violation is simulated once more, for its history.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run_seed(seed: u64) -> Result<Outcome, Violation> {
    run(seed, false).map_err(|violation| match run(seed, true) {
        Err(told) => told,
        Ok(_) => {
            Violation { what: format!("{} (and not again: the simulation is not deterministic)", violation.what), ..violation }
        }
    })
}

/// Simulates a seed, and keeps lines of what happened where they are wanted.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64, keeps_history: bool) -> Result<Outcome, Violation> {
    let mut life = Life::new(seed, keeps_history);
    let ended = life.live();
    let world = life.world.clone();
    let violated = |what: String| Violation { seed, what, history: world.history() };
    // What was seen first is the cause of what was seen later.
    if let Some(what) = world.violation() {
        return Err(violated(what));
    }
    ended.map_err(violated)
}

/// All processes of a service.
struct Life {
    world: Arc<World>,
    house: Arc<House>,
    servers: Vec<Arc<Server>>,
    store: MemoryStore,
    dice: Dice,
    people: People,
    book: Arc<Book>,
    /// How far the machine's clock is from the truth.
    skew_ms: Arc<AtomicI64>,
    disk_delay_ms_max: u64,
    processes: u32,
}

/// How a process ends.
#[derive(Clone, Copy)]
enum End {
    /// It is killed after so many milliseconds, or with this write of its store, or this operation of a database.
    Killed { after: u64, write: Option<u64>, operation: Option<u64> },
    /// It is asked to stop after so many milliseconds.
    Stopped { after: u64 },
    /// It is the last one.
    Last,
}

impl Life {
    fn new(seed: u64, keeps_history: bool) -> Self {
        let mut dice = Dice::for_purpose(seed, 21);
        let fault_percent = *dice.pick(&[0, 5, 15, 30, 60]);
        let faults_left = dice.below(40) as u32;
        let mut world = World::new(seed, Broken::Nothing, fault_percent, faults_left, keeps_history);
        world.operations_max = OPERATIONS_MAX;
        let world = Arc::new(world);
        let house = Arc::new(House::draw(seed));
        let book = Arc::new(Book::default());
        let servers: Vec<Arc<Server>> = SERVERS.iter().map(|name| Arc::new(Server::new(name, world.clone()))).collect();
        let (seen_house, seen_book) = (house.clone(), book.clone());
        // They know the world, which must not keep them.
        let seen_servers: Vec<Weak<Server>> = servers.iter().map(Arc::downgrade).collect();
        // A world is new: nobody has set it before.
        let _ = world.sight.set(Box::new(move |units| {
            let servers: Vec<Arc<Server>> = seen_servers.iter().filter_map(Weak::upgrade).collect();
            seen_book.check_units(&seen_house, &servers, units)
        }));
        let skew_ms = Arc::new(AtomicI64::new(0));
        let people = People::new(seed, world.clone(), house.clone(), servers.clone(), book.clone(), skew_ms.clone());
        Self {
            disk_delay_ms_max: *dice.pick(&[0, 3, 20, 100, 2_000]),
            store: MemoryStore::with_manual_durability(),
            world,
            house,
            servers,
            dice,
            people,
            book,
            skew_ms,
            processes: 0,
        }
    }

    fn live(&mut self) -> Result<Outcome, String> {
        let others = self.dice.below(6);
        for _ in 0..others {
            let end = self.draw_end();
            self.process(end)?;
        }
        self.process(End::Last)?;
        let settled = runtime()?.block_on(self.book.judge(&self.house, &self.servers, &self.store));
        let (runs, deadlines_of_waiting, log) = settled?;
        let (_, operations) = self.world.counts();
        Ok(Outcome {
            runs,
            deadlines_of_waiting,
            runs_by_assets: log.iter().filter(|line| line.contains("run_type: AssetTriggered")).count(),
            tasks_held: log.iter().filter(|line| line.contains("AttemptHeld")).count(),
            runs_pinned: log.iter().filter(|line| line.contains("RunPinned")).count(),
            processes: self.processes,
            operations,
            requests: self.people.requests,
            elapsed_ms: self.world.now(),
            log,
            history: self.world.history(),
        })
    }

    fn draw_end(&mut self) -> End {
        let most = *self.dice.pick(&[50, 5_000, 600_000, 600_000, 3_600_000]);
        let after = self.dice.below(most);
        match self.dice.below(10) {
            0..=2 => End::Stopped { after },
            3..=4 => End::Killed { after, write: None, operation: Some(self.dice.between(1, 300)) },
            5..=7 => End::Killed { after, write: Some(self.dice.between(1, 300)), operation: None },
            _ => End::Killed { after, write: None, operation: None },
        }
    }

    /// One process, from its start to its end.
    fn process(&mut self, end: End) -> Result<(), String> {
        self.processes += 1;
        let runtime = runtime()?;
        let pause = if self.processes == 1 { 0 } else { world::later(&mut self.dice) };
        if self.dice.chance(20) {
            self.people.set_clock();
        }
        let (write, operation) = match end {
            End::Killed { write, operation, .. } => (write, operation),
            End::Stopped { .. } => (None, None),
            End::Last => {
                self.people.end_faults();
                (None, None)
            }
        };
        let ended = runtime.block_on(async {
            self.world.begin_process(pause, write, operation);
            let ended = self.until(end).await;
            self.world.end_process();
            ended
        });
        self.world.forget_crash();
        self.book.end_process();
        drop(runtime);
        self.servers.iter().for_each(|server| server.bury());
        match end {
            End::Last => self.store.sync_all(),
            End::Killed { .. } | End::Stopped { .. } => drop(self.store.sync_some(self.dice.below(4) as usize)),
        }
        let lost = self.store.queued();
        self.world.say(|| format!("the process is gone; {lost} requests to its store are lost"));
        self.store = self.store.crash();
        match self.world.violation() {
            Some(what) => Err(what),
            None => ended,
        }
    }

    async fn until(&mut self, end: End) -> Result<(), String> {
        let world = self.world.clone();
        let serve = self.serve(end);
        tokio::select! {
            biased;
            () = world.crash.notified() => Ok(()),
            served = serve => served,
        }
    }

    async fn serve(&mut self, end: End) -> Result<(), String> {
        let mut disk = Disk::new(self.store.clone(), self.world.clone(), self.disk_delay_ms_max);
        disk.counts_writes = true;
        tokio::spawn(disk.clone().turn());
        let after = match end {
            End::Killed { after, .. } | End::Stopped { after } => Duration::from_millis(after),
            End::Last => Duration::MAX,
        };
        self.book.reads_log(&self.store).await?;
        let options = self.options(disk);
        let service = match Service::new(options).await {
            Ok(service) => service,
            Err(error) if self.world.is_disk_full() => {
                self.world.say(|| format!("the service does not start: {error}"));
                return Ok(());
            }
            Err(error) => return Err(format!("the service does not start: {error}")),
        };
        self.book.begin_process(&service)?;
        let stream = service.live().subscribe(None).coming;
        tokio::spawn(look_on(stream, self.store.clone(), self.book.clone(), self.world.clone()));
        let driven = service.clone();
        let running = tokio::spawn(async move { driven.run().await });
        match end {
            End::Last => self.people.bring_to_an_end(&service).await?,
            End::Killed { .. } | End::Stopped { .. } => {
                // They go on until the process ends: the time-out is its end.
                let _ = tokio::time::timeout(after, self.people.steer_for_ever(&service)).await;
            }
        }
        match end {
            End::Killed { .. } => Ok(()),
            End::Stopped { .. } | End::Last => {
                self.world.say(|| "the service is asked to stop".into());
                service.stop();
                match tokio::time::timeout(GRACE, running).await {
                    Ok(Ok(Ok(()))) | Err(_) => Ok(()),
                    Ok(Ok(Err(broken))) => Err(broken.to_string()),
                    Ok(Err(error)) => Err(format!("the service panicked: {error}")),
                }
            }
        }
    }

    fn options(&self, disk: Disk) -> Options {
        let connectors: Vec<Arc<dyn Connector>> = self
            .servers
            .iter()
            .zip([Dialect::PostgreSql, Dialect::Sqlite])
            .map(|(server, dialect)| Arc::new(FakeConnector { server: server.clone(), dialect }) as Arc<dyn Connector>)
            .collect();
        let connect: Connect = Arc::new(move |config| {
            let place = SERVERS.iter().position(|name| *name == config.id);
            place
                .map(|place| connectors[place].clone())
                .ok_or_else(|| backstop_connect::Error::config(format!("there is no server `{}`", config.id)))
        });
        let slots = SlotLimits { parallelism: Some(self.house.parallelism), ..SlotLimits::default() };
        let world = self.world.clone();
        Options {
            store: Arc::new(disk),
            loader: self.house.clone(),
            clock: Arc::new(Skewed::starting(self.world.clone(), self.skew_ms.clone())),
            connect,
            logs: LogWriter::start(None),
            scratch: PathBuf::from("/nowhere"),
            limits: ServiceLimits { runs: self.house.runs_at_once, slots, ..ServiceLimits::default() },
            keep: Keep::default(),
            notice: Notice { up_to: Level::Debug, tell: Arc::new(move |_, line: &str| world.say(|| line.to_owned())) },
            address: "nowhere".into(),
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("start a Tokio runtime: {error}"))
}

/// Reads the live stream of one process: what it tells is in the store, word for word.
async fn look_on(mut coming: broadcast::Receiver<Arc<LiveEvent>>, store: MemoryStore, book: Arc<Book>, world: Arc<World>) {
    loop {
        let event = match coming.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let What::Run { run, dag, recorded } = &event.what else { continue };
        world.say(|| format!("{dag} {run} #{} {:.200}", recorded.seq, format!("{:?}", recorded.event)));
        let Ok(found) = store.events(run, recorded.seq - 1, 1).await else { return };
        if found.first() != Some(recorded) {
            world.violated(|| format!("event {} of run {run} was told, and the store has {found:?}", recorded.seq));
        }
        if let Err(what) = book.saw(dag, run, &recorded.event) {
            world.violated(|| what);
        }
    }
}

/// The machine's clock is set, by so many milliseconds.
fn set_clock(skew_ms: &AtomicI64, by_ms: i64) {
    skew_ms.fetch_add(by_ms, Ordering::Relaxed);
}
