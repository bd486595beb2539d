//! Looks on while a process drives the run, and checks the invariants of the design after every event.

use super::scenario::{Scenario, Shape, call_effect, effect};
use super::server::Server;
use super::verdict::{Allowed, before_clears};
use super::world::World;
use backstop_core::dag::{Delivery, Unit};
use backstop_core::event::{CallbackId, Event, Evidence, Occasion, SegmentCommit};
use backstop_core::{InstanceId, InstancePhase, RunPhase, RunState, TaskId, TaskIx, apply};
use backstop_runtime::Watcher;
use backstop_store::Recorded;
use std::sync::{Arc, Mutex, PoisonError};

/// The watcher of one process.
pub(crate) struct Inspector {
    world: Arc<World>,
    servers: Vec<Arc<Server>>,
    scenario: Arc<Scenario>,
    /// The fold of the events as they were told, kept apart from the engine's own state.
    mirror: Mutex<RunState>,
    durable: Mutex<u64>,
    /// What was applied before a person asked for it again. That happens between two processes only.
    before: Allowed,
}

impl Inspector {
    /// For a process that finds these events in its store.
    pub(crate) fn new(world: Arc<World>, servers: Vec<Arc<Server>>, scenario: Arc<Scenario>, found: &[Recorded]) -> Self {
        let mirror = RunState::replay(scenario.definition.dag.clone(), found.iter().map(|recorded| &recorded.event));
        for recorded in found {
            if let Event::CallbackScheduled { callback } = &recorded.event {
                world.allow_call(call_effect(callback));
            }
        }
        let durable = Mutex::new(found.len() as u64);
        let events: Vec<Event> = found.iter().map(|recorded| recorded.event.clone()).collect();
        let before = if scenario.dry_run { Allowed::new() } else { before_clears(&scenario, &events) };
        Self { world, servers, scenario, mirror: Mutex::new(mirror), durable, before }
    }

    /// One event: what must hold before it, and after it.
    fn step(&self, mirror: &mut RunState, recorded: &Recorded) -> Result<(), String> {
        if recorded.seq != mirror.version() + 1 {
            return Err(format!("event {} came as number {}", mirror.version() + 1, recorded.seq));
        }
        let event = &recorded.event;
        let subject = subject(event);
        let before = subject.and_then(|id| mirror.instance(id)).map(|view| view.phase);
        let run_before = mirror.phase();
        match event {
            Event::AttemptStarted { instance, try_number, .. } => {
                started(mirror, instance, *try_number)?;
                alone(mirror, instance)?;
            }
            Event::AttemptHeld { instance, .. } => self.nothing_of_the_unit(mirror, &instance.task, event)?,
            Event::GroupRolledBack { group, .. } => self.nothing_of_the_unit(mirror, group, event)?,
            Event::AttemptSucceeded { instance, .. } => self.succeeded(mirror, instance)?,
            Event::SegmentCommitted { instance, commit, .. } => self.committed(mirror, instance, commit)?,
            Event::AttemptFailed { instance, .. } => self.failed(mirror, instance)?,
            Event::CallbackScheduled { callback } => scheduled(mirror, callback)?,
            _ => {}
        }
        apply(mirror, event);
        if let (Some(id), Some(before)) = (subject, before) {
            let after = mirror.instance(id).map(|view| view.phase);
            if before.is_done() && after != Some(before) && !matches!(event, Event::InstanceMarked { .. }) {
                return Err(format!("`{id}` was {} and became {after:?}", before.as_str()));
            }
        }
        if run_before.is_terminal() && mirror.phase() != run_before && *event != Event::RunReopened {
            return Err(format!("the run was {} and became {}", run_before.as_str(), mirror.phase().as_str()));
        }
        if let Event::AttemptFailed { instance, .. } = event {
            bounded(mirror, instance)?;
        }
        slots(mirror)
    }

    fn shape(&self, instance: &InstanceId) -> Result<&Shape, String> {
        self.scenario.shape(instance.task.as_str()).ok_or_else(|| format!("there is no task `{}`", instance.task))
    }

