//! An independent reading of Airflow's rules: everything is evaluated again from scratch after each fact, without counters.
//!
//! It shares no code with the crate but the description of the DAG. Reachability is a set, a rule is a sentence over the list of
//! upstream states, and a run's outcome is read off all instances.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use backstop_core::dag::{DagSpec, Role, TaskSpec, WeightRule};
use backstop_core::event::{Afterwards, Mark, Restart};
use backstop_core::rule::TriggerRule;
use std::collections::{BTreeMap, BTreeSet};

/// An instance, as far as the rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    None,
    Ready,
    Running,
    Waiting,
    Doubt,
    Success,
    Failed,
    Skipped,
    UpstreamFailed,
    Removed,
}

impl Seen {
    pub(crate) fn is_done(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Skipped | Self::UpstreamFailed | Self::Removed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Success,
    Failed,
    Cancelled,
}

pub(crate) struct Naive {
    pub(crate) tasks: Vec<TaskSpec>,
    /// One a task until it is expanded.
    pub(crate) seen: Vec<Vec<Seen>>,
    pub(crate) expanded: Vec<bool>,
    /// Tasks of which an attempt ever began.
    pub(crate) begun: BTreeSet<usize>,
    pub(crate) cancelled: Option<Ending>,
    /// How it was cancelled before it was reopened.
    cancelled_before: Option<Ending>,
    /// Nothing is evaluated: the run is queued, or stuck.
    pub(crate) is_held: bool,
    /// What is skipped or upstream_failed by its rule alone, by task and index.
    derived: BTreeSet<(usize, usize)>,
    /// What a cancel of the run skipped.
    /// What has commits and came to nothing, or was marked as a success: told by the driver before a person acts.
    pub(crate) committed: BTreeSet<(usize, usize)>,
    cut: BTreeSet<(usize, usize)>,
    /// Attempts that a person wants to end.
    pub(crate) stops: BTreeMap<(usize, usize), Afterwards>,
    upstream: Vec<Vec<usize>>,
    downstream: Vec<Vec<usize>>,
    above: Vec<BTreeSet<usize>>,
    below: Vec<BTreeSet<usize>>,
    order: Vec<usize>,
}

impl Naive {
    pub(crate) fn new(spec: &DagSpec, only: &[String]) -> Self {
        let place = |id: &str| spec.tasks.iter().position(|task| task.id.as_str() == id).unwrap();
        let upstream: Vec<Vec<usize>> = spec
            .tasks
            .iter()
            .map(|task| task.after.iter().map(|up| place(up.as_str())).collect::<BTreeSet<_>>().into_iter().collect())
            .collect();
        let all = 0..spec.tasks.len();
        let downstream: Vec<Vec<usize>> =
            all.clone().map(|up| all.clone().filter(|&down| upstream[down].contains(&up)).collect()).collect();
        let above: Vec<BTreeSet<usize>> = all.clone().map(|place| closure(place, &upstream)).collect();
        let below: Vec<BTreeSet<usize>> = all.clone().map(|place| closure(place, &downstream)).collect();
        // A task has more tasks above it than any of those.
        let mut order: Vec<usize> = all.collect();
        order.sort_by_key(|&place| above[place].len());
        let is_wanted = |task: &TaskSpec| only.is_empty() || only.iter().any(|id| id == task.id.as_str());
        let seen = spec.tasks.iter().map(|task| vec![if is_wanted(task) { Seen::None } else { Seen::Removed }]).collect();
        let expanded = vec![false; spec.tasks.len()];
        Self {
            tasks: spec.tasks.clone(),
            seen,
            expanded,
            begun: BTreeSet::new(),
            cancelled: None,
            cancelled_before: None,
            is_held: false,
            derived: BTreeSet::new(),
            committed: BTreeSet::new(),
            cut: BTreeSet::new(),
            stops: BTreeMap::new(),
            upstream,
            downstream,
            above,
            below,
            order,
        }
    }

