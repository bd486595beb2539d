//! `backstop render`: a task's texts as they would be sent, the values that would be bound, and what each segment promises.

use crate::args::{Place, RenderArgs};
use crate::explain::{Exit, Problem};
use crate::output::{self, Painter};
use crate::run::begin;
use crate::sources::{self, Chosen, Purpose};
use backstop_connect::script::{self, SegmentEnd, SegmentPromise};
use backstop_connect::{Capabilities, Dialect};
use backstop_project::definition::{
    Body, Bound, Branch, BranchBy, Check, ForEach, Http, HttpBody, Kind, Parameters, Project, PythonCode, Sensor, SensorBy,
    Shell, Sql, Template, TriggerDag, WaitFor,
};
use backstop_project::{Context, Renderer, TemplateError};
use backstop_runtime::{Redactor, connection_config};
use serde_json::Value;
use std::fmt::Write as _;

/// Renders.
pub(crate) fn render(arguments: &RenderArgs, place: &Place) -> Result<Exit, Problem> {
    let Chosen { project, definition, .. } = sources::choose(&arguments.dag, None, place, Purpose::Look)?;
    let Some(task) = definition.dag.index(&arguments.task) else {
        return Err(begin::no_such_task(&definition, &arguments.task));
    };
    let body = definition.body(task);
    let mut context = Context::new("rendered-by-hand", definition.dag.id().as_str(), arguments.task.as_str());
    context.params = begin::parse_params(&definition, &arguments.params)?;
    context.logical_date = Some(begin::date_to_render(arguments, &definition)?);
    context.run_start = context.logical_date;
    if let (Some(timetable), Some(date)) = (&definition.timetable, context.logical_date) {
        (context.previous_logical_date, context.next_logical_date) = timetable.around(date);
    }
    context.max_tries = definition.dag.task(task).settings.retry.retries;
    let page = Page { renderer: Renderer::new(&project, &definition), context, paint: Painter::stdout(), text: String::new() };
    let page = page.with_item(arguments, body).map_err(|problem| clean(problem, &Redactor::of(&project)))?;
    let redactor = Redactor::of(&project);
    let text = page.body(&project, body).map_err(|problem| clean(problem, &redactor))?;
    output::data(&redactor.clean_sql(&text))?;
    Ok(Exit::Success)
}

/// An error may quote what was rendered.
fn clean(mut problem: Problem, redactor: &Redactor) -> Problem {
    let texts = std::iter::once(&mut problem.message).chain(&mut problem.causes).chain(&mut problem.hints);
    texts.for_each(|text| *text = redactor.clean(text).into_owned());
    problem
}

impl From<TemplateError> for Problem {
    fn from(error: TemplateError) -> Self {
        let mut problem =
            Problem::usage(format!("{}:{}:{}: render the template: {}", error.file, error.line, error.column, error.message));
        problem.hints.extend(error.hint);
        problem
    }
}

/// What is printed.
struct Page {
    renderer: Renderer,
    context: Context,
    paint: Painter,
    text: String,
}

impl Page {
    /// Chooses the item of a mapped task.
    fn with_item(mut self, arguments: &RenderArgs, body: &Body) -> Result<Self, Problem> {
        let Some(for_each) = &body.for_each else {
            if arguments.item.is_some() || arguments.map_index.is_some() {
                return Err(Problem::usage(format!("task `{}` is not mapped: it has no items", arguments.task)));
            }
            return Ok(self);
        };
        self.context.map_index = Some(arguments.map_index.unwrap_or(0));
        if let Some(text) = &arguments.item {
            let item = serde_json::from_str(text).map_err(|error| {
                Problem::usage("--item is not JSON").cause(error.to_string()).hint("a text wants quotes: --item '\"eu\"'")
            })?;
            self.context.item = Some(item);
            return Ok(self);
        }
        let items = match for_each {
            ForEach::List(items, source) => self.renderer.render_value(&Value::Array(items.clone()), source, &self.context)?,
            ForEach::Expression(template) => {
                self.renderer.render_value(&Value::from(template.text.to_string()), &template.source, &self.context)?
            }
            ForEach::Rows { .. } => Value::Null,
        };
        let index = arguments.map_index.unwrap_or(0) as usize;
        match items {
            Value::Array(items) if index < items.len() => self.context.item = items.into_iter().nth(index),
            Value::Array(items) => {
                return Err(Problem::usage(format!(
                    "task `{}` has {} items: there is none with index {index}",
                    arguments.task,
                    items.len()
                )));
            }
            _ => {
                return Err(Problem::usage(format!("the items of `{}` are known only in a run", arguments.task))
                    .hint("give one as JSON with --item, such as --item '{\"region\": \"eu\"}'"));
            }
        }
        Ok(self)
    }

