//! The parts of a service that go on beside each other, and what it means when one of them breaks.
//!
//! A service without its planner, say, would answer and do nothing for ever. So its process ends with an error, which whoever looks after it
//! sees; to start it again is safe at any moment.

use tokio::task::{Id, JoinSet};

/// A part of the service panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the part of the service that {part} panicked: this is a bug in Backstop")]
pub struct Broken {
    /// What it does.
    pub part: &'static str,
}

/// Parts that go on until they are aborted, or end by themselves when the service stops.
#[derive(Default)]
pub(super) struct Parts {
    tasks: JoinSet<()>,
    names: Vec<(Id, &'static str)>,
}

impl Parts {
    pub(super) fn spawn(&mut self, what: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        let handle = self.tasks.spawn(part);
        self.names.push((handle.id(), what));
    }

    /// Waits until one breaks; for ever where none does.
    pub(super) async fn broken(&mut self) -> Broken {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                let part = self.names.iter().find(|(id, _)| *id == error.id());
                return Broken { part: part.map_or("runs beside the others", |(_, what)| *what) };
            }
        }
        std::future::pending().await
    }

    pub(super) fn abort(&mut self) {
        self.tasks.abort_all();
    }

    /// Waits until all have ended, in whatever way.
    pub(super) async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}
