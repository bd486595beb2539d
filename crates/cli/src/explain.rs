//! Errors and hints: everything that goes wrong leaves through here, and looks the same.

use crate::output::Painter;
use backstop_core::RunId;
use backstop_core::event::{Failure, Place};
use backstop_core::state::RunPhase;
use backstop_project::params::ParamError;
use std::fmt::Write as _;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Success,
    /// The run failed, or a connection could not be used.
    RunFailed,
    /// The project or the arguments are wrong; nothing ran.
    Usage,
    /// A person must decide something, or the run must be resumed.
    Stuck,
    /// Ended by a signal.
    Interrupted,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::RunFailed => 1,
            Self::Usage => 2,
            Self::Stuck => 3,
            Self::Interrupted => 130,
        }
    }
}

/// Something that went wrong, as a person is told.
#[derive(Debug)]
pub(crate) struct Problem {
    /// What was tried and what happened.
    pub(crate) message: String,
    /// Why, outermost first.
    pub(crate) causes: Vec<String>,
    /// What to do next.
    pub(crate) hints: Vec<String>,
    /// How the process ends for it.
    pub(crate) exit: Exit,
}

impl Problem {
    /// A mistake in the arguments or the project.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), hints: Vec::new(), exit: Exit::Usage }
    }

    /// An error of the system while doing something.
    pub(crate) fn system(operation: impl Into<String>, error: &std::io::Error) -> Self {
        Self::usage(operation).cause(error.to_string())
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

/// The messages below an error, outermost first, without repeating what its parent has said already.
fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    const CAUSES_MAX: usize = 8;
    let mut told = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if told.len() <= CAUSES_MAX && !told.iter().any(|earlier| earlier.contains(&text)) {
            told.push(text);
        }
        next = cause.source();
    }
    told.split_off(1)
}

impl From<backstop_store::Error> for Problem {
    fn from(error: backstop_store::Error) -> Self {
        let hints = error.hint.clone().into_iter().collect();
        Self { message: error.message.clone(), causes: causes(&error), hints, exit: Exit::Usage }
    }
}

impl From<backstop_connect::Error> for Problem {
    fn from(error: backstop_connect::Error) -> Self {
        let mut told: Vec<String> = codes(error.sqlstate.as_deref(), error.native_code.as_deref()).into_iter().collect();
        told.extend(error.detail.clone());
        told.extend(causes(&error));
        Self { message: error.to_string(), causes: told, hints: error.hint.into_iter().collect(), exit: Exit::RunFailed }
    }
}

impl From<backstop_runtime::Error> for Problem {
    fn from(error: backstop_runtime::Error) -> Self {
        use backstop_runtime::Error;
        let message = error.to_string();
        let told = causes(&error);
        let (hints, exit) = match &error {
            Error::Store(cause) => (cause.hint.iter().cloned().collect(), Exit::Stuck),
            Error::Append(backstop_store::AppendError::Store(cause)) => (cause.hint.iter().cloned().collect(), Exit::Stuck),
            Error::Append(_) => {
                (vec!["another process has taken the run over: see `backstop runs list`".to_owned()], Exit::Stuck)
            }
            Error::NoRun(_) => (vec!["`backstop runs list` shows the runs there are".to_owned()], Exit::Usage),
            Error::Over { run, state } => (hints_when_over(run, state, ""), Exit::Usage),
            Error::Changed { .. } => {
                (vec!["resume without --current-files, or start a new run with --new".to_owned()], Exit::Usage)
            }
            Error::Request(_) => (Vec::new(), Exit::Usage),
        };
        Self { message, causes: told, hints, exit }
    }
}

/// What to do instead of resuming a run that is over. A new run pays a second time what the old one has paid.
pub(crate) fn hints_when_over(run: &RunId, state: &str, flags: &str) -> Vec<String> {
    if state == RunPhase::Succeeded.as_str() {
        return vec!["a new run, which leaves --resume out, does all of it a second time".to_owned()];
    }
    vec![
        format!("to go on behind its last commit: {}", retry_command(run.as_str(), flags)),
        "a new run, which leaves --resume out, does a second time what this one has committed".to_owned(),
    ]
}

