//! What tells the dialects apart for the cursor: their quotes and comments, and what each byte may therefore mean.

use super::super::Dialect;

/// How a dialect ends an identifier in brackets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Brackets {
    /// A bracket is an ordinary byte (an array subscript).
    None,
    /// The first `]` ends it.
    Plain,
    /// `]]` stands for one `]`.
    Doubled,
}

/// What tells the dialects apart for the cursor.
pub(super) struct Rules {
    /// A backslash escapes the next byte in '..' and "..".
    pub(super) backslash: bool,
    /// E'..' has backslashes, $tag$ quotes exist, a carriage return ends a `--` comment.
    pub(super) postgresql: bool,
    /// q'[..]' quotes exist.
    pub(super) q_quotes: bool,
    /// Block comments nest.
    pub(super) nested_comments: bool,
    /// `#` begins a comment, `--` does only before white space, /*! */ is code.
    pub(super) mysql: bool,
    /// `..` is an identifier.
    pub(super) backtick: bool,
    pub(super) brackets: Brackets,
    /// Bytes that belong to a word besides letters, digits and `_`.
    pub(super) word_bytes: &'static [u8],
    /// What ends a statement, as long as no DELIMITER says otherwise.
    pub(super) delimiter: &'static [u8],
    /// Other bytes at which the splitter wants to be stopped.
    pub(super) structural: &'static [u8],
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
pub(super) fn rules(dialect: Dialect) -> &'static (Rules, Classes) {
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
pub(super) const ORDINARY: u8 = 0;
/// It may open a quote or a comment.
pub(super) const OPENER: u8 = 1;
/// The splitter wants to see it.
pub(super) const STRUCTURAL: u8 = 2;
/// The first byte of the delimiter, which may be an opener too.
pub(super) const DELIMITER: u8 = 3;

/// What each byte may mean.
pub(super) type Classes = [u8; 256];

pub(super) const fn classes(rules: &Rules, delimiter: &[u8]) -> Classes {
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
