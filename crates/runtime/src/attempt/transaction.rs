//! Tasks that share a transaction: each runs behind a savepoint on one session, and the task of their group commits for all of them.
//!
//! The session is with whoever works on it, and in between here. An attempt that goes away takes it along, which rolls everything back; so
//! does the end of the process. Nothing here is retried: what becomes of the whole is the core's to decide.

use super::script::{self, Runner, TAKEN_OUT_OF_HAND};
use super::{Attempt, Outcome, Shared, Work, wait_until_durable};
use crate::engine::Answer;
use crate::failure::{FailureExt, failure, of_database};
use crate::monitor::User;
use crate::sessions::{Lease, Purpose};
use backstop_connect::session::{Call, Ignore};
use backstop_connect::{Error, ErrorKind, Isolation, Terms, UnitError, UnitOutcome, script as scripts};
use backstop_core::event::{Evidence, Failure, FailureClass, Promise, SegmentCommit};
use backstop_core::{Command, InstanceId, TaskIx};
use backstop_project::definition::{self, Kind, Sql, Transaction};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Where each task begins. The same name each time: what is behind it is the task that runs.
const SAVEPOINT: &str = "backstop_task";
/// What is told of the effect when all is rolled back.
pub(crate) const NOTHING: &str = "nothing of its transaction was committed";
/// What to do about statements that end the transaction by themselves.
const OUT_OF_THE_GROUP: &str =
    "move statements that commit implicitly (DDL on MySQL and MariaDB, procedures that commit) out of the group";

/// Transactions of a run that no attempt is working on, by the task that will commit them.
#[derive(Default)]
pub(crate) struct Transactions(Mutex<BTreeMap<TaskIx, Open>>);

impl std::fmt::Debug for Transactions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transactions").finish_non_exhaustive()
    }
}

impl Transactions {
    fn put(&self, commit: TaskIx, open: Open) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(commit, open);
    }

    fn take(&self, commit: TaskIx) -> Option<Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&commit)
    }

    /// Rolls back all that nobody works on. A run that shall end after a crash looks for what ran ahead of its log first, and may need the
    /// sessions for that; it commits nothing more.
    pub(crate) fn roll_back_all(&self) {
        let open = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        open.into_values().for_each(|open| drop(tokio::spawn(open.lease.give_back())));
    }

    /// Rolls back what is open, if something is. Returns at once: nobody waits for it but those who want the same rows.
    pub(crate) fn roll_back(&self, commit: TaskIx) {
        if let Some(open) = self.take(commit) {
            tokio::spawn(open.lease.give_back());
        }
    }
}

/// A session with an open transaction.
pub(crate) struct Open {
    pub(crate) lease: Lease,
    /// The transaction cannot go on: it was chosen as the victim of a deadlock, or its link is lost.
    pub(crate) is_lost: bool,
    /// The task sent a statement that may have ended the transaction inside, and begun another.
    pub(crate) may_be_ended_inside: bool,
    /// An error of the task's may have taken back the whole, savepoints included.
    may_be_rolled_back: bool,
}

impl Open {
    /// Takes note of what a statement's error says of the whole.
    pub(crate) fn note(&mut self, error: &Error) {
        self.may_be_rolled_back |= error.may_have_rolled_all_back();
        self.is_lost |= match error.kind {
            ErrorKind::Deadlock | ErrorKind::Serialization | ErrorKind::Lost => true,
            ErrorKind::Config
            | ErrorKind::Unreachable
            | ErrorKind::Refused
            | ErrorKind::LockTimeout
            | ErrorKind::Cancelled
            | ErrorKind::Syntax
            | ErrorKind::Constraint
            | ErrorKind::Permission
            | ErrorKind::Resources
            | ErrorKind::Stopped
            | ErrorKind::Other => false,
        };
    }

