//! Events in words, one line each: what `run` tells where there is no terminal, and what `runs events` shows.

use crate::words;
use backstop_core::Event;
use backstop_core::event::{
    CallbackId, CancelCause, Evidence, Failure, FailureClass, Mark as Outcome, Occasion, Promise, Restart, SegmentCommit,
    SkipCause,
};
use jiff::Timestamp;
use std::collections::BTreeSet;

/// What kind of news it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Something went well.
    Good,
    /// Something failed.
    Bad,
    /// Somebody should look at it, now or later.
    Warn,
    /// Something began or goes on.
    Plain,
    /// Of interest to few: left out while a run is watched.
    Detail,
}

impl Mark {
    /// One character wide; the words beside it say the same.
    pub(crate) fn glyph(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Bad => "✗",
            Self::Warn => "!",
            Self::Plain => "·",
            Self::Detail => " ",
        }
    }
}

/// A line about an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) mark: Mark,
    /// The task instance, or `run`.
    pub(crate) subject: String,
    pub(crate) text: String,
}

const FAILURE_CHARACTERS: usize = 200;

/// An event as a line. `started` is when the instance's attempt began, where that is known.
pub(crate) fn line(event: &Event, at: Timestamp, started: Option<Timestamp>) -> Line {
    let took = started.map(|started| format!(" after {}", words::between(started, at))).unwrap_or_default();
    let of = |subject: &dyn std::fmt::Display, mark, text: String| Line { mark, subject: subject.to_string(), text };
    match event {
        Event::RunCreated(header) => {
            let about = header.logical_date.map(|date| format!(", logical date {}", words::time(date))).unwrap_or_default();
            let dry = if header.dry_run { ", dry run" } else { "" };
            of(&"run", Mark::Plain, format!("created: DAG {}{about}{dry}, run {}", header.dag_id, header.run_id))
        }
        Event::RunStarted { at: _ } => of(&"run", Mark::Detail, "started".to_owned()),
        Event::RunResumed { epoch } => of(&"run", Mark::Plain, format!("taken up again (epoch {epoch})")),
        Event::TaskScheduled { instance } => of(instance, Mark::Detail, "scheduled".to_owned()),
        Event::TaskExpanded { task, items } => {
            of(task, Mark::Plain, format!("mapped over {}", words::count(items.len(), "item")))
        }
        Event::AttemptStarted { instance, try_number, epoch: _, at: _ } => {
            of(instance, Mark::Plain, format!("started, try {try_number}"))
        }
        Event::SegmentCommitted { instance, try_number: _, commit } => of(instance, Mark::Plain, committed(commit)),
        Event::AttemptSucceeded { instance, try_number, result: _, follow } => {
            let tries = if *try_number > 1 { format!(" on try {try_number}") } else { String::new() };
            let follow = match follow {
                Some(tasks) if tasks.is_empty() => ", follows nothing".to_owned(),
                Some(tasks) => format!(", follows {}", join(tasks)),
                None => String::new(),
            };
            of(instance, Mark::Good, format!("success{tries}{took}{follow}"))
        }
        Event::AttemptDeferred { instance, try_number: _, until } => {
            of(instance, Mark::Plain, format!("not yet: looks again at {}", words::time(*until)))
        }
        Event::AttemptFailed { instance, try_number, failure, is_final } => {
            let again = if *is_final { "" } else { ", will be tried again" };
            let mark = if *is_final { Mark::Bad } else { Mark::Warn };
            let (mark, how) = match failure.class {
                FailureClass::Cancelled => (Mark::Warn, "was cancelled"),
                FailureClass::Transient
                | FailureClass::Permanent
                | FailureClass::Final
                | FailureClass::TimedOut
                | FailureClass::Interrupted => (mark, "failed"),
            };
            of(instance, mark, format!("try {try_number} {how}{took}{again}: {}", in_short(failure)))
        }
        Event::AttemptHeld { instance, try_number, .. } => {
            of(instance, Mark::Plain, format!("try {try_number} done, not committed{took}"))
        }
        Event::GroupRolledBack { group, members, failure, is_final } => {
            let next = if *is_final { "" } else { "; all of it runs again" };
            let what = match members.len() {
                0 => "its transaction was rolled back".to_owned(),
                _ => format!("its transaction was rolled back: {} undone", words::count(members.len(), "task")),
            };
            of(group, Mark::Warn, format!("{what}{next}: {}", in_short(failure)))
        }
        Event::AttemptUnknown { instance, try_number, failure } => {
            of(instance, Mark::Warn, format!("try {try_number} is in doubt{took}: {}", in_short(failure)))
        }
        Event::UnknownResolved { instance, try_number, evidence } => {
            of(instance, Mark::Plain, format!("try {try_number} is not in doubt any more: {}", known_by(evidence)))
        }
        Event::RetryScheduled { instance, at: next } => {
            of(instance, Mark::Plain, format!("next try in {}", words::between(at, *next)))
        }
        Event::TimerFired { instance } => of(instance, Mark::Detail, "its wait is over".to_owned()),
        Event::TaskSkipped { instance, cause } => of(instance, Mark::Plain, format!("skipped: {}", skipped(cause))),
        Event::TaskUpstreamFailed { instance } => of(instance, Mark::Warn, "upstream_failed: it will not run".to_owned()),
        Event::CallbackScheduled { callback } => {
            of(&subject(callback), Mark::Detail, format!("{} wanted", callback_name(callback)))
        }
        Event::CallbackFinished { callback, failure: None } => {
            of(&subject(callback), Mark::Plain, format!("{} ran", callback_name(callback)))
        }
        Event::CallbackFinished { callback, failure: Some(failure) } => {
            of(&subject(callback), Mark::Bad, format!("{} failed: {}", callback_name(callback), in_short(failure)))
        }
        Event::OperatorActed { who, why, what } => of(&"run", Mark::Plain, act(who, what, why)),
        Event::CancelRequested { reason, cause } => {
            let what = match cause {
                CancelCause::Asked => "is being cancelled",
                CancelCause::DagrunTimeout => "took too long and is being ended",
            };
            of(&"run", Mark::Warn, format!("{what}: {reason}"))
        }
        Event::AssetsUpdated { instance, try_number: _, assets } => {
            of(instance, Mark::Plain, format!("updated {}", join(assets)))
        }
        Event::DeadlineAtRisk { .. } | Event::DeadlineMissed { .. } => of(&"run", Mark::Warn, deadline(event)),
        Event::RunPinned { version, variables: _ } => {
            of(&"run", Mark::Detail, format!("goes on with version {} of its files", words::version(version)))
        }
        Event::RunReopened => of(&"run", Mark::Plain, "reopened: it goes on".to_owned()),
        Event::InstancesCleared { instances, restart } => {
            let from = match restart {
                Restart::Beginning => "run again",
                Restart::LastCommit => "go on behind what they committed",
            };
            of(&"run", Mark::Plain, format!("these {from}: {}", join(instances)))
        }
        Event::TaskUnexpanded { task, count: _ } => of(task, Mark::Detail, "finds its items anew".to_owned()),
        Event::InstanceMarked { instance, mark } => {
            let (mark, word) = match mark {
                Outcome::Success => (Mark::Good, "success"),
                Outcome::Failed => (Mark::Bad, "failed"),
            };
            of(instance, mark, format!("marked {word} by a person"))
        }
        Event::InstanceCancelRequested { instance, reason, then: _ } => {
            of(instance, Mark::Warn, format!("is being cancelled: {reason}"))
        }
        Event::AnomalyNoticed { instance, try_number: _, anomaly } => of(instance, Mark::Warn, anomaly.to_string()),
        Event::RunStuck { instances } => of(&"run", Mark::Warn, format!("stuck: it is not known what {} did", join(instances))),
        Event::RunSucceeded => of(&"run", Mark::Good, "success".to_owned()),
        Event::RunFailed => of(&"run", Mark::Bad, "failed".to_owned()),
        Event::RunCancelled => of(&"run", Mark::Warn, "cancelled".to_owned()),
    }
}

