//! Names in `after` become edges between tasks; groups dissolve into their leaves and roots.

use super::Reading;
use super::task::{RawGraph, Reference};
use crate::diagnostic::{Diagnostic, code, did_you_mean};
use backstop_core::TaskId;
use backstop_core::dag::Role;
use std::collections::{BTreeSet, HashMap};

/// Most edges of a DAG: a group of thousands after a group of thousands makes millions.
const EDGES_MAX: usize = 10_000_000;
/// How many cycles are shown for one DAG.
const CYCLES_MAX: usize = 10;
/// In a larger DAG no near name is looked for: a hundred thousand ids, for each of a hundred thousand wrong names, would take hours.
pub(super) const NEAR_IDS_MAX: usize = 2_000;

/// A task or a group that a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Place {
    Task(u32),
    Group(u32),
}

/// Direct upstreams of each task, by place.
pub(super) struct Edges {
    pub(super) upstream: Vec<BTreeSet<u32>>,
}

impl Edges {
    pub(super) fn ids(&self, graph: &RawGraph, task: usize) -> Vec<TaskId> {
        self.upstream[task].iter().map(|up| TaskId::new(graph.tasks[*up as usize].id.as_str())).collect()
    }

    /// Direct downstreams of each task.
    pub(super) fn downstream(&self) -> Vec<Vec<u32>> {
        let mut downstream = vec![Vec::new(); self.upstream.len()];
        for (task, ups) in self.upstream.iter().enumerate() {
            for up in ups {
                downstream[*up as usize].push(u32::try_from(task).unwrap_or(u32::MAX));
            }
        }
        downstream
    }
}