    fn heading(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let heading = self.paint.bold(&format!("-- {text}"));
        let _ = writeln!(self.text, "{heading}");
    }

    fn body(mut self, project: &Project, body: &Body) -> Result<String, Problem> {
        let on = body.connection.as_ref().map(|id| format!(", connection {id}")).unwrap_or_default();
        self.heading(&format!("{} ({}{on})", self.context.task_id.clone(), body.kind.name()));
        match &body.kind {
            Kind::Sql(sql) => self.script(project, body, sql)?,
            Kind::Check(check) => self.check(check)?,
            Kind::Branch(branch) => self.branch(branch)?,
            Kind::Sensor(sensor) => self.sensor(sensor)?,
            Kind::Shell(shell) => self.shell(shell)?,
            Kind::Python(python) => self.python(&python.code, &python.args, body)?,
            Kind::Http(http) => self.http(http)?,
            Kind::Dag(trigger) => self.trigger(trigger, body)?,
            Kind::WaitFor(wait) => self.wait_for(wait)?,
            Kind::Commit(_) => self.text.push_str("commits what the tasks of its group did, in one transaction\n"),
            Kind::Empty => self.text.push_str("does nothing\n"),
        }
        Ok(self.text)
    }

    fn template(&mut self, name: &str, template: &Template) -> Result<String, Problem> {
        let rendered = self.renderer.render(template, &self.context)?;
        if !name.is_empty() {
            self.heading(name);
        }
        self.text.push_str(rendered.trim_end());
        self.text.push('\n');
        Ok(rendered)
    }

    fn query(&mut self, name: &str, sql: &Template, parameters: &Parameters) -> Result<(), Problem> {
        self.template(name, sql)?;
        self.parameters(parameters, sql)
    }

    fn parameters(&mut self, parameters: &Parameters, near: &Template) -> Result<(), Problem> {
        if parameters.is_empty() {
            return Ok(());
        }
        self.heading("bound parameters");
        for (name, value) in parameters {
            let value = self.renderer.render_value(value, &near.source, &self.context)?;
            let _ = writeln!(self.text, ":{name} = {value}");
        }
        Ok(())
    }

    fn script(&mut self, project: &Project, body: &Body, sql: &Sql) -> Result<(), Problem> {
        let text = if sql.templated {
            self.template("", &sql.script)?
        } else {
            self.text.push_str(sql.script.text.trim_end());
            self.text.push('\n');
            sql.script.text.to_string()
        };
        self.parameters(&sql.parameters, &sql.script)?;
        let Some((id, connection)) = body.connection.as_ref().and_then(|id| Some((id, project.connections.get(id)?))) else {
            return Ok(());
        };
        let connector = backstop_connect::connector(&connection_config(id, connection, &project.root))
            .map_err(|error| Problem::from(error).exit(Exit::Usage))?;
        self.segments(&text, sql, connector.dialect(), connector.capabilities())
    }

