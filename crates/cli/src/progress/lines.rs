//! One line an event, for logs and pipes.

use super::printer::Printer;
use crate::narrate::{self, Line, Mark};
use crate::output::Painter;
use crate::words;
use backstop_core::{Event, InstanceId, RunState};
use backstop_runtime::{Clock as _, SystemClock, Watcher};
use backstop_store::Recorded;
use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

pub(crate) struct Lines {
    printer: Printer,
    paint: Painter,
    /// Statements are told too.
    verbose: bool,
    clock: SystemClock,
    /// When the attempts that go on began.
    started: Mutex<HashMap<InstanceId, Timestamp>>,
}

impl Lines {
    pub(super) fn start(verbose: bool) -> Self {
        Self {
            printer: Printer::start(std::io::stderr()),
            paint: Painter::stderr(),
            verbose,
            clock: SystemClock::starting(None),
            started: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn say(&self, text: &str) {
        self.tell(self.clock.now(), &Line { mark: Mark::Warn, subject: "run".to_owned(), text: text.to_owned() });
    }

    pub(super) fn finish(&self) {
        self.printer.finish();
    }

    fn tell(&self, at: Timestamp, line: &Line) {
        let glyph = match line.mark {
            Mark::Good => self.paint.good(line.mark.glyph()),
            Mark::Bad => self.paint.bad(line.mark.glyph()),
            Mark::Warn => self.paint.warn(line.mark.glyph()),
            Mark::Plain | Mark::Detail => line.mark.glyph().to_owned(),
        };
        self.printer.line(format!("{} {glyph} {}: {}", words::clock(at), line.subject, line.text));
    }
}

impl Watcher for Lines {
    fn decided(&self, _: &RunState, events: &[Recorded]) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        for recorded in events {
            let since = match &recorded.event {
                Event::AttemptStarted { instance, at, .. } => {
                    started.insert(instance.clone(), *at);
                    None
                }
                Event::AttemptSucceeded { instance, .. } | Event::AttemptFailed { instance, .. } => started.remove(instance),
                _ => None,
            };
            let line = narrate::line(&recorded.event, recorded.at, since);
            if line.mark != Mark::Detail {
                self.tell(recorded.at, &line);
            }
        }
    }

    fn statement_started(&self, instance: &InstanceId, number: u32, of: u32, summary: &str) {
        if self.verbose {
            let text = format!("statement {number} of {of}: {summary}");
            self.tell(self.clock.now(), &Line { mark: Mark::Plain, subject: instance.to_string(), text });
        }
    }

    fn seen(&self, instance: &InstanceId, standing: &str, is_news: bool) {
        if is_news && !standing.is_empty() {
            self.tell(self.clock.now(), &Line { mark: Mark::Warn, subject: instance.to_string(), text: standing.to_owned() });
        }
    }

    fn note(&self, instance: Option<&InstanceId>, text: &str) {
        let subject = instance.map_or_else(|| "run".to_owned(), ToString::to_string);
        self.tell(self.clock.now(), &Line { mark: Mark::Plain, subject, text: text.to_owned() });
    }
}
