//! The command line.

use crate::service::{Entrance, Signature};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Runs SQL batches: exactly once, or not at all, and says what happened.
#[derive(Debug, Parser)]
#[command(name = "backstop", version, disable_help_subcommand = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the project and its store are.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Place {
    /// The project folder; `up` takes several [default: the nearest folder above with a backstop.yaml]
    #[arg(long = "project", global = true, value_name = "DIR")]
    pub(crate) projects: Vec<PathBuf>,
    /// The store's file [default: .backstop/store.db in the project folder]
    #[arg(long, global = true, value_name = "PATH", env = "BACKSTOP_STORE", value_parser = store_path)]
    pub(crate) store: Option<PathBuf>,
}

/// A path, also as `sqlite:PATH`: the only kind of store there is now.
fn store_path(text: &str) -> Result<PathBuf, String> {
    let path = match text.split_once(':') {
        Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
        Some((scheme @ ("postgres" | "postgresql" | "mysql" | "mariadb"), _)) => {
            return Err(format!("a store is a SQLite file, not {scheme}: give its path"));
        }
        _ => text,
    };
    if path.is_empty() { Err("the path of a file is wanted".to_owned()) } else { Ok(PathBuf::from(path)) }
}

impl Place {
    /// The project that was named; of several, the first.
    pub(crate) fn project(&self) -> Option<&PathBuf> {
        self.projects.first()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a DAG, or one file
    Run(RunArgs),
    /// Run the service: it drives runs, and answers an HTTP API
    Up(UpArgs),
    /// Ask the service for a run
    Trigger(crate::trigger::TriggerArgs),
    /// Look at DAGs, and pause them
    #[command(subcommand)]
    Dags(crate::dags::DagsCommand),
    /// Run a DAG for a range of dates that have passed, through the service
    Backfill(crate::backfill::BackfillArgs),
    /// Look at backfills, pause and cancel them
    #[command(subcommand)]
    Backfills(crate::backfill::BackfillsCommand),
    /// Say everything that is wrong with a project, a DAG file, or a DAG
    Check(CheckArgs),
    /// Make a small project that runs at once
    Init(InitArgs),
    /// Look at runs, and run tasks of them again
    #[command(subcommand)]
    Runs(RunsOrSteer),
    /// Show what a task wrote
    Logs(LogsArgs),
    /// Look at connections
    #[command(subcommand)]
    Connections(ConnectionsCommand),
    /// Variables that stand before those of backstop.yaml
    #[command(subcommand)]
    Variables(VariablesCommand),
    /// Pools that stand before those of backstop.yaml
    #[command(subcommand)]
    Pools(PoolsCommand),
    /// Look after the markers in target databases
    #[command(subcommand)]
    Markers(MarkersCommand),
    /// Check, repair, copy and measure the store, and let old runs go
    #[command(subcommand)]
    Store(crate::store::arguments::StoreCommand),
    /// List the versions of a DAG that ran, or say what changed between two
    Versions(VersionsArgs),
    /// Show a task's SQL as it would be sent
    Render(RenderArgs),
    /// Draw a DAG
    Graph(GraphArgs),
    /// Print the JSON Schema of the project's files, for editors
    Schema(SchemaArgs),
    /// Print the description of the HTTP API, in OpenAPI 3.1
    Openapi,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where to listen. Other addresses than loopback need a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8640")]
    pub(crate) listen: std::net::SocketAddr,
    /// A file with the token that every request must carry; BACKSTOP_TOKEN is another way to give one
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Tasks going on at once, over all runs
    #[arg(long, value_name = "NUMBER", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) parallelism: u32,
    /// Seconds that running statements get to end by themselves when the service stops
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) grace: u64,
    /// Remove runs so long after they ended: 90d, 12h [default: never]
    #[arg(long, value_name = "AGE", value_parser = crate::markers::parse_age)]
    pub(crate) keep_runs_for: Option<std::time::Duration>,
    /// Remove runs that are over and not among the newest so many of their DAG [default: never]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_runs: Option<u32>,
    /// What is written to standard error while it goes on: lines of this level and of those before it. `debug` has each run's beginning and end
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
}

