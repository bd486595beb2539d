//! The async side of a session: hands work to the thread and passes on what it reports, at the observer's pace.

use super::marker::quoted;
use super::worker::{Control, Event, OwnedCall, OwnedUnit, Stop, Worker};
use super::{Settings, lookout};
use crate::error::{Error, ErrorKind};
use crate::marker::{MarkerKey, MarkerTable, Probe};
use crate::session::{Call, Canceller, Observer, Session, StatementOutcome, Terms, Unit, UnitError, UnitOutcome};
use crate::words::refuse_transaction_control;
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How many batches of rows may wait for the observer.
const EVENTS_WAITING_MAX: usize = 4;

static SESSIONS: AtomicU64 = AtomicU64::new(1);

/// What the thread is asked to do.
enum Work {
    Do(Job),
    End,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// One open connection to an SQLite database.
pub(super) struct SqliteSession {
    /// Closing it ends the thread, and with it the connection.
    work: mpsc::Sender<Work>,
    control: Arc<Control>,
    number: u64,
    operation: String,
    /// A caller went away in the middle; the thread may still be at it.
    is_engaged: bool,
}

struct SqliteCanceller(Arc<Control>);

#[async_trait]
impl Canceller for SqliteCanceller {
    async fn cancel(&self) -> Result<(), Error> {
        self.0.cancel();
        Ok(())
    }
}

impl SqliteSession {
    pub(super) async fn open(settings: Settings) -> Result<Self, Error> {
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let control = Arc::new(Control::default());
        let operation = format!("run a statement on {}", settings.id);
        let (work, mut queue) = mpsc::channel::<Work>(1);
        let (opened, open) = oneshot::channel();
        lookout::note(&settings, number, &control);
        let for_thread = control.clone();
        let thread = std::thread::Builder::new().name(format!("sqlite-{number}"));
        let started = thread.spawn(move || match Worker::open(settings, for_thread) {
            Err(error) => drop(opened.send(Err(error))),
            Ok(mut worker) => {
                let _ = opened.send(Ok(()));
                while let Some(Work::Do(job)) = queue.blocking_recv() {
                    job(&mut worker);
                }
                // The file is closed before the queue is, which is what `close` waits for.
                drop(worker);
            }
        });
        if let Err(source) = started {
            let mut error = Error::new(ErrorKind::Resources, "start a thread for SQLite", "the system refuses another thread");
            error.source = Some(Box::new(source));
            return Err(error);
        }
        open.await.map_err(|_| thread_ended(&operation))??;
        Ok(Self { work, control, number, operation, is_engaged: false })
    }

    /// Runs work that reports nothing on the way.
    async fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Worker) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, waiting) = oneshot::channel();
        self.begin_work(Box::new(move |worker| drop(answer.send(worker.working(work))))).await?;
        let answer = waiting.await.map_err(|_| thread_ended(&self.operation))?;
        self.is_engaged = false;
        answer
    }

    /// Runs work that reports to an observer. Also returns where and why the observer stopped it, if it did.
    async fn ask_observed<T: Send + 'static>(
        &mut self,
        observer: &mut dyn Observer,
        work: impl FnOnce(&mut Worker, &mpsc::Sender<Event>) -> T + Send + 'static,
    ) -> Result<(T, Option<(usize, Error)>), Error> {
        let (events, mut arriving) = mpsc::channel(EVENTS_WAITING_MAX);
        let (answer, waiting) = oneshot::channel();
        self.begin_work(Box::new(move |worker| drop(answer.send(worker.working(|worker| work(worker, &events)))))).await?;
        let mut stopped: Option<(usize, Error)> = None;
        while let Some(event) = arriving.recv().await {
            if stopped.is_some() {
                // Events are still taken in, so that the thread can end; a checkpoint is dropped, so that nothing commits.
                continue;
            }
            if let Err((place, why)) = observe(event, observer) {
                self.control.cancel();
                stopped = Some((place, Error::new(ErrorKind::Stopped, &self.operation, why)));
            }
        }
        let answer = waiting.await.map_err(|_| thread_ended(&self.operation))?;
        self.is_engaged = false;
        Ok((answer, stopped))
    }

    async fn begin_work(&mut self, job: Job) -> Result<(), Error> {
        if self.is_engaged {
            let message = "the session was left in the middle of something and cannot be used";
            return Err(Error::new(ErrorKind::Lost, &self.operation, message));
        }
        self.is_engaged = true;
        self.work.send(Work::Do(job)).await.map_err(|_| thread_ended(&self.operation))
    }
}

fn observe(event: Event, observer: &mut dyn Observer) -> Result<(), (usize, String)> {
    match event {
        Event::Started(place) => observer.started(place),
        Event::Columns(place, columns) => observer.columns(place, &columns),
        Event::Rows(place, rows) => {
            for row in &rows {
                observer.row(place, row).map_err(|why| (place, why))?;
            }
        }
        Event::Finished(place, outcome) => observer.finished(place, &outcome),
        Event::Checkpoint(answer) => drop(answer.send(observer.result())),
    }
    Ok(())
}

