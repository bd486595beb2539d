//! What the server said when it refused, and what kind of refusal that is.

use crate::error::{Error, ErrorKind};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::ErrorFields;

/// What to do about a procedure that is refused its COMMIT or ROLLBACK.
const COMMITS_INSIDE: &str = "a procedure cannot commit or roll back inside of a transaction: take that out of it, or call it in a task with `autocommit: true`";

/// An ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerMessage {
    pub(super) severity: String,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) position: Option<u32>,
    pub(super) context: Option<String>,
}

impl ServerMessage {
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut read = Self::default();
        // A message that is cut short still tells what it told so far.
        while let Ok(Some(field)) = fields.next() {
            let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                // V is the severity that is never translated; servers before 9.6 send S alone.
                b'V' => read.severity = text,
                b'S' if read.severity.is_empty() => read.severity = text,
                b'C' => read.code = text,
                b'M' => read.message = text,
                b'D' => read.detail = Some(text),
                b'H' => read.hint = Some(text),
                b'P' => read.position = text.parse().ok(),
                b'W' => read.context = Some(text),
                _ => {}
            }
        }
        read
    }

    /// True when the server closes the connection after it.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// As an observer sees it.
    pub(super) fn notice(&self) -> String {
        let mut text = format!("{}: {}", self.severity, self.message);
        for (name, more) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if let Some(more) = more {
                text.push_str(&format!("\n{name}: {more}"));
            }
        }
        text
    }

    /// As a classified error. It has no cause: the message's own text would only repeat its fields.
    pub(super) fn into_error(self, operation: &str) -> Error {
        let kind = if self.is_fatal() { fatal_kind(&self.code) } else { kind(&self.code) };
        let mut error = Error::new(kind, operation, one_line(&self.message));
        error.sqlstate = Some(self.code.clone());
        error.position = self.position;
        error.hint = self.hint.clone().or_else(|| (self.code == "2D000").then(|| COMMITS_INSIDE.to_owned()));
        error.detail = match (&self.detail, &self.context) {
            (Some(detail), Some(context)) => Some(format!("{detail}\n{context}")),
            (detail, context) => detail.clone().or_else(|| context.clone()),
        };
        error
    }
}

fn one_line(text: &str) -> String {
    text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// An error after which the session is gone.
fn fatal_kind(code: &str) -> ErrorKind {
    match code {
        "28000" | "28P01" | "3D000" => ErrorKind::Refused,
        "53300" => ErrorKind::Resources,
        // Starting up, or not accepting connections.
        "57P03" => ErrorKind::Unreachable,
        _ if code.starts_with("42") || code.starts_with("22") => kind(code),
        _ => ErrorKind::Lost,
    }
}

/// Classes and codes of the manual's appendix "PostgreSQL Error Codes".
fn kind(code: &str) -> ErrorKind {
    match code {
        "40P01" => ErrorKind::Deadlock,
        "40001" => ErrorKind::Serialization,
        "55P03" => ErrorKind::LockTimeout,
        "57014" => ErrorKind::Cancelled,
        "42501" | "25006" => ErrorKind::Permission,
        "57P04" | "57P05" | "25P03" => ErrorKind::Lost,
        "0B000" => ErrorKind::Permission,
        _ => match code.get(..2).unwrap_or_default() {
            "08" => ErrorKind::Lost,
            "23" => ErrorKind::Constraint,
            "28" => ErrorKind::Refused,
            "42" => ErrorKind::Syntax,
            "53" => ErrorKind::Resources,
            _ => ErrorKind::Other,
        },
    }
}

/// The error for a link that broke or spoke nonsense.
pub(super) fn lost(operation: &str, source: std::io::Error) -> Error {
    let message = match source.kind() {
        std::io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => "the connection broke".to_owned(),
        _ => format!("the connection failed ({source})"),
    };
    let mut error = Error::new(ErrorKind::Lost, operation, message);
    error.source = Some(Box::new(source));
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_not_told_again_as_its_cause() {
        let said =
            ServerMessage { severity: "ERROR".into(), code: "42P01".into(), message: "no t".into(), ..ServerMessage::default() };
        let error = said.into_error("run a statement on db");
        assert_eq!((error.to_string().as_str(), error.sqlstate.as_deref()), ("run a statement on db: no t", Some("42P01")));
        assert!(std::error::Error::source(&error).is_none());
    }

    #[test]
    fn codes_are_classified() {
        let kinds =
            ["40P01", "40001", "55P03", "57014", "23505", "42601", "42P01", "42501", "25006", "53100", "08006", "22012", "XX000"];
        let kinds: Vec<_> = kinds.iter().map(|code| format!("{code} {:?}", kind(code))).collect();
        insta::assert_snapshot!(kinds.join(", "), @"40P01 Deadlock, 40001 Serialization, 55P03 LockTimeout, 57014 Cancelled, 23505 Constraint, 42601 Syntax, 42P01 Syntax, 42501 Permission, 25006 Permission, 53100 Resources, 08006 Lost, 22012 Other, XX000 Other");
    }
}