/// How much the service writes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    /// A DAG of the project, a DAG's .yaml file, or a .sql file
    #[arg(value_name = "DAG|FILE", required_unless_present = "resume")]
    pub(crate) target: Option<String>,
    /// A parameter of the DAG; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) params: Vec<(String, String)>,
    /// What the run is about: 2025-05-01, or a time such as 2025-05-01T02:00:00Z [default: now]
    #[arg(long, value_name = "DATE")]
    pub(crate) logical_date: Option<String>,
    /// Run only this task, or this group; may be repeated
    #[arg(long = "task", value_name = "TASK")]
    pub(crate) tasks: Vec<String>,
    /// Run transactional SQL and roll it back
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go on with a run whose process is gone: its id, the beginning of its id, or `latest`
    #[arg(long, value_name = "RUN", conflicts_with_all = ["params", "logical_date", "tasks", "dry_run", "new"])]
    pub(crate) resume: Option<String>,
    /// Say what an attempt in doubt did: TASK=committed or TASK=not-committed; may be repeated
    #[arg(long = "resolve", value_name = "TASK=OUTCOME", value_parser = resolution, requires = "resume", requires = "why")]
    pub(crate) resolutions: Vec<Resolution>,
    /// How you know; kept in the run's log
    #[arg(long, value_name = "TEXT", requires = "resolutions")]
    pub(crate) why: Option<String>,
    /// Resume with the project's files as they are now, not as they were when the run began
    #[arg(long, requires = "resume")]
    pub(crate) current_files: bool,
    /// Start a new run, also when an earlier one is not finished
    #[arg(long)]
    pub(crate) new: bool,
    /// Do nothing, and exit with 0, when a run of this date and these parameters has succeeded already
    #[arg(long, requires = "logical_date", conflicts_with_all = ["new", "dry_run", "resume"])]
    pub(crate) skip_if_successful: bool,
    /// For a .sql file: a connection of the project, or a URI such as sqlite:data.db
    #[arg(long, value_name = "ID|URI")]
    pub(crate) connection: Option<String>,
    /// Write events as JSON, one a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Also tell each statement, where progress is told in lines
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// What a person says of an attempt in doubt.
#[derive(Clone, Debug)]
pub(crate) struct Resolution {
    pub(crate) task: String,
    pub(crate) map_index: Option<u32>,
    pub(crate) took_effect: bool,
    pub(crate) segment: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Project folders, DAG files, or names of DAGs [default: the project]
    #[arg(value_name = "PATH|DAG")]
    pub(crate) paths: Vec<PathBuf>,
    /// Write diagnostics as a JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The folder; made when it is missing
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// Write into a folder that is not empty; files that are there stay as they are
    #[arg(long)]
    pub(crate) force: bool,
}

