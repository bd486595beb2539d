//! Removes doubt: after a crash or a lost connection, finds out from the database what an attempt committed, and makes sure that it
//! can commit no more. Nothing is guessed: without evidence a person decides.

use crate::attempt::script::{Prepared, another_commit, check_prefix, intent_kind, marker_key, marker_table, prepare};
use crate::attempt::{Shared, Stopper, http_is_safe, other, template_context, transaction};
use crate::engine::Answer;
use crate::monitor::User;
use crate::others::child_id;
use crate::sessions::{Lease, Purpose};
use backstop_connect::script::{SegmentEnd, SegmentPromise};
use backstop_connect::{Error, ErrorKind, MarkerRow, Probe};
use backstop_core::dag::Delivery;
use backstop_core::event::{Evidence, Promise, SegmentCommit};
use backstop_core::{Command, InstanceId};
use backstop_project::definition::{Body, BranchBy, Kind, SensorBy, Sql};
use serde_json::Value as Json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long one probe waits for a transaction that holds the key.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// How often a server that does not answer, or a transaction that does not end, is asked again before a person is.
const ROUNDS_MAX: u32 = 60;
/// How far beyond the known segments a script is fenced that cannot be read any more.
const SEGMENTS_BLIND: usize = 16;
/// The longest wait between two rounds.
const ROUND_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often it is looked whether what was told to end has ended, and how long that waits between two looks.
const ENDING_LOOKS: u32 = 20;
const ENDING_EVERY: Duration = Duration::from_millis(50);
/// How often a server is asked to end what is left of an attempt that needs no marker to be told.
const ENDING_ROUNDS_MAX: u32 = 8;

/// Whether an attempt of a task may leave a statement on a database's server.
pub(crate) fn asks_a_server(body: &Body) -> bool {
    let by_kind = match &body.kind {
        Kind::Sql(_) | Kind::Check(_) | Kind::Commit(_) => true,
        Kind::Branch(branch) => matches!(branch.decide, BranchBy::Sql { .. }),
        Kind::Sensor(sensor) => matches!(sensor.look, SensorBy::Sql { .. }),
        Kind::Dag(_) | Kind::WaitFor(_) | Kind::Empty | Kind::Http(_) | Kind::Shell(_) | Kind::Python(_) => false,
    };
    by_kind && body.connection.is_some()
}

/// An attempt in doubt.
pub(crate) struct Doubt {
    pub(crate) shared: Arc<Shared>,
    pub(crate) instance: InstanceId,
    pub(crate) try_number: u32,
    /// The body's place in the definition.
    pub(crate) body: usize,
    /// True when the attempt was finding the items of a mapped task.
    pub(crate) expands: bool,
    pub(crate) item: Option<Json>,
    /// The instance's try number when it was last cleared.
    pub(crate) tries_before: u32,
    /// What is known to be committed, in order.
    pub(crate) committed: Vec<Arc<SegmentCommit>>,
    pub(crate) mailbox: mpsc::Sender<Answer>,
    pub(crate) stopper: Stopper,
}

/// What is known at the end.
enum Verdict {
    Known(Evidence),
    Undecided(String),
    /// The database or the script could not be asked: whoever resumes the run asks again.
    Unanswered(String),
}

impl Doubt {
    /// Finds out, and answers the engine.
    pub(crate) async fn resolve(self) {
        let shared = self.shared.clone();
        let body = &shared.definition.bodies[self.body];
        let answer = match self.verdict(body).await {
            Verdict::Known(evidence) => {
                Answer::Command(Command::Resolve { instance: self.instance.clone(), try_number: self.try_number, evidence })
            }
            Verdict::Undecided(why) => Answer::Undecided { instance: self.instance.clone(), why, may_be_told_later: false },
            Verdict::Unanswered(why) => Answer::Undecided { instance: self.instance.clone(), why, may_be_told_later: true },
        };
        // An engine that is gone has ended the run in this process.
        let _ = self.mailbox.send(answer).await;
    }

