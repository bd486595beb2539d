//! The whole binary, as people and programs meet it, on SQLite projects in folders of their own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod api;
mod assets;
mod backfill;
mod bad_input;
mod begin;
mod broken;
mod callbacks;
mod checks;
mod crash;
mod cross;
mod deadlines;
mod disaster;
mod doubt;
mod dry_run;
mod ended;
mod endure;
mod follow;
mod gone;
mod homes;
mod inspect;
mod interrupt;
mod kept_settings;
mod kinds;
mod left;
mod lists;
mod mended;
mod outcome;
mod places;
mod project;
mod questions;
mod remembered;
mod rendered;
mod resume;
mod schedules;
mod secrets;
mod server;
mod service_log;
mod steer;
mod store;
mod through;
mod up;
mod versions;
mod watch;
mod why;
