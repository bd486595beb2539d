//! The invariants of splitting, planning and binding, checked for any text. Shared by the property tests, the long mutation test
//! and the fuzz target.

use backstop_connect::script::{
    Dialect, SegmentPromise, Statement, Verb, bind_names, plan, session_statements_before, split, statement_position_to_source,
    summary,
};

pub(crate) const DIALECTS: [Dialect; 6] =
    [Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::SqlServer, Dialect::Oracle, Dialect::Generic];

/// What scripts break at.
#[allow(dead_code, reason = "not every user of this module mutates")]
pub(crate) const PIECES: &[&str] = &[
    "'",
    "\"",
    "`",
    "[",
    "]",
    "$$",
    "$a$",
    "$1",
    "$",
    "E'",
    "e'",
    "U&'",
    "q'[",
    "]'",
    "nq'(",
    ")'",
    "\\",
    "\\'",
    "\\.",
    "\\.\n",
    ";",
    ";;",
    "\n",
    "\r\n",
    "\r",
    " ",
    "\t",
    "--",
    "-- ",
    "#",
    "/*",
    "*/",
    "/*!",
    "/*!50003 ",
    "/*M!999999",
    "/",
    "\n/\n",
    "\nGO\n",
    "GO 2",
    "\ngo 0\n",
    "(",
    ")",
    ":",
    "::",
    ":a",
    ":b1",
    ":=",
    "?",
    "@",
    ".",
    ",",
    "é",
    "\u{feff}",
    "\u{1f980}",
    "\0",
    "\u{a0}",
    "1",
    "42",
    "a",
    "x$",
    "BEGIN",
    "BEGIN;",
    "BEGIN ATOMIC ",
    "BEGIN NOT ATOMIC ",
    "END",
    "END;",
    " END IF;",
    "CASE ",
    "IF ",
    "LOOP ",
    "REPEAT ",
    "THEN ",
    "ELSE ",
    "CREATE ",
    "OR REPLACE ",
    "CREATE FUNCTION f() ",
    "CREATE PROCEDURE p() ",
    "CREATE TRIGGER t ",
    "CREATE RULE r DO (",
    "FOR EACH ROW ",
    "DO $$",
    "DECLARE ",
    "DELIMITER //\n",
    "delimiter ;\n",
    "//",
    "COPY t FROM STDIN;\n",
    "COMMIT;",
    "ROLLBACK;",
    "COMMIT AND CHAIN;",
    "SELECT ",
    "INSERT INTO t ",
    "SET a = 1;",
    "XA START 'x';",
    "VACUUM;",
    "PRAGMA ",
    "<<",
];

/// Splits, plans and binds, and panics where a promise of the splitter is broken.
pub(crate) fn check_invariants(dialect: Dialect, script: &str) {
    let _ = summary(script);
    let bound = bind_names(dialect, script, &|name| name == "a");
    let unbound = bind_names(dialect, script, &|_| false);
    assert!(unbound.as_ref().is_err() || unbound.is_ok_and(|unbound| unbound.sql == script && unbound.names.is_empty()));
    assert!(bound.is_err() || bound.is_ok_and(|bound| bound.names.iter().all(|name| name == "a")));
    let statements = match split(dialect, script) {
        Ok(statements) => statements,
        Err(error) => {
            assert!(
                script.is_char_boundary(error.offset) && error.line > 0 && error.column > 0 && error.hint.is_some(),
                "{error:?}"
            );
            return;
        }
    };
    check_statements(script, &statements);
    check_gaps(dialect, script, &statements);
    for autocommit in [false, true] {
        check_plan(dialect, script, &statements, autocommit);
    }
}

fn check_statements(script: &str, statements: &[Statement]) {
    let mut end = 0;
    let mut place = (1, 0);
    for (index, statement) in statements.iter().enumerate() {
        let text = &script[statement.text.clone()];
        assert_eq!(statement.number as usize, index + 1);
        assert!(statement.text.start >= end && !text.is_empty(), "{statement:?} overlaps or is empty");
        assert_eq!(text.trim_ascii(), text, "{statement:?} has white space around it");
        assert!((statement.line, statement.column) > place, "{statement:?} is not after line and column {place:?}");
        assert!(statement.repeat > 0);
        assert_eq!(statement_position_to_source(script, statement, 1), (statement.line, statement.column));
        place = (statement.line, statement.column);
        end = statement.text.end;
        if let Some(data) = &statement.copy_data {
            assert!(data.start >= end && script[data.clone()].len() == data.len());
            end = data.end;
        }
    }
}

