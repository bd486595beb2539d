//! The last good version of each DAG, over restarts: a file that is broken when the service starts takes nothing away that ran before.
//!
//! What was loaded last is kept in the store, whether a run began with it or not, and used where the DAG's file is still there and broken. Only
//! the files of DAGs are kept: backstop.yaml has connections and secrets, so that behind a broken one no DAG can be loaded. Then the catalog
//! knows which they are, and why. `written` says what is written when.

mod written;

use super::notice::{Level, Topic};
use super::{Catalog, DagEntry, Service};
use crate::prepared::Prepared;
use backstop_core::DagId;
use backstop_project::Bundle;
use backstop_store::Store;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use written::{Loaded, Write, Writing};

/// The kind of entry that says which version of a DAG was loaded last, and of which files it is made.
const KIND: &str = "good";
/// The kind of entry that has the content of a file, by its digest: what many DAGs have is there once, and read only where it is needed.
const CONTENT: &str = "good_content";
/// Where an earlier version kept all files of a DAG, under the DAG's key.
const FILES_BEFORE: &str = "good_files";

/// Bytes of contents that are read through where one is: to hand them over would take longer.
const READ_AT_ONCE: usize = 64 * 1024;

/// Which version of a DAG was loaded last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Good {
    dag: String,
    /// The project's folder.
    root: PathBuf,
    /// Where the DAG stands in it.
    file: String,
    version: String,
    /// The content of each of its files, by path. Empty where an earlier version kept it.
    #[serde(default)]
    files: BTreeMap<String, Content>,
}

/// Which content a file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// SHA-256, hex.
    digest: String,
    bytes: u64,
}

impl Good {
    fn key(&self) -> String {
        key(&self.root, &self.dag)
    }
}

fn key(root: &Path, dag: &str) -> String {
    format!("{}\n{dag}", root.display())
}

/// A content as it is kept.
#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Text(String),
    Bytes(Vec<u8>),
}

impl Body {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
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

/// What is kept.
#[derive(Default)]
pub(super) struct Kept {
    /// Of each DAG, by its key.
    goods: BTreeMap<String, Good>,
    /// DAGs whose files found no room, by their keys, with their versions: they are not tried again and again.
    left_out: BTreeMap<String, String>,
}

impl Kept {
    /// What the store knows.
    pub(super) async fn read(store: &dyn Store) -> Result<Self, backstop_store::Error> {
        let entries = store.entries(KIND).await?;
        let goods = entries.into_iter().filter_map(|(key, body)| Some((key, serde_json::from_str(&body).ok()?))).collect();
        Ok(Self { goods, left_out: BTreeMap::new() })
    }

    /// The last good versions of DAGs that should be in a catalog and are not.
    pub(super) async fn missing(&self, store: &dyn Store, catalog: &Catalog) -> Result<Vec<Remembered>, backstop_store::Error> {
        let missing: Vec<(&String, &Good)> = self.goods.iter().filter(|(_, good)| is_missing(catalog, good)).collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let wanted: BTreeSet<&str> =
            missing.iter().flat_map(|(_, good)| good.files.values().map(|content| &*content.digest)).collect();
        let read = |body: String| Some(serde_json::from_str::<Body>(&body).ok()?.into_bytes());
        let contents = store.entries(CONTENT).await?.into_iter().filter(|(digest, _)| wanted.contains(&**digest));
        let contents: BTreeMap<String, Vec<u8>> = contents.filter_map(|(digest, body)| Some((digest, read(body)?))).collect();
        let mut before: BTreeMap<String, String> = match missing.iter().any(|(_, good)| good.files.is_empty()) {
            true => store.entries(FILES_BEFORE).await?.into_iter().collect(),
            false => BTreeMap::new(),
        };
        let found = missing.into_iter().filter_map(|(key, good)| {
            let files = match good.files.is_empty() {
                true => {
                    let files: BTreeMap<String, Body> = serde_json::from_str(&before.remove(key)?).ok()?;
                    files.into_iter().map(|(path, body)| (path, body.into_bytes())).collect()
                }
                false => {
                    let content =
                        |(path, content): (&String, &Content)| Some((path.clone(), contents.get(&content.digest)?.clone()));
                    good.files.iter().map(content).collect::<Option<_>>()?
                }
            };
            let bundle = Bundle { root: good.root.clone(), files };
            // Else it is not what was loaded, however that came.
            (bundle.version() == good.version).then_some(Remembered { good: good.clone(), bundle })
        });
        Ok(found.collect())
    }

