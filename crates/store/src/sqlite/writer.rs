//! The writer: one thread that owns the only connection that writes, and commits whatever is queued together.
//!
//! A batch is one transaction. Refusals (a conflict, a fenced epoch) are found by looking, before anything of that append is written, so
//! they cost the others nothing. A failure of SQLite itself ends the batch: it is rolled back, and everything in it and everything that is
//! queued by then is answered with that error. The next request starts afresh, so the store works again when the disk has room again.
//!
//! One leak, confessed: when the sync of a commit fails, its callers are told so, but the commit may already be in the file, and may be
//! found there after the process has ended. It is whole or absent, never half; whoever resumes a run reads the log first.

use super::batch::Batch;
use super::fault::{self, Fault};
use super::{Options, Place};
use crate::reply::Reply;
use crate::{Act, Append, AppendError, Entry, Error, SampleRow, Version};
use backstop_core::RunId;
use jiff::Timestamp;
use rusqlite::Connection;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Asked of the writer.
pub(super) enum Request {
    Append(Append, Reply<(), AppendError>),
    Flush(Reply<(), Error>),
    TakeOver(RunId, Reply<u64, Error>),
    KeepVersion(Version, Reply<(), Error>),
    Put(Vec<Entry>, Option<Act>, Reply<(), Error>),
    Remove(Vec<RunId>, Timestamp, Reply<Vec<RunId>, Error>),
    Sweep(u32, Reply<u32, Error>),
    KeepSamples(Vec<SampleRow>, Reply<(), Error>),
    /// For the test of what happens when the thread dies.
    #[cfg(test)]
    Panic,
    /// For the test of a full disk where nothing can be mounted.
    #[cfg(test)]
    LimitPages(u32),
}

/// An answer that is given once the batch is committed. It is not given, but replaced by the fault, when that fails.
pub(super) enum Answer {
    Append(Reply<(), AppendError>, Result<(), AppendError>),
    Done(Reply<(), Error>, Result<(), Error>),
    TakenOver(Reply<u64, Error>, Result<u64, Error>),
    Removed(Reply<Vec<RunId>, Error>, Result<Vec<RunId>, Error>),
    Swept(Reply<u32, Error>, Result<u32, Error>),
}

impl Answer {
    fn give(self) {
        match self {
            Self::Append(reply, result) => reply.send(result),
            Self::Done(reply, result) => reply.send(result),
            Self::TakenOver(reply, result) => reply.send(result),
            Self::Removed(reply, result) => reply.send(result),
            Self::Swept(reply, result) => reply.send(result),
        }
    }

    fn fail(self, fault: &Fault) {
        match self {
            Self::Append(reply, _) => reply.send(Err(fault.to_error().into())),
            Self::Done(reply, _) => reply.send(Err(fault.to_error())),
            Self::TakenOver(reply, _) => reply.send(Err(fault.to_error())),
            Self::Removed(reply, _) => reply.send(Err(fault.to_error())),
            Self::Swept(reply, _) => reply.send(Err(fault.to_error())),
        }
    }
}

impl Request {
    fn fail(self, fault: &Fault) {
        match self {
            Self::Append(_, reply) => reply.send(Err(fault.to_error().into())),
            Self::Flush(reply) | Self::KeepVersion(_, reply) | Self::Put(_, _, reply) | Self::KeepSamples(_, reply) => {
                reply.send(Err(fault.to_error()))
            }
            Self::TakeOver(_, reply) => reply.send(Err(fault.to_error())),
            Self::Remove(_, _, reply) => reply.send(Err(fault.to_error())),
            Self::Sweep(_, reply) => reply.send(Err(fault.to_error())),
            #[cfg(test)]
            Self::Panic | Self::LimitPages(_) => {}
        }
    }
}

pub(super) struct Writer {
    connection: Connection,
    place: Arc<Place>,
    options: Options,
    /// Where events are written before they go to SQLite; kept from batch to batch.
    buffer: Vec<u8>,
    /// Set by those who wait for the answer.
    hurry: Arc<AtomicBool>,
    committed_at: Option<Instant>,
    /// Requests in the last batch.
    answered: usize,
    /// The last batch was cut by its bound: what comes behind it has waited already.
    was_full: bool,
}

/// How long appends are gathered after a commit before the next one. Nobody waits for them but those who say so (`flush`), and a commit
/// costs as much for one append as for many.
const GATHER: Duration = Duration::from_millis(8);
/// The same where somebody waits for the answer, but the last batch showed that many do: a moment more makes one commit of several.
const GATHER_IN_A_HURRY: Duration = Duration::from_millis(4);
/// Requests in the last batch that show it.
const MANY: usize = 16;

impl Writer {
    pub(super) fn new(connection: Connection, place: Arc<Place>, options: Options, hurry: Arc<AtomicBool>) -> Self {
        Self { connection, place, options, buffer: Vec::new(), hurry, committed_at: None, answered: 0, was_full: false }
    }

