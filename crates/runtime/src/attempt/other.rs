//! `dag` and `wait_for`: one look at another DAG's run an attempt. Between two looks the instance holds no slot.
//!
//! A run that a task makes has an id that follows from the run, the task, its map index, and how many such runs the task has made since it was
//! cleared; it is kept as the task's committed segment. So a process that dies between making the run and noting it finds it again. A
//! retry makes a new run only when the one before is over and has not succeeded.

use super::script::stopped;
use super::{Attempt, Outcome};
use crate::engine::Answer;
use crate::failure::{FailureExt, failure, of_template};
use crate::others::{self, Awaited, CHAIN_MAX, Child, Others, Seen, Which};
use backstop_core::event::{Cause, Evidence, FailureClass, Promise, SegmentCommit};
use backstop_core::{Command, RunId};
use backstop_project::definition::{IfFailed, Template, TriggerDag, WaitFor};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value as Json};
use std::sync::Arc;
use std::time::Duration;

/// When an instance looks again that nobody woke.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Starts another DAG's run, and waits for it where that is wanted.
pub(crate) async fn start(attempt: &mut Attempt, trigger: &TriggerDag) -> Outcome {
    if let Some(outcome) = attempt.dry_run_note("a run of another DAG").await {
        return outcome;
    }
    let Some(others) = attempt.shared.others.clone() else { return alone() };
    let last = attempt.committed.last().and_then(|commit| run_of(commit));
    let run = match last {
        None => match make(attempt, &*others, trigger).await {
            Ok(run) => run,
            Err(outcome) => return outcome,
        },
        Some(run) if !trigger.wait => run,
        Some(run) => match look(&*others, &awaited(trigger, &run)).await {
            Ok(Seen::Ended { .. } | Seen::Missing) if attempt.begins_wait => match make(attempt, &*others, trigger).await {
                Ok(run) => run,
                Err(outcome) => return outcome,
            },
            Ok(_) => run,
            Err(outcome) => return outcome,
        },
    };
    let result = Outcome::with_result(&Json::from(run.as_str()));
    if !trigger.wait {
        return result;
    }
    let awaited = awaited(trigger, &run);
    match look(&*others, &awaited).await {
        Ok(Seen::Done { .. }) => result,
        Ok(seen @ Seen::Ended { .. }) => Outcome::Failed(
            failure(FailureClass::Permanent, format!("{awaited} did not succeed: {seen}"))
                .effect("what that run did, it did")
                .hint(format!("mend and retry run {run}, then retry this one: it goes on as that run ends")),
        ),
        Ok(Seen::Missing) => Outcome::Failed(
            failure(FailureClass::Permanent, format!("{awaited} is not in the store any more"))
                .effect("how it ended is not known"),
        ),
        Ok(Seen::GoesOn { .. }) => defer(attempt, awaited, None).await,
        Err(outcome) => outcome,
    }
}

/// Waits for another DAG's run.
pub(crate) async fn wait_for(attempt: &mut Attempt, wait: &WaitFor) -> Outcome {
    if let Some(outcome) = attempt.dry_run_note("waiting for another DAG's run").await {
        return outcome;
    }
    let Some(others) = attempt.shared.others.clone() else { return alone() };
    let date = match date(attempt, wait.logical_date.as_ref()) {
        Ok(date) => date,
        Err(outcome) => return outcome,
    };
    let is_patient = wait.if_failed == IfFailed::Wait;
    let awaited = Awaited { dag: wait.dag.clone(), which: Which::About(date), task: wait.task.clone(), is_patient };
    let seen = match look(&*others, &awaited).await {
        Ok(seen) => seen,
        Err(outcome) => return outcome,
    };
    match (&seen, wait.if_failed) {
        (Seen::Done { .. }, _) => return Outcome::done(),
        (Seen::Ended { .. }, IfFailed::Fail) => {
            return Outcome::Failed(
                failure(FailureClass::Permanent, format!("{awaited} did not succeed: {seen}")).effect("nothing was changed").hint(
                    "mend and retry that run, then this one; `if_failed: wait` goes on waiting meanwhile, `if_failed: skip` skips",
                ),
            );
        }
        (Seen::Ended { .. }, IfFailed::Skip) => return Outcome::Skipped(format!("{awaited} did not succeed: {seen}")),
        (Seen::Ended { .. }, IfFailed::Wait) | (Seen::Missing | Seen::GoesOn { .. }, _) => {}
    }
    let now = attempt.shared.clock.now();
    let gives_up = after(attempt.waiting_since.unwrap_or(now), wait.timeout);
    if now < gives_up {
        return defer(attempt, awaited, Some(gives_up)).await;
    }
    let text = format!("waited {:#} in vain for {awaited}: {seen}", SignedDuration::try_from(wait.timeout).unwrap_or_default());
    match wait.soft_fail {
        true => Outcome::Skipped(text),
        false => Outcome::Failed(failure(FailureClass::Final, text).effect("nothing was changed")),
    }
}

fn awaited(trigger: &TriggerDag, run: &RunId) -> Awaited {
    Awaited { dag: trigger.dag.clone(), which: Which::Run(run.clone()), task: None, is_patient: false }
}

