//! Airflow's data checks (common-sql 2.4): build the question, ask it read-only, judge the answer, say every check that does not hold.

use super::query::{Rows, is_true, number, rows, text_rows};
use super::results::to_json;
use super::{Attempt, Outcome};
use crate::failure::{FailureExt, failure, of_template};
use backstop_connect::Value;
use backstop_core::event::FailureClass;
use backstop_project::definition::{Bound, Check, ColumnCheck, ColumnMetric, Parameters, RatioFormula, Template};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Runs a check.
pub(crate) async fn run(attempt: &mut Attempt, check: &Check) -> Outcome {
    let judged = match check {
        Check::Query { sql, parameters } => rows(attempt, None, sql, parameters, 1).await.map(|rows| judge_query(&rows)),
        Check::Value { sql, parameters, equals, tolerance } => value(attempt, sql, parameters, equals, *tolerance).await,
        Check::Threshold { sql, parameters, min, max } => threshold(attempt, sql, parameters, min.as_ref(), max.as_ref()).await,
        Check::Columns { table, columns, partition, accept_none } => {
            column_checks(attempt, table, columns, partition.as_ref(), *accept_none).await
        }
        Check::Table { table, checks, partition } => table_checks(attempt, table, checks, partition.as_ref()).await,
        Check::Interval { table, metrics, date_column, days_back, ratio, ignore_zero } => {
            let wanted =
                Interval { table, metrics, date_column, days_back: *days_back, ratio: *ratio, ignore_zero: *ignore_zero };
            interval(attempt, &wanted).await
        }
    };
    match judged {
        Ok(faults) if faults.is_empty() => Outcome::done(),
        Ok(faults) => {
            let text = match faults.len() {
                1 => "the check does not hold".to_owned(),
                many => format!("{many} checks do not hold"),
            };
            let mut told = failure(FailureClass::Permanent, text).effect("nothing was changed: a check only reads");
            told.message = format!("{}: {}", told.message, faults.join("; "));
            Outcome::Failed(told)
        }
        Err(outcome) => outcome,
    }
}

/// What does not hold, one text each.
type Faults = Vec<String>;

/// SQLCheck: a row, and every value in it true.
fn judge_query(rows: &Rows) -> Faults {
    match rows.rows.first() {
        None => vec!["the query gave no row".into()],
        Some(row) => row
            .iter()
            .zip(&rows.columns)
            .filter(|(value, _)| !is_true(value))
            .map(|(value, column)| format!("`{column}` is {}", shown(value)))
            .collect(),
    }
}

fn shown(value: &Value) -> String {
    match to_json(value) {
        Json::Null => "NULL".into(),
        other => other.to_string(),
    }
}

/// SQLValueCheck.
async fn value(
    attempt: &mut Attempt,
    sql: &Template,
    parameters: &Parameters,
    equals: &Json,
    tolerance: Option<f64>,
) -> Result<Faults, Outcome> {
    let expected = attempt
        .shared
        .renderer
        .render_value(equals, &sql.source, &attempt.context)
        .map_err(|error| Outcome::Failed(of_template(&error)))?;
    let rows = rows(attempt, None, sql, parameters, 1).await?;
    let Some(row) = rows.rows.first() else { return Ok(vec!["the query gave no row".into()]) };
    let wanted = expected.as_f64().or_else(|| expected.as_str().and_then(|text| text.trim().parse().ok()));
    let holds = |value: &Value| match (wanted, number(value)) {
        (Some(wanted), Some(found)) => is_near(found, wanted, tolerance),
        (Some(_), None) => false,
        (None, _) => match (&expected, value) {
            (Json::String(wanted), Value::Text(found) | Value::Decimal(found) | Value::Json(found)) => wanted == found,
            (wanted, found) => *wanted == to_json(found),
        },
    };
    let margin = tolerance.map(|tolerance| format!(" (tolerance {tolerance})")).unwrap_or_default();
    Ok(row
        .iter()
        .zip(&rows.columns)
        .filter(|(value, _)| !holds(value))
        .map(|(value, column)| format!("`{column}` is {}, expected {expected}{margin}", shown(value)))
        .collect())
}

/// Within a ratio of the expected value; exactly without one.
fn is_near(found: f64, wanted: f64, tolerance: Option<f64>) -> bool {
    match tolerance {
        None => found == wanted,
        Some(tolerance) => {
            let (a, b) = (wanted * (1.0 - tolerance), wanted * (1.0 + tolerance));
            a.min(b) <= found && found <= a.max(b)
        }
    }
}

