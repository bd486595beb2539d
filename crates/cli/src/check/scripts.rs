//! What the lexical rules of the databases find in a project's SQL, before any of it is sent: scripts, and the questions of checks, branches,
//! sensors and lists, which the runtime cuts in the same way.

use super::{ISOLATION, PARAMETER, PLACEHOLDER, QUESTION, SCRIPT, WITHIN};
use backstop_connect::Dialect;
use backstop_connect::script::{self, SegmentPromise, SplitError, Statement, Verb};
use backstop_core::TaskIx;
use backstop_project::definition::{
    Body, Bound, BranchBy, Callbacks, Check, Definition, ForEach, Isolation, Kind, Parameters, SensorBy, Source, Sql, Template,
};
use backstop_project::{Diagnostic, Files, Severity, Span, place_of_key};
use std::collections::{BTreeMap, BTreeSet};

/// How a text is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// As a script; each statement by itself, or not.
    Script { autocommit: bool },
    /// As a script in the transaction of a group.
    Within,
    /// As a question, in a transaction that may only read.
    Question,
    /// As a part of a statement that is made around it.
    Part,
}

/// A text of a DAG that a database gets.
struct Text<'d> {
    template: &'d Template,
    templated: bool,
    runs: Use,
    connection: Option<&'d str>,
    parameters: Option<&'d Parameters>,
    /// Where the task or callback begins, and the keys below it that lead to the parameters.
    owner: &'d Source,
    keys: &'static [&'static str],
}

/// Everything wrong with the SQL of these DAGs. `dialects` has the connections that can be used.
pub(super) fn wrong<'d>(
    definitions: impl Iterator<Item = &'d Definition>,
    dialects: &BTreeMap<&str, Dialect>,
    files: &dyn Files,
) -> Vec<Diagnostic> {
    let definitions: Vec<&Definition> = definitions.collect();
    let mut found: Vec<Diagnostic> = definitions.iter().flat_map(|definition| isolations(definition, dialects)).collect();
    let mut seen = BTreeSet::new();
    let mut told = BTreeSet::new();
    for text in definitions.into_iter().flat_map(texts) {
        let Some(dialect) = text.connection.and_then(|id| dialects.get(id)).copied() else { continue };
        let source = &text.template.source;
        // One file may be the script of many tasks; it is read once for each way to use it. Parameters are those of one task.
        let owner = text.parameters.filter(|parameters| !parameters.is_empty()).map(|_| place(text.owner));
        let key = (place(source), format!("{dialect:?}"), text.runs, owner);
        if is_templated(text.template, text.templated) || !seen.insert(key) {
            continue;
        }
        for diagnostic in of_text(&text, dialect, files) {
            if told.insert((diagnostic.place.clone(), diagnostic.message.clone())) {
                found.push(diagnostic);
            }
        }
    }
    found
}

fn place(source: &Source) -> (&str, u32, u32) {
    (&source.file, source.line, source.column)
}

/// Whether the text is known only when it runs.
pub(super) fn is_templated(template: &Template, templated: bool) -> bool {
    templated && ["{{", "{%", "{#"].iter().any(|sign| template.text.contains(sign))
}

/// Every text of a DAG.
fn texts(definition: &Definition) -> Vec<Text<'_>> {
    let mut found = of_callbacks(&definition.callbacks);
    for (place, body) in definition.bodies.iter().enumerate() {
        let is_member = definition.dag.member_of(TaskIx(place as u32)).is_some();
        let runs = |text: &Text<'_>| if is_member && matches!(text.runs, Use::Script { .. }) { Use::Within } else { text.runs };
        found.extend(of_kind(body).into_iter().map(|text| Text { runs: runs(&text), ..text }));
        if let Some(ForEach::Rows { sql, connection, parameters }) = &body.for_each {
            let asked = question(body, sql, Some(parameters), &["for_each", "parameters"]);
            found.push(Text { connection: Some(connection), ..asked });
        }
        found.extend(of_callbacks(&body.callbacks));
    }
    found
}

