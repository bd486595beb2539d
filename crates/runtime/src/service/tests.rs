//! The service with a clock that is turned by hand, over a store in memory: which runs it makes, however often it is started anew, and
//! whatever becomes of the machine's clock.

use super::desk::WAITING_BYTES_MAX;
use super::scheduler::Plan;
use super::steer::{Kept, Trigger, Who};
use super::*;
use crate::clock::Reading;
use crate::run::Request;
use backstop_core::Event;
use backstop_core::event::{RunHeader, RunType};
use backstop_project::{Bundle, Environment, Loaded, Overrides};
use backstop_store::{Append, MemoryStore, RunFilter, SqliteStore};
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// So often what is ready is let go on; then only the disk is waited for.
const YIELDS: usize = 1_000;

/// The machine's clocks, turned by hand.
pub(super) struct Hand(Mutex<(Reading, Timestamp)>);

impl Hand {
    pub(super) fn at(time: &str) -> Arc<Self> {
        let wall = time.parse().unwrap();
        Arc::new(Self(Mutex::new((Reading { wall, monotonic: Duration::ZERO }, wall))))
    }

    /// Time passes.
    fn pass(&self, time: SignedDuration) {
        self.set(time);
        self.0.lock().unwrap().0.monotonic += Duration::try_from(time).unwrap();
    }

    /// The clock is set, or the machine was suspended.
    fn set(&self, by: SignedDuration) {
        self.0.lock().unwrap().0.wall += by;
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        let mut told = self.0.lock().unwrap();
        told.1 = told.1.max(told.0.wall);
        told.1
    }

    fn reading(&self) -> Option<Reading> {
        Some(self.0.lock().unwrap().0)
    }
}

/// A project of one file.
struct OneFile(String);

impl Loader for OneFile {
    fn load(&self, overrides: &Overrides) -> Vec<Loaded> {
        let files = [("backstop.yaml", ""), ("dags/d.yaml", &*self.0)];
        let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).into();
        let loaded = backstop_project::load_with(&Bundle { files, ..Bundle::default() }, &Environment::default(), overrides);
        assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
        vec![loaded]
    }

    fn fingerprint(&self) -> u64 {
        0
    }
}

fn options(store: &MemoryStore, loader: Arc<dyn Loader>) -> Options {
    Options {
        store: Arc::new(store.clone()),
        loader,
        clock: Arc::new(crate::clock::SystemClock::starting(None)),
        connect: Arc::new(backstop_connect::connector),
        logs: LogWriter::start(None),
        scratch: PathBuf::new(),
        limits: ServiceLimits::default(),
        keep: Keep { runs_for: None, runs: None },
        notice: Notice { up_to: Level::Error, tell: Arc::new(|_, _| {}) },
        address: "nowhere".into(),
    }
}

/// A service that makes runs and drives none, as one does that is new.
pub(super) struct Planning {
    pub(super) service: Arc<Service>,
    plan: Plan,
    said: Arc<Mutex<Vec<String>>>,
}

impl Planning {
    pub(super) async fn start(store: &MemoryStore, clock: &Arc<Hand>, schedule: &str) -> Self {
        let said = Arc::new(Mutex::new(Vec::new()));
        let notice = {
            let said = said.clone();
            let tell = Arc::new(move |_: Level, line: &str| said.lock().unwrap().push(line.to_owned()));
            Notice { up_to: Level::Debug, tell }
        };
        let file = OneFile(format!("dag: d\nmax_active_runs: 100\n{schedule}\ntasks:\n  one: {{empty: true}}\n"));
        let service = Service::new(Options { clock: clock.clone(), notice, ..options(store, Arc::new(file)) });
        let service = service.await.unwrap();
        service.desk().replan.all = true;
        let mut planning = Self { service, plan: Plan::default(), said };
        planning.look().await;
        planning
    }

    async fn look(&mut self) {
        // With catchup one tick a look is made.
        for _ in 0..10 {
            self.service.look_at_schedules(&mut self.plan).await;
        }
    }

