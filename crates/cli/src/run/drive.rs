//! Drives a run and listens to signals meanwhile.

use super::{last_event_at, summary};
use crate::explain::{self, Exit, Problem};
use crate::output;
use crate::paths::Kept;
use crate::progress::{Progress, Tally};
use backstop_core::state::RunPhase;
use backstop_core::{Command, RunId, TaskId};
use backstop_project::definition::{Definition, Project};
use backstop_runtime::others::Beside;
use backstop_runtime::run::Decision;
use backstop_runtime::service::holder;
use backstop_runtime::{
    Clock, Control, Launch, Limits, LogWriter, Monitor, Prepared, Redactor, Report, Request, Sessions, SystemClock, Watcher,
};
use backstop_store::{RunRow, Store};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What to drive.
pub(super) enum What {
    /// A new run.
    Start(Box<Request>),
    /// One whose process is gone, with what a person says of attempts in doubt.
    Resume(RunRow, Vec<Decision>),
}

impl What {
    fn run_id(&self) -> &RunId {
        match self {
            Self::Start(request) => &request.run_id,
            Self::Resume(row, _) => &row.header.run_id,
        }
    }

    /// As JSON.
    fn params(&self) -> String {
        match self {
            Self::Start(request) => serde_json::Value::Object(request.params.clone()).to_string(),
            Self::Resume(row, _) => row.header.params.to_string(),
        }
    }

    fn only_tasks(&self) -> &[TaskId] {
        match self {
            Self::Start(request) => &request.only_tasks,
            Self::Resume(row, _) => &row.header.only_tasks,
        }
    }
}

/// Everything that driving needs.
pub(super) struct Drive {
    pub(super) project: Arc<Project>,
    pub(super) definition: Arc<Definition>,
    pub(super) store: Arc<dyn Store>,
    pub(super) kept: Kept,
    /// The beginning of a command that resumes.
    pub(super) again: String,
    pub(super) json: bool,
    pub(super) verbose: bool,
}

impl Drive {
    /// Drives to the end of the run, or of this process.
    pub(super) async fn drive(self, mut what: What) -> Result<Exit, Problem> {
        if let What::Resume(_, decisions) = &mut what {
            let redactor = Redactor::of(&self.project);
            for decision in decisions {
                decision.who = redactor.clean(&decision.who).into_owned();
                decision.why = redactor.clean(&decision.why).into_owned();
            }
        }
        self.drive_with(what, Control::default(), None).await
    }

    /// Drives a run only as far as its end needs: it is cancelled from the start.
    pub(super) async fn end(self, what: What, who: String, why: String) -> Result<Exit, Problem> {
        let redactor = Redactor::of(&self.project);
        let (who, why) = (redactor.clean(&who).into_owned(), redactor.clean(&why).into_owned());
        let control = Control::default();
        control.cancel(format!("{who}: {why}"));
        let note = Command::RecordOperator { who, why, what: "cancelled the run".to_owned() };
        match self.drive_with(what, control, Some(note)).await? {
            // That is what was asked for.
            Exit::Interrupted => Ok(Exit::Success),
            exit => Ok(exit),
        }
    }

