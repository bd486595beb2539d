//! Secrets that stand within a line as programs are given them: passwords in URIs, `PGPASSWORD=...` before a command, `--password=...` behind
//! it, `?token=...` in an address.
//!
//! It must not know what the file means. A plain `token = 'x'` is SQL or a comparison, and is left alone.

use super::literal::{MASK, is_literal};
use backstop_project::is_secret_key;

/// How far before the `@` of a URI its `://` is looked for.
const USER_INFO_BYTES_MAX: usize = 4096;

/// The line with such values masked.
pub(super) fn masked(line: &str) -> String {
    let mut cleaned = String::with_capacity(line.len());
    let mut done = 0;
    while let Some((begin, end)) = next(line, done) {
        cleaned.push_str(&line[done..begin]);
        cleaned.push_str(MASK);
        done = end;
    }
    cleaned + &line[done..]
}

/// The first value to mask behind this place.
fn next(line: &str, from: usize) -> Option<(usize, usize)> {
    let separators = line[from..].match_indices(['=', '@']).map(|(at, found)| (from + at, found));
    separators.filter_map(|(at, found)| if found == "@" { of_uri(line, from, at) } else { assigned(line, from, at) }).next()
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

/// The value behind the `=` of a variable of the environment, of an option of a command, or of a query of a URI.
fn assigned(line: &str, from: usize, at: usize) -> Option<(usize, usize)> {
    let before = &line[from..at];
    let key = &before[before.trim_end_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-')).len()..];
    let outer = &before[..before.len() - key.len()];
    let is_variable = key.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    let is_option = key.starts_with("--");
    let is_query = outer.ends_with(['?', '&']);
    if !(is_variable || is_option || is_query) || !is_secret_key(key) {
        return None;
    }
    let value = &line[at + 1..];
    let (quoted, inside) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => (1, value[1..].split(quote).next().unwrap_or_default()),
        Some(_) | None => {
            // A template has blanks of its own.
            let end = if value.contains("{{") { value.len() } else { value.find(UNQUOTED_END).unwrap_or(value.len()) };
            (0, &value[..end])
        }
    };
    let begin = at + 1 + quoted;
    // `$NAME` and `$(command)` put one in.
    (!inside.starts_with('$') && is_literal(inside)).then_some((begin, begin + inside.len()))
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
        ] {
            assert_eq!(masked(line), told);
        }
    }

    #[test]
    fn a_long_line_takes_no_longer_than_its_bytes() {
        // Looking back to the beginning for each of them would be hours.
        let addresses = "('ann@example.org'),".repeat(400_000) + &"a@".repeat(400_000);
        assert_eq!(masked(&addresses), addresses);
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
        ] {
            assert_eq!(masked(line), line);
        }
    }
}
