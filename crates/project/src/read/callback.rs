//! Callbacks: names of notifiers, or task kinds written in place.

use super::Reading;
use super::pulls::Puller;
use crate::definition::{Callback, Kind};
use crate::diagnostic::code;
use crate::yaml::{Fields, Node, Value};
use std::sync::Arc;
use std::time::Duration;

/// Airflow gives callbacks no limit; without one a hung notifier would hold its place for ever.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What stands under a name in `notifiers:`.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(pub(crate) Option<Callback>);

impl Reading<'_> {
    /// `on_failure: [ops, {shell: ...}]`; a single one needs no list.
    pub(crate) fn callbacks(&mut self, node: &Arc<Node>, what: &str) -> Vec<Callback> {
        let outer = self.puller;
        if let Puller::Task(task) = outer {
            self.puller = Puller::Callback(task);
        }
        let callbacks = match &node.value {
            Value::List(items) => items.iter().filter_map(|item| self.callback(item, what)).collect(),
            Value::Scalar { .. } if node.is_null() => Vec::new(),
            Value::Scalar { .. } | Value::Map(_) => self.callback(node, what).into_iter().collect(),
        };
        self.puller = outer;
        callbacks
    }

    fn callback(&mut self, node: &Arc<Node>, what: &str) -> Option<Callback> {
        match &node.value {
            Value::Map(_) => self.callback_body(node),
            Value::Scalar { .. } | Value::List(_) => {
                let name = self.text(node, what)?;
                if let Some(notifier) = self.scope.notifiers.get(&*name) {
                    if notifier.0.is_none() {
                        let hint = "mend the notifier first: it is reported on its own";
                        self.error_with_hint(code::UNKNOWN_NOTIFIER, format!("notifier `{name}` is wrong itself"), node, hint);
                    }
                    return notifier.0.clone();
                }
                let near = crate::diagnostic::did_you_mean(&name, self.scope.notifiers.keys().map(String::as_str));
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("add it to `notifiers:` in backstop.yaml: `{name}: {{shell: ...}}`"),
                };
                self.error_with_hint(code::UNKNOWN_NOTIFIER, format!("there is no notifier `{name}`"), node, hint);
                None
            }
        }
    }

    /// `{shell: ...}`, `{sql: ..., connection: ...}`, `{python: ...}` or `{http: ...}`.
    pub(crate) fn callback_body(&mut self, node: &Arc<Node>) -> Option<Callback> {
        let entries = self.map(node, "a callback")?;
        let mut fields = Fields::new("Callback", entries);
        let kind = self.kind(&mut fields, &["sql", "shell", "python", "http"], node);
        let (connection, unclear) = self.connection_of(&mut fields);
        let timeout = fields.take_present("timeout").and_then(|node| self.duration_above_zero(node, "`timeout`"));
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        // A callback on another connection than the one that was meant is none.
        if unclear {
            return None;
        }
        Some(Callback {
            name: None,
            kind: kind?.kind,
            connection,
            timeout: timeout.unwrap_or(TIMEOUT),
            source: node.source(&self.file),
        })
    }
}

/// The callbacks with the task's connection where they run SQL and have none of their own.
pub(crate) fn with_connection(callbacks: &[Callback], connection: Option<&String>) -> Vec<Callback> {
    let complete = |callback: &Callback| {
        let mut callback = callback.clone();
        if matches!(callback.kind, Kind::Sql(_)) && callback.connection.is_none() {
            callback.connection = connection.cloned();
        }
        callback
    };
    callbacks.iter().map(complete).collect()
}
