//! `backstop runs cancel` and `resolve`.

use super::arguments::{CancelArgs, ResolveArgs};
use super::{Held, held_by_another, named, resume_command, signed};
use crate::args::{self, Place};
use crate::explain::{Exit, Problem};
use crate::output;
use crate::paths::{self, Kept};
use crate::runs::{self, Latest, block_on};
use crate::service::{Service, Signature, part};
use backstop_core::Command;
use backstop_store::{RunRow, SqliteStore, Store};
use serde_json::json;

/// Ends a run or a task of it: through the service, or where no process drives the run.
pub(super) fn cancel(arguments: &CancelArgs, kept: &Kept, place: &Place) -> Result<Exit, Problem> {
    reason(&arguments.signature)?;
    let left = block_on(async {
        let looking = SqliteStore::open_read_only(&kept.store)?;
        let row = runs::find_to_act(&looking, &arguments.run, Latest::Any).await?;
        match Service::of(&looking, &arguments.entrance).await? {
            Some(service) => ask(arguments, &service, &row).await.map(|()| None),
            None => Ok(Some(row)),
        }
    })?;
    match (left, &arguments.task) {
        (None, _) => Ok(Exit::Success),
        (Some(row), Some(task)) => block_on(cancel_task(arguments, task, row, kept)).map(|()| Exit::Success),
        (Some(row), None) => cancel_run(arguments, &row, kept, place),
    }
}

fn reason(signature: &Signature) -> Result<(), Problem> {
    match signature.reason.as_deref().map(str::trim) {
        Some(reason) if !reason.is_empty() => Ok(()),
        Some(_) | None => {
            Err(Problem::usage("no reason is given").hint("say why with --reason TEXT: it is kept in the run's log"))
        }
    }
}

async fn ask(arguments: &CancelArgs, service: &Service, row: &RunRow) -> Result<(), Problem> {
    let run = &row.header.run_id;
    let body = signed(json!({}), &arguments.signature);
    match &arguments.task {
        Some(task) => {
            service.post(&format!("/api/v1/runs/{}/tasks/{}/cancel", part(run.as_str()), part(task)), &body).await?;
            output::note(&format!("`{task}` of run {run} is being cancelled by the service at {}", service.address()));
        }
        None => {
            service.post(&format!("/api/v1/runs/{}/cancel", part(run.as_str())), &body).await?;
            output::note(&format!("run {run} is being cancelled by the service at {}", service.address()));
        }
    }
    Ok(())
}

async fn cancel_task(arguments: &CancelArgs, task: &str, row: RunRow, kept: &Kept) -> Result<(), Problem> {
    let store = SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?;
    let mut held = Held::of(&store, row, &kept.flags, false).await?;
    let again = resume_command(&held.row, &kept.flags);
    for instance in named(held.idle.state(), &[task.to_owned()])? {
        let (reason, who) = (arguments.signature.why(), arguments.signature.who());
        held.carry_out(vec![Command::CancelInstance { instance, reason, who }], false).await?;
    }
    output::note(&format!("recorded; now: {again}"));
    Ok(())
}

/// A run that nobody drives: this process takes it over to end it, so that what its last process was doing is found out.
fn cancel_run(arguments: &CancelArgs, row: &RunRow, kept: &Kept, place: &Place) -> Result<Exit, Problem> {
    let run = &row.header.run_id;
    if row.ended_at.is_some() {
        return Err(Problem::usage(format!("run {run} is over ({}): there is nothing to cancel", row.state)));
    }
    block_on(async {
        // Asked for at once, so that the words are those of a run that is held, and not of one that cannot be resumed.
        let store = SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?;
        store.lock_run(run).map(drop).map_err(|error| {
            let mut problem = held_by_another(error);
            problem.hints = vec!["end it there: press Ctrl-C, or send its process SIGINT".to_owned()];
            problem
        })
    })?;
    crate::run::cancel(run, (arguments.signature.who(), arguments.signature.why()), place)
}

/// Says what became of an attempt in doubt.
pub(super) async fn resolve(arguments: &ResolveArgs, kept: &Kept) -> Result<(), Problem> {
    reason(&arguments.signature)?;
    let looking = SqliteStore::open_read_only(&kept.store)?;
    let row = runs::find_to_act(&looking, &arguments.run, Latest::Any).await?;
    let run = row.header.run_id.clone();
    let Some(service) = Service::of(&looking, &arguments.entrance).await? else {
        let word = paths::shell_word(&arguments.task);
        let outcome = if arguments.committed { "committed" } else { "not-committed" };
        let resume = resume_command(&row, &kept.flags);
        return Err(Problem::usage(format!("nobody drives run {run}: who takes it over is told so"))
            .hint(format!("{resume} --resolve {word}={outcome} --why \"how you know\"")));
    };
    let held = Held::of(&looking, row, &kept.flags, true).await?;
    named(held.idle.state(), std::slice::from_ref(&arguments.task))?;
    let (task, map_index) = args::instance(&arguments.task);
    let said = json!({ "task": task, "map_index": map_index, "took_effect": arguments.committed, "segment": arguments.segment });
    let body = signed(said, &arguments.signature);
    service.post(&format!("/api/v1/runs/{}/resolve", part(run.as_str())), &body).await?;
    output::note(&format!("recorded; the service at {} goes on with run {run}", service.address()));
    Ok(())
}
