//! Which project a run stands in: it goes on with the connections of that one and of no other, also when the DAG's file is broken or
//! gone, or another project has a DAG of its name or the very same files.

use super::desk::explain;
use super::{Catalog, Service};
use crate::sessions::Sessions;

use backstop_core::event::{RunHeader, RunProject};
use backstop_project::Bundle;
use backstop_project::definition::Project;
use backstop_store::Entry;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kind of entry, by the digest of a version. Only runs that were made before their headers told their project need it.
const KIND: &str = "home";

/// What is known of a project. Its folder may be moved: then the old one is gone, and its name tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    name: String,
    root: PathBuf,
}

/// What a run's header tells of the project.
pub(crate) fn of(project: &Project) -> RunProject {
    RunProject { name: project.name.as_str().into(), root: project.root.to_string_lossy().into() }
}

/// What is kept of the project that a version stands in.
pub(crate) fn entry(version: &str, project: &Project) -> Entry {
    let home = Home { name: project.name.clone(), root: project.root.clone() };
    Entry { kind: KIND.into(), key: version.to_owned(), body: serde_json::to_string(&home).ok() }
}

/// Refuses to go on with a run in a project that is not its own. Of a run that does not tell its project nothing is known.
///
/// # Errors
/// Which one is its own, and what to do.
pub(crate) fn check(header: &RunHeader, project: &Project) -> Result<(), String> {
    match &header.project {
        Some(own) if !is_in(own, project) && (Path::new(&*own.root).exists() || *own.name != project.name) => {
            Err(elsewhere(own, Some(project)))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether a run stands in a project, and that in the folder where it was.
pub(super) fn is_known_in(header: &RunHeader, project: &Project) -> bool {
    header.project.as_ref().is_none_or(|own| is_in(own, project))
}

fn is_in(own: &RunProject, project: &Project) -> bool {
    *own.root == project.root.to_string_lossy()
}

impl Service {
    /// The project of a run, as it is now.
    ///
    /// # Errors
    /// Why it is not known, or not there: such a run waits, because in another project's databases it would do harm.
    pub(super) async fn project_of(
        &self,
        catalog: &Catalog,
        header: &RunHeader,
    ) -> Result<(Arc<Project>, Arc<Sessions>), String> {
        let projects = catalog.projects();
        if let Some(own) = &header.project {
            return find(projects, own);
        }
        let kept = self.store.entries(KIND).await.map_err(|error| explain(&error))?;
        let home = kept.iter().find(|(key, _)| *key == header.version).and_then(|(_, body)| serde_json::from_str(body).ok());
        match home {
            Some(Home { name, root }) => find(projects, &RunProject { name: name.into(), root: root.to_string_lossy().into() }),
            None if projects.len() > 1 => guess(projects, self.came_from(&header.version).await?.as_deref()),
            None => guess(projects, None),
        }
    }

    /// The folder that the files of a version were read from, as it was called then.
    async fn came_from(&self, version: &str) -> Result<Option<PathBuf>, String> {
        let kept = self.store.version(version).await.map_err(|error| explain(&error))?;
        Ok(kept.and_then(|kept| Bundle::from_bytes(&kept.bundle).ok()).map(|bundle| bundle.root))
    }
}

fn find(projects: &[(Arc<Project>, Arc<Sessions>)], own: &RunProject) -> Result<(Arc<Project>, Arc<Sessions>), String> {
    if let Some(same) = projects.iter().find(|(project, _)| is_in(own, project)) {
        return Ok(same.clone());
    }
    let named: Vec<_> = projects.iter().filter(|(project, _)| project.name == *own.name).collect();
    match named.as_slice() {
        [moved] if !Path::new(&*own.root).exists() => Ok((*moved).clone()),
        [other] => Err(elsewhere(own, Some(&other.0))),
        _ => Err(elsewhere(own, None)),
    }
}

/// Another project of the same name is where it may have been moved to: only that the old folder is gone tells so.
fn elsewhere(RunProject { name, root }: &RunProject, other: Option<&Project>) -> String {
    let moved = other.filter(|other| other.name == **name).map(|other| {
        format!(
            ", or move that folder away if {} is its new place: the connections of another project are never taken",
            other.root.display()
        )
    });
    format!("its project `{name}` ({root}) is not loaded: go on with --project {root}{}", moved.unwrap_or_default())
}

/// A store of an earlier version does not tell, but for where the files were.
fn guess(projects: &[(Arc<Project>, Arc<Sessions>)], came_from: Option<&Path>) -> Result<(Arc<Project>, Arc<Sessions>), String> {
    let in_folder = |root: &Path| projects.iter().find(|(project, _)| project.root == root);
    match (projects, came_from) {
        ([only], _) => Ok(only.clone()),
        ([], _) => Err("the service has no project".into()),
        (_, None) => Err("it is not known which project it stands in: start a service with that project alone once".into()),
        (_, Some(root)) => in_folder(root).cloned().ok_or_else(|| {
            let root = root.display();
            format!(
                "it is not known which project it stands in; its files were in {root}, which is not loaded: start the service with \
                 --project {root}, or once with its project alone where that was moved"
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Connect;
    use backstop_core::event::RunType;
    use backstop_core::{DagId, RunId};
    use backstop_project::Environment;
    use jiff::Timestamp;

    fn project(name: &str, root: &str) -> (Arc<Project>, Arc<Sessions>) {
        let bundle = Bundle::default();
        let mut project = backstop_project::load(&bundle, &Environment::default()).project;
        (project.name, project.root) = (name.into(), root.into());
        let project = Arc::new(project);
        let connect: Connect = Arc::new(|_| Err(backstop_connect::Error::config("nothing is opened here")));
        (project.clone(), Arc::new(Sessions::new(project, connect)))
    }

    fn header(project: Option<RunProject>) -> RunHeader {
        RunHeader {
            run_id: RunId::new("r"),
            dag_id: DagId::new("d"),
            project,
            version: String::new(),
            logical_date: None,
            data_interval: None,
            queued_at: Timestamp::UNIX_EPOCH,
            run_type: RunType::Manual,
            params: "{}".into(),
            only_tasks: Vec::new(),
            dry_run: false,
            cause: None,
        }
    }

    #[test]
    fn a_run_goes_on_in_its_own_project_or_not_at_all() {
        let home = |name: &str, root: &str| RunProject { name: name.into(), root: root.into() };
        let found = |projects: &[_], own: RunProject| find(projects, &own).map(|(project, _)| project.root.clone());
        let (sales, stock) = (project("sales", "/srv/sales"), project("stock", "/srv/stock"));
        let both = [sales.clone(), stock.clone()];
        assert_eq!(found(&both, home("stock", "/srv/stock")), Ok("/srv/stock".into()));
        assert_eq!(found(&both, home("stock", "/old/stock")), Ok("/srv/stock".into()), "it was moved");
        let there = tempfile::tempdir().unwrap();
        let there = there.path().to_string_lossy().into_owned();
        assert!(found(&both, home("stock", &there)).is_err(), "it is another one of the same name");
        let gone = found(std::slice::from_ref(&sales), home("stock", "/srv/stock")).unwrap_err();
        assert!(gone.contains("its project `stock` (/srv/stock) is not loaded"), "{gone}");
        let twice = [project("app", "/a"), project("app", "/b")];
        assert!(found(&twice, home("app", "/c")).is_err(), "either may be it");
        let is_refused = |own: RunProject, project: &Project| check(&header(Some(own)), project).is_err();
        assert!(!is_refused(home("sales", "/srv/sales"), &sales.0));
        assert!(!is_refused(home("sales", "/old/sales"), &sales.0), "it was moved");
        assert!(is_refused(home("sales", &there), &sales.0), "it is another one of the same name");
        assert!(is_refused(home("stock", "/srv/stock"), &sales.0));
        assert!(check(&header(None), &sales.0).is_ok(), "nothing is known");
    }

    #[test]
    fn where_nothing_is_kept_of_its_project_the_folder_of_its_files_tells() {
        let (sales, stock) = (project("sales", "/srv/sales"), project("stock", "/srv/stock"));
        let both = [sales.clone(), stock];
        let found = |projects: &[_], root: &str| guess(projects, Some(Path::new(root))).map(|(project, _)| project.root.clone());
        assert_eq!(found(&both, "/srv/stock"), Ok("/srv/stock".into()));
        let unknown = found(&both, "/old/stock").unwrap_err();
        assert!(
            unknown.contains("its files were in /old/stock, which is not loaded: start the service with --project"),
            "{unknown}"
        );
        assert_eq!(found(&[sales], "/old/sales"), Ok("/srv/sales".into()), "it was moved");
        assert!(guess(&both, None).is_err());
    }
}
