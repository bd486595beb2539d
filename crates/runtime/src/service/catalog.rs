//! The projects that a service runs, and their files as they change.
//!
//! A project is loaded as a whole, beside the one in use, and replaces it at once: nobody ever sees half of it. A DAG whose file is
//! broken keeps its last good version and shows what is wrong; one whose file is gone is gone, and its runs go on with the sources they
//! began with.

use super::{NotLoaded, Service};
use crate::monitor::Monitor;
use crate::prepared::Prepared;
use crate::redact::Redactor;
use crate::sessions::{Connect, Sessions};
use backstop_core::DagId;
use backstop_project::definition::{Definition, Project};
use backstop_project::{Bundle, Diagnostic, Loaded, Overrides, Severity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How often files are looked at. A look costs one `stat` a file.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes long is taken less often: this many times as long is waited for the next one, so that looking costs no more than half a
/// percent of a core however many files there are.
const REST_PER_LOOK: u32 = 200;
/// Between two looks at most.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);

/// What all DAGs of a project stand on.
const PROJECT_FILE: &str = "backstop.yaml";

/// Loads projects. A seam, so that tests need no files, and the binary decides which environment variables there are.
pub trait Loader: Send + Sync {
    /// Loads each project, in the order they were given.
    fn load(&self, overrides: &Overrides) -> Vec<Loaded>;

    /// A version of a DAG out of the sources that are kept of it, in its project as it is now.
    ///
    /// # Errors
    /// What is wrong with it.
    fn load_kept(
        &self,
        _version: &str,
        sources: &Bundle,
        dag: &DagId,
        project: &Project,
    ) -> Result<Arc<Definition>, Vec<Diagnostic>> {
        backstop_project::load_definition(sources, dag, project)
    }

    /// Something that changes whenever a file changes that the projects are made of, and with no other. Cheap.
    fn fingerprint(&self) -> u64;

    /// How often the files are looked at, at most.
    fn look_every(&self) -> Duration {
        LOOK_EVERY
    }
}

/// A DAG that can be run.
#[derive(Clone)]
pub struct DagEntry {
    /// What runs.
    pub definition: Arc<Definition>,
    /// The project it stands in.
    pub project: Arc<Project>,
    /// Both, with what its runs share.
    pub prepared: Arc<Prepared>,
    /// The project's sessions.
    pub sessions: Arc<Sessions>,
    /// True when its file is broken now and this is its last good version.
    pub is_stale: bool,
}

/// What is wrong with a project.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The project's folder.
    pub project: PathBuf,
    /// Each.
    pub diagnostics: Vec<Diagnostic>,
}

/// All DAGs, as they were at one moment.
pub struct Catalog {
    dags: BTreeMap<DagId, DagEntry>,
    projects: Vec<(Arc<Project>, Arc<Sessions>)>,
    troubles: Vec<Trouble>,
    /// The files of each DAG that is in a file, also of those with errors, with its project's folder.
    dag_files: BTreeMap<DagId, (PathBuf, Vec<Arc<str>>)>,
    /// DAGs that are known from before, and cannot be loaded.
    pub(super) not_loaded: Vec<NotLoaded>,
    /// DAGs of two projects with one name: the first has it.
    doubles: Vec<(DagId, PathBuf, PathBuf)>,
    /// Masks the secrets of all projects.
    redactor: Arc<Redactor>,
}

impl Catalog {
    /// Loads everything. `before` is what was in use.
    pub(super) fn load(
        loader: &dyn Loader,
        before: Option<&Catalog>,
        connect: &Connect,
        overrides: &Overrides,
        monitor: &Arc<Monitor>,
    ) -> Self {
        let mut catalog = Self {
            dags: BTreeMap::new(),
            projects: Vec::new(),
            troubles: Vec::new(),
            dag_files: BTreeMap::new(),
            not_loaded: Vec::new(),
            doubles: Vec::new(),
            redactor: Arc::default(),
        };
        for loaded in loader.load(overrides) {
            catalog.add(loaded, before, connect, monitor);
        }
        // Once for all who look on: answers and the stream are masked as they go out.
        let stale = catalog.dags.values().filter(|entry| entry.is_stale).map(|entry| &entry.project);
        let projects = catalog.projects.iter().map(|(project, _)| project).chain(stale);
        catalog.redactor = Arc::new(Redactor::of_all(projects.map(|project| &**project)));
        catalog
    }

