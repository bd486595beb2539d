//! Dates in templates: objects with the attributes and methods that people know from Airflow (pendulum).

use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Unit, Zoned, ZonedRound};
use minijinja::value::{DynObject, Kwargs, Object, ObjectRepr, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A point in time, in a zone.
#[derive(Debug, Clone)]
pub(super) struct DateTime(pub(super) Zoned);

/// A length of time (`macros.timedelta`), for [`DateTime`]'s `add` and `subtract`.
#[derive(Debug, Clone)]
pub(super) struct TimeDelta(pub(super) Span);

/// An error of a date's making or use.
pub(super) fn refuse(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

impl DateTime {
    /// In UTC, as Airflow's context has it.
    pub(super) fn utc(timestamp: Timestamp) -> Self {
        Self(timestamp.to_zoned(TimeZone::UTC))
    }

    pub(super) fn value(self) -> Value {
        Value::from_object(self)
    }

    /// A date, or a text that is one.
    pub(super) fn of(value: &Value) -> Result<Self, Error> {
        if let Some(date) = value.downcast_object_ref::<Self>() {
            return Ok(date.clone());
        }
        let text = value.as_str().ok_or_else(|| refuse("this is no date"))?;
        Self::parse(text)
    }

    /// `2025-05-01`, or a time with or without offset; without one it is UTC.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Ok(Self::utc(timestamp));
        }
        let civil: civil::DateTime = text.parse().map_err(|_| refuse("this text is no date such as 2025-05-01"))?;
        civil.to_zoned(TimeZone::UTC).map(Self).map_err(|error| refuse(error.to_string()))
    }

    pub(super) fn ds(&self) -> String {
        self.0.strftime("%Y-%m-%d").to_string()
    }

    pub(super) fn ds_nodash(&self) -> String {
        self.0.strftime("%Y%m%d").to_string()
    }

    pub(super) fn ts_nodash(&self) -> String {
        self.0.strftime("%Y%m%dT%H%M%S").to_string()
    }

    pub(super) fn ts_nodash_with_tz(&self) -> String {
        self.0.strftime("%Y%m%dT%H%M%S%z").to_string()
    }

    /// Python's isoformat: microseconds where there are any.
    pub(super) fn isoformat(&self) -> String {
        self.iso('T')
    }

    fn iso(&self, between: char) -> String {
        let format = if self.0.subsec_nanosecond() / 1000 == 0 { "%H:%M:%S%:z" } else { "%H:%M:%S.%6f%:z" };
        format!("{}{between}{}", self.0.strftime("%Y-%m-%d"), self.0.strftime(format))
    }

    /// Python's strftime.
    pub(super) fn strftime(&self, format: &str) -> Result<String, Error> {
        let format = format.replace("%f", "%6f");
        jiff::fmt::strtime::format(&format, &self.0).map_err(|error| refuse(format!("the format is wrong: {error}")))
    }

    fn shifted(&self, args: &[Value], backwards: bool) -> Result<Value, Error> {
        let span = span_of(args)?;
        let span = if backwards { span.negate() } else { span };
        let moved = self.0.checked_add(span).map_err(|_| refuse("the date would be out of range"))?;
        Ok(Self(moved).value())
    }

    fn in_zone(&self, name: &str) -> Result<Value, Error> {
        let zone = TimeZone::get(name).map_err(|_| refuse(format!("there is no time zone `{name}`")))?;
        Ok(Self(self.0.with_time_zone(zone)).value())
    }

    fn start_of(&self, unit: &str) -> Result<Zoned, Error> {
        let date = self.0.date();
        let day = match unit {
            "hour" | "minute" | "second" => {
                let unit = match unit {
                    "hour" => Unit::Hour,
                    "minute" => Unit::Minute,
                    _ => Unit::Second,
                };
                let round = ZonedRound::new().smallest(unit).mode(jiff::RoundMode::Trunc);
                return self.0.round(round).map_err(|error| refuse(error.to_string()));
            }
            "day" => date,
            "week" => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                date.checked_sub(Span::new().days(days)).map_err(|error| refuse(error.to_string()))?
            }
            "month" => date.first_of_month(),
            "quarter" => {
                civil::Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).map_err(|error| refuse(error.to_string()))?
            }
            "year" => date.first_of_year(),
            _ => return Err(refuse("the unit must be hour, day, week, month, quarter or year")),
        };
        day.to_zoned(self.0.time_zone().clone()).map_err(|error| refuse(error.to_string()))
    }

    fn end_of(&self, unit: &str) -> Result<Zoned, Error> {
        let length = match unit {
            "second" => Span::new().seconds(1),
            "minute" => Span::new().minutes(1),
            "hour" => Span::new().hours(1),
            "day" => Span::new().days(1),
            "week" => Span::new().weeks(1),
            "month" => Span::new().months(1),
            "quarter" => Span::new().months(3),
            _ => Span::new().years(1),
        };
        let next = self.start_of(unit)?.checked_add(length);
        let last = next.and_then(|next| next.checked_sub(Span::new().microseconds(1)));
        last.map_err(|error| refuse(error.to_string()))
    }

    fn replaced(&self, args: &[Value]) -> Result<Value, Error> {
        let (named,): (Kwargs,) = from_args(args)?;
        let mut with = self.0.with();
        for name in named.args().map(str::to_owned).collect::<Vec<_>>() {
            let value: i32 = named.get(&name)?;
            let out_of_range = |_| refuse(format!("`{name}` is out of range"));
            let small = i8::try_from(value).map_err(out_of_range);
            with = match name.as_str() {
                "year" => with.year(i16::try_from(value).map_err(out_of_range)?),
                "month" => with.month(small?),
                "day" => with.day(small?),
                "hour" => with.hour(small?),
                "minute" => with.minute(small?),
                "second" => with.second(small?),
                "microsecond" => {
                    with.subsec_nanosecond(value.checked_mul(1000).ok_or_else(|| refuse("`microsecond` is out of range"))?)
                }
                _ => return Err(refuse(format!("a date has no `{name}` to replace"))),
            };
        }
        named.assert_all_used()?;
        with.build().map(|zoned| Self(zoned).value()).map_err(|_| refuse("there is no such date"))
    }

    fn attribute(&self, name: &str) -> Option<Value> {
        let zoned = &self.0;
        Some(match name {
            "year" => zoned.year().into(),
            "month" => zoned.month().into(),
            "day" => zoned.day().into(),
            "hour" => zoned.hour().into(),
            "minute" => zoned.minute().into(),
            "second" => zoned.second().into(),
            "microsecond" => (zoned.subsec_nanosecond() / 1000).into(),
            "quarter" => ((zoned.month() - 1) / 3 + 1).into(),
            "day_of_year" => zoned.day_of_year().into(),
            "day_of_week" => zoned.weekday().to_monday_zero_offset().into(),
            "week_of_year" => zoned.date().iso_week_date().week().into(),
            "days_in_month" => zoned.days_in_month().into(),
            "int_timestamp" => zoned.timestamp().as_second().into(),
            "timezone_name" | "tzinfo" => zoned.time_zone().iana_name().unwrap_or("UTC").into(),
            _ => return None,
        })
    }
}

