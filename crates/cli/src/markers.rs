//! `backstop markers`: rows in target databases that nobody needs any more.
//!
//! A marker is what tells, after a crash, whether a piece of work took effect. It may go when its run is over for good: the store says so,
//! no callback of it is to come, and no process has it. Of runs that this store does not know nothing is certain; they may be of another
//! store, and unfinished there. They stay unless a person says otherwise.

use crate::args::{MarkersCommand, Place, PruneArgs};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::runs::story::{Called, Story};
use crate::sources::{self, Sources};
use crate::{paths, runs, wire, words};
use backstop_connect::prune::{MarkedRun, Markers, RUNS_MAX};
use backstop_connect::{Connector, MarkerTable};
use backstop_core::RunId;
use backstop_project::definition::{Connection, Project};
use backstop_runtime::{Redactor, connection_config};
use backstop_store::{SqliteStore, Store};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Runs that are read from a database at once.
const RUNS_AT_ONCE: u32 = 500;
/// How old markers of unknown runs must be: whoever runs them is given time to be done.
const UNKNOWN_OLDER_THAN_MIN: Duration = Duration::from_secs(24 * 3600);

/// Looks after markers.
pub(crate) fn markers(command: MarkersCommand, place: &Place) -> Result<Exit, Problem> {
    match command {
        MarkersCommand::Prune(arguments) => prune(&arguments, place),
    }
}

/// What shall go.
struct Wanted {
    older_than: Duration,
    unknown_runs: bool,
    dry_run: bool,
}

/// What became of the markers of one database.
#[derive(Debug, Default)]
struct Pruned {
    markers: u64,
    runs: usize,
    /// Runs that are not over.
    unfinished: usize,
    /// Runs that the store does not know, and that stay therefore.
    unknown: usize,
    has_table: bool,
}

fn prune(arguments: &PruneArgs, place: &Place) -> Result<Exit, Problem> {
    let wanted = Wanted { older_than: arguments.older_than, unknown_runs: arguments.unknown_runs, dry_run: arguments.dry_run };
    if wanted.unknown_runs && wanted.older_than < UNKNOWN_OLDER_THAN_MIN {
        return Err(Problem::usage("with --unknown-runs, --older-than is at least 1d")
            .hint("a run that this store does not know may be going on by another one, and needs its markers"));
    }
    let root = paths::project(place)?;
    let sources = Sources::of_folder(root);
    let loaded = backstop_project::load_only(&sources, &sources::environment(), &[]);
    sources::show(&sources, loaded.diagnostics.iter());
    let chosen = sources::connections(&arguments.connections, &loaded.project)?;
    // It must be there: without it every run is unknown.
    let store = SqliteStore::open_read_only(&paths::kept(place)?.store)?;
    let mut told = Vec::new();
    let mut text = String::new();
    let mut exit = Exit::Success;
    runs::block_on(async {
        for (id, connection) in chosen {
            let (pruned, error) = match prune_one(id, connection, &loaded.project, &store, &wanted).await {
                Ok(pruned) => (pruned, None),
                Err((pruned, problem)) => {
                    exit = Exit::RunFailed;
                    (pruned, Some(problem))
                }
            };
            in_words(id, &pruned, error.as_ref(), &wanted, &mut text);
            told.push(to_wire(id, &pruned, error, &wanted));
        }
        Ok(())
    })?;
    if arguments.json {
        output::json(&told)?
    } else {
        output::data(&text)?
    }
    Ok(exit)
}

/// Prunes one database. An error comes with what was done before it.
async fn prune_one(
    id: &str,
    connection: &Connection,
    project: &Project,
    store: &dyn Store,
    wanted: &Wanted,
) -> Result<Pruned, (Pruned, Problem)> {
    let mut pruned = Pruned::default();
    let done = async {
        let connector: Arc<dyn Connector> = backstop_connect::connector(&connection_config(id, connection, &project.root))?;
        if connector.capabilities().markers {
            let mut session = connector.open().await?;
            let table = marker_table(connection);
            if let Some(mut markers) = Markers::find(&mut *session, connector.dialect(), &table).await? {
                pruned.has_table = true;
                prune_all(&mut markers, store, wanted, &mut pruned).await?;
            }
            session.close().await;
        }
        Ok(())
    }
    .await;
    match done {
        Ok(()) => Ok(pruned),
        Err(problem) => Err((pruned, problem)),
    }
}

