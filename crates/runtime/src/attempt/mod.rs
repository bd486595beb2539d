//! One attempt of a task instance: what it is given, how it is stopped, how it answers. One module a kind of task.

mod branch;
mod check;
mod context;
mod expand;
mod http;
mod neighbours;
pub(crate) mod other;
mod process;
mod python;
mod query;
mod results;
pub(crate) mod script;
mod sensor;
mod shell;
mod stop;
pub(crate) mod transaction;

pub(crate) use context::{Seen, Shared, params_of, template_context};
pub(crate) use http::is_safe as http_is_safe;
pub(crate) use neighbours::Began;
pub(crate) use results::Results;
pub(crate) use stop::{Stop, Stopper};

use crate::engine::Answer;
use crate::failure::{FailureExt, failure};
use crate::journal::Gate;
use crate::logs::TaskLog;
use crate::monitor::User;
use backstop_core::dag::Delivery;
use backstop_core::event::{CallbackId, Failure, FailureClass, Occasion, SegmentCommit, StatementRecord};
use backstop_core::{Command, InstanceId, TaskId};
use backstop_project::context::Context;
use backstop_project::definition::{Callback, Kind, Source};
use futures_util::FutureExt as _;
use serde_json::Value as Json;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a callback's script is tried within its time-out.
const CALLBACK_TRIES_MAX: u32 = 5;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// All its work is done.
    Succeeded {
        /// For downstream tasks.
        result: Option<Arc<str>>,
        /// For a branch.
        follow: Option<Vec<TaskId>>,
    },
    /// It chose to be skipped.
    Skipped(String),
    /// A sensor that waits.
    Deferred(jiff::Timestamp),
    /// A mapped task that knows its items.
    Expanded(Vec<Arc<str>>),
    /// It failed; what it committed is known.
    Failed(Failure),
    /// It is not known what it committed.
    Unknown(Failure),
    /// It did its work in a transaction that goes on.
    Held {
        /// What ran.
        statements: Arc<[StatementRecord]>,
        /// For downstream tasks.
        result: Option<Arc<str>>,
    },
    /// The transaction that it shares is gone, and nothing of it took effect.
    Lost(Failure),
}

impl Outcome {
    /// Success without a result.
    pub(crate) fn done() -> Self {
        Self::Succeeded { result: None, follow: None }
    }

    /// Success with a JSON result.
    pub(crate) fn with_result(result: &Json) -> Self {
        Self::Succeeded { result: Some(result.to_string().into()), follow: None }
    }
}

/// What an attempt does: a task's body, the list of a mapped task, or a callback.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// The body at this place of the definition.
    Body(usize),
    /// The `for_each` of the body at this place.
    Expand(usize),
    /// A callback.
    Callback(CallbackId, Box<Callback>),
}

impl Work {
    /// The marker's kind.
    pub(crate) fn marker_kind(&self) -> String {
        match self {
            Self::Body(_) | Self::Expand(_) => "forward".into(),
            Self::Callback(id, _) => {
                let occasion = match id.occasion {
                    Occasion::Failure => "failure",
                    Occasion::Retry => "retry",
                    Occasion::Success => "success",
                    Occasion::Deadline => "deadline",
                    Occasion::Stuck => "stuck",
                };
                format!("callback_{occasion}_{}", id.place)
            }
        }
    }
}

/// An attempt, ready to run.
pub(crate) struct Attempt {
    /// What all attempts of the run share.
    pub(crate) shared: Arc<Shared>,
    /// Which instance.
    pub(crate) instance: InstanceId,
    /// What to do.
    pub(crate) work: Work,
    /// For what needs a database.
    pub(crate) connection: Option<String>,
    /// What it shares a transaction with; `None` for what commits by itself.
    pub(crate) part: Option<transaction::Part>,
    /// Its transaction, while it works in it.
    pub(crate) open: Mutex<Option<transaction::Open>>,
    /// What may be done without evidence.
    pub(crate) delivery: Delivery,
    /// Where it is defined.
    pub(crate) source: Source,
    /// From 1.
    pub(crate) try_number: u32,
    /// What the templates see.
    pub(crate) context: Context,
    /// What earlier tries committed, in order.
    pub(crate) committed: Vec<Arc<SegmentCommit>>,
    /// Its try number when it was last cleared.
    pub(crate) tries_before: u32,
    /// True when no earlier attempt waited for the same: the first one, and one behind a failure that counted.
    pub(crate) begins_wait: bool,
    /// For a sensor: when its wait began.
    pub(crate) waiting_since: Option<jiff::Timestamp>,
    /// The log's version with this attempt's start in it.
    pub(crate) started_version: u64,
    /// The log's version that must be durable before a script takes effect: see `footing`.
    pub(crate) stands_on: u64,
    /// To wait for the log.
    pub(crate) gate: Gate,
    /// Tells when to stop.
    pub(crate) stopper: Stopper,
    /// The try's log.
    pub(crate) log: TaskLog,
    /// To the engine.
    pub(crate) mailbox: mpsc::Sender<Answer>,
}

