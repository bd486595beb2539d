//! Secrets that stand within a line as programs and servers are given them: passwords in URIs, `PGPASSWORD=...` before a command,
//! `--password=...` behind it, `?token=...` in an address, `password=...` among the settings of a connection, `PASSWORD '...'` in SQL.
//!
//! It must not know what the file means. A plain `token = 'x'` is SQL or a comparison, and is left alone.

use super::literal::{MASK, is_literal, own_text};
use super::options;
use backstop_project::{MASKED_BYTES_MIN, is_secret_key};

/// How far before the `@` of a URI its `://` is looked for.
const USER_INFO_BYTES_MAX: usize = 4096;

/// Words of a shell, behind which a variable may be set.
const BEFORE_VARIABLES: [&str; 9] = ["export", "env", "declare", "local", "readonly", "then", "do", "else", "sudo"];

/// The line with such values masked. In Python a name without quotes is a variable.
pub(super) fn masked(line: &str, is_python: bool) -> String {
    let cleaned = each(line, |from| next(line, from, is_python));
    let cleaned = options::masked(&cleaned, MASK);
    each(&cleaned, |from| of_sql(&cleaned, from))
}

/// Masks one value after the other.
fn each(line: &str, next: impl Fn(usize) -> Option<(usize, usize)>) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut done = 0;
    while let Some((begin, end)) = next(done) {
        cleaned.push_str(&line[done..begin]);
        cleaned.push_str(MASK);
        done = end;
    }
    cleaned + &line[done..]
}

/// `PASSWORD 'x'` and `IDENTIFIED BY 'x'`: a literal right behind a word that says that it is secret.
fn of_sql(line: &str, from: usize) -> Option<(usize, usize)> {
    let mut at = from;
    loop {
        let quote = at + line[at..].find('\'')?;
        let before = &line[from..quote];
        let key = before.trim_end();
        let is_behind_word = key.len() < before.len();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let word = &key[key.trim_end_matches(is_word).len()..];
        let is_identified = word.eq_ignore_ascii_case("by") && ends_with_identified(key[..key.len() - word.len()].trim_end());
        if is_behind_word
            && (is_identified || is_secret_key(word))
            && let Some(found) = value_at(line, quote, 1)
        {
            return Some(found);
        }
        // Behind the text that begins here, whose quotes may be doubled.
        at = quote + 1;
        at += line[at..].find('\'').map_or(line.len() - at, |length| length + 1);
    }
}

fn ends_with_identified(before: &str) -> bool {
    const WORD: &str = "identified";
    let begin = before.len().saturating_sub(WORD.len());
    before.is_char_boundary(begin) && before[begin..].eq_ignore_ascii_case(WORD)
}

/// The first value to mask behind this place.
fn next(line: &str, from: usize, is_python: bool) -> Option<(usize, usize)> {
    let separators = line[from..].match_indices(['=', '@']).map(|(at, found)| (from + at, found));
    let values = separators.filter_map(|(at, found)| match found {
        "@" => of_uri(line, from, at),
        _ => assigned(line, from, at, is_python),
    });
    { values }.next()
}

/// The password before the `@` of a URI: `scheme://user:password@host`.
fn of_uri(line: &str, from: usize, at: usize) -> Option<(usize, usize)> {
    let before = &line[from..at];
    // A line may be long, and have many of these. What ends the search is one byte of ASCII, behind which a character begins.
    let nearest = &before.as_bytes()[before.len().saturating_sub(USER_INFO_BYTES_MAX)..];
    let length = nearest.iter().rev().position(|byte| b" \t/\"'<".contains(byte))?;
    let authority = at - length;
    if !line[from..authority].ends_with("://") {
        return None;
    }
    let user_info = &line[authority..at];
    let (user, password) = user_info.split_once(':')?;
    // A password may have an `@` of its own: the last one before the host ends it.
    let rest = &line[at..];
    let host = rest.find(['/', ' ', '\t', '"', '\'', '?']).unwrap_or(rest.len());
    let end = at + rest[..host].rfind('@').unwrap_or(0);
    let begin = authority + user.len() + 1;
    (!password.is_empty() && is_literal(&line[begin..end])).then_some((begin, end))
}

