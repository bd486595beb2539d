//! What is written to the store of last good versions: each content once, however many DAGs have it, and no more bytes than there is room for.
//!
//! A write has what a DAG is made of together with its contents, and takes away contents that nobody has behind it: so that wherever a process
//! dies, what is kept of a DAG is whole, and nothing stays that nobody knows. It must not know the store, nor when it is written to.

use super::{CONTENT, Content, FILES_BEFORE, Good, KIND};
use backstop_project::definition::Definition;
use backstop_store::Entry;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of contents that are kept for all DAGs together. One SQL file may have 256 MiB, and what finds no room runs all the same.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// DAGs of one write.
const DAGS_AT_ONCE: usize = 32;
/// Bytes of new contents behind which no further DAG is taken into a write.
const BYTES_AT_ONCE: u64 = 4 * 1024 * 1024;

/// A DAG as it is loaded.
pub(super) struct Loaded {
    pub(super) root: PathBuf,
    pub(super) definition: Arc<Definition>,
}

/// What is put into the store at once, and what holds behind it.
#[derive(Default)]
pub(super) struct Write {
    pub(super) entries: Vec<Entry>,
    pub(super) goods: Vec<Good>,
    /// Keys of what is not kept any more.
    pub(super) gone: Vec<String>,
    pub(super) left_out: Vec<LeftOut>,
}

/// A DAG whose files find no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) key: String,
    pub(super) version: String,
    dag: String,
    /// Of all DAGs, with it.
    bytes: u64,
    bytes_max: u64,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dag, bytes, bytes_max, .. } = self;
        write!(
            f,
            "the last good version of DAG `{dag}` is not kept over a restart: with its files that of all DAGs has {bytes} bytes, of \
             {bytes_max} at most; should its file be broken when the service starts, it is not there until that is mended"
        )
    }
}

/// What is left to be written.
pub(super) struct Writing {
    /// By key, as they are behind the writes so far.
    goods: BTreeMap<String, Good>,
    /// By digest: how many DAGs have it, and its bytes.
    contents: HashMap<String, (usize, u64)>,
    /// Of all contents.
    bytes: u64,
    bytes_max: u64,
    new: VecDeque<Loaded>,
    gone: VecDeque<String>,
}

impl Writing {
    pub(super) fn new(goods: &BTreeMap<String, Good>, new: Vec<Loaded>, gone: Vec<String>) -> Self {
        let mut writing = Self {
            goods: goods.clone(),
            contents: HashMap::new(),
            bytes: 0,
            bytes_max: BYTES_MAX,
            new: new.into(),
            gone: gone.into(),
        };
        goods.values().for_each(|good| writing.hold(good));
        writing
    }

    /// The next write; `None` when all is written. Reads through the contents of new DAGs: not for those who must not wait.
    pub(super) fn next(&mut self) -> Option<Write> {
        if self.new.is_empty() && self.gone.is_empty() {
            return None;
        }
        let mut write = Write::default();
        // First, because it makes room.
        for key in self.gone.drain(..self.gone.len().min(DAGS_AT_ONCE)).collect::<Vec<_>>() {
            self.take_away(key, &mut write);
        }
        if !self.gone.is_empty() {
            return Some(write);
        }
        let mut bytes = 0;
        for _ in 0..DAGS_AT_ONCE {
            let Some(loaded) = self.new.pop_front() else { break };
            bytes += self.keep(&loaded, &mut write);
            if bytes >= BYTES_AT_ONCE {
                break;
            }
        }
        Some(write)
    }

    /// Bytes that are read through until all is written.
    pub(super) fn bytes_left(&self) -> usize {
        self.new.iter().flat_map(|loaded| loaded.definition.bundle.files.values()).map(Vec::len).sum()
    }

