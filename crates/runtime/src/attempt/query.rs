//! Small questions to a database: checks, branches, sensors and lists to map over. They run read-only, enforced by the server.

use super::results::{object, to_parameter};
use super::script::{bind, kill, stopped};
use super::stop::Stopper;
use super::transaction::Open;
use super::{Attempt, Outcome, Work};
use crate::failure::{FailureExt, failure, of_database, of_parameter, of_template};
use crate::monitor::{Onlooker, Ticket};
use crate::places;
use crate::sessions::Purpose;
use backstop_connect::script::{self, Statement, Verb};
use backstop_connect::session::{Call, StatementOutcome, Wrap};
use backstop_connect::{Column, Dialect, Observer, Unit, UnitError, Value};
use backstop_core::event::{Failure, FailureClass, Place};
use backstop_project::definition::{Parameters, Template};
use serde_json::Value as Json;
use std::sync::Arc;

/// Bytes of values that a question may be answered with.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
const ONLY_READ: &str = "checks, branches, sensors and lists may only read; put what writes into a `sql` task";
/// How long a server that shall stop a question is waited for.
pub(super) const CANCEL_MAX: std::time::Duration = std::time::Duration::from_secs(5);

/// The rows of a question's last statement.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
    bytes: usize,
    rows_max: usize,
    /// Where it is told what runs, and the statements in words.
    at_work: Option<(Arc<Ticket>, Vec<String>, Onlooker)>,
}

impl Rows {
    /// The first value of the first row.
    pub(crate) fn first(&self) -> Option<&Value> {
        self.rows.first().and_then(|row| row.first())
    }

    /// The rows as objects by column name.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Json> + '_ {
        self.rows.iter().map(|row| object(&self.columns, row))
    }
}

impl Observer for Rows {
    fn started(&mut self, place: usize) {
        if let Some((ticket, summaries, onlooker)) = &self.at_work {
            let number = u32::try_from(place).unwrap_or(u32::MAX).saturating_add(1);
            ticket.started(number, summaries.get(place).cloned().unwrap_or_default(), onlooker.clone());
        }
    }

    fn finished(&mut self, _place: usize, _outcome: &StatementOutcome) {
        if let Some((ticket, ..)) = &self.at_work {
            ticket.ended();
        }
    }

    fn columns(&mut self, _place: usize, columns: &[Column]) {
        self.columns = columns.iter().map(|column| column.name.clone()).collect();
        self.rows.clear();
        self.bytes = 0;
    }

    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        if self.rows.len() >= self.rows_max {
            return if self.rows_max == 1 { Ok(()) } else { Err(format!("the query gave more than {} rows", self.rows_max)) };
        }
        self.bytes += row.iter().map(size).sum::<usize>();
        if self.bytes > ANSWER_BYTES_MAX {
            return Err(format!("the query's answer passed {ANSWER_BYTES_MAX} bytes"));
        }
        self.rows.push(row.to_vec());
        Ok(())
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 8,
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    }
}

/// Asks a question on the task's connection, or on the one named. With `rows_max` 1 further rows are ignored.
pub(crate) async fn rows(
    attempt: &mut Attempt,
    connection: Option<&str>,
    sql: &Template,
    parameters: &Parameters,
    rows_max: usize,
) -> Result<Rows, Outcome> {
    let text = match attempt.shared.renderer.render(sql, &attempt.context) {
        Ok(text) => text,
        Err(error) => return Err(Outcome::Failed(of_template(&error))),
    };
    let mut values = Vec::with_capacity(parameters.len());
    for (name, value) in parameters {
        match attempt.shared.renderer.render_value(value, &sql.source, &attempt.context) {
            Ok(value) => values.push((name.clone(), to_parameter(&value))),
            Err(error) => return Err(Outcome::Failed(of_parameter(&error, name, place_of_parameter(attempt, name)))),
        }
    }
    text_rows(attempt, connection, sql, &text, &values, rows_max).await
}

fn place_of_parameter(attempt: &Attempt, name: &str) -> Option<Place> {
    let definition = &attempt.shared.definition;
    let (body, under) = match attempt.work {
        Work::Body(place) => definition.bodies.get(place).map(|body| (body, body.kind.name()))?,
        Work::Expand(place) => (definition.bodies.get(place)?, "for_each"),
        // They ask nothing.
        Work::Callback(..) => return None,
    };
    places::of_parameter(definition, &body.source, &[under], name)
}

