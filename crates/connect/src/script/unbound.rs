//! Placeholders that no value is given for: to the server they are a mistake at best. SQLite would number them among the others, so
//! that a misspelt name takes the value of another.

use super::bind::{begins_name, is_name_byte};
use super::fault::Fault;
use super::lexer::{Cursor, Keyword, TokenKind};
use super::place::Place;
use super::{Dialect, SplitError, Statement};
use crate::settings::closest;
use std::ops::Range;

/// A placeholder that no value is given for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unbound {
    /// As it is written: `:day`, and with SQLite also `@day`, `$day`, `?`, `?1`.
    pub written: String,
    /// Where it stands in the script; from 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    /// In bytes of the script.
    pub offset: usize,
}

impl Unbound {
    /// The known name that was probably meant.
    pub fn meant<'k>(&self, known: &[&'k str]) -> Option<&'k str> {
        let name = self.written.get(1..).filter(|name| !name.is_empty())?;
        known.iter().copied().find(|known| known.eq_ignore_ascii_case(name)).or_else(|| closest(name, known))
    }

    /// What is wrong and what to do, where values have these names.
    pub fn into_error(self, known: &[&str]) -> SplitError {
        let hint = match self.meant(known) {
            Some(near) => format!("did you mean `:{near}`?"),
            None if self.written.starts_with(':') => {
                "give it a value in `parameters`; a colon that belongs to a text stands in quotes".to_owned()
            }
            None => "values have names, with a colon: write `:name`, and give `name` a value in `parameters`".to_owned(),
        };
        let what = match self.written.starts_with('?') {
            true => format!("`{}` has no value", self.written),
            false => format!("`{}` has no value: no parameter has this name", self.written),
        };
        SplitError { what, line: self.line, column: self.column, offset: self.offset, hint: Some(hint) }
    }
}

/// The placeholders of a statement that have no value, in order: every `:name` that is not known, and with SQLite all that it takes
/// for one. Quotes, comments, `::`, `:=`, subscripts (`v[x :y]`), JSON_OBJECT's `key :value`, labels (`again :LOOP`) and `:NEW.x` of
/// triggers hold none.
///
/// # Errors
/// When a quote or comment of the statement is never closed.
pub fn unbound(
    dialect: Dialect,
    text: &str,
    statement: &Statement,
    known: &dyn Fn(&str) -> bool,
) -> Result<Vec<Unbound>, SplitError> {
    let sql = text.get(statement.text.clone()).unwrap_or_default();
    let bytes = sql.as_bytes();
    // Nothing to read where there is no sign of one, which is most statements.
    let has_sign = match dialect {
        Dialect::Sqlite => memchr::memchr3(b':', b'@', b'$', bytes).or_else(|| memchr::memchr(b'?', bytes)).is_some(),
        Dialect::PostgreSql | Dialect::MySql | Dialect::SqlServer | Dialect::Oracle | Dialect::Generic => {
            memchr::memchr(b':', bytes).is_some()
        }
    };
    if !has_sign {
        return Ok(Vec::new());
    }
    let found = match dialect {
        Dialect::Sqlite => of_sqlite(sql, known),
        Dialect::PostgreSql | Dialect::MySql | Dialect::SqlServer | Dialect::Oracle | Dialect::Generic => {
            of_others(dialect, sql, known)
        }
    };
    let place_of = |offset: usize| {
        let mut place = Place::beginning(statement.line, statement.column);
        place.advance(bytes, offset);
        (place.line, place.column, statement.text.start + offset)
    };
    let found = found.map_err(|fault| {
        let (line, column, offset) = place_of(fault.at);
        SplitError { line, column, offset, ..fault.into_error(sql) }
    })?;
    let told = |range: Range<usize>| {
        let (line, column, offset) = place_of(range.start);
        Unbound { written: sql[range].to_owned(), line, column, offset }
    };
    Ok(found.into_iter().map(told).collect())
}

/// All that SQLite takes for a placeholder: it looks at nothing but the sign and what follows it.
fn of_sqlite(sql: &str, known: &dyn Fn(&str) -> bool) -> Result<Vec<Range<usize>>, Fault> {
    let bytes = sql.as_bytes();
    let mut cursor = Cursor::new(Dialect::Sqlite, sql);
    let mut found = Vec::new();
    loop {
        let token = cursor.next_token()?;
        let sign = match token.kind {
            TokenKind::End => return Ok(found),
            TokenKind::Byte(sign @ (b':' | b'@' | b'$' | b'?')) => sign,
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => continue,
        };
        let belongs = |byte: &&u8| if sign == b'?' { byte.is_ascii_digit() } else { is_name_byte(**byte) || **byte == b'$' };
        let end = token.end + bytes[token.end..].iter().take_while(belongs).count();
        if sign != b'?' && end == token.end {
            continue;
        }
        let is_bound = sign == b':' && begins_name(bytes, token.start) && known(&sql[token.end..end]);
        if !is_bound {
            found.push(token.start..end);
        }
        cursor.jump(end);
    }
}

/// An open bracket, as far as a colon in it may mean something else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Parenthesis,
    /// `JSON_OBJECT(`, where a colon may stand between a key and its value.
    JsonObject,
    /// `v[`, where a colon stands between bounds.
    Subscript,
    /// `ARRAY[`, and those within.
    Array,
}

