//! The loop that drives one run: carries out what the core wants, feeds it what happened, and keeps the log.
//!
//! The loop has one closed set of inputs: answers of attempts and resolvers, the timer, the journal, the control. Between two of them
//! the state is settled and nothing awaits while it is mutated.

mod callbacks;
mod doubts;
mod ending;
mod inputs;
mod starting;

use crate::attempt::transaction::Part;
use crate::attempt::{Attempt, Shared, Stop, Stopper, Work, script, template_context};
use crate::control::Ask;
use crate::footing::Footing;
use crate::journal::Journal;
use crate::others::{Awaited, Watch};
use crate::resolve::{Doubt, asks_a_server};
use crate::run::{Control, Error, Limits};
use crate::sessions::ConnectionKey;
use crate::slots::{Permit, SeatHandle};
use backstop_core::event::{CallbackId, Event, Evidence, Mark, SegmentCommit};
use backstop_core::timetable::PastDurations;
use backstop_core::{Action, Command, InstanceId, RunPhase, RunState, TaskIx, actions, decide, handle};
use backstop_project::definition::{ForEach, Kind};
use backstop_store::Recorded;
use ending::Ending;
use jiff::Timestamp;
use starting::Beginning;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Answers that may wait for the engine.
const MAILBOX: usize = 1024;
/// Answers taken in one go before the core is asked what follows.
const ANSWERS_AT_ONCE: usize = 256;
/// How long attempts are waited for whose log cannot be written any more. One that its server does not end is left behind.
const ABANDONED_END_IN: Duration = Duration::from_secs(30);
/// The longest sleep, so that a timer that lies far away costs no accuracy.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What workers tell the engine.
#[derive(Debug)]
pub(crate) enum Answer {
    /// For the core.
    Command(Command),
    /// What an instance waits for that is going to be deferred.
    Awaits {
        /// Which instance.
        instance: InstanceId,
        /// For what.
        awaited: Awaited,
    },
    /// A resolver found no evidence: a person must decide.
    Undecided {
        /// Which instance.
        instance: InstanceId,
        /// Why.
        why: String,
        /// True when nobody could be asked, so that the same question may have an answer later.
        may_be_told_later: bool,
    },
}

/// An attempt that goes on.
struct Running {
    stop: watch::Sender<Stop>,
    /// The slots it takes away from other runs.
    permit: Option<Permit>,
}

/// Where somebody is told what became of their ask.
type Told = oneshot::Sender<Result<(), String>>;

/// Drives one run.
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) state: RunState,
    pub(crate) journal: Journal,
    pub(crate) control: Control,
    /// What is asked from outside.
    asks: Option<mpsc::UnboundedReceiver<Ask>>,
    /// Nothing more is begun.
    is_handing_over: bool,
    /// The run waits: its deadlines are told of, and nothing of it is begun but callbacks.
    only_tells: bool,
    pub(crate) limits: Limits,
    mailbox: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
    running: BTreeMap<(InstanceId, u32), Running>,
    /// Slots of open transactions, by the task that commits.
    unit_permits: BTreeMap<TaskIx, Permit>,
    /// Where slots are asked for that are shared with other runs.
    seat: Option<SeatHandle>,
    /// Each with a way to tell it to hurry. One channel each, and in order, so that they are woken in the same order every time.
    resolving: BTreeMap<InstanceId, watch::Sender<Stop>>,
    /// What resolvers that begin now are told.
    resolver_stop: Stop,
    callbacks: HashSet<CallbackId>,
    /// Nobody stops a callback but its own time-out, and the end of its engine.
    callback_stop: watch::Sender<Stop>,
    /// Those that were wanted before this process took the run over, and whose end no process recorded: they may have run.
    callbacks_left: HashSet<CallbackId>,
    /// Instances that wait for runs of other DAGs.
    watches: BTreeMap<InstanceId, Watch>,
    /// Instances that could not begin because other runs hold the slots.
    is_short: bool,
    undecided: BTreeMap<InstanceId, String>,
    /// Attempts in doubt may keep slots of pools, and sessions.
    has_kept_slots: bool,
    /// Those that an earlier process left in doubt were told to keep theirs.
    has_kept_of_before: bool,
    /// A doubt is left because nobody could be asked.
    is_unanswered: bool,
    wake_at: Option<Timestamp>,
    /// When there may be something to tell of the deadlines.
    deadline_at: Option<Timestamp>,
    /// How long the DAG's last runs took.
    pub(crate) past: Option<PastDurations>,
    footing: Footing,
    /// Why the run shall end, while what an earlier process ran ahead of its log is still being looked for.
    ending: Option<Ending>,
    /// Who asked for the end from outside, with what they want: they are answered when it is known what an earlier process did.
    asked_to_end: Vec<(Vec<Command>, Told)>,
    /// Answers of attempts that were stopped meanwhile: told to the core behind the cancel, so that the run is cancelled and not failed,
    /// and nothing is started because of them.
    stopped: Vec<Command>,
}

