//! `python`: a file or a function in a subprocess. The context comes as JSON on standard input, the result goes back in a file.

use super::context::context_json;
use super::{Attempt, Outcome, process};
use crate::failure::{FailureExt, failure, of_template};
use backstop_core::event::FailureClass;
use backstop_project::definition::{Python, PythonCode};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use tokio::process::Command;

/// Calls the function with what it asks for, and writes what it returns.
const BOOTSTRAP: &str = include_str!("bootstrap.py");
/// Exit code for "skip", as for shell commands.
const SKIP_EXIT_CODE: i32 = 99;
/// Bytes of JSON that a result may take.
const RESULT_BYTES_MAX: u64 = 64 * 1024;

/// Removes the result's file when the attempt is over.
struct ResultFile(PathBuf);

impl Drop for ResultFile {
    fn drop(&mut self) {
        // It is there only when the function returned something.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs the Python.
pub(crate) async fn run(attempt: &mut Attempt, python: &Python) -> Outcome {
    if let Some(outcome) = attempt.dry_run_note("a Python task").await {
        return outcome;
    }
    let shared = attempt.shared.clone();
    let mut args = serde_json::Map::new();
    for (name, value) in &python.args {
        match shared.renderer.render_value(value, &attempt.source, &attempt.context) {
            Ok(value) => args.insert(name.clone(), value),
            Err(error) => return Outcome::Failed(of_template(&error)),
        };
    }
    let name = format!("{}-{}-{}.json", shared.header.run_id, attempt.instance, attempt.try_number);
    let file = ResultFile(shared.scratch.join(name.replace(['/', '[', ']'], "_")));
    // For its owner alone: what goes to and fro there may be secret.
    if let Err(error) = tokio::fs::DirBuilder::new().recursive(true).mode(0o700).create(&shared.scratch).await {
        let text = format!("make the folder {}: {error}", shared.scratch.display());
        return Outcome::Failed(failure(FailureClass::Permanent, text).effect("nothing was run"));
    }
    let (path, code) = match &python.code {
        PythonCode::File(path) => (Some(shared.project.root.join(path)), None),
        PythonCode::Inline(_, code) => (None, Some(code.clone())),
    };
    let order = json!({
        "context": context_json(&shared, &attempt.context),
        "args": args,
        "path": path,
        "code": code.as_deref(),
        "function": python.function,
        "result_path": file.0,
        "xcom": upstream_results(attempt),
    });
    let mut command = Command::new(&python.interpreter);
    command.arg("-c").arg(BOOTSTRAP).env("PYTHONUNBUFFERED", "1").current_dir(&shared.project.root);
    process::environment(attempt, &mut command);
    if let Err(outcome) = attempt.wait_for_log().await {
        return outcome;
    }
    match process::run(attempt, command, Some(order.to_string())).await {
        Ok(ended) if ended.status.success() => read_result(&file).await,
        Ok(ended) if ended.status.code() == Some(SKIP_EXIT_CODE) => Outcome::Skipped("it exited with 99".into()),
        Ok(ended) => process::failed("the Python", &ended),
        Err(outcome) => outcome,
    }
}

/// Results of the direct upstream tasks, by task id.
fn upstream_results(attempt: &Attempt) -> Json {
    let dag = &attempt.shared.definition.dag;
    let mut results = serde_json::Map::new();
    if let Some(place) = dag.index(attempt.instance.task.as_str()) {
        for upstream in &dag.task(place).upstream {
            let id = dag.task(*upstream).id.as_str();
            if let Some(result) = attempt.shared.results.get(id, None) {
                results.insert(id.to_owned(), result);
            }
        }
    }
    Json::Object(results)
}

async fn read_result(file: &ResultFile) -> Outcome {
    let lost = |why: String| {
        Outcome::Failed(
            failure(FailureClass::Final, format!("read what the function returned: {why}"))
                .effect("what the function did is not undone by Backstop"),
        )
    };
    let size = match tokio::fs::metadata(&file.0).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Outcome::done(),
        Err(error) => return lost(error.to_string()),
    };
    if size > RESULT_BYTES_MAX {
        return Outcome::Failed(
            failure(
                FailureClass::Final,
                format!("the function returned {size} bytes of JSON; at most {RESULT_BYTES_MAX} are kept"),
            )
            .effect("what the function did is not undone by Backstop")
            .hint("write large data to a file or a table and return its name"),
        );
    }
    match tokio::fs::read_to_string(&file.0).await.map_err(|error| error.to_string()) {
        Ok(text) => match serde_json::from_str::<Json>(&text) {
            Ok(Json::Null) => Outcome::done(),
            Ok(value) => Outcome::with_result(&value),
            Err(error) => lost(error.to_string()),
        },
        Err(error) => lost(error),
    }
}
