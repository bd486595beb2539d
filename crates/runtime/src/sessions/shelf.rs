//! The open sessions of one connection, and who waits for one.
//!
//! A task that waits takes whichever comes first, a session that another gives back or a new one; and a new one is opened only for
//! those that have waited longer than opening takes. A thousand short tasks so share a few sessions, and long ones soon have one each.
//! Tasks that write do not wait: while one session waits for the disk to have its commit, another can work, and commits that come
//! together share one write.
//!
//! What an attempt in doubt left on the server may still work there in a session: others have one less as long as that is kept. Who asks the
//! server about it goes before them.
//!
//! A session that comes back still has to forget what was done with it. Where the database allows, that goes out together with the next
//! task's statements; a session that nobody takes within a moment is told at once, so that it holds no lock while it lies idle.

use backstop_connect::{Connector, Error, Session};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How many are opened at once before it is known how long that takes.
const FIRST_OPENINGS: usize = 2;
/// How long others wait before that is known.
const FIRST_PATIENCE: Duration = Duration::from_millis(10);
/// Who has waited so many times as long as opening takes gets a session of their own.
const PATIENCE_OPENINGS: u32 = 2;
/// The longest wait before that, however slow the database is to open.
const PATIENCE_MAX: Duration = Duration::from_millis(20);
/// How long a session may lie idle with what the last task left in it.
const UNTIDY_MAX: Duration = Duration::from_millis(2);

type Opened = Result<Box<dyn Session>, Error>;
type Answer = oneshot::Receiver<Result<Handed, Error>>;

struct Idle {
    session: Box<dyn Session>,
    /// Since when it waits for its reset; `None` when that is on its way.
    untidy_since: Option<Instant>,
}

/// Somebody who waits for a session.
struct Waits {
    purpose: Purpose,
    sender: oneshot::Sender<Result<Handed, Error>>,
}

#[derive(Default)]
struct State {
    /// The one used last is taken first: it is warm, and the others may time out.
    idle: Vec<Idle>,
    waiting: VecDeque<Waits>,
    /// Sessions that exist, in use or not, and those being opened.
    open: usize,
    opening: usize,
    /// How long the last opening took.
    opening_took: Option<Duration>,
    is_being_tidied: bool,
}

/// The sessions of one connection, `max` at most.
pub(super) struct Shelf {
    connector: Arc<dyn Connector>,
    max: usize,
    /// Sessions that attempts in doubt keep. Read under the lock of the state, changed whenever.
    kept: Arc<AtomicUsize>,
    state: Mutex<State>,
}

impl Shelf {
    pub(super) fn new(connector: Arc<dyn Connector>, max: usize, kept: Arc<AtomicUsize>) -> Self {
        Self { connector, max: max.max(1), kept, state: Mutex::default() }
    }

    /// Whether so many may be in use at once.
    fn has_room(&self, in_use: usize, purpose: Purpose) -> bool {
        match purpose {
            // In the place of what it asks about.
            Purpose::Ask => true,
            Purpose::Read | Purpose::Write => in_use + self.kept.load(Ordering::Relaxed) <= self.max,
        }
    }

    /// Sessions that exist, in use or not, and those being opened.
    pub(super) fn open(&self) -> usize {
        self.state().open
    }

    pub(super) fn connector(&self) -> &dyn Connector {
        &*self.connector
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing is done under the lock that could leave it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session, waiting for one when all are in use.
    ///
    /// # Errors
    /// When none could be opened.
    pub(super) async fn take(self: &Arc<Self>, purpose: Purpose) -> Opened {
        let (mut answer, patience) = match self.take_idle_or_wait(purpose) {
            Taken::Idle(session) => return Ok(session),
            Taken::Waits { answer, patience } => (answer, patience),
        };
        if let Some(patience) = patience {
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(answer) => return received(answer),
                Err(_) => self.open_one(purpose),
            }
        }
        received(answer.await)
    }

