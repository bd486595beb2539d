//! What to load: a project's DAG by name, one DAG file, or a bare SQL file that becomes a DAG of one task.

use crate::args::Place;
use crate::explain::Problem;
use crate::output::{self, Painter};
use crate::paths::Kept;
use crate::runs::block_on;
use crate::{paths, words};
use backstop_project::definition::{Connection, Definition, Project};
use backstop_project::{Diagnostic, Disk, Environment, Files, Loaded, Overrides, Severity};
use backstop_runtime::service::settings::Kept as Settings;
use backstop_store::sqlite::Options;
use backstop_store::{ErrorKind, SqliteStore};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The connection that `--connection URI` makes. `backstop.yaml` is unlikely to have one of this name.
const GIVEN_CONNECTION: &str = "command_line";

/// The project folder, and a DAG file that exists only for this command.
pub(crate) struct Sources {
    disk: Disk,
    /// Path and text of the made DAG.
    made: Option<(String, String)>,
}

impl Sources {
    /// A folder as it is.
    pub(crate) fn of_folder(folder: impl Into<PathBuf>) -> Self {
        Self { disk: Disk::new(folder), made: None }
    }
}

impl Files for Sources {
    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        match &self.made {
            Some((made, text)) if made == path => Ok(text.clone().into_bytes()),
            Some(_) | None => self.disk.read(path),
        }
    }

    fn size(&self, path: &str) -> Option<u64> {
        match &self.made {
            Some((made, text)) if made == path => Some(text.len() as u64),
            Some(_) | None => self.disk.size(path),
        }
    }

    fn list(&self, folder: &str, endings: &[&str]) -> io::Result<Vec<String>> {
        self.disk.list(folder, endings)
    }

    fn root(&self) -> &Path {
        self.disk.root()
    }
}

/// A DAG, and the project it stands in.
pub(crate) struct Chosen {
    pub(crate) project: Arc<Project>,
    pub(crate) definition: Arc<Definition>,
    /// What they were loaded from.
    pub(crate) sources: Sources,
}

/// The variables of this process.
pub(crate) fn environment() -> Environment {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// What a command does with the store, when it reads what people set there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It runs things: it must know all that is set, and brings a store of an older version up to date.
    Run,
    /// It looks: a store that cannot be read is told of and passed over.
    Look,
}

