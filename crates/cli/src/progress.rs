//! What a person or a program sees while a run goes on: a live tree on a terminal, lines elsewhere, NDJSON for machines.
//!
//! The engine tells a [`Watcher`] everything on its own task, so nothing here writes on that task: lines go through a bounded queue to a
//! thread, and the tree is only noted down, to be drawn a few times a second.

mod board;
mod lines;
mod live;
mod ndjson;
mod printer;
mod tally;

pub(crate) use tally::Tally;

use backstop_core::{Dag, RunId, TaskId};
use backstop_runtime::{Redactor, Watcher};
use std::io::IsTerminal as _;
use std::sync::Arc;

/// How progress is shown.
pub(crate) enum Progress {
    /// A tree that is drawn again and again.
    Live(Arc<live::Live>),
    /// One line an event.
    Lines(Arc<lines::Lines>),
    /// One JSON object an event.
    Json(Arc<ndjson::Ndjson>),
}

impl Progress {
    /// Chooses by who looks on. For machines, who get the events whole, with what masks them.
    pub(crate) fn start(dag: &Arc<Dag>, run: &RunId, only_tasks: &[TaskId], json: Option<Arc<Redactor>>, verbose: bool) -> Self {
        if let Some(redactor) = json {
            Self::Json(Arc::new(ndjson::Ndjson::start(run.clone(), redactor)))
        } else if std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            Self::Live(Arc::new(live::Live::new(dag, run, only_tasks)))
        } else {
            Self::Lines(Arc::new(lines::Lines::start(verbose)))
        }
    }

    /// What the engine tells.
    pub(crate) fn watcher(&self) -> Arc<dyn Watcher> {
        match self {
            Self::Live(live) => live.clone(),
            Self::Lines(lines) => lines.clone(),
            Self::Json(json) => json.clone(),
        }
    }

    /// Draws for ever; does nothing where nothing is drawn.
    pub(crate) async fn keep_drawing(&self) {
        match self {
            Self::Live(live) => live.keep_drawing().await,
            Self::Lines(_) | Self::Json(_) => std::future::pending().await,
        }
    }

    /// A remark, in the midst of it all.
    pub(crate) fn say(&self, text: &str) {
        match self {
            Self::Live(live) => live.say(text),
            Self::Lines(lines) => lines.say(text),
            Self::Json(_) => crate::output::note(text),
        }
    }

    /// Everything told so far has been written on return; nothing is drawn afterwards.
    pub(crate) fn finish(&self) {
        match self {
            Self::Live(live) => live.finish(),
            Self::Lines(lines) => lines.finish(),
            Self::Json(json) => json.finish(),
        }
    }
}
