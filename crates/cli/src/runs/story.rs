//! What the log of a run tells beyond the rows of its tasks: why they failed, every try of them; why they did not run; what committed and
//! how that is known; callbacks; and who acted.

use super::EVENTS_AT_ONCE;
use crate::explain::Problem;
use crate::{narrate, words};
use backstop_core::event::{CallbackId, CancelCause, Evidence, Failure, Promise, SegmentCommit, SkipCause};
use backstop_core::{Event, InstanceId, RunId};
use backstop_runtime::Redactor;
use backstop_store::{Recorded, Store};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A try that did not end well.
pub(crate) struct Tried {
    pub(crate) at: Timestamp,
    pub(crate) try_number: u32,
    /// It was not known whether it took effect.
    pub(crate) in_doubt: bool,
    pub(crate) failure: Arc<Failure>,
    /// Of one that was in doubt: what its failure said of its effect, and what is known since.
    known: Option<(String, String)>,
}

/// A segment that took effect, or was only read.
pub(crate) struct Segment {
    pub(crate) instance: InstanceId,
    pub(crate) try_number: u32,
    pub(crate) commit: Arc<SegmentCommit>,
}

/// What a person or a new process did, or what ended the run before its time.
pub(crate) struct Act {
    pub(crate) at: Timestamp,
    pub(crate) text: String,
}

/// A callback that was wanted.
pub(crate) enum Called {
    /// It has not ended yet.
    Pending,
    /// It ended well.
    Ran,
    /// It failed.
    Failed(Arc<Failure>),
}

/// All of it.
#[derive(Default)]
pub(crate) struct Story {
    /// By instance, in order.
    pub(crate) tries: HashMap<InstanceId, Vec<Tried>>,
    pub(crate) skipped: HashMap<InstanceId, SkipCause>,
    pub(crate) segments: Vec<Segment>,
    pub(crate) callbacks: BTreeMap<CallbackId, Called>,
    pub(crate) acts: Vec<Act>,
    /// Why the run ended before its time.
    pub(crate) cancelled: Option<(String, CancelCause)>,
    /// Callbacks whose end is not recorded.
    wanted: BTreeSet<CallbackId>,
    /// The version of its files that it goes on with.
    version: String,
}

impl Story {
    /// Reads the log of a run, as people may see it.
    pub(crate) async fn read(store: &dyn Store, run: &RunId, redactor: &Redactor) -> Result<Self, Problem> {
        let mut story = Self::default();
        let mut after = 0;
        loop {
            let page = store.events(run, after, EVENTS_AT_ONCE).await?;
            for recorded in &page {
                after = recorded.seq;
                story.add(&redactor.mask(recorded));
            }
            if page.len() < EVENTS_AT_ONCE {
                return Ok(story);
            }
        }
    }

    /// The last failure of an instance, also when a later try went well.
    pub(crate) fn last(&self, id: &InstanceId) -> Option<&Tried> {
        self.tries.get(id).and_then(|tries| tries.last())
    }

    /// The callbacks that have not run, by name.
    pub(crate) fn pending_callbacks(&self) -> String {
        let pending = self.callbacks.iter().filter(|(_, called)| matches!(called, Called::Pending));
        narrate::join(
            &pending.map(|(id, _)| format!("{} of {}", narrate::occasion(id), narrate::subject(id))).collect::<Vec<_>>(),
        )
    }

    /// Segments that changed something, and the tasks they belong to.
    pub(crate) fn committed(&self) -> (usize, usize) {
        let changed = || self.segments.iter().filter(|segment| segment.commit.promise != Promise::ReadOnly);
        let tasks: BTreeSet<&InstanceId> = changed().map(|segment| &segment.instance).collect();
        (changed().count(), tasks.len())
    }

