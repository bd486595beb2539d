//! How events become rows: pure folds, shared by all stores.
//!
//! A run's own row is small and is folded whole ([`RunFold`]). Instances are many, and the store that keeps them in a database must
//! not read each one back to change it; so an event gives a [`Patch`] that can be merged with later ones and applied to a row that
//! nobody has looked at. For every sequence of events, applying the patches one by one, or merged in any grouping, gives the same rows.

use crate::Recorded;
use crate::log::to_microsecond;
use crate::view::{InstanceRow, StatementRow};
use backstop_core::event::{AssetUpdate, Event, Evidence, Mark, StatementRecord};
use backstop_core::state::RunPhase;
use backstop_core::{InstanceId, InstancePhase, RunId, TaskId};
use jiff::Timestamp;

/// What is folded of a run as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunFold {
    pub(crate) phase: RunPhase,
    /// Where the run goes on when it is stuck no more.
    pub(crate) is_cancel_requested: bool,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    /// Scheduled and not finished. A run that is over may have some: they run after its end, or in the next process.
    pub(crate) callbacks_pending: u64,
    /// What it goes on with, where that is not what it was created with.
    pub(crate) pinned: Option<String>,
}

/// A run's phase by its name in lists; `None` when there is no such phase.
pub(crate) fn parse_phase(name: &str) -> Option<RunPhase> {
    RunPhase::ALL.into_iter().find(|phase| phase.as_str() == name)
}

impl RunFold {
    pub(crate) fn new() -> Self {
        Self {
            phase: RunPhase::Queued,
            is_cancel_requested: false,
            started_at: None,
            ended_at: None,
            callbacks_pending: 0,
            pinned: None,
        }
    }

    pub(crate) fn apply(&mut self, at: Timestamp, event: &Event) {
        match event {
            // Also of a run that is over.
            Event::CallbackScheduled { .. } => self.callbacks_pending += 1,
            Event::CallbackFinished { .. } => self.callbacks_pending = self.callbacks_pending.saturating_sub(1),
            Event::RunPinned { version, variables: _ } => self.pinned = Some(version.clone()),
            Event::RunReopened => {
                if self.phase.is_terminal() {
                    let (started_at, callbacks_pending) = (self.started_at, self.callbacks_pending);
                    *self = Self { started_at, callbacks_pending, pinned: self.pinned.take(), ..Self::new() };
                }
            }
            // It stays over: what else follows is about a process that runs its callbacks.
            _ if self.phase.is_terminal() => {}
            Event::RunCreated(_) => *self = Self::new(),
            Event::RunStarted { at } => {
                self.phase = RunPhase::Running;
                self.started_at = Some(to_microsecond(*at));
            }
            Event::RunStuck { .. } => self.phase = RunPhase::Stuck,
            // Evidence, a person's word or a new process is what ends being stuck.
            Event::UnknownResolved { .. } | Event::RunResumed { .. } => self.leave_stuck(),
            Event::SegmentCommitted { commit, .. } => {
                if let Evidence::Operator { .. } = commit.evidence {
                    self.leave_stuck();
                }
            }
            Event::CancelRequested { .. } => {
                self.phase = RunPhase::Cancelling;
                self.is_cancel_requested = true;
            }
            Event::RunSucceeded => self.end(RunPhase::Succeeded, at),
            Event::RunFailed => self.end(RunPhase::Failed, at),
            Event::RunCancelled => self.end(RunPhase::Cancelled, at),
            Event::TaskScheduled { .. }
            | Event::TaskExpanded { .. }
            | Event::AttemptStarted { .. }
            | Event::AttemptSucceeded { .. }
            | Event::AttemptHeld { .. }
            | Event::GroupRolledBack { .. }
            | Event::AttemptDeferred { .. }
            | Event::AttemptFailed { .. }
            | Event::AttemptUnknown { .. }
            | Event::RetryScheduled { .. }
            | Event::TimerFired { .. }
            | Event::TaskSkipped { .. }
            | Event::TaskUpstreamFailed { .. }
            | Event::InstancesCleared { .. }
            | Event::TaskUnexpanded { .. }
            | Event::InstanceMarked { .. }
            | Event::InstanceCancelRequested { .. }
            | Event::AssetsUpdated { .. }
            | Event::DeadlineAtRisk { .. }
            | Event::DeadlineMissed { .. }
            | Event::AnomalyNoticed { .. }
            | Event::OperatorActed { .. } => {}
        }
    }

