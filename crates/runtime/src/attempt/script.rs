//! SQL scripts: render, split, plan, and run segment after segment, each taking effect exactly once where the database can.

use super::results::{Collector, to_parameter};
use super::stop::{StopReason, Stopper};
use super::{Attempt, Outcome, Shared};
use crate::engine::Answer;
use crate::failure::{FailureExt, failure, of_database, of_template};
use crate::journal::Gate;
use crate::logs::TaskLog;
use crate::places;
use crate::sessions::Lease;
use backstop_connect::script::{self, Segment, SegmentEnd, SegmentPromise, Statement};
use backstop_connect::session::{Call, StatementOutcome, Wrap};
use backstop_connect::{
    Capabilities, Column, Dialect, ErrorKind, MarkerKey, MarkerTable, Observer, Unit, UnitError, UnitOutcome, Value,
};
use backstop_core::dag::Delivery;
use backstop_core::event::{Evidence, Failure, FailureClass, Promise, SegmentCommit, StatementRecord};
use backstop_core::{Command, InstanceId};
use backstop_project::context::Context;
use backstop_project::definition::{Sql, Template};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Scripts larger than this are split on a thread of their own, so that the engine's is not held.
const SPLIT_INLINE_BYTES_MAX: usize = 256 * 1024;
/// How long a statement that was told to stop is waited for before its session is given up.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// Notices kept of one statement, and bytes of each.
const NOTICES_MAX: usize = 20;
const NOTICE_BYTES_MAX: usize = 1000;

/// Who runs a script: an attempt, or a callback.
pub(crate) struct Runner<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) instance: &'a InstanceId,
    pub(crate) try_number: u32,
    /// The marker's kind: `forward`, or a callback's.
    pub(crate) kind: &'a str,
    pub(crate) connection: &'a str,
    pub(crate) delivery: Delivery,
    pub(crate) context: &'a Context,
    pub(crate) committed: &'a [Arc<SegmentCommit>],
    pub(crate) log: &'a TaskLog,
    /// Told of every commit; a callback has nobody to tell.
    pub(crate) mailbox: Option<&'a mpsc::Sender<Answer>>,
    pub(crate) stopper: Stopper,
    pub(crate) gate: Gate,
    pub(crate) started_version: u64,
}

/// Runs a `sql` task.
pub(crate) async fn run_task(attempt: &mut Attempt, sql: &Sql) -> Outcome {
    let Some(connection) = attempt.connection.clone() else {
        return Outcome::Failed(failure(FailureClass::Final, "this task has no connection").effect("nothing was sent"));
    };
    let runner = Runner {
        shared: &attempt.shared,
        instance: &attempt.instance,
        try_number: attempt.try_number,
        kind: &attempt.work.marker_kind(),
        connection: &connection,
        delivery: attempt.delivery,
        context: &attempt.context,
        committed: &attempt.committed,
        log: &attempt.log,
        mailbox: matches!(attempt.work, super::Work::Body(_)).then_some(&attempt.mailbox),
        stopper: attempt.stopper.clone(),
        gate: attempt.gate.clone(),
        started_version: attempt.started_version,
    };
    runner.run(sql).await
}

/// A script that is ready to be sent.
pub(crate) struct Prepared {
    text: Arc<str>,
    statements: Vec<Statement>,
    /// In the database's notation, with the values to bind.
    calls: Vec<(String, Vec<Value>)>,
    /// In order.
    pub(crate) segments: Vec<Segment>,
    /// One a segment.
    pub(crate) digests: Vec<String>,
}

/// Where marker rows of a connection go.
pub(crate) fn marker_table(shared: &Shared, connection: &str) -> MarkerTable {
    let configured = shared.project.connections.get(connection);
    let default = MarkerTable::default();
    MarkerTable {
        schema: configured.and_then(|connection| connection.marker_schema.clone()),
        name: configured.and_then(|connection| connection.marker_table.clone()).unwrap_or(default.name),
    }
}

