//! What a simulated service runs: some random DAGs of one project, some of them by a timetable, and the clock that it reads.

use crate::simulator::dice::Dice;
use crate::simulator::scenario::{Naming, Scenario, project};
use crate::simulator::world::{Moment, World, timestamp};
use backstop_core::dag::Pool;
use backstop_core::timetable::{AssetExpr, Deadline, Every, IntervalReading, Reference, Schedule, Timetable};
use backstop_core::{DagId, Tick};
use backstop_project::definition::{Definition, Kind, Project};
use backstop_project::{Bundle, Diagnostic, Loaded, Overrides};
use backstop_runtime::clock::{Clock, Reading};
use backstop_runtime::service::Loader;
use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Files change only when people mend them, who look at them at once; else looking is left out: it is done in a thread, whose time is not
/// virtual.
const LOOK_EVERY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Who asks for the time more often than this in one moment never comes to rest.
const TOLD_AT_ONCE_MAX: u32 = 200_000;

/// Of so many seeds one has assets.
const ASSETS_EVERY: u64 = 3;
/// Of so many seeds one has deadlines.
const DEADLINES_EVERY: u64 = 2;

/// The DAGs and the limits of a seed.
pub(crate) struct House {
    pub(crate) dags: Vec<Scenario>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) parallelism: u32,
    pub(crate) runs_at_once: usize,
    pub(crate) sessions_max: u32,
    /// DAGs whose files people mended.
    mended: Mutex<BTreeSet<DagId>>,
}

impl House {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut dice = Dice::for_purpose(seed, 20);
        let pools = vec![
            Pool { name: "default_pool".into(), slots: dice.chance(40).then(|| dice.between(2, 6) as u32) },
            Pool { name: "second".into(), slots: Some(dice.between(1, 3) as u32) },
        ];
        let count = dice.between(2, 6);
        // A third of all seeds has assets; the others tell the stories that they told before there were any.
        let mut waiting = seed.is_multiple_of(ASSETS_EVERY).then(|| Dice::for_purpose(seed, 23));
        let mut hurried = seed.is_multiple_of(DEADLINES_EVERY).then(|| Dice::for_purpose(seed, 24));
        let mut draw = |place| {
            let deadlines = hurried.as_mut().map(draw_deadlines).unwrap_or_default();
            let alerts = hurried.as_mut().map_or(0, |hurried| hurried.below(3));
            let hurry = Hurry { deadlines, alerts };
            draw_dag(&mut dice, place, &pools, waiting.as_mut(), hurry)
        };
        let dags = (0..count).map(&mut draw).collect();
        Self {
            dags,
            pools,
            parallelism: *dice.pick(&[1, 2, 4, 32]),
            runs_at_once: *dice.pick(&[2, 5, 256]),
            sessions_max: *dice.pick(&[1, 4, 16]),
            mended: Mutex::default(),
        }
    }

    pub(crate) fn scenario(&self, dag: &str) -> Option<&Scenario> {
        self.dags.iter().find(|scenario| scenario.definition.dag.id().as_str() == dag)
    }

    /// Somebody mends the files of a DAG.
    pub(crate) fn mend(&self, dag: &DagId) {
        self.mended.lock().unwrap_or_else(PoisonError::into_inner).insert(dag.clone());
    }

    fn definition(&self, scenario: &Scenario) -> Arc<Definition> {
        let dag = scenario.definition.dag.id();
        let is_mended = self.mended.lock().unwrap_or_else(PoisonError::into_inner).contains(dag);
        if is_mended { Arc::new(mended(&scenario.definition)) } else { scenario.definition.clone() }
    }

    /// The ticks that a DAG has, all of them.
    pub(crate) fn ticks(scenario: &Scenario) -> Vec<Tick> {
        let timetable = scenario.definition.timetable.as_ref();
        timetable.map_or_else(Vec::new, |timetable| timetable.range(Timestamp::MIN, Timestamp::MAX).collect())
    }

    /// No timetable asks for anything later.
    pub(crate) fn last_tick(&self) -> Timestamp {
        self.dags.iter().flat_map(Self::ticks).map(|tick| tick.run_after).max().unwrap_or(Timestamp::MIN)
    }
}

