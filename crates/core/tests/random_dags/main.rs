//! Random DAGs, driven to their end in random order, against an independent naive reading of Airflow's rules.
//!
//! `BACKSTOP_SEEDS=100000 cargo test --release -p backstop-core --test random_dags` for a longer run; `BACKSTOP_SEED=n` for one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../fixture/mod.rs"]
mod fixture;
mod generate;
mod naive;
mod operate;

use backstop_core::command::{Command, Rejected};
use backstop_core::dag::DagSpec;
use backstop_core::event::{Afterwards, Evidence, FailureClass, Mark};
use backstop_core::{Action, Event, InstanceId, InstancePhase, RunPhase, RunState, TaskId, actions, apply, retry};
use fixture::{Run, at, failure, segment};
use naive::{Ending, Naive, Seen};
use rand::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Seeds of one test run: a few seconds.
const SEEDS: u64 = 10_000;

/// More steps than any run of this size takes.
const STEPS_MAX: usize = 5_000;

#[test]
fn random_dags_run_as_a_naive_reading_of_the_rules_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seeds = match number("BACKSTOP_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BACKSTOP_SEEDS").unwrap_or(SEEDS),
    };
    let mut endings: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds.clone() {
        let driven = std::panic::catch_unwind(|| drive(seed));
        match driven {
            Ok(ending) => *endings.entry(ending.as_str()).or_default() += 1,
            Err(panic) => {
                eprintln!("failing seed: BACKSTOP_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    eprintln!("seeds {seeds:?}: {endings:?}");
    if seeds.end - seeds.start >= SEEDS {
        assert_eq!(endings.len(), 3, "every ending is reached: {endings:?}");
    }
}

/// One run, with what is known of it from outside.
struct Driver {
    seed: u64,
    rng: StdRng,
    spec: DagSpec,
    run: Run,
    naive: Naive,
    shadow: RunState,
    /// Counted failures, and whether the current try committed something, by task and index.
    tries: BTreeMap<(usize, Option<u32>), (u32, bool)>,
    ended: Option<RunPhase>,
    started_at: i64,
    epoch: u64,
    now: i64,
    /// What people will do yet.
    acts_left: u32,
    /// The last try of each instance that began, and whether the next may continue it.
    began: BTreeMap<InstanceId, (u32, bool)>,
    /// Commits are unique by instance, try and segment: these are the keys of their markers.
    markers: BTreeSet<(InstanceId, u32, u32)>,
}

fn drive(seed: u64) -> RunPhase {
    let mut rng = StdRng::seed_from_u64(seed);
    let spec = generate::dag(&mut rng);
    let only = generate::only_tasks(&mut rng, &spec);
    let only_names: Vec<&str> = only.iter().map(String::as_str).collect();
    let run = Run::with_header(spec.clone(), fixture::header(&only_names));
    let shadow = run.state.clone();
    let naive = Naive::new(&spec, &only);
    let acts_left = if rng.random_bool(0.5) { rng.random_range(1..6) } else { 0 };
    let mut driver = Driver {
        seed,
        rng,
        spec,
        run,
        naive,
        shadow,
        tries: BTreeMap::new(),
        ended: None,
        started_at: 0,
        epoch: 1,
        now: 0,
        acts_left,
        began: BTreeMap::new(),
        markers: BTreeSet::new(),
    };
    driver.drive()
}

impl Driver {
    fn drive(&mut self) -> RunPhase {
        if self.rng.random_bool(0.01) {
            self.tell(Command::Cancel { reason: "never mind".to_owned() });
            self.naive.cancel(Ending::Cancelled);
            self.compare();
        } else {
            self.tell(Command::Start);
            self.naive.settle();
            self.compare();
        }
        for _ in 0..STEPS_MAX {
            if self.run.state.is_finished() && (self.acts_left == 0 || !self.operate()) {
                self.check_log();
                return self.run.state.phase();
            }
            self.step();
            self.compare();
        }
        panic!("the run does not end: {}", self.run.line());
    }

    fn step(&mut self) {
        let ended = self.run.state.phase().is_terminal();
        if self.run.state.phase() == RunPhase::Queued && self.rng.random_bool(0.5) {
            self.tell(Command::Start);
            self.started_at = self.now;
            self.naive.settle();
            return;
        }
        if self.acts_left > 0 && self.rng.random_bool(0.03) {
            self.operate();
            return;
        }
        match self.rng.random_range(0..100) {
            0 if !ended && self.naive.cancelled.is_none() => {
                self.tell(Command::Cancel { reason: "stop".to_owned() });
                self.naive.cancel(Ending::Cancelled);
            }
            1..3 => self.resume(),
            3..8 => self.tell_stale(),
            8..20 => self.let_time_pass(),
            20..50 => self.answer(),
            _ => self.act(),
        }
    }

    /// Carries out one of the wanted actions.
    fn act(&mut self) {
        let wanted = actions(&self.run.state);
        self.check_starts(&wanted);
        let Some(action) = wanted.choose(&mut self.rng).cloned() else {
            return self.answer();
        };
        match action {
            Action::StartAttempt { instance, try_number } => {
                let is_head = wanted.iter().find_map(|action| match action {
                    Action::StartAttempt { instance, .. } => Some(instance),
                    Action::ResolveUnknown { .. }
                    | Action::CancelAttempt { .. }
                    | Action::RunCallback { .. }
                    | Action::WakeAt(_) => None,
                });
                let instance = is_head.cloned().unwrap_or(instance);
                let view = self.run.state.instance(&instance).expect("a wanted instance exists");
                assert!(try_number >= 1 && view.phase == InstancePhase::Scheduled);
                let (place, index) = self.place(&instance);
                self.tell(Command::StartAttempt { instance });
                self.tries.entry((place, index)).or_default().1 = false;
                self.naive.begun.insert(place);
                self.set(place, index, Seen::Running);
            }
            Action::ResolveUnknown { instance, try_number } => self.resolve(instance, try_number),
            Action::CancelAttempt { instance, try_number, .. } => {
                if self.rng.random_bool(0.5) {
                    self.fail(instance, try_number, FailureClass::Cancelled);
                } else {
                    self.answer();
                }
            }
            Action::RunCallback { callback } => {
                let failure = self.rng.random_bool(0.2).then(|| failure(FailureClass::Permanent));
                self.tell(Command::FinishCallback { callback, failure });
            }
            Action::WakeAt(time) => {
                self.now = self.now.max(time.as_second() + i64::from(time.subsec_nanosecond() > 0));
                self.fire();
            }
        }
        self.unstick();
    }

    /// When only doubts are left, sometimes declares the run stuck, and a person decides.
    fn unstick(&mut self) {
        let only_doubts = self.naive.seen.iter().flatten().any(|&seen| seen == Seen::Doubt)
            && !self.naive.seen.iter().flatten().any(|seen| matches!(seen, Seen::Ready | Seen::Running | Seen::Waiting));
        if self.run.state.phase() == RunPhase::Stuck {
            let first = self.run.state.instances_in_doubt().next();
            if let Some(instance) = first {
                let try_number = self.run.state.instance(&instance).unwrap().try_number;
                self.resolve(instance, try_number);
            }
        } else if self.rng.random_bool(0.3) {
            let answer = self.run.tell(Command::DeclareStuck);
            self.follow(&answer.clone().unwrap_or_default());
            let is_over = self.run.state.phase().is_terminal();
            assert_eq!(answer.is_ok(), only_doubts && !is_over, "{answer:?} {}", self.run.line());
        }
    }

    fn resume(&mut self) {
        if self.run.state.is_finished() {
            return;
        }
        self.epoch += self.rng.random_range(1..3);
        self.tell(Command::Resume { epoch: self.epoch });
        for seen in self.naive.seen.iter_mut().flatten().filter(|seen| **seen == Seen::Running) {
            *seen = Seen::Doubt;
        }
        self.naive.settle();
    }

    /// A random running attempt says something.
    fn answer(&mut self) {
        let running: Vec<InstanceId> = self.run.state.instances_running().collect();
        let Some(instance) = running.choose(&mut self.rng).cloned() else { return };
        let (place, index) = self.place(&instance);
        let try_number = self.run.state.instance(&instance).unwrap().try_number;
        let is_unexpanded = self.spec.tasks[place].settings.mapped && index.is_none();
        match self.rng.random_range(0..100) {
            0..50 if is_unexpanded => self.expand(place, try_number),
            0..50 => self.succeed(instance, try_number),
            50..57 => {
                self.tell(Command::Skip { instance, try_number, reason: "nothing to do".to_owned() });
                self.end(place, index, Seen::Skipped, true, false);
            }
            57..64 => {
                let until = at(self.now + self.rng.random_range(-5..60));
                self.tell(Command::Defer { instance, try_number, until });
                if self.naive.cancelled.is_some() && self.wish(place, index).is_none() {
                    self.naive.cut(place, index.unwrap_or(0) as usize);
                } else {
                    self.end(place, index, Seen::Waiting, false, false);
                }
            }
            64..72 => {
                let class =
                    *[FailureClass::Transient, FailureClass::Interrupted, FailureClass::TimedOut].choose(&mut self.rng).unwrap();
                self.tell(Command::LoseTrack { instance, try_number, failure: failure(class) });
                self.set(place, index, Seen::Doubt);
            }
            72..82 => self.commit(instance, try_number),
            _ => {
                let class = *generate::CLASSES.choose(&mut self.rng).unwrap();
                self.fail(instance, try_number, class);
            }
        }
    }

    fn expand(&mut self, place: usize, try_number: u32) {
        let task = self.spec.tasks[place].id.clone();
        let count = self.rng.random_range(0..4_usize);
        let items = (0..count).map(|item| Arc::from(format!("{item}"))).collect();
        self.tell(Command::Expand { task, try_number, items });
        if self.wish(place, None).is_some() {
            self.end(place, None, Seen::Failed, false, false);
        } else if count == 0 {
            self.set(place, None, Seen::Skipped);
        } else {
            self.naive.expanded[place] = true;
            self.naive.seen[place] = vec![Seen::Ready; count];
            if self.naive.cancelled.is_some() {
                (0..count).for_each(|index| self.naive.cut(place, index));
            }
            self.naive.settle();
        }
    }

    fn succeed(&mut self, instance: InstanceId, try_number: u32) {
        let (place, index) = self.place(&instance);
        let downs = self.naive.downstream_of(place).to_vec();
        let follow: Option<Vec<usize>> = (!downs.is_empty() && index.is_none() && place % 3 == 0)
            .then(|| downs.iter().copied().filter(|_| self.rng.random_bool(0.5)).collect());
        let names =
            follow.as_ref().map(|follow| follow.iter().map(|&down| self.spec.tasks[down].id.clone()).collect::<Vec<TaskId>>());
        let result = self.rng.random_bool(0.5).then(|| Arc::<str>::from("42"));
        self.tell(Command::Succeed { instance: instance.clone(), try_number, result: result.clone(), follow: names });
        match self.wish(place, index) {
            None | Some(Afterwards::Fail | Afterwards::Mark(Mark::Success)) => {
                assert_eq!(self.run.state.result(instance.task.as_str(), index), result.as_ref());
                self.naive.stops.remove(&(place, index.unwrap_or(0) as usize));
                self.naive.seen[place][index.unwrap_or(0) as usize] = Seen::Success;
                if let Some(follow) = follow {
                    self.naive.branch(place, &follow);
                }
                self.naive.settle();
            }
            Some(Afterwards::Clear(_) | Afterwards::Mark(Mark::Failed)) => self.end(place, index, Seen::Success, true, false),
        }
    }

    fn commit(&mut self, instance: InstanceId, try_number: u32) {
        let (place, index) = self.place(&instance);
        let next = self.run.state.instance(&instance).unwrap().segments.len() as u32;
        let wrong = Command::CommitSegment { instance: instance.clone(), try_number, commit: segment(next + 1) };
        assert!(matches!(self.run.tell(wrong), Err(Rejected::Segment { .. })));
        self.tell(Command::CommitSegment { instance, try_number, commit: segment(next) });
        self.tries.entry((place, index)).or_default().1 = true;
    }

    fn resolve(&mut self, instance: InstanceId, try_number: u32) {
        if self.rng.random_bool(0.3) {
            self.commit(instance.clone(), try_number);
        }
        let (place, index) = self.place(&instance);
        let is_unexpanded = self.spec.tasks[place].settings.mapped && index.is_none();
        let class = self.run.state.failure(&instance).expect("a doubt has a reason").class;
        let has_progress = self.tries.get(&(place, index)).is_some_and(|tries| tries.1);
        let person = |took_effect| Evidence::Operator { who: "ada".to_owned(), why: "looked".to_owned(), took_effect };
        let evidence = match self.rng.random_range(0..6) {
            0 => person(false),
            1 if !is_unexpanded => person(true),
            2 => Evidence::Tombstone,
            3 => Evidence::ReadOnly,
            4 => Evidence::Allowed,
            _ => Evidence::Marker,
        };
        self.tell(Command::Resolve { instance, try_number, evidence: evidence.clone() });
        if evidence == person(true) {
            self.end(place, index, Seen::Success, true, false);
        } else if self.wish(place, index).is_some() {
            self.end(place, index, Seen::Failed, false, true);
        } else if self.naive.cancelled.is_some() {
            self.set(place, index, Seen::Failed);
        } else if class == FailureClass::Interrupted || has_progress || evidence == person(false) {
            self.set(place, index, Seen::Ready);
        } else {
            self.count_failure(place, index);
        }
    }

    fn fail(&mut self, instance: InstanceId, try_number: u32, class: FailureClass) {
        let (place, index) = self.place(&instance);
        self.tell(Command::Fail { instance, try_number, failure: failure(class) });
        if self.wish(place, index).is_some() {
            self.end(place, index, Seen::Failed, false, true);
        } else if self.naive.cancelled.is_some() || matches!(class, FailureClass::Final | FailureClass::Cancelled) {
            self.set(place, index, Seen::Failed);
        } else if class == FailureClass::Interrupted {
            self.set(place, index, Seen::Ready);
        } else {
            self.count_failure(place, index);
        }
    }

    fn count_failure(&mut self, place: usize, index: Option<u32>) {
        let tries = self.tries.entry((place, index)).or_default();
        tries.0 += 1;
        let failures = tries.0;
        let policy = &self.spec.tasks[place].settings.retry;
        if failures > policy.retries {
            return self.set(place, index, Seen::Failed);
        }
        let instance = InstanceId { task: self.spec.tasks[place].id.clone(), map_index: index };
        let wait = retry::wait(policy, "nightly", instance.task.as_str(), "2025-05-01 02:00:00+00:00", failures);
        let phase = self.run.state.instance(&instance).unwrap().phase;
        assert_eq!(phase, InstancePhase::UpForRetry { at: at(self.now) + wait });
        self.set(place, index, Seen::Waiting);
    }

    fn let_time_pass(&mut self) {
        // Sometimes the clock jumps back.
        self.now += self.rng.random_range(-20..100);
        self.fire();
    }

    fn fire(&mut self) {
        let due: Vec<InstanceId> = self
            .run
            .state
            .instances()
            .filter(|(_, view)| match view.phase {
                InstancePhase::Deferred { until } => until <= at(self.now),
                InstancePhase::UpForRetry { at: time } => time <= at(self.now),
                _ => false,
            })
            .map(|(id, _)| id)
            .collect();
        let is_active = matches!(self.run.state.phase(), RunPhase::Running | RunPhase::Stuck) && self.naive.cancelled.is_none();
        let timeout = self.spec.dagrun_timeout.map(|timeout| self.started_at + timeout.as_secs() as i64);
        self.tell(Command::FireTimers);
        if is_active && timeout.is_some_and(|timeout| timeout <= self.now) {
            self.naive.cancel(Ending::Failed);
            return;
        }
        for instance in due {
            let (place, index) = self.place(&instance);
            self.set(place, index, Seen::Ready);
        }
    }

    /// Answers that come too late, or make no sense, are refused and change nothing.
    fn tell_stale(&mut self) {
        let all: Vec<(InstanceId, u32, InstancePhase)> =
            self.run.state.instances().map(|(id, view)| (id, view.try_number, view.phase)).collect();
        let (instance, try_number, phase) = all.choose(&mut self.rng).expect("a DAG has tasks").clone();
        let is_running = phase == InstancePhase::Running;
        let try_number = if is_running { try_number + 1 } else { try_number };
        let failure = failure(FailureClass::Transient);
        let stale = match self.rng.random_range(0..6) {
            0 => Command::Succeed { instance, try_number, result: None, follow: None },
            1 => Command::Fail { instance, try_number, failure },
            2 => Command::Skip { instance, try_number, reason: String::new() },
            3 => Command::LoseTrack { instance, try_number, failure },
            4 => Command::Expand { task: instance.task, try_number, items: Vec::new() },
            _ => Command::Resume { epoch: self.epoch },
        };
        let answer = self.run.tell(stale.clone());
        assert!(answer.is_err(), "{stale:?} was accepted: {answer:?}");
    }

    /// Starts wanted are exactly what fits, in order.
    fn check_starts(&self, wanted: &[Action]) {
        let starts: Vec<(usize, Option<u32>)> = wanted
            .iter()
            .filter_map(|action| match action {
                Action::StartAttempt { instance, .. } => Some(self.place(instance)),
                Action::ResolveUnknown { .. } | Action::CancelAttempt { .. } | Action::RunCallback { .. } | Action::WakeAt(_) => {
                    None
                }
            })
            .collect();
        let expected = if self.run.state.phase() == RunPhase::Running { self.naive.startable(&self.spec) } else { Vec::new() };
        assert_eq!(starts, expected, "seed {}: {}", self.seed, self.run.line());
    }

    fn tell(&mut self, command: Command) {
        self.run.now = self.now;
        let events =
            self.run.tell(command.clone()).unwrap_or_else(|refusal| panic!("{command:?}: {refusal}; {}", self.run.line()));
        self.follow(&events);
    }

    /// Folds the events one by one into a second state, and checks what must hold after each.
    fn follow(&mut self, events: &[Event]) {
        for event in events {
            self.check_keys(event);
            if *event == Event::RunReopened {
                self.naive.reopen();
            }
            let before = self.shadow.clone();
            apply(&mut self.shadow, event);
            let is_reopened = *event == Event::RunReopened && matches!(events[0], Event::OperatorActed { .. });
            if before.phase().is_terminal() && !is_reopened {
                assert_eq!(self.shadow.phase(), before.phase(), "a terminal state changed by {event:?}");
            }
            let is_act =
                matches!(event, Event::InstancesCleared { .. } | Event::TaskUnexpanded { .. } | Event::InstanceMarked { .. });
            for (id, view) in before.instances().filter(|(_, view)| view.phase.is_done() && !is_act) {
                let after = self.shadow.instance(&id).map(|view| view.phase);
                assert_eq!(after, Some(view.phase), "{id} was done and changed by {event:?}");
            }
            self.check_derived();
        }
        self.naive.is_held = match self.shadow.phase() {
            RunPhase::Queued | RunPhase::Stuck => true,
            RunPhase::Running | RunPhase::Cancelling | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => false,
        };
        assert!(self.shadow == self.run.state, "seed {}: the fold differs after {}", self.seed, fixture::names(events));
    }

    /// No attempt has the marker keys of an earlier one.
    fn check_keys(&mut self, event: &Event) {
        match event {
            Event::AttemptStarted { instance, try_number, .. } => {
                let (last, continues) = self.began.get(instance).copied().unwrap_or_default();
                assert!(
                    *try_number > last || (continues && *try_number == last),
                    "try {try_number} of {instance} follows {last}"
                );
                self.began.insert(instance.clone(), (*try_number, false));
            }
            Event::AttemptDeferred { instance, try_number, .. } => drop(self.began.insert(instance.clone(), (*try_number, true))),
            Event::SegmentCommitted { instance, try_number, commit } => {
                assert!(self.markers.insert((instance.clone(), *try_number, commit.segment)), "{event:?} has the key of another");
            }
            _ => {}
        }
    }

    /// What is counted equals what is found by looking at everything.
    fn check_derived(&self) {
        let state = &self.shadow;
        let mut used = vec![0_u64; self.spec.pools.len()];
        let (mut done, mut all) = (0, 0);
        for (id, view) in state.instances() {
            all += 1;
            done += usize::from(view.phase.is_done());
            let settings = &self.spec.tasks[self.place(&id).0].settings;
            if view.phase == InstancePhase::Running {
                used[settings.pool as usize] += u64::from(settings.pool_slots);
            }
            assert!(view.segments.iter().enumerate().all(|(number, commit)| commit.segment as usize == number));
        }
        assert_eq!((done, all), (state.counts().done(), state.counts().done() + state.counts().undone()));
        for (pool, used) in used.into_iter().enumerate() {
            assert_eq!(state.pool_slots_used(pool as u32), used);
            assert!(self.spec.pools[pool].slots.is_none_or(|slots| used <= u64::from(slots)));
        }
        assert!(state.instances_running().count() <= self.spec.max_active_tasks as usize);
    }

    fn compare(&mut self) {
        let state = &self.run.state;
        for (place, task) in self.spec.tasks.iter().enumerate() {
            for (index, &expected) in self.naive.seen[place].iter().enumerate() {
                let id = InstanceId { task: task.id.clone(), map_index: self.naive.expanded[place].then_some(index as u32) };
                let found = state.instance(&id).map(|view| seen(view.phase));
                assert_eq!(found, Some(expected), "seed {}: {id} in {}", self.seed, self.run.line());
            }
        }
        let ending = self.naive.ending().map(|ending| match ending {
            Ending::Success => RunPhase::Succeeded,
            Ending::Failed => RunPhase::Failed,
            Ending::Cancelled => RunPhase::Cancelled,
        });
        assert_eq!(state.phase().is_terminal().then(|| state.phase()), ending, "seed {}: {}", self.seed, self.run.line());
        assert!(self.ended.is_none() || self.ended == ending || state.reopened() > 0, "the ending changed");
        self.ended = ending;
    }

    fn check_log(&self) {
        let replayed = RunState::replay(Arc::clone(self.run.state.dag()), &self.run.events);
        assert!(replayed == self.run.state, "seed {}: the fold of the whole log differs", self.seed);
        let wanted = actions(&self.run.state);
        assert!(wanted.is_empty(), "a finished run wants {wanted:?}");
    }

    fn place(&self, instance: &InstanceId) -> (usize, Option<u32>) {
        let place = self.spec.tasks.iter().position(|task| task.id == instance.task).expect("a task of the DAG");
        (place, instance.map_index)
    }

    fn set(&mut self, place: usize, index: Option<u32>, seen: Seen) {
        self.naive.seen[place][index.unwrap_or(0) as usize] = seen;
        self.naive.settle();
    }
}

fn seen(phase: InstancePhase) -> Seen {
    match phase {
        InstancePhase::None => Seen::None,
        InstancePhase::Scheduled => Seen::Ready,
        InstancePhase::Running => Seen::Running,
        InstancePhase::Deferred { .. } | InstancePhase::UpForRetry { .. } => Seen::Waiting,
        InstancePhase::InDoubt => Seen::Doubt,
        InstancePhase::Held | InstancePhase::RolledBack => panic!("these DAGs have no transactions"),
        InstancePhase::Success => Seen::Success,
        InstancePhase::Failed => Seen::Failed,
        InstancePhase::Skipped => Seen::Skipped,
        InstancePhase::UpstreamFailed => Seen::UpstreamFailed,
        InstancePhase::Removed => Seen::Removed,
    }
}