/// Renders, splits, plans and binds a script.
pub(crate) async fn prepare(shared: &Shared, sql: &Sql, context: &Context, dialect: Dialect) -> Result<Prepared, Failure> {
    let text: Arc<str> = if sql.templated {
        shared.renderer.render(&sql.script, context).map_err(|error| of_template(&error))?.into()
    } else {
        sql.script.text.clone()
    };
    let autocommit = sql.autocommit;
    let cut = {
        let text = text.clone();
        move || {
            let statements = script::split(dialect, &text)?;
            let segments = script::plan(dialect, &text, &statements, autocommit)?;
            Ok::<_, script::SplitError>((statements, segments))
        }
    };
    let cut = if text.len() > SPLIT_INLINE_BYTES_MAX {
        tokio::task::spawn_blocking(cut).await.map_err(|_| failure(FailureClass::Final, "split the script: it panicked"))?
    } else {
        cut()
    };
    let of_split = |error: script::SplitError| {
        let mut told = failure(FailureClass::Permanent, format!("read the script: {}", error.what))
            .place(Some(places::in_source(&sql.script, &text, error.line, error.column, None)))
            .effect("nothing was sent");
        told.hint = error.hint;
        told
    };
    let (statements, segments) = cut.map_err(of_split)?;
    let parameters = render_parameters(shared, sql, context)?;
    let mut calls = Vec::with_capacity(statements.len());
    for statement in &statements {
        calls.push(bind(dialect, &text[statement.text.clone()], &parameters).map_err(of_split)?);
    }
    let digests = segments
        .iter()
        .map(|segment| {
            script::digest(segment.statements.clone().map(|place| {
                let copied = statements[place].copy_data.clone().map(|range| &text[range]);
                (calls[place].0.as_str(), calls[place].1.as_slice(), copied)
            }))
        })
        .collect();
    Ok(Prepared { text, statements, calls, segments, digests })
}

fn render_parameters(shared: &Shared, sql: &Sql, context: &Context) -> Result<Vec<(String, Value)>, Failure> {
    let mut parameters = Vec::with_capacity(sql.parameters.len());
    for (name, value) in &sql.parameters {
        let value = shared.renderer.render_value(value, &sql.script.source, context).map_err(|error| of_template(&error))?;
        parameters.push((name.clone(), to_parameter(&value)));
    }
    Ok(parameters)
}

/// Puts named values into the database's notation.
pub(crate) fn bind(
    dialect: Dialect,
    sql: &str,
    parameters: &[(String, Value)],
) -> Result<(String, Vec<Value>), script::SplitError> {
    if parameters.is_empty() {
        return Ok((sql.to_owned(), Vec::new()));
    }
    let find = |name: &str| parameters.iter().find(|(known, _)| known == name);
    let bound = script::bind_names(dialect, sql, &|name| find(name).is_some())?;
    let values = bound.names.iter().filter_map(|name| find(name)).map(|(_, value)| value.clone()).collect();
    Ok((bound.sql, values))
}

/// How a segment's unit ended.
enum Ended {
    Committed(SegmentCommit),
    Stopped(Outcome),
}

