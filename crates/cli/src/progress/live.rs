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
    /// One a line on the screen.
    bars: Mutex<Vec<ProgressBar>>,
}

impl Live {
    pub(super) fn new(dag: &Arc<Dag>, run: &RunId, only_tasks: &[TaskId]) -> Self {
        Self {
            board: Mutex::new(Board::new(dag, run, only_tasks)),
            clock: SystemClock::starting(None),
            paint: Painter::stderr(),
            screen: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
            bars: Mutex::new(Vec::new()),
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
        let height = usize::from(console_height());
        let lines = self.with_board(|board| board.lines(self.clock.now(), height, self.paint));
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        while bars.len() < lines.len() {
            let bar = self.screen.add(ProgressBar::no_length());
            // `wide_msg` cuts a line at the terminal's edge instead of wrapping it.
            bar.set_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bars.push(bar);
        }
        for bar in bars.split_off(lines.len()) {
            bar.finish_and_clear();
            self.screen.remove(&bar);
        }
        for (bar, line) in bars.iter().zip(lines) {
            bar.set_message(line);
            bar.tick();
        }
    }

    pub(super) fn say(&self, text: &str) {
        // A terminal that cannot be written has nobody before it.
        drop(self.screen.println(format!("{} {text}", self.paint.warn("!"))));
    }

    /// Leaves the tree as it is at the end, whole, above the summary.
    pub(super) fn finish(&self) {
        for bar in self.bars.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            bar.finish_and_clear();
        }
        drop(self.screen.clear());
        let lines = self.with_board(|board| board.lines(self.clock.now(), LINES_LEFT_MAX, self.paint));
        crate::output::tell(&format!("{}\n", lines.join("\n")));
    }
}

/// How long a tree may be that is left on the screen.
const LINES_LEFT_MAX: usize = 100;

fn console_height() -> u16 {
    const USUAL: u16 = 24;
    console::Term::stderr().size_checked().map_or(USUAL, |(height, _)| height)
}

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

    fn note(&self, instance: Option<&InstanceId>, text: &str) {
        match instance {
            Some(instance) => self.say(&format!("{instance}: {text}")),
            None => self.say(text),
        }
    }
}