/// Between the statements is nothing but white space, comments, separators and lines for the client: no token is lost.
fn check_gaps(dialect: Dialect, script: &str, statements: &[Statement]) {
    let mut delimiter = if dialect == Dialect::SqlServer { String::new() } else { ";".to_owned() };
    let mut end = if script.starts_with('\u{feff}') { 3 } else { 0 };
    for statement in statements {
        check_gap(dialect, &script[end..statement.text.start], &mut delimiter);
        end = statement.copy_data.as_ref().map_or(statement.text.end, |data| data.end);
    }
    check_gap(dialect, &script[end..], &mut delimiter);
}

fn check_gap(dialect: Dialect, gap: &str, delimiter: &mut String) {
    let mut rest = gap;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
        let begins = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        let line = rest.find('\n').unwrap_or(rest.len());
        let passed = if rest.is_empty() {
            return;
        } else if !delimiter.is_empty() && rest.starts_with(delimiter.as_str()) {
            delimiter.len()
        } else if rest.starts_with("--") && dialect == Dialect::PostgreSql {
            rest.find(['\n', '\r']).unwrap_or(rest.len())
        } else if rest.starts_with("--")
            || dialect == Dialect::MySql && rest.starts_with('#')
            || dialect == Dialect::SqlServer && begins("go")
        {
            line
        } else if rest.starts_with("/*") {
            comment_length(rest, matches!(dialect, Dialect::PostgreSql | Dialect::SqlServer))
        } else if dialect == Dialect::MySql && begins("delimiter") {
            let argument =
                rest[9..line].split([' ', '\t', '\r', '\u{b}', '\u{c}']).find(|field| !field.is_empty()).expect("it names one");
            let quote = argument.chars().next().expect("it is not empty");
            let quoted = argument.len() > 1 && matches!(quote, '\'' | '"' | '`') && argument.ends_with(quote);
            *delimiter = if quoted { &argument[1..argument.len() - 1] } else { argument }.to_owned();
            line
        } else if dialect == Dialect::Oracle && rest.starts_with('/') {
            1
        } else if dialect == Dialect::PostgreSql && rest.starts_with("\\.") {
            2
        } else {
            panic!("{rest:?} in the gap {gap:?} belongs to no statement")
        };
        rest = &rest[passed..];
    }
}

fn comment_length(text: &str, nested: bool) -> usize {
    let mut depth = 0;
    let mut at = 0;
    loop {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") && (nested || depth == 0) {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            assert!(!rest.is_empty(), "{text:?} is a comment that is never closed");
            at += 1;
        }
    }
}

fn check_plan(dialect: Dialect, script: &str, statements: &[Statement], autocommit: bool) {
    let segments = match plan(dialect, script, statements, autocommit) {
        Ok(segments) => segments,
        Err(error) => {
            assert!(statements.iter().any(|statement| statement.text.start == error.offset), "{error:?}");
            return;
        }
    };
    let mut planned = vec![false; statements.len()];
    let mut end = 0;
    for (index, segment) in segments.iter().enumerate() {
        assert_eq!(segment.number as usize, index);
        assert!(segment.statements.start >= end && !segment.statements.is_empty(), "{segment:?}");
        end = segment.statements.end;
        planned[segment.statements.clone()].fill(true);
        assert!(segment.begin.is_none_or(|begin| statements[begin].verb == Verb::Begin && begin < segment.statements.start));
        let transactional = !matches!(segment.promise, SegmentPromise::AtLeastOnce(_));
        let refuses = |statement: &Statement| match statement.verb {
            Verb::ImplicitCommit | Verb::Begin | Verb::Commit | Verb::Rollback => true,
            Verb::NoTransaction => dialect != Dialect::Sqlite,
            Verb::Read | Verb::Write | Verb::Define | Verb::Session | Verb::Savepoint => false,
        };
        assert!(!transactional || !statements[segment.statements.clone()].iter().any(refuses), "{segment:?}");
    }
    for (statement, planned) in statements.iter().zip(planned) {
        let boundary = matches!(statement.verb, Verb::Begin | Verb::Commit | Verb::Rollback);
        assert!(planned || boundary, "{statement:?} is in no segment");
    }
    let repeated = session_statements_before(dialect, script, statements, &segments, segments.len());
    assert!(repeated.is_sorted());
}
