//! When a DAG runs: `schedule`, its time zone and bounds, and deadlines.

use super::Reading;
use crate::diagnostic::{code, did_you_mean};
use crate::yaml::{Fields, Node, Value};
use backstop_core::timetable::{AssetExpr, BadCron, Cron, Deadline, Every, IntervalReading, Reference, Schedule, Timetable};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;

/// Airflow's presets. `@once` is none of a calendar.
const PRESETS: &[(&str, Option<&str>)] = &[
    ("@once", None),
    ("@hourly", Some("0 * * * *")),
    ("@daily", Some("0 0 * * *")),
    ("@midnight", Some("0 0 * * *")),
    ("@weekly", Some("0 0 * * 0")),
    ("@monthly", Some("0 0 1 * *")),
    ("@quarterly", Some("0 0 1 */3 *")),
    ("@yearly", Some("0 0 1 1 *")),
    ("@annually", Some("0 0 1 1 *")),
];

/// Schedules of later versions.
const LATER: &[&str] = &["events", "any", "all"];
/// Keys of deadlines in later versions.
const LATER_OF_DEADLINES: &[&str] = &["notify", "name"];

/// Most schedules of one DAG, and most deadlines: each is looked at for each tick.
const SCHEDULES_MAX: usize = 100;
/// In characters.
const ASSET_NAME_LENGTH_MAX: usize = 250;
/// How deep conditions on assets may nest.
const ASSETS_DEEP_MAX: usize = 16;

/// What a DAG says of its times.
pub(crate) struct Times {
    /// The schedules in words, for people.
    pub(crate) schedule: Option<String>,
    pub(crate) timezone: String,
    pub(crate) start_date: Option<Timestamp>,
    pub(crate) end_date: Option<Timestamp>,
    pub(crate) catchup: bool,
    /// Absent where the DAG has no schedule, and where its schedules have errors.
    pub(crate) timetable: Option<Timetable>,
    pub(crate) max_active_runs: u32,
    pub(crate) deadlines: Vec<Deadline>,
}

/// What the schedules of a DAG share.
struct Common {
    zone: TimeZone,
    /// Where intervals of elapsed time stand.
    anchor: Timestamp,
}

