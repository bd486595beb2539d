//! From a place in a rendered script back to the line of the file that the user wrote.

use backstop_core::event::Place;
use backstop_project::definition::{Body, Callback, Definition, Kind, Source, Template};
use backstop_project::place_of_key;

/// The place in the sources of line `line`, column `column` (both from 1) of the rendered text. Where rendering changed the number of
/// lines the rendered line cannot be traced: then the place is where the script begins, and the caller's message has the
/// statement's number.
pub(crate) fn in_source(template: &Template, rendered: &str, line: u32, column: u32, statement: Option<u32>) -> Place {
    let file = template.source.file.to_string();
    if is_traced(template, rendered) {
        let indented = template.source.column.saturating_sub(1);
        Place { file, line: template.source.line + line.saturating_sub(1), column: column + indented, statement }
    } else {
        Place { file, line: template.source.line, column: template.source.column, statement }
    }
}

/// The place of a bound parameter's key; `under` are the keys above `parameters`, below those of its owner.
pub(crate) fn of_parameter(definition: &Definition, owner: &Source, under: &[&str], name: &str) -> Option<Place> {
    let keys: Vec<&str> = under.iter().copied().chain(["parameters", name]).collect();
    let span = place_of_key(&definition.bundle, owner, &keys)?;
    Some(Place { file: span.file.to_string(), line: span.line, column: span.column, statement: None })
}

/// Where the task or callback of this task begins that runs this script.
pub(crate) fn owner_of_script<'d>(definition: &'d Definition, task: &str, script: &Template) -> Option<&'d Source> {
    let runs = |kind: &Kind| matches!(kind, Kind::Sql(sql) if sql.script.source == script.source);
    let body: Option<&Body> = definition.dag.index(task).map(|place| definition.body(place));
    if let Some(body) = body.filter(|body| runs(&body.kind)) {
        return Some(&body.source);
    }
    let lists = body.map(|body| &body.callbacks).into_iter().chain([&definition.callbacks]);
    let mut callbacks = lists.flat_map(|lists| lists.on_failure.iter().chain(&lists.on_retry).chain(&lists.on_success));
    callbacks.find(|callback: &&Callback| runs(&callback.kind)).map(|callback| &callback.source)
}

/// True when line n of the rendered text is line n of the template. Reads both: ask once a script, not once a statement.
pub(crate) fn is_traced(template: &Template, rendered: &str) -> bool {
    let lines = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
    std::ptr::eq(template.text.as_ref(), rendered) || lines(&template.text) == lines(rendered)
}
