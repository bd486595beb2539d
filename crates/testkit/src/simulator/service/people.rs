//! People: what they ask of a service while it goes on, what they do to its machines, and how they bring it all to an end.

use super::assets;
use super::book::{Book, events, rows};
use super::house::House;
use super::set_clock;
use crate::simulator::dice::Dice;
use crate::simulator::scenario::{RUN_END, Shape, effect};
use crate::simulator::server::Server;
use crate::simulator::verdict::before_clears;
use crate::simulator::world::World;
use backstop_core::backfill::{Reprocess, Span};
use backstop_core::event::{Mark, RunType};
use backstop_core::{InstanceId, RunId, RunState, Selection};
use backstop_runtime::service::backfill::{NewBackfill, Wish};
use backstop_runtime::service::{Error, Files, Operation, Service, Standing, Trigger, Who};
use backstop_store::RunRow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Backfills that are asked for, at most.
const BACKFILLS_MAX: u64 = 3;
/// So often others have their turn before something is done in a thread: then all of them wait.
const YIELDS: u32 = 1_000;
/// Runs that are asked for by hand, at most.
const TRIGGERS_MAX: u64 = 15;
/// A request that is not answered within this is not answered.
const ANSWER_MAX: Duration = Duration::from_secs(2 * 24 * 60 * 60);
/// How often people look whether everything is over, and how many times.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const LOOKS_MAX: u32 = 6 * 24 * 60;

/// They outlive the processes.
pub(crate) struct People {
    dice: Dice,
    mending: Dice,
    world: Arc<World>,
    house: Arc<House>,
    servers: Vec<Arc<Server>>,
    book: Arc<Book>,
    skew_ms: Arc<AtomicI64>,
    pause_ms_max: u64,
    asked: u64,
    requests_max: u64,
    pub(crate) requests: u64,
}

fn who() -> Who {
    Who { who: "somebody".into(), why: "it is wanted".into() }
}

/// What people expect to hear now and then; all else is a fault of the service.
fn refused(answer: Result<(), Error>) -> Result<(), String> {
    match answer {
        Ok(())
        | Err(
            Error::Conflict(_)
            | Error::NothingMeant
            | Error::NothingToChange
            | Error::Stopping
            | Error::Crowded { .. }
            | Error::Store(_)
            | Error::Run(_),
        ) => Ok(()),
        Err(error) => Err(format!("somebody was answered: {error}")),
    }
}

impl People {
    pub(crate) fn new(
        seed: u64,
        world: Arc<World>,
        house: Arc<House>,
        servers: Vec<Arc<Server>>,
        book: Arc<Book>,
        skew_ms: Arc<AtomicI64>,
    ) -> Self {
        let mut dice = Dice::for_purpose(seed, 22);
        let pause_ms_max = *dice.pick(&[20, 2_000, 60_000, 600_000]);
        let requests_max = *dice.pick(&[10, 40, 100]);
        let mending = Dice::for_purpose(seed, 24);
        Self { dice, mending, world, house, servers, book, skew_ms, pause_ms_max, asked: 0, requests_max, requests: 0 }
    }

    /// Asks for one thing after the other, until it is dropped.
    pub(crate) async fn steer_for_ever(&mut self, service: &Arc<Service>) {
        loop {
            if self.requests == self.requests_max {
                return std::future::pending().await;
            }
            let pause = self.dice.below(self.pause_ms_max + 1);
            sleep(Duration::from_millis(pause + 1)).await;
            self.requests += 1;
            let done = match timeout(ANSWER_MAX, self.act(service)).await {
                Ok(done) => done,
                Err(_) => Err(format!("somebody got no answer within {ANSWER_MAX:?}")),
            };
            if let Err(what) = done {
                self.world.violated(|| what);
                return std::future::pending().await;
            }
        }
    }

    async fn act(&mut self, service: &Arc<Service>) -> Result<(), String> {
        match self.dice.below(25) {
            0..=8 => self.trigger(service).await,
            9..=10 => self.pause(service).await,
            11 => self.cancel(service).await,
            12..=15 => self.operate(service).await,
            16..=17 => self.resolve(service).await,
            18..=19 => self.backfill(service).await,
            20 => self.steer_backfill(service).await,
            21 => {
                self.set_clock();
                Ok(())
            }
            22 => {
                self.fill_the_disk();
                Ok(())
            }
            _ => {
                self.kill_a_server();
                Ok(())
            }
        }
    }

