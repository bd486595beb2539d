//! Reading what the server answers: message by message, up to the end of each statement and of each group.

use super::{Failure, PostgresSession, Status};
use crate::error::{Error, ErrorKind};
use crate::postgres::connect::{self, unexpected};
use crate::postgres::error::{ServerMessage, lost};
use crate::postgres::value::{Decoding, column, decode};
use crate::session::{Ignore, Observer, StatementOutcome};
use crate::value::{Column, Value};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message, RowDescriptionBody};
use std::time::Duration;

impl PostgresSession {
    /// The next message of an answer; notices go to the observer on the way.
    pub(super) async fn receive(&mut self, place: usize, observer: &mut dyn Observer) -> Result<Message, Failure> {
        loop {
            let message = self.link.next().await.map_err(|source| self.link_failed(source))?;
            match message {
                Message::NoticeResponse(body) => observer.notice(place, &ServerMessage::read(body.fields()).notice()),
                Message::NotificationResponse(_) | Message::ParameterStatus(_) => {}
                Message::ErrorResponse(body) => {
                    let said = ServerMessage::read(body.fields());
                    let is_fatal = said.is_fatal();
                    let error = said.into_error(&self.operation);
                    self.is_lost |= is_fatal;
                    return Err(if is_fatal { Failure::Lost(error) } else { Failure::Refused(error) });
                }
                other => {
                    self.has_answered = true;
                    return Ok(other);
                }
            }
        }
    }

    pub(super) fn link_failed(&mut self, source: std::io::Error) -> Failure {
        self.is_lost = true;
        Failure::Lost(lost(&self.operation, source))
    }

    pub(super) fn out_of_step(&mut self) -> Failure {
        self.is_lost = true;
        Failure::Lost(unexpected(&self.operation))
    }

    /// The answer to one of our own statements: its command tag.
    pub(in crate::postgres) async fn read_command(&mut self) -> Result<String, Failure> {
        loop {
            match self.receive(0, &mut Ignore).await? {
                Message::ParseComplete | Message::BindComplete | Message::DataRow(_) => {}
                Message::CommandComplete(body) => return Ok(body.tag().unwrap_or_default().to_owned()),
                _ => return Err(self.out_of_step()),
            }
        }
    }

    /// The answer to a statement of the user, up to its CommandComplete.
    pub(in crate::postgres) async fn read_answer(
        &mut self,
        place: usize,
        observer: &mut dyn Observer,
    ) -> Result<StatementOutcome, Failure> {
        let mut decodings = Vec::new();
        let mut row = Vec::new();
        let mut rows_returned = 0;
        let mut has_columns = false;
        let mut stopped = None;
        loop {
            let received = self.receive(place, observer).await;
            let shown = match received {
                Err(Failure::Refused(_)) if stopped.is_some() => {
                    // The cancel request did its work. The rest up to the Sync is read by the caller.
                    return Err(stopped_failure(&self.operation, stopped.take()));
                }
                Err(failure) => return Err(failure),
                Ok(Message::ParseComplete | Message::BindComplete | Message::NoData | Message::CopyDone) => Ok(()),
                Ok(Message::RowDescription(body)) => {
                    has_columns = true;
                    let columns = self.read_columns(&body, &mut decodings)?;
                    observer.columns(place, &columns);
                    Ok(())
                }
                Ok(Message::CopyOutResponse(_)) => {
                    has_columns = true;
                    observer.columns(place, &[Column { name: "copy".to_owned(), type_name: "text".to_owned() }]);
                    Ok(())
                }
                Ok(Message::DataRow(body)) => {
                    rows_returned += 1;
                    if stopped.is_none() {
                        self.read_row(&body, &decodings, &mut row)?;
                        observer.row(place, &row)
                    } else {
                        Ok(())
                    }
                }
                Ok(Message::CopyData(body)) => {
                    rows_returned += 1;
                    let line = body.data().strip_suffix(b"\n").unwrap_or(body.data());
                    if stopped.is_none() { observer.row(place, &[decode(Decoding::Text, line)]) } else { Ok(()) }
                }
                Ok(Message::CommandComplete(_) | Message::EmptyQueryResponse) if stopped.is_some() => {
                    return Err(stopped_failure(&self.operation, stopped.take()));
                }
                Ok(Message::EmptyQueryResponse) => return Ok(StatementOutcome::default()),
                Ok(Message::CommandComplete(body)) => {
                    return Ok(outcome_of(body.tag().unwrap_or_default(), rows_returned, has_columns));
                }
                Ok(_) => return Err(self.out_of_step()),
            };
            if let Err(why) = shown {
                // When the server cannot be asked, the rows are read to their end: slower, and as right.
                let _ = connect::cancel(&self.shared.settings, self.shared.tls().ok().flatten(), self.key).await;
                stopped = Some(why);
            }
        }
    }

