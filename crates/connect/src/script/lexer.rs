//! Byte scanning that all dialects share: what is code, what is a quote, what is a comment.
//!
//! A [`Cursor`] goes through a text in one of two gaits. [`Cursor::next_structural`] leaps over everything that cannot end a
//! statement, and is what makes splitting fast; [`Cursor::next_token`] stops at every token, for the few statements whose words
//! matter. Both read quotes and comments through [`Cursor::piece`], so that they cannot disagree about them.
//!
//! Every byte that means something here is ASCII, so an offset that the cursor hands out is always on a character boundary.

use super::Dialect;
use super::fault::{Fault, FaultKind};
use memchr::{memchr, memchr2, memmem};
use std::borrow::Cow;

/// How a dialect ends an identifier in brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brackets {
    /// A bracket is an ordinary byte (an array subscript).
    None,
    /// The first `]` ends it.
    Plain,
    /// `]]` stands for one `]`.
    Doubled,
}

/// What tells the dialects apart for the cursor.
struct Rules {
    /// A backslash escapes the next byte in '..' and "..".
    backslash: bool,
    /// E'..' has backslashes, $tag$ quotes exist, a carriage return ends a `--` comment.
    postgresql: bool,
    /// q'[..]' quotes exist.
    q_quotes: bool,
    /// Block comments nest.
    nested_comments: bool,
    /// `#` begins a comment, `--` does only before white space, /*! */ is code.
    mysql: bool,
    /// `..` is an identifier.
    backtick: bool,
    brackets: Brackets,
    /// Bytes that belong to a word besides letters, digits and `_`.
    word_bytes: &'static [u8],
    /// What ends a statement, as long as no DELIMITER says otherwise.
    delimiter: &'static [u8],
    /// Other bytes at which the splitter wants to be stopped.
    structural: &'static [u8],
}

const STANDARD: Rules = Rules {
    backslash: false,
    postgresql: false,
    q_quotes: false,
    nested_comments: false,
    mysql: false,
    backtick: false,
    brackets: Brackets::None,
    word_bytes: b"$",
    delimiter: b";",
    structural: b"",
};

const POSTGRESQL: Rules = Rules { postgresql: true, nested_comments: true, structural: b"\\", ..STANDARD };
const MYSQL: Rules = Rules { backslash: true, mysql: true, backtick: true, ..STANDARD };
const SQLITE: Rules = Rules { backtick: true, brackets: Brackets::Plain, ..STANDARD };
const SQL_SERVER: Rules = Rules {
    nested_comments: true,
    brackets: Brackets::Doubled,
    word_bytes: b"$#@",
    delimiter: b"",
    structural: b"\n",
    ..STANDARD
};
const ORACLE: Rules = Rules { q_quotes: true, word_bytes: b"$#", structural: b"\n", ..STANDARD };

/// The rules of a dialect, with the classes of all bytes under its own delimiter.
fn rules(dialect: Dialect) -> &'static (Rules, Classes) {
    match dialect {
        Dialect::PostgreSql => const { &(POSTGRESQL, classes(&POSTGRESQL, b";")) },
        Dialect::MySql => const { &(MYSQL, classes(&MYSQL, b";")) },
        Dialect::Sqlite => const { &(SQLITE, classes(&SQLITE, b";")) },
        Dialect::SqlServer => const { &(SQL_SERVER, classes(&SQL_SERVER, b"")) },
        Dialect::Oracle => const { &(ORACLE, classes(&ORACLE, b";")) },
        Dialect::Generic => const { &(STANDARD, classes(&STANDARD, b";")) },
    }
}

/// The cursor passes over it.
const ORDINARY: u8 = 0;
/// It may open a quote or a comment.
const OPENER: u8 = 1;
/// The splitter wants to see it.
const STRUCTURAL: u8 = 2;
/// The first byte of the delimiter, which may be an opener too.
const DELIMITER: u8 = 3;

/// What each byte may mean.
type Classes = [u8; 256];

const fn classes(rules: &Rules, delimiter: &[u8]) -> Classes {
    let mut classes = [ORDINARY; 256];
    mark(&mut classes, b"'\"-/", OPENER);
    if rules.postgresql {
        mark(&mut classes, b"$", OPENER);
    }
    if rules.mysql {
        mark(&mut classes, b"#*", OPENER);
    }
    if rules.backtick {
        mark(&mut classes, b"`", OPENER);
    }
    if !matches!(rules.brackets, Brackets::None) {
        mark(&mut classes, b"[", OPENER);
    }
    mark(&mut classes, rules.structural, STRUCTURAL);
    // With another delimiter a semicolon is still of interest: it may be what a forgotten `DELIMITER ;` line ends with.
    mark(&mut classes, rules.delimiter, STRUCTURAL);
    if let Some(first) = delimiter.first() {
        classes[*first as usize] = DELIMITER;
    }
    classes
}