    async fn drive_with(self, what: What, control: Control, note: Option<Command>) -> Result<Exit, Problem> {
        let clock: Arc<dyn Clock> = match &what {
            What::Start(_) => Arc::new(SystemClock::starting(None)),
            What::Resume(row, _) => Arc::new(last_event_at(&*self.store, row).await?),
        };
        let began = clock.now();
        let run = what.run_id().clone();
        let redactor = Arc::new(Redactor::of(&self.project)).of_run(&what.params());
        let progress =
            Progress::start(&self.definition.dag, &run, what.only_tasks(), self.json.then_some(redactor), self.verbose);
        let tally = Arc::new(Tally::before(progress.watcher()));
        let launch = self.launch(clock.clone(), tally.clone());
        let signals = Signals::listen()?;
        let driven = {
            let control = control.clone();
            let asking = control.clone();
            // Asked before the run is taken up. It is refused by none, and a run that cannot be taken up hears nothing.
            let noted = async move {
                if let Some(note) = note {
                    drop(asking.act(vec![note]).await)
                }
            };
            let driven = async move {
                match what {
                    What::Start(request) => backstop_runtime::start(launch, *request, control).await,
                    What::Resume(row, decisions) => {
                        backstop_runtime::resume(launch, &row.header.run_id, &decisions, control).await
                    }
                }
            };
            async move {
                tokio::pin!(noted, driven);
                tokio::select! {
                    biased;
                    () = &mut noted => driven.await,
                    ended = &mut driven => ended,
                }
            }
        };
        let ended = until_over(driven, &control, signals, &progress).await;
        progress.finish();
        match ended {
            Some(Ok(report)) => {
                let told = summary::Told {
                    report: &report,
                    definition: &self.definition,
                    callbacks_failed: tally.callbacks_failed(),
                    began,
                    ended: clock.now(),
                    flags: &self.kept.flags,
                    again: &self.again,
                    is_service_there: holder(&*self.store).await?.is_some(),
                };
                let exit = exit_of(&report);
                if self.json {
                    summary::json(&told, exit)?
                } else {
                    output::tell(&summary::text(&told))
                };
                Ok(exit)
            }
            Some(Err(error)) => Err(self.not_driven(&run, error)),
            None => {
                output::tell(&format!(
                    "killed: what was going on is in doubt until the run is resumed\n  resume it with: {} --resume {run}\n",
                    self.again
                ));
                Ok(Exit::Interrupted)
            }
        }
    }

    fn not_driven(&self, run: &RunId, error: backstop_runtime::Error) -> Problem {
        if let backstop_runtime::Error::Over { run, state } = &error {
            let hints = explain::hints_when_over(run, state, &self.kept.flags);
            return Problem { hints, ..Problem::from(error) };
        }
        let problem = Problem::from(error);
        if problem.exit == Exit::Stuck {
            let command = format!("{} --resume {run}", self.again);
            return problem.hint(format!("what committed is found again by its markers; resume the run with: {command}"));
        }
        problem
    }

    fn launch(&self, clock: Arc<dyn Clock>, watcher: Arc<dyn Watcher>) -> Launch {
        Launch {
            prepared: Prepared::new(self.project.clone(), self.definition.clone()),
            store: self.store.clone(),
            logs: LogWriter::start(Some(self.kept.logs.clone())),
            scratch: self.kept.scratch.clone(),
            clock: clock.clone(),
            watcher,
            sessions: Arc::new(Sessions::watched(
                self.project.clone(),
                Arc::new(backstop_connect::connector),
                Arc::new(Monitor::new(self.store.clone(), clock.clone())),
            )),
            slots: None,
            others: Some(Arc::new(Beside::new(self.store.clone()))),
            limits: Limits::default(),
        }
    }
}

/// What ends a process that somebody wants to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Problem> {
        let listen = |kind| signal(kind).map_err(|error| Problem::system("listen to signals", &error));
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// What driving came to; `None` after a second signal.
async fn until_over(
    driven: impl Future<Output = Result<Report, backstop_runtime::Error>>,
    control: &Control,
    mut signals: Signals,
    progress: &Progress,
) -> Option<Result<Report, backstop_runtime::Error>> {
    tokio::pin!(driven);
    let drawing = progress.keep_drawing();
    tokio::pin!(drawing);
    let mut asked = false;
    loop {
        tokio::select! {
            biased;
            name = signals.next() => {
                if asked {
                    return None;
                }
                asked = true;
                control.cancel(format!("{name} was received"));
                progress.say("cancelling: running statements are killed on their servers (once more to kill this process)");
            }
            report = &mut driven => return Some(report),
            () = &mut drawing => {}
        }
    }
}

fn exit_of(report: &Report) -> Exit {
    if !report.undecided.is_empty() {
        return Exit::Stuck;
    }
    match report.state.phase() {
        RunPhase::Succeeded => Exit::Success,
        RunPhase::Failed => Exit::RunFailed,
        RunPhase::Cancelled => Exit::Interrupted,
        RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck => Exit::Stuck,
    }
}
