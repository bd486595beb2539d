//! Task settings under Airflow's names, and how `defaults:` are inherited.

use super::Reading;
use crate::definition::Callback;
use crate::diagnostic::code;
use crate::yaml::{Fields, Node};
use backstop_core::dag::{Delivery, WeightRule};
use backstop_core::rule::TriggerRule;
use std::sync::Arc;
use std::time::Duration;

/// Settings that `defaults:` may give: what is `None` is inherited.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) connection: Option<String>,
    /// The connection is written in a way that was reported as wrong: that there is none is no further mistake.
    pub(crate) connection_unclear: bool,
    pub(crate) trigger_rule: Option<TriggerRule>,
    pub(crate) retries: Option<u32>,
    pub(crate) retry_delay: Option<Duration>,
    /// The inner `None` switches back-off off.
    pub(crate) retry_exponential_backoff: Option<Option<f64>>,
    pub(crate) max_retry_delay: Option<Duration>,
    pub(crate) execution_timeout: Option<Duration>,
    pub(crate) pool: Option<u32>,
    pub(crate) pool_slots: Option<u32>,
    pub(crate) priority_weight: Option<i64>,
    pub(crate) weight_rule: Option<WeightRule>,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) on_failure: Option<Arc<[Callback]>>,
    pub(crate) on_retry: Option<Arc<[Callback]>>,
    pub(crate) on_success: Option<Arc<[Callback]>>,
}

impl Defaults {
    /// These settings, and what they leave open from the outer ones.
    pub(crate) fn over(self, outer: &Self) -> Self {
        Self {
            connection_unclear: self.connection_unclear || (self.connection.is_none() && outer.connection_unclear),
            connection: self.connection.or_else(|| outer.connection.clone()),
            trigger_rule: self.trigger_rule.or(outer.trigger_rule),
            retries: self.retries.or(outer.retries),
            retry_delay: self.retry_delay.or(outer.retry_delay),
            retry_exponential_backoff: self.retry_exponential_backoff.or(outer.retry_exponential_backoff),
            max_retry_delay: self.max_retry_delay.or(outer.max_retry_delay),
            execution_timeout: self.execution_timeout.or(outer.execution_timeout),
            pool: self.pool.or(outer.pool),
            pool_slots: self.pool_slots.or(outer.pool_slots),
            priority_weight: self.priority_weight.or(outer.priority_weight),
            weight_rule: self.weight_rule.or(outer.weight_rule),
            delivery: self.delivery.or(outer.delivery),
            on_failure: self.on_failure.or_else(|| outer.on_failure.clone()),
            on_retry: self.on_retry.or_else(|| outer.on_retry.clone()),
            on_success: self.on_success.or_else(|| outer.on_success.clone()),
        }
    }
}

/// The trigger rules by Airflow's names.
pub(crate) const TRIGGER_RULES: &[(&str, TriggerRule)] = &[
    ("all_success", TriggerRule::AllSuccess),
    ("all_failed", TriggerRule::AllFailed),
    ("all_done", TriggerRule::AllDone),
    ("all_done_min_one_success", TriggerRule::AllDoneMinOneSuccess),
    ("all_done_setup_success", TriggerRule::AllDoneSetupSuccess),
    ("one_success", TriggerRule::OneSuccess),
    ("one_failed", TriggerRule::OneFailed),
    ("one_done", TriggerRule::OneDone),
    ("none_failed", TriggerRule::NoneFailed),
    ("none_failed_min_one_success", TriggerRule::NoneFailedMinOneSuccess),
    ("none_skipped", TriggerRule::NoneSkipped),
    ("all_skipped", TriggerRule::AllSkipped),
    ("always", TriggerRule::Always),
];

const WEIGHT_RULES: &[(&str, WeightRule)] =
    &[("downstream", WeightRule::Downstream), ("upstream", WeightRule::Upstream), ("absolute", WeightRule::Absolute)];

const DELIVERIES: &[(&str, Delivery)] = &[("exactly_once", Delivery::ExactlyOnce), ("at_least_once", Delivery::AtLeastOnce)];

/// Most retries: each costs a wait and a record.
pub(super) const RETRIES_MAX: i64 = 10_000;

