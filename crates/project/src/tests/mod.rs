//! Tests of the crate as a whole: sources in as text, diagnostics or definitions out.

mod codes;
mod graphs;
mod loading;
mod mutations;
mod places;
mod schedules;
mod schema;
mod templates;

use crate::{Bundle, Environment, Loaded, load, render};

/// Files of a project in one text: each begins with a line `//- path`. A text without such a line is `dags/d.yaml`.
fn project(text: &str) -> Bundle {
    let mut bundle = Bundle { root: "/projects/shop".into(), ..Bundle::default() };
    let mut path = "dags/d.yaml".to_owned();
    for line in text.split_inclusive('\n') {
        if let Some(named) = line.strip_prefix("//- ") {
            path = named.trim().to_owned();
            bundle.files.insert(path.clone(), Vec::new());
        } else {
            bundle.files.entry(path.clone()).or_default().extend_from_slice(line.as_bytes());
        }
    }
    bundle
}

/// Loads a project with two connections, `db` (PostgreSQL) and `lite` (SQLite), beside those it has.
fn loaded(text: &str) -> (Bundle, Loaded) {
    let bundle = project(text);
    let environment = Environment::from([
        ("BACKSTOP_CONN_DB".to_owned(), "postgres://ann:s3cret@pg.example:5433/shop".to_owned()),
        ("BACKSTOP_CONN_LITE".to_owned(), "sqlite:///shop.db".to_owned()),
        ("BACKSTOP_CONN_MARIA".to_owned(), "mysql://bob@maria.example/shop".to_owned()),
    ]);
    let loaded = load(&bundle, &environment);
    (bundle, loaded)
}

/// Every diagnostic of a project, as people see it.
fn report(text: &str) -> String {
    let (bundle, loaded) = loaded(text);
    let rendered: Vec<String> = loaded.diagnostics.iter().map(|diagnostic| render(diagnostic, &bundle, false)).collect();
    rendered.join("\n")
}

/// The one DAG of a project without errors.
fn definition(text: &str) -> std::sync::Arc<crate::Definition> {
    let (_, loaded) = loaded(text);
    assert!(loaded.is_valid(), "{}", report(text));
    loaded.project.dags.values().next().expect("a DAG").clone()
}
