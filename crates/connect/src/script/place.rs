//! Where things are: lines and columns of a script, and one-line summaries of its statements.

use super::Statement;

/// The line and column (both from 1, columns in characters) in the script of a character position (from 1, as PostgreSQL's errors
/// tell it) inside a statement. A position past the statement's end is taken as its end.
pub fn statement_position_to_source(text: &str, statement: &Statement, position: u32) -> (u32, u32) {
    let (mut line, mut column) = (statement.line, statement.column);
    let before = usize::try_from(position.saturating_sub(1)).unwrap_or(usize::MAX);
    for character in text[statement.text.clone()].chars().take(before) {
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line, column)
}

/// The first words of a statement on one line, at most 80 characters; white space and comments are folded to one space.
pub fn summary(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
}
