//! The way in: a folder, or a kept bundle, becomes a project.

use crate::definition::{Definition, Project};
use crate::diagnostic::{Diagnostic, Severity, Span, code};
use crate::environment::{self, Environment};
use crate::files::{self, Bundle, Files, ReadError};
use crate::overrides::Overrides;
use crate::read::{self, Everyone, Other, Reading, Scope, assets_nobody_updates, circles, has_errors, project};
use crate::secrets::SERVICE_TOKEN;
use crate::template::check::Checker;
use crate::yaml::{self, Node};
use backstop_core::DagId;
use backstop_core::dag::Pool;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What loading came to.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that is valid.
    pub project: Project,
    /// Everything that is not, by file and place.
    pub diagnostics: Vec<Diagnostic>,
    /// The files that define each DAG, also of those with errors. More than one is an error.
    pub dag_files: BTreeMap<DagId, Vec<Arc<str>>>,
}

impl Loaded {
    /// True when nothing is wrong but what warnings tell.
    pub fn is_valid(&self) -> bool {
        self.diagnostics.iter().all(|diagnostic| diagnostic.severity == Severity::Warning)
    }
}

/// Loads a project: backstop.yaml and every YAML file below `dags/`. It never fails: a DAG with errors is absent from the project, and everything
/// wrong is reported at once. Where an error of backstop.yaml concerns all DAGs (its syntax, its keys, its pools and defaults), all are absent: a
/// DAG never runs with other settings than those written.
pub fn load(files: &dyn Files, environment: &Environment) -> Loaded {
    load_with(files, environment, &Overrides::default())
}

/// As [`load`], with variables and pools that stand before those of backstop.yaml.
pub fn load_with(files: &dyn Files, environment: &Environment, overrides: &Overrides) -> Loaded {
    let mut diagnostics = Vec::new();
    let listed = files.list("dags", &[".yaml", ".yml"]).unwrap_or_else(|error| {
        diagnostics.push(Diagnostic::elsewhere(code::UNREADABLE, format!("folder `dags` cannot be read: {error}")));
        Vec::new()
    });
    let paths: Vec<&str> = listed.iter().map(String::as_str).collect();
    // Of a part of the DAGs nobody can say which there are.
    let is_whole = diagnostics.is_empty();
    let mut loaded = load_dags(files, environment, overrides, &paths, is_whole);
    loaded.diagnostics.splice(..0, diagnostics);
    loaded
}

/// As [`load`], with these DAG files (paths from the project folder) instead of those below `dags/`. Other DAGs that they name are not looked for.
pub fn load_only(files: &dyn Files, environment: &Environment, dag_files: &[&str]) -> Loaded {
    load_only_with(files, environment, &Overrides::default(), dag_files)
}

/// As [`load_only`], with variables and pools that stand before those of backstop.yaml.
pub fn load_only_with(files: &dyn Files, environment: &Environment, overrides: &Overrides, dag_files: &[&str]) -> Loaded {
    load_dags(files, environment, overrides, dag_files, false)
}

fn load_dags(files: &dyn Files, environment: &Environment, overrides: &Overrides, dag_files: &[&str], is_whole: bool) -> Loaded {
    let mut checker = Checker::default();
    let mut shared = load_shared(files, environment, overrides, &mut checker);
    let mut dags: BTreeMap<DagId, Arc<Definition>> = BTreeMap::new();
    let mut places: BTreeMap<DagId, Span> = BTreeMap::new();
    let mut defined_in: BTreeMap<DagId, Vec<Arc<str>>> = BTreeMap::new();
    let mut others: BTreeMap<DagId, Vec<Other>> = BTreeMap::new();
    let mut awaited_assets = Vec::new();
    let mut some_are_unread = false;
    for path in dag_files {
        let Some(text) = read_yaml(files, path, &mut shared.diagnostics) else {
            some_are_unread = true;
            continue;
        };
        let file = Arc::from(files::normal(path));
        let read = read::read_dag(files, &file, &text, shared.kept_yaml.as_deref(), &shared.scope, &mut checker);
        shared.diagnostics.extend(read.diagnostics);
        let Some((id, at)) = read.id else {
            some_are_unread = true;
            continue;
        };
        awaited_assets.extend(read.awaited_assets);
        if !read.others.is_empty() {
            others.entry(id.clone()).or_default().extend(read.others);
        }
        defined_in.entry(id.clone()).or_default().push(at.file.clone());
        match places.get(&id) {
            Some(first) => {
                // Which of the two was meant is not guessed: neither runs.
                let diagnostic = Diagnostic::error(code::DUPLICATE_DAG, format!("DAG `{id}` is defined twice"), at);
                shared.diagnostics.push(diagnostic.label(first.clone(), "first here").hint("rename one of them"));
                dags.remove(&id);
            }
            None => {
                places.insert(id.clone(), at);
                dags.extend(read.definition.filter(|_| !shared.flawed).map(|definition| (id, definition)));
            }
        }
    }
    if is_whole {
        // Of DAGs that are wrong nobody knows what they update.
        if !some_are_unread && dags.len() == defined_in.len() {
            shared.diagnostics.extend(assets_nobody_updates(&awaited_assets, &dags));
        }
        look_at_others(&mut dags, &defined_in, &others, some_are_unread, &mut shared.diagnostics);
    }
    shared.diagnostics.sort_by(|a, b| a.place.cmp(&b.place));
    let project = Project { root: files.root().to_owned(), dags, ..shared.project };
    Loaded { project, diagnostics: shared.diagnostics, dag_files: defined_in }
}

