//! Where tasks stand: in layers by their depth, ordered within a layer so that arrows cross little.

use backstop_core::{Dag, TaskIx};
use std::collections::HashMap;

/// Sweeps over all layers: a few bring most of what more would.
const SWEEPS: usize = 4;

/// Tasks by depth, in the order of the source.
pub(super) fn layers(dag: &Dag) -> Vec<Vec<TaskIx>> {
    let mut layers: Vec<Vec<TaskIx>> = Vec::new();
    for place in (0..dag.tasks().len()).filter_map(|place| u32::try_from(place).ok()).map(TaskIx) {
        let depth = dag.depth(place) as usize;
        if layers.len() <= depth {
            layers.resize_with(depth + 1, Vec::new);
        }
        layers[depth].push(place);
    }
    layers
}

/// As [`layers`], each task near the middle of those it is joined to (the barycentre rule of Sugiyama, Tagawa and Toda, 1981).
pub(super) fn ordered(dag: &Dag) -> Vec<Vec<TaskIx>> {
    let mut layers = layers(dag);
    for sweep in 0..SWEEPS {
        let mut at: HashMap<TaskIx, f64> = HashMap::new();
        let down = sweep % 2 == 0;
        let numbers: Vec<usize> = if down { (0..layers.len()).collect() } else { (0..layers.len()).rev().collect() };
        for number in numbers {
            let layer = &mut layers[number];
            let wanted = |place: &TaskIx, nth: usize| {
                let task = dag.task(*place);
                let joined = if down { &task.upstream } else { &task.downstream };
                let known: Vec<f64> = joined.iter().filter_map(|other| at.get(other).copied()).collect();
                if known.is_empty() { nth as f64 } else { known.iter().sum::<f64>() / known.len() as f64 }
            };
            let mut weighed: Vec<(f64, TaskIx)> =
                layer.iter().enumerate().map(|(nth, place)| (wanted(place, nth), *place)).collect();
            weighed.sort_by(|a, b| a.0.total_cmp(&b.0));
            *layer = weighed.into_iter().map(|(_, place)| place).collect();
            // Counted from the middle of the layer: layers are centred.
            let middle = layer.len() as f64 / 2.0;
            at.extend(layer.iter().enumerate().map(|(nth, place)| (*place, nth as f64 - middle)));
        }
    }
    layers
}
