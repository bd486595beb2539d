//! The live tree on a terminal.

use super::board::Board;
use crate::output::Painter;
use backstop_core::{Dag, InstanceId, RunId, RunState, TaskId};
use backstop_runtime::{Clock as _, SystemClock, Watcher};
use backstop_store::Recorded;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_millis(100);

pub(crate) struct Live {
    board: Mutex<Board>,
    clock: SystemClock,
    paint: Painter,
    screen: MultiProgress,
    /// The whole tree is one message, so that it is drawn in one go.
    tree: ProgressBar,
}

impl Live {
    pub(super) fn new(dag: &Arc<Dag>, run: &RunId, only_tasks: &[TaskId]) -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(20));
        let tree = screen.add(ProgressBar::no_length());
        tree.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self {
            board: Mutex::new(Board::new(dag, run, only_tasks)),
            clock: SystemClock::starting(None),
            paint: Painter::stderr(),
            screen,
            tree,
        }
    }

    pub(super) async fn keep_drawing(&self) {
        let mut every = tokio::time::interval(DRAW_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first tick is now: a run that is over at once is not worth a drawing.
        every.tick().await;
        loop {
            every.tick().await;
            self.draw();
        }
    }

    fn with_board<T>(&self, work: impl FnOnce(&mut Board) -> T) -> T {
        work(&mut self.board.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn draw(&self) {
        const USUAL: (u16, u16) = (24, 80);
        let (height, width) = console::Term::stderr().size_checked().unwrap_or(USUAL);
        let lines = self.with_board(|board| board.lines(self.clock.now(), usize::from(height), self.paint));
        // A line that wraps would be counted wrong, and half of it stay on the screen.
        let cut = |line: &String| console::truncate_str(line, usize::from(width).saturating_sub(1), "…").into_owned();
        self.tree.set_message(lines.iter().map(cut).collect::<Vec<_>>().join("\n"));
    }

    pub(super) fn say(&self, text: &str) {
        // A terminal that cannot be written has nobody before it.
        drop(self.screen.println(format!("{} {text}", self.paint.warn("!"))));
    }

    /// Leaves the tree as it is at the end, whole, above the summary.
    pub(super) fn finish(&self) {
        self.tree.finish_and_clear();
        // A terminal that cannot be written has nobody before it.
        drop(self.screen.clear());
        let lines = self.with_board(|board| board.lines(self.clock.now(), LINES_LEFT_MAX, self.paint));
        crate::output::tell(&format!("{}\n", lines.join("\n")));
    }
}

/// How long a tree may be that is left on the screen.
const LINES_LEFT_MAX: usize = 100;

impl Watcher for Live {
    fn decided(&self, state: &RunState, events: &[Recorded]) {
        self.with_board(|board| board.decided(state, events));
    }

    fn statement_started(&self, instance: &InstanceId, number: u32, of: u32, summary: &str) {
        self.with_board(|board| board.statement_started(instance, number, of, summary));
    }

    fn rows_received(&self, instance: &InstanceId, rows: u64) {
        self.with_board(|board| board.rows_received(instance, rows));
    }

    fn seen(&self, instance: &InstanceId, standing: &str, _is_news: bool) {
        self.with_board(|board| board.seen(instance, standing));
    }

    fn note(&self, instance: Option<&InstanceId>, text: &str) {
        match instance {
            Some(instance) => self.say(&format!("{instance}: {text}")),
            None => self.say(text),
        }
    }
}
