//! The heart of Backstop: DAGs, the state machine of a run, trigger rules, retries, timetables.
//!
//! This crate must not know: IO, clocks, threads, async, randomness, SQL, databases, YAML, JSON, storage formats. Time, ids
//! and jitter come in as arguments; the same events always fold to the same state. It cannot fail except by refusing a
//! command ([`Rejected`]), a graph ([`dag::Error`]) or a cron text ([`timetable::BadCron`]).
//!
//! Where to go next: [`dag`] for what runs, [`event`] and [`command`] for the vocabulary, [`state`] for the fold,
//! [`decide`](mod@decide) for the rules, [`rule`] for the thirteen trigger rules, [`retry`] for back-off,
//! [`timetable`] for when a DAG runs, [`backfill`] for making up for a range of its past.

pub mod action;
pub mod backfill;
pub mod command;
pub mod dag;
pub mod decide;
pub mod event;
pub mod id;
pub mod retry;
pub mod rule;
pub mod select;
pub mod state;
pub mod timetable;
pub mod why;

pub use action::{Action, actions, starts_past};
pub use command::{Command, Rejected};
pub use dag::{Dag, Task};
pub use decide::{decide, handle};
pub use event::Event;
pub use id::{DagId, InstanceId, RunId, TaskId, TaskIx};
pub use select::{Selection, select, select_failed, select_named};
pub use state::{InstancePhase, InstanceView, RunPhase, RunState, apply};
pub use timetable::{Tick, Timetable};
pub use why::{Why, why};