    /// Asks for a new run, or for one once more: above all where no answer came.
    async fn trigger(&mut self, service: &Arc<Service>) -> Result<(), String> {
        let known = self.book.all_asked();
        let unanswered: Vec<_> = known.iter().filter(|(_, asked)| !asked.is_answered).cloned().collect();
        let again = match self.dice.below(3) {
            0 if !unanswered.is_empty() => Some(self.dice.pick(&unanswered).clone()),
            1 if !known.is_empty() => Some(self.dice.pick(&known).clone()),
            _ => None,
        };
        let (run, dag) = match again {
            Some((run, asked)) => (run, asked.dag),
            None if self.asked == TRIGGERS_MAX => return Ok(()),
            None => {
                self.asked += 1;
                let scenario = self.dice.pick(&self.house.dags);
                (RunId::new(format!("asked-for-{}", self.asked)), scenario.definition.dag.id().to_string())
            }
        };
        self.world.say(|| format!("somebody asks for run {run} of `{dag}`"));
        self.book.asks(&run, &dag);
        let trigger = Trigger { dag, run_id: Some(run.clone()), ..Trigger::default() };
        let who = who();
        if self.dice.chance(20) {
            let (one, other) = tokio::join!(service.trigger(trigger.clone(), &who), service.trigger(trigger, &who));
            if [&one, &other].iter().all(|made| made.as_ref().is_ok_and(|made| made.is_new)) {
                return Err(format!("run {run} was made twice at once"));
            }
            for made in [one, other] {
                self.heard(&run, made.map(|made| made.is_new), true)?;
            }
            return Ok(());
        }
        self.heard(&run, service.trigger(trigger, &who).await.map(|made| made.is_new), false)
    }

    fn heard(&self, run: &RunId, made: Result<bool, Error>, was_twice: bool) -> Result<(), String> {
        match made {
            // Of two that were asked at once, the answer that it is new may be heard last.
            Ok(is_new) => self.book.answered(run, is_new && !was_twice),
            Err(Error::Conflict(what)) => Err(format!("run {run} was asked for with the same words, and refused: {what}")),
            Err(error) => refused(Err(error)),
        }
    }

    async fn pause(&mut self, service: &Arc<Service>) -> Result<(), String> {
        let dag = self.dice.pick(&self.house.dags).definition.dag.id().clone();
        let pause = self.dice.chance(50);
        self.world.say(|| format!("somebody pauses `{dag}`: {pause}"));
        self.book.asks_to_pause(&dag);
        let answer = service.pause(dag.as_str(), pause, &who()).await;
        if answer.is_ok() {
            let going_on = active_runs(service).await?;
            self.book.answered_pause(&dag, pause, going_on);
        }
        refused(answer)
    }

    /// Asks for a backfill of dates that have passed, or for one once more.
    async fn backfill(&mut self, service: &Arc<Service>) -> Result<(), String> {
        let known = self.book.all_filled();
        let wanted = if !known.is_empty() && (known.len() as u64 == BACKFILLS_MAX || self.dice.chance(30)) {
            self.dice.pick(&known).1.wanted.clone()
        } else {
            let scenario = self.dice.pick(&self.house.dags);
            let now = service.now();
            let passed: Vec<_> = House::ticks(scenario).into_iter().filter(|tick| tick.run_after <= now).collect();
            if passed.is_empty() {
                return Ok(());
            }
            let (one, other) = (self.dice.pick(&passed).logical_date, self.dice.pick(&passed).logical_date);
            NewBackfill {
                id: Some(format!("fill-{}", known.len() + 1)),
                dag: scenario.definition.dag.id().to_string(),
                span: Span { from: one.min(other), to: one.max(other), reverse: self.dice.chance(30) },
                reprocess: *self.dice.pick(&Reprocess::ALL),
                runs_at_once: self.dice.between(1, 3) as u32,
                params: Default::default(),
            }
        };
        let Some(id) = wanted.id.clone() else { return Ok(()) };
        self.world.say(|| format!("somebody asks for {wanted:?}"));
        self.book.asks_to_fill(&id, &wanted);
        // Dates are counted in a thread: nothing else goes on in this moment, so that what follows does not depend on how long that takes.
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        match service.backfill(wanted, &who()).await {
            Ok((_, is_new)) => self.book.answered_fill(&id, is_new),
            // The clock was set back since it was asked for first: its dates are to come once more.
            Err(Error::Invalid(_)) => Ok(()),
            Err(error) => refused(Err(error)),
        }
    }

