//! Callbacks of tasks and of the run: which is meant, what it is told, and beginning it.

use super::{Answer, Engine};
use crate::attempt::{Attempt, Stopper, Work, template_context};
use crate::deadlines;
use crate::failure::{FailureExt, failure};
use backstop_core::dag::Delivery;
use backstop_core::event::{CallbackId, Failure, FailureClass, Occasion};
use backstop_core::{Command, InstanceId, InstancePhase, TaskId};
use backstop_project::definition::{Callback, Callbacks};
use std::sync::Arc;

/// What the log of a callback says before anything else, where an earlier process of the run may have begun it.
const LEFT: &str = "it runs again: it was wanted before this process took the run over, and the end of its first run was never recorded; SQL that committed \
                    then is found by its marker, and anything else may take effect twice";

impl Engine {
    pub(super) fn run_callback(&mut self, callback: CallbackId) {
        if self.callbacks.len() >= self.limits.callbacks_at_once || !self.callbacks.insert(callback.clone()) {
            return;
        }
        let Some(body) = self.callback_body(&callback).cloned() else {
            // The definition was edited between two processes of the run.
            let gone =
                failure(FailureClass::Final, "the callback is not in the DAG's definition any more").effect("it did not run");
            let answer = Answer::Command(Command::FinishCallback { callback, failure: Some(Arc::new(gone)) });
            let mailbox = self.mailbox.clone();
            tokio::spawn(async move { mailbox.send(answer).await });
            return;
        };
        let instance = callback.instance.clone();
        let cause = match &instance {
            Some(instance) => self.state.failure(instance),
            None => self.first_failure(),
        };
        let alert = self.alert(&callback).map(|text| failure(FailureClass::TimedOut, text));
        let named = InstanceId {
            task: instance.as_ref().map_or_else(|| "run".into(), |instance| instance.task.clone()),
            map_index: instance.as_ref().and_then(|instance| instance.map_index),
        };
        let work = Work::Callback(callback.clone(), Box::new(body.clone()));
        let log_name = InstanceId { task: TaskId::new(format!("{}.{}", named.task, work.marker_kind())), ..named.clone() };
        let context = template_context(
            &self.shared,
            instance.as_ref(),
            callback.try_number.max(1),
            instance.as_ref().and_then(|instance| self.item(instance)),
            alert.as_ref().or(cause.map(Arc::as_ref)),
        );
        let attempt = Attempt {
            shared: self.shared.clone(),
            work,
            connection: body.connection.clone(),
            part: None,
            open: std::sync::Mutex::default(),
            delivery: Delivery::ExactlyOnce,
            source: body.source.clone(),
            // In the marker's key: the callback of each try is another one; 0 is the run's own.
            try_number: callback.try_number,
            context,
            committed: Vec::new(),
            tries_before: 0,
            begins_wait: true,
            waiting_since: None,
            started_version: self.journal.version(),
            stands_on: self.journal.version(),
            gate: self.journal.gate(),
            stopper: Stopper::new(self.callback_stop.subscribe(), Some(body.timeout)),
            log: self.shared.logs.of(&log_name, callback.try_number.max(1)),
            mailbox: self.mailbox.clone(),
            instance: named,
        };
        let is_left = self.callbacks_left.remove(&callback);
        let now = self.shared.clock.now();
        tokio::spawn(async move {
            if is_left {
                attempt.log.line(now, "WARN", LEFT).await;
            }
            attempt.run().await;
        });
    }

    /// What a callback is told of a deadline, or of a run that is stuck.
    fn alert(&self, callback: &CallbackId) -> Option<String> {
        match callback.occasion {
            Occasion::Failure | Occasion::Retry | Occasion::Success => None,
            Occasion::Deadline => self.state.deadlines_told().get(callback.try_number as usize).map(deadlines::words),
            Occasion::Stuck => {
                let which: Vec<String> = self.undecided.iter().map(|(instance, why)| format!("`{instance}`: {why}")).collect();
                Some(format!("the run is stuck: a person must say what became of {}", which.join("; ")))
            }
        }
    }

    /// What a callback of the run as a whole is told: the first failure, in the order of the DAG.
    fn first_failure(&self) -> Option<&Arc<Failure>> {
        self.state.instances().filter(|(_, view)| view.phase == InstancePhase::Failed).find_map(|(_, view)| view.failure)
    }

    fn callback_body(&self, callback: &CallbackId) -> Option<&Callback> {
        let callbacks: &Callbacks = match &callback.instance {
            None => &self.shared.definition.callbacks,
            Some(instance) => &self.shared.definition.body(self.place(instance)?).callbacks,
        };
        let list = match callback.occasion {
            Occasion::Failure => &callbacks.on_failure,
            Occasion::Retry => &callbacks.on_retry,
            Occasion::Success => &callbacks.on_success,
            Occasion::Deadline => &callbacks.on_deadline,
            Occasion::Stuck => &callbacks.on_stuck,
        };
        list.get(callback.place as usize)
    }
}
