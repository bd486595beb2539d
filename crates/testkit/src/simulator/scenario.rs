//! Random DAGs, as definitions that the real runtime runs: real SQL text with BEGIN and COMMIT, cut by the real splitter.
//!
//! Every statement that changes something has one effect, a text that names it: `task,map_index,segment,part`. Callbacks have
//! `call:task,map_index,try,occasion,place`.

use super::dice::Dice;
use super::grouping::{self, Drawn};
use backstop_core::dag::{DagSpec, Delivery, Hooks, Pool, Role, TaskSettings, TaskSpec, WeightRule};
use backstop_core::event::CallbackId;
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use backstop_core::{Dag, TaskId, TaskIx};
use backstop_project::definition::{
    Body, Branch, BranchBy, Callback, Callbacks, Check, Connection, Definition, ForEach, Kind, Project, ResultKind, Sensor,
    SensorBy, Source, Sql, Template,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Effects of tasks that may run again without asking begin so.
pub(crate) const REPEATABLE: &str = "lax";
/// Effects of callbacks begin so.
pub(crate) const CALL: &str = "call:";
/// Where several runs have effects, their names stand in front of it.
pub(crate) const RUN_END: char = '|';
/// The connections of every scenario, by the name of their server.
pub(crate) const SERVERS: [&str; 2] = ["a", "b"];

/// What is run, and what its author expects of it.
pub(crate) struct Scenario {
    pub(crate) definition: Arc<Definition>,
    pub(crate) project: Arc<Project>,
    /// One a task, by place.
    pub(crate) shapes: Vec<Shape>,
    pub(crate) dry_run: bool,
    /// The server of all callbacks.
    pub(crate) callback_server: usize,
}

/// What a task does to the databases.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) id: String,
    pub(crate) server: usize,
    /// Empty for what is no script.
    pub(crate) segments: Vec<Segment>,
    pub(crate) delivery: Delivery,
    /// How many items it expands to.
    pub(crate) items: Option<u32>,
    /// What a success of it gives.
    pub(crate) result: Option<i64>,
}

/// What one segment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// So many effects in a transaction.
    Marked(u32),
    /// Looks as if it only read, and has one effect.
    Disguised,
    /// Reads.
    Read,
    /// One effect that commits by itself.
    Bare,
    /// Effects that the script rolls back.
    RolledBack,
    /// Fails whenever it is run.
    Broken,
}

impl Segment {
    /// How many effects it has when it commits.
    pub(crate) fn parts(self) -> u32 {
        match self {
            Self::Marked(parts) => parts,
            Self::Disguised | Self::Bare => 1,
            Self::Read | Self::RolledBack | Self::Broken => 0,
        }
    }
}

/// The name of an effect.
pub(crate) fn effect(task: &str, map_index: Option<u32>, segment: usize, part: u32) -> String {
    format!("{task},{},{segment},{part}", map_index.map_or(-1, i64::from))
}

/// The name of a callback's effect.
pub(crate) fn call_effect(callback: &CallbackId) -> String {
    let occasion = occasion_name(callback.occasion);
    match &callback.instance {
        None => format!("{CALL}run,-1,0,{occasion},{}", callback.place),
        Some(instance) => format!(
            "{CALL}{},{},{},{occasion},{}",
            instance.task,
            instance.map_index.map_or(-1, i64::from),
            callback.try_number,
            callback.place
        ),
    }
}

fn occasion_name(occasion: backstop_core::event::Occasion) -> &'static str {
    use backstop_core::event::Occasion;
    match occasion {
        Occasion::Failure => "failure",
        Occasion::Retry => "retry",
        Occasion::Success => "success",
        Occasion::Deadline => "deadline",
        Occasion::Stuck => "stuck",
    }
}

pub(super) fn source() -> Source {
    Source { file: "dags/simulated.yaml".into(), line: 1, column: 1 }
}

pub(super) fn template(text: impl Into<Arc<str>>) -> Template {
    Template { text: text.into(), source: source() }
}

/// How a scenario is told from others on the same servers.
pub(crate) struct Naming<'a> {
    /// The DAG.
    pub(crate) dag: &'a str,
    /// A template that stands in front of every effect's name.
    pub(crate) prefix: &'a str,
    /// The pools of the project; `None`: some of its own.
    pub(crate) pools: Option<Vec<Pool>>,
    /// The asset that some of its tasks update.
    pub(crate) updates: Option<Arc<str>>,
    /// How many callbacks it has for its deadlines.
    pub(crate) alerts: u64,
}

impl Scenario {
    pub(crate) fn draw(seed: u64) -> Self {
        Self::draw_as(seed, &Naming { dag: "simulated", prefix: "", pools: None, updates: None, alerts: 0 })
    }