/// By when a DAG's runs must be done, and how many are told.
struct Hurry {
    deadlines: Vec<Deadline>,
    alerts: u64,
}

fn draw_deadlines(dice: &mut Dice) -> Vec<Deadline> {
    let count = dice.below(3);
    let draw = |_| {
        let span = Duration::from_millis(*dice.pick(&[10, 1_000, 60_000, 600_000, 3_600_000]));
        match dice.below(5) {
            0 => {
                let minute = dice.below(60) as i8;
                Deadline::By { at: Time::constant(minute % 3, minute, 0, 0), zone: TimeZone::UTC }
            }
            1 => Deadline::Within { span, of: Reference::LogicalDate },
            2 => Deadline::Within { span, of: Reference::StartedAt },
            _ => Deadline::Within { span, of: Reference::QueuedAt },
        }
    };
    (0..count).map(draw).collect()
}

fn draw_dag(dice: &mut Dice, place: u64, pools: &[Pool], waiting: Option<&mut Dice>, hurry: Hurry) -> Scenario {
    let dag = format!("d{place}");
    let prefix = format!("{dag}/{{{{ run_id }}}}|");
    let updates = waiting.is_some().then(|| asset(place));
    let naming = Naming { dag: &dag, prefix: &prefix, pools: Some(pools.to_vec()), updates, alerts: hurry.alerts };
    let mut scenario = Scenario::draw_as(dice.next(), &naming);
    scenario.dry_run = false;
    let timetable = dice.chance(60).then(|| {
        let span = Duration::from_secs(60 * dice.between(2, 30));
        let start = timestamp(dice.below(3_600_000));
        let ticks = dice.between(2, 12) as i64;
        let length = SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX) * ticks as i32;
        Timetable {
            schedules: vec![Schedule::Every(Every::new(span, timestamp(0)))],
            start: Some(start),
            end: start.checked_add(length).ok(),
            catchup: dice.chance(50),
            interval: IntervalReading::Tick,
        }
    });
    let max_active_runs = dice.between(1, 4) as u32;
    let condition = waiting.and_then(|waiting| (place > 0 && waiting.chance(50)).then(|| draw_condition(waiting, place)));
    let after_assets = |condition| Timetable { schedules: vec![Schedule::Assets(condition)], ..Timetable::default() };
    let timetable = condition.map(after_assets).or(timetable);
    let Some(definition) = Arc::get_mut(&mut scenario.definition) else { unreachable!("nobody else has a new scenario") };
    definition.version = format!("of {dag}");
    definition.max_active_runs = max_active_runs;
    definition.catchup = timetable.as_ref().is_some_and(|timetable| timetable.catchup);
    definition.timetable = timetable;
    definition.deadlines = hurry.deadlines;
    scenario
}

/// The same DAG out of mended files: it has the same effects. Of a part of its tasks the statements that commit are others, by their texts
/// and digests; of the rest only what is around them.
fn mended(before: &Definition) -> Definition {
    let mut bodies = before.bodies.clone();
    for (place, body) in bodies.iter_mut().enumerate() {
        if let Kind::Sql(sql) = &mut body.kind {
            let text = match place % 3 {
                0 => sql.script.text.replace("VALUES (", "VALUES  ("),
                _ => format!("{}-- mended\n", sql.script.text),
            };
            sql.script.text = text.into();
        }
    }
    Definition {
        dag: before.dag.clone(),
        description: None,
        tags: Vec::new(),
        file: before.file.clone(),
        version: mended_version(&before.version),
        bundle: before.bundle.clone(),
        schedule: None,
        timezone: before.timezone.clone(),
        start_date: before.start_date,
        end_date: before.end_date,
        catchup: before.catchup,
        timetable: before.timetable.clone(),
        max_active_runs: before.max_active_runs,
        deadlines: before.deadlines.clone(),
        params: before.params.clone(),
        bodies,
        callbacks: before.callbacks.clone(),
    }
}