impl Runner<'_> {
    /// Runs what is not committed yet.
    pub(crate) async fn run(mut self, sql: &Sql) -> Outcome {
        let (dialect, capabilities) = match self.shared.sessions.dialect(self.connection).await {
            Ok(found) => found,
            Err(error) => return Outcome::Failed(of_database(&error).effect("nothing was sent")),
        };
        let prepared = match prepare(self.shared, sql, self.context, dialect).await {
            Ok(prepared) => prepared,
            Err(failure) => return Outcome::Failed(failure),
        };
        if let Err(failure) = check_prefix(self.committed, &prepared, &sql.script) {
            return Outcome::Failed(failure);
        }
        self.say_resumed(&prepared).await;
        let mut result = self.committed.iter().rev().find_map(|commit| commit.result.clone());
        if self.committed.len() < prepared.segments.len() {
            let mut lease = match self.open().await {
                Ok(lease) => lease,
                Err(outcome) => return outcome,
            };
            for number in self.committed.len()..prepared.segments.len() {
                match self.segment(&mut lease, sql, &prepared, number, capabilities).await {
                    Ended::Committed(commit) => {
                        result = commit.result.clone().or(result);
                        self.tell(commit).await;
                    }
                    Ended::Stopped(outcome) => {
                        lease.give_back().await;
                        return outcome;
                    }
                }
            }
            lease.give_back().await;
        }
        Outcome::Succeeded { result, follow: None }
    }

    async fn say_resumed(&self, prepared: &Prepared) {
        if !self.committed.is_empty() {
            let text = format!(
                "resumes behind segment {} of {}: what is before it is committed and stays",
                self.committed.len(),
                prepared.segments.len()
            );
            self.log.line(self.shared.clock.now(), "INFO", &text).await;
        }
    }

    async fn open(&mut self) -> Result<Lease, Outcome> {
        let opened = tokio::select! {
            opened = self.shared.sessions.get(self.connection) => opened,
            reason = self.stopper.wait() => return Err(stopped(&reason, "nothing was sent")),
        };
        opened.map_err(|error| Outcome::Failed(of_database(&error).effect("nothing was sent")))
    }

    async fn tell(&self, commit: SegmentCommit) {
        if let Some(mailbox) = self.mailbox {
            let command =
                Command::CommitSegment { instance: self.instance.clone(), try_number: self.try_number, commit: Arc::new(commit) };
            // An engine that is gone is told by the marker.
            let _ = mailbox.send(Answer::Command(command)).await;
        }
    }

    /// Runs one segment in the way its promise wants.
    async fn segment(
        &mut self,
        lease: &mut Lease,
        sql: &Sql,
        prepared: &Prepared,
        number: usize,
        capabilities: Capabilities,
    ) -> Ended {
        let segment = &prepared.segments[number];
        let marked = self.marked(prepared, number, self.kind);
        let at_least_once = |why: &str| Promise::AtLeastOnce(why.to_owned());
        if self.shared.header.dry_run {
            return self.dry_run(lease, sql, prepared, number).await;
        }
        if segment.end == SegmentEnd::Rollback {
            return self.unit(lease, sql, prepared, number, Wrap::RolledBack, Promise::ReadOnly).await;
        }
        match &segment.promise {
            SegmentPromise::AtLeastOnce(why) => {
                let promise = at_least_once(why);
                self.bare(lease, sql, prepared, number, promise).await
            }
            _ if !capabilities.transactions => {
                let promise = at_least_once("this kind of database has no transactions");
                self.bare(lease, sql, prepared, number, promise).await
            }
            SegmentPromise::ReadOnly => match self.unit(lease, sql, prepared, number, Wrap::ReadOnly, Promise::ReadOnly).await {
                Ended::Stopped(Outcome::Skipped(_)) if self.delivery == Delivery::ExactlyOnce => {
                    self.unit(lease, sql, prepared, number, marked, Promise::ExactlyOnce).await
                }
                Ended::Stopped(Outcome::Skipped(_)) => self.unmarked(lease, sql, prepared, number).await,
                ended => ended,
            },
            SegmentPromise::ExactlyOnce if self.delivery == Delivery::AtLeastOnce || !capabilities.markers => {
                self.unmarked(lease, sql, prepared, number).await
            }
            SegmentPromise::ExactlyOnce => self.unit(lease, sql, prepared, number, marked, Promise::ExactlyOnce).await,
        }
    }

    fn marked(&self, prepared: &Prepared, number: usize, kind: &str) -> Wrap {
        Wrap::Marked {
            table: marker_table(self.shared, self.connection),
            key: marker_key(self.shared, self.instance, self.try_number, number, kind),
            digest: prepared.digests[number].clone(),
            check_first: self.shared.was_interrupted,
        }
    }

    async fn unmarked(&mut self, lease: &mut Lease, sql: &Sql, prepared: &Prepared, number: usize) -> Ended {
        if !self.log_is_durable().await {
            return Ended::Stopped(interrupted());
        }
        let promise = Promise::AtLeastOnce("`delivery: at_least_once` is set".into());
        self.unit(lease, sql, prepared, number, Wrap::Unmarked, promise).await
    }

    /// Statements that commit by themselves. A marker of the kind `intent` goes before and the segment's own marker behind, so that
    /// after a crash it is known whether they were never begun or have all ended; only in between there is doubt.
    async fn bare(&mut self, lease: &mut Lease, sql: &Sql, prepared: &Prepared, number: usize, promise: Promise) -> Ended {
        if !self.log_is_durable().await {
            return Ended::Stopped(interrupted());
        }
        let marks = self.delivery == Delivery::ExactlyOnce;
        if marks {
            let intent = self.marked(prepared, number, &intent_kind(self.kind));
            if let Err(outcome) = self.mark_only(lease, prepared, number, intent).await {
                return Ended::Stopped(outcome);
            }
        }
        let ended = self.unit(lease, sql, prepared, number, Wrap::Bare, promise).await;
        if marks && matches!(ended, Ended::Committed(_)) {
            let done = self.marked(prepared, number, self.kind);
            if let Err(outcome) = self.mark_only(lease, prepared, number, done).await {
                return Ended::Stopped(outcome);
            }
        }
        ended
    }

    /// Writes a marker in a transaction of its own.
    async fn mark_only(&mut self, lease: &mut Lease, prepared: &Prepared, number: usize, wrap: Wrap) -> Result<(), Outcome> {
        let unit = Unit { calls: &[], begin: None, wrap, keeps_result: false };
        match lease.session().run_unit(&unit, &mut backstop_connect::session::Ignore).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.unit_failed(error, prepared, number, &Watching::empty(), None)),
        }
    }

    async fn dry_run(&mut self, lease: &mut Lease, sql: &Sql, prepared: &Prepared, number: usize) -> Ended {
        if let SegmentPromise::AtLeastOnce(why) = &prepared.segments[number].promise {
            let text = format!("dry run: segment {} is not run, because it cannot be rolled back: {why}", number + 1);
            self.log.line(self.shared.clock.now(), "INFO", &text).await;
            self.shared.watcher.note(Some(self.instance), &text);
            return Ended::Committed(self.commit(prepared, number, Promise::ReadOnly, Evidence::ReadOnly, Vec::new(), None));
        }
        self.unit(lease, sql, prepared, number, Wrap::RolledBack, Promise::ReadOnly).await
    }

    async fn log_is_durable(&mut self) -> bool {
        let version = self.started_version;
        self.gate.wait(version).await
    }

    fn commit(
        &self,
        prepared: &Prepared,
        number: usize,
        promise: Promise,
        evidence: Evidence,
        statements: Vec<StatementRecord>,
        result: Option<Arc<str>>,
    ) -> SegmentCommit {
        let segment = u32::try_from(number).unwrap_or(u32::MAX);
        SegmentCommit { segment, digest: prepared.digests[number].clone(), promise, evidence, statements, result }
    }

    /// Runs a segment as one unit.
    async fn unit(
        &mut self,
        lease: &mut Lease,
        sql: &Sql,
        prepared: &Prepared,
        number: usize,
        wrap: Wrap,
        promise: Promise,
    ) -> Ended {
        let segment = &prepared.segments[number];
        let places: Vec<usize> = repeated(prepared, segment);
        let calls: Vec<Call<'_>> = places
            .iter()
            .map(|place| Call {
                sql: &prepared.calls[*place].0,
                parameters: &prepared.calls[*place].1,
                copy_data: prepared.statements[*place].copy_data.clone().map(|range| &prepared.text[range]),
            })
            .collect();
        let begin = segment.begin.map(|place| &prepared.text[prepared.statements[place].text.clone()]);
        let keeps_result = sql.result != backstop_project::definition::ResultKind::None;
        let unit = Unit { calls: &calls, begin, wrap, keeps_result };
        let mut watching = Watching::new(self, sql, prepared, places.clone());
        let canceller = lease.canceller();
        let mut stopper = self.stopper.clone();
        let mut reason = None;
        let ended = {
            let running = lease.session().run_unit(&unit, &mut watching);
            tokio::pin!(running);
            tokio::select! {
                ended = &mut running => Some(ended),
                why = stopper.wait() => {
                    reason = Some(why);
                    kill(&mut running, &*canceller).await
                }
            }
        };
        match ended {
            Some(Ok(UnitOutcome::Done)) => {
                let result = watching.collector.json().map(Arc::from);
                let commit = self.commit(prepared, number, promise, Evidence::Acknowledged, watching.records, result);
                Ended::Committed(commit)
            }
            Some(Ok(UnitOutcome::AlreadyCommitted(row))) => Ended::Committed(SegmentCommit {
                digest: row.digest,
                result: row.result.map(Arc::from),
                ..self.commit(prepared, number, promise, Evidence::Marker, Vec::new(), None)
            }),
            Some(Err(UnitError::Writes)) => Ended::Stopped(Outcome::Skipped("it writes".into())),
            Some(Err(error)) => Ended::Stopped(self.unit_failed(error, prepared, number, &watching, reason.as_ref())),
            None => Ended::Stopped(Outcome::Unknown(
                failure(FailureClass::Cancelled, "the statement did not end after it was cancelled; its session is given up")
                    .statements(watching.records)
                    .effect("not known yet"),
            )),
        }
    }

    /// An outcome of a unit that did not end well.
    fn unit_failed(
        &self,
        error: UnitError,
        prepared: &Prepared,
        number: usize,
        watching: &Watching<'_>,
        reason: Option<&StopReason>,
    ) -> Outcome {
        let of = prepared.segments.len();
        let before = match number {
            0 => String::new(),
            1 => format!("segment 1 of {of} is committed and stays; "),
            _ => format!("segments 1 to {number} of {of} are committed and stay; "),
        };
        let nothing = match (of, number) {
            (1, _) => "nothing was committed".to_owned(),
            _ => format!("{before}nothing of segment {} was committed", number + 1),
        };
        let records = watching.records.clone();
        match error {
            UnitError::RolledBack { place, error } => {
                let told = of_database(&error).statements(records);
                Outcome::Failed(self.explain(told, &error, place, prepared, watching, reason).effect(nothing))
            }
            UnitError::Partial { place, error } => {
                let effect = match place {
                    0 => nothing,
                    _ => format!(
                        "{before}segment {} has no transaction: {place} of its statements took effect before this one",
                        number + 1
                    ),
                };
                let told = of_database(&error).statements(records);
                Outcome::Failed(self.explain(told, &error, Some(place), prepared, watching, reason).effect(effect))
            }
            UnitError::NoMarkerTable { ddl, error } => Outcome::Failed(of_database(&error).effect(nothing).hint(format!(
                "have this run once by somebody who may:\n{ddl}\nor set `delivery: at_least_once` on the task to go on \
                         without markers: after a crash the script may then run twice"
            ))),
            UnitError::Fenced => Outcome::Failed(
                failure(FailureClass::Interrupted, "another process took this attempt over and fenced it off").effect(nothing),
            ),
            UnitError::Unknown { error } => Outcome::Unknown(
                of_database(&error)
                    .statements(records)
                    .effect(format!("{before}whether segment {} was committed is not known yet", number + 1)),
            ),
            UnitError::Writes => Outcome::Failed(failure(FailureClass::Permanent, "it writes").effect(nothing)),
        }
    }

    /// Adds the statement, its place in the sources, and why it was stopped.
    fn explain(
        &self,
        mut told: Failure,
        error: &backstop_connect::Error,
        place: Option<usize>,
        prepared: &Prepared,
        watching: &Watching<'_>,
        reason: Option<&StopReason>,
    ) -> Failure {
        if let Some(statement) = place.and_then(|place| watching.places.get(place)).map(|at| &prepared.statements[*at]) {
            let (line, column) = match error.position {
                // Bound names shift positions behind them; the statement's own place is still right.
                Some(position) if watching.parameters_are_none(statement.number) => {
                    script::statement_position_to_source(&prepared.text, statement, position)
                }
                _ => (statement.line, statement.column),
            };
            told.place = Some(places::in_source(watching.template, &prepared.text, line, column, Some(statement.number)));
            told.message = format!("statement {} of {}: {}", statement.number, prepared.statements.len(), error.message);
        }
        match reason {
            Some(StopReason::TimedOut(limit)) if error.kind == ErrorKind::Cancelled => {
                told.class = FailureClass::TimedOut;
                told.message = format!("over its execution_timeout of {limit:?}; {}", told.message);
            }
            Some(StopReason::Cancelled(why)) if error.kind == ErrorKind::Cancelled => {
                told.class = FailureClass::Cancelled;
                told.message = format!("{why}; {}", told.message);
            }
            // Cancelled on the server by somebody else, or by the server's own time-out: that is no cancel of the run.
            None if error.kind == ErrorKind::Cancelled => told.class = FailureClass::Permanent,
            _ => {}
        }
        if error.kind == ErrorKind::Stopped {
            told.class = FailureClass::Final;
        }
        told
    }
}