async fn look(others: &dyn Others, awaited: &Awaited) -> Result<Seen, Outcome> {
    others::look(&**others.store(), awaited).await.map_err(|error| {
        Outcome::Failed(
            failure(FailureClass::Transient, format!("look at {awaited}: {}", error.message)).effect("nothing was changed"),
        )
    })
}

/// Lets go of the slot until what is waited for is there.
async fn defer(attempt: &Attempt, awaited: Awaited, gives_up: Option<Timestamp>) -> Outcome {
    let until = after(attempt.shared.clock.now(), LOOK_AGAIN);
    let until = gives_up.map_or(until, |gives_up| until.min(gives_up));
    // An engine that is gone does not wait.
    let _ = attempt.mailbox.send(Answer::Awaits { instance: attempt.instance.clone(), awaited }).await;
    Outcome::Deferred(until)
}

/// Makes the run and notes it, in this order: found again by its id when the process dies in between.
async fn make(attempt: &mut Attempt, others: &dyn Others, trigger: &TriggerDag) -> Result<RunId, Outcome> {
    let shared = attempt.shared.clone();
    let depth = others::depth(shared.header.cause.as_ref()) + 1;
    if depth > CHAIN_MAX {
        return Err(Outcome::Failed(
            failure(FailureClass::Final, format!("{CHAIN_MAX} runs have started one another, and this would be one more"))
                .effect("no run was made")
                .hint(format!("DAG `{}` and DAG `{}` seem to start each other without end", shared.header.dag_id, trigger.dag)),
        ));
    }
    let mut params = Map::new();
    for (name, value) in &trigger.params {
        match shared.renderer.render_value(value, &attempt.source, &attempt.context) {
            Ok(value) => drop(params.insert(name.clone(), value)),
            Err(error) => return Err(Outcome::Failed(of_template(&error).effect("no run was made"))),
        }
    }
    let logical_date = date(attempt, trigger.logical_date.as_ref())?;
    let number = attempt.committed.len();
    let run_id = others::child_id(&shared.header.run_id, &attempt.instance, attempt.tries_before, number);
    let cause = Cause::Task { run: shared.header.run_id.clone(), instance: attempt.instance.clone(), depth };
    let child = Child { run_id: run_id.clone(), dag: trigger.dag.clone(), params, logical_date, cause };
    // What leaves the run waits for its log.
    attempt.wait_for_log().await?;
    let made = tokio::select! {
        biased;
        made = others.make(child) => made,
        reason = attempt.stopper.wait() => return Err(match stopped(&reason, "the other run may have been made") {
            // Asked at the wrong moment, it may be there or not: its id tells.
            Outcome::Failed(failure) | Outcome::Unknown(failure) => Outcome::Unknown(failure),
            other => other,
        }),
    };
    if let Err(refused) = made {
        let class = if refused.is_permanent { FailureClass::Permanent } else { FailureClass::Transient };
        let mut failed = failure(class, refused.message).effect("no run was made");
        failed.causes = refused.causes;
        failed.hint = refused.hint;
        return Err(Outcome::Failed(failed));
    }
    attempt.log.line(shared.clock.now(), "INFO", &format!("started run {run_id} of DAG `{}`", trigger.dag)).await;
    let commit = Arc::new(commit(&run_id, number, Evidence::Acknowledged));
    let told = Command::CommitSegment { instance: attempt.instance.clone(), try_number: attempt.try_number, commit };
    // An engine that is gone has ended the run in this process.
    let _ = attempt.mailbox.send(Answer::Command(told)).await;
    Ok(run_id)
}

/// What is kept of a run that was made.
pub(crate) fn commit(run: &RunId, number: usize, evidence: Evidence) -> SegmentCommit {
    SegmentCommit {
        segment: u32::try_from(number).unwrap_or(u32::MAX),
        digest: run.to_string(),
        promise: Promise::ExactlyOnce,
        evidence,
        statements: Vec::new(),
        result: None,
    }
}

/// The run that a task has made.
fn run_of(commit: &SegmentCommit) -> Option<RunId> {
    (!commit.digest.is_empty()).then(|| RunId::new(commit.digest.clone()))
}

fn date(attempt: &Attempt, template: Option<&Template>) -> Result<Timestamp, Outcome> {
    let Some(template) = template else {
        return attempt.shared.header.logical_date.ok_or_else(|| {
            Outcome::Failed(
                failure(FailureClass::Final, "this run is about no date, so the date of the other run is not known")
                    .effect("nothing was changed")
                    .hint("say it: `logical_date: ...`"),
            )
        });
    };
    let text =
        attempt.shared.renderer.render(template, &attempt.context).map_err(|error| Outcome::Failed(of_template(&error)))?;
    text.trim().parse().map_err(|error| {
        Outcome::Failed(
            failure(FailureClass::Permanent, format!("`logical_date` is `{}`, which is no point in time: {error}", text.trim()))
                .effect("nothing was changed")
                .hint("write it as 2025-05-01T06:00:00Z"),
        )
    })
}

fn after(start: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| start.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

/// Nothing here knows of other runs.
fn alone() -> Outcome {
    Outcome::Failed(
        failure(FailureClass::Final, "this run is driven where no other runs are known")
            .effect("nothing was changed")
            .hint("let the service drive it: `backstop up`"),
    )
}