    /// Works until the store is dropped and the queue is empty.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            self.gather(&first);
            self.write_batch(first, &mut queue);
            self.committed_at = Some(Instant::now());
        }
    }

    /// Lets more come, unless somebody waits for the answer or the last commit is long past.
    fn gather(&self, first: &Request) {
        let gathers = matches!(first, Request::Append(..)) && !self.was_full;
        let rest = |gather: Duration| self.committed_at.map_or(Duration::ZERO, |at| gather.saturating_sub(at.elapsed()));
        if gathers && !rest(GATHER).is_zero() && !self.hurry.load(Ordering::Acquire) {
            // Woken early by those in a hurry; a wake-up without a reason costs one smaller batch.
            std::thread::park_timeout(rest(GATHER));
        }
        while gathers && self.answered >= MANY && !rest(GATHER_IN_A_HURRY).is_zero() {
            std::thread::park_timeout(rest(GATHER_IN_A_HURRY));
        }
        self.hurry.store(false, Ordering::Release);
    }

    /// Carries out `first` and what is queued behind it, commits, answers.
    fn write_batch(&mut self, first: Request, queue: &mut mpsc::Receiver<Request>) {
        let mut answers = Vec::new();
        match self.write(first, queue, &mut answers) {
            Ok(()) => {
                self.answered = answers.len();
                answers.into_iter().for_each(Answer::give);
            }
            Err(error) => {
                self.roll_back();
                // Whatever is queued was decided in the belief that the lost appends were kept. It is taken out before anybody is told:
                // what a caller asks after that is asked in full knowledge, and is carried out.
                let behind: Vec<Request> = (0..queue.len()).map_while(|_| queue.try_recv().ok()).collect();
                let fault = Fault::from(error);
                answers.into_iter().for_each(|answer| answer.fail(&fault));
                behind.into_iter().for_each(|request| request.fail(&fault));
            }
        }
    }

    fn write(&mut self, first: Request, queue: &mut mpsc::Receiver<Request>, answers: &mut Vec<Answer>) -> Result<(), Error> {
        self.buffer.clear();
        let mut batch = Batch::new(&self.connection, &self.place, &self.options, &mut self.buffer);
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Append(append, reply) => {
                    answered(batch.append(append), answers, |result| Answer::Append(reply, result))?
                }
                Request::TakeOver(run, reply) => {
                    answered(batch.take_over(&run), answers, |result| Answer::TakenOver(reply, result))?
                }
                Request::KeepVersion(version, reply) => {
                    answered(batch.keep_version(&version), answers, |result| Answer::Done(reply, result))?;
                }
                Request::Put(entries, act, reply) => {
                    answered(batch.put(&entries, act.as_ref()), answers, |result| Answer::Done(reply, result))?;
                }
                Request::Remove(runs, never_after, reply) => {
                    answered(batch.remove(&runs, never_after), answers, |result| Answer::Removed(reply, result))?;
                }
                Request::Sweep(rows_max, reply) => {
                    answered(batch.sweep(rows_max), answers, |result| Answer::Swept(reply, result))?;
                }
                Request::KeepSamples(samples, reply) => {
                    answered(batch.keep_samples(&samples), answers, |result| Answer::Done(reply, result))?;
                }
                Request::Flush(reply) => answers.push(Answer::Done(reply, Ok(()))),
                #[cfg(test)]
                Request::Panic => panic!("the writer was told to die"),
                #[cfg(test)]
                Request::LimitPages(pages) => {
                    self.connection
                        .pragma_update(None, "max_page_count", pages)
                        .map_err(|cause| fault::from_sqlite("limit the store", &self.place.path, cause))?;
                }
            }
            next = if batch.is_full() { None } else { queue.try_recv().ok() };
        }
        self.was_full = batch.is_full();
        batch.commit()
    }

    fn roll_back(&self) {
        if !self.connection.is_autocommit()
            && let Err(cause) = self.connection.execute_batch("ROLLBACK")
        {
            // The next BEGIN fails too, and says so to its callers: there is nobody to tell here.
            drop(fault::from_sqlite("roll back in the store", &self.place.path, cause));
        }
    }
}

/// Keeps the answer to a request that was carried out or refused; one that broke the batch is answered with the batch's fault.
fn answered<T, E>(
    outcome: Result<Result<T, E>, Error>,
    answers: &mut Vec<Answer>,
    answer: impl FnOnce(Result<T, E>) -> Answer,
) -> Result<(), Error>
where
    E: From<Error>,
{
    match outcome {
        Ok(result) => {
            answers.push(answer(result));
            Ok(())
        }
        Err(broken) => {
            // The result put in here is replaced: the batch fails as a whole.
            answers.push(answer(Err(Error::new(broken.kind, broken.message.clone()).into())));
            Err(broken)
        }
    }
}