/// Variables and pools that people set in a project's store: here they stand before those of backstop.yaml as they do in a service.
pub(crate) fn settings(place: &Place, root: &Path, purpose: Purpose) -> Result<Overrides, Problem> {
    let store = Kept::of(place, root).store;
    if !store.exists() {
        return Ok(Overrides::default());
    }
    let open = || match (SqliteStore::open_read_only(&store), purpose) {
        (Err(error), Purpose::Run) if error.kind == ErrorKind::Open => SqliteStore::open(&store, Options::default()),
        (opened, Purpose::Run | Purpose::Look) => opened,
    };
    let read = || block_on(async { Ok(Settings::read(&open()?).await?.overrides()) });
    // On a thread of its own: who asks may be in a runtime already.
    let read = std::thread::scope(|scope| scope.spawn(read).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    match read {
        Err(problem) if purpose == Purpose::Look => {
            output::warn(&format!("variables and pools that are set in the store are not known here: {}", problem.message));
            Ok(Overrides::default())
        }
        read => read,
    }
}

/// Loads all DAGs of a project.
pub(crate) fn load(sources: &Sources, place: &Place, purpose: Purpose) -> Result<Loaded, Problem> {
    let settings = settings(place, sources.root(), purpose)?;
    Ok(backstop_project::load_with(sources, &environment(), &settings))
}

/// Loads what a person named.
pub(crate) fn choose(target: &str, connection: Option<&str>, place: &Place, purpose: Purpose) -> Result<Chosen, Problem> {
    let path = Path::new(target);
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    if ending == "sql" {
        return sql_file(path, connection, place, purpose);
    }
    if connection.is_some() {
        return Err(Problem::usage("--connection is for .sql files").hint("a DAG says `connection:` itself"));
    }
    match ending.as_str() {
        "yaml" | "yml" => dag_file(path, place, purpose),
        _ if target.contains('/') => Err(Problem::usage(format!("`{target}` is neither a .yaml file nor a .sql file"))
            .hint("name a DAG, a DAG's file, or a SQL file")),
        _ => by_name(target, place, purpose),
    }
}

fn by_name(name: &str, place: &Place, purpose: Purpose) -> Result<Chosen, Problem> {
    let sources = Sources::of_folder(paths::project(place)?);
    let loaded = load(&sources, place, purpose)?;
    if let Some(definition) = loaded.project.dags.get(name).cloned() {
        let file = definition.file.clone();
        show(&sources, loaded.diagnostics.iter().filter(|found| found.place.as_ref().is_some_and(|at| at.file == file)));
        return Ok(Chosen { project: Arc::new(loaded.project), definition, sources });
    }
    let known: Vec<&str> = loaded.project.dags.keys().map(backstop_core::DagId::as_str).collect();
    let errors = errors(&loaded);
    if errors > 0 {
        show(&sources, loaded.diagnostics.iter());
    }
    let mut problem = if errors > 0 {
        Problem::usage(format!("there is no valid DAG `{name}`, and the project has {}", words::count(errors, "error")))
    } else {
        Problem::usage(format!("there is no DAG `{name}` in {}", sources.root().display()))
    };
    if errors == 0 || !known.is_empty() {
        problem.hints = words::hints_for_name(name, "DAGs", known);
    }
    Err(problem)
}

/// The folder that a file's paths start from, and the file's path within it.
pub(crate) fn locate(file: &Path, place: &Place) -> Result<(PathBuf, String), Problem> {
    let absolute = std::fs::canonicalize(file).map_err(|error| Problem::system(format!("open {}", file.display()), &error))?;
    let beside = absolute.parent().unwrap_or(Path::new("/"));
    let root = match place.project() {
        Some(folder) => paths::named_project(folder)?,
        None => paths::above(beside).unwrap_or_else(|| beside.to_owned()),
    };
    let inside = absolute.strip_prefix(&root).ok().and_then(Path::to_str).map(str::to_owned);
    let inside = inside.ok_or_else(|| {
        Problem::usage(format!("{} lies outside of the project folder {}", file.display(), root.display()))
            .hint("move it into the project, or leave --project out")
    })?;
    Ok((root, inside))
}

fn dag_file(file: &Path, place: &Place, purpose: Purpose) -> Result<Chosen, Problem> {
    let (root, inside) = locate(file, place)?;
    let settings = settings(place, &root, purpose)?;
    let sources = Sources::of_folder(root);
    let loaded = backstop_project::load_only_with(&sources, &environment(), &settings, &[&inside]);
    only(sources, loaded)
}

fn sql_file(file: &Path, connection: Option<&str>, place: &Place, purpose: Purpose) -> Result<Chosen, Problem> {
    let Some(connection) = connection else {
        return Err(Problem::usage(format!("{} needs to know where to run", file.display())).hint(
            "add --connection with a connection of the project, or a URI such as sqlite:data.db or postgres://user@host/database",
        ));
    };
    let (root, inside) = locate(file, place)?;
    let mut environment = environment();
    let is_uri = connection.contains(':');
    let id = if is_uri { GIVEN_CONNECTION } else { known_connection(connection, &root)? };
    if is_uri {
        environment.insert(format!("BACKSTOP_CONN_{}", GIVEN_CONNECTION.to_uppercase()), connection.to_owned());
    }
    let name = task_name(file);
    // JSON texts are YAML texts, whatever stands in the path.
    let text = format!(
        "dag: {name}\ndescription: {}\ntasks:\n  {name}:\n    sql: {}\n    connection: {}\n",
        serde_json::Value::from(format!("{inside}, run by itself")),
        serde_json::Value::from(inside.as_str()),
        serde_json::Value::from(id),
    );
    let made = format!("{}/{name}.yaml", paths::KEPT);
    let settings = settings(place, &root, purpose)?;
    let sources = Sources { disk: Disk::new(root), made: Some((made.clone(), text)) };
    let mut loaded = backstop_project::load_only_with(&sources, &environment, &settings, &[&made]);
    if is_uri {
        from_here(&mut loaded.project)?;
    }
    only(sources, loaded)
}

/// The id of a connection that was named at the command line, when there is such a one.
fn known_connection<'c>(id: &'c str, root: &Path) -> Result<&'c str, Problem> {
    let sources = Sources::of_folder(root);
    let loaded = backstop_project::load_only(&sources, &environment(), &[]);
    if loaded.project.connections.contains_key(&id.to_lowercase()) {
        return Ok(id);
    }
    // The one that was meant may be there, and be wrong.
    show(&sources, loaded.diagnostics.iter());
    Err(no_such_connection(id, &loaded.project).hint("or give a URI such as sqlite:data.db or postgres://user@host/database"))
}

