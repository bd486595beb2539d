//! When a DAG runs, and by when it must be done.

use super::value::TextOrNumber;
use schemars::JsonSchema;

/// When a DAG runs.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Schedules {
    /// Cron text or a preset.
    Text(String),
    /// One of the other ways.
    Mapping(Schedule),
    /// Several; any of them lets the DAG run.
    List(Vec<TextOrSchedule>),
}

/// Cron text or a preset, or a mapping.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum TextOrSchedule {
    /// Cron text or a preset.
    Text(String),
    /// A mapping.
    Mapping(Schedule),
}

/// One of cron, every, assets.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Schedule {
    /// Cron text or a preset.
    pub cron: Option<String>,
    /// Of cron: an IANA name; the DAG's by default.
    pub timezone: Option<String>,
    /// `15m`, `1h30m`, or seconds: elapsed time, from `start_date` on.
    pub every: Option<TextOrNumber>,
    /// When assets were updated: a name, a list (all of them), or `{any: [...]}`, `{all: [...]}`.
    pub assets: Option<Assets>,
}

/// Which assets must have been updated.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum Assets {
    /// This one.
    Name(String),
    /// All of them.
    All(Vec<NameOrAssets>),
    /// By their keys.
    Expression(AssetExpression),
}

/// An asset, or a condition on several.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub enum NameOrAssets {
    /// An asset.
    Name(String),
    /// A condition.
    Expression(AssetExpression),
}

/// One of any, all.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AssetExpression {
    /// One of them suffices.
    pub any: Option<Vec<NameOrAssets>>,
    /// All are needed.
    pub all: Option<Vec<NameOrAssets>>,
}

/// What data a scheduled run stands for.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum DataInterval {
    /// The logical date is the time of the schedule; the interval has no length.
    Tick,
    /// The interval ends at the time of the schedule, and begins, with the logical date, at the one before.
    Classic,
}

/// A deadline of a DAG's runs: one of by, within.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Deadline {
    /// A time of day, `"06:00"`: the first one after the run was to begin.
    pub by: Option<String>,
    /// Of by: an IANA name; the DAG's by default.
    pub timezone: Option<String>,
    /// How long a run may take.
    pub within: Option<TextOrNumber>,
    /// Of within: from when on; `started_at` by default.
    pub of: Option<DeadlineReference>,
}

/// From when on a deadline's span is counted.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum DeadlineReference {
    /// The run's logical date.
    LogicalDate,
    /// When the run was created.
    QueuedAt,
    /// When it began.
    StartedAt,
}
