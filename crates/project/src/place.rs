//! Where a key stands in a file: definitions know the places of texts alone, and a key is asked for only when there is something to say of it.

use crate::definition::Source;
use crate::diagnostic::Span;
use crate::files::{self, Files};
use crate::yaml::{self, Node, Value};

/// Where the last of these keys stands, each below the one before it. The first is a key of the mapping that begins at `owner`, or of the value of
/// the key there (as tasks have it). `None` when it is not found: the file may have changed since it was read.
pub fn place_of_key(files: &dyn Files, owner: &Source, keys: &[&str]) -> Option<Span> {
    let text = files::read_text(files, &owner.file, files::YAML_BYTES_MAX).ok()?;
    let root = yaml::parse(&text, &owner.file, &mut Vec::new()).ok()??;
    find(&root, owner, keys)
}

fn find(node: &Node, owner: &Source, keys: &[&str]) -> Option<Span> {
    let begins = |line: u32, column: u32| (line, column) == (owner.line, owner.column);
    // A mapping begins where its first key does, so both are tried.
    let here = if begins(node.line, node.column) { below(node, owner, keys) } else { None };
    here.or_else(|| match &node.value {
        Value::Scalar { .. } => None,
        Value::List(items) => items.iter().find_map(|item| find(item, owner, keys)),
        Value::Map(entries) => entries.iter().find_map(|(key, value)| {
            let named = if begins(key.line, key.column) { below(value, owner, keys) } else { None };
            named.or_else(|| find(value, owner, keys))
        }),
    })
}

fn below(node: &Node, owner: &Source, keys: &[&str]) -> Option<Span> {
    let (first, rest) = keys.split_first()?;
    let (key, value) = node.as_map()?.iter().find(|(key, _)| &*key.text == *first)?;
    if rest.is_empty() { Some(key.span(&owner.file)) } else { below(value, owner, rest) }
}
