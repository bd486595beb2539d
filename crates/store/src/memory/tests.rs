//! The suite, and the crash simulation.

use super::*;
use crate::conformance::script::{append, created, run_started};
use crate::conformance::{Subject, do_append, read_all};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

struct InMemory(Option<MemoryStore>);

#[async_trait]
impl Subject for InMemory {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone().unwrap())
    }

    async fn crash(&mut self) {
        self.0 = self.0.take().map(|store| store.crash());
    }
}

mod conformance {
    use super::{InMemory, MemoryStore};

    crate::conformance_suite!(InMemory(Some(MemoryStore::new())));
}

/// Polls once: what a future needs of others it does not get.
fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn run() -> RunId {
    RunId::new("r")
}

async fn queue_three(store: &MemoryStore) -> Vec<Durable> {
    let mut answers = vec![store.append(append(&run(), 0, vec![created(&run(), "d")])).await];
    answers.push(store.append(append(&run(), 1, vec![run_started()])).await);
    answers.push(store.append(append(&run(), 2, vec![Event::RunSucceeded])).await);
    answers
}

#[tokio::test]
async fn nothing_is_durable_or_read_before_it_is_told() {
    let store = MemoryStore::with_manual_durability();
    let mut answers = queue_three(&store).await;
    assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
    assert_eq!(store.run(&run()).await.unwrap(), None);
    assert_eq!(store.sync_some(2), 1);
    assert!(answers[0].try_recv().unwrap().is_ok());
    assert!(answers[1].try_recv().unwrap().is_ok());
    assert!(answers[2].try_recv().is_err());
    assert_eq!(read_all(&store, &run()).await.len(), 2);
}

#[tokio::test]
async fn a_crash_loses_the_end_of_the_queue() {
    for kept in 0..=3 {
        let store = MemoryStore::with_manual_durability();
        let answers = queue_three(&store).await;
        store.sync_some(kept);
        let found = store.crash();
        assert_eq!(read_all(&found, &run()).await.len(), kept);
        for (number, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().is_ok(), number < kept, "append {number} of {kept} kept");
        }
        // The process that died can do no more, also through a clone it still has.
        assert!(do_append(&store, append(&run(), kept as u64, vec![run_started()])).await.is_err());
        assert!(store.clone().run(&run()).await.is_err());
        assert_eq!(read_all(&found, &run()).await.len(), kept);
    }
}

#[tokio::test]
async fn a_crash_frees_the_locks_and_keeps_them_apart() {
    let store = MemoryStore::new();
    let of_the_dead = store.lock_run(&run()).unwrap();
    let found = store.crash();
    let lock = found.lock_run(&run()).unwrap();
    drop(of_the_dead);
    assert_eq!(found.lock_run(&run()).unwrap_err().kind, ErrorKind::Busy);
    drop(lock);
}

#[tokio::test]
async fn other_writes_wait_their_turn_too() {
    let store = MemoryStore::with_manual_durability();
    let _answers = queue_three(&store).await;
    let mut flush = Box::pin(store.flush());
    assert!(poll_once(&mut flush).is_none());
    store.sync_some(3);
    assert!(poll_once(&mut flush).is_none());
    store.sync_all();
    flush.await.unwrap();
    let run = run();
    let mut take_over = Box::pin(store.take_over(&run));
    assert!(poll_once(&mut take_over).is_none());
    assert_eq!(store.run(&run).await.unwrap().unwrap().epoch, 1);
    store.sync_all();
    assert_eq!(take_over.await.unwrap(), 2);
}

#[tokio::test]
async fn a_full_queue_makes_append_wait() {
    let store = MemoryStore::with_manual_durability_and_queue(2);
    let first = store.append(append(&run(), 0, vec![created(&run(), "d")])).await;
    let _second = store.append(append(&run(), 1, vec![run_started()])).await;
    let mut third = Box::pin(store.append(append(&run(), 2, vec![Event::RunSucceeded])));
    assert!(poll_once(&mut third).is_none());
    store.sync_some(1);
    first.await.unwrap().unwrap();
    let third = third.await;
    store.sync_all();
    third.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_append_fails_when_it_is_chosen_to() {
    let store = MemoryStore::with_manual_durability();
    let first = store.append(append(&run(), 0, vec![created(&run(), "d")])).await;
    store.fail_next_append(Error::new(ErrorKind::Full, "the disk is full").into());
    let second = store.append(append(&run(), 1, vec![run_started()])).await;
    let third = store.append(append(&run(), 2, vec![Event::RunSucceeded])).await;
    store.sync_all();
    first.await.unwrap().unwrap();
    assert_eq!(second.await.unwrap().unwrap_err().to_string(), "the disk is full");
    let refused = third.await.unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "run r has 1 events, not 2: an append before this one was not kept");
}
