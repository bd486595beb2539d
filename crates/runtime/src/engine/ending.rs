//! The end of a run that an earlier process may have driven further than its log tells.
//!
//! To cancel skips what was not begun. But what that process began ahead of its log has effects, and markers that say so. So before a
//! run that was resumed is cancelled, every script that may have been begun gets an attempt that is stopped from its beginning: it sends
//! nothing, is in doubt, and the doubt is resolved by the markers, which adopts what is committed, fences the rest, and shows whether there
//! is more behind it.

use super::Engine;
use crate::attempt::transaction::NOTHING;
use crate::failure::{FailureExt as _, failure};
use crate::run::Error;
use backstop_core::dag::Delivery;
use backstop_core::event::FailureClass;
use backstop_core::{Action, Command, InstanceId, InstancePhase, RunPhase, actions};
use backstop_project::definition::Kind;
use std::sync::Arc;

/// Why a run shall end before its time.
pub(super) enum Ending {
    /// Somebody asked.
    Asked(String),
    /// It is over its `dagrun_timeout`.
    OverTime,
}

impl Engine {
    pub(super) fn begin_end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        if self.shared.was_interrupted {
            // All of them, as a cancel does: the others hold slots.
            for (instance, try_number) in self.running.keys() {
                self.cancel(instance.clone(), *try_number, None);
            }
        }
    }

    pub(super) fn stop_reason(&self) -> String {
        self.control.reason().unwrap_or_else(|| match &self.ending {
            Some(Ending::OverTime) => "over its dagrun_timeout".into(),
            Some(Ending::Asked(reason)) => reason.clone(),
            None => "the run was cancelled".into(),
        })
    }

    pub(super) fn is_over_time(&self) -> bool {
        let may_end = self.state.phase() == RunPhase::Running && self.state.cancel_cause().is_none();
        let timeout = self.shared.definition.dag.dagrun_timeout().filter(|_| may_end);
        let ends = timeout.zip(self.state.started_at()).and_then(|(timeout, started)| started.checked_add(timeout).ok());
        ends.is_some_and(|ends| ends <= self.shared.clock.now())
    }

    /// What the core wants; on the way to the end, only attempts that look for what ran ahead of the log.
    pub(super) fn wanted(&self) -> Vec<Action> {
        let mut wanted = actions(&self.state);
        if self.is_handing_over {
            wanted.retain(|action| matches!(action, Action::CancelAttempt { .. }));
        }
        if self.only_tells {
            // Attempts are the business of whoever drives the run.
            wanted.retain(|action| matches!(action, Action::RunCallback { .. }));
        }
        if self.ending.is_some() {
            wanted.retain(|action| !matches!(action, Action::StartAttempt { .. }));
            let most = self.shared.definition.dag.max_active_tasks() as usize;
            wanted.extend(self.unlooked().take(most).map(|(instance, try_number)| Action::StartAttempt { instance, try_number }));
        }
        wanted
    }

    /// Rolls back what no attempt works on: what is still to be looked for may need the sessions and the slots that it keeps.
    pub(super) async fn give_up_transactions(&mut self) -> Result<(), Error> {
        self.shared.transactions.roll_back_all();
        let reason = self.stop_reason();
        let failure = failure(FailureClass::Interrupted, format!("its transaction waited when the run was to end: {reason}"));
        self.command(Command::GiveUpTransactions { failure: Arc::new(failure.effect(NOTHING)) }).await?;
        Ok(())
    }

    /// Instances that wait for a slot, and may have been begun by an earlier process.
    pub(super) fn unlooked(&self) -> impl Iterator<Item = (InstanceId, u32)> + '_ {
        let may_start = self.state.phase() == RunPhase::Running;
        self.state.instances().filter(move |(_, view)| may_start && view.phase == InstancePhase::Scheduled).filter_map(
            |(instance, view)| {
                let try_number = view.try_number + 1;
                let has_begun = !view.segments.is_empty() || self.may_have_run_ahead(&instance, try_number);
                (has_begun || self.is_empty_kind(&instance)).then_some((instance, try_number))
            },
        )
    }

    pub(super) fn may_have_run_ahead(&self, instance: &InstanceId, try_number: u32) -> bool {
        let Some(place) = self.place(instance) else { return false };
        let body = self.shared.definition.body(place);
        let expands = body.for_each.is_some() && instance.map_index.is_none();
        self.shared.was_interrupted
            && !self.shared.header.dry_run
            && try_number == 1
            && !expands
            && body.delivery == Delivery::ExactlyOnce
            && matches!(body.kind, Kind::Sql(_))
            // What shares a transaction is not committed before its log is durable.
            && self.shared.definition.dag.member_of(place).is_none()
    }

    /// True when what ran ahead of the log cannot be known, because a database does not answer. Then nothing is cancelled, which would
    /// call skipped what may have taken effect: the run is given back with its doubts, and is cancelled when it is resumed and knows.
    pub(super) fn cannot_end(&self) -> bool {
        self.shared.was_interrupted && self.is_unanswered
    }

    /// True when the run shall end and nothing is left to look for.
    pub(super) fn has_caught_up(&self) -> bool {
        let is_looking = || !self.resolving.is_empty() || !self.running.is_empty() || self.unlooked().next().is_some();
        self.ending.is_some() && (!self.shared.was_interrupted || !is_looking())
    }

    pub(super) async fn end(&mut self) -> Result<(), Error> {
        self.tell_what_is_due().await?;
        let asked = std::mem::take(&mut self.asked_to_end);
        match self.ending.take() {
            Some(Ending::Asked(reason)) if asked.is_empty() => self.command(Command::Cancel { reason }).await?,
            Some(Ending::Asked(_)) => true,
            Some(Ending::OverTime) => self.command(Command::FireTimers).await?,
            None => return Ok(()),
        };
        for (commands, answer) in asked {
            self.act(commands, answer).await?;
        }
        self.tell_stopped().await
    }

    pub(super) async fn tell_stopped(&mut self) -> Result<(), Error> {
        for command in std::mem::take(&mut self.stopped) {
            self.command(command).await?;
        }
        Ok(())
    }
}

/// True for the answer of an attempt that ended because it was told to.
pub(super) fn is_stop(command: &Command) -> bool {
    let failure = match command {
        Command::Fail { failure, .. } | Command::LoseTransaction { failure, .. } => failure,
        _ => return false,
    };
    failure.class == FailureClass::Cancelled
}
