//! What the live tree shows, as data: which lines there are at a moment, for a terminal of some height.

use crate::narrate;
use crate::output::Painter;
use crate::words;
use backstop_core::state::{InstancePhase, PhaseCounts};
use backstop_core::{Dag, Event, InstanceId, RunId, RunState, TaskId};
use backstop_store::Recorded;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// With more tasks than this, those that wait and those that went well have no line of their own.
const ROWS_MAX: usize = 200;

/// The tree, noted down.
pub(super) struct Board {
    dag: Arc<Dag>,
    run: RunId,
    counts: PhaseCounts,
    started_at: Option<Timestamp>,
    is_small: bool,
    /// In the order of the source.
    rows: BTreeMap<(u32, Option<u32>), Row>,
}

struct Row {
    phase: InstancePhase,
    try_number: u32,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    statement: Option<(u32, u32, String)>,
    rows_received: u64,
    /// How the statement looks on its server.
    seen: String,
    note: String,
}

impl Row {
    fn new(phase: InstancePhase) -> Self {
        Self {
            phase,
            try_number: 0,
            started: None,
            ended: None,
            statement: None,
            rows_received: 0,
            seen: String::new(),
            note: String::new(),
        }
    }
}

impl Board {
    pub(super) fn new(dag: &Arc<Dag>, run: &RunId, only_tasks: &[TaskId]) -> Self {
        let is_small = dag.tasks().len() <= ROWS_MAX;
        let wanted = |task: &TaskId| only_tasks.is_empty() || only_tasks.contains(task);
        let rows = dag
            .tasks()
            .iter()
            .zip(0_u32..)
            .filter(|(task, _)| is_small && wanted(&task.id))
            .map(|(_, place)| ((place, None), Row::new(InstancePhase::None)))
            .collect();
        Self { dag: dag.clone(), run: run.clone(), counts: PhaseCounts::default(), started_at: None, is_small, rows }
    }

    fn row(&mut self, instance: &InstanceId) -> Option<&mut Row> {
        let place = self.dag.index(instance.task.as_str())?.0;
        if instance.map_index.is_some() {
            self.rows.remove(&(place, None));
        }
        Some(self.rows.entry((place, instance.map_index)).or_insert_with(|| Row::new(InstancePhase::None)))
    }

    /// Takes events in.
    pub(super) fn decided(&mut self, state: &RunState, events: &[Recorded]) {
        self.counts = state.counts();
        self.started_at = state.started_at();
        for recorded in events {
            self.event(&recorded.event, recorded.at);
            if let Some(instance) = instance_of(&recorded.event)
                && let Some(view) = state.instance(instance)
            {
                let keeps = self.is_small || needs_row(view.phase);
                if let Some(row) = self.row(instance) {
                    row.phase = view.phase;
                    row.try_number = view.try_number;
                }
                if !keeps && let Some(place) = self.dag.index(instance.task.as_str()) {
                    self.rows.remove(&(place.0, instance.map_index));
                }
            }
        }
    }

    fn event(&mut self, event: &Event, at: Timestamp) {
        let Some(instance) = instance_of(event) else { return };
        let Some(row) = self.row(instance) else { return };
        match event {
            Event::AttemptStarted { at, .. } => {
                *row = Row { started: Some(*at), ..Row::new(InstancePhase::Running) };
            }
            Event::AttemptFailed { failure, .. } | Event::AttemptUnknown { failure, .. } => {
                row.ended = Some(at);
                row.note = narrate::in_short(failure);
            }
            Event::TaskSkipped { cause, .. } => row.note = narrate::skipped(cause),
            Event::AttemptSucceeded { .. } | Event::AttemptDeferred { .. } => row.ended = Some(at),
            _ => {}
        }
    }

    pub(super) fn statement_started(&mut self, instance: &InstanceId, number: u32, of: u32, summary: &str) {
        if let Some(row) = self.row(instance) {
            row.statement = Some((number, of, summary.to_owned()));
            row.rows_received = 0;
            row.seen.clear();
        }
    }

    pub(super) fn seen(&mut self, instance: &InstanceId, standing: &str) {
        if let Some(row) = self.row(instance) {
            standing.clone_into(&mut row.seen);
        }
    }