    /// As [`crate::RunRow::is_finished`].
    pub(crate) fn is_finished(&self) -> bool {
        self.ended_at.is_some() && self.callbacks_pending == 0
    }

    fn leave_stuck(&mut self) {
        if self.phase == RunPhase::Stuck {
            self.phase = if self.is_cancel_requested { RunPhase::Cancelling } else { RunPhase::Running };
        }
    }

    fn end(&mut self, phase: RunPhase, at: Timestamp) {
        self.phase = phase;
        self.ended_at = Some(at);
    }
}

/// A change of an instance's row. A field that is `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patch {
    /// The event that made it; of a merged patch, the first. It is the instance's place in the list when it was not seen before.
    pub(crate) seq: u64,
    /// The row of before, if any, goes away first.
    pub(crate) replaces: bool,
    /// There is no row afterwards. Together with `replaces`.
    pub(crate) removes: bool,
    pub(crate) state: Option<&'static str>,
    pub(crate) try_number: Option<u32>,
    /// The inner `None` clears it, here and below.
    pub(crate) started_at: Option<Option<Timestamp>>,
    /// The start holds only where the row tells of no try that goes on: an attempt behind a deferral is the next look of the same try.
    pub(crate) may_go_on: bool,
    pub(crate) ended_at: Option<Option<Timestamp>>,
    pub(crate) error: Option<Option<String>>,
}

impl Patch {
    fn to(state: &'static str, seq: u64) -> Self {
        Self { seq, state: Some(state), ..Self::default() }
    }

    fn ended(self, at: Timestamp) -> Self {
        Self { ended_at: Some(Some(at)), ..self }
    }

    fn tried(self, try_number: u32) -> Self {
        Self { try_number: Some(try_number), ..self }
    }

    /// Nothing of its tries is left but their number.
    fn cleared(seq: u64) -> Self {
        Self { started_at: Some(None), ended_at: Some(None), error: Some(None), ..Self::to(NO_STATE, seq) }
    }

    fn removal(seq: u64) -> Self {
        Self { seq, replaces: true, removes: true, ..Self::default() }
    }

    /// Makes this patch do what it does, and then what `later` does.
    pub(crate) fn merge(&mut self, later: Self) {
        if later.replaces {
            *self = later;
            return;
        }
        if self.removes {
            // The instance comes back as a new one: at the end of the list.
            *self = Self { replaces: true, ..later };
            return;
        }
        self.state = later.state.or(self.state);
        self.try_number = later.try_number.or(self.try_number);
        self.merge_start(&later);
        self.ended_at = later.ended_at.or(self.ended_at);
        self.error = later.error.or(self.error.take());
    }

    fn merge_start(&mut self, later: &Self) {
        let goes_on = match (self.started_at, self.ended_at) {
            (Some(Some(_)), Some(None)) => Some(true),
            (Some(_), _) | (_, Some(_)) => Some(false),
            (None, None) => None,
        };
        match (later.may_go_on, goes_on) {
            (true, Some(true)) => {}
            // Only the row knows.
            (true, None) => (self.started_at, self.may_go_on) = (later.started_at, true),
            (true, Some(false)) => (self.started_at, self.may_go_on) = (later.started_at, false),
            (false, _) if later.started_at.is_some() => (self.started_at, self.may_go_on) = (later.started_at, false),
            (false, _) => {}
        }
    }

    /// Changes a row; `None` is no row.
    pub(crate) fn apply(&self, row: &mut Option<SeenInstance>, instance: &InstanceId) {
        if self.replaces {
            *row = None;
        }
        if self.removes {
            return;
        }
        let seen = row.get_or_insert_with(|| SeenInstance::new(instance.clone(), self.seq));
        if let Some(state) = self.state {
            seen.row.state = state.to_owned();
        }
        if let Some(try_number) = self.try_number {
            seen.row.try_number = try_number;
        }
        let goes_on = self.may_go_on && seen.row.started_at.is_some() && seen.row.ended_at.is_none();
        if let Some(started_at) = self.started_at.filter(|_| !goes_on) {
            seen.row.started_at = started_at;
        }
        if let Some(ended_at) = self.ended_at {
            seen.row.ended_at = ended_at;
        }
        if let Some(error) = &self.error {
            seen.row.error.clone_from(error);
        }
    }
}

/// An instance's row with its place in the list.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenInstance {
    /// The event by which it was first seen. Several instances of one expansion share it, and are ordered by their map index.
    pub(crate) first_seq: u64,
    pub(crate) row: InstanceRow,
}

/// The state of a row that only an event without a state of its own has touched.
pub(crate) const NO_STATE: &str = "none";

