//! Why the store refuses, or cannot.

use backstop_core::RunId;

/// Why an append was not done. Nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else appended to the run, or an append before this one was not kept: it has `actual` events, not `expected`.
    #[error("run {run} has {actual} events, not {expected}: {}", conflict_cause(*expected, *actual))]
    Conflict {
        /// The run.
        run: RunId,
        /// What the caller thought.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// A newer epoch owns the run.
    #[error("run {run} was taken over by a newer process (epoch {current}, ours is {ours})")]
    Fenced {
        /// The run.
        run: RunId,
        /// The caller's epoch.
        ours: u64,
        /// The store's.
        current: u64,
    },
    /// The store could not write.
    #[error(transparent)]
    Store(#[from] Error),
}

fn conflict_cause(expected: u64, actual: u64) -> &'static str {
    if actual > expected { "another process appended to it" } else { "an append before this one was not kept" }
}

/// Why the store cannot do something. Says the file and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What was tried and what happened, with the path.
    pub message: String,
    /// What kind.
    pub kind: ErrorKind,
    /// What to do next.
    pub hint: Option<String>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Kinds of store errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Cannot open: missing folder, no right, not a store.
    Open,
    /// The file system or the file is read-only.
    ReadOnly,
    /// The disk is full.
    Full,
    /// Another process holds what we need.
    Busy,
    /// Written by a newer Backstop.
    TooNew,
    /// What is stored does not make sense.
    Corrupt,
    /// The run is not in this store.
    NotFound,
    /// Anything else.
    Other,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { message: message.into(), kind, hint: None, source: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn no_such_run(run: &RunId, store: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("there is no run {run} in the store {store}"))
            .hint("`backstop runs list` shows the runs of a store; --store names another one")
    }

    /// The caller broke the contract of [`Append`](crate::Append): a bug of ours, told as an error because a panic in the writer
    /// would take the appends of other runs down with it.
    pub(crate) fn bad_append(run: &RunId, what: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Other, format!("append to run {run}: {what}")).hint("this is a bug in Backstop: please report it")
    }

    pub(crate) fn writer_gone(store: &str) -> Self {
        Self::new(ErrorKind::Other, format!("write to the store {store}: its writer has ended"))
            .hint("start Backstop again and resume the run: what was committed is found by its markers")
    }
}
