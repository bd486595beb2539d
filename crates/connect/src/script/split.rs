//! A script to its statements, by the lexical rules of each dialect.

use super::fault::{Fault, FaultKind};
use super::lexer::{Cursor, TokenKind, is_space};
use super::place::{Place, byte_order_mark};
use super::verb::classify;
use super::{Dialect, SplitError, Statement, batch, compound};
use memchr::{memchr, memmem};
use std::ops::Range;

/// Splits a script into its statements. Empty statements and those of comments alone are dropped; a byte order mark is passed over.
///
/// The time is linear in the text and nothing is allocated for a statement but its place in the list.
///
/// # Errors
/// When a quote, a comment, a body or COPY data is never closed (the error points at where it begins), or when a line is a command
/// of a client that cannot run here.
pub fn split(dialect: Dialect, text: &str) -> Result<Vec<Statement>, SplitError> {
    Splitter::new(dialect, text).run().map_err(|fault| fault.into_error(text))
}

/// What a statement turned out to be, before it is named and placed.
pub(super) struct Cut {
    /// The first byte after what ends it.
    pub(super) after: usize,
    pub(super) copy_data: Option<Range<usize>>,
    pub(super) repeat: u32,
}

struct Splitter<'a> {
    dialect: Dialect,
    text: &'a str,
    cursor: Cursor<'a>,
    place: Place,
    statements: Vec<Statement>,
}

impl<'a> Splitter<'a> {
    fn new(dialect: Dialect, text: &'a str) -> Self {
        let mut cursor = Cursor::new(dialect, text);
        cursor.jump(byte_order_mark(text));
        Self { dialect, text, cursor, place: Place::start(text), statements: Vec::new() }
    }

    fn run(mut self) -> Result<Vec<Statement>, Fault> {
        loop {
            self.cursor.skip_blank()?;
            let start = self.cursor.at();
            if start == self.text.len() {
                return Ok(self.statements);
            }
            if self.cursor.at_delimiter() {
                self.cursor.jump(start + self.cursor.delimiter().len());
                continue;
            }
            let cut = match self.dialect {
                Dialect::PostgreSql => self.postgresql()?,
                Dialect::MySql => match self.delimiter_line()? {
                    Some(after) => {
                        self.cursor.jump(after);
                        continue;
                    }
                    None => self.mysql()?,
                },
                Dialect::Sqlite => {
                    compound::sqlite(&mut self.cursor)?;
                    self.pass_statement()?
                }
                Dialect::Generic => self.pass_statement()?,
                Dialect::SqlServer => batch::sql_server(&mut self.cursor, self.text)?,
                Dialect::Oracle => batch::oracle(&mut self.cursor, self.text)?,
            };
            let end = self.cursor.token_end();
            if end > start {
                self.push(start..end, &cut);
            }
            self.cursor.jump(cut.after);
        }
    }

    fn push(&mut self, text: Range<usize>, cut: &Cut) {
        self.place.advance(self.text.as_bytes(), text.start);
        self.statements.push(Statement {
            number: u32::try_from(self.statements.len() + 1).unwrap_or(u32::MAX),
            line: self.place.line,
            column: self.place.column,
            verb: classify(self.dialect, &self.text[text.clone()]),
            text,
            copy_data: cut.copy_data.clone(),
            repeat: cut.repeat,
        });
    }

    /// Goes on to the delimiter, or to the end of the text.
    fn pass_statement(&mut self) -> Result<Cut, Fault> {
        while let Some(byte) = self.cursor.next_structural()? {
            let at = self.cursor.at();
            if self.cursor.at_delimiter() {
                return Ok(Cut { after: at + self.cursor.delimiter().len(), copy_data: None, repeat: 1 });
            }
            if byte == b'\\' && self.dialect == Dialect::PostgreSql {
                return Err(Fault { at, kind: FaultKind::PsqlCommand });
            }
            if let Some(at) = self.forgotten_delimiter(at) {
                return Err(Fault { at, kind: FaultKind::MissingDelimiter });
            }
            self.cursor.take_byte();
        }
        Ok(Cut { after: self.text.len(), copy_data: None, repeat: 1 })
    }