impl Reading<'_> {
    /// The keys of `defaults:`.
    pub(crate) fn defaults(&mut self, node: &Node) -> Defaults {
        let Some(entries) = self.map(node, "`defaults`") else { return Defaults::default() };
        let mut fields = Fields::new("Defaults", entries);
        let defaults = self.settings(&mut fields);
        fields.finish(super::task::LATER, &self.file.clone(), &mut self.diagnostics);
        defaults
    }

    /// The settings that a task and `defaults:` have in common.
    pub(crate) fn settings(&mut self, fields: &mut Fields<'_>) -> Defaults {
        let (connection, connection_unclear) = self.connection_of(fields);
        let mut read = Defaults { connection, connection_unclear, ..Defaults::default() };
        if let Some(node) = fields.take_present("trigger_rule") {
            read.trigger_rule = self.choice(node, "`trigger_rule`", TRIGGER_RULES);
        }
        self.retry_settings(fields, &mut read);
        if let Some(node) = fields.take_present("execution_timeout") {
            read.execution_timeout = self.duration_above_zero(node, "`execution_timeout`");
        }
        if let Some(node) = fields.take_present("pool") {
            read.pool = self.pool(node);
        }
        if let Some(node) = fields.take_present("pool_slots") {
            read.pool_slots = self.count(node, "`pool_slots`", 1);
        }
        if let Some(node) = fields.take_present("priority_weight") {
            const WEIGHT_MAX: i64 = i32::MAX as i64;
            read.priority_weight = self.integer(node, "`priority_weight`", -WEIGHT_MAX, WEIGHT_MAX);
        }
        if let Some(node) = fields.take_present("weight_rule") {
            read.weight_rule = self.choice(node, "`weight_rule`", WEIGHT_RULES);
        }
        if let Some(node) = fields.take_present("delivery") {
            read.delivery = self.choice(node, "`delivery`", DELIVERIES);
        }
        read.on_failure = fields.take("on_failure").map(|node| self.callbacks(node, "`on_failure`").into());
        read.on_retry = fields.take("on_retry").map(|node| self.callbacks(node, "`on_retry`").into());
        read.on_success = fields.take("on_success").map(|node| self.callbacks(node, "`on_success`").into());
        read
    }

    fn retry_settings(&mut self, fields: &mut Fields<'_>, read: &mut Defaults) {
        if let Some(node) = fields.take_present("retries") {
            read.retries = self.integer(node, "`retries`", 0, RETRIES_MAX).and_then(|value| u32::try_from(value).ok());
        }
        if let Some(node) = fields.take_present("retry_delay") {
            read.retry_delay = self.duration(node, "`retry_delay`");
        }
        if let Some(node) = fields.take_present("retry_exponential_backoff") {
            read.retry_exponential_backoff = match node.as_bool() {
                Some(true) => Some(Some(2.0)),
                Some(false) => Some(None),
                None => self.multiplier(node),
            };
        }
        if let Some(node) = fields.take_present("max_retry_delay") {
            read.max_retry_delay = self.duration(node, "`max_retry_delay`");
        }
    }

    fn multiplier(&mut self, node: &Node) -> Option<Option<f64>> {
        let number = self.number(node, "`retry_exponential_backoff`")?;
        if !(0.0..=1000.0).contains(&number) {
            let hint = "write `true` (which is 2), or the number that each wait is multiplied with";
            self.error_with_hint(code::BAD_VALUE, format!("`retry_exponential_backoff` cannot be {number}"), node, hint);
            return None;
        }
        Some(Some(number))
    }

    fn pool(&mut self, node: &Node) -> Option<u32> {
        let name = self.text(node, "`pool`")?;
        let pools = &self.scope.pools;
        if let Some(place) = pools.iter().position(|pool| pool.name == *name) {
            return u32::try_from(place).ok();
        }
        let near = crate::diagnostic::did_you_mean(&name, pools.iter().map(|pool| pool.name.as_str()));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add it to backstop.yaml: `pools: {{{name}: 4}}`"),
        };
        self.error_with_hint(code::UNKNOWN_POOL, format!("there is no pool `{name}`"), node, hint);
        None
    }

    /// The key `connection`, and whether it was meant but is wrong.
    pub(crate) fn connection_of(&mut self, fields: &mut Fields<'_>) -> (Option<String>, bool) {
        match fields.take_present("connection") {
            Some(node) => {
                let connection = self.connection_id(node);
                let unclear = connection.is_none();
                (connection, unclear)
            }
            None => (None, fields.misspells("connection")),
        }
    }

    /// The id of a connection. One that is not there, or cannot be used, is reported, and given nonetheless: the task has a connection, if a wrong one.
    pub(crate) fn connection_id(&mut self, node: &Node) -> Option<String> {
        let id = self.text(node, "`connection`")?.to_lowercase();
        match self.scope.connections.get(&id) {
            Some(true) => {}
            // Once for a file: it is one mistake, which stands elsewhere.
            Some(false) if self.told_of_connection(&id) => {}
            Some(false) => {
                let hint = "mend the connection first: it is reported on its own";
                self.error_with_hint(code::UNKNOWN_CONNECTION, format!("connection `{id}` is wrong itself"), node, hint);
            }
            None => {
                let near = crate::diagnostic::did_you_mean(&id, self.scope.connections.keys().map(String::as_str));
                let hint = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "add it to `connections:` in backstop.yaml, or set BACKSTOP_CONN_{} in the environment",
                        id.to_uppercase()
                    ),
                };
                self.error_with_hint(code::UNKNOWN_CONNECTION, format!("there is no connection `{id}`"), node, hint);
            }
        }
        Some(id)
    }

    /// Whether this file was told that a connection is missing or wrong.
    pub(crate) fn told_of_connection(&self, id: &str) -> bool {
        let named = format!("`{id}`");
        self.diagnostics.iter().any(|told| told.code == code::UNKNOWN_CONNECTION && told.message.contains(&named))
    }
}
