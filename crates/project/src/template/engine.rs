//! The engine: strict, without clock, randomness and files, and with a bound on what one rendering may cost.

use super::datetime::DateTime;
use super::{methods, values};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};

/// Steps of one rendering; an instruction is one, and so are 64 bytes made.
pub(super) const STEPS_MAX: u64 = 10_000_000;

/// An engine without templates.
pub(super) fn new() -> Environment<'static> {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_fuel(Some(STEPS_MAX));
    // Debug information would hold the values of the context.
    engine.set_debug(false);
    engine.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // A script keeps the line feed at its end.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        engine.set_syntax(syntax);
    }
    engine.set_formatter(|output, state, value| {
        if value.is_none() {
            let message = "the value is none, and `none` in a text is hardly what is meant; add `| default('...', true)`";
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
        if value.kind() == ValueKind::Invalid {
            return Err(values::error_in(value));
        }
        minijinja::escape_formatter(output, state, value)
    });
    engine.remove_global("debug");
    engine.set_unknown_method_callback(methods::call);
    engine.add_filter("ds", |value: Value| DateTime::of(&value).map(|date| date.ds()));
    engine.add_filter("ds_nodash", |value: Value| DateTime::of(&value).map(|date| date.ds_nodash()));
    engine.add_filter("ts", |value: Value| DateTime::of(&value).map(|date| date.isoformat()));
    engine.add_filter("ts_nodash", |value: Value| DateTime::of(&value).map(|date| date.ts_nodash()));
    engine.add_filter("ts_nodash_with_tz", |value: Value| DateTime::of(&value).map(|date| date.ts_nodash_with_tz()));
    engine.add_filter("identifier", identifier);
    engine.add_filter("shell_quote", shell_quote);
    // The engine's own filter lets a refused attribute through as a text that tells of the refusal.
    engine.add_filter("attr", |value: Value, name: &str| {
        let found = value.get_attr(name)?;
        if found.kind() == ValueKind::Invalid { Err(values::error_in(&found)) } else { Ok(found) }
    });
    engine
}

/// Quotes a text for a POSIX shell: whatever is in it, it is one word, and none of it is run.
fn shell_quote(value: Value) -> Result<String, Error> {
    if value.is_none() || value.is_undefined() {
        return Err(Error::new(ErrorKind::InvalidOperation, "there is no text to quote for the shell"));
    }
    if value.kind() == ValueKind::Invalid {
        return Err(values::error_in(&value));
    }
    let text = value.to_string();
    if text.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidOperation, "a word of a shell command cannot hold a zero byte"));
    }
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

/// Quotes a name for SQL, as the database of the task's connection wants it. A list is a qualified name.
fn identifier(state: &mut State<'_, '_>, value: Value) -> Result<String, Error> {
    let mysql = state.lookup("backstop_conn_type").is_some_and(|conn_type| conn_type.as_str() == Some("mysql"));
    let quote = if mysql { '`' } else { '"' };
    let quoted = |part: &Value| -> Result<String, Error> {
        let refused = |what: &str| Error::new(ErrorKind::InvalidOperation, format!("an identifier {what}"));
        let text = part.as_str().ok_or_else(|| refused("must be a text, or a list of texts"))?;
        if text.is_empty() {
            return Err(refused("is empty"));
        }
        if text.contains('\0') {
            return Err(refused("holds a zero byte"));
        }
        let doubled = text.replace(quote, &format!("{quote}{quote}"));
        Ok(format!("{quote}{doubled}{quote}"))
    };
    if value.kind() == ValueKind::Seq {
        let parts: Result<Vec<String>, Error> = value.try_iter()?.map(|part| quoted(&part)).collect();
        return parts.map(|parts| parts.join("."));
    }
    quoted(&value)
}