/// Checks what DAGs say of each other, and takes away those that are wrong.
fn look_at_others(
    dags: &mut BTreeMap<DagId, Arc<Definition>>,
    defined_in: &BTreeMap<DagId, Vec<Arc<str>>>,
    others: &BTreeMap<DagId, Vec<Other>>,
    some_are_unread: bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let everyone = Everyone { dags, ids: defined_in.keys().collect(), some_are_unread };
    let found: Vec<(&DagId, Vec<Diagnostic>)> = others.iter().map(|(dag, others)| (dag, everyone.check(others))).collect();
    for (dag, found) in found {
        if has_errors(&found) {
            dags.remove(dag);
        }
        diagnostics.extend(found);
    }
    diagnostics.extend(circles(others));
}

/// Loads the definition that a run is pinned to, from the bundle kept with the run. Connections and variables are those of the live project.
///
/// # Errors
/// Everything that is wrong with it, such as a connection that is no longer there.
pub fn load_definition(bundle: &Bundle, dag: &DagId, live: &Project) -> Result<Arc<Definition>, Vec<Diagnostic>> {
    load_kept(bundle, dag, live, false)
}

/// As [`load_definition`], also where it names connections, pools, notifiers or variables that the live project has no more: to end a run that
/// cannot go on. It has the tasks and edges that the run began with; what is missing is missed when it is used.
///
/// # Errors
/// What else is wrong with it.
pub fn load_unfit(bundle: &Bundle, dag: &DagId, live: &Project) -> Result<Arc<Definition>, Vec<Diagnostic>> {
    load_kept(bundle, dag, live, true)
}

fn load_kept(bundle: &Bundle, dag: &DagId, live: &Project, is_forgiving: bool) -> Result<Arc<Definition>, Vec<Diagnostic>> {
    let mut checker = Checker::default();
    let mut shared = load_shared(bundle, &Environment::new(), &live.overrides, &mut checker);
    shared.scope.connections = live.connections.keys().map(|id| (id.clone(), true)).collect();
    shared.scope.variables = live.variables.keys().cloned().collect();
    shared.scope.is_forgiving = is_forgiving;
    // Notifiers and defaults name connections, which are only known now.
    shared.diagnostics.clear();
    let root = shared.root.clone();
    let flawed = share(bundle, root.as_ref(), &live.overrides, &mut shared.scope, &mut checker, &mut shared.diagnostics);
    let paths = bundle.list("", &[".yaml", ".yml"]).unwrap_or_default();
    for path in paths.iter().filter(|path| *path != project::FILE) {
        let Some(text) = read_yaml(bundle, path, &mut shared.diagnostics) else { continue };
        let file = Arc::from(path.as_str());
        let read = read::read_dag(bundle, &file, &text, shared.kept_yaml.as_deref(), &shared.scope, &mut checker);
        shared.diagnostics.extend(read.diagnostics);
        if read.id.is_some_and(|(id, _)| id == *dag) {
            return read.definition.filter(|_| is_forgiving || !flawed).ok_or(shared.diagnostics);
        }
    }
    let message = format!("the sources kept with the run have no DAG `{dag}`");
    shared.diagnostics.push(Diagnostic::elsewhere(code::MISSING_FILE, message));
    Err(shared.diagnostics)
}

/// What all DAGs of a project share.
struct Shared {
    /// Without DAGs.
    project: Project,
    scope: Scope,
    /// backstop.yaml as bundles keep it.
    kept_yaml: Option<Vec<u8>>,
    root: Option<Arc<Node>>,
    /// backstop.yaml has errors that concern all DAGs.
    flawed: bool,
    diagnostics: Vec<Diagnostic>,
}

