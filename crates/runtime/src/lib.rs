//! Where the core meets the world: one run is driven to its end by an [`engine`](run), with workers for attempts, a resolver for
//! attempts in doubt, timers, callbacks, and logs per try.
//!
//! This crate must not know: the terminal, HTTP servers, how definitions are written. All state changes go through
//! `backstop_core::handle`; nothing asynchronous happens while the state is mutated.
//!
//! Where to go next: [`run`] for the way in, `engine` for the loop, `attempt` for what each kind of task does, `resolve` for how doubt
//! is removed, `journal` for how far a run may be ahead of its log, [`monitor`] for
//! what is seen of running statements.

mod attempt;
pub mod began;
pub mod clock;
mod connection_test;
mod control;
mod deadlines;
pub mod ended;
mod engine;
mod failure;
mod footing;
mod journal;
mod logs;
pub mod measure;
pub mod monitor;
pub mod others;
mod places;
mod prepared;
pub mod prune;
mod redact;
pub mod repin;
mod resolve;
pub mod run;
pub mod service;
mod sessions;
pub mod slots;
pub mod steer;
pub mod watch;

pub use clock::{Clock, SystemClock, WallClock};
pub use connection_test::{Tested, test_connection};
pub use logs::{LogPosition, LogReader, LogWriter, hours_folder, log_tries};
pub use monitor::Monitor;
pub use prepared::Prepared;
pub use redact::{Masked, Redactor};
pub use run::{Control, Created, Error, Launch, Limits, Report, Request, begin, create, keep_version, resume, start};
pub use sessions::{Connect, Sessions, connection_config};
pub use slots::{SlotLimits, Slots};
pub use watch::{Silent, Watcher};
