//! `backstop runs show`: all that is known of one run, for whoever was not there when it ran.

use super::left::{self, Left};
use super::story::{Called, Story, Tried};
use super::{Latest, find, projected_phase, resume_command, shape, state_in_words};
use crate::account::{self, Commands, TOLD_MAX, Unwell};
use crate::args::Place;
use crate::explain::{self, Problem};
use crate::masks::Masks;
use crate::output::{self, Painter};
use crate::service::part;
use crate::wire::shown::{Committed, Instance, RunShown};
use crate::{narrate, wire, words};
use backstop_core::dag::Delivery;
use backstop_core::event::{AssetUpdate, CancelCause, Cause, Evidence, FailureClass, Promise};
use backstop_core::state::{InstancePhase, RunPhase};
use backstop_core::{Dag, InstanceId};
use backstop_runtime::Redactor;
use backstop_runtime::service::holder;
use backstop_store::{InstanceRow, RunRow, SampleRow, StatementRow, Store};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

/// Statements that are shown to people.
const STATEMENTS_SHOWN_MAX: usize = 500;
/// Characters of a task's reason in the table; the whole of it is below.
const WHY_CHARS_MAX: usize = 120;
/// Earlier tries of one task that are told.
const TRIES_TOLD_MAX: usize = 10;

/// Everything read of a run.
struct Shown<'a> {
    row: RunRow,
    /// Masks the parameters; the rest is masked as it is read.
    redactor: Arc<Redactor>,
    left: Left,
    /// A service has the store.
    is_service_there: bool,
    /// What it waits for, as the service says that goes on with it.
    waits: Option<String>,
    instances: Vec<InstanceRow>,
    statements: Vec<StatementRow>,
    /// The last of what was seen of statements that run.
    seen: HashMap<InstanceId, SampleRow>,
    story: Story,
    /// The DAG as the run began with it, where something has to be explained by it.
    dag: Option<Arc<Dag>>,
    /// What leads commands to the store.
    flags: &'a str,
}

/// Shows a run.
pub(super) async fn show(store: &dyn Store, wanted: &str, masks: &mut Masks<'_>, flags: &str, json: bool) -> Result<(), Problem> {
    let shown = Shown::read(store, wanted, masks, flags).await?;
    if json { shown.json() } else { output::data(&shown.text(Painter::stdout())) }
}

/// What came of a run that has ended, for whoever waited for it: as `backstop run` tells it of its own.
pub(crate) async fn what_came_of(store: &dyn Store, run: &str, place: &Place, flags: &str) -> Result<String, Problem> {
    let shown = Shown::read(store, run, &mut Masks::of(place)?, flags).await?;
    let paint = Painter::stderr();
    let mut text = String::new();
    shown.not_well(&shown.blamed(), paint, &mut text);
    shown.at_least_once(paint, &mut text);
    shown.callbacks(paint, &mut text);
    shown.outcome(paint, &mut text);
    Ok(text)
}

/// Why a run that no process has is not further. The service may want a token: then its state alone is told.
async fn said_by_service(store: &dyn Store, row: &RunRow) -> Result<Option<String>, Problem> {
    let Some(service) = left::service_of(store, row).await? else { return Ok(None) };
    let told = service.get(&format!("/api/v1/runs/{}/why", part(row.header.run_id.as_str()))).await.unwrap_or_default();
    Ok(told["why"].as_str().map(str::to_owned))
}

/// What is known of an attempt whose process is gone, from the last that was seen of it.
pub(crate) fn lost(seen: Option<&SampleRow>) -> String {
    let last = seen.map(|seen| format!(", in which {}", seen.sample.seen_last())).unwrap_or_default();
    format!("its process is gone{last}; what it did is found out when the run goes on")
}

/// `sales by load of run 0199...`, each.
fn updated(updates: &[AssetUpdate]) -> String {
    let one = |update: &AssetUpdate| format!("{} by {} of run {}", update.asset, update.instance, update.run);
    narrate::join(&updates.iter().map(one).collect::<Vec<_>>())
}

fn asks_for_the_dag(row: &RunRow, instances: &[InstanceRow], story: &Story) -> bool {
    row.ended_at.is_none()
        || instances.iter().any(|row| row.state == InstancePhase::UpstreamFailed.as_str())
        || story.segments.iter().any(|segment| matches!(segment.commit.promise, Promise::AtLeastOnce(_)))
}

