//! Failures as the log keeps them, made of errors as the rooms below tell them. Secrets are masked here, at the border.

use crate::redact::Redactor;
use backstop_connect as connect;
use backstop_core::event::{Failure, FailureClass, Place, StatementRecord};
use backstop_project::template::TemplateError;

/// Begins a failure. Chain the rest.
pub(crate) fn failure(class: FailureClass, message: impl Into<String>) -> Failure {
    Failure {
        class,
        message: message.into(),
        causes: Vec::new(),
        place: None,
        sqlstate: None,
        native_code: None,
        effect: String::new(),
        hint: None,
        statements: Vec::new(),
    }
}

/// Chained additions to a failure.
pub(crate) trait FailureExt {
    /// What was committed, what was not.
    fn effect(self, text: impl Into<String>) -> Self;
    /// What to do next.
    fn hint(self, text: impl Into<String>) -> Self;
    /// Where.
    fn place(self, place: Option<Place>) -> Self;
    /// The statements that ran before.
    fn statements(self, records: Vec<StatementRecord>) -> Self;
    /// Masks secrets.
    fn clean(self, redactor: &Redactor) -> Self;
}

impl FailureExt for Failure {
    fn effect(mut self, text: impl Into<String>) -> Self {
        self.effect = text.into();
        self
    }

    fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    fn place(mut self, place: Option<Place>) -> Self {
        self.place = place.or(self.place);
        self
    }

    fn statements(mut self, records: Vec<StatementRecord>) -> Self {
        self.statements = records;
        self
    }

    fn clean(mut self, redactor: &Redactor) -> Self {
        redactor.clean_string(&mut self.message);
        redactor.clean_string(&mut self.effect);
        self.causes.iter_mut().for_each(|cause| redactor.clean_string(cause));
        if let Some(hint) = &mut self.hint {
            redactor.clean_string(hint);
        }
        for record in &mut self.statements {
            redactor.clean_string(&mut record.summary);
            record.notices.iter_mut().for_each(|notice| redactor.clean_string(notice));
        }
        self
    }
}

/// The messages below an error, outermost first, without repeating one that its parent has said already.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
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

/// A database's error.
pub(crate) fn of_database(error: &connect::Error) -> Failure {
    use connect::ErrorKind;
    let class = match error.kind {
        ErrorKind::Config => FailureClass::Final,
        ErrorKind::Cancelled => FailureClass::Cancelled,
        kind if kind.is_transient() => FailureClass::Transient,
        _ => FailureClass::Permanent,
    };
    let mut told = causes(error);
    if let Some(detail) = &error.detail {
        told.insert(0, detail.clone());
    }
    Failure {
        sqlstate: error.sqlstate.clone(),
        native_code: error.native_code.clone(),
        hint: error.hint.clone(),
        causes: told,
        ..failure(class, error.to_string())
    }
}

/// The error of a bound parameter's template. `place` is its key's, where that is found.
pub(crate) fn of_parameter(error: &TemplateError, name: &str, place: Option<Place>) -> Failure {
    let told = of_template(error);
    let message = format!("render the parameter `{name}`: {}", error.message);
    Failure { message, place: place.or(told.place), ..told }
}

/// A template's error: it would be the same on every try, but a variable or an upstream's result may be mended meanwhile.
pub(crate) fn of_template(error: &TemplateError) -> Failure {
    let place = Place { file: error.file.clone(), line: error.line, column: error.column, statement: None };
    Failure {
        place: Some(place),
        hint: error.hint.clone(),
        ..failure(FailureClass::Permanent, format!("render the template: {}", error.message))
    }
    .effect("nothing was sent")
}
