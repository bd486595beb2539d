//! What comes to the engine: answers of attempts and resolvers, the timer, the journal, the control. It waits for one of them, and takes it in.

use super::ending::{Ending, is_stop};
use super::{ANSWERS_AT_ONCE, Answer, Engine, SLEEP_MAX};
use crate::attempt::Stop;
use crate::clock::until;
use crate::control::{Ask, Held};
use crate::others::Watch;
use crate::repin;
use crate::run::{self, Error};
use backstop_core::{Command, InstanceId, InstancePhase, InstanceView, RunPhase};
use backstop_project::definition::Kind;
use backstop_store::Recorded;

impl Engine {
    /// Waits for one input, and takes what else is there.
    pub(super) async fn next_input(&mut self) -> Result<(), Error> {
        self.control.tell_idle(self.is_idle());
        let now = self.shared.clock.now();
        let sleep = self.wake_at.into_iter().chain(self.deadline_at).min().map(|at| until(now, at).min(SLEEP_MAX));
        let timer = async {
            match sleep {
                Some(sleep) => tokio::time::sleep(sleep).await,
                None => std::future::pending().await,
            }
        };
        let asked = async {
            match &mut self.asks {
                Some(asks) => asks.recv().await,
                None => std::future::pending().await,
            }
        };
        let given = async {
            match &self.seat {
                Some(seat) => seat.given().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = self.control.cancelled() => {
                self.resolver_stop = Stop::Cancel(reason.clone());
                for stop in self.resolving.values() {
                    stop.send_replace(self.resolver_stop.clone());
                }
                self.begin_end(Ending::Asked(reason));
                self.tell_what_is_due().await?;
                // At once in a run's first process: before the loop begins anything more.
                if self.has_caught_up() && !self.cannot_end() {
                    self.end().await?;
                }
            }
            answer = self.answers.recv() => {
                let mut answers: Vec<Answer> = answer.into_iter().collect();
                while answers.len() < ANSWERS_AT_ONCE {
                    match self.answers.try_recv() {
                        Ok(answer) => answers.push(answer),
                        Err(_) => break,
                    }
                }
                self.tell_what_is_due().await?;
                self.take(answers).await;
            }
            durable = self.journal.next_durable() => durable?,
            Some(ask) = asked => self.hear(ask).await?,
            // What was given is taken when the loop carries out what is wanted.
            () = given => {}
            () = timer => {
                self.tell_what_is_due().await?;
                if self.shared.was_interrupted && self.is_over_time() {
                    self.begin_end(Ending::OverTime);
                } else {
                    self.command(Command::FireTimers).await?;
                }
            }
        }
        Ok(())
    }

    /// What they wait for is known to the process before this one: they look again.
    pub(crate) async fn wake_who_waits_for_runs(&mut self) -> Result<(), Error> {
        let waits = |(instance, view): (InstanceId, InstanceView<'_>)| {
            let body = self.shared.definition.body(self.place(&instance)?);
            let is_of_kind = matches!(body.kind, Kind::Dag(_) | Kind::WaitFor(_));
            (is_of_kind && matches!(view.phase, InstancePhase::Deferred { .. })).then_some(instance)
        };
        let waiting: Vec<InstanceId> = self.state.instances().filter_map(waits).collect();
        for instance in waiting {
            self.command(Command::Wake { instance }).await?;
        }
        Ok(())
    }

    /// Nothing goes on and nothing is wanted but time, or another run: such a run takes no other run's place.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_short && self.running.is_empty() && self.callbacks.is_empty() && self.resolving.is_empty()
    }

    /// Starts a run that was not started, unless what is asked already ends it.
    pub(crate) async fn start_if_queued(&mut self) -> Result<(), Error> {
        while let Some(ask) = self.asks.as_mut().and_then(|asks| asks.try_recv().ok()) {
            self.hear(ask).await?;
        }
        if self.state.phase() == RunPhase::Queued && !self.is_handing_over {
            // What was asked took its time, and may end the run as soon as it begins.
            self.tell_what_is_due().await?;
            self.command(Command::Start).await?;
        }
        Ok(())
    }

    /// Carries out what is asked from outside. Whoever asks is answered when it is durable.
    pub(super) async fn hear(&mut self, ask: Ask) -> Result<(), Error> {
        self.tell_what_is_due().await?;
        match ask {
            Ask::Look(look) => look(&self.state),
            Ask::Awaited(instance, answer) => {
                // They may be gone.
                let _ = answer.send(self.watches.get(&instance).map(|watch| watch.awaited.clone()));
            }
            Ask::LookInto(look) => {
                let (is_handing_over, is_ending) = (self.is_handing_over, self.ending.is_some());
                look(&self.state, Held { undecided: &self.undecided, is_handing_over, is_ending });
            }
            Ask::HandOver => self.is_handing_over = true,
            Ask::LetGo(answer) => {
                let outcome = match self.what_goes_on() {
                    Some(what) => Err(what),
                    None => {
                        self.is_handing_over = true;
                        Ok(self.state.epoch())
                    }
                };
                // They may be gone: then the run is found like any other that was left.
                let _ = answer.send(outcome);
            }
            Ask::Act(commands, answer) => {
                let reason = commands.iter().find_map(|command| match command {
                    Command::Cancel { reason } => Some(reason.clone()),
                    _ => None,
                });
                match reason {
                    // A cancel calls skipped what has not begun: what an earlier process began ahead of its log is looked for first.
                    Some(reason) if self.shared.was_interrupted && self.refused(&commands).is_none() => {
                        self.asked_to_end.push((commands, answer));
                        self.begin_end(Ending::Asked(reason));
                    }
                    Some(_) | None => self.act(commands, answer).await?,
                }
            }
            Ask::Decide(decision, answer) => {
                let outcome = match run::decide(self, &decision).await {
                    Err(Error::Request(refused)) => Err(refused),
                    other => {
                        other?;
                        self.undecided.remove(&decision.instance);
                        self.journal.settle().await?;
                        Ok(())
                    }
                };
                let _ = answer.send(outcome);
            }
        }
        Ok(())
    }

