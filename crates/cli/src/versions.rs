//! `backstop versions`: which versions of a DAG runs are pinned to, and what changed between two.

use crate::args::{Place, VersionsArgs};
use crate::explain::{Exit, Problem};
use crate::masks::Masks;
use crate::output::{self, Painter};
use crate::runs::block_on;
use crate::{paths, wire, words};
use backstop_core::{DagId, RunId};
use backstop_project::Bundle;
use backstop_project::compare::{Difference, FileChange, compare_masked};
use backstop_store::{SqliteStore, Store, VersionUse};

/// Lists versions, or compares two.
pub(crate) fn versions(arguments: &VersionsArgs, place: &Place) -> Result<Exit, Problem> {
    let store = SqliteStore::open_read_only(&paths::kept(place)?.store)?;
    let dag = DagId::new(arguments.dag.as_str());
    // What is secret today. Without a project, what the files themselves say to be secret is masked all the same.
    let redactor = Masks::of(place)?.redactor().clone();
    block_on(async {
        let mut known = store.versions(&dag).await?;
        backstop_runtime::began::fill_in(&store, &dag, &mut known).await?;
        if known.is_empty() {
            return Err(Problem::usage(format!("no version of DAG `{dag}` is kept"))
                .hint("a version is kept when a run begins with it: `backstop runs list` shows which DAGs have run"));
        }
        let Some(from) = &arguments.from else { return list(known, arguments.json) };
        let from = find(&dag, from, &known)?;
        let to = match &arguments.to {
            Some(to) => find(&dag, to, &known)?,
            // The one used last.
            None => known[0].digest.as_str(),
        };
        let (earlier, later) = (kept_files(&store, from).await?, kept_files(&store, to).await?);
        let changes = compare_masked(&earlier, &later, |bundle| redactor.clean_files(bundle));
        if arguments.json {
            return output::json(&wire::VersionDiff::new(dag.as_str(), from, to, changes));
        }
        output::data(&changes_in_words(&changes, Painter::stdout()))?;
        if changes.is_empty() {
            output::note("they are the same version");
        }
        Ok(())
    })?;
    Ok(Exit::Success)
}

fn list(known: Vec<VersionUse>, json: bool) -> Result<(), Problem> {
    if json {
        return output::json(&known.into_iter().map(wire::VersionShown::from).collect::<Vec<_>>());
    }
    let mut rows = vec![["VERSION", "FIRST RUN", "LAST RUN"].map(str::to_owned).to_vec()];
    let run = |run: Option<RunId>| run.map_or_else(|| "-".to_owned(), |run| run.to_string());
    rows.extend(known.into_iter().map(|kept| vec![words::version(&kept.digest), run(kept.first_run), run(kept.last_run)]));
    output::data(&output::table(&rows, Painter::stdout()))
}

/// A version by the beginning of its digest.
fn find<'k>(dag: &DagId, wanted: &str, known: &'k [VersionUse]) -> Result<&'k str, Problem> {
    let found: Vec<&str> = known.iter().map(|kept| kept.digest.as_str()).filter(|digest| digest.starts_with(wanted)).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(Problem::usage(format!("DAG `{dag}` has no version `{wanted}`"))
            .hint(format!("`backstop versions {dag}` lists those that are kept"))),
        many => {
            Err(Problem::usage(format!("{} versions of `{dag}` begin with `{wanted}`", many.len()))
                .hint("write more of the digest"))
        }
    }
}

async fn kept_files(store: &SqliteStore, digest: &str) -> Result<Bundle, Problem> {
    let kept = store.version(digest).await?;
    let kept = kept.ok_or_else(|| Problem::usage(format!("version {digest} is not kept any more")))?;
    Bundle::from_bytes(&kept.bundle).map_err(|error| Problem::usage(format!("read version {digest}")).cause(error.to_string()))
}

fn changes_in_words(changes: &[FileChange], paint: Painter) -> String {
    let mut text = String::new();
    for change in changes {
        if change.diff.is_empty() {
            let how = match change.difference {
                Difference::Added => "added",
                Difference::Removed => "removed",
                Difference::Changed => "changed",
            };
            text.push_str(&format!("{} was {how}; it is too large to be shown\n", change.path));
            continue;
        }
        for line in change.diff.split_inclusive('\n') {
            let bare = line.trim_end_matches('\n');
            let end = &line[bare.len()..];
            let painted = match bare.as_bytes().first() {
                Some(b'+') => paint.good(bare),
                Some(b'-') => paint.bad(bare),
                Some(b'@') => paint.note(bare),
                Some(_) | None => bare.to_owned(),
            };
            text.push_str(&painted);
            text.push_str(end);
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if change.is_cut {
            text.push_str(&format!(
                "[more of {} is left out: {} are shown]\n",
                change.path,
                words::bytes(change.diff.len() as u64)
            ));
        }
    }
    text
}