    /// Evaluates every task, upstreams first, until nothing changes.
    pub(crate) fn settle(&mut self) {
        if self.cancelled.is_some() || self.is_held {
            return;
        }
        loop {
            let before = self.seen.clone();
            for place in self.order.clone() {
                let said = self.judge(place);
                for index in 0..self.seen[place].len() {
                    if self.seen[place][index] == Seen::None {
                        self.seen[place][index] = said;
                        if said.is_done() {
                            self.derived.insert((place, index));
                        }
                    }
                }
            }
            if before == self.seen {
                return;
            }
        }
    }

    fn states_of(&self, tasks: impl IntoIterator<Item = usize>) -> Vec<Seen> {
        let states = tasks.into_iter().flat_map(|place| self.seen[place].clone());
        states.filter(|&seen| seen != Seen::Removed).collect()
    }

    fn is_setup(&self, place: usize) -> bool {
        self.tasks[place].settings.role == Role::Setup
    }

    fn is_teardown(&self, place: usize) -> bool {
        matches!(self.tasks[place].settings.role, Role::Teardown { .. })
    }

    fn judge(&self, place: usize) -> Seen {
        let ups = self.states_of(self.upstream[place].iter().copied());
        let rule = self.tasks[place].settings.trigger_rule;
        if ups.is_empty() || rule == TriggerRule::Always {
            return Seen::Ready;
        }
        let setups = self.states_of(self.upstream[place].iter().copied().filter(|&up| self.is_setup(up)));
        let said = by_rule(rule, &ups, &setups);
        if self.is_teardown(place) {
            let waits = self.states_of(self.others_awaited(place)).iter().any(|seen| !seen.is_done());
            return if said == Seen::Ready && waits { Seen::None } else { said };
        }
        let indirect = self.states_of(self.others_awaited(place));
        if indirect.iter().any(|seen| matches!(seen, Seen::Failed | Seen::UpstreamFailed)) {
            Seen::UpstreamFailed
        } else if indirect.contains(&Seen::Skipped) {
            Seen::Skipped
        } else if said == Seen::Ready && indirect.iter().any(|seen| !seen.is_done()) {
            Seen::None
        } else {
            said
        }
    }

    /// What a task waits for beyond its direct upstreams: a teardown for what is between its setups and itself, all else for the setups
    /// in whose scope it is.
    fn others_awaited(&self, place: usize) -> BTreeSet<usize> {
        if self.is_teardown(place) {
            let setups = self.upstream[place].iter().filter(|&&up| self.is_setup(up));
            return setups.flat_map(|&setup| self.below[setup].intersection(&self.above[place]).copied()).collect();
        }
        let is_relevant = |&up: &usize| {
            let teardowns: Vec<usize> = self.downstream[up].iter().copied().filter(|&down| self.is_teardown(down)).collect();
            let is_in_scope = teardowns.is_empty() || teardowns.iter().any(|down| self.below[place].contains(down));
            self.is_setup(up) && !self.upstream[place].contains(&up) && is_in_scope
        };
        self.above[place].iter().copied().filter(is_relevant).collect()
    }

    /// What is what it is only because of these, directly or through others that are.
    fn derived_from(&self, changed: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
        let mut all = changed.clone();
        loop {
            let places: BTreeSet<usize> = all.iter().map(|&(place, _)| place).collect();
            let waits = |place: usize| {
                self.upstream[place].iter().chain(&self.others_awaited(place)).any(|awaited| places.contains(awaited))
            };
            let more: BTreeSet<_> = self.derived.iter().copied().filter(|&one| !all.contains(&one) && waits(one.0)).collect();
            if more.is_empty() {
                return all.difference(changed).copied().collect();
            }
            all.extend(more);
        }
    }

