//! Airflow's `macros`, those that are deterministic.

use super::datetime::{DateTime, TimeDelta, refuse, span_of};
use jiff::civil;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use minijinja::value::{Object, ObjectRepr, Rest, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use std::fmt;
use std::sync::Arc;

/// What `macros.` has.
pub(super) const MACROS: &[&str] = &["ds_add", "ds_format", "datetime", "timedelta"];

/// What Airflow's `macros.` has, and a rendering must not: it would give another text each time, and a retry would not be the same work.
pub(super) const REFUSED: &[&str] = &["random", "uuid", "time"];

/// `macros`.
#[derive(Debug)]
pub(super) struct Macros;

/// `macros.datetime`, which is called, and has `strptime`.
#[derive(Debug)]
struct DateTimeType;

impl Object for Macros {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "datetime" => Some(Value::from_object(DateTimeType)),
            "timedelta" => Some(Value::from_function(|args: Rest<Value>| timedelta(&args))),
            name if REFUSED.contains(&name) => Some(Value::from(refused(name))),
            _ => None,
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("macros")
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "ds_add" => {
                let (ds, days): (&str, i64) = from_args(args)?;
                let date = day(ds)?;
                let span = jiff::Span::new().try_days(days).map_err(|_| refuse("the date would be out of range"))?;
                let moved = date.checked_add(span).map_err(|_| refuse("the date would be out of range"))?;
                Ok(moved.strftime("%Y-%m-%d").to_string().into())
            }
            "ds_format" => {
                let (text, from, to): (&str, &str, &str) = from_args(args)?;
                parse(text, from)?.strftime(to).map(Value::from)
            }
            "datetime" => datetime(args),
            "timedelta" => timedelta(args),
            name if REFUSED.contains(&name) => Err(refused(name)),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

impl Object for DateTimeType {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        datetime(args)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        match method {
            "strptime" => {
                let (text, format): (&str, &str) = from_args(args)?;
                parse(text, format).map(DateTime::value)
            }
            "fromisoformat" => {
                let (text,): (&str,) = from_args(args)?;
                DateTime::parse(text).map(DateTime::value)
            }
            "now" | "utcnow" | "today" => {
                Err(refuse("a template has no clock: a retry must do the same work; use `logical_date`"))
            }
            "timedelta" => timedelta(args),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

fn refused(name: &str) -> Error {
    refuse(format!(
        "`macros.{name}` is not available: a template renders to the same text each time, so that a retry does the same work"
    ))
}

fn day(text: &str) -> Result<civil::Date, Error> {
    text.parse().map_err(|_| refuse("this text is no date such as 2025-05-01"))
}

/// Python's strptime; what the format leaves open is the beginning of the day, in UTC.
fn parse(text: &str, format: &str) -> Result<DateTime, Error> {
    let parsed = strtime::parse(format.replace("%f", "%6f"), text)
        .map_err(|error| refuse(format!("the text does not fit the format: {error}")))?;
    if let Ok(timestamp) = parsed.to_timestamp() {
        return Ok(DateTime::utc(timestamp));
    }
    let date = parsed.to_date().map_err(|error| refuse(error.to_string()))?;
    let time = parsed.to_time().unwrap_or(civil::Time::midnight());
    date.to_datetime(time).to_zoned(TimeZone::UTC).map(DateTime).map_err(|error| refuse(error.to_string()))
}

/// `datetime(2025, 5, 1, 2, 30)`.
fn datetime(args: &[Value]) -> Result<Value, Error> {
    let (year, month, day, time): (i16, i8, i8, Rest<i8>) = from_args(args)?;
    let part = |nth: usize| time.get(nth).copied().unwrap_or(0);
    if time.len() > 3 {
        return Err(refuse("datetime takes year, month, day, hour, minute, second"));
    }
    let civil = civil::DateTime::new(year, month, day, part(0), part(1), part(2), 0);
    let zoned = civil.and_then(|civil| civil.to_zoned(TimeZone::UTC));
    zoned.map(|zoned| DateTime(zoned).value()).map_err(|_| refuse("there is no such date"))
}

fn timedelta(args: &[Value]) -> Result<Value, Error> {
    // Python's first argument is days.
    if let [days] = args
        && let Some(days) = days.as_i64()
    {
        let span = jiff::Span::new().try_days(days).map_err(|_| refuse("`days` is out of range"))?;
        return Ok(Value::from_object(TimeDelta(span)));
    }
    span_of(args).map(|span| Value::from_object(TimeDelta(span)))
}
