//! The simulator: one seed, one random DAG, one run of it through faults and crashes, driven by the real runtime.
//!
//! What is real: the core, the engine, the journal, attempts, the resolver, the splitter and planner of scripts, the renderer. What is
//! fake: time (virtual, so that hours cost nothing), databases (a model with markers and transactions that outlive their clients), the
//! disk (what was not made durable is lost with the process). Everything happens on one thread and follows from the seed.
//!
//! A process dies with its Tokio runtime, so that nothing it spawned lives on; the next one resumes the run. Sometimes only the engine
//! dies, and the next one has the attempts of the last beside it. When the run is over, or stuck, people clear and mark what they like,
//! and it goes on. In the end the faults stop, the run must finish, and the log must tell what the databases have.
//!
//! Where to go next: `scenario` for what is run, `world` for the faults, `server` for the model of a database, `inspector` for what is
//! checked after every event, `verdict` for what is checked at the end.

mod dice;
mod disk;
mod grouping;
mod inspector;
mod scenario;
mod server;
pub mod service;
mod session;
mod verdict;
mod world;

use backstop_connect::{Connector, Dialect};
use backstop_core::event::{Event, Mark, Restart, RunType};
use backstop_core::{Command, InstanceId, RunId, RunPhase, RunState, Selection};
use backstop_runtime::run::Decision;
use backstop_runtime::steer::Idle;
use backstop_runtime::{Connect, Control, Launch, Limits, LogWriter, Prepared, Report, Request, Sessions};
use backstop_store::{MemoryStore, Store};
use dice::Dice;
use disk::Disk;
pub use grouping::TRANSACTIONS_FROM;
use inspector::Inspector;
use scenario::{CALL, SERVERS, Scenario, Segment, effect};
use server::Server;
use session::FakeConnector;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use world::{FakeClock, World};

/// A rule that the simulator breaks on purpose, to prove that it would notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    /// None: the product as it is.
    #[default]
    Nothing,
    /// A probe answers `Fenced` without looking.
    ProbeAlwaysFences,
    /// A probe that finds nothing leaves nothing: what is still open may commit later.
    ProbeLeavesNoTombstone,
    /// A unit commits without its marker.
    MarkerForgotten,
    /// The marker table has no unique key.
    MarkerNotUnique,
    /// The store says that an append is durable before it is.
    StoreLies,
}

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Simulation {
    /// Everything follows from it.
    pub seed: u64,
    /// What is broken on purpose.
    pub broken: Broken,
    /// True: keep lines of what happened.
    pub keeps_history: bool,
}

/// How a seed ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How the run ended.
    pub phase: RunPhase,
    /// Processes that it took.
    pub processes: u32,
    /// How often a person had to decide.
    pub decisions: u32,
    /// Events decided, also those that were lost.
    pub events: u64,
    /// Operations asked of the databases.
    pub operations: u64,
    /// Virtual milliseconds from the beginning to the end.
    pub elapsed_ms: u64,
    /// The durable log: one line an event.
    pub log: Vec<String>,
    /// What happened, when it was kept.
    pub history: Vec<String>,
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// Which, and how.
    pub what: String,
    /// The last lines of what happened.
    pub history: Vec<String>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what)?;
        self.history.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Simulates a seed. A violation is simulated once more, for its history.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run_seed(seed: u64) -> Result<Outcome, Violation> {
    let simulation = Simulation { seed, broken: Broken::Nothing, keeps_history: false };
    simulation.run().map_err(|violation| match (Simulation { keeps_history: true, ..simulation }).run() {
        Err(told) => told,
        Ok(_) => {
            Violation { what: format!("{} (and not again: the simulation is not deterministic)", violation.what), ..violation }
        }
    })
}

/// A process that goes on for longer than this, in virtual time, hangs.
const PROCESS_MAX: Duration = Duration::from_secs(5 * 24 * 60 * 60);
/// A run that takes more processes than this never ends.
const PROCESSES_MAX: u32 = 40;