/// Asks a question whose text is ready; `template` is where it comes from.
pub(crate) async fn text_rows(
    attempt: &mut Attempt,
    connection: Option<&str>,
    template: &Template,
    text: &str,
    parameters: &[(String, Value)],
    rows_max: usize,
) -> Result<Rows, Outcome> {
    let Some(connection) = connection.map(str::to_owned).or_else(|| attempt.connection.clone()) else {
        return Err(Outcome::Failed(failure(FailureClass::Final, "this task has no connection").effect("nothing was sent")));
    };
    let failed = |error: &backstop_connect::Error| Outcome::Failed(of_database(error).effect("nothing was changed"));
    let (dialect, _) = attempt.shared.sessions.dialect(&connection).await.map_err(|error| failed(&error))?;
    let of_split = |error: script::SplitError| {
        let place = places::in_source(template, text, error.line, error.column, None);
        let told = failure(FailureClass::Permanent, format!("read the query: {}", error.what));
        let told = told.place(Some(place)).effect("nothing was sent");
        Outcome::Failed(Failure { hint: error.hint, ..told })
    };
    let statements = script::split(dialect, text).map_err(of_split)?;
    may_run(template, text, &statements)?;
    let bound = statements
        .iter()
        .map(|statement| bind(dialect, text, statement, parameters))
        .collect::<Result<Vec<_>, _>>()
        .map_err(of_split)?;
    let calls: Vec<Call<'_>> = bound.iter().map(|(sql, values)| Call { sql, parameters: values, copy_data: None }).collect();
    let mut stopper = attempt.stopper.clone();
    if let Some(open) = attempt.open() {
        let may_end = |call: &Call<'_>| script::may_end_transaction_inside(call.sql);
        open.may_be_ended_inside |= dialect == Dialect::MySql && calls.iter().any(may_end);
        let mut answer = Rows { rows_max, ..Rows::default() };
        let asked = ask_within(open, &calls, &mut answer, &mut stopper).await?;
        return match asked {
            Ok(()) => Ok(answer),
            Err((place, error)) => {
                let failed = UnitError::RolledBack { place: Some(place), error };
                Err(Outcome::Failed(of_question(failed, template, text, &statements)))
            }
        };
    }
    let (sessions, user) = (attempt.shared.sessions.clone(), attempt.user());
    let is_callback = matches!(attempt.work, Work::Callback(..));
    let lease = attempt.stopper.wait_for(is_callback, async {
        match is_callback {
            false => sessions.get_for_attempt(&connection, Purpose::Read, user).await,
            true => sessions.get(&connection, Purpose::Read, user).await,
        }
    });
    let lease = lease.await.map_err(|reason| stopped(&reason, "nothing was sent"))?;
    let mut lease = lease.map_err(|error| failed(&error))?;
    let mut stopper = attempt.stopper.clone();
    let unit = Unit { calls: &calls, begin: None, wrap: Wrap::ReadOnly, keeps_result: false };
    let in_words = |statement: &Statement| {
        let summary = script::summary(&text[statement.text.clone()]);
        attempt.shared.redactor.clean_sql(&summary)
    };
    let onlooker = Onlooker { watcher: attempt.shared.watcher.clone(), mailbox: None };
    let at_work = Some((lease.ticket(), statements.iter().map(in_words).collect(), onlooker));
    let mut answer = Rows { rows_max, at_work, ..Rows::default() };
    let ended = loop {
        let canceller = lease.canceller();
        let ended = tokio::select! {
            biased;
            ended = lease.session().run_unit(&unit, &mut answer) => ended,
            reason = stopper.wait() => {
                // Nothing can have been changed: the session is dropped while the server is told to stop.
                let _ = tokio::time::timeout(CANCEL_MAX, canceller.cancel()).await;
                return Err(stopped(&reason, "nothing was changed"));
            }
        };
        let is_renewed = matches!(ended, Err(UnitError::NotBegun { .. }))
            && tokio::select! {
                biased;
                is_renewed = lease.renew() => is_renewed,
                _ = stopper.wait() => false,
            };
        if !is_renewed {
            break ended;
        }
    };
    answer.at_work = None;
    lease.give_back().await;
    match ended {
        Ok(_) => Ok(answer),
        Err(error) => Err(Outcome::Failed(of_question(error, template, text, &statements))),
    }
}

