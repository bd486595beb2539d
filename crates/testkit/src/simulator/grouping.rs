//! Draws groups of tasks that share a transaction into a scenario that was drawn without.
//!
//! With dice of its own, and for seeds from [`TRANSACTIONS_FROM`] on, so that the seeds of before mean what they meant.

use super::dice::Dice;
use super::scenario::{SERVERS, Segment, Shape, draw_callbacks, hooks, source, template};
use backstop_core::TaskId;
use backstop_core::dag::{Delivery, Group, Role, TaskSettings};
use backstop_core::retry::RetryPolicy;
use backstop_core::rule::TriggerRule;
use backstop_project::definition::{Body, Callbacks, Check, Kind, ResultKind, Sql, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Scenarios of these seeds have transactions.
pub const TRANSACTIONS_FROM: u64 = 1 << 40;
/// Members of a group, at most.
const MEMBERS_MAX: u64 = 4;

/// Tasks as they are being drawn, by place.
pub(super) struct Drawn {
    /// Settings, and upstreams.
    pub(super) tasks: Vec<(TaskSettings, Vec<usize>)>,
    pub(super) bodies: Vec<Body>,
    pub(super) shapes: Vec<Shape>,
    pub(super) groups: Vec<Group>,
}

/// Makes one or two groups of what was drawn.
pub(super) fn share(seed: u64, prefix: &str, drawn: &mut Drawn) {
    if seed < TRANSACTIONS_FROM {
        return;
    }
    let mut dice = Dice::for_purpose(seed, 6);
    let count = drawn.tasks.len();
    let mut from = 0;
    for _ in 0..dice.between(1, 2) {
        let left = (count - from) as u64;
        if left == 0 {
            return;
        }
        let first = from + dice.below(left) as usize;
        let members = (first..count.min(first + dice.between(1, MEMBERS_MAX) as usize)).collect::<Vec<_>>();
        from = members[members.len() - 1] + 1;
        group(&mut dice, prefix, drawn, &members);
    }
}

fn group(dice: &mut Dice, prefix: &str, drawn: &mut Drawn, members: &[usize]) {
    let (place, commit) = (drawn.groups.len() as u32, drawn.tasks.len());
    let id = format!("g{place}");
    let server = dice.below(SERVERS.len() as u64) as usize;
    for &member in members {
        draw_member(dice, prefix, drawn, member, server);
    }
    let lead = drawn.tasks[members[0]].0.clone();
    for &member in members {
        let settings = &mut drawn.tasks[member].0;
        (settings.pool, settings.pool_slots, settings.group) = (lead.pool, lead.pool_slots, Some(place));
    }
    chain(drawn, members, commit);
    let retry = RetryPolicy {
        retries: dice.below(4) as u32,
        retry_delay: Duration::from_secs(*dice.pick(&[0, 1, 30])),
        exponential: Some(2.0),
        retry_delay_max: None,
    };
    let settings =
        TaskSettings { retry, pool: lead.pool, pool_slots: lead.pool_slots, group: Some(place), ..TaskSettings::default() };
    drawn.tasks.push((settings, vec![members[members.len() - 1]]));
    let statement_timeout = dice.chance(10).then(|| Duration::from_millis(dice.between(1, 20_000)));
    let kind = Kind::Commit(Transaction { isolation: None, lock_timeout: None, statement_timeout });
    drawn.bodies.push(Body { kind, ..plain_body(server) });
    drawn.shapes.push(shape(&id, server));
    drawn.groups.push(Group { id: id.clone(), parent: None, commit: Some(TaskId::new(id)) });
}

fn shape(id: &str, server: usize) -> Shape {
    Shape { id: id.into(), server, segments: Vec::new(), delivery: Delivery::ExactlyOnce, items: None, result: None }
}

fn plain_body(server: usize) -> Body {
    Body {
        kind: Kind::Empty,
        connection: Some(SERVERS[server].into()),
        execution_timeout: None,
        for_each: None,
        callbacks: Callbacks::default(),
        delivery: Delivery::ExactlyOnce,
        source: source(),
        updates: Vec::new(),
        doc: None,
    }
}

/// A script of one segment, or a check.
fn draw_member(dice: &mut Dice, prefix: &str, drawn: &mut Drawn, member: usize, server: usize) {
    let mut shape = shape(&format!("t{member}"), server);
    let kind = if dice.chance(15) {
        Kind::Check(Check::Query { sql: template("SELECT coin(80)"), parameters: BTreeMap::new() })
    } else {
        let segment = if dice.chance(4) { Segment::Broken } else { Segment::Marked(dice.between(1, 3) as u32) };
        let mut text = String::new();
        for part in 0..segment.parts() {
            text.push_str(&format!("INSERT INTO effects VALUES ('{prefix}{},{{{{ ti.map_index }}}},0,{part}');\n", shape.id));
        }
        if segment == Segment::Broken {
            text.push_str("INSERT INTO nowhere VALUES (1);\n");
        }
        let value = dice.between(0, 999) as i64;
        let keeps = dice.chance(30);
        if keeps {
            text.push_str(&format!("SELECT value({value});\n"));
            shape.result = Some(value);
        }
        shape.segments.push(segment);
        Kind::Sql(Sql {
            script: template(text),
            parameters: BTreeMap::new(),
            autocommit: false,
            result: if keeps { ResultKind::Scalar } else { ResultKind::None },
            result_bytes_max: 1000,
            templated: true,
        })
    };
    let callbacks = draw_callbacks(dice, prefix, Some(&shape.id));
    let settings = &mut drawn.tasks[member].0;
    settings.trigger_rule = TriggerRule::AllSuccess;
    settings.role = Role::Work;
    settings.mapped = false;
    settings.delivery = Delivery::ExactlyOnce;
    settings.hooks = hooks(&callbacks);
    let execution_timeout = drawn.bodies[member].execution_timeout;
    drawn.bodies[member] = Body { kind, callbacks, execution_timeout, ..plain_body(server) };
    drawn.shapes[member] = shape;
}

/// As the reader of projects does it: the members one after another, whatever they wait for before the first, whoever waits for them behind the
/// commit.
fn chain(drawn: &mut Drawn, members: &[usize], commit: usize) {
    let inside: BTreeSet<usize> = members.iter().copied().collect();
    let outside: BTreeSet<usize> =
        members.iter().flat_map(|member| drawn.tasks[*member].1.clone()).filter(|up| !inside.contains(up)).collect();
    for (place, (_, after)) in drawn.tasks.iter_mut().enumerate() {
        if !inside.contains(&place) && after.iter().any(|up| inside.contains(up)) {
            after.retain(|up| !inside.contains(up));
            after.push(commit);
        }
    }
    for (at, member) in members.iter().enumerate() {
        drawn.tasks[*member].1 = match at {
            0 => outside.iter().copied().collect(),
            _ => vec![members[at - 1]],
        };
    }
    // Branches name what comes directly after them by its place.
    for body in &mut drawn.bodies {
        if let Kind::Branch(branch) = &mut body.kind {
            for names in [&mut branch.if_true, &mut branch.if_false] {
                for name in names.iter_mut() {
                    if name.parse().is_ok_and(|place: usize| inside.contains(&place)) {
                        *name = members[0].to_string();
                    }
                }
            }
        }
    }
}
