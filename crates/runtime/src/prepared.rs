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
    /// The DAG's shape alone: nothing of its runs is begun with it, and its sources are not kept again.
    pub(crate) is_shape: bool,
    /// Not even that: what the log of one run tells of it.
    pub(crate) is_of_log: bool,
    renderer: OnceLock<Arc<Renderer>>,
    redactor: OnceLock<Arc<Redactor>>,
    wants: OnceLock<Wants>,
}

/// By the words in the sources: true where a name of a template may stand for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    /// The schedule's ticks around the logical date.
    pub(crate) ticks: bool,
    /// The last run that succeeded.
    pub(crate) success: bool,
}

impl Prepared {
    /// Nothing is made yet.
    pub fn new(project: Arc<Project>, definition: Arc<Definition>) -> Arc<Self> {
        Arc::new(Self::of(project, definition))
    }

    /// Of a run that cannot be gone on with: see `service::unfit`.
    pub(crate) fn shape(project: Arc<Project>, definition: Arc<Definition>, is_of_log: bool) -> Arc<Self> {
        Arc::new(Self { is_shape: true, is_of_log, ..Self::of(project, definition) })
    }

    fn of(project: Arc<Project>, definition: Arc<Definition>) -> Self {
        let (renderer, redactor, wants) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { project, definition, is_shape: false, is_of_log: false, renderer, redactor, wants }
    }

    /// Renders the DAG's templates; compiled ones are kept.
    pub(crate) fn renderer(&self) -> Arc<Renderer> {
        self.renderer.get_or_init(|| Arc::new(Renderer::new(&self.project, &self.definition))).clone()
    }

    /// What the texts of the DAG may want to know of what is beside a run. Many runs a second share the answer.
    pub(crate) fn wants(&self) -> Wants {
        *self.wants.get_or_init(|| {
            let says = |words: &[&str]| {
                self.definition.bundle.files.values().any(|bytes| {
                    let text = String::from_utf8_lossy(bytes);
                    words.iter().any(|word| text.contains(word))
                })
            };
            Wants { ticks: says(&["prev_", "next_"]), success: says(&["prev_data_interval_", "prev_start_date_"]) }
        })
    }

    /// Masks the project's secrets.
    pub(crate) fn redactor(&self) -> Arc<Redactor> {
        self.redactor.get_or_init(|| Arc::new(Redactor::of(&self.project))).clone()
    }
}