    pub(crate) fn draw_as(seed: u64, naming: &Naming<'_>) -> Self {
        let mut dice = Dice::for_purpose(seed, 1);
        let mut updating = Dice::for_purpose(seed, 5);
        let count = match dice.below(10) {
            0 => 1,
            1..=6 => dice.between(2, 5),
            _ => dice.between(4, 12),
        } as usize;
        let pools = vec![
            Pool { name: "default_pool".into(), slots: dice.chance(30).then(|| dice.between(1, 4) as u32) },
            Pool { name: "second".into(), slots: Some(dice.between(1, 3) as u32) },
        ];
        let pools = naming.pools.clone().unwrap_or(pools);
        let mut tasks = Vec::new();
        let mut bodies = Vec::new();
        let mut shapes = Vec::new();
        let after = edges(&mut dice, count);
        for place in 0..count {
            let downstream: Vec<usize> = (place + 1..count).filter(|later| after[*later].contains(&place)).collect();
            let (shape, mut body) = draw_body(&mut dice, naming.prefix, place, &downstream);
            let callbacks = draw_callbacks(&mut dice, naming.prefix, Some(&shape.id));
            let mut settings = draw_settings(&mut dice, &shape, &callbacks, !after[place].is_empty(), &pools);
            settings.updates = naming.updates.iter().filter(|_| updating.chance(40)).cloned().collect();
            body.callbacks = callbacks;
            shapes.push(shape);
            bodies.push(body);
            tasks.push((settings, after[place].clone()));
        }
        let mut drawn = Drawn { tasks, bodies, shapes, groups: Vec::new() };
        grouping::share(seed, naming.prefix, &mut drawn);
        let Drawn { tasks, mut bodies, shapes, groups } = drawn;
        let ids: Vec<TaskId> = shapes.iter().map(|shape: &Shape| TaskId::new(shape.id.as_str())).collect();
        name_branches(&mut bodies, &ids);
        let tasks = tasks
            .into_iter()
            .enumerate()
            .map(|(place, (settings, after))| TaskSpec {
                id: ids[place].clone(),
                after: after.into_iter().map(|up| ids[up].clone()).collect(),
                settings,
            })
            .collect();
        let mut callbacks = draw_callbacks(&mut dice, naming.prefix, None);
        callbacks.on_deadline = (0..naming.alerts).map(|place| callback(naming.prefix, None, "deadline", place)).collect();
        let spec = DagSpec {
            id: naming.dag.into(),
            tasks,
            groups,
            pools,
            max_active_tasks: dice.between(1, 16) as u32,
            hooks: hooks(&callbacks),
            dagrun_timeout: dice.chance(5).then(|| Duration::from_secs(dice.between(1, 900))),
            map_length_max: 16,
        };
        let dag = match Dag::new(spec) {
            Ok(dag) => dag,
            Err(error) => unreachable!("the generator makes valid DAGs: {error:?}"),
        };
        let sessions_max = *dice.pick(&[1, 2, 16]);
        let callback_server = 0;
        Self {
            definition: Arc::new(definition(dag, bodies, callbacks)),
            project: Arc::new(project(sessions_max)),
            shapes,
            dry_run: dice.chance(2),
            callback_server,
        }
    }

    pub(crate) fn shape(&self, task: &str) -> Option<&Shape> {
        self.definition.dag.index(task).map(|TaskIx(place)| &self.shapes[place as usize])
    }
}

fn edges(dice: &mut Dice, count: usize) -> Vec<Vec<usize>> {
    let density = dice.between(10, 90);
    (0..count)
        .map(|place| {
            let mut after: Vec<usize> = (place.saturating_sub(3)..place).filter(|_| dice.chance(density)).collect();
            if place > 3 && dice.chance(20) {
                after.insert(0, dice.below(place as u64 - 3) as usize);
            }
            after
        })
        .collect()
}

fn draw_settings(dice: &mut Dice, shape: &Shape, callbacks: &Callbacks, has_upstream: bool, pools: &[Pool]) -> TaskSettings {
    let role = match dice.below(20) {
        0 => Role::Setup,
        1 if has_upstream => Role::Teardown { on_failure_fail_dagrun: dice.chance(30) },
        _ => Role::Work,
    };
    let trigger_rule = match role {
        Role::Teardown { .. } => TriggerRule::AllDoneSetupSuccess,
        Role::Work | Role::Setup if dice.chance(65) => TriggerRule::AllSuccess,
        Role::Work | Role::Setup => *dice.pick(&TriggerRule::ALL),
    };
    let pool = u32::from(dice.chance(20));
    let slots = pools[pool as usize].slots.unwrap_or(2);
    TaskSettings {
        trigger_rule,
        retry: RetryPolicy {
            retries: dice.below(4) as u32,
            retry_delay: Duration::from_secs(*dice.pick(&[0, 0, 1, 30, 300])),
            exponential: dice.chance(20).then_some(2.0),
            retry_delay_max: None,
        },
        role,
        mapped: shape.items.is_some(),
        pool,
        pool_slots: dice.between(1, u64::from(slots.min(2))) as u32,
        priority_weight: dice.between(1, 3) as i64,
        weight_rule: *dice.pick(&[WeightRule::Downstream, WeightRule::Upstream, WeightRule::Absolute]),
        delivery: shape.delivery,
        hooks: hooks(callbacks),
        group: None,
        updates: Default::default(),
    }
}