    fn take_idle_or_wait(self: &Arc<Self>, purpose: Purpose) -> Taken {
        let mut state = self.state();
        while self.has_room(state.in_use() + 1, purpose)
            && let Some(mut idle) = state.idle.pop()
        {
            if idle.session.is_alive() {
                return Taken::Idle(idle.session);
            }
            state.open -= 1;
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.push_back(Waits { purpose, sender });
        let patience = match state.opening_took {
            _ if purpose != Purpose::Read => None,
            None if state.opening < FIRST_OPENINGS => None,
            None => Some(FIRST_PATIENCE),
            Some(_) if state.open == 0 => None,
            Some(took) => Some((took * PATIENCE_OPENINGS).min(PATIENCE_MAX)),
        };
        drop(state);
        if patience.is_none() {
            self.open_one(purpose);
        }
        Taken::Waits { answer, patience }
    }

    /// Opens one more in the background, if there may be more.
    fn open_one(self: &Arc<Self>, purpose: Purpose) {
        let mut state = self.state();
        if state.open >= self.max || !self.has_room(state.in_use() + 1, purpose) {
            return;
        }
        state.open += 1;
        state.opening += 1;
        drop(state);
        let place = Place { shelf: Some(self.clone()), is_opening: true };
        tokio::spawn(async move {
            let Some(shelf) = place.shelf.clone() else { return };
            let since = Instant::now();
            match shelf.connector.open().await {
                Ok(session) => {
                    shelf.state().opening_took = Some(since.elapsed());
                    place.keep();
                    shelf.put(session, None);
                }
                // Before the place is free, so that a server that is away is told to one task for each try to reach it.
                Err(error) => place.refused(error),
            }
        });
    }

    /// Gives a session to whoever waits longest, or lays it aside.
    fn put(self: &Arc<Self>, session: Box<dyn Session>, untidy_since: Option<Instant>) {
        let mut handed = Handed { shelf: self.clone(), session: Some(session) };
        let mut state = self.state();
        let in_use = state.in_use();
        // Whoever asks about a doubt goes first: the others may be waiting for what it keeps.
        while let Some(place) = state
            .waiting
            .iter()
            .position(|waits| waits.purpose == Purpose::Ask)
            .or_else(|| state.waiting.front().filter(|waits| self.has_room(in_use, waits.purpose)).map(|_| 0))
        {
            let Some(waits) = state.waiting.remove(place) else { break };
            match waits.sender.send(Ok(handed)) {
                Ok(()) => return,
                // Nobody waits there any more.
                Err(Ok(back)) => handed = back,
                Err(Err(_)) => return,
            }
        }
        let Some(session) = handed.session.take() else { return };
        state.idle.push(Idle { session, untidy_since });
        let tidies = untidy_since.is_some() && !std::mem::replace(&mut state.is_being_tidied, true);
        drop(state);
        if tidies {
            let shelf = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(UNTIDY_MAX).await;
                    match shelf.upgrade() {
                        Some(shelf) if shelf.tidy().await => {}
                        _ => return,
                    }
                }
            });
        }
    }

    /// Resets sessions that have lain idle long enough. False when none is left to reset.
    async fn tidy(self: &Arc<Self>) -> bool {
        let now = Instant::now();
        let due: Vec<Idle> = {
            let mut state = self.state();
            let is_due = |idle: &mut Idle| idle.untidy_since.is_some_and(|since| now - since >= UNTIDY_MAX);
            state.idle.extract_if(.., is_due).collect()
        };
        for Idle { session, .. } in due {
            self.reset_and_put(session).await;
        }
        let mut state = self.state();
        state.is_being_tidied = state.idle.iter().any(|idle| idle.untidy_since.is_some());
        state.is_being_tidied
    }

    async fn reset_and_put(self: &Arc<Self>, mut session: Box<dyn Session>) {
        let place = Place { shelf: Some(self.clone()), is_opening: false };
        if session.is_usable() && session.reset().await.is_ok() {
            place.keep();
            self.put(session, None);
        }
    }

    /// Takes a session back from a task.
    pub(super) async fn give_back(self: &Arc<Self>, mut session: Box<dyn Session>) {
        if session.is_usable() && session.reset_with_next() {
            self.put(session, Some(Instant::now()));
        } else {
            self.reset_and_put(session).await;
        }
    }

    /// A session is gone. Whoever waits for one gets another.
    pub(super) fn lost_one(self: &Arc<Self>) {
        let mut state = self.state();
        state.open -= 1;
        let wanted = state.is_waited_for();
        drop(state);
        if let Some(purpose) = wanted.filter(|_| tokio::runtime::Handle::try_current().is_ok()) {
            self.open_one(purpose);
        }
    }

    /// Fewer sessions are kept: those who wait may have what is idle, or new ones.
    pub(super) fn look_again(self: &Arc<Self>) {
        let idle = self.state().idle.len();
        for _ in 0..idle {
            let mut state = self.state();
            if state.waiting.is_empty() {
                break;
            }
            let Some(Idle { session, untidy_since }) = state.idle.pop() else { break };
            drop(state);
            self.put(session, untidy_since);
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let wanted = {
            let state = self.state();
            state.waiting.len().saturating_sub(state.opening)
        };
        (0..wanted.min(self.max)).for_each(|_| self.open_one(Purpose::Write));
    }
}

