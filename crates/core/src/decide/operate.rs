//! Commands of people about instances: clear, mark, cancel. Nothing here passes a doubt, and nothing says what took effect.

use super::{callbacks, not_now, unit};
use crate::command::Rejected;
use crate::event::{Afterwards, Event, Failure, FailureClass, Mark, Occasion, Restart};
use crate::id::{InstanceId, TaskIx};
use crate::select::derived_below;
use crate::state::{Instance, InstancePhase, Key, RunPhase, RunState, SkippedBy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Instances that one event names, so that events stay small.
const INSTANCES_AN_EVENT: usize = 1_000;
/// Instances that the account of an act names.
const NAMED_MAX: usize = 10;

pub(super) fn clear(
    state: &RunState,
    instances: &[InstanceId],
    restart: Restart,
    who: String,
    why: String,
) -> Result<Vec<Event>, Rejected> {
    may_act(state, &why)?;
    let instances = unit::whole(state, instances)?;
    let asked = Asked::sort(state, &instances, |instance| instance.phase == InstancePhase::None)?;
    let done = match restart {
        Restart::Beginning => "cleared",
        Restart::LastCommit => "retried",
    };
    let what = format!("{done} {}", asked.names(state));
    let mut events = asked.begin(state, who, &why, what)?;
    let set: BTreeSet<Key> = asked.settled.union(&derived_below(state, &asked.settled)).copied().collect();
    let changing: BTreeSet<TaskIx> = set.iter().chain(&asked.running).map(|key| key.task).collect();
    if restart == Restart::LastCommit {
        refuse_committed_units(state, &set, &changing)?;
    }
    events.extend(cleared(state, &set, restart, &changing));
    refuse_told_done(state, &events)?;
    events.extend(asked.stops(state, &why, Afterwards::Clear(restart)));
    Ok(events)
}

pub(super) fn mark(
    state: &RunState,
    instances: &[InstanceId],
    mark: Mark,
    who: String,
    why: String,
) -> Result<Vec<Event>, Rejected> {
    may_act(state, &why)?;
    let (phase, word) = match mark {
        Mark::Success => (InstancePhase::Success, "success"),
        Mark::Failed => (InstancePhase::Failed, "failed"),
    };
    let instances = unit::whole(state, instances)?;
    let asked = Asked::sort(state, &instances, |instance| instance.phase == phase)?;
    let what = format!("marked {} as {word}", asked.names(state));
    let mut events = asked.begin(state, who, &why, what)?;
    let derived = derived_below(state, &asked.settled);
    events.extend(asked.settled.iter().map(|&key| Event::InstanceMarked { instance: state.id(key), mark }));
    // Nobody asks for effects once more.
    events.extend(cleared(state, &derived, Restart::LastCommit, &BTreeSet::new()));
    events.extend(asked.stops(state, &why, Afterwards::Mark(mark)));
    Ok(events)
}

pub(super) fn cancel_instance(
    state: &RunState,
    instance: InstanceId,
    reason: String,
    who: String,
) -> Result<Vec<Event>, Rejected> {
    may_act(state, &reason)?;
    let key = state.key(&instance).ok_or_else(|| Rejected::UnknownInstance(instance.clone()))?;
    let found = state.find(key).ok_or_else(|| Rejected::UnknownInstance(instance.clone()))?;
    let acted = Event::OperatorActed { who, why: reason.clone(), what: format!("cancelled {instance}") };
    match found.phase {
        InstancePhase::Running => Ok(vec![acted, Event::InstanceCancelRequested { instance, reason, then: Afterwards::Fail }]),
        InstancePhase::Scheduled | InstancePhase::Deferred { .. } | InstancePhase::UpForRetry { .. } => {
            let mut events = vec![acted];
            events.extend(failed_by_cancel(state, key, found, &reason));
            Ok(events)
        }
        InstancePhase::InDoubt => Err(Rejected::InDoubt(instance)),
        phase @ (InstancePhase::None
        | InstancePhase::Held
        | InstancePhase::Success
        | InstancePhase::Failed
        | InstancePhase::Skipped
        | InstancePhase::UpstreamFailed
        | InstancePhase::RolledBack
        | InstancePhase::Removed) => Err(Rejected::Instance { instance, state: phase.as_str() }),
    }
}

/// A person acts on a run that is not being cancelled, and says why.
fn may_act(state: &RunState, why: &str) -> Result<(), Rejected> {
    if why.trim().is_empty() {
        return Err(Rejected::BadArgument("no reason is given".to_owned()));
    }
    match state.phase() {
        RunPhase::Queued | RunPhase::Running | RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled => Ok(()),
        RunPhase::Stuck if state.cancel_cause().is_none() => Ok(()),
        phase @ (RunPhase::Stuck | RunPhase::Cancelling) => Err(not_now(phase)),
    }
}

/// The instances a person named, by what has to be done first.
struct Asked {
    /// Nothing of them goes on.
    settled: BTreeSet<Key>,
    /// An attempt goes on.
    running: BTreeSet<Key>,
}

impl Asked {
    /// Leaves out those that need no change.
    fn sort(state: &RunState, instances: &[InstanceId], is_so_already: impl Fn(&Instance) -> bool) -> Result<Self, Rejected> {
        let mut asked = Self { settled: BTreeSet::new(), running: BTreeSet::new() };
        for instance in instances {
            let unknown = || Rejected::UnknownInstance(instance.clone());
            let key = state.key(instance).ok_or_else(unknown)?;
            let found = state.find(key).ok_or_else(unknown)?;
            match found.phase {
                InstancePhase::InDoubt => return Err(Rejected::InDoubt(instance.clone())),
                InstancePhase::Removed => {
                    return Err(Rejected::Instance { instance: instance.clone(), state: found.phase.as_str() });
                }
                InstancePhase::Running => {
                    asked.running.insert(key);
                }
                InstancePhase::None
                | InstancePhase::Scheduled
                | InstancePhase::Deferred { .. }
                | InstancePhase::UpForRetry { .. }
                | InstancePhase::Held
                | InstancePhase::Success
                | InstancePhase::Failed
                | InstancePhase::Skipped
                | InstancePhase::UpstreamFailed
                | InstancePhase::RolledBack => {
                    if !is_so_already(found) {
                        asked.settled.insert(key);
                    }
                }
            }
        }
        Ok(asked)
    }

    /// What every act begins with.
    fn begin(&self, state: &RunState, who: String, why: &str, what: String) -> Result<Vec<Event>, Rejected> {
        if self.settled.is_empty() && self.running.is_empty() {
            return Err(Rejected::NothingToChange);
        }
        let mut events = vec![Event::OperatorActed { who, why: why.to_owned(), what }];
        if state.phase().is_terminal() {
            events.push(Event::RunReopened);
        }
        Ok(events)
    }

    fn names(&self, state: &RunState) -> String {
        let all = self.settled.len() + self.running.len();
        let first: Vec<String> =
            self.settled.union(&self.running).take(NAMED_MAX).map(|&key| format!("`{}`", state.id(key))).collect();
        let more = if all > NAMED_MAX { format!(" and {} more", all - NAMED_MAX) } else { String::new() };
        format!("{}{more}", first.join(", "))
    }

    fn stops(&self, state: &RunState, reason: &str, then: Afterwards) -> impl Iterator<Item = Event> {
        self.running.iter().map(move |&key| Event::InstanceCancelRequested {
            instance: state.id(key),
            reason: reason.to_owned(),
            then,
        })
    }
}

/// The events that clear instances. Of those that may go on behind their last commit only those do that failed, and above which
/// nothing runs again (`changing` are the tasks that do): else what they committed stands on what is not so any more.
fn cleared(state: &RunState, set: &BTreeSet<Key>, restart: Restart, changing: &BTreeSet<TaskIx>) -> Vec<Event> {
    let (kept, anew): (Vec<Key>, Vec<Key>) = match restart {
        Restart::Beginning => (Vec::new(), set.iter().copied().collect()),
        Restart::LastCommit => {
            let below = below(state, changing);
            // A transaction has no part to go on behind: it committed as a whole, or not at all.
            let is_alone = |key: &Key| state.dag().unit_place(key.task).is_none();
            let goes_on =
                |key: &Key| is_alone(key) && !below.contains(&key.task) && state.find(*key).is_some_and(goes_on_behind_commits);
            set.iter().partition(|key| goes_on(key))
        }
    };
    let mut events = Vec::new();
    for (keys, restart) in [(&anew, Restart::Beginning), (&kept, Restart::LastCommit)] {
        events.extend(
            keys.chunks(INSTANCES_AN_EVENT)
                .map(|keys| Event::InstancesCleared { instances: keys.iter().map(|&key| state.id(key)).collect(), restart }),
        );
    }
    let mut by_task: BTreeMap<TaskIx, usize> = BTreeMap::new();
    // The single instance of an expanded task stands for an empty list, which nothing is kept of.
    let empty = kept.iter().filter(|key| key.map_index.is_none());
    anew.iter().chain(empty).filter(|key| state.is_expanded(key.task)).for_each(|key| *by_task.entry(key.task).or_default() += 1);
    let whole = by_task.into_iter().filter(|&(task, count)| count == state.keys_of(task).count());
    events.extend(whole.map(|(task, _)| Event::TaskUnexpanded {
        task: state.dag().task(task).id.clone(),
        count: state.keys_of(task).filter(|key| key.map_index.is_some()).count() as u32,
    }));
    events
}

/// True when a retry of it goes on behind what it committed. What came to nothing, or was marked, has commits that stand.
fn goes_on_behind_commits(instance: &Instance) -> bool {
    match instance.phase {
        InstancePhase::Failed
        | InstancePhase::Scheduled
        | InstancePhase::UpForRetry { .. }
        | InstancePhase::Deferred { .. }
        | InstancePhase::Running
        | InstancePhase::InDoubt => true,
        InstancePhase::Success => instance.is_marked && (instance.is_told_done || !instance.segments.is_empty()),
        InstancePhase::Skipped => instance.skipped_by != Some(SkippedBy::Itself) && !instance.segments.is_empty(),
        InstancePhase::UpstreamFailed => !instance.segments.is_empty(),
        // Of what was rolled back there is nothing to go on behind.
        InstancePhase::None | InstancePhase::Held | InstancePhase::RolledBack | InstancePhase::Removed => false,
    }
}

/// A retry asks for no effect once more, and of a transaction that committed nothing else is left to do: unless something above it runs again.
fn refuse_committed_units(state: &RunState, set: &BTreeSet<Key>, changing: &BTreeSet<TaskIx>) -> Result<(), Rejected> {
    let units: BTreeSet<u32> = set.iter().filter_map(|key| state.dag().unit_place(key.task)).collect();
    for unit in units {
        let keys: Vec<Key> = state.unit_keys(unit).collect();
        let (Some(first), Some(commit)) = (keys.first(), keys.last()) else { continue };
        let others: BTreeSet<TaskIx> =
            changing.iter().copied().filter(|task| state.dag().unit_place(*task) != Some(unit)).collect();
        let is_committed = state.find(*commit).is_some_and(|found| found.is_told_done || !found.segments.is_empty());
        if is_committed && !below(state, &others).contains(&first.task) {
            return Err(Rejected::BadArgument(format!(
                "what `{}` did is committed, and a retry would do it once more: mark it as success, or clear it from the beginning",
                state.id(*commit)
            )));
        }
    }
    Ok(())
}

/// What took effect by a person's word alone has no last commit to go on behind.
fn refuse_told_done(state: &RunState, events: &[Event]) -> Result<(), Rejected> {
    let kept = events.iter().filter_map(|event| match event {
        Event::InstancesCleared { instances, restart: Restart::LastCommit } => Some(instances),
        _ => None,
    });
    let is_told_done =
        |id: &&InstanceId| state.key(id).and_then(|key| state.find(key)).is_some_and(|instance| instance.is_told_done);
    match kept.flatten().find(is_told_done) {
        None => Ok(()),
        Some(instance) => Err(Rejected::BadArgument(format!(
            "a person said that the last try of `{instance}` took effect, so it is not known behind which commit a retry would go on: \
             mark it as success, or clear it from the beginning"
        ))),
    }
}

/// Every task below these.
fn below(state: &RunState, tasks: &BTreeSet<TaskIx>) -> BTreeSet<TaskIx> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<TaskIx> = tasks.iter().copied().collect();
    while let Some(task) = open.pop() {
        open.extend(state.dag().task(task).downstream.iter().copied().filter(|&down| reached.insert(down)));
    }
    reached
}

