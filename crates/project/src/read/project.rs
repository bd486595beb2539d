//! backstop.yaml: name, connections, variables, pools, notifiers, defaults.

use super::callback::Notifier;
use super::settings::Defaults;
use super::{Reading, Scope};
use crate::definition::Connection;
use crate::diagnostic::{Span, code};
use crate::environment::Environment;
use crate::secrets::is_secret_variable;
use crate::yaml::{Fields, Key, Node, Value};
use backstop_core::dag::Pool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The file's name.
pub(crate) const FILE: &str = "backstop.yaml";

/// Airflow's default pool has 128 slots.
const DEFAULT_POOL: (&str, u32) = ("default_pool", 128);

/// Keys of later versions.
const LATER: &[&str] = &["assets", "server", "store", "users", "auth", "transfer", "limits"];

/// backstop.yaml as read, before the environment is added.
#[derive(Default)]
pub(crate) struct ProjectFile {
    pub(crate) name: Option<String>,
    pub(crate) connections: BTreeMap<String, Connection>,
    /// Connections whose definition is wrong.
    pub(crate) broken: BTreeSet<String>,
    pub(crate) variables: BTreeMap<String, serde_json::Value>,
    /// A key is wrong that may have been meant for all DAGs.
    pub(crate) flawed: bool,
}

impl Scope {
    /// A scope of nothing but the default pool.
    pub(crate) fn empty() -> Self {
        let (name, slots) = DEFAULT_POOL;
        Self {
            connections: BTreeMap::new(),
            variables: BTreeSet::new(),
            pools: vec![Pool { name: name.to_owned(), slots: Some(slots) }],
            notifiers: BTreeMap::new(),
            defaults: Defaults::default(),
            used: BTreeMap::new(),
            is_forgiving: false,
        }
    }
}

/// Reads name, connections and variables. What names connections follows in [`pools`], [`notifiers`] and [`defaults`], when all connections, those
/// of the environment included, are known.
pub(crate) fn read_project(reading: &mut Reading<'_>, root: Option<&Arc<Node>>, environment: &Environment) -> ProjectFile {
    let mut file = ProjectFile::default();
    let Some(root) = root.filter(|root| !root.is_null()) else { return file };
    let Some(entries) = reading.map(root, "backstop.yaml") else {
        file.flawed = true;
        return file;
    };
    let mut fields = Fields::new("Project", entries);
    file.name = fields.take_present("name").and_then(|node| reading.text(node, "`name`")).map(|name| name.to_string());
    if let Some(node) = fields.take_present("connections") {
        reading.connections(node, environment, &mut file);
    }
    if let Some(node) = fields.take_present("variables") {
        for (key, value) in reading.map(node, "`variables`").unwrap_or_default() {
            let value = reading.variable(value, environment);
            file.variables.insert(key.text.to_string(), value);
        }
    }
    for key in ["pools", "notifiers", "defaults"] {
        fields.take(key);
    }
    let before = reading.diagnostics.len();
    fields.finish(LATER, &reading.file.clone(), &mut reading.diagnostics);
    file.flawed = reading.diagnostics.len() > before;
    file
}

fn part<'n>(root: Option<&'n Arc<Node>>, name: &str) -> Option<&'n Arc<Node>> {
    let entries = root?.as_map()?;
    entries.iter().find(|(key, _)| &*key.text == name).map(|(_, node)| node).filter(|node| !node.is_null())
}

/// `pools:`, the default pool first.
pub(crate) fn read_pools(reading: &mut Reading<'_>, root: Option<&Arc<Node>>) -> Vec<Pool> {
    part(root, "pools").map_or_else(|| Scope::empty().pools, |node| reading.pools(node))
}

/// `notifiers:`.
pub(crate) fn read_notifiers(reading: &mut Reading<'_>, root: Option<&Arc<Node>>) -> BTreeMap<String, Notifier> {
    part(root, "notifiers").map(|node| reading.notifiers(node)).unwrap_or_default()
}

/// `defaults:`, which may name notifiers and pools.
pub(crate) fn read_defaults(reading: &mut Reading<'_>, root: Option<&Arc<Node>>) -> Defaults {
    part(root, "defaults").map(|node| reading.defaults(node)).unwrap_or_default()
}

