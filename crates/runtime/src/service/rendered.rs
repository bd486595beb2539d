//! The SQL of a task instance as its templates make it in its run, for people who look on: from the sources that the run is pinned to,
//! with what the run's log tells and the variables in force now. Secrets are masked before anything is rendered, so that no template can
//! turn one into something that is not known for it, and once more after that.

use super::{Error, Service};
use crate::attempt::{Began, Results, Seen, params_of};
use crate::redact::Redactor;
use backstop_core::{InstanceId, RunId};
use backstop_project::context::Context;
use backstop_project::definition::{Bound, BranchBy, Check, Definition, Kind, Parameters, Project, Sensor, SensorBy, Template};
use backstop_project::template::Renderer;
use backstop_project::{TemplateError, is_secret_key};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a text that are told, at most.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// What a task instance asks of its database.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderedSql {
    /// The try that it is rendered for: the last, or the first to come.
    pub try_number: u32,
    /// Its kind, as the DAG's file says it.
    pub kind: &'static str,
    /// Where it is sent.
    pub connection: Option<String>,
    /// Its texts; none of a kind that sends no SQL of its author's.
    pub texts: Vec<SqlText>,
}

/// One text.
#[derive(Clone, Debug, PartialEq)]
pub struct SqlText {
    /// What it is for.
    pub what: &'static str,
    /// Where its template is.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// Rendered, at most [`TEXT_BYTES_MAX`].
    pub sql: String,
    /// True when the end of it is left out.
    pub is_cut: bool,
    /// The values that are bound, by name.
    pub parameters: BTreeMap<String, Value>,
}

impl Service {
    /// The SQL of a task instance.
    ///
    /// # Errors
    /// No such run or instance; `Conflict` when it cannot be rendered: the sources of its run are gone, or a template wants what is not
    /// there; the store.
    pub async fn rendered_sql(&self, run: &RunId, instance: &InstanceId) -> Result<RenderedSql, Error> {
        let row = self.row(run).await?;
        let (prepared, _) = self.pinned(&row.header).await.map_err(Error::Conflict)?;
        let definition = prepared.definition.clone();
        // The log, and not the engine of a run that goes on: rendering must not hold that up.
        let idle = self.idle(&row).await?;
        let state = idle.state();
        let Some(place) = definition.dag.index(instance.task.as_str()) else {
            return Err(self.no_instance(&row, instance.clone()).await);
        };
        let is_mapped = definition.body(place).for_each.is_some();
        let item = instance.map_index.and_then(|index| state.items(instance.task.as_str())?.get(index as usize));
        if is_mapped != item.is_some() || !is_mapped && instance.map_index.is_some() {
            return Err(self.no_instance(&row, instance.clone()).await);
        }
        let began_at = state.began_at().unwrap_or_else(|| self.now());
        let began = Began::look(&*self.store, &prepared, &row.header, began_at).await.map_err(Error::Store)?;
        let seen = Seen {
            header: &row.header,
            definition: &definition,
            params: params_of(&row.header),
            began: Some(&began),
            results: Results::of(state),
        };
        let try_number = state.instance(instance).map_or(1, |view| view.try_number.max(1));
        let item = item.and_then(|item| serde_json::from_str(item).ok());
        let context = seen.context(Some(instance), try_number, item, None);
        // A template may do a lot of work.
        let rendered = tokio::task::spawn_blocking(move || {
            let (project, redactor) = (&prepared.project, prepared.redactor());
            let page = Page { renderer: Renderer::new(&masked_project(project, &redactor), &definition), context, redactor };
            page.rendered(&definition)
        });
        rendered.await.unwrap_or_else(|_| Err(Error::Conflict("rendering it failed: this is a bug in Backstop".into())))
    }
}

/// As templates may see it here.
fn masked_project(project: &Arc<Project>, redactor: &Redactor) -> Project {
    let mask = |(name, value): (&String, &Value)| {
        let value = if is_secret_key(name) { Value::from("***") } else { redactor.clean_named(value) };
        (name.clone(), value)
    };
    Project { variables: project.variables.iter().map(mask).collect(), ..Project::clone(project) }
}

/// A text that the author of a task wrote for its database.
pub(crate) struct Part<'k> {
    /// What it is for.
    pub(crate) what: &'static str,
    pub(crate) template: &'k Template,
    /// Bound by name, where that can be.
    pub(crate) parameters: Option<&'k Parameters>,
    /// False where `{{ }}` in it means nothing.
    pub(crate) is_template: bool,
}

