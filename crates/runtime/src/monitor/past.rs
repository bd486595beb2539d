//! What the statements of a DAG took and changed in earlier runs: what this run is compared with.

use backstop_core::DagId;
use backstop_core::event::{Anomaly, StatementRecord, Unusual};
use backstop_store::{PastStatement, Store, UsualTime};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Runs that are looked at.
const RUNS_MAX: u32 = 30;
/// Statements that are read of one DAG, newest runs first.
const STATEMENTS_MAX: u32 = 20_000;
/// How long an answer is good.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// DAGs that are remembered.
const DAGS_MAX: usize = 256;
/// From so few nothing is concluded.
const ENOUGH: usize = 5;

/// By how much a time differs at least from what is usual, to be told.
const MARGIN_MS: u64 = 2000;
/// By how many rows, and by which factor, a count does.
const ROWS_MARGIN: u64 = 10;
const ROWS_FACTOR: u64 = 3;

/// How a statement usually goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usual {
    pub(crate) time: UsualTime,
    rows: Rows,
}

/// How many rows it touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rows {
    min: u64,
    p50: u64,
    max: u64,
}

impl Usual {
    /// What is unusual of a statement that goes on for so long.
    pub(crate) fn slow(&self, statement: u32, elapsed_ms: u64) -> Option<Anomaly> {
        let UsualTime { p95_ms, of, .. } = self.time;
        // By half, and by an amount that anybody would notice.
        let limit = (p95_ms.saturating_add(p95_ms / 2)).max(p95_ms.saturating_add(MARGIN_MS));
        (elapsed_ms > limit).then_some(Anomaly { statement, unusual: Unusual::Slow, seen: elapsed_ms, usual: p95_ms, of })
    }

    /// What is unusual of a statement that has ended.
    pub(crate) fn judge(&self, record: &StatementRecord) -> Vec<Anomaly> {
        let Rows { min, p50, max } = self.rows;
        let rows = record.rows_affected.unwrap_or(record.rows_returned);
        let differs = |other: u64| rows.abs_diff(other) >= ROWS_MARGIN;
        let unusual = match rows {
            0 if min > 0 && p50 >= ROWS_MARGIN => Some(Unusual::NoRows),
            0 => None,
            rows if rows.saturating_mul(ROWS_FACTOR) < min && differs(min) => Some(Unusual::FewRows),
            rows if rows > max.saturating_mul(ROWS_FACTOR) && differs(max) => Some(Unusual::ManyRows),
            _ => None,
        };
        let of_rows =
            unusual.map(|unusual| Anomaly { statement: record.number, unusual, seen: rows, usual: p50, of: self.time.of });
        self.slow(record.number, record.duration_us / 1000).into_iter().chain(of_rows).collect()
    }
}

/// By task and statement.
pub(crate) type Past = HashMap<(String, u32), Usual>;

/// Of some DAGs.
#[derive(Default)]
pub(crate) struct Pasts {
    known: Mutex<BTreeMap<DagId, (Instant, Arc<Past>)>>,
    /// Held while the store is read: who wants the same then finds it read.
    reading: tokio::sync::Mutex<()>,
}

impl Pasts {
    /// What is known of a DAG; read from the store when it is not known any more.
    pub(crate) async fn of(&self, store: &dyn Store, dag: &DagId) -> Arc<Past> {
        if let Some(past) = self.fresh(dag) {
            return past;
        }
        let _reading = self.reading.lock().await;
        if let Some(past) = self.fresh(dag) {
            return past;
        }
        // A store that cannot be read says so to those who must know.
        let rows = store.past_statements(dag, RUNS_MAX, STATEMENTS_MAX).await.unwrap_or_default();
        let past = Arc::new(digest(rows));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= DAGS_MAX
            && let Some(oldest) = known.iter().min_by_key(|(_, (at, _))| *at).map(|(dag, _)| dag.clone())
        {
            known.remove(&oldest);
        }
        known.insert(dag.clone(), (Instant::now(), past.clone()));
        past
    }

