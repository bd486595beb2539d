//! Task kinds: the key that says what a task does, and what stands under it.

use super::Reading;
use crate::definition::*;
use crate::diagnostic::{Diagnostic, code};
use crate::files;
use crate::yaml::{Fields, Node, Value};
use std::sync::Arc;
use std::time::Duration;

/// The kinds of this version.
pub(crate) const KINDS: &[&str] = &["sql", "check", "branch", "sensor", "shell", "python", "http", "dag", "wait_for", "empty"];

/// Bytes a kept result may take, unless the task says otherwise.
pub(crate) const RESULT_BYTES_MAX: u32 = 64 << 10;
/// The most a task may say.
const RESULT_BYTES_LIMIT: u32 = 16 << 20;

const RESULTS: &[(&str, ResultKind)] =
    &[("none", ResultKind::None), ("scalar", ResultKind::Scalar), ("row", ResultKind::Row), ("rows", ResultKind::Rows)];

/// A kind that was read, and where.
pub(crate) struct ReadKind<'n> {
    pub(crate) kind: Kind,
    pub(crate) node: &'n Arc<Node>,
}

impl Reading<'_> {
    /// Reads the one kind of a task or callback. `owner` is where a missing kind is reported.
    pub(crate) fn kind<'n>(&mut self, fields: &mut Fields<'n>, allowed: &[&'static str], owner: &Node) -> Option<ReadKind<'n>> {
        let script_settings = self.script_settings(fields);
        let mut found: Vec<(&'static str, _, &'n Arc<Node>)> = Vec::new();
        for name in allowed {
            found.extend(fields.take_entry(name).map(|(key, node)| (*name, key, node)));
        }
        let (name, key, node) = match found.as_slice() {
            [] => {
                let later = super::task::LATER_KINDS.iter().any(|later| fields.has(later));
                if !later && !allowed.iter().any(|kind| fields.misspells(kind)) {
                    let hint = format!("add one of {}", allowed.join(", "));
                    self.error_with_hint(code::MISSING_KEY, "nothing says what this does", owner, hint);
                }
                return None;
            }
            [one] => *one,
            [first, second, ..] => {
                let message = format!("a task has one kind, this has `{}` and `{}`", first.0, second.0);
                let first = self.key_span(first.1);
                let second = self.key_span(second.1);
                self.diagnostics.push(
                    Diagnostic::error(code::CONFLICT, message, second).label(first, "first here").hint("make two tasks of it"),
                );
                return None;
            }
        };
        if name != "sql" {
            for (setting, key) in &script_settings.keys {
                let at = self.key_span(key);
                let message = format!("`{setting}` is a setting of sql tasks, this is {name}");
                self.diagnostics
                    .push(Diagnostic::error(code::CONFLICT, message, at).hint(format!("put it below `{name}:` if it has it")));
            }
        }
        if node.is_null() && name != "empty" {
            let at = self.key_span(key);
            self.diagnostics.push(Diagnostic::error(code::WRONG_TYPE, format!("`{name}` has no value"), at));
            return None;
        }
        let kind = match name {
            "sql" => Kind::Sql(self.script(node, script_settings)?),
            "check" => Kind::Check(self.check(node)?),
            "branch" => Kind::Branch(self.branch(node)?),
            "sensor" => Kind::Sensor(self.sensor(node)?),
            "shell" => Kind::Shell(self.shell(node)?),
            "python" => Kind::Python(self.python(node)?),
            "http" => Kind::Http(self.http(node)?),
            "dag" => self.trigger_dag(node)?,
            "wait_for" => self.wait_for(node)?,
            _ => self.empty(node)?,
        };
        Some(ReadKind { kind, node })
    }

    fn script_settings<'n>(&mut self, fields: &mut Fields<'n>) -> ScriptSettings<'n> {
        let mut settings = ScriptSettings { keys: Vec::new(), ..ScriptSettings::default() };
        for name in ["parameters", "autocommit", "result", "result_max", "templated"] {
            let Some((key, node)) = fields.take_entry(name) else { continue };
            settings.keys.push((name, key));
            match name {
                "parameters" => settings.parameters = self.parameters(node, "`parameters`"),
                "autocommit" => settings.autocommit = self.boolean(node, "`autocommit`"),
                "result" => settings.result = self.choice(node, "`result`", RESULTS),
                "result_max" => settings.result_max = self.size(node, "`result_max`", RESULT_BYTES_LIMIT),
                _ => settings.templated = self.boolean(node, "`templated`"),
            }
        }
        settings
    }

    fn script(&mut self, node: &Node, settings: ScriptSettings<'_>) -> Option<Sql> {
        let templated = settings.templated.unwrap_or(true);
        Some(Sql {
            script: self.sql(node, templated)?,
            parameters: settings.parameters,
            autocommit: settings.autocommit.unwrap_or(false),
            result: settings.result.unwrap_or_default(),
            result_bytes_max: settings.result_max.unwrap_or(RESULT_BYTES_MAX),
            templated,
        })
    }

    fn branch(&mut self, node: &Node) -> Option<Branch> {
        let entries = self.map(node, "`branch`")?;
        let mut fields = Fields::new("Branch", entries);
        let parameters = fields.take_present("parameters").map(|node| self.parameters(node, "`parameters`"));
        let (sql, when, python) = (fields.take_present("sql"), fields.take_present("when"), fields.take_present("python"));
        let if_true = fields.take("if_true").map(|node| self.texts(node, "`if_true`")).unwrap_or_default();
        let if_false = fields.take("if_false").map(|node| self.texts(node, "`if_false`")).unwrap_or_default();
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let decide = match (sql, when, python) {
            (Some(sql), None, None) => BranchBy::Sql { sql: self.sql(sql, true)?, parameters: parameters.unwrap_or_default() },
            (None, Some(when), None) => BranchBy::When(self.template(when, "`when`")?),
            (None, None, Some(python)) => BranchBy::Python(self.python(python)?),
            (None, None, None) => {
                self.error(code::MISSING_KEY, "a branch decides by `sql`, `when` or `python`", node);
                return None;
            }
            _ => {
                self.error(code::CONFLICT, "a branch decides by one of `sql`, `when` and `python`", node);
                return None;
            }
        };
        if if_true.is_empty() && if_false.is_empty() && matches!(decide, BranchBy::Sql { .. }) {
            let hint = "name the tasks to follow: `if_true: [load]`, `if_false: [skip_load]`";
            self.error_with_hint(code::MISSING_KEY, "the branch follows nothing", node, hint);
        }
        let owned = |texts: Vec<(Arc<str>, &Node)>| texts.into_iter().map(|(text, _)| text.to_string()).collect();
        Some(Branch { decide, if_true: owned(if_true), if_false: owned(if_false) })
    }

    fn sensor(&mut self, node: &Node) -> Option<Sensor> {
        const POKE: Duration = Duration::from_secs(60);
        const TIMEOUT: Duration = Duration::from_secs(7 * 86400);
        let entries = self.map(node, "`sensor`")?;
        let mut fields = Fields::new("Sensor", entries);
        let parameters = fields.take_present("parameters").map(|node| self.parameters(node, "`parameters`"));
        let fail_on_empty = fields.take_present("fail_on_empty").and_then(|node| self.boolean(node, "`fail_on_empty`"));
        let poke = fields.take_present("poke_interval").and_then(|node| self.duration_above_zero(node, "`poke_interval`"));
        let timeout = fields.take_present("timeout").and_then(|node| self.duration_above_zero(node, "`timeout`"));
        let soft_fail = fields.take_present("soft_fail").and_then(|node| self.boolean(node, "`soft_fail`"));
        let sql = fields.take_present("sql");
        let others = [fields.take_present("file"), fields.take_present("http"), fields.take_present("time")];
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let look = match (sql, others) {
            (Some(sql), [None, None, None]) => SensorBy::Sql {
                sql: self.sql(sql, true)?,
                parameters: parameters.unwrap_or_default(),
                fail_on_empty: fail_on_empty.unwrap_or(false),
            },
            (None, [Some(file), None, None]) => SensorBy::File(self.template(file, "`file`")?),
            (None, [None, Some(http), None]) => SensorBy::Http(self.http(http)?),
            (None, [None, None, Some(time)]) => SensorBy::Time(self.point_in_time(time, "`time`")?),
            (None, [None, None, None]) => {
                self.error(code::MISSING_KEY, "a sensor looks at `sql`, `file`, `http` or `time`", node);
                return None;
            }
            _ => {
                self.error(code::CONFLICT, "a sensor looks at one of `sql`, `file`, `http` and `time`", node);
                return None;
            }
        };
        Some(Sensor {
            look,
            poke_interval: poke.unwrap_or(POKE),
            timeout: timeout.unwrap_or(TIMEOUT),
            soft_fail: soft_fail.unwrap_or(false),
        })
    }

    /// A time without a template is checked at once.
    pub(super) fn point_in_time(&mut self, node: &Node, what: &str) -> Option<Template> {
        let template = self.template(node, what)?;
        if !crate::template::is_template(&template.text) && template.text.trim().parse::<jiff::Timestamp>().is_err() {
            let hint = "write it with an offset, `2025-05-01T02:00:00Z`, or as a template, `{{ data_interval_end.add(hours=2).isoformat() }}`";
            self.error_with_hint(code::BAD_DATE, format!("{what} is not a point in time: `{}`", template.text), node, hint);
            return None;
        }
        Some(template)
    }

    fn shell(&mut self, node: &Node) -> Option<Shell> {
        const SKIP: i32 = 99;
        if !matches!(node.value, Value::Map(_)) {
            let command = self.template(node, "`shell`")?;
            return Some(Shell { command, env: Default::default(), cwd: None, skip_on_exit_code: SKIP });
        }
        let entries = self.map(node, "`shell`")?;
        let mut fields = Fields::new("Shell", entries);
        let command = fields.take_present("command").map(|node| self.template(node, "`command`"));
        let env = fields.take_present("env").map(|node| self.templates(node, "`env`")).unwrap_or_default();
        let cwd = fields.take_present("cwd").and_then(|node| self.inside_path(node, "`cwd`"));
        let skip = fields.take_present("skip_on_exit_code").and_then(|node| self.integer(node, "`skip_on_exit_code`", 1, 255));
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let Some(command) = command else {
            self.error(code::MISSING_KEY, "`shell` needs a `command`", node);
            return None;
        };
        let skip_on_exit_code = skip.and_then(|code| i32::try_from(code).ok()).unwrap_or(SKIP);
        Some(Shell { command: command?, env, cwd, skip_on_exit_code })
    }

    fn python(&mut self, node: &Node) -> Option<Python> {
        const INTERPRETER: &str = "python3";
        if !matches!(node.value, Value::Map(_)) {
            let file = self.python_file(node)?;
            let interpreter = INTERPRETER.to_owned();
            return Some(Python { code: PythonCode::File(file), function: None, args: Default::default(), interpreter });
        }
        let entries = self.map(node, "`python`")?;
        let mut fields = Fields::new("Python", entries);
        let (file, inline) = (fields.take_present("file"), fields.take_present("code"));
        let function = fields.take_present("function").map(|node| self.text(node, "`function`"));
        let args = fields.take_present("args").map(|node| self.parameters(node, "`args`")).unwrap_or_default();
        let interpreter = fields.take_present("interpreter").map(|node| self.text(node, "`interpreter`"));
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let code = match (file, inline) {
            (Some(file), None) => PythonCode::File(self.python_file(file)?),
            (None, Some(inline)) => PythonCode::Inline(inline.source(&self.file), self.text(inline, "`code`")?),
            (None, None) => {
                self.error(code::MISSING_KEY, "`python` needs a `file` or `code`", node);
                return None;
            }
            (Some(_), Some(_)) => {
                self.error(code::CONFLICT, "`python` has a `file` or `code`, not both", node);
                return None;
            }
        };
        let function = match function {
            Some(function) => Some(function?.to_string()),
            None => None,
        };
        let interpreter = match interpreter {
            Some(interpreter) => interpreter?.to_string(),
            None => INTERPRETER.to_owned(),
        };
        Some(Python { code, function, args, interpreter })
    }

    fn python_file(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "`python`")?;
        let path = text.trim();
        if !super::value::is_file(path, ".py") {
            let hint = "name a file that ends in `.py`, or write `python: {code: ...}`";
            self.error_with_hint(code::BAD_VALUE, "`python` is the path of a file", node, hint);
            return None;
        }
        self.text_of_file(path, node)?;
        Some(files::normal(path))
    }

    /// A path that stays in the project folder; it may not be there yet.
    fn inside_path(&mut self, node: &Node, what: &str) -> Option<String> {
        let path = self.text(node, what)?;
        if files::leads_outside(&path) {
            let hint = "name a folder below the project folder; a command may still `cd` where it likes";
            self.error_with_hint(code::OUTSIDE, format!("{what} leads out of the project folder"), node, hint);
            return None;
        }
        Some(path.to_string())
    }

    fn http(&mut self, node: &Node) -> Option<Http> {
        const TIMEOUT: Duration = Duration::from_secs(60);
        let mut http = Http {
            method: "GET".to_owned(),
            url: Template { text: "".into(), source: node.source(&self.file) },
            headers: Default::default(),
            body: None,
            expect: Vec::new(),
            result: false,
            timeout: TIMEOUT,
        };
        if !matches!(node.value, Value::Map(_)) {
            http.url = self.url(node)?;
            return Some(http);
        }
        let entries = self.map(node, "`http`")?;
        let mut fields = Fields::new("Http", entries);
        let url = fields.take_present("url").map(|node| self.url(node));
        if let Some(method) = fields.take_present("method") {
            http.method = self.method(method)?;
        }
        http.headers = fields.take_present("headers").map(|node| self.templates(node, "`headers`")).unwrap_or_default();
        if let Some(body) = fields.take_present("body") {
            http.body = Some(match &body.value {
                Value::Scalar { .. } => HttpBody::Text(self.template(body, "`body`")?),
                Value::List(_) | Value::Map(_) => HttpBody::Json(self.json(body)),
            });
        }
        if let Some(expect) = fields.take_present("expect") {
            http.expect = self.statuses(expect);
        }
        http.result = fields.take_present("result").and_then(|node| self.boolean(node, "`result`")).unwrap_or(false);
        if let Some(timeout) = fields.take_present("timeout") {
            http.timeout = self.duration_above_zero(timeout, "`timeout`").unwrap_or(TIMEOUT);
        }
        fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
        let Some(url) = url else {
            self.error(code::MISSING_KEY, "`http` needs a `url`", node);
            return None;
        };
        http.url = url?;
        Some(http)
    }

    fn url(&mut self, node: &Node) -> Option<Template> {
        let url = self.template(node, "`url`")?;
        let lower = url.text.to_lowercase();
        if !url.text.trim_start().starts_with("{{") && !lower.starts_with("http://") && !lower.starts_with("https://") {
            self.error(code::BAD_VALUE, "a URL starts with http:// or https://", node);
            return None;
        }
        Some(url)
    }

    fn method(&mut self, node: &Node) -> Option<String> {
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"].map(|name| (name, name));
        let upper = self.text(node, "`method`")?.to_uppercase();
        match methods.iter().find(|(name, _)| *name == upper) {
            Some((name, _)) => Some((*name).to_owned()),
            None => self.choice(node, "`method`", &methods).map(str::to_owned),
        }
    }

    fn statuses(&mut self, node: &Arc<Node>) -> Vec<u16> {
        let items = node.as_list().unwrap_or(std::slice::from_ref(node));
        let mut statuses = Vec::with_capacity(items.len());
        for item in items {
            statuses.extend(self.integer(item, "a status", 100, 599).and_then(|status| u16::try_from(status).ok()));
        }
        statuses
    }

    fn empty(&mut self, node: &Node) -> Option<Kind> {
        if node.is_null() || node.as_bool() == Some(true) {
            return Some(Kind::Empty);
        }
        self.error(code::WRONG_TYPE, "write `empty: true`", node);
        None
    }
}

/// The keys beside `sql:`.
#[derive(Default)]
struct ScriptSettings<'n> {
    keys: Vec<(&'static str, &'n crate::yaml::Key)>,
    parameters: Parameters,
    autocommit: Option<bool>,
    result: Option<ResultKind>,
    result_max: Option<u32>,
    templated: Option<bool>,
}
