//! What attempts in doubt keep while nobody drives their runs: those that an earlier process left, and those of runs that wait for a person.
//! Their statements may still run on their servers, so that they keep the slots of their pools and a session of their connections until
//! the server says that nothing of theirs runs any more, or their run has found out.
//!
//! It only looks at the servers: what is still running is ended by who drives the run (`resolve`), or by a person.

use super::Desk;
use crate::monitor::User;
use crate::resolve::asks_a_server;
use crate::service::{Error, Service};
use crate::sessions::ConnectionKey;
use crate::slots;
use backstop_core::event::RunHeader;
use backstop_core::{InstanceId, InstancePhase, RunId};
use backstop_project::definition::Definition;
use backstop_store::InstanceFilter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Task instances read at once.
const INSTANCES_AT_ONCE: u32 = 1000;
/// Between two looks at the server of one of them, at first. It grows with the time that it keeps something, by an eighth of that.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest such wait.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);
/// How long a server has to answer one look.
const LOOK_AT_MOST: Duration = Duration::from_secs(10);
/// Attempts that are looked at in one go; those that were looked at longest ago come first.
const LOOKS_AT_ONCE: usize = 100;
/// How long something is kept for what nobody can see the end of: what runs on no server, while nobody drives its run, and what runs on one
/// that does not show whose sessions are whose. Tasks of the same run may wait for that, and keep a person from being asked.
const KEEP_UNSEEN: Duration = Duration::from_secs(60);

/// Who keeps something.
type Keeper = (RunId, InstanceId);

/// What somebody keeps, by the numbers of that.
#[derive(Clone, Default, PartialEq, Eq)]
struct Keeps {
    slots: Option<u64>,
    session: Option<(usize, ConnectionKey)>,
}

/// Since when somebody keeps something, and when that was looked at.
struct Looked {
    keeps: Keeps,
    since: Instant,
    last: Option<Instant>,
}

impl Looked {
    fn is_due(&self, now: Instant) -> bool {
        let wait = |last: Instant| ((last - self.since) / 8).clamp(LOOK_EVERY, LOOK_EVERY_MAX);
        self.last.is_none_or(|last| now - last >= wait(last))
    }
}

/// Those that keep something, as it was seen last.
#[derive(Default)]
struct Looks(BTreeMap<Keeper, Looked>);

impl Looks {
    /// Who keeps something now. Whoever keeps something else by now begins anew.
    fn see(&mut self, keepers: BTreeMap<Keeper, Keeps>, now: Instant) {
        self.0.retain(|keeper, looked| keepers.get(keeper).is_some_and(|keeps| *keeps == looked.keeps));
        for (keeper, keeps) in keepers {
            self.0.entry(keeper).or_insert(Looked { keeps, since: now, last: None });
        }
    }

    /// Some of those that are to be looked at now.
    fn take_due(&mut self, now: Instant) -> Vec<(Keeper, Keeps, Instant)> {
        let mut due: Vec<_> = self.0.iter_mut().filter(|(_, looked)| looked.is_due(now)).collect();
        due.sort_by_key(|(_, looked)| looked.last);
        due.truncate(LOOKS_AT_ONCE);
        let taken = due.into_iter().map(|(keeper, looked)| {
            looked.last = Some(now);
            (keeper.clone(), looked.keeps.clone(), looked.since)
        });
        taken.collect()
    }
}

/// What a look at somebody who keeps something comes to.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It is known that nothing of it runs any more, or nobody will ever know and others need not wait for that.
    Ended,
    /// It runs, or cannot be seen.
    MayRun,
    /// The server does not answer.
    Silent(ConnectionKey),
}

impl Desk {
    /// A run that an earlier process left in the middle of something goes before others: they may wait for what it keeps.
    fn was_left(&mut self, header: &RunHeader) {
        self.left.insert(header.run_id.clone(), super::Lane::of(header));
    }
}

