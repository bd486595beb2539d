//! Secrets that stand in a file as they are: the values of keys whose names say that they are secret.
//!
//! It must not know what the file means: it looks at YAML, at the scripts in it and at Python by their lines. SQL is left alone, where a
//! `:` is a parameter or a cast.

use backstop_project::{MASKED_BYTES_MIN, is_secret_key};
use std::ops::Range;

/// What stands for a secret.
pub(super) const MASK: &str = "***";

/// The text of a file with such values masked. A value that a template or the environment puts in is not there, and stays.
pub(super) fn masked(path: &str, text: &str) -> String {
    let is_python = path.ends_with(".py");
    let is_yaml = path.ends_with(".yaml") || path.ends_with(".yml");
    if !is_python && !is_yaml {
        return text.to_owned();
    }
    let mut cleaned = String::with_capacity(text.len());
    // A value that goes on over lines ends where one is not further in than its key.
    let mut open: Option<usize> = None;
    // Where a parameter is declared by a secret name, over lines: its default is secret, too.
    let mut declared: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        let indent = bare.len() - bare.trim_start().len();
        if let Some(column) = open {
            if bare.trim().is_empty() || indent > column {
                cleaned.push_str(&bare[..indent]);
                cleaned.push_str(if bare.trim().is_empty() { "" } else { MASK });
                cleaned.push_str(&line[bare.len()..]);
                continue;
            }
            open = None;
        }
        if !bare.trim().is_empty() && declared.is_some_and(|column| indent <= column) {
            declared = None;
        }
        let mut done = 0;
        loop {
            let found = next(bare, done, is_python);
            let before = found.as_ref().map_or(bare.len(), |found| found.begin);
            let value = declared_secret(bare, done, declared.is_some()).filter(|value| is_yaml && value.start < before);
            if let Some(value) = value {
                cleaned.push_str(&bare[done..value.start]);
                cleaned.push_str(MASK);
                done = value.end;
                continue;
            }
            let Some(found) = found else { break };
            cleaned.push_str(&bare[done..found.begin]);
            cleaned.push_str(if found.is_literal { MASK } else { &bare[found.begin..found.end] });
            done = found.end;
            if found.goes_on {
                open = Some(found.column);
            }
        }
        if is_yaml && bare.trim_end().strip_suffix(':').is_some_and(|key| is_secret_key(key.trim().trim_matches(['"', '\'']))) {
            declared = Some(indent);
        }
        cleaned.push_str(&bare[done..]);
        cleaned.push_str(&line[bare.len()..]);
    }
    cleaned
}

/// What a parameter is declared to be by default, and what it may be, where its name is a secret one: on one line with it, or on lines of
/// their own below it.
fn declared_secret(line: &str, from: usize, is_declared: bool) -> Option<Range<usize>> {
    let of_key = |key: &str| {
        line[from..].match_indices(key).find_map(|(at, _)| declared_value(line, from + at, from + at + key.len(), is_declared))
    };
    ["default:", "enum:"].into_iter().filter_map(of_key).min_by_key(|found| found.start)
}

/// The value behind a key that begins and ends here.
fn declared_value(line: &str, key: usize, colon: usize, is_declared: bool) -> Option<Range<usize>> {
    let before = line[..key].trim_end();
    let is_flow = before.ends_with(['{', ',']);
    let is_secret = if is_flow {
        let declaration = line[..key].rfind('{')?;
        let name = line[..declaration].trim_end().strip_suffix(':')?.trim_end().trim_end_matches(['"', '\'']);
        let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        is_secret_key(&name[name.trim_end_matches(is_key).len()..])
    } else {
        before.is_empty() && is_declared
    };
    let value = line[colon..].trim_start();
    let begin = line.len() - value.len();
    let end = match (value.chars().next(), is_flow) {
        (Some(quote @ ('"' | '\'')), _) => closing(&value[1..], quote, false).map_or(value.len(), |length| length + 2),
        (Some('['), _) => value.find(']').map_or(value.len(), |at| at + 1),
        (_, true) => value.find([',', '}']).unwrap_or(value.len()),
        (_, false) => value.find(" #").unwrap_or(value.len()),
    };
    let length = value[..end].trim_end().len();
    (is_secret && is_literal(&value[..length])).then_some(begin..begin + length)
}