    /// The logical dates of all runs, in the order in which they were made.
    async fn runs(&self) -> Vec<String> {
        let rows = self.service.store.runs(&RunFilter { limit: 100, ..RunFilter::default() }).await.unwrap();
        rows.iter().rev().map(|row| row.header.logical_date.unwrap().to_string()).collect()
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap())
    }
}

#[tokio::test]
async fn a_dag_without_a_start_runs_however_often_the_service_starts_anew() {
    let (store, clock) = (MemoryStore::new(), Hand::at("2025-05-10T12:00:00Z"));
    let schedule = "schedule: \"0 2 * * *\"";
    for _ in 0..3 {
        let planning = Planning::start(&store, &clock, schedule).await;
        assert_eq!(planning.runs().await, [""; 0]);
        let next = planning.service.next_tick(&planning.service.dag("d").unwrap()).unwrap();
        assert_eq!(next.run_after.to_string(), "2025-05-11T02:00:00Z");
        drop(planning);
        clock.pass(HOUR * 4);
    }
    clock.pass(HOUR * 3);
    for _ in 0..2 {
        let planning = Planning::start(&store, &clock, schedule).await;
        assert_eq!(planning.runs().await, ["2025-05-11T02:00:00Z"], "nothing is missed that was before");
        drop(planning);
        clock.pass(HOUR);
    }
}

#[tokio::test]
async fn once_is_once_also_when_the_process_dies_before_it_notes_it() {
    let (store, clock) = (MemoryStore::new(), Hand::at("2025-05-10T12:00:00Z"));
    for _ in 0..3 {
        let planning = Planning::start(&store, &clock, "schedule: \"@once\"").await;
        assert_eq!(planning.runs().await, ["2025-05-10T12:00:00Z"]);
        let dag = DagId::new("d");
        let kept = planning.service.desk().kept(&dag);
        assert!(kept.cursor.is_some());
        store.put(vec![Kept { cursor: None, ..kept }.entry(&dag)], None).await.unwrap();
        drop(planning);
        clock.pass(HOUR);
    }
}

#[tokio::test]
async fn each_tick_comes_once_however_the_clock_is_set() {
    for catchup in [false, true] {
        let (store, clock) = (MemoryStore::new(), Hand::at("2025-05-10T10:30:00Z"));
        let mut planning = Planning::start(&store, &clock, &format!("schedule: \"0 * * * *\"\ncatchup: {catchup}")).await;
        let dates = |hours: &[i32]| hours.iter().map(|hour| format!("2025-05-10T{hour}:00:00Z")).collect::<Vec<_>>();
        clock.pass(HOUR);
        planning.look().await;
        assert_eq!((planning.runs().await, planning.said()), (dates(&[11]), vec![]));
        clock.set(-HOUR);
        planning.look().await;
        let said = planning.said();
        assert!(said.len() == 1 && said[0].starts_with("the machine's clock was set back by 1h: schedules wait"), "{said:?}");
        clock.pass(HOUR);
        planning.look().await;
        assert_eq!(planning.runs().await, dates(&[11]), "it is 11:30 again");
        clock.pass(HOUR);
        planning.look().await;
        assert_eq!((planning.runs().await, planning.said()), (dates(&[11, 12]), vec![]));
        clock.set(HOUR * 5);
        planning.look().await;
        let said = planning.said();
        assert!(said.len() == 1 && said[0].starts_with("the machine's clock has gone on by 5h more than"), "{said:?}");
        let ahead = if catchup { dates(&[11, 12, 13, 14, 15, 16, 17]) } else { dates(&[11, 12, 17]) };
        assert_eq!(planning.runs().await, ahead);
        // It was wrong. What was left out comes when it is time, and what was made does not come again.
        clock.set(-(HOUR * 5));
        planning.look().await;
        assert_eq!((planning.runs().await, planning.said().len()), (ahead, 1));
        for hour in 13..=18 {
            clock.pass(HOUR);
            // Also by another process.
            if hour == 15 {
                drop(planning);
                planning = Planning::start(&store, &clock, &format!("schedule: \"0 * * * *\"\ncatchup: {catchup}")).await;
            }
            planning.look().await;
        }
        let mut all = planning.runs().await;
        all.sort();
        assert_eq!(all, dates(&[11, 12, 13, 14, 15, 16, 17, 18]), "catchup {catchup}");
    }
}