/// A question in a transaction that goes on: it sees what was done in it, and what it should write itself is undone again.
async fn ask_within(
    open: &mut Open,
    calls: &[Call<'_>],
    answer: &mut Rows,
    stopper: &mut Stopper,
) -> Result<Result<(), (usize, backstop_connect::Error)>, Outcome> {
    const SAVEPOINT: &str = "backstop_question";
    let canceller = open.lease.canceller();
    let (asked, reason) = {
        let session = open.lease.session();
        let asking = async {
            session.savepoint(SAVEPOINT).await.map_err(|error| (0, error))?;
            for (place, call) in calls.iter().enumerate() {
                session.execute(call, place, answer).await.map_err(|error| (place, error))?;
            }
            session.rollback_to(SAVEPOINT).await.map_err(|error| (calls.len().saturating_sub(1), error))
        };
        tokio::pin!(asking);
        tokio::select! {
            biased;
            asked = &mut asking => (Some(asked), None),
            reason = stopper.wait() => (kill(&mut asking, &*canceller).await, Some(reason)),
        }
    };
    if let Some(Err((_, error))) = &asked {
        open.note(error);
    }
    open.is_lost |= asked.is_none();
    match (asked, reason) {
        (Some(asked @ Ok(())), _) | (Some(asked), None) => Ok(asked),
        (_, Some(reason)) => Err(stopped(&reason, "nothing was changed")),
        (None, None) => Err(Outcome::Failed(failure(FailureClass::Permanent, "the question was given up"))),
    }
}

/// A question runs in a transaction that only reads, which its own words must not end. The server refuses what else writes.
fn may_run(template: &Template, text: &str, statements: &[Statement]) -> Result<(), Outcome> {
    for statement in statements {
        let what = match statement.verb {
            Verb::Read | Verb::Write | Verb::Session | Verb::Savepoint | Verb::NoTransaction => continue,
            Verb::Define | Verb::ImplicitCommit => "the query changes definitions, or commits by itself",
            Verb::Begin | Verb::Commit | Verb::Rollback => {
                "the query begins or ends a transaction, and it runs in one that only reads"
            }
        };
        let place = places::in_source(template, text, statement.line, statement.column, Some(statement.number));
        let told = failure(FailureClass::Final, what).place(Some(place)).effect("nothing was sent").hint(ONLY_READ);
        return Err(Outcome::Failed(told));
    }
    Ok(())
}

fn of_question(error: UnitError, template: &Template, text: &str, statements: &[Statement]) -> Failure {
    let (place, error) = match error {
        UnitError::Writes => {
            return failure(FailureClass::Final, "the query writes")
                .place(Some(places::in_source(template, text, 1, 1, None)))
                .effect("nothing was changed: it ran in a read-only transaction")
                .hint(ONLY_READ);
        }
        UnitError::Fenced => return failure(FailureClass::Interrupted, "fenced off").effect("nothing was changed"),
        UnitError::RolledBack { place, error } | UnitError::EndedInside { place, error } => (place, error),
        UnitError::Partial { place, error } => (Some(place), error),
        UnitError::NotBegun { error } | UnitError::NoMarkerTable { error, .. } | UnitError::Unknown { error } => (None, error),
    };
    let mut told = of_database(&error).effect("nothing was changed");
    if let Some(statement) = place.and_then(|place| statements.get(place)) {
        let (line, column) = match error.position {
            Some(position) => script::statement_position_to_source(text, statement, position),
            None => (statement.line, statement.column),
        };
        told.place = Some(places::in_source(template, text, line, column, Some(statement.number)));
    }
    told
}

/// Airflow's SqlSensor reading of a value: false when there is none, or it is NULL, 0, '0' or ''.
pub(crate) fn first_value_is_true(rows: &Rows) -> bool {
    rows.first().is_some_and(is_true)
}

/// Python's reading of truth, with '0' and '' false as Airflow's SQL operators have it.
pub(crate) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Int(number) => *number != 0,
        Value::UInt(number) => *number != 0,
        Value::Float(number) => *number != 0.0,
        Value::Decimal(text) => text.parse::<f64>().map_or(!text.is_empty(), |number| number != 0.0),
        Value::Text(text) | Value::Json(text) => !text.is_empty() && text != "0",
        Value::Bytes(bytes) => !bytes.is_empty(),
    }
}

/// The number a value stands for.
pub(crate) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::UInt(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Decimal(text) | Value::Text(text) => text.trim().parse().ok(),
        Value::Null | Value::Bytes(_) | Value::Json(_) => None,
    }
}

/// Airflow's BranchSQLOperator: booleans, numbers, and the words it knows.
pub(crate) fn branch_truth(rows: &Rows) -> Result<bool, Failure> {
    let Some(value) = rows.first() else {
        return Err(failure(FailureClass::Permanent, "the branch's query gave no row")
            .effect("nothing was changed")
            .hint("it must give one row with one value that is true or false"));
    };
    match value {
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Decimal(_) => Ok(is_true(value)),
        Value::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "y" | "yes" | "1" | "on" | "t" => Ok(true),
            "false" | "n" | "no" | "0" | "off" | "f" => Ok(false),
            other => Err(failure(FailureClass::Permanent, format!("the branch's query gave `{other}`"))
                .effect("nothing was changed")
                .hint("it must give true, false, a number, or one of: y, n, yes, no, on, off, t, f")),
        },
        Value::Null => Err(failure(FailureClass::Permanent, "the branch's query gave NULL")
            .effect("nothing was changed")
            .hint("use COALESCE to say what NULL means")),
        Value::Bytes(_) | Value::Json(_) => {
            Err(failure(FailureClass::Permanent, "the branch's query gave a value that is neither true nor false")
                .effect("nothing was changed"))
        }
    }
}