    async fn steer_backfill(&mut self, service: &Arc<Service>) -> Result<(), String> {
        let known: Vec<_> = self.book.all_filled().into_iter().filter(|(_, filled)| filled.is_answered).collect();
        if known.is_empty() {
            return Ok(());
        }
        let id = self.dice.pick(&known).0.clone();
        let wish = *self.dice.pick(&[Wish::Pause, Wish::Pause, Wish::Run, Wish::Run, Wish::Cancel]);
        let and_runs = self.dice.chance(50);
        self.world.say(|| format!("somebody wants of {id}: {wish:?}, of its runs, too: {and_runs}"));
        if wish == Wish::Cancel {
            let rows = rows(&**service.store()).await?;
            let filled = rows.iter().filter(|row| row.header.run_type == RunType::Backfill);
            filled.for_each(|row| self.book.steers(&row.header.run_id));
        }
        refused(service.steer_backfill(&id, wish, and_runs, &who()).await.map(drop))
    }

    fn fill_the_disk(&mut self) {
        let most = *self.dice.pick(&[10, 5_000, 600_000]);
        let milliseconds = self.dice.between(1, most);
        self.world.say(|| format!("the disk is full for {milliseconds} ms"));
        self.world.fill_disk(milliseconds);
    }

    async fn pick_run(&mut self, service: &Arc<Service>) -> Result<Option<RunRow>, String> {
        let rows = rows(&**service.store()).await?;
        Ok((!rows.is_empty()).then(|| self.dice.pick(&rows).clone()))
    }

    async fn cancel(&mut self, service: &Arc<Service>) -> Result<(), String> {
        let Some(row) = self.pick_run(service).await? else { return Ok(()) };
        let run = row.header.run_id.clone();
        self.world.say(|| format!("somebody cancels run {run}"));
        self.book.steers(&run);
        refused(service.cancel(&run, &who()).await)
    }

    async fn operate(&mut self, service: &Arc<Service>) -> Result<(), String> {
        let Some(row) = self.pick_run(service).await? else { return Ok(()) };
        let Some(scenario) = self.house.scenario(row.header.dag_id.as_str()) else { return Ok(()) };
        let run = row.header.run_id.clone();
        let folded = RunState::replay(scenario.definition.dag.clone(), &events(&**service.store(), &run).await?);
        let all: Vec<InstanceId> = folded.instances().map(|(instance, _)| instance).collect();
        let tasks: Vec<InstanceId> = all.iter().filter(|_| self.dice.chance(40)).cloned().collect();
        let mut flag = || self.dice.chance(30);
        let selection = Selection { tasks, upstream: flag(), downstream: flag(), only_failed: flag(), only_running: false };
        // Dice of its own: the rest of the story is as it was before files could be mended.
        let files = match self.mending.below(10) {
            0..=3 => Files::Current,
            _ => Files::Pinned,
        };
        if files == Files::Current && self.mending.chance(50) {
            self.house.mend(&row.header.dag_id);
        }
        let operation = match self.dice.below(8) {
            0..=2 => Operation::Retry(files),
            3..=5 => Operation::Clear(selection, files),
            6 => Operation::Mark(selection, *self.dice.pick(&[Mark::Success, Mark::Failed])),
            _ if all.is_empty() => return Ok(()),
            _ => Operation::Cancel(self.dice.pick(&all).clone()),
        };
        let dry_run = self.dice.chance(25);
        self.world.say(|| format!("somebody asks of run {run}: {operation:?}, dry: {dry_run}"));
        if !dry_run {
            self.book.steers(&run);
        }
        // The files are looked at in a thread: as above.
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        let answer = service.operate(&run, operation, &who(), dry_run).await;
        let after = service.store().run(&run).await.ok().flatten();
        if dry_run && row.is_finished() && after.is_some_and(|after| after.version != row.version) {
            return Err(format!("a dry run of an operation changed run {run}"));
        }
        refused(answer.map(drop))
    }