impl Attempt {
    /// Runs to the end and answers the engine, whatever happens.
    pub(crate) async fn run(mut self) {
        let outcome = match AssertUnwindSafe(self.work()).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Unknown(
                failure(FailureClass::Permanent, "the worker of this attempt panicked: this is a bug in Backstop")
                    .effect("not known yet")
                    .hint("please report it with the text on standard error"),
            ),
        };
        // Of an attempt that panicked: before its end is told, so that nobody counts its session behind that.
        drop(self.open().take());
        let outcome = match outcome {
            // A dry run shows what would happen now: it does not wait for a retry.
            Outcome::Failed(failure) if self.shared.header.dry_run && failure.class != FailureClass::Cancelled => {
                Outcome::Failed(Failure { class: FailureClass::Final, ..failure })
            }
            Outcome::Lost(failure) if self.shared.header.dry_run && failure.class != FailureClass::Cancelled => {
                Outcome::Lost(Failure { class: FailureClass::Final, ..failure })
            }
            // Only a commit leaves a doubt; what shares a transaction went down with it.
            Outcome::Unknown(failure) if self.part.is_some() => Outcome::Lost(failure.effect(transaction::NOTHING)),
            outcome => outcome,
        };
        self.say_end(&outcome).await;
        let redactor = self.shared.redactor.clone();
        if let Work::Callback(callback, _) = self.work {
            let failure = match outcome {
                Outcome::Failed(failure) | Outcome::Unknown(failure) | Outcome::Lost(failure) => {
                    Some(Arc::new(failure.clean(&redactor)))
                }
                Outcome::Succeeded { .. }
                | Outcome::Held { .. }
                | Outcome::Skipped(_)
                | Outcome::Deferred(_)
                | Outcome::Expanded(_) => None,
            };
            // As below.
            let _ = self.mailbox.send(Answer::Command(Command::FinishCallback { callback, failure })).await;
            return;
        }
        let (instance, try_number) = (self.instance, self.try_number);
        let command = match outcome {
            Outcome::Succeeded { result, follow } => Command::Succeed { instance, try_number, result, follow },
            Outcome::Held { statements, result } => Command::Hold { instance, try_number, statements, result },
            Outcome::Lost(failure) => {
                Command::LoseTransaction { instance, try_number, failure: Arc::new(failure.clean(&redactor)) }
            }
            Outcome::Skipped(reason) => Command::Skip { instance, try_number, reason },
            Outcome::Deferred(until) => Command::Defer { instance, try_number, until },
            Outcome::Expanded(items) => Command::Expand { task: instance.task, try_number, items },
            Outcome::Failed(failure) => Command::Fail { instance, try_number, failure: Arc::new(failure.clean(&redactor)) },
            Outcome::Unknown(failure) => Command::LoseTrack { instance, try_number, failure: Arc::new(failure.clean(&redactor)) },
        };
        // The engine is gone: the run ended in this process, and the log tells the next one.
        let _ = self.mailbox.send(Answer::Command(command)).await;
    }

    async fn say_end(&self, outcome: &Outcome) {
        let now = self.shared.clock.now();
        match outcome {
            Outcome::Succeeded { .. } => self.log.line(now, "INFO", "succeeded").await,
            Outcome::Held { .. } => self.log.line(now, "INFO", "done, not committed").await,
            Outcome::Lost(failure) => self.say_failure("its transaction was rolled back", failure).await,
            Outcome::Skipped(reason) => self.log.line(now, "INFO", &format!("skipped: {reason}")).await,
            Outcome::Deferred(until) => self.log.line(now, "INFO", &format!("not yet; looks again at {until}")).await,
            Outcome::Expanded(items) => self.log.line(now, "INFO", &format!("expands to {} instances", items.len())).await,
            Outcome::Failed(failure) => self.say_failure("failed", failure).await,
            Outcome::Unknown(failure) => self.say_failure("outcome not known", failure).await,
        }
        self.log.close().await;
    }

    async fn say_failure(&self, how: &str, failure: &Failure) {
        let now = self.shared.clock.now();
        let mut text = format!("{how}: {}", failure.message);
        for cause in &failure.causes {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        if let Some(place) = &failure.place {
            text.push_str(&format!("\n  at {}:{}:{}", place.file, place.line, place.column));
        }
        if !failure.effect.is_empty() {
            text.push_str(&format!("\n  {}", failure.effect));
        }
        if let Some(hint) = &failure.hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        self.log.line(now, "ERROR", &text).await;
    }

    async fn work(&mut self) -> Outcome {
        let is_script = match self.work {
            Work::Body(place) => {
                matches!(self.shared.definition.bodies[place].kind, Kind::Sql(_) | Kind::Commit(_)) || self.part.is_some()
            }
            Work::Expand(_) | Work::Callback(..) => false,
        };
        // A second try must not start before the log has the end of the first: after a crash it would not be found (see DESIGN.md,
        // "Running ahead of the log"). A script waits by itself, once it knows that something is left to do.
        if self.try_number > 1
            && !is_script
            && let Err(outcome) = self.wait_for_log().await
        {
            return outcome;
        }
        let shared = self.shared.clone();
        match self.work.clone() {
            Work::Body(place) => {
                let kind = &shared.definition.bodies[place].kind;
                match self.part.clone() {
                    Some(part) => Box::pin(transaction::member(self, kind, &part)).await,
                    None => self.task(kind).await,
                }
            }
            Work::Expand(place) => match &shared.definition.bodies[place].for_each {
                Some(for_each) => Box::pin(expand::run(self, for_each)).await,
                None => Outcome::Expanded(Vec::new()),
            },
            // What leaves the process waits for the log.
            Work::Callback(_, callback) => match self.wait_for_log().await {
                Ok(()) => Box::pin(self.callback(&callback)).await,
                Err(outcome) => outcome,
            },
        }
    }

    /// A script is tried again when it could not be run or nobody knows whether it was: its marker keeps it from running twice. What
    /// leaves no marker is tried once.
    async fn callback(&mut self, callback: &Callback) -> Outcome {
        let is_script = matches!(callback.kind, Kind::Sql(_));
        for tried in 1..CALLBACK_TRIES_MAX {
            let outcome = self.task(&callback.kind).await;
            let text = match &outcome {
                Outcome::Failed(failure) | Outcome::Unknown(failure) if is_script && failure.class == FailureClass::Transient => {
                    format!("try {tried} of {CALLBACK_TRIES_MAX}: {}; tries again", failure.message)
                }
                _ => return outcome,
            };
            self.log.line(self.shared.clock.now(), "WARN", &text).await;
            tokio::select! {
                biased;
                () = tokio::time::sleep(Duration::from_secs(1 << tried)) => {}
                _ = self.stopper.wait() => return outcome,
            }
        }
        self.task(&callback.kind).await
    }

    async fn task(&mut self, kind: &Kind) -> Outcome {
        // Boxed, so that a small task does not carry room for the largest kind: there may be thousands at once.
        match kind {
            Kind::Sql(sql) => Box::pin(script::run_task(self, sql)).await,
            Kind::Check(check) => Box::pin(check::run(self, check)).await,
            Kind::Branch(branch) => Box::pin(branch::run(self, branch)).await,
            Kind::Sensor(sensor) => Box::pin(sensor::run(self, sensor)).await,
            Kind::Shell(shell) => Box::pin(shell::run(self, shell)).await,
            Kind::Python(python) => Box::pin(python::run(self, python)).await,
            Kind::Http(http) => Box::pin(http::run_task(self, http)).await,
            Kind::Dag(trigger) => Box::pin(other::start(self, trigger)).await,
            Kind::WaitFor(wait) => Box::pin(other::wait_for(self, wait)).await,
            Kind::Commit(_) => Box::pin(transaction::commit(self)).await,
            Kind::Empty => Outcome::done(),
        }
    }

    /// Its transaction, while it works in it.
    pub(crate) fn open(&mut self) -> &mut Option<transaction::Open> {
        self.open.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// On whose behalf it uses sessions.
    pub(crate) fn user(&self) -> User {
        let (run, dag) = (self.shared.header.run_id.clone(), self.shared.header.dag_id.clone());
        User { run, dag, instance: self.instance.clone(), try_number: self.try_number }
    }

    /// Waits until the start of this attempt is durable: before work that leaves no marker.
    ///
    /// # Errors
    /// The outcome when the log cannot be written any more, or the attempt is stopped before: nothing was begun.
    pub(crate) async fn wait_for_log(&mut self) -> Result<(), Outcome> {
        wait_until_durable(&self.gate, self.started_version, &mut self.stopper).await
    }

    /// Why a kind without transactions is not run in a dry run; `None` when it is no dry run.
    pub(crate) async fn dry_run_note(&self, what: &str) -> Option<Outcome> {
        if !self.shared.header.dry_run {
            return None;
        }
        let text = format!("dry run: {what} cannot be rolled back, so it is not run");
        self.log.line(self.shared.clock.now(), "INFO", &text).await;
        self.shared.watcher.note(Some(&self.instance), &text);
        Some(Outcome::done())
    }
}

/// Waits until the log is durable up to a version.
///
/// # Errors
/// The outcome when the log cannot be written any more, or the attempt is stopped before: nothing was begun.
pub(crate) async fn wait_until_durable(gate: &Gate, version: u64, stopper: &mut Stopper) -> Result<(), Outcome> {
    tokio::select! {
        biased;
        durable = gate.wait(version) => match durable {
            true => Ok(()),
            false => Err(Outcome::Failed(
                failure(FailureClass::Interrupted, "the run's log cannot be written, so this attempt did not begin")
                    .effect("nothing was sent"),
            )),
        },
        reason = stopper.wait() => Err(script::stopped(&reason, "nothing was sent")),
    }
}
