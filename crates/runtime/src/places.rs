//! From a place in a rendered script back to the line of the file that the user wrote.

use backstop_core::event::Place;
use backstop_project::definition::Template;

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

/// True when line n of the rendered text is line n of the template. Reads both: ask once a script, not once a statement.
pub(crate) fn is_traced(template: &Template, rendered: &str) -> bool {
    let lines = |text: &str| text.bytes().filter(|byte| *byte == b'\n').count();
    std::ptr::eq(template.text.as_ref(), rendered) || lines(&template.text) == lines(rendered)
}
