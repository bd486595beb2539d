//! A statement's line in a text is a line of its file: the mapping that errors of the database rely on.

use super::definition;
use crate::definition::Kind;

/// Every line of the script of the first task stands at the line and column that its source says.
fn check(text: &str, first: (u32, u32)) {
    let definition = definition(text);
    let Kind::Sql(sql) = &definition.bodies[0].kind else { panic!("no script") };
    let source = &sql.script.source;
    assert_eq!((source.line, source.column), first, "{text}");
    let path = format!("//- {}\n", source.file);
    let file = text.split_once(&path).map_or(text, |(_, file)| file);
    let lines: Vec<&str> = file.split('\n').collect();
    for (nth, line) in sql.script.text.lines().enumerate() {
        if line.is_empty() {
            continue;
        }
        let written: String = lines[source.line as usize - 1 + nth].chars().skip(source.column as usize - 1).collect();
        assert!(written.starts_with(line), "line {nth} is {line:?}, and the file has {written:?}");
    }
}

#[test]
fn lines_of_scripts_are_lines_of_their_files() {
    let dag = |sql: &str| format!("dag: d\nconnection: db\ntasks:\n  a:\n    sql: {sql}\n");
    check(&dag("SELECT 1"), (5, 10));
    check(&dag("'SELECT 1'"), (5, 11));
    check(&dag("\"SELECT 1\""), (5, 11));
    check(&dag("|\n      SELECT 1;\n        SELECT 2;\n\n      SELECT 3"), (6, 7));
    check(&dag("|\n\n\n      SELECT 1;\n      SELECT 2"), (6, 7));
    check(&dag("|2\n        SELECT 1;\n      SELECT 2"), (6, 7));
    check(&dag("|- # a comment\n     SELECT é;\n     SELECT 2"), (6, 6));
    check(&dag(">\n      SELECT 1"), (6, 7));
    check(
        "//- dags/d.yaml\ndag: d\nconnection: db\ntasks: {a: {sql: sql/a.sql}}\n//- sql/a.sql\nSELECT 1;\n\nSELECT 2;\n",
        (1, 1),
    );
}

#[test]
fn inline_python_and_callbacks_know_their_lines() {
    let definition = definition(
        "dag: d\nconnection: db\ntasks:\n  a:\n    python:\n      code: |\n        print(1)\n    on_failure:\n      - shell: echo no\n",
    );
    let body = &definition.bodies[0];
    let Kind::Python(python) = &body.kind else { panic!("no python") };
    let crate::definition::PythonCode::Inline(source, code) = &python.code else { panic!("no code") };
    assert_eq!((source.line, source.column, &**code), (7, 9, "print(1)\n"));
    let Kind::Shell(shell) = &body.callbacks.on_failure[0].kind else { panic!("no shell") };
    assert_eq!((shell.command.source.line, shell.command.source.column), (9, 16));
}

#[test]
fn a_key_is_found_where_it_stands() {
    let text = "dag: d\nconnection: db\ntasks:\n  first:\n    check: {sql: SELECT :n, parameters: {n: 1}}\n    on_failure:\n      - sql: SELECT :m\n        \
                parameters:\n          m: 2\n  g:\n    tasks:\n      inner: {sql: SELECT :k, parameters: {k: 3}}\n";
    let (bundle, _) = super::loaded(text);
    let definition = definition(text);
    let place = |source: &crate::definition::Source, keys: &[&str]| {
        crate::place_of_key(&bundle, source, keys).map(|at| (at.line, at.column, at.length))
    };
    let (first, inner) = (&definition.bodies[0], &definition.bodies[1]);
    assert_eq!(place(&first.source, &["check", "parameters", "n"]), Some((5, 42, 1)));
    assert_eq!(place(&first.callbacks.on_failure[0].source, &["parameters", "m"]), Some((9, 11, 1)));
    assert_eq!(place(&inner.source, &["parameters", "k"]), Some((12, 44, 1)));
    assert_eq!(place(&inner.source, &["parameters", "n"]), None);
}