/// Tasks that no event has told of yet are part of the run all the same: they come last, in the order of the source.
fn add_what_is_not_scheduled(instances: &mut Vec<InstanceRow>, dag: &Dag, row: &RunRow) {
    let only = &row.header.only_tasks;
    let known: BTreeSet<String> = instances.iter().map(|row| row.instance.task.to_string()).collect();
    let missing = dag.tasks().iter().map(|task| &task.id).filter(|id| !known.contains(id.as_str()));
    let of_run = missing.filter(|id| only.is_empty() || only.contains(id));
    instances.extend(of_run.map(|id| InstanceRow {
        instance: InstanceId::single(id.clone()),
        state: InstancePhase::None.as_str().to_owned(),
        try_number: 0,
        started_at: None,
        ended_at: None,
        error: None,
    }));
}

impl<'a> Shown<'a> {
    async fn read(store: &dyn Store, wanted: &str, masks: &mut Masks<'_>, flags: &'a str) -> Result<Self, Problem> {
        let row = find(store, wanted, Latest::Any).await?;
        let redactor = masks.for_run(&row.header)?;
        let run = row.header.run_id.clone();
        let mut instances = store.instances(&run).await?;
        let story = Story::read(store, &run, &redactor).await?;
        let dag = if asks_for_the_dag(&row, &instances, &story) { shape::read(store, &row).await } else { None };
        if let Some(dag) = dag.as_deref().filter(|_| row.ended_at.is_none()) {
            add_what_is_not_scheduled(&mut instances, dag, &row);
        }
        let left = left::look(store, &row).await?;
        let waits = if left == Left::ToService { said_by_service(store, &row).await? } else { None };
        let is_service_there = holder(store).await?.is_some();
        let seen = store.last_samples(&run).await?.into_iter().map(|row| (row.instance.clone(), row)).collect();
        let statements = store.statements(&run, None).await?;
        Ok(Self { left, is_service_there, waits, seen, statements, instances, story, dag, row, redactor, flags })
    }
}

