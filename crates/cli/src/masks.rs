//! What is masked in what commands tell of runs: the secrets of the projects at hand, and of the project that a run stands in.
//!
//! A secret that only the environment of another process has, such as that of the service, is not known here.

use crate::args::Place;
use crate::explain::Problem;
use crate::paths;
use crate::sources::{self, Purpose, Sources};
use backstop_core::event::RunHeader;
use backstop_project::definition::Project;
use backstop_runtime::Redactor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Masks by run. A project is read when the first run of it is told of.
pub(crate) struct Masks<'a> {
    place: &'a Place,
    known: Vec<(PathBuf, Option<Project>)>,
    redactor: Arc<Redactor>,
}

impl<'a> Masks<'a> {
    /// Of the project at hand. Without one, what is told of a run is masked by the project that it stands in.
    pub(crate) fn of(place: &'a Place) -> Result<Self, Problem> {
        let mut masks = Self { place, known: Vec::new(), redactor: Arc::default() };
        let roots = if place.projects.len() > 1 { place.projects.clone() } else { paths::project(place).into_iter().collect() };
        for root in roots {
            masks.learn(&root)?;
        }
        Ok(masks)
    }

    /// For what is told beside runs.
    pub(crate) fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    /// For what is told of a run.
    pub(crate) fn for_run(&mut self, header: &RunHeader) -> Result<Arc<Redactor>, Problem> {
        if let Some(project) = &header.project {
            self.learn(Path::new(&*project.root))?;
        }
        Ok(self.redactor.of_run(&header.params))
    }

    fn learn(&mut self, root: &Path) -> Result<(), Problem> {
        let root = &std::fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        if self.known.iter().any(|(known, _)| known == root) {
            return Ok(());
        }
        let is_there = root.join(paths::PROJECT_FILE).is_file();
        let project = if is_there { Some(self.read(root)?) } else { None };
        self.known.push((root.to_owned(), project));
        self.redactor = Arc::new(Redactor::of_all(self.known.iter().filter_map(|(_, project)| project.as_ref())));
        Ok(())
    }

    fn read(&self, root: &Path) -> Result<Project, Problem> {
        let settings = sources::settings(self.place, root, Purpose::Look)?;
        let sources = Sources::of_folder(root.to_owned());
        Ok(backstop_project::load_only_with(&sources, &sources::environment(), &settings, &[]).project)
    }
}
