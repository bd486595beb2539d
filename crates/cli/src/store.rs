//! `backstop store`: what is done to a store as a whole: check, repair, copy, measure.

pub(crate) mod arguments;
mod prune;

use crate::args::Place;
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::paths::{self, Kept};
use crate::wire::kept as wire;
use crate::words;
use arguments::{BackupArgs, CheckArgs, StoreCommand};
use backstop_core::RunId;
use backstop_store::sqlite::backup::{BackedUp, Size, back_up, size};
use backstop_store::sqlite::check::{Checked, Remedy, check, repair};
use backstop_store::{SqliteStore, Store};
use std::fmt::Write as _;
use std::path::Path;

/// Differences that are told to a person; the rest is counted, and in the JSON.
const TOLD_MAX: usize = 50;
/// A check keeps a thousand differences, so that a badly damaged store is repaired in rounds.
const REPAIRS_MAX: usize = 1000;
/// Runs between two words about how far a check has come.
const TOLD_EVERY: u64 = 10_000;

/// Looks after the store.
pub(crate) fn store(command: StoreCommand, place: &Place) -> Result<Exit, Problem> {
    let kept = paths::kept(place)?;
    match command {
        StoreCommand::Check(arguments) => check_store(&arguments, &kept),
        StoreCommand::Backup(arguments) => copy(&arguments, &kept),
        StoreCommand::Info { json } => info(json, &kept),
        StoreCommand::Prune(arguments) => prune::prune(&arguments, place, &kept),
    }
}

fn check_store(arguments: &CheckArgs, kept: &Kept) -> Result<Exit, Problem> {
    let path = kept.store.as_path();
    if arguments.repair {
        refuse_beside_service(path)?;
    }
    let mut checked = check(path, tell_progress)?;
    let mut repaired = 0;
    if arguments.repair {
        for _ in 0..REPAIRS_MAX {
            let Some(runs) = repairable(&checked) else { break };
            let (count, before) = (repair(path, &runs)?, checked.differences_total);
            repaired += count;
            checked = check(path, tell_progress)?;
            if checked.differences_total >= before {
                break;
            }
        }
    }
    if arguments.json {
        output::json(&wire::Checked::new(path, &checked, repaired))?;
    } else {
        output::data(&in_words(path, &checked, repaired))?;
        hints(&checked, kept);
    }
    Ok(if checked.is_whole() { Exit::Success } else { Exit::RunFailed })
}

/// The service would go on with what it has read.
fn refuse_beside_service(path: &Path) -> Result<(), Problem> {
    if SqliteStore::open_read_only(path)?.is_run_held(&RunId::new(backstop_runtime::service::LOCK))? {
        return Err(Problem::usage(format!("repair the store {}: a service has it", path.display()))
            .hint("stop the service first; a check without --repair may go on beside it"));
    }
    Ok(())
}

/// The runs that can be made anew from their logs; `None` when nothing can be repaired. Damage of an index has no run.
fn repairable(checked: &Checked) -> Option<Vec<RunId>> {
    let found: Vec<_> = checked.differences.iter().filter(|found| found.remedy == Remedy::Rebuild).collect();
    if found.is_empty() {
        return None;
    }
    let mut runs: Vec<RunId> = found.into_iter().filter_map(|found| found.run.clone()).collect();
    runs.sort();
    runs.dedup();
    Some(runs)
}

fn tell_progress(runs: u64) {
    if runs > 0 && runs.is_multiple_of(TOLD_EVERY) && output::can_ask() {
        output::note(&format!("{} runs checked", words::grouped(runs)));
    }
}

fn in_words(path: &Path, checked: &Checked, repaired: u64) -> String {
    let paint = Painter::stdout();
    let mut text = String::new();
    // Writing to a String cannot fail, here and below.
    if repaired > 0 {
        let _ = writeln!(text, "{} made {} anew from the log", paint.good("✓"), count(repaired, "run"));
    }
    let looked = format!("{}, {}", count(checked.runs, "run"), count(checked.events, "event"));
    if checked.is_whole() {
        let _ = writeln!(text, "{} {} is whole: {looked}", paint.good("✓"), path.display());
        return text;
    }
    let differences = count(checked.differences_total, "difference");
    let _ = writeln!(text, "{} {}: {differences} in {looked}", paint.bad("✗"), path.display());
    for found in checked.differences.iter().take(TOLD_MAX) {
        let remedy = match found.remedy {
            Remedy::Rebuild => "can be repaired",
            Remedy::Restore => "lost",
        };
        let run = found.run.as_ref().map_or_else(String::new, |run| format!("run {run}: "));
        let _ = writeln!(text, "    {run}{} ({remedy})", found.what);
    }
    let more = checked.differences_total.saturating_sub(TOLD_MAX as u64);
    if more > 0 {
        let _ = writeln!(text, "    and {} more", words::grouped(more));
    }
    text
}

fn hints(checked: &Checked, kept: &Kept) {
    let has = |remedy| checked.differences.iter().any(|found| found.remedy == remedy);
    if has(Remedy::Rebuild) {
        output::note(&format!("`backstop store check --repair{}` makes what can be repaired anew from the logs", kept.flags));
    }
    if has(Remedy::Restore) {
        output::note("what is lost is only in a backup of the store; runs that are not named are whole");
    }
}

fn copy(arguments: &BackupArgs, kept: &Kept) -> Result<Exit, Problem> {
    let made = back_up(&kept.store, &arguments.file)?;
    let BackedUp { bytes, checked } = &made;
    if arguments.json {
        output::json(&wire::BackedUp::new(&arguments.file, *bytes, checked))?;
    } else {
        let paint = Painter::stdout();
        let runs = count(checked.runs, "run");
        output::data(&format!("{} {}: {}, {runs}\n", paint.good("✓"), arguments.file.display(), words::bytes(*bytes)))?;
    }
    if checked.is_whole() {
        return Ok(Exit::Success);
    }
    output::warn(&format!(
        "the store itself is damaged, and the copy as it is: `backstop store check{}` says what is wrong",
        kept.flags
    ));
    Ok(Exit::RunFailed)
}

fn info(json: bool, kept: &Kept) -> Result<Exit, Problem> {
    let found = size(&kept.store)?;
    if json {
        output::json(&wire::Info::new(&kept.store, &found))?;
    } else {
        output::data(&info_in_words(&kept.store, &found))?;
    }
    Ok(Exit::Success)
}

fn info_in_words(path: &Path, found: &Size) -> String {
    let runs: u64 = found.runs.iter().map(|(_, count)| count).sum();
    let states: Vec<String> = found.runs.iter().map(|(state, count)| format!("{} {state}", words::grouped(*count))).collect();
    let states = if states.is_empty() { String::new() } else { format!(": {}", states.join(", ")) };
    let mut text = String::new();
    for (label, value) in [
        ("store", path.display().to_string()),
        ("schema", found.schema.to_string()),
        ("file", format!("{}, of it {} free", words::bytes(found.file_bytes), words::bytes(found.free_bytes))),
        ("not in it yet", words::bytes(found.log_bytes)),
        ("runs", format!("{}{states}", words::grouped(runs))),
        ("task instances", words::grouped(found.instances)),
        ("statements", words::grouped(found.statements)),
        ("events", words::grouped(found.events)),
        ("versions", words::grouped(found.versions)),
    ] {
        let _ = writeln!(text, "{label:<14}  {value}");
    }
    text
}

fn count(number: u64, noun: &str) -> String {
    words::count(usize::try_from(number).unwrap_or(usize::MAX), noun)
}
