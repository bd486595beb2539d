//! What all runs of one definition share, made when the first of them needs it: making it costs more than a short run.

use crate::redact::Redactor;
use backstop_project::definition::{Definition, Project};
use backstop_project::template::Renderer;
use std::sync::{Arc, OnceLock};

/// A definition in its project, with what is made from both.
#[derive(Debug)]
pub struct Prepared {
    /// Connections and variables.
    pub project: Arc<Project>,
    /// The DAG.
    pub definition: Arc<Definition>,
    renderer: OnceLock<Arc<Renderer>>,
    redactor: OnceLock<Arc<Redactor>>,
}

impl Prepared {
    /// Nothing is made yet.
    pub fn new(project: Arc<Project>, definition: Arc<Definition>) -> Arc<Self> {
        Arc::new(Self { project, definition, renderer: OnceLock::new(), redactor: OnceLock::new() })
    }

    /// Renders the DAG's templates; compiled ones are kept.
    pub(crate) fn renderer(&self) -> Arc<Renderer> {
        self.renderer.get_or_init(|| Arc::new(Renderer::new(&self.project, &self.definition))).clone()
    }

    /// Masks the project's secrets.
    pub(crate) fn redactor(&self) -> Arc<Redactor> {
        self.redactor.get_or_init(|| Arc::new(Redactor::of(&self.project))).clone()
    }
}