/// The marker table that a connection is configured with.
pub(crate) fn marker_table(connection: &Connection) -> MarkerTable {
    MarkerTable {
        schema: connection.marker_schema.clone(),
        name: connection.marker_table.clone().unwrap_or_else(|| MarkerTable::default().name),
    }
}

async fn prune_all(markers: &mut Markers<'_>, store: &dyn Store, wanted: &Wanted, pruned: &mut Pruned) -> Result<(), Problem> {
    let mut after = String::new();
    loop {
        let page = markers.old_runs(wanted.older_than, &after, RUNS_AT_ONCE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after.clone_from(&last.run);
        let mut going: Vec<MarkedRun> = Vec::new();
        for marked in page {
            match fate(store, &RunId::new(marked.run.as_str())).await? {
                Fate::Over => going.push(marked),
                Fate::Unknown if wanted.unknown_runs => going.push(marked),
                Fate::Unknown => pruned.unknown += 1,
                Fate::Unfinished => pruned.unfinished += 1,
            }
        }
        for some in going.chunks(RUNS_MAX) {
            pruned.runs += some.len();
            if wanted.dry_run {
                pruned.markers += some.iter().map(|marked| marked.markers).sum::<u64>();
                continue;
            }
            let names: Vec<String> = some.iter().map(|marked| marked.run.clone()).collect();
            loop {
                let gone = markers.prune(&names, wanted.older_than).await?;
                pruned.markers += gone;
                if gone < backstop_connect::prune::ROWS_MAX {
                    break;
                }
            }
        }
    }
}

/// Whether a run may need its markers again.
enum Fate {
    /// Never: what is over stays so.
    Over,
    Unfinished,
    /// The store does not know it.
    Unknown,
}

async fn fate(store: &dyn Store, run: &RunId) -> Result<Fate, Problem> {
    let Some(row) = store.run(run).await? else { return Ok(Fate::Unknown) };
    // Callbacks in SQL have markers too, and may be to come when the run itself is over.
    if row.ended_at.is_none() || store.is_run_held(run)? {
        return Ok(Fate::Unfinished);
    }
    let story = Story::read(store, run, &Redactor::default()).await?;
    let is_called = story.callbacks.values().any(|called| matches!(called, Called::Pending));
    Ok(if is_called { Fate::Unfinished } else { Fate::Over })
}

fn in_words(id: &str, pruned: &Pruned, error: Option<&Problem>, wanted: &Wanted, text: &mut String) {
    let paint = Painter::stdout();
    let glyph = if error.is_some() { paint.bad("✗") } else { paint.good("✓") };
    let how = if wanted.dry_run { "would be deleted" } else { "deleted" };
    let runs = words::count(pruned.runs, "run");
    let said = match (pruned.has_table, error) {
        (false, None) => "no marker table".to_owned(),
        (false, Some(_)) => "nothing was done".to_owned(),
        (true, _) => format!("{} of {runs} {how}", words::count(usize::try_from(pruned.markers).unwrap_or(usize::MAX), "marker")),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{glyph} {id}: {said}");
    if pruned.unfinished > 0 {
        let _ = writeln!(text, "    kept: {} not over yet", words::count(pruned.unfinished, "run"));
    }
    if pruned.unknown > 0 {
        let unknown = words::count(pruned.unknown, "run");
        let _ = writeln!(
            text,
            "    kept: {unknown} unknown to this store (another store may go on with them; else add --unknown-runs)"
        );
    }
    if let Some(problem) = error {
        let _ = writeln!(text, "    {}", problem.message);
        for (label, lines) in [(paint.bold("cause:"), &problem.causes), (paint.note("hint:"), &problem.hints)] {
            for line in lines {
                let _ = writeln!(text, "    {label} {line}");
            }
        }
    }
}

fn to_wire(id: &str, pruned: &Pruned, error: Option<Problem>, wanted: &Wanted) -> wire::MarkersPruned {
    wire::MarkersPruned {
        connection: id.to_owned(),
        dry_run: wanted.dry_run,
        markers: pruned.markers,
        runs: pruned.runs,
        runs_unfinished: pruned.unfinished,
        runs_unknown: pruned.unknown,
        error: error.map(|problem| problem.message),
    }
}

/// `90d`, `12h`, `1d 12h`: a day has 24 hours.
pub(crate) fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no length of time: write 90d, 12h or 30m");
    let span: jiff::Span = text.parse().map_err(|_| wrong())?;
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(length).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read() {
        assert_eq!(parse_age("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(parse_age("1d 12h"), Ok(Duration::from_secs(36 * 3600)));
        for wrong in ["", "90", "soon", "-1d", "1mo"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