    /// Looks at the databases, and says what is true of an attempt in doubt.
    async fn resolve(&mut self, service: &Arc<Service>) -> Result<(), String> {
        for row in rows(&**service.store()).await? {
            let run = row.header.run_id.clone();
            let Standing::Stuck { undecided } = service.standing(&run) else { continue };
            if undecided.is_empty() {
                return Err(format!("run {run} is stuck, and names no instance"));
            }
            // What dead clients left open has ended before anybody looks.
            while let Some(last) = self.servers.iter().filter_map(|server| server.last_end()).max() {
                sleep(Duration::from_millis(last.saturating_sub(self.world.now()) + 1)).await;
            }
            for instance in undecided.keys() {
                let Some((segment, took_effect)) = self.took_effect(service, &row, instance).await? else { continue };
                self.world.say(|| format!("somebody says that `{instance}` of run {run} took effect: {took_effect}"));
                self.book.steers(&run);
                for _ in 0..2 {
                    // Once more, as one does whose answer was lost.
                    refused(service.resolve(&run, instance.clone(), Some(segment), took_effect, &who()).await)?;
                }
            }
        }
        Ok(())
    }

    async fn took_effect(
        &self,
        service: &Arc<Service>,
        row: &RunRow,
        instance: &InstanceId,
    ) -> Result<Option<(u32, bool)>, String> {
        let Some(scenario) = self.house.scenario(row.header.dag_id.as_str()) else { return Ok(None) };
        let events = events(&**service.store(), &row.header.run_id).await?;
        let state = RunState::replay(scenario.definition.dag.clone(), &events);
        let (Some(view), Some(shape)) = (state.instance(instance), scenario.shape(instance.task.as_str())) else {
            return Ok(None);
        };
        // Of a commit, an effect of one of those that it commits tells.
        let dag = &scenario.definition.dag;
        let unit = dag.index(instance.task.as_str()).and_then(|place| dag.commits(place));
        let mut members = unit.map_or(&[][..], |unit| &unit.members).iter().map(|member| &scenario.shapes[member.get()]);
        let marked = members.find(|shape| shape.segments.first().is_some_and(|segment| segment.parts() > 0));
        let name = match marked {
            Some(member) => effect(&member.id, None, 0, 0),
            None => first_effect(shape, instance, view.segments.len()),
        };
        let before = before_clears(scenario, &events);
        let before = before.get(&(shape.server, name.clone())).map_or(0, |(least, _)| *least);
        let name = format!("{}/{}{RUN_END}{name}", row.header.dag_id, row.header.run_id);
        let segment = u32::try_from(view.segments.len() + 1).map_err(|error| error.to_string())?;
        Ok(Some((segment, self.servers[shape.server].count(&name) > before)))
    }

    /// The machine's clock goes forwards by hours or backwards by minutes.
    pub(crate) fn set_clock(&mut self) {
        let by_ms = match self.dice.below(2) {
            0 => self.dice.between(1_000, 4 * 3_600_000) as i64,
            _ => -(self.dice.between(1_000, 1_800_000) as i64),
        };
        self.world.say(|| format!("the machine's clock is set by {by_ms} ms"));
        set_clock(&self.skew_ms, by_ms);
    }

    fn kill_a_server(&mut self) {
        let most = *self.dice.pick(&[1_000, 60_000, 1_800_000]);
        let milliseconds = self.dice.between(1, most);
        let server = self.dice.pick(&self.servers);
        self.world.say(|| format!("{} dies for {milliseconds} ms", server.name));
        server.die(milliseconds);
    }

    pub(crate) fn end_faults(&self) {
        self.world.say(|| "the faults stop".into());
        self.world.end_faults();
        self.servers.iter().for_each(|server| server.come_back());
    }