    async fn verdict(&self, body: &Body) -> Verdict {
        if self.expands || self.shared.header.dry_run {
            return Verdict::Known(Evidence::ReadOnly);
        }
        let verdict = self.find_out(body).await;
        let was_asked = match &verdict {
            Verdict::Known(Evidence::ReadOnly | Evidence::Allowed) => false,
            Verdict::Known(_) | Verdict::Undecided(_) | Verdict::Unanswered(_) => true,
        };
        if let Some(connection) = body.connection.as_deref().filter(|_| !was_asked && asks_a_server(body)) {
            self.end_what_is_left(connection).await;
        }
        verdict
    }

    async fn find_out(&self, body: &Body) -> Verdict {
        let by_author = |what: &str| match body.delivery {
            Delivery::AtLeastOnce => Verdict::Known(Evidence::Allowed),
            Delivery::ExactlyOnce => {
                Verdict::Undecided(format!("{what} leaves no marker, so nobody can know whether it did its work"))
            }
        };
        match &body.kind {
            Kind::Sql(_) if body.delivery == Delivery::AtLeastOnce => Verdict::Known(Evidence::Allowed),
            Kind::Sql(sql) => self.script(body, sql).await,
            Kind::Commit(_) => self.group(body).await,
            Kind::Dag(_) => self.child().await,
            Kind::Check(_) | Kind::WaitFor(_) | Kind::Empty => Verdict::Known(Evidence::ReadOnly),
            Kind::Branch(branch) => match &branch.decide {
                BranchBy::Sql { .. } | BranchBy::When(_) => Verdict::Known(Evidence::ReadOnly),
                BranchBy::Python(_) => by_author("a Python branch"),
            },
            Kind::Sensor(sensor) => match &sensor.look {
                SensorBy::Sql { .. } | SensorBy::File(_) | SensorBy::Time(_) => Verdict::Known(Evidence::ReadOnly),
                SensorBy::Http(http) if http_is_safe(&http.method) => Verdict::Known(Evidence::ReadOnly),
                SensorBy::Http(_) => by_author("this request"),
            },
            Kind::Http(http) if http_is_safe(&http.method) => Verdict::Known(Evidence::ReadOnly),
            Kind::Http(_) => by_author("this request"),
            Kind::Shell(_) => by_author("a shell command"),
            Kind::Python(_) => by_author("a Python task"),
        }
    }

    /// Whether the task made the run that it was about to make. Its id tells, and the next attempt would take the same.
    async fn child(&self) -> Verdict {
        let Some(others) = &self.shared.others else {
            return Verdict::Unanswered("nothing is known here of other DAGs' runs: let the service drive this one".into());
        };
        let number = self.committed.len();
        let id = child_id(&self.shared.header.run_id, &self.instance, self.tries_before, number);
        match others.store().run(&id).await {
            Ok(Some(_)) => {
                self.send(other::commit(&id, number, Evidence::Marker)).await;
                Verdict::Known(Evidence::Marker)
            }
            Ok(None) => Verdict::Known(Evidence::ReadOnly),
            Err(error) => Verdict::Unanswered(error.to_string()),
        }
    }

    /// Whether the transaction of a group was committed: it has one marker.
    async fn group(&self, body: &Body) -> Verdict {
        let Some(connection) = &body.connection else {
            return Verdict::Unanswered("its group has no connection any more".into());
        };
        let digest = transaction::digest(&self.shared, &self.instance);
        let mut stopper = self.stopper.clone();
        let mut last = String::new();
        for round in 0..ROUNDS_MAX {
            match self.probe(connection, 0, "forward").await {
                Ok(Some(Probe::Committed(row))) if row.digest != digest => return self.is_another(0, &row),
                Ok(Some(Probe::Committed(row))) => {
                    self.tell(0, row, Promise::ExactlyOnce).await;
                    return Verdict::Known(Evidence::Marker);
                }
                Ok(Some(Probe::Fenced) | None) => return Verdict::Known(Evidence::Tombstone),
                Ok(Some(Probe::StillRunning)) => last = still_running(),
                Err(why) => last = why,
            }
            if !self.asks_again(round, &last, &mut stopper).await {
                break;
            }
        }
        Verdict::Unanswered(last)
    }

