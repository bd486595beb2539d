//! Which attempts begin now: those that the core wants, as far as what the run shares with other runs is there for them.
//!
//! Who does not get it waits without keeping others of the run from beginning: they are passed over, and those that want something else go.

use super::Engine;
use crate::sessions::ConnectionKey;
use crate::slots::{Asked, Lack, Permit};
use backstop_core::{Action, Command, Event, InstanceId, TaskIx, starts_past};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashSet};

/// What is begun together.
#[derive(Default)]
pub(super) struct Beginning {
    pub(super) events: Vec<Event>,
    pub(super) started: Vec<(InstanceId, u32, Option<Permit>)>,
    /// Other runs, or others of this one, have what these want.
    pub(super) refused: HashSet<InstanceId>,
    lacks: Lacks,
}

/// What there is not enough of.
#[derive(Default)]
struct Lacks {
    places: bool,
    /// Pools, by number.
    pools: HashSet<u32>,
    connections: HashSet<ConnectionKey>,
}

impl Lacks {
    fn count(&self) -> usize {
        self.pools.len() + self.connections.len()
    }
}

impl Engine {
    /// Begins an attempt, unless it has to wait.
    pub(super) fn begin_attempt(&mut self, instance: InstanceId, try_number: u32, now: Timestamp, beginning: &mut Beginning) {
        // On the way to the end it is only looked at: that takes no place from anybody, and waits for none.
        let asked = if self.ending.is_some() { Ok(None) } else { self.ask_for_slots(&instance) };
        let permit = match asked {
            Ok(permit) => permit,
            Err(lack) => {
                self.note_lack(&instance, lack, &mut beginning.lacks);
                beginning.refused.insert(instance);
                return;
            }
        };
        let before = beginning.events.len();
        self.decide_into(Command::StartAttempt { instance: instance.clone() }, now, &mut beginning.events);
        if beginning.events.len() == before {
            return;
        }
        if self.is_empty_kind(&instance) {
            let done = Command::Succeed { instance, try_number, result: None, follow: None };
            self.decide_into(done, now, &mut beginning.events);
        } else {
            beginning.started.push((instance, try_number, permit));
        }
    }

    /// Begins others in the place of those that wait. Each round but the last finds one more thing that there is not enough of.
    pub(super) fn begin_past(&mut self, now: Timestamp, beginning: &mut Beginning) {
        let may_begin = self.ending.is_none() && !self.is_handing_over && !self.only_tells;
        let mut known = 0;
        while may_begin && !beginning.lacks.places && beginning.lacks.count() > known {
            known = beginning.lacks.count();
            let mut seen: BTreeMap<(TaskIx, bool), bool> = BTreeMap::new();
            let lacks = &beginning.lacks;
            let is_kept_back = |task, is_item| *seen.entry((task, is_item)).or_insert_with(|| self.lacks(task, is_item, lacks));
            for action in starts_past(&self.state, is_kept_back) {
                if let Action::StartAttempt { instance, try_number } = action {
                    self.begin_attempt(instance, try_number, now, beginning);
                }
            }
        }
    }

    fn note_lack(&self, instance: &InstanceId, lack: Lack, lacks: &mut Lacks) {
        match lack {
            Lack::Places => lacks.places = true,
            Lack::Slots => {
                let place = self.place(instance);
                lacks.pools.extend(place.map(|place| self.shared.definition.dag.task(place).settings.pool));
            }
            Lack::Sessions => lacks.connections.extend(self.session_of(instance).map(|(connection, _)| connection)),
        }
    }

    fn lacks(&self, task: TaskIx, is_item: bool, lacks: &Lacks) -> bool {
        let dag = &self.shared.definition.dag;
        // Which item it is makes no difference.
        let instance = InstanceId { task: dag.task(task).id.clone(), map_index: is_item.then_some(0) };
        if self.is_empty_kind(&instance) {
            return false;
        }
        let has_none = |(connection, _): (ConnectionKey, u32)| lacks.connections.contains(&connection);
        lacks.pools.contains(&dag.task(task).settings.pool) || self.session_of(&instance).is_some_and(has_none)
    }

    /// Slots that other runs may hold. An empty task needs none.
    fn ask_for_slots(&self, instance: &InstanceId) -> Result<Option<Permit>, Lack> {
        let (Some(seat), Some(place)) = (&self.seat, self.place(instance)) else { return Ok(None) };
        if self.is_empty_kind(instance) {
            return Ok(None);
        }
        let dag = &self.shared.definition.dag;
        if dag.unit_of(place).is_some_and(|unit| self.unit_permits.contains_key(&unit.commit)) {
            return Ok(None);
        }
        let settings = &dag.task(place).settings;
        let asked = Asked {
            pool: self.pool(settings.pool),
            slots: settings.pool_slots,
            session: self.session_of(instance),
            priority: dag.effective_priority(place),
        };
        seat.take(instance, asked).map(Some)
    }
}