fn thread_ended(operation: &str) -> Error {
    Error::new(ErrorKind::Lost, operation, "the session's thread has ended")
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        // A statement that nobody waits for any more must not go on for hours.
        if self.is_engaged {
            self.control.cancel();
        }
    }
}

fn owned(call: &Call<'_>) -> OwnedCall {
    OwnedCall { sql: call.sql.to_owned(), parameters: call.parameters.to_vec() }
}

#[async_trait]
impl Session for SqliteSession {
    fn canceller(&self) -> Arc<dyn Canceller> {
        Arc::new(SqliteCanceller(self.control.clone()))
    }

    fn server_id(&self) -> String {
        lookout::id(self.number)
    }

    async fn leftovers(&mut self, _name: &str, _except: &[String]) -> Result<Option<usize>, Error> {
        // There is no server: statements end with their process.
        Ok(Some(0))
    }

    fn is_usable(&self) -> bool {
        !self.is_engaged && !self.work.is_closed()
    }

    async fn execute(&mut self, call: &Call<'_>, place: usize, observer: &mut dyn Observer) -> Result<StatementOutcome, Error> {
        let (call, operation) = (owned(call), self.operation.clone());
        let (done, stopped) = self.ask_observed(observer, move |worker, events| worker.run(&call, place, events, false)).await?;
        match (done, stopped) {
            (_, Some((_, error))) => Err(error),
            (Ok(outcome), None) => Ok(outcome),
            (Err(Stop::Failed(error)), None) => Err(error),
            (Err(Stop::Writes | Stop::Abandoned), None) => Err(thread_ended(&operation)),
        }
    }

    async fn begin(&mut self, begin: Option<&str>) -> Result<(), Error> {
        let begin = begin.unwrap_or("BEGIN IMMEDIATE").to_owned();
        self.ask(move |worker| worker.command(&begin)).await
    }

    async fn commit(&mut self) -> Result<(), Error> {
        self.ask(|worker| worker.command("COMMIT")).await
    }

    async fn rollback(&mut self) -> Result<(), Error> {
        self.ask(|worker| worker.roll_back()).await
    }

    async fn savepoint(&mut self, name: &str) -> Result<(), Error> {
        let sql = format!("SAVEPOINT {}", quoted(name));
        self.ask(move |worker| worker.command(&sql)).await
    }

    async fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        let sql = format!("ROLLBACK TO {}", quoted(name));
        self.ask(move |worker| worker.command(&sql)).await
    }

    async fn open_transaction(&mut self, terms: &Terms, _markers: Option<&MarkerTable>) -> Result<(), UnitError> {
        // DDL is transactional here: the marker's table is made with the marker.
        let limit = terms.lock_timeout;
        self.ask(move |worker| worker.open_shared(limit)).await.map_err(|error| UnitError::RolledBack { place: None, error })
    }

    async fn commit_marked(&mut self, table: &MarkerTable, key: &MarkerKey, digest: &str) -> Result<UnitOutcome, UnitError> {
        let (table, key, digest) = (table.clone(), key.clone(), digest.to_owned());
        let ended = self.ask(move |worker| Ok(worker.commit_marked(&table, &key, &digest))).await;
        // The thread rolls back when it ends before a commit, and nothing else can end it.
        ended.unwrap_or_else(|error| Err(UnitError::RolledBack { place: None, error }))
    }

    async fn run_unit(&mut self, unit: &Unit<'_>, observer: &mut dyn Observer) -> Result<UnitOutcome, UnitError> {
        if unit.wrap != crate::session::Wrap::Bare {
            refuse_transaction_control(unit).map_err(|(place, error)| UnitError::RolledBack { place: Some(place), error })?;
        }
        let owned = OwnedUnit {
            calls: unit.calls.iter().map(owned).collect(),
            begin: unit.begin.map(str::to_owned),
            wrap: unit.wrap.clone(),
            keeps_result: unit.keeps_result,
        };
        let is_bare = owned.wrap == crate::session::Wrap::Bare;
        // The thread rolls back when it ends before a commit, and nothing else can end it.
        let ended = self.ask_observed(observer, move |worker, events| worker.run_unit(&owned, events)).await;
        match ended {
            Err(error) => Err(UnitError::RolledBack { place: None, error }),
            Ok((_, Some((place, error)))) if is_bare => Err(UnitError::Partial { place, error }),
            Ok((_, Some((place, error)))) => Err(UnitError::RolledBack { place: Some(place), error }),
            Ok((ended, None)) => ended,
        }
    }

    async fn probe(&mut self, table: &MarkerTable, key: &MarkerKey, wait: Duration) -> Result<Probe, Error> {
        let (table, key) = (table.clone(), key.clone());
        self.ask(move |worker| worker.probe(&table, &key, wait)).await
    }

    async fn marker_table_name(&mut self, table: &MarkerTable) -> Result<Option<String>, Error> {
        let table = table.clone();
        self.ask(move |worker| worker.marker_table_name(&table)).await
    }

    async fn reset(&mut self) -> Result<(), Error> {
        self.ask(|worker| worker.reset()).await
    }

    async fn close(self: Box<Self>) {
        if self.is_engaged {
            self.control.cancel();
        }
        if self.work.send(Work::End).await.is_ok() {
            self.work.closed().await;
        }
    }
}