    /// A person clears these, of which nothing is running. Gives all that is cleared with them.
    pub(crate) fn clear(
        &mut self,
        named: &BTreeSet<(usize, usize)>,
        restart: Restart,
        running: &[usize],
    ) -> BTreeSet<(usize, usize)> {
        let all: BTreeSet<_> = named.union(&self.derived_from(named)).copied().collect();
        self.put_back(all, restart, running)
    }

    /// As [`Self::clear`], of what was running until now, so that nothing was derived from it.
    pub(crate) fn put_back(
        &mut self,
        all: BTreeSet<(usize, usize)>,
        restart: Restart,
        running: &[usize],
    ) -> BTreeSet<(usize, usize)> {
        self.reset(all, restart, running, false)
    }

    fn reset(
        &mut self,
        all: BTreeSet<(usize, usize)>,
        restart: Restart,
        running: &[usize],
        is_of_a_mark: bool,
    ) -> BTreeSet<(usize, usize)> {
        let places: BTreeSet<usize> = all.iter().map(|&(place, _)| place).chain(running.iter().copied()).collect();
        let keeps = |&(place, index): &(usize, usize)| {
            let may_keep =
                matches!(self.seen[place][index], Seen::Failed | Seen::Ready | Seen::Waiting | Seen::Running | Seen::Doubt);
            let may_keep = may_keep || self.committed.contains(&(place, index));
            restart == Restart::LastCommit && may_keep && (is_of_a_mark || self.above[place].is_disjoint(&places))
        };
        let anew: BTreeSet<_> = all.iter().copied().filter(|one| !keeps(one)).collect();
        for &(place, index) in &all {
            self.forget(place, index);
            self.seen[place][index] = Seen::None;
        }
        for &place in &places {
            let whole = (0..self.seen[place].len()).all(|index| anew.contains(&(place, index)));
            if self.expanded[place] && whole {
                self.expanded[place] = false;
                self.seen[place] = vec![Seen::None];
            }
            if !self.expanded[place] && all.contains(&(place, 0)) {
                self.begun.remove(&place);
            }
        }
        all
    }

    /// A person says how these ended, of which nothing is running. Gives what is judged anew because of it.
    pub(crate) fn mark(&mut self, named: &BTreeSet<(usize, usize)>, mark: Mark) -> BTreeSet<(usize, usize)> {
        let derived = self.derived_from(named);
        for &(place, index) in named {
            self.forget(place, index);
            self.seen[place][index] = match mark {
                Mark::Success => Seen::Success,
                Mark::Failed => Seen::Failed,
            };
        }
        let all: BTreeSet<_> = derived.union(&self.derived_from(&derived)).copied().collect();
        self.reset(all, Restart::LastCommit, &[], true)
    }

    /// True of what is skipped, but not by itself.
    pub(crate) fn is_left_out(&self, one: (usize, usize)) -> bool {
        self.cut.contains(&one) || self.derived.contains(&one)
    }

    fn forget(&mut self, place: usize, index: usize) {
        self.derived.remove(&(place, index));
        self.cut.remove(&(place, index));
        self.stops.remove(&(place, index));
    }

    /// A run that is over is queued again.
    pub(crate) fn reopen(&mut self) {
        self.is_held = true;
        self.cancelled_before = self.cancelled.take().or(self.cancelled_before);
    }

    /// The run was cancelled, and this is skipped because of it.
    pub(crate) fn cut(&mut self, place: usize, index: usize) {
        self.seen[place][index] = Seen::Skipped;
        self.cut.insert((place, index));
    }

    /// A branch task followed these: what else comes directly after it is skipped, unless a followed one leads to it.
    pub(crate) fn branch(&mut self, place: usize, follow: &[usize]) {
        for down in self.downstream[place].clone() {
            let is_followed = follow.contains(&down) || follow.iter().any(|&followed| self.below[followed].contains(&down));
            if !is_followed && !self.begun.contains(&down) && matches!(self.seen[down][0], Seen::None | Seen::Ready) {
                self.seen[down][0] = Seen::Skipped;
            }
        }
    }

