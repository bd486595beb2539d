//! A script to its statements, by the lexical rules of each dialect.

use super::{Dialect, SplitError, Statement};

/// Splits a script into its statements. Empty statements and those of comments alone are dropped.
///
/// # Errors
/// When a quote, a comment, a body or COPY data is never closed; the error points at where it begins.
pub fn split(_dialect: Dialect, _text: &str) -> Result<Vec<Statement>, SplitError> {
    Ok(Vec::new())
}
