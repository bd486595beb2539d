//! `backstop store prune`: old runs go because a person says so. What a service does by itself is in the runtime's housekeeping.

use super::arguments::PruneArgs;
use super::count;
use crate::args::Place;
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::{self, Kept};
use crate::run::begin::who;
use crate::runs::block_on;
use crate::sources::{self, Sources};
use crate::wire::kept as wire;
use backstop_core::DagId;
use backstop_runtime::prune::{self, Keep, MarkerPlace, Pruned, Pruner, marker_places};
use backstop_runtime::{Clock as _, Connect, SystemClock};
use backstop_store::{Act, PRUNABLE_OF_A_DAG_MAX, PruneRule, SqliteStore, Store};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Runs that a dry run finds, at most.
const FOUND_MAX: u32 = 1_000_000;
/// Between two batches, so that a service that writes to the store is not held up.
const REST: Duration = Duration::from_millis(5);

pub(super) fn prune(arguments: &PruneArgs, place: &Place, kept: &Kept) -> Result<Exit, Problem> {
    let now = SystemClock::starting(None).now();
    let keep = Keep { runs_for: arguments.older_than, runs: arguments.keep };
    if keep.is_all() {
        return Err(Problem::usage("which runs shall go?").hint("say --older-than 90d, --keep 100, or both"));
    }
    let rule = keep.rule(now, Duration::ZERO);
    block_on(async {
        match &arguments.reason {
            Some(reason) if !arguments.dry_run => {
                let by = (arguments.who.clone().unwrap_or_else(who), reason.clone());
                remove(rule, by, arguments.json, place, kept).await
            }
            Some(_) | None => list(&rule, arguments.json, kept).await,
        }
    })
}

async fn list(rule: &PruneRule, json: bool, kept: &Kept) -> Result<Exit, Problem> {
    let store = SqliteStore::open_read_only(&kept.store)?;
    let mut runs: BTreeMap<DagId, u64> = BTreeMap::new();
    for found in store.prunable(rule, FOUND_MAX).await? {
        *runs.entry(found.dag).or_default() += 1;
    }
    if json {
        output::json(&wire::RunsPruned::would(&runs))?;
        return Ok(Exit::Success);
    }
    let total: u64 = runs.values().sum();
    let mut text = format!("{} would be removed\n", count(total, "run"));
    for (dag, number) in &runs {
        // Older ones are in front of those that were not looked at.
        let least = if *number >= u64::from(PRUNABLE_OF_A_DAG_MAX) { " or more" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "    {dag}: {number}{least}");
    }
    output::data(&text)?;
    Ok(Exit::Success)
}

async fn remove(rule: PruneRule, by: (String, String), json: bool, place: &Place, kept: &Kept) -> Result<Exit, Problem> {
    if by.1.trim().is_empty() {
        return Err(Problem::usage("--reason is empty").hint("say why: it is kept in the audit"));
    }
    // It must be there: nothing is removed from a store that is made for it.
    drop(SqliteStore::open_read_only(&kept.store)?);
    let store = SqliteStore::open(&kept.store, backstop_store::sqlite::Options::default())?;
    let places = places(place)?;
    let connect: Connect = Arc::new(backstop_connect::connector);
    let pruner = Pruner { store: &store, rule, connect: &connect, places: &places, logs: Some(&kept.logs) };
    let mut pruned = Pruned::default();
    let outcome = loop {
        match pruner.batch(&mut pruned).await {
            Ok(true) => tokio::time::sleep(REST).await,
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // What went is told, also when not all could go.
    if pruned.count() > 0 {
        let act = Act { at: SystemClock::starting(None).now(), who: by.0, why: by.1, what: pruned.to_string() };
        store.put(Vec::new(), Some(act)).await?;
    }
    outcome?;
    while prune::sweep(&store).await? {
        tokio::time::sleep(REST).await;
    }
    forget_hours(&store, kept, SystemClock::starting(None).now(), &mut pruned).await?;
    tell(&pruned, json)?;
    let is_all = pruned.markers_left.is_empty() && pruned.held.is_empty() && pruned.logs_left.is_none();
    Ok(if is_all { Exit::Success } else { Exit::RunFailed })
}

async fn forget_hours(store: &SqliteStore, kept: &Kept, now: Timestamp, pruned: &mut Pruned) -> Result<(), Problem> {
    let rest = || tokio::time::sleep(REST);
    if let Err(error) = prune::forget_hours_of_no_run(store, &kept.logs, now, rest).await? {
        pruned.logs_left = Some(format!("{}: {error}", kept.logs.display()));
    }
    Ok(())
}

/// Where the runs' markers may be. A store that is named without a project has none that are known.
fn places(place: &Place) -> Result<Vec<MarkerPlace>, Problem> {
    let root = match paths::project(place) {
        Ok(root) => root,
        Err(_) if place.project().is_none() && place.store.is_some() => {
            output::note("no project is known here: markers of these runs stay in its databases (name it with --project)");
            return Ok(Vec::new());
        }
        Err(problem) => return Err(problem),
    };
    let sources = Sources::of_folder(root);
    let loaded = backstop_project::load_only(&sources, &sources::environment(), &[]);
    sources::show(&sources, loaded.diagnostics.iter());
    Ok(marker_places(&loaded.project))
}

fn tell(pruned: &Pruned, json: bool) -> Result<(), Problem> {
    if json {
        return output::json(&wire::RunsPruned::done(pruned));
    }
    let paint = Painter::stdout();
    let glyph = if pruned.markers_left.is_empty() { paint.good("✓") } else { paint.bad("✗") };
    output::data(&format!("{glyph} {pruned}\n"))?;
    if !pruned.held.is_empty() {
        output::note(&format!("{} stayed, because a process has them", count(pruned.held.len() as u64, "run")));
    }
    if !pruned.markers_left.is_empty() {
        output::note("`backstop markers prune --unknown-runs` deletes what markers stayed, once the database answers");
    }
    Ok(())
}
