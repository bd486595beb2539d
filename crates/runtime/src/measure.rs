//! How long things take, counted in buckets for metrics.

use backstop_core::{Event, InstanceId};
use backstop_store::Recorded;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in seconds; the last bucket has none.
pub const BOUNDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 14_400.0];

/// Durations in buckets. Nobody waits for anybody: a reader may see one that is counted in some numbers and not yet in others.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time between two moments; a clock that went back counts as none.
    pub(crate) fn observe_between(&self, from: Timestamp, to: Timestamp) {
        self.observe(to.duration_since(from).try_into().unwrap_or_default());
    }

    /// How many took at most as long as each bound, then how many there are, and the sum in seconds.
    pub fn read(&self) -> ([u64; BOUNDS.len()], u64, f64) {
        let mut so_far = 0;
        let counts = std::array::from_fn(|bucket| {
            so_far += self.buckets[bucket].load(Ordering::Relaxed);
            so_far
        });
        let all = so_far + self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        (counts, all, Duration::from_micros(self.microseconds.load(Ordering::Relaxed)).as_secs_f64())
    }
}

/// What a service measures.
#[derive(Debug, Default)]
pub struct Measures {
    /// From when a schedule was due until its run was made.
    pub schedule_lag: Histogram,
    /// From when a run was asked for until it began.
    pub run_start: Histogram,
    /// From when a run began until it ended, of those that did both in this process.
    pub run: Histogram,
    /// Attempts of tasks; each look of a sensor is one.
    pub attempt: Histogram,
    /// From when events were queued until they were durable.
    pub append: Histogram,
}

/// What is measured of one run.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    began: Option<Timestamp>,
    attempts: HashMap<InstanceId, Timestamp>,
}

impl Stopwatch {
    /// Takes in an event that is durable. `queued_at` is when the run was asked for.
    pub(crate) fn take_in(&mut self, recorded: &Recorded, queued_at: Timestamp, measures: &Measures) {
        match &recorded.event {
            Event::RunStarted { at } => {
                measures.run_start.observe_between(queued_at, *at);
                self.began = Some(*at);
            }
            Event::AttemptStarted { instance, at, .. } => drop(self.attempts.insert(instance.clone(), *at)),
            Event::AttemptSucceeded { instance, .. }
            | Event::AttemptDeferred { instance, .. }
            | Event::AttemptFailed { instance, .. }
            | Event::AttemptUnknown { instance, .. } => {
                if let Some(began) = self.attempts.remove(instance) {
                    measures.attempt.observe_between(began, recorded.at);
                }
            }
            Event::RunSucceeded | Event::RunFailed | Event::RunCancelled => {
                if let Some(began) = self.began.take() {
                    measures.run.observe_between(began, recorded.at);
                }
            }
            // Nothing begins or ends with the others.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_in_each_bucket_that_is_wide_enough() {
        let histogram = Histogram::default();
        for milliseconds in [1, 2, 300, 20_000_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let (counts, all, sum) = histogram.read();
        assert_eq!((counts[0], counts[1], counts[7], counts[8], counts[15], all), (1, 2, 2, 3, 3, 4));
        assert!((sum - 20_000.303).abs() < 0.001, "{sum}");
        histogram.observe_between(Timestamp::from_second(2).unwrap(), Timestamp::from_second(1).unwrap());
        assert_eq!(histogram.read().1, 5);
    }
}