    /// Takes back what the task did, and nothing else.
    async fn back_to_the_start(&mut self) -> Back {
        let session = self.lease.session();
        if self.is_lost || !session.is_usable() {
            return Back::Lost;
        }
        match session.rollback_to(SAVEPOINT).await {
            Ok(()) => Back::Done,
            Err(error) if self.may_be_ended_inside && !self.may_be_rolled_back && error.is_of_a_lost_savepoint() => {
                Back::EndedInside
            }
            Err(_) => Back::Lost,
        }
    }

    /// True when the task, which did its work, is not in the transaction any more that it began in.
    async fn was_ended_inside(&mut self) -> bool {
        if !self.lease.session().transaction_is_open() {
            return true;
        }
        if !self.may_be_ended_inside {
            return false;
        }
        let sql = format!("RELEASE SAVEPOINT {SAVEPOINT}");
        let call = Call { sql: &sql, parameters: &[], copy_data: None };
        let released = self.lease.session().execute(&call, 0, &mut Ignore).await;
        released.is_err_and(|error| error.is_of_a_lost_savepoint())
    }
}

/// What became of a task's work that was to be taken back.
#[derive(PartialEq)]
enum Back {
    Done,
    /// With the transaction: the server has rolled it back, or will.
    Lost,
    /// A statement has committed it, or a part of it, with the transaction.
    EndedInside,
}

/// An attempt's part in a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The task that commits.
    pub(crate) commit: TaskIx,
    /// Its id, which is the group's.
    pub(crate) group: InstanceId,
    /// How it is opened.
    pub(crate) transaction: Transaction,
    /// Others have done their work in it already.
    pub(crate) goes_on: bool,
}

/// Runs a task in its transaction.
pub(crate) async fn member(attempt: &mut Attempt, kind: &Kind, part: &Part) -> Outcome {
    match begin(attempt, part).await {
        Ok(open) => *attempt.open() = Some(open),
        Err(outcome) => return outcome,
    }
    let done = match kind {
        Kind::Sql(sql) => Box::pin(run_script(attempt, sql)).await,
        Kind::Check(check) => Box::pin(super::check::run(attempt, check)).await,
        Kind::Branch(_)
        | Kind::Sensor(_)
        | Kind::Shell(_)
        | Kind::Python(_)
        | Kind::Http(_)
        | Kind::Dag(_)
        | Kind::WaitFor(_)
        | Kind::Commit(_)
        | Kind::Empty => {
            Outcome::Failed(failure(FailureClass::Final, format!("a {} task takes no part in a transaction", kind.name())))
        }
    };
    settle(attempt, done, part).await
}

/// The session, at a savepoint behind what others did.
async fn begin(attempt: &mut Attempt, part: &Part) -> Result<Open, Outcome> {
    let transactions = &attempt.shared.transactions;
    let mut open = match (transactions.take(part.commit), part.goes_on) {
        (Some(open), true) => open,
        (None, true) => {
            return Err(Outcome::Lost(
                failure(FailureClass::Interrupted, "the session of the transaction is gone").effect(NOTHING),
            ));
        }
        // Left over from a first try: nothing is in it.
        (Some(left), false) => {
            left.lease.give_back().await;
            open(attempt, part).await?
        }
        (None, false) => open(attempt, part).await?,
    };
    open.lease.work_for(attempt.user());
    (open.may_be_ended_inside, open.may_be_rolled_back) = (false, false);
    if let Err(error) = open.lease.session().savepoint(SAVEPOINT).await {
        return Err(Outcome::Lost(of_database(&error).effect(NOTHING)));
    }
    Ok(open)
}

