//! What is seen while a unit runs: statement records, log lines, the kept result.

use super::Runner;
use super::prepare::Prepared;
use crate::attempt::Shared;
use crate::attempt::results::Collector;
use crate::engine::Answer;
use crate::logs::TaskLog;
use crate::monitor::{Onlooker, Ticket};
use backstop_connect::script::{self, Statement};
use backstop_connect::session::StatementOutcome;
use backstop_connect::{Column, Error, Observer, Value};
use backstop_core::InstanceId;
use backstop_core::event::StatementRecord;
use backstop_project::definition::{ResultKind, Source, Sql, Template};
use std::sync::{Arc, LazyLock};
use tokio::sync::mpsc;

/// Notices kept of one statement, and bytes of each.
const NOTICES_MAX: usize = 20;
const NOTICE_BYTES_MAX: usize = 1000;

/// Watches a unit: records, log lines, the kept result.
pub(super) struct Watching<'a> {
    /// Where it is told what runs.
    ticket: Option<Arc<Ticket>>,
    /// Told of what is unusual; a callback has nobody to tell.
    mailbox: Option<&'a mpsc::Sender<Answer>>,
    shared: Option<&'a Shared>,
    instance: Option<&'a InstanceId>,
    log: Option<&'a TaskLog>,
    prepared: Option<&'a Prepared>,
    pub(super) template: &'a Template,
    /// Place in the unit to place in the script.
    pub(super) places: Vec<usize>,
    pub(super) records: Vec<StatementRecord>,
    notices: Vec<String>,
    rows: u64,
    /// The statement that has begun and not ended, by its place in the unit, and since when.
    open: Option<(usize, tokio::time::Instant)>,
    pub(super) collector: Collector,
}

impl<'a> Watching<'a> {
    pub(super) fn new(
        runner: &Runner<'a>,
        sql: &'a Sql,
        prepared: &'a Prepared,
        places: Vec<usize>,
        ticket: Arc<Ticket>,
    ) -> Self {
        Self {
            ticket: Some(ticket),
            mailbox: runner.mailbox,
            shared: Some(runner.shared),
            instance: Some(runner.instance),
            log: Some(runner.log),
            prepared: Some(prepared),
            template: &sql.script,
            places,
            records: Vec::new(),
            notices: Vec::new(),
            rows: 0,
            open: None,
            collector: Collector::new(sql.result, sql.result_bytes_max as usize),
        }
    }

    /// For a unit without statements.
    pub(super) fn empty() -> Watching<'static> {
        static NOWHERE: LazyLock<Template> =
            LazyLock::new(|| Template { text: "".into(), source: Source { file: "".into(), line: 1, column: 1 } });
        Watching {
            ticket: None,
            mailbox: None,
            shared: None,
            instance: None,
            log: None,
            prepared: None,
            template: &NOWHERE,
            places: Vec::new(),
            records: Vec::new(),
            notices: Vec::new(),
            rows: 0,
            open: None,
            collector: Collector::new(ResultKind::None, 0),
        }
    }

    fn statement(&self, place: usize) -> Option<(&'a Statement, &'a str)> {
        let prepared = self.prepared?;
        let statement = prepared.statements.get(*self.places.get(place)?)?;
        Some((statement, &prepared.text[statement.text.clone()]))
    }

    fn record(&self, place: usize, outcome: &StatementOutcome, notices: Vec<String>) -> Option<StatementRecord> {
        let (statement, text) = self.statement(place)?;
        let summary = self.summary(text);
        let line = match self.prepared {
            Some(prepared) if prepared.is_traced => self.template.source.line + statement.line.saturating_sub(1),
            Some(_) | None => self.template.source.line,
        };
        Some(StatementRecord {
            number: statement.number,
            line,
            summary,
            duration_us: u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX),
            rows_affected: outcome.rows_affected,
            rows_returned: outcome.rows_returned,
            notices,
        })
    }

    /// What people are shown of a statement.
    fn summary(&self, text: &str) -> String {
        let summary = script::summary(text);
        self.shared.map_or_else(|| summary.clone(), |shared| shared.redactor.clean_sql(&summary))
    }

    /// The statements that ended, and behind them the one that did not, with what the server said of it.
    pub(super) fn records_with_failed(&self, error: &Error) -> Vec<StatementRecord> {
        let mut records = self.records.clone();
        let Some((place, since)) = self.open else { return records };
        let mut notices = self.notices.clone();
        let mut told = error.to_string();
        if let Some(shared) = self.shared {
            shared.redactor.clean_string(&mut told);
        }
        let end = (0..=told.len().min(NOTICE_BYTES_MAX)).rev().find(|end| told.is_char_boundary(*end)).unwrap_or(0);
        told.truncate(end);
        notices.push(told);
        let outcome = StatementOutcome { rows_returned: self.rows, duration: since.elapsed(), ..StatementOutcome::default() };
        records.extend(self.record(place, &outcome, notices));
        records
    }

    pub(super) fn parameters_are_none(&self, number: u32) -> bool {
        self.prepared
            .is_some_and(|prepared| prepared.calls.get((number - 1) as usize).is_none_or(|(_, parameters)| parameters.is_empty()))
    }

    fn say(&self, level: &str, text: &str) {
        if let (Some(shared), Some(log)) = (self.shared, self.log) {
            log.try_line(shared.clock.now(), level, text);
        }
    }
}