/// What a person wants to become of an attempt that has ended now. A run that is ending runs nothing again.
pub(super) fn wish(state: &RunState, key: Key) -> Option<Afterwards> {
    let then = state.stops().get(&key)?.then;
    match then {
        Afterwards::Clear(_) if state.cancel_cause().is_some() => None,
        Afterwards::Fail | Afterwards::Clear(_) | Afterwards::Mark(_) => Some(then),
    }
}

/// Carries out what was wished, behind the event that ended the attempt. `Fail` is the business of the caller.
pub(super) fn carry_out(state: &RunState, key: Key, wish: Afterwards, has_failed: bool) -> Vec<Event> {
    let instance = state.id(key);
    match wish {
        Afterwards::Fail => Vec::new(),
        Afterwards::Mark(mark) => vec![Event::InstanceMarked { instance, mark }],
        Afterwards::Clear(restart) => {
            let restart = if has_failed { restart } else { Restart::Beginning };
            cleared(state, &BTreeSet::from([key]), restart, &BTreeSet::new())
        }
    }
}

/// An instance of which nothing goes on fails, because a person wants it to end.
pub(super) fn failed_by_cancel(state: &RunState, key: Key, found: &Instance, reason: &str) -> Vec<Event> {
    let instance = state.id(key);
    let try_number = found.try_number;
    let failure = Arc::new(Failure {
        class: FailureClass::Cancelled,
        message: format!("cancelled: {reason}"),
        causes: Vec::new(),
        place: None,
        sqlstate: None,
        native_code: None,
        effect: "nothing was going on".to_owned(),
        hint: None,
        statements: Vec::new(),
    });
    // Callbacks are about a try: where none has begun there is nothing to tell.
    let hooks = if found.has_begun() { state.dag().task(key.task).settings.hooks.on_failure } else { 0 };
    let failed = Event::AttemptFailed { instance: instance.clone(), try_number, failure, is_final: true };
    std::iter::once(failed).chain(callbacks(Some(instance), try_number, Occasion::Failure, hooks)).collect()
}
