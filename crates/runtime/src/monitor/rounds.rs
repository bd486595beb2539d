//! The rounds of one connection: as long as something runs there, it is looked now and then whether something runs long; what does is looked
//! at from a session beside, less and less often the longer it goes on.

use super::past::Usual;
use super::{Monitor, OUR_NAME, SLOW_AFTER, Watched, milliseconds};
use crate::engine::Answer;
use backstop_connect::{Blocker, Lookout, Progress, Sighting, View};
use backstop_core::{Command, DagId};
use backstop_store::{Blocking, HowFar, SAMPLES_MAX, Sample, SampleRow};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait between two looks.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(15);
/// A statement is looked at again when it has gone on for a tenth more, within the two bounds.
const LOOK_AFTER_PART: u32 = 10;
/// A sample is kept for good when the statement has gone on for so much more; else it replaces the one before.
const KEEP_AFTER_PART: u32 = 40;
/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// How long a server that could not be looked at is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(30);
/// How long a session that looks is kept for the next statement that runs long.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// What runs long.
struct Slow {
    id: u64,
    session: String,
    dag: DagId,
    task: String,
    statement: u32,
    since: Instant,
}

/// What to do next.
enum Plan {
    /// Nothing runs.
    End,
    Wait(Duration),
    Look(Vec<Slow>),
}

/// Makes rounds until nothing runs on the connection any more.
pub(super) async fn make(monitor: Weak<Monitor>, watched: Arc<Watched>) {
    let mut lookout: Option<Box<dyn Lookout>> = None;
    let mut used_at = Instant::now();
    loop {
        let Some(monitor) = monitor.upgrade() else { return };
        match monitor.plan(&watched) {
            Plan::End => break,
            Plan::Wait(wait) => {
                drop(monitor);
                tokio::time::sleep(wait).await;
                if used_at.elapsed() > KEPT_FOR
                    && let Some(lookout) = lookout.take()
                {
                    lookout.close().await;
                }
            }
            Plan::Look(slow) => {
                used_at = Instant::now();
                let rests = match look(&watched, &mut lookout, &slow).await {
                    Ok(Some(view)) => {
                        monitor.note_limits(&watched, view.limits.first().cloned());
                        monitor.note(&watched, &slow, view).await;
                        let youngest = slow.iter().map(|slow| slow.since.elapsed()).min().unwrap_or_default();
                        (youngest / LOOK_AFTER_PART).clamp(SLOW_AFTER, LOOK_EVERY_MAX)
                    }
                    Ok(None) => LEFT_ALONE,
                    Err(why) => {
                        monitor.note_limits(&watched, Some(format!("its server cannot be looked at: {why}")));
                        LEFT_ALONE
                    }
                };
                drop(monitor);
                tokio::time::sleep(rests).await;
            }
        }
    }
    if let Some(lookout) = lookout {
        lookout.close().await;
    }
}

/// One look, with the session that is there or a new one. One that failed is closed.
async fn look(watched: &Watched, lookout: &mut Option<Box<dyn Lookout>>, slow: &[Slow]) -> Result<Option<View>, String> {
    let looking = async {
        if lookout.is_none() {
            *lookout = watched.connector.lookout().await.map_err(|error| error.to_string())?;
        }
        let Some(lookout) = lookout else { return Ok(None) };
        let sessions: Vec<String> = slow.iter().map(|slow| slow.session.clone()).collect();
        lookout.look(&sessions).await.map(Some).map_err(|error| error.to_string())
    };
    let looked = tokio::time::timeout(LOOK_MAX, looking).await.unwrap_or_else(|_| Err("it does not answer".to_owned()));
    if looked.is_err() {
        *lookout = None;
    }
    looked
}

impl Monitor {
    fn plan(&self, watched: &Watched) -> Plan {
        let mut state = self.state();
        let at_work = state.works.iter().filter(|(_, work)| work.watched.number == watched.number);
        let running: Vec<Slow> = at_work
            .filter_map(|(id, work)| {
                let (statement, session) = (work.statement.as_ref()?, work.session.as_ref()?);
                Some(Slow {
                    id: *id,
                    session: session.clone(),
                    dag: work.user.dag.clone(),
                    task: work.user.instance.task.to_string(),
                    statement: statement.number,
                    since: statement.since,
                })
            })
            .collect();
        let Some(oldest) = running.iter().map(|slow| slow.since.elapsed()).max() else {
            // Under the lock: whoever begins something now begins new rounds.
            state.rounds.remove(&watched.number);
            return Plan::End;
        };
        if oldest < SLOW_AFTER {
            return Plan::Wait(SLOW_AFTER - oldest);
        }
        Plan::Look(running.into_iter().filter(|slow| slow.since.elapsed() >= SLOW_AFTER).collect())
    }

    fn note_limits(&self, watched: &Watched, limit: Option<String>) {
        let mut state = self.state();
        match limit {
            Some(limit) => drop(state.limits.insert(watched.key(), limit)),
            None => drop(state.limits.remove(&watched.key())),
        }
    }