    fn segments(&mut self, text: &str, sql: &Sql, dialect: Dialect, capabilities: Capabilities) -> Result<(), Problem> {
        let of_split = |error: script::SplitError| {
            let mut problem =
                Problem::usage(format!("line {}, column {} of the rendered script: {}", error.line, error.column, error.what));
            problem.hints.extend(error.hint);
            problem
        };
        let statements = script::split(dialect, text).map_err(of_split)?;
        let segments = script::plan(dialect, text, &statements, sql.autocommit).map_err(of_split)?;
        self.heading("segments: statements that commit together");
        for segment in &segments {
            let inside = &statements[segment.statements.clone()];
            let numbers = match inside {
                [] => "no statement".to_owned(),
                [one] => format!("statement {}, line {}", one.number, one.line),
                [first, .., last] => {
                    format!("statements {} to {}, lines {} to {}", first.number, last.number, first.line, last.line)
                }
            };
            let promise = match (&segment.end, &segment.promise) {
                (SegmentEnd::Rollback, _) => "rolled back by the script: no effect".to_owned(),
                (SegmentEnd::Commit, SegmentPromise::ExactlyOnce) if !capabilities.markers => {
                    "at least once: this database cannot keep a marker with the data".to_owned()
                }
                (SegmentEnd::Commit, SegmentPromise::ExactlyOnce) => "exactly once".to_owned(),
                (SegmentEnd::Commit, SegmentPromise::ReadOnly) => "read-only".to_owned(),
                (SegmentEnd::Commit, SegmentPromise::AtLeastOnce(reason)) => format!("at least once: {reason}"),
            };
            let _ = writeln!(self.text, "{}: {numbers}: {promise}", segment.number + 1);
        }
        if segments.is_empty() {
            self.text.push_str("none: the script has no statement\n");
        }
        Ok(())
    }

    fn check(&mut self, check: &Check) -> Result<(), Problem> {
        match check {
            Check::Query { sql, parameters } => self.query("every value of the first row must be true", sql, parameters),
            Check::Value { sql, parameters, equals, tolerance } => {
                let equals = self.renderer.render_value(equals, &sql.source, &self.context)?;
                let within = tolerance.map(|ratio| format!(", within {} %", ratio * 100.0)).unwrap_or_default();
                self.query(&format!("every value of the first row must equal {equals}{within}"), sql, parameters)
            }
            Check::Threshold { sql, parameters, min, max } => {
                self.query("the first value must lie between the bounds", sql, parameters)?;
                self.bound("lower bound", min.as_ref())?;
                self.bound("upper bound", max.as_ref())
            }
            Check::Columns { table, columns, partition, accept_none: _ } => {
                self.template("columns of the table", table)?;
                for (column, checks) in columns {
                    let _ = writeln!(self.text, "{column}: {checks:?}");
                }
                self.partition(partition.as_ref())
            }
            Check::Table { table, checks, partition } => {
                self.template("the table", table)?;
                for (name, condition) in checks {
                    self.template(name, condition)?;
                }
                self.partition(partition.as_ref())
            }
            Check::Interval { table, metrics, date_column, days_back, ratio: _, ignore_zero: _ } => {
                self.template("the table", table)?;
                let _ = writeln!(self.text, "by {date_column}, against {days_back} days before");
                for (metric, limit) in metrics {
                    let _ = writeln!(self.text, "{metric}: ratio at most {limit}");
                }
                Ok(())
            }
        }
    }

    fn bound(&mut self, name: &str, bound: Option<&Bound>) -> Result<(), Problem> {
        match bound {
            Some(Bound::Number(number)) => {
                self.heading(name);
                let _ = writeln!(self.text, "{number}");
            }
            Some(Bound::Sql(sql)) => {
                self.template(name, sql)?;
            }
            None => {}
        }
        Ok(())
    }

    fn partition(&mut self, partition: Option<&Template>) -> Result<(), Problem> {
        if let Some(partition) = partition {
            self.template("only rows where", partition)?;
        }
        Ok(())
    }