const fn mark(classes: &mut Classes, bytes: &[u8], class: u8) {
    let mut at = 0;
    while at < bytes.len() {
        classes[bytes[at] as usize] = class;
        at += 1;
    }
}

/// A run of bytes that belong together, with where it ends.
enum Piece {
    /// Not a quote and not a comment.
    Code(usize),
    /// The bounds of a MySQL /*! */ comment: code for people, nothing for the grammar.
    Bracket(usize),
    Comment(usize),
    Quoted(usize),
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword or a bare identifier.
    Word,
    /// It begins with a digit.
    Number,
    /// A string, a quoted identifier or a dollar-quoted body.
    Quoted,
    /// Any other single byte (for a byte outside ASCII, its whole run is a word).
    Byte(u8),
    /// The text is over.
    End,
}

/// A token and its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Where a cursor stands, to come back to after looking ahead.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    at: usize,
    floor: usize,
    code_from: usize,
    token_end: usize,
    version_comment: Option<usize>,
}

/// Goes through a text by the rules of a dialect.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    rules: &'static Rules,
    /// Owned only under a delimiter that the script has set.
    classes: Cow<'static, Classes>,
    delimiter: &'a [u8],
    standing: Standing,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(dialect: Dialect, text: &'a str) -> Self {
        let (rules, classes) = rules(dialect);
        let standing = Standing { at: 0, floor: 0, code_from: 0, token_end: 0, version_comment: None };
        Self { bytes: text.as_bytes(), rules, classes: Cow::Borrowed(classes), delimiter: rules.delimiter, standing }
    }

    /// Makes `delimiter` what ends a statement from here on.
    pub(super) fn set_delimiter(&mut self, delimiter: &'a [u8]) {
        self.delimiter = delimiter;
        self.classes = Cow::Owned(classes(self.rules, delimiter));
    }

    pub(super) fn delimiter(&self) -> &'a [u8] {
        self.delimiter
    }

    /// True where the delimiter stands at the cursor.
    pub(super) fn at_delimiter(&self) -> bool {
        !self.delimiter.is_empty() && self.standing.version_comment.is_none() && self.rest().starts_with(self.delimiter)
    }

    /// The offset of the next byte to be read.
    pub(super) fn at(&self) -> usize {
        self.standing.at
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.standing.at..]
    }

    /// Where the last token ended that the cursor went over.
    pub(super) fn token_end(&self) -> usize {
        self.standing.token_end
    }

    /// Goes to `at`, which begins something new: what was before it is not looked back at.
    pub(super) fn jump(&mut self, at: usize) {
        self.standing.at = at;
        self.standing.floor = at;
        self.standing.code_from = at;
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    pub(super) fn return_to(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Goes over white space and comments.
    pub(super) fn skip_blank(&mut self) -> Result<(), Fault> {
        loop {
            while self.byte(self.standing.at).is_some_and(is_space) {
                self.standing.at += 1;
            }
            self.standing.code_from = self.standing.at;
            let Some(byte) = self.byte(self.standing.at) else { return Ok(()) };
            if self.at_delimiter() || !matches!(byte, b'-' | b'/' | b'#') || self.classes[usize::from(byte)] == ORDINARY {
                return Ok(());
            }
            let before = self.standing;
            match self.piece(byte)? {
                Piece::Comment(end) => self.jump(end),
                Piece::Code(_) | Piece::Bracket(_) | Piece::Quoted(_) => {
                    self.standing = before;
                    return Ok(());
                }
            }
        }
    }

    /// Leaps to the next byte outside quotes and comments that may end a statement; the cursor stands on it.
    pub(super) fn next_structural(&mut self) -> Result<Option<u8>, Fault> {
        loop {
            let classes: &Classes = &self.classes;
            let ahead = self.rest().iter().position(|byte| classes[usize::from(*byte)] != ORDINARY);
            let Some(ahead) = ahead else {
                self.standing.at = self.bytes.len();
                self.count_code(self.standing.at);
                return self.end_of_text().map(|()| None);
            };
            self.standing.at += ahead;
            let byte = self.bytes[self.standing.at];
            let class = self.classes[usize::from(byte)];
            if self.standing.version_comment.is_none() && (class == STRUCTURAL || class == DELIMITER && self.at_delimiter()) {
                self.count_code(self.standing.at);
                return Ok(Some(byte));
            }
            let start = self.standing.at;
            match self.piece(byte)? {
                Piece::Code(end) | Piece::Bracket(end) => self.standing.at = end,
                Piece::Comment(end) => {
                    self.count_code(start);
                    self.jump(end);
                }
                Piece::Quoted(end) => {
                    self.jump(end);
                    self.standing.token_end = end;
                }
            }
        }
    }

    /// Steps over the structural byte under the cursor as a part of the statement.
    pub(super) fn take_byte(&mut self) {
        self.standing.at += 1;
    }

    /// Reads one token, whatever the delimiter is.
    pub(super) fn next_token(&mut self) -> Result<Token, Fault> {
        loop {
            while self.byte(self.standing.at).is_some_and(is_space) {
                self.standing.at += 1;
            }
            let start = self.standing.at;
            self.standing.code_from = start;
            let Some(byte) = self.byte(start) else {
                self.end_of_text()?;
                return Ok(Token { kind: TokenKind::End, start, end: start });
            };
            let (kind, end) = if byte.is_ascii_digit() {
                (TokenKind::Number, self.run_end(start, |byte| byte.is_ascii_alphanumeric() || byte == b'_'))
            } else if is_word_start(byte) || self.rules.word_bytes.contains(&byte) && byte != b'$' {
                (TokenKind::Word, self.run_end(start, |byte| self.is_word_byte(byte)))
            } else if matches!(self.classes[usize::from(byte)], OPENER | DELIMITER) {
                match self.piece(byte)? {
                    Piece::Comment(end) => {
                        self.jump(end);
                        continue;
                    }
                    Piece::Bracket(end) => {
                        self.jump(end);
                        self.standing.token_end = end;
                        continue;
                    }
                    Piece::Quoted(end) => (TokenKind::Quoted, end),
                    Piece::Code(end) => (TokenKind::Byte(byte), end),
                }
            } else {
                (TokenKind::Byte(byte), start + 1)
            };
            self.standing.at = end;
            self.standing.code_from = end;
            self.standing.token_end = end;
            if kind == TokenKind::Quoted {
                self.standing.floor = end;
            }
            return Ok(Token { kind, start, end });
        }
    }

    /// The bytes of a token.
    pub(super) fn bytes_of(&self, token: Token) -> &'a [u8] {
        &self.bytes[token.start..token.end]
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn run_end(&self, start: usize, belongs: impl Fn(u8) -> bool) -> usize {
        self.bytes[start..].iter().position(|byte| !belongs(*byte)).map_or(self.bytes.len(), |length| start + length)
    }

    fn is_word_byte(&self, byte: u8) -> bool {
        is_word_start(byte) || byte.is_ascii_digit() || self.rules.word_bytes.contains(&byte)
    }

    /// Takes note of where the code before `end` has its last token.
    fn count_code(&mut self, end: usize) {
        let code = self.bytes.get(self.standing.code_from..end).unwrap_or_default();
        if let Some(last) = code.iter().rposition(|byte| !is_space(*byte)) {
            self.standing.token_end = self.standing.code_from + last + 1;
        }
        self.standing.code_from = end;
    }

    fn end_of_text(&self) -> Result<(), Fault> {
        match self.standing.version_comment {
            Some(at) => Err(Fault { at, kind: FaultKind::Comment }),
            None => Ok(()),
        }
    }

    /// Reads the quote or comment that the opener under the cursor begins, if it does. The cursor does not move.
    fn piece(&mut self, byte: u8) -> Result<Piece, Fault> {
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

/// White space between tokens, in every dialect.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

/// True for what may begin an identifier; all bytes outside ASCII are letters, as the servers see it.
pub(super) fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// A word in upper case, to be matched against keywords without allocating.
#[derive(Clone, Copy)]
pub(super) struct Keyword {
    letters: [u8; 24],
    length: usize,
}

impl Keyword {
    /// No keyword is as long as what does not fit, so that becomes the empty word.
    pub(super) fn new(word: &[u8]) -> Self {
        let mut letters = [0; 24];
        let length = if word.len() <= letters.len() && word.is_ascii() { word.len() } else { 0 };
        letters[..length].copy_from_slice(&word[..length]);
        letters.make_ascii_uppercase();
        Self { letters, length }
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.letters[..self.length]).unwrap_or_default()
    }
}

impl Cursor<'_> {
    /// The keyword of a token; empty for what is not a word.
    pub(super) fn keyword(&self, token: Token) -> Keyword {
        match token.kind {
            TokenKind::Word => Keyword::new(self.bytes_of(token)),
            TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) | TokenKind::End => Keyword::new(b""),
        }
    }

    /// The keyword of the next token, without going there; empty when it is not a word or cannot be read.
    pub(super) fn peek_keyword(&mut self) -> Keyword {
        let standing = self.standing;
        let keyword = self.next_token().map_or(Keyword::new(b""), |token| self.keyword(token));
        self.standing = standing;
        keyword
    }
}
