//! From a [`DagSpec`] to a [`Dag`]: every error at once, names resolved to places, order and depths computed.

use super::{Dag, DagSpec, Error, Scopes, Task, TaskSpec, Units, priority};
use crate::id::{TaskId, TaskIx};
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;

/// Most cycles told at once. A tangled graph has too many to be of use.
const CYCLES_MAX: usize = 16;

impl Dag {
    /// Checks a description and resolves its names. Returns every error, in the order of the source, cycles last.
    pub fn new(spec: DagSpec) -> Result<Self, Vec<Error>> {
        let mut errors = check_settings(&spec);
        let (places, duplicates) = resolve_places(&spec.tasks);
        errors.extend(duplicates);
        let (upstream, unknown) = resolve_upstreams(&spec.tasks, &places);
        errors.extend(unknown);
        let downstream = invert(&upstream);
        let (topological, depths) = sort(&upstream, &downstream);
        if topological.len() < upstream.len() {
            errors.extend(find_cycles(&spec.tasks, &upstream, &downstream));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let tasks: Vec<Task> = spec
            .tasks
            .into_iter()
            .zip(upstream.into_iter().zip(downstream))
            .map(|(task, (upstream, downstream))| Task { id: task.id, settings: task.settings, upstream, downstream })
            .collect();
        let priorities = priority::effective(&tasks, &topological);
        let scopes = Scopes::of(&tasks).map(Box::new);
        let units = Units::of(&spec.groups, &tasks, &places, &topological)?;
        Ok(Self {
            id: spec.id,
            tasks,
            groups: spec.groups,
            pools: spec.pools,
            max_active_tasks: spec.max_active_tasks,
            hooks: spec.hooks,
            dagrun_timeout: spec.dagrun_timeout,
            map_length_max: spec.map_length_max,
            places,
            topological,
            depths,
            priorities,
            scopes,
            units,
        })
    }
}

/// Checks what does not concern the graph.
fn check_settings(spec: &DagSpec) -> Vec<Error> {
    let mut errors = Vec::new();
    let mut refuse_dag = |what: &str| errors.push(Error::BadDagSetting { dag: spec.id.clone(), what: what.to_owned() });
    if u32::try_from(spec.tasks.len()).is_err() {
        refuse_dag("it has more tasks than can be counted in 32 bits");
    }
    if spec.pools.is_empty() {
        refuse_dag("it has no pool");
    }
    if spec.max_active_tasks == 0 {
        refuse_dag("max_active_tasks is 0, so that no task could ever run");
    }
    for (place, group) in spec.groups.iter().enumerate() {
        if group.parent.is_some_and(|parent| parent as usize >= place) {
            refuse_dag(&format!("group `{}` does not come after the group it is in", group.id));
        }
    }
    for task in &spec.tasks {
        errors.extend(check_task(spec, task).map(|what| Error::BadSetting { task: task.id.clone(), what }));
    }
    errors
}

/// What is wrong with a task's own settings.
fn check_task<'a>(spec: &'a DagSpec, task: &'a TaskSpec) -> impl Iterator<Item = String> + 'a {
    let settings = &task.settings;
    let group =
        settings.group.filter(|&group| group as usize >= spec.groups.len()).map(|group| format!("there is no group {group}"));
    let slots = (settings.pool_slots == 0).then(|| "pool_slots is 0; an attempt holds at least 1".to_owned());
    let pool = match spec.pools.get(settings.pool as usize) {
        None if spec.pools.is_empty() => None,
        None => Some(format!("there is no pool {}", settings.pool)),
        Some(pool) => pool.slots.filter(|&slots| slots < settings.pool_slots).map(|slots| {
            format!("it needs {} slots of pool `{}`, which has {slots}: it could never run", settings.pool_slots, pool.name)
        }),
    };
    group.into_iter().chain(slots).chain(pool)
}

/// Ids to places. Of two tasks with one id, the first keeps it.
fn resolve_places(tasks: &[TaskSpec]) -> (FxHashMap<TaskId, TaskIx>, Vec<Error>) {
    let mut places = FxHashMap::with_capacity_and_hasher(tasks.len(), Default::default());
    let mut errors = Vec::new();
    for (place, task) in tasks.iter().enumerate() {
        if places.contains_key(&task.id) {
            errors.push(Error::DuplicateTask(task.id.clone()));
        } else {
            places.insert(task.id.clone(), TaskIx(place as u32));
        }
    }
    (places, errors)
}

/// `after` to places, sorted, each once.
fn resolve_upstreams(tasks: &[TaskSpec], places: &FxHashMap<TaskId, TaskIx>) -> (Vec<Vec<TaskIx>>, Vec<Error>) {
    let mut errors = Vec::new();
    let upstream = tasks
        .iter()
        .map(|task| {
            let mut resolved = Vec::with_capacity(task.after.len());
            for name in &task.after {
                match places.get(name) {
                    Some(&place) => resolved.push(place),
                    None => errors.push(Error::UnknownUpstream { task: task.id.clone(), upstream: name.clone() }),
                }
            }
            resolved.sort_unstable();
            resolved.dedup();
            resolved
        })
        .collect();
    (upstream, errors)
}

fn invert(upstream: &[Vec<TaskIx>]) -> Vec<Vec<TaskIx>> {
    let mut counts = vec![0_u32; upstream.len()];
    upstream.iter().flatten().for_each(|up| counts[up.get()] += 1);
    let mut downstream: Vec<Vec<TaskIx>> = counts.iter().map(|&count| Vec::with_capacity(count as usize)).collect();
    for (place, ups) in upstream.iter().enumerate() {
        for up in ups {
            downstream[up.get()].push(TaskIx(place as u32));
        }
    }
    downstream
}

/// Kahn's algorithm by levels. Tasks in or after a cycle are missing from the order.
fn sort(upstream: &[Vec<TaskIx>], downstream: &[Vec<TaskIx>]) -> (Vec<TaskIx>, Vec<u32>) {
    let mut missing: Vec<u32> = upstream.iter().map(|ups| ups.len() as u32).collect();
    let mut depths = vec![0_u32; upstream.len()];
    let mut order = Vec::with_capacity(upstream.len());
    let mut level: Vec<TaskIx> = (0..upstream.len() as u32).map(TaskIx).filter(|place| missing[place.get()] == 0).collect();
    let mut depth = 0;
    while !level.is_empty() {
        level.sort_unstable();
        let mut next = Vec::new();
        for &place in &level {
            depths[place.get()] = depth;
            order.push(place);
            for &down in &downstream[place.get()] {
                missing[down.get()] -= 1;
                if missing[down.get()] == 0 {
                    next.push(down);
                }
            }
        }
        level = next;
        depth += 1;
    }
    (order, depths)
}

/// Cycles that share no task, at most [`CYCLES_MAX`].
fn find_cycles(tasks: &[TaskSpec], upstream: &[Vec<TaskIx>], downstream: &[Vec<TaskIx>]) -> Vec<Error> {
    let mut left: BTreeSet<TaskIx> = (0..upstream.len() as u32).map(TaskIx).collect();
    let mut errors = Vec::new();
    while errors.len() < CYCLES_MAX {
        prune(&mut left, upstream, downstream);
        let Some(&start) = left.first() else { break };
        let cycle = walk(start, &left, downstream);
        cycle.iter().for_each(|place| {
            left.remove(place);
        });
        let mut names: Vec<TaskId> = cycle.iter().map(|place| tasks[place.get()].id.clone()).collect();
        names.extend(names.first().cloned());
        errors.push(Error::Cycle(names));
    }
    errors
}

/// Takes away, again and again, what has no neighbour left on one side, so that from every task left one can walk for ever.
fn prune(left: &mut BTreeSet<TaskIx>, upstream: &[Vec<TaskIx>], downstream: &[Vec<TaskIx>]) {
    let mut suspects: Vec<TaskIx> = left.iter().copied().collect();
    while let Some(place) = suspects.pop() {
        let has_neighbour = |side: &[Vec<TaskIx>]| side[place.get()].iter().any(|other| left.contains(other));
        if left.contains(&place) && !(has_neighbour(upstream) && has_neighbour(downstream)) {
            left.remove(&place);
            suspects.extend(&upstream[place.get()]);
            suspects.extend(&downstream[place.get()]);
        }
    }
}

/// Walks downstream within `left` until a task comes twice, and returns the loop from its first task in the order of the source.
fn walk(start: TaskIx, left: &BTreeSet<TaskIx>, downstream: &[Vec<TaskIx>]) -> Vec<TaskIx> {
    let mut path = vec![start];
    let mut seen = FxHashMap::from_iter([(start, 0_usize)]);
    let mut here = start;
    while let Some(&next) = downstream[here.get()].iter().find(|down| left.contains(down)) {
        if let Some(&first) = seen.get(&next) {
            path.drain(..first);
            break;
        }
        seen.insert(next, path.len());
        path.push(next);
        here = next;
    }
    let smallest = (0..path.len()).min_by_key(|&place| path[place]).unwrap_or(0);
    path.rotate_left(smallest);
    path
}
