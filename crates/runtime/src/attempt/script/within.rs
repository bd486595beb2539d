//! A script in a transaction that is not its own: it neither begins nor ends one, and nothing of it is committed here.

use super::ending::kill;
use super::prepare::{Prepared, prepare, repeated};
use super::watching::Watching;
use super::{Runner, StopReason, stopped};
use crate::attempt::Outcome;
use crate::attempt::transaction::{NOTHING, Open};
use crate::failure::{FailureExt, failure, of_database};
use crate::places;
use backstop_connect::script::{SegmentPromise, Verb, may_end_transaction_inside};
use backstop_connect::session::Call;
use backstop_connect::{Dialect, Error, ErrorKind};
use backstop_core::event::{Failure, FailureClass};
use backstop_project::definition::Sql;
use std::time::Duration;

/// Why a statement was told to stop.
enum Halt {
    Asked(StopReason),
    OverTime(Duration),
}

impl Runner<'_> {
    /// Runs the statements one after another, each within `limit`.
    pub(crate) async fn run_within(&mut self, open: &mut Open, sql: &Sql, limit: Option<Duration>) -> Outcome {
        let dialect = match self.shared.sessions.dialect(self.connection).await {
            Ok((dialect, _)) => dialect,
            Err(error) => return Outcome::Failed(of_database(&error)),
        };
        let prepared = match prepare(self.shared, sql, self.context, dialect).await {
            Ok(prepared) => prepared,
            Err(failure) => return Outcome::Failed(failure),
        };
        if let Some(refused) = may_run_within(&prepared, sql) {
            return Outcome::Failed(refused);
        }
        let places: Vec<usize> = prepared.segments.iter().flat_map(|segment| repeated(&prepared, segment)).collect();
        let mut watching = Watching::new(self, sql, &prepared, places.clone(), open.lease.ticket());
        for (number, place) in places.iter().enumerate() {
            // A fast statement would be done before its server could be told to end it.
            if let Some(reason) = self.stopper.asked() {
                return stopped(&reason, NOTHING);
            }
            let (text, parameters) = &prepared.calls[*place];
            let copied = prepared.statements[*place].copy_data.clone();
            let call = Call { sql: text, parameters, copy_data: copied.map(|range| &prepared.text[range]) };
            open.may_be_ended_inside |= dialect == Dialect::MySql && may_end_transaction_inside(text);
            if let Err(failure) = self.statement(open, &call, number, limit, &prepared, &mut watching).await {
                return Outcome::Failed(failure);
            }
            // A statement that ended the transaction is told of by who keeps the session; nothing more is run in it.
            if !open.lease.session().transaction_is_open() {
                break;
            }
        }
        let result = watching.collector.json().map(Into::into);
        let records = std::mem::take(&mut watching.records);
        self.judge(&records).await;
        Outcome::Held { statements: records.into(), result }
    }

    async fn statement(
        &mut self,
        open: &mut Open,
        call: &Call<'_>,
        number: usize,
        limit: Option<Duration>,
        prepared: &Prepared,
        watching: &mut Watching<'_>,
    ) -> Result<(), Failure> {
        let canceller = open.lease.canceller();
        let mut halt = None;
        let ended = {
            let running = open.lease.session().execute(call, number, watching);
            tokio::pin!(running);
            let over_time = async {
                match limit {
                    Some(limit) => {
                        tokio::time::sleep(limit).await;
                        limit
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = &mut running => Some(ended),
                why = self.stopper.wait() => {
                    halt = Some(Halt::Asked(why));
                    kill(&mut running, &*canceller).await
                }
                limit = over_time => {
                    halt = Some(Halt::OverTime(limit));
                    kill(&mut running, &*canceller).await
                }
            }
        };
        let error = match ended {
            Some(Ok(_)) => return Ok(()),
            Some(Err(error)) => error,
            None => {
                open.is_lost = true;
                let class = match halt {
                    Some(Halt::OverTime(_) | Halt::Asked(StopReason::TimedOut(_))) => FailureClass::TimedOut,
                    Some(Halt::Asked(StopReason::Cancelled(_))) | None => FailureClass::Cancelled,
                };
                return Err(failure(class, "the statement did not end after it was cancelled; its session is given up"));
            }
        };
        open.note(&error);
        Err(self.told(&error, number, prepared, watching, halt))
    }

    fn told(&self, error: &Error, number: usize, prepared: &Prepared, watching: &Watching<'_>, halt: Option<Halt>) -> Failure {
        let told = of_database(error).statements(watching.records.clone());
        match halt {
            Some(Halt::Asked(reason)) => self.explain(told, error, Some(number), prepared, watching, Some(&reason)),
            None => self.explain(told, error, Some(number), prepared, watching, None),
            Some(Halt::OverTime(limit)) => {
                let mut told = self.explain(told, error, Some(number), prepared, watching, None);
                if error.kind == ErrorKind::Cancelled {
                    told.class = FailureClass::TimedOut;
                    told.message = format!("over the transaction's statement_timeout of {limit:?}; {}", told.message);
                }
                told
            }
        }
    }
}

/// What begins, ends, or escapes the transaction is refused before anything is sent.
fn may_run_within(prepared: &Prepared, sql: &Sql) -> Option<Failure> {
    let refused = |place: usize, what: String| {
        let statement = &prepared.statements[place];
        let at = places::in_source(&sql.script, &prepared.text, statement.line, statement.column, Some(statement.number));
        failure(FailureClass::Final, what)
            .place(Some(at))
            .hint("the group commits once, at its end: remove the statement, or move the task out of the group")
    };
    for (place, statement) in prepared.statements.iter().enumerate() {
        match statement.verb {
            Verb::Begin | Verb::Commit | Verb::Rollback => {
                return Some(refused(place, "the script begins or ends a transaction, and runs in that of its group".to_owned()));
            }
            Verb::Read
            | Verb::Write
            | Verb::Define
            | Verb::ImplicitCommit
            | Verb::NoTransaction
            | Verb::Session
            | Verb::Savepoint => {}
        }
    }
    prepared.segments.iter().find_map(|segment| match &segment.promise {
        SegmentPromise::AtLeastOnce(why) => {
            Some(refused(segment.statements.start, format!("the statement cannot run in the transaction of its group: {why}")))
        }
        SegmentPromise::ExactlyOnce | SegmentPromise::ReadOnly => None,
    })
}