    pub(super) fn rows_received(&mut self, instance: &InstanceId, rows: u64) {
        if let Some(row) = self.row(instance) {
            row.rows_received = rows;
        }
    }

    /// The lines at a moment, at most `height` of them.
    pub(super) fn lines(&self, now: Timestamp, height: usize, paint: Painter) -> Vec<String> {
        let mut lines = vec![self.heading(now, paint)];
        let room = height.saturating_sub(2).max(1);
        let mut shown: Vec<(&(u32, Option<u32>), &Row)> = self.rows.iter().collect();
        let hidden = shown.len().saturating_sub(room);
        if hidden > 0 {
            // What goes on is shown first, then what went wrong.
            shown.sort_by_key(|(key, row)| (urgency(row.phase), **key));
            shown.truncate(room);
            shown.sort_by_key(|(key, _)| **key);
        }
        let width = shown.iter().map(|(key, _)| self.name(key).chars().count()).max().unwrap_or(0).min(40);
        let mut group = None;
        for (key, row) in shown {
            let of = self.dag.tasks().get(key.0 as usize).and_then(|task| task.settings.group);
            // A heading needs room of its own, which only a short tree has.
            if of != group && hidden == 0 && lines.len() + self.rows.len() < height {
                lines.extend(self.group_heading(of, paint));
            }
            group = of;
            lines.push(self.row_line(key, row, now, width, paint));
        }
        if hidden > 0 {
            lines.push(paint.dim(&format!("  … and {hidden} more")));
        }
        lines
    }

    fn group_heading(&self, group: Option<u32>, paint: Painter) -> Option<String> {
        let group = self.dag.groups().get(group? as usize)?;
        Some(paint.dim(&format!("  {}", group.id)))
    }

    fn name(&self, key: &(u32, Option<u32>)) -> String {
        let Some(task) = self.dag.tasks().get(key.0 as usize) else { return String::new() };
        let indent = if task.settings.group.is_some() { "  " } else { "" };
        match key.1 {
            Some(index) => format!("{indent}{}[{index}]", task.id),
            None => format!("{indent}{}", task.id),
        }
    }

    fn heading(&self, now: Timestamp, paint: Painter) -> String {
        let counts = self.counts;
        let all = counts.done() + counts.undone() - counts.removed;
        let mut parts = vec![format!("{}/{all} done", counts.done() - counts.removed)];
        let several = [
            (counts.running, "running"),
            (counts.up_for_retry, "waiting for a retry"),
            (counts.deferred, "waiting"),
            (counts.in_doubt, "in doubt"),
            (counts.failed, "failed"),
        ];
        parts.extend(several.iter().filter(|(number, _)| *number > 0).map(|(number, word)| format!("{number} {word}")));
        let elapsed = self.started_at.map(|started| format!("  {}", words::between(started, now))).unwrap_or_default();
        let run = paint.dim(&format!("run {}", self.run));
        format!("{}  {}{elapsed}  {run}", paint.bold(self.dag.id().as_str()), parts.join(", "))
    }

    fn row_line(&self, key: &(u32, Option<u32>), row: &Row, now: Timestamp, width: usize, paint: Painter) -> String {
        let name = format!("{:<width$}", words::short(&self.name(key), 40));
        let tries = if row.try_number > 1 { format!(" (try {})", row.try_number) } else { String::new() };
        let took = match (row.started, row.ended) {
            (Some(started), Some(ended)) => format!("  {}", words::between(started, ended)),
            (Some(started), None) => format!("  {}", words::between(started, now)),
            (None, _) => String::new(),
        };
        let note = if row.note.is_empty() { String::new() } else { format!("  {}", row.note) };
        let word = row.phase.as_str();
        match row.phase {
            InstancePhase::None | InstancePhase::Scheduled => paint.dim(&format!("  · {name}  {word}")),
            InstancePhase::Removed => paint.dim(&format!("  - {name}  not part of this run")),
            InstancePhase::Running => format!("  {} {name}  {word}{tries}{took}{}", paint.note("▶"), statement(row)),
            InstancePhase::Deferred { until } => {
                format!("  {} {name}  waits, looks again in {}", paint.note("…"), words::between(now, until))
            }
            InstancePhase::UpForRetry { at } => {
                format!("  {} {name}  {word}, next try in {}{note}", paint.warn("↻"), words::between(now, at))
            }
            InstancePhase::InDoubt => format!("  {} {name}  in doubt{note}", paint.warn("?")),
            InstancePhase::Held => format!("  {} {name}  done, not committed{tries}{took}", paint.note("✓")),
            InstancePhase::Success => format!("  {} {name}  {word}{tries}{took}", paint.good("✓")),
            InstancePhase::Failed => format!("  {} {name}  {word}{tries}{took}{note}", paint.bad("✗")),
            InstancePhase::Skipped => paint.dim(&format!("  - {name}  {word}{note}")),
            InstancePhase::RolledBack => format!("  {} {name}  rolled back", paint.warn("-")),
            InstancePhase::UpstreamFailed => format!("  {} {name}  {word}", paint.warn("-")),
        }
    }
}

