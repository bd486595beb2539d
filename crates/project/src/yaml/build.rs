//! Builds the tree from the parser's events, with a stack of its own: depth is a budget, not the machine's stack.

use super::{Key, Node, Value};
use crate::diagnostic::{Diagnostic, Span, code};
use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, ScanError};
use std::collections::HashMap;
use std::sync::Arc;

/// How deep mappings and lists may nest.
const DEPTH_MAX: usize = 64;
/// How many nodes a file may stand for once its aliases are followed. A DAG of 100,000 tasks takes about two million.
const NODES_MAX: u64 = 20_000_000;
/// How many duplicate keys are reported for one file.
const DUPLICATES_MAX: usize = 50;

/// Parses one document. The tree is there even where keys were duplicates, so that the rest is checked too; `None` for an empty file.
///
/// # Errors
/// What makes the text no YAML at all, or too costly.
pub(crate) fn parse(
    text: &str,
    file: &Arc<str>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Option<Arc<Node>>, Box<Diagnostic>> {
    let before = diagnostics.len();
    let mut options = granit_parser::Options::default();
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut builder = Builder {
        text,
        lines: Lines::of(text),
        file,
        diagnostics,
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.event(event, span)?,
            Err(error) => {
                // What was found before a syntax error is mostly its echo.
                builder.diagnostics.truncate(before);
                return Err(Box::new(syntax_error(&error, file, text)));
            }
        }
    }
    Ok(builder.root)
}

struct Builder<'a> {
    text: &'a str,
    lines: Lines,
    file: &'a Arc<str>,
    diagnostics: &'a mut Vec<Diagnostic>,
    open: Vec<Open>,
    anchors: HashMap<usize, Arc<Node>>,
    root: Option<Arc<Node>>,
    documents: u32,
}

/// A collection whose end has not come yet.
struct Open {
    start: Marker,
    anchor: usize,
    weight: u64,
    items: Items,
}

enum Items {
    List(Vec<Arc<Node>>),
    Map { entries: Vec<(Key, Arc<Node>)>, key: Option<Arc<Node>>, seen: HashMap<Arc<str>, usize>, merges: Vec<Arc<Node>> },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: granit_parser::Span) -> Result<(), Box<Diagnostic>> {
        if let Some(tag) = event.tag()
            && !matches!(tag.core_suffix(), Some("str" | "map" | "seq" | "int" | "float" | "bool" | "null"))
        {
            let place = self.span(span.tag_start.unwrap_or(span.start), 1);
            let message = "tags are not supported here".to_owned();
            return Err(Box::new(
                Diagnostic::error(code::YAML_TAG, message, place)
                    .hint("remove the tag; values are plain texts, numbers, lists and mappings"),
            ));
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let place = self.span(span.start, 3);
                    return Err(Box::new(
                        Diagnostic::error(code::YAML_DOCUMENTS, "a file holds one document".to_owned(), place)
                            .hint("put each DAG in a file of its own"),
                    ));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let forced = tag.is_some_and(|tag| tag.core_suffix() == Some("str"));
                let node = self.scalar(&text, style, forced, span);
                self.close(Arc::new(node), anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(span.start, anchor, Items::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => self.open(
                span.start,
                anchor,
                Items::Map { entries: Vec::new(), key: None, seen: HashMap::new(), merges: Vec::new() },
            ),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let anchor = open.anchor;
                let node = self.finish(open);
                self.close(Arc::new(node), anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => self.close(node, 0),
                None => {
                    let place = self.span(span.start, 1);
                    let message = "this alias stands inside what it names".to_owned();
                    Err(Box::new(Diagnostic::error(code::YAML_SYNTAX, message, place)))
                }
            },
            // The parser's events are an open set; the rest of them carries no value.
            _ => Ok(()),
        }
    }

    fn open(&mut self, start: Marker, anchor: usize, items: Items) -> Result<(), Box<Diagnostic>> {
        if self.open.len() >= DEPTH_MAX {
            let place = self.span(start, 1);
            return Err(Box::new(Diagnostic::error(
                code::YAML_TOO_LARGE,
                format!("lists and mappings are nested more than {DEPTH_MAX} deep"),
                place,
            )));
        }
        self.open.push(Open { start, anchor, weight: 1, items });
        Ok(())
    }

    /// A finished node goes to the collection it stands in.
    fn close(&mut self, node: Arc<Node>, anchor: usize) -> Result<(), Box<Diagnostic>> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.weight = open.weight.saturating_add(node.weight);
        if open.weight > NODES_MAX {
            let place = node.span(self.file);
            return Err(Box::new(
                Diagnostic::error(
                    code::YAML_TOO_LARGE,
                    format!("the file stands for more than {NODES_MAX} values once its aliases are followed"),
                    place,
                )
                .hint("split the file, or use fewer aliases of aliases"),
            ));
        }
        match &mut open.items {
            Items::List(items) => items.push(node),
            Items::Map { key: key @ None, .. } => *key = Some(node),
            Items::Map { entries, key: key @ Some(_), seen, merges } => {
                let Some(key) = key.take() else { return Ok(()) };
                let Some(text) = key.as_scalar().cloned() else {
                    let message = "a key must be a text".to_owned();
                    let diagnostic = Diagnostic::error(code::WRONG_TYPE, message, key.span(self.file));
                    self.diagnostics.push(diagnostic.hint("put a value that begins with `{{` in quotes"));
                    return Ok(());
                };
                if &*text == "<<" && matches!(key.value, Value::Scalar { plain: true, .. }) {
                    merges.push(node);
                    return Ok(());
                }
                let place = (key.text_place.0, key.text_place.1);
                if let Some(first) = first_place(entries, seen, &text) {
                    let duplicates = self.diagnostics.iter().filter(|d| d.code == code::DUPLICATE_KEY).count();
                    if duplicates < DUPLICATES_MAX {
                        let first = entries[first].0.span(self.file);
                        self.diagnostics.push(
                            Diagnostic::error(code::DUPLICATE_KEY, format!("key `{text}` is there twice"), key.span(self.file))
                                .label(first, "first here")
                                .hint("rename or remove one of them"),
                        );
                    }
                    return Ok(());
                }
                entries.push((Key { text, line: place.0, column: place.1 }, node));
            }
        }
        Ok(())
    }

    fn finish(&mut self, open: Open) -> Node {
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map { mut entries, merges, .. } => {
                for merge in merges {
                    self.merge(&mut entries, &merge);
                }
                Value::Map(entries)
            }
        };
        let place = (number(open.start.line()), number(open.start.col()) + 1);
        let length = self.lines.rest(self.text, open.start.line(), open.start.col());
        Node { value, line: place.0, column: place.1, length, text_place: place, weight: open.weight }
    }

    /// `<<: *defaults`: the keys of the mapping itself win, then those of the first mapping merged.
    fn merge(&mut self, entries: &mut Vec<(Key, Arc<Node>)>, merge: &Arc<Node>) {
        let sources: Vec<&Arc<Node>> = match &merge.value {
            Value::List(items) => items.iter().collect(),
            Value::Map(_) | Value::Scalar { .. } => vec![merge],
        };
        let mut added: std::collections::HashSet<Arc<str>> = entries.iter().map(|(key, _)| key.text.clone()).collect();
        for source in sources {
            let Some(merged) = source.as_map() else {
                let message = format!("`<<` takes mappings, this is {}", source.describe());
                self.diagnostics.push(Diagnostic::error(code::WRONG_TYPE, message, source.span(self.file)));
                continue;
            };
            for (key, value) in merged {
                if added.insert(key.text.clone()) {
                    entries.push((key.clone(), value.clone()));
                }
            }
        }
    }

    fn scalar(&self, text: &str, style: ScalarStyle, forced: bool, span: granit_parser::Span) -> Node {
        let (line, column) = (number(span.start.line()), number(span.start.col()) + 1);
        let plain = style == ScalarStyle::Plain && !forced;
        // The parser writes an absent value as `~` of no length.
        let text = if plain && text == "~" && span.start.index() == span.end.index() { "" } else { text };
        let same_line = span.start.line() == span.end.line();
        let length = if same_line {
            number(span.end.col().saturating_sub(span.start.col()))
        } else {
            self.lines.rest(self.text, span.start.line(), span.start.col())
        };
        let text_place = match style {
            ScalarStyle::Plain => (line, column),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => (line, column + 1),
            // The parser places a block at its first line that is not blank; blank lines before it belong to the text.
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let blank = text.chars().take_while(|c| *c == '\n').count();
                (line.saturating_sub(number(blank)).max(1), column)
            }
        };
        Node { value: Value::Scalar { text: text.into(), plain }, line, column, length: length.max(1), text_place, weight: 1 }
    }

    fn span(&self, at: Marker, length: u32) -> Span {
        Span { file: self.file.clone(), line: number(at.line()), column: number(at.col()) + 1, length }
    }
}