    fn read_columns(&mut self, body: &RowDescriptionBody, decodings: &mut Vec<Decoding>) -> Result<Vec<Column>, Failure> {
        decodings.clear();
        let described = body.fields().map(|field| {
            decodings.push(Decoding::of(field.type_oid()));
            Ok(column(field.name(), field.type_oid()))
        });
        described.collect().map_err(|source| self.link_failed(source))
    }

    fn read_row(&mut self, body: &DataRowBody, decodings: &[Decoding], row: &mut Vec<Value>) -> Result<(), Failure> {
        row.clear();
        let mut ranges = body.ranges();
        loop {
            match ranges.next() {
                Ok(None) => return Ok(()),
                Ok(Some(None)) => row.push(Value::Null),
                Ok(Some(Some(range))) => {
                    let decoding = decodings.get(row.len()).copied().unwrap_or(Decoding::Text);
                    row.push(decode(decoding, &body.buffer()[range]));
                }
                Err(source) => return Err(self.link_failed(source)),
            }
        }
    }

    /// Reads up to the ReadyForQuery that ends the group. What the group answered stands, unless the Sync itself failed: a statement
    /// outside a transaction commits there.
    pub(in crate::postgres) async fn read_ready<T>(
        &mut self,
        place: usize,
        observer: &mut dyn Observer,
        answer: Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Err(Failure::Lost(_)) = answer {
            return answer;
        }
        let mut refused = None;
        loop {
            match self.receive(place, observer).await {
                Ok(Message::ReadyForQuery(body)) => {
                    self.status = match body.status() {
                        b'I' => Status::Idle,
                        b'T' => Status::Open,
                        _ => Status::Failed,
                    };
                    break;
                }
                // After a stop, the rest of the group still answers.
                Ok(_) => {}
                Err(Failure::Refused(error)) => refused = Some(Failure::Refused(error)),
                // What was refused stays refused, whatever became of the link.
                Err(_) if answer.is_err() => return answer,
                Err(failure) => return Err(failure),
            }
        }
        match (answer, refused) {
            (Ok(_), Some(failure)) => Err(failure),
            (answer, _) => answer,
        }
    }
}

fn stopped_failure(operation: &str, why: Option<String>) -> Failure {
    Failure::Stopped(Error::new(ErrorKind::Stopped, operation, why.unwrap_or_default()))
}

/// Reads a command tag: `INSERT 0 5`, `UPDATE 5`, `COPY 5`, `CREATE TABLE`. `CREATE TABLE AS` answers `SELECT 5` without columns.
pub(super) fn outcome_of(tag: &str, rows_returned: u64, has_columns: bool) -> StatementOutcome {
    let (verb, count) = tag.rsplit_once(' ').unwrap_or((tag, ""));
    let tells_changes = match verb {
        "INSERT 0" | "INSERT" | "UPDATE" | "DELETE" | "MERGE" => true,
        "COPY" | "SELECT" => !has_columns,
        _ => false,
    };
    StatementOutcome {
        rows_affected: if tells_changes { count.parse().ok() } else { None },
        rows_returned,
        duration: Duration::ZERO,
    }
}