fn statement(row: &Row) -> String {
    let Some((number, of, summary)) = &row.statement else { return String::new() };
    let rows = if row.rows_received > 0 { format!("  {} rows", words::grouped(row.rows_received)) } else { String::new() };
    if row.seen.is_empty() {
        return format!("  {number}/{of}{rows}  {summary}");
    }
    format!("  {number}/{of}{rows}  {}  {}", words::short(summary, 30), row.seen)
}

/// Lower is more urgent to show.
fn urgency(phase: InstancePhase) -> u8 {
    match phase {
        InstancePhase::Running => 0,
        InstancePhase::InDoubt | InstancePhase::Failed => 1,
        InstancePhase::UpForRetry { .. } | InstancePhase::Deferred { .. } => 2,
        InstancePhase::Scheduled | InstancePhase::UpstreamFailed | InstancePhase::RolledBack => 3,
        InstancePhase::None | InstancePhase::Held | InstancePhase::Success | InstancePhase::Skipped | InstancePhase::Removed => 4,
    }
}

/// Whether an instance of a large DAG has a line.
fn needs_row(phase: InstancePhase) -> bool {
    urgency(phase) <= 2
}

fn instance_of(event: &Event) -> Option<&InstanceId> {
    match event {
        Event::TaskScheduled { instance }
        | Event::AttemptStarted { instance, .. }
        | Event::SegmentCommitted { instance, .. }
        | Event::AttemptSucceeded { instance, .. }
        | Event::AttemptHeld { instance, .. }
        | Event::AttemptDeferred { instance, .. }
        | Event::AttemptFailed { instance, .. }
        | Event::AttemptUnknown { instance, .. }
        | Event::UnknownResolved { instance, .. }
        | Event::RetryScheduled { instance, .. }
        | Event::TimerFired { instance }
        | Event::TaskSkipped { instance, .. }
        | Event::InstanceMarked { instance, .. }
        | Event::InstanceCancelRequested { instance, .. }
        | Event::AssetsUpdated { instance, .. }
        | Event::AnomalyNoticed { instance, .. }
        | Event::TaskUpstreamFailed { instance } => Some(instance),
        Event::RunCreated(_)
        | Event::RunStarted { .. }
        | Event::RunResumed { .. }
        | Event::TaskExpanded { .. }
        | Event::GroupRolledBack { .. }
        | Event::CallbackScheduled { .. }
        | Event::CallbackFinished { .. }
        | Event::OperatorActed { .. }
        | Event::CancelRequested { .. }
        | Event::RunReopened
        | Event::RunPinned { .. }
        | Event::DeadlineAtRisk { .. }
        | Event::DeadlineMissed { .. }
        | Event::InstancesCleared { .. }
        | Event::TaskUnexpanded { .. }
        | Event::RunStuck { .. }
        | Event::RunSucceeded
        | Event::RunFailed
        | Event::RunCancelled => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backstop_core::dag::{DagSpec, Hooks, Pool, TaskSettings, TaskSpec};
    use backstop_core::event::{Failure, FailureClass, RunHeader, RunType};
    use backstop_core::{Command, apply, handle};

    fn dag(tasks: &[(&str, &[&str])]) -> Arc<Dag> {
        let task = |(id, after): &(&str, &[&str])| TaskSpec {
            id: TaskId::new(*id),
            after: after.iter().map(|id| TaskId::new(*id)).collect(),
            settings: TaskSettings::default(),
        };
        let spec = DagSpec {
            id: "nightly".into(),
            tasks: tasks.iter().map(task).collect(),
            groups: Vec::new(),
            pools: vec![Pool { name: "default_pool".to_owned(), slots: None }],
            max_active_tasks: 16,
            hooks: Hooks::default(),
            dagrun_timeout: None,
            map_length_max: 10,
        };
        Arc::new(Dag::new(spec).unwrap())
    }

    /// A run and its tree, told of commands one after another, a second apart.
    struct Watched {
        state: RunState,
        board: Board,
        now: Timestamp,
    }

    impl Watched {
        fn start(tasks: &[(&str, &[&str])]) -> Self {
            let dag = dag(tasks);
            let board = Board::new(&dag, &RunId::new("r1"), &[]);
            let mut watched = Self { state: RunState::new(dag), board, now: Timestamp::UNIX_EPOCH };
            let header = RunHeader {
                run_id: RunId::new("r1"),
                dag_id: "nightly".into(),
                project: None,
                version: String::new(),
                logical_date: None,
                data_interval: None,
                queued_at: watched.now,
                run_type: RunType::Manual,
                params: "{}".into(),
                only_tasks: Vec::new(),
                dry_run: false,
                cause: None,
            };
            apply(&mut watched.state, &Event::RunCreated(Arc::new(header)));
            watched.tell(Command::Start);
            watched
        }

        fn tell(&mut self, command: Command) {
            let events = handle(&mut self.state, command, self.now).unwrap();
            let recorded: Vec<Recorded> = events.into_iter().map(|event| Recorded { seq: 1, at: self.now, event }).collect();
            self.board.decided(&self.state, &recorded);
            self.now = self.now.checked_add(jiff::SignedDuration::from_secs(1)).unwrap();
        }

        fn begin(&mut self, task: &str) {
            self.tell(Command::StartAttempt { instance: InstanceId::single(task.into()) });
        }

        fn lines(&self, height: usize) -> String {
            self.board.lines(self.now, height, Painter::plain()).join("\n")
        }
    }

    fn failure() -> Arc<Failure> {
        Arc::new(Failure {
            class: FailureClass::Permanent,
            message: "statement 1 of 1: no such table".to_owned(),
            causes: Vec::new(),
            place: None,
            sqlstate: None,
            native_code: None,
            effect: String::new(),
            hint: None,
            statements: Vec::new(),
        })
    }

    #[test]
    fn every_task_has_a_line_in_the_order_of_the_source() {
        let mut watched = Watched::start(&[("load", &[]), ("check", &["load"]), ("rates", &[]), ("report", &["check", "rates"])]);
        watched.begin("load");
        watched.begin("rates");
        let load = InstanceId::single("load".into());
        watched.tell(Command::Succeed { instance: load, try_number: 1, result: None, follow: None });
        watched.begin("check");
        let check = InstanceId::single("check".into());
        watched.board.statement_started(&check, 3, 12, "SELECT count(*) FROM sales");
        watched.board.rows_received(&check, 12_345);
        let rates = InstanceId::single("rates".into());
        watched.tell(Command::Fail { instance: rates, try_number: 1, failure: failure() });
        insta::assert_snapshot!(watched.lines(24), @r"
        nightly  3/4 done, 1 running, 1 failed  6.0s  run r1
          ✓ load    success  2.0s
          ▶ check   running  2.0s  3/12  12,345 rows  SELECT count(*) FROM sales
          ✗ rates   failed  3.0s  statement 1 of 1: no such table
          - report  upstream_failed
        ");
    }

    #[test]
    fn a_low_terminal_shows_what_goes_on() {
        let tasks: Vec<String> = (0..30).map(|number| format!("t{number}")).collect();
        let tasks: Vec<(&str, &[&str])> = tasks.iter().map(|id| (id.as_str(), [].as_slice())).collect();
        let mut watched = Watched::start(&tasks);
        watched.begin("t3");
        watched.begin("t20");
        insta::assert_snapshot!(watched.lines(5), @r"
        nightly  0/30 done, 2 running  3.0s  run r1
          · t0   scheduled
          ▶ t3   running  2.0s
          ▶ t20  running  1.0s
          … and 27 more
        ");
    }
}
