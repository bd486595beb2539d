//! Finds unfinished runs that nobody here knows: those that an earlier process left, and those of a `backstop run` that died.
//!
//! Many thousands of runs may wait. They are read page by page, the desk is free between two pages, and of those that are known nothing is
//! kept. All are read when the service begins; later a look reads the newest, and only some of the others, so that it costs little
//! however many there are.

use super::{Desk, Queued};
use crate::service::{Error, Service};
use backstop_core::RunId;
use backstop_core::event::RunHeader;
use backstop_store::{RunFilter, RunRow};
use std::collections::HashMap;
use std::sync::Arc;

/// Runs of a page.
const RUNS_AT_ONCE: u32 = 1000;
/// After at most so many looks every unfinished run has been looked at, however many they are.
const LOOKS_FOR_ALL: usize = 20;

/// A way through all unfinished runs, the newest first.
#[derive(Default)]
pub(super) struct Search {
    /// Behind which run it goes on; `None`: with the newest.
    before: Option<RunId>,
    /// The pages that it has read, and those of the way before this one.
    pages: usize,
    pages_before: usize,
    /// Runs that waited for a person when it began, with the events that were known of them, and that it has not come upon.
    stuck: HashMap<RunId, u64>,
}

impl Search {
    /// Takes a page in. Gives those that nobody knows. A dry run has no effect that would be worth finding again.
    fn take(&mut self, desk: &mut Desk, page: Vec<RunRow>) -> Vec<Arc<RunHeader>> {
        let mut unknown = Vec::new();
        for row in page {
            let run = &row.header.run_id;
            self.stuck.remove(run);
            desk.forget_what_others_resolved(run, row.version);
            if !row.header.dry_run && !desk.knows(run) {
                unknown.push(row.header);
            }
        }
        unknown
    }

    /// The last page was read.
    fn end(&mut self, desk: &mut Desk) {
        for (run, version) in self.stuck.drain() {
            // Nothing is left to do of it; unless it came to wait anew meanwhile.
            if desk.stuck.get(&run).is_some_and(|stuck| stuck.version == version) {
                desk.unstick(&run);
            }
        }
        (self.before, self.pages_before, self.pages) = (None, self.pages, 0);
    }

    /// How many pages a look reads.
    fn share(&self) -> usize {
        self.pages_before.div_ceil(LOOKS_FOR_ALL).max(1)
    }
}

impl Desk {
    /// A run that waited for a person and has changed in the store waits no more: somebody went on with it past this service.
    fn forget_what_others_resolved(&mut self, run: &RunId, version: u64) {
        // What is told of it is in its log before it is known here.
        let has_changed = self.stuck.get(run).is_some_and(|stuck| version > stuck.version);
        if has_changed && !self.is_telling(run) {
            self.unstick(run);
        }
    }
}

impl Service {
    /// Finds all unfinished runs that nobody here knows, and takes them in, oldest first.
    pub(in crate::service) async fn find_left_behind(&self) -> Result<usize, Error> {
        let mut search = Search::default();
        let mut unknown = Vec::new();
        loop {
            unknown.extend(self.read_page(&mut search).await?);
            if search.before.is_none() {
                break;
            }
        }
        Ok(self.take_in_unknown(unknown).await)
    }

    /// Looks for such runs among the newest, and among some of the others: those where the look before this one left off.
    pub(super) async fn look_for_left(&self, search: &mut Search) -> Result<usize, Error> {
        let mut count = 0;
        if search.before.is_some() {
            let filter = RunFilter { unfinished: true, limit: RUNS_AT_ONCE, ..RunFilter::default() };
            let page = self.store.runs(&filter).await?;
            let unknown = search.take(&mut self.desk(), page);
            count += self.take_in_unknown(unknown).await;
        }
        for _ in 0..search.share() {
            let unknown = match self.read_page(search).await {
                Ok(unknown) => unknown,
                // The run behind which it goes on may be gone.
                Err(error) => {
                    *search = Search { pages_before: search.pages_before, ..Search::default() };
                    return Err(error);
                }
            };
            count += self.take_in_unknown(unknown).await;
            if search.before.is_none() {
                break;
            }
        }
        Ok(count)
    }

    /// Reads the next page of a search: behind the last one, its `before` is `None` again. Gives those that nobody knows, newest first.
    async fn read_page(&self, search: &mut Search) -> Result<Vec<Arc<RunHeader>>, Error> {
        if search.before.is_none() {
            search.stuck = self.desk().stuck.iter().map(|(run, stuck)| (run.clone(), stuck.version)).collect();
        }
        let filter = RunFilter { unfinished: true, limit: RUNS_AT_ONCE, before: search.before.clone(), ..RunFilter::default() };
        let page = self.store.runs(&filter).await?;
        let is_last = page.len() < RUNS_AT_ONCE as usize;
        search.before = page.last().map(|row| row.header.run_id.clone());
        search.pages += 1;
        let mut desk = self.desk();
        let unknown = search.take(&mut desk, page);
        if is_last {
            search.end(&mut desk);
        }
        Ok(unknown)
    }