    fn fresh(&self, dag: &DagId) -> Option<Arc<Past>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(dag).filter(|(at, _)| at.elapsed() < GOOD_FOR).map(|(_, past)| past.clone())
    }

    /// What is known without asking, however old.
    pub(crate) fn known(&self, dag: &DagId) -> Option<Arc<Past>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(dag).map(|(_, past)| past.clone())
    }
}

fn digest(rows: Vec<PastStatement>) -> Past {
    let mut seen: HashMap<(String, u32), (Vec<u64>, Vec<u64>)> = HashMap::new();
    for row in rows {
        let (times, counts) = seen.entry((row.task, row.number)).or_default();
        times.push(row.duration_us);
        counts.push(row.rows);
    }
    seen.into_iter().filter_map(|(of, (times, counts))| Some((of, usual(times, counts)?))).collect()
}

fn usual(mut times: Vec<u64>, mut counts: Vec<u64>) -> Option<Usual> {
    if times.len() < ENOUGH {
        return None;
    }
    times.sort_unstable();
    let of = u32::try_from(times.len()).unwrap_or(u32::MAX);
    let time = UsualTime { p50_ms: at(&times, 50) / 1000, p95_ms: at(&times, 95) / 1000, of };
    counts.sort_unstable();
    let rows = Rows { min: at(&counts, 0), p50: at(&counts, 50), max: at(&counts, 100) };
    Some(Usual { time, rows })
}

/// The nearest rank: so many of 100 are not larger.
fn at(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(times: &[u64], expected: Option<(u64, u64, u32)>) {
        let rows = times.iter().map(|ms| PastStatement { task: "a".into(), number: 1, duration_us: ms * 1000, rows: 0 });
        let past = digest(rows.collect());
        let found = past.get(&("a".to_owned(), 1)).map(|usual| (usual.time.p50_ms, usual.time.p95_ms, usual.time.of));
        assert_eq!(found, expected);
    }

    fn usual_of(ms: u64, rows: u64) -> Usual {
        let of = |place: u64| PastStatement { task: "a".into(), number: 1, duration_us: ms * 1000, rows: rows + place };
        digest((0..10).map(of).collect())[&("a".to_owned(), 1)]
    }

    fn judged(usual: Usual, ms: u64, rows: u64) -> Vec<Unusual> {
        let record = StatementRecord {
            number: 1,
            line: 1,
            summary: String::new(),
            duration_us: ms * 1000,
            rows_affected: Some(rows),
            rows_returned: 0,
            notices: Vec::new(),
        };
        usual.judge(&record).into_iter().map(|anomaly| anomaly.unusual).collect()
    }

    #[test]
    fn only_what_is_far_from_usual_is_told() {
        let usual = usual_of(1000, 1000);
        assert_eq!(judged(usual, 1000, 1004), []);
        assert_eq!(judged(usual, 3000, 1000), [], "by less than two seconds");
        assert_eq!(judged(usual, 3001, 1000), [Unusual::Slow]);
        assert_eq!(judged(usual_of(100_000, 1000), 140_000, 1000), [], "by less than half");
        assert_eq!(judged(usual, 1, 0), [Unusual::NoRows]);
        assert_eq!(judged(usual, 1, 300), [Unusual::FewRows]);
        assert_eq!(judged(usual, 9000, 4000), [Unusual::Slow, Unusual::ManyRows]);
        assert_eq!(judged(usual_of(1, 0), 1, 0), [], "it has had none before");
        assert_eq!(judged(usual_of(1, 1), 1, 0), [], "a few are not many");
        assert_eq!(judged(usual_of(1, 0), 1, 19), [], "by less than ten over the most");
    }

    #[test]
    fn percentiles_are_of_nearest_rank_and_want_enough() {
        check(&[], None);
        check(&[1, 2, 3, 4], None);
        check(&[5, 1, 4, 2, 3], Some((3, 5, 5)));
        check(&(1..=100).collect::<Vec<_>>(), Some((50, 95, 100)));
        check(&[7; 20], Some((7, 7, 20)));
    }
}
