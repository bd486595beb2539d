//! `transaction: true` on a group: its settings, what a task in it cannot be, and the task that commits it.
//!
//! The group's tasks run one after another on one session, so here they become a chain: in the order of their `after`s, and of the source where
//! those leave it open. What comes after one of them comes after the commit, and the first of them waits for all that any of them waits for
//! from outside, so that the transaction is open no longer than it must be.

use super::Reading;
use super::graph::{Edges, members};
use super::task::{RawGraph, RawTask};
use crate::definition::*;
use crate::diagnostic::{Diagnostic, Span, code};
use crate::yaml::{Fields, Node};
use backstop_core::dag::{Delivery, Role, TaskSettings};
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often a transaction is run again as a whole, unless its group says.
const RETRIES: u32 = 3;
/// How long it waits before that; doubled each time. Others that it collided with are through by then.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest such wait.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

const ISOLATIONS: &[(&str, Isolation)] = &[
    ("read_committed", Isolation::ReadCommitted),
    ("repeatable_read", Isolation::RepeatableRead),
    ("serializable", Isolation::Serializable),
];

/// A group's transaction, as written.
pub(super) struct Shared {
    settings: Transaction,
    retry: RetryPolicy,
}

impl Reading<'_> {
    /// The keys of a group that are about its transaction; `None` where it has none.
    pub(super) fn transaction(&mut self, fields: &mut Fields<'_>) -> Option<Shared> {
        let wanted = fields.take_present("transaction");
        let isolation = fields.take_present("isolation");
        let lock_timeout = fields.take_present("lock_timeout");
        let statement_timeout = fields.take_present("statement_timeout");
        let retries = fields.take_present("retries");
        let retry_delay = fields.take_present("retry_delay");
        if !wanted.and_then(|node| self.boolean(node, "`transaction`")).unwrap_or(false) {
            let of_transactions = [
                ("isolation", isolation),
                ("lock_timeout", lock_timeout),
                ("statement_timeout", statement_timeout),
                ("retries", retries),
                ("retry_delay", retry_delay),
            ];
            for (name, node) in of_transactions {
                if let Some(node) = node {
                    let hint = match name {
                        "retries" | "retry_delay" => {
                            format!(
                                "add `transaction: true`; or, for each task of the group, write it as `defaults: {{{name}: ...}}`"
                            )
                        }
                        _ => "add `transaction: true` to the group".to_owned(),
                    };
                    let message = format!("`{name}` of a group is a setting of its transaction, and it has none");
                    self.error_with_hint(code::CONFLICT, message, node, hint);
                }
            }
            return None;
        }
        let mut limit = |node: Option<&Arc<Node>>, what: &str| node.and_then(|node| self.duration_above_zero(node, what));
        let settings = Transaction {
            isolation: None,
            lock_timeout: limit(lock_timeout, "`lock_timeout`"),
            statement_timeout: limit(statement_timeout, "`statement_timeout`"),
        };
        let isolation = isolation.and_then(|node| self.choice(node, "`isolation`", ISOLATIONS));
        let retries = retries.and_then(|node| self.integer(node, "`retries`", 0, super::settings::RETRIES_MAX));
        let delay = retry_delay.and_then(|node| self.duration(node, "`retry_delay`"));
        Some(Shared {
            settings: Transaction { isolation, ..settings },
            retry: RetryPolicy {
                retries: retries.map_or(RETRIES, |retries| u32::try_from(retries).unwrap_or(u32::MAX)),
                retry_delay: delay.unwrap_or(RETRY_DELAY),
                exponential: Some(2.0),
                retry_delay_max: Some(delay.map_or(RETRY_DELAY_MAX, |delay| delay.max(RETRY_DELAY_MAX))),
            },
        })
    }

    /// Checks the tasks of a transaction, which are those from `first` on, and adds the one that commits them.
    pub(super) fn close_transaction(
        &mut self,
        id: &Arc<str>,
        at: Span,
        group: u32,
        first: usize,
        shared: Shared,
        graph: &mut RawGraph,
    ) {
        let mut outer = graph.groups[group as usize].parent;
        while let Some(place) = outer {
            let around = &graph.groups[place as usize];
            if around.is_transaction {
                let message = format!("`{id}` is a transaction in the transaction of `{}`", around.id);
                let diagnostic =
                    Diagnostic::error(code::TRANSACTION_NESTED, message, at).label(around.at.clone(), "the outer one");
                self.diagnostics.push(diagnostic.hint("remove `transaction` here: its tasks are part of the outer one"));
                graph.groups[group as usize].is_transaction = false;
                return;
            }
            outer = around.parent;
        }
        let Some(lead) = graph.tasks.get(first) else {
            graph.groups[group as usize].is_transaction = false;
            return;
        };
        for task in &graph.tasks[first..] {
            self.takes_part(task, lead);
        }
        let connection = lead.body.as_ref().and_then(|body| body.connection.clone());
        let settings = TaskSettings {
            retry: shared.retry,
            pool: lead.settings.pool,
            pool_slots: lead.settings.pool_slots,
            group: Some(group),
            ..TaskSettings::default()
        };
        let body = Body {
            kind: Kind::Commit(shared.settings),
            connection,
            execution_timeout: None,
            for_each: None,
            callbacks: Callbacks::default(),
            delivery: Delivery::ExactlyOnce,
            source: Source { file: at.file.clone(), line: at.line, column: at.column },
            updates: Vec::new(),
            doc: None,
        };
        graph.task_places.insert(id.clone(), u32::try_from(graph.tasks.len()).unwrap_or(u32::MAX));
        graph.tasks.push(RawTask { id: id.to_string(), at, group: Some(group), after: Vec::new(), settings, body: Some(body) });
    }

    /// What a task in a transaction cannot be.
    fn takes_part(&mut self, task: &RawTask, lead: &RawTask) {
        let id = &task.id;
        let mut refuse = |code: &'static str, message: String, hint: &str| {
            self.diagnostics.push(Diagnostic::error(code, message, task.at.clone()).hint(hint));
        };
        let settings = &task.settings;
        let setting = code::TRANSACTION_SETTING;
        if settings.mapped {
            refuse(
                setting,
                format!("`{id}` is mapped, and in a transaction"),
                "write one statement over all items, or move it out of the group",
            );
        }
        if settings.role != Role::Work {
            refuse(setting, format!("`{id}` is a setup or teardown, and in a transaction"), "move it out of the group");
        } else if settings.trigger_rule != TriggerRule::AllSuccess {
            let hint = "remove `trigger_rule`: when one task of a transaction fails, all of it is rolled back";
            refuse(setting, format!("`{id}` is in a transaction, and would run though others fail"), hint);
        }
        if settings.delivery == Delivery::AtLeastOnce {
            let hint = "set `delivery: exactly_once` on it, or move it out of the group";
            refuse(setting, format!("`{id}` is in a transaction, which takes effect once, and may run at least once"), hint);
        }
        if (settings.pool, settings.pool_slots) != (lead.settings.pool, lead.settings.pool_slots) {
            let hint = "give all tasks of the group one `pool` and `pool_slots`, in its `defaults:`";
            refuse(setting, format!("`{id}` takes other slots than `{}`, with which it shares a session", lead.id), hint);
        }
        let Some(body) = &task.body else { return };
        match &body.kind {
            Kind::Sql(sql) if sql.autocommit => {
                let hint = "remove `autocommit`: the group commits once, at its end";
                refuse(setting, format!("`{id}` is in a transaction, and commits each statement by itself"), hint);
            }
            Kind::Sql(_) | Kind::Check(_) => {}
            kind @ (Kind::Branch(_)
            | Kind::Sensor(_)
            | Kind::Shell(_)
            | Kind::Python(_)
            | Kind::Http(_)
            | Kind::Dag(_)
            | Kind::WaitFor(_)
            | Kind::Commit(_)
            | Kind::Empty) => {
                let message = format!("`{id}` is of kind `{}`, which cannot take part in a transaction", kind.name());
                refuse(code::TRANSACTION_KIND, message, "sql and check tasks can; move it out of the group");
                return;
            }
        }
        let Some(first) = lead.body.as_ref().and_then(|body| body.connection.as_ref()) else { return };
        if let Some(connection) = body.connection.as_ref().filter(|connection| *connection != first) {
            let message = format!("`{id}` uses connection `{connection}`, and the transaction it is in `{first}`");
            let diagnostic = Diagnostic::error(code::TRANSACTION_CONNECTION, message, task.at.clone());
            let diagnostic = diagnostic.label(lead.at.clone(), format!("`{}` uses `{first}`", lead.id));
            self.diagnostics.push(diagnostic.hint("a transaction is of one database: move the task out of the group"));
        }
    }
}