/// The marker's key of a segment.
pub(crate) fn marker_key(shared: &Shared, instance: &InstanceId, try_number: u32, segment: usize, kind: &str) -> MarkerKey {
    MarkerKey {
        run: shared.header.run_id.to_string(),
        task: instance.task.to_string(),
        map_index: instance.map_index.map_or(-1, |index| i32::try_from(index).unwrap_or(i32::MAX)),
        segment: i32::try_from(segment).unwrap_or(i32::MAX),
        kind: kind.to_owned(),
        try_number: i32::try_from(try_number).unwrap_or(i32::MAX),
    }
}

/// The kind of the marker that goes before statements that commit by themselves.
pub(crate) fn intent_kind(kind: &str) -> String {
    format!("intent_{kind}")
}

/// What committed under earlier tries must be what the script says now.
fn check_prefix(committed: &[Arc<SegmentCommit>], prepared: &Prepared, script: &Template) -> Result<(), Failure> {
    for commit in committed {
        let number = commit.segment as usize;
        if prepared.digests.get(number) == Some(&commit.digest) {
            continue;
        }
        let place = prepared.segments.get(number).map(|segment| {
            let first = &prepared.statements[segment.statements.start.min(prepared.statements.len() - 1)];
            places::in_source(script, &prepared.text, first.line, first.column, Some(first.number))
        });
        return Err(failure(
            FailureClass::Final,
            format!("the script has changed since its segment {} was committed", number + 1),
        )
        .place(place)
        .effect(format!("{} segments are committed and stay; nothing else was sent", committed.len()))
        .hint(
            "restore the committed part of the script (segments behind it may change) and resume, or undo by hand what was committed \
             and start a new run",
        ));
    }
    Ok(())
}

