//! Keeps as many runs going on as were asked for. Every request carries its run's id, and is repeated until it is answered.

use crate::operator;
use crate::service::{ask, standing};
use crate::work::Work;
use serde_json::json;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Between two looks at how many runs go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Requests on their way at once.
const CLIENTS: usize = 16;

/// A run that is asked for.
struct Request {
    number: u64,
    /// It was sent before, and no answer came.
    is_repeated: bool,
}

/// What is asked of the service, by one thread, while another kills it.
pub(crate) struct Load<'work> {
    work: &'work Work,
    wanted: usize,
    /// Where the service listens, when it is thought to.
    address: Mutex<Option<String>>,
    changed: Condvar,
    is_over: AtomicBool,
    /// Numbers of runs: 1 up to this were sent.
    sent: AtomicU64,
    pub(crate) repeated: AtomicU64,
    /// Repeated requests whose first one had made the run, though no answer came.
    pub(crate) found_made: AtomicU64,
    pub(crate) resolved: AtomicU64,
    pub(crate) most: AtomicUsize,
}

/// See [`Load::ends_with_me`].
pub(crate) struct EndsWithMe<'a, 'work>(&'a Load<'work>);

impl Drop for EndsWithMe<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.moved(None);
            self.0.end();
        }
    }
}

pub(crate) fn run_id(number: u64) -> String {
    format!("soak-run-{number:06}")
}

impl<'work> Load<'work> {
    pub(crate) fn new(work: &'work Work, wanted: usize) -> Self {
        Self {
            work,
            wanted,
            address: Mutex::new(None),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            found_made: AtomicU64::new(0),
            resolved: AtomicU64::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// The numbers of all runs that were asked for.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.sent.load(Ordering::Acquire)
    }

    /// The service listens here; `None`: it was killed.
    pub(crate) fn moved(&self, address: Option<String>) {
        *self.address.lock().unwrap() = address;
        self.changed.notify_all();
    }

    /// True once as many runs went on at once as were wanted.
    pub(crate) fn is_full(&self) -> bool {
        self.most.load(Ordering::Relaxed) >= self.wanted
    }

    /// Ends it when the other thread panics, so that its panic is told.
    pub(crate) fn ends_with_me(&self) -> EndsWithMe<'_, 'work> {
        EndsWithMe(self)
    }

    /// Nothing more is asked for.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    fn address(&self) -> Option<String> {
        let address = self.address.lock().unwrap();
        let there = self.changed.wait_while(address, |address| address.is_none() && !self.is_over()).unwrap();
        there.clone()
    }

    /// Until [`Self::end`]. What was sent by then is answered, unless the service is gone for good.
    pub(crate) fn keep_up(&self) {
        let mut open: VecDeque<Request> = VecDeque::new();
        while !self.is_over() || !open.is_empty() {
            let Some(address) = self.address() else { return };
            let Some(now) = standing(&address) else {
                self.pause();
                continue;
            };
            self.most.fetch_max(now.all(), Ordering::Relaxed);
            self.resolve_what_is_stuck(&address, now.stuck);
            let missing = if self.is_over() { 0 } else { self.wanted.saturating_sub(now.all() + open.len()) };
            let new = || Request { number: self.sent.fetch_add(1, Ordering::AcqRel) + 1, is_repeated: false };
            open.extend((0..missing).map(|_| new()));
            open = self.send_all(&address, open);
            self.pause();
        }
    }

    /// Several at once, as many clients would. Returns those that were not answered.
    fn send_all(&self, address: &str, open: VecDeque<Request>) -> VecDeque<Request> {
        let open = Mutex::new(open);
        let unanswered = Mutex::new(VecDeque::new());
        let take = || open.lock().unwrap().pop_front();
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while let Some(request) = take() {
                        if !self.send(address, &request) {
                            unanswered.lock().unwrap().push_back(Request { is_repeated: true, ..request });
                            return;
                        }
                    }
                });
            }
        });
        let mut unanswered = unanswered.into_inner().unwrap();
        unanswered.extend(open.into_inner().unwrap());
        unanswered
    }

    pub(crate) fn resolve_what_is_stuck(&self, address: &str, stuck: usize) {
        if stuck > 0 {
            self.resolved.fetch_add(operator::resolve_what_is_stuck(self.work, address), Ordering::Relaxed);
        }
    }

    /// True when it was answered that the run is there.
    fn send(&self, address: &str, request: &Request) -> bool {
        let Request { number, is_repeated } = *request;
        let body = json!({ "run_id": run_id(number), "params": { "number": number }, "who": "soak", "why": "to see it survive" });
        let path = format!("/api/v1/dags/{}/runs", Work::dag_of(number));
        if is_repeated {
            self.repeated.fetch_add(1, Ordering::Relaxed);
        }
        let Some(answer) = ask(address, "POST", &path, Some(&body)) else { return false };
        match answer.status {
            201 => true,
            200 => {
                assert!(is_repeated, "run {number} was there before it was asked for");
                self.found_made.fetch_add(1, Ordering::Relaxed);
                true
            }
            503 => false,
            status => panic!("run {number} was refused with {status}: {}", answer.body),
        }
    }

    /// Until the service has moved, or for a moment.
    fn pause(&self) {
        let address = self.address.lock().unwrap();
        // Whatever woke it, the next look tells more.
        drop(self.changed.wait_timeout(address, LOOK_EVERY).unwrap());
    }
}
