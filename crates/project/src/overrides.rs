//! Variables and sizes of pools that stand before those of backstop.yaml: what people set while a service runs.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// What stands before backstop.yaml. Its `Debug` shows no value, as one may be secret.
#[derive(Clone, Default, PartialEq)]
pub struct Overrides {
    /// By name, as `var.value.NAME` has them.
    pub variables: BTreeMap<String, Value>,
    /// Slots by name; `None` is without limit. A pool that backstop.yaml does not have is one more.
    pub pools: BTreeMap<String, Option<u32>>,
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overrides").field("variables", &self.variables.keys()).field("pools", &self.pools).finish()
    }
}