    /// Takes in what was seen, and keeps it.
    async fn note(&self, watched: &Watched, slow: &[Slow], view: View) {
        let mut kept = Vec::new();
        for sighting in view.sightings {
            let Some(slow) = slow.iter().find(|slow| slow.session == sighting.session) else { continue };
            let mut sample = sample_of(sighting);
            for blocking in &mut sample.blocked_by {
                self.name(&watched.server, blocking).await;
            }
            let mut usual = None;
            if let Some(store) = &self.store {
                let past = self.pasts.of(&**store, &slow.dag).await;
                usual = past.get(&(slow.task.clone(), slow.statement)).copied();
            }
            kept.extend(self.take_in(slow, sample, usual));
        }
        if let Some(store) = self.store.as_ref().filter(|_| !kept.is_empty()) {
            // A store that cannot write says so where it matters; the next sample comes soon.
            let _ = store.keep_samples(kept).await;
        }
    }

    /// Whose a blocking session is, where it is one of ours: of this process, of another one that says so, or of one on the same store.
    async fn name(&self, server: &str, blocking: &mut Blocking) {
        let Some(session) = blocking.session.clone() else { return };
        let here = {
            let state = self.state();
            let mut works = state.works.values();
            let found = works.find(|work| work.watched.server == server && work.session.as_ref() == Some(&session));
            found.map(|work| (work.user.run.to_string(), work.user.instance.to_string()))
        };
        let mut found = here.or_else(|| blocking.application.as_deref().and_then(introduced));
        if found.is_none()
            && let Some(store) = &self.store
        {
            let user = store.user_of_session(server, &session).await.unwrap_or_default();
            found = user.map(|(run, instance)| (run.to_string(), instance.to_string()));
        }
        if let Some((run, task)) = found {
            blocking.run = Some(run);
            blocking.task = Some(task);
        }
    }

    /// The row to keep, when the statement still runs.
    fn take_in(&self, slow: &Slow, mut sample: Sample, usual: Option<Usual>) -> Option<SampleRow> {
        let at = self.clock.now();
        let mut state = self.state();
        let work = state.works.get_mut(&slow.id)?;
        let statement = work.statement.as_mut().filter(|statement| statement.since == slow.since)?;
        let elapsed = statement.since.elapsed();
        sample.v = 1;
        sample.statement = statement.number;
        sample.summary.clone_from(&statement.summary);
        sample.elapsed_ms = milliseconds(elapsed);
        if statement.rows > 0 {
            sample.rows = sample.rows.max(Some(statement.rows));
        }
        sample.usual = usual.map(|usual| usual.time);
        let slow_for =
            usual.filter(|_| !statement.is_told_slow).and_then(|usual| usual.slow(statement.number, sample.elapsed_ms));
        if let (Some(anomaly), Some(mailbox)) = (slow_for, &statement.onlooker.mailbox) {
            let (instance, try_number) = (work.user.instance.clone(), work.user.try_number);
            // An engine that is busy is told at the next look, or when the statement ends.
            let told = mailbox.try_send(Answer::Command(Command::NoticeAnomaly { instance, try_number, anomaly }));
            statement.is_told_slow = told.is_ok();
        }
        let is_news = sample.is_news_after(work.sample.as_ref());
        statement.onlooker.watcher.seen(&work.user.instance, &sample.standing(), is_news);
        let is_due = work.kept_at.is_none_or(|at| at.elapsed() >= (elapsed / KEEP_AFTER_PART).max(SLOW_AFTER));
        if work.samples == 0 || (work.samples < SAMPLES_MAX && (is_news || is_due)) {
            work.samples += 1;
            work.kept_at = Some(Instant::now());
        }
        work.sample = Some(sample.clone());
        let user = &work.user;
        Some(SampleRow {
            run: user.run.clone(),
            instance: user.instance.clone(),
            try_number: user.try_number,
            place: work.samples - 1,
            at,
            server: work.watched.server.clone(),
            session: slow.session.clone(),
            sample,
        })
    }
}

/// Who a session of ours says it is.
fn introduced(application: &str) -> Option<(String, String)> {
    let (task, run) = application.strip_prefix(OUR_NAME)?.split_once(' ')?;
    Some((run.to_owned(), task.to_owned()))
}

fn sample_of(sighting: Sighting) -> Sample {
    let Sighting { session: _, state, wait, statement_age: _, blocked_by, blocked_for, progress, rows } = sighting;
    Sample {
        state,
        wait,
        blocked_by: blocked_by.into_iter().map(blocking_of).collect(),
        blocked_ms: blocked_for.map(milliseconds),
        progress: progress.map(|Progress { phase, done, total, unit }| HowFar { phase, done, total, unit: unit.to_owned() }),
        rows,
        ..Sample::default()
    }
}

fn blocking_of(blocker: Blocker) -> Blocking {
    let Blocker { session, user, application, host, state, statement, transaction_age } = blocker;
    let transaction_ms = transaction_age.map(milliseconds);
    Blocking { session, user, application, host, state, statement, transaction_ms, run: None, task: None }
}