async fn open(attempt: &mut Attempt, part: &Part) -> Result<Open, Outcome> {
    let shared = attempt.shared.clone();
    let Some(connection) = attempt.connection.clone() else {
        return Err(Outcome::Failed(failure(FailureClass::Final, "this task has no connection").effect("nothing was sent")));
    };
    let failed = |error: &backstop_connect::Error| Outcome::Failed(of_database(error).effect("nothing was sent"));
    let (dialect, capabilities) = shared.sessions.dialect(&connection).await.map_err(|error| failed(&error))?;
    if !(capabilities.transactions && capabilities.savepoints && capabilities.markers) {
        let told = failure(FailureClass::Final, format!("the database of connection `{connection}` has no transactions"));
        return Err(Outcome::Failed(told.effect("nothing was sent").hint("remove `transaction: true` from the group")));
    }
    let terms = terms(dialect, &part.transaction).map_err(Outcome::Failed)?;
    // Under the group's name on the server, whichever task is at work.
    let (run, dag) = (shared.header.run_id.clone(), shared.header.dag_id.clone());
    let user = User { run, dag, instance: part.group.clone(), try_number: 1 };
    let name = user.name();
    let lease = attempt.stopper.wait_for(false, shared.sessions.get_for_attempt(&connection, Purpose::Write, user)).await;
    let lease = lease.map_err(|reason| script::stopped(&reason, "nothing was sent"))?;
    let mut lease = lease.map_err(|error| failed(&error))?;
    let mut stopper = attempt.stopper.clone();
    if shared.was_interrupted || attempt.try_number > 1 {
        // What an earlier process or try left there can commit no more, but holds locks.
        let ours = shared.sessions.monitor().sessions_in_use(&shared.project.root, &connection);
        // Where it is not allowed, they end by themselves, sooner or later.
        let _ = lease.session().end_leftovers(&name, &ours).await;
    }
    let table = script::marker_table(&shared, &connection);
    let markers = (!shared.header.dry_run).then_some(&table);
    let opened = loop {
        let canceller = lease.canceller();
        let opened = tokio::select! {
            biased;
            opened = lease.session().open_transaction(&terms, markers) => opened,
            reason = stopper.wait() => {
                // Nothing is in it: the session is dropped while the server is told to stop.
                let _ = tokio::time::timeout(super::query::CANCEL_MAX, canceller.cancel()).await;
                return Err(script::stopped(&reason, "nothing was sent"));
            }
        };
        // A session that its server ended while it lay idle: there is nothing in the transaction yet.
        let is_renewed = opened.is_err() && !lease.session().is_usable() && lease.renew().await;
        if !is_renewed {
            break opened;
        }
    };
    match opened {
        Ok(()) => {
            lease.has_begun();
            Ok(Open { lease, is_lost: false, may_be_ended_inside: false, may_be_rolled_back: false })
        }
        Err(error) => {
            lease.give_back().await;
            Err(Outcome::Failed(of_unit(error)))
        }
    }
}

fn terms(dialect: backstop_connect::Dialect, transaction: &Transaction) -> Result<Terms, Failure> {
    let isolation = transaction.isolation.map(|isolation| match isolation {
        definition::Isolation::ReadCommitted => Isolation::ReadCommitted,
        definition::Isolation::RepeatableRead => Isolation::RepeatableRead,
        definition::Isolation::Serializable => Isolation::Serializable,
    });
    if dialect == backstop_connect::Dialect::Sqlite && isolation.is_some_and(|isolation| isolation != Isolation::Serializable) {
        return Err(failure(FailureClass::Final, "SQLite's transactions are serializable, and nothing else")
            .effect("nothing was sent")
            .hint("remove `isolation` from the group, or set it to `serializable`"));
    }
    Ok(Terms { isolation, lock_timeout: transaction.lock_timeout, branch: None })
}

async fn run_script(attempt: &mut Attempt, sql: &Sql) -> Outcome {
    let limit = attempt.part.as_ref().and_then(|part| part.transaction.statement_timeout);
    let Some(mut open) = attempt.open().take() else {
        return Outcome::Failed(failure(FailureClass::Final, "no transaction is open"));
    };
    let connection = attempt.connection.clone().unwrap_or_default();
    let kind = attempt.work.marker_kind();
    let mut runner = Runner {
        shared: &attempt.shared,
        instance: &attempt.instance,
        try_number: attempt.try_number,
        kind: &kind,
        connection: &connection,
        delivery: attempt.delivery,
        context: &attempt.context,
        committed: &attempt.committed,
        log: &attempt.log,
        mailbox: matches!(attempt.work, Work::Body(_)).then_some(&attempt.mailbox),
        stopper: attempt.stopper.clone(),
        gate: attempt.gate.clone(),
        started_version: attempt.started_version,
        stands_on: attempt.stands_on,
        is_logged: false,
    };
    let done = runner.run_within(&mut open, sql, limit).await;
    *attempt.open() = Some(open);
    done
}