impl Reading<'_> {
    /// Resolves every `after`. `None` when a name is missing or the tasks form a cycle.
    pub(super) fn edges(&mut self, graph: &RawGraph) -> Option<Edges> {
        let before = self.diagnostics.len();
        let mut references = References::default();
        for (at, task) in (0_u32..).zip(&graph.tasks) {
            for reference in &task.after {
                let Some(target) = self.resolve(graph, task.group, reference, Place::Task(at)) else { continue };
                references.add(Place::Task(at), target);
            }
        }
        for (at, group) in (0_u32..).zip(&graph.groups) {
            for reference in &group.after {
                let Some(target) = self.resolve(graph, group.parent, reference, Place::Group(at)) else { continue };
                references.add(Place::Group(at), target);
            }
        }
        let mut edges = self.dissolve(graph, &references)?;
        super::transaction::chain(graph, &mut edges);
        self.cycles(graph, &edges);
        (self.diagnostics.len() == before).then_some(edges)
    }

    /// What a name stands for: nearest group first, then outwards, then the whole id.
    fn resolve(&mut self, graph: &RawGraph, group: Option<u32>, reference: &Reference, from: Place) -> Option<Place> {
        let found = find(graph, group, &reference.name);
        let Some(place) = found else {
            let scope = scopes(graph, group);
            let near = near_name(graph, &scope, &reference.name);
            let message = format!("there is no task or group `{}`", reference.name);
            let diagnostic = Diagnostic::error(code::UNKNOWN_UPSTREAM, message, reference.at.clone());
            self.diagnostics.push(match near {
                Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                None => diagnostic.hint("add the task, or remove the name"),
            });
            return None;
        };
        if let Place::Group(target) = place {
            let holds = match from {
                Place::Task(task) => inside(graph, graph.tasks[task as usize].group, target),
                Place::Group(group) => inside(graph, Some(group), target),
            };
            if holds {
                let message = format!("`{}` is inside the group it waits for", reference.name);
                self.diagnostics.push(
                    Diagnostic::error(code::CYCLE, message, reference.at.clone())
                        .label(graph.groups[target as usize].at.clone(), "the group"),
                );
                return None;
            }
        }
        if reference.setup {
            let is_setup = match place {
                Place::Task(task) => graph.tasks[task as usize].settings.role == Role::Setup,
                Place::Group(_) => false,
            };
            if !is_setup {
                let message = format!("`{}` is no setup", reference.name);
                let diagnostic = Diagnostic::error(code::SETUP_TEARDOWN, message, reference.at.clone());
                self.diagnostics.push(diagnostic.hint("add `setup: true` to it, or name it in `after`"));
            }
        }
        Some(place)
    }

    /// Edges to and from groups become edges of their tasks.
    fn dissolve(&mut self, graph: &RawGraph, references: &References) -> Option<Edges> {
        let members = members(graph);
        let mut upstream = vec![BTreeSet::new(); graph.tasks.len()];
        let mut count = 0_usize;
        let mut leaves: HashMap<u32, Vec<u32>> = HashMap::new();
        for (from, targets) in &references.targets {
            let starts = match from {
                Place::Task(task) => vec![*task],
                Place::Group(group) => roots(graph, references, &members, *group),
            };
            for target in targets {
                let ends = match target {
                    Place::Task(task) => vec![*task],
                    Place::Group(group) => {
                        leaves.entry(*group).or_insert_with(|| leaves_of(graph, references, &members, *group)).clone()
                    }
                };
                count = count.saturating_add(starts.len().saturating_mul(ends.len()));
                if count > EDGES_MAX {
                    let at = match from {
                        Place::Task(task) => graph.tasks[*task as usize].at.clone(),
                        Place::Group(group) => graph.groups[*group as usize].at.clone(),
                    };
                    let message = format!("the DAG has more than {EDGES_MAX} edges");
                    let diagnostic = Diagnostic::error(code::YAML_TOO_LARGE, message, at);
                    self.diagnostics.push(diagnostic.hint("put an empty task between two large groups"));
                    return None;
                }
                for start in &starts {
                    upstream[*start as usize].extend(ends.iter().copied());
                }
            }
        }
        Some(Edges { upstream })
    }

    /// Shows every cycle once, along the way the tasks would run.
    fn cycles(&mut self, graph: &RawGraph, edges: &Edges) {
        let downstream = edges.downstream();
        let mut waiting: Vec<usize> = edges.upstream.iter().map(BTreeSet::len).collect();
        let mut removed = vec![false; graph.tasks.len()];
        let mut ready: Vec<usize> = (0..graph.tasks.len()).filter(|task| waiting[*task] == 0).collect();
        for task in &ready {
            removed[*task] = true;
        }
        let mut cycles = 0;
        loop {
            while let Some(task) = ready.pop() {
                for down in &downstream[task] {
                    let down = *down as usize;
                    waiting[down] = waiting[down].saturating_sub(1);
                    if waiting[down] == 0 && !removed[down] {
                        removed[down] = true;
                        ready.push(down);
                    }
                }
            }
            let Some(start) = (0..graph.tasks.len()).find(|task| !removed[*task]) else { return };
            if cycles == CYCLES_MAX {
                return;
            }
            cycles += 1;
            let cycle = cycle_upstream_of(start, edges, &removed);
            self.report_cycle(graph, &cycle);
            for task in &cycle {
                removed[*task] = true;
            }
            ready.extend(&cycle);
        }
    }

    fn report_cycle(&mut self, graph: &RawGraph, cycle: &[usize]) {
        let ids: Vec<&str> = cycle.iter().chain(cycle.first()).map(|task| graph.tasks[*task].id.as_str()).collect();
        let shown = if ids.len() > 12 {
            format!("{} -> ... -> {}", ids[..10].join(" -> "), ids[ids.len() - 1])
        } else {
            ids.join(" -> ")
        };
        let mut diagnostic: Option<Diagnostic> = None;
        for (nth, task) in cycle.iter().enumerate().take(6) {
            let previous = cycle[(nth + cycle.len() - 1) % cycle.len()];
            let at = place_of_edge(graph, *task, previous);
            let text = format!("`{}` waits for `{}`", graph.tasks[*task].id, graph.tasks[previous].id);
            diagnostic = Some(match diagnostic {
                None => Diagnostic::error(code::CYCLE, format!("tasks wait for each other: {shown}"), at),
                Some(diagnostic) => diagnostic.label(at, text),
            });
        }
        self.diagnostics.extend(diagnostic.map(|diagnostic| diagnostic.hint("remove one of these `after`s")));
    }
}

/// Where a task says that it waits for another: its reference where there is one, else the task itself.
fn place_of_edge(graph: &RawGraph, task: usize, upstream: usize) -> crate::diagnostic::Span {
    let raw = &graph.tasks[task];
    let place = u32::try_from(upstream).unwrap_or(u32::MAX);
    let names = |reference: &&Reference| find(graph, raw.group, &reference.name) == Some(Place::Task(place));
    raw.after.iter().find(names).map_or_else(|| raw.at.clone(), |reference| reference.at.clone())
}

/// Walks upstream among the tasks that are left until one comes again. Each of them has an upstream that is left.
fn cycle_upstream_of(start: usize, edges: &Edges, removed: &[bool]) -> Vec<usize> {
    let mut path = vec![start];
    let mut seen = HashMap::from([(start, 0)]);
    loop {
        let task = path[path.len() - 1];
        let Some(up) = edges.upstream[task].iter().map(|up| *up as usize).find(|up| !removed[*up]) else { return path };
        if let Some(first) = seen.get(&up) {
            let mut cycle = path.split_off(*first);
            cycle.reverse();
            // Begin with the task that comes first in the source.
            let least = cycle.iter().enumerate().min_by_key(|(_, task)| **task).map_or(0, |(at, _)| at);
            cycle.rotate_left(least);
            return cycle;
        }
        seen.insert(up, path.len());
        path.push(up);
    }
}

