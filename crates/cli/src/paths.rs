//! Where things are: the project folder, its store, the logs and scratch files beside the store.

use crate::args::Place;
use crate::explain::Problem;
use std::path::{Path, PathBuf};

/// The file that makes a folder a project.
pub(crate) const PROJECT_FILE: &str = "backstop.yaml";

/// The folder for what Backstop keeps in a project.
pub(crate) const KEPT: &str = ".backstop";

/// Where a project's runs are kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// The store's file.
    pub(crate) store: PathBuf,
    /// Task logs.
    pub(crate) logs: PathBuf,
    /// Files that live as long as an attempt.
    pub(crate) scratch: PathBuf,
    /// What leads `backstop runs` and `backstop logs` here, for commands that are shown to people; empty where nothing is needed.
    pub(crate) flags: String,
}

impl Kept {
    /// Beside the store that was named, or in the project folder.
    pub(crate) fn of(place: &Place, project: &Path) -> Self {
        let store = match &place.store {
            Some(store) => std::path::absolute(store).unwrap_or_else(|_| store.clone()),
            None => project.join(KEPT).join("store.db"),
        };
        let beside = store.parent().unwrap_or(project);
        let is_named = place.project().is_some() || place.store.is_some();
        let is_found = is_named || found_from_here().is_some_and(|found| found.join(KEPT).join("store.db") == store);
        let flags = if is_found { flags(place) } else { format!(" --store {}", shell_word(&store.to_string_lossy())) };
        Self { logs: beside.join("logs"), scratch: beside.join("tmp"), store, flags }
    }
}

/// The folder that commands without flags look in.
fn found_from_here() -> Option<PathBuf> {
    let here = current_folder().ok()?;
    above(&here).or_else(|| (here.join("dags").is_dir() || here.join(KEPT).is_dir()).then_some(here))
}

/// `--project` and `--store` as they were given.
pub(crate) fn flags(place: &Place) -> String {
    let mut flags = String::new();
    for (flag, path) in [("--project", place.project()), ("--store", place.store.as_ref())] {
        if let Some(path) = path {
            flags.push_str(&format!(" {flag} {}", shell_word(&path.to_string_lossy())));
        }
    }
    flags
}

/// A word as a shell reads it back.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@+,[]".contains(c));
    // Brackets are patterns to a shell, but one that matches no file stays as it is.
    if plain && !text.contains('[') { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// The project folder of a command that needs one.
pub(crate) fn project(place: &Place) -> Result<PathBuf, Problem> {
    if let Some(folder) = place.project() {
        return named_project(folder);
    }
    let here = current_folder()?;
    if let Some(found) = above(&here) {
        return Ok(found);
    }
    if here.join("dags").is_dir() {
        return Ok(here);
    }
    Err(Problem::usage(format!(
        "there is no project here: neither {} nor a folder above it has a {PROJECT_FILE}",
        here.display()
    ))
    .hint("name the project with --project DIR, or make one with `backstop init DIR`"))
}

/// A project folder that a person named.
pub(crate) fn named_project(folder: &Path) -> Result<PathBuf, Problem> {
    let absolute = std::fs::canonicalize(folder)
        .map_err(|error| Problem::system(format!("open the project folder {}", folder.display()), &error))?;
    if !absolute.is_dir() {
        return Err(Problem::usage(format!("{} is not a folder", folder.display())));
    }
    if absolute.join(PROJECT_FILE).is_file() || absolute.join("dags").is_dir() {
        return Ok(absolute);
    }
    Err(Problem::usage(format!("{} is no project: it has neither {PROJECT_FILE} nor a folder `dags`", folder.display()))
        .hint(format!("make one there with `backstop init {}`", shell_word(&folder.to_string_lossy()))))
}

/// Where runs are kept, for a command that needs no project but its store.
pub(crate) fn kept(place: &Place) -> Result<Kept, Problem> {
    if place.store.is_some() && place.project().is_none() {
        return Ok(Kept::of(place, &current_folder()?));
    }
    if place.project().is_none()
        && let Some(found) = found_from_here()
    {
        return Ok(Kept::of(place, &found));
    }
    Ok(Kept::of(place, &project(place)?))
}

/// The nearest folder, from this one upwards, with a `backstop.yaml`.
pub(crate) fn above(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.join(PROJECT_FILE).is_file()).map(Path::to_owned)
}

/// The folder the process stands in.
pub(crate) fn current_folder() -> Result<PathBuf, Problem> {
    std::env::current_dir().map_err(|error| Problem::system("find the current folder", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(["load", "a b", "it's", "load[3]"].map(shell_word), ["load", "'a b'", r"'it'\''s'", "'load[3]'"]);
    }
}