/// A run is in the store before the service has taken it in. Who looks for runs that were left behind at that moment leaves it alone.
#[tokio::test]
async fn a_run_that_is_being_made_is_not_left_behind() {
    let (store, clock) = (MemoryStore::with_manual_durability(), Hand::at("2025-05-10T12:00:00Z"));
    let syncing = async {
        loop {
            store.sync_all();
            tokio::task::yield_now().await;
        }
    };
    let planning = tokio::select! {
        planning = Planning::start(&store, &clock, "") => planning,
        () = syncing => unreachable!("it goes on for ever"),
    };
    let service = &planning.service;
    let entry = service.dag("d").unwrap();
    let request = |run: &str| Request {
        run_id: run.into(),
        logical_date: None,
        data_interval: None,
        params: serde_json::Map::new(),
        only_tasks: Vec::new(),
        dry_run: false,
        run_type: RunType::Manual,
        cause: None,
        asked_by: None,
    };
    let is_there = async |run: &str| store.run(&run.into()).await.unwrap().is_some();
    let mut making = Box::pin(service.make(&entry, request("first")));
    while !is_there("first").await {
        tokio::select! {
            biased;
            _ = &mut making => unreachable!("it is told when it is durable"),
            () = tokio::task::yield_now() => {}
        }
        store.sync_some(1);
    }
    assert_eq!(service.find_left_behind().await.unwrap(), 0);
    assert!(making.await.unwrap().is_new);
    assert_eq!((service.counts().queued, service.find_left_behind().await.unwrap()), (1, 0));
    // Who asked for it goes away at that moment: then it was left behind.
    let mut making = Box::pin(service.make(&entry, request("second")));
    while !is_there("second").await {
        tokio::select! {
            biased;
            _ = &mut making => unreachable!("it is told when it is durable"),
            () = tokio::task::yield_now() => {}
        }
        store.sync_some(1);
    }
    drop(making);
    assert_eq!((service.find_left_behind().await.unwrap(), service.counts().queued), (1, 2));
}

/// Whoever asks holds a way to the run while they wait, and so what they asked: it goes when the run is let go, not when they do.
#[tokio::test]
async fn what_is_asked_of_a_run_that_cannot_be_driven_is_answered() {
    let (store, clock) = (MemoryStore::new(), Hand::at("2025-05-10T12:00:00Z"));
    let service = Planning::start(&store, &clock, "").await.service;
    let who = Who { who: "ada".into(), why: "to see".into() };
    let header = service.trigger(Trigger { dag: "d".into(), ..Trigger::default() }, &who).await.unwrap().header;
    let _another_process_drives_it = store.lock_run(&header.run_id).unwrap();
    service.begin_with(header.clone(), crate::control::Ask::HandOver).unwrap();
    let control = service.control(&header.run_id).unwrap();
    let driving = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    let answer = tokio::time::timeout(Duration::from_secs(60), control.look(|_| ())).await;
    assert_eq!(answer.expect("nobody answers"), None);
    assert!(matches!(service.standing(&header.run_id), Standing::Hindered { .. }));
    service.stop();
    driving.await.unwrap().unwrap();
}

/// A clock that breaks whoever reads it.
struct Breaks {
    hand: Arc<Hand>,
    is_broken: AtomicBool,
}

impl Clock for Breaks {
    fn now(&self) -> Timestamp {
        self.hand.now()
    }

    fn reading(&self) -> Option<Reading> {
        assert!(!self.is_broken.load(Ordering::Relaxed), "the clock is broken, as this test wants it");
        self.hand.reading()
    }
}

