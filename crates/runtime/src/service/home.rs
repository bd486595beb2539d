//! Which project a version of a DAG stands in: runs that began with it go on with the connections of that one and of no other, also when
//! the DAG's file is broken or gone, or another project has a DAG of its name.

use super::desk::explain;
use super::{Catalog, Service};
use crate::sessions::Sessions;
use backstop_project::Bundle;
use backstop_project::definition::Project;
use backstop_store::Entry;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The kind of entry, by the digest of a version.
const KIND: &str = "home";

/// What is kept of a project. Its folder may be moved: then the old one is gone, and its name tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    name: String,
    root: PathBuf,
}

/// What is kept of the project that a version stands in.
pub(crate) fn entry(version: &str, project: &Project) -> Entry {
    let home = Home { name: project.name.clone(), root: project.root.clone() };
    Entry { kind: KIND.into(), key: version.to_owned(), body: serde_json::to_string(&home).ok() }
}

impl Service {
    /// The project, as it is now, of runs that began with a version.
    ///
    /// # Errors
    /// Why it is not known, or not there: such a run waits, because in another project's databases it would do harm.
    pub(super) async fn project_of(&self, catalog: &Catalog, version: &str) -> Result<(Arc<Project>, Arc<Sessions>), String> {
        let kept = self.store.entries(KIND).await.map_err(|error| explain(&error))?;
        let home = kept.iter().find(|(key, _)| key == version).and_then(|(_, body)| serde_json::from_str(body).ok());
        let came_from = match home {
            None if catalog.projects().len() > 1 => self.came_from(version).await?,
            Some(_) | None => None,
        };
        find(catalog.projects(), home.as_ref(), came_from.as_deref())
    }

    /// The folder that the files of a version were read from, as it was called then.
    async fn came_from(&self, version: &str) -> Result<Option<PathBuf>, String> {
        let kept = self.store.version(version).await.map_err(|error| explain(&error))?;
        Ok(kept.and_then(|kept| Bundle::from_bytes(&kept.bundle).ok()).map(|bundle| bundle.root))
    }
}

fn find(
    projects: &[(Arc<Project>, Arc<Sessions>)],
    home: Option<&Home>,
    came_from: Option<&Path>,
) -> Result<(Arc<Project>, Arc<Sessions>), String> {
    let Some(Home { name, root }) = home else {
        // A store of an earlier version does not tell, but for where the files were.
        let in_folder = |root: &Path| projects.iter().find(|(project, _)| project.root == root);
        return match (projects, came_from) {
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
        };
    };
    if let Some(same) = projects.iter().find(|(project, _)| project.root == *root) {
        return Ok(same.clone());
    }
    let was_moved = !root.exists();
    let named: Vec<_> = projects.iter().filter(|(project, _)| was_moved && project.name == *name).collect();
    match named.as_slice() {
        [moved] => Ok((*moved).clone()),
        _ => Err(format!(
            "its project `{name}` ({}) is not loaded: start the service with --project {}",
            root.display(),
            root.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::Connect;
    use backstop_project::{Bundle, Environment};

    fn project(name: &str, root: &str) -> (Arc<Project>, Arc<Sessions>) {
        let bundle = Bundle::default();
        let mut project = backstop_project::load(&bundle, &Environment::default()).project;
        (project.name, project.root) = (name.into(), root.into());
        let project = Arc::new(project);
        let connect: Connect = Arc::new(|_| Err(backstop_connect::Error::config("nothing is opened here")));
        (project.clone(), Arc::new(Sessions::new(project, connect)))
    }

    #[test]
    fn a_run_goes_on_in_its_own_project_or_not_at_all() {
        let home = |name: &str, root: &str| Home { name: name.into(), root: root.into() };
        let found = |projects: &[_], home: Option<&Home>| find(projects, home, None).map(|(project, _)| project.root.clone());
        let (sales, stock) = (project("sales", "/srv/sales"), project("stock", "/srv/stock"));
        let both = [sales.clone(), stock.clone()];
        assert_eq!(found(&both, Some(&home("stock", "/srv/stock"))), Ok("/srv/stock".into()));
        assert_eq!(found(&both, Some(&home("stock", "/old/stock"))), Ok("/srv/stock".into()), "it was moved");
        let there = tempfile::tempdir().unwrap();
        let there = there.path().to_string_lossy().into_owned();
        assert!(found(&both, Some(&home("stock", &there))).is_err(), "it is another one of the same name");
        let gone = found(std::slice::from_ref(&sales), Some(&home("stock", "/srv/stock"))).unwrap_err();
        assert!(gone.contains("its project `stock` (/srv/stock) is not loaded"), "{gone}");
        let twice = [project("app", "/a"), project("app", "/b")];
        assert!(found(&twice, Some(&home("app", "/c"))).is_err(), "either may be it");
        assert_eq!(found(&[sales], None), Ok("/srv/sales".into()));
        assert!(found(&both, None).is_err());
    }

    #[test]
    fn where_nothing_is_kept_of_its_project_the_folder_of_its_files_tells() {
        let (sales, stock) = (project("sales", "/srv/sales"), project("stock", "/srv/stock"));
        let both = [sales.clone(), stock];
        let found =
            |projects: &[_], root: &str| find(projects, None, Some(Path::new(root))).map(|(project, _)| project.root.clone());
        assert_eq!(found(&both, "/srv/stock"), Ok("/srv/stock".into()));
        let unknown = found(&both, "/old/stock").unwrap_err();
        assert!(
            unknown.contains("its files were in /old/stock, which is not loaded: start the service with --project"),
            "{unknown}"
        );
        assert_eq!(found(&[sales], "/old/sales"), Ok("/srv/sales".into()), "it was moved");
    }
}
