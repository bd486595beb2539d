//! Named values in a statement: `:name` to the placeholders of the database.

use super::fault::{Fault, FaultKind};
use super::lexer::{Cursor, TokenKind, is_word_start};
use super::{Dialect, SplitError};
use std::fmt::Write as _;
use std::ops::Range;

/// A statement whose named values have become placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The statement in the database's own notation.
    pub sql: String,
    /// The names whose values to bind, in the order of the placeholders. Where a database's placeholders have numbers, a name that
    /// is used twice is here once.
    pub names: Vec<String>,
}

/// Rewrites each `:name` that is known, outside quotes and comments, into a placeholder of the dialect: `$1` (PostgreSQL), `?1`
/// (SQLite), `@P1` (SQL Server), `:1` (Oracle), `?` (all others). A name that is not known stays as it is.
///
/// A colon after a letter, a digit or a closing bracket or quote begins no name (`'$.a':b`, `data[1:n]`), nor does one of `::` or
/// `:=`.
///
/// # Errors
/// When a quote or comment of the statement is never closed, or when it has positional placeholders (`$1`, `?`) beside known names.
pub fn bind_names(dialect: Dialect, sql: &str, known: &dyn Fn(&str) -> bool) -> Result<Bound, SplitError> {
    // Nothing to read where there is no colon, which is most statements.
    if memchr::memchr(b':', sql.as_bytes()).is_none() {
        return Ok(Bound { sql: sql.to_owned(), names: Vec::new() });
    }
    let found = places(dialect, sql).map_err(|fault| fault.into_error(sql))?;
    let mut bound = Bound { sql: String::with_capacity(sql.len()), names: Vec::new() };
    let mut copied = 0;
    for place in found.names {
        let name = &sql[place.start + 1..place.end];
        if !known(name) {
            continue;
        }
        if let Some(at) = found.positional {
            return Err(Fault { at, kind: FaultKind::MixedPlaceholders }.into_error(sql));
        }
        bound.sql.push_str(&sql[copied..place.start]);
        copied = place.end;
        let number = match bound.names.iter().position(|earlier| earlier == name) {
            Some(earlier) if has_numbers(dialect) => earlier + 1,
            Some(_) | None => {
                bound.names.push(name.to_owned());
                bound.names.len()
            }
        };
        write_placeholder(dialect, number, &mut bound.sql);
    }
    bound.sql.push_str(&sql[copied..]);
    Ok(bound)
}

/// Where names and placeholders stand.
struct Places {
    /// With their colon.
    names: Vec<Range<usize>>,
    /// The first placeholder without a name.
    positional: Option<usize>,
}

fn places(dialect: Dialect, sql: &str) -> Result<Places, Fault> {
    let bytes = sql.as_bytes();
    let mut cursor = Cursor::new(dialect, sql);
    let mut places = Places { names: Vec::new(), positional: None };
    loop {
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::End => return Ok(places),
            TokenKind::Byte(b':') => {
                if matches!(bytes.get(token.end), Some(b':' | b'=')) {
                    cursor.jump(token.end + 1);
                } else if begins_name(bytes, token.start) {
                    let length = bytes[token.end..].iter().take_while(|byte| is_name_byte(**byte)).count();
                    places.names.push(token.start..token.end + length);
                    cursor.jump(token.end + length);
                }
            }
            TokenKind::Byte(b'$') if dialect == Dialect::PostgreSql && bytes.get(token.end).is_some_and(u8::is_ascii_digit) => {
                places.positional = places.positional.or(Some(token.start));
            }
            TokenKind::Byte(b'?') if matches!(dialect, Dialect::MySql | Dialect::Sqlite | Dialect::Generic) => {
                places.positional = places.positional.or(Some(token.start));
            }
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
    }
}

pub(super) fn begins_name(bytes: &[u8], colon: usize) -> bool {
    let joined = colon.checked_sub(1).is_some_and(|before| {
        is_name_byte(bytes[before]) || matches!(bytes[before], b')' | b']' | b'\'' | b'"' | b'`' | b'$' | b':')
    });
    !joined && bytes.get(colon + 1).copied().is_some_and(is_word_start)
}