/// What becomes of the callbacks of a run that is taken up again, behind the line of that event; empty for all other events. `wanted` are those
/// whose end is not recorded, from one event to the next.
pub(crate) fn callbacks_left(event: &Event, wanted: &mut BTreeSet<CallbackId>) -> String {
    match event {
        Event::CallbackScheduled { callback } => drop(wanted.insert(callback.clone())),
        Event::CallbackFinished { callback, failure: _ } => drop(wanted.remove(callback)),
        Event::RunResumed { .. } if !wanted.is_empty() => {
            let names: Vec<String> = wanted.iter().map(|id| format!("{} of {}", occasion(id), subject(id))).collect();
            let runs = if names.len() == 1 { "runs again: its end was" } else { "run again: their ends were" };
            return format!("; {} {runs} never recorded", join(&names));
        }
        _ => {}
    }
    String::new()
}

fn committed(commit: &SegmentCommit) -> String {
    let number = commit.segment + 1;
    let statements = match commit.statements.len() {
        0 => String::new(),
        some => format!(", {}", words::count(some, "statement")),
    };
    let rows: u64 = commit.statements.iter().filter_map(|record| record.rows_affected).sum();
    let rows = match rows {
        0 => String::new(),
        1 => ", 1 row changed".to_owned(),
        many => format!(", {} rows changed", words::grouped(many)),
    };
    let found = match &commit.evidence {
        Evidence::Acknowledged | Evidence::ReadOnly => String::new(),
        other => format!(" ({})", known_by(other)),
    };
    match &commit.promise {
        Promise::ExactlyOnce => format!("segment {number} committed{statements}{rows}{found}"),
        // Of a dry run, or ended by the script's own ROLLBACK.
        Promise::ReadOnly if !rows.is_empty() => format!("segment {number} rolled back{statements}{rows}{found}"),
        Promise::ReadOnly => format!("segment {number} read{statements}{found}"),
        Promise::AtLeastOnce(reason) => format!("segment {number} done{statements}{rows}, at least once: {reason}{found}"),
    }
}

