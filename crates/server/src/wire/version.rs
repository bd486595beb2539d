//! Versions of DAGs, as machines read them.

use backstop_runtime::service::compare::{Difference, FileChange};
use backstop_store::VersionUse;
use serde::Serialize;
use utoipa::ToSchema;

/// A version of a DAG that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Version)]
pub struct VersionShown {
    /// SHA-256 of its sources, hex.
    version: String,
    /// The first run that goes on with it; where all have gone on with another version, the first that began with it. Null when none is left.
    #[schema(required)]
    first_run: Option<String>,
    /// The last.
    #[schema(required)]
    last_run: Option<String>,
}

impl From<VersionUse> for VersionShown {
    fn from(kept: VersionUse) -> Self {
        let VersionUse { digest, first_run, last_run } = kept;
        Self { version: digest, first_run: first_run.map(|run| run.to_string()), last_run: last_run.map(|run| run.to_string()) }
    }
}

/// What changed from one version to another.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionDiff {
    dag: String,
    /// The version that is compared.
    from: String,
    /// With what.
    to: String,
    /// The files that differ, by path.
    files: Vec<FileDiff>,
}

impl VersionDiff {
    /// Of this DAG, from one digest to another.
    pub fn new(dag: &str, from: &str, to: &str, changes: Vec<FileChange>) -> Self {
        let file = |change: FileChange| FileDiff {
            path: change.path,
            change: match change.difference {
                Difference::Added => FileWord::Added,
                Difference::Removed => FileWord::Removed,
                Difference::Changed => FileWord::Changed,
            },
            diff: change.diff,
            cut: change.is_cut,
        };
        Self { dag: dag.to_owned(), from: from.to_owned(), to: to.to_owned(), files: changes.into_iter().map(file).collect() }
    }
}

/// A file that differs.
#[derive(Debug, Serialize, ToSchema)]
struct FileDiff {
    /// From the project's folder.
    path: String,
    /// How it differs.
    change: FileWord,
    /// A unified diff.
    diff: String,
    /// The diff, or its end, is left out because it is too large.
    cut: bool,
}

/// How a file differs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = FileChange)]
enum FileWord {
    Added,
    Removed,
    Changed,
}