impl Reading<'_> {
    fn notifiers(&mut self, node: &Node) -> BTreeMap<String, Notifier> {
        let mut notifiers = BTreeMap::new();
        for (key, value) in self.map(node, "`notifiers`").unwrap_or_default() {
            let at = self.key_span(key);
            self.id(&key.text, "a notifier", at, false);
            let before = self.errors();
            // One with errors is none: what is wrong with it may be what it should have told.
            let callback = self
                .callback_body(value)
                .filter(|_| self.errors() == before)
                .map(|callback| crate::definition::Callback { name: Some(key.text.to_string()), ..callback });
            notifiers.insert(key.text.to_string(), Notifier(callback));
        }
        notifiers
    }

    /// `name: 4`, or `name: {slots: 4, description: ...}`. -1 is without limit.
    fn pools(&mut self, node: &Node) -> Vec<Pool> {
        let mut pools = Scope::empty().pools;
        for (key, value) in self.map(node, "`pools`").unwrap_or_default() {
            let at = self.key_span(key);
            self.id(&key.text, "a pool", at, false);
            let slots = match &value.value {
                Value::Map(entries) => {
                    let mut fields = Fields::new("Pool", entries);
                    let slots = fields.take_present("slots");
                    if let Some(description) = fields.take_present("description") {
                        self.text(description, "`description`");
                    }
                    fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
                    if slots.is_none() {
                        self.error(code::MISSING_KEY, "a pool needs `slots`", value);
                    }
                    slots
                }
                Value::Scalar { .. } | Value::List(_) => Some(value),
            };
            let Some(slots) = slots.and_then(|slots| self.integer(slots, "`slots`", -1, i64::from(i32::MAX))) else { continue };
            if slots == 0 {
                self.error_with_hint(code::BAD_VALUE, "a pool of no slots would let nothing run", value, "-1 is without limit");
                continue;
            }
            let pool = Pool { name: key.text.to_string(), slots: u32::try_from(slots).ok() };
            match pools.iter_mut().find(|known| known.name == pool.name) {
                Some(known) => *known = pool,
                None => pools.push(pool),
            }
        }
        pools
    }

    /// The value of a variable; `${NAME}` in its texts is replaced.
    fn variable(&mut self, node: &Node, environment: &Environment) -> serde_json::Value {
        match &node.value {
            Value::List(items) => serde_json::Value::Array(items.iter().map(|item| self.variable(item, environment)).collect()),
            Value::Map(entries) => {
                entries.iter().map(|(key, value)| (key.text.to_string(), self.variable(value, environment))).collect()
            }
            Value::Scalar { .. } => match node.as_text() {
                Some(_) => self.substituted(node, environment).map(serde_json::Value::from).unwrap_or_default(),
                None => node.to_json(),
            },
        }
    }

    /// The text with `${NAME}` and `${NAME:-default}` replaced. A variable that is not set is reported, with its name alone.
    pub(super) fn substituted(&mut self, node: &Node, environment: &Environment) -> Option<String> {
        self.substituted_in(node, environment, false)
    }

    /// As [`Reading::substituted`], in a place that is secret: then so is every part of it, whatever its name is.
    pub(super) fn substituted_in(&mut self, node: &Node, environment: &Environment, is_secret: bool) -> Option<String> {
        let text = self.text(node, "the value")?;
        match crate::environment::substitute(&text, environment) {
            Ok(substituted) => {
                for (name, value) in substituted.used {
                    if is_secret || is_secret_variable(&name) {
                        self.secrets.add(value);
                    }
                }
                Some(substituted.text)
            }
            Err(missing) => {
                for name in missing {
                    let message = format!("variable `{name}` is not set in the environment");
                    let hint = format!("set {name}, or give a default: `${{{name}:-...}}`; `$$` is a dollar sign");
                    self.error_with_hint(code::MISSING_ENVIRONMENT, message, node, hint);
                }
                None
            }
        }
    }
}

/// backstop.yaml for a bundle: no values of connections and variables, which stay with the live project. Lines keep their numbers where they
/// can, so that places in the rest still hold.
pub(crate) fn without_secrets(text: &str, root: Option<&Arc<Node>>) -> Vec<u8> {
    let Some(entries) = root.and_then(|root| root.as_map()) else { return Vec::new() };
    let kept = |(key, value): &(Key, Arc<Node>)| {
        let value = match &*key.text {
            "connections" => {
                value.as_map().unwrap_or_default().iter().map(|(id, _)| (id.text.to_string(), serde_json::json!({}))).collect()
            }
            "variables" => serde_json::json!({}),
            _ => value.to_json(),
        };
        (key.text.to_string(), value)
    };
    let wanted: serde_json::Value = entries.iter().map(kept).collect();
    if let Some(cut) = cut_lines(text, entries, &wanted) {
        let mut ignored = Vec::new();
        let reread = crate::yaml::parse(&cut, &FILE.into(), &mut ignored).ok().flatten();
        if reread.is_some_and(|root| root.to_json() == wanted) {
            return cut.into_bytes();
        }
    }
    // Aliases out of a connection, or a file on one line: the same values as JSON, which is YAML.
    wanted.to_string().into_bytes()
}

/// The text with the lines of `connections:` and `variables:` replaced by one line and blank ones. `None` where they do not stand on lines of
/// their own.
fn cut_lines(text: &str, entries: &[(Key, Arc<Node>)], wanted: &serde_json::Value) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (nth, (key, _)) in entries.iter().enumerate() {
        if !matches!(&*key.text, "connections" | "variables") {
            continue;
        }
        let first = key.line as usize - 1;
        let end = entries.get(nth + 1).map_or(lines.len(), |(next, _)| next.line as usize - 1);
        if key.column != 1 || first >= end || end > lines.len() {
            return None;
        }
        for line in &mut lines[first..end] {
            line.clear();
        }
        lines[first] = format!("{}: {}", key.text, wanted.get(&*key.text)?);
    }
    let mut cut = lines.join("\n");
    cut.push('\n');
    Some(cut)
}

/// The place of a connection's id, for labels.
pub(super) fn key_span(key: &Key, file: &Arc<str>) -> Span {
    key.span(file)
}
