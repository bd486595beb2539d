//! Reads the keys of one mapping, and says what is left over.

use super::{Key, Node};
use crate::diagnostic::{Diagnostic, code, did_you_mean};
use std::sync::Arc;

/// The keys of one mapping, taken one by one.
pub(crate) struct Fields<'n> {
    /// The name of the format's type, for messages and for the test that reader and schema know the same keys.
    object: &'static str,
    entries: &'n [(Key, Arc<Node>)],
    taken: Vec<bool>,
    asked: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Starts on a mapping.
    pub(crate) fn new(object: &'static str, entries: &'n [(Key, Arc<Node>)]) -> Self {
        Self { object, entries, taken: vec![false; entries.len()], asked: Vec::with_capacity(48) }
    }

    /// The value of a key, if it is there. Asking makes the key a known one.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'n Arc<Node>> {
        self.take_entry(key).map(|(_, node)| node)
    }

    /// The key and its value.
    pub(crate) fn take_entry(&mut self, key: &'static str) -> Option<(&'n Key, &'n Arc<Node>)> {
        self.asked.push(key);
        let at = self.entries.iter().position(|(found, _)| &*found.text == key)?;
        self.taken[at] = true;
        let (key, node) = &self.entries[at];
        Some((key, node))
    }

    /// As [`Fields::take`], and nothing where the value is null.
    pub(crate) fn take_present(&mut self, key: &'static str) -> Option<&'n Arc<Node>> {
        self.take(key).filter(|node| !node.is_null())
    }

    /// True when the key is there, without taking it.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(found, _)| &*found.text == key)
    }

    /// True when a key that nobody asked for is a misspelling of this one, which is not there itself. What follows from its absence is not worth
    /// telling then: the misspelling is.
    pub(crate) fn misspells(&self, wanted: &str) -> bool {
        let meant = |key: &Key| did_you_mean(&key.text, [wanted]).is_some() || is_airflows_name(&key.text, wanted);
        !self.has(wanted) && self.entries.iter().zip(&self.taken).any(|((key, _), taken)| !taken && meant(key))
    }

    /// Reports the keys that nobody asked for. `later` are keys of the format that this version does not have.
    pub(crate) fn finish(self, later: &[&str], file: &Arc<str>, diagnostics: &mut Vec<Diagnostic>) {
        #[cfg(test)]
        keys_asked::record(self.object, &self.asked);
        for ((key, _), taken) in self.entries.iter().zip(&self.taken) {
            if *taken {
                continue;
            }
            let text = &key.text;
            if later.contains(&&**text) {
                let message = format!("`{text}` is not available in this version");
                diagnostics.push(
                    Diagnostic::error(code::NOT_AVAILABLE, message, key.span(file))
                        .hint("remove it: to accept it without doing it would promise what this version does not keep"),
                );
                continue;
            }
            let message = format!("unknown key `{text}` in {}", self.object);
            let diagnostic = Diagnostic::error(code::UNKNOWN_KEY, message, key.span(file));
            let near = did_you_mean(text, self.asked.iter().copied());
            diagnostics.push(match near.or_else(|| self.asked.iter().copied().find(|known| is_airflows_name(text, known))) {
                Some(known) => diagnostic.hint(format!("did you mean `{known}`?")),
                None => diagnostic.hint(format!("known keys: {}", self.asked.join(", "))),
            });
        }
    }
}

/// `conn_id`, `postgres_conn_id`: Airflow's operators each have a name of their own for it.
fn is_airflows_name(key: &str, known: &str) -> bool {
    known == "connection" && (key == "conn_id" || key.ends_with("_conn_id"))
}

/// Which keys the reader asked for, by type of the format.
#[cfg(test)]
pub(crate) mod keys_asked {
    use std::cell::RefCell;
    use std::collections::{BTreeMap, BTreeSet};

    thread_local! {
        static ASKED: RefCell<BTreeMap<&'static str, BTreeSet<&'static str>>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn record(object: &'static str, asked: &[&'static str]) {
        ASKED.with_borrow_mut(|all| all.entry(object).or_default().extend(asked));
    }

    /// Everything asked for on this thread.
    pub(crate) fn take() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
        ASKED.with_borrow_mut(std::mem::take)
    }
}