/// Where a key already stands in a mapping. Small mappings are searched as they are; a large one gets an index.
fn first_place(entries: &[(Key, Arc<Node>)], seen: &mut HashMap<Arc<str>, usize>, text: &Arc<str>) -> Option<usize> {
    const SMALL: usize = 16;
    if entries.len() < SMALL {
        return entries.iter().position(|(key, _)| key.text == *text);
    }
    for (at, (key, _)) in entries.iter().enumerate().skip(seen.len()) {
        seen.insert(key.text.clone(), at);
    }
    seen.get(text).copied()
}

/// Where each line begins.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(ends).collect() }
    }

    /// A line from 1, without its end.
    fn line<'t>(&self, text: &'t str, line: usize) -> &'t str {
        let Some(start) = line.checked_sub(1).and_then(|index| self.starts.get(index)) else { return "" };
        let end = self.starts.get(line).copied().unwrap_or(text.len());
        text.get(*start..end).unwrap_or("").trim_end_matches(['\n', '\r'])
    }

    /// How many characters of a line follow a column, without white space at its end.
    fn rest(&self, text: &str, line: usize, column: usize) -> u32 {
        let line = self.line(text, line).trim_end();
        number(line.chars().count().saturating_sub(column)).max(1)
    }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn syntax_error(error: &ScanError, file: &Arc<str>, text: &str) -> Diagnostic {
    let marker = error.marker();
    let span = Span { file: file.clone(), line: number(marker.line()).max(1), column: number(marker.col()) + 1, length: 1 };
    let message = error.info().to_string();
    let code = if message.contains("limit") { code::YAML_TOO_LARGE } else { code::YAML_SYNTAX };
    let line = text.lines().nth(marker.line().saturating_sub(1)).unwrap_or("");
    let diagnostic = Diagnostic::error(code, format!("not YAML: {message}"), span);
    match hint_for(line) {
        Some(hint) => diagnostic.hint(hint),
        None => diagnostic,
    }
}

/// The mistakes that people make most.
fn hint_for(line: &str) -> Option<&'static str> {
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim_start());
    if line.trim_start_matches(' ').starts_with('\t') {
        Some("indent with spaces; YAML allows no tabs")
    } else if value.starts_with("{{") || value.starts_with("{%") || value.starts_with(['@', '*', '%', '`', '&']) {
        Some("put the value in quotes")
    } else if value.contains(": ") {
        Some("put the value in quotes, or write it as a block after `|`; `: ` begins a mapping")
    } else {
        None
    }
}