/// A service without its planner would answer that all is well, and do nothing.
#[tokio::test]
async fn a_service_of_which_a_part_breaks_ends_and_says_which() {
    let clock = Arc::new(Breaks { hand: Hand::at("2025-05-10T12:00:00Z"), is_broken: AtomicBool::new(false) });
    let file = OneFile("dag: d\ntasks:\n  one: {empty: true}\n".into());
    let service = Service::new(Options { clock: clock.clone(), ..options(&MemoryStore::new(), Arc::new(file)) }).await.unwrap();
    let driving = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    clock.is_broken.store(true, Ordering::Relaxed);
    service.replan.notify_one();
    let ended = tokio::time::timeout(Duration::from_secs(60), driving).await.expect("it goes on without its planner");
    assert_eq!(ended.unwrap(), Err(Broken { part: "plans schedules" }));
    assert!(service.is_stopping());
}

#[tokio::test]
async fn a_run_whose_engine_panics_is_let_go_and_tried_again() {
    let file = OneFile("dag: d\ntasks:\n  one: {sensor: {file: nowhere, poke_interval: 1h}}\n".into());
    let service = Service::new(options(&MemoryStore::new(), Arc::new(file))).await.unwrap();
    let who = Who { who: "ada".into(), why: "to see".into() };
    let run = service.trigger(Trigger { dag: "d".into(), ..Trigger::default() }, &who).await.unwrap().header.run_id.clone();
    let driving = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    let until = async |is_so: &dyn Fn(&Standing) -> bool| {
        let looking = async {
            while !is_so(&service.standing(&run)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it does not come to that");
    };
    until(&|standing| matches!(standing, Standing::Active { .. })).await;
    assert_eq!(service.look(&run, |_| panic!("as this test wants it")).await, None::<()>);
    until(&|standing| matches!(standing, Standing::Hindered { why, .. } if why.contains("panicked"))).await;
    assert_eq!((service.counts().active, service.counts().hindered), (0, 1), "it has no place any more");
    until(&|standing| matches!(standing, Standing::Active { .. })).await;
    assert_eq!(service.look(&run, |_| ()).await, Some(()), "it goes on");
    service.stop();
    driving.await.unwrap().unwrap();
}

/// What is due at one moment is made together, whatever the names are: while one of them waits for the disk, all others are written.
#[tokio::test]
async fn the_runs_of_one_tick_wait_for_the_disk_together() {
    struct Many;
    impl Loader for Many {
        fn load(&self, overrides: &Overrides) -> Vec<Loaded> {
            let dag = |n: usize| format!("dag: d{n:03}\nschedule: \"0 * * * *\"\ntasks:\n  one: {{empty: true}}\n").into_bytes();
            let files = (0..100).map(|n| (format!("dags/d{n:03}.yaml"), dag(n))).collect();
            let files = Bundle { files, ..Bundle::default() };
            vec![backstop_project::load_with(&files, &Environment::default(), overrides)]
        }

        fn fingerprint(&self) -> u64 {
            0
        }
    }
    let (store, clock) = (MemoryStore::with_manual_durability(), Hand::at("2025-05-10T12:30:00Z"));
    let synced = async |work: &mut (dyn Future<Output = ()> + Unpin)| {
        let mut syncs = 0;
        loop {
            // Until nothing more happens without the disk.
            for _ in 0..YIELDS {
                tokio::select! {
                    biased;
                    () = &mut *work => return syncs,
                    () = tokio::task::yield_now() => {}
                }
            }
            syncs += 1;
            store.sync_all();
        }
    };
    let mut service = None;
    synced(&mut Box::pin(async {
        let options = Options { clock: clock.clone(), ..options(&store, Arc::new(Many)) };
        service = Some(Service::new(options).await.unwrap());
    }))
    .await;
    let (service, mut plan) = (service.unwrap(), Plan::default());
    service.desk().replan.all = true;
    synced(&mut Box::pin(service.look_at_schedules(&mut plan))).await;
    clock.pass(HOUR);
    let syncs = synced(&mut Box::pin(service.look_at_schedules(&mut plan))).await;
    let runs = store.runs(&RunFilter { limit: 1000, ..RunFilter::default() }).await.unwrap();
    assert_eq!(runs.len(), 100);
    assert!(syncs < 10, "{syncs} times the disk was waited for");
    // As if the process had died before it noted how far it was: each is planned again, and there.
    for n in 0..100 {
        let dag = DagId::new(format!("d{n:03}"));
        let mut desk = service.desk();
        desk.cursors.remove(&dag);
        desk.replan.all = true;
    }
    synced(&mut Box::pin(service.look_at_schedules(&mut plan))).await;
    assert_eq!(store.runs(&RunFilter { limit: 1000, ..RunFilter::default() }).await.unwrap().len(), 100);
    assert!(service.desk().cursors.len() == 100, "they are noted");
}

/// Runs that are removed in one go by housekeeping: in so many batches that others have time between them.
const OLD: u64 = 2_000;

#[tokio::test(flavor = "multi_thread")]
async fn runs_begin_and_end_while_thousands_of_old_ones_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path().join("store.db"), backstop_store::sqlite::Options::default()).unwrap());
    let at: Timestamp = "2020-01-01T00:00:00Z".parse().unwrap();
    let mut kept = Vec::new();
    for number in 0..OLD {
        let header = RunHeader {
            run_id: RunId::new(format!("old-{number:05}")),
            dag_id: DagId::new("d"),
            project: None,
            version: String::new(),
            logical_date: None,
            data_interval: None,
            queued_at: at,
            run_type: RunType::Manual,
            params: "{}".into(),
            only_tasks: Vec::new(),
            dry_run: false,
            cause: None,
        };
        let run = header.run_id.clone();
        let events = vec![Event::RunCreated(Arc::new(header)), Event::RunStarted { at }, Event::RunSucceeded];
        kept.push(store.append(Append { run, events, expected_version: 0, epoch: 1, at }).await);
    }
    store.hurry();
    for kept in kept {
        kept.await.unwrap().unwrap();
    }
    let keep = Keep { runs_for: Some(Duration::from_secs(86_400)), runs: None };
    let file = OneFile("dag: d\ntasks:\n  one: {empty: true}\n".into());
    let options = Options { store: store.clone(), keep, ..options(&MemoryStore::new(), Arc::new(file)) };
    let service = Service::new(options).await.unwrap();
    let driving = tokio::spawn({
        let service = service.clone();
        async move { service.run().await }
    });
    let who = Who { who: "ada".into(), why: "to see".into() };
    let mut meanwhile = 0;
    loop {
        let run = service.trigger(Trigger { dag: "d".into(), ..Trigger::default() }, &who).await.unwrap().header.run_id.clone();
        while !service.is_over(&run).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if service.housekeeping().runs_removed >= OLD {
            break;
        }
        meanwhile += 1;
    }
    assert!(meanwhile >= 3, "only {meanwhile} runs ended while old ones were removed");
    assert!(store.run(&RunId::new(format!("old-{:05}", OLD - 1))).await.unwrap().is_none());
    service.stop();
    driving.await.unwrap().unwrap();
}

/// A program that asks for runs faster than they can run is told to come again, and what it has been promised before is found all the same.
#[tokio::test]
async fn runs_asked_for_while_a_crowd_waits_are_refused() {
    let (store, clock) = (MemoryStore::new(), Hand::at("2025-05-10T12:00:00Z"));
    let service = Planning::start(&store, &clock, "").await.service;
    let ask = |run: &str| Trigger { dag: "d".into(), run_id: Some(run.into()), ..Trigger::default() };
    let who = Who { who: "anna".into(), why: "test".into() };
    assert!(service.trigger(ask("before"), &who).await.unwrap().is_new);
    let large = RunHeader { params: "x".repeat(WAITING_BYTES_MAX).into(), ..(*super::desk::tests::header("large")).clone() };
    service.take_in_again(Arc::new(large));
    let refused = service.trigger(ask("one-more"), &who).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "2 runs wait for a place already, with 256 MiB of parameters: no more are taken before some of them begin"
    );
    assert!(store.run(&"one-more".into()).await.unwrap().is_none());
    assert!(!service.trigger(ask("before"), &who).await.unwrap().is_new, "the answer was lost, say");
}
