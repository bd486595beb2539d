//! Finds the tasks whose results a template pulls, as far as it names them in so many words.
//!
//! It goes by the tags' own tokens: the engine keeps its syntax tree to itself. What a template computes (`'load_' ~ params.region`) is not known
//! before it is rendered, and is left to the rendering.

use super::error::place;
use crate::definition::Template;
use crate::diagnostic::Span;
use std::ops::Range;

/// One task that `xcom_pull` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pull {
    /// The task's id, as written.
    pub(crate) task: String,
    /// Where the id stands.
    pub(crate) at: Span,
    /// The author said what to take when there is no result.
    pub(crate) has_default: bool,
}

/// The method that pulls.
const PULL: &str = "xcom_pull";

/// Every task that a template's `xcom_pull`s name as plain texts.
pub(crate) fn pulls(template: &Template) -> Vec<Pull> {
    let text: &str = &template.text;
    let mut found = Vec::new();
    if !text.contains(PULL) {
        return found;
    }
    let mut at = 0;
    while let Some(brace) = text[at..].find('{') {
        let start = at + brace;
        let rest = &text[start..];
        at = match rest.as_bytes().get(1) {
            Some(b'#') => after(text, start, "#}"),
            Some(b'%') if is_raw(rest) => after(text, after(text, start + 2, "endraw"), "%}"),
            Some(b'{' | b'%') => {
                let (tokens, end) = tokens(text, start + 2);
                of_tag(template, &tokens, &mut found);
                end
            }
            Some(_) | None => start + 1,
        };
    }
    found
}

/// The offset behind the next such text, or the end.
fn after(text: &str, from: usize, wanted: &str) -> usize {
    text[from..].find(wanted).map_or(text.len(), |at| from + at + wanted.len())
}

fn is_raw(tag: &str) -> bool {
    let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
    inner.strip_prefix("raw").is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// A token of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A word or a number.
    Word(Range<usize>),
    /// A quoted text, without its quotes.
    Text(Range<usize>),
    /// Any other character.
    Mark(char),
}

/// The tokens of a tag that is open, and the offset behind it.
fn tokens(text: &str, from: usize) -> (Vec<Token>, usize) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut at = from;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        // A brace that closes a mapping within the tag does not close the tag.
        if depth == 0 && (rest.starts_with("}}") || rest.starts_with("%}")) {
            return (tokens, at + 2);
        }
        match next {
            '\'' | '"' => {
                let length = quoted_length(&rest[1..], next);
                tokens.push(Token::Text(at + 1..at + 1 + length));
                at = (at + length + 2).min(text.len());
                continue;
            }
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(at..at + length));
                at += length;
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !next.is_whitespace() {
            tokens.push(Token::Mark(next));
        }
        at += next.len_utf8();
    }
    (tokens, text.len())
}

/// How many bytes stand before the closing quote.
fn quoted_length(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            c if c == quote => return at,
            _ => {}
        }
    }
    text.len()
}

fn of_tag(template: &Template, tokens: &[Token], found: &mut Vec<Pull>) {
    for (nth, window) in tokens.windows(3).enumerate() {
        let [Token::Mark('.'), Token::Word(word), Token::Mark('(')] = window else { continue };
        if &template.text[word.clone()] == PULL {
            let arguments = split(&tokens[nth + 3..]);
            of_call(template, &arguments, found);
        }
    }
}

/// The parts between commas, up to the bracket that closes what is open.
fn split(tokens: &[Token]) -> Vec<&[Token]> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']' | '}') if depth == 0 => {
                parts.push(&tokens[start..at]);
                break;
            }
            Token::Mark(')' | ']' | '}') => depth -= 1,
            Token::Mark(',') if depth == 0 => {
                parts.push(&tokens[start..at]);
                start = at + 1;
            }
            Token::Mark(_) | Token::Word(_) | Token::Text(_) => {}
        }
    }
    parts
}

fn of_call(template: &Template, arguments: &[&[Token]], found: &mut Vec<Pull>) {
    let named = |name: &str| {
        arguments.iter().find_map(|argument| match argument {
            [Token::Word(word), Token::Mark('='), value @ ..] if &template.text[word.clone()] == name => Some(value),
            _ => None,
        })
    };
    let first = arguments.first().copied().filter(|argument| !matches!(argument, [Token::Word(_), Token::Mark('='), ..]));
    let Some(task_ids) = first.or_else(|| named("task_ids")) else { return };
    let has_default = named("default").is_some();
    let ids = match task_ids {
        [Token::Mark('[' | '('), items @ ..] => split(items),
        one => vec![one],
    };
    for id in ids {
        let [Token::Text(range)] = id else { continue };
        let id = &template.text[range.clone()];
        // What an escape stands for is the engine's to say.
        if !id.contains('\\') {
            found.push(Pull { task: id.to_owned(), at: span(template, range.clone()), has_default });
        }
    }
}

fn span(template: &Template, range: Range<usize>) -> Span {
    let (line, column) = place(&template.source, &template.text, range.start);
    let length = u32::try_from(template.text[range].chars().count()).unwrap_or(u32::MAX).max(1);
    Span { file: template.source.file.clone(), line, column, length }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Source;

    /// Ids with their line and column, and a `?` behind those with a default.
    fn check(text: &str, expect: &[&str]) {
        let template = Template { text: text.into(), source: Source { file: "sql/a.sql".into(), line: 1, column: 1 } };
        let told: Vec<String> = pulls(&template)
            .iter()
            .map(|pull| format!("{}@{}:{}{}", pull.task, pull.at.line, pull.at.column, if pull.has_default { "?" } else { "" }))
            .collect();
        assert_eq!(told, expect, "{text}");
    }

    #[test]
    fn plain_names_are_found_with_their_place() {
        check("{{ ti.xcom_pull('a') }}", &["a@1:18"]);
        check("SELECT 1;\n  SELECT {{ ti.xcom_pull(task_ids = \"g.a\", key='return_value') }}", &["g.a@2:38"]);
        check("{% if task_instance.xcom_pull('a') > 1 %}{{ ti.xcom_pull('b')['n'] }}{% endif %}", &["a@1:32", "b@1:59"]);
        check("{{ ti.xcom_pull(['a', 'b'], default=0) }}", &["a@1:19?", "b@1:24?"]);
        check("{{ ti.xcom_pull(task_ids=('a', x, 'b'), map_indexes=[0, 1]) }}", &["a@1:28", "b@1:36"]);
        check("{{ {'x': {'y': ti.xcom_pull('a')}} }}", &["a@1:30"]);
        check("{{ '}}' ~ ti.xcom_pull('a') }}", &["a@1:25"]);
        check("é{{ ti.xcom_pull('é', default={'a': 1}) }}", &["é@1:19?"]);
    }

    #[test]
    fn what_is_computed_or_no_template_is_left_alone() {
        check("{{ ti.xcom_pull('a' ~ x) }}{{ ti.xcom_pull(params.task) }}{{ ti.xcom_pull() }}", &[]);
        check("{# ti.xcom_pull('a') #}{% raw %}{{ ti.xcom_pull('b') }}{% endraw %}ti.xcom_pull('c')", &[]);
        check("{{ \"ti.xcom_pull('a')\" }}{{ ti.xcom_pull('a\\'b') }}{{ xcom_pull('a') }}", &[]);
        check("{{ ti.xcom_pull('a", &[]);
        check("{{ ti.xcom_pull(['a'", &[]);
    }
}
