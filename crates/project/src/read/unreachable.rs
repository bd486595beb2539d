//! Tasks that can be proven never to run, and branches that follow what is not theirs to follow.

use super::Reading;
use super::graph::{Edges, Place, find};
use super::task::RawGraph;
use crate::definition::{Branch, BranchBy, Kind};
use crate::diagnostic::{Diagnostic, code, did_you_mean};
use backstop_core::rule::TriggerRule;
use std::collections::BTreeSet;

/// What a branch follows, by place. Tasks in neither set are never followed.
struct Follows {
    if_true: BTreeSet<u32>,
    if_false: BTreeSet<u32>,
}

impl Reading<'_> {
    /// Checks every branch, and the tasks below it. The names in `if_true` and `if_false` become whole ids.
    pub(super) fn branches(&mut self, graph: &mut RawGraph, edges: &Edges) {
        let has_branch =
            graph.tasks.iter().any(|task| task.body.as_ref().is_some_and(|body| matches!(body.kind, Kind::Branch(_))));
        if !has_branch {
            return;
        }
        let downstream = edges.downstream();
        for task in 0..graph.tasks.len() {
            let Some(branch) = graph.tasks[task].body.as_ref().and_then(|body| match &body.kind {
                Kind::Branch(branch) => Some(branch.clone()),
                _ => None,
            }) else {
                continue;
            };
            let before = self.diagnostics.len();
            let if_true = self.targets(graph, task, &branch.if_true, &downstream[task]);
            let if_false = self.targets(graph, task, &branch.if_false, &downstream[task]);
            let follows = Follows { if_true: if_true.iter().copied().collect(), if_false: if_false.iter().copied().collect() };
            // With a wrong target it is not known what is followed.
            if decides_alone(&branch) && self.diagnostics.len() == before {
                self.never_followed(graph, task, &follows, &downstream);
            }
            let ids = |places: &[u32]| places.iter().map(|place| graph.tasks[*place as usize].id.clone()).collect();
            let resolved = Kind::Branch(Branch { if_true: ids(&if_true), if_false: ids(&if_false), ..branch });
            if let Some(body) = &mut graph.tasks[task].body {
                body.kind = resolved;
            }
        }
    }

    fn targets(&mut self, graph: &RawGraph, task: usize, names: &[String], downstream: &[u32]) -> Vec<u32> {
        let raw = &graph.tasks[task];
        let mut targets = Vec::new();
        for name in names {
            let found = match find(graph, raw.group, name) {
                Some(Place::Task(place)) => vec![place],
                Some(Place::Group(place)) => {
                    let id = format!("{}.", graph.groups[place as usize].id);
                    downstream.iter().copied().filter(|down| graph.tasks[*down as usize].id.starts_with(&id)).collect()
                }
                None => Vec::new(),
            };
            if !found.is_empty() && found.iter().all(|place| downstream.contains(place)) {
                targets.extend(found);
                continue;
            }
            let ids = downstream.iter().map(|down| graph.tasks[*down as usize].id.as_str());
            let diagnostic = Diagnostic::error(
                code::BRANCH_TARGET,
                format!("branch `{}` follows `{name}`, which is not directly downstream of it", raw.id),
                raw.at.clone(),
            );
            self.diagnostics.push(match did_you_mean(name, ids) {
                Some(near) => diagnostic.hint(format!("did you mean `{near}`?")),
                None => diagnostic.hint(format!("add `after: [{}]` to `{name}`", raw.id)),
            });
        }
        targets
    }

    fn never_followed(&mut self, graph: &RawGraph, branch: usize, follows: &Follows, downstream: &[Vec<u32>]) {
        let rule = |task: u32| graph.tasks[task as usize].settings.trigger_rule;
        for task in &downstream[branch] {
            // A branch skips the direct downstreams that it does not follow, whatever their rule is.
            if !follows.if_true.contains(task) && !follows.if_false.contains(task) {
                let raw = &graph.tasks[*task as usize];
                let message =
                    format!("`{}` can never run: branch `{}` follows it in neither case", raw.id, graph.tasks[branch].id);
                let hint = format!("add `{}` to `if_true` or `if_false`, or let it wait for another task", raw.id);
                let diagnostic = Diagnostic::error(code::UNREACHABLE, message, raw.at.clone());
                self.diagnostics.push(diagnostic.label(graph.tasks[branch].at.clone(), "the branch").hint(hint).warning());
            }
        }
        // A task that needs both sides: one of them is always skipped.
        let only = |one: &BTreeSet<u32>, other: &BTreeSet<u32>| -> BTreeSet<u32> { one.difference(other).copied().collect() };
        let (yes, no) = (only(&follows.if_true, &follows.if_false), only(&follows.if_false, &follows.if_true));
        let below = |side: &BTreeSet<u32>| -> BTreeSet<u32> {
            side.iter().flat_map(|task| downstream[*task as usize].iter().copied()).collect()
        };
        for task in below(&yes).intersection(&below(&no)) {
            let skips =
                matches!(rule(*task), TriggerRule::AllSuccess | TriggerRule::AllDoneMinOneSuccess | TriggerRule::NoneSkipped);
            if skips && !yes.contains(task) && !no.contains(task) {
                let raw = &graph.tasks[*task as usize];
                let message = format!(
                    "`{}` can never run: it waits for both sides of branch `{}`, and one is skipped",
                    raw.id, graph.tasks[branch].id
                );
                let diagnostic = Diagnostic::error(code::UNREACHABLE, message, raw.at.clone());
                self.diagnostics.push(
                    diagnostic
                        .label(graph.tasks[branch].at.clone(), "the branch")
                        .hint("`trigger_rule: none_failed_min_one_success` runs it after either side")
                        .warning(),
                );
            }
        }
    }
}

/// True when nothing but `if_true` and `if_false` can be followed. A template or a function may name other tasks.
fn decides_alone(branch: &Branch) -> bool {
    match branch.decide {
        BranchBy::Sql { .. } => !branch.if_true.is_empty() || !branch.if_false.is_empty(),
        BranchBy::When(_) | BranchBy::Python(_) => false,
    }
}