    fn add(&mut self, loaded: Loaded, before: Option<&Catalog>, connect: &Connect, monitor: &Arc<Monitor>) {
        let project = Arc::new(loaded.project);
        let sessions = before.and_then(|before| before.sessions_like(&project));
        let opened = || Arc::new(Sessions::watched(project.clone(), connect.clone(), monitor.clone()));
        let sessions = sessions.unwrap_or_else(opened);
        let has_errors = loaded.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        let mut entries: Vec<DagEntry> = project
            .dags
            .values()
            .map(|definition| DagEntry {
                definition: definition.clone(),
                project: project.clone(),
                prepared: Prepared::new(project.clone(), definition.clone()),
                sessions: sessions.clone(),
                is_stale: false,
            })
            .collect();
        // What is broken now, and was not. A file that is gone takes its DAG with it; one that cannot be read as YAML any more does not
        // tell which DAG it was, so its last good version is found by the file.
        let was_in_use =
            before.into_iter().flat_map(|before| before.dags.values()).filter(|entry| entry.project.root == project.root);
        for entry in was_in_use.filter(|_| has_errors) {
            let id = entry.definition.dag.id();
            let is_still_there = loaded.dag_files.contains_key(id) || project.root.join(&*entry.definition.file).exists();
            let is_elsewhere = project.dags.contains_key(id);
            let is_in_file = loaded.dag_files.contains_key(id);
            if is_still_there && !is_elsewhere && !is_renamed(&project, id.as_str(), &entry.definition.file, is_in_file) {
                match last_good(entry, &project, &sessions, &loaded.diagnostics) {
                    Ok(entry) => entries.push(entry),
                    Err(because) => self.not_loaded.push(NotLoaded { dag: id.clone(), because }),
                }
            }
        }
        for entry in entries {
            let id = entry.definition.dag.id().clone();
            match self.dags.get(&id) {
                Some(first) => self.doubles.push((id, first.project.root.clone(), project.root.clone())),
                None => drop(self.dags.insert(id, entry)),
            }
        }
        for (id, files) in loaded.dag_files {
            self.dag_files.entry(id).or_insert((project.root.clone(), files));
        }
        if !loaded.diagnostics.is_empty() {
            self.troubles.push(Trouble { project: project.root.clone(), diagnostics: loaded.diagnostics });
        }
        self.projects.push((project, sessions));
    }

    /// Sessions stay open over a reload that changes no connection.
    fn sessions_like(&self, project: &Project) -> Option<Arc<Sessions>> {
        let same =
            self.projects.iter().find(|(before, _)| before.root == project.root && before.connections == project.connections);
        same.map(|(_, sessions)| sessions.clone())
    }

    /// True when nobody who looks at it would see a difference.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let dags = |catalog: &Self| -> Vec<(DagId, String, bool)> {
            let shown = |(id, entry): (&DagId, &DagEntry)| (id.clone(), entry.definition.version.clone(), entry.is_stale);
            catalog.dags.iter().map(shown).collect()
        };
        let troubles = |catalog: &Self| -> Vec<serde_json::Value> {
            catalog.troubles.iter().flat_map(|trouble| trouble.diagnostics.iter().map(Diagnostic::to_json)).collect()
        };
        dags(self) == dags(other)
            && self.not_loaded == other.not_loaded
            && troubles(self) == troubles(other)
            && self.doubles == other.doubles
    }

    /// By id.
    pub fn dags(&self) -> &BTreeMap<DagId, DagEntry> {
        &self.dags
    }

    /// One DAG.
    pub fn dag(&self, id: &str) -> Option<&DagEntry> {
        self.dags.get(id)
    }

    /// DAGs whose files are there and that ran before, but of which nothing can be loaded.
    pub fn not_loaded(&self) -> &[NotLoaded] {
        &self.not_loaded
    }

    /// Takes in a DAG that is missing.
    pub(super) fn insert(&mut self, dag: DagId, entry: DagEntry) {
        self.dags.entry(dag).or_insert(entry);
    }

    /// Whether something is wrong with a project.
    pub(super) fn has_errors(&self, root: &Path) -> bool {
        self.errors_of(root).next().is_some()
    }

    fn errors_of<'s>(&'s self, root: &'s Path) -> impl Iterator<Item = &'s Diagnostic> {
        let of_project = self.troubles.iter().filter(move |trouble| trouble.project == root);
        of_project.flat_map(|trouble| &trouble.diagnostics).filter(|found| found.severity == Severity::Error)
    }

    /// Whether a file of a project says that it has this DAG, be it right or wrong.
    pub(super) fn is_in_file(&self, dag: &str, root: &Path) -> bool {
        self.dag_files.get(dag).is_some_and(|(of, _)| of == root)
    }

    /// What is wrong with what all DAGs of a project stand on, in a sentence.
    pub(super) fn broken_project(&self, root: &Path) -> Option<String> {
        let of_file = |found: &Diagnostic| {
            let at = found.place.as_ref().filter(|at| *at.file == *PROJECT_FILE)?;
            Some(format!("{} is broken: line {}: {}", at.file, at.line, found.message))
        };
        self.errors_of(root).find_map(of_file)
    }

    /// What is wrong.
    pub fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// What is wrong with the files of a DAG that is stale, or is missing because of it: the first of it, in a sentence.
    pub fn broken(&self, id: &str) -> Option<String> {
        let entry = self.dag(id);
        if entry.is_some_and(|entry| !entry.is_stale) {
            return None;
        }
        let known = self.dag_files.get(id);
        let is_own = |file: &str| {
            let is_named_so = Path::new(file).file_stem().is_some_and(|stem| stem == id) && file.starts_with("dags/");
            let is_known = known.is_some_and(|(_, files)| files.iter().any(|known| **known == *file));
            let is_part = |entry: &DagEntry| *entry.definition.file == *file || entry.definition.bundle.files.contains_key(file);
            is_named_so || is_known || entry.is_some_and(is_part)
        };
        let root = entry.map(|entry| &entry.project.root).or(known.map(|(root, _)| root));
        let of_project = self.troubles.iter().filter(|trouble| root.is_none_or(|root| trouble.project == *root));
        let errors: Vec<&Diagnostic> = of_project
            .flat_map(|trouble| &trouble.diagnostics)
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
            .collect();
        let own = errors.iter().find(|found| found.place.as_ref().is_some_and(|at| is_own(&at.file)));
        // What all DAGs stand on may be broken, or a script: the DAG is known, and is not there.
        let found = own.or_else(|| errors.first().filter(|_| root.is_some()))?;
        Some(match &found.place {
            Some(at) => format!("{} is broken: line {}: {}", at.file, at.line, found.message),
            None => format!("its project is broken: {}", found.message),
        })
    }

    /// Masks the secrets of all projects.
    pub(crate) fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// DAGs that two projects have: id, the project that has it, the project whose DAG is left out.
    pub fn doubles(&self) -> &[(DagId, PathBuf, PathBuf)] {
        &self.doubles
    }

    /// The sizes of pools. Pools of one name are one pool, also of several projects; where they differ in size the smallest holds.
    pub(super) fn pools(&self) -> BTreeMap<String, Option<u32>> {
        let mut pools: BTreeMap<String, Option<u32>> = BTreeMap::new();
        for pool in self.dags.values().flat_map(|entry| entry.definition.dag.pools()) {
            let known = pools.entry(pool.name.clone()).or_insert(pool.slots);
            *known = match (*known, pool.slots) {
                (Some(known), Some(slots)) => Some(known.min(slots)),
                (known, slots) => known.or(slots),
            };
        }
        pools
    }

    /// The projects, in the order they were given.
    pub(super) fn projects(&self) -> &[(Arc<Project>, Arc<Sessions>)] {
        &self.projects
    }
}