    /// How often an effect was applied since it was asked for last.
    fn since_cleared(&self, server: usize, name: &str) -> u32 {
        let before = self.before.get(&(server, name.to_owned())).map_or(0, |(least, _)| *least);
        self.servers[server].count(name).saturating_sub(before)
    }

    /// The database must agree that the segment committed.
    fn committed(&self, mirror: &RunState, instance: &InstanceId, commit: &SegmentCommit) -> Result<(), String> {
        if self.unit(mirror, &instance.task).is_some() {
            return self.all_of_the_unit(mirror, &instance.task);
        }
        let shape = self.shape(instance)?;
        let number = commit.segment as usize;
        let known = mirror.instance(instance).map_or(0, |view| view.segments.len());
        if number != known {
            return Err(format!("segment {number} of `{instance}` was committed as number {known}"));
        }
        let Some(segment) = shape.segments.get(number) else {
            return Err(format!("`{instance}` has no segment {number}"));
        };
        match &commit.evidence {
            Evidence::Acknowledged | Evidence::Marker | Evidence::ReadOnly | Evidence::Operator { took_effect: true, .. } => {}
            other => return Err(format!("segment {number} of `{instance}` is called committed by {other:?}")),
        }
        if self.scenario.dry_run {
            return Ok(());
        }
        for part in 0..segment.parts() {
            let name = effect(&shape.id, instance.map_index, number, part);
            let count = self.since_cleared(shape.server, &name);
            if count == 0 || (count > 1 && shape.delivery == Delivery::ExactlyOnce) {
                return Err(format!(
                    "segment {number} of `{instance}` is called committed; effect `{name}` was applied {count} times"
                ));
            }
        }
        Ok(())
    }

    /// What a failed attempt committed is known, all of it.
    fn failed(&self, mirror: &RunState, instance: &InstanceId) -> Result<(), String> {
        self.nothing_of_the_unit(mirror, &instance.task, "a failure")?;
        let shape = self.shape(instance)?;
        let known = mirror.instance(instance).map_or(0, |view| view.segments.len());
        if shape.delivery == Delivery::AtLeastOnce {
            return Ok(());
        }
        for (number, segment) in shape.segments.iter().enumerate().skip(known) {
            for part in 0..segment.parts() {
                let name = effect(&shape.id, instance.map_index, number, part);
                if self.since_cleared(shape.server, &name) > 0 {
                    return Err(format!("`{instance}` is called failed behind {known} segments, but `{name}` took effect"));
                }
            }
        }
        Ok(())
    }

    fn unit<'a>(&self, mirror: &'a RunState, task: &TaskId) -> Option<&'a Unit> {
        mirror.dag().unit_of(mirror.dag().index(task.as_str())?)
    }

    /// How often each effect of a transaction was applied since it was asked for last.
    fn effects_of_the_unit(&self, mirror: &RunState, task: &TaskId) -> Vec<(String, u32)> {
        let members = self.unit(mirror, task).map_or(&[][..], |unit| &unit.members);
        let shapes = members.iter().filter_map(|member| self.scenario.shape(mirror.dag().task(*member).id.as_str()));
        let effects = shapes.flat_map(|shape| {
            let parts = shape.segments.first().map_or(0, |segment| segment.parts());
            (0..parts).map(|part| {
                let name = effect(&shape.id, None, 0, part);
                let count = self.since_cleared(shape.server, &name);
                (name, count)
            })
        });
        effects.collect()
    }

    /// What shares a transaction takes effect with it alone.
    fn nothing_of_the_unit(&self, mirror: &RunState, task: &TaskId, at: impl std::fmt::Debug) -> Result<(), String> {
        match self.effects_of_the_unit(mirror, task).into_iter().find(|(_, count)| *count > 0) {
            Some((name, count)) => Err(format!("effect `{name}` was applied {count} times, and not committed at {at:?}")),
            None => Ok(()),
        }
    }

    fn all_of_the_unit(&self, mirror: &RunState, task: &TaskId) -> Result<(), String> {
        if self.scenario.dry_run {
            return Ok(());
        }
        match self.effects_of_the_unit(mirror, task).into_iter().find(|(_, count)| *count != 1) {
            Some((name, count)) => Err(format!("`{task}` is called committed; effect `{name}` was applied {count} times")),
            None => Ok(()),
        }
    }

    /// A member succeeds by its commit alone, and the commit when all members have done their work.
    fn succeeded(&self, mirror: &RunState, instance: &InstanceId) -> Result<(), String> {
        let Some(unit) = self.unit(mirror, &instance.task) else { return Ok(()) };
        self.all_of_the_unit(mirror, &instance.task)?;
        let phase =
            |task: TaskIx| mirror.instance(&InstanceId::single(mirror.dag().task(task).id.clone())).map(|view| view.phase);
        if mirror.dag().index(instance.task.as_str()) != Some(unit.commit) {
            return match phase(unit.commit) {
                Some(InstancePhase::Success) => Ok(()),
                other => Err(format!("`{instance}` succeeds while its commit is {other:?}")),
            };
        }
        match unit.members.iter().find(|member| phase(**member) != Some(InstancePhase::Held)) {
            None => Ok(()),
            Some(member) => {
                Err(format!("`{instance}` commits while `{}` is {:?}", mirror.dag().task(*member).id, phase(*member)))
            }
        }
    }

    fn durable_up_to(&self, events: &[Recorded]) -> Result<(), String> {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        for recorded in events {
            if recorded.seq != *durable + 1 {
                return Err(format!("event {} is told durable behind {}", recorded.seq, *durable));
            }
            *durable = recorded.seq;
            if let Event::CallbackScheduled { callback } = &recorded.event {
                self.world.allow_call(call_effect(callback));
            }
        }
        Ok(())
    }
}

