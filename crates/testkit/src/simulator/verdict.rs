//! What must be true when the run is over: the log and the databases tell the same story.

use super::scenario::{CALL, Scenario, Shape, call_effect, effect};
use super::server::Server;
use backstop_core::dag::Delivery;
use backstop_core::event::{Afterwards, Event, Evidence, Restart};
use backstop_core::{InstanceId, InstancePhase, InstanceView, RunState, apply};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often an effect may have been applied.
pub(crate) type Allowed = BTreeMap<(usize, String), (u32, u32)>;

/// Compares the end of a run with its databases.
pub(crate) fn check(scenario: &Scenario, servers: &[Arc<Server>], events: &[Event], state: &RunState) -> Result<(), String> {
    let folded = RunState::replay(scenario.definition.dag.clone(), events);
    if folded != *state {
        return Err("the fold of the durable events is not the state in which the run ended".into());
    }
    if !state.is_finished() {
        return Err(format!("the run is told to have ended and is {}", state.phase().as_str()));
    }
    compare(servers, &expected(scenario, events, state)?)
}

/// How often each effect must have been applied, by the log of a run that is over.
pub(crate) fn expected(scenario: &Scenario, events: &[Event], state: &RunState) -> Result<Allowed, String> {
    unique_commits(events)?;
    acts(scenario, events)?;
    let succeeded = succeeded(events);
    let mut allowed = if scenario.dry_run { Allowed::new() } else { before_clears(scenario, events) };
    for (instance, view) in state.instances() {
        let Some(shape) = scenario.shape(instance.task.as_str()) else { continue };
        if !scenario.dry_run {
            if !view.phase.is_done() {
                return Err(format!("`{instance}` is {} at the end", view.phase.as_str()));
            }
            allow(shape, &instance, &view, succeeded.contains(&instance), &mut allowed);
        }
        if view.phase == InstancePhase::Success {
            result(shape, &instance, &view)?;
        }
    }
    if !scenario.dry_run {
        calls(scenario, events, &mut allowed)?;
    }
    Ok(allowed)
}

/// Instances of which an attempt succeeded since they were last cleared: they did all of their work, whatever a person said later.
fn succeeded(events: &[Event]) -> BTreeSet<InstanceId> {
    let mut succeeded = BTreeSet::new();
    for event in events {
        match event {
            Event::AttemptSucceeded { instance, .. } => drop(succeeded.insert(instance.clone())),
            Event::InstancesCleared { instances, .. } => succeeded.retain(|instance| !instances.contains(instance)),
            _ => {}
        }
    }
    succeeded
}

/// What was done before it was cleared was done, too: a cleared instance has its effects once more.
pub(crate) fn before_clears(scenario: &Scenario, events: &[Event]) -> Allowed {
    let mut allowed = Allowed::new();
    let mut state = RunState::new(scenario.definition.dag.clone());
    for (place, event) in events.iter().enumerate() {
        if let Event::InstancesCleared { instances, restart: Restart::Beginning } = event {
            let succeeded = succeeded(&events[..place]);
            for instance in instances {
                let (Some(shape), Some(view)) = (scenario.shape(instance.task.as_str()), state.instance(instance)) else {
                    continue;
                };
                if view.phase != InstancePhase::None {
                    allow(shape, instance, &view, succeeded.contains(instance), &mut allowed);
                }
            }
        }
        apply(&mut state, event);
    }
    allowed
}

/// What is over or done changes by a person alone, at once or when the attempt that they stopped for it has ended, and nobody passes a doubt.
fn acts(scenario: &Scenario, events: &[Event]) -> Result<(), String> {
    let mut state = RunState::new(scenario.definition.dag.clone());
    let mut acted = false;
    let mut last: Option<&Event> = None;
    // Attempts that are being stopped, so that they are cleared or marked.
    let mut wished: BTreeSet<&InstanceId> = BTreeSet::new();
    for event in events {
        let changed: &[InstanceId] = match event {
            Event::InstancesCleared { instances, .. } => instances,
            Event::InstanceMarked { instance, .. } => std::slice::from_ref(instance),
            _ => &[],
        };
        let was_wished = !changed.is_empty() && changed.iter().all(|instance| wished.remove(instance));
        if let Event::InstanceCancelRequested { instance, then: Afterwards::Clear(_) | Afterwards::Mark(_), .. } = event {
            wished.insert(instance);
        }
        let is_act = !changed.is_empty()
            || matches!(event, Event::RunReopened | Event::TaskUnexpanded { .. } | Event::InstanceCancelRequested { .. });
        if is_act && !acted && !was_wished {
            return Err(format!("{event:?} does not follow an act of a person"));
        }
        if *event == Event::RunReopened && !state.phase().is_terminal() {
            return Err(format!("the run was {} and is reopened", state.phase().as_str()));
        }
        for instance in changed {
            let phase = state.instance(instance).map(|view| view.phase);
            // A failure that is not final leaves it to the next event where the instance goes; one that expands had no effect.
            let has_failed =
                matches!(last, Some(Event::AttemptFailed { instance: failed, is_final: false, .. }) if failed == instance);
            let shape = scenario.shape(instance.task.as_str());
            let expands = instance.map_index.is_none() && shape.is_some_and(|shape| shape.items.is_some());
            let goes_on = match phase {
                Some(InstancePhase::InDoubt) => !was_wished || !has_failed,
                Some(InstancePhase::Running) => !was_wished || !(has_failed || expands),
                Some(_) | None => false,
            };
            if goes_on {
                return Err(format!("`{instance}` is {phase:?}, and {event:?}"));
            }
        }
        acted = is_act || matches!(event, Event::OperatorActed { .. });
        last = Some(event);
        apply(&mut state, event);
    }
    Ok(())
}