/// The last good version of a DAG, with today's connections: nothing goes on with those that are gone or were changed. While backstop.yaml is
/// broken nobody knows them, and the DAG keeps those it had.
///
/// # Errors
/// Why it cannot run with them, in a sentence.
fn last_good(
    entry: &DagEntry,
    project: &Arc<Project>,
    sessions: &Arc<Sessions>,
    diagnostics: &[Diagnostic],
) -> Result<DagEntry, String> {
    let is_broken = diagnostics.iter().any(|found| found.severity == Severity::Error && found.is_of_project_file());
    if is_broken || entry.project.connections == project.connections {
        return Ok(DagEntry { is_stale: true, ..entry.clone() });
    }
    let id = entry.definition.dag.id();
    match backstop_project::load_definition(&entry.definition.bundle, id, project) {
        Ok(definition) => Ok(DagEntry {
            prepared: Prepared::new(project.clone(), definition.clone()),
            definition,
            project: project.clone(),
            sessions: sessions.clone(),
            is_stale: true,
        }),
        Err(diagnostics) => {
            let first = diagnostics.first().map(|diagnostic| diagnostic.message.clone()).unwrap_or_default();
            Err(format!("its last good version does not fit the project any more: {first}"))
        }
    }
}

/// True when the file of a DAG has another one now: it was renamed there, and would run beside itself. `is_in_file` says whether any file of
/// the project has the DAG still, be it right or wrong.
pub(super) fn is_renamed(project: &Project, dag: &str, file: &str, is_in_file: bool) -> bool {
    !is_in_file && project.dags.values().any(|other| *other.file == *file && other.dag.id().as_str() != dag)
}

/// Looks at the files now and then, and at what people set.
pub(super) async fn watch(service: Arc<Service>) {
    let mut stopping = service.stopping.subscribe();
    let look_every = service.loader.look_every();
    let mut rest = look_every;
    loop {
        // Not before the service serves: many files take a while to write.
        service.remember().await;
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = tokio::time::sleep(rest) => {}
        }
        // Another process may have set something. A store that cannot be read now is asked again at the next look.
        let _ = service.refresh().await;
        let service = service.clone();
        // Reading many files takes a while, and nobody shall wait for it.
        let looked = tokio::task::spawn_blocking(move || service.look_at_files()).await;
        rest = looked.map_or(look_every, |took| (took * REST_PER_LOOK).min(LOOK_AT_LEAST_EVERY).max(look_every));
    }
}

impl Service {
    /// Loads the projects again when their files changed. Returns how long the look took, without the loading.
    pub(super) fn look_at_files(&self) -> Duration {
        let began = std::time::Instant::now();
        let now = self.loader.fingerprint();
        let took = began.elapsed();
        let before = std::mem::replace(&mut *self.files_seen.lock().unwrap_or_else(PoisonError::into_inner), now);
        if before != now {
            self.reload();
        }
        took
    }
}