/// The value of a secret key, within a line.
struct Found {
    begin: usize,
    end: usize,
    /// Where the key begins.
    column: usize,
    is_literal: bool,
    /// The next lines belong to it.
    goes_on: bool,
}

/// The first value of a secret key behind this place.
fn next(line: &str, from: usize, is_python: bool) -> Option<Found> {
    let is_separator = |c: char| c == ':' || is_python && c == '=';
    line[from..].match_indices(is_separator).find_map(|(at, _)| value_at(line, from, from + at, is_python))
}

/// The value behind a separator, when a secret key stands before it.
fn value_at(line: &str, from: usize, separator: usize, is_python: bool) -> Option<Found> {
    let before = line[from..separator].trim_end();
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let unquoted = before.strip_suffix(['"', '\'']).unwrap_or(before);
    let key = &unquoted[unquoted.trim_end_matches(is_key).len()..];
    if !is_secret_key(key) {
        return None;
    }
    let column = from + unquoted.len() - key.len();
    let column = if unquoted.len() < before.len() { column.saturating_sub(1) } else { column };
    let rest = &line[separator + 1..];
    let begin = separator + 1 + rest.len() - rest.trim_start_matches([' ', '\t', '=']).len();
    let value = &line[begin..];
    if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let inside = &value[1..];
        let length = closing(inside, quote, is_python);
        let text = &inside[..length.unwrap_or(inside.len())];
        let goes_on = length.is_none() && !is_python;
        return Some(Found {
            begin: begin + 1,
            end: begin + 1 + text.len(),
            column,
            is_literal: goes_on || is_literal(text),
            goes_on,
        });
    }
    if !is_python && value.starts_with(['|', '>']) {
        return Some(Found { begin, end: line.len(), column, is_literal: false, goes_on: true });
    }
    // A key within a quoted text is that of a header in a script, whose quotes end it.
    let outer = &line[..column];
    let is_in_text = outer.matches('"').count() % 2 == 1 || outer.matches('\'').count() % 2 == 1;
    if is_python && !is_in_text || value.starts_with(['{', '[', '$', '&', '*', '!', '#']) || begin == separator + 1 && !is_in_text
    {
        return None;
    }
    let length = if is_in_text {
        value.find(['"', '\''])
    } else if outer.contains(['{', '[']) {
        value.find([',', '}', ']'])
    } else {
        value.find(" #")
    };
    // A template has brackets and quotes of its own; nothing of it is cut.
    let text = if value.contains("{{") { value } else { &value[..length.unwrap_or(value.len())] };
    let text = text.trim_end();
    Some(Found { begin, end: begin + text.len(), column, is_literal: is_literal(text), goes_on: false })
}

/// Where the text behind a quote ends. Within single quotes YAML doubles them; else a backslash stands before one.
fn closing(inside: &str, quote: char, is_python: bool) -> Option<usize> {
    let doubles = quote == '\'' && !is_python;
    let mut characters = inside.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let is_pair = match c {
            '\\' => !doubles,
            _ if c != quote => false,
            _ if doubles && characters.peek().is_some_and(|(_, next)| *next == quote) => true,
            _ => return Some(at),
        };
        if is_pair {
            characters.next();
        }
    }
    None
}

/// What of a value stands there itself, without what templates and the environment put in, blanks, quotes, and the words before a token.
pub(super) fn own_text(value: &str) -> String {
    let mut own = String::new();
    let mut rest = value;
    while let Some((begin, end)) = [("{{", "}}"), ("${", "}")]
        .into_iter()
        .filter(|(begin, _)| rest.contains(begin))
        .min_by_key(|(begin, _)| rest.find(begin))
    {
        let (before, behind) = rest.split_once(begin).unwrap_or((rest, ""));
        own.push_str(before);
        rest = behind.split_once(end).map_or("", |(_, behind)| behind);
    }
    own.push_str(rest);
    let is_scheme = |word: &&str| ["bearer", "basic", "token", "digest"].iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
    own.split(|c: char| c.is_whitespace() || c == '"' || c == '\'').filter(|word| !is_scheme(word)).collect()
}

