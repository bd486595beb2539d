//! Where words go: data to standard output, everything else to standard error; colour only where a terminal wants it.

use crate::explain::Problem;
use std::io::{IsTerminal as _, Write as _};

/// Paints words, or leaves them as they are. Colour never carries a meaning alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Painter {
    on: bool,
}

impl Painter {
    /// No colour.
    pub(crate) fn plain() -> Self {
        Self { on: false }
    }

    /// For standard error. `NO_COLOR`, `CLICOLOR_FORCE` and `TERM=dumb` are honoured.
    pub(crate) fn stderr() -> Self {
        Self { on: anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never }
    }

    /// For standard output.
    pub(crate) fn stdout() -> Self {
        Self { on: anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never }
    }

    /// Whether there is colour.
    pub(crate) fn is_on(self) -> bool {
        self.on
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    pub(crate) fn note(self, text: &str) -> String {
        self.with("36", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Writes data to standard output. A reader that has gone away ends the process quietly, as it would for `cat`.
pub(crate) fn data(text: &str) -> Result<(), Problem> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Problem::system("write to standard output", &error)),
    }
}

/// Writes words to standard error. When even that cannot be done there is nobody to tell.
pub(crate) fn tell(text: &str) {
    let mut stderr = std::io::stderr().lock();
    drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
}

/// A line of advice on standard error.
pub(crate) fn warn(text: &str) {
    tell(&format!("{} {text}\n", Painter::stderr().warn("warning:")));
}

/// A remark on standard error.
pub(crate) fn note(text: &str) {
    tell(&format!("{} {text}\n", Painter::stderr().note("note:")));
}

/// Data as JSON, indented, with a line feed.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<(), Problem> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Problem::usage("write JSON").cause(error.to_string()))?;
    data(&format!("{text}\n"))
}

/// True when a person sits there who can be asked.
pub(crate) fn can_ask() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Lines up cells in columns, two blanks apart. The first row is the heading.
pub(crate) fn table(rows: &[Vec<String>], paint: Painter) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (nth, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let line = cells.join("  ");
        let line = line.trim_end();
        text.push_str(&if nth == 0 { paint.bold(line) } else { line.to_owned() });
        text.push('\n');
    }
    text
}
