//! Byte scanning that all dialects share: what is code, what is a quote, what is a comment.
//!
//! A [`Cursor`] goes through a text in one of two gaits. [`Cursor::next_structural`] leaps over everything that cannot end a
//! statement, and is what makes splitting fast; [`Cursor::next_token`] stops at every token, for the few statements whose words
//! matter. Both read quotes and comments through `piece`, so that they cannot disagree about them; `rules` holds what tells the dialects
//! apart.
//!
//! Every byte that means something here is ASCII, so an offset that the cursor hands out is always on a character boundary.

mod piece;
mod rules;

use super::Dialect;
use super::fault::{Fault, FaultKind};
use piece::Piece;
use rules::{Classes, DELIMITER, OPENER, ORDINARY, Rules, STRUCTURAL, classes, rules};
use std::borrow::Cow;

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