    /// Whether a DAG is kept as it is loaded, or found no room so.
    fn knows(&self, entry: &DagEntry) -> bool {
        let definition = &entry.definition;
        let key = key(&entry.project.root, definition.dag.id().as_str());
        let is_as_loaded =
            |good: &Good| good.version == definition.version && *good.file == *definition.file && !good.files.is_empty();
        self.goods.get(&key).is_some_and(is_as_loaded) || self.left_out.get(&key) == Some(&definition.version)
    }

    fn take_in(&mut self, write: Write) {
        if !write.gone.is_empty() {
            // There is more room now.
            self.left_out.clear();
        }
        write.gone.iter().for_each(|key| drop(self.goods.remove(key)));
        self.goods.extend(write.goods.into_iter().map(|good| (good.key(), good)));
        self.left_out.extend(write.left_out.into_iter().map(|left_out| (left_out.key, left_out.version)));
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
            let is_told = self.not_loaded.iter().any(|not_loaded| not_loaded.dag.as_str() == good.dag);
            if is_told || !is_missing(self, good) {
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
        let is_last = |remembered: &&Remembered| kept.goods.get(&remembered.good.key()) == Some(&remembered.good);
        self.remembered.iter().filter(is_last).cloned().collect()
    }

    /// Keeps which version of each DAG is loaded. What cannot be written now is written at the next look at the files.
    pub(super) async fn remember(&self) {
        let Some(mut writing) = self.to_be_written() else { return };
        loop {
            let write = match writing.bytes_left() {
                ..=READ_AT_ONCE => writing.next(),
                // Reading many takes its time, which is not that of those who drive runs.
                _ => {
                    let next = tokio::task::spawn_blocking(move || {
                        let write = writing.next();
                        (writing, write)
                    });
                    let Ok((rest, write)) = next.await else { return };
                    writing = rest;
                    write
                }
            };
            let Some(mut write) = write else { return };
            if !write.entries.is_empty() && self.store.put(std::mem::take(&mut write.entries), None).await.is_err() {
                return;
            }
            for left_out in &write.left_out {
                self.notices.tell(Topic::House, Level::Warn, &left_out.to_string());
            }
            self.good.lock().unwrap_or_else(PoisonError::into_inner).take_in(write);
        }
    }

    /// What is loaded and not kept so, and what is kept and gone; `None` where there is neither.
    fn to_be_written(&self) -> Option<Writing> {
        let catalog = self.catalog();
        let kept = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let new = catalog.dags().values().filter(|entry| !entry.is_stale && !kept.knows(entry));
        let new: Vec<Loaded> =
            new.map(|entry| Loaded { root: entry.project.root.clone(), definition: Arc::clone(&entry.definition) }).collect();
        let roots: BTreeSet<&Path> = catalog.projects().iter().map(|(project, _)| &*project.root).collect();
        let is_gone = |good: &Good| {
            roots.contains(&*good.root)
                && catalog.dag(&good.dag).is_none_or(|entry| entry.project.root != good.root)
                && !catalog.is_in_file(&good.dag, &good.root)
                && (!good.root.join(&good.file).exists() || is_renamed(&catalog, good))
        };
        let gone: Vec<String> = kept.goods.iter().filter(|(_, good)| is_gone(good)).map(|(key, _)| key.clone()).collect();
        let has_any = !new.is_empty() || !gone.is_empty();
        has_any.then(|| Writing::new(&kept.goods, new, gone))
    }
}
