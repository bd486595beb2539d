//! Runs that are given other files while they wait, while they are told to be late, and while nobody waits for the answer any more.

use super::*;
use crate::control::Control;
use crate::logs::LogWriter;
use crate::prune::Keep;
use crate::service::{Level, Loader, Notice, Options, ServiceLimits, Standing, Trigger};
use backstop_core::select::Selection;
use backstop_core::{Event, TaskId};
use backstop_project::{Bundle, Environment, Loaded, Overrides};
use backstop_store::{MemoryStore, Store};
use std::path::PathBuf;
use std::sync::Mutex;

/// So often others are let go on; of what is in memory all is done long before.
const YIELDS: usize = 10_000;

const TASKS: &str = "  one: {empty: true}\n  two: {empty: true}\n  three: {empty: true}\n  four: {empty: true}\n";

/// A project of two DAGs, of which one is edited.
struct Edited(Mutex<String>);

impl Edited {
    fn write(&self, rest: &str) {
        *self.0.lock().unwrap() = format!("dag: d\n{rest}");
    }
}

impl Loader for Edited {
    fn load(&self, overrides: &Overrides) -> Vec<Loaded> {
        let text = self.0.lock().unwrap().clone();
        let other = "dag: e\ntasks:\n  one: {empty: true}\n";
        let files = [("backstop.yaml", ""), ("dags/d.yaml", &*text), ("dags/e.yaml", other)];
        let files = files.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec())).into();
        let loaded = backstop_project::load_with(&Bundle { files, ..Bundle::default() }, &Environment::default(), overrides);
        assert!(loaded.is_valid(), "{:?}", loaded.diagnostics);
        vec![loaded]
    }

    fn fingerprint(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.0.lock().unwrap().hash(&mut hasher);
        hasher.finish()
    }
}

/// A service that drives runs, in memory.
struct Site {
    service: Arc<Service>,
    store: MemoryStore,
    files: Arc<Edited>,
}

impl Site {
    async fn start(rest: &str) -> Self {
        let (store, files) = (MemoryStore::new(), Arc::new(Edited(Mutex::default())));
        files.write(rest);
        let service = Service::new(Options {
            store: Arc::new(store.clone()),
            loader: files.clone(),
            clock: Arc::new(crate::clock::SystemClock::starting(None)),
            connect: Arc::new(backstop_connect::connector),
            logs: LogWriter::start(None),
            scratch: PathBuf::new(),
            limits: ServiceLimits::default(),
            keep: Keep { runs_for: None, runs: None },
            notice: Notice { up_to: Level::Error, tell: Arc::new(|_, _| {}) },
            address: "nowhere".into(),
        });
        let service = service.await.unwrap();
        let driven = service.clone();
        tokio::spawn(async move { driven.run().await });
        Self { service, store, files }
    }

    async fn trigger(&self) -> RunId {
        let trigger = Trigger { dag: "d".into(), ..Trigger::default() };
        self.service.trigger(trigger, &who()).await.unwrap().header.run_id.clone()
    }

    /// A run that was over and waits again, because its DAG is paused.
    async fn waiting(&self) -> RunId {
        let run = self.trigger().await;
        self.until(async || self.service.is_over(&run).await.unwrap()).await;
        self.service.pause("d", true, &who()).await.unwrap();
        self.service.operate(&run, clear("one", Files::Pinned), &who(), false).await.unwrap();
        assert!(matches!(self.service.standing(&run), Standing::Queued(_)));
        run
    }