fn of_kind(body: &Body) -> Vec<Text<'_>> {
    match &body.kind {
        Kind::Sql(sql) => vec![script_of(sql, body.connection.as_deref(), &body.source)],
        Kind::Check(check) => of_check(body, check),
        Kind::Branch(branch) => match &branch.decide {
            BranchBy::Sql { sql, parameters } => vec![question(body, sql, Some(parameters), &["branch", "parameters"])],
            BranchBy::When(_) | BranchBy::Python(_) => Vec::new(),
        },
        Kind::Sensor(sensor) => match &sensor.look {
            SensorBy::Sql { sql, parameters, fail_on_empty: _ } => {
                vec![question(body, sql, Some(parameters), &["sensor", "parameters"])]
            }
            SensorBy::File(_) | SensorBy::Http(_) | SensorBy::Time(_) => Vec::new(),
        },
        Kind::Shell(_) | Kind::Python(_) | Kind::Http(_) | Kind::Dag(_) | Kind::WaitFor(_) => Vec::new(),
        Kind::Commit(_) | Kind::Empty => Vec::new(),
    }
}

fn of_check<'d>(body: &'d Body, check: &'d Check) -> Vec<Text<'d>> {
    const PARAMETERS: &[&str] = &["check", "parameters"];
    let part = |template: &'d Template| Text { runs: Use::Part, ..question(body, template, None, PARAMETERS) };
    match check {
        Check::Query { sql, parameters } | Check::Value { sql, parameters, .. } => {
            vec![question(body, sql, Some(parameters), PARAMETERS)]
        }
        Check::Threshold { sql, parameters, min, max } => {
            let bounds = [min, max].into_iter().flatten().filter_map(|bound| match bound {
                Bound::Sql(sql) => Some(question(body, sql, None, PARAMETERS)),
                Bound::Number(_) => None,
            });
            std::iter::once(question(body, sql, Some(parameters), PARAMETERS)).chain(bounds).collect()
        }
        Check::Columns { table, partition, .. } => std::iter::once(table).chain(partition).map(part).collect(),
        Check::Table { table, checks, partition } => {
            std::iter::once(table).chain(partition).chain(checks.values()).map(part).collect()
        }
        Check::Interval { table, .. } => vec![part(table)],
    }
}

fn of_callbacks(callbacks: &Callbacks) -> Vec<Text<'_>> {
    let all = callbacks.on_failure.iter().chain(&callbacks.on_retry).chain(&callbacks.on_success);
    all.filter_map(|callback| match &callback.kind {
        Kind::Sql(sql) => Some(script_of(sql, callback.connection.as_deref(), &callback.source)),
        Kind::Check(_) | Kind::Branch(_) | Kind::Sensor(_) | Kind::Shell(_) | Kind::Python(_) | Kind::Http(_) => None,
        Kind::Dag(_) | Kind::WaitFor(_) | Kind::Commit(_) | Kind::Empty => None,
    })
    .collect()
}

fn script_of<'d>(sql: &'d Sql, connection: Option<&'d str>, owner: &'d Source) -> Text<'d> {
    Text {
        template: &sql.script,
        templated: sql.templated,
        runs: Use::Script { autocommit: sql.autocommit },
        connection,
        parameters: Some(&sql.parameters),
        owner,
        keys: &["parameters"],
    }
}

fn question<'d>(
    body: &'d Body,
    template: &'d Template,
    parameters: Option<&'d Parameters>,
    keys: &'static [&'static str],
) -> Text<'d> {
    let connection = body.connection.as_deref();
    Text { template, templated: true, runs: Use::Question, connection, parameters, owner: &body.source, keys }
}

fn of_text(text: &Text<'_>, dialect: Dialect, files: &dyn Files) -> Vec<Diagnostic> {
    let sql = &text.template.text;
    let statements = match script::split(dialect, sql) {
        Ok(statements) => statements,
        Err(error) => return vec![of_split(text.template, error)],
    };
    match text.runs {
        Use::Script { autocommit } => {
            if let Err(error) = script::plan(dialect, sql, &statements, autocommit) {
                return vec![of_split(text.template, error)];
            }
        }
        Use::Within => {
            let wrong = of_member(text.template, dialect, &statements);
            if !wrong.is_empty() {
                return wrong;
            }
        }
        Use::Question => {
            let wrong = of_question(text.template, &statements);
            if !wrong.is_empty() {
                return wrong;
            }
        }
        Use::Part => {
            if let Some(wrong) = of_part(text.template, &statements) {
                return vec![wrong];
            }
        }
    }
    let none = Parameters::default();
    let parameters = text.parameters.unwrap_or(&none);
    let (mut found, meant) = match unbound(text, dialect, &statements, parameters) {
        Ok(found) => found,
        Err(error) => return vec![of_split(text.template, error)],
    };
    found.extend(unused(text, dialect, &statements, parameters, &meant, files));
    found
}

