//! People act on a random run: clear, mark, cancel, at any moment, also after its end.

use super::fixture::at;
use super::naive::Seen;
use super::{Driver, seen};
use backstop_core::command::{Command, Rejected};
use backstop_core::event::{Afterwards, Mark, Restart};
use backstop_core::{InstanceId, InstancePhase, RunPhase, Selection, TaskId, decide, select, select_failed};
use rand::prelude::*;
use std::collections::BTreeSet;

impl Driver {
    /// A person does something. False when nothing came of it.
    pub(crate) fn operate(&mut self) -> bool {
        self.acts_left -= 1;
        let before = self.run.events.len();
        match self.rng.random_range(0..10) {
            0..5 => self.operator_clears(),
            5..8 => self.operator_marks(),
            _ => self.operator_cancels(),
        }
        self.run.events.len() > before
    }

    fn operator_clears(&mut self) {
        let restart = *[Restart::Beginning, Restart::LastCommit].choose(&mut self.rng).unwrap();
        let instances = match self.rng.random_range(0..3) {
            0 => select_failed(&self.run.state),
            1 => {
                let tasks: Vec<InstanceId> = self.spec.tasks.iter().map(|task| InstanceId::single(task.id.clone())).collect();
                let tasks = tasks.into_iter().filter(|_| self.rng.random_bool(0.3)).collect();
                let mut flag = || self.rng.random_bool(0.3);
                let (upstream, downstream, only_failed, only_running) = (flag(), flag(), flag(), flag());
                select(&self.run.state, &Selection { tasks, upstream, downstream, only_failed, only_running })
            }
            _ => self.some_instances(),
        };
        let (who, why) = ("ada".to_owned(), "the data is mended".to_owned());
        let command = Command::Clear { instances: instances.clone(), restart, who, why };
        let Some((settled, running)) = self.expect(command.clone(), &instances, Seen::None) else { return };
        // Of what is done by a person's word no commit is known to go on behind.
        if restart == Restart::LastCommit
            && let Err(Rejected::BadArgument(text)) = decide(&self.run.state, command.clone(), at(self.now))
        {
            assert!(text.contains("took effect"), "{text}");
            return;
        }
        let places: Vec<usize> = running.iter().map(|&(place, _)| place).collect();
        let before: BTreeSet<InstanceId> = self.undecided();
        self.naive.committed = self.committed();
        self.tell(command);
        let cleared = self.naive.clear(&settled, restart, &places);
        self.forget_tries(&cleared);
        self.naive.stops.extend(running.into_iter().map(|one| (one, Afterwards::Clear(restart))));
        self.settle_unless_held();
        assert!(before.iter().all(|id| self.run.state.instance(id).is_some()), "what was not begun is still there");
    }

    /// What has commits behind which a retry goes on, though no attempt of it failed last.
    fn committed(&self) -> BTreeSet<(usize, usize)> {
        let mut committed = BTreeSet::new();
        for (id, view) in self.run.state.instances().filter(|(_, view)| !view.segments.is_empty()) {
            let (place, index) = self.place(&id);
            let one = (place, index.unwrap_or(0) as usize);
            let stands = match view.phase {
                InstancePhase::UpstreamFailed => true,
                InstancePhase::Skipped => self.naive.is_left_out(one),
                phase => phase == InstancePhase::Success && view.is_marked,
            };
            committed.extend(stands.then_some(one));
        }
        committed
    }

    fn operator_marks(&mut self) {
        let mark = *[Mark::Success, Mark::Failed].choose(&mut self.rng).unwrap();
        let already = if mark == Mark::Success { Seen::Success } else { Seen::Failed };
        let instances = self.some_instances();
        let (who, why) = ("ada".to_owned(), "done by hand".to_owned());
        let command = Command::Mark { instances: instances.clone(), mark, who, why };
        let Some((settled, running)) = self.expect(command.clone(), &instances, already) else { return };
        self.naive.committed = self.committed();
        self.tell(command);
        let cleared = self.naive.mark(&settled, mark);
        self.forget_tries(&cleared);
        self.naive.stops.extend(running.into_iter().map(|one| (one, Afterwards::Mark(mark))));
        self.settle_unless_held();
    }

    fn operator_cancels(&mut self) {
        let Some(instance) = self.some_instances().pop() else { return };
        let (place, index) = self.place(&instance);
        let phase = self.run.state.instance(&instance).unwrap().phase;
        let (reason, who) = ("too slow".to_owned(), "ada".to_owned());
        let command = Command::CancelInstance { instance, reason, who };
        let may_act = self.may_act();
        match phase {
            InstancePhase::Running if may_act => {
                self.tell(command);
                self.naive.stops.insert((place, index.unwrap_or(0) as usize), Afterwards::Fail);
            }
            InstancePhase::Scheduled | InstancePhase::Deferred { .. } | InstancePhase::UpForRetry { .. } if may_act => {
                self.tell(command);
                self.set(place, index, Seen::Failed);
            }
            _ => drop(self.run.tell(command).unwrap_err()),
        }
    }