    pub(crate) fn downstream_of(&self, place: usize) -> &[usize] {
        &self.downstream[place]
    }

    pub(crate) fn cancel(&mut self, ending: Ending) {
        self.cancelled = Some(ending);
        self.is_held = false;
        for place in 0..self.seen.len() {
            for index in 0..self.seen[place].len() {
                if matches!(self.seen[place][index], Seen::None | Seen::Ready | Seen::Waiting) {
                    self.cut(place, index);
                }
            }
        }
    }

    /// How the run ends, when everything is done.
    pub(crate) fn ending(&self) -> Option<Ending> {
        if self.is_held || self.seen.iter().flatten().any(|seen| !seen.is_done()) {
            return None;
        }
        if let Some(ending) = self.cancelled {
            return Some(ending);
        }
        let present = |place: &usize| self.seen[*place] != [Seen::Removed];
        let counts = |place: &usize| {
            present(place) && self.tasks[*place].settings.role != Role::Teardown { on_failure_fail_dagrun: false }
        };
        let all = || (0..self.tasks.len()).filter(present);
        let mut leaves: Vec<usize> = all().filter(|place| counts(place) && !self.downstream[*place].iter().any(counts)).collect();
        if leaves.is_empty() {
            leaves = all().filter(|&place| !self.downstream[place].iter().any(present)).collect();
        }
        let has_failed =
            leaves.iter().flat_map(|&leaf| &self.seen[leaf]).any(|seen| matches!(seen, Seen::Failed | Seen::UpstreamFailed));
        let left_out = self.cancelled_before.filter(|_| !self.cut.is_empty());
        Some(if has_failed { Ending::Failed } else { left_out.unwrap_or(Ending::Success) })
    }

    pub(crate) fn priority(&self, place: usize) -> i64 {
        let settings = &self.tasks[place].settings;
        let sum = |others: &BTreeSet<usize>| others.iter().map(|&other| self.tasks[other].settings.priority_weight).sum::<i64>();
        settings.priority_weight
            + match settings.weight_rule {
                WeightRule::Downstream => sum(&self.below[place]),
                WeightRule::Upstream => sum(&self.above[place]),
                WeightRule::Absolute => 0,
            }
    }

    /// What may start now, in order: by priority, the single before the mapped, the order of the source. In each pool, whatever does
    /// not fit makes the rest wait.
    pub(crate) fn startable(&self, spec: &DagSpec) -> Vec<(usize, Option<u32>)> {
        let mut ready = Vec::new();
        let mut used = vec![0_u32; spec.pools.len()];
        let mut room = spec.max_active_tasks as usize;
        for (place, instances) in self.seen.iter().enumerate() {
            let settings = &self.tasks[place].settings;
            for (index, seen) in instances.iter().enumerate() {
                let map_index = self.expanded[place].then_some(index as u32);
                if *seen == Seen::Ready {
                    ready.push((-self.priority(place), map_index, place));
                } else if *seen == Seen::Running {
                    used[settings.pool as usize] += settings.pool_slots;
                    room -= 1;
                }
            }
        }
        ready.sort();
        let mut is_blocked = vec![false; spec.pools.len()];
        let mut startable = Vec::new();
        for (_, map_index, place) in ready {
            let settings = &self.tasks[place].settings;
            let pool = settings.pool as usize;
            let fits = spec.pools[pool].slots.is_none_or(|slots| used[pool] + settings.pool_slots <= slots);
            if startable.len() < room && fits && !is_blocked[pool] {
                used[pool] += settings.pool_slots;
                startable.push((place, map_index));
            } else {
                is_blocked[pool] = true;
            }
        }
        startable
    }
}

fn closure(from: usize, next: &[Vec<usize>]) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = next[from].clone();
    while let Some(place) = open.pop() {
        if reached.insert(place) {
            open.extend(&next[place]);
        }
    }
    reached
}