impl SeenInstance {
    fn new(instance: InstanceId, first_seq: u64) -> Self {
        let row =
            InstanceRow { instance, state: NO_STATE.to_owned(), try_number: 0, started_at: None, ended_at: None, error: None };
        Self { first_seq, row }
    }
}

/// Gives the patches of one event, each with its instance.
pub(crate) fn instance_patches(recorded_seq: u64, at: Timestamp, event: &Event, mut give: impl FnMut(&InstanceId, Patch)) {
    let to = |state| Patch::to(state, recorded_seq);
    match event {
        Event::TaskScheduled { instance } | Event::TimerFired { instance } => give(instance, to("scheduled")),
        Event::TaskExpanded { task, items } => expansion(recorded_seq, task, items.len(), give),
        Event::AttemptStarted { instance, try_number, epoch: _, at } => give(
            instance,
            Patch {
                started_at: Some(Some(to_microsecond(*at))),
                may_go_on: true,
                ended_at: Some(None),
                ..to("running").tried(*try_number)
            },
        ),
        Event::AttemptSucceeded { instance, try_number, .. } => give(instance, to("success").tried(*try_number).ended(at)),
        Event::AttemptHeld { instance, try_number, .. } => {
            give(instance, to(InstancePhase::Held.as_str()).tried(*try_number).ended(at));
        }
        Event::GroupRolledBack { group, members, failure, is_final: false } => {
            members.iter().for_each(|member| give(member, Patch::cleared(recorded_seq)));
            let error = Some(Some(failure.message.clone()));
            give(&InstanceId::single(group.clone()), Patch { error, ..Patch::cleared(recorded_seq) });
        }
        Event::GroupRolledBack { members, failure, is_final: true, .. } => {
            let error = Some(Some(failure.message.clone()));
            let undone = Patch { error, ..to(InstancePhase::RolledBack.as_str()).ended(at) };
            members.iter().for_each(|member| give(member, undone.clone()));
        }
        Event::AttemptDeferred { instance, try_number, .. } => give(instance, to("deferred").tried(*try_number)),
        Event::AttemptFailed { instance, try_number, failure, is_final } => {
            let state = if *is_final { "failed" } else { "up_for_retry" };
            give(instance, Patch { error: Some(Some(failure.message.clone())), ..to(state).tried(*try_number).ended(at) });
        }
        Event::AttemptUnknown { instance, try_number, failure } => {
            give(instance, Patch { error: Some(Some(failure.message.clone())), ..to("in_doubt").tried(*try_number).ended(at) });
        }
        // Where the instance goes from here is said by the event after it, in the same append.
        Event::UnknownResolved { instance, .. } => give(instance, to("scheduled")),
        Event::RetryScheduled { instance, .. } => give(instance, to("up_for_retry")),
        Event::TaskSkipped { instance, .. } => give(instance, to("skipped").ended(at)),
        Event::TaskUpstreamFailed { instance } => give(instance, to("upstream_failed").ended(at)),
        Event::InstancesCleared { instances, restart: _ } => {
            instances.iter().for_each(|instance| give(instance, Patch::cleared(recorded_seq)));
        }
        Event::TaskUnexpanded { task, count } => unexpansion(recorded_seq, task, *count, give),
        Event::InstanceMarked { instance, mark } => {
            let state = match mark {
                Mark::Success => "success",
                Mark::Failed => "failed",
            };
            give(instance, Patch { error: Some(None), ..to(state).ended(at) });
        }
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::SegmentCommitted { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::InstanceCancelRequested { .. }
        | Event::AssetsUpdated { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::AnomalyNoticed { .. }
        | Event::RunPinned { .. }
        | Event::RunReopened
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => {}
    }
}

/// The unexpanded instance comes back in the place of the expanded ones.
fn unexpansion(seq: u64, task: &TaskId, count: u32, mut give: impl FnMut(&InstanceId, Patch)) {
    for index in 0..count {
        give(&InstanceId { task: task.clone(), map_index: Some(index) }, Patch::removal(seq));
    }
    give(&InstanceId::single(task.clone()), Patch::cleared(seq));
}

/// The expanded instances replace the unexpanded one. Without items it stays, to be skipped.
fn expansion(seq: u64, task: &TaskId, items: usize, mut give: impl FnMut(&InstanceId, Patch)) {
    if items == 0 {
        return;
    }
    give(&InstanceId::single(task.clone()), Patch::removal(seq));
    for index in 0..u32::try_from(items).unwrap_or(u32::MAX) {
        give(&InstanceId { task: task.clone(), map_index: Some(index) }, Patch::to("scheduled", seq));
    }
}

/// The statements that an event tells of, with what they belong to.
pub(crate) struct EventStatements<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) try_number: u32,
    pub(crate) segment: Option<u32>,
    /// They are in a transaction that is not committed: another event [settles](settled) what became of them.
    pub(crate) is_open: bool,
    pub(crate) records: &'a [StatementRecord],
}

