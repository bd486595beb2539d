//! What attempts that an earlier process left keep of the slots of pools: their statements may go on on their servers.
//!
//! It knows which runs wait and not how they are driven: a run that is driven says by itself what its doubts keep (`engine`).

use crate::service::{Error, Service};
use crate::slots::Claim;
use backstop_core::{InstanceId, InstancePhase, RunId};
use backstop_store::InstanceFilter;
use std::collections::BTreeMap;
use std::time::Duration;

/// Task instances read at once.
const INSTANCES_AT_ONCE: u32 = 1000;
/// How long attempts that were left keep slots though their runs wait: with more runs than may be driven, one may wait for a slot, and the
/// one that keeps it for the first one's place.
pub(super) const KEEP_SLOTS: Duration = Duration::from_secs(60);

impl Service {
    /// Before anything is driven: what was going on when the process before this one ended may go on on its servers, and keeps the slots of
    /// its pools until its run has found out.
    pub(in crate::service) async fn keep_slots_of_left_behind(&self) -> Result<(), Error> {
        let mut of_runs: BTreeMap<RunId, Vec<InstanceId>> = BTreeMap::new();
        for state in [InstancePhase::Running, InstancePhase::InDoubt] {
            let state = Some(state.as_str().to_owned());
            let mut filter = InstanceFilter { state, limit: INSTANCES_AT_ONCE, ..InstanceFilter::default() };
            loop {
                let page = self.store.list_instances(&filter).await?;
                for (run, _, row) in page.rows {
                    of_runs.entry(run).or_default().push(row.instance);
                }
                filter.after = page.next;
                if filter.after.is_none() {
                    break;
                }
            }
        }
        for (run, instances) in of_runs {
            let Some(row) = self.store.run(&run).await? else { continue };
            // Nobody would find out about those of a DAG that is paused, and others need not wait for that.
            let is_to_go_on = {
                let desk = self.desk();
                desk.is_queued.contains(&run) && !desk.paused.contains(&row.header.dag_id)
            };
            if !is_to_go_on {
                continue;
            }
            let Ok((prepared, _)) = self.pinned(&row.header).await else { continue };
            let dag = &prepared.definition.dag;
            let claims = instances.into_iter().filter_map(|instance| {
                let settings = &dag.task(dag.index(instance.task.as_str())?).settings;
                let pool = dag.pools().get(settings.pool as usize)?.name.as_str().into();
                Some(Claim { run: run.clone(), instance, pool, slots: settings.pool_slots, priority: 0 })
            });
            self.slots.keep_for_doubts(claims.collect());
        }
        Ok(())
    }

    /// Runs that nobody has begun to drive keep no slots any more: what they wait for may be those that wait for the slots.
    pub(super) fn let_go_what_is_not_driven(&self) {
        let waiting: Vec<RunId> = self.desk().is_queued.iter().cloned().collect();
        waiting.iter().for_each(|run| self.slots.let_go(run));
    }
}