/// Keeps the session for who comes next, behind what the task did or without it. What cannot go on is rolled back here.
async fn settle(attempt: &mut Attempt, done: Outcome, part: &Part) -> Outcome {
    let Some(mut open) = attempt.open().take() else {
        return Outcome::Lost(failure(FailureClass::Interrupted, "the session of the transaction is gone").effect(NOTHING));
    };
    let transactions = &attempt.shared.transactions;
    let failed = match done {
        held @ (Outcome::Held { .. } | Outcome::Succeeded { .. }) if open.was_ended_inside().await => {
            drop(held);
            open.lease.give_back().await;
            // Nothing that is done now could be taken back.
            return Outcome::Lost(
                failure(FailureClass::Final, "a statement has committed the transaction by itself")
                    .effect("what the group's tasks did so far has taken effect, without a marker")
                    .hint(OUT_OF_THE_GROUP),
            );
        }
        Outcome::Held { statements, result } => {
            transactions.put(part.commit, open);
            return Outcome::Held { statements, result };
        }
        Outcome::Succeeded { result, follow: _ } => {
            transactions.put(part.commit, open);
            return Outcome::Held { statements: Arc::default(), result };
        }
        Outcome::Failed(failure) | Outcome::Unknown(failure) | Outcome::Lost(failure) => failure,
        Outcome::Skipped(_) | Outcome::Deferred(_) | Outcome::Expanded(_) => {
            failure(FailureClass::Final, "a task of a transaction ends well, or fails")
        }
    };
    // Of one that was ended by a statement, more is to be told than that it failed.
    let back = match open.may_be_ended_inside || (part.goes_on && failed.class != FailureClass::Cancelled) {
        true => open.back_to_the_start().await,
        false => Back::Lost,
    };
    if back == Back::EndedInside {
        open.lease.give_back().await;
        let failed = Failure { class: FailureClass::Final, ..failed };
        return Outcome::Lost(
            failed.effect(format!("what the group's tasks did so far {TAKEN_OUT_OF_HAND}")).hint(OUT_OF_THE_GROUP),
        );
    }
    // After a cancel nothing goes on with it, and whoever is still to be looked for may want its session.
    if failed.class == FailureClass::Cancelled {
        open.lease.give_back().await;
        return Outcome::Lost(failed.effect(NOTHING));
    }
    // Alone in it, there is nothing to be kept: its next try opens another.
    if !part.goes_on && !open.is_lost {
        open.lease.give_back().await;
        return Outcome::Failed(failed.effect(NOTHING));
    }
    if back == Back::Done {
        transactions.put(part.commit, open);
        return Outcome::Failed(failed.effect("its own work was rolled back, and nothing of its transaction is committed"));
    }
    open.lease.give_back().await;
    Outcome::Lost(failed.effect(NOTHING))
}