fn load_shared(files: &dyn Files, environment: &Environment, overrides: &Overrides, checker: &mut Checker) -> Shared {
    let mut diagnostics = Vec::new();
    let file: Arc<str> = project::FILE.into();
    // A project without backstop.yaml is one of defaults.
    let there = !matches!(files::read_text(files, project::FILE, files::YAML_BYTES_MAX), Err(ReadError::NotFound));
    let text = if there { read_yaml(files, project::FILE, &mut diagnostics) } else { None };
    let mut root = None;
    if let Some(text) = &text {
        match yaml::parse(text, &file, &mut diagnostics) {
            Ok(parsed) => root = parsed,
            Err(error) => diagnostics.push(*error),
        }
    }
    let flawed = !diagnostics.is_empty();
    let kept_yaml = text.as_ref().map(|text| read::without_secrets(text, root.as_ref()));
    let mut scope = Scope::empty();
    let mut reading = Reading::new(files, file, &scope, checker);
    let mut read = read::read_project(&mut reading, root.as_ref(), environment);
    diagnostics.extend(std::mem::take(&mut reading.diagnostics));
    let mut interpolated_secrets = std::mem::take(&mut reading.secrets);
    environment.get(SERVICE_TOKEN).map(|token| token.trim()).into_iter().for_each(|token| interpolated_secrets.add(token));
    environment::add_connections(environment, &mut read.connections, &mut read.broken, &mut diagnostics);
    environment::add_variables(environment, &mut read.variables);
    read.variables.extend(overrides.variables.clone());
    scope.connections = read.connections.keys().map(|id| (id.clone(), true)).collect();
    scope.connections.extend(read.broken.into_iter().map(|id| (id, false)));
    scope.variables = read.variables.keys().cloned().collect();
    let flawed = share(files, root.as_ref(), overrides, &mut scope, checker, &mut diagnostics) || flawed || read.flawed;
    let folder = files.root().file_name().and_then(|name| name.to_str()).unwrap_or("project");
    let project = Project {
        name: read.name.unwrap_or_else(|| folder.to_owned()),
        root: files.root().to_owned(),
        connections: read.connections,
        variables: read.variables,
        interpolated_secrets,
        overrides: overrides.clone(),
        dags: BTreeMap::new(),
    };
    Shared { project, scope, kept_yaml, root, flawed, diagnostics }
}

/// Pools, notifiers and defaults: what names connections, and is named by DAGs. True when pools or defaults have errors; a notifier with errors is
/// told again where it is named.
fn share(
    files: &dyn Files,
    root: Option<&Arc<Node>>,
    overrides: &Overrides,
    scope: &mut Scope,
    checker: &mut Checker,
    diagnostics: &mut Vec<Diagnostic>,
) -> bool {
    let file: Arc<str> = project::FILE.into();
    // A notifier serves DAGs with all kinds of parameters.
    checker.forget_params();
    let mut reading = Reading::new(files, file.clone(), scope, checker);
    let mut pools = read::read_pools(&mut reading, root);
    for (name, slots) in &overrides.pools {
        match pools.iter_mut().find(|pool| pool.name == *name) {
            Some(pool) => pool.slots = *slots,
            None => pools.push(Pool { name: name.clone(), slots: *slots }),
        }
    }
    let mut flawed = !reading.diagnostics.is_empty();
    diagnostics.extend(reading.diagnostics);
    scope.pools = pools;
    let mut reading = Reading::new(files, file.clone(), scope, checker);
    let notifiers = read::read_notifiers(&mut reading, root);
    diagnostics.extend(reading.diagnostics);
    let mut used = reading.used;
    scope.notifiers = notifiers;
    let mut reading = Reading::new(files, file, scope, checker);
    let defaults = read::read_defaults(&mut reading, root);
    flawed |= !reading.diagnostics.is_empty();
    diagnostics.extend(reading.diagnostics);
    used.extend(reading.used);
    scope.defaults = defaults;
    scope.used = used;
    flawed
}

fn read_yaml(files: &dyn Files, path: &str, diagnostics: &mut Vec<Diagnostic>) -> Option<String> {
    let at = Span { file: files::normal(path).into(), line: 1, column: 1, length: 1 };
    let diagnostic = match files::read_text(files, path, files::YAML_BYTES_MAX) {
        Ok(text) => return Some(text),
        Err(ReadError::NotFound) => Diagnostic::error(code::MISSING_FILE, format!("file `{path}` is not there"), at),
        Err(ReadError::Outside) => Diagnostic::error(code::OUTSIDE, format!("`{path}` leads out of the project folder"), at)
            .hint("links must stay inside the project folder"),
        Err(ReadError::TooLarge { bytes, bytes_max }) => {
            Diagnostic::error(code::TOO_LARGE, format!("`{path}` has {bytes} bytes; {bytes_max} are allowed"), at)
                .hint("split the file")
        }
        Err(ReadError::NotUtf8(place)) => read::not_utf8(&Span { line: place.line, column: place.column, ..at }, place.byte),
        Err(ReadError::Io(error)) => Diagnostic::error(code::UNREADABLE, format!("`{path}` cannot be read: {error}"), at),
    };
    diagnostics.push(diagnostic);
    None
}
