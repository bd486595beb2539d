//! Runs that go on with the files as they are now: who retries or clears a run may have mended them first.
//!
//! A run goes on with one version of its files at a time. So nothing of it may go on when it is given another one: an engine that drives it
//! lets go of it first, and the next one reads its log with the new version. That it has one, and what runs again, are one append.

use super::{DagEntry, Error, Operation, Service, Who};
use crate::control::Ask;
use crate::repin::{self, Current, Differing};
use crate::steer::Idle;
use backstop_core::event::RunHeader;
use backstop_core::{Command, InstanceId, RunId, RunState};
use backstop_store::{ErrorKind, RunLock, RunRow};
use std::sync::Arc;
use std::time::Duration;

/// How long an engine of which nothing goes on is waited for until it has let go of its run.
const LET_GO_IN: Duration = Duration::from_secs(10);
/// How often it is looked for meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Which files what runs again is run with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Files {
    /// Those that the run has.
    #[default]
    Pinned,
    /// As they are now; the whole run goes on with them.
    Current,
}

/// What an operation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operated {
    /// The instances that it is about.
    pub instances: Vec<InstanceId>,
    /// How the files as they are now differ from those that the run had, where they do, and whether it goes on with them.
    pub files: Option<(Differing, Files)>,
}

impl Service {
    /// Looks at the files now: who has just mended one means it as it is.
    pub(super) async fn look_again(self: &Arc<Self>) {
        let service = self.clone();
        // A panic of the loader leaves what was in force.
        let _ = tokio::task::spawn_blocking(move || service.look_at_files()).await;
    }

    /// How the files of a run's DAG differ from those that it has. `None` also where there are none that could be taken.
    pub(super) async fn differing(&self, header: &RunHeader) -> Option<Differing> {
        let entry = self.current(header).await.ok()?;
        if entry.definition.version == header.version {
            return None;
        }
        let (prepared, _) = self.pinned(header).await.ok()?;
        Differing::of(&prepared.definition, &entry.definition)
    }

    /// The DAG of a run as its files are now.
    async fn current(&self, header: &RunHeader) -> Result<DagEntry, Error> {
        let entry = self.dag(header.dag_id.as_str())?;
        if entry.is_stale {
            let broken = self.catalog().broken(header.dag_id.as_str()).unwrap_or_else(|| "its files are broken".into());
            return Err(Error::Conflict(format!("the files of DAG `{}` cannot be taken: {broken}", header.dag_id)));
        }
        let (project, _) = self.project_of(&self.catalog(), header).await.map_err(Error::Conflict)?;
        if project.root != entry.project.root {
            let (dag, root) = (&header.dag_id, project.root.display());
            return Err(Error::Conflict(format!("the run is of project {root}, which has no DAG `{dag}` any more")));
        }
        Ok(entry)
    }

    /// As [`Service::operate`], with the files as they are now.
    pub(super) async fn operate_with_current(
        &self,
        run: &RunId,
        operation: &Operation,
        by: &Who,
        dry_run: bool,
    ) -> Result<Operated, Error> {
        let row = self.row(run).await?;
        let entry = self.current(&row.header).await?;
        if entry.definition.version == row.header.version {
            // It has them: nothing has to be let go of.
            let instances = self.operate_with_pinned(run, operation.clone(), by, dry_run).await?;
            return Ok(Operated { instances, files: None });
        }
        let files = self.differing(&row.header).await.map(|differing| (differing, Files::Current));
        // Refused before anything of the run is disturbed.
        let idle = self.idle_with(&entry, run).await?;
        let (instances, _) = self.plan_with(&entry, &row, idle.state(), operation, by).await?;
        if dry_run {
            return Ok(Operated { instances, files });
        }
        self.keep(&entry).await?;
        // Not taken for one that was left behind meanwhile.
        let making = self.announce(run);
        let taken = self.take_idle(&entry, run).await;
        let done = match taken {
            Ok((lock, mut idle)) => {
                let done = self.pin_and_act(&entry, &mut idle, operation, by).await;
                drop(lock);
                done
            }
            Err(error) => Err(error),
        };
        drop(making);
        // Whatever came of it: an engine may have let go of the run, and there is something left to do of it.
        if let Ok(row) = self.row(run).await
            && row.ended_at.is_none()
            && self.control(run).is_none()
        {
            self.take_in_again(row.header);
        }
        Ok(Operated { instances: done?, files })
    }

