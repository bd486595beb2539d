//! `shell`: a command for `sh -c`. Its last line of output is the result, as Airflow's BashOperator has it.

use super::{Attempt, Outcome, process};
use crate::failure::of_template;
use backstop_project::definition::Shell;
use serde_json::Value as Json;
use tokio::process::Command;

/// Runs the command.
pub(crate) async fn run(attempt: &mut Attempt, shell: &Shell) -> Outcome {
    if let Some(outcome) = attempt.dry_run_note("a shell command").await {
        return outcome;
    }
    let shared = attempt.shared.clone();
    let text = match shared.renderer.render(&shell.command, &attempt.context) {
        Ok(text) => text,
        Err(error) => return Outcome::Failed(of_template(&error)),
    };
    let mut command = Command::new("sh");
    command.arg("-c").arg(&text);
    process::environment(attempt, &mut command);
    for (name, value) in &shell.env {
        match shared.renderer.render(value, &attempt.context) {
            Ok(value) => command.env(name, value),
            Err(error) => return Outcome::Failed(of_template(&error)),
        };
    }
    command.current_dir(match &shell.cwd {
        Some(folder) => shared.project.root.join(folder),
        None => shared.project.root.clone(),
    });
    if let Err(outcome) = attempt.wait_for_log().await {
        return outcome;
    }
    match process::run(attempt, command, None).await {
        Ok(ended) if ended.status.success() => match ended.last_line {
            Some(line) if !line.is_empty() => Outcome::with_result(&Json::String(line)),
            // A line that is too long to keep is no result; whoever asks for it is told that there is none.
            Some(_) | None => Outcome::done(),
        },
        Ok(ended) if ended.status.code() == Some(shell.skip_on_exit_code) => {
            Outcome::Skipped(format!("it ended with exit code {}", shell.skip_on_exit_code))
        }
        Ok(ended) => process::failed("the command", &ended),
        Err(outcome) => outcome,
    }
}