    /// Takes in runs that nobody knew, newest first. Gives how many nobody knows still.
    async fn take_in_unknown(&self, mut unknown: Vec<Arc<RunHeader>>) -> usize {
        self.learn_limits_of_gone(&unknown).await;
        let mut count = 0;
        while !unknown.is_empty() {
            let oldest = unknown.split_off(unknown.len().saturating_sub(RUNS_AT_ONCE as usize));
            let mut desk = self.desk();
            for header in oldest.into_iter().rev() {
                if !desk.knows(&header.run_id) {
                    desk.push(Queued { header, created: None, failures: 0 });
                    count += 1;
                }
            }
        }
        count
    }

    /// Learns how many runs DAGs may have whose files were gone before this service began: from what the newest run of each began with.
    /// Where that is not kept, or not understood, the service's own limit holds.
    async fn learn_limits_of_gone(&self, newest_first: &[Arc<RunHeader>]) {
        let catalog = self.catalog();
        for header in newest_first {
            if catalog.dag(header.dag_id.as_str()).is_some() || self.desk().limits_of_gone.contains_key(&header.dag_id) {
                continue;
            }
            let limit = match self.pinned(header).await {
                Ok((prepared, _)) => prepared.definition.max_active_runs.max(1) as usize,
                Err(_) => self.limits.runs_of_a_dag,
            };
            self.desk().limits_of_gone.insert(header.dag_id.clone(), limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Stuck;
    use super::super::tests::{header, queued};
    use super::*;
    use crate::service::tests::{Hand, Planning};
    use backstop_core::Event;
    use backstop_core::state::FIRST_EPOCH;
    use backstop_store::{Append, MemoryStore, Store};
    use jiff::Timestamp;
    use std::collections::BTreeMap;

    fn stuck(run: &str, version: u64) -> Stuck {
        Stuck { header: header(run), undecided: BTreeMap::new(), version }
    }

    fn row(run: &str, version: u64) -> RunRow {
        RunRow { version, ..RunRow::made(header(run)) }
    }

    #[test]
    fn of_unfinished_runs_that_are_known_nothing_is_kept() {
        let mut desk = Desk::new(BTreeMap::new());
        let known: Vec<String> = (0..3 * RUNS_AT_ONCE).map(|number| format!("known-{number:05}")).collect();
        known.iter().for_each(|run| desk.push(queued(run)));
        let mut search = Search::default();
        for page in known.chunks(RUNS_AT_ONCE as usize) {
            assert!(search.take(&mut desk, page.iter().map(|run| row(run, 1)).collect()).is_empty());
        }
        let dry = RunRow::made(Arc::new(RunHeader { dry_run: true, ..(*header("dry")).clone() }));
        let unknown = search.take(&mut desk, vec![row("new", 1), dry]);
        assert_eq!(unknown.iter().map(|header| header.run_id.as_str()).collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn a_run_that_waits_for_a_person_is_forgotten_once_others_have_resolved_it() {
        let mut desk = Desk::new(BTreeMap::new());
        let mut search = Search::default();
        for (run, version) in [("as-it-was", 7), ("went-on", 7), ("is-told-of", 7), ("over", 7), ("anew", 7)] {
            desk.stick(stuck(run, version));
            search.stuck.insert(run.into(), version);
        }
        desk.telling.insert("is-told-of".into(), crate::run::Control::default());
        let unknown = search.take(&mut desk, vec![row("as-it-was", 7), row("went-on", 9), row("is-told-of", 8)]);
        assert_eq!(unknown.iter().map(|header| header.run_id.as_str()).collect::<Vec<_>>(), ["went-on"]);
        desk.stick(stuck("anew", 12));
        search.end(&mut desk);
        let left: Vec<&str> = desk.stuck.keys().map(RunId::as_str).collect();
        assert_eq!(left, ["anew", "as-it-was", "is-told-of"]);
    }

    /// As another process makes one.
    async fn make(store: &MemoryStore, run: &str) {
        let events = vec![Event::RunCreated(header(run))];
        let append = Append { run: run.into(), expected_version: 0, epoch: FIRST_EPOCH, at: Timestamp::UNIX_EPOCH, events };
        store.append(append).await.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_look_reads_the_newest_and_some_of_the_others() {
        let store = MemoryStore::new();
        for number in 0..RUNS_AT_ONCE * 5 / 2 {
            make(&store, &format!("run-{number:05}")).await;
        }
        let service = Planning::start(&store, &Hand::at("2025-05-10T12:00:00Z"), "").await.service;
        assert_eq!(service.counts().queued, RUNS_AT_ONCE as usize * 5 / 2, "all are found when it begins");
        let mut search = Search::default();
        assert_eq!(service.look_for_left(&mut search).await.unwrap(), 0);
        // The oldest of all is on the last page; another one is new.
        assert!(service.desk().take_off(&"run-00000".into()).is_some());
        make(&store, "run-new").await;
        let is_known = |run: &str| service.desk().knows(&run.into());
        assert_eq!(service.look_for_left(&mut search).await.unwrap(), 1);
        assert!(is_known("run-new") && !is_known("run-00000"));
        assert_eq!(service.look_for_left(&mut search).await.unwrap(), 1);
        assert!(is_known("run-00000") && search.before.is_none());
        // However many there are, they are looked through in so many looks.
        search.pages_before = 100 * LOOKS_FOR_ALL;
        assert_eq!(search.share(), 100);
    }
}