/// Commits what the tasks of a group did, with the one marker of all. It is sent only when the log durably has all that led to it, so that
/// after a crash the log says whether there is something to be looked for.
pub(crate) async fn commit(attempt: &mut Attempt) -> Outcome {
    let shared = attempt.shared.clone();
    let place = shared.definition.dag.index(attempt.instance.task.as_str());
    let found = place.and_then(|place| shared.transactions.take(place));
    let durable = wait_until_durable(&attempt.gate, attempt.started_version, &mut attempt.stopper).await;
    let may_begin = durable.and_then(|()| match attempt.stopper.asked() {
        Some(reason) => Err(script::stopped(&reason, "nothing was sent")),
        None => Ok(()),
    });
    if let Err(outcome) = may_begin {
        if let Some(open) = found {
            open.lease.give_back().await;
        }
        return lost(outcome);
    }
    let Some(mut open) = found else {
        return Outcome::Lost(failure(FailureClass::Interrupted, "the session of the transaction is gone").effect(NOTHING));
    };
    if shared.header.dry_run {
        open.lease.give_back().await;
        let text = "dry run: the transaction is rolled back";
        attempt.log.line(shared.clock.now(), "INFO", text).await;
        shared.watcher.note(Some(&attempt.instance), text);
        return Outcome::done();
    }
    open.lease.work_for(attempt.user());
    let connection = attempt.connection.clone().unwrap_or_default();
    let table = script::marker_table(&shared, &connection);
    let key = script::marker_key(&shared, &attempt.instance, attempt.try_number, 0, &attempt.work.marker_kind());
    let digest = digest(&shared, &attempt.instance);
    let canceller = open.lease.canceller();
    let ended = {
        let committing = open.lease.session().commit_marked(&table, &key, &digest);
        tokio::pin!(committing);
        tokio::select! {
            biased;
            ended = &mut committing => Some(ended),
            _ = attempt.stopper.wait() => script::kill(&mut committing, &*canceller).await,
        }
    };
    let evidence = match ended {
        Some(Ok(UnitOutcome::Done)) => Evidence::Acknowledged,
        Some(Ok(UnitOutcome::AlreadyCommitted(row))) if row.digest == digest => Evidence::Marker,
        Some(Ok(UnitOutcome::AlreadyCommitted(row))) => {
            open.lease.give_back().await;
            let message = script::another_commit(&shared.header.run_id, &attempt.instance, 0, &row);
            return Outcome::Lost(failure(FailureClass::Final, message).effect(NOTHING));
        }
        Some(Err(UnitError::Unknown { error })) => {
            return Outcome::Unknown(of_database(&error).effect("whether the transaction was committed is not known yet"));
        }
        Some(Err(error)) => {
            open.lease.give_back().await;
            return Outcome::Lost(of_unit(error).effect(NOTHING));
        }
        None => {
            return Outcome::Unknown(
                failure(FailureClass::Cancelled, "the commit did not end after it was cancelled; its session is given up")
                    .effect("whether the transaction was committed is not known yet"),
            );
        }
    };
    open.lease.give_back().await;
    let commit = commit_of(digest, evidence);
    let command =
        Command::CommitSegment { instance: attempt.instance.clone(), try_number: attempt.try_number, commit: Arc::new(commit) };
    // An engine that is gone is told by the marker.
    let _ = attempt.mailbox.send(Answer::Command(command)).await;
    Outcome::done()
}

/// The one segment of a transaction.
pub(crate) fn commit_of(digest: String, evidence: Evidence) -> SegmentCommit {
    SegmentCommit { segment: 0, digest, promise: Promise::ExactlyOnce, evidence, statements: Vec::new(), result: None }
}

/// What the marker of a transaction says that it is of: this run, and no other of the same name.
pub(crate) fn digest(shared: &Shared, group: &InstanceId) -> String {
    let header = &shared.header;
    // Not of the files: a commit in doubt stays the same one when the run goes on with others.
    let text = format!("{}\n{}\n{}\n{group}", header.run_id, header.dag_id, header.queued_at);
    scripts::digest(std::iter::once((text.as_str(), &[][..], None)))
}

/// Of an attempt that never came to its commit.
fn lost(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Failed(failure) => Outcome::Lost(failure.effect(NOTHING)),
        other => other,
    }
}

fn of_unit(error: UnitError) -> Failure {
    match error {
        UnitError::NotBegun { error }
        | UnitError::RolledBack { error, .. }
        | UnitError::Partial { error, .. }
        | UnitError::EndedInside { error, .. }
        | UnitError::Unknown { error } => of_database(&error),
        UnitError::NoMarkerTable { ddl, error } => {
            of_database(&error).hint(format!("have this run once by somebody who may:\n{ddl}"))
        }
        UnitError::Fenced => failure(FailureClass::Interrupted, "another process took this commit over and fenced it off"),
        UnitError::Writes => failure(FailureClass::Permanent, "it writes"),
    }
    .effect("nothing was committed")
}
