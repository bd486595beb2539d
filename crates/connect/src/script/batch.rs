//! The dialects whose clients cut scripts at lines: GO between Transact-SQL batches, `/` after Oracle's PL/SQL blocks.

use super::fault::{Fault, FaultKind};
use super::lexer::{Cursor, TokenKind, is_space};
use super::place::byte_order_mark;
use super::split::Cut;
use memchr::{memchr, memmem};

/// Goes to the GO line that ends the batch under the cursor.
pub(super) fn sql_server(cursor: &mut Cursor<'_>, text: &str) -> Result<Cut, Fault> {
    let mut line = begins_line(text, cursor.at());
    loop {
        if line && let Some((repeat, after)) = go_line(text.as_bytes(), cursor.at())? {
            return Ok(Cut { after, copy_data: None, repeat });
        }
        match cursor.next_structural()? {
            Some(_) => cursor.take_byte(),
            None => return Ok(Cut { after: text.len(), copy_data: None, repeat: 1 }),
        }
        line = true;
    }
}

/// The count of a `GO [n]` line that begins at `at`, and where the line ends. A line of more than that is Transact-SQL.
fn go_line(bytes: &[u8], at: usize) -> Result<Option<(u32, usize)>, Fault> {
    let mut rest = skip_spaces(&bytes[at..]);
    let word = bytes.len() - rest.len();
    match rest {
        [b'g' | b'G', b'o' | b'O', after @ ..] => rest = after,
        _ => return Ok(None),
    }
    let spaced = skip_spaces(rest);
    let digits = spaced.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && spaced.len() == rest.len() {
        return Ok(None);
    }
    let after = skip_spaces(&spaced[digits..]);
    let after = skip_spaces(after.strip_prefix(b";").unwrap_or(after));
    let end = memchr(b'\n', after).unwrap_or(after.len());
    let tail = after[..end].trim_ascii();
    let comment = tail.strip_prefix(b"/*").and_then(|inner| memmem::find(inner, b"*/").map(|close| close + 2 == inner.len()));
    if !(tail.is_empty() || tail.starts_with(b"--") || comment == Some(true)) {
        return Ok(None);
    }
    let count = std::str::from_utf8(&spaced[..digits]).unwrap_or_default();
    let repeat = if digits == 0 { Some(1) } else { count.parse().ok().filter(|count| *count > 0) };
    let line_end = bytes.len() - after.len() + end;
    repeat.map(|repeat| Some((repeat, line_end))).ok_or(Fault { at: word, kind: FaultKind::RepeatCount })
}

/// Goes to the `;` or the `/` line that ends the statement under the cursor. The semicolon that ends a PL/SQL block is a part of it.
///
/// A `/` line after a statement that `;` has ended is passed over as an empty statement: SQL*Plus would run the statement twice.
pub(super) fn oracle(cursor: &mut Cursor<'_>, text: &str) -> Result<Cut, Fault> {
    let mut line = begins_line(text, cursor.at());
    let standing = cursor.standing();
    let block = is_block(cursor);
    cursor.return_to(standing);
    loop {
        if line && let Some(after) = slash_line(text.as_bytes(), cursor.at()) {
            return Ok(Cut { after, copy_data: None, repeat: 1 });
        }
        line = match cursor.next_structural()? {
            Some(b';') if !block => return Ok(Cut { after: cursor.at() + 1, copy_data: None, repeat: 1 }),
            Some(byte) => byte == b'\n',
            None => return Ok(Cut { after: text.len(), copy_data: None, repeat: 1 }),
        };
        cursor.take_byte();
    }
}

/// Where a line of `/` alone, that begins at `at`, ends.
fn slash_line(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = skip_spaces(&bytes[at..]).strip_prefix(b"/")?;
    let end = memchr(b'\n', rest).unwrap_or(rest.len());
    rest[..end].trim_ascii().is_empty().then(|| bytes.len() - rest.len() + end)
}

/// True for what SQL*Plus takes as PL/SQL: semicolons do not end it.
fn is_block(cursor: &mut Cursor<'_>) -> bool {
    let Ok(first) = cursor.next_token() else { return false };
    match (first.kind, cursor.keyword(first).as_str()) {
        (_, "DECLARE" | "BEGIN") => true,
        (_, "WITH") => matches!(cursor.peek_keyword().as_str(), "FUNCTION" | "PROCEDURE"),
        (_, "CREATE") => loop {
            let Ok(token) = cursor.next_token() else { return false };
            match cursor.keyword(token).as_str() {
                "FUNCTION" | "PROCEDURE" | "PACKAGE" | "TRIGGER" | "TYPE" | "JAVA" => return true,
                "OR" | "REPLACE" | "AND" | "RESOLVE" | "COMPILE" | "NOFORCE" | "EDITIONABLE" | "NONEDITIONABLE" => {}
                _ => return false,
            }
        },
        // <<label>> before a block.
        (TokenKind::Byte(b'<'), _) => cursor.next_token().is_ok_and(|token| token.kind == TokenKind::Byte(b'<')),
        _ => false,
    }
}

/// True when only white space stands before `at` on its line.
fn begins_line(text: &str, at: usize) -> bool {
    let before = &text.as_bytes()[byte_order_mark(text).min(at)..at];
    before.iter().rev().find(|byte| !is_space(**byte) || **byte == b'\n').is_none_or(|byte| *byte == b'\n')
}

fn skip_spaces(bytes: &[u8]) -> &[u8] {
    let spaces = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &bytes[spaces..]
}
