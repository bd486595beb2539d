//! How a run is steered from outside its engine.

use crate::others::Awaited;
use crate::run::Decision;
use backstop_core::{Command, InstanceId, RunState};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Steers a run from outside. Clones steer the same run.
#[derive(Clone, Debug)]
pub struct Control {
    reason: watch::Sender<Option<String>>,
    seen: bool,
    asks: mpsc::UnboundedSender<Ask>,
    /// Whether nothing of the run goes on: it waits for time, or for another run.
    is_idle: Arc<AtomicBool>,
    /// Told when that changes.
    listener: Option<Arc<Notify>>,
    /// Taken by the engine.
    inbox: Arc<Mutex<Option<mpsc::UnboundedReceiver<Ask>>>>,
    /// What the run was begun for, where that can be done whether it can be gone on with or not.
    settles: Option<Settles>,
}

/// What a person wants of a run that can be done by its DAG's shape alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settles {
    /// To end it.
    Run,
    /// To say how some of its instances ended: nothing more of it is done.
    Instances,
}

impl Default for Control {
    fn default() -> Self {
        let (asks, inbox) = mpsc::unbounded_channel();
        Self {
            reason: watch::channel(None).0,
            seen: false,
            asks,
            is_idle: Arc::default(),
            listener: None,
            inbox: Arc::new(Mutex::new(Some(inbox))),
            settles: None,
        }
    }
}

impl Control {
    /// Asks the run to end: running statements are killed on their servers, the rest is not begun.
    pub fn cancel(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason);
            }
            first
        });
    }

    /// One that tells when nothing of the run goes on, or something again.
    pub(crate) fn telling(listener: Arc<Notify>) -> Self {
        Self { listener: Some(listener), ..Self::default() }
    }

    /// As [`Self::telling`], of a run that is begun for what is asked first.
    pub(crate) fn begun_for(ask: Ask, listener: Arc<Notify>) -> Self {
        let control = Self { settles: ask.settles(), ..Self::telling(listener) };
        control.ask(ask);
        control
    }

    /// What the run was begun for, where that can be done by its DAG's shape alone.
    pub(crate) fn settles(&self) -> Option<Settles> {
        self.settles
    }

    /// Whether the run only waits, for time or for another run.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::Relaxed)
    }

    pub(crate) fn tell_idle(&self, is_idle: bool) {
        let has_changed = self.is_idle.swap(is_idle, Ordering::Relaxed) != is_idle;
        if let Some(listener) = self.listener.as_ref().filter(|_| has_changed) {
            listener.notify_one();
        }
    }

    /// What a deferred instance waits for, where it is another DAG's run.
    pub(crate) async fn awaited(&self, instance: &InstanceId) -> Option<Awaited> {
        let (sender, answer) = oneshot::channel();
        self.asks.send(Ask::Awaited(instance.clone(), sender)).ok()?;
        answer.await.ok()?
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.reason.borrow().clone()
    }

    /// Waits for a cancel; answers once.
    pub(crate) async fn cancelled(&mut self) -> String {
        if self.seen {
            return std::future::pending().await;
        }
        let mut receiver = self.reason.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.map(|reason| reason.clone().unwrap_or_default());
        match reason {
            Ok(reason) => {
                self.seen = true;
                reason
            }
            Err(_) => std::future::pending().await,
        }
    }

    /// Carries out commands together, and returns when what they led to is durable; refused as a whole where the core refuses one.
    /// `None` when the run was let go before.
    pub async fn act(&self, commands: Vec<Command>) -> Option<Result<(), String>> {
        let (ask, answer) = Ask::act(commands);
        self.asks.send(ask).ok()?;
        answer.await.ok()
    }

    /// What a person says of an attempt in doubt; as [`Self::act`].
    pub async fn decide(&self, decision: Decision) -> Option<Result<(), String>> {
        let (ask, answer) = Ask::decide(decision);
        self.asks.send(ask).ok()?;
        answer.await.ok()
    }

    /// Looks at the run between two of its inputs. `None` when the run was let go before.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&RunState) -> T + Send + 'static) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        // Nobody waits for the answer any more: fine.
        let ask = Ask::Look(Box::new(move |state| drop(sender.send(look(state)))));
        self.asks.send(ask).ok()?;
        answer.await.ok()
    }

    /// As [`Self::look`], also at what only the engine knows.
    pub(crate) async fn look_into<T: Send + 'static>(
        &self,
        look: impl FnOnce(&RunState, Held<'_>) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, answer) = oneshot::channel();
        self.asks.send(Ask::LookInto(Box::new(move |state, held| drop(sender.send(look(state, held)))))).ok()?;
        answer.await.ok()
    }

    /// Begins nothing more, and lets the run go once nothing of it goes on: somebody else resumes it.
    pub fn hand_over(&self) {
        // A run that is over needs no handing over.
        let _ = self.asks.send(Ask::HandOver);
    }

    /// Puts an ask where the engine finds it first, before it begins anything.
    pub(crate) fn ask(&self, ask: Ask) {
        let _ = self.asks.send(ask);
    }

    /// The engine's end. Once.
    pub(crate) fn take_inbox(&self) -> Option<mpsc::UnboundedReceiver<Ask>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What keeps an engine from going on, and is not in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// Instances in doubt that nobody could tell of so far, and why.
    pub(crate) undecided: &'a BTreeMap<InstanceId, String>,
    /// Nothing more is begun, because the process ends.
    pub(crate) is_handing_over: bool,
    /// The run is to end, and what an earlier process began ahead of the log is looked for first.
    pub(crate) is_ending: bool,
}