    /// Gives the bytes of new contents.
    fn keep(&mut self, loaded: &Loaded, write: &mut Write) -> u64 {
        let definition = &loaded.definition;
        let good = good(loaded);
        let key = good.key();
        let fresh: BTreeMap<&str, (&Content, &Vec<u8>)> = {
            let contents = good.files.values().zip(definition.bundle.files.values());
            let fresh = contents.filter(|(content, _)| !self.contents.contains_key(&content.digest));
            fresh.map(|(content, bytes)| (&*content.digest, (content, bytes))).collect()
        };
        let fresh_bytes: u64 = fresh.values().map(|(content, _)| content.bytes).sum();
        let wanted = self.bytes - self.bytes_without(&key, &good) + fresh_bytes;
        if wanted > self.bytes_max {
            // An older version would not be the last good one.
            let (dag, version, bytes_max) = (good.dag.clone(), good.version.clone(), self.bytes_max);
            write.left_out.push(LeftOut { key: key.clone(), version, dag, bytes: wanted, bytes_max });
            self.take_away(key, write);
            return 0;
        }
        write.entries.extend(fresh.iter().map(|(digest, (_, bytes))| entry(CONTENT, digest, body(bytes))));
        self.hold(&good);
        if let Some(before) = self.goods.insert(key.clone(), good.clone()) {
            self.let_go(&before, write);
        }
        write.entries.push(entry(KIND, &key, serde_json::to_string(&good).ok()));
        write.goods.push(good);
        fresh_bytes
    }

    fn take_away(&mut self, key: String, write: &mut Write) {
        let Some(before) = self.goods.remove(&key) else { return };
        self.let_go(&before, write);
        write.entries.push(entry(KIND, &key, None));
        write.gone.push(key);
    }

    /// Bytes of contents that nobody has any more once this is kept instead of what is kept of the DAG.
    fn bytes_without(&self, key: &str, instead: &Good) -> u64 {
        let Some(before) = self.goods.get(key) else { return 0 };
        let stays = digests(instead);
        let goes = digests(before).into_iter().filter(|digest| !stays.contains(digest));
        goes.filter_map(|digest| self.contents.get(digest)).filter(|(held, _)| *held == 1).map(|(_, bytes)| bytes).sum()
    }

    fn hold(&mut self, good: &Good) {
        for content in good.files.values().map(|content| (&content.digest, content.bytes)).collect::<BTreeMap<_, _>>() {
            let (held, bytes) = self.contents.entry(content.0.clone()).or_insert((0, content.1));
            *held += 1;
            if *held == 1 {
                self.bytes += *bytes;
            }
        }
    }

    fn let_go(&mut self, good: &Good, write: &mut Write) {
        if good.files.is_empty() {
            write.entries.push(entry(FILES_BEFORE, &good.key(), None));
        }
        for digest in digests(good) {
            let Some((held, bytes)) = self.contents.get_mut(digest) else { continue };
            *held -= 1;
            if *held == 0 {
                self.bytes -= *bytes;
                self.contents.remove(digest);
                // In the order of the list: it may have come with this very write.
                write.entries.push(entry(CONTENT, digest, None));
            }
        }
    }
}

fn digests(good: &Good) -> BTreeSet<&str> {
    good.files.values().map(|content| &*content.digest).collect()
}

fn good(loaded: &Loaded) -> Good {
    let definition = &loaded.definition;
    let content = |(path, bytes): (&String, &Vec<u8>)| {
        let mut digest = String::with_capacity(64);
        for byte in Sha256::digest(bytes) {
            let _ = write!(digest, "{byte:02x}");
        }
        (path.clone(), Content { digest, bytes: bytes.len() as u64 })
    };
    Good {
        dag: definition.dag.id().to_string(),
        root: loaded.root.clone(),
        file: definition.file.to_string(),
        version: definition.version.clone(),
        files: definition.bundle.files.iter().map(content).collect(),
    }
}

fn entry(kind: &str, key: &str, body: Option<String>) -> Entry {
    Entry { kind: kind.into(), key: key.into(), body }
}

/// Text as text, so that it takes no more room than it must.
fn body(bytes: &[u8]) -> Option<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::to_string(text).ok(),
        Err(_) => serde_json::to_string(bytes).ok(),
    }
}

#[cfg(test)]
mod tests;