/// How an outcome is known, in words.
/// Who did what, and why where they said so.
pub(crate) fn act(who: &str, what: &str, why: &str) -> String {
    match why.trim() {
        "" => format!("{who} {what}"),
        why => format!("{who} {what}, because: {why}"),
    }
}

/// How something is known.
pub(crate) fn known_by(evidence: &Evidence) -> String {
    match evidence {
        Evidence::Acknowledged => "the server said so".to_owned(),
        Evidence::Marker => "its marker shows that it committed".to_owned(),
        Evidence::Tombstone => "it did not commit, and can not any more".to_owned(),
        Evidence::ReadOnly => "it only reads".to_owned(),
        Evidence::Allowed => "the task allows to run it again".to_owned(),
        Evidence::Operator { who, why, took_effect } => {
            let effect = if *took_effect { "took effect" } else { "did not take effect" };
            act(who, &format!("says that it {effect}"), why)
        }
    }
}

/// Why an instance was skipped, in words.
pub(crate) fn skipped(cause: &SkipCause) -> String {
    match cause {
        SkipCause::TriggerRule => "by its trigger rule".to_owned(),
        SkipCause::Branch(task) => format!("branch {task} went elsewhere"),
        SkipCause::Own(reason) => reason.clone(),
        SkipCause::NothingToMap => "there was nothing to map over".to_owned(),
        SkipCause::RunCancelled => "the run was cancelled".to_owned(),
    }
}

/// A failure in one line.
pub(crate) fn in_short(failure: &Failure) -> String {
    // The message names the statement.
    let at = failure.place.as_ref().map(|at| format!("{}:{}:{}: ", at.file, at.line, at.column)).unwrap_or_default();
    format!("{at}{}", words::short(&failure.message, FAILURE_CHARACTERS))
}

/// What is told of a deadline; empty for all other events.
pub(crate) fn deadline(event: &Event) -> String {
    match event {
        Event::DeadlineAtRisk { deadline: _, due_at, done_at } => {
            let (due, done) = (words::time(*due_at), words::time(*done_at));
            format!("its deadline is {due}, and half of its past runs took until {done}: it will probably be missed")
        }
        Event::DeadlineMissed { deadline: _, due_at } => {
            format!("its deadline is missed: it had to be done at {}", words::time(*due_at))
        }
        _ => String::new(),
    }
}

/// `callback on_failure`, and its place where it is not the first.
pub(crate) fn callback_name(callback: &CallbackId) -> String {
    format!("callback {}", occasion(callback))
}

/// `on_failure`, and its place where it is not the first.
pub(crate) fn occasion(callback: &CallbackId) -> String {
    let occasion = match callback.occasion {
        Occasion::Failure => "on_failure",
        Occasion::Retry => "on_retry",
        Occasion::Success => "on_success",
        Occasion::Deadline => "on_deadline",
        Occasion::Stuck => "on_stuck",
    };
    if callback.place == 0 { occasion.to_owned() } else { format!("{occasion}[{}]", callback.place) }
}

/// What a callback is about.
pub(crate) fn subject(callback: &CallbackId) -> String {
    callback.instance.as_ref().map_or_else(|| "run".to_owned(), ToString::to_string)
}

/// The first of many, with commas.
pub(crate) fn join(names: &[impl ToString]) -> String {
    const NAMED_MAX: usize = 10;
    let mut text = names.iter().take(NAMED_MAX).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMED_MAX));
    }
    text
}