/// The texts of a kind of task that its author wrote; those that are made for the database when it runs are not among them.
pub(crate) fn templates(kind: &Kind) -> Vec<Part<'_>> {
    fn part<'k>(what: &'static str, template: &'k Template, parameters: Option<&'k Parameters>) -> Part<'k> {
        Part { what, template, parameters, is_template: true }
    }
    match kind {
        Kind::Sql(sql) => {
            vec![Part { is_template: sql.templated, ..part("script", &sql.script, Some(&sql.parameters)) }]
        }
        Kind::Check(Check::Query { sql, parameters } | Check::Value { sql, parameters, .. }) => {
            vec![part("check", sql, Some(parameters))]
        }
        Kind::Check(Check::Threshold { sql, parameters, min, max }) => {
            let bounds = [("lower bound", min), ("upper bound", max)].into_iter().filter_map(|(what, bound)| match bound {
                Some(Bound::Sql(sql)) => Some(part(what, sql, None)),
                Some(Bound::Number(_)) | None => None,
            });
            std::iter::once(part("check", sql, Some(parameters))).chain(bounds).collect()
        }
        Kind::Branch(branch) => match &branch.decide {
            BranchBy::Sql { sql, parameters } => vec![part("branch", sql, Some(parameters))],
            BranchBy::When(_) | BranchBy::Python(_) => Vec::new(),
        },
        Kind::Sensor(Sensor { look: SensorBy::Sql { sql, parameters, .. }, .. }) => vec![part("sensor", sql, Some(parameters))],
        // Their SQL is made for the database when they run.
        Kind::Check(Check::Columns { .. } | Check::Table { .. } | Check::Interval { .. })
        | Kind::Sensor(_)
        | Kind::Shell(_)
        | Kind::Python(_)
        | Kind::Http(_)
        | Kind::Dag(_)
        | Kind::WaitFor(_)
        | Kind::Commit(_)
        | Kind::Empty => Vec::new(),
    }
}

/// Renders the texts of one instance.
struct Page {
    renderer: Renderer,
    context: Context,
    redactor: Arc<Redactor>,
}

impl Page {
    fn rendered(&self, definition: &Definition) -> Result<RenderedSql, Error> {
        let place = definition.dag.index(&self.context.task_id);
        let body = place.map(|place| definition.body(place));
        let body = body.ok_or_else(|| Error::Conflict(format!("task `{}` is gone", self.context.task_id)))?;
        let texts = self.texts(&body.kind).map_err(|error| self.refusal(&error))?;
        Ok(RenderedSql {
            try_number: self.context.try_number,
            kind: body.kind.name(),
            connection: body.connection.clone(),
            texts,
        })
    }

    fn refusal(&self, error: &TemplateError) -> Error {
        let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let told = format!("{}:{}:{}: render the template: {}{hint}", error.file, error.line, error.column, error.message);
        Error::Conflict(self.redactor.clean(&told).into_owned())
    }

    fn texts(&self, kind: &Kind) -> Result<Vec<SqlText>, TemplateError> {
        templates(kind).into_iter().map(|part| self.text(part.what, part.template, part.parameters, part.is_template)).collect()
    }

    fn text(
        &self,
        what: &'static str,
        template: &Template,
        parameters: Option<&Parameters>,
        is_template: bool,
    ) -> Result<SqlText, TemplateError> {
        let rendered = match is_template {
            true => self.renderer.render(template, &self.context)?,
            false => template.text.to_string(),
        };
        // Masked before it is cut: a half of a secret is not known for one.
        let mut sql = self.redactor.clean_sql(&rendered);
        let is_cut = sql.len() > TEXT_BYTES_MAX;
        if is_cut {
            let end = (0..=TEXT_BYTES_MAX).rev().find(|end| sql.is_char_boundary(*end)).unwrap_or(0);
            sql.truncate(end);
        }
        let bind = |(name, value): (&String, &Value)| {
            let value = self.renderer.render_value(value, &template.source, &self.context)?;
            let value = if is_secret_key(name) { Value::from("***") } else { self.redactor.clean_named(&value) };
            Ok((name.clone(), value))
        };
        let parameters = parameters.into_iter().flatten().map(bind).collect::<Result<_, TemplateError>>()?;
        let source = &template.source;
        Ok(SqlText { what, file: source.file.to_string(), line: source.line, sql, is_cut, parameters })
    }
}