    /// Waits before it asks again. A cancelled run still wants to know, but does not wait for long.
    async fn asks_again(&self, round: u32, last: &str, stopper: &mut Stopper) -> bool {
        self.shared.watcher.note(Some(&self.instance), &format!("in doubt: {last}; asks again"));
        let wait = Duration::from_millis(100).saturating_mul(1 << round.min(10)).min(ROUND_WAIT_MAX);
        tokio::select! {
            biased;
            () = tokio::time::sleep(wait) => true,
            _ = stopper.wait(), if round > 3 => false,
        }
    }

    /// Asks again while the server cannot answer, less and less often.
    async fn script(&self, body: &Body, sql: &Sql) -> Verdict {
        let Some(connection) = &body.connection else {
            return Verdict::Unanswered("its task has no connection any more".into());
        };
        let context = template_context(&self.shared, Some(&self.instance), self.try_number, self.item.clone(), None);
        let mut committed = self.committed.len();
        let mut stopper = self.stopper.clone();
        let mut last = String::new();
        for round in 0..ROUNDS_MAX {
            let dialect = match self.shared.sessions.dialect(connection).await {
                Ok((dialect, _)) => dialect,
                Err(error) => return Verdict::Unanswered(error.to_string()),
            };
            let prepared = prepare(&self.shared, sql, &context, dialect).await;
            if let Ok(prepared) = &prepared
                && let Err(failure) = check_prefix(&self.shared, sql, &context, dialect, &self.committed, prepared).await
            {
                let hint = failure.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                return Verdict::Unanswered(format!("{}{hint}", failure.message));
            }
            let probed = match prepared {
                Ok(prepared) => self.probe_on(connection, &prepared, &mut committed).await,
                Err(failure) => self.probe_blindly(connection, &mut committed, &failure.message).await,
            };
            match probed {
                Ok(verdict) => return verdict,
                Err(why) => last = why,
            }
            if !self.asks_again(round, &last, &mut stopper).await {
                break;
            }
        }
        Verdict::Unanswered(last)
    }

    /// Walks over the segments that are not known to be committed. `Err` means: ask again later.
    ///
    /// A segment that only reads, or that the script rolls back, leaves no marker: whether it was run shows in the segments behind it.
    async fn probe_on(&self, connection: &str, prepared: &Prepared, committed: &mut usize) -> Result<Verdict, String> {
        // What is run without a marker shows nothing: it only reads, or its script rolls it back.
        let mut evidence = Evidence::ReadOnly;
        let mut number = *committed;
        while number < prepared.segments.len() {
            let segment = &prepared.segments[number];
            match &segment.promise {
                _ if segment.end == SegmentEnd::Rollback => {}
                SegmentPromise::AtLeastOnce(why) => match self.probe(connection, number, "forward").await? {
                    Some(Probe::Committed(row)) if row.digest != prepared.digests[number] => {
                        return Ok(self.is_another(number, &row));
                    }
                    Some(Probe::Committed(row)) => {
                        self.tell_silent(prepared, committed, number).await;
                        self.tell(number, row, Promise::AtLeastOnce(why.clone())).await;
                        *committed = number + 1;
                        evidence = Evidence::Marker;
                    }
                    Some(Probe::Fenced) | None => match self.probe(connection, number, &intent_kind("forward")).await? {
                        Some(Probe::Committed(_)) if self.went_on_behind(connection, prepared, number).await? => {
                            self.tell_silent(prepared, committed, number).await;
                            self.tell_ended(prepared, number, Promise::AtLeastOnce(why.clone()), Evidence::Marker).await;
                            *committed = number + 1;
                            evidence = Evidence::Marker;
                        }
                        Some(Probe::Committed(_)) => {
                            self.tell_silent(prepared, committed, number).await;
                            return Ok(Verdict::Undecided(format!(
                                "segment {} was begun and is not known to have ended, and it has no transaction: {why}",
                                number + 1
                            )));
                        }
                        Some(Probe::Fenced) | None => {
                            evidence = Evidence::Tombstone;
                            break;
                        }
                        Some(Probe::StillRunning) => return Err(still_running()),
                    },
                    Some(Probe::StillRunning) => return Err(still_running()),
                },
                promise @ (SegmentPromise::ExactlyOnce | SegmentPromise::ReadOnly) => {
                    match self.probe(connection, number, "forward").await? {
                        Some(Probe::Committed(row)) if row.digest != prepared.digests[number] => {
                            return Ok(self.is_another(number, &row));
                        }
                        Some(Probe::Committed(row)) => {
                            self.tell_silent(prepared, committed, number).await;
                            self.tell(number, row, Promise::ExactlyOnce).await;
                            *committed = number + 1;
                            evidence = Evidence::Marker;
                        }
                        Some(Probe::Fenced) if *promise == SegmentPromise::ReadOnly => {}
                        Some(Probe::Fenced) => {
                            evidence = Evidence::Tombstone;
                            break;
                        }
                        // Without a marker table nothing marked can have committed.
                        None => {
                            evidence = Evidence::ReadOnly;
                            break;
                        }
                        Some(Probe::StillRunning) => return Err(still_running()),
                    }
                }
            }
            number += 1;
        }
        Ok(Verdict::Known(evidence))
    }