/// Placeholders that have no value, which no database can run; and the parameters that were probably meant by them.
fn unbound<'p>(
    text: &Text<'_>,
    dialect: Dialect,
    statements: &[Statement],
    parameters: &'p Parameters,
) -> Result<(Vec<Diagnostic>, BTreeSet<&'p str>), SplitError> {
    let known: Vec<&str> = parameters.keys().map(String::as_str).collect();
    let (mut found, mut meant) = (Vec::new(), BTreeSet::new());
    // A file may be right for one task and wrong for another.
    let template = text.template;
    let is_apart = template.source.file != text.owner.file;
    let owner = Span { file: text.owner.file.clone(), line: text.owner.line, column: text.owner.column, length: 1 };
    let labels: Vec<(Span, String)> = is_apart.then_some((owner, "as a script of this".to_owned())).into_iter().collect();
    for statement in statements {
        for one in script::unbound(dialect, &template.text, statement, &|name| parameters.contains_key(name))? {
            meant.extend(one.meant(&known).filter(|_| !is_apart));
            let error = one.into_error(&known);
            let place = span(template, error.line, error.column);
            let wrong = told(PLACEHOLDER, Severity::Error, error.what, place);
            found.push(Diagnostic { hint: error.hint, labels: labels.clone(), ..wrong });
        }
    }
    Ok((found, meant))
}

fn of_split(template: &Template, error: SplitError) -> Diagnostic {
    let place = span(template, error.line, error.column);
    Diagnostic { hint: error.hint, ..told(SCRIPT, Severity::Error, error.what, place) }
}

/// Transactions with an isolation level that their database does not have.
fn isolations(definition: &Definition, dialects: &BTreeMap<&str, Dialect>) -> Vec<Diagnostic> {
    let of_body = |body: &Body| {
        let dialect = body.connection.as_deref().and_then(|id| dialects.get(id)).copied();
        let wanted = match &body.kind {
            Kind::Commit(transaction) => transaction.isolation?,
            _ => return None,
        };
        if dialect != Some(Dialect::Sqlite) || wanted == Isolation::Serializable {
            return None;
        }
        let Source { file, line, column } = body.source.clone();
        let wrong = told(
            ISOLATION,
            Severity::Error,
            "SQLite's transactions are serializable, and nothing else".to_owned(),
            Span { file, line, column, length: 1 },
        );
        Some(Diagnostic { hint: Some("remove `isolation` from the group, or set it to `serializable`".into()), ..wrong })
    };
    definition.bodies.iter().filter_map(of_body).collect()
}

/// A script in the transaction of its group neither begins nor ends one, and cannot escape it.
fn of_member(template: &Template, dialect: Dialect, statements: &[Statement]) -> Vec<Diagnostic> {
    const HINT: &str = "the group commits once, at its end: remove the statement, or move the task out of the group";
    let wrong = |statement: &Statement, message: String| {
        let wrong = told(WITHIN, Severity::Error, message, span(template, statement.line, statement.column));
        Diagnostic { hint: Some(HINT.to_owned()), ..wrong }
    };
    let ends = |statement: &&Statement| matches!(statement.verb, Verb::Begin | Verb::Commit | Verb::Rollback);
    let ending: Vec<Diagnostic> = statements
        .iter()
        .filter(ends)
        .map(|statement| wrong(statement, "the script begins or ends a transaction, and runs in that of its group".to_owned()))
        .collect();
    if !ending.is_empty() {
        return ending;
    }
    let segments = match script::plan(dialect, &template.text, statements, false) {
        Ok(segments) => segments,
        Err(error) => return vec![of_split(template, error)],
    };
    let escapes = segments.iter().filter_map(|segment| match &segment.promise {
        SegmentPromise::AtLeastOnce(why) => {
            let statement = statements.get(segment.statements.start)?;
            Some(wrong(statement, format!("the statement cannot run in the transaction of its group: {why}")))
        }
        SegmentPromise::ExactlyOnce | SegmentPromise::ReadOnly => None,
    });
    escapes.collect()
}