    async fn until(&self, is_so: impl AsyncFn() -> bool) {
        let looking = async {
            while !is_so().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it does not come to that");
    }

    async fn version_of(&self, run: &RunId) -> String {
        self.store.run(run).await.unwrap().unwrap().header.version.clone()
    }

    async fn missed(&self, run: &RunId) -> usize {
        let events = self.store.events(run, 0, 1_000).await.unwrap();
        events.iter().filter(|recorded| matches!(recorded.event, Event::DeadlineMissed { .. })).count()
    }
}

fn who() -> Who {
    Who { who: "ada".into(), why: "mended".into() }
}

fn clear(task: &str, files: Files) -> Operation {
    let tasks = vec![InstanceId::single(TaskId::new(task))];
    Operation::Clear(Selection { tasks, ..Selection::default() }, files)
}

async fn let_others_go_on() {
    for _ in 0..YIELDS {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_gives_a_run_other_files_waits_while_its_deadlines_are_told_of() {
    let site = Site::start(&format!("tasks:\n{TASKS}")).await;
    let run = site.waiting().await;
    let service = &site.service;
    let before = site.version_of(&run).await;
    let control = Control::default();
    assert!(service.desk().begin_telling(&run, &control).is_some());
    let lock = site.store.lock_run(&run).unwrap();
    site.files.write(&format!("description: mended\ntasks:\n{TASKS}"));
    service.look_again().await;
    let asked = tokio::spawn({
        let (service, run) = (service.clone(), run.clone());
        async move { service.operate_on(&run, clear("two", Files::Current), &who(), false).await }
    });
    let_others_go_on().await;
    assert!(!asked.is_finished(), "{:?}", asked.await);
    drop(lock);
    service.desk().end_telling(&run, None);
    service.told.notify_waiters();
    let done = asked.await.unwrap().unwrap();
    assert_eq!(done.instances, [InstanceId::single(TaskId::new("two"))]);
    assert_ne!(site.version_of(&run).await, before);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_let_go_of_gets_its_files_though_nobody_waits_for_the_answer() {
    // It waits for a run that nobody makes.
    let dag = |description: &str| format!("description: {description}\ntasks:\n  other: {{wait_for: e}}\n{TASKS}");
    let site = Site::start(&dag("first")).await;
    let service = &site.service;
    let run = site.trigger().await;
    let is_idle = async || {
        let looked = service.look(&run, |state| state.instances_running().next().is_none() && state.started_at().is_some()).await;
        looked == Some(true)
    };
    site.until(is_idle).await;
    site.files.write(&dag("second"));
    service.look_again().await;
    let current = service.dag("d").unwrap().definition.version.clone();
    let by = who();
    let mut asked = Box::pin(service.operate_on(&run, clear("one", Files::Current), &by, false));
    // Its engine is asked, and lets go of it; then who asked goes away. What was asked may be done by then.
    for _ in 0..YIELDS {
        if service.control(&run).is_none() {
            break;
        }
        tokio::select! {
            biased;
            answer = &mut asked => {
                answer.unwrap();
                break;
            }
            () = std::future::ready(()) => {}
        }
        tokio::task::yield_now().await;
    }
    drop(asked);
    site.until(async || site.version_of(&run).await == current).await;
    site.until(async || matches!(service.standing(&run), Standing::Active { .. })).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_is_late_by_the_deadlines_of_the_files_it_was_given() {
    let site = Site::start(&format!("tasks:\n{TASKS}")).await;
    let run = site.waiting().await;
    // It is looked at with the files that it has.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(site.missed(&run).await, 0);
    site.files.write(&format!("deadlines: [{{within: 1ms, of: queued_at}}]\ntasks:\n{TASKS}"));
    site.service.operate(&run, clear("two", Files::Current), &who(), false).await.unwrap();
    assert!(matches!(site.service.standing(&run), Standing::Queued(_)));
    site.until(async || site.missed(&run).await == 1).await;
    // And by the next ones, where these differ.
    for (task, deadline, missed) in [("three", "1ms", 1), ("four", "2ms", 2)] {
        site.files
            .write(&format!("description: {deadline}\ndeadlines: [{{within: {deadline}, of: queued_at}}]\ntasks:\n{TASKS}"));
        site.service.operate(&run, clear(task, Files::Current), &who(), false).await.unwrap();
        site.until(async || site.missed(&run).await == missed).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(site.missed(&run).await, 2);
}