impl Engine {
    pub(crate) fn new(shared: Arc<Shared>, state: RunState, journal: Journal, control: Control, limits: Limits) -> Self {
        let (mailbox, answers) = mpsc::channel(MAILBOX);
        let footing = Footing::new(shared.definition.dag.tasks().len());
        let left = state.pending_callbacks().filter(|_| shared.was_interrupted).cloned().collect();
        Self {
            shared,
            state,
            journal,
            asks: control.take_inbox(),
            is_handing_over: false,
            only_tells: false,
            control,
            limits,
            mailbox,
            answers,
            running: BTreeMap::new(),
            unit_permits: BTreeMap::new(),
            seat: None,
            resolving: BTreeMap::new(),
            resolver_stop: Stop::Run,
            callbacks: HashSet::new(),
            callback_stop: watch::channel(Stop::Run).0,
            callbacks_left: left,
            watches: BTreeMap::new(),
            is_short: false,
            undecided: BTreeMap::new(),
            has_kept_slots: true,
            has_kept_of_before: false,
            is_unanswered: false,
            wake_at: None,
            deadline_at: Some(Timestamp::MIN),
            past: None,
            footing,
            ending: None,
            asked_to_end: Vec::new(),
            stopped: Vec::new(),
        }
    }

    /// Shares slots with other runs.
    pub(crate) fn sits(&mut self, seat: SeatHandle) {
        self.seat = Some(seat);
    }

    /// Asks the core, and logs what follows. A refusal of a late answer is no error: the log already has a better one.
    pub(crate) async fn command(&mut self, command: Command) -> Result<bool, Error> {
        let now = self.shared.clock.now();
        match handle(&mut self.state, command, now) {
            Ok(events) if events.is_empty() => Ok(true),
            Ok(events) => {
                self.keep_results(&events);
                let recorded = self.journal.append(now, events).await;
                self.decided(&recorded);
                Ok(true)
            }
            Err(rejected) => {
                self.shared.watcher.note(None, &format!("not done: {rejected}"));
                Ok(false)
            }
        }
    }

    /// As [`Self::command`], with events collected for one append.
    fn decide_into(&mut self, command: Command, now: Timestamp, events: &mut Vec<Event>) {
        match handle(&mut self.state, command, now) {
            Ok(new) => events.extend(new),
            Err(rejected) => self.shared.watcher.note(None, &format!("not done: {rejected}")),
        }
    }

    fn decided(&mut self, recorded: &[Recorded]) {
        self.unit_permits.retain(|commit, _| self.state.has_slots(*commit));
        for event in recorded.iter().map(|recorded| &recorded.event) {
            if let Event::GroupRolledBack { group, .. } = event
                && let Some(commit) = self.shared.definition.dag.index(group.as_str())
            {
                self.shared.transactions.roll_back(commit);
            }
        }
        self.footing.note(&self.state, &self.shared.definition, recorded);
        self.shared.watcher.decided(&self.state, recorded);
    }

    fn keep_results(&self, events: &[Event]) {
        let results = &self.shared.results;
        for event in events {
            match event {
                Event::AttemptSucceeded { instance, result: Some(result), .. }
                | Event::AttemptHeld { instance, result: Some(result), .. } => {
                    results.put(instance.task.as_str(), instance.map_index, result.clone());
                }
                Event::InstancesCleared { instances, .. } | Event::GroupRolledBack { members: instances, .. } => {
                    instances.iter().for_each(|instance| results.forget(instance.task.as_str(), instance.map_index));
                }
                Event::InstanceMarked { instance, mark: Mark::Failed } => {
                    results.forget(instance.task.as_str(), instance.map_index);
                }
                _ => {}
            }
        }
    }

