//! `backstop check`: everything that is wrong with a project, said at once. It opens no connection.

use crate::args::{CheckArgs, Place};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::sources::{self, Sources};
use crate::{paths, words};
use backstop_connect::script;
use backstop_connect::{Connector, Dialect};
use backstop_project::definition::{Body, Callback, Callbacks, Definition, Kind, Project, Sql, Template};
use backstop_project::{Diagnostic, Severity, Span};
use backstop_runtime::connection_config;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A script that cannot be split into statements, or whose transactions do not fit.
const SCRIPT: &str = "B0701";
/// A connection whose settings its connector refuses.
const CONNECTION: &str = "B0702";

/// Checks.
pub(crate) fn check(arguments: &CheckArgs, place: &Place) -> Result<Exit, Problem> {
    let mut found = Vec::new();
    let mut dags = 0;
    for group in groups(arguments, place)? {
        let sources = Sources::of_folder(&group.root);
        let environment = sources::environment();
        let loaded = match &group.files {
            None => backstop_project::load(&sources, &environment),
            Some(files) => {
                let files: Vec<&str> = files.iter().map(String::as_str).collect();
                backstop_project::load_only(&sources, &environment, &files)
            }
        };
        let mut diagnostics = loaded.diagnostics;
        diagnostics.extend(of_connectors(&loaded.project));
        diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
        dags += loaded.project.dags.len();
        found.push((sources, diagnostics));
    }
    if arguments.json {
        let all: Vec<_> = found.iter().flat_map(|(_, diagnostics)| diagnostics.iter().map(Diagnostic::to_json)).collect();
        output::json(&all)?;
    } else {
        told(&found, dags)?;
    }
    let is_wrong = found.iter().flat_map(|(_, diagnostics)| diagnostics).any(|found| found.severity == Severity::Error);
    Ok(if is_wrong { Exit::Usage } else { Exit::Success })
}

fn told(found: &[(Sources, Vec<Diagnostic>)], dags: usize) -> Result<(), Problem> {
    let paint = Painter::stdout();
    let mut text = String::new();
    let (mut errors, mut warnings) = (0, 0);
    for (sources, diagnostics) in found {
        for diagnostic in diagnostics {
            text.push_str(&backstop_project::render(diagnostic, sources, paint.is_on()));
            text.push('\n');
            match diagnostic.severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
        }
    }
    let valid = words::count(dags, "valid DAG");
    let outcome = match (errors, warnings) {
        (0, 0) => format!("{} {valid}, nothing wrong", paint.good("✓")),
        (0, some) => format!("{} {valid}, {}", paint.warn("!"), words::count(some, "warning")),
        (some, 0) => format!("{} {}; {valid}", paint.bad("✗"), words::count(some, "error")),
        (some, more) => format!("{} {}, {}; {valid}", paint.bad("✗"), words::count(some, "error"), words::count(more, "warning")),
    };
    output::data(&format!("{text}{outcome}\n"))
}

/// A project folder, and which of its DAG files; all where it is `None`.
struct Group {
    root: PathBuf,
    files: Option<BTreeSet<String>>,
}

fn groups(arguments: &CheckArgs, place: &Place) -> Result<Vec<Group>, Problem> {
    if arguments.paths.is_empty() {
        return Ok(vec![Group { root: paths::project(place)?, files: None }]);
    }
    let mut groups: BTreeMap<PathBuf, Option<BTreeSet<String>>> = BTreeMap::new();
    for path in &arguments.paths {
        if path.is_dir() {
            groups.insert(paths::named_project(path)?, None);
            continue;
        }
        let (root, inside) = sources::locate(path, place)?;
        if !matches!(Path::new(&inside).extension().and_then(|ending| ending.to_str()), Some("yaml" | "yml")) {
            return Err(Problem::usage(format!("{} is neither a folder nor a .yaml file", path.display()))
                .hint("SQL files are checked with the DAGs that name them"));
        }
        if inside == paths::PROJECT_FILE {
            groups.insert(root, None);
        } else if let Some(files) = groups.entry(root).or_insert_with(|| Some(BTreeSet::new())) {
            files.insert(inside);
        }
    }
    Ok(groups.into_iter().map(|(root, files)| Group { root, files }).collect())
}

