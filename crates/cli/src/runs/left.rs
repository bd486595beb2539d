//! Who goes on with a run that something is left to do of: a process that has it, the service that has the store, or nobody.

use crate::explain::Problem;
use crate::service::{Entrance, Service, part};
use backstop_core::RunId;
use backstop_core::state::RunPhase;
use backstop_store::{ErrorKind, RunLock, RunRow, Store};

/// To whom a run is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// To nobody: nothing is left to do of it, a process has it, or it waits for a person.
    No,
    /// To the service that has the store: no process has the run at this moment, and the service begins it when it may.
    ToService,
    /// Something is left to do of it, and nobody goes on with it before somebody says so: its process was killed, or its machine went down.
    Abandoned,
}

/// Looks at a run by its row, its lock and the store's holder.
pub(crate) async fn look(store: &dyn Store, row: &RunRow) -> Result<Left, Problem> {
    if !should_go_on(row) || is_held(store, &row.header.run_id) {
        return Ok(Left::No);
    }
    // It may have ended between the look at its row and the look at its lock.
    if !store.run(&row.header.run_id).await?.is_some_and(|row| should_go_on(&row)) {
        return Ok(Left::No);
    }
    Ok(match service_of(store, row).await? {
        Some(_) => Left::ToService,
        None => Left::Abandoned,
    })
}

/// Whether nobody goes on with a run that something is left to do of.
pub(crate) async fn is_abandoned(store: &dyn Store, row: &RunRow) -> Result<bool, Problem> {
    Ok(look(store, row).await? == Left::Abandoned)
}

/// The service that goes on with a run which no process has: the one that has the store, unless it is a dry run that the service did not make.
pub(crate) async fn service_of(store: &dyn Store, row: &RunRow) -> Result<Option<Service>, Problem> {
    let Some(service) = Service::of(store, &Entrance::default()).await? else { return Ok(None) };
    if row.header.dry_run {
        // Only the service knows its own. One that gives no answer to us (it wants a token) is not contradicted.
        let shown = service.get(&format!("/api/v1/runs/{}", part(row.header.run_id.as_str()))).await.unwrap_or_default();
        return Ok((shown["abandoned"] != true).then_some(service));
    }
    Ok(Some(service))
}

/// Refuses to take over a run that the service of the store has to go on with: two would do the same, and the service's word on it would be wrong.
pub(crate) async fn refuse_what_is_the_services(store: &dyn Store, row: &RunRow, flags: &str) -> Result<(), Problem> {
    // That of a run that is held says who has it.
    if row.is_finished() || is_held(store, &row.header.run_id) {
        return Ok(());
    }
    match service_of(store, row).await? {
        Some(service) => Err(of_service(&service, row, flags)),
        None => Ok(()),
    }
}

/// Takes a run over for this process, unless somebody has it or will.
pub(crate) async fn take(store: &dyn Store, row: &RunRow, flags: &str) -> Result<RunLock, Problem> {
    refuse_what_is_the_services(store, row, flags).await?;
    let run = &row.header.run_id;
    match store.lock_run(run) {
        Ok(lock) => Ok(lock),
        Err(error) if error.kind == ErrorKind::Busy && Service::of(store, &Entrance::default()).await?.is_some() => {
            Err(Problem::from(error).hint(format!("a run that a service runs is steered there: backstop runs why {run}{flags}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is said to who would drive a run that a service goes on with.
fn of_service(service: &Service, row: &RunRow, flags: &str) -> Problem {
    let run = &row.header.run_id;
    let problem = Problem::usage(format!("the service at {} has this store, and goes on with run {run}", service.address()));
    if row.state == RunPhase::Stuck.as_str() {
        return problem
            .hint(format!("it waits for a person; what is in doubt, and why: backstop runs why {run}{flags}"))
            .hint(format!("say what became of it: {}", resolve_command(run.as_str(), "TASK", flags)));
    }
    problem.hint(format!("what it waits for: backstop runs why {run}{flags}")).hint(format!(
        "it is steered there: backstop runs cancel, retry, clear and mark {run}{flags}; a paused DAG goes on with backstop dags unpause {}{flags}",
        row.header.dag_id
    ))
}

/// The command that tells a service what became of an attempt in doubt; `task` as a word of the shell.
pub(crate) fn resolve_command(run: &str, task: &str, flags: &str) -> String {
    format!("backstop runs resolve {run} {task} --committed --reason \"how you know\"{flags} (or --not-committed)")
}

/// Where the lock cannot be looked at, nobody is told that the run is free.
fn is_held(store: &dyn Store, run: &RunId) -> bool {
    store.is_run_held(run).unwrap_or(true)
}

/// Whether some process should be running it, or its callbacks. A stuck run waits for a person, and needs none.
fn should_go_on(row: &RunRow) -> bool {
    !row.is_finished() && row.state != RunPhase::Stuck.as_str()
}