    /// Runs until the run is over and told, or nothing can go on without a person.
    pub(crate) async fn drive(&mut self) -> Result<(), Error> {
        if self.shared.was_interrupted && self.is_over_time() {
            // Its time ran out while nobody drove it: nothing more of it is begun.
            self.begin_end(Ending::OverTime);
        }
        loop {
            self.deadline_at = self.tell_deadlines().await?;
            self.carry_out().await?;
            if self.state.is_finished() && self.running.is_empty() && self.callbacks.is_empty() {
                return Ok(self.journal.settle().await?);
            }
            if self.is_handing_over && self.running.is_empty() && self.callbacks.is_empty() && self.resolving.is_empty() {
                return Ok(self.journal.settle().await?);
            }
            if self.has_caught_up() && self.cannot_end() {
                return Ok(self.journal.settle().await?);
            }
            if self.has_caught_up() {
                self.end().await?;
                continue;
            }
            if self.ending.is_some() && self.running.is_empty() && self.resolving.is_empty() && !self.stopped.is_empty() {
                // What is still to be looked for waits for the slots that the stopped attempts hold.
                self.tell_stopped().await?;
                continue;
            }
            // The core refuses while a retry or a sensor still waits: then the loop goes on.
            if self.ending.is_none() && !self.is_handing_over && self.is_stuck() {
                // Said before: who is to be told of it has been told.
                if self.state.phase() == RunPhase::Stuck {
                    return Ok(self.journal.settle().await?);
                }
                if self.command(Command::DeclareStuck).await? {
                    continue;
                }
            }
            self.next_input().await?;
        }
    }

    /// What falls due before something else happens is told before it: a run that ends behind its deadline has missed it.
    async fn tell_what_is_due(&mut self) -> Result<(), Error> {
        if self.deadline_at.is_some_and(|at| at <= self.shared.clock.now()) {
            self.deadline_at = self.tell_deadlines().await?;
        }
        Ok(())
    }

    /// Tells of the deadlines of a run that waits, and runs its callbacks; nothing else of it is begun. Gives when to look again.
    pub(crate) async fn tell(&mut self) -> Result<Option<Timestamp>, Error> {
        self.only_tells = true;
        let next = self.tell_deadlines().await?;
        // No time wakes it: timers are the business of whoever drives the run.
        self.deadline_at = None;
        loop {
            self.carry_out().await?;
            if self.callbacks.is_empty() && self.wanted().is_empty() {
                self.journal.settle().await?;
                return Ok(next);
            }
            self.next_input().await?;
        }
    }

    /// Stops the attempts of a run whose log cannot be written, and waits for their ends: as long as they work, nobody else has their slots
    /// or the run's place. What became of them is found by their markers.
    pub(crate) async fn abandon(&mut self) {
        self.answers.close();
        while self.answers.try_recv().is_ok() {}
        let running = std::mem::take(&mut self.running);
        for running in running.values() {
            running.stop.send_if_modified(|current| {
                let was_running = *current == Stop::Run;
                if was_running {
                    *current = Stop::Cancel("the log of the run cannot be written".into());
                }
                was_running
            });
        }
        let ended = async {
            for running in running.values() {
                running.stop.closed().await;
            }
        };
        // What has not ended by then works on, and is fenced off when the run goes on: until then it keeps its slots.
        let _ = tokio::time::timeout(ABANDONED_END_IN, ended).await;
        for ((instance, _), running) in running.into_iter().filter(|(_, running)| !running.stop.is_closed()) {
            // The tasks of a transaction have one between them.
            let unit = self.place(&instance).and_then(|place| self.shared.definition.dag.unit_of(place));
            let of_unit = unit.map(|unit| unit.commit).and_then(|commit| self.unit_permits.remove(&commit));
            running.permit.or(of_unit).into_iter().for_each(Permit::falls_into_doubt);
        }
    }

    /// True when only instances are left that a person must decide.
    fn is_stuck(&self) -> bool {
        !self.undecided.is_empty()
            && self.running.is_empty()
            && self.callbacks.is_empty()
            && self.resolving.is_empty()
            && !actions(&self.state).iter().any(|action| match action {
                Action::StartAttempt { .. } | Action::CancelAttempt { .. } | Action::RunCallback { .. } => true,
                Action::ResolveUnknown { instance, .. } => !self.undecided.contains_key(instance),
                Action::WakeAt(_) => false,
            })
    }

    /// Why instances in doubt could not be resolved.
    pub(crate) fn undecided(&self) -> &BTreeMap<InstanceId, String> {
        &self.undecided
    }

