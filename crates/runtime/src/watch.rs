//! What a person or a program is shown while a run goes on.

use backstop_core::{InstanceId, RunState};
use backstop_store::Recorded;

/// Told what happens, in order, on the engine's own task: must not block.
pub trait Watcher: Send + Sync {
    /// Events were decided and applied; they may not be durable yet. For a live display.
    fn decided(&self, _state: &RunState, _events: &[Recorded]) {}

    /// Events are durable: from here on they may be told to the outside.
    fn durable(&self, _events: &[Recorded]) {}

    /// So long did it take until events were durable.
    fn kept(&self, _took: std::time::Duration) {}

    /// A statement was sent. `of` is how many the script has.
    fn statement_started(&self, _instance: &InstanceId, _number: u32, _of: u32, _summary: &str) {}

    /// Rows received so far by the running statement; called now and then.
    fn rows_received(&self, _instance: &InstanceId, _rows: u64) {}

    /// How the running statement of an instance looks on its server, when it runs long. `is_news`: it is blocked by others than before.
    fn seen(&self, _instance: &InstanceId, _standing: &str, _is_news: bool) {}

    /// Something worth saying that is no event: a connection is tried again, an old transaction is waited for.
    fn note(&self, _instance: Option<&InstanceId>, _text: &str) {}
}

/// Shows nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Watcher for Silent {}