impl Service {
    /// Before anything is driven: what was going on when the process before this one ended may go on on its servers.
    pub(in crate::service) async fn keep_slots_of_left_behind(&self) -> Result<(), Error> {
        let mut of_runs: BTreeMap<RunId, Vec<InstanceId>> = BTreeMap::new();
        for state in [InstancePhase::Running, InstancePhase::InDoubt, InstancePhase::Held] {
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
            if !self.desk().queued_runs.contains(&run) {
                continue;
            }
            self.desk().was_left(&row.header);
            let Ok((prepared, sessions)) = self.pinned(&row.header).await else { continue };
            let definition = &prepared.definition;
            // What shares a transaction works in one session, under the name of its group.
            let instances: BTreeSet<InstanceId> =
                instances.into_iter().map(|instance| in_whose_name(definition, instance)).collect();
            for instance in instances {
                let Some(place) = definition.dag.index(instance.task.as_str()) else { continue };
                let settings = &definition.dag.task(place).settings;
                let body = definition.body(place);
                let connection = body.connection.as_deref().filter(|_| asks_a_server(body));
                if let Some(connection) = connection {
                    sessions.keep(connection, &run, &instance);
                }
                let Some(pool) = definition.dag.pools().get(settings.pool as usize) else { continue };
                let pool = pool.name.as_str().into();
                let session = connection.and_then(|connection| sessions.places(connection));
                self.slots.keep_for_doubts(&run, vec![slots::Keeps { instance, pool, slots: settings.pool_slots, session }]);
            }
        }
        Ok(())
    }

    /// Looks at the servers of those that keep something, until the service stops.
    pub(in crate::service) async fn watch_left(self: &Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let look = async {
            let mut looks = Looks::default();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                self.look_at_left(&mut looks).await;
            }
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => {}
            () = look => {}
        }
    }

    /// Looks at those that keep something, as far as they are due.
    async fn look_at_left(&self, looks: &mut Looks) {
        let mut keepers: BTreeMap<Keeper, Keeps> = BTreeMap::new();
        for (run, instance, number) in self.slots.doubts() {
            keepers.entry((run, instance)).or_default().slots = Some(number);
        }
        for (run, instance, number, connection) in self.monitor.kept().all() {
            keepers.entry((run, instance)).or_default().session = Some((number, connection));
        }
        let now = Instant::now();
        looks.see(keepers, now);
        // A server that is away is waited for once, and does not keep the others from being asked.
        let mut silent = BTreeSet::new();
        for ((run, instance), keeps, since) in looks.take_due(now) {
            match self.look_at_one(&run, &instance, &keeps, since, &silent).await {
                Look::MayRun => continue,
                Look::Silent(connection) => {
                    silent.insert(connection);
                    continue;
                }
                Look::Ended => {}
            }
            if let Some(number) = keeps.slots {
                self.slots.has_ended(&run, &instance, number);
            }
            if let Some((number, _)) = keeps.session {
                self.monitor.kept().has_ended(number);
            }
        }
    }

    /// Looks whether what an attempt in doubt began runs.
    async fn look_at_one(
        &self,
        run: &RunId,
        instance: &InstanceId,
        keeps: &Keeps,
        since: Instant,
        silent: &BTreeSet<ConnectionKey>,
    ) -> Look {
        let row = match self.store.run(run).await {
            Ok(Some(row)) => row,
            // Removed, with all that was in doubt about it.
            Ok(None) => return Look::Ended,
            Err(_) => return Look::MayRun,
        };
        if row.is_finished() || keeps.session.as_ref().is_some_and(|(_, connection)| self.is_taken_out(connection)) {
            return Look::Ended;
        }
        // An attempt of a run whose log could not be written may be at work here still.
        if self.monitor.has_session(run, instance) {
            return Look::MayRun;
        }
        let Ok((prepared, sessions)) = self.pinned(&row.header).await else { return Look::MayRun };
        let Some(place) = prepared.definition.dag.index(instance.task.as_str()) else { return Look::MayRun };
        let body = prepared.definition.body(place);
        let Some(connection) = body.connection.as_deref().filter(|_| asks_a_server(body)) else {
            let desk = self.desk();
            let is_waited_for = since.elapsed() < KEEP_UNSEEN && !desk.paused.contains(&row.header.dag_id);
            return if desk.active.contains_key(run) || is_waited_for { Look::MayRun } else { Look::Ended };
        };
        let key = sessions.key(connection);
        if silent.contains(&key) {
            return Look::MayRun;
        }
        let user = User { run: run.clone(), dag: row.header.dag_id.clone(), instance: instance.clone(), try_number: 0 };
        match tokio::time::timeout(LOOK_AT_MOST, sessions.leftovers(connection, user)).await {
            Ok(Ok(Some(0))) => Look::Ended,
            Ok(Ok(None)) if since.elapsed() >= KEEP_UNSEEN => Look::Ended,
            Ok(Ok(Some(1..) | None)) => Look::MayRun,
            Ok(Err(_)) | Err(_) => Look::Silent(key),
        }
    }

    /// Whether a connection was taken out of its project: nobody begins anything there any more, and nobody can ask it.
    fn is_taken_out(&self, (root, id): &ConnectionKey) -> bool {
        let catalog = self.catalog();
        let project = catalog.projects().iter().find(|(project, _)| project.root == *root);
        project.is_some_and(|(project, _)| !project.connections.contains_key(id))
    }

    /// A run is over, or in doubt about nothing any more.
    pub(super) fn keeps_nothing(&self, run: &RunId) {
        self.slots.keep_only(run, |_| false);
        self.monitor.kept().keep_only(run, |_| false);
    }
}

