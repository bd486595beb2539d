//! `backstop backfill` and `backstop backfills`: makes up for a range of a DAG's past through the service; a dry run needs none.

use crate::args::Place;
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::{self, Kept};
use crate::run::begin::{parse_date_in, parse_end_in};
use crate::runs::block_on;
use crate::service::{self, Entrance, Service, Signature, part, signed};
use crate::sources::{self, Purpose};
use crate::words;
use backstop_core::backfill::{RUNS_AT_ONCE, RUNS_AT_ONCE_MAX, Reprocess, Span};
use backstop_runtime::service::backfill::{Preview, preview};
use backstop_store::{MemoryStore, SqliteStore, Store};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::time::Duration;

/// Dates that a dry run lists.
const DATES_TOLD_MAX: u32 = 100;
/// Between two looks at a backfill that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What becomes of dates that have a run.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Existing {
    /// They are left as they are
    #[default]
    None,
    /// They run again if their last run failed
    Failed,
    /// They run again if their last run is over
    Completed,
}

impl From<Existing> for Reprocess {
    fn from(existing: Existing) -> Self {
        match existing {
            Existing::None => Self::None,
            Existing::Failed => Self::Failed,
            Existing::Completed => Self::Completed,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct BackfillArgs {
    /// The DAG
    dag: String,
    /// The first logical date: 2025-05-01, or a time such as 2025-05-01T02:00:00Z
    #[arg(long, value_name = "DATE")]
    from: String,
    /// The last, inclusive; a day alone is all of that day
    #[arg(long, value_name = "DATE")]
    to: String,
    /// What becomes of dates that have a run
    #[arg(long, value_enum, default_value_t, value_name = "WHICH")]
    reprocess: Existing,
    /// The latest date first
    #[arg(long)]
    reverse: bool,
    /// Runs of it at once
    #[arg(long, value_name = "NUMBER", default_value_t = RUNS_AT_ONCE, value_parser = clap::value_parser!(u32).range(1..=i64::from(RUNS_AT_ONCE_MAX)))]
    max_active_runs: u32,
    /// A parameter of its runs; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = crate::args::pair)]
    params: Vec<(String, String)>,
    /// Its id: asked for twice with one id, it is made once
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// List what would become of each date, and keep nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait for its end; the exit code is 1 if a run of it failed
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    signature: Signature,
    #[command(flatten)]
    entrance: Entrance,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackfillsCommand {
    /// List backfills, newest first
    List {
        /// Write a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        entrance: Entrance,
    },
    /// Show how far one is, and why not further
    Show {
        /// Its id
        id: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        entrance: Entrance,
    },
    /// Make no more runs for now; those that go on go on
    Pause(OneArgs),
    /// Let a paused one go on
    Resume(OneArgs),
    /// Make no more runs
    Cancel {
        #[command(flatten)]
        one: OneArgs,
        /// Cancel its runs that go on, too
        #[arg(long)]
        runs: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// Its id
    id: String,
    #[command(flatten)]
    signature: Signature,
    #[command(flatten)]
    entrance: Entrance,
}

/// Asks for a backfill.
pub(crate) fn backfill(arguments: &BackfillArgs, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    block_on(async {
        match Service::of_kept(&kept, &arguments.entrance).await? {
            Some(service) => ask(arguments, &service, &kept).await,
            None if arguments.dry_run => look(arguments, &kept, place).await,
            None => Err(service::none_is_there("nobody would drive its runs", &kept)
                .hint(format!("start a service first: backstop up{}", kept.flags))
                .hint("--dry-run needs none")),
        }
    })
}

async fn ask(arguments: &BackfillArgs, service: &Service, kept: &Kept) -> Result<Exit, Problem> {
    let path = format!("/api/v1/dags/{}", part(&arguments.dag));
    let dag = service.get(&path).await?;
    let span = span(arguments, dag["timezone"].as_str().unwrap_or("UTC"))?;
    let mut body = json!({
        "from": span.from,
        "to": span.to,
        "reprocess": Reprocess::from(arguments.reprocess).as_str(),
        "reverse": arguments.reverse,
        "max_active_runs": arguments.max_active_runs,
        "params": service::params(&arguments.params)?,
    });
    if let Some(id) = &arguments.id {
        body["backfill_id"] = json!(id);
    }
    if arguments.dry_run {
        (body["dry_run"], body["limit"]) = (json!(true), json!(DATES_TOLD_MAX));
    }
    let asked = service.post(&format!("{path}/backfills"), &signed(body, &arguments.signature)).await?;
    if arguments.dry_run {
        let rows = asked["items"].as_array().into_iter().flatten().map(|date| {
            let text = |key: &str| date[key].as_str().map(str::to_owned);
            let state = text("existing_state").unwrap_or_default();
            (text("logical_date").unwrap_or_default(), text("action").unwrap_or_default(), text("existing_run"), state)
        });
        tell_dates(arguments, &asked, rows.collect(), asked["total"].as_u64().unwrap_or(0))?;
        return Ok(Exit::Success);
    }
    let id = asked["backfill_id"].as_str().unwrap_or_default().to_owned();
    if arguments.wait {
        return wait(arguments, service, &id).await;
    }
    if arguments.json {
        output::data(&format!("{asked:#}\n"))?;
    } else {
        output::data(&format!("{id}\n"))?;
        let dates = words::count(usize::try_from(asked["progress"]["total"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX), "date");
        output::note(&format!("{dates} of `{}`; look on with: backstop backfills show {id}{}", arguments.dag, kept.flags));
    }
    Ok(Exit::Success)
}

fn span(arguments: &BackfillArgs, timezone: &str) -> Result<Span, Problem> {
    let from = parse_date_in(&arguments.from, timezone)?;
    let to = parse_end_in(&arguments.to, timezone, crate::run::begin::now())?;
    Ok(Span { from, to, reverse: arguments.reverse })
}

/// A dry run from the files and the store alone.
async fn look(arguments: &BackfillArgs, kept: &Kept, place: &Place) -> Result<Exit, Problem> {
    let definition = sources::choose(&arguments.dag, None, place, Purpose::Look)?.definition;
    let given = crate::run::begin::parse_params(&definition, &arguments.params)?;
    drop(given);
    let store: Box<dyn Store> = match kept.store.exists() {
        true => Box::new(SqliteStore::open_read_only(&kept.store)?),
        false => Box::new(MemoryStore::default()),
    };
    let asked = (span(arguments, &definition.timezone)?, arguments.reprocess.into());
    let timetable = definition.timetable.clone().unwrap_or_default();
    let (dag, page) = (definition.dag.id(), (None, DATES_TOLD_MAX as usize));
    let Preview { total, dates, next } = preview(&*store, dag, &timetable, asked, page, crate::run::begin::now())
        .await
        .map_err(|error| Problem::usage(error.to_string()))?;
    let rows: Vec<_> = dates
        .iter()
        .map(|date| {
            let (action, state) = backstop_server::wire::backfill::action(date.verdict);
            let run = date.newest.as_ref().map(ToString::to_string);
            (date.tick.logical_date.to_string(), action.to_owned(), run, state.unwrap_or_default().to_owned())
        })
        .collect();
    let shown = Preview { total, dates, next };
    let json = serde_json::to_value(backstop_server::wire::backfill::Preview::from(&shown)).unwrap_or_default();
    tell_dates(arguments, &json, rows, total as u64)?;
    Ok(Exit::Success)
}

/// A date a line: when, what becomes of it, its run.
fn tell_dates(
    arguments: &BackfillArgs,
    json: &Value,
    dates: Vec<(String, String, Option<String>, String)>,
    total: u64,
) -> Result<(), Problem> {
    if arguments.json {
        return output::data(&format!("{json:#}\n"));
    }
    let heading = ["DATE", "WHAT", "EXISTING RUN", "STATE"].map(str::to_owned).to_vec();
    let listed = dates.len() as u64;
    let rows = dates.into_iter().map(|(date, action, run, state)| {
        let what = match action.as_str() {
            "run_again" => "runs again",
            "leave" => "is left",
            _ => "runs",
        };
        vec![date, what.to_owned(), run.unwrap_or_else(|| "-".to_owned()), if state.is_empty() { "-".to_owned() } else { state }]
    });
    output::data(&output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>(), Painter::stdout()))?;
    let more = if total > listed { format!("; {} more are not listed", words::grouped(total - listed)) } else { String::new() };
    output::note(&format!("nothing was kept: leave --dry-run out{more}"));
    Ok(())
}

async fn wait(arguments: &BackfillArgs, service: &Service, id: &str) -> Result<Exit, Problem> {
    output::note(&format!("backfill {id} of `{}` was asked for; waiting for its end", arguments.dag));
    loop {
        let shown = service.get(&format!("/api/v1/backfills/{}", part(id))).await?;
        if shown["ended_at"].is_null() {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        if arguments.json {
            output::data(&format!("{shown:#}\n"))?
        } else {
            tell(&shown)?
        }
        let exit = match (shown["state"].as_str(), shown["progress"]["failed"].as_u64()) {
            (Some("cancelled"), _) => Exit::Interrupted,
            (_, Some(0)) => Exit::Success,
            _ => Exit::RunFailed,
        };
        return Ok(exit);
    }
}

/// Looks at backfills, and steers them.
pub(crate) fn backfills(command: BackfillsCommand, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    block_on(async {
        match command {
            BackfillsCommand::List { json, entrance } => {
                let found = Value::Array(the_service(&kept, &entrance).await?.list("/api/v1/backfills", "before").await?);
                if json { output::data(&format!("{found:#}\n")) } else { tell_list(&found) }
            }
            BackfillsCommand::Show { id, json, entrance } => {
                let shown = the_service(&kept, &entrance).await?.get(&format!("/api/v1/backfills/{}", part(&id))).await?;
                if json { output::data(&format!("{shown:#}\n")) } else { tell(&shown) }
            }
            BackfillsCommand::Pause(one) => steer(&one, "pause", json!({}), &kept).await,
            BackfillsCommand::Resume(one) => steer(&one, "resume", json!({}), &kept).await,
            BackfillsCommand::Cancel { one, runs } => steer(&one, "cancel", json!({ "cancel_runs": runs }), &kept).await,
        }
    })?;
    Ok(Exit::Success)
}

async fn the_service(kept: &Kept, entrance: &Entrance) -> Result<Service, Problem> {
    Service::of_kept(kept, entrance).await?.ok_or_else(|| {
        service::none_is_there("backfills go on in one", kept).hint(format!("start a service first: backstop up{}", kept.flags))
    })
}

async fn steer(one: &OneArgs, word: &str, body: Value, kept: &Kept) -> Result<(), Problem> {
    let service = the_service(kept, &one.entrance).await?;
    let body = signed(body, &one.signature);
    let shown = service.post(&format!("/api/v1/backfills/{}/{word}", part(&one.id)), &body).await?;
    tell(&shown)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn tell_list(items: &Value) -> Result<(), Problem> {
    let heading = ["BACKFILL", "DAG", "STATE", "FROM", "TO", "DONE", "FAILED", "RUNNING", "WAITING", "LEFT"];
    let rows = items.as_array().into_iter().flatten().map(|item| {
        let counts = ["done", "failed", "running", "waiting", "left"].map(|key| text(&item["progress"][key]));
        ["backfill_id", "dag", "state", "from", "to"].iter().map(|key| text(&item[*key])).chain(counts).collect()
    });
    let rows: Vec<Vec<String>> = std::iter::once(heading.map(str::to_owned).to_vec()).chain(rows).collect();
    output::data(&output::table(&rows, Painter::stdout()))
}

fn tell(shown: &Value) -> Result<(), Problem> {
    let progress = &shown["progress"];
    let count = |key: &str| progress[key].as_u64().unwrap_or(0);
    output::data(&format!(
        "backfill {} of `{}`: {}\n  dates    {} to {}\n  total    {}: {} done, {} failed, {} running, {} waiting, {} left\n  why      {}\n",
        text(&shown["backfill_id"]),
        text(&shown["dag"]),
        text(&shown["state"]),
        text(&shown["from"]),
        text(&shown["to"]),
        count("total"),
        count("done"),
        count("failed"),
        count("running"),
        count("waiting"),
        count("left"),
        text(&shown["why"]),
    ))
}
