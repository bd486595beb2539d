//! The last good version of each DAG, over restarts: a file that is broken when the service starts takes nothing away that ran before.
//!
//! What was loaded last is kept in the store, whether a run began with it or not, and used where the DAG's file is still there and broken. Only
//! the files of DAGs are kept: backstop.yaml has connections and secrets, so that behind a broken one no DAG can be loaded. Then the catalog
//! knows which they are, and why.

use super::{Catalog, DagEntry, Service};
use crate::prepared::Prepared;
use backstop_core::DagId;
use backstop_project::Bundle;
use backstop_store::{Entry, Store};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

/// The kind of entry that says which version of a DAG was loaded last.
const KIND: &str = "good";
/// The kind of entry that has its files, under the same key: they are read only where they are needed.
const FILES: &str = "good_files";
/// DAGs that are kept in one write.
const KEPT_AT_ONCE: usize = 32;

/// Which version of a DAG was loaded last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Good {
    dag: String,
    /// The project's folder.
    root: PathBuf,
    /// Where the DAG stands in it.
    file: String,
    version: String,
}

impl Good {
    fn of(entry: &DagEntry) -> Self {
        let definition = &entry.definition;
        Self {
            dag: definition.dag.id().to_string(),
            root: entry.project.root.clone(),
            file: definition.file.to_string(),
            version: definition.version.clone(),
        }
    }

    fn key(&self) -> String {
        format!("{}\n{}", self.root.display(), self.dag)
    }
}

/// A file as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

/// The last good version of a DAG that could not be loaded when the service started.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    good: Good,
    bundle: Bundle,
}

/// A DAG that is known, whose file is there, and that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLoaded {
    /// Which.
    pub dag: DagId,
    /// Why, in a sentence.
    pub because: String,
}

/// What of each DAG is kept, by its key.
#[derive(Default)]
pub(super) struct Kept(BTreeMap<String, Good>);

impl Kept {
    /// What the store knows.
    pub(super) async fn read(store: &dyn Store) -> Result<Self, backstop_store::Error> {
        let entries = store.entries(KIND).await?;
        Ok(Self(entries.into_iter().filter_map(|(key, body)| Some((key, serde_json::from_str(&body).ok()?))).collect()))
    }

    /// The last good versions of DAGs that should be in a catalog and are not.
    pub(super) async fn missing(&self, store: &dyn Store, catalog: &Catalog) -> Result<Vec<Remembered>, backstop_store::Error> {
        let missing: BTreeMap<&String, &Good> = self.0.iter().filter(|(_, good)| is_missing(catalog, good)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let files = store.entries(FILES).await?;
        let found = files.into_iter().filter_map(|(key, body)| {
            let good = (*missing.get(&key)?).clone();
            let files: BTreeMap<String, Content> = serde_json::from_str(&body).ok()?;
            let bytes = |content| match content {
                Content::Text(text) => text.into_bytes(),
                Content::Bytes(bytes) => bytes,
            };
            let files = files.into_iter().map(|(path, content)| (path, bytes(content))).collect();
            let bundle = Bundle { root: good.root.clone(), files };
            // Else it is not what was loaded, however that came.
            (bundle.version() == good.version).then_some(Remembered { good, bundle })
        });
        Ok(found.collect())
    }
}

/// A DAG of a project that is loaded with errors, not in the catalog, and not taken away either.
fn is_missing(catalog: &Catalog, good: &Good) -> bool {
    catalog.dag(&good.dag).is_none()
        && catalog.has_errors(&good.root)
        && (catalog.is_in_file(&good.dag, &good.root) || good.root.join(&good.file).exists())
        && !is_renamed(catalog, good)
}

/// True when the DAG has another name now, also one that another project has and that leaves it out.
fn is_renamed(catalog: &Catalog, good: &Good) -> bool {
    let is_in_file = catalog.is_in_file(&good.dag, &good.root);
    let mut projects = catalog.projects().iter().filter(|(project, _)| project.root == good.root);
    projects.any(|(project, _)| super::catalog::is_renamed(project, &good.dag, &good.file, is_in_file))
}

impl Catalog {
    /// Takes in last good versions of DAGs that are missing.
    pub(super) fn restore(&mut self, remembered: &[Remembered]) {
        for Remembered { good, bundle } in remembered {
            if !is_missing(self, good) {
                continue;
            }
            let found = self.projects().iter().find(|(project, _)| project.root == good.root).cloned();
            let Some((project, sessions)) = found else { continue };
            let dag = DagId::new(good.dag.as_str());
            if let Some(because) = self.broken_project(&good.root) {
                self.not_loaded.push(NotLoaded { dag, because });
                continue;
            }
            match backstop_project::load_definition(bundle, &dag, &project) {
                Ok(definition) => {
                    let prepared = Prepared::new(project.clone(), definition.clone());
                    let entry = DagEntry { definition, project, prepared, sessions, is_stale: true };
                    self.insert(dag, entry);
                }
                Err(diagnostics) => {
                    let first = diagnostics.first().map(|diagnostic| diagnostic.message.clone()).unwrap_or_default();
                    let because = format!("its last good version does not fit the project any more: {first}");
                    self.not_loaded.push(NotLoaded { dag, because });
                }
            }
        }
    }
}

impl Service {
    /// Of what was remembered at the start what is still the last good version: not of DAGs that were mended, or taken away, since.
    pub(super) fn still_remembered(&self) -> Vec<Remembered> {
        let kept = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = |remembered: &&Remembered| kept.0.get(&remembered.good.key()) == Some(&remembered.good);
        self.remembered.iter().filter(is_last).cloned().collect()
    }