/// The table of the rules, row by row, as sentences about lists.
fn by_rule(rule: TriggerRule, ups: &[Seen], setups: &[Seen]) -> Seen {
    let is_failed = |seen: &Seen| matches!(seen, Seen::Failed | Seen::UpstreamFailed);
    let done = ups.iter().all(|seen| seen.is_done());
    let any = |wanted: Seen| ups.contains(&wanted);
    let all = |wanted: Seen| ups.iter().all(|&seen| seen == wanted);
    let any_failed = ups.iter().any(is_failed);
    match rule {
        TriggerRule::AllSuccess if any_failed => Seen::UpstreamFailed,
        TriggerRule::AllSuccess if any(Seen::Skipped) => Seen::Skipped,
        TriggerRule::AllSuccess if all(Seen::Success) => Seen::Ready,
        TriggerRule::AllFailed if any(Seen::Success) || any(Seen::Skipped) => Seen::Skipped,
        TriggerRule::AllFailed if ups.iter().all(is_failed) => Seen::Ready,
        TriggerRule::AllDone if done => Seen::Ready,
        TriggerRule::AllDoneMinOneSuccess if any(Seen::Skipped) => Seen::Skipped,
        TriggerRule::AllDoneMinOneSuccess if done && any(Seen::Success) => Seen::Ready,
        TriggerRule::AllDoneMinOneSuccess if done => Seen::UpstreamFailed,
        TriggerRule::AllDoneSetupSuccess if done && (setups.is_empty() || setups.contains(&Seen::Success)) => Seen::Ready,
        TriggerRule::AllDoneSetupSuccess if done && setups.iter().all(|&seen| seen == Seen::Skipped) => Seen::Skipped,
        TriggerRule::AllDoneSetupSuccess if done => Seen::UpstreamFailed,
        TriggerRule::OneSuccess if any(Seen::Success) => Seen::Ready,
        TriggerRule::OneSuccess if all(Seen::Skipped) => Seen::Skipped,
        TriggerRule::OneSuccess if done => Seen::UpstreamFailed,
        TriggerRule::OneFailed if any_failed => Seen::Ready,
        TriggerRule::OneFailed if done => Seen::Skipped,
        TriggerRule::OneDone if any(Seen::Success) || any(Seen::Failed) => Seen::Ready,
        TriggerRule::OneDone if done => Seen::Skipped,
        TriggerRule::NoneFailed if any_failed => Seen::UpstreamFailed,
        TriggerRule::NoneFailed if ups.iter().all(|seen| matches!(seen, Seen::Success | Seen::Skipped)) => Seen::Ready,
        TriggerRule::NoneFailedMinOneSuccess if any_failed => Seen::UpstreamFailed,
        TriggerRule::NoneFailedMinOneSuccess if all(Seen::Skipped) => Seen::Skipped,
        TriggerRule::NoneFailedMinOneSuccess if done => Seen::Ready,
        TriggerRule::NoneSkipped if any(Seen::Skipped) => Seen::Skipped,
        TriggerRule::NoneSkipped if done => Seen::Ready,
        TriggerRule::AllSkipped if any(Seen::Success) || any_failed => Seen::Skipped,
        TriggerRule::AllSkipped if all(Seen::Skipped) => Seen::Ready,
        TriggerRule::Always => Seen::Ready,
        TriggerRule::AllSuccess
        | TriggerRule::AllFailed
        | TriggerRule::AllDone
        | TriggerRule::AllDoneMinOneSuccess
        | TriggerRule::AllDoneSetupSuccess
        | TriggerRule::OneSuccess
        | TriggerRule::OneFailed
        | TriggerRule::OneDone
        | TriggerRule::NoneFailed
        | TriggerRule::NoneFailedMinOneSuccess
        | TriggerRule::NoneSkipped
        | TriggerRule::AllSkipped => Seen::None,
    }
}
