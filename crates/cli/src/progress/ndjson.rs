//! NDJSON on standard output: only what is durable, so that nobody acts on an event that a crash takes back.

use super::printer::Printer;
use crate::wire;
use backstop_core::RunId;
use backstop_runtime::{Redactor, Watcher};
use backstop_store::Recorded;
use std::sync::Arc;

pub(crate) struct Ndjson {
    run: RunId,
    redactor: Arc<Redactor>,
    printer: Printer,
}

impl Ndjson {
    pub(super) fn start(run: RunId, redactor: Arc<Redactor>) -> Self {
        Self { run, redactor, printer: Printer::start(std::io::stdout()) }
    }

    pub(super) fn finish(&self) {
        self.printer.finish();
    }
}

impl Watcher for Ndjson {
    fn durable(&self, events: &[Recorded]) {
        for recorded in events {
            // These shapes have text keys and no failing serializer: writing them to a text cannot fail.
            if let Ok(line) = serde_json::to_string(&wire::EventLine::new(&self.run, &self.redactor.mask(recorded))) {
                self.printer.line(line);
            }
        }
    }
}