/// SQLThresholdCheck.
async fn threshold(
    attempt: &mut Attempt,
    sql: &Template,
    parameters: &Parameters,
    min: Option<&Bound>,
    max: Option<&Bound>,
) -> Result<Faults, Outcome> {
    let lower = bound(attempt, min).await?;
    let upper = bound(attempt, max).await?;
    let rows = rows(attempt, None, sql, parameters, 1).await?;
    let Some(found) = rows.first().and_then(number) else {
        return Ok(vec![format!("the query gave {}, not a number", rows.first().map_or("no row".into(), shown))]);
    };
    let mut faults = Faults::new();
    if let Some(lower) = lower.filter(|lower| found < *lower) {
        faults.push(format!("the value {found} is below the minimum {lower}"));
    }
    if let Some(upper) = upper.filter(|upper| found > *upper) {
        faults.push(format!("the value {found} is above the maximum {upper}"));
    }
    Ok(faults)
}

async fn bound(attempt: &mut Attempt, bound: Option<&Bound>) -> Result<Option<f64>, Outcome> {
    match bound {
        None => Ok(None),
        Some(Bound::Number(number)) => Ok(Some(*number)),
        Some(Bound::Sql(sql)) => {
            let found = rows(attempt, None, sql, &Parameters::new(), 1).await?;
            match found.first().and_then(number) {
                Some(number) => Ok(Some(number)),
                None => Err(Outcome::Failed(
                    failure(FailureClass::Permanent, "the bound's query did not give a number").effect("nothing was changed"),
                )),
            }
        }
    }
}

/// The aggregate of a column's metric, in SQL that every database reads.
fn metric_sql(metric: ColumnMetric, column: &str) -> String {
    match metric {
        ColumnMetric::NullCheck => format!("SUM(CASE WHEN {column} IS NULL THEN 1 ELSE 0 END)"),
        ColumnMetric::DistinctCheck => format!("COUNT(DISTINCT {column})"),
        ColumnMetric::UniqueCheck => format!("COUNT({column}) - COUNT(DISTINCT {column})"),
        ColumnMetric::Min => format!("MIN({column})"),
        ColumnMetric::Max => format!("MAX({column})"),
    }
}

fn metric_name(metric: ColumnMetric) -> &'static str {
    match metric {
        ColumnMetric::NullCheck => "null_check",
        ColumnMetric::DistinctCheck => "distinct_check",
        ColumnMetric::UniqueCheck => "unique_check",
        ColumnMetric::Min => "min",
        ColumnMetric::Max => "max",
    }
}

async fn rendered(attempt: &Attempt, template: &Template) -> Result<String, Outcome> {
    attempt.shared.renderer.render(template, &attempt.context).map_err(|error| Outcome::Failed(of_template(&error)))
}

async fn condition(attempt: &Attempt, partition: Option<&Template>) -> Result<String, Outcome> {
    Ok(match partition {
        None => String::new(),
        Some(partition) => format!(" WHERE {}", rendered(attempt, partition).await?),
    })
}

/// SQLColumnCheck: one question for all columns.
async fn column_checks(
    attempt: &mut Attempt,
    table: &Template,
    columns: &BTreeMap<String, Vec<ColumnCheck>>,
    partition: Option<&Template>,
    accept_none: bool,
) -> Result<Faults, Outcome> {
    let checks: Vec<(&String, &ColumnCheck)> =
        columns.iter().flat_map(|(column, checks)| checks.iter().map(move |check| (column, check))).collect();
    let aggregates: Vec<String> = checks.iter().map(|(column, check)| metric_sql(check.metric, column)).collect();
    let from = rendered(attempt, table).await?;
    let sql = format!("SELECT {} FROM {from}{}", aggregates.join(", "), condition(attempt, partition).await?);
    let found = text_rows(attempt, None, table, &sql, &[], 1).await?;
    let Some(row) = found.rows.first() else { return Ok(vec!["the query gave no row".into()]) };
    let mut faults = Faults::new();
    for ((column, check), value) in checks.iter().zip(row) {
        let name = metric_name(check.metric);
        match number(value).or_else(|| (accept_none && *value == Value::Null).then_some(0.0)) {
            None => faults.push(format!("{name} of `{column}` is {}, not a number", shown(value))),
            Some(found) => {
                faults.extend(
                    column_faults(check, found).into_iter().map(|fault| format!("{name} of `{column}` is {found}, {fault}")),
                );
            }
        }
    }
    Ok(faults)
}

/// The conditions of a column check that a value does not meet. The tolerance widens each bound, as Airflow has it.
fn column_faults(check: &ColumnCheck, found: f64) -> Vec<String> {
    let margin = check.tolerance.unwrap_or(0.0);
    let widened = |bound: f64| (bound - (bound * margin).abs(), bound + (bound * margin).abs());
    let mut faults = Vec::new();
    let mut demand = |bound: Option<f64>, holds: &dyn Fn(f64, f64) -> bool, text: &str| {
        if let Some(bound) = bound {
            let (low, high) = widened(bound);
            if !holds(low, high) {
                faults.push(format!("expected {text} {bound}"));
            }
        }
    };
    demand(check.equal_to, &|low, high| low <= found && found <= high, "=");
    demand(check.greater_than, &|low, _| found > low, ">");
    demand(check.less_than, &|_, high| found < high, "<");
    demand(check.geq_to, &|low, _| found >= low, ">=");
    demand(check.leq_to, &|_, high| found <= high, "<=");
    faults
}

