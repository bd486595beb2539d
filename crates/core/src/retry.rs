//! When a failed attempt is tried again. Airflow's formula (see DESIGN.md), deterministic: the jitter is a hash.

use std::time::Duration;

/// A task's retry settings.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Tries after the first; 0 is none.
    pub retries: u32,
    /// Wait before the first retry. Airflow's default is 300 s.
    pub retry_delay: Duration,
    /// Multiplier of exponential back-off; `None`, 0 and 1 keep the wait constant.
    pub exponential: Option<f64>,
    /// Upper bound of the wait.
    pub retry_delay_max: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: 0, retry_delay: Duration::from_secs(300), exponential: None, retry_delay_max: None }
    }
}