    /// What keeps the run from going on with other files, in a sentence: it goes on with those that it has.
    fn what_goes_on(&self) -> Option<String> {
        let dag = &self.shared.definition.dag;
        let running = self.running.keys().next().map(|(instance, _)| instance.clone());
        if let Some(instance) = running.or_else(|| self.state.instances_running().next()) {
            return Some(repin::is_running(&instance));
        }
        if let Some(instance) = self.state.instances_in_doubt().next() {
            return Some(format!("it is not known yet what the last attempt of `{instance}` did: ask again when it is"));
        }
        if let Some(unit) = self.state.instances_that_keep_slots().find_map(|instance| dag.unit_of(self.place(&instance)?)) {
            let group = &dag.task(unit.commit).id;
            return Some(format!(
                "the transaction of `{group}` is open, and would be rolled back: wait for its end, or cancel the run"
            ));
        }
        if let Some(callback) = self.callbacks.iter().min() {
            let of = callback.instance.as_ref().map_or_else(|| "the run".to_owned(), |instance| format!("`{instance}`"));
            return Some(format!("a callback of {of} is running: ask again when it has ended"));
        }
        if self.ending.is_some() {
            return Some("the run is being cancelled: ask again when it is".to_owned());
        }
        let (open, _) = self.unlooked().find(|(instance, try_number)| self.may_have_run_ahead(instance, *try_number))?;
        Some(format!("`{open}` may have been begun by the process before this one, and has not been looked at yet: ask again"))
    }

    /// A person may not settle what an earlier process may have begun ahead of its log: it has to be looked at first.
    pub(super) fn not_looked_at(&self, commands: &[Command]) -> Option<String> {
        let named = commands.iter().flat_map(|command| match command {
            Command::Clear { instances, .. } | Command::Mark { instances, .. } => instances.as_slice(),
            Command::CancelInstance { instance, .. } => std::slice::from_ref(instance),
            _ => &[],
        });
        let is_open = |instance: &&InstanceId| {
            let view = self.state.instance(instance);
            let has_not_begun = |phase| matches!(phase, InstancePhase::None | InstancePhase::Scheduled);
            view.is_some_and(|view| view.try_number == 0 && has_not_begun(view.phase)) && self.may_have_run_ahead(instance, 1)
        };
        let open = named.into_iter().find(is_open)?;
        Some(format!("`{open}` may have been begun by the process before this one, and has not been looked at yet: ask again"))
    }

    /// Feeds answers to the core, with one append for all.
    pub(super) async fn take(&mut self, answers: Vec<Answer>) {
        let now = self.shared.clock.now();
        let mut events = Vec::new();
        for answer in answers {
            match answer {
                Answer::Command(command) if self.ending.is_some() && is_stop(&command) => {
                    self.forget(&command);
                    self.stopped.push(command);
                }
                Answer::Command(command) => {
                    self.forget(&command);
                    self.decide_into(command, now, &mut events);
                }
                Answer::Awaits { instance, awaited } => {
                    if let Some(others) = &self.shared.others {
                        let watch = Watch::start(others.clone(), awaited, instance.clone(), self.mailbox.clone());
                        self.watches.insert(instance, watch);
                    }
                }
                Answer::Undecided { instance, why, may_be_told_later } => {
                    self.is_unanswered |= may_be_told_later;
                    self.resolving.remove(&instance);
                    self.shared.watcher.note(Some(&instance), &format!("in doubt: {why}"));
                    self.undecided.insert(instance, why);
                }
            }
        }
        if !events.is_empty() {
            self.keep_results(&events);
            let recorded: Vec<Recorded> = self.journal.append(now, events).await;
            self.decided(&recorded);
        }
    }

    /// An answer ends what it is about.
    pub(super) fn forget(&mut self, command: &Command) {
        match command {
            Command::Succeed { instance, try_number, .. }
            | Command::Skip { instance, try_number, .. }
            | Command::Defer { instance, try_number, .. }
            | Command::Fail { instance, try_number, .. }
            | Command::Hold { instance, try_number, .. }
            | Command::LoseTransaction { instance, try_number, .. } => {
                self.has_ended(instance, *try_number);
            }
            Command::LoseTrack { instance, try_number, .. } => self.fell_into_doubt(instance, *try_number),
            Command::Expand { task, try_number, .. } => self.has_ended(&InstanceId::single(task.clone()), *try_number),
            Command::Resolve { instance, .. } => {
                self.resolving.remove(instance);
            }
            Command::Wake { instance } => {
                self.watches.remove(instance);
            }
            Command::FinishCallback { callback, .. } => {
                self.callbacks.remove(callback);
            }
            Command::Start
            | Command::Resume { .. }
            | Command::StartAttempt { .. }
            | Command::CommitSegment { .. }
            | Command::GiveUpTransactions { .. }
            | Command::FireTimers
            | Command::TellDeadline { .. }
            | Command::Cancel { .. }
            | Command::RecordOperator { .. }
            | Command::Clear { .. }
            | Command::Mark { .. }
            | Command::CancelInstance { .. }
            | Command::NoticeAnomaly { .. }
            | Command::Pin { .. }
            | Command::DeclareStuck
            | Command::Advance => {}
        }
    }
}
