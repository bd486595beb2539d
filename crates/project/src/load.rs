//! The way in: a folder, or a kept bundle, becomes a project.

use crate::definition::{Definition, Project};
use crate::diagnostic::Diagnostic;
use crate::files::{Bundle, Files};
use backstop_core::DagId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Variables of the environment, as far as they are valid Unicode.
pub type Environment = BTreeMap<String, String>;

/// What loading came to.
#[derive(Debug)]
pub struct Loaded {
    /// Everything that is valid.
    pub project: Project,
    /// Everything that is not, by file and place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads a project. It never fails: a DAG with errors is absent from the project, and everything wrong is reported at once.
pub fn load(files: &dyn Files, _environment: &Environment) -> Loaded {
    let project = Project {
        name: String::new(),
        root: files.root().to_owned(),
        connections: BTreeMap::new(),
        variables: BTreeMap::new(),
        dags: BTreeMap::new(),
    };
    Loaded { project, diagnostics: Vec::new() }
}

/// Loads the definition that a run is pinned to, from the bundle kept with the run. Connections and variables are those of the live project.
///
/// # Errors
/// Everything that is wrong with it, such as a connection that is no longer there.
pub fn load_definition(_bundle: &Bundle, _dag: &DagId, _project: &Project) -> Result<Arc<Definition>, Vec<Diagnostic>> {
    Err(Vec::new())
}
