//! `backstop trigger --each FILE`: a run for each line. The whole file is read and understood before anything is asked for.
//!
//! The id of a line's run follows from the name of the batch and the line, so that the same file can be sent again when an answer was lost.

use super::{TriggerArgs, body};
use crate::explain::{Exit, Problem};
use crate::service::{Service, part};
use crate::{output, paths};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// Runs that are asked for in one request.
const RUNS_A_REQUEST: usize = 250;
/// Bytes of one request at most; the service takes 1 MiB.
const REQUEST_BYTES_MAX: usize = 768 * 1024;
/// Bytes of a file that are read at most.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Of the ids of runs by batch and line.
const NAMESPACE: uuid::Uuid = uuid::Uuid::from_u128(0x2b6f_41c8_07d3_4c52_9a1e_55f0_7c3e_8d94);
/// Refusals that are told one by one.
const TOLD_MAX: usize = 20;

/// Asks for the runs, in the order of the lines.
pub(super) async fn trigger(arguments: &TriggerArgs, file: &Path, service: &Service, flags: &str) -> Result<Exit, Problem> {
    let common = body(arguments, service).await?;
    let batch = arguments.batch.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let runs = runs(file, &common, |line| run_id(&arguments.dag, &batch, line))?;
    let path = format!("/api/v1/dags/{}/runs/batch", part(&arguments.dag));
    let (mut items, mut from) = (Vec::with_capacity(runs.len()), 0);
    while from < runs.len() {
        let until = until(&runs, from);
        let wanted: Vec<&Value> = runs[from..until].iter().map(|(_, run)| run).collect();
        let asked = service.post(&path, &json!({ "runs": wanted })).await;
        match asked {
            Ok(asked) => items.extend(asked["items"].as_array().cloned().unwrap_or_default()),
            Err(problem) => {
                told(arguments, items)?;
                return Err(interrupted(problem, (&runs, from, until), &batch));
            }
        }
        from = until;
    }
    let refused: Vec<_> = runs.iter().zip(&items).filter(|(_, item)| item["refused"].is_object()).collect();
    for ((line, _), item) in refused.iter().take(TOLD_MAX) {
        output::warn(&format!("line {line}: {}", item["refused"]["detail"].as_str().unwrap_or_default()));
    }
    let (refused, made) = (refused.len(), items.len() - refused.len());
    told(arguments, items)?;
    if refused > 0 {
        return Err(Problem::usage(format!("{refused} of {} runs were refused, and {made} are made", runs.len()))
            .hint(format!("mend those lines, and send the file again {}", again(&batch))));
    }
    output::note(&format!("{made} runs are made; look on with: backstop runs list{flags}"));
    Ok(Exit::Success)
}

/// What was made, as far as the service has answered.
fn told(arguments: &TriggerArgs, items: Vec<Value>) -> Result<(), Problem> {
    if arguments.json {
        return output::data(&format!("{:#}\n", Value::from(items)));
    }
    let ids: String = items.iter().filter_map(|item| item["run_id"].as_str()).map(|id| format!("{id}\n")).collect();
    output::data(&ids)
}

fn run_id(dag: &str, batch: &str, line: usize) -> String {
    uuid::Uuid::new_v5(&NAMESPACE, format!("{dag}\n{batch}\n{line}").as_bytes()).to_string()
}

fn again(batch: &str) -> String {
    format!("with --batch {}: no line's run is made twice", paths::shell_word(batch))
}

/// The lines that go into one request, from one on.
fn until(runs: &[(usize, Value)], from: usize) -> usize {
    let mut bytes = 0;
    let fits = |(_, run): &&(usize, Value)| {
        bytes += run.to_string().len() + 1;
        bytes <= REQUEST_BYTES_MAX
    };
    // One that is too large by itself is for the service to refuse.
    from + runs[from..].iter().take(RUNS_A_REQUEST).take_while(fits).count().max(1)
}

/// Each with its line, from 1.
fn runs(file: &Path, common: &Value, id: impl Fn(usize) -> String) -> Result<Vec<(usize, Value)>, Problem> {
    let text = read(file)?;
    let of_line = |(number, line): (usize, &str)| {
        let wrong = |what: String| {
            let place = format!("{} line {number}", file.display());
            Problem::usage(format!("{place}: {what}"))
                .hint("a line is a JSON object of parameters: {\"customer\": 7}; nothing was asked for")
        };
        let given: Map<String, Value> = match serde_json::from_str(line) {
            Ok(Value::Object(given)) => given,
            Ok(_) => return Err(wrong("it is no JSON object".into())),
            Err(error) => return Err(wrong(format!("it is no JSON: {error}"))),
        };
        let mut run = common.clone();
        for (name, value) in given {
            run["params"][name] = value;
        }
        run["run_id"] = json!(id(number));
        Ok((number, run))
    };
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let runs = lines.map(of_line).collect::<Result<Vec<_>, _>>()?;
    if runs.is_empty() {
        return Err(Problem::usage(format!("{} has no lines", file.display())).hint("a line is a JSON object of parameters"));
    }
    Ok(runs)
}

fn read(file: &Path) -> Result<String, Problem> {
    let reading = || format!("read {}", file.display());
    let source: Box<dyn Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        Some(_) | None => Box::new(std::fs::File::open(file).map_err(|error| Problem::system(reading(), &error))?),
    };
    let mut text = String::new();
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| Problem::system(reading(), &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::usage(format!("{} has more than {} MiB", file.display(), FILE_BYTES_MAX >> 20)).hint("split it"));
    }
    Ok(text)
}

/// A refusal, or no answer, says which lines it is about and what became of the others.
fn interrupted(problem: Problem, (runs, from, until): (&[(usize, Value)], usize, usize), batch: &str) -> Problem {
    let (first, last) = (runs[from].0, runs[until - 1].0);
    let problem = problem.cause(format!("this is about lines {first} to {last}"));
    let problem = match from {
        0 => problem,
        _ => problem.cause(format!("lines {} to {} were answered before", runs[0].0, runs[from - 1].0)),
    };
    problem.hint(format!("send the file again {}", again(batch)))
}
