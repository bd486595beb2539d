//! The DAG that a run has, from the sources kept with it: what waited for what, and what its author allowed. Looking at a run needs
//! neither the project as it is now nor its passwords.

use backstop_core::{Dag, DagId};
use backstop_project::Bundle;
use backstop_project::definition::Definition;
use backstop_store::{RunRow, Store};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Reads the shape. `None` where the sources were not kept, or are not understood by this version: a run can be looked at without.
pub(crate) async fn read(store: &dyn Store, row: &RunRow) -> Option<Arc<Dag>> {
    definition(store, row).await.map(|definition| definition.dag.clone())
}

/// The shape with the texts of its tasks; nothing of it can be run.
pub(crate) async fn definition(store: &dyn Store, row: &RunRow) -> Option<Arc<Definition>> {
    let version = store.version(&row.header.version).await.ok()??;
    let bundle = Bundle::from_bytes(&version.bundle).ok()?;
    of_bundle(&bundle, &row.header.dag_id)
}

fn of_bundle(bundle: &Bundle, dag: &DagId) -> Option<Arc<Definition>> {
    let words = words(bundle);
    // A connection or variable that a DAG names stands in its sources as a word. Each word counts as one that is there, as the ones that
    // were may be gone, or want a password that this environment has not.
    let environment = words.iter().map(|word| (format!("BACKSTOP_CONN_{}", word.to_uppercase()), "sqlite:nowhere".to_owned()));
    let mut live = backstop_project::load_only(&Bundle::default(), &environment.collect(), &[]).project;
    live.root.clone_from(&bundle.root);
    live.variables = words.iter().map(|word| (word.clone(), serde_json::Value::Null)).collect();
    backstop_project::load_definition(bundle, dag, &live).ok()
}

/// Scripts that are longer than this are full of data, and name next to no variables.
const SCRIPT_BYTES_MAX: usize = 1 << 20;

fn words(bundle: &Bundle) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for (path, text) in &bundle.files {
        let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml");
        if !is_yaml && text.len() > SCRIPT_BYTES_MAX {
            continue;
        }
        let text = String::from_utf8_lossy(text);
        let found = text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).filter(|word| !word.is_empty());
        words.extend(found.map(str::to_owned));
    }
    words
}