fn mended_version(version: &str) -> String {
    format!("{version}, mended")
}

/// What each DAG may update.
fn asset(place: u64) -> Arc<str> {
    format!("a{place}").into()
}

/// Only what DAGs before it update, so that no DAG waits for itself.
fn draw_condition(dice: &mut Dice, place: u64) -> AssetExpr {
    let count = dice.between(1, 3);
    let some = (0..count).map(|_| AssetExpr::Asset(asset(dice.below(place)))).collect::<Vec<_>>();
    match dice.below(3) {
        0 => AssetExpr::Any(some),
        1 => AssetExpr::All(some),
        _ => AssetExpr::All(vec![AssetExpr::Any(some), AssetExpr::Asset(asset(dice.below(place)))]),
    }
}

impl Loader for House {
    fn load(&self, _overrides: &Overrides) -> Vec<Loaded> {
        let mut project = project(self.sessions_max);
        let by_id = |scenario: &Scenario| (scenario.definition.dag.id().clone(), self.definition(scenario));
        project.dags = self.dags.iter().map(by_id).collect();
        let files = |dag: &DagId| (dag.clone(), vec![Arc::from("dags/simulated.yaml")]);
        let dag_files: BTreeMap<_, _> = project.dags.keys().map(files).collect();
        vec![Loaded { project, diagnostics: Vec::new(), dag_files }]
    }

    /// Sources are not kept word by word here: the version tells which they are.
    fn load_kept(
        &self,
        version: &str,
        _sources: &Bundle,
        dag: &DagId,
        _project: &Project,
    ) -> Result<Arc<Definition>, Vec<Diagnostic>> {
        let scenario = self.scenario(dag.as_str()).ok_or_else(Vec::new)?;
        let is_mended = version == mended_version(&scenario.definition.version);
        Ok(if is_mended { Arc::new(mended(&scenario.definition)) } else { scenario.definition.clone() })
    }

    fn fingerprint(&self) -> u64 {
        self.mended.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn look_every(&self) -> Duration {
        LOOK_EVERY
    }
}

/// The clock of one process, over a machine's clock that people set: as the product's `WallClock`, it never goes back, and lets the
/// machine's come near.
pub(crate) struct Skewed {
    world: Arc<World>,
    skew_ms: Arc<AtomicI64>,
    told: Mutex<Option<(Timestamp, Moment)>>,
    /// How often it was asked in the last moment.
    asked: AtomicU32,
}

impl Skewed {
    pub(crate) fn starting(world: Arc<World>, skew_ms: Arc<AtomicI64>) -> Self {
        Self { world, skew_ms, told: Mutex::new(None), asked: AtomicU32::new(0) }
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let moment = self.world.now();
        let skew = SignedDuration::from_millis(self.skew_ms.load(Ordering::Relaxed));
        let wall = timestamp(moment).checked_add(skew).unwrap_or(Timestamp::MAX);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match *told {
            Some((last, at)) if wall < last => {
                let since = SignedDuration::from_micros(moment.saturating_sub(at) as i64 * 500);
                last.checked_add(since).unwrap_or(Timestamp::MAX)
            }
            Some(_) | None => wall,
        };
        let is_same_moment = told.is_some_and(|(_, at)| at == moment);
        *told = Some((now, moment));
        let asked = if is_same_moment { self.asked.load(Ordering::Relaxed) + 1 } else { 0 };
        self.asked.store(asked, Ordering::Relaxed);
        if asked == TOLD_AT_ONCE_MAX {
            self.world
                .violated(|| format!("the time was asked for {asked} times in one moment: something turns round and round"));
        }
        now
    }

    fn reading(&self) -> Option<Reading> {
        let moment = self.world.now();
        let skew = SignedDuration::from_millis(self.skew_ms.load(Ordering::Relaxed));
        let wall = timestamp(moment).checked_add(skew).unwrap_or(Timestamp::MAX);
        Some(Reading { wall, monotonic: Duration::from_millis(moment) })
    }
}
