//! SQL scripts: render, split, plan, and run segment after segment, each taking effect exactly once where the database can.

mod ending;
mod prepare;
mod watching;
mod within;

pub(crate) use ending::{TAKEN_OUT_OF_HAND, another_commit, kill};
pub(crate) use prepare::{Prepared, bind, check_prefix, prepare};

use super::stop::{StopReason, Stopper};
use super::{Attempt, Outcome, Shared, wait_until_durable};
use crate::engine::Answer;
use crate::failure::{FailureExt, failure, of_database};
use crate::journal::Gate;
use crate::logs::TaskLog;
use crate::monitor::User;
use crate::sessions::{Lease, Purpose};
use backstop_connect::script::{SegmentEnd, SegmentPromise, session_statements_before};
use backstop_connect::session::{Call, Ignore, Wrap};
use backstop_connect::{Capabilities, Dialect, ErrorKind, MarkerKey, MarkerTable, Unit, UnitError, UnitOutcome};
use backstop_core::dag::Delivery;
use backstop_core::event::{Evidence, FailureClass, Promise, SegmentCommit, StatementRecord};
use backstop_core::{Command, InstanceId};
use backstop_project::context::Context;
use backstop_project::definition::{ResultKind, Sql};
use prepare::repeated;
use std::sync::Arc;
use tokio::sync::mpsc;
use watching::Watching;

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
    /// What must be durable before the first segment.
    pub(crate) stands_on: u64,
    /// The start of this try is known to be durable.
    pub(crate) is_logged: bool,
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
        stands_on: if attempt.try_number > 1 { attempt.started_version } else { attempt.stands_on },
        is_logged: false,
    };
    runner.run(sql).await
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

/// A segment of which somebody says that it committed; `None` when it is the last of its script.
///
/// # Errors
/// Why the script cannot be told: then nobody knows whether there is more behind it.
pub(crate) async fn told_segment(
    shared: &Shared,
    sql: &Sql,
    connection: &str,
    context: &Context,
    number: usize,
    evidence: Evidence,
) -> Result<Option<SegmentCommit>, String> {
    let (dialect, _) = shared.sessions.dialect(connection).await.map_err(|error| error.to_string())?;
    let prepared = prepare(shared, sql, context, dialect).await.map_err(|failure| failure.message.clone())?;
    let has_more = number + 1 < prepared.segments.len();
    let Some(segment) = prepared.segments.get(number).filter(|_| has_more) else { return Ok(None) };
    let promise = match &segment.promise {
        SegmentPromise::AtLeastOnce(why) => Promise::AtLeastOnce(why.clone()),
        SegmentPromise::ExactlyOnce => Promise::ExactlyOnce,
        SegmentPromise::ReadOnly => Promise::ReadOnly,
    };
    Ok(Some(SegmentCommit {
        segment: u32::try_from(number).unwrap_or(u32::MAX),
        digest: prepared.digests[number].clone(),
        promise,
        evidence,
        statements: Vec::new(),
        result: None,
    }))
}

/// How a segment's unit ended.
enum Ended {
    Committed(SegmentCommit),
    Stopped(Outcome),
}

