//! `backstop trigger`: asks the service for a run, or for one for each line of a file, and waits for its end where that is wanted.

mod each;

use crate::args::Place;
use crate::explain::{Exit, Problem};
use crate::paths::Kept;
use crate::run::begin::parse_date_in;
use crate::runs::block_on;
use crate::runs::show::what_came_of;
use crate::service::{self, Entrance, Service, Signature, part, signed};
use crate::{output, paths};
use backstop_core::state::RunPhase;
use backstop_store::SqliteStore;
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// Between two looks at a run that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(crate) struct TriggerArgs {
    /// The DAG
    pub(crate) dag: String,
    /// A parameter of the DAG; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = crate::args::pair)]
    pub(crate) params: Vec<(String, String)>,
    /// A run for each line of a file (`-`: standard input), which is a JSON object of its parameters; they go before --param
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run_id", "wait"])]
    pub(crate) each: Option<PathBuf>,
    /// The name of what --each asks for: sent twice with one name, each line has one run [default: a new one]
    #[arg(long, value_name = "NAME", requires = "each")]
    pub(crate) batch: Option<String>,
    /// What the run is about: 2025-05-01, or a time such as 2025-05-01T02:00:00Z [default: now]
    #[arg(long, value_name = "DATE")]
    pub(crate) logical_date: Option<String>,
    /// Run only this task; may be repeated
    #[arg(long = "task", value_name = "TASK")]
    pub(crate) tasks: Vec<String>,
    /// Run transactional SQL and roll it back
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The run's id: asked for twice with one id, there is one run
    #[arg(long, value_name = "ID")]
    pub(crate) run_id: Option<String>,
    /// Also when there is a run about this logical date
    #[arg(long)]
    pub(crate) again: bool,
    /// Wait for the run's end; the exit code tells how it ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// Write the run as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) signature: Signature,
    #[command(flatten)]
    pub(crate) entrance: Entrance,
}

/// Asks for a run.
pub(crate) fn trigger(arguments: &TriggerArgs, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    block_on(async {
        let Some(service) = Service::of_kept(&kept, &arguments.entrance).await? else {
            let dag = paths::shell_word(&arguments.dag);
            return Err(service::none_is_there("nobody would drive the run", &kept)
                .hint(format!("run it in this process: backstop run {dag}{}", kept.flags))
                .hint(format!("or start a service first: backstop up{}", kept.flags)));
        };
        if let Some(file) = &arguments.each {
            return each::trigger(arguments, file, &service, &kept.flags).await;
        }
        let asked = service.post(&format!("/api/v1/dags/{}/runs", part(&arguments.dag)), &body(arguments, &service).await?).await;
        // The API names its own key.
        let asked = asked.map_err(|problem| Problem { message: problem.message.replace("`again`", "`--again`"), ..problem })?;
        let dag = service.get(&format!("/api/v1/dags/{}", part(&arguments.dag))).await;
        // The run is there already: that this cannot be told does not matter.
        if let Some(broken) = dag.as_ref().ok().and_then(|dag| dag["broken"].as_str()) {
            output::warn(&format!("{broken}; its last good version runs (`backstop check` shows all that is wrong)"));
        }
        let run = asked["run_id"].as_str().unwrap_or_default().to_owned();
        if let Some(because) = asked["waits_because"].as_str() {
            output::warn(&format!(
                "run {run} waits: {because} (backstop dags unpause {}{})",
                paths::shell_word(&arguments.dag),
                kept.flags
            ));
        }
        if !arguments.wait {
            return told(arguments, &run, &asked, &kept.flags);
        }
        output::note(&format!("run {run} of `{}` was asked for; waiting for its end", arguments.dag));
        wait(arguments, &service, &run, place, &kept).await
    })
}

async fn body(arguments: &TriggerArgs, service: &Service) -> Result<Value, Problem> {
    let mut body = json!({
        "params": service::params(&arguments.params)?,
        "tasks": arguments.tasks,
        "dry_run": arguments.dry_run,
        "again": arguments.again,
    });
    if let Some(id) = &arguments.run_id {
        body["run_id"] = json!(id);
    }
    if let Some(date) = &arguments.logical_date {
        let dag = service.get(&format!("/api/v1/dags/{}", part(&arguments.dag))).await?;
        body["logical_date"] = json!(parse_date_in(date, dag["timezone"].as_str().unwrap_or("UTC"))?);
    }
    Ok(signed(body, &arguments.signature))
}

fn told(arguments: &TriggerArgs, run: &str, asked: &Value, flags: &str) -> Result<Exit, Problem> {
    if arguments.json {
        output::data(&format!("{asked:#}\n"))?;
    } else {
        output::data(&format!("{run}\n"))?;
        output::note(&format!("look on with: backstop runs show {run}{flags}"));
    }
    Ok(Exit::Success)
}

/// Until it is over, or waits for a person.
async fn wait(arguments: &TriggerArgs, service: &Service, run: &str, place: &Place, kept: &Kept) -> Result<Exit, Problem> {
    loop {
        let shown = service.get(&format!("/api/v1/runs/{}", part(run))).await?;
        let state = shown["state"].as_str().unwrap_or_default();
        let phase = RunPhase::ALL.into_iter().find(|phase| phase.as_str() == state);
        let exit = match phase {
            Some(RunPhase::Succeeded) => Exit::Success,
            Some(RunPhase::Failed) => Exit::RunFailed,
            Some(RunPhase::Cancelled) => Exit::Interrupted,
            Some(RunPhase::Stuck) => Exit::Stuck,
            Some(RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling) | None => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
        };
        if arguments.json {
            output::data(&format!("{shown:#}\n"))?;
            output::note(&format!("run {run} is {state}"));
        } else {
            output::data(&format!("{run}\n"))?;
            let store = SqliteStore::open_read_only(&kept.store)?;
            output::tell(&what_came_of(&store, run, place, &kept.flags).await?);
        }
        return Ok(exit);
    }
}