impl EventStatements<'_> {
    /// As a list shows them.
    pub(crate) fn rows(&self) -> Vec<StatementRow> {
        let Self { instance, try_number, segment, is_open: _, records } = *self;
        let row =
            |record: &StatementRecord| StatementRow { instance: instance.clone(), try_number, segment, record: record.clone() };
        records.iter().map(row).collect()
    }
}

/// The statements of one event, if it has any. Those of callbacks are not of an attempt, and are only in the log.
pub(crate) fn statements(event: &Event) -> Option<EventStatements<'_>> {
    let found = match event {
        Event::SegmentCommitted { instance, try_number, commit } => {
            let (segment, records) = (Some(commit.segment), commit.statements.as_slice());
            EventStatements { instance, try_number: *try_number, segment, is_open: false, records }
        }
        Event::AttemptHeld { instance, try_number, statements: records, .. } => {
            EventStatements { instance, try_number: *try_number, segment: None, is_open: true, records }
        }
        Event::AttemptFailed { instance, try_number, failure, .. } | Event::AttemptUnknown { instance, try_number, failure } => {
            let records = failure.statements.as_slice();
            EventStatements { instance, try_number: *try_number, segment: None, is_open: false, records }
        }
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::TaskScheduled { .. }
        | Event::TaskExpanded { .. }
        | Event::AttemptStarted { .. }
        | Event::AttemptSucceeded { .. }
        | Event::GroupRolledBack { .. }
        | Event::AttemptDeferred { .. }
        | Event::UnknownResolved { .. }
        | Event::RetryScheduled { .. }
        | Event::TimerFired { .. }
        | Event::TaskSkipped { .. }
        | Event::TaskUpstreamFailed { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::InstancesCleared { .. }
        | Event::TaskUnexpanded { .. }
        | Event::InstanceMarked { .. }
        | Event::InstanceCancelRequested { .. }
        | Event::AssetsUpdated { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::AnomalyNoticed { .. }
        | Event::RunPinned { .. }
        | Event::RunReopened
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => return None,
    };
    (!found.records.is_empty()).then_some(found)
}

/// What became of statements of which an earlier event told that they were not committed.
pub(crate) enum Settled<'a> {
    /// Those of this try are, in its one segment.
    Committed(&'a InstanceId, u32),
    /// None of these.
    RolledBack(&'a [InstanceId]),
}

/// What an event says of statements in a transaction, if it is of one. Most successes are of none.
pub(crate) fn settled(event: &Event) -> Option<Settled<'_>> {
    match event {
        Event::AttemptSucceeded { instance, try_number, .. } => Some(Settled::Committed(instance, *try_number)),
        Event::GroupRolledBack { members, .. } => Some(Settled::RolledBack(members)),
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::TaskScheduled { .. }
        | Event::TaskExpanded { .. }
        | Event::AttemptStarted { .. }
        | Event::SegmentCommitted { .. }
        | Event::AttemptHeld { .. }
        | Event::AttemptFailed { .. }
        | Event::AttemptUnknown { .. }
        | Event::AttemptDeferred { .. }
        | Event::UnknownResolved { .. }
        | Event::RetryScheduled { .. }
        | Event::TimerFired { .. }
        | Event::TaskSkipped { .. }
        | Event::TaskUpstreamFailed { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::InstancesCleared { .. }
        | Event::TaskUnexpanded { .. }
        | Event::InstanceMarked { .. }
        | Event::InstanceCancelRequested { .. }
        | Event::AssetsUpdated { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::AnomalyNoticed { .. }
        | Event::RunPinned { .. }
        | Event::RunReopened
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => None,
    }
}

/// The updates of assets that an event tells of.
pub(crate) fn asset_updates<'e>(run: &'e RunId, at: Timestamp, event: &'e Event) -> impl Iterator<Item = AssetUpdate> + 'e {
    let told = match event {
        Event::AssetsUpdated { instance, try_number: _, assets } => Some((instance, assets)),
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::TaskScheduled { .. }
        | Event::TaskExpanded { .. }
        | Event::AttemptStarted { .. }
        | Event::SegmentCommitted { .. }
        | Event::AttemptSucceeded { .. }
        | Event::AttemptHeld { .. }
        | Event::GroupRolledBack { .. }
        | Event::AttemptDeferred { .. }
        | Event::AttemptFailed { .. }
        | Event::AttemptUnknown { .. }
        | Event::UnknownResolved { .. }
        | Event::RetryScheduled { .. }
        | Event::TimerFired { .. }
        | Event::TaskSkipped { .. }
        | Event::TaskUpstreamFailed { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::AnomalyNoticed { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::InstancesCleared { .. }
        | Event::TaskUnexpanded { .. }
        | Event::InstanceMarked { .. }
        | Event::InstanceCancelRequested { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::RunPinned { .. }
        | Event::RunReopened
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => None,
    };
    told.into_iter().flat_map(move |(instance, assets)| {
        assets.iter().map(move |asset| AssetUpdate { asset: asset.clone(), run: run.clone(), instance: instance.clone(), at })
    })
}

/// All projections of one run, kept in memory.
#[derive(Clone, Debug)]
pub(crate) struct Projection {
    pub(crate) run: RunFold,
    instances: std::collections::HashMap<InstanceId, SeenInstance>,
    pub(crate) statements: Vec<StatementRow>,
    /// Places of those in transactions that are not settled, by their instances.
    open: std::collections::HashMap<InstanceId, Vec<usize>>,
}

impl Projection {
    pub(crate) fn new() -> Self {
        Self {
            run: RunFold::new(),
            instances: std::collections::HashMap::new(),
            statements: Vec::new(),
            open: std::collections::HashMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, recorded: &Recorded) {
        let Recorded { seq, at, event } = recorded;
        self.run.apply(*at, event);
        instance_patches(*seq, *at, event, |instance, patch| {
            let mut row = self.instances.remove(instance);
            patch.apply(&mut row, instance);
            if let Some(row) = row {
                self.instances.insert(instance.clone(), row);
            }
        });
        if let Some(told) = statements(event) {
            let first = self.statements.len();
            self.statements.extend(told.rows());
            if told.is_open {
                self.open.entry(told.instance.clone()).or_default().extend(first..self.statements.len());
            }
        }
        match settled(event) {
            Some(Settled::Committed(instance, try_number)) => self.commit_statements(instance, try_number),
            Some(Settled::RolledBack(members)) => members.iter().for_each(|member| drop(self.open.remove(member))),
            None => {}
        }
    }

    fn commit_statements(&mut self, instance: &InstanceId, try_number: u32) {
        let Some(open) = self.open.get_mut(instance) else { return };
        open.retain(|place| {
            let row = &mut self.statements[*place];
            let is_of_this = row.try_number == try_number;
            if is_of_this {
                row.segment = Some(0);
            }
            !is_of_this
        });
    }

    /// In the order they were first seen.
    pub(crate) fn instances(&self) -> Vec<InstanceRow> {
        let mut seen: Vec<&SeenInstance> = self.instances.values().collect();
        seen.sort_by(|a, b| (a.first_seq, &a.row.instance).cmp(&(b.first_seq, &b.row.instance)));
        seen.into_iter().map(|seen| seen.row.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::script;

    /// Applies a run's patches in groups of `group` events, merged within each.
    fn rows_in_groups(events: &[Recorded], group: usize) -> Vec<(InstanceId, SeenInstance)> {
        let mut rows = std::collections::BTreeMap::new();
        for chunk in events.chunks(group) {
            let mut merged: std::collections::BTreeMap<InstanceId, Patch> = std::collections::BTreeMap::new();
            for Recorded { seq, at, event } in chunk {
                instance_patches(*seq, *at, event, |instance, patch| match merged.get_mut(instance) {
                    Some(earlier) => earlier.merge(patch),
                    None => drop(merged.insert(instance.clone(), patch)),
                });
            }
            for (instance, patch) in merged {
                let mut row = rows.remove(&instance);
                patch.apply(&mut row, &instance);
                if let Some(row) = row {
                    rows.insert(instance, row);
                }
            }
        }
        rows.into_iter().collect()
    }

    #[test]
    fn any_grouping_of_patches_gives_the_same_rows() {
        for seed in 0..200 {
            let events = script::recorded(&script::random_run(seed, 120));
            let one_by_one = rows_in_groups(&events, 1);
            for group in [2, 3, 7, 50, 1000] {
                assert_eq!(rows_in_groups(&events, group), one_by_one, "seed {seed}, groups of {group}");
            }
        }
    }
}
