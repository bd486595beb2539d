//! When a failed attempt is tried again. Airflow's formula (see DESIGN.md), deterministic: the jitter is a hash.

use sha1::{Digest, Sha1};
use std::time::Duration;

/// No wait is longer, whatever the policy says.
pub const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

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

/// How long to wait after the failure of try `try_number` (from 1).
///
/// With back-off: `b = max(1, ceil(retry_delay * m^(try_number - 1)))` seconds, `h` the SHA-1 of
/// `dag_id#task_id#logical_date#try_number` as a number, and the wait `b + h mod b`: from `b` to just under `2 b`, the same for the
/// same run. Never more than `retry_delay_max`, nor than [`WAIT_MAX`].
pub fn wait(policy: &RetryPolicy, dag_id: &str, task_id: &str, logical_date: &str, try_number: u32) -> Duration {
    let multiplier = policy.exponential.filter(|&multiplier| multiplier.is_finite() && multiplier > 0.0 && multiplier != 1.0);
    let wait = match multiplier {
        None => policy.retry_delay,
        Some(multiplier) => {
            let grown = policy.retry_delay.as_secs_f64() * multiplier.powf(f64::from(try_number.saturating_sub(1)));
            // Past the cap the jitter makes no difference; the comparison is also false for what overflowed to infinity.
            if grown < WAIT_MAX.as_secs_f64() {
                let base = (grown.ceil() as u64).max(1);
                let text = format!("{dag_id}#{task_id}#{logical_date}#{try_number}");
                Duration::from_secs(base + remainder(&Sha1::digest(text.as_bytes()), base))
            } else {
                WAIT_MAX
            }
        }
    };
    wait.min(policy.retry_delay_max.unwrap_or(WAIT_MAX)).min(WAIT_MAX)
}

/// A big-endian number of any length, modulo `divisor`, which is at most a day in seconds.
fn remainder(digits: &[u8], divisor: u64) -> u64 {
    digits.iter().fold(0, |rest, &digit| (rest * 256 + u64::from(digit)) % divisor)
}