    /// Carries out what the core wants, until it wants nothing more that is not going on already.
    async fn carry_out(&mut self) -> Result<(), Error> {
        if self.ending.is_some() && self.shared.was_interrupted {
            self.give_up_transactions().await?;
        }
        loop {
            self.keep_slots_of_doubts();
            let now = self.shared.clock.now();
            let mut beginning = Beginning::default();
            self.wake_at = None;
            for action in self.wanted() {
                match action {
                    Action::StartAttempt { instance, try_number } => {
                        self.begin_attempt(instance, try_number, now, &mut beginning)
                    }
                    Action::CancelAttempt { instance, try_number, reason } => {
                        self.cancel(instance, try_number, reason.as_deref())
                    }
                    Action::ResolveUnknown { instance, try_number } => self.resolve(instance, try_number),
                    Action::RunCallback { callback } => self.run_callback(callback),
                    Action::WakeAt(at) if self.ending.is_none() => self.wake_at = Some(at),
                    Action::WakeAt(_) => {}
                }
            }
            self.begin_past(now, &mut beginning);
            let Beginning { events, started, refused, .. } = beginning;
            self.is_short = !refused.is_empty();
            if let Some(seat) = &self.seat {
                seat.still_wants(|instance| refused.contains(instance));
            }
            if events.is_empty() {
                return Ok(());
            }
            self.keep_results(&events);
            let recorded = self.journal.append(now, events).await;
            self.decided(&recorded);
            for (instance, try_number, permit) in started {
                self.start(instance, try_number, permit, now);
            }
            while self.journal.is_too_far_ahead() {
                self.journal.next_durable().await?;
            }
        }
    }

    /// True while a branch above a task goes on: the task began before it (its trigger rule does not wait), and in a process that takes the
    /// run over the branch may end first and leave it out. Then the log must have its start before it takes effect.
    fn may_be_left_out(&self, place: TaskIx) -> bool {
        let dag = &self.shared.definition.dag;
        let goes_on = |up: &TaskIx| {
            let branch = self.state.instance(&InstanceId::single(dag.task(*up).id.clone()));
            matches!(self.shared.definition.body(*up).kind, Kind::Branch(_)) && branch.is_none_or(|view| !view.phase.is_done())
        };
        dag.task(place).upstream.iter().any(goes_on)
    }

    /// A session of which connection an attempt works in, and how many there may be.
    fn session_of(&self, instance: &InstanceId) -> Option<(ConnectionKey, u32)> {
        let body = self.shared.definition.body(self.place(instance)?);
        let connection = match &body.for_each {
            Some(ForEach::Rows { connection, .. }) if instance.map_index.is_none() => Some(connection.as_str()),
            Some(ForEach::List(..) | ForEach::Expression(_)) if instance.map_index.is_none() => None,
            Some(_) | None => body.connection.as_deref().filter(|_| asks_a_server(body)),
        };
        self.shared.sessions.places(connection?)
    }

    fn pool(&self, number: u32) -> &str {
        self.shared.definition.dag.pools().get(number as usize).map_or("default_pool", |pool| pool.name.as_str())
    }

    fn place(&self, instance: &InstanceId) -> Option<TaskIx> {
        self.shared.definition.dag.index(instance.task.as_str())
    }

    /// An empty task, unless it still has to find its items.
    fn is_empty_kind(&self, instance: &InstanceId) -> bool {
        self.place(instance).is_some_and(|place| {
            let body = self.shared.definition.body(place);
            matches!(body.kind, Kind::Empty) && (body.for_each.is_none() || instance.map_index.is_some())
        })
    }

    fn item(&self, instance: &InstanceId) -> Option<serde_json::Value> {
        let items = self.state.items(instance.task.as_str())?;
        let item = items.get(instance.map_index? as usize)?;
        serde_json::from_str(item).ok()
    }

    fn start(&mut self, instance: InstanceId, try_number: u32, permit: Option<Permit>, now: Timestamp) {
        let Some(place) = self.place(&instance) else { return };
        let stands_on = match self.may_be_left_out(place) {
            true => self.journal.version(),
            false => self.footing.of(&self.state, place),
        };
        let body = self.shared.definition.body(place);
        let expands = body.for_each.is_some() && instance.map_index.is_none();
        let view = self.state.instance(&instance);
        let stop_reason = self.ending.as_ref().map_or(Stop::Run, |_| Stop::Cancel(self.stop_reason()));
        let (stop, signal) = watch::channel(stop_reason);
        let attempt = Attempt {
            context: template_context(&self.shared, Some(&instance), try_number, self.item(&instance), None),
            part: self.part(place),
            open: Mutex::default(),
            shared: self.shared.clone(),
            work: if expands { Work::Expand(place.get()) } else { Work::Body(place.get()) },
            connection: body.connection.clone(),
            delivery: body.delivery,
            source: body.source.clone(),
            try_number,
            committed: view.as_ref().map(|view| view.segments.to_vec()).unwrap_or_default(),
            tries_before: view.as_ref().map_or(0, |view| view.tries_before),
            begins_wait: view.as_ref().is_some_and(|view| view.waiting_since == Some(now)),
            waiting_since: view.as_ref().and_then(|view| view.waiting_since),
            started_version: self.journal.version(),
            stands_on,
            gate: self.journal.gate(),
            stopper: Stopper::new(signal, body.execution_timeout),
            log: self.shared.logs.of(&instance, try_number),
            mailbox: self.mailbox.clone(),
            instance: instance.clone(),
        };
        let permit = match self.shared.definition.dag.unit_of(place) {
            Some(unit) => {
                self.unit_permits.extend(permit.map(|permit| (unit.commit, permit)));
                None
            }
            None => permit,
        };
        self.running.insert((instance, try_number), Running { stop, permit });
        tokio::spawn(attempt.run());
    }