pub(super) fn is_name_byte(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit()
}

/// Whether placeholders have numbers, so that one value can stand in several places.
fn has_numbers(dialect: Dialect) -> bool {
    match dialect {
        Dialect::PostgreSql | Dialect::Sqlite | Dialect::SqlServer | Dialect::Oracle => true,
        Dialect::MySql | Dialect::Generic => false,
    }
}

fn write_placeholder(dialect: Dialect, number: usize, sql: &mut String) {
    let sign = match dialect {
        Dialect::PostgreSql => "$",
        Dialect::Sqlite => "?",
        Dialect::SqlServer => "@P",
        Dialect::Oracle => ":",
        Dialect::MySql | Dialect::Generic => return sql.push('?'),
    };
    // Writing to a String cannot fail.
    let _ = write!(sql, "{sign}{number}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(dialect: Dialect, sql: &str, expected: &str) {
        let bound = bind_names(dialect, sql, &|name| matches!(name, "a" | "b" | "été"));
        let shown = match bound {
            Ok(bound) => format!("{} <- {}", bound.sql, bound.names.join(" ")),
            Err(error) => format!("{}:{}: {error}", error.line, error.column),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn known_names_become_placeholders() {
        check(Dialect::PostgreSql, "SELECT :a, :b, :a", "SELECT $1, $2, $1 <- a b");
        check(Dialect::Sqlite, "SELECT :a, :b, :a", "SELECT ?1, ?2, ?1 <- a b");
        check(Dialect::MySql, "SELECT :a, :b, :a", "SELECT ?, ?, ? <- a b a");
        check(Dialect::SqlServer, "SELECT :a, :b, :a", "SELECT @P1, @P2, @P1 <- a b");
        check(Dialect::Oracle, "SELECT :a, :b, :a", "SELECT :1, :2, :1 <- a b");
        check(Dialect::Generic, "SELECT :a, :b, :a", "SELECT ?, ?, ? <- a b a");
        check(Dialect::PostgreSql, "SELECT (:été)", "SELECT ($1) <- été");
        check(Dialect::PostgreSql, ":a", "$1 <- a");
    }

    #[test]
    fn what_only_looks_like_a_name_stays() {
        let same = |dialect, sql: &str| check(dialect, sql, &format!("{sql} <- "));
        same(Dialect::PostgreSql, "SELECT x::a, y::b[], :c, :ab, : a");
        same(Dialect::PostgreSql, "SELECT ':a', \":a\", E'\\':a', $$:a$$, $x$ :a $x$ -- :a\n/* :a /* :b */ :a */");
        same(Dialect::PostgreSql, "SELECT v[1:2], v[x:a], v[f(1):a], v[\"x\":b]");
        same(Dialect::MySql, "SELECT @x:=a, @x :=b, ':a', `:a`, \"\\\":a\" # :a\n-- :b");
        same(Dialect::SqlServer, "SELECT [:a]");
        same(Dialect::Sqlite, "SELECT [:a], `:b`");
        same(Dialect::Oracle, "SELECT q'[':a]' FROM dual");
        check(Dialect::PostgreSql, "SELECT :a::date, ARRAY[:a, :b]", "SELECT $1::date, ARRAY[$1, $2] <- a b");
        check(Dialect::MySql, "/*! SELECT :a */", "/*! SELECT ? */ <- a");
    }

    #[test]
    fn positional_and_named_do_not_mix() {
        check(Dialect::PostgreSql, "SELECT :a,\n $1", "2:2: this statement has positional placeholders beside named ones");
        check(Dialect::MySql, "SELECT ?, :a", "1:8: this statement has positional placeholders beside named ones");
        check(Dialect::PostgreSql, "SELECT $1, j ? 'k', :c", "SELECT $1, j ? 'k', :c <- ");
        check(Dialect::PostgreSql, "SELECT j ? :a", "SELECT j ? $1 <- a");
        check(Dialect::PostgreSql, "SELECT :a, 'x", "1:12: the string that begins here is never closed");
    }
}
