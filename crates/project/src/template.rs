//! Rendering: minijinja with Airflow's names. Templates see no files, no clock, no randomness and no secrets.

use crate::context::Context;
use crate::definition::{Definition, Project, Source, Template};
use serde_json::Value;

/// Renders the templates of one DAG. Each is compiled once.
pub struct Renderer {}

/// Why a template could not be rendered. The message never holds a rendered text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct TemplateError {
    /// Relative to the project folder.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1; 1 where only the line is known.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Renderer {
    /// A renderer for a DAG.
    pub fn new(_project: &Project, _definition: &Definition) -> Self {
        Self {}
    }

    /// Renders a text.
    ///
    /// # Errors
    /// [`TemplateError`], with its place in the source.
    pub fn render(&self, template: &Template, _context: &Context) -> Result<String, TemplateError> {
        Ok(template.text.to_string())
    }

    /// Renders the texts in a value. A text that is exactly one `{{ expression }}` keeps the expression's type.
    ///
    /// # Errors
    /// [`TemplateError`], with the place of the value in the source.
    pub fn render_value(&self, value: &Value, _source: &Source, _context: &Context) -> Result<Value, TemplateError> {
        Ok(value.clone())
    }
}
