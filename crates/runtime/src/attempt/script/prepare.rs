//! From a template to statements, values and segments that are ready to be sent.

use crate::attempt::Shared;
use crate::attempt::results::to_parameter;
use crate::failure::{FailureExt, failure, of_parameter, of_template};
use crate::places;
use backstop_connect::script::{self, Segment, Statement};
use backstop_connect::{Dialect, Value};
use backstop_core::event::{Failure, FailureClass, SegmentCommit};
use backstop_project::context::Context;
use backstop_project::definition::{Sql, Template};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Scripts larger than this are split on a thread of their own, so that the engine's is not held.
const SPLIT_INLINE_BYTES_MAX: usize = 256 * 1024;
/// Tries before this one, the latest, whose values are compared with what committed.
const TRIES_COMPARED_MAX: u32 = 100;

/// A script that is ready to be sent.
pub(crate) struct Prepared {
    pub(super) text: Arc<str>,
    pub(super) statements: Vec<Statement>,
    /// Line n of the text is line n of the source.
    pub(super) is_traced: bool,
    /// In the database's notation, with the values to bind.
    pub(super) calls: Vec<(String, Vec<Value>)>,
    /// In order.
    pub(crate) segments: Vec<Segment>,
    /// One a segment.
    pub(crate) digests: Vec<String>,
}

/// Renders, splits, plans and binds a script.
pub(crate) async fn prepare(shared: &Shared, sql: &Sql, context: &Context, dialect: Dialect) -> Result<Prepared, Failure> {
    let text: Arc<str> = if sql.templated {
        shared.renderer.render(&sql.script, context).map_err(|error| of_template(&error))?.into()
    } else {
        sql.script.text.clone()
    };
    let autocommit = sql.autocommit;
    let cut = {
        let text = text.clone();
        move || {
            let statements = script::split(dialect, &text)?;
            let segments = script::plan(dialect, &text, &statements, autocommit)?;
            Ok::<_, script::SplitError>((statements, segments))
        }
    };
    let cut = if text.len() > SPLIT_INLINE_BYTES_MAX {
        tokio::task::spawn_blocking(cut).await.map_err(|_| failure(FailureClass::Final, "split the script: it panicked"))?
    } else {
        cut()
    };
    let of_split = |error: script::SplitError| {
        let mut told = failure(FailureClass::Permanent, format!("read the script: {}", error.what))
            .place(Some(places::in_source(&sql.script, &text, error.line, error.column, None)))
            .effect("nothing was sent");
        told.hint = error.hint;
        told
    };
    let (statements, segments) = cut.map_err(of_split)?;
    let parameters = render_parameters(shared, sql, context)?;
    let mut calls = Vec::with_capacity(statements.len());
    let mut used = BTreeSet::new();
    for statement in &statements {
        let (sql, names, values) = bind_named(dialect, &text, statement, &parameters).map_err(of_split)?;
        used.extend(names);
        calls.push((sql, values));
    }
    if let Some((unused, _)) = parameters.iter().find(|(name, _)| !used.contains(name)) {
        return Err(failure(FailureClass::Permanent, format!("no statement uses the parameter `{unused}`"))
            .place(Some(places::in_source(&sql.script, &text, 1, 1, None)))
            .effect("nothing was sent")
            .hint(format!("write `:{unused}` where its value belongs, outside of quotes, or remove it from `parameters`")));
    }
    let digests = segments
        .iter()
        .map(|segment| {
            script::digest(segment.statements.clone().map(|place| {
                let copied = statements[place].copy_data.clone().map(|range| &text[range]);
                (calls[place].0.as_str(), calls[place].1.as_slice(), copied)
            }))
        })
        .collect();
    let is_traced = places::is_traced(&sql.script, &text);
    Ok(Prepared { text, statements, is_traced, calls, segments, digests })
}

fn render_parameters(shared: &Shared, sql: &Sql, context: &Context) -> Result<Vec<(String, Value)>, Failure> {
    let mut parameters = Vec::with_capacity(sql.parameters.len());
    for (name, value) in &sql.parameters {
        let value = shared.renderer.render_value(value, &sql.script.source, context).map_err(|error| {
            let owner = places::owner_of_script(&shared.definition, &context.task_id, &sql.script);
            let place = owner.and_then(|owner| places::of_parameter(&shared.definition, owner, &[], name));
            of_parameter(&error, name, place)
        })?;
        parameters.push((name.clone(), to_parameter(&value)));
    }
    Ok(parameters)
}