/// Makes a chain of the tasks of each transaction, with its commit at the end.
pub(super) fn chain(graph: &RawGraph, edges: &mut Edges) {
    if graph.groups.iter().all(|group| !group.is_transaction) {
        return;
    }
    let members = members(graph);
    for (place, group) in graph.groups.iter().enumerate().filter(|(_, group)| group.is_transaction) {
        let Some(&commit) = graph.task_places.get(group.id.as_str()) else { continue };
        let inside: BTreeSet<u32> = members[place].iter().copied().filter(|task| *task != commit).collect();
        // Tasks that wait for each other are told of as a cycle.
        let Some(order) = in_order(&inside, edges) else { continue };
        let outside = inside.iter().flat_map(|task| &edges.upstream[*task as usize]).copied();
        let outside: BTreeSet<u32> = outside.filter(|task| !inside.contains(task)).collect();
        for task in 0..edges.upstream.len() {
            let upstream = &mut edges.upstream[task];
            if !inside.contains(&(task as u32)) && upstream.intersection(&inside).next().is_some() {
                upstream.retain(|up| !inside.contains(up));
                upstream.insert(commit);
            }
        }
        for (at, task) in order.iter().enumerate() {
            let upstream = &mut edges.upstream[*task as usize];
            upstream.retain(|up| inside.contains(up));
            match at {
                0 => upstream.extend(&outside),
                _ => drop(upstream.insert(order[at - 1])),
            }
        }
        edges.upstream[commit as usize] = order.last().copied().into_iter().collect();
    }
}

/// Every task after those it waits for, and in the order of the source where that leaves it open. `None` when they wait for each other.
fn in_order(inside: &BTreeSet<u32>, edges: &Edges) -> Option<Vec<u32>> {
    let mut left = inside.clone();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let next = left.iter().copied().find(|task| edges.upstream[*task as usize].intersection(&left).next().is_none())?;
        left.remove(&next);
        order.push(next);
    }
    Some(order)
}