impl Runner<'_> {
    /// Runs what is not committed yet.
    pub(crate) async fn run(mut self, sql: &Sql) -> Outcome {
        match self.run_segments(sql).await {
            Outcome::Failed(failure) if self.may_have_run_before() => Outcome::Unknown(
                failure.effect("whether an earlier process of the run committed it ahead of its log is not known yet"),
            ),
            outcome => outcome,
        }
    }

    /// True when an earlier process may have run this very try ahead of its log (see DESIGN.md, "Running ahead of the log"). What that
    /// process committed is adopted when this attempt finds its marker; when this attempt fails before it could look, or while a
    /// transaction of that process is still open, the key has to be probed before the next try, which has another key.
    fn may_have_run_before(&self) -> bool {
        self.shared.was_interrupted
            // Later tries, callbacks and statements without a transaction wait for the log: an earlier process would have told of them.
            && self.try_number == 1
            && self.mailbox.is_some()
            && !self.is_logged
            && self.delivery == Delivery::ExactlyOnce
            && !self.shared.header.dry_run
    }

    async fn run_segments(&mut self, sql: &Sql) -> Outcome {
        let (dialect, capabilities) = match self.shared.sessions.dialect(self.connection).await {
            Ok(found) => found,
            Err(error) => return Outcome::Failed(of_database(&error).effect(self.unsent(None, self.committed.len()))),
        };
        let prepared = match prepare(self.shared, sql, self.context, dialect).await {
            Ok(prepared) => prepared,
            Err(failure) => return Outcome::Failed(failure.effect(self.unsent(None, self.committed.len()))),
        };
        if let Err(failure) = check_prefix(self.shared, sql, self.context, dialect, self.committed, &prepared).await {
            // Not failed: the run asks, and goes on once the script is restored.
            return Outcome::Unknown(failure);
        }
        self.say_resumed(&prepared).await;
        let mut result = self.committed.iter().rev().find_map(|commit| commit.result.clone());
        if self.committed.len() < prepared.segments.len() {
            if let Some(outcome) = self.asked_to_stop(&prepared, self.committed.len()) {
                return outcome;
            }
            let mut lease = match self.open(&prepared).await {
                Ok(lease) => lease,
                Err(outcome) => return outcome,
            };
            // What committed segments did to their session (SET, ATTACH...) is not in this one.
            let mut is_strange = !self.committed.is_empty();
            for number in self.committed.len()..prepared.segments.len() {
                if let Some(outcome) = self.asked_to_stop(&prepared, number) {
                    lease.give_back().await;
                    return outcome;
                }
                if std::mem::take(&mut is_strange)
                    && let Err(outcome) = self.prepare_session(&mut lease, &prepared, dialect, number).await
                {
                    lease.give_back().await;
                    return outcome;
                }
                match self.segment(&mut lease, sql, &prepared, number, capabilities).await {
                    Ended::Committed(commit) => {
                        is_strange = commit.evidence == Evidence::Marker;
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

    /// Nothing is begun behind a stop: a fast segment would be done before its server could be told to end it. An attempt that is begun
    /// only to look for what an earlier process did is stopped from its beginning.
    fn asked_to_stop(&self, prepared: &Prepared, number: usize) -> Option<Outcome> {
        self.stopper.asked().map(|reason| stopped(&reason, &self.nothing_of(prepared, number)))
    }

    /// Runs again what earlier segments said to their session.
    async fn prepare_session(
        &self,
        lease: &mut Lease,
        prepared: &Prepared,
        dialect: Dialect,
        segment: usize,
    ) -> Result<(), Outcome> {
        let places = session_statements_before(dialect, &prepared.text, &prepared.statements, &prepared.segments, segment);
        let mut said = say_again(lease, prepared, &places).await;
        if let Err((_, error)) = &said
            && error.kind == ErrorKind::Lost
            && self.renew(lease, error).await
        {
            // What was said to the lost one went with it.
            said = say_again(lease, prepared, &places).await;
        }
        said.map_err(|(place, error)| {
            let number = prepared.statements[place].number;
            let mut told = of_database(&error).effect(self.unsent(Some(prepared), segment));
            told.message = format!("statement {number}, run again for a new session: {}", error.message);
            Outcome::Failed(told)
        })
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

    async fn open(&mut self, prepared: &Prepared) -> Result<Lease, Outcome> {
        let only_reads = prepared.segments.iter().all(|segment| segment.promise == SegmentPromise::ReadOnly);
        let purpose = if only_reads { Purpose::Read } else { Purpose::Write };
        let user = self.user();
        let unsent = self.unsent(Some(prepared), self.committed.len());
        let (sessions, is_callback) = (&self.shared.sessions, self.mailbox.is_none());
        let opened = self.stopper.wait_for(is_callback, async {
            match is_callback {
                false => sessions.get_for_attempt(self.connection, purpose, user).await,
                true => sessions.get(self.connection, purpose, user).await,
            }
        });
        let opened = opened.await.map_err(|reason| stopped(&reason, &unsent))?;
        opened.map_err(|error| Outcome::Failed(of_database(&error).effect(unsent)))
    }

    fn user(&self) -> User {
        let (run, dag) = (self.shared.header.run_id.clone(), self.shared.header.dag_id.clone());
        User { run, dag, instance: self.instance.clone(), try_number: self.try_number }
    }

    /// Tells what is unusual of statements that have ended well.
    async fn judge(&self, records: &[StatementRecord]) {
        let Some(mailbox) = self.mailbox.filter(|_| !records.is_empty() && !self.shared.header.dry_run) else { return };
        for anomaly in self.shared.sessions.monitor().judge(&self.user(), records).await {
            let command = Command::NoticeAnomaly { instance: self.instance.clone(), try_number: self.try_number, anomaly };
            // An engine that is gone has ended the run in this process.
            let _ = mailbox.send(Answer::Command(command)).await;
        }
    }

    /// Tells what is unusual of statements that have just committed, and then that they have.
    async fn tell(&self, commit: SegmentCommit) {
        if let Some(mailbox) = self.mailbox {
            if commit.evidence == Evidence::Acknowledged {
                self.judge(&commit.statements).await;
            }
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
        let is_marked = self.delivery == Delivery::ExactlyOnce && capabilities.markers;
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
            // Its marker keeps the result: when the process dies behind a later segment, this one is not read again.
            SegmentPromise::ReadOnly if sql.result != ResultKind::None && number + 1 < prepared.segments.len() && is_marked => {
                self.once(lease, sql, prepared, number, marked).await
            }
            SegmentPromise::ReadOnly => match self.unit(lease, sql, prepared, number, Wrap::ReadOnly, Promise::ReadOnly).await {
                Ended::Stopped(Outcome::Skipped(_)) if self.delivery == Delivery::ExactlyOnce => {
                    self.once(lease, sql, prepared, number, marked).await
                }
                Ended::Stopped(Outcome::Skipped(_)) => self.unmarked(lease, sql, prepared, number).await,
                ended => ended,
            },
            SegmentPromise::ExactlyOnce if !is_marked => self.unmarked(lease, sql, prepared, number).await,
            SegmentPromise::ExactlyOnce => self.once(lease, sql, prepared, number, marked).await,
        }
    }

    /// Runs a segment with its marker. What it stands on must be durable before it has an effect; what only reads need not wait.
    async fn once(&mut self, lease: &mut Lease, sql: &Sql, prepared: &Prepared, number: usize, marked: Wrap) -> Ended {
        match wait_until_durable(&self.gate, self.stands_on, &mut self.stopper).await {
            Ok(()) => self.unit(lease, sql, prepared, number, marked, Promise::ExactlyOnce).await,
            Err(Outcome::Failed(failure)) => Ended::Stopped(Outcome::Failed(failure.effect(self.unsent(Some(prepared), number)))),
            Err(outcome) => Ended::Stopped(outcome),
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
            match self.mark_only(lease, prepared, number, intent).await {
                Ok(UnitOutcome::Done) => {}
                Ok(UnitOutcome::AlreadyCommitted(row)) if row.digest != prepared.digests[number] => {
                    return Ended::Stopped(Outcome::Failed(self.key_is_taken(prepared, number, &row)));
                }
                // Of a callback, which keeps its key: begun before a crash, or before its link broke.
                Ok(UnitOutcome::AlreadyCommitted(_)) => {
                    let text = format!("segment {} was begun before, and whether it ended is not known", number + 1);
                    return Ended::Stopped(Outcome::Unknown(failure(FailureClass::Interrupted, text).effect("not known")));
                }
                // Whether the intent is there or not: this process knows that nothing was begun, and the next try has another key.
                Err(Outcome::Unknown(failure)) => {
                    return Ended::Stopped(Outcome::Failed(failure.effect(self.unsent(Some(prepared), number))));
                }
                Err(outcome) => return Ended::Stopped(outcome),
            }
        }
        let ended = self.unit(lease, sql, prepared, number, Wrap::Bare, promise).await;
        if marks && matches!(ended, Ended::Committed(_)) {
            let done = self.marked(prepared, number, self.kind);
            let is_marked = match self.mark_only(lease, prepared, number, done).await {
                Ok(UnitOutcome::Done) => true,
                Ok(UnitOutcome::AlreadyCommitted(row)) => row.digest == prepared.digests[number],
                Err(_) => false,
            };
            if !is_marked {
                // The statements took effect, whatever became of the marker: without it a crash before the log is durable asks a
                // person. To call the segment failed would run it again.
                let text = format!("segment {} is done, but its marker could not be written", number + 1);
                self.log.line(self.shared.clock.now(), "WARN", &text).await;
            }
        }
        ended
    }

    /// Writes a marker in a transaction of its own.
    async fn mark_only(
        &mut self,
        lease: &mut Lease,
        prepared: &Prepared,
        number: usize,
        wrap: Wrap,
    ) -> Result<UnitOutcome, Outcome> {
        let unit = Unit { calls: &[], begin: None, wrap, keeps_result: false };
        let mut ended = lease.session().run_unit(&unit, &mut Ignore).await;
        if let Err(UnitError::NotBegun { error }) = &ended
            && self.renew(lease, error).await
        {
            ended = lease.session().run_unit(&unit, &mut Ignore).await;
        }
        lease.has_begun();
        match ended {
            Ok(outcome) => Ok(outcome),
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
        self.is_logged = self.gate.wait(self.started_version).await;
        self.is_logged
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

    /// Runs a unit in a session, until it ends or is given up (`None`). Also says why it was told to stop, if it was.
    async fn run_unit(
        &self,
        lease: &mut Lease,
        unit: &Unit<'_>,
        watching: &mut Watching<'_>,
    ) -> (Option<Result<UnitOutcome, UnitError>>, Option<StopReason>) {
        let canceller = lease.canceller();
        let mut stopper = self.stopper.clone();
        let running = lease.session().run_unit(unit, watching);
        tokio::pin!(running);
        tokio::select! {
            biased;
            ended = &mut running => (Some(ended), None),
            reason = stopper.wait() => (kill(&mut running, &*canceller).await, Some(reason)),
        }
    }

    /// Takes another session where the server had ended this one before anything of the attempt began in it.
    async fn renew(&self, lease: &mut Lease, why: &backstop_connect::Error) -> bool {
        let mut stopper = self.stopper.clone();
        let is_renewed = tokio::select! {
            biased;
            is_renewed = lease.renew() => is_renewed,
            _ = stopper.wait() => false,
        };
        if is_renewed {
            let text =
                format!("the server had ended the session before anything was begun in it ({}): runs in another", why.message);
            self.log.line(self.shared.clock.now(), "INFO", &text).await;
        }
        is_renewed
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
        let keeps_result = sql.result != ResultKind::None;
        let unit = Unit { calls: &calls, begin, wrap, keeps_result };
        let mut watching = Watching::new(self, sql, prepared, places.clone(), lease.ticket());
        let (mut ended, mut reason) = self.run_unit(lease, &unit, &mut watching).await;
        if let Some(Err(UnitError::NotBegun { error })) = &ended
            && reason.is_none()
            && self.renew(lease, error).await
        {
            watching = Watching::new(self, sql, prepared, places.clone(), lease.ticket());
            (ended, reason) = self.run_unit(lease, &unit, &mut watching).await;
        }
        lease.has_begun();
        match ended {
            Some(Ok(UnitOutcome::Done)) => {
                let result = watching.collector.json().map(Arc::from);
                let commit = self.commit(prepared, number, promise, Evidence::Acknowledged, watching.records, result);
                Ended::Committed(commit)
            }
            Some(Ok(UnitOutcome::AlreadyCommitted(row))) if row.digest != prepared.digests[number] => {
                Ended::Stopped(Outcome::Failed(self.key_is_taken(prepared, number, &row)))
            }
            Some(Ok(UnitOutcome::AlreadyCommitted(row))) => Ended::Committed(SegmentCommit {
                digest: row.digest,
                result: row.result.map(Arc::from),
                ..self.commit(prepared, number, promise, Evidence::Marker, Vec::new(), None)
            }),
            Some(Err(UnitError::Writes)) => Ended::Stopped(Outcome::Skipped("it writes".into())),
            Some(Err(error)) => Ended::Stopped(self.unit_failed(error, prepared, number, &watching, reason.as_ref())),
            None => Ended::Stopped(Outcome::Unknown(
                failure(given_up(reason.as_ref()), "the statement did not end after it was cancelled; its session is given up")
                    .statements(watching.records)
                    .effect("not known yet"),
            )),
        }
    }
}

/// Runs statements of a script again, for what they say to their session; the error with the place of its statement.
async fn say_again(lease: &mut Lease, prepared: &Prepared, places: &[usize]) -> Result<(), (usize, backstop_connect::Error)> {
    for place in places {
        let (sql, parameters) = &prepared.calls[*place];
        let call = Call { sql, parameters, copy_data: None };
        lease.session().execute(&call, 0, &mut Ignore).await.map_err(|error| (*place, error))?;
        lease.has_begun();
    }
    Ok(())
}

/// A time-out may be tried again, once it is known what happened; a cancel may not.
fn given_up(reason: Option<&StopReason>) -> FailureClass {
    match reason {
        Some(StopReason::TimedOut(_)) => FailureClass::TimedOut,
        Some(StopReason::Cancelled(_)) | None => FailureClass::Cancelled,
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