/// Puts named values into the database's notation. The place of an error is one of the text.
pub(crate) fn bind(
    dialect: Dialect,
    text: &str,
    statement: &Statement,
    parameters: &[(String, Value)],
) -> Result<(String, Vec<Value>), script::SplitError> {
    bind_named(dialect, text, statement, parameters).map(|(sql, _, values)| (sql, values))
}

/// As [`bind`], with the names that were found.
fn bind_named(
    dialect: Dialect,
    text: &str,
    statement: &Statement,
    parameters: &[(String, Value)],
) -> Result<(String, Vec<String>, Vec<Value>), script::SplitError> {
    let sql = &text[statement.text.clone()];
    let find = |name: &str| parameters.iter().find(|(known, _)| known == name);
    if let Some(first) = script::unbound(dialect, text, statement, &|name| find(name).is_some())?.into_iter().next() {
        let known: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        return Err(first.into_error(&known));
    }
    if parameters.is_empty() {
        return Ok((sql.to_owned(), Vec::new(), Vec::new()));
    }
    let bound = script::bind_names(dialect, sql, &|name| find(name).is_some()).map_err(|mut error| {
        // Its place is within the statement.
        error.column += if error.line == 1 { statement.column - 1 } else { 0 };
        error.line += statement.line - 1;
        error.offset += statement.text.start;
        error
    })?;
    let values = bound.names.iter().filter_map(|name| find(name)).map(|(_, value)| value.clone()).collect();
    Ok((bound.sql, bound.names, values))
}

/// What committed under earlier tries must be what the script says now. Values may differ where they tell which try it is
/// (`ti.try_number`): then what committed must be what the script said in one of the tries before.
pub(crate) async fn check_prefix(
    shared: &Shared,
    sql: &Sql,
    context: &Context,
    dialect: Dialect,
    committed: &[Arc<SegmentCommit>],
    prepared: &Prepared,
) -> Result<(), Failure> {
    let is_as_told = |commit: &SegmentCommit, prepared: &Prepared| {
        prepared.digests.get(commit.segment as usize).is_some_and(|digest| *digest == commit.digest)
    };
    let mut other: Vec<&Arc<SegmentCommit>> = committed.iter().filter(|commit| !is_as_told(commit, prepared)).collect();
    let Some(first) = other.first().map(|commit| commit.segment as usize) else { return Ok(()) };
    let oldest = context.try_number.saturating_sub(TRIES_COMPARED_MAX).max(1);
    for try_number in (oldest..context.try_number).rev() {
        let before = Context { try_number, ..context.clone() };
        if let Ok(before) = prepare(shared, sql, &before, dialect).await {
            other.retain(|commit| !is_as_told(commit, &before));
        }
        if other.is_empty() {
            return Ok(());
        }
    }
    Err(changed(first, committed.len(), prepared, &sql.script))
}

fn changed(number: usize, committed: usize, prepared: &Prepared, script: &Template) -> Failure {
    let place = prepared.segments.get(number).map(|segment| {
        let first = &prepared.statements[segment.statements.start.min(prepared.statements.len() - 1)];
        places::in_source(script, &prepared.text, first.line, first.column, Some(first.number))
    });
    failure(FailureClass::Interrupted, format!("the script has changed since its segment {} was committed", number + 1))
        .place(place)
        .effect(format!("{committed} segments are committed and stay; nothing else was sent"))
        .hint(
            "restore the committed part of the script (segments behind it may change) and resume the run; or undo by hand what was \
             committed, resume with `--resolve`, and start a new run",
        )
}

/// Places of a segment's statements, those with a count as often as it says.
pub(super) fn repeated(prepared: &Prepared, segment: &Segment) -> Vec<usize> {
    segment
        .statements
        .clone()
        .flat_map(|place| std::iter::repeat_n(place, prepared.statements[place].repeat.max(1) as usize))
        .collect()
}
