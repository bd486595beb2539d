//! What operators do to a run, whether it is driven, waits, or is over: clear, retry, mark, cancel one instance.

use super::current::{Files, Operated};
use super::{Error, Service, Who};
use crate::control::Ask;
use crate::steer::{self, Idle};
use backstop_core::command::Rejected;
use backstop_core::event::{Mark, Restart};
use backstop_core::{Command, InstanceId, RunId, RunState, Selection, decide, select, select_failed, select_named};
use backstop_store::{ErrorKind, RunRow};
use std::sync::Arc;

/// What an operator wants.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Run these again, from their first statement.
    Clear(Selection, Files),
    /// Run again what failed, behind its last commit, and what could not run because of it.
    Retry(Files),
    /// Set the outcome of these. It is the operator's word, and says nothing of effects.
    Mark(Selection, Mark),
    /// End one instance: its statement dies on the server.
    Cancel(InstanceId),
}

impl Operation {
    /// Which files it wants, where it runs anything again.
    fn files(&self) -> Option<Files> {
        match self {
            Self::Clear(_, files) | Self::Retry(files) => Some(*files),
            Self::Mark(..) | Self::Cancel(_) => None,
        }
    }

    fn on(&self, state: &RunState) -> Vec<InstanceId> {
        match self {
            Self::Clear(selection, _) => select(state, selection),
            Self::Retry(_) => select_failed(state),
            Self::Mark(selection, _) => select_named(state, selection),
            Self::Cancel(instance) => vec![instance.clone()],
        }
    }

    fn command(&self, instances: Vec<InstanceId>, by: &Who) -> Command {
        let (who, why) = (by.who.clone(), by.why.clone());
        match self {
            Self::Clear(..) => Command::Clear { instances, restart: Restart::Beginning, who, why },
            Self::Retry(_) => Command::Clear { instances, restart: Restart::LastCommit, who, why },
            Self::Mark(_, mark) => Command::Mark { instances, mark: *mark, who, why },
            Self::Cancel(instance) => Command::CancelInstance { instance: instance.clone(), reason: why, who },
        }
    }

    /// The instances and the command, or why the core refuses it.
    pub(super) fn plan(&self, state: &RunState, by: &Who, now: jiff::Timestamp) -> Result<(Vec<InstanceId>, Command), Error> {
        let instances = self.on(state);
        if instances.is_empty() {
            return Err(Error::NothingMeant);
        }
        let command = self.command(instances.clone(), by);
        decide(state, command.clone(), now).map_err(|refused| match refused {
            Rejected::NothingToChange => Error::NothingToChange,
            refused => Error::Conflict(refused.to_string()),
        })?;
        Ok((instances, command))
    }
}

