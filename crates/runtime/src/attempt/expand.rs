//! The items of a mapped task.

use super::{Attempt, Outcome, query};
use crate::failure::{FailureExt, failure, of_template};
use backstop_core::event::FailureClass;
use backstop_project::definition::ForEach;
use serde_json::Value as Json;
use std::sync::Arc;

/// Finds the items.
pub(crate) async fn run(attempt: &mut Attempt, for_each: &ForEach) -> Outcome {
    let items = match for_each {
        ForEach::List(items, source) => {
            let list = Json::Array(items.clone());
            match attempt.shared.renderer.render_value(&list, source, &attempt.context) {
                Ok(list) => list,
                Err(error) => return Outcome::Failed(of_template(&error)),
            }
        }
        ForEach::Expression(template) => {
            let text = Json::String(template.text.to_string());
            match attempt.shared.renderer.render_value(&text, &template.source, &attempt.context) {
                Ok(value) => value,
                Err(error) => return Outcome::Failed(of_template(&error)),
            }
        }
        ForEach::Rows { sql, connection, parameters } => {
            let limit = attempt.shared.definition.dag.map_length_max() as usize;
            match query::rows(attempt, Some(connection), sql, parameters, limit.max(2)).await {
                Ok(rows) => Json::Array(rows.objects().collect()),
                Err(outcome) => return outcome,
            }
        }
    };
    expanded(attempt, items)
}

fn expanded(attempt: &Attempt, items: Json) -> Outcome {
    let items = match items {
        Json::Array(items) => items,
        Json::Object(map) => map.into_iter().map(|(key, value)| serde_json::json!({ "key": key, "value": value })).collect(),
        // A text that was made by a template may itself be a JSON list.
        Json::String(text) => match serde_json::from_str(&text) {
            Ok(Json::Array(items)) => items,
            _ => return not_a_list("a text"),
        },
        Json::Null => return not_a_list("nothing"),
        Json::Bool(_) | Json::Number(_) => return not_a_list("a single value"),
    };
    let limit = attempt.shared.definition.dag.map_length_max() as usize;
    if items.len() > limit {
        return Outcome::Failed(
            failure(FailureClass::Final, format!("`for_each` gave {} items; at most {limit} are allowed", items.len()))
                .effect("nothing was changed")
                .hint("raise `max_map_length` of the DAG, or let the database do the loop"),
        );
    }
    Outcome::Expanded(items.iter().map(|item| Arc::from(item.to_string())).collect())
}

fn not_a_list(what: &str) -> Outcome {
    Outcome::Failed(
        failure(FailureClass::Permanent, format!("`for_each` gave {what} where a list was expected"))
            .effect("nothing was changed")
            .hint("give a list, or a template that renders to one, such as `{{ params.regions }}`"),
    )
}