/// Whether a value is a secret itself, and not what puts one in, or too short to be one.
pub(super) fn is_literal(value: &str) -> bool {
    let words = own_text(value);
    words.len() >= MASKED_BYTES_MIN && !["true", "false", "null", "none"].iter().any(|plain| words.eq_ignore_ascii_case(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secret_keys_are_masked_where_they_stand() {
        for (line, told) in [
            ("headers: {Authorization: Bearer abcdef, Accept: text/plain}", "headers: {Authorization: ***, Accept: text/plain}"),
            ("      Authorization: \"Bearer abc\\\"def\"", "      Authorization: \"***\""),
            ("password: p,a'ss # why", "password: *** # why"),
            ("password: 'it''s one'", "password: '***'"),
            ("\"password\": \"swordfish\", \"user\": \"ann\"", "\"password\": \"***\", \"user\": \"ann\""),
            ("shell: curl -H \"Authorization: Bearer abcdef\" https://h/", "shell: curl -H \"Authorization: ***\" https://h/"),
            ("token: pre-{{ var.value.token }}-fix", "token: ***"),
        ] {
            assert_eq!(masked("dags/d.yaml", line), told);
        }
        assert_eq!(masked("a.py", "TOKEN = 'abcdef'\nask(password=\"abcdef\")\n"), "TOKEN = '***'\nask(password=\"***\")\n");
    }

    #[test]
    fn a_value_over_several_lines_is_masked_to_its_end() {
        let text = "a:\n  - private_key: |\n      one\n\n      two\n    host: h\n  token: \"one\n    two\"\n  b: c\n";
        let told = "a:\n  - private_key: |\n      ***\n\n      ***\n    host: h\n  token: \"***\n    ***\n  b: c\n";
        assert_eq!(masked("d.yml", text), told);
    }

    #[test]
    fn the_default_of_a_parameter_by_a_secret_name_is_masked() {
        for (text, told) in [
            ("params: {token: abcdef, password: {default: hunter22}}", "params: {token: ***, password: {default: ***}}"),
            (
                "params: {password: {type: string, default: hunter22}, day: {default: monday}}",
                "params: {password: {type: string, default: ***}, day: {default: monday}}",
            ),
            ("  db_password: {default: \"ab, cd\", enum: [abcd, efgh]}", "  db_password: {default: ***, enum: ***}"),
            (
                "params:\n  password:\n    type: string\n    default: hunter22  # why\n    enum: [hunter22, hunter23]\n  day:\n    default: monday\n",
                "params:\n  password:\n    type: string\n    default: ***  # why\n    enum: ***\n  day:\n    default: monday\n",
            ),
            ("password:\n  default: \"{{ var.value.x }}\"\n", "password:\n  default: \"{{ var.value.x }}\"\n"),
        ] {
            assert_eq!(masked("dags/d.yaml", text), told);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for line in [
            "token: \"{{ var.value.token }}\"",
            "Authorization: Bearer {{ var.value.token }}",
            "headers: {Authorization: \"Bearer ${SHOP_TOKEN}\", Accept: x}",
            "password: null",
            "params: {token: {type: string}}",
            "refresh_token:",
            "primary_key: order_id",
            "sql: SELECT a::text FROM token WHERE token_type = 'bearer'",
        ] {
            assert_eq!(masked("dags/d.yaml", line), line);
        }
        assert_eq!(masked("a.py", "token = read(secret)\n"), "token = read(secret)\n");
        assert_eq!(masked("a.sql", "SELECT token::text"), "SELECT token::text");
    }
}