fn of_others(dialect: Dialect, sql: &str, known: &dyn Fn(&str) -> bool) -> Result<Vec<Range<usize>>, Fault> {
    let bytes = sql.as_bytes();
    let mut cursor = Cursor::new(dialect, sql);
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut before = 0..0;
    loop {
        let token = cursor.next_token()?;
        match token.kind {
            TokenKind::End => return Ok(found),
            TokenKind::Byte(b'(') => {
                let is_json = matches!(Keyword::new(&bytes[before]).as_str(), "JSON_OBJECT" | "JSON_OBJECTAGG");
                open.push(if is_json { Open::JsonObject } else { Open::Parenthesis });
            }
            TokenKind::Byte(b'[') => {
                let is_within = matches!(&bytes[before.clone()], b"[" | b",") && open.last() == Some(&Open::Array);
                let is_array = is_within || Keyword::new(&bytes[before]).as_str() == "ARRAY";
                open.push(if is_array { Open::Array } else { Open::Subscript });
            }
            TokenKind::Byte(b')' | b']') => drop(open.pop()),
            TokenKind::Byte(b':') if matches!(bytes.get(token.end), Some(b':' | b'=')) => cursor.jump(token.end + 1),
            TokenKind::Byte(b':') if begins_name(bytes, token.start) => {
                let end = token.end + bytes[token.end..].iter().take_while(|byte| is_name_byte(**byte)).count();
                let is_other = open.contains(&Open::Subscript)
                    || open.last() == Some(&Open::JsonObject)
                    || is_word_of_a_body(dialect, &bytes[token.end..end], bytes.get(end).copied());
                if !is_other && !known(&sql[token.end..end]) {
                    found.push(token.start..end);
                }
                cursor.jump(end);
            }
            TokenKind::Word | TokenKind::Number | TokenKind::Quoted | TokenKind::Byte(_) => {}
        }
        before = token.start..token.end;
    }
}

/// A label's colon before the word that it labels, or a row of a trigger.
fn is_word_of_a_body(dialect: Dialect, name: &[u8], next: Option<u8>) -> bool {
    match dialect {
        Dialect::MySql | Dialect::Oracle => match Keyword::new(name).as_str() {
            "BEGIN" | "LOOP" | "WHILE" | "REPEAT" | "FOR" => dialect == Dialect::MySql,
            "NEW" | "OLD" => next == Some(b'.'),
            _ => false,
        },
        Dialect::PostgreSql | Dialect::Sqlite | Dialect::SqlServer | Dialect::Generic => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    #[track_caller]
    fn check(dialect: Dialect, script: &str, expected: &str) {
        let mut told = Vec::new();
        for statement in split(dialect, script).unwrap() {
            for found in unbound(dialect, script, &statement, &|name| matches!(name, "a" | "b" | "été")).unwrap() {
                assert!(script[found.offset..].starts_with(&found.written), "{found:?}");
                told.push(format!("{}:{} {}", found.line, found.column, found.written));
            }
        }
        assert_eq!(told.join(", "), expected, "{script}");
    }

    #[test]
    fn a_name_without_a_value_is_found() {
        for dialect in [Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::Generic] {
            check(dialect, "SELECT :a, (:été), :b", "");
            check(dialect, "SELECT 1;\n SELECT 'é', :dya, :a;\nSELECT :A", "2:14 :dya, 3:8 :A");
            check(dialect, "SELECT ':x', -- :x\n /* :x */ \":x\"", "");
        }
        check(Dialect::PostgreSql, "SELECT :x::date, ARRAY[:y, :a], ARRAY[[1], [:z]], x=:n", "1:8 :x, 1:24 :y, 1:45 :z, 1:53 :n");
    }

    #[test]
    fn what_only_looks_like_one_is_not() {
        let none = |dialect, sql: &str| check(dialect, sql, "");
        none(
            Dialect::PostgreSql,
            "SELECT x::y, x ::y[], v[1:2], v[x:y], v[:y], v[ x :y ], v[f(x) :y], $$:x$$, $t$ :x $t$, E'\\':x'",
        );
        none(Dialect::PostgreSql, "SELECT JSON_OBJECT('k' :v, 'l': w), json_object(k :v)");
        none(Dialect::PostgreSql, "SELECT j ? 'k', $1, j @> '{}'");
        none(Dialect::MySql, "SELECT @x:=y, @x :=y, `:x`, ? # :x");
        none(Dialect::MySql, "CREATE PROCEDURE p() BEGIN again :LOOP LEAVE again; END LOOP; END");
        none(Dialect::Oracle, "SELECT :NEW.x, :old.y FROM dual");
        check(Dialect::PostgreSql, "COPY t FROM STDIN;\n:x\n\\.\nSELECT :x", "4:8 :x");
    }

    #[test]
    fn sqlite_sees_more() {
        check(Dialect::Sqlite, "SELECT @a, $a, ?, ?12, :1, :a", "1:8 @a, 1:12 $a, 1:16 ?, 1:19 ?12, 1:24 :1");
        check(Dialect::Sqlite, "SELECT CASE WHEN 1 THEN:a END, x:y", "1:24 :a, 1:33 :y");
        check(Dialect::Sqlite, "SELECT [:x], `@x`, '?', \"$x\", a$b -- ?", "");
    }
}
