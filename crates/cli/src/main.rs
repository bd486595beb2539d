//! The `backstop` binary: the composition root. It reads arguments, wires the rooms together, and shows what comes of it.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 success, 1 the run failed, 2 a mistake in the project or
//! in the arguments, 3 stuck or in doubt, 130 interrupted.
//!
//! Where to go next: `args` for the command line, `run` for running, `explain` for how errors leave, `wire` for what machines read.

mod account;
mod args;
mod backfill;
mod check;
mod connections;
mod dags;
mod explain;
mod graph;
mod init;
mod logs;
mod markers;
mod masks;
mod narrate;
mod output;
mod paths;
mod progress;
mod render;
mod run;
mod runs;
mod schema;
mod service;
mod settings;
mod sources;
mod steer;
mod store;
mod trigger;
mod up;
mod versions;
mod wire;
mod words;

use args::{Cli, Command, RunsOrSteer};
use clap::Parser as _;
use explain::{Exit, Problem};
use std::process::ExitCode;

/// Many small things live for the length of a run: the system's allocator spends a fifth of a busy service's time on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let exit = match dispatch(cli) {
        Ok(exit) => exit,
        Err(problem) => {
            explain::print(&problem);
            problem.exit
        }
    };
    ExitCode::from(exit.code())
}

fn dispatch(cli: Cli) -> Result<Exit, Problem> {
    let place = cli.place;
    if place.projects.len() > 1 && !matches!(cli.command, Command::Up(_)) {
        return Err(Problem::usage("this command is about one project: name one with --project"));
    }
    match cli.command {
        Command::Run(arguments) => run::run(arguments, &place),
        Command::Up(arguments) => up::up(&arguments, &place),
        Command::Trigger(arguments) => trigger::trigger(&arguments, &place),
        Command::Dags(command) => dags::dags(command, &place),
        Command::Backfill(arguments) => backfill::backfill(&arguments, &place),
        Command::Backfills(command) => backfill::backfills(command, &place),
        Command::Check(arguments) => check::check(&arguments, &place),
        Command::Init(arguments) => init::init(&arguments),
        Command::Runs(RunsOrSteer::Look(arguments)) => runs::runs(arguments, &place),
        Command::Runs(RunsOrSteer::Steer(arguments)) => steer::steer(arguments, &place),
        Command::Logs(arguments) => logs::logs(&arguments, &place),
        Command::Connections(arguments) => connections::connections(arguments, &place),
        Command::Variables(command) => settings::variables(command, &place),
        Command::Pools(command) => settings::pools(command, &place),
        Command::Markers(command) => markers::markers(command, &place),
        Command::Store(command) => store::store(command, &place),
        Command::Versions(arguments) => versions::versions(&arguments, &place),
        Command::Render(arguments) => render::render(&arguments, &place),
        Command::Graph(arguments) => graph::graph(&arguments, &place),
        Command::Schema(arguments) => schema::schema(&arguments),
        Command::Openapi => schema::openapi(),
        Command::Completions(arguments) => schema::completions(&arguments),
    }
}
