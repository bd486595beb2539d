//! What did not go well, in blocks of text: the same whether a run has just ended here or is looked at the morning after.

use crate::explain;
use crate::narrate;
use crate::output::Painter;
use crate::paths::shell_word;
use crate::words;
use backstop_core::InstanceId;
use backstop_core::event::{CallbackId, Failure, FailureClass};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Things of one kind that are told one by one.
pub(crate) const TOLD_MAX: usize = 50;
/// Upstreams that are named as the reason of one task.
const BLAMED_MAX: usize = 5;

/// What commands that are shown to people need.
#[derive(Clone, Copy)]
pub(crate) struct Commands<'a> {
    /// The run's id.
    pub(crate) run: &'a str,
    /// What leads `backstop runs` and `backstop logs` to the store.
    pub(crate) flags: &'a str,
    /// The beginning of a command that resumes.
    pub(crate) again: &'a str,
    /// A service has the store: it is told what became of a doubt, and nobody else may resume.
    pub(crate) is_service_there: bool,
}

/// A task that did not go well.
pub(crate) struct Unwell<'a> {
    pub(crate) id: &'a InstanceId,
    pub(crate) try_number: u32,
    /// Of its last try.
    pub(crate) failure: Option<&'a Failure>,
    /// Why it could not be found out whether it took effect.
    pub(crate) why_undecided: Option<&'a str>,
    /// What its earlier tries came to, a line each.
    pub(crate) earlier: String,
}

/// A task that failed, or was cancelled.
pub(crate) fn failed(unwell: &Unwell<'_>, commands: Commands<'_>, paint: Painter, text: &mut String) {
    let is_cancelled = unwell.failure.is_some_and(|failure| failure.class == FailureClass::Cancelled);
    let _ = match (is_cancelled, unwell.try_number) {
        (true, 0 | 1) => writeln!(text, "{} was cancelled", paint.warn(&format!("! {}", unwell.id))),
        (true, many) => writeln!(text, "{} was cancelled in try {many}", paint.warn(&format!("! {}", unwell.id))),
        (false, 0 | 1) => writeln!(text, "{} failed", paint.bad(&format!("✗ {}", unwell.id))),
        (false, many) => writeln!(text, "{} failed, after {many} tries", paint.bad(&format!("✗ {}", unwell.id))),
    };
    details(unwell, commands, paint, text);
}

/// A task of which nobody knows whether it took effect.
pub(crate) fn in_doubt(unwell: &Unwell<'_>, commands: Commands<'_>, paint: Painter, text: &mut String) {
    let id = paint.warn(&format!("? {}", unwell.id));
    let _ = writeln!(text, "{id} is in doubt: it is not known whether its last attempt took effect");
    details(unwell, commands, paint, text);
    let Commands { run, flags, again, is_service_there } = commands;
    let word = shell_word(&unwell.id.to_string());
    let _ = writeln!(text, "    Find out what it did, then say so:");
    for outcome in ["committed", "not-committed"] {
        let _ = match is_service_there {
            true => writeln!(text, "      backstop runs resolve {run} {word} --{outcome} --reason \"how you know\"{flags}"),
            false => writeln!(text, "      {again} --resume {run} --resolve {word}={outcome} --why \"how you know\""),
        };
    }
}

fn details(unwell: &Unwell<'_>, commands: Commands<'_>, paint: Painter, text: &mut String) {
    if let Some(failure) = unwell.failure {
        text.push_str(&explain::failure(failure, paint));
    }
    if let Some(why) = unwell.why_undecided {
        let _ = writeln!(text, "    {} {why}", paint.bold("why:"));
    }
    text.push_str(&unwell.earlier);
    let Commands { run, flags, .. } = commands;
    let _ = writeln!(text, "    {} backstop logs {run} {}{flags}", paint.bold("log:"), shell_word(&unwell.id.to_string()));
}

/// A task that could not run. `blamed` are the upstreams that did not go well, in words.
pub(crate) fn upstream_failed(id: &InstanceId, blamed: &BTreeSet<String>, paint: Painter, text: &mut String) {
    let because = because(blamed).map(|because| format!(": {because}")).unwrap_or_default();
    let _ = writeln!(text, "{} did not run (upstream_failed){because}", paint.warn(&format!("- {id}")));
}

/// The upstreams that did not go well, as many as are worth naming.
pub(crate) fn because(blamed: &BTreeSet<String>) -> Option<String> {
    let named: Vec<&str> = blamed.iter().take(BLAMED_MAX).map(String::as_str).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

/// Callbacks that failed.
pub(crate) fn callbacks<'c>(failed: impl IntoIterator<Item = (&'c CallbackId, &'c Failure)>, paint: Painter, text: &mut String) {
    for (callback, failure) in failed {
        let name = format!("✗ {} of {}", narrate::callback_name(callback), narrate::subject(callback));
        let _ = writeln!(text, "\n{} failed; this changes no task's state", paint.bad(&name));
        text.push_str(&explain::failure(failure, paint));
    }
}

/// A segment that could promise no more, and nobody chose it.
pub(crate) fn ran_at_least_once(id: &InstanceId, segment: u32, reason: &str) -> String {
    format!("{id}: segment {} ran at least once, not exactly once: {reason}", segment + 1)
}

/// Tasks whose author set `delivery: at_least_once`: nothing that anybody has to be warned of.
pub(crate) fn allowed_to_repeat(tasks: &BTreeSet<&str>, text: &mut String) {
    const NAMED_MAX: usize = 10;
    if tasks.is_empty() {
        return;
    }
    let named: Vec<&str> = tasks.iter().take(NAMED_MAX).copied().collect();
    let more = if tasks.len() > NAMED_MAX { format!(" and {} more", tasks.len() - NAMED_MAX) } else { String::new() };
    let _ = writeln!(text, "\n· at least once, as their `delivery` says: {}{more}", named.join(", "));
}

/// Lines of one kind.
pub(crate) fn list(lines: &BTreeSet<String>, paint: Painter, glyph: &str, text: &mut String) {
    if lines.is_empty() {
        return;
    }
    text.push('\n');
    for line in lines.iter().take(TOLD_MAX) {
        let _ = writeln!(text, "{} {line}", paint.warn(glyph));
    }
    if lines.len() > TOLD_MAX {
        let _ = writeln!(text, "… and {} more", words::grouped((lines.len() - TOLD_MAX) as u64));
    }
}
