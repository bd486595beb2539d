//! What differs between two versions of a DAG's sources, as unified diffs.

use crate::Bundle;
use similar::TextDiff;
use std::collections::BTreeSet;
use std::time::Duration;

/// A larger file is only said to differ.
const FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes of all diffs together; what would go beyond is cut, and said to be.
pub const DIFF_BYTES_MAX: usize = 1 << 20;
/// After so long a file is compared more coarsely: the diff stays right, and grows.
const FILE_TIME_MAX: Duration = Duration::from_millis(300);
/// Lines around a change.
const CONTEXT: usize = 3;

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the later version has it.
    Added,
    /// Only the earlier version has it.
    Removed,
    /// Both have it, with other content.
    Changed,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// From the project's folder.
    pub path: String,
    /// How.
    pub difference: Difference,
    /// A unified diff.
    pub diff: String,
    /// True when the diff, or a part of it, is left out because it is too large.
    pub is_cut: bool,
}

/// The files that differ, by path. What is equal is left out.
pub fn compare(earlier: &Bundle, later: &Bundle) -> Vec<FileChange> {
    compare_masked(earlier, later, Bundle::clone)
}

/// As [`compare`], with diffs of the files as `mask` leaves them. What differs in what is masked alone is said to differ.
pub fn compare_masked(earlier: &Bundle, later: &Bundle, mask: impl Fn(&Bundle) -> Bundle) -> Vec<FileChange> {
    let (shown_earlier, shown_later) = (mask(earlier), mask(later));
    let paths: BTreeSet<&String> = earlier.files.keys().chain(later.files.keys()).collect();
    let mut left = DIFF_BYTES_MAX;
    let mut changes = Vec::new();
    for path in paths {
        let (before, after) = (earlier.files.get(path), later.files.get(path));
        let difference = match (before, after) {
            (Some(before), Some(after)) if before == after => continue,
            (Some(_), Some(_)) => Difference::Changed,
            (None, _) => Difference::Added,
            (Some(_), None) => Difference::Removed,
        };
        let (diff, is_cut) = match (shown_earlier.files.get(path), shown_later.files.get(path)) {
            (Some(before), Some(after)) if before == after => {
                (format!("--- a/{path}\n+++ b/{path}\n@@ what differs is secret @@\n"), false)
            }
            (before, after) => diff(path, before, after, left),
        };
        left = left.saturating_sub(diff.len());
        changes.push(FileChange { path: path.clone(), difference, diff, is_cut });
    }
    changes
}

fn diff(path: &str, before: Option<&Vec<u8>>, after: Option<&Vec<u8>>, bytes_max: usize) -> (String, bool) {
    let is_large = |content: Option<&Vec<u8>>| content.is_some_and(|content| content.len() > FILE_BYTES_MAX);
    if is_large(before) || is_large(after) {
        return (String::new(), true);
    }
    let text = |content: Option<&Vec<u8>>| content.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
    let name =
        |side: &str, content: Option<&Vec<u8>>| content.map_or_else(|| "/dev/null".to_owned(), |_| format!("{side}/{path}"));
    let (old, new) = (text(before), text(after));
    let compared = TextDiff::configure().timeout(FILE_TIME_MAX).diff_lines(&old, &new);
    let mut unified = compared.unified_diff().context_radius(CONTEXT).header(&name("a", before), &name("b", after)).to_string();
    if unified.len() <= bytes_max {
        return (unified, false);
    }
    let end = unified[..floor(&unified, bytes_max)].rfind('\n').map_or(0, |end| end + 1);
    unified.truncate(end);
    (unified, true)
}

/// The last place up to this one where a character begins.
fn floor(text: &str, place: usize) -> usize {
    (0..=place).rev().find(|place| text.is_char_boundary(*place)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, &str)]) -> Bundle {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
        Bundle { files, ..Bundle::default() }
    }

    #[test]
    fn files_that_differ_are_told_with_their_lines() {
        let earlier = bundle(&[("dags/d.yaml", "dag: d\n"), ("gone.sql", "SELECT 1;\n"), ("load.sql", "a\nb\nc\n")]);
        let later = bundle(&[("dags/d.yaml", "dag: d\n"), ("load.sql", "a\nB\nc\n"), ("new.sql", "SELECT 2;")]);
        let changes = compare(&earlier, &later);
        let told: Vec<String> = changes.iter().map(|change| format!("{:?}\n{}", change.difference, change.diff)).collect();
        insta::assert_snapshot!(told.join(""), @r"
        Removed
        --- a/gone.sql
        +++ /dev/null
        @@ -1 +0,0 @@
        -SELECT 1;
        Changed
        --- a/load.sql
        +++ b/load.sql
        @@ -1,3 +1,3 @@
         a
        -b
        +B
         c
        Added
        --- /dev/null
        +++ b/new.sql
        @@ -0,0 +1 @@
        +SELECT 2;
        \ No newline at end of file
        ");
        assert!(changes.iter().all(|change| !change.is_cut));
        assert_eq!(compare(&earlier, &earlier), []);
    }

    #[test]
    fn what_is_too_large_is_cut_and_said_to_be() {
        let lines = |word: &str| (0..40_000).map(|line| format!("{word} ü {line}\n")).collect::<String>();
        let changes = compare(&bundle(&[("a.sql", &lines("one")), ("b.sql", "x\n")]), &bundle(&[("a.sql", &lines("two"))]));
        assert_eq!(changes.iter().map(|change| change.is_cut).collect::<Vec<_>>(), [true, true]);
        assert!(changes.iter().map(|change| change.diff.len()).sum::<usize>() <= DIFF_BYTES_MAX);
        assert!(changes[0].diff.ends_with('\n') && changes[0].diff.len() > DIFF_BYTES_MAX - 100);
        let huge = "x".repeat(FILE_BYTES_MAX + 1);
        let changes = compare(&bundle(&[]), &bundle(&[("huge.sql", &huge)]));
        assert_eq!((changes[0].diff.as_str(), changes[0].is_cut), ("", true));
    }
}