impl Service {
    /// Does what an operator wants, durably, and returns the instances it is about. A run that was over goes on. With `dry_run` nothing is
    /// done: what is returned is what would run again.
    ///
    /// # Errors
    /// `Conflict` when it does not fit the run as it stands, with the reason; no such run; the store.
    pub async fn operate(
        self: &Arc<Self>,
        run: &RunId,
        operation: Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Operated, Error> {
        if operation.files().is_some() {
            self.look_again().await;
        }
        self.operate_on(run, operation, by, dry_run).await
    }

    /// As [`Self::operate`], with the files as they were seen last.
    pub(super) async fn operate_on(
        self: &Arc<Self>,
        run: &RunId,
        operation: Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Operated, Error> {
        if by.why.is_empty() {
            return Err(Error::Invalid("`why` is empty: say why, it is kept in the run's log".into()));
        }
        let by = &self.masked(by);
        if dry_run {
            return self.operate_now(run, operation, by, true).await;
        }
        // Who asks may go away meanwhile. A run that was let go of for it, or reopened, is to go on all the same.
        let (service, run, by) = (self.clone(), run.clone(), by.clone());
        let done = tokio::spawn(async move { service.operate_now(&run, operation, &by, false).await }).await;
        done.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Stopping),
        })
    }

    async fn operate_now(&self, run: &RunId, operation: Operation, by: &Who, dry_run: bool) -> Result<Operated, Error> {
        let wanted = operation.files();
        if wanted == Some(Files::Current) {
            return self.operate_with_current(run, &operation, by, dry_run).await;
        }
        let instances = self.operate_with_pinned(run, operation, by, dry_run).await?;
        // It is done: that this cannot be told changes nothing of it.
        let differing = match (wanted, self.row(run).await) {
            (Some(_), Ok(row)) => self.differing(&row.header).await,
            (Some(_), Err(_)) | (None, _) => None,
        };
        Ok(Operated { instances, files: differing.map(|differing| (differing, Files::Pinned)) })
    }

    pub(super) async fn operate_with_pinned(
        &self,
        run: &RunId,
        operation: Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Vec<InstanceId>, Error> {
        let now = self.now();
        if let Some(control) = self.control(run) {
            let (asked, by_them) = (operation.clone(), by.clone());
            // Let go just now: then it is looked at as one that nobody drives.
            if let Some(planned) = control.look(move |state| asked.plan(state, &by_them, now)).await {
                let (instances, command) = planned?;
                if !dry_run {
                    let (ask, answer) = Ask::act(vec![command]);
                    self.ask(run, ask, answer).await?;
                }
                return Ok(instances);
            }
        }
        self.operate_on_idle(run, &operation, by, dry_run).await
    }

    async fn operate_on_idle(
        &self,
        run: &RunId,
        operation: &Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Vec<InstanceId>, Error> {
        self.until_told(run).await;
        let row = self.row(run).await?;
        let lock = match self.store.lock_run(run) {
            Ok(lock) => lock,
            Err(error) if error.kind == ErrorKind::Busy => {
                return Err(Error::Conflict(format!("{}: steer the run there, or ask again", error.message)));
            }
            Err(error) => return Err(error.into()),
        };
        let mut idle = match operation {
            Operation::Clear(..) | Operation::Retry(_) => self.idle(&row).await?,
            Operation::Mark(..) | Operation::Cancel(_) => self.idle_to_settle(&row).await?,
        };
        let (instances, command) = operation.plan(idle.state(), by, self.now())?;
        if dry_run {
            return Ok(instances);
        }
        if idle.is_settled() {
            idle.act(&*self.store, vec![command], self.now()).await.map_err(refused)?;
            drop(lock);
            self.take_in_again(row.header);
        } else {
            // Only an engine finds out what was done ahead of the log: it is begun, and asked first.
            drop(lock);
            let (ask, answer) = Ask::act(vec![command]);
            self.ask(run, ask, answer).await?;
        }
        Ok(instances)
    }

    pub(super) async fn row(&self, run: &RunId) -> Result<RunRow, Error> {
        self.store.run(run).await?.ok_or_else(|| Error::NoRun(run.clone()))
    }

    /// As [`Self::idle`], for what can be done by the DAG's shape alone.
    async fn idle_to_settle(&self, row: &RunRow) -> Result<Idle, Error> {
        let (prepared, _) = self.pinned_or_shape(&row.header).await.map_err(Error::Conflict)?;
        if prepared.is_of_log {
            return Err(Error::Conflict(super::unfit::ONLY_LOG.to_owned()));
        }
        Idle::read(&*self.store, prepared.definition.dag.clone(), &row.header.run_id).await.map_err(refused)
    }

    pub(super) async fn idle(&self, row: &RunRow) -> Result<Idle, Error> {
        let (prepared, _) = self.pinned(&row.header).await.map_err(Error::Conflict)?;
        Idle::read(&*self.store, prepared.definition.dag.clone(), &row.header.run_id).await.map_err(refused)
    }
}

pub(super) fn refused(error: steer::Error) -> Error {
    match error {
        steer::Error::Read(error) => Error::Run(error),
        steer::Error::NoRun(run) => Error::NoRun(run),
        steer::Error::Append(error) => Error::Run(error.into()),
        refused @ (steer::Error::Unsettled { .. } | steer::Error::Rejected(_)) => Error::Conflict(refused.to_string()),
    }
}