/// What can be done with runs.
#[derive(Debug, Subcommand)]
pub(crate) enum RunsOrSteer {
    #[command(flatten)]
    Look(RunsCommand),
    #[command(flatten)]
    Steer(crate::steer::arguments::SteerCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RunsCommand {
    /// List runs, newest first
    List {
        /// Only of this DAG
        #[arg(long, value_name = "DAG")]
        dag: Option<String>,
        /// Only in this state
        #[arg(long, value_name = "STATE", value_parser = ["queued", "running", "stuck", "cancelling", "success", "failed", "cancelled"])]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        /// Only runs made before this one: its id, or the beginning of it
        #[arg(long, value_name = "RUN")]
        before: Option<String>,
        /// Write a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Show one run: its tasks and statements
    Show {
        /// The run's id, the beginning of it, or `latest`
        run: String,
        /// Write JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the log of a run, event by event
    Events {
        /// The run's id, the beginning of it, or `latest`
        run: String,
        /// Write JSON, one event a line
        #[arg(long)]
        json: bool,
        /// Go on until the run is over
        #[arg(long, short)]
        follow: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The run's id, the beginning of it, or `latest`
    pub(crate) run: String,
    /// The task, such as `load` or `load[3]`
    pub(crate) task: String,
    /// Which try [default: the last]
    #[arg(long = "try", value_name = "N")]
    pub(crate) try_number: Option<u32>,
    /// Which instance of a mapped task
    #[arg(long, value_name = "I")]
    pub(crate) map_index: Option<u32>,
    /// Go on until the task is done
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionsCommand {
    /// List connections, without secrets
    List {
        /// Write a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Open connections and run a query
    Test {
        /// Which [default: all]
        #[arg(value_name = "ID")]
        ids: Vec<String>,
        /// Write a JSON array
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum VariablesCommand {
    /// List the variables that were set; secret ones without their values
    List {
        /// Write a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Set a variable: runs that begin from now on have it
    Set {
        /// Its name, as in {{ var.value.NAME }}
        name: String,
        /// Its value; `-`, or none, reads it from standard input, as a secret wants
        value: Option<String>,
        /// The value is JSON
        #[arg(long)]
        json: bool,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        signed: Signature,
    },
    /// Take away a variable that was set
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        signed: Signature,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PoolsCommand {
    /// List pools: those of backstop.yaml, and those that were set
    List {
        /// Write a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        entrance: Entrance,
    },
    /// Give a pool its slots
    Set {
        /// Its name
        name: String,
        /// How many; -1 is without limit
        #[arg(allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..=i64::from(i32::MAX)))]
        slots: i64,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        signed: Signature,
    },
    /// Take away a pool that was set
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        signed: Signature,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum MarkersCommand {
    /// Delete old markers of runs that are over
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// In whose database; may be repeated [default: all connections]
    #[arg(long = "connection", value_name = "ID")]
    pub(crate) connections: Vec<String>,
    /// How old a run's newest marker must be: 90d, 12h
    #[arg(long, value_name = "AGE", default_value = "90d", value_parser = crate::markers::parse_age)]
    pub(crate) older_than: std::time::Duration,
    /// Also of runs that this store does not know: only where no other store runs on these databases
    #[arg(long)]
    pub(crate) unknown_runs: bool,
    /// Say what would go, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write a JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VersionsArgs {
    /// The DAG
    pub(crate) dag: String,
    /// What to compare: a version, or the beginning of it
    #[arg(value_name = "A")]
    pub(crate) from: Option<String>,
    /// With what [default: the version used last]
    #[arg(value_name = "B")]
    pub(crate) to: Option<String>,
    /// Write JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// A DAG of the project, or a DAG's .yaml file
    #[arg(value_name = "DAG|FILE")]
    pub(crate) dag: String,
    /// The task
    pub(crate) task: String,
    /// A parameter of the DAG; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) params: Vec<(String, String)>,
    /// What the run would be about [default: now]
    #[arg(long, value_name = "DATE")]
    pub(crate) logical_date: Option<String>,
    /// Which instance of a task that is mapped over a list in the source
    #[arg(long, value_name = "I")]
    pub(crate) map_index: Option<u32>,
    /// The item of a mapped task, as JSON
    #[arg(long, value_name = "JSON")]
    pub(crate) item: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GraphArgs {
    /// A DAG of the project, or a DAG's .yaml file
    #[arg(value_name = "DAG|FILE")]
    pub(crate) dag: String,
    /// Write an SVG drawing to this file; `-` is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// Of which file
    #[arg(value_enum, default_value_t = SchemaOf::Dag)]
    pub(crate) of: SchemaOf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SchemaOf {
    /// backstop.yaml
    Backstop,
    /// dags/*.yaml
    Dag,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn resolution(text: &str) -> Result<Resolution, String> {
    let (name, outcome) = text.rsplit_once('=').ok_or("write TASK=committed or TASK=not-committed")?;
    let (outcome, segment) = match outcome.split_once(':') {
        None => (outcome, None),
        Some((outcome, number)) => {
            let segment =
                number.parse().map_err(|_| format!("`{number}` is not the number of a segment: write TASK=committed:2"))?;
            (outcome, Some(segment))
        }
    };
    let took_effect = match outcome {
        "committed" => true,
        "not-committed" => false,
        other => return Err(format!("`{other}` is neither `committed` nor `not-committed`")),
    };
    let (task, map_index) = instance(name);
    Ok(Resolution { task: task.to_owned(), map_index, took_effect, segment })
}

/// `load[3]` as a task and an index.
pub(crate) fn instance(text: &str) -> (&str, Option<u32>) {
    let indexed = text.strip_suffix(']').and_then(|inner| inner.rsplit_once('['));
    match indexed.map(|(task, index)| (task, index.parse())) {
        Some((task, Ok(index))) => (task, Some(index)),
        Some((_, Err(_))) | None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn instances_are_read() {
        assert_eq!(instance("load"), ("load", None));
        assert_eq!(instance("load[3]"), ("load", Some(3)));
        assert_eq!(instance("load[x]"), ("load[x]", None));
    }
}
