//! What must be true when the run is over: the log and the databases tell the same story.

use super::scenario::{CALL, Scenario, Shape, call_effect, effect};
use super::server::Server;
use backstop_core::dag::Delivery;
use backstop_core::event::{Event, Evidence};
use backstop_core::{InstanceId, InstancePhase, InstanceView, RunState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often an effect may have been applied.
type Allowed = BTreeMap<(usize, String), (u32, u32)>;

/// Compares the end of a run with its databases.
pub(crate) fn check(scenario: &Scenario, servers: &[Arc<Server>], events: &[Event], state: &RunState) -> Result<(), String> {
    let folded = RunState::replay(scenario.definition.dag.clone(), events);
    if folded != *state {
        return Err("the fold of the durable events is not the state in which the run ended".into());
    }
    if !state.is_finished() {
        return Err(format!("the run is told to have ended and is {}", state.phase().as_str()));
    }
    unique_commits(events)?;
    let mut allowed = Allowed::new();
    for (instance, view) in state.instances() {
        let Some(shape) = scenario.shape(instance.task.as_str()) else { continue };
        if !scenario.dry_run {
            allow(shape, &instance, &view, &mut allowed)?;
        }
        if view.phase == InstancePhase::Success {
            result(shape, &instance, &view)?;
        }
    }
    if !scenario.dry_run {
        calls(scenario, events, &mut allowed)?;
    }
    compare(servers, &allowed)
}

fn unique_commits(events: &[Event]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for event in events {
        if let Event::SegmentCommitted { instance, commit, .. } = event
            && !seen.insert((instance.clone(), commit.segment))
        {
            return Err(format!("segment {} of `{instance}` is logged as committed twice", commit.segment));
        }
    }
    Ok(())
}

/// A success did everything; a failure did what its committed segments say; all else did nothing.
fn allow(shape: &Shape, instance: &InstanceId, view: &InstanceView<'_>, allowed: &mut Allowed) -> Result<(), String> {
    let done = match view.phase {
        InstancePhase::Success => shape.segments.len(),
        // Skipped with segments: between two tries, when the run was cancelled.
        InstancePhase::Failed | InstancePhase::Skipped => view.segments.len(),
        InstancePhase::UpstreamFailed | InstancePhase::Removed => 0,
        phase @ (InstancePhase::None
        | InstancePhase::Scheduled
        | InstancePhase::Running
        | InstancePhase::Deferred { .. }
        | InstancePhase::UpForRetry { .. }
        | InstancePhase::InDoubt) => return Err(format!("`{instance}` is {} at the end", phase.as_str())),
    };
    if shape.items.is_some() && instance.map_index.is_none() {
        return Ok(());
    }
    let is_repeatable = shape.delivery == Delivery::AtLeastOnce;
    for (number, segment) in shape.segments.iter().enumerate() {
        for part in 0..segment.parts() {
            let least = u32::from(number < done);
            let most = if is_repeatable { u32::MAX } else { least };
            allowed.insert((shape.server, effect(&shape.id, instance.map_index, number, part)), (least, most));
        }
    }
    Ok(())
}

/// The result is that of the last segment that has one, whichever try and process ran it.
fn result(shape: &Shape, instance: &InstanceId, view: &InstanceView<'_>) -> Result<(), String> {
    let by_operator = |evidence: &Evidence| matches!(evidence, Evidence::Operator { .. });
    let was_decided =
        view.segments.iter().any(|commit| by_operator(&commit.evidence)) || view.segments.len() < shape.segments.len();
    let expected = shape.result.map(|value| value.to_string());
    let found = view.result.map(|text| text.to_string());
    if shape.segments.is_empty() || was_decided || found == expected {
        return Ok(());
    }
    Err(format!("`{instance}` gave {found:?} where its script gives {expected:?}"))
}

/// A callback that went well ran once; one that did not ran at most once.
fn calls(scenario: &Scenario, events: &[Event], allowed: &mut Allowed) -> Result<(), String> {
    for event in events {
        match event {
            Event::CallbackScheduled { callback } => {
                let name = (scenario.callback_server, call_effect(callback));
                if allowed.insert(name, (0, 1)).is_some() {
                    return Err(format!("{callback:?} is asked for twice"));
                }
            }
            Event::CallbackFinished { callback, failure: None } => {
                allowed.insert((scenario.callback_server, call_effect(callback)), (1, 1));
            }
            _ => {}
        }
    }
    Ok(())
}

fn compare(servers: &[Arc<Server>], allowed: &Allowed) -> Result<(), String> {
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