    /// What an attempt of the task shares a transaction with.
    fn part(&self, place: TaskIx) -> Option<Part> {
        let dag = &self.shared.definition.dag;
        let commit = dag.member_of(place)?.commit;
        match self.shared.definition.body(commit).kind {
            Kind::Commit(transaction) => {
                let group = InstanceId::single(dag.task(commit).id.clone());
                Some(Part { commit, group, transaction, goes_on: self.state.has_held(place) })
            }
            _ => None,
        }
    }

    /// `reason` is of this attempt alone; without one the whole run is being cancelled.
    fn cancel(&self, instance: InstanceId, try_number: u32, reason: Option<&str>) {
        if let Some(running) = self.running.get(&(instance, try_number)) {
            let reason = reason.map_or_else(|| self.stop_reason(), str::to_owned);
            running.stop.send_if_modified(|current| {
                let was_running = *current == Stop::Run;
                if was_running {
                    *current = Stop::Cancel(reason);
                }
                was_running
            });
        }
    }

    /// The segment that an attempt in doubt may have committed, when the script has more behind it: then a person who says that it took
    /// effect speaks of this segment, not of the whole task.
    pub(crate) async fn segment_with_more_behind(
        &self,
        instance: &InstanceId,
        try_number: u32,
        evidence: Evidence,
    ) -> Result<Option<SegmentCommit>, String> {
        let Some(place) = self.place(instance) else { return Ok(None) };
        let body = self.shared.definition.body(place);
        let (Kind::Sql(sql), Some(connection)) = (&body.kind, body.connection.as_deref()) else { return Ok(None) };
        let number = self.state.instance(instance).map_or(0, |view| view.segments.len());
        let context = template_context(&self.shared, Some(instance), try_number, self.item(instance), None);
        script::told_segment(&self.shared, sql, connection, &context, number, evidence).await
    }

    fn resolve(&mut self, instance: InstanceId, try_number: u32) {
        if self.undecided.contains_key(&instance) || self.resolving.contains_key(&instance) {
            return;
        }
        let Some(place) = self.place(&instance) else { return };
        let (stop, signal) = watch::channel(self.resolver_stop.clone());
        self.resolving.insert(instance.clone(), stop);
        let body = self.shared.definition.body(place);
        let doubt = Doubt {
            shared: self.shared.clone(),
            item: self.item(&instance),
            committed: self.state.instance(&instance).map(|view| view.segments.to_vec()).unwrap_or_default(),
            tries_before: self.state.instance(&instance).map_or(0, |view| view.tries_before),
            expands: body.for_each.is_some() && instance.map_index.is_none(),
            body: place.get(),
            instance,
            try_number,
            mailbox: self.mailbox.clone(),
            stopper: Stopper::new(signal, None),
        };
        tokio::spawn(doubt.resolve());
    }

    fn refused(&self, commands: &[Command]) -> Option<String> {
        let now = self.shared.clock.now();
        let by_core = commands.iter().find_map(|command| decide(&self.state, command.clone(), now).err());
        by_core.map(|refused| refused.to_string()).or_else(|| self.not_looked_at(commands))
    }

    /// Carries out commands together, and answers when they are durable.
    async fn act(&mut self, commands: Vec<Command>, answer: Told) -> Result<(), Error> {
        // Refused before anything is recorded: who did what is not to be read of what was not done.
        let outcome = match self.refused(&commands) {
            Some(refused) => Err(refused),
            None => {
                for command in commands {
                    self.command(command).await?;
                }
                self.journal.settle().await?;
                Ok(())
            }
        };
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
        Ok(())
    }
}
