//! Rendering: minijinja with Airflow's names. Templates see no files, no clock, no randomness and no secrets.

pub(crate) mod check;
mod datetime;
mod engine;
mod error;
mod macros;
mod methods;
mod names;
pub(crate) mod pull;
mod values;

pub use error::TemplateError;

use crate::context::Context;
use crate::definition::{Body, Definition, Project, Source, Template};
use minijinja::Environment;
pub(crate) use names::keeps_result;
use names::{Names, Shared};
use serde_json::Value;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, RwLock};

/// What a template may add to its own text.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// True when a text has templates in it.
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Renders the templates of one DAG. Each is compiled once, when it is first rendered: a DAG of 100,000 tasks starts at once.
pub struct Renderer {
    engine: Environment<'static>,
    /// Texts by name, for the engine's loader.
    texts: Arc<RwLock<HashMap<String, Arc<str>>>>,
    shared: Arc<Shared>,
    /// The type of each task's connection, for quoting identifiers.
    conn_types: HashMap<String, Arc<str>>,
}

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renderer").field("dag", &self.shared.dag_id).finish_non_exhaustive()
    }
}

impl Renderer {
    /// A renderer for a DAG.
    pub fn new(project: &Project, definition: &Definition) -> Self {
        let texts: Arc<RwLock<HashMap<String, Arc<str>>>> = Arc::default();
        let mut engine = engine::new();
        let known = texts.clone();
        engine.set_loader(move |name| Ok(known.read().ok().and_then(|known| known.get(name).map(|text| text.to_string()))));
        let conn_type = |body: &Body| {
            let connection = project.connections.get(body.connection.as_ref()?)?;
            Some(Arc::from(connection.conn_type.as_str()))
        };
        let tasks = definition.dag.tasks().iter().zip(&definition.bodies);
        let conn_types = tasks.filter_map(|(task, body)| Some((task.id.as_str().to_owned(), conn_type(body)?))).collect();
        Self { engine, texts, shared: Arc::new(Shared::new(project, definition)), conn_types }
    }

    /// Renders a text.
    ///
    /// # Errors
    /// [`TemplateError`], with its place in the source.
    pub fn render(&self, template: &Template, context: &Context) -> Result<String, TemplateError> {
        if !is_template(&template.text) {
            return Ok(template.text.to_string());
        }
        let name = self.name_of(template);
        let failed = |error: &minijinja::Error| error::locate(error, &template.text, &template.source);
        let compiled = self.engine.get_template(&name).map_err(|error| failed(&error))?;
        let mut output = Output { bytes: Vec::new(), bytes_max: template.text.len().saturating_add(OUTPUT_BYTES_MAX) };
        let rendered = compiled.render_captured_to(self.names(context), &mut output);
        match rendered {
            Ok(_) => String::from_utf8(output.bytes).map_err(|_| error::not_text(&template.source)),
            Err(error) if output.bytes.len() >= output.bytes_max => {
                Err(error::too_much_output(&error, &template.text, &template.source))
            }
            Err(error) => Err(failed(&error)),
        }
    }

    /// Renders the texts in a value. A text that is exactly one `{{ expression }}` keeps the expression's type.
    ///
    /// # Errors
    /// [`TemplateError`], with the place of the value in the source.
    pub fn render_value(&self, value: &Value, source: &Source, context: &Context) -> Result<Value, TemplateError> {
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(value.clone()),
            Value::String(text) => self.render_text_value(text, source, context),
            Value::Array(items) => items.iter().map(|item| self.render_value(item, source, context)).collect(),
            Value::Object(map) => {
                map.iter().map(|(key, value)| Ok((key.clone(), self.render_value(value, source, context)?))).collect()
            }
        }
    }

    fn render_text_value(&self, text: &str, source: &Source, context: &Context) -> Result<Value, TemplateError> {
        if !is_template(text) {
            return Ok(Value::String(text.to_owned()));
        }
        let expression = sole_expression(text).and_then(|inner| self.engine.compile_expression(inner).ok());
        let Some(expression) = expression else {
            let template = Template { text: text.into(), source: source.clone() };
            return self.render(&template, context).map(Value::String);
        };
        let failed = |error: &minijinja::Error| error::of_expression(error, text, source);
        let value = expression.eval(self.names(context)).map_err(|error| failed(&error))?;
        values::to_json(&value).map_err(|error| failed(&error))
    }

    fn names(&self, context: &Context) -> minijinja::Value {
        let conn_type = self.conn_types.get(&context.task_id).cloned();
        minijinja::Value::from_object(Names::new(self.shared.clone(), context.clone(), conn_type))
    }

    /// The engine keeps compiled templates by name. The name holds the place and a hash of the text, so that equal places of different sources
    /// stay apart.
    fn name_of(&self, template: &Template) -> String {
        let mut hasher = DefaultHasher::new();
        template.text.hash(&mut hasher);
        let Source { file, line, column } = &template.source;
        let name = format!("{file}:{line}:{column}:{:x}", hasher.finish());
        let known = self.texts.read().is_ok_and(|texts| texts.contains_key(&name));
        if !known && let Ok(mut texts) = self.texts.write() {
            texts.insert(name.clone(), template.text.clone());
        }
        name
    }
}

/// The expression of a text that is nothing but `{{ expression }}`. It may still be two of them; then it is no expression that compiles.
fn sole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    Some(inner.strip_suffix('-').unwrap_or(inner))
}

/// Output up to a bound.
struct Output {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl io::Write for Output {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > self.bytes_max {
            // The bound is marked as reached, so that the caller can tell this error from others.
            self.bytes.resize(self.bytes_max, b' ');
            return Err(io::Error::other("the output is too large"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every name that templates may use.
#[cfg(test)]
pub(crate) fn names() -> &'static [&'static str] {
    names::NAMES
}
