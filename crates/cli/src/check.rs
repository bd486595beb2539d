//! `backstop check`: everything that is wrong with a project, said at once. It opens no connection.

mod scripts;

use crate::args::{CheckArgs, Place};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::sources::{self, Purpose, Sources};
use crate::{paths, words};
use backstop_connect::{Connector, Dialect};
use backstop_project::definition::{Definition, Project};
use backstop_project::{Diagnostic, Files, Loaded, Severity, Span};
use backstop_runtime::connection_config;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A script that cannot be split into statements, or whose transactions do not fit.
const SCRIPT: &str = "B0701";
/// A connection whose settings its connector refuses.
const CONNECTION: &str = "B0702";
/// A parameter that no statement uses.
const PARAMETER: &str = "B0703";
/// A query that does more than read, or nothing.
const QUESTION: &str = "B0704";
/// A placeholder that has no value.
const PLACEHOLDER: &str = "B0705";
/// A statement that a transaction of several tasks cannot hold.
const WITHIN: &str = "B0805";
/// An isolation level that the database does not have.
const ISOLATION: &str = "B0806";

/// Checks.
pub(crate) fn check(arguments: &CheckArgs, place: &Place) -> Result<Exit, Problem> {
    let mut found = Vec::new();
    let mut dags = 0;
    for group in groups(arguments, place)? {
        let sources = Sources::of_folder(&group.root);
        let loaded = match &group.files {
            None => sources::load(&sources, place, Purpose::Look)?,
            Some(files) => {
                let files: Vec<&str> = files.iter().map(String::as_str).collect();
                let settings = sources::settings(place, &group.root, Purpose::Look)?;
                backstop_project::load_only_with(&sources, &sources::environment(), &settings, &files)
            }
        };
        let mut diagnostics = loaded.diagnostics;
        diagnostics.extend(of_connectors(&loaded.project, &sources));
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
    let mut more = 0;
    for (sources, diagnostics) in found {
        for (diagnostic, repeated) in said_once(diagnostics) {
            text.push_str(&backstop_project::render(&diagnostic, sources, paint.is_on()));
            text.push('\n');
            more += repeated;
            match diagnostic.severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
        }
    }
    let follow =
        if more > 0 { format!(" ({} more follow from backstop.yaml)", words::grouped(more as u64)) } else { String::new() };
    let valid = words::count(dags, "valid DAG");
    let outcome = match (errors, warnings) {
        (0, 0) => format!("{} {valid}, nothing wrong", paint.good("✓")),
        (0, some) => format!("{} {valid}, {}", paint.warn("!"), words::count(some, "warning")),
        (some, 0) => format!("{} {}{follow}; {valid}", paint.bad("✗"), words::count(some, "error")),
        (some, warnings) => {
            let (errors, warnings) = (words::count(some, "error"), words::count(warnings, "warning"));
            format!("{} {errors}{follow}, {warnings}; {valid}", paint.bad("✗"))
        }
    };
    output::data(&format!("{text}{outcome}\n"))
}

/// The diagnostics, each with how often it would be said again. While backstop.yaml has errors, what it shares with all DAGs is missing in each of
/// them: that is said of the first.
fn said_once(diagnostics: &[Diagnostic]) -> Vec<(Diagnostic, usize)> {
    let is_broken = diagnostics.iter().any(|found| found.severity == Severity::Error && found.is_of_project_file());
    let mut told: Vec<(Diagnostic, usize)> = Vec::new();
    let mut first: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for diagnostic in diagnostics {
        let follows = is_broken && diagnostic.names_what_is_shared();
        match first.get(&(diagnostic.code, diagnostic.message.as_str())).filter(|_| follows) {
            Some(place) => told[*place].1 += 1,
            None => {
                first.entry((diagnostic.code, &diagnostic.message)).or_insert(told.len());
                told.push((diagnostic.clone(), 0));
            }
        }
    }
    for (diagnostic, repeated) in told.iter_mut().filter(|(_, repeated)| *repeated > 0) {
        let places = if *repeated == 1 {
            "1 other place".to_owned()
        } else {
            format!("{} other places", words::grouped(*repeated as u64))
        };
        diagnostic.hint = Some(format!("mend backstop.yaml first: this may follow from it, and is so in {places}"));
    }
    told
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
        if !path.exists() {
            let (root, files) = by_name(path, place)?;
            // A folder that was named, too, has all of its DAGs.
            if let Some(all) = groups.entry(root).or_insert_with(|| Some(BTreeSet::new())) {
                all.extend(files);
            }
            continue;
        }
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

/// The project, and the files of the DAG that a person named: no file or folder is called so.
fn by_name(named: &Path, place: &Place) -> Result<(PathBuf, Vec<String>), Problem> {
    let name = named.to_string_lossy();
    let root = paths::project(place).map_err(|problem| {
        let neither =
            Problem::usage(format!("there is no file or folder `{name}`, and no project that could have a DAG of that name"));
        problem.hints.into_iter().fold(neither.cause(problem.message), Problem::hint)
    })?;
    let sources = Sources::of_folder(&root);
    let dags = backstop_project::load(&sources, &sources::environment()).dag_files;
    if let Some((_, files)) = dags.iter().find(|(id, _)| id.as_str() == name) {
        return Ok((root, files.iter().map(|file| file.to_string()).collect()));
    }
    let mut problem =
        Problem::usage(format!("there is neither a file or folder `{name}` nor a DAG of that name in {}", root.display()));
    let files = sources.list("dags", &[".yaml", ".yml"]).unwrap_or_default();
    if let Some(near) = words::did_you_mean(&name, files.iter().map(String::as_str)) {
        problem = problem.hint(format!("did you mean the file `{near}`?"));
    }
    let known = dags.keys().map(backstop_core::DagId::as_str);
    Err(words::hints_for_name(&name, "DAGs", known).into_iter().fold(problem, Problem::hint))
}

/// What the databases' own rules find: settings of connections, and scripts.
fn of_connectors(project: &Project, files: &dyn Files) -> Vec<Diagnostic> {
    let (dialects, mut found) = dialects(project);
    let definitions = project.dags.values().map(|definition| &**definition);
    found.extend(scripts::wrong(definitions, &dialects, files));
    found
}

/// What they find in the SQL of one DAG, which must not run when there is an error: the part before it would take effect.
pub(crate) fn of_dag(definition: &Definition, project: &Project, files: &dyn Files) -> Vec<Diagnostic> {
    scripts::wrong(std::iter::once(definition), &dialects(project).0, files)
}

/// Takes the DAGs whose SQL is wrong out of what was loaded, and tells why.
pub(crate) fn leave_out_wrong(loaded: &mut Loaded, files: &dyn Files) {
    let dialects = dialects(&loaded.project).0;
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    let mut wrong = Vec::new();
    for (id, definition) in &loaded.project.dags {
        let diagnostics = scripts::wrong(std::iter::once(&**definition), &dialects, files);
        if diagnostics.iter().any(|found| found.severity == Severity::Error) {
            wrong.push(id.clone());
        }
        // DAGs may share a script.
        found.extend(diagnostics.into_iter().filter(|one| told.insert((one.place.clone(), one.message.clone()))));
    }
    loaded.project.dags.retain(|id, _| !wrong.contains(id));
    loaded.diagnostics.extend(found);
    loaded.diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
}

/// The dialects of the connections that can be used, and what is wrong with the others.
fn dialects(project: &Project) -> (BTreeMap<&str, Dialect>, Vec<Diagnostic>) {
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
    (dialects, found)
}

/// `backstop.yaml:12` as a place.
fn place_of(origin: &str) -> Option<Span> {
    let (file, line) = origin.rsplit_once(':')?;
    Some(Span { file: file.into(), line: line.parse().ok()?, column: 1, length: 1 })
}