fn unique_commits(events: &[Event]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for event in events {
        if let Event::SegmentCommitted { instance, commit, .. } = event
            && !seen.insert((instance.clone(), commit.segment))
        {
            return Err(format!("segment {} of `{instance}` is logged as committed twice", commit.segment));
        }
        if let Event::InstancesCleared { instances, restart: Restart::Beginning } = event {
            seen.retain(|(instance, _)| !instances.contains(instance));
        }
    }
    Ok(())
}

/// A success did everything; a failure did what its committed segments say; all else did nothing.
fn allow(shape: &Shape, instance: &InstanceId, view: &InstanceView<'_>, succeeded: bool, allowed: &mut Allowed) {
    let done = match view.phase {
        // What a person marked did what is known of it, and nothing else.
        _ if view.is_marked && !succeeded => view.segments.len(),
        _ if succeeded => shape.segments.len(),
        InstancePhase::Success => shape.segments.len(),
        // With segments: not done when it was cleared; between two tries, when the run was cancelled; or retried behind its last commit,
        // when its upstreams did not let it run again.
        InstancePhase::None
        | InstancePhase::Scheduled
        | InstancePhase::Running
        | InstancePhase::Deferred { .. }
        | InstancePhase::UpForRetry { .. }
        | InstancePhase::InDoubt
        | InstancePhase::Held
        | InstancePhase::RolledBack
        | InstancePhase::Failed
        | InstancePhase::Skipped
        | InstancePhase::UpstreamFailed => view.segments.len(),
        InstancePhase::Removed => 0,
    };
    if shape.items.is_some() && instance.map_index.is_none() {
        return;
    }
    let is_repeatable = shape.delivery == Delivery::AtLeastOnce;
    for (number, segment) in shape.segments.iter().enumerate() {
        for part in 0..segment.parts() {
            let least = u32::from(number < done);
            let most = if is_repeatable { u32::MAX } else { least };
            let before = allowed.entry((shape.server, effect(&shape.id, instance.map_index, number, part))).or_default();
            *before = (before.0 + least, before.1.saturating_add(most));
        }
    }
}

/// The result is that of the last segment that has one, whichever try and process ran it.
fn result(shape: &Shape, instance: &InstanceId, view: &InstanceView<'_>) -> Result<(), String> {
    let by_operator = |evidence: &Evidence| matches!(evidence, Evidence::Operator { .. });
    let was_decided =
        view.segments.iter().any(|commit| by_operator(&commit.evidence)) || view.segments.len() < shape.segments.len();
    let expected = shape.result.map(|value| value.to_string());
    let found = view.result.map(|text| text.to_string());
    if shape.segments.is_empty() || was_decided || view.is_marked || found == expected {
        return Ok(());
    }
    Err(format!("`{instance}` gave {found:?} where its script gives {expected:?}"))
}

/// A callback that went well ran once; one that did not ran at most once.
fn calls(scenario: &Scenario, events: &[Event], allowed: &mut Allowed) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for event in events {
        match event {
            Event::CallbackScheduled { callback } => {
                let name = (scenario.callback_server, call_effect(callback));
                let is_first = seen.insert(callback.clone());
                if !is_first {
                    return Err(format!("{callback:?} is asked for twice"));
                }
                // Those of the run have one name, however often it was reopened.
                allowed.entry(name).or_default().1 += 1;
            }
            Event::CallbackFinished { callback, failure: None } => {
                allowed.entry((scenario.callback_server, call_effect(callback))).or_default().0 += 1;
            }
            _ => {}
        }
    }
    Ok(())
}

pub(crate) fn compare(servers: &[Arc<Server>], allowed: &Allowed) -> Result<(), String> {
    for ((server, name), (least, most)) in allowed {
        let count = servers[*server].count(name);
        if count < *least || count > *most {
            return Err(format!("effect `{name}` was applied {count} times; the log says {least} to {most}"));
        }
    }
    for (place, server) in servers.iter().enumerate() {
        for (name, count) in server.effects() {
            if !allowed.contains_key(&(place, name.clone())) {
                let what = if name.starts_with(CALL) { "callback" } else { "effect" };
                return Err(format!("{what} `{name}` was applied {count} times; the log does not know of it"));
            }
        }
    }
    Ok(())
}