impl Object for DateTime {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.attribute(key.as_str()?)
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.0.timestamp().cmp(&other.downcast_ref::<Self>()?.0.timestamp()))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As Python's str() of a datetime.
        f.write_str(&self.iso(' '))
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let none = || from_args::<()>(args);
        match method {
            "strftime" => {
                let (format,): (&str,) = from_args(args)?;
                self.strftime(format).map(Value::from)
            }
            "isoformat" => {
                let (between,): (Option<char>,) = from_args(args)?;
                Ok(self.iso(between.unwrap_or('T')).into())
            }
            "to_iso8601_string" => none().map(|()| self.isoformat().replace("+00:00", "Z").into()),
            "to_date_string" => none().map(|()| self.ds().into()),
            "to_datetime_string" => none().map(|()| self.0.strftime("%Y-%m-%d %H:%M:%S").to_string().into()),
            "date" => none().and_then(|()| self.start_of("day")).map(|day| Value::from(Self(day).ds())),
            "timestamp" => none().map(|()| (self.0.timestamp().as_microsecond() as f64 / 1e6).into()),
            "weekday" => none().map(|()| self.0.weekday().to_monday_zero_offset().into()),
            "isoweekday" => none().map(|()| self.0.weekday().to_monday_one_offset().into()),
            "is_weekend" => none().map(|()| matches!(self.0.weekday(), Weekday::Saturday | Weekday::Sunday).into()),
            "add" => self.shifted(args, false),
            "subtract" => self.shifted(args, true),
            "in_timezone" | "in_tz" | "astimezone" => {
                let (name,): (&str,) = from_args(args)?;
                self.in_zone(name)
            }
            "start_of" => {
                let (unit,): (&str,) = from_args(args)?;
                self.start_of(unit).map(|zoned| Self(zoned).value())
            }
            "end_of" => {
                let (unit,): (&str,) = from_args(args)?;
                self.end_of(unit).map(|zoned| Self(zoned).value())
            }
            "replace" => self.replaced(args),
            "format" => Err(refuse("`format` of dates is not available; use `strftime`, such as `.strftime('%Y-%m-%d')`")),
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }
}

impl Object for TimeDelta {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.0.is_zero()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `days=1, hours=2`, or a timedelta.
pub(super) fn span_of(args: &[Value]) -> Result<Span, Error> {
    if let [one] = args
        && let Some(delta) = one.downcast_object_ref::<TimeDelta>()
    {
        return Ok(delta.0);
    }
    let (positional, named): (&[Value], Kwargs) = from_args(args)?;
    if !positional.is_empty() {
        return Err(refuse("name the units: `.add(days=1)`"));
    }
    let mut span = Span::new();
    for name in named.args().map(str::to_owned).collect::<Vec<_>>() {
        let value: i64 = named.get(&name).map_err(|_| refuse(format!("`{name}` must be a whole number")))?;
        let unit = |span: Result<Span, jiff::Error>| span.map_err(|_| refuse(format!("`{name}` is out of range")));
        span = match name.as_str() {
            "years" => unit(span.try_years(value))?,
            "months" => unit(span.try_months(value))?,
            "weeks" => unit(span.try_weeks(value))?,
            "days" => unit(span.try_days(value))?,
            "hours" => unit(span.try_hours(value))?,
            "minutes" => unit(span.try_minutes(value))?,
            "seconds" => unit(span.try_seconds(value))?,
            "milliseconds" => unit(span.try_milliseconds(value))?,
            "microseconds" => unit(span.try_microseconds(value))?,
            _ => {
                return Err(refuse(format!(
                    "`{name}` is no unit; there are years, months, weeks, days, hours, minutes, seconds"
                )));
            }
        };
    }
    named.assert_all_used()?;
    Ok(span)
}