/// Questions run in a transaction that may only read, which a script's own words must not end. What a call or a function does is the server's to
/// know, and is not told.
fn of_question(template: &Template, statements: &[Statement]) -> Vec<Diagnostic> {
    const WRITE: &[&str] = &["INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE"];
    const HINT: &str = "checks, branches, sensors and lists may only read; put what writes into a `sql` task";
    if statements.is_empty() {
        let wrong = told(QUESTION, Severity::Error, "there is no statement in the query".to_owned(), span(template, 1, 1));
        return vec![Diagnostic {
            hint: Some("write one that gives a row, such as `SELECT count(*) > 0 FROM t`".into()),
            ..wrong
        }];
    }
    let mut found = Vec::new();
    for statement in statements {
        let first: String = template.text[statement.text.clone()].chars().take_while(char::is_ascii_alphabetic).collect();
        let what = match statement.verb {
            Verb::Read | Verb::Session | Verb::Savepoint | Verb::NoTransaction => continue,
            Verb::Write if !WRITE.contains(&first.to_ascii_uppercase().as_str()) => continue,
            Verb::Write => "the query writes",
            Verb::Define | Verb::ImplicitCommit => "the query changes definitions, or commits by itself",
            Verb::Begin | Verb::Commit | Verb::Rollback => {
                "the query begins or ends a transaction, and it runs in one that only reads"
            }
        };
        let wrong = told(QUESTION, Severity::Error, what.to_owned(), span(template, statement.line, statement.column));
        found.push(Diagnostic { hint: Some(HINT.to_owned()), ..wrong });
    }
    found
}

/// A table or condition is put into a statement, and must not end it.
fn of_part(template: &Template, statements: &[Statement]) -> Option<Diagnostic> {
    let (message, line, column) = match statements {
        [] => ("there is nothing but a comment".to_owned(), 1, 1),
        [_] if !template.text.trim_end().ends_with(';') => return None,
        [one] => ("a `;` ends the statement that this becomes a part of".to_owned(), one.line, one.column),
        [_, second, ..] => ("this becomes a part of one statement, and has a `;` in it".to_owned(), second.line, second.column),
    };
    let wrong = told(SCRIPT, Severity::Error, message, span(template, line, column));
    Some(Diagnostic { hint: Some("write a table, or one condition, without `;`".to_owned()), ..wrong })
}

/// Parameters that no statement uses. A script with one fails when it runs; a question goes without, and is probably not what was meant. One slip is
/// told once: at the placeholder that meant the parameter, where there is one.
fn unused(
    text: &Text<'_>,
    dialect: Dialect,
    statements: &[Statement],
    parameters: &Parameters,
    meant: &BTreeSet<&str>,
    files: &dyn Files,
) -> Vec<Diagnostic> {
    let mut used = BTreeSet::new();
    for statement in statements.iter().filter(|_| !parameters.is_empty()) {
        let sql = &text.template.text[statement.text.clone()];
        match script::bind_names(dialect, sql, &|name| parameters.contains_key(name)) {
            Ok(bound) => used.extend(bound.names),
            // Its place is that within the statement.
            Err(mut error) => {
                error.column += if error.line == 1 { statement.column - 1 } else { 0 };
                error.line += statement.line - 1;
                return vec![of_split(text.template, error)];
            }
        }
    }
    let severity = match text.runs {
        Use::Script { .. } | Use::Within => Severity::Error,
        Use::Question | Use::Part => Severity::Warning,
    };
    let missing = parameters.keys().filter(|name| !used.contains(*name) && !meant.contains(name.as_str()));
    missing
        .map(|name| {
            let keys: Vec<&str> = text.keys.iter().copied().chain([name.as_str()]).collect();
            let place = place_of_key(files, text.owner, &keys).unwrap_or_else(|| span(text.template, 1, 1));
            let hint = format!("write `:{name}` where its value belongs, outside of quotes, or remove it from `parameters`");
            Diagnostic {
                hint: Some(hint),
                ..told(PARAMETER, severity, format!("no statement uses the parameter `{name}`"), place)
            }
        })
        .collect()
}

fn told(code: &'static str, severity: Severity, message: String, place: Span) -> Diagnostic {
    Diagnostic { code, severity, message, place: Some(place), labels: Vec::new(), hint: None }
}

fn span(template: &Template, line: u32, column: u32) -> Span {
    let source = &template.source;
    Span {
        file: source.file.clone(),
        line: source.line + line.saturating_sub(1),
        column: column + source.column.saturating_sub(1),
        length: 1,
    }
}