/// What the databases' own rules find: settings of connections, and scripts.
fn of_connectors(project: &Project) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut dialects: BTreeMap<&str, Dialect> = BTreeMap::new();
    for (id, connection) in &project.connections {
        match backstop_connect::connector(&connection_config(id, connection, &project.root)) {
            Ok(connector) => {
                dialects.insert(id, Connector::dialect(&*connector));
            }
            Err(error) => found.push(Diagnostic {
                code: CONNECTION,
                severity: Severity::Error,
                message: format!("{} (defined in {})", error.message, connection.origin),
                place: place_of(&connection.origin),
                labels: Vec::new(),
                hint: error.hint,
            }),
        }
    }
    let mut seen = BTreeSet::new();
    for definition in project.dags.values() {
        for (sql, connection) in scripts(definition) {
            let source = &sql.script.source;
            let Some(dialect) = connection.and_then(|id| dialects.get(id)).copied() else { continue };
            // One file may be the script of many tasks; what is wrong with it is told once.
            let key = (source.file.clone(), source.line, source.column, format!("{dialect:?}"), sql.autocommit);
            if !is_templated(sql) && seen.insert(key) {
                found.extend(of_script(sql, dialect));
            }
        }
    }
    found
}

/// `backstop.yaml:12` as a place.
fn place_of(origin: &str) -> Option<Span> {
    let (file, line) = origin.rsplit_once(':')?;
    Some(Span { file: file.into(), line: line.parse().ok()?, column: 1, length: 1 })
}

/// Every script of a DAG with the connection it runs on, callbacks included.
fn scripts(definition: &Definition) -> Vec<(&Sql, Option<&str>)> {
    let mut found = of_callbacks(&definition.callbacks);
    for body in &definition.bodies {
        found.extend(of_body(body));
        found.extend(of_callbacks(&body.callbacks));
    }
    found
}

fn of_body(body: &Body) -> Option<(&Sql, Option<&str>)> {
    match &body.kind {
        Kind::Sql(sql) => Some((sql, body.connection.as_deref())),
        Kind::Check(_) | Kind::Branch(_) | Kind::Sensor(_) | Kind::Shell(_) | Kind::Python(_) | Kind::Http(_) | Kind::Empty => {
            None
        }
    }
}

fn of_callbacks(callbacks: &Callbacks) -> Vec<(&Sql, Option<&str>)> {
    let all = callbacks.on_failure.iter().chain(&callbacks.on_retry).chain(&callbacks.on_success);
    all.filter_map(|callback: &Callback| match &callback.kind {
        Kind::Sql(sql) => Some((sql, callback.connection.as_deref())),
        Kind::Check(_) | Kind::Branch(_) | Kind::Sensor(_) | Kind::Shell(_) | Kind::Python(_) | Kind::Http(_) | Kind::Empty => {
            None
        }
    })
    .collect()
}

/// Whether the script's text is known only when it runs.
pub(crate) fn is_templated(sql: &Sql) -> bool {
    sql.templated && ["{{", "{%", "{#"].iter().any(|sign| sql.script.text.contains(sign))
}

fn of_script(sql: &Sql, dialect: Dialect) -> Option<Diagnostic> {
    let text = &sql.script.text;
    let error = match script::split(dialect, text) {
        Ok(statements) => script::plan(dialect, text, &statements, sql.autocommit).err()?,
        Err(error) => error,
    };
    Some(Diagnostic {
        code: SCRIPT,
        severity: Severity::Error,
        message: error.what.clone(),
        place: Some(span(&sql.script, error.line, error.column)),
        labels: Vec::new(),
        hint: error.hint,
    })
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
