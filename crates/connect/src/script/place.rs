//! Where things are: lines and columns of a script, and one-line summaries of its statements.

use super::Statement;
use super::lexer::is_space;
use memchr::{memchr, memchr_iter, memmem, memrchr};

/// A place that moves forwards through a text, so that all places of a script cost one pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset: usize,
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

impl Place {
    /// The first byte; a byte order mark is not a character of the first line.
    pub(super) fn start(text: &str) -> Self {
        Self { offset: byte_order_mark(text), line: 1, column: 1 }
    }

    /// The first byte of a part of a text, which stands there.
    pub(super) fn beginning(line: u32, column: u32) -> Self {
        Self { offset: 0, line, column }
    }

    pub(super) fn of(text: &str, offset: usize) -> Self {
        let mut place = Self::start(text);
        place.advance(text.as_bytes(), offset);
        place
    }

    /// Goes forwards to `offset`.
    pub(super) fn advance(&mut self, bytes: &[u8], offset: usize) {
        let passed = bytes.get(self.offset..offset).unwrap_or_default();
        let lines = memchr_iter(b'\n', passed).count();
        let last_line = memrchr(b'\n', passed).map_or(passed, |end| &passed[end + 1..]);
        // Every character has exactly one byte that does not continue another.
        let characters = last_line.iter().filter(|byte| (**byte & 0xc0) != 0x80).count();
        self.column = if lines > 0 { 1 } else { self.column }.saturating_add(u32::try_from(characters).unwrap_or(u32::MAX));
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.offset = offset;
    }
}

/// The length of the UTF-8 byte order mark that the text begins with, if it does.
pub(super) fn byte_order_mark(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// The line and column (both from 1, columns in characters) in the script of a character position (from 1, as PostgreSQL's errors
/// tell it) inside a statement. A position past the statement's end is taken as its end.
pub fn statement_position_to_source(text: &str, statement: &Statement, position: u32) -> (u32, u32) {
    let sql = text.get(statement.text.clone()).unwrap_or_default();
    let before = usize::try_from(position.saturating_sub(1)).unwrap_or(usize::MAX);
    let length = sql.char_indices().nth(before).map_or(sql.len(), |(offset, _)| offset);
    let mut place = Place::beginning(statement.line, statement.column);
    place.advance(sql.as_bytes(), length);
    (place.line, place.column)
}

/// How many characters a summary may have.
const SUMMARY_CHARACTERS: usize = 80;

/// The first words of a statement on one line, at most 80 characters; white space and comments are folded to one space. It reads no
/// more of the statement than it shows.
pub fn summary(sql: &str) -> String {
    let mut line = String::new();
    let mut rest = sql;
    let mut room = SUMMARY_CHARACTERS;
    let mut quote = None;
    loop {
        let (blank, after) = if quote.is_none() { skip_blank(rest) } else { (false, rest) };
        rest = after;
        let Some(character) = rest.chars().next() else { return line };
        rest = &rest[character.len_utf8()..];
        quote = match quote {
            Some(open) if open == character => None,
            Some(open) => Some(open),
            None => matches!(character, '\'' | '"' | '`').then_some(character),
        };
        let gap = blank && !line.is_empty();
        if room < 1 + usize::from(gap) {
            if room == 0 {
                line.pop();
            }
            line.push('…');
            return line;
        }
        room -= 1 + usize::from(gap);
        line.extend(gap.then_some(' '));
        line.push(if character.is_control() { ' ' } else { character });
    }
}

/// Whether the text begins with white space or comments, and what comes after.
fn skip_blank(text: &str) -> (bool, &str) {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start_matches(|character: char| u8::try_from(character).is_ok_and(is_space));
        let bytes = trimmed.as_bytes();
        let comment = if bytes.starts_with(b"--") {
            memchr(b'\n', bytes).unwrap_or(bytes.len())
        } else if bytes.starts_with(b"/*") && !bytes.starts_with(b"/*!") && !bytes.starts_with(b"/*M!") {
            memmem::find(bytes.get(2..).unwrap_or_default(), b"*/").map_or(bytes.len(), |end| end + 4)
        } else {
            return (trimmed.len() < text.len(), trimmed);
        };
        rest = &trimmed[comment..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{Dialect, split};

    #[test]
    fn a_position_in_a_statement_leads_back_to_the_script() {
        let script = "SELECT 1;\n-- é\n  SELECT 'é',\n    nope;\n";
        let statements = split(Dialect::PostgreSql, script).unwrap();
        let at = |position| statement_position_to_source(script, &statements[1], position);
        assert_eq!(at(1), (3, 3));
        assert_eq!(at(11), (3, 13), "columns are characters, not bytes");
        assert_eq!(at(17), (4, 5));
        assert_eq!(at(0), (3, 3), "no position is the start");
        assert_eq!(at(9999), (4, 9), "past the end is the end");
    }

    #[test]
    fn a_summary_is_one_short_line() {
        insta::assert_snapshot!(summary("SELECT  a,\n\t-- why\n  /* what */ b\r\nFROM t"), @"SELECT a, b FROM t");
        insta::assert_snapshot!(summary("INSERT INTO t VALUES ('a  -- b', 1)"), @"INSERT INTO t VALUES ('a  -- b', 1)");
        insta::assert_snapshot!(summary("/*! SELECT */ 1 -- never closed /*"), @"/*! SELECT */ 1");
        insta::assert_snapshot!(summary(""), @"");
        let long = summary(&"é ".repeat(100));
        assert_eq!(long.chars().count(), 80);
        assert!(long.ends_with('…'));
        assert_eq!(summary(&"x".repeat(80)), "x".repeat(80));
        assert_eq!(summary(&"x".repeat(81)).chars().count(), 80);
    }
}
