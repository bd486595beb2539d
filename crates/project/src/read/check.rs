//! `check:`, whose kind follows from its keys.

use super::Reading;
use crate::definition::*;
use crate::diagnostic::code;
use crate::yaml::{Fields, Node, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

const METRICS: &[(&str, ColumnMetric)] = &[
    ("null_check", ColumnMetric::NullCheck),
    ("distinct_check", ColumnMetric::DistinctCheck),
    ("unique_check", ColumnMetric::UniqueCheck),
    ("min", ColumnMetric::Min),
    ("max", ColumnMetric::Max),
];

const RATIOS: &[(&str, RatioFormula)] =
    &[("max_over_min", RatioFormula::MaxOverMin), ("relative_diff", RatioFormula::RelativeDiff)];

/// What `check:` may have, before it is known which check it is.
struct Keys<'n> {
    sql: Option<&'n Arc<Node>>,
    parameters: Option<&'n Arc<Node>>,
    equals: Option<&'n Arc<Node>>,
    tolerance: Option<&'n Arc<Node>>,
    min: Option<&'n Arc<Node>>,
    max: Option<&'n Arc<Node>>,
    table: Option<&'n Arc<Node>>,
    columns: Option<&'n Arc<Node>>,
    checks: Option<&'n Arc<Node>>,
    metrics: Option<&'n Arc<Node>>,
    partition: Option<&'n Arc<Node>>,
    accept_none: Option<&'n Arc<Node>>,
    date_column: Option<&'n Arc<Node>>,
    days_back: Option<&'n Arc<Node>>,
    ratio_formula: Option<&'n Arc<Node>>,
    ignore_zero: Option<&'n Arc<Node>>,
}

impl<'n> Keys<'n> {
    fn named(&self) -> [(&'static str, Option<&'n Arc<Node>>); 16] {
        [
            ("sql", self.sql),
            ("parameters", self.parameters),
            ("equals", self.equals),
            ("tolerance", self.tolerance),
            ("min", self.min),
            ("max", self.max),
            ("table", self.table),
            ("columns", self.columns),
            ("checks", self.checks),
            ("metrics", self.metrics),
            ("partition", self.partition),
            ("accept_none", self.accept_none),
            ("date_column", self.date_column),
            ("days_back", self.days_back),
            ("ratio_formula", self.ratio_formula),
            ("ignore_zero", self.ignore_zero),
        ]
    }
}