impl Watcher for Inspector {
    fn decided(&self, state: &RunState, events: &[Recorded]) {
        let mut mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        for recorded in events {
            self.world.say(|| format!("#{} {}", recorded.seq, told(&recorded.event)));
            if let Err(what) = self.step(&mut mirror, recorded) {
                self.world.violated(|| format!("at event {}: {what}", recorded.seq));
            }
        }
        if *mirror != *state {
            self.world.violated(|| "the fold of the events is not the engine's state".into());
        }
        self.world.events(events.len() as u64);
    }

    fn durable(&self, events: &[Recorded]) {
        if let Some(last) = events.last() {
            self.world.say(|| format!("durable up to #{}", last.seq));
        }
        if let Err(what) = self.durable_up_to(events) {
            self.world.violated(|| what);
        }
    }

    fn note(&self, instance: Option<&InstanceId>, text: &str) {
        self.world.say(|| format!("note {}: {text}", instance.map(InstanceId::to_string).unwrap_or_default()));
    }
}

/// The instance whose phase an event may change.
fn subject(event: &Event) -> Option<&InstanceId> {
    match event {
        Event::TaskScheduled { instance }
        | Event::AttemptStarted { instance, .. }
        | Event::SegmentCommitted { instance, .. }
        | Event::AttemptSucceeded { instance, .. }
        | Event::AttemptHeld { instance, .. }
        | Event::AttemptDeferred { instance, .. }
        | Event::AttemptFailed { instance, .. }
        | Event::AttemptUnknown { instance, .. }
        | Event::UnknownResolved { instance, .. }
        | Event::RetryScheduled { instance, .. }
        | Event::TimerFired { instance }
        | Event::TaskSkipped { instance, .. }
        | Event::InstanceMarked { instance, .. }
        | Event::InstanceCancelRequested { instance, .. }
        | Event::AssetsUpdated { instance, .. }
        | Event::AnomalyNoticed { instance, .. }
        | Event::TaskUpstreamFailed { instance } => Some(instance),
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::TaskExpanded { .. }
        | Event::GroupRolledBack { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::RunReopened
        | Event::RunPinned { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::InstancesCleared { .. }
        | Event::TaskUnexpanded { .. }
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => None,
    }
}

/// Nothing starts but what waits for a slot: above all nothing that is in doubt.
fn started(mirror: &RunState, instance: &InstanceId, try_number: u32) -> Result<(), String> {
    let Some(view) = mirror.instance(instance) else { return Err(format!("`{instance}` starts and does not exist")) };
    if view.phase != InstancePhase::Scheduled {
        return Err(format!("`{instance}` starts while it is {}", view.phase.as_str()));
    }
    if mirror.phase() != RunPhase::Running {
        return Err(format!("`{instance}` starts while the run is {}", mirror.phase().as_str()));
    }
    if try_number < view.try_number || try_number > view.try_number + 1 {
        return Err(format!("try {try_number} of `{instance}` follows try {}", view.try_number));
    }
    Ok(())
}

/// Tasks that share a session run one after another.
fn alone(mirror: &RunState, instance: &InstanceId) -> Result<(), String> {
    let dag = mirror.dag();
    let Some(unit) = dag.index(instance.task.as_str()).and_then(|place| dag.unit_of(place)) else { return Ok(()) };
    let shares = |other: &InstanceId| dag.index(other.task.as_str()).and_then(|place| dag.unit_of(place)) == Some(unit);
    let other = mirror.instances_running().chain(mirror.instances_in_doubt()).find(shares);
    other.map_or(Ok(()), |other| Err(format!("`{instance}` starts while `{other}` is in its session")))
}

/// A final failure alone calls `on_failure`, and no success of the same instance can follow it.
fn scheduled(mirror: &RunState, callback: &CallbackId) -> Result<(), String> {
    let Some(instance) = &callback.instance else { return Ok(()) };
    let phase = mirror.instance(instance).map(|view| view.phase);
    let fits = match callback.occasion {
        Occasion::Failure => phase == Some(InstancePhase::Failed),
        Occasion::Success => phase == Some(InstancePhase::Success),
        Occasion::Retry => phase.is_some_and(|phase| !phase.is_done()),
        // Of the run as a whole only.
        Occasion::Deadline | Occasion::Stuck => false,
    };
    if fits { Ok(()) } else { Err(format!("{callback:?} is asked for while `{instance}` is {phase:?}")) }
}

/// No more failures count than the policy allows.
fn bounded(mirror: &RunState, instance: &InstanceId) -> Result<(), String> {
    let Some(view) = mirror.instance(instance) else { return Ok(()) };
    let Some(place) = mirror.dag().index(instance.task.as_str()) else { return Ok(()) };
    let retries = mirror.dag().task(place).settings.retry.retries;
    if view.failures > retries + 1 {
        return Err(format!("`{instance}` failed {} times with {retries} retries", view.failures));
    }
    Ok(())
}

/// Slots in use are those of running attempts, and never more than there are.
fn slots(mirror: &RunState) -> Result<(), String> {
    let dag = mirror.dag();
    let mut used = vec![0u64; dag.pools().len()];
    let mut running = 0;
    for instance in mirror.instances_running().chain(mirror.instances_that_keep_slots()) {
        let Some(TaskIx(place)) = dag.index(instance.task.as_str()) else { continue };
        let settings = &dag.tasks()[place as usize].settings;
        used[settings.pool as usize] += u64::from(settings.pool_slots);
        running += 1;
    }
    if running > dag.max_active_tasks() {
        return Err(format!("{running} attempts are going on; {} are allowed", dag.max_active_tasks()));
    }
    for (pool, used) in used.into_iter().enumerate() {
        let counted = mirror.pool_slots_used(pool as u32);
        let slots = dag.pools()[pool].slots;
        if counted != used || slots.is_some_and(|slots| used > u64::from(slots)) {
            return Err(format!("pool {pool}: {used} slots are in use, {counted} are counted, {slots:?} there are"));
        }
    }
    Ok(())
}

fn told(event: &Event) -> String {
    let text = match event {
        Event::SegmentCommitted { instance, try_number, commit } => {
            format!("SegmentCommitted {instance} try {try_number} segment {} by {:?}", commit.segment, commit.evidence)
        }
        Event::AttemptFailed { instance, try_number, failure, is_final } => {
            format!("AttemptFailed {instance} try {try_number} final {is_final}: {:?} {}", failure.class, failure.message)
        }
        Event::AttemptUnknown { instance, try_number, failure } => {
            format!("AttemptUnknown {instance} try {try_number}: {:?} {}", failure.class, failure.message)
        }
        other => format!("{other:?}"),
    };
    text.chars().take(220).collect()
}
