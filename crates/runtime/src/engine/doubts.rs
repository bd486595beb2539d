//! What attempts in doubt keep from others: the slots of their pools, and a session of their connections. What they began may still run on a
//! server, until it is found out that it does not, or a person says what became of it.

use super::Engine;
use crate::resolve::asks_a_server;
use crate::slots::Keeps;
use backstop_core::InstanceId;
use std::collections::BTreeSet;

impl Engine {
    /// Lets those that are in doubt no more keep nothing more. What the process before this one left in doubt begins to keep something here;
    /// what falls into doubt later, where it does. What is found to have ended meanwhile keeps nothing though it stays in doubt.
    pub(super) fn keep_slots_of_doubts(&mut self) {
        // Who only tells has nothing to do with the attempts.
        if self.only_tells {
            return;
        }
        if !self.has_kept_of_before {
            self.has_kept_of_before = true;
            let of_before: Vec<InstanceId> = self.state.instances_in_doubt().collect();
            self.keep_pools(&of_before);
            of_before.iter().for_each(|instance| self.keep_session(instance));
        }
        if !self.has_kept_slots {
            return;
        }
        // What waits for a person may wait long, and others of the run for the slot: it keeps none where nothing can run on a server, or no
        // service looks whether it does.
        let is_looked_at = |instance: &InstanceId| self.seat.is_some() && self.has_statement(instance);
        let is_kept = |instance: &InstanceId| !self.undecided.contains_key(instance) || is_looked_at(instance);
        let kept: BTreeSet<InstanceId> = self.state.instances_in_doubt().filter(is_kept).collect();
        if let Some(seat) = &self.seat {
            seat.keep_only(|instance| kept.contains(instance));
        }
        let run = &self.shared.header.run_id;
        let of_sessions = self.shared.sessions.monitor().kept();
        of_sessions.keep_only(run, |instance| kept.contains(instance) || self.is_running(instance));
        self.has_kept_slots = !kept.is_empty();
    }

    fn keep_pools(&self, instances: &[InstanceId]) {
        let Some(seat) = &self.seat else { return };
        let dag = &self.shared.definition.dag;
        let doubts = instances.iter().filter_map(|instance| {
            let settings = &dag.task(self.place(instance)?).settings;
            let session = self.session_of(instance).filter(|_| self.has_statement(instance));
            Some(Keeps { instance: instance.clone(), pool: self.pool(settings.pool).into(), slots: settings.pool_slots, session })
        });
        seat.keep_for_doubts(doubts.collect());
    }

    fn keep_session(&self, instance: &InstanceId) {
        let connection = self.place(instance).and_then(|place| self.shared.definition.body(place).connection.as_deref());
        if let Some(connection) = connection.filter(|_| self.has_statement(instance)) {
            self.shared.sessions.keep(connection, &self.shared.header.run_id, instance);
        }
    }

    /// An attempt falls into doubt, with what it held.
    pub(super) fn fell_into_doubt(&mut self, instance: &InstanceId, try_number: u32) {
        let lost = self.running.remove(&(instance.clone(), try_number));
        self.keep_session(instance);
        if let Some(permit) = lost.and_then(|lost| lost.permit) {
            permit.falls_into_doubt();
        } else if let Some(permit) = self.place(instance).and_then(|place| self.unit_permits.remove(&place)) {
            // In the name of whichever task of its transaction asked for it: from now on in that of the commit.
            self.keep_pools(std::slice::from_ref(instance));
            drop(permit);
        }
        self.has_kept_slots = true;
    }

    /// An attempt has ended, and is not in doubt: should it have lost a session, it keeps none. That of a transaction goes by the name of its
    /// group.
    pub(super) fn has_ended(&mut self, instance: &InstanceId, try_number: u32) {
        self.running.remove(&(instance.clone(), try_number));
        let dag = &self.shared.definition.dag;
        let group = self.place(instance).and_then(|place| dag.member_of(place)).map(|unit| &dag.task(unit.commit).id);
        let is_its = |kept: &InstanceId| kept == instance || group.is_some_and(|group| kept.task == *group);
        self.shared.sessions.monitor().kept().keep_only(&self.shared.header.run_id, |kept| !is_its(kept));
    }

    fn is_running(&self, instance: &InstanceId) -> bool {
        self.running.range((instance.clone(), 0)..=(instance.clone(), u32::MAX)).next().is_some()
    }

    /// Whether an attempt may have left a statement on a server.
    fn has_statement(&self, instance: &InstanceId) -> bool {
        let of_task = |place| asks_a_server(self.shared.definition.body(place));
        !self.shared.header.dry_run && self.place(instance).is_some_and(of_task)
    }
}