impl Observer for Watching<'_> {
    fn started(&mut self, place: usize) {
        self.rows = 0;
        self.open = Some((place, tokio::time::Instant::now()));
        self.notices.clear();
        let Some((statement, text)) = self.statement(place) else { return };
        let summary = self.summary(text);
        self.say("INFO", &format!("statement {} (line {}): {summary}", statement.number, statement.line));
        if let (Some(shared), Some(instance), Some(prepared)) = (self.shared, self.instance, self.prepared) {
            let of = u32::try_from(prepared.statements.len()).unwrap_or(u32::MAX);
            shared.watcher.statement_started(instance, statement.number, of, &summary);
            if let Some(ticket) = &self.ticket {
                let onlooker = Onlooker { watcher: shared.watcher.clone(), mailbox: self.mailbox.cloned() };
                ticket.started(statement.number, summary, onlooker);
            }
        }
    }

    fn columns(&mut self, _place: usize, columns: &[Column]) {
        self.collector.begin(columns);
    }

    fn row(&mut self, _place: usize, row: &[Value]) -> Result<(), String> {
        self.rows += 1;
        if self.rows.is_multiple_of(10_000)
            && let (Some(shared), Some(instance)) = (self.shared, self.instance)
        {
            shared.watcher.rows_received(instance, self.rows);
            if let Some(ticket) = &self.ticket {
                ticket.received(self.rows);
            }
        }
        self.collector.row(row)
    }

    fn notice(&mut self, _place: usize, text: &str) {
        self.say("NOTE", text);
        if self.notices.len() < NOTICES_MAX {
            let end = (0..=text.len().min(NOTICE_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            let mut notice = text[..end].to_owned();
            if let Some(shared) = self.shared {
                shared.redactor.clean_string(&mut notice);
            }
            self.notices.push(notice);
        }
    }

    fn finished(&mut self, place: usize, outcome: &StatementOutcome) {
        if let Some(ticket) = &self.ticket {
            ticket.ended();
        }
        self.open = None;
        let Some((statement, _)) = self.statement(place) else { return };
        let affected = outcome.rows_affected.map(|rows| format!(", {rows} rows affected")).unwrap_or_default();
        let returned = match outcome.rows_returned {
            0 => String::new(),
            rows => format!(", {rows} rows returned"),
        };
        self.say(
            "INFO",
            &format!("statement {} done in {:.3} s{affected}{returned}", statement.number, outcome.duration.as_secs_f64()),
        );
        let notices = std::mem::take(&mut self.notices);
        self.records.extend(self.record(place, outcome, notices));
    }

    fn result(&mut self) -> Option<String> {
        self.collector.json()
    }
}