/// How a process ended.
enum Ended {
    /// It died, or was killed.
    Crashed,
    /// It did not end by itself.
    Hung,
    /// The runtime gave the run back.
    Over(Box<Report>),
    /// The runtime gave up, because its store did.
    GaveUp(String),
}

/// One run, over all its processes.
struct Life {
    world: Arc<World>,
    scenario: Arc<Scenario>,
    servers: Vec<Arc<Server>>,
    connectors: Vec<Arc<dyn Connector>>,
    store: MemoryStore,
    dice: Dice,
    crashes_left: u32,
    disk_delay_ms_max: u64,
    cancels_after: Option<u64>,
    processes: u32,
    decisions: u32,
    run: RunId,
    /// Of people who clear and mark: dice of their own, so that the seeds of before mean what they meant.
    people: Dice,
    acts_left: u32,
}

impl Simulation {
    /// Runs it.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn run(self) -> Result<Outcome, Violation> {
        let mut life = Life::new(self);
        let ended = life.live();
        let world = life.world.clone();
        let violated = |what: String| Violation { seed: self.seed, what, history: world.history() };
        if let Some(what) = world.violation() {
            return Err(violated(what));
        }
        let (report, log) = ended.map_err(violated)?;
        let (events, operations) = world.counts();
        Ok(Outcome {
            phase: report.state.phase(),
            processes: life.processes,
            decisions: life.decisions,
            events,
            operations,
            elapsed_ms: world.now(),
            log,
            history: world.history(),
        })
    }
}

impl Life {
    fn new(simulation: Simulation) -> Self {
        let seed = simulation.seed;
        let mut dice = Dice::for_purpose(seed, 3);
        let fault_percent = *dice.pick(&[0, 5, 15, 30, 60]);
        let faults_left = dice.below(16) as u32;
        let world = Arc::new(World::new(seed, simulation.broken, fault_percent, faults_left, simulation.keeps_history));
        let scenario = Arc::new(Scenario::draw(seed));
        let servers: Vec<Arc<Server>> = SERVERS.iter().map(|name| Arc::new(Server::new(name, world.clone()))).collect();
        let connectors = servers
            .iter()
            .zip([Dialect::PostgreSql, Dialect::Sqlite])
            .map(|(server, dialect)| Arc::new(FakeConnector { server: server.clone(), dialect }) as Arc<dyn Connector>)
            .collect();
        let mut people = Dice::for_purpose(seed, 4);
        let cancels = dice.chance(12);
        let cancels_before = *dice.pick(&[4, 40, 400, 4_000, 120_000]);
        let cancels_after = dice.below(cancels_before);
        Self {
            crashes_left: *dice.pick(&[0, 1, 1, 2, 3, 5]),
            disk_delay_ms_max: *dice.pick(&[0, 3, 20, 100, 2_000]),
            cancels_after: cancels.then_some(cancels_after),
            world,
            scenario,
            servers,
            connectors,
            store: MemoryStore::with_manual_durability(),
            dice,
            processes: 0,
            decisions: 0,
            run: RunId::new("simulated-run"),
            acts_left: if people.chance(40) { people.between(1, 4) as u32 } else { 0 },
            people,
        }
    }

    /// Process after process, until the run is over. Gives its end and its durable log.
    fn live(&mut self) -> Result<(Report, Vec<String>), String> {
        let mut decisions = Vec::new();
        while self.processes < PROCESSES_MAX {
            self.processes += 1;
            let ended = self.process(std::mem::take(&mut decisions));
            if let Some(what) = self.world.violation() {
                return Err(what);
            }
            match ended? {
                Ended::Hung => return Err(format!("the run did not end within {PROCESS_MAX:?} of virtual time")),
                Ended::Crashed => {}
                Ended::GaveUp(why) => self.world.say(|| format!("the process gives up: {why}")),
                Ended::Over(report) if report.state.is_finished() => {
                    let log = self.judge(&report)?;
                    if !self.operate()? {
                        return Ok((*report, log));
                    }
                }
                Ended::Over(report) => {
                    self.operate()?;
                    decisions = self.decide(&report);
                }
            }
        }
        Err(format!("the run did not end within {PROCESSES_MAX} processes"))
    }