/// The error for a connection that is not there.
fn no_such_connection(id: &str, project: &Project) -> Problem {
    let mut problem = Problem::usage(format!("there is no connection `{id}` in {}", project.root.display()));
    problem.hints = words::hints_for_name(id, "connections", project.connections.keys().map(String::as_str));
    problem
}

/// The connections that were named, each once; all of them when none was.
pub(crate) fn connections<'p>(ids: &[String], project: &'p Project) -> Result<BTreeMap<&'p str, &'p Connection>, Problem> {
    if ids.is_empty() {
        return Ok(project.connections.iter().map(|(id, connection)| (id.as_str(), connection)).collect());
    }
    let find = |id: &String| project.connections.get_key_value(&id.to_lowercase()).ok_or_else(|| no_such_connection(id, project));
    ids.iter().map(|id| find(id).map(|(id, connection)| (id.as_str(), connection))).collect()
}

/// A relative SQLite path that was typed at the command line starts from where the person stands, not from the project folder.
fn from_here(project: &mut Project) -> Result<(), Problem> {
    if let Some(connection) = project.connections.get_mut(GIVEN_CONNECTION)
        && connection.conn_type == "sqlite"
        && let Some(path) = &connection.database
        && !path.starts_with(':')
    {
        let absolute = paths::current_folder()?.join(path);
        connection.database = Some(absolute.to_string_lossy().into_owned());
    }
    Ok(())
}

/// A file's name as an id.
fn task_name(file: &Path) -> String {
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name: String =
        stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).take(200).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("script_{name}") }
}

/// The one DAG of a file.
fn only(sources: Sources, loaded: Loaded) -> Result<Chosen, Problem> {
    show(&sources, loaded.diagnostics.iter());
    let errors = errors(&loaded);
    let definition = loaded.project.dags.values().next().cloned();
    match definition {
        Some(definition) => Ok(Chosen { project: Arc::new(loaded.project), definition, sources }),
        None if errors > 0 => Err(Problem::usage(format!("the file has {}", words::count(errors, "error")))),
        None => Err(Problem::usage("the file has no DAG").hint("a DAG begins with `dag: <id>` and has `tasks:`")),
    }
}

/// How many errors there are, warnings aside.
pub(crate) fn errors(loaded: &Loaded) -> usize {
    loaded.diagnostics.iter().filter(|found| found.severity == Severity::Error).count()
}

/// Tells diagnostics on standard error.
pub(crate) fn show<'d>(files: &dyn Files, diagnostics: impl Iterator<Item = &'d Diagnostic>) {
    let colour = Painter::stderr().is_on();
    for found in diagnostics {
        output::tell(&format!("{}\n", backstop_project::render(found, files, colour)));
    }
}