/// The value behind the `=` of a variable of the environment, of an option of a command, of a query of a URI, or of a setting of a connection.
fn assigned(line: &str, from: usize, at: usize, is_python: bool) -> Option<(usize, usize)> {
    let before = &line[from..at];
    let key = &before[before.trim_end_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-')).len()..];
    if !is_secret_key(key) {
        return None;
    }
    let outer = &before[..before.len() - key.len()];
    let is_variable = key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let is_option = key.starts_with("--");
    let is_query = outer.ends_with(['?', '&']);
    if is_variable || is_option || is_query {
        return value_at(line, at + 1, MASKED_BYTES_MIN);
    }
    let is_in_text = || outer.matches('"').count() % 2 == 1 || outer.matches('\'').count() % 2 == 1;
    if !begins_a_word(outer) || is_python && !is_in_text() {
        return None;
    }
    let (begin, end) = value_at(line, at + 1, MASKED_BYTES_MIN)?;
    let value = &line[begin..end];
    // A column of a table, a call: a value of SQL, and none that is written here.
    let is_bare = begin == at + 1;
    (!is_bare || !is_name_of_another(value)).then_some((begin, end))
}

/// Whether a shell would take what stands behind this for a variable, or a server for a setting: `host=db password=x`.
fn begins_a_word(outer: &str) -> bool {
    let before = outer.trim_end();
    if before.is_empty() || before.ends_with([':', ';', '&', '|', '"', '\'', '`']) {
        return true;
    }
    if before.len() == outer.len() {
        return false;
    }
    let word = before.rsplit(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).next().unwrap_or_default();
    let is_setting = word
        .split_once('=')
        .is_some_and(|(key, _)| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_') && !word.ends_with(','));
    is_setting || before.ends_with(" -") || before == "-" || BEFORE_VARIABLES.contains(&word)
}

/// `t.token`, `:password`, `read(x)`.
fn is_name_of_another(value: &str) -> bool {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_') && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    value.starts_with([':', '@', '?', '=', '%'])
        || value.contains('(')
        || value.split_once('.').is_some_and(|(table, column)| is_name(table) && is_name(column))
}

/// The value that stands here, without its quotes; of at least so many bytes of its own. `None` of what puts one in: `$NAME`,
/// `$(command)`, a template.
pub(super) fn value_at(line: &str, at: usize, bytes_min: usize) -> Option<(usize, usize)> {
    let value = &line[at..];
    let (quoted, inside) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => (1, value[1..].split(quote).next().unwrap_or_default()),
        Some(_) | None => (0, &value[..unquoted_end(value)]),
    };
    let begin = at + quoted;
    let is_given =
        if bytes_min >= MASKED_BYTES_MIN { is_literal(inside) } else { !own_text(inside).is_empty() && inside != MASK };
    (!inside.starts_with('$') && is_given).then_some((begin, begin + inside.len()))
}

/// Where a value ends that has no quotes. A template has blanks of its own.
fn unquoted_end(value: &str) -> usize {
    let mut from = 0;
    loop {
        let end = value[from..].find(UNQUOTED_END).map_or(value.len(), |length| from + length);
        let Some(open) = value[from..end].find("{{").map(|open| from + open) else { return end };
        let Some(close) = value[open..].find("}}") else { return end };
        from = open + close + 2;
    }
}

/// What ends a value that has no quotes.
const UNQUOTED_END: [char; 12] = [' ', '\t', '"', '\'', '&', ';', '|', ')', '`', ',', '}', ']'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_are_given_is_masked() {
        for (line, told) in [
            ("shell: psql postgres://ann:sword-fish@db:5432/shop", "shell: psql postgres://ann:***@db:5432/shop"),
            ("curl \"https://ann:a@bcde@h/x\" 'amqp://u:abcdef@q'", "curl \"https://ann:***@h/x\" 'amqp://u:***@q'"),
            ("PGPASSWORD=abcdef psql -h db", "PGPASSWORD=*** psql -h db"),
            ("export API_TOKEN='ab cdef'; run", "export API_TOKEN='***'; run"),
            ("mysql --password=abcdef --user=ann", "mysql --password=*** --user=ann"),
            ("curl https://h/?a=1&access_token=abcdef&b=2", "curl https://h/?a=1&access_token=***&b=2"),
            ("x_password=abcdef run", "x_password=*** run"),
            ("shell: export db_password='ab cdef'; run", "shell: export db_password='***'; run"),
            ("  - host=h api_token=abcdef run", "  - host=h api_token=*** run"),
            ("SELECT dblink('host=h user=u password=abcdef dbname=d')", "SELECT dblink('host=h user=u password=*** dbname=d')"),
            ("ALTER ROLE ann PASSWORD 'abcdef' VALID UNTIL 'x'", "ALTER ROLE ann PASSWORD '***' VALID UNTIL 'x'"),
            ("CREATE USER ann IDENTIFIED BY 'x'; SELECT 'a'", "CREATE USER ann IDENTIFIED BY '***'; SELECT 'a'"),
            ("OPTIONS (user 'ann', password 'abcdef')", "OPTIONS (user 'ann', password '***')"),
            ("ALTER ROLE ann PASSWORD 'abcd…", "ALTER ROLE ann PASSWORD '***"),
            ("shell: mysql -pabcdef -h db", "shell: mysql -p*** -h db"),
        ] {
            assert_eq!(masked(line, false), told);
        }
    }

    #[test]
    fn a_long_line_takes_no_longer_than_its_bytes() {
        // Looking back to the beginning for each of them would be hours.
        let addresses = "('ann@example.org'),".repeat(400_000) + &"a@".repeat(400_000);
        assert_eq!(masked(&addresses, false), addresses);
        let quoted = "('it''s','password', by 'x' db_password=:x),".repeat(100_000);
        assert_eq!(masked(&quoted, false), quoted);
    }

    #[test]
    fn what_is_no_secret_stays() {
        for line in [
            "PGPASSWORD=$PW psql",
            "PGPASSWORD=${PW} psql postgres://ann:${PW}@db/x postgres://ann@db:5432/x",
            "WHERE token=t.token AND api_key='abcdef' AND password=:password",
            "https://h:8080/a@b and ann@example.org",
            "mysql --password=\"{{ var.value.password }}\"",
            "PRIMARY_KEY=order_id",
            "x_password=$PW run; y_password=\"${PW}\" run",
            "    token=t.token",
            "  AND u.password=v.password OR password=:password",
            "SET a=1, api_key='abcdef'",
            "SELECT password, 'abcdef' FROM t WHERE token IN ('abcdef') AND a BY 'abcdef'",
        ] {
            assert_eq!(masked(line, false), line);
        }
        assert_eq!(masked("    db_password=password,", true), "    db_password=password,");
        assert_eq!(masked("connect(\"host=h password=abcdef\")", true), "connect(\"host=h password=***\")");
    }
}
