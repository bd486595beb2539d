//! How a running statement looked at one moment, as it is kept: JSON with its version, beside the log and not part of it. Losing samples
//! loses no fact of the run; they go with it.

use backstop_core::{InstanceId, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Samples kept of one attempt, at most: when it goes on for longer, the last one is replaced.
pub const SAMPLES_MAX: u32 = 240;

/// A sample with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// The run.
    pub run: RunId,
    /// The instance.
    pub instance: InstanceId,
    /// The try.
    pub try_number: u32,
    /// From 0; below [`SAMPLES_MAX`]. One that is kept at a place that is taken replaces what is there.
    pub place: u32,
    /// When.
    pub at: Timestamp,
    /// On which server.
    pub server: String,
    /// The server's name of the session.
    pub session: String,
    /// What was seen.
    pub sample: Sample,
}

/// What was seen of a statement. Absent is what the server does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The version of this form.
    pub v: u32,
    /// The statement's number in its script; 0 is a question of our own.
    pub statement: u32,
    /// Its first words.
    pub summary: String,
    /// How long it runs.
    pub elapsed_ms: u64,
    /// How long it took before, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual: Option<UsualTime>,
    /// In the server's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What it waits for, in the server's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait: Option<String>,
    /// Who keeps it waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<Blocking>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_ms: Option<u64>,
    /// How far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<HowFar>,
    /// Rows so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

/// How long a statement took in earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsualTime {
    /// Half of them took no longer.
    pub p50_ms: u64,
    /// 95 of 100 took no longer.
    pub p95_ms: u64,
    /// How many are known.
    pub of: u32,
}

/// A session that keeps another waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blocking {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What the client says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// In the server's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// What it does, in words that hold no values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// How long its transaction is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction_ms: Option<u64>,
    /// The run whose session it is, where it is one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Its task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// How far a statement is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HowFar {
    /// In the server's words.
    pub phase: String,
    /// Done so far.
    pub done: u64,
    /// Of so much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Of what.
    pub unit: String,
}

impl fmt::Display for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(run), Some(task)) = (&self.run, &self.task) {
            write!(f, "task `{task}` of run {run}")?;
            return match &self.session {
                Some(session) => write!(f, " (session {session})"),
                None => Ok(()),
            };
        }
        let Some(session) = &self.session else {
            return f.write_str(self.statement.as_deref().unwrap_or("somebody who cannot be named"));
        };
        let is_number = session.bytes().all(|byte| byte.is_ascii_digit());
        write!(f, "{}{session}", if is_number { "session " } else { "" })?;
        let user = self.user.as_ref().map(|user| format!("user {user}"));
        let host = self.host.as_ref().map(|host| format!("from {host}"));
        let who: Vec<&str> = [&self.application, &user, &host].into_iter().flatten().map(String::as_str).collect();
        if !who.is_empty() {
            write!(f, " ({})", who.join(", "))?;
        }
        match (&self.statement, &self.state) {
            (Some(statement), Some(state)) if state.starts_with("idle") => write!(f, ": {state} after {statement}"),
            (Some(statement), _) => write!(f, ": {statement}"),
            (None, Some(state)) => write!(f, ": {state}"),
            (None, None) => Ok(()),
        }
    }
}

/// `statement 2 runs for 12 s, usually 1 s (p95 2 s of 20): blocked by session 123 (psql, user marie): UPDATE sales; since 10 s`.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {} runs for {}{}", self.statement, time(self.elapsed_ms), Standing(self))
    }
}

impl Sample {
    /// As it was seen last, of a statement of which nobody knows whether it still runs.
    pub fn seen_last(&self) -> String {
        format!("statement {} had run for {}{}", self.statement, time(self.elapsed_ms), Standing(self))
    }

    /// The same without the statement and its time, for where both are seen already; empty when there is no more to say.
    pub fn standing(&self) -> String {
        Standing(self).to_string().trim_start_matches([',', ';', ' ']).to_owned()
    }

    /// Whoever looks on is told at once when somebody else keeps it waiting than before.
    pub fn is_news_after(&self, before: Option<&Self>) -> bool {
        let blockers = |sample: &Self| -> Vec<Option<String>> {
            sample.blocked_by.iter().map(|blocking| blocking.session.clone()).collect()
        };
        before.map_or(!self.blocked_by.is_empty(), |before| blockers(before) != blockers(self))
    }
}

struct Standing<'a>(&'a Sample);

impl fmt::Display for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(sample) = self;
        if let Some(usual) = &sample.usual {
            write!(f, ", usually {} (p95 {}, of {})", time(usual.p50_ms), time(usual.p95_ms), usual.of)?;
        }
        if let Some(HowFar { phase, done, total, unit }) = &sample.progress {
            match total {
                Some(total) if *total > 0 => write!(f, "; {phase} {} %", done.saturating_mul(100) / total)?,
                _ => write!(f, "; {phase}, {done} {unit}")?,
            }
        }
        if let Some(rows) = sample.rows {
            write!(f, "; {rows} rows so far")?;
        }
        for (place, blocking) in sample.blocked_by.iter().enumerate() {
            write!(f, "{}{blocking}", if place == 0 { "; blocked by " } else { " and " })?;
        }
        match (sample.blocked_by.is_empty(), sample.blocked_ms, &sample.wait) {
            (false, Some(since), _) => write!(f, "; since {}", time(since)),
            (true, _, Some(wait)) => write!(f, "; waits for {wait}"),
            _ => Ok(()),
        }
    }
}

fn time(ms: u64) -> String {
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..120_000 => format!("{} s", ms / 1000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms / 60_000 % 60),
    }
}

/// A statement of an earlier run: what this time's is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastStatement {
    /// The task.
    pub task: String,
    /// The statement's number.
    pub number: u32,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// Rows changed, or rows received where the server does not tell of changes.
    pub rows: u64,
}
