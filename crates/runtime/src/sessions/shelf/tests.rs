use super::*;
use async_trait::async_trait;
use backstop_connect::session::{Call, Ignore};
use backstop_connect::{Capabilities, Config, Dialect};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// SQLite, with a gate before each opening and a count of them.
struct Counting {
    real: Arc<dyn Connector>,
    opened: AtomicUsize,
    gate: Semaphore,
    refuses: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Connector for Counting {
    fn dialect(&self) -> Dialect {
        self.real.dialect()
    }

    fn capabilities(&self) -> Capabilities {
        self.real.capabilities()
    }

    fn target(&self) -> String {
        self.real.target()
    }

    async fn open(&self) -> Opened {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Error::config("refused"));
        }
        self.real.open().await
    }
}

struct Bench {
    counting: Arc<Counting>,
    shelf: Arc<Shelf>,
    kept: Arc<AtomicUsize>,
    _folder: TempDir,
}

fn bench(max: usize, openings_let_through: usize) -> Bench {
    let folder = TempDir::new().unwrap();
    let config = Config {
        id: "here".into(),
        conn_type: "sqlite".into(),
        database: Some("a.db".into()),
        base_dir: folder.path().to_owned(),
        ..Config::default()
    };
    let counting = Arc::new(Counting {
        real: backstop_connect::connector(&config).unwrap(),
        opened: AtomicUsize::new(0),
        gate: Semaphore::new(openings_let_through),
        refuses: false.into(),
    });
    let kept = Arc::new(AtomicUsize::new(0));
    Bench { shelf: Arc::new(Shelf::new(counting.clone(), max, kept.clone())), counting, kept, _folder: folder }
}

impl Bench {
    fn take(&self, purpose: Purpose) -> tokio::task::JoinHandle<Opened> {
        let shelf = self.shelf.clone();
        tokio::spawn(async move { shelf.take(purpose).await })
    }

    fn opened(&self) -> usize {
        self.counting.opened.load(Ordering::SeqCst)
    }

    /// Until nothing moves any more but timers.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn those_who_write_get_a_session_each_up_to_the_most() {
    let bench = bench(3, 100);
    let mut tasks: Vec<_> = (0..5).map(|_| bench.take(Purpose::Write)).collect();
    let mut sessions = Vec::new();
    for task in tasks.drain(..3) {
        sessions.push(task.await.unwrap().unwrap());
    }
    assert_eq!(bench.opened(), 3);
    assert!(tasks.iter().all(|task| !task.is_finished()));
    // The others get theirs when one comes back, and nothing new is opened.
    for task in tasks {
        bench.shelf.give_back(sessions.pop().unwrap()).await;
        drop(task.await.unwrap().unwrap());
    }
    assert_eq!(bench.opened(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_has_waited_long_enough_gets_a_session_of_their_own() {
    let bench = bench(16, 0);
    let tasks: Vec<_> = (0..5).map(|_| bench.take(Purpose::Read)).collect();
    bench.settle().await;
    assert_eq!(bench.opened(), FIRST_OPENINGS);
    tokio::time::sleep(FIRST_PATIENCE * 2).await;
    assert_eq!(bench.opened(), 5);
    bench.counting.gate.add_permits(5);
    for task in tasks {
        drop(task.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_session_whose_waiter_is_gone_goes_to_the_next() {
    let bench = bench(1, 0);
    let gone = bench.take(Purpose::Write);
    bench.settle().await;
    let next = bench.take(Purpose::Write);
    bench.settle().await;
    gone.abort();
    bench.settle().await;
    bench.counting.gate.add_permits(1);
    let session = next.await.unwrap().unwrap();
    // One that was handed over and never taken out comes back too.
    let third = bench.take(Purpose::Write);
    bench.settle().await;
    bench.shelf.give_back(session).await;
    third.abort();
    drop(bench.take(Purpose::Write).await.unwrap().unwrap());
    assert_eq!(bench.opened(), 1);
}

#[tokio::test]
async fn a_refusal_reaches_each_that_waits_and_leaves_the_places_free() {
    let bench = bench(2, 100);
    bench.counting.refuses.store(true, Ordering::SeqCst);
    let tasks: Vec<_> = (0..4).map(|_| bench.take(Purpose::Write)).collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().err().unwrap().message, "refused");
    }
    bench.counting.refuses.store(false, Ordering::SeqCst);
    let both = [bench.take(Purpose::Write), bench.take(Purpose::Write)];
    for task in both {
        drop(task.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_broken_session_is_replaced_for_who_waits() {
    let bench = bench(1, 100);
    let session = bench.take(Purpose::Write).await.unwrap().unwrap();
    let waits = bench.take(Purpose::Write);
    bench.settle().await;
    drop(session);
    bench.shelf.lost_one();
    drop(waits.await.unwrap().unwrap());
    assert_eq!(bench.opened(), 2);
}

#[tokio::test]
async fn a_session_comes_back_clean() {
    let bench = bench(1, 100);
    let mut session = bench.take(Purpose::Write).await.unwrap().unwrap();
    let call = |sql| Call { sql, parameters: &[], copy_data: None };
    session.execute(&call("CREATE TEMPORARY TABLE scratch (a)"), 0, &mut Ignore).await.unwrap();
    bench.shelf.give_back(session).await;
    let mut session = bench.take(Purpose::Write).await.unwrap().unwrap();
    assert!(session.execute(&call("SELECT * FROM scratch"), 0, &mut Ignore).await.is_err());
    assert_eq!(bench.opened(), 1);
}

#[tokio::test]
async fn what_a_doubt_keeps_is_missing_to_others_and_not_to_who_asks_about_it() {
    let bench = bench(2, 100);
    bench.kept.store(1, Ordering::SeqCst);
    let one = bench.take(Purpose::Write).await.unwrap().unwrap();
    let waits = bench.take(Purpose::Write);
    bench.settle().await;
    assert_eq!(bench.opened(), 1);
    let asks = bench.take(Purpose::Ask).await.unwrap().unwrap();
    let asks_too = bench.take(Purpose::Ask);
    bench.settle().await;
    assert!(!asks_too.is_finished(), "there are no more than there may be");
    // Who asks goes before who waits longer, and what they give back does not go to others.
    bench.shelf.give_back(asks).await;
    bench.shelf.give_back(asks_too.await.unwrap().unwrap()).await;
    bench.settle().await;
    assert!(!waits.is_finished());
    assert_eq!(bench.opened(), 2);
    bench.kept.store(0, Ordering::SeqCst);
    bench.shelf.look_again();
    drop((one, waits.await.unwrap().unwrap()));
    assert_eq!(bench.opened(), 2);
}