/// The command that makes a failed run go on.
pub(crate) fn retry_command(run: &str, flags: &str) -> String {
    // Without the files as they are now it would run what failed once more; where nothing was mended in them they are the same.
    format!("backstop runs retry {run}{flags} --current-files --reason \"what was mended\"")
}

/// Everything that is wrong with given parameters, as one problem.
pub(crate) fn of_params(dag: &str, errors: &[ParamError]) -> Problem {
    let mut problem = match errors {
        [one] => {
            let mut problem = Problem::usage(one.to_string());
            problem.hints.extend(one.hint.clone());
            problem
        }
        many => {
            let mut problem = Problem::usage(format!("{} parameters of `{dag}` are wrong", many.len()));
            problem.causes = many
                .iter()
                .map(|error| match &error.hint {
                    Some(hint) => format!("{error} ({hint})"),
                    None => error.to_string(),
                })
                .collect();
            problem
        }
    };
    problem.hints.push("give parameters as --param NAME=VALUE".to_owned());
    problem
}

/// `SQLSTATE 23505, code 1062`.
pub(crate) fn codes(sqlstate: Option<&str>, native_code: Option<&str>) -> Option<String> {
    match (sqlstate, native_code) {
        (Some(state), Some(code)) if state != code => Some(format!("SQLSTATE {state}, code {code}")),
        (Some(state), _) => Some(format!("SQLSTATE {state}")),
        (None, Some(code)) => Some(format!("code {code}")),
        (None, None) => None,
    }
}

/// `sql/load.sql:12:5, statement 7`.
pub(crate) fn place(place: &Place) -> String {
    let at = format!("{}:{}:{}", place.file, place.line, place.column);
    match place.statement {
        Some(number) => format!("{at}, statement {number}"),
        None => at,
    }
}

/// Tells a problem on standard error.
pub(crate) fn print(problem: &Problem) {
    crate::output::tell(&to_text(problem, Painter::stderr()));
}

fn to_text(problem: &Problem, paint: Painter) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} {}", paint.bad("error:"), problem.message);
    for cause in &problem.causes {
        let _ = writeln!(text, "  {} {}", paint.bold("cause:"), indent(cause, "    "));
    }
    for hint in &problem.hints {
        let _ = writeln!(text, "  {} {}", paint.note("hint:"), indent(hint, "    "));
    }
    text
}

/// What is known of a failure, indented below the line that names it.
pub(crate) fn failure(failure: &Failure, paint: Painter) -> String {
    let mut text = String::new();
    let mut line = |label: &str, said: &str| {
        let label = if label.is_empty() { String::new() } else { format!("{} ", paint.bold(label)) };
        let _ = writeln!(text, "    {label}{}", indent(said, "      "));
    };
    line("", &failure.message);
    if let Some(at) = &failure.place {
        line("at:", &place(at));
    }
    if let Some(codes) = codes(failure.sqlstate.as_deref(), failure.native_code.as_deref()) {
        line("", &codes);
    }
    for cause in &failure.causes {
        line("cause:", cause);
    }
    if !failure.effect.is_empty() {
        line("effect:", &failure.effect);
    }
    if let Some(hint) = &failure.hint {
        line("hint:", hint);
    }
    text
}

/// A text of several lines, the later ones indented.
fn indent(text: &str, by: &str) -> String {
    text.trim_end().replace('\n', &format!("\n{by}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_causes_and_hints() {
        let problem = Problem::usage("open the store").cause("no such file\nreally").hint("name it").hint("or not");
        insta::assert_snapshot!(to_text(&problem, Painter::plain()), @r"
        error: open the store
          cause: no such file
            really
          hint: name it
          hint: or not
        ");
    }
}