    fn branch(&mut self, branch: &Branch) -> Result<(), Problem> {
        match &branch.decide {
            BranchBy::Sql { sql, parameters } => self.query("the first value decides", sql, parameters)?,
            BranchBy::When(template) => {
                self.template("decides", template)?;
            }
            BranchBy::Python(python) => self.code(&python.code),
        }
        for (name, tasks) in [("if true", &branch.if_true), ("if false", &branch.if_false)] {
            if !tasks.is_empty() {
                let _ = writeln!(self.text, "{name}: {}", tasks.join(", "));
            }
        }
        Ok(())
    }

    fn sensor(&mut self, sensor: &Sensor) -> Result<(), Problem> {
        match &sensor.look {
            SensorBy::Sql { sql, parameters, fail_on_empty: _ } => {
                self.query("waits until the first value is true", sql, parameters)
            }
            SensorBy::File(path) => self.template("waits for the file", path).map(drop),
            SensorBy::Http(http) => self.http(http),
            SensorBy::Time(time) => self.template("waits until", time).map(drop),
        }
    }

    fn trigger(&mut self, trigger: &TriggerDag, body: &Body) -> Result<(), Problem> {
        let waits = if trigger.wait { ", and waits for it" } else { "" };
        let _ = writeln!(self.text, "starts a run of {}{waits}", trigger.dag);
        if let Some(date) = &trigger.logical_date {
            self.template("its logical date", date)?;
        }
        if !trigger.params.is_empty() {
            self.heading("its parameters");
        }
        for (name, value) in &trigger.params {
            let value = self.renderer.render_value(value, &body.source, &self.context)?;
            let _ = writeln!(self.text, "{name} = {value}");
        }
        Ok(())
    }

    fn wait_for(&mut self, wait: &WaitFor) -> Result<(), Problem> {
        let task = wait.task.as_ref().map(|task| format!("task {task} of ")).unwrap_or_default();
        let _ = writeln!(self.text, "waits for {task}a run of {}", wait.dag);
        match &wait.logical_date {
            Some(date) => self.template("its logical date", date).map(drop),
            None => Ok(()),
        }
    }

    fn shell(&mut self, shell: &Shell) -> Result<(), Problem> {
        self.template("", &shell.command)?;
        if !shell.env.is_empty() {
            self.heading("environment");
        }
        for (name, value) in &shell.env {
            // A variable may well be a secret that came in by a template's other ways; what is shown is what the project says.
            let value = self.renderer.render(value, &self.context)?;
            let _ = writeln!(self.text, "{name}={value}");
        }
        Ok(())
    }

    fn python(
        &mut self,
        code: &PythonCode,
        arguments: &std::collections::BTreeMap<String, Value>,
        body: &Body,
    ) -> Result<(), Problem> {
        self.code(code);
        if !arguments.is_empty() {
            self.heading("arguments");
        }
        for (name, value) in arguments {
            let value = self.renderer.render_value(value, &body.source, &self.context)?;
            let _ = writeln!(self.text, "{name} = {value}");
        }
        Ok(())
    }

    fn code(&mut self, code: &PythonCode) {
        let text = match code {
            PythonCode::File(path) => format!("the file {path}"),
            PythonCode::Inline(_, text) => text.trim_end().to_owned(),
        };
        let _ = writeln!(self.text, "{text}");
    }

    fn http(&mut self, http: &Http) -> Result<(), Problem> {
        let url = self.renderer.render(&http.url, &self.context)?;
        let _ = writeln!(self.text, "{} {url}", http.method);
        for (name, value) in &http.headers {
            let value = self.renderer.render(value, &self.context)?;
            let is_secret =
                ["authorization", "cookie", "token", "key", "secret"].iter().any(|word| name.to_ascii_lowercase().contains(word));
            let _ = writeln!(self.text, "{name}: {}", if is_secret { "***" } else { &value });
        }
        match &http.body {
            Some(HttpBody::Text(template)) => {
                self.template("body", template)?;
            }
            Some(HttpBody::Json(value)) => {
                let value = self.renderer.render_value(value, &http.url.source, &self.context)?;
                self.heading("body");
                let _ = writeln!(self.text, "{value:#}");
            }
            None => {}
        }
        Ok(())
    }
}