/// A task itself, or the group that commits it.
fn in_whose_name(definition: &Definition, instance: InstanceId) -> InstanceId {
    let place = definition.dag.index(instance.task.as_str());
    match place.and_then(|place| definition.dag.member_of(place)) {
        Some(unit) => InstanceId::single(definition.dag.task(unit.commit).id.clone()),
        None => instance,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keepers(slots: &[(&str, u64)]) -> BTreeMap<Keeper, Keeps> {
        let keeper = |run: &str| (RunId::new(run), InstanceId::single("t".into()));
        slots.iter().map(|(run, number)| (keeper(run), Keeps { slots: Some(*number), session: None })).collect()
    }

    fn taken(looks: &mut Looks, now: Instant) -> Vec<String> {
        looks.take_due(now).into_iter().map(|((run, _), ..)| run.to_string()).collect()
    }

    #[test]
    fn what_is_kept_for_long_is_looked_at_less_often() {
        let mut looks = Looks::default();
        let since = Instant::now();
        let (mut at, mut waits) = (since, Vec::new());
        looks.see(keepers(&[("a", 1)]), since);
        assert_eq!(taken(&mut looks, since), ["a"]);
        for second in 1..=1000 {
            let now = since + Duration::from_secs(second);
            if !taken(&mut looks, now).is_empty() {
                waits.push((now - at).as_secs());
                at = now;
            }
        }
        assert!(waits.is_sorted(), "{waits:?}");
        assert_eq!((waits.first(), waits.last()), (Some(&2), Some(&30)));
        // Another doubt of the same instance is looked at like a new one.
        looks.see(keepers(&[("a", 2)]), at);
        assert_eq!(taken(&mut looks, at), ["a"]);
        assert_eq!(taken(&mut looks, at + LOOK_EVERY), ["a"]);
        looks.see(BTreeMap::new(), at);
        assert!(looks.0.is_empty());
    }

    #[test]
    fn whoever_was_looked_at_longest_ago_comes_first() {
        let mut looks = Looks::default();
        let names: Vec<String> = (0..LOOKS_AT_ONCE + 1).map(|number| format!("run-{number:03}")).collect();
        let all: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let now = Instant::now();
        looks.see(keepers(&all), now);
        assert_eq!(taken(&mut looks, now), names[..LOOKS_AT_ONCE]);
        let first = taken(&mut looks, now + LOOK_EVERY);
        assert_eq!((first.len(), &first[0]), (LOOKS_AT_ONCE, &names[LOOKS_AT_ONCE]));
    }
}