fn repeated(prepared: &Prepared, segment: &Segment) -> Vec<usize> {
    segment
        .statements
        .clone()
        .flat_map(|place| std::iter::repeat_n(place, prepared.statements[place].repeat.max(1) as usize))
        .collect()
}

/// Asks the server to kill the statement until it ends, for as long as the grace lasts. A cancel that comes between two statements
/// finds nothing to kill, so it is sent again.
async fn kill<F: Future + Unpin>(running: &mut F, canceller: &dyn backstop_connect::Canceller) -> Option<F::Output> {
    let give_up = tokio::time::Instant::now() + STOP_GRACE;
    loop {
        // A server that cannot be asked is asked again below, until the grace is over.
        let _ = tokio::time::timeout(Duration::from_secs(5), canceller.cancel()).await;
        let again = tokio::time::Instant::now() + Duration::from_millis(500);
        tokio::select! {
            ended = &mut *running => return Some(ended),
            () = tokio::time::sleep_until(again.min(give_up)) => {}
        }
        if tokio::time::Instant::now() >= give_up {
            return None;
        }
    }
}

/// An outcome for an attempt that was stopped while it waited.
pub(crate) fn stopped(reason: &StopReason, effect: &str) -> Outcome {
    let told = match reason {
        StopReason::Cancelled(why) => failure(FailureClass::Cancelled, format!("cancelled: {why}")),
        StopReason::TimedOut(limit) => failure(FailureClass::TimedOut, format!("over its execution_timeout of {limit:?}")),
    };
    Outcome::Failed(told.effect(effect))
}

