//! Statements to segments: what commits together, and what can be promised of it.

use super::{Dialect, Segment, SplitError, Statement};

/// Groups the statements of a script into the segments that commit together.
///
/// # Errors
/// When a transaction of the script is never ended.
pub fn plan(_dialect: Dialect, _text: &str, _statements: &[Statement], _autocommit: bool) -> Result<Vec<Segment>, SplitError> {
    Ok(Vec::new())
}