pub(super) fn find(graph: &RawGraph, group: Option<u32>, name: &str) -> Option<Place> {
    let lookup = |id: &str| {
        let task = graph.task_places.get(id).map(|task| Place::Task(*task));
        task.or_else(|| graph.group_places.get(id).map(|group| Place::Group(*group)))
    };
    if group.is_none() {
        return lookup(name);
    }
    scopes(graph, group).iter().find_map(|scope| lookup(&format!("{scope}{name}")))
}

/// The prefixes that a name is tried with, the nearest first.
fn scopes(graph: &RawGraph, group: Option<u32>) -> Vec<String> {
    let mut scopes = Vec::new();
    let mut at = group;
    while let Some(place) = at {
        let group = &graph.groups[place as usize];
        scopes.push(format!("{}.", group.id));
        at = group.parent;
    }
    scopes.push(String::new());
    scopes
}

pub(super) fn near_name<'g>(graph: &'g RawGraph, scopes: &[String], name: &str) -> Option<&'g str> {
    if graph.tasks.len() > NEAR_IDS_MAX {
        return None;
    }
    let ids = || graph.tasks.iter().map(|task| task.id.as_str()).chain(graph.groups.iter().map(|group| group.id.as_str()));
    for scope in scopes {
        let short = ids().filter_map(|id| id.strip_prefix(scope.as_str()));
        if let Some(near) = did_you_mean(name, short) {
            return Some(near);
        }
    }
    None
}

fn inside(graph: &RawGraph, mut group: Option<u32>, outer: u32) -> bool {
    while let Some(place) = group {
        if place == outer {
            return true;
        }
        group = graph.groups[place as usize].parent;
    }
    false
}

/// The tasks of each group, those of its inner groups included.
pub(super) fn members(graph: &RawGraph) -> Vec<Vec<u32>> {
    let mut members = vec![Vec::new(); graph.groups.len()];
    for (at, task) in (0_u32..).zip(&graph.tasks) {
        let mut group = task.group;
        while let Some(place) = group {
            members[place as usize].push(at);
            group = graph.groups[place as usize].parent;
        }
    }
    members
}

/// Who waits for whom, as written.
#[derive(Default)]
struct References {
    targets: std::collections::BTreeMap<Place, Vec<Place>>,
    sources: HashMap<Place, Vec<Place>>,
}

impl References {
    fn add(&mut self, from: Place, target: Place) {
        self.targets.entry(from).or_default().push(target);
        self.sources.entry(target).or_default().push(from);
    }

    fn targets(&self, of: Place) -> &[Place] {
        self.targets.get(&of).map_or(&[], Vec::as_slice)
    }

    fn sources(&self, of: Place) -> &[Place] {
        self.sources.get(&of).map_or(&[], Vec::as_slice)
    }
}

/// The task and the groups around it, up to but without `outer`.
fn ladder(graph: &RawGraph, task: u32, outer: u32) -> Vec<Place> {
    let mut ladder = vec![Place::Task(task)];
    let mut group = graph.tasks[task as usize].group;
    while let Some(place) = group.filter(|place| *place != outer) {
        ladder.push(Place::Group(place));
        group = graph.groups[place as usize].parent;
    }
    ladder
}

fn is_inside(graph: &RawGraph, place: Place, outer: u32) -> bool {
    match place {
        Place::Task(task) => inside(graph, graph.tasks[task as usize].group, outer),
        Place::Group(group) => group != outer && inside(graph, Some(group), outer),
    }
}

/// Tasks of a group that wait for nothing in the group.
fn roots(graph: &RawGraph, references: &References, members: &[Vec<u32>], group: u32) -> Vec<u32> {
    let is_root = |task: &u32| {
        let ladder = ladder(graph, *task, group);
        ladder.iter().all(|place| references.targets(*place).iter().all(|target| !is_inside(graph, *target, group)))
    };
    members[group as usize].iter().copied().filter(is_root).collect()
}

/// Tasks of a group that nothing in the group waits for. As in Airflow, teardowns do not count where there are other tasks.
fn leaves_of(graph: &RawGraph, references: &References, members: &[Vec<u32>], group: u32) -> Vec<u32> {
    let teardown = |place: Place| match place {
        Place::Task(task) => matches!(graph.tasks[task as usize].settings.role, Role::Teardown { .. }),
        Place::Group(_) => false,
    };
    let leaves = |ignore_teardowns: bool| -> Vec<u32> {
        let is_leaf = |task: &u32| {
            if ignore_teardowns && teardown(Place::Task(*task)) {
                return false;
            }
            let waits = |source: &Place| is_inside(graph, *source, group) && !(ignore_teardowns && teardown(*source));
            ladder(graph, *task, group).iter().all(|place| !references.sources(*place).iter().any(waits))
        };
        members[group as usize].iter().copied().filter(is_leaf).collect()
    };
    let without = leaves(true);
    if without.is_empty() { leaves(false) } else { without }
}