impl Reading<'_> {
    pub(super) fn check(&mut self, node: &Node) -> Option<Check> {
        if !matches!(node.value, Value::Map(_)) {
            return Some(Check::Query { sql: self.sql(node, true)?, parameters: Parameters::new() });
        }
        let entries = self.map(node, "`check`")?;
        let mut fields = Fields::new("Check", entries);
        let keys = Keys {
            sql: fields.take_present("sql"),
            parameters: fields.take_present("parameters"),
            equals: fields.take("equals"),
            tolerance: fields.take_present("tolerance"),
            min: fields.take_present("min"),
            max: fields.take_present("max"),
            table: fields.take_present("table"),
            columns: fields.take_present("columns"),
            checks: fields.take_present("checks"),
            metrics: fields.take_present("metrics"),
            partition: fields.take_present("partition"),
            accept_none: fields.take_present("accept_none"),
            date_column: fields.take_present("date_column"),
            days_back: fields.take_present("days_back"),
            ratio_formula: fields.take_present("ratio_formula"),
            ignore_zero: fields.take_present("ignore_zero"),
        };
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        if keys.columns.is_some() {
            self.belongs(&keys, "columns", &["table", "columns", "partition", "accept_none"]);
            self.column_check(&keys, node)
        } else if keys.checks.is_some() {
            self.belongs(&keys, "checks", &["table", "checks", "partition"]);
            self.table_check(&keys, node)
        } else if keys.metrics.is_some() {
            self.belongs(&keys, "metrics", &["table", "metrics", "date_column", "days_back", "ratio_formula", "ignore_zero"]);
            self.interval_check(&keys, node)
        } else if keys.equals.is_some() {
            self.belongs(&keys, "equals", &["sql", "parameters", "equals", "tolerance"]);
            self.value_check(&keys, node)
        } else if keys.min.is_some() || keys.max.is_some() {
            self.belongs(&keys, "min` or `max", &["sql", "parameters", "min", "max"]);
            self.threshold_check(&keys, node)
        } else if keys.sql.is_some() {
            self.belongs(&keys, "sql", &["sql", "parameters"]);
            let (sql, parameters) = self.check_query(&keys, node)?;
            Some(Check::Query { sql, parameters })
        } else {
            let hint = "write `check: {sql: ...}`, with `equals`, or with `min` and `max`; or `check: {table: ..., columns: ...}`, `checks` or `metrics`";
            self.error_with_hint(code::MISSING_KEY, "nothing says what is checked", node, hint);
            None
        }
    }

    /// Reports keys that the check, known by one key, does not have.
    fn belongs(&mut self, keys: &Keys<'_>, by: &str, allowed: &[&str]) {
        for (name, node) in keys.named() {
            if let Some(node) = node.filter(|_| !allowed.contains(&name)) {
                let hint = format!("such a check has {}", allowed.join(", "));
                self.error_with_hint(code::CONFLICT, format!("`{name}` does not go with `{by}`"), node, hint);
            }
        }
    }

    fn needed<'n>(&mut self, node: Option<&'n Arc<Node>>, name: &str, owner: &Node) -> Option<&'n Arc<Node>> {
        if node.is_none() {
            self.error(code::MISSING_KEY, format!("the check needs `{name}`"), owner);
        }
        node
    }

    fn check_query(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<(Template, Parameters)> {
        let parameters = keys.parameters.map(|node| self.parameters(node, "`parameters`")).unwrap_or_default();
        let sql = self.needed(keys.sql, "sql", owner)?;
        Some((self.sql(sql, true)?, parameters))
    }

    fn value_check(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<Check> {
        let tolerance = keys.tolerance.and_then(|node| self.ratio(node, "`tolerance`"));
        let equals = keys.equals.map(|node| self.json(node)).unwrap_or_default();
        let (sql, parameters) = self.check_query(keys, owner)?;
        Some(Check::Value { sql, parameters, equals, tolerance })
    }

    fn threshold_check(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<Check> {
        let min = keys.min.map(|node| self.bound(node));
        let max = keys.max.map(|node| self.bound(node));
        if let (Some(Some(Bound::Number(min))), Some(Some(Bound::Number(max))), Some(node)) = (&min, &max, keys.max)
            && min > max
        {
            self.error(code::BAD_VALUE, format!("`max` is below `min`, which is {min}"), node);
        }
        let (sql, parameters) = self.check_query(keys, owner)?;
        Some(Check::Threshold { sql, parameters, min: min.flatten(), max: max.flatten() })
    }

    fn bound(&mut self, node: &Node) -> Option<Bound> {
        match node.as_number().and_then(|number| number.as_f64()) {
            Some(number) => Some(Bound::Number(number)),
            None => self.sql(node, true).map(Bound::Sql),
        }
    }

    fn ratio(&mut self, node: &Node, what: &str) -> Option<f64> {
        let ratio = self.number(node, what)?;
        if ratio < 0.0 {
            self.error(code::BAD_VALUE, format!("{what} is a ratio of 0 or more; 0.1 is ten percent"), node);
            return None;
        }
        Some(ratio)
    }

    fn table(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<Template> {
        let table = self.needed(keys.table, "table", owner)?;
        self.template(table, "`table`")
    }

    fn column_check(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<Check> {
        let table = self.table(keys, owner);
        let partition = keys.partition.and_then(|node| self.template(node, "`partition`"));
        let accept_none = keys.accept_none.and_then(|node| self.boolean(node, "`accept_none`")).unwrap_or(true);
        let mut columns = BTreeMap::new();
        for (column, node) in self.map(keys.columns?, "`columns`")? {
            let mut checks = Vec::new();
            for (metric, conditions) in self.map(node, "the checks of a column")? {
                let found = METRICS.iter().find(|(name, _)| *name == &*metric.text);
                let Some((_, metric)) = found else {
                    let known = METRICS.iter().map(|(name, _)| *name);
                    let near = crate::diagnostic::did_you_mean(&metric.text, known.clone());
                    let hint = near.map_or_else(
                        || format!("one of {}", known.collect::<Vec<_>>().join(", ")),
                        |near| format!("did you mean `{near}`?"),
                    );
                    let at = self.key_span(metric);
                    let message = format!("`{}` is no check of a column", metric.text);
                    self.diagnostics.push(crate::diagnostic::Diagnostic::error(code::UNKNOWN_KEY, message, at).hint(hint));
                    continue;
                };
                checks.extend(self.conditions(*metric, conditions));
            }
            columns.insert(column.text.to_string(), checks);
        }
        if columns.values().all(Vec::is_empty) {
            self.error(code::MISSING_KEY, "`columns` checks nothing", keys.columns?);
        }
        Some(Check::Columns { table: table?, columns, partition, accept_none })
    }

    fn conditions(&mut self, metric: ColumnMetric, node: &Node) -> Option<ColumnCheck> {
        let entries = self.map(node, "a check of a column")?;
        let mut fields = Fields::new("ColumnCheck", entries);
        let mut number = |reading: &mut Self, name: &'static str| {
            fields.take_present(name).and_then(|node| reading.number(node, &format!("`{name}`")))
        };
        let check = ColumnCheck {
            metric,
            equal_to: number(self, "equal_to"),
            tolerance: number(self, "tolerance"),
            greater_than: number(self, "greater_than"),
            less_than: number(self, "less_than"),
            geq_to: number(self, "geq_to"),
            leq_to: number(self, "leq_to"),
        };
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let conditions = [check.equal_to, check.greater_than, check.less_than, check.geq_to, check.leq_to];
        if conditions.iter().all(Option::is_none) {
            let hint = "add one of equal_to, greater_than, less_than, geq_to, leq_to";
            self.error_with_hint(code::MISSING_KEY, "the check has no condition", node, hint);
            return None;
        }
        Some(check)
    }

    fn table_check(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<Check> {
        let table = self.table(keys, owner);
        let partition = keys.partition.and_then(|node| self.template(node, "`partition`"));
        let checks = self.templates(keys.checks?, "`checks`");
        if checks.is_empty() {
            self.error(code::MISSING_KEY, "`checks` checks nothing", keys.checks?);
        }
        Some(Check::Table { table: table?, checks, partition })
    }

    fn interval_check(&mut self, keys: &Keys<'_>, owner: &Node) -> Option<Check> {
        const DAYS_BACK: u32 = 7;
        let table = self.table(keys, owner);
        let mut metrics = BTreeMap::new();
        for (metric, ratio) in self.map(keys.metrics?, "`metrics`")? {
            metrics.extend(self.ratio(ratio, "the largest ratio of a metric").map(|ratio| (metric.text.to_string(), ratio)));
        }
        if metrics.is_empty() {
            self.error(code::MISSING_KEY, "`metrics` checks nothing", keys.metrics?);
        }
        // Airflow takes a negative number, too, and means the same by it.
        let days_back = match keys.days_back.map(|node| self.integer(node, "`days_back`", -36_500, 36_500)) {
            Some(days) => u32::try_from(days?.unsigned_abs()).ok()?,
            None => DAYS_BACK,
        };
        let date_column = match keys.date_column {
            Some(node) => self.text(node, "`date_column`")?.to_string(),
            None => "ds".to_owned(),
        };
        let ratio = keys.ratio_formula.and_then(|node| self.choice(node, "`ratio_formula`", RATIOS)).unwrap_or_default();
        let ignore_zero = keys.ignore_zero.and_then(|node| self.boolean(node, "`ignore_zero`")).unwrap_or(true);
        Some(Check::Interval { table: table?, metrics, date_column, days_back, ratio, ignore_zero })
    }
}