impl Reading<'_> {
    /// Reads all keys of a DAG that tell of times.
    pub(super) fn times(&mut self, fields: &mut Fields<'_>) -> Times {
        // Airflow's default.
        const MAX_ACTIVE_RUNS: u32 = 16;
        let zone = fields.take_present("timezone").and_then(|node| self.zone(node));
        let (timezone, zone) = zone.unwrap_or_else(|| ("UTC".to_owned(), TimeZone::UTC));
        let start_date = fields.take_present("start_date").and_then(|node| self.timestamp(node, "`start_date`", &zone));
        let end_node = fields.take_present("end_date");
        let end_date = end_node.and_then(|node| self.last_timestamp(node, "`end_date`", &zone));
        if let (Some(start), Some(end), Some(node)) = (start_date, end_date, end_node)
            && end < start
        {
            self.error(code::BAD_DATE, "`end_date` is before `start_date`", node);
        }
        let catchup = fields.take_present("catchup").and_then(|node| self.boolean(node, "`catchup`")).unwrap_or(false);
        let readings = [("tick", IntervalReading::Tick), ("classic", IntervalReading::Classic)];
        let interval = fields.take_present("data_interval").and_then(|node| self.choice(node, "`data_interval`", &readings));
        // Without a start, intervals stand on a midnight of the zone, so that `every: 1h` is at full hours there.
        let midnight =
            jiff::civil::date(1970, 1, 1).to_zoned(zone.clone()).map_or(Timestamp::UNIX_EPOCH, |midnight| midnight.timestamp());
        let common = Common { anchor: start_date.unwrap_or(midnight), zone };
        let read = fields.take_present("schedule").and_then(|node| self.schedules(node, &common));
        let (schedules, words) = read.unzip();
        let timetable = schedules.map(|schedules| Timetable {
            schedules,
            start: start_date,
            end: end_date,
            catchup,
            interval: interval.unwrap_or_default(),
        });
        let active = fields.take_present("max_active_runs").and_then(|node| self.count(node, "`max_active_runs`", 1));
        let deadlines = fields.take_present("deadlines").map(|node| self.deadlines(node, &common.zone)).unwrap_or_default();
        Times {
            schedule: words,
            timezone,
            start_date,
            end_date,
            catchup,
            timetable,
            max_active_runs: active.unwrap_or(MAX_ACTIVE_RUNS),
            deadlines,
        }
    }

    fn zone(&mut self, node: &Node) -> Option<(String, TimeZone)> {
        let name = self.text(node, "`timezone`")?;
        match TimeZone::get(&name) {
            Ok(zone) => Some((name.to_string(), zone)),
            Err(_) => {
                let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
                let near = did_you_mean(&name, known.iter().map(String::as_str));
                let ends = || known.iter().map(String::as_str).find(|known| known.ends_with(&format!("/{name}")));
                let hint = match near.or_else(ends) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "write an IANA name such as `Europe/Paris` or `UTC`".to_owned(),
                };
                self.error_with_hint(code::BAD_TIMEZONE, format!("there is no time zone `{name}`"), node, hint);
                None
            }
        }
    }

    /// One schedule, or a list of them; with words for people.
    fn schedules(&mut self, node: &Node, common: &Common) -> Option<(Vec<Schedule>, String)> {
        let Some(items) = node.as_list() else {
            let (schedule, words) = self.schedule(node, common)?;
            return Some((vec![schedule], words));
        };
        if items.is_empty() {
            self.nothing_says_when(node);
            return None;
        }
        if items.len() > SCHEDULES_MAX {
            self.error(code::BAD_VALUE, format!("a DAG has at most {SCHEDULES_MAX} schedules, this has {}", items.len()), node);
            return None;
        }
        // All are read, so that all that is wrong is told; one that is wrong leaves none.
        let read: Vec<_> = items.iter().map(|item| self.schedule(item, common)).collect();
        let read: Option<Vec<(Schedule, String)>> = read.into_iter().collect();
        let (schedules, words): (Vec<Schedule>, Vec<String>) = read?.into_iter().unzip();
        Some((schedules, words.join(", ")))
    }

    fn schedule(&mut self, node: &Node, common: &Common) -> Option<(Schedule, String)> {
        let Some(entries) = node.as_map() else { return self.cron(node, &common.zone) };
        let mut fields = Fields::new("Schedule", entries);
        let (cron, zone) = (fields.take_present("cron"), fields.take_present("timezone"));
        let (every, assets) = (fields.take_present("every"), fields.take_present("assets"));
        let misspelt = ["cron", "every", "assets"].iter().any(|key| fields.misspells(key));
        let later = entries.iter().any(|(key, _)| LATER.contains(&&*key.text));
        fields.finish(LATER, &self.file.clone(), &mut self.diagnostics);
        if let (Some(zone), None) = (zone, cron) {
            self.error(code::CONFLICT, "`timezone` is a setting of `cron`", zone);
        }
        match (cron, every, assets) {
            (Some(cron), None, None) => {
                let zone = match zone {
                    Some(zone) => Some(self.zone(zone)?),
                    None => None,
                };
                let (schedule, words) = self.cron(cron, zone.as_ref().map_or(&common.zone, |(_, zone)| zone))?;
                Some((schedule, zone.map_or(words.clone(), |(name, _)| format!("{words} {name}"))))
            }
            (None, Some(every), None) => self.every(every, common),
            (None, None, Some(assets)) => {
                let expression = self.assets(assets, 0)?;
                let words = in_words(&expression, false);
                Some((Schedule::Assets(expression), words))
            }
            (None, None, None) => {
                if !later && !misspelt {
                    self.nothing_says_when(node);
                }
                None
            }
            _ => {
                let hint = "for several schedules write a list; any of them lets the DAG run";
                self.error_with_hint(code::CONFLICT, "a schedule is one of `cron`, `every` and `assets`", node, hint);
                None
            }
        }
    }

    fn nothing_says_when(&mut self, node: &Node) {
        let hint = "write cron text, `@daily`, `{every: 15m}`, or `{assets: [sales]}`";
        self.error_with_hint(code::BAD_SCHEDULE, "nothing says when", node, hint);
    }

    /// A preset, or cron text.
    fn cron(&mut self, node: &Node, zone: &TimeZone) -> Option<(Schedule, String)> {
        let text = self.text(node, "`schedule`")?;
        let text = text.trim();
        let expression = match PRESETS.iter().find(|(preset, _)| *preset == text) {
            Some((_, None)) => return Some((Schedule::Once, text.to_owned())),
            Some((_, Some(expression))) => expression,
            None if text.starts_with('@') => {
                let names = || PRESETS.iter().map(|(name, _)| *name);
                let hint = match did_you_mean(text, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("one of {}; or cron text, or `{{every: 15m}}`", names().collect::<Vec<_>>().join(", ")),
                };
                self.error_with_hint(code::BAD_SCHEDULE, format!("there is no preset `{text}`"), node, hint);
                return None;
            }
            None => text,
        };
        match Cron::new(expression, zone.clone()) {
            Ok(cron) => Some((Schedule::Cron(cron), text.to_owned())),
            Err(error) => {
                let hint = match &error {
                    BadCron::Never { .. } => {
                        "no year has a day that fits its day-of-month and month; for a month's last day write `L`: `0 2 L * *`"
                            .to_owned()
                    }
                    BadCron::Unreadable { .. } if looks_like_asset(text) => {
                        format!("for a run after an asset was updated write `{{assets: [{text}]}}`")
                    }
                    BadCron::Unreadable { .. } => {
                        "five fields: minute hour day-of-month month day-of-week, such as `0 2 * * *` for 2 o'clock every night"
                            .to_owned()
                    }
                };
                self.error_with_hint(code::BAD_SCHEDULE, error.to_string(), node, hint);
                None
            }
        }
    }

    fn every(&mut self, node: &Node, common: &Common) -> Option<(Schedule, String)> {
        let every = self.duration(node, "`every`")?;
        if every < Duration::from_secs(1) {
            self.error(code::BAD_SCHEDULE, "`every` must be at least a second", node);
            return None;
        }
        let words = SignedDuration::try_from(every).map_or_else(|_| "@every".to_owned(), |every| format!("every {every:#}"));
        Some((Schedule::Every(Every::new(every, common.anchor)), words))
    }

    /// A name, a list (all of them), or one of `any` and `all`.
    fn assets(&mut self, node: &Arc<Node>, depth: usize) -> Option<AssetExpr> {
        if depth > ASSETS_DEEP_MAX {
            self.error(code::YAML_TOO_LARGE, format!("conditions on assets are nested more than {ASSETS_DEEP_MAX} deep"), node);
            return None;
        }
        let (items, is_all) = match &node.value {
            Value::Scalar { .. } => {
                let name = self.asset_name(node)?;
                self.awaited_assets.push((name.clone(), node.span(&self.file)));
                return Some(AssetExpr::Asset(name));
            }
            Value::List(_) if depth == 0 => (node, true),
            Value::List(_) => {
                let hint = "write `{all: [...]}` or `{any: [...]}`, so that it says which";
                self.error_with_hint(code::WRONG_TYPE, "a list inside of a list of assets", node, hint);
                return None;
            }
            Value::Map(entries) => {
                let mut fields = Fields::new("AssetExpression", entries);
                let (any, all) = (fields.take_present("any"), fields.take_present("all"));
                fields.finish(&[], &self.file.clone(), &mut self.diagnostics);
                match (any, all) {
                    (Some(any), None) => (any, false),
                    (None, Some(all)) => (all, true),
                    (Some(_), Some(_)) => {
                        self.error_with_hint(
                            code::CONFLICT,
                            "`any` and `all` in one mapping",
                            node,
                            "put one inside of the other",
                        );
                        return None;
                    }
                    (None, None) => {
                        self.error(code::MISSING_KEY, "a condition on assets has `any` or `all`", node);
                        return None;
                    }
                }
            }
        };
        let Some(list) = items.as_list() else {
            self.error(code::WRONG_TYPE, format!("`any` and `all` take a list of assets, this is {}", items.describe()), items);
            return None;
        };
        if list.is_empty() {
            self.error_with_hint(code::BAD_SCHEDULE, "there are no assets to wait for", items, "name at least one");
            return None;
        }
        let read: Vec<_> = list.iter().map(|item| self.assets(item, depth + 1)).collect();
        let read: Vec<AssetExpr> = read.into_iter().collect::<Option<_>>()?;
        Some(if is_all { AssetExpr::All(read) } else { AssetExpr::Any(read) })
    }

    /// The name of an asset: any text, as Airflow's are often URIs.
    pub(super) fn asset_name(&mut self, node: &Node) -> Option<Arc<str>> {
        let name = self.text(node, "the name of an asset")?;
        let wrong = if name.trim().is_empty() || name.trim() != &*name {
            "is empty, or begins or ends with a blank"
        } else if name.chars().count() > ASSET_NAME_LENGTH_MAX || name.chars().any(char::is_control) {
            "has control characters, or more than 250 characters"
        } else if crate::template::is_template(&name) {
            "has a template: assets have plain names, so that it is known beforehand who updates what"
        } else {
            return Some(name);
        };
        self.error(code::BAD_VALUE, format!("the name of an asset {wrong}"), node);
        None
    }

    fn deadlines(&mut self, node: &Node, zone: &TimeZone) -> Vec<Deadline> {
        let Some(items) = node.as_list() else {
            let hint = "write `deadlines: [{by: \"06:00\"}]`, or `[{within: 2h}]`";
            self.error_with_hint(code::WRONG_TYPE, format!("`deadlines` is a list, this is {}", node.describe()), node, hint);
            return Vec::new();
        };
        if items.len() > SCHEDULES_MAX {
            self.error(code::BAD_VALUE, format!("a DAG has at most {SCHEDULES_MAX} deadlines, this has {}", items.len()), node);
            return Vec::new();
        }
        items.iter().filter_map(|item| self.deadline(item, zone)).collect()
    }

    fn deadline(&mut self, node: &Node, zone: &TimeZone) -> Option<Deadline> {
        const REFERENCES: &[(&str, Reference)] =
            &[("logical_date", Reference::LogicalDate), ("queued_at", Reference::QueuedAt), ("started_at", Reference::StartedAt)];
        let entries = self.map(node, "a deadline")?;
        let mut fields = Fields::new("Deadline", entries);
        let (by, own_zone) = (fields.take_present("by"), fields.take_present("timezone"));
        let (within, of) = (fields.take_present("within"), fields.take_present("of"));
        let misspelt = fields.misspells("by") || fields.misspells("within");
        fields.finish(LATER_OF_DEADLINES, &self.file.clone(), &mut self.diagnostics);
        match (by, within) {
            (Some(by), None) => {
                if let Some(of) = of {
                    self.error(code::CONFLICT, "`of` is a setting of `within`", of);
                }
                let zone = match own_zone {
                    Some(node) => self.zone(node)?.1,
                    None => zone.clone(),
                };
                Some(Deadline::By { at: self.time_of_day(by)?, zone })
            }
            (None, Some(within)) => {
                if let Some(zone) = own_zone {
                    self.error(code::CONFLICT, "`timezone` is a setting of `by`", zone);
                }
                let of = of.map(|node| self.choice(node, "`of`", REFERENCES));
                Some(Deadline::Within {
                    span: self.duration_above_zero(within, "`within`")?,
                    of: of.unwrap_or(Some(Reference::StartedAt))?,
                })
            }
            (None, None) => {
                if !misspelt {
                    let hint = "write `{by: \"06:00\"}` or `{within: 2h}`";
                    self.error_with_hint(code::MISSING_KEY, "the deadline says no time", node, hint);
                }
                None
            }
            (Some(_), Some(_)) => {
                self.error_with_hint(code::CONFLICT, "a deadline has `by` or `within`", node, "make two deadlines of it");
                None
            }
        }
    }

    fn time_of_day(&mut self, node: &Node) -> Option<jiff::civil::Time> {
        let text = self.text(node, "`by`")?;
        let time = text.trim().parse().ok();
        if time.is_none() {
            let message = format!("`by` is not a time of day: `{text}`");
            self.error_with_hint(code::BAD_DATE, message, node, "write hours and minutes with two digits each: `\"06:00\"`");
        }
        time
    }
}

/// One word, which no cron text is.
fn looks_like_asset(text: &str) -> bool {
    !text.contains(char::is_whitespace) && text.chars().next().is_some_and(char::is_alphabetic)
}

/// `sales and (ecb or fed)`
fn in_words(expression: &AssetExpr, inside: bool) -> String {
    let (several, joint) = match expression {
        AssetExpr::Asset(name) => return name.to_string(),
        AssetExpr::Any(several) => (several, " or "),
        AssetExpr::All(several) => (several, " and "),
    };
    let words = several.iter().map(|one| in_words(one, several.len() > 1)).collect::<Vec<_>>().join(joint);
    if inside && several.len() > 1 { format!("({words})") } else { words }
}