    fn postgresql(&mut self) -> Result<Cut, Fault> {
        let standing = self.cursor.standing();
        let start = self.cursor.at();
        let copies = match self.cursor.peek_keyword().as_str() {
            "COPY" => {
                let copies = copies_from_stdin(&mut self.cursor)?;
                self.cursor.return_to(standing);
                copies
            }
            "CREATE" => {
                compound::postgresql(&mut self.cursor)?;
                false
            }
            _ => false,
        };
        let mut cut = self.pass_statement()?;
        if copies {
            if self.cursor.at() == self.text.len() {
                return Err(Fault { at: start, kind: FaultKind::CopyWithoutData });
            }
            (cut.copy_data, cut.after) = self.copy_data(cut.after)?;
        }
        Ok(cut)
    }

    /// The data lines after the semicolon at `from`, and where the script goes on.
    fn copy_data(&self, from: usize) -> Result<(Option<Range<usize>>, usize), Fault> {
        let bytes = self.text.as_bytes();
        let line_end = memchr(b'\n', &bytes[from..]).map_or(bytes.len(), |length| from + length);
        let rest_of_line = &bytes[from..line_end];
        if let Some(used) = rest_of_line.iter().position(|byte| !is_space(*byte))
            && !rest_of_line[used..].starts_with(b"--")
        {
            return Err(Fault { at: from + used, kind: FaultKind::CopySameLine });
        }
        let start = (line_end + 1).min(bytes.len());
        for found in memmem::find_iter(&bytes[start..], b"\\.") {
            let at = start + found;
            let rest = &bytes[at + 2..];
            let after = match rest {
                [] => at + 2,
                [b'\n', ..] => at + 3,
                [b'\r', b'\n', ..] => at + 4,
                _ => continue,
            };
            if at == start || bytes[at - 1] == b'\n' {
                return Ok((Some(start..at), after));
            }
        }
        Err(Fault { at: start, kind: FaultKind::CopyData })
    }

    fn mysql(&mut self) -> Result<Cut, Fault> {
        // With a delimiter of its own, a script may hold semicolons anywhere, and blocks need no understanding.
        if self.cursor.delimiter() == b";" {
            compound::mysql(&mut self.cursor)?;
        }
        self.pass_statement()
    }

    /// Obeys a DELIMITER line under the cursor; tells where the line ends.
    fn delimiter_line(&mut self) -> Result<Option<usize>, Fault> {
        const COMMAND: &[u8] = b"DELIMITER";
        let rest = self.cursor.rest();
        let is_command = rest.get(..COMMAND.len()).is_some_and(|word| word.eq_ignore_ascii_case(COMMAND))
            && rest.get(COMMAND.len()).is_none_or(|byte| is_space(*byte));
        if !is_command {
            return Ok(None);
        }
        let at = self.cursor.at();
        let line = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
        let argument = line[COMMAND.len()..].split(|byte| is_space(*byte)).find(|field| !field.is_empty());
        let delimiter = match argument {
            Some([quote @ (b'\'' | b'"' | b'`'), inner @ .., last]) if quote == last => inner,
            Some(argument) => argument,
            None => b"",
        };
        if delimiter.is_empty() {
            return Err(Fault { at, kind: FaultKind::EmptyDelimiter });
        }
        self.cursor.set_delimiter(delimiter);
        Ok(Some(at + line.len()))
    }

    /// The place of a `DELIMITER ;` line whose semicolon is at `at`, inside a statement that another delimiter should have ended.
    fn forgotten_delimiter(&self, at: usize) -> Option<usize> {
        const COMMAND: &[u8] = b"DELIMITER";
        let bytes = self.text.as_bytes();
        let before = bytes[at.saturating_sub(64)..at].trim_ascii_end();
        let command = before.len().checked_sub(COMMAND.len())?;
        let starts_line = before[..command].iter().rev().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b'\n');
        let ends_line =
            bytes[at + 1..].iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r')).is_none_or(|byte| *byte == b'\n');
        (before[command..].eq_ignore_ascii_case(COMMAND) && starts_line && ends_line)
            .then(|| at.saturating_sub(64) + command)
            .filter(|_| self.dialect == Dialect::MySql)
    }
}

/// True for COPY ... FROM STDIN, judged by its words outside parentheses.
fn copies_from_stdin(cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
    let mut depth = 0_usize;
    let mut after_from = false;
    loop {
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::End | TokenKind::Byte(b';') => return Ok(false),
            TokenKind::Byte(b'(') => depth += 1,
            TokenKind::Byte(b')') => depth = depth.saturating_sub(1),
            TokenKind::Word if depth == 0 && after_from && cursor.keyword(token).as_str() == "STDIN" => return Ok(true),
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
        after_from = cursor.keyword(token).as_str() == "FROM";
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
pub(super) mod tests;
