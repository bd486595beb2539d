//! Back-off against values computed with Python:
//!
//! ```python
//! b = max(1, math.ceil(delay * m ** (n - 1)))
//! h = int(hashlib.sha1(f"{dag}#{task}#{date}#{n}".encode()).hexdigest(), 16)
//! min(b + h % b, 86400)   # dag = "nightly", date = "2025-05-01 02:00:00+00:00"
//! ```

use backstop_core::retry::{RetryPolicy, WAIT_MAX, wait};
use std::time::Duration;

fn seconds(delay: f64, exponential: Option<f64>, most: Option<u64>, task: &str, try_number: u32) -> u64 {
    let policy = RetryPolicy {
        retries: 9,
        retry_delay: Duration::from_secs_f64(delay),
        exponential,
        retry_delay_max: most.map(Duration::from_secs),
    };
    wait(&policy, "nightly", task, "2025-05-01 02:00:00+00:00", try_number).as_secs()
}

#[test]
fn back_off_is_airflows() {
    let cases = [
        (300.0, 2.0, "load", 1, 580),
        (300.0, 2.0, "load", 2, 962),
        (300.0, 2.0, "load", 3, 1_453),
        (300.0, 2.0, "load", 8, 40_672),
        (300.0, 2.0, "load", 9, 86_400),
        (10.0, 1.5, "load", 4, 44),
        (0.0, 2.0, "load", 3, 1),
        (300.0, 2.0, "extract", 2, 876),
        (100.0, 0.5, "load", 3, 28),
        (0.2, 3.0, "load", 2, 1),
    ];
    for (delay, multiplier, task, try_number, expected) in cases {
        assert_eq!(
            seconds(delay, Some(multiplier), None, task, try_number),
            expected,
            "{delay} {multiplier} {task} {try_number}"
        );
    }
}

#[test]
fn without_back_off_the_wait_is_constant_and_has_no_jitter() {
    for multiplier in [None, Some(0.0), Some(1.0), Some(-2.0), Some(f64::NAN), Some(f64::INFINITY)] {
        assert_eq!(seconds(300.0, multiplier, None, "load", 1), 300, "{multiplier:?}");
        assert_eq!(seconds(300.0, multiplier, None, "load", 7), 300, "{multiplier:?}");
    }
}

#[test]
fn no_wait_is_over_its_bounds() {
    assert_eq!(seconds(300.0, Some(2.0), Some(400), "load", 3), 400);
    assert_eq!(seconds(300.0, None, Some(60), "load", 1), 60);
    assert_eq!(seconds(1e9, None, None, "load", 1), WAIT_MAX.as_secs());
    assert_eq!(seconds(300.0, Some(2.0), None, "load", u32::MAX), WAIT_MAX.as_secs(), "an overflow to infinity");
    assert_eq!(seconds(0.0, Some(1e300), None, "load", u32::MAX), WAIT_MAX.as_secs(), "nothing times infinity");
}
