//! How an attempt learns that it must end: a cancel, or its execution time-out.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What the engine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Go on.
    Run,
    /// End, for this reason.
    Cancel(String),
}

/// Why an attempt must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// Somebody wants it.
    Cancelled(String),
    /// Over its execution_timeout.
    TimedOut(Duration),
}

/// Waits for a reason to stop.
#[derive(Clone, Debug)]
pub(crate) struct Stopper {
    signal: watch::Receiver<Stop>,
    deadline: Option<(Instant, Duration)>,
}

impl Stopper {
    /// A stopper with the time-out counted from now.
    pub(crate) fn new(signal: watch::Receiver<Stop>, timeout: Option<Duration>) -> Self {
        let deadline = timeout.and_then(|timeout| Some((Instant::now().checked_add(timeout)?, timeout)));
        Self { signal, deadline }
    }

    /// Why the attempt must end, if that is known by now: asked before anything new is begun.
    pub(crate) fn asked(&self) -> Option<StopReason> {
        if let Stop::Cancel(reason) = &*self.signal.borrow() {
            return Some(StopReason::Cancelled(reason.clone()));
        }
        let (at, timeout) = self.deadline?;
        (at <= Instant::now()).then_some(StopReason::TimedOut(timeout))
    }

    /// Waits for a session, unless the attempt must end meanwhile. For an attempt the wait does not count: whoever is kept waiting by others
    /// is not over its time because of them.
    ///
    /// # Errors
    /// Why it must end.
    pub(crate) async fn wait_for<T>(&mut self, counts: bool, waited_for: impl Future<Output = T>) -> Result<T, StopReason> {
        let since = Instant::now();
        let counted = self.deadline.take_if(|_| !counts);
        let came = tokio::select! {
            biased;
            came = waited_for => Ok(came),
            reason = self.wait() => Err(reason),
        };
        if let Some((at, timeout)) = counted {
            self.deadline = at.checked_add(since.elapsed()).map(|at| (at, timeout));
        }
        came
    }

    /// Waits until the attempt must end; the same answer again when asked again. Safe to drop.
    pub(crate) async fn wait(&mut self) -> StopReason {
        let deadline = self.deadline;
        let timed_out = async {
            match deadline {
                Some((at, timeout)) => {
                    tokio::time::sleep_until(at).await;
                    timeout
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            stop = self.signal.wait_for(|stop| *stop != Stop::Run) => match stop {
                Ok(stop) => match &*stop {
                    Stop::Cancel(reason) => StopReason::Cancelled(reason.clone()),
                    Stop::Run => StopReason::Cancelled(String::new()),
                },
                Err(_) => StopReason::Cancelled("the run has ended".into()),
            },
            timeout = timed_out => StopReason::TimedOut(timeout),
        }
    }
}
