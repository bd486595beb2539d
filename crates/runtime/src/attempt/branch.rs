//! `branch`: which of the direct downstream tasks to follow, as SQL, a template or Python decides.

use super::{Attempt, Outcome, python, query};
use crate::failure::{FailureExt, failure};
use backstop_core::TaskId;
use backstop_core::event::FailureClass;
use backstop_project::definition::{Branch, BranchBy};
use serde_json::Value as Json;

/// Decides, and says which of its downstream tasks to follow.
pub(crate) async fn run(attempt: &mut Attempt, branch: &Branch) -> Outcome {
    let decided = match &branch.decide {
        BranchBy::Sql { sql, parameters } => match query::rows(attempt, None, sql, parameters, 1).await {
            Ok(rows) => match query::branch_truth(&rows) {
                Ok(truth) => Json::Bool(truth),
                Err(failure) => return Outcome::Failed(failure),
            },
            Err(outcome) => return outcome,
        },
        BranchBy::When(template) => {
            let value = Json::String(template.text.to_string());
            match attempt.shared.renderer.render_value(&value, &template.source, &attempt.context) {
                Ok(value) => value,
                Err(error) => return Outcome::Failed(crate::failure::of_template(&error)),
            }
        }
        BranchBy::Python(python) => match python::run(attempt, python).await {
            Outcome::Succeeded { result, .. } => result.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Json::Null),
            other => return other,
        },
    };
    match follow(branch, &decided) {
        Ok(follow) => {
            let names = follow.iter().map(TaskId::as_str).collect::<Vec<_>>().join(", ");
            attempt.log.line(attempt.shared.clock.now(), "INFO", &format!("follows: {names}")).await;
            Outcome::Succeeded { result: Some(decided.to_string().into()), follow: Some(follow) }
        }
        Err(message) => Outcome::Failed(
            failure(FailureClass::Permanent, message)
                .effect("nothing was changed")
                .hint("a branch must give true or false, the id of a direct downstream task, or a list of such ids"),
        ),
    }
}

/// The tasks to follow: truth values choose between the two lists; texts name the tasks themselves.
fn follow(branch: &Branch, decided: &Json) -> Result<Vec<TaskId>, String> {
    let ids = |names: &[String]| names.iter().map(|name| TaskId::new(name.as_str())).collect();
    match decided {
        Json::Bool(true) => Ok(ids(&branch.if_true)),
        Json::Bool(false) => Ok(ids(&branch.if_false)),
        Json::Null => Ok(Vec::new()),
        Json::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(ids(&branch.if_true)),
            "false" => Ok(ids(&branch.if_false)),
            "" | "none" => Ok(Vec::new()),
            _ => Ok(vec![TaskId::new(text.trim())]),
        },
        Json::Array(items) => items
            .iter()
            .map(|item| match item {
                Json::String(text) => Ok(TaskId::new(text.as_str())),
                other => Err(format!("the branch gave {other} where a task id was expected")),
            })
            .collect(),
        other => Err(format!("the branch gave {other}")),
    }
}
