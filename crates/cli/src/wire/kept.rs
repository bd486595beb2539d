//! What machines read of a store as a whole.

use backstop_core::DagId;
use backstop_runtime::prune::Pruned;
use backstop_store::sqlite::backup::Size;
use backstop_store::sqlite::check::{self, Remedy};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What a check found.
#[derive(Debug, Serialize)]
pub(crate) struct Checked<'a> {
    store: String,
    ok: bool,
    runs: u64,
    events: u64,
    /// Runs that were made anew from their logs.
    repaired: u64,
    /// At most 1,000.
    differences: Vec<Difference<'a>>,
    differences_total: u64,
}

#[derive(Debug, Serialize)]
struct Difference<'a> {
    /// Null of what is of no run.
    run_id: Option<&'a str>,
    what: &'a str,
    /// Whether it can be made anew from the log.
    repairable: bool,
}

impl<'a> Checked<'a> {
    pub(crate) fn new(store: &Path, checked: &'a check::Checked, repaired: u64) -> Self {
        let difference = |found: &'a check::Difference| Difference {
            run_id: found.run.as_ref().map(backstop_core::RunId::as_str),
            what: &found.what,
            repairable: found.remedy == Remedy::Rebuild,
        };
        Self {
            store: store.to_string_lossy().into_owned(),
            ok: checked.is_whole(),
            runs: checked.runs,
            events: checked.events,
            repaired,
            differences: checked.differences.iter().map(difference).collect(),
            differences_total: checked.differences_total,
        }
    }
}

/// A copy that was made.
#[derive(Debug, Serialize)]
pub(crate) struct BackedUp {
    file: String,
    bytes: u64,
    runs: u64,
    /// Whether a check of the copy found nothing.
    ok: bool,
}

impl BackedUp {
    pub(crate) fn new(file: &Path, bytes: u64, checked: &check::Checked) -> Self {
        Self { file: file.to_string_lossy().into_owned(), bytes, runs: checked.runs, ok: checked.is_whole() }
    }
}

/// How large a store is.
#[derive(Debug, Serialize)]
pub(crate) struct Info<'a> {
    store: String,
    schema: i64,
    file_bytes: u64,
    free_bytes: u64,
    /// Written, and not in the file yet.
    log_bytes: u64,
    runs: BTreeMap<&'a str, u64>,
    task_instances: u64,
    statements: u64,
    events: u64,
    versions: u64,
}

impl<'a> Info<'a> {
    pub(crate) fn new(store: &Path, found: &'a Size) -> Self {
        Self {
            store: store.to_string_lossy().into_owned(),
            schema: found.schema,
            file_bytes: found.file_bytes,
            free_bytes: found.free_bytes,
            log_bytes: found.log_bytes,
            runs: found.runs.iter().map(|(state, count)| (state.as_str(), *count)).collect(),
            task_instances: found.instances,
            statements: found.statements,
            events: found.events,
            versions: found.versions,
        }
    }
}

/// Runs that went, or would.
#[derive(Debug, Serialize)]
pub(crate) struct RunsPruned<'a> {
    dry_run: bool,
    /// By DAG.
    runs: BTreeMap<&'a str, u64>,
    runs_total: u64,
    markers: u64,
    /// Why markers stayed, by connection.
    markers_left: BTreeMap<&'a str, &'a str>,
    /// Runs that stayed because a process has them.
    held: Vec<&'a str>,
    /// Why logs stayed.
    logs_left: Option<&'a str>,
}

impl<'a> RunsPruned<'a> {
    pub(crate) fn would(runs: &'a BTreeMap<DagId, u64>) -> Self {
        Self {
            dry_run: true,
            runs: by_dag(runs),
            runs_total: runs.values().sum(),
            markers: 0,
            markers_left: BTreeMap::new(),
            held: Vec::new(),
            logs_left: None,
        }
    }

    pub(crate) fn done(pruned: &'a Pruned) -> Self {
        Self {
            dry_run: false,
            runs: by_dag(&pruned.runs),
            runs_total: pruned.count(),
            markers: pruned.markers,
            markers_left: pruned.markers_left.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect(),
            held: pruned.held.iter().map(backstop_core::RunId::as_str).collect(),
            logs_left: pruned.logs_left.as_deref(),
        }
    }
}

fn by_dag(runs: &BTreeMap<DagId, u64>) -> BTreeMap<&str, u64> {
    runs.iter().map(|(dag, count)| (dag.as_str(), *count)).collect()
}