    async fn pin_and_act(
        &self,
        entry: &DagEntry,
        idle: &mut Idle,
        operation: &Operation,
        by: &Who,
    ) -> Result<Vec<InstanceId>, Error> {
        let row = self.row(idle.run()).await?;
        let (instances, commands) = self.plan_with(entry, &row, idle.state(), operation, by).await?;
        idle.act(&*self.store, commands, self.now()).await.map_err(super::operate::refused)?;
        Ok(instances)
    }

    /// What is done to the run, or why it cannot be.
    async fn plan_with(
        &self,
        entry: &DagEntry,
        row: &RunRow,
        state: &RunState,
        operation: &Operation,
        by: &Who,
    ) -> Result<(Vec<InstanceId>, Vec<Command>), Error> {
        if let Some(instance) = state.instances_in_doubt().next() {
            return Err(Error::Conflict(backstop_core::command::Rejected::InDoubt(instance).to_string()));
        }
        if let Some(instance) = state.instances_running().next().filter(|_| self.control(&row.header.run_id).is_some()) {
            return Err(Error::Conflict(repin::is_running(&instance)));
        }
        let (instances, command) = operation.plan(state, by, self.now())?;
        let mut after = state.clone();
        let refused = |refused: backstop_core::command::Rejected| Error::Conflict(refused.to_string());
        backstop_core::handle(&mut after, command.clone(), self.now()).map_err(refused)?;
        let current = Current { prepared: entry.prepared.clone(), sessions: entry.sessions.clone(), clock: self.clock.clone() };
        if let Some(why) = current.refuses(&*self.store, row, state, &after).await {
            return Err(Error::Conflict(why));
        }
        let pin = repin::command(&entry.definition, state);
        Ok((instances, pin.into_iter().chain([command]).collect()))
    }

    async fn idle_with(&self, entry: &DagEntry, run: &RunId) -> Result<Idle, Error> {
        let refused = |error| match error {
            crate::steer::Error::Read(changed @ crate::run::Error::Changed { .. }) => Error::Conflict(changed.to_string()),
            other => super::operate::refused(other),
        };
        Idle::read_with(&*self.store, &entry.definition, run).await.map_err(refused)
    }

    /// Takes a run of which nothing goes on, from its engine if it has one.
    async fn take_idle(&self, entry: &DagEntry, run: &RunId) -> Result<(RunLock, Idle), Error> {
        // Its deadlines may be told of just now.
        self.until_told(run).await;
        let until = tokio::time::Instant::now() + LET_GO_IN;
        let mut let_go = None;
        loop {
            match self.store.lock_run(run) {
                Ok(lock) => {
                    let mut idle = self.idle_with(entry, run).await?;
                    let_go.into_iter().for_each(|epoch| idle.was_let_go(epoch));
                    if idle.is_settled() {
                        return Ok((lock, idle));
                    }
                    drop(lock);
                    // Only an engine finds out what was done ahead of the log.
                    let_go = Some(self.let_go(run).await?);
                }
                Err(error) if error.kind == ErrorKind::Busy => match (let_go, self.control(run)) {
                    (None, Some(_)) => let_go = Some(self.let_go(run).await?),
                    // Since then.
                    (None, None) if self.desk().is_telling(run) => self.until_told(run).await,
                    (None, None) => {
                        return Err(Error::Conflict(format!("{}: steer the run there, or ask again", error.message)));
                    }
                    (Some(_), _) => tokio::time::sleep(LOOK_EVERY).await,
                },
                Err(error) => return Err(error.into()),
            }
            if tokio::time::Instant::now() >= until {
                return Err(Error::Conflict(format!("run {run} goes on, and was not let go of within {LET_GO_IN:?}: ask again")));
            }
        }
    }

    /// Lets the run's engine go, of which nothing may go on; one that waits is begun for it. Gives the epoch in which it was driven.
    async fn let_go(&self, run: &RunId) -> Result<u64, Error> {
        let (ask, answer) = Ask::let_go();
        match self.control(run) {
            Some(control) => control.ask(ask),
            None => self.ask_who_waits(run, ask).await?,
        }
        match answer.await {
            Ok(Ok(epoch)) => Ok(epoch),
            Ok(Err(refused)) => Err(Error::Conflict(refused)),
            // It has ended, and is settled.
            Err(_) if self.is_over(run).await? => Ok(0),
            Err(_) => Err(self.not_answered(run)),
        }
    }
}

#[cfg(test)]
mod tests;