pub(super) fn hooks(callbacks: &Callbacks) -> Hooks {
    Hooks {
        on_failure: callbacks.on_failure.len() as u32,
        on_retry: callbacks.on_retry.len() as u32,
        on_success: callbacks.on_success.len() as u32,
        on_deadline: callbacks.on_deadline.len() as u32,
        on_stuck: 0,
    }
}

fn draw_body(dice: &mut Dice, prefix: &str, place: usize, downstream: &[usize]) -> (Shape, Body) {
    let server = dice.below(SERVERS.len() as u64) as usize;
    let mut shape = Shape {
        id: format!("t{place}"),
        server,
        segments: Vec::new(),
        delivery: Delivery::ExactlyOnce,
        items: None,
        result: None,
    };
    let query = |text: String| template(text);
    let kind = match dice.below(20) {
        0..=12 => {
            if dice.chance(6) {
                shape.delivery = Delivery::AtLeastOnce;
                shape.id = format!("{REPEATABLE}{place}");
            }
            if dice.chance(15) {
                shape.items = Some(dice.below(4) as u32);
            }
            Kind::Sql(draw_script(dice, prefix, &mut shape))
        }
        13..=14 => Kind::Sensor(Sensor {
            look: SensorBy::Sql {
                sql: query(format!("SELECT ready({})", dice.below(2_000_000))),
                parameters: BTreeMap::new(),
                fail_on_empty: false,
            },
            poke_interval: Duration::from_secs(*dice.pick(&[1, 60, 600])),
            timeout: Duration::from_secs(*dice.pick(&[10, 1000, 10_000])),
            soft_fail: dice.chance(50),
        }),
        15..=16 if !downstream.is_empty() => {
            let (if_true, if_false) = downstream.iter().partition::<Vec<usize>, _>(|_| dice.chance(50));
            let names = |places: Vec<usize>| places.iter().map(usize::to_string).collect();
            let decide = BranchBy::Sql { sql: query("SELECT coin(50)".into()), parameters: BTreeMap::new() };
            Kind::Branch(Branch { decide, if_true: names(if_true), if_false: names(if_false) })
        }
        17..=18 => Kind::Check(Check::Query { sql: query("SELECT coin(70)".into()), parameters: BTreeMap::new() }),
        _ => Kind::Empty,
    };
    let for_each = shape.items.map(|items| match dice.chance(50) {
        true => ForEach::List((0..items).map(serde_json::Value::from).collect(), source()),
        false => ForEach::Rows {
            sql: query(format!("SELECT items({items})")),
            connection: SERVERS[server].into(),
            parameters: BTreeMap::new(),
        },
    });
    let body = Body {
        kind,
        connection: Some(SERVERS[server].into()),
        execution_timeout: dice.chance(10).then(|| Duration::from_millis(dice.between(1, 20_000))),
        for_each,
        callbacks: Callbacks::default(),
        delivery: shape.delivery,
        source: source(),
        updates: Vec::new(),
        doc: None,
    };
    (shape, body)
}