    fn add(&mut self, recorded: &Recorded) {
        let at = recorded.at;
        let mut act = |text: String| self.acts.push(Act { at, text });
        match &recorded.event {
            Event::AttemptFailed { instance, try_number, failure, is_final: _ } => {
                self.tried(
                    instance,
                    Tried { at, try_number: *try_number, in_doubt: false, failure: failure.clone(), known: None },
                );
            }
            Event::AttemptUnknown { instance, try_number, failure } => {
                self.tried(
                    instance,
                    Tried { at, try_number: *try_number, in_doubt: true, failure: failure.clone(), known: None },
                );
            }
            Event::UnknownResolved { instance, try_number, evidence } => {
                self.resolved(instance, *try_number, evidence);
                let mut act = |text: String| self.acts.push(Act { at, text });
                if let Evidence::Operator { .. } = evidence {
                    act(format!("try {try_number} of {instance}: {}", narrate::known_by(evidence)));
                }
            }
            Event::TaskSkipped { instance, cause } => drop(self.skipped.insert(instance.clone(), cause.clone())),
            Event::SegmentCommitted { instance, try_number, commit } => {
                self.segments.push(Segment { instance: instance.clone(), try_number: *try_number, commit: commit.clone() })
            }
            Event::CallbackScheduled { callback } => {
                narrate::callbacks_left(&recorded.event, &mut self.wanted);
                self.callbacks.insert(callback.clone(), Called::Pending);
            }
            Event::CallbackFinished { callback, failure } => {
                narrate::callbacks_left(&recorded.event, &mut self.wanted);
                let called = failure.clone().map_or(Called::Ran, Called::Failed);
                self.callbacks.insert(callback.clone(), called);
            }
            Event::OperatorActed { who, why, what } => act(narrate::act(who, what, why)),
            Event::CancelRequested { reason, cause } => {
                act(match cause {
                    CancelCause::Asked => format!("the run was cancelled: {reason}"),
                    CancelCause::DagrunTimeout => format!("the run took longer than its dagrun_timeout: {reason}"),
                });
                self.cancelled = Some((reason.clone(), *cause));
            }
            Event::DeadlineAtRisk { .. } | Event::DeadlineMissed { .. } => act(narrate::deadline(&recorded.event)),
            Event::RunCreated(header) => self.version.clone_from(&header.version),
            // With the same version it only tells which variables there are.
            Event::RunPinned { version, variables: _ } if *version == self.version => {}
            Event::RunPinned { version, variables: _ } => {
                act(format!("the run goes on with version {} of its files", words::version(version)));
                self.version.clone_from(version);
            }
            Event::RunReopened => act("the run was reopened".to_owned()),
            Event::AnomalyNoticed { instance, try_number, anomaly } => act(format!("try {try_number} of {instance}: {anomaly}")),
            Event::InstanceCancelRequested { .. }
            | Event::InstancesCleared { .. }
            | Event::TaskUnexpanded { .. }
            | Event::InstanceMarked { .. } => {}
            Event::GroupRolledBack { group, members, failure, is_final } => {
                let next = if *is_final { "" } else { ", and all of it was run again" };
                let undone = words::count(members.len(), "task");
                act(format!("the transaction of {group} was rolled back, {undone} undone{next}: {}", failure.message));
            }
            Event::RunResumed { epoch } => {
                let left = narrate::callbacks_left(&recorded.event, &mut self.wanted);
                act(format!("the run was taken up again (epoch {epoch}){left}"));
            }
            Event::RunStarted { .. }
            | Event::TaskScheduled { .. }
            | Event::TaskExpanded { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptSucceeded { .. }
            | Event::AttemptHeld { .. }
            | Event::AttemptDeferred { .. }
            | Event::AssetsUpdated { .. }
            | Event::RetryScheduled { .. }
            | Event::TimerFired { .. }
            | Event::TaskUpstreamFailed { .. }
            | Event::RunStuck { .. }
            | Event::RunSucceeded
            | Event::RunFailed
            | Event::RunCancelled => {}
        }
    }

    fn tried(&mut self, instance: &InstanceId, mut tried: Tried) {
        let tries = self.tries.entry(instance.clone()).or_default();
        // What ended in doubt and then failed is told of twice: the second time too as it is known now.
        let before = tries.iter().rev().find(|earlier| earlier.try_number == tried.try_number);
        if let Some((doubt, known)) = before.and_then(|earlier| earlier.known.as_ref())
            && tried.failure.effect == *doubt
        {
            Arc::make_mut(&mut tried.failure).effect.clone_from(known);
        }
        tries.push(tried);
    }

    /// What the failure said about its effect was not known then, and is now.
    fn resolved(&mut self, instance: &InstanceId, try_number: u32, evidence: &Evidence) {
        let mut tries = self.tries.get_mut(instance).into_iter().flatten().rev();
        if let Some(tried) = tries.find(|tried| tried.try_number == try_number && tried.in_doubt) {
            let known = narrate::known_by(evidence);
            let failure = Arc::make_mut(&mut tried.failure);
            let doubt = std::mem::replace(&mut failure.effect, known.clone());
            tried.known = Some((doubt, known));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::TaskId;
    use backstop_core::event::FailureClass;

    #[test]
    fn what_was_found_out_replaces_what_was_not_known() {
        let instance = InstanceId::single(TaskId::new("load"));
        let failure = Arc::new(Failure {
            class: FailureClass::Interrupted,
            message: "its process ended".into(),
            causes: Vec::new(),
            place: None,
            sqlstate: None,
            native_code: None,
            effect: "not known yet".into(),
            hint: None,
            statements: Vec::new(),
        });
        let (unknown, failed) = (failure.clone(), failure);
        let events = [
            Event::AttemptUnknown { instance: instance.clone(), try_number: 1, failure: unknown },
            Event::UnknownResolved { instance: instance.clone(), try_number: 1, evidence: Evidence::Tombstone },
            Event::AttemptFailed { instance: instance.clone(), try_number: 1, failure: failed.clone(), is_final: true },
            Event::AttemptUnknown { instance: instance.clone(), try_number: 2, failure: failed },
        ];
        let mut story = Story::default();
        for (seq, event) in (1..).zip(events) {
            story.add(&Recorded { seq, at: Timestamp::UNIX_EPOCH, event });
        }
        let effects: Vec<&str> = story.tries[&instance].iter().map(|tried| &*tried.failure.effect).collect();
        let known = "it did not commit, and can not any more";
        assert_eq!(effects, [known, known, "not known yet"]);
    }
}