    /// People do what is theirs until nothing is left to do.
    pub(crate) async fn bring_to_an_end(&mut self, service: &Arc<Service>) -> Result<(), String> {
        for shown in service.backfills().await.map_err(|error| error.to_string())? {
            if shown.backfill.ended_at.is_none() && shown.backfill.wish == Wish::Pause {
                let resumed = service.steer_backfill(&shown.id, Wish::Run, false, &who()).await;
                resumed.map_err(|error| format!("resume {}: {error}", shown.id))?;
            }
        }
        for dag in service.paused() {
            self.book.asks_to_pause(&dag);
            service.pause(dag.as_str(), false, &who()).await.map_err(|error| format!("unpause `{dag}`: {error}"))?;
        }
        for _ in 0..LOOKS_MAX {
            sleep(LOOK_EVERY).await;
            match timeout(ANSWER_MAX, self.resolve(service)).await {
                Ok(resolved) => resolved?,
                Err(_) => return Err(format!("nobody answered to a resolve within {ANSWER_MAX:?}")),
            }
            if self.is_over(service).await? {
                return Ok(());
            }
        }
        let mut left = Vec::new();
        for row in rows(&**service.store()).await?.iter().filter(|row| !row.is_finished()) {
            left.push(format!(
                "{} of {} is {}: {:?}",
                row.header.run_id,
                row.header.dag_id,
                row.state,
                service.standing(&row.header.run_id)
            ));
        }
        let missing = self.missing(&rows(&**service.store()).await?);
        Err(format!(
            "{} runs are not over {LOOKS_MAX} minutes after the faults stopped: {}; of ticks there is no run: {missing:?}; next: {:?}",
            left.len(),
            left.join("; "),
            service.catalog().dags().values().map(|entry| service.next_tick(entry)).collect::<Vec<_>>()
        ))
    }

    /// Nothing goes on, no tick is to come, and none that is caught up is missing.
    async fn is_over(&self, service: &Arc<Service>) -> Result<bool, String> {
        let counts = service.counts();
        let is_idle = counts.queued + counts.active + counts.hindered + counts.stuck == 0;
        let has_ticks = service.catalog().dags().values().any(|entry| service.next_tick(entry).is_some());
        let fills = service.backfills().await.map_err(|error| error.to_string())?;
        let is_filling = fills.iter().any(|shown| shown.backfill.ended_at.is_none());
        if !is_idle || has_ticks || is_filling || service.now() <= self.house.last_tick() {
            return Ok(false);
        }
        let rows = rows(&**service.store()).await?;
        let updates = assets::updates(&**service.store()).await?;
        if self.house.dags.iter().any(|scenario| assets::is_due(scenario, &rows, &updates)) {
            return Ok(false);
        }
        Ok(self.missing(&rows).is_empty() && rows.iter().all(RunRow::is_finished))
    }

    /// Ticks of DAGs that catch up of which there is no run.
    fn missing(&self, rows: &[RunRow]) -> Vec<String> {
        let mut missing = Vec::new();
        for scenario in self.house.dags.iter().filter(|scenario| scenario.definition.catchup) {
            let dag = scenario.definition.dag.id();
            let of_dag = rows.iter().filter(|row| row.header.dag_id == *dag);
            let dates: BTreeSet<_> = of_dag.map(|row| row.header.logical_date).collect();
            let ticks = House::ticks(scenario).into_iter().map(|tick| tick.logical_date);
            missing.extend(ticks.filter(|date| !dates.contains(&Some(*date))).map(|date| format!("{dag} about {date}")));
        }
        missing
    }
}

async fn active_runs(service: &Arc<Service>) -> Result<BTreeSet<RunId>, String> {
    let runs = rows(&**service.store()).await?.into_iter().map(|row| row.header.run_id.clone());
    Ok(runs.filter(|run| matches!(service.standing(run), Standing::Active { .. })).collect())
}

/// The effect by which a segment is known to have been applied.
fn first_effect(shape: &Shape, instance: &InstanceId, segment: usize) -> String {
    effect(&shape.id, instance.map_index, segment, 0)
}