/// A script of one to four segments. Its text is such that the planner cuts it into just these.
fn draw_script(dice: &mut Dice, prefix: &str, shape: &mut Shape) -> Sql {
    let count = *dice.pick(&[1, 1, 2, 3, 4]);
    let mut text = String::new();
    let keeps_result = dice.chance(30);
    for number in 0..count {
        let segment = match dice.below(40) {
            0..=21 => Segment::Marked(dice.between(1, 3) as u32),
            22..=24 => Segment::Disguised,
            25..=31 => Segment::Read,
            32..=35 => Segment::Bare,
            36..=37 => Segment::RolledBack,
            _ => Segment::Broken,
        };
        let named = |part: u32| format!("{prefix}{},{{{{ ti.map_index }}}},{number},{part}", shape.id);
        let value = dice.between(0, 999) as i64;
        let mut inside = String::new();
        match segment {
            Segment::Marked(parts) => {
                (0..parts).for_each(|part| inside.push_str(&format!("INSERT INTO effects VALUES ('{}');\n", named(part))));
                if keeps_result && dice.chance(30) {
                    inside.push_str(&format!("SELECT value({value});\n"));
                    shape.result = Some(value);
                }
            }
            Segment::Disguised => inside.push_str(&format!("SELECT touch('{}');\n", named(0))),
            Segment::Read => {
                inside.push_str(&format!("SELECT value({value});\n"));
                shape.result = Some(value);
            }
            Segment::Bare => {}
            Segment::RolledBack => inside.push_str(&format!("INSERT INTO effects VALUES ('{}');\n", named(0))),
            Segment::Broken => inside.push_str("INSERT INTO nowhere VALUES (1);\n"),
        }
        match segment {
            Segment::Bare if shape.server == 0 => text.push_str(&format!("VACUUM \"{}\";\n", named(0))),
            Segment::Bare => text.push_str(&format!("VACUUM INTO '{}';\n", named(0))),
            Segment::RolledBack => text.push_str(&format!("BEGIN;\n{inside}ROLLBACK;\n")),
            Segment::Marked(_) | Segment::Disguised | Segment::Read | Segment::Broken if count == 1 && dice.chance(50) => {
                text.push_str(&inside);
            }
            Segment::Marked(_) | Segment::Disguised | Segment::Read | Segment::Broken => {
                text.push_str(&format!("BEGIN;\n{inside}COMMIT;\n"));
            }
        }
        shape.segments.push(segment);
    }
    if !keeps_result {
        shape.result = None;
    }
    Sql {
        script: template(text),
        parameters: BTreeMap::new(),
        autocommit: false,
        result: if keeps_result { ResultKind::Scalar } else { ResultKind::None },
        result_bytes_max: 1000,
        templated: true,
    }
}

pub(super) fn draw_callbacks(dice: &mut Dice, prefix: &str, task: Option<&str>) -> Callbacks {
    let mut list = |occasion: &str| -> Vec<Callback> {
        let count = if dice.chance(12) { dice.between(1, 2) } else { 0 };
        (0..count).map(|place| callback(prefix, task, occasion, place)).collect()
    };
    Callbacks { on_failure: list("failure"), on_retry: list("retry"), on_success: list("success"), ..Callbacks::default() }
}

fn callback(prefix: &str, task: Option<&str>, occasion: &str, place: u64) -> Callback {
    let about = match task {
        None => "run,-1,0".to_owned(),
        Some(task) => format!("{task},{{{{ ti.map_index }}}},{{{{ ti.try_number }}}}"),
    };
    let script = template(format!("INSERT INTO effects VALUES ('{prefix}{CALL}{about},{occasion},{place}');"));
    let sql = Sql {
        script,
        parameters: BTreeMap::new(),
        autocommit: false,
        result: ResultKind::None,
        result_bytes_max: 1000,
        templated: true,
    };
    Callback {
        name: None,
        kind: Kind::Sql(sql),
        connection: Some(SERVERS[0].into()),
        timeout: Duration::from_secs(300),
        source: source(),
    }
}

/// Branches are drawn before all tasks have their names.
fn name_branches(bodies: &mut [Body], ids: &[TaskId]) {
    let named = |places: &mut Vec<String>| {
        for place in places {
            if let Some(id) = place.parse::<usize>().ok().and_then(|place| ids.get(place)) {
                *place = id.to_string();
            }
        }
    };
    for body in bodies {
        if let Kind::Branch(branch) = &mut body.kind {
            named(&mut branch.if_true);
            named(&mut branch.if_false);
        }
    }
}

fn definition(dag: Dag, bodies: Vec<Body>, callbacks: Callbacks) -> Definition {
    Definition {
        dag: Arc::new(dag),
        description: None,
        tags: Vec::new(),
        file: "dags/simulated.yaml".into(),
        version: "simulated".into(),
        bundle: backstop_project::Bundle::default(),
        schedule: None,
        timezone: "UTC".into(),
        start_date: None,
        end_date: None,
        catchup: false,
        timetable: None,
        max_active_runs: 16,
        deadlines: Vec::new(),
        params: Vec::new(),
        bodies,
        callbacks,
    }
}

pub(crate) fn project(sessions_max: u32) -> Project {
    let connection = |name: &str| Connection {
        conn_type: "fake".into(),
        host: None,
        port: None,
        login: None,
        password: None,
        database: Some(name.into()),
        extra: BTreeMap::new(),
        marker_schema: None,
        marker_table: None,
        sessions_max,
        description: None,
        origin: "the simulator".into(),
    };
    Project {
        name: "simulated".into(),
        root: PathBuf::from("/nowhere"),
        connections: SERVERS.iter().map(|name| ((*name).to_owned(), connection(name))).collect(),
        variables: BTreeMap::new(),
        interpolated_secrets: backstop_project::Secrets::default(),
        overrides: backstop_project::Overrides::default(),
        dags: BTreeMap::new(),
    }
}