type LookInto = Box<dyn FnOnce(&RunState, Held<'_>) + Send>;

/// Something asked of an engine. Bounded by those who ask: each waits for its answer.
pub(crate) enum Ask {
    Act(Vec<Command>, oneshot::Sender<Result<(), String>>),
    Decide(Decision, oneshot::Sender<Result<(), String>>),
    Look(Box<dyn FnOnce(&RunState) + Send>),
    Awaited(InstanceId, oneshot::Sender<Option<Awaited>>),
    LookInto(LookInto),
    HandOver,
    LetGo(oneshot::Sender<Result<u64, String>>),
}

/// Where the answer will come; an error when the run was let go before.
pub(crate) type Answer<T = ()> = oneshot::Receiver<Result<T, String>>;

impl Ask {
    pub(crate) fn act(commands: Vec<Command>) -> (Self, Answer) {
        let (sender, answer) = oneshot::channel();
        (Self::Act(commands, sender), answer)
    }

    /// As a hand-over, where nothing of the run goes on and it is known what an earlier process did; else it says what does. The answer is
    /// the epoch: as long as the run has it, nothing more was done to it.
    pub(crate) fn let_go() -> (Self, Answer<u64>) {
        let (sender, answer) = oneshot::channel();
        (Self::LetGo(sender), answer)
    }

    pub(crate) fn decide(decision: Decision) -> (Self, Answer) {
        let (sender, answer) = oneshot::channel();
        (Self::Decide(decision, sender), answer)
    }

    /// What can be done by the DAG's shape alone; `None` of what lets something run again, or only looks.
    fn settles(&self) -> Option<Settles> {
        let is_settling = |command: &Command| {
            matches!(
                command,
                Command::Cancel { .. } | Command::CancelInstance { .. } | Command::Mark { .. } | Command::RecordOperator { .. }
            )
        };
        match self {
            Self::Act(commands, _) if commands.iter().any(|command| matches!(command, Command::Cancel { .. })) => {
                Some(Settles::Run)
            }
            Self::Act(commands, _) if commands.iter().all(is_settling) => Some(Settles::Instances),
            Self::Decide(..) => Some(Settles::Instances),
            Self::Act(..) | Self::Look(_) | Self::Awaited(..) | Self::LookInto(_) | Self::HandOver | Self::LetGo(_) => None,
        }
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Act(..) => "Act",
            Self::Decide(..) => "Decide",
            Self::Look(_) => "Look",
            Self::Awaited(..) => "Awaited",
            Self::LookInto(_) => "LookInto",
            Self::HandOver => "HandOver",
            Self::LetGo(_) => "LetGo",
        })
    }
}
