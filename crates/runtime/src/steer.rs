//! What people do to a run that no process drives: clear, mark. The caller holds the run's lock.
//!
//! Only a run that was let go of in good order can be steered so: one that is over, or stuck, or was reopened since. A process that died in
//! the middle of a run may have driven it further than its log tells (DESIGN.md, "Running ahead of the log"), and what that did has to
//! be found before anything is run again: resume such a run first.

use crate::repin;
use crate::run::read_all;
use backstop_core::command::Rejected;
use backstop_core::{Command, Dag, Event, RunId, RunPhase, RunState};
use backstop_project::definition::Definition;
use backstop_store::{Append, AppendError, Store};
use jiff::Timestamp;
use std::sync::Arc;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The run could not be read.
    #[error(transparent)]
    Read(#[from] crate::run::Error),
    /// There is no such run.
    #[error("there is no run `{0}`")]
    NoRun(RunId),
    /// A process died in the middle of it.
    #[error("run {run} is {state}, and its process is gone: what it did last is not known yet")]
    Unsettled {
        /// Which.
        run: RunId,
        /// In a word.
        state: &'static str,
    },
    /// The command does not fit the run.
    #[error("{0}")]
    Rejected(#[from] Rejected),
    /// The log refused the events.
    #[error("the run's log could not be written")]
    Append(#[from] AppendError),
}

/// A run that nobody drives, read from its log.
#[derive(Debug)]
pub struct Idle {
    run: RunId,
    epoch: u64,
    state: RunState,
    /// The epoch in which an engine let go of it in good order, in the middle of it.
    let_go: Option<u64>,
}

impl Idle {
    /// Reads a run. The lock of the run must be held if something is to be done with it.
    ///
    /// # Errors
    /// When the store cannot read, or there is no such run.
    pub async fn read(store: &dyn Store, dag: Arc<Dag>, run: &RunId) -> Result<Self, Error> {
        let row = store.run(run).await.map_err(crate::run::Error::from)?.ok_or_else(|| Error::NoRun(run.clone()))?;
        let events = read_all(store, run).await?;
        Ok(Self { run: run.clone(), epoch: row.epoch, state: RunState::replay(dag, &events), let_go: None })
    }

    /// As [`Self::read`], as the run would stand with a definition that it may not have.
    ///
    /// # Errors
    /// As [`Self::read`]; when its log does not fit the definition.
    pub async fn read_with(store: &dyn Store, definition: &Definition, run: &RunId) -> Result<Self, Error> {
        let row = store.run(run).await.map_err(crate::run::Error::from)?.ok_or_else(|| Error::NoRun(run.clone()))?;
        let events = read_all(store, run).await?;
        repin::check_shape(definition, run, &events)?;
        let state = RunState::replay(definition.dag.clone(), &events);
        repin::check_mapping(definition, run, &state)?;
        repin::check_transactions(definition, run, &state)?;
        Ok(Self { run: run.clone(), epoch: row.epoch, state, let_go: None })
    }

    /// Which run it is.
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// An engine let go of it, when its log was as it is now and told all: who took it over since then has raised the epoch.
    pub(crate) fn was_let_go(&mut self, epoch: u64) {
        self.let_go = Some(epoch);
    }

    /// Everything that is known.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// Whether its last process let go of it in good order.
    pub fn is_settled(&self) -> bool {
        // A process that takes a run over raises the epoch before it does anything, and says so in the log before it lets go.
        let is_untouched = self.epoch == self.state.epoch();
        let was_let_go = self.let_go == Some(self.epoch);
        match self.state.phase() {
            RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => true,
            RunPhase::Stuck => is_untouched,
            RunPhase::Queued => is_untouched && (self.state.reopened() > 0 || was_let_go),
            RunPhase::Running => is_untouched && was_let_go,
            RunPhase::Cancelling => false,
        }
    }

    /// Does what a person asks, durably and all of it together. Gives the events; nothing of it is carried out before a process resumes the run.
    ///
    /// # Errors
    /// When the run is not settled, a command is refused, or the log cannot be written: then nothing was done.
    pub async fn act(&mut self, store: &dyn Store, commands: Vec<Command>, now: Timestamp) -> Result<Vec<Event>, Error> {
        if !self.is_settled() {
            return Err(Error::Unsettled { run: self.run.clone(), state: self.state.phase().as_str() });
        }
        let expected_version = self.state.version();
        let mut after = self.state.clone();
        let mut events = Vec::new();
        for command in commands {
            events.extend(backstop_core::handle(&mut after, command, now)?);
        }
        let append = Append { run: self.run.clone(), expected_version, epoch: self.epoch, at: now, events: events.clone() };
        let durable = store.append(append).await;
        store.hurry();
        durable.await.unwrap_or_else(|_| Err(AppendError::Store(writer_gone())))?;
        self.state = after;
        Ok(events)
    }
}

fn writer_gone() -> backstop_store::Error {
    backstop_store::Error {
        message: "write the run's log: the store's writer has ended".into(),
        kind: backstop_store::ErrorKind::Other,
        hint: None,
        source: None,
    }
}
