//! Reads the tree of a file into proven types, and says everything that is wrong on the way.

mod callback;
mod check;
mod connection;
mod dag;
mod graph;
mod kind;
mod others;
mod params;
pub(crate) mod project;
mod pulls;
mod schedule;
mod settings;
mod task;
mod transaction;
mod unreachable;
mod value;

pub(crate) use connection::{short_password, unknown_type};
pub(crate) use dag::read_dag;
pub(crate) use others::{Everyone, Other, assets_nobody_updates, circles, has_errors};
pub(crate) use project::{read_defaults, read_notifiers, read_pools, read_project, without_secrets};
pub(crate) use value::not_utf8;

use crate::definition::Template;
use crate::diagnostic::{Diagnostic, Severity, Span, code};
use crate::files::Files;
use crate::secrets::Secrets;
use crate::template::check::Checker;
use crate::template::pull::Pull;
use crate::yaml::{Key, Node};
use backstop_core::dag::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the whole project gives its DAGs.
pub(crate) struct Scope {
    /// Known connections; `false` for one that cannot be used because its definition is wrong.
    pub(crate) connections: BTreeMap<String, bool>,
    /// Names of `var.value.X`.
    pub(crate) variables: BTreeSet<String>,
    /// The default pool first.
    pub(crate) pools: Vec<Pool>,
    /// Callbacks by name, as read.
    pub(crate) notifiers: BTreeMap<String, callback::Notifier>,
    /// Of `defaults:`.
    pub(crate) defaults: settings::Defaults,
    /// Files that backstop.yaml names, with their content: they go into every bundle.
    pub(crate) used: BTreeMap<String, Vec<u8>>,
    /// A DAG is read although it names what the project has no more: to end its runs, not to run it.
    pub(crate) is_forgiving: bool,
}

/// The reading of one file.
pub(crate) struct Reading<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) file: Arc<str>,
    pub(crate) scope: &'a Scope,
    pub(crate) checker: &'a mut Checker,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// Files that the source names, with their content: they go into the bundle.
    pub(crate) used: BTreeMap<String, Vec<u8>>,
    /// Texts of SQL files by path, so that a file named by many tasks is kept once.
    texts: BTreeMap<String, Option<Arc<str>>>,
    /// Files already checked as templates.
    checked: BTreeSet<String>,
    /// Other DAGs that tasks name, for when all DAGs are known.
    others: Vec<Other>,
    /// Assets that schedules wait for.
    awaited_assets: Vec<(Arc<str>, Span)>,
    /// What `${NAME}` stood for, where that is secret.
    pub(crate) secrets: Secrets,
    /// Whose templates are being read.
    puller: pulls::Puller,
    /// What the templates pull, for when all tasks are known.
    pulled: Vec<pulls::Pulled>,
    /// What the templates of files pull.
    pulls_of_files: BTreeMap<Arc<str>, Arc<[Pull]>>,
}

impl<'a> Reading<'a> {
    pub(crate) fn new(files: &'a dyn Files, file: Arc<str>, scope: &'a Scope, checker: &'a mut Checker) -> Self {
        Self {
            files,
            file,
            scope,
            checker,
            diagnostics: Vec::new(),
            used: scope.used.clone(),
            texts: BTreeMap::new(),
            checked: BTreeSet::new(),
            others: Vec::new(),
            awaited_assets: Vec::new(),
            secrets: Secrets::default(),
            puller: pulls::Puller::default(),
            pulled: Vec::new(),
            pulls_of_files: BTreeMap::new(),
        }
    }

    /// How many errors were found so far, warnings apart.
    pub(crate) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|told| told.severity == Severity::Error).count()
    }

    /// Whether a DAG cannot be read because of it.
    fn is_fatal(&self, told: &Diagnostic) -> bool {
        told.severity == Severity::Error && !(self.scope.is_forgiving && told.names_what_is_shared())
    }

    /// Reports an error at a value.
    pub(crate) fn error(&mut self, code: &'static str, message: impl Into<String>, node: &Node) {
        self.diagnostics.push(Diagnostic::error(code, message, node.span(&self.file)));
    }

    /// Reports an error at a value, with what to do.
    pub(crate) fn error_with_hint(
        &mut self,
        code: &'static str,
        message: impl Into<String>,
        node: &Node,
        hint: impl Into<String>,
    ) {
        self.diagnostics.push(Diagnostic::error(code, message, node.span(&self.file)).hint(hint));
    }

    pub(crate) fn key_span(&self, key: &Key) -> Span {
        key.span(&self.file)
    }

    /// The entries of a mapping, or a diagnostic.
    pub(crate) fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [(Key, Arc<Node>)]> {
        let entries = node.as_map();
        if entries.is_none() {
            self.error(code::WRONG_TYPE, format!("{what} must be a mapping, this is {}", node.describe()), node);
        }
        entries
    }

    /// Checks a template's syntax and names.
    pub(crate) fn check_template(&mut self, template: &Template) {
        if !crate::template::is_template(&template.text) {
            return;
        }
        self.note_pulls(template);
        let once = template.source.file != self.file;
        if once && !self.checked.insert(template.source.file.to_string()) {
            return;
        }
        self.checker.check(template, self.scope, &mut self.diagnostics);
    }
}
