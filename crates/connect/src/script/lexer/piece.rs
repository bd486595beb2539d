//! Where a quote or a comment ends.

use super::super::fault::{Fault, FaultKind};
use super::rules::Brackets;
use super::{Cursor, is_space, is_word_start};
use memchr::{memchr, memchr2, memmem};

/// A run of bytes that belong together, with where it ends.
pub(super) enum Piece {
    /// Not a quote and not a comment.
    Code(usize),
    /// The bounds of a MySQL /*! */ comment: code for people, nothing for the grammar.
    Bracket(usize),
    Comment(usize),
    Quoted(usize),
}

impl Cursor<'_> {
    /// Reads the quote or comment that the opener under the cursor begins, if it does. The cursor does not move.
    pub(super) fn piece(&mut self, byte: u8) -> Result<Piece, Fault> {
        let at = self.standing.at;
        let next = self.byte(at + 1);
        match byte {
            b'\'' => self.string(at).map(Piece::Quoted).ok_or(Fault { at, kind: FaultKind::String }),
            b'"' if self.rules.backslash => closed(self.close_escaped(at + 1, b'"'), at, FaultKind::String),
            b'"' => closed(self.close_doubled(at + 1, b'"'), at, FaultKind::Identifier),
            b'`' if self.rules.backtick => closed(self.close_doubled(at + 1, b'`'), at, FaultKind::Identifier),
            b'[' if self.rules.brackets == Brackets::Plain => {
                closed(memchr(b']', &self.bytes[at..]).map(|length| at + length + 1), at, FaultKind::Identifier)
            }
            b'[' if self.rules.brackets == Brackets::Doubled => {
                closed(self.close_doubled(at + 1, b']'), at, FaultKind::Identifier)
            }
            b'#' if self.rules.mysql => Ok(Piece::Comment(self.line_end(at))),
            b'-' if next == Some(b'-') && self.dashes_are_a_comment(at) => Ok(Piece::Comment(self.line_end(at))),
            b'/' if next == Some(b'*') => self.block_comment(at),
            b'*' if next == Some(b'/') && self.standing.version_comment.is_some() => {
                self.standing.version_comment = None;
                Ok(Piece::Bracket(at + 2))
            }
            b'$' if self.rules.postgresql => self.dollar(at),
            _ => Ok(Piece::Code(at + 1)),
        }
    }

    /// The end of the string whose first quote is at `at`, by the letter before it.
    fn string(&self, at: usize) -> Option<usize> {
        if self.rules.backslash {
            return self.close_escaped(at + 1, b'\'');
        }
        if self.rules.postgresql && self.has_prefix(at, b'e') {
            return self.escape_string(at);
        }
        if self.rules.q_quotes && (self.has_prefix(at, b'q') || self.has_prefix_pair(at)) {
            let opener = std::str::from_utf8(&self.bytes[at + 1..]).ok()?.chars().next()?;
            if !opener.is_whitespace() && opener != '\'' {
                return self.q_quote(at + 1, opener);
            }
        }
        self.close_doubled(at + 1, b'\'')
    }

    /// PostgreSQL carries an E'..' string on after white space with a line end in it, backslashes included.
    fn escape_string(&self, at: usize) -> Option<usize> {
        let mut end = self.close_escaped(at + 1, b'\'')?;
        loop {
            let mut ahead = end;
            let mut new_line = false;
            loop {
                match self.byte(ahead) {
                    Some(byte) if is_space(byte) => {
                        new_line |= byte == b'\n' || byte == b'\r';
                        ahead += 1;
                    }
                    Some(b'-') if self.byte(ahead + 1) == Some(b'-') => ahead = self.line_end(ahead),
                    Some(_) | None => break,
                }
            }
            if !new_line || self.byte(ahead) != Some(b'\'') {
                return Some(end);
            }
            end = self.close_escaped(ahead + 1, b'\'')?;
        }
    }

    /// The opener of a q-quote may be any character; a bracket is closed by its partner.
    fn q_quote(&self, at: usize, opener: char) -> Option<usize> {
        let closer = match opener {
            '[' => ']',
            '{' => '}',
            '(' => ')',
            '<' => '>',
            other => other,
        };
        let mut needle = [0; 5];
        let length = closer.encode_utf8(&mut needle).len();
        needle[length] = b'\'';
        let from = at + opener.len_utf8();
        memmem::find(&self.bytes[from..], &needle[..=length]).map(|found| from + found + length + 1)
    }

    /// True when the letter stands alone before the quote.
    fn has_prefix(&self, at: usize, letter: u8) -> bool {
        at > self.standing.floor
            && self.bytes[at - 1].eq_ignore_ascii_case(&letter)
            && (at - 1 == self.standing.floor || !self.is_word_byte(self.bytes[at - 2]))
    }

    /// True when `nq` stands before the quote.
    fn has_prefix_pair(&self, at: usize) -> bool {
        at > self.standing.floor + 1 && self.bytes[at - 1].eq_ignore_ascii_case(&b'q') && self.has_prefix(at - 1, b'n')
    }

    fn close_doubled(&self, mut from: usize, quote: u8) -> Option<usize> {
        loop {
            let end = from + memchr(quote, self.bytes.get(from..)?)? + 1;
            if self.byte(end) != Some(quote) {
                return Some(end);
            }
            from = end + 1;
        }
    }

    fn close_escaped(&self, mut from: usize, quote: u8) -> Option<usize> {
        loop {
            let found = from + memchr2(quote, b'\\', self.bytes.get(from..)?)?;
            if self.bytes[found] == quote && self.byte(found + 1) != Some(quote) {
                return Some(found + 1);
            }
            // A backslash hides the next byte, and a doubled quote stands for itself.
            from = found + 2;
        }
    }

    fn line_end(&self, at: usize) -> usize {
        let rest = &self.bytes[at..];
        let length = if self.rules.postgresql { memchr2(b'\n', b'\r', rest) } else { memchr(b'\n', rest) };
        length.map_or(self.bytes.len(), |length| at + length)
    }

    fn dashes_are_a_comment(&self, at: usize) -> bool {
        !self.rules.mysql || self.byte(at + 2).is_none_or(|byte| byte == b' ' || byte.is_ascii_control())
    }

    fn block_comment(&mut self, at: usize) -> Result<Piece, Fault> {
        if self.rules.mysql
            && self.standing.version_comment.is_none()
            && let Some(end) = self.version_comment_head(at)
        {
            self.standing.version_comment = Some(at);
            return Ok(Piece::Bracket(end));
        }
        let end = if self.rules.nested_comments { self.close_nested(at) } else { self.close_comment(at + 2) };
        end.map(Piece::Comment).ok_or(Fault { at, kind: FaultKind::Comment })
    }

    fn close_comment(&self, from: usize) -> Option<usize> {
        memmem::find(self.bytes.get(from..)?, b"*/").map(|found| from + found + 2)
    }

    fn close_nested(&self, at: usize) -> Option<usize> {
        let mut depth = 1_usize;
        let mut from = at + 2;
        loop {
            let found = from + memchr2(b'/', b'*', self.bytes.get(from..)?)?;
            match (self.bytes[found], self.byte(found + 1)) {
                (b'*', Some(b'/')) if depth == 1 => return Some(found + 2),
                (b'*', Some(b'/')) => depth -= 1,
                (b'/', Some(b'*')) => depth += 1,
                _ => {
                    from = found + 1;
                    continue;
                }
            }
            from = found + 2;
        }
    }

    /// Where the code of /*! begins: after its version number. `None` for a comment, and for the version number that no server has
    /// reached, with which MariaDB's dumps hide commands of their own client.
    fn version_comment_head(&self, at: usize) -> Option<usize> {
        let rest = &self.bytes[at + 2..];
        let mark = if rest.starts_with(b"!") {
            1
        } else if rest.starts_with(b"M!") {
            2
        } else {
            return None;
        };
        let digits = rest[mark..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
        let version = &rest[mark..mark + digits];
        (version != b"999999").then_some(at + 2 + mark + digits)
    }

    /// A dollar sign: inside an identifier, before a tag, or on its own (`$1`).
    fn dollar(&mut self, at: usize) -> Result<Piece, Fault> {
        let before = self.bytes[self.standing.floor..at].iter().rev().take_while(|byte| self.is_word_byte(**byte)).count();
        if before > 0 && is_word_start(self.bytes[at - before]) {
            return Ok(Piece::Code(self.run_end(at, |byte| self.is_word_byte(byte))));
        }
        let tag_end = match self.byte(at + 1) {
            Some(byte) if is_word_start(byte) => self.run_end(at + 1, |byte| is_word_start(byte) || byte.is_ascii_digit()),
            Some(_) | None => at + 1,
        };
        if self.byte(tag_end) != Some(b'$') {
            // Nothing looks back past this byte again, which keeps a long run of digits and dollars linear.
            self.standing.floor = at + 1;
            return Ok(Piece::Code(at + 1));
        }
        let tag = &self.bytes[at..=tag_end];
        let body = tag_end + 1;
        let end = memmem::find(&self.bytes[body..], tag).map(|found| body + found + tag.len());
        closed(end, at, FaultKind::DollarQuote)
    }
}

fn closed(end: Option<usize>, at: usize, kind: FaultKind) -> Result<Piece, Fault> {
    end.map(Piece::Quoted).ok_or(Fault { at, kind })
}