    /// A marker of other statements proves nothing of these: a person has to say what it is, or restore the script that it is of.
    fn is_another(&self, number: usize, row: &MarkerRow) -> Verdict {
        let what = another_commit(&self.shared.header.run_id, &self.instance, number, row);
        Verdict::Unanswered(format!(
            "{what}; either the script has changed since (restore it and resume the run), or another store used this run id on the \
             same database (look into the marker table)"
        ))
    }

    /// What left no marker and was run all the same, because the segment `before` was begun. Their results are not lost: a segment
    /// with a result is marked unless it is the last.
    async fn tell_silent(&self, prepared: &Prepared, committed: &mut usize, before: usize) {
        while *committed < before {
            self.tell_ended(prepared, *committed, Promise::ReadOnly, Evidence::ReadOnly).await;
            *committed += 1;
        }
    }

    async fn tell_ended(&self, prepared: &Prepared, number: usize, promise: Promise, evidence: Evidence) {
        let commit = SegmentCommit {
            segment: u32::try_from(number).unwrap_or(u32::MAX),
            digest: prepared.digests[number].clone(),
            promise,
            evidence,
            statements: Vec::new(),
            result: None,
        };
        self.send(commit).await;
    }

    /// True when a segment behind this one was begun: then this one has ended, although its closing marker is not there (it is written
    /// behind the statements, and the attempt goes on without it).
    async fn went_on_behind(&self, connection: &str, prepared: &Prepared, number: usize) -> Result<bool, String> {
        for later in number + 1..prepared.segments.len() {
            let segment = &prepared.segments[later];
            if segment.end == SegmentEnd::Rollback {
                continue;
            }
            let kinds: &[String] = match &segment.promise {
                SegmentPromise::AtLeastOnce(_) => &["forward".to_owned(), intent_kind("forward")],
                SegmentPromise::ExactlyOnce | SegmentPromise::ReadOnly => &["forward".to_owned()],
            };
            for kind in kinds {
                match self.probe(connection, later, kind).await? {
                    Some(Probe::Committed(_) | Probe::StillRunning) => return Ok(true),
                    Some(Probe::Fenced) | None => {}
                }
            }
            if segment.promise != SegmentPromise::ReadOnly {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// For a script that cannot be rendered or cut now, so that nobody knows how many segments it has: it may have been another one
    /// when an earlier process ran it. Fences what can be begun next, and a good way beyond.
    async fn probe_blindly(&self, connection: &str, committed: &mut usize, why: &str) -> Result<Verdict, String> {
        let ask =
            |number: usize| format!("segment {} was begun, and what the script was then is not known now: {why}", number + 1);
        for number in *committed..*committed + SEGMENTS_BLIND {
            match self.probe(connection, number, "forward").await? {
                Some(Probe::Committed(row)) if number == *committed => {
                    self.tell(number, row, Promise::ExactlyOnce).await;
                    *committed += 1;
                }
                Some(Probe::Committed(_)) => return Ok(Verdict::Undecided(ask(number))),
                Some(Probe::Fenced) => {}
                None => return Ok(Verdict::Known(Evidence::ReadOnly)),
                Some(Probe::StillRunning) => return Err(still_running()),
            }
            match self.probe(connection, number, &intent_kind("forward")).await? {
                Some(Probe::Committed(_)) if number >= *committed => return Ok(Verdict::Undecided(ask(number))),
                Some(Probe::Committed(_) | Probe::Fenced) | None => {}
                Some(Probe::StillRunning) => return Err(still_running()),
            }
        }
        Ok(Verdict::Known(Evidence::Tombstone))
    }

    /// `Ok(None)` when there is no marker table and none may be made: then no marked unit can ever have committed, or commit.
    async fn probe(&self, connection: &str, number: usize, kind: &str) -> Result<Option<Probe>, String> {
        let user = self.user();
        let name = user.name();
        let mut lease = self.shared.sessions.get(connection, Purpose::Ask, user).await.map_err(|error| error.to_string())?;
        let table = marker_table(&self.shared, connection);
        let key = marker_key(&self.shared, &self.instance, self.try_number, number, kind);
        let probed = lease.session().probe(&table, &key, PROBE_WAIT).await;
        let ended = match probed {
            Ok(Probe::Fenced | Probe::StillRunning) => self.end_leftovers(connection, &mut lease, &name).await,
            Ok(Probe::Committed(_)) | Err(_) => Ok(()),
        };
        lease.give_back().await;
        if matches!(probed, Ok(Probe::Fenced)) {
            ended?;
        }
        match probed {
            Ok(probe) => Ok(Some(probe)),
            Err(Error { kind: ErrorKind::Permission, .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What the lost attempt still does can commit no more, or not to anybody's knowledge, but holds locks that the next one waits for, and
    /// the slots of its pool. `Err` when it has not ended by the end of this.
    async fn end_leftovers(&self, connection: &str, lease: &mut Lease, name: &str) -> Result<(), String> {
        let ours = self.shared.sessions.monitor().sessions_in_use(&self.shared.project.root, connection);
        // Where it is not allowed, they end by themselves, sooner or later.
        if let Ok(ended @ 1..) = lease.session().end_leftovers(name, &ours).await {
            self.shared
                .watcher
                .note(Some(&self.instance), &format!("ended {ended} session(s) that the lost attempt left on the server"));
        }
        for _ in 0..ENDING_LOOKS {
            match lease.session().leftovers(name, &ours).await {
                Ok(Some(1..)) => tokio::time::sleep(ENDING_EVERY).await,
                Ok(Some(0) | None) => return Ok(()),
                Err(Error { kind: ErrorKind::Permission, .. }) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("what it began goes on on the server, though it was told to end".into())
    }

    /// For what needs no marker to be told: ends what is left of it on its server, so that the next try does not run beside it. A server that
    /// is away for long is not waited for: what it did has ended, or nobody can end it.
    async fn end_what_is_left(&self, connection: &str) {
        let user = self.user();
        let name = user.name();
        let mut stopper = self.stopper.clone();
        for round in 0..ENDING_ROUNDS_MAX {
            let ended = match self.shared.sessions.get(connection, Purpose::Ask, user.clone()).await {
                Ok(mut lease) => {
                    let ended = self.end_leftovers(connection, &mut lease, &name).await;
                    lease.give_back().await;
                    ended
                }
                Err(error) => Err(error.to_string()),
            };
            let Err(why) = ended else { return };
            self.shared.watcher.note(Some(&self.instance), &format!("in doubt: {why}; asks again"));
            let wait = Duration::from_millis(100).saturating_mul(1 << round.min(10)).min(ROUND_WAIT_MAX);
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                _ = stopper.wait() => return,
            }
        }
    }

    fn user(&self) -> User {
        let (run, dag) = (self.shared.header.run_id.clone(), self.shared.header.dag_id.clone());
        User { run, dag, instance: self.instance.clone(), try_number: self.try_number }
    }

    async fn tell(&self, number: usize, row: MarkerRow, promise: Promise) {
        let commit = SegmentCommit {
            segment: u32::try_from(number).unwrap_or(u32::MAX),
            digest: row.digest,
            promise,
            evidence: Evidence::Marker,
            statements: Vec::new(),
            result: row.result.map(Arc::from),
        };
        self.send(commit).await;
    }

    async fn send(&self, commit: SegmentCommit) {
        let command =
            Command::CommitSegment { instance: self.instance.clone(), try_number: self.try_number, commit: Arc::new(commit) };
        // As in `resolve`.
        let _ = self.mailbox.send(Answer::Command(command)).await;
    }
}

fn still_running() -> String {
    "the old transaction is still open on the server".into()
}
