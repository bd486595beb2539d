//! What other programs complete from: the JSON Schema for editors, and scripts for shells.

use crate::args::{Cli, CompletionsArgs, SchemaArgs, SchemaOf};
use crate::explain::{Exit, Problem};
use crate::output;
use clap::CommandFactory as _;

/// Prints the schema of a file.
pub(crate) fn schema(arguments: &SchemaArgs) -> Result<Exit, Problem> {
    let schema = match arguments.of {
        SchemaOf::Backstop => backstop_project::format::project_schema(),
        SchemaOf::Dag => backstop_project::format::dag_schema(),
    };
    output::json(&schema)?;
    Ok(Exit::Success)
}

/// Prints the description of the HTTP API.
pub(crate) fn openapi() -> Result<Exit, Problem> {
    output::data(&backstop_server::openapi::text())?;
    Ok(Exit::Success)
}

/// Prints a completion script.
pub(crate) fn completions(arguments: &CompletionsArgs) -> Result<Exit, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "backstop", &mut script);
    output::data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