impl Shown<'_> {
    fn json(&self) -> Result<(), Problem> {
        let blamed = self.blamed();
        output::json(&RunShown {
            run: wire::Run::new(&self.row, self.left == Left::Abandoned, &self.redactor),
            cancelled: RunShown::cancelled(&self.story),
            tasks: self.instances.iter().map(|row| Instance::new(row, &self.story, self.why(row, &blamed))).collect(),
            segments: self.story.segments.iter().map(Committed::from).collect(),
            statements: self.statements.iter().map(wire::Statement::from).collect(),
            callbacks: RunShown::callbacks(&self.story),
            acts: RunShown::acts(&self.story),
        })
    }

    fn text(&self, paint: Painter) -> String {
        let blamed = self.blamed();
        let mut text = self.header();
        self.tasks(&blamed, paint, &mut text);
        statements_table(&self.statements, paint, &mut text);
        self.found_by_markers(&mut text);
        self.not_well(&blamed, paint, &mut text);
        self.at_least_once(paint, &mut text);
        self.callbacks(paint, &mut text);
        self.acts(&mut text);
        if self.row.state == RunPhase::Stuck.as_str() {
            text.push_str("\nit goes on when a person has said what is in doubt\n");
        }
        text
    }

    fn header(&self) -> String {
        let (row, header) = (&self.row, &self.row.header);
        let time = |at: Option<Timestamp>| at.map(words::time).unwrap_or_else(|| "-".to_owned());
        let mut lines = vec![
            ("run", header.run_id.to_string()),
            ("dag", header.dag_id.to_string()),
            ("state", state_in_words(row, self.left, &self.story.pending_callbacks())),
        ];
        if self.left == Left::Abandoned {
            lines.push(("resume", resume_command(row, self.flags)));
        }
        lines.extend(self.waits.clone().map(|waits| ("waits", waits)));
        match &header.cause {
            Some(Cause::Task { run, instance, depth: _ }) => lines.push(("started by", format!("{instance} of run {run}"))),
            Some(Cause::Assets { updates, until: _ }) => lines.push(("updates", updated(updates))),
            None => {}
        }
        lines.extend([
            ("logical date", time(header.logical_date)),
            ("queued", words::time(header.queued_at)),
            ("started", time(row.started_at)),
            ("ended", time(row.ended_at)),
        ]);
        if let Some((start, end)) = row.started_at.zip(row.ended_at) {
            lines.push(("took", words::between(start, end)));
        }
        if &*header.params != "{}" {
            lines.push(("params", self.redactor.clean_named(&wire::json(&header.params)).to_string()));
        }
        if !header.only_tasks.is_empty() {
            let names: Vec<&str> = header.only_tasks.iter().map(backstop_core::TaskId::as_str).collect();
            lines.push(("only tasks", names.join(", ")));
        }
        let committed = match self.story.committed() {
            (0, _) => "nothing".to_owned(),
            (segments, tasks) => format!("{} of {}", words::count(segments, "segment"), words::count(tasks, "task")),
        };
        lines.push(("committed", committed));
        let mut text = String::new();
        for (name, value) in lines {
            let _ = writeln!(text, "{name:<13} {value}");
        }
        text
    }

    fn tasks(&self, blamed: &HashMap<&InstanceId, BTreeSet<String>>, paint: Painter, text: &mut String) {
        if self.instances.is_empty() {
            return;
        }
        let mut table = vec![["TASK", "STATE", "TRIES", "TOOK", "WHY"].map(str::to_owned).to_vec()];
        table.extend(self.instances.iter().map(|row| {
            let took = row.started_at.zip(row.ended_at).filter(|_| row.try_number > 0);
            vec![
                row.instance.to_string(),
                row.state.clone(),
                row.try_number.to_string(),
                took.map(|(start, end)| words::between(start, end)).unwrap_or_default(),
                self.why(row, blamed).map(|why| words::short(&why, WHY_CHARS_MAX)).unwrap_or_default(),
            ]
        }));
        let _ = write!(text, "\n{}", output::table(&table, paint));
    }

    /// Why an instance is as it is, in a line; nothing where all went well at once.
    fn why(&self, row: &InstanceRow, blamed: &HashMap<&InstanceId, BTreeSet<String>>) -> Option<String> {
        let last = self.story.last(&row.instance);
        match &*row.state {
            "skipped" => self.story.skipped.get(&row.instance).map(narrate::skipped),
            "upstream_failed" => blamed.get(&row.instance).and_then(account::because),
            "running" if self.left != Left::No => Some(lost(self.seen.get(&row.instance))),
            "running" => self.seen.get(&row.instance).map(|seen| seen.sample.to_string()),
            "none" if last.is_none() => Some("it is not scheduled yet".to_owned()),
            "success" => last.map(|tried| format!("try {} {}", tried.try_number, how(tried))),
            _ => last.map(|tried| match tried.failure.class {
                FailureClass::Cancelled => how(tried),
                _ => narrate::in_short(&tried.failure),
            }),
        }
    }

    /// For each instance that could not run, the upstreams that did not go well.
    fn blamed(&self) -> HashMap<&InstanceId, BTreeSet<String>> {
        let Some(dag) = &self.dag else { return HashMap::new() };
        let mut unwell: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in
            self.instances.iter().filter(|row| matches!(&*row.state, "failed" | "upstream_failed" | "rolled_back" | "skipped"))
        {
            unwell.entry(row.instance.task.as_str()).or_default().push(format!("{} is {}", row.instance, row.state));
        }
        let upstreams = |id: &InstanceId| -> BTreeSet<String> {
            let Some(place) = dag.index(id.task.as_str()) else { return BTreeSet::new() };
            let names = dag.task(place).upstream.iter().map(|upstream| dag.task(*upstream).id.as_str());
            names.filter_map(|name| unwell.get(name)).flatten().cloned().collect()
        };
        let failed = self.instances.iter().filter(|row| row.state == InstancePhase::UpstreamFailed.as_str());
        failed.map(|row| (&row.instance, upstreams(&row.instance))).collect()
    }

    /// Commits of which no statement was told, as their process died with them.
    fn found_by_markers(&self, text: &mut String) {
        let found: BTreeSet<String> = self
            .story
            .segments
            .iter()
            .filter(|segment| !matches!(segment.commit.evidence, Evidence::Acknowledged | Evidence::ReadOnly))
            .map(|segment| {
                let (id, number) = (&segment.instance, segment.commit.segment + 1);
                format!("{id}: segment {number} committed: {}", narrate::known_by(&segment.commit.evidence))
            })
            .collect();
        account::list(&found, Painter::plain(), "·", text);
    }

    fn not_well(&self, blamed: &HashMap<&InstanceId, BTreeSet<String>>, paint: Painter, text: &mut String) {
        let of = |state: &str| self.instances.iter().filter(move |row| row.state == state).collect::<Vec<_>>();
        let mut unwell = of(InstancePhase::Failed.as_str());
        unwell.extend(of(InstancePhase::InDoubt.as_str()));
        unwell.extend(of("up_for_retry"));
        unwell.extend(of(InstancePhase::UpstreamFailed.as_str()));
        let again = format!("backstop run{}", self.flags);
        let run = self.row.header.run_id.as_str();
        let commands = Commands { run, flags: self.flags, again: &again, is_service_there: self.is_service_there };
        for row in unwell.iter().take(TOLD_MAX) {
            let _ = writeln!(text);
            let id = &row.instance;
            let told = Unwell {
                id,
                try_number: row.try_number,
                failure: self.story.last(id).map(|tried| &*tried.failure),
                why_undecided: None,
                earlier: self.earlier_tries(id, paint),
            };
            match &*row.state {
                "upstream_failed" => {
                    let nobody = BTreeSet::new();
                    account::upstream_failed(id, blamed.get(id).unwrap_or(&nobody), paint, text);
                }
                "in_doubt" => account::in_doubt(&told, commands, paint, text),
                _ => account::failed(&told, commands, paint, text),
            }
        }
        if unwell.len() > TOLD_MAX {
            let _ = writeln!(text, "\n… and {} more: --json has them all", words::grouped((unwell.len() - TOLD_MAX) as u64));
        }
    }

    fn earlier_tries(&self, id: &InstanceId, paint: Painter) -> String {
        let mut text = String::new();
        let Some((_, earlier)) = self.story.tries.get(id).and_then(|tries| tries.split_last()) else { return text };
        let left_out = earlier.len().saturating_sub(TRIES_TOLD_MAX);
        if left_out > 0 {
            let _ = writeln!(text, "    {left_out} tries before these: --json has them all");
        }
        for tried in &earlier[left_out..] {
            let label = paint.bold(&format!("try {}:", tried.try_number));
            let _ = writeln!(text, "    {label} {} {}", words::time(tried.at), how(tried));
        }
        text
    }

    fn at_least_once(&self, paint: Painter, text: &mut String) {
        let chosen = |id: &InstanceId| {
            let dag = self.dag.as_ref()?;
            let task = dag.task(dag.index(id.task.as_str())?);
            (task.settings.delivery == Delivery::AtLeastOnce).then(|| task.id.as_str())
        };
        let (mut warned, mut allowed) = (BTreeSet::new(), BTreeSet::new());
        for segment in &self.story.segments {
            let Promise::AtLeastOnce(reason) = &segment.commit.promise else { continue };
            match chosen(&segment.instance) {
                Some(task) => drop(allowed.insert(task)),
                None => drop(warned.insert(account::ran_at_least_once(&segment.instance, segment.commit.segment, reason))),
            }
        }
        account::list(&warned, paint, "!", text);
        account::allowed_to_repeat(&allowed, text);
    }

    fn callbacks(&self, paint: Painter, text: &mut String) {
        let failed = self.story.callbacks.iter().filter_map(|(id, called)| match called {
            Called::Failed(failure) => Some((id, &**failure)),
            Called::Pending | Called::Ran => None,
        });
        account::callbacks(failed.take(TOLD_MAX), paint, text);
        let others: BTreeSet<String> = self
            .story
            .callbacks
            .iter()
            .filter_map(|(id, called)| {
                let how = match called {
                    Called::Ran => "ran",
                    Called::Pending => "has not run yet",
                    Called::Failed(_) => return None,
                };
                Some(format!("{} of {} {how}", narrate::callback_name(id), narrate::subject(id)))
            })
            .collect();
        account::list(&others, Painter::plain(), "·", text);
    }

    /// How it ended, in how long, and what to do next.
    fn outcome(&self, paint: Painter, text: &mut String) {
        let header = &self.row.header;
        let timed_out = matches!(self.story.cancelled, Some((_, CancelCause::DagrunTimeout)));
        let (glyph, how) = match projected_phase(&self.row) {
            Some(RunPhase::Succeeded) => (paint.good("✓"), "succeeded"),
            Some(RunPhase::Failed) if timed_out => (paint.bad("✗"), "failed: it took longer than its dagrun_timeout"),
            Some(RunPhase::Failed) => (paint.bad("✗"), "failed"),
            Some(RunPhase::Cancelled) => (paint.warn("!"), "was cancelled"),
            Some(RunPhase::Queued | RunPhase::Running | RunPhase::Cancelling | RunPhase::Stuck) | None => {
                (paint.warn("?"), "is stuck")
            }
        };
        let took = self.row.started_at.zip(self.row.ended_at).map(|(start, end)| format!(" in {}", words::between(start, end)));
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        self.instances.iter().for_each(|row| *counts.entry(&row.state).or_default() += 1);
        let counts: Vec<String> =
            counts.into_iter().map(|(state, number)| format!("{} {state}", words::grouped(number))).collect();
        let name = paint.bold(header.dag_id.as_str());
        let _ = writeln!(text, "\n{glyph} {name} {how}{}: {}", took.unwrap_or_default(), counts.join(", "));
        let run = header.run_id.as_str();
        if self.row.state == RunPhase::Stuck.as_str() {
            let _ = writeln!(text, "  it goes on when a person has said what is in doubt");
        }
        if !header.dry_run && matches!(projected_phase(&self.row), Some(RunPhase::Failed | RunPhase::Cancelled)) {
            let again = explain::retry_command(run, self.flags);
            let _ = writeln!(text, "  once mended, go on behind the last commit: {again}");
        }
        if header.dry_run {
            let _ = writeln!(text, "  dry run: transactional SQL was rolled back, other tasks did not run");
        }
        let _ = writeln!(text, "  {}", paint.dim(&format!("backstop runs show {run}{}", self.flags)));
    }

    fn acts(&self, text: &mut String) {
        if self.story.acts.is_empty() {
            return;
        }
        text.push('\n');
        let left_out = self.story.acts.len().saturating_sub(TOLD_MAX);
        if left_out > 0 {
            let _ = writeln!(text, "… {left_out} earlier ones: backstop runs events {}{}", self.row.header.run_id, self.flags);
        }
        for act in &self.story.acts[left_out..] {
            let _ = writeln!(text, "· {} {}", words::time(act.at), act.text);
        }
    }
}