impl State {
    /// Sessions in use, being opened or being reset.
    fn in_use(&self) -> usize {
        self.open - self.idle.len()
    }

    /// For what one more session would be opened.
    fn is_waited_for(&self) -> Option<Purpose> {
        let asks = self.waiting.iter().any(|waits| waits.purpose == Purpose::Ask);
        (self.waiting.len() > self.opening).then_some(if asks { Purpose::Ask } else { Purpose::Write })
    }
}

/// What a session is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Nothing will be committed, as far as is known.
    Read,
    /// A commit will have to reach the disk.
    Write,
    /// What became of an attempt in doubt is asked.
    Ask,
}

/// What [`Shelf::take`] finds.
enum Taken {
    /// A session that nobody used.
    Idle(Box<dyn Session>),
    /// One will come.
    Waits {
        answer: Answer,
        /// When none came within this time, another is opened; `None`: one is being opened already.
        patience: Option<Duration>,
    },
}

/// A session on its way to who waited for it. When they are gone it goes back.
struct Handed {
    shelf: Arc<Shelf>,
    session: Option<Box<dyn Session>>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.shelf.put(session, Some(Instant::now()));
        }
    }
}

fn received(answer: Result<Result<Handed, Error>, oneshot::error::RecvError>) -> Opened {
    let gone = || Error::config("the sessions of this connection are being closed");
    let mut handed = answer.map_err(|_| gone())??;
    handed.session.take().ok_or_else(gone)
}

/// The place of a session among the `max`: it is free again when this is dropped, whatever became of who held it.
struct Place {
    shelf: Option<Arc<Shelf>>,
    /// Whoever waits longest is waiting for this one.
    is_opening: bool,
}

impl Place {
    /// The session is there, and keeps its place.
    fn keep(mut self) {
        if let Some(shelf) = self.shelf.take().filter(|_| self.is_opening) {
            shelf.state().opening -= 1;
        }
    }

    /// The session could not be opened: tells whoever waits longest.
    fn refused(mut self, error: Error) {
        let Some(shelf) = self.shelf.take() else { return };
        let mut state = shelf.state();
        state.opening -= 1;
        let waits = state.waiting.pop_front();
        drop(state);
        if let Some(waits) = waits {
            let _ = waits.sender.send(Err(error));
        }
        shelf.lost_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shelf) = self.shelf.take() else { return };
        if !self.is_opening {
            return shelf.lost_one();
        }
        // Opening was broken off: the process ends, or it panicked. Nobody is opened for in their place, for that would end the same.
        let mut state = shelf.state();
        state.opening -= 1;
        state.open -= 1;
        let waits = state.waiting.pop_front();
        drop(state);
        drop(waits);
    }
}

#[cfg(test)]
mod tests;