    /// One process, from its start to its death.
    fn process(&mut self, decisions: Vec<Decision>) -> Result<Ended, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| format!("start a Tokio runtime: {error}"))?;
        let pause = if self.processes == 1 { 0 } else { world::later(&mut self.dice) };
        let ended = runtime.block_on(self.in_one_runtime(pause, decisions));
        drop(runtime);
        self.servers.iter().for_each(|server| server.bury());
        ended
    }

    /// A process, and those that take its run over while its attempts still go on: they believe to be alone until they are fenced off.
    async fn in_one_runtime(&mut self, pause: u64, mut decisions: Vec<Decision>) -> Result<Ended, String> {
        let mut pause = pause;
        loop {
            let death = self.draw_death();
            let disk = Disk::new(self.store.clone(), self.world.clone(), self.disk_delay_ms_max);
            self.world.begin_process(pause, death.event, death.operation);
            let ended = self.process_inside(disk, std::mem::take(&mut decisions), death.after).await;
            self.world.end_process();
            // A wish to die that the death itself left must not kill the next process.
            self.world.forget_crash();
            let is_dead = match &ended {
                Ok(Ended::Over(_)) => {
                    self.store.sync_all();
                    return ended;
                }
                Ok(Ended::Crashed | Ended::GaveUp(_)) => self.dice.chance(75),
                Ok(Ended::Hung) | Err(_) => true,
            };
            self.store.sync_some(self.dice.below(4) as usize);
            let lost = self.store.queued();
            self.world.say(|| format!("the engine is gone, its attempts too: {is_dead}; {lost} requests to its store are lost"));
            self.store = self.store.crash();
            if is_dead || self.processes == PROCESSES_MAX || self.world.violation().is_some() {
                return ended;
            }
            self.processes += 1;
            self.world.begin_process(0, None, None);
            tokio::time::sleep(Duration::from_millis(self.dice.below(20))).await;
            self.world.end_process();
            pause = 0;
        }
    }

    /// When and how this process dies.
    fn draw_death(&mut self) -> Death {
        let mut death = Death::default();
        if self.crashes_left == 0 {
            return death;
        }
        self.crashes_left -= 1;
        match self.dice.below(4) {
            0 | 1 => death.event = Some(self.dice.between(1, 60)),
            2 => death.operation = Some(self.dice.between(1, 40)),
            _ => death.after = Some(self.dice.below(200)),
        }
        death
    }

    async fn process_inside(&self, disk: Disk, decisions: Vec<Decision>, dies_after: Option<u64>) -> Result<Ended, String> {
        let found = disk.events(&self.run, 0, usize::MAX).await.map_err(|error| error.to_string())?;
        if found.is_empty() && self.servers.iter().any(|server| !server.effects().is_empty()) {
            return Err("something took effect before the run's first event was durable".into());
        }
        let inspector = Arc::new(Inspector::new(self.world.clone(), self.servers.clone(), self.scenario.clone(), &found));
        tokio::spawn(disk.clone().turn());
        let control = Control::default();
        if let Some(milliseconds) = self.cancels_after {
            let control = control.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(milliseconds)).await;
                control.cancel("somebody asked for it");
            });
        }
        let launch = self.launch(disk, inspector);
        let run = async {
            if found.is_empty() {
                backstop_runtime::start(launch, self.request(), control).await
            } else {
                backstop_runtime::resume(launch, &self.run, &decisions, control).await
            }
        };
        let dies = async {
            match dies_after {
                Some(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
                None => std::future::pending().await,
            }
        };
        Ok(tokio::select! {
            biased;
            () = self.world.crash.notified() => Ended::Crashed,
            () = dies => Ended::Crashed,
            ended = run => match ended {
                Ok(report) => Ended::Over(Box::new(report)),
                Err(backstop_runtime::Error::Append(error)) => Ended::GaveUp(error.to_string()),
                // The end of the run was durable, but the process died before it could say so.
                Err(error @ backstop_runtime::Error::Over { .. }) => self.over(&found).ok_or_else(|| error.to_string())?,
                Err(error) => return Err(format!("the runtime failed: {error}")),
            },
            () = tokio::time::sleep(PROCESS_MAX) => Ended::Hung,
        })
    }

    fn over(&self, found: &[backstop_store::Recorded]) -> Option<Ended> {
        let state = RunState::replay(self.scenario.definition.dag.clone(), found.iter().map(|recorded| &recorded.event));
        state.is_finished().then(|| Ended::Over(Box::new(Report { state, undecided: Default::default() })))
    }

    fn launch(&self, disk: Disk, inspector: Arc<Inspector>) -> Launch {
        let connectors = self.connectors.clone();
        let connect: Connect = Arc::new(move |config| {
            let place = SERVERS.iter().position(|name| *name == config.id);
            place
                .map(|place| connectors[place].clone())
                .ok_or_else(|| backstop_connect::Error::config(format!("there is no server `{}`", config.id)))
        });
        Launch {
            prepared: Prepared::new(self.scenario.project.clone(), self.scenario.definition.clone()),
            store: Arc::new(disk),
            logs: LogWriter::start(None),
            scratch: PathBuf::from("/nowhere"),
            clock: Arc::new(FakeClock(self.world.clone())),
            watcher: inspector,
            sessions: Arc::new(Sessions::new(self.scenario.project.clone(), connect)),
            others: None,
            slots: None,
            limits: Limits::default(),
        }
    }

    fn request(&self) -> Request {
        Request {
            run_id: self.run.clone(),
            logical_date: None,
            data_interval: None,
            params: serde_json::Map::new(),
            only_tasks: Vec::new(),
            dry_run: self.scenario.dry_run,
            run_type: RunType::Manual,
            cause: None,
            asked_by: None,
        }
    }

    /// Everything that dead clients left open on the servers has ended.
    fn settle(&self) {
        while let Some(last) = self.servers.iter().filter_map(|server| server.last_end()).max() {
            self.world.wait_until(last);
        }
    }

    /// A person looks at the databases, and says what is true.
    fn decide(&mut self, report: &Report) -> Vec<Decision> {
        self.settle();
        let before = self.durable_events().map(|events| verdict::before_clears(&self.scenario, &events)).unwrap_or_default();
        let decisions: Vec<Decision> = report
            .undecided
            .keys()
            .filter_map(|instance| {
                let view = report.state.instance(instance)?;
                let shape = self.scenario.shape(instance.task.as_str())?;
                let number = view.segments.len();
                // Other doubts come from a server that did not answer for long: it does by now.
                if *shape.segments.get(number)? != Segment::Bare {
                    return None;
                }
                let name = effect(&shape.id, instance.map_index, number, 0);
                // What was applied before somebody asked for it again says nothing of this attempt.
                let before_it = before.get(&(shape.server, name.clone())).map_or(0, |(least, _)| *least);
                let took_effect = self.servers[shape.server].count(&name) > before_it;
                self.world.say(|| format!("a person says that segment {number} of `{instance}` took effect: {took_effect}"));
                let segment = u32::try_from(number + 1).ok();
                Some(Decision { instance: instance.clone(), took_effect, segment, who: "somebody".into(), why: "looked".into() })
            })
            .collect();
        self.decisions += decisions.len() as u32;
        decisions
    }

    /// A person clears or marks something in a run that nobody drives. False when nothing came of it.
    fn operate(&mut self) -> Result<bool, String> {
        if self.acts_left == 0 {
            return Ok(false);
        }
        self.acts_left -= 1;
        let dag = self.scenario.definition.dag.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| format!("start a Tokio runtime: {error}"))?;
        self.settle();
        runtime.block_on(async {
            // Nothing writes meanwhile: what is queued is kept at once.
            let mut idle = Idle::read(&self.store, dag, &self.run).await.map_err(|error| error.to_string())?;
            let command = self.draw_act(idle.state());
            let now = world::timestamp(self.world.now());
            self.world.say(|| format!("a person asks for {command:?}"));
            let store = self.store.clone();
            let acted = idle.act(&self.store, vec![command], now);
            let mut acted = std::pin::pin!(acted);
            let acted = std::future::poll_fn(|context| {
                let first = acted.as_mut().poll(context);
                store.sync_all();
                if first.is_ready() { first } else { acted.as_mut().poll(context) }
            })
            .await;
            match acted {
                Ok(events) => {
                    self.world.say(|| format!("a person did {} events", events.len()));
                    events.iter().for_each(|event| self.ask_again(event));
                    Ok(true)
                }
                Err(backstop_runtime::steer::Error::Rejected(_) | backstop_runtime::steer::Error::Unsettled { .. }) => Ok(false),
                Err(error) => Err(format!("a person could not act: {error}")),
            }
        })
    }

    fn ask_again(&self, event: &Event) {
        match event {
            Event::RunReopened => self.world.ask_again(format!("{CALL}run,")),
            Event::InstancesCleared { instances, restart: Restart::Beginning } => instances.iter().for_each(|instance| {
                let map_index = instance.map_index.map_or(-1, i64::from);
                self.world.ask_again(format!("{},{map_index},", instance.task));
            }),
            _ => {}
        }
    }

    fn draw_act(&mut self, state: &RunState) -> Command {
        let (who, why) = ("somebody".to_owned(), "the data is mended".to_owned());
        let all: Vec<InstanceId> = state.instances().map(|(instance, _)| instance).collect();
        let some: Vec<InstanceId> = all.into_iter().filter(|_| self.people.chance(30)).collect();
        let mut flag = || self.people.chance(40);
        let (upstream, downstream, only_failed) = (flag(), flag(), flag());
        match self.people.below(4) {
            0 => Command::Clear { instances: backstop_core::select_failed(state), restart: Restart::LastCommit, who, why },
            1 => Command::Clear { instances: some, restart: Restart::Beginning, who, why },
            2 => {
                let selection = Selection { tasks: some, upstream, downstream, only_failed, only_running: false };
                let instances = backstop_core::select(state, &selection);
                let restart = *self.people.pick(&[Restart::Beginning, Restart::LastCommit]);
                Command::Clear { instances, restart, who, why }
            }
            _ => Command::Mark { instances: some, mark: *self.people.pick(&[Mark::Success, Mark::Failed]), who, why },
        }
    }

    /// The end: what is durable, what is in the databases, and what the runtime said are one story.
    fn judge(&self, report: &Report) -> Result<Vec<String>, String> {
        self.settle();
        let events = self.durable_events()?;
        verdict::check(&self.scenario, &self.servers, &events, &report.state)?;
        Ok(events.iter().map(|event| format!("{event:?}")).collect())
    }

    fn durable_events(&self) -> Result<Vec<Event>, String> {
        // Reads of the memory store are ready at once.
        let read = self.store.events(&self.run, 0, usize::MAX);
        let mut read = std::pin::pin!(read);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match read.as_mut().poll(&mut context) {
            std::task::Poll::Ready(Ok(events)) => Ok(events.into_iter().map(|recorded| recorded.event).collect()),
            std::task::Poll::Ready(Err(error)) => Err(error.to_string()),
            std::task::Poll::Pending => Err("the memory store did not answer at once".into()),
        }
    }
}

/// When a process dies: behind so many events, in an operation of a database, or after so many milliseconds.
#[derive(Default)]
struct Death {
    event: Option<u64>,
    operation: Option<u64>,
    after: Option<u64>,
}