fn how(tried: &Tried) -> String {
    let how = match tried.failure.class {
        _ if tried.in_doubt => "was in doubt",
        FailureClass::Cancelled => "was cancelled",
        _ => "failed",
    };
    format!("{how}: {}", narrate::in_short(&tried.failure))
}

fn statements_table(statements: &[StatementRow], paint: Painter, text: &mut String) {
    if statements.is_empty() {
        return;
    }
    let mut table = vec![["TASK", "TRY", "SEGMENT", "NO", "LINE", "ROWS", "TOOK", "STATEMENT"].map(str::to_owned).to_vec()];
    table.extend(statements.iter().take(STATEMENTS_SHOWN_MAX).map(|row| {
        let record = &row.record;
        let rows = record.rows_affected.unwrap_or(0).max(record.rows_returned);
        vec![
            row.instance.to_string(),
            row.try_number.to_string(),
            row.segment.map_or_else(|| "failed".to_owned(), |segment| (segment + 1).to_string()),
            record.number.to_string(),
            record.line.to_string(),
            words::grouped(rows),
            words::duration_us(record.duration_us),
            record.summary.clone(),
        ]
    }));
    let _ = write!(text, "\n{}", output::table(&table, paint));
    if statements.len() > STATEMENTS_SHOWN_MAX {
        let _ = writeln!(
            text,
            "… and {} more: --json has them all",
            words::grouped((statements.len() - STATEMENTS_SHOWN_MAX) as u64)
        );
    }
}