/// SQLTableCheck: each condition is 1 when it holds for the table (or for all its rows).
async fn table_checks(
    attempt: &mut Attempt,
    table: &Template,
    checks: &BTreeMap<String, Template>,
    partition: Option<&Template>,
) -> Result<Faults, Outcome> {
    let from = rendered(attempt, table).await?;
    let filter = condition(attempt, partition).await?;
    let mut faults = Faults::new();
    for (name, check) in checks {
        let text = rendered(attempt, check).await?;
        // MIN over rows gives "for all rows"; an aggregate gives one row. NULL (no row) is not true.
        let sql =
            format!("SELECT MIN(holds) FROM (SELECT CASE WHEN {text} THEN 1 ELSE 0 END AS holds FROM {from}{filter}) checked");
        let found = text_rows(attempt, None, check, &sql, &[], 1).await?;
        match found.first().and_then(number) {
            Some(1.0) => {}
            Some(_) => faults.push(format!("`{name}` does not hold ({})", text.trim())),
            None => faults.push(format!("`{name}` has no rows to look at")),
        }
    }
    Ok(faults)
}

struct Interval<'a> {
    table: &'a Template,
    metrics: &'a BTreeMap<String, f64>,
    date_column: &'a str,
    days_back: u32,
    ratio: RatioFormula,
    ignore_zero: bool,
}

/// SQLIntervalCheck: metrics of the run's date against those of `days_back` days before.
async fn interval(attempt: &mut Attempt, wanted: &Interval<'_>) -> Result<Faults, Outcome> {
    let date = attempt.context.logical_date.unwrap_or_else(|| attempt.shared.clock.now());
    let today = date.to_zoned(jiff::tz::TimeZone::UTC).date();
    let before = today.checked_sub(jiff::Span::new().days(i64::from(wanted.days_back))).unwrap_or(today);
    let from = rendered(attempt, wanted.table).await?;
    let aggregates: Vec<&str> = wanted.metrics.keys().map(String::as_str).collect();
    let mut answers = Vec::new();
    for day in [today, before] {
        let sql = format!("SELECT {} FROM {from} WHERE {} = '{day}'", aggregates.join(", "), wanted.date_column);
        answers.push(text_rows(attempt, None, wanted.table, &sql, &[], 1).await?);
    }
    let value = |answer: &Rows, place: usize| answer.rows.first().and_then(|row| row.get(place)).and_then(number).unwrap_or(0.0);
    let mut faults = Faults::new();
    for (place, (metric, limit)) in wanted.metrics.iter().enumerate() {
        let (now, then) = (value(&answers[0], place), value(&answers[1], place));
        match ratio(wanted.ratio, now, then) {
            None if wanted.ignore_zero => {}
            None => faults.push(format!("{metric} is {now} on {today} and {then} on {before}: no ratio")),
            Some(ratio) if ratio <= *limit => {}
            Some(ratio) => {
                faults.push(format!("{metric} is {now} on {today} and {then} on {before}: ratio {ratio:.4} is over {limit}"));
            }
        }
    }
    Ok(faults)
}

fn ratio(formula: RatioFormula, now: f64, then: f64) -> Option<f64> {
    if now == 0.0 || then == 0.0 {
        return None;
    }
    Some(match formula {
        RatioFormula::MaxOverMin => now.max(then) / now.min(then),
        RatioFormula::RelativeDiff => (now - then).abs() / then,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(equal_to: Option<f64>, greater_than: Option<f64>, tolerance: Option<f64>) -> ColumnCheck {
        ColumnCheck { metric: ColumnMetric::Min, equal_to, tolerance, greater_than, less_than: None, geq_to: None, leq_to: None }
    }

    #[test]
    fn a_tolerance_widens_the_bound() {
        assert!(column_faults(&check(Some(100.0), None, Some(0.1)), 91.0).is_empty());
        assert_eq!(column_faults(&check(Some(100.0), None, Some(0.1)), 89.0), ["expected = 100"]);
        assert_eq!(column_faults(&check(None, Some(0.0), None), 0.0), ["expected > 0"]);
    }

    #[test]
    fn ratios_follow_airflow() {
        assert_eq!(ratio(RatioFormula::MaxOverMin, 2.0, 4.0), Some(2.0));
        assert_eq!(ratio(RatioFormula::RelativeDiff, 2.0, 4.0), Some(0.5));
        assert_eq!(ratio(RatioFormula::MaxOverMin, 0.0, 4.0), None);
    }

    #[test]
    fn near_is_symmetric_around_negative_values() {
        assert!(is_near(-95.0, -100.0, Some(0.1)));
        assert!(!is_near(-80.0, -100.0, Some(0.1)));
        assert!(!is_near(1.0, 2.0, None));
    }
}
