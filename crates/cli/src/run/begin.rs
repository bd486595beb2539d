//! From arguments to a request: parameters, dates, tasks.

use crate::args::{Place, RenderArgs, RunArgs};
use crate::explain::{self, Problem};
use crate::paths::{self, shell_word};
use crate::words;
use backstop_core::event::RunType;
use backstop_core::{InstanceId, TaskId};
use backstop_project::definition::Definition;
use backstop_project::params;
use backstop_runtime::run::{Decision, Request, new_run_id};
use backstop_runtime::{Clock as _, SystemClock};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use serde_json::{Map, Value};

/// What to run.
pub(super) fn request(definition: &Definition, arguments: &RunArgs, clock: &SystemClock) -> Result<Request, Problem> {
    let logical_date = match &arguments.logical_date {
        Some(text) => parse_date(text, definition)?,
        None => clock.now(),
    };
    Ok(Request {
        run_id: new_run_id(clock),
        logical_date: Some(to_microsecond(logical_date)),
        data_interval: None,
        params: parse_params(definition, &arguments.params)?,
        only_tasks: parse_tasks(definition, &arguments.tasks)?,
        dry_run: arguments.dry_run,
        run_type: RunType::Manual,
        cause: None,
        asked_by: None,
    })
}

/// The store keeps microseconds; what is finer would make a run differ from itself.
fn to_microsecond(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// Typed parameters, defaults filled in.
pub(crate) fn parse_params(definition: &Definition, given: &[(String, String)]) -> Result<Map<String, Value>, Problem> {
    let mut texts = Map::new();
    for (name, value) in given {
        if texts.insert(name.clone(), Value::from(value.as_str())).is_some() {
            return Err(Problem::usage(format!("parameter `{name}` is given twice")));
        }
    }
    params::resolve(&definition.params, &texts).map_err(|errors| explain::of_params(definition.dag.id().as_str(), &errors))
}

/// `2025-05-01` and `2025-05-01T02:00:00` are in the DAG's time zone; a time with an offset is what it says.
pub(crate) fn parse_date(text: &str, definition: &Definition) -> Result<Timestamp, Problem> {
    parse_date_in(text, &definition.timezone)
}

/// As [`parse_date`], in a time zone by its name.
pub(crate) fn parse_date_in(text: &str, timezone: &str) -> Result<Timestamp, Problem> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let zone = TimeZone::get(timezone).unwrap_or(TimeZone::UTC);
    let civil: Option<civil::DateTime> = text.parse().ok();
    civil.and_then(|civil| civil.to_zoned(zone).ok()).map(|zoned| zoned.timestamp()).ok_or_else(|| {
        Problem::usage(format!("`{text}` is not a date")).hint("write 2025-05-01, or a time such as 2025-05-01T02:00:00Z")
    })
}

/// As the system's clock says.
pub(crate) fn now() -> Timestamp {
    SystemClock::starting(None).now()
}

/// The last moment that is meant by the end of a range: a day alone means all of it, of today what has passed.
pub(crate) fn parse_end_in(text: &str, timezone: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    // A time reads as a day, too, with what tells the time left out.
    let day = text.parse::<civil::Date>().ok().filter(|_| !text.contains(['T', 't', ' ', ':', '[']));
    let Some(day) = day else { return parse_date_in(text, timezone) };
    let start = parse_date_in(text, timezone)?;
    let next = day.tomorrow().ok().map(|next| parse_date_in(&next.to_string(), timezone)).transpose()?;
    let end = next.and_then(|next| next.checked_sub(jiff::SignedDuration::from_micros(1)).ok()).unwrap_or(start);
    Ok(if start <= now { end.min(to_microsecond(now)) } else { end })
}

/// The logical date of `render`: as of `run`.
pub(crate) fn date_to_render(arguments: &RenderArgs, definition: &Definition) -> Result<Timestamp, Problem> {
    match &arguments.logical_date {
        Some(text) => parse_date(text, definition),
        None => Ok(SystemClock::starting(None).now()),
    }
}

/// Tasks by id; a group stands for all tasks in it.
fn parse_tasks(definition: &Definition, names: &[String]) -> Result<Vec<TaskId>, Problem> {
    let dag = &definition.dag;
    let mut wanted: Vec<TaskId> = Vec::new();
    for name in names {
        let inside = format!("{name}.");
        let is_group = dag.groups().iter().any(|group| group.id == *name);
        let found = dag.tasks().iter().map(|task| &task.id);
        let found: Vec<&TaskId> =
            found.filter(|id| id.as_str() == name || (is_group && id.as_str().starts_with(&inside))).collect();
        if found.is_empty() {
            return Err(no_such_task(definition, name));
        }
        for id in found {
            if !wanted.contains(id) {
                wanted.push(id.clone());
            }
        }
    }
    Ok(wanted)
}

/// The error for a task that is not there.
pub(crate) fn no_such_task(definition: &Definition, name: &str) -> Problem {
    let mut problem = Problem::usage(format!("there is no task `{name}` in DAG `{}`", definition.dag.id()));
    problem.hints = words::hints_for_name(name, "tasks", definition.dag.tasks().iter().map(|task| task.id.as_str()));
    problem
}

/// What a person says of attempts in doubt.
pub(super) fn decisions(arguments: &RunArgs) -> Result<Vec<Decision>, Problem> {
    let why = arguments.why.as_deref().unwrap_or_default().trim();
    if !arguments.resolutions.is_empty() && why.is_empty() {
        return Err(Problem::usage("--why is empty").hint("say how you know: it is kept in the run's log"));
    }
    let who = who();
    Ok(arguments
        .resolutions
        .iter()
        .map(|said| Decision {
            instance: InstanceId { task: TaskId::new(said.task.as_str()), map_index: said.map_index },
            took_effect: said.took_effect,
            segment: said.segment,
            who: who.clone(),
            why: why.to_owned(),
        })
        .collect())
}

/// Who runs this, as the operating system knows them.
pub(crate) fn who() -> String {
    let uid = nix::unistd::getuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

/// The beginning of a command that means the same target: what is shown to be typed.
pub(super) fn command(arguments: &RunArgs, place: &Place) -> String {
    let mut command = String::from("backstop run");
    if let Some(target) = &arguments.target {
        command.push(' ');
        command.push_str(&shell_word(target));
    }
    if let Some(connection) = &arguments.connection {
        // A URI may hold a password, and this is going to be shown.
        let shown = if connection.contains("://") { "URI".to_owned() } else { shell_word(connection) };
        command.push_str(&format!(" --connection {shown}"));
    }
    command.push_str(&paths::flags(place));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_day_alone_is_all_of_that_day() {
        let end = |text: &str| {
            let now = "2026-11-23T12:00:00Z".parse().unwrap();
            parse_end_in(text, "Europe/Paris", now).map_err(|_| ()).unwrap().to_string()
        };
        assert_eq!(end("2026-11-20"), "2026-11-20T22:59:59.999999Z");
        assert_eq!(end("2026-11-20T09:00:00Z"), "2026-11-20T09:00:00Z");
        assert_eq!(end("2026-11-20T09:00:00+01:00"), "2026-11-20T08:00:00Z");
        assert_eq!(end("2026-11-20T09:00:00"), "2026-11-20T08:00:00Z");
        assert_eq!(end("2026-11-20 09:00"), "2026-11-20T08:00:00Z");
        assert_eq!(end("2026-11-20T00:00"), "2026-11-19T23:00:00Z", "midnight is a time");
        assert_eq!(end("2026-11-23"), "2026-11-23T12:00:00Z", "of today what has passed");
    }
}