    /// What is settled and what is running of these, or `None` when the command is refused, as it has to be.
    #[expect(clippy::type_complexity, reason = "two sets of one kind")]
    fn expect(
        &mut self,
        command: Command,
        instances: &[InstanceId],
        already: Seen,
    ) -> Option<(BTreeSet<(usize, usize)>, BTreeSet<(usize, usize)>)> {
        let found: Vec<((usize, usize), Seen)> = instances
            .iter()
            .map(|id| {
                let (place, index) = self.place(id);
                ((place, index.unwrap_or(0) as usize), seen(self.run.state.instance(id).unwrap().phase))
            })
            .collect();
        let of = |wanted: &dyn Fn(Seen) -> bool| -> BTreeSet<(usize, usize)> {
            found.iter().filter(|(_, seen)| wanted(*seen)).map(|(one, _)| *one).collect()
        };
        let running = of(&|seen| seen == Seen::Running);
        let settled = of(&|seen| seen != Seen::Running && seen != already);
        let in_doubt = found.iter().any(|(_, seen)| *seen == Seen::Doubt);
        let is_absent = found.iter().any(|(_, seen)| *seen == Seen::Removed);
        let has_any = !running.is_empty() || !settled.is_empty();
        if self.may_act() && !in_doubt && !is_absent && has_any {
            return Some((settled, running));
        }
        let refusal = self.run.tell(command).unwrap_err();
        if self.may_act() && in_doubt && !is_absent {
            assert!(matches!(refusal, Rejected::InDoubt(_)), "{refusal}");
        }
        None
    }

    fn may_act(&self) -> bool {
        match self.run.state.phase() {
            RunPhase::Cancelling => false,
            RunPhase::Stuck => self.naive.cancelled.is_none(),
            RunPhase::Queued | RunPhase::Running | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => true,
        }
    }

    fn some_instances(&mut self) -> Vec<InstanceId> {
        let all: Vec<InstanceId> = self.run.state.instances().map(|(id, _)| id).collect();
        let share = self.rng.random_range(0.05..0.6);
        let whole: Vec<TaskId> =
            self.spec.tasks.iter().filter(|_| self.rng.random_bool(share)).map(|task| task.id.clone()).collect();
        all.into_iter().filter(|id| whole.contains(&id.task) || self.rng.random_bool(0.1)).collect()
    }

    fn undecided(&self) -> BTreeSet<InstanceId> {
        let instances = self.run.state.instances();
        instances.filter(|(_, view)| view.phase == InstancePhase::None).map(|(id, _)| id).collect()
    }

    /// The run may have been reopened, or be stuck: then nothing is evaluated before it goes on.
    fn settle_unless_held(&mut self) {
        self.naive.is_held = matches!(self.run.state.phase(), RunPhase::Queued | RunPhase::Stuck);
        self.ended = None;
        self.naive.settle();
    }

    fn forget_tries(&mut self, cleared: &BTreeSet<(usize, usize)>) {
        for &(place, index) in cleared {
            self.tries.remove(&(place, None));
            self.tries.remove(&(place, Some(index as u32)));
        }
    }

    /// What a person wants to become of an attempt that ends now.
    pub(crate) fn wish(&self, place: usize, index: Option<u32>) -> Option<Afterwards> {
        let wish = self.naive.stops.get(&(place, index.unwrap_or(0) as usize)).copied()?;
        let is_cancelled = self.naive.cancelled.is_some();
        (!(is_cancelled && matches!(wish, Afterwards::Clear(_)))).then_some(wish)
    }

    /// An attempt ended: by itself as `seen`, unless a person wanted otherwise.
    pub(crate) fn end(&mut self, place: usize, index: Option<u32>, seen: Seen, stands: bool, has_failed: bool) {
        let wish = self.wish(place, index);
        let one = BTreeSet::from([(place, index.unwrap_or(0) as usize)]);
        self.naive.stops.remove(&(place, index.unwrap_or(0) as usize));
        match wish {
            Some(Afterwards::Clear(restart)) => {
                let restart = if has_failed { restart } else { Restart::Beginning };
                let cleared = self.naive.put_back(one, restart, &[]);
                self.forget_tries(&cleared);
                self.naive.settle();
            }
            Some(Afterwards::Mark(Mark::Success)) => self.set(place, index, Seen::Success),
            Some(Afterwards::Mark(Mark::Failed)) => self.set(place, index, Seen::Failed),
            Some(Afterwards::Fail) if !stands => self.set(place, index, Seen::Failed),
            Some(Afterwards::Fail) | None => self.set(place, index, seen),
        }
    }
}