    /// Keeps which version of each DAG is loaded. What cannot be written now is written at the next look at the files.
    pub(super) async fn remember(&self) {
        let catalog = self.catalog();
        let (new, gone) = {
            let kept = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = |entry: &&DagEntry| {
                let good = Good::of(entry);
                !entry.is_stale && kept.0.get(&good.key()) != Some(&good)
            };
            let new: Vec<DagEntry> = catalog.dags().values().filter(is_new).cloned().collect();
            let roots: BTreeSet<&Path> = catalog.projects().iter().map(|(project, _)| &*project.root).collect();
            let is_gone = |good: &Good| {
                roots.contains(&*good.root)
                    && catalog.dag(&good.dag).is_none_or(|entry| entry.project.root != good.root)
                    && !catalog.is_in_file(&good.dag, &good.root)
                    && (!good.root.join(&good.file).exists() || is_renamed(&catalog, good))
            };
            let gone: Vec<String> = kept.0.iter().filter(|(_, good)| is_gone(good)).map(|(key, _)| key.clone()).collect();
            (new, gone)
        };
        for entries in new.chunks(KEPT_AT_ONCE) {
            let goods: Vec<Good> = entries.iter().map(Good::of).collect();
            let kept = goods.iter().zip(entries).flat_map(|(good, entry)| kept(good, &entry.definition.bundle)).collect();
            if self.store.put(kept, None).await.is_err() {
                return;
            }
            let mut kept = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            kept.0.extend(goods.into_iter().map(|good| (good.key(), good)));
        }
        for keys in gone.chunks(KEPT_AT_ONCE) {
            let of_kind = |kind: &str, key: &String| Entry { kind: kind.into(), key: key.clone(), body: None };
            let removed = keys.iter().flat_map(|key| [of_kind(KIND, key), of_kind(FILES, key)]).collect();
            if self.store.put(removed, None).await.is_err() {
                return;
            }
            let mut kept = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().for_each(|key| drop(kept.0.remove(key)));
        }
    }
}

/// What is kept of a version: both or neither.
fn kept(good: &Good, bundle: &Bundle) -> [Entry; 2] {
    let content = |bytes: &Vec<u8>| match std::str::from_utf8(bytes) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::Bytes(bytes.clone()),
    };
    let files: BTreeMap<&String, Content> = bundle.files.iter().map(|(path, bytes)| (path, content(bytes))).collect();
    let of_kind = |kind: &str, body| Entry { kind: kind.into(), key: good.key(), body };
    [of_kind(KIND, serde_json::to_string(good).ok()), of_kind(FILES, serde_json::to_string(&files).ok())]
}