fn interrupted() -> Outcome {
    Outcome::Failed(
        failure(FailureClass::Interrupted, "the run's log cannot be written, so this segment did not begin")
            .effect("nothing of it was sent"),
    )
}

/// Watches a unit: records, log lines, the kept result.
struct Watching<'a> {
    shared: Option<&'a Shared>,
    instance: Option<&'a InstanceId>,
    log: Option<&'a TaskLog>,
    prepared: Option<&'a Prepared>,
    template: &'a Template,
    /// Place in the unit to place in the script.
    places: Vec<usize>,
    records: Vec<StatementRecord>,
    notices: Vec<String>,
    rows: u64,
    collector: Collector,
}

impl<'a> Watching<'a> {
    fn new(runner: &Runner<'a>, sql: &'a Sql, prepared: &'a Prepared, places: Vec<usize>) -> Self {
        Self {
            shared: Some(runner.shared),
            instance: Some(runner.instance),
            log: Some(runner.log),
            prepared: Some(prepared),
            template: &sql.script,
            places,
            records: Vec::new(),
            notices: Vec::new(),
            rows: 0,
            collector: Collector::new(sql.result, sql.result_bytes_max as usize),
        }
    }

    /// For a unit without statements.
    fn empty() -> Watching<'static> {
        static NOWHERE: std::sync::LazyLock<Template> = std::sync::LazyLock::new(|| Template {
            text: "".into(),
            source: backstop_project::definition::Source { file: "".into(), line: 1, column: 1 },
        });
        Watching {
            shared: None,
            instance: None,
            log: None,
            prepared: None,
            template: &NOWHERE,
            places: Vec::new(),
            records: Vec::new(),
            notices: Vec::new(),
            rows: 0,
            collector: Collector::new(backstop_project::definition::ResultKind::None, 0),
        }
    }

    fn statement(&self, place: usize) -> Option<(&'a Statement, &'a str)> {
        let prepared = self.prepared?;
        let statement = prepared.statements.get(*self.places.get(place)?)?;
        Some((statement, &prepared.text[statement.text.clone()]))
    }

    fn parameters_are_none(&self, number: u32) -> bool {
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
        self.notices.clear();
        let Some((statement, text)) = self.statement(place) else { return };
        let summary = script::summary(text);
        self.say("INFO", &format!("statement {} (line {}): {summary}", statement.number, statement.line));
        if let (Some(shared), Some(instance), Some(prepared)) = (self.shared, self.instance, self.prepared) {
            let of = u32::try_from(prepared.statements.len()).unwrap_or(u32::MAX);
            shared.watcher.statement_started(instance, statement.number, of, &shared.redactor.clean(&summary));
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
        let Some((statement, text)) = self.statement(place) else { return };
        let mut summary = script::summary(text);
        if let Some(shared) = self.shared {
            shared.redactor.clean_string(&mut summary);
        }
        let line = match self.prepared {
            Some(prepared) => places::in_source(self.template, &prepared.text, statement.line, statement.column, None).line,
            None => statement.line,
        };
        let affected = outcome.rows_affected.map(|rows| format!("{rows} rows affected")).unwrap_or_default();
        let returned = match outcome.rows_returned {
            0 => String::new(),
            rows => format!("{rows} rows returned"),
        };
        self.say(
            "INFO",
            &format!("statement {} done in {:.3} s {affected} {returned}", statement.number, outcome.duration.as_secs_f64()),
        );
        self.records.push(StatementRecord {
            number: statement.number,
            line,
            summary,
            duration_us: u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX),
            rows_affected: outcome.rows_affected,
            rows_returned: outcome.rows_returned,
            notices: std::mem::take(&mut self.notices),
        });
    }

    fn result(&mut self) -> Option<String> {
        self.collector.json()
    }
}
